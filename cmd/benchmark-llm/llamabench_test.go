//go:build cgo

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/sparecores/benchmark-llm/bench/commandline"
)

// Every flag in llama-bench's help is a flag of this program, or refused or replaced by
// its name.
func TestEveryFlagOfLlamaBench(t *testing.T) {
	help, err := exec.CommandContext(t.Context(), filepath.Join("..", "..", "scripts", "llama-tool"), "llama-bench", "--help").Output()
	if err != nil {
		t.Fatalf("%v; scripts/get-llama --tools installs llama-bench", err)
	}
	flags := newRootCommand().Flags()
	known := func(name string) bool {
		if long, ok := commandline.Short[name]; ok {
			name = long
		}
		if _, ok := commandline.Foreign(name); ok {
			return true
		}
		if _, env, _ := commandline.Hub([]string{name, "1"}); len(env) > 0 { // replaced
			return true
		}
		if _, notes := commandline.FromLlamaBench([]string{name, "1"}); len(notes) > 0 { // replaced
			return true
		}
		bare := strings.TrimLeft(name, "-")
		var flag *pflag.Flag
		if len(bare) == 1 {
			flag = flags.ShorthandLookup(bare)
		} else if strings.HasPrefix(name, "--") {
			flag = flags.Lookup(bare)
		}
		return flag != nil || bare == "h" || bare == "help"
	}
	n := 0
	for _, line := range regexp.MustCompile(`(?m)^  (-.*)$`).FindAllStringSubmatch(string(help), -1) {
		for _, name := range regexp.MustCompile(`(?:^|[ ,])(--?[a-zA-Z][a-z-]*)`).FindAllStringSubmatch(strings.Split(line[1], "<")[0], -1) {
			if n++; !known(name[1]) {
				t.Errorf("%s of llama-bench is unknown here: %s", name[1], line[1])
			}
		}
	}
	if n < 60 {
		t.Errorf("llama-bench's help has only %d names of flags:\n%s", n, help)
	}
}

// -o sql prints what llama-bench prints, but for what was measured and how.
func TestSQLOfLlamaBench(t *testing.T) {
	model := filepath.Join(t.TempDir(), "tiny.gguf")
	if err := os.WriteFile(model, tinyModel(t), 0o600); err != nil {
		t.Fatal(err)
	}
	theirs, err := exec.CommandContext(t.Context(), filepath.Join("..", "..", "scripts", "llama-tool"), "llama-bench", "-m", model, "-p", "8", "-n", "4", "-r", "1", "-t", "1", "-fa", "1", "-o", "sql").Output()
	if err != nil {
		t.Fatalf("%v; scripts/get-llama --tools installs llama-bench", err)
	}
	r := newRun(t, "-m", model, "--weights", "file", "-p", "8", "-n", "4", "-r", "1", "-o", "sql")
	r.start()
	if code := r.exitCode(); code != exitOK {
		t.Fatalf("exit code %d: %s", code, r.stderr.String())
	}
	ours := r.stdout.Bytes()
	measured := regexp.MustCompile(`'[^']*Z', '[0-9]+', '[0-9]+', '[0-9.]+', '[0-9.]+'\);`)
	clear := func(out []byte) string { return string(measured.ReplaceAll(out, []byte("MEASURED);"))) }
	if bytes.Count(theirs, []byte("INSERT")) != 2 {
		t.Fatalf("llama-bench printed %s", theirs)
	}
	if diff := cmp.Diff(clear(theirs), clear(ours)); diff != "" {
		t.Errorf("(-llama-bench +this)\n%s", diff)
	}
}
