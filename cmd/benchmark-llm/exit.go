package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"syscall"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/acquire"
	"github.com/sparecores/benchmark-llm/bench/commandline"
	"github.com/sparecores/benchmark-llm/bench/compare"
	"github.com/sparecores/benchmark-llm/bench/database"
	"github.com/sparecores/benchmark-llm/bench/estimate"
	"github.com/sparecores/benchmark-llm/bench/fetch"
	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/gpu"
	"github.com/sparecores/benchmark-llm/bench/host"
	"github.com/sparecores/benchmark-llm/bench/llamacpp"
	"github.com/sparecores/benchmark-llm/bench/report"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/roofline"
	"github.com/sparecores/benchmark-llm/bench/rundir"
	"github.com/sparecores/benchmark-llm/bench/session"
	"github.com/sparecores/benchmark-llm/bench/source"
	"github.com/sparecores/benchmark-llm/bench/suite"
	"github.com/sparecores/benchmark-llm/bench/supervise"
	"github.com/sparecores/benchmark-llm/bench/synth"
)

// Exit codes. The code is 0 if a record was printed, whatever else happened, because
// readers drop runs with any other code.
const (
	exitOK      = 0 // at least one record was printed, or the command did what it says
	exitNothing = 1 // nothing was measured
	exitUsage   = 2 // a flag, a value or a command is wrong
	exitModel   = 3 // the model is missing, broken or not supported
	exitLibrary = 4 // libllama, a back-end or a required GPU is missing
	exitOutput  = 5 // results could not be written; with --strict, one of several places could not

	exitIncomplete = 6 // --strict: a test has no record
	exitBusy       = 7 // --require-quiet: the machine is busy
	exitSlower     = 8 // compare --fail-below: a row is slower than that

	exitSignal = 128 // plus the number of the signal that ended the run before a record was printed
)

const exitCodes = `Exit codes:
  0    a record was printed, even if the run stopped early; or the
       command succeeded
  1    nothing was measured, for example because a limit of the process
       (ulimit, pids) is too low
  2    wrong usage
  3    the model, or a source of compare, is missing, broken or not supported
  4    libllama, a needed back-end or a required GPU is missing
  5    results could not be written; with --strict also if only one of
       the directory, stdout, --db and --token-times failed
  6    with --strict: a test has no record
  7    with --require-quiet: the machine is busy
  8    compare --fail-below: a row is slower than that
  127  libllama is not installed, so the program could not start
  130  interrupted before a record was printed (143: terminated, 129:
       terminal closed); with --strict also after one`

