package supervise

import (
	"time"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/suite"
)

// Judge is a stop policy as package bench asks for it.
func Judge(p suite.Policy) bench.Judge { return judge{p} }

type judge struct{ policy suite.Policy }

func (j judge) Before(p bench.Prospect) bench.Verdict {
	return bench.Verdict(j.policy.Before(history(p)))
}

func (j judge) During(p bench.Prospect) bench.Verdict {
	return bench.Verdict(j.policy.During(progress(p)))
}

func (j judge) Patience(p bench.Prospect) (time.Duration, bool) {
	return j.policy.Patience(progress(p))
}

func (j judge) After(status result.Status, shortest bool) bench.Consequence {
	switch suite.After(status, shortest) {
	case suite.EndGroup:
		return bench.EndGroup
	case suite.EndModels:
		return bench.EndModel
	default:
		return bench.Continue
	}
}

func history(p bench.Prospect) suite.History {
	h := suite.History{
		Test: p.Test, Budget: p.Budget, Setup: p.Setup, Repetitions: p.Repetitions, Warmup: p.Warmup, GPU: p.GPU,
	}
	for _, m := range p.Shorter {
		h.Shorter = append(h.Shorter, suite.Measured(m))
	}
	return h
}

func progress(p bench.Prospect) suite.Progress {
	return suite.Progress{History: history(p), Passes: p.Passes, InPass: p.InPass, Tokens: p.Tokens}
}
