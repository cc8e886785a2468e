package bench

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// Event is one step of a run. Events are written as they happen, one JSON object
// per line. All results are derived from them.
//
// A worker waits after each event until the parent has acknowledged it. Passes that run
// in one burst (BurstTime) are reported together at its end. An event is therefore on disk
// before the next step or burst starts, and the parent does not wake up on a CPU that the
// worker uses.
type Event interface {
	name() string
}

// The events, in the order in which a run emits them.
type (
	// EngineReady comes first. The engine has started.
	EngineReady struct {
		PID   int         `json:"pid"`
		Facts EngineFacts `json:"facts"`
	}
	// EngineFailed comes instead if the engine cannot start. No test can run.
	EngineFailed struct {
		Reason string `json:"reason"`
		Code   Code   `json:"code,omitempty"` // empty: no error of the list
	}
	// LimitsStarted comes before the limits of the machine are measured, before the load.
	LimitsStarted struct {
		Types  []string      `json:"types"` // of weights
		Budget time.Duration `json:"budget_ns"`
	}
	// LimitsDone ends it. Status is OK, or says why there are no limits. The tests run in
	// any case.
	LimitsDone struct {
		Status  result.Status         `json:"status"`
		Reason  string                `json:"reason,omitempty"`
		Code    Code                  `json:"code,omitempty"` // empty: no error of the list
		Devices []result.DeviceLimits `json:"devices,omitempty"`
		Elapsed time.Duration         `json:"elapsed_ns"`
	}
	// LoadStarted comes before the model is loaded.
	LoadStarted struct {
		Model    Model            `json:"model"`
		Budget   time.Duration    `json:"budget_ns,omitempty"`
		Settings *Settings        `json:"settings,omitempty"` // of this worker, if they differ from the job's
		Warnings []result.Warning `json:"warnings,omitempty"` // for all its records
	}
	// LoadProgress comes up to ten times during a load.
	LoadProgress struct {
		Share float64 `json:"share"` // [0, 1]
	}
	// OffloadTry comes before the engine allocates memory for a number of layers on
	// devices. Only the attempt shows whether they fit.
	OffloadTry struct {
		Layers int    `json:"layers"`
		Of     int    `json:"of"`               // layers of the model
		Reason string `json:"reason,omitempty"` // why not more
	}
	// LoadDone ends a load. Status is OK, or says why the load failed.
	LoadDone struct {
		Status  result.Status `json:"status"`
		Reason  string        `json:"reason,omitempty"` // without the model's name
		Code    Code          `json:"code,omitempty"`   // empty: no error of the list
		Facts   ModelFacts    `json:"facts"`
		Elapsed time.Duration `json:"elapsed_ns"`
	}
	// PrecompileStarted comes before the first test of a model on a GPU. An untimed
	// pass of each shape follows, during which the driver compiles kernels.
	PrecompileStarted struct {
		Shapes []result.Test `json:"shapes"`
		Budget time.Duration `json:"budget_ns"`
	}
	// PrecompilePass comes before each of these passes.
	PrecompilePass struct {
		Shape result.Test `json:"shape"`
	}
	// PrecompileDone comes after the last of these passes. Status and Reason say
	// whether one failed. The tests run in any case.
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
		Done        []result.Sample `json:"done,omitempty"`   // completed by an earlier worker or run
		Reason      string          `json:"reason,omitempty"` // why the policy started it, with numbers
		Most        int             `json:"most,omitempty"`   // repetitions, if Repetitions is only the least
		Work        *result.Work    `json:"work,omitempty"`   // of a repetition; nil: not known
	}
	// ContextReady comes when the context of the test exists.
	ContextReady struct {
		Elapsed time.Duration `json:"elapsed_ns"`
		Facts   ContextFacts  `json:"facts,omitzero"`
	}
	// WarmupDone ends an untimed pass.
	WarmupDone struct {
		Elapsed time.Duration `json:"elapsed_ns"`
		UBatch  time.Duration `json:"ubatch_ns"`            // longest micro-batch of this test so far
		Priming time.Duration `json:"priming_ns,omitempty"` // of the untimed pass before it; 0: none
	}
	// RepetitionDone ends one timed repetition.
	RepetitionDone struct {
		Sample  result.Sample `json:"sample"`
		UBatch  time.Duration `json:"ubatch_ns"`            // longest micro-batch of this test so far
		Priming time.Duration `json:"priming_ns,omitempty"` // of the untimed pass before it, after a rest; 0: none
	}
	// AbortRequested comes when the watchdog has set the engine's abort flag.
	AbortRequested struct {
		Status result.Status `json:"status"` // that the test will get
		Reason string        `json:"reason"`
		Grace  time.Duration `json:"grace_ns"` // how long the engine may take to return

		// Stopped tells that the worker was stopped and goes on. The test is repeated, and
		// Status counts only if the engine does not return.
		Stopped bool `json:"stopped,omitempty"`
	}
	// AbortReturned comes when the engine has returned after AbortRequested.
	AbortReturned struct {
		Latency time.Duration `json:"latency_ns"`
	}
	// GraceExpired comes if the engine has not returned in time. The parent then ends
	// the process.
	GraceExpired struct {
		Grace time.Duration `json:"grace_ns"`
	}
	// TestDone ends a test.
	TestDone struct {
		Test      result.Test       `json:"test"`
		Status    result.Status     `json:"status"`
		Reason    string            `json:"reason,omitempty"`
		Elapsed   time.Duration     `json:"elapsed_ns"`
		Precision *result.Precision `json:"precision,omitempty"` // of a test that was repeated until its speed was known; nil: of others
		Memory    *result.Memory    `json:"memory,omitempty"`    // nil: not known
	}
	// CoolDownStarted comes before a test if the machine is to cool down first. The
	// parent waits before it lets the worker go on.
	CoolDownStarted struct {
		Test result.Test `json:"test"`
	}
	// CoolDownDone is written by the parent after it has waited.
	CoolDownDone struct {
		Elapsed time.Duration `json:"elapsed_ns"`
		From    *float64      `json:"from_c,omitempty"` // temperature in °C; absent if no sensor is readable
		To      *float64      `json:"to_c,omitempty"`
	}
	// TestSkipped says why a test was not started. The parent writes it for all tests
	// of a model that cannot be run.
	TestSkipped struct {
		Model  string        `json:"model"`
		Test   result.Test   `json:"test"`
		Status result.Status `json:"status"`
		Reason string        `json:"reason"`
	}
	// WaitStarted is written by the parent when the run waits for the next model's
	// file.
	WaitStarted struct {
		Model string `json:"model"`
	}
	// WaitDone ends a wait. Status is OK, or says why there is no file.
	WaitDone struct {
		Model   string        `json:"model"`
		Status  result.Status `json:"status"`
		Reason  string        `json:"reason,omitempty"`
		Elapsed time.Duration `json:"elapsed_ns"`
	}
	// ReadInDone is written by the parent after it has read a model's file into memory,
	// before the load.
	ReadInDone struct {
		Model   string        `json:"model"`
		Bytes   int64         `json:"bytes"` // read; 0: the file does not fit into the available memory
		Elapsed time.Duration `json:"elapsed_ns"`
	}
	// Continued is written by the parent when it goes on after a stop (SIGTSTP, SIGSTOP).
	// The repetition that was running is repeated.
	Continued struct {
		Stopped time.Duration `json:"stopped_ns"` // 0: not known, after SIGSTOP
	}
	// JobDone comes last. The worker has handled all tests.
	JobDone struct{}
	// GPUObserved is written by the parent before the end of a test. It has what the
	// drivers reported about GPUs during the test.
	GPUObserved struct {
		Devices []GPUObservation `json:"devices"`
	}
	// EnergyObserved is written by the parent before the end of a test. It has the energy
	// that parts of the machine used between the readings, before the first repetition and
	// after each. The GPUs' is in GPUObserved.
	EnergyObserved struct {
		Window    time.Duration `json:"window_ns"`         // between the readings
		Joules    result.Parts  `json:"joules,omitzero"`   // counted in the window
		IdleWatts result.Parts  `json:"idle_w,omitzero"`   // before the first test of this process
		Sampled   []string      `json:"sampled,omitempty"` // parts whose power was read; the others count energy
	}
	// WorkerLost is written by the parent when a worker ended without JobDone.
	WorkerLost struct {
		Status result.Status `json:"status"` // of the current test, if it is not tried again
		Reason string        `json:"reason"`
		Code   Code          `json:"code,omitempty"`   // empty: no error of the list
		Output []string      `json:"output,omitempty"` // first and last lines that the worker printed
	}
)

