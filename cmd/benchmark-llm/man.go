//go:build man

package main

import (
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/sparecores/benchmark-llm/bench/commandline"
)

// `make man` builds the generator of the manual pages with a build tag, so that the
// program does not contain it.
func init() {
	moreCommands = append(moreCommands, func(root *cobra.Command) *cobra.Command {
		return &cobra.Command{
			Use:    "man DIRECTORY",
			Hidden: true,
			Args:   cobra.ExactArgs(1),
			RunE: func(_ *cobra.Command, args []string) error {
				if err := os.MkdirAll(args[0], 0o755); err != nil {
					return err
				}
				// The root's page shows its own flags only, as its help does.
				own, global := commandline.RootFlags(root), root.PersistentFlags()
				root.ResetFlags()
				for _, flag := range own {
					if global.Lookup(flag.Name) != nil {
						root.PersistentFlags().AddFlag(flag)
					} else {
						root.Flags().AddFlag(flag)
					}
				}
				run, _, err := root.Find([]string{"run"})
				if err != nil {
					return err
				}
				threads := run.Flags().Lookup("threads") // its text has the number of this machine
				threads.Usage, _, _ = strings.Cut(threads.Usage, ", here")
				threads.Usage += ")"
				root.DisableAutoGenTag = true
				return doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "benchmark-llm " + version}, args[0])
			},
		}
	})
}
