package fetch

import "runtime"

// background is an OS thread of low priority that runs pieces of work, one at a
// time. The thread ends with it, so no other goroutine gets the low priority.
type background struct {
	work chan func()
	done chan struct{} // receives a value after each piece of work; closed at the end
}

func startBackground() *background {
	b := &background{work: make(chan func()), done: make(chan struct{})}
	go b.serve()
	return b
}

func (b *background) serve() {
	runtime.LockOSThread()
	if mainThread() { // it would keep the low priority until the process ends
		go b.serve() // on another thread, because this one is locked
		runtime.Gosched()
		runtime.UnlockOSThread()
		return
	}
	defer close(b.done)
	lowerPriority() // cannot be undone; the thread ends with this goroutine, which never unlocks it
	for f := range b.work {
		f()
		b.done <- struct{}{}
	}
}

// run runs f and returns when f has returned.
func (b *background) run(f func()) {
	b.work <- f
	<-b.done
}

// stop waits until the goroutine has ended. The thread ends soon after.
func (b *background) stop() {
	close(b.work)
	<-b.done
}
