package result_test

import (
	"testing"

	"github.com/sparecores/benchmark-llm/bench/result"
)

func TestModelName(t *testing.T) {
	for filename, want := range map[string]string{
		"/home/user/.cache/benchmark-llm/models/a.gguf": "a.gguf",
		"7B/model.gguf":  "7B/model.gguf",
		"./dir/a.gguf":   "./dir/a.gguf",
		"a.gguf":         "a.gguf",
		"llama3:8b.gguf": "llama3:8b.gguf",
		"":               "",
	} {
		if got := result.ModelName(filename); got != want {
			t.Errorf("%q: got %q, want %q", filename, got, want)
		}
	}
}
