package main

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"testing"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/acquire"
	"github.com/sparecores/benchmark-llm/bench/compare"
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
	"github.com/sparecores/benchmark-llm/bench/supervise"
	"github.com/sparecores/benchmark-llm/bench/synth"
)

// Every kind of error of the rooms below has its exit code, and a hint that fits.
func TestRules(t *testing.T) {
	model := func(kind acquire.Kind, cause error) error {
		return &acquire.Error{Kind: kind, Model: "SmolLM-135M.Q4_K_M.gguf", Err: cause}
	}
	plain := errors.New("why")
	at := func(kind, cause error) error { return fmt.Errorf("%w: %w", kind, cause) }
	covered := make([]bool, len(rules))
	for _, tt := range []struct {
		err  error
		code int
		hint string
	}{
		{oneOf("--x", "y", []string{"z", "w"}), 2, "use one of z, w"},
		{errStdout, 5, "check that stdout is open and has room"},
		{printed(syscall.ENOSPC), 5, "free disk space, or check that stdout is open and has room"},
		{fmt.Errorf("%w: %w", rundir.ErrSource, errors.New("line 3")), 3, "give a run's directory, or a whole results file of this program or of llama-bench"},
		{at(rundir.ErrSource, syscall.EACCES), 3, "get permission for the path, or give a run's directory, or a whole results file of this program or of llama-bench"},
		{at(rundir.ErrSource, rundir.ErrBroken), 3, "give a run's directory, or a whole results file of this program or of llama-bench"},
		{at(rundir.ErrSource, report.ErrEstimate), 3, "measure the model with run; estimates are not compared"},
		{fmt.Errorf("pp512 of m.gguf: %w: EUR and USD", result.ErrCurrencies), 2, "give both prices in one currency"},
		{rundir.ErrTwice, 2, "give two sides or more, the base first, with a label and sources of their own: benchmark-llm compare last~1 last"},
		{compare.ErrFewSides, 2, "give two sides or more, the base first, with a label and sources of their own: benchmark-llm compare last~1 last"},
		{&compare.NoRowError{}, 2, "give results of the same models and tests"},
		{&compare.NoRowError{Across: []string{"machine", "type_k"}}, 2, "compare them with --across machine,type_k"},
		{&compare.GateError{}, 8, "the table shows how sure that is; more runs of a side, separated by commas, narrow the intervals"},
		{fmt.Errorf("m.gguf: %w", synth.ErrThin), 3, "run measures the model itself"},
		{fmt.Errorf("\"q9\": %w", roofline.ErrType), 2, "try --type q4_K"},
		{fmt.Errorf("%w: 2.0 GiB", roofline.ErrMemory), 1, "free memory"},
		{fmt.Errorf("%w: limits of CPU: no memory", supervise.ErrNoLimits), 1, "free memory, or name another device with --device"},
		{fmt.Errorf("%w: %w", supervise.ErrNoLimits, &supervise.EngineError{Code: bench.DeviceMissing}), 4, "benchmark-llm devices lists the devices"},
		{fmt.Errorf("m.gguf: %w", estimate.ErrMemory), 3, "free memory, or use shorter lengths: -p, -n and -d"},
		{fmt.Errorf("m.gguf, e2e1+1: %w", estimate.ErrTest), 2, "use -p and -n"},
		{fmt.Errorf("m.gguf, tg128: %w", gguf.ErrEncoder), 3, "measure prompts only: -n 0"},
		{rundir.ErrNotRun, 2, "give a directory below --results-dir that has a run.json"},
		{rundir.ErrRunning, 2, "wait until it ends, or interrupt it"},
		{&rundir.FinishedError{Dir: "d", Report: "d/report.md"}, 2, "read its report, d/report.md"},
		{&rundir.OtherMachineError{}, 2, "continue it where it began, or start a new run; its records stay in results.jsonl"},
		{rundir.ErrCPUs, 2, "resume it with the CPUs that it had (host.cpu.allowed_list of run.json), or start a new run"},
		{rundir.ErrSchema, 2, "continue it with the version that started it"},
		{rundir.ErrBroken, 1, "start a new run: a damaged one cannot be continued"},
		{rundir.ErrAccess, 5, "give a directory that this user can read and write"},
		{at(rundir.ErrAccess, syscall.EACCES), 5, "get permission for the path, or give a directory that this user can read and write"},
		{rundir.ErrWrite, 5, otherResultsDir},
		{at(rundir.ErrWrite, syscall.ENOSPC), 5, "free disk space, or " + otherResultsDir},
		{rundir.ErrCreate, 5, otherResultsDir},
		{at(rundir.ErrCreate, syscall.EACCES), 5, "get permission for the path, or " + otherResultsDir},
		{at(rundir.ErrCreate, syscall.ENOTDIR), 5, "give a path below a directory, not below a file, or " + otherResultsDir},

		{fmt.Errorf("%w: %w", session.ErrDevices, bench.ErrTimeLimit), 1, "give more time with --time-limit"},
		{at(session.ErrTokenTimes, syscall.EACCES), 5, "get permission for the path, or choose another file"},
		{session.ErrNoSensor, 2, "give a time, as --cool-down 30s"},
		{host.ErrBusy, 7, "stop what is busy, or wait for it with --wait-quiet 2m"},

		{llamacpp.ErrNoLibrary, 4, "build it with `make build`, which gets the library"},
		{&supervise.EngineError{Code: bench.NoLibrary}, 4, "build it with `make build`, which gets the library"},
		{llamacpp.ErrRPC, 4, "start ggml-rpc-server there, from the same llama.cpp; it serves one program at a time"},
		{llamacpp.ErrDevices, 2, "benchmark-llm devices lists the devices; nothing can be offloaded to the CPU"},
		{llamacpp.ErrNoDevice, 4, devicesHint},
		{llamacpp.ErrNoRPC, 4, "install libggml0-backend-rpc, or leave --rpc out"},
		{llamacpp.ErrNoCUDA, 4, "`make cuda build` gets the CUDA back-end, which needs NVIDIA's driver; --allow-cpu measures the CPU"},
		{gpu.ErrNotUsed, 4, "leave --require-gpu out to measure the CPU"},
		{&session.NoAccessError{Err: gpu.ErrNotUsed, Group: "render"}, 4, "sudo usermod -aG render USER, and log in again (in a container: --group-add render); leave --require-gpu out to measure the CPU"},
		{&session.NoCUDAError{Err: gpu.ErrNotUsed}, 4, "`make cuda build` gets the CUDA back-end; leave --require-gpu out to measure the CPU"},
		{session.ErrDevices, 4, devicesHint},
		{&supervise.EngineError{Code: bench.NoRPC}, 4, "install libggml0-backend-rpc, or leave --rpc out"},
		{&supervise.EngineError{Code: bench.NoCUDA}, 4, "`make cuda build` gets the CUDA back-end, which needs NVIDIA's driver; --allow-cpu measures the CPU"},
		{&supervise.EngineError{Code: bench.DeviceMissing}, 4, devicesHint},
		{&supervise.EngineError{Code: bench.DevicesMismatch}, 2, "benchmark-llm devices lists the devices; nothing can be offloaded to the CPU"},
		{&supervise.EngineError{Code: bench.RPCServerFailed}, 4, "start ggml-rpc-server there, from the same llama.cpp; it serves one program at a time"},
		// Its text does not decide.
		{fmt.Errorf("%w: %w", supervise.ErrEngine, &supervise.EngineError{Reason: llamacpp.ErrNoRPC.Error()}), 4, "`make deps` gets the library and its back-ends"},
		{supervise.ErrEngine, 4, "`make deps` gets the library and its back-ends"},
		{&engineError{plain}, 4, "`make deps` gets the library and its back-ends"},
		{supervise.ErrStart, 1, limitsHint},
		{supervise.ErrLimit, 1, limitsHint},

		{source.ErrBad, 3, sourcesHint},
		{model(acquire.NoFile, plain), 3, "give the path of a GGUF file"},
		{model(acquire.NoFile, gguf.ErrTruncated), 3, "fetch the file again: it is incomplete"},
		{model(acquire.NoFile, gguf.ErrNotGGUF), 3, "give the path of a GGUF file"},
		{model(acquire.NoFile, gguf.ErrEmpty), 3, "fetch the file again: it is empty"},
		{model(acquire.NoFile, gguf.ErrCorrupt), 3, "fetch the file again: it is damaged"},
		{model(acquire.NoFile, gguf.ErrUnsupported), 3, "use another file of the model: this one exceeds the library's limits"},
		{model(acquire.NoFile, gguf.ErrBigEndian), 3, "convert it with gguf-convert-endian, of Python's package gguf"},
		{model(acquire.NoFile, gguf.ErrUnknownType), 3, "use a file of another quantisation, or a newer llama.cpp"},
		{model(acquire.NoFile, gguf.ErrNotFirst), 3, "give the first file, whose name has -00001-of-"},
		{model(acquire.NoFile, gguf.ErrAdapter), 3, "give the model that it adapts"},
		{model(acquire.NotChosen, &fetch.ChoiceError{Repository: source.Repository{Name: "u/r", Quant: "F16"}, Quants: []string{"Q8_0", "Q4_0"}}), 3, "give one of them: -hf u/r:Q8_0"},
		{model(acquire.NotChosen, &fetch.ChoiceError{}), 3, "choose a repository of GGUF files; the names of many end in -GGUF"},
		{model(acquire.NotChosen, fetch.ErrRefused), 3, "set HF_TOKEN to a token that may read the file"},
		{model(acquire.NotChosen, fetch.ErrOffline), 3, "unset HF_HUB_OFFLINE, or give the path of a file"},
		{model(acquire.NotChosen, fetch.ErrNotFound), 3, "check the repository and the revision"},
		{model(acquire.NotChosen, fetch.ErrUnavailable), 3, "check the network and the proxy, or give the path of a file"},
		{model(acquire.NotFetched, gguf.ErrProjector), 3, "give the language model that it belongs to"},
		{model(acquire.NotFetched, gguf.ErrCorrupt), 3, "give the address of another file: this one is incomplete or damaged"},
		{model(acquire.NoShape, gguf.ErrEncoderDecoder), 3, "use a model that has only a decoder"},
		{&noRecordError{err: errors.New("pp1024 of m: " + gguf.TooLong(1024, 512).Error()), status: result.Unsupported}, 3, "raise -ub and -b to the longest prompt, for example -ub 4096 -b 4096"}, // as a run says it
		{&noRecordError{err: errors.New("tg8 of m: " + gguf.ErrEncoder.Error()), status: result.Unsupported}, 3, "measure prompts only: -n 0"},
		{&noRecordError{err: errors.New(`m not loaded: m: tensor override "blk": no device "GPU9"; the devices are: CPU`), loading: true, status: result.Failed}, 3, "benchmark-llm devices lists the devices"},
		{&noRecordError{err: errors.New("m not loaded: " + bench.ErrDeviceLost.Error() + ": device lost on Vulkan0"), loading: true, status: result.Crashed}, 1, "dmesg says why the driver lost it; --device none measures the CPU; see each step with --log-level debug"},
		{&noRecordError{err: errors.New("tg8 of m: the worker crashed: vk::Queue::submit: ErrorDeviceLost"), status: result.Crashed}, 1, "dmesg says why the driver lost it; --device none measures the CPU; see each step with --log-level debug"},
		{model(acquire.NoFile, fs.ErrPermission), 3, "get permission for the path, or give the path of a GGUF file"},
		{model(acquire.NoFile, syscall.EMFILE), 3, "raise the limit on open files (ulimit -n)"},
		{model(acquire.NotFetched, plain), 3, "run the same command again to resume the download, or use --weights synthetic"},
		{model(acquire.NotFetched, fetch.ErrRefused), 3, "set HF_TOKEN to a token that may read the file"},
		{model(acquire.NotFetched, fetch.ErrOffline), 3, "unset HF_HUB_OFFLINE, or use --weights synthetic, which needs no file"},
		{model(acquire.NotFetched, fetch.ErrNoDisk), 3, "free disk space, or choose another place with --models-dir, or use --weights synthetic"},
		{model(acquire.NotFetched, fetch.ErrReserve), 3, "free disk space, leave less free with --disk-reserve, or choose another place with --models-dir, or use --weights synthetic"},
		{model(acquire.NotFetched, &fetch.HostError{Host: "h", Err: plain}), 3, "check the network and the proxy, or use --weights auto or --weights synthetic"},
		{model(acquire.NotFetched, fetch.ErrEncoded), 3, "download the file with another program and give its path"},
		{model(acquire.NotFetched, fs.ErrPermission), 3, "get permission for the path, or choose another place with --models-dir, or use --weights synthetic"},
		{model(acquire.NotFetched, syscall.EROFS), 3, otherModelsDir + ", or use --weights synthetic"},
		{model(acquire.NotFetched, gguf.ErrNotGGUF), 3, sourcesHint},
		{model(acquire.NoDirectory, plain), 3, otherModelsDir},
		{model(acquire.NoDirectory, syscall.ENOSPC), 3, "free disk space, or " + otherModelsDir},
		{model(acquire.UnknownModel, plain), 3, "benchmark-llm models lists the names"},
		{model(acquire.NoTensor, plain), 3, "check the pattern: names are like blk.0.ffn_down_exps.weight"},
		{model(acquire.NoShape, plain), 3, "use --weights file"},
		{model(acquire.OtherFile, plain), 3, "put the file back, or start a new run"},
		{model(acquire.NoSource, plain), 3, "start a new run; downloaded files are reused"},
	} {
		f, ok := lookup(fmt.Errorf("around: %w", tt.err))
		if !ok || f.code != tt.code || f.hint != tt.hint {
			t.Errorf("%v: code %d, hint %q; want %d, %q", tt.err, f.code, f.hint, tt.code, tt.hint)
		}
		for i, r := range rules {
			if r.is(tt.err) {
				covered[i] = true
				break
			}
		}
	}
	for i := range rules {
		if !covered[i] {
			t.Errorf("no case reaches rule %d, with code %d", i, rules[i].code)
		}
	}
	if f, ok := lookup(plain); ok {
		t.Errorf("an error of no rule got code %d", f.code)
	}
}

