package result

// SchemaVersion is the version of Ext. It changes when a field of Ext changes
// its meaning; new fields do not change it.
const SchemaVersion = 1

// Record is one completed test of a model. It has the fields of llama-bench 0.7.0
// in their order, then use_mmap for older readers, then Ext with the fields of this
// program. In Ext, a value that is not known is absent, never 0 or NaN.
type Record struct {
	BuildCommit         string    `json:"build_commit"`
	BuildNumber         int       `json:"build_number"`
	CPUInfo             string    `json:"cpu_info"`
	GPUInfo             string    `json:"gpu_info"`
	Backends            string    `json:"backends"`
	ModelFilename       string    `json:"model_filename"`
	ModelType           string    `json:"model_type"`
	ModelSizeBytes      uint64    `json:"model_size"`
	ModelParams         uint64    `json:"model_n_params"`
	Batch               int       `json:"n_batch"`
	UBatch              int       `json:"n_ubatch"`
	Threads             int       `json:"n_threads"`
	CPUMask             string    `json:"cpu_mask"`
	CPUStrict           bool      `json:"cpu_strict"`
	Poll                int       `json:"poll"`
	TypeK               string    `json:"type_k"`
	TypeV               string    `json:"type_v"`
	GPULayers           int       `json:"n_gpu_layers"`
	CPUMoE              int       `json:"n_cpu_moe"`
	SplitMode           string    `json:"split_mode"`
	MainGPU             int       `json:"main_gpu"`
	NoKVOffload         bool      `json:"no_kv_offload"`
	FlashAttn           int       `json:"flash_attn"` // -1 auto, 0 off, 1 on
	Devices             string    `json:"devices"`
	TensorSplit         string    `json:"tensor_split"`
	TensorBuftOverrides string    `json:"tensor_buft_overrides"`
	LoadMode            string    `json:"load_mode"`
	LazyMode            string    `json:"lazy_mode"`
	Embeddings          bool      `json:"embeddings"`
	NoOpOffload         int       `json:"no_op_offload"`
	NoHost              bool      `json:"no_host"`
	Repack              bool      `json:"repack"`
	FitTargetMiB        int       `json:"fit_target"`
	FitMinCtx           int       `json:"fit_min_ctx"`
	PromptTokens        int       `json:"n_prompt"`
	GenTokens           int       `json:"n_gen"`
	DepthTokens         int       `json:"n_depth"`
	TestTime            string    `json:"test_time"` // RFC 3339, UTC, whole seconds
	AvgNs               int64     `json:"avg_ns"`
	StddevNs            int64     `json:"stddev_ns"`
	AvgTS               float64   `json:"avg_ts"`    // mean of the per-repetition rates, tokens/second
	StddevTS            float64   `json:"stddev_ts"` // sample standard deviation (n-1)
	SamplesNs           []int64   `json:"samples_ns"`
	SamplesTS           []float64 `json:"samples_ts"`
	UseMmap             bool      `json:"use_mmap"` // for readers older than load_mode
	Ext                 Ext       `json:"ext"`
}

// Test is the test the record belongs to.
func (r *Record) Test() Test {
	return Test{Prompt: r.PromptTokens, Gen: r.GenTokens, Depth: r.DepthTokens, E2E: r.Ext.E2E != nil}
}

