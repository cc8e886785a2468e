//go:build gollama

// Tests of go-llama.cpp itself on the headers of third_party/go-llama.cpp: every public function, with good and bad input.
package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	llama "github.com/go-skynet/go-llama.cpp"
	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench/llamacpp"
	"github.com/sparecores/benchmark-llm/bench/synth"
)

// modelFile is the path of a small model with a tokenizer.
var modelFile string

func TestMain(m *testing.M) {
	os.Setenv("GGML_NO_BACKTRACE", "1") // no debugger when a test crashes
	dir, err := os.MkdirTemp("", "gollama-")
	if err != nil {
		panic(err)
	}
	modelFile = filepath.Join(dir, synth.Tiny)
	if err := writeModel(modelFile); err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

func writeModel(path string) error {
	shape, err := synth.Lookup(synth.Tiny)
	if err != nil {
		return err
	}
	header, err := shape.File()
	if err != nil {
		return err
	}
	if header, err = synth.WithVocabulary(synth.Tiny, header); err != nil {
		return err
	}
	model, err := synth.FromHeader(synth.Tiny, header, 1, llamacpp.Quantizer{})
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, io.NewSectionReader(model, 0, model.Size())); err != nil {
		return err
	}
	return f.Close()
}

// dimensions is the length of the model's embeddings.
const dimensions = 256

// load loads the model with a context of 128 tokens. It locks the OS thread until
// the test ends.
func load(t *testing.T, options ...llama.ModelOption) *llama.LLama {
	t.Helper()
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	l, err := llama.New(modelFile, append([]llama.ModelOption{llama.SetContext(128)}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Free)
	return l
}

// predicted predicts n tokens greedily. It returns what the token callback got and
// what Predict returned.
func predicted(t *testing.T, l *llama.LLama, text string, n int, options ...llama.PredictOption) (tokens []string, whole string) {
	t.Helper()
	whole, err := l.Predict(text, slices.Concat([]llama.PredictOption{
		llama.SetTokens(n), llama.SetThreads(1), llama.SetTemperature(0), llama.IgnoreEOS,
		llama.SetTokenCallback(func(token string) bool {
			tokens = append(tokens, token)
			return true
		}),
	}, options)...)
	if err != nil {
		t.Fatal(err)
	}
	return tokens, whole
}

func mustFail(t *testing.T, what string, err error) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: no error", what)
	}
}

func TestNew(t *testing.T) {
	whole, err := os.ReadFile(modelFile)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, content []byte) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, tc := range []struct {
		name, file string
		options    []llama.ModelOption
	}{
		{name: "missing", file: "not-existing"},
		{name: "a directory", file: t.TempDir()},
		{name: "empty", file: write("empty", nil)},
		{name: "no model", file: write("text", []byte(strings.Repeat("not a model ", 1000)))},
		{name: "header cut", file: write("header", whole[:1000])},
		{name: "weights cut", file: write("weights", whole[:len(whole)-1000])},
		{name: "adapter missing", file: modelFile, options: []llama.ModelOption{llama.SetLoraAdapter("not-existing")}},
		{name: "adapter of 2023", file: modelFile, options: []llama.ModelOption{llama.SetLoraAdapter(write("lora", []byte("algg\x01\x00\x00\x00")))}},
		{name: "adapter's base", file: modelFile, options: []llama.ModelOption{llama.SetLoraBase(modelFile)}},
		{name: "main GPU", file: modelFile, options: []llama.ModelOption{llama.SetMainGPU("first")}},
		{name: "tensor split", file: modelFile, options: []llama.ModelOption{llama.SetTensorSplit("1,all")}},
		{name: "context", file: modelFile, options: []llama.ModelOption{llama.SetContext(-1)}},
		{name: "batch", file: modelFile, options: []llama.ModelOption{llama.SetNBatch(0)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l, err := llama.New(tc.file, tc.options...)
			if err == nil || l != nil {
				t.Errorf("got a model and %v", err)
			}
		})
	}
	t.Run("all options", func(*testing.T) {
		load(t, llama.EnableF16Memory, llama.EnableMLock, llama.SetMMap(false), llama.EnabelLowVRAM, llama.SetModelSeed(3), llama.SetGPULayers(1),
			llama.SetTensorSplit("1/1"), llama.SetMainGPU("0"), llama.SetMulMatQ(false), llama.SetPerplexity(true),
			llama.WithRopeFreqBase(20000), llama.WithRopeFreqScale(0.5), llama.SetNBatch(16))
	})
}

