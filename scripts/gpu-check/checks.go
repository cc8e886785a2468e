package main

import (
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
)

const confidence = 0.95

// devices lists what there is beside the CPU; without any, nothing else is worth
// a check.
func devices(o *options) (map[string]any, error) {
	args := []string{"devices"}
	backend := "CUDA"
	if o.rpc != "" {
		args, backend = append(args, "--rpc", o.rpc), "RPC"
	}
	out, said, err := o.said(o.program, args...)
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, said)
	}
	figures := make(map[string]any)
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) > 3 && f[2] == backend {
			figures[f[0]] = strings.Join(f[3:], " ")
		}
	}
	if len(figures) == 0 {
		return nil, fmt.Errorf("no device of back-end %s: `make cuda` gets the back-end, -rpc tries the checks without a GPU\n%s", backend, said)
	}
	return figures, nil
}

// firstStart is the time from the start of the program to its end with one short
// test, with an empty and then with a warm cache of compiled kernels.
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
		figures[state+" cache, compiling s"] = records[0].Ext.JITSeconds
		for _, r := range records {
			figures[state+" cache, warm-up of "+r.Test().String()+", s"] = r.Ext.WarmupSeconds // short: what it needs was compiled before
		}
	}
	return figures, nil
}

// series are the rates of one test, of the programs in turn.
type series struct{ bench, ours, unwatched, again []float64 }

