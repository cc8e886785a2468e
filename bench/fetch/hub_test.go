package fetch_test

import (
	"cmp"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/sparecores/benchmark-llm/bench/fetch"
	"github.com/sparecores/benchmark-llm/bench/source"
)

const commit = "0123456789abcdef0123456789abcdef01234567"

func TestHubSettings(t *testing.T) {
	home := t.TempDir()
	write(t, filepath.Join(home, "token"), "hf_file\n")
	other := filepath.Join(t.TempDir(), "other")
	write(t, other, "hf_other")
	for name, tt := range map[string]struct {
		env  map[string]string
		want *fetch.Client
	}{
		"nothing but a home": {map[string]string{"HF_HOME": home}, &fetch.Client{Token: "hf_file", TokenFile: filepath.Join(home, "token"), HubCache: filepath.Join(home, "hub")}},
		"all": {
			map[string]string{"HF_HOME": home, "HF_ENDPOINT": "https://mirror.example/", "HF_TOKEN": " hf_env\n", "HF_HUB_CACHE": "/cache", "HF_HUB_OFFLINE": "yes"},
			&fetch.Client{Hub: "https://mirror.example", Token: "hf_env", HubCache: "/cache", Offline: true},
		},
		"another token file": {map[string]string{"HF_HOME": home, "HF_TOKEN_PATH": other, "HF_HUB_OFFLINE": "0"}, &fetch.Client{Token: "hf_other", TokenFile: other, HubCache: filepath.Join(home, "hub")}},
		"a blank token":      {map[string]string{"HF_HOME": home, "HF_TOKEN": " "}, &fetch.Client{Token: "hf_file", TokenFile: filepath.Join(home, "token"), HubCache: filepath.Join(home, "hub")}},
		"an empty home":      {map[string]string{"HF_HOME": "/none"}, &fetch.Client{HubCache: "/none/hub"}},
	} {
		var got fetch.Client
		got.UseHubSettings(func(name string) string { return tt.env[name] })
		if got.Hub != tt.want.Hub || got.Token != tt.want.Token || got.TokenFile != tt.want.TokenFile || got.HubCache != tt.want.HubCache || got.Offline != tt.want.Offline {
			t.Errorf("%s: hub %q, token %q of %q, cache %q, offline %v", name, got.Hub, got.Token, got.TokenFile, got.HubCache, got.Offline)
		}
	}
}

