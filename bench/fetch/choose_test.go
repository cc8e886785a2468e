package fetch_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench/fetch"
	"github.com/sparecores/benchmark-llm/bench/source"
)

// tree is the hub's list of a repository's files. Each has a checksum made of its name.
func tree(files ...string) http.HandlerFunc {
	return func(rw http.ResponseWriter, _ *http.Request) {
		list := []map[string]any{{"type": "directory", "path": "Q4_K_M.gguf"}}
		for _, f := range files {
			list = append(list, map[string]any{"type": "file", "path": f, "oid": "1", "lfs": map[string]any{"oid": sha([]byte(f)), "size": 1}})
		}
		_ = json.NewEncoder(rw).Encode(list)
	}
}

func repository(t *testing.T, text string) source.Repository {
	t.Helper()
	r, ok, err := source.ParseRepository(text)
	if !ok || err != nil {
		t.Fatal(text, ok, err)
	}
	return r
}

// The chosen file is the one that llama.cpp's -hf loads.
func TestChoose(t *testing.T) {
	for name, tt := range map[string]struct {
		repository string
		files      []string
		want       string // file; empty: none
		pinned     bool
		text       string // of the error
	}{
		"the usual":             {"hf:u/r", []string{"README.md", "m-Q2_K.gguf", "m-Q4_K_M.gguf", "m-Q8_0.gguf"}, "m-Q4_K_M.gguf", true, ""},
		"the second usual":      {"hf:u/r", []string{"m-Q2_K.gguf", "m-Q8_0.gguf"}, "m-Q8_0.gguf", true, ""},
		"the first":             {"hf:u/r", []string{"a.txt", "m-F16.gguf", "m-Q2_K.gguf"}, "m-F16.gguf", true, ""},
		"asked for":             {"hf:u/r:q2_k", []string{"m-Q2_K.gguf", "m-Q4_K_M.gguf"}, "m-Q2_K.gguf", true, ""},
		"with a dot":            {"hf:u/r:IQ4_NL", []string{"m.Q4_K_M.gguf", "m.IQ4_NL.gguf"}, "m.IQ4_NL.gguf", true, ""},
		"not the longer one":    {"hf:u/r:Q4_K", []string{"m-Q4_K_M.gguf", "m-Q4_K.gguf"}, "m-Q4_K.gguf", true, ""},
		"in a folder":           {"hf:u/r:UD-Q4_K_XL", []string{"UD-Q4_K_XL/m-UD-Q4_K_XL-00001-of-00002.gguf", "UD-Q4_K_XL/m-UD-Q4_K_XL-00002-of-00002.gguf"}, "UD-Q4_K_XL/m-UD-Q4_K_XL-00001-of-00002.gguf", false, ""},
		"only a second file":    {"hf:u/r", []string{"m-Q4_K_M-00002-of-00002.gguf"}, "", false, "hf:u/r: the repository has no GGUF file of a model"},
		"neither eyes nor data": {"hf:u/r", []string{"mmproj-m-Q4_K_M.gguf", "imatrix-Q4_K_M.gguf", "m-F16.gguf"}, "m-F16.gguf", true, ""},
		"no GGUF":               {"hf:u/r:Q4_0", []string{"model.safetensors"}, "", false, "hf:u/r:Q4_0: the repository has no GGUF file of a model"},
		"nothing":               {"hf:u/r", nil, "", false, "hf:u/r: the repository has no GGUF file of a model"},
		"unknown":               {"hf:u/r:Q9_9", []string{"m-Q4_K_M.gguf", "sub/m-q8_0.gguf", "n-Q8_0-00001-of-00002.gguf"}, "", false, "hf:u/r has no Q9_9, but Q4_K_M, Q8_0"},
		"a bad name":            {"hf:u/r", []string{".hidden.gguf"}, "", false, `file name ".hidden.gguf"`},
		"a revision":            {"hf:u/r@refs/pr/1", []string{"m.gguf"}, "m.gguf", true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var paths []string
				w := newWorld(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
					paths = append(paths, r.URL.EscapedPath()+"?"+r.URL.RawQuery)
					tree(tt.files...)(rw, r)
				}))
				r := repository(t, tt.repository)
				got, err := w.client.Choose(t.Context(), r)
				if tt.text != "" {
					if err == nil || !strings.Contains(err.Error(), tt.text) {
						t.Errorf("%v, %v", got, err)
					}
					return
				}
				want := ""
				if tt.pinned {
					want = sha([]byte(tt.want))
				}
				if err != nil || got.Repository != "u/r" || got.File != tt.want || got.Revision != r.Revision || got.SHA256 != want {
					t.Errorf("%+v, %v", got, err)
				}
				if d := cmp.Diff([]string{"/api/models/u/r/tree/" + strings.ReplaceAll(r.Revision, "/", "%2F") + "?recursive=true"}, paths); d != "" {
					t.Error(d)
				}
				if w.requests[0].Token != "Bearer hf_t0ken" {
					t.Errorf("token %q", w.requests[0].Token)
				}
			})
		})
	}
}

