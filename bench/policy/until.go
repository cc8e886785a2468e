package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/stats"
)

// Until asks for repetitions until the median of the speed is known well enough. Its
// decision depends on its arguments alone, so a test that is continued after an
// interruption ends as it would have ended without it.
type Until struct {
	// Within is the wanted precision: half the width of the median's interval as a
	// share of the median, in (0, 1). 0.01 is ±1 %.
	Within float64 `json:"within"`
	// MaxRepetitions ends the test; at least 1.
	MaxRepetitions int `json:"max_repetitions"`
	// MaxTime ends the test when its repetitions have taken so long; 0: only the
	// test's budget does.
	MaxTime time.Duration `json:"max_time_ns,omitempty"`
}

// MaxUntilRepetitions bounds Until.MaxRepetitions.
const MaxUntilRepetitions = 10_000

// DefaultUntil is a precision with the default bounds.
func DefaultUntil(within float64) Until { return Until{Within: within, MaxRepetitions: 100} }

// ParseWithin reads a precision such as "1%", "0.5 %" or "±2%".
func ParseWithin(text string) (within float64, err error) {
	number, ok := strings.CutSuffix(strings.TrimSpace(text), "%")
	if !ok {
		return 0, fmt.Errorf("%q has no %%: 1%% stands for ±1 %% of the median", text)
	}
	percent, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimPrefix(number, "±")), 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a percentage", text)
	}
	u := DefaultUntil(percent / 100)
	return u.Within, u.Validate()
}

// Validate refuses values that no test can reach or that end no test.
func (u Until) Validate() error {
	switch {
	case !(u.Within >= 0.0001 && u.Within <= 0.5):
		return fmt.Errorf("%g %% is outside 0.01 %%…50 %%", u.Within*100)
	case u.MaxRepetitions < 1 || u.MaxRepetitions > MaxUntilRepetitions:
		return fmt.Errorf("%d repetitions are outside 1…%d", u.MaxRepetitions, MaxUntilRepetitions)
	case u.MaxTime < 0:
		return fmt.Errorf("%v is negative", u.MaxTime)
	}
	return nil
}

// Confidence of the interval that Until judges. Fewer than six repetitions cannot
// reach it.
const untilConfidence = 0.95

const (
	// untilInARow is how many repetitions in a row must find the interval narrow
	// enough. One alone stops when the interval is narrow by chance: of 3,000 simulated
	// samples with a coefficient of variation of 2 %, it then covered the true median in
	// 93 % of cases instead of 95 %, and in 95 % with two.
	untilInARow = 2

	// noiseFrom is the number of repetitions from which their spread shows how many would be
	// needed. noiseFactor is by how much that must exceed MaxRepetitions before the
	// test ends early.
	noiseFrom   = 20
	noiseFactor = 2
)

// Enough decides whether a test has enough repetitions. least is the number that it
// gets in any case. left is the time left of its budget; limited is false if there is
// no limit.
func (u Until) Enough(repetitions []time.Duration, least int, left time.Duration, limited bool) (p result.Precision, enough bool) {
	n := len(repetitions)
	p.Wanted = u.Within
	if reached, dependence, ok := precision(repetitions); ok {
		p.Reached, p.Dependence = &reached, dependence
	}
	if n < least {
		return p, false
	}
	var spent time.Duration
	for _, d := range repetitions {
		spent += d
	}
	switch {
	case u.inARow(repetitions, u.reached):
		p.StoppedBy = result.StoppedByPrecision
	case n >= u.MaxRepetitions:
		p.StoppedBy = result.StoppedByRepetitions
	case u.MaxTime > 0 && spent >= u.MaxTime, limited && n > 0 && left < slices.Max(repetitions):
		p.StoppedBy = result.StoppedByTime
	case n >= noiseFrom && u.inARow(repetitions, func(r []time.Duration) bool { return u.needed(r) > noiseFactor*float64(u.MaxRepetitions) }):
		p.StoppedBy = result.StoppedByNoise
	}
	return p, p.StoppedBy != ""
}

// inARow tells whether is holds now and held after each of the repetitions before.
func (u Until) inARow(repetitions []time.Duration, is func([]time.Duration) bool) bool {
	n := len(repetitions)
	for back := range untilInARow {
		if n-back < 1 || !is(repetitions[:n-back]) {
			return false
		}
	}
	return true
}

// reached tells whether the interval is narrow enough.
func (u Until) reached(repetitions []time.Duration) bool {
	reached, _, ok := precision(repetitions)
	return ok && reached <= u.Within
}

// needed is the number of repetitions after which the interval would be narrow enough
// if the spread stays as it is: the width falls with the square root of their number.
// It is 0 if nothing is known yet.
func (u Until) needed(repetitions []time.Duration) float64 {
	reached, _, _ := precision(repetitions)
	ratio := reached / u.Within
	return float64(len(repetitions)) * ratio * ratio
}

// precision is half the width of the interval of the median speed, as a share of the
// median, and the dependence of the repetitions. ok is false if there are too few
// repetitions for the confidence.
func precision(repetitions []time.Duration) (reached, dependence float64, ok bool) {
	speeds := make([]float64, len(repetitions))
	for i, d := range repetitions {
		if d <= 0 {
			return 0, 0, false
		}
		speeds[i] = 1 / d.Seconds()
	}
	s, err := stats.New(speeds)
	if err != nil {
		return 0, 0, false
	}
	ci, ok := s.MedianCIDependent(untilConfidence)
	if !ok || ci.Confidence < untilConfidence {
		return 0, 0, false
	}
	median := s.Median()
	return max(ci.High-median, median-ci.Low) / median, s.Dependence(), true
}

// stableWithin is the difference, as a share, up to which two passes in a row count as
// equally fast. The median coefficient of variation of published records is 1.1 %.
const stableWithin = 0.02

// Stable tells whether a warm-up is over: the last pass was about as fast as the one
// before. Two passes are the fewest that can show it.
func Stable(passes []time.Duration) bool {
	n := len(passes)
	if n < 2 || passes[n-2] <= 0 {
		return false
	}
	change := passes[n-1].Seconds()/passes[n-2].Seconds() - 1
	return max(change, -change) <= stableWithin
}
