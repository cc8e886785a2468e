//go:build linux

package llama

import (
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// Thread is one OS thread on which functions run one after the other. It is the
// thread that owns a model (see the package documentation). Start it before the
// first call into the library.
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
		// The goroutine never unlocks its OS thread. So the thread ends with it, and
		// libgomp's team of threads too.
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

// Do runs f on the thread and returns when f has returned. If f panics, Do panics
// with the same value. Do must not be called from inside f, nor after Stop. It may
// be called from any other goroutine.
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

// Stop waits until the running function has returned and ends the thread. It is
// idempotent.
func (t *Thread) Stop() {
	t.stop.Do(func() { close(t.work) })
	<-t.done
}
