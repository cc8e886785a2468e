package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sparecores/benchmark-llm/bench"
	runrecord "github.com/sparecores/benchmark-llm/bench/record"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// key identifies a record, as in the image's reader.
type key struct {
	model       string // base name of the model's file
	prompt, gen int    // tokens
}

func (k key) String() string {
	if k.prompt != 0 {
		return fmt.Sprintf("%s pp%d", k.model, k.prompt)
	}
	return fmt.Sprintf("%s tg%d", k.model, k.gen)
}

// compare orders keys by model, then prompts before generations, then by length.
func (k key) compare(o key) int {
	return cmp.Or(cmp.Compare(k.model, o.model), cmp.Compare(min(k.prompt, 1), min(o.prompt, 1))*-1,
		cmp.Compare(k.prompt, o.prompt), cmp.Compare(k.gen, o.gen))
}

// record holds the fields used here of one line of stdout. Both programs print them.
type record struct {
	ModelFilename string  `json:"model_filename"`
	Prompt        int     `json:"n_prompt"`
	Gen           int     `json:"n_gen"`
	AvgTS         float64 `json:"avg_ts"`
	SamplesNS     []int64 `json:"samples_ns"`
}

func (r record) key() key { return key{filepath.Base(r.ModelFilename), r.Prompt, r.Gen} }

// timed is the total time of the samples.
func (r record) timed() time.Duration {
	var sum time.Duration
	for _, ns := range r.SamplesNS {
		sum += time.Duration(ns)
	}
	return sum
}

// warmup estimates the time of llama-bench's warm-up: the whole prompt once, or one
// token.
func (r record) warmup() time.Duration {
	if len(r.SamplesNS) == 0 {
		return 0
	}
	once := r.timed() / time.Duration(len(r.SamplesNS))
	if r.Gen > 0 {
		once /= time.Duration(r.Gen)
	}
	return once
}

// parseRecords reads records like the fleet's reader, but fails on lines that make
// that reader drop the rest.
func parseRecords(stdout []byte) (map[key]record, error) {
	records := map[key]record{}
	for line := range bytes.Lines(stdout) {
		var r record
		if err := json.Unmarshal(line, &r); err != nil {
			return nil, fmt.Errorf("stdout: %q is not a record: %w", bytes.TrimSpace(line), err)
		}
		if _, twice := records[r.key()]; twice {
			return nil, fmt.Errorf("stdout: two records of %v", r.key())
		}
		records[r.key()] = r
	}
	return records, nil
}

// figures are the records and times of one run of one program.
type figures struct {
	records map[key]record
	wall    time.Duration
	timed   time.Duration      // samples of the records
	warmup  time.Duration      // estimated in the same way for both programs
	lost    time.Duration      // tests without a record
	account *result.Accounting // the program's own; nil for the original
}

// overhead is the wall time without samples and warm-ups. If the program accounts
// for its warm-ups, overhead is the larger of the results with the estimated and the
// real times. So a program does not gain by longer warm-ups.
func (f figures) overhead() time.Duration {
	over := f.wall - f.timed - f.warmup
	if f.account != nil {
		over = max(over, f.wall-f.account.Timed-f.account.Warmup)
	}
	return over
}

// newFigures makes the figures of a run from its stdout and wall time.
func newFigures(stdout []byte, wall time.Duration) (figures, error) {
	f := figures{wall: wall}
	var err error
	if f.records, err = parseRecords(stdout); err != nil {
		return f, err
	}
	for _, r := range f.records {
		f.timed += r.timed()
		f.warmup += r.warmup()
	}
	return f, nil
}

// accounting makes the account of the only run below a results directory.
func accounting(results string) (*result.Accounting, error) {
	var found []string
	err := filepath.WalkDir(results, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "events.jsonl" {
			found = append(found, path)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(found) != 1 {
		return nil, fmt.Errorf("%s has %d runs, expected one", results, len(found))
	}
	f, err := os.Open(found[0])
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	var account runrecord.Account
	var last time.Time
	_, _, err = runrecord.ReadEvents(f, func(_ int, s bench.Stamped) error {
		account.Add(s)
		last = s.At
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", found[0], err)
	}
	a := account.Accounting(last)
	return &a, nil
}

// attempt is one test in the original's log.
type attempt struct {
	key   key
	limit time.Duration // budget
	took  time.Duration // time of the whole process
	end   string        // why it ended, empty if it completed
}

var (
	logLine    = regexp.MustCompile(`^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) - [A-Z]+ - (.*)$`)
	modelStart = regexp.MustCompile(`^Benchmarking model (\S+) \.\.\.$`)
	testStart  = regexp.MustCompile(`^Benchmarking (prompt processing|text generation) with (\d+) tokens for max (\d+) sec$`)
)

// parseLog finds the tests in the original's stderr. ended is the end of the program,
// which also ends the last test.
func parseLog(stderr string, ended time.Time) []attempt {
	var (
		attempts []attempt
		model    string
		begun    time.Time
		open     bool
	)
	finish := func(at time.Time) {
		if open {
			attempts[len(attempts)-1].took = at.Sub(begun)
		}
		open = false
	}
	for line := range strings.Lines(stderr) {
		m := logLine.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			continue
		}
		at, err := time.ParseInLocation("2006-01-02 15:04:05,000", m[1], time.Local)
		if err != nil {
			continue
		}
		text := m[2]
		if start := modelStart.FindStringSubmatch(text); start != nil {
			finish(at)
			model = start[1]
		} else if start := testStart.FindStringSubmatch(text); start != nil {
			finish(at)
			tokens, _ := strconv.Atoi(start[2]) // digits
			limit, _ := strconv.Atoi(start[3])
			k := key{model: model, gen: tokens}
			if start[1] == "prompt processing" {
				k = key{model: model, prompt: tokens}
			}
			attempts = append(attempts, attempt{key: k, limit: time.Duration(limit) * time.Second})
			begun, open = at, true
		} else if open && (strings.Contains(text, "timed out") || strings.HasPrefix(text, "llama-bench exited") || strings.HasPrefix(text, "Skipping ")) {
			a := &attempts[len(attempts)-1]
			switch {
			case strings.Contains(text, "unlikely to hit"):
				a.end = "longer tests unlikely"
			case strings.Contains(text, "timed out"):
				a.end = "timed out"
			default:
				a.end = "failed"
			}
			finish(at)
		}
	}
	finish(ended)
	return attempts
}

// missing lists the keys of a that are not in b, in order.
func missing(a, b map[key]record) []key {
	var keys []key
	for _, k := range slices.SortedFunc(maps.Keys(a), key.compare) {
		if _, ok := b[k]; !ok {
			keys = append(keys, k)
		}
	}
	return keys
}
