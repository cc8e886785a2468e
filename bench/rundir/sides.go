package rundir

import (
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/sparecores/benchmark-llm/bench/compare"
	"github.com/sparecores/benchmark-llm/bench/database"
	"github.com/sparecores/benchmark-llm/bench/report"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// Errors of Sides beside those of Read.
var (
	ErrSource = errors.New("results cannot be read") // of a file or a run
	ErrTwice  = errors.New("given twice")            // a source or a label
)

// labelled matches LABEL=SOURCE. A label has no slash, so that a path may have the sign.
var labelled = regexp.MustCompile(`^([^=/]+)=(.+)$`)

// Sides reads the sides of a comparison. Each is [LABEL=]SOURCE, or several sources
// separated by commas, which are several runs of the side. A source is the directory of a
// run, a file that report.ReadFile reads, a SQLite database, which holds one or more runs,
// FILE#RUN for one of them, or last, last~1 and so on for runs in parent, as List finds them. What exists under the whole name is one source. Sides without a label
// are called by the shortest distinct ends of their paths.
//
// Errors are ErrNotRun, ErrRunning, ErrTwice, and ErrSource for what cannot be
// read. A source that holds the same measurements as another is ErrTwice too: a run that
// counts twice makes intervals too narrow.
func Sides(args []string, parent string) ([]compare.Side, error) {
	var sides []compare.Side
	var labels []string // empty: none was given
	var names [][]string
	seen := map[uint64]string{}
	seed := maphash.MakeSeed()
	for _, arg := range args {
		label, sources := split(arg)
		side := compare.Side{Label: label}
		for _, name := range sources {
			path, err := Find(name, parent)
			if err != nil {
				return nil, err
			}
			runs, err := readRuns(path)
			if err != nil {
				return nil, err
			}
			for _, run := range runs {
				run.Name = name
				key := fingerprint(seed, path, run)
				if before, twice := seen[key]; twice {
					return nil, &kindError{ErrTwice, fmt.Errorf("%s and %s hold the same measurements: %w", before, name, ErrTwice)}
				}
				seen[key] = name
				side.Runs = append(side.Runs, run)
			}
		}
		sides, labels, names = append(sides, side), append(labels, label), append(names, sources)
	}
	for i, label := range distinctLabels(labels, names) {
		sides[i].Label = label
		for _, before := range sides[:i] {
			if before.Label == label {
				return nil, &kindError{ErrTwice, fmt.Errorf("label %q: %w", label, ErrTwice)}
			}
		}
	}
	return sides, nil
}

// A Pricer returns the prices of sides by their labels; nil: none is known for a side.
type Pricer func(labels []string) ([]*result.Prices, error)

// addCosts gives the records of sides the costs at the prices of a Pricer, which may be nil.
// Records without a price of their side keep those that they have. It returns the prices.
func addCosts(sides []compare.Side, priced Pricer) (prices []*result.Prices, err error) {
	if priced == nil {
		return make([]*result.Prices, len(sides)), nil
	}
	var labels []string
	for _, side := range sides {
		labels = append(labels, side.Label)
	}
	if prices, err = priced(labels); err != nil {
		return nil, err
	}
	for i, side := range sides {
		for _, run := range side.Runs {
			for j := range run.Records {
				if err := report.AddCost(&run.Records[j], prices[i]); err != nil {
					return nil, err
				}
			}
		}
	}
	return prices, nil
}

// Compare compares the Sides of args with the costs of a Pricer, which may be nil. Errors
// are those of Sides, of the Pricer and of compare.Compare, and result.ErrCurrencies.
func Compare(args []string, parent string, o compare.Options, priced Pricer) (*compare.Comparison, error) {
	sides, err := Sides(args, parent)
	if err != nil {
		return nil, err
	}
	if _, err := addCosts(sides, priced); err != nil {
		return nil, err
	}
	return compare.Compare(sides, o)
}

// split takes an argument of Sides apart.
func split(arg string) (label string, sources []string) {
	if exists(arg) {
		return "", []string{arg}
	}
	if m := labelled.FindStringSubmatch(arg); m != nil {
		label, arg = m[1], m[2]
	}
	if exists(arg) {
		return label, []string{arg}
	}
	return label, strings.Split(arg, ",")
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// readRuns reads a source. A database may hold several runs.
func readRuns(path string) ([]compare.Run, error) {
	file, name := path, ""
	if i := strings.LastIndexByte(path, '#'); i >= 0 && !exists(path) {
		file, name = path[:i], path[i+1:]
	}
	if !isDatabase(file) {
		run, err := readRun(path)
		return []compare.Run{run}, err
	}
	runs, err := database.Read(file)
	if err == nil && name != "" {
		runs, err = runsOf(runs, name)
	}
	if err != nil {
		return nil, &kindError{ErrSource, result.AtPath(file, err)}
	}
	var all []compare.Run
	for _, r := range runs {
		all = append(all, compare.Run{Records: r.Records})
	}
	return all, nil
}

func isDatabase(path string) bool {
	// A pipe can be opened only once.
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
		return false
	}
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	head := make([]byte, database.HeadBytes)
	n, _ := io.ReadFull(f, head)
	return database.Is(head[:n])
}

// runsOf returns the run of a database that a name means: that of the run, last, last~1
// and so on.
func runsOf(runs []database.Run, name string) ([]database.Run, error) {
	i := slices.IndexFunc(runs, func(r database.Run) bool { return r.Name == name })
	if m := lastRun.FindStringSubmatch(name); m != nil {
		n, _ := strconv.Atoi(m[1]) // it has few digits, or none
		i = len(runs) - 1 - n
	}
	if i < 0 {
		return nil, fmt.Errorf("there is no run %s among its %s", name, result.Count(len(runs), "run"))
	}
	return runs[i : i+1], nil
}

// readRun reads a source of one run.
func readRun(path string) (compare.Run, error) {
	var run compare.Run
	f, err := os.Open(path)
	if err != nil {
		return run, &kindError{ErrSource, err}
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return run, &kindError{ErrSource, err}
	case info.IsDir():
		_, outcomes, err := Read(path)
		if err != nil {
			if errors.Is(err, ErrNotRun) || errors.Is(err, ErrRunning) {
				return run, err
			}
			return run, &kindError{ErrSource, err}
		}
		for _, o := range outcomes {
			if o.Record != nil {
				run.Records = append(run.Records, *o.Record)
			} else {
				run.Missing = append(run.Missing, o)
			}
		}
		return run, nil
	case !info.Mode().IsRegular() && info.Mode()&fs.ModeNamedPipe == 0:
		return run, &kindError{ErrSource, fmt.Errorf("%s: %w", path, report.ErrNotResults)}
	}
	if run.Records, err = report.ReadFile(f); err != nil {
		return run, &kindError{ErrSource, result.AtPath(path, err)}
	}
	return run, nil
}

// fingerprint tells measurements apart: when each was made and what it gave. Without
// records, and for records without a time, the path counts.
func fingerprint(seed maphash.Seed, path string, run compare.Run) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	if len(run.Records) == 0 || slices.ContainsFunc(run.Records, func(r result.Record) bool { return r.TestTime == "" }) {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			path = real
		}
		if absolute, err := filepath.Abs(path); err == nil {
			path = absolute
		}
		maphash.WriteComparable(&h, path)
	}
	for i := range run.Records {
		r := &run.Records[i]
		maphash.WriteComparable(&h, r.TestTime)
		maphash.WriteComparable(&h, r.ModelFilename)
		maphash.WriteComparable(&h, r.Test())
		maphash.WriteComparable(&h, r.AvgTS)
		for _, speed := range r.SamplesTS {
			maphash.WriteComparable(&h, speed)
		}
	}
	return h.Sum64()
}

