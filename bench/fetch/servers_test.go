package fetch_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sparecores/benchmark-llm/bench/fetch"
	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/source"
)

// chunked sends the first n bytes of a file without saying how many there are, and
// then breaks off if there are more. It knows no ranges.
func chunked(a []byte, n int) http.HandlerFunc {
	return func(rw http.ResponseWriter, _ *http.Request) {
		for chunk := a[:n]; len(chunk) > 0; chunk = chunk[min(len(chunk), 100_000):] {
			if _, err := rw.Write(chunk[:min(len(chunk), 100_000)]); err != nil {
				return
			}
			_ = http.NewResponseController(rw).Flush()
		}
		if n < len(a) {
			panic(http.ErrAbortHandler)
		}
	}
}

// The size of a file follows from its header if the server does not say it.
func TestServerWithoutSize(t *testing.T) {
	a := blob(t, 1)
	padded := append(bytes.Clone(a), 0, 0, 0)
	for name, tt := range map[string]struct {
		answers []http.HandlerFunc
		want    []byte // nil: a failure
		kind    error
		text    string
	}{
		"whole":            {[]http.HandlerFunc{chunked(a, len(a))}, a, nil, ""},
		"bytes after it":   {[]http.HandlerFunc{chunked(padded, len(padded))}, padded, nil, ""},
		"breaks off once":  {[]http.HandlerFunc{chunked(a, len(a)), chunked(a, len(a)), chunked(a, 500_000), chunked(a, len(a))}, a, nil, ""},
		"breaks off":       {[]http.HandlerFunc{chunked(a, 500_000)}, nil, fetch.ErrUnavailable, "breaks off at byte 500000 "},
		"ends too early":   {[]http.HandlerFunc{chunked(a[:500_000], 500_000)}, nil, fetch.ErrUnavailable, "breaks off at byte 500000 "},
		"does not end":     {[]http.HandlerFunc{chunked(append(bytes.Clone(a), make([]byte, 2<<20)...), len(a)+2<<20)}, nil, gguf.ErrCorrupt, "more bytes than"},
		"says it is empty": {[]http.HandlerFunc{func(rw http.ResponseWriter, _ *http.Request) { rw.Header().Set("Content-Length", "0") }}, nil, gguf.ErrEmpty, "empty"},
		"is empty":         {[]http.HandlerFunc{func(rw http.ResponseWriter, _ *http.Request) { _ = http.NewResponseController(rw).Flush() }}, nil, gguf.ErrTruncated, ""},
		"html":             {[]http.HandlerFunc{chunked([]byte("<!DOCTYPE html><html>hello</html>"), 33)}, nil, gguf.ErrNotGGUF, "html page"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, _ := counted(t, script(tt.answers...))
			var client fetch.Client
			client.SetPatience(time.Second)
			src, dir := parse(t, server.URL+"/m.gguf"), t.TempDir()
			if tt.want != nil {
				sizes, err := client.Sizes(t.Context(), []source.Source{src}, dir)
				if err != nil || sizes[0].Err != nil || sizes[0].Bytes != int64(len(a)) {
					t.Errorf("sizes %+v, %v", sizes, err)
				}
			}
			file, err := client.Fetch(t.Context(), src, dir, fetch.Options{})
			if tt.want == nil {
				if !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.text) {
					t.Errorf("got %+v, %v", file, err)
				}
				return
			}
			if err != nil || file.SHA256 != sha(tt.want) || file.Bytes != int64(len(tt.want)) {
				t.Errorf("got %+v, %v", file, err)
			}
		})
	}
}

// A compressed file is refused at once: neither its size nor its ranges are those of
// the file.
func TestCompressedFile(t *testing.T) {
	a := blob(t, 1)
	server, requests := counted(t, http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Encoding", "gzip")
		w := gzip.NewWriter(rw)
		_, _ = w.Write(a)
		_ = w.Close()
	}))
	dir := t.TempDir()
	_, err := new(fetch.Client).Fetch(t.Context(), parse(t, server.URL+"/m.gguf"), dir, fetch.Options{})
	if !errors.Is(err, fetch.ErrEncoded) || !strings.Contains(err.Error(), `"gzip" (Content-Encoding)`) || requests.Load() != 1 {
		t.Errorf("%v, %d requests", err, requests.Load())
	}
	noParts(t, dir)
}

// noParts checks that a directory holds no part of a file.
func noParts(t *testing.T, dir string) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(dir, "*"+source.PartSuffix+"*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left %q, %v", left, err)
	}
}

// A server without ranges that breaks off at the same byte each time is given up soon.
func TestServerBreaksOff(t *testing.T) {
	a := blob(t, 1)
	server, requests := counted(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		r.Header.Del("Range")
		part(rw, r, a, 300_000, false)
	}))
	var client fetch.Client
	client.SetPatience(time.Second)
	_, err := client.Fetch(t.Context(), parse(t, server.URL+"/m.gguf"), t.TempDir(), fetch.Options{})
	if !errors.Is(err, fetch.ErrUnavailable) || !strings.Contains(err.Error(), "breaks off at byte 300000 of ") || requests.Load() != 3 {
		t.Errorf("%v, %d requests", err, requests.Load())
	}
}

