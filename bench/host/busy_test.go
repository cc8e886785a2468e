package host

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// calmMachine has two CPUs, and this process with id 7 and its child 8.
var calmMachine = map[string]string{
	"proc/7/status":                        "Cpus_allowed_list:\t0-1\n",
	"proc/7/stat":                          stat(7, "benchmark-llm", 1, 10),
	"proc/7/cmdline":                       "benchmark-llm\x00run\x00",
	"proc/8/stat":                          stat(8, "benchmark-llm", 7, 10),
	"proc/8/cmdline":                       "benchmark-llm\x00worker\x00--log-level\x00INFO\x00",
	"proc/20/stat":                         stat(20, "a (b) c", 1, 5),
	"proc/20/cmdline":                      "",
	"proc/30/stat":                         stat(30, "unattended-upgr", 1, 3),
	"proc/30/cmdline":                      "python3\x00/usr/share/unattended-upgrades/unattended-upgrade-shutdown\x00--wait-for-signal\x00",
	"proc/stat":                            "cpu0 100 0 0 100 0 0 0 0 0 0\ncpu1 100 0 0 100 0 0 0 0 0 0\n",
	"proc/pressure/cpu":                    "some avg10=3.00 avg60=90.00 avg300=90.00 total=1\n",
	"proc/pressure/memory":                 "some avg10=0.00 avg60=0.00 avg300=0.00 total=1\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1\n",
	"proc/locks":                           "1: FLOCK  ADVISORY  WRITE 1 00:19:1 0 EOF\n",
	"var/lib/dpkg/lock":                    "",
	"sys/class/thermal/thermal_zone0/type": "x86_pkg_temp\n",
	"sys/class/thermal/thermal_zone0/temp": "55000\n",
	"sys/class/thermal/thermal_zone0/trip_point_0_type": "passive\n",
	"sys/class/thermal/thermal_zone0/trip_point_0_temp": "95000\n",
	"sys/class/thermal/thermal_zone0/trip_point_1_type": "active\n",
	"sys/class/thermal/thermal_zone0/trip_point_1_temp": "40000\n", // the fan
}

// stat is the line of a process that has used ticks of CPU time.
func stat(pid int, name string, parent, ticks int) string {
	return fmt.Sprintf("%d (%s) S %d 1 1 0 -1 0 0 0 0 0 %d 0 0 0 20 0 1 0 1 1 1\n", pid, name, parent, ticks)
}

func TestBusy(t *testing.T) {
	for _, tc := range []struct {
		name    string
		changes map[string]string // within a second
		want    []Disturbance
	}{
		{"calm", map[string]string{"proc/stat": "cpu0 110 0 0 190 0 0 0 0 0 0\ncpu1 110 0 0 190 0 0 0 0 0 0\n"}, nil},
		{"this program itself", map[string]string{
			"proc/stat":   "cpu0 200 0 0 100 0 0 0 0 0 0\ncpu1 200 0 0 100 0 0 0 0 0 0\n",
			"proc/7/stat": stat(7, "benchmark-llm", 1, 110), "proc/8/stat": stat(8, "benchmark-llm", 7, 100),
		}, nil},
		{"other processes", map[string]string{
			"proc/stat":    "cpu0 190 0 0 100 0 0 0 0 0 0\ncpu1 150 0 0 150 0 0 0 0 0 0\n",
			"proc/20/stat": stat(20, "a (b) c", 1, 75), "proc/21/stat": stat(21, "new", 1, 20), "proc/22/stat": stat(22, "compile", 20, 30), "proc/23/stat": stat(23, "small", 1, 1),
		}, []Disturbance{{BusyProcesses, "other processes use 1.4 of 2 CPUs: a (b) c (0.7), compile (0.3), new (0.2)"}}},
		{"processes of other containers", map[string]string{
			"proc/stat": "cpu0 200 0 0 100 0 0 0 0 0 0\ncpu1 100 0 0 200 0 0 0 0 0 0\n",
		}, []Disturbance{{BusyProcesses, "other processes use 1.0 of 2 CPUs"}}},
		{"another run", map[string]string{
			"proc/40/stat": stat(40, "bench", 1, 0), "proc/40/cmdline": "/opt/bench\x00worker\x00--log-level\x00INFO\x00",
		}, []Disturbance{{BusyOtherRun, "another run of this program measures (process 40)"}}},
		{"other runs", map[string]string{
			"proc/40/stat": stat(40, "bench", 1, 0), "proc/40/cmdline": "/opt/bench\x00worker\x00--log-level\x00INFO\x00",
			"proc/41/stat": stat(41, "bench", 1, 0), "proc/41/cmdline": "/opt/bench\x00worker\x00--log-level\x00INFO\x00",
		}, []Disturbance{{BusyOtherRun, "2 other runs of this program measure (processes 40, 41)"}}},
		{"an upgrade", map[string]string{
			"proc/41/stat": stat(41, "unattended-upgr", 1, 0), "proc/41/cmdline": "python3\x00/usr/bin/unattended-upgrade\x00",
		}, []Disturbance{{BusyPackages, "unattended-upgr installs or upgrades packages"}}},
		{"pressure", map[string]string{
			"proc/pressure/cpu":    "some avg10=82.00 avg60=0.00 avg300=0.00 total=1\n",
			"proc/pressure/memory": "some avg10=20.00 avg60=0.00 avg300=0.00 total=1\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1\n",
		}, []Disturbance{
			{BusyPressure, "processes waited for a CPU in 82 % of the last 10 s"},
			{BusyMemory, "processes waited for memory in 20 % of the last 10 s"},
		}},
		{"heat", map[string]string{"sys/class/thermal/thermal_zone0/temp": "96000\n"}, []Disturbance{
			{BusyHot, "sensor x86_pkg_temp is at 96 °C, and CPUs slow down from 95 °C"},
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := open(calm7(t))
			before := m.look()
			madeUp(t, m.root, tc.changes)
			now := m.look()
			now.at = before.at.Add(time.Second)
			if diff := cmp.Diff(tc.want, m.busy(before, now)); diff != "" {
				t.Errorf("disturbances (-want +got):\n%s", diff)
			}
		})
	}
}

