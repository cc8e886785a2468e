package result

import "time"

// Sample is one timed repetition. It is on disk before the next burst of repetitions
// starts. All figures of a record are derived from its samples.
type Sample struct {
	Repetition int           `json:"repetition"` // from 1
	Start      time.Time     `json:"start"`      // wall clock, UTC, before the preparation; not used for timing
	Elapsed    time.Duration `json:"elapsed_ns"` // monotonic clock, nanoseconds

	Generated       *Generated `json:"generated,omitempty"`        // of an end-to-end test; nil for the others
	DownloadedBytes int64      `json:"downloaded_bytes,omitempty"` // by this program during the repetition

	Conditions *Conditions `json:"conditions,omitempty"` // of the machine, from the beginning of the burst; nil: not observed, or an earlier sample has those of the burst
}

// Generated is what one repetition of an end-to-end test generated.
type Generated struct {
	Tokens []int32         `json:"tokens"`
	At     []time.Duration `json:"at_ns"` // from the start of the repetition to the text of each token, monotonic clock
	Bytes  int64           `json:"bytes"` // of all text
}

// Elapsed lists the times of the samples, in their order.
func Elapsed(samples []Sample) []time.Duration {
	var times []time.Duration
	for _, s := range samples {
		times = append(times, s.Elapsed)
	}
	return times
}

// MaxGenerated bounds the tokens of all repetitions of an end-to-end test, because
// an event holds the time of each token.
const MaxGenerated = 1 << 17

// TokensPerSecond is the rate of a repetition of t that took elapsed. It is 0 when
// elapsed is not positive. It computes in the order of llama-bench, which makes
// all digits agree.
func (t Test) TokensPerSecond(elapsed time.Duration) float64 {
	if elapsed <= 0 {
		return 0
	}
	return 1e9 * float64(t.Tokens()) / float64(elapsed.Nanoseconds())
}

// Status tells how a test ended.
type Status string

// The statuses of a test. Only OK has a Record.
const (
	OK               Status = "ok"                // all repetitions completed
	Timeout          Status = "timeout"           // the test's time budget ended
	PredictedTimeout Status = "predicted_timeout" // given up or not started: it would not have completed in its budget
	TimeLimit        Status = "time_limit"        // the time limit of the run ended
	Aborted          Status = "aborted"           // the user or a signal ended the run
	Failed           Status = "failed"            // the engine returned an error
	Crashed          Status = "crashed"           // the engine ended its process, or hung
	OutOfMemory      Status = "out_of_memory"     // the host or a device had too little memory
	NoDisk           Status = "no_disk"           // the disk was too small for the model
	DownloadFailed   Status = "download_failed"   // the model could not be fetched
	Unsupported      Status = "unsupported"       // the library or the device cannot run it
)

// Outcome is the result of one test of one model.
type Outcome struct {
	Model    string    // file name as given
	Test     Test      //
	Status   Status    //
	Reason   string    // why it is not OK, in one line; empty when it is
	Samples  []Sample  // every repetition that completed, also when Status is not OK
	Warnings []Warning //
	Record   *Record   // nil unless Status is OK
}
