//go:build cgo

package llama_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/sparecores/benchmark-llm/llama"
)

// The library still logs what Change reads. Not every line can be provoked here: direct
// I/O needs a file system without it.
func TestChangeTexts(t *testing.T) {
	library, err := os.ReadFile(filepath.Join(llama.LibraryDir(), "libllama.so.0"))
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{
		"warning: failed to mlock %zu-byte buffer (after previously locking %zu bytes): %s\n",
		"Failed to open file '%s' with error: %s. Falling back to buffered I/O",
		"%s: Falling back to buffered IO due to %s\n",
		"%s: flash_attn is not compatible with Grok - forcing off\n",
		"%s: %s not supported, set to disabled\n",
		"Flash Attention\x00",
	} {
		if !bytes.Contains(library, []byte(format)) {
			t.Errorf("the library does not have %q", format)
		}
	}
}
