//go:build !linux

package fetch

// lowerPriority does nothing where threads have no priority of their own.
func lowerPriority() {}

func mainThread() bool { return false }
