//go:build cgo

package llama_test

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench/llamacpp"
	"github.com/sparecores/benchmark-llm/bench/synth"
	"github.com/sparecores/benchmark-llm/llama"
)

// tiny loads the model of two layers, with a tokenizer or without.
func tiny(t testing.TB, words bool, f func(*llama.Model, *llama.Context)) {
	t.Helper()
	shape, err := synth.Lookup(synth.Tiny)
	must(err)
	header, err := shape.File()
	must(err)
	if words {
		header, err = synth.WithVocabulary(synth.Tiny, header)
		must(err)
	}
	stream, err := synth.FromHeader(synth.Tiny, header, 1, llamacpp.Quantizer{})
	must(err)
	onThread(t, func() {
		m, err := llama.LoadModelStream(synth.Tiny, stream, llama.ModelParams{LoadMode: llama.LoadNone}, nil)
		must(err)
		defer func() { must(m.Close()) }()
		c, err := m.NewContext(llama.ContextParams{Context: 256, Threads: 1})
		must(err)
		defer func() { must(c.Close()) }()
		f(m, c)
	})
}

// few are n tokens that even a small vocabulary has.
func few(n int) []llama.Token {
	out := make([]llama.Token, n)
	for i := range out {
		out[i] = llama.Token(2 + i*7%200)
	}
	return out
}

// chain is a chain that picks at random.
func chain(seed uint32) *llama.SamplerChain {
	s := llama.NewSamplerChain()
	must(s.AddTopK(40))
	must(s.AddTopP(0.95, 1))
	must(s.AddTemp(0.8))
	must(s.AddDist(seed))
	return s
}

func greedy() *llama.SamplerChain {
	s := llama.NewSamplerChain()
	must(s.AddGreedy())
	return s
}

// Timed.Generation does in one C call what single calls do, and notes the times.
func TestGenerate(t *testing.T) {
	tiny(t, true, func(m *llama.Model, c *llama.Context) {
		prompt, err := m.Tokenize("The machine answers in words.", true, false)
		must(err)
		for name, make := range map[string]func() *llama.SamplerChain{
			"greedy": greedy,
			"chance": func() *llama.SamplerChain { return chain(7) },
		} {
			var want []llama.Token
			var text strings.Builder
			s := make()
			must(c.ClearMemory())
			must(c.Decode(prompt))
			for range 12 {
				token, err := c.Sample(s)
				must(err)
				piece, err := m.TokenToPiece(token, false)
				must(err)
				want = append(want, token)
				text.WriteString(piece)
				must(c.Decode([]llama.Token{token}))
			}
			out, at := generate(t, c, s, prompt, 12, text.Len()) // the same chain, restarted
			if diff := cmp.Diff(want, out); diff != "" {
				t.Errorf("%s: tokens (-one by one +in one call):\n%s", name, diff)
			}
			if at[0] <= 0 {
				t.Errorf("%s: the first token came after %v", name, at[0])
			}
			for i := range at[1:] {
				if at[i+1] <= at[i] {
					t.Errorf("%s: tokens at %v", name, at)
				}
			}
			s.Close()
			s.Close()
		}
	})
}

// generate resets the chain, generates n tokens, and checks the text's length.
func generate(t *testing.T, c *llama.Context, s *llama.SamplerChain, prompt []llama.Token, n, bytes int) ([]llama.Token, []time.Duration) {
	t.Helper()
	must(s.Reset())
	must(c.ClearMemory())
	out, at := make([]llama.Token, n), make([]time.Duration, n)
	elapsed, length, err := c.Timed().Generation(s, prompt, out, at, 2048)
	must(err)
	if elapsed != at[n-1] || bytes >= 0 && length != int64(bytes) {
		t.Errorf("took %v and made %d bytes; the last token came at %v, want %d bytes", elapsed, length, at[n-1], bytes)
	}
	if done := c.Timed().TokensDone(); done != len(prompt)+n {
		t.Errorf("%d tokens are done, want %d", done, len(prompt)+n)
	}
	return out, at
}

func TestSeedsDecide(t *testing.T) {
	tiny(t, true, func(_ *llama.Model, c *llama.Context) {
		one, two := chain(1), chain(2)
		defer one.Close()
		defer two.Close()
		first, _ := generate(t, c, one, few(8), 16, -1)
		again, _ := generate(t, c, one, few(8), 16, -1)
		other, _ := generate(t, c, two, few(8), 16, -1)
		if !cmp.Equal(first, again) || cmp.Equal(first, other) {
			t.Errorf("seed 1: %v and %v; seed 2: %v", first, again, other)
		}
	})
}

