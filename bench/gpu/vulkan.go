package gpu

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/sparecores/benchmark-llm/bench"
)

// PCI vendors whose GPUs Vulkan drives on Linux.
const (
	amd   = "1002"
	intel = "8086"
)

// consoles are AMD's display adapters of servers' remote consoles (ES1000). No Vulkan
// driver knows them.
var consoles = []string{"515e", "5969"}

// noVulkan is the environment in which the Vulkan loader (libvulkan) opens no driver
// and no layer, so nothing of a driver runs. See "Driver Discovery" and "Layer
// Filtering" of the loader's documentation.
var noVulkan = []string{"VK_DRIVER_FILES=/dev/null", "VK_LOADER_LAYERS_DISABLE=~implicit~"}

// vulkanVariables show that somebody wants a Vulkan device, with or without a device
// node: they name drivers, or devices.
var vulkanVariables = []string{"VK_DRIVER_FILES", "VK_ICD_FILENAMES", "VK_ADD_DRIVER_FILES", "GGML_VK_VISIBLE_DEVICES"}

// vulkanNotOpened begins the reason why workers are kept from Vulkan drivers.
const vulkanNotOpened = "a Vulkan driver cannot be opened: "

// driverFiles returns the files that name Vulkan drivers to the loader, below root. See
// "Driver Discovery on Linux" of the loader's documentation. Without them and the variables
// it opens no driver.
func driverFiles(root string) (files []string) {
	home := os.Getenv("HOME")
	var dirs []string
	for _, places := range []string{
		cmp.Or(os.Getenv("XDG_CONFIG_HOME"), filepath.Join(home, ".config")), cmp.Or(os.Getenv("XDG_CONFIG_DIRS"), "/etc/xdg"), "/usr/local/etc:/etc",
		cmp.Or(os.Getenv("XDG_DATA_HOME"), filepath.Join(home, ".local/share")), cmp.Or(os.Getenv("XDG_DATA_DIRS"), "/usr/local/share:/usr/share"),
	} {
		dirs = append(dirs, filepath.SplitList(places)...)
	}
	for _, dir := range dirs {
		files = append(files, glob(root, filepath.Join(dir, "vulkan/icd.d/*.json"))...)
	}
	return files
}

// vulkan adds to m what device nodes below root and the environment tell of Vulkan.
// open opens a node for reading and writing.
func (m *Machine) vulkan(root string, open func(path string) error) {
	nodes := glob(root, "dev/dri/renderD*")
	m.Vulkan = len(nodes) > 0 || len(glob(root, "dev/dxg")) > 0
	m.RenderNode, m.Drivers = m.Vulkan, len(driverFiles(root)) > 0
	for _, name := range vulkanVariables {
		m.Vulkan = m.Vulkan || os.Getenv(name) != ""
	}
	compute := glob(root, "dev/kfd")
	m.ComputeNode = len(compute) > 0
	for _, node := range append(nodes, compute...) {
		if err := open(node); errors.Is(err, fs.ErrPermission) {
			m.NoAccess = append(m.NoAccess, nodeOf(root, node))
		}
	}
}

// shaderCaches are the variables that tell Vulkan drivers where they keep compiled
// shaders: Mesa's and NVIDIA's.
var shaderCaches = []string{"MESA_SHADER_CACHE_DIR", "__GL_SHADER_DISK_CACHE_PATH"}

// shaderCacheEnv is CacheEnv for Vulkan.
func (m Machine) shaderCacheEnv(modelsDir string) (env []string) {
	if !m.Vulkan {
		return nil
	}
	dir := filepath.Join(modelsDir, "shader-cache")
	for _, name := range shaderCaches {
		if _, set := os.LookupEnv(name); !set {
			env = append(env, name+"="+dir)
		}
	}
	if len(env) > 0 {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			slog.Debug("no cache for compiled shaders", "error", err)
		}
	}
	return env
}

