package main

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, screen string
		want         [][]span
	}{
		{"plain", "a b\nc", [][]span{{{text: "a b"}}, {{text: "c"}}}},
		{"colour and back", "\x1b[32mok\x1b[39m!", [][]span{{{"ok", style{foreground: palette[2]}}, {text: "!"}}}},
		{"bold, then none", "\x1b[1;91mx\x1b[0my", [][]span{{{"x", style{foreground: palette[9], bold: true}}, {text: "y"}}}},
		{"an empty sequence resets", "\x1b[2mx\x1b[my", [][]span{{{"x", style{faint: true}}, {text: "y"}}}},
		{"256 colours", "\x1b[38;5;196mx", [][]span{{{"x", style{foreground: "#ff0000"}}}}},
		{"a grey", "\x1b[48;5;232mx", [][]span{{{"x", style{background: "#080808"}}}}},
		{"true colour", "\x1b[38;2;1;2;3mx", [][]span{{{"x", style{foreground: "#010203"}}}}},
		{"a style goes on over lines", "\x1b[4ma\nb", [][]span{{{"a", style{underline: true}}}, {{"b", style{underline: true}}}}},
		{"other sequences are dropped", "a\x1b[2Kb\x1b(Bc", [][]span{{{text: "a"}, {text: "b"}, {text: "Bc"}}}},
		{"a sequence without an end", "a\x1b[31", [][]span{{{text: "a"}}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tc.want, parse(tc.screen), cmp.AllowUnexported(span{}, style{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestSVG: the picture is XML, has the text once for people who do not see it,
// and loads nothing from elsewhere.
func TestSVG(t *testing.T) {
	t.Parallel()
	picture := svg(parse("$ a <b> & \x1b[7mc\x1b[0m\n  ─── \x1b[33mWRN\x1b[0m"), "a <title>", 20)
	for d := xml.NewDecoder(strings.NewReader(picture)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, picture)
		}
		if e, ok := token.(xml.StartElement); ok {
			for _, a := range e.Attr {
				if a.Name.Local == "href" || a.Name.Local == "src" {
					t.Errorf("%s loads %s", e.Name.Local, a.Value)
				}
			}
		}
	}
	for _, want := range []string{"$ a &lt;b&gt; &amp; c\n  ─── WRN</desc>", "<title id=\"title\">a &lt;title&gt;", `fill="` + palette[3] + `">WRN<`} {
		if !strings.Contains(picture, want) {
			t.Errorf("%q is not in\n%s", want, picture)
		}
	}
}
