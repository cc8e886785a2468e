//go:build cgo

package llamacpp_test

import (
	"context"
	"errors"
	"testing"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/llamacpp"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// limiterOf is an engine whose limits are measured with few threads.
func limiterOf(t *testing.T, change func(*bench.Settings)) *llamacpp.Engine {
	t.Helper()
	s := bench.DefaultSettings(1)
	if change != nil {
		change(&s)
	}
	e, err := llamacpp.New(bench.Job{Settings: s, AllowCPU: true}, llamacpp.Options{AllowCPU: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

func TestLimits(t *testing.T) {
	e := limiterOf(t, func(s *bench.Settings) { s.NoRepack = true })
	got, err := e.Limits(t.Context(), result.LimitsPlan{Devices: []string{"CPU"}, Types: []string{"q4_K", "f16"}, Bytes: 64 << 20, CacheBytes: 1})
	if err != nil || len(got) != 1 {
		t.Fatalf("%d devices, error %v", len(got), err)
	}
	d := got[0]
	if d.Device != "CPU" || d.Threads != 1 || d.CacheBytes != 1 || d.ReadBytesPerSecond <= 0 || d.Elapsed <= 0 || len(d.Types) != 2 {
		t.Errorf("%+v", d)
	}
	if d.WeightsBytes > 64<<20 || d.WeightsBytes < 32<<20 {
		t.Errorf("%d bytes of weights", d.WeightsBytes)
	}
	for _, l := range d.Types {
		if l.Buffer != "CPU" || l.VectorBytesPerSecond <= 0 || l.MatrixOpsPerSecond <= 0 || l.Reason != "" {
			t.Errorf("%+v", l)
		}
	}
}

func TestLimitsRefused(t *testing.T) {
	e := limiterOf(t, nil)
	_, err := e.Limits(t.Context(), result.LimitsPlan{Devices: []string{"CPU", "CUDA7"}, Types: []string{"q4_K"}, Bytes: 1 << 20})
	if coded, ok := errors.AsType[*bench.CodedError](err); !ok || coded.Code != bench.DeviceMissing || !errors.Is(err, llamacpp.ErrNoDevice) {
		t.Errorf("an unknown device: %v", err)
	}
	if _, err := e.Limits(t.Context(), result.LimitsPlan{Devices: []string{"CPU"}, Types: []string{"f32"}, Bytes: 1 << 60}); !errors.Is(err, bench.ErrOutOfMemory) {
		t.Errorf("an exbibyte of weights: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := e.Limits(ctx, result.LimitsPlan{Devices: []string{"CPU"}, Types: []string{"q8_0"}, Bytes: 1 << 20}); !errors.Is(err, bench.ErrAborted) {
		t.Errorf("after the context's end: %v", err)
	}
}
