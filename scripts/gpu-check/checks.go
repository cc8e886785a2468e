package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/stats"
	"github.com/sparecores/benchmark-llm/bench/synth"
)

const confidence = 0.95

// devices lists the devices besides the CPU. It fails if there are none.
func devices(o *options) (map[string]any, error) {
	args := []string{"devices"}
	if o.rpc != "" {
		args = append(args, "--rpc", o.rpc)
	}
	out, messages, err := o.execute(o.program, args...)
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, messages)
	}
	figures := make(map[string]any)
	for line := range strings.Lines(string(out)) {
		// device, type, back-end, …
		f := strings.Fields(line)
		chosen := o.device == "" && !strings.Contains(line, ", not used: ") || len(f) > 0 && f[0] == o.device
		if len(f) > 3 && strings.HasSuffix(f[1], "gpu") && chosen && (f[2] == "RPC") == (o.rpc != "") {
			figures[f[0]] = strings.Join(f[3:], " ")
		}
	}
	if len(figures) == 0 {
		return nil, fmt.Errorf("no device %s (benchmark-llm devices says why; -rpc runs the checks without one)\n%s", cmp.Or(o.device, "but the CPU"), messages)
	}
	return figures, nil
}

// firstStart measures a run of short tests from start to end, with an empty and
// then with a warm cache of compiled kernels.
func firstStart(o *options) (map[string]any, error) {
	figures := make(map[string]any)
	for _, state := range []string{"empty", "warm"} {
		start := time.Now()
		records, err := o.records(o.model, "-p", strconv.Itoa(o.pp), "-n", "1", "-r", "1")
		if err != nil {
			return figures, err
		}
		if len(records) != 2 {
			return figures, fmt.Errorf("%d records, want 2", len(records))
		}
		figures[state+" cache, s"] = time.Since(start).Seconds()
		figures[state+" cache, load s"] = records[0].Ext.LoadSeconds
		figures[state+" cache, precompile s"] = records[0].Ext.PrecompileSeconds
		for _, r := range records {
			figures[state+" cache, warm-up of "+r.Test().String()+", s"] = r.Ext.WarmupSeconds // should be short, because its kernels are compiled before
		}
	}
	return figures, nil
}

// rates are the rates of one test for each program, in tokens/second.
type rates struct{ bench, ours, unwatched, again []float64 }

// parity alternates llama-bench, this program, this program without telemetry, and
// llama-bench again, on the same file. It reports three ratios: this program's rate
// to that of the first llama-bench; the second llama-bench's to the first, which is
// the noise floor; and this program's with telemetry to that without.
func parity(o *options) (map[string]any, error) {
	path, err := o.file()
	if err != nil {
		return nil, err
	}
	tests := []string{"-p", strconv.Itoa(o.pp), "-n", strconv.Itoa(o.tg), "-r", "5"}
	byTest := make(map[result.Test]*rates)
	for range o.pairs {
		for _, turn := range []struct {
			run func() ([]result.Record, error)
			of  func(*rates) *[]float64
		}{
			{func() ([]result.Record, error) { return o.llamaBench(path, tests...) }, func(r *rates) *[]float64 { return &r.bench }},
			{func() ([]result.Record, error) { return o.records(path, tests...) }, func(r *rates) *[]float64 { return &r.ours }},
			{func() ([]result.Record, error) { return o.records(path, append(tests, "--gpu-sampling", "0s")...) }, func(r *rates) *[]float64 { return &r.unwatched }},
			{func() ([]result.Record, error) { return o.llamaBench(path, tests...) }, func(r *rates) *[]float64 { return &r.again }},
		} {
			records, err := turn.run()
			if err != nil {
				return nil, err
			}
			for _, r := range records {
				if byTest[r.Test()] == nil {
					byTest[r.Test()] = new(rates)
				}
				list := turn.of(byTest[r.Test()])
				*list = append(*list, median(r.SamplesTS))
			}
		}
	}
	figures := make(map[string]any)
	for test, r := range byTest {
		floor, err := stats.PairedRatioOfMedians(r.again, r.bench, confidence)
		if err != nil {
			return figures, err
		}
		figures[test.String()+" t/s"] = median(r.ours)
		figures[test.String()+" llama-bench t/s"] = median(r.bench)
		figures[test.String()+" floor"] = interval(floor)
		for name, other := range map[string][]float64{"ratio": r.bench, "telemetry": r.unwatched} {
			ratio, err := stats.PairedRatioOfMedians(r.ours, other, confidence)
			if err != nil {
				return figures, err
			}
			figures[test.String()+" "+name] = interval(ratio)
			figures[test.String()+" "+name+" verdict"] = fmt.Sprint(stats.Within(ratio.Interval, floor.Interval))
		}
	}
	return figures, nil
}

