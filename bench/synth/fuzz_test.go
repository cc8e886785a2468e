package synth

import (
	"path"
	"strings"
	"testing"
)

// The header of an accepted shape is consistent. A refused shape has an error.
func FuzzShape(f *testing.F) {
	entries, err := shapeFiles.ReadDir("shapes")
	if err != nil {
		f.Fatal(err)
	}
	for _, e := range entries {
		text, err := shapeFiles.ReadFile(path.Join("shapes", e.Name()))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte("architecture: llama\nkeys: {block_count: 1000000000}\nlayer_tensors: [{name: w, dims: [1]}]\n"))
	f.Add([]byte("model_size: 4\nmodel_n_params: 1\narchitecture: x\nquantization: F16\ntensors: [{name: w, dims: [1]}]\n"))
	f.Add([]byte("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := ParseShape("fuzz.gguf", text)
		if err != nil {
			return
		}
		file, err := s.File()
		if err != nil {
			if !strings.HasPrefix(err.Error(), "shape of fuzz.gguf: ") {
				t.Errorf("error %q", err)
			}
			return
		}
		if file.TensorBytes() != s.ModelSize || file.Params() != s.Params || len(file.Tensors) > maxTensors {
			t.Errorf("%d tensors of %d bytes and %d parameters", len(file.Tensors), file.TensorBytes(), file.Params())
		}
		if header, err := file.Header(); err != nil || int64(len(header)) != file.DataOffset {
			t.Errorf("header of %d bytes, %v", len(header), err)
		}
	})
}
