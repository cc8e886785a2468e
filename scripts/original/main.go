// Command original compares this program with the program that it replaces. Both
// run alternately on the same machine. They download the same models from a local
// HTTP server of limited rate, each time into an empty directory.
//
//	original [-models DIR] [-mbps N] [-pairs N] [-scale N] BENCHMARK.PY [MODEL]...
//
// BENCHMARK.PY is a copy of images/benchmark-llm/benchmark.py of
// SpareCores/sc-images, which is not part of this repository. It needs python3 with
// psutil. MODEL is the path of a file, or the file name of a default model, which is
// written once into the cache, with synthetic weights. List the smallest model
// first.
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"maps"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/sparecores/benchmark-llm/bench/result"
	"github.com/sparecores/benchmark-llm/bench/stats"
)

// The requirements, as shares of the original's times: the overhead for a single
// model, the wall time for several models.
const (
	maxOverhead = 1. / 3
	maxWall     = 0.75
)

// smallest is the model that is compared by default.
const smallest = "SmolLM-135M.Q4_K_M.gguf"

// options are the flags.
type options struct {
	models, program, tool, python, keep string
	mbps                                float64 // MB/s; 0 means no limit
	scale                               float64
	pairs                               int
	limit                               time.Duration // for one run of one program

	script string   // the original, adapted
	dir    string   // temporary directory
	files  []string // model files to serve
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("original: ")
	var o options
	flag.StringVar(&o.models, "models", "", "`directory` that keeps the model files (default: the user's cache)")
	flag.Float64Var(&o.mbps, "mbps", 158, "rate of the HTTP server in `MB/s`; 0 means no limit")
	flag.IntVar(&o.pairs, "pairs", 1, "`number` of alternations of the two programs")
	flag.Float64Var(&o.scale, "scale", 1, "`factor` for --benchmark-timeout-scale of both programs; the original is changed to accept a fraction")
	flag.DurationVar(&o.limit, "limit", 90*time.Minute, "time `limit` for one run; a run that takes longer is an error")
	flag.StringVar(&o.program, "program", "bin/benchmark-llm", "`path` of benchmark-llm")
	flag.StringVar(&o.tool, "llama-tool", "scripts/llama-tool", "`path` of the script that runs llama-bench")
	flag.StringVar(&o.python, "python", "python3", "`path` of a Python with psutil")
	flag.StringVar(&o.keep, "keep", "", "`directory` for the stdout, stderr and results of every run")
	server := flag.Bool("serve", false, "serve the named files (internal)")
	flag.Parse()

	var err error
	if *server {
		err = serve(flag.Args(), o.mbps*1e6)
	} else {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		err = o.run(ctx, flag.Args())
	}
	if err != nil {
		log.Fatal(err)
	}
}

// run compares the programs; args are the script and the models.
func (o *options) run(ctx context.Context, args []string) (err error) {
	if len(args) == 0 || o.pairs < 1 || o.scale <= 0 || o.mbps < 0 {
		return errors.New("give the path of benchmark.py, at least one pair, a scale above 0 and a rate of 0 or more")
	}
	for _, p := range []*string{&o.program, &o.tool} {
		if *p, err = filepath.Abs(*p); err != nil {
			return err
		}
		if _, err := os.Stat(*p); err != nil {
			return err
		}
	}
	if out, err := exec.CommandContext(ctx, o.python, "-c", "import psutil").CombinedOutput(); err != nil {
		return fmt.Errorf("%s has no psutil (on Debian install python3-psutil and use -python /usr/bin/python3): %w\n%s", o.python, err, out)
	}
	if o.dir, err = os.MkdirTemp("", "original-"); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(o.dir) }()
	if o.keep != "" {
		if err := os.MkdirAll(o.keep, 0o755); err != nil {
			return err
		}
	}
	if err := o.prepareScript(args[0]); err != nil {
		return err
	}
	models := args[1:]
	if len(models) == 0 {
		models = []string{smallest}
	}
	if err := o.prepareModels(ctx, models); err != nil {
		return err
	}
	urls, stop, err := o.startServer()
	if err != nil {
		return err
	}
	defer stop()

	fmt.Printf("models %s, %s MB/s, timeout scale %s, alternations %d\n", strings.Join(models, " "),
		strconv.FormatFloat(o.mbps, 'f', -1, 64), o.scaleText(), o.pairs)
	var original, ours []figures
	for pair := range o.pairs {
		var a, b figures
		first := func() (err error) { a, err = o.runOriginal(ctx, pair, urls); return err }
		second := func() (err error) { b, err = o.runOurs(ctx, pair, urls); return err }
		if pair%2 == 1 {
			first, second = second, first
		}
		for _, run := range []func() error{first, second} {
			if err := run(); err != nil {
				return err
			}
		}
		original, ours = append(original, a), append(ours, b)
	}
	return compare(os.Stdout, original, ours, len(models))
}