// failure is an error as the user gets it: one line, a hint and the exit code.
type failure struct {
	code int
	err  error
	hint string // a command or an action, without a full stop; may be empty
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// fail makes a failure of an error that arises in a command. Errors of other
// packages become failures by rules.
func fail(code int, err error, hint string) error { return &failure{code, err, hint} }

// usage makes a failure of a mistake on the command line.
func usage(hint, format string, args ...any) error {
	return fail(exitUsage, fmt.Errorf(format, args...), hint)
}

// tableFormats are the output formats of plan and models inspect.
var tableFormats = []string{"table", "json"}

// errStdout is a failure to write what a command prints.
var errStdout = errors.New("stdout")

// printed is the error of printing; nil when err is.
func printed(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", errStdout, err)
}

const (
	hostHint        = "check the network and the proxy, or use --weights auto or --weights synthetic"
	sourcesHint     = "give a path, an https URL of a GGUF file, hf:user/repository[:quant] or hf:user/repository/file[@revision]"
	otherModelsDir  = "choose another place with --models-dir"
	otherResultsDir = "choose another place with --results-dir (none: no directory)"
	limitsHint      = "raise the limits on processes (ulimit -u, the pids limit of the container) and address space (ulimit -v)"
	timeLimitHint   = "give more time with --time-limit"
	devicesHint     = "benchmark-llm devices lists the devices"
)

// A rule gives an error its exit code and hint.
type rule struct {
	is   func(error) bool
	code int
	hint func(error) string
}

// is matches errors that wrap one of targets.
func is(targets ...error) func(error) bool {
	return func(err error) bool {
		for _, t := range targets {
			if errors.Is(err, t) {
				return true
			}
		}
		return false
	}
}

// engine matches an error of the engine, in this process or in a worker.
func engine(target error) func(error) bool {
	return func(err error) bool {
		var workers *supervise.EngineError
		return errors.Is(err, target) || errors.As(err, &workers) && workers.Code == llamacpp.Code(target)
	}
}

func ofType[E error](err error) bool {
	var e E
	return errors.As(err, &e)
}

func modelKind(kind acquire.Kind) func(error) bool {
	return func(err error) bool {
		var e *acquire.Error
		return errors.As(err, &e) && e.Kind == kind
	}
}

func hint(text string) func(error) string { return func(error) string { return text } }

// causes are what to do about errors of the file system. The first that matches counts.
var causes = []struct {
	is     func(error) bool
	action string
	place  bool // another place helps too
}{
	{is(fetch.ErrReserve), "free disk space, leave less free with --disk-reserve", true},
	{is(syscall.ENOSPC, fetch.ErrNoDisk), "free disk space", true},
	{is(syscall.EDQUOT), "free some of your disk quota", true},
	{is(syscall.EFBIG), "raise the limit on the size of files (ulimit -f)", true},
	{is(syscall.EMFILE), "raise the limit on open files (ulimit -n)", false},
	{is(syscall.ENFILE), "close files: the machine has too many open", false},
	{is(syscall.EROFS), "", true}, // the file system is read-only
	{is(syscall.ENOTDIR), "give a path below a directory, not below a file", true},
	{is(syscall.EISDIR), "give the path of a file, not of a directory", false},
	{is(syscall.ENAMETOOLONG), "give a shorter path", false},
	{is(syscall.ELOOP), "give a path without a loop of links", false},
	{is(syscall.EIO, syscall.ESTALE), "check the disk", true},
	{is(fs.ErrPermission), "get permission for the path", true},
}

// causeHint is the hint for an error of the file system. The cause decides. place says
// how to choose another place, and is the hint for other causes; an empty place is none.
func causeHint(err error, place string) string {
	for _, c := range causes {
		if c.is(err) {
			parts := []string{c.action, place}
			if !c.place && c.action != "" {
				parts = parts[:1]
			}
			return strings.Join(slices.DeleteFunc(parts, func(p string) bool { return p == "" }), ", or ")
		}
	}
	return place
}

// byCause is a rule's causeHint.
func byCause(place string) func(error) string {
	return func(err error) string { return causeHint(err, place) }
}

// rules give the errors of other packages their exit codes and hints. The first
// that matches counts.
var rules = []rule{
	{ofType[*commandline.Mistake], exitUsage, mistakeHint},
	{is(errStdout), exitOutput, byCause("check that stdout is open and has room")},

	// The run's directory.
	{is(report.ErrEstimate), exitModel, hint("measure the model with run; estimates are not compared")},
	{is(rundir.ErrSource), exitModel, byCause("give a run's directory, or a whole results file of this program or of llama-bench")},
	{is(rundir.ErrTwice, compare.ErrFewSides), exitUsage, hint("give two sides or more, the base first, with a label and sources of their own: benchmark-llm compare last~1 last")},
	{is(compare.ErrNoRow), exitUsage, compare.Hint},
	{is(compare.ErrGate), exitSlower, hint("the table shows how sure that is; more runs of a side, separated by commas, narrow the intervals")},
	{is(rundir.ErrNotRun), exitUsage, hint("give a directory below --results-dir that has a run.json")},
	{is(rundir.ErrRunning), exitUsage, hint("wait until it ends, or interrupt it")},
	{is(rundir.ErrFinished), exitUsage, finishedHint},
	{is(rundir.ErrMachine), exitUsage, hint("continue it where it began, or start a new run; its records stay in results.jsonl")},
	{is(rundir.ErrCPUs), exitUsage, hint("resume it with the CPUs that it had (host.cpu.allowed_list of run.json), or start a new run")},
	{is(rundir.ErrSchema), exitUsage, hint("continue it with the version that started it")},
	{is(rundir.ErrBroken), exitNothing, hint("start a new run: a damaged one cannot be continued")},
	{is(rundir.ErrAccess), exitOutput, byCause("give a directory that this user can read and write")},
	{is(rundir.ErrWrite, rundir.ErrCreate), exitOutput, byCause(otherResultsDir)},

	{is(session.ErrTokenTimes, database.ErrWrite), exitOutput, byCause("choose another file")},
	{is(bench.ErrTimeLimit), exitNothing, hint(timeLimitHint)},
	// The machine.
	{is(session.ErrNoSensor), exitUsage, hint("give a time, as --cool-down 30s")},
	{is(host.ErrBusy), exitBusy, hint("stop what is busy, or wait for it with --wait-quiet 2m")},

	// The library and its devices.
	{engine(llamacpp.ErrNoLibrary), exitLibrary, hint("build it with `make build`, which gets the library")},
	{engine(llamacpp.ErrRPC), exitLibrary, hint("start ggml-rpc-server there, from the same llama.cpp; it serves one program at a time")},
	{engine(llamacpp.ErrDevices), exitUsage, hint(devicesHint + "; nothing can be offloaded to the CPU")},
	{engine(llamacpp.ErrNoDevice), exitLibrary, hint(devicesHint)},
	{engine(llamacpp.ErrNoRPC), exitLibrary, hint("install libggml0-backend-rpc, or leave --rpc out")},
	{engine(llamacpp.ErrNoCUDA), exitLibrary, hint("`make cuda build` gets the CUDA back-end, which needs NVIDIA's driver; --allow-cpu measures the CPU")},
	{is(gpu.ErrNotUsed), exitLibrary, gpuHint},
	{is(supervise.ErrLimit), exitNothing, hint(limitsHint)},
	{is(session.ErrDevices), exitLibrary, hint(devicesHint)},
	{is(supervise.ErrEngine), exitLibrary, hint("`make deps` gets the library and its back-ends")},
	{ofType[*engineError], exitLibrary, hint("`make deps` gets the library and its back-ends")},
	{is(supervise.ErrStart), exitNothing, hint(limitsHint)},

	// Models.
	{is(source.ErrBad), exitModel, hint(sourcesHint)},
	{modelKind(acquire.NoFile), exitModel, noFileHint},
	{modelKind(acquire.NotFetched), exitModel, notFetchedHint},
	{modelKind(acquire.NotChosen), exitModel, notChosenHint},
	{modelKind(acquire.NoDirectory), exitModel, byCause(otherModelsDir)},
	{modelKind(acquire.UnknownModel), exitModel, hint("benchmark-llm models lists the names")},
	{modelKind(acquire.NoTensor), exitModel, hint("check the pattern: names are like blk.0.ffn_down_exps.weight")},
	{modelKind(acquire.NoShape), exitModel, func(err error) string { return cmp.Or(headerHint(err), "use --weights file") }},
	{is(synth.ErrThin), exitModel, hint("run measures the model itself")},
	{is(result.ErrCurrencies), exitUsage, hint("give both prices in one currency")},
	{is(estimate.ErrTest), exitUsage, hint("use -p and -n")},
	{is(roofline.ErrType), exitUsage, hint("try --type q4_K")},
	{is(roofline.ErrMemory), exitNothing, hint("free memory")},
	{is(supervise.ErrNoLimits), exitNothing, hint("free memory, or name another device with --device")},
	{is(estimate.ErrMemory), exitModel, hint("free memory, or use shorter lengths: -p, -n and -d")},
	{is(gguf.ErrUnsupported), exitModel, headerHint},
	{modelKind(acquire.OtherFile), exitModel, hint("put the file back, or start a new run")},
	{modelKind(acquire.NoSource), exitModel, hint("start a new run; downloaded files are reused")},
}

func mistakeHint(err error) string {
	var m *commandline.Mistake
	errors.As(err, &m)
	return m.Hint
}

func finishedHint(err error) string {
	var e *rundir.FinishedError
	errors.As(err, &e)
	return "read its report, " + e.Report
}

func gpuHint(err error) string {
	text := "leave --require-gpu out to measure the CPU"
	var denied *session.NoAccessError
	switch {
	case errors.As(err, &denied):
		text = fmt.Sprintf("sudo usermod -aG %s USER, and log in again (in a container: --group-add %s); %s", denied.Group, denied.Group, text)
	case ofType[*session.NoCUDAError](err):
		text = "`make cuda build` gets the CUDA back-end; " + text
	}
	return text
}

// noFileHint is the hint for a file of this machine that is missing or unusable.
func noFileHint(err error) string {
	var e *acquire.Error
	errors.As(err, &e)
	switch {
	case errors.Is(err, fetch.ErrNotFound):
		if d, ok := suite.LookupModel(e.Model); ok {
			return fmt.Sprintf("--weights synthetic measures it without its file; -m %s fetches it", d.Source())
		}
	}
	return cmp.Or(headerHint(err), causeHint(err, "give the path of a GGUF file"))
}

// headerHint is the hint for a model whose header says that it cannot be measured, or
// for a test of such a model. Reasons of tests arrive as text. It is empty for another
// error.
func headerHint(err error) string {
	for _, r := range []struct {
		cause error
		hint  string
	}{
		{gguf.ErrBigEndian, "convert it with gguf-convert-endian, of Python's package gguf"},
		{gguf.ErrUnknownType, "use a file of another quantisation, or a newer llama.cpp"},
		{gguf.ErrNotFirst, "give the first file, whose name has -00001-of-"},
		{gguf.ErrAdapter, "give the model that it adapts"},
		{gguf.ErrControlVector, "give the model that it steers"},
		{gguf.ErrImatrix, "give a model that was quantised with it"},
		{gguf.ErrProjector, "give the language model that it belongs to"},
		{gguf.ErrNoArchitecture, "give the GGUF file of a model"},
		{gguf.ErrVocabularyOnly, "give the file with the weights"},
		{gguf.ErrNoTokenizer, "convert the model again, or use --weights synthetic, which needs no tokenizer"},
		{gguf.ErrEncoderDecoder, "use a model that has only a decoder"},
		{gguf.ErrEncoder, "measure prompts only: -n 0"},
		{gguf.ErrDiffusion, "measure prompts only: -n 0"},
		{gguf.ErrUBatch, "raise -ub and -b to the longest prompt, for example -ub 4096 -b 4096"},
		{gguf.ErrPositions, "use shorter lengths: -p, -n and -d"},
		{gguf.ErrTruncated, "fetch the file again: it is incomplete"},
		{gguf.ErrEmpty, "fetch the file again: it is empty"},
		{gguf.ErrCorrupt, "fetch the file again: it is damaged"},
		{gguf.ErrUnsupported, "use another file of the model: this one exceeds the library's limits"},
	} {
		if errors.Is(err, r.cause) || strings.Contains(err.Error(), r.cause.Error()) {
			return r.hint
		}
	}
	return ""
}

// notFetchedHint is the hint for a file that was not downloaded.
func notFetchedHint(err error) string {
	for _, r := range []struct {
		causes []error
		hint   string
	}{
		{[]error{fetch.ErrRefused}, "set HF_TOKEN to a token that may read the file"},
		{[]error{fetch.ErrOffline}, "unset HF_HUB_OFFLINE, or use --weights synthetic, which needs no file"},
		{[]error{fetch.ErrNotFound}, "check the repository, the file and the revision"},
		{[]error{fetch.ErrMixed}, "move the model's files elsewhere to fetch them again"},
		{[]error{gguf.ErrNotGGUF}, sourcesHint},
		{[]error{fetch.ErrEncoded}, "download the file with another program and give its path"},
		{[]error{gguf.ErrEmpty, gguf.ErrTruncated, gguf.ErrCorrupt}, "give the address of another file: this one is incomplete or damaged"},
	} {
		if is(r.causes...)(err) {
			return r.hint
		}
	}
	if errors.Is(err, gguf.ErrUnsupported) {
		return headerHint(err)
	}
	if ofType[*fetch.HostError](err) {
		return hostHint
	}
	// A server's failure is no cause of the file system.
	if text := causeHint(err, otherModelsDir); text != otherModelsDir || errors.Is(err, syscall.EROFS) {
		return text + ", or use --weights synthetic"
	}
	return "run the same command again to resume the download, or use --weights synthetic"
}

// notChosenHint is the hint for a repository of which no file was chosen.
func notChosenHint(err error) string {
	var choice *fetch.ChoiceError
	switch {
	case !errors.As(err, &choice):
	case len(choice.Quants) > 0:
		return "give one of them: -hf " + choice.Repository.Name + ":" + choice.Quants[0]
	default:
		return "choose a repository of GGUF files; the names of many end in -GGUF"
	}
	switch {
	case errors.Is(err, fetch.ErrRefused):
		return notFetchedHint(err)
	case errors.Is(err, fetch.ErrOffline):
		return "unset HF_HUB_OFFLINE, or give the path of a file"
	case errors.Is(err, fetch.ErrNotFound):
		return "check the repository and the revision"
	default:
		return "check the network and the proxy, or give the path of a file"
	}
}

// lookup makes a failure of err if a rule knows it.
func lookup(err error) (*failure, bool) {
	if err == nil {
		return nil, false
	}
	var f *failure
	if errors.As(err, &f) {
		return f, true
	}
	var s *signalError
	if errors.As(err, &s) {
		return &failure{exitSignal + int(s.signal), err, s.hint}, true
	}
	var n *noRecordError
	if errors.As(err, &n) {
		return &failure{n.code(), err, n.hint()}, true
	}
	for _, r := range rules {
		if r.is(err) {
			return &failure{r.code, err, r.hint(err)}, true
		}
	}
	return nil, false
}

// finish prints err, if any, as a line and a hint, or as one record of a JSON log,
// and returns the exit code.
func finish(stderr io.Writer, err error) int {
	if err == nil {
		return exitOK
	}
	f, ok := lookup(err)
	if !ok { // all errors of cobra are mistakes of usage
		f = &failure{exitUsage, err, "benchmark-llm --help"}
	}
	if _, ok := slog.Default().Handler().(*slog.JSONHandler); ok {
		slog.Error(f.Error(), "hint", f.hint, "exit_code", f.code)
	} else {
		fmt.Fprintf(stderr, "benchmark-llm: %s\n", oneLine(f.Error()))
		if f.hint != "" {
			fmt.Fprintf(stderr, "hint: %s\n", oneLine(f.hint))
		}
	}
	because(f.err, f.Error())
	return f.code
}

// because logs the errors that err wraps, except those with the same text as the
// error around them.
func because(err error, above string) {
	if text := err.Error(); text != above {
		slog.Debug("because", "error", text, "error_type", fmt.Sprintf("%T", err))
		above = text
	}
	switch e := err.(type) { //nolint:errorlint // this is the walk that errors.As does
	case interface{ Unwrap() error }:
		if inner := e.Unwrap(); inner != nil {
			because(inner, above)
		}
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			because(inner, above)
		}
	}
}

