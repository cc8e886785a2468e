package main

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sparecores/benchmark-llm/bench/commandline"
)

// Every help text fits 80 columns, every flag two lines, and the flags of run and
// plan are in groups.
func TestHelp(t *testing.T) {
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		if cmd.Name() == "completion" { // cobra's own text
			return
		}
		cmd.InitDefaultHelpFlag()
		help := cmd.Long + "\n" + cmd.UsageString()
		for line := range strings.Lines(help) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > commandline.HelpColumns {
				t.Errorf("%s: a line of %d columns: %s", cmd.CommandPath(), n, line)
			}
		}
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			lines := strings.Split(commandline.FlagLines([]*pflag.Flag{f}), "\n")
			placeholder, usage := pflag.UnquoteUsage(f)
			if strings.HasSuffix(lines[0], f.Name+" "+placeholder) { // a long name has a line of its own
				lines = lines[1:]
			}
			if len(lines) > 2 {
				t.Errorf("%s: the text of --%s takes %d lines:\n%s", cmd.CommandPath(), f.Name, len(lines), strings.Join(lines, "\n"))
			}
			if grouped := len(f.Annotations[commandline.GroupOf]) > 0; !grouped && f.Name != "help" && (cmd.Name() == "run" || cmd.Name() == "plan") {
				t.Errorf("%s: --%s is in no group", cmd.CommandPath(), f.Name)
			}
			if usage == "" || strings.HasSuffix(usage, ".") {
				t.Errorf("%s: --%s says %q", cmd.CommandPath(), f.Name, usage)
			}
		})
		for _, sub := range cmd.Commands() {
			visit(sub)
		}
	}
	visit(newRootCommand())
}
