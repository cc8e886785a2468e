//go:build cgo

package llama

// #include <stdlib.h>
// #include "bridge.h"
import "C"

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"unsafe"
)

// Version is the release of libllama (llama_version), such as "0.7.0".
func Version() string { return C.GoString(C.llama_version()) }

// LibraryDir is the directory of the libllama in use. It is empty if the dynamic
// linker does not know it.
func LibraryDir() string {
	buf := make([]byte, 4096)
	if !C.bl_library_dir((*C.char)(unsafe.Pointer(&buf[0])), C.size_t(len(buf))) {
		return ""
	}
	return C.GoString((*C.char)(unsafe.Pointer(&buf[0])))
}

// backendDir is the directory of ggml's back-end modules, relative to LibraryDir.
const backendDir = "ggml/backends0"

// Backends selects the back-end modules to open.
type Backends int

// Selections of back-end modules.
const (
	AllBackends Backends = iota // every module found: the best CPU variant, CUDA, RPC, …
	CPUBackend                  // only the best CPU variant
)

var loadOnce struct {
	sync.Mutex
	done     bool
	problems []string
	idle     map[string]string // back-end → why it has no device
	named    NamedBackend
}

// backendPath is the environment variable that names one more back-end module to ggml.
const backendPath = "GGML_BACKEND_PATH"

// NamedBackend is the back-end module that GGML_BACKEND_PATH names.
type NamedBackend struct {
	Path    string // empty: the variable is not set, or not read (CPUBackend)
	Problem string // why the module was not opened; empty: it was
}

// Named returns the module that GGML_BACKEND_PATH names. LoadBackends opens it, in place
// of the module beside the library that has the same file name.
func Named() NamedBackend {
	loadOnce.Lock()
	defer loadOnce.Unlock()
	return loadOnce.named
}

// LoadBackends opens ggml's back-end modules, from the directory beside the
// library, or from ggml's own search path if that directory does not exist. It
// must be called before anything is loaded, on the Thread that will own the
// model. Later calls do nothing.
func LoadBackends(which Backends) error {
	loadOnce.Lock()
	defer loadOnce.Unlock()
	if loadOnce.done {
		return nil
	}
	initLog()
	takeRecent()
	defer keepErrors()()
	// The modules come first. llama_backend_init opens those of the directory that
	// was compiled into ggml, which may be of another ggml on this machine, but only
	// if none is open yet.
	dir := filepath.Join(LibraryDir(), backendDir)
	_, statErr := os.Stat(dir)
	switch {
	case which == CPUBackend:
		if err := loadBestCPU(dir); err != nil {
			return err
		}
	case statErr == nil && replaces(dir):
		if err := loadOthers(dir); err != nil {
			return err
		}
	case statErr == nil:
		c := C.CString(dir)
		defer C.free(unsafe.Pointer(c))
		C.ggml_backend_load_all_from_path(c)
	default:
		C.ggml_backend_load_all()
	}
	if C.ggml_backend_dev_by_type(C.GGML_BACKEND_DEVICE_TYPE_CPU) == nil {
		return fmt.Errorf("%w from %s", ErrNoBackend, dir)
	}
	C.llama_backend_init()
	loadOnce.problems = takeRecent()
	loadOnce.idle = make(map[string]string)
	if which == AllBackends {
		loadOnce.named = named(loadOnce.problems)
		for _, m := range gpuModules {
			if why := whyIdle(m.backend, m.file); why != "" {
				loadOnce.idle[m.backend] = why
			}
		}
	}
	loadOnce.done = true
	return nil
}

// gpuModules are the back-ends for GPUs of this machine, by the name that each gives
// itself, and their files.
var gpuModules = []struct{ backend, file string }{
	{"CUDA", "libggml-cuda.so"}, {"ROCm", "libggml-hip.so"}, {"Vulkan", "libggml-vulkan.so"},
}

// module is the path of a back-end's file: the path in GGML_BACKEND_PATH, if that names
// such a file, else that of the file beside the library; empty: there is none.
func module(file string) string {
	if path := os.Getenv(backendPath); filepath.Base(path) == file {
		return path
	}
	path := filepath.Join(LibraryDir(), backendDir, file)
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return path
}

// cpuModules matches the files of the variants of the CPU back-end.
const cpuModules = "libggml-cpu*.so"

// replaces tells whether GGML_BACKEND_PATH names a module that has the name of one in
// dir. ggml would open both and list their devices twice.
func replaces(dir string) bool {
	path := os.Getenv(backendPath)
	if path == "" {
		return false
	}
	_, err := os.Stat(filepath.Join(dir, filepath.Base(path)))
	return err == nil
}

