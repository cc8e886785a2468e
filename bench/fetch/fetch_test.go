package fetch_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench/fetch"
	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/source"
)

// blob is a small valid file; seed changes its data.
func blob(t testing.TB, seed byte) []byte {
	t.Helper()
	f, err := gguf.New([]gguf.KeyValue{{Key: "general.architecture", Value: "llama"}},
		[]gguf.Tensor{{Name: "w", Dims: []uint64{1 << 18}, Type: gguf.F32}})
	if err != nil {
		t.Fatal(err)
	}
	b, err := f.Header()
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, f.Size()-f.DataOffset)
	for i := range data {
		data[i] = byte(i>>8) ^ byte(i) ^ seed
	}
	return append(b, data...)
}

func sha(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// world is a network without a wire, so that its time may be false: every host
// is the same server, which tells them apart.
type world struct {
	http.Handler
	client *fetch.Client
	log    bytes.Buffer

	mu       sync.Mutex
	requests []request
}

type request struct{ Host, Path, Range, Token string }

func newWorld(t *testing.T, h http.Handler) *world {
	t.Helper()
	w := &world{Handler: h}
	conns := make(chan net.Conn)
	done := make(chan struct{})
	server := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		w.requests = append(w.requests, request{r.Host, r.URL.Path, r.Header.Get("Range"), r.Header.Get("Authorization")})
		w.mu.Unlock()
		if r.Header.Get("Referer") != "" {
			t.Errorf("referer %q sent to %s", r.Header.Get("Referer"), r.Host)
		}
		w.ServeHTTP(rw, r)
	})}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		here, there := net.Pipe()
		select {
		case conns <- there:
			return here, nil
		case <-done:
			return nil, net.ErrClosed
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}}
	go func() { _ = server.Serve(&listener{conns, done}) }()
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		_ = server.Close()
		time.Sleep(time.Minute) // for handlers that sleep
	})
	w.client = &fetch.Client{
		Hub: "http://hub.test", Token: "hf_t0ken", Transport: transport,
		FreeBytes: func(string) (int64, error) { return 1 << 40, nil },
		Log:       slog.New(slog.NewTextHandler(&w.log, nil)),
	}
	return w
}

type listener struct {
	conns chan net.Conn
	done  chan struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l *listener) Close() error   { close(l.done); return nil }
func (l *listener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

func (w *world) ranges() (all []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.requests {
		all = append(all, r.Range)
	}
	return all
}

// paths are the paths of all requests, in order.
func (w *world) paths() (all []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.requests {
		all = append(all, r.Path)
	}
	return all
}

// serve answers as a well-behaved server does.
func serve(rw http.ResponseWriter, r *http.Request, b []byte) {
	rw.Header().Set("Etag", fmt.Sprintf(`"%.8s"`, sha(b)))
	http.ServeContent(rw, r, "", time.Time{}, bytes.NewReader(b))
}

// part sends n bytes of what was asked for and then ends the connection, or
// stalls for as long as the client waits.
func part(rw http.ResponseWriter, r *http.Request, b []byte, n int, stall bool) {
	serve(&cut{rw, r, n, stall}, r, b)
}

type cut struct {
	http.ResponseWriter
	r     *http.Request
	left  int
	stall bool
}

func (c *cut) Write(p []byte) (int, error) {
	if len(p) <= c.left {
		c.left -= len(p)
		return c.ResponseWriter.Write(p)
	}
	_, _ = c.ResponseWriter.Write(p[:c.left])
	_ = http.NewResponseController(c.ResponseWriter).Flush()
	if c.stall {
		<-c.r.Context().Done()
	}
	panic(http.ErrAbortHandler)
}

// script answers the first requests by its functions, the rest by the last.
func script(answers ...http.HandlerFunc) http.Handler {
	var mu sync.Mutex
	next := 0
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		mu.Lock()
		answer := answers[min(next, len(answers)-1)]
		next++
		mu.Unlock()
		answer(rw, r)
	})
}

