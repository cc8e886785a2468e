// Package compare answers which of several sides is faster, and how sure that is. A side
// is one or more runs; the first side is the base. Rows pair by what was measured: model,
// test and settings. The verdict of a row rests on an interval that allows for the
// spread within a run and between loads.
package compare

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/stats"
)

// Run is what one run measured.
type Run struct {
	Name    string // as given
	Records []result.Record
	Missing []result.Outcome // tests without a record, if they are known
}

// Side is one side of a comparison.
type Side struct {
	Label string
	Runs  []Run // at least one
}

// Options say how sides are compared.
type Options struct {
	Across []string    // factors that are compared, and may differ; of FactorNames
	Margin float64     // ratios within 1 ± Margin are called the same; 0.02 is 2 %
	Loads  stats.Loads // what is known about the spread between loads
}

// DefaultOptions has a margin of 2 %.
func DefaultOptions() Options { return Options{Margin: 0.02, Loads: stats.DefaultLoads()} }

// Confidence of every interval of a comparison.
const Confidence = 0.95

// Verdict is what the measurements show about a side.
type Verdict string

// The verdicts. Faster and Slower are corrected for the number of rows.
const (
	Faster  Verdict = "faster"
	Slower  Verdict = "slower"
	Same    Verdict = "same"    // the whole interval lies within the margin
	Unclear Verdict = "unclear" // more runs are needed
)

// Comparison is the answer.
type Comparison struct {
	Sides       []string     `json:"sides"`       // labels
	Runs        []int        `json:"runs"`        // of each side
	Margin      float64      `json:"margin"`      //
	Loads       stats.Loads  `json:"loads"`       //
	Differences []Difference `json:"differences"` // between the sides, of all that was measured
	Rows        []Row        `json:"rows"`        // that at least two sides have
	Means       []Mean       `json:"means"`       // geometric means of rows
	Alone       []Alone      `json:"alone"`       // records that could not be paired
	LeftOut     []Alone      `json:"left_out"`    // invalid records of sides that have others of the same test
}

// Corrected is the number of verdicts that were corrected together.
func (c *Comparison) Corrected() (n int) {
	for _, row := range c.Rows {
		for _, cell := range row.Cells[1:] {
			if cell.Ratio != nil {
				n++
			}
		}
	}
	return n
}

// OneRun tells whether a side has one run. Then the spread between its loads is not known.
func (c *Comparison) OneRun() bool { return slices.Contains(c.Runs, 1) }

// Difference is a factor that differs between the sides.
type Difference struct {
	Name     string   `json:"name"`
	Values   []string `json:"values"`   // of each side; several values of one side are separated by " | "
	Compared bool     `json:"compared"` // it may differ, because it is what is compared
}

// Row is one test of one model on all sides.
type Row struct {
	Model    string      `json:"model"`      // file name
	Type     string      `json:"model_type"` // "llama 7B Q4_K - Medium"
	Test     result.Test `json:"test"`
	Settings string      `json:"settings"` // those that tell it from other rows of the same test; often empty
	Cells    []Cell      `json:"cells"`    // of each side; the first is the base
}

// Cell is one side of a row.
type Cell struct {
	TokensPerSecond float64       `json:"tokens_per_second"` // geometric mean of the runs' medians; 0: not measured
	Runs            int           `json:"runs"`
	Doubtful        bool          `json:"doubtful"`          // a record of it is doubtful
	Ratio           *Relative     `json:"ratio"`             // to the base; nil for the base, and if one was not measured
	Cost            *CellCost     `json:"cost,omitempty"`    // of a million tokens; nil: not known
	Status          result.Status `json:"status,omitempty"`  // if it was not measured; empty: not known
	Samples         [][]float64   `json:"samples,omitempty"` // speeds of each run's repetitions; a run without samples has its mean
}

// Relative is a speed relative to the base.
type Relative struct {
	Value   float64 `json:"value"`
	Low     float64 `json:"low"`
	High    float64 `json:"high"`
	P       float64 `json:"p_corrected"` // probability of such a ratio if the true one is 1, corrected by Holm
	Verdict Verdict `json:"verdict"`

	ratio stats.Ratio
}

