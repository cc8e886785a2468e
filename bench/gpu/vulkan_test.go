package gpu

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench"
)

// Render nodes and variables are signs of a Vulkan device. A node that may not be opened
// is kept with its group.
func TestVulkanSigns(t *testing.T) {
	for _, name := range vulkanVariables {
		t.Setenv(name, "")
	}
	root := t.TempDir()
	if m := NewMachine(root, nil, ""); m.Vulkan || m.HasGPU() {
		t.Errorf("a sign of Vulkan on a machine without one: %+v", m)
	}
	t.Setenv("XDG_DATA_DIRS", "/opt/share:/usr/share")
	drivers := files(t, map[string]string{"opt/share/vulkan/icd.d/lvp_icd.json": "{}"})
	if m := NewMachine(drivers, nil, ""); m.Vulkan || !m.Drivers || !m.HasGPU() {
		t.Errorf("a driver that is installed: %+v", m)
	}
	t.Setenv("GGML_VK_VISIBLE_DEVICES", "0")
	if m := NewMachine(root, nil, ""); !m.Vulkan || m.RenderNode {
		t.Errorf("a device that the environment names: %+v", m)
	}
	t.Setenv("GGML_VK_VISIBLE_DEVICES", "")
	if err := os.MkdirAll(root+"/dev/dri", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"dri/card0", "dri/renderD128", "kfd"} {
		if err := os.WriteFile(filepath.Join(root, "dev", name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var m Machine
	m.vulkan(root, func(string) error { return &fs.PathError{Op: "open", Err: fs.ErrPermission} })
	if !m.Vulkan || !m.RenderNode || !m.ComputeNode || len(m.NoAccess) != 2 || m.NoAccess[1].Name != "/dev/kfd" || m.NoAccess[0].Name != "/dev/dri/renderD128" || m.NoAccess[0].Group == "" {
		t.Errorf("a node without permission: %+v", m)
	}
	if m := NewMachine(root, nil, ""); len(m.NoAccess) > 0 {
		t.Errorf("a node with permission: %+v", m)
	}
}

// Drivers keep compiled shaders beside the models, unless the user has a place for them.
func TestShaderCache(t *testing.T) {
	dir := t.TempDir()
	t.Setenv(shaderCaches[1], "/else/where")
	if err := os.Unsetenv(shaderCaches[0]); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"MESA_SHADER_CACHE_DIR=" + dir + "/shader-cache"}, (Machine{Vulkan: true}).CacheEnv(dir)); diff != "" {
		t.Error(diff)
	}
	if info, err := os.Stat(dir + "/shader-cache"); err != nil || !info.IsDir() {
		t.Errorf("the driver finds no directory: %v", err)
	}
}

// Why a GPU of AMD or Intel is not used.
func TestUsageOfOtherGPUs(t *testing.T) {
	radeon := Facts{PCIVendor: amd, PCIDevice: "744c", Driver: "amdgpu"}
	used := bench.EngineFacts{GPUs: []bench.EngineGPU{{Name: "Vulkan0", Backend: "Vulkan"}}}
	idle := bench.EngineFacts{Idle: map[string]string{"Vulkan": "no driver"}}
	const denied = "no permission to open /dev/dri/renderD128: join the group render, sudo usermod -aG render USER; in a container --group-add render"
	for _, tt := range []struct {
		name    string
		machine Machine
		engine  bench.EngineFacts
		unused  string
	}{
		{"used", Machine{GPUs: []Facts{radeon}}, used, ""},
		{"a display of a remote console", Machine{GPUs: []Facts{{PCIVendor: amd, PCIDevice: "515e"}, {PCIVendor: "1a03"}}}, idle, ""},
		{"no Vulkan driver", Machine{GPUs: []Facts{radeon}, Vulkan: true, RenderNode: true}, idle, "the Vulkan back-end has no device: no driver"},
		{"no kernel driver", Machine{GPUs: []Facts{{PCIVendor: intel}}}, bench.EngineFacts{}, "no kernel driver is loaded for it"},
		{"no node", Machine{GPUs: []Facts{radeon}}, idle, "there is no /dev/dri/renderD*; in a container: --device /dev/dri; the Vulkan back-end has no device: no driver"},
		{"no permission", Machine{GPUs: []Facts{radeon}, Vulkan: true, RenderNode: true, NoAccess: []Node{{"/dev/dri/renderD128", "render"}}}, idle,
			denied + "; the Vulkan back-end has no device: no driver"},
		{"no permission, and not on PCI", Machine{Vulkan: true, RenderNode: true, NoAccess: []Node{{"/dev/dri/renderD128", "render"}}}, idle,
			denied + "; the Vulkan back-end has no device: no driver"},
		{"not on PCI, and no back-end", Machine{Vulkan: true, RenderNode: true, NoAccess: []Node{{"/dev/dri/renderD128", "render"}}}, bench.EngineFacts{}, ""},
		{"a node, and not on PCI", Machine{Vulkan: true, RenderNode: true}, idle, ""},
		{"no node, and no back-end", Machine{GPUs: []Facts{radeon}}, bench.EngineFacts{}, "no back-end for it is installed, or this build does not open it"},
		{"no node of ROCm", Machine{GPUs: []Facts{radeon}, Vulkan: true, RenderNode: true}, bench.EngineFacts{Idle: map[string]string{"ROCm": "no ROCm-capable device is detected"}},
			"there is no /dev/kfd; in a container: --device /dev/kfd; the ROCm back-end has no device: no ROCm-capable device is detected"},
		{"ROCm without a GPU of AMD", Machine{GPUs: []Facts{{PCIVendor: intel, Driver: "i915"}}, Vulkan: true, RenderNode: true}, bench.EngineFacts{Idle: map[string]string{"ROCm": "none"}},
			"the ROCm back-end has no device: none"},
		{"no back-end", Machine{GPUs: []Facts{radeon}, Vulkan: true, RenderNode: true}, bench.EngineFacts{}, "no back-end for it is installed, or this build does not open it"},
		{"a driver that computes on the CPU", Machine{GPUs: []Facts{radeon}, Vulkan: true, RenderNode: true},
			bench.EngineFacts{GPUs: []bench.EngineGPU{{Name: "Vulkan0", Backend: "Vulkan", Software: true}}}, "no back-end for it is installed, or this build does not open it"},
		{"no memory", Machine{GPUs: []Facts{radeon}}, bench.EngineFacts{GPUs: []bench.EngineGPU{{Name: "Vulkan0", Model: "AMD", Backend: "Vulkan", Problem: "full"}}},
			"Vulkan0 (AMD): no memory can be allocated on it: full"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if u := tt.machine.judge(tt.engine, libraries{}, ""); u.UnusedReason != tt.unused {
				t.Errorf("%q, want %q", u.UnusedReason, tt.unused)
			}
		})
	}
}