// Errors of the hub are those of a file. If it does not answer, its cache counts.
func TestChooseFails(t *testing.T) {
	for name, tt := range map[string]struct {
		answer  http.HandlerFunc
		offline bool
		cached  bool
		is      error // nil: the cached file is chosen
		text    string
	}{
		"missing":             {status(404), false, true, fetch.ErrNotFound, "/api/models/u/r/tree/main: 404 not found: no such repository or revision"},
		"refused":             {status(401), false, true, fetch.ErrRefused, "401 unauthorized"},
		"gated":               {status(403), false, true, fetch.ErrRefused, "403 forbidden"},
		"broken":              {status(500), false, false, nil, "500 internal server error"},
		"no list":             {func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write([]byte("<html>")) }, false, false, fetch.ErrUnavailable, "hub.test sent something other than a list of files"},
		"mute":                {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, false, false, fetch.ErrUnavailable, "hub.test does not answer: no list of files arrived in 30s"},
		"mute, but cached":    {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, false, true, nil, ""},
		"drips":               {drip, false, false, fetch.ErrUnavailable, "hub.test does not answer: no list of files arrived in 30s"},
		"offline":             {tree("m-Q4_K_M.gguf"), true, false, fetch.ErrOffline, "hf:u/r: HF_HUB_OFFLINE is set, and the hub's cache has no file of the repository"},
		"offline, but cached": {tree("m-Q4_K_M.gguf"), true, true, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, tt.answer)
				w.client.Offline = tt.offline
				if tt.cached {
					w.client.HubCache, _ = hubCache(t, blob(t, 1), sha(blob(t, 1)))
				}
				start := time.Now()
				got, err := w.client.Choose(t.Context(), repository(t, "hf:u/r"))
				if took := time.Since(start); took > 31*time.Second {
					t.Errorf("it took %v", took)
				}
				switch {
				case tt.text == "":
					if err != nil || got.File != "sub/m.gguf" || got.Revision != commit {
						t.Errorf("%+v, %v", got, err)
					}
					if file, ok := w.client.Cached(got); !ok || filepath.Base(file.Path) != "m.gguf" {
						t.Errorf("the cached file is not used: %+v", file)
					}
				case err == nil || tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.text):
					t.Errorf("%+v, %v", got, err)
				}
				if asked := len(w.requests) > 0; asked == tt.offline {
					t.Errorf("asked: %v", asked)
				}
			})
		})
	}
}

// drip sends a byte per second and never ends.
func drip(rw http.ResponseWriter, r *http.Request) {
	for r.Context().Err() == nil {
		if _, err := rw.Write([]byte(" ")); err != nil {
			return
		}
		_ = http.NewResponseController(rw).Flush()
		time.Sleep(time.Second)
	}
}

// A cache without the wanted revision has no file to choose.
func TestChooseOtherRevision(t *testing.T) {
	cache, _ := hubCache(t, blob(t, 1), sha(blob(t, 1)))
	c := fetch.Client{HubCache: cache, Offline: true}
	if got, err := c.Choose(t.Context(), repository(t, "hf:u/r@v1")); !errors.Is(err, fetch.ErrOffline) {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := c.Choose(t.Context(), repository(t, "hf:u/r@"+commit)); err != nil || got.Revision != commit {
		t.Errorf("%+v, %v", got, err)
	}
	if err := os.RemoveAll(filepath.Join(cache, "models--u--r", "snapshots")); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Choose(t.Context(), repository(t, "hf:u/r")); !errors.Is(err, fetch.ErrOffline) {
		t.Errorf("%+v, %v", got, err)
	}
}
