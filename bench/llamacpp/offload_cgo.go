//go:build cgo

package llamacpp

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/llama"
)

// offload finds the largest number of layers that fits on devices together with
// the context of the job's longest test, and loads the model with that number.
//
// Only an allocation tells what fits: a device may report memory that it does not
// give. Each try makes a context for a model without weights to learn its size,
// reserves that much, and makes the library allocate the weights. No weight is read
// before both have succeeded. A bisection needs few tries. The methods run on the
// engine's thread.
//
// An allocation that ends the process costs a worker. The next worker tries half of the
// layers, then none (bench.OffloadLimit).
type offload struct {
	settings bench.Settings
	longest  result.Test
	largest  uint64 // bytes of the model's largest tensor
	limit    *bench.OffloadLimit
	devices  []llama.Device
	open     func(llama.ModelParams) (*llama.Model, error)
	tell     func(bench.Event)
}

// errFits ends a try that was made only to see whether the layers fit.
var errFits = errors.New("fits")

// load loads the model with as many layers on devices as fit. why says why it is
// not more; it is empty if all layers fit.
func (o *offload) load(p llama.ModelParams) (m *llama.Model, why string, err error) {
	of, err := o.layers(p)
	if err != nil {
		return nil, "", err
	}
	most := of
	if o.limit != nil {
		most = min(of, o.limit.Layers)
		why = fmt.Sprintf("with %d, %s", o.limit.Tried, o.limit.Reason)
	}
	// fits is the largest number known to fit, fails the smallest known not to. Zero
	// layers always fit.
	fits, fails := 0, most+1
	for n := most; ; n = (fits + fails) / 2 {
		o.tell(bench.OffloadTry{Layers: n, Of: of, Reason: why})
		whole := n == most || fails-fits == 1
		m, err := o.try(p, n, whole)
		switch {
		case errors.Is(err, errFits):
			fits = n
		case n > 0 && o.noRoom(err):
			fails, why = n, fmt.Sprintf("with %d, %v", n, err)
			if fits >= fails { // it fitted a moment ago
				fits = 0
			}
		default:
			return m, why, err
		}
	}
}

// layers is the number of layers that can be offloaded, including the output layer.
func (o *offload) layers(p llama.ModelParams) (int, error) {
	m, err := o.open(dry(p, 0))
	if err != nil {
		return 0, err
	}
	return m.Facts().Layers + 1, m.Close()
}

// dry changes p to a load that allocates nothing.
func dry(p llama.ModelParams, layers int) llama.ModelParams {
	p.NoAlloc, p.LoadMode, p.LazyMode, p.GPULayers = true, llama.LoadNone, llama.LazyOff, layers
	return p
}

// try loads the model with a number of layers on devices. Unless whole is set, it
// ends with errFits before any weight is read.
func (o *offload) try(p llama.ModelParams, layers int, whole bool) (*llama.Model, error) {
	p.GPULayers = layers
	if layers == 0 {
		return o.open(p)
	}
	free := make(map[string]uint64)
	for _, d := range llama.Devices() {
		free[d.Name] = d.MemoryFreeBytes
	}
	needs := o.needs(p, layers)
	var held []*llama.Reservation
	release := func() {
		for _, r := range held {
			r.Release()
		}
		held = nil
	}
	defer release()
	for _, d := range o.devices {
		if needs[d.Name] == 0 {
			continue
		}
		r, err := llama.Reserve(d.Name, needs[d.Name])
		if err != nil {
			return nil, fmt.Errorf("the context of %v: %w", o.longest, err)
		}
		held = append(held, r)
	}
	p.Allocated = func(a llama.Allocation) error {
		release()
		a = a.Spread(o.devices, o.settings.TensorSplit)
		for _, d := range o.devices {
			if need := a.SizeOn(d, "model") + needs[d.Name]; free[d.Name] > 0 && need > free[d.Name] {
				return fmt.Errorf("%w: weights and the context of %v take %s of %s, %s are free", llama.ErrOutOfMemory,
					o.longest, humanize.IBytes(need), d.Name, humanize.IBytes(free[d.Name]))
			}
		}
		if !whole {
			return errFits
		}
		return nil
	}
	return o.open(p)
}

// beside is the memory in bytes that a GPU's back-end takes while it computes and
// that the library does not count: handles of its libraries and scratch space. It
// is an estimate.
const beside = 256 << 20

// needs is the memory in bytes that the context of the longest test takes on each
// device. It is empty if the library refuses the context: the test then reports
// why.
func (o *offload) needs(p llama.ModelParams, layers int) map[string]uint64 {
	m, err := o.open(dry(p, layers))
	if err != nil {
		return nil
	}
	defer m.Close() //nolint:errcheck // no context is open
	cp, _, err := contextParams(o.settings, o.longest)
	if err != nil {
		return nil
	}
	cp.AnyThread = true // it computes nothing
	cp.Context = max(cp.Context, o.settings.FitMinCtx)
	c, err := m.NewContext(cp)
	if err != nil {
		return nil
	}
	a := c.Allocation().Spread(o.devices, o.settings.TensorSplit)
	_ = c.Close() // on its thread
	needs := make(map[string]uint64)
	for _, d := range o.devices {
		need := a.SizeOn(d, "compute") + a.Cache[d.Name]
		switch {
		case need == 0:
		case d.Backend == "RPC":
			need += o.largest // a server receives a tensor before it copies it to its place
		case d.Type == llama.GPUDevice:
			need += beside
		}
		needs[d.Name] = need + uint64(o.settings.FitTargetMiB)<<20
	}
	return needs
}

