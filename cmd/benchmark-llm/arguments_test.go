package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/commandline"
	"github.com/sparecores/benchmark-llm/bench/compare"
	"github.com/sparecores/benchmark-llm/bench/report"
	"github.com/sparecores/benchmark-llm/bench/suite"
)

// Every flag with a value, of every command, refuses a blank, and another flag where
// its value is missing.
func TestBlanksAreRefused(t *testing.T) {
	tried := 0
	for _, c := range commandline.EveryCommand(newRootCommand()) {
		for _, f := range slices.Concat(flagsOf(c.LocalFlags()), flagsOf(c.InheritedFlags())) {
			if f.NoOptDefVal != "" { // a switch
				continue
			}
			for _, value := range []string{"", " ", "\t\n", "--quiet", "-p"} {
				tried++
				err := commandline.FlagError(c, c.ParseFlags([]string{"--" + f.Name, value}))
				if failed, ok := lookup(err); !ok || failed.code != exitUsage || failed.hint == "" || !strings.HasPrefix(err.Error(), "--"+f.Name+": the value is ") {
					t.Errorf("%s --%s %q: %v", c.CommandPath(), f.Name, value, err)
				}
			}
		}
	}
	if tried < 200 {
		t.Errorf("only %d values were tried", tried)
	}
}

// Every long name of llama-bench is a flag of run, or refused or replaced by its name.
func TestLlamaBenchFlagsExist(t *testing.T) {
	flags := newRunCommand(&globalOptions{}).Flags()
	for short, long := range commandline.Short {
		_, foreign := commandline.Foreign(long)
		if _, env, _ := commandline.Hub([]string{long, "x"}); len(env) > 0 {
			continue // replaced
		}
		if ours := flags.Lookup(strings.TrimPrefix(long, "--")) != nil; ours == foreign {
			t.Errorf("%s stands for %s: a flag of run %t, foreign %t", short, long, ours, foreign)
		}
	}
	for _, long := range commandline.Switches {
		if f := flags.Lookup(strings.TrimPrefix(long, "--")); f == nil || f.Value.Type() != "bool" {
			t.Errorf("%s is no switch", long)
		}
	}
}

// Every setting that can be refused has a flag of run, except those without a flag.
func TestSettingFlags(t *testing.T) {
	flags := newRunCommand(&globalOptions{}).Flags()
	for field, f := range settingFlags {
		if flags.Lookup(strings.TrimPrefix(f.flag, "--")) == nil {
			t.Errorf("%s: %s is no flag", field, f.flag)
		}
		err := settingFailure(&bench.SettingError{Field: field, Value: -9, Min: 1, Max: 1})
		var failed *failure
		if words := strings.Contains("type_k type_v split_mode load_mode lazy_mode flash_attn", field); !errors.As(err, &failed) || (failed.hint == "") != words {
			t.Errorf("%s: %v with hint %q", field, err, f.hint)
		}
	}
	err := settingFailure(&bench.SettingError{Field: "threads", Value: 5, Min: 1, Max: 1})
	var failed *failure
	if !errors.As(err, &failed) || failed.hint != "use at most the 1 CPU of this process" {
		t.Errorf("threads: %v", err)
	}
}

