package host

import (
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/procfs"
)

// cgroupDirs returns the directories of this process's control groups for a
// controller, from its own group up to the mount point, as paths below the root. Any
// of them may set a limit, and the lowest limit applies. v2 says that the files have
// the format of cgroup version 2.
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
	// Version 2 has number 0 and is sorted last. If both are mounted, version 1 lists
	// the controllers that it handles.
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

// inside returns the path of a group relative to the mount point. In a container
// only the part of the tree below root is mounted. A group outside that part is
// hidden, and only the mount point is visible.
func inside(root, group string) string {
	rest, ok := strings.CutPrefix(path.Clean(group)+"/", strings.TrimSuffix(path.Clean(root), "/")+"/")
	if !ok || strings.HasPrefix(group, "/..") {
		return "."
	}
	return path.Join("/", rest)[1:]
}

// upwards returns the directories from the group up to the mount point.
func upwards(mount, group string) []string {
	dirs := []string{path.Join(mount, group)}
	for group = path.Clean(group); group != "." && group != ""; {
		group = path.Dir(group)
		dirs = append(dirs, path.Join(mount, group))
	}
	return dirs
}

// cpuQuota returns the lowest CPU quota, in CPUs. ok is false without a quota.
func (m machine) cpuQuota() (cpus float64, ok bool) {
	dirs, v2 := m.cgroupDirs("cpu")
	cpus = math.Inf(1)
	for _, dir := range dirs {
		quota, period := m.text(dir+"/cpu.cfs_quota_us"), m.text(dir+"/cpu.cfs_period_us")
		if v2 {
			quota, period, _ = strings.Cut(m.text(dir+"/cpu.max"), " ")
		}
		// "max" and -1 mean no quota.
		q, err := strconv.ParseFloat(quota, 64)
		p, perr := strconv.ParseFloat(period, 64)
		if err == nil && perr == nil && q > 0 && p > 0 {
			cpus = min(cpus, q/p)
		}
	}
	return cpus, !math.IsInf(cpus, 1)
}

// unlimited is a lower bound of the number that version 1 shows for "no limit",
// which is 2^63 rounded down to a page.
const unlimited = 1 << 62

// memoryLimit returns the lowest memory limit and how much the groups leave at
// least, both in bytes. File cache and kernel memory that the kernel can drop count
// as left; files of a tmpfs and huge pages do not, for they can only be swapped, or
// not even that. Swap does not count: what lies there is not measured at speed. ok
// is false without a limit.
func (m machine) memoryLimit() (limit, left uint64, ok bool) {
	dirs, v2 := m.cgroupDirs("memory")
	limits, usage := []string{"memory.limit_in_bytes"}, "memory.usage_in_bytes"
	droppable := []string{"total_inactive_file ", "total_active_file "}
	if v2 {
		limits, usage = []string{"memory.max", "memory.high"}, "memory.current"
		droppable = []string{"inactive_file ", "active_file ", "slab_reclaimable "}
	}
	limit, left = unlimited, unlimited
	for _, dir := range dirs {
		for _, file := range limits {
			// "max" is no number and means no limit.
			bytes, err := strconv.ParseUint(m.text(dir+"/"+file), 10, 64)
			if err != nil || bytes >= unlimited {
				continue
			}
			used := m.bytes(dir+"/"+usage, "")
			for _, key := range droppable {
				used -= min(used, m.bytes(dir+"/memory.stat", key))
			}
			limit = min(limit, bytes)
			left = min(left, bytes-min(bytes, used))
		}
	}
	return limit, left, limit < unlimited
}

// bytes returns the number after the key on a line of a file, 0 without one.
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
