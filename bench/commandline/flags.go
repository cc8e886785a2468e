package commandline

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sparecores/benchmark-llm/bench/source"
)

// Mistake is a mistake of the user on the command line.
type Mistake struct {
	Err  error
	Hint string // a command or an action, without a full stop
}

func (m *Mistake) Error() string { return m.Err.Error() }

// Unwrap returns what is wrong.
func (m *Mistake) Unwrap() error { return m.Err }

func mistake(hint, format string, args ...any) error {
	return &Mistake{fmt.Errorf(format, args...), hint}
}

// FlagsOf returns the flags of a set, in its order.
func FlagsOf(f *pflag.FlagSet) (flags []*pflag.Flag) {
	f.VisitAll(func(flag *pflag.Flag) { flags = append(flags, flag) })
	return flags
}

// EveryCommand returns a command and all below it.
func EveryCommand(c *cobra.Command) []*cobra.Command {
	all := []*cobra.Command{c}
	for _, sub := range c.Commands() {
		all = append(all, EveryCommand(sub)...)
	}
	return all
}

// FlagNames returns the names of all flags of a command.
func FlagNames(c *cobra.Command) (names []string) {
	for _, f := range slices.Concat(FlagsOf(c.Flags()), FlagsOf(c.InheritedFlags())) {
		names = append(names, f.Name)
	}
	return names
}

