package commandline

import (
	"strings"

	"github.com/spf13/pflag"

	"github.com/sparecores/benchmark-llm/bench/compare"
)

// CompareHelp is the long help of compare.
const CompareHelp = `Compare the results of two or more sides. The first is the base. A SOURCE is the
directory of a run, a results file of this program or of llama-bench (JSON lines,
JSON or CSV), or last, last~1 and so on: the most recent runs below --results-dir.
Sources separated by commas are several runs of one side; three of each side show
much smaller differences than one.

Tests pair if model, test, settings, library and machine agree. What is compared may
differ: name it with --across. Each pair has the ratio of its speeds, its interval
of 95 % confidence, and a verdict: faster, slower, same or unclear.

With --price, a second table says what a million tokens cost on each side, and which is
cheaper. Records of a run with --price have their price already.

With --fail-below, the exit code is 8 if a row is slower than that, and stderr names
the rows.`

// CompareFlags are the flags of compare.
type CompareFlags struct {
	Format     string
	ResultsDir string
	Prices     PriceFlags

	across                    Words
	margin, spread, failBelow Share
	formats                   []string
	failUnclear               bool
}

// NewCompareFlags returns the defaults. The first of formats is that of the output.
func NewCompareFlags(formats []string) *CompareFlags {
	o := compare.DefaultOptions()
	return &CompareFlags{
		formats: formats,
		across:  Words{Allowed: compare.FactorNames()},
		margin:  Share{o.Margin, 0.5}, spread: Share{o.Loads.Spread, 0.5}, failBelow: Share{0, 2},
	}
}

// Register defines the flags.
func (c *CompareFlags) Register(f *pflag.FlagSet) {
	f.SortFlags = false
	f.Var(&c.across, "across", "`names` of what may differ: machine, library, settings, or a record's field such as n_threads")
	f.Var(&c.margin, "margin", "`share` within which speeds count as the same")
	f.Var(&c.spread, "load-spread", "`share` by which loads of a model are assumed to differ: one standard deviation")
	f.StringVarP(&c.Format, "output", "o", c.formats[0], "output `format`: "+strings.Join(c.formats, ", "))
	f.Var(&c.failBelow, "fail-below", "exit with code 8 if a row is shown to be below this `share` of the base, such as 0.97")
	f.BoolVar(&c.failUnclear, "fail-unclear", false, "with --fail-below: fail also if that cannot be told")
	c.Prices.Register(f, true)
	f.StringVar(&c.ResultsDir, "results-dir", "", "`directory` of the runs that last names; by default where run puts them")
}

// Options are those that the flags set.
func (c *CompareFlags) Options() compare.Options {
	o := compare.DefaultOptions()
	o.Across, o.Margin, o.Loads.Spread = c.across.Values, c.margin.Value, c.spread.Value
	return o
}

// Gate is the gate that the flags set. The error is a Mistake, also of the output format.
func (c *CompareFlags) Gate() (compare.Gate, error) {
	if err := OneOf("--output", c.Format, c.formats); err != nil {
		return compare.Gate{}, err
	}
	if c.failUnclear && c.failBelow.Value == 0 {
		return compare.Gate{}, mistake("add --fail-below 0.97, or leave it out", "--fail-unclear needs --fail-below")
	}
	return compare.Gate{Below: c.failBelow.Value, Unclear: c.failUnclear}, nil
}
