//go:build cgo

package llama_test

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sparecores/benchmark-llm/bench/llamacpp"
	"github.com/sparecores/benchmark-llm/bench/synth"
	"github.com/sparecores/benchmark-llm/llama"
)

// scratch is a directory for the files of examples, which have no t.TempDir.
var scratch string

func TestMain(m *testing.M) {
	var err error
	if scratch, err = os.MkdirTemp("", "llama-"); err != nil {
		panic(err)
	}
	code := m.Run()
	if err := os.RemoveAll(scratch); err != nil {
		panic(err)
	}
	os.Exit(code)
}

// tinyFile is a GGUF file of the model of two layers, with a tokenizer. It is
// written once.
var tinyFile = sync.OnceValue(func() string {
	shape, err := synth.Lookup(synth.Tiny)
	must(err)
	header, err := shape.File()
	must(err)
	header, err = synth.WithVocabulary(synth.Tiny, header)
	must(err)
	model, err := synth.FromHeader(synth.Tiny, header, 1, llamacpp.Quantizer{})
	must(err)
	path := filepath.Join(scratch, synth.Tiny)
	file, err := os.Create(path)
	must(err)
	_, err = model.WriteTo(file)
	must(errors.Join(err, file.Close()))
	return path
})

// onTiny runs an example on a thread, with a model and a context.
func onTiny(f func(*llama.Model, *llama.Context) error) {
	thread := llama.StartThread()
	defer thread.Stop()
	thread.Do(func() {
		must(llama.LoadBackends(llama.AllBackends))
		model, err := llama.LoadModel(tinyFile(), llama.ModelParams{}, nil)
		must(err)
		defer func() { must(model.Close()) }()
		ctx, err := model.NewContext(llama.ContextParams{Context: 256, Threads: 1})
		must(err)
		defer func() { must(ctx.Close()) }()
		if err := f(model, ctx); err != nil {
			fmt.Println(err)
		}
	})
}

// A file that is missing is an error of package fs. An error of the library is a
// *LoadError: which file, what class of error, and why.
func ExampleLoadModel() {
	thread := llama.StartThread()
	defer thread.Stop()
	thread.Do(func() {
		if err := llama.LoadBackends(llama.AllBackends); err != nil {
			fmt.Println(err)
			return
		}
		_, err := llama.LoadModel("no-such-file.gguf", llama.ModelParams{}, nil)
		fmt.Println(err)
		fmt.Println(errors.Is(err, fs.ErrNotExist))

		path := filepath.Join(scratch, "no-model.gguf")
		must(os.WriteFile(path, []byte("some text"), 0o600))
		_, err = llama.LoadModel(path, llama.ModelParams{}, nil)
		var refused *llama.LoadError
		fmt.Println(errors.As(err, &refused), errors.Is(err, llama.ErrInvalidModel))
		fmt.Println(refused.Cause())
	})
	// Output:
	// load model: open no-such-file.gguf: no such file or directory
	// true
	// true true
	// invalid magic characters: 'some', expected 'GGUF'
}

func ExampleModel_Tokenize() {
	onTiny(func(model *llama.Model, _ *llama.Context) error {
		tokens, err := model.Tokenize("The machine answers.", true, false)
		if err != nil {
			return err
		}
		for _, token := range tokens {
			piece, err := model.TokenToPiece(token, true)
			if err != nil {
				return err
			}
			fmt.Printf("%q ", piece)
		}
		return nil
	})
	// Output: "<|begin_of_text|>" "The" " machine" " answers" "."
}

// A chain narrows the choice step by step. Its last sampler picks the token.
func ExampleSamplerChain() {
	onTiny(func(model *llama.Model, ctx *llama.Context) error {
		chain := llama.NewSamplerChain()
		defer chain.Close()
		if err := errors.Join(chain.AddTopK(40), chain.AddTopP(0.95, 1), chain.AddTemp(0.8), chain.AddDist(7)); err != nil {
			return err
		}
		prompt, err := model.Tokenize("The machine answers", true, false)
		if err != nil {
			return err
		}
		pieces := 0
		for _, err := range ctx.Generate(chain, prompt, 16) {
			if err != nil {
				return err
			}
			pieces++
		}
		fmt.Println(pieces, "pieces of text")
		return nil
	})
	// Output: 16 pieces of text
}