// openNode opens a device node as a driver does, and closes it.
func openNode(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

// Node is a device node and the group that may open it.
type Node struct{ Name, Group string }

// nodeOf returns a node below root with its group: the name, else the number.
func nodeOf(root, path string) Node {
	n := Node{Name: "/" + strings.TrimPrefix(strings.TrimPrefix(path, root), "/")}
	info, err := os.Stat(path)
	if err != nil {
		return n
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		n.Group = strconv.FormatUint(uint64(stat.Gid), 10)
		if g, err := user.LookupGroupId(n.Group); err == nil {
			n.Group = g.Name
		}
	}
	return n
}

// others returns the GPUs of AMD and Intel.
func (m Machine) others() []Facts {
	return slices.DeleteFunc(slices.Clone(m.GPUs), func(g Facts) bool {
		return g.PCIVendor != amd && g.PCIVendor != intel || g.PCIVendor == amd && slices.Contains(consoles, g.PCIDevice)
	})
}

// HasGPU reports whether there is a GPU that a back-end may use, or a sign of one, such as
// an installed Vulkan driver.
func (m Machine) HasGPU() bool { return m.HasNVIDIA() || m.Vulkan || m.Drivers || len(m.others()) > 0 }

// whyNoOther returns the reasons why the engine lists no GPU of AMD, Intel or another
// maker than NVIDIA. It returns none if nothing shows such a GPU.
func (m Machine) whyNoOther(engine bench.EngineFacts) (reasons []string) {
	idle := func(name string) bool { return engine.Idle[name] != "" }
	others := m.others()
	installed := idle("ROCm") || idle("Vulkan")
	// A GPU that is not on PCI shows only as a node, and a node that works tells
	// nothing: the driver may be one of a display.
	if len(others) == 0 && (len(m.NoAccess) == 0 || !installed) {
		return nil
	}
	if len(others) > 0 && others[0].Driver == "" {
		reasons = append(reasons, "no kernel driver is loaded for it")
	} else if installed {
		if len(m.NoAccess) > 0 {
			n := m.NoAccess[0]
			reasons = append(reasons, fmt.Sprintf("no permission to open %s: join the group %s, sudo usermod -aG %s USER; in a container --group-add %s", n.Name, n.Group, n.Group, n.Group))
		}
		if !m.RenderNode {
			reasons = append(reasons, "there is no /dev/dri/renderD*; in a container: --device /dev/dri")
		}
		if idle("ROCm") && !m.ComputeNode && slices.ContainsFunc(others, func(g Facts) bool { return g.PCIVendor == amd }) {
			reasons = append(reasons, "there is no /dev/kfd; in a container: --device /dev/kfd")
		}
	}
	for _, name := range []string{"ROCm", "Vulkan"} {
		if idle(name) {
			reasons = append(reasons, "the "+name+" back-end has no device: "+engine.Idle[name])
		}
	}
	if len(reasons) == 0 {
		reasons = append(reasons, "no back-end for it is installed, or this build does not open it")
	}
	return reasons
}

// local returns the GPUs of this machine that the engine lists. Drivers that compute on
// the CPU are none.
func local(engine bench.EngineFacts) []bench.EngineGPU {
	return slices.DeleteFunc(slices.Clone(engine.GPUs), func(g bench.EngineGPU) bool { return g.Backend == "RPC" || g.Software })
}

// unusableVulkan returns the Vulkan devices on which no memory can be allocated, each
// with the reason.
func unusableVulkan(gpus []bench.EngineGPU) (names, reasons []string) {
	for _, g := range gpus {
		if g.Backend == "Vulkan" && g.Problem != "" {
			names = append(names, g.Name)
			reasons = append(reasons, fmt.Sprintf("%s (%s): no memory can be allocated on it: %s", g.Name, g.Model, strings.TrimSpace(g.Problem)))
		}
	}
	return names, reasons
}
