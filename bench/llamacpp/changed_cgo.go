//go:build cgo

package llamacpp

import (
	"fmt"
	"strconv"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/llama"
)

// loadMode is the load mode that the library used. It is empty, without a warning, if it
// is the one that was asked for.
func loadMode(asked string, changes []llama.Change) (used string, w []result.Warning) {
	for _, c := range changes {
		why := ""
		switch {
		case c.Kind == llama.NotLocked && asked == "mlock":
			used, why = "none", "memory cannot be locked"
		case c.Kind == llama.NotLocked && asked == "mmap+mlock":
			used, why = "mmap", "memory cannot be locked"
		case c.Kind == llama.NotDirect && asked == "dio":
			used, why = "none", "the file system does not read the file directly"
		default:
			continue
		}
		w = append(w, result.Warning{
			Code:    result.WarnLoadMode,
			Message: fmt.Sprintf("load mode %s instead of %s, because %s: %s", used, asked, why, c.Why),
		})
	}
	return used, w
}

// contextFacts are the facts about a context for which settings were asked.
func contextFacts(asked bench.Settings, changes []llama.Change) (f bench.ContextFacts) {
	for _, c := range changes {
		if c.Kind != llama.FlashIsOff || asked.FlashAttn == 0 {
			continue
		}
		f.FlashAttn = new(int)
		f.Warnings = append(f.Warnings, result.Warning{
			Code:    result.WarnFlashAttn,
			Message: "the library turned flash attention off: " + c.Why,
		})
	}
	return f
}

// teamSize is the number of threads that compute if threads are asked for: libgomp makes
// its teams no larger than a limit of the environment, and ggml's CPU back-end computes
// with the team that it gets. The warning is nil if the limit does not matter.
func teamSize(threads int, getenv func(string) string) (used int, w *result.Warning) {
	const variable = "OMP_THREAD_LIMIT"
	limit, err := strconv.Atoi(getenv(variable))
	if err != nil || limit < 1 || limit >= threads {
		return threads, nil
	}
	return limit, &result.Warning{
		Code:    result.WarnThreads,
		Message: fmt.Sprintf("%s instead of %d, because of the environment variable %s", result.Count(limit, "thread"), threads, variable),
	}
}
