package source_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench/source"
)

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want source.Source // without Given
		name string
		text string
	}{
		{"hf:user/repo/m.gguf", source.Source{Repository: "user/repo", Revision: "main", File: "m.gguf"}, "m.gguf", "hf:user/repo/m.gguf@main"},
		{"HF:user/repo/sub/m.gguf@refs/pr/1", source.Source{Repository: "user/repo", Revision: "refs/pr/1", File: "sub/m.gguf"}, "m.gguf", "hf:user/repo/sub/m.gguf@refs/pr/1"},
		{"https://u:p@h.example/a/m%20x.gguf?sig=s3cret#f", source.Source{URL: "https://u:p@h.example/a/m%20x.gguf?sig=s3cret#f"}, "m x.gguf", "https://h.example/a/m%20x.gguf"},
		{"http://127.0.0.1:80/m.gguf", source.Source{URL: "http://127.0.0.1:80/m.gguf"}, "m.gguf", "http://127.0.0.1:80/m.gguf"},
		{"./a:b.gguf", source.Source{Path: "a:b.gguf"}, "a:b.gguf", "a:b.gguf"},
		{"llama3:8b.gguf", source.Source{Path: "llama3:8b.gguf"}, "llama3:8b.gguf", "llama3:8b.gguf"},
		{"c:m.gguf", source.Source{Path: "c:m.gguf"}, "c:m.gguf", "c:m.gguf"},
		{`C:\m.gguf`, source.Source{Path: `C:\m.gguf`}, `C:\m.gguf`, `C:\m.gguf`},
		{"./hf:m.gguf", source.Source{Path: "hf:m.gguf"}, "hf:m.gguf", "hf:m.gguf"},
		{"/models//m.gguf", source.Source{Path: "/models/m.gguf"}, "m.gguf", "/models/m.gguf"},
	} {
		got, err := source.Parse(tt.in)
		if err != nil {
			t.Errorf("%s: %v", tt.in, err)
			continue
		}
		tt.want.Given = tt.in
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.in, diff)
		}
		if got.Name() != tt.name || got.String() != tt.text || got.Local() != (tt.want.Path != "") {
			t.Errorf("%s: name %q, text %q, local %v", tt.in, got.Name(), got, got.Local())
		}
	}
}

func TestParts(t *testing.T) {
	t.Chdir(t.TempDir())
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]string{
		"/a/../b/m.gguf":              "b/m.gguf",
		"x/m.gguf":                    strings.TrimPrefix(wd, "/") + "/x/m.gguf",
		"hf:u/r/sub/m.gguf@refs/pr/1": "refs%2Fpr%2F1/u/r/sub/m.gguf",
		"https://u:s3cret@h.example:1//a%0a/m%20x?k=v": "https/h.example:1/a%0a/m x",
	} {
		if got := strings.Join(parse(t, in).Parts(), "/"); got != want {
			t.Errorf("%s has %s, want %s", in, got, want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for in, want := range map[string]string{
		"":                                              "it is empty",
		"s3://bucket/m.gguf":                            "unknown scheme s3; known are https, http, hf and file paths",
		"file:///m.gguf":                                "unknown scheme file",
		"https:m.gguf":                                  "not a valid URL",
		"http:m.gguf":                                   "not a valid URL",
		"hf:m.gguf":                                     "expected hf:user/repository/file[@revision]",
		"https://":                                      "not a valid URL",
		"https://h.example/":                            "it names no file",
		"https://h.example":                             "it names no file",
		"https://h.example/dir/":                        "it names no file",
		"https://h.example/a/../m.gguf":                 `".." cannot be part of its path`,
		"https://h.example/%2e%2e/m.gguf":               `".." cannot be part of its path`,
		"https://h.example/..%2fm.gguf":                 "contains a path separator",
		"https://h.example/..%5Cm.gguf":                 "contains a path separator",
		"https://h.example/a%00b.gguf":                  "is not a file name",
		"https://h.example/.bashrc":                     `starts with "."`,
		"https://h.example/-rf.gguf":                    `starts with "-"`,
		"https://h.example/m.gguf.part":                 "reserved for downloads in progress",
		"https://h.example/m.gguf.part.json":            "reserved for downloads in progress",
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
		src, err := source.Parse(in)
		if !errors.Is(err, source.ErrBad) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q gives %v, %v; want %q", in, src, err, want)
		} else if strings.Contains(err.Error(), "://") && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%q leaks: %v", in, err)
		}
	}
}

