//go:build cgo && parity

package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"golang.org/x/sys/unix"

	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/llamacpp"
	"github.com/sparecores/benchmark-llm/bench/stats"
	"github.com/sparecores/benchmark-llm/bench/synth"
	"github.com/sparecores/benchmark-llm/llama"
)

// The requirements of synthetic weights.
const (
	streamBound   = 2.0  // least rate of the stream on one core, in GB/s, for every type
	loadBound     = 1.10 // largest ratio of the load time to that of a cached file in load mode none
	residentBound = 1.02 // largest ratio of the peak memory to that of such a file
)

// measureLoads measures the cost of synthetic weights: the rate of the stream by
// type, and the load time and memory of a model beside its file's. It reports
// whether all meet the requirements.
func measureLoads(o options) (bool, error) {
	o.loads = cmp.Or(o.loads, 7)
	fast, err := streamRates()
	if err != nil {
		return false, err
	}
	path, err := o.file(2)
	if err != nil {
		return false, err
	}
	quick, err := compareLoadTimes(o, path)
	if err != nil {
		return false, err
	}
	small, err := comparePeaks(o, path)
	return fast && quick && small, err
}

// streamRates copies two gigabytes of each type on one core, into a buffer of the
// size of the library's reads. Rates are by the thread's CPU time.
func streamRates() (bool, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	t := newTable()
	t.AppendHeader(table.Row{"type", "tile ms", "stream GB/s"})
	ok := true
	buf := make([]byte, 4<<20)
	for typ := gguf.Type(0); typ < 64; typ++ {
		if !typ.Valid() {
			continue
		}
		const rows = 1 << 21
		f, err := gguf.New(nil, []gguf.Tensor{{Name: "w.weight", Dims: []uint64{8192, rows}, Type: typ}})
		if err != nil {
			return false, err
		}
		start := time.Now()
		m, err := synth.FromHeader("w.gguf", f, 1, llamacpp.Quantizer{})
		if err != nil {
			t.AppendRow(table.Row{typ, "", "refused"})
			continue
		}
		made := time.Since(start)
		const bytes = 2e9
		if m.Size() < bytes {
			return false, fmt.Errorf("model of type %v has only %d bytes", typ, m.Size())
		}
		worked, err := threadTime()
		if err != nil {
			return false, err
		}
		var off int64
		for ; off < bytes; off += int64(len(buf)) {
			if _, err := m.ReadAt(buf, off); err != nil {
				return false, err
			}
		}
		until, err := threadTime()
		if err != nil {
			return false, err
		}
		rate := float64(off) / 1e9 / (until - worked).Seconds()
		ok = ok && rate >= streamBound
		t.AppendRow(table.Row{typ, ms(made.Seconds() * 1e3), fmt.Sprintf("%.1f", rate)})
	}
	fmt.Println(t.Render())
	return ok, nil
}

// threadTime is the CPU time of this OS thread.
func threadTime() (time.Duration, error) {
	var t unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t)
	return time.Duration(t.Nano()), err
}

// compareLoadTimes alternates three loads of a model: streamed, from its file in load
// mode none, and from its file mapped. The file is in the page cache.
func compareLoadTimes(o options, path string) (bool, error) {
	shape, err := synth.Lookup(o.model)
	if err != nil {
		return false, err
	}
	if err := readAll(path); err != nil {
		return false, err
	}
	loads := []struct {
		name string
		load func() (*llama.Model, error)
		took []float64
	}{
		{name: "synthetic", load: func() (*llama.Model, error) {
			m, err := synth.New(shape, 1, llamacpp.Quantizer{}) // part of the load time
			if err != nil {
				return nil, err
			}
			return llama.LoadModelStream(o.model, m, llama.ModelParams{LoadMode: llama.LoadNone}, nil)
		}},
		{name: "file, load mode none", load: func() (*llama.Model, error) {
			return llama.LoadModel(path, llama.ModelParams{LoadMode: llama.LoadNone}, nil)
		}},
		{name: "file, mapped", load: func() (*llama.Model, error) {
			return llama.LoadModel(path, llama.ModelParams{LoadMode: llama.LoadMmap}, nil)
		}},
	}
	err = onThread(func() error {
		for round := range o.loads + 1 {
			for i := range loads {
				l := &loads[(round+i)%len(loads)]
				start := time.Now()
				m, err := l.load()
				if err != nil {
					return err
				}
				if round > 0 { // the first round is the warm-up
					l.took = append(l.took, time.Since(start).Seconds())
				}
				if err := m.Close(); err != nil {
					return err
				}
			}
			fmt.Fprintf(os.Stderr, "\r%d of %d loads of each   ", round, o.loads)
		}
		fmt.Fprint(os.Stderr, "\r\x1b[K")
		return nil
	})
	if err != nil {
		return false, err
	}
	t := newTable()
	t.AppendHeader(table.Row{"load of " + o.model, "median s", "min s", "max s"})
	for _, l := range loads {
		t.AppendRow(table.Row{l.name, median(l.took), fmt.Sprintf("%.2f", slices.Min(l.took)), fmt.Sprintf("%.2f", slices.Max(l.took))})
	}
	fmt.Println(t.Render())
	ratio, err := stats.PairedRatioOfMedians(loads[0].took, loads[1].took, confidence) // needs five loads
	if err != nil {
		return false, err
	}
	fmt.Printf("load time, synthetic / file in load mode none: %s (required: at most %.2f)\n", interval(ratio), loadBound)
	return ratio.Value <= loadBound, nil
}

// comparePeaks runs a short test on synthetic weights and on the file, and compares
// the peak memory of the workers.
func comparePeaks(o options, path string) (bool, error) {
	synthetic, err := workerPeak(o, o.model, "synthetic")
	if err != nil {
		return false, err
	}
	file, err := workerPeak(o, path, "file", "--load-mode", "none")
	if err != nil {
		return false, err
	}
	mapped, err := workerPeak(o, path, "file")
	if err != nil {
		return false, err
	}
	ratio := float64(synthetic) / float64(file)
	fmt.Printf("peak resident memory: synthetic %s MiB, file in load mode none %s MiB, file mapped %s MiB; synthetic / file in load mode none: %.4f (required: at most %.2f)\n",
		mib(synthetic), mib(file), mib(mapped), ratio, residentBound)
	return ratio <= residentBound, nil
}

// readAll reads a file into the page cache.
func readAll(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(io.Discard, struct{ io.Reader }{f})
	return err
}