func TestFree(t *testing.T) {
	l := load(t, llama.EnableEmbeddings)
	mapped := func() bool {
		maps, err := os.ReadFile("/proc/self/maps")
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Contains(maps, []byte(modelFile))
	}
	if !mapped() {
		t.Error("the model is not mapped while it is in use")
	}
	l.Free()
	if mapped() {
		t.Error("the model is mapped after Free")
	}
	l.Free()
	_, err := l.Predict("again")
	mustFail(t, "Predict after Free", err)
	_, err = l.Embeddings("again", llama.SetTokens(dimensions))
	mustFail(t, "Embeddings after Free", err)
	_, _, err = l.TokenizeString("again")
	mustFail(t, "TokenizeString after Free", err)
	mustFail(t, "Eval after Free", l.Eval("again"))
	path := filepath.Join(t.TempDir(), "state")
	if err := l.SaveState(path); err == nil {
		mustFail(t, "LoadState after Free", l.LoadState(path))
	}
}

func TestTokenizeString(t *testing.T) {
	l := load(t)
	const text = "A strange game. The only winning move is not to play."
	n, tokens, err := l.TokenizeString(text)
	if err != nil || n < 2 || int(n) != len(tokens) {
		t.Fatalf("%d, %v, %v", n, tokens, err)
	}
	if _, more, err := l.TokenizeString(text + " Über 5 €"); err != nil || len(more) <= len(tokens) {
		t.Errorf("a longer text has %d tokens, not more than %d, %v", len(more), len(tokens), err)
	}
	if m, _, err := l.TokenizeString(text, llama.SetTokens(int(n)-1)); err == nil || m != -n {
		t.Errorf("%d, %v for %d tokens without room", m, err, n)
	}
	if _, _, err := l.TokenizeString(strings.Repeat("x y ", 1000), llama.SetTokens(0)); err == nil {
		t.Error("more tokens than the module has room for: no error")
	}
	_, _, err = l.TokenizeString("not \xff UTF-8")
	mustFail(t, "invalid UTF-8", err)
	if n, _, err := l.TokenizeString("still works"); err != nil || n < 1 {
		t.Errorf("after an error: %d, %v", n, err)
	}
}

func TestEval(t *testing.T) {
	l := load(t, llama.SetNBatch(8)) // so one text is several batches
	before := readParts()
	if err := l.Eval(strings.Repeat("word ", 20), llama.SetThreads(2)); err != nil {
		t.Error(err)
	}
	if spent := readParts().since(before); spent.Eval <= 0 || spent.Tokenize <= 0 {
		t.Errorf("no time was spent: %+v", spent)
	}
	for _, tc := range []struct {
		name, text string
		options    []llama.PredictOption
	}{
		{"longer than the context", strings.Repeat("x y ", 100), nil},
		{"longer than the module takes", strings.Repeat("x y ", 1000), nil},
		{"invalid UTF-8", "a\xc3(", nil},
		{"a surrogate", "\xed\xa0\x80", nil},
		{"no threads", "text", []llama.PredictOption{llama.SetThreads(0)}},
	} {
		mustFail(t, tc.name, l.Eval(tc.text, tc.options...))
	}
	if err := l.Eval("still works"); err != nil {
		t.Error(err)
	}
}

