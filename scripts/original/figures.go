package main

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
)

// key is what the reader of the image tells records apart by.
type key struct {
	model       string // base name of its file
	prompt, gen int    // tokens
}

func (k key) String() string {
	if k.prompt != 0 {
		return fmt.Sprintf("%s pp%d", k.model, k.prompt)
	}
	return fmt.Sprintf("%s tg%d", k.model, k.gen)
}

func (k key) compare(o key) int {
	return cmp.Or(cmp.Compare(k.model, o.model), cmp.Compare(min(k.prompt, 1), min(o.prompt, 1))*-1,
		cmp.Compare(k.prompt, o.prompt), cmp.Compare(k.gen, o.gen))
}

// record is what is read of one line of stdout, the same of both programs.
type record struct {
	ModelFilename string  `json:"model_filename"`
	Prompt        int     `json:"n_prompt"`
	Gen           int     `json:"n_gen"`
	AvgTS         float64 `json:"avg_ts"`
	SamplesNS     []int64 `json:"samples_ns"`
}

func (r record) key() key { return key{filepath.Base(r.ModelFilename), r.Prompt, r.Gen} }

func (r record) timed() time.Duration {
	var sum time.Duration
	for _, ns := range r.SamplesNS {
		sum += time.Duration(ns)
	}
	return sum
}

// warmup estimates llama-bench's warm-up: the whole prompt once, or one token.
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

// parseRecords reads stdout as the fleet's reader does, but refuses what makes
// that reader drop the rest.
func parseRecords(stdout []byte) (map[key]record, error) {
	records := map[key]record{}
	for line := range bytes.Lines(stdout) {
		var r record
		if err := json.Unmarshal(line, &r); err != nil {
			return nil, fmt.Errorf("stdout: %q is no record: %w", bytes.TrimSpace(line), err)
		}
		if _, twice := records[r.key()]; twice {
			return nil, fmt.Errorf("stdout: two records of %v", r.key())
		}
		records[r.key()] = r
	}
	return records, nil
}

// figures are what one run of one program took.
type figures struct {
	records map[key]record
	wall    time.Duration
	timed   time.Duration // samples of the records
	warmup  time.Duration // by the estimate, the same for both
	lost    time.Duration // in tests without a record
	account *bench.Accounting
}

// overhead is the wall time that is neither a sample nor a warm-up. A program
// that keeps account of its warm-ups does not gain by longer ones: the larger
// of the two figures counts.
func (f figures) overhead() time.Duration {
	over := f.wall - f.timed - f.warmup
	if f.account != nil {
		over = max(over, f.wall-f.account.Timed-f.account.Warmup)
	}
	return over
}

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

// accounting reads the account of the only run below a results directory.
func accounting(results string) (*bench.Accounting, error) {
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
		return nil, fmt.Errorf("%d runs below %s instead of one", len(found), results)
	}
	f, err := os.Open(found[0])
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	var account bench.Account
	var last time.Time
	for r := bufio.NewReader(f); ; {
		line, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		var s bench.Stamped
		if err := s.UnmarshalLine(bytes.TrimSuffix(line, []byte("\n"))); err != nil {
			return nil, fmt.Errorf("%s: %w", found[0], err)
		}
		account.Add(s)
		last = s.At
	}
	a := account.Accounting(last)
	return &a, nil
}

// attempt is one test as the original's log tells it.
type attempt struct {
	key   key
	limit time.Duration // budget
	took  time.Duration // the whole process
	end   string        // the log's reason to stop, if any
}

var (
	logLine    = regexp.MustCompile(`^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) - [A-Z]+ - (.*)$`)
	modelStart = regexp.MustCompile(`^Benchmarking model (\S+) \.\.\.$`)
	testStart  = regexp.MustCompile(`^Benchmarking (prompt processing|text generation) with (\d+) tokens for max (\d+) sec$`)
)

// parseLog finds the tests in the original's stderr. The last line of the log
// ends the last test if nothing else does; ended is when the program ended.
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
				a.end = "longer ones unlikely"
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

// missing lists the keys of a that b lacks, in order.
func missing(a, b map[key]record) []key {
	var keys []key
	for _, k := range slices.SortedFunc(maps.Keys(a), key.compare) {
		if _, ok := b[k]; !ok {
			keys = append(keys, k)
		}
	}
	return keys
}
