package fetch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/sparecores/benchmark-llm/bench/gguf"
)

// Item is one model of a Queue, in one file or in several.
type Item struct {
	Source Source // of the first
	SHA256 string // hexadecimal, of a single file; empty is what the hub says
}

// QueueOptions are those of Prefetch.
type QueueOptions struct {
	Dir       string           // models directory
	Fetch     Options          // of each file; Gate, Deadline, SHA256 and Progress are the queue's
	SpareCPUs bool             // the engine leaves CPUs idle: downloads go on beside timed repetitions
	Event     func(QueueEvent) // from the queue's goroutine; must not call Close or Wait
	Force     Hold             // what a timed repetition does to downloads, for experiments; Auto decides by what was seen
}

// EventKind is what a QueueEvent tells.
type EventKind string

// The kinds of events.
const (
	ItemStarted  EventKind = "started"
	ItemProgress EventKind = "progress" // about once a second while bytes arrive
	ItemDone     EventKind = "done"
	ItemFailed   EventKind = "failed" // unless it was skipped or put off
)

// QueueEvent is a step of a Queue. Local sources have none.
type QueueEvent struct {
	Kind     EventKind
	Item     int      // its index
	Source   Source   //
	Progress Progress // of ItemProgress
	File     File     // of ItemDone
	Err      error    // of ItemFailed, without secrets
}

// QueueState is what a Queue does.
type QueueState struct {
	Item     int      // that is on its way; -1 is none
	Progress Progress // of it
	Hold     Hold     // Free or Paused
	Reason   string   // of the hold, for a reader; empty when free
}

// ErrSkipped is an item that was given up with Skip.
var ErrSkipped = errors.New("the file is not wanted any more")

// ErrClosed is an item of a queue that was closed before it was here.
var ErrClosed = errors.New("the download queue was closed")

// errPutOff ends a download in favour of one that somebody waits for.
var errPutOff = errors.New("put off for a file that is waited for")

// Queue fetches files in the background, one after the other. Its methods may be
// called from any goroutine.
//
// A file is fetched over one connection. Several would multiply what a server
// gives that limits each of them; but most of a run's downloads are in the
// background, where a faster one disturbs more, and 3,524 recorded runs got a
// median of 158 MB/s. Whether the hub's servers limit a connection is not known.
type Queue struct {
	client *Client
	items  []Item
	o      QueueOptions
	gate   Gate
	low    *background

	ctx    context.Context // ends with Close
	cancel context.CancelCauseFunc
	joined sync.WaitGroup
	wake   chan struct{} // of one: there may be something to do
	once   sync.Once     // Start

	mu       sync.Mutex
	entries  []entry
	current  int                     // -1 is none
	stop     context.CancelCauseFunc // of the current item
	progress Progress                // of the current item
	started  time.Time               // zero before Start
	at       time.Time               // counted until here
	pace     pacer
	timing   bool
	timed    bool        // timing, or so shortly after it that it counts as such
	free     bool        // this timed phase goes on beside a download
	gap      *time.Timer // ends timed
	tick     *time.Timer // decides again
	hold     Hold
	reason   string
	closed   bool
}

// entry is what is known of an item.
type entry struct {
	done     chan struct{} // closed when file and err are final; guarded like them, for a failure may be tried again
	file     File
	err      error
	waiters  int
	deadline time.Time // the latest of the waiters'; zero with none
	again    time.Time // when the next attempt may start, where one failed; else zero
	last     error     // of the attempt before
	bytes    int64     // of all its files; 0 is unknown
	have     int64     // of them
}

func (e *entry) final() bool {
	select {
	case <-e.done:
		return true
	default:
		return false
	}
}

// Prefetch makes a queue of items, which are fetched in order; files of this
// machine are looked up at once. Nothing is downloaded before Start or the first
// Wait. ctx ends the queue like Close, which must be called in any case.
func (c *Client) Prefetch(ctx context.Context, items []Item, o QueueOptions) *Queue {
	q := &Queue{client: c, items: items, o: o, wake: make(chan struct{}, 1), current: -1, hold: Free,
		entries: make([]entry, len(items))}
	q.ctx, q.cancel = context.WithCancelCause(ctx)
	for i, item := range items {
		q.entries[i].done = make(chan struct{})
		if item.Source.Local() {
			q.entries[i].file, q.entries[i].err = Local(item.Source.Path)
			close(q.entries[i].done)
		}
	}
	q.o.Fetch.Gate, q.o.Fetch.Deadline = &q.gate, time.Time{}
	return q
}

// Start lets downloads begin; further calls do nothing.
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

// next picks the item that is waited for, else the first that is not here; -1
// is none until the time again, or for ever if that is zero. The context is the
// item's.
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

