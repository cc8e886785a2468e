package host

import (
	"time"

	"golang.org/x/sys/unix"
)

// readClock reads the clocks of this machine. If the process is interrupted between
// two clocks, it reads them again.
func readClock() Clock {
	var c Clock
	for range 3 {
		before, _ := clock(unix.CLOCK_MONOTONIC)
		c.Realtime, c.Boottime = pointer(clock(unix.CLOCK_REALTIME)), pointer(clock(unix.CLOCK_BOOTTIME))
		after, _ := clock(unix.CLOCK_MONOTONIC)
		c.Monotonic = before + (after-before)/2
		if after-before < 50*time.Microsecond {
			break
		}
	}
	c.Own = pointer(clock(unix.CLOCK_PROCESS_CPUTIME_ID))
	// The clock id of another process, MAKE_PROCESS_CPUCLOCK of Linux's
	// include/linux/posix-timers.h with CPUCLOCK_SCHED.
	c.Process = func(pid int) (time.Duration, bool) { return clock(^int32(pid)<<3 | 2) }
	return c
}

func clock(id int32) (time.Duration, bool) {
	var t unix.Timespec
	if err := unix.ClockGettime(id, &t); err != nil {
		return 0, false
	}
	return time.Duration(t.Nano()), true
}

func pointer(d time.Duration, ok bool) *time.Duration {
	if !ok {
		return nil
	}
	return &d
}
