// Package bench runs tests on an engine: context, warm-up, repetitions, a
// watchdog, and an event for every step. It depends on no engine. Package
// llamacpp implements one, and package benchtest a scripted one.
//
// RunJob takes a Job, drives an Engine and emits Events. Package record turns
// events into outcomes and records. It does so in any process, as events arrive
// or later from a file.
package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/sparecores/benchmark-llm/bench/policy"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// Engine computes tests of one model. All methods but Abort, ClearAbort and
// Tokens are called from one goroutine, one at a time.
type Engine interface {
	// Facts returns what is known before a model is loaded.
	Facts() EngineFacts

	// Load loads the model. It returns ErrAborted soon after ctx ends. It calls emit
	// with LoadProgress and OffloadTry, from any goroutine.
	Load(ctx context.Context, emit func(Event)) (ModelFacts, error)

	// Begin creates a new context, threads and tokens for a test. It ends the
	// previous test, if there is one.
	Begin(t result.Test) error

	// Context returns what the engine made of the settings in the context of the current
	// test.
	Context() ContextFacts

	// Warmup runs the untimed pass of the current test and returns its time.
	Warmup() (time.Duration, error)

	// Repeat prepares and runs repetition n, from 1. It returns the time of the timed
	// part alone, by the monotonic clock, also together with ErrAborted. The tokens
	// of repetition n do not depend on earlier repetitions. rested tells that no pass came
	// directly before it; an untimed pass may then prime the CPUs.
	Repeat(n int, rested bool) (time.Duration, error)

	// Priming returns the time of the untimed pass of the last Repeat; 0: there was none.
	Priming() time.Duration

	// Generated returns what the last repetition of an end-to-end test generated. The
	// caller owns it. It is nil for tests of other kinds.
	Generated() *result.Generated

	// Tokens returns how many tokens of the current pass are done; 0: not known. Any
	// goroutine may call it.
	Tokens() int

	// Memory returns the memory of the current test; nil: it is not known, or no test
	// has begun. The caller owns it.
	Memory() *result.Memory

	// End frees what Begin created. The model stays loaded.
	End() error

	// Abort makes the current call and every later one return ErrAborted as soon as
	// possible, until ClearAbort is called. Any goroutine may call both.
	Abort()
	ClearAbort()

	// Close frees the model. It is idempotent.
	Close() error
}

// Errors that an engine wraps. They determine the status of a test.
var (
	ErrAborted     = errors.New("aborted")
	ErrOutOfMemory = errors.New("out of memory")
	ErrUnsupported = errors.New("not supported")
	ErrDeviceLost  = errors.New("a device was lost") // by its driver; nothing more can run on it in this process
)

// EngineFacts are an engine's facts about itself and the machine, in llama-bench's
// words.
type EngineFacts struct {
	BuildCommit  string            `json:"build_commit"`
	BuildNumber  int               `json:"build_number"`
	Library      map[string]string `json:"library,omitempty"` // package → version
	Backends     string            `json:"backends"`          // comma-separated
	CPUInfo      string            `json:"cpu_info"`
	GPUInfo      string            `json:"gpu_info"`
	CPUVariant   string            `json:"cpu_variant,omitempty"`
	GPUs         []EngineGPU       `json:"gpus,omitempty"`
	Limited      []string          `json:"limited,omitempty"`       // devices in use, if more were requested than the library accepts
	CUDAModule   string            `json:"cuda_module,omitempty"`   // file of the CUDA back-end, opened or not
	HIPModule    string            `json:"hip_module,omitempty"`    // file of the HIP back-end, opened or not
	CUBLASModule string            `json:"cublas_module,omitempty"` // file of cuBLAS, if it is in use
	Idle         map[string]string `json:"idle,omitempty"`          // installed back-end for GPUs without a device → why
	// Named is the back-end module that GGML_BACKEND_PATH names; nil: none.
	Named *result.NamedBackend `json:"named,omitempty"`
	// Unused are listed devices that these settings do not use. GPUs has them, too.
	Unused   []result.UnusedDevice `json:"unused,omitempty"`
	Problems []string              `json:"problems,omitempty"` // the library's messages about back-ends that it cannot use
	Threads  int                   `json:"threads,omitempty"`  // in use, if they are fewer than requested
	Warnings []result.Warning      `json:"warnings,omitempty"` // for all records
}

// Usable are the GPUs without those that the settings do not use.
func (f EngineFacts) Usable() []EngineGPU {
	return slices.DeleteFunc(slices.Clone(f.GPUs), func(g EngineGPU) bool {
		return slices.ContainsFunc(f.Unused, func(u result.UnusedDevice) bool { return u.Name == g.Name })
	})
}

