//go:build cgo && linux && (amd64 || arm64) && !cpu

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/benchtest"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/synth"
)

// What a record says of Vulkan devices is what the back-end did with them, and a driver
// that does not work costs no run.
func TestVulkanRecords(t *testing.T) {
	t.Parallel()
	missing := filepath.Join(t.TempDir(), "missing.json")
	benchtest.WriteICD(t, missing, "/nowhere/libvulkan_none.so")
	for _, tt := range []struct {
		name     string
		devices  int
		settings []string
		args     []string
		code     int
		backends string         // of all records; "": there is none
		layers   map[string]int // by device
		warning  string         // that every record has, a prefix
		record   string         // part of every record
		stderr   string         // part of it
	}{
		{name: "a discrete GPU", devices: 1, backends: "Vulkan", layers: map[string]int{"Vulkan0": 3}},
		{name: "an integrated GPU", devices: 1, settings: []string{"FAKEVULKAN_TYPE=1"}, backends: "Vulkan", layers: map[string]int{"Vulkan0": 3}},
		{
			name: "a GPU with 256 MB", devices: 1, settings: []string{"FAKEVULKAN_MEMORY_MIB=256"}, backends: "Vulkan", layers: map[string]int{"Vulkan0": 3},
		},
		{
			name: "a GPU with too little for anything", devices: 1, settings: []string{"FAKEVULKAN_MEMORY_MIB=64"}, backends: "CPU",
			warning: "gpu_not_used: measured on the CPU: the library put no layer of the model on Vulkan0 (Test GPU 0)",
		},
		{name: "one of two", devices: 2, args: []string{"--device", "Vulkan1"}, backends: "Vulkan", layers: map[string]int{"Vulkan1": 3}},
		{name: "one that is not there", devices: 1, args: []string{"--device", "Vulkan7"}, code: exitLibrary, stderr: `no device called "Vulkan7"; there are: Vulkan0, CPU`},
		{
			name: "a driver that computes on the CPU", devices: 1, settings: []string{"FAKEVULKAN_TYPE=4", "FAKEVULKAN_NAME=llvmpipe", "GGML_VK_VISIBLE_DEVICES=0"},
			backends: "CPU", record: `"unused_devices":[{"name":"Vulkan0","model":"llvmpipe 0","reason":"it computes on the CPU; --device Vulkan0 uses it"}]`,
		},
		{
			name: "the same, named", devices: 1, settings: []string{"FAKEVULKAN_TYPE=4", "FAKEVULKAN_NAME=llvmpipe", "GGML_VK_VISIBLE_DEVICES=0"}, args: []string{"--device", "Vulkan0"},
			backends: "Vulkan", layers: map[string]int{"Vulkan0": 3}, warning: "software_gpu: Vulkan0 (llvmpipe 0) is no GPU",
		},
		{
			name: "the same, and a GPU is required", devices: 1, settings: []string{"FAKEVULKAN_TYPE=4", "FAKEVULKAN_NAME=llvmpipe", "GGML_VK_VISIBLE_DEVICES=0"}, args: []string{"--require-gpu"},
			code: exitLibrary, stderr: "no GPU is used: Vulkan0 (llvmpipe 0) is not used: it computes on the CPU",
		},
		{
			name: "a driver that ends the process", devices: 1, settings: []string{"FAKEVULKAN_CRASH=0"}, backends: "CPU",
			warning: "gpu_not_used: measured on the CPU: a Vulkan driver cannot be opened: the worker crashed",
		},
		{
			name: "a driver whose library is missing", settings: []string{"VK_DRIVER_FILES=" + missing}, backends: "CPU",
			record: `"idle_backends":{"Vulkan":"no Vulkan driver is installed, or none works"}`,
		},
		{
			name: "a device without 16-bit storage", devices: 1, settings: []string{"FAKEVULKAN_NO16=1"}, backends: "CPU",
			warning: "gpu_not_used: measured on the CPU: a Vulkan driver cannot be opened: the worker crashed (exit code 2): Unsupported device",
			record:  `"idle_backends":{"Vulkan":"VK_DRIVER_FILES=/dev/null keeps it from all drivers"}`,
		},
		{
			name: "a device that is lost while weights are copied", devices: 1, settings: []string{"FAKEVULKAN_LOST=3"}, code: exitNothing,
			stderr: "not loaded: a device was lost: device lost on Vulkan0\nhint: dmesg says why the driver lost it; --device none measures the CPU; ",
		},
		{
			name: "a device that is lost in a test", devices: 1, settings: []string{"FAKEVULKAN_LOST=70"}, args: []string{"-ngl", "99", "-r", "50"}, code: exitNothing,
			stderr: "the worker crashed (exit code 2): vk::Queue::submit: ErrorDeviceLost\nhint: dmesg says why the driver lost it; --device none measures the CPU; ",
		},
		{
			name: "a driver that ends the process in a test", devices: 1, settings: []string{"FAKEVULKAN_CRASH=70"}, args: []string{"-ngl", "99", "-r", "50"}, code: exitNothing,
			stderr: "benchmark-llm: nothing was measured: pp8 of tiny.Q4_K_M.gguf: the worker crashed (exit code 2): SIGABRT: abort\nhint: see each step in ",
		},
		{
			name: "a driver that does not return in a test", devices: 1, settings: []string{"FAKEVULKAN_HANG=70"}, args: []string{"-ngl", "99", "-r", "50", "--timeout", "10s"}, code: exitNothing,
			stderr: "benchmark-llm: nothing was measured: pp8 of tiny.Q4_K_M.gguf: the worker did not abort within ",
		},
		{
			name: "a GPU whose memory runs out while it computes", devices: 1, settings: []string{"FAKEVULKAN_FULL=13"}, args: []string{"-ngl", "99", "-p", "64"}, code: exitNothing,
			stderr: "benchmark-llm: nothing was measured: pp64 of tiny.Q4_K_M.gguf: the worker ran out of memory: ggml_vulkan: vk::Device::allocateMemory: ErrorOutOfDeviceMemory\nhint: use shorter lengths",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newFaulty(t, withUsual(slices.Concat([]string{"run", "-m", synth.Tiny, "--weights", "synthetic"}, tt.args), "-r", "2", "-p", "8", "-n", "0")...)
			if tt.devices > 0 {
				r.Env = append(r.Env, benchtest.Lavapipe(t, tt.devices)...)
			}
			r.Env = append(r.Env, tt.settings...)
			r.start()
			r.over(tt.code)
			if !strings.Contains(r.stderr.String(), tt.stderr) {
				t.Errorf("stderr:\n%s", r.stderr.String())
			}
			records := 0
			for line := range strings.Lines(r.stdout.String()) {
				var rec result.Record
				if err := json.Unmarshal([]byte(line), &rec); err != nil {
					t.Fatalf("%v: %s", err, line)
				}
				records++
				layers := map[string]int{}
				if g := rec.Ext.GPU; g != nil {
					for _, d := range g.Devices {
						layers[d.Name] = d.Layers
					}
				}
				if rec.Backends != tt.backends || (len(layers) == 0) != (rec.GPUInfo == "") || fmt.Sprint(layers) != fmt.Sprint(tt.layers) {
					t.Errorf("back-ends %s, layers %v on %q; want %s, %v", rec.Backends, layers, rec.GPUInfo, tt.backends, tt.layers)
				}
				if tt.warning != "" && !slices.ContainsFunc(rec.Ext.Warnings, func(w result.Warning) bool { return strings.HasPrefix(w.Code+": "+w.Message, tt.warning) }) {
					t.Errorf("no warning %q in %q", tt.warning, rec.Ext.Warnings)
				}
				if !strings.Contains(line, tt.record) {
					t.Errorf("no %s in %s", tt.record, line)
				}
			}
			if (records > 0) != (tt.backends != "") {
				t.Errorf("%d records; stderr:\n%s", records, r.stderr.String())
			}
		})
	}
}

