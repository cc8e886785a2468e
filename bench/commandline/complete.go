package commandline

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// CompleteFile offers a shell the words and the files with an extension that begin like
// a word. Directories are offered too, for the files in them.
func CompleteFile(begun, extension string, words []string) (offered []string, directive cobra.ShellCompDirective) {
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
		case strings.EqualFold(filepath.Ext(word), extension) && !slices.Contains(offered, word):
			offered = append(offered, word)
		}
	}
	return offered, directive
}
