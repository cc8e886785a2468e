package host

import (
	"encoding/json"
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/sparecores/benchmark-llm/bench/result"
)

var update = flag.Bool("update", false, "write the golden files anew")

// tree unpacks a made-up machine. Its own process has id 7.
func tree(t *testing.T, path string) (root string) {
	t.Helper()
	archive, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	root = t.TempDir()
	if err := txtar.Write(archive, root); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("7", filepath.Join(root, "proc", "self")); err != nil {
		t.Fatal(err)
	}
	return root
}

// The golden files hold the known facts of each made-up machine, and no others.
func TestMachines(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no machines: %v", err)
	}
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".txtar")
		t.Run(name, func(t *testing.T) {
			root := tree(t, path)
			facts := Collect(root)
			facts.Arch = "" // that of the test
			got, err := json.MarshalIndent(struct {
				Facts      Facts
				Conditions Conditions
			}{facts, Observe(root)}, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", name+".json")
			if *update {
				if err := os.WriteFile(golden, append(got, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)+"\n"); diff != "" {
				t.Errorf("(-want +got; -update accepts)\n%s", diff)
			}
		})
	}
}

// Missing files give no facts, not zeros, and no failure.
func TestNothingToRead(t *testing.T) {
	for name, root := range map[string]string{
		"empty":   t.TempDir(),
		"missing": filepath.Join(t.TempDir(), "nowhere"),
		"pattern": filepath.Join(t.TempDir(), "["),
	} {
		t.Run(name, func(t *testing.T) {
			want := Facts{Arch: runtime.GOARCH, CPU: CPU{Threads: runtime.NumCPU()}}
			if diff := cmp.Diff(want, Collect(root)); diff != "" {
				t.Errorf("facts (-want +got)\n%s", diff)
			}
			if diff := cmp.Diff(Conditions{}, Observe(root)); diff != "" {
				t.Errorf("conditions (-want +got)\n%s", diff)
			}
		})
	}
}

// Files with invalid content count as missing.
func TestNonsense(t *testing.T) {
	machines, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, nonsense := range []string{"", "\n", ":", "-1", "-1 -1", "99999999999999999999 0", "some avg10=x", "0::\n1:cpu\n", "\x00\xff"} {
		for _, path := range machines {
			root := tree(t, path)
			err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
				if err != nil || !d.Type().IsRegular() {
					return err
				}
				return os.WriteFile(path, []byte(nonsense), 0o644)
			})
			if err != nil {
				t.Fatal(err)
			}
			facts, conditions := Collect(root), Observe(root)
			if facts.CPU.Threads < 1 {
				t.Errorf("%s of %q: %d threads", path, nonsense, facts.CPU.Threads)
			}
			if facts.CPU.QuotaCPUs != nil || facts.Memory.LimitBytes != 0 || len(facts.CPU.Caches) != 0 {
				t.Errorf("%s of %q: limits or caches out of nothing: %+v", path, nonsense, facts)
			}
			if conditions.CPUPressure != nil {
				t.Errorf("%s of %q: pressure %+v", path, nonsense, conditions.CPUPressure)
			}
			if _, err := json.Marshal(conditions); err != nil {
				t.Error(err)
			}
			m := NewMeter(root, nil)
			m.Worker(7)
			m.Begin(result.PromptProcessing)
			if c := m.Burst(); c.OtherCPU != nil || c.CPUWait != nil || c.FrequencyMHz != nil {
				t.Errorf("%s of %q: conditions out of nothing: %+v", path, nonsense, c)
			}
			m.Close()
			at := open(root)
			if found := at.busy(at.look(), at.look()); found != nil {
				t.Errorf("%s of %q: busy with %v", path, nonsense, found)
			}
		}
	}
}

// This machine has the facts that every machine has.
func TestThisMachine(t *testing.T) {
	f := Collect("/")
	if n := DefaultThreads(); n < 1 || n > runtime.NumCPU() || n != f.CPU.Threads {
		t.Errorf("%d default threads, %d in the facts, on %d CPUs", n, f.CPU.Threads, runtime.NumCPU())
	}
	if _, err := os.Stat("/proc/meminfo"); errors.Is(err, fs.ErrNotExist) {
		return // not Linux
	}
	if f.Memory.TotalBytes == 0 || f.Kernel == "" {
		t.Errorf("memory or kernel unknown: %+v", f)
	}
	before, after := Observe("/"), Observe("/")
	if share, _ := after.StealShare(before); share < 0 || share > 1 {
		t.Errorf("steal share %g", share)
	}
}

func TestStealShare(t *testing.T) {
	at := func(total, idle, steal float64) Conditions {
		return Conditions{CPUTime: &CPUTime{TotalSeconds: total, IdleSeconds: idle, StealSeconds: steal}}
	}
	for name, test := range map[string]struct {
		before, after Conditions
		share         float64
		ok            bool
	}{
		"some":           {at(100, 50, 1), at(120, 60, 2), 0.1, true},
		"none":           {at(100, 50, 1), at(120, 60, 1), 0, true},
		"all":            {at(100, 50, 1), at(110, 50, 11), 1, true},
		"counter back":   {at(100, 50, 1), at(120, 60, 0.5), 0, true},
		"idle":           {at(100, 50, 1), at(120, 70, 1), 0, false},
		"same moment":    {at(100, 50, 1), at(100, 50, 1), 0, false},
		"unknown before": {Conditions{}, at(100, 50, 1), 0, false},
		"unknown after":  {at(100, 50, 1), Conditions{}, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			share, ok := test.after.StealShare(test.before)
			if ok != test.ok || !cmp.Equal(share, test.share, cmpopts.EquateApprox(1e-12, 0)) {
				t.Errorf("StealShare = %g, %t, want %g, %t", share, ok, test.share, test.ok)
			}
		})
	}
}

// The caches of the last level count, all of them.
func TestLargestCache(t *testing.T) {
	for want, caches := range map[uint64][]Cache{
		0:        nil,
		64 << 20: {{Level: 1, SizeBytes: 1 << 10, Instances: 8}, {Level: 3, SizeBytes: 32 << 20, Instances: 2}, {Level: 2, SizeBytes: 1 << 20, Instances: 8}},
		2 << 20:  {{Level: 2, SizeBytes: 1 << 20}, {Level: 2, SizeBytes: 1 << 20, Instances: 1}},
	} {
		if got := (CPU{Caches: caches}).LargestCacheBytes(); got != want {
			t.Errorf("%v: %d bytes, want %d", caches, got, want)
		}
	}
}
