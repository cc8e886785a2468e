package host

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The directory is this user's alone. What another put in its place is not used.
func TestOwnTempDir(t *testing.T) {
	for name, tt := range map[string]struct {
		there func(t *testing.T, path string)
		own   bool // the usual name is used
	}{
		"nothing is there": {func(*testing.T, string) {}, true},
		"made before":      {func(t *testing.T, path string) { mkdir(t, path, 0o700) }, true},
		"a link": {func(t *testing.T, path string) {
			if err := os.Symlink(t.TempDir(), path); err != nil {
				t.Fatal(err)
			}
		}, false},
		"a dangling link": {func(t *testing.T, path string) {
			if err := os.Symlink("/nonexistent", path); err != nil {
				t.Fatal(err)
			}
		}, false},
		"a file": {func(t *testing.T, path string) {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, false},
		"others may write": {func(t *testing.T, path string) { mkdir(t, path, 0o777) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			temp := filepath.Join(t.TempDir(), "tmp")
			mkdir(t, temp, 0o755)
			t.Setenv("TMPDIR", temp)
			tt.there(t, ownTempPath())
			got, err := makeOwnTempDir()
			if err != nil {
				t.Fatal(err)
			}
			if (got == ownTempPath()) != tt.own || !strings.HasPrefix(got, ownTempPath()) || !own(got) {
				t.Errorf("got %s", got)
			}
			if path := OwnTempPath("runs"); (path != "") != tt.own {
				t.Errorf("path %q", path)
			}
		})
	}
}

func mkdir(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	if err := os.Mkdir(path, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}
