//go:build cgo

package llamacpp

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/roofline"
	"github.com/sparecores/benchmark-llm/llama"
)

var _ bench.Limiter = (*Engine)(nil)

// Limits measures the limits of devices, with the threads of the job's settings. No model
// may be loaded: the weights of the measurement need memory. The error wraps ErrNoDevice,
// bench.ErrAborted or bench.ErrOutOfMemory.
func (e *Engine) Limits(ctx context.Context, plan result.LimitsPlan) (limits []result.DeviceLimits, err error) {
	var devices []llama.Device
	e.do(func() { devices, err = e.limited(plan) })
	if err != nil {
		return nil, &bench.CodedError{Code: Code(err), Err: err}
	}
	for _, d := range devices {
		m, err := e.limitsOf(ctx, d, plan)
		if err != nil {
			return nil, fmt.Errorf("limits of %s: %w", d.Name, translate(err))
		}
		limits = append(limits, m)
	}
	return limits, nil
}

// limited are the devices whose limits a plan wants.
func (e *Engine) limited(plan result.LimitsPlan) ([]llama.Device, error) {
	all := llama.Devices()
	named := func(name string) (found []llama.Device) {
		for _, d := range all {
			if d.Name == name {
				return []llama.Device{d}
			}
		}
		return nil
	}
	var devices []llama.Device
	for _, name := range plan.Devices {
		d := named(name)
		if d == nil {
			var known []string
			for _, d := range all {
				known = append(known, d.Name)
			}
			return nil, fmt.Errorf("%w called %q; there are: %s", ErrNoDevice, name, strings.Join(known, ", "))
		}
		devices = append(devices, d...)
	}
	if len(plan.Devices) > 0 {
		return devices, nil
	}
	if e.job.Settings.Offloads() {
		devices = offloadDevices(e.job.Settings)
	}
	if len(devices) == 0 || plan.CPU {
		i := slices.IndexFunc(all, func(d llama.Device) bool { return d.Type == llama.CPUDevice })
		devices = slices.Insert(devices, 0, all[i]) // LoadBackends fails without a CPU
	}
	return devices, nil
}

// limitsOf measures one device.
func (e *Engine) limitsOf(ctx context.Context, d llama.Device, plan result.LimitsPlan) (result.DeviceLimits, error) {
	start := time.Now()
	_, tp, err := contextParams(e.job.Settings, result.Test{Gen: 1})
	if err != nil {
		return result.DeviceLimits{}, err
	}
	m := measurement{device: d, start: start, bytes: plan.Bytes}
	m.limits = result.DeviceLimits{Device: d.Name, Description: d.Description}
	m.onCPU = d.Type == llama.CPUDevice
	rows := roofline.Rows(!m.onCPU && !software(d), tp.Threads)
	if m.onCPU {
		m.limits.Threads, m.limits.CacheBytes = tp.Threads, plan.CacheBytes
	} else if !software(d) {
		m.bytes = roofline.GPUBytes
		if d.MemoryFreeBytes > 0 {
			m.bytes = min(m.bytes, d.MemoryFreeBytes/4)
		}
	}
	e.do(func() {
		m.roof, err = llama.NewRoofline(llama.RooflineParams{Device: d.Name, Threads: tp, NoRepack: e.job.Settings.NoRepack})
	})
	if err != nil {
		return m.limits, err
	}
	stop := context.AfterFunc(ctx, m.roof.Abort)
	e.do(func() {
		if err = m.prepare(plan.Types, rows); err == nil {
			err = m.measure(ctx)
		}
		for _, w := range m.weights {
			w.Release()
		}
	})
	stop()
	e.do(func() { err = errors.Join(err, m.roof.Close()) })
	m.limits.Elapsed = time.Since(start)
	return m.limits, err
}

// measurement is that of one device. All its methods run on the engine's thread.
type measurement struct {
	device  llama.Device
	onCPU   bool
	start   time.Time
	bytes   uint64 // of all weights
	roof    *llama.Roofline
	weights []*llama.RooflineWeights // of the types that can be measured
	counts  []int                    // of their matrices
	types   []int                    // their places in limits.Types
	limits  result.DeviceLimits
}

// prepare makes the weights.
func (m *measurement) prepare(types []string, rows int) error {
	rng := rand.New(rand.NewPCG(1, 2))
	const tile = 16 // rows of different content
	values := make([]float32, tile*roofline.Columns)
	for i := range values {
		values[i] = float32(rng.NormFloat64() / 50)
	}
	for _, name := range types {
		limits := result.TypeLimits{Type: name}
		t, err := gguf.ParseType(name)
		if err != nil {
			return err
		}
		data, err := llama.Quantize(int32(t), values, roofline.Columns)
		if err != nil {
			return err
		}
		n := roofline.Matrices(t, rows, m.bytes/uint64(len(types)))
		w, err := m.roof.Weights(int32(t), rows, roofline.Columns, n, data)
		switch {
		case errors.Is(err, llama.ErrNotMultiplied):
			limits.Reason = err.Error()
		case err != nil:
			return err
		default:
			limits.Buffer = w.Buffer()
			m.weights, m.counts, m.types = append(m.weights, w), append(m.counts, n), append(m.types, len(m.limits.Types))
			m.limits.WeightsBytes += w.Bytes(n)
		}
		m.limits.Types = append(m.limits.Types, limits)
	}
	return nil
}

// measure times the passes. Weights of all types take turns. So each pass finds other
// weights in the caches.
func (m *measurement) measure(ctx context.Context) error {
	best := func(rate *float64, amount float64, elapsed time.Duration) {
		*rate = max(*rate, amount/max(elapsed, 1).Seconds())
	}
	for n := 0; len(m.weights) > 0 && roofline.VectorPasses.More(n, time.Since(m.start)); n++ {
		for i, w := range m.weights {
			elapsed, err := w.Multiply(m.counts[i], 1)
			if err != nil {
				return err
			}
			best(&m.limits.Types[m.types[i]].VectorBytesPerSecond, float64(w.Bytes(m.counts[i])), elapsed)
		}
		if !m.onCPU {
			continue
		}
		var read uint64
		var elapsed time.Duration
		for i, w := range m.weights {
			each, err := w.Read()
			if err != nil {
				return err
			}
			read, elapsed = read+w.Bytes(m.counts[i]), elapsed+each
		}
		best(&m.limits.ReadBytesPerSecond, float64(read), elapsed)
	}
	sizes := make([]int, len(m.weights)) // matrices of a pass
	for n := 0; len(m.weights) > 0 && roofline.MatrixPasses.More(n, time.Since(m.start)); n++ {
		for i, w := range m.weights {
			sizes[i] = max(sizes[i], 1)
			elapsed, err := w.Multiply(sizes[i], result.MatrixColumns)
			if err != nil {
				return err
			}
			best(&m.limits.Types[m.types[i]].MatrixOpsPerSecond, w.Ops(sizes[i], result.MatrixColumns), elapsed)
			if n == 0 { // the first tells how many matrices a pass needs
				sizes[i] = min(max(int(roofline.MatrixPass/max(elapsed, 1)), 1), m.counts[i])
			}
		}
	}
	return ctx.Err()
}
