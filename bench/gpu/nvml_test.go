//go:build !cpu

package gpu

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// fakeNVML builds a library that answers as NVIDIA's, or lacks what flags say.
func fakeNVML(t *testing.T, flags ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), NVMLName)
	args := append([]string{"-shared", "-fPIC", "-o", path, "testdata/nvml/nvml.c"}, flags...)
	if out, err := exec.Command("gcc", args...).CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s(sudo apt-get install gcc)", err, out)
	}
	return path
}

func opened(t *testing.T, path string) *NVML {
	t.Helper()
	n, err := startNVML(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	return n
}

func TestNVML(t *testing.T) {
	t.Setenv("NVML_DEVICES", "2")
	t.Setenv("NVML_OTHERS", "100")
	t.Setenv("NVML_THROTTLE", "0x107") // idle, clocks set, power cap, display
	n := opened(t, fakeNVML(t))
	want := []NVMLDevice{
		{Model: "Fake GPU 0", PCIAddress: "0000:c1:00.0", DriverVersion: "550.54.15", CUDAVersion: "12.4", ComputeCapability: "8.9", MemoryTotalBytes: 24 << 30},
		{Model: "Fake GPU 1", PCIAddress: "0000:c2:00.0", DriverVersion: "550.54.15", CUDAVersion: "12.4", ComputeCapability: "8.9", MemoryTotalBytes: 24 << 30},
	}
	if diff := cmp.Diff(want, n.Devices(), cmpopts.IgnoreUnexported(NVMLDevice{})); diff != "" {
		t.Errorf("devices (-want +got)\n%s", diff)
	}
	r := n.Read(1)
	if r.EnergyJoules == nil || *r.EnergyJoules <= 0 || r.At.IsZero() {
		t.Errorf("energy %v at %v", r.EnergyJoules, r.At)
	}
	for name, v := range map[string]struct {
		got  *float64
		want float64
	}{"power": {r.PowerWatts, 71.5}, "SM clock": {r.SMClockMHz, 2040}, "memory clock": {r.MemoryClockMHz, 6251}, "temperature": {r.TemperatureC, 54}, "busy": {r.BusyPercent, 97}} {
		if v.got == nil || *v.got != v.want {
			t.Errorf("%s: %v, want %v", name, v.got, v.want)
		}
	}
	if r.UsedBytes == nil || *r.UsedBytes != 1<<30 {
		t.Errorf("memory in use: %v", r.UsedBytes)
	}
	if diff := cmp.Diff([]string{"power cap"}, r.Throttled); diff != "" {
		t.Error(diff)
	}
	pids, ok := n.Processes(1)
	if !ok || len(pids) != 101 || pids[0] != os.Getpid() || pids[100] != 1000100 {
		t.Errorf("%d processes, %v: %v", len(pids), ok, pids)
	}
}

// Values that an old driver does not report are absent.
func TestOldNVML(t *testing.T) {
	n := opened(t, fakeNVML(t, "-DOLD"))
	want := []NVMLDevice{{Model: "Fake GPU 0", PCIAddress: "0000:c1:00.0", DriverVersion: "550.54.15", MemoryTotalBytes: 24 << 30}}
	if diff := cmp.Diff(want, n.Devices(), cmpopts.IgnoreUnexported(NVMLDevice{})); diff != "" {
		t.Errorf("devices (-want +got)\n%s", diff)
	}
	if r := n.Read(0); r.EnergyJoules != nil || r.Throttled != nil || r.PowerWatts == nil {
		t.Errorf("%+v", r)
	}
	if pids, ok := n.Processes(0); ok {
		t.Errorf("processes %v", pids)
	}
}

// Later versions of the library renamed the function for the reasons of throttling
// and may drop the old name.
func TestRenamedNVML(t *testing.T) {
	t.Setenv("NVML_THROTTLE", "0x40")
	n := opened(t, fakeNVML(t, "-DnvmlDeviceGetCurrentClocksThrottleReasons=nvmlDeviceGetCurrentClocksEventReasons"))
	if diff := cmp.Diff([]string{"temperature (hardware)"}, n.Read(0).Throttled); diff != "" {
		t.Error(diff)
	}
}

func TestNVMLThatIsNotThere(t *testing.T) {
	if _, err := startNVML(filepath.Join(t.TempDir(), NVMLName)); !errors.Is(err, ErrNoNVML) {
		t.Errorf("no library: %v", err)
	}
}

// A broken library is not reported as an absent one.
func TestBrokenNVML(t *testing.T) {
	garbage := filepath.Join(t.TempDir(), NVMLName)
	if err := os.WriteFile(garbage, []byte(strings.Repeat("not a library ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(t.TempDir(), NVMLName)
	if out, err := exec.Command("gcc", "-shared", "-o", other, "-x", "c", "/dev/null").CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	for _, tt := range []struct{ name, path, code, want string }{
		{"no library", garbage, "0", "invalid ELF header"},
		{"another library", other, "0", "has no nvmlInit_v2"},
		{"another driver", fakeNVML(t), "18", "cannot be started: Driver/library version mismatch"},
		{"no driver", fakeNVML(t), "9", "no NVIDIA driver is loaded: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("NVML_CODE", tt.code)
			n, err := startNVML(tt.path)
			if err == nil {
				n.Close()
			}
			if err == nil || errors.Is(err, ErrNoNVML) || errors.Is(err, ErrNoDriver) != (tt.code == "9") || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// A driver that never answers does not hold up a run.
func TestNVMLThatHangs(t *testing.T) {
	t.Setenv("NVML_HANG", "1")
	path := fakeNVML(t)
	n, err := openWithin(path, 20*time.Millisecond)
	if err == nil {
		n.Close()
	}
	if err == nil || errors.Is(err, ErrNoNVML) || err.Error() != path+" does not answer within 20ms" {
		t.Errorf("got %v", err)
	}
}

func TestFactsWithNVML(t *testing.T) {
	gpus := []Facts{{Model: "NVIDIA L4", PCIAddress: "0000:c1:00.0", PCIVendor: "10de", Driver: "nvidia", DriverVersion: "550.1"}, {PCIAddress: "0000:03:00.0"}}
	got := withNVML(gpus, []NVMLDevice{
		{Model: "L4", PCIAddress: pciAddress("00000000:C1:00.0"), DriverVersion: "550.54.15", CUDAVersion: "12.4", ComputeCapability: "8.9", MemoryTotalBytes: 5},
		{Model: "L40", PCIAddress: pciAddress("00010000:C1:00.0"), DriverVersion: "550.54.15"},
	})
	want := []Facts{
		{Model: "NVIDIA L4", PCIAddress: "0000:c1:00.0", PCIVendor: "10de", Driver: "nvidia", DriverVersion: "550.1", CUDAVersion: "12.4", ComputeCapability: "8.9", MemoryTotalBytes: 5},
		{PCIAddress: "0000:03:00.0"},
		{Model: "L40", PCIAddress: "10000:c1:00.0", PCIVendor: "10de", Driver: "nvidia", DriverVersion: "550.54.15"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
