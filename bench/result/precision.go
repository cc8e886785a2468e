package result

// Precision says how precisely the median of a test is known that was repeated until it
// is known well enough, and why the repetitions ended.
type Precision struct {
	Wanted     float64   `json:"wanted"`               // half the width of the interval as a share of the median: 0.01 is ±1 %
	Reached    *float64  `json:"reached,omitempty"`    // the same, reached with a confidence of 0.95; absent for fewer than six repetitions
	Dependence float64   `json:"dependence,omitempty"` // autocorrelation of neighbouring repetitions, for which Reached allows; absent: none
	StoppedBy  StoppedBy `json:"stopped_by"`
}

// StoppedBy says why a test has no more repetitions.
type StoppedBy string

// The reasons.
const (
	StoppedByPrecision   StoppedBy = "precision"       // the wanted precision is reached
	StoppedByNoise       StoppedBy = "noise"           // at this spread, the most repetitions would not reach it
	StoppedByRepetitions StoppedBy = "max_repetitions" // the most repetitions are done
	StoppedByTime        StoppedBy = "max_time"        // the most time is used up, or the next repetition would exceed the budget
)
