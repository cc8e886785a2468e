package roofline

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/sparecores/benchmark-llm/bench/report"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// Formats are the output formats, the default first.
func Formats() []string { return []string{"table", "json"} }

// Write writes the limits of devices in one of Formats. width limits a table, in columns;
// 0: no limit.
func Write(w io.Writer, format string, limits []result.DeviceLimits, width int) error {
	if format == "json" {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(limits)
	}
	const vector, matrix = "matrix-vector GB/s", "matrix-matrix GFLOP/s"
	header := table.Row{"device", "weights", "buffer", vector, matrix}
	var rows []table.Row
	for _, d := range limits {
		for _, t := range d.Types {
			row := table.Row{report.OneLine(d.Device), t.Type, report.OneLine(t.Buffer), rate(t.VectorBytesPerSecond), rate(t.MatrixOpsPerSecond)}
			if t.Reason != "" {
				row[3], row[4] = "-", "-"
			}
			rows = append(rows, row)
		}
		if d.ReadBytesPerSecond > 0 {
			rows = append(rows, table.Row{report.OneLine(d.Device), "plain read", "-", rate(d.ReadBytesPerSecond), "-"})
		}
	}
	text := report.Table(header, rows, report.TableOptions{Right: []string{vector, matrix}, Expendable: []string{"buffer"}, Width: width})
	_, err := fmt.Fprintf(w, "%s\n%s\n", text, strings.Join(lines(limits), "\n"))
	return err
}

func rate(perSecond float64) string { return result.FormatRate(perSecond / 1e9) }

// lines stand below the table.
func lines(limits []result.DeviceLimits) (all []string) {
	for _, d := range limits {
		text := Where(d) + ": best of several passes over " + humanize.IBytes(d.WeightsBytes) + " of weights"
		if d.CacheBytes > 0 {
			text += ", caches of " + humanize.IBytes(d.CacheBytes)
		}
		all = append(all, text)
		for _, t := range d.Types {
			if t.Reason != "" {
				all = append(all, report.OneLine(fmt.Sprintf("%s, %s: not measured: %s", d.Device, t.Type, t.Reason)))
			}
		}
	}
	return all
}

// Where is a device with its threads: "CPU with 8 threads".
func Where(d result.DeviceLimits) string {
	switch name := report.OneLine(d.Device); d.Threads {
	case 0:
		return name
	case 1:
		return name + " with 1 thread"
	default:
		return fmt.Sprintf("%s with %d threads", name, d.Threads)
	}
}

// Sentence says what a device reaches with its first type of weights: "CPU with 2 threads:
// 14.2 GB/s of q4_K weights, 21.3 GB/s plain read, 0.41 TFLOP/s".
func Sentence(d result.DeviceLimits) string {
	var parts []string
	for _, t := range d.Types {
		if t.Reason == "" {
			parts = append(parts, result.FormatBytesPerSecond(t.VectorBytesPerSecond)+" of "+t.Type+" weights", result.FormatOpsPerSecond(t.MatrixOpsPerSecond))
			break
		}
	}
	if d.ReadBytesPerSecond > 0 {
		parts = append(parts, result.FormatBytesPerSecond(d.ReadBytesPerSecond)+" plain read")
	}
	if len(parts) == 0 {
		return Where(d) + ": not measured"
	}
	return Where(d) + ": " + strings.Join(parts, ", ")
}
