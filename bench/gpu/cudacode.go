package gpu

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// CUDACode lists the GPUs that a library has code for: machine code for some, and
// PTX, which the driver compiles for others at first use. It is read from the library's
// file. ggml reports its architectures, but not which of them have machine code.
type CUDACode struct {
	Machine []Capability
	PTX     []Capability
	ISA     Capability // newest version of the PTX instruction set; zero without PTX
}

// Capability is the compute capability of a GPU, such as 8.9. It also holds versions
// of CUDA and PTX.
type Capability struct{ Major, Minor int }

// parseCapability reads "8.9"; ok is false for anything else.
func parseCapability(s string) (c Capability, ok bool) {
	n, err := fmt.Sscanf(s, "%d.%d", &c.Major, &c.Minor)
	if err != nil || n != 2 || c.Major < 0 || c.Minor < 0 {
		return Capability{}, false
	}
	return c, true
}

func (c Capability) String() string { return fmt.Sprintf("%d.%d", c.Major, c.Minor) }

// Compare is negative if c is lower than other, 0 if equal, positive if higher.
func (c Capability) Compare(other Capability) int {
	if c.Major != other.Major {
		return c.Major - other.Major
	}
	return c.Minor - other.Minor
}

// Native reports whether there is machine code for a GPU. Code for the same major
// capability and the same or a lower minor one runs.
func (c CUDACode) Native(gpu Capability) bool {
	return slices.ContainsFunc(c.Machine, func(m Capability) bool { return m.Major == gpu.Major && m.Minor <= gpu.Minor })
}

// Compiles reports whether there is PTX that a driver can compile for a GPU. PTX for
// the same or a lower capability compiles.
func (c CUDACode) Compiles(gpu Capability) bool {
	return slices.ContainsFunc(c.PTX, func(p Capability) bool { return p.Compare(gpu) <= 0 })
}

// Driver returns the CUDA version that a driver must support at least to compile
// the PTX. ok is false if that is not known.
func (c CUDACode) Driver() (cuda Capability, ok bool) {
	// Source: "Release history" of NVIDIA's PTX ISA. Each CUDA version has its own.
	switch isa := c.ISA; {
	case isa.Major == 7 && isa.Minor <= 8:
		return Capability{11, isa.Minor}, true
	case isa.Major == 8 && isa.Minor <= 5:
		return Capability{12, isa.Minor}, true
	case isa.Major == 8 && isa.Minor <= 8:
		return Capability{12, isa.Minor + 1}, true
	case isa.Major == 9:
		return Capability{13, isa.Minor}, true
	default:
		return Capability{}, false
	}
}

// Fat binaries, which nvcc puts into the section .nv_fatbin: a sequence of
// containers, each with several entries. NVIDIA does not document the format. The
// numbers are those seen in Debian's libggml-cuda.so and libcublas.so.12.
const (
	fatbinSection   = ".nv_fatbin"
	fatbinMagic     = 0xBA55ED50
	fatbinHeader    = 16 // magic, version (2), bytes of this header (2), bytes of the entries (8)
	fatbinEntry     = 32 // kind (2), …, bytes of this header (4), of the code (8), …, version (2, 2), capability (4)
	fatbinPTX       = 1
	fatbinMachine   = 2
	fatbinSteps     = 1 << 20 // limit for the containers and entries read
	fatbinAlignment = 8
)

var errFatbin = errors.New("unknown format of GPU code")

// readCUDACode returns the GPUs that a library file has code for. It reads headers
// only: a few kilobytes of files of hundreds of megabytes.
func readCUDACode(path string) (CUDACode, error) {
	f, err := elf.Open(path)
	if err != nil {
		return CUDACode{}, err
	}
	defer f.Close()
	s := f.Section(fatbinSection)
	if s == nil {
		return CUDACode{}, fmt.Errorf("%s: %w", path, errFatbin)
	}
	c, err := readFatbin(s, int64(s.Size))
	if err != nil {
		return c, result.AtPath(path, err)
	}
	return c, nil
}

func readFatbin(r io.ReaderAt, size int64) (CUDACode, error) {
	var c CUDACode
	add := func(list *[]Capability, v Capability) {
		if !slices.Contains(*list, v) {
			*list = append(*list, v)
		}
	}
	var header [fatbinHeader]byte
	var entry [fatbinEntry]byte
	steps := 0
	for at := int64(0); at+fatbinHeader <= size; {
		if _, err := r.ReadAt(header[:], at); err != nil {
			return c, err
		}
		if steps++; steps > fatbinSteps {
			return c, errFatbin
		}
		if binary.LittleEndian.Uint32(header[:]) != fatbinMagic {
			if binary.LittleEndian.Uint64(header[:]) != 0 { // zeros pad the space up to the next container
				return c, errFatbin
			}
			at += fatbinAlignment
			continue
		}
		length := binary.LittleEndian.Uint64(header[8:])
		at += int64(binary.LittleEndian.Uint16(header[6:]))
		if length > uint64(size) || at+int64(length) > size {
			return c, errFatbin
		}
		end := at + int64(length)
		for at+fatbinEntry <= end {
			if _, err := r.ReadAt(entry[:], at); err != nil {
				return c, err
			}
			if steps++; steps > fatbinSteps {
				return c, errFatbin
			}
			arch := int(binary.LittleEndian.Uint32(entry[28:]))
			v := Capability{arch / 10, arch % 10}
			switch binary.LittleEndian.Uint16(entry[:]) {
			case fatbinPTX:
				add(&c.PTX, v)
				isa := Capability{int(binary.LittleEndian.Uint16(entry[26:])), int(binary.LittleEndian.Uint16(entry[24:]))}
				if isa.Compare(c.ISA) > 0 {
					c.ISA = isa
				}
			case fatbinMachine:
				add(&c.Machine, v)
			}
			head, code := binary.LittleEndian.Uint32(entry[4:]), binary.LittleEndian.Uint64(entry[8:])
			if head < fatbinEntry || code > uint64(size) {
				return c, errFatbin
			}
			at += int64(head) + int64(code)
		}
		at = max(at, end)
	}
	if len(c.Machine)+len(c.PTX) == 0 {
		return c, errFatbin
	}
	slices.SortFunc(c.Machine, Capability.Compare)
	slices.SortFunc(c.PTX, Capability.Compare)
	return c, nil
}
