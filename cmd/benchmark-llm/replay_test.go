package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sparecores/benchmark-llm/bench/policy"
)

func replay(args ...string) (string, error) {
	var out bytes.Buffer
	cmd := newReplayCommand()
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetOut(&out)
	cmd.SetArgs(args)
	err := cmd.Execute()
	return out.String(), err
}

func TestReplayCommand(t *testing.T) {
	fixture := filepath.Join("..", "..", "bench", "policy", "testdata", "recorded.jsonl")
	for _, tt := range []struct {
		args []string
		rows int // per rule
	}{
		{[]string{fixture}, 1},
		{[]string{fixture, "--overhead", "once", "--censored", "slow", "--halves"}, 3},
	} {
		out, err := replay(tt.args...)
		if err != nil {
			t.Fatalf("%v: %v", tt.args, err)
		}
		for _, rule := range policy.Rules() {
			if n := strings.Count(out, rule.Name+" "); n != tt.rows {
				t.Errorf("%v: %d rows of rule %s, want %d:\n%s", tt.args, n, rule.Name, tt.rows, out)
			}
		}
	}
}

// A price adds what the hours cost.
func TestReplayPrice(t *testing.T) {
	fixture := filepath.Join("..", "..", "bench", "policy", "testdata", "recorded.jsonl")
	plain, err := replay(fixture)
	if err != nil || strings.Contains(plain, "cost") {
		t.Errorf("%v: %s", err, plain)
	}
	priced, err := replay(fixture, "--price", "2 EUR/h")
	lines, before := strings.Split(priced, "\n"), strings.Split(plain, "\n")
	if err != nil || len(lines) != len(before) || !strings.HasSuffix(strings.TrimSpace(lines[0]), "lost cost") {
		t.Fatalf("%v: %s", err, priced)
	}
	for i, line := range lines[1:] {
		if strings.Contains(before[i+1], "all") && strings.Count(line, " EUR") != 2 {
			t.Errorf("no two costs: %s", line)
		}
	}
}

func TestReplayCommandErrors(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad.jsonl")
	if err := os.WriteFile(bad, []byte("{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args []string
		want string
	}{
		{nil, "replay needs one file of recorded runs, not 0"},
		{[]string{bad}, bad + `: line 1: "server" is missing`},
		{[]string{bad + ".no"}, "open " + bad + ".no: no such file or directory"},
		{[]string{bad, "--overhead", "twice"}, `--overhead: unknown value "twice"`},
		{[]string{bad, "--censored", "x"}, `--censored: unknown value "x"`},
	} {
		out, err := replay(tt.args...)
		f, ok := lookup(err)
		if !ok || f.code != exitUsage || f.Error() != tt.want || f.hint == "" || out != "" {
			t.Errorf("%v: %#v, output %q, want %s", tt.args, err, out, tt.want)
		}
	}
}
