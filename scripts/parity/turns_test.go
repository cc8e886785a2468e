//go:build cgo && parity

package main

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench/result"
)

func TestByNumber(t *testing.T) {
	samples := []sample{{rate: 10}, {rate: 11}, {rate: 12}, {rate: 13}}
	got, err := byNumber(samples, []turn{{last: 1}, {last: 3}})
	if diff := cmp.Diff([][]float64{{11, 13}}, ratesOf([][]sample{got})); err != nil || diff != "" {
		t.Errorf("error %v, difference:\n%s", err, diff)
	}
	if _, err := byNumber(samples[:1], []turn{{last: 0}, {last: 1}}); err == nil {
		t.Error("a sample that is not there was chosen")
	}
}

// Passes take 100 ms. A turn begins at each second.
func TestByTime(t *testing.T) {
	start := time.Now()
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	for name, test := range map[string]struct {
		passes int
		begins []int // of timed passes
		want   []float64
	}{
		"three samples":                   {3, []int{1, 101, 201, 1001, 1101, 1201}, []float64{201, 1201}},
		"an untimed pass first":           {3, []int{101, 201, 1101, 1201}, []float64{201, 1201}},
		"an untimed pass between":         {3, []int{1, 201, 1001, 1201}, []float64{201, 1201}},
		"an untimed pass last":            {3, []int{1, 101, 1001, 1101}, []float64{101, 1101}},
		"untimed passes first and last":   {3, []int{101, 1101}, []float64{101, 1101}},
		"no sample but of the first pass": {3, []int{1, 1001, 1101}, []float64{0, 1101}},
		"after the last turn":             {3, []int{101, 1101, 2101}, []float64{101, 1101}},
		"turns of one pass":               {1, []int{1, 1001}, []float64{1, 1001}},
		"turns of one pass, one untimed":  {1, []int{1001}, []float64{0, 1001}},
	} {
		var samples []sample
		for _, begin := range test.begins {
			samples = append(samples, sample{rate: float64(begin), begin: at(begin), end: at(begin + 100)})
		}
		got, err := byTime(samples, []turn{{passes: test.passes, begin: at(0), end: at(400)}, {passes: test.passes, begin: at(1000), end: at(1400)}})
		if diff := cmp.Diff([][]float64{test.want}, ratesOf([][]sample{got})); err != nil || diff != "" {
			t.Errorf("%s: error %v, difference:\n%s", name, err, diff)
		}
	}
}

// A turn that lacks a sample of one side is removed for all sides.
func TestComplete(t *testing.T) {
	got := complete(withRates([][]float64{{10, 1000, 20, 40}, {11, 1000, 19, 40}, {20, 0, 40, 80}}))
	if diff := cmp.Diff([][]float64{{10, 20, 40}, {11, 19, 40}, {20, 40, 80}}, ratesOf(got)); diff != "" {
		t.Error(diff)
	}
	if got := complete(withRates([][]float64{{1, 2}, {0, 2}, {1, 0}})); len(slices.Concat(got...)) != 0 {
		t.Errorf("no turn is complete, and there are %v", got)
	}
}

// withRates are samples with these rates.
func withRates(rates [][]float64) [][]sample {
	samples := make([][]sample, len(rates))
	for i := range rates {
		for _, rate := range rates[i] {
			samples[i] = append(samples[i], sample{rate: rate})
		}
	}
	return samples
}

func TestTurnsFillALoad(t *testing.T) {
	sides := func(pass time.Duration) []side {
		n := passesOfTurn(pass)
		return []side{{0, n}, {1, n}, {2, n}}
	}
	for pass, want := range map[time.Duration]int{
		100 * time.Millisecond:  10, // two passes for each of three
		1200 * time.Millisecond: 2,  // one pass each
		10 * time.Second:        2,  // the least number
	} {
		if got := (options{}).turnsOfLoad(pass, sides(pass)); got != want {
			t.Errorf("%v: %d turns, want %d", pass, got, want)
		}
	}
	if got := (options{turns: 5}).turnsOfLoad(time.Hour, sides(time.Hour)); got != 5 {
		t.Errorf("%d turns, want the 5 asked for", got)
	}
}

// Each side follows each other side equally often, and every order is followed by its
// reverse.
func TestOrders(t *testing.T) {
	for sides := range orders {
		follows := map[[2]int]int{}
		for round := range len(orders[sides]) {
			got := order(sides, round)
			sorted := slices.Sorted(slices.Values(got))
			for i, side := range sorted {
				if i != side || len(sorted) != sides {
					t.Fatalf("order %d of %d sides is %v", round, sides, got)
				}
			}
			for i := range got[1:] {
				follows[[2]int{got[i], got[i+1]}]++
			}
			if backwards := slices.Clone(got); round%2 == 0 {
				slices.Reverse(backwards)
				if diff := cmp.Diff(backwards, order(sides, round+1)); diff != "" {
					t.Errorf("order %d of %d sides and the next:\n%s", round, sides, diff)
				}
			}
		}
		for pair, n := range follows {
			if want := len(orders[sides]) / sides; len(follows) != sides*(sides-1) || n != want {
				t.Errorf("of %d sides, %d follows %d in %d orders, want %d", sides, pair[1], pair[0], n, want)
			}
		}
	}
}

// The real programs wait before every pass, and each turn has a sample, whether or not this
// program makes untimed passes.
func TestRealProgramsTakeTurns(t *testing.T) {
	t.Chdir("../..")
	o := options{dir: t.TempDir(), threads: 1, tool: "scripts/llama-tool", model: "SmolLM-135M.Q4_K_M.gguf"}
	o.program, o.gollama = filepath.Join(o.dir, "benchmark-llm"), filepath.Join(o.dir, "gollama-peer")
	for _, build := range [][]string{
		{"go", "build", "-o", o.program, "./cmd/benchmark-llm"},
		{"scripts/with-gollama", "go", "build", "-tags", "gollama", "-o", o.gollama, "./cmd/gollama-peer"},
	} {
		if out, err := exec.Command(build[0], build[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("build: %v: %s", err, out)
		}
	}
	var err error
	if o.gate, err = o.buildGate(); err != nil {
		t.Fatal(err)
	}
	model, err := o.file(1, "--tokenizer")
	if err != nil {
		t.Fatal(err)
	}
	a, b, c := o.llamaBench(model), o.ours(model, "file"), o.goLlama(model)
	const turns = 3
	for _, test := range []result.Test{{Prompt: 2}, {Gen: 2}} {
		samples, err := o.takeTurns(0, []program{a, a, b, c}, []side{{0, 2}, {1, 2}, {2, 2}, {3, 2}}, test, turns)
		if err != nil {
			t.Fatal(err)
		}
		for i, side := range ratesOf(samples) {
			if len(side) != turns || slices.Contains(side, 0) {
				t.Errorf("%v: side %d has rates %v, not %d", test, i, side, turns)
			}
		}
		for _, s := range samples[3] {
			if s.parts.EvalUS <= 0 {
				t.Errorf("%v: go-llama.cpp's parts are %+v", test, s.parts)
			}
		}
	}

	broken := program{name: "broken", args: []string{"sh", "-c", "echo cannot >&2; exit 3"}}
	if _, err := o.start(broken, result.Test{Prompt: 2}, 1); err == nil || !strings.Contains(err.Error(), "exit status 3: cannot") {
		t.Errorf("a program that ends early: %v", err)
	}
}
