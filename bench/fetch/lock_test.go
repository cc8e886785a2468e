package fetch_test

import (
	"path/filepath"
	"testing"
	"testing/synctest"

	"github.com/gofrs/flock"
	"golang.org/x/sys/unix"

	"github.com/sparecores/benchmark-llm/bench/fetch"
)

// That another process holds the lock is told exactly once, whatever happened to
// attempts before it.
func TestLockWaits(t *testing.T) {
	const interrupted, held, taken, none = "interrupted", "held", "taken", "no locks"
	for name, tt := range map[string]struct {
		attempts []string
		told     int
	}{
		"free":                  {[]string{taken}, 0},
		"held":                  {[]string{held, held, taken}, 1},
		"held after EINTR":      {[]string{interrupted, held, held, taken}, 1},
		"EINTR while it waits":  {[]string{held, interrupted, held, taken}, 1},
		"EINTR":                 {[]string{interrupted, taken}, 0},
		"no locks":              {[]string{none}, 0},
		"no locks, after EINTR": {[]string{interrupted, none}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				attempts, told := tt.attempts, 0
				defer fetch.SetTryLock(func(l *flock.Flock) (bool, error) {
					now := attempts[0]
					attempts = attempts[1:]
					switch now {
					case interrupted:
						return false, unix.EINTR
					case held:
						return false, nil
					case none:
						return false, unix.ENOLCK
					}
					return l.TryLock()
				})()
				unlock, err := fetch.Lock(t.Context(), filepath.Join(t.TempDir(), "m"), func() { told++ })
				if err != nil {
					t.Fatal(err)
				}
				unlock()
				if told != tt.told || len(attempts) > 0 {
					t.Errorf("told %d times, want %d; attempts left: %q", told, tt.told, attempts)
				}
			})
		})
	}
}
