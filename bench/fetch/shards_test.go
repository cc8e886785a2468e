package fetch_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench/fetch"
	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/source"
)

// shards are the files of a model of a megabyte in each, in order; seed changes
// their data.
func shards(t testing.TB, count int, seed byte) [][]byte {
	t.Helper()
	files := make([][]byte, count)
	for i := range files {
		kv := []gguf.KeyValue{
			{Key: "split.no", Value: uint16(i)}, {Key: "split.count", Value: uint16(count)}, {Key: "split.tensors.count", Value: int32(count)},
		}
		if i == 0 {
			kv = append(kv, gguf.KeyValue{Key: "general.architecture", Value: "llama"})
		}
		f, err := gguf.New(kv, []gguf.Tensor{{Name: fmt.Sprintf("w%d", i), Dims: []uint64{1 << 18}, Type: gguf.F32}})
		if err != nil {
			t.Fatal(err)
		}
		if files[i], err = f.Header(); err != nil {
			t.Fatal(err)
		}
		files[i] = append(files[i], bytes.Repeat([]byte{seed, byte(i)}, 1<<19)...)
	}
	return files
}

func shardName(no, count int) string { return fmt.Sprintf("m-%05d-of-%05d.gguf", no, count) }

// hosted answers for shards, each whole at its own path.
func hosted(files [][]byte) map[string]http.HandlerFunc {
	answers := make(map[string]http.HandlerFunc)
	for i, b := range files {
		answers["/dir/"+shardName(i+1, len(files))] = func(rw http.ResponseWriter, r *http.Request) { serve(rw, r, b) }
	}
	return answers
}

// bodies are the requests for more than a header, as "number of the file, range".
func (w *world) bodies() (all []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.requests {
		if !strings.HasPrefix(r.Range, "bytes=0-") {
			all = append(all, strings.TrimLeft(r.Path[len("/dir/m-"):len("/dir/m-00001")], "0")+" "+r.Range)
		}
	}
	return all
}

const shardsURL = "http://files.test/dir/m-00001-of-00003.gguf?sig=s3cret"

// All files of a model are fetched by the name of the first, one after the
// other, verified, and counted as one; again, the server is not needed.
func TestShards(t *testing.T) {
	files := shards(t, 3, 1)
	sum := int64(3*len(files[1])) + int64(len(files[0])-len(files[1]))
	synctest.Test(t, func(t *testing.T) {
		answers := hosted(files)
		third := "/dir/" + shardName(3, 3)
		answers[third] = script(answers[third], status(503), func(rw http.ResponseWriter, r *http.Request) { part(rw, r, files[2], 5000, false) }, answers[third]).ServeHTTP
		w, dir := newWorld(t, paths(answers)), t.TempDir()
		var told []fetch.Progress
		file, err := w.client.Fetch(t.Context(), parse(t, shardsURL), dir, fetch.Options{Progress: func(p fetch.Progress) { told = append(told, p) }})
		if err != nil {
			t.Fatalf("%v\n%s", err, &w.log)
		}
		var paths []string
		for i, b := range files {
			paths = append(paths, filepath.Join(dir, shardName(i+1, 3)))
			if got, err := os.ReadFile(paths[i]); err != nil || !bytes.Equal(got, b) {
				t.Errorf("%s: wrong content, %v", paths[i], err)
			}
		}
		if diff := cmp.Diff(paths, file.Paths); diff != "" || file.Path != paths[0] {
			t.Errorf("path %s, paths (-want +got):\n%s", file.Path, diff)
		}
		if file.Bytes != sum || file.Downloaded != sum || file.Retries != 2 || file.Header.Params() != 3<<18 || file.Header.Shards() != 1 {
			t.Errorf("%d bytes, %d downloaded, %d retries, header of %d parameters", file.Bytes, file.Downloaded, file.Retries, file.Header.Params())
		}
		if diff := cmp.Diff([]string{"1 ", "2 ", "3 ", "3 ", "3 bytes=5000-"}, w.bodies()); diff != "" {
			t.Errorf("requests (-want +got):\n%s", diff)
		}
		for i, p := range told {
			if p.Total != sum || i > 0 && (p.Done < told[i-1].Done || p.Retries < told[i-1].Retries) {
				t.Errorf("progress %+v", told)
			}
		}
		if last := told[len(told)-1]; last.Done != sum || last.Retries != 2 {
			t.Errorf("last progress %+v", last)
		}
		leftovers(t, dir, ".m-*-of-00003.gguf.json", ".m-*", ".m-*", shardName(1, 3), shardName(2, 3), shardName(3, 3))
		asked := len(w.ranges())
		again, err := w.client.Fetch(t.Context(), parse(t, shardsURL), dir, fetch.Options{})
		if err != nil || again.Downloaded != 0 || again.Bytes != sum || len(w.ranges()) != asked {
			t.Errorf("again: %+v, %v, %d requests", again, err, len(w.ranges())-asked)
		}
		silent(t, w.log.String())
	})
}

