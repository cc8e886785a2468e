package session

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/host"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// A package takes 10 W while nothing runs, 100 W until the end of the warm-up and 50 W
// after it. Only bursts of repetitions count, with the warm-up if it is in the same one.
func TestEnergyOfTests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := t.TempDir()
		zone := filepath.Join(root, "sys/class/powercap/intel-rapl:0")
		if err := os.MkdirAll(zone, 0o755); err != nil {
			t.Fatal(err)
		}
		uj := 0
		write := func(name, text string) {
			t.Helper()
			if err := os.WriteFile(filepath.Join(zone, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		counter := func() { write("energy_uj", strconv.Itoa(uj)) }
		write("name", "package-0\n")
		counter()
		meter := host.NewEnergyMeter(root)
		defer meter.Close()
		go func() {
			time.Sleep(idleTime / 2)
			uj += 10_000_000
			counter()
		}()
		start := time.Now()
		observeIdle(t.Context(), meter, nil)
		if time.Since(start) != idleTime {
			t.Errorf("idle for %v", time.Since(start))
		}
		e := energy{meter: meter}
		pass := func(d time.Duration, watts int) {
			time.Sleep(d)
			uj += int(d.Seconds() * float64(watts) * 1e6)
			counter()
		}
		step := func(ev bench.Event, more int) []bench.Event {
			return e.Observe(bench.Stamped{At: time.Now(), Event: ev, More: more})
		}
		for _, tt := range []struct {
			name   string
			burst  int // repetitions that are reported together
			warmup int // events of a warm-up that come with them
			want   result.Parts
			window time.Duration
		}{
			{"one by one", 1, 0, result.Parts{Package: new(200.0)}, 4 * time.Second},
			{"in bursts", 4, 0, result.Parts{Package: new(200.0)}, 4 * time.Second},
			{"with the warm-up", 4, 2, result.Parts{Package: new(300.0)}, 5 * time.Second},
		} {
			step(bench.TestStarted{}, 0)
			pass(time.Second, 100)
			step(bench.ContextReady{}, 0)
			pass(time.Second, 100)
			if tt.warmup == 0 {
				step(bench.WarmupDone{}, 1) // two passes that end no burst of repetitions
				step(bench.WarmupDone{}, 0)
			}
			for n := range 2 {
				pass(2*time.Second, 50)
				for k := range tt.warmup * (1 - n) {
					step(bench.WarmupDone{}, tt.warmup-k-1+tt.burst)
				}
				for k := range tt.burst {
					pass(time.Millisecond, 0) // while the parent writes them
					step(bench.RepetitionDone{}, tt.burst-k-1)
				}
			}
			pass(time.Second, 100)
			got := step(bench.TestDone{}, 0)
			want := []bench.Event{bench.EnergyObserved{Window: tt.window, Joules: tt.want, IdleWatts: result.Parts{Package: new(10.0)}}}
			near := cmp.Comparer(func(a, b time.Duration) bool { return (a - b).Abs() < 100*time.Millisecond })
			if diff := cmp.Diff(want, got, cmpopts.EquateApprox(1e-9, 0), near); diff != "" {
				t.Errorf("%s (-want +got)\n%s", tt.name, diff)
			}
		}
	})
}

// A machine that tells nothing waits for nothing and has no event.
func TestNoEnergy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meter := host.NewEnergyMeter(t.TempDir())
		defer meter.Close()
		start := time.Now()
		observeIdle(t.Context(), meter, nil)
		if time.Since(start) > 0 {
			t.Errorf("waited for %v", time.Since(start))
		}
		if got := (&energy{meter: meter}).Observe(bench.Stamped{Event: bench.TestDone{}}); got != nil {
			t.Errorf("%+v", got)
		}
	})
}

// What only root may read is one line of the log, with the command that grants it.
func TestDeniedEnergyIsLogged(t *testing.T) {
	var log bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	defer slog.SetDefault(before)
	logDenied(host.Energy{Sources: map[string]string{"system": "battery"}})
	if log.Len() > 0 {
		t.Errorf("nothing is denied: %s", log.String())
	}
	logDenied(host.Energy{Denied: []string{"/a/energy_uj", "/b/energy_uj"}, Hint: "sudo chmod a+r /*"})
	got := log.String()
	if strings.Count(got, "\n") != 1 || !strings.Contains(got, "file=/a/energy_uj") || !strings.Contains(got, `hint="sudo chmod a+r /*"`) {
		t.Error(got)
	}
}
