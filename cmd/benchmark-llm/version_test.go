package main

import "testing"

func TestLibraryNote(t *testing.T) {
	for _, test := range []struct {
		name  string
		facts map[string]string
		want  string
	}{
		{"no library", nil, ""},
		{"pinned", map[string]string{"source": "pin", "libllama0": "1"}, ""},
		{"of the system", map[string]string{"source": "system", "libllama0": "1", "libggml0": "2"}, " [system: libllama0 1, libggml0 2]"},
		{"of a prefix that names its version", map[string]string{"source": "prefix", "libllama0": "1"}, " [prefix: libllama0 1]"},
		{"of a prefix", map[string]string{"source": "prefix"}, " [prefix]"},
	} {
		if got := libraryNote(test.facts); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}
