package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// OwnTempDir returns a directory of this user's own in the directory for temporary
// files, and creates it: benchmark-llm-UID, or if another user has made that, one with
// a random name, the same for the whole process. No other user can write to it, so no
// other user can put a link into it.
var OwnTempDir = sync.OnceValues(makeOwnTempDir)

func makeOwnTempDir() (string, error) {
	path := ownTempPath()
	if err := os.MkdirAll(os.TempDir(), 0o755); err != nil {
		return "", err
	}
	err := os.Mkdir(path, 0o700)
	if err == nil || errors.Is(err, fs.ErrExist) && own(path) {
		return path, nil
	}
	if !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	return os.MkdirTemp(os.TempDir(), filepath.Base(path)+"-")
}

// OwnTempPath returns where a file or directory of OwnTempDir is. It is empty if the
// directory does not exist, or may be another user's.
func OwnTempPath(name string) string {
	if path := ownTempPath(); own(path) {
		return filepath.Join(path, name)
	}
	return ""
}

func ownTempPath() string {
	return filepath.Join(os.TempDir(), fmt.Sprintf("benchmark-llm-%d", os.Geteuid()))
}

// own tells whether a path is a directory, not a link to one, that belongs to this user
// and that no other can write to.
func own(path string) bool {
	var s unix.Stat_t
	return unix.Lstat(path, &s) == nil && s.Mode&unix.S_IFMT == unix.S_IFDIR && int(s.Uid) == os.Geteuid() && s.Mode&0o022 == 0
}
