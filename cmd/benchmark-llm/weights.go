package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/fetch"
	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/suite"
	"github.com/sparecores/benchmark-llm/bench/supervise"
)

// autoWeights is --weights auto: files where they are here or arrive in time,
// else generated weights. Records say which of the two it was.
const autoWeights = "auto"

// synthCode is the code of the warning that says why a file was not used.
const synthCode = "synthetic_weights"

// silentFor is the longest wait, with --weights auto, for a file whose server
// had not answered before the run, with all its retries.
const silentFor = 5 * time.Second

// askedWithin bounds the questions to servers before the first test: less where
// a model without an answer is measured all the same.
func (o *selectOptions) askedWithin() time.Duration {
	if o.auto() {
		return 10 * time.Second
	}
	return 30 * time.Second
}

// spare is what a model can be measured by if its file does not come.
type spare struct {
	path   string     // of its header; empty for a default model
	header *gguf.File // nil: not known yet
	silent bool       // its server did not answer
}

// outline is the header of a model whose weights are generated: a default model's
// shape, or what the header of any file says. path is where the worker finds it;
// empty for a default model.
func (o *selectOptions) outline(ctx context.Context, wanted *suite.Entry) (header *gguf.File, path string, err error) {
	shape, err := lookupShape(wanted.Name)
	if err != nil {
		if source, bad := fetch.ParseSource(wanted.Source); bad == nil && source.Local() && fileMissing(source.Path) {
			return nil, "", err // it can only have meant a default model
		}
		path, header, err = keepOutline(ctx, newClient(o.auto()), wanted.Source, o.headerDirs()...)
		return header, path, err
	}
	if header, err = shape.File(); err != nil {
		return nil, "", fail(exitModel, err, "")
	}
	return header, "", nil
}

// headerDirs are where headers are kept: beside model files, else, where these
// have no room, in the user's cache.
func (o *selectOptions) headerDirs() []string {
	dirs := []string{o.downloadDir()}
	if cache, err := os.UserCacheDir(); err == nil {
		dirs = append(dirs, filepath.Join(cache, "benchmark-llm", "models"))
	}
	return slices.Compact(dirs)
}

// spare gets what a model that is to be fetched can be measured by while its
// server can be asked. A failure is not one yet: the file may come.
func (o *selectOptions) spare(ctx context.Context, wanted *suite.Entry) spare {
	ctx, cancel := context.WithTimeout(ctx, o.askedWithin())
	defer cancel()
	header, path, err := o.outline(ctx, wanted)
	if err != nil {
		slog.Debug("no header to fall back on", "model", wanted.Name, "reason", err)
	}
	return spare{path: path, header: header}
}

// replace gives a candidate whose file cannot be had, because of why, generated
// weights. Repetitions that were measured with the file do not count. The error
// says that this cannot be done either: it is why's, with the reason.
func (o *selectOptions) replace(ctx context.Context, c *candidate, why error) error {
	header, path := c.spare.header, c.spare.path
	if header == nil {
		asking, cancel := context.WithTimeout(ctx, o.askedWithin())
		defer cancel()
		var err error
		if header, path, err = o.outline(asking, &c.wanted); err != nil {
			return notInstead(c.job, why, err)
		}
	}
	reason := fmt.Sprintf("the weights are synthetic, because the file could not be had: %v", why)
	if errors.As(why, new(*supervise.Missing)) { // said when the wait for it ended
		slog.Info("weights are generated", "model", c.wanted.Name)
	} else {
		slog.Warn("weights are generated", "model", c.wanted.Name, "reason", why)
	}
	c.header = header
	job := &c.job
	job.Model.Weights, job.Model.Path = result.SyntheticWeights, path
	job.Model.Words = job.E2E != nil
	job.Gentler = streamed(job.Settings)
	job.Warnings = append(slices.Clone(job.Warnings), result.Warning{Code: synthCode, Message: oneLine(reason)})
	job.Tests = slices.Clone(job.Tests)
	for i := range job.Tests {
		job.Tests[i].Done = nil
	}
	return nil
}

// notInstead is the error of a model that can be measured neither with its file,
// because of why, nor by its header.
func notInstead(job bench.Job, why, err error) error {
	var missing *supervise.Missing
	if errors.As(why, &missing) {
		return &supervise.Missing{Status: missing.Status, Reason: fmt.Sprintf("%s; nor is there a header to measure it by: %v", missing.Reason, err)}
	}
	return localFailure(job.Model.Name, why)
}

// streamed are settings for weights that are generated: a stream cannot be mapped.
func streamed(s bench.Settings) *bench.Settings {
	s.LoadMode = "none"
	return &s
}

// replacement is of a worker's warnings the one that holds for every worker of a
// model whose weights are generated.
func replacement(warnings []result.Warning) []result.Warning {
	return slices.DeleteFunc(slices.Clone(warnings), func(w result.Warning) bool { return w.Code != synthCode })
}
