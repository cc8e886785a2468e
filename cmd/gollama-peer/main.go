//go:build gollama

// Command gollama-peer measures github.com/go-skynet/go-llama.cpp, as published,
// on the pinned libllama. `make peers` compares this program with it. It takes
// llama-bench's flags for one test and prints one JSON line.
//
// Prompt processing is one Eval of a text of that many tokens. Text generation is
// Predict with a token callback, timed from one callback to the next, so it
// includes sampling and the text of each token.
//
// All calls are made on one locked OS thread, although the module's documentation
// does not ask for it. libgomp keeps a team of threads for each OS thread that
// calls it. A goroutine that moves would generate at a third of the speed, and the
// comparison would be one of goroutine schedules.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"time"

	llama "github.com/go-skynet/go-llama.cpp"
)

// measurement is the output of the program. scripts/parity reads it.
type measurement struct {
	Prompt      int          `json:"n_prompt"`
	Gen         int          `json:"n_gen"`
	Repetitions []repetition `json:"repetitions"`
}

// repetition is one timed pass.
type repetition struct {
	NS int64 `json:"ns"`
	// Microseconds for each token. RestUS is the module's own bookkeeping, and for a
	// prompt also the conversion of parameters.
	TokenizeUS float64 `json:"tokenize_us"`
	EvalUS     float64 `json:"eval_us"`
	SampleUS   float64 `json:"sample_us"`
	PieceUS    float64 `json:"piece_us"`
	CallbackUS float64 `json:"callback_us"`
	RestUS     float64 `json:"rest_us"`
	// Go's allocations for each token, in the whole call of the module.
	Allocations    float64 `json:"allocs"`
	AllocatedBytes float64 `json:"alloc_bytes"`
}

// options are the flags.
type options struct {
	model              string
	prompt, gen        int
	threads, batch     int
	repetitions, layer int
}