// hubCache makes a cache of the hub's own tools with a file u/r/sub/m.gguf, and
// returns the path of the file.
func hubCache(t *testing.T, content []byte, blobName string) (cache, path string) {
	t.Helper()
	cache = t.TempDir()
	repository := filepath.Join(cache, "models--u--r")
	for _, dir := range []string{"refs", "blobs", "snapshots/" + commit + "/sub"} {
		if err := os.MkdirAll(filepath.Join(repository, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(repository, "refs", "main"), commit)
	write(t, filepath.Join(repository, "blobs", blobName), string(content))
	path = filepath.Join(repository, "snapshots", commit, "sub", "m.gguf")
	if err := os.Symlink("../../../blobs/"+blobName, path); err != nil {
		t.Fatal(err)
	}
	return cache, path
}

// A file in the cache of the hub's own tools is used and not copied: at a commit or
// with the right checksum without a question, at a branch if the hub must not be
// asked. What is not there is not asked for offline. Sizes, Survey and Here agree.
func TestHubCache(t *testing.T) {
	a := blob(t, 1)
	const notThere = "HF_HUB_OFFLINE is set, and the file is not in the hub's cache"
	const bad = "the file in the hub's cache cannot be used: "
	for name, tt := range map[string]struct {
		source  string
		sha256  string
		content []byte
		blob    string
		offline bool
		cached  bool
		text    string // of the error; empty: none
		asked   bool
		warned  int
	}{
		"a commit":                     {source: "hf:u/r/sub/m.gguf@" + commit, cached: true},
		"a branch":                     {source: "hf:u/r/sub/m.gguf", asked: true},
		"a branch, offline":            {source: "hf:u/r/sub/m.gguf", offline: true, cached: true},
		"another file":                 {source: "hf:u/r/sub/n.gguf@" + commit, asked: true},
		"another file, offline":        {source: "hf:u/r/sub/n.gguf@" + commit, offline: true, text: notThere},
		"another commit":               {source: "hf:u/r/sub/m.gguf@" + commit[:39] + "0", offline: true, text: notThere},
		"pinned":                       {source: "hf:u/r/sub/m.gguf@" + commit, sha256: sha(a), cached: true},
		"pinned, a branch":             {source: "hf:u/r/sub/m.gguf", sha256: strings.ToUpper(sha(a)), cached: true},
		"pinned, offline":              {source: "hf:u/r/sub/m.gguf", sha256: sha(a), offline: true, cached: true},
		"pinned, unproven":             {source: "hf:u/r/sub/m.gguf@" + commit, sha256: sha(a), blob: "0123", asked: true},
		"pinned, unproven and offline": {source: "hf:u/r/sub/m.gguf@" + commit, sha256: sha(a), blob: "0123", offline: true, text: bad + "%s: the cache does not show that it has the sha256 " + sha(a)},
		"truncated":                    {source: "hf:u/r/sub/m.gguf@" + commit, content: a[:len(a)/2], asked: true, warned: 1},
		"truncated, offline":           {source: "hf:u/r/sub/m.gguf@" + commit, content: a[:len(a)/2], offline: true, text: bad + "%s: "},
		"not a model, offline":         {source: "hf:u/r/sub/m.gguf@" + commit, content: []byte("hello, hello, hello"), offline: true, text: bad + "%s: "},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				content, blobName := cmp.Or(string(tt.content), string(a)), cmp.Or(tt.blob, sha(a))
				cache, path := hubCache(t, []byte(content), blobName)
				w, dir := newWorld(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { serve(rw, r, a) })), t.TempDir()
				w.client.HubCache, w.client.Offline = cache, tt.offline
				src := parse(t, tt.source)
				src.SHA256 = tt.sha256
				text := strings.ReplaceAll(tt.text, "%s", path)
				check := func(what string, err error) {
					if (err == nil) != (text == "") || err != nil && (!errors.Is(err, fetch.ErrOffline) || !strings.Contains(err.Error(), text)) {
						t.Errorf("%s: %v, want %q", what, err, text)
					}
				}
				sizes, err := w.client.Sizes(t.Context(), []source.Source{src}, dir)
				if err != nil {
					t.Fatal(err)
				}
				check("Sizes", sizes[0].Err)
				if tt.cached && sizes[0] != (fetch.Size{Bytes: int64(len(a))}) {
					t.Errorf("Sizes: %+v", sizes[0])
				}
				survey, err := w.client.Survey(t.Context(), src, "")
				check("Survey", err)
				if missing, files := survey.Missing(); err == nil && (survey.Bytes() != int64(len(a)) || len(survey.Files) != 1 || survey.Header == nil || tt.cached && (missing != 0 || files != 0)) {
					t.Errorf("Survey: %+v", survey)
				}
				if here, err := w.client.Here(src, dir); (err == nil) != tt.cached || tt.cached && here.Path != path {
					t.Errorf("Here: %s, %v", here.Path, err)
				}
				file, err := w.client.Fetch(t.Context(), src, dir, fetch.Options{})
				check("Fetch", err)
				if err == nil && (file.Path == path) != tt.cached || err == nil && !tt.cached && filepath.Dir(file.Path) != dir {
					t.Errorf("the file is %s", file.Path)
				}
				if asked := len(w.ranges()) > 0; asked != tt.asked {
					t.Errorf("asked: %v", asked)
				}
				if n := strings.Count(w.log.String(), bad+path); n != tt.warned {
					t.Errorf("%d warnings: %s", n, w.log.String())
				}
				if string(readAll(t, filepath.Join(cache, "models--u--r", "blobs", blobName))) != content {
					t.Error("the cache was changed")
				}
			})
		})
	}
}

