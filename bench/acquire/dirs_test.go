package acquire

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Without a cache that can be written, models go to a directory of the user's own. A
// directory that was given stays the only one.
func TestDirsOf(t *testing.T) {
	before := systemModels
	defer func() { systemModels = before }()
	systemModels = filepath.Join(t.TempDir(), "none", "models")
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	for _, tt := range []struct{ cache, given, want string }{
		{temp, "", filepath.Join(temp, "benchmark-llm", "models")},
		{filepath.Join(temp, "not", "there"), "", filepath.Join(temp, "not", "there", "benchmark-llm", "models")},
		{file, "", filepath.Join(temp, "benchmark-llm-*", "models")},
		{file, file, file},
	} {
		t.Setenv("XDG_CACHE_HOME", tt.cache)
		d := DirsOf(tt.given)
		if ok, err := filepath.Match(tt.want, d.Download); !ok || err != nil || !slices.Contains(d.Search, d.Download) || d.Headers[0] != d.Download {
			t.Errorf("cache %s: %+v, want %s", tt.cache, d, tt.want)
		}
		if d.temporary != strings.Contains(tt.want, "*") {
			t.Errorf("cache %s: temporary %t", tt.cache, d.temporary)
		}
	}
}
