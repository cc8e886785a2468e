//go:build cgo

package llamacpp

import (
	"runtime"
	"testing"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// Only an engine that is asked to limits Go to one processor, and only from the first test
// on. This test must not run in parallel with others.
func TestOneProcessor(t *testing.T) {
	before := runtime.GOMAXPROCS(2)
	defer runtime.GOMAXPROCS(before)
	e := loaded(t, smolJob())
	for _, want := range []int{2, 1} {
		e.oneProcessor = want == 1
		if err := e.Begin(result.Test{Gen: 1}); err != nil {
			t.Fatal(err)
		}
		if got := runtime.GOMAXPROCS(0); got != want {
			t.Errorf("%d processors, want %d", got, want)
		}
	}
}
