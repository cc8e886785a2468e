package host

import (
	"os"
	"path/filepath"
	"testing"
)

func TestTemperature(t *testing.T) {
	type files map[string]string
	for name, tt := range map[string]struct {
		files files
		want  float64 // 0: none
	}{
		"no sensor": {files{}, 0},
		"hwmon": {files{
			"sys/class/hwmon/hwmon0/name": "nvme\n", "sys/class/hwmon/hwmon0/temp1_input": "80000\n",
			"sys/class/hwmon/hwmon1/name": "coretemp\n", "sys/class/hwmon/hwmon1/temp1_input": "45000\n", "sys/class/hwmon/hwmon1/temp2_input": "51500\n",
		}, 51.5},
		"hwmon before zones": {files{
			"sys/class/hwmon/hwmon1/name": "k10temp\n", "sys/class/hwmon/hwmon1/temp1_input": "45000\n",
			"sys/class/thermal/thermal_zone0/type": "x86_pkg_temp\n", "sys/class/thermal/thermal_zone0/temp": "60000\n",
		}, 45},
		"thermal zones": {files{
			"sys/class/thermal/thermal_zone0/type": "acpitz\n", "sys/class/thermal/thermal_zone0/temp": "90000\n",
			"sys/class/thermal/thermal_zone1/type": "cpu-thermal\n", "sys/class/thermal/thermal_zone1/temp": "61250\n",
		}, 61.25},
		"values that cannot be": {files{
			"sys/class/hwmon/hwmon1/name": "coretemp\n", "sys/class/hwmon/hwmon1/temp1_input": "-128000\n",
			"sys/class/hwmon/hwmon1/temp2_input": "N/A\n", "sys/class/hwmon/hwmon1/temp3_input": "255000\n",
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for path, content := range tt.files {
				path = filepath.Join(root, path)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, ok := Temperature(root)
			if got != tt.want || ok != (tt.want > 0) {
				t.Errorf("%v, %v, want %v", got, ok, tt.want)
			}
		})
	}
}
