//go:build cgo

package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/llamacpp"
	"github.com/sparecores/benchmark-llm/bench/report"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/synth"
)

// pair is a key and its value. A key that begins with a point belongs to the
// architecture.
type pair struct {
	key   string
	value any
}

// odd describes a file: its keys, and its tensors as "name:dims" of type f32. A %d in a
// name stands for both layers.
type odd struct {
	arch    string // empty: the key is missing
	keys    []pair
	tensors []string
}

// write writes the file with synthetic weights and returns its path.
func (o odd) write(t *testing.T, name string) string {
	t.Helper()
	var kv []gguf.KeyValue
	if o.arch != "" {
		kv = append(kv, gguf.KeyValue{Key: "general.architecture", Value: o.arch})
	}
	for _, p := range o.keys {
		if strings.HasPrefix(p.key, ".") {
			p.key = o.arch + p.key
		}
		i := slices.IndexFunc(kv, func(k gguf.KeyValue) bool { return k.Key == p.key })
		if i < 0 {
			i = len(kv)
			kv = append(kv, gguf.KeyValue{Key: p.key})
		}
		if kv[i].Value = p.value; p.value == nil {
			kv = slices.Delete(kv, i, i+1)
		}
	}
	var all []gguf.Tensor
	for _, s := range o.tensors {
		name, dims, _ := strings.Cut(s, ":")
		tensor := gguf.Tensor{Type: gguf.F32}
		for d := range strings.SplitSeq(dims, ",") {
			n, err := strconv.ParseUint(d, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			tensor.Dims = append(tensor.Dims, n)
		}
		for layer := range 2 {
			tensor.Name = strings.Replace(name, "%d", strconv.Itoa(layer), 1)
			if layer == 0 || tensor.Name != name {
				all = append(all, tensor)
			}
		}
	}
	header, err := gguf.New(kv, all)
	if err != nil {
		t.Fatal(err)
	}
	m, err := synth.FromHeader(name, header, 1, llamacpp.Quantizer{})
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(io.NewSectionReader(m, 0, m.Size()))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// with returns o with more keys. A value of nil removes a key.
func (o odd) with(keys ...pair) odd {
	o.keys = slices.Concat(o.keys, keys)
	return o
}

const tinyEpsilon = float32(1e-5)

// sized are the keys of a model of two layers, 32 wide, with 256 tokens and 64
// positions.
func sized(keys ...pair) []pair {
	return append([]pair{
		{"tokenizer.ggml.model", "none"}, {".vocab_size", uint32(256)}, {".context_length", uint32(64)}, {".embedding_length", uint32(32)},
		{".block_count", uint32(2)}, {".feed_forward_length", uint32(64)}, {".attention.head_count", uint32(2)},
		{".attention.layer_norm_epsilon", tinyEpsilon}, {".attention.layer_norm_rms_epsilon", tinyEpsilon},
	}, keys...)
}

// biased are the names of weights and of their biases, which have the last dimension.
func biased(tensors ...string) (both []string) {
	for _, s := range tensors {
		name, dims, _ := strings.Cut(s, ":")
		both = append(both, name+".weight:"+dims, name+".bias:"+dims[strings.LastIndexByte(dims, ',')+1:])
	}
	return both
}

func oddLlama() odd {
	return odd{"llama", sized(), []string{
		"token_embd.weight:32,256", "output_norm.weight:32", "blk.%d.attn_norm.weight:32", "blk.%d.attn_q.weight:32,32",
		"blk.%d.attn_k.weight:32,32", "blk.%d.attn_v.weight:32,32", "blk.%d.attn_output.weight:32,32", "blk.%d.ffn_norm.weight:32",
		"blk.%d.ffn_gate.weight:32,64", "blk.%d.ffn_up.weight:32,64", "blk.%d.ffn_down.weight:64,32",
	}}
}

func oddGPT2() odd {
	return odd{"gpt2", sized(), append([]string{"token_embd.weight:32,256", "position_embd.weight:32,64"}, biased(
		"output_norm:32", "blk.%d.attn_norm:32", "blk.%d.attn_qkv:32,96", "blk.%d.attn_output:32,32", "blk.%d.ffn_norm:32",
		"blk.%d.ffn_up:32,64", "blk.%d.ffn_down:64,32")...)}
}

func oddBERT(positions int) odd {
	return odd{
		"bert", sized(pair{".attention.causal", false}, pair{".pooling_type", uint32(1)}, pair{".context_length", uint32(positions)}, pair{"tokenizer.ggml.token_type_count", uint32(2)}),
		append([]string{"token_embd.weight:32,256", "token_types.weight:32,2", fmt.Sprintf("position_embd.weight:32,%d", positions)}, biased(
			"token_embd_norm:32", "blk.%d.attn_q:32,32", "blk.%d.attn_k:32,32", "blk.%d.attn_v:32,32", "blk.%d.attn_output:32,32",
			"blk.%d.attn_output_norm:32", "blk.%d.ffn_up:32,64", "blk.%d.ffn_down:64,32", "blk.%d.layer_output_norm:32")...),
	}
}

// half are the tensors of T5's encoder ("enc") or decoder ("dec").
func half(name string) (tensors []string) {
	for _, s := range []string{
		"output_norm.weight:32", "blk.%d.attn_norm.weight:32", "blk.0.attn_rel_b.weight:2,32", "blk.%d.attn_q.weight:32,32",
		"blk.%d.attn_k.weight:32,32", "blk.%d.attn_v.weight:32,32", "blk.%d.attn_o.weight:32,32", "blk.%d.ffn_norm.weight:32",
		"blk.%d.ffn_up.weight:32,64", "blk.%d.ffn_down.weight:64,32",
	} {
		tensors = append(tensors, name+"."+s)
	}
	return tensors
}

func oddT5(arch string) odd {
	o := odd{arch, sized(pair{".attention.relative_buckets_count", uint32(32)}), append([]string{"token_embd.weight:32,256"}, half("enc")...)}
	if arch == "t5" {
		o.tensors = slices.Concat(o.tensors, half("dec"), []string{
			"dec.blk.%d.cross_attn_norm.weight:32", "dec.blk.%d.cross_attn_q.weight:32,32", "dec.blk.%d.cross_attn_k.weight:32,32",
			"dec.blk.%d.cross_attn_v.weight:32,32", "dec.blk.%d.cross_attn_o.weight:32,32",
		})
	}
	return o
}

func oddMamba() odd {
	return odd{
		"mamba", sized(pair{".attention.head_count", uint32(0)}, pair{".feed_forward_length", uint32(0)}, pair{".ssm.conv_kernel", uint32(4)},
			pair{".ssm.inner_size", uint32(64)}, pair{".ssm.state_size", uint32(16)}, pair{".ssm.time_step_rank", uint32(2)}),
		append([]string{
			"token_embd.weight:32,256", "output_norm.weight:32", "blk.%d.attn_norm.weight:32", "blk.%d.ssm_in.weight:32,128",
			"blk.%d.ssm_x.weight:64,34", "blk.%d.ssm_a:16,64", "blk.%d.ssm_d:64", "blk.%d.ssm_out.weight:64,32",
		}, biased("blk.%d.ssm_conv1d:4,64", "blk.%d.ssm_dt:2,64")...),
	}
}

func oddGrok() odd {
	return odd{"grok", sized(pair{".expert_count", uint32(2)}, pair{".expert_used_count", uint32(1)}), []string{
		"token_embd.weight:32,256", "output_norm.weight:32", "blk.%d.attn_norm.weight:32", "blk.%d.attn_q.weight:32,32",
		"blk.%d.attn_k.weight:32,32", "blk.%d.attn_v.weight:32,32", "blk.%d.attn_output.weight:32,32", "blk.%d.attn_output_norm.weight:32",
		"blk.%d.ffn_norm.weight:32", "blk.%d.ffn_gate_inp.weight:32,2", "blk.%d.ffn_gate_exps.weight:32,64,2",
		"blk.%d.ffn_up_exps.weight:32,64,2", "blk.%d.ffn_down_exps.weight:64,32,2", "blk.%d.layer_output_norm.weight:32",
	}}
}

// A record has the settings that were used, and a warning if they are not those that were
// asked for. The library turns flash attention off for Grok, lowers a micro-batch to the
// batch, and gets a smaller team of threads from libgomp, all without an error.
func TestSettingsThatWereUsed(t *testing.T) {
	type settings struct {
		Flash, UBatch, Threads int
		Warned                 []string
	}
	for name, tt := range map[string]struct {
		file odd
		args []string
		env  string
		want settings
	}{
		"as asked":         {oddLlama(), nil, "", settings{1, 512, 2, nil}},
		"Grok":             {oddGrok(), nil, "", settings{0, 512, 2, []string{"flash_attn"}}},
		"Grok, auto":       {oddGrok(), []string{"-fa", "auto"}, "", settings{0, 512, 2, []string{"flash_attn"}}},
		"Grok, off":        {oddGrok(), []string{"-fa", "off"}, "", settings{0, 512, 2, nil}},
		"small batch":      {oddLlama(), []string{"-b", "64"}, "", settings{1, 64, 2, []string{"n_ubatch"}}},
		"limit of threads": {oddLlama(), nil, "OMP_THREAD_LIMIT=1", settings{1, 512, 1, []string{"n_threads"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRun(t, append([]string{"--weights", "file", "-m", tt.file.write(t, "odd.gguf"), "-p", "16", "-n", "0", "-r", "1", "-t", "2"}, tt.args...)...)
			r.Env = append(os.Environ(), tt.env)
			r.start()
			if code := r.exitCode(); code != exitOK {
				t.Fatalf("exit code %d: %s", code, r.stderr.String())
			}
			records, err := report.ReadRecords(strings.NewReader(r.stdout.String()))
			if err != nil || len(records) != 1 {
				t.Fatalf("%d records, %v", len(records), err)
			}
			got := settings{records[0].FlashAttn, records[0].UBatch, records[0].Threads, nil}
			for _, w := range records[0].Ext.Warnings {
				if w.Code != result.WarnFewRepetitions {
					got.Warned = append(got.Warned, w.Code)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// A file that is all header is measured, because the library does not mind, but the record
// and the log say that its weights were never written.
func TestEmptyWeights(t *testing.T) {
	header := headerOf(t)
	path := filepath.Join(t.TempDir(), embeddedName)
	if err := os.WriteFile(path, header.header, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, header.size); err != nil {
		t.Fatal(err)
	}
	r := newRun(t, "--weights", "file", "-m", path, "-p", "4", "-n", "0", "-r", "1")
	r.start()
	rec := measured(t, r, embeddedName)
	if !slices.ContainsFunc(rec.Ext.Warnings, func(w result.Warning) bool { return w.Code == result.WarnEmptyWeights }) {
		t.Errorf("warnings %v", rec.Ext.Warnings)
	}
	if !strings.Contains(r.stderr.String(), "the model file seems incomplete: ") {
		t.Errorf("the log does not say so: %s", r.stderr.String())
	}
}

// Files that are no models, and models of which no test can be run, are refused in
// words of their own before the library sees them. What the library does with each
// without that: T5 ends the process by the assertion "llama_encode must be called
// first"; a LoRA adapter has "key not found in model: llama.context_length"; an
// importance matrix and a file without an architecture have an "unknown model
// architecture"; a vocabulary has "tensor 'token_embd.weight' not found".
func TestFilesThatCannotRun(t *testing.T) {
	noWeights := oddLlama()
	noWeights.tensors = nil
	nameless := oddLlama()
	nameless.arch, nameless.keys = "", nil
	for name, tt := range map[string]struct {
		file       odd
		want, hint string
	}{
		"encoder and decoder": {oddT5("t5"), "an encoder-decoder model", "use a model that has only a decoder"},
		"LoRA":                {odd{"llama", []pair{{"general.type", "adapter"}, {"adapter.type", "lora"}}, []string{"blk.0.attn_q.weight.lora_a:32,8"}}, "an adapter, not a model", "give the model that it adapts"},
		"control vector":      {odd{"controlvector", []pair{{".model_hint", "llama"}}, []string{"direction.1:32"}}, "a control vector, not a model", "give the model that it steers"},
		"imatrix":             {odd{"", []pair{{"general.type", "imatrix"}}, []string{"blk.0.attn_q.weight.in_sum2:32,1"}}, "an importance matrix, not a model", "give a model that was quantised with it"},
		"projector":           {odd{"clip", []pair{{"general.type", "mmproj"}}, []string{"v.blk.0.attn_q.weight:32,32"}}, "a projector of images or sound", "give the language model that it belongs to"},
		"vocabulary":          {noWeights, "a vocabulary without weights", "give the file with the weights"},
		"no architecture":     {nameless, "it names no architecture", "give the GGUF file of a model"},
		"no tokenizer":        {oddLlama().with(pair{"tokenizer.ggml.model", nil}), "it has no key tokenizer.ggml.model", "convert the model again, or use --weights synthetic"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := tt.file.write(t, "odd.gguf")
			code, stderr, _ := limited(t, "run", "-m", path, "-p", "16", "-n", "8", "--results-dir", t.TempDir())
			if code != exitModel || !strings.Contains(stderr, tt.want) || !strings.Contains(stderr, "\nhint: "+tt.hint) || strings.Count(stderr, "\n") != 2 {
				t.Errorf("exit code %d, want %q and the hint %q: %s", code, tt.want, tt.hint, stderr)
			}
			out, err := exec.CommandContext(t.Context(), "benchmark-llm", "models", "inspect", path).Output()
			if err != nil || !strings.Contains(string(out), tt.want) {
				t.Errorf("inspect: %v, and it does not say %q:\n%s", err, tt.want, out)
			}
		})
	}
}

// A model loses only the tests that the library cannot run with it, and no worker
// crashes. Without that, prompts beyond the learned positions end the process in
// ggml-cpu/ops.cpp by "i01 >= 0 && i01 < ne01", and prompts beyond a micro-batch by
// "encoder requires n_ubatch >= n_tokens" or "non-causal attention requires n_ubatch
// >= n_tokens". The library does decode single tokens of an encoder or of a diffusion
// model, but each alone, which is no generation. Recurrent models, models with a pooling
// of causal attention, and files of a small alignment run everything.
func TestTestsThatCannotRun(t *testing.T) {
	diffusion := oddLlama().with(pair{".attention.causal", false})
	diffusion.arch = "llada"
	for name, tt := range map[string]struct {
		file odd
		args []string
		ran  []string // tests with a record
		why  []string // parts of the reasons of the others
	}{
		"BERT":              {oddBERT(1024), nil, []string{"pp16", "pp100"}, []string{"600 tokens exceed the 512 of -b and -ub", "an encoder, which generates no text"}},
		"BERT, large -ub":   {oddBERT(1024), []string{"-ub", "1024"}, []string{"pp16", "pp100", "pp600"}, []string{"an encoder, which generates no text"}},
		"BERT, end to end":  {oddBERT(1024), []string{"--e2e", "8,4"}, []string{"pp16", "pp100"}, []string{"e2e8+4", "an encoder, which generates no text"}},
		"BERT, positions":   {oddBERT(64), []string{"-ub", "1024"}, []string{"pp16"}, []string{"100 tokens exceed its 64", "600 tokens exceed its 64"}},
		"T5's encoder":      {oddT5("t5encoder"), nil, []string{"pp16", "pp100"}, []string{"an encoder, which generates no text"}},
		"not causal":        {oddLlama().with(pair{".attention.causal", false}), nil, []string{"pp16", "pp100"}, []string{"must fit one micro-batch", "an encoder, which generates no text"}},
		"diffusion":         {diffusion, nil, []string{"pp16", "pp100"}, []string{"must fit one micro-batch", "by diffusion, not token by token"}},
		"GPT-2":             {oddGPT2(), nil, []string{"pp16", "tg8"}, []string{"100 tokens exceed its 64", "600 tokens exceed its 64", "tg100"}},
		"GPT-2 at a depth":  {oddGPT2(), []string{"-d", "60"}, nil, []string{"76 tokens exceed its 64"}},
		"mamba":             {oddMamba(), nil, []string{"pp16", "pp100", "pp600", "tg8", "tg100"}, nil},
		"pooling, causal":   {oddLlama().with(pair{".pooling_type", uint32(3)}), nil, []string{"pp16", "pp100", "pp600", "tg8", "tg100"}, nil},
		"alignment 8":       {oddLlama().with(pair{"general.alignment", uint32(8)}), nil, []string{"pp16", "pp100", "pp600", "tg8", "tg100"}, []string{"load mode none instead of auto", "aligned to 8 bytes"}},
		"alignment 8, lock": {oddLlama().with(pair{"general.alignment", uint32(8)}), []string{"--load-mode", "mmap+mlock"}, []string{"pp16", "pp100", "pp600", "tg8", "tg100"}, []string{"load mode mlock instead of mmap+mlock"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRun(t, append([]string{"--weights", "file", "-m", tt.file.write(t, "odd.gguf"), "-p", "16,100,600", "-n", "8,100", "-r", "1", "-t", "1"}, tt.args...)...)
			r.start()
			code, want := r.exitCode(), exitOK
			if tt.ran == nil {
				want = exitModel
			}
			if code != want {
				t.Errorf("exit code %d, want %d: %s", code, want, r.stderr.String())
			}
			records, err := report.ReadRecords(strings.NewReader(r.stdout.String()))
			if err != nil {
				t.Fatal(err)
			}
			var ran []string
			for _, rec := range records {
				ran = append(ran, rec.Test().String())
				warned := slices.ContainsFunc(rec.Ext.Warnings, func(w result.Warning) bool { return w.Code == result.WarnLoadMode })
				if aligned := strings.HasPrefix(name, "alignment"); warned != aligned || aligned && (rec.UseMmap || !strings.Contains("none mlock", rec.LoadMode)) {
					t.Errorf("%v: load mode %s, mapped %v, warnings %v", rec.Test(), rec.LoadMode, rec.UseMmap, rec.Ext.Warnings)
				}
			}
			if diff := cmp.Diff(tt.ran, ran); diff != "" {
				t.Errorf("tests with a record (-want +got):\n%s", diff)
			}
			for _, why := range tt.why {
				if !strings.Contains(r.stderr.String(), why) {
					t.Errorf("not said: %q in\n%s", why, r.stderr.String())
				}
			}
			if strings.Contains(r.stderr.String(), "crashed") {
				t.Errorf("a worker crashed: %s", r.stderr.String())
			}
		})
	}
}
