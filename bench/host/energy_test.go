package host

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// zone has the files of a zone of powercap.
func zone(name, kind string, uj uint64) map[string]string {
	dir := "sys/class/powercap/" + name
	return map[string]string{dir + "/name": kind + "\n", dir + "/energy_uj": fmt.Sprintf("%d\n", uj), dir + "/max_energy_range_uj": "262143328850\n"}
}

// joined are the files of all maps.
func joined(all ...map[string]string) map[string]string {
	files := map[string]string{}
	for _, each := range all {
		for name, text := range each {
			files[name] = text
		}
	}
	return files
}

const (
	packageEnergy = "sys/class/powercap/intel-rapl:0/energy_uj"
	secondEnergy  = "sys/class/powercap/intel-rapl:1/energy_uj"
	dramEnergy    = "sys/class/powercap/intel-rapl:0:0/energy_uj"
	batteryDir    = "sys/class/power_supply/BAT0/"
	meterDir      = "sys/class/hwmon/hwmon3/"
	amdDir        = "sys/class/hwmon/hwmon2/"
)

var (
	server = joined(
		map[string]string{"sys/class/powercap/intel-rapl/enabled": "1\n"},
		zone("intel-rapl:0", "package-0", 5_000_000), zone("intel-rapl:1", "package-1", 7_000_000),
		zone("intel-rapl:0:0", "dram", 1_000_000), zone("intel-rapl:0:1", "core", 1_000_000),
		zone("intel-rapl-mmio:0", "package-0", 5_000_000), // the same package
	)
	amd = map[string]string{
		amdDir + "name":          "amd_energy\n",
		amdDir + "energy1_label": "Ecore000\n", amdDir + "energy1_input": "1000000\n",
		amdDir + "energy2_label": "Esocket0\n", amdDir + "energy2_input": "2000000\n",
		amdDir + "energy3_label": "Esocket1\n", amdDir + "energy3_input": "3000000\n",
	}
	powerMeter = map[string]string{
		meterDir + "name": "power_meter\n", meterDir + "power1_average": "200000000\n", meterDir + "power1_average_interval": "1000\n",
		"sys/class/hwmon/hwmon0/name": "amdgpu\n", "sys/class/hwmon/hwmon0/power1_average": "90000000\n", // of a card
	}
	battery = map[string]string{
		batteryDir + "type": "Battery\n", batteryDir + "status": "Discharging\n", batteryDir + "power_now": "15000000\n",
		"sys/class/power_supply/AC/type": "Mains\n", "sys/class/power_supply/AC/online": "0\n",
		"sys/class/power_supply/mouse/type": "Battery\n", "sys/class/power_supply/mouse/scope": "Device\n",
		"sys/class/power_supply/mouse/status": "Discharging\n", "sys/class/power_supply/mouse/power_now": "1000000\n",
	}
)

