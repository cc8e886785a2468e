package session_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/acquire"
	"github.com/sparecores/benchmark-llm/bench/fetch"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/session"
	"github.com/sparecores/benchmark-llm/bench/source"
	"github.com/sparecores/benchmark-llm/bench/suite"
)

// options are those of a run with synthetic weights on the CPU.
func options(t *testing.T) session.Options {
	o := session.Options{
		Job: bench.Job{Settings: bench.DefaultSettings(1)}, Weights: string(acquire.Synthetic), Scale: 1, ResultsDir: t.TempDir(),
		Finder: func(w acquire.Weights, dir string) acquire.Finder {
			return acquire.Finder{Client: new(fetch.Client), Dirs: acquire.DirsOf(dir), Weights: w}
		},
		CheckRPC: func(context.Context, []string) error { return nil },
	}
	o.Job.Settings.GPULayers = 0
	return o
}

// A resumed run has the settings of the run, not the defaults.
func TestResume(t *testing.T) {
	from, err := source.Parse("tiny.Q4_K_M.gguf")
	if err != nil {
		t.Fatal(err)
	}
	s := suite.Default()
	s.Models, s.GivenOrder = []suite.Entry{{Source: from, Name: from.Name(), Tests: []result.Test{{Prompt: 16}}}}, true
	o := options(t)
	o.Job.NoWarmup, o.Job.AllowCPU, o.Sampling = true, true, 7*time.Second
	o.Job.Prices = &result.Prices{Machine: &result.Price{PerHour: 0.5, Currency: "EUR"}, Electricity: &result.PowerPrice{PerKWh: 0.3}}
	r, err := session.New(t.Context(), s, o)
	if err != nil {
		t.Fatal(err)
	}
	r.Models.Close()
	r.Dir.Close() // as if the process was killed

	now := options(t)
	now.Job.Settings.GPULayers, now.Sampling, now.Weights = 99, time.Second, string(acquire.File)
	again, err := session.Resume(t.Context(), r.Dir.Path, now)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	type resumed struct {
		Weights                        string
		Layers                         int
		NoWarmup, AllowCPU, RequireGPU bool
		Sampling                       time.Duration
		Prices                         *result.Prices
	}
	got := resumed{again.Weights, again.Job.Settings.GPULayers, again.Models.Jobs()[0].NoWarmup, again.Job.AllowCPU, again.Job.RequireGPU, again.Sampling, again.Models.Jobs()[0].Prices}
	if diff := cmp.Diff(resumed{"synthetic", 0, true, true, false, 7 * time.Second, o.Job.Prices}, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
