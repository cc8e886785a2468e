//go:build !cpu

package gpu

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ebitengine/purego"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// NVML is NVIDIA's management library, opened at run time. If it lacks a function,
// or a function fails, the fact is absent. Only one goroutine at a time may call its
// methods.
//
// The library is opened with purego, without cgo, so one binary runs with and without
// a driver. The price is that a build with CGO_ENABLED=0 is linked to the system's
// libdl and libc. Builds with tag cpu have none of this.
type NVML struct {
	lib     uintptr
	devices []NVMLDevice

	shutdown    func() uint32
	errorString func(uint32) string
	driver      func(*byte, uint32) uint32
	cuda        func(*int32) uint32
	count       func(*uint32) uint32
	handle      func(uint32, *uintptr) uint32
	name        func(uintptr, *byte, uint32) uint32
	pci         func(uintptr, *nvmlPCI) uint32
	capability  func(uintptr, *int32, *int32) uint32
	memory      func(uintptr, *nvmlMemory) uint32
	power       func(uintptr, *uint32) uint32
	energy      func(uintptr, *uint64) uint32
	clock       func(uintptr, uint32, *uint32) uint32
	temperature func(uintptr, uint32, *uint32) uint32
	throttle    func(uintptr, *uint64) uint32
	utilization func(uintptr, *nvmlUtilization) uint32
	processes   func(uintptr, *uint32, *nvmlProcess) uint32
}

// Structures and constants of nvml.h.
type (
	nvmlPCI struct {
		_       [16]byte // the address in an older format
		_       [5]uint32
		address [32]byte // "00000000:01:00.0"
	}
	nvmlMemory      struct{ total, _, used uint64 }
	nvmlUtilization struct{ gpu, _ uint32 } // of GPU and memory, in percent of the last sample, 1/6 to 1 s
	nvmlProcess     struct {
		pid uint32
		_   uint32
		_   uint64    // memory in use
		_   [2]uint32 // instances of the GPU
	}
)

const (
	nvmlSuccess          = 0
	nvmlInsufficientSize = 7
	nvmlDriverNotLoaded  = 9
	nvmlClockSM          = 1
	nvmlClockMemory      = 2
	nvmlTemperatureGPU   = 0
)

// throttleReasons are the bits of nvmlClocksThrottleReasons that lower the clocks
// of a busy device. A device that is idle, or whose owner set its clocks, is not
// throttled.
var throttleReasons = []struct {
	bit  uint64
	name string
}{
	{0x04, "power cap"},
	{0x08, "hardware slowdown"},
	{0x10, "sync boost"},
	{0x20, "temperature (driver)"},
	{0x40, "temperature (hardware)"},
	{0x80, "power brake"},
}

// nvmlStartLimit is how long the library may take to start. A device that has
// fallen off its bus can hold it for ever. A driver without persistence mode needs
// half a minute for eight devices.
const nvmlStartLimit = time.Minute

// startNVML opens and starts NVIDIA's library and reads the facts of its devices.
// path is NVMLName or the path of a file. The error wraps ErrNoNVML if there is no
// such library and ErrNoDriver if no driver is loaded. Any other error means that
// the library is installed but does not work.
func startNVML(path string) (*NVML, error) { return openWithin(path, nvmlStartLimit) }

func openWithin(path string, limit time.Duration) (*NVML, error) {
	type opened struct {
		n   *NVML
		err error
	}
	done := make(chan opened, 1)
	go func() {
		n, err := openNVML(path)
		done <- opened{n, err}
	}()
	select {
	case o := <-done:
		return o.n, o.err
	case <-time.After(limit):
		return nil, fmt.Errorf("%s does not answer within %v", path, limit)
	}
}

func openNVML(path string) (*NVML, error) {
	lib, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
	switch {
	case err != nil && strings.HasPrefix(err.Error(), path+": cannot open shared object file: No such file"):
		return nil, fmt.Errorf("%w: %w", ErrNoNVML, err)
	case err != nil:
		return nil, err
	}
	n := &NVML{lib: lib}
	var start func() uint32
	for symbol, f := range map[string]any{
		"nvmlInit_v2": &start, "nvmlShutdown": &n.shutdown, "nvmlErrorString": &n.errorString,
		"nvmlSystemGetDriverVersion": &n.driver, "nvmlSystemGetCudaDriverVersion_v2": &n.cuda,
		"nvmlDeviceGetCount_v2": &n.count, "nvmlDeviceGetHandleByIndex_v2": &n.handle,
		"nvmlDeviceGetName": &n.name, "nvmlDeviceGetPciInfo_v3": &n.pci,
		"nvmlDeviceGetCudaComputeCapability": &n.capability, "nvmlDeviceGetMemoryInfo": &n.memory,
		"nvmlDeviceGetPowerUsage": &n.power, "nvmlDeviceGetTotalEnergyConsumption": &n.energy,
		"nvmlDeviceGetClockInfo": &n.clock, "nvmlDeviceGetTemperature": &n.temperature,
		"nvmlDeviceGetUtilizationRates": &n.utilization,
		// Version 3 has two layouts of nvmlProcess, depending on the driver.
		"nvmlDeviceGetComputeRunningProcesses_v2": &n.processes,
	} {
		if address, err := purego.Dlsym(lib, symbol); err == nil {
			purego.RegisterFunc(f, address)
		}
	}
	for _, symbol := range []string{"nvmlDeviceGetCurrentClocksThrottleReasons", "nvmlDeviceGetCurrentClocksEventReasons"} { // CUDA 13 renamed it
		if address, err := purego.Dlsym(lib, symbol); err == nil {
			purego.RegisterFunc(&n.throttle, address)
		}
	}
	if start == nil {
		_ = purego.Dlclose(lib)
		return nil, fmt.Errorf("%s has no nvmlInit_v2: it is not NVIDIA's library or too old", path)
	}
	if code := start(); code != nvmlSuccess {
		err := fmt.Errorf("%s cannot be started: %w", path, n.failure(code))
		if code == nvmlDriverNotLoaded {
			err = fmt.Errorf("%w: %w", ErrNoDriver, err)
		}
		_ = purego.Dlclose(lib)
		return nil, err
	}
	n.devices = n.describe()
	return n, nil
}

