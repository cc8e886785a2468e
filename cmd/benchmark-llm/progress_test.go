package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/acquire"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/supervise"
)

// openPTY opens a terminal: the user's end, and the name of the program's.
func openPTY(t *testing.T) (user *os.File, name string) {
	t.Helper()
	user, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = user.Close() })
	number, err := unix.IoctlGetInt(int(user.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(user.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	return user, fmt.Sprintf("/dev/pts/%d", number)
}

// terminal opens a terminal of that many columns: what is written to it is in
// screen once it is closed.
func terminal(t *testing.T, columns int) (tty *os.File, screen func() []string) {
	t.Helper()
	m, name := openPTY(t)
	err := unix.IoctlSetWinsize(int(m.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: uint16(columns)})
	if err == nil {
		tty, err = os.OpenFile(name, os.O_RDWR|syscall.O_NOCTTY, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("TERM", "xterm")
	t.Setenv("NO_COLOR", "")
	var all bytes.Buffer
	read := make(chan error)
	go func() {
		_, err := io.Copy(&all, m)
		if errors.Is(err, syscall.EIO) { // the other end was closed
			err = nil
		}
		read <- err
	}()
	return tty, func() []string {
		t.Helper()
		if err := tty.Close(); err != nil {
			t.Error(err)
		}
		if err := <-read; err != nil {
			t.Error(err)
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		return display(t, all.String(), columns)
	}
}

var sequence = regexp.MustCompile(`^\x1b\[([0-9;]*)([A-Za-z])`)

// display is what a terminal shows of s, line by line, without colors. It knows
// the sequences that this program may write, and no others.
func display(t *testing.T, s string, columns int) []string {
	t.Helper()
	lines := [][]rune{nil}
	row, col := 0, 0
	down := func() {
		if row++; row == len(lines) {
			lines = append(lines, nil)
		}
	}
	for len(s) > 0 {
		if m := sequence.FindStringSubmatch(s); m != nil {
			n := 1
			if _, err := fmt.Sscan(m[1], &n); m[2] == "A" && m[1] != "" && err != nil {
				t.Fatalf("sequence %q", m[0])
			}
			switch {
			case m[2] == "A": // up
				row = max(row-n, 0)
			case m[2] == "J" && m[1] == "": // erase from here down
				lines = lines[:row+1]
				lines[row] = lines[row][:min(col, len(lines[row]))]
			case m[2] == "m": // color
			default:
				t.Fatalf("sequence %q", m[0])
			}
			s = s[len(m[0]):]
			continue
		}
		r, size := utf8.DecodeRuneInString(s)
		s = s[size:]
		switch {
		case r == '\r':
			col = 0
		case r == '\n':
			down()
		case r < ' ' || r >= 0x7f && r < 0xa0:
			t.Fatalf("control character %q", r)
		default:
			if col == columns {
				col = 0
				down()
			}
			for len(lines[row]) <= col {
				lines[row] = append(lines[row], ' ')
			}
			lines[row][col] = r
			col++
		}
	}
	text := make([]string, len(lines))
	for i, l := range lines {
		text[i] = strings.TrimRight(string(l), " ")
	}
	return text
}

// outlook is of a run of which nothing is known.
func outlook() *supervise.Outlook { return supervise.NewOutlook(nil, nil, time.Time{}) }

// nothing is fetched.
func nothing() (acquire.Download, bool) { return acquire.Download{}, false }

// play shows a whole run, with names that come from outside.
func play(p *progress) {
	const evil = "a\x1b[2Jb\u009b3A\r\nc\u202e.gguf"
	test := result.Test{Prompt: 512}
	events := []bench.Event{
		bench.EngineReady{PID: 1, Facts: bench.EngineFacts{Backends: "CPU", CPUInfo: "cpu \x1b[1m"}},
		bench.LoadStarted{Model: bench.Model{Name: evil}},
		bench.LoadProgress{Share: 0.5},
		bench.LoadDone{Status: result.OK, Facts: bench.ModelFacts{Type: evil}},
		bench.TestStarted{Test: test, Budget: time.Hour, Repetitions: 3},
		bench.ContextReady{},
		bench.WarmupDone{},
		bench.RepetitionDone{Sample: result.Sample{Repetition: 1, Elapsed: time.Second}},
		bench.RepetitionDone{Sample: result.Sample{Repetition: 2, Elapsed: time.Second}},
		bench.AbortRequested{Reason: evil},
		bench.WorkerLost{Reason: evil},
	}
	for _, e := range events {
		_ = p.Event(bench.Stamped{Event: e})
	}
	slog.Warn(evil, "reason", evil, "error", errors.New(evil), "test", test)
	_ = p.Outcome(&result.Outcome{Model: evil, Test: test, Status: result.Failed, Reason: evil})
	_ = p.Outcome(&result.Outcome{
		Model: evil, Test: test, Status: result.OK, Samples: make([]result.Sample, 2), Record: &result.Record{AvgTS: 512, StddevTS: 1},
		Warnings: []result.Warning{{Code: "outlier", Message: evil}},
	})
}

// setDefaultLog restores the log that progress replaces.
func setDefaultLog(t *testing.T, w io.Writer, format string) {
	t.Helper()
	before := slog.Default()
	t.Cleanup(func() { slog.SetDefault(before) })
	slog.SetDefault(newLogger(w, format, slog.LevelDebug, w))
}

// TestProgressOnTerminal: in the end the log is whole and nothing is left of the
// line that moved, however narrow the terminal.
func TestProgressOnTerminal(t *testing.T) {
	for _, columns := range []int{200, 80, 40, 20, 8, 1} {
		t.Run(fmt.Sprint(columns), func(t *testing.T) {
			tty, screen := terminal(t, columns)
			global := &globalOptions{logLevel: "debug", logFormat: "text"}
			setDefaultLog(t, tty, "text")
			p := newProgress(tty, 2, outlook(), nothing, global)
			if p.live == nil {
				t.Fatal("no line moves")
			}
			play(p)
			p.close()
			p.close()
			lines := screen()
			log := strings.Join(lines, "")
			for _, want := range []string{
				"engineready", "modelloaded", "teststartedtest=pp512repetitions=3budget=1h0m0s",
				"repetitiondonetest=pp512repetition=1repetitions=3tokens_per_second=512.0", "repetition=2repetitions=3tokens_per_second=512.0", "testdidnotcomplete",
				"testdonetest=pp512tokens_per_second=512.0stddev=1.000", "warning=outlier",
			} {
				if !strings.Contains(strings.ReplaceAll(log, " ", ""), want) {
					t.Errorf("the log lacks %q:\n%s", want, strings.Join(lines, "\n"))
				}
			}
			for _, debris := range []string{"left", "warming up", "preparing", "loading"} {
				if strings.Contains(log, debris) {
					t.Errorf("%q is left on the screen:\n%s", debris, strings.Join(lines, "\n"))
				}
			}
		})
	}
}

// TestStoppingStays: what ends after a test was told to stop, as its context and
// its warm-up may, does not take the line back to an earlier stage.
func TestStoppingStays(t *testing.T) {
	start := bench.TestStarted{Test: result.Test{Prompt: 512}, Repetitions: 3}
	for _, late := range []bench.Event{
		bench.ContextReady{}, bench.WarmupDone{}, bench.RepetitionDone{Sample: result.Sample{Repetition: 1, Elapsed: time.Second}},
	} {
		p := newProgress(io.Discard, 2, outlook(), nothing, &globalOptions{})
		for _, step := range []struct {
			event bench.Event
			want  string
		}{
			{start, "pp512  preparing"},
			{bench.AbortRequested{Reason: "stopped: interrupt"}, "pp512  stopping"},
			{late, "pp512  stopping"},
			{bench.TestStarted{Test: result.Test{Gen: 16}}, "tg16  preparing"},
			{bench.ContextReady{}, "tg16  warming up"},
		} {
			_ = p.Event(bench.Stamped{Event: step.event})
			if got := p.line(); got != step.want {
				t.Errorf("after %T: %q, want %q", step.event, got, step.want)
			}
		}
		p.close()
	}
}

// TestProgressTimeLeft: the live line says how long the run will take, and a limit only
// if that may matter.
func TestProgressTimeLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		job := bench.Job{Model: bench.Model{Name: "m"}, Repetitions: 3, Tests: []bench.TestBudget{{Test: result.Test{Prompt: 16}}, {Test: result.Test{Prompt: 32}}, {Test: result.Test{Gen: 16}}}}
		o := supervise.NewOutlook([]bench.Job{job}, nil, time.Now().Add(59*time.Second))
		p := newProgress(io.Discard, 2, o, nothing, &globalOptions{})
		defer p.close()
		take := func(after time.Duration, e bench.Event) {
			time.Sleep(after)
			s := bench.Stamped{At: time.Now(), Event: e}
			_ = o.Event(s)
			_ = p.Event(s)
		}
		done := func(test result.Test) {
			outcome := result.Outcome{Model: "m", Test: test, Status: result.OK, Samples: make([]result.Sample, 3), Record: &result.Record{}}
			_ = o.Outcome(&outcome)
			_ = p.Outcome(&outcome)
		}
		for _, step := range []struct {
			after time.Duration
			event bench.Event
			want  string
		}{
			{0, bench.LoadStarted{Model: job.Model}, "loading m"},
			{time.Second, bench.LoadDone{Status: result.OK, Elapsed: time.Second}, "loading m"},
			{0, bench.TestStarted{Test: result.Test{Prompt: 16}, Budget: 10 * time.Second, Repetitions: 3}, "pp16  preparing"},
			{0, bench.ContextReady{}, "pp16  warming up"},
			// 3 s for the others, then 4 × 2 s of pp32, and at least 49 s / 16 of tg16
			{time.Second, bench.WarmupDone{}, "pp16  repetition 1/3  over 14s left"},
			{time.Second, bench.RepetitionDone{Sample: result.Sample{Repetition: 1, Elapsed: time.Second}}, "pp16  repetition 2/3  16.00 t/s  over 13s left"},
			{6 * time.Second, bench.RepetitionDone{Sample: result.Sample{Repetition: 2, Elapsed: 6 * time.Second}}, "pp16  repetition 3/3  2.667 t/s  budget ends in 2s  time limit ends in 50s  over 42s left"},
		} {
			take(step.after, step.event)
			if got := p.line(); got != step.want {
				t.Errorf("after %T: %q, want %q", step.event, got, step.want)
			}
		}
		take(time.Second, bench.TestDone{Test: result.Test{Prompt: 16}, Status: result.OK})
		done(result.Test{Prompt: 16})
		done(result.Test{Prompt: 32})
		take(0, bench.TestStarted{Test: result.Test{Gen: 16}, Repetitions: 3})
		take(0, bench.ContextReady{})
		take(0, bench.WarmupDone{})
		take(2*time.Second, bench.RepetitionDone{Sample: result.Sample{Repetition: 1, Elapsed: 2 * time.Second}})
		if got, want := p.line(), "tg16  repetition 2/3  8.000 t/s  about 4s left"; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	})
}

// TestDeadHostInLog: the reason why several models have no file is logged once.
func TestDeadHostInLog(t *testing.T) {
	var b bytes.Buffer
	before := slog.Default()
	defer slog.SetDefault(before)
	slog.SetDefault(newLogger(&b, "text", slog.LevelWarn, &b))
	p := newProgress(&b, 2, outlook(), func() (d acquire.Download, ok bool) { return }, &globalOptions{logFormat: "text"})
	p.several = true
	for _, model := range []string{"a.gguf", "b.gguf"} {
		for _, e := range []bench.Event{
			bench.WaitStarted{Model: model},
			bench.WaitDone{Model: model, Status: result.DownloadFailed, Reason: "hub cannot be reached"},
		} {
			_ = p.Event(bench.Stamped{Event: e})
		}
		for gen := range 3 {
			_ = p.Outcome(&result.Outcome{Model: model, Test: result.Test{Gen: 1 + gen}, Status: result.DownloadFailed, Reason: "hub cannot be reached"})
		}
	}
	p.close()
	want := `no model file model=a.gguf status=download_failed reason="hub cannot be reached"
no model file model=b.gguf status=download_failed
`
	got := regexp.MustCompile(`(?m)^\S+ WRN `).ReplaceAllString(b.String(), "")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}

// TestLogIsSparse: without a terminal, waits, loads and repetitions get one log line
// every 10 s at most.
func TestLogIsSparse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		before := slog.Default()
		defer slog.SetDefault(before)
		slog.SetDefault(newLogger(&b, "text", slog.LevelInfo, &b))
		fetching := func() (acquire.Download, bool) {
			return acquire.Download{Name: "m.gguf", Done: 1 << 20, Total: 4 << 20, BytesPerSecond: 1 << 10}, true
		}
		p := newProgress(&b, 2, outlook(), fetching, &globalOptions{logFormat: "text"})
		take := func(after time.Duration, e bench.Event) {
			time.Sleep(after)
			_ = p.Event(bench.Stamped{At: time.Now(), Event: e})
		}
		take(0, bench.WaitStarted{Model: "m"})
		take(25*time.Second, bench.WaitDone{Model: "m", Status: result.OK, Elapsed: 25 * time.Second})
		take(0, bench.LoadStarted{Model: bench.Model{Name: "m"}})
		for range 10 {
			take(100*time.Millisecond, bench.LoadProgress{Share: 0.5})
		}
		take(5*time.Second, bench.LoadDone{Status: result.OK, Elapsed: 6 * time.Second})
		test := result.Test{Gen: 16}
		take(0, bench.TestStarted{Test: test, Repetitions: 40})
		for n := range 40 {
			take(700*time.Millisecond, bench.RepetitionDone{Sample: result.Sample{Repetition: n + 1, Elapsed: 700 * time.Millisecond}})
		}
		p.close()
		synctest.Wait()
		want := `waiting for model file model=m
waiting for model file model=m file=m.gguf done=25% speed="1.0 KiB/s"
waiting for model file model=m file=m.gguf done=25% speed="1.0 KiB/s"
model file ready model=m took=25s
loading model model=m done=50%
model loaded model=m weights="" model_type="" size="0 B" took=6s
test started test=tg16 repetitions=40
repetition done test=tg16 repetition=15 repetitions=40 tokens_per_second=22.86
repetition done test=tg16 repetition=30 repetitions=40 tokens_per_second=22.86
`
		got := regexp.MustCompile(`(?m)^\S+ INF `).ReplaceAllString(b.String(), "")
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// TestLogUnits: the text log has the unit in the value, JSON in the key.
func TestLogUnits(t *testing.T) {
	for _, tc := range []struct {
		key        string
		value      any
		text, json string
	}{
		{"took_s", 0.276, "took=276ms", `"took_s":0.276`},
		{"took_s", 4800.0, "took=1h20m0s", `"took_s":4800`},
		{"wait_s", 0.0, "wait=0s", `"wait_s":0`},
		{"size_bytes", uint64(103668480), `size="99 MiB"`, `"size_bytes":103668480`},
		{"speed_bytes_per_second", 2097152.0, `speed="2.0 MiB/s"`, `"speed_bytes_per_second":2097152`},
		{"done_percent", 12.5, "done=12%", `"done_percent":12.5`},
		{"tokens_per_second", 55800.82, "tokens_per_second=55801", `"tokens_per_second":55800.82`},
		{"stddev_tokens_per_second", 0.01234567, "stddev=0.01235", `"stddev_tokens_per_second":0.01234567`},
		{"repetition", 3, "repetition=3", `"repetition":3`},
		{"tests", []string{"pp16", "tg16"}, `tests="pp16 tg16"`, `"tests":["pp16","tg16"]`},
		{"test", result.Test{Gen: 16}, "test=tg16", `"test":"tg16"`},
	} {
		for format, want := range map[string]string{"text": tc.text, "json": tc.json} {
			var b bytes.Buffer
			newLogger(&b, format, slog.LevelInfo, &b).Info("m", tc.key, tc.value)
			if !strings.Contains(b.String(), want) {
				t.Errorf("%s log %q, want %s", format, b.String(), want)
			}
		}
	}
}

// TestProgressElsewhere: nothing moves in a file, on a dumb terminal, between
// lines of JSON, or when quiet was asked for.
func TestProgressElsewhere(t *testing.T) {
	t.Run("pipe", func(t *testing.T) {
		var b bytes.Buffer
		setDefaultLog(t, &b, "text")
		p := newProgress(&b, 2, outlook(), nothing, &globalOptions{logLevel: "debug", logFormat: "text"})
		play(p)
		p.close()
		for line := range strings.Lines(b.String()) {
			if !regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d) (DBG|INF|WRN) \P{C}+\n$`).MatchString(line) {
				t.Errorf("line %q", line)
			}
		}
	})
	for _, tc := range []struct {
		name   string
		term   string
		global globalOptions
	}{
		{"dumb", "dumb", globalOptions{logLevel: "info", logFormat: "text"}},
		{"quiet", "xterm", globalOptions{logLevel: "info", logFormat: "text", quiet: true}},
		{"json", "xterm", globalOptions{logLevel: "info", logFormat: "json"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tty, screen := terminal(t, 80)
			t.Setenv("TERM", tc.term)
			p := newProgress(tty, 2, outlook(), nothing, &tc.global)
			if p.live != nil {
				t.Error("a line moves")
			}
			p.close()
			screen()
		})
	}
}

func TestColor(t *testing.T) {
	for _, tc := range []struct {
		term, noColor string
		want          bool
	}{{"xterm", "", true}, {"xterm", "1", false}, {"dumb", "", false}} {
		tty, screen := terminal(t, 80)
		t.Setenv("TERM", tc.term)
		t.Setenv("NO_COLOR", tc.noColor)
		if got := color(tty); got != tc.want {
			t.Errorf("TERM=%s NO_COLOR=%s: color is %v", tc.term, tc.noColor, got)
		}
		if got := width(tty); got != 80 {
			t.Errorf("width %d", got)
		}
		screen()
	}
	if color(&bytes.Buffer{}) {
		t.Error("colors in a file")
	}
}

// Where the CUDA back-end is installed, the log says why it is not what runs.
func TestProgressWithoutCUDADevice(t *testing.T) {
	for _, test := range []struct {
		name  string
		facts bench.EngineFacts
		want  string // empty: nothing
	}{
		{"not installed", bench.EngineFacts{Problems: []string{"some"}}, ""},
		{"no driver", bench.EngineFacts{CUDAModule: "m.so", Problems: []string{"m.so: no libcuda.so.1"}}, `reason="m.so: no libcuda.so.1"`},
		{"no device", bench.EngineFacts{CUDAModule: "m.so"}, `reason="it lists none"`},
		{"used", bench.EngineFacts{CUDAModule: "m.so", GPUs: []bench.EngineGPU{{Name: "CUDA0", Backend: "CUDA"}}}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			var log bytes.Buffer
			setDefaultLog(t, &log, "text")
			_ = (&progress{}).Event(bench.Stamped{Event: bench.EngineReady{Facts: test.facts}})
			switch found := strings.Contains(log.String(), "has no device"); {
			case found != (test.want != ""):
				t.Errorf("the log is\n%s", &log)
			case !strings.Contains(log.String(), test.want):
				t.Errorf("no %s in\n%s", test.want, &log)
			}
		})
	}
}
