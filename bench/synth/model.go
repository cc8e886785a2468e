package synth

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"math/rand/v2"
	"runtime"
	"slices"
	"sort"
	"strings"
	"sync"

	"github.com/sparecores/benchmark-llm/bench/gguf"
)

// Quantizer encodes numbers as blocks of a type.
type Quantizer interface {
	// Quantize encodes rows of nPerRow elements each, a multiple of the type's block
	// size, as consecutive blocks. It does not change src. Several goroutines may
	// call it at the same time.
	Quantize(t gguf.Type, src []float32, nPerRow int) ([]byte, error)
}

// Model is a model with synthetic weights, as the bytes of its GGUF file. It is
// immutable and safe for concurrent use. It needs a few megabytes of memory for a
// model of any size.
//
// The weights are not stored. One tile is generated and quantised for each kind of
// tensor. A tensor repeats its tile, starting at a block of its own. The number of
// blocks of a tile is a prime, so it shares no divisor with the number of blocks of
// a row. That makes rows near each other differ.
//
// The kernel chooses the size of the memory pages. Those of a mapped file depend on how
// it came into the page cache, so no choice would equal every file. Huge pages would
// favour synthetic weights over a file that was just downloaded.
type Model struct {
	file     *gguf.File
	size     int64     // bytes
	segments []segment // in order; they cover the file without gaps
}

// segment is a part of the file that repeats a tile.
type segment struct {
	start int64 // offset in the file, in bytes
	tile  []byte
	phase int64 // offset in the tile at the start, in bytes
}

// The weights of a model.
const (
	// weightSD is the standard deviation of weights. It is the initializer_range of
	// most published models, and keeps activations finite and far from the limits of
	// f16 in all of them.
	weightSD = 0.02
	// embeddingSD is the standard deviation of token embeddings. The differences
	// between tokens must outweigh the mixture that attention adds. Otherwise all
	// tokens become alike after a few layers, and a router sends them to the same
	// experts.
	embeddingSD = 8
	// tiedSD is the standard deviation of embeddings that are also the output. A
	// token's logit for itself grows with the square, and f16 ends at 65504.
	tiedSD = 1
	// tileBytes is the size of a tile. It is far above the size of a row, which makes
	// rows differ, and small enough for a cache while the tile is copied.
	tileBytes = 384 << 10
	// tileElements is the largest number of elements of a tile. Quantising a million
	// takes a second for the types of the fewest bits.
	tileElements = 720_000
	// phaseStride is the distance between the starts of consecutive tensors in a tile,
	// in blocks. Because it is a prime, tensors start at different blocks.
	phaseStride = 1_000_003
	// quantizedRow is the length of the rows given to a quantiser, in elements. It is
	// a multiple of every block size.
	quantizedRow = 256
)

// New makes the model of a shape. The same shape, seed and quantiser give the
// same bytes on every machine.
func New(shape *Shape, seed uint64, q Quantizer) (*Model, error) {
	file, err := shape.File()
	if err != nil {
		return nil, err
	}
	return FromHeader(shape.Name, file, seed, q)
}

// FromHeader makes the model of a header, from a shape or an Outline. It keeps
// file. name is the name of the model in errors. If the quantiser cannot produce a
// type, the error names the tensor and the type. The same header, seed and
// quantiser give the same bytes on every machine.
func FromHeader(name string, file *gguf.File, seed uint64, q Quantizer) (*Model, error) {
	header, err := file.Header()
	if err != nil {
		return nil, err
	}
	if int64(len(header)) != file.DataOffset {
		return nil, fmt.Errorf("header of %s has %d bytes, but its data start at byte %d", name, len(header), file.DataOffset)
	}
	m := &Model{file: file, size: file.Size()}
	m.append(0, header, 0)
	tiles := make(map[tileKind][]byte)
	tied := !slices.ContainsFunc(file.Tensors, func(t gguf.Tensor) bool { return t.Name == "output.weight" })
	for i, t := range file.Tensors {
		kind := tileKind{t.Type, fillOf(t, tied)}
		tile, ok := tiles[kind]
		if !ok {
			if tile, err = kind.make(seed, q); err != nil {
				return nil, fmt.Errorf("weights of %s, tensor %s of type %v: %w", name, t.Name, t.Type, err)
			}
			tiles[kind] = tile
		}
		blockBytes := int64(t.Type.BlockBytes())
		phase := int64(i) * phaseStride % (int64(len(tile)) / blockBytes) * blockBytes
		start := file.DataOffset + int64(t.Offset)
		m.append(start, tile, phase)
		m.append(start+int64(t.Bytes()), padding, 0)
	}
	return m, nil
}

// padding is the content of the file between tensors.
var padding = make([]byte, 32)

// append adds a segment that starts at byte start. If the last segment starts
// there, too, it is empty and is replaced.
func (m *Model) append(start int64, tile []byte, phase int64) {
	if last := len(m.segments) - 1; last >= 0 && m.segments[last].start == start {
		m.segments = m.segments[:last]
	}
	m.segments = append(m.segments, segment{start, tile, phase})
}

// File is the header of the model. Callers must not change it.
func (m *Model) File() *gguf.File { return m.file }

// Size is the size of the model's file in bytes.
func (m *Model) Size() int64 { return m.size }

// ReadAt implements io.ReaderAt. It copies from tiles and allocates nothing.
func (m *Model) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, errors.New("synth: read at a negative offset")
	}
	for n < len(p) {
		part := m.at(off + int64(n))
		if len(part) == 0 {
			return n, io.EOF
		}
		n += copy(p[n:], part)
	}
	return n, nil
}

