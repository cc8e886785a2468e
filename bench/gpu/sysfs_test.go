package gpu

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// files writes files below a new root.
func files(t *testing.T, content map[string]string) (root string) {
	t.Helper()
	root = t.TempDir()
	for path, text := range content {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// What kernel drivers report of AMD's and Intel's GPUs. A file that is missing costs one
// value.
func TestSysfs(t *testing.T) {
	metrics := make([]byte, 120)
	metrics[0], metrics[2], metrics[3] = 120, 1, 3
	binary.LittleEndian.PutUint64(metrics[112:], 1|1<<36)
	integrated := make([]byte, 152)
	integrated[0], integrated[2], integrated[3] = 152, 2, 4
	binary.LittleEndian.PutUint64(integrated[112:], 1<<36) // not the reasons
	binary.LittleEndian.PutUint64(integrated[120:], 1<<16)
	root := files(t, map[string]string{
		"proc/sys/kernel/osrelease":                                          "6.12.1\n",
		"sys/class/drm/card0-DP-1/status":                                    "connected",
		"sys/class/drm/card0/device/uevent":                                  "DRIVER=amdgpu\nPCI_SLOT_NAME=0000:03:00.0\n",
		"sys/class/drm/card0/device/hwmon/hwmon3/power1_average":             "71500000\n",
		"sys/class/drm/card0/device/hwmon/hwmon3/temp1_input":                "54000\n",
		"sys/class/drm/card0/device/hwmon/hwmon3/temp2_input":                "61000\n",
		"sys/class/drm/card0/device/hwmon/hwmon3/freq2_input":                "1124000000\n",
		"sys/class/drm/card0/device/pp_dpm_sclk":                             "0: 500Mhz\n1: 2400Mhz *\n",
		"sys/class/drm/card0/device/gpu_busy_percent":                        "97\n",
		"sys/class/drm/card0/device/mem_info_vram_used":                      "1000\n",
		"sys/class/drm/card0/device/mem_info_gtt_used":                       "24\n",
		"sys/class/drm/card0/device/gpu_metrics":                             string(metrics),
		"sys/class/drm/card1/device/uevent":                                  "DRIVER=i915\nPCI_SLOT_NAME=0000:04:00.0\n",
		"sys/class/drm/card1/device/hwmon/hwmon4/energy1_input":              "2500000\n",
		"sys/class/drm/card1/gt/gt0/rps_act_freq_mhz":                        "1950\n",
		"sys/class/drm/card1/gt/gt0/throttle_reason_pl1":                     "1\n",
		"sys/class/drm/card1/gt/gt0/throttle_reason_pl2":                     "1\n",
		"sys/class/drm/card1/gt/gt0/throttle_reason_thermal":                 "0\n",
		"sys/class/drm/card2/device/uevent":                                  "DRIVER=xe\nPCI_SLOT_NAME=0000:05:00.0\n",
		"sys/class/drm/card2/device/tile0/gt0/freq0/act_freq":                "2050\n",
		"sys/class/drm/card2/device/tile0/gt0/freq0/throttle/reason_thermal": "1\n",
		"sys/class/drm/card3/device/uevent":                                  "DRIVER=ast\nPCI_SLOT_NAME=0000:06:00.0\n",
		"sys/class/drm/card4/device/uevent":                                  "DRIVER=amdgpu\nPCI_SLOT_NAME=0000:07:00.0\n",
		"sys/class/drm/card4/device/pp_dpm_sclk":                             "nonsense *\n",
		"sys/class/drm/card4/device/gpu_metrics":                             "short",
		"sys/class/drm/card5/device/uevent":                                  "DRIVER=amdgpu\nPCI_SLOT_NAME=0000:08:00.0\n",
		"sys/class/drm/card5/device/gpu_metrics":                             string(integrated),
	})
	s := openSysfs(root)
	f := func(v float64) *float64 { return &v }
	used := uint64(1024)
	want := []result.GPUReading{
		{PowerWatts: f(71.5), BusyPercent: f(97), TemperatureC: f(61), SMClockMHz: f(2400), MemoryClockMHz: f(1124), UsedBytes: &used, Throttled: []string{"power cap", "temperature"}},
		{EnergyJoules: f(2.5), SMClockMHz: f(1950), Throttled: []string{"power cap"}},
		{SMClockMHz: f(2050), Throttled: []string{"temperature"}},
		{},
		{Throttled: []string{"current limit"}},
	}
	var got []result.GPUReading
	var names []string
	for _, d := range s.list() {
		got, names = append(got, d.read(d.index, 0)), append(names, d.address+" "+d.driver)
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(result.GPUReading{}, "At"), cmpopts.EquateApprox(1e-9, 0)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"0000:03:00.0 amdgpu 6.12.1", "0000:04:00.0 i915 6.12.1", "0000:05:00.0 xe 6.12.1", "0000:07:00.0 amdgpu 6.12.1", "0000:08:00.0 amdgpu 6.12.1"}, names); diff != "" {
		t.Error(diff)
	}
	if s := openSysfs(t.TempDir()); s != nil {
		t.Errorf("cards on a machine without one: %+v", s)
	}
}

// Intel's drivers tell of the worker's memory and work in its fdinfo only.
func TestSysfsWorker(t *testing.T) {
	const i915, xe, worker = 0, 1, 7
	fdinfo := func(address, client, lines string) string {
		return "pos:\t0\ndrm-pdev:\t" + address + "\ndrm-client-id:\t" + client + "\n" + lines
	}
	root := files(t, map[string]string{
		"sys/class/drm/card0/device/uevent": "DRIVER=i915\nPCI_SLOT_NAME=0000:03:00.0\n",
		"sys/class/drm/card1/device/uevent": "DRIVER=xe\nPCI_SLOT_NAME=0000:04:00.0\n",
		"proc/7/fdinfo/3":                   fdinfo("0000:03:00.0", "1", "drm-engine-render:\t1000 ns\ndrm-total-local0:\t3 MiB\ndrm-total-system0:\t4 KiB\n"),
		"proc/7/fdinfo/4":                   fdinfo("0000:03:00.0", "1", "drm-engine-render:\t1000 ns\ndrm-total-local0:\t3 MiB\ndrm-total-system0:\t4 KiB\n"),
		"proc/7/fdinfo/5":                   fdinfo("0000:04:00.0", "2", "drm-cycles-ccs:\t100\ndrm-total-cycles-ccs:\t1000\ndrm-total-vram0:\t0\n"),
		"proc/8/fdinfo/3":                   fdinfo("0000:03:00.0", "3", "drm-engine-render:\t5 ns\ndrm-total-local0:\t99 MiB\n"), // another process
	})
	s := openSysfs(root)
	if r := s.read(i915, worker); r.BusyPercent != nil || r.UsedBytes == nil || *r.UsedBytes != 3<<20+4<<10 {
		t.Errorf("the first reading: busy %v, %v bytes", r.BusyPercent, r.UsedBytes)
	}
	if r := s.read(xe, worker); r.BusyPercent != nil || r.UsedBytes != nil {
		t.Errorf("the first reading: busy %v, %v bytes", r.BusyPercent, r.UsedBytes)
	}
	for path, text := range map[string]string{
		"proc/7/fdinfo/3": fdinfo("0000:03:00.0", "1", "drm-engine-render:\t9000000000000000000 ns\n"), // more than there was time
		"proc/7/fdinfo/5": fdinfo("0000:04:00.0", "2", "drm-cycles-ccs:\t400\ndrm-total-cycles-ccs:\t1400\ndrm-cycles-rcs:\t9\ndrm-total-cycles-rcs:\t1400\n"),
	} {
		if err := os.WriteFile(filepath.Join(root, path), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if r := s.read(i915, worker); r.BusyPercent == nil || *r.BusyPercent != 100 {
		t.Errorf("i915: busy %v", r.BusyPercent)
	}
	if r := s.read(xe, worker); r.BusyPercent == nil || *r.BusyPercent != 75 {
		t.Errorf("xe: busy %v", r.BusyPercent)
	}
	if r := s.read(xe, worker+1); r.BusyPercent != nil {
		t.Errorf("another worker: busy %v", *r.BusyPercent)
	}
}

// Other processes are those whose work on the card grew, by fdinfo.
func TestSysfsOthers(t *testing.T) {
	client := func(id, ns string) string {
		return "pos:\t0\ndrm-driver:\tamdgpu\ndrm-pdev:\t0000:03:00.0\ndrm-client-id:\t" + id + "\ndrm-engine-compute:\t" + ns + " ns\n"
	}
	root := files(t, map[string]string{
		"sys/class/drm/card0/device/uevent": "DRIVER=amdgpu\nPCI_SLOT_NAME=0000:03:00.0\n",
		"proc/7/fdinfo/3":                   client("1", "100"), // the worker
		"proc/8/fdinfo/3":                   client("2", "100"),
		"proc/9/fdinfo/4":                   client("3", "100"),
		"proc/10/fdinfo/4":                  "pos:\t0\n",
	})
	s := openSysfs(root)
	for _, tt := range []struct {
		name, file, text string
		want             int
	}{
		{"the first count", "proc/7/fdinfo/3", client("1", "200"), 0},
		{"idle", "proc/7/fdinfo/3", client("1", "300"), 0},
		{"one works", "proc/9/fdinfo/4", client("3", "200"), 1},
		{"a new one is idle until it is seen to work", "proc/11/fdinfo/9", client("4", "900"), 0},
		{"it works", "proc/11/fdinfo/9", client("4", "901"), 1},
	} {
		path := filepath.Join(root, tt.file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if n, ok := s.others(0, 7); n != tt.want || !ok {
			t.Errorf("%s: %d, want %d", tt.name, n, tt.want)
		}
	}
}

// A run's telemetry has these cards, too.
func TestWatchSysfs(t *testing.T) {
	root := files(t, map[string]string{
		"proc/sys/kernel/osrelease":                              "6.12.1\n",
		"sys/class/drm/card0/device/uevent":                      "DRIVER=amdgpu\nPCI_SLOT_NAME=0000:03:00.0\n",
		"sys/class/drm/card0/device/hwmon/hwmon3/power1_average": "71500000\n",
	})
	w := Watch(root, filepath.Join(t.TempDir(), "none"), time.Hour, nil)
	if w == nil {
		t.Fatal("not watched")
	}
	defer w.Close()
	step := func(e bench.Event) []bench.Event { return w.Observe(bench.Stamped{At: time.Now(), Event: e}) }
	step(bench.EngineReady{PID: os.Getpid()})
	step(bench.TestStarted{Test: result.Test{Gen: 1}})
	step(bench.RepetitionDone{Sample: result.Sample{Repetition: 1, Elapsed: time.Minute}})
	power := 71.5
	want := []bench.Event{bench.GPUObserved{Devices: []bench.GPUObservation{{
		PCIAddress: "0000:03:00.0", GPUTelemetry: result.GPUTelemetry{Driver: "amdgpu 6.12.1", PowerWatts: &power},
	}}}}
	if diff := cmp.Diff(want, step(bench.TestDone{})); diff != "" {
		t.Error(diff)
	}
}
