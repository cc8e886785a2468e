package fetch

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sparecores/benchmark-llm/bench/source"
)

// QueueOptions are the options of Prefetch.
type QueueOptions struct {
	Dir       string  // models directory
	Sizes     []Size  // of the sources, as Client.Sizes returned them; nil if unknown
	Fetch     Options // of each file; the queue sets Gate, Deadline and Progress
	SpareCPUs bool    // the engine leaves CPUs idle: downloads continue during timed repetitions
	Force     Hold    // for experiments: what happens to downloads during timed repetitions; Auto decides by what was measured
}

// QueueState is what a Queue is doing.
type QueueState struct {
	Item     int      // index of the source that is being downloaded; -1 if none is
	Progress Progress // of that download
	Hold     Hold     // Free or Paused
}

// ErrClosed is the error of a file that had not arrived when the queue was closed.
var ErrClosed = errors.New("the download queue is closed")

// errPutOff ends a download in favour of another one.
var errPutOff = errors.New("put off for another file")

// Queue fetches files in the background, one after the other. Its methods may be
// called from any goroutine.
//
// Each file uses one connection. More connections could be faster where a server
// limits each of them, but most downloads run in the background, where speed
// disturbs the tests.
type Queue struct {
	client  *Client
	sources []source.Source
	o       QueueOptions
	gate    Gate
	low     *background

	ctx    context.Context // ends with Close
	cancel context.CancelCauseFunc
	joined sync.WaitGroup
	wake   chan struct{} // holds one value if there may be work
	once   sync.Once     // for Start

	mu       sync.Mutex
	entries  []entry
	current  int                     // index of the entry that is being downloaded; -1 if none is
	stop     context.CancelCauseFunc // ends the current download
	progress Progress                // of the current download
	started  time.Time               // zero before Start
	at       time.Time               // the pacer has counted time until here
	pace     pacer
	timing   bool        // a repetition is being timed
	timed    bool        // timing, or a gap that is too short to use
	free     bool        // downloads continue until the next gap
	gap      *time.Timer // ends timed
	tick     *time.Timer // calls control again
	hold     Hold
	closed   bool
}

// entry is what the queue knows of one source.
type entry struct {
	done     chan struct{} // closed when file and err are final; replaced if a failure is tried again
	file     File
	err      error
	waiters  int       // calls of Wait
	deadline time.Time // the latest deadline of the waiters; zero without one
	again    time.Time // when a failed attempt may be repeated; zero if none failed
	last     error     // of the previous attempt
	bytes    int64     // of all its files; 0 if unknown
	have     int64     // bytes of them that are here
}

func (e *entry) final() bool {
	select {
	case <-e.done:
		return true
	default:
		return false
	}
}

// Prefetch makes a queue of sources, which are fetched in this order. Local
// sources are read at once. Nothing is downloaded before Start or the first Wait.
// The end of ctx closes the queue; Close must be called in any case.
func (c *Client) Prefetch(ctx context.Context, sources []source.Source, o QueueOptions) *Queue {
	q := &Queue{client: c, sources: sources, o: o, wake: make(chan struct{}, 1), current: -1, hold: Free,
		entries: make([]entry, len(sources))}
	q.ctx, q.cancel = context.WithCancelCause(ctx)
	for i, src := range sources {
		e := &q.entries[i]
		e.done = make(chan struct{})
		if i < len(o.Sizes) && o.Sizes[i].Err == nil {
			e.bytes, e.have = o.Sizes[i].Bytes, o.Sizes[i].Bytes-o.Sizes[i].Missing
		}
		if src.Local() {
			e.file, e.err = Local(src.Path)
			close(e.done)
		}
	}
	q.o.Fetch.Gate, q.o.Fetch.Deadline = &q.gate, time.Time{}
	return q
}

// Start begins the downloads. Further calls do nothing.
func (q *Queue) Start() {
	q.once.Do(func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		if q.closed {
			return
		}
		q.started, q.at = time.Now(), time.Now()
		q.low = startBackground()
		q.joined.Add(1)
		go q.loop()
		q.control()
	})
}

// loop is the queue's goroutine.
func (q *Queue) loop() {
	defer q.joined.Done()
	defer q.low.stop()
	for {
		i, ctx, again := q.next()
		if i < 0 {
			var later <-chan time.Time
			if !again.IsZero() {
				later = time.After(time.Until(again))
			}
			select {
			case <-q.wake:
			case <-later:
			case <-q.ctx.Done():
				q.finish()
				return
			}
			continue
		}
		q.fetch(ctx, i)
	}
}