func (o *options) scaleText() string { return strconv.FormatFloat(o.scale, 'f', -1, 64) }

// The parts of the script that are changed: the directories of llama.cpp in the
// image, and the type of the scale if it is a fraction.
const (
	imageCPU   = `"/llama_cpp_cpu"`
	imageGPU   = `"/llama_cpp_gpu"`
	scaleFlag  = "\"--benchmark-timeout-scale\",\n    type="
	intScale   = scaleFlag + "int"
	floatScale = scaleFlag + "float"
)

// prepareScript copies the script with these changes, and makes the directory in
// which it finds llama-bench and llama-cli.
func (o *options) prepareScript(script string) error {
	text, err := os.ReadFile(script)
	if err != nil {
		return err
	}
	llama := filepath.Join(o.dir, "llama_cpp_cpu")
	changes := map[string]string{imageCPU: strconv.Quote(llama), imageGPU: strconv.Quote(filepath.Join(o.dir, "llama_cpp_gpu"))}
	if o.scale != math.Trunc(o.scale) {
		changes[intScale] = floatScale
	}
	for from, to := range changes {
		if !bytes.Contains(text, []byte(from)) {
			return fmt.Errorf("%s does not contain %q: its version is not supported", script, from)
		}
		text = bytes.ReplaceAll(text, []byte(from), []byte(to))
	}
	if err := os.Mkdir(llama, 0o755); err != nil {
		return err
	}
	tool := "'" + strings.ReplaceAll(o.tool, "'", `'\''`) + "'"
	for name, arguments := range map[string]string{"llama-bench": `"$@"`, "llama-cli": "--version"} {
		wrapper := fmt.Sprintf("#!/bin/sh\nexec %s llama-bench %s\n", tool, arguments)
		if err := os.WriteFile(filepath.Join(llama, name), []byte(wrapper), 0o755); err != nil {
			return err
		}
	}
	o.script = filepath.Join(o.dir, "benchmark.py")
	return os.WriteFile(o.script, text, 0o644)
}

// prepareModels finds or writes the model files. It reads them once, so the server
// finds them in the page cache.
func (o *options) prepareModels(ctx context.Context, models []string) error {
	if o.models == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return err
		}
		o.models = filepath.Join(cache, "benchmark-llm", "original")
	}
	if err := os.MkdirAll(o.models, 0o755); err != nil {
		return err
	}
	for _, model := range models {
		file := model
		if !strings.Contains(model, "/") {
			file = filepath.Join(o.models, model)
		}
		if _, err := os.Stat(file); errors.Is(err, os.ErrNotExist) && file != model {
			log.Printf("writing %s", file)
			c := exec.CommandContext(ctx, o.program, "models", "synth", model, "-o", file+".new")
			if out, err := c.CombinedOutput(); err != nil {
				return fmt.Errorf("write %s: %w\n%s", model, err, out)
			}
			if err := os.Rename(file+".new", file); err != nil {
				return err
			}
		}
		file, err := filepath.Abs(file)
		if err != nil {
			return err
		}
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, f)
		_ = f.Close()
		if err != nil {
			return err
		}
		o.files = append(o.files, file)
	}
	return nil
}

