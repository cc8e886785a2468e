//go:build cgo

package llama

// #include <stdlib.h>
// #include "bridge.h"
import "C"

import (
	"cmp"
	"fmt"
	"math"
	"runtime"
	"unsafe"
)

// LoadMode says how the bytes of a model get into memory.
type LoadMode int

// Load modes. With the zero value the library chooses: mmap if the devices allow it.
const (
	LoadAuto LoadMode = iota
	LoadNone
	LoadMmap
	LoadMlock
	LoadMmapMlock
	LoadDirectIO
)

// LazyMode says which tensors are read on demand.
type LazyMode int

// Lazy modes. The zero value is the library's default.
const (
	LazyAuto LazyMode = iota // only marked tensors larger than 4 GiB; needs mmap
	LazyOff
	LazyOn
)

// SplitMode says how a model is split across several GPUs.
type SplitMode int

// Split modes. The zero value is the default of the library and of llama-bench.
const (
	SplitLayer  SplitMode = iota // layers and KV cache across GPUs
	SplitNone                    // one GPU only: MainGPU
	SplitRow                     // rows within layers
	SplitTensor                  // tensor parallelism
)

// FlashAttention says whether attention is computed in one fused step.
type FlashAttention int

// Flash attention settings. With the zero value the library chooses.
const (
	FlashAuto FlashAttention = iota
	FlashOn
	FlashOff
)

// KVType is the data type of the KV cache.
type KVType string

// Types of the KV cache that llama-bench accepts. The zero value is F16.
const (
	KVF16   KVType = "f16"
	KVF32   KVType = "f32"
	KVBF16  KVType = "bf16"
	KVQ8_0  KVType = "q8_0"
	KVQ4_0  KVType = "q4_0"
	KVQ4_1  KVType = "q4_1"
	KVIQ4NL KVType = "iq4_nl"
	KVQ5_0  KVType = "q5_0"
	KVQ5_1  KVType = "q5_1"
)

// TensorOverride puts tensors into the memory of a certain device.
type TensorOverride struct {
	Pattern string // regular expression for the tensors' names
	Buffer  string // name of the device: "CPU", "CUDA0"
}

// ModelParams says how to load a model (struct llama_model_params). The zero value
// loads it for the CPU in the library's default mode. Weights are repacked if the
// CPU back-end has a faster layout for them.
type ModelParams struct {
	Devices         []string // names of devices as Devices lists them; nil: all; empty: none
	GPULayers       int      // layers to offload; 0: none; negative: all
	SplitMode       SplitMode
	MainGPU         int       // index into the devices, from 0; used with SplitNone
	TensorSplit     []float32 // share of each device, in any unit; nil: by free memory
	LoadMode        LoadMode  // LoadNone is required for a stream
	LazyMode        LazyMode
	TensorOverrides []TensorOverride // the first match counts
	NoRepack        bool             // do not use the CPU back-end's extra buffer types
	NoHost          bool             // do not use the devices' pinned host memory
	CheckTensors    bool             // check the values of every block of weights
	NoAlloc         bool             // allocate nothing and read no weights; needs LoadNone

	// Allocated, if not nil, is called on the loading thread when the memory is
	// allocated and before any weight is read. If it returns an error the load ends
	// with that error. It is not called with NoAlloc.
	Allocated func(Allocation) error
}

func (m LoadMode) c() (C.enum_llama_load_mode, error) {
	switch m {
	case LoadAuto:
		return C.LLAMA_LOAD_MODE_AUTO, nil
	case LoadNone:
		return C.LLAMA_LOAD_MODE_NONE, nil
	case LoadMmap:
		return C.LLAMA_LOAD_MODE_MMAP, nil
	case LoadMlock:
		return C.LLAMA_LOAD_MODE_MLOCK, nil
	case LoadMmapMlock:
		return C.LLAMA_LOAD_MODE_MMAP_MLOCK, nil
	case LoadDirectIO:
		return C.LLAMA_LOAD_MODE_DIRECT_IO, nil
	}
	return 0, fmt.Errorf("unknown load mode %d", m)
}

// String is the library's name for the mode (llama_load_mode_name).
func (m LoadMode) String() string {
	c, err := m.c()
	if err != nil {
		return err.Error()
	}
	return C.GoString(C.llama_load_mode_name(c))
}

