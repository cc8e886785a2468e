package gguf

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// maxShards is far above any known model, and fits the five digits of the names.
const maxShards = 9999

var shardName = regexp.MustCompile(`^(.*)-(\d{5})-of-(\d{5})\.gguf$`)

// ShardNames are the names of all count files of a split model. first is the name
// of the first file, with or without its folder or URL. The names follow
// llama.cpp: model-00001-of-00003.gguf.
func ShardNames(first string, count uint64) ([]string, error) {
	if count <= 1 {
		return []string{first}, nil
	}
	if count > maxShards {
		return nil, refuse(ErrUnsupported, "split.count is %d, more than the limit of %d", count, maxShards)
	}
	m := shardName.FindStringSubmatch(first)
	if m == nil {
		return nil, refuse(ErrCorrupt, "%q is one of %d files, but its name does not end in -00001-of-%05d.gguf", baseName(first), count, count)
	}
	if of, _ := strconv.ParseUint(m[3], 10, 64); of != count {
		return nil, refuse(ErrCorrupt, "%q is one of %d files by its header, and of %d by its name", baseName(first), count, of)
	}
	if m[2] != "00001" {
		return nil, refuse(ErrNotFirst, "%q is not the first of its %d files", baseName(first), count)
	}
	names := make([]string, count)
	for i := range names {
		names[i] = fmt.Sprintf("%s-%05d-of-%05d.gguf", m[1], i+1, count)
	}
	return names, nil
}

// ReadShards returns the merged header of a model and the names of its files. It
// calls read for each of them, first for the given name. The other names have the
// same folder or URL. Budgets and memory are computed from the merged header, so they
// count all files. Files that do not belong together are refused here, not by the
// library.
func ReadShards(first string, read func(name string) (*File, error)) (merged *File, names []string, err error) {
	header, err := read(first)
	if err != nil {
		return nil, nil, err
	}
	if names, err = ShardNames(first, header.Shards()); err != nil {
		return nil, nil, err
	}
	headers := []*File{header}
	for _, name := range names[1:] {
		more, err := read(name)
		if err != nil {
			return nil, nil, fmt.Errorf("one of %d files: %w", len(names), err)
		}
		headers = append(headers, more)
	}
	if merged, err = Merge(headers); err != nil {
		return nil, nil, err
	}
	return merged, names, nil
}

// IsShard reports whether a file of this name is a further file of a split model,
// not the first.
func IsShard(name string) bool {
	m := shardName.FindStringSubmatch(name)
	return m != nil && m[3] != "00001"
}

// baseName is a name without its folder and query, which may hold secrets.
func baseName(s string) string {
	s, _, _ = strings.Cut(s, "?")
	return s[strings.LastIndexByte(s, '/')+1:]
}

// Merge makes one header from those of all shards of a model: the header of the
// same model in a single file. It refuses shards that are missing, duplicate, out
// of order or of another model, and models that Read would refuse in a single
// file. A single file that is not split is returned unchanged.
func Merge(shards []*File) (*File, error) {
	if len(shards) == 0 {
		return nil, refuse(ErrCorrupt, "no files to merge")
	}
	first := shards[0]
	if len(shards) == 1 && first.Shards() == 1 {
		return first, nil
	}
	var tensors []Tensor
	for i, f := range shards {
		if f.Shards() != uint64(len(shards)) {
			return nil, refuse(ErrCorrupt, "file %d of %d is one of %d by its header", i+1, len(shards), f.Shards())
		}
		no, ok := f.Uint("split.no")
		if !ok {
			return nil, refuse(ErrCorrupt, "file %d of %d has no key split.no", i+1, len(shards))
		}
		if no != uint64(i) {
			return nil, refuse(ErrCorrupt, "file %d of %d says that it is file %d", i+1, len(shards), no+1)
		}
		if len(tensors)+len(f.Tensors) > int(DefaultLimits.Tensors) {
			return nil, refuse(ErrUnsupported, "the %d files have more tensors than the limit of %d", len(shards), DefaultLimits.Tensors)
		}
		tensors = append(tensors, f.Tensors...)
	}
	if want, ok := first.Uint("split.tensors.count"); ok && want != uint64(len(tensors)) {
		return nil, refuse(ErrCorrupt, "the %d files have %d tensors, but split.tensors.count is %d", len(shards), len(tensors), want)
	}
	var kv []KeyValue
	for _, k := range first.KV {
		if !strings.HasPrefix(k.Key, "split.") {
			kv = append(kv, k)
		}
	}
	merged, err := relaid(kv, tensors)
	if err != nil {
		return nil, err
	}
	if err := merged.checkHparams(); err != nil {
		return nil, err
	}
	return merged, nil
}

// relaid is New for the keys of a file that was read, which may be Skipped.
// DataOffset then leaves out the skipped arrays.
func relaid(kv []KeyValue, tensors []Tensor) (*File, error) {
	kept := make([]KeyValue, 0, len(kv))
	for _, k := range kv {
		if _, skipped := k.Value.(Skipped); !skipped {
			kept = append(kept, k)
		}
	}
	f, err := New(kept, tensors)
	if err != nil {
		return nil, err
	}
	f.KV = kv
	return f, nil
}
