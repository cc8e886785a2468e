package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/acquire"
	"github.com/sparecores/benchmark-llm/bench/fetch"
	"github.com/sparecores/benchmark-llm/bench/llamacpp"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/rundir"
	"github.com/sparecores/benchmark-llm/bench/supervise"
)

func TestSummary(t *testing.T) {
	outcome := func(s result.Status) *result.Outcome {
		return &result.Outcome{Model: "m.gguf", Test: result.Test{Gen: 8}, Status: s, Reason: "why"}
	}
	notFetched := func(err error) error { return &acquire.Error{Kind: acquire.NotFetched, Err: err} }
	load := func(s result.Status) *bench.LoadDone { return &bench.LoadDone{Status: s, Reason: "why"} }
	const (
		trace  = "see each step in dir/events.jsonl"
		goesOn = "benchmark-llm run --resume dir continues it"
	)
	for _, tc := range []struct {
		name   string
		end    summary
		strict bool
		out    *output
		code   int
		line   string
		hint   string
		log    string // part of
	}{
		{name: "measured", out: &output{printed: 2}, log: "INF done records=2 report=dir/report.md"},
		{name: "measured, then interrupted", end: summary{signal: &signalError{syscall.SIGINT, goesOn}, first: outcome(result.Aborted), incomplete: 1}, out: &output{printed: 1},
			log: `INF interrupted records=1 tests_without_record=1 hint="` + goesOn + `" report=dir/report.md`},
		{name: "measured, then full", end: summary{err: fmt.Errorf("%w: %w", rundir.ErrWrite, syscall.ENOSPC)}, out: &output{printed: 1}, log: "the run ended early"},
		{name: "measured, then no worker", end: summary{err: errors.New("start worker")}, out: &output{printed: 1}, log: "the run ended early"},
		{name: "measured, then not loaded", end: summary{notLoaded: "m.gguf", load: load(result.OutOfMemory)}, out: &output{printed: 1}, log: "not loaded"},
		{name: "measured, then stdout closed", end: summary{unwritten: printed(syscall.EPIPE)}, out: &output{printed: 1, err: printed(syscall.EPIPE)}},
		{name: "measured, directory full", end: summary{unwritten: fmt.Errorf("%w: %w", rundir.ErrWrite, syscall.ENOSPC)}, out: &output{printed: 1}, log: "records=1"},

		{name: "strict, all measured", strict: true, out: &output{printed: 2}, log: "records=2"},
		{name: "strict, one is missing", strict: true, end: summary{incomplete: 1}, out: &output{printed: 2}, code: 6, line: "1 test has no record", hint: trace},
		{name: "strict, interrupted", strict: true, end: summary{incomplete: 1, signal: &signalError{syscall.SIGINT, goesOn}}, out: &output{printed: 1}, code: 130, line: "1 test has no record: interrupt", hint: goesOn},
		{name: "strict, directory full", strict: true, end: summary{unwritten: fmt.Errorf("%w: %w", rundir.ErrWrite, syscall.ENOSPC)}, out: &output{printed: 1}, code: 5,
			line: "cannot write results: no space left on device", hint: "free disk space, or " + otherResultsDir},
		{name: "strict, stdout closed", strict: true, end: summary{unwritten: printed(syscall.EPIPE)}, out: &output{printed: 1, err: printed(syscall.EPIPE)}, code: 5,
			line: "stdout: broken pipe", hint: "check that stdout is open and has room"},
		{name: "no file", end: summary{missing: notFetched(fetch.ErrNotFound), first: outcome(result.DownloadFailed)}, code: 3, line: fetch.ErrNotFound.Error(), hint: "check the repository, the file and the revision"},
		{name: "wrong files here", end: summary{missing: notFetched(fmt.Errorf("%w: why", fetch.ErrMixed)), first: outcome(result.DownloadFailed)}, code: 3, line: fetch.ErrMixed.Error() + ": why", hint: "move the model's files elsewhere to fetch them again"},

		{name: "no worker", end: summary{err: errors.New("start worker")}, code: 1, line: "start worker", hint: trace},
		{name: "full", end: summary{err: fmt.Errorf("%w: %w", rundir.ErrWrite, syscall.ENOSPC)}, code: 5, line: "cannot write results: no space left on device", hint: "free disk space, or " + otherResultsDir},
		{name: "stdout closed", end: summary{unwritten: printed(syscall.EPIPE)}, out: &output{err: printed(syscall.EPIPE)}, code: 5, line: "stdout: broken pipe", hint: "read the records in dir/results.jsonl"},
		{name: "interrupted", end: summary{signal: &signalError{syscall.SIGINT, goesOn}, first: outcome(result.Aborted)}, code: 130, line: "nothing was measured: interrupt", hint: goesOn},
		{name: "terminated while loading", end: summary{signal: &signalError{syscall.SIGTERM, goesOn}, notLoaded: "m.gguf", load: load(result.Aborted)}, code: 143, line: "nothing was measured: terminated", hint: goesOn},
		{name: "no engine", end: summary{err: fmt.Errorf("%w: why", supervise.ErrEngine)}, code: 4, line: "start engine: why", hint: "`make deps` gets the library and its back-ends"},
		{name: "no CUDA", end: summary{err: fmt.Errorf("%w: %w", supervise.ErrEngine, &supervise.EngineError{Code: bench.NoCUDA, Reason: llamacpp.ErrNoCUDA.Error() + ": opened: CPU"})}, code: 4,
			line: "start engine: no CUDA device can be used: opened: CPU", hint: "`make cuda build` gets the CUDA back-end, which needs NVIDIA's driver; --allow-cpu measures the CPU"},
		{name: "broken", end: summary{notLoaded: "m.gguf", load: load(result.Failed)}, code: 3, line: "m.gguf not loaded: why", hint: trace},
		{name: "unsupported", end: summary{notLoaded: "m.gguf", load: load(result.Unsupported)}, code: 3, line: "m.gguf not loaded: why", hint: "try a newer llama.cpp; " + trace},
		{name: "too large", end: summary{notLoaded: "m.gguf", load: load(result.OutOfMemory)}, code: 1, line: "m.gguf not loaded: why", hint: "use shorter lengths or a smaller model; " + trace},
		{name: "too slow", end: summary{first: outcome(result.Timeout)}, code: 1, line: "nothing was measured: tg8 of m.gguf: why", hint: "give more time with --timeout or --benchmark-timeout-scale; " + trace},
		{name: "crashed", end: summary{first: outcome(result.Crashed)}, code: 1, line: "nothing was measured: tg8 of m.gguf: why", hint: trace},
		{name: "a limit of the process", end: summary{first: outcome(result.Crashed), limited: true}, code: 1, line: "nothing was measured: tg8 of m.gguf: why", hint: limitsHint},
		{name: "nothing at all", code: 1, line: "nothing was measured", hint: trace},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var log bytes.Buffer
			setDefaultLog(t, &log, "text")
			tc.end.dir, tc.end.report, tc.end.events, tc.end.results, tc.end.model = "dir", "dir/report.md", "dir/events.jsonl", "dir/results.jsonl", "m.gguf"
			if tc.out == nil {
				tc.out = &output{}
			}
			var stderr bytes.Buffer
			code := finish(&stderr, tc.end.result(tc.out, tc.strict))
			if code != tc.code {
				t.Errorf("exit code %d, want %d", code, tc.code)
			}
			want := ""
			if tc.code != 0 {
				want = fmt.Sprintf("benchmark-llm: %s\nhint: %s\n", tc.line, tc.hint)
			}
			if diff := cmp.Diff(want, stderr.String()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if !strings.Contains(log.String(), tc.log) {
				t.Errorf("log %q, want one with %q", log.String(), tc.log)
			}
		})
	}
}