// parity alternates llama-bench, this program, this program without telemetry
// and llama-bench again, on one file. The ratio is this program's to the first,
// the floor the second's; what telemetry costs is this program's ratio to itself.
func parity(o *options) (map[string]any, error) {
	path, err := o.file()
	if err != nil {
		return nil, err
	}
	tests := []string{"-p", strconv.Itoa(o.pp), "-n", strconv.Itoa(o.tg), "-r", "5"}
	rates := make(map[result.Test]*series)
	for range o.pairs {
		for _, turn := range []struct {
			run func() ([]result.Record, error)
			of  func(*series) *[]float64
		}{
			{func() ([]result.Record, error) { return o.llamaBench(path, tests...) }, func(s *series) *[]float64 { return &s.bench }},
			{func() ([]result.Record, error) { return o.records(path, tests...) }, func(s *series) *[]float64 { return &s.ours }},
			{func() ([]result.Record, error) { return o.records(path, append(tests, "--gpu-sampling", "0s")...) }, func(s *series) *[]float64 { return &s.unwatched }},
			{func() ([]result.Record, error) { return o.llamaBench(path, tests...) }, func(s *series) *[]float64 { return &s.again }},
		} {
			records, err := turn.run()
			if err != nil {
				return nil, err
			}
			for _, r := range records {
				if rates[r.Test()] == nil {
					rates[r.Test()] = new(series)
				}
				list := turn.of(rates[r.Test()])
				*list = append(*list, median(r.SamplesTS))
			}
		}
	}
	figures := make(map[string]any)
	for test, s := range rates {
		floor, err := stats.PairedRatioOfMedians(s.again, s.bench, confidence)
		if err != nil {
			return figures, err
		}
		figures[test.String()+" t/s"] = median(s.ours)
		figures[test.String()+" llama-bench t/s"] = median(s.bench)
		figures[test.String()+" floor"] = interval(floor)
		for name, beside := range map[string][]float64{"ratio": s.bench, "telemetry": s.unwatched} {
			ratio, err := stats.PairedRatioOfMedians(s.ours, beside, confidence)
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

// aborts is how long it takes from an abort to the return.
func aborts(o *options) (map[string]any, error) {
	path := filepath.Join(o.dir, "aborts.json")
	args := []string{"-abort", o.model, "-aborts", strconv.Itoa(o.aborts), "-p", strconv.Itoa(o.pp), "-n", strconv.Itoa(o.tg), "-ngl", "-1", "-json", path}
	if o.rpc != "" {
		args = append(args, "-rpc", o.rpc)
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

// steady is how far from those at the end a repetition may be to be like them.
const steady = 0.03

// warmups is how many repetitions without a warm-up llama-bench takes until the
// first that is like those at its end: a back-end may record its graph of
// kernels on the second call, or later.
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

// unsteady counts the repetitions before the first that is like the second half.
func unsteady(rates []float64) int {
	end := median(rates[len(rates)/2:])
	i := slices.IndexFunc(rates, func(x float64) bool { return math.Abs(x/end-1) <= steady })
	if i < 0 {
		return len(rates)
	}
	return i
}

// plausible is what NVIDIA's library must say of a GPU at work, and between which
// limits, by the names of ext.gpu in the record.
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

// telemetry shows what a record says of the GPU, and whether it can be true.
func telemetry(o *options) (map[string]any, error) {
	records, err := o.records(o.model, "-p", strconv.Itoa(o.pp), "-n", strconv.Itoa(o.tg), "-r", "5")
	if err != nil {
		return nil, err
	}
	figures := make(map[string]any)
	var wrong []error
	for _, r := range records {
		data, err := json.Marshal(r.Ext.GPU)
		if err != nil {
			return figures, err
		}
		var said any
		if err := json.Unmarshal(data, &said); err != nil {
			return figures, err
		}
		facts := make(map[string]any)
		flatten("", said, facts)
		for name, x := range facts {
			figures[r.Test().String()+" "+name] = x
		}
		if o.rpc == "" {
			wrong = append(wrong, implausible(r.Test().String(), facts))
		}
	}
	return figures, errors.Join(wrong...)
}

// implausible tells what the first device of a record lacks or cannot have.
func implausible(test string, facts map[string]any) error {
	var wrong []error
	for _, p := range plausible {
		x, told := facts["devices.0."+p.name].(float64)
		switch {
		case !told:
			wrong = append(wrong, fmt.Errorf("%s: no %s", test, p.name))
		case x < p.least || x > p.most:
			wrong = append(wrong, fmt.Errorf("%s: %s is %g", test, p.name, x))
		}
	}
	return errors.Join(wrong...)
}

// flatten collects the numbers and words of a JSON value by their path.
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

// A model whose attention ggml computes by other kernels from this depth on, on
// cards from compute capability 8.9 on: more than four heads share one of the cache.
const (
	deepModel = "gemma-2b.Q4_K_M.gguf"
	deepIn    = 8192
)

// deep shows whether the first repetition of a generation in a long context pays
// for kernels that no pass before it has used.
func deep(o *options) (map[string]any, error) {
	if o.rpc != "" {
		return nil, fmt.Errorf("%w: the kernels are CUDA's", errSkipped)
	}
	records, err := o.records(deepModel, "-p", "0", "-n", "16", "-d", strconv.Itoa(deepIn), "-r", "5")
	if err != nil {
		return nil, err
	}
	if len(records) != 1 {
		return nil, fmt.Errorf("%d records, want 1", len(records))
	}
	r := records[0]
	return map[string]any{r.Test().String() + " first / others": r.SamplesTS[0] / median(r.SamplesTS[1:])}, nil
}

// tooDeep is a cache that no device holds, in tokens.
const tooDeep = 16_000_000

// outOfMemory asks for more than fits, beside what does: the run must go on, and
// have its record.
func outOfMemory(o *options) (map[string]any, error) {
	records, err := o.records(o.model, "-ngl", "999", "-p", "16", "-n", "0", "-r", "1", "-d", fmt.Sprintf("%d,0", tooDeep))
	if err != nil {
		return nil, err
	}
	if len(records) != 1 || records[0].DepthTokens != 0 {
		return nil, fmt.Errorf("%d records, want that of the test that fits", len(records))
	}
	return map[string]any{"records beside a cache of 16 M tokens": len(records)}, nil
}

// largeModel loads the largest default model where it fits.
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
