package gpu

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// sysfs reads GPUs of AMD and Intel from files that their kernel drivers (amdgpu, i915,
// xe) offer, below a root. A value whose file is missing is absent. One goroutine at a
// time may call its methods.
//
// procfs/sysfs does not replace this: it knows amdgpu only, has neither power nor clocks,
// and fails for all cards if one file of one card is missing.
//
// Sources: the kernel's documentation "AMDGPU hwmon interfaces", "GPU sysfs", "i915 hwmon",
// "Xe GT Frequency Management" and "DRM client usage stats"; structs gpu_metrics_v1_3 and
// gpu_metrics_v2_2 of kgd_pp_interface.h.
type sysfs struct {
	root  string
	cards []card
	spent map[string]uint64 // of a client (process and id) on a card's engines, in ns, at the last count
	last  map[int]work      // of the worker on each card, at the last reading
}

// card is one GPU. Its directory is that of the PCI device.
type card struct {
	dir, node, address, driver, version string
	hwmon                               string // directory of its sensors; empty: it has none
}

// cardDrivers are the kernel drivers whose files are known.
var cardDrivers = []string{"amdgpu", "i915", "xe"}

// openSysfs finds the cards. It returns nil if there is none.
func openSysfs(root string) *sysfs {
	s := &sysfs{root: root, spent: map[string]uint64{}, last: map[int]work{}}
	for _, node := range glob(root, "sys/class/drm/card[0-9]*") {
		if strings.Contains(filepath.Base(node), "-") {
			continue // a connector
		}
		dir := filepath.Join(node, "device")
		uevent := readText(dir + "/uevent")
		c := card{dir: dir, node: node, address: strings.ToLower(field(uevent, "PCI_SLOT_NAME=")), driver: field(uevent, "DRIVER=")}
		if !slices.Contains(cardDrivers, c.driver) || c.address == "" {
			continue
		}
		c.version = readText(filepath.Join(root, "sys/module", c.driver, "version"))
		if c.version == "" {
			c.version = readText(filepath.Join(root, "proc/sys/kernel/osrelease")) // they are part of the kernel
		}
		if sensors := glob(dir, "hwmon/hwmon*"); len(sensors) > 0 {
			c.hwmon = sensors[0]
		}
		s.cards = append(s.cards, c)
	}
	if len(s.cards) == 0 {
		return nil
	}
	return s
}

// list implements source.
func (s *sysfs) list() (devices []watched) {
	for i, c := range s.cards {
		devices = append(devices, watched{source: s, index: i, address: c.address, driver: c.driver + " " + c.version})
	}
	return devices
}

// number reads a file with one number and scales it; nil: it cannot be read.
func number(path string, scale float64) *float64 {
	n, err := strconv.ParseFloat(readText(path), 64)
	if err != nil {
		return nil
	}
	n *= scale
	return &n
}

// first returns the first value that is not nil.
func first(values ...*float64) *float64 {
	for _, v := range values {
		if v != nil {
			return v
		}
	}
	return nil
}

