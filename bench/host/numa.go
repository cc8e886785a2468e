package host

import "path/filepath"

// NUMANodes is the number of NUMA nodes of the machine with this root directory, at least 1
// (/sys/devices/system/node).
func NUMANodes(root string) int {
	nodes, _ := filepath.Glob(filepath.Join(root, "sys/devices/system/node/node[0-9]*")) // fails only for a bad pattern
	return max(1, len(nodes))
}
