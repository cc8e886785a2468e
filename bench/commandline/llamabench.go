// Package commandline says what a command line means that cobra cannot read: it knows
// llama-bench's flags, refuses empty values, and suggests the flag, command or value
// that a misspelt word may stand for. It defines no flags. Errors are *Mistake.
package commandline

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/sparecores/benchmark-llm/bench/source"
)

// Short are llama-bench's short flags of several letters with their long names. A
// parser of flags would read them as several flags of one letter. Long names that
// this program lacks are in Foreign, or FromLlamaBench translates them.
var Short = map[string]string{
	"-ub":    "--ubatch-size",
	"-ctk":   "--cache-type-k",
	"-ctv":   "--cache-type-v",
	"-fa":    "--flash-attn",
	"-ngl":   "--n-gpu-layers",
	"-ncmoe": "--n-cpu-moe",
	"-sm":    "--split-mode",
	"-mg":    "--main-gpu",
	"-ts":    "--tensor-split",
	"-dev":   "--device",
	"-lm":    "--load-mode",
	"-rpc":   "--rpc",
	"-pg":    "--pg",
	"-nkvo":  "--no-kv-offload",
	"-nopo":  "--no-op-offload",
	"-oe":    "--output-err",
	"-fitt":  "--fit-target",
	"-fitc":  "--fit-ctx",
	"-hf":    "--hf-repo",
	"-hfr":   "--hf-repo",
	"-hff":   "--hf-file",
	"-hft":   "--hf-token",
	"-lzm":   "--lazy-mode",
	"-embd":  "--embeddings",
	"-ot":    "--override-tensor",
	"-tb":    "--threads-batch",
	"-mmp":   "--mmap",
	"-mlock": "--mlock",
	"-dio":   "--direct-io",
}

// Switches are flags that take 0 or 1 in llama-bench, and need no value here.
var Switches = []string{"--no-kv-offload", "--no-op-offload", "--no-host", "--cpu-strict", "--embeddings"}

// ForeignFlag is a flag of llama-bench 0.7.0, or of its predecessors, that this
// program does not have.
type ForeignFlag struct {
	Names   string // as llama-bench's help lists them, without a value: "-oe, --output-err"
	Meaning string // what it does in llama-bench
	Instead string // what to do here: a command or an action
}

// foreign are the flags that this program lacks.
var foreign = []ForeignFlag{
	{"-hf, -hfr, --hf-repo", "names a repository on Hugging Face", "give as many files with --hf-file as repositories, or none"},
	{"-hff, --hf-file", "names the file of --hf-repo", "use -m hf:user/repository/file"},
	{"--delay", "waits so many whole seconds before each test", "give whole seconds, or use --cool-down 1.5s"},
	{"--repack", "repacks the weights for the CPU", "leave it out, or use --no-repack"},
	{"-mmp, --mmap", "maps the model file into memory", "use --load-mode mmap, or --load-mode none for 0"},
	{"--no-mmap", "reads the model file instead of mapping it", "use --load-mode none"},
	{"-mlock, --mlock", "keeps the model in memory", "use --load-mode mlock"},
	{"-dio, --direct-io", "reads the model file past the cache", "use --load-mode dio"},
}

// Foreign returns the flag of llama-bench with a name such as "--output-err" or "-C".
func Foreign(name string) (ForeignFlag, bool) {
	i := slices.IndexFunc(foreign, func(f ForeignFlag) bool { return slices.Contains(strings.Split(f.Names, ", "), name) })
	if i < 0 {
		return ForeignFlag{}, false
	}
	return foreign[i], true
}

// Error says that the flag is missing here.
func (f ForeignFlag) Error() string {
	return fmt.Sprintf("there is no %s; in llama-bench it %s", f.Names, f.Meaning)
}

// Note says how flags of llama-bench's predecessors, or flags with the opposite
// meaning, were read.
type Note struct{ Given, As string }

// bit is a value of a switch, or a list of them in llama-bench.
var bit = regexp.MustCompile(`^[01](,[01])*$`)

// noBit is a word that is meant as the value of a switch, but is neither 0 nor 1.
var noBit = regexp.MustCompile(`^([0-9,]+|on|off|true|false|yes|no)$`)

// seconds is a number of whole seconds.
var seconds = regexp.MustCompile(`^[0-9]+$`)

