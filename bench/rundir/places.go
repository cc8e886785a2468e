package rundir

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/sparecores/benchmark-llm/bench/host"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// Start creates the directory of a new run in parent, and describes it. If parent is
// empty, it is in the user's state directory. If that cannot be written, it is in a
// directory of the user's own for temporary files, and the log says where. A directory
// that cannot be described is removed. Errors are ErrCreate and ErrWrite.
func Start(parent string, about Description) (*Dir, error) {
	if parent != "" {
		return start(parent, about)
	}
	var d *Dir
	err := errNoHome
	if state := stateDir(); state != "" {
		if d, err = start(state, about); err == nil {
			return d, nil
		}
	}
	temporary, tempErr := host.OwnTempDir()
	if tempErr == nil {
		d, tempErr = start(filepath.Join(temporary, "runs"), about)
	}
	switch {
	case tempErr == nil:
		slog.Warn("results go to a temporary directory", "results_dir", d.Path, "reason", err)
		return d, nil
	case errors.Is(err, errNoHome):
		return nil, &kindError{ErrCreate, fmt.Errorf("results directory: %w", tempErr)}
	default:
		return nil, err
	}
}

var errNoHome = errors.New("there is no home directory")

func start(parent string, about Description) (*Dir, error) {
	d, err := Create(parent)
	if err != nil {
		return nil, err
	}
	if err := d.Describe(about); err != nil {
		d.Leave()
		return nil, err
	}
	return d, nil
}

// stateDir returns $XDG_STATE_HOME/benchmark-llm/runs. Without the variable, it is in
// ~/.local/state. It is empty without a home directory.
func stateDir() string {
	state := os.Getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(state) {
		home, err := os.UserHomeDir()
		if err != nil {
			return ""
		}
		state = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(state, "benchmark-llm", "runs")
}

// Last stands for the most recent run in Find, last~1 for the last but one, and so on.
const Last = "last"

// lastRun matches Last and the names of the runs before it.
var lastRun = regexp.MustCompile(`^` + Last + `(?:~([0-9]{1,6}))?$`)

// lastName is the name of the run with so many newer ones.
func lastName(newer int) string {
	if newer == 0 {
		return Last
	}
	return Last + "~" + strconv.Itoa(newer)
}

// runName matches the names of directories that Create makes.
var runName = regexp.MustCompile(`^[0-9]{8}T[0-9]{6}Z-[0-9]+$`)

// Find returns the path of a run. name is a path, Last, last~1 and so on, or the name of a
// directory in parent; an empty parent stands for the places where Start puts a run.
// The error is ErrNotRun if there is no run for Last and the like; a path is not checked.
func Find(name, parent string) (string, error) {
	parents := placesOf(parent)
	m := lastRun.FindStringSubmatch(name)
	if m == nil {
		for _, p := range parents {
			if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) && runName.MatchString(name) && isRun(filepath.Join(p, name)) {
				return filepath.Join(p, name), nil
			}
		}
		return name, nil
	}
	if _, err := os.ReadDir(parents[0]); err != nil && !errors.Is(err, fs.ErrNotExist) && parent != "" {
		return "", &kindError{ErrAccess, err}
	}
	runs := List(parent)
	n, _ := strconv.Atoi(m[1]) // it has few digits, or none
	switch {
	case n < len(runs):
		return runs[n], nil
	case m[1] == "":
		return "", noRun(parents[0])
	}
	return "", &kindError{ErrNotRun, fmt.Errorf("there is no %s: %s has %s", name, parents[0], result.Count(len(runs), "run"))}
}

// placesOf are the directories in which runs are: parent, or if that is empty, the places
// where Start puts a run.
func placesOf(parent string) []string {
	if parent != "" {
		return []string{parent}
	}
	return slices.DeleteFunc([]string{stateDir(), host.OwnTempPath("runs")}, func(p string) bool { return p == "" })
}

// List returns the directories of runs in parent, or in the places where Start puts a
// run if parent is empty, the newest first. A place that cannot be read has none.
func List(parent string) []string { return list(parent, isRun) }

// list is List of the directories with a run's name that is holds for.
func list(parent string, is func(path string) bool) (runs []string) {
	for _, p := range placesOf(parent) {
		entries, _ := os.ReadDir(p)
		for _, e := range entries {
			if path := filepath.Join(p, e.Name()); runName.MatchString(e.Name()) && is(path) {
				runs = append(runs, path)
			}
		}
	}
	slices.SortFunc(runs, func(a, b string) int {
		const seconds = len("20060102T150405Z")
		x, y := filepath.Base(a), filepath.Base(b)
		return cmp.Or(cmp.Compare(y[:seconds], x[:seconds]), changed(b).Compare(changed(a)))
	})
	return runs
}

// isRun tells whether a directory has the description of a run.
func isRun(path string) bool {
	info, err := os.Stat(filepath.Join(path, "run.json"))
	return err == nil && info.Mode().IsRegular()
}

// changed is when a run last wrote an event; the zero time if that is not known. It
// tells runs apart that began in the same second.
func changed(path string) time.Time {
	info, err := os.Stat(filepath.Join(path, "events.jsonl"))
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}
