// Command disturb measures whether verdicts can be trusted: how many tests of a quiet
// machine are valid, and whether tests that a fault slows down are flagged with the
// right reason first. It needs no model file and no network.
//
// It runs the same short tests on the machine as it is, and beside each fault:
//
//   - neighbour: a process that is busy for a part of the time on one CPU
//   - quota: a cgroup whose CPU quota is below what the test uses
//   - memory: a cgroup too small for the model's file, so that weights come from disk
//   - steal, frequency, clock: made-up counters and clocks; they slow nothing down, so
//     every test counts as slowed
//
// Each fault has four strengths, which take turns. Cgroups need root; without it those
// faults are skipped.
//
// Usage:
//
//	disturb [-quiet N] [-tests N] [-only FAULT,…] [-limit TIME]
//
// The exit code is 1 if more than one of 30 quiet tests is not valid, or a slowed test
// is valid or has another reason first.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/sparecores/benchmark-llm/bench/host"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// options are the flags.
type options struct {
	program     string
	prompt      int // of the shortest test, in tokens
	repetitions int
	perRun      int // tests of one process
	threads     int
	dir         string // temporary directory
}

const (
	model = "SmolLM-135M.Q4_K_M.gguf"
	// slowed is the ratio to the quiet speed from which a test counts as slowed down.
	slowed = 0.95
	// strengths is how many strengths each fault has.
	strengths = 4
)

// errSkipped says that this machine cannot have a fault.
var errSkipped = errors.New("skipped")

// fault disturbs tests.
type fault struct {
	name   string
	codes  []string // the reasons that are right
	madeUp bool     // nothing is slowed down
	// run measures tests beside the fault of this strength, from 0, the strongest.
	run func(ctx context.Context, o options, strength int) ([]result.Record, error)
	// quiet measures the same tests without the fault; nil: as the other faults' tests.
	quiet func(ctx context.Context, o options) ([]result.Record, error)
}

