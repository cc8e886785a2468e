package main

import (
	"fmt"
	"html"
	"strconv"
	"strings"
	"unicode/utf8"
)

// style is how a cell looks. A colour is "#rrggbb", or empty for the default.
type style struct {
	foreground, background string
	bold, faint, underline bool
	inverse                bool
}

// span is a text of one style on one line.
type span struct {
	text string
	style
}

// Colours of the picture. The background is part of it, so the picture is
// readable on a light and on a dark page.
const (
	backgroundColour = "#0d1117"
	textColour       = "#e6edf3"
)

// palette are the sixteen colours of a terminal.
var palette = [16]string{
	"#484f58", "#ff7b72", "#3fb950", "#d29922", "#58a6ff", "#bc8cff", "#39c5cf", "#b1bac4",
	"#6e7681", "#ffa198", "#56d364", "#e3b341", "#79c0ff", "#d2a8ff", "#56d4dd", "#ffffff",
}

// colour256 is colour n of the 256 that terminals have.
func colour256(n int) string {
	switch {
	case n < 0 || n > 255:
		return ""
	case n < 16:
		return palette[n]
	case n < 232: // a cube of 6×6×6
		level := func(v int) int {
			if v == 0 {
				return 0
			}
			return 55 + 40*v
		}
		n -= 16
		return fmt.Sprintf("#%02x%02x%02x", level(n/36), level(n/6%6), level(n%6))
	default:
		grey := 8 + 10*(n-232)
		return fmt.Sprintf("#%02x%02x%02x", grey, grey, grey)
	}
}

// parse splits what a terminal shows into spans, line by line. Of escape
// sequences it knows those of colours and styles (SGR); it drops the others.
func parse(screen string) [][]span {
	var lines [][]span
	var now style
	for _, line := range strings.Split(screen, "\n") {
		var spans []span
		for line != "" {
			text, rest, escaped := strings.Cut(line, "\x1b")
			if text != "" {
				spans = append(spans, span{text, now})
			}
			if !escaped {
				break
			}
			line = now.escape(rest)
		}
		lines = append(lines, spans)
	}
	return lines
}

// escape applies the sequence that s begins with, without its escape character,
// and returns what follows it.
func (st *style) escape(s string) string {
	if !strings.HasPrefix(s, "[") {
		_, size := utf8.DecodeRuneInString(s)
		return s[size:] // a sequence of one character
	}
	end := strings.IndexFunc(s[1:], func(r rune) bool { return r >= '@' && r <= '~' }) + 1
	if end == 0 {
		return ""
	}
	if s[end] == 'm' {
		st.apply(s[1:end])
	}
	return s[end+1:]
}

// apply changes the style by the parameters of one SGR sequence.
func (st *style) apply(parameters string) {
	var codes []int
	for field := range strings.FieldsFuncSeq(parameters, func(r rune) bool { return r == ';' || r == ':' }) {
		n, err := strconv.Atoi(field)
		if err != nil {
			return
		}
		codes = append(codes, n)
	}
	if len(codes) == 0 {
		codes = []int{0}
	}
	for i := 0; i < len(codes); i++ {
		switch n := codes[i]; {
		case n == 0:
			*st = style{}
		case n == 1:
			st.bold = true
		case n == 2:
			st.faint = true
		case n == 4:
			st.underline = true
		case n == 7:
			st.inverse = true
		case n == 22:
			st.bold, st.faint = false, false
		case n == 24:
			st.underline = false
		case n == 27:
			st.inverse = false
		case n >= 30 && n <= 37:
			st.foreground = palette[n-30]
		case n >= 90 && n <= 97:
			st.foreground = palette[n-90+8]
		case n == 39:
			st.foreground = ""
		case n >= 40 && n <= 47:
			st.background = palette[n-40]
		case n >= 100 && n <= 107:
			st.background = palette[n-100+8]
		case n == 49:
			st.background = ""
		case n == 38 || n == 48:
			colour, used := extended(codes[i+1:])
			i += used
			if n == 38 {
				st.foreground = colour
			} else {
				st.background = colour
			}
		}
	}
}