// WithoutCUDA explains why an installed CUDA back-end has no device. It is empty if
// there is a device, or no CUDA back-end.
func (f EngineFacts) WithoutCUDA() string {
	if f.CUDAModule == "" || slices.ContainsFunc(f.GPUs, func(g EngineGPU) bool { return g.Backend == "CUDA" }) {
		return ""
	}
	return cmp.Or(strings.Join(f.CUDAProblems(), "; "), "it lists none")
}

// CUDAProblems are the library's messages about the CUDA back-end.
func (f EngineFacts) CUDAProblems() []string {
	return slices.DeleteFunc(slices.Clone(f.Problems), func(p string) bool { return !strings.Contains(strings.ToLower(p), "cuda") })
}

// EngineGPU is a GPU that the engine lists. It may belong to another machine.
type EngineGPU struct {
	Name       string `json:"name"`                  // "CUDA0"
	Model      string `json:"model"`                 // "NVIDIA L4"; for an RPC server: its address
	Backend    string `json:"backend"`               // "CUDA"
	PCIAddress string `json:"pci_address,omitempty"` // "0000:01:00.0"
	Problem    string `json:"problem,omitempty"`     // why it cannot be used
	Software   bool   `json:"software,omitempty"`    // its driver computes on the CPU
}

// ModelFacts are an engine's facts about a loaded model.
type ModelFacts struct {
	Type      string           `json:"type"`       // "llama 7B Q4_K - Medium"
	SizeBytes uint64           `json:"size_bytes"` // of all tensors
	Params    uint64           `json:"params"`
	Layers    int              `json:"layers"`
	Offload   *result.Offload  `json:"offload,omitempty"`   // nil: only the CPU was requested
	LoadMode  string           `json:"load_mode,omitempty"` // in use, if it is another than requested
	Mapped    *bool            `json:"mapped,omitempty"`    // whether weights are in a mapped file; nil: not known
	Warnings  []result.Warning `json:"warnings,omitempty"`  // for all its records
	// Placed are the devices that hold weights, without the CPU. The library reports
	// them.
	Placed []Placement `json:"placed,omitempty"`
}

// ContextFacts are an engine's facts about the context of a test. Its zero value means
// that the settings are used as they were requested.
type ContextFacts struct {
	FlashAttn *int             `json:"flash_attn,omitempty"` // 0 off, 1 on; nil: as requested
	Warnings  []result.Warning `json:"warnings,omitempty"`   // for the test's record
}

// Placement is a model's part on one device.
type Placement struct {
	Device       string `json:"device"`        // "CUDA0"
	Layers       int    `json:"layers"`        // that it computes, the output layer being one
	WeightsBytes uint64 `json:"weights_bytes"` // in its memory
}

// Settings are the parameters of the engine. All of them are written into every
// record.
//
// Threads must not exceed the number of CPUs: more threads would measure the
// scheduler. (llama-bench allows it.) LoadMode is none for synthetic weights,
// because a stream cannot be mapped; the record says so.
type Settings struct {
	Threads     int       `json:"threads"` // of the CPU back-end
	Batch       int       `json:"batch"`   // tokens of one decode
	UBatch      int       `json:"ubatch"`  // tokens of one pass through the graph
	CPUs        []int     `json:"cpus,omitempty"`
	CPUStrict   bool      `json:"cpu_strict,omitempty"`
	Poll        int       `json:"poll"`     // 0…100
	Priority    int       `json:"priority"` // -1 low … 3 realtime
	TypeK       string    `json:"type_k"`
	TypeV       string    `json:"type_v"`
	GPULayers   int       `json:"gpu_layers"` // negative: as many as fit
	CPUMoE      int       `json:"cpu_moe"`    // layers whose experts stay on the CPU
	SplitMode   string    `json:"split_mode"` // layer, none, row, tensor
	MainGPU     int       `json:"main_gpu"`
	TensorSplit []float32 `json:"tensor_split,omitempty"`
	NoKVOffload bool      `json:"no_kv_offload,omitempty"`
	FlashAttn   int       `json:"flash_attn"`        // -1 auto, 0 off, 1 on
	Devices     []string  `json:"devices,omitempty"` // to offload to; NoDevice alone: to none
	RPC         []string  `json:"rpc,omitempty"`     // host:port of servers whose devices are used
	LoadMode    string    `json:"load_mode"`         // auto, none, mmap, mlock, mmap+mlock, dio
	LazyMode    string    `json:"lazy_mode"`         // auto, off, on
	Embeddings  bool      `json:"embeddings,omitempty"`
	NoOpOffload bool      `json:"no_op_offload,omitempty"`
	NoHost      bool      `json:"no_host,omitempty"`
	NoRepack    bool      `json:"no_repack,omitempty"`

	// ThreadsBatch is the number of threads that compute prompts; 0: Threads.
	ThreadsBatch int `json:"threads_batch,omitempty"`
	// TensorOverrides put tensors into other memory than their layer's. The first that
	// matches counts.
	TensorOverrides []TensorOverride `json:"tensor_overrides,omitempty"`
	// FitTargetMiB is the memory that stays free on each device when as many layers as fit
	// are put on devices. There is room for a context of FitMinCtx tokens, or of the longest
	// test.
	FitTargetMiB int    `json:"fit_target_mib,omitempty"`
	FitMinCtx    int    `json:"fit_min_ctx,omitempty"`
	NUMA         string `json:"numa,omitempty"` // one of NUMAModes; empty: none
}