// loadOthers opens the modules in dir except the one that GGML_BACKEND_PATH replaces, and
// then the one that it names.
func loadOthers(dir string) error {
	path := os.Getenv(backendPath)
	files, err := filepath.Glob(filepath.Join(dir, "libggml-*.so"))
	if err != nil {
		return err
	}
	load := func(file string) {
		c := C.CString(file)
		defer C.free(unsafe.Pointer(c))
		C.ggml_backend_load(c)
	}
	isCPU := func(file string) bool {
		match, err := filepath.Match(cpuModules, filepath.Base(file))
		return match && err == nil
	}
	for _, file := range files {
		if !isCPU(file) && filepath.Base(file) != filepath.Base(path) {
			load(file)
		}
	}
	if !isCPU(path) {
		if err := loadBestCPU(dir); err != nil {
			return err
		}
	}
	load(path)
	return nil
}

// named looks at the module that GGML_BACKEND_PATH names. said are the library's errors
// while modules were opened.
func named(said []string) (n NamedBackend) {
	if n.Path = os.Getenv(backendPath); n.Path == "" {
		return n
	}
	c := C.CString(n.Path)
	defer C.free(unsafe.Pointer(c))
	if C.bl_is_open(c) {
		return n
	}
	n.Problem = "the library does not say why"
	for _, s := range said {
		if strings.Contains(s, n.Path) {
			n.Problem = s
		}
	}
	return n
}

// whyIdle says why an installed back-end has no device. It is empty if the back-end has
// one or is not installed.
func whyIdle(backend, file string) string {
	path := module(file)
	if path == "" {
		return ""
	}
	c := C.CString(backend)
	defer C.free(unsafe.Pointer(c))
	if reg := C.ggml_backend_reg_by_name(c); reg != nil {
		if C.ggml_backend_reg_dev_count(reg) > 0 {
			return ""
		}
		var said []string // by the back-end, when it was opened
		for _, p := range loadOnce.problems {
			if strings.Contains(strings.ToLower(p), strings.ToLower(backend)) {
				said = append(said, p)
			}
		}
		return cmp.Or(strings.Join(said, "; "), "no driver shows a device to it")
	}
	askWhyNot(backend, path)
	said := takeRecent()
	if backend == "Vulkan" && slices.ContainsFunc(said, func(s string) bool { return strings.HasSuffix(s, "ggml_backend_init returned NULL") }) {
		if os.Getenv("VK_DRIVER_FILES") == os.DevNull {
			return "VK_DRIVER_FILES=/dev/null keeps it from all drivers"
		}
		return "no Vulkan driver is installed, or none works" // which ggml does not log
	}
	loadOnce.problems = append(loadOnce.problems, said...)
	return strings.Join(said, "; ")
}

// askWhyNot tries again to open a module that was not opened, for the sake of the
// log: ggml logs why a module cannot be opened only if it is named.
func askWhyNot(name, module string) {
	c, path := C.CString(name), C.CString(module)
	defer C.free(unsafe.Pointer(c))
	defer C.free(unsafe.Pointer(path))
	if C.ggml_backend_reg_by_name(c) == nil {
		C.ggml_backend_load(path)
	}
}

// IdleBackends returns the installed back-ends for GPUs that have no device, each with
// the reason. LoadBackends finds them.
func IdleBackends() map[string]string {
	loadOnce.Lock()
	defer loadOnce.Unlock()
	return maps.Clone(loadOnce.idle)
}

// opened returns ErrNotOpened if no back-end is open. The library's own error would
// name its C functions.
func opened() error {
	if C.ggml_backend_reg_count() == 0 {
		return ErrNotOpened
	}
	return nil
}

// CUDAModule is the path of the CUDA back-end. It is empty if there is none.
func CUDAModule() string { return module("libggml-cuda.so") }

// HIPModule is the path of the HIP back-end. It is empty if there is none.
func HIPModule() string { return module("libggml-hip.so") }

// BackendProblems returns the errors that the library logged while LoadBackends
// ran, such as a module that cannot be opened or a driver that is too old.
func BackendProblems() []string {
	loadOnce.Lock()
	defer loadOnce.Unlock()
	return slices.Clone(loadOnce.problems)
}

