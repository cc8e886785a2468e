package fetch

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"path/filepath"
	"regexp"
	"strings"
)

// DefaultHub is the model hub that hf: sources are taken from.
const DefaultHub = "https://huggingface.co"

// ErrSource is a source that cannot be understood or must not be used.
var ErrSource = errors.New("bad model source")

// Source is where a model file comes from: a file of a repository on the hub
// (Repository, Revision and File are set), a URL, or a Path on this machine.
type Source struct {
	Repository string // user/repository
	Revision   string // branch, tag or commit; main unless given
	File       string // within the repository, with slashes
	URL        string // http or https; may hold secrets, so never print it
	Path       string
}

// An URL scheme has two letters or more, so that ./a:b and C:\x are paths.
var scheme = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9+.-]+):`)

// ParseSource understands http and https URLs, hf:user/repository/file with an
// optional @revision, and file paths. Errors are ErrSource.
func ParseSource(s string) (Source, error) {
	refuse := func(format string, args ...any) (Source, error) {
		return Source{}, fmt.Errorf("%w: %s: "+format, append([]any{ErrSource, redact(s)}, args...)...)
	}
	var src Source
	m := scheme.FindStringSubmatch(s)
	switch {
	case s == "":
		return Source{}, fmt.Errorf("%w: it is empty", ErrSource)
	case strings.ContainsFunc(s, control):
		return refuse("it holds control characters")
	case m == nil:
		src.Path = filepath.Clean(s)
		return src, nil
	case strings.EqualFold(m[1], "hf"):
		name, revision, given := cutLast(s[len(m[0]):], "@")
		parts := strings.SplitN(name, "/", 3)
		if len(parts) != 3 || given && revision == "" {
			return refuse("expected hf:user/repository/file[@revision]")
		}
		if !given {
			revision = "main"
		}
		for _, part := range strings.Split(name+"/"+revision, "/") {
			if part == "" || part == "." || part == ".." || strings.ContainsAny(part, `\?#%`) {
				return refuse("%q cannot be part of a name on the hub", part)
			}
		}
		src = Source{Repository: parts[0] + "/" + parts[1], Revision: revision, File: parts[2]}
	case strings.EqualFold(m[1], "http"), strings.EqualFold(m[1], "https"):
		u, err := url.Parse(s)
		if err != nil || u.Host == "" {
			return refuse("not a URL that can be fetched")
		}
		if escaped := strings.ToLower(u.EscapedPath()); strings.Contains(escaped, "%2f") || strings.Contains(escaped, "%5c") {
			return refuse("it hides a path separator in a name")
		}
		for _, part := range strings.Split(u.Path, "/") {
			if part == "." || part == ".." {
				return refuse("%q cannot be part of its path", part)
			}
		}
		src.URL = s
	default:
		return refuse("unknown scheme %s, known are https, http, hf and file paths", m[1])
	}
	if err := checkName(src.Name()); err != nil {
		return refuse("%w", err)
	}
	return src, nil
}

// LooksLikeSource is whether a word on a command line can only be meant as a
// source: it has a scheme, a slash or the extension of models.
func LooksLikeSource(s string) bool {
	return scheme.MatchString(s) || strings.Contains(s, "/") || strings.EqualFold(filepath.Ext(s), ".gguf")
}

// Name is the name of the file, without any folder.
func (s Source) Name() string {
	switch {
	case s.Path != "":
		return filepath.Base(s.Path)
	case s.URL != "":
		u, err := url.Parse(s.URL)
		if err != nil || strings.HasSuffix(u.Path, "/") {
			return ""
		}
		return path.Base(u.Path)
	default:
		return path.Base(s.File)
	}
}

// beside is the source of another file in the same place, on a server.
func (s Source) beside(name string) Source {
	if s.URL == "" {
		s.File = path.Join(path.Dir(s.File), name)
		return s
	}
	u, err := url.Parse(s.URL)
	if err != nil { // ParseSource has seen it
		return s
	}
	escaped := u.EscapedPath()
	u.Path = u.Path[:strings.LastIndexByte(u.Path, '/')+1] + name
	u.RawPath = escaped[:strings.LastIndexByte(escaped, '/')+1] + url.PathEscape(name)
	s.URL = u.String()
	return s
}

