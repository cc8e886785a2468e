//go:build cgo && parity

package main

import (
	"cmp"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"golang.org/x/sys/unix"

	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/host"
	"github.com/sparecores/benchmark-llm/bench/llamacpp"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/stats"
	"github.com/sparecores/benchmark-llm/bench/synth"
	"github.com/sparecores/benchmark-llm/llama"
)

// smallShapes are unquantised models of two layers and a usual number of words, one
// for each architecture. Small models allow many short turns. On a shared machine
// these are more precise than a few long ones, because the speed varies as much
// between tenths of a second as between seconds.
//
//go:embed testdata/*.yaml
var smallShapes embed.FS

// architectures are all architectures that can be compared.
const architectures = "llama,qwen2,gemma,phi3,moe"

// compareWeights compares a file with synthetic weights of the same header, for each
// architecture. It reports whether all ratios are within the noise.
func compareWeights(o options) (bool, error) {
	setDefault(&o.prompts, "128,512")
	setDefault(&o.gens, "32")
	if o.piece < 1 || o.turns < 0 {
		return false, fmt.Errorf("-piece %d and -turns %d: -piece must be at least 1, -turns at least 0", o.piece, o.turns)
	}
	o.loads, o.turns = cmp.Or(o.loads, 60), cmp.Or(o.turns, 8)
	fmt.Printf("%d threads, %d loads of each model, %d turns per load, file in load mode %s\n", o.threads, o.loads, o.turns, o.loadMode)
	ok := true
	var all []float64
	for name := range strings.SplitSeq(o.arch, ",") {
		ratios, within, err := compareArchitecture(o, name)
		if err != nil {
			return false, fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, ratios...)
		ok = ok && within
	}
	fmt.Println()
	signless, err := printSign(all)
	return ok && signless, err
}

// compareArchitecture compares a file with synthetic weights for one architecture or
// default model.
func compareArchitecture(o options, name string) (ratios []float64, within bool, err error) {
	start := time.Now()
	o.model = name
	file, err := o.quantized(name)
	if err != nil {
		return nil, false, err
	}
	defer os.RemoveAll(filepath.Dir(file)) // the next architecture needs the space
	header, err := gguf.ReadFile(file)
	if err != nil {
		return nil, false, err
	}
	outline, err := synth.Outline(name, header)
	if err != nil {
		return nil, false, err
	}
	weights, err := synth.FromHeader(name, outline, 1, llamacpp.Quantizer{})
	if err != nil {
		return nil, false, err
	}
	fmt.Printf("\n%s: architecture %s, %d MB of tensors, %d million parameters\n",
		name, header.Architecture(), header.TensorBytes()/1e6, header.Params()/1e6)
	ratios, within, err = compareLoads(o, file, weights)
	fmt.Printf("%.0f s\n", time.Since(start).Seconds())
	return ratios, within, err
}

