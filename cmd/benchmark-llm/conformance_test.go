//go:build cgo

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// keyFields are the fields that tell which test a row is, with which settings.
var keyFields = []string{
	"model_type", "n_batch", "n_ubatch", "n_threads", "cpu_mask", "cpu_strict", "poll", "type_k", "type_v", "n_gpu_layers",
	"n_cpu_moe", "split_mode", "main_gpu", "no_kv_offload", "flash_attn", "devices", "tensor_split", "tensor_buft_overrides",
	"load_mode", "lazy_mode", "embeddings", "no_op_offload", "no_host", "repack", "fit_target", "fit_min_ctx", "n_prompt", "n_gen", "n_depth",
}

// rowsOf returns the key fields of each row, without some.
func rowsOf(t *testing.T, lines []byte, without map[string]bool) (rows []string) {
	t.Helper()
	for line := range bytes.Lines(lines) {
		var fields map[string]any
		if err := json.Unmarshal(line, &fields); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		fields["n_ubatch"] = min(fields["n_ubatch"].(float64), fields["n_batch"].(float64)) // llama_context lowers it, and our records say so
		var row []string
		for _, f := range keyFields {
			if _, ok := fields[f]; !ok {
				t.Fatalf("no field %s in %q", f, line)
			}
			if !without[f] {
				row = append(row, fmt.Sprintf("%s=%v", f, fields[f]))
			}
		}
		rows = append(rows, strings.Join(row, " "))
	}
	return rows
}

// The rows of llama-bench's command lines are those of llama-bench, in its order, or the
// line says what differs.
func TestConformance(t *testing.T) {
	t.Parallel()
	const tiny = "tiny.Q4_K_M.gguf"
	file := filepath.Join(t.TempDir(), tiny)
	if out, err := exec.Command("benchmark-llm", "models", "synth", tiny, "-o", file).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	table, err := os.ReadFile(filepath.Join("testdata", "conformance", "lines.txt"))
	if err != nil {
		t.Fatal(err)
	}
	published, seen := 0, map[string]bool{}
	for line := range strings.Lines(string(table)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		parts := strings.SplitN(strings.TrimSpace(line), " |", 3)
		if len(parts) != 3 {
			t.Fatalf("%q has not three parts", line)
		}
		if seen[parts[1]] {
			t.Errorf("%s is there twice", parts[1])
		}
		seen[parts[1]] = true
		if parts[0] != "help" {
			published++
		}
		line, differs := withJSONLines(strings.TrimSpace(parts[1])), strings.TrimSpace(parts[2])
		if strings.Contains(parts[1], "-t 2") || strings.Contains(parts[1], "2,1") || strings.Contains(parts[1], "1,2") {
			if runtime.NumCPU() < 2 {
				t.Fatal("this test needs two CPUs")
			}
		}
		t.Run(parts[1], func(t *testing.T) {
			t.Parallel()
			if !strings.Contains(line, "-r ") {
				line += " -r 1"
			}
			if !strings.Contains(line, "-t ") && !strings.Contains(line, "--threads ") {
				line += " -t 1"
			}
			kind, why, _ := strings.Cut(differs, ": ")
			current := line
			if kind == "old" {
				former, now, ok := strings.Cut(why, " is ")
				if !ok || !strings.Contains(line, former) {
					t.Fatalf("%q does not tell what the line is today", differs)
				}
				current = strings.Replace(line, former, now, 1)
			}
			var log bytes.Buffer
			theirs := exec.Command(filepath.Join("..", "..", "scripts", "llama-tool"), append([]string{"llama-bench", "-m", file}, strings.Fields(current)...)...)
			theirs.Stderr = &log
			want, err := theirs.Output() // it also fails if one row fails
			if len(want) == 0 || bytes.HasPrefix(want, []byte("usage:")) {
				t.Fatalf("llama-bench: %v\n%s", err, log.Bytes())
			}
			log.Reset()
			ours := exec.Command("benchmark-llm", append([]string{"run", "--results-dir", "none", "--timeout", "0s", "-m", file}, strings.Fields(line)...)...)
			ours.Stderr = &log
			got, err := ours.Output()
			if refused := len(got) == 0; refused != (kind == "refused") || refused && !slices.Contains([]int{exitUsage, exitModel, exitLibrary}, ours.ProcessState.ExitCode()) {
				t.Fatalf("%v, and it is to be %q\n%s", err, differs, log.Bytes())
			}
			if kind == "refused" {
				return
			}
			without := map[string]bool{kind: true}
			if !strings.Contains(parts[1], "-fa ") && !strings.Contains(parts[1], "--flash-attn ") {
				without["flash_attn"] = true // it is on unless it is given: the default suite's default
			}
			wanted, rows := rowsOf(t, want, without), rowsOf(t, got, without)
			if kind == "repeated" {
				wanted = distinct(wanted)
			}
			if diff := cmp.Diff(wanted, rows); diff != "" {
				t.Errorf("(-llama-bench +ours)\n%s", diff)
			}
		})
	}
	if published < 120 {
		t.Errorf("only %d published lines", published)
	}
}

// distinct returns the rows without repeated ones.
func distinct(rows []string) (once []string) {
	for _, r := range rows {
		if !slices.Contains(once, r) {
			once = append(once, r)
		}
	}
	return once
}

// withJSONLines replaces the format of stdout, or gives one.
func withJSONLines(line string) string {
	fields := strings.Fields(line)
	for i, f := range fields {
		if f == "-o" || f == "--output" {
			fields[i+1] = "jsonl"
			return strings.Join(fields, " ")
		}
	}
	return line + " -o jsonl"
}