// loadBestCPU opens the best CPU variant in dir and no other module.
func loadBestCPU(dir string) error {
	if C.ggml_backend_dev_by_type(C.GGML_BACKEND_DEVICE_TYPE_CPU) != nil {
		return nil // linked in
	}
	files, err := filepath.Glob(filepath.Join(dir, cpuModules))
	if err != nil || len(files) == 0 {
		return fmt.Errorf("%w: no %s in %s", ErrNoBackend, cpuModules, dir)
	}
	var owned []unsafe.Pointer
	paths := cArray[*C.char](len(files), &owned)
	for i, f := range files {
		paths[i] = C.CString(f)
		owned = append(owned, unsafe.Pointer(paths[i]))
	}
	defer func() {
		for _, o := range owned {
			C.free(o)
		}
	}()
	if !C.bl_load_best_cpu(&paths[0], C.size_t(len(paths))) {
		return fmt.Errorf("%w: none of the %d CPU variants in %s runs on this CPU", ErrNoBackend, len(files), dir)
	}
	return nil
}

// CPUVariant is the name of the CPU back-end module in use, such as "zen4" or
// "haswell". It is empty if the CPU back-end is not a module.
func CPUVariant() string {
	buf := make([]byte, 4096)
	if !C.bl_cpu_module((*C.char)(unsafe.Pointer(&buf[0])), C.size_t(len(buf))) {
		return ""
	}
	name := filepath.Base(C.GoString((*C.char)(unsafe.Pointer(&buf[0]))))
	variant, ok := strings.CutPrefix(name, "libggml-cpu-")
	if !ok {
		return ""
	}
	return strings.TrimSuffix(variant, ".so")
}

// Devices lists the devices of the open back-ends. It asks each GPU for its free
// memory, for which the driver may create a context there.
func Devices() []Device {
	entering()
	devices := make([]Device, 0, int(C.ggml_backend_dev_count()))
	for i := range C.ggml_backend_dev_count() {
		dev := C.ggml_backend_dev_get(i)
		var p C.struct_ggml_backend_dev_props
		C.ggml_backend_dev_get_props(dev, &p)
		reg := C.ggml_backend_dev_backend_reg(dev)
		d := Device{
			Name:             C.GoString(p.name),
			Description:      strings.TrimSpace(C.GoString(p.description)),
			Backend:          C.GoString(C.ggml_backend_reg_name(reg)),
			ID:               C.GoString(p.device_id),
			BufferType:       C.GoString(C.ggml_backend_buft_name(C.ggml_backend_dev_buffer_type(dev))),
			SplitsRows:       procOf(reg, "ggml_backend_split_buffer_type") != nil,
			MemoryFreeBytes:  uint64(p.memory_free),
			MemoryTotalBytes: uint64(p.memory_total),
		}
		switch p._type {
		case C.GGML_BACKEND_DEVICE_TYPE_CPU:
			d.Type = CPUDevice
		case C.GGML_BACKEND_DEVICE_TYPE_GPU:
			d.Type = GPUDevice
		case C.GGML_BACKEND_DEVICE_TYPE_IGPU:
			d.Type = IntegratedDevice
		case C.GGML_BACKEND_DEVICE_TYPE_ACCEL:
			d.Type = AcceleratorDevice
		case C.GGML_BACKEND_DEVICE_TYPE_META:
			d.Type = MetaDevice
		}
		devices = append(devices, d)
	}
	return devices
}

// BackendNames lists the open back-ends in ggml's order, including those without
// a device.
func BackendNames() []string {
	names := make([]string, 0, int(C.ggml_backend_reg_count()))
	for i := range C.ggml_backend_reg_count() {
		names = append(names, C.GoString(C.ggml_backend_reg_name(C.ggml_backend_reg_get(i))))
	}
	return names
}

// procOf is the address of a function that a back-end offers by name
// (ggml_backend_reg_get_proc_address); nil if it does not offer it.
func procOf(reg C.ggml_backend_reg_t, name string) unsafe.Pointer {
	c := C.CString(name)
	defer C.free(unsafe.Pointer(c))
	return C.ggml_backend_reg_get_proc_address(reg, c)
}

// deviceByName finds a device of the open back-ends.
func deviceByName(name string) (C.ggml_backend_dev_t, error) {
	c := C.CString(name)
	defer C.free(unsafe.Pointer(c))
	dev := C.ggml_backend_dev_by_name(c)
	if dev == nil {
		var known []string
		for _, d := range Devices() {
			known = append(known, d.Name)
		}
		return nil, fmt.Errorf("no device %q; the devices are: %s", name, strings.Join(known, ", "))
	}
	return dev, nil
}
