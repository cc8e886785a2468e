package host

import (
	"fmt"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/procfs"
)

// CPU describes the machine's CPUs. The Allowed fields count what this process may
// run on, the other fields the whole machine.
type CPU struct {
	Model string `json:"model,omitempty"` // "model name" of /proc/cpuinfo; implementer and part on arm64; else CPUID
	// On x86-64 these tell a CPU that a hypervisor gives a vague name: vendor_id, "cpu
	// family", "model" and "stepping" of /proc/cpuinfo, else CPUID.
	Vendor        string `json:"vendor,omitempty"`
	Family        *int   `json:"family,omitempty"`
	ModelNumber   *int   `json:"model_number,omitempty"`
	Stepping      *int   `json:"stepping,omitempty"`
	Sockets       int    `json:"sockets,omitempty"`        // distinct physical_package_id in /sys/devices/system/cpu
	PhysicalCores int    `json:"physical_cores,omitempty"` // distinct thread_siblings_list, in the same place
	LogicalCPUs   int    `json:"logical_cpus,omitempty"`   // online, in the same place
	AllowedCores  int    `json:"allowed_cores,omitempty"`  // physical cores with a CPU in Cpus_allowed_list of /proc/self/status
	AllowedCPUs   int    `json:"allowed_cpus,omitempty"`   // online CPUs in Cpus_allowed_list
	AllowedList   string `json:"allowed_list,omitempty"`   // Cpus_allowed_list: "0-3,8"
	// PerformanceCores counts those of AllowedCores that are no efficiency cores, on a
	// CPU that has both: /sys/devices/cpu_core/cpus, which is Intel's.
	PerformanceCores int      `json:"performance_cores,omitempty"`
	QuotaCPUs        *float64 `json:"quota_cpus,omitempty"` // lowest CPU quota of the cgroup, in CPUs
	Threads          int      `json:"threads"`              // DefaultThreads
	Features         []string `json:"features,omitempty"`   // instruction sets that ggml uses, from /proc/cpuinfo
	Caches           []Cache  `json:"caches,omitempty"`     // /sys/devices/system/cpu/*/cache, else CPUID
	Governors        []string `json:"governors,omitempty"`  // distinct scaling_governor of all CPUs
}

// Cache is one kind of cache. Instances counts how often it exists.
type Cache struct {
	Level     int    `json:"level"`
	Type      string `json:"type"` // Data, Instruction or Unified
	SizeBytes uint64 `json:"size_bytes"`
	Instances int    `json:"instances,omitempty"`
}

// DefaultThreads returns the default number of threads of a test: the physical
// cores that this process may run on, limited to its cgroup's CPU quota, rounded
// down. On a hybrid CPU only performance cores count, as in llama-bench: a slow
// thread would hold up all others at every barrier. So would a thread that waits for the
// quota. The result is at least 1.
func DefaultThreads() int { return open("/").countCPUs().Threads }

// CPUFeatures lists the instruction sets of this machine that ggml uses, by the
// kernel's names.
func CPUFeatures() []string { return open("/").readCPUInfo().features() }

func (m machine) describeCPU(info cpuInfo) CPU {
	c := m.countCPUs()
	c.Model = info.model()
	if c.Model == "" && m.cpu != nil {
		c.Model = m.cpu.BrandName
	}
	m.identify(&c, info)
	c.Features = info.features()
	c.Caches, c.Governors = m.caches(), m.governors()
	return c
}

// identify fills in vendor, family, model number and stepping.
func (m machine) identify(c *CPU, info cpuInfo) {
	number := func(key string) *int {
		if len(info[key]) != 1 {
			return nil
		}
		n, err := strconv.Atoi(info[key][0])
		if err != nil {
			return nil
		}
		return &n
	}
	if vendors := info["vendor_id"]; len(vendors) == 1 {
		c.Vendor, c.Family, c.ModelNumber, c.Stepping = vendors[0], number("cpu family"), number("model"), number("stepping")
	}
	if c.Family == nil && m.cpu != nil && m.cpu.Family > 0 { // CPUID exists on x86-64 alone
		c.Vendor, c.Family, c.ModelNumber, c.Stepping = m.cpu.VendorString, &m.cpu.Family, &m.cpu.Model, &m.cpu.Stepping
	}
}

