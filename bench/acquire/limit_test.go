package acquire

import (
	"context"
	"errors"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/fetch"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/source"
	"github.com/sparecores/benchmark-llm/bench/suite"
)

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// What comes before the downloads is within the time limit of the run: requests, their
// retries, and headers for synthetic weights.
func TestNewWithinLimit(t *testing.T) {
	silent := func(r *http.Request) (*http.Response, error) {
		<-r.Context().Done()
		return nil, context.Cause(r.Context())
	}
	unknown := func(*http.Request) (*http.Response, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "server.invalid", IsNotFound: true}}
	}
	const limit = 3 * time.Second
	for _, tt := range []struct {
		name    string
		weights Weights
		server  roundTrip
		err     error
	}{
		{"silent", File, silent, nil},
		{"unknown host", File, unknown, nil},
		{"silent, synthetic", Synthetic, silent, bench.ErrTimeLimit},
		{"unknown host, synthetic", Synthetic, unknown, bench.ErrTimeLimit},
		{"silent, auto", Auto, silent, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src, err := source.Parse("http://server.invalid/m.gguf")
				if err != nil {
					t.Fatal(err)
				}
				s := suite.Default()
				s.Models = []suite.Entry{{Name: src.Name(), Source: src, Tests: []result.Test{{Prompt: 16}}}}
				start := time.Now()
				m, err := New(t.Context(), s, Options{
					Finder:   Finder{Client: &fetch.Client{Transport: tt.server}, Dirs: DirsOf(t.TempDir()), Weights: tt.weights},
					Deadline: start.Add(limit), Scale: 1,
				})
				if m != nil {
					defer m.Close()
				}
				if took := time.Since(start); took != limit || !errors.Is(err, tt.err) {
					t.Errorf("took %v, error %v", took, err)
				}
			})
		})
	}
}