func TestEnergy(t *testing.T) {
	second := func(files map[string]string) moment { return moment{files: files, monotonic: time.Second} }
	for _, tc := range []struct {
		name    string
		files   map[string]string
		denied  []string // files that only root may read
		steps   []moment // of one second each, or until monotonic
		want    result.Parts
		sources map[string]string
		sampled []string
	}{
		{"a machine without", map[string]string{"sys/class/hwmon/hwmon0/name": "nvme\n"}, nil, []moment{second(nil)}, result.Parts{}, nil, nil},
		{
			"two packages", server, nil,
			[]moment{second(map[string]string{packageEnergy: "65000000\n", secondEnergy: "57000000\n", dramEnergy: "6000000\n", "sys/class/powercap/intel-rapl:0:1/energy_uj": "31000000\n"})},
			result.Parts{Package: new(110.0), DRAM: new(5.0)}, map[string]string{"package": "intel-rapl", "dram": "intel-rapl"}, nil,
		},
		{
			"several repetitions", server, nil,
			[]moment{
				second(map[string]string{packageEnergy: "65000000\n", secondEnergy: "57000000\n", dramEnergy: "6000000\n"}),
				{files: map[string]string{packageEnergy: "75000000\n", secondEnergy: "67000000\n", dramEnergy: "7000000\n"}, monotonic: 1200 * time.Millisecond},
			},
			result.Parts{Package: new(130.0), DRAM: new(6.0)}, map[string]string{"package": "intel-rapl", "dram": "intel-rapl"}, nil,
		},
		{
			"a counter starts again", joined(zone("intel-rapl:0", "package-0", 262_143_000_000)), nil,
			[]moment{second(map[string]string{packageEnergy: "60000000\n"})},
			result.Parts{Package: new(60.32885)}, map[string]string{"package": "intel-rapl"}, nil,
		},
		{
			"it may have started again twice", joined(zone("intel-rapl:0", "package-0", 5_000_000)), nil,
			[]moment{{files: map[string]string{packageEnergy: "65000000\n"}, monotonic: 10 * time.Minute}},
			result.Parts{}, map[string]string{"package": "intel-rapl"}, nil,
		},
		{
			"not within its limit of power", joined(zone("intel-rapl:0", "package-0", 5_000_000), map[string]string{
				"sys/class/powercap/intel-rapl:0/constraint_0_power_limit_uw": "15000000\n", "sys/class/powercap/intel-rapl:0/constraint_1_power_limit_uw": "64000000\n",
			}), nil,
			[]moment{{files: map[string]string{packageEnergy: "9000000000\n"}, monotonic: 10 * time.Minute}},
			result.Parts{Package: new(8995.0)}, map[string]string{"package": "intel-rapl"}, nil,
		},
		{
			"more than a package takes", joined(zone("intel-rapl:0", "package-0", 5_000_000)), nil,
			[]moment{second(map[string]string{packageEnergy: "5000000000\n"})},
			result.Parts{}, map[string]string{"package": "intel-rapl"}, nil,
		},
		{
			"a counter without a range steps back", amd, nil,
			[]moment{second(map[string]string{amdDir + "energy2_input": "1000000\n", amdDir + "energy3_input": "53000000\n"})},
			result.Parts{}, map[string]string{"package": "hwmon amd_energy"}, nil,
		},
		{
			"a counter that stands still", joined(zone("intel-rapl:0", "package-0", 5_000_000)), nil, []moment{second(nil)},
			result.Parts{}, map[string]string{"package": "intel-rapl"}, nil,
		},
		{
			"a file that becomes empty", server, nil,
			[]moment{
				second(map[string]string{packageEnergy: "65000000\n", secondEnergy: "", dramEnergy: "6000000\n"}),
				{files: map[string]string{packageEnergy: "75000000\n", secondEnergy: "67000000\n", dramEnergy: "7000000\n"}, monotonic: 2 * time.Second},
			},
			result.Parts{DRAM: new(6.0)}, map[string]string{"package": "intel-rapl", "dram": "intel-rapl"}, nil,
		},
		{
			"the packages of AMD", amd, nil,
			[]moment{second(map[string]string{amdDir + "energy1_input": "9000000\n", amdDir + "energy2_input": "62000000\n", amdDir + "energy3_input": "53000000\n"})},
			result.Parts{Package: new(110.0)}, map[string]string{"package": "hwmon amd_energy"}, nil,
		},
		{
			"only root reads RAPL", joined(server, amd), []string{packageEnergy, secondEnergy, dramEnergy},
			[]moment{second(map[string]string{amdDir + "energy2_input": "62000000\n", amdDir + "energy3_input": "53000000\n"})},
			result.Parts{Package: new(110.0)}, map[string]string{"package": "hwmon amd_energy"}, nil,
		},
		{
			"one of two packages cannot be read", joined(server, map[string]string{secondEnergy: "?\n"}), nil,
			[]moment{second(map[string]string{packageEnergy: "65000000\n", dramEnergy: "6000000\n"})},
			result.Parts{DRAM: new(5.0)}, map[string]string{"dram": "intel-rapl"}, nil,
		},
		{
			"only by memory-mapped registers", joined(zone("intel-rapl-mmio:0", "package-0", 5_000_000)), nil,
			[]moment{second(map[string]string{"sys/class/powercap/intel-rapl-mmio:0/energy_uj": "15000000\n"})},
			result.Parts{Package: new(10.0)}, map[string]string{"package": "intel-rapl-mmio"}, nil,
		},
		{
			"psys", joined(zone("intel-rapl:0", "package-0", 5_000_000), zone("intel-rapl:1", "psys", 5_000_000)), nil,
			[]moment{second(map[string]string{packageEnergy: "15000000\n", secondEnergy: "25000000\n"})},
			result.Parts{Package: new(10.0), Psys: new(20.0)}, map[string]string{"package": "intel-rapl", "psys": "intel-rapl"}, nil,
		},
		{
			"a power meter of the machine", powerMeter, nil, []moment{second(map[string]string{meterDir + "power1_average": "300000000\n"})},
			result.Parts{System: new(250.0)}, map[string]string{"system": "hwmon power_meter"}, []string{"system"},
		},
		{
			"more power than a machine takes", powerMeter, nil, []moment{second(map[string]string{meterDir + "power1_average": "4294967295000000\n"})},
			result.Parts{}, map[string]string{"system": "hwmon power_meter"}, []string{"system"},
		},
		{
			"counters come before power", map[string]string{
				meterDir + "name": "ibmpowernv\n", meterDir + "energy1_label": "System\n", meterDir + "energy1_input": "1000000\n",
				meterDir + "power1_label": "System\n", meterDir + "power1_input": "500000000\n",
			}, nil, []moment{second(map[string]string{meterDir + "energy1_input": "401000000\n"})},
			result.Parts{System: new(400.0)}, map[string]string{"system": "hwmon ibmpowernv"}, nil,
		},
		{
			"a battery", battery, nil, []moment{second(map[string]string{batteryDir + "power_now": "25000000\n"})},
			result.Parts{System: new(20.0)}, map[string]string{"system": "battery"}, []string{"system"},
		},
		{
			"current and voltage, counted as negative", map[string]string{
				batteryDir + "type": "Battery\n", batteryDir + "status": "Discharging\n",
				batteryDir + "current_now": "-2000000\n", batteryDir + "voltage_now": "12000000\n",
			}, nil, []moment{second(nil)}, result.Parts{System: new(24.0)}, map[string]string{"system": "battery"}, []string{"system"},
		},
		{"a battery that is charged", joined(battery, map[string]string{batteryDir + "status": "Charging\n"}), nil, []moment{second(nil)}, result.Parts{}, nil, nil},
		{
			"mains during the test", battery, nil, []moment{second(map[string]string{batteryDir + "status": "Charging\n"})},
			result.Parts{}, map[string]string{"system": "battery"}, []string{"system"},
		},
		{
			"too short", joined(zone("intel-rapl:0", "package-0", 5_000_000)), nil,
			[]moment{{files: map[string]string{packageEnergy: "5500000\n"}, monotonic: 20 * time.Millisecond}},
			result.Parts{}, map[string]string{"package": "intel-rapl"}, nil,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			root := t.TempDir()
			madeUp(t, root, tc.files)
			m := newEnergyMeter(root, func(path string) error {
				for _, file := range tc.denied {
					if path == filepath.Join(root, file) {
						return fs.ErrPermission
					}
				}
				return nil
			})
			defer m.Close()
			now := 5 * time.Hour
			m.Clock, m.patience = func() time.Duration { return now }, time.Hour
			m.Start()
			m.Read()
			for _, step := range tc.steps {
				madeUp(t, root, step.files)
				now = 5*time.Hour + step.monotonic
				m.Read()
				m.Count()
			}
			got, window := m.Total()
			if diff := cmp.Diff(tc.want, got, cmpopts.EquateApprox(1e-9, 0)); diff != "" {
				t.Errorf("energy (-want +got)\n%s", diff)
			}
			if want := tc.steps[len(tc.steps)-1].monotonic; window != want && m.Readable() {
				t.Errorf("window %v, want %v", window, want)
			}
			if diff := cmp.Diff(tc.sources, m.Facts().Sources); diff != "" {
				t.Errorf("sources (-want +got)\n%s", diff)
			}
			if diff := cmp.Diff(tc.sampled, m.Sampled()); diff != "" {
				t.Errorf("sampled (-want +got)\n%s", diff)
			}
			if m.Readable() != (len(tc.sources) > 0) || len(m.Facts().Denied) != len(tc.denied) || (m.Facts().Hint != "") != (len(tc.denied) > 0) {
				t.Errorf("readable %v, %+v", m.Readable(), m.Facts())
			}
		})
	}
}