// What cannot become a model is found before a byte of it is fetched, and said
// in one line.
func TestShardsRefused(t *testing.T) {
	files, other, two := shards(t, 3, 1), shards(t, 4, 2), shards(t, 2, 3)
	size := int64(len(files[0]))
	as := func(b []byte) http.HandlerFunc {
		return func(rw http.ResponseWriter, r *http.Request) { serve(rw, r, b) }
	}
	for name, tt := range map[string]struct {
		number  int // of the file that is another, or that is given
		answer  http.HandlerFunc
		given   int
		free    int64 // bytes
		options pinnedOptions
		kind    error
		text    string
	}{
		"missing": {3, http.NotFound, 1, 1 << 40, pinnedOptions{}, fetch.ErrNotFound,
			"m-00001-of-00003.gguf: one of 3 files: http://files.test/dir/m-00003-of-00003.gguf: 404 not found: no such file"},
		"gated":            {2, status(403), 1, 1 << 40, pinnedOptions{}, fetch.ErrRefused, "one of 3 files: http://files.test/dir/m-00002-of-00003.gguf: 403"},
		"more by name":     {1, as(two[0]), 1, 1 << 40, pinnedOptions{}, gguf.ErrCorrupt, `"m-00001-of-00003.gguf" is one of 2 files by its header, and of 3 by its name`},
		"fewer by name":    {1, as(other[0]), 1, 1 << 40, pinnedOptions{}, gguf.ErrCorrupt, `"m-00001-of-00003.gguf" is one of 4 files by its header, and of 3 by its name`},
		"of another model": {2, as(other[1]), 1, 1 << 40, pinnedOptions{}, gguf.ErrCorrupt, "file 2 of 3 is one of 4 by its header"},
		"twice the same":   {3, as(files[1]), 1, 1 << 40, pinnedOptions{}, gguf.ErrCorrupt, "file 3 of 3 says that it is file 2"},
		"not split":        {2, as(blob(t, 1)), 1, 1 << 40, pinnedOptions{}, gguf.ErrCorrupt, "file 2 of 3 is one of 1 by its header"},
		"a page":           {3, as([]byte("<!DOCTYPE html>")), 1, 1 << 40, pinnedOptions{}, gguf.ErrNotGGUF, "it looks like an html page"},
		"not the first":    {0, nil, 2, 1 << 40, pinnedOptions{}, gguf.ErrUnsupported, `"m-00002-of-00003.gguf" is not the first of its 3 files`},
		"503 for ever":     {2, status(503), 1, 1 << 40, pinnedOptions{}, fetch.ErrUnavailable, "one of 3 files: the download failed after 5 retries: "},
		"alone for long": {3, status(429, "Retry-After", "3600"), 1, 1 << 40, deadline(time.Date(2000, 1, 1, 0, 10, 0, 0, time.UTC)),
			fetch.ErrHopeless, "try again in 1h0m0s"},
		"a checksum": {0, nil, 1, 1 << 40, pinnedOptions{SHA256: sha(files[0])}, source.ErrBad, "m-00001-of-00003.gguf is one of several files, but a sha256 belongs to a single file"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				answers := hosted(files)
				if tt.answer != nil {
					answers["/dir/"+shardName(tt.number, 3)] = tt.answer
				}
				w, dir := newWorld(t, paths(answers)), t.TempDir()
				_, err := w.client.Fetch(t.Context(), pinned(t, "http://files.test/dir/"+shardName(tt.given, 3)+"?sig=s3cret", tt.options.SHA256), dir, tt.options.Options)
				if !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.text) || strings.Contains(err.Error(), "\n") {
					t.Errorf("got %v", err)
				}
				if asked := w.bodies(); len(asked) > 0 {
					t.Errorf("asked for %q", asked)
				}
				leftovers(t, dir)
				silent(t, fmt.Sprint(err), w.log.String())
			})
		})
	}
	// What is here is of another model, or another of its files.
	for text, here := range map[string][]byte{"file 2 of 3 is one of 4 by its header": other[1], "file 2 of 3 says that it is file 3": files[2]} {
		synctest.Test(t, func(t *testing.T) {
			w, dir := newWorld(t, paths(hosted(files))), t.TempDir()
			write(t, filepath.Join(dir, shardName(2, 3)), string(here))
			_, err := w.client.Fetch(t.Context(), parse(t, shardsURL), dir, fetch.Options{})
			want := shardName(1, 3) + ": files in the directory do not belong to the model's other files: " + dir + ": gguf: " + text
			if !errors.Is(err, fetch.ErrMixed) || err.Error() != want || len(w.bodies()) > 0 {
				t.Errorf("got %v, want %s, asked for %q", err, want, w.bodies())
			}
			leftovers(t, dir, shardName(2, 3))
		})
	}
	// Each of the files fits the disk, all of them do not.
	synctest.Test(t, func(t *testing.T) {
		w, dir := newWorld(t, paths(hosted(files))), t.TempDir()
		w.client.FreeBytes = func(string) (int64, error) { return 2*size + fetch.DefaultReserveBytes, nil }
		_, err := w.client.Fetch(t.Context(), parse(t, shardsURL), dir, fetch.Options{})
		var disk *fetch.DiskError
		if !errors.As(err, &disk) || disk.Need <= 2*size || !strings.HasPrefix(err.Error(), shardName(1, 3)+": not enough disk space: ") {
			t.Errorf("got %v", err)
		}
		if parts, _ := filepath.Glob(filepath.Join(dir, "*.gguf")); len(parts) > 0 {
			t.Errorf("left %v", parts)
		}
	})
}

