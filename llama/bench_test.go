//go:build cgo

package llama_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/sparecores/benchmark-llm/llama"
)

// Sub-benchmarks are named key=value, so that benchstat can project on them.

var threads = runtime.NumCPU()

// model is BENCH_MODEL, or the embedded SmolLM.
func model(b *testing.B, f func(*llama.Model)) {
	path := os.Getenv("BENCH_MODEL")
	if path == "" {
		load(b, f)
		return
	}
	onThread(b, func() {
		m, err := llama.LoadModel(path, llama.ModelParams{}, nil)
		must(err)
		defer func() { must(m.Close()) }()
		f(m)
	})
}

// ready is a context with a threadpool, as the engine has it.
func ready(b *testing.B, tokens int, f func(*llama.Context)) {
	model(b, func(m *llama.Model) { readyOn(m, tokens, false, f) })
}

func readyOn(m *llama.Model, tokens int, anyThread bool, f func(*llama.Context)) {
	pool, err := llama.NewThreadpool(llama.ThreadpoolParams{Threads: threads, Poll: 50})
	must(err)
	c, err := m.NewContext(llama.ContextParams{
		Context: tokens, Threads: threads, FlashAttention: llama.FlashOn, AnyThread: anyThread,
	})
	must(err)
	must(c.AttachThreadpool(pool))
	f(c)
	must(c.Close())
	must(pool.Close())
}

// BenchmarkBareCall is the cost of a call into C and back.
func BenchmarkBareCall(b *testing.B) {
	for b.Loop() {
		llama.BareCall()
	}
}

// BenchmarkSynchronizeIdle is a call into the library that has nothing to do,
// through all that the binding adds to a decode: the debug hook, the door to
// the pointer, the thread check, the call.
func BenchmarkSynchronizeIdle(b *testing.B) {
	ready(b, 256, func(c *llama.Context) {
		b.ReportAllocs()
		for b.Loop() {
			must(c.Synchronize())
		}
	})
}

// BenchmarkDecode is one decode of n tokens on an empty cache, from Go.
func BenchmarkDecode(b *testing.B) {
	for _, n := range []int{1, 16, 512} {
		b.Run(fmt.Sprintf("tokens=%d/threads=%d", n, threads), func(b *testing.B) {
			ready(b, 512, func(c *llama.Context) {
				tokens := prompt(n)
				must(c.Decode(tokens))
				b.ReportAllocs()
				for b.Loop() {
					must(c.ClearMemory())
					must(c.Decode(tokens))
					must(c.Synchronize())
				}
				b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "tok/s")
			})
		})
	}
}

// BenchmarkRepetition is a whole repetition in one C call. outside-% is the
// share of it, seen from Go, that is not spent inside libllama.
func BenchmarkRepetition(b *testing.B) {
	for _, t := range []struct {
		name        string
		prompt, gen int
	}{{"pp128", 128, 0}, {"tg128", 0, 128}} {
		b.Run(fmt.Sprintf("test=%s/threads=%d", t.name, threads), func(b *testing.B) {
			ready(b, 128, func(c *llama.Context) {
				p, g := prompt(t.prompt), prompt(t.gen)
				_, err := c.Repetition(p, g, 2048)
				must(err)
				var wall, inside time.Duration
				b.ReportAllocs()
				for b.Loop() {
					must(c.ClearMemory())
					start := time.Now()
					_, in, err := c.RepetitionInside(p, g, 2048)
					wall += time.Since(start)
					inside += in
					must(err)
				}
				b.ReportMetric(float64(t.prompt+t.gen)*float64(b.N)/wall.Seconds(), "tok/s")
				b.ReportMetric(100*float64(wall-inside)/float64(wall), "outside-%")
			})
		})
	}
}

// BenchmarkThreadRule is what the rule of one OS thread is worth: tg128 on the
// locked thread, on a goroutine that is left unlocked between repetitions, and
// on two threads in turn, which is what moving does at worst.
func BenchmarkThreadRule(b *testing.B) {
	run := func(b *testing.B, on func(i int, f func())) {
		// The model is loaded where the first repetition runs.
		on(0, func() {
			must(llama.LoadBackends(llama.AllBackends))
			m, err := llama.LoadModelStream(smolLM, smol(b), llama.ModelParams{LoadMode: llama.LoadNone}, nil)
			must(err)
			readyOn(m, 128, true, func(c *llama.Context) {
				g := prompt(128)
				_, err := c.Repetition(nil, g[:1], 2048)
				must(err)
				var timed time.Duration
				i := 0
				for b.Loop() {
					i++
					must(c.ClearMemory())
					on(i, func() {
						elapsed, err := c.Repetition(nil, g, 2048)
						must(err)
						timed += elapsed
					})
				}
				b.ReportMetric(128*float64(b.N)/timed.Seconds(), "tok/s")
			})
			must(m.Close())
		})
	}
	b.Run("thread=locked", func(b *testing.B) {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		run(b, func(_ int, f func()) { f() })
	})
	b.Run("thread=unlocked", func(b *testing.B) {
		run(b, func(_ int, f func()) {
			time.Sleep(time.Millisecond) // any blocking call lets the goroutine move
			f()
		})
	})
	b.Run("thread=moved", func(b *testing.B) {
		one, two := llama.StartThread(), llama.StartThread()
		defer one.Stop()
		defer two.Stop()
		// The first call holds thread one, so later ones need two others.
		three := llama.StartThread()
		defer three.Stop()
		run(b, func(i int, f func()) {
			switch {
			case i == 0:
				one.Do(f)
			case i%2 == 0:
				two.Do(f)
			default:
				three.Do(f)
			}
		})
	})
}

