package acquire

import (
	"fmt"
	"log/slog"
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
	settings := job.Effective()
	job.Tests = slices.Clone(job.Tests)
	for i := range job.Tests {
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