// A name that is of several files does not make a file one of several, and a
// file that is one needs such a name.
func TestShardOfOne(t *testing.T) {
	single, first := blob(t, 1), shards(t, 3, 1)[0]
	synctest.Test(t, func(t *testing.T) {
		w, dir := newWorld(t, paths(map[string]http.HandlerFunc{
			"/dir/m-00001-of-00003.gguf": func(rw http.ResponseWriter, r *http.Request) { serve(rw, r, single) },
			"/m.gguf":                    func(rw http.ResponseWriter, r *http.Request) { serve(rw, r, first) },
		})), t.TempDir()
		if file, err := w.client.Fetch(t.Context(), parse(t, shardsURL), dir, fetch.Options{}); err != nil || len(file.Paths) != 1 || file.Bytes != int64(len(single)) {
			t.Errorf("got %+v, %v", file, err)
		}
		_, err := w.client.Fetch(t.Context(), parse(t, "http://files.test/m.gguf"), dir, fetch.Options{})
		if !errors.Is(err, gguf.ErrCorrupt) || !strings.Contains(err.Error(), "its name does not end in -00001-of-00003.gguf") {
			t.Errorf("got %v", err)
		}
	})
}

// What has arrived stays, whatever ends the download, and only the rest is
// fetched then.
func TestShardsResume(t *testing.T) {
	files := shards(t, 3, 1)
	size := int64(len(files[1]))
	stall := func(n int) http.HandlerFunc {
		return func(rw http.ResponseWriter, r *http.Request) { part(rw, r, files[1], n, true) }
	}
	whole := func(rw http.ResponseWriter, r *http.Request) { serve(rw, r, files[1]) }
	header := whole // the first request for the second file is for its header
	for name, tt := range map[string]struct {
		second []http.HandlerFunc // answers
		before func(t *testing.T, dir string)
		left   []string // in the directory
		bodies []string // of the second try
		bytes  int64    // of it
	}{
		"interrupted between files": {[]http.HandlerFunc{header, stall(0), whole}, nil,
			[]string{".m-00001-of-00003.gguf.json", shardName(1, 3)}, []string{"2 ", "3 "}, 2 * size},
		"interrupted within a file": {[]http.HandlerFunc{header, stall(5000), whole}, nil,
			[]string{".m-00001-of-00003.gguf.json", shardName(1, 3), shardName(2, 3) + ".part", shardName(2, 3) + ".part.json"}, []string{"2 bytes=5000-", "3 "}, 2*size - 5000},
		"and the first is damaged since": {[]http.HandlerFunc{header, stall(5000), whole}, func(t *testing.T, dir string) {
			damaged := bytes.Clone(files[0])
			damaged[len(damaged)-1] ^= 1
			write(t, filepath.Join(dir, shardName(1, 3)), string(damaged))
		}, []string{".m-00001-of-00003.gguf.json", shardName(1, 3), shardName(2, 3) + ".part", shardName(2, 3) + ".part.json"},
			[]string{"1 ", "2 bytes=5000-", "3 "}, 2*size - 5000 + int64(len(files[0]))},
		"gone from the server": {[]http.HandlerFunc{header, http.NotFound, whole}, nil,
			[]string{".m-00001-of-00003.gguf.json", shardName(1, 3)}, []string{"2 ", "3 "}, 2 * size},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				answers := hosted(files)
				answers["/dir/"+shardName(2, 3)] = script(append(tt.second, whole)...).ServeHTTP
				w, dir := newWorld(t, paths(answers)), t.TempDir()
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				if file, err := w.client.Fetch(ctx, parse(t, shardsURL), dir, fetch.Options{}); err == nil {
					t.Fatalf("got %+v", file)
				}
				leftovers(t, dir, tt.left...)
				if tt.before != nil {
					tt.before(t, dir)
				}
				before := len(w.bodies())
				file, err := w.client.Fetch(t.Context(), parse(t, shardsURL), dir, fetch.Options{TrustUnchanged: true})
				if err != nil || file.Downloaded != tt.bytes {
					t.Fatalf("%d bytes, %v\n%s", file.Downloaded, err, &w.log)
				}
				if diff := cmp.Diff(tt.bodies, w.bodies()[before:]); diff != "" {
					t.Errorf("requests (-want +got):\n%s", diff)
				}
				for i, path := range file.Paths {
					if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, files[i]) {
						t.Errorf("%s: wrong content, %v", path, err)
					}
				}
			})
		})
	}
}

