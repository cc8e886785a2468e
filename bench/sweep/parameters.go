package sweep

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/suite"
)

// UnknownWordError is a value that is not one of Allowed.
type UnknownWordError struct {
	Word    string
	Allowed []string
}

func (e *UnknownWordError) Error() string { return fmt.Sprintf("unknown value %q", e.Word) }

// Unknown returns the word and those that are allowed.
func (e *UnknownWordError) Unknown() (word string, allowed []string) { return e.Word, e.Allowed }

// New returns the parameters with the values of settings, in llama-bench's order, the
// outermost first.
func New(s bench.Settings) *Parameters {
	p := &Parameters{all: []*List{
		number("fit-target", "-fitt", "MiB", s.FitTargetMiB, func(s *bench.Settings, n int) { s.FitTargetMiB = n }).ofLoad(),
		number("fit-ctx", "-fitc", "tokens", s.FitMinCtx, func(s *bench.Settings, n int) { s.FitMinCtx = n }).ofLoad(),
		number("n-gpu-layers", "-ngl", "layers", s.GPULayers, func(s *bench.Settings, n int) { s.GPULayers = n }).ofLoad(),
		number("n-cpu-moe", "-ncmoe", "layers", s.CPUMoE, func(s *bench.Settings, n int) { s.CPUMoE = n }).ofLoad(),
		words("split-mode", "-sm", s.SplitMode, bench.SplitModes, func(s *bench.Settings, w string) { s.SplitMode = w }).ofLoad(),
		words("load-mode", "-lm", s.LoadMode, bench.LoadModes, func(s *bench.Settings, w string) { s.LoadMode = w }).ofLoad(),
		words("lazy-mode", "-lzm", s.LazyMode, bench.LazyModes, func(s *bench.Settings, w string) { s.LazyMode = w }).ofLoad(),
		number("main-gpu", "-mg", "index", s.MainGPU, func(s *bench.Settings, n int) { s.MainGPU = n }).ofLoad(),
		list("device", "-dev", "devices", devices).ofLoad(),
		list("tensor-split", "-ts", "shares", shares).ofLoad(),
		list("override-tensor", "-ot", "overrides", overrides).ofLoad(),
		bits("no-host", "--no-host", func(s *bench.Settings, on bool) { s.NoHost = on }).ofLoad(),
		bits("no-repack", "--no-repack", func(s *bench.Settings, on bool) { s.NoRepack = on }).ofLoad(),
		bits("embeddings", "-embd", func(s *bench.Settings, on bool) { s.Embeddings = on }),
		bits("no-op-offload", "-nopo", func(s *bench.Settings, on bool) { s.NoOpOffload = on }),
		number("batch-size", "-b", "tokens", s.Batch, func(s *bench.Settings, n int) { s.Batch = n }),
		number("ubatch-size", "-ub", "tokens", s.UBatch, func(s *bench.Settings, n int) { s.UBatch = n }),
		words("cache-type-k", "-ctk", s.TypeK, bench.KVTypes, func(s *bench.Settings, w string) { s.TypeK = w }),
		words("cache-type-v", "-ctv", s.TypeV, bench.KVTypes, func(s *bench.Settings, w string) { s.TypeV = w }),
		bits("no-kv-offload", "-nkvo", func(s *bench.Settings, on bool) { s.NoKVOffload = on }),
		list("flash-attn", "-fa", "mode", flash),
		number("threads", "-t", "number", s.Threads, func(s *bench.Settings, n int) { s.Threads = n }),
		number("threads-batch", "-tb", "number", s.ThreadsBatch, func(s *bench.Settings, n int) { s.ThreadsBatch = n }),
		list("cpu-mask", "-C", "mask", masks),
		bits("cpu-strict", "--cpu-strict", func(s *bench.Settings, on bool) { s.CPUStrict = on }),
		number("poll", "--poll", "level", s.Poll, func(s *bench.Settings, n int) { s.Poll = n }),
	}}
	p.List("poll").innermost = true
	p.List("flash-attn").values = []value{{"on", func(s *bench.Settings) { s.FlashAttn = 1 }}}
	return p
}

func (l *List) ofLoad() *List {
	l.load = true
	return l
}

// list is a parameter whose default sets nothing.
func list(flag, name, kind string, parse func(string) ([]value, error)) *List {
	return &List{Flag: flag, name: name, kind: kind, parse: parse, values: []value{{"", func(*bench.Settings) {}}}}
}

// number is a parameter with whole numbers.
func number(flag, name, kind string, standard int, set func(*bench.Settings, int)) *List {
	of := func(n int) value { return value{strconv.Itoa(n), func(s *bench.Settings) { set(s, n) }} }
	l := list(flag, name, kind, func(text string) (values []value, err error) {
		for item := range strings.SplitSeq(text, ",") {
			numbers, err := parseNumbers(strings.TrimSpace(item))
			if err != nil {
				return nil, err
			}
			for _, n := range numbers {
				values = append(values, of(n))
			}
		}
		return values, nil
	})
	l.values = []value{of(standard)}
	return l
}

// negative is a negative number, which is no range.
var negative = regexp.MustCompile(`^-\d+$`)

// parseNumbers reads a number, or a range in the syntax of lengths.
func parseNumbers(item string) ([]int, error) {
	if item == "" {
		return nil, errors.New("a value of the list is empty")
	}
	if n, err := strconv.Atoi(item); err == nil || negative.MatchString(item) {
		if err != nil || n > math.MaxInt32 || n < math.MinInt32 {
			return nil, fmt.Errorf("%q is too large", item)
		}
		return []int{n}, nil
	}
	if !strings.ContainsAny(item, "0123456789") {
		return nil, fmt.Errorf("%q is not a whole number", item)
	}
	return suite.ParseLengths(item)
}

