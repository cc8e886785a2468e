package host

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench/gpu"
)

// Every fact that changes speed is compared, and only another machine counts as one.
func TestDifferences(t *testing.T) {
	nice := func(n int) *int { return &n }
	quota := func(n float64) *float64 { return &n }
	facts := func(change func(*Facts)) Facts {
		f := Facts{
			Arch: "amd64",
			CPU: CPU{
				Model: "AMD EPYC", Sockets: 1, PhysicalCores: 2, LogicalCPUs: 4, AllowedCPUs: 4, AllowedList: "0-3",
				Features: []string{"avx2"}, Governors: []string{"performance"},
			},
			Memory:         Memory{TotalBytes: 100 << 30, HugePages: "madvise"},
			GPUs:           []gpu.Facts{{Model: "NVIDIA L4", Driver: "nvidia", DriverVersion: "550"}},
			Virtualization: Virtualization{Hypervisor: "KVM", System: "Acme c1"},
			Kernel:         "6.1", OS: "Debian 12",
			Environment: map[string]string{"OMP_NUM_THREADS": "2", "GGML_X": "a"},
			Nice:        nice(0), Build: "0123",
		}
		if change != nil {
			change(&f)
		}
		return f
	}
	for _, tt := range []struct {
		name   string
		change func(*Facts)
		want   []Difference
	}{
		{"nothing", nil, nil},
		{"nothing is known", func(f *Facts) { *f = Facts{Environment: f.Environment} }, nil},
		{"architecture", func(f *Facts) { f.Arch = "arm64" }, []Difference{{"architecture", "amd64", "arm64", true}}},
		{"CPU", func(f *Facts) { f.CPU.Model = "Xeon" }, []Difference{{"CPU", "AMD EPYC", "Xeon", true}}},
		{"cores", func(f *Facts) { f.CPU.LogicalCPUs = 2 }, []Difference{{"cores", "sockets 1, cores 2, CPUs 4", "sockets 1, cores 2, CPUs 2", true}}},
		{"memory", func(f *Facts) { f.Memory.TotalBytes /= 2 }, []Difference{{"memory", "100 GiB", "50 GiB", true}}},
		{"memory after another start", func(f *Facts) { f.Memory.TotalBytes -= 1 << 30 }, nil},
		{"GPU gone", func(f *Facts) { f.GPUs = nil }, []Difference{{"GPUs", "NVIDIA L4", "none", true}, {"GPU driver", "nvidia 550", "none", false}}},
		{"driver", func(f *Facts) { f.GPUs[0].DriverVersion = "560" }, []Difference{{"GPU driver", "nvidia 550", "nvidia 560", false}}},
		{"driver fails", func(f *Facts) { f.NVMLProblem = "mismatch" }, []Difference{{"problem of the GPU driver", "none", "mismatch", false}}},
		{"quota", func(f *Facts) { f.CPU.QuotaCPUs = quota(1.5) }, []Difference{{"CPU quota", "none", "1.5 CPUs", false}}},
		{"memory limit", func(f *Facts) { f.Memory.LimitBytes = 1 << 30 }, []Difference{{"memory limit", "none", "1.0 GiB", false}}},
		{"container", func(f *Facts) { f.Virtualization.Container = "docker" }, []Difference{{"container", "none", "docker", false}}},
		{"hypervisor", func(f *Facts) { f.Virtualization.Hypervisor = "Xen" }, []Difference{{"hypervisor", "KVM", "Xen", true}}},
		{"system", func(f *Facts) { f.Virtualization.System = "Acme c2" }, []Difference{{"system", "Acme c1", "Acme c2", true}}},
		{"allowed CPUs", func(f *Facts) { f.CPU.AllowedList = "1" }, []Difference{{"allowed CPUs", "0-3", "1", false}}},
		{"instruction sets", func(f *Facts) { f.CPU.Features = []string{"avx"} }, []Difference{{"instruction sets", "avx2", "avx", false}}},
		{"governors", func(f *Facts) { f.CPU.Governors = []string{"powersave"} }, []Difference{{"governors", "performance", "powersave", false}}},
		{"huge pages", func(f *Facts) { f.Memory.HugePages = "never" }, []Difference{{"transparent huge pages", "madvise", "never", false}}},
		{"niceness", func(f *Facts) { f.Nice = nice(10) }, []Difference{{"niceness", "0", "10", false}}},
		{"kernel", func(f *Facts) { f.Kernel = "6.2" }, []Difference{{"kernel", "6.1", "6.2", false}}},
		{"operating system", func(f *Facts) { f.OS = "Debian 13" }, []Difference{{"operating system", "Debian 12", "Debian 13", false}}},
		{"files", func(f *Facts) { f.Build = "4567" }, []Difference{{"files of the program and the library", "0123", "4567", false}}},
		{"variables", func(f *Facts) { f.Environment = map[string]string{"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": ""} }, []Difference{
			{"variable GGML_X", `"a"`, "not set", false}, {"variable MALLOC_ARENA_MAX", "not set", `""`, false}, {"variable OMP_NUM_THREADS", `"2"`, `"1"`, false},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, facts(tt.change).Differences(facts(nil))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestAllows(t *testing.T) {
	for list, want := range map[string]bool{"": true, "0-3": true, "0,2": true, "3": false, "0-1,4-7": false} {
		if got := (CPU{AllowedList: list}).Allows(2); got != want {
			t.Errorf("%q: %t, want %t", list, got, want)
		}
	}
	if got := ranges([]uint64{0, 1, 2, 5, 7, 8}); got != "0-2,5,7-8" {
		t.Errorf("got %q", got)
	}
}

// The fingerprint is that of the program's and the library's files, and of nothing else.
func TestBuild(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, time.Time{}, time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	exe, llama := file("benchmark-llm", "1"), file("lib/libllama.so.0", "1")
	backend, other := file("lib/ggml/backends0/libggml-cpu-x64.so", "1"), file("lib/libc.so.6", "1")
	file("self/maps", "7f00-7f01 r-xp 00000000 00:00 1    "+llama+"\n7f00-7f01 r-xp 00000000 00:00 1    "+other+"\n7f00-7f01 rw-p 0 0 0\n")
	if err := os.Symlink(exe, filepath.Join(dir, "self/exe")); err != nil {
		t.Fatal(err)
	}
	before := build(filepath.Join(dir, "self"))
	if len(before) != 16 {
		t.Fatalf("fingerprint %q", before)
	}
	for path, changes := range map[string]bool{exe: true, llama: true, backend: true, other: false} {
		name, _ := filepath.Rel(dir, path)
		file(name, "22")
		if got := build(filepath.Join(dir, "self")); (got != before) != changes {
			t.Errorf("%s changed: fingerprint %s, before %s", name, got, before)
		}
		file(name, "1")
	}
	if got := build(filepath.Join(dir, "none")); got != "" {
		t.Errorf("without a process: %q", got)
	}
}
