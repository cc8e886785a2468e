package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestUnsteady(t *testing.T) {
	for _, tt := range []struct {
		name  string
		rates []float64
		want  int
	}{
		{"from the start", []float64{100, 101, 99, 100}, 0},
		{"the second records a graph", []float64{60, 50, 100, 101, 99, 100}, 2},
		{"chance on the way", []float64{60, 100, 50, 100, 100, 100}, 1},
		{"one", []float64{100}, 0},
	} {
		if got := unsteady(tt.rates); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}

func TestNumbers(t *testing.T) {
	got := make(map[string]float64)
	numbers("", map[string]any{"power_watts": 300.5, "devices": []any{map[string]any{"layers": 33., "name": "CUDA0"}}, "none": nil}, got)
	if diff := cmp.Diff(map[string]float64{"power_watts": 300.5, "devices.0.layers": 33}, got); diff != "" {
		t.Error(diff)
	}
}

func TestChoose(t *testing.T) {
	all, err := choose("")
	if err != nil || len(all) != len(checks) {
		t.Errorf("%v, %v", all, err)
	}
	if got, err := choose("aborts,devices"); err != nil || len(got) != 2 || checks[got[0]].name != "devices" {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := choose("devices,bogus"); err == nil || !strings.Contains(err.Error(), "large model") {
		t.Errorf("an unknown check: %v", err)
	}
}

func TestReadRecords(t *testing.T) {
	got, err := readRecords([]byte(`{"n_prompt":512,"avg_ts":2}` + "\n" + `{"n_gen":128}` + "\n"))
	if err != nil || len(got) != 2 || got[0].PromptTokens != 512 || got[1].GenTokens != 128 {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := readRecords([]byte("panic: x\n")); err == nil {
		t.Error("garbage is no record")
	}
}

// Without a device the other checks are not made, and a program that fails or
// hangs is a finding.
func TestRunFindsFailures(t *testing.T) {
	program := func(script string) string {
		path := filepath.Join(t.TempDir(), "program")
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o755); err != nil { //nolint:gosec // it is run
			t.Fatal(err)
		}
		return path
	}
	all, err := choose("")
	if err != nil {
		t.Fatal(err)
	}
	o := &options{program: program("echo 'CPU cpu CPU 1 GiB'"), limit: time.Minute, dir: t.TempDir()}
	got := o.run(all)
	if len(got) != 1 || got[0].Status != "failed" || !strings.Contains(got[0].Note, "no device of back-end CUDA") {
		t.Errorf("%+v", got)
	}
	o.program = program("echo 'benchmark-llm: broken' >&2; exit 4")
	if _, err := o.records(nil, "m"); err == nil || !strings.Contains(err.Error(), "exit status 4: benchmark-llm: broken") {
		t.Errorf("%v", err)
	}
	o.program, o.limit = program("exec sleep 600"), 100*time.Millisecond
	if _, err := o.command(nil, o.program); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("%v", err)
	}
	if _, err := largeModel(o); !errors.Is(err, errSkipped) {
		t.Errorf("no large model: %v", err)
	}
	if text := render(got); !strings.Contains(text, "devices") || !strings.Contains(text, "failed") {
		t.Error(text)
	}
}
