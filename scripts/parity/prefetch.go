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
	"github.com/sparecores/benchmark-llm/bench/source"
	"github.com/sparecores/benchmark-llm/bench/stats"
	"github.com/sparecores/benchmark-llm/llama"
)

// roleVariable is the environment variable with the role of a process of the
// measurement: server, downloader, or none for the one that measures.
const roleVariable = "PARITY_PREFETCH"

// fastLink and slowLink are the median and the 5th percentile of the fleet's download
// rates, in bytes per second.
const (
	fastLink = 158_000_000
	slowLink = 11_700_000
)

// wallBound is the largest ratio of the wall times of a run that holds downloads back
// and one that does not.
const wallBound = 1.05

// comparePrefetch measures the effect of a download on the speed of tests, and the
// effect of holding downloads back on the wall time of a run. It reports whether both
// meet the requirements.
func comparePrefetch(o options) (bool, error) {
	switch os.Getenv(roleVariable) {
	case "server":
		return true, serveModels()
	case "downloader":
		return true, downloadOnCommand(o.dir)
	}
	if !slices.Contains([]string{"", "beside", "walls"}, o.only) {
		return false, fmt.Errorf("-only %q: must be beside or walls", o.only)
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

// downloads are the downloads beside a test. The first two have a verdict, because
// a run pauses downloads during repetitions. The others are for information: a run
// goes on with a download if it has already been held back for long.
var downloads = []struct {
	name, command string
	verdict       bool
}{
	{"paused, slow link", fmt.Sprintf("on paused %d", slowLink), true},
	{"paused, fast link", fmt.Sprintf("on paused %d", fastLink), true},
	{"free, slow link", fmt.Sprintf("on free %d", slowLink), false},
	{"free, fast link", fmt.Sprintf("on free %d", fastLink), false},
}

// secondsOfContext is the approximate time of all turns in one context.
const secondsOfContext = 10

// compareDownloading runs a test in turns in one context: without a download, again
// without one, and with one in another process. It stops that process with a signal
// for the turns without a download. A stopped download costs nothing, and turns can
// follow each other within a fraction of a second; starting a download for each turn
// would take longer. A turn has two passes. The first removes the effect of the turn
// before, and only the second counts.
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
	fmt.Printf("%s, %d threads, %d contexts for rows with a verdict, %d for others\n", o.model, o.threads, o.loads, contexts(o.loads, false))
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

// contexts is the number of contexts of a row. Rows for information have half as
// many as rows with a verdict, but as many as an interval needs.
func contexts(loads int, verdict bool) int {
	if verdict {
		return loads
	}
	return max(fewestLoads, loads/2)
}

// contextsBeside measures the rates of three sides in n contexts: without a download,
// again without one, and with one. series has them by side, context and turn, in
// tokens/second. spent is the downloader's usage during its turns.
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

// turnsBeside measures the rates of three sides in one context, by turn. turns is the
// number of turns of each side; 0 means as many as take secondsOfContext. The first
// turn of each side does not count.
func turnsBeside(c *llama.Context, test result.Test, downloader *role, command string, round, turns int) (rates [3][]float64, spent usage, err error) {
	const with = 2
	if _, err := downloader.ask(command); err != nil {
		return rates, usage{}, err
	}
	time.Sleep(time.Second) // for the connection and the first burst
	if err := downloader.signal(unix.SIGSTOP); err != nil {
		return rates, usage{}, err
	}
	prompt, gen := tokens(test.Prompt), tokens(test.Gen)
	turn := func() (elapsed time.Duration, err error) {
		for range 2 {
			if err = c.ClearMemory(); err != nil {
				return 0, err
			}
			if elapsed, err = c.Timed().Repetition(prompt, gen, 2048); err != nil {
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

// beside lets a stopped process continue while f runs, and returns its usage.
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

// signal sends a signal to the process.
func (r *role) signal(s unix.Signal) error { return r.cmd.Process.Signal(s) }

// usage is the bytes downloaded and the time used by a downloader.
type usage struct {
	bytes     int64
	cpu, wall time.Duration
}

func (u usage) since(v usage) usage { return usage{u.bytes - v.bytes, u.cpu - v.cpu, u.wall - v.wall} }
func (u usage) add(v usage) usage   { return usage{u.bytes + v.bytes, u.cpu + v.cpu, u.wall + v.wall} }

// rates are the usage per second: megabytes, and milliseconds of CPU time.
func (u usage) rates() (megabytes, cpuMilliseconds float64) {
	return float64(u.bytes) / 1e6 / u.wall.Seconds(), float64(u.cpu.Microseconds()) / 1e3 / u.wall.Seconds()
}

// role is another process of the measurement. It answers each line of input with a
// line of output.
type role struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// startRole starts this program in a role.
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

// line reads the next line of output.
func (r *role) line() (string, error) {
	s, err := r.out.ReadString('\n')
	return strings.TrimSpace(s), err
}

// ask sends a command and returns the answer.
func (r *role) ask(command string) (string, error) {
	if _, err := fmt.Fprintln(r.in, command); err != nil {
		return "", err
	}
	return r.line()
}

// usage sends a command to a downloader and returns its usage so far.
func (r *role) usage(command string) (u usage, err error) {
	answer, err := r.ask(command)
	if err != nil {
		return usage{}, err
	}
	_, err = fmt.Sscan(answer, &u.bytes, (*int64)(&u.cpu), (*int64)(&u.wall))
	return u, err
}

// stop closes the input of the process and waits for its end.
func (r *role) stop() {
	_ = r.signal(unix.SIGCONT)
	_ = r.in.Close()
	_ = r.cmd.Wait()
}

// downloadOnCommand is the role of the downloader. As in a run, it is not the process
// that computes. It reads commands until its input ends: "on paused RATE" and
// "on free RATE" start a download, "off" ends it, others only ask for the usage.
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
			src, err := source.Parse(fmt.Sprintf("%s/%s/%d/m.gguf", url, words[2], bytes))
			if err != nil {
				return err
			}
			force := fetch.Paused
			if words[1] == "free" {
				force = fetch.Free
			}
			q = new(fetch.Client).Prefetch(context.Background(), []source.Source{src},
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

// serveModels is the role of the server. It prints its address and serves
// /RATE/BYTES/NAME: a valid header followed by zeros, at RATE bytes per second for
// each connection.
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
		_, _ = io.Copy(io.Discard, os.Stdin) // until the measurement ends
		_ = server.Close()
	}()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// slow is a connection of limited rate. It does not catch up after a reader's pause.
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

// zeros is the content of a model file of about the given size in bytes.
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

// zeroFile is a header, followed by zeros without end.
type zeroFile []byte

func (z zeroFile) ReadAt(p []byte, at int64) (int, error) {
	clear(p)
	if at < int64(len(z)) {
		copy(p, z[at:])
	}
	return len(p), nil
}

// modelScale divides the sizes of files and the times of tests of the modelled run.
const modelScale = 64

// modelledRun are the sizes of the five smaller models of the default suite, and the
// approximate time of their tests on two cores.
var modelledRun = []struct{ bytes, seconds float64 }{
	{105e6, 700}, {407e6, 900}, {1.5e9, 700}, {4.08e9, 400}, {9.05e9, 200},
}

// compareWalls measures the wall time of a modelled run, in which nothing computes:
// with unrestricted downloads, and with downloads held back during repetitions.
func compareWalls(o options, url string) (bool, error) {
	t := newTable()
	t.AppendHeader(table.Row{"link", "unrestricted", "held back", "ratio", "waits", "verdict"})
	ok := true
	for _, link := range []int{fastLink, slowLink} {
		free, _, err := modelWall(o, url, link, true)
		if err != nil {
			return false, err
		}
		heldBack, waits, err := modelWall(o, url, link, false)
		if err != nil {
			return false, err
		}
		ratio, verdict := heldBack.Seconds()/free.Seconds(), "within"
		if ratio > wallBound {
			ok, verdict = false, "too long"
		}
		t.AppendRow(table.Row{fmt.Sprintf("%.1f MB/s", float64(link)/1e6), free.Round(time.Millisecond), heldBack.Round(time.Millisecond),
			fmt.Sprintf("%.3f", ratio), waits.Round(time.Millisecond), verdict})
	}
	fmt.Println(t.Render())
	return ok, nil
}

// modelWall is the wall time of a modelled run, and the time in it that waits for
// downloads.
func modelWall(o options, url string, link int, unrestricted bool) (wall, waits time.Duration, err error) {
	dir, err := os.MkdirTemp(o.dir, "models-")
	if err != nil {
		return 0, 0, err
	}
	defer os.RemoveAll(dir)
	var sources []source.Source
	for i, m := range modelledRun {
		src, err := source.Parse(fmt.Sprintf("%s/%d/%d/m%d.gguf", url, link, int64(m.bytes/modelScale), i))
		if err != nil {
			return 0, 0, err
		}
		sources = append(sources, src)
	}
	start := time.Now()
	client := new(fetch.Client)
	sizes, err := client.Sizes(context.Background(), sources, dir)
	if err != nil {
		return 0, 0, err
	}
	q := client.Prefetch(context.Background(), sources, fetch.QueueOptions{Dir: dir, Sizes: sizes, SpareCPUs: unrestricted})
	defer q.Close()
	for i, m := range modelledRun {
		began := time.Now()
		if _, err := q.Wait(context.Background(), i, time.Time{}); err != nil {
			return 0, 0, err
		}
		waits += time.Since(began)
		end := time.Now().Add(time.Duration(m.seconds / modelScale * float64(time.Second)))
		// 12 % of the time is not timed: loads, contexts, warm-ups.
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
