package fetch

import "runtime"

// background is an OS thread of low priority that runs pieces of work, one at a
// time. The thread ends with it, so the priority gets to no other goroutine.
type background struct {
	work chan func()
	done chan struct{} // after each piece, and closed at the end
}

func startBackground() *background {
	b := &background{work: make(chan func()), done: make(chan struct{})}
	go b.serve()
	return b
}

func (b *background) serve() {
	runtime.LockOSThread()
	if mainThread() { // it lives as long as the process, at whatever priority it is given
		go b.serve() // on another one, for this one is taken
		runtime.Gosched()
		runtime.UnlockOSThread()
		return
	}
	defer close(b.done)
	lowerPriority() // and no way back: the thread ends with the goroutine that never unlocks it
	for f := range b.work {
		f()
		b.done <- struct{}{}
	}
}

// run returns when f has run.
func (b *background) run(f func()) {
	b.work <- f
	<-b.done
}

// stop joins the goroutine. The thread ends soon after.
func (b *background) stop() {
	close(b.work)
	<-b.done
}
