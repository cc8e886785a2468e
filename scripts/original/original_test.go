package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sparecores/benchmark-llm/bench/result"
)

func TestNewFigures(t *testing.T) {
	const (
		pp = `{"model_filename":"/a/m.gguf","n_prompt":16,"n_gen":0,"avg_ts":1,"samples_ns":[1000,3000]}` + "\n"
		tg = `{"model_filename":"m.gguf","n_prompt":0,"n_gen":10,"avg_ts":2,"samples_ns":[ 500, 500 ],"samples_ts":[ 1 ]}` + "\n"
	)
	for _, test := range []struct {
		name, stdout string
		timed, warm  time.Duration
		keys         []key
		fails        bool
	}{
		{name: "nothing"},
		{name: "a prompt and a generation", stdout: tg + pp, timed: 5000, warm: 2000 + 50, keys: []key{{"m.gguf", 16, 0}, {"m.gguf", 0, 10}}},
		{name: "no samples", stdout: `{"model_filename":"m.gguf","n_prompt":16}`, keys: []key{{"m.gguf", 16, 0}}},
		{name: "twice the same", stdout: pp + pp, fails: true},
		{name: "a blank line", stdout: pp + "\n" + tg, fails: true},
		{name: "a log line", stdout: "loading\n" + pp, fails: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			f, err := newFigures([]byte(test.stdout), 10_000)
			if failed := err != nil; failed != test.fails {
				t.Fatalf("error: %v", err)
			}
			if err != nil {
				return
			}
			got := missing(f.records, nil)
			if diff := cmp.Diff(test.keys, got, cmp.AllowUnexported(key{}), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("keys (-want +got):\n%s", diff)
			}
			if f.timed != test.timed || f.warmup != test.warm {
				t.Errorf("timed %v, warm-up %v, want %v, %v", f.timed, f.warmup, test.timed, test.warm)
			}
			if want := 10_000 - test.timed - test.warm; f.overhead() != want {
				t.Errorf("overhead %v, want %v", f.overhead(), want)
			}
			if more := missing(f.records, f.records); len(more) > 0 {
				t.Errorf("misses %v of itself", more)
			}
		})
	}
}

// A program's own account counts if it makes the overhead larger.
func TestOverheadOfAccount(t *testing.T) {
	f := figures{wall: 100, timed: 60, warmup: 10}
	f.account = &result.Accounting{Timed: 60, Warmup: 25}
	if got := f.overhead(); got != 30 {
		t.Errorf("long warm-ups: %d, want 30", got)
	}
	f.account = &result.Accounting{Timed: 60, Warmup: 5}
	if got := f.overhead(); got != 35 {
		t.Errorf("short warm-ups: %d, want 35", got)
	}
}