// read implements source.
func (s *sysfs) read(i, worker int) result.GPUReading {
	c := s.cards[i]
	sensor := func(name string, scale float64) *float64 {
		if c.hwmon == "" {
			return nil
		}
		return number(filepath.Join(c.hwmon, name), scale)
	}
	r := result.GPUReading{
		At:           time.Now(),
		EnergyJoules: sensor("energy1_input", 1e-6), // µJ, of the card
		PowerWatts:   first(sensor("power1_average", 1e-6), sensor("power1_input", 1e-6)),
		TemperatureC: first(sensor("temp2_input", 1e-3), sensor("temp1_input", 1e-3)), // amdgpu's hot spot, xe's package; else the only one
	}
	if c.driver == "amdgpu" {
		r.BusyPercent = number(c.dir+"/gpu_busy_percent", 1)
		r.SMClockMHz = first(sensor("freq1_input", 1e-6), activeClock(readText(c.dir+"/pp_dpm_sclk")))
		r.MemoryClockMHz = first(sensor("freq2_input", 1e-6), activeClock(readText(c.dir+"/pp_dpm_mclk")))
		// An integrated GPU keeps weights in memory of the host (GTT).
		if vram := number(c.dir+"/mem_info_vram_used", 1); vram != nil {
			used := uint64(*vram)
			if gtt := number(c.dir+"/mem_info_gtt_used", 1); gtt != nil {
				used += uint64(*gtt)
			}
			r.UsedBytes = &used
		}
		if b, err := os.ReadFile(c.dir + "/gpu_metrics"); err == nil {
			r.Throttled = amdThrottle(b)
		}
		return r
	}
	now := s.work(c, worker, r.At)
	r.BusyPercent = now.since(s.last[i])
	if s.last[i] = now; now.memory > 0 {
		r.UsedBytes = &now.memory
	}
	r.SMClockMHz = first(
		number(c.dir+"/tile0/gt0/freq0/act_freq", 1), // xe
		number(c.node+"/gt/gt0/rps_act_freq_mhz", 1), // i915
		number(c.node+"/gt_act_freq_mhz", 1),         // i915 before Linux 5.18
	)
	r.Throttled = intelThrottle(c.dir+"/tile0/gt0/freq0/throttle", "reason_")
	if r.Throttled == nil {
		r.Throttled = intelThrottle(c.node+"/gt/gt0", "throttle_reason_")
	}
	return r
}

// activeClock finds the active line, "1: 2400Mhz *", of a list of clocks. nil: there is none.
func activeClock(list string) *float64 {
	for line := range strings.Lines(list) {
		if line = strings.TrimSpace(line); strings.HasSuffix(line, "*") {
			_, clock, _ := strings.Cut(line, ":")
			mhz, _, ok := strings.Cut(strings.ToLower(strings.TrimSpace(clock)), "mhz")
			if n, err := strconv.ParseFloat(strings.TrimSpace(mhz), 64); ok && err == nil {
				return &n
			}
		}
	}
	return nil
}

// metricsVersion is the version of a gpu_metrics file: format_revision and
// content_revision of struct metrics_table_header.
type metricsVersion struct{ format, content byte }

// throttleAt is where indep_throttle_status is in gpu_metrics, in bytes from its
// beginning. Version 1.3 is of cards; 2.2 to 2.4 are of processors with a GPU, and add
// fields behind it. Other versions do not have it.
var throttleAt = map[metricsVersion]int{{1, 3}: 112, {2, 2}: 120, {2, 3}: 120, {2, 4}: 120}

// amdThrottle reads the reasons for lower clocks from gpu_metrics: the bits
// SMU_THROTTLER_*_BIT of amdgpu_smu.h. It returns nil for a version without them.
func amdThrottle(b []byte) (reasons []string) {
	if len(b) < 4 {
		return nil
	}
	at, ok := throttleAt[metricsVersion{b[2], b[3]}]
	if !ok || len(b) < at+8 {
		return nil
	}
	status := binary.LittleEndian.Uint64(b[at:])
	if status == ^uint64(0) { // not reported
		return nil
	}
	for _, r := range []struct {
		bits uint64
		name string
	}{{0x0000_0000_0000_00ff, "power cap"}, {0x0000_0000_00ff_0000, "current limit"}, {0x0000_ffff_0000_0000, "temperature"}} {
		if status&r.bits != 0 {
			reasons = append(reasons, r.name)
		}
	}
	return reasons
}

// intelReasons are the files of Intel's drivers and what they mean.
var intelReasons = []struct{ file, name string }{
	{"pl1", "power cap"}, {"pl2", "power cap"}, {"pl4", "power cap"}, {"thermal", "temperature"}, {"prochot", "temperature"},
	{"vr_thermalert", "temperature"}, {"vr_tdc", "current limit"}, {"ratl", "temperature"},
}