// fetch gets one item and keeps what came of it.
func (q *Queue) fetch(ctx context.Context, i int) {
	item := q.items[i]
	q.event(QueueEvent{Kind: ItemStarted, Item: i})
	o := q.o.Fetch
	o.SHA256 = item.SHA256
	o.Progress = func(p Progress) { q.told(i, p) }
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
				q.stop(errPutOff) // the server wants to be left alone: others may go on
			}
		},
	}
	file, err := q.client.Fetch(ctx, item.Source, q.o.Dir, o)

	q.mu.Lock()
	e := &q.entries[i]
	q.stop(nil)
	q.current, q.stop = -1, nil
	putOff := err != nil && !e.final() && (errors.Is(err, errPutOff) || q.ctx.Err() != nil)
	tell := !e.final() && !putOff
	if tell {
		e.file, e.err = file, err
		close(e.done)
	}
	q.control()
	q.mu.Unlock()
	switch {
	case !tell:
	case err != nil:
		q.event(QueueEvent{Kind: ItemFailed, Item: i, Err: err})
	default:
		q.event(QueueEvent{Kind: ItemDone, Item: i, File: file})
	}
}

func (q *Queue) event(e QueueEvent) {
	if q.o.Event != nil {
		e.Source = q.items[e.Item].Source
		q.o.Event(e)
	}
}

func (q *Queue) told(i int, p Progress) {
	q.mu.Lock()
	e := &q.entries[i]
	e.bytes, e.have, e.again = p.Total, p.Done, time.Time{}
	q.progress = p
	if p.link > 0 {
		q.pace.link = p.link
	}
	q.control()
	q.mu.Unlock()
	q.event(QueueEvent{Kind: ItemProgress, Item: i, Progress: p})
}

func (q *Queue) waitedFor(i int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.entries[i].waiters > 0
}

// Wait returns an item's verified file when it is here. Until then its download
// comes before all others, at full speed and normal priority, and is given up
// within seconds when it is dead, or hopeless against a deadline; a zero deadline
// is none. What failed in the background is tried once more if that may help. A
// Wait after the item's failure returns that failure. Errors are those of Fetch,
// ErrSkipped, ErrClosed, and the cause of ctx, which ends the Wait but not the
// download.
func (q *Queue) Wait(ctx context.Context, i int, deadline time.Time) (File, error) {
	if i < 0 || i >= len(q.items) {
		return File{}, fmt.Errorf("%w: no item %d in a queue of %d", ErrNotFound, i, len(q.items))
	}
	q.mu.Lock()
	e := &q.entries[i]
	local := q.items[i].Source.Local()
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

// tooLate gives an item up at its deadline.
func (q *Queue) tooLate(i int) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	e := &q.entries[i]
	switch {
	case e.final(), !e.deadline.IsZero() && q.current == i && !time.Now().Before(e.deadline):
		if q.current == i {
			q.stop(ErrHopeless)
		}
		return nil // done follows at once
	default: // not begun yet, or others wait for longer
		return &HopelessError{Done: e.have, Total: e.bytes, BytesPerSecond: q.pace.link, Last: e.last}
	}
}

// leave is the end of a Wait.
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

// nextModel starts counting the time of a model's tests.
func (q *Queue) nextModel() {
	if !q.started.IsZero() {
		q.count()
	}
	q.pace.spent, q.pace.left = 0, 0
	q.control()
}

// Skip gives an item up: its download ends, its part stays, its Wait returns
// ErrSkipped. An item that is here already stays so.
func (q *Queue) Skip(i int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if i < 0 || i >= len(q.entries) || q.entries[i].final() {
		return
	}
	e := &q.entries[i]
	e.err = ErrSkipped
	close(e.done)
	if q.current == i {
		q.stop(ErrSkipped)
	}
	q.control()
}

// Timing tells that a repetition is being timed, or no longer is.
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

// Expect tells how long the tests of the current model still take, from now;
// 0 is unknown.
func (q *Queue) Expect(left time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.count()
	q.pace.left = max(left, 0)
	q.control()
}

// State is what the queue does now.
func (q *Queue) State() QueueState {
	q.mu.Lock()
	defer q.mu.Unlock()
	return QueueState{q.current, q.progress, q.hold, q.reason}
}

// Passed is how many bytes all downloads took so far, those of a pause excluded:
// the buffer that was under way when it began counts when it ends.
func (q *Queue) Passed() int64 {
	q.gate.mu.Lock()
	defer q.gate.mu.Unlock()
	return q.gate.passed
}

// Close ends the downloads, whose parts stay, and the queue's goroutines. It may
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

// finish ends the items that never came.
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

