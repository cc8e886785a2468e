package report

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/stats"
)

// point is the speed of a test: median and the interval of the median, in tokens/second.
type point struct{ tokens, median, low, high float64 }

// series is a line of a plot of speeds.
type series struct {
	name    string
	points  []point
	stopped []int // lengths of the tests without a record
}

// add adds an outcome of a pp or tg test.
func (s *series) add(o result.Outcome) {
	n := o.Test.Tokens()
	if o.Record == nil {
		s.stopped = append(s.stopped, n)
		return
	}
	sample, err := stats.New(o.Record.SamplesTS)
	if err != nil || sample.Min() <= 0 { // a logarithmic axis has no place for it
		return
	}
	p := point{float64(n), sample.Median(), sample.Median(), sample.Median()}
	if ci, ok := sample.MedianCI(confidence); ok {
		p.low, p.high = ci.Low, ci.High
	}
	s.points = append(s.points, p)
}

// speeds are the plots of speed against length: of one run, pp and tg with a line for
// each model. Of several runs, the same for each model with a line for each run.
func speeds(runs []PageRun) []figure {
	type place struct {
		model string
		kind  result.Kind
	}
	var places []place
	lines := map[place][]*series{}
	for _, kind := range []result.Kind{result.PromptProcessing, result.TextGeneration} {
		for _, run := range runs {
			for _, o := range run.Outcomes {
				if o.Test.Kind() != kind {
					continue
				}
				at, name := place{kind: kind}, short(o.Model)
				if len(runs) > 1 {
					at.model, name = name, short(run.Label)
				}
				if o.Test.Depth > 0 {
					name += fmt.Sprintf(" @ d%d", o.Test.Depth)
				}
				if !slices.Contains(places, at) {
					places = append(places, at)
				}
				i := slices.IndexFunc(lines[at], func(s *series) bool { return s.name == name })
				if i < 0 {
					i = len(lines[at])
					lines[at] = append(lines[at], &series{name: name})
				}
				lines[at][i].add(o)
			}
		}
	}
	var figures []figure
	for _, at := range places {
		caption := map[result.Kind]string{result.PromptProcessing: "Prompt processing (pp)", result.TextGeneration: "Text generation (tg)"}[at.kind]
		if at.model != "" {
			caption = at.model + ": " + strings.ToLower(caption[:1]) + caption[1:]
		}
		if f, ok := speedPlot(caption, lines[at], runs[0].Targets[at.kind]); ok {
			figures = append(figures, f)
		}
	}
	return figures
}

// speedPlot plots series. It is not ok without a point.
func speedPlot(caption string, all []*series, targets []Target) (figure, bool) {
	low, high := math.Inf(1), 0.0
	var lengths []int
	for _, s := range all {
		slices.SortStableFunc(s.points, func(a, b point) int { return int(a.tokens - b.tokens) })
		for _, p := range s.points {
			low, high = min(low, p.low), max(high, p.high)
			lengths = append(lengths, int(p.tokens))
		}
	}
	if len(lengths) == 0 {
		return figure{}, false
	}
	for _, s := range all {
		lengths = append(lengths, s.stopped...)
	}
	var goal plotter.XYs
	for _, t := range targets {
		if slices.Contains(lengths, t.Tokens) && t.TokensPerSecond > 0 {
			goal = append(goal, plotter.XY{X: float64(t.Tokens), Y: t.TokensPerSecond})
			low, high = min(low, t.TokensPerSecond), max(high, t.TokensPerSecond)
		}
	}
	p := newPlot("length in tokens", "tokens/second")
	lengthAxis(&p.X, lengths)
	logAxis(&p.Y, low, high)
	var legend []entry
	var said []string
	step := math.Pow(p.Y.Max/p.Y.Min, 0.06)
	stopped := map[int]float64{} // stopped tests of a length, which are stacked
	for i, s := range all {
		var xys plotter.XYs
		errors := make(plotter.YErrors, len(s.points))
		var texts []string
		for k, at := range s.points {
			xys = append(xys, plotter.XY{X: at.tokens, Y: at.median})
			errors[k].Low, errors[k].High = at.low-at.median, at.high-at.median
			texts = append(texts, fmt.Sprintf("%.0f tokens %s", at.tokens, result.FormatRate(at.median)))
		}
		l, marks := &plotter.Line{XYs: xys, LineStyle: line(i)}, &plotter.Scatter{XYs: xys, GlyphStyle: glyph(i)}
		bars := &plotter.YErrorBars{XYs: xys, YErrors: errors, LineStyle: draw.LineStyle{Color: seriesColor(i), Width: 1}, CapWidth: 6}
		p.Add(l, bars, marks)
		var ends plotter.XYs
		for _, n := range s.stopped {
			stopped[n]++
			ends = append(ends, plotter.XY{X: float64(n), Y: p.Y.Min * math.Pow(step, stopped[n])})
			texts = append(texts, fmt.Sprintf("%d tokens stopped", n))
		}
		p.Add(&plotter.Scatter{XYs: ends, GlyphStyle: draw.GlyphStyle{Color: seriesColor(i), Radius: 4, Shape: draw.CrossGlyph{}}})
		legend = append(legend, entry{s.name, []plot.Thumbnailer{l, marks}})
		said = append(said, s.name+": "+strings.Join(texts, ", "))
	}
	if len(goal) > 0 {
		l := &plotter.Line{XYs: goal, LineStyle: draw.LineStyle{Color: quietColor, Width: 1, Dashes: []vg.Length{1, 3}}}
		p.Add(l)
		legend = append(legend, entry{"target of the suite", []plot.Thumbnailer{l}})
	}
	if len(stopped) > 0 {
		legend = append(legend, entry{"stopped, see the tables", []plot.Thumbnailer{
			&plotter.Scatter{GlyphStyle: draw.GlyphStyle{Color: textColor, Radius: 4, Shape: draw.CrossGlyph{}}},
		}})
	}
	return figure{Caption: caption, SVG: svg(p, plotHeight, legend, caption, "tokens/second by length. "+strings.Join(said, "; "))}, true
}