// Below tells whether the ratio is shown to be below a limit, and whether it is shown not to
// be. If neither, it is unclear. The confidence is that of the interval.
func (r *Relative) Below(limit float64) (below, notBelow bool) { return r.High < limit, r.Low >= limit }

// Mean is the geometric mean of the ratios of a model's rows of one kind.
type Mean struct {
	Model  string      `json:"model"`
	Kind   result.Kind `json:"kind"`
	Rows   int         `json:"rows"`
	Ratios []*Relative `json:"ratios"` // of each side; nil for the base
}

// Alone is a record that was not paired.
type Alone struct {
	Side   int         `json:"side"` // index
	Model  string      `json:"model"`
	Test   result.Test `json:"test"`
	Reason string      `json:"reason"`
}

// Errors of Compare.
var (
	ErrFewSides = errors.New("a comparison needs two sides")
	ErrNoRow    = errors.New("the sides have no row in common")
)

// measured is a test of a model with the factors that must agree.
type measured struct {
	model modelKey
	test  result.Test
	rest  string // values of the factors that are not compared
}

// modelKey identifies a model by its content as far as a record tells.
type modelKey struct {
	kind         string
	size, params uint64
}

func keyOf(r *result.Record) modelKey { return modelKey{r.ModelType, r.ModelSizeBytes, r.ModelParams} }

// NoRowError is the ErrNoRow of sides.
type NoRowError struct {
	Reason  string   // why no record has a partner; empty if there is no record
	Across  []string // what Options.Across needs so that records pair; empty: that does not help
	Refused bool     // records pair, but cannot be compared
}

func (e *NoRowError) Error() string {
	if e.Reason == "" {
		return ErrNoRow.Error()
	}
	return ErrNoRow.Error() + ": " + e.Reason
}

// Unwrap returns ErrNoRow.
func (e *NoRowError) Unwrap() error { return ErrNoRow }

// Hint says how to make the records of an ErrNoRow pair.
func Hint(err error) string {
	var e *NoRowError
	if errors.As(err, &e) && len(e.Across) > 0 {
		return "compare them with --across " + strings.Join(e.Across, ",")
	}
	if e != nil && e.Refused {
		return "leave these records out, or measure their tests again"
	}
	return "give results of the same models and tests"
}

// Compare compares sides. The error is ErrFewSides or a NoRowError.
func Compare(sides []Side, o Options) (*Comparison, error) {
	if len(sides) < 2 {
		return nil, ErrFewSides
	}
	c := &Comparison{Margin: o.Margin, Loads: o.Loads}
	for _, s := range sides {
		c.Sides, c.Runs = append(c.Sides, s.Label), append(c.Runs, len(s.Runs))
	}
	c.Differences = differences(sides, o.Across)
	t := collect(sides, o.Across)
	c.Rows = t.rows(sides)
	if err := c.judge(o); err != nil {
		return nil, err
	}
	c.Alone, c.LeftOut = t.alone(sides, o.Across), t.leftOut
	if len(c.Rows) == 0 {
		return nil, t.noRow(c.Alone, o.Across)
	}
	return c, nil
}

// noRow says what keeps the records apart.
func (t *tables) noRow(alone []Alone, across []string) error {
	var names []string
	for _, f := range factors {
		if slices.ContainsFunc(t.order, func(e *entry) bool { return slices.Contains(e.apart, f.name) }) {
			names = append(names, f.name)
		}
	}
	e := &NoRowError{}
	switch {
	case len(names) > 0:
		e.Reason, e.Across = "they differ in "+strings.Join(names, ", "), append(slices.Clone(across), grouped(names)...)
	case len(alone) > 0:
		e.Reason = alone[0].Reason
		e.Refused = slices.ContainsFunc(t.order, func(e *entry) bool { return e.refused != "" && len(e.sidesOf()) > 1 })
	}
	return e
}

// differences lists the factors that differ between sides.
func differences(sides []Side, across []string) []Difference {
	var all []Difference
	for _, f := range factors {
		d := Difference{Name: f.name, Compared: f.compared(across)}
		for _, s := range sides {
			values := map[string]bool{}
			for _, run := range s.Runs {
				for i := range run.Records {
					values[f.value(&run.Records[i])] = true
				}
			}
			d.Values = append(d.Values, strings.Join(slices.Sorted(maps.Keys(values)), " | "))
		}
		if slices.ContainsFunc(d.Values, func(v string) bool { return v != d.Values[0] }) {
			all = append(all, d)
		}
	}
	return all
}

