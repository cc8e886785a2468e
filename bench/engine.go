// Package bench runs tests on an engine: context, warm-up, repetitions, a
// watchdog, and an event for every step. It knows no engine; package llamacpp
// is one, benchtest a scripted one.
//
// The way of the data: a Job goes into RunJob, which drives an Engine and
// emits Events; an Assembler turns events into outcomes and records, in this
// process or in another, now or from a file.
package bench

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// Engine computes tests of one model. All methods but Abort, ClearAbort and
// Tokens are called from one goroutine, one at a time.
type Engine interface {
	// Facts is what is known before a model is loaded.
	Facts() EngineFacts

	// Load loads the model. It returns ErrAborted soon after ctx ends. tell is told
	// of its LoadProgress and of each OffloadTry; it may be called from any goroutine.
	Load(ctx context.Context, tell func(Event)) (ModelFacts, error)

	// Begin creates what a test needs and no other test has used: a new
	// context, its threads, its tokens. It ends the test before, if any.
	Begin(t result.Test) error

	// Warmup runs the untimed pass of the test begun.
	Warmup() (time.Duration, error)

	// Repeat prepares and runs the nth repetition, from 1, and returns the time of
	// the timed part alone, on the monotonic clock. The time is valid with
	// ErrAborted too. The tokens of the nth are the same whatever ran before it.
	Repeat(n int) (time.Duration, error)

	// Generated is what the last repetition of an end-to-end test generated, for
	// the caller to keep; nil after one of another kind.
	Generated() *result.Generated

	// Tokens is how many tokens of the pass under way are done; 0 where that is
	// not known. Any goroutine may call it.
	Tokens() int

	// End frees what Begin created. The model stays loaded.
	End() error

	// Abort makes the call that is running, and every later one, return
	// ErrAborted as soon as it can, until ClearAbort. Any goroutine may call
	// either.
	Abort()
	ClearAbort()

	// Close frees the model. It is idempotent.
	Close() error
}

// Errors that an engine wraps, so that a run knows the status of the test.
var (
	ErrAborted     = errors.New("aborted")
	ErrOutOfMemory = errors.New("out of memory")
	ErrUnsupported = errors.New("not supported")
)

// EngineFacts is what an engine says of itself and of the machine, in
// llama-bench's words.
type EngineFacts struct {
	BuildCommit  string            `json:"build_commit"`
	BuildNumber  int               `json:"build_number"`
	Library      map[string]string `json:"library,omitempty"` // package → version
	Backends     string            `json:"backends"`          // comma-separated
	CPUInfo      string            `json:"cpu_info"`
	GPUInfo      string            `json:"gpu_info"`
	CPUVariant   string            `json:"cpu_variant,omitempty"`
	GPUs         []EngineGPU       `json:"gpus,omitempty"`
	Limited      []string          `json:"limited,omitempty"`       // devices used, where those asked for are more than the library takes
	CUDAModule   string            `json:"cuda_module,omitempty"`   // file of the CUDA back-end, opened or not
	CUBLASModule string            `json:"cublas_module,omitempty"` // file of cuBLAS, where it is in use
	Problems     []string          `json:"problems,omitempty"`      // what the library said of back-ends that it cannot use
	Warnings     []result.Warning  `json:"warnings,omitempty"`      // that hold for all records
}

// WithoutCUDA is why a CUDA back-end that is installed has no device; empty where
// it has one, or there is no back-end.
func (f EngineFacts) WithoutCUDA() string {
	if f.CUDAModule == "" || slices.ContainsFunc(f.GPUs, func(g EngineGPU) bool { return g.Backend == "CUDA" }) {
		return ""
	}
	about := slices.DeleteFunc(slices.Clone(f.Problems), func(p string) bool { return !strings.Contains(strings.ToLower(p), "cuda") })
	return cmp.Or(strings.Join(about, "; "), "it lists none")
}

// EngineGPU is a GPU that the engine lists, of this machine or another.
type EngineGPU struct {
	Name       string `json:"name"`                  // "CUDA0"
	Model      string `json:"model"`                 // "NVIDIA L4"; of an RPC server its address
	Backend    string `json:"backend"`               // "CUDA"
	PCIAddress string `json:"pci_address,omitempty"` // "0000:01:00.0"
	Problem    string `json:"problem,omitempty"`     // why nothing can be put there
}

// ModelFacts is what an engine says of a loaded model.
type ModelFacts struct {
	Type      string           `json:"type"`       // "llama 7B Q4_K - Medium"
	SizeBytes uint64           `json:"size_bytes"` // of all tensors
	Params    uint64           `json:"params"`
	Layers    int              `json:"layers"`
	Offload   *result.Offload  `json:"offload,omitempty"`  // nil where no device but the CPU was to be used
	Warnings  []result.Warning `json:"warnings,omitempty"` // that hold for all its records
	// Where the weights are, by the library's own report: devices that hold some,
	// but for the CPU.
	Placed []Placement `json:"placed,omitempty"`
}