func status(code int, header ...string) http.HandlerFunc {
	return func(rw http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(header); i += 2 {
			rw.Header().Set(header[i], header[i+1])
		}
		rw.WriteHeader(code)
	}
}

const plainURL = "http://files.test/dir/m.gguf?sig=s3cret"

// The faults of a server that a download survives, and the requests that it takes.
func TestFetchSurvives(t *testing.T) {
	a, b := blob(t, 1), blob(t, 2)
	whole := func(rw http.ResponseWriter, r *http.Request) { serve(rw, r, a) }
	cutAt := func(n int) http.HandlerFunc {
		return func(rw http.ResponseWriter, r *http.Request) { part(rw, r, a, n, false) }
	}
	noRanges := func(rw http.ResponseWriter, r *http.Request) {
		r.Header.Del("Range")
		serve(rw, r, a)
	}
	for name, tt := range map[string]struct {
		answers []http.HandlerFunc
		want    []byte
		ranges  []string
		atLeast time.Duration // of false time
	}{
		"503":  {[]http.HandlerFunc{status(503), status(500), whole}, a, []string{"", "", ""}, 0},
		"429":  {[]http.HandlerFunc{status(429, "Retry-After", "30"), whole}, a, []string{"", ""}, 30 * time.Second},
		"cuts": {[]http.HandlerFunc{cutAt(1000), cutAt(2000), cutAt(0), whole}, a, []string{"", "bytes=1000-", "bytes=3000-", "bytes=3000-"}, 0},
		"stall": {[]http.HandlerFunc{func(rw http.ResponseWriter, r *http.Request) { part(rw, r, a, 5000, true) }, whole},
			a, []string{"", "bytes=5000-"}, 10 * time.Second},
		"no ranges": {[]http.HandlerFunc{cutAt(1000), noRanges}, a, []string{"", "bytes=1000-"}, 0},
		"changed between ranges": {[]http.HandlerFunc{cutAt(1000), func(rw http.ResponseWriter, r *http.Request) { serve(rw, r, b) }},
			b, []string{"", "bytes=1000-"}, 0},
		"changed and does not look at the condition": {[]http.HandlerFunc{cutAt(1000), func(rw http.ResponseWriter, r *http.Request) {
			r.Header.Del("If-Range")
			serve(rw, r, b)
		}}, b, []string{"", "bytes=1000-", ""}, 0},
		"416": {[]http.HandlerFunc{cutAt(1000), status(416), whole}, a, []string{"", "bytes=1000-", ""}, 0},
		"says more than it has": {[]http.HandlerFunc{func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Length", strconv.Itoa(len(a)+9))
			_, _ = rw.Write(a)
		}, whole}, a, []string{"", ""}, 0}, // without a validator nothing can be resumed
		"says less than it has": {[]http.HandlerFunc{func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Length", strconv.Itoa(len(a)-9))
			_, _ = rw.Write(a[:len(a)-9])
		}, whole}, a, []string{"", ""}, 0}, // the header shows it
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, dir, start := newWorld(t, script(tt.answers...)), t.TempDir(), time.Now()
				var told fetch.Progress
				file, err := w.client.Fetch(t.Context(), parse(t, plainURL), dir, fetch.Options{Progress: func(p fetch.Progress) { told = p }})
				if err != nil {
					t.Fatalf("%v\n%s", err, &w.log)
				}
				if diff := cmp.Diff(tt.ranges, w.ranges()); diff != "" {
					t.Errorf("ranges (-want +got):\n%s", diff)
				}
				if file.Path != filepath.Join(dir, "m.gguf") || file.SHA256 != sha(tt.want) {
					t.Errorf("got %+v", file)
				}
				if got, err := os.ReadFile(file.Path); err != nil || !bytes.Equal(got, tt.want) {
					t.Errorf("wrong content, %v", err)
				}
				if file.Retries != len(tt.ranges)-1 || told.Retries > file.Retries {
					t.Errorf("%d retries of %d requests", file.Retries, len(tt.ranges))
				}
				if told.Done != int64(len(tt.want)) || told.Total != told.Done {
					t.Errorf("last progress %+v", told)
				}
				if took := time.Since(start); took < tt.atLeast {
					t.Errorf("took %v", took)
				}
				leftovers(t, dir, ".m.gguf.json", "m.gguf")
				silent(t, w.log.String())
			})
		})
	}
}

