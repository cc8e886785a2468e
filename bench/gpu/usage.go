package gpu

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// How a GPU gets the kernels of the CUDA back-end.
const (
	NativeKernels = "native" // the library holds machine code for the GPU
	PTXKernels    = "ptx"    // the driver compiles the library's PTX at first use
)

// KernelWords says how a GPU gets its kernels; empty: it is not known.
func KernelWords(kernels string) string {
	switch kernels {
	case NativeKernels:
		return "native kernels"
	case PTXKernels:
		return "kernels compiled by the driver at first use (PTX)"
	}
	return ""
}

// Unused stands before the reason why no GPU is used.
const Unused = "a GPU cannot be used"

// ErrNotUsed means that a GPU is required and none is used.
var ErrNotUsed = errors.New("no GPU is used")

// Usage says which of the machine's GPUs the engine uses, and why it does
// not use the others. Reasons are texts for a person, empty if they do not apply.
type Usage struct {
	UnusedReason  string                // why no GPU is used although there is one
	LeftOut       []string              // devices that nothing can run on, by the engine's name: "CUDA0"
	LeftOutReason string                // why some devices are left out while others are used
	LimitReason   string                // why not all of the usable devices are used
	Doubts        []string              // devices that are used but may fail, each with its reason
	Visible       string                // CUDA_VISIBLE_DEVICES that workers need; empty: as inherited
	NoHIP         bool                  // workers must be kept from HIP, which has no code for the GPU
	NoVulkan      bool                  // workers must be kept from Vulkan drivers, whose use ends or holds them
	Unused        []result.UnusedDevice // devices that the engine uses only by name
	Kernels       map[string]string     // NativeKernels or PTXKernels by PCI address, where known
}

// Usable reports whether a device of the engine can be used, and is if no settings say
// otherwise.
func (u Usage) Usable(device string) bool {
	return u.UnusedReason == "" && !slices.Contains(u.LeftOut, device) && u.WhyUnused(device) == ""
}

// WhyUnused returns why the engine uses a device only by name; empty: it does not.
func (u Usage) WhyUnused(device string) string {
	for _, d := range u.Unused {
		if d.Name == device {
			return d.Reason
		}
	}
	return ""
}

// Env returns the environment that makes a worker use these devices only.
func (u Usage) Env() []string {
	var env []string
	if u.Visible != "" {
		env = append(env, VisibleDevices+"="+u.Visible)
	}
	if u.NoHIP {
		env = append(env, noHIP...)
	}
	if u.NoVulkan {
		env = append(env, noVulkan...)
	}
	return env
}

// join joins reasons.
func join(reasons ...string) string {
	return strings.Join(slices.DeleteFunc(reasons, func(r string) bool { return r == "" }), "; ")
}

// Warnings returns what every record of a run must say about GPUs that are not used.
func (u Usage) Warnings() []result.Warning {
	var w []result.Warning
	if u.LimitReason != "" {
		w = append(w, result.Warning{Code: result.WarnDevicesLimited, Message: u.LimitReason})
	}
	if u.LeftOutReason != "" {
		w = append(w, result.Warning{Code: result.WarnGPUNotUsed, Message: "measured without one of the GPUs: " + u.LeftOutReason})
	}
	if u.UnusedReason != "" {
		but := " although there is a GPU"
		if strings.HasPrefix(u.UnusedReason, vulkanNotOpened) { // a driver may be installed without one
			but = ""
		}
		w = append(w, result.Warning{Code: result.WarnGPUNotUsed, Message: "measured on the CPU" + but + ": " + u.UnusedReason})
	}
	return w
}

// Replace returns warnings with those about GPUs that are not used replaced by
// Warnings: what an earlier process said may no longer hold.
func (u Usage) Replace(warnings []result.Warning) []result.Warning {
	kept := slices.DeleteFunc(slices.Clone(warnings), func(w result.Warning) bool {
		return w.Code == result.WarnGPUNotUsed || w.Code == result.WarnDevicesLimited
	})
	return append(kept, u.Warnings()...)
}

// Required returns ErrNotUsed with the reason if the engine uses no GPU, be it of
// this machine or of another.
func (a Answer) Required() error {
	reason := a.Usage.UnusedReason
	if reason == "" && len(a.Engine.Usable()) == 0 {
		reason = "the library lists none"
		if why := a.Engine.Idle["Vulkan"]; why != "" {
			reason = "the Vulkan back-end has no device: " + why
		}
		for _, d := range a.Engine.Unused {
			reason = d.Name + " (" + d.Model + ") is not used: " + d.Reason
		}
		if without := a.Engine.WithoutCUDA(); without != "" {
			reason = "the CUDA back-end has no device: " + without
		}
	}
	if reason == "" {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrNotUsed, reason)
}

