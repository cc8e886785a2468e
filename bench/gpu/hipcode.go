package gpu

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// noHIP is the environment that hides all devices from HIP. See "GPU isolation" of
// ROCm's documentation.
var noHIP = []string{"HIP_VISIBLE_DEVICES=-1"}

// gfxOverride is the variable that makes ROCm run another GPU's code on a GPU.
const gfxOverride = "HSA_OVERRIDE_GFX_VERSION"

// gfxTargets returns the code targets of AMD's GPUs, such as "gfx1030", by PCI address.
// They are in the topology of the kernel's compute driver (amdkfd).
func gfxTargets(root string) map[string]string {
	targets := make(map[string]string)
	for _, file := range glob(root, "sys/class/kfd/kfd/topology/nodes/*/properties") {
		text := readText(file)
		value := func(key string) uint64 {
			n, err := strconv.ParseUint(field(text, key+" "), 10, 64)
			if err != nil {
				return 0
			}
			return n
		}
		version, at := value("gfx_target_version"), value("location_id")
		if version == 0 {
			continue // a CPU
		}
		address := fmt.Sprintf("%04x:%02x:%02x.%x", value("domain"), at>>8&0xff, at>>3&0x1f, at&7)
		targets[address] = fmt.Sprintf("gfx%d%x%x", version/10000, version/100%100, version%100)
	}
	return targets
}

// The format of a bundle of code objects. See "Bundled Binary File Layout" of clang's
// ClangOffloadBundler.
const (
	bundleSection = ".hip_fatbin"
	bundleMagic   = "__CLANG_OFFLOAD_BUNDLE__"
	bundleHeader  = 64 << 10 // enough for the names of all targets
	bundleEntry   = 24       // offset, size and length of the name, 8 bytes each
)

var errBundle = errors.New("unknown format of HIP code")

// readHIPTargets returns the targets that a HIP library has code for, by its first bundle:
// all are compiled for the same targets.
func readHIPTargets(path string) ([]string, error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s := f.Section(bundleSection)
	if s == nil {
		return nil, result.AtPath(path, errBundle)
	}
	b := make([]byte, min(s.Size, bundleHeader))
	if _, err := s.ReadAt(b, 0); err != nil {
		return nil, err
	}
	targets, err := readBundle(b)
	if err != nil {
		return nil, result.AtPath(path, err)
	}
	return targets, nil
}

func readBundle(b []byte) (targets []string, err error) {
	rest, ok := strings.CutPrefix(string(b), bundleMagic)
	if !ok || len(rest) < 8 {
		return nil, errBundle // a compressed bundle, for example
	}
	n := binary.LittleEndian.Uint64([]byte(rest[:8]))
	rest = rest[8:]
	for range min(n, 1000) {
		if len(rest) < bundleEntry {
			return nil, errBundle
		}
		length := binary.LittleEndian.Uint64([]byte(rest[16:bundleEntry]))
		if rest = rest[bundleEntry:]; length > uint64(len(rest)) {
			return nil, errBundle
		}
		// "hipv4-amdgcn-amd-amdhsa--gfx90a:xnack-", "host-x86_64-unknown-linux-gnu"
		if _, target, ok := strings.Cut(rest[:length], "--gfx"); ok {
			target, _, _ = strings.Cut("gfx"+target, ":")
			if !slices.Contains(targets, target) {
				targets = append(targets, target)
			}
		}
		rest = rest[length:]
	}
	if len(targets) == 0 {
		return nil, errBundle
	}
	return targets, nil
}

// hipTargets reads the targets of the engine's HIP back-end; nil: not known.
func hipTargets(engine bench.EngineFacts) []string {
	if engine.HIPModule == "" || os.Getenv(gfxOverride) != "" {
		return nil
	}
	targets, err := readHIPTargets(engine.HIPModule)
	if err != nil {
		slog.Debug("HIP code of a library not read", "error", err)
	}
	return targets
}

// unusableHIP returns the HIP devices that the back-end has no code for, each with the
// reason. It has no code that runs on a similar GPU, so the first kernel would end the
// process.
func (m Machine) unusableHIP(gpus []bench.EngineGPU, targets []string) (names, reasons []string) {
	for _, g := range gpus {
		target := m.gfx[g.PCIAddress]
		if g.Backend != "ROCm" || target == "" || len(targets) == 0 || slices.Contains(targets, target) {
			continue
		}
		names = append(names, g.Name)
		reasons = append(reasons, fmt.Sprintf("%s (%s): the HIP back-end (%s) has no code for %s, only for %s; set %s if code for one of these runs on it",
			g.Name, g.Model, "libggml-hip.so", target, strings.Join(targets, ", "), gfxOverride))
	}
	return names, reasons
}