// A window counts once, and only if that is asked for.
func TestEnergyCountsOnce(t *testing.T) {
	root := t.TempDir()
	madeUp(t, root, joined(zone("intel-rapl:0", "package-0", 5_000_000)))
	m := NewEnergyMeter(root)
	defer m.Close()
	now := time.Duration(0)
	m.Clock, m.patience = func() time.Duration { return now }, time.Hour
	m.Start()
	m.Count()
	m.Read()
	m.Count()
	for n, count := range []int{0, 2, 0, 1} { // 10 J, 20 J, 30 J, 40 J
		uj, err := strconv.Atoi(strings.TrimSpace(readText(filepath.Join(root, packageEnergy))))
		if err != nil {
			t.Fatal(err)
		}
		madeUp(t, root, map[string]string{packageEnergy: strconv.Itoa(uj + (n+1)*10_000_000)})
		now += time.Second
		m.Read()
		for range count {
			m.Count()
		}
	}
	if joules, window := m.Total(); joules.Package == nil || *joules.Package != 60 || window != 2*time.Second {
		t.Errorf("%+v in %v", joules, window)
	}
}

// A file that is removed leaves its part unknown in the next test too.
func TestEnergyVanishes(t *testing.T) {
	root := t.TempDir()
	madeUp(t, root, server)
	m := NewEnergyMeter(root)
	defer m.Close()
	now := time.Duration(0)
	m.Clock, m.patience = func() time.Duration { return now }, time.Hour
	for n := range 2 {
		m.Start()
		m.Read()
		if err := os.RemoveAll(filepath.Join(root, filepath.Dir(secondEnergy))); err != nil {
			t.Fatal(err)
		}
		madeUp(t, root, map[string]string{packageEnergy: fmt.Sprintf("%d\n", 65000000+n*1000000), dramEnergy: fmt.Sprintf("%d\n", 6000000+n*1000000)})
		now += time.Second
		m.Read()
		m.Count()
		m.files.close(filepath.Join(root, secondEnergy)) // as the kernel does: the open file fails too
		now += time.Second
		m.Read()
		m.Count()
		if joules, _ := m.Total(); joules.Package != nil || joules.DRAM == nil {
			t.Errorf("test %d: %+v", n, joules)
		}
	}
}

