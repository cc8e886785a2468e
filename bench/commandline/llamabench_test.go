package commandline

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFromLlamaBench(t *testing.T) {
	for _, c := range []struct{ args, want, notes string }{
		{"run -m a.gguf -ngl 99 -fa 1 -ub 256", "run -m a.gguf --n-gpu-layers 99 --flash-attn 1 --ubatch-size 256", ""},
		{"-ctk q8_0 -ctv q8_0 -dev CUDA0/CUDA1 -sm row -mg 1", "--cache-type-k q8_0 --cache-type-v q8_0 --device CUDA0/CUDA1 --split-mode row --main-gpu 1", ""},
		{"-nkvo 1 -nopo 0 --cpu-strict 1 -p 0", "--no-kv-offload=1 --no-op-offload=0 --cpu-strict=1 -p 0", ""},
		{"-nkvo 0,1 -p 0", "--no-kv-offload=0,1 -p 0", ""}, // a list, which the flag refuses
		{"--no-host -p 16", "--no-host -p 16", ""},         // as this program's own switch
		{"-pg 512,128 -p16 -- -fa", "--pg 512,128 -p16 -- -fa", ""},
		{"-nkvo", "--no-kv-offload", ""},
		{"-ngl=99 -ub=1", "--n-gpu-layers=99 --ubatch-size=1", ""},
		{"-oe md -ot x=CPU", "--output-err md --override-tensor x=CPU", ""},

		// What llama-bench's predecessors had for --load-mode.
		{"-m a -mmp 0 -p 1", "-m a --load-mode=none -p 1", "-mmp 0: --load-mode=none"},
		{"-mmp 1", "--load-mode=mmap", "-mmp 1: --load-mode=mmap"},
		{"--mmap 0", "--load-mode=none", "--mmap 0: --load-mode=none"},
		{"--mmap=1", "--load-mode=mmap", "--mmap=1: --load-mode=mmap"},
		{"--no-mmap -r 1", "--load-mode=none -r 1", "--no-mmap: --load-mode=none"},
		{"-mlock", "--load-mode=mlock", "-mlock: --load-mode=mlock"},
		{"--mlock -mmp 1", "--load-mode=mmap+mlock", "--mlock -mmp 1: --load-mode=mmap+mlock"},
		{"-mmp 1 --mlock --no-mmap", "--load-mode=mlock", "-mmp 1 --mlock --no-mmap: --load-mode=mlock"},
		{"-dio 1 -p 1", "--load-mode=dio -p 1", "-dio 1: --load-mode=dio"},
		{"-mmp 0,1", "--load-mode=none,mmap", "-mmp 0,1: --load-mode=none,mmap"},
		{"-mmp 0 -mmp 1", "--load-mode=none,mmap", "-mmp 0 -mmp 1: --load-mode=none,mmap"},
		{"--direct-io 0", "--load-mode=mmap", "--direct-io 0: --load-mode=mmap"}, // a file was mapped by default
		{"--mlock 0 -p 1", "--load-mode=mmap -p 1", "--mlock 0: --load-mode=mmap"},
		{"-mmp 0 -dio 0", "--load-mode=none", "-mmp 0 -dio 0: --load-mode=none"},
		{"-dio 0,1", "--load-mode=mmap,dio", "-dio 0,1: --load-mode=mmap,dio"},
		{"-mmp 0,1 -p 1 -dio 0,1", "--load-mode=none,dio,mmap -p 1", "-mmp 0,1 -dio 0,1: --load-mode=none,dio,mmap"},
		{"-nkvo 2 -p 1", "--no-kv-offload=2 -p 1", ""}, // the flag refuses it
		{"-embd on", "--embeddings=on", ""},
		{"--no-host m.gguf", "--no-host m.gguf", ""},
		{"-mmp 2", "--mmap=2", ""},
		{"--delay soon", "--delay soon", ""},
		{"--no-mmap 0", "--load-mode=mmap", "--no-mmap 0: --load-mode=mmap"},
		{"--repack 1,0 -nkvo 0,1", "--no-repack=0,1 --no-kv-offload=0,1", "--repack 1,0: --no-repack=0,1"},
		{"-- -mmp 0", "-- -mmp 0", ""},

		{"--repack 0", "--no-repack=1", "--repack 0: --no-repack=1"},
		{"--repack 1", "--no-repack=0", "--repack 1: --no-repack=0"},
	} {
		got, notes := FromLlamaBench(strings.Fields(c.args))
		if d := cmp.Diff(strings.Fields(c.want), got); d != "" {
			t.Errorf("%s: (-want +got)\n%s", c.args, d)
		}
		var said []string
		for _, n := range notes {
			said = append(said, n.Given+": "+n.As)
		}
		if d := cmp.Diff(c.notes, strings.Join(said, "; ")); d != "" {
			t.Errorf("%s: notes (-want +got)\n%s", c.args, d)
		}
	}
}

