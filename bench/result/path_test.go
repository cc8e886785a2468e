package result_test

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"testing"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// A path is named once.
func TestAtPath(t *testing.T) {
	full := &fs.PathError{Op: "write", Path: "/dev/full", Err: syscall.ENOSPC}
	for _, tt := range []struct {
		err  error
		want string
	}{
		{errors.New("no JSON"), "/dev/full: no JSON"},
		{full, "write /dev/full: no space left on device"},
		{fmt.Errorf("flush: %w", full), "flush: write /dev/full: no space left on device"},
		{&fs.PathError{Op: "open", Path: "/tmp/x", Err: syscall.EACCES}, "/dev/full: open /tmp/x: permission denied"},
	} {
		if got := result.AtPath("/dev/full", tt.err); got.Error() != tt.want || !errors.Is(got, tt.err) {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}
