package gpu

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/sparecores/benchmark-llm/bench"
)

// The environment variable by which CUDA is told which devices to use, and its
// value for none.
const (
	VisibleDevices = "CUDA_VISIBLE_DEVICES"
	noDevices      = "-1"
)

// maxVisible is how many NVIDIA GPUs the engine may see at most. A context takes
// 15 devices beside the CPU (llama.MaxOffloadDevices), and ggml's CUDA back-end ends
// the process if it sees more than 16 (GGML_CUDA_MAX_DEVICES of ggml-cuda.h).
const maxVisible = 15

// Machine is what is known about this machine's GPUs before the engine is asked.
type Machine struct {
	GPUs        []Facts
	NVMLProblem string            // why NVIDIA's management library is installed but does not work
	DeviceNode  bool              // a device node of NVIDIA's driver exists
	OtherNode   bool              // a device node of another GPU's driver exists, or WSL's of any
	Vulkan      bool              // a render node exists, or the environment names Vulkan drivers or devices
	Drivers     bool              // Vulkan drivers are installed where their loader finds them
	RenderNode  bool              // a device node exists through which Vulkan drivers reach a GPU
	ComputeNode bool              // the device node exists through which ROCm reaches GPUs
	NoAccess    []Node            // render and compute nodes that this process may not open
	gfx         map[string]string // code target of AMD's GPUs ("gfx1030"), by PCI address
	Hidden      bool              // the environment hides all NVIDIA GPUs from CUDA
	Visible     []string          // devices that the environment shows to CUDA; nil: all, named by index

	// KeepNames means that the settings name devices or count them. None may be
	// hidden then, because that would rename the others.
	KeepNames bool
}

// NewMachine adds to the result of Collect what device nodes below root and this
// process's environment tell.
func NewMachine(root string, gpus []Facts, nvmlProblem string) Machine {
	m := Machine{GPUs: gpus, NVMLProblem: nvmlProblem}
	// A container has the nodes of its own devices, so nvidia0 may be missing.
	m.DeviceNode = len(glob(root, "dev/nvidia[0-9]*")) > 0
	for _, node := range []string{"dev/kfd", "dev/dri", "dev/dxg"} {
		m.OtherNode = m.OtherNode || len(glob(root, node)) > 0
	}
	m.vulkan(root, openNode)
	m.gfx = gfxTargets(root)
	visible, set := os.LookupEnv(VisibleDevices)
	m.Hidden = set && (visible == "" || visible[0] == '-') // an invalid index ends the list
	if set && !m.Hidden {
		m.Visible = strings.Split(visible, ",")
	}
	return m
}

// nvidia returns the NVIDIA GPUs of the machine.
func (m Machine) nvidia() []Facts {
	return slices.DeleteFunc(slices.Clone(m.GPUs), func(g Facts) bool { return g.PCIVendor != nvidia })
}

// HasNVIDIA reports whether there is an NVIDIA GPU, or a sign of one.
func (m Machine) HasNVIDIA() bool {
	return len(m.nvidia()) > 0 || m.DeviceNode || m.NVMLProblem != ""
}

// MayHold reports whether weights of a model may go to a GPU. It looks for drivers
// only: opening a device would take memory that the worker needs. unusedReason is
// why the engine cannot use a GPU that is there; it may be empty.
func (m Machine) MayHold(unusedReason string) bool {
	return unusedReason == "" && (m.HasNVIDIA() || m.OtherNode)
}

// limitVisible returns the devices to show to CUDA, and why these are not all. It
// returns no reason if the engine can take all of them, or if the environment has
// chosen.
func (m Machine) limitVisible() (visible []string, reason string) {
	n := len(m.nvidia())
	if n <= maxVisible || m.Hidden || m.Visible != nil {
		return m.Visible, ""
	}
	for i := range maxVisible {
		visible = append(visible, strconv.Itoa(i))
	}
	return visible, fmt.Sprintf("%d of %d NVIDIA GPUs are used, because the library takes no more; set %s to choose others", maxVisible, n, VisibleDevices)
}

// Probe asks a worker what its engine says about itself. env is added to the
// worker's environment. The error wraps bench.ErrWorkerLost if the worker ended
// before it answered.
type Probe func(ctx context.Context, env []string) (bench.EngineFacts, error)