// pinnedOptions are options with the checksum of the source.
type pinnedOptions struct {
	fetch.Options
	SHA256       string
	ReserveBytes int64 // of the client; 0 is the default
}

func deadline(t time.Time) pinnedOptions {
	return pinnedOptions{Options: fetch.Options{Deadline: t}}
}

// pinned is a source with a checksum.
func pinned(t testing.TB, text, sha256 string) source.Source {
	t.Helper()
	src := parse(t, text)
	src.SHA256 = sha256
	return src
}

func parse(t testing.TB, text string) source.Source {
	t.Helper()
	src, err := source.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return src
}

// The faults that end a download, and their messages.
func TestFetchFails(t *testing.T) {
	a := blob(t, 1)
	whole := func(rw http.ResponseWriter, r *http.Request) { serve(rw, r, a) }
	for name, tt := range map[string]struct {
		source   string
		answer   http.HandlerFunc
		options  pinnedOptions
		kind     error
		text     string
		requests int
	}{
		"404": {plainURL, status(404), pinnedOptions{}, fetch.ErrNotFound,
			"m.gguf: http://files.test/dir/m.gguf: 404 not found: no such file; check the repository, the file name and the revision", 1},
		"401": {"hf:u/r/m.gguf", status(401, "X-Error-Code", "RepoNotFound", "X-Error-Message", "no hf_t0ken here"), pinnedOptions{}, fetch.ErrRefused,
			"m.gguf: http://hub.test/u/r/resolve/main/m.gguf: 401 unauthorized (RepoNotFound: no *** here): HF_TOKEN gives no access, or was not sent to this host", 1},
		"gated": {"hf:u/r/m.gguf", status(403, "X-Error-Code", "GatedRepo"), pinnedOptions{}, fetch.ErrRefused,
			"the repository is gated, and HF_TOKEN gives no access; accept its terms on the hub", 1},
		"503 for ever": {plainURL, status(503), pinnedOptions{}, fetch.ErrUnavailable, "503 service unavailable", 6},
		"dead":         {plainURL, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, pinnedOptions{}, fetch.ErrUnavailable, "EOF", 6},
		"html": {plainURL, func(rw http.ResponseWriter, r *http.Request) {
			serve(rw, r, []byte("<!DOCTYPE html><html>hello</html>"))
		},
			pinnedOptions{}, gguf.ErrNotGGUF, "it looks like an html page", 1},
		"empty": {plainURL, status(200), pinnedOptions{}, gguf.ErrEmpty, "the server says that the file is empty", 1},
		"corrupt": {"hf:u/r/m.gguf", func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("X-Linked-Etag", `"`+sha(blob(t, 9))+`"`)
			serve(rw, r, a)
		}, pinnedOptions{}, fetch.ErrChecksum, "expected " + sha(blob(t, 9)), 2},
		"not the pinned": {plainURL, whole, pinnedOptions{SHA256: sha(blob(t, 9))}, fetch.ErrChecksum, "expected", 2},
		"hub has another than the pinned": {"hf:u/r/m.gguf", func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("X-Linked-Etag", `"`+sha(a)+`"`)
			serve(rw, r, a)
		}, pinnedOptions{SHA256: sha(blob(t, 9))}, fetch.ErrChecksum, "the server has sha256", 1},
		"hub and host differ in size": {"hf:u/r/m.gguf", func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("X-Linked-Size", "12")
			serve(rw, r, a)
		}, pinnedOptions{}, nil, "the hub says that the file has 12 bytes", 1},
		"disk": {plainURL, whole, pinnedOptions{ReserveBytes: 1 << 40}, fetch.ErrNoDisk, "1.0 MB are needed", 1},
		"retry after the deadline": {plainURL, status(429, "Retry-After", "3600"), deadline(time.Date(2000, 1, 1, 0, 10, 0, 0, time.UTC)),
			fetch.ErrHopeless, "try again in 1h0m0s", 1},
		"slow": {plainURL, func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Length", strconv.Itoa(len(a)))
			for i := 0; i+100 <= len(a); i += 100 {
				if _, err := rw.Write(a[i : i+100]); err != nil {
					return
				}
				_ = http.NewResponseController(rw).Flush()
				time.Sleep(100 * time.Millisecond)
			}
		}, deadline(time.Date(2000, 1, 1, 0, 10, 0, 0, time.UTC)), fetch.ErrHopeless, "5.1 kB of 1.0 MB arrived; the rest needs 15m19s at 1.1 kB/s, but only 9m55s are left", 1},
		"redirects for ever": {plainURL, func(rw http.ResponseWriter, r *http.Request) { http.Redirect(rw, r, r.URL.String(), http.StatusFound) },
			pinnedOptions{}, nil, "more than 10 redirects", 10},
		"bad redirect": {plainURL, status(302, "Location", "gopher://x/?s3cret"), pinnedOptions{}, nil, "unsupported protocol scheme", 0},
		"bad checksum": {plainURL, whole, pinnedOptions{SHA256: "12"}, source.ErrBad, "is not a sha256", 0},
		"changes for ever": {plainURL, func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Etag", strconv.Quote(time.Now().String()))
			r.Header.Del("If-Range")
			http.ServeContent(&cut{rw, r, 1000, false}, r, "", time.Time{}, bytes.NewReader(a))
		}, pinnedOptions{}, fetch.ErrUnavailable, "the file changed on the server", 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, dir, start := newWorld(t, tt.answer), t.TempDir(), time.Now()
				if reserve := tt.options.ReserveBytes; reserve > 0 {
					w.client.ReserveBytes = &reserve
				}
				_, err := w.client.Fetch(t.Context(), pinned(t, tt.source, tt.options.SHA256), dir, tt.options.Options)
				if err == nil || tt.kind != nil && !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.text) {
					t.Fatalf("got %v", err)
				}
				if got := len(w.ranges()); tt.requests != 0 && got != tt.requests {
					t.Errorf("%d requests, want %d", got, tt.requests)
				}
				if took := time.Since(start); took > time.Minute {
					t.Errorf("noticed after %v", took)
				}
				if _, err := os.Lstat(filepath.Join(dir, "m.gguf")); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("the file is there: %v", err)
				}
				silent(t, err.Error(), w.log.String())
			})
		})
	}
}