// Idle power is measured over its time, and a machine that tells nothing has none.
func TestEnergyIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := t.TempDir()
		madeUp(t, root, joined(zone("intel-rapl:0", "package-0", 5_000_000)))
		m := NewEnergyMeter(root)
		defer m.Close()
		go func() {
			time.Sleep(time.Second)
			madeUp(t, root, map[string]string{packageEnergy: "25000000\n"})
		}()
		m.Idle(t.Context(), 2*time.Second)
		if diff := cmp.Diff(result.Parts{Package: new(10.0)}, m.IdleWatts(), cmpopts.EquateApprox(1e-6, 0)); diff != "" {
			t.Error(diff)
		}
		if joules, window := m.Total(); joules.Package == nil || window != 2*time.Second {
			t.Errorf("%+v in %v", joules, window)
		}
		m.Start()
		if joules, window := m.Total(); joules.Package != nil || window != 0 {
			t.Errorf("the idle time is part of a test: %+v in %v", joules, window)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		start := time.Now()
		if m.Idle(ended, time.Hour); time.Since(start) > 0 {
			t.Error("it waits although the run ends")
		}
	})
}

// Of sensors that take too long, the slowest is not read again. The others go on.
func TestEnergySlow(t *testing.T) {
	root := t.TempDir()
	madeUp(t, root, joined(server, powerMeter))
	m := NewEnergyMeter(root)
	defer m.Close()
	m.Start()
	m.Read()
	m.patience = 0
	parts := len(m.Facts().Sources)
	for range 2 * slowReadings {
		m.Read()
		m.Count()
	}
	left := map[string]bool{}
	for _, s := range m.sensors {
		left[s.part] = true
	}
	if len(left) >= parts || len(left) == 0 {
		t.Errorf("%v are left of %d parts", left, parts)
	}
}