// noRoom reports whether a load failed because a device's memory is short. If the
// host's memory is short, fewer layers on devices would not help.
func (o *offload) noRoom(err error) bool {
	if !errors.Is(err, llama.ErrOutOfMemory) {
		return false
	}
	var refused *llama.LoadError
	if !errors.As(err, &refused) || refused.Buffer() == "" {
		return true
	}
	for _, d := range o.devices {
		if (llama.Buffer{Type: refused.Buffer()}).In(d) {
			return true
		}
	}
	return false
}

// offloadDevices are the devices besides the CPU across which the library spreads a
// model: those that the settings name, else all GPUs with memory of their own, else
// integrated GPUs.
func offloadDevices(s bench.Settings) []llama.Device {
	var named, cards, integrated []llama.Device
	for _, d := range llama.Devices() {
		switch d.Type {
		case llama.GPUDevice:
			cards = append(cards, d)
		case llama.IntegratedDevice:
			integrated = append(integrated, d)
		}
	}
	if len(s.Devices) == 0 {
		if len(cards) > 0 {
			return cards
		}
		return integrated
	}
	for _, name := range s.Devices {
		for _, d := range append(cards, integrated...) {
			if d.Name == name {
				named = append(named, d)
			}
		}
	}
	return named
}

// mostDevices is the largest number of devices across which the library spreads a
// model. With more it ends the process.
func mostDevices() int {
	most := llama.MaxOffloadDevices
	for _, d := range llama.Devices() {
		if d.Type == llama.AcceleratorDevice { // it counts besides the CPU
			most--
		}
	}
	return most
}

// limitDevices removes devices beyond mostDevices from the settings and returns
// those that remain, with a warning. It does nothing if there are few enough, or if
// one device alone is used.
func limitDevices(s *bench.Settings) (used []string, w []result.Warning) {
	devices, most := offloadDevices(*s), mostDevices()
	if len(devices) <= most || s.SplitMode == "none" {
		return nil, nil
	}
	used = deviceNames(devices[:most])
	s.Devices = used
	if len(s.TensorSplit) > most {
		s.TensorSplit = s.TensorSplit[:most]
	}
	return used, []result.Warning{{
		Code:    result.WarnDevicesLimited,
		Message: fmt.Sprintf("%d of %d devices used, the most that the library takes: %s to %s", most, len(devices), used[0], used[most-1]),
	}}
}

// count is a number with its noun, in the plural unless n is 1.
func count(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

func deviceNames(devices []llama.Device) []string {
	names := make([]string, len(devices))
	for i, d := range devices {
		names[i] = d.Name
	}
	return names
}

// checkDevices refuses settings that do not fit the devices of this machine.
func checkDevices(s bench.Settings) error {
	devices := offloadDevices(s)
	refuse := func(there []llama.Device, format string, args ...any) error {
		list := "there is none"
		if len(there) > 0 {
			list = fmt.Sprintf("there are %d: %s", len(there), strings.Join(deviceNames(there), ", "))
		}
		if len(there) == 1 {
			list = "there is 1: " + there[0].Name
		}
		return fmt.Errorf("%w: %s; %s", ErrDevices, fmt.Sprintf(format, args...), list)
	}
	for _, name := range s.Devices {
		if name == bench.NoDevice {
			break
		}
		if !slices.ContainsFunc(devices, func(d llama.Device) bool { return d.Name == name }) {
			return refuse(offloadDevices(bench.Settings{}), "nothing can be offloaded to %s", name)
		}
	}
	for _, d := range devices {
		if s.SplitMode == "row" && s.GPULayers != 0 && !d.SplitsRows {
			return refuse(devices, "split mode row on %s, whose back-end does not split rows (use split mode tensor)", d.Name)
		}
	}
	shares := s.TensorSplit
	if n := len(shares); n > 0 && n != len(devices) {
		return fmt.Errorf("%w: the tensor split has %s for %s: %s", ErrDevices,
			count(n, "share"), count(len(devices), "device"), cmp.Or(strings.Join(deviceNames(devices), ", "), "none"))
	}
	if most := mostDevices(); len(shares) > most && s.SplitMode != "none" && slices.Max(shares[:most]) == 0 {
		return refuse(devices, "a tensor split without a share for the first %d devices, the most that the library takes", most)
	}
	if s.MainGPU > 0 && s.MainGPU >= len(devices) {
		return refuse(devices, "there is no main GPU %d (counted from 0)", s.MainGPU)
	}
	return nil
}
