package fetch_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench/fetch"
	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/source"
)

// paths answers each path by its own function.
func paths(answers map[string]http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if answer := answers[r.URL.Path]; answer != nil {
			answer(rw, r)
			return
		}
		http.NotFound(rw, r)
	})
}

// slowly serves at a rate in bytes per second.
func slowly(b []byte, bytesPerSecond float64) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) { serve(&limited{rw, bytesPerSecond}, r, b) }
}

type limited struct {
	http.ResponseWriter
	bytesPerSecond float64
}

func (l *limited) Write(p []byte) (written int, err error) {
	for len(p) > 0 && err == nil {
		n := min(len(p), 4<<10)
		time.Sleep(time.Duration(float64(n) / l.bytesPerSecond * float64(time.Second)))
		n, err = l.ResponseWriter.Write(p[:n])
		_ = http.NewResponseController(l.ResponseWriter).Flush()
		written, p = written+n, p[n:]
	}
	return written, err
}

func sources(t *testing.T, texts ...string) (all []source.Source) {
	t.Helper()
	for _, text := range texts {
		all = append(all, parse(t, text))
	}
	return all
}

// Files come in order, local ones at once; what fails is told by its Wait and
// stops no other.
func TestQueue(t *testing.T) {
	a, b := blob(t, 1), blob(t, 2)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, paths(map[string]http.HandlerFunc{
			"/a.gguf":    slowly(a, 1e5),
			"/b.gguf":    slowly(b, 1e5),
			"/html.gguf": func(rw http.ResponseWriter, r *http.Request) { serve(rw, r, []byte("<html>")) },
		}))
		dir := t.TempDir()
		local := filepath.Join(dir, "local.gguf")
		write(t, local, string(a))
		q := w.client.Prefetch(t.Context(), sources(t, "http://x.test/a.gguf?k=s3cret", "http://x.test/none.gguf?k=s3cret", "http://x.test/html.gguf", "http://x.test/b.gguf", local),
			fetch.QueueOptions{Dir: dir})
		defer q.Close()
		start := time.Now()
		if f, err := q.Wait(t.Context(), 4, time.Time{}); err != nil || f.Path != local || time.Since(start) != 0 {
			t.Errorf("got %+v, %v after %v", f, err, time.Since(start))
		}
		if time.Sleep(time.Minute); len(w.ranges()) != 0 {
			t.Error("downloaded before Start")
		}
		q.Start()
		time.Sleep(5 * time.Second)
		if s := q.State(); s.Item != 0 || s.Progress.Done == 0 || s.Hold != fetch.Free {
			t.Errorf("state %+v", s)
		}
		time.Sleep(time.Minute)
		for i, want := range map[int]error{0: nil, 1: fetch.ErrNotFound, 2: gguf.ErrNotGGUF, 3: nil} {
			start := time.Now()
			f, err := q.Wait(t.Context(), i, time.Time{})
			if !errors.Is(err, want) || err == nil && f.Bytes == 0 || time.Since(start) != 0 {
				t.Errorf("item %d: %+v, %v after %v", i, f, err, time.Since(start))
			}
			silent(t, fmt.Sprint(err))
		}
		if _, err := q.Wait(t.Context(), 5, time.Time{}); err == nil {
			t.Error("there is no item 5")
		}
		want := []string{"/a.gguf", "/none.gguf", "/html.gguf", "/b.gguf"}
		if diff := cmp.Diff(want, w.paths()); diff != "" {
			t.Errorf("requests (-want +got):\n%s", diff)
		}
		silent(t, w.log.String())
	})
}

