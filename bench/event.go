package bench

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// Event is one step of a run. Events are written as they happen, one JSON
// object per line; everything a reader sees is derived from them.
type Event interface {
	name() string
}

// The events, in the order in which a run emits them.
type (
	// EngineReady comes first: the engine runs and tells what it is.
	EngineReady struct {
		PID   int         `json:"pid"`
		Facts EngineFacts `json:"facts"`
	}
	// EngineFailed comes instead when there is no engine: no test can run.
	EngineFailed struct {
		Reason string `json:"reason"`
	}
	// LoadStarted comes before the model is loaded.
	LoadStarted struct {
		Model    Model            `json:"model"`
		Budget   time.Duration    `json:"budget_ns,omitempty"`
		Settings *Settings        `json:"settings,omitempty"` // of this worker, if they are not the job's
		Warnings []result.Warning `json:"warnings,omitempty"` // that hold for all its records
	}
	// LoadProgress comes a few times during a load.
	LoadProgress struct {
		Share float64 `json:"share"` // [0, 1]
	}
	// OffloadTry comes before memory for a number of layers is allocated on devices:
	// whether that many fit, only the attempt tells.
	OffloadTry struct {
		Layers int    `json:"layers"`
		Of     int    `json:"of"`               // the model's
		Reason string `json:"reason,omitempty"` // why not more
	}
	// LoadDone ends a load. Status is OK or why there is no model.
	LoadDone struct {
		Status  result.Status `json:"status"`
		Reason  string        `json:"reason,omitempty"`
		Facts   ModelFacts    `json:"facts"`
		Elapsed time.Duration `json:"elapsed_ns"`
	}
	// PrecompileStarted comes before the first test of a model on a GPU: one untimed
	// pass of each shape, at which kernels are compiled.
	PrecompileStarted struct {
		Shapes []result.Test `json:"shapes"`
		Budget time.Duration `json:"budget_ns"`
	}
	// PrecompilePass comes before each of them.
	PrecompilePass struct {
		Shape result.Test `json:"shape"`
	}
	// PrecompileDone ends those passes. Where not all were computed it says why; the
	// tests are run all the same.
	PrecompileDone struct {
		Status  result.Status `json:"status"`
		Reason  string        `json:"reason,omitempty"`
		Elapsed time.Duration `json:"elapsed_ns"`
	}
	// TestStarted starts the clock of a test's budget.
	TestStarted struct {
		Test        result.Test     `json:"test"`
		Budget      time.Duration   `json:"budget_ns,omitempty"`
		Repetitions int             `json:"repetitions"`
		Done        []result.Sample `json:"done,omitempty"`   // of them, by an earlier worker or run
		Reason      string          `json:"reason,omitempty"` // why it is worth its time, with numbers
	}
	// ContextReady comes when the test has its context.
	ContextReady struct {
		Elapsed time.Duration `json:"elapsed_ns"`
	}
	// WarmupDone ends the untimed pass.
	WarmupDone struct {
		Elapsed time.Duration `json:"elapsed_ns"`
		UBatch  time.Duration `json:"ubatch_ns"` // longest pass through the graph seen in this test
	}
	// RepetitionDone ends one timed repetition.
	RepetitionDone struct {
		Sample result.Sample `json:"sample"`
		UBatch time.Duration `json:"ubatch_ns"` // longest pass through the graph seen in this test
	}
	// AbortRequested comes when the watchdog has set the engine's abort flag.
	AbortRequested struct {
		Status result.Status `json:"status"` // Timeout or Aborted
		Reason string        `json:"reason"`
		Grace  time.Duration `json:"grace_ns"` // how long the engine may take to return
	}
	// AbortReturned comes when the engine has returned after AbortRequested.
	AbortReturned struct {
		Latency time.Duration `json:"latency_ns"`
	}
	// GraceExpired comes when it has not: only ending the process helps.
	GraceExpired struct {
		Grace time.Duration `json:"grace_ns"`
	}
	// TestDone ends a test.
	TestDone struct {
		Test    result.Test   `json:"test"`
		Status  result.Status `json:"status"`
		Reason  string        `json:"reason,omitempty"`
		Elapsed time.Duration `json:"elapsed_ns"`
	}
	// TestSkipped tells of a test that was not started, and why. The parent writes
	// it for all tests of a model that cannot be run.
	TestSkipped struct {
		Model  string        `json:"model"`
		Test   result.Test   `json:"test"`
		Status result.Status `json:"status"`
		Reason string        `json:"reason"`
	}
	// WaitStarted is written by the parent when the next model's file is not here
	// yet and nothing else can be done.
	WaitStarted struct {
		Model string `json:"model"`
	}
	// WaitDone ends a wait. Status is OK or why there is no file.
	WaitDone struct {
		Model   string        `json:"model"`
		Status  result.Status `json:"status"`
		Reason  string        `json:"reason,omitempty"`
		Elapsed time.Duration `json:"elapsed_ns"`
	}
	// WarmDone is written by the parent when a file was read into memory before
	// its load began.
	WarmDone struct {
		Model   string        `json:"model"`
		Bytes   int64         `json:"bytes"` // read; 0 when the file does not fit the memory available
		Elapsed time.Duration `json:"elapsed_ns"`
	}
	// JobDone comes last: the worker did all it could.
	JobDone struct{}
	// GPUObserved is written by the parent before the end of a test: what drivers
	// said of GPUs meanwhile.
	GPUObserved struct {
		Devices []GPUObservation `json:"devices"`
	}
	// WorkerLost is written by the parent when a worker ended without JobDone.
	WorkerLost struct {
		Status result.Status `json:"status"` // of the test under way, if it is not tried again
		Reason string        `json:"reason"`
		Output []string      `json:"output,omitempty"` // its last lines on stderr
	}
)

