package acquire

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench/gguf"
)

// What GPUs can hold stands beside what the machine can.
func TestInspectGPUs(t *testing.T) {
	in := Inspection{Model: "m", Memory: []gguf.Memory{{Tokens: 512, Weights: 3 << 30}}, Available: new(uint64), DevicesFree: new(uint64)}
	*in.Available, *in.DevicesFree = 1<<30, 4<<30
	var out bytes.Buffer
	if err := in.Write(&out, 0); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"GPU memory    4.0 GiB free\n", " fits here  fits GPUs", " no         yes"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

func TestDurationText(t *testing.T) {
	got := make(map[float64]string)
	want := map[float64]string{0.2: "0s", 59.6: "1m", 90: "1m30s", 600: "10m", 3600: "1h", 4800: "1h20m", 7205: "2h0m5s"}
	for s := range want {
		got[s] = durationText(s)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
