package fetch

import (
	"fmt"
	"time"
)

// Hold is what keeps a queue's downloads back.
type Hold int

// The holds. Auto is for QueueOptions.Force only.
const (
	Auto Hold = iota
	Free      // nothing
	Paused
)

func (h Hold) String() string {
	return [...]string{"auto", "free", "paused"}[h]
}

const (
	// pauseMargin is the part of the expected time within which a download must
	// end to be called in time: tests are stopped early, and rates vary.
	pauseMargin = 0.8
	// lostShare is the part of the run's wall time that holding back may cost.
	lostShare = 0.04
	// Before much was seen, a tenth of the time is taken to be not timed.
	priorUntimed = 6 * time.Second
	priorTotal   = 60 * time.Second
	// shortGap is how long after a repetition the next may start without a
	// download in between: opening a connection's window for milliseconds only
	// moves its bytes into the next repetition.
	shortGap = 100 * time.Millisecond
)

// pacer decides what a timed repetition does to downloads. It holds no clock and
// does nothing, so a whole run can be replayed on it.
//
// A download is paused while repetitions are timed if all files still to come
// then arrive before they are needed. Where they do not, pausing makes the run
// longer, and it may do so by lostShare of the run so far: beyond, downloads run
// beside repetitions, at low priority. There is no rate in between: at 4 MB/s
// tests that used every CPU were measurably slower already, so the choice is
// between all repetitions a little wrong and few that are known to be.
type pacer struct {
	link    float64       // bytes per second of network and disk; 0 is unknown
	untimed time.Duration // in which downloads were free, waits for them excluded
	total   time.Duration // untimed and timed
	elapsed time.Duration // of the run, waits included
	lost    float64       // seconds of the link that were not used

	spent time.Duration // on the tests of the current model, so far
	left  time.Duration // that they still take, told at spent; 0 is unknown
}

// seen counts time that passed under a hold, with or without somebody waiting.
func (p *pacer) seen(t time.Duration, timed, waiting bool, h Hold) {
	p.elapsed += t
	if waiting {
		return
	}
	p.spent += t
	if p.left > 0 {
		p.left = max(p.left-t, time.Nanosecond)
	}
	p.total += t
	switch {
	case !timed:
		p.untimed += t
	case h == Paused:
		p.lost += t.Seconds()
	}
}

// need is one file to come, in bytes still missing; -1 is unknown.
type need int64

// hold is for a timed repetition; needs are the files of the models after the
// current one, in order.
func (p *pacer) hold(needs []need) (Hold, string) {
	lost, why := p.lost, "the link's rate is not known yet"
	if p.link > 0 {
		idle := float64(p.untimed+priorUntimed) / float64(p.total+priorTotal)
		if p.inTime(needs, idle*p.link) {
			return Paused, "the files still to come arrive in time"
		}
		rest := 0.0
		for _, n := range needs {
			rest += max(0, float64(n)) / p.link
		}
		// What is not here yet cannot cost more than to fetch it.
		lost, why = min(lost, rest), "the files still to come are late in any case"
	}
	if lost > lostShare*p.elapsed.Seconds() {
		return Free, fmt.Sprintf("pausing has cost %.0f s so far", lost)
	}
	return Paused, why
}

// inTime is whether all files arrive before their models' turn at a rate in
// bytes per second. Each model's tests are taken to last as long as the current
// one's.
func (p *pacer) inTime(needs []need, rate float64) bool {
	left := p.left
	if left == 0 { // what has lasted will last as long again
		left = p.spent
	}
	model := (p.spent + left).Seconds()
	turn := left.Seconds()
	bytes := 0.0
	for _, n := range needs {
		if n < 0 {
			return false
		}
		bytes += float64(n)
		if bytes > pauseMargin*turn*rate {
			return false
		}
		turn += model
	}
	return true
}
