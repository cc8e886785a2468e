package result

// Warning is a reason to read a number with care. Warnings travel with the
// record they belong to and are printed as footnotes.
type Warning struct {
	Code    string `json:"code"`    // one of the Warn constants; stable, for programs
	Message string `json:"message"` // one line, lower case, no full stop, with its numbers
}

// The codes of warnings.
const (
	WarnFewRepetitions      = "few_repetitions"       // too few to show how much the speed varies
	WarnNoWarmup            = "no_warmup"             // no pass before the first repetition
	WarnSlowFirstRepetition = "slow_first_repetition" // it took longer than the others
	WarnOutlier             = "outlier"               // one repetition is far from the median
	WarnUnsteady            = "unsteady"              // the repetitions vary widely
	WarnMajorFaults         = "major_faults"          // memory of the worker was read from a disk during repetitions
	WarnDownloadBeside      = "download_beside"       // this program downloaded during repetitions
	WarnEmptyWeights        = "empty_weights"         // parts of the model file were never written
	WarnSyntheticWeights    = "synthetic_weights"     // used because a file is not available
	WarnNoRepack            = "no_repack"             // memory is too small for repacked weights
	WarnLoadMode            = "load_mode"             // the model was loaded in another mode than asked for
	WarnFlashAttn           = "flash_attn"            // the library turned flash attention off
	WarnUBatch              = "n_ubatch"              // micro-batches are shorter than asked for
	WarnThreads             = "n_threads"             // fewer threads compute than asked for
	WarnPartialOffload      = "partial_offload"       // only some layers are on devices
	WarnDevicesLimited      = "devices_limited"       // the library accepts fewer devices than there are
	WarnGPUNotUsed          = "gpu_not_used"          // the machine has a GPU, and the record was measured without it
	WarnNoGPU               = "no_gpu"                // the CUDA back-end is installed and finds no GPU
	WarnSoftwareGPU         = "software_gpu"          // a device that computes on the CPU was used as a GPU
	WarnGPUThrottled        = "gpu_throttled"         // a GPU was slower than it could be
	WarnConditionsChanged   = "conditions_changed"    // the run was resumed under other conditions
	WarnNoEnergy            = "no_energy"             // the cost of electricity was asked for, and no part of the machine tells its energy
	WarnGPUShared           = "gpu_shared"            // other processes computed on the same GPU
)