// Offline, no address on the hub is asked, whatever names it. Others are.
func TestOfflineHosts(t *testing.T) {
	a := blob(t, 1)
	for address, tt := range map[string]struct {
		hub   string
		asked []string
	}{
		"hf:u/r/m.gguf": {"http://hub.test", nil},
		"http://hub.test/u/r/resolve/main/m.gguf":         {"http://hub.test", nil},
		"http://HUB.test:80/u/r/resolve/main/m.gguf":      {"http://hub.test", nil},
		"http://hub.test:8080/m.gguf":                     {"http://hub.test:8080", nil},
		"http://hub.test:8081/m.gguf":                     {"http://hub.test:8080", []string{"hub.test:8081"}},
		"https://huggingface.co/u/r/resolve/main/m.gguf":  {"", nil},
		"http://huggingface.co/u/r/resolve/main/m.gguf":   {"", nil},
		"https://huggingface.co/u/r/resolve/main/m2.gguf": {"http://hub.test", nil},
		"http://files.test/m.gguf":                        {"http://hub.test", []string{"files.test"}},
		"http://files.test/redirected.gguf":               {"http://hub.test", []string{"files.test"}},
	} {
		t.Run(address, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
					if strings.Contains(r.URL.Path, "redirected") {
						http.Redirect(rw, r, "http://hub.test/m.gguf", http.StatusFound)
						return
					}
					serve(rw, r, a)
				}))
				w.client.Hub, w.client.Offline = tt.hub, true
				_, err := w.client.Probe(t.Context(), parse(t, address))
				if blocked := tt.asked == nil || strings.Contains(address, "redirected"); errors.Is(err, fetch.ErrOffline) != blocked || !blocked && err != nil {
					t.Errorf("%v", err)
				}
				var asked []string
				for _, r := range w.requests {
					asked = append(asked, r.Host)
				}
				if !slices.Equal(asked, tt.asked) {
					t.Errorf("asked %q, want %q", asked, tt.asked)
				}
			})
		})
	}
}

// A token from a file is named in errors, and a stale one does not make a public
// file unreadable. HF_TOKEN was given for this run, so it is not left out.
func TestTokenOfFile(t *testing.T) {
	a := blob(t, 1)
	home, err := os.UserHomeDir()
	if err != nil {
		t.Fatal(err)
	}
	const sent = "Bearer hf_t0ken"
	for name, tt := range map[string]struct {
		file   string
		answer func(token string) int // status
		text   string                 // of the error; empty: none
		tokens []string
	}{
		"stale": {"/f/token", func(token string) int {
			if token != "" {
				return 401
			}
			return 200
		}, "", []string{sent, ""}},
		"refused":    {"/f/token", func(string) int { return 401 }, ": the token in /f/token gives no access", []string{sent, ""}},
		"at home":    {home + "/x/token", func(string) int { return 403 }, ": the token in ~/x/token gives no access", []string{sent}},
		"HF_TOKEN":   {"", func(string) int { return 401 }, ": HF_TOKEN gives no access", []string{sent}},
		"a good one": {"/f/token", func(string) int { return 200 }, "", []string{sent}},
		"not there":  {"/f/token", func(string) int { return 404 }, "no such file", []string{sent}},
		"then a limit": {"/f/token", func(token string) int {
			if token != "" {
				return 401
			}
			return 410
		}, "410 gone", []string{sent, ""}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
					if code := tt.answer(r.Header.Get("Authorization")); code != 200 {
						rw.WriteHeader(code)
						return
					}
					serve(rw, r, a)
				}))
				w.client.TokenFile = tt.file
				_, err := w.client.Probe(t.Context(), parse(t, "hf:u/r/m.gguf"))
				if (err == nil) != (tt.text == "") || err != nil && !strings.Contains(err.Error(), tt.text) {
					t.Errorf("%v, want %q", err, tt.text)
				}
				var tokens []string
				for _, r := range w.requests {
					tokens = append(tokens, r.Token)
				}
				if !slices.Equal(tokens, tt.tokens) {
					t.Errorf("sent %q, want %q", tokens, tt.tokens)
				}
			})
		})
	}
}

// Here says that a file was fetched from elsewhere; it does not deny that it exists.
func TestHereOfAnotherSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, dir := blob(t, 1), t.TempDir()
		w := newWorld(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { serve(rw, r, a) }))
		if _, err := w.client.Fetch(t.Context(), parse(t, plainURL), dir, fetch.Options{}); err != nil {
			t.Fatal(err)
		}
		_, err := w.client.Here(parse(t, "hf:u/r/m.gguf"), dir)
		want := filepath.Join(dir, "m.gguf") + " exists, but it was fetched from another source"
		if !errors.Is(err, fetch.ErrNotFound) || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	})
}

func readAll(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