func TestExitNow(t *testing.T) {
	record := &result.Record{SamplesNs: []int64{1}, SamplesTS: []float64{1}}
	for _, tc := range []struct {
		format string
		status result.Status
		want   int
	}{
		{"jsonl", result.OK, 0},
		{"jsonl", result.Timeout, 143},
		{"json", result.OK, 143}, // an array without its end
		{"table", result.OK, 143},
	} {
		out, err := newOutput("md", &bytes.Buffer{})
		if err != nil {
			t.Fatal(err)
		}
		exitNow := out.exitNow
		if err := out.use(tc.format, &bytes.Buffer{}); err != nil { // of the run that is resumed
			t.Fatal(err)
		}
		_ = out.Outcome(&result.Outcome{Test: result.Test{Gen: 1}, Status: tc.status, Record: record})
		if out.err != nil {
			t.Fatal(out.err)
		}
		if got := exitNow(syscall.SIGTERM); got != tc.want {
			t.Errorf("%s, %s: exit code %d, want %d", tc.format, tc.status, got, tc.want)
		}
	}
}

// TestFinish shows all that an error wraps, each text once.
func TestFinish(t *testing.T) {
	inner := fmt.Errorf("open model: %w", errors.Join(fs.ErrNotExist, syscall.EIO))
	err := fail(exitModel, fmt.Errorf("load: %w", inner), "")
	var stderr, log bytes.Buffer
	before := slog.Default()
	t.Cleanup(func() { slog.SetDefault(before) })
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if code := finish(&stderr, err); code != exitModel {
		t.Errorf("exit code %d", code)
	}
	if diff := cmp.Diff("benchmark-llm: load: open model: file does not exist�input/output error\n", stderr.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, want := range []string{`error="open model: file`, `error="file does not exist" `, `error="input/output error" error_type=syscall.Errno`} {
		if strings.Count(log.String(), want) != 1 {
			t.Errorf("log has not once %q:\n%s", want, log.String())
		}
	}
	if strings.Contains(log.String(), `error="load: `) {
		t.Errorf("log has what stderr has:\n%s", log.String())
	}
}

func TestOneLine(t *testing.T) {
	for in, want := range map[string]string{
		"":                    "",
		" plain \n":           "plain",
		"two\nlines":          "two�lines",
		"\x1b[31mred":         "�[31mred",
		"\u009b2J":            "�2J",
		"a\u202eb":            "a�b",
		"\xff":                "�",
		"größe 量":             "größe 量",
		"tab\tnul\x00del\x7f": "tab�nul�del�",
	} {
		if got := oneLine(in); got != want {
			t.Errorf("%q is %q, want %q", in, got, want)
		}
	}
}
