package rundir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/sys/unix"

	"github.com/sparecores/benchmark-llm/bench/report"
)

// Removed is a run whose directory was removed, or would be.
type Removed struct {
	Path  string
	Bytes int64    // that its files had
	Stay  []string // paths in the directory that are not of the run; the directory stays for them
	Err   error    // why it was not removed, as Remove returns it; nil: it was
}

// Remove removes the directory of a run. It holds the lock of the run: no process
// can write it meanwhile. It removes only the files of a run. A directory that has others stays, with
// them. Errors are ErrNotRun, ErrRunning and ErrAccess.
func Remove(path string) Removed { return remove(path, false, (*flock.Flock).TryLock) }

// PruneOptions say which runs are removed.
type PruneOptions struct {
	Keep      int           // this many of the newest stay
	OlderThan time.Duration // runs whose last event is younger stay; 0: none does
	DryRun    bool          // nothing is removed
}

// Prune removes runs in parent, as Runs finds them, the newest first. Runs that are being
// written stay, and so do symbolic links. Errors are those of Runs; those of single
// runs are in Removed.
func Prune(parent string, o PruneOptions) ([]Removed, error) {
	runs, err := Runs(parent)
	if err != nil {
		return nil, err
	}
	var all []Removed
	for _, r := range runs[min(o.Keep, len(runs)):] {
		if age := time.Since(changed(r.Path)); o.OlderThan > 0 && age < o.OlderThan {
			continue
		}
		gone := remove(r.Path, o.DryRun, (*flock.Flock).TryLock)
		if !isBegun(r.Path) && errors.Is(gone.Err, ErrNotRun) {
			continue // another process has removed it
		}
		all = append(all, gone)
	}
	return all, nil
}

// begins is how long a directory without run.json counts as one of a run that begins. A run
// makes the file within milliseconds.
const begins = time.Minute

// remove is Remove. try takes the lock.
func remove(path string, dry bool, try func(*flock.Flock) (bool, error)) (r Removed) {
	r.Path = path
	if r.Err = removable(path); r.Err != nil {
		return r
	}
	lock := flock.New(filepath.Join(path, "events.jsonl"), flock.SetFlag(os.O_RDWR))
	defer lock.Close() //nolint:errcheck // it was only locked
	ok, err := try(lock)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		r.Err = notRun(path)
	case errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.ENOLCK), errors.Is(err, unix.ENOSYS):
		if !ended(path) {
			r.Err = &kindError{ErrRunning, fmt.Errorf("%s: perhaps another process writes it: its file system has no locks", path)}
		}
	case err != nil:
		r.Err = &kindError{ErrAccess, fmt.Errorf("lock: %w", err)}
	case !ok:
		r.Err = fmt.Errorf("%s: %w", path, ErrRunning)
	case !isBegun(path): // the process that had the lock has removed it
		r.Err = notRun(path)
	}
	if r.Err != nil {
		return r
	}
	files := filesOf(path)
	slices.SortStableFunc(files, func(a, b report.RunFile) int { // the lock goes last
		return slices.Index(owned, a.Name) - slices.Index(owned, b.Name)
	})
	for _, f := range files {
		if f.Foreign {
			r.Stay = append(r.Stay, filepath.Join(path, f.Name))
			continue
		}
		if !dry {
			if err := os.Remove(filepath.Join(path, f.Name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				r.Err = &kindError{ErrAccess, err}
				return r
			}
		}
		r.Bytes += f.SizeBytes
	}
	if !dry && len(r.Stay) == 0 {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			r.Err = &kindError{ErrAccess, err}
		}
	}
	return r
}

// removable refuses what is not the directory of a run: one that has events, and a
// description or the name of a run. It takes no lock, so it refuses a run that begins,
// which would fail if it found its events locked.
func removable(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return notRun(path)
	case err != nil:
		return &kindError{ErrAccess, err}
	case info.Mode()&fs.ModeSymlink != 0:
		return &kindError{ErrNotRun, fmt.Errorf("%s is a symbolic link, %w", path, ErrNotRun)}
	case !info.IsDir() || !isBegun(path):
		return notRun(path)
	}
	absolute, err := filepath.Abs(path)
	if err != nil {
		return &kindError{ErrAccess, err}
	}
	named := runName.MatchString(filepath.Base(absolute))
	if isRun(path) {
		d := &Dir{Path: path}
		if _, err := d.readDescription(); err != nil && !named {
			return &kindError{ErrNotRun, fmt.Errorf("%s is %w: %w", path, ErrNotRun, err)}
		}
		return nil
	}
	switch {
	case !named:
		return notRun(path)
	case time.Since(info.ModTime()) < begins:
		return fmt.Errorf("%s: %w", path, ErrRunning)
	}
	return nil
}

// ended tells whether the last process of a run has completed it.
func ended(path string) bool {
	d := &Dir{Path: path}
	about, err := d.readDescription()
	return err == nil && about.last().Ended != nil
}

// RemoveAll removes runs by their names, as Find takes them. All names are found before the
// first run is removed, because that changes which run is last~1. Errors are those of Find;
// those of single runs are in Removed.
func RemoveAll(names []string, parent string) (all []Removed, err error) {
	var paths []string
	for _, name := range names {
		path, err := Find(name, parent)
		if err != nil {
			return nil, err
		}
		if path = filepath.Clean(path); !slices.Contains(paths, path) {
			paths = append(paths, path)
		}
	}
	for _, path := range paths {
		all = append(all, Remove(path))
	}
	return all, nil
}
