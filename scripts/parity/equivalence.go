//go:build cgo && parity

package main

import (
	"cmp"
	"embed"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/llamacpp"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/stats"
	"github.com/sparecores/benchmark-llm/bench/synth"
	"github.com/sparecores/benchmark-llm/llama"
)

// smallShapes are models of a few hundred million parameters, one for each
// architecture that is compared, unquantised.
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
	o.loads = cmp.Or(o.loads, 15)
	fmt.Printf("%d threads, %d loads of each, file in load mode %s\n", o.threads, o.loads, o.loadMode)
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
	// A copy, for two loads that share pages also share what the caches hold.
	again := file + ".again"
	if err := copyFile(again, file); err != nil {
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
	ratios, within, err = compareLoads(o, file, again, weights)
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

// turnsOfLoad is how often a test of a loaded model runs: short tests more often,
// for they vary more.
const turnsOfLoad = 6

func turnsOf(t result.Test) int { return max(1, min(turnsOfLoad, 768/(t.Prompt+4*t.Gen))) }

// compareLoads compares a file in its default load mode with synthetic
// weights. The pages that memory happens to give a model make each load some
// per cent faster or slower than the next one of the same bytes, for as long as
// it lives; so the unit that is repeated is the load. Every round loads the file,
// written anew, a copy of it and the synthetic weights, in
// turning order, and alternates tests between the three, in every order.
// The ratios are the tests', of the synthetic weights' rates to the file's.
func compareLoads(o options, file, again string, weights llama.Stream) (ratios []float64, ok bool, err error) {
	tests, err := o.tests()
	if err != nil {
		return nil, false, err
	}
	mode := llama.LoadMmap
	if o.loadMode == "none" {
		mode = llama.LoadNone
	}
	loads := []func() (*llama.Model, error){
		func() (*llama.Model, error) { return loadAnew(file, mode) },
		func() (*llama.Model, error) { return loadAnew(again, mode) },
		func() (*llama.Model, error) {
			return llama.LoadModelStream("synthetic", weights, llama.ModelParams{LoadMode: llama.LoadNone}, nil)
		},
	}
	series := make([][3][][]float64, len(tests))
	err = onThread(func() error {
		for round := range o.loads {
			models := make([]*llama.Model, len(loads))
			for i := range loads {
				which := (round + i) % len(loads)
				m, err := loads[which]()
				if err != nil {
					return err
				}
				models[which] = m
			}
			err := o.withContexts(models, tests, func(contexts []*llama.Context) error {
				for i, test := range tests {
					rates, err := ratesOfLoad(contexts, test, i == 0)
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
		t.AppendRow(append(table.Row{test, turnsOf(test)}, j.cells()...))
	}
	fmt.Println(t.Render())
	return ratios, ok, nil
}

// loadAnew loads a file from pages it had not before: written again, as a
// download does, and left in the page cache. How large its pages are depends on
// the pieces it is written in.
func loadAnew(path string, mode llama.LoadMode) (*llama.Model, error) {
	const piece = 16 << 10 // bytes of a TLS record, which is what a read of a download gives
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil {
		return nil, err
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	for part := range slices.Chunk(content, piece) {
		if _, err := f.Write(part); err != nil {
			return nil, err
		}
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
func ratesOfLoad(contexts []*llama.Context, test result.Test, warmUp bool) ([][]float64, error) {
	all := make([][]float64, len(contexts))
	prompt, gen := tokens(test.Prompt), tokens(test.Gen)
	turns := turnsOf(test)
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
