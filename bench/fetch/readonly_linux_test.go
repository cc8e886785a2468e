package fetch_test

import (
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/sys/unix"

	"github.com/sparecores/benchmark-llm/bench/fetch"
)

// A directory that cannot be written serves what it has and refuses the rest in
// one line.
func TestReadOnlyDirectory(t *testing.T) {
	a := blob(t, 1)
	synctest.Test(t, func(t *testing.T) {
		w, dir := newWorld(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { serve(rw, r, a) })), t.TempDir()
		write(t, filepath.Join(dir, "m.gguf"), string(a))
		for path, mode := range map[string]os.FileMode{filepath.Dir(dir): 0o755, dir: 0o555} {
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
		}
		defer func() { _ = os.Chmod(dir, 0o755) }() // or else an ordinary user cannot remove it
		// Root may write everywhere, so for the file system this thread is nobody.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if os.Geteuid() == 0 {
			if _, err := unix.SetfsuidRetUid(65534); err != nil {
				t.Fatal(err)
			}
			defer func() { _, _ = unix.SetfsuidRetUid(0) }()
		}
		file, err := w.client.Fetch(t.Context(), pinned(t, plainURL, sha(a)), dir, fetch.Options{})
		if err != nil || file.SHA256 != sha(a) || len(w.ranges()) != 0 {
			t.Errorf("got %+v, %v", file, err)
		}
		_, err = w.client.Fetch(t.Context(), parse(t, "http://files.test/other.gguf"), dir, fetch.Options{})
		if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "cannot be written; choose another directory") {
			t.Errorf("got %v", err)
		}
	})
}
