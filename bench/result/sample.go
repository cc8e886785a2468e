package result

import "time"

// Sample is one timed repetition. It is written to disk before the next one
// starts; everything a reader sees is derived from samples.
type Sample struct {
	Repetition int           `json:"repetition"` // from 1
	Start      time.Time     `json:"start"`      // wall clock, UTC, for people; never used for timing
	Elapsed    time.Duration `json:"elapsed_ns"` // monotonic clock, nanoseconds

	Generated       *Generated `json:"generated,omitempty"`        // of an end-to-end test; nil for the others
	DownloadedBytes int64      `json:"downloaded_bytes,omitempty"` // by this program, beside the repetition
}

// Generated is what one repetition of an end-to-end test generated.
type Generated struct {
	Tokens []int32         `json:"tokens"`
	At     []time.Duration `json:"at_ns"` // when each token's text was there, since the repetition's start, monotonic clock
	Bytes  int64           `json:"bytes"` // of all text
}

// MaxGenerated bounds the tokens of all repetitions of an end-to-end test: their
// times are kept in events.
const MaxGenerated = 1 << 17

// TokensPerSecond is the rate of a repetition of t that took elapsed.
// It is 0 when elapsed is not positive. The order of the operations is
// llama-bench's, so that all digits agree.
func (t Test) TokensPerSecond(elapsed time.Duration) float64 {
	if elapsed <= 0 {
		return 0
	}
	return 1e9 * float64(t.Tokens()) / float64(elapsed.Nanoseconds())
}

// Status is what became of a test.
type Status string

// The statuses of a test. Only OK has a Record.
const (
	OK               Status = "ok"                // all repetitions completed
	Timeout          Status = "timeout"           // the test's time budget ended
	PredictedTimeout Status = "predicted_timeout" // given up: could not have completed in its budget
	TimeLimit        Status = "time_limit"        // the time limit of the run ended
	Aborted          Status = "aborted"           // the user or a signal ended the run
	Failed           Status = "failed"            // the engine returned an error
	Crashed          Status = "crashed"           // the engine took its process down, or hung
	OutOfMemory      Status = "out_of_memory"     // memory of the host or of a device did not suffice
	NoDisk           Status = "no_disk"           // the model did not fit the disk
	DownloadFailed   Status = "download_failed"   // the model could not be fetched
	Unsupported      Status = "unsupported"       // the library or the device cannot run it
)

// Warning is a reason to read a number with care. Warnings travel with the
// record they belong to and are printed as footnotes.
type Warning struct {
	Code    string `json:"code"`    // stable, for programs: "slow_first_repetition"
	Message string `json:"message"` // one line, lower case, no full stop, with its numbers
}

// Outcome is what became of one test of one model.
type Outcome struct {
	Model    string    // file name as given
	Test     Test      //
	Status   Status    //
	Reason   string    // why it is not OK, in one line; empty when it is
	Samples  []Sample  // every repetition that completed, also when Status is not OK
	Warnings []Warning //
	Record   *Record   // nil unless Status is OK
}
