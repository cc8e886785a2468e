package host

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ErrBusy means that something on the machine would disturb a measurement.
var ErrBusy = errors.New("the machine is busy")

// Disturbance is something that would disturb a measurement that began now.
type Disturbance struct {
	Code string // stable: one of the Busy constants
	Text string // one line, lower case, no full stop, with its numbers
}

// The codes of disturbances.
const (
	BusyOtherRun  = "other_run"       // another run of this program measures
	BusyPackages  = "package_manager" // packages are being installed or upgraded
	BusyProcesses = "other_processes" // other processes use CPUs that a test may use
	BusyPressure  = "cpu_pressure"    // processes waited for a CPU within the last ten seconds
	BusyMemory    = "memory_pressure" // processes waited for memory within the last ten seconds
	BusyHot       = "hot"             // a sensor is at the temperature at which the kernel slows CPUs down
)

const (
	// busyCPUs is the CPU time per second of other processes that counts. Ticks of
	// 10 ms do not show much less within lookTime.
	busyCPUs = 0.3
	// busyPressure is the share of the last ten seconds, in percent, with pressure.
	// It is above what a run of this program leaves on a quiet machine.
	busyPressure = 20
	// lookTime is how long Busy watches processes.
	lookTime = 100 * time.Millisecond
	// pollTime is the time between two looks of WaitQuiet.
	pollTime = time.Second
	// namedProcesses is how many processes a text names.
	namedProcesses = 3
)

// Busy finds what would disturb a measurement on the machine whose files lie below
// root, "/" for this one. It watches for a tenth of a second. This process and its
// children do not count.
//
// The sources are /proc/PID/stat and cmdline of all visible processes, /proc/stat,
// /proc/pressure, /proc/locks with the lock files of dpkg, apt and rpm, and the trip
// points of /sys/class/thermal.
func Busy(ctx context.Context, root string) []Disturbance {
	m := open(root)
	before := m.look()
	select {
	case <-ctx.Done():
		return nil
	case <-time.After(lookTime):
	}
	return m.busy(before, m.look())
}

// WaitQuiet waits until nothing disturbs a measurement, at most for the limit. It
// returns what still does. tell is called with what it waits for, whenever that
// changes its kind.
func WaitQuiet(ctx context.Context, root string, limit time.Duration, tell func([]Disturbance)) []Disturbance {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var found, told []Disturbance
	for looking := ctx; ; looking = limited { // the first look is taken in any case
		now := Busy(looking, root)
		if looking.Err() != nil {
			return found
		}
		if found = now; len(found) == 0 {
			return nil
		}
		if !slices.EqualFunc(found, told, func(a, b Disturbance) bool { return a.Code == b.Code }) {
			told = found
			tell(found)
		}
		select {
		case <-limited.Done():
			return found
		case <-time.After(pollTime):
		}
	}
}

// Texts joins the texts of disturbances.
func Texts(found []Disturbance) string {
	texts := make([]string, len(found))
	for i, d := range found {
		texts[i] = d.Text
	}
	return strings.Join(texts, "; ")
}

// look is what processes have done so far.
type look struct {
	at        time.Time
	processes map[int]process
	cpus      map[uint64]ticks
}

// process is a process other than this one and its children.
type process struct {
	name string
	cpu  time.Duration
	args []string
	own  bool // this process or a descendant
}

func (m machine) look() look {
	l := look{at: time.Now(), processes: map[int]process{}}
	parents := map[int]int{}
	for _, name := range readDir(m.path("proc")) {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		stat := m.text("proc/" + name + "/stat")
		open, end := strings.IndexByte(stat, '('), strings.LastIndexByte(stat, ')')
		fields := strings.Fields(stat[end+1:])
		if open < 0 || end < open || len(fields) < 13 {
			continue // it has ended
		}
		parents[pid], _ = strconv.Atoi(fields[1])
		user, err := strconv.ParseInt(fields[11], 10, 64)
		system, err2 := strconv.ParseInt(fields[12], 10, 64)
		if err != nil || err2 != nil {
			continue
		}
		l.processes[pid] = process{
			name: stat[open+1 : end], cpu: time.Duration(user+system) * tick,
			args: strings.Split(m.text("proc/"+name+"/cmdline"), "\x00"),
		}
	}
	self := m.selfPID()
	for pid, p := range l.processes {
		for up, steps := pid, 0; up > 1 && steps < 100; up, steps = parents[up], steps+1 {
			p.own = p.own || up == self
		}
		l.processes[pid] = p
	}
	meter := Meter{m: m, files: files{}, cpus: m.allowedCPUs()}
	l.cpus = meter.readCPUs()
	meter.Close()
	return l
}

func (m machine) selfPID() int {
	if m.cpu != nil { // this machine
		return os.Getpid()
	}
	link, err := os.Readlink(m.path("proc/self"))
	if err != nil {
		return 0
	}
	pid, _ := strconv.Atoi(filepath.Base(link)) // 0 on error
	return pid
}

