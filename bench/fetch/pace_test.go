package fetch

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// modelled is one model of a modelled run: its file and how long its tests take.
type modelled struct {
	bytes float64
	tests time.Duration
}

// twoCores is a run on two cores, fastServer one on a machine that has computed
// everything but the largest model when an average link has brought it.
var (
	twoCores = []modelled{{105e6, 700 * time.Second}, {407e6, 900 * time.Second}, {1.5e9, 700 * time.Second},
		{4.08e9, 400 * time.Second}, {9.05e9, 200 * time.Second}}
	fastServer = []modelled{{105e6, 60 * time.Second}, {407e6, 90 * time.Second}, {1.5e9, 150 * time.Second},
		{4.08e9, 250 * time.Second}, {9.05e9, 400 * time.Second}, {42.5e9, 900 * time.Second}}
	tiny = []modelled{{105e6, 5 * time.Second}, {407e6, 8 * time.Second}, {1.5e9, 10 * time.Second},
		{4.08e9, 15 * time.Second}, {9.05e9, 20 * time.Second}, {42.5e9, 60 * time.Second}}
)

// simulate is the wall time of a run over a link in bytes per second, of whose
// tests a share is timed, and how long downloads were held in each way.
func simulate(run []modelled, link, timedShare float64, restricted bool) (wall time.Duration, held map[Hold]time.Duration) {
	const step = 200 * time.Millisecond
	p := pacer{}
	missing := make([]float64, len(run))
	for i, m := range run {
		missing[i] = m.bytes
	}
	download := func(rate float64) {
		todo := rate * step.Seconds()
		for i := range missing {
			n := min(todo, missing[i])
			missing[i], todo = missing[i]-n, todo-n
		}
	}
	held = make(map[Hold]time.Duration)
	for i, m := range run {
		for missing[i] > 0 {
			download(link)
			p.link = link
			p.seen(step, false, true, Free)
			wall += step
		}
		p.spent, p.left = 0, 0
		free := false // as in Queue: until the gap
		const cycle = 50
		for t := time.Duration(0); t < m.tests; t += step {
			p.left = m.tests - t
			timed := float64(int(t/step)%cycle) >= (1-timedShare)*cycle
			var needs []need
			for _, n := range missing {
				if n > 0 {
					needs = append(needs, need(n))
				}
			}
			h, rate := Free, link
			if restricted && timed && len(needs) > 0 {
				if !free {
					h = p.hold(needs)
				}
				free = h == Free
				if h == Paused {
					rate = 0
				}
			} else {
				free = false
			}
			if timed && len(needs) > 0 {
				held[h] += step
			}
			download(rate)
			p.seen(step, timed && len(needs) > 0, false, h)
			wall += step
		}
	}
	return wall, held
}

// Keeping downloads off timed repetitions makes a run at most 5 % longer.
func TestWallOfModelledRuns(t *testing.T) {
	for name, run := range map[string][]modelled{"two cores": twoCores, "fast server": fastServer, "tests of seconds": tiny} {
		for _, link := range []float64{158e6, 11.7e6} {
			free, _ := simulate(run, link, 0.88, false)
			kept, held := simulate(run, link, 0.88, true)
			ratio := kept.Seconds() / free.Seconds()
			t.Logf("%s, %.1f MB/s: %v unrestricted, %v kept off, ratio %.3f; timed repetitions: %v", name, link/1e6, free, kept, ratio, held)
			if ratio > 1.05 {
				t.Errorf("%s, %.1f MB/s: ratio %.3f", name, link/1e6, ratio)
			}
			if held[Paused] == 0 {
				t.Errorf("%s, %.1f MB/s: nothing was held back", name, link/1e6)
			}
		}
	}
}

// The same for any run in which a model's tests take as long as those of the one
// before, or longer, and for any link and share of timed repetitions.
func TestWallOfAnyGrowingRun(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var run []modelled
		bytes, tests := 1e8, 10.0
		for range rapid.IntRange(1, 6).Draw(t, "models") {
			bytes *= rapid.Float64Range(1, 5).Draw(t, "growth of the file")
			tests *= rapid.Float64Range(1, 3).Draw(t, "growth of the tests")
			run = append(run, modelled{bytes, time.Duration(tests * float64(time.Second))})
		}
		link := rapid.Float64Range(2e6, 5e8).Draw(t, "link")
		share := rapid.Float64Range(0.3, 0.97).Draw(t, "timed")
		free, _ := simulate(run, link, share, false)
		kept, _ := simulate(run, link, share, true)
		if kept.Seconds() > 1.05*free.Seconds()+1 { // the step's
			t.Errorf("%v, not %v", kept, free)
		}
	})
}

func TestHold(t *testing.T) {
	known := pacer{link: 100e6, elapsed: time.Hour, untimed: 6 * time.Minute, total: time.Hour}
	for name, tt := range map[string]struct {
		change func(*pacer)
		needs  []need
		want   Hold
	}{
		"time enough":                   {func(p *pacer) { p.left = 10 * time.Minute }, []need{4e9}, Paused},
		"nothing to come":               {func(p *pacer) { p.left = time.Minute }, nil, Paused},
		"too late, and little was lost": {func(p *pacer) { p.left = time.Minute }, []need{60e9}, Paused},
		"too late, and much was lost":   {func(p *pacer) { p.left, p.lost = time.Minute, 1000 }, []need{60e9}, Free},
		"a rest that costs little":      {func(p *pacer) { p.left, p.lost = time.Second, 1000 }, []need{10e9}, Paused},
		"a file of unknown size":        {func(p *pacer) { p.left = time.Hour }, []need{-1}, Paused},
		"a link of unknown rate":        {func(p *pacer) { p.left, p.link = time.Hour, 0 }, []need{1}, Paused},
		"and it stays unknown":          {func(p *pacer) { p.link, p.lost = 0, 1000 }, []need{1}, Free},
		"a later file is too large":     {func(p *pacer) { p.left, p.lost = 10*time.Minute, 1000 }, []need{1e6, 60e9}, Free},
		"as long again as so far":       {func(p *pacer) { p.spent, p.lost = 10*time.Minute, 1000 }, []need{4e9}, Paused},
		"nothing known of the tests":    {func(p *pacer) { p.lost = 1000 }, []need{40e9}, Free},
	} {
		t.Run(name, func(t *testing.T) {
			p := known
			tt.change(&p)
			if got := p.hold(tt.needs); got != tt.want {
				t.Error(got)
			}
		})
	}
}
