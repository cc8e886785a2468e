package commandline

import (
	"regexp"
	"slices"
	"strings"
)

// Near returns the known words that a misspelt word may stand for: those that begin
// or end with it, else those with the fewest mistakes, at most three. A letter that is
// missing, added or wrong is a mistake, and so are two letters in the wrong order. One
// mistake in four letters is allowed, and one in a shorter word.
func Near(word string, known []string) (near []string) {
	word = strings.ToLower(word)
	if len(word) < 2 {
		return nil
	}
	best := max(1, len(word)/4) + 1
	for _, k := range known {
		n := mistakes(word, strings.ToLower(k))
		if len(word) >= 3 && (strings.HasPrefix(k, word) || strings.HasSuffix(k, "-"+word)) {
			n = 1
		}
		switch {
		case n < best:
			best, near = n, []string{k}
		case n == best && near != nil:
			near = append(near, k)
		}
	}
	slices.Sort(near)
	return near[:min(len(near), 3)]
}

// DidYouMean is the hint with the words of Near. It is empty if there are none.
func DidYouMean(near []string) string {
	if len(near) == 0 {
		return ""
	}
	return "did you mean " + strings.Join(near, " or ") + "?"
}

// mistakes is the optimal string alignment distance of two words, in bytes: the number
// of insertions, deletions, substitutions and swaps of neighbours that make b of a.
func mistakes(a, b string) int {
	d := make([][]int, len(a)+1)
	for i := range d {
		d[i] = make([]int, len(b)+1)
		d[i][0] = i
	}
	for j := range d[0] {
		d[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			wrong := 1
			if a[i-1] == b[j-1] {
				wrong = 0
			}
			d[i][j] = min(d[i-1][j]+1, d[i][j-1]+1, d[i-1][j-1]+wrong)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d[i][j] = min(d[i][j], d[i-2][j-2]+1)
			}
		}
	}
	return d[len(a)][len(b)]
}

// oneDash matches a word of at least three letters behind one dash.
var oneDash = regexp.MustCompile(`^-([A-Za-z][A-Za-z-]{2,})(?:=.*)?$`)

// OneDash finds the first word that is the name of a long flag behind one dash, as
// other programs write them, perhaps misspelt. A parser would read it as flags of one
// letter. near are the names it may stand for, with their dashes.
func OneDash(args, names []string) (word string, near []string) {
	for _, arg := range args {
		if arg == "--" {
			break
		}
		m := oneDash.FindStringSubmatch(arg)
		if m == nil {
			continue
		}
		found := []string{m[1]}
		if !slices.Contains(names, m[1]) {
			// Short words are more likely a flag with its value, as -ojsonl.
			found = slices.DeleteFunc(Near(m[1], names), func(n string) bool { return len(m[1]) < 5 || len(n) < 5 })
		}
		if len(found) > 0 {
			return "-" + m[1], Dashed(found)
		}
	}
	return "", nil
}

// Dashed returns names of long flags with their dashes.
func Dashed(names []string) (dashed []string) {
	for _, n := range names {
		dashed = append(dashed, "--"+n)
	}
	return dashed
}

// LooksLikeFlag tells whether a word is a flag rather than a value.
func LooksLikeFlag(word string) bool { return flagWord.MatchString(word) }

var flagWord = regexp.MustCompile(`^(-[A-Za-z]|--[a-z][a-z-]*(=.*)?)$`)

// item matches one number, or a range of numbers in llama-bench's syntax.
var item = regexp.MustCompile(`^(-?\d+(\.\d+)?|(\d+-\d+([+*]\d+)?))$`)

// IsList tells whether a text is several values in llama-bench's syntax: words of
// allowed, numbers or ranges, separated by commas, or one range.
func IsList(text string, allowed []string) bool {
	parts := strings.Split(text, ",")
	for _, p := range parts {
		if p = strings.TrimSpace(p); !item.MatchString(p) && !slices.Contains(allowed, p) {
			return false
		}
	}
	return len(parts) > 1 || strings.Contains(text[min(1, len(text)):], "-") && item.MatchString(text)
}
