package policy

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// RecordedServer is one recorded run: its models in the order they were run.
type RecordedServer struct {
	Name   string
	Models []RecordedModel
}

// Half is 0 or 1, by a hash of the name. A policy that was tuned on one half of
// the servers can be tried on the other.
func (s RecordedServer) Half() int {
	sum := sha256.Sum256([]byte("half of " + s.Name))
	return int(sum[0] & 1)
}

// RecordedModel is the time that one model took on one server. A file of recorded
// runs has one such object per line.
type RecordedModel struct {
	Server       string         `json:"server"` // vendor/server
	Model        string         `json:"model"`
	Index        int            `json:"model_index"` // order in the run, from 0
	Backend      string         `json:"backend"`     // "CPU", "CUDA"; empty when nothing was measured
	WaitSeconds  float64        `json:"wait_s"`      // for the download
	ProbeSeconds float64        `json:"probe_s"`     // of trial runs, which find the number of layers on the GPU
	Tests        []RecordedTest `json:"cells"`       // in order; lengths of a kind ascend
}

// RecordedTest is one test as llama-bench ran it, in a process of its own: load,
// warm-up, repetitions.
type RecordedTest struct {
	Kind          result.Kind `json:"kind"` // pp or tg
	Tokens        int         `json:"n"`
	BudgetSeconds float64     `json:"budget_s"`
	Outcome       string      `json:"outcome"` // ok, timeout, exit
	WallSeconds   float64     `json:"wall_s"`
	SamplesNs     []int64     `json:"samples_ns"` // one per repetition; empty when the test printed no record
}

// Bounds of a file of recorded runs. A suite of tens of tests stays far below
// them, and a file of something else is refused at once.
const (
	maxRecordedLine   = 1 << 20 // bytes
	maxRecordedModels = 1 << 17
	maxRecordedSecond = 1e6 // of one test or wait; eleven days
)

// ReadRecorded reads recorded runs, one RecordedModel per line, plain or
// gzipped. Servers come in the order of their first line. An error names the
// line.
func ReadRecorded(r io.Reader) ([]RecordedServer, error) {
	in := bufio.NewReader(r)
	if magic, _ := in.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, fmt.Errorf("gzip header: %w", err)
		}
		in = bufio.NewReader(z)
	}
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 0, 64<<10), maxRecordedLine)
	var servers []RecordedServer
	index := map[string]int{}
	n := 0
	for lines.Scan() && lines.Err() == nil { // what precedes an error is no line
		n++
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		if n > maxRecordedModels {
			return nil, fmt.Errorf("line %d: more than %d lines", n, maxRecordedModels)
		}
		var m RecordedModel
		if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if err := m.validate(); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		i, seen := index[m.Server]
		if !seen {
			i = len(servers)
			index[m.Server] = i
			servers = append(servers, RecordedServer{Name: m.Server})
		}
		servers[i].Models = append(servers[i].Models, m)
	}
	if err := lines.Err(); err != nil {
		if errors.Is(err, bufio.ErrTooLong) {
			err = fmt.Errorf("longer than %d bytes", maxRecordedLine)
		}
		return nil, fmt.Errorf("line %d: %w", n+1, err)
	}
	if len(servers) == 0 {
		return nil, errors.New("no recorded runs in it")
	}
	for _, s := range servers {
		slices.SortStableFunc(s.Models, func(a, b RecordedModel) int { return cmp.Compare(a.Index, b.Index) })
	}
	return servers, nil
}

func (m RecordedModel) validate() error {
	if m.Server == "" {
		return errors.New(`"server" is missing`)
	}
	for _, f := range []struct {
		name    string
		seconds float64
	}{{"wait_s", m.WaitSeconds}, {"probe_s", m.ProbeSeconds}} {
		if f.seconds < 0 || f.seconds > maxRecordedSecond {
			return fmt.Errorf("%q is %g, outside 0…%g", f.name, f.seconds, maxRecordedSecond)
		}
	}
	last := map[result.Kind]int{}
	for i, t := range m.Tests {
		if err := t.validate(last[t.Kind]); err != nil {
			return fmt.Errorf("cell %d: %w", i+1, err)
		}
		last[t.Kind] = t.Tokens
	}
	return nil
}