// entry is all that the sides have of one measured test.
type entry struct {
	key     measured
	name    string
	records [][]*result.Record // of each side
	refused string             // why the sides are no pair; empty: they are
	apart   []string           // factors that keep it from a partner
}

// tables keeps the entries in the order in which they were found.
type tables struct {
	entries map[measured]*entry
	order   []*entry
	alike   map[subject][]*entry // of the same model and test
	leftOut []Alone
}

// subject is a test of a model, with any settings.
type subject struct {
	model modelKey
	test  result.Test
}

func (e *entry) subject() subject { return subject{e.key.model, e.key.test} }

func collect(sides []Side, across []string) *tables {
	t := &tables{entries: map[measured]*entry{}, alike: map[subject][]*entry{}}
	var kept, compared []factor
	for _, f := range factors {
		if f.compared(across) {
			compared = append(compared, f)
		} else {
			kept = append(kept, f)
		}
	}
	for side, s := range sides {
		for _, run := range s.Runs {
			for i := range run.Records {
				r := &run.Records[i]
				values := make([]string, len(kept))
				for j, f := range kept {
					values[j] = f.value(r)
				}
				key := measured{keyOf(r), r.Test(), strings.Join(values, "\x00")}
				e := t.entries[key]
				if e == nil {
					e = &entry{key: key, name: r.ModelFilename, records: make([][]*result.Record, len(sides))}
					t.entries[key] = e
					t.order = append(t.order, e)
					t.alike[e.subject()] = append(t.alike[e.subject()], e)
				}
				e.records[side] = append(e.records[side], r)
			}
		}
	}
	for _, e := range t.order {
		t.leftOut = append(t.leftOut, e.leaveOut()...)
		e.refused = e.refuse(sides, compared)
	}
	return t
}

// leaveOut takes invalid records away from sides that have other ones: the more runs a
// side has, the likelier it is that one was disturbed.
func (e *entry) leaveOut() (left []Alone) {
	for side, records := range e.records {
		valid := slices.DeleteFunc(slices.Clone(records), invalid)
		if len(valid) == 0 || len(valid) == len(records) {
			continue
		}
		for _, r := range records {
			if invalid(r) {
				left = append(left, Alone{side, e.name, e.key.test, whyInvalid(r)})
			}
		}
		e.records[side] = valid
	}
	return left
}

func invalid(r *result.Record) bool {
	return r.Ext.Verdict != nil && r.Ext.Verdict.Verdict == result.Invalid
}

// whyInvalid is the first reason of an invalid record.
func whyInvalid(r *result.Record) string {
	if reasons := r.Ext.Verdict.Reasons; len(reasons) > 0 {
		return "invalid: " + reasons[0].Message
	}
	return "invalid"
}

// sidesOf are the sides that measured an entry.
func (e *entry) sidesOf() (sides []int) {
	for i, r := range e.records {
		if len(r) > 0 {
			sides = append(sides, i)
		}
	}
	return sides
}

// refuse says why records are no pair although model, test and settings agree.
func (e *entry) refuse(sides []Side, compared []factor) string {
	var all []*result.Record
	for i, side := range e.records {
		all = append(all, side...)
		for _, r := range side {
			for _, f := range compared {
				if f.value(r) != f.value(side[0]) {
					return fmt.Sprintf("records of %s differ in %s, which is compared", sides[i].Label, f.name)
				}
			}
			switch {
			case invalid(r):
				return fmt.Sprintf("the record of %s is %s", sides[i].Label, whyInvalid(r))
			case slices.ContainsFunc(speedsOf(r), func(speed float64) bool { return !(speed > 0) }):
				return fmt.Sprintf("the record of %s has no speed above 0", sides[i].Label)
			}
		}
	}
	for _, r := range all {
		if weightsOf(r) != weightsOf(all[0]) {
			return "one side has synthetic weights, the other a file's"
		}
		if fellBack(r) != fellBack(all[0]) {
			return "one side used the GPU, the other fell back to the CPU"
		}
	}
	return ""
}

