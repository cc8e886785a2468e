//go:build gollama

package main

import "testing"

func TestMeasure(t *testing.T) {
	for _, tc := range []struct {
		name        string
		prompt, gen int
	}{{"pp", 32, 0}, {"one token", 1, 0}, {"tg", 0, 8}} {
		t.Run(tc.name, func(t *testing.T) {
			m, err := measure(options{model: modelFile, prompt: tc.prompt, gen: tc.gen, threads: 1, batch: 16, repetitions: 3})
			if err != nil {
				t.Fatal(err)
			}
			if m.Prompt != tc.prompt || m.Gen != tc.gen || len(m.SamplesNS) != 3 || m.EvalUS <= 0 {
				t.Errorf("%+v", m)
			}
			var total int64
			for _, ns := range m.SamplesNS {
				total += ns
			}
			whole := float64(total) / 3e3 / float64(tc.prompt+tc.gen)
			if inside := m.TokenizeUS + m.EvalUS + m.SampleUS + m.PieceUS; inside > whole {
				t.Errorf("the parts are more than the whole, %g µs: %+v", whole, m)
			}
			if tc.gen > 0 && (m.SampleUS <= 0 || m.PieceUS <= 0 || m.CallbackUS <= 0 || m.Allocations < 1) {
				t.Errorf("a part of generation is missing: %+v", m)
			}
			if tc.prompt > 0 && m.TokenizeUS <= 0 {
				t.Errorf("a part of evaluation is missing: %+v", m)
			}
		})
	}
}

func TestMeasureRefuses(t *testing.T) {
	good := options{model: modelFile, prompt: 8, threads: 1, batch: 8, repetitions: 1}
	for _, tc := range []struct {
		name   string
		change func(*options)
	}{
		{"no test", func(o *options) { o.prompt = 0 }},
		{"two tests", func(o *options) { o.gen = 8 }},
		{"negative", func(o *options) { o.gen = -8 }},
		{"longer than Eval takes", func(o *options) { o.prompt = 513 }},
		{"no threads", func(o *options) { o.threads = 0 }},
		{"no repetitions", func(o *options) { o.repetitions = 0 }},
		{"no model", func(o *options) { o.model = "not-existing" }},
	} {
		o := good
		tc.change(&o)
		if m, err := measure(o); err == nil {
			t.Errorf("%s: %+v", tc.name, m)
		}
	}
}