func TestPredict(t *testing.T) {
	l := load(t, llama.EnableF16Memory)
	tokens, _ := predicted(t, l, "Once upon", 20)
	if len(tokens) != 20 {
		t.Fatalf("%d tokens: %q", len(tokens), tokens)
	}
	again, _ := predicted(t, l, "Once upon", 20)
	if diff := cmp.Diff(tokens, again); diff != "" {
		t.Errorf("the likeliest tokens are others the second time:\n%s", diff)
	}

	// Without a callback, and with a buffer that holds all of the text: the stop word ends it, and the module takes its
	// letters off the end.
	l.SetTokenCallback(nil)
	stop := tokens[1]
	text, err := l.Predict("Once upon", llama.SetTokens(2000), llama.SetThreads(1), llama.SetTemperature(0), llama.IgnoreEOS, llama.SetStopWords(stop))
	if want := strings.TrimRight(tokens[0], stop); err != nil || text != want {
		t.Errorf("%q, %v; not %q of %q", text, err, want, tokens)
	}

	// A buffer that is too small receives the beginning.
	_, cut := predicted(t, l, "", 20)
	all, _ := predicted(t, l, "", 20)
	if len(cut) > 19 || !strings.HasPrefix(strings.Join(all, ""), cut) {
		t.Errorf("cut to %q from %q", cut, all)
	}

	stopped := 0
	l.SetTokenCallback(func(string) bool { stopped++; return stopped < 3 })
	if _, err := l.Predict("stop", llama.SetTokens(50), llama.SetThreads(1), llama.IgnoreEOS); err != nil || stopped != 3 {
		t.Errorf("stopped after %d tokens, %v", stopped, err)
	}
	l.SetTokenCallback(nil)

	if long, _ := predicted(t, l, "beyond the context", 300); len(long) != 300 {
		t.Errorf("%d tokens with a context of 128", len(long))
	}
}

func TestPredictFails(t *testing.T) {
	l := load(t)
	good, _ := predicted(t, l, "good", 8)
	for _, tc := range []struct {
		name, text string
		options    []llama.PredictOption
	}{
		{"longer than the context", strings.Repeat("x y ", 100), nil},
		{"invalid UTF-8", "\x80", nil},
		{"no threads", "text", []llama.PredictOption{llama.SetThreads(0)}},
		{"no batch", "text", []llama.PredictOption{llama.SetBatch(0)}},
		{"tail-free sampling", "text", []llama.PredictOption{llama.SetTailFreeSamplingZ(0.5)}},
		{"no repetition penalty", "text", []llama.PredictOption{llama.SetPenalty(0)}},
		{"bias of no token", "text", []llama.PredictOption{llama.SetLogitBias("1000000+5")}},
		{"grammar", "text", []llama.PredictOption{llama.WithGrammar("root ::= (")}},
		{"grammar without root", "text", []llama.PredictOption{llama.WithGrammar(`start ::= "a"`)}},
		{"negative prompt", "text", []llama.PredictOption{llama.SetNegativePromptScale(2), llama.SetNegativePrompt("\xff")}},
	} {
		for _, n := range []int{1, 8} {
			_, err := l.Predict(tc.text, append(tc.options, llama.SetTokens(n))...)
			mustFail(t, tc.name, err)
		}
	}
	again, _ := predicted(t, l, "good", 8)
	if diff := cmp.Diff(good, again); diff != "" {
		t.Errorf("other tokens after errors:\n%s", diff)
	}
}

func TestSampling(t *testing.T) {
	l := load(t)
	greedy, _ := predicted(t, l, "text", 12)
	sampled := func(options ...llama.PredictOption) []string {
		tokens, _ := predicted(t, l, "text", 12, append([]llama.PredictOption{llama.SetTemperature(3), llama.SetSeed(1)}, options...)...)
		if len(tokens) != 12 {
			t.Errorf("%d tokens", len(tokens))
		}
		return tokens
	}
	first := sampled()
	if !slices.Equal(first, sampled()) {
		t.Error("the same seed samples other tokens")
	}
	if slices.Equal(first, sampled(llama.SetSeed(2))) {
		t.Error("another seed samples the same tokens")
	}
	if one := sampled(llama.SetTopK(1)); !slices.Equal(one, greedy) {
		t.Errorf("top-k 1 is not the likeliest: %q, %q", one, greedy)
	}
	if narrow := llama.SetTopP(1e-6); !slices.Equal(sampled(narrow), sampled(narrow, llama.SetSeed(2))) {
		t.Error("with top-p near 0, the seed matters")
	}
	for _, options := range [][]llama.PredictOption{
		{llama.SetMirostat(1), llama.SetMirostatTAU(4), llama.SetMirostatETA(0.2)},
		{llama.SetMirostat(2)},
		{llama.SetTypicalP(0.3)},
		{llama.SetFrequencyPenalty(5), llama.SetPresencePenalty(5), llama.SetRepeat(-1), llama.SetPenalizeNL(true)},
	} {
		if slices.Equal(first, sampled(options...)) {
			t.Error("an option of sampling changes nothing")
		}
		sampled(append(options, llama.SetSeed(-1), llama.SetNDraft(3), llama.EnableF16KV, llama.SetMlock(true), llama.SetMemoryMap(true),
			llama.SetPredictionMainGPU("0"), llama.SetPredictionTensorSplit("1"), llama.SetRopeFreqBase(1e4), llama.SetRopeFreqScale(1), llama.SetNKeep(-1))...)
	}

	penalised, _ := predicted(t, l, "text", 30, llama.SetPenalty(1000), llama.SetPresencePenalty(1000))
	for i, token := range penalised {
		if slices.Contains(penalised[:i], token) && token != "\n" {
			t.Errorf("%q comes again, whatever the penalty: %q", token, penalised)
			break
		}
	}
	biased, _ := predicted(t, l, "text", 3, llama.SetLogitBias("70+100000"), llama.SetPenalty(1))
	if biased[0] != biased[1] || biased[1] != biased[2] {
		t.Errorf("a large bias is not decisive: %q", biased)
	}
	guided, _ := predicted(t, l, "text", 12, llama.SetNegativePromptScale(100), llama.SetNegativePrompt("another text"))
	if slices.Equal(guided, greedy) {
		t.Error("a negative prompt changes nothing")
	}
	if same, _ := predicted(t, l, "text", 12, llama.SetNegativePromptScale(4), llama.SetNegativePrompt("text"), llama.SetPenalty(1)); len(same) != 12 {
		t.Errorf("the second negative prompt: %q", same)
	}
}