func TestParseLog(t *testing.T) {
	const log = `2026-11-23 10:00:00,000 - INFO - CPU model: x
2026-11-23 10:00:01,000 - INFO - Benchmarking model m.gguf ...
2026-11-23 10:00:02,000 - DEBUG - Benchmarking prompt processing with 16 tokens for max 41 sec
2026-11-23 10:00:04,500 - DEBUG - Benchmarking prompt processing with 1024 tokens for max 103 sec
2026-11-23 10:00:30,000 - DEBUG - Downloaded model n.gguf (1.00 MB) in 1.00 sec (1.00 MB/s)
2026-11-23 10:01:44,500 - ERROR - Skipping prompt processing benchmarks with 1024+ tokens as it's unlikely to hit the expected 250 tokens/sec.
2026-11-23 10:01:44,500 - DEBUG - Benchmarking text generation with 16 tokens for max 81 sec
2026-11-23 10:01:54,500 - DEBUG - Benchmarking text generation with 128 tokens for max 129 sec
2026-11-23 10:04:03,500 - ERROR - Error: Command '['./llama-bench', '-t', '2']' timed out after 129 seconds
2026-11-23 10:04:03,600 - ERROR - llama-bench partial stderr before timeout:
a line of llama-bench
2026-11-23 10:04:03,700 - INFO - Skipping text generation benchmarks with 128+ tokens due to time constraints.
2026-11-23 10:04:04,000 - INFO - Benchmarking model n.gguf ...
2026-11-23 10:04:05,000 - DEBUG - Benchmarking prompt processing with 16 tokens for max 41 sec
`
	second := func(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
	want := []attempt{
		{key{"m.gguf", 16, 0}, second(41), second(2.5), ""},
		{key{"m.gguf", 1024, 0}, second(103), second(100), "longer tests unlikely"},
		{key{"m.gguf", 0, 16}, second(81), second(10), ""},
		{key{"m.gguf", 0, 128}, second(129), second(129), "timed out"},
		{key{"n.gguf", 16, 0}, second(41), second(7), ""},
	}
	got := parseLog(log, time.Date(2026, 11, 23, 10, 4, 12, 0, time.Local))
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(attempt{}, key{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestCompare(t *testing.T) {
	figure := func(wall time.Duration, models ...string) []figures {
		f := figures{records: map[key]record{}, wall: wall, timed: 10 * time.Second, warmup: 2 * time.Second}
		for _, m := range models {
			f.records[key{m, 16, 0}] = record{ModelFilename: m, Prompt: 16, AvgTS: 5}
		}
		return []figures{f}
	}
	for _, test := range []struct {
		name           string
		original, ours []figures
		models         int
		reached        bool
		want           string
	}{
		{"a third of the overhead", figure(24*time.Second, "a"), figure(16*time.Second, "a"), 1, true, "wall - timed - warm-up: reached, 0.333"},
		{"half of the overhead", figure(24*time.Second, "a"), figure(18*time.Second, "a"), 1, false, "wall - timed - warm-up: NOT reached, 0.500"},
		{"three quarters of the wall time", figure(40*time.Second, "a"), figure(30*time.Second, "a", "b"), 3, true, "only ours has b pp16"},
		{"no record at all", figure(40 * time.Second), figure(30 * time.Second), 3, false, "records: NOT reached"},
		{"a record less", figure(40*time.Second, "a", "b"), figure(30*time.Second, "a"), 3, false, "only the original has b pp16"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var out strings.Builder
			err := compare(&out, test.original, test.ours, test.models)
			if reached := err == nil; reached != test.reached {
				t.Errorf("verdict: %v", err)
			}
			if !strings.Contains(out.String(), test.want) {
				t.Errorf("%q is not in:\n%s", test.want, out.String())
			}
		})
	}
}

func TestHandler(t *testing.T) {
	file := filepath.Join(t.TempDir(), "m.gguf")
	if err := os.WriteFile(file, []byte("0123456789"), 0o644); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(handler([]string{file}, &link{}))
	defer server.Close()
	for _, test := range []struct {
		method, path, rng string
		status            int
		body              string
	}{
		{"GET", "/m.gguf", "", http.StatusOK, "0123456789"},
		{"HEAD", "/m.gguf", "", http.StatusOK, ""},
		{"GET", "/m.gguf", "bytes=3-5", http.StatusPartialContent, "345"},
		{"GET", "/other.gguf", "", http.StatusNotFound, "404 page not found\n"},
		{"GET", "/" + "..%2fm.gguf/x", "", http.StatusNotFound, "404 page not found\n"},
	} {
		r, err := http.NewRequestWithContext(t.Context(), test.method, server.URL+test.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if test.rng != "" {
			r.Header.Set("Range", test.rng)
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if answer.StatusCode != test.status || string(body) != test.body {
			t.Errorf("%s %s %s: %d %q, want %d %q", test.method, test.path, test.rng, answer.StatusCode, body, test.status, test.body)
		}
		if test.method == "HEAD" && answer.ContentLength != 10 {
			t.Errorf("HEAD says %d bytes", answer.ContentLength)
		}
	}
}

func TestLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &link{bytesPerSecond: 1000}
		start := time.Now()
		done := make(chan struct{})
		for range 2 { // two connections share the link
			go func() {
				for range 10 {
					l.pass(t.Context(), 100)
				}
				done <- struct{}{}
			}()
		}
		<-done
		<-done
		if took := time.Since(start); took != 2*time.Second-slack {
			t.Errorf("2000 bytes took %v", took)
		}
		time.Sleep(time.Minute) // unused time is lost, except for the slack
		start = time.Now()
		l.pass(t.Context(), 500)
		if took := time.Since(start); took != 500*time.Millisecond-slack {
			t.Errorf("500 bytes took %v", took)
		}
	})
}

func TestPrepareScript(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "in.py")
	for _, test := range []struct {
		name, text string
		scale      float64
		typeOfFlag string
		fails      bool
	}{
		{name: "paths", text: imageCPU + imageGPU + intScale, scale: 2, typeOfFlag: "int"},
		{name: "fraction", text: imageCPU + imageGPU + intScale, scale: 0.4, typeOfFlag: "float"},
		{name: "without the GPU", text: imageCPU + intScale, scale: 1, fails: true},
		{name: "with a fraction already", text: imageCPU + imageGPU + floatScale, scale: 0.4, fails: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := os.WriteFile(script, []byte(test.text), 0o644); err != nil {
				t.Fatal(err)
			}
			o := options{dir: t.TempDir(), scale: test.scale, tool: "/it's/llama-tool"}
			err := o.prepareScript(script)
			if failed := err != nil; failed != test.fails {
				t.Fatalf("error: %v", err)
			}
			if err != nil {
				return
			}
			got, err := os.ReadFile(o.script)
			if err != nil {
				t.Fatal(err)
			}
			want := `"` + o.dir + `/llama_cpp_cpu"` + `"` + o.dir + `/llama_cpp_gpu"` + scaleFlag + test.typeOfFlag
			if string(got) != want {
				t.Errorf("%s, want %s", got, want)
			}
			wrapper, err := os.ReadFile(filepath.Join(o.dir, "llama_cpp_cpu", "llama-bench"))
			if err != nil {
				t.Fatal(err)
			}
			if want := "#!/bin/sh\nexec '/it'\\''s/llama-tool' llama-bench \"$@\"\n"; string(wrapper) != want {
				t.Errorf("%q, want %q", wrapper, want)
			}
		})
	}
}