// weightsOf is where a record's weights came from. llama-bench knows files only.
func weightsOf(r *result.Record) result.Weights {
	if r.Ext.Weights == "" {
		return result.FileWeights
	}
	return r.Ext.Weights
}

// fellBack tells whether a record was measured without the machine's GPU.
func fellBack(r *result.Record) bool {
	return slices.ContainsFunc(r.Ext.Warnings, func(w result.Warning) bool {
		return w.Code == result.WarnGPUNotUsed || w.Code == result.WarnNoGPU
	})
}

// rows are the entries that several sides have.
func (t *tables) rows(sides []Side) []Row {
	names := map[modelKey]string{}
	tests := map[string]int{} // rows of the same model and test
	var rows []Row
	for _, e := range t.order {
		if len(e.sidesOf()) < 2 || e.refused != "" {
			continue
		}
		if names[e.key.model] == "" {
			names[e.key.model] = e.name
		}
		row := Row{Model: names[e.key.model], Type: e.key.model.kind, Test: e.key.test}
		tests[row.Model+row.Test.String()]++
		for side, records := range e.records {
			cell := Cell{Runs: len(records), Cost: costOf(records)}
			for _, r := range records {
				cell.Samples = append(cell.Samples, speedsOf(r))
				cell.Doubtful = cell.Doubtful || r.Ext.Verdict != nil && r.Ext.Verdict.Verdict == result.Doubtful
			}
			if len(records) == 0 {
				cell.Status = missing(sides[side], row)
			}
			row.Cells = append(row.Cells, cell)
		}
		rows = append(rows, row)
	}
	t.nameSettings(rows, tests)
	return rows
}

// nameSettings tells rows of the same model and test apart.
func (t *tables) nameSettings(rows []Row, tests map[string]int) {
	i := 0
	for _, e := range t.order {
		if len(e.sidesOf()) < 2 || e.refused != "" {
			continue
		}
		if row := &rows[i]; tests[row.Model+row.Test.String()] > 1 {
			row.Settings = t.distinct(e)
		}
		i++
	}
}

// distinct names the factors of an entry that differ from another entry of the same model and test.
func (t *tables) distinct(e *entry) string {
	first := func(e *entry) *result.Record { return e.records[e.sidesOf()[0]][0] }
	var parts []string
	for _, f := range factors {
		for _, other := range t.alike[e.subject()] {
			if f.value(first(other)) != f.value(first(e)) {
				parts = append(parts, f.name+"="+f.value(first(e)))
				break
			}
		}
	}
	return strings.Join(parts, " ")
}

// missing is the status of a test that a side did not measure; empty if it is not known.
func missing(s Side, row Row) result.Status {
	for _, run := range s.Runs {
		for _, o := range run.Missing {
			if o.Model == row.Model && o.Test == row.Test {
				return o.Status
			}
		}
	}
	return ""
}

// speedsOf returns the speeds of a record. A record without samples, as in llama-bench's
// CSV, has its mean alone.
func speedsOf(r *result.Record) []float64 {
	if len(r.SamplesTS) > 0 {
		return r.SamplesTS
	}
	return []float64{r.AvgTS}
}

// runsOf estimates the speed of a cell.
func runsOf(samples [][]float64, loads stats.Loads) (stats.Runs, error) {
	var all []stats.Sample
	for _, x := range samples {
		s, err := stats.New(x)
		if err != nil {
			return stats.Runs{}, err
		}
		all = append(all, s)
	}
	return stats.NewRuns(all, loads)
}

