package report

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench/result"
)

func withLimits(test result.Test, l result.Limits) result.Outcome {
	o := completed(test, 100)
	o.Record.Ext.Limits = &l
	return o
}

func TestLimitsLines(t *testing.T) {
	t.Parallel()
	memory, compute := 0.8349, 0.7149
	tg := withLimits(result.Test{Gen: 128}, result.Limits{Device: "CPU", BytesPerSecond: 61.34e9, OpsPerSecond: 3e9, MemoryLimit: 73.5e9, MemoryShare: &memory})
	pp := withLimits(result.Test{Prompt: 512}, result.Limits{Device: "CPU", OpsPerSecond: 1.9e12, ComputeLimit: 2.66e12, ComputeShare: &compute})
	for _, tc := range []struct {
		name     string
		outcomes []result.Outcome
		want     []string
	}{
		{"both", []result.Outcome{pp, tg}, []string{
			"tg128: 61.34 GB/s of weights and KV cache read, 83 % of what this memory delivers; pp512: 1.900 TFLOP/s, 71 % of this library's best on this CPU",
		}},
		{"the longest, without a depth", []result.Outcome{
			withLimits(result.Test{Prompt: 16}, result.Limits{OpsPerSecond: 1e9}), pp, withLimits(result.Test{Prompt: 1024, Depth: 8}, result.Limits{OpsPerSecond: 1e9}),
		}, []string{"pp512: 1.900 TFLOP/s, 71 % of this library's best on this CPU"}},
		{"in cache", []result.Outcome{withLimits(result.Test{Gen: 8}, result.Limits{Device: "CPU", BytesPerSecond: 9e9, InCache: true, MemoryLimit: 8e9})}, []string{
			"tg8: 9.000 GB/s of weights and KV cache read, which the CPU's caches can hold",
		}},
		{"a GPU", []result.Outcome{withLimits(result.Test{Prompt: 512}, result.Limits{Device: "CUDA0", OpsPerSecond: 3.1e11, ComputeShare: &compute})}, []string{
			"pp512: 310.0 GFLOP/s, 71 % of this library's best on CUDA0",
		}},
		{"no limit", []result.Outcome{withLimits(result.Test{Gen: 8}, result.Limits{BytesPerSecond: 9e9})}, []string{"tg8: 9.000 GB/s of weights and KV cache read"}},
		{"none", []result.Outcome{completed(result.Test{Gen: 8}, 100)}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var records []*result.Record
			for _, o := range tc.outcomes {
				records = append(records, o.Record)
			}
			if diff := cmp.Diff(tc.want, limitsLines(records)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}

	const sentence = "tg128: 61.34 GB/s of weights and KV cache read"
	var page, document, table bytes.Buffer
	if err := WritePage(&page, Page{Runs: []PageRun{{Document: Document{Outcomes: []result.Outcome{tg}}}}}); err != nil || !strings.Contains(page.String(), sentence) {
		t.Errorf("report.html lacks the sentence; error %v", err)
	}
	if err := WriteDocument(&document, Document{Outcomes: []result.Outcome{tg}}); err != nil || !strings.Contains(document.String(), sentence) {
		t.Errorf("report.md lacks the sentence; error %v", err)
	}
	w := &terminal{w: &table}
	if err := w.Write(tg); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil || !strings.Contains(table.String(), sentence) {
		t.Errorf("the table lacks the sentence; error %v\n%s", err, table.String())
	}
}