// The file that is waited for comes first; the one that was under way goes on later.
func TestWaitComesFirst(t *testing.T) {
	a, b := blob(t, 1), blob(t, 2)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, paths(map[string]http.HandlerFunc{"/a.gguf": slowly(a, 1e4), "/b.gguf": slowly(b, 1e6)}))
		q := w.client.Prefetch(t.Context(), sources(t, "http://x.test/a.gguf", "http://x.test/b.gguf"), fetch.QueueOptions{Dir: t.TempDir()})
		defer q.Close()
		q.Start()
		time.Sleep(10 * time.Second)
		q.Timing(true) // and nothing holds back who waits
		start := time.Now()
		if f, err := q.Wait(t.Context(), 1, start.Add(time.Minute)); err != nil || f.SHA256 != sha(b) || time.Since(start) > 2*time.Second {
			t.Errorf("got %+v, %v after %v", f, err, time.Since(start))
		}
		q.Timing(false)
		f, err := q.Wait(t.Context(), 0, time.Time{})
		if err != nil || f.SHA256 != sha(a) || f.Downloaded >= int64(len(a)) {
			t.Errorf("got %+v, %v", f, err)
		}
		if r := w.ranges(); len(r) != 3 || !strings.HasPrefix(r[2], "bytes=") {
			t.Errorf("requests %q", r)
		}
	})
}

func TestClose(t *testing.T) {
	a := blob(t, 1)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, paths(map[string]http.HandlerFunc{"/a.gguf": slowly(a, 1e4), "/b.gguf": slowly(a, 1e4)}))
		dir := t.TempDir()
		q := w.client.Prefetch(t.Context(), sources(t, "http://x.test/a.gguf", "http://x.test/b.gguf", "http://x.test/c.gguf"), fetch.QueueOptions{Dir: dir})
		q.Start()
		time.Sleep(10 * time.Second)
		waited := make(chan error)
		for i := range 2 {
			go func() {
				_, err := q.Wait(context.Background(), i, time.Time{})
				waited <- err
			}()
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		if _, err := q.Wait(ctx, 2, time.Time{}); !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, fetch.ErrNotFound) {
			t.Errorf("got %v", err)
		}
		cancel()
		q.Close()
		for range 2 {
			if err := <-waited; !errors.Is(err, fetch.ErrClosed) {
				t.Errorf("got %v", err)
			}
		}
		if _, err := os.Stat(filepath.Join(dir, "a.gguf.part")); err != nil {
			t.Errorf("the part is gone: %v", err)
		}
		q.Close()
		q.Timing(true)
		q.Expect(time.Hour)
		if _, err := q.Wait(t.Context(), 1, time.Time{}); !errors.Is(err, fetch.ErrClosed) {
			t.Errorf("got %v", err)
		}
	})
	// A queue that never started, and one whose context ended.
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, http.NotFoundHandler())
		q := w.client.Prefetch(t.Context(), sources(t, "http://x.test/a.gguf"), fetch.QueueOptions{Dir: t.TempDir()})
		q.Close()
		q.Start()
		if _, err := q.Wait(t.Context(), 0, time.Time{}); !errors.Is(err, fetch.ErrClosed) {
			t.Errorf("got %v", err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		enough := errors.New("enough")
		q = w.client.Prefetch(ctx, sources(t, "http://x.test/a.gguf"), fetch.QueueOptions{Dir: t.TempDir()})
		cancel(enough)
		if _, err := q.Wait(t.Context(), 0, time.Time{}); !errors.Is(err, enough) {
			t.Errorf("got %v", err)
		}
		q.Close()
	})
}