// TensorOverride puts the tensors whose name matches a regular expression into the memory
// of a buffer type, such as "CPU" or "CUDA0".
type TensorOverride struct {
	Pattern string `json:"pattern"`
	Buffer  string `json:"buffer"`
}

// WithContext returns the settings with those of other that belong to the context and the
// threads of a test. The others belong to the loaded model.
func (s Settings) WithContext(other Settings) Settings {
	s.Threads, s.ThreadsBatch, s.Batch, s.UBatch = other.Threads, other.ThreadsBatch, other.Batch, other.UBatch
	s.CPUs, s.CPUStrict, s.Poll, s.Priority = other.CPUs, other.CPUStrict, other.Poll, other.Priority
	s.TypeK, s.TypeV, s.NoKVOffload, s.FlashAttn = other.TypeK, other.TypeV, other.NoKVOffload, other.FlashAttn
	s.Embeddings, s.NoOpOffload = other.Embeddings, other.NoOpOffload
	return s
}

// SameLoad tells whether a model that was loaded with one of two settings can be used with
// the other.
func (s Settings) SameLoad(other Settings) bool {
	return reflect.DeepEqual(s.WithContext(Settings{}), other.WithContext(Settings{}))
}

// NoDevice is llama-bench's word for "offload to no device".
const NoDevice = "none"

// Offloads tells whether layers may go to devices.
func (s Settings) Offloads() bool {
	return s.GPULayers != 0 && !slices.Equal(s.Devices, []string{NoDevice})
}

// DefaultSettings returns llama-bench 0.7.0's settings for a number of threads. Only
// flash attention differs: it is on, as in the default suite.
func DefaultSettings(threads int) Settings {
	return Settings{
		Threads:   threads,
		Batch:     2048,
		UBatch:    512,
		Poll:      50,
		TypeK:     "f16",
		TypeV:     "f16",
		GPULayers: -1,
		SplitMode: "layer",
		FlashAttn: 1,
		LoadMode:  "auto",
		LazyMode:  "auto",
	}
}

// Model names what to load.
type Model struct {
	Name         string         `json:"name"`               // as given
	Filename     string         `json:"filename,omitempty"` // the record's model_filename; empty: Name
	Path         string         `json:"path,omitempty"`
	Weights      result.Weights `json:"weights"`
	Seed         uint64         `json:"seed"`                    // of synthetic weights
	Layers       int            `json:"layers,omitempty"`        // that can be offloaded; 0: not known
	LargestBytes uint64         `json:"largest_bytes,omitempty"` // bytes of its largest tensor; 0: not known
	Words        bool           `json:"words,omitempty"`         // synthetic weights come with a generated tokenizer
	Load         string         `json:"load,omitempty"`          // settings with which it is loaded, if the run loads it with several: "-ngl 0"
	Files        []ModelFile    `json:"files,omitempty"`         // what Path is the first of; empty: not known, or a default model's shape
}

// Key tells the jobs of a run apart: a model that is loaded with several settings has a job
// for each.
func (m Model) Key() string { return m.Name + "\x00" + m.Load }

// ModelFile identifies the content of one of a model's files.
type ModelFile struct {
	Name         string    `json:"name"` // without folder
	Bytes        int64     `json:"bytes"`
	ModTime      time.Time `json:"mtime,omitzero"`
	HeaderSHA256 string    `json:"header_sha256"`
	SHA256       string    `json:"sha256,omitempty"` // of the whole file, if it is known
}