func TestGenerateAllocatesNothing(t *testing.T) {
	tiny(t, true, func(_ *llama.Model, c *llama.Context) {
		s := chain(1)
		defer s.Close()
		p, out, at := few(8), make([]llama.Token, 8), make([]time.Duration, 8)
		n := testing.AllocsPerRun(5, func() {
			must(c.ClearMemory())
			_, _, err := c.Timed().Generation(s, p, out, at, 2048)
			must(err)
		})
		if n != 0 {
			t.Errorf("%v allocations for 8 tokens", n)
		}
	})
}

func TestGenerateAborts(t *testing.T) {
	tiny(t, true, func(_ *llama.Model, c *llama.Context) {
		s := greedy()
		defer s.Close()
		p, out, at := few(8), make([]llama.Token, 100), make([]time.Duration, 100)
		must(c.ClearMemory())
		c.Abort()
		if elapsed, _, err := c.Timed().Generation(s, p, out, at, 2048); !errors.Is(err, llama.ErrAborted) || elapsed <= 0 {
			t.Errorf("aborted before: %v, %v", elapsed, err)
		}
		c.ClearAbort()
		told := make(chan struct{})
		go func() { // as soon as a token was generated
			defer close(told)
			for c.Timed().TokensDone() <= len(p) {
				time.Sleep(time.Microsecond)
			}
			c.Abort()
		}()
		for { // the busiest of machines may let it finish first
			must(c.ClearMemory())
			if _, _, err := c.Timed().Generation(s, p, out, at, 2048); errors.Is(err, llama.ErrAborted) {
				break
			} else {
				must(err)
			}
		}
		<-told
		c.ClearAbort()
		generate(t, c, s, p, 4, -1) // the context stays usable
	})
}

