package fetch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/sys/unix"
)

// lockPoll is how often a waiting download tries to take the lock: a blocking
// flock(2) cannot be cancelled.
const lockPoll = 250 * time.Millisecond

// tryLock is replaced in tests.
var tryLock = (*flock.Flock).TryLock

// lock makes this call the only one, in all processes, that writes the named
// file. waiting is called once, at the first attempt that finds that another holds it. The lock ends with its
// holder, so no stale lock remains. On a file system without locks nothing is
// locked.
func lock(ctx context.Context, name string, waiting func()) (unlock func(), err error) {
	path := filepath.Join(filepath.Dir(name), "."+filepath.Base(name)+".lock")
	told := false
	for {
		l := flock.New(path, flock.SetFlag(os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW), flock.SetPermissions(0o644))
		locked, err := tryLock(l)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.ENOLCK), errors.Is(err, unix.ENOSYS):
			return func() { _ = os.Remove(path) }, nil
		case errors.As(err, new(*fs.PathError)): // it holds the path
			return nil, fmt.Errorf("lock: %w", err)
		case err != nil:
			return nil, fmt.Errorf("lock %s: %w", path, err)
		case locked && current(l):
			return func() {
				// The file is removed while it is locked. A waiting call then finds that its
				// own lock is of a removed file, and makes a new one.
				_ = os.Remove(path)
				_ = l.Close()
			}, nil
		case locked: // the last holder removed it before it was locked here
			_ = l.Close()
			continue
		}
		if !told {
			waiting()
			told = true
		}
		if err := sleep(ctx, lockPoll); err != nil {
			return nil, err
		}
	}
}

// current reports whether a held lock is still the file of that name.
func current(l *flock.Flock) bool {
	held, err1 := l.Stat()
	there, err2 := os.Lstat(l.Path())
	return err1 == nil && err2 == nil && os.SameFile(held, there)
}
