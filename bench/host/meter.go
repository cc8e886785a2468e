package host

import (
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// Meter tells what the machine did during each burst of repetitions of a test. It reads
// counters before the first burst and after each, while the worker waits for its
// parent, and returns their differences. One goroutine uses it.
//
// Its sources, below the root:
//
//   - CPU time: idle, iowait, steal and busy ticks of each CPU in /proc/stat. Busy
//     time is counted twice, by busy ticks and as the time that was not idle; the
//     smaller counts, since ticks are only sampled. The CPU time of this process and
//     of the worker is subtracted: their CPU clocks, else utime and stime of
//     /proc/PID/stat.
//   - Waiting: the second number of /proc/PID/task/*/schedstat, the time that a
//     thread was ready and did not run, in nanoseconds. Threads that do not compute do
//     not count: the test does not wait for them.
//   - Throttling: nr_throttled and throttled_usec (version 2) or throttled_time
//     (version 1) of cpu.stat, in each cgroup from this process's up. The group that
//     was stopped longest counts.
//   - Pressure: "some" of /proc/pressure, or memory.pressure of the cgroup (version 2).
//   - Memory: minflt and majflt of /proc/PID/stat; VmSwap of /proc/PID/status; pswpin
//     and pswpout of /proc/vmstat; high and max of memory.events and, of groups above,
//     memory.events.local (version 2), or memory.failcnt (version 1); numa_miss of
//     /sys/devices/system/node/node*/numastat if there is more than one node.
//   - Clocks of CPUs: scaling_cur_freq and base_frequency of up to eight CPUs, and the
//     counters of thermal_throttle of every core and package, in
//     /sys/devices/system/cpu.
//   - Time: the realtime clock and CLOCK_BOOTTIME against CLOCK_MONOTONIC. NTP slews
//     the realtime and the monotonic clock alike, so only steps show. CLOCK_BOOTTIME
//     goes on while the machine is suspended.
//
// Linux does not count migrations of a virtual machine. A guest that was moved or
// restored often shows steal, a step of the wall clock, or both.
//
// The files are kept open and read again, without procfs, because a reading must be
// short: a worker waits for it. BenchmarkMeter measures one.
type Meter struct {
	// Clock reads the clocks. Tests replace it.
	Clock func() Clock

	m         machine
	files     files
	cpus      []uint64      // that the test may use
	frequency []string      // files of the clocks of some CPUs
	baseMHz   float64       // 0: unknown
	patience  time.Duration // clockLimit
	slow      int           // readings of the clocks in a row that took longer
	counters  []counter

	pid     int // of the worker; 0: none yet
	kind    result.Kind
	last    reading
	debt    time.Duration           // CPU time that the last window counted too much; not positive
	highest map[result.Kind]float64 // clock in MHz
}

// Clock is a reading of clocks. A clock that cannot be read is nil.
type Clock struct {
	Monotonic time.Duration
	Realtime  *time.Duration
	Boottime  *time.Duration
	Own       *time.Duration                      // CPU time of this process
	Process   func(pid int) (time.Duration, bool) // CPU time of another process
}

// counter is a number that grows. Counters of one kind come from several files.
type counter struct {
	kind  counterKind
	path  string
	word  string // before the number on its line; empty: the file holds only the number
	scale uint64 // multiplies the number; 0: 1
}

type counterKind int

const (
	throttledNs counterKind = iota
	throttledPeriods
	cpuPressureUs
	memoryPressureUs
	ioPressureUs
	memoryLimit
	thermalCount
	thermalMs
	swapIn
	swapOut
	numaMisses
)

// reading holds counters at one moment.
type reading struct {
	clock    Clock
	process  *time.Duration // CPU time of the worker
	cpus     map[uint64]ticks
	threads  map[string]scheduled // of the worker, by thread id; nil: unknown
	counters []*uint64            // of Meter.counters
	minor    *uint64
	major    *uint64
	swapped  *uint64
	mhz      *float64
}

// scheduled is the time that a thread ran, and the time that it was ready and did not.
type scheduled struct{ ran, waited time.Duration }

// computes tells whether a thread that was scheduled so within a window computes. Other
// threads of the worker wake up, run for microseconds and sleep again.
func (s scheduled) computes(window time.Duration) bool {
	return s.ran >= window/10 || s.ran+s.waited >= window/2
}

// ticks are the times of one CPU in /proc/stat.
type ticks struct{ idle, steal, busy int64 }

const (
	// tick is the unit of /proc/stat, USER_HZ. It is 1/100 s on all architectures
	// that ggml knows.
	tick = 10 * time.Millisecond
	// clockCPUs is how many CPUs are asked for their clock.
	clockCPUs = 8
	// clockLimit is how long the clocks of all these CPUs may take to read. Some
	// kernels sleep while they measure a clock. After slowReadings in a row that took
	// longer, clocks are not read again.
	clockLimit   = time.Millisecond
	slowReadings = 3
)

// NewMeter returns a meter of the machine whose files lie below root, "/" for this
// one. cpus are the CPUs that the test may use; empty: those that this process may.
// Call Close at the end.
func NewMeter(root string, cpus []int) *Meter {
	m := &Meter{Clock: readClock, m: open(root), files: files{}, patience: clockLimit, highest: map[result.Kind]float64{}}
	if filepath.Clean(root) != "/" {
		m.Clock = func() Clock { c := readClock(); c.Own, c.Process = nil, nil; return c }
	}
	for _, cpu := range cpus {
		m.cpus = append(m.cpus, uint64(cpu))
	}
	if len(m.cpus) == 0 {
		m.cpus = m.m.allowedCPUs()
	}
	m.findClocks()
	m.findCounters()
	return m
}

// findClocks chooses the CPUs whose clock is read, evenly over those of the test.
func (m *Meter) findClocks() {
	for i := range min(clockCPUs, len(m.cpus)) {
		dir := m.m.path("sys/devices/system/cpu/cpu"+strconv.FormatUint(m.cpus[i*len(m.cpus)/min(clockCPUs, len(m.cpus))], 10)+"/cpufreq") + "/"
		m.frequency = append(m.frequency, dir+"scaling_cur_freq")
		if base, err := strconv.ParseFloat(readText(dir+"base_frequency"), 64); err == nil && base > 0 {
			m.baseMHz = max(m.baseMHz, base/1000)
		}
	}
}

func (m *Meter) findCounters() {
	add := func(kind counterKind, path, word string, scale uint64) {
		m.counters = append(m.counters, counter{kind, m.m.path(path), word, scale})
	}
	dirs, v2 := m.m.cgroupDirs("cpu")
	for _, dir := range dirs {
		add(throttledPeriods, dir+"/cpu.stat", "nr_throttled ", 1)
		if v2 {
			add(throttledNs, dir+"/cpu.stat", "throttled_usec ", 1000)
		} else {
			add(throttledNs, dir+"/cpu.stat", "throttled_time ", 1)
		}
	}
	memory := "proc/pressure/memory"
	dirs, v2 = m.m.cgroupDirs("memory")
	for i, dir := range dirs {
		events := "memory.events" // with those of the groups below
		if i > 0 {
			events = "memory.events.local"
		}
		switch {
		case !v2:
			add(memoryLimit, dir+"/memory.failcnt", "", 1)
		default:
			add(memoryLimit, dir+"/"+events, "high ", 1)
			add(memoryLimit, dir+"/"+events, "max ", 1)
		}
		if own := dir + "/memory.pressure"; v2 && i == 0 && m.m.exists(own) {
			memory = own
		}
	}
	add(cpuPressureUs, "proc/pressure/cpu", pressureTotal, 1)
	add(memoryPressureUs, memory, pressureTotal, 1)
	add(ioPressureUs, "proc/pressure/io", pressureTotal, 1)
	add(swapIn, "proc/vmstat", "pswpin ", 1)
	add(swapOut, "proc/vmstat", "pswpout ", 1)
	if nodes := m.m.glob("sys/devices/system/node/node[0-9]*/numastat"); len(nodes) > 1 {
		for _, node := range nodes {
			m.counters = append(m.counters, counter{numaMisses, node, "numa_miss ", 1})
		}
	}
	seen := map[string]bool{}
	for _, cpu := range m.cpus {
		dir := m.m.path("sys/devices/system/cpu/cpu" + strconv.FormatUint(cpu, 10))
		for unit, id := range map[string]string{
			"core":    readText(dir + "/topology/thread_siblings_list"),
			"package": readText(dir + "/topology/physical_package_id"),
		} {
			if seen[unit+id] && id != "" {
				continue
			}
			seen[unit+id] = true
			file := dir + "/thermal_throttle/" + unit
			m.counters = append(m.counters, counter{thermalCount, file + "_throttle_count", "", 1}, counter{thermalMs, file + "_throttle_total_time_ms", "", 1})
		}
	}
	m.counters = slices.DeleteFunc(m.counters, func(c counter) bool {
		_, known := c.read(m.files)
		return !known
	})
}

// Worker follows another worker.
func (m *Meter) Worker(pid int) {
	m.files.close(m.worker())
	m.pid, m.last = pid, reading{}
}

// worker is the worker's directory of /proc.
func (m *Meter) worker() string { return m.m.path("proc/" + strconv.Itoa(m.pid)) }

// Begin reads the counters before a burst of a test of this kind.
func (m *Meter) Begin(kind result.Kind) {
	m.kind, m.debt, m.last = kind, 0, m.read()
}

// Burst reads the counters after a burst. It returns what they counted since the last call
// of Begin or Burst; nil if there was none.
func (m *Meter) Burst() *result.Conditions {
	before, now := m.last, m.read()
	m.last = now
	if before.counters == nil {
		return nil
	}
	return m.between(before, now)
}

// Close closes the files.
func (m *Meter) Close() { m.files.close(m.m.root) }

func (m *Meter) read() reading {
	r := reading{clock: m.Clock(), cpus: m.readCPUs(), counters: make([]*uint64, len(m.counters))}
	for i, c := range m.counters {
		if n, ok := c.read(m.files); ok {
			r.counters[i] = &n
		}
	}
	m.readWorker(&r)
	r.mhz = m.readClocks()
	return r
}

// readCPUs reads the times of the test's CPUs, those that are online.
func (m *Meter) readCPUs() map[uint64]ticks {
	cpus := map[uint64]ticks{}
	for line := range strings.Lines(m.files.text(m.m.path("proc/stat"))) {
		name, ok := strings.CutPrefix(line, "cpu")
		if !ok {
			break // the lines of CPUs come first
		}
		fields := strings.Fields(name)
		if len(fields) < 9 || name[0] == ' ' {
			continue
		}
		id, err := strconv.ParseUint(fields[0], 10, 64)
		if err != nil || !slices.Contains(m.cpus, id) {
			continue
		}
		var n [9]int64 // user, nice, system, idle, iowait, irq, softirq, steal from index 1
		for i := 1; i < len(n) && err == nil; i++ {
			n[i], err = strconv.ParseInt(fields[i], 10, 64)
		}
		if err == nil {
			cpus[id] = ticks{idle: n[4] + n[5], steal: n[8], busy: n[1] + n[2] + n[3] + n[6] + n[7]}
		}
	}
	return cpus
}

func (m *Meter) readWorker(r *reading) {
	if m.pid == 0 {
		return
	}
	// The command's name may contain spaces and parentheses.
	text := m.files.text(m.worker() + "/stat")
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	number := func(field int) *uint64 { // counted from 1, as in proc(5)
		if len(fields) < field-2 {
			return nil
		}
		n, err := strconv.ParseUint(fields[field-3], 10, 64)
		if err != nil {
			return nil
		}
		return &n
	}
	r.minor, r.major = number(10), number(12)
	if r.clock.Process != nil {
		if t, ok := r.clock.Process(m.pid); ok {
			r.process = &t
		}
	} else if user, system := number(14), number(15); user != nil && system != nil {
		r.process = new(time.Duration(*user+*system) * tick)
	}
	status := counter{path: m.worker() + "/status", word: "VmSwap:", scale: 1024}
	if n, ok := status.read(m.files); ok {
		r.swapped = &n
	}
	r.threads = m.readThreads()
}

// readThreads reads how the threads of the worker were scheduled. It returns nil if
// the kernel does not count it.
func (m *Meter) readThreads() map[string]scheduled {
	threads := map[string]scheduled{}
	counted := false
	for _, id := range readDir(m.worker() + "/task") {
		path := m.worker() + "/task/" + id + "/schedstat"
		fields := strings.Fields(m.files.text(path))
		if len(fields) != 3 { // the thread has ended
			m.files.close(path)
			continue
		}
		ran, err := strconv.ParseInt(fields[0], 10, 64)
		waited, err2 := strconv.ParseInt(fields[1], 10, 64)
		if err != nil || err2 != nil {
			continue
		}
		counted = counted || ran > 0
		threads[id] = scheduled{time.Duration(ran), time.Duration(waited)}
	}
	if !counted {
		return nil
	}
	return threads
}

// readClocks is the mean clock in MHz of the chosen CPUs.
func (m *Meter) readClocks() *float64 {
	if len(m.frequency) == 0 {
		return nil
	}
	start := time.Now()
	sum := 0.0
	for _, path := range m.frequency {
		khz, err := strconv.ParseFloat(strings.TrimSpace(m.files.text(path)), 64)
		if err != nil || khz <= 0 {
			m.frequency = nil
			return nil
		}
		sum += khz / 1000
	}
	mean := sum / float64(len(m.frequency))
	if time.Since(start) <= m.patience {
		m.slow = 0
	} else if m.slow++; m.slow == slowReadings {
		m.frequency = nil
	}
	return &mean
}

// between is what the counters counted between two readings.
func (m *Meter) between(before, now reading) *result.Conditions {
	elapsed := now.clock.Monotonic - before.clock.Monotonic
	c := &result.Conditions{Seconds: *inSeconds(max(elapsed, 0)), CPUs: len(now.cpus)}
	m.cpuTime(c, before, now)

	c.ThrottledPeriods = m.most(before, now, throttledPeriods)
	c.Throttled = seconds(m.most(before, now, throttledNs), time.Nanosecond)
	c.CPUPressure = seconds(m.most(before, now, cpuPressureUs), time.Microsecond)
	c.MemoryPressure = seconds(m.most(before, now, memoryPressureUs), time.Microsecond)
	c.IOPressure = seconds(m.most(before, now, ioPressureUs), time.Microsecond)
	c.ThermalSeconds = seconds(m.most(before, now, thermalMs), time.Millisecond)
	c.ThermalThrottles = m.total(before, now, thermalCount)
	c.MemoryLimit = m.total(before, now, memoryLimit)
	c.SwapIn, c.SwapOut = m.total(before, now, swapIn), m.total(before, now, swapOut)
	c.NUMAMisses = m.total(before, now, numaMisses)
	c.MinorFaults, c.MajorFaults = since(before.minor, now.minor), since(before.major, now.major)
	c.SwappedBytes = now.swapped

	if now.mhz != nil {
		m.highest[m.kind] = max(m.highest[m.kind], *now.mhz, m.baseMHz)
		c.FrequencyMHz, c.ReferenceMHz = now.mhz, new(m.highest[m.kind])
	}
	offset := func(from, to *time.Duration) *float64 {
		if from == nil || to == nil {
			return nil
		}
		return inSeconds((*to - *from - elapsed).Abs())
	}
	c.ClockStep = offset(before.clock.Realtime, now.clock.Realtime)
	c.Suspended = offset(before.clock.Boottime, now.clock.Boottime)
	if c.ClockStep != nil && c.Suspended != nil { // the wall clock goes on while the machine is suspended
		c.ClockStep = inSeconds((*now.clock.Realtime - *before.clock.Realtime - (*now.clock.Boottime - *before.clock.Boottime)).Abs())
	}
	return c
}

// cpuTime finds out what CPU time the test did not get.
func (m *Meter) cpuTime(c *result.Conditions, before, now reading) {
	elapsed := now.clock.Monotonic - before.clock.Monotonic
	if now.threads != nil && before.threads != nil {
		var wait time.Duration
		for id, to := range now.threads {
			from := before.threads[id] // zero for a new thread
			d := scheduled{max(to.ran-from.ran, 0), max(to.waited-from.waited, 0)}
			if d.computes(elapsed) {
				wait += d.waited
			}
		}
		c.CPUWait = inSeconds(wait)
	}
	if len(now.cpus) == 0 || len(before.cpus) != len(now.cpus) {
		return
	}
	var idle, steal, busy int64
	for cpu, to := range now.cpus {
		from, ok := before.cpus[cpu]
		if !ok { // one CPU went online and another offline
			return
		}
		idle, steal, busy = idle+to.idle-from.idle, steal+to.steal-from.steal, busy+to.busy-from.busy
	}
	c.Steal = inSeconds(time.Duration(max(steal, 0)) * tick)
	// Each CPU's ticks are off by up to one at either end, in no direction.
	c.OtherCPUResolution = inSeconds(time.Duration(2 * math.Sqrt(float64(len(now.cpus))) * float64(tick)))
	own, known := time.Duration(0), false
	if before.process != nil && now.process != nil {
		own, known = max(*now.process-*before.process, 0), true
	}
	if before.clock.Own != nil && now.clock.Own != nil {
		own += *now.clock.Own - *before.clock.Own
	}
	if !known {
		return
	}
	notIdle := elapsed*time.Duration(len(now.cpus)) - time.Duration(idle+steal)*tick
	other := min(notIdle, time.Duration(busy)*tick) - own + m.debt
	m.debt = min(other, 0)
	c.OtherCPU = inSeconds(max(other, 0))
}

// total adds up what the counters of one kind counted; nil if one stepped back or
// there is none.
func (m *Meter) total(before, now reading, kind counterKind) *uint64 {
	var sum *uint64
	for i, c := range m.counters {
		if c.kind != kind {
			continue
		}
		n := since(before.counters[i], now.counters[i])
		if n == nil {
			return nil
		}
		if sum == nil {
			sum = new(uint64)
		}
		*sum += *n
	}
	return sum
}

// most is the most that a counter of one kind counted; nil if none is known.
func (m *Meter) most(before, now reading, kind counterKind) *uint64 {
	var most *uint64
	for i, c := range m.counters {
		if c.kind != kind {
			continue
		}
		if n := since(before.counters[i], now.counters[i]); n != nil && (most == nil || *n > *most) {
			most = n
		}
	}
	return most
}

// since is how far a counter went; nil if it is not known at both moments, stepped
// back or wrapped.
func since(from, to *uint64) *uint64 {
	if from == nil || to == nil || *to < *from {
		return nil
	}
	return new(*to - *from)
}

// seconds converts a number of units.
func seconds(n *uint64, unit time.Duration) *float64 {
	if n == nil || *n > math.MaxInt64/uint64(unit) {
		return nil
	}
	return inSeconds(time.Duration(*n) * unit)
}

// inSeconds is a time in seconds, to the microsecond.
func inSeconds(d time.Duration) *float64 {
	return new(float64(d.Round(time.Microsecond).Microseconds()) / 1e6)
}
