package fetch_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench/fetch"
)

func TestParseSource(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want fetch.Source
		name string
		text string
	}{
		{"hf:user/repo/m.gguf", fetch.Source{Repository: "user/repo", Revision: "main", File: "m.gguf"}, "m.gguf", "hf:user/repo/m.gguf@main"},
		{"HF:user/repo/sub/m.gguf@refs/pr/1", fetch.Source{Repository: "user/repo", Revision: "refs/pr/1", File: "sub/m.gguf"}, "m.gguf", "hf:user/repo/sub/m.gguf@refs/pr/1"},
		{"https://u:p@h.example/a/m%20x.gguf?sig=s3cret#f", fetch.Source{URL: "https://u:p@h.example/a/m%20x.gguf?sig=s3cret#f"}, "m x.gguf", "https://h.example/a/m%20x.gguf"},
		{"http://127.0.0.1:80/m.gguf", fetch.Source{URL: "http://127.0.0.1:80/m.gguf"}, "m.gguf", "http://127.0.0.1:80/m.gguf"},
		{"./a:b.gguf", fetch.Source{Path: "a:b.gguf"}, "a:b.gguf", "a:b.gguf"},
		{"/models//m.gguf", fetch.Source{Path: "/models/m.gguf"}, "m.gguf", "/models/m.gguf"},
	} {
		got, err := fetch.ParseSource(tt.in)
		if err != nil {
			t.Errorf("%s: %v", tt.in, err)
			continue
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.in, diff)
		}
		if got.Name() != tt.name || got.String() != tt.text || got.Local() != (tt.want.Path != "") {
			t.Errorf("%s: name %q, text %q, local %v", tt.in, got.Name(), got, got.Local())
		}
	}
}

func TestParseSourceRefuses(t *testing.T) {
	for in, want := range map[string]string{
		"":                                              "it is empty",
		"s3://bucket/m.gguf":                            "unknown scheme s3, known are https, http, hf and file paths",
		"file:///m.gguf":                                "unknown scheme file",
		"https:m.gguf":                                  "not a URL that can be fetched",
		"https://":                                      "not a URL that can be fetched",
		"https://h.example/":                            "it names no file",
		"https://h.example":                             "it names no file",
		"https://h.example/dir/":                        "it names no file",
		"https://h.example/a/../m.gguf":                 `".." cannot be part of its path`,
		"https://h.example/%2e%2e/m.gguf":               `".." cannot be part of its path`,
		"https://h.example/..%2fm.gguf":                 "hides a path separator",
		"https://h.example/..%5Cm.gguf":                 "hides a path separator",
		"https://h.example/a%00b.gguf":                  "is not a file name",
		"https://h.example/.bashrc":                     `starts with "."`,
		"https://h.example/-rf.gguf":                    `starts with "-"`,
		"https://h.example/m.gguf.part":                 "downloads use for themselves",
		"https://h.example/m.gguf.part.json":            "downloads use for themselves",
		"https://h.example/" + strings.Repeat("m", 201): "longer than 200",
		"hf:user/repo":                                  "expected hf:user/repository/file[@revision]",
		"hf:user/repo/m.gguf@":                          "expected hf:user/repository/file[@revision]",
		"hf:user//m.gguf":                               "cannot be part of a name on the hub",
		"hf:user/repo/../m.gguf":                        "cannot be part of a name on the hub",
		"hf:user/repo/m.gguf@../x":                      "cannot be part of a name on the hub",
		"hf:user/repo/m.gguf?token=s3cret":              "cannot be part of a name on the hub",
		"m.gguf\n":                                      "control characters",
		"https://u:s3cret@h.example/?q=s3cret":          "it names no file",
	} {
		src, err := fetch.ParseSource(in)
		if !errors.Is(err, fetch.ErrSource) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q gives %v, %v; want %q", in, src, err, want)
		} else if strings.Contains(err.Error(), "://") && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%q leaks: %v", in, err)
		}
	}
}

func TestLooksLikeSource(t *testing.T) {
	for in, want := range map[string]bool{"hf:a/b/c": true, "https://h/x": true, "./m": true, "M.GGUF": true, "s3://x": true, "plan": false, "run": false, "": false} {
		if got := fetch.LooksLikeSource(in); got != want {
			t.Errorf("%q: %v", in, got)
		}
	}
}

func TestBeside(t *testing.T) {
	for in, want := range map[string]string{
		"hf:u/r/a.gguf":                            "hf:u/r/b.gguf@main",
		"hf:u/r/sub/dir/a.gguf@refs/pr/1":          "hf:u/r/sub/dir/b.gguf@refs/pr/1",
		"https://h.example/a.gguf":                 "https://h.example/b.gguf",
		"https://h.example//x%20y/a%20.gguf?k=v#f": "https://h.example//x%20y/b.gguf?k=v#f",
		"http://u:p@[::1]:8080/%41/a.gguf":         "http://u:p@[::1]:8080/%41/b.gguf",
	} {
		got := parse(t, in).Beside("b.gguf")
		text := got.URL
		if text == "" {
			text = got.String()
		}
		if text != want || got.Name() != "b.gguf" {
			t.Errorf("beside %s there is %s, want %s", in, text, want)
		}
	}
	if got := parse(t, "https://h.example/a.gguf").Beside("50 %.gguf"); got.Name() != "50 %.gguf" {
		t.Errorf("got %s", got)
	}
}

func TestCheckNames(t *testing.T) {
	a, b := parse(t, "https://h.example/a/m.gguf?k=s3cret"), parse(t, "https://h.example/b/m.gguf")
	if err := fetch.CheckNames([]fetch.Source{a, a, parse(t, "other.gguf")}); err != nil {
		t.Error(err)
	}
	err := fetch.CheckNames([]fetch.Source{a, b})
	if want := "bad model source: https://h.example/a/m.gguf and https://h.example/b/m.gguf have the same file name"; !errors.Is(err, fetch.ErrSource) || err.Error() != want {
		t.Errorf("got %v", err)
	}
}

// Whatever is accepted names a plain file in the models directory.
func FuzzParseSource(f *testing.F) {
	for _, s := range []string{"hf:u/r/f@v", "https://h/a%2fb", "http://[::1]/x?y#z", "a/b", "C:x", "https://h/..", "hf:a/b/c/@d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		src, err := fetch.ParseSource(s)
		if err != nil {
			if !errors.Is(err, fetch.ErrSource) {
				t.Errorf("%q: %v", s, err)
			}
			return
		}
		if name := src.Name(); !src.Local() && (name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\\\x00")) {
			t.Errorf("%q has the name %q", s, name)
		}
		if again, err := fetch.ParseSource(src.String()); err == nil && again.String() != src.String() {
			t.Errorf("%q prints as %q and then as %q", s, src, again)
		}
	})
}

func parse(t testing.TB, s string) fetch.Source {
	t.Helper()
	src, err := fetch.ParseSource(s)
	if err != nil {
		t.Fatal(err)
	}
	return src
}