// FromLlamaBench makes llama-bench's command lines work here. It replaces short flags
// with their long names. It also replaces the flags for mmap, mlock and repacking that
// this program has under another name, and returns a note for each.
func FromLlamaBench(args []string) (ours []string, notes []Note) {
	var mode loadMode
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			ours = append(ours, args[i:]...)
			break
		}
		given := arg
		name, value, attached := strings.Cut(arg, "=")
		if long, ok := Short[name]; ok {
			arg, name = long+arg[len(name):], long
		}
		takesBit := slices.Contains(Switches, name) || modeFlags[name] != nil || name == "--repack"
		if takesBit && !attached && i+1 < len(args) && (bit.MatchString(args[i+1]) || noBit.MatchString(args[i+1])) {
			i++
			value, attached = args[i], true
			arg, given = arg+"="+value, given+" "+value
		}
		if name == "--delay" && !attached && i+1 < len(args) && seconds.MatchString(args[i+1]) {
			i++
			value, attached, given = args[i], true, given+" "+args[i]
		}
		switch set := modeFlags[name]; {
		case name == "--delay" && seconds.MatchString(value):
			arg = "--cool-down=" + value + "s"
			notes = append(notes, Note{given, arg})
		case name == "--list-devices":
			return []string{"devices"}, append(notes, Note{given, "benchmark-llm devices"})
		case name == "--progress":
			notes = append(notes, Note{given, "nothing: stderr always shows the progress"})
			continue
		case name == "--verbose", name == "-v" && len(args) > 1 && !slices.Contains(args, "version"):
			arg = "--log-level=debug"
			notes = append(notes, Note{given, arg})
		case set != nil && (bit.MatchString(value) || !attached):
			if mode.given == nil {
				mode.at = len(ours)
			}
			if !attached {
				value = "1"
			}
			set(&mode, value)
			mode.given = append(mode.given, given)
			continue
		case name == "--repack" && bit.MatchString(value):
			arg = "--no-repack=" + listOf(value, [2]string{"1", "0"})
			notes = append(notes, Note{given, arg})
		}
		ours = append(ours, arg)
	}
	if mode.given != nil {
		as := "--load-mode=" + mode.names()
		ours = slices.Insert(ours, mode.at, as)
		notes = append(notes, Note{strings.Join(mode.given, " "), as})
	}
	return ours, notes
}

// listOf replaces each 0 and 1 of a list.
func listOf(bits string, as [2]string) string {
	return strings.NewReplacer("0", as[0], "1", as[1]).Replace(bits)
}

// loadMode is what the flags of llama-bench's predecessors say about loading.
type loadMode struct {
	given                  []string
	at                     int    // where the first stood
	mapped, locked, direct string // a digit for each value in turn, 0 or 1; empty if the flag is missing
}

// modeFlags are the flags that became values of --load-mode. Like any list of
// llama-bench, --mmap and --direct-io add to what was given before.
var modeFlags = map[string]func(m *loadMode, bits string){
	"--mmap":      func(m *loadMode, bits string) { m.mapped += digits(bits, "0", "1") },
	"--no-mmap":   func(m *loadMode, bits string) { m.mapped = digits(bits, "1", "0") },
	"--mlock":     func(m *loadMode, bits string) { m.locked = digits(bits, "0", "1") },
	"--direct-io": func(m *loadMode, bits string) { m.direct += digits(bits, "0", "1") },
}

// digits returns a list of 0 and 1 without commas, as the given digits.
func digits(bits, zero, one string) string {
	return strings.NewReplacer(",", "", "0", zero, "1", one).Replace(bits)
}

// names is the value of --load-mode: each combination of the flags' values, once. A
// file was mapped unless a flag said otherwise.
func (m *loadMode) names() string {
	locked, direct := cmp.Or(m.locked, "0"), cmp.Or(m.direct, "0")
	var names []string
	for _, l := range locked {
		for _, mapped := range cmp.Or(m.mapped, digits(string(l), "1", "0")) {
			for _, d := range direct {
				if name := loadModeName(mapped == '1', l == '1', d == '1'); !slices.Contains(names, name) {
					names = append(names, name)
				}
			}
		}
	}
	return strings.Join(names, ",")
}

func loadModeName(mapped, locked, direct bool) string {
	switch {
	case direct:
		return "dio"
	case mapped && locked:
		return "mmap+mlock"
	case locked:
		return "mlock"
	case mapped:
		return "mmap"
	default:
		return "none"
	}
}

// SpreadModels turns --model-urls A B C, which people and pipelines write, into one
// flag per model. A word that may be something else ends the list.
func SpreadModels(args []string) []string {
	const flag = "--model-urls"
	var spread []string
	for i := 0; i < len(args); i++ {
		spread = append(spread, args[i])
		if args[i] == "--" {
			return append(spread, args[i+1:]...)
		}
		if args[i] == flag && i+1 < len(args) {
			i++
			spread = append(spread, args[i])
		} else if !strings.HasPrefix(args[i], flag+"=") {
			continue
		}
		for i+1 < len(args) && !strings.HasPrefix(args[i+1], "-") && source.Explicit(args[i+1]) {
			i++
			spread = append(spread, flag, args[i])
		}
	}
	return spread
}