// next picks the entry that somebody waits for, else the first that is not here.
// The context is for its download. If pick is -1, there is none until the time
// again; a zero again means that there is none at all.
func (q *Queue) next() (pick int, _ context.Context, again time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ctx.Err() != nil {
		return -1, nil, again
	}
	pick = -1
	for i := range q.entries {
		e := &q.entries[i]
		switch {
		case e.final():
		case e.waiters == 0 && time.Now().Before(e.again):
			if again.IsZero() || e.again.Before(again) {
				again = e.again
			}
		case pick < 0 || e.waiters > 0 && q.entries[pick].waiters == 0:
			pick = i
		}
	}
	if pick < 0 {
		return -1, nil, again
	}
	ctx, stop := context.WithCancelCause(q.ctx)
	q.current, q.stop, q.progress = pick, stop, Progress{}
	q.control()
	return pick, ctx, again
}

// fetch gets one file and keeps the outcome.
func (q *Queue) fetch(ctx context.Context, i int) {
	o := q.o.Fetch
	o.Progress = func(p Progress) { q.progressed(i, p) }
	o.hooks = hooks{
		do: func(work func()) {
			if q.waitedFor(i) {
				work()
			} else {
				q.low.run(work)
			}
		},
		deadline: func() time.Time {
			q.mu.Lock()
			defer q.mu.Unlock()
			return q.entries[i].deadline
		},
		waiting: func(until time.Time, after error) {
			q.mu.Lock()
			defer q.mu.Unlock()
			e := &q.entries[i]
			e.again, e.last = until, after
			if e.waiters == 0 && time.Until(until) > longestWait {
				q.stop(errPutOff) // the server asks for a long pause; use it for other files
			}
		},
	}
	file, err := q.client.Fetch(ctx, q.sources[i], q.o.Dir, o)

	q.mu.Lock()
	defer q.mu.Unlock()
	e := &q.entries[i]
	q.stop(nil)
	q.current, q.stop = -1, nil
	putOff := err != nil && (errors.Is(err, errPutOff) || q.ctx.Err() != nil)
	if !e.final() && !putOff {
		e.file, e.err = file, err
		close(e.done)
	}
	q.control()
}

// progressed takes note of a download's progress.
func (q *Queue) progressed(i int, p Progress) {
	q.mu.Lock()
	defer q.mu.Unlock()
	e := &q.entries[i]
	e.bytes, e.have, e.again = p.Total, p.Done, time.Time{}
	q.progress = p
	if p.link > 0 {
		q.pace.link = p.link
	}
	q.control()
}

func (q *Queue) waitedFor(i int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.entries[i].waiters > 0
}

// Wait returns the verified file of source i when it is here. Until then its
// download comes before all others, at full speed and normal priority. It is
// given up within seconds if the server is dead or the deadline is out of reach;
// a zero deadline is none. A failure in the background is tried once more if that
// may help; otherwise Wait returns it. Errors are those of Fetch, ErrClosed, and
// the cause of ctx, which ends the Wait but not the download.
func (q *Queue) Wait(ctx context.Context, i int, deadline time.Time) (File, error) {
	if i < 0 || i >= len(q.sources) {
		return File{}, fmt.Errorf("%w: no source %d in a queue of %d", ErrNotFound, i, len(q.sources))
	}
	q.mu.Lock()
	e := &q.entries[i]
	local := q.sources[i].Local()
	if !local && e.final() && e.waiters == 0 && !q.closed && (errors.Is(e.err, ErrUnavailable) || errors.Is(e.err, ErrNoDisk)) {
		e.done, e.file, e.err = make(chan struct{}), File{}, nil
	}
	done := e.done
	if e.final() {
		defer q.mu.Unlock()
		q.nextModel()
		return e.file, e.err
	}
	if q.closed {
		defer q.mu.Unlock()
		return File{}, ErrClosed
	}
	q.count()
	e.waiters++
	switch {
	case e.waiters == 1:
		e.deadline = deadline
	case deadline.IsZero() || e.deadline.IsZero():
		e.deadline = time.Time{}
	case deadline.After(e.deadline):
		e.deadline = deadline
	}
	switch {
	case q.current >= 0 && q.current != i && q.entries[q.current].waiters == 0:
		q.stop(errPutOff)
	case q.current == i && !deadline.IsZero() && e.again.After(deadline):
		q.stop(&HopelessError{Done: e.have, Total: e.bytes, Left: time.Until(deadline), Last: e.last})
	}
	q.control()
	q.mu.Unlock()
	q.Start()
	q.poke()
	defer q.leave(i)

	var late <-chan time.Time
	if !deadline.IsZero() {
		t := time.NewTimer(time.Until(deadline))
		defer t.Stop()
		late = t.C
	}
	for {
		select {
		case <-done:
			q.mu.Lock()
			defer q.mu.Unlock()
			return e.file, e.err
		case <-ctx.Done():
			return File{}, context.Cause(ctx)
		case <-late:
			late = nil
			if err := q.tooLate(i); err != nil {
				return File{}, err
			}
		}
	}
}

