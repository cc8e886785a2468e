package rundir

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench/benchtest"
	"github.com/sparecores/benchmark-llm/bench/host"
	"github.com/sparecores/benchmark-llm/bench/record"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// here is the machine of twoModels, changed.
func here(change func(*host.Facts)) host.Facts {
	f := host.Facts{Arch: "amd64", CPU: host.CPU{Model: "AMD EPYC", PhysicalCores: 2, LogicalCPUs: 4, AllowedCPUs: 4, AllowedList: "0-3", Threads: 2}}
	if change != nil {
		change(&f)
	}
	return f
}

// spanOn is the span of a process on a machine.
func spanOn(f host.Facts) Span {
	s := span
	s.Host = &f
	return s
}

// Repetitions count only as long as nothing that changes speed has changed. What
// changed is told. Records stay.
func TestChangedConditions(t *testing.T) {
	oneCPU := func(f *host.Facts) { f.CPU.AllowedList, f.CPU.AllowedCPUs = "1-2", 2 }
	for _, tt := range []struct {
		name    string
		now     func(*host.Facts)
		version string
		rpc     bool
		want    []string // that changed; nil: the repetition counts
	}{
		{name: "nothing"},
		{name: "allowed CPUs", now: oneCPU, want: []string{"allowed CPUs: 0-3, now 1-2"}},
		{name: "variable", now: func(f *host.Facts) { f.Environment = map[string]string{"OMP_PROC_BIND": "true"} }, want: []string{`variable OMP_PROC_BIND: not set, now "true"`}},
		{name: "version", version: "llama.cpp 0.8.0", want: []string{"version: llama.cpp 0.7.0, now llama.cpp 0.8.0"}},
		{name: "servers", rpc: true, want: []string{"machines of RPC servers: far:1, now not known"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			log := quietLog(t)
			about := twoModels()
			about.Host = here(nil)
			if tt.rpc {
				about.Jobs[0].Settings.RPC = []string{"far:1"}
			}
			path := writeRun(t, about, benchtest.Join(benchtest.Loaded("a.gguf"), benchtest.Begun(runPP, 0, 2), benchtest.Done(runPP, result.OK), benchtest.Begun(runTG, 0, 1)))
			next := spanOn(here(tt.now))
			if tt.version != "" {
				next.Version = tt.version
			}
			open := func(s Span) (*Dir, record.Left, []string) {
				d, about, left, err := Open(path, s)
				if err != nil {
					t.Fatal(err)
				}
				_, begun := told(left)
				return d, left, append([]string{strings.Join(about.last().Changed, "; ")}, begun...)
			}
			kept := []string{"", "a.gguf tg8 1 100ms"}
			want := kept
			if tt.want != nil {
				want = []string{strings.Join(tt.want, "; ")}
			}
			d, left, got := open(next)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if len(left.Outcomes) != 1 || len(recordsOf(t, path)) != 1 {
				t.Errorf("outcomes %+v", left.Outcomes)
			}
			for _, what := range tt.want {
				name, _, _ := strings.Cut(what, ":")
				if n := strings.Count(log.String(), "changed since the run was interrupted: "+name); n != 1 {
					t.Errorf("told %d times that %s changed:\n%s", n, name, log)
				}
			}
			if told := strings.Contains(log.String(), "repeating a test from its start"); told != (tt.want != nil) {
				t.Errorf("log %s", log)
			}
			for _, job := range left.Jobs {
				if warned := len(job.Warnings) == 1 && job.Warnings[0].Code == result.WarnConditionsChanged; warned != (tt.want != nil) {
					t.Errorf("%s: warnings %v", job.Model.Name, job.Warnings)
				}
			}
			d.Close()
			if tt.rpc {
				return
			}

			// A process that measured nothing leaves no trace: the first conditions count again.
			d, _, got = open(spanOn(here(nil)))
			if diff := cmp.Diff(kept, got); diff != "" {
				t.Errorf("after a process that measured nothing (-want +got):\n%s", diff)
			}
			d.Close()

			// Under the new conditions, the repetitions made under them count, and no others.
			if tt.want == nil {
				return
			}
			d, _, _ = open(next)
			writeEvents(t, d, d.description.last().Started, benchtest.Join(benchtest.Loaded("a.gguf"), benchtest.Begun(runTG, 0, 0)))
			d.Close()
			d, _, got = open(next)
			if diff := cmp.Diff([]string{""}, got); diff != "" {
				t.Errorf("repetitions of the first conditions count (-want +got):\n%s", diff)
			}
			d.Close()
		})
	}
}

// A run is not continued where its records would be of two machines, and a refusal
// changes nothing. Without records the run moves.
func TestOtherMachine(t *testing.T) {
	quietLog(t)
	arm := here(func(f *host.Facts) { f.Arch, f.CPU.Model = "arm64", "Neoverse" })
	about := twoModels()
	about.Host = here(nil)
	path := writeRun(t, about, benchtest.Join(benchtest.Loaded("a.gguf"), benchtest.Begun(runPP, 0, 2), benchtest.Done(runPP, result.OK), benchtest.Begun(runTG, 0, 1)))
	before, err := os.ReadFile(filepath.Join(path, "run.json"))
	if err != nil {
		t.Fatal(err)
	}
	_, _, _, err = Open(path, spanOn(arm))
	if want := path + ": the run is of another machine: architecture: amd64, now arm64; CPU: AMD EPYC, now Neoverse"; !errors.Is(err, ErrMachine) || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if after, err := os.ReadFile(filepath.Join(path, "run.json")); err != nil || !bytes.Equal(before, after) {
		t.Errorf("run.json changed, %v", err)
	}

	path = writeRun(t, about, benchtest.Join(benchtest.Loaded("a.gguf"), benchtest.Begun(runPP, 0, 1)))
	d, moved, left, err := Open(path, spanOn(arm))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, begun := told(left); begun != nil || moved.Host.Arch != "arm64" || len(left.Jobs[0].Warnings) > 0 {
		t.Errorf("begun %v on %s, warnings %v", begun, moved.Host.Arch, left.Jobs[0].Warnings)
	}
}

// Threads need CPUs.
func TestTooFewCPUs(t *testing.T) {
	quietLog(t)
	for _, tt := range []struct {
		now  func(*host.Facts)
		cpus []int
		want string
	}{
		{func(f *host.Facts) { f.CPU.AllowedCPUs, f.CPU.AllowedList = 1, "1" }, nil, "the run needs CPUs that this process may not use: it has 2 threads, and this process may use 1 CPU"},
		{func(f *host.Facts) { f.CPU.AllowedList = "2-3" }, []int{2, 0}, "the run needs CPUs that this process may not use: CPU 0"},
	} {
		about := twoModels()
		about.Host, about.Jobs[0].Settings.CPUs = here(nil), tt.cpus
		path := writeRun(t, about, nil)
		if _, _, _, err := Open(path, spanOn(here(tt.now))); !errors.Is(err, ErrCPUs) || !strings.HasSuffix(err.Error(), tt.want) {
			t.Errorf("got %v, want %s", err, tt.want)
		}
	}
}
