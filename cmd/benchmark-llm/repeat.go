package main

import (
	"cmp"
	"time"

	"github.com/spf13/pflag"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/policy"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/suite"
	"github.com/sparecores/benchmark-llm/bench/supervise"
)

// repeatOptions are the flags of run that say how often tests are repeated, and what
// comes before.
type repeatOptions struct {
	set      *pflag.FlagSet
	until    string
	most     int
	mostTime time.Duration
	noWarmup bool
	warmups  int
	stable   bool
	coolDown string
}

func (o *repeatOptions) register(f *pflag.FlagSet) {
	o.set = f
	d := policy.DefaultUntil(0)
	inGroup(f, groupHow, func() {
		f.StringVar(&o.until, "until", "", "`precision` of the median speed, as 1%: repeat until it is reached, at least -r times")
		f.IntVar(&o.most, "max-repetitions", d.MaxRepetitions, "with --until: the largest `number` of repetitions of a test")
		f.DurationVar(&o.mostTime, "max-time", 0, "with --until: end a test when its repetitions have taken this `time` (default: its time limit)")
		f.BoolVar(&o.noWarmup, "no-warmup", false, "skip the untimed pass before the repetitions")
		f.IntVar(&o.warmups, "warmups", 1, "`number` of untimed passes before the repetitions, 0…100")
		f.BoolVar(&o.stable, "warmup-until-stable", false, "then warm up until two passes differ by at most 2 %")
		f.StringVar(&o.coolDown, "cool-down", "", "`time` to wait before each test, as 30s; or temperature: until it is back at its start")
	})
}

// job sets the fields of a job that the flags give.
func (o *repeatOptions) job(j *bench.Job) error {
	for _, flag := range []string{"max-repetitions", "max-time"} {
		if o.set.Changed(flag) && o.until == "" {
			return usage("--until 1% repeats until the median is known to ±1 %", "--%s needs --until", flag)
		}
	}
	if o.until != "" {
		within, err := policy.ParseWithin(o.until)
		if err != nil {
			return usage("try 1%, which stands for ±1 % of the median", "--until: %w", err)
		}
		u := policy.Until{Within: within, MaxRepetitions: o.most, MaxTime: o.mostTime}
		if err := u.Validate(); err != nil {
			return usage("--max-repetitions 100 is the default; --max-time 0s is no limit", "--until: %w", err)
		}
		j.Until = &u
	}
	if o.warmups < 0 || o.warmups > 100 {
		return usage("try 1, llama-bench's default", "--warmups: %d is outside 0…100", o.warmups)
	}
	if o.noWarmup && o.warmups > 1 {
		return usage("leave one of the two out", "--no-warmup and --warmups %d cannot be given together", o.warmups)
	}
	j.NoWarmup, j.WarmUntilStable = o.noWarmup || o.warmups == 0, o.stable
	if o.warmups > 1 {
		j.Warmups = o.warmups
	}
	if _, err := supervise.ParseCoolDown(cmp.Or(o.coolDown, "0s")); err != nil {
		return usage("try 30s, or temperature", "--cool-down: %w", err)
	}
	j.CoolDown = o.coolDown != ""
	return nil
}

// generated refuses tests that might generate more tokens than one may.
func (o *repeatOptions) generated(s suite.Suite, j *bench.Job) error {
	job := *j
	job.Repetitions = s.Repetitions
	for _, t := range s.Models[0].Tests {
		if n := job.MostRepetitions(); t.E2E && t.Gen > result.MaxGenerated/n {
			return usage("lower --max-repetitions", "%v: %d × %d generated tokens exceed the limit of %d per test", t, n, t.Gen, result.MaxGenerated)
		}
	}
	return nil
}