// extended is the colour after a code 38 or 48, and the number of codes that it
// takes.
func extended(codes []int) (colour string, used int) {
	switch {
	case len(codes) >= 2 && codes[0] == 5:
		return colour256(codes[1]), 2
	case len(codes) >= 4 && codes[0] == 2:
		return fmt.Sprintf("#%02x%02x%02x", codes[1]&255, codes[2]&255, codes[3]&255), 4
	default:
		return "", len(codes)
	}
}

// Sizes of the picture, in its units: a cell is what a monospaced font of 14
// takes.
const (
	fontSize   = 14
	cellWidth  = 8.4
	cellHeight = 19
	margin     = 16
	bar        = 30 // above the text, with the three dots of a window
)

// svg draws lines of a terminal of so many columns. It names fonts that systems
// have and sets the length of every text, so columns align in any of them.
func svg(lines [][]span, title string, columns int) string {
	width, height := float64(columns)*cellWidth+2*margin, float64(len(lines)*cellHeight+bar+margin)
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" width="%.0f" height="%.0f" role="img" aria-labelledby="title description">`+"\n", width, height, width, height)
	fmt.Fprintf(&b, "<title id=\"title\">%s</title>\n<desc id=\"description\">%s</desc>\n", html.EscapeString(title), html.EscapeString(plain(lines)))
	fmt.Fprintf(&b, `<rect width="%.0f" height="%.0f" rx="8" fill="%s" stroke="#30363d"/>`+"\n", width, height, backgroundColour)
	for i, colour := range []string{"#ff5f56", "#ffbd2e", "#27c93f"} {
		fmt.Fprintf(&b, `<circle cx="%d" cy="16" r="5" fill="%s"/>`+"\n", margin+4+18*i, colour)
	}
	fmt.Fprintf(&b, `<g font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', 'Liberation Mono', monospace" font-size="%d" fill="%s" xml:space="preserve">`+"\n", fontSize, textColour)
	for row, spans := range lines {
		column := 0
		y := float64(bar + row*cellHeight)
		for _, s := range spans {
			n := utf8.RuneCountInString(s.text)
			b.WriteString(s.draw(float64(margin)+float64(column)*cellWidth, y, float64(n)*cellWidth))
			column += n
		}
	}
	b.WriteString("</g>\n</svg>\n")
	return b.String()
}

// draw is the span as elements, its cells' upper left corner at x, y.
func (s span) draw(x, y, width float64) string {
	foreground, background := s.foreground, s.background
	if s.inverse {
		if foreground == "" {
			foreground = textColour
		}
		if background == "" {
			background = backgroundColour
		}
		foreground, background = background, foreground
	}
	var b strings.Builder
	if background != "" {
		fmt.Fprintf(&b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%d" fill="%s"/>`+"\n", x, y, width, cellHeight, background)
	}
	trimmed := strings.TrimLeft(s.text, " ")
	skipped := float64(len(s.text)-len(trimmed)) * cellWidth
	trimmed = strings.TrimRight(trimmed, " ")
	if trimmed == "" {
		return b.String()
	}
	attributes := ""
	if foreground != "" {
		attributes += fmt.Sprintf(` fill="%s"`, foreground)
	}
	if s.bold {
		attributes += ` font-weight="bold"`
	}
	if s.faint {
		attributes += ` opacity="0.65"`
	}
	if s.underline {
		attributes += ` text-decoration="underline"`
	}
	fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" textLength="%.1f"%s>%s</text>`+"\n", x+skipped, y+fontSize,
		float64(utf8.RuneCountInString(trimmed))*cellWidth, attributes, html.EscapeString(trimmed))
	return b.String()
}

// plain is the text alone.
func plain(lines [][]span) string {
	var b strings.Builder
	for i, spans := range lines {
		if i > 0 {
			b.WriteByte('\n')
		}
		var line strings.Builder
		for _, s := range spans {
			line.WriteString(s.text)
		}
		b.WriteString(strings.TrimRight(line.String(), " "))
	}
	return b.String()
}