func (m LazyMode) c() (C.enum_llama_lazy_mode, error) {
	switch m {
	case LazyAuto:
		return C.LLAMA_LAZY_MODE_AUTO, nil
	case LazyOff:
		return C.LLAMA_LAZY_MODE_OFF, nil
	case LazyOn:
		return C.LLAMA_LAZY_MODE_ON, nil
	}
	return 0, fmt.Errorf("unknown lazy mode %d", m)
}

func (m SplitMode) c() (C.enum_llama_split_mode, error) {
	switch m {
	case SplitLayer:
		return C.LLAMA_SPLIT_MODE_LAYER, nil
	case SplitNone:
		return C.LLAMA_SPLIT_MODE_NONE, nil
	case SplitRow:
		return C.LLAMA_SPLIT_MODE_ROW, nil
	case SplitTensor:
		return C.LLAMA_SPLIT_MODE_TENSOR, nil
	}
	return 0, fmt.Errorf("unknown split mode %d", m)
}

func (f FlashAttention) c() (C.enum_llama_flash_attn_type, error) {
	switch f {
	case FlashAuto:
		return C.LLAMA_FLASH_ATTN_TYPE_AUTO, nil
	case FlashOn:
		return C.LLAMA_FLASH_ATTN_TYPE_ENABLED, nil
	case FlashOff:
		return C.LLAMA_FLASH_ATTN_TYPE_DISABLED, nil
	}
	return 0, fmt.Errorf("unknown flash attention setting %d", f)
}

func (t KVType) c() (C.enum_ggml_type, error) {
	switch t {
	case KVF16, "":
		return C.GGML_TYPE_F16, nil
	case KVF32:
		return C.GGML_TYPE_F32, nil
	case KVBF16:
		return C.GGML_TYPE_BF16, nil
	case KVQ8_0:
		return C.GGML_TYPE_Q8_0, nil
	case KVQ4_0:
		return C.GGML_TYPE_Q4_0, nil
	case KVQ4_1:
		return C.GGML_TYPE_Q4_1, nil
	case KVIQ4NL:
		return C.GGML_TYPE_IQ4_NL, nil
	case KVQ5_0:
		return C.GGML_TYPE_Q5_0, nil
	case KVQ5_1:
		return C.GGML_TYPE_Q5_1, nil
	}
	return 0, fmt.Errorf("unknown KV cache type %q", string(t))
}

// c fills a struct llama_model_params. The arrays that it points to are C memory,
// until free is called. The library needs them only while it loads.
func (p ModelParams) c() (cp C.struct_llama_model_params, free func(), err error) {
	var owned []unsafe.Pointer
	free = func() {
		for _, o := range owned {
			C.free(o)
		}
	}
	defer func() {
		if err != nil {
			free()
			free = nil
		}
	}()

	cp = C.llama_model_default_params()
	if cp.load_mode, err = p.LoadMode.c(); err != nil {
		return cp, free, err
	}
	if cp.lazy_mode, err = p.LazyMode.c(); err != nil {
		return cp, free, err
	}
	if cp.split_mode, err = p.SplitMode.c(); err != nil {
		return cp, free, err
	}
	if p.NoAlloc && p.LoadMode != LoadNone {
		// The library would end the process with an assertion.
		return cp, free, fmt.Errorf("a load without allocation needs load mode none, not %v", p.LoadMode)
	}
	if cp.n_gpu_layers, err = int32C("GPU layers", p.GPULayers); err != nil {
		return cp, free, err
	}
	if cp.main_gpu, err = int32C("main GPU", p.MainGPU); err != nil {
		return cp, free, err
	}
	cp.use_extra_bufts = C.bool(!p.NoRepack)
	cp.no_host = C.bool(p.NoHost)
	cp.check_tensors = C.bool(p.CheckTensors)
	cp.no_alloc = C.bool(p.NoAlloc)

	if p.Devices != nil {
		list := cArray[C.ggml_backend_dev_t](len(p.Devices)+1, &owned) // NULL-terminated
		for i, name := range p.Devices {
			if list[i], err = deviceByName(name); err != nil {
				return cp, free, err
			}
		}
		cp.devices = &list[0]
	}
	if p.TensorSplit != nil {
		most := int(C.llama_max_devices())
		if len(p.TensorSplit) > most {
			return cp, free, fmt.Errorf("a tensor split over %d devices: the library takes at most %d", len(p.TensorSplit), most)
		}
		split := cArray[C.float](most, &owned)
		for i, share := range p.TensorSplit {
			split[i] = C.float(share)
		}
		cp.tensor_split = &split[0]
	}
	if p.TensorOverrides != nil {
		list := cArray[C.struct_llama_model_tensor_buft_override](len(p.TensorOverrides)+1, &owned)
		for i, o := range p.TensorOverrides {
			dev, err := deviceByName(o.Buffer)
			if err != nil {
				return cp, free, fmt.Errorf("tensor override %q: %w", o.Pattern, err)
			}
			list[i].pattern = C.CString(o.Pattern)
			owned = append(owned, unsafe.Pointer(list[i].pattern))
			list[i].buft = C.ggml_backend_dev_buffer_type(dev)
		}
		cp.tensor_buft_overrides = &list[0]
	}
	return cp, free, nil
}