var (
	notInName   = regexp.MustCompile(`(?i)@.*|version.*|\(.*?\)`)      // frequency, version of QEMU, remarks
	modelNumber = regexp.MustCompile(`(?i)\b[a-z]*\d[a-wyz]?\d+\w*\b`) // "8375C", "9R14", "E5", no "E312xx"
)

// vague reports whether a name says which product line a CPU is of, but not which
// model: "AMD EPYC", "Intel Xeon Processor (Skylake, IBRS)".
func vague(name string) bool {
	for _, word := range modelNumber.FindAllString(notInName.ReplaceAllString(name, ""), -1) {
		if !strings.Contains(strings.ToLower(word), "xx") {
			return false
		}
	}
	return true
}

// Name is the model of the CPU for people. If the model is vague, its vendor, family,
// model number and stepping follow.
func (c CPU) Name() string {
	if !vague(c.Model) || c.Family == nil || c.ModelNumber == nil {
		return c.Model
	}
	id := fmt.Sprintf("%s family %d model %d", c.Vendor, *c.Family, *c.ModelNumber)
	if c.Stepping != nil {
		id += fmt.Sprintf(" stepping %d", *c.Stepping)
	}
	return strings.TrimSpace(fmt.Sprintf("%s (%s)", c.Model, strings.TrimSpace(id)))
}

// countCPUs returns a CPU with its counts. Some containers have no sysfs. Then the
// cores are estimated from the hyperthreads per core in /proc/cpuinfo.
//
// The allowed CPUs are those of sched_getaffinity, read from /proc, which has no
// limit of 1024 CPUs.
func (m machine) countCPUs() CPU {
	var c CPU
	allowed := m.allowedCPUs()
	c.AllowedList = ranges(allowed)
	sockets, cores, allowedCores, fastCores := map[string]bool{}, map[string]bool{}, map[string]bool{}, map[string]bool{}
	fast := cpuList(m.text("sys/devices/cpu_core/cpus"))
	for _, dir := range m.glob("sys/devices/system/cpu/cpu[0-9]*/topology") { // only online CPUs have it
		id, err := strconv.ParseUint(strings.TrimPrefix(filepath.Base(filepath.Dir(dir)), "cpu"), 10, 64)
		siblings := readText(filepath.Join(dir, "thread_siblings_list"))
		if err != nil || siblings == "" {
			continue
		}
		c.LogicalCPUs++
		cores[siblings] = true
		if socket := readText(filepath.Join(dir, "physical_package_id")); socket != "" && socket != "-1" { // -1: unknown
			sockets[socket] = true
		}
		if slices.Contains(allowed, id) {
			c.AllowedCPUs++
			allowedCores[siblings] = true
			if fast(id) {
				fastCores[siblings] = true
			}
		}
	}
	c.Sockets, c.PhysicalCores, c.AllowedCores = len(sockets), len(cores), len(allowedCores)
	if c.LogicalCPUs == 0 {
		perCore := m.readCPUInfo().threadsPerCore()
		c.AllowedCPUs, c.AllowedCores = len(allowed), (len(allowed)+perCore-1)/perCore
	}
	c.Threads = c.AllowedCores
	if n := len(fastCores); n > 0 && n < c.AllowedCores {
		c.PerformanceCores, c.Threads = n, n
	}
	if c.Threads == 0 {
		c.Threads = runtime.NumCPU()
	}
	if quota, ok := m.cpuQuota(); ok {
		c.QuotaCPUs = &quota
		c.Threads = int(min(float64(c.Threads), quota))
	}
	c.Threads = max(1, c.Threads)
	return c
}

