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

// smallShapes are models of two layers and as many words as others have, one for
// each architecture that is compared, unquantised. A machine with neighbours
// varies as much from one second to the next as from one tenth to the next, so many
// short turns tell more than few long ones.
//
//go:embed testdata/*.yaml
var smallShapes embed.FS

// architectures are all of them.
const architectures = "llama,qwen2,gemma,phi3,moe"

// compareWeights is the equivalence report, architecture by architecture: a file
// against synthetic weights of the file's header.
func compareWeights(o options) (bool, error) {
	setDefault(&o.prompts, "128,512")
	setDefault(&o.gens, "32")
	if o.piece < 1 || o.turns < 0 {
		return false, fmt.Errorf("-piece %d and -turns %d: pieces have a byte at least, and turns are counted", o.piece, o.turns)
	}
	o.loads, o.turns = cmp.Or(o.loads, 60), cmp.Or(o.turns, 8)
	fmt.Printf("%d threads, %d loads of each, %d turns, file in load mode %s\n", o.threads, o.loads, o.turns, o.loadMode)
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

func compareArchitecture(o options, name string) (ratios []float64, within bool, err error) {
	start := time.Now()
	o.model = name
	file, err := o.quantized(name)
	if err != nil {
		return nil, false, err
	}
	defer os.RemoveAll(filepath.Dir(file)) // the next one needs the room
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

// quantized is a file of an architecture's small model. Its weights have another
// seed than the stream's and are quantised by llama-quantize of the same
// packages, so that the file is not our own bytes. The name of a default model
// gives a file of our own bytes, with that seed too.
func (o options) quantized(name string) (string, error) {
	const seed = 2
	if _, err := synth.Lookup(name); err == nil {
		return o.file(seed)
	}
	text, err := smallShapes.ReadFile("testdata/" + name + ".yaml")
	if err != nil {
		return "", fmt.Errorf("no architecture and no default model is called so, there are %s", architectures)
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

// compareLoads compares a file in its default load mode with synthetic
// weights. The pages that memory happens to give a model make each load some
// per cent faster or slower than the next one of the same bytes, for as long as
// it lives; so the unit that is repeated is the load. Every round loads the file,
// written anew, a copy of it (two loads that share pages also share what the caches
// hold) and the synthetic weights, and alternates tests between the three, both in
// every order. The ratios are the tests', of the synthetic weights' rates to the
// file's.
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
		fmt.Println("too little memory to let chance decide where a load lies: a side may keep its pages, and differ by them")
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
			fmt.Fprintf(os.Stderr, "\r%d of %d loads of each   ", round+1, o.loads)
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

// loadAnywhere loads models, in the order of a round, to pages that chance decides.
// What these do to the speed lasts as long as they stay, and would pass for a
// difference of the weights. A file that is written where it was deleted a moment ago gets
// its own pages again, one that is written in larger pieces such as lie beside each
// other, and glibc keeps what is freed (see returnFreed). So the files are deleted
// before anything is loaded, and each load finds other pages free.
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
	for _, which := range order(len(loads), round) {
		if err := room.free(); err != nil {
			return nil, err
		}
		if models[which], err = loads[which](); err != nil {
			return nil, err
		}
	}
	return models, nil
}

// stock is memory in single pages, some GiB, that is taken until a load needs it. What
// is free of it are pages that chance chose, each for itself: a load that lies in one piece
// can be a third slower than the next one, and differs by 4 % where it lies in some large pieces.
type stock struct {
	memory []byte
	need   int   // pages that are freed for a load
	order  []int // of pages, in which they are freed
	freed  int   // of order
}

const (
	mostOfStock   = 64 // that a stock has room for
	fewestOfStock = 16 // less leaves chance little to choose
	freeForLoad   = 2  // times the size of a model
)

// newStock is a stock for loads of so many bytes in at most a quarter of the memory
// that is available, nil where that has no room for enough of them or is not known.
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
		if err = unix.Madvise(m, unix.MADV_NOHUGEPAGE); errors.Is(err, unix.EINVAL) { // there are none
			err = nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("reserve memory: %w", err)
	}
	return &stock{memory: m, need: freeForLoad * size / page}, nil
}

// close gives all of it back.
func (s *stock) close() {
	if s != nil {
		_ = unix.Munmap(s.memory) // of what was mapped
	}
}

// take takes all that is free.
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

// free frees as much as a load needs, of what was taken.
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

// loadAnew loads a file that it writes in pieces of so many bytes, and that is then
// in the page cache, in pages that are as large as the pieces where the kernel has
// such pages. Pieces of a single one come from the same stock as memory does.
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
	if err := f.Sync(); err != nil { // or it goes to the disk beside a test
		return nil, errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	return llama.LoadModel(path, llama.ModelParams{LoadMode: mode}, nil)
}

// withContexts opens a context of each model, in any order, that is long enough for
// all tests.
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

// ratesOfLoad alternates a test between contexts, each time in another order, and
// returns the rates of each, in tokens/second. Where the contexts are new, a first
// turn does not count.
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
		for which, d := range elapsed {
			if turn > 0 || !warmUp {
				all[which] = append(all[which], test.TokensPerSecond(d))
			}
		}
	}
	return all, nil
}

// slice is a part of a test that one context computes before the next one does:
// the prompt, or some tokens of the generation.
type slice struct{ prompt, gen []llama.Token }

// sliceTokens are the tokens of a slice. The machine is as restless from one
// hundredth of a second to the next as from one second to the next, so the sums of
// many short slices differ less than whole generations one after another.
const sliceTokens = 4

func slicesOf(test result.Test) (all []slice) {
	if test.Prompt > 0 {
		all = append(all, slice{prompt: tokens(test.Prompt)})
	}
	for part := range slices.Chunk(tokens(test.Gen), sliceTokens) {
		all = append(all, slice{gen: part})
	}
	return all
}

// takeTurns computes all slices in every context, whose memory it clears, each slice
// in another order, and returns what they took together in each.
func takeTurns(contexts []*llama.Context, all []slice) ([]time.Duration, error) {
	elapsed := make([]time.Duration, len(contexts))
	for _, c := range contexts {
		if err := c.ClearMemory(); err != nil {
			return nil, err
		}
	}
	for _, s := range all {
		for _, which := range rand.Perm(len(contexts)) {
			d, err := contexts[which].Repetition(s.prompt, s.gen, 2048)
			if err != nil {
				return nil, err
			}
			elapsed[which] += d
		}
	}
	return elapsed, nil
}
