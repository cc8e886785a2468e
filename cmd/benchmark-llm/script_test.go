package main

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sparecores/benchmark-llm/bench/gguf"
)

// TestMain lets scripts run this very program, as a process of its own.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"benchmark-llm": main})
}

// TestScripts runs the scripts for every build, and those for this one: with
// the library or without.
func TestScripts(t *testing.T) {
	for _, dir := range []string{"any", scripts} {
		t.Run(dir, func(t *testing.T) {
			testscript.Run(t, testscript.Params{
				Dir: filepath.Join("testdata", "script", dir),
				Setup: func(e *testscript.Env) error {
					e.Setenv("HOME", filepath.Join(e.WorkDir, "home"))
					e.Setenv("XDG_STATE_HOME", filepath.Join(e.WorkDir, "state"))
					e.Setenv("UID", strconv.Itoa(os.Geteuid()))
					return nil
				},
				Cmds: map[string]func(*testscript.TestScript, bool, []string){
					"exits":   exits,
					"refused": refused,
					"records": records,
					"badgguf": badGGUF,
					"rundir":  onlyRunDir,
					"logged":  logged,
					"lines": func(ts *testscript.TestScript, _ bool, args []string) { // FILE N
						if n := strings.Count(ts.ReadFile(args[0]), "\n"); strconv.Itoa(n) != args[1] {
							ts.Fatalf("%s has %d lines, want %s", args[0], n, args[1])
						}
					},
					"latin1": func(ts *testscript.TestScript, _ bool, args []string) { // a text file in another encoding
						ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte("caf\xe9"), 0o600))
					},
				},
			})
		})
	}
}

// exits CODE ARGS... runs the program and checks its exit code. CODE|CODE allows two.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: exits CODE ARGS...")
	}
	err := ts.Exec("benchmark-llm", args[1:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got, err = exit.ExitCode(), nil
	}
	ts.Check(err)
	if !slices.Contains(strings.Split(args[0], "|"), strconv.Itoa(got)) {
		ts.Fatalf("exit code %d, want %s", got, args[0])
	}
}

// refused CODE ARGS... is exits for what must fail: nothing on stdout, one line
// of error, one hint, and nothing that moves a cursor.
func refused(ts *testscript.TestScript, neg bool, args []string) {
	exits(ts, neg, args)
	if out := ts.ReadFile("stdout"); out != "" {
		ts.Fatalf("stdout: %q", out)
	}
	stderr := ts.ReadFile("stderr")
	for _, r := range []struct {
		what, pattern string
		n             int
	}{
		{"lines of error", `(?m)^benchmark-llm: \S.*[^.\n]$`, 1},
		{"hints", `(?m)^hint: \S.*[^.\n]$`, 1},
		{"errors in the log", `(?m)^\S+ ERR `, 0},
		{"lines that are neither", `(?m)^(?:[^bh0-9]|b[^e]|h[^i])`, 0},
	} {
		if n := len(regexp.MustCompile(r.pattern).FindAllString(stderr, -1)); n != r.n {
			ts.Fatalf("%d %s, want %d", n, r.what, r.n)
		}
	}
	if i := strings.IndexFunc(stderr, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }); i >= 0 {
		ts.Fatalf("stderr has %q", stderr[i:min(len(stderr), i+8)])
	}
}

// fields are the fields of a record, in their order: llama-bench 0.7.0's, the
// one of its predecessors, ours.
var fields = strings.Fields(`build_commit build_number cpu_info gpu_info backends model_filename model_type
	model_size model_n_params n_batch n_ubatch n_threads cpu_mask cpu_strict poll type_k type_v n_gpu_layers n_cpu_moe
	split_mode main_gpu no_kv_offload flash_attn devices tensor_split tensor_buft_overrides load_mode lazy_mode
	embeddings no_op_offload no_host repack fit_target fit_min_ctx n_prompt n_gen n_depth test_time avg_ns stddev_ns
	avg_ts stddev_ts samples_ns samples_ts use_mmap ext`)

// records FILE N [FIELD=VALUE...] checks that a file is N lines, each a whole
// record, and that each has the values. A field of ext is written ext.FIELD.
func records(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: records FILE N [FIELD=VALUE...]")
	}
	want, err := strconv.Atoi(args[1])
	ts.Check(err)
	text := ts.ReadFile(args[0])
	if strings.Count(text, "\n") != want || want > 0 && !strings.HasSuffix(text, "\n") {
		ts.Fatalf("%q is not %d lines", text, want)
	}
	for line := range strings.Lines(text) {
		var record map[string]json.RawMessage
		ts.Check(json.Unmarshal([]byte(line), &record))
		if diff := cmp.Diff(fields, keys(line)); diff != "" {
			ts.Fatalf("fields (-want +got):\n%s", diff)
		}
		var ext map[string]json.RawMessage
		ts.Check(json.Unmarshal(record["ext"], &ext))
		for _, arg := range args[2:] {
			name, value, _ := strings.Cut(arg, "=")
			from := record
			if inner, ok := strings.CutPrefix(name, "ext."); ok {
				name, from = inner, ext
			}
			if got := strings.Trim(string(from[name]), `"`); got != value {
				ts.Fatalf("%s is %s, want %s", name, got, value)
			}
		}
	}
}

