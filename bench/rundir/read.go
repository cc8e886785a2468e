package rundir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/gofrs/flock"
	"golang.org/x/sys/unix"

	"github.com/sparecores/benchmark-llm/bench/record"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// Read reads the directory of a run and changes nothing in it. It returns the description
// and the outcomes that the events tell, in the order in which they came. A run that was
// cut off has no outcome of the tests that were left. Errors are ErrNotRun, ErrRunning,
// ErrSchema, ErrBroken, which names the file and the line, and ErrAccess. Any goroutine
// may call it.
func Read(path string) (Description, []result.Outcome, error) {
	about, left, err := read(path)
	return about, left.Outcomes, err
}

// read is Read, with what is left to do.
func read(path string) (about Description, left record.Left, err error) {
	d := &Dir{Path: path}
	events, err := os.Open(d.EventsFile())
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return Description{}, left, notRun(path)
	case err != nil:
		return Description{}, left, &kindError{ErrAccess, err}
	}
	defer events.Close()
	lock := flock.New(d.EventsFile(), flock.SetFlag(os.O_RDONLY))
	defer lock.Close()
	switch err := locked(d.EventsFile(), lock.TryRLock); {
	case errors.Is(err, ErrRunning):
		return Description{}, left, fmt.Errorf("%s: %w", path, err)
	case err != nil:
		return Description{}, left, &kindError{ErrAccess, err}
	}
	about, err = d.readDescription()
	if err != nil {
		return Description{}, left, err
	}
	h := about.history()
	if _, _, err := record.ReadEvents(events, h.Add); err != nil {
		return Description{}, left, broken(d.EventsFile(), err)
	}
	return about, h.End(), nil
}
