//go:build !linux

package fetch

// lowerPriority does nothing on systems whose threads have no own priority.
func lowerPriority() {}

func mainThread() bool { return false }