// validate checks a test that follows one of previous tokens of its kind.
func (t RecordedTest) validate(previous int) error {
	switch {
	case t.Kind != result.PromptProcessing && t.Kind != result.TextGeneration:
		return fmt.Errorf(`"kind" is %q, neither pp nor tg`, t.Kind)
	case t.Tokens <= previous || t.Tokens > result.MaxTokens:
		return fmt.Errorf(`"n" is %d, outside %d…%d tokens: the lengths of a kind ascend`, t.Tokens, previous+1, result.MaxTokens)
	case t.BudgetSeconds <= 0 || t.BudgetSeconds > maxRecordedSecond:
		return fmt.Errorf(`"budget_s" is %g, outside 0…%g`, t.BudgetSeconds, maxRecordedSecond)
	case t.WallSeconds < 0 || t.WallSeconds > maxRecordedSecond:
		return fmt.Errorf(`"wall_s" is %g, outside 0…%g`, t.WallSeconds, maxRecordedSecond)
	case t.Outcome != "ok" && t.Outcome != "timeout" && t.Outcome != "exit":
		return fmt.Errorf(`"outcome" is %q, none of ok, timeout, exit`, t.Outcome)
	case t.Outcome == "ok" && len(t.SamplesNs) == 0:
		return errors.New(`"samples_ns" is missing from a test that is ok`)
	case len(t.SamplesNs) != 0 && len(t.SamplesNs) != recordedRepetitions:
		return fmt.Errorf(`"samples_ns" has %d values, not %d`, len(t.SamplesNs), recordedRepetitions)
	}
	for _, s := range t.SamplesNs {
		if s <= 0 || s > maxRecordedSecond*int64(time.Second) {
			return fmt.Errorf(`"samples_ns" has %d, outside 1…%g`, s, maxRecordedSecond*1e9)
		}
	}
	return nil
}

// row tells whether the test printed its record. A few tests did so just before
// they were killed.
func (t RecordedTest) row() bool { return len(t.SamplesNs) > 0 }

// killed tells whether the test was stopped by its budget.
func (t RecordedTest) killed() bool { return t.Outcome == "timeout" && !t.row() }

func (t RecordedTest) test() result.Test {
	if t.Kind == result.PromptProcessing {
		return result.Test{Prompt: t.Tokens}
	}
	return result.Test{Gen: t.Tokens}
}

func (t RecordedTest) repetitions() []time.Duration {
	d := make([]time.Duration, len(t.SamplesNs))
	for i, s := range t.SamplesNs {
		d[i] = time.Duration(s)
	}
	return d
}

// passes are the passes of a test that printed its record, and load is the time
// before them. The warm-up was not recorded. It is assumed to take as long as the
// mean repetition, as it does in the median of the recorded servers.
func (t RecordedTest) passes() (passes []time.Duration, load time.Duration) {
	passes = t.repetitions()
	var sum time.Duration
	for _, d := range passes {
		sum += d
	}
	warmup := sum / time.Duration(len(passes))
	if t.Kind == result.PromptProcessing {
		passes = append([]time.Duration{warmup}, passes...)
	} else {
		warmup /= time.Duration(t.Tokens) // one token
	}
	return passes, max(0, seconds(t.WallSeconds)-sum-warmup)
}

// load is the time that each process of the model spent on loading. It is the
// median over the generations, whose warm-up is short, or over all tests if there
// is no generation.
func (m RecordedModel) load() time.Duration {
	var all, generations []float64
	for _, t := range m.Tests {
		if !t.row() {
			continue
		}
		_, load := t.passes()
		all = append(all, load.Seconds())
		if t.Kind == result.TextGeneration {
			generations = append(generations, load.Seconds())
		}
	}
	if len(generations) == 0 {
		generations = all
	}
	return seconds(quantile(generations, 0.5))
}

// Decider is the part of a policy that a replay needs. Policy implements it, and
// describes both methods.
type Decider interface {
	Before(Prospect) Decision
	Patience(Prospect) (patience time.Duration, limited bool)
}

// Rule is a stop rule by name.
type Rule struct {
	Name    string
	Decider Decider
	crash   afterCrash
}

// afterCrash is what a rule does when the engine crashed in a test.
type afterCrash int

// The ways to go on after a crash.
const (
	crashEndsSeries afterCrash = iota // as in later versions of the recorded suite
	crashContinues                    // as in its first version
	crashRetries                      // as in this program: see package supervise
)