// The token goes to the hub, also on a redirect within it, and nowhere else; the
// checksum comes from the hub's redirect.
func TestTokenStaysAtTheHub(t *testing.T) {
	a := blob(t, 1)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			switch r.Host + r.URL.EscapedPath() {
			case "hub.test/u/r/resolve/refs%2Fpr%2F1/m.gguf":
				http.Redirect(rw, r, "/renamed/m.gguf", http.StatusTemporaryRedirect)
			case "hub.test/renamed/m.gguf":
				rw.Header().Set("X-Linked-Etag", `"`+sha(a)+`"`)
				http.Redirect(rw, r, "http://sub.hub.test/a?sig=s3cret", http.StatusFound)
			case "sub.hub.test/a":
				http.Redirect(rw, r, "http://hub.test:8080/b", http.StatusFound)
			default:
				rw.Header().Set("X-Linked-Etag", strings.Repeat("0", 64)) // not the hub
				serve(rw, r, a)
			}
		}))
		if _, err := w.client.Fetch(t.Context(), parse(t, "hf:u/r/m.gguf@refs/pr/1"), t.TempDir(), fetch.Options{}); err != nil {
			t.Fatal(err)
		}
		want := []request{
			{"hub.test", "/u/r/resolve/refs/pr/1/m.gguf", "", "Bearer hf_t0ken"},
			{"hub.test", "/renamed/m.gguf", "", "Bearer hf_t0ken"},
			{"sub.hub.test", "/a", "", ""},
			{"hub.test:8080", "/b", "", ""},
		}
		if diff := cmp.Diff(want, w.requests); diff != "" {
			t.Errorf("requests (-want +got):\n%s", diff)
		}
	})
}

