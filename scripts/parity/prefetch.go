//go:build cgo && parity

package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"github.com/sparecores/benchmark-llm/bench/fetch"
	"github.com/sparecores/benchmark-llm/bench/gguf"
	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/stats"
	"github.com/sparecores/benchmark-llm/llama"
)

// roleVariable makes this program, started again by itself, one of the other
// processes of the measurement.
const roleVariable = "PARITY_PREFETCH"

// fastLink and slowLink are the median and the fifth percentile of the fleet's
// downloads, in bytes per second.
const (
	fastLink = 158_000_000
	slowLink = 11_700_000
)

// wallBound is what holding downloads back may make of a run's wall time.
const wallBound = 1.05

// comparePrefetch measures what a background download does to a test's speed,
// and what keeping it off the tests does to a run's wall time.
func comparePrefetch(o options) (bool, error) {
	switch os.Getenv(roleVariable) {
	case "server":
		return true, serveModels()
	case "downloader":
		return true, downloadOnCommand(o.dir)
	}
	if !slices.Contains([]string{"", "beside", "walls"}, o.only) {
		return false, fmt.Errorf("-only %q: there are beside and walls", o.only)
	}
	server, err := startRole("server")
	if err != nil {
		return false, err
	}
	defer server.stop()
	url, err := server.line()
	if err != nil {
		return false, err
	}
	ok := true
	if o.only != "walls" {
		if ok, err = compareDownloading(o, url); err != nil {
			return false, err
		}
	}
	if o.only != "beside" {
		short, err := compareWalls(o, url)
		if err != nil {
			return false, err
		}
		ok = ok && short
	}
	return ok, nil
}

// downloads are what goes on beside a test. The verdict is of the first two: a
// run pauses. The others show what is done to a repetition beside which a run
// downloads after all, because pausing has made it longer already.
var downloads = []struct {
	name, command string
	verdict       bool
}{
	{"paused, slow link", fmt.Sprintf("on paused %d", slowLink), true},
	{"paused, fast link", fmt.Sprintf("on paused %d", fastLink), true},
	{"free, slow link", fmt.Sprintf("on free %d", slowLink), false},
	{"free, fast link", fmt.Sprintf("on free %d", fastLink), false},
}

// secondsOfContext is about for how long the turns in one context go on.
const secondsOfContext = 10