// A prompt that many texts begin with is evaluated once.
func ExampleContext_SaveState() {
	onTiny(func(model *llama.Model, ctx *llama.Context) error {
		prefix, err := model.Tokenize("Answer in one word.", true, false)
		if err != nil {
			return err
		}
		if err := ctx.Decode(prefix); err != nil {
			return err
		}
		state, err := ctx.SaveState()
		if err != nil {
			return err
		}
		defer state.Close()
		for _, question := range []string{" The sky is", " The sea is"} {
			if err := ctx.RestoreState(state); err != nil {
				return err
			}
			tokens, err := model.Tokenize(question, false, false)
			if err != nil {
				return err
			}
			for piece, err := range ctx.Generate(nil, tokens, 1) {
				if err != nil {
					return err
				}
				fmt.Printf("%s%s\n", question, piece)
			}
		}
		return nil
	})
	// Output:
	// The sky is is
	//  The sea is is
}

// Abort may be called from any goroutine. Afterwards decodes fail until ClearAbort.
func ExampleContext_Abort() {
	onTiny(func(model *llama.Model, ctx *llama.Context) error {
		prompt, err := model.Tokenize("The machine answers", true, false)
		if err != nil {
			return err
		}
		go func() {
			time.Sleep(time.Millisecond)
			ctx.Abort()
		}()
		for {
			if err := ctx.ClearMemory(); err != nil {
				return err
			}
			for _, err := range ctx.Generate(nil, prompt, 200) {
				if errors.Is(err, llama.ErrAborted) {
					ctx.ClearAbort()
					fmt.Println("aborted")
					return ctx.ClearMemory()
				}
				if err != nil {
					return err
				}
			}
		}
	})
	// Output: aborted
}

// The instruments time a repetition as llama-bench does.
func ExampleTimed_Repetition() {
	onTiny(func(_ *llama.Model, ctx *llama.Context) error {
		prompt := make([]llama.Token, 64) // all of them token 0
		elapsed, err := ctx.Timed().Repetition(prompt, nil, 2048)
		if err != nil {
			return err
		}
		fmt.Println(elapsed > 0, ctx.Timed().TokensDone())
		return nil
	})
	// Output: true 64
}

// source is the text of a function in Go source.
func source(t *testing.T, text, name string) string {
	t.Helper()
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, "", text, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range file.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && f.Name.Name == name {
			return text[fset.Position(f.Pos()).Offset:fset.Position(f.End()).Offset]
		}
	}
	t.Fatalf("there is no function %s in\n%s", name, text)
	return ""
}

// The program in README.md is the example that is tested above, and it runs.
func TestProgramInReadme(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, program, _ := strings.Cut(string(readme), "```go\n")
	program, _, found := strings.Cut(program, "```")
	if !found {
		t.Fatal("README.md has no block of Go")
	}
	example, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	if in, want := source(t, program, "tell"), source(t, string(example), "tell"); in != want {
		t.Errorf("README.md has\n%s\nexample_test.go has\n%s", in, want)
	}
	path := filepath.Join(t.TempDir(), "main.go")
	if err := os.WriteFile(path, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "go", "run", path, tinyFile(), "Once upon a time").CombinedOutput()
	if want := "Once upon a time" + strings.Repeat(" time", 8); err != nil || strings.TrimSpace(string(out)) != want {
		t.Errorf("%v: %q, want %q", err, out, want)
	}
}

// Who forgets LoadBackends is told so, in the words of this package. A process of
// its own shows it, because the back-ends of this one are open.
func TestBackendsNotOpened(t *testing.T) {
	if os.Getenv("BACKENDS_NOT_OPENED") == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestBackendsNotOpened$")
		cmd.Env = append(os.Environ(), "BACKENDS_NOT_OPENED=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v:\n%s", err, out)
		}
		return
	}
	_, modelErr := llama.LoadModel("some.gguf", llama.ModelParams{}, nil)
	_, streamErr := llama.LoadModelStream("some", bytes.NewReader(nil), llama.ModelParams{LoadMode: llama.LoadNone}, nil)
	_, poolErr := llama.NewThreadpool(llama.ThreadpoolParams{Threads: 1})
	_, reserveErr := llama.Reserve("CPU", 1)
	for name, err := range map[string]error{
		"LoadModel": modelErr, "LoadModelStream": streamErr, "NewThreadpool": poolErr, "Reserve": reserveErr,
		"AddRPCServer": llama.AddRPCServer(t.Context(), "127.0.0.1:1", 0),
	} {
		if !errors.Is(err, llama.ErrNotOpened) || !strings.Contains(err.Error(), "llama.LoadBackends") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