// cArray allocates n zeroed elements in C memory and appends its address to owned.
func cArray[T any](n int, owned *[]unsafe.Pointer) []T {
	var zero T
	p := C.calloc(C.size_t(n), C.size_t(unsafe.Sizeof(zero)))
	*owned = append(*owned, p)
	return unsafe.Slice((*T)(p), n)
}

func int32C(what string, n int) (C.int32_t, error) {
	if n < math.MinInt32 || n > math.MaxInt32 {
		return 0, fmt.Errorf("%s %d does not fit 32 bits", what, n)
	}
	return C.int32_t(n), nil
}

// ContextParams says how to create a context (struct llama_context_params). The
// zero value of a field is llama-bench's default, except where noted.
type ContextParams struct {
	Context        int // tokens that the KV cache holds, rounded up to a multiple of 256; 0: the model's context length in training
	Batch          int // most tokens of one decode; 0: 2048
	UBatch         int // most tokens of one pass through the graph; 0: 512
	Threads        int // of the CPU back-end, 1…512; 0: runtime.NumCPU() (llama-bench: physical cores)
	ThreadsBatch   int // that compute batches of several tokens; 0: Threads
	FlashAttention FlashAttention
	TypeK, TypeV   KVType // empty: f16
	NoKVOffload    bool   // keep the KV cache in host memory
	NoOpOffload    bool   // compute operations on host tensors on the host
	Embeddings     bool   // compute embeddings too
	SWAFull        bool   // full-size cache for sliding-window attention (the library's default is true)
	AnyThread      bool   // allow calls from any OS thread; only for measuring what the thread rule is worth
}

func (p ContextParams) c() (C.struct_llama_context_params, error) {
	cp := C.llama_context_default_params()
	var err error
	for _, f := range []struct {
		name string
		n    int
		zero int
		most int
		dst  *C.uint32_t
	}{
		{"context length", p.Context, 0, math.MaxInt32, &cp.n_ctx},
		{"batch", p.Batch, 2048, math.MaxInt32, &cp.n_batch},
		{"ubatch", p.UBatch, 512, math.MaxInt32, &cp.n_ubatch},
	} {
		if f.n == 0 {
			f.n = f.zero
		}
		if f.n < 0 || f.n > f.most {
			return cp, fmt.Errorf("%s %d is outside 0…%d tokens", f.name, f.n, f.most)
		}
		*f.dst = C.uint32_t(f.n)
	}
	threads := p.Threads
	if threads == 0 {
		threads = runtime.NumCPU()
	}
	if threads < 0 || threads > C.GGML_MAX_N_THREADS {
		return cp, fmt.Errorf("%d threads are outside 1…%d", threads, C.GGML_MAX_N_THREADS)
	}
	batch := cmp.Or(p.ThreadsBatch, threads)
	if batch < 0 || batch > C.GGML_MAX_N_THREADS {
		return cp, fmt.Errorf("%d threads for batches are outside 1…%d", batch, C.GGML_MAX_N_THREADS)
	}
	cp.n_threads, cp.n_threads_batch = C.int32_t(threads), C.int32_t(batch)
	if cp.flash_attn_type, err = p.FlashAttention.c(); err != nil {
		return cp, err
	}
	if cp.type_k, err = p.TypeK.c(); err != nil {
		return cp, err
	}
	if cp.type_v, err = p.TypeV.c(); err != nil {
		return cp, err
	}
	cp.offload_kqv = C.bool(!p.NoKVOffload)
	cp.op_offload = C.bool(!p.NoOpOffload)
	cp.embeddings = C.bool(p.Embeddings)
	cp.swa_full = C.bool(p.SWAFull)
	return cp, nil
}