// startServer starts this program as a server in another process, which ends with
// stop or with this process.
func (o *options) startServer() (urls []string, stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	c := exec.Command(self, append([]string{"-serve", "-mbps", strconv.FormatFloat(o.mbps, 'f', -1, 64)}, o.files...)...)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt must not end the server first
	c.Stderr = os.Stderr
	in, err := c.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	out, err := c.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := c.Start(); err != nil {
		return nil, nil, err
	}
	stop = func() {
		_ = in.Close()
		_ = c.Wait()
	}
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		stop()
		return nil, nil, fmt.Errorf("HTTP server: %w", err)
	}
	for _, file := range o.files {
		urls = append(urls, strings.TrimSpace(address)+"/"+filepath.Base(file))
	}
	return urls, stop, nil
}

// runOriginal runs the original once.
func (o *options) runOriginal(ctx context.Context, pair int, urls []string) (figures, error) {
	f, stderr, ended, err := o.time(ctx, fmt.Sprintf("%d-original", pair), func(models, _ string) []string {
		return slices.Concat([]string{o.python, o.script, "--models-dir", models, "--benchmark-timeout-scale", o.scaleText(), "--model-urls"}, urls)
	})
	if err != nil {
		return f, err
	}
	for _, a := range parseLog(stderr, ended) {
		if _, ok := f.records[a.key]; !ok {
			f.lost += a.took
		}
		fmt.Printf("  original: %-45v %7.1f s of %4.0f s %s\n", a.key, a.took.Seconds(), a.limit.Seconds(), a.end)
	}
	return f, nil
}

// runOurs runs this program once.
func (o *options) runOurs(ctx context.Context, pair int, urls []string) (figures, error) {
	var results string
	f, _, _, err := o.time(ctx, fmt.Sprintf("%d-ours", pair), func(models, kept string) []string {
		results = filepath.Join(kept, "results")
		return slices.Concat([]string{o.program, "--models-dir", models, "--results-dir", results,
			"--benchmark-timeout-scale", o.scaleText(), "--model-urls"}, urls)
	})
	if err != nil {
		return f, err
	}
	if f.account, err = accounting(results); err != nil {
		return f, err
	}
	f.lost = f.account.Lost
	for _, part := range f.account.Parts() {
		fmt.Printf("  ours: %-25s %7.1f s\n", part.Name, part.Time.Seconds())
	}
	return f, nil
}

// time runs one program and returns its figures, its stderr and the time of its end.
// command makes the command line from two directories: an empty one for models, which
// is removed afterwards, and one for results.
func (o *options) time(ctx context.Context, name string, command func(models, kept string) []string) (f figures, stderr string, ended time.Time, err error) {
	kept := filepath.Join(o.dir, name)
	if o.keep != "" {
		if kept, err = filepath.Abs(filepath.Join(o.keep, time.Now().Format("20060102T150405-")+name)); err != nil {
			return f, "", ended, err
		}
	}
	models := filepath.Join(o.dir, "models")
	for _, dir := range []string{kept, models} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return f, "", ended, err
		}
	}
	defer func() { _ = os.RemoveAll(models) }()

	ctx, cancel := context.WithTimeout(ctx, o.limit)
	defer cancel()
	argv := command(models, kept)
	c := exec.CommandContext(ctx, argv[0], argv[1:]...)
	c.Env = append(os.Environ(), "NO_PROXY=127.0.0.1", "no_proxy=127.0.0.1", "HF_TOKEN=")
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGTERM) }
	c.WaitDelay = 10 * time.Second
	var out, log bytes.Buffer
	c.Stdout, c.Stderr = &out, &log
	start := time.Now()
	runErr := c.Run()
	ended = time.Now()
	wall := ended.Sub(start)
	if c.Process != nil {
		_ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL) // processes that the program left behind
	}
	if err := errors.Join(os.WriteFile(filepath.Join(kept, "stdout"), out.Bytes(), 0o644), os.WriteFile(filepath.Join(kept, "stderr"), log.Bytes(), 0o644)); err != nil {
		return f, "", ended, err
	}
	if runErr != nil {
		tail := log.Bytes()[max(0, log.Len()-2000):]
		return f, "", ended, fmt.Errorf("%s, after %.0f s: %w\n%s", strings.Join(argv, " "), wall.Seconds(), runErr, tail)
	}
	if f, err = newFigures(out.Bytes(), wall); err != nil {
		return f, "", ended, fmt.Errorf("%s: %w", name, err)
	}
	fmt.Printf("%s: %.1f s, %d records\n", name, wall.Seconds(), len(f.records))
	return f, log.String(), ended, nil
}

