package fetch_test

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench/fetch"
)

const commit = "0123456789abcdef0123456789abcdef01234567"

func TestHubSettings(t *testing.T) {
	home := t.TempDir()
	write(t, filepath.Join(home, "token"), "hf_file\n")
	other := filepath.Join(t.TempDir(), "other")
	write(t, other, "hf_other")
	for name, tt := range map[string]struct {
		env  map[string]string
		want fetch.Client
	}{
		"nothing but a home": {map[string]string{"HF_HOME": home}, fetch.Client{Token: "hf_file", HubCache: filepath.Join(home, "hub")}},
		"all": {
			map[string]string{"HF_HOME": home, "HF_ENDPOINT": "https://mirror.example/", "HF_TOKEN": "hf_env", "HF_HUB_CACHE": "/cache", "HF_HUB_OFFLINE": "yes"},
			fetch.Client{Hub: "https://mirror.example", Token: "hf_env", HubCache: "/cache", Offline: true},
		},
		"another token file": {map[string]string{"HF_HOME": home, "HF_TOKEN_PATH": other, "HF_HUB_OFFLINE": "0"}, fetch.Client{Token: "hf_other", HubCache: filepath.Join(home, "hub")}},
		"an empty home":      {map[string]string{"HF_HOME": "/none"}, fetch.Client{HubCache: "/none/hub"}},
	} {
		var got fetch.Client
		got.UseHubSettings(func(name string) string { return tt.env[name] })
		if got.Hub != tt.want.Hub || got.Token != tt.want.Token || got.HubCache != tt.want.HubCache || got.Offline != tt.want.Offline {
			t.Errorf("%s: hub %q, token %q, cache %q, offline %v", name, got.Hub, got.Token, got.HubCache, got.Offline)
		}
	}
}

// A file in the cache of the hub's own tools is used and not copied: at a commit
// without a question, at a branch if the hub must not be asked. What is not there is
// not asked for offline.
func TestHubCache(t *testing.T) {
	a := blob(t, 1)
	cache := t.TempDir()
	repository := filepath.Join(cache, "models--u--r")
	for _, dir := range []string{"refs", "blobs", "snapshots/" + commit + "/sub"} {
		if err := os.MkdirAll(filepath.Join(repository, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(repository, "refs", "main"), commit)
	write(t, filepath.Join(repository, "blobs", sha(a)), string(a))
	path := filepath.Join(repository, "snapshots", commit, "sub", "m.gguf")
	if err := os.Symlink(filepath.Join(repository, "blobs", sha(a)), path); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		source  string
		offline bool
		path    string // empty: in the directory
		want    error
		asked   bool
	}{
		"a commit":              {"hf:u/r/sub/m.gguf@" + commit, false, path, nil, false},
		"a branch":              {"hf:u/r/sub/m.gguf", false, "", nil, true},
		"a branch, offline":     {"hf:u/r/sub/m.gguf", true, path, nil, false},
		"another file":          {"hf:u/r/sub/n.gguf@" + commit, false, "", nil, true},
		"another file, offline": {"hf:u/r/sub/n.gguf@" + commit, true, "", fetch.ErrOffline, false},
		"another commit":        {"hf:u/r/sub/m.gguf@" + commit[:39] + "0", true, "", fetch.ErrOffline, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, dir := newWorld(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { serve(rw, r, a) })), t.TempDir()
				w.client.HubCache, w.client.Offline = cache, tt.offline
				file, err := w.client.Fetch(t.Context(), parse(t, tt.source), dir, fetch.Options{})
				if !errors.Is(err, tt.want) {
					t.Fatalf("%v, want %v", err, tt.want)
				}
				if err == nil && tt.path != "" && file.Path != tt.path || err == nil && tt.path == "" && filepath.Dir(file.Path) != dir {
					t.Errorf("the file is %s", file.Path)
				}
				if asked := len(w.ranges()) > 0; asked != tt.asked {
					t.Errorf("asked: %v", asked)
				}
				if diff := cmp.Diff(a, readAll(t, filepath.Join(repository, "blobs", sha(a)))); diff != "" {
					t.Error("the cache was changed")
				}
			})
		})
	}
}

func readAll(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