// Rules are the stop rules to compare. The default policy comes last.
func Rules() []Rule {
	return []Rule{
		{Name: "run all", Decider: never{}, crash: crashContinues},
		{Name: "crash ends series", Decider: never{}},
		{Name: "speed of previous", Decider: previousSpeed{}},
		{Name: "fastest", Decider: Fastest()},
		{Name: "default", Decider: Default(), crash: crashRetries},
	}
}

// never stops nothing.
type never struct{}

func (never) Before(Prospect) Decision                { return Decision{Reason: "started: this rule skips nothing"} }
func (never) Patience(Prospect) (time.Duration, bool) { return 0, false }

// previousSpeed skips a test that does not fit at the mean speed of the next
// shorter one.
type previousSpeed struct{ never }

func (previousSpeed) Before(t Prospect) Decision {
	if len(t.Shorter) == 0 {
		return Decision{Reason: "started: nothing shorter was measured"}
	}
	last := t.Shorter[len(t.Shorter)-1]
	var speed float64 // llama-bench's: the mean of the rates
	for _, r := range last.Repetitions {
		speed += last.Test.TokensPerSecond(r) / float64(len(last.Repetitions))
	}
	needed := seconds(t.tokens() / speed)
	return Decision{
		Stop: needed > t.Budget,
		Reason: fmt.Sprintf("needs %s of %s: %d × %d tokens at the %s t/s of %s",
			short(needed), short(t.Budget), t.passes(), t.Test.Tokens(), result.FormatRate(speed), last.Test),
	}
}

// Censored says how long a pass of a killed test is assumed to last. It is only
// known that not all passes fit the budget.
type Censored string

// The assumptions about killed tests.
const (
	CensoredPredicted Censored = "pred" // as shorter lengths predict, but too long to fit
	CensoredFast      Censored = "fast" // only just too long to fit
	CensoredSlow      Censored = "slow" // no pass ends
)

// ReplayOptions are the assumptions of a replay.
type ReplayOptions struct {
	LoadOnce bool     // only the first test of a model pays for loading
	Censored Censored // empty: CensoredPredicted
}

// Replayed is the result of a rule on recorded runs.
type Replayed struct {
	Servers    int
	Total      time.Duration // tests, waits for downloads and probes
	Lost       time.Duration // part of Total: in tests that were killed or given up
	Rows       int           // records that the rule keeps
	Wrong      int           // records that the rule loses
	WallMedian time.Duration // of servers with at least one record, without waits
	WallP95    time.Duration // 95th percentile of the same
}

// LostShare is the share of the total that was lost, in [0, 1].
func (r Replayed) LostShare() float64 { return ratio(float64(r.Lost), float64(r.Total)) }

// WrongShare is the share of the recorded records that the rule loses, in [0, 1].
func (r Replayed) WrongShare() float64 { return ratio(float64(r.Wrong), float64(r.Rows+r.Wrong)) }

func ratio(part, whole float64) float64 {
	if whole == 0 {
		return 0
	}
	return part / whole
}

// Replay applies a rule to recorded servers. A replay can only remove tests: the
// time of a test that was not recorded is unknown. It assumes that killed tests would
// have exceeded their budgets (see Censored). When the first test of a model
// was killed, the replay keeps its recorded time: the test mostly waited for a
// file that was not cached, which no rule on computation can predict.
func Replay(servers []RecordedServer, rule Rule, o ReplayOptions) Replayed {
	r := Replayed{Servers: len(servers)}
	var walls []float64
	for _, s := range servers {
		wall, rows := r.server(s, rule, o)
		if rows > 0 {
			walls = append(walls, wall.Seconds())
		}
	}
	r.WallMedian, r.WallP95 = seconds(quantile(walls, 0.5)), seconds(quantile(walls, 0.95))
	return r
}

// server adds one server. It returns the server's wall time without waits, and the
// number of its records.
func (r *Replayed) server(s RecordedServer, rule Rule, o ReplayOptions) (wall time.Duration, rows int) {
	ended := false
	for _, m := range s.Models {
		recorded := 0
		for _, t := range m.Tests {
			if t.row() {
				recorded++
			}
		}
		if ended {
			r.Wrong += recorded
			continue
		}
		spent, kept, consequence := r.model(m, rule, o)
		probe := seconds(m.ProbeSeconds)
		r.Total += seconds(m.WaitSeconds) + probe + spent
		r.Rows += kept
		r.Wrong += recorded - kept
		wall += probe + spent
		rows += kept
		ended = consequence == EndModels
	}
	return wall, rows
}