// quantized writes a file of an architecture's small model and returns its path. Its
// weights have another seed than the stream. llama-quantize quantises them, so the
// file does not have the bytes of our own quantiser. If name is a default model, our
// quantiser writes the file, also with another seed.
func (o options) quantized(name string) (string, error) {
	const seed = 2
	if _, err := synth.Lookup(name); err == nil {
		return o.file(seed)
	}
	text, err := smallShapes.ReadFile("testdata/" + name + ".yaml")
	if err != nil {
		return "", fmt.Errorf("unknown architecture or default model %q (known architectures: %s)", name, architectures)
	}
	shape, err := synth.ParseShape(name+".gguf", text)
	if err != nil {
		return "", err
	}
	model, err := synth.New(shape, seed, llamacpp.Quantizer{})
	if err != nil {
		return "", err
	}
	dir := filepath.Join(o.dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	plain := filepath.Join(dir, "f16.gguf")
	f, err := os.Create(plain)
	if err != nil {
		return "", err
	}
	if _, err := model.WriteTo(f); err != nil {
		return "", err
	}
	if err := f.Close(); err != nil {
		return "", err
	}
	path := filepath.Join(dir, name+".Q4_K_M.gguf")
	if out, err := exec.Command(o.tool, "llama-quantize", plain, path, "Q4_K_M", fmt.Sprint(o.threads)).CombinedOutput(); err != nil {
		return "", fmt.Errorf("llama-quantize: %w: %s", err, out)
	}
	return path, os.Remove(plain)
}

// compareLoads compares a file with synthetic weights. ratios are those of the
// synthetic rates to the file's, by test.
//
// The memory pages that a model happens to get make a load some per cent faster or
// slower, for its whole life. So loads are repeated, not only tests. Every round
// loads the file, a copy of the file and the synthetic weights, and alternates tests
// between the three. Both files are written again each time. A copy is needed because
// two loads of the same pages would also share the content of caches.
func compareLoads(o options, file string, weights llama.Stream) (ratios []float64, ok bool, err error) {
	tests, err := o.tests()
	if err != nil {
		return nil, false, err
	}
	mode := llama.LoadMmap
	if o.loadMode == "none" {
		mode = llama.LoadNone
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, false, err
	}
	again := file + ".again"
	loads := []func() (*llama.Model, error){
		func() (*llama.Model, error) { return loadAnew(file, content, o.piece, mode) },
		func() (*llama.Model, error) { return loadAnew(again, content, o.piece, mode) },
		func() (*llama.Model, error) {
			return llama.LoadModelStream("synthetic", weights, llama.ModelParams{LoadMode: llama.LoadNone}, nil)
		},
	}
	series := make([][3][][]float64, len(tests))
	room, err := newStock(len(content), host.Observe("/").MemoryAvailableBytes)
	if err != nil {
		return nil, false, err
	}
	defer room.close()
	if room == nil {
		fmt.Println("warning: too little memory to give loads random pages; a side may keep its pages and differ because of them")
	}
	err = onThread(func() error {
		for round := range o.loads {
			models, err := loadAnywhere(loads, round, room, file, again)
			if err != nil {
				return err
			}
			err = o.withContexts(models, tests, func(contexts []*llama.Context) error {
				for i, test := range tests {
					rates, err := ratesOfLoad(contexts, test, o.turns, i == 0)
					if err != nil {
						return err
					}
					if err := o.record(test, round, rates); err != nil {
						return err
					}
					for side := range series[i] {
						series[i][side] = append(series[i][side], rates[side])
					}
				}
				return nil
			})
			if err != nil {
				return err
			}
			for _, m := range models {
				if err := m.Close(); err != nil {
					return err
				}
			}
			fmt.Fprintf(os.Stderr, "\r%d of %d loads of each model   ", round+1, o.loads)
		}
		fmt.Fprint(os.Stderr, "\r\x1b[K")
		return nil
	})
	if err != nil {
		return nil, false, err
	}
	t := newTable()
	t.AppendHeader(table.Row{"test", "turns", "file t/s", "synthetic t/s", "ratio (95 %)", "noise floor", "verdict"})
	ok = true
	for i, test := range tests {
		j, err := judge(series[i])
		if err != nil {
			return nil, false, err
		}
		ok = ok && j.verdict == stats.WithinNoise
		ratios = append(ratios, j.ab.Value)
		t.AppendRow(append(table.Row{test, o.turns}, j.cells()...))
	}
	fmt.Println(t.Render())
	return ratios, ok, nil
}

// loadAnywhere loads models into random pages, in the order of a round. The pages
// affect the speed for as long as a model keeps them, which would look like an
// effect of the weights. A file that is written again right after its deletion gets
// the same pages, and glibc may keep freed memory (see returnFreed). So the files are
// deleted before the loads, and each load finds other free pages.
func loadAnywhere(loads []func() (*llama.Model, error), round int, room *stock, files ...string) (models []*llama.Model, err error) {
	for _, path := range files {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	if err := room.take(); err != nil {
		return nil, err
	}
	models = make([]*llama.Model, len(loads))
	for _, i := range order(len(loads), round) {
		if err := room.free(); err != nil {
			return nil, err
		}
		if models[i], err = loads[i](); err != nil {
			return nil, err
		}
	}
	return models, nil
}

// stock holds some GiB of memory in single pages, and frees random pages before each
// load. A load in contiguous memory can be a third slower than the next one; loads in
// a few large pieces differ by 4 %. A nil stock does nothing.
type stock struct {
	memory []byte
	need   int   // pages to free for a load
	order  []int // pages in the random order in which they are freed
	freed  int   // pages of order that were freed
}

const (
	mostOfStock   = 64 // most loads that a stock has space for
	fewestOfStock = 16 // least loads; fewer leave little choice of pages
	freeForLoad   = 2  // memory freed for a load, as a multiple of the model's size
)

// newStock makes a stock for loads of size bytes. It uses at most a quarter of the
// available memory. It returns nil if that is too little or unknown.
func newStock(size int, available *uint64) (*stock, error) {
	if available == nil {
		return nil, nil
	}
	n := int(min(mostOfStock, *available/4/uint64(size)))
	if n < fewestOfStock {
		return nil, nil
	}
	page := os.Getpagesize()
	pages := n * size / page
	m, err := unix.Mmap(-1, 0, pages*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err == nil {
		if err = unix.Madvise(m, unix.MADV_NOHUGEPAGE); errors.Is(err, unix.EINVAL) { // the kernel has no huge pages
			err = nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("reserve memory: %w", err)
	}
	return &stock{memory: m, need: freeForLoad * size / page}, nil
}

// close returns all memory to the system.
func (s *stock) close() {
	if s != nil {
		_ = unix.Munmap(s.memory) // cannot fail for a mapping of ours
	}
}

// take takes all pages again, in a new random order.
func (s *stock) take() error {
	if s == nil {
		return nil
	}
	if err := unix.Madvise(s.memory, unix.MADV_POPULATE_WRITE); err != nil {
		return fmt.Errorf("take memory: %w", err)
	}
	s.order, s.freed = rand.Perm(len(s.memory)/os.Getpagesize()), 0
	return nil
}

// free frees the pages for one load.
func (s *stock) free() error {
	if s == nil {
		return nil
	}
	page := os.Getpagesize()
	for _, i := range s.order[s.freed : s.freed+s.need] {
		if err := unix.Madvise(s.memory[i*page:(i+1)*page], unix.MADV_DONTNEED); err != nil {
			return fmt.Errorf("free memory: %w", err)
		}
	}
	s.freed += s.need
	return nil
}

// loadAnew writes a file in pieces of the given number of bytes and loads it from the
// page cache. Its pages are as large as the pieces, if the kernel has such pages.
// Single pages come from the memory that a stock has freed.
func loadAnew(path string, content []byte, piece int, mode llama.LoadMode) (*llama.Model, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	for part := range slices.Chunk(content, piece) {
		if _, err := f.Write(part); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	if err := f.Sync(); err != nil { // otherwise the kernel writes to the disk during a test
		return nil, errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	return llama.LoadModel(path, llama.ModelParams{LoadMode: mode}, nil)
}

// withContexts opens a context of each model, in random order, for the longest test.
func (o options) withContexts(models []*llama.Model, tests []result.Test, do func([]*llama.Context) error) error {
	longest := 0
	for _, t := range tests {
		longest = max(longest, t.Context())
	}
	contexts := make([]*llama.Context, len(models))
	var open func(order []int) error
	open = func(order []int) error {
		if len(order) == 0 {
			return do(contexts)
		}
		return withContext(models[order[0]], o.threads, longest, func(c *llama.Context) error {
			contexts[order[0]] = c
			return open(order[1:])
		})
	}
	return open(rand.Perm(len(models)))
}

// ratesOfLoad alternates a test between contexts in random order. It returns the
// rates of each context, in tokens/second. With warmUp, for new contexts, a first turn
// does not count.
func ratesOfLoad(contexts []*llama.Context, test result.Test, turns int, warmUp bool) ([][]float64, error) {
	all := make([][]float64, len(contexts))
	if warmUp {
		turns++
	}
	for turn := range turns {
		elapsed, err := takeTurns(contexts, slicesOf(test))
		if err != nil {
			return nil, err
		}
		for i, d := range elapsed {
			if turn > 0 || !warmUp {
				all[i] = append(all[i], test.TokensPerSecond(d))
			}
		}
	}
	return all, nil
}

// slice is a part of a test that one context computes before the next context does:
// the prompt, or some tokens of the generation.
type slice struct{ prompt, gen []llama.Token }

// sliceTokens is the number of generated tokens of a slice. The machine's speed varies
// as much between hundredths of a second as between seconds, so sums of many short
// slices differ less than whole generations.
const sliceTokens = 4

// slicesOf divides a test into slices.
func slicesOf(test result.Test) (all []slice) {
	if test.Prompt > 0 {
		all = append(all, slice{prompt: tokens(test.Prompt)})
	}
	for part := range slices.Chunk(tokens(test.Gen), sliceTokens) {
		all = append(all, slice{gen: part})
	}
	return all
}

// takeTurns clears the memory of the contexts and computes all slices in each of
// them, each slice in a random order of the contexts. It returns the total time of
// each context.
func takeTurns(contexts []*llama.Context, all []slice) ([]time.Duration, error) {
	elapsed := make([]time.Duration, len(contexts))
	for _, c := range contexts {
		if err := c.ClearMemory(); err != nil {
			return nil, err
		}
	}
	for _, s := range all {
		for _, which := range rand.Perm(len(contexts)) {
			d, err := contexts[which].Timed().Repetition(s.prompt, s.gen, 2048)
			if err != nil {
				return nil, err
			}
			elapsed[which] += d
		}
	}
	return elapsed, nil
}
