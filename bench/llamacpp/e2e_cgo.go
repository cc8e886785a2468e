//go:build cgo

package llamacpp

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/synth"
	"github.com/sparecores/benchmark-llm/llama"
)

// endToEnd is the state that only an end-to-end test has.
type endToEnd struct {
	sampler *llama.SamplerChain
	at      []time.Duration // when the text of each token was there, since the start
	bytes   int64           // length of the text
}

// fits refuses an end-to-end test that is longer than the context with which the
// model was trained: beyond it the text makes no sense. Other tests have no text.
func (e *Engine) fits(t result.Test) error {
	most := e.model.Facts().ContextTokens
	if t.E2E && most > 0 && t.Context() > most {
		return fmt.Errorf("a prompt of %d tokens and %d generated ones do not fit the model's context of %d tokens: %w",
			t.Prompt, t.Gen, most, bench.ErrUnsupported)
	}
	return nil
}

// beginText tokenizes the prompt and makes the sampler. It allocates all that a
// repetition writes to.
func (e *Engine) beginText() error {
	settings := bench.DefaultE2E()
	if e.job.E2E != nil {
		settings = *e.job.E2E
	}
	text := settings.Prompt
	if text == "" {
		text = synth.Text
	}
	if err := e.write(text); err != nil {
		return err
	}
	e.e2e.at = make([]time.Duration, len(e.gen))
	s := llama.NewSamplerChain()
	e.e2e.sampler = s
	if settings.Temperature == 0 {
		return s.AddGreedy()
	}
	return errors.Join(
		s.AddTopK(settings.TopK),
		s.AddTopP(float32(settings.TopP), 1),
		s.AddTemp(float32(settings.Temperature)),
		s.AddDist(uint32(e.job.Seed)^uint32(e.job.Seed>>32)))
}

// write fills the prompt with the text's tokens, repeated as often as needed. BOS
// comes first if the vocabulary adds it.
func (e *Engine) write(text string) error {
	tokens, err := e.model.Tokenize(text, false, false)
	if err != nil {
		return fmt.Errorf("prompt: %w", err)
	}
	if len(tokens) == 0 {
		return fmt.Errorf("the prompt of %d bytes has no tokens: %w", len(text), bench.ErrUnsupported)
	}
	rest := e.prompt
	if f := e.model.Facts(); f.AddBOS {
		rest[0], rest = f.BOS, rest[1:]
	}
	for len(rest) > 0 {
		rest = rest[copy(rest, tokens):]
	}
	return nil
}

// generate evaluates the prompt and generates n tokens.
func (e *Engine) generate(n int) (time.Duration, error) {
	if err := e.e2e.sampler.Reset(); err != nil {
		return 0, err
	}
	elapsed, bytes, err := e.ctx.Timed().Generation(e.e2e.sampler, e.prompt, e.gen[:n], e.e2e.at[:n], e.now.Batch)
	e.e2e.bytes = bytes
	return elapsed, err
}

// Generated is what the last repetition of an end-to-end test generated; nil for
// other tests.
func (e *Engine) Generated() *result.Generated {
	if !e.test.E2E {
		return nil
	}
	return &result.Generated{Tokens: slices.Clone(e.gen), At: slices.Clone(e.e2e.at), Bytes: e.e2e.bytes}
}

// endText frees what beginText made.
func (e *Engine) endText() {
	if e.e2e.sampler != nil {
		e.e2e.sampler.Close()
	}
	e.e2e = endToEnd{}
}
