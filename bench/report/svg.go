package report

import (
	"bytes"
	"fmt"
	"html/template"
	"image/color"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// figure is a plot with what a page says about it.
type figure struct {
	Caption string
	SVG     template.HTML
	Notes   []string // below the plot
}

// The colors of plots stand for the variables of page.html with the same number or
// name. The page sets those for light and dark. svg replaces them. Black and white
// are not among them: vgsvg leaves black out.
var (
	textColor  = color.RGBA{0xF1, 0xF1, 0x01, 0xFF}
	gridColor  = color.RGBA{0xF1, 0xF1, 0x02, 0xFF}
	quietColor = color.RGBA{0xF1, 0xF1, 0x03, 0xFF}
)

// seriesColors is the number of variables --s0, --s1 and so on of page.html.
const seriesColors = 6

func seriesColor(i int) color.Color {
	return color.RGBA{0xF0, 0xF0, uint8(i % seriesColors), 0xFF}
}

// pageStyle replaces colors by variables of the page.
var pageStyle = func() *strings.Replacer {
	// gonum/plot draws glyphs without a fill with lines too thin to see.
	pairs := []string{"stroke-width:0.5", "stroke-width:1.2", "#F1F101", "var(--text)", "#F1F102", "var(--grid)", "#F1F103", "var(--quiet)"}
	for i := range seriesColors {
		pairs = append(pairs, fmt.Sprintf("#F0F0%02X", i), fmt.Sprintf("var(--s%d)", i))
	}
	return strings.NewReplacer(pairs...)
}()

// Series differ in shape and dash too: a page can be read in grey.
var (
	glyphs = []draw.GlyphDrawer{
		draw.CircleGlyph{}, draw.SquareGlyph{}, draw.PyramidGlyph{}, draw.RingGlyph{}, draw.BoxGlyph{}, draw.TriangleGlyph{}, draw.PlusGlyph{},
	}
	dashes = [][]vg.Length{nil, {6, 3}, {2, 2}, {8, 3, 2, 3}, {10, 4, 2, 2, 2, 4}}
)

func glyph(i int) draw.GlyphStyle {
	return draw.GlyphStyle{Color: seriesColor(i), Radius: 3.5, Shape: glyphs[i%len(glyphs)]}
}

func line(i int) draw.LineStyle {
	return draw.LineStyle{Color: seriesColor(i), Width: 1.5, Dashes: dashes[i%len(dashes)]}
}

// Sizes of plots, in the unit of their view boxes. A page shows a unit as about a pixel.
const (
	plotWidth    = 520
	plotHeight   = 300
	legendRow    = 17
	rowHeight    = 20 // of plots that have a row for each test
	fontSize     = 12
	maxLabelRune = 38 // of a name in a plot
)

// newPlot returns a plot in the style of the page.
func newPlot(x, y string) *plot.Plot {
	p := plot.New()
	p.BackgroundColor = nil
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		a.Color, a.Tick.Color = quietColor, quietColor
		a.Label.TextStyle.Color, a.Tick.Label.Color = textColor, textColor
		a.Label.TextStyle.Font, a.Tick.Label.Font = sans(), sans()
		a.Label.Padding, a.Tick.Length, a.Padding = 4, 4, 0
	}
	p.X.Label.Text, p.Y.Label.Text = x, y
	grid := plotter.NewGrid()
	grid.Vertical.Color, grid.Horizontal.Color = gridColor, gridColor
	grid.Vertical.Width, grid.Horizontal.Width = 0.75, 0.75
	p.Add(grid)
	return p
}

func sans() font.Font { return font.From(font.Font{Typeface: "Liberation", Variant: "Sans"}, fontSize) }

// entry is one line of a legend.
type entry struct {
	name   string
	thumbs []plot.Thumbnailer
}

// svg draws a plot of a height with a legend below it. description tells in words what
// the plot shows. The text has the font of the page and the colors of its style sheet.
func svg(p *plot.Plot, height vg.Length, legend []entry, name, description string) template.HTML {
	columns := 1
	if len(legend) > 1 && !slices.ContainsFunc(legend, func(e entry) bool { return len([]rune(e.name)) > maxLabelRune-13 }) {
		columns = 2
	}
	rows := (len(legend) + columns - 1) / columns
	below := vg.Length(rows) * legendRow
	if rows > 0 {
		below += 8
	}
	c := vgsvg.New(plotWidth, height+below)
	all := draw.New(c)
	p.Draw(draw.Crop(all, 4, -14, below+2, -8))
	for column := range columns {
		l := plot.NewLegend()
		l.TextStyle.Font, l.TextStyle.Color = sans(), textColor
		l.Left, l.Top, l.ThumbnailWidth, l.Padding = true, true, 30, 4
		for i, e := range legend {
			if i/max(rows, 1) == column {
				l.Add(e.name, e.thumbs...)
			}
		}
		left := vg.Length(40 + column*plotWidth/2)
		l.Draw(draw.Crop(all, left, 0, 0, -height-4))
	}
	var b bytes.Buffer
	_, _ = c.WriteTo(&b) // a buffer takes all
	body := b.String()
	body = body[strings.Index(body, "<svg"):]
	body = body[strings.Index(body, ">")+1:]
	head := fmt.Sprintf(`<svg viewBox="0 0 %d %.0f" role="img"><title>%s</title><desc>%s</desc>`,
		plotWidth, float64(height+below), template.HTMLEscapeString(name), template.HTMLEscapeString(description))
	// vgsvg and html/template escape the texts.
	return template.HTML(head + pageStyle.Replace(fontStyle.ReplaceAllString(body, ""))) //nolint:gosec
}

