package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/host"
	"github.com/sparecores/benchmark-llm/bench/llamacpp"
)

func newDevicesCommand(global *globalOptions) *cobra.Command {
	var rpc rpcFlag
	cmd := &cobra.Command{
		Use:   "devices",
		Short: "List the devices that llama.cpp can compute on",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			level, err := global.level()
			if err != nil {
				return err
			}
			found, err := findDevices(cmd.Context(), level, rpc)
			if err != nil {
				return libraryFailure(err)
			}
			if found.gpus.unused != "" {
				slog.Warn(gpuUnused, "reason", found.gpus.unused)
			}
			if found.withoutCUDA != "" {
				slog.Info("the CUDA back-end has no device", "reason", found.withoutCUDA)
			}
			found.gpus.warn()
			return printTable(cmd.OutOrStdout(), table.Row{"device", "type", "back-end", "free", "total", "description"}, found.rows(), "free", "total")
		},
	}
	cmd.Flags().Var(&rpc, "rpc", rpcUsage)
	return cmd
}

// kernelWords tell a person how a device gets its kernels.
var kernelWords = map[string]string{
	nativeKernels: "native kernels",
	ptxKernels:    "kernels compiled by its driver at first use (PTX)",
}

// libraryLevel is the least level of the library's log to show: what it says at
// info level is detail here.
func libraryLevel(level slog.Level) slog.Level {
	if level == slog.LevelInfo {
		return slog.LevelWarn
	}
	return level
}

func bytesOrUnknown(n uint64) string {
	if n == 0 {
		return "?"
	}
	return humanize.IBytes(n)
}

// libraryFailure is a failure to start the engine. That of a worker comes as
// text.
func libraryFailure(err error) error {
	is := func(e error) bool { return errors.Is(err, e) || strings.Contains(err.Error(), e.Error()) }
	switch {
	case is(llamacpp.ErrNoLibrary):
		return fail(exitLibrary, err, "build it with `make build`, which gets the library")
	case is(llamacpp.ErrRPC):
		return fail(exitLibrary, err, "run ggml-rpc-server of the same llama.cpp there, for this program alone")
	case is(llamacpp.ErrDevices):
		return fail(exitUsage, err, "benchmark-llm devices lists the devices; the CPU is none of those to offload to")
	case is(llamacpp.ErrNoDevice):
		return fail(exitLibrary, err, "benchmark-llm devices lists the devices")
	case is(llamacpp.ErrNoRPC):
		return fail(exitLibrary, err, "install libggml0-backend-rpc, or leave --rpc out")
	case is(llamacpp.ErrNoCUDA):
		return fail(exitLibrary, err, "`make cuda build` gets the CUDA back-end, which needs NVIDIA's driver; --allow-cpu accepts the CPU")
	default:
		return fail(exitLibrary, err, "`make deps` gets the library and its back-ends")
	}
}

// gpuUnused is what a person is told of a GPU that the engine cannot use.
const gpuUnused = "a GPU is there and cannot be used"

// foundDevices are the devices of this machine, and of RPC servers.
type foundDevices struct {
	devices []llamacpp.Device
	gpus    gpuVerdict // what they mean for the machine's GPUs

	withoutCUDA string // why the CUDA back-end has no device, where none is there for it; empty: it has one, or is not installed
}

// findDevices lists the devices, and judges the machine's GPUs by them. Where
// there are any, a worker opens them first, for it might be lost.
func findDevices(ctx context.Context, level slog.Level, rpc []string) (f foundDevices, err error) {
	facts := host.Collect("/")
	if here := gpuFactsHere(facts); here.present() {
		workers, err := workersOf(level)
		if err != nil {
			return f, err
		}
		_, opened, verdict, err := here.look(ctx, bench.Job{AllowCPU: true}, workers)
		if err != nil {
			return f, err
		}
		f.gpus = verdict
		if opened != "" {
			if err := os.Setenv(visibleCUDA, opened); err != nil {
				return f, err
			}
		}
	}
	var engine bench.EngineFacts
	f.devices, engine, err = llamacpp.Devices(llamacpp.Options{Log: slog.Default().Handler(), LogLevel: libraryLevel(level), AllowCPU: true, RPC: rpc})
	if f.gpus.unused == "" {
		f.withoutCUDA = engine.WithoutCUDA()
	}
	return f, err
}

// kernels is how a device gets its kernels; empty where that is not known.
func (f *foundDevices) kernels(d llamacpp.Device) string {
	return f.gpus.kernels[strings.ToLower(d.ID)]
}

// rows are the devices for a person.
func (f *foundDevices) rows() (rows []table.Row) {
	for _, d := range f.devices {
		if how := f.kernels(d); how != "" {
			d.Description += ", " + kernelWords[how]
		}
		rows = append(rows, table.Row{
			oneLine(d.Name), d.Type, oneLine(d.Backend),
			bytesOrUnknown(d.MemoryFreeBytes), bytesOrUnknown(d.MemoryTotalBytes), oneLine(d.Description),
		})
	}
	return rows
}

// plannedDevice is a device that a model may be put on.
type plannedDevice struct {
	Name      string `json:"name"`
	Type      string `json:"type"`
	FreeBytes uint64 `json:"free_bytes,omitempty"`
	Kernels   string `json:"kernels,omitempty"` // of a CUDA device: "native", or "ptx", compiled by its driver at first use
}

// plan is the devices for a plan, and the free memory of all GPUs with memory of
// their own together: nil without one that says, or that can be used.
func (f *foundDevices) plan() (devices []plannedDevice, gpu *uint64) {
	for _, d := range f.devices {
		devices = append(devices, plannedDevice{d.Name, string(d.Type), d.MemoryFreeBytes, f.kernels(d)})
		if string(d.Type) == "gpu" && d.MemoryTotalBytes > 0 && f.gpus.unused == "" && !slices.Contains(f.gpus.left, d.Name) {
			if gpu == nil {
				gpu = new(uint64)
			}
			*gpu += d.MemoryFreeBytes
		}
	}
	return devices, gpu
}
