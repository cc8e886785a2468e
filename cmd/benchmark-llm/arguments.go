package main

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/commandline"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/source"
)

// everyCommand are a command and all below it.
func everyCommand(c *cobra.Command) []*cobra.Command {
	all := []*cobra.Command{c}
	for _, sub := range c.Commands() {
		all = append(all, everyCommand(sub)...)
	}
	return all
}

// flagNames are the names of all flags of a command.
func flagNames(c *cobra.Command) (names []string) {
	for _, f := range slices.Concat(flagsOf(c.Flags()), flagsOf(c.InheritedFlags())) {
		names = append(names, f.Name)
	}
	return names
}

// prepare gives a root command its arguments, with llama-bench's flags under their long
// names. It refuses long flags with one dash.
func prepare(root *cobra.Command, args []string) error {
	if n := len(args); n > 1 && strings.HasPrefix(args[0], cobra.ShellCompRequestCmd) { // from a shell, with an unfinished word
		done, _ := commandline.FromLlamaBench(args[1 : n-1])
		root.SetArgs(slices.Concat(args[:1], done, args[n-1:]))
		return nil
	}
	root.SetArgs(args)
	args, notes := commandline.FromLlamaBench(args)
	command, _, err := root.Find(args)
	if err != nil {
		return err
	}
	if word, near := commandline.OneDash(args, flagNames(command)); word != "" {
		return usage(commandline.DidYouMean(near), "unknown flag: %s", word)
	}
	root.SetArgs(commandline.SpreadModels(args))
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

// filled is the value of a flag that refuses blanks, as an unset variable gives, and a
// flag in the place of its value.
type filled struct{ pflag.Value }

var (
	errBlank = errors.New("the value is empty")
	errNext  = errors.New("the value is missing: the next word is")
)

func (v filled) Set(text string) error {
	switch {
	case strings.TrimSpace(text) == "":
		return errBlank
	case commandline.LooksLikeFlag(text):
		return fmt.Errorf("%w %s", errNext, text)
	}
	return v.Value.Set(text)
}

// refuseBlanks makes all flags with a value of all commands refuse blanks.
func refuseBlanks(root *cobra.Command) {
	for _, c := range everyCommand(root) {
		for _, f := range slices.Concat(flagsOf(c.Flags()), flagsOf(c.PersistentFlags())) {
			if _, done := f.Value.(filled); !done && f.NoOptDefVal == "" {
				f.Value = filled{f.Value}
			}
		}
	}
}

// flagFailure words an error of the flag parser like this program's own checks.
func flagFailure(c *cobra.Command, err error) error {
	var invalid *pflag.InvalidValueError
	var missing *pflag.ValueRequiredError
	var unknown *pflag.NotExistError
	switch {
	case errors.As(err, &invalid):
		return valueFailure(invalid)
	case errors.As(err, &missing):
		_, what := pflag.UnquoteUsage(missing.GetFlag())
		return usage(what, "--%s: the value is missing", missing.GetFlag().Name)
	case errors.As(err, &unknown):
		return unknownFlag(c, unknown)
	}
	return usage(c.CommandPath()+" --help", "%w", err)
}

// valueFailure is the error for a value that a flag refuses: the flag, then what is
// wrong.
func valueFailure(invalid *pflag.InvalidValueError) error {
	flag, value, cause := invalid.GetFlag(), invalid.GetValue(), invalid.Unwrap()
	name, typ := "--"+flag.Name, flag.Value.Type()
	_, hint := pflag.UnquoteUsage(flag)
	var number *strconv.NumError
	if errors.As(cause, &number) {
		cause = number.Err
	}
	switch {
	case errors.Is(cause, errBlank), errors.Is(cause, errNext):
		return usage("leave "+name+" out, or check that the variable with its value is set", "%s: %w", name, cause)
	case slices.Contains([]string{"int", "uint64", "float64", "bool"}, typ) && commandline.IsList(value, nil):
		return oneValue(name, value)
	case errors.Is(cause, strconv.ErrRange):
		return usage(hint, "%s: %q is too large", name, value)
	case typ == "int", typ == "uint64", typ == "intSlice":
		return usage(hint, "%s: %q is not a whole number", name, value)
	case typ == "float64":
		return usage(hint, "%s: %q is not a number", name, value)
	case typ == "bool":
		return usage(hint, "%s: %q is neither 1 nor 0", name, value)
	case typ == "duration":
		return usage(hint, "%s: %q is not a time such as 90s or 5m", name, value)
	}
	return usage(hint, "%s: %w", name, cause)
}

// oneValue refuses a list for a flag that llama-bench takes lists for.
func oneValue(flag, value string) error {
	return usage("start one run for each value of "+flag, "%s: %s are several values; this version takes one at a time", flag, value)
}

// unknownFlag is the error for a flag that a command does not have: of llama-bench, of
// another command, or misspelt.
func unknownFlag(c *cobra.Command, unknown *pflag.NotExistError) error {
	name, given := unknown.GetSpecifiedName(), "--"+unknown.GetSpecifiedName()
	if unknown.GetSpecifiedShortnames() != "" {
		given = "-" + name
	}
	for _, other := range slices.Concat([]*cobra.Command{c.Root()}, everyCommand(c.Root())) {
		flag := other.Flags().Lookup(name)
		if "-"+name == given {
			flag = other.Flags().ShorthandLookup(name)
		}
		if flag != nil && other != c && !other.Hidden && given != "-v" {
			return usage(fmt.Sprintf("leave it out; %s has it", cmdOf(other, flag)), "%s has no flag %s", c.CommandPath(), given)
		}
	}
	if foreign, ok := commandline.Foreign(given); ok {
		return usage(foreign.Instead, "%w", foreign)
	}
	hint := c.CommandPath() + " --help"
	if near := commandline.Near(name, flagNames(c)); len(near) > 0 {
		hint = commandline.DidYouMean(commandline.Dashed(near))
	}
	return usage(hint, "unknown flag: %s", given)
}

// cmdOf names the command to show for a flag: the root shows the flags of run there.
func cmdOf(c *cobra.Command, flag *pflag.Flag) string {
	if !c.HasParent() && len(flag.Annotations[groupOf]) > 0 {
		return c.CommandPath() + " run"
	}
	return c.CommandPath()
}

// noArguments refuses words that are neither flag nor command, with a suggestion.
func noArguments(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := c.CommandPath() + " --help"
	if source.Explicit(args[0]) && c.Flags().Lookup("model") != nil {
		hint = "did you mean -m " + args[0] + "?"
	} else if near := commandline.Near(args[0], commandNames(c)); len(near) > 0 {
		hint = commandline.DidYouMean(near)
	}
	return usage(hint, "unknown command %q", args[0])
}

// commandNames are the commands below c, or all if there is none.
func commandNames(c *cobra.Command) (names []string) {
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

// oneOf refuses a flag's value that is not one of allowed.
func oneOf(flag, value string, allowed []string) error {
	switch near := commandline.Near(value, allowed); {
	case slices.Contains(allowed, value):
		return nil
	case commandline.IsList(value, allowed):
		return oneValue(flag, value)
	case len(near) > 0:
		return usage(commandline.DidYouMean(near)+" The values are "+strings.Join(allowed, ", "), "%s: unknown value %q", flag, value)
	}
	return usage("use one of "+strings.Join(allowed, ", "), "%s: unknown value %q", flag, value)
}

// settingFlags are the flags of settings, and the hints for numbers out of range.
var settingFlags = map[string]struct{ flag, hint string }{
	"type_k":     {flag: "--cache-type-k"},
	"type_v":     {flag: "--cache-type-v"},
	"split_mode": {flag: "--split-mode"},
	"load_mode":  {flag: "--load-mode"},
	"flash_attn": {flag: "--flash-attn"},
	"threads":    {"--threads", ""},
	"batch":      {"--batch-size", "try 2048, llama-bench's default"},
	"ubatch":     {"--ubatch-size", "try 512, llama-bench's default"},
	"poll":       {"--poll", "try 50, llama-bench's default"},
	"priority":   {"--prio", "try 0, the normal priority"},
	"gpu_layers": {"--n-gpu-layers", "use -1 for as many as fit"},
	"cpu_moe":    {"--n-cpu-moe", "use 0 to keep no experts on the CPU"},
	"main_gpu":   {"--main-gpu", devicesHint},
}

// settingFailure names the flag of a setting that is not allowed.
func settingFailure(err error) error {
	var setting *bench.SettingError
	if !errors.As(err, &setting) {
		return err
	}
	f := settingFlags[setting.Field]
	if setting.Field == "threads" {
		f.hint = "use at most the " + result.Count(setting.Max, "CPU") + " of this process"
	}
	if setting.Allowed != nil {
		return oneOf(f.flag, fmt.Sprint(setting.Value), setting.Allowed)
	}
	return usage(f.hint, "%s: %v is outside %d…%d", f.flag, setting.Value, setting.Min, setting.Max)
}
