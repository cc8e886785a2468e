package host

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// cpuSensors are the drivers of CPU temperatures in hwmon's "name", and the parts of
// such names in the "type" of a thermal zone.
var (
	cpuSensors = []string{"coretemp", "k10temp", "zenpower", "cpu_thermal", "soc_thermal"}
	cpuZones   = []string{"x86_pkg_temp", "cpu", "soc"}
)

// Temperature returns the highest temperature of the CPU in °C, of the machine whose
// files lie below root. It reads /sys/class/hwmon, else /sys/class/thermal. ok is false
// if neither has a sensor of the CPU, as on most virtual machines.
func Temperature(root string) (celsius float64, ok bool) {
	m := open(root)
	for _, name := range m.glob("sys/class/hwmon/hwmon*/name") {
		if slices.Contains(cpuSensors, readText(name)) {
			inputs, _ := filepath.Glob(filepath.Join(filepath.Dir(name), "temp*_input")) // the pattern is valid
			celsius, ok = hottest(celsius, ok, inputs)
		}
	}
	if ok {
		return celsius, ok
	}
	for _, zone := range m.glob("sys/class/thermal/thermal_zone*/type") {
		kind := strings.ToLower(readText(zone))
		if slices.ContainsFunc(cpuZones, func(part string) bool { return strings.Contains(kind, part) }) {
			celsius, ok = hottest(celsius, ok, []string{filepath.Join(filepath.Dir(zone), "temp")})
		}
	}
	return celsius, ok
}

// hottest is the highest of celsius, if ok, and the values of files, which are in
// thousandths of a degree. Values that no silicon has are left out.
func hottest(celsius float64, ok bool, files []string) (float64, bool) {
	for _, file := range files {
		milli, err := strconv.ParseInt(readText(file), 10, 32)
		if err != nil || milli <= 0 || milli > 150_000 {
			continue
		}
		if c := float64(milli) / 1000; !ok || c > celsius {
			celsius, ok = c, true
		}
	}
	return celsius, ok
}
