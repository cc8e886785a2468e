package commandline

import (
	"fmt"
	"slices"
	"strings"
	"text/template"
	"unicode/utf8"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// HelpColumns is the width of help. It does not depend on the terminal, because
// help is also read in pagers and issues.
const HelpColumns = 80

// GroupOf is the annotation that names the group of a flag in the help.
const GroupOf = "group"

// Groups of flags, in the order of the help.
const (
	GroupWhat     = "What to measure"
	GroupHow      = "How to measure"
	GroupWhere    = "Where it runs"
	GroupOutput   = "Output"
	GroupAdvanced = "Advanced"
)

// InGroup puts the flags that register defines into a group of the help.
func InGroup(f *pflag.FlagSet, group string, register func()) {
	before := map[string]bool{}
	f.VisitAll(func(flag *pflag.Flag) { before[flag.Name] = true })
	register()
	f.VisitAll(func(flag *pflag.Flag) {
		if !before[flag.Name] {
			flag.Annotations = map[string][]string{GroupOf: {group}}
		}
	})
}

// flagGroups are the flags of a command in their groups. Flags without a group come
// first.
func flagGroups(f *pflag.FlagSet) string {
	titles := []string{"Flags", GroupWhat, GroupHow, GroupWhere, GroupOutput, GroupAdvanced}
	flags := map[string][]*pflag.Flag{}
	f.VisitAll(func(flag *pflag.Flag) {
		if flag.Hidden {
			return
		}
		title := titles[0]
		if group := flag.Annotations[GroupOf]; len(group) > 0 {
			title = group[0]
		}
		flags[title] = append(flags[title], flag)
	})
	var groups []string
	for _, title := range titles {
		if len(flags[title]) > 0 {
			groups = append(groups, title+":\n"+FlagLines(flags[title]))
		}
	}
	return strings.Join(groups, "\n\n")
}

// textColumn is the column in which the texts of flags begin. If a flag's name is
// too long, its text begins on the next line.
const textColumn = 28

// FlagLines are the names, placeholders and texts of flags.
func FlagLines(flags []*pflag.Flag) string {
	var lines []string
	for _, flag := range flags {
		placeholder, usage := pflag.UnquoteUsage(flag)
		name := "      --" + flag.Name
		if flag.Shorthand != "" {
			name = "  -" + flag.Shorthand + ", --" + flag.Name
		}
		if placeholder != "" {
			name += " " + placeholder
		}
		if !slices.Contains([]string{"", "0", "0s", "false", "[]"}, flag.DefValue) {
			usage += fmt.Sprintf(" (default %s)", strings.TrimSuffix(flag.DefValue, "0s"))
		}
		texts := strings.Split(text.WrapSoft(usage, HelpColumns-textColumn), "\n")
		if utf8.RuneCountInString(name) > textColumn-2 {
			lines = append(lines, name)
			name = ""
		}
		for _, line := range texts {
			lines = append(lines, fmt.Sprintf("%-*s%s", textColumn, name, strings.TrimRight(line, " ")))
			name = ""
		}
	}
	return strings.Join(lines, "\n")
}

// usageTemplate is cobra's, with flags in groups. The root has the flags of run too,
// but shows only its own.
const usageTemplate = `Usage:{{if .Runnable}}
  {{.UseLine}}{{end}}{{if .HasAvailableSubCommands}}
  {{.CommandPath}} [command]{{end}}{{if .HasExample}}

Examples:
{{.Example}}{{end}}{{if .HasAvailableSubCommands}}

Commands:{{range .Commands}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}{{if not .HasParent}}

Flags:
{{flagLines (rootFlags .)}}

"{{.CommandPath}} run --help" shows the flags of a run.{{else}}{{if .HasAvailableLocalFlags}}

{{flagGroups .LocalFlags}}{{end}}{{if .HasAvailableInheritedFlags}}

Global flags:
{{flagLines (flagsOf .InheritedFlags)}}{{end}}{{end}}{{if .HasAvailableSubCommands}}

"{{.CommandPath}} [command] --help" shows more about a command.{{end}}
`

// RootFlags are the flags that the root shows: those without a group.
func RootFlags(root *cobra.Command) (shown []*pflag.Flag) {
	for _, flag := range slices.Concat(FlagsOf(root.LocalNonPersistentFlags()), FlagsOf(root.PersistentFlags())) {
		if len(flag.Annotations[GroupOf]) == 0 {
			shown = append(shown, flag)
		}
	}
	return shown
}

// wrapped wraps each paragraph of a text to the width of the help. A paragraph with
// an indented line stays as it is.
func wrapped(long string) string {
	paragraphs := strings.Split(long, "\n\n")
	for i, p := range paragraphs {
		if !strings.Contains(p, "\n ") {
			lines := strings.Split(text.WrapSoft(strings.Join(strings.Fields(p), " "), HelpColumns), "\n")
			for k := range lines {
				lines[k] = strings.TrimRight(lines[k], " ")
			}
			paragraphs[i] = strings.Join(lines, "\n")
		}
	}
	return strings.Join(paragraphs, "\n\n")
}

// NewHelpCommand is cobra's, with an error for what is no command.
func NewHelpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [command]",
		Short: "Show the help of a command",
		ValidArgsFunction: func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			of, rest, err := c.Root().Find(args)
			if err != nil || len(rest) > 0 || !of.HasAvailableSubCommands() {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return CommandNames(of), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, args []string) error {
			of, rest, err := c.Root().Find(args)
			if err != nil {
				return err
			}
			if err := NoArguments(of, rest); err != nil {
				return err
			}
			of.InitDefaultHelpFlag()
			return of.Help()
		},
	}
}

// SetHelp sets the layout of the help of all commands.
func SetHelp(root *cobra.Command) {
	for _, c := range EveryCommand(root) {
		c.Long = wrapped(c.Long)
	}
	cobra.AddTemplateFuncs(template.FuncMap{"flagGroups": flagGroups, "flagLines": FlagLines, "flagsOf": FlagsOf, "rootFlags": RootFlags})
	root.SetUsageTemplate(usageTemplate)
}