// Shaders are compiled before the first test, outside every budget.
func TestVulkanShadersAreCompiledBefore(t *testing.T) {
	t.Parallel()
	log := filepath.Join(t.TempDir(), "pipelines")
	r := newFaulty(t, "run", "-m", synth.Tiny, "--weights", "synthetic", "-r", "2", "-p", "16,100", "-n", "4")
	r.Env = append(r.Env, benchtest.Lavapipe(t, 1, "FAKEVULKAN_LOG="+log)...)
	r.start()
	r.over(exitOK)
	for line := range strings.Lines(r.stdout.String()) {
		var rec result.Record
		if err := json.Unmarshal([]byte(line), &rec); err != nil || rec.Ext.PrecompileSeconds <= 0 {
			t.Errorf("no precompile_s (%v) in %s", err, line)
		}
	}
	var ready time.Time
	for line := range strings.Lines(r.events()) {
		var s bench.Stamped
		if err := s.UnmarshalLine([]byte(strings.TrimSuffix(line, "\n"))); err != nil {
			t.Fatal(err)
		}
		if done, ok := s.Event.(bench.PrecompileDone); ok {
			if ready = s.At; done.Status != result.OK {
				t.Errorf("shaders were not compiled: %+v", done)
			}
		}
	}
	pipelines, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	shaders := 0
	for line := range strings.Lines(string(pipelines)) {
		var at int64
		if _, err := fmt.Sscan(line, &at); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if shaders++; ready.IsZero() || time.Unix(0, at).After(ready) {
			t.Error("a shader was compiled in a test")
		}
	}
	if shaders < 5 {
		t.Errorf("%d shaders", shaders)
	}
}