// A download that cannot end in time is given up within seconds of the Wait, and
// what happened beside a test is not held against it.
func TestWaitGivesUp(t *testing.T) {
	a := blob(t, 1)
	for name, tt := range map[string]struct {
		answer http.HandlerFunc
		before time.Duration // in the background
		budget time.Duration
		want   error
		within time.Duration
	}{
		"slow":                      {slowly(a, 1e3), 0, 5 * time.Minute, fetch.ErrHopeless, 15 * time.Second},
		"slow for long":             {slowly(a, 1e3), time.Minute, 5 * time.Minute, fetch.ErrHopeless, 15 * time.Second},
		"slow and not hopeless":     {slowly(a, 1e4), time.Minute, time.Minute, nil, time.Minute},
		"deadline":                  {slowly(a, 1e4), 0, 90 * time.Second, fetch.ErrHopeless, 91 * time.Second},
		"stalls":                    {func(rw http.ResponseWriter, r *http.Request) { part(rw, r, a, 0, true) }, 0, time.Hour, fetch.ErrHopeless, 30 * time.Second},
		"503":                       {status(503), 0, time.Hour, fetch.ErrUnavailable, 30 * time.Second},
		"503 for long":              {status(503), 5 * time.Minute, time.Hour, fetch.ErrUnavailable, 30 * time.Second},
		"wants to be left alone":    {status(429, "Retry-After", "3600"), 0, 5 * time.Minute, fetch.ErrHopeless, time.Second},
		"and wanted it before":      {status(429, "Retry-After", "3600"), time.Minute, 5 * time.Minute, fetch.ErrHopeless, time.Second},
		"and not for so very long":  {script(status(429, "Retry-After", "30"), slowly(a, 1e6)).ServeHTTP, 0, time.Minute, nil, 40 * time.Second},
		"down in the background":    {script(slices.Concat(slices.Repeat([]http.HandlerFunc{status(503)}, 6), []http.HandlerFunc{slowly(a, 1e6)})...).ServeHTTP, time.Minute, time.Minute, nil, 5 * time.Second},
		"starved in the background": {script(func(rw http.ResponseWriter, r *http.Request) { part(&limited{rw, 500}, r, a, 50_000, false) }, slowly(a, 1e6)).ServeHTTP, 95 * time.Second, time.Minute, nil, 20 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, tt.answer)
				q := w.client.Prefetch(t.Context(), sources(t, plainURL), fetch.QueueOptions{Dir: t.TempDir()})
				defer q.Close()
				q.Start()
				time.Sleep(tt.before)
				start := time.Now()
				f, err := q.Wait(t.Context(), 0, start.Add(tt.budget))
				if !errors.Is(err, tt.want) || err == nil && f.SHA256 != sha(a) {
					t.Errorf("got %+v, %v", f, err)
				}
				if took := time.Since(start); took > tt.within {
					t.Errorf("after %v", took)
				}
				silent(t, fmt.Sprint(err), w.log.String())
			})
		})
	}
}

// A server that wants to be left alone for long does not keep other files away.
func TestRetryAfterDoesNotBlockOthers(t *testing.T) {
	a := blob(t, 1)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, paths(map[string]http.HandlerFunc{
			"/a.gguf": script(status(429, "Retry-After", "600"), slowly(a, 1e6)).ServeHTTP, "/b.gguf": slowly(a, 1e6)}))
		dir := t.TempDir()
		q := w.client.Prefetch(t.Context(), sources(t, "http://x.test/a.gguf", "http://x.test/b.gguf"), fetch.QueueOptions{Dir: dir})
		defer q.Close()
		q.Start()
		time.Sleep(5 * time.Second)
		if _, err := os.Stat(filepath.Join(dir, "b.gguf")); err != nil {
			t.Error(err)
		}
		time.Sleep(600 * time.Second)
		if _, err := os.Stat(filepath.Join(dir, "a.gguf")); err != nil {
			t.Error(err)
		}
	})
}

// While a repetition is timed: paused or free, as told or as there are
// CPUs; short gaps between repetitions do not open the gate.
func TestTiming(t *testing.T) {
	a := blob(t, 1)
	for name, tt := range map[string]struct {
		o        fetch.QueueOptions
		hold     fetch.Hold
		min, max int64 // bytes in ten seconds
	}{
		"paused":     {fetch.QueueOptions{Force: fetch.Paused}, fetch.Paused, 0, 8 << 10},
		"free":       {fetch.QueueOptions{Force: fetch.Free}, fetch.Free, 150_000, 210_000},
		"spare CPUs": {fetch.QueueOptions{SpareCPUs: true}, fetch.Free, 150_000, 210_000},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, slowly(a, 2e4))
				tt.o.Dir = t.TempDir()
				q := w.client.Prefetch(t.Context(), sources(t, plainURL), tt.o)
				defer q.Close()
				q.Start()
				time.Sleep(5 * time.Second)
				q.Timing(true)
				time.Sleep(time.Second)
				before, passed := q.State(), q.Passed()
				if before.Hold != tt.hold {
					t.Errorf("state %+v", before)
				}
				for range 10 {
					time.Sleep(time.Second)
					q.Timing(false)
					time.Sleep(2 * time.Millisecond)
					if got := q.State().Hold; got != tt.hold {
						t.Errorf("%v in a short gap", got)
					}
					q.Timing(true)
				}
				if tt.hold == fetch.Paused != (q.Passed() == passed) {
					t.Errorf("%d bytes passed", q.Passed()-passed)
				}
				time.Sleep(2 * time.Second) // for progress
				if got := q.State().Progress.Done - before.Progress.Done; got < tt.min || got > tt.max+48_000 {
					t.Errorf("%d bytes", got)
				}
				q.Timing(false)
				time.Sleep(200 * time.Millisecond)
				if got := q.State().Hold; got != fetch.Free {
					t.Errorf("%v after the repetition", got)
				}
			})
		})
	}
}

