// Package roofline is about the limits of a machine: how they are measured, and what
// share of them a test reaches. The name is that of the model of Williams, Waterman and
// Patterson (Communications of the ACM 52, 2009): a program is bound by the rate of the
// memory or by that of the arithmetic.
//
// The limits are not a vendor's: the library measures them itself. A generated token
// multiplies every weight with a vector, and a prompt with a matrix, so these two
// products are what is timed, with weights that are far larger than the caches.
// Package llamacpp does it with the sizes of this package. README.md beside this file has
// the method.
package roofline

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// Errors of New.
var (
	ErrType   = errors.New("no type of weights")
	ErrMemory = errors.New("too little memory for weights larger than the caches")
)

// Sizes of the weights.
const (
	cacheFactor = 4         // as many times the caches of the last level
	minBytes    = 256 << 20 // of a machine with small caches
	leastFactor = 2         // below it, caches would answer for the memory
	unknown     = 64 << 20  // caches of a machine that does not tell

	// GPUBytes is the size of the weights in the memory of a GPU. No GPU has a cache of
	// more than 256 MiB.
	GPUBytes = 1 << 30
	// Columns are the values of a row: blocks of every type fit.
	Columns = 4096
)

// CommonTypes are the types that are measured if none are named. The weights of the
// default models have the first two, most of them the first.
var CommonTypes = []string{"q4_K", "q6_K", "q8_0", "f16"}

// New plans the measurement of weights of some types. cacheBytes are those of the CPU's
// last level, 0 if they are not known; availableBytes of memory are available, 0 if that is
// not known. The error wraps ErrType or ErrMemory.
func New(cacheBytes, availableBytes uint64, types ...string) (result.LimitsPlan, error) {
	p := result.LimitsPlan{CacheBytes: cacheBytes}
	for _, name := range types {
		if !slices.Contains(Types(), name) {
			return p, fmt.Errorf("%q: %w; they are %s", name, ErrType, strings.Join(Types(), ", "))
		}
		if !slices.Contains(p.Types, name) {
			p.Types = append(p.Types, name)
		}
	}
	if cacheBytes == 0 {
		cacheBytes = unknown
	}
	p.Bytes = max(cacheFactor*cacheBytes, minBytes)
	if available := availableBytes / 2; availableBytes > 0 && p.Bytes > available {
		p.Bytes = available
		if least := max(leastFactor*cacheBytes, minBytes/leastFactor); available < least {
			return p, fmt.Errorf("%w: they need %s, half of the %s that are available is less", ErrMemory, humanize.IBytes(least), humanize.IBytes(availableBytes))
		}
	}
	return p, nil
}

// Types are the names of the types that weights can have and the library can produce.
func Types() (names []string) {
	for t := range gguf.Type(64) {
		switch t {
		case gguf.Q8_1, gguf.Q8_K, gguf.I8, gguf.I16, gguf.I32, gguf.I64, gguf.F64:
		default:
			if t.Valid() {
				names = append(names, t.String())
			}
		}
	}
	return names
}

// Rows are the rows of each matrix. A device with much parallelism needs more of them to
// be busy.
func Rows(gpu bool, threads int) int {
	if gpu {
		return 16384
	}
	return min(max(1024*((threads+7)/8), 2048), 16384)
}

// Matrices is the number of matrices of a type that have so many bytes together, at
// least 2.
func Matrices(t gguf.Type, rows int, bytes uint64) int {
	matrix := uint64(rows) * Columns / t.BlockSize() * t.BlockBytes()
	return int(max(bytes/matrix, 2))
}

// Passes says how often a product is repeated: until its time is over, but at least
// Least and at most Most times. The best counts, because what disturbs a pass only makes
// it slower.
type Passes struct {
	Least, Most int
	Until       time.Duration // since the measurement began
}

// The passes of the two products. A measurement takes less than two seconds on a device
// on which a pass of all weights takes less than 100 ms.
var (
	VectorPasses = Passes{Least: 3, Most: 20, Until: 1200 * time.Millisecond}
	MatrixPasses = Passes{Least: 2, Most: 10, Until: 1700 * time.Millisecond}
)

// More tells whether there is another pass after n of them.
func (p Passes) More(n int, elapsed time.Duration) bool {
	return n < p.Least || n < p.Most && elapsed < p.Until
}

// CPU is the library's name of the CPU as a device.
const CPU = "CPU"

// MatrixPass is how long a pass of the large product shall take at least: it has as many
// matrices as that needs.
const MatrixPass = 20 * time.Millisecond