func BenchmarkContext(b *testing.B) {
	for _, n := range []int{512, 4096} {
		b.Run(fmt.Sprintf("tokens=%d", n), func(b *testing.B) {
			model(b, func(m *llama.Model) {
				for b.Loop() {
					c, err := m.NewContext(llama.ContextParams{Context: n, Threads: threads})
					must(err)
					must(c.Close())
				}
			})
		})
	}
}

func BenchmarkClearMemory(b *testing.B) {
	ready(b, 4096, func(c *llama.Context) {
		b.ReportAllocs()
		for b.Loop() {
			must(c.ClearMemory())
		}
	})
}

func BenchmarkState(b *testing.B) {
	for _, op := range []struct {
		name string
		run  func(*llama.Context, *llama.State)
	}{
		{"save", func(c *llama.Context, _ *llama.State) {
			s, err := c.SaveState()
			must(err)
			s.Close()
		}},
		{"restore", func(c *llama.Context, s *llama.State) { must(c.RestoreState(s)) }},
	} {
		b.Run("op="+op.name+"/depth=512", func(b *testing.B) {
			ready(b, 512, func(c *llama.Context) {
				_, err := c.Repetition(prompt(512), nil, 2048)
				must(err)
				state, err := c.SaveState()
				must(err)
				defer state.Close()
				b.SetBytes(int64(state.Bytes()))
				for b.Loop() {
					op.run(c, state)
				}
			})
		})
	}
}

// BenchmarkLoad loads the embedded model from its stream, once its tiles are
// made, and from a file in the page cache.
func BenchmarkLoad(b *testing.B) {
	stream := smol(b)
	path := filepath.Join(b.TempDir(), smolLM)
	file, err := os.Create(path)
	must(err)
	_, err = stream.WriteTo(file)
	must(err)
	must(file.Close())
	for _, from := range []struct {
		name string
		load func() (*llama.Model, error)
	}{
		{"stream/mode=none", func() (*llama.Model, error) {
			return llama.LoadModelStream(smolLM, stream, llama.ModelParams{LoadMode: llama.LoadNone}, nil)
		}},
		{"file/mode=none", func() (*llama.Model, error) {
			return llama.LoadModel(path, llama.ModelParams{LoadMode: llama.LoadNone}, nil)
		}},
		{"file/mode=mmap", func() (*llama.Model, error) {
			return llama.LoadModel(path, llama.ModelParams{LoadMode: llama.LoadMmap}, nil)
		}},
	} {
		b.Run("from="+from.name, func(b *testing.B) {
			onThread(b, func() {
				b.SetBytes(stream.Size())
				for b.Loop() {
					m, err := from.load()
					must(err)
					must(m.Close())
				}
			})
		})
	}
}

// BenchmarkAbort aborts a repetition at a random moment and reports the time
// from the abort to the return.
func BenchmarkAbort(b *testing.B) {
	for _, t := range []struct {
		name        string
		prompt, gen int
	}{{"pp512", 512, 0}, {"tg128", 0, 128}} {
		b.Run("test="+t.name, func(b *testing.B) {
			ready(b, 512, func(c *llama.Context) {
				p, g := prompt(t.prompt), prompt(t.gen)
				whole, err := c.Repetition(p, g, 2048)
				must(err)
				var latencies []float64
				for b.Loop() {
					must(c.ClearMemory())
					told := make(chan time.Time, 1)
					timer := time.AfterFunc(time.Duration(rand.Int64N(int64(whole*9/10))), func() {
						told <- time.Now()
						c.Abort()
					})
					_, err := c.Repetition(p, g, 2048)
					returned := time.Now()
					if errors.Is(err, llama.ErrAborted) {
						latencies = append(latencies, returned.Sub(<-told).Seconds()*1e3)
					} else {
						must(err)
						timer.Stop()
					}
					c.ClearAbort()
				}
				slices.Sort(latencies)
				if n := len(latencies); n > 0 {
					b.ReportMetric(latencies[n/2], "p50-ms")
					b.ReportMetric(latencies[min(n*99/100, n-1)], "p99-ms")
					b.ReportMetric(latencies[n-1], "max-ms")
				}
				b.ReportMetric(0, "ns/op") // a random time: it says nothing
			})
		})
	}
}
