package benchmarkllm_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// maxReadmeWords bounds README.md. What does not fit belongs to a page beside
// the code it is about.
const maxReadmeWords = 2600

// document is a Markdown file of this repository.
type document struct {
	path   string // from the root, with slashes
	blocks []block
	prose  string // the text without its code blocks, which are empty lines here
}

// block is a fenced code block.
type block struct {
	info string // after the fence: "sh run"
	text string
	line int // of the fence, from 1
}

// runnable tells whether TestDocumentBlocks runs the block: its fence says
// "sh run".
func (b block) runnable() bool { return slices.Equal(strings.Fields(b.info), []string{"sh", "run"}) }

// shell tells whether the block holds commands.
func (b block) shell() bool {
	words := strings.Fields(b.info)
	return len(words) > 0 && slices.Contains([]string{"sh", "console"}, words[0])
}

// parseDocument splits Markdown into code blocks and prose.
func parseDocument(path, text string) document {
	d := document{path: path}
	var prose strings.Builder
	var open *block
	for i, line := range strings.Split(text, "\n") {
		fence := strings.HasPrefix(strings.TrimLeft(line, " "), "```")
		switch {
		case fence && open == nil:
			open = &block{info: strings.TrimSpace(strings.TrimLeft(line, " `")), line: i + 1}
		case fence:
			d.blocks = append(d.blocks, *open)
			open = nil
		case open != nil:
			open.text += line + "\n"
		default:
			prose.WriteString(line)
		}
		prose.WriteByte('\n')
	}
	if open != nil {
		d.blocks = append(d.blocks, *open)
	}
	d.prose = prose.String()
	return d
}