// words is a parameter with words.
func words(flag, name, standard string, allowed []string, set func(*bench.Settings, string)) *List {
	of := func(w string) value { return value{w, func(s *bench.Settings) { set(s, w) }} }
	kind := "mode"
	if strings.HasPrefix(flag, "cache-type") {
		kind = "type"
	}
	l := list(flag, name, kind, func(text string) (values []value, err error) {
		for word := range strings.SplitSeq(text, ",") {
			if !slices.Contains(allowed, word) {
				return nil, &UnknownWordError{word, allowed}
			}
			values = append(values, of(word))
		}
		return values, nil
	})
	l.values = []value{of(standard)}
	return l
}

// bits is a parameter with 0 or 1.
func bits(flag, name string, set func(*bench.Settings, bool)) *List {
	of := func(on bool) value {
		text := "0"
		if on {
			text = "1"
		}
		return value{text, func(s *bench.Settings) { set(s, on) }}
	}
	l := list(flag, name, "bool", func(text string) (values []value, err error) {
		for bit := range strings.SplitSeq(text, ",") {
			on, err := strconv.ParseBool(bit)
			if err != nil {
				return nil, fmt.Errorf("%q is neither 1 nor 0", bit)
			}
			values = append(values, of(on))
		}
		return values, nil
	})
	l.values = []value{of(false)}
	return l
}

// flash reads modes of flash attention. llama-bench's other words are those of its
// arguments that are true or false.
func flash(text string) (values []value, err error) {
	names := map[int]string{1: "on", 0: "off", -1: "auto"}
	for word := range strings.SplitSeq(text, ",") {
		switch word {
		case "enabled", "true":
			word = "on"
		case "disabled", "false":
			word = "off"
		}
		n, err := bench.ParseFlashAttn(word)
		if err != nil {
			return nil, &UnknownWordError{word, bench.FlashModes}
		}
		values = append(values, value{names[n], func(s *bench.Settings) { s.FlashAttn = n }})
	}
	return values, nil
}

// devices reads combinations of devices, each separated by slashes.
func devices(text string) (values []value, err error) {
	for combination := range strings.SplitSeq(text, ",") {
		names := strings.Split(combination, "/")
		for i, name := range names {
			if name == "" {
				return nil, fmt.Errorf("%q has a device without a name", text)
			}
			if slices.Contains(names[:i], name) {
				return nil, fmt.Errorf("device %s is named twice", name)
			}
		}
		values = append(values, value{combination, func(s *bench.Settings) {
			if s.Devices = names; combination == "auto" {
				s.Devices = nil
			}
		}})
	}
	return values, nil
}

// shares reads combinations of shares of devices, each separated by slashes.
func shares(text string) (values []value, err error) {
	for combination := range strings.SplitSeq(text, ",") {
		var parts []float32
		var sum float64
		for part := range strings.SplitSeq(strings.ReplaceAll(combination, ";", "/"), "/") {
			share, err := strconv.ParseFloat(part, 32)
			switch {
			case err != nil || math.IsNaN(share) || math.IsInf(share, 0):
				return nil, fmt.Errorf("%q is not a number", part)
			case share < 0:
				return nil, fmt.Errorf("%s is negative", part)
			}
			parts, sum = append(parts, float32(share)), sum+share
		}
		if sum == 0 && len(parts) > 1 {
			return nil, errors.New("every share is 0")
		}
		if sum == 0 { // llama-bench's default
			parts = nil
		}
		values = append(values, value{combination, func(s *bench.Settings) { s.TensorSplit = parts }})
	}
	return values, nil
}

// overrides reads groups of overrides of tensors, PATTERN=BUFFER;PATTERN=BUFFER each. An
// empty group overrides nothing.
func overrides(text string) (values []value, err error) {
	for group := range strings.SplitSeq(text, ",") {
		var all []bench.TensorOverride
		for item := range strings.SplitSeq(group, ";") {
			if item == "" {
				continue
			}
			pattern, buffer, ok := strings.Cut(item, "=")
			if !ok || pattern == "" || buffer == "" {
				return nil, fmt.Errorf("%q is not a pattern and a buffer type, as exps=CPU", item)
			}
			if _, err := regexp.Compile(pattern); err != nil {
				return nil, fmt.Errorf("%q is not a regular expression", pattern)
			}
			all = append(all, bench.TensorOverride{Pattern: pattern, Buffer: buffer})
		}
		values = append(values, value{group, func(s *bench.Settings) { s.TensorOverrides = all }})
	}
	return values, nil
}

// maxCPU is the largest number of a CPU in a mask: the library's limit of threads.
const maxCPU = 512

// masks reads masks of CPUs, as 0x3.
func masks(text string) (values []value, err error) {
	for mask := range strings.SplitSeq(text, ",") {
		digits := strings.TrimPrefix(strings.ToLower(mask), "0x")
		var cpus []int
		for i := range digits {
			bits, err := strconv.ParseUint(digits[len(digits)-1-i:len(digits)-i], 16, 8)
			if err != nil {
				return nil, fmt.Errorf("%q is not a hexadecimal number such as 0x3", mask)
			}
			for b := range 4 {
				if bits>>b&1 == 1 {
					cpus = append(cpus, 4*i+b)
				}
			}
		}
		if digits == "" || len(cpus) > 0 && cpus[len(cpus)-1] >= maxCPU {
			return nil, fmt.Errorf("%q is not a mask of at most %d CPUs, such as 0x3", mask, maxCPU)
		}
		values = append(values, value{mask, func(s *bench.Settings) { s.CPUs = cpus }})
	}
	return values, nil
}