// A deadline is for all files: that the first would come in time is no reason to
// fetch it.
func TestShardsHopeless(t *testing.T) {
	files := shards(t, 3, 1)
	synctest.Test(t, func(t *testing.T) {
		answers := hosted(files)
		first := "/dir/" + shardName(1, 3)
		answers[first] = script(answers[first], slowly(files[0], 5e4)).ServeHTTP // 21 s
		w := newWorld(t, paths(answers))
		start := time.Now()
		_, err := w.client.Fetch(t.Context(), parse(t, shardsURL), t.TempDir(), fetch.Options{Deadline: start.Add(30 * time.Second)})
		var hopeless *fetch.HopelessError
		if !errors.As(err, &hopeless) || hopeless.Total != int64(len(files[0])+2*len(files[1])) || hopeless.Done == 0 {
			t.Errorf("got %v", err)
		}
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("noticed after %v", took)
		}
	})
}

// In a queue, several files are one item: asked for before the first byte,
// counted together, kept off a timed repetition, and put off for what is waited
// for.
func TestShardsInQueue(t *testing.T) {
	files, a := shards(t, 3, 1), blob(t, 1)
	size := int64(len(files[1]))
	sum := int64(len(files[0])) + 2*size
	synctest.Test(t, func(t *testing.T) {
		answers := map[string]http.HandlerFunc{"/a.gguf": slowly(a, 1e6)}
		for i, b := range files {
			answers["/dir/"+shardName(i+1, 3)] = slowly(b, 1e5)
		}
		w, dir := newWorld(t, paths(answers)), t.TempDir()
		write(t, filepath.Join(dir, shardName(3, 3)), string(files[2]))
		write(t, filepath.Join(dir, shardName(2, 3)+".part"), string(files[1][:1000]))
		write(t, filepath.Join(dir, shardName(2, 3)+".part.json"), fmt.Sprintf(`{"source":"http://files.test/dir/%s","bytes":%d,"validator":"\"%.8s\""}`, shardName(2, 3), size, sha(files[1])))
		wanted := sources(t, shardsURL, "http://files.test/a.gguf")
		sizes, err := w.client.Sizes(t.Context(), wanted, dir)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]fetch.Size{
			{Bytes: sum, Missing: sum - size - 1000, Files: 2}, {Bytes: int64(len(a)), Missing: int64(len(a)), Files: 1},
		}, sizes); diff != "" {
			t.Errorf("sizes (-want +got):\n%s", diff)
		}
		asked := len(w.paths())
		q := w.client.Prefetch(t.Context(), wanted, fetch.QueueOptions{Dir: dir, Sizes: sizes, Force: fetch.Paused})
		defer q.Close()
		q.Start()
		time.Sleep(5 * time.Second)
		q.Timing(true)
		time.Sleep(time.Second)
		passed := q.Passed()
		if time.Sleep(time.Minute); q.Passed() != passed || q.State().Hold != fetch.Paused {
			t.Errorf("%d bytes passed while a repetition was timed, state %+v", q.Passed()-passed, q.State())
		}
		q.Timing(false)
		if _, err := q.Wait(t.Context(), 1, time.Time{}); err != nil {
			t.Error(err)
		}
		time.Sleep(3 * time.Second)
		if s := q.State(); s.Item != 0 || s.Progress.Total != sum || s.Progress.Done <= size+1000 {
			t.Errorf("state %+v", s)
		}
		file, err := q.Wait(t.Context(), 0, time.Time{})
		if err != nil || len(file.Paths) != 3 || file.Bytes != sum {
			t.Errorf("got %+v, %v", file, err)
		}
		shard1, shard2, shard3 := "/dir/"+shardName(1, 3), "/dir/"+shardName(2, 3), "/dir/"+shardName(3, 3)
		want := []string{
			shard1, shard2, shard1, // two headers and the first file, which is put off
			"/a.gguf",
			shard1, shard2, shard1, shard2, // two headers again and the rest of both files
			shard3, // its checksum: it was here
		}
		if diff := cmp.Diff(want, w.paths()[asked:]); diff != "" {
			t.Errorf("requests (-want +got):\n%s", diff)
		}
	})
}