// Prepare gives a root command its arguments, with llama-bench's flags under their long
// names. It refuses long flags with one dash.
func Prepare(root *cobra.Command, args []string) error {
	if n := len(args); n > 1 && strings.HasPrefix(args[0], cobra.ShellCompRequestCmd) { // from a shell, with an unfinished word
		done, _ := FromLlamaBench(args[1 : n-1])
		root.SetArgs(slices.Concat(args[:1], done, args[n-1:]))
		return nil
	}
	root.SetArgs(args)
	args, env, hub := Hub(args)
	for name, value := range env {
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	args, notes := FromLlamaBench(args)
	notes = append(hub, notes...)
	command, _, err := root.Find(args)
	if err != nil {
		return err
	}
	if word, near := OneDash(args, FlagNames(command)); word != "" {
		return mistake(DidYouMean(near), "unknown flag: %s", word)
	}
	root.SetArgs(SpreadModels(args))
	before := root.PersistentPreRunE // it sets the log
	root.PersistentPreRunE = func(c *cobra.Command, args []string) error {
		err := before(c, args)
		for _, n := range notes {
			slog.Info("flag of llama-bench replaced", "given", n.Given, "as", n.As)
		}
		return err
	}
	return nil
}

// checked is the value of a flag that refuses blanks, as an unset variable gives, and a
// flag in the place of its value. Unless its uses add up, it also refuses a second use with
// another value: the last would silently win.
type checked struct {
	pflag.Value
	given bool
}

var (
	errBlank = errors.New("the value is empty")
	errNext  = errors.New("the value is missing: the next word is")
	errTwice = errors.New("given twice")
)

func (v *checked) Set(text string) error {
	switch {
	case strings.TrimSpace(text) == "":
		return errBlank
	case LooksLikeFlag(text):
		return fmt.Errorf("%w %s", errNext, text)
	}
	before := v.String()
	if err := v.Value.Set(text); err != nil {
		return err
	}
	if now := v.String(); v.given && now != before && !adds(v.Value) {
		return fmt.Errorf("%w, as %q and %q", errTwice, before, now)
	}
	v.given = true
	return nil
}

// CheckValues makes all flags of all commands refuse blanks and second values.
func CheckValues(root *cobra.Command) {
	for _, c := range EveryCommand(root) {
		for _, f := range slices.Concat(FlagsOf(c.Flags()), FlagsOf(c.PersistentFlags())) {
			if _, done := f.Value.(*checked); !done {
				f.Value = &checked{Value: f.Value}
			}
		}
	}
}

// FlagError words an error of the flag parser like this program's own checks. It is for
// cobra.Command.SetFlagErrorFunc.
func FlagError(c *cobra.Command, err error) error {
	var invalid *pflag.InvalidValueError
	var missing *pflag.ValueRequiredError
	var unknown *pflag.NotExistError
	switch {
	case errors.As(err, &invalid):
		return valueFailure(invalid)
	case errors.As(err, &missing):
		_, what := pflag.UnquoteUsage(missing.GetFlag())
		return mistake(what, "--%s: the value is missing", missing.GetFlag().Name)
	case errors.As(err, &unknown):
		return unknownFlag(c, unknown)
	}
	return mistake(c.CommandPath()+" --help", "%w", err)
}

// valueFailure is the error for a value that a flag refuses: the flag, then what is
// wrong.
func valueFailure(invalid *pflag.InvalidValueError) error {
	flag, value, cause := invalid.GetFlag(), invalid.GetValue(), invalid.Unwrap()
	name, typ := "--"+flag.Name, flag.Value.Type()
	_, hint := pflag.UnquoteUsage(flag)
	var number *strconv.NumError
	var unknown unknownValue
	if errors.As(cause, &unknown) {
		word, allowed := unknown.Unknown()
		return OneOf(name, word, allowed)
	}
	if errors.As(cause, &number) {
		cause = number.Err
	}
	switch {
	case errors.Is(cause, errTwice):
		return mistake("give it once", "%s: %w", name, cause)
	case errors.Is(cause, errBlank), errors.Is(cause, errNext):
		return mistake("leave "+name+" out, or check that the variable with its value is set", "%s: %w", name, cause)
	case slices.Contains([]string{"int", "uint64", "float64"}, typ) && IsList(value, nil):
		return oneValue(name, value)
	case errors.Is(cause, strconv.ErrRange):
		return mistake(hint, "%s: %q is too large", name, value)
	case typ == "int", typ == "uint64", typ == "intSlice":
		return mistake(hint, "%s: %q is not a whole number", name, value)
	case typ == "float64":
		return mistake(hint, "%s: %q is not a number", name, value)
	case typ == "bool":
		return mistake(hint, "%s: %q is neither 1 nor 0", name, value)
	case typ == "duration":
		return mistake(hint, "%s: %q is not a time such as 90s or 5m", name, value)
	}
	return mistake(hint, "%s: %w", name, cause)
}

// oneValue refuses a list for a flag that llama-bench takes lists for.
func oneValue(flag, value string) error {
	return mistake("start one run for each value of "+flag, "%s: %s are several values; this version takes one at a time", flag, value)
}

// unknownFlag is the error for a flag that a command does not have: of llama-bench, of
// another command, or misspelt.
func unknownFlag(c *cobra.Command, unknown *pflag.NotExistError) error {
	name, given := unknown.GetSpecifiedName(), "--"+unknown.GetSpecifiedName()
	if unknown.GetSpecifiedShortnames() != "" {
		given = "-" + name
	}
	if foreign, ok := Foreign(given); ok {
		return mistake(foreign.Instead, "%w", foreign)
	}
	for _, other := range append(EveryCommand(c.Root())[1:], c.Root()) { // the root also has the flags of one command below it
		flag := other.Flags().Lookup(name)
		if "-"+name == given {
			flag = other.Flags().ShorthandLookup(name)
		}
		if flag != nil && other != c && !other.Hidden {
			return mistake("leave it out; "+other.CommandPath()+" has it", "%s has no flag %s", c.CommandPath(), given)
		}
	}
	hint := c.CommandPath() + " --help"
	if near := Near(name, FlagNames(c)); len(near) > 0 {
		hint = DidYouMean(Dashed(near))
	}
	return mistake(hint, "unknown flag: %s", given)
}

// NoArguments refuses words that are neither flag nor command, with a suggestion.
func NoArguments(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := c.CommandPath() + " --help"
	if source.Explicit(args[0]) && c.Flags().Lookup("model") != nil {
		hint = "did you mean -m " + args[0] + "?"
	} else if near := Near(args[0], CommandNames(c)); len(near) > 0 {
		hint = DidYouMean(near)
	}
	return mistake(hint, "unknown command %q", args[0])
}

// CommandNames returns the names of the commands below c, or of the root if there are
// none.
func CommandNames(c *cobra.Command) (names []string) {
	if !c.HasAvailableSubCommands() {
		c = c.Root()
	}
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
		}
	}
	return names
}

// OneOf refuses a flag's value that is not one of allowed.
func OneOf(flag, value string, allowed []string) error {
	switch near := Near(value, allowed); {
	case slices.Contains(allowed, value):
		return nil
	case IsList(value, allowed):
		return oneValue(flag, value)
	case len(near) > 0:
		return mistake(DidYouMean(near)+" The values are "+strings.Join(allowed, ", "), "%s: unknown value %q", flag, value)
	}
	return mistake("use one of "+strings.Join(allowed, ", "), "%s: unknown value %q", flag, value)
}
