package report

import (
	"fmt"
	"math"
	"strings"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// limitsLines is a sentence about a model: what its longest generation and its longest
// prompt without a depth reach of the machine's limits. There is none if the records have
// no limits.
func limitsLines(records []*result.Record) []string {
	longest := map[result.Kind]*result.Record{}
	for _, r := range records {
		t := r.Test()
		if l := longest[t.Kind()]; r.Ext.Limits != nil && t.Depth == 0 && (l == nil || t.Tokens() > l.Test().Tokens()) {
			longest[t.Kind()] = r
		}
	}
	var parts []string
	if r := longest[result.TextGeneration]; r != nil {
		parts = append(parts, memoryText(r))
	}
	if r := longest[result.PromptProcessing]; r != nil {
		parts = append(parts, computeText(r))
	}
	if len(parts) == 0 {
		return nil
	}
	return []string{strings.Join(parts, "; ")}
}

// memoryText says how fast a test reads.
func memoryText(r *result.Record) string {
	l := r.Ext.Limits
	text := fmt.Sprintf("%s: %s of weights and KV cache read", r.Test(), result.FormatBytesPerSecond(l.BytesPerSecond))
	switch {
	case l.InCache:
		text += ", which the CPU's caches can hold"
	case l.MemoryShare != nil:
		text += fmt.Sprintf(", %s of what this memory delivers", wholePercent(*l.MemoryShare))
	}
	return text
}

// computeText says how fast a test computes.
func computeText(r *result.Record) string {
	l := r.Ext.Limits
	text := fmt.Sprintf("%s: %s", r.Test(), result.FormatOpsPerSecond(l.OpsPerSecond))
	if l.ComputeShare != nil {
		text += fmt.Sprintf(", %s of this library's best on %s", wholePercent(*l.ComputeShare), deviceText(l.Device))
	}
	return text
}

func deviceText(name string) string {
	if name == "CPU" {
		return "this CPU"
	}
	return printable(name)
}

// wholePercent is a share in percent: "83 %".
func wholePercent(share float64) string { return fmt.Sprintf("%.0f %%", math.Round(100*share)) }
