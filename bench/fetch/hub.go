package fetch

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sparecores/benchmark-llm/bench/source"
)

// ErrOffline is a file that must be requested from the hub, while HF_HUB_OFFLINE forbids
// requests to it.
var ErrOffline = errors.New("HF_HUB_OFFLINE is set")

// UseHubSettings configures the client as people configure the hub's own tools, by
// the variables that huggingface_hub reads (its page "Environment variables"):
//
//	HF_ENDPOINT      address of the hub
//	HF_TOKEN         else the file HF_TOKEN_PATH, by default $HF_HOME/token, which `hf auth login` writes
//	HF_HUB_CACHE     cache of files, by default $HF_HOME/hub; files that are there are used and never changed
//	HF_HOME          by default $XDG_CACHE_HOME/huggingface or ~/.cache/huggingface
//	HF_HUB_OFFLINE   1, ON, YES or TRUE: the hub is not asked
//
// env is os.Getenv. A setting that cannot be read counts as not set.
func (c *Client) UseHubSettings(env func(string) string) {
	home := env("HF_HOME")
	if home == "" {
		if cache, err := os.UserCacheDir(); err == nil {
			home = filepath.Join(cache, "huggingface")
		}
	}
	c.Hub = strings.TrimSuffix(env("HF_ENDPOINT"), "/")
	c.Token, c.TokenFile = strings.TrimSpace(env("HF_TOKEN")), ""
	if path := cmp.Or(env("HF_TOKEN_PATH"), below(home, "token")); c.Token == "" && path != "" {
		if b, err := os.ReadFile(path); err == nil {
			c.Token, c.TokenFile = strings.TrimSpace(string(b)), path
		}
	}
	c.HubCache = cmp.Or(env("HF_HUB_CACHE"), below(home, "hub"))
	c.Offline = slices.Contains([]string{"1", "ON", "YES", "TRUE"}, strings.ToUpper(env("HF_HUB_OFFLINE")))
}

// below is a path below a directory; empty without a directory.
func below(dir, name string) string {
	if dir == "" {
		return ""
	}
	return filepath.Join(dir, name)
}

// tokenName names the token in messages, by where it came from.
func (c *Client) tokenName() string {
	if c.TokenFile == "" {
		return "HF_TOKEN"
	}
	path := c.TokenFile
	if home, err := os.UserHomeDir(); err == nil {
		if below, found := strings.CutPrefix(path, home+"/"); found {
			path = "~/" + below
		}
	}
	return "the token in " + path
}

// onHub reports whether an address is on the hub, or on DefaultHub. The hub redirects
// from http to https.
func onHub(u, hub *url.URL) bool {
	if source.SameOrigin(u, hub) || u.Port() == "" && hub.Port() == "" && strings.EqualFold(u.Hostname(), hub.Hostname()) {
		return true
	}
	standard, err := url.Parse(DefaultHub)
	return err == nil && strings.EqualFold(u.Hostname(), standard.Hostname())
}

// offline is the error of a source that would have to be requested from the hub.
func (c *Client) offline(src source.Source) error {
	if src.Repository == "" {
		return fmt.Errorf("%v: %w, and the address is on the hub", src, ErrOffline)
	}
	if _, err := c.fromHubCache(src); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%v: %w, and %w", src, ErrOffline, err)
	}
	return fmt.Errorf("%v: %w, and the file is not in the hub's cache", src, ErrOffline)
}

// Cached returns the file of a source in the hub's cache if Fetch uses that file. It
// logs a warning, once for each reason, if the file cannot be used.
func (c *Client) Cached(src source.Source) (file File, ok bool) {
	file, err := c.fromHubCache(src)
	if err == nil {
		return file, true
	}
	if !c.Offline && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errUnproven) {
		c.warnOnce(err.Error(), "model", src.String())
	}
	return File{}, false
}

// warnOnce logs a warning that was not logged before.
func (c *Client) warnOnce(message string, args ...any) {
	if _, before := c.warned.LoadOrStore(message, true); !before {
		c.log().Warn(message, args...)
	}
}

// errUnproven is the error of a cached file that is not known to have the source's
// checksum.
var errUnproven = errors.New("the cache does not show that it has the sha256")

// fromHubCache returns the file of a source in the hub's cache, with a sound header.
// A branch may have moved on since the cache was filled. So without asking the hub
// only two files are used: that of a revision that is a commit, and one whose
// checksum is the source's. If the hub cannot be asked, the branch's is used too.
//
// The cache has a directory for each repository, with the commit of each revision in
// refs and the files of each commit in snapshots. These are links to blobs; the name
// of a large file's blob is its sha256.
//
// The error is fs.ErrNotExist if there is no file to use. Otherwise it names the file
// and why it cannot be used.
func (c *Client) fromHubCache(src source.Source) (File, error) {
	if c.HubCache == "" || src.Repository == "" {
		return File{}, fs.ErrNotExist
	}
	if src.SHA256 == "" && !c.Offline && !isCommit(src.Revision) {
		return File{}, fs.ErrNotExist
	}
	repository := filepath.Join(c.HubCache, "models--"+strings.ReplaceAll(src.Repository, "/", "--"))
	commit := src.Revision
	if b, err := os.ReadFile(filepath.Join(repository, "refs", filepath.FromSlash(src.Revision))); err == nil {
		commit = strings.TrimSpace(string(b))
	}
	if commit == "" || commit != filepath.Base(commit) {
		return File{}, fs.ErrNotExist
	}
	path := filepath.Join(repository, "snapshots", commit, filepath.FromSlash(src.File))
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
		return File{}, fs.ErrNotExist
	}
	if err == nil && src.SHA256 != "" {
		// Reading the whole file would take minutes; the name of the blob is enough.
		if blob, _ := os.Readlink(path); !strings.EqualFold(filepath.Base(blob), src.SHA256) {
			err = fmt.Errorf("%s: %w %s", path, errUnproven, src.SHA256)
		}
	}
	var file File
	if err == nil {
		file, err = Local(path)
	}
	if err == nil {
		return file, nil
	}
	text := err.Error()
	if !strings.Contains(text, path) { // another of its files may be the reason
		text = path + ": " + text
	}
	return File{}, &cleaned{"the file in the hub's cache cannot be used: " + text, err}
}

// isCommit tells whether a revision is a commit, whose files cannot change.
func isCommit(revision string) bool {
	return len(revision) == 40 && strings.Trim(revision, "0123456789abcdef") == ""
}