func interval(e stats.Estimate) string {
	return fmt.Sprintf("%.4f (%.4f…%.4f)", e.Value, e.Low, e.High)
}

func median(x []float64) float64 {
	s, err := stats.New(x)
	if err != nil {
		return math.NaN()
	}
	return s.Median()
}

// aborts measures the time from an abort to its return.
func aborts(o *options) (map[string]any, error) {
	path := filepath.Join(o.dir, "aborts.json")
	args := []string{"-abort", o.model, "-aborts", strconv.Itoa(o.aborts), "-p", strconv.Itoa(o.pp), "-n", strconv.Itoa(o.tg), "-ngl", "-1", "-json", path}
	if o.rpc != "" {
		args = append(args, "-rpc", o.rpc)
	}
	if o.device != "" {
		args = append(args, "-device", o.device)
	}
	if _, err := o.command(o.parity, args...); err != nil {
		return nil, err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var figures map[string]any
	return figures, json.Unmarshal(data, &figures)
}

// steady is the largest relative difference between a steady repetition and the
// median of the second half.
const steady = 0.03

// warmups counts the repetitions of llama-bench without a warm-up before the first
// steady one. A back-end may record its graph of kernels on the second call, or
// later.
func warmups(o *options) (map[string]any, error) {
	path, err := o.file()
	if err != nil {
		return nil, err
	}
	records, err := o.llamaBench(path, "-p", strconv.Itoa(o.pp), "-n", strconv.Itoa(o.tg), "-r", "12", "--no-warmup")
	if err != nil {
		return nil, err
	}
	figures := make(map[string]any)
	for _, r := range records {
		figures[r.Test().String()+" before the first steady one"] = unsteady(r.SamplesTS)
		figures[r.Test().String()+" first / last half"] = r.SamplesTS[0] / median(r.SamplesTS[len(r.SamplesTS)/2:])
	}
	return figures, nil
}

// unsteady counts the repetitions before the first steady one.
func unsteady(rates []float64) int {
	end := median(rates[len(rates)/2:])
	i := slices.IndexFunc(rates, func(x float64) bool { return math.Abs(x/end-1) <= steady })
	if i < 0 {
		return len(rates)
	}
	return i
}

// plausible are figures that a record must have for an NVIDIA GPU at work, with their
// limits. Other drivers do not report all of them. The names are those of ext.gpu in the
// record.
var plausible = []struct {
	name        string
	least, most float64
}{
	{"power_w", 1, 3000},
	{"sm_clock_mhz.min", 1, 5000},
	{"memory_clock_mhz.max", 1, 20000},
	{"temperature_max_c", 1, 120},
	{"memory_used_max_bytes", 1, 1 << 40},
}

// telemetry reports the figures of the GPU in records, and fails if they are
// implausible, or if CUDA is used and some are missing.
func telemetry(o *options) (map[string]any, error) {
	records, err := o.records(o.model, "-p", strconv.Itoa(o.pp), "-n", strconv.Itoa(o.tg), "-r", "5")
	if err != nil {
		return nil, err
	}
	figures := make(map[string]any)
	var wrong []error
	reported := false
	for _, r := range records {
		data, err := json.Marshal(r.Ext.GPU)
		if err != nil {
			return figures, err
		}
		var gpu any
		if err := json.Unmarshal(data, &gpu); err != nil {
			return figures, err
		}
		facts := make(map[string]any)
		flatten("", gpu, facts)
		for name, x := range facts {
			figures[r.Test().String()+" "+name] = x
		}
		if o.rpc == "" {
			wrong = append(wrong, implausible(r.Test().String(), facts, strings.Contains(r.Backends, "CUDA")))
		}
		reported = reported || facts["devices.0.driver"] != nil
	}
	if o.rpc == "" && !reported {
		return figures, fmt.Errorf("%w: no driver reports figures of this device", errSkipped)
	}
	return figures, errors.Join(wrong...)
}

// implausible returns an error about the figures of a record's first device that are
// beyond their limits or, if all are needed, missing.
func implausible(test string, facts map[string]any, all bool) error {
	var wrong []error
	for _, p := range plausible {
		x, present := facts["devices.0."+p.name].(float64)
		switch {
		case !present && !all:
		case !present:
			wrong = append(wrong, fmt.Errorf("%s: %s is missing", test, p.name))
		case x < p.least || x > p.most:
			wrong = append(wrong, fmt.Errorf("%s: %s is %g, expected %g to %g", test, p.name, x, p.least, p.most))
		}
	}
	return errors.Join(wrong...)
}

// flatten collects the numbers and strings of a JSON value by their path.
func flatten(path string, v any, into map[string]any) {
	switch v := v.(type) {
	case float64, string:
		into[path] = v
	case map[string]any:
		for key, value := range v {
			flatten(strings.TrimPrefix(path+"."+key, "."), value, into)
		}
	case []any:
		for i, value := range v {
			flatten(fmt.Sprintf("%s.%d", path, i), value, into)
		}
	}
}

// On cards from compute capability 8.9 on, ggml computes the attention of this model
// with other kernels from this depth on, because more than four heads share one head
// of the cache.
const (
	deepModel   = "gemma-2b.Q4_K_M.gguf"
	deepContext = 8192 // tokens
)

// deep compares the first repetition of a generation in a long context with the
// others. It is slower if it uses kernels that were not compiled before.
func deep(o *options) (map[string]any, error) {
	found, err := devices(o)
	if err != nil {
		return nil, err
	}
	for name := range found {
		if !strings.HasPrefix(name, "CUDA") {
			return nil, fmt.Errorf("%w: this check needs CUDA", errSkipped)
		}
	}
	records, err := o.records(deepModel, "-p", "0", "-n", "16", "-d", strconv.Itoa(deepContext), "-r", "5")
	if err != nil {
		return nil, err
	}
	if len(records) != 1 {
		return nil, fmt.Errorf("%d records, want 1", len(records))
	}
	r := records[0]
	return map[string]any{r.Test().String() + " first / others": r.SamplesTS[0] / median(r.SamplesTS[1:])}, nil
}

// tooDeep is a context that fits no device, in tokens. That of the model for first tries
// might fit, so another is taken in its place.
const tooDeep = 16_000_000

// outOfMemory runs a test that does not fit and one that does. The run must go on
// after the first and have the record of the second.
func outOfMemory(o *options) (map[string]any, error) {
	model := o.model
	if model == synth.Tiny {
		model = "SmolLM-135M.Q4_K_M.gguf"
	}
	records, err := o.records(model, "-ngl", "999", "-p", "16", "-n", "0", "-r", "1", "-d", fmt.Sprintf("%d,0", tooDeep))
	if err != nil {
		return nil, err
	}
	if len(records) != 1 || records[0].DepthTokens != 0 {
		return nil, fmt.Errorf("%d records, want only that of the test that fits", len(records))
	}
	return map[string]any{"records after a cache of 16 M tokens": len(records)}, nil
}

// largeModel loads the largest default model if it fits.
func largeModel(o *options) (map[string]any, error) {
	if o.large == "" {
		return nil, fmt.Errorf("%w: -large is empty", errSkipped)
	}
	records, err := o.records(o.large, "-p", "16", "-n", "16", "-r", "1")
	if err != nil {
		if strings.Contains(err.Error(), "memory") {
			return nil, fmt.Errorf("%w: %w", errSkipped, err)
		}
		return nil, err
	}
	figures := map[string]any{"load s": records[0].Ext.LoadSeconds}
	if off := records[0].Ext.Offload; off != nil {
		figures["layers on devices"] = fmt.Sprintf("%d of %d", off.Layers, off.Of)
	}
	for _, r := range records {
		figures[r.Test().String()+" t/s"] = r.AvgTS
	}
	return figures, nil
}
