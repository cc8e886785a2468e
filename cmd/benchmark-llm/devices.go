package main

import (
	"errors"
	"log/slog"

	"github.com/dustin/go-humanize"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/sparecores/benchmark-llm/bench/llamacpp"
)

func newDevicesCommand(global *globalOptions) *cobra.Command {
	return &cobra.Command{
		Use:   "devices",
		Short: "List the devices that llama.cpp can compute on",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			level, err := global.level()
			if err != nil {
				return err
			}
			devices, err := llamacpp.Devices(llamacpp.Options{Log: slog.Default().Handler(), LogLevel: libraryLevel(level), AllowCPU: true})
			if err != nil {
				return libraryFailure(err)
			}
			t := table.NewWriter()
			t.SetOutputMirror(cmd.OutOrStdout())
			t.SetStyle(plainTable())
			t.AppendHeader(table.Row{"device", "type", "back-end", "free", "total", "description"})
			for _, d := range devices {
				t.AppendRow(table.Row{d.Name, d.Type, d.Backend, bytesOrUnknown(d.MemoryFreeBytes), bytesOrUnknown(d.MemoryTotalBytes), d.Description})
			}
			t.Render()
			return nil
		},
	}
}

// libraryLevel is the least level of the library's log to show: what it says at
// info level is detail here.
func libraryLevel(level slog.Level) slog.Level {
	if level == slog.LevelInfo {
		return slog.LevelWarn
	}
	return level
}

// plainTable is columns and nothing between them.
func plainTable() table.Style {
	s := table.StyleDefault
	s.Options = table.OptionsNoBordersAndSeparators
	s.Box.PaddingLeft, s.Box.PaddingRight = "", "  "
	return s
}

func bytesOrUnknown(n uint64) string {
	if n == 0 {
		return "?"
	}
	return humanize.IBytes(n)
}

// libraryFailure is a failure to start the engine.
func libraryFailure(err error) error {
	switch {
	case errors.Is(err, llamacpp.ErrNoLibrary):
		return fail(exitLibrary, err, "build it with `make build`, which gets the library")
	case errors.Is(err, llamacpp.ErrNoCUDA):
		return fail(exitLibrary, err, "install libggml0-backend-cuda and a driver, or accept the CPU with --allow-cpu")
	default:
		return fail(exitLibrary, err, "`make deps` gets the library and its back-ends")
	}
}