// Ext holds the fields of this program in a record. Readers of llama-bench output
// ignore it.
type Ext struct {
	Schema            int               `json:"schema"`
	Version           string            `json:"version"`                  // of this program
	Library           map[string]string `json:"library,omitempty"`        // package name → version; "source" tells where it came from
	Weights           Weights           `json:"weights"`                  // where the weights came from
	Seed              uint64            `json:"seed"`                     // of the tokens
	Settings          string            `json:"settings,omitempty"`       // those of which the run measures several values, as flags: "-t 2 -ub 128"; absent: none
	ThreadsBatch      int               `json:"threads_batch,omitempty"`  // threads that computed prompts; absent: n_threads
	NUMA              string            `json:"numa,omitempty"`           // how memory was spread over NUMA nodes; absent: as the system does
	CPUVariant        string            `json:"cpu_variant,omitempty"`    // the CPU back-end module that ggml chose: "zen4"
	Statistics        Statistics        `json:"statistics"`               // of the per-repetition rates, tokens/second
	LoadSeconds       float64           `json:"load_s,omitempty"`         // of the model, once for all its tests
	ContextSeconds    float64           `json:"context_s,omitempty"`      // creation of the context
	WarmupSeconds     float64           `json:"warmup_s,omitempty"`       // absent when there was none
	Warmups           int               `json:"warmups,omitempty"`        // untimed passes; absent when there was at most one
	Precision         *Precision        `json:"precision,omitempty"`      // of a test that was repeated until its speed was known; absent from others
	PrecompileSeconds float64           `json:"precompile_s,omitempty"`   // untimed passes before the model's first test, at which a GPU's kernels are compiled; absent on the CPU
	GPU               *GPU              `json:"gpu,omitempty"`            // absent when no GPU holds layers
	UnusedDevices     []UnusedDevice    `json:"unused_devices,omitempty"` // that the engine lists and does not use by default
	IdleBackends      map[string]string `json:"idle_backends,omitempty"`  // back-end for GPUs that is installed and has no device → why
	NamedBackend      *NamedBackend     `json:"named_backend,omitempty"`  // module that GGML_BACKEND_PATH named; absent: none
	Offload           *Offload          `json:"offload,omitempty"`        // absent where no device but the CPU was to be used
	Memory            *Memory           `json:"memory,omitempty"`         // absent if the engine does not know it, and in records of earlier versions
	Limits            *Limits           `json:"limits,omitempty"`         // of a pp or tg test in a run that measured the machine's limits; absent from others
	E2E               *E2E              `json:"e2e,omitempty"`            // of an end-to-end test; absent from all others
	Conditions        *Conditions       `json:"conditions,omitempty"`     // of the machine during the repetitions; absent where they were not observed
	Energy            *Energy           `json:"energy,omitempty"`         // absent where no part of the machine tells it
	Cost              *Cost             `json:"cost,omitempty"`           // absent where no price was given
	Verdict           *Verdict          `json:"verdict,omitempty"`        // how far the speed can be trusted; absent from records of earlier versions
	Warnings          []Warning         `json:"warnings,omitempty"`       //
}

// Offload is how many layers of a model are on devices other than the CPU.
type Offload struct {
	Layers int `json:"layers"` // the output layer being one
	Of     int `json:"of"`
}

// E2E is the latency of an end-to-end test over the tokens of all repetitions, in
// seconds on the monotonic clock.
type E2E struct {
	Prompt         PromptSource `json:"prompt"`                          // where its text came from
	Temperature    float64      `json:"temperature"`                     // 0: always the likeliest token
	TopK           int          `json:"top_k"`                           // 0: all
	TopP           float64      `json:"top_p"`                           // 1: all
	FirstToken     Latency      `json:"time_to_first_token_s"`           // from the start of the prompt, of each repetition
	InterToken     *Latency     `json:"inter_token_latency_s,omitempty"` // from one token to the next; absent for one token
	GeneratedBytes int64        `json:"generated_bytes"`                 // of text, in all repetitions
}

// Latency is a distribution of times in seconds. Quantiles are type 7.
type Latency struct {
	N      int     `json:"n"` // times
	Median float64 `json:"median"`
	P90    float64 `json:"p90"`
	P99    float64 `json:"p99"`
	Max    float64 `json:"max"`
}

// PromptSource tells where the text of a prompt comes from.
type PromptSource string

// The sources of a prompt. The text is cut or repeated to the length of the prompt
// in tokens.
const (
	BuiltInPrompt PromptSource = "built_in"
	GivenPrompt   PromptSource = "given"
)

// Weights tells where the weights came from.
type Weights string

// The sources of weights.
const (
	FileWeights      Weights = "file"      // a GGUF file
	SyntheticWeights Weights = "synthetic" // generated in the exact shape of the file
)

// Statistics describes the rates of the repetitions of one record, in
// tokens/second. A value that the number of repetitions does not allow is absent.
type Statistics struct {
	Median float64   `json:"median"`
	Min    float64   `json:"min"`
	Max    float64   `json:"max"`
	CV     *float64  `json:"cv,omitempty"`    // sample standard deviation / mean; absent for one repetition
	CI     *Interval `json:"ci,omitempty"`    // of the median, distribution-free; absent for one repetition
	Again  *Interval `json:"again,omitempty"` // in which the median of another run lies; absent for one repetition
}

// Interval is a confidence interval with the confidence that it reaches. For five
// repetitions this is less than the usual 0.95.
type Interval struct {
	Low        float64 `json:"low"`
	High       float64 `json:"high"`
	Confidence float64 `json:"confidence"` // in (0, 1)
}
