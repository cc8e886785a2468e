package rundir

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/sparecores/benchmark-llm/bench/host"
	"github.com/sparecores/benchmark-llm/bench/record"
)

// OtherMachineError is the ErrMachine of a directory.
type OtherMachineError struct {
	Dir         string
	Differences []host.Difference
}

func (e *OtherMachineError) Error() string {
	return fmt.Sprintf("%s: %v: %s", e.Dir, ErrMachine, joined(e.Differences))
}

// Unwrap returns ErrMachine.
func (e *OtherMachineError) Unwrap() error { return ErrMachine }

func joined(differences []host.Difference) string { return strings.Join(texts(differences), "; ") }

func texts(differences []host.Difference) []string {
	var all []string
	for _, d := range differences {
		all = append(all, d.String())
	}
	return all
}

// dropUnused removes the last spans that wrote no event: they measured nothing. lines
// is the number of events.
func (d *Description) dropUnused(lines int) {
	for n := len(d.Continued); n > 0 && d.Continued[n-1].EventsBefore >= lines; n-- {
		d.Continued = d.Continued[:n-1]
	}
}

// lastHost returns the facts of the machine that the last span ran on.
func (d *Description) lastHost() host.Facts {
	for _, s := range slices.Backward(d.Continued) {
		if s.Host != nil {
			return *s.Host
		}
	}
	return d.Host
}

// compare compares the last span with span, which wants to continue it. It returns what
// differs, one text each. A difference makes the rest another measurement, so
// repetitions of tests without an outcome are dropped from left. Tests that have an
// outcome on another machine cannot be continued at all: the error is ErrMachine.
// It is ErrCPUs if the run's threads have too few CPUs here.
func (d *Dir) compare(about *Description, span Span, left *record.Left) ([]string, error) {
	if left.Unfinished() == 0 { // only the report is missing
		return nil, nil
	}
	var differences []host.Difference
	if before := about.last().Version; before != span.Version {
		differences = append(differences, host.Difference{What: "version", Before: before, Now: span.Version})
	}
	if span.Host != nil {
		if err := d.enoughCPUs(about, span.Host.CPU); err != nil {
			return nil, err
		}
		differences = append(differences, span.Host.Differences(about.lastHost())...)
	}
	var machine []host.Difference
	for _, x := range differences {
		if x.Machine {
			machine = append(machine, x)
		}
	}
	switch {
	case len(machine) > 0 && len(left.Outcomes) > 0:
		return nil, &OtherMachineError{d.Path, machine}
	case len(machine) > 0: // nothing is lost, and the run is of this machine from now on
		about.Host, about.Before = *span.Host, host.Observe("/")
	}
	if servers := about.Jobs[0].Settings.RPC; len(servers) > 0 && repetitions(left) > 0 {
		differences = append(differences, host.Difference{What: "machines of RPC servers", Before: strings.Join(servers, ", "), Now: "not known"})
	}
	if len(differences) == 0 {
		return nil, nil
	}
	for _, x := range differences {
		slog.Warn("changed since the run was interrupted: "+x.What, "value_before", x.Before, "value_now", x.Now)
	}
	for i := range left.Jobs {
		left.Jobs[i].Restart(joined(differences), len(left.Outcomes) > 0)
	}
	return texts(differences), nil
}

// enoughCPUs returns an ErrCPUs if this process may use fewer CPUs than the run has
// threads, or not those that its settings name.
func (d *Dir) enoughCPUs(about *Description, cpu host.CPU) error {
	s := about.Jobs[0].Settings
	if cpu.AllowedCPUs > 0 && s.Threads > cpu.AllowedCPUs {
		return fmt.Errorf("%s: %w: it has %d threads, and this process may use %s", d.Path, ErrCPUs, s.Threads, cpus(cpu.AllowedCPUs))
	}
	for _, n := range s.CPUs {
		if !cpu.Allows(n) {
			return fmt.Errorf("%s: %w: CPU %d", d.Path, ErrCPUs, n)
		}
	}
	return nil
}

func cpus(n int) string {
	if n == 1 {
		return "1 CPU"
	}
	return fmt.Sprintf("%d CPUs", n)
}

// repetitions counts those of tests without an outcome.
func repetitions(left *record.Left) (n int) {
	for _, job := range left.Jobs {
		for _, t := range job.Tests {
			n += len(t.Done)
		}
	}
	return n
}