// Answer is what a probe found out.
type Answer struct {
	Engine  bench.EngineFacts
	Usage   Usage
	Visible string // CUDA_VISIBLE_DEVICES of the worker that answered; empty: as inherited

	NoVulkan bool // the worker that answered was kept from Vulkan drivers
}

// Env returns the environment in which the worker answered.
func (a Answer) Env() []string { return Usage{Visible: a.Visible, NoVulkan: a.NoVulkan}.Env() }

// Ask asks a worker about its engine and judges the use of the machine's GPUs by the
// answer. A back-end may end the process if it cannot open a device. So if there is
// a GPU and the worker is lost, Ask hides the GPU and asks again.
func (m Machine) Ask(ctx context.Context, probe Probe) (Answer, error) {
	var a Answer
	if visible, reason := m.limitVisible(); reason != "" {
		m.Visible, a.Usage.LimitReason = visible, reason
		a.Visible = strings.Join(visible, ",")
	}
	ask := func() error {
		var err error
		a.Engine, err = probe(ctx, a.Env())
		return err
	}
	lost := func(err error) bool { return errors.Is(err, bench.ErrWorkerLost) && ctx.Err() == nil }
	err := ask()
	if lost(err) && (m.Vulkan || m.Drivers) { // a Vulkan driver first: a CUDA back-end may be left
		a.NoVulkan = true
		reason := vulkanNotOpened + err.Error()
		if again := ask(); again == nil {
			a.Usage = m.judge(a.Engine, readLibraries(a.Engine), a.Usage.LimitReason)
			a.Usage.NoVulkan = true
			if len(local(a.Engine)) > 0 {
				a.Usage.LeftOutReason = join(a.Usage.LeftOutReason, reason)
			} else {
				a.Usage.UnusedReason = reason
			}
			return a, nil
		} else if !lost(again) {
			return a, again
		}
	}
	switch {
	case err == nil:
		a.Usage = m.judge(a.Engine, readLibraries(a.Engine), a.Usage.LimitReason)
		return a, nil
	case !lost(err) || !m.HasNVIDIA():
		return a, err
	}
	a.Usage = Usage{UnusedReason: "the GPU cannot be opened: " + err.Error(), Visible: noDevices, NoVulkan: a.NoVulkan}
	a.Visible = noDevices
	if err := ask(); err != nil {
		return a, fmt.Errorf("%w; %s", err, a.Usage.UnusedReason)
	}
	return a, nil
}

// libraries says which GPUs the engine's CUDA libraries have code for. nil means
// that this is not known.
type libraries struct {
	backend, cublas *CUDACode
	hip             []string // targets
}

func readLibraries(engine bench.EngineFacts) libraries {
	read := func(path string) *CUDACode {
		if path == "" {
			return nil
		}
		code, err := readCUDACode(path)
		if err != nil {
			slog.Debug("GPU code of a library not read", "error", err)
			return nil
		}
		return &code
	}
	if len(engine.GPUs) == 0 {
		return libraries{}
	}
	return libraries{backend: read(engine.CUDAModule), cublas: read(engine.CUBLASModule), hip: hipTargets(engine)}
}

// The driver's cache of compiled kernels lies beside the models, which outlive a
// container. It is as large as the driver allows, because every process compiles
// again what does not fit.
const (
	cacheDir   = "cuda-cache"
	cacheBytes = 4 << 30
)

// CacheEnv returns the environment that makes the driver keep compiled kernels below
// the directory of models, and creates the cache directory. Values that the user
// has set stay. Without a sign of a GPU it returns and creates nothing.
func (m Machine) CacheEnv(modelsDir string) []string {
	env := m.shaderCacheEnv(modelsDir)
	if !m.HasNVIDIA() {
		return env
	}
	cache, set := os.LookupEnv("CUDA_CACHE_PATH")
	if !set {
		cache = filepath.Join(modelsDir, cacheDir)
		env = append(env, "CUDA_CACHE_PATH="+cache)
	}
	if _, set := os.LookupEnv("CUDA_CACHE_MAXSIZE"); !set {
		env = append(env, "CUDA_CACHE_MAXSIZE="+strconv.FormatInt(cacheBytes, 10))
	}
	// It is not documented whether the driver creates a missing directory.
	if err := os.MkdirAll(cache, 0o755); err != nil {
		slog.Debug("no cache for compiled kernels", "error", err)
	}
	return env
}