// WriteTo implements io.WriterTo. It writes the whole file.
func (m *Model) WriteTo(w io.Writer) (n int64, err error) {
	for n < m.size {
		written, err := w.Write(m.at(n))
		n += int64(written)
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// at is the content of the file from byte off up to the end of the tile or of the
// segment. It is empty at the end of the file.
func (m *Model) at(off int64) []byte {
	if off >= m.size {
		return nil
	}
	i := sort.Search(len(m.segments), func(i int) bool { return m.segments[i].start > off }) - 1
	s, end := m.segments[i], m.size
	if i+1 < len(m.segments) {
		end = m.segments[i+1].start
	}
	part := s.tile[(s.phase+off-s.start)%int64(len(s.tile)):]
	return part[:min(int64(len(part)), end-off)]
}

// tileKind is the kind of a tensor. Tensors of the same kind share a tile.
type tileKind struct {
	typ  gguf.Type
	fill fill
}

// fill is the distribution of the elements of a tensor.
type fill struct {
	mean, sd float32
}

// fillOf is the distribution for a tensor. Factors have the mean 1, which keeps
// activations in range. Decays have the mean -1. Other weights have the mean 0, so
// all experts of a mixture are equally likely. tied says that the embedding is also
// the output.
func fillOf(t gguf.Tensor, tied bool) fill {
	name := t.Name
	if i := strings.LastIndex(name, "blk."); i >= 0 { // blk.N.
		if _, rest, ok := strings.Cut(name[i+len("blk."):], "."); ok {
			name = rest
		}
	}
	part, suffix := name, ""
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		part, suffix = name[:i], name[i+1:]
	}
	switch {
	case name == "token_embd.weight" && tied:
		return fill{0, tiedSD}
	case name == "token_embd.weight":
		return fill{0, embeddingSD}
	case strings.Contains(part, "norm") && suffix == "weight",
		strings.HasPrefix(part, "rope_freqs"), strings.HasPrefix(part, "rope_factors"),
		suffix == "scale", suffix == "input_scale", // types with a scale beside the blocks
		part == "ssm_d", name == "ssm_d":
		return fill{1, weightSD}
	case part == "ssm_a", name == "ssm_a":
		return fill{-1, weightSD}
	}
	return fill{0, weightSD}
}

// make generates a tile.
func (k tileKind) make(seed uint64, q Quantizer) ([]byte, error) {
	blocks := tileBlocks(k.typ)
	elements := blocks * int(k.typ.BlockSize())
	// All rows have the full length. The last may exceed the tile.
	rows := (elements + quantizedRow - 1) / quantizedRow
	values := make([]float32, rows*quantizedRow)
	// Tiles that differ only in their scale need different seeds. Otherwise their rows
	// would be multiples of each other.
	scale := uint64(math.Float32bits(k.fill.sd)) ^ uint64(math.Float32bits(weightSD))
	rng := rand.NewPCG(seed, uint64(k.typ)<<32|uint64(math.Float32bits(k.fill.mean))^scale<<20)
	for i := range values {
		values[i] = k.fill.mean + float32(k.fill.sd*normal(rng)) // the conversion forbids a fused operation
	}
	var tile []byte
	var err error
	if k.typ == gguf.F32 {
		tile, err = binary.Append(nil, binary.LittleEndian, values)
	} else {
		tile, err = quantize(q, k.typ, values)
	}
	if err != nil {
		return nil, err
	}
	size := blocks * int(k.typ.BlockBytes())
	if want := rows * quantizedRow / int(k.typ.BlockSize()) * int(k.typ.BlockBytes()); len(tile) != want {
		return nil, fmt.Errorf("the quantiser returned %d bytes, expected %d", len(tile), want)
	}
	return tile[:size:size], nil
}

// quantize quantises rows on all CPUs, because the types of the fewest bits take
// seconds per tile. Each row is quantised by itself, so the bytes do not depend on the
// number of CPUs.
func quantize(q Quantizer, t gguf.Type, values []float32) ([]byte, error) {
	rows := len(values) / quantizedRow
	part := (rows + runtime.GOMAXPROCS(0) - 1) / runtime.GOMAXPROCS(0) * quantizedRow
	parts := slices.Collect(slices.Chunk(values, part))
	tiles := make([][]byte, len(parts))
	errs := make([]error, len(parts))
	var all sync.WaitGroup
	for i, p := range parts {
		all.Go(func() { tiles[i], errs[i] = q.Quantize(t, p, quantizedRow) })
	}
	all.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return slices.Concat(tiles...), nil
}

// tileBlocks is the number of blocks in a tile of a type.
func tileBlocks(t gguf.Type) int {
	return primeFrom(int(min(tileBytes/t.BlockBytes(), tileElements/t.BlockSize())))
}

// normal draws from an approximate standard normal distribution, within ±3.5: the
// sum of four uniform numbers (Irwin–Hall). The sum is exact in integers, so it is
// the same on every machine.
func normal(rng *rand.PCG) float32 {
	v := rng.Uint64()
	sum := int(v&0xffff) + int(v>>16&0xffff) + int(v>>32&0xffff) + int(v>>48)
	const mean, sd = 2 * 0xffff, 37837.2 // sd = √(4·(65536²-1)/12)
	return float32(sum-mean) / sd
}

// primeFrom is the smallest prime that is at least n.
func primeFrom(n int) int {
	for !big.NewInt(int64(n)).ProbablyPrime(0) { // exact below 2⁶⁴
		n++
	}
	return n
}