// most is the number of repetitions of a test that a plot shows.
const most = 200

// repetitions plots every repetition of a model's records, relative to the median of its
// test. It is not ok without one.
func repetitions(m *model) (figure, bool) {
	var names, notes, said []string
	var first, others plotter.XYs
	for _, r := range m.rows {
		if r.outcome.Record == nil {
			continue
		}
		sample, err := stats.New(r.outcome.Record.SamplesTS)
		if err != nil || sample.Median() <= 0 {
			continue
		}
		speeds := r.outcome.Record.SamplesTS
		if len(speeds) > most {
			notes = append(notes, fmt.Sprintf("%s: the first %d of %d repetitions", r.test, most, len(speeds)))
			speeds = speeds[:most]
		}
		y := -float64(len(names))
		names = append(names, r.test)
		for k, speed := range speeds {
			at := plotter.XY{X: 100 * speed / sample.Median(), Y: y + 0.3 - 0.6*(float64(k)+0.5)/float64(len(speeds))}
			if k == 0 {
				first = append(first, at)
			} else {
				others = append(others, at)
			}
		}
		said = append(said, fmt.Sprintf("%s from %.0f to %.0f %%, the first %.0f %%",
			r.test, 100*sample.Min()/sample.Median(), 100*sample.Max()/sample.Median(), 100*speeds[0]/sample.Median()))
	}
	if len(names) == 0 {
		return figure{}, false
	}
	p := newPlot("speed in % of the test's median", "")
	rowAxis(p, names)
	f := &plotter.Scatter{XYs: first, GlyphStyle: draw.GlyphStyle{Color: seriesColor(1), Radius: 4.5, Shape: draw.TriangleGlyph{}}}
	d := dots{others, seriesColor(0), 5}
	p.X.Min, p.X.Max = 99, 101
	for _, at := range slices.Concat(first, others) {
		p.X.Min, p.X.Max = min(p.X.Min, at.X), max(p.X.Max, at.X)
	}
	edge := (p.X.Max - p.X.Min) / 50 // no glyph is on the axis
	p.X.Min, p.X.Max = p.X.Min-edge, p.X.Max+edge
	p.Add(f, d)
	caption := "Every repetition of " + short(m.name)
	legend := []entry{{"first repetition", []plot.Thumbnailer{f}}, {"the others, in order downwards", []plot.Thumbnailer{d}}}
	return figure{Caption: caption, Notes: notes, SVG: svg(p, rowsHeight(names), legend, caption, strings.Join(said, "; "))}, true
}

// rowAxis gives a plot a row for each name, the first one on top, at 0, -1 and so on.
func rowAxis(p *plot.Plot, names []string) {
	var ticks plot.ConstantTicks
	for i, name := range names {
		ticks = append(ticks, plot.Tick{Value: -float64(i), Label: short(name)})
	}
	p.Y.Min, p.Y.Max = -float64(len(names))+0.5, 0.5
	p.Y.Tick.Marker = ticks
}