// documents are all Markdown files of the repository but those that tests
// produce and those of unpacked packages.
func documents(t *testing.T) []document {
	t.Helper()
	var found []document
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (slices.Contains([]string{".git", "bin", "dist", "testdata", "results"}, d.Name()) || path == filepath.Join("third_party", "llama.cpp", "root")):
			return fs.SkipDir
		case d.IsDir() || filepath.Ext(path) != ".md":
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		found = append(found, parseDocument(filepath.ToSlash(path), string(text)))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// ---- links ----

var (
	inlineCode = regexp.MustCompile("`+[^`\n]+`+")
	link       = regexp.MustCompile(`\]\(([^()\s]+)\)`)
	htmlLink   = regexp.MustCompile(`(?:src|href|srcset)="([^"\s]+)"`)
	heading    = regexp.MustCompile(`(?m)^#{1,6} +(.+?) *#*$`)
)

// anchors are the names of a document's headings, as GitHub makes them.
func (d document) anchors() map[string]bool {
	names := make(map[string]bool)
	for _, h := range heading.FindAllStringSubmatch(d.prose, -1) {
		text := regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`).ReplaceAllString(h[1], "$1")
		name := strings.Map(func(r rune) rune {
			switch {
			case unicode.IsLetter(r), unicode.IsNumber(r), r == '-', r == '_':
				return unicode.ToLower(r)
			case r == ' ':
				return '-'
			default:
				return -1
			}
		}, text)
		unique := name
		for n := 1; names[unique]; n++ {
			unique = fmt.Sprintf("%s-%d", name, n)
		}
		names[unique] = true
	}
	return names
}

// links are the targets of the links of a document that are in this repository.
func (d document) links() (targets []string) {
	prose := inlineCode.ReplaceAllString(d.prose, "")
	for _, pattern := range []*regexp.Regexp{link, htmlLink} {
		for _, m := range pattern.FindAllStringSubmatch(prose, -1) {
			if u, err := url.Parse(m[1]); err != nil || u.Scheme == "" && u.Host == "" {
				targets = append(targets, m[1])
			}
		}
	}
	return targets
}

// brokenLinks are the links of d that lead nowhere. exists tells of a path from
// the root; others are the documents by path.
func brokenLinks(d document, exists func(string) bool, others map[string]document) (broken []string) {
	for _, target := range d.links() {
		file, anchor, _ := strings.Cut(target, "#")
		to := d.path
		if file != "" {
			unescaped, err := url.PathUnescape(file)
			if err != nil {
				broken = append(broken, fmt.Sprintf("%s: link %s: %v", d.path, target, err))
				continue
			}
			to = path.Join(path.Dir(d.path), unescaped)
		}
		switch other, isDocument := others[to]; {
		case !exists(to):
			broken = append(broken, fmt.Sprintf("%s: link %s: there is no %s", d.path, target, to))
		case anchor != "" && (!isDocument || !other.anchors()[anchor]):
			broken = append(broken, fmt.Sprintf("%s: link %s: %s has no heading %s", d.path, target, to, anchor))
		}
	}
	return broken
}

func TestDocumentLinks(t *testing.T) {
	t.Parallel()
	all := documents(t)
	byPath := make(map[string]document)
	for _, d := range all {
		byPath[d.path] = d
	}
	exists := func(path string) bool {
		_, err := os.Stat(filepath.FromSlash(path))
		return err == nil
	}
	for _, d := range all {
		for _, broken := range brokenLinks(d, exists, byPath) {
			t.Error(broken)
		}
	}
}

// ---- commands and flags ----

// program is what benchmark-llm has: for each command ("models inspect") its
// flags. The command "" is the root, which does what run does.
type program map[string]map[string]bool

// askProgram has the program list its commands and flags, by the completion that
// shells use.
func askProgram(t *testing.T, binary string) program {
	t.Helper()
	complete := func(args ...string) (words []string) {
		cmd := exec.CommandContext(t.Context(), binary, append([]string{"__complete"}, args...)...)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("benchmark-llm __complete %q: %v", args, err)
		}
		for line := range strings.Lines(string(out)) {
			word, _, _ := strings.Cut(strings.TrimSpace(line), "\t")
			if word != "" && !strings.HasPrefix(word, ":") {
				words = append(words, word)
			}
		}
		return words
	}
	p := make(program)
	var walk func(command []string)
	walk = func(command []string) {
		flags := map[string]bool{"--help": true, "-h": true}
		for _, flag := range complete(slices.Concat(command, []string{"-"})...) {
			flags[flag] = true
		}
		p[strings.Join(command, " ")] = flags
		for _, word := range complete(slices.Concat([]string{"help"}, command, []string{""})...) {
			if len(command) > 0 && command[0] == "completion" {
				continue
			}
			walk(slices.Concat(command, []string{word}))
		}
	}
	walk(nil)
	for flag := range p["run"] {
		p[""][flag] = true
	}
	if p["run"] == nil || !p["run"]["--model"] || !p["models inspect"]["-p"] {
		t.Fatalf("the program does not list its commands and flags: %v", slices.Sorted(maps.Keys(p)))
	}
	return p
}

// llamaBench reads llama-bench's short flags that the program takes, from the
// table that it uses itself.
func llamaBench(t *testing.T) map[string]bool {
	t.Helper()
	source, err := os.ReadFile("bench/commandline/llamabench.go")
	if err != nil {
		t.Fatal(err)
	}
	short := make(map[string]bool)
	for _, m := range regexp.MustCompile(`"(-[a-z]+)":\s+"--[a-z-]+"`).FindAllStringSubmatch(string(source), -1) {
		short[m[1]] = true
	}
	if !short["-ngl"] {
		t.Fatal("bench/commandline/llamabench.go has no -ngl: read its table in another way")
	}
	return short
}

// foreign are flags of other programs that documents name on their own.
var foreign = map[string]string{
	"-tags":   "go build",
	"-update": "the golden tests",
	"--init":  "docker run",

	"--group-add": "docker", "--gpus": "docker", "--no-mmap": "llama-bench of 2024", "--repack": "llama-bench",
	"--delay": "llama-bench", "--progress": "llama-bench", "--list-devices": "llama-bench", "--offline": "llama-bench",
}

// scripted are the verbs whose ARGS are the flags of a program of ours, with its
// sources.
var scripted = map[string]string{
	"parity": "scripts/parity", "equivalence": "scripts/parity", "prefetch": "scripts/parity", "abort": "scripts/parity",
	"memory": "scripts/parity", "load": "scripts/parity", "peers": "scripts/parity",
	"original": "scripts/original", "gpu-check": "scripts/gpu-check", "disturb": "scripts/disturb", "picture": "scripts/picture",
}

// scriptFlags reads the flags that a program of package flag has from its source.
func scriptFlags(source string) map[string]bool {
	flags := make(map[string]bool)
	for _, m := range regexp.MustCompile(`\bflag\.[A-Z]\w+\((?:&[\w.]+, )?"([a-z-]+)"`).FindAllStringSubmatch(source, -1) {
		flags["-"+m[1]] = true
	}
	return flags
}

// wrongArguments are flags in the ARGS of make verbs that the verb's program does
// not have. ARGS without a verb belong to the document's own folder.
func wrongArguments(d document, flags func(dir string) map[string]bool) (wrong []string) {
	arguments := regexp.MustCompile(`ARGS=(?:'([^']*)'|(\S+))`)
	for _, line := range slices.Concat(d.shellLines(), d.code()) {
		m := arguments.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		dir := path.Dir(d.path)
		for _, word := range strings.Fields(line) {
			if named, ok := scripted[word]; ok {
				dir = named
			}
		}
		known := flags(dir)
		if len(known) == 0 {
			continue
		}
		for _, word := range strings.Fields(m[1] + m[2]) {
			flag, _, _ := strings.Cut(word, "=")
			if regexp.MustCompile(`^-[a-z]`).MatchString(flag) && !known[flag] {
				wrong = append(wrong, fmt.Sprintf("%s: %q: %s has no flag %s", d.path, line, dir, flag))
			}
		}
	}
	return wrong
}

func TestDocumentArguments(t *testing.T) {
	t.Parallel()
	flags := func(dir string) map[string]bool {
		sources, err := filepath.Glob(filepath.Join(filepath.FromSlash(dir), "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		var text strings.Builder
		for _, source := range sources {
			b, err := os.ReadFile(source)
			if err != nil {
				t.Fatal(err)
			}
			text.Write(b)
		}
		return scriptFlags(text.String())
	}
	for verb, dir := range scripted {
		if len(flags(dir)) == 0 {
			t.Errorf("make %s: %s has no flags", verb, dir)
		}
	}
	for _, d := range documents(t) {
		for _, wrong := range wrongArguments(d, flags) {
			t.Error(wrong)
		}
	}
}

var programName = regexp.MustCompile(`^(?:\S*/)?benchmark-llm(?:-v[0-9.]+-linux-[a-z0-9-]+|:[a-z0-9.-]+)?$`)

// wrongWords are the commands and flags after "benchmark-llm" in a line that the
// program does not have.
func wrongWords(line string, p program, short map[string]bool) (wrong []string) {
	words := strings.Fields(line)
	for i := 0; i < len(words); i++ {
		if !programName.MatchString(strings.Trim(words[i], `"'`)) {
			continue
		}
		command := ""
		inCommand := true // no argument came yet that is none
		if i > 0 && slices.Contains([]string{"./scripts/image-build", "-t"}, words[i-1]) {
			continue
		}
		for i++; i < len(words); i++ {
			word := strings.Trim(words[i], `"'()[]`)
			if word == "#" || word == "|" || word == "&&" || word == ";" || word == ">" || word == "…" {
				break
			}
			ends := strings.HasSuffix(word, ";")
			word = strings.TrimRight(word, ";,:.")
			switch {
			case strings.HasPrefix(word, "-") && word != "-":
				flag, _, _ := strings.Cut(word, "=")
				if !p[command][flag] && !short[flag] {
					wrong = append(wrong, fmt.Sprintf("benchmark-llm %s has no flag %s", command, flag))
				}
				inCommand = false
			case inCommand:
				next := strings.TrimSpace(command + " " + word)
				switch {
				case p[next] != nil:
					command = next
				case command == "" && regexp.MustCompile(`^[a-z]+$`).MatchString(word) && word != "help" && word != "worker":
					wrong = append(wrong, "benchmark-llm has no command "+word)
					inCommand = false
				default:
					inCommand = false
				}
			}
			if ends {
				break
			}
		}
	}
	return wrong
}

// code are the pieces of code in a document's text.
func (d document) code() (pieces []string) {
	for _, m := range inlineCode.FindAllString(d.prose, -1) {
		pieces = append(pieces, strings.Trim(m, "`"))
	}
	return pieces
}

// shellLines are the lines of the shell blocks, continued ones joined, without
// comments and prompts.
func (d document) shellLines() (lines []string) {
	for _, b := range d.blocks {
		if !b.shell() {
			continue
		}
		for line := range strings.Lines(strings.ReplaceAll(b.text, "\\\n", " ")) {
			line = strings.TrimPrefix(strings.TrimSpace(line), "$ ")
			if line, _, _ = strings.Cut(line+" ", " # "); !strings.HasPrefix(line, "#") {
				lines = append(lines, line)
			}
		}
	}
	return lines
}

// wrongCommands are the commands and flags that a document names and the
// program does not have.
func wrongCommands(d document, p program, short map[string]bool) (wrong []string) {
	every := make(map[string]bool)
	for _, flags := range p {
		maps.Copy(every, flags)
	}
	for _, line := range slices.Concat(d.shellLines(), d.code()) {
		for _, w := range wrongWords(line, p, short) {
			wrong = append(wrong, fmt.Sprintf("%s: %q: %s", d.path, line, w))
		}
	}
	for _, piece := range d.code() { // a flag alone
		flag := regexp.MustCompile(`^--?[a-zA-Z][a-zA-Z0-9-]*`).FindString(piece)
		if flag != "" && !every[flag] && !short[flag] && foreign[flag] == "" {
			wrong = append(wrong, fmt.Sprintf("%s: `%s`: no command of benchmark-llm has %s; if it is another program's, add it to foreign in docs_test.go", d.path, piece, flag))
		}
	}
	return wrong
}

// build builds the program without the library.
func build(t *testing.T) (binary string) {
	t.Helper()
	binary = filepath.Join(t.TempDir(), "benchmark-llm")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", binary, "./cmd/benchmark-llm")
	// GOFLAGS may link the program to the unpacked packages, whose C library needs a
	// loader of its own.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return binary
}

func TestDocumentCommands(t *testing.T) {
	t.Parallel()
	p, short := askProgram(t, build(t)), llamaBench(t)
	for _, d := range documents(t) {
		for _, wrong := range wrongCommands(d, p, short) {
			t.Error(wrong)
		}
	}
}

// ---- make verbs ----

// verbs are the targets of a Makefile.
func verbs(makefile string) map[string]bool {
	found := make(map[string]bool)
	for _, m := range regexp.MustCompile(`(?m)^([a-z][a-z-]*):(?:[^=]|$)`).FindAllStringSubmatch(makefile, -1) {
		found[m[1]] = true
	}
	return found
}

// wrongVerbs are the verbs after "make" in a document's code that the Makefile
// does not have.
func wrongVerbs(d document, known map[string]bool) (wrong []string) {
	for _, line := range slices.Concat(d.shellLines(), d.code()) {
		words := strings.Fields(line)
		i := slices.IndexFunc(words, func(w string) bool { return strings.TrimLeft(w, `"$(`) == "make" })
		if i < 0 {
			continue
		}
		quoted := false
		for _, word := range words[i+1:] {
			verb := strings.Trim(word, `;)"`)
			switch {
			case quoted || strings.Contains(word, "="):
				if strings.Count(word, "'")%2 == 1 {
					quoted = !quoted
				}
			case !regexp.MustCompile(`^[a-z][a-z-]*$`).MatchString(verb):
			case !known[verb]:
				wrong = append(wrong, fmt.Sprintf("%s: %q: the Makefile has no verb %s", d.path, line, verb))
			}
			if !quoted && strings.ContainsAny(word, ";)|&") {
				break
			}
		}
	}
	return wrong
}

func TestDocumentVerbs(t *testing.T) {
	t.Parallel()
	makefile, err := os.ReadFile("Makefile")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range documents(t) {
		for _, wrong := range wrongVerbs(d, verbs(string(makefile))) {
			t.Error(wrong)
		}
	}
}

// ---- files, and what the page on records lists ----

// ours matches the path of a file or folder of this repository.
var ours = regexp.MustCompile(`^(?:bench|cmd|llama|scripts|third_party)/[a-zA-Z0-9_./-]+$`)

// wrongPaths are the files and folders in a document's code that do not exist.
// Paths of unpacked packages are not checked, nor those with a placeholder in
// capitals or with "...".
func wrongPaths(d document, exists func(string) bool) (wrong []string) {
	placeholder := regexp.MustCompile(`/[A-Z]+\b`)
	for _, piece := range d.code() {
		if ours.MatchString(piece) && !placeholder.MatchString(strings.ReplaceAll(piece, "README", "")) &&
			!strings.HasPrefix(piece, "third_party/llama.cpp/root") && !strings.Contains(piece, "...") && !exists(strings.TrimSuffix(piece, "/")) {
			wrong = append(wrong, fmt.Sprintf("%s: there is no %s", d.path, piece))
		}
	}
	return wrong
}

func TestDocumentPaths(t *testing.T) {
	t.Parallel()
	exists := func(path string) bool {
		_, err := os.Stat(filepath.FromSlash(path))
		return err == nil
	}
	for _, d := range documents(t) {
		for _, wrong := range wrongPaths(d, exists) {
			t.Error(wrong)
		}
	}
}

// TestRecordPageIsComplete compares the page on records with the code: it names
// every warning, event and status, and no others where it has a table of them.
func TestRecordPageIsComplete(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("bench/record/README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		table   string // its head
		file    string // that has the names
		pattern string
	}{
		{"| code | meaning | threshold |", "bench/result/warning.go", `(?m)^\tWarn\w+ += "(\w+)"`},
		{"| code | value | threshold | why this threshold |", "bench/record/verdict.go", `(?:code: |warned\()"(\w+)"`},
		{"| event | when | main data |", "bench/event.go", `name\(\) string +\{ return "(\w+)" \}`},
		{"| status | meaning |", "bench/result/sample.go", `(?m)^\t\w+ +Status = "(\w+)"`},
	} {
		source, err := os.ReadFile(c.file)
		if err != nil {
			t.Fatal(err)
		}
		var want []string
		for _, m := range regexp.MustCompile(c.pattern).FindAllStringSubmatch(string(source), -1) {
			want = append(want, m[1])
		}
		got := firstCells(string(page), c.table)
		slices.Sort(want)
		slices.Sort(got)
		if len(want) == 0 || !slices.Equal(got, want) {
			t.Errorf("bench/record/README.md, table %q:\n%q\n%s:\n%q", c.table, got, c.file, want)
		}
	}
}

// firstCells are the pieces of code in the first column of the table with a head.
func firstCells(text, head string) (names []string) {
	_, rows, _ := strings.Cut(text, head+"\n")
	for line := range strings.Lines(rows) {
		if !strings.HasPrefix(line, "|") {
			break
		}
		cell, _, _ := strings.Cut(strings.TrimPrefix(line, "|"), "|")
		for _, m := range inlineCode.FindAllString(cell, -1) {
			names = append(names, strings.Trim(m, "`"))
		}
	}
	return names
}

// ---- keys of the log ----

// logCalls are functions that log, with the index of the first key among their arguments.
var logCalls = map[string]int{
	"Debug": 1, "Info": 1, "Warn": 1, "Error": 1, "Log": 3, "step": 1, "warnOnce": 1, "logRetry": 3, "append": 1,
}

// logKeys are the keys that a file logs: literals in calls that log, or in a list of
// arguments for one.
func logKeys(file *ast.File) (keys []string) {
	literals := func(args []ast.Expr, first int) {
		for i := first; i < len(args)-1; i += 2 {
			if l, ok := args[i].(*ast.BasicLit); ok && l.Kind == token.STRING {
				keys = append(keys, strings.Trim(l.Value, `"`))
			}
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			name := ""
			switch f := n.Fun.(type) {
			case *ast.Ident:
				name = f.Name
			case *ast.SelectorExpr:
				name = f.Sel.Name
			}
			first, ok := logCalls[name]
			if name == "append" {
				id, named := n.Args[0].(*ast.Ident)
				ok = named && slices.Contains([]string{"args", "attrs", "done", "times"}, id.Name)
			}
			if ok {
				literals(n.Args, first)
			}
		case *ast.CompositeLit:
			if list, ok := n.Type.(*ast.ArrayType); ok && list.Len == nil {
				if id, ok := list.Elt.(*ast.Ident); ok && id.Name == "any" {
					literals(n.Elts, 0)
				}
			}
		}
		return true
	})
	return keys
}

// TestLogKeys: the table of the log's keys has all that the program logs, and no others.
func TestLogKeys(t *testing.T) {
	page, err := os.ReadFile("bench/record/README.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := firstCells(string(page), "| key | type | what it is |\n|---|---|---|")
	logged := []string{"time", "level", "msg", "source"} // slog's own, and the library's
	for _, part := range (result.Accounting{Limits: 1, CoolDown: 1}).Parts() {
		logged = append(logged, part.Key)
	}
	for _, dir := range []string{"bench", "cmd/benchmark-llm"} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			switch {
			case err == nil && d.Name() == "benchtest": // for tests
				return fs.SkipDir
			case err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go"):
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			if err == nil {
				logged = append(logged, logKeys(file)...)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(logged)
	slices.Sort(documented)
	if diff := cmp.Diff(slices.Compact(logged), documented); diff != "" {
		t.Errorf("keys of the log (-logged +documented):\n%s", diff)
	}
}

// ---- blocks that run ----

// TestDocumentBlocks runs every shell block whose fence says "sh run", in an
// empty directory, with the program of a build without the library.
func TestDocumentBlocks(t *testing.T) {
	t.Parallel()
	binary := build(t)
	ran := 0
	for _, d := range documents(t) {
		for _, b := range d.blocks {
			if !b.runnable() {
				continue
			}
			ran++
			if out, err := runBlock(t, b, binary); err != nil {
				t.Errorf("%s:%d: %v\n%s", d.path, b.line, err, out)
			}
		}
	}
	if ran == 0 {
		t.Error("no document has a block that begins with ```sh run")
	}
}

func runBlock(t *testing.T, b block, binary string) (output []byte, err error) {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", b.text)
	cmd.Dir = dir
	cmd.Env = []string{"HOME=" + dir, "PATH=" + filepath.Dir(binary) + string(filepath.ListSeparator) + os.Getenv("PATH"), "LANG=C.UTF-8"}
	return cmd.CombinedOutput()
}

// ---- README and ARCHITECTURE ----

func TestReadmeIsShort(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	words := bufio.NewScanner(bytes.NewReader(text))
	words.Split(bufio.ScanWords)
	n := 0
	for words.Scan() {
		n++
	}
	if n > maxReadmeWords {
		t.Errorf("README.md has %d words, more than %d: move what not everybody needs to a page beside the code", n, maxReadmeWords)
	}
}

// errNoTable is an ARCHITECTURE.md without the table of rooms.
var errNoTable = errors.New("there is no table with the head | room | job | may import |")

// roomsTable reads the table of rooms: each room with what it may import, and
// the order of the rooms from top to bottom.
func roomsTable(text string) (table map[string][]string, order []string, err error) {
	_, rows, found := strings.Cut(text, "| room | job | may import |\n")
	if !found {
		return nil, nil, errNoTable
	}
	table = make(map[string][]string)
	quoted := regexp.MustCompile("`([^`]+)`")
	names := func(cell string) (list []string) {
		for _, m := range quoted.FindAllStringSubmatch(cell, -1) {
			list = append(list, m[1])
		}
		return list
	}
	for line := range strings.Lines(rows) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if !strings.HasPrefix(line, "|") {
			break
		}
		if len(cells) != 3 {
			return nil, nil, fmt.Errorf("a row with %d cells: %s", len(cells), line)
		}
		for _, room := range names(cells[0]) {
			table[room] = names(cells[2])
			order = append(order, room)
		}
	}
	return table, order, nil
}

// tableDifferences compares the table of rooms with the rules that the test of
// imports holds. Rooms that may import anything are not compared.
func tableDifferences(text string, rules map[string][]string) (differences []string) {
	table, order, err := roomsTable(text)
	if err != nil {
		return []string{err.Error()}
	}
	for _, name := range slices.Sorted(maps.Keys(rules)) {
		written, ok := table[name]
		if !ok {
			differences = append(differences, fmt.Sprintf("%s is in rooms of importrules_test.go and has no row in the table", name))
			continue
		}
		want := slices.Sorted(slices.Values(rules[name]))
		if got := slices.Sorted(slices.Values(written)); !slices.Equal(got, want) {
			differences = append(differences, fmt.Sprintf("%s: the table lets it import %v, importrules_test.go %v", name, got, want))
		}
	}
	for i, name := range order {
		if _, ok := rules[name]; !ok {
			if !free(name) && name != "scripts" && !strings.HasPrefix(name, "third_party") {
				differences = append(differences, fmt.Sprintf("%s has a row in the table and is not in rooms of importrules_test.go", name))
			}
			continue
		}
		for _, below := range table[name] {
			if j := slices.Index(order, below); j >= 0 && j < i {
				differences = append(differences, fmt.Sprintf("%s may import %s, which stands above it: order the rows from top to bottom", name, below))
			}
		}
	}
	return differences
}

func TestArchitectureTable(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, difference := range tableDifferences(string(text), rooms) {
		t.Error("ARCHITECTURE.md: " + difference)
	}
}

// ---- the checks themselves ----

// TestDocumentChecksCatch has each check find what it is for, in made-up text,
// and nothing in text that is right.
func TestDocumentChecksCatch(t *testing.T) {
	t.Parallel()
	p := program{
		"":               {"--version": true, "-m": true, "--weights": true},
		"run":            {"-m": true, "--weights": true, "-p": true},
		"plan":           {"-p": true},
		"models":         {"--help": true},
		"models inspect": {"-n": true},
	}
	short := map[string]bool{"-ngl": true}
	makefile := verbs("CC := gcc\nrun: build ## run\n\t@true\nimage-check: # x\nbuild:\nparity: build\n")
	flags := func(dir string) map[string]bool {
		if dir != "scripts/parity" {
			return nil
		}
		return scriptFlags(`flag.IntVar(&o.loads, "loads", 0, "…"); x := flag.Bool("control", false, "…"); flag.StringVar(&o.model, "model", "", "…")`)
	}
	other := parseDocument("bench/page.md", "# A page: of `code`\n## Same\n## Same\n")

	for _, tc := range []struct {
		name, text string
		want       string // part of the only finding; empty for none
	}{
		{"a file and its anchors", "[a](bench/page.md) [b](bench/page.md#a-page-of-code) [c](bench/page.md#same-1) [d](#here)\n## Here\n", ""},
		{"a link elsewhere", "[a](https://example.com/x#y) `[b](no.md)`", ""},
		{"no such file", "[a](nosuch.md)", "there is no nosuch.md"},
		{"no such heading", "[a](bench/page.md#nosuch)", "no heading nosuch"},
		{"no such heading here", "[a](#nosuch)", "no heading nosuch"},
		{"no such picture", `<img src="nosuch.svg">`, "there is no nosuch.svg"},

		{"a command with its flags", "```sh\nbin/benchmark-llm run -m x.gguf --weights synthetic -ngl 9 | tee # --no-such\n```", ""},
		{"an image", "```sh\ndocker run --rm benchmark-llm:cpu run -m x\n```", ""},
		{"the root does what run does", "`benchmark-llm --version` `benchmark-llm -m nosuch.gguf`", ""},
		{"a command below another", "`benchmark-llm models inspect x.gguf -n 3`", ""},
		{"two commands", "```sh\nbenchmark-llm plan -p 1 && benchmark-llm run -p 1\n```", ""},
		{"a block of output", "```\nbenchmark-llm nosuch --nosuch\n```", ""},
		{"no such command", "`benchmark-llm nosuch`", "no command nosuch"},
		{"no such flag", "```sh\nbenchmark-llm run \\\n  --nosuch=1\n```", "no flag --nosuch"},
		{"a flag of another command", "`benchmark-llm plan --weights auto`", "plan has no flag --weights"},
		{"no such flag of an image", "```sh\ndocker run benchmark-llm:cuda --nosuch\n```", "no flag --nosuch"},
		{"a flag alone", "`--weights auto` and `-ngl`", ""},
		{"no such flag alone", "`--nosuch FILE`", "has --nosuch"},

		{"a verb", "`make run ARGS='-p nosuch' build` `X=y make image-check`", ""},
		{"a verb in a substitution", "```sh\neval \"$(make run)\"; go test nosuch\n```", ""},
		{"no such verb", "`make nosuch`", "no verb nosuch"},
		{"arguments of a verb", "`make parity ARGS='-loads 3 -model short'` `make parity ARGS=-control` `make run ARGS='-p 3'`", ""},
		{"no such argument", "`make parity ARGS='-loads 3 -nosuch'`", "scripts/parity has no flag -nosuch"},
		{"a file and a folder", "`bench/page.md` `bench/NAME.md` `third_party/llama.cpp/root/x` `scripts with words`", ""},
		{"no such file in code", "`bench/nosuch.md`", "there is no bench/nosuch.md"},
		{"no such verb after a variable", "```sh\nmake image BACKEND=cpu\n```", "no verb image"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			d := parseDocument("README.md", tc.text)
			others := map[string]document{"README.md": d, "bench/page.md": other}
			exists := func(path string) bool { _, ok := others[path]; return ok }
			found := slices.Concat(brokenLinks(d, exists, others), wrongCommands(d, p, short), wrongVerbs(d, makefile), wrongArguments(d, flags), wrongPaths(d, exists))
			switch {
			case tc.want == "" && len(found) > 0:
				t.Errorf("unexpected: %q", found)
			case tc.want != "" && (len(found) != 1 || !strings.Contains(found[0], tc.want)):
				t.Errorf("got %q, want one with %q", found, tc.want)
			}
		})
	}

	rules := map[string][]string{"bench/a": {"bench/b"}, "bench/b": {}}
	for _, tc := range []struct{ name, rows, want string }{
		{"equal", "|---|---|---|\n| `cmd/x` | program | all |\n| `bench/a` | a | `bench/b` |\n| `bench/b` | b | – |\n", ""},
		{"two rooms in a row", "|---|---|---|\n| `bench/b` | b | – |\n", "bench/a is in rooms"},
		{"another import", "| `bench/a` | a | – |\n| `bench/b` | b | – |\n", "the table lets it import []"},
		{"a room of its own", "| `bench/a` | a | `bench/b` |\n| `bench/b` | b | – |\n| `bench/c` | c | – |\n", "bench/c has a row"},
		{"upside down", "| `bench/b` | b | – |\n| `bench/a` | a | `bench/b` |\n", "stands above it"},
		{"a row too long", "| `bench/a` | a | `bench/b` | x |\n", "4 cells"},
	} {
		t.Run("table/"+tc.name, func(t *testing.T) {
			t.Parallel()
			found := tableDifferences("# Rooms\n| room | job | may import |\n"+tc.rows+"\ntext\n", rules)
			if tc.want == "" && len(found) > 0 || tc.want != "" && (len(found) != 1 || !strings.Contains(found[0], tc.want)) {
				t.Errorf("got %q, want %q", found, tc.want)
			}
		})
	}
	if found := tableDifferences("no table", rules); len(found) != 1 || found[0] != errNoTable.Error() {
		t.Errorf("without a table: %q", found)
	}

	if got := firstCells("a\n| x | y |\n|---|---|\n| `a`, `b` | `c` |\n| `d` | |\n\n| `e` | |\n", "| x | y |"); !slices.Equal(got, []string{"a", "b", "d"}) {
		t.Errorf("first cells: %q", got)
	}

	run := parseDocument("x.md", "text\n```sh run\ntrue\nfalse\n```\n```sh\nfalse\n```\n")
	if len(run.blocks) != 2 || !run.blocks[0].runnable() || run.blocks[1].runnable() || run.blocks[0].line != 2 {
		t.Errorf("blocks: %+v", run.blocks)
	}
	if _, err := runBlock(t, run.blocks[0], "/nosuch/benchmark-llm"); err == nil {
		t.Error("a block that fails is not noticed")
	}
}
