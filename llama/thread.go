//go:build linux

package llama

import (
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// Thread is one OS thread on which functions run one after the other: the
// thread that owns the engine (see the package documentation). Start it before
// the first call into the library.
type Thread struct {
	work chan func()
	stop sync.Once
	done chan struct{}
	id   int
}

// StartThread starts a thread. Stop ends it.
func StartThread() *Thread {
	t := &Thread{work: make(chan func()), done: make(chan struct{})}
	ready := make(chan struct{})
	go func() {
		defer close(t.done)
		// Never unlocked: the thread ends with its goroutine, and with it
		// libgomp's team.
		runtime.LockOSThread()
		t.id = unix.Gettid()
		close(ready)
		for f := range t.work {
			f()
		}
	}()
	<-ready
	return t
}

// ID is the kernel's thread id.
func (t *Thread) ID() int { return t.id }

// Do runs f on the thread and returns when it has returned. A panic of f is
// raised again in the caller. Do must not be called from inside f, nor after
// Stop.
func (t *Thread) Do(f func()) {
	var raised any
	returned := make(chan struct{})
	t.work <- func() {
		defer close(returned)
		defer func() { raised = recover() }()
		f()
	}
	<-returned
	if raised != nil {
		panic(raised)
	}
}

// Stop ends the thread after what it is running. It is idempotent.
func (t *Thread) Stop() {
	t.stop.Do(func() { close(t.work) })
	<-t.done
}
