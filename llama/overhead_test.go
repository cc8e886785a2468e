//go:build cgo

package llama_test

import (
	"math"
	"testing"

	"github.com/sparecores/benchmark-llm/llama"
)

// The calls of a test allocate nothing in Go, whatever the number of tokens. So no
// collection starts while the clock runs.
func TestCallsAllocateNothing(t *testing.T) {
	context(t, llama.ContextParams{Context: 256}, func(c *llama.Context) {
		one, many := prompt(1), prompt(64)
		for name, call := range map[string]func(){
			"bare call":       llama.BareCall,
			"clear memory":    func() { must(c.ClearMemory()) },
			"synchronize":     func() { must(c.Synchronize()) },
			"decode":          func() { must(c.Decode(one)) },
			"decode 64":       func() { must(c.Decode(many)) },
			"repetition tg1":  func() { repetition(c, nil, one) },
			"repetition tg64": func() { repetition(c, nil, many) },
			"repetition pp64": func() { repetition(c, many, nil) },
			"abort":           func() { c.Abort(); c.ClearAbort() },
			"tokens done":     func() { c.Timed().TokensDone() },
		} {
			// Allocations of other goroutines, such as the run time's, count too. What the
			// call itself allocates is there each time.
			least := math.Inf(1)
			for attempt := 0; attempt < 5 && least > 0; attempt++ {
				least = min(least, testing.AllocsPerRun(2, func() { must(c.ClearMemory()); call() }))
			}
			if least != 0 {
				t.Errorf("%s: %v allocations", name, least)
			}
		}
	})
}

func repetition(c *llama.Context, prompt, gen []llama.Token) {
	_, err := c.Timed().Repetition(prompt, gen, 2048)
	must(err)
}