// A whole run in miniature, in false time: keeping downloads off repetitions
// makes it at most 5 % longer, over an average link and a slow one.
func TestWallOfARun(t *testing.T) {
	const scale = 2000 // of bytes and rates; time is as it is
	run := []struct {
		bytes float64
		tests time.Duration
	}{
		{1.05e8, 60 * time.Second}, {4.07e8, 90 * time.Second}, {1.5e9, 150 * time.Second},
		{4.08e9, 250 * time.Second}, {9.05e9, 400 * time.Second},
	}
	urls := make([]string, len(run))
	answers := make(map[string][]byte)
	for i, m := range run {
		name := fmt.Sprintf("/m%d.gguf", i)
		urls[i] = "http://x.test" + name
		answers[name] = sized(t, int(m.bytes/scale))
	}
	wall := func(t *testing.T, link float64, spare bool) (took time.Duration) {
		synctest.Test(t, func(t *testing.T) {
			handlers := make(map[string]http.HandlerFunc)
			for name, b := range answers {
				handlers[name] = slowly(b, link/scale)
			}
			w := newWorld(t, paths(handlers))
			dir, start := t.TempDir(), time.Now()
			sizes, err := w.client.Sizes(t.Context(), sources(t, urls...), dir)
			if err != nil {
				t.Fatal(err)
			}
			q := w.client.Prefetch(t.Context(), sources(t, urls...), fetch.QueueOptions{Dir: dir, Sizes: sizes, SpareCPUs: spare})
			defer q.Close()
			for i, m := range run {
				if _, err := q.Wait(t.Context(), i, time.Time{}); err != nil {
					t.Fatal(err)
				}
				for end := time.Now().Add(m.tests); time.Now().Before(end); {
					q.Expect(time.Until(end))
					time.Sleep(time.Second)
					q.Timing(true)
					time.Sleep(8 * time.Second)
					q.Timing(false)
				}
			}
			took = time.Since(start)
		})
		return took
	}
	for _, link := range []float64{158e6, 11.7e6} {
		free, kept := wall(t, link, true), wall(t, link, false)
		ratio := kept.Seconds() / free.Seconds()
		t.Logf("%.1f MB/s: %v unrestricted, %v kept off, ratio %.3f", link/1e6, free, kept, ratio)
		if ratio > 1.05 {
			t.Errorf("%.1f MB/s: ratio %.3f", link/1e6, ratio)
		}
	}
}

// sized is a small valid file of about n bytes.
func sized(t testing.TB, n int) []byte {
	t.Helper()
	f, err := gguf.New([]gguf.KeyValue{{Key: "general.architecture", Value: "llama"}},
		[]gguf.Tensor{{Name: "w", Dims: []uint64{uint64(n / 4 &^ 31)}, Type: gguf.F32}})
	if err != nil {
		t.Fatal(err)
	}
	b, err := f.Header()
	if err != nil {
		t.Fatal(err)
	}
	return append(b, make([]byte, f.Size()-f.DataOffset)...)
}