// Placement is a model's part on one device.
type Placement struct {
	Device       string `json:"device"`        // "CUDA0"
	Layers       int    `json:"layers"`        // that it computes, the output layer being one
	WeightsBytes uint64 `json:"weights_bytes"` // in its memory
}

// Settings are the parameters of the engine, all of them written into every
// record. DefaultSettings gives llama-bench's.
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
}

// NoDevice is llama-bench's word for no device to offload to.
const NoDevice = "none"

// Offloads tells whether layers may go to devices.
func (s Settings) Offloads() bool {
	return s.GPULayers != 0 && !slices.Equal(s.Devices, []string{NoDevice})
}

// DefaultSettings are llama-bench 0.7.0's, with flash attention on, as the
// default suite has it, for the given number of threads.
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
	Name    string         `json:"name"` // as given; the record's model_filename
	Path    string         `json:"path,omitempty"`
	Weights result.Weights `json:"weights"`
	Seed    uint64         `json:"seed"`              // of synthetic weights
	Layers  int            `json:"layers,omitempty"`  // that can be offloaded; 0: not known
	Largest uint64         `json:"largest,omitempty"` // bytes of its largest tensor; 0: not known
	Words   bool           `json:"words,omitempty"`   // synthetic weights come with a generated tokenizer
}

// TestBudget is a test with the time it may take, context creation, warm-up and
// repetitions together; 0 is no limit.
type TestBudget struct {
	Test   result.Test     `json:"test"`
	Budget time.Duration   `json:"budget_ns,omitempty"`
	Done   []result.Sample `json:"done,omitempty"` // repetitions that an earlier worker or run completed
}

// left is what completed repetitions leave of the budget; 0 is no limit.
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
	TimeLeft    time.Duration `json:"time_left_ns,omitempty"`   // of the run, from the start of the job; 0: no limit
	Past        []PastTest    `json:"past,omitempty"`           // tests of the model that are over
	Tests       []TestBudget  `json:"tests"`
	Repetitions int           `json:"repetitions"`
	NoWarmup    bool          `json:"no_warmup,omitempty"`
	Seed        uint64        `json:"seed"` // of the tokens
	Settings    Settings      `json:"settings"`
	AllowCPU    bool          `json:"allow_cpu,omitempty"`   // in a cuda build: go on without a CUDA device
	RequireGPU  bool          `json:"require_gpu,omitempty"` // a model that no GPU holds is not run
	E2E         *E2E          `json:"e2e,omitempty"`         // how end-to-end tests are done; nil when there are none

	// Adjusted are the settings in use where those asked for could not be met: less
	// memory after a worker failed, or load mode none for synthetic weights that
	// replace a file. nil: Settings are in use. Warnings say why; they belong to
	// every record to come.
	Adjusted *Settings        `json:"adjusted,omitempty"`
	Offload  *OffloadLimit    `json:"offload,omitempty"`
	Warnings []result.Warning `json:"warnings,omitempty"`

	// PrecompileSkip is a shape that cost a worker before the first test and is
	// left to the tests. NoPrecompile leaves all shapes to them.
	PrecompileSkip *result.Test `json:"precompile_skip,omitempty"`
	NoPrecompile   bool         `json:"no_precompile,omitempty"`
}

// Warn adds a warning to every record to come. It replaces one of the same code.
func (j *Job) Warn(w result.Warning) {
	others := slices.DeleteFunc(slices.Clone(j.Warnings), func(o result.Warning) bool { return o.Code == w.Code })
	j.Warnings = append(others, w)
}

// OffloadLimit is how many layers may be tried on devices after a worker was lost
// while it loaded with more.
type OffloadLimit struct {
	Layers int    `json:"layers"`
	Tried  int    `json:"tried"`
	Reason string `json:"reason"` // how the worker was lost
}

// E2E is how end-to-end tests take and make text. Prompt is their text, valid
// UTF-8 and not empty, cut or repeated to the test's length in tokens; "" is the
// built-in one. Each token is sampled by temperature among the TopK likeliest that
// have the probability TopP together; a temperature of 0 takes the likeliest.
// Chance starts from the job's seed in every repetition.
type E2E struct {
	Prompt      string  `json:"prompt,omitempty"`
	Temperature float64 `json:"temperature"` // at least 0
	TopK        int     `json:"top_k"`       // 0: all
	TopP        float64 `json:"top_p"`       // in [0, 1]; 1: all
}

// DefaultE2E samples as llama.cpp's programs do.
func DefaultE2E() E2E { return E2E{Temperature: 0.8, TopK: 40, TopP: 0.95} }

// Effective are the settings that the job runs with.
func (j Job) Effective() Settings {
	if j.Adjusted != nil {
		return *j.Adjusted
	}
	return j.Settings
}
