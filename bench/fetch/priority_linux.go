package fetch

import "golang.org/x/sys/unix"

// ioprio_set(2), which package unix has no name for.
const (
	ioprioWhoProcess = 1
	ioprioClassIdle  = 3 << 13
)

// lowerPriority puts the calling OS thread behind all others, as far as the
// kernel allows. There is no way back without privileges, so the thread has to
// end with its work.
func lowerPriority() {
	if unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}, 0) != nil {
		_ = unix.Setpriority(unix.PRIO_PROCESS, 0, 19) // of the thread, on Linux
	}
	_, _, _ = unix.Syscall(unix.SYS_IOPRIO_SET, ioprioWhoProcess, 0, ioprioClassIdle)
}

// mainThread is whether the calling OS thread is the process's first.
func mainThread() bool { return unix.Gettid() == unix.Getpid() }