// Before the first byte: what is missing, and the room for it.
func TestSizes(t *testing.T) {
	a := blob(t, 1)
	size := int64(len(a))
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "none") {
				http.NotFound(rw, r)
				return
			}
			serve(rw, r, a)
		}))
		w.client.FreeBytes = func(string) (int64, error) { return 2*size + fetch.DefaultReserveBytes, nil }
		dir := t.TempDir()
		local := filepath.Join(t.TempDir(), "local.gguf")
		write(t, local, string(a))
		write(t, filepath.Join(dir, "here.gguf"), string(a))
		write(t, filepath.Join(dir, "half.gguf.part"), string(a[:1000]))
		write(t, filepath.Join(dir, "half.gguf.part.json"), fmt.Sprintf(`{"source":"http://x.test/half.gguf","bytes":%d,"validator":"\"%.8s\""}`, size, sha(a)))
		write(t, filepath.Join(dir, "broken.gguf"), string(a[:1000]))
		got, err := w.client.Sizes(t.Context(), sources(t, local, "http://x.test/here.gguf", "http://x.test/half.gguf", "http://x.test/none.gguf",
			"http://x.test/broken.gguf", "http://x.test/new.gguf"), dir)
		if err != nil {
			t.Fatal(err)
		}
		if !errors.Is(got[3].Err, fetch.ErrNotFound) {
			t.Errorf("got %v", got[3].Err)
		}
		got[3].Err = nil
		want := []fetch.Size{
			{Bytes: size}, {Bytes: size}, {Bytes: size, Missing: size - 1000, Files: 1}, {}, {Bytes: size, Missing: size, Files: 1},
			{Bytes: size, Missing: size, Files: 1},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if room, err := w.client.Room(dir); err != nil || room != 2*size {
			t.Errorf("room for %d bytes, %v", room, err)
		}
		w.client.FreeBytes = func(string) (int64, error) { return fetch.DefaultReserveBytes - 1, nil }
		if room, err := w.client.Room(dir); err != nil || room != 0 {
			t.Errorf("room for %d bytes, %v", room, err)
		}
		ended, cancel := context.WithCancelCause(t.Context())
		enough := errors.New("enough")
		cancel(enough)
		if sizes, err := w.client.Sizes(ended, sources(t, "http://x.test/new.gguf"), dir); !errors.Is(err, enough) || sizes != nil {
			t.Errorf("got %v, %v", sizes, err)
		}
		for _, r := range w.ranges() {
			if r != "bytes=0-0" {
				t.Errorf("asked for %s", r)
			}
		}
	})
	if room, err := new(fetch.Client).Room(filepath.Join(t.TempDir(), "not/yet/there")); err != nil || room == 0 {
		t.Errorf("room for %d bytes, %v", room, err)
	}
}

func TestReadIn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.gguf")
	write(t, path, string(bytes.Repeat([]byte("x"), 5<<20)))
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, tt := range map[string]struct {
		ctx       context.Context
		path      string
		available int64
		read      int64
		err       error
	}{
		"whole":            {t.Context(), path, 0, 5 << 20, nil},
		"fits":             {t.Context(), path, 5 << 20, 5 << 20, nil},
		"larger than free": {t.Context(), path, 5<<20 - 1, 0, nil},
		"cancelled":        {ended, path, 0, 1 << 20, context.Canceled},
		"missing":          {t.Context(), path + "x", 0, 0, os.ErrNotExist},
	} {
		t.Run(name, func(t *testing.T) {
			read, err := fetch.ReadIn(tt.ctx, []string{tt.path}, fetch.ReadInOptions{AvailableBytes: tt.available})
			if read != tt.read || !errors.Is(err, tt.err) {
				t.Errorf("read %d, %v", read, err)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		slow := &slowReader{perRead: time.Second}
		if read, err := fetch.ReadInReader(t.Context(), slow, 10*time.Second); err != nil || read != 10<<20 {
			t.Errorf("read %d, %v", read, err)
		}
	})
}

type slowReader struct {
	perRead time.Duration
}

func (s *slowReader) Read(p []byte) (int, error) {
	time.Sleep(s.perRead)
	return len(p), nil
}