// fontStyle matches what vgsvg says about fonts. The page says it instead.
var fontStyle = regexp.MustCompile(`font-family:[^;"<>]*;font-variant:[^;"<>]*;font-weight:[^;"<>]*;font-style:[^;"<>]*;(font-size:[^;"<>]*;)?`)

// short is a name that fits into a plot: without folders and the usual extension. The
// middle of a long name is left out.
func short(name string) string {
	name = printable(name)
	if i := strings.LastIndexByte(strings.TrimRight(name, "/"), '/'); i >= 0 {
		name = name[i+1:]
	}
	r := []rune(strings.TrimSuffix(name, ".gguf"))
	if len(r) > maxLabelRune {
		r = slices.Concat(r[:maxLabelRune/2], []rune("…"), r[len(r)-maxLabelRune/2+1:])
	}
	return string(r)
}

// logAxis makes an axis logarithmic, over values above 0, with ticks at 1, 2 and 5 times
// powers of ten. It does not change the values' order.
func logAxis(a *plot.Axis, low, high float64) {
	ticks := decades(low/1.1, high*1.1)
	a.Scale, a.Min, a.Max = plot.LogScale{}, ticks[0], ticks[len(ticks)-1]
	for len(ticks) > 8 { // the labels would touch: powers of ten only, then every second of them
		ticks = powers(ticks)
	}
	a.Tick.Marker = constantTicks(ticks)
}

// decades lists 1, 2 and 5 times powers of ten from the greatest that is not above low
// to the least that is not below high.
func decades(low, high float64) []float64 {
	var ticks []float64
	for e := int(math.Floor(math.Log10(low))); ; e++ {
		for _, m := range []string{"1", "2", "5"} {
			v, err := strconv.ParseFloat(m+"e"+strconv.Itoa(e), 64) // without the error of a multiplication
			if err != nil || v <= 0 {
				continue
			}
			if v <= low {
				ticks = ticks[:0]
			}
			ticks = append(ticks, v)
			if v >= high && len(ticks) > 1 {
				return ticks
			}
		}
	}
}

// powers leaves out ticks: those that are no powers of ten, or every second one.
func powers(ticks []float64) []float64 {
	kept := slices.DeleteFunc(slices.Clone(ticks), func(v float64) bool { return math.Abs(math.Log10(v)-math.Round(math.Log10(v))) > 0.01 })
	if len(kept) < len(ticks) {
		return kept
	}
	for i := range (len(ticks) + 1) / 2 {
		kept[i] = ticks[2*i]
	}
	return kept[:(len(ticks)+1)/2]
}

func constantTicks(values []float64) plot.ConstantTicks {
	var ticks plot.ConstantTicks
	for _, v := range values {
		ticks = append(ticks, plot.Tick{Value: v, Label: strconv.FormatFloat(v, 'f', -1, 64)})
	}
	return ticks
}

// lengthAxis is a logarithmic axis with ticks at lengths in tokens. Where labels would
// touch, the shorter length has none.
func lengthAxis(a *plot.Axis, lengths []int) {
	slices.Sort(lengths)
	lengths = slices.Compact(lengths)
	low, high := float64(lengths[0]), float64(lengths[len(lengths)-1])
	a.Scale, a.Min, a.Max = plot.LogScale{}, low/1.25, high*1.25
	var ticks plot.ConstantTicks
	whole := math.Log(a.Max / a.Min)
	last := math.Inf(1)
	for _, n := range slices.Backward(lengths) {
		if at := math.Log(float64(n)/a.Min) / whole; last-at > 0.09 {
			ticks, last = append(ticks, plot.Tick{Value: float64(n), Label: strconv.Itoa(n)}), at
		}
	}
	a.Tick.Marker = ticks
}

// dots draws small squares of one color in one path, which keeps pages with thousands of
// repetitions small.
type dots struct {
	plotter.XYs
	color color.Color
	size  vg.Length
}

// Plot implements plot.Plotter.
func (d dots) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	var path vg.Path
	for _, at := range d.XYs {
		left, low := x(at.X)-d.size/2, y(at.Y)-d.size/2
		path.Move(vg.Point{X: left, Y: low})
		path.Line(vg.Point{X: left + d.size, Y: low})
		path.Line(vg.Point{X: left + d.size, Y: low + d.size})
		path.Line(vg.Point{X: left, Y: low + d.size})
		path.Close()
	}
	c.SetColor(d.color)
	c.Fill(path)
}

// Thumbnail implements plot.Thumbnailer.
func (d dots) Thumbnail(c *draw.Canvas) {
	c.DrawGlyphNoClip(draw.GlyphStyle{Color: d.color, Radius: d.size / 2, Shape: draw.BoxGlyph{}}, c.Center())
}

// intervals draws horizontal lines, from X to High at Y.
type intervals struct {
	from, to plotter.XYs
	style    draw.LineStyle
}

// Plot implements plot.Plotter.
func (v intervals) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	for i := range v.from {
		c.StrokeLine2(v.style, x(v.from[i].X), y(v.from[i].Y), x(v.to[i].X), y(v.to[i].Y))
	}
}