// FilesChanged says what shows that the files of m need not be those of before; empty
// if they are the same, or if one of the two is not known. other tells whether they are
// certainly other files: their sizes, headers or checksums differ. Otherwise only the
// modification time does.
func (m Model) FilesChanged(before Model) (change string, other bool) {
	if len(m.Files) == 0 || len(before.Files) == 0 {
		return "", false
	}
	if a, b := len(before.Files), len(m.Files); a != b {
		return fmt.Sprintf("the model had %d files, now %d", a, b), true
	}
	for i, f := range m.Files {
		b := before.Files[i]
		switch {
		case f.SHA256 != "" && f.SHA256 == b.SHA256:
		case f.Bytes != b.Bytes:
			return fmt.Sprintf("%s had %d bytes, now %d", f.Name, b.Bytes, f.Bytes), true
		case f.HeaderSHA256 != b.HeaderSHA256:
			return f.Name + " has another header", true
		case f.SHA256 != "" && b.SHA256 != "":
			return f.Name + " has another checksum", true
		case !f.ModTime.Equal(b.ModTime) && change == "":
			change = fmt.Sprintf("%s was modified at %s, before at %s", f.Name, f.ModTime.UTC().Format(time.RFC3339), b.ModTime.UTC().Format(time.RFC3339))
		}
	}
	return change, false
}

// TestBudget is a test with its budget: the time for context creation, warm-up and
// all repetitions together; 0: no limit.
type TestBudget struct {
	Test   result.Test     `json:"test"`
	Budget time.Duration   `json:"budget_ns,omitempty"`
	Done   []result.Sample `json:"done,omitempty"` // repetitions that an earlier worker or run completed

	Unsupported string `json:"unsupported,omitempty"` // why the library cannot run it; empty: not known

	Work *result.Work `json:"work,omitempty"` // of a repetition; nil: not known, or the limits are not measured
}

// left is the budget without the time of completed repetitions; 0: no limit.
func (t TestBudget) left() time.Duration {
	left := t.Budget
	for _, s := range t.Done {
		left -= s.Elapsed
	}
	if t.Budget > 0 && left <= 0 {
		return 1
	}
	return max(left, 0)
}

// Job is everything that one worker does: load one model, run its tests.
type Job struct {
	Model       Model         `json:"model"`
	LoadBudget  time.Duration `json:"load_budget_ns,omitempty"` // 0: no limit
	TimeLeft    time.Duration `json:"time_left_ns,omitempty"`   // of the run, when the job starts; 0: no limit
	Past        []PastTest    `json:"past,omitempty"`           // tests of the model that are over
	Tests       []TestBudget  `json:"tests"`
	Repetitions int           `json:"repetitions"` // timed, of each test; with Until, at least
	NoWarmup    bool          `json:"no_warmup,omitempty"`
	Seed        uint64        `json:"seed"` // of the tokens
	Settings    Settings      `json:"settings"`
	// Sweep has the settings of tests by their result.Test.Settings. Only those of contexts
	// count; the model is loaded with Settings. nil: all tests have Settings.
	Sweep      map[string]Settings `json:"sweep,omitempty"`
	AllowCPU   bool                `json:"allow_cpu,omitempty"`   // in a cuda build: continue without a CUDA device
	RequireGPU bool                `json:"require_gpu,omitempty"` // do not run a model that no GPU holds
	E2E        *E2E                `json:"e2e,omitempty"`         // for end-to-end tests; nil: there are none
	Prices     *result.Prices      `json:"prices,omitempty"`      // for the cost in records; nil: none

	Until           *policy.Until `json:"until,omitempty"`             // nil: Repetitions, no more
	Warmups         int           `json:"warmups,omitempty"`           // untimed passes before the repetitions; 0: one
	WarmUntilStable bool          `json:"warm_until_stable,omitempty"` // then whole passes until two in a row are equally fast, at most MaxStablePasses
	CoolDown        bool          `json:"cool_down,omitempty"`         // CoolDownStarted comes before each test, and the parent waits

	// Adjusted are the settings in use if the requested ones cannot be used. A worker
	// that ran out of memory is followed by one that needs less, and synthetic
	// weights as a fallback need load mode none. nil: Settings are in use. Warnings
	// say why; every later record has them.
	Adjusted *Settings        `json:"adjusted,omitempty"`
	Offload  *OffloadLimit    `json:"offload,omitempty"`
	Warnings []result.Warning `json:"warnings,omitempty"`

	// PrecompileSkip is a shape whose precompile pass ended a worker. It is not
	// precompiled again; the tests that need it compile it. After a second such loss,
	// or a pass that hangs, NoPrecompile is true and no shape is precompiled. So the
	// first test does not pay for a kernel that only another test needs.
	PrecompileSkip *result.Test `json:"precompile_skip,omitempty"`
	NoPrecompile   bool         `json:"no_precompile,omitempty"`

	// Limits says how the machine's limits are measured before the load; nil: not at all.
	// LimitsKnown were measured by an earlier worker of the run.
	Limits      *result.LimitsPlan    `json:"limits,omitempty"`
	LimitsKnown []result.DeviceLimits `json:"limits_known,omitempty"`
}