// tooLate ends a Wait at its deadline. If the download itself has that deadline,
// it is ended instead, and its error reaches the Wait at once.
func (q *Queue) tooLate(i int) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	e := &q.entries[i]
	switch {
	case e.final(), !e.deadline.IsZero() && q.current == i && !time.Now().Before(e.deadline):
		if q.current == i {
			q.stop(ErrHopeless)
		}
		return nil
	default: // it has not begun, or another Wait has a later deadline
		return &HopelessError{Done: e.have, Total: e.bytes, BytesPerSecond: q.pace.link, Last: e.last}
	}
}

// leave is called at the end of a Wait.
func (q *Queue) leave(i int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.count()
	e := &q.entries[i]
	if e.waiters--; e.waiters == 0 {
		e.deadline = time.Time{}
	}
	q.nextModel()
}

// nextModel starts to count the time of a model's tests.
func (q *Queue) nextModel() {
	if !q.started.IsZero() {
		q.count()
	}
	q.pace.spent, q.pace.left = 0, 0
	q.control()
}

// Timing says whether a repetition is being timed from now on.
func (q *Queue) Timing(on bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || q.timing == on {
		return
	}
	q.count()
	q.timing = on
	if q.gap != nil {
		q.gap.Stop()
	}
	if on {
		q.timed = true
	} else {
		q.gap = time.AfterFunc(shortGap, func() {
			q.mu.Lock()
			defer q.mu.Unlock()
			if !q.timing {
				q.count()
				q.timed, q.free = false, false
				q.control()
			}
		})
	}
	q.control()
}

// Expect says how much longer the tests of the current model will take. 0 is
// unknown.
func (q *Queue) Expect(left time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.count()
	q.pace.left = max(left, 0)
	q.control()
}

// State is what the queue is doing now.
func (q *Queue) State() QueueState {
	q.mu.Lock()
	defer q.mu.Unlock()
	return QueueState{q.current, q.progress, q.hold}
}

// Passed is the number of bytes that all downloads have taken so far. A buffer
// that was on its way when a pause began counts when the pause ends.
func (q *Queue) Passed() int64 {
	q.gate.mu.Lock()
	defer q.gate.mu.Unlock()
	return q.gate.passed
}

// Close ends the downloads and the queue's goroutines. Partial files stay. It may
// be called again.
func (q *Queue) Close() {
	q.mu.Lock()
	q.closed = true
	for _, t := range []*time.Timer{q.gap, q.tick} {
		if t != nil {
			t.Stop()
		}
	}
	q.mu.Unlock()
	q.cancel(ErrClosed)
	q.joined.Wait()
	q.finish()
}

// finish gives every entry that has not arrived the error of the closed queue.
func (q *Queue) finish() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	for i := range q.entries {
		if e := &q.entries[i]; !e.final() {
			e.err = context.Cause(q.ctx)
			close(e.done)
		}
	}
}

// poke wakes the loop.
func (q *Queue) poke() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// count tells the pacer how much time has passed. The caller holds mu.
func (q *Queue) count() {
	if q.started.IsZero() {
		return
	}
	now := time.Now()
	q.pace.seen(now.Sub(q.at), q.timed && q.current >= 0, q.waiting(), q.hold)
	q.at = now
}

func (q *Queue) waiting() bool {
	for i := range q.entries {
		if q.entries[i].waiters > 0 {
			return true
		}
	}
	return false
}

// control opens or closes the gate. It is called whenever something changes, and
// every second during timed repetitions. The caller holds mu.
func (q *Queue) control() {
	if q.closed || q.started.IsZero() {
		return
	}
	q.count()
	hold := Free
	if q.timed && !q.waiting() && !q.o.SpareCPUs && q.current >= 0 {
		switch {
		case q.o.Force != Auto:
			hold = q.o.Force
		case q.free: // until the gap: better to disturb one whole test than a piece of every test
		default:
			hold = q.pace.hold(q.needs())
			q.free = hold == Free
		}
		if q.tick == nil {
			q.tick = time.AfterFunc(time.Second, func() {
				q.mu.Lock()
				defer q.mu.Unlock()
				q.control()
			})
		} else {
			q.tick.Reset(time.Second)
		}
	}
	if hold == Paused {
		q.gate.Pause()
	} else {
		q.gate.Resume()
	}
	q.hold = hold
}

// needs are the files still to come.
func (q *Queue) needs() (all []need) {
	for i := range q.entries {
		switch e := &q.entries[i]; {
		case e.final():
		case e.bytes == 0:
			all = append(all, -1)
		default:
			all = append(all, need(e.bytes-e.have))
		}
	}
	return all
}