// Without a first byte there is no partial file.
func TestNoEmptyPart(t *testing.T) {
	var log bytes.Buffer
	for name, answer := range map[string]http.HandlerFunc{
		"404":    status(404),
		"503":    status(503),
		"hangup": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"html":   func(rw http.ResponseWriter, r *http.Request) { serve(rw, r, []byte("<!DOCTYPE html>")) },
	} {
		t.Run(name, func(t *testing.T) {
			server, _ := counted(t, answer)
			client, dir := fetch.Client{Log: slog.New(slog.NewTextHandler(&log, nil))}, t.TempDir()
			client.SetPatience(time.Millisecond)
			if _, err := client.Fetch(t.Context(), parse(t, server.URL+"/m.gguf"), dir, fetch.Options{}); err == nil {
				t.Error("no error")
			}
			noParts(t, dir)
			if _, err := os.Lstat(filepath.Join(dir, "m.gguf")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the file is there: %v", err)
			}
		})
	}
}

// The reserve can be none. Then a disk with exactly the file's size is enough.
func TestReserve(t *testing.T) {
	a := blob(t, 1)
	for reserve, fits := range map[int64]bool{0: true, 1: false} {
		server, _ := counted(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { serve(rw, r, a) }))
		client := fetch.Client{ReserveBytes: &reserve, FreeBytes: func(string) (int64, error) { return int64(len(a)), nil }}
		dir := t.TempDir()
		room, roomErr := client.Room(dir)
		_, err := client.Fetch(t.Context(), parse(t, server.URL+"/m.gguf"), dir, fetch.Options{})
		if roomErr != nil || room != int64(len(a))-reserve || fits != (err == nil) || !fits && !(errors.Is(err, fetch.ErrNoDisk) && errors.Is(err, fetch.ErrReserve)) {
			t.Errorf("reserve of %d: room for %d (%v), %v", reserve, room, roomErr, err)
		}
	}
}

// deadAddresses are addresses that a client finds dead before the first answer, by what
// is wrong with them.
func deadAddresses(t *testing.T) map[string]string {
	t.Helper()
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	unknown := httptest.NewUnstartedServer(http.NotFoundHandler()) // its certificate is
	unknown.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	unknown.StartTLS()
	t.Cleanup(unknown.Close)
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	return map[string]string{
		"no such host":        "http://no-such-host.invalid",
		"connection refused":  closed.URL,
		"unknown certificate": unknown.URL,
		"no TLS":              strings.Replace(plain.URL, "http:", "https:", 1),
	}
}

// Several models on a host that cannot be reached: the host is found dead once, which is
// one line.
func TestDeadHost(t *testing.T) {
	for name, address := range deadAddresses(t) {
		lines := 1
		if name == "unknown certificate" { // it is asked only once, and the error says why
			lines = 0
		}
		t.Run(name, func(t *testing.T) { sixOnADeadHost(t, address, nil, lines) })
	}
	timeout := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.ErrDeadlineExceeded}
	}}
	t.Run("timeout", func(t *testing.T) { sixOnADeadHost(t, "https://hub.test", timeout, 1) })
	forbidden := httptest.NewServer(status(403)) // a proxy that allows nothing
	defer forbidden.Close()
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	for name, at := range map[string]string{"proxy refuses": forbidden.URL, "no proxy": closed.URL} {
		t.Run(name, func(t *testing.T) {
			proxy, err := url.Parse(at)
			if err != nil {
				t.Fatal(err)
			}
			transport := fetch.NewTransport(time.Second).(*http.Transport)
			transport.Proxy = http.ProxyURL(proxy)
			if text := sixOnADeadHost(t, "https://hub.test", transport, 1); !strings.Contains(text, "hub.test cannot be reached through the proxy: ") {
				t.Error(text)
			}
		})
	}
}

// asking counts requests.
type asking struct {
	http.RoundTripper
	atomic.Int64
}

func (a *asking) RoundTrip(req *http.Request) (*http.Response, error) {
	a.Add(1)
	return a.RoundTripper.RoundTrip(req)
}

// sixOnADeadHost asks for the sizes of six models, and then fetches them one by one. The
// client logs so many lines. The result is the error.
func sixOnADeadHost(t *testing.T, address string, transport http.RoundTripper, lines int) (text string) {
	t.Helper()
	var log bytes.Buffer
	if transport == nil {
		transport = fetch.NewTransport(time.Second)
	}
	asked := &asking{RoundTripper: transport}
	client := fetch.Client{Hint: "use --weights auto", Transport: asked, Log: slog.New(slog.NewTextHandler(&log, nil))}
	client.SetPatience(time.Millisecond)
	var sources []source.Source
	for i := range 6 {
		sources = append(sources, parse(t, fmt.Sprintf("%s/u/r/resolve/main/m%d.gguf", address, i)))
	}
	dir := t.TempDir()
	sizes, err := client.Sizes(t.Context(), sources, dir)
	if err != nil {
		t.Fatal(err)
	}
	asked.Store(0)
	for i, src := range sources {
		_, err := client.Fetch(t.Context(), src, dir, fetch.Options{})
		var host *fetch.HostError
		if !errors.As(err, &host) || !errors.Is(err, fetch.ErrUnavailable) || !errors.As(sizes[i].Err, &host) {
			t.Errorf("size: %v, file: %v", sizes[i].Err, err)
		}
		if strings.Count(err.Error(), host.Host) != 1 || strings.Contains(err.Error(), "\n") {
			t.Errorf("long: %v", err)
		}
		if text != "" && err.Error() != text { // a run must be able to tell that the cause is the same
			t.Errorf("first %s, then %v", text, err)
		}
		text = err.Error()
	}
	if strings.Count(log.String(), "\n") != lines || strings.Count(log.String(), `hint="use --weights auto"`) != lines {
		t.Errorf("want %d lines:\n%s", lines, &log)
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("a dead host was asked %d times", n)
	}
	noParts(t, dir)
	return text
}