func TestGenerateRefuses(t *testing.T) {
	out, at := make([]llama.Token, 2), make([]time.Duration, 2)
	tiny(t, false, func(m *llama.Model, c *llama.Context) {
		s := greedy()
		defer s.Close()
		if _, _, err := c.Timed().Generation(s, few(4), out, at, 2048); !errors.Is(err, llama.ErrNoTokenizer) {
			t.Errorf("without a tokenizer: %v", err)
		}
		if _, err := m.Tokenize("a", true, true); !errors.Is(err, llama.ErrNoTokenizer) {
			t.Errorf("tokenize: %v", err)
		}
		if _, err := m.TokenToPiece(1, true); !errors.Is(err, llama.ErrNoTokenizer) {
			t.Errorf("piece: %v", err)
		}
	})
	tiny(t, true, func(m *llama.Model, c *llama.Context) {
		s, closed, empty, half := greedy(), greedy(), llama.NewSamplerChain(), llama.NewSamplerChain()
		defer s.Close()
		defer empty.Close()
		defer half.Close()
		closed.Close()
		must(half.AddTopK(3))
		if _, err := c.Sample(s); !errors.Is(err, llama.ErrNoLogits) {
			t.Errorf("before a decode: %v", err)
		}
		for name, tt := range map[string]struct {
			chain  *llama.SamplerChain
			prompt []llama.Token
			out    []llama.Token
			want   error
		}{
			"closed chain": {closed, few(4), out, llama.ErrClosed},
			"empty chain":  {empty, few(4), out, llama.ErrInvalidSampler},
			"no pick":      {half, few(4), out, llama.ErrInvalidSampler},
			"no prompt":    {s, nil, out, llama.ErrInvalidBatch},
			"nothing":      {s, few(4), nil, llama.ErrInvalidBatch},
			"no times":     {s, few(4), out[:1], llama.ErrInvalidBatch},
			"too long":     {s, few(300), out, llama.ErrNoKVSlot},
		} {
			must(c.ClearMemory())
			if _, _, err := c.Timed().Generation(tt.chain, tt.prompt, tt.out, at, 2048); !errors.Is(err, tt.want) {
				t.Errorf("%s: %v, want %v", name, err, tt.want)
			}
			if errors.Is(tt.want, llama.ErrInvalidSampler) || errors.Is(tt.want, llama.ErrClosed) {
				if _, err := c.Sample(tt.chain); !errors.Is(err, tt.want) {
					t.Errorf("sample, %s: %v, want %v", name, err, tt.want)
				}
			}
		}
		for name, err := range map[string]error{
			"closed":       closed.AddDist(1),
			"reset":        closed.Reset(),
			"top-k":        s.AddTopK(math.MaxInt),
			"top-p":        s.AddTopP(1.5, 1),
			"top-p, NaN":   s.AddTopP(float32(math.NaN()), 1),
			"top-p, least": s.AddTopP(0.5, -1),
			"temperature":  s.AddTemp(-1),
			"hot":          s.AddTemp(float32(math.Inf(1))),
		} {
			if !errors.Is(err, llama.ErrInvalidSampler) && !errors.Is(err, llama.ErrClosed) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := m.Tokenize("caf\xe9", false, false); !errors.Is(err, llama.ErrInvalidUTF8) {
			t.Errorf("Latin-1: %v", err)
		}
		for _, token := range []llama.Token{-1, 4096} {
			if _, err := m.TokenToPiece(token, false); !errors.Is(err, llama.ErrInvalidToken) {
				t.Errorf("token %d: %v", token, err)
			}
		}
		// Names of special tokens are text, unless they are asked for.
		for special, want := range map[bool]int{false: 2, true: 1} {
			tokens, err := m.Tokenize("<|end_of_text|>", false, special)
			if must(err); len(tokens) < want || special && (len(tokens) != 1 || tokens[0] != 1) {
				t.Errorf("parse special %v: tokens %v", special, tokens)
			}
		}
		if piece, err := m.TokenToPiece(1, false); piece != "" || err != nil {
			t.Errorf("hidden EOS is %q, %v", piece, err)
		}
	})
}

// Context.Generate yields what Sample and Decode give one by one, over several
// batches, and ends where it should.
func TestGenerateText(t *testing.T) {
	tiny(t, true, func(m *llama.Model, _ *llama.Context) {
		c, err := m.NewContext(llama.ContextParams{Context: 256, Batch: 32, UBatch: 32, Threads: 1})
		must(err)
		defer func() { must(c.Close()) }()
		collect := func(s *llama.SamplerChain, prompt []llama.Token, n int) (text string, pieces int, last error) {
			must(c.ClearMemory())
			for piece, err := range c.Generate(s, prompt, n) {
				if last != nil {
					t.Errorf("after %v came %q, %v", last, piece, err)
				}
				if last = err; err == nil {
					text, pieces = text+piece, pieces+1
				}
			}
			return text, pieces, last
		}

		var want strings.Builder
		s := chain(7)
		defer s.Close()
		for _, batch := range [][]llama.Token{few(70)[:32], few(70)[32:64], few(70)[64:]} {
			must(c.Decode(batch))
		}
		for range 6 {
			token, err := c.Sample(s)
			must(err)
			piece, err := m.TokenToPiece(token, false)
			must(err)
			want.WriteString(piece)
			must(c.Decode([]llama.Token{token}))
		}
		must(s.Reset())
		if text, n, err := collect(s, few(70), 6); text != want.String() || n != 6 || err != nil {
			t.Errorf("%d pieces %q, %v; want %q", n, text, err, want.String())
		}

		if !m.Ends(1) || m.Ends(2) || m.Ends(-1) || m.Ends(1<<30) {
			t.Error("EOS is token 1, and no other ends a text")
		}
		// The model repeats its last token: EOS ends the text before it begins.
		if text, n, err := collect(nil, []llama.Token{0, 1}, 0); n != 0 || err != nil {
			t.Errorf("after EOS: %d pieces %q, %v", n, text, err)
		}
		if _, n, err := collect(nil, few(8), 0); n != 256-8+1 || !errors.Is(err, llama.ErrNoKVSlot) {
			t.Errorf("%d pieces and %v, want those of a full context", n, err)
		}
		if _, n, err := collect(nil, nil, 1); n != 0 || !errors.Is(err, llama.ErrInvalidBatch) {
			t.Errorf("without a prompt: %d pieces, %v", n, err)
		}
		empty := llama.NewSamplerChain()
		defer empty.Close()
		if _, n, err := collect(empty, few(8), 1); n != 0 || !errors.Is(err, llama.ErrInvalidSampler) {
			t.Errorf("an empty chain: %d pieces, %v", n, err)
		}
		must(c.ClearMemory())
		for _, err := range c.Generate(nil, few(8), 0) {
			must(err)
			break // yields no more, and leaves the context usable
		}
		must(c.Decode(few(1)))
	})
}