// A server that does not answer for one of the files keeps no other model away,
// and a dead one is told as such.
func TestShardsWait(t *testing.T) {
	files, a := shards(t, 3, 1), blob(t, 1)
	synctest.Test(t, func(t *testing.T) {
		answers := hosted(files)
		third := "/dir/" + shardName(3, 3)
		answers[third] = script(status(429, "Retry-After", "600"), answers[third]).ServeHTTP
		answers["/a.gguf"] = slowly(a, 1e6)
		w, dir := newWorld(t, paths(answers)), t.TempDir()
		q := w.client.Prefetch(t.Context(), sources(t, shardsURL, "http://files.test/a.gguf"), fetch.QueueOptions{Dir: dir})
		defer q.Close()
		q.Start()
		time.Sleep(5 * time.Second)
		if _, err := os.Stat(filepath.Join(dir, "a.gguf")); err != nil {
			t.Error(err)
		}
		time.Sleep(600 * time.Second)
		if _, err := os.Stat(filepath.Join(dir, shardName(3, 3))); err != nil {
			t.Error(err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		answers := hosted(files)
		second := "/dir/" + shardName(2, 3)
		var down atomic.Bool
		down.Store(true)
		whole := answers[second]
		answers[second] = func(rw http.ResponseWriter, r *http.Request) {
			if down.Load() {
				rw.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			whole(rw, r)
		}
		w := newWorld(t, paths(answers))
		q := w.client.Prefetch(t.Context(), sources(t, shardsURL), fetch.QueueOptions{Dir: t.TempDir()})
		defer q.Close()
		if _, err := q.Wait(t.Context(), 0, time.Time{}); !errors.Is(err, fetch.ErrUnavailable) {
			t.Errorf("got %v", err)
		}
		down.Store(false) // what failed so is tried once more
		if _, err := q.Wait(t.Context(), 0, time.Time{}); err != nil {
			t.Error(err)
		}
	})
}

// Over TCP and from the hub, whose redirects lead elsewhere and whose checksums
// are of each file: a file that arrives garbled is fetched again, alone.
func TestShardsOverTCP(t *testing.T) {
	files := shards(t, 3, 1)
	garbled := bytes.Clone(files[1])
	garbled[len(garbled)/2] ^= 1
	var bodies atomic.Int64 // of the second file
	store, _ := counted(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		for i, b := range files {
			if !strings.HasSuffix(r.URL.Path, shardName(i+1, 3)) {
				continue
			}
			if i == 1 && !strings.HasPrefix(r.Header.Get("Range"), "bytes=0-") && bodies.Add(1) == 1 {
				b = garbled
			}
			serve(rw, r, b)
			return
		}
		http.NotFound(rw, r)
	}))
	hub, _ := counted(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		for i, b := range files {
			if r.URL.Path == "/u/r/resolve/v1/sub/"+shardName(i+1, 3) {
				rw.Header().Set("X-Linked-Etag", `"`+sha(b)+`"`)
				http.Redirect(rw, r, store.URL+"/blob/"+shardName(i+1, 3)+"?sig=s3cret", http.StatusFound)
				return
			}
		}
		http.NotFound(rw, r)
	}))
	var log bytes.Buffer
	client := fetch.Client{Hub: hub.URL, Log: slog.New(slog.NewTextHandler(&log, nil))}
	client.SetPatience(time.Second)
	dir := t.TempDir()
	file, err := client.Fetch(t.Context(), parse(t, "hf:u/r/sub/m-00001-of-00003.gguf@v1"), dir, fetch.Options{})
	if err != nil || file.Retries != 1 || bodies.Load() != 2 {
		t.Fatalf("got %+v, %v, %d bodies\n%s", file, err, bodies.Load(), &log)
	}
	for i, path := range file.Paths {
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, files[i]) {
			t.Errorf("%s: wrong content, %v", path, err)
		}
	}
	if parts, err := filepath.Glob(filepath.Join(dir, "*.part*")); err != nil || len(parts) > 0 {
		t.Errorf("left %v, %v", parts, err)
	}
	silent(t, log.String())
}