// failure returns what the library says about one of its error codes.
func (n *NVML) failure(code uint32) error {
	if n.errorString != nil {
		if text := n.errorString(code); text != "" {
			return errors.New(text)
		}
	}
	return fmt.Errorf("code %d", code)
}

// Close stops and unloads the library.
func (n *NVML) Close() {
	if n.shutdown != nil {
		_ = n.shutdown()
	}
	_ = purego.Dlclose(n.lib)
}

// Devices returns the facts of the devices, in the library's order.
func (n *NVML) Devices() []NVMLDevice { return n.devices }

func (n *NVML) describe() []NVMLDevice {
	var driver, cuda string
	text := make([]byte, 96)
	if n.driver != nil && n.driver(&text[0], uint32(len(text))) == nvmlSuccess {
		driver = cString(text)
	}
	var version int32
	if n.cuda != nil && n.cuda(&version) == nvmlSuccess && version > 0 {
		cuda = fmt.Sprintf("%d.%d", version/1000, version%1000/10)
	}
	var count uint32
	if n.count == nil || n.handle == nil || n.count(&count) != nvmlSuccess {
		return nil
	}
	var devices []NVMLDevice
	for i := range min(count, 1024) {
		var h uintptr
		if n.handle(i, &h) != nvmlSuccess {
			continue // another user's, or off the bus
		}
		d := NVMLDevice{handle: h, DriverVersion: driver, CUDAVersion: cuda}
		if n.name != nil && n.name(h, &text[0], uint32(len(text))) == nvmlSuccess {
			d.Model = cString(text)
		}
		var pci nvmlPCI
		if n.pci != nil && n.pci(h, &pci) == nvmlSuccess {
			d.PCIAddress = pciAddress(cString(pci.address[:]))
		}
		var major, minor int32
		if n.capability != nil && n.capability(h, &major, &minor) == nvmlSuccess && major > 0 {
			d.ComputeCapability = fmt.Sprintf("%d.%d", major, minor)
		}
		var memory nvmlMemory
		if n.memory != nil && n.memory(h, &memory) == nvmlSuccess {
			d.MemoryTotalBytes = memory.total
		}
		devices = append(devices, d)
	}
	return devices
}

// Read returns the current state of the i-th of Devices.
func (n *NVML) Read(i int) result.GPUReading {
	h := n.devices[i].handle
	r := result.GPUReading{At: time.Now()}
	number := func(ask func(*uint32) uint32, unit float64) *float64 {
		var v uint32
		if ask(&v) != nvmlSuccess {
			return nil
		}
		f := float64(v) * unit
		return &f
	}
	if n.power != nil {
		r.PowerWatts = number(func(v *uint32) uint32 { return n.power(h, v) }, 1e-3)
	}
	if n.clock != nil {
		r.SMClockMHz = number(func(v *uint32) uint32 { return n.clock(h, nvmlClockSM, v) }, 1)
		r.MemoryClockMHz = number(func(v *uint32) uint32 { return n.clock(h, nvmlClockMemory, v) }, 1)
	}
	if n.temperature != nil {
		r.TemperatureC = number(func(v *uint32) uint32 { return n.temperature(h, nvmlTemperatureGPU, v) }, 1)
	}
	var busy nvmlUtilization
	if n.utilization != nil && n.utilization(h, &busy) == nvmlSuccess {
		percent := float64(busy.gpu)
		r.BusyPercent = &percent
	}
	var energy, reasons uint64
	if n.energy != nil && n.energy(h, &energy) == nvmlSuccess {
		joules := float64(energy) * 1e-3
		r.EnergyJoules = &joules
	}
	var memory nvmlMemory
	if n.memory != nil && n.memory(h, &memory) == nvmlSuccess {
		r.UsedBytes = &memory.used
	}
	if n.throttle != nil && n.throttle(h, &reasons) == nvmlSuccess {
		for _, t := range throttleReasons {
			if reasons&t.bit != 0 {
				r.Throttled = append(r.Throttled, t.name)
			}
		}
	}
	return r
}

// Processes returns the ids of the processes that compute on the i-th of Devices.
// In a container they differ from the ids that this process sees, because the
// driver uses the host's. ok is false if the driver does not report them.
func (n *NVML) Processes(i int) (pids []int, ok bool) {
	if n.processes == nil {
		return nil, false
	}
	list := make([]nvmlProcess, 64)
	count := uint32(len(list))
	code := n.processes(n.devices[i].handle, &count, &list[0])
	if code == nvmlInsufficientSize { // retry once with room for more; those that fit are enough
		list = make([]nvmlProcess, min(count+64, 4096))
		count = uint32(len(list))
		code = n.processes(n.devices[i].handle, &count, &list[0])
	}
	if code != nvmlSuccess {
		return nil, false
	}
	for _, p := range list[:min(int(count), len(list))] {
		pids = append(pids, int(p.pid))
	}
	return pids, true
}

func cString(b []byte) string {
	if end := bytes.IndexByte(b, 0); end >= 0 {
		b = b[:end]
	}
	return strings.ToValidUTF8(string(b), "\uFFFD")
}
