package main

import (
	"context"
	"log/slog"
	"os"

	"github.com/dustin/go-humanize"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/acquire"
	"github.com/sparecores/benchmark-llm/bench/gpu"
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
				return err
			}
			if found.gpus.UnusedReason != "" {
				slog.Warn(gpuUnused, "reason", found.gpus.UnusedReason)
			}
			if found.withoutCUDA != "" {
				slog.Info("the CUDA back-end has no device", "reason", found.withoutCUDA)
			}
			warnOfDevices(found.gpus)
			return printTable(cmd.OutOrStdout(), table.Row{"device", "type", "back-end", "free", "total", "description"}, found.rows(), "free", "total")
		},
	}
	cmd.Flags().Var(&rpc, "rpc", rpcUsage)
	return cmd
}

// kernelWords tell a person how a device gets its kernels.
var kernelWords = map[string]string{
	gpu.NativeKernels: "native kernels",
	gpu.PTXKernels:    "kernels compiled by the driver at first use (PTX)",
}

// libraryLevel returns the lowest level of the library's log to show. What the
// library logs at info level is detail here.
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

// gpuUnused introduces the reason why a GPU cannot be used.
const gpuUnused = "a GPU cannot be used"

// foundDevices are the devices of this machine, and of RPC servers.
type foundDevices struct {
	devices []llamacpp.Device
	gpus    gpu.Usage // of the machine's GPUs

	withoutCUDA string // why the CUDA back-end has no device on a machine without a GPU; empty: it has one, or is not installed
}

// findDevices lists the devices and the use of the machine's GPUs. If there are
// GPUs, a worker opens them first, because doing so may end the process.
func findDevices(ctx context.Context, level slog.Level, rpc []string) (f foundDevices, err error) {
	if machine := machineGPUs(host.Collect("/")); machine.HasNVIDIA() {
		workers, err := workersOf(level)
		if err != nil {
			return f, err
		}
		answer, err := machine.Ask(ctx, probe(bench.Job{AllowCPU: true}, workers))
		if err != nil {
			return f, err
		}
		f.gpus = answer.Usage
		if answer.Visible != "" {
			if err := os.Setenv(gpu.VisibleDevices, answer.Visible); err != nil {
				return f, err
			}
		}
	}
	var engine bench.EngineFacts
	f.devices, engine, err = llamacpp.Devices(llamacpp.Options{Log: slog.Default().Handler(), LogLevel: libraryLevel(level), AllowCPU: true, RPC: rpc})
	if err != nil {
		return f, &engineError{err}
	}
	if f.gpus.UnusedReason == "" {
		f.withoutCUDA = engine.WithoutCUDA()
	}
	return f, nil
}

// rows are the table of devices for a person.
func (f *foundDevices) rows() (rows []table.Row) {
	for _, d := range f.devices {
		if how := f.gpus.KernelsOf(d.ID); how != "" {
			d.Description += ", " + kernelWords[how]
		}
		rows = append(rows, table.Row{
			oneLine(d.Name), d.Type, oneLine(d.Backend),
			bytesOrUnknown(d.MemoryFreeBytes), bytesOrUnknown(d.MemoryTotalBytes), oneLine(d.Description),
		})
	}
	return rows
}

// plan returns the devices for a plan, and the free memory in bytes of all usable
// GPUs with memory of their own together; nil if there is none that reports it.
func (f *foundDevices) plan() (devices []acquire.PlannedDevice, freeBytes *uint64) {
	for _, d := range f.devices {
		devices = append(devices, acquire.PlannedDevice{Name: d.Name, Type: string(d.Type), FreeBytes: d.MemoryFreeBytes, Kernels: f.gpus.KernelsOf(d.ID)})
		if string(d.Type) == "gpu" && d.MemoryTotalBytes > 0 && f.gpus.Usable(d.Name) {
			if freeBytes == nil {
				freeBytes = new(uint64)
			}
			*freeBytes += d.MemoryFreeBytes
		}
	}
	return devices, freeBytes
}
