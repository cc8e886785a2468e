package report

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// suitePage is the page of a whole suite: six models with eleven tests each, one of them stopped.
func suitePage() Page {
	run := PageRun{Label: "here", Command: "benchmark-llm run", Targets: map[result.Kind][]Target{result.PromptProcessing: {{16, 2}, {16384, 1000}}}}
	run.Title, run.Facts = "Run 1", []Fact{{"CPU", "AMD EPYC"}, {"empty", ""}}
	run.Accounting = result.Accounting{Wall: time.Minute, Timed: 40 * time.Second, Other: 20 * time.Second}
	watts := 70.0
	for m := range 6 {
		add := func(test result.Test, speed float64) {
			o := completed(test, speed*0.7, speed, speed*1.01, speed*0.99, speed*1.02)
			o.Model = fmt.Sprintf("Model-%d-Instruct.Q4_K_M.gguf", m)
			o.Record.ModelFilename, o.Record.ModelSizeBytes = o.Model, uint64(m+1)<<30
			o.Record.Ext.GPU = &result.GPU{Devices: []result.GPUDevice{{Name: "CUDA0", Model: "NVIDIA L4", GPUTelemetry: result.GPUTelemetry{
				PowerWatts: &watts, TemperatureC: &watts, SMClockMHz: &result.Range{Min: 1500, Max: 2040},
			}}}}
			if test.Prompt == 16384 {
				o = result.Outcome{Model: o.Model, Test: test, Status: result.PredictedTimeout, Reason: "needs 412 s of 250 s"}
			}
			run.Outcomes = append(run.Outcomes, o)
		}
		for _, n := range []int{16, 128, 512, 1024, 4096, 16384} {
			add(result.Test{Prompt: n}, 1000/float64(m+1))
		}
		for _, n := range []int{16, 128, 512, 1024, 4096} {
			add(result.Test{Gen: n}, 50/float64(m+1))
		}
	}
	return Page{Title: run.Title, Runs: []PageRun{run}}
}

func renderPage(t *testing.T, p Page) string {
	t.Helper()
	var b bytes.Buffer
	if err := WritePage(&b, p); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// The page of a whole suite is small, needs nothing else, and has everything.
func TestPage(t *testing.T) {
	text := renderPage(t, suitePage())
	t.Logf("%d bytes for a whole suite", len(text))
	if len(text) >= 500_000 {
		t.Errorf("%d bytes", len(text))
	}
	for _, want := range []string{
		"Model-5-Instruct.Q4_K_M.gguf (synthetic weights): pp512 ", "predicted timeout: needs 412 s of 250 s", "target of the suite", "stopped, see the tables",
		"first repetition", "Where the time went", "GPU power", "GPU clock", "GPU temperature", "<dt>CPU</dt><dd>AMD EPYC</dd>", "<pre>benchmark-llm run</pre>",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	for _, not := range []string{"<script", "http:", "https:", "src=", "@import", "url(", "#F0F0", "#F1F1", "<dt>empty"} {
		if strings.Contains(text, not) {
			t.Errorf("the page has %q", not)
		}
	}
	plots := strings.Count(text, "<svg ")
	if named := len(regexp.MustCompile(`<svg [^>]*role="img"><title>[^<]+</title><desc>[^<]+</desc>`).FindAllString(text, -1)); plots != 12 || named != plots {
		t.Errorf("%d plots, %d with a text, want 12", plots, named)
	}
}

// Names come from outside: none becomes markup or a formula.
func TestPageEscapes(t *testing.T) {
	for _, name := range []string{"<script>alert(1)</script>", "=cmd|' /C calc'!A1", "a|b\nc", `"><svg onload=x>`} {
		p := suitePage()
		for i := range p.Runs[0].Outcomes {
			p.Runs[0].Outcomes[i].Model = name
			p.Runs[0].Outcomes[i].Reason = name
		}
		p.Runs[0].Command, p.Runs[0].Facts, p.Title = name, []Fact{{"f", name}}, name
		text := renderPage(t, p)
		for _, not := range []string{"<script", "<svg onload"} {
			if strings.Contains(text, not) {
				t.Errorf("%q: the page has %q", name, not)
			}
		}
	}
}

// Odd records lead to a page or to an error, never to a panic.
func TestPageOdd(t *testing.T) {
	for name, rates := range map[string][]float64{"zero": {0, 0}, "one": {5}, "same": {5, 5, 5}, "tiny": {1e-9, 2e-9}, "huge": {1e12, 2e12}} {
		o := completed(result.Test{Prompt: 512}, rates...)
		for i := range o.Record.SamplesNs {
			o.Record.SamplesNs[i] = 1
		}
		text := renderPage(t, Page{Title: name, Runs: []PageRun{{Document: Document{Outcomes: []result.Outcome{o}}}}})
		if !strings.HasSuffix(text, "</html>\n") || strings.Contains(text, "NaN") {
			t.Errorf("%s: page\n%s", name, text)
		}
	}
	if text := renderPage(t, Page{Title: "none", Runs: []PageRun{{}}}); !strings.Contains(text, "No test has a record.") {
		t.Errorf("page of nothing:\n%s", text)
	}
}

// A spreadsheet does not take a name for a formula, and reading the file gives the name.
func TestCSVFormula(t *testing.T) {
	o := completed(result.Test{Prompt: 512}, 100)
	o.Record.ModelFilename = "=1+1"
	text := render1(t, "csv", Options{}, o)
	if !strings.Contains(text, `"'=1+1"`) {
		t.Errorf("CSV %s", text)
	}
	records, err := ReadFile(strings.NewReader(text))
	if err != nil || len(records) != 1 || records[0].ModelFilename != "=1+1" {
		t.Errorf("read %+v, %v", records, err)
	}
}