// Two processes that want the same model fetch each file once.
func TestShardsTwoProcesses(t *testing.T) {
	files := shards(t, 3, 1)
	answers := make(map[string]http.HandlerFunc)
	for i, b := range files {
		answers["/dir/"+shardName(i+1, 3)] = slowly(b, 4e6)
	}
	server, _ := counted(t, paths(answers))
	dir := t.TempDir()
	outs := make(chan string)
	for range 2 {
		cmd := child{URL: server.URL + "/dir/" + shardName(1, 3), Dir: dir}.command(t)
		go func() {
			out, err := cmd.Output()
			if err != nil {
				t.Errorf("%v: %s", err, out)
			}
			outs <- string(out)
		}()
	}
	sum := 0
	for range 2 {
		var n int
		if _, err := fmt.Sscan(<-outs, &n); err != nil {
			t.Error(err)
		}
		sum += n
	}
	if want := len(files[0]) + 2*len(files[1]); sum != want {
		t.Errorf("%d bytes, want %d", sum, want)
	}
	for i := range files {
		if _, err := os.Lstat(filepath.Join(dir, "."+shardName(i+1, 3)+".lock")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a lock is left: %v", err)
		}
	}
}

// The files of a model are replaced together: as long as one of the new ones is not
// here, complete and valid, those of another source stay as they are. The next Fetch
// goes on where this one stopped.
func TestShardsOfAnotherSource(t *testing.T) {
	a, b := shards(t, 3, 1), shards(t, 3, 2)
	third := "/dir/" + shardName(3, 3)
	for name, fails := range map[string]http.HandlerFunc{
		"not found": status(404),
		"forbidden": status(403),
		"a page":    func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write([]byte("<html>log in")) },
		"broken off": func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Content-Length", strconv.Itoa(len(b[2])))
			_, _ = rw.Write(b[2][:100])
			panic(http.ErrAbortHandler)
		},
		"another length": func(rw http.ResponseWriter, r *http.Request) { serve(rw, r, b[2][:len(b[2])-8]) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				one, two := hosted(a), hosted(b)
				good := two[third]
				broken := true
				two[third] = func(rw http.ResponseWriter, r *http.Request) {
					if broken && r.Header.Get("Range") == "" { // headers are fine
						fails(rw, r)
						return
					}
					good(rw, r)
				}
				w, dir := newWorld(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
					answers := one
					if r.Host == "two.test" {
						answers = two
					}
					answers[r.URL.Path](rw, r)
				})), t.TempDir()
				get := func(host string) error {
					_, err := w.client.Fetch(t.Context(), parse(t, "http://"+host+"/dir/"+shardName(1, 3)), dir, fetch.Options{})
					return err
				}
				holds := func(want [][]byte) {
					t.Helper()
					for i, b := range want {
						if got, err := os.ReadFile(filepath.Join(dir, shardName(i+1, 3))); err != nil || !bytes.Equal(got, b) {
							t.Errorf("file %d is another one, %v", i+1, err)
						}
					}
				}
				if err := get("one.test"); err != nil {
					t.Fatal(err)
				}
				if err := get("two.test"); err == nil {
					t.Fatal("no error")
				}
				holds(a)
				broken = false
				if err := get("two.test"); err != nil {
					t.Fatal(err)
				}
				holds(b)
				if bodies := w.bodies(); bodies[len(bodies)-1][0] != '3' || strings.Count(strings.Join(bodies, "\n"), "1 ") != 2 {
					t.Errorf("complete files were fetched again: %v", bodies)
				}
			})
		})
	}
}
