package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/host"
	"github.com/sparecores/benchmark-llm/bench/suite"
	"github.com/sparecores/benchmark-llm/bench/sweep"
)

// sweepOptions are the flags of settings, of which several values may be given. run and
// plan have them.
type sweepOptions struct {
	parameters *sweep.Parameters
	yes        bool
	numa       string
	set        *pflag.FlagSet
}

func (o *sweepOptions) register(f *pflag.FlagSet) {
	o.set, o.parameters = f, sweep.New(bench.DefaultSettings(0))
	flag := func(name, short, usage string) {
		l := o.parameters.List(name)
		if added := f.VarPF(l, name, short, usage); l.IsBoolFlag() {
			added.NoOptDefVal = "1"
		}
	}
	inGroup(f, groupHow, func() {
		flag("batch-size", "b", "logical batch size in `tokens`: the maximum of one decode")
		flag("ubatch-size", "", "physical batch size in `tokens`: the maximum of one computation")
		flag("cache-type-k", "", "`type` of the K cache: "+strings.Join(bench.KVTypes, ", "))
		flag("cache-type-v", "", "`type` of the V cache: the same values")
		flag("flash-attn", "", "flash attention `mode`: "+strings.Join(bench.FlashModes, ", "))
		flag("load-mode", "", "load `mode` of model files: "+strings.Join(bench.LoadModes, ", "))
		f.BoolVar(&o.yes, "yes", false, fmt.Sprintf("measure more than %s combinations of settings and lengths", humanize.Comma(sweep.MaxCells)))
	})
	inGroup(f, groupWhere, func() {
		flag("threads", "t", "`number` of CPU threads (default: allowed physical cores, here "+fmt.Sprint(host.DefaultThreads())+")")
		flag("threads-batch", "", "`number` of CPU threads that compute prompts (default: --threads)")
		flag("n-gpu-layers", "", "`layers` to offload; -1: as many as fit beside the longest test's context")
		flag("device", "", "`devices` to offload to, as benchmark-llm devices names them: CUDA0/CUDA1, or none (default: all)")
		flag("split-mode", "", "split `mode` across GPUs: "+strings.Join(bench.SplitModes, ", "))
		flag("tensor-split", "", "`shares` of the model for each device, as 3/1 (default: by free memory)")
		flag("main-gpu", "", "`index` of the device for split mode none (default 0)")
	})
	inGroup(f, groupAdvanced, func() {
		flag("n-cpu-moe", "", "`layers` whose experts stay on the CPU (default 0)")
		flag("override-tensor", "", "`overrides` of tensors' memory, as exps=CPU;output=CPU")
		flag("fit-target", "", "memory in `MiB` that stays free on each device (default 0)")
		flag("fit-ctx", "", "smallest context in `tokens` that layers on devices leave room for (default 0)")
		flag("no-kv-offload", "", "keep the KV cache in host memory")
		flag("no-op-offload", "", "do not send operations on host tensors to a device")
		flag("no-host", "", "do not use the devices' pinned host memory")
		flag("no-repack", "", "do not repack weights for the CPU")
		flag("lazy-mode", "", "`mode` of reading tensors on demand: "+strings.Join(bench.LazyModes, ", "))
		flag("embeddings", "", "compute embeddings, too")
		flag("cpu-mask", "C", "`mask` of the logical CPUs to run on, as 0x3 (default: no affinity)")
		flag("cpu-strict", "", "pin each thread to one CPU of --cpus or --cpu-mask")
		f.StringVar(&o.numa, "numa", "", "`mode` of spreading memory over NUMA nodes: "+strings.Join(bench.NUMAModes, ", ")+" (default: none)")
		flag("poll", "", "polling `level` of waiting threads, 0…100")
	})
}

// apply sets the settings that have one value, and checks the others.
func (o *sweepOptions) apply(s *bench.Settings) error {
	var twice *sweep.RepeatedError
	if err := o.parameters.Apply(s); errors.As(err, &twice) {
		return usage("give it once; -r sets the number of repetitions", "%w", err)
	} else if err != nil {
		return err
	}
	if !o.set.Changed("threads") {
		s.Threads = host.DefaultThreads()
	}
	if s.NUMA = o.numa; o.numa != "" {
		if err := oneOf("--numa", o.numa, bench.NUMAModes); err != nil {
			return err
		}
		if host.NUMANodes("/") < 2 {
			return usage("leave it out: it changes nothing here", "--numa: this machine has one NUMA node")
		}
	}
	if err := o.parameters.Validate(*s); err != nil {
		return settingFailure(err)
	}
	if err := o.parameters.EachPair("device", "tensor-split", *s, checkShares); err != nil {
		return err
	}
	return o.parameters.EachValue(*s, checkMask)
}

// cells returns the cells of a run of a suite. Settings are those with one value.
func (o *sweepOptions) cells(s suite.Suite, settings bench.Settings) (sweep.Sweep, error) {
	if o.parameters.Cells() == 1 {
		return sweep.Sweep{Suite: s}, nil
	}
	cells := float64(o.parameters.Cells())
	tests := 0
	for _, m := range s.Models {
		tests += len(m.Tests)
	}
	if cells *= float64(tests); cells > sweep.MostCells || cells > sweep.MaxCells && !o.yes {
		hint := "use fewer values, or --yes to measure them all"
		if cells > sweep.MostCells {
			hint = "use fewer values: " + humanize.Comma(sweep.MostCells) + " is the limit"
		}
		return sweep.Sweep{}, usage(hint, "%s combinations of settings and lengths take at least %s, at one second each",
			humanize.Comma(int64(cells)), longTime(time.Duration(cells)*time.Second))
	}
	return sweep.Of(s, o.parameters.Combinations(settings), o.parameters.Innermost()), nil
}

// longTime is a long duration for people.
func longTime(d time.Duration) string {
	if d >= 48*time.Hour {
		return fmt.Sprintf("%.0f days", d.Hours()/24)
	}
	return d.Round(time.Minute).String()
}

// checkMask refuses CPUs of --cpu-mask that this process may not use.
func checkMask(s bench.Settings) error { return checkCPUs("--cpu-mask", s) }

// checkCPUs refuses CPUs that this process may not use.
func checkCPUs(flag string, s bench.Settings) error {
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		return fail(exitNothing, fmt.Errorf("get the CPU affinity: %w", err), "")
	}
	for _, cpu := range s.CPUs {
		if !allowed.IsSet(cpu) {
			return usage("taskset -cp $$ lists the CPUs that may be used", "%s: there is no CPU %d for this process", flag, cpu)
		}
	}
	return nil
}

// checkShares refuses shares of devices that are not one for each of the named devices.
func checkShares(s bench.Settings) error {
	named := len(s.Devices)
	if slices.Equal(s.Devices, []string{bench.NoDevice}) || named == 0 || len(s.TensorSplit) == 0 || len(s.TensorSplit) == named {
		return nil
	}
	shares := strings.Trim(strings.ReplaceAll(fmt.Sprint(s.TensorSplit), " ", "/"), "[]")
	return usage("give one share for each device", "--tensor-split: %s has %d shares for the %d of --device %s",
		shares, len(s.TensorSplit), named, strings.Join(s.Devices, "/"))
}