// Code identifies an error of a worker for its parent, which does not read the text.
type Code string

// The codes of EngineFailed, LimitsDone, LoadDone and WorkerLost.
const (
	NoLibrary       Code = "no_library"        // built without libllama
	NoCUDA          Code = "no_cuda"           // no CUDA device in a build that requires one
	DeviceMissing   Code = "device_missing"    // a named device does not exist
	DevicesMismatch Code = "devices_mismatch"  // settings do not match the devices
	RPCServerFailed Code = "rpc_server_failed" // an RPC server cannot be used
	NoRPC           Code = "no_rpc"            // the RPC back-end is missing
	ProcessLimit    Code = "process_limit"     // a limit on processes, threads or address space
	NotOnGPU        Code = "not_on_gpu"        // a GPU is required, but it holds no layer
)

// CodedError is an error of an engine with its code.
type CodedError struct {
	Code Code
	Err  error
}

func (e *CodedError) Error() string { return e.Err.Error() }

// Unwrap returns the error.
func (e *CodedError) Unwrap() error { return e.Err }

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
func (LimitsStarted) name() string     { return "limits_started" }
func (LimitsDone) name() string        { return "limits_done" }
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
func (CoolDownStarted) name() string   { return "cool_down_started" }
func (CoolDownDone) name() string      { return "cool_down_done" }
func (TestSkipped) name() string       { return "test_skipped" }
func (WaitStarted) name() string       { return "wait_started" }
func (WaitDone) name() string          { return "wait_done" }
func (ReadInDone) name() string        { return "read_in_done" }
func (GPUObserved) name() string       { return "gpu_observed" }
func (EnergyObserved) name() string    { return "energy_observed" }
func (Continued) name() string         { return "continued" }
func (JobDone) name() string           { return "job_done" }
func (WorkerLost) name() string        { return "worker_lost" }

