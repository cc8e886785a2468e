package host

import (
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/procfs"
)

// cgroupDirs are the directories of this process's control groups for a
// controller, from its own up to the mount point, each a path below the root.
// A limit may stand in any of them, and the tightest holds. v2 tells which
// version of the files they have.
func (m machine) cgroupDirs(controller string) (dirs []string, v2 bool) {
	self, err := m.self()
	if err != nil {
		return nil, false
	}
	groups, err := self.Cgroups()
	if err != nil {
		return nil, false
	}
	mounts, err := self.MountInfo()
	if err != nil {
		return nil, false
	}
	// Version 2 has number 0 and comes last: where both are mounted, version 1
	// lists the controllers it has taken.
	slices.SortFunc(groups, func(a, b procfs.Cgroup) int { return b.HierarchyID - a.HierarchyID })
	for _, g := range groups {
		v2 := g.HierarchyID == 0
		if !v2 && !slices.Contains(g.Controllers, controller) {
			continue
		}
		for _, mount := range mounts {
			_, has := mount.SuperOptions[controller]
			if (v2 && mount.FSType == "cgroup2") || (!v2 && mount.FSType == "cgroup" && has) {
				return upwards(mount.MountPoint, inside(mount.Root, g.Path)), v2
			}
		}
	}
	return nil, false
}

// inside is the path of a group below the mount point of a tree of which only
// the part below root is mounted, as in containers. A group outside of that
// part is hidden: what can be seen is the mount point.
func inside(root, group string) string {
	rest, ok := strings.CutPrefix(path.Clean(group)+"/", strings.TrimSuffix(path.Clean(root), "/")+"/")
	if !ok || strings.HasPrefix(group, "/..") {
		return "."
	}
	return path.Join("/", rest)[1:]
}

func upwards(mount, group string) []string {
	dirs := []string{path.Join(mount, group)}
	for group = path.Clean(group); group != "." && group != ""; {
		group = path.Dir(group)
		dirs = append(dirs, path.Join(mount, group))
	}
	return dirs
}

// cpuQuota is the tightest CPU quota, in CPUs.
func (m machine) cpuQuota() (cpus float64, ok bool) {
	dirs, v2 := m.cgroupDirs("cpu")
	cpus = math.Inf(1)
	for _, dir := range dirs {
		quota, period := m.text(dir+"/cpu.cfs_quota_us"), m.text(dir+"/cpu.cfs_period_us")
		if v2 {
			quota, period, _ = strings.Cut(m.text(dir+"/cpu.max"), " ")
		}
		// "max" and -1 are no quota.
		q, err := strconv.ParseFloat(quota, 64)
		p, perr := strconv.ParseFloat(period, 64)
		if err == nil && perr == nil && q > 0 && p > 0 {
			cpus = min(cpus, q/p)
		}
	}
	return cpus, !math.IsInf(cpus, 1)
}

// unlimited is the least number that version 1 shows in place of "no limit":
// it is near 2^63, rounded down to a page.
const unlimited = 1 << 62

// memoryLimit is the tightest limit of memory, and what is left of the one with
// the least left, in bytes. Cached files that the kernel would drop first count
// as left.
func (m machine) memoryLimit() (limit, left uint64, ok bool) {
	dirs, v2 := m.cgroupDirs("memory")
	limits, usage, droppable := []string{"memory.limit_in_bytes"}, "memory.usage_in_bytes", "total_inactive_file"
	if v2 {
		limits, usage, droppable = []string{"memory.max", "memory.high"}, "memory.current", "inactive_file"
	}
	limit, left = unlimited, unlimited
	for _, dir := range dirs {
		for _, file := range limits {
			// "max" is not a number, and no limit.
			bytes, err := strconv.ParseUint(m.text(dir+"/"+file), 10, 64)
			if err != nil || bytes >= unlimited {
				continue
			}
			used := m.bytes(dir+"/"+usage, "")
			used -= min(used, m.bytes(dir+"/memory.stat", droppable))
			limit = min(limit, bytes)
			left = min(left, bytes-min(bytes, used))
		}
	}
	return limit, left, limit < unlimited
}

// bytes is the number after the key on a line of a file, 0 when there is none.
func (m machine) bytes(path, key string) uint64 {
	for line := range strings.Lines(m.text(path)) {
		if number, ok := strings.CutPrefix(strings.TrimSpace(line), key); ok {
			if n, err := strconv.ParseUint(strings.TrimSpace(number), 10, 64); err == nil {
				return n
			}
		}
	}
	return 0
}