// Each foreign flag says what it means and what to do, and is found by all its names.
func TestForeign(t *testing.T) {
	for _, f := range foreign {
		for _, name := range strings.Split(f.Names, ", ") {
			if got, ok := Foreign(name); !ok || got != f {
				t.Errorf("%s: %v", name, got)
			}
			if long, ok := Short[name]; ok && !strings.HasSuffix(f.Names, long) {
				t.Errorf("%s stands for %s, not %s", name, long, f.Names)
			}
		}
		if f.Meaning == "" || f.Instead == "" || strings.HasSuffix(f.Instead, ".") {
			t.Errorf("%s: %q, %q", f.Names, f.Meaning, f.Instead)
		}
	}
	if f, ok := Foreign("--n-prompt"); ok {
		t.Errorf("--n-prompt is foreign: %v", f)
	}
	if f, _ := Foreign("-hff"); f.Error() != "there is no -hff, --hf-file; in llama-bench it names the file of --hf-repo" {
		t.Error(f.Error())
	}
}

func TestSpreadModels(t *testing.T) {
	for args, want := range map[string]string{
		"--model-urls a.gguf b.gguf -r 2": "--model-urls a.gguf --model-urls b.gguf -r 2",
		"--model-urls=a.gguf b.gguf word": "--model-urls=a.gguf --model-urls b.gguf word",
		"-m a.gguf b.gguf":                "-m a.gguf b.gguf",
		"-- --model-urls a.gguf b.gguf":   "-- --model-urls a.gguf b.gguf",
	} {
		if d := cmp.Diff(strings.Fields(want), SpreadModels(strings.Fields(args))); d != "" {
			t.Errorf("%s: (-want +got)\n%s", args, d)
		}
	}
}

func TestNear(t *testing.T) {
	known := []string{"repetitions", "repack", "n-prompt", "prompt-file", "model", "models-dir", "jsonl", "json", "run", "replay"}
	for word, want := range map[string][]string{
		"reptitions": {"repetitions"}, "repetitoins": {"repetitions"}, "REPETITIONS": {"repetitions"},
		"rnu": {"run"}, "jsnl": {"jsonl"}, "jsno": {"json"}, "modell": {"model"}, "repe": {"repetitions"},
		"prompt": {"n-prompt", "prompt-file"}, "mod": {"model", "models-dir"},
		"frobnicate": nil, "x": nil, "": nil, "xyz": nil,
	} {
		if d := cmp.Diff(want, Near(word, known)); d != "" {
			t.Errorf("%q: (-want +got)\n%s", word, d)
		}
	}
	if got := DidYouMean([]string{"bash", "zsh"}); got != "did you mean bash or zsh?" {
		t.Error(got)
	}
	if got := DidYouMean(nil); got != "" {
		t.Error(got)
	}
}

func TestOneDash(t *testing.T) {
	names := []string{"repetitions", "model", "output", "suite", "temp", "model-urls"}
	for args, want := range map[string]string{
		"-repetitions 3": "-repetitions: --repetitions", "-reptitions=3": "-reptitions: --repetitions",
		"-r 3 -model a": "-model: --model", "-temp 1": "-temp: --temp",
		"-ojsonl -r3 -mtiny.gguf": "", "-omd": "", "--model a": "", "-- -model": "", "-p512": "", "-": "",
	} {
		word, near := OneDash(strings.Fields(args), names)
		got := ""
		if word != "" {
			got = word + ": " + strings.Join(near, " ")
		}
		if got != want {
			t.Errorf("%s: %q, want %q", args, got, want)
		}
	}
}

func TestIsList(t *testing.T) {
	for text, want := range map[string]bool{
		"1,2": true, "1, 2": true, "512-2048*2": true, "1-4": true, "0,99": true, "f16,q8_0": true, "on,0": true, "0.5,1": true, "-1,0": true,
		"1": false, "-1": false, "": false, ",": false, "1,": false, "f16": false, "f16,x": false, "many": false, "1e3": false,
	} {
		if got := IsList(text, []string{"f16", "q8_0", "on"}); got != want {
			t.Errorf("%q: %t", text, got)
		}
	}
}

func TestLooksLikeFlag(t *testing.T) {
	for _, word := range []string{"-p", "--n-gpu-layers", "--suite=x", "-C"} {
		if !LooksLikeFlag(word) {
			t.Errorf("%s is a flag", word)
		}
	}
	for _, word := range []string{"-", "-1", "a", "./-p", "--", "-1,0", "-p5"} {
		if LooksLikeFlag(word) {
			t.Errorf("%s is no flag", word)
		}
	}
	if !slices.Contains(Switches, "--no-host") {
		t.Error("--no-host is a switch")
	}
}
