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
// is an estimate. Vulkan's has no libraries, but it unpacks weights into scratch space.
func beside(d llama.Device) uint64 {
	if d.Backend == "Vulkan" {
		return 128 << 20
	}
	return 256 << 20
}

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
			need += beside(d)
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

// offloadDevices are the devices besides the CPU across which a model is spread: those
// that the settings name, else that whyUnused does not leave out.
func offloadDevices(s bench.Settings) []llama.Device {
	used, _ := choose(s)
	return used
}

// choose returns the devices besides the CPU that the settings use, in the library's
// order or the settings', and the others with the reason.
func choose(s bench.Settings) (used []llama.Device, unused []result.UnusedDevice) {
	all := slices.DeleteFunc(llama.Devices(), func(d llama.Device) bool {
		return d.Type != llama.GPUDevice && d.Type != llama.IntegratedDevice
	})
	if len(s.Devices) > 0 {
		for _, name := range s.Devices {
			for _, d := range all {
				if d.Name == name {
					used = append(used, d)
				}
			}
		}
		if slices.Equal(s.Devices, []string{bench.NoDevice}) {
			return used, nil // single operations may still run on one
		}
	} else {
		used = slices.DeleteFunc(slices.Clone(all), func(d llama.Device) bool { return whyUnused(d, all) != "" })
	}
	for _, d := range all {
		if slices.ContainsFunc(used, func(u llama.Device) bool { return u.Name == d.Name }) {
			continue
		}
		reason := "the settings name other devices"
		if len(s.Devices) == 0 {
			reason = whyUnused(d, all)
		}
		unused = append(unused, result.UnusedDevice{Name: d.Name, Model: d.Description, Reason: reason})
	}
	return used, unused
}

func unusedDevices(s bench.Settings) []result.UnusedDevice {
	_, unused := choose(s)
	return unused
}

// whyUnused says why a device is not used by default; empty: it is used. A GPU that two
// back-ends list is used by the back-end of its maker. The rule for integrated GPUs is
// the library's (llama_prepare_model_devices). Software devices are used by name only.
func whyUnused(d llama.Device, all []llama.Device) string {
	if software(d) {
		return "it computes on the CPU; --device " + d.Name + " uses it"
	}
	if d.Backend == "Vulkan" {
		for _, o := range all {
			if !sameGPU(o, d) {
				continue
			}
			at := strings.ToLower(d.ID)
			if o.ID == "" || at == "" {
				at = "by its name"
			}
			return "it is " + o.Name + " (" + at + "), which " + o.Backend + " uses"
		}
	}
	if d.Type == llama.IntegratedDevice {
		for _, o := range all {
			if o.Type == llama.GPUDevice && whyUnused(o, all) == "" {
				return "it is integrated, and there is another GPU"
			}
		}
	}
	return ""
}

// sameGPU tells whether two devices of this machine that different back-ends list are one
// GPU: by PCI address, else, if one of them has none, by name. ggml gives no UUID.
func sameGPU(a, b llama.Device) bool {
	if a.Backend == b.Backend || a.Backend == "RPC" || b.Backend == "RPC" {
		return false
	}
	if a.ID != "" && b.ID != "" {
		return strings.EqualFold(a.ID, b.ID)
	}
	return names(a.Description, b.Description) || names(b.Description, a.Description)
}

// names tells whether a device's description has the name of a GPU. Vulkan drivers put
// their own name around it: "AMD Radeon RX 7900 XTX (RADV NAVI31)", "Microsoft Direct3D12
// (NVIDIA L4)".
func names(description, gpu string) bool {
	before, after, ok := strings.Cut(description, gpu)
	return ok && gpu != "" && (before == "" || strings.HasSuffix(before, "(")) && (after == "" || after[0] == ')' || strings.HasPrefix(after, " ("))
}

// software tells whether a device is a Vulkan driver that computes on the CPU, by the
// names that Mesa's and Google's give themselves.
func software(d llama.Device) bool {
	return d.Backend == "Vulkan" && (strings.HasPrefix(d.Description, "llvmpipe") || strings.HasPrefix(d.Description, "SwiftShader"))
}

// chosen are the settings' devices with the default spelt out if it is not the
// library's own: nil leaves the choice to the library, NoDevice is none.
func chosen(s bench.Settings) []string {
	if len(s.Devices) > 0 || len(unusedDevices(s)) == 0 {
		return s.Devices
	}
	if used := offloadDevices(s); len(used) > 0 {
		return deviceNames(used)
	}
	return []string{bench.NoDevice}
}

// softwareDevices warns of devices in use that are none.
func softwareDevices(s bench.Settings) (w []result.Warning) {
	for _, d := range offloadDevices(s) {
		if software(d) && s.Offloads() {
			w = append(w, result.Warning{Code: result.WarnSoftwareGPU, Message: fmt.Sprintf("%s (%s) is no GPU: its driver computes on the CPU", d.Name, d.Description)})
		}
	}
	return w
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
