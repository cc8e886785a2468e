package quick_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/benchtest"
	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/quick"
	"github.com/sparecores/benchmark-llm/bench/record"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/suite"
	"github.com/sparecores/benchmark-llm/bench/supervise"
	"github.com/sparecores/benchmark-llm/bench/synth"
)

// machine takes time for what it computes and reads.
type machine struct {
	start            time.Duration // of a process
	load, ops, bytes float64       // a second
	small            float64       // factor by which the smallest model is slower
}

var passes = gguf.Context{UBatch: 512, K: gguf.F16, V: gguf.F16}

// seconds is the time of a test.
func (m machine) seconds(name string, f *gguf.File, t result.Test) float64 {
	w := f.Work(t, passes)
	slower := 1.0
	if strings.HasPrefix(name, "SmolLM") && m.small > 0 {
		slower = m.small
	}
	if t.Prompt > 0 {
		return slower * float64(w.Ops()) / m.ops
	}
	return slower * float64(w.Bytes()) / m.bytes
}

// run is a runner whose workers have this machine. They do not take turns.
func (m machine) run(ctx context.Context, jobs []bench.Job, consumers func(i int) supervise.Consumers) error {
	for i, job := range jobs {
		f, err := headerOf(job)
		if err != nil {
			return err
		}
		took := func(seconds float64) benchtest.Step {
			return benchtest.Step{Takes: time.Duration(min(seconds, 1e9) * 1e9)}
		}
		script := func(c benchtest.Call) benchtest.Step {
			switch c.Method {
			case benchtest.Load:
				return took(float64(f.TensorBytes()) / m.load)
			case benchtest.Warmup, benchtest.Repeat:
				return took(m.seconds(job.Model.Name, f, c.Test))
			default:
				return benchtest.Step{}
			}
		}
		e := benchtest.New(script, bench.EngineFacts{CPUInfo: "a CPU", BuildCommit: "b", BuildNumber: 7}, bench.ModelFacts{Type: "llama"})
		worker, all := record.NewWorker("test", job), consumers(i)
		emit := func(s bench.Stamped) error {
			if err := all.Event(s); err != nil {
				return err
			}
			if o := worker.Add(s); o != nil {
				return all.Outcome(o)
			}
			return nil
		}
		select {
		case <-time.After(m.start):
		case <-ctx.Done():
			return nil
		}
		if err := emit(bench.Stamped{At: time.Now(), Event: bench.EngineReady{Facts: e.Facts()}}); err != nil {
			return err
		}
		if err := bench.RunJob(ctx, e, job, nil, emit); err != nil && !errors.Is(err, bench.ErrNoModel) {
			return err
		}
	}
	return nil
}

func headerOf(job bench.Job) (*gguf.File, error) {
	if job.Model.Path != "" {
		return synth.ReadHeaderFile(job.Model.Path)
	}
	shape, err := synth.Lookup(job.Model.Name)
	if err != nil {
		return nil, err
	}
	return shape.File()
}

func options(t *testing.T, m machine, within time.Duration, models ...string) *quick.Options {
	return &quick.Options{
		Within: within, Models: models, Settings: bench.DefaultSettings(2), Context: passes, AvailableBytes: 22 << 30, Dir: t.TempDir(), Run: m.run,
	}
}

// ofTwoCores is about the machine that runs these tests, when it is quiet.
var ofTwoCores = machine{start: 200 * time.Millisecond, load: 1.2e9, ops: 4e11, bytes: 3e10, small: 4}

// The run never takes longer than it may. Every model has its speeds or a reason, and
// what is measured or estimated is what the machine does.
func TestWithin(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	between := func(low, high float64) float64 { return low * math.Pow(high/low, random.Float64()) }
	for i := range 40 {
		m := machine{
			start: time.Duration(between(1e7, 3e9)), load: between(1e8, 2e10), ops: between(1e10, 1e14), bytes: between(1e9, 3e12), small: between(1, 8),
		}
		if i == 0 {
			m = ofTwoCores
		}
		within := []time.Duration{10 * time.Second, 30 * time.Second, time.Minute, 5 * time.Minute}[i%4]
		synctest.Test(t, func(t *testing.T) {
			q, err := quick.New(options(t, m, within))
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			err = q.Run(t.Context())
			if took := time.Since(began); took > within {
				t.Errorf("%+v: %v instead of %v", m, took, within)
			}
			if err != nil && !errors.Is(err, quick.ErrNothing) {
				t.Errorf("%+v: %v", m, err)
			}
			r := q.Result()
			if len(r.Rows) != len(suite.Models()) {
				t.Errorf("%d models", len(r.Rows))
			}
			for _, row := range r.Rows {
				if (row.Prompt == nil || row.Gen == nil) && row.Reason == "" {
					t.Errorf("%+v, %v: %s has neither speeds nor a reason", m, within, row.Name)
				}
				shape, err := synth.Lookup(row.Model)
				if err != nil {
					t.Fatal(err)
				}
				f, err := shape.File()
				if err != nil {
					t.Fatal(err)
				}
				for test, s := range map[result.Test]*quick.Speed{{Prompt: 512}: row.Prompt, {Gen: 128}: row.Gen} {
					if s == nil {
						continue
					}
					want := float64(test.Tokens()) / m.seconds(row.Model, f, test)
					if off := math.Abs(s.TS/want - 1); off > 0.05 || s.Low > want || want > s.High || off > 1e-6 && !s.Estimated {
						t.Errorf("%+v: %s %v: %.4g (%.4g … %.4g), want %.4g", m, row.Name, test, s.TS, s.Low, s.High, want)
					}
				}
			}
		})
	}
}