func rowsHeight(names []string) vg.Length { return vg.Length(60 + rowHeight*len(names)) }

// timePlot plots where the time of a run went.
func timePlot(a result.Accounting) (figure, bool) {
	if a.Wall <= 0 {
		return figure{}, false
	}
	var names, said []string
	var bars intervals
	for i, part := range a.Parts() {
		names = append(names, part.Name)
		said = append(said, fmt.Sprintf("%s %s (%s)", part.Name, duration(part.Time), percent(a, part.Time)))
		bars.from = append(bars.from, plotter.XY{X: 0, Y: -float64(i)})
		bars.to = append(bars.to, plotter.XY{X: 100 * a.Share(part.Time), Y: -float64(i)})
	}
	bars.style = draw.LineStyle{Color: seriesColor(0), Width: 11}
	p := newPlot("% of the wall time", "")
	rowAxis(p, names)
	p.X.Min, p.X.Max = 0, 100
	p.Add(bars)
	return figure{Caption: "Where the time went", SVG: svg(p, rowsHeight(names), nil, "Where the time went", strings.Join(said, "; "))}, true
}

// gpuPlots plot what the drivers reported of GPUs, one value for each test at its time.
func gpuPlots(outcomes []result.Outcome) []figure {
	var figures []figure
	for _, of := range []struct {
		caption, unit string
		value         func(result.GPUTelemetry) (value, low, high float64, ok bool)
	}{
		{"GPU power, mean of each test", "W", func(t result.GPUTelemetry) (float64, float64, float64, bool) {
			if t.PowerWatts == nil {
				return 0, 0, 0, false
			}
			return *t.PowerWatts, *t.PowerWatts, *t.PowerWatts, true
		}},
		{"GPU clock, least and greatest of each test", "MHz", func(t result.GPUTelemetry) (float64, float64, float64, bool) {
			if t.SMClockMHz == nil {
				return 0, 0, 0, false
			}
			return t.SMClockMHz.Max, t.SMClockMHz.Min, t.SMClockMHz.Max, true
		}},
		{"GPU temperature, highest of each test", "°C", func(t result.GPUTelemetry) (float64, float64, float64, bool) {
			if t.TemperatureC == nil {
				return 0, 0, 0, false
			}
			return *t.TemperatureC, *t.TemperatureC, *t.TemperatureC, true
		}},
	} {
		var names []string
		points := map[string]plotter.XYs{}
		errors := map[string]plotter.YErrors{}
		var start time.Time
		for _, o := range outcomes {
			if o.Record == nil || o.Record.Ext.GPU == nil {
				continue
			}
			at, err := time.Parse(time.RFC3339, o.Record.TestTime)
			if err != nil {
				continue
			}
			if start.IsZero() {
				start = at
			}
			for _, d := range o.Record.Ext.GPU.Devices {
				v, low, high, ok := of.value(d.GPUTelemetry)
				if !ok {
					continue
				}
				name := spaced(printable(d.Name), short(d.Model))
				if !slices.Contains(names, name) {
					names = append(names, name)
				}
				points[name] = append(points[name], plotter.XY{X: at.Sub(start).Minutes(), Y: v})
				errors[name] = append(errors[name], struct{ Low, High float64 }{low - v, high - v})
			}
		}
		if len(names) == 0 {
			continue
		}
		p := newPlot("minutes since the first test", of.unit)
		p.Y.Min = 0
		var legend []entry
		var said []string
		for i, name := range names {
			l, marks := &plotter.Line{XYs: points[name], LineStyle: line(i)}, &plotter.Scatter{XYs: points[name], GlyphStyle: glyph(i)}
			p.Add(l, marks, &plotter.YErrorBars{XYs: points[name], YErrors: errors[name], LineStyle: draw.LineStyle{Color: seriesColor(i), Width: 1}, CapWidth: 6})
			legend = append(legend, entry{name, []plot.Thumbnailer{l, marks}})
			_, _, least, greatest := plotter.XYRange(points[name])
			said = append(said, fmt.Sprintf("%s from %.0f to %.0f %s", name, least, greatest, of.unit))
		}
		figures = append(figures, figure{Caption: of.caption, SVG: svg(p, plotHeight, legend, of.caption, strings.Join(said, "; "))})
	}
	return figures
}
