// Package benchmarkllm_test holds the rules that span packages.
package benchmarkllm_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/sparecores/benchmark-llm"

// rooms says which packages of this module each package may import; the standard library and the modules of go.mod are
// not restricted here. A package that is not listed has no place in the house yet: give it one. An external test package
// (package x_test) stands above the rooms and may use any of them.
var rooms = map[string][]string{
	"bench/session":     {"bench/acquire", "bench/rundir", "bench/supervise", "bench/record", "bench/suite", "bench/host", "bench/gpu", "bench", "bench/report", "bench/roofline", "bench/result"},
	"bench/acquire":     {"bench/supervise", "bench/suite", "bench/fetch", "bench/host", "bench/gpu", "bench", "bench/policy", "bench/source", "bench/roofline", "bench/synth", "bench/gguf", "bench/report", "bench/result"},
	"bench/sweep":       {"bench/suite", "bench", "bench/result"},
	"bench/estimate":    {"bench/supervise", "bench", "bench/report", "bench/synth", "bench/gguf", "bench/stats", "bench/result"},
	"bench/quick":       {"bench/estimate", "bench/supervise", "bench/suite", "bench", "bench/roofline", "bench/report", "bench/synth", "bench/gguf", "bench/stats", "bench/result"},
	"bench/roofline":    {"bench/gguf", "bench/report", "bench/result"},
	"bench/rundir":      {"bench/record", "bench/suite", "bench/host", "bench", "bench/database", "bench/report", "bench/compare", "bench/result"},
	"bench/supervise":   {"bench/record", "bench", "bench/policy", "bench/result"},
	"bench/record":      {"bench", "bench/roofline", "bench/stats", "bench/result"},
	"bench/compare":     {"bench/stats", "bench/result"},
	"bench/suite":       {"bench/source", "bench/gguf", "bench/result"},
	"bench/fetch":       {"bench/source", "bench/gguf", "bench/result"},
	"bench/host":        {"bench/gpu", "bench/result"},
	"bench/gpu":         {"bench", "bench/result"},
	"bench/llamacpp":    {"bench", "llama", "bench/roofline", "bench/synth", "bench/gguf", "bench/result"},
	"bench":             {"bench/policy", "bench/result"},
	"bench/policy":      {"bench/stats", "bench/result"},
	"bench/commandline": {"bench/compare", "bench/suite", "bench/source", "bench/result"},
	"bench/source":      {},
	"bench/synth":       {"bench/gguf", "bench/result"},
	"bench/report":      {"bench/compare", "bench/stats", "bench/result"},
	"bench/database":    {"bench", "bench/report", "bench/result"},
	"bench/gguf":        {"bench/result"},
	"bench/stats":       {},
	"bench/result":      {},
	"bench/benchtest":   {"bench", "bench/result"},
	"llama":             {},
	"llama/limits":      {},
}

// Why each rule exists, for who breaks it.
const (
	whyRoom      = "imports go one way, down the list of rooms in ARCHITECTURE.md, so that each package can be read and tested without those above it"
	whyCommand   = "cmd is the program: flags, terminal, exit codes; what two packages need belongs to bench"
	whyFake      = "bench/benchtest is a fake engine and host, for tests only"
	whyCgo       = "only llama and llama/limits have import \"C\": memory, threads and errors of C are handled in one place (cmd/gollama-peer measures another binding and reads its times)"
	whyPureGo    = "all of bench but bench/llamacpp builds and is tested without cgo, so that any machine can plan, fetch, inspect, compare and report"
	whyNoPackage = "it has no entry in the table of rooms in importrules_test.go"
)

// listed is what `go list -json` says about a package, as far as the rules need it.
type listed struct {
	ImportPath   string
	CgoFiles     []string
	Imports      []string
	TestImports  []string
	XTestImports []string
	Deps         []string
	Error        *struct{ Err string }
}

// room is the path of the package inside the module, "." for the module's root.
func room(importPath string) (string, bool) {
	if importPath == module {
		return ".", true
	}
	return strings.CutPrefix(importPath, module+"/")
}

// free tells whether a package may import any room: commands, scripts and the tests in the module's root.
func free(room string) bool {
	return room == "." || strings.HasPrefix(room, "cmd/") || strings.HasPrefix(room, "scripts/")
}

func isCommand(room string) bool { return strings.HasPrefix(room, "cmd/") }

func isBench(room string) bool { return room == "bench" || strings.HasPrefix(room, "bench/") }

func TestImportRules(t *testing.T) {
	for _, variant := range []struct {
		name string
		cgo  string
		tags string
	}{
		{name: "default", cgo: "1"},
		{name: "cuda", cgo: "1", tags: "cuda"},
		{name: "cpu", cgo: "1", tags: "cpu"},
		{name: "debug", cgo: "1", tags: "llamadebug"},
		{name: "parity", cgo: "1", tags: "parity"},
		{name: "gollama", cgo: "1", tags: "gollama"},
		{name: "nocgo", cgo: "0"},
	} {
		t.Run(variant.name, func(t *testing.T) {
			t.Parallel()
			packages := list(t, variant.cgo, variant.tags)
			if len(packages) == 0 {
				t.Fatal("go list names no package")
			}
			for _, broken := range violations(packages, variant.cgo == "1") {
				t.Error(broken)
			}
		})
	}
}