// A worker that a Vulkan driver ends or holds is asked again without Vulkan, then also
// without CUDA.
func TestAskWithoutVulkan(t *testing.T) {
	lost := errors.Join(errors.New("hung"), bench.ErrWorkerLost)
	const none = "VK_DRIVER_FILES=/dev/null VK_LOADER_LAYERS_DISABLE=~implicit~"
	cuda := bench.EngineFacts{GPUs: []bench.EngineGPU{{Name: "CUDA0", Backend: "CUDA"}}}
	for _, tt := range []struct {
		name    string
		machine Machine
		facts   bench.EngineFacts
		errs    []error
		env     []string
		unused  string // part
		left    string
		err     error
	}{
		{"it answers", Machine{Vulkan: true}, bench.EngineFacts{}, []error{nil}, []string{""}, "", "", nil},
		{"only Vulkan", Machine{Vulkan: true}, bench.EngineFacts{}, []error{lost, nil}, []string{"", none}, "a Vulkan driver cannot be opened: hung", "", nil},
		{"CUDA is left", Machine{Vulkan: true, DeviceNode: true}, cuda, []error{lost, nil}, []string{"", none}, "", "a Vulkan driver cannot be opened: hung", nil},
		{"CUDA is lost, too", Machine{Vulkan: true, DeviceNode: true}, bench.EngineFacts{}, []error{lost, lost, nil}, []string{"", none, VisibleDevices + "=-1 " + none},
			"the GPU cannot be opened: hung", "", nil},
		{"a driver without a GPU", Machine{Drivers: true}, bench.EngineFacts{}, []error{lost, nil}, []string{"", none}, "a Vulkan driver cannot be opened: hung", "", nil},
		{"it is lost without them", Machine{Vulkan: true}, bench.EngineFacts{}, []error{lost, lost}, []string{"", none}, "", "", lost},
		{"no Vulkan", Machine{}, bench.EngineFacts{}, []error{lost}, []string{""}, "", "", lost},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var env []string
			a, err := tt.machine.Ask(t.Context(), func(_ context.Context, e []string) (bench.EngineFacts, error) {
				env = append(env, strings.Join(e, " "))
				return tt.facts, tt.errs[len(env)-1]
			})
			if !errors.Is(err, tt.err) {
				t.Errorf("%v, want %v", err, tt.err)
			}
			if diff := cmp.Diff(tt.env, env); diff != "" {
				t.Error(diff)
			}
			if err == nil && (!strings.HasPrefix(a.Usage.UnusedReason, tt.unused) || (tt.unused == "") != (a.Usage.UnusedReason == "") || !strings.HasPrefix(a.Usage.LeftOutReason, tt.left)) {
				t.Errorf("%+v", a.Usage)
			}
			if want := strings.Join(a.Env(), " "); err == nil && want != strings.Join(a.Usage.Env(), " ") {
				t.Errorf("workers get %q, the one that answered had %q", a.Usage.Env(), want)
			}
		})
	}
}