// deviceLost tells whether a worker or a load ended because a driver lost its device.
// Reasons arrive as text.
func deviceLost(err error) bool {
	return strings.Contains(err.Error(), bench.ErrDeviceLost.Error()) || strings.Contains(err.Error(), "ErrorDeviceLost")
}

// noRecordError is a run that printed no record, or, with --strict, one in which
// tests have none.
type noRecordError struct {
	err        error
	status     result.Status // of the load or test that decided the error; may be empty
	loading    bool          // a model was not loaded
	e2e        bool          // an end-to-end test decided
	incomplete bool          // records were printed, and --strict wants all
	limited    bool          // a worker met a limit of the process
	trace      string        // file of events; may be empty
}

func (e *noRecordError) Error() string { return e.err.Error() }
func (e *noRecordError) Unwrap() error { return e.err }

func (e *noRecordError) code() int {
	switch {
	case e.incomplete:
		return exitIncomplete
	case e.loading && (e.status == result.Unsupported || e.status == result.Failed), e.e2e && e.status == result.Unsupported, headerHint(e.err) != "":
		return exitModel
	default:
		return exitNothing
	}
}

// seeSteps is the hint to what a run did; trace is its file of events, if it has one.
func seeSteps(trace string) string {
	if trace == "" {
		return "see each step with --log-level debug"
	}
	return "see each step in " + trace
}

func (e *noRecordError) hint() string {
	trace := seeSteps(e.trace)
	known := headerHint(e.err)
	switch {
	case e.limited:
		return limitsHint
	case known != "":
		return known
	case e.e2e && e.status == result.Unsupported:
		return "use -p and -n, or a model with a tokenizer and a long enough context"
	case e.status == result.Unsupported:
		return "try a newer llama.cpp; " + trace
	case strings.Contains(e.Error(), llamacpp.ErrNoDevice.Error()+` "`): // of an override of tensors
		return devicesHint
	case deviceLost(e.err):
		return "dmesg says why the driver lost it; --device none measures the CPU; " + trace
	case e.status == result.OutOfMemory:
		return "use shorter lengths or a smaller model; " + trace
	case e.status == result.TimeLimit:
		return timeLimitHint + "; " + trace
	case e.status == result.Timeout:
		return "give more time with --timeout or --benchmark-timeout-scale; " + trace
	default:
		return trace
	}
}