// busy compares two looks.
func (m machine) busy(before, now look) []Disturbance {
	var found []Disturbance
	add := func(code, format string, args ...any) {
		found = append(found, Disturbance{code, fmt.Sprintf(format, args...)})
	}
	var workers []string
	for _, pid := range sorted(now.processes) {
		if p := now.processes[pid]; !p.own && isWorker(p.args) {
			workers = append(workers, strconv.Itoa(pid))
		}
	}
	switch n := len(workers); {
	case n == 1:
		add(BusyOtherRun, "another run of this program measures (process %s)", workers[0])
	case n > 1:
		add(BusyOtherRun, "%d other runs of this program measure (processes %s)", n, strings.Join(workers, ", "))
	}
	if name := m.packageManager(now.processes); name != "" {
		add(BusyPackages, "%s installs or upgrades packages", name)
	}
	used, top := others(before, now)
	if used >= busyCPUs {
		text := fmt.Sprintf("other processes use %.1f of %d CPUs", used, len(now.cpus))
		if len(top) > 0 {
			text += ": " + strings.Join(top, ", ")
		}
		add(BusyProcesses, "%s", text)
	}
	if proc, err := m.proc(); err == nil {
		if p := pressure(proc, "cpu"); p != nil && p.Avg10 >= busyPressure {
			add(BusyPressure, "processes waited for a CPU in %.0f %% of the last 10 s", p.Avg10)
		}
		if p := pressure(proc, "memory"); p != nil && p.Avg10 >= busyPressure {
			add(BusyMemory, "processes waited for memory in %.0f %% of the last 10 s", p.Avg10)
		}
	}
	if zone, temperature, limit := m.hottest(); zone != "" {
		add(BusyHot, "sensor %s is at %.0f °C, and CPUs slow down from %.0f °C", zone, temperature, limit)
	}
	return found
}

// others returns how many CPUs other processes used between two looks, and the names
// of those that used most, with their CPUs. Processes that have ended, and those of
// other containers, are in the number only.
func others(before, now look) (used float64, top []string) {
	elapsed := now.at.Sub(before.at).Seconds()
	if elapsed <= 0 {
		return 0, nil
	}
	var busy int64
	for cpu, to := range now.cpus {
		if from, ok := before.cpus[cpu]; ok {
			busy += max(to.busy-from.busy, 0)
		}
	}
	total := time.Duration(busy) * tick
	type share struct {
		name string
		cpu  time.Duration
	}
	var shares []share
	for _, pid := range sorted(now.processes) {
		p := now.processes[pid]
		cpu := max(p.cpu-before.processes[pid].cpu, 0)
		if _, known := before.processes[pid]; !known {
			cpu = p.cpu
		}
		switch {
		case p.own:
			total -= cpu
		case cpu > 0:
			shares = append(shares, share{p.name, cpu})
		}
	}
	slices.SortStableFunc(shares, func(a, b share) int { return int(b.cpu - a.cpu) })
	for _, s := range shares[:min(len(shares), namedProcesses)] {
		top = append(top, fmt.Sprintf("%s (%.1f)", s.name, s.cpu.Seconds()/elapsed))
	}
	return min(max(total, 0).Seconds()/elapsed, float64(len(now.cpus))), top
}

// isWorker tells whether a command line is that of a worker of this program, whatever
// the program's file is called.
func isWorker(args []string) bool {
	return len(args) > 3 && args[1] == "worker" && args[2] == "--log-level"
}

// packageManagers are the names of processes that install packages. The kernel cuts
// names to 15 bytes.
var packageManagers = []string{"apt", "apt-get", "aptitude", "dpkg", "unattended-upgr", "dnf", "dnf5", "yum", "rpm", "zypper", "pacman", "apk", "snap-update"}

// packageLocks are files that a package manager locks while it works.
var packageLocks = []string{"var/lib/dpkg/lock-frontend", "var/lib/dpkg/lock", "var/lib/apt/lists/lock", "var/lib/rpm/.rpm.lock"}

// packageManager returns what installs packages; empty: nothing.
func (m machine) packageManager(processes map[int]process) string {
	for _, pid := range sorted(processes) {
		p := processes[pid]
		// This service waits for the machine's shutdown.
		waits := slices.ContainsFunc(p.args, func(arg string) bool { return strings.HasSuffix(arg, "unattended-upgrade-shutdown") })
		if !p.own && !waits && slices.Contains(packageManagers, p.name) {
			return p.name
		}
	}
	for _, path := range packageLocks {
		if m.locked(path) {
			return "the holder of /" + path
		}
	}
	return ""
}

// locked tells whether a process has locked a file, by /proc/locks: it needs no
// permission to open the file.
func (m machine) locked(path string) bool {
	info, err := os.Stat(m.path(path))
	if err != nil {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return false
	}
	inode := ":" + strconv.FormatUint(stat.Ino, 10)
	for line := range strings.Lines(m.text("proc/locks")) {
		// "1: POSIX ADVISORY WRITE 1234 fe:00:5678 0 EOF"; a waiting one has "->" after the number.
		fields := strings.Fields(line)
		if len(fields) == 8 && fields[3] == "WRITE" && strings.HasSuffix(fields[5], inode) {
			return true
		}
	}
	return false
}

// hottest returns a sensor that has reached a temperature at which the kernel slows
// CPUs down or stops the machine, in degrees Celsius; empty: none has.
func (m machine) hottest() (zone string, temperature, limit float64) {
	for _, dir := range m.glob("sys/class/thermal/thermal_zone[0-9]*") {
		read := func(name string) (float64, bool) {
			millidegrees, err := strconv.ParseFloat(readText(filepath.Join(dir, name)), 64)
			return millidegrees / 1000, err == nil && millidegrees > 0
		}
		now, ok := read("temp")
		if !ok {
			continue
		}
		for i := range 16 {
			point := fmt.Sprintf("trip_point_%d_", i)
			switch readText(filepath.Join(dir, point+"type")) {
			case "passive", "hot", "critical":
				if limit, ok := read(point + "temp"); ok && now >= limit {
					return readText(filepath.Join(dir, "type")), now, limit
				}
			}
		}
	}
	return "", 0, 0
}

// sorted lists process ids in ascending order.
func sorted(processes map[int]process) []int { return slices.Sorted(maps.Keys(processes)) }
