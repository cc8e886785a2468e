package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/commandline"
	"github.com/sparecores/benchmark-llm/bench/sweep"
)

// A flag that is given twice with different values is refused by its name, unless its
// values add up. This holds for every flag of every command, and for llama-bench's
// short names.
func TestFlagsGivenTwice(t *testing.T) {
	texts := map[string][2]string{ // by type; others take any text
		"bool": {"true", "false"}, "int": {"1", "2"}, "uint64": {"1", "2"}, "float64": {"1", "2"}, "duration": {"1s", "2s"},
		"devices": {"CUDA0", "CUDA1"}, "shares": {"1/2", "2/1"}, "overrides": {"a=CPU", "b=CPU"}, "type": {"f16", "q8_0"}, "size": {"1GiB", "2GiB"},
		"tokens": {"16", "32"}, "pp,tg": {"16,1", "32,1"}, "models": {"a.gguf", "b.gguf"}, "servers": {"h:1", "h:2"}, "intSlice": {"0", "1"},
		"names": {"machine", "n_threads"}, "share": {"1%", "0.02"},
		"number": {"1", "2"}, "layers": {"1", "2"}, "index": {"1", "2"}, "level": {"1", "2"}, "MiB": {"1", "2"},
		"split-mode": {"layer", "none"}, "load-mode": {"none", "mmap"}, "lazy-mode": {"on", "off"}, "flash-attn": {"on", "off"}, "older-than": {"30d", "12h"}, // by name
		"price": {"0.5/h", "0.6/h"}, "power-price": {"0.3/kWh", "0.4/kWh"},
	}
	adding := []string{"model", "model-urls", "n-prompt", "n-gen", "n-depth", "pg", "e2e", "rpc", "cpus", "across", "type"}
	lists := sweep.New(bench.Settings{}).Flags() // where they take lists
	short := map[string]string{}
	for s, long := range commandline.Short {
		short[strings.TrimPrefix(long, "--")] = s
	}
	var check func(path []string)
	checked := 0
	check = func(path []string) {
		find := func() *cobra.Command {
			c, _, err := newRootCommand().Find(path)
			if err != nil {
				t.Fatal(err)
			}
			c.InheritedFlags() // merges them
			return c
		}
		c := find()
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Name == "help" {
				return
			}
			two, ok := texts[f.Value.Type()]
			if own, named := texts[f.Name]; named {
				two, ok = own, true
			}
			if !ok {
				two = [2]string{"a", "b"}
			}
			names := []string{"--" + f.Name}
			if s := short[f.Name]; s != "" {
				names = append(names, s)
			}
			for _, name := range names {
				args, _ := commandline.FromLlamaBench([]string{name})
				long := args[0]
				for _, second := range two {
					err := find().ParseFlags([]string{long + "=" + two[0], long + "=" + second})
					adds := slices.Contains(adding, f.Name) || slices.Contains(lists, f.Name) && f.Value.Type() != "int"
					refused := second != two[0] && !adds || second == two[0] && f.Name == "rpc" // no server twice
					if refused != (err != nil) || refused && !strings.Contains(err.Error(), "--"+f.Name) {
						t.Errorf("%v %s=%s %s=%s: %v", path, name, two[0], name, second, err)
					}
					checked++
				}
			}
		})
		for _, sub := range c.Commands() {
			check(append(slices.Clone(path), sub.Name()))
		}
	}
	check(nil)
	if checked < 200 {
		t.Errorf("only %d checks", checked)
	}
}