// Runnable returns the tests of the job that are not known to be unsupported.
func (j Job) Runnable() []TestBudget {
	return slices.DeleteFunc(slices.Clone(j.Tests), func(t TestBudget) bool { return t.Unsupported != "" })
}

// Warn adds a warning to every later record. It replaces a warning with the same
// code.
func (j *Job) Warn(w result.Warning) {
	others := slices.DeleteFunc(slices.Clone(j.Warnings), func(o result.Warning) bool { return o.Code == w.Code })
	j.Warnings = append(others, w)
}

// ForgetRepetitions removes the completed repetitions of all tests.
func (j *Job) ForgetRepetitions() {
	j.Tests = slices.Clone(j.Tests)
	for i := range j.Tests {
		j.Tests[i].Done = nil
	}
}

// Restart drops the completed repetitions of all tests, because what is measured from
// now on differs in change, and logs which. If earlier tests of the run have an outcome,
// every later record has a warning.
func (j *Job) Restart(change string, earlier bool) {
	for _, t := range j.Tests {
		if n := len(t.Done); n > 0 {
			slog.Warn("repeating a test from its start", "model", j.Model.Name, "test", t.Test, "dropped", n)
		}
	}
	j.ForgetRepetitions()
	if earlier {
		j.Warn(result.Warning{
			Code:    result.WarnConditionsChanged,
			Message: "the run was resumed under other conditions than its earlier tests had: " + change,
		})
	}
}

// OffloadLimit limits the layers on devices after a worker was lost while it loaded
// with more.
type OffloadLimit struct {
	Layers int    `json:"layers"` // the limit
	Tried  int    `json:"tried"`  // by the lost worker
	Reason string `json:"reason"` // why the worker was lost
}

// E2E are the prompt and the sampling of end-to-end tests. Tokens are sampled by
// temperature from the TopK most likely tokens whose probabilities add up to TopP. A
// temperature of 0 takes the most likely token. Every repetition starts with the
// job's seed.
type E2E struct {
	// Prompt is valid UTF-8. It is cut or repeated to the test's length in tokens; "":
	// the built-in one.
	Prompt      string  `json:"prompt,omitempty"`
	Temperature float64 `json:"temperature"` // at least 0
	TopK        int     `json:"top_k"`       // 0: all
	TopP        float64 `json:"top_p"`       // in [0, 1]; 1: all
}

// DefaultE2E is the sampling of llama.cpp's programs.
func DefaultE2E() E2E { return E2E{Temperature: 0.8, TopK: 40, TopP: 0.95} }

// Shortest tells whether a test is the shortest of its series, in tokens, of all tests
// of the job. The order of the tests does not matter.
func (j Job) Shortest(t result.Test) bool {
	return !slices.ContainsFunc(j.Tests, func(b TestBudget) bool { return b.Test.ShorterInSeries(t) }) &&
		!slices.ContainsFunc(j.Past, func(p PastTest) bool { return p.Test.ShorterInSeries(t) })
}

// MaxStablePasses is the most untimed passes with which WarmUntilStable waits for a
// steady speed. A machine whose noise exceeds two percent never has one.
const MaxStablePasses = 10

// WarmupPasses is the number of untimed passes before the repetitions, without those of
// WarmUntilStable.
func (j Job) WarmupPasses() int {
	if j.NoWarmup {
		return 0
	}
	return max(j.Warmups, 1)
}

// MostRepetitions is the largest number of timed repetitions that a test may have.
func (j Job) MostRepetitions() int {
	if j.Until == nil {
		return j.Repetitions
	}
	return max(j.Repetitions, j.Until.MaxRepetitions)
}

// Effective returns the settings that the job uses.
func (j Job) Effective() Settings {
	if j.Adjusted != nil {
		return *j.Adjusted
	}
	return j.Settings
}

// For returns the settings of a test.
func (j Job) For(t result.Test) Settings {
	s := j.Effective()
	if own, ok := j.Sweep[t.Settings]; ok {
		return s.WithContext(own)
	}
	return s
}