// distinctLabels fills in the labels that were not given: the shortest distinct ends of
// the sides' first paths, without the extension of a results file. A side of more runs
// says how many.
func distinctLabels(given []string, sources [][]string) []string {
	paths := make([][]string, len(given)) // in parts
	for i, label := range given {
		if label == "" {
			label = filepath.ToSlash(filepath.Clean(sources[i][0]))
			if e := filepath.Ext(label); slices.Contains([]string{".jsonl", ".json", ".csv", ".db", ".sqlite"}, e) && filepath.Base(label) != e {
				label = strings.TrimSuffix(label, e)
			}
		}
		paths[i] = strings.Split(label, "/")
	}
	end := func(i, n int) string { return strings.Join(paths[i][max(0, len(paths[i])-n):], "/") }
	labels := slices.Clone(given)
	for i := range labels {
		if given[i] != "" {
			continue
		}
		alone := func(n int) bool {
			for j := range paths {
				if j != i && end(j, n) == end(i, n) {
					return false
				}
			}
			return true
		}
		n := 1
		for n < len(paths[i]) && !alone(n) {
			n++
		}
		labels[i] = end(i, n)
		if !alone(n) { // as a.json beside a.csv
			labels[i] = filepath.Base(sources[i][0])
			if slices.ContainsFunc(sources, func(s []string) bool { return s[0] != sources[i][0] && filepath.Base(s[0]) == labels[i] }) {
				labels[i] = sources[i][0]
			}
		}
		if more := len(sources[i]) - 1; more > 0 {
			labels[i] += fmt.Sprintf("+%d", more)
		}
	}
	return labels
}

// Names are the names that Sides takes for the runs in parent, the newest first: last,
// last~1 and so on, then their paths.
func Names(parent string) (names []string) {
	runs := List(parent)
	for i := range runs {
		names = append(names, lastName(i))
	}
	return append(names, runs...)
}
