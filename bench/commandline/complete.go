package commandline

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// CompleteFile offers a shell the words and the files with one of the extensions that
// begin like a word. Directories are offered too, for the files in them.
func CompleteFile(begun string, extensions, words []string) (offered []string, directive cobra.ShellCompDirective) {
	directive = cobra.ShellCompDirectiveNoFileComp
	for _, w := range words {
		if strings.HasPrefix(w, begun) {
			offered = append(offered, w)
		}
	}
	dir, _ := filepath.Split(begun)
	entries, _ := os.ReadDir(filepath.Clean(dir)) // a directory that cannot be read offers nothing
	for _, e := range entries {
		word := dir + e.Name()
		switch info, err := os.Stat(word); {
		case err != nil || !strings.HasPrefix(word, begun):
		case info.IsDir():
			offered, directive = append(offered, word+"/"), directive|cobra.ShellCompDirectiveNoSpace
		case slices.Contains(extensions, strings.ToLower(filepath.Ext(word))) && !slices.Contains(offered, word):
			offered = append(offered, word)
		}
	}
	return offered, directive
}

// CompleteSource completes the last source of an argument of compare, to which the names
// of runs and results files belong.
func CompleteSource(begun string, runs []string) (offered []string, directive cobra.ShellCompDirective) {
	before := begun[:strings.LastIndexAny(begun, "=,")+1]
	offered, directive = CompleteFile(begun[len(before):], []string{".jsonl", ".json", ".csv"}, runs)
	for i := range offered {
		offered[i] = before + offered[i]
	}
	return offered, directive | cobra.ShellCompDirectiveKeepOrder
}
