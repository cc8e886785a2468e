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
	room := newBlocks(len(content), host.Observe("/").MemoryAvailableBytes)
	if len(room.taken) == 0 {
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
// A file that is written where it was deleted a moment ago gets its own pages again,
// and the pages of the cache and those of memory come from different stocks, the
// larger and the smaller remains of what is free. What such pages do to the speed of
// either, up to 6 %, lasts as long as the stocks and would pass for a difference of
// the weights. So the files are deleted before anything is loaded, and
// each load finds other blocks free.
func loadAnywhere(loads []func() (*llama.Model, error), round int, b *blocks, files ...string) (models []*llama.Model, err error) {
	for _, path := range files {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	if err := b.take(); err != nil {
		return nil, err
	}
	models = make([]*llama.Model, len(loads))
	for _, which := range order(len(loads), round) {
		if err := b.free(); err != nil {
			return nil, err
		}
		if models[which], err = loads[which](); err != nil {
			return nil, err
		}
	}
	return models, nil
}

// blocks are memory in small pages that is taken, some GiB, until it is free for a
// load. What is taken first is what was left over between other memory.
type blocks struct {
	size  int
	taken [][]byte // nil is free
}

const (
	mostBlocks   = 64
	fewestBlocks = 16 // fewer leave chance little to choose
	freeForLoad  = 2  // blocks, which together hold a model
)

// newBlocks are blocks of so many bytes in at most a quarter of the memory that is
// available, none where that has no room for enough of them or is not known.
func newBlocks(size int, available *uint64) *blocks {
	b := &blocks{size: size}
	if available == nil {
		return b
	}
	if n := min(mostBlocks, *available/4/uint64(size)); n >= fewestBlocks {
		b.taken = make([][]byte, n)
	}
	return b
}

// take takes all that are free.
func (b *blocks) take() error {
	for i := range b.taken {
		if b.taken[i] != nil {
			continue
		}
		m, err := unix.Mmap(-1, 0, b.size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		if err == nil {
			if err = unix.Madvise(m, unix.MADV_NOHUGEPAGE); err == nil || errors.Is(err, unix.EINVAL) { // EINVAL: there are none
				err = unix.Madvise(m, unix.MADV_POPULATE_WRITE)
			}
		}
		if err != nil {
			return fmt.Errorf("take memory: %w", err)
		}
		b.taken[i] = m
	}
	return nil
}

// free frees as many as a load needs, which chance chooses.
func (b *blocks) free() error {
	left := freeForLoad
	for _, i := range rand.Perm(len(b.taken)) {
		if left == 0 || b.taken[i] == nil {
			continue
		}
		if err := unix.Munmap(b.taken[i]); err != nil {
			return fmt.Errorf("free memory: %w", err)
		}
		b.taken[i] = nil
		left--
	}
	return nil
}

// loadAnew loads a file that it writes in pieces of so many bytes, and that is then
// in the page cache, in pages that are as large as the pieces where the kernel has
// such pages.
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

// withContexts opens a context of each model that is long enough for all tests.
func (o options) withContexts(models []*llama.Model, tests []result.Test, do func([]*llama.Context) error) error {
	longest := 0
	for _, t := range tests {
		longest = max(longest, t.Context())
	}
	var open func(contexts []*llama.Context) error
	open = func(contexts []*llama.Context) error {
		if len(contexts) == len(models) {
			return do(contexts)
		}
		return withContext(models[len(contexts)], o.threads, longest, func(c *llama.Context) error {
			return open(append(contexts, c))
		})
	}
	return open(nil)
}

// ratesOfLoad alternates a test between contexts, each time in another order, and
// returns the rates of each, in tokens/second. Where the contexts are new, a first
// turn does not count.
func ratesOfLoad(contexts []*llama.Context, test result.Test, turns int, warmUp bool) ([][]float64, error) {
	all := make([][]float64, len(contexts))
	prompt, gen := tokens(test.Prompt), tokens(test.Gen)
	if warmUp {
		turns++
	}
	for turn := range turns {
		for _, which := range rand.Perm(len(contexts)) {
			c := contexts[which]
			if err := c.ClearMemory(); err != nil {
				return nil, err
			}
			elapsed, err := c.Repetition(prompt, gen, 2048)
			if err != nil {
				return nil, err
			}
			if turn > 0 || !warmUp {
				all[which] = append(all[which], test.TokensPerSecond(elapsed))
			}
		}
	}
	return all, nil
}
