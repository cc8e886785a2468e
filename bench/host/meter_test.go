package host

import (
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// before is a machine of two CPUs, 0 and 1, whose worker has process id 9.
var before = map[string]string{
	"proc/7/status":                                                               "Name:\tx\nCpus_allowed_list:\t0-1\n",
	"proc/7/cgroup":                                                               "0::/a/b\n",
	"proc/7/mountinfo":                                                            "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
	"proc/stat":                                                                   "cpu  0 0 0 0 0 0 0 0 0 0\ncpu0 100 1 10 500 5 1 1 7 0 0\ncpu1 100 0 10 500 0 0 0 3 0 0\ncpu2 0 0 0 0 0 0 0 0 0 0\nintr 5\n",
	"proc/pressure/cpu":                                                           "some avg10=0.00 avg60=0.00 avg300=0.00 total=1000000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
	"proc/pressure/memory":                                                        "some avg10=0.00 avg60=0.00 avg300=0.00 total=99\n",
	"proc/pressure/io":                                                            "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
	"proc/vmstat":                                                                 "pswpin 5\npswpout 6\n",
	"proc/9/stat":                                                                 "9 (a b) c) S 1 1 1 0 -1 0 1000 0 20 0 50 10 0 0 20 0 3 0 1 1 1\n",
	"proc/9/status":                                                               "Name:\tworker\nVmSwap:\t     4 kB\n",
	"proc/9/task/9/schedstat":                                                     "1000 500000000 5\n",
	"proc/9/task/10/schedstat":                                                    "1000 0 5\n",
	"sys/fs/cgroup/a/b/cpu.stat":                                                  "usage_usec 5\nnr_periods 10\nnr_throttled 4\nthrottled_usec 100000\n",
	"sys/fs/cgroup/a/cpu.stat":                                                    "usage_usec 5\nnr_periods 10\nnr_throttled 1\nthrottled_usec 0\n",
	"sys/fs/cgroup/cpu.stat":                                                      "usage_usec 5\n",
	"sys/fs/cgroup/a/b/memory.pressure":                                           "some avg10=0.00 avg60=0.00 avg300=0.00 total=7\n",
	"sys/fs/cgroup/a/b/memory.events":                                             "low 0\nhigh 3\nmax 1\noom 0\noom_kill 0\n",
	"sys/fs/cgroup/a/memory.events":                                               "low 0\nhigh 300\nmax 1\noom 0\noom_kill 0\n",
	"sys/fs/cgroup/a/memory.events.local":                                         "low 0\nhigh 2\nmax 0\noom 0\noom_kill 0\n",
	"sys/devices/system/node/node0/numastat":                                      "numa_hit 5\nnuma_miss 1\n",
	"sys/devices/system/node/node1/numastat":                                      "numa_hit 5\nnuma_miss 2\n",
	"sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq":                        "3000000\n",
	"sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq":                        "2000000\n",
	"sys/devices/system/cpu/cpu0/cpufreq/base_frequency":                          "2000000\n",
	"sys/devices/system/cpu/cpu0/topology/thread_siblings_list":                   "0-1\n",
	"sys/devices/system/cpu/cpu1/topology/thread_siblings_list":                   "0-1\n",
	"sys/devices/system/cpu/cpu0/topology/physical_package_id":                    "0\n",
	"sys/devices/system/cpu/cpu1/topology/physical_package_id":                    "0\n",
	"sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count":            "10\n",
	"sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count":            "10\n", // the same core
	"sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count":         "3\n",
	"sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_total_time_ms":    "100\n",
	"sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_total_time_ms": "50\n",
}

// quiet is what a second does that only the worker uses, on both CPUs.
var quiet = map[string]string{
	"proc/stat":   "cpu  0 0 0 0 0 0 0 0 0 0\ncpu0 200 1 10 500 5 1 1 7 0 0\ncpu1 200 0 10 500 0 0 0 3 0 0\ncpu2 0 0 0 0 0 0 0 0 0 0\nintr 5\n",
	"proc/9/stat": "9 (a b) c) R 1 1 1 0 -1 0 1010 0 20 0 250 10 0 0 20 0 3 0 1 1 1\n",
}

// madeUp writes the files of a machine. Content of a file is replaced in place, as
// the kernel does.
func madeUp(t testing.TB, root string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// A moment is a change of the machine and of its clocks, relative to the start.
type moment struct {
	files               map[string]string
	monotonic, wall, up time.Duration
}

// window returns the conditions between the machine without and the machine as it is
// after each moment.
func window(t *testing.T, cpus []int, without []string, moments ...moment) []*result.Conditions {
	t.Helper()
	root := t.TempDir()
	files := maps.Clone(before)
	for _, name := range without {
		delete(files, name)
	}
	madeUp(t, root, files)
	if err := os.Symlink("7", filepath.Join(root, "proc", "self")); err != nil {
		t.Fatal(err)
	}
	now := moment{wall: 50 * time.Hour, up: 10 * time.Hour, monotonic: 9 * time.Hour}
	start := now
	m := NewMeter(root, cpus)
	defer m.Close()
	m.Clock = func() Clock { return Clock{Monotonic: now.monotonic, Realtime: new(now.wall), Boottime: new(now.up)} }
	m.patience = time.Hour
	m.Worker(9)
	m.Begin(result.PromptProcessing)
	var all []*result.Conditions
	for _, next := range moments {
		madeUp(t, root, next.files)
		now = moment{monotonic: start.monotonic + next.monotonic, wall: start.wall + next.wall, up: start.up + next.up}
		all = append(all, m.Burst())
	}
	return all
}

func second(files map[string]string) moment {
	return moment{files, time.Second, time.Second, time.Second}
}

// with returns the files of a with changes.
func with(a map[string]string, changes ...string) map[string]string {
	a = maps.Clone(a)
	for i := 0; i < len(changes); i += 2 {
		a[changes[i]] = changes[i+1]
	}
	return a
}

// calm are the conditions of a second in which only the worker runs.
func calm() *result.Conditions {
	zero, none := new(float64), new(uint64)
	return &result.Conditions{
		Seconds: 1, CPUs: 2,
		OtherCPU: zero, OtherCPUResolution: new(0.028284), CPUWait: zero, Steal: zero, Throttled: zero, ThrottledPeriods: none,
		CPUPressure: zero, MemoryPressure: zero, IOPressure: zero, MemoryLimit: none, MajorFaults: none, MinorFaults: new(uint64(10)),
		SwapIn: none, SwapOut: none, SwappedBytes: new(uint64(4096)), NUMAMisses: none,
		FrequencyMHz: new(2500.0), ReferenceMHz: new(2500.0), ThermalThrottles: none, ThermalSeconds: zero, ClockStep: zero, Suspended: zero,
	}
}

func TestMeter(t *testing.T) {
	for _, tc := range []struct {
		name    string
		cpus    []int
		without []string
		moment  moment
		want    func(c *result.Conditions)
	}{
		{"quiet", nil, nil, second(quiet), func(*result.Conditions) {}},
		{
			"another process on one CPU", nil, nil,
			second(with(quiet,
				"proc/9/stat", "9 (w) R 1 1 1 0 -1 0 1010 0 20 0 200 10 0 0 20 0 3 0 1 1 1\n",
				"proc/9/task/9/schedstat", "500001000 1000000000 5\n")),
			func(c *result.Conditions) { c.OtherCPU, c.CPUWait = new(0.5), new(0.5) },
		},
		{
			"a CPU that the test may not use", []int{0}, nil,
			second(with(quiet,
				"proc/stat", "cpu0 200 1 10 500 5 1 1 7 0 0\ncpu1 900 0 10 500 0 0 0 3 0 0\n",
				"proc/9/stat", "9 (w) R 1 1 1 0 -1 0 1010 0 20 0 150 10 0 0 20 0 3 0 1 1 1\n")),
			func(c *result.Conditions) {
				c.CPUs, c.OtherCPUResolution = 1, new(0.02)
				c.FrequencyMHz, c.ReferenceMHz = new(3000.0), new(3000.0)
			},
		},
		{
			"steal", nil, nil,
			second(with(quiet,
				"proc/stat", "cpu0 170 1 10 500 5 1 1 37 0 0\ncpu1 180 0 10 500 0 0 0 23 0 0\n",
				"proc/9/stat", "9 (w) R 1 1 1 0 -1 0 1010 0 20 0 200 10 0 0 20 0 3 0 1 1 1\n")),
			func(c *result.Conditions) { c.Steal = new(0.5) },
		},
		{
			"busy ticks count less than the time that was not idle", nil, nil,
			second(with(quiet, "proc/stat", "cpu0 290 1 10 500 5 1 1 7 0 0\ncpu1 290 0 10 500 0 0 0 3 0 0\n")),
			func(*result.Conditions) {},
		},
		{
			"counters step back", nil, nil,
			second(with(quiet,
				"proc/stat", "cpu0 100 1 10 500 0 1 1 5 0 0\ncpu1 100 0 10 400 0 0 0 3 0 0\n",
				"proc/vmstat", "pswpin 1\npswpout 18446744073709551616\n",
				"sys/fs/cgroup/a/b/cpu.stat", "nr_throttled 0\nthrottled_usec 0\n",
				"sys/fs/cgroup/a/cpu.stat", "nr_throttled 0\nthrottled_usec x\n",
				"proc/9/stat", "9 (w) R 1 1 1 0 -1 0 1 0 1 0 1 1 0 0 20 0 3 0 1 1 1\n",
				"proc/9/task/9/schedstat", "1000 4 5\n")),
			func(c *result.Conditions) {
				c.SwapIn, c.SwapOut, c.Throttled, c.ThrottledPeriods, c.MinorFaults, c.MajorFaults = nil, nil, nil, nil, nil, nil
			},
		},
		{
			"a CPU goes offline", nil, nil, second(with(quiet, "proc/stat", "cpu0 200 1 10 500 5 1 1 7 0 0\n")),
			func(c *result.Conditions) { c.CPUs, c.OtherCPU, c.OtherCPUResolution, c.Steal = 1, nil, nil, nil },
		},
		{
			"a new thread waits", nil, nil, second(with(quiet, "proc/9/task/11/schedstat", "100000000 250000000 1\n")),
			func(c *result.Conditions) { c.CPUWait = new(0.25) },
		},
		{
			"a thread that mostly waits", nil, nil, second(with(quiet, "proc/9/task/11/schedstat", "1000 500000000 1\n")),
			func(c *result.Conditions) { c.CPUWait = new(0.5) },
		},
		{
			"a thread that does not compute", nil, nil, second(with(quiet, "proc/9/task/11/schedstat", "1000 400000000 1\n")),
			func(*result.Conditions) {},
		},
		{
			"the kernel does not count waiting", nil, []string{"proc/9/task/9/schedstat", "proc/9/task/10/schedstat"}, second(quiet),
			func(c *result.Conditions) { c.CPUWait = nil },
		},
		{
			"a quota of the group above", nil, nil,
			second(with(quiet, "sys/fs/cgroup/a/cpu.stat", "nr_throttled 9\nthrottled_usec 300000\n", "sys/fs/cgroup/a/b/cpu.stat", "nr_throttled 5\nthrottled_usec 200000\n")),
			func(c *result.Conditions) { c.Throttled, c.ThrottledPeriods = new(0.3), new(uint64(8)) },
		},
		{
			"pressure, faults and swap", nil, nil,
			second(with(quiet,
				"proc/pressure/cpu", "some avg10=0.00 avg60=0.00 avg300=0.00 total=1500000\n",
				"proc/pressure/memory", "some avg10=0.00 avg60=0.00 avg300=0.00 total=99999999\n", // the cgroup's counts
				"proc/pressure/io", "some avg10=0.00 avg60=0.00 avg300=0.00 total=250000\n",
				"sys/fs/cgroup/a/b/memory.pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=125007\n",
				"sys/fs/cgroup/a/b/memory.events", "low 0\nhigh 13\nmax 2\n",
				"sys/fs/cgroup/a/memory.events.local", "low 0\nhigh 7\nmax 0\n",
				"proc/vmstat", "pswpin 15\npswpout 36\n",
				"proc/9/stat", "9 (w) R 1 1 1 0 -1 0 1010 0 70 0 250 10 0 0 20 0 3 0 1 1 1\n",
				"proc/9/status", "VmSwap:\t  12 kB\n",
				"sys/devices/system/node/node1/numastat", "numa_miss 12\n")),
			func(c *result.Conditions) {
				c.CPUPressure, c.IOPressure, c.MemoryPressure, c.MemoryLimit = new(0.5), new(0.25), new(0.125), new(uint64(16))
				c.SwapIn, c.SwapOut, c.SwappedBytes = new(uint64(10)), new(uint64(30)), new(uint64(12288))
				c.MajorFaults, c.NUMAMisses = new(uint64(50)), new(uint64(10))
			},
		},
		{
			"clocks and heat", nil, nil,
			second(with(quiet,
				"sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "900000\n",
				"sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq", "1100000\n",
				"sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count", "12\n",
				"sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count", "12\n",
				"sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count", "4\n",
				"sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_total_time_ms", "600\n")),
			func(c *result.Conditions) {
				c.FrequencyMHz, c.ReferenceMHz = new(1000.0), new(2000.0) // the base frequency: no test was faster
				c.ThermalThrottles, c.ThermalSeconds = new(uint64(3)), new(0.5)
			},
		},
		{"the wall clock is set", nil, nil, moment{quiet, time.Second, 990 * time.Millisecond, time.Second}, func(c *result.Conditions) { c.ClockStep = new(0.01) }},
		{"the machine is suspended", nil, nil, moment{quiet, time.Second, time.Hour, time.Hour}, func(c *result.Conditions) { c.Suspended = new(3599.0) }},
		{
			"nothing but the worker", nil,
			[]string{
				"proc/7/status", "proc/7/cgroup", "proc/stat", "proc/pressure/cpu", "proc/pressure/memory", "proc/pressure/io", "proc/vmstat",
				"sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "sys/devices/system/node/node1/numastat",
			},
			second(nil),
			func(c *result.Conditions) {
				*c = result.Conditions{
					Seconds: 1, CPUWait: new(float64), MajorFaults: new(uint64), MinorFaults: new(uint64), SwappedBytes: new(uint64(4096)),
					ClockStep: new(float64), Suspended: new(float64),
				}
			},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			want := calm()
			tc.want(want)
			got := window(t, tc.cpus, tc.without, tc.moment)
			if diff := cmp.Diff([]*result.Conditions{want}, got); diff != "" {
				t.Errorf("conditions (-want +got):\n%s", diff)
			}
		})
	}
}

// What one window counts too much because of a tick, the next counts less.
func TestMeterTicks(t *testing.T) {
	stat := func(busy, idle string) map[string]string {
		return map[string]string{
			"proc/stat":   "cpu0 " + busy + " 1 10 500 5 1 1 7 0 0\ncpu1 100 0 10 " + idle + " 0 0 0 3 0 0\n",
			"proc/9/stat": "9 (w) R 1 1 1 0 -1 0 1010 0 20 0 150 10 0 0 20 0 3 0 1 1 1\n",
		}
	}
	late, then := stat("196", "600"), stat("304", "692")
	then["proc/9/stat"] = "9 (w) R 1 1 1 0 -1 0 1010 0 20 0 250 10 0 0 20 0 3 0 1 1 1\n"
	got := window(t, nil, nil, second(late), moment{then, 2 * time.Second, 2 * time.Second, 2 * time.Second})
	var other []float64
	for _, c := range got {
		other = append(other, *c.OtherCPU)
	}
	if diff := cmp.Diff([]float64{0, 0.04}, other); diff != "" {
		t.Errorf("CPU time of others (-want +got):\n%s", diff)
	}
}

// The reference is the highest clock of tests of the same kind.
func TestMeterReference(t *testing.T) {
	root := t.TempDir()
	madeUp(t, root, before)
	m := NewMeter(root, []int{0})
	defer m.Close()
	m.patience = time.Hour
	var got []float64
	for _, step := range []struct {
		kind result.Kind
		khz  string
	}{{result.TextGeneration, "3000000"}, {result.PromptProcessing, "2600000"}, {result.PromptProcessing, "2100000"}, {result.TextGeneration, "2900000"}} {
		m.Begin(step.kind)
		madeUp(t, root, map[string]string{"sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": step.khz})
		got = append(got, *m.Burst().ReferenceMHz)
	}
	if diff := cmp.Diff([]float64{3000, 2600, 2600, 3000}, got); diff != "" {
		t.Errorf("reference (-want +got):\n%s", diff)
	}
}

// Clocks that take long to read are not read again. One slow reading may be chance.
func TestMeterSlowClocks(t *testing.T) {
	root := t.TempDir()
	madeUp(t, root, before)
	m := NewMeter(root, []int{0})
	defer m.Close()
	m.patience = 0
	m.Begin(result.TextGeneration)
	var got []bool
	for range 4 {
		got = append(got, m.Burst().FrequencyMHz != nil)
	}
	if diff := cmp.Diff([]bool{true, true, false, false}, got); diff != "" {
		t.Errorf("clocks are known (-want +got):\n%s", diff)
	}
}

// A repetition without a reading before it has no conditions, and a machine without
// files has no facts.
func TestMeterNothing(t *testing.T) {
	m := NewMeter(t.TempDir(), nil)
	m.Clock = func() Clock { return Clock{} }
	defer m.Close()
	m.Worker(9)
	if c := m.Burst(); c != nil {
		t.Errorf("before Begin: %+v", c)
	}
	m.Begin(result.TextGeneration)
	if diff := cmp.Diff(&result.Conditions{}, m.Burst()); diff != "" {
		t.Errorf("conditions (-want +got):\n%s", diff)
	}
}

// This machine tells something, and nothing is negative.
func TestMeterThisMachine(t *testing.T) {
	m := NewMeter("/", nil)
	defer m.Close()
	m.Worker(os.Getpid())
	m.Begin(result.TextGeneration)
	c := m.Burst()
	if c == nil || c.Seconds <= 0 {
		t.Fatalf("%+v", c)
	}
	for _, v := range []*float64{c.OtherCPU, c.CPUWait, c.Steal, c.Throttled, c.ClockStep, c.Suspended} {
		if v != nil && *v < 0 {
			t.Errorf("%g is negative", *v)
		}
	}
}

// BenchmarkMeter measures one reading of this machine. A test has one before its
// repetitions and one after each.
func BenchmarkMeter(b *testing.B) {
	m := NewMeter("/", nil)
	defer m.Close()
	m.Worker(os.Getpid())
	m.Begin(result.TextGeneration)
	for b.Loop() {
		if m.Burst() == nil {
			b.Fatal("nothing was read")
		}
	}
}