// judge fills the cells and the means.
func (c *Comparison) judge(o Options) error {
	tests := make([][]stats.Runs, len(c.Sides)) // of each side, one for each row that it has
	for i := range c.Rows {
		for side := range c.Sides {
			cell := &c.Rows[i].Cells[side]
			if cell.Runs == 0 {
				continue
			}
			runs, err := runsOf(cell.Samples, o.Loads)
			if err != nil {
				return fmt.Errorf("%s of %s in %s: %w", c.Rows[i].Test, c.Rows[i].Model, c.Sides[side], err)
			}
			cell.TokensPerSecond = runs.Speed()
			tests[side] = append(tests[side], runs)
		}
	}
	for side := range tests {
		tests[side] = stats.Together(tests[side])
	}
	var relatives []*Relative
	for i := range c.Rows {
		var base *stats.Runs
		for side := range c.Sides {
			cell := &c.Rows[i].Cells[side]
			if cell.Runs == 0 {
				continue
			}
			runs := tests[side][0]
			tests[side] = tests[side][1:]
			switch {
			case side == 0:
				base = &runs
			case base != nil:
				cell.Ratio = relative(runs.Over(*base))
				relatives = append(relatives, cell.Ratio)
			}
		}
	}
	settle(relatives, o.Margin)
	c.weigh(o.Margin)
	return c.average(o)
}

func relative(r stats.Ratio) *Relative {
	ci := r.Interval(Confidence)
	return &Relative{Value: r.Value(), Low: ci.Low, High: ci.High, ratio: r}
}

// settle gives the verdicts of ratios that are judged together.
func settle(all []*Relative, margin float64) {
	p := make([]float64, len(all))
	for i, r := range all {
		p[i] = r.ratio.Differs()
	}
	for i, p := range stats.Holm(p) {
		r := all[i]
		r.P = p
		switch {
		case r.Low >= 1-margin && r.High <= 1+margin:
			r.Verdict = Same
		case p > 1-Confidence:
			r.Verdict = Unclear
		case r.Value > 1:
			r.Verdict = Faster
		default:
			r.Verdict = Slower
		}
	}
}

// average adds the geometric means of each model's prompt processing and generation.
func (c *Comparison) average(o Options) error {
	var all []*Relative
	for _, kind := range []result.Kind{result.PromptProcessing, result.TextGeneration} {
		var models []string
		for _, row := range c.Rows {
			if row.Test.Kind() == kind && !slices.Contains(models, row.Model) {
				models = append(models, row.Model)
			}
		}
		for _, model := range models {
			mean := Mean{Model: model, Kind: kind, Ratios: make([]*Relative, len(c.Sides))}
			for side := range c.Sides {
				var ratios []stats.Ratio
				for _, row := range c.Rows {
					if row.Model == model && row.Test.Kind() == kind && row.Cells[side].Ratio != nil {
						ratios = append(ratios, row.Cells[side].Ratio.ratio)
					}
				}
				if len(ratios) < 2 {
					continue // one row says the same
				}
				r, err := stats.GeometricMean(ratios)
				if err != nil {
					return err
				}
				mean.Ratios[side] = relative(r)
				mean.Rows = max(mean.Rows, len(ratios))
				all = append(all, mean.Ratios[side])
			}
			if mean.Rows > 0 {
				c.Means = append(c.Means, mean)
			}
		}
	}
	slices.SortStableFunc(c.Means, func(a, b Mean) int { return strings.Compare(a.Model, b.Model) })
	settle(all, o.Margin)
	return nil
}

// alone lists the records that were not paired, and why.
func (t *tables) alone(sides []Side, across []string) []Alone {
	var all []Alone
	for _, e := range t.order {
		on := e.sidesOf()
		if len(on) >= 2 && e.refused == "" {
			continue
		}
		for _, side := range on {
			reason := e.refused
			if reason == "" {
				reason = t.partner(e, side, sides, across)
			}
			all = append(all, Alone{Side: side, Model: e.name, Test: e.key.test, Reason: reason})
		}
	}
	return all
}

// partner says why no other side has an entry.
func (t *tables) partner(e *entry, side int, sides []Side, across []string) string {
	r := e.records[side][0]
	for _, other := range t.alike[e.subject()] {
		if other == e {
			continue
		}
		for _, there := range other.sidesOf() {
			if there == side {
				continue
			}
			var names []string
			for _, f := range factors {
				if !f.compared(across) && f.value(r) != f.value(other.records[there][0]) {
					names = append(names, f.name)
				}
			}
			e.apart = names
			return "differs in " + strings.Join(names, ", ")
		}
	}
	for i, s := range sides {
		if i == side {
			continue
		}
		if status := missing(s, Row{Model: e.name, Test: e.key.test}); status != "" {
			return fmt.Sprintf("%s has no record: %s", s.Label, status)
		}
	}
	return "not measured by the others"
}
