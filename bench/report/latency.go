package report

import (
	"fmt"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// latencies are one line for each record of an end-to-end test.
func latencies(records []*result.Record) []string {
	var lines []string
	for _, r := range records {
		if e := r.Ext.E2E; e != nil {
			line := fmt.Sprintf("%s: first token after %s", r.Test(), latency(e.FirstToken))
			if e.InterToken != nil {
				line += fmt.Sprintf("; between tokens %s", latency(*e.InterToken))
			}
			lines = append(lines, line)
		}
	}
	return lines
}

// latency is a distribution, printed in milliseconds.
func latency(l result.Latency) string {
	ms := func(seconds float64) string { return result.FormatRate(seconds * 1e3) }
	return fmt.Sprintf("%s ms (p90 %s, p99 %s, max %s; n = %d)", ms(l.Median), ms(l.P90), ms(l.P99), ms(l.Max), l.N)
}
