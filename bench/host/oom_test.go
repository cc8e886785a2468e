package host

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// The /proc lines of a machine with one version of control groups.
const (
	groupV2 = `-- proc/7/cgroup --
0::/run/inner
-- proc/7/mountinfo --
30 29 0:25 / /sys/fs/cgroup rw,nosuid,nodev - cgroup2 cgroup2 rw
`
	groupV1 = `-- proc/7/cgroup --
12:memory:/docker/abc/inner
4:cpu,cpuacct:/docker/abc
0::/
-- proc/7/mountinfo --
29 25 0:24 / /sys/fs/cgroup ro,nosuid,nodev - tmpfs tmpfs ro,mode=755
30 29 0:25 / /sys/fs/cgroup/unified rw,nosuid,nodev - cgroup2 cgroup2 rw
32 29 0:30 /docker/abc /sys/fs/cgroup/memory ro,nosuid,nodev - cgroup cgroup rw,memory
`
	vmstat = `-- proc/vmstat --
nr_free_pages 5
oom_kill 7
oom_kill_process 9
`
	events = `low 0
high 3
max 5
oom 4
oom_kill 2
oom_group_kill 1
`
	control = `oom_kill_disable 0
under_oom 0
oom_kill 3
`
)

func TestOOMKills(t *testing.T) {
	for _, tt := range []struct {
		name, tree string
		want       uint64
		ok         bool
	}{
		{"version 2", groupV2 + vmstat + "-- sys/fs/cgroup/run/inner/memory.events --\n" + events, 2, true},
		{"version 2, above", groupV2 + vmstat + "-- sys/fs/cgroup/run/memory.events --\n" + events, 2, true},
		{
			"version 2, the nearest",
			groupV2 + "-- sys/fs/cgroup/run/inner/memory.events --\noom_kill 0\n-- sys/fs/cgroup/run/memory.events --\n" + events, 0, true,
		},
		{"version 2, the root has none", groupV2 + vmstat, 7, true},
		{"version 1", groupV1 + vmstat + "-- sys/fs/cgroup/memory/inner/memory.oom_control --\n" + control, 3, true},
		{"version 1, above", groupV1 + vmstat + "-- sys/fs/cgroup/memory/memory.oom_control --\n" + control, 3, true},
		{
			"version 1 of an old kernel",
			groupV1 + vmstat + "-- sys/fs/cgroup/memory/inner/memory.oom_control --\noom_kill_disable 0\nunder_oom 0\n", 7, true,
		},
		{"no control groups", vmstat, 7, true},
		{"nothing", "-- proc/stat --\ncpu 1 2 3 4\n", 0, false},
		{"nothing but words", "-- proc/vmstat --\noom_kill\noom_kill many\noom_kill -1\n", 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			if err := txtar.Write(txtar.Parse([]byte(tt.tree)), root); err != nil {
				t.Fatal(err)
			}
			if err := os.MkdirAll(filepath.Join(root, "proc", "7"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink("7", filepath.Join(root, "proc", "self")); err != nil {
				t.Fatal(err)
			}
			if got, ok := OOMKills(root); got != tt.want || ok != tt.ok {
				t.Errorf("%d, %v; want %d, %v", got, ok, tt.want, tt.ok)
			}
		})
	}
}

// Linux counts kills since 4.13.
func TestOOMKillsOfThisMachine(t *testing.T) {
	if _, err := os.Stat("/proc/vmstat"); err != nil {
		return // not Linux
	}
	if _, ok := OOMKills("/"); !ok {
		t.Error("not known here")
	}
}
