package supervise

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// place takes some outcomes and then fails.
type place struct {
	room int
	took int
	err  error
}

func (p *place) Event(bench.Stamped) error { return nil }

func (p *place) Outcome(*result.Outcome) error {
	if p.took == p.room {
		return p.err
	}
	p.took++
	return nil
}

// A run goes on as long as one place takes its records, and each that fails is told
// once.
func TestDestinations(t *testing.T) {
	const outcomes = 5
	for _, tt := range []struct {
		name               string
		dir, stdout, extra int // outcomes that each takes
		took               [3]int
		ends               error // that ends the run
		failed             error
		told               []string
	}{
		{"all work", 9, 9, 9, [3]int{5, 5, 5}, nil, nil, nil},
		{"the directory is full", 1, 9, 9, [3]int{1, 5, 5}, nil, syscall.ENOSPC, []string{"dir"}},
		{"stdout is closed", 9, 2, 9, [3]int{5, 2, 5}, nil, syscall.EPIPE, []string{"stdout"}},
		{"an extra fails", 9, 9, 0, [3]int{5, 5, 0}, nil, syscall.EIO, []string{"extra"}},
		{"one after the other", 1, 3, 9, [3]int{1, 3, 4}, syscall.ENOSPC, syscall.ENOSPC, []string{"dir"}},
		{"both at once", 0, 0, 9, [3]int{0, 0, 1}, syscall.ENOSPC, syscall.ENOSPC, []string{"dir"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var log bytes.Buffer
			before := slog.Default()
			defer slog.SetDefault(before)
			slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
			places := []*place{{tt.dir, 0, syscall.ENOSPC}, {tt.stdout, 0, syscall.EPIPE}, {tt.extra, 0, syscall.EIO}}
			all := Destinations{
				{Name: "dir", Records: true, Consumer: places[0]}, {Name: "stdout", Records: true, Consumer: places[1]}, {Name: "extra", Consumer: places[2]},
			}
			var ends error
			for range outcomes {
				if ends = all.Outcome(&result.Outcome{}); ends != nil {
					break
				}
			}
			if !errors.Is(ends, tt.ends) || !errors.Is(all.Failed(), tt.failed) {
				t.Errorf("ended by %v, failed %v", ends, all.Failed())
			}
			if diff := cmp.Diff(tt.took, [3]int{places[0].took, places[1].took, places[2].took}); diff != "" {
				t.Errorf("outcomes taken (-want +got):\n%s", diff)
			}
			for _, d := range all {
				want := 0
				for _, name := range tt.told {
					if name == d.Name {
						want = 1
					}
				}
				if n := strings.Count(log.String(), "cannot write to "+d.Name+"; the run continues"); n != want {
					t.Errorf("%s is told %d times, want %d:\n%s", d.Name, n, want, &log)
				}
			}
		})
	}
}

// Outcomes of earlier processes go to the places that lack them, and each place that
// works is completed.
func TestDestinationsOfAResumedRun(t *testing.T) {
	var ended []string
	end := func(name string, err error) func() error {
		return func() error { ended = append(ended, name); return err }
	}
	dir, stdout := &place{room: 9}, &place{room: 9}
	all := Destinations{
		{Name: "dir", Records: true, HasEarlier: true, Consumer: dir, End: end("dir", syscall.ENOSPC)},
		{Name: "stdout", Records: true, Consumer: stdout, End: end("stdout", nil)},
		{Name: "gone", Consumer: stdout, End: end("gone", nil), Err: syscall.EIO},
	}
	if err := all.Earlier(&result.Outcome{}); err != nil {
		t.Fatal(err)
	}
	if err := all.End(); err != nil || !errors.Is(all.Failed(), syscall.ENOSPC) {
		t.Errorf("ended with %v, failed %v", err, all.Failed())
	}
	if diff := cmp.Diff([]string{"dir", "stdout"}, ended); diff != "" || dir.took != 0 || stdout.took != 1 {
		t.Errorf("%d and %d outcomes; completed (-want +got):\n%s", dir.took, stdout.took, diff)
	}
}