func TestGrammar(t *testing.T) {
	l := load(t)
	var text strings.Builder
	_, err := l.Predict("yes or no?", llama.SetTokens(40), llama.SetThreads(1), llama.WithGrammar(`root ::= "yes" | "no"`),
		llama.SetTokenCallback(func(token string) bool {
			text.WriteString(token)
			return true
		}))
	if err != nil || (text.String() != "yes" && text.String() != "no") {
		t.Errorf("%q, %v", text.String(), err)
	}
}

func TestEmbeddings(t *testing.T) {
	l := load(t, llama.EnableEmbeddings)
	embeddings := func(text string) []float32 {
		e, err := l.Embeddings(text, llama.SetTokens(dimensions), llama.SetStopWords("x"))
		if err != nil || len(e) != dimensions {
			t.Fatal(len(e), err)
		}
		return e
	}
	one, other := embeddings("one text"), embeddings("another text")
	if slices.Equal(one, other) || slices.Max(one) == 0 {
		t.Error("two texts have the same embeddings, or none")
	}
	if !slices.Equal(one, embeddings("one text")) {
		t.Error("a text has other embeddings the second time")
	}
	_, ids, err := l.TokenizeString("one text")
	if err != nil {
		t.Fatal(err)
	}
	tokens := make([]int, len(ids))
	for i, id := range ids {
		tokens[i] = int(id)
	}
	ofTokens, err := l.TokenEmbeddings(tokens, llama.SetTokens(dimensions))
	if err != nil || !slices.Equal(ofTokens, one) {
		t.Errorf("the tokens of a text have other embeddings, %v", err)
	}

	// A model with embeddings can predict.
	with, _ := predicted(t, l, "text", 8)
	without, _ := predicted(t, load(t), "text", 8)
	if diff := cmp.Diff(without, with); diff != "" {
		t.Errorf("a model with embeddings predicts otherwise:\n%s", diff)
	}

	_, err = l.Embeddings("text", llama.SetTokens(dimensions-1))
	mustFail(t, "room for fewer numbers", err)
	_, err = l.Embeddings("\xf5", llama.SetTokens(dimensions))
	mustFail(t, "invalid UTF-8", err)
	_, err = l.Embeddings(strings.Repeat("x y ", 100), llama.SetTokens(dimensions))
	mustFail(t, "longer than the context", err)
	_, err = l.TokenEmbeddings([]int{1_000_000}, llama.SetTokens(dimensions))
	mustFail(t, "a token that is not there", err)
	_, err = l.TokenEmbeddings([]int{tokens[0], -1}, llama.SetTokens(dimensions))
	mustFail(t, "a negative token", err)
	_, err = load(t).Embeddings("text")
	mustFail(t, "not asked for when loading", err)
	_, err = load(t).TokenEmbeddings(tokens)
	mustFail(t, "not asked for when loading", err)
	if !slices.Equal(one, embeddings("one text")) {
		t.Error("other embeddings after errors")
	}
}

