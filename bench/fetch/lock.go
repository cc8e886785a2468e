package fetch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// lockPoll is how often a waiting download looks whether the lock is free: a
// blocking flock cannot be cancelled.
const lockPoll = 250 * time.Millisecond

// lock makes this process, and in it this call, the only one that writes the
// named file. waiting is called once if another holds the lock. The lock goes
// with its holder, so nothing stale remains.
func lock(ctx context.Context, name string, waiting func()) (unlock func(), err error) {
	path := filepath.Join(filepath.Dir(name), "."+filepath.Base(name)+".lock")
	for tries := 0; ; tries++ {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o644)
		if err != nil {
			return nil, fmt.Errorf("lock: %w", err)
		}
		err = flock(f)
		if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.ENOLCK) || errors.Is(err, unix.ENOSYS) {
			err = nil // a file system without locks: better unlocked than not at all
		}
		if err == nil && same(f, path) {
			return func() {
				// Removed while held: who waits for this one sees that it is gone and makes its own.
				_ = os.Remove(path)
				_ = f.Close()
			}, nil
		}
		_ = f.Close()
		switch {
		case err == nil: // removed by its last holder in between
			continue
		case !errors.Is(err, unix.EWOULDBLOCK):
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if tries == 0 {
			waiting()
		}
		if err := sleep(ctx, lockPoll); err != nil {
			return nil, err
		}
	}
}

func flock(f *os.File) error {
	for {
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// same is whether the open file is still the one of that name.
func same(f *os.File, path string) bool {
	here, err1 := f.Stat()
	there, err2 := os.Lstat(path)
	return err1 == nil && err2 == nil && os.SameFile(here, there)
}

// freeBytes is what an unprivileged user may still write in a directory.
func freeBytes(dir string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, fmt.Errorf("free space of %s: %w", dir, err)
	}
	return int64(s.Bavail) * s.Bsize, nil
}