// A cancelled download goes on where it was, in another process too.
func TestResumeAfterCancel(t *testing.T) {
	a := blob(t, 1)
	synctest.Test(t, func(t *testing.T) {
		w, dir := newWorld(t, script(
			func(rw http.ResponseWriter, r *http.Request) { part(rw, r, a, 700_000, true) },
			func(rw http.ResponseWriter, r *http.Request) { serve(rw, r, a) },
		)), t.TempDir()
		ctx, cancel := context.WithCancelCause(t.Context())
		enough := errors.New("enough")
		go func() {
			time.Sleep(time.Second)
			cancel(enough)
		}()
		if _, err := w.client.Fetch(ctx, parse(t, plainURL), dir, fetch.Options{}); !errors.Is(err, enough) {
			t.Fatalf("got %v", err)
		}
		leftovers(t, dir, "m.gguf.part", "m.gguf.part.json")
		again := parse(t, "http://files.test/dir/m.gguf?sig=other") // signed anew
		file, err := w.client.Fetch(t.Context(), again, dir, fetch.Options{})
		if err != nil || file.Downloaded != int64(len(a))-700_000 || file.SHA256 != sha(a) {
			t.Errorf("got %+v, %v", file, err)
		}
		if diff := cmp.Diff([]string{"", "bytes=700000-"}, w.ranges()); diff != "" {
			t.Errorf("ranges (-want +got):\n%s", diff)
		}
	})
}

// Parts that are not of this file, or were damaged, do no harm.
func TestStrangeParts(t *testing.T) {
	a := blob(t, 1)
	state := fmt.Sprintf(`{"source":"http://files.test/dir/m.gguf","bytes":%d,"sha256":%q,"validator":"\"%.8s\""}`, len(a), sha(a), sha(a))
	for name, tt := range map[string]struct {
		part, state string
		ranges      []string
	}{
		"of another source": {string(a[:99]), strings.Replace(state, "dir", "other", 1), []string{""}},
		"without state":     {string(a[:99]), "", []string{""}},
		"garbled state":     {string(a[:99]), `{"bytes":-1`, []string{""}},
		"too long":          {string(a) + "x", state, []string{""}},
		"damaged":           {strings.Repeat("x", 99), state, []string{"bytes=99-", ""}},
		"whole":             {string(a), state, nil},
		"empty":             {"", state, []string{""}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, dir := newWorld(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { serve(rw, r, a) })), t.TempDir()
				write(t, filepath.Join(dir, "m.gguf.part"), tt.part)
				if tt.state != "" {
					write(t, filepath.Join(dir, "m.gguf.part.json"), tt.state)
				}
				file, err := w.client.Fetch(t.Context(), pinned(t, plainURL, sha(a)), dir, fetch.Options{})
				if err != nil || file.SHA256 != sha(a) {
					t.Fatalf("got %+v, %v", file, err)
				}
				if diff := cmp.Diff(tt.ranges, w.ranges()); diff != "" {
					t.Errorf("ranges (-want +got):\n%s", diff)
				}
				leftovers(t, dir, ".m.gguf.json", "m.gguf")
			})
		})
	}
}

