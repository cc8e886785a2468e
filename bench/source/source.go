// Package source understands what names a model: a path, an http or https URL,
// or a file of a repository on the hub. A name is parsed once, where it comes
// in; everything after that passes a Source around.
package source

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// ErrBad is the error of a source that cannot be understood or must not be used.
var ErrBad = errors.New("bad model source")

// Source names a model's file, or the first of its files. Exactly one of
// Repository, URL and Path is set; all fields of the zero Source are empty, and
// it names no file. Sources can be compared with ==.
type Source struct {
	Given string // the text that was parsed; may hold secrets, so never print it

	Repository string // on the hub: user/repository; Revision and File belong to it
	Revision   string // branch, tag or commit; main if none was given
	File       string // within the repository, with slashes
	URL        string // http or https; may hold secrets, so never print it
	Path       string // on this machine, cleaned

	// SHA256 is the checksum that the file must have: 64 hexadecimal digits. It is
	// empty if none is known, and always for a model in several files.
	SHA256 string

	// Folder is the folder below the models directory in which a fetched file is kept,
	// with slashes. It is set if another model of the run has a file of that name;
	// otherwise it is empty, and the file is in the models directory itself.
	Folder string
}

// scheme matches an URL scheme. It has two letters or more, so ./a:b and C:\x
// are paths.
var scheme = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9+.-]+):`)

// known are the known schemes.
var known = map[string]bool{"hf": true, "http": true, "https": true}

// Parse understands http and https URLs, hf:user/repository/file with an
// optional @revision, and file paths. A file name alone is a path, also one with a
// colon, such as llama3:8b.gguf. Only what begins like an address (s3://…) must have a
// known scheme. A file whose name begins with hf:, http: or https: needs a folder:
// ./hf:x.gguf. Errors are ErrBad and hold no secret.
func Parse(text string) (Source, error) {
	refuse := func(format string, args ...any) (Source, error) {
		return Source{}, fmt.Errorf("%w: %s: "+format, append([]any{ErrBad, Redact(text)}, args...)...)
	}
	s := Source{Given: text}
	m := scheme.FindStringSubmatch(text)
	switch {
	case text == "":
		return Source{}, fmt.Errorf("%w: it is empty", ErrBad)
	case strings.ContainsFunc(text, unicode.IsControl):
		return Source{}, fmt.Errorf("%w: %q contains control characters", ErrBad, Redact(text))
	case m == nil, !known[strings.ToLower(m[1])] && !strings.HasPrefix(text[len(m[0]):], "//"):
		s.Path = filepath.Clean(text)
		return s, nil
	case strings.EqualFold(m[1], "hf"):
		name, revision, given := cutLast(text[len(m[0]):], "@")
		parts := strings.SplitN(name, "/", 3)
		if len(parts) != 3 || given && revision == "" {
			return refuse("expected hf:user/repository/file[@revision]")
		}
		if !given {
			revision = "main"
		}
		if part := badPart(name + "/" + revision); part != nil {
			return refuse("%q cannot be part of a name on the hub", *part)
		}
		s.Repository, s.Revision, s.File = parts[0]+"/"+parts[1], revision, parts[2]
	case strings.EqualFold(m[1], "http"), strings.EqualFold(m[1], "https"):
		u, err := url.Parse(text)
		if err != nil || u.Host == "" {
			return refuse("not a valid URL")
		}
		if escaped := strings.ToLower(u.EscapedPath()); strings.Contains(escaped, "%2f") || strings.Contains(escaped, "%5c") {
			return refuse("a name in its path contains a path separator")
		}
		for _, part := range strings.Split(u.Path, "/") {
			if part == "." || part == ".." {
				return refuse("%q cannot be part of its path", part)
			}
		}
		s.URL = text
	default:
		return refuse("unknown scheme %s; known are https, http, hf and file paths", m[1])
	}
	if s.Name() == "" {
		return refuse("it names no file")
	}
	if err := CheckName(s.Name()); err != nil {
		return refuse("%w", err)
	}
	return s, nil
}

// badPart returns the first part, between slashes, that no name on the hub can have;
// nil: there is none.
func badPart(name string) *string {
	for _, part := range strings.Split(name, "/") {
		if part == "" || part == "." || part == ".." || strings.ContainsAny(part, `\?#%`) {
			return &part
		}
	}
	return nil
}

// Explicit reports whether a word on a command line can only be meant as a
// source: it has a scheme, a slash or the extension of model files.
func Explicit(word string) bool {
	return scheme.MatchString(word) || strings.Contains(word, "/") || strings.EqualFold(filepath.Ext(word), ".gguf")
}

// Name is the name of the file, without any folder. It is empty if there is none.
func (s Source) Name() string {
	switch {
	case s.Path != "":
		return filepath.Base(s.Path)
	case s.URL != "":
		u, err := url.Parse(s.URL)
		if err != nil || u.Path == "" || strings.HasSuffix(u.Path, "/") {
			return ""
		}
		return path.Base(u.Path)
	case s.File != "":
		return path.Base(s.File)
	default:
		return ""
	}
}