// compareDownloading has a test take turns with itself in one context, without a
// download in another process, without it again, and with it. Without it that
// process is stopped: a connection that is not read costs nobody anything, and
// turns follow each other within a fraction of a second, which a download started
// anew for each could not. A turn is two passes, of which the first takes away
// what came before.
func compareDownloading(o options, url string) (bool, error) {
	file, err := o.quantized(o.model)
	if err != nil {
		return false, err
	}
	downloader, err := startRole("downloader", url)
	if err != nil {
		return false, err
	}
	defer downloader.stop()
	setDefault(&o.prompts, "64")
	setDefault(&o.gens, "16")
	tests, err := o.tests()
	if err != nil {
		return false, err
	}
	o.loads = cmp.Or(o.loads, 10)
	fmt.Printf("%s, %d threads, %d contexts for each row with a verdict, %d for others\n", o.model, o.threads, o.loads, contexts(o.loads, false))
	t := newTable()
	t.AppendHeader(table.Row{"download", "test", "turns", "without t/s", "with t/s", "ratio (95 %)", "noise floor", "MB/s", "CPU ms/s", "verdict"})
	ok := true
	err = withModel(file, func(m *llama.Model) error {
		for _, beside := range downloads {
			for _, test := range tests {
				series, spent, err := o.contextsBeside(m, test, downloader, beside.command, contexts(o.loads, beside.verdict))
				if err != nil {
					return err
				}
				j, err := judge(series)
				if err != nil {
					return err
				}
				cells := j.cells()
				verdict := cells[len(cells)-1]
				if beside.verdict {
					ok = ok && j.verdict == stats.WithinNoise
				} else {
					verdict = "for information"
				}
				row := append(table.Row{beside.name, test, len(j.other)}, cells[:len(cells)-1]...)
				megabytes, cpu := spent.rates()
				t.AppendRow(append(row, fmt.Sprintf("%.1f", megabytes), fmt.Sprintf("%.1f", cpu), verdict))
			}
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	fmt.Println(t.Render())
	return ok, nil
}

// contexts is how many of them a row has: those for information have half as many
// as those with a verdict, but as many as an interval needs.
func contexts(loads int, verdict bool) int {
	if verdict {
		return loads
	}
	return max(fewestLoads, loads/2)
}

// contextsBeside are the rates of three sides, context by context and turn by
// turn, in tokens/second: without a download, again, and with it; and what the
// download took in its turns.
func (o options) contextsBeside(m *llama.Model, test result.Test, downloader *role, command string, n int) (series [3][][]float64, spent usage, err error) {
	for i := range n {
		var rates [3][]float64
		err := withContext(m, o.threads, test.Context(), func(c *llama.Context) (err error) {
			var more usage
			rates, more, err = turnsBeside(c, test, downloader, command, i, o.turns)
			spent = spent.add(more)
			return err
		})
		if err != nil {
			return series, usage{}, err
		}
		for side := range series {
			series[side] = append(series[side], rates[side])
		}
		fmt.Fprintf(os.Stderr, "\r%s, %v: %d of %d contexts   ", command, test, i+1, n)
	}
	fmt.Fprint(os.Stderr, "\r\x1b[K")
	return series, spent, nil
}

// turnsBeside are the rates of three sides in a context, turn by turn: so many
// turns of each, or 0 for as many as take secondsOfContext. The first turn of each
// does not count.
func turnsBeside(c *llama.Context, test result.Test, downloader *role, command string, round, turns int) (rates [3][]float64, spent usage, err error) {
	const with = 2
	if _, err := downloader.ask(command); err != nil {
		return rates, usage{}, err
	}
	time.Sleep(time.Second) // connected, the first burst is over
	if err := downloader.signal(unix.SIGSTOP); err != nil {
		return rates, usage{}, err
	}
	prompt, gen := tokens(test.Prompt), tokens(test.Gen)
	turn := func() (elapsed time.Duration, err error) {
		for range 2 {
			if err = c.ClearMemory(); err != nil {
				return 0, err
			}
			if elapsed, err = c.Repetition(prompt, gen, 2048); err != nil {
				return 0, err
			}
		}
		return elapsed, nil
	}
	end := time.Now().Add(secondsOfContext * time.Second)
	for i := 0; i <= turns || turns == 0 && (i == 0 || time.Now().Before(end)); i++ {
		for _, side := range order(len(rates), round+i) {
			var took usage
			var elapsed time.Duration
			if side == with {
				elapsed, took, err = downloader.beside(turn)
			} else {
				elapsed, err = turn()
			}
			if err != nil {
				return rates, usage{}, err
			}
			if i > 0 {
				rates[side] = append(rates[side], test.TokensPerSecond(elapsed))
				spent = spent.add(took)
			}
		}
	}
	if err := downloader.signal(unix.SIGCONT); err != nil {
		return rates, usage{}, err
	}
	_, err = downloader.ask("off")
	return rates, spent, err
}

// beside lets a stopped process go on while f runs, and says what it took.
func (r *role) beside(f func() (time.Duration, error)) (elapsed time.Duration, took usage, err error) {
	if err := r.signal(unix.SIGCONT); err != nil {
		return 0, usage{}, err
	}
	before, err := r.usage("used")
	if err != nil {
		return 0, usage{}, err
	}
	if elapsed, err = f(); err != nil {
		return 0, usage{}, err
	}
	after, err := r.usage("used")
	if err != nil {
		return 0, usage{}, err
	}
	return elapsed, after.since(before), r.signal(unix.SIGSTOP)
}

func (r *role) signal(s unix.Signal) error { return r.cmd.Process.Signal(s) }

// usage is what a downloader took until now.
type usage struct {
	bytes     int64
	cpu, wall time.Duration
}

func (u usage) since(v usage) usage { return usage{u.bytes - v.bytes, u.cpu - v.cpu, u.wall - v.wall} }
func (u usage) add(v usage) usage   { return usage{u.bytes + v.bytes, u.cpu + v.cpu, u.wall + v.wall} }

// rates are bytes and processor time for each second.
func (u usage) rates() (megabytes, cpuMilliseconds float64) {
	return float64(u.bytes) / 1e6 / u.wall.Seconds(), float64(u.cpu.Microseconds()) / 1e3 / u.wall.Seconds()
}

// role is another process of the measurement, which answers lines with lines.
type role struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startRole(name string, args ...string) (*role, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, append([]string{"-prefetch"}, args...)...)
	cmd.Env = append(os.Environ(), roleVariable+"="+name)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return &role{cmd, in, bufio.NewReader(out)}, cmd.Start()
}

func (r *role) line() (string, error) {
	s, err := r.out.ReadString('\n')
	return strings.TrimSpace(s), err
}

func (r *role) ask(command string) (string, error) {
	if _, err := fmt.Fprintln(r.in, command); err != nil {
		return "", err
	}
	return r.line()
}

func (r *role) usage(command string) (u usage, err error) {
	answer, err := r.ask(command)
	if err != nil {
		return usage{}, err
	}
	_, err = fmt.Sscan(answer, &u.bytes, (*int64)(&u.cpu), (*int64)(&u.wall))
	return u, err
}

// stop ends the process, which ends by itself with its input.
func (r *role) stop() {
	_ = r.signal(unix.SIGCONT)
	_ = r.in.Close()
	_ = r.cmd.Wait()
}

// downloadOnCommand is the downloading process: as in a run, not the one that
// computes. It reads commands until its input ends.
func downloadOnCommand(dir string) error {
	url := os.Args[len(os.Args)-1]
	const bytes = 4 << 30
	var q *fetch.Queue
	before := int64(0)
	off := func() {
		if q != nil {
			before += q.State().Progress.Done
			q.Close()
			q = nil
		}
	}
	defer off()
	started := time.Now()
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		words := strings.Fields(in.Text())
		switch {
		case len(words) == 3 && words[0] == "on":
			off()
			if err := os.RemoveAll(filepath.Join(dir, "models")); err != nil {
				return err
			}
			src, err := fetch.ParseSource(fmt.Sprintf("%s/%s/%d/m.gguf", url, words[2], bytes))
			if err != nil {
				return err
			}
			force := fetch.Paused
			if words[1] == "free" {
				force = fetch.Free
			}
			q = new(fetch.Client).Prefetch(context.Background(), []fetch.Item{{Source: src}},
				fetch.QueueOptions{Dir: filepath.Join(dir, "models"), Force: force})
			q.Timing(true)
			q.Start()
		case len(words) == 1 && words[0] == "off":
			off()
		}
		var r unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
			return err
		}
		have := before
		if q != nil {
			have += q.State().Progress.Done
		}
		fmt.Println(have, r.Utime.Nano()+r.Stime.Nano(), time.Since(started).Nanoseconds())
	}
	return nil
}

