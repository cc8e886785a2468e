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
	out, err := o.command(nil, o.program, args...)
	if err != nil {
		return nil, err
	}
	figures := make(map[string]any)
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) > 3 && f[2] == backend {
			figures[f[0]] = strings.Join(f[3:], " ")
		}
	}
	if len(figures) == 0 {
		return nil, fmt.Errorf("no device of back-end %s; -rpc tries the checks without a GPU", backend)
	}
	return figures, nil
}

// firstStart is the time from the start of the program to its end with one short
// test, with an empty and then with a warm cache of compiled kernels.
func firstStart(o *options) (map[string]any, error) {
	cache := []string{"CUDA_CACHE_PATH=" + filepath.Join(o.dir, "kernels"), "CUDA_CACHE_MAXSIZE=4294967296"}
	figures := make(map[string]any)
	for _, state := range []string{"empty", "warm"} {
		start := time.Now()
		records, err := o.records(cache, o.model, "-p", "16", "-n", "0", "-r", "1")
		if err != nil {
			return figures, err
		}
		if len(records) != 1 {
			return figures, fmt.Errorf("%d records, want 1", len(records))
		}
		figures[state+" cache, s"] = time.Since(start).Seconds()
		figures[state+" cache, load s"] = records[0].Ext.LoadSeconds
		figures[state+" cache, warm-up s"] = records[0].Ext.WarmupSeconds
	}
	return figures, nil
}

// parity alternates llama-bench, this program and llama-bench again, on one
// file. The ratio is this program's to the first, the floor the second's.
func parity(o *options) (map[string]any, error) {
	path, err := o.file()
	if err != nil {
		return nil, err
	}
	tests := []string{"-p", strconv.Itoa(o.pp), "-n", strconv.Itoa(o.tg), "-r", "5"}
	type series struct{ bench, ours, again []float64 }
	rates := make(map[result.Test]*series)
	for range o.pairs {
		a, err := o.llamaBench(path, tests...)
		if err != nil {
			return nil, err
		}
		b, err := o.records(nil, path, tests...)
		if err != nil {
			return nil, err
		}
		c, err := o.llamaBench(path, tests...)
		if err != nil {
			return nil, err
		}
		for _, r := range a {
			if rates[r.Test()] == nil {
				rates[r.Test()] = new(series)
			}
			rates[r.Test()].bench = append(rates[r.Test()].bench, median(r.SamplesTS))
		}
		for _, r := range b {
			if s := rates[r.Test()]; s != nil {
				s.ours = append(s.ours, median(r.SamplesTS))
			}
		}
		for _, r := range c {
			if s := rates[r.Test()]; s != nil {
				s.again = append(s.again, median(r.SamplesTS))
			}
		}
	}
	figures := make(map[string]any)
	for test, s := range rates {
		ratio, err := stats.PairedRatioOfMedians(s.ours, s.bench, confidence)
		if err != nil {
			return figures, err
		}
		floor, err := stats.PairedRatioOfMedians(s.again, s.bench, confidence)
		if err != nil {
			return figures, err
		}
		figures[test.String()+" t/s"] = median(s.ours)
		figures[test.String()+" llama-bench t/s"] = median(s.bench)
		figures[test.String()+" ratio"] = interval(ratio)
		figures[test.String()+" floor"] = interval(floor)
		figures[test.String()+" verdict"] = fmt.Sprint(stats.Within(ratio.Interval, floor.Interval))
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
	if _, err := o.command(nil, o.parity, args...); err != nil {
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

// telemetry shows what a record says of the GPU, and whether it can be true.
func telemetry(o *options) (map[string]any, error) {
	records, err := o.records(nil, o.model, "-p", strconv.Itoa(o.pp), "-n", strconv.Itoa(o.tg), "-r", "5")
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
		var facts any
		if err := json.Unmarshal(data, &facts); err != nil {
			return figures, err
		}
		told := make(map[string]float64)
		numbers("", facts, told)
		for name, x := range told {
			figures[r.Test().String()+" "+name] = x
			if x < 0 || math.IsInf(x, 0) || strings.Contains(name, "watts") && (x == 0 || x > 2000) {
				wrong = append(wrong, fmt.Errorf("%s of %v is %g", name, r.Test(), x))
			}
		}
		if o.rpc == "" && len(told) == 0 {
			wrong = append(wrong, fmt.Errorf("the record of %v says nothing of the GPU", r.Test()))
		}
	}
	return figures, errors.Join(wrong...)
}

// numbers collects the numbers of a JSON value by their path.
func numbers(path string, v any, into map[string]float64) {
	switch v := v.(type) {
	case float64:
		into[path] = v
	case map[string]any:
		for key, value := range v {
			numbers(strings.TrimPrefix(path+"."+key, "."), value, into)
		}
	case []any:
		for i, value := range v {
			numbers(fmt.Sprintf("%s.%d", path, i), value, into)
		}
	}
}

// tooDeep is a cache that no device holds, in tokens.
const tooDeep = 16_000_000

// outOfMemory asks for more than fits, beside what does: the run must go on, and
// have its record.
func outOfMemory(o *options) (map[string]any, error) {
	records, err := o.records(nil, o.model, "-ngl", "999", "-p", "16", "-n", "0", "-r", "1", "-d", fmt.Sprintf("%d,0", tooDeep))
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
	records, err := o.records(nil, o.large, "-p", "16", "-n", "16", "-r", "1")
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