func TestEnergyFacts(t *testing.T) {
	root := t.TempDir()
	madeUp(t, root, server)
	if diff := cmp.Diff(Energy{Sources: map[string]string{"package": "intel-rapl", "dram": "intel-rapl"}}, Collect(root).Energy); diff != "" {
		t.Error(diff)
	}
	denied := newEnergyMeter(root, func(string) error { return fs.ErrPermission })
	defer denied.Close()
	if f := denied.Facts(); f.Hint != "sudo chmod a+r /sys/class/powercap/*/energy_uj" || denied.Readable() {
		t.Errorf("%+v", f)
	}
	b, err := json.Marshal(Facts{})
	if err != nil || strings.Contains(string(b), "energy") {
		t.Errorf("a machine without: %s, %v", b, err)
	}
}

// FuzzEnergy: whatever the files hold, energy is finite, positive and below what a machine
// can take.
func FuzzEnergy(f *testing.F) {
	f.Add("5000000\n", "65000000\n", "262143328850\n", int64(time.Second))
	f.Add("262143000000", "60", "262143328850", int64(time.Second))
	f.Add("9223372036854775807", "-9223372036854775808", "1e308", int64(time.Hour))
	f.Add("1e309", "NaN", "-1", int64(1))
	f.Add("1\x00", "\xff", "", int64(-1))
	f.Fuzz(func(t *testing.T, before, after, most string, elapsed int64) {
		root := t.TempDir()
		madeUp(t, root, joined(amd, powerMeter, battery, map[string]string{
			"sys/class/powercap/intel-rapl:0/name": "package-0", packageEnergy: before, "sys/class/powercap/intel-rapl:0/max_energy_range_uj": most,
			"sys/class/powercap/intel-rapl:0/constraint_0_power_limit_uw": most,
			amdDir + "energy2_input": before, meterDir + "power1_average": before, batteryDir + "power_now": before,
		}))
		m := NewEnergyMeter(root)
		defer m.Close()
		now := time.Duration(0)
		m.Clock = func() time.Duration { return now }
		m.Start()
		m.Read()
		madeUp(t, root, map[string]string{packageEnergy: after, amdDir + "energy2_input": after, meterDir + "power1_average": after, batteryDir + "power_now": after})
		now = time.Duration(elapsed)
		m.Read()
		m.Count()
		joules, window := m.Total()
		for _, part := range joules.Known() {
			if v := **part.Value; !(v > 0) || math.IsInf(v, 0) || v > mostWatts*window.Seconds()+1 {
				t.Errorf("%s: %g J in %v", part.Name, v, window)
			}
		}
	})
}

// BenchmarkEnergyMeter measures one reading: of this machine, and of made-up files of two
// packages with their memory, which take no time in the kernel.
func BenchmarkEnergyMeter(b *testing.B) {
	for name, root := range map[string]string{"machine": "/", "files": b.TempDir()} {
		b.Run(name, func(b *testing.B) {
			if name == "files" {
				madeUp(b, root, server)
			}
			m := NewEnergyMeter(root)
			defer m.Close()
			m.patience = time.Hour
			m.Start()
			m.Read()
			for b.Loop() {
				m.Read()
				m.Count()
			}
			b.ReportMetric(float64(len(m.sensors)), "sensors")
		})
	}
}
