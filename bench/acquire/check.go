package acquire

import (
	"fmt"
	"log/slog"
	"regexp"
	"slices"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/fetch"
	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// checkFile refuses a model file of which the library can run no test.
func checkFile(file fetch.File) error {
	if err := file.Header.CheckFile(); err != nil {
		return fmt.Errorf("%s: %w", file.Path, err)
	}
	return nil
}

// checkTests marks the tests that the library cannot run with the model.
func checkTests(job *bench.Job, header *gguf.File) {
	job.Tests = slices.Clone(job.Tests)
	for i := range job.Tests {
		settings := job.For(job.Tests[i].Test)
		if err := header.CheckTest(job.Tests[i].Test, settings.Batch, settings.UBatch); err != nil {
			job.Tests[i].Unsupported = err.Error()
		}
	}
}

// unmapped are the load modes that map a file, and for each the one that does the same
// without.
var unmapped = map[string]string{"auto": "none", "mmap": "none", "mmap+mlock": "mlock"}

// loadUnmapped changes the load mode of a file that the library cannot map. Mapping it
// would end the worker.
func loadUnmapped(job *bench.Job, header *gguf.File, files int) {
	settings := job.Effective()
	mode, mapped := unmapped[settings.LoadMode]
	if job.Model.Weights != result.FileWeights || !mapped || header.Mappable(files) {
		return
	}
	w := result.Warning{
		Code:    result.WarnLoadMode,
		Message: fmt.Sprintf("load mode %s instead of %s, because the file's tensors are aligned to %s and cannot be mapped", mode, settings.LoadMode, result.Count(int(header.Alignment), "byte")),
	}
	settings.LoadMode = mode
	job.Adjusted = &settings
	job.Warn(w)
	slog.Warn(w.Message, "model", job.Model.Name, "warning", w.Code)
}

// The numbers of tensors that are sampled. Files that were just read into memory cost
// microseconds for each. A disk needs up to 10 ms for each sample.
const (
	warmSamples = 1 << 10
	coldSamples = 2
)

// warnOfGaps warns of a model file with a good header whose weights were never written.
// Such a model runs, and its speed looks like that of a complete one. warm tells whether
// the files are in memory.
func warnOfGaps(job *bench.Job, header *gguf.File, paths []string, warm bool) {
	if job.Model.Weights != result.FileWeights || header == nil || len(paths) == 0 {
		return
	}
	samples := coldSamples
	if warm {
		samples = warmSamples
	}
	gaps, err := fetch.FindGaps(paths, header, samples)
	if err != nil {
		slog.Debug("cannot look for gaps in a model file", "model", job.Model.Name, "reason", err)
		return
	}
	if gaps.String() == "" {
		return
	}
	w := result.Warning{Code: result.WarnEmptyWeights, Message: "the model file seems incomplete: " + gaps.String()}
	job.Warn(w)
	slog.Warn(w.Message, "model", job.Model.Name, "warning", w.Code)
}

// checkOverrides refuses an override of tensors that matches none: the library would
// ignore it, and the record would name it.
func checkOverrides(s bench.Settings, header *gguf.File) error {
	for _, o := range s.TensorOverrides {
		pattern, err := regexp.Compile(o.Pattern)
		if err != nil {
			return fmt.Errorf("override of tensors %q: %w", o.Pattern, err)
		}
		if !slices.ContainsFunc(header.Tensors, func(t gguf.Tensor) bool { return pattern.MatchString(t.Name) }) {
			return fmt.Errorf("no tensor matches the override %s=%s", o.Pattern, o.Buffer)
		}
	}
	return nil
}