// list runs go list over the whole module and everything it depends on.
func list(t *testing.T, cgo, tags string) map[string]listed {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-deps", "-json=ImportPath,CgoFiles,Imports,TestImports,XTestImports,Deps,Error", "-tags="+tags, "./...")
	cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.Bytes())
	}
	packages := map[string]listed{}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages[p.ImportPath] = p
	}
}

// violations lists every broken rule with its reason. With cgo, packages are complete and the order of imports and the
// place of cgo are judged; without, what remains must still build.
func violations(packages map[string]listed, cgo bool) []string {
	var broken []string
	report := func(format, why string, args ...any) {
		broken = append(broken, fmt.Sprintf(format, args...)+": "+why)
	}
	for _, path := range slices.Sorted(maps.Keys(packages)) {
		p := packages[path]
		from, ours := room(path)
		if !ours {
			continue
		}
		allowed, known := rooms[from]
		if !known && !free(from) {
			report("%s is not allowed", whyNoPackage, from)
			continue
		}

		pure := isBench(from) && from != "bench/llamacpp"
		type role int
		const (
			program role = iota
			test
			externalTest
		)
		check := func(imports []string, as role) {
			for _, path := range imports {
				to, ours := room(path)
				switch {
				case !ours || to == from:
				case isCommand(to) && !strings.HasPrefix(to, from+"/"):
					report("%s imports %s", whyCommand, from, to)
				case to == "bench/benchtest" && as == program:
					report("%s imports %s", whyFake, from, to)
				case to == "llama" && pure:
					report("%s imports %s", whyPureGo, from, to)
				case to == "bench/benchtest" || as == externalTest:
				case isCommand(from) && !isBench(to) && to != "llama/limits" && !strings.HasPrefix(to, from+"/"):
					report("%s imports %s", whyRoom, from, to)
				case !free(from) && !slices.Contains(allowed, to):
					report("%s imports %s", whyRoom, from, to)
				}
			}
		}
		check(p.Imports, program)
		check(p.TestImports, test)
		check(p.XTestImports, externalTest)

		if len(p.CgoFiles) > 0 && from != "llama" && from != "llama/limits" && from != "cmd/gollama-peer" {
			report("%s has import \"C\" in %v", whyCgo, from, p.CgoFiles)
		}
		if pure {
			if slices.Contains(p.Deps, module+"/llama") {
				report("%s depends on llama", whyPureGo, from)
			}
			if !cgo {
				for _, dep := range append([]string{path}, p.Deps...) {
					if e := packages[dep].Error; e != nil {
						report("%s needs %s, which does not build without cgo (%s)", whyPureGo, from, dep, e.Err)
					}
				}
			}
		}
	}
	return broken
}

// TestImportRulesCatch breaks each rule once.
func TestImportRulesCatch(t *testing.T) {
	t.Parallel()
	pkg := func(room string, imports ...string) listed {
		p := listed{ImportPath: module + "/" + room}
		for _, i := range imports {
			p.Imports = append(p.Imports, module+"/"+i)
		}
		p.Deps = p.Imports
		return p
	}
	cgo := pkg("bench/host")
	cgo.CgoFiles = []string{"host.go"}
	peer := pkg("cmd/gollama-peer")
	peer.CgoFiles = []string{"parts.go"}
	unbuildable := pkg("bench/report")
	unbuildable.Deps = []string{"example.com/c"}
	test := pkg("bench/stats")
	test.TestImports = []string{module + "/bench/benchtest"}

	inside := pkg("llama")
	inside.TestImports = []string{module + "/bench/synth"}
	above := pkg("llama")
	above.XTestImports = []string{module + "/bench/synth"}

	for _, tc := range []struct {
		name     string
		packages []listed
		want     string // the reason; empty when nothing is broken
	}{
		{"down the rooms", []listed{pkg("bench/report", "bench/result", "bench/stats")}, ""},
		{"up the rooms", []listed{pkg("bench/stats", "bench/report")}, whyRoom},
		{"a command around bench", []listed{pkg("cmd/benchmark-llm", "llama")}, whyRoom},
		{"a room imports cmd", []listed{pkg("bench/suite", "cmd/benchmark-llm")}, whyCommand},
		{"a command imports another", []listed{pkg("cmd/a", "cmd/b")}, whyCommand},
		{"the fake in the program", []listed{pkg("bench", "bench/benchtest")}, whyFake},
		{"the fake in a test", []listed{test}, ""},
		{"a test inside imports upward", []listed{inside}, whyRoom},
		{"an external test uses any room", []listed{above}, ""},
		{"cgo outside llama", []listed{cgo}, whyCgo},
		{"cgo in the peer", []listed{peer}, ""},
		{"llama below a pure package", []listed{pkg("bench/synth", "llama")}, whyPureGo},
		{"a dependency needs cgo", []listed{unbuildable, {ImportPath: "example.com/c", Error: &struct{ Err string }{"no Go files"}}}, whyPureGo},
		{"a package without a room", []listed{pkg("bench/new")}, whyNoPackage},
		{"scripts are free", []listed{pkg("scripts/parity", "llama", "bench/stats")}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			packages := map[string]listed{}
			for _, p := range tc.packages {
				packages[p.ImportPath] = p
			}
			got := violations(packages, false)
			if tc.want == "" && len(got) > 0 {
				t.Errorf("unexpected: %q", got)
			}
			if tc.want != "" && !slices.ContainsFunc(got, func(s string) bool { return strings.HasSuffix(s, tc.want) }) {
				t.Errorf("got %q, want the reason %q", got, tc.want)
			}
		})
	}
}
