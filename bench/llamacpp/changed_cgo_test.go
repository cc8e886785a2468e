//go:build cgo

package llamacpp

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/synth"
	"github.com/sparecores/benchmark-llm/llama"
)

// If memory cannot be locked, the library goes on without, and says so only in its log.
func TestLoadModeThatWasUsed(t *testing.T) {
	shape, err := synth.Lookup(synth.Tiny)
	if err != nil {
		t.Fatal(err)
	}
	model, err := synth.New(shape, 1, Quantizer{})
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(io.NewSectionReader(model, 0, model.Size()))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), synth.Tiny)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		mode   string
		refuse bool // to lock memory
		want   string
		mapped bool
	}{
		{"mlock", true, "none", false},
		{"mmap+mlock", true, "mmap", true},
		{"mmap", true, "", true},
		{"auto", true, "", true},
		{"none", true, "", false},
		{"dio", true, "", false},
	} {
		job := tinyJob(false, nil)
		job.Model.Weights, job.Model.Path, job.Settings.LoadMode, job.Settings.NoRepack = result.FileWeights, path, tt.mode, true
		e, err := New(job, Options{})
		if err != nil {
			t.Fatal(err)
		}
		var facts bench.ModelFacts
		withoutLocks(t, e, func() { facts, err = e.Load(t.Context(), func(bench.Event) {}) })
		if err != nil {
			t.Fatal(err)
		}
		if facts.LoadMode != tt.want || facts.Mapped == nil || *facts.Mapped != tt.mapped {
			t.Errorf("%s: load mode %q, mapped %v, warnings %v; want %q", tt.mode, facts.LoadMode, facts.Mapped, facts.Warnings, tt.want)
		}
		warned := len(facts.Warnings) == 1 && facts.Warnings[0].Code == result.WarnLoadMode &&
			strings.Contains(facts.Warnings[0].Message, tt.want+" instead of "+tt.mode) && strings.Contains(facts.Warnings[0].Message, "because memory cannot be locked: ")
		if warned != (tt.want != "") {
			t.Errorf("%s: warnings %v", tt.mode, facts.Warnings)
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}
}

// withoutLocks calls f while the engine's thread cannot lock memory: the process's limit
// is 0, and the thread lacks the privilege to exceed it.
func withoutLocks(t *testing.T, e *Engine, f func()) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var limit unix.Rlimit
	check(unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit))
	check(unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: 0, Max: limit.Max}))
	defer func() { check(unix.Setrlimit(unix.RLIMIT_MEMLOCK, &limit)) }()

	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	set := func(caps [2]unix.CapUserData) (err error) {
		e.do(func() { err = unix.Capset(&header, &caps[0]) })
		return err
	}
	check(unix.Capget(&header, &caps[0]))
	fewer := caps
	fewer[0].Effective &^= 1 << unix.CAP_IPC_LOCK
	check(set(fewer))
	defer func() { check(set(caps)) }()
	f()
}

func TestLoadModeOfChanges(t *testing.T) {
	locked, direct := llama.Change{Kind: llama.NotLocked, Why: "no"}, llama.Change{Kind: llama.NotDirect, Why: "no"}
	for _, tt := range []struct {
		asked   string
		changes []llama.Change
		want    string
	}{
		{"dio", []llama.Change{direct}, "none"},
		{"mlock", []llama.Change{direct, locked}, "none"},
		{"mmap+mlock", []llama.Change{locked}, "mmap"},
		{"mmap", []llama.Change{locked, direct}, ""},
		{"dio", nil, ""},
	} {
		used, w := loadMode(tt.asked, tt.changes)
		if used != tt.want || len(w) > 1 || (len(w) == 1) != (tt.want != "") {
			t.Errorf("%s after %v: %q, %v; want %q", tt.asked, tt.changes, used, w, tt.want)
		}
	}
}

func TestContextFacts(t *testing.T) {
	off := 0
	changed := bench.ContextFacts{FlashAttn: &off, Warnings: []result.Warning{{Code: "flash_attn", Message: "the library turned flash attention off: not supported"}}}
	for _, tt := range []struct {
		asked   int
		changes []llama.Change
		want    bench.ContextFacts
	}{
		{1, []llama.Change{{Kind: llama.FlashIsOff, Why: "not supported"}}, changed},
		{-1, []llama.Change{{Kind: llama.FlashIsOff, Why: "not supported"}}, changed},
		{0, []llama.Change{{Kind: llama.FlashIsOff, Why: "not supported"}}, bench.ContextFacts{}},
		{1, []llama.Change{{Kind: llama.NotLocked}}, bench.ContextFacts{}},
		{1, nil, bench.ContextFacts{}},
	} {
		if diff := cmp.Diff(tt.want, contextFacts(bench.Settings{FlashAttn: tt.asked}, tt.changes)); diff != "" {
			t.Errorf("%d after %v (-want +got):\n%s", tt.asked, tt.changes, diff)
		}
	}
}

func TestTeamSize(t *testing.T) {
	for limit, want := range map[string]int{"": 8, "8": 8, "16": 8, "3": 3, "1": 1, "0": 8, "x": 8} {
		got, w := teamSize(8, func(string) string { return limit })
		if got != want || (w != nil) != (want != 8) {
			t.Errorf("limit %q: %d, %v; want %d", limit, got, w, want)
		}
	}
	if _, w := teamSize(8, func(string) string { return "1" }); w == nil || w.Code != result.WarnThreads || w.Message != "1 thread instead of 8, because of the environment variable OMP_THREAD_LIMIT" {
		t.Errorf("warning %v", w)
	}
}
