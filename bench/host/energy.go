package host

import (
	"context"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// EnergyMeter tells how much energy the parts of the machine used during a test. Like
// Meter it reads counters before the first burst of repetitions and after each, while the
// worker waits for its parent. It adds up per test, so it does not matter how many
// repetitions lie between two readings. One goroutine uses it.
//
// Its sources, below the root. The first source of a part counts of which all files can be
// read:
//
//   - Packages, DRAM and psys: energy_uj of the zones package-*, dram and psys in
//     /sys/class/powercap/intel-rapl:*, which AMD's CPUs have too, else intel-rapl-mmio:*.
//     The counter starts again at 0 after max_energy_range_uj. The values of all packages
//     are added.
//   - Packages: energy*_input of /sys/class/hwmon whose label is Esocket* (amd_energy,
//     zenergy), or power*_average or power*_input whose label is "CPU power".
//   - The system: energy*_input, power*_average or power*_input of a power supply's driver
//     (power_meter, corsairpsu) or with a label such as "System" (ibmpowernv, macsmc).
//   - The system: power_now, or current_now times voltage_now, of batteries in
//     /sys/class/power_supply that are being discharged.
//
// The units are those of the kernel's ABI documents sysfs-class-powercap, hwmon
// sysfs-interface and sysfs-class-power. Power is read at the same moments; energy is then
// the mean of the two readings times the time between them.
//
// BenchmarkEnergyMeter measures a reading.
type EnergyMeter struct {
	// Clock reads the monotonic clock. Tests replace it.
	Clock func() time.Duration

	files    files
	mayRead  func(path string) error
	sensors  []sensor
	facts    Energy
	patience time.Duration // energyLimit
	slow     int           // readings in a row that took longer

	idle         result.Parts
	before, last []energyReading // the last two readings, of each sensor
	from, at     time.Duration   // of them
	joules       result.Parts    // counted since Start
	lost         map[string]bool // parts of which a window is not known
	window       time.Duration   // counted since Start
}

// Energy says how the energy of this machine is measured.
type Energy struct {
	Sources map[string]string `json:"sources,omitempty"` // of each part: "intel-rapl", "battery"
	Denied  []string          `json:"denied,omitempty"`  // files that this user may not read
	Hint    string            `json:"hint,omitempty"`    // command that grants it; absent: nothing is denied
}

// sensor is a file that counts energy or tells power.
type sensor struct {
	part    string // name in result.Parts
	path    string
	factor  string  // path of a second file by which the first is multiplied; empty: none
	status  string  // path of a battery's status, which must be Discharging; empty: none
	scale   float64 // to J or W
	power   bool    // it tells power in W; else it counts energy in J
	rangeJ  float64 // J at which the counter starts again; 0: it does not
	mostW   float64 // W that the part can take at most
	denied  bool    // this user may not read it
	missing bool    // it cannot be read for another reason
}

// energyReading is a value of a sensor, in J or W.
type energyReading struct {
	value float64
	known bool
}

const (
	// mostWatts is the power that no part of a machine takes. The largest servers take
	// about 15 kW.
	mostWatts = 20_000
	// packageWatts bounds the power of one CPU package if the kernel tells no limit.
	packageWatts = 1000
	// energyLimit is how long one reading may take: six readings, of a test of five
	// repetitions, stay below 2 ms. After slowReadings in a row that took longer, the
	// slowest sensor is not read again. Some hwmon drivers ask a controller over a bus.
	energyLimit = 330 * time.Microsecond
)

// NewEnergyMeter returns a meter of the machine whose files lie below root, "/" for this
// one. Call Close at the end.
func NewEnergyMeter(root string) *EnergyMeter { return newEnergyMeter(root, mayRead) }

// mayRead returns why a file cannot be opened.
func mayRead(path string) error {
	f, err := os.Open(path)
	if err == nil {
		_ = f.Close()
	}
	return err
}

// newEnergyMeter is NewEnergyMeter with the check of files that tests replace.
func newEnergyMeter(root string, mayRead func(path string) error) *EnergyMeter {
	m := &EnergyMeter{files: files{}, mayRead: mayRead, patience: energyLimit}
	start := time.Now()
	m.Clock = func() time.Duration { return time.Since(start) }
	files := open(root)
	rapl := files.raplSensors("intel-rapl")
	mmio := slices.DeleteFunc(files.raplSensors("intel-rapl-mmio"), func(s sensor) bool { // the same, of one package
		return slices.ContainsFunc(rapl, func(o sensor) bool { return o.part == s.part })
	})
	sources := []energySource{{"intel-rapl", rapl}, {"intel-rapl-mmio", mmio}}
	sources = append(sources, files.hwmonSensors()...)
	sources = append(sources, energySource{"battery", files.batterySensors()})
	for _, source := range sources {
		m.choose(source)
	}
	for _, file := range m.facts.Denied {
		if strings.HasSuffix(file, "energy_uj") {
			m.facts.Hint = "sudo chmod a+r /sys/class/powercap/*/energy_uj"
			break
		}
		m.facts.Hint = "sudo chmod a+r /sys/class/hwmon/*/energy*_input"
	}
	return m
}

// energySource are the sensors of one driver.
type energySource struct {
	name    string
	sensors []sensor
}

// choose takes the sensors of a source for the parts that have none yet.
func (m *EnergyMeter) choose(from energySource) {
	for _, part := range new(result.Parts).All() {
		if m.facts.Sources[part.Name] != "" {
			continue
		}
		var own []sensor
		for _, s := range from.sensors {
			if s.part == part.Name {
				own = append(own, m.try(s))
			}
		}
		for _, s := range own {
			if s.denied {
				m.facts.Denied = append(m.facts.Denied, s.path)
			}
		}
		if len(own) == 0 || slices.ContainsFunc(own, func(s sensor) bool { return s.denied || s.missing }) {
			continue
		}
		m.sensors = append(m.sensors, own...)
		if m.facts.Sources == nil {
			m.facts.Sources = map[string]string{}
		}
		m.facts.Sources[part.Name] = from.name
	}
}

// try reads a sensor for the first time.
func (m *EnergyMeter) try(s sensor) sensor {
	s.denied = errors.Is(m.mayRead(s.path), fs.ErrPermission)
	s.missing = !s.denied && !m.read(s).known
	return s
}

// raplSensors are the zones of a control type of powercap.
func (m machine) raplSensors(control string) (sensors []sensor) {
	for _, zone := range m.glob("sys/class/powercap/" + control + ":*") {
		s := sensor{path: zone + "/energy_uj", scale: 1e-6, mostW: packageWatts}
		switch name := readText(zone + "/name"); {
		case strings.HasPrefix(name, "package-"):
			s.part = "package"
		case name == "dram":
			s.part = "dram"
		case name == "psys":
			s.part, s.mostW = "psys", mostWatts
		default: // core and uncore are parts of the package
			continue
		}
		if uj, err := strconv.ParseFloat(readText(zone+"/max_energy_range_uj"), 64); err == nil && uj > 0 {
			s.rangeJ = uj * s.scale
		}
		if limit := powerLimit(zone); limit > 0 && s.part == "package" {
			s.mostW = min(s.mostW, limit)
		}
		sensors = append(sensors, s)
	}
	return sensors
}

// powerLimit is the highest limit on the power of a zone in W; 0: it has none. Limits are
// means of a time window: short peaks exceed them.
func powerLimit(zone string) (watts float64) {
	limits, _ := filepath.Glob(zone + "/constraint_*_power_limit_uw") // the pattern is valid unless the root is none
	for _, file := range limits {
		if uw, err := strconv.ParseFloat(readText(file), 64); err == nil {
			watts = max(watts, 2*uw*1e-6)
		}
	}
	return watts
}

// systemDrivers are drivers of hwmon that measure the whole machine: ACPI's power meter
// and a power supply.
var systemDrivers = []string{"power_meter", "corsairpsu"}

// hwmonSensors are the sensors of hwmon whose driver or label says what they measure, by
// driver: two drivers may measure the same.
func (m machine) hwmonSensors() (sources []energySource) {
	for _, name := range m.glob("sys/class/hwmon/hwmon*/name") {
		driver := readText(name)
		own := hwmonDevice(filepath.Dir(name), driver)
		source := "hwmon " + driver
		i := slices.IndexFunc(sources, func(s energySource) bool { return s.name == source })
		switch {
		case len(own) == 0:
		case i < 0:
			sources = append(sources, energySource{source, own})
		default:
			sources[i].sensors = append(sources[i].sensors, own...)
		}
	}
	return sources
}

// hwmonDevice are the sensors of one device. A part has counters of energy or sensors of
// power, and a sensor its average or its current value.
func hwmonDevice(dir, driver string) (sensors []sensor) {
	for _, kind := range []struct {
		files string
		power bool
	}{{"energy*_input", false}, {"power*_average", true}, {"power*_input", true}} {
		before := len(sensors)
		files, _ := filepath.Glob(filepath.Join(dir, kind.files)) // the pattern is valid unless the root is none
		for _, file := range files {
			s := sensor{path: file, scale: 1e-6, power: kind.power, mostW: mostWatts}
			label := strings.ToLower(readText(file[:strings.LastIndexByte(file, '_')] + "_label"))
			switch {
			case slices.Contains([]string{"amd_energy", "zenergy"}, driver) && strings.HasPrefix(label, "esocket"), label == "cpu power":
				s.part = "package"
			case slices.Contains(systemDrivers, driver) && (label == "" || strings.Contains(label, "total")), label == "system", label == "total system power":
				s.part = "system"
			default:
				continue
			}
			if !slices.ContainsFunc(sensors[:before], func(o sensor) bool { return o.part == s.part }) {
				sensors = append(sensors, s)
			}
		}
	}
	return sensors
}

// batterySensors are the batteries that power the machine now. A battery with another
// scope is that of a mouse or a pen.
func (m machine) batterySensors() (sensors []sensor) {
	for _, kind := range m.glob("sys/class/power_supply/*/type") {
		dir := filepath.Dir(kind) + "/"
		if readText(kind) != "Battery" || readText(dir+"scope") == "Device" || readText(dir+"status") != discharging {
			continue
		}
		s := sensor{part: "system", path: dir + "power_now", status: dir + "status", scale: 1e-6, power: true, mostW: mostWatts}
		if readText(s.path) == "" {
			s.path, s.factor, s.scale = dir+"current_now", dir+"voltage_now", 1e-12
		}
		sensors = append(sensors, s)
	}
	return sensors
}

const discharging = "Discharging"

// Readable tells whether the energy of any part can be measured.
func (m *EnergyMeter) Readable() bool { return len(m.sensors) > 0 }

// Facts says what is measured, and what this user may not read.
func (m *EnergyMeter) Facts() Energy { return m.facts }

// Close closes the files.
func (m *EnergyMeter) Close() { m.files.close("/") }

// Idle measures the power of the parts for a time, or until ctx ends, while nothing runs.
func (m *EnergyMeter) Idle(ctx context.Context, during time.Duration) {
	m.Start()
	m.Read()
	wait := time.NewTimer(during)
	defer wait.Stop()
	select {
	case <-ctx.Done():
	case <-wait.C:
	}
	m.Read()
	m.Count()
	if joules, window := m.Total(); window > 0 {
		m.idle = joules.Times(1 / window.Seconds())
		for _, part := range m.idle.Known() {
			*part.Value = new(math.Round(**part.Value*1e3) / 1e3)
		}
	}
}

// IdleWatts is the power that Idle measured.
func (m *EnergyMeter) IdleWatts() result.Parts { return m.idle }

// Start begins a test.
func (m *EnergyMeter) Start() {
	m.joules, m.lost, m.window, m.before, m.last = result.Parts{}, map[string]bool{}, 0, nil, nil
}

// Read reads the sensors.
func (m *EnergyMeter) Read() {
	m.before, m.from = m.last, m.at
	m.at = m.Clock()
	m.last = m.readAll()
	m.giveUpSlow()
}

// Count adds what the sensors counted between the last two calls of Read, once.
func (m *EnergyMeter) Count() {
	before := m.before
	m.before = nil
	if len(before) != len(m.sensors) || len(m.last) != len(m.sensors) {
		return
	}
	elapsed := m.at - m.from
	m.window += elapsed
	sums := map[string]*float64{}
	for _, part := range m.joules.All() {
		if *part.Value == nil {
			*part.Value = new(float64)
		}
		sums[part.Name] = *part.Value
	}
	for i, s := range m.sensors {
		joules, known := s.used(before[i], m.last[i], elapsed.Seconds())
		if !known {
			m.lost[s.part] = true
			continue
		}
		*sums[s.part] += joules
	}
}

// minWindow is the shortest time over which energy is told. RAPL's counters move about
// once in a millisecond.
const minWindow = 100 * time.Millisecond

// Total is the energy in J since Start, and the time over which it was counted. A part is
// absent if one of its values is not known or not possible, if a counter did not move, and
// if the time is shorter than 0.1 s.
func (m *EnergyMeter) Total() (joules result.Parts, window time.Duration) {
	if m.window < minWindow {
		return joules, m.window
	}
	to := joules.All()
	for i, part := range m.joules.All() {
		if v := *part.Value; v != nil && *v > 0 && !m.lost[part.Name] {
			*to[i].Value = new(math.Round(*v*1e6) / 1e6)
		}
	}
	return joules, m.window
}

// Sampled names the parts whose power is read, in the order of result.Parts.
func (m *EnergyMeter) Sampled() (parts []string) {
	for _, part := range new(result.Parts).All() {
		if slices.ContainsFunc(m.sensors, func(s sensor) bool { return s.part == part.Name && s.power }) {
			parts = append(parts, part.Name)
		}
	}
	return parts
}

// readAll reads all sensors, and finds the slowest.
func (m *EnergyMeter) readAll() []energyReading {
	all := make([]energyReading, len(m.sensors))
	start := time.Now()
	for i, s := range m.sensors {
		all[i] = m.read(s)
	}
	if time.Since(start) <= m.patience {
		m.slow = 0
	} else {
		m.slow++
	}
	return all
}

// giveUpSlow stops to read the part with the slowest sensor after slowReadings in a row
// that took too long.
func (m *EnergyMeter) giveUpSlow() {
	if m.slow < slowReadings {
		return
	}
	m.slow = 0
	var slowest time.Duration
	var part string
	for _, s := range m.sensors {
		start := time.Now()
		m.read(s)
		if took := time.Since(start); took >= slowest {
			slowest, part = took, s.part
		}
	}
	if m.lost != nil {
		m.lost[part] = true
	}
	m.sensors = slices.DeleteFunc(m.sensors, func(s sensor) bool { return s.part == part })
	m.before, m.last = nil, nil // they have other sensors
}

// read reads a sensor once.
func (m *EnergyMeter) read(s sensor) (r energyReading) {
	if s.status != "" && strings.TrimSpace(m.files.text(s.status)) != discharging {
		return r
	}
	value, ok := m.number(s.path)
	if ok && s.factor != "" {
		var by float64
		by, ok = m.number(s.factor)
		value *= by
	}
	if s.power {
		value = math.Abs(value) // some batteries count what they give as negative
	}
	value *= s.scale
	return energyReading{value, ok && value >= 0 && !math.IsInf(value, 0)}
}

func (m *EnergyMeter) number(path string) (float64, bool) {
	n, err := strconv.ParseInt(strings.TrimSpace(m.files.text(path)), 10, 64)
	return float64(n), err == nil
}

// used is the energy in J between two readings of a sensor. It is not known if one of them
// is not, if it is more than the part can take, or if the counter may have started again
// more than once.
func (s sensor) used(before, now energyReading, seconds float64) (joules float64, known bool) {
	if !before.known || !now.known || seconds < 0 {
		return 0, false
	}
	if s.power {
		joules = (before.value + now.value) / 2 * seconds
		return joules, max(before.value, now.value) <= mostWatts
	}
	joules = now.value - before.value
	if joules < 0 {
		if s.rangeJ == 0 || before.value > s.rangeJ {
			return 0, false
		}
		joules += s.rangeJ
	}
	if s.rangeJ > 0 && seconds*s.mostW >= s.rangeJ {
		return 0, false
	}
	const settle = 1 // J that a counter may be late
	return joules, joules <= s.mostW*seconds+settle
}