func main() {
	runtime.LockOSThread()
	log.SetFlags(0)
	log.SetPrefix("gollama-peer: ")
	var o options
	flag.StringVar(&o.model, "m", "", "model `file`, with a tokenizer")
	flag.IntVar(&o.prompt, "p", 0, "`tokens` of the prompt to evaluate")
	flag.IntVar(&o.gen, "n", 0, "`tokens` to generate, if -p is 0")
	flag.IntVar(&o.threads, "t", runtime.NumCPU(), "number of `threads`")
	flag.IntVar(&o.batch, "b", 2048, "largest number of `tokens` in a batch")
	flag.IntVar(&o.layer, "ngl", 0, "number of `layers` on GPUs")
	flag.IntVar(&o.repetitions, "r", 5, "`number` of repetitions")
	flag.Parse()
	m, err := measure(o)
	if err != nil {
		log.Fatal(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(m); err != nil {
		log.Fatal(err)
	}
}

// maxPrompt is the largest number of tokens that the module's Eval takes. It is a
// default of 2023 that no option changes, whatever the context.
const maxPrompt = 512

func measure(o options) (measurement, error) {
	switch {
	case o.prompt < 0 || o.gen < 0 || (o.prompt == 0) == (o.gen == 0):
		return measurement{}, errors.New("one of -p and -n must be positive and the other 0")
	case o.prompt > maxPrompt:
		return measurement{}, fmt.Errorf("go-llama.cpp evaluates at most %d tokens in one call", maxPrompt)
	case o.repetitions < 1 || o.threads < 1 || o.batch < 1:
		return measurement{}, errors.New("-r, -t and -b must be positive")
	}
	model, err := llama.New(o.model,
		llama.SetContext(max(o.prompt, 1+o.gen+margin)),
		llama.SetNBatch(o.batch),
		llama.SetGPULayers(o.layer),
		llama.EnableF16Memory, // as llama-bench
	)
	if err != nil {
		return measurement{}, fmt.Errorf("%s: %w", o.model, err)
	}
	defer model.Free()
	if o.prompt > 0 {
		return measurePrompt(model, o)
	}
	return measureGeneration(model, o)
}

// margin is the number of tokens that Predict keeps free in the context, and one
// token for the end.
const margin = 5

// measurePrompt times Eval: it copies the text to C, tokenizes it and evaluates the
// tokens. The first Eval is a warm-up.
func measurePrompt(model *llama.LLama, o options) (measurement, error) {
	text, err := textOf(model, o.prompt)
	if err != nil {
		return measurement{}, err
	}
	m := measurement{Prompt: o.prompt, Repetitions: make([]repetition, 0, o.repetitions)}
	for i := range o.repetitions + 1 {
		beginPass()
		heap, before := readHeap(), readParts()
		start := time.Now()
		if err := model.Eval(text, llama.SetThreads(o.threads), llama.SetBatch(o.batch)); err != nil {
			return measurement{}, fmt.Errorf("evaluate %d tokens: %w", o.prompt, err)
		}
		elapsed := time.Since(start)
		if i > 0 {
			m.Repetitions = append(m.Repetitions, shared(elapsed, readParts().since(before), heap, o.prompt))
		}
	}
	return m, nil
}

// measureGeneration times Predict from the second callback to the last, which comes
// gen tokens later. A short prediction is the warm-up.
func measureGeneration(model *llama.LLama, o options) (measurement, error) {
	beginPass()
	if err := predict(model, o, 2, func(int) {}); err != nil {
		return measurement{}, err
	}
	m := measurement{Gen: o.gen, Repetitions: make([]repetition, 0, o.repetitions)}
	for range o.repetitions {
		beginPass()
		heap := readHeap()
		var first, last time.Time
		var before, after parts
		err := predict(model, o, o.gen+2, func(i int) {
			switch i {
			case 0:
				readParts() // its first call is slower
			case 1:
				first = time.Now()
				before = readParts()
			case o.gen + 1:
				last = time.Now()
				after = readParts()
			}
		})
		if err != nil {
			return measurement{}, err
		}
		m.Repetitions = append(m.Repetitions, shared(last.Sub(first), after.since(before), heap, o.gen))
	}
	return m, nil
}

// predict generates n tokens after an empty prompt, which is one token. It calls
// token with the number of each, from 0.
func predict(model *llama.LLama, o options, n int, token func(i int)) error {
	i := 0
	_, err := model.Predict("", llama.SetTokens(n), llama.SetThreads(o.threads), llama.SetBatch(o.batch), llama.SetSeed(1), llama.IgnoreEOS,
		llama.SetTokenCallback(func(string) bool {
			token(i)
			i++
			return true
		}))
	if err != nil {
		return fmt.Errorf("predict %d tokens: %w", n, err)
	}
	if i != n {
		return fmt.Errorf("%d tokens were predicted, not %d", i, n)
	}
	return nil
}

// shared divides the times of a repetition and Go's allocations since before among
// n tokens.
func shared(elapsed time.Duration, p parts, before runtime.MemStats, n int) repetition {
	per := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / float64(n) / 1e3 }
	now := readHeap()
	return repetition{
		NS:         elapsed.Nanoseconds(),
		TokenizeUS: per(p.Tokenize),
		EvalUS:     per(p.Eval),
		SampleUS:   per(p.Sample),
		PieceUS:    per(p.Piece),
		CallbackUS: per(p.Callback),
		RestUS:     per(elapsed - p.Tokenize - p.Eval - p.Sample - p.Piece - p.Callback),

		Allocations:    float64(now.Mallocs-before.Mallocs) / float64(n),
		AllocatedBytes: float64(now.TotalAlloc-before.TotalAlloc) / float64(n),
	}
}

// readHeap reads the statistics of Go's heap.
func readHeap() (m runtime.MemStats) {
	runtime.ReadMemStats(&m)
	return m
}

// textOf makes a text of n tokens. Its words are random, from a fixed seed.
func textOf(model *llama.LLama, n int) (string, error) {
	random := rand.New(rand.NewPCG(1, uint64(n)))
	var text string
	count := func(text string) int {
		c, _, err := model.TokenizeString(text, llama.SetTokens(maxPrompt))
		if err != nil {
			return maxPrompt + 1 // longer than the buffer
		}
		return int(c)
	}
	have, misses := count(text), 0 // an empty text may have a token: BOS
	for have != n {
		length := 1 + random.IntN(8)
		if n-have < 8 {
			length = 1
		}
		var word strings.Builder
		for range length {
			word.WriteByte(byte('a' + random.IntN(26)))
		}
		longer := text + " " + word.String()
		if c := count(longer); c <= n {
			text, have, misses = longer, c, 0
		} else if misses++; misses > 1000 {
			return "", fmt.Errorf("no text of %d tokens was found", n)
		}
	}
	return text, nil
}