// Beside is the source of another file in the same folder on the hub or on a
// server; s is not local. Its checksum is not known.
func (s Source) Beside(name string) Source {
	s.SHA256 = ""
	if s.URL == "" {
		s.File = path.Join(path.Dir(s.File), name)
		s.Given = s.String()
		return s
	}
	u, err := url.Parse(s.URL)
	if err != nil { // Parse has checked it
		return s
	}
	escaped := u.EscapedPath()
	u.Path = u.Path[:strings.LastIndexByte(u.Path, '/')+1] + name
	u.RawPath = escaped[:strings.LastIndexByte(escaped, '/')+1] + url.PathEscape(name)
	s.URL = u.String()
	s.Given = s.URL
	return s
}

// Place is the path of the fetched file in a models directory; s is not local.
func (s Source) Place(dir string) string { return filepath.Join(dir, s.Folder, s.Name()) }

// Parts are the folders that lead to the file, the outermost first, and its name. Two
// sources with the same parts differ only in secrets. The host of a URL and the
// repository on the hub count as folders, and so do, outermost, scheme and revision.
func (s Source) Parts() []string {
	var parts []string
	switch {
	case s.Path != "":
		path := s.Path
		if abs, err := filepath.Abs(path); err == nil {
			path = abs
		}
		parts = strings.Split(path, "/")
	case s.URL != "":
		u, err := url.Parse(s.URL)
		if err != nil { // Parse has checked it
			return []string{s.Name()}
		}
		parts = append([]string{u.Scheme, u.Host}, strings.Split(path.Dir(u.EscapedPath()), "/")...)
		parts = append(parts, s.Name())
	default:
		parts = append([]string{url.PathEscape(s.Revision)}, strings.Split(s.Repository+"/"+s.File, "/")...)
	}
	return slices.DeleteFunc(parts, func(part string) bool { return part == "" })
}

// Local reports whether the source is a path on this machine.
func (s Source) Local() bool { return s.Path != "" }

// String is the source without secrets: a URL loses its user, query and
// fragment. An hf: source shows its revision, even if none was given.
func (s Source) String() string {
	switch {
	case s.Path != "":
		return s.Path
	case s.URL != "":
		return Bare(s.URL)
	case s.Repository != "":
		return "hf:" + s.Repository + "/" + s.File + "@" + s.Revision
	default:
		return Redact(s.Given)
	}
}

// MarshalText returns String. So encoders and logs never write secrets. Callers that
// store Given must redact it first.
func (s Source) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Address is where to fetch the file from, given the hub's address. It may hold
// secrets. A local source has none.
func (s Source) Address(hub *url.URL) (*url.URL, error) {
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
		return nil, fmt.Errorf("%w: %s", ErrBad, Bare(s.URL))
	}
	// On the hub, a browser shows a page about the file, under this address.
	if parts := strings.SplitN(u.Path, "/", 5); SameOrigin(u, hub) && len(parts) == 5 && parts[3] == "blob" {
		u.Path, u.RawPath = strings.Replace(u.Path, "/blob/", "/resolve/", 1), ""
	}
	return u, nil
}

// maxName is the length limit of a file name in bytes. It leaves room for the
// suffixes of a download within the 255 bytes that file systems allow.
const maxName = 200

// PartSuffix ends the name of a file while it is downloaded.
const PartSuffix = ".part"

// CheckName refuses names that cannot or should not be given to a model's file.
func CheckName(name string) error {
	switch {
	case name == "" || name == "." || name == ".." || strings.ContainsAny(name, `/\`) || strings.ContainsFunc(name, unicode.IsControl):
		return fmt.Errorf("%q is not a file name", name)
	case name[0] == '.' || name[0] == '-':
		return fmt.Errorf("file name %q starts with %q", name, name[:1])
	case len(name) > maxName:
		return fmt.Errorf("file name of %d bytes is longer than %d bytes", len(name), maxName)
	case strings.HasSuffix(name, PartSuffix) || strings.HasSuffix(name, ".json"):
		return fmt.Errorf("file name %q is reserved for downloads in progress", name)
	}
	return nil
}

// IsSHA256 reports whether a text is 64 hexadecimal digits.
func IsSHA256(text string) bool {
	b, err := hex.DecodeString(text)
	return err == nil && len(b) == 32
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// Bare is a URL without user, query and fragment.
func Bare(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return Redact(text)
	}
	u.User, u.RawQuery, u.Fragment, u.RawFragment, u.ForceQuery = nil, "", "", "", false
	return u.String()
}

var (
	userinfo = regexp.MustCompile(`(://)[^/?#\s"]*@`)
	query    = regexp.MustCompile(`([a-zA-Z][a-zA-Z0-9+.-]*://[^?#\s"]*)[?#][^\s"]*`)
)

// Redact removes users, queries and fragments from the URLs in a text.
func Redact(text string) string {
	return query.ReplaceAllString(userinfo.ReplaceAllString(text, "$1"), "$1")
}

// SameOrigin reports whether a secret meant for one of two addresses may be sent
// to the other: they agree in scheme, host and port.
func SameOrigin(a, b *url.URL) bool {
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
