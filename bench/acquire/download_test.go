package acquire

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/fetch"
	"github.com/sparecores/benchmark-llm/bench/policy"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/source"
	"github.com/sparecores/benchmark-llm/bench/synth"
)

// What is downloaded during a repetition is counted from the event before it on.
func TestDownloaded(t *testing.T) {
	shape, err := synth.Lookup(synth.Tiny)
	if err != nil {
		t.Fatal(err)
	}
	file, err := shape.File()
	if err != nil {
		t.Fatal(err)
	}
	header, err := file.Header()
	if err != nil {
		t.Fatal(err)
	}
	content := append(header, make([]byte, file.Size()-int64(len(header)))...)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	}))
	defer server.Close()
	src, err := source.Parse(server.URL + "/" + synth.Tiny)
	if err != nil {
		t.Fatal(err)
	}
	event := func(m *Models, e bench.Event) {
		if err := m.Event(bench.Stamped{Event: e}); err != nil {
			t.Error(err)
		}
	}
	m := &Models{queue: new(fetch.Client).Prefetch(t.Context(), []source.Source{src}, fetch.QueueOptions{Dir: t.TempDir()})}
	defer m.Close()
	if n := m.Downloaded(); n != 0 {
		t.Errorf("%d bytes before the first", n)
	}
	got, err := m.queue.Wait(t.Context(), 0, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	event(m, bench.WarmupDone{})
	if n := m.Downloaded(); n != 0 {
		t.Errorf("%d bytes since the warm-up", n)
	}
	m.downloaded = 0
	if err := m.Event(bench.Stamped{Event: bench.WarmupDone{}, More: 1}); err != nil { // repetitions followed it
		t.Error(err)
	}
	if n := m.Downloaded(); n != got.Downloaded || n != int64(len(content)) {
		t.Errorf("%d bytes since the start, of a file of %d", n, len(content))
	}
	if n := (&Models{}).Downloaded(); n != 0 {
		t.Errorf("%d bytes without downloads", n)
	}
}

// Downloads pause from the first pass on that repetitions may follow directly.
func TestDownloadsPause(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer server.Close()
	src, err := source.Parse(server.URL + "/" + synth.Tiny)
	if err != nil {
		t.Fatal(err)
	}
	m := &Models{queue: new(fetch.Client).Prefetch(t.Context(), []source.Source{src}, fetch.QueueOptions{Dir: t.TempDir(), Force: fetch.Paused})}
	defer m.Close()
	m.queue.Start()
	for m.queue.State().Item < 0 {
		time.Sleep(time.Millisecond)
	}
	event := func(e bench.Event) {
		if err := m.Event(bench.Stamped{Event: e}); err != nil {
			t.Error(err)
		}
	}
	slow, fast := policy.Measured{Test: result.Test{Prompt: 16}, Repetitions: []time.Duration{bench.BurstTime}}, policy.Measured{Test: result.Test{Prompt: 128}, Repetitions: []time.Duration{bench.BurstTime - 1, time.Hour}}
	for name, tt := range map[string]struct {
		test     result.Test
		noWarmup bool
		measured []policy.Measured
		want     fetch.Hold // during the first pass
	}{
		"nothing is measured":     {result.Test{Prompt: 512}, false, nil, fetch.Paused},
		"the warm-up is a burst":  {result.Test{Prompt: 512}, false, []policy.Measured{slow, fast}, fetch.Free},
		"shorter passes are fast": {result.Test{Prompt: 512}, false, []policy.Measured{fast}, fetch.Paused},
		"a longer one is slow":    {result.Test{Prompt: 8}, false, []policy.Measured{slow}, fetch.Paused},
		"the warm-up is a token":  {result.Test{Gen: 512}, false, []policy.Measured{slow}, fetch.Paused},
		"no warm-up":              {result.Test{Prompt: 512}, true, []policy.Measured{slow}, fetch.Paused},
	} {
		m.options.Job.NoWarmup, m.measured = tt.noWarmup, tt.measured
		event(bench.TestStarted{Test: tt.test})
		event(bench.ContextReady{})
		if got := m.queue.State().Hold; got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
		event(bench.WarmupDone{})
		if got := m.queue.State().Hold; got != fetch.Paused {
			t.Errorf("%s: %v after the warm-up", name, got)
		}
		event(bench.TestDone{Test: tt.test})
		time.Sleep(200 * time.Millisecond) // a gap that is used
	}
}
