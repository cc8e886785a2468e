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

func TestLastSampleOfTurn(t *testing.T) {
	for name, test := range map[string]struct{ before, after, want int }{
		"llama-bench, two passes":        {4, 6, 5},
		"one pass":                       {4, 5, 4},
		"an untimed pass and a sample":   {3, 4, 3},
		"an untimed pass and no sample":  {3, 3, -1},
		"the first, and none before it":  {0, 1, 0},
		"long passes, all of them timed": {2, 4, 3},
	} {
		if got := lastSample(test.before, test.after); got != test.want {
			t.Errorf("%s: sample %d, want %d", name, got, test.want)
		}
	}
}

func TestChoose(t *testing.T) {
	got, err := choose([]float64{10, 11, 12, 13}, []int{1, -1, 3})
	if diff := cmp.Diff([]float64{11, 0, 13}, got); err != nil || diff != "" {
		t.Errorf("error %v, difference:\n%s", err, diff)
	}
	if _, err := choose([]float64{10}, []int{0, 1}); err == nil {
		t.Error("a sample that is not there was chosen")
	}
}

// A turn without a sample of one side is none of the others either.
func TestComplete(t *testing.T) {
	got := complete([][]float64{{10, 1000, 20, 40}, {11, 1000, 19, 40}, {20, 0, 40, 80}})
	if diff := cmp.Diff([][]float64{{10, 20, 40}, {11, 19, 40}, {20, 40, 80}}, got); diff != "" {
		t.Error(diff)
	}
	if got := complete([][]float64{{1, 2}, {0, 2}, {1, 0}}); len(slices.Concat(got...)) != 0 {
		t.Errorf("no turn is complete, and there are %v", got)
	}
}

func TestTurnsFillALoad(t *testing.T) {
	sides := func(pass time.Duration) []side {
		n := passesOfTurn(pass)
		return []side{{0, n}, {1, n}, {2, n}}
	}
	for pass, want := range map[time.Duration]int{
		100 * time.Millisecond:  10, // two passes for each of three
		1200 * time.Millisecond: 2,  // one pass each
		10 * time.Second:        2,  // never fewer
	} {
		if got := (options{}).turnsOfLoad(pass, sides(pass)); got != want {
			t.Errorf("%v: %d turns, want %d", pass, got, want)
		}
	}
	if got := (options{turns: 5}).turnsOfLoad(time.Hour, sides(time.Hour)); got != 5 {
		t.Errorf("%d turns, want the 5 asked for", got)
	}
}

// Nobody is always first, and every order is followed by itself backwards.
func TestOrders(t *testing.T) {
	seen := map[string]bool{}
	for i, order := range orders {
		sorted := slices.Sorted(slices.Values(order))
		if diff := cmp.Diff([]int{0, 1, 2}, sorted); diff != "" {
			t.Errorf("order %d:\n%s", i, diff)
		}
		var key strings.Builder
		for _, side := range order {
			key.WriteByte('0' + byte(side))
		}
		seen[key.String()] = true
		if backwards := slices.Clone(order); i%2 == 0 {
			slices.Reverse(backwards)
			if diff := cmp.Diff(backwards, orders[i+1]); diff != "" {
				t.Errorf("order %d and the next:\n%s", i, diff)
			}
		}
	}
	if len(seen) != 6 {
		t.Errorf("%d different orders, not all six", len(seen))
	}
}

// The programs themselves: both wait where they are told to, each turn has its
// sample, and this program's untimed pass is taken for one.
func TestRealProgramsTakeTurns(t *testing.T) {
	t.Chdir("../..")
	o := options{dir: t.TempDir(), threads: 1, tool: "scripts/llama-tool", model: "SmolLM-135M.Q4_K_M.gguf"}
	o.program = filepath.Join(o.dir, "benchmark-llm")
	if out, err := exec.Command("go", "build", "-o", o.program, "./cmd/benchmark-llm").CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	var err error
	if o.gate, err = o.buildGate(); err != nil {
		t.Fatal(err)
	}
	model, err := o.file(1)
	if err != nil {
		t.Fatal(err)
	}
	a, b := o.llamaBench(model), o.ours(model, "file")
	for _, test := range []result.Test{{Prompt: 2}, {Gen: 2}} {
		rates, err := o.takeTurns(0, []program{a, a, b}, []side{{0, 2}, {1, 2}, {2, 2}}, test, 2)
		if err != nil {
			t.Fatal(err)
		}
		for i, side := range rates {
			if len(side) != 2 || slices.Min(side) <= 0 {
				t.Errorf("%v: side %d has rates %v, not two", test, i, side)
			}
		}
	}

	broken := program{name: "broken", args: []string{"sh", "-c", "echo cannot >&2; exit 3"}}
	if _, err := o.start(broken, result.Test{Prompt: 2}, 1); err == nil || !strings.Contains(err.Error(), "exit status 3: cannot") {
		t.Errorf("a program that ends early: %v", err)
	}
}
