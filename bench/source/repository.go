package source

import (
	"fmt"
	"regexp"
	"strings"
)

// Repository names a repository on the hub without one of its files, as llama-bench's
// flag -hf does.
type Repository struct {
	Name     string // user/repository
	Quant    string // quantisation in the name of the wanted file, as Q4_K_M; empty: the usual one
	Revision string // branch, tag or commit; main if none was given
}

// repositoryName matches what follows hf: in the name of a repository.
var repositoryName = regexp.MustCompile(`^([^/:@]+/[^/:@]+)(:[^/@]*)?(@.*)?$`)

// quantName matches the quantisations that names of files have.
var quantName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)

// ParseRepository understands hf:user/repository with an optional :quantisation and
// @revision. ok tells whether the text is of that form; a name ending in .gguf is a file
// whose repository is missing. Errors are ErrBad.
func ParseRepository(text string) (r Repository, ok bool, err error) {
	scheme, rest, _ := strings.Cut(text, ":")
	m := repositoryName.FindStringSubmatch(rest)
	if !strings.EqualFold(scheme, "hf") || m == nil || strings.HasSuffix(strings.ToLower(m[1]), ".gguf") {
		return r, false, nil
	}
	r = Repository{Name: m[1], Quant: strings.TrimPrefix(m[2], ":"), Revision: strings.TrimPrefix(m[3], "@")}
	if m[3] == "" {
		r.Revision = "main"
	}
	if part := badPart(r.Name + "/" + r.Revision); part != nil {
		return r, true, fmt.Errorf("%w: %s: %q cannot be part of a name on the hub", ErrBad, text, *part)
	}
	if m[2] != "" && !quantName.MatchString(r.Quant) {
		return r, true, fmt.Errorf("%w: %s: %q is no quantisation", ErrBad, text, r.Quant)
	}
	return r, true, nil
}

// String is the repository as ParseRepository understands it.
func (r Repository) String() string {
	text := "hf:" + r.Name
	if r.Quant != "" {
		text += ":" + r.Quant
	}
	if r.Revision != "main" {
		text += "@" + r.Revision
	}
	return text
}

// At is the source of one of its files.
func (r Repository) At(file string) (Source, error) {
	return Parse("hf:" + r.Name + "/" + file + "@" + r.Revision)
}