func (q *Queue) poke() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// count brings the pacer up to now.
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

// control sets the gate. It holds until something changes or a second passes.
func (q *Queue) control() {
	if q.closed || q.started.IsZero() {
		return
	}
	q.count()
	hold, reason := Free, ""
	if q.timed && !q.waiting() && !q.o.SpareCPUs && q.current >= 0 {
		switch {
		case q.o.Force != Auto:
			hold, reason = q.o.Force, "told so"
		case q.free: // until the gap: rather one test beside a download than a piece of every test
			hold, reason = q.hold, q.reason
		default:
			hold, reason = q.pace.hold(q.needs())
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
	q.hold, q.reason = hold, reason
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

// Totals are what a queue has to download.
type Totals struct {
	Bytes   int64       // that are missing, as far as known
	Files   int         // that they belong to
	Unknown int         // files whose size could not be had; they are not in Bytes
	Free    int64       // bytes on the file system of the directory, without the reserve
	Items   []ItemTotal // one for each item
}

// ItemTotal is one item's part of Totals.
type ItemTotal struct {
	Bytes   int64 // of its files; 0 is unknown
	Missing int64 // of them
	Files   int   // that these belong to
	NoRoom  bool  // it does not fit beside the items before it
	Err     error // why the size is unknown, as of Fetch
}

// Total asks for the sizes of what is missing, all at once, and looks whether it
// fits the disk; files that are here cost nothing. It downloads nothing. The
// error is that of the file system; what a server says wrong is in ItemTotal.Err.
func (q *Queue) Total(ctx context.Context) (Totals, error) {
	t := Totals{Items: make([]ItemTotal, len(q.items))}
	var asked sync.WaitGroup
	for i, item := range q.items {
		if item.Source.Local() {
			t.Items[i] = ItemTotal{Bytes: q.entries[i].file.Bytes, Err: q.entries[i].err}
			continue
		}
		asked.Go(func() { t.Items[i] = q.total(ctx, item.Source) })
	}
	asked.Wait()
	if ctx.Err() != nil {
		return Totals{}, context.Cause(ctx)
	}

	q.mu.Lock()
	for i, item := range t.Items {
		if e := &q.entries[i]; e.bytes == 0 && item.Err == nil {
			e.bytes, e.have = item.Bytes, item.Bytes-item.Missing
		}
	}
	q.mu.Unlock()

	var err error
	if t.Free, err = q.room(); err != nil {
		return Totals{}, err
	}
	used := int64(0)
	for i := range t.Items {
		item := &t.Items[i]
		switch {
		case item.Err != nil:
			t.Unknown++
			continue
		case item.Missing == 0:
			continue
		}
		t.Files += item.Files
		t.Bytes += item.Missing
		if item.NoRoom = used+item.Missing > t.Free; !item.NoRoom {
			used += item.Missing
		}
	}
	return t, nil
}

// total asks for the size of one model.
func (q *Queue) total(ctx context.Context, src Source) ItemTotal {
	if gguf.IsShard(src.Name()) {
		s, err := q.client.Survey(ctx, src, q.o.Dir)
		missing, files := s.Missing()
		return ItemTotal{Bytes: s.Bytes(), Missing: missing, Files: files, Err: err}
	}
	path := filepath.Join(q.o.Dir, src.Name())
	if _, bytes, err := readHeader(path); err == nil {
		return ItemTotal{Bytes: bytes}
	}
	remote, err := q.client.Probe(ctx, src)
	if err != nil {
		return ItemTotal{Err: err}
	}
	missing := remote.Bytes - partBytes(path, src, remote)
	return ItemTotal{Bytes: remote.Bytes, Missing: missing, Files: 1}
}

// room is what downloads may take of the disk. The directory need not exist yet.
func (q *Queue) room() (int64, error) {
	free := q.client.FreeBytes
	if free == nil {
		free = freeBytes
	}
	reserve := q.o.Fetch.ReserveBytes
	if reserve == 0 {
		reserve = DefaultReserveBytes
	}
	for dir := filepath.Clean(q.o.Dir); ; dir = filepath.Dir(dir) {
		got, err := free(dir)
		if err == nil {
			return max(0, got-reserve), nil
		}
		if !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			return 0, err
		}
	}
}

// partBytes is how much of a file an earlier download left.
func partBytes(path string, src Source, remote Remote) int64 {
	state, err := readRecord(path + partSuffix + ".json")
	if err != nil || state.Source != src.String() || state.Bytes != remote.Bytes || state.Validator != remote.validator {
		return 0
	}
	info, err := os.Stat(path + partSuffix)
	if err != nil || info.Size() > remote.Bytes {
		return 0
	}
	return info.Size()
}
