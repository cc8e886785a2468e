package host

import (
	"strconv"
	"strings"
)

// OOMKills returns how many processes the kernel has killed for lack of memory so
// far: in this process's control group, else in the nearest group above it that
// counts them, else on the whole machine. root is "/" for this machine. ok is false
// if nothing counts them. If the count rises between two calls, a process was killed
// in between.
//
// The sources are oom_kill of memory.events (cgroup version 2), of memory.oom_control
// (version 1) and of /proc/vmstat. The kernel counts a kill in the group of the
// killed process before it sends the signal, whichever limit was the reason.
func OOMKills(root string) (count uint64, ok bool) {
	m := open(root)
	dirs, v2 := m.cgroupDirs("memory")
	file := "memory.oom_control"
	if v2 {
		file = "memory.events"
	}
	for _, dir := range dirs {
		if count, ok := m.counter(dir+"/"+file, "oom_kill"); ok {
			return count, true
		}
	}
	return m.counter("proc/vmstat", "oom_kill")
}

// counter returns the number after the word on a line of a file of "word number" lines.
func (m machine) counter(path, word string) (count uint64, ok bool) {
	for line := range strings.Lines(m.text(path)) {
		name, number, found := strings.Cut(strings.TrimSpace(line), " ")
		if !found || name != word {
			continue
		}
		if count, err := strconv.ParseUint(strings.TrimSpace(number), 10, 64); err == nil {
			return count, true
		}
	}
	return 0, false
}
