package policy_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench/policy"
	"github.com/sparecores/benchmark-llm/bench/result"
)

func readFixture(t testing.TB) []byte {
	t.Helper()
	data, err := os.ReadFile("testdata/recorded.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func gzipped(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// The numbers of the fixture are small enough to follow by hand. Every test in
// it spends 1 s on loading.
func TestReplay(t *testing.T) {
	servers, err := policy.ReadRecorded(bytes.NewReader(readFixture(t)))
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]policy.RecordedServer{}
	for _, s := range servers {
		byName[s.Name] = s
	}
	const all, crash, previous, fastest, byDefault = 0, 1, 2, 3, 4 // of policy.Rules
	type total struct {
		Total, Lost float64 // seconds
		Rows, Wrong int
	}
	slow := policy.ReplayOptions{Censored: policy.CensoredSlow}
	once := policy.ReplayOptions{LoadOnce: true}
	for _, tt := range []struct {
		server string
		rule   int
		o      policy.ReplayOptions
		want   total
	}{
		// Wait 5, probe 2, tests 7 + 49 + 104 + 9.1; pp512 at 16 t/s would take 192 s of 104.
		{"made/slow-prompt", all, policy.ReplayOptions{}, total{176.1, 104, 3, 0}},
		{"made/slow-prompt", all, once, total{173.1, 103, 3, 0}},
		{"made/slow-prompt", previous, policy.ReplayOptions{}, total{72.1, 0, 3, 0}},
		{"made/slow-prompt", fastest, policy.ReplayOptions{}, total{72.1, 0, 3, 0}},
		{"made/slow-prompt", byDefault, policy.ReplayOptions{}, total{72.1, 0, 3, 0}},
		// pp16 predicts 4.8 s for pp128, which was killed. A pass that just does not
		// fit is (65-1)/6 s, within every margin; an endless one is given up after
		// 1.3 or 2 times that, and 1 s of loading.
		{"made/surprise", fastest, policy.ReplayOptions{}, total{66.6, 65, 1, 0}},
		{"made/surprise", fastest, slow, total{1.6 + 1 + 1.3*64/6, 1 + 1.3*64/6, 1, 0}},
		{"made/surprise", byDefault, slow, total{1.6 + 1 + 2*64./6, 1 + 2*64./6, 1, 0}},
		// Three crashes of 2 s; without its group's end, pp128 crashes too.
		{"made/crash", all, policy.ReplayOptions{}, total{13, 0, 1, 0}},
		{"made/crash", crash, policy.ReplayOptions{}, total{11, 0, 1, 0}},
		// 1 t/s at tg16, ten times that at tg128: skipped wrongly.
		{"made/late-start", all, policy.ReplayOptions{}, total{143.094, 0, 2, 0}},
		{"made/late-start", previous, policy.ReplayOptions{}, total{82, 0, 1, 1}},
		// A model's first test that was killed: nothing is saved.
		{"made/cold", byDefault, slow, total{41, 41, 0, 0}},
	} {
		rule := policy.Rules()[tt.rule]
		t.Run(fmt.Sprintf("%s %s %+v", tt.server, rule.Name, tt.o), func(t *testing.T) {
			got := policy.Replay([]policy.RecordedServer{byName[tt.server]}, rule, tt.o)
			near := cmp.Comparer(func(a, b float64) bool { return a-b < 1e-3 && b-a < 1e-3 })
			if diff := cmp.Diff(tt.want, total{got.Total.Seconds(), got.Lost.Seconds(), got.Rows, got.Wrong}, near); diff != "" {
				t.Error(diff)
			}
		})
	}

	// Walls of the four servers with a record, sorted: 13, 66.6, 143.1, 171.1 s.
	got := policy.Replay(servers, policy.Rules()[all], policy.ReplayOptions{})
	if median := got.WallMedian.Round(time.Millisecond); median != 104847*time.Millisecond {
		t.Errorf("median wall %v", median)
	}
	if p95 := got.WallP95.Round(time.Millisecond); p95 != 166899*time.Millisecond {
		t.Errorf("95th percentile of the walls %v", p95)
	}
	if got.Servers != 5 || got.WrongShare() != 0 || got.LostShare() <= 0 || got.LostShare() >= 1 {
		t.Errorf("%+v", got)
	}
	if empty := policy.Replay(nil, policy.Rules()[all], policy.ReplayOptions{}); empty != (policy.Replayed{}) || empty.LostShare() != 0 {
		t.Errorf("of nothing: %+v", empty)
	}
	late := policy.Replay([]policy.RecordedServer{byName["made/late-start"]}, policy.Rules()[previous], policy.ReplayOptions{})
	if share := late.WrongShare(); share != 0.5 {
		t.Errorf("%g of the records are lost wrongly, want a half", share)
	}
}

// recorded is a test of a recorded run that took wall seconds of its 100; each
// repetition took sample seconds, 0 if it was killed.
func recorded(test result.Test, wall, sample float64) policy.RecordedTest {
	r := policy.RecordedTest{Kind: test.Kind(), Tokens: test.Tokens(), BudgetSeconds: 100, Outcome: "timeout", WallSeconds: wall}
	if sample > 0 {
		r.Outcome, r.SamplesNs = "ok", slices.Repeat([]int64{int64(sample * 1e9)}, 5)
	}
	return r
}

func TestReplayedModel(t *testing.T) {
	crashed := func(test result.Test) policy.RecordedTest {
		r := recorded(test, 2, 0)
		r.Outcome = "exit"
		return r
	}
	late := recorded(pp(128), 121, 1) // its last repetition came late
	late.SamplesNs[4] = 96e9
	long := recorded(pp(512), 200, 30)
	long.BudgetSeconds = 1000
	const all, crash, previous, fastest, byDefault = 0, 1, 2, 3, 4 // of policy.Rules
	type total struct {
		Total, Lost float64 // seconds
		Rows, Wrong int
	}
	for name, tt := range map[string]struct {
		rule    int
		backend string
		o       policy.ReplayOptions
		tests   []policy.RecordedTest
		want    total
	}{
		"the shortest ends it all": {all, "CPU", policy.ReplayOptions{}, []policy.RecordedTest{
			recorded(pp(16), 41, 0), recorded(tg(16), 7, 1),
		}, total{41, 41, 0, 2}},
		"a longer one ends its kind": {all, "CPU", policy.ReplayOptions{}, []policy.RecordedTest{
			recorded(pp(16), 7, 1), recorded(pp(128), 100, 0), recorded(pp(512), 60, 9), recorded(tg(16), 7, 1),
		}, total{7 + 100 + 7 + 7, 100, 3, 1}},
		"and so does one that is skipped": {previous, "CPU", policy.ReplayOptions{}, []policy.RecordedTest{
			recorded(pp(16), 13, 2.1), recorded(pp(128), 60, 9), long,
		}, total{13 + 7, 0, 2, 2}},
		"the shortest of a kind, later": {fastest, "CPU", policy.ReplayOptions{}, []policy.RecordedTest{
			recorded(pp(16), 7, 1), recorded(tg(16), 100, 0), recorded(tg(128), 7, 1),
		}, total{107, 100, 1, 2}},
		"crashes continue": {all, "CPU", policy.ReplayOptions{}, []policy.RecordedTest{
			crashed(pp(16)), recorded(pp(128), 7, 1), recorded(tg(16), 7, 1),
		}, total{2 + 7 + 7 + 7, 0, 3, 0}},
		"a crash ends its group": {crash, "CPU", policy.ReplayOptions{}, []policy.RecordedTest{
			crashed(pp(16)), recorded(pp(128), 7, 1), recorded(tg(16), 7, 1),
		}, total{2 + 7 + 7, 0, 2, 1}},
		"a crash is tried twice": {byDefault, "CPU", policy.ReplayOptions{}, []policy.RecordedTest{
			crashed(pp(16)), recorded(pp(128), 7, 1), recorded(tg(16), 7, 1),
		}, total{2*2 + 7 + 7 + 7, 0, 3, 0}},
		"the third is the last, and comes last": {byDefault, "CPU", policy.ReplayOptions{}, []policy.RecordedTest{
			crashed(pp(16)), crashed(pp(128)), recorded(pp(512), 7, 1), recorded(tg(16), 7, 1),
		}, total{2*2 + 7 + 2 + 7, 0, 2, 1}},
		"a record that is given up": {fastest, "CPU", policy.ReplayOptions{}, []policy.RecordedTest{late}, total{25 + 1.02*99 - 24, 25 + 1.02*99 - 24, 0, 2}},
		// Half of pp16's time per token fits, the whole does not.
		"a killed test as predicted": {fastest, "CPU", policy.ReplayOptions{}, []policy.RecordedTest{
			recorded(pp(16), 19, 3), recorded(pp(128), 100, 0),
		}, total{19 + 1 + 1.3*99/6 + 7, 1 + 1.3*99/6, 2, 0}},
		"a killed test as fast as can be": {fastest, "CPU", policy.ReplayOptions{Censored: policy.CensoredFast}, []policy.RecordedTest{
			recorded(pp(16), 19, 3), recorded(pp(128), 100, 0),
		}, total{19 + 100 + 7, 100, 2, 0}},
		// A load of 11 s in pp, of 1 and 3 s in tg.
		"one load, of the generations": {all, "CPU", policy.ReplayOptions{LoadOnce: true}, []policy.RecordedTest{
			recorded(pp(16), 17, 1), recorded(tg(16), 6+1./16, 1), recorded(tg(128), 8+1./128, 1),
		}, total{17 + 6 + 1./16 - 2 + 8 + 1./128 - 2 + 7, 0, 4, 0}},
		// 90 s for tg512 fit beside the least setup of 1 s, not beside 30; 99.5 s do
		// not fit beside 1.
		"setup gets less": {fastest, "CPU", policy.ReplayOptions{}, []policy.RecordedTest{
			recorded(tg(16), 30+5*.5+.5/16, .5), recorded(tg(128), 1+5*4.5+4.5/128, 4.5), recorded(tg(512), 95, 18),
		}, total{30 + 2.5 + .5/16 + 1 + 22.5 + 4.5/128 + 95 + 7, 0, 4, 0}},
		"setup stays little": {fastest, "CPU", policy.ReplayOptions{}, []policy.RecordedTest{
			recorded(tg(16), 1+5*.5+.5/16, .5), recorded(tg(128), 30+5*4.5+4.5/128, 4.5), recorded(tg(512), 95, 18),
		}, total{1 + 2.5 + .5/16 + 30 + 22.5 + 4.5/128 + 95 + 7, 0, 4, 0}},
		"setup counts": {fastest, "CPU", policy.ReplayOptions{}, []policy.RecordedTest{
			recorded(tg(16), 1+5*.5+.5/16, .5), recorded(tg(128), 1+5*4.975+4.975/128, 4.975), recorded(tg(512), 95, 18),
		}, total{1 + 2.5 + .5/16 + 1 + 24.875 + 4.975/128 + 7, 0, 3, 1}},
		"a GPU is not predicted by short prompts": {fastest, "CUDA", policy.ReplayOptions{}, []policy.RecordedTest{
			recorded(pp(16), 25, 4), recorded(pp(512), 7, 1),
		}, total{25 + 7 + 7, 0, 3, 0}},
		"a CPU is": {fastest, "CPU", policy.ReplayOptions{}, []policy.RecordedTest{
			recorded(pp(16), 25, 4), recorded(pp(512), 7, 1),
		}, total{25 + 7, 0, 2, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			models := []policy.RecordedModel{
				{Model: "m0", Backend: tt.backend, Tests: tt.tests},
				{Model: "m1", Backend: "CPU", Tests: []policy.RecordedTest{recorded(pp(16), 7, 1)}},
			}
			got := policy.Replay([]policy.RecordedServer{{Models: models}}, policy.Rules()[tt.rule], tt.o)
			near := cmp.Comparer(func(a, b float64) bool { return a-b < 1e-3 && b-a < 1e-3 })
			if diff := cmp.Diff(tt.want, total{got.Total.Seconds(), got.Lost.Seconds(), got.Rows, got.Wrong}, near); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestHalf(t *testing.T) {
	for name, want := range map[string]int{"made/a": 1, "made/c": 0} {
		if got := (policy.RecordedServer{Name: name}).Half(); got != want {
			t.Errorf("%s is in half %d, want %d", name, got, want)
		}
	}
}

func TestReadRecorded(t *testing.T) {
	plain := readFixture(t)
	want, err := policy.ReadRecorded(bytes.NewReader(plain))
	if err != nil {
		t.Fatal(err)
	}
	got, err := policy.ReadRecorded(bytes.NewReader(gzipped(t, plain)))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	spaces := strings.Repeat(" ", 100_000) // longer than a Scanner's own bound
	if got, err = policy.ReadRecorded(strings.NewReader(spaces + string(plain))); err != nil || len(got) != len(want) {
		t.Errorf("a long line: %d servers, %v", len(got), err)
	}
	if m := want[2].Models; len(m) != 2 || m[0].Model != "m0" {
		t.Errorf("models are not in the order of the run: %+v", m)
	}
}

func TestReadRecordedErrors(t *testing.T) {
	good := `{"server":"a/b","cells":[]}` + "\n"
	cell := func(fields string) string { return `{"server":"a/b","cells":[{` + fields + `}]}` }
	const ok = `"kind":"pp","n":16,"budget_s":41,"wall_s":7,"outcome":"ok"`
	for name, tt := range map[string]struct{ in, want string }{
		"nothing":           {"", "no recorded runs in it"},
		"not JSON":          {good + "\n{", "line 3: unexpected end of JSON input"},
		"no server":         {`{}`, `line 1: "server" is missing`},
		"a wait":            {`{"server":"a/b","wait_s":-1}`, `line 1: "wait_s" is -1, outside 0…1e+06`},
		"a long wait":       {`{"server":"a/b","probe_s":1e7}`, `line 1: "probe_s" is 1e+07, outside 0…1e+06`},
		"many lines":        {strings.Repeat(good, 1<<17+1), "line 131073: more than 131072 lines"},
		"a kind":            {cell(`"kind":"xx"`), `line 1: cell 1: "kind" is "xx", neither pp nor tg`},
		"a length":          {cell(`"kind":"pp","n":0`), `line 1: cell 1: "n" is 0, outside 1…16777216 tokens: the lengths of a kind ascend`},
		"a long length":     {cell(`"kind":"pp","n":16777217`), `line 1: cell 1: "n" is 16777217, outside 1…16777216 tokens: the lengths of a kind ascend`},
		"no order":          {cell(ok + `,"samples_ns":[1,1,1,1,1]},{` + ok), `line 1: cell 2: "n" is 16, outside 17…16777216 tokens: the lengths of a kind ascend`},
		"a long budget":     {cell(`"kind":"pp","n":1,"budget_s":1e7`), `line 1: cell 1: "budget_s" is 1e+07, outside 0…1e+06`},
		"a negative time":   {cell(`"kind":"pp","n":1,"budget_s":1,"wall_s":-1`), `line 1: cell 1: "wall_s" is -1, outside 0…1e+06`},
		"a budget":          {cell(`"kind":"pp","n":1,"budget_s":0`), `line 1: cell 1: "budget_s" is 0, outside 0…1e+06`},
		"a time":            {cell(`"kind":"pp","n":1,"budget_s":1,"wall_s":1e9`), `line 1: cell 1: "wall_s" is 1e+09, outside 0…1e+06`},
		"an outcome":        {cell(`"kind":"pp","n":1,"budget_s":1,"outcome":"fine"`), `line 1: cell 1: "outcome" is "fine", none of ok, timeout, exit`},
		"no samples":        {cell(ok), `line 1: cell 1: "samples_ns" is missing from a test that is ok`},
		"too few samples":   {cell(ok + `,"samples_ns":[1]`), `line 1: cell 1: "samples_ns" has 1 values, not 5`},
		"a negative sample": {cell(ok + `,"samples_ns":[1,1,1,1,-1]`), `line 1: cell 1: "samples_ns" has -1, outside 1…1e+15`},
		"an empty sample":   {cell(ok + `,"samples_ns":[1,1,1,1,0]`), `line 1: cell 1: "samples_ns" has 0, outside 1…1e+15`},
		"a long sample":     {cell(ok + `,"samples_ns":[1,1,1,1,1000000000000001]`), `line 1: cell 1: "samples_ns" has 1000000000000001, outside 1…1e+15`},
		"a long line":       {good + strings.Repeat(" ", 1<<20+1), "line 2: longer than 1048576 bytes"},
		"half a gzip":       {string(gzipped(t, []byte(good))[:20]), "line 1: unexpected EOF"},
		"no gzip":           {"\x1f\x8b\x00", "gzip header: unexpected EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := policy.ReadRecorded(strings.NewReader(tt.in))
			if err == nil || err.Error() != tt.want {
				t.Errorf("%v, want %s", err, tt.want)
			}
		})
	}
}

// Whatever the file says, rules only remove, and every record is kept or lost.
func FuzzReadRecorded(f *testing.F) {
	f.Add(readFixture(f))
	f.Add(gzipped(f, readFixture(f)))
	f.Add([]byte(`{"server":"a","cells":[{"kind":"tg","n":1,"budget_s":1e-9,"outcome":"timeout"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		servers, err := policy.ReadRecorded(bytes.NewReader(data))
		if err != nil {
			return
		}
		rows := 0
		for _, s := range servers {
			for _, m := range s.Models {
				for _, c := range m.Tests {
					if len(c.SamplesNs) > 0 {
						rows++
					}
				}
			}
		}
		for _, rule := range policy.Rules() {
			for _, o := range []policy.ReplayOptions{{}, {LoadOnce: true, Censored: policy.CensoredSlow}, {Censored: policy.CensoredFast}} {
				r := policy.Replay(servers, rule, o)
				if r.Rows+r.Wrong != rows || r.Rows < 0 || r.Wrong < 0 || r.Lost < 0 || r.Lost > r.Total {
					t.Fatalf("%s %+v: %+v of %d records", rule.Name, o, r, rows)
				}
			}
		}
	})
}
