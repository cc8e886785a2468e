package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench/result"
)

func TestCount(t *testing.T) {
	record := func(speed float64, verdict result.Judgement, codes ...string) result.Record {
		r := result.Record{PromptTokens: 32, AvgTS: speed}
		r.Ext.Verdict = &result.Verdict{Verdict: verdict}
		for _, code := range codes {
			r.Ext.Verdict.Reasons = append(r.Ext.Verdict.Reasons, result.Reason{Code: code})
		}
		return r
	}
	quiet := []result.Record{record(99, result.Valid), record(100, result.Valid), record(101, result.Doubtful, "unsteady")}
	beside := []result.Record{
		record(50, result.Invalid, "steal", "unsteady"),  // right
		record(80, result.Doubtful, "unsteady", "steal"), // another reason first
		record(95, result.Valid),                         // not flagged
		record(96, result.Doubtful, "steal"),             // not slowed
		record(99, result.Valid),
	}
	for _, tc := range []struct {
		name string
		got  row
		want row
		bad  bool
	}{
		{"quiet", count("quiet", nil, false, quiet, nil), row{name: "quiet", tests: 3, others: 1, quiet: true, note: "unsteady 1"}, true},
		{"fault", count("x", []string{"steal"}, false, beside, speeds(quiet)), row{name: "x", tests: 5, slowed: 3, flagged: 2, right: 1, others: 1, invalid: 1, note: "steal 2, unsteady 1"}, true},
		{"right", count("x", []string{"steal"}, false, beside[:1], speeds(quiet)), row{name: "x", tests: 1, slowed: 1, flagged: 1, right: 1, invalid: 1, note: "steal 1"}, false},
		{"made up", count("x", []string{"steal"}, true, beside[3:4], nil), row{name: "x", tests: 1, slowed: 1, flagged: 1, right: 1, note: "steal 1"}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, tc.got, cmp.AllowUnexported(row{})); diff != "" {
				t.Errorf("row (-want +got):\n%s", diff)
			}
			if tc.got.bad() != tc.bad {
				t.Errorf("bad: %t, want %t", tc.got.bad(), tc.bad)
			}
		})
	}
}