var faults = []fault{
	{name: "neighbour", codes: []string{"other_processes"}, run: neighbour},
	{name: "quota", codes: []string{"throttled"}, run: quota},
	{name: "memory", codes: []string{"major_faults", "swap", "memory_pressure"}, run: smallMemory, quiet: fromFile},
	{name: "steal", codes: []string{"steal"}, madeUp: true, run: steal},
	{name: "frequency", codes: []string{"frequency_low"}, madeUp: true, run: frequency},
	{name: "clock", codes: []string{"clock_step"}, madeUp: true, run: clockStep},
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("disturb: ")
	if len(os.Args) == 3 && os.Args[1] == spinArgument {
		spin(os.Args[2])
	}
	o := options{threads: host.DefaultThreads(), perRun: 10}
	flag.StringVar(&o.program, "program", "bin/benchmark-llm", "`path` of benchmark-llm")
	flag.IntVar(&o.prompt, "p", 32, "length of the shortest test in `tokens`")
	flag.IntVar(&o.repetitions, "r", 5, "`number` of repetitions of a test")
	quiet := flag.Int("quiet", 30, "`number` of quiet tests")
	tests := flag.Int("tests", 40, "`number` of tests beside each fault")
	only := flag.String("only", "", "comma-separated `faults` to measure (default: all)")
	limit := flag.Duration("limit", 10*time.Minute, "time `limit` of all; a fault that takes longer than its part has fewer tests")
	flag.Parse()

	chosen := slices.DeleteFunc(slices.Clone(faults), func(f fault) bool {
		return *only != "" && !slices.Contains(strings.Split(*only, ","), f.name)
	})
	if len(chosen) == 0 {
		log.Fatalf("-only: no fault is called %s", *only)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	var err error
	if o.dir, err = os.MkdirTemp("", "disturb-"); err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(o.dir) //nolint:errcheck // temporary files
	o.perRun = max(1, min(o.perRun, *quiet, *tests))
	ok, err := measure(ctx, o, chosen, *quiet, *tests, *limit)
	if err != nil {
		log.Print(err)
	}
	if err != nil || !ok {
		_ = os.RemoveAll(o.dir)
		os.Exit(1) //nolint:gocritic // the directory was removed
	}
}

// measure measures all faults and prints the table. ok tells whether all verdicts are
// as they should be.
func measure(ctx context.Context, o options, chosen []fault, quiet, tests int, limit time.Duration) (ok bool, err error) {
	if found := host.Busy(ctx, "/"); len(found) > 0 {
		log.Printf("the machine is busy, so the figures say little: %s", host.Texts(found))
	}
	part := limit / time.Duration(len(chosen)+1)
	base, err := repeat(ctx, part, quiet, func(ctx context.Context, _ int) ([]result.Record, error) { return o.plain(ctx, nil) })
	if err != nil {
		return false, err
	}
	rows := []row{count("quiet", nil, false, base, nil)}
	reference := speeds(base)
	for _, f := range chosen {
		expected := reference
		if f.quiet != nil {
			records, err := f.quiet(ctx, o)
			if err != nil {
				rows = append(rows, row{name: f.name, failed: true, note: err.Error()})
				continue
			}
			expected = speeds(records)
		}
		records, err := repeat(ctx, part, tests, func(ctx context.Context, pass int) ([]result.Record, error) { return f.run(ctx, o, pass%strengths) })
		switch {
		case errors.Is(err, errSkipped):
			rows = append(rows, row{name: f.name, note: err.Error()})
			continue
		case err != nil:
			rows = append(rows, row{name: f.name, failed: true, note: err.Error()})
			continue
		}
		rows = append(rows, count(f.name, f.codes, f.madeUp, records, expected))
	}
	fmt.Println(render(rows))
	return !slices.ContainsFunc(rows, row.bad), nil
}

// repeat measures passes until there are enough records or the time ends. It fails if
// there is no record.
func repeat(ctx context.Context, limit time.Duration, tests int, pass func(context.Context, int) ([]result.Record, error)) ([]result.Record, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var all []result.Record
	for n := 0; len(all) < tests; n++ {
		records, err := pass(ctx, n)
		all = append(all, records...)
		if ctx.Err() != nil && len(all) > 0 {
			break
		}
		if err != nil {
			return nil, err
		}
		if len(records) == 0 {
			return nil, errors.New("a run printed no record")
		}
	}
	return all[:min(len(all), tests)], nil
}

// row is what was found beside one fault.
type row struct {
	name    string
	tests   int
	slowed  int // by 5 % or more
	flagged int // of those
	right   int // of those, with the right reason first
	others  int // flagged without being slowed
	invalid int
	quiet   bool
	failed  bool // it was not measured
	note    string
}

// bad tells whether verdicts are not as they should be: more than one of 30 quiet tests
// is flagged, or a slowed one is not, or for another reason.
func (r row) bad() bool {
	switch {
	case r.failed:
		return true
	case r.quiet:
		return r.others*30 > r.tests
	}
	return r.flagged < r.slowed || r.right < r.flagged
}

// count compares records with the speeds that their tests have on the quiet machine.
func count(name string, codes []string, madeUp bool, records []result.Record, quiet map[result.Test]float64) row {
	r := row{name: name, tests: len(records), quiet: codes == nil}
	reasons := map[string]int{}
	for _, record := range records {
		v := record.Ext.Verdict
		if v == nil {
			r.note = "records have no verdict"
			continue
		}
		if v.Verdict == result.Invalid {
			r.invalid++
		}
		first := ""
		if len(v.Reasons) > 0 {
			first = v.Reasons[0].Code
			reasons[first]++
		}
		slow := madeUp || record.AvgTS <= slowed*quiet[record.Test()]
		switch {
		case slow && first != "":
			r.slowed++
			r.flagged++
			if slices.Contains(codes, first) {
				r.right++
			}
		case slow:
			r.slowed++
		case first != "":
			r.others++
		}
	}
	var seen []string
	for code, n := range reasons {
		seen = append(seen, fmt.Sprintf("%s %d", code, n))
	}
	slices.Sort(seen)
	r.note = strings.TrimSpace(r.note + " " + strings.Join(seen, ", "))
	return r
}

// speeds is the median speed of each test, in tokens/second.
func speeds(records []result.Record) map[result.Test]float64 {
	all := map[result.Test][]float64{}
	for _, r := range records {
		all[r.Test()] = append(all[r.Test()], r.AvgTS)
	}
	medians := map[result.Test]float64{}
	for test, ts := range all {
		slices.Sort(ts)
		medians[test] = ts[len(ts)/2]
	}
	return medians
}

func render(rows []row) string {
	w := table.NewWriter()
	w.SetStyle(table.StyleLight)
	w.AppendHeader(table.Row{"fault", "tests", "slowed ≥5 %", "flagged", "right reason first", "flagged, not slowed", "invalid", "first reasons"})
	for _, r := range rows {
		w.AppendRow(table.Row{r.name, r.tests, r.slowed, r.flagged, r.right, r.others, r.invalid, r.note})
	}
	return w.Render()
}
