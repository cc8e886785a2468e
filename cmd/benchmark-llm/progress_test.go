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

	"golang.org/x/sys/unix"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/acquire"
	"github.com/sparecores/benchmark-llm/bench/result"
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
	slog.SetDefault(newLogger(w, format, slog.LevelDebug, color(w)))
}

// TestProgressOnTerminal: in the end the log is whole and nothing is left of the
// line that moved, however narrow the terminal.
func TestProgressOnTerminal(t *testing.T) {
	for _, columns := range []int{200, 80, 40, 20, 8, 1} {
		t.Run(fmt.Sprint(columns), func(t *testing.T) {
			tty, screen := terminal(t, columns)
			global := &globalOptions{logLevel: "debug", logFormat: "text"}
			setDefaultLog(t, tty, "text")
			p := newProgress(tty, 2, time.Time{}, nothing, global)
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
				"repetitiondonetest=pp512repetition=1/3t/s=512.00", "repetition=2/3t/s=512.00", "testdidnotcomplete", "testdonetest=pp512t/s=\"512.00±1.00\"", "warning=outlier",
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
		p := newProgress(io.Discard, 2, time.Time{}, nothing, &globalOptions{})
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

// TestProgressElsewhere: nothing moves in a file, on a dumb terminal, between
// lines of JSON, or when quiet was asked for.
func TestProgressElsewhere(t *testing.T) {
	t.Run("pipe", func(t *testing.T) {
		var b bytes.Buffer
		setDefaultLog(t, &b, "text")
		p := newProgress(&b, 2, time.Time{}, nothing, &globalOptions{logLevel: "debug", logFormat: "text"})
		play(p)
		p.close()
		for line := range strings.Lines(b.String()) {
			if !regexp.MustCompile(`^\d\d:\d\d:\d\d (DBG|INF|WRN) \P{C}+\n$`).MatchString(line) {
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
			p := newProgress(tty, 2, time.Time{}, nothing, &tc.global)
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

// A long load shows its progress without a terminal too, but not at every event.
func TestProgressOfLoad(t *testing.T) {
	var b bytes.Buffer
	setDefaultLog(t, &b, "text")
	synctest.Test(t, func(t *testing.T) {
		p := newProgress(&b, 2, time.Time{}, nothing, &globalOptions{logLevel: "info", logFormat: "text"})
		defer p.close()
		events := []bench.Event{bench.LoadStarted{Model: bench.Model{Name: "m.gguf"}}}
		for tenths := range 10 { // one every 4 s
			events = append(events, bench.LoadProgress{Share: float64(tenths+1) / 10})
		}
		for _, e := range events {
			if err := p.Event(bench.Stamped{Event: e}); err != nil {
				t.Error(err)
			}
			time.Sleep(4 * time.Second)
		}
	})
	var percent []string
	for _, m := range regexp.MustCompile(`loading model model=m.gguf percent=(\d+)\n`).FindAllStringSubmatch(b.String(), -1) {
		percent = append(percent, m[1])
	}
	if got := strings.Join(percent, " "); got != "30 60 90" {
		t.Errorf("progress %q in\n%s", got, b.String())
	}
}