// The cause of an error of the file system decides what to do, whatever the place.
func TestCauseHint(t *testing.T) {
	const other = "choose another place"
	for cause, want := range map[error]string{
		syscall.ENOSPC:       "free disk space, or " + other,
		fetch.ErrNoDisk:      "free disk space, or " + other,
		syscall.EDQUOT:       "free some of your disk quota, or " + other,
		syscall.EFBIG:        "raise the limit on the size of files (ulimit -f), or " + other,
		syscall.EMFILE:       "raise the limit on open files (ulimit -n)",
		syscall.ENFILE:       "close files: the machine has too many open",
		syscall.EROFS:        other,
		syscall.ENOTDIR:      "give a path below a directory, not below a file, or " + other,
		syscall.EISDIR:       "give the path of a file, not of a directory",
		syscall.ENAMETOOLONG: "give a shorter path",
		syscall.ELOOP:        "give a path without a loop of links",
		syscall.EIO:          "check the disk, or " + other,
		syscall.EACCES:       "get permission for the path, or " + other,
		syscall.EPERM:        "get permission for the path, or " + other,
		syscall.ENOENT:       other,
	} {
		if got := causeHint(&fs.PathError{Op: "open", Path: "x", Err: cause}, other); got != want {
			t.Errorf("%v: %q, want %q", cause, got, want)
		}
	}
	if got := causeHint(syscall.ENOSPC, ""); got != "free disk space" {
		t.Errorf("without another place: %q", got)
	}
}