// complete is what a shell is offered for the last word.
func complete(t *testing.T, args ...string) (words []string, directive string) {
	t.Helper()
	var out, log bytes.Buffer
	if code := execute(append([]string{"__completeNoDesc"}, args...), strings.NewReader(""), &out, &log); code != 0 {
		t.Fatalf("%q: exit code %d: %s", args, code, log.String())
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	return lines[:len(lines)-1], lines[len(lines)-1]
}

func TestCompletion(t *testing.T) {
	parent := t.TempDir()
	for name, file := range map[string]string{"20260101T000000Z-1": "run.json", "20260102T000000Z-2": "run.json", "other": "x"} {
		if err := errors.Join(os.Mkdir(filepath.Join(parent, name), 0o755), os.WriteFile(filepath.Join(parent, name, file), nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(t.TempDir())
	for _, name := range []string{"tiny.gguf", "Capital.GGUF", "notes.txt", "results.jsonl", "models/a.gguf"} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	var defaults []string
	for _, m := range suite.Models() {
		defaults = append(defaults, m.File)
	}
	const words, anyFile, directories = ":4", ":0", ":16"
	for _, tc := range []struct {
		args      string // the last word follows =
		want      []string
		directive string
	}{
		{"run -o=", []string{"jsonl", "json", "csv", "sql", "md", "table"}, words},
		{"-o=", []string{"jsonl", "json", "csv", "sql", "md", "table"}, words},
		{"plan --output=", tableFormats, words},
		{"models inspect x -o=", tableFormats, words},
		{"run --weights=", []string{"file", "synthetic", "auto"}, words},
		{"run --cache-type-k=", bench.KVTypes, words},
		{"run -ctv=", bench.KVTypes, words},
		{"run -ngl 9 -fa=", bench.FlashModes, words},
		{"--load-mode=", bench.LoadModes, words},
		{"run --split-mode=", bench.SplitModes, words},
		{"plan --log-level=", logLevels, words},
		{"devices --log-format=", logFormats, words},
		{"replay --overhead=", []string{"recorded", "once"}, words},
		{"run --results-dir " + parent + " --resume=", []string{"last", parent + "/20260102T000000Z-2", parent + "/20260101T000000Z-1"}, ":36"},
		{"run -m=", append(slices.Clone(defaults), "Capital.GGUF", "models/", "tiny.gguf"), ":6"},
		{"plan -m=ti", []string{"tiny.gguf"}, words},
		{"run --model-urls=models/", []string{"models/a.gguf"}, words},
		{"models inspect=Smol", []string{defaults[0]}, words},
		{"models inspect x=", []string{}, words},
		{"help=", []string{"compare", "completion", "devices", "estimate", "limits", "models", "plan", "quick", "replay", "report", "run", "runs", "version"}, words},
		{"help models=", []string{"inspect", "synth"}, words},
		{"compare -o=", report.ComparisonFormats(), words},
		{"compare --across=", compare.FactorNames(), words},
		{"compare --results-dir " + parent + "=", []string{
			"last", "last~1", parent + "/20260102T000000Z-2", parent + "/20260101T000000Z-1", "models/", "results.jsonl",
		}, ":38"},
		{"compare --results-dir " + parent + " old.csv=last", []string{"last", "last~1"}, ":36"},
		{"compare=new=last,res", []string{"new=last,results.jsonl"}, ":36"},
		{"run -p=", []string{}, words},
		{"run --threads=", []string{}, words},
		{"run --suite=", []string{}, anyFile},
		{"run --prompt-file=", []string{}, anyFile},
		{"run --models-dir=", []string{}, directories},
		{"plan --like=", []string{}, directories},
	} {
		before, last, _ := strings.Cut(tc.args, "=") // the first
		got, directive := complete(t, append(strings.Fields(before), last)...)
		if d := cmp.Diff(tc.want, got); d != "" || directive != tc.directive {
			t.Errorf("%s: directive %s, want %s (-want +got)\n%s", tc.args, directive, tc.directive, d)
		}
	}
	got, _ := complete(t, "run", "-dev", "")
	if !slices.Contains(got, bench.NoDevice) || slices.Contains(got, "CPU") {
		t.Errorf("devices to offload to: %q", got)
	}
	if got, _ := complete(t, "run", "-dev", "CUDA0/"); slices.Contains(got, bench.NoDevice) {
		t.Errorf("devices after another: %q", got)
	}
}

// What a shell offers for a flag is what the flag takes.
func TestFlagWordsExist(t *testing.T) {
	used := map[string]bool{}
	for _, c := range commandline.EveryCommand(newRootCommand()) {
		for _, f := range slices.Concat(flagsOf(c.LocalFlags()), flagsOf(c.InheritedFlags())) {
			used[f.Name], used[c.Name()+" "+f.Name] = true, true
		}
	}
	for name := range flagWords {
		if !used[name] {
			t.Errorf("there is no flag %s", name)
		}
	}
}