func intelThrottle(dir, prefix string) (reasons []string) {
	for _, r := range intelReasons {
		if readText(filepath.Join(dir, prefix+r.file)) == "1" && !slices.Contains(reasons, r.name) {
			reasons = append(reasons, r.name)
		}
	}
	return reasons
}

// work is what a process did on a card so far, by its fdinfo.
type work struct {
	worker int
	spent  map[string]span // by engine
	memory uint64          // bytes that it has allocated for the card
}

// span is how much of some time an engine worked, both in ns or in cycles of the GPU.
type span struct{ busy, of uint64 }

// work reads what the worker did on a card. File descriptors of one client report the
// same.
func (s *sysfs) work(c card, worker int, at time.Time) work {
	w := work{worker: worker, spent: map[string]span{}}
	if worker == 0 {
		return w
	}
	var seen []string
	for _, file := range glob(s.root, "proc/"+strconv.Itoa(worker)+"/fdinfo/*") {
		text := readText(file)
		client := field(text, "drm-client-id:")
		if field(text, "drm-pdev:") != c.address || slices.Contains(seen, client) {
			continue
		}
		seen = append(seen, client)
		for _, engine := range engines {
			busy, ok := quantity(text, engine)
			if !ok {
				continue
			}
			total, cycles := quantity(text, strings.Replace(engine, "drm-cycles-", "drm-total-cycles-", 1))
			if !strings.HasPrefix(engine, "drm-cycles-") || !cycles {
				total = uint64(at.UnixNano())
			}
			w.spent[engine] = span{w.spent[engine].busy + busy, total}
		}
		for line := range strings.Lines(text) { // each kind of memory: of the card, and of the host, which an integrated GPU uses
			if key, _, _ := strings.Cut(line, ":"); strings.HasPrefix(key, "drm-total-") && !strings.HasPrefix(key, "drm-total-cycles-") {
				n, _ := quantity(line, key)
				w.memory += n
			}
		}
	}
	return w
}

// since returns the share of the time since an earlier reading in which the busiest
// engine worked, in percent; nil: not known.
func (w work) since(before work) (percent *float64) {
	for engine, now := range w.spent {
		then, known := before.spent[engine]
		if !known || w.worker != before.worker || now.of <= then.of || now.busy < then.busy {
			continue
		}
		share := min(100, 100*float64(now.busy-then.busy)/float64(now.of-then.of))
		if percent == nil || share > *percent {
			percent = &share
		}
	}
	return percent
}

// quantity reads "KEY:\tN UNIT" of a file in fdinfo. A number of bytes may be in KiB or
// MiB.
func quantity(text, key string) (n uint64, ok bool) {
	value, unit, _ := strings.Cut(field(text, key+":"), " ")
	n, err := strconv.ParseUint(value, 10, 64)
	switch unit {
	case "KiB":
		n <<= 10
	case "MiB":
		n <<= 20
	}
	return n, err == nil
}

// engines are the parts of a GPU that compute, as drivers name them in fdinfo.
var engines = []string{"drm-engine-gfx", "drm-engine-compute", "drm-engine-render", "drm-cycles-rcs", "drm-cycles-ccs"}

// others implements source. It counts the other processes whose work on a card's engines
// has grown since the last call.
func (s *sysfs) others(i, worker int) (n int, ok bool) {
	c := s.cards[i]
	busy := map[int]bool{}
	for _, dir := range glob(s.root, "proc/[0-9]*") {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || pid == worker {
			continue
		}
		for _, file := range glob(dir, "fdinfo/*") {
			text := readText(file)
			if field(text, "drm-pdev:") != c.address {
				continue
			}
			var spent uint64
			for _, engine := range engines {
				n, _ := quantity(text, engine)
				spent += n
			}
			client := c.address + " " + filepath.Base(dir) + " " + field(text, "drm-client-id:")
			before, known := s.spent[client]
			busy[pid] = busy[pid] || known && spent > before
			s.spent[client] = max(spent, before)
		}
	}
	for _, is := range busy {
		if is {
			n++
		}
	}
	return n, true
}

// close implements source.
func (s *sysfs) close() {}
