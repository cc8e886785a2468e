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
// after it. Only what comes after the warm-up counts, whether repetitions come one by one
// or in a burst, unless the warm-up belongs to the burst.
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
		e := energy{meter}
		pass := func(d time.Duration, watts int) {
			time.Sleep(d)
			uj += int(d.Seconds() * float64(watts) * 1e6)
			counter()
		}
		observe := func(more int, ev bench.Event) []bench.Event {
			return e.Observe(bench.Stamped{At: time.Now(), Event: ev, More: more})
		}
		for _, burst := range []int{1, 4} {
			observe(0, bench.TestStarted{})
			pass(time.Second, 100)
			observe(0, bench.ContextReady{})
			pass(time.Second, 100)
			observe(0, bench.WarmupDone{})
			for range 2 {
				pass(2*time.Second, 50)
				for n := range burst {
					observe(burst-1-n, bench.RepetitionDone{})
				}
			}
			pass(time.Second, 100)
			got := observe(0, bench.TestDone{})
			want := []bench.Event{bench.EnergyObserved{Window: 4 * time.Second, Joules: result.Parts{Package: new(200.0)}, IdleWatts: result.Parts{Package: new(10.0)}}}
			if diff := cmp.Diff(want, got, cmpopts.EquateApprox(1e-9, 0)); diff != "" {
				t.Errorf("bursts of %d (-want +got)\n%s", burst, diff)
			}
		}
		// The window of a burst that begins with the warm-up includes it.
		observe(0, bench.TestStarted{})
		observe(0, bench.ContextReady{})
		pass(400*time.Millisecond, 50)
		observe(2, bench.WarmupDone{})
		observe(1, bench.RepetitionDone{})
		observe(0, bench.RepetitionDone{})
		want := []bench.Event{bench.EnergyObserved{Window: 400 * time.Millisecond, Joules: result.Parts{Package: new(20.0)}, IdleWatts: result.Parts{Package: new(10.0)}}}
		if diff := cmp.Diff(want, observe(0, bench.TestDone{}), cmpopts.EquateApprox(1e-9, 0)); diff != "" {
			t.Errorf("warm-up in the burst (-want +got)\n%s", diff)
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
		if got := (energy{meter}).Observe(bench.Stamped{Event: bench.TestDone{}}); got != nil {
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