// cpuList reads the kernel's list of CPUs, such as "0-3,8". The function reports
// whether a CPU is in it.
func cpuList(text string) func(cpu uint64) bool {
	type span struct{ first, last uint64 }
	var spans []span
	for part := range strings.SplitSeq(text, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		a, err := strconv.ParseUint(first, 10, 64)
		b, err2 := strconv.ParseUint(last, 10, 64)
		if err == nil && err2 == nil {
			spans = append(spans, span{a, b})
		}
	}
	return func(cpu uint64) bool {
		return slices.ContainsFunc(spans, func(s span) bool { return s.first <= cpu && cpu <= s.last })
	}
}

// ranges writes a list of CPUs as the kernel does. It is the inverse of cpuList.
func ranges(cpus []uint64) string {
	var parts []string
	for i := 0; i < len(cpus); {
		last := i
		for last+1 < len(cpus) && cpus[last+1] == cpus[last]+1 {
			last++
		}
		part := strconv.FormatUint(cpus[i], 10)
		if last > i {
			part += "-" + strconv.FormatUint(cpus[last], 10)
		}
		parts, i = append(parts, part), last+1
	}
	return strings.Join(parts, ",")
}

func (m machine) allowedCPUs() []uint64 {
	self, err := m.self()
	if err != nil {
		return nil
	}
	status, err := self.NewStatus()
	if err != nil {
		return nil
	}
	return status.CpusAllowedList
}

func (m machine) self() (procfs.Proc, error) {
	proc, err := m.proc()
	if err != nil {
		return procfs.Proc{}, err
	}
	return proc.Self()
}

// cpuInfo holds the distinct values of each key of /proc/cpuinfo, in file order.
// procfs reads only the format of the architecture that it is built for, and has no
// field for arm64's features.
type cpuInfo map[string][]string

func (m machine) readCPUInfo() cpuInfo {
	info := cpuInfo{}
	for line := range strings.Lines(m.text("proc/cpuinfo")) {
		key, value, ok := strings.Cut(line, ":")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		if ok && !slices.Contains(info[key], value) {
			info[key] = append(info[key], value)
		}
	}
	return info
}

// hasFlag reports whether a CPU has the flag, by the kernel's name.
func (info cpuInfo) hasFlag(flag string) bool {
	return slices.ContainsFunc(slices.Concat(info["flags"], info["Features"]), func(flags string) bool {
		return slices.Contains(strings.Fields(flags), flag)
	})
}

func (info cpuInfo) features() (flags []string) {
	for _, flag := range ggmlFeatures {
		if info.hasFlag(flag) {
			flags = append(flags, flag)
		}
	}
	return flags
}

// threadsPerCore returns the hyperthreads per core, at least 1. Only x86-64 reports
// them.
func (info cpuInfo) threadsPerCore() int {
	first := func(key string) int {
		if len(info[key]) == 0 {
			return 0
		}
		n, err := strconv.Atoi(info[key][0])
		if err != nil {
			return 0
		}
		return n
	}
	siblings, cores := first("siblings"), first("cpu cores")
	if cores < 1 || siblings < cores {
		return 1
	}
	return siblings / cores
}

// model returns the name of the CPU, or the names of all kinds of cores, or "".
func (info cpuInfo) model() string {
	if names := info["model name"]; len(names) > 0 {
		return strings.Join(names, " + ")
	}
	implementers := info["CPU implementer"]
	if len(implementers) != 1 {
		return "" // a machine has cores of one implementer
	}
	var cores []string
	for _, part := range info["CPU part"] {
		name, ok := armCores[[2]string{implementers[0], part}]
		if !ok {
			name = fmt.Sprintf("implementer %s part %s", implementers[0], part)
		}
		cores = append(cores, name)
	}
	return strings.Join(cores, " + ")
}

