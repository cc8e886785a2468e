package policy_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/sparecores/benchmark-llm/bench/policy"
)

// BenchmarkReplay replays recorded servers, which is what a policy costs: all its
// decisions before and inside of tests.
func BenchmarkReplay(b *testing.B) {
	servers, err := policy.ReadRecorded(bytes.NewReader(readFixture(b)))
	if err != nil {
		b.Fatal(err)
	}
	for _, rule := range policy.Rules() {
		name, _, _ := strings.Cut(strings.TrimPrefix(rule.Name, "("), " ")
		b.Run("rule="+strings.TrimSuffix(name, ")"), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if r := policy.Replay(servers, rule, policy.ReplayOptions{}); r.Rows == 0 {
					b.Fatal("no rows")
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(servers)), "ns/server")
		})
	}
}

func BenchmarkReadRecorded(b *testing.B) {
	data := readFixture(b)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := policy.ReadRecorded(bytes.NewReader(data)); err != nil {
			b.Fatal(err)
		}
	}
}
