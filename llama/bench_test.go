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

// BenchmarkBareCall is the cost of a call into C and back.
func BenchmarkBareCall(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		llama.BareCall()
	}
}

// BenchmarkSynchronizeIdle is a call into the library that has nothing to do. It
// includes all that the binding adds to a decode: the debug hook, the check for
// Close, the thread check, the call.
func BenchmarkSynchronizeIdle(b *testing.B) {
	b.Run(named("op=synchronize"), func(b *testing.B) {
		onContext(b, 256, func(_ *llama.Model, c *llama.Context) {
			b.ReportAllocs()
			for b.Loop() {
				must(c.Synchronize())
			}
		})
	})
}

// BenchmarkDecodeAdds is the time that the binding adds to the decode of one token:
// ns/op is the median of the call's time less the time inside the library.
func BenchmarkDecodeAdds(b *testing.B) {
	b.Run(named("test=tg1"), func(b *testing.B) {
		onContext(b, 256, func(m *llama.Model, c *llama.Context) {
			t := tokens(m, 1)
			added := make([]time.Duration, 0, 1<<16)
			b.ReportAllocs()
			for b.Loop() {
				must(c.ClearMemory())
				start := time.Now()
				_, inside, err := c.Timed().RepetitionInside(nil, t, 2048)
				wall := time.Since(start)
				must(err)
				added = append(added, wall-inside)
			}
			slices.Sort(added)
			b.ReportMetric(float64(added[len(added)/2]), "ns/op")
		})
	})
}

// BenchmarkDecode is one decode of n tokens on an empty cache, from Go.
func BenchmarkDecode(b *testing.B) {
	for _, n := range []int{1, 16, 512} {
		b.Run(named(fmt.Sprintf("test=pp%d", n)), func(b *testing.B) {
			onContext(b, 512, func(m *llama.Model, c *llama.Context) {
				t := tokens(m, n)
				must(c.Decode(t))
				must(c.Synchronize())
				b.ReportAllocs()
				for b.Loop() {
					must(c.ClearMemory())
					must(c.Decode(t))
					must(c.Synchronize())
				}
				b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "tok/s")
			})
		})
	}
}

