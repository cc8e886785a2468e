package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench/result"
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

func TestFlatten(t *testing.T) {
	got := make(map[string]any)
	flatten("", map[string]any{"power_w": 300.5, "devices": []any{map[string]any{"layers": 33., "name": "CUDA0"}}, "none": nil}, got)
	if diff := cmp.Diff(map[string]any{"power_w": 300.5, "devices.0.layers": 33., "devices.0.name": "CUDA0"}, got); diff != "" {
		t.Error(diff)
	}
}

// The names of the plausible figures are those of a record, and values beyond their
// limits are reported.
func TestImplausible(t *testing.T) {
	number := func(f float64) *float64 { return &f }
	used := uint64(5 << 30)
	healthy := result.GPUTelemetry{
		PowerWatts: number(300), TemperatureC: number(50), UsedBytes: &used,
		SMClockMHz: &result.Range{Min: 1980, Max: 1980}, MemoryClockMHz: &result.Range{Min: 2619, Max: 2619},
	}
	for _, tt := range []struct {
		name   string
		change func(*result.GPUTelemetry)
		want   string
	}{
		{"healthy", func(*result.GPUTelemetry) {}, ""},
		{"watts taken for milliwatts", func(g *result.GPUTelemetry) { g.PowerWatts = number(0.3) }, "pp512: power_w is 0.3, expected 1 to 3000"},
		{"milliwatts taken for watts", func(g *result.GPUTelemetry) { g.PowerWatts = number(3e5) }, "pp512: power_w is 300000, expected 1 to 3000"},
		{"no memory", func(g *result.GPUTelemetry) { g.UsedBytes = nil }, "pp512: memory_used_max_bytes is missing"},
		{"a clock of 0", func(g *result.GPUTelemetry) { g.SMClockMHz = &result.Range{} }, "pp512: sm_clock_mhz.min is 0, expected 1 to 5000"},
	} {
		g := healthy
		tt.change(&g)
		data, err := json.Marshal(result.GPU{Devices: []result.GPUDevice{{Name: "CUDA0", GPUTelemetry: g}}})
		if err != nil {
			t.Fatal(err)
		}
		var gpu any
		if err := json.Unmarshal(data, &gpu); err != nil {
			t.Fatal(err)
		}
		facts := make(map[string]any)
		flatten("", gpu, facts)
		text := func(all bool) string {
			if err := implausible("pp512", facts, all); err != nil {
				return err.Error()
			}
			return ""
		}
		if got := text(true); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
		if got, missing := text(false), strings.HasSuffix(tt.want, "is missing"); missing && got != "" || !missing && got != tt.want {
			t.Errorf("%s: %q of a driver that reports less", tt.name, got)
		}
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

// Without a device the other checks do not run. A program that fails or hangs is a
// finding.
func TestRunFindsFailures(t *testing.T) {
	program := func(script string) string {
		path := filepath.Join(t.TempDir(), "program")
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o755); err != nil { //nolint:gosec // the test runs it
			t.Fatal(err)
		}
		return path
	}
	all, err := choose("")
	if err != nil {
		t.Fatal(err)
	}
	o := &options{program: program("echo 'CPU cpu CPU 1 GiB'; echo 'the driver is too old' >&2"), limit: time.Minute, dir: t.TempDir()}
	got := o.run(all)
	if len(got) != 1 || got[0].Status != "failed" || !strings.Contains(got[0].Note, "no device but the CPU") || !strings.Contains(got[0].Note, "the driver is too old") {
		t.Errorf("%+v", got)
	}
	o.program = program("echo 'Vulkan0 igpu Vulkan 3 GiB'; echo 'Vulkan1 gpu Vulkan 3 GiB llvmpipe, not used: it computes on the CPU'; echo 'RPC0 gpu RPC 1 GiB'; echo 'CPU cpu CPU 1 GiB'")
	for _, tt := range []struct{ device, rpc, want string }{{"", "", "Vulkan0"}, {"Vulkan0", "", "Vulkan0"}, {"Vulkan1", "", "Vulkan1"}, {"", "host:1", "RPC0"}, {"Vulkan7", "", ""}} {
		o.device, o.rpc = tt.device, tt.rpc
		found, err := devices(o)
		if _, ok := found[tt.want]; ok != (tt.want != "") || len(found) > 1 || (err == nil) != ok {
			t.Errorf("device %q, RPC %q: %v, %v", tt.device, tt.rpc, found, err)
		}
	}
	o.device, o.rpc = "", ""
	o.program = program("echo 'benchmark-llm: broken' >&2; exit 4")
	if _, err := o.records("m"); err == nil || !strings.Contains(err.Error(), "exit status 4: benchmark-llm: broken") {
		t.Errorf("%v", err)
	}
	o.program, o.limit = program("exec sleep 600"), 100*time.Millisecond
	if _, err := o.command(o.program); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("%v", err)
	}
	if _, err := largeModel(o); !errors.Is(err, errSkipped) {
		t.Errorf("no large model: %v", err)
	}
	if text := render(got); !strings.Contains(text, "devices") || !strings.Contains(text, "failed") {
		t.Error(text)
	}
}