// errNotReached says that a requirement is not met.
var errNotReached = errors.New("a requirement is not met")

// compare prints the figures of both programs, summed over the alternations. It
// returns errNotReached if a requirement is not met.
func compare(w io.Writer, original, ours []figures, models int) error {
	a, b := sum(original), sum(ours)
	t := table.NewWriter()
	t.SetOutputMirror(w)
	t.AppendHeader(table.Row{"", "original", "ours", "ratio"})
	row := func(name string, x, y time.Duration) {
		ratio := "-"
		if x > 0 {
			ratio = fmt.Sprintf("%.3f", y.Seconds()/x.Seconds())
		}
		t.AppendRow(table.Row{name, fmt.Sprintf("%.1f s", x.Seconds()), fmt.Sprintf("%.1f s", y.Seconds()), ratio})
	}
	t.AppendRow(table.Row{"records", count(original), count(ours), ""})
	row("wall time", a.wall, b.wall)
	row("timed repetitions of records", a.timed, b.timed)
	row("warm-up, estimated for both", a.warmup, b.warmup)
	row("wall - timed - warm-up", a.overhead(), b.overhead())
	row("  of which in tests without a record", a.lost, b.lost)
	t.Render()

	lost, speeds := 0, []float64{}
	for i := range original {
		for _, k := range missing(original[i].records, ours[i].records) {
			fmt.Fprintf(w, "alternation %d: only the original has %v\n", i, k)
			lost++
		}
		for _, k := range missing(ours[i].records, original[i].records) {
			fmt.Fprintf(w, "alternation %d: only ours has %v\n", i, k)
		}
		for k, r := range original[i].records {
			if s, ok := ours[i].records[k]; ok && r.AvgTS > 0 {
				speeds = append(speeds, s.AvgTS/r.AvgTS)
			}
		}
	}
	if speed, err := stats.New(speeds); err == nil {
		fmt.Fprintf(w, "speed in common records, ours / original: median %.3f, from %.3f to %.3f\n", speed.Median(), speed.Min(), speed.Max())
	}

	reached := lost == 0 && len(a.records) > 0 // without records, nothing was compared
	fmt.Fprintf(w, "records: %s, the original has %d that ours lacks\n", verdict(reached), lost)
	judge := func(name string, x, y time.Duration, most float64) {
		ok := y.Seconds() <= most*x.Seconds()
		fmt.Fprintf(w, "%s: %s, %.3f of the original's (required: at most %.3f)\n", name, verdict(ok), y.Seconds()/x.Seconds(), most)
		reached = reached && ok
	}
	if models == 1 {
		judge("wall - timed - warm-up", a.overhead(), b.overhead(), maxOverhead)
	} else {
		judge("wall time", a.wall, b.wall, maxWall)
	}
	if !reached {
		return errNotReached
	}
	return nil
}

// verdict says whether a requirement is met.
func verdict(ok bool) string {
	if ok {
		return "reached"
	}
	return "NOT reached"
}

// sum adds up the times of runs. Its records are those of all runs.
func sum(runs []figures) figures {
	total := figures{records: map[key]record{}}
	for _, f := range runs {
		maps.Copy(total.records, f.records)
		total.wall += f.wall
		total.timed += f.timed
		total.warmup += f.warmup
		total.lost += f.lost
		if f.account != nil {
			if total.account == nil {
				total.account = &result.Accounting{}
			}
			total.account.Timed += f.account.Timed
			total.account.Warmup += f.account.Warmup
		}
	}
	return total
}

// count lists the number of records of each run.
func count(runs []figures) string {
	var counts []string
	for _, f := range runs {
		counts = append(counts, strconv.Itoa(len(f.records)))
	}
	return strings.Join(counts, " ")
}