// model replays one model. It returns the time spent, the number of records kept
// and the hardest consequence of its tests.
func (r *Replayed) model(m RecordedModel, rule Rule, o ReplayOptions) (spent time.Duration, kept int, worst Consequence) {
	load := m.load()
	shorter := map[result.Kind][]Measured{}
	tried, over := map[result.Kind]bool{}, map[result.Kind]bool{}
	var setup time.Duration // the least so far
	crashes := 0            // tests in which the engine crashed
	tests := slices.Clone(m.Tests)
	for i := range tests {
		t := tests[i]
		if over[t.Kind] {
			continue
		}
		h := Prospect{
			Test: t.test(), Budget: seconds(t.BudgetSeconds), Setup: setup,
			Repetitions: recordedRepetitions, Warmups: 1,
			GPU: m.Backend != "" && m.Backend != "CPU", Shorter: shorter[t.Kind],
		}
		if rule.Decider.Before(h).Stop {
			over[t.Kind] = true // not EndModels: no rule skips the shortest test
			continue
		}
		shortest := !tried[t.Kind]
		tried[t.Kind] = true
		took, status, own := replayTest(t, h, load, i == 0, rule.Decider, o)
		if o.LoadOnce && i > 0 {
			took = max(0, took-load)
		}
		spent += took
		consequence := After(status, shortest)
		switch status {
		case result.OK:
			kept++
			shorter[t.Kind] = append(shorter[t.Kind], Measured{h.Test, t.repetitions()})
			if kept == 1 || own < setup {
				setup = own
			}
		case result.Crashed:
			switch rule.crash {
			case crashEndsSeries:
				consequence = EndSeries
			case crashRetries:
				// As in package supervise: the first test that crashes is tried twice,
				// longer tests of its series come last, and the third crash of a model
				// ends it.
				if crashes++; crashes > 1 {
					return spent, kept, worst
				}
				spent += took
				slices.SortStableFunc(tests[i+1:], func(a, b RecordedTest) int {
					return t.test().SeriesLast(a.test(), b.test())
				})
			}
		default:
			r.Lost += took
		}
		over[t.Kind] = consequence >= EndSeries
		worst = max(worst, consequence)
		if worst == EndModels {
			break // the recorded suite ended its run here
		}
	}
	return spent, kept, worst
}

// recordedRepetitions of every recorded test.
const recordedRepetitions = 5

// replayTest replays a test that was started. It returns the test's time with
// loading, its status, and the time of loading.
func replayTest(t RecordedTest, h Prospect, load time.Duration, firstOfModel bool, d Decider, o ReplayOptions) (time.Duration, result.Status, time.Duration) {
	wall := seconds(t.WallSeconds)
	var passes []time.Duration
	status := result.OK
	switch {
	case t.row():
		passes, load = t.passes()
	case t.killed() && firstOfModel:
		return wall, result.Timeout, load
	case t.killed():
		status = result.Timeout
		passes = slices.Repeat([]time.Duration{h.killedPass(load, o.Censored)}, h.passes())
	default:
		return wall, result.Crashed, load
	}
	h.Setup = load
	elapsed := load
	for i, pass := range passes {
		h.Passes = passes[:i]
		patience, limited := d.Patience(h)
		if limited && pass > patience && elapsed+patience < wall {
			return elapsed + patience, result.PredictedTimeout, load
		}
		elapsed += pass
	}
	return wall, status, load
}

// killedPass is the assumed time of one pass of a killed test: always too long for
// all passes to fit, if only by a nanosecond.
func (p Prospect) killedPass(load time.Duration, c Censored) time.Duration {
	least := max(0, p.Budget-load)/time.Duration(p.passes()) + 1
	switch c {
	case CensoredSlow:
		return seconds(10 * maxRecordedSecond) // beyond every margin of every budget
	case CensoredFast:
		return least
	default:
		return max(least, seconds(p.pace(1)*float64(p.Test.Tokens())))
	}
}

// quantile is the p-quantile of xs, Hyndman and Fan's type 7 (the default of R). It
// is 0 if xs is empty. It sorts xs.
func quantile(xs []float64, p float64) float64 {
	if len(xs) == 0 {
		return 0
	}
	slices.Sort(xs)
	at := p * float64(len(xs)-1)
	i := int(at)
	if i+1 == len(xs) {
		return xs[i]
	}
	return xs[i] + (at-float64(i))*(xs[i+1]-xs[i])
}
