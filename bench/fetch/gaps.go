package fetch

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"

	"github.com/sparecores/benchmark-llm/bench/gguf"
)

// Gaps say how much of a model's files was never written. A download that failed may
// leave a file of the right length with a good header.
type Gaps struct {
	DataBytes uint64 // of all tensors
	HoleBytes uint64 // of them in holes of the files, which read as zeros
	Sampled   int    // large tensors that were sampled
	Zero      int    // of them those that have only zeros in every sample
}

// holeShare is the share of holes above which a model is incomplete. A copy may make
// holes of the rows of unused tokens, which are zeros.
const holeShare = 0.01

// String describes the gaps; it is empty if the files look complete.
func (g Gaps) String() string {
	switch {
	case float64(g.HoleBytes) > holeShare*float64(g.DataBytes):
		return fmt.Sprintf("%s of %s of weights are holes in the file, which read as zeros", humanize.IBytes(g.HoleBytes), humanize.IBytes(g.DataBytes))
	case g.Zero > 0:
		return fmt.Sprintf("%d of %d sampled tensors have only zeros", g.Zero, g.Sampled)
	}
	return ""
}

const (
	sampleBytes      = 4 << 10  // a page
	samplesPerTensor = 3        // at its start, in its middle and at its end
	largeTensorBytes = 64 << 10 // a smaller one may well be zero: a bias
	maxHoles         = 1 << 12  // that are counted in a file
)

// FindGaps looks for gaps in the files of a model. header is that of all files. It asks
// the file system for holes, and reads samples of at most tensors large tensors. The
// samples are single pages, read without read-ahead, so they do not change what a load
// finds in the page cache. Errors are those of the file system and of package gguf.
func FindGaps(paths []string, header *gguf.File, tensors int) (Gaps, error) {
	var g Gaps
	for _, path := range paths {
		if len(paths) > 1 { // the offsets of a merged header are not those of its files
			var err error
			if header, err = gguf.ReadFile(path); err != nil {
				return g, err
			}
		}
		if err := g.add(path, header, (tensors+len(paths)-1)/len(paths)); err != nil {
			return g, err
		}
	}
	return g, nil
}

// add looks for gaps in one file.
func (g *Gaps) add(path string, header *gguf.File, tensors int) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	g.DataBytes += header.TensorBytes()
	end := header.Size()
	if info, err := f.Stat(); err == nil {
		end = min(end, info.Size())
	}
	g.HoleBytes += holes(int(f.Fd()), header.DataOffset, end)

	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_RANDOM) // without it, a sample reads its neighbours, too
	var large []gguf.Tensor
	for _, t := range header.Tensors {
		if t.Bytes() >= largeTensorBytes && len(t.Dims) > 1 {
			large = append(large, t)
		}
	}
	for i := range min(tensors, len(large)) {
		t := large[i*len(large)/min(tensors, len(large))]
		zero, err := isZero(f, header.DataOffset+int64(t.Offset), int64(t.Bytes()))
		if err != nil {
			return err
		}
		g.Sampled++
		if zero {
			g.Zero++
		}
	}
	return nil
}

// isZero reports whether samples of the tensor at an offset are all zeros.
func isZero(f *os.File, offset, size int64) (bool, error) {
	buf := make([]byte, sampleBytes)
	for i := range int64(samplesPerTensor) {
		at := offset + i*(size-sampleBytes)/(samplesPerTensor-1)
		if _, err := f.ReadAt(buf, at); err != nil {
			return false, err
		}
		if len(bytes.Trim(buf, "\x00")) > 0 {
			return false, nil
		}
	}
	return true, nil
}

// holes is the number of bytes in holes between two offsets. It is 0 on a file system
// that does not tell.
func holes(fd int, from, end int64) (sum uint64) {
	for range maxHoles {
		hole, err := unix.Seek(fd, from, unix.SEEK_HOLE)
		if err != nil || hole >= end {
			return sum
		}
		data, err := unix.Seek(fd, hole, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) { // no data follow
			data = end
		} else if err != nil {
			return sum
		}
		from = min(data, end)
		sum += uint64(from - hole)
	}
	return sum
}
