package fetch_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench/fetch"
	"github.com/sparecores/benchmark-llm/bench/gguf"
)

// chunked sends b without a length. If cutAt is above 0, it breaks off there.
func chunked(b []byte, cutAt int) http.HandlerFunc {
	return func(rw http.ResponseWriter, _ *http.Request) {
		flush := http.NewResponseController(rw).Flush
		_ = flush() // the length is not known any more
		if cutAt > 0 {
			_, _ = rw.Write(b[:cutAt])
			_ = flush()
			panic(http.ErrAbortHandler)
		}
		_, _ = rw.Write(b)
	}
}

// What servers do wrong, and what a download makes of it. None leaves an empty partial file.
func TestServers(t *testing.T) {
	file := shards(t, 1, 1)[0] // a whole model in one file
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write(file); err != nil || z.Close() != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		handler  http.HandlerFunc
		want     string // part of the error; empty: the file arrives
		kind     error
		requests int64 // at most
	}{
		"no length":                    {chunked(file, 0), "", nil, 3},
		"no length, shorter than said": {chunked(file[:len(file)-5000], 0), "breaks off at byte", fetch.ErrUnavailable, 12},
		"no length, longer than said":  {chunked(append(bytes.Clone(file), make([]byte, 2<<20)...), 0), "sends more bytes than the", gguf.ErrCorrupt, 4},
		"compressed": {func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Encoding", "gzip")
			_, _ = rw.Write(packed.Bytes())
		}, `compresses the file with "gzip" (Content-Encoding)`, fetch.ErrEncoded, 1},
		"breaks off at the same byte, without ranges": {func(rw http.ResponseWriter, r *http.Request) {
			r.Header.Del("Range")
			rw.Header().Set("Content-Length", "100000000")
			_, _ = rw.Write(file[:5000])
			_ = http.NewResponseController(rw).Flush()
			panic(http.ErrAbortHandler)
		}, "breaks off at byte 5000 of 100000000 each time", fetch.ErrUnavailable, 4},
		"nothing": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "does not answer", fetch.ErrUnavailable, 20},
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int64
			server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				asked.Add(1)
				tt.handler(rw, r)
			}))
			defer server.Close()
			c := &fetch.Client{Log: slog.New(slog.DiscardHandler)}
			c.SetPatience(time.Millisecond)
			dir := t.TempDir()
			got, err := c.Fetch(t.Context(), parse(t, server.URL+"/m.gguf"), dir, fetch.Options{})
			if n := asked.Load(); n > tt.requests {
				t.Errorf("%d requests, want at most %d", n, tt.requests)
			}
			parts, _ := filepath.Glob(filepath.Join(dir, "*.part"))
			for _, p := range parts {
				if info, err := os.Stat(p); err == nil && info.Size() == 0 {
					t.Errorf("%s is empty", p)
				}
			}
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				if b, err := os.ReadFile(got.Paths[0]); err != nil || !bytes.Equal(b, file) {
					t.Errorf("the file is another one, %v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) || !errors.Is(err, tt.kind) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

// Six models on a host that cannot be reached: the log warns once, with a hint, and the host
// is asked for one of them only.
func TestDeadHost(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	var log bytes.Buffer
	c := &fetch.Client{Log: slog.New(slog.NewTextHandler(&log, nil)), Hint: "use --weights synthetic"}
	c.SetPatience(time.Millisecond)
	var texts []string
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		_, err := c.Fetch(t.Context(), parse(t, server.URL+"/"+name+".gguf"), t.TempDir(), fetch.Options{})
		if !errors.Is(err, fetch.ErrUnavailable) {
			t.Fatalf("%s: %v", name, err)
		}
		texts = append(texts, strings.ReplaceAll(err.Error(), name+".gguf: ", ""))
	}
	if diff := cmp.Diff(texts[0], texts[5]); diff != "" {
		t.Error(diff)
	}
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	if len(lines) != 1 || !strings.Contains(lines[0], "cannot be reached") || !strings.Contains(lines[0], `hint="use --weights synthetic"`) {
		t.Errorf("the log has %d lines:\n%s", len(lines), log.String())
	}
}
