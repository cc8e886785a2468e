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
			if m.Prompt != tc.prompt || m.Gen != tc.gen || len(m.Repetitions) != 3 {
				t.Fatalf("%+v", m)
			}
			for i, r := range m.Repetitions {
				if r.EvalUS <= 0 {
					t.Errorf("repetition %d evaluates nothing: %+v", i, r)
				}
				whole := float64(r.NS) / 1e3 / float64(tc.prompt+tc.gen)
				if inside := r.TokenizeUS + r.EvalUS + r.SampleUS + r.PieceUS; inside > whole {
					t.Errorf("repetition %d: the parts are more than the whole, %g µs: %+v", i, whole, r)
				}
				if tc.gen > 0 && (r.SampleUS <= 0 || r.PieceUS <= 0 || r.CallbackUS <= 0 || r.Allocations < 1) {
					t.Errorf("repetition %d: a part of generation is missing: %+v", i, r)
				}
				if tc.prompt > 0 && r.TokenizeUS <= 0 {
					t.Errorf("repetition %d: a part of evaluation is missing: %+v", i, r)
				}
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