// On a machine with two cores, a minute is enough to measure the two small models and to
// estimate the others; a fast machine measures all that fit memory.
func TestWhatIsMeasured(t *testing.T) {
	for name, tt := range map[string]struct {
		m    machine
		want []string
	}{
		"two cores": {ofTwoCores, []string{"measured", "measured", "estimated", "estimated", "estimated", "estimated"}},
		"many":      {machine{start: 50 * time.Millisecond, load: 5e9, ops: 2e13, bytes: 3e11}, []string{"measured", "measured", "measured", "measured", "measured", "estimated"}},
		"a snail":   {machine{start: time.Second, load: 2e8, ops: 2e10, bytes: 2e9}, []string{"estimated", "estimated", "estimated", "estimated", "estimated", "left out"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			q, err := quick.New(options(t, tt.m, time.Minute))
			if err != nil {
				t.Fatal(err)
			}
			if err := q.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, row := range q.Result().Rows {
				switch {
				case row.Prompt == nil || row.Gen == nil:
					got = append(got, "left out")
				case row.Prompt.Estimated || row.Gen.Estimated:
					got = append(got, "estimated")
				default:
					got = append(got, "measured")
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("%s: %s", name, diff)
			}
		})
	}
}

// When it is interrupted, it tells what it has.
func TestInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, err := quick.New(options(t, ofTwoCores, time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
		defer cancel()
		if err := q.Run(ctx); err != nil {
			t.Fatal(err)
		}
		rows := q.Result().Rows
		if rows[1].Prompt == nil || rows[5].Prompt != nil || rows[5].Reason != "interrupted" {
			t.Errorf("%+v", rows)
		}
	})
}

// A machine that does nothing within the time gives an error, in time.
func TestNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, err := quick.New(options(t, machine{start: time.Hour}, quick.Least))
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := q.Run(t.Context()); !errors.Is(err, quick.ErrNothing) || time.Since(began) > quick.Least {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

func TestNew(t *testing.T) {
	for _, tt := range []struct {
		within time.Duration
		model  string
		err    error
	}{
		{time.Second, "", quick.ErrWithin},
		{time.Minute, "nosuch.gguf", quick.ErrModel},
		{quick.Least, "llama-7b.Q4_K_M.gguf", nil},
	} {
		o := &quick.Options{Within: tt.within}
		if tt.model != "" {
			o.Models = []string{tt.model}
		}
		if _, err := quick.New(o); !errors.Is(err, tt.err) {
			t.Errorf("%v, %s: %v", tt.within, tt.model, err)
		}
	}
}

// Every format marks estimates. A narrow terminal has fewer columns.
func TestWrite(t *testing.T) {
	yes, no := true, false
	r := quick.Result{
		Kind: "quick", Machine: "a CPU", Threads: 2, Build: "b (7)", TookS: 58.2, Busy: "other processes use 1.0 of 2 CPUs: go 1.0", Quote: "a CPU is fast.",
		Rows: []quick.Row{
			{Model: "SmolLM-135M.Q4_K_M.gguf", Name: "SmolLM-135M", Params: 134_515_008, MemoryBytes: 245 << 20, Fits: &yes, Prompt: &quick.Speed{Test: "pp512", TS: 254.8, Low: 247, High: 263}, Gen: &quick.Speed{Test: "tg128", TS: 102.2, Low: 97, High: 107}},
			{Model: "Llama-3.3-70B-Instruct-Q4_K_M.gguf", Name: "Llama-3.3-70B-Instruct", Params: 70_553_706_560, MemoryBytes: 41 << 30, Fits: &no, Prompt: &quick.Speed{Test: "pp512", Estimated: true, TS: 3.612, Low: 3.3, High: 3.95}, Reason: "not estimated: it crashed"},
		},
	}
	for format, want := range map[string]string{
		"table": `model                   params   memory  fits      pp512 t/s     tg128 t/s
SmolLM-135M               135M  245 MiB  yes    254.8 ±  3 %  102.2 ±  5 %
Llama-3.3-70B-Instruct   70.6B   41 GiB  no    ≈ 3.61 ±  9 %             -

≈ estimated from models with fewer layers; ±: where 95 % of other runs would be
synthetic weights of the published files' shapes; measured in 58 s
Llama-3.3-70B-Instruct: not estimated: it crashed
the machine was busy: other processes use 1.0 of 2 CPUs: go 1.0

a CPU is fast.
`,
	} {
		var b strings.Builder
		if err := quick.Write(&b, format, r, 80); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, b.String()); diff != "" {
			t.Errorf("%s: %s", format, diff)
		}
	}
	for format, want := range map[string][]string{
		"md": {"| Llama-3.3-70B-Instruct | 70.6B | 41 GiB | no | ≈ 3.61 ±  9 % | - |"}, "json": {`"estimated": true`, `"estimated": false`, `"kind": "quick"`},
	} {
		var b strings.Builder
		if err := quick.Write(&b, format, r, 80); err != nil {
			t.Fatal(err)
		}
		for _, text := range want {
			if !strings.Contains(b.String(), text) {
				t.Errorf("%s: no %q in\n%s", format, text, b.String())
			}
		}
	}
	for _, columns := range []int{40, 60, 80} {
		var b strings.Builder
		if err := quick.Write(&b, "table", r, columns); err != nil {
			t.Fatal(err)
		}
		table, _, _ := strings.Cut(b.String(), "\n\n")
		for _, line := range strings.Split(table, "\n") {
			if n := len([]rune(line)); n > columns && columns > 56 && !strings.HasPrefix(line, "(") {
				t.Errorf("%d columns instead of %d: %s", n, columns, line)
			}
		}
		if !strings.Contains(table, "pp512 t/s") {
			t.Error(fmt.Sprint("no speeds in\n", table))
		}
	}
}