// eventTypes decodes the data of an event, by its name.
var eventTypes = map[string]func(json.RawMessage) (Event, error){
	"engine_ready":       decodeAs[EngineReady],
	"engine_failed":      decodeAs[EngineFailed],
	"limits_started":     decodeAs[LimitsStarted],
	"limits_done":        decodeAs[LimitsDone],
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
	"cool_down_started":  decodeAs[CoolDownStarted],
	"cool_down_done":     decodeAs[CoolDownDone],
	"test_skipped":       decodeAs[TestSkipped],
	"wait_started":       decodeAs[WaitStarted],
	"wait_done":          decodeAs[WaitDone],
	"read_in_done":       decodeAs[ReadInDone],
	"gpu_observed":       decodeAs[GPUObserved],
	"energy_observed":    decodeAs[EnergyObserved],
	"continued":          decodeAs[Continued],
	"job_done":           decodeAs[JobDone],
	"worker_lost":        decodeAs[WorkerLost],
}

// oldNames maps names from earlier versions of this program to present ones.
var oldNames = map[string]string{
	"compile_started": "precompile_started",
	"compile_pass":    "precompile_pass",
	"compile_done":    "precompile_done",
	"warm_done":       "read_in_done",
}

func decodeAs[E Event](data json.RawMessage) (Event, error) {
	var e E
	err := json.Unmarshal(data, &e)
	return e, err
}

// ErrUnknownEvent means an event that this version of the program does not know.
var ErrUnknownEvent = errors.New("unknown event")

// MaxEventBytes is the maximum length of an event's line. Longer lines are garbage. The
// longest event is the TestStarted of a test that continues: it has all repetitions, with
// their conditions.
const MaxEventBytes = 16 << 20

// Stamped is an event with the wall-clock time at which it happened.
type Stamped struct {
	At    time.Time
	Event Event
	More  int // events of the same burst that follow
}

// Now returns an event that happens now.
func Now(e Event) Stamped { return Stamped{At: time.Now(), Event: e} }

// envelope is the JSON object of a line.
type envelope struct {
	Event string          `json:"event"`
	At    time.Time       `json:"at"`
	More  int             `json:"more,omitempty"`
	Data  json.RawMessage `json:"data"`
}

// MarshalLine returns the event as one line of JSON, with a newline.
func (s Stamped) MarshalLine() ([]byte, error) {
	data, err := json.Marshal(s.Event)
	if err != nil {
		return nil, fmt.Errorf("encode event %s: %w", s.Event.name(), err)
	}
	line, err := json.Marshal(envelope{s.Event.name(), s.At.UTC(), s.More, data})
	if err != nil {
		return nil, fmt.Errorf("encode event %s: %w", s.Event.name(), err)
	}
	return append(line, '\n'), nil
}

// UnmarshalLine reads a line that MarshalLine wrote. The error is ErrUnknownEvent if
// this version does not know the event.
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
	*s = Stamped{e.At, ev, e.More}
	return nil
}