// judge decides which of the machine's GPUs the engine uses. limitReason says
// why the engine was shown only m.Visible; it is empty if it was shown all.
//
// A GPU that cannot be used is hidden from CUDA, because ggml lists it as a device
// without memory and ends the process at its first use. Single GPUs are not hidden if
// settings count or name devices (KeepNames), because that would rename the others.
func (m Machine) judge(engine bench.EngineFacts, libs libraries, limitReason string) Usage {
	u := Usage{Kernels: map[string]string{}, LimitReason: limitReason}
	if limitReason != "" {
		u.Visible = strings.Join(m.Visible, ",")
	}
	local := local(engine)
	switch {
	case len(local) > 0:
	case m.HasNVIDIA():
		u.UnusedReason = strings.Join(m.whyNone(engine), "; ")
		return u
	default:
		u.UnusedReason = strings.Join(m.whyNoOther(engine), "; ")
		return u
	}
	// HIP is hidden as a whole: another back-end may then use the GPU.
	if names, why := m.unusableHIP(local, libs.hip); m.KeepNames {
		u.Doubts = append(u.Doubts, why...)
	} else if len(names) > 0 {
		u.NoHIP, u.LeftOut, u.LeftOutReason = true, names, strings.Join(why, "; ")
		if local = slices.DeleteFunc(local, func(g bench.EngineGPU) bool { return g.Backend == "ROCm" }); len(local) == 0 {
			u.UnusedReason, u.LeftOutReason = u.LeftOutReason, ""
			return u
		}
	}
	cuda := slices.DeleteFunc(slices.Clone(local), func(g bench.EngineGPU) bool { return g.Backend != "CUDA" })
	var unusable, usable []string
	vulkan, why := unusableVulkan(local)
	for i, g := range cuda {
		kernels, problem, doubt := m.kernels(g, libs)
		if g.Problem != "" {
			problem = "no memory can be allocated on it: " + g.Problem
		}
		if kernels != "" {
			u.Kernels[g.PCIAddress] = kernels
		}
		switch {
		case problem != "":
			unusable = append(unusable, fmt.Sprintf("%s (%s): %s", g.Name, g.Model, problem))
			u.LeftOut = append(u.LeftOut, g.Name)
			continue
		case doubt != "":
			u.Doubts = append(u.Doubts, fmt.Sprintf("%s (%s): %s", g.Name, g.Model, doubt))
		}
		if m.Visible == nil {
			usable = append(usable, strconv.Itoa(i))
		} else if i < len(m.Visible) {
			usable = append(usable, m.Visible[i])
		}
	}
	if len(unusable)+len(vulkan) == len(local) {
		u.LeftOut, unusable = append(u.LeftOut, vulkan...), append(unusable, why...)
	} else {
		u.Doubts = append(u.Doubts, why...) // hiding a Vulkan device would rename others
	}
	switch {
	case len(unusable) == 0:
	case len(unusable) == len(local):
		u.UnusedReason = strings.Join(unusable, "; ")
		if len(cuda) > 0 {
			u.Visible = noDevices
		}
		u.NoVulkan = len(cuda) < len(local)
	case m.KeepNames:
		u.LeftOut, u.Doubts = nil, append(unusable, u.Doubts...)
	default:
		u.Visible, u.LeftOutReason = cmp.Or(strings.Join(usable, ","), noDevices), join(u.LeftOutReason, strings.Join(unusable, "; "))
	}
	return u
}

// whyNone returns the reasons why the engine lists no GPU of this machine.
func (m Machine) whyNone(engine bench.EngineFacts) []string {
	var reasons []string
	driver := slices.ContainsFunc(m.nvidia(), func(g Facts) bool { return g.Driver == "nvidia" && g.DriverVersion != "" })
	switch {
	case m.NVMLProblem != "":
		reasons = append(reasons, "the driver's library does not work: "+m.NVMLProblem)
	case !driver && !m.DeviceNode:
		reasons = append(reasons, "no NVIDIA driver is loaded, or this container has no access to it")
	}
	if m.Hidden {
		reasons = append(reasons, VisibleDevices+" hides all GPUs")
	}
	if engine.CUDAModule == "" {
		reasons = append(reasons, "the CUDA back-end (libggml-cuda.so) is not installed, or this build does not open it")
	}
	reasons = append(reasons, engine.CUDAProblems()...)
	if len(reasons) == 0 {
		reasons = append(reasons, "the CUDA back-end lists no device")
	}
	return reasons
}

// kernels returns how a device gets its kernels. problem says why it cannot get
// them, doubt why it may not. All are empty if nothing is known.
func (m Machine) kernels(device bench.EngineGPU, libs libraries) (kernels, problem, doubt string) {
	i := slices.IndexFunc(m.GPUs, func(g Facts) bool { return g.PCIAddress == device.PCIAddress && g.PCIAddress != "" })
	if i < 0 || libs.backend == nil {
		return "", "", ""
	}
	g := m.GPUs[i]
	capability, known := parseCapability(g.ComputeCapability)
	if !known {
		return "", "", ""
	}
	switch {
	case libs.backend.Native(capability):
		kernels = NativeKernels
	case libs.backend.Compiles(capability):
		kernels = PTXKernels
		needed, known := libs.backend.Driver()
		supported, reported := parseCapability(g.CUDAVersion)
		if known && reported && supported.Compare(needed) < 0 {
			return kernels, fmt.Sprintf("driver %s supports CUDA %v, but compiling kernels for compute capability %v needs CUDA %v or newer",
				g.DriverVersion, supported, capability, needed), ""
		}
	default:
		return "", fmt.Sprintf("the CUDA back-end has no kernels for compute capability %v", capability), ""
	}
	switch {
	case libs.cublas == nil || libs.cublas.Native(capability):
		return kernels, "", ""
	case libs.cublas.Compiles(capability):
		return kernels, "", fmt.Sprintf("the installed cuBLAS is older than compute capability %v and has no machine code for it", capability)
	default:
		return kernels, fmt.Sprintf("the installed cuBLAS does not support compute capability %v", capability), ""
	}
}

// KernelsOf returns how a device gets its kernels, "" if that is not known or its back-end
// is not CUDA.
func (u Usage) KernelsOf(backend, pciAddress string) string {
	if backend != "CUDA" {
		return ""
	}
	return u.Kernels[strings.ToLower(pciAddress)]
}