// Local is whether the file is on this machine already.
func (s Source) Local() bool { return s.Path != "" }

// String is the source as it was given, without secrets: a URL loses its user,
// query and fragment.
func (s Source) String() string {
	switch {
	case s.Path != "":
		return s.Path
	case s.URL != "":
		return bare(s.URL)
	default:
		return "hf:" + s.Repository + "/" + s.File + "@" + s.Revision
	}
}

// address is where to get it from, given the hub's address.
func (s Source) address(hub *url.URL) (*url.URL, error) {
	if s.URL == "" {
		u := hub.JoinPath(s.Repository, "resolve")
		// A revision such as refs/pr/1 is one element of the path.
		escaped := u.EscapedPath() + "/" + url.PathEscape(s.Revision) + "/" + (&url.URL{Path: s.File}).EscapedPath()
		u.Path += "/" + s.Revision + "/" + s.File
		u.RawPath = escaped
		return u, nil
	}
	u, err := url.Parse(s.URL)
	if err != nil {
		return nil, fmt.Errorf("%w: %s", ErrSource, bare(s.URL))
	}
	// What a browser shows for a file of the hub is a page about it.
	if parts := strings.SplitN(u.Path, "/", 5); sameOrigin(u, hub) && len(parts) == 5 && parts[3] == "blob" {
		u.Path, u.RawPath = strings.Replace(u.Path, "/blob/", "/resolve/", 1), ""
	}
	return u, nil
}

// CheckNames finds different sources with the same file name, which would
// overwrite each other in a models directory and, in results, cannot be told
// apart. The error is ErrSource.
func CheckNames(sources []Source) error {
	seen := make(map[string]Source)
	for _, s := range sources {
		other, ok := seen[s.Name()]
		if ok && other != s {
			return fmt.Errorf("%w: %s and %s have the same file name", ErrSource, other, s)
		}
		seen[s.Name()] = s
	}
	return nil
}

// checkName refuses names that cannot, or should not, be given to a file.
func checkName(name string) error {
	switch {
	case name == "" || name == "." || name == ".." || name == "/":
		return errors.New("it names no file")
	case strings.ContainsAny(name, `/\`) || strings.ContainsFunc(name, control):
		return fmt.Errorf("%q is not a file name", name)
	case name[0] == '.' || name[0] == '-':
		return fmt.Errorf("file name %q starts with %q", name, name[:1])
	case len(name) > maxName:
		return fmt.Errorf("file name of %d bytes is longer than %d", len(name), maxName)
	case strings.HasSuffix(name, partSuffix) || strings.HasSuffix(name, ".json"):
		return fmt.Errorf("file name %q is one that downloads use for themselves", name)
	}
	return nil
}

// maxName leaves room for suffixes within the 255 bytes that file systems allow.
const maxName = 200

func control(r rune) bool { return r < ' ' || r == 0x7f }

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// bare is a URL without user, query and fragment.
func bare(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return redact(s)
	}
	u.User, u.RawQuery, u.Fragment, u.RawFragment, u.ForceQuery = nil, "", "", "", false
	return u.String()
}

var (
	userinfo = regexp.MustCompile(`(://)[^/?#\s"]*@`)
	query    = regexp.MustCompile(`([a-zA-Z][a-zA-Z0-9+.-]*://[^?#\s"]*)[?#][^\s"]*`)
)

// redact takes users and queries out of the URLs in a text.
func redact(text string) string {
	return query.ReplaceAllString(userinfo.ReplaceAllString(text, "$1"), "$1")
}

// sameOrigin is whether a secret meant for one of two addresses may be sent to
// the other.
func sameOrigin(a, b *url.URL) bool {
	return strings.EqualFold(a.Scheme, b.Scheme) && strings.EqualFold(a.Hostname(), b.Hostname()) && port(a) == port(b)
}

func port(u *url.URL) string {
	if p := u.Port(); p != "" {
		return p
	}
	if strings.EqualFold(u.Scheme, "https") {
		return "443"
	}
	return "80"
}
