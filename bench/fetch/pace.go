package fetch

import "time"

// Hold says whether a queue's downloads are paused.
type Hold int

// The holds. Auto is for QueueOptions.Force only.
const (
	Auto Hold = iota
	Free
	Paused
)

func (h Hold) String() string {
	return [...]string{"auto", "free", "paused"}[h]
}

const (
	// pauseMargin is the share of the expected time within which a download must
	// finish to be in time: tests may be stopped early, and rates vary.
	pauseMargin = 0.8
	// lostShare is the share of the run's wall time that pauses may cost.
	lostShare = 0.04
	// Until more was measured, a tenth of the time is assumed to be untimed.
	priorUntimed = 6 * time.Second
	priorTotal   = 60 * time.Second
	// shortGap is the length of a gap between repetitions that is not used for
	// downloads: a connection whose window opens for milliseconds sends its bytes
	// during the next repetition.
	shortGap = 100 * time.Millisecond
)

// pacer decides whether downloads are paused while a repetition is timed. It has
// no clock and no side effects, so a whole run can be simulated with it.
//
// Downloads are paused during timed repetitions if all remaining files still arrive
// before they are needed. Otherwise pausing makes the run longer. It may do so by
// lostShare of the run so far. After that, one test at a time runs beside downloads,
// from the decision to its end. Its samples say how many bytes came beside each
// (downloaded_bytes). Downloads are never slowed down instead: at 4 MB/s, tests that
// use all CPUs are already measurably slower. It is better to disturb a few
// repetitions than to disturb all of them a little.
type pacer struct {
	link    float64       // bytes per second of network and disk; 0 if unknown
	untimed time.Duration // time in which downloads were free, without waits for them
	total   time.Duration // untimed and timed
	elapsed time.Duration // of the run, waits included
	lost    float64       // seconds in which the link was not used

	spent time.Duration // on the tests of the current model so far
	left  time.Duration // that these tests still need; 0 if unknown
}

// seen counts time that has passed under a hold. waiting says whether somebody
// waited for a file.
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

// need is the number of bytes that a file still needs; -1 if unknown.
type need int64

// hold decides for a timed repetition. needs are the files of the models after the
// current one, in order.
func (p *pacer) hold(needs []need) Hold {
	lost := p.lost
	if p.link > 0 {
		idle := float64(p.untimed+priorUntimed) / float64(p.total+priorTotal)
		if p.inTime(needs, idle*p.link) {
			return Paused
		}
		rest := 0.0
		for _, n := range needs {
			rest += max(0, float64(n)) / p.link
		}
		// The remaining files cannot cost more time than it takes to fetch them.
		lost = min(lost, rest)
	}
	if lost > lostShare*p.elapsed.Seconds() {
		return Free
	}
	return Paused
}

// inTime reports whether all files arrive before their models' turn, at a rate in
// bytes per second. It assumes that the tests of every model take as long as those
// of the current one.
func (p *pacer) inTime(needs []need, rate float64) bool {
	left := p.left
	if left == 0 { // assume that half of the tests are done
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