func TestExplicit(t *testing.T) {
	for in, want := range map[string]bool{"hf:a/b/c": true, "https://h/x": true, "./m": true, "M.GGUF": true, "s3://x": true, "plan": false, "run": false, "": false} {
		if got := source.Explicit(in); got != want {
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
		again := parse(t, got.Given)
		if got.Given != want || again != got || got.Name() != "b.gguf" {
			t.Errorf("beside %s there is %+v, want %s", in, got.Given, want)
		}
	}
	if got := parse(t, "https://h.example/a.gguf").Beside("50 %.gguf"); got.Name() != "50 %.gguf" {
		t.Errorf("got %s", got)
	}
}

// The rules hold for every name, from wherever it comes.
func TestCheckName(t *testing.T) {
	for name, want := range map[string]string{
		"m.gguf": "", "50 %.gguf": "", "ü.gguf": "", strings.Repeat("m", 200): "",
		"": `"" is not a file name`, ".": `"." is not a file name`, "..": `".." is not a file name`, "/": `"/" is not a file name`,
		"a/b": `"a/b" is not a file name`, `a\b`: `"a\\b" is not a file name`, "a\nb": `"a\nb" is not a file name`, "a\u009bb": `"a\u009bb" is not a file name`,
		".m": `file name ".m" starts with "."`, "-m": `file name "-m" starts with "-"`,
		strings.Repeat("m", 201): "file name of 201 bytes is longer than 200 bytes",
		"m.part":                 `file name "m.part" is reserved for downloads in progress`, "m.json": `file name "m.json" is reserved for downloads in progress`,
	} {
		got := ""
		if err := source.CheckName(name); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: %s, want %s", name, got, want)
		}
	}
}

// Neither a log nor an encoder shows a source's secrets.
func TestSecretsStayHidden(t *testing.T) {
	s := parse(t, "https://u:s3cret@h.example/m.gguf?sig=s3cret#s3cret")
	var text, jsonl bytes.Buffer
	slog.New(slog.NewTextHandler(&text, nil)).Info("m", "model", s)
	slog.New(slog.NewJSONHandler(&jsonl, nil)).Info("m", "model", s)
	encoded, err := json.Marshal(struct{ S source.Source }{s})
	if err != nil {
		t.Fatal(err)
	}
	for _, shown := range []string{text.String(), jsonl.String(), string(encoded), fmt.Sprintf("%v %+v %s", s, s, s)} {
		if strings.Contains(shown, "s3cret") || !strings.Contains(shown, "https://h.example/m.gguf") {
			t.Error(shown)
		}
	}
	if got := (source.Source{Given: s.Given}).String(); strings.Contains(got, "s3cret") {
		t.Error(got)
	}
	if (source.Source{}).Name() != "" || (source.Source{}).String() != "" {
		t.Error("the zero source has a name")
	}
}

// Whatever is accepted names a plain file in the models directory.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"hf:u/r/f@v", "https://h/a%2fb", "http://[::1]/x?y#z", "a/b", "C:x", "https://h/..", "hf:a/b/c/@d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		src, err := source.Parse(s)
		if err != nil {
			if !errors.Is(err, source.ErrBad) {
				t.Errorf("%q: %v", s, err)
			}
			return
		}
		if name := src.Name(); !src.Local() && (name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\\\x00")) {
			t.Errorf("%q has the name %q", s, name)
		}
		if again, err := source.Parse(src.String()); err == nil && again.String() != src.String() {
			t.Errorf("%q prints as %q and then as %q", s, src, again)
		}
	})
}

func parse(t testing.TB, s string) source.Source {
	t.Helper()
	src, err := source.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return src
}