// armCores names the arm64 cores of servers by implementer and part of the MIDR_EL1
// register. Source: arch/arm64/include/asm/cputype.h of Linux and lscpu-arm.c of
// util-linux.
var armCores = map[[2]string]string{
	{"0x41", "0xd03"}: "Arm Cortex-A53",
	{"0x41", "0xd08"}: "Arm Cortex-A72",
	{"0x41", "0xd0b"}: "Arm Cortex-A76",
	{"0x41", "0xd0c"}: "Arm Neoverse-N1",
	{"0x41", "0xd40"}: "Arm Neoverse-V1",
	{"0x41", "0xd49"}: "Arm Neoverse-N2",
	{"0x41", "0xd4f"}: "Arm Neoverse-V2",
	{"0x41", "0xd83"}: "Arm Neoverse-V3AE",
	{"0x41", "0xd84"}: "Arm Neoverse-V3",
	{"0x41", "0xd8e"}: "Arm Neoverse-N3",
	{"0x43", "0x0af"}: "Cavium ThunderX2",
	{"0x46", "0x001"}: "Fujitsu A64FX",
	{"0x48", "0xd01"}: "HiSilicon TaiShan v110",
	{"0x6d", "0xd49"}: "Microsoft Azure Cobalt 100",
	{"0xc0", "0xac3"}: "Ampere-1",
	{"0xc0", "0xac4"}: "Ampere-1a",
}

// ggmlFeatures lists the flags of /proc/cpuinfo for which ggml 0.27 has special
// code, on x86-64 and arm64.
var ggmlFeatures = []string{
	"sse4_2", "avx", "f16c", "fma", "avx2", "bmi2", "avx_vnni", "avx512f", "avx512bw", "avx512vbmi",
	"avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16", "amx_fp16",
	"asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme", "sme2",
}

func (m machine) caches() []Cache {
	type instance struct{ level, kind, cpus string }
	seen := map[instance]bool{}
	var caches []Cache
	for _, dir := range m.glob("sys/devices/system/cpu/cpu[0-9]*/cache/index[0-9]*") {
		read := func(name string) string { return readText(filepath.Join(dir, name)) }
		i := instance{read("level"), read("type"), read("shared_cpu_list")}
		level, err := strconv.Atoi(i.level)
		bytes, ok := cacheSize(read("size"))
		if seen[i] || err != nil || !ok {
			continue
		}
		seen[i] = true
		same := func(c Cache) bool { return c.Level == level && c.Type == i.kind && c.SizeBytes == bytes }
		if at := slices.IndexFunc(caches, same); at >= 0 {
			caches[at].Instances++
		} else {
			caches = append(caches, Cache{Level: level, Type: i.kind, SizeBytes: bytes, Instances: 1})
		}
	}
	if len(caches) > 0 || m.cpu == nil {
		return caches
	}
	for _, c := range []struct {
		level int
		kind  string
		bytes int // -1: unknown
	}{{1, "Data", m.cpu.Cache.L1D}, {1, "Instruction", m.cpu.Cache.L1I}, {2, "Unified", m.cpu.Cache.L2}, {3, "Unified", m.cpu.Cache.L3}} {
		if c.bytes > 0 {
			caches = append(caches, Cache{Level: c.level, Type: c.kind, SizeBytes: uint64(c.bytes)})
		}
	}
	return caches
}

var cachePattern = regexp.MustCompile(`^([0-9]{1,12})([KMG]?)$`)

// cacheSize parses the kernel's "32K".
func cacheSize(s string) (bytes uint64, ok bool) {
	match := cachePattern.FindStringSubmatch(s)
	if match == nil {
		return 0, false
	}
	n, err := strconv.ParseUint(match[1], 10, 64)
	shift := map[string]int{"": 0, "K": 10, "M": 20, "G": 30}[match[2]]
	return n << shift, err == nil && n > 0
}

// LargestCacheBytes is the size of all caches of the last level, in bytes; 0: not known.
func (c CPU) LargestCacheBytes() (sum uint64) {
	level := 0
	for _, cache := range c.Caches {
		if cache.Level > level {
			level, sum = cache.Level, 0
		}
		if cache.Level == level {
			sum += cache.SizeBytes * uint64(max(cache.Instances, 1))
		}
	}
	return sum
}

func (m machine) governors() []string {
	var names []string
	for _, path := range m.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor") {
		if name := readText(path); name != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
