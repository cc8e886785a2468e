//go:build linux && (amd64 || arm64)

package benchtest

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

//go:embed testdata/vulkan.c
var fakeVulkan []byte

// Lavapipe returns an environment in which a program finds n Vulkan devices that compute
// on the CPU: Mesa's lavapipe, behind a driver that can change what it says and make it
// fail. settings are variables of testdata/vulkan.c. By default the devices say that they
// are discrete GPUs: the library uses only those.
//
// Results are real. Compiled shaders are kept between tests, because compiling takes far
// longer than computing.
func Lavapipe(t testing.TB, n int, settings ...string) (env []string) {
	t.Helper()
	dir := t.TempDir()
	source := filepath.Join(dir, "vulkan.c")
	if err := os.WriteFile(source, fakeVulkan, 0o600); err != nil {
		t.Fatal(err)
	}
	var files []string
	for i := range n {
		library, file := filepath.Join(dir, fmt.Sprintf("libvulkan_%d.so", i)), filepath.Join(dir, fmt.Sprintf("%d.json", i))
		if out, err := exec.Command("gcc", "-O1", "-shared", "-fPIC", fmt.Sprintf("-DINDEX=%d", i), "-o", library, source).CombinedOutput(); err != nil {
			t.Fatalf("gcc: %v\n%s(sudo apt-get install gcc)", err, out)
		}
		WriteICD(t, file, library)
		files = append(files, file)
	}
	return append([]string{
		"VK_DRIVER_FILES=" + strings.Join(files, ":"), "FAKEVULKAN_DRIVER=" + lavapipe(t), "FAKEVULKAN_TYPE=2", "FAKEVULKAN_NAME=Test GPU",
		"MESA_SHADER_CACHE_DIR=" + filepath.Join(os.TempDir(), fmt.Sprintf("benchmark-llm-lavapipe-%d", os.Getuid())),
	}, settings...)
}

// WriteICD writes the file that tells the Vulkan loader of a driver's library.
func WriteICD(t testing.TB, file, library string) {
	t.Helper()
	text, err := json.Marshal(map[string]any{
		"file_format_version": "1.0.1", "ICD": map[string]string{"library_path": library, "api_version": "1.4.354"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// lavapipe is the path of Mesa's software driver: that of the unpacked packages, relative
// to a package two folders below the module, else the system's.
func lavapipe(t testing.TB) string {
	t.Helper()
	triplet := map[string]string{"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}[runtime.GOARCH]
	for _, path := range []string{
		filepath.Join("../../third_party/llama.cpp/root", runtime.GOARCH, "usr/lib", triplet, "libvulkan_lvp.so"),
		filepath.Join("/usr/lib", triplet, "libvulkan_lvp.so"),
	} {
		if _, err := os.Stat(path); err != nil {
			continue
		}
		absolute, err := filepath.Abs(path)
		if err != nil {
			t.Fatal(err)
		}
		return absolute
	}
	t.Fatal("Mesa's lavapipe is missing (install it with scripts/get-llama --vulkan-test)")
	return ""
}
