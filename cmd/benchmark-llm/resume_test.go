//go:build cgo && linux

package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// interrupted starts a run of a test and kills the program after two of its five
// repetitions. It returns the run's directory.
func interrupted(t *testing.T, args ...string) (r *run, dir string) {
	t.Helper()
	r = newRun(t, append([]string{"-p", "4", "-n", "64", "-r", "5"}, args...)...)
	r.start()
	r.untilEvent("repetition_done", 7)
	r.kill(r.Process.Pid, syscall.SIGKILL)
	_ = r.Wait() // it was killed
	dirs, err := filepath.Glob(filepath.Join(r.results, "*"))
	if err != nil || len(dirs) != 1 {
		t.Fatalf("%v, %v", dirs, err)
	}
	return r, dirs[0]
}

// resumed resumes a run in an environment and returns its exit code and its output.
func resumed(t *testing.T, env []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	c := exec.CommandContext(t.Context(), "benchmark-llm", append([]string{"run"}, args...)...)
	c.Env = append(os.Environ(), env...)
	var out, errs strings.Builder
	c.Stdout, c.Stderr = &out, &errs
	_ = c.Run() // its exit code is returned
	return c.ProcessState.ExitCode(), out.String(), errs.String()
}

// A test that was interrupted is repeated from its start if a variable that changes
// speed has changed since, and goes on otherwise.
func TestResumeUnderOtherConditions(t *testing.T) {
	for _, tt := range []struct {
		name    string
		env     []string
		repeats bool
	}{
		{"the same", nil, false},
		{"another variable", []string{"OMP_WAIT_POLICY=passive"}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, dir := interrupted(t)
			began := time.Now().UTC()
			code, stdout, stderr := resumed(t, tt.env, "--resume", dir)
			if code != exitOK || strings.Count(stdout, "\n") != 2 {
				t.Fatalf("exit code %d, stdout %q:\n%s", code, stdout, stderr)
			}
			b, err := os.ReadFile(filepath.Join(dir, "events.jsonl"))
			if err != nil {
				t.Fatal(err)
			}
			// The last start of the test names the repetitions that count.
			started := string(b)[strings.LastIndex(string(b), `"event":"test_started"`):]
			if counts := strings.Contains(strings.SplitN(started, "\n", 2)[0], `"done":`); counts == tt.repeats {
				t.Errorf("repetitions of before %s count: %t; stderr:\n%s", began, counts, stderr)
			}
			for _, want := range []string{"changed since the run was interrupted: variable OMP_WAIT_POLICY", "repeating a test from its start"} {
				if strings.Contains(stderr, want) != tt.repeats {
					t.Errorf("stderr:\n%s", stderr)
				}
			}
			var warned struct {
				Ext struct{ Warnings []struct{ Code string } }
			}
			if err := json.Unmarshal([]byte(strings.Split(stdout, "\n")[1]), &warned); err != nil {
				t.Fatal(err)
			}
			has := false
			for _, w := range warned.Ext.Warnings {
				has = has || w.Code == "conditions_changed"
			}
			if has != tt.repeats {
				t.Errorf("warnings %+v", warned.Ext.Warnings)
			}
		})
	}
}