// What is there is verified, and kept or moved aside.
func TestExistingFile(t *testing.T) {
	a, b := blob(t, 1), blob(t, 2)
	hub := func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("X-Linked-Etag", `"`+sha(a)+`"`)
		serve(rw, r, a)
	}
	for name, tt := range map[string]struct {
		there  []byte
		answer http.HandlerFunc
		pinned string
		ranges []string
		aside  bool
	}{
		"sound":                   {a, hub, "", []string{"bytes=0-0"}, false},
		"sound and pinned":        {a, hub, sha(a), nil, false},
		"server dead":             {a, status(404), "", []string{"bytes=0-0"}, false},
		"bit flipped":             {b, hub, "", []string{"bytes=0-0", ""}, true},
		"bit flipped, pinned":     {b, hub, sha(a), []string{""}, true},
		"truncated":               {a[:9000], hub, "", []string{""}, true},
		"longer":                  {append(bytes.Clone(a), 0), hub, "", []string{"bytes=0-0", ""}, true},
		"empty":                   {nil, hub, "", []string{""}, true},
		"something else entirely": {[]byte("<html>"), hub, sha(a), []string{""}, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, dir := newWorld(t, tt.answer), t.TempDir()
				write(t, filepath.Join(dir, "m.gguf"), string(tt.there))
				file, err := w.client.Fetch(t.Context(), pinned(t, "hf:u/r/m.gguf", tt.pinned), dir, fetch.Options{})
				if err != nil || file.Bytes != int64(len(a)) || file.Header.Architecture() != "llama" {
					t.Fatalf("got %+v, %v", file, err)
				}
				if diff := cmp.Diff(tt.ranges, w.ranges()); diff != "" {
					t.Errorf("ranges (-want +got):\n%s", diff)
				}
				aside, err := filepath.Glob(filepath.Join(dir, "m.gguf.corrupt-*"))
				if err != nil || len(aside) == 1 != tt.aside {
					t.Errorf("aside: %v, %v", aside, err)
				}
			})
		})
	}
}

// A file belongs to its source. Another address of the same name never gets it
// unproven, and nothing that a server sends harms it before a complete and valid
// replacement is here.
func TestFileOfAnotherSource(t *testing.T) {
	a, b := blob(t, 1), blob(t, 2)
	const plain, other = "http://one.example/m.gguf", "http://two.example/m.gguf"
	for name, tt := range map[string]struct {
		answer http.HandlerFunc // of the other address
		want   error            // nil: b
		left   []byte
	}{
		"another file": {func(rw http.ResponseWriter, r *http.Request) { serve(rw, r, b) }, nil, b},
		"not found":    {status(404), fetch.ErrNotFound, a},
		"forbidden":    {status(403), fetch.ErrRefused, a},
		"a page":       {func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write([]byte("<html>log in")) }, gguf.ErrNotGGUF, a},
		"broken off": {func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Content-Length", strconv.Itoa(len(b)))
			_, _ = rw.Write(b[:100])
			panic(http.ErrAbortHandler)
		}, fetch.ErrUnavailable, a},
		"failing": {status(500), fetch.ErrUnavailable, a},
		"cut":     {func(rw http.ResponseWriter, r *http.Request) { serve(rw, r, b[:len(b)-8]) }, gguf.ErrTruncated, a},
		"garbage": {func(rw http.ResponseWriter, r *http.Request) { serve(rw, r, append([]byte("GGUF"), b[1000:]...)) }, gguf.ErrUnsupported, a},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, dir := newWorld(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
					if r.Host == "one.example" {
						serve(rw, r, a)
						return
					}
					tt.answer(rw, r)
				})), t.TempDir()
				if _, err := w.client.Fetch(t.Context(), parse(t, plain), dir, fetch.Options{}); err != nil {
					t.Fatal(err)
				}
				file, err := w.client.Fetch(t.Context(), parse(t, other), dir, fetch.Options{})
				if !errors.Is(err, tt.want) || err == nil && file.SHA256 != sha(b) {
					t.Errorf("got %+v, %v; want %v", file, err, tt.want)
				}
				left, err := os.ReadFile(filepath.Join(dir, "m.gguf"))
				if err != nil || !bytes.Equal(left, tt.left) {
					t.Errorf("the file that is there is another one, %v", err)
				}
				// The replaced file is kept, and not called corrupt.
				aside, err := filepath.Glob(filepath.Join(dir, "m.gguf.[oc]*"))
				if err != nil || len(aside) == 1 != (tt.want == nil) {
					t.Fatalf("moved aside: %v, %v", aside, err)
				}
				if len(aside) > 0 {
					kept, err := os.ReadFile(aside[0])
					if err != nil || !bytes.Equal(kept, a) || !strings.Contains(aside[0], "m.gguf.other-") {
						t.Errorf("%s has %d bytes, %v", aside[0], len(kept), err)
					}
				}
			})
		})
	}
}