// logged FILE KEY... checks that a file is a log of JSON: every key is in the table of
// bench/record/README.md and has a value of its type, and each KEY occurs.
func logged(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: logged FILE KEY...")
	}
	page, err := os.ReadFile(filepath.Join("..", "..", "bench", "record", "README.md"))
	ts.Check(err)
	_, table, _ := strings.Cut(string(page), "| key | type | what it is |\n")
	types := map[string]string{}
	for line := range strings.Lines(table) {
		cells := strings.Split(line, "|")
		if len(cells) < 4 {
			break
		}
		for _, name := range regexp.MustCompile("`(\\w+)`").FindAllStringSubmatch(cells[1], -1) {
			types[name[1]] = strings.TrimSpace(cells[2])
		}
	}
	seen := map[string]bool{}
	for line := range strings.Lines(ts.ReadFile(args[0])) {
		var object map[string]any
		ts.Check(json.Unmarshal([]byte(line), &object))
		for key, value := range object {
			got := "object"
			switch value.(type) {
			case string:
				got = "string"
			case float64:
				got = "number"
			case bool:
				got = "boolean"
			case []any:
				got = "list"
			}
			if got != types[key] {
				ts.Fatalf("%s is a %s, documented is %q:\n%s", key, got, types[key], line)
			}
			seen[key] = true
		}
	}
	for _, key := range args[1:] {
		if !seen[key] {
			ts.Fatalf("the log has no %s:\n%s", key, ts.ReadFile(args[0]))
		}
	}
}

// keys are the names of an object's members, in order.
func keys(object string) []string {
	d := json.NewDecoder(strings.NewReader(object))
	var names []string
	_, _ = d.Token() // the brace; the object was decoded before
	for d.More() {
		name, err := d.Token()
		var value json.RawMessage
		if err == nil {
			err = d.Decode(&value)
		}
		if err != nil {
			break
		}
		names = append(names, name.(string))
	}
	return names
}

// rundir PARENT sets DIR to the directory of the only run below PARENT, once it
// is complete.
func onlyRunDir(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: rundir PARENT")
	}
	runs, err := os.ReadDir(ts.MkAbs(args[0]))
	ts.Check(err)
	if len(runs) != 1 {
		ts.Fatalf("%d runs below %s, want 1", len(runs), args[0])
	}
	dir := filepath.Join(ts.MkAbs(args[0]), runs[0].Name())
	files, err := os.ReadDir(dir)
	ts.Check(err)
	var names []string
	for _, f := range files {
		names = append(names, f.Name())
	}
	if diff := cmp.Diff([]string{"events.jsonl", "report.html", "report.md", "results.jsonl", "run.json"}, names); diff != "" {
		ts.Fatalf("files of the run (-want +got):\n%s", diff)
	}
	ts.Setenv("DIR", dir)
}

// badGGUF KIND FILE writes a model file with one thing wrong.
func badGGUF(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: badgguf KIND FILE")
	}
	model := func(architecture string) []byte {
		f, err := gguf.New(
			[]gguf.KeyValue{{Key: "general.architecture", Value: architecture}, {Key: "general.name", Value: "bad"}, {Key: "tokenizer.ggml.model", Value: "none"}},
			[]gguf.Tensor{{Name: "token_embd.weight", Dims: []uint64{64, 32}, Type: gguf.F32}},
		)
		ts.Check(err)
		header, err := f.Header()
		ts.Check(err)
		return append(header, make([]byte, 64*32*4)...)
	}
	var b []byte
	switch kind := args[0]; kind {
	case "architecture":
		b = model("llamax")
	case "escape":
		b = model("\x1b[31mred\u009b2J\nnext")
	case "tensors":
		b = model("llama")
	case "kv-type":
		b = model("llama")
		b[slices.Index(b, 'g')+len("general.architecture")] = 77
	case "short-header":
		b = model("llama")[:60]
	case "short-data":
		b = model("llama")
		b = b[:len(b)-1]
	case "noise":
		b = []byte("GGUF\xb2\x1f\x9c\x03\x77\xe0\x15\x4a\x92\x08\xd3\x6b\xff\x41\x5c\x2e\x19\xa6\x70\x8d")
	default:
		ts.Fatalf("unknown kind %q", kind)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), b, 0o644))
}