// BenchmarkRepetition is a whole repetition in one C call. outside-% is the share
// of its time, measured in Go, that is not spent inside libllama.
func BenchmarkRepetition(b *testing.B) {
	for _, t := range []struct {
		name        string
		prompt, gen int
	}{{"pp128", 128, 0}, {"tg128", 0, 128}} {
		b.Run(named("test="+t.name), func(b *testing.B) {
			onContext(b, 128, func(m *llama.Model, c *llama.Context) {
				p, g := tokens(m, t.prompt), tokens(m, t.gen)
				repetition(c, p, g)
				var wall, inside time.Duration
				b.ReportAllocs()
				for b.Loop() {
					must(c.ClearMemory())
					start := time.Now()
					_, in, err := c.Timed().RepetitionInside(p, g, 2048)
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

func BenchmarkContext(b *testing.B) {
	for _, n := range []int{512, 4096} {
		b.Run(named(fmt.Sprintf("tokens=%d", n)), func(b *testing.B) {
			onModel(b, func(m *llama.Model) {
				b.ReportAllocs()
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
	b.Run(named("tokens=4096"), func(b *testing.B) {
		onContext(b, 4096, func(_ *llama.Model, c *llama.Context) {
			b.ReportAllocs()
			for b.Loop() {
				must(c.ClearMemory())
			}
		})
	})
}

// BenchmarkState saves and restores a cache of 512 tokens.
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
		b.Run(named("op="+op.name+"/depth=512"), func(b *testing.B) {
			onContext(b, 512, func(m *llama.Model, c *llama.Context) {
				repetition(c, tokens(m, 512), nil)
				state, err := c.SaveState()
				must(err)
				defer state.Close()
				b.SetBytes(int64(state.Bytes()))
				b.ReportAllocs()
				for b.Loop() {
					op.run(c, state)
				}
			})
		})
	}
}

// BenchmarkAbort aborts a repetition at a random moment. ns/op is the median time
// from the abort to the return.
func BenchmarkAbort(b *testing.B) {
	for _, t := range []struct {
		name        string
		prompt, gen int
	}{{"pp512", 512, 0}, {"tg128", 0, 128}} {
		b.Run(named("test="+t.name), func(b *testing.B) {
			onContext(b, 512, func(m *llama.Model, c *llama.Context) {
				p, g := tokens(m, t.prompt), tokens(m, t.gen)
				whole, err := c.Timed().Repetition(p, g, 2048)
				must(err)
				var latencies []time.Duration
				for b.Loop() {
					must(c.ClearMemory())
					told := make(chan time.Time, 1)
					timer := time.AfterFunc(rand.N(whole*9/10), func() {
						told <- time.Now()
						c.Abort()
					})
					_, err := c.Timed().Repetition(p, g, 2048)
					returned := time.Now()
					if errors.Is(err, llama.ErrAborted) {
						latencies = append(latencies, returned.Sub(<-told))
					} else if must(err); !timer.Stop() {
						<-told // it came too late
					}
					c.ClearAbort()
				}
				if len(latencies) == 0 {
					must(errors.New("no repetition was aborted: all ended before"))
				}
				slices.Sort(latencies)
				n := len(latencies)
				b.ReportMetric(float64(latencies[n/2]), "ns/op")
				b.ReportMetric(float64(latencies[min(n*99/100, n-1)]), "p99-ns")
				b.ReportMetric(float64(latencies[n-1]), "max-ns")
			})
		})
	}
}

// BenchmarkLoad loads the model from a stream and from a file in the page cache.
// Making the tiles of the embedded model is not included.
func BenchmarkLoad(b *testing.B) {
	release()
	w := newWeights(b)
	if w.path == "" {
		w.path = filepath.Join(b.TempDir(), smolLM)
		f, err := os.Create(w.path)
		must(err)
		_, err = smol(b).WriteTo(f)
		must(err)
		must(f.Close())
	}
	for _, from := range []struct {
		name string
		load func(weights) (*llama.Model, error)
	}{
		{"from=stream/mode=none", func(w weights) (*llama.Model, error) {
			return llama.LoadModelStream(w.path, w, llama.ModelParams{LoadMode: llama.LoadNone}, nil)
		}},
		{"from=file/mode=none", func(w weights) (*llama.Model, error) {
			return llama.LoadModel(w.path, llama.ModelParams{LoadMode: llama.LoadNone}, nil)
		}},
		{"from=file/mode=mmap", func(w weights) (*llama.Model, error) {
			return llama.LoadModel(w.path, llama.ModelParams{LoadMode: llama.LoadMmap}, nil)
		}},
	} {
		b.Run(named(from.name), func(b *testing.B) {
			defer failed(b)
			thread := llama.StartThread()
			defer thread.Stop()
			thread.Do(func() {
				must(llama.LoadBackends(llama.AllBackends))
				b.SetBytes(w.Size())
				for b.Loop() {
					m, err := from.load(w)
					must(err)
					must(m.Close())
				}
			})
		})
	}
}

// BenchmarkThreadRule measures what the rule of one OS thread is worth: tg128 on a
// locked thread, on a goroutine that is not locked, and on two threads in turn,
// which is the worst case of a moving goroutine.
func BenchmarkThreadRule(b *testing.B) {
	release()
	run := func(b *testing.B, on func(i int, f func())) {
		defer failed(b)
		w := newWeights(b)
		// The model is loaded where the first repetition runs.
		on(0, func() {
			must(llama.LoadBackends(llama.AllBackends))
			m, err := w.load()
			must(err)
			defer func() { must(m.Close()) }()
			withContext(m, 128, true, func(c *llama.Context) {
				g := tokens(m, 128)
				repetition(c, nil, g[:1])
				var timed time.Duration
				i := 0
				for b.Loop() {
					i++
					must(c.ClearMemory())
					on(i, func() {
						elapsed, err := c.Timed().Repetition(nil, g, 2048)
						must(err)
						timed += elapsed
					})
				}
				b.ReportMetric(128*float64(b.N)/timed.Seconds(), "tok/s")
			})
		})
	}
	b.Run(named("test=tg128/thread=locked"), func(b *testing.B) {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		run(b, func(_ int, f func()) { f() })
	})
	b.Run(named("test=tg128/thread=unlocked"), func(b *testing.B) {
		run(b, func(_ int, f func()) {
			time.Sleep(time.Millisecond) // any blocking call lets the goroutine move
			f()
		})
	})
	b.Run(named("test=tg128/thread=moved"), func(b *testing.B) {
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