func TestPromptCache(t *testing.T) {
	path := filepath.Join(t.TempDir(), "session")
	prompt := strings.Repeat("a prompt of some length ", 3)
	l := load(t)
	want, _ := predicted(t, l, prompt, 10)
	saved, _ := predicted(t, l, prompt, 10, llama.SetPathPromptCache(path))
	if diff := cmp.Diff(want, saved); diff != "" {
		t.Errorf("predicts otherwise while saving:\n%s", diff)
	}
	// In another model: only the session has the prompt.
	other := load(t)
	_, ids, err := other.TokenizeString(prompt)
	if err != nil {
		t.Fatal(err)
	}
	cached, _ := predicted(t, other, prompt, 1, llama.SetPathPromptCache(path), llama.EnablePromptCacheRO)
	if cached[0] != want[0] {
		t.Errorf("predicts %q from a session, %q without", cached[0], want[0])
	}
	longer, _ := predicted(t, other, prompt+"and more", 5, llama.SetPathPromptCache(path), llama.EnablePromptCacheAll)
	if plain, _ := predicted(t, l, prompt+"and more", 5); !slices.Equal(plain, longer) {
		t.Errorf("a longer prompt after a session of %d tokens: %q, without %q", len(ids), longer, plain)
	}
	unlike, _ := predicted(t, other, "something else", 5, llama.SetPathPromptCache(path), llama.EnablePromptCacheRO)
	if plain, _ := predicted(t, l, "something else", 5); !slices.Equal(plain, unlike) {
		t.Errorf("another prompt after a session: %q, without %q", unlike, plain)
	}

	if err := os.WriteFile(path, []byte("no session"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = l.Predict(prompt, llama.SetPathPromptCache(path))
	mustFail(t, "a broken session", err)
}

func TestState(t *testing.T) {
	dir := t.TempDir()
	first, second := filepath.Join(dir, "first"), filepath.Join(dir, "second")
	l := load(t)
	if err := l.Eval("a text to remember"); err != nil {
		t.Fatal(err)
	}
	if err := l.SaveState(first); err != nil {
		t.Fatal(err)
	}
	other := load(t)
	if err := other.LoadState(first); err != nil {
		t.Fatal(err)
	}
	if err := other.SaveState(second); err != nil {
		t.Fatal(err)
	}
	a, _ := os.ReadFile(first)
	b, _ := os.ReadFile(second)
	if len(a) == 0 || !bytes.Equal(a, b) {
		t.Errorf("a state of %d bytes is another one, of %d, after it was loaded", len(a), len(b))
	}

	mustFail(t, "missing", l.LoadState(filepath.Join(dir, "missing")))
	mustFail(t, "of a context of another size", load(t, llama.SetContext(64)).LoadState(first))
	if err := os.WriteFile(first, a[:len(a)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	mustFail(t, "cut", l.LoadState(first))
	a[100]++
	if err := os.WriteFile(first, a, 0o600); err != nil {
		t.Fatal(err)
	}
	mustFail(t, "changed", l.LoadState(first))
	mustFail(t, "a folder that is not there", l.SaveState(filepath.Join(dir, "none", "state")))
}

func TestSpeculativeSampling(t *testing.T) {
	target, draft := load(t, llama.SetPerplexity(true)), load(t, llama.SetPerplexity(true))
	for _, text := range []string{"text", ""} {
		_, err := target.SpeculativeSampling(draft, text, llama.SetNDraft(4))
		mustFail(t, "speculative sampling", err)
	}
}

// TestExample builds and runs the example program of the module.
func TestExample(t *testing.T) {
	program := filepath.Join(t.TempDir(), "example")
	if out, err := exec.Command("go", "build", "-o", program, "github.com/go-skynet/go-llama.cpp/examples").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	run := func(model, input string) (string, error) {
		cmd := exec.Command(program, "-m", model, "-t", "1", "-n", "16", "-s", "1")
		cmd.Stdin = strings.NewReader(input)
		out, err := cmd.Output()
		return string(out), err
	}
	out, err := run(modelFile, "Hello, world\n\nAgain\n\n")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"Model loaded successfully.", "Sending Hello, world", "Sending Again", "Embeddings: ["} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in:\n%s", want, out)
		}
	}
	if out, err := run("not-existing", ""); err == nil || !strings.Contains(out, "Loading the model failed") {
		t.Errorf("%v\n%s", err, out)
	}
}