// What was downloaded is verified by its record, without the network.
func TestRecord(t *testing.T) {
	a := blob(t, 1)
	synctest.Test(t, func(t *testing.T) {
		w, dir := newWorld(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { serve(rw, r, a) })), t.TempDir()
		src, path := parse(t, plainURL), filepath.Join(dir, "m.gguf")
		get := func(opts fetch.Options) fetch.File {
			file, err := w.client.Fetch(t.Context(), src, dir, opts)
			if err != nil {
				t.Fatal(err)
			}
			return file
		}
		if got := get(fetch.Options{}); got.Downloaded != int64(len(a)) {
			t.Errorf("downloaded %d bytes", got.Downloaded)
		}
		if got := get(fetch.Options{}); got.Downloaded != 0 || got.SHA256 != sha(a) || len(w.ranges()) != 1 {
			t.Errorf("got %+v after requests %v", got, w.ranges())
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		damaged := bytes.Clone(a)
		damaged[len(damaged)-1] ^= 1
		write(t, path, string(damaged))
		if err := os.Chtimes(path, time.Time{}, info.ModTime()); err != nil {
			t.Fatal(err)
		}
		if got := get(fetch.Options{TrustUnchanged: true}); got.Downloaded != 0 {
			t.Errorf("trusted, but downloaded %d bytes", got.Downloaded)
		}
		if got := get(fetch.Options{}); got.Downloaded != int64(len(a)) {
			t.Errorf("damaged, but downloaded %d bytes", got.Downloaded)
		}
		leftovers(t, dir, ".m.gguf.json", "m.gguf", "m.gguf.corrupt-*")
	})
}

// Links are followed to read and never to write.
func TestLinks(t *testing.T) {
	a := blob(t, 1)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { serve(rw, r, a) }))
		src := parse(t, plainURL)
		target := filepath.Join(t.TempDir(), "elsewhere")
		for content, downloaded := range map[string]int64{string(a): 0, "precious": int64(len(a)), "": int64(len(a))} {
			dir := t.TempDir()
			if err := os.Remove(target); err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			if content != "" { // else the link dangles
				write(t, target, content)
			}
			if err := os.Symlink(target, filepath.Join(dir, "m.gguf")); err != nil {
				t.Fatal(err)
			}
			file, err := w.client.Fetch(t.Context(), pinned(t, plainURL, sha(a)), dir, fetch.Options{})
			if err != nil || file.Downloaded != downloaded {
				t.Errorf("got %+v, %v", file, err)
			}
			if got, _ := os.ReadFile(target); string(got) != content {
				t.Errorf("the link's target holds %d bytes", len(got))
			}
		}
		dir := t.TempDir()
		if err := os.Symlink(target, filepath.Join(dir, "m.gguf.part")); err != nil {
			t.Fatal(err)
		}
		if _, err := w.client.Fetch(t.Context(), src, dir, fetch.Options{}); err == nil {
			t.Error("wrote through a link")
		}
	})
}

func TestTwoAtOnce(t *testing.T) {
	a := blob(t, 1)
	synctest.Test(t, func(t *testing.T) {
		w, dir := newWorld(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			time.Sleep(3 * time.Second)
			serve(rw, r, a)
		})), t.TempDir()
		src := parse(t, plainURL)
		files := make(chan fetch.File, 2)
		for range 2 {
			go func() {
				file, err := w.client.Fetch(t.Context(), src, dir, fetch.Options{})
				if err != nil {
					t.Error(err)
				}
				files <- file
			}()
		}
		if sum := (<-files).Downloaded + (<-files).Downloaded; sum != int64(len(a)) || len(w.ranges()) != 1 {
			t.Errorf("%d bytes in requests %v", sum, w.ranges())
		}
		leftovers(t, dir, ".m.gguf.json", "m.gguf")
	})
}