// serveModels is the server's process: it prints its address and serves
// /RATE/BYTES/NAME, a file of zeros after a sound header, at a rate in bytes per
// second for each connection.
func serveModels() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Printf("http://%s\n", listener.Addr())
	server := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var perSecond float64
		var size int64
		if _, err := fmt.Sscanf(strings.ReplaceAll(r.URL.Path, "/", " "), "%f %d", &perSecond, &size); err != nil {
			http.NotFound(w, r)
			return
		}
		content, err := zeros(size)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		const burst = 64 << 10
		w.Header().Set("Etag", strconv.Quote(r.URL.Path))
		http.ServeContent(&slow{w, r.Context(), rate.NewLimiter(rate.Limit(perSecond), burst)}, r, "", time.Time{}, content)
	})}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // ends with the measurement
		_ = server.Close()
	}()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// slow is a limited connection. What a paused reader does not take is not made
// up for later.
type slow struct {
	http.ResponseWriter
	ctx   context.Context
	limit *rate.Limiter
}

func (s *slow) Write(p []byte) (written int, err error) {
	for len(p) > 0 {
		n := min(len(p), s.limit.Burst())
		if err := s.limit.WaitN(s.ctx, n); err != nil {
			return written, err
		}
		n, err = s.ResponseWriter.Write(p[:n])
		written, p = written+n, p[n:]
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

// zeros is a model file of about a size in bytes, in no file.
func zeros(size int64) (io.ReadSeeker, error) {
	f, err := gguf.New([]gguf.KeyValue{{Key: "general.architecture", Value: "llama"}},
		[]gguf.Tensor{{Name: "w", Dims: []uint64{uint64(size) / 4096 * 1024}, Type: gguf.F32}})
	if err != nil {
		return nil, err
	}
	header, err := f.Header()
	if err != nil {
		return nil, err
	}
	return io.NewSectionReader(zeroFile(header), 0, f.Size()), nil
}

// zeroFile is a header and zeros without end.
type zeroFile []byte

func (z zeroFile) ReadAt(p []byte, at int64) (int, error) {
	clear(p)
	if at < int64(len(z)) {
		copy(p, z[at:])
	}
	return len(p), nil
}

// modelScale shortens the modelled run: files and tests alike.
const modelScale = 64

// modelledRun are the five smaller models of the default suite and about how
// long their tests take on two cores, in seconds.
var modelledRun = []struct{ bytes, seconds float64 }{
	{105e6, 700}, {407e6, 900}, {1.5e9, 700}, {4.08e9, 400}, {9.05e9, 200},
}

// compareWalls runs a model of a run, in which nothing computes, with downloads
// kept off its repetitions and without.
func compareWalls(o options, url string) (bool, error) {
	t := newTable()
	t.AppendHeader(table.Row{"link", "unrestricted", "kept off", "ratio", "waits", "verdict"})
	ok := true
	for _, link := range []int{fastLink, slowLink} {
		free, _, err := modelWall(o, url, link, true)
		if err != nil {
			return false, err
		}
		kept, waits, err := modelWall(o, url, link, false)
		if err != nil {
			return false, err
		}
		ratio, verdict := kept.Seconds()/free.Seconds(), "within"
		if ratio > wallBound {
			ok, verdict = false, "too long"
		}
		t.AppendRow(table.Row{fmt.Sprintf("%.1f MB/s", float64(link)/1e6), free.Round(time.Millisecond), kept.Round(time.Millisecond),
			fmt.Sprintf("%.3f", ratio), waits.Round(time.Millisecond), verdict})
	}
	fmt.Println(t.Render())
	return ok, nil
}

func modelWall(o options, url string, link int, unrestricted bool) (wall, waits time.Duration, err error) {
	dir, err := os.MkdirTemp(o.dir, "models-")
	if err != nil {
		return 0, 0, err
	}
	defer os.RemoveAll(dir)
	var items []fetch.Item
	for i, m := range modelledRun {
		src, err := fetch.ParseSource(fmt.Sprintf("%s/%d/%d/m%d.gguf", url, link, int64(m.bytes/modelScale), i))
		if err != nil {
			return 0, 0, err
		}
		items = append(items, fetch.Item{Source: src})
	}
	start := time.Now()
	q := new(fetch.Client).Prefetch(context.Background(), items, fetch.QueueOptions{Dir: dir, SpareCPUs: unrestricted})
	defer q.Close()
	if _, err := q.Total(context.Background()); err != nil {
		return 0, 0, err
	}
	for i, m := range modelledRun {
		began := time.Now()
		if _, err := q.Wait(context.Background(), i, time.Time{}); err != nil {
			return 0, 0, err
		}
		waits += time.Since(began)
		end := time.Now().Add(time.Duration(m.seconds / modelScale * float64(time.Second)))
		// Of the time, 12 % is not timed: loads, contexts, warm-ups.
		for time.Now().Before(end) {
			q.Expect(time.Until(end))
			time.Sleep(150 * time.Millisecond)
			q.Timing(true)
			time.Sleep(1100 * time.Millisecond)
			q.Timing(false)
		}
		fmt.Fprintf(os.Stderr, "\r%.1f MB/s: %d of %d models   ", float64(link)/1e6, i+1, len(modelledRun))
	}
	fmt.Fprint(os.Stderr, "\r\x1b[K")
	return time.Since(start), waits, nil
}
