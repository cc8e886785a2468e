package llama

import (
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Allocation says where the library put a model or a context. The library has no
// call for it, so this file reads it from the library's log. TestAllocation fails
// when the wording of the log changes.
type Allocation struct {
	Buffers []Buffer       // in the library's order; with ModelParams.NoAlloc weights and cache have size 0
	Layers  map[string]int // of a model: device → layers that it computes, including the output layer
	// Of a context: device → bytes of the KV cache and of recurrent states. They are
	// also known if nothing was allocated.
	Cache map[string]uint64

	caching []string // devices of the layers of the cache that is being read
}

// Buffer is memory that the library allocated.
type Buffer struct {
	Kind string // "model", "KV", "RS", "compute", "output", …
	Type string // of the buffer, not of the device: "CPU", "CPU_REPACK", "CUDA0", "CUDA_Host", "RPC0[127.0.0.1:50052]"
	// In bytes, which the library rounds to 0.01 MiB. A mapped file counts with its
	// whole length.
	SizeBytes uint64
}

// Spread replaces a MetaDevice (SplitTensor) by the devices that it stands for.
// Each of them gets every layer, and of buffers and cache its share by split. An
// empty split means even shares. For a buffer of a MetaDevice the library reports
// the largest share, for a cache the sum of all. Without a MetaDevice the result
// equals a.
func (a Allocation) Spread(devices []Device, split []float32) Allocation {
	if len(split) != len(devices) || len(split) == 0 || slices.Max(split) <= 0 {
		split = slices.Repeat([]float32{1}, len(devices))
	}
	var most, all float32
	for _, s := range split {
		most, all = max(most, s), all+s
	}
	share := func(size uint64, i int, of float32) uint64 {
		return uint64(float64(size) * float64(split[i]) / float64(of))
	}

	spread := Allocation{Layers: make(map[string]int), Cache: make(map[string]uint64)}
	for name, n := range a.Layers {
		if !strings.HasPrefix(name, metaName) {
			spread.Layers[name] += n
			continue
		}
		for _, d := range devices {
			spread.Layers[d.Name] += n
		}
	}
	for name, size := range a.Cache {
		if !strings.HasPrefix(name, metaName) {
			spread.Cache[name] += size
			continue
		}
		for i, d := range devices {
			spread.Cache[d.Name] += share(size, i, all)
		}
	}
	for _, b := range a.Buffers {
		if !strings.HasPrefix(b.Type, metaName) {
			spread.Buffers = append(spread.Buffers, b)
			continue
		}
		for i, d := range devices {
			spread.Buffers = append(spread.Buffers, Buffer{Kind: b.Kind, Type: d.BufferType, SizeBytes: share(b.SizeBytes, i, most)})
		}
	}
	return spread
}

// Together is the number of layers on a MetaDevice.
func (a Allocation) Together() (layers int) {
	for name, n := range a.Layers {
		if strings.HasPrefix(name, metaName) {
			layers += n
		}
	}
	return layers
}

// In reports whether the buffer is memory of the device. Its type is then the
// device's, alone or followed by an underscore and a variant ("CPU_REPACK").
// Pinned host memory ("CUDA_Host") belongs to no device. Weights laid out for AMX
// belong to the CPU.
func (b Buffer) In(d Device) bool {
	rest, ok := strings.CutPrefix(b.Type, d.BufferType)
	return ok && (rest == "" || rest[0] == '_') && !strings.HasSuffix(rest, "_Host") ||
		d.Type == CPUDevice && b.Type == "AMX"
}

// SizeOn is the memory of one kind on a device in bytes, or of all kinds if kind
// is empty.
func (a Allocation) SizeOn(d Device, kind string) uint64 {
	var sum uint64
	for _, b := range a.Buffers {
		if b.In(d) && (kind == "" || kind == b.Kind) {
			sum += b.SizeBytes
		}
	}
	return sum
}

var (
	// "load_tensors:   CPU_REPACK model buffer size =     7.59 MiB"
	// "llama_context:        CPU  output buffer size =     0.19 MiB"
	bufferLine = regexp.MustCompile(`^\w+: +(\S+) +([A-Za-z0-9 ]*[A-Za-z0-9]) buffer size = +([0-9.]+) MiB$`)
	// "load_tensors: layer  30 assigned to device RPC0, is_swa = 0"
	layerLine = regexp.MustCompile(`^\w+: layer +\d+ assigned to device (.+), is_swa = \d$`)
	// "llama_kv_cache: layer   0: dev = RPC0", "llama_memory_recurrent, layer   0: dev = CUDA0"
	cacheLayerLine = regexp.MustCompile(`^\w+[:,] layer +\d+: dev = (.+)$`)
	// "llama_kv_cache: size =   11.25 MiB (   512 cells,  30 layers,  1/1 seqs), K (f16):    5.62 MiB, V (f16):    5.62 MiB"
	cacheLine = regexp.MustCompile(`^\w+: size = +([0-9.]+) MiB \( *\d+ cells`)
)

// read takes from a line of the library's log what it says about memory.
func (a *Allocation) read(line string) {
	if m := bufferLine.FindStringSubmatch(line); m != nil {
		if size, ok := mib(m[3]); ok {
			a.Buffers = append(a.Buffers, Buffer{Kind: m[2], Type: m[1], SizeBytes: size})
		}
	}
	if m := layerLine.FindStringSubmatch(line); m != nil {
		if a.Layers == nil {
			a.Layers = make(map[string]int)
		}
		a.Layers[m[1]]++
	}
	if m := cacheLayerLine.FindStringSubmatch(line); m != nil {
		a.caching = append(a.caching, m[1])
	}
	if m := cacheLine.FindStringSubmatch(line); m != nil {
		if size, ok := mib(m[1]); ok {
			a.cached(size)
		}
	}
}

// cached divides a cache among the devices of its layers. All layers of one cache
// have the same size.
func (a *Allocation) cached(size uint64) {
	if a.Cache == nil {
		a.Cache = make(map[string]uint64)
	}
	for _, device := range a.caching {
		a.Cache[device] += size / uint64(len(a.caching))
	}
	a.caching = nil
}

// mib turns a number of MiB into bytes. ok is false if text is not such a number.
func mib(text string) (size uint64, ok bool) {
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || n >= 1<<40 {
		return 0, false
	}
	return uint64(math.Round(n * (1 << 20))), true
}
