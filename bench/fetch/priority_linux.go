package fetch

import "golang.org/x/sys/unix"

// ioprio_set(2), which package unix has no name for.
const (
	ioprioWhoProcess = 1
	ioprioClassIdle  = 3 << 13
)

// lowerPriority gives the calling OS thread the lowest priority that the kernel
// allows, for CPU and disk. This cannot be undone without privileges, so the thread
// must end with its work.
func lowerPriority() {
	if unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}, 0) != nil {
		_ = unix.Setpriority(unix.PRIO_PROCESS, 0, 19) // on Linux, of the calling thread
	}
	_, _, _ = unix.Syscall(unix.SYS_IOPRIO_SET, ioprioWhoProcess, 0, ioprioClassIdle)
}

// mainThread reports whether the calling OS thread is the first of the process.
func mainThread() bool { return unix.Gettid() == unix.Getpid() }
