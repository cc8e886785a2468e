package main

import (
	"context"
	"log/slog"
	"os"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/acquire"
	"github.com/sparecores/benchmark-llm/bench/gpu"
	"github.com/sparecores/benchmark-llm/bench/llamacpp"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/session"
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
				slog.Warn(gpu.Unused, "reason", found.gpus.UnusedReason)
			}
			session.LogBackends(found.withoutCUDA, found.named)
			session.LogDoubts(found.gpus)
			return printTable(cmd.OutOrStdout(), table.Row{"device", "type", "back-end", "free", "total", "description"}, found.rows(), "free", "total")
		},
	}
	cmd.Flags().Var(&rpc, "rpc", rpcUsage)
	return cmd
}

// engineError is an engine of this process that could not start.
type engineError struct{ error }

func (e *engineError) Unwrap() error { return e.error }

// foundDevices are the devices of this machine, and of RPC servers.
type foundDevices struct {
	devices []llamacpp.Device
	gpus    gpu.Usage // of the machine's GPUs
	named   *result.NamedBackend

	// withoutCUDA says why the CUDA back-end has no device on a machine without a GPU.
	// It is empty if the back-end has one or is not installed.
	withoutCUDA string
}

// findDevices lists the devices and how the machine's GPUs are used. A worker opens
// the GPUs first, because that may end the process.
func findDevices(ctx context.Context, level slog.Level, rpc []string) (f foundDevices, err error) {
	answer, err := session.AskGPUs(ctx, workersOf(level))
	if err != nil {
		return f, err
	}
	f.gpus = answer.Usage
	for _, variable := range answer.Env() {
		name, value, _ := strings.Cut(variable, "=")
		if err := os.Setenv(name, value); err != nil {
			return f, err
		}
	}
	var engine bench.EngineFacts
	f.devices, engine, err = llamacpp.Devices(llamacpp.Options{Log: slog.Default().Handler(), LogLevel: llamacpp.LogLevel(level), AllowCPU: true, RPC: rpc})
	if err != nil {
		return f, &engineError{err}
	}
	f.gpus.Unused, f.named = engine.Unused, engine.Named
	if f.gpus.UnusedReason == "" {
		f.withoutCUDA = engine.WithoutCUDA()
	}
	return f, nil
}

// rows are the rows of the table.
func (f *foundDevices) rows() (rows []table.Row) {
	for _, d := range f.devices {
		if how := f.gpus.KernelsOf(d.Backend, d.ID); how != "" {
			d.Description += ", " + gpu.KernelWords(how)
		}
		if why := f.gpus.WhyUnused(d.Name); why != "" {
			d.Description += ", not used: " + why
		}
		rows = append(rows, table.Row{
			oneLine(d.Name), d.Type, oneLine(d.Backend),
			acquire.BytesOrUnknown(d.MemoryFreeBytes), acquire.BytesOrUnknown(d.MemoryTotalBytes), oneLine(d.Description),
		})
	}
	return rows
}

// plan returns the devices for a plan, and the sum of the free memory, in bytes, of
// all usable GPUs with memory of their own; nil if there is no such GPU.
func (f *foundDevices) plan() (devices []acquire.PlannedDevice, freeBytes *uint64) {
	for _, d := range f.devices {
		devices = append(devices, acquire.PlannedDevice{Name: d.Name, Type: string(d.Type), FreeBytes: d.MemoryFreeBytes, Kernels: f.gpus.KernelsOf(d.Backend, d.ID), NotUsed: f.gpus.WhyUnused(d.Name)})
		if string(d.Type) == "gpu" && d.MemoryTotalBytes > 0 && f.gpus.Usable(d.Name) {
			if freeBytes == nil {
				freeBytes = new(uint64)
			}
			*freeBytes += d.MemoryFreeBytes
		}
	}
	return devices, freeBytes
}
