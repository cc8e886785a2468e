package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sparecores/benchmark-llm/bench/commandline"
	"github.com/sparecores/benchmark-llm/bench/llamacpp"
)

func newVersionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the versions of llama.cpp and benchmark-llm",
		Args:  noArguments,
		RunE:  func(cmd *cobra.Command, _ []string) error { return printVersion(cmd.OutOrStdout()) },
	}
}

// printVersion prints one line that begins with the library's version and build. It
// is the same with and without a GPU.
func printVersion(w io.Writer) error {
	_, err := fmt.Fprintln(w, versionLine())
	return printed(err)
}

// onlyVersion prints the version, unless a flag of run is given too: llama-bench's -v
// asks for more log.
func onlyVersion(root *cobra.Command) error {
	for _, f := range flagsOf(root.Flags()) {
		if f.Changed && len(f.Annotations[commandline.GroupOf]) > 0 {
			return usage("use --log-level debug if you meant llama-bench's -v", "--version (-v): cannot be given together with --%s", f.Name)
		}
	}
	return printVersion(root.OutOrStdout())
}

// versionLine is "llama.cpp 0.7.0 (Debian 11669), benchmark-llm v1.0.0". The
// parentheses are missing if the build is unknown. Packages that are not the pinned
// ones follow in square brackets.
func versionLine() string {
	library, err := llamacpp.Version()
	if err != nil {
		return fmt.Sprintf("%v, benchmark-llm %s", err, version)
	}
	commit, number := llamacpp.Build()
	build := ""
	if number > 0 {
		build = fmt.Sprintf(" (%s %d)", commit, number)
	}
	return fmt.Sprintf("llama.cpp %s%s, benchmark-llm %s%s", library, build, version, libraryNote(llamacpp.Library()))
}

// libraryNote is " [newer: libllama0 1:0.8.0+dfsg-1, libggml0 0.27.0-1]" with the
// packages whose versions are known. It is empty for the pinned packages.
func libraryNote(facts map[string]string) string {
	if facts["source"] == "" || facts["source"] == "pin" {
		return ""
	}
	var packages []string
	for _, name := range []string{"libllama0", "libggml0"} {
		if facts[name] != "" {
			packages = append(packages, name+" "+facts[name])
		}
	}
	if packages == nil {
		return fmt.Sprintf(" [%s]", facts["source"])
	}
	return fmt.Sprintf(" [%s: %s]", facts["source"], strings.Join(packages, ", "))
}