// calm7 makes the calm machine.
func calm7(t *testing.T) (root string) {
	t.Helper()
	root = t.TempDir()
	madeUp(t, root, calmMachine)
	if err := os.Symlink("7", filepath.Join(root, "proc", "self")); err != nil {
		t.Fatal(err)
	}
	return root
}

// A locked lock file shows an upgrade, whatever the process is called.
func TestBusyLock(t *testing.T) {
	root := calm7(t)
	info, err := os.Stat(filepath.Join(root, "var/lib/dpkg/lock"))
	if err != nil {
		t.Fatal(err)
	}
	inode := info.Sys().(*syscall.Stat_t).Ino
	for _, tc := range []struct {
		locks string
		want  []Disturbance
	}{
		{"2: POSIX  ADVISORY  WRITE 99 fe:00:%d 0 EOF\n", []Disturbance{{BusyPackages, "the holder of /var/lib/dpkg/lock installs or upgrades packages"}}},
		{"2: POSIX  ADVISORY  READ 99 fe:00:%d 0 EOF\n", nil},
		{"2: -> POSIX  ADVISORY  WRITE 99 fe:00:%d 0 EOF\n", nil},
	} {
		madeUp(t, root, map[string]string{"proc/locks": "1: FLOCK  ADVISORY  WRITE 1 00:19:1 0 EOF\n" + fmt.Sprintf(tc.locks, inode)})
		if diff := cmp.Diff(tc.want, Busy(t.Context(), root)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", tc.locks, diff)
		}
	}
}

// WaitQuiet tells once what it waits for, and returns when that is over, when its limit
// ends, or when its context ends.
func TestWaitQuiet(t *testing.T) {
	hot := []Disturbance{{BusyHot, "sensor x86_pkg_temp is at 96 °C, and CPUs slow down from 95 °C"}}
	for _, tc := range []struct {
		name   string
		coolAt time.Duration // 0: never
		stopAt time.Duration // 0: never
		limit  time.Duration
		takes  time.Duration // at least
		want   []Disturbance
	}{
		{"passes", 30 * time.Second, 0, 2 * time.Minute, 30 * time.Second, nil},
		{"does not pass", 0, 0, 2 * time.Minute, 2 * time.Minute, hot},
		{"is interrupted", 0, 10 * time.Second, 2 * time.Minute, 10 * time.Second, hot},
		{"has no time", 0, 0, -time.Second, 0, hot},
	} {
		t.Run(tc.name, func(t *testing.T) {
			root := calm7(t)
			madeUp(t, root, map[string]string{"sys/class/thermal/thermal_zone0/temp": "96000\n"})
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if tc.coolAt > 0 {
					time.AfterFunc(tc.coolAt, func() {
						_ = os.WriteFile(filepath.Join(root, "sys/class/thermal/thermal_zone0/temp"), []byte("60000\n"), 0o644)
					})
				}
				if tc.stopAt > 0 {
					time.AfterFunc(tc.stopAt, cancel)
				}
				start := time.Now()
				var told [][]Disturbance
				got := WaitQuiet(ctx, root, tc.limit, func(d []Disturbance) { told = append(told, d) })
				if diff := cmp.Diff(tc.want, got); diff != "" {
					t.Errorf("left (-want +got):\n%s", diff)
				}
				if took := time.Since(start); took < tc.takes || took > tc.takes+2*time.Second {
					t.Errorf("took %v, want %v", took, tc.takes)
				}
				if diff := cmp.Diff([][]Disturbance{hot}, told); diff != "" {
					t.Errorf("told (-want +got):\n%s", diff)
				}
			})
		})
	}
	if found := WaitQuiet(t.Context(), calm7(t), time.Minute, func(d []Disturbance) { t.Errorf("told %v", d) }); found != nil {
		t.Errorf("a calm machine: %v", found)
	}
}
