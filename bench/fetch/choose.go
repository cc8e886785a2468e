package fetch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/sparecores/benchmark-llm/bench/source"
)

// ChoiceError is the error of a repository that has no file to choose.
type ChoiceError struct {
	Repository source.Repository
	Quants     []string // that its files have; empty: it has no file of a model
}

func (e *ChoiceError) Error() string {
	if len(e.Quants) == 0 {
		return fmt.Sprintf("%v: the repository has no GGUF file of a model", e.Repository)
	}
	bare := e.Repository
	bare.Quant = ""
	return fmt.Sprintf("%v has no %s, but %s", bare, e.Repository.Quant, strings.Join(e.Quants, ", "))
}

// listed is a file of a repository.
type listed struct {
	Type string // file or directory
	Path string // with slashes
	LFS  struct {
		OID string // sha256
	}
}

const (
	listTime  = 30 * time.Second // in which the list of files must arrive
	listBytes = 16 << 20         // of the list; 1,000 files, the most on one page, take about 0.5 MiB
)

// Choose returns the file of a repository that llama.cpp's -hf takes: the first whose
// name has the quantisation, else Q4_K_M, else Q8_0, else the first file of a model.
// (common/download.cpp, find_best_model, of llama.cpp 0.7.0, which asks the hub for the
// same list.) Files are in the hub's order, by name.
//
// If the hub must not be asked or does not answer, the files in its cache count, and the
// source's revision is their commit. Errors are *ChoiceError, and those of Fetch.
func (c *Client) Choose(ctx context.Context, r source.Repository) (source.Source, error) {
	files, err := c.list(ctx, r)
	if err != nil {
		cached, at := c.cachedFiles(r)
		if len(cached) == 0 || !errors.Is(err, ErrOffline) && !errors.Is(err, ErrUnavailable) {
			return source.Source{}, err
		}
		if !c.Offline {
			c.warnOnce(err.Error()+"; choosing among the files in the hub's cache", "model", r.String())
		}
		files, r = cached, at
	}
	file, err := choose(r, files)
	if err != nil {
		return source.Source{}, err
	}
	src, err := r.At(file.Path)
	if err == nil && parsePart(file.Path).single && source.IsSHA256(file.LFS.OID) {
		src.SHA256 = strings.ToLower(file.LFS.OID)
	}
	return src, err
}

// list asks the hub for the files of a repository, at most 1,000 of them.
func (c *Client) list(ctx context.Context, r source.Repository) ([]listed, error) {
	if c.Offline {
		return nil, fmt.Errorf("%v: %w, and the hub's cache has no file of the repository", r, ErrOffline)
	}
	hub, err := c.hubAddress()
	if err != nil {
		return nil, err
	}
	from := hub.JoinPath("api", "models", r.Name, "tree", url.PathEscape(r.Revision))
	from.RawQuery = "recursive=true"
	limited, cancel := context.WithTimeoutCause(ctx, listTime, errStalled)
	defer cancel()
	files, err := retry(limited, c, r, func() (files []listed, err error) {
		resp, err := c.send(limited, r, hub, from, http.Header{"Accept": {"application/json"}}, func(*url.URL, http.Header) {})
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(io.LimitReader(resp.Body, listBytes))
		if err != nil {
			return nil, &HostError{hub.Host, c.clean(err)}
		}
		if err := json.Unmarshal(text, &files); err != nil {
			return nil, backoff.Permanent(fmt.Errorf("%v: %w: %s sent something other than a list of files", r, ErrUnavailable, hub.Host))
		}
		return files, nil
	})
	var status *StatusError
	if errors.As(err, &status) && status.Is(ErrNotFound) {
		status.Hint = "no such repository or revision"
	}
	if err != nil && ctx.Err() == nil && limited.Err() != nil {
		err = &HostError{hub.Host, fmt.Errorf("no list of files arrived in %v", listTime)}
	}
	return files, err
}

// cachedFiles returns the files of a repository in the hub's cache, and the repository at
// their commit.
func (c *Client) cachedFiles(r source.Repository) (files []listed, at source.Repository) {
	if c.HubCache == "" {
		return nil, r
	}
	repository := filepath.Join(c.HubCache, "models--"+strings.ReplaceAll(r.Name, "/", "--"))
	at = r
	if b, err := os.ReadFile(filepath.Join(repository, "refs", filepath.FromSlash(r.Revision))); err == nil {
		at.Revision = strings.TrimSpace(string(b))
	}
	if !isCommit(at.Revision) {
		return nil, r
	}
	snapshot := filepath.Join(repository, "snapshots", at.Revision)
	_ = filepath.WalkDir(snapshot, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil //nolint:nilerr // what cannot be read is not in the cache
		}
		if below, err := filepath.Rel(snapshot, p); err == nil {
			files = append(files, listed{Type: "file", Path: filepath.ToSlash(below)})
		}
		return nil
	})
	return files, at
}

// choose returns the file that llama.cpp's find_best_model returns.
func choose(r source.Repository, files []listed) (listed, error) {
	files = slices.DeleteFunc(slices.Clone(files), func(f listed) bool { return f.Type != "file" || !isModel(f.Path) })
	wanted := []string{r.Quant}
	if r.Quant == "" {
		wanted = []string{"Q4_K_M", "Q8_0"}
	}
	for _, quant := range wanted {
		has := regexp.MustCompile("(?i)" + regexp.QuoteMeta(quant) + "[.-]")
		if i := slices.IndexFunc(files, func(f listed) bool { return has.MatchString(f.Path) }); i >= 0 {
			return files[i], nil
		}
	}
	if r.Quant == "" && len(files) > 0 {
		return files[0], nil
	}
	e := &ChoiceError{Repository: r}
	for _, f := range files {
		if quant := parsePart(f.Path).quant; !slices.Contains(e.Quants, quant) {
			e.Quants = append(e.Quants, quant)
		}
	}
	return listed{}, e
}

// isModel tells whether a file of a repository is a model, or the first of its files.
func isModel(file string) bool {
	name := path.Base(file)
	return strings.HasSuffix(name, ".gguf") && !strings.Contains(name, "mmproj") && !strings.Contains(name, "imatrix") && parsePart(file).first
}

// shardName matches the name, without extension, of one of several files of a model.
var shardName = regexp.MustCompile(`^(.+)-([0-9]{5})-of-([0-9]{5})$`)

// quantEnd matches the quantisation at the end of such a name.
var quantEnd = regexp.MustCompile(`[-.]([A-Za-z0-9_]+)$`)

// partOf is what the name of a file says about it.
type partOf struct {
	quant  string // in upper case; the name itself if it has none
	first  bool   // of the model's files
	single bool   // the model's only file
}

func parsePart(file string) partOf {
	name := strings.TrimSuffix(path.Base(file), ".gguf")
	p := partOf{first: true, single: true}
	if m := shardName.FindStringSubmatch(name); m != nil {
		name, p.first, p.single = m[1], m[2] == "00001", false
	}
	p.quant = name
	if m := quantEnd.FindStringSubmatch(name); m != nil {
		p.quant = strings.ToUpper(m[1])
	}
	return p
}
