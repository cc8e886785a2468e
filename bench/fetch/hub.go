package fetch

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sparecores/benchmark-llm/bench/source"
)

// ErrOffline is a file that is not in the hub's cache while HF_HUB_OFFLINE forbids
// to ask the hub.
var ErrOffline = errors.New("HF_HUB_OFFLINE is set, and the file is not in the hub's cache")

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
	c.Token = env("HF_TOKEN")
	if path := cmp.Or(env("HF_TOKEN_PATH"), below(home, "token")); c.Token == "" && path != "" {
		if b, err := os.ReadFile(path); err == nil {
			c.Token = strings.TrimSpace(string(b))
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

// inHubCache is the path of a source's file in the hub's cache. The cache has a
// directory for each repository, with the commit of each revision in refs and the
// files of each commit in snapshots. The error is fs.ErrNotExist if it is not there.
func (c *Client) inHubCache(src source.Source) (string, error) {
	if c.HubCache == "" || src.Repository == "" {
		return "", fs.ErrNotExist
	}
	repository := filepath.Join(c.HubCache, "models--"+strings.ReplaceAll(src.Repository, "/", "--"))
	commit := src.Revision
	if b, err := os.ReadFile(filepath.Join(repository, "refs", filepath.FromSlash(src.Revision))); err == nil {
		commit = strings.TrimSpace(string(b))
	}
	if commit == "" || commit != filepath.Base(commit) {
		return "", fs.ErrNotExist
	}
	path := filepath.Join(repository, "snapshots", commit, filepath.FromSlash(src.File))
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = fs.ErrNotExist
	}
	return path, err
}

// fromHubCache is the file of a source in the hub's cache, with a sound header. A
// branch may have moved on since the cache was filled, so only a revision that is a
// commit is used without asking the hub, unless the hub cannot be asked.
func (c *Client) fromHubCache(src source.Source) (File, error) {
	path, err := c.inHubCache(src)
	if err != nil {
		return File{}, err
	}
	if !c.Offline && !isCommit(src.Revision) {
		return File{}, fs.ErrNotExist
	}
	file, err := Local(path)
	if err != nil {
		return File{}, fmt.Errorf("hub's cache: %w", err)
	}
	return file, nil
}

// isCommit tells whether a revision is a commit, whose files cannot change.
func isCommit(revision string) bool {
	return len(revision) == 40 && strings.Trim(revision, "0123456789abcdef") == ""
}
