package source

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseRepository(t *testing.T) {
	for text, want := range map[string]Repository{
		"hf:u/r":                   {"u/r", "", "main"},
		"HF:u/r:Q4_K_M":            {"u/r", "Q4_K_M", "main"},
		"hf:u/r:ud-q4_k_xl@v1":     {"u/r", "ud-q4_k_xl", "v1"},
		"hf:u/r@refs/pr/1":         {"u/r", "", "refs/pr/1"},
		"hf:Qwen/Qwen2.5-0.5B:F16": {"Qwen/Qwen2.5-0.5B", "F16", "main"},
	} {
		got, ok, err := ParseRepository(text)
		if d := cmp.Diff(want, got); d != "" || !ok || err != nil {
			t.Errorf("%s: %v, %v\n%s", text, ok, err, d)
		}
		again, _, err := ParseRepository(got.String())
		if d := cmp.Diff(want, again); d != "" || err != nil {
			t.Errorf("%v: %v\n%s", got, err, d)
		}
	}
	for text, bad := range map[string]bool{
		"hf:u/r/m.gguf": false, "hf:u": false, "hf:u/m.GGUF": false, "u/r": false, "https://h/r": false, "": false, "m.gguf": false, "hf:u/r/a:b.gguf": false,
		"hf:u/r:": true, "hf:u/r:Q4 0": true, "hf:u/..": true, "hf:u/r@": true, "hf:u/r:-": true, "hf:u/r%2f": true,
	} {
		if got, ok, err := ParseRepository(text); ok != bad || errors.Is(err, ErrBad) != bad {
			t.Errorf("%s: %+v, %v, %v", text, got, ok, err)
		}
	}
}

func TestFileOfRepository(t *testing.T) {
	r, _, err := ParseRepository("hf:u/r:Q8_0@v1")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := r.At("sub/m-Q8_0.gguf"); err != nil || got.String() != "hf:u/r/sub/m-Q8_0.gguf@v1" {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := r.At("../m.gguf"); !errors.Is(err, ErrBad) {
		t.Errorf("%v, %v", got, err)
	}
}