// The gate pauses, which counts neither as a stall nor as hopeless.
func TestGate(t *testing.T) {
	a := blob(t, 1)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { serve(rw, r, a) }))
		var gate fetch.Gate
		gate.Pause()
		gate.Pause()
		start := time.Now()
		go func() {
			time.Sleep(time.Minute)
			gate.Resume()
			gate.Resume()
		}()
		opts := fetch.Options{Gate: &gate, Deadline: start.Add(200 * time.Second)}
		file, err := w.client.Fetch(t.Context(), parse(t, plainURL), t.TempDir(), opts)
		if err != nil || file.Retries != 0 {
			t.Fatalf("got %+v, %v", file, err)
		}
		if took := time.Since(start); took < time.Minute || took > 61*time.Second {
			t.Errorf("took %v", took)
		}
		gate.Pause()
		opts.Deadline = time.Now().Add(10 * time.Second)
		if _, err := w.client.Fetch(t.Context(), parse(t, plainURL), t.TempDir(), opts); !errors.Is(err, fetch.ErrHopeless) {
			t.Errorf("at the deadline: %v", err)
		}
	})
}

func TestProbeAndHeader(t *testing.T) {
	a := blob(t, 1)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, script(status(503), func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("X-Linked-Etag", `"`+strings.ToUpper(sha(a))+`"`)
			serve(rw, r, a)
		}))
		src := parse(t, "http://hub.test/u/r/blob/main/m.gguf")
		remote, err := w.client.Probe(t.Context(), src)
		if err != nil || remote.Bytes != int64(len(a)) || remote.SHA256 != sha(a) {
			t.Errorf("got %+v, %v", remote, err)
		}
		if got := w.requests[0].Path; got != "/u/r/resolve/main/m.gguf" {
			t.Errorf("asked for %s", got)
		}
		header, again, err := w.client.Header(t.Context(), src)
		if err != nil || header.Params() != 1<<18 || again != remote {
			t.Errorf("got %v, %+v, %v", header, again, err)
		}
		w = newWorld(t, status(403))
		if _, err := w.client.Probe(t.Context(), src); !errors.Is(err, fetch.ErrRefused) || len(w.requests) != 1 {
			t.Errorf("got %v", err)
		}
		w = newWorld(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(rw, "{}") }))
		if _, _, err := w.client.Header(t.Context(), src); !errors.Is(err, gguf.ErrNotGGUF) {
			t.Errorf("got %v", err)
		}
	})
}

func TestLocalSource(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.gguf")
	write(t, path, string(blob(t, 1)))
	file, err := new(fetch.Client).Fetch(t.Context(), parse(t, path), "", fetch.Options{})
	if err != nil || file.Path != path {
		t.Errorf("got %+v, %v", file, err)
	}
	if _, err := new(fetch.Client).Fetch(t.Context(), parse(t, path+"x"), "", fetch.Options{}); !errors.Is(err, fetch.ErrNotFound) {
		t.Errorf("got %v", err)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// leftovers checks what is in a directory.
func leftovers(t *testing.T, dir string, patterns ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range entries {
		if ok, _ := filepath.Match(append(patterns, make([]string, len(entries))...)[i], e.Name()); !ok {
			t.Errorf("%s in the directory, want %v", e.Name(), patterns)
		}
	}
	if len(entries) < len(patterns) {
		t.Errorf("%d files in the directory, want %v", len(entries), patterns)
	}
}

// silent checks that no secret got into a text.
func silent(t *testing.T, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if strings.Contains(text, "s3cret") || strings.Contains(text, "hf_t0ken") {
			t.Errorf("a secret in %s", text)
		}
	}
}