// A driver that keeps compiled shaders keeps them beside the models, which outlive a
// container.
func TestVulkanShaderCache(t *testing.T) {
	t.Parallel()
	models := t.TempDir()
	r := newFaulty(t, "run", "-m", synth.Tiny, "--weights", "synthetic", "--models-dir", models, "-r", "1", "-p", "8", "-n", "0", "-ngl", "1")
	r.Env = slices.DeleteFunc(append(r.Env, benchtest.Lavapipe(t, 1)...), func(v string) bool { return strings.HasPrefix(v, "MESA_SHADER_CACHE_DIR=") })
	r.start()
	r.over(exitOK)
	size := int64(0)
	err := filepath.WalkDir(filepath.Join(models, "shader-cache"), func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			size += info.Size()
		}
		return err
	})
	if err != nil || size == 0 {
		t.Errorf("%d bytes of shaders: %v", size, err)
	}
}

// On a Vulkan device the record says what llama-bench's says. The speeds are logged, not
// compared.
func TestVulkanAsLlamaBench(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), synth.Tiny)
	if out, err := exec.Command("benchmark-llm", "models", "synth", synth.Tiny, "-o", file).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	env := benchtest.Lavapipe(t, 1)
	flags := []string{"-m", file, "-p", "64", "-n", "8", "-r", "3", "-t", "1", "-fa", "1", "-dev", "Vulkan0", "-o", "jsonl"}
	c := exec.Command(filepath.Join("..", "..", "scripts", "llama-tool"), append([]string{"llama-bench"}, flags...)...)
	c.Env = append(os.Environ(), env...)
	out, err := c.Output()
	if err != nil {
		t.Fatalf("llama-bench: %v\n%s", err, out)
	}
	r := newFaulty(t, append([]string{"--weights", "file"}, flags...)...)
	r.Env = append(r.Env, env...)
	r.start()
	r.over(exitOK)
	said := func(text []byte) (records []result.Record) {
		for line := range bytes.Lines(text) {
			var rec result.Record
			if err := json.Unmarshal(line, &rec); err != nil {
				t.Fatalf("%v in %q", err, line)
			}
			t.Logf("%v: %.1f tokens/second", rec.Test(), rec.AvgTS)
			records = append(records, result.Record{
				BuildNumber: rec.BuildNumber, CPUInfo: rec.CPUInfo, GPUInfo: rec.GPUInfo, Backends: rec.Backends, ModelType: rec.ModelType, ModelSizeBytes: rec.ModelSizeBytes,
				Devices: rec.Devices, GPULayers: rec.GPULayers, FlashAttn: rec.FlashAttn, PromptTokens: rec.PromptTokens, GenTokens: rec.GenTokens,
			})
		}
		return records
	}
	theirs, ours := said(out), said(r.stdout.Bytes())
	if diff := cmp.Diff(theirs, ours); diff != "" || len(ours) != 2 || ours[0].Backends != "Vulkan" {
		t.Errorf("%d records (-llama-bench +ours)\n%s", len(ours), diff)
	}
}
