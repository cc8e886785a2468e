package supervise_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/supervise"
)

func TestServeRefuses(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"nothing", "", "read job: EOF"},
		{"no end of line", `{}`, "read job: EOF"},
		{"not JSON", "hello\n", "decode job: invalid character 'h' looking for beginning of value"},
		{"another type", `{"tests":1}` + "\n", "decode job: json: cannot unmarshal number into Go struct field Job.tests of type []bench.TestBudget"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			run := func(context.Context, bench.Job, func(bench.Stamped) error) error {
				t.Error("a job was run")
				return nil
			}
			err := supervise.Serve(t.Context(), strings.NewReader(tt.in), io.Discard, func() {}, run)
			if err == nil || err.Error() != tt.want {
				t.Errorf("error %v, want %s", err, tt.want)
			}
		})
	}
	err := supervise.Serve(t.Context(), endless{}, io.Discard, func() {}, nil)
	if want := "read job: longer than 268435456 bytes"; err == nil || err.Error() != want {
		t.Errorf("a job without end: error %v, want %s", err, want)
	}
}

// endless has no end of line.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// A job has all of a long prompt.
func TestServeLongJob(t *testing.T) {
	want := bench.Job{E2E: &bench.E2E{Prompt: strings.Repeat("<text>", 1<<20)}, Tests: []bench.TestBudget{}}
	line, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	errDone := errors.New("done")
	err = supervise.Serve(t.Context(), bytes.NewReader(append(line, '\n')), io.Discard, func() {},
		func(_ context.Context, got bench.Job, _ func(bench.Stamped) error) error {
			if got.E2E == nil || got.E2E.Prompt != want.E2E.Prompt {
				t.Error("the prompt has changed")
			}
			return errDone
		})
	if !errors.Is(err, errDone) {
		t.Error(err)
	}
}

// The worker's side of the protocol: job, event, byte, event, end.
func TestServe(t *testing.T) {
	in, parent := io.Pipe()
	events, out := io.Pipe()
	orphaned := make(chan struct{})
	served := make(chan error)
	want := bench.Job{Model: bench.Model{Name: "m.gguf"}, Repetitions: 3, Tests: []bench.TestBudget{}}
	go func() {
		served <- supervise.Serve(t.Context(), in, out, func() { close(orphaned) },
			func(ctx context.Context, got bench.Job, emit func(bench.Stamped) error) error {
				if diff := cmp.Diff(want, got); diff != "" {
					t.Error(diff)
				}
				if err := emit(bench.Now(bench.LoadProgress{Share: 0.5})); err != nil {
					t.Error(err)
				}
				err := emit(bench.Now(bench.JobDone{})) // never acknowledged
				<-ctx.Done()
				if cause := context.Cause(ctx); !errors.Is(cause, supervise.ErrOrphaned) {
					t.Errorf("the context ended with %v", cause)
				}
				return err
			})
	}()
	line, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parent.Write(append(line, '\n')); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(events)
	for i, want := range []bench.Event{bench.LoadProgress{Share: 0.5}, bench.JobDone{}} {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			t.Fatal(err)
		}
		var got bench.Stamped
		if err := got.UnmarshalLine(line); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got.Event); diff != "" {
			t.Error(diff)
		}
		if i == 0 {
			if _, err := parent.Write([]byte{'\n'}); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = parent.Close() // of a pipe in memory: never fails
	if err := <-served; !errors.Is(err, supervise.ErrOrphaned) {
		t.Errorf("error %v, want %v", err, supervise.ErrOrphaned)
	}
	<-orphaned
}

func TestServeCannotWrite(t *testing.T) {
	in, parent := io.Pipe()
	defer parent.Close()
	events, out := io.Pipe()
	_ = events.Close()
	go func() { _, _ = parent.Write([]byte("{}\n")) }()
	err := supervise.Serve(t.Context(), in, out, func() {},
		func(_ context.Context, _ bench.Job, emit func(bench.Stamped) error) error {
			return emit(bench.Now(bench.JobDone{}))
		})
	if !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("error %v, want %v", err, io.ErrClosedPipe)
	}
}

func FuzzServe(f *testing.F) {
	f.Add([]byte(`{"model":{"name":"m.gguf"},"tests":[{"test":{"n_prompt":1,"n_gen":2}}],"repetitions":5}` + "\n"))
	f.Add([]byte("{}\n\n\n\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		orphaned := make(chan struct{})
		ran := false
		err := supervise.Serve(t.Context(), bytes.NewReader(in), io.Discard, func() { close(orphaned) },
			func(_ context.Context, _ bench.Job, emit func(bench.Stamped) error) error {
				ran = true
				_ = emit(bench.Now(bench.JobDone{})) // acknowledged or not, as the input goes on
				return nil
			})
		if ran != (err == nil) {
			t.Fatalf("ran %v, error %v", ran, err)
		}
	})
}
