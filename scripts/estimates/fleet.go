package main

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"

	"gonum.org/v1/gonum/mat"

	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/synth"
)

// seen is what this program reads of a server's results of one model.
type seen struct {
	Server   string `json:"server"`
	Model    string `json:"model"`
	LoadKind string `json:"load_kind"`
	CPUs     int    `json:"vcpus"`
	Cells    []struct {
		Kind    string  `json:"kind"`
		N       int     `json:"n"`
		Outcome string  `json:"outcome"`
		AvgTS   float64 `json:"avg_ts"`
	} `json:"cells"`
}

// The models of the fleet: two that predict the third.
var (
	small  = "qwen1_5-0_5b-chat-q4_k_m.gguf"
	middle = "gemma-2b.Q4_K_M.gguf"
	target = "llama-7b.Q4_K_M.gguf"
)

// server is the results of a server: the seconds of a token of each model.
type server struct {
	cpus                  int
	small, middle, target float64
}

// fleet compares two predictions of the target on all servers that measured it on a CPU.
//
// The plain one is log t = a + b·log(small) + c·log(middle), fitted to the target's own
// times on all servers. The other one knows no time of the target: on each server, time =
// a·layers + b·work, with both from the two smaller models. Layers cost time of their own,
// because all threads wait for each other between operations.
func fleet(o options) error {
	files := map[string]*gguf.File{}
	for _, name := range []string{small, middle, target} {
		shape, err := synth.Lookup(name)
		if err != nil {
			return err
		}
		if files[name], err = shape.File(); err != nil {
			return err
		}
	}
	all, err := readFleet(o.fleet)
	if err != nil {
		return err
	}
	fmt.Println("| llama-7b on a CPU | servers | median error | p90 |\n|---|---|---|---|")
	for _, t := range []result.Test{{Prompt: 512}, {Gen: 128}} {
		servers := all[t]
		plain, err := logLinear(servers)
		if err != nil {
			return err
		}
		for _, group := range []struct {
			name     string
			from, to int
		}{{"all", 0, math.MaxInt}, {"up to 8 CPUs", 0, 8}, {"9 to 32 CPUs", 9, 32}, {"more than 32 CPUs", 33, math.MaxInt}} {
			var fitted, physical []float64
			for i, s := range servers {
				if s.cpus >= group.from && s.cpus <= group.to {
					fitted = append(fitted, math.Abs(s.target/plain[i]-1))
					physical = append(physical, math.Abs(s.target/byWork(t, files, s)-1))
				}
			}
			quantiles(fmt.Sprintf("%v, %s: log-linear, fitted to llama-7b", t, group.name), fitted)
			quantiles(fmt.Sprintf("%v, %s: by layers and work, not fitted", t, group.name), physical)
		}
	}
	return nil
}

// logLinear are the times of the target by the fit to all servers.
func logLinear(servers []server) (seconds []float64, err error) {
	x, y := mat.NewDense(len(servers), 3, nil), mat.NewVecDense(len(servers), nil)
	for i, s := range servers {
		x.SetRow(i, []float64{1, math.Log(s.small), math.Log(s.middle)})
		y.SetVec(i, math.Log(s.target))
	}
	var b, fitted mat.VecDense
	if err := b.SolveVec(x, y); err != nil {
		return nil, err
	}
	fitted.MulVec(x, &b)
	for i := range servers {
		seconds = append(seconds, math.Exp(fitted.AtVec(i)))
	}
	return seconds, nil
}

// byWork is the time of the target by its layers and work. The work of a prompt are
// operations, that of a generation are bytes. Neither part costs less than nothing.
func byWork(t result.Test, files map[string]*gguf.File, s server) float64 {
	parts := func(name string) (layers, work float64) {
		f := files[name]
		n, _ := f.Uint(f.Architecture() + ".block_count")
		w := f.Work(t, gguf.Context{UBatch: 512, K: gguf.F16, V: gguf.F16})
		if t.Gen > 0 {
			return float64(n), float64(w.WeightBytes) / float64(t.Gen)
		}
		return float64(n), float64(w.Operations)
	}
	l1, w1 := parts(small)
	l2, w2 := parts(middle)
	det := l1*w2 - l2*w1
	a, b := (s.small*w2-s.middle*w1)/det, (l1*s.middle-l2*s.small)/det
	switch {
	case a < 0:
		a, b = 0, s.middle/w2
	case b < 0:
		a, b = s.middle/l2, 0
	}
	l, w := parts(target)
	return a*l + b*w
}

// readFleet reads the times of tests that all three models completed.
func readFleet(path string) (map[result.Test][]server, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // it was only read
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, err
	}
	type key struct {
		server string
		test   result.Test
	}
	found := map[key]*server{}
	for d := json.NewDecoder(z); ; {
		var s seen
		if err := d.Decode(&s); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
		if s.LoadKind != "cpu_mmap" {
			continue
		}
		for _, c := range s.Cells {
			if c.Outcome != "ok" || c.AvgTS <= 0 {
				continue
			}
			k := key{s.Server, result.Test{Prompt: c.N}}
			if c.Kind == "tg" {
				k.test = result.Test{Gen: c.N}
			}
			if found[k] == nil {
				found[k] = &server{cpus: s.CPUs}
			}
			switch s.Model {
			case small:
				found[k].small = 1 / c.AvgTS
			case middle:
				found[k].middle = 1 / c.AvgTS
			case target:
				found[k].target = 1 / c.AvgTS
			}
		}
	}
	all := map[result.Test][]server{}
	for k, s := range found {
		if s.small > 0 && s.middle > 0 && s.target > 0 {
			all[k.test] = append(all[k.test], *s)
		}
	}
	return all, nil
}