// ErrWorkerLost means that a worker ended before it answered. A back-end may end
// the process, for example if it cannot open a device.
var ErrWorkerLost = errors.New("worker lost")

// GPUObservation is one device of GPUObserved.
type GPUObservation struct {
	PCIAddress string `json:"pci_address"`
	result.GPUTelemetry
}

func (EngineReady) name() string       { return "engine_ready" }
func (EngineFailed) name() string      { return "engine_failed" }
func (LoadStarted) name() string       { return "load_started" }
func (LoadProgress) name() string      { return "load_progress" }
func (OffloadTry) name() string        { return "offload_try" }
func (LoadDone) name() string          { return "load_done" }
func (PrecompileStarted) name() string { return "precompile_started" }
func (PrecompilePass) name() string    { return "precompile_pass" }
func (PrecompileDone) name() string    { return "precompile_done" }
func (TestStarted) name() string       { return "test_started" }
func (ContextReady) name() string      { return "context_ready" }
func (WarmupDone) name() string        { return "warmup_done" }
func (RepetitionDone) name() string    { return "repetition_done" }
func (AbortRequested) name() string    { return "abort_requested" }
func (AbortReturned) name() string     { return "abort_returned" }
func (GraceExpired) name() string      { return "grace_expired" }
func (TestDone) name() string          { return "test_done" }
func (TestSkipped) name() string       { return "test_skipped" }
func (WaitStarted) name() string       { return "wait_started" }
func (WaitDone) name() string          { return "wait_done" }
func (WarmDone) name() string          { return "warm_done" }
func (GPUObserved) name() string       { return "gpu_observed" }
func (JobDone) name() string           { return "job_done" }
func (WorkerLost) name() string        { return "worker_lost" }

// eventTypes makes an event of each name.
var eventTypes = map[string]func(json.RawMessage) (Event, error){
	"engine_ready":       decodeAs[EngineReady],
	"engine_failed":      decodeAs[EngineFailed],
	"load_started":       decodeAs[LoadStarted],
	"load_progress":      decodeAs[LoadProgress],
	"offload_try":        decodeAs[OffloadTry],
	"load_done":          decodeAs[LoadDone],
	"precompile_started": decodeAs[PrecompileStarted],
	"precompile_pass":    decodeAs[PrecompilePass],
	"precompile_done":    decodeAs[PrecompileDone],
	"test_started":       decodeAs[TestStarted],
	"context_ready":      decodeAs[ContextReady],
	"warmup_done":        decodeAs[WarmupDone],
	"repetition_done":    decodeAs[RepetitionDone],
	"abort_requested":    decodeAs[AbortRequested],
	"abort_returned":     decodeAs[AbortReturned],
	"grace_expired":      decodeAs[GraceExpired],
	"test_done":          decodeAs[TestDone],
	"test_skipped":       decodeAs[TestSkipped],
	"wait_started":       decodeAs[WaitStarted],
	"wait_done":          decodeAs[WaitDone],
	"warm_done":          decodeAs[WarmDone],
	"gpu_observed":       decodeAs[GPUObserved],
	"job_done":           decodeAs[JobDone],
	"worker_lost":        decodeAs[WorkerLost],
}

// oldNames are names that events had in earlier versions of this program.
var oldNames = map[string]string{
	"compile_started": "precompile_started",
	"compile_pass":    "precompile_pass",
	"compile_done":    "precompile_done",
}

func decodeAs[E Event](data json.RawMessage) (Event, error) {
	var e E
	err := json.Unmarshal(data, &e)
	return e, err
}

// ErrUnknownEvent is an event of a newer version of this program.
var ErrUnknownEvent = errors.New("unknown event")

// MaxEventBytes bounds a line of events: a longer one is garbage.
const MaxEventBytes = 4 << 20

// Stamped is an event with the wall-clock time at which it happened.
type Stamped struct {
	At    time.Time
	Event Event
}

// envelope is what a line holds.
type envelope struct {
	Event string          `json:"event"`
	At    time.Time       `json:"at"`
	Data  json.RawMessage `json:"data"`
}

// MarshalLine is the event as one line of JSON, with its newline.
func (s Stamped) MarshalLine() ([]byte, error) {
	data, err := json.Marshal(s.Event)
	if err != nil {
		return nil, fmt.Errorf("encode event %s: %w", s.Event.name(), err)
	}
	line, err := json.Marshal(envelope{s.Event.name(), s.At.UTC(), data})
	if err != nil {
		return nil, fmt.Errorf("encode event %s: %w", s.Event.name(), err)
	}
	return append(line, '\n'), nil
}

// UnmarshalLine reads one line written by MarshalLine. The error of an event
// that this version does not know is ErrUnknownEvent.
func (s *Stamped) UnmarshalLine(line []byte) error {
	if len(line) > MaxEventBytes {
		return fmt.Errorf("decode event: line of %d bytes is longer than %d", len(line), MaxEventBytes)
	}
	var e envelope
	if err := json.Unmarshal(line, &e); err != nil {
		return fmt.Errorf("decode event: %w", err)
	}
	decode, ok := eventTypes[cmp.Or(oldNames[e.Event], e.Event)]
	if !ok {
		return fmt.Errorf("%w: %q", ErrUnknownEvent, e.Event)
	}
	ev, err := decode(e.Data)
	if err != nil {
		return fmt.Errorf("decode event %s: %w", e.Event, err)
	}
	*s = Stamped{e.At, ev}
	return nil
}
