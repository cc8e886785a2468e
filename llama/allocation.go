package llama

import (
	"math"
	"regexp"
	"strconv"
	"strings"
)

// Allocation is where the library put a model or a context. It has no call that
// tells, so it is read from its log, here and nowhere else; a test against the
// real library fails when the wording changes.
type Allocation struct {
	Buffers []Buffer       // in the order in which the library names them
	Layers  map[string]int // of a model: device → layers that it computes, the output layer being one
}

// Buffer is memory that the library allocated.
type Buffer struct {
	Kind string // "model", "KV", "RS", "compute", "output", …
	Type string // of the buffer, not of the device: "CPU", "CPU_REPACK", "CUDA0", "CUDA_Host", "RPC0[127.0.0.1:50052]"
	// To a hundredth of a MiB, as the library rounds it. A mapped file counts with
	// its whole length.
	SizeBytes uint64
}

// In reports whether the buffer is memory of the device of that name: a type is
// the name, a device's address in brackets, or a variant after an underscore.
// Pinned memory of the host ("CUDA_Host") is no device's.
func (b Buffer) In(device string) bool {
	rest, ok := strings.CutPrefix(b.Type, device)
	return ok && (rest == "" || rest[0] == '[' || rest[0] == '_') && !strings.HasSuffix(rest, "_Host")
}

// SizeOn is the memory of one kind on a device, in bytes; of all kinds when kind
// is empty.
func (a Allocation) SizeOn(device, kind string) uint64 {
	var sum uint64
	for _, b := range a.Buffers {
		if b.In(device) && (kind == "" || kind == b.Kind) {
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
)

// read takes what a line of the library's log says of memory.
func (a *Allocation) read(line string) {
	if m := bufferLine.FindStringSubmatch(line); m != nil {
		if mib, err := strconv.ParseFloat(m[3], 64); err == nil && mib < 1<<40 {
			a.Buffers = append(a.Buffers, Buffer{Kind: m[2], Type: m[1], SizeBytes: uint64(math.Round(mib * (1 << 20)))})
		}
	}
	if m := layerLine.FindStringSubmatch(line); m != nil {
		if a.Layers == nil {
			a.Layers = make(map[string]int)
		}
		a.Layers[m[1]]++
	}
}
