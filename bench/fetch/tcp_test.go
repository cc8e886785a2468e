package fetch_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sparecores/benchmark-llm/bench/fetch"
	"github.com/sparecores/benchmark-llm/bench/source"
)

// childVariable makes this test's binary a process that fetches one file.
const childVariable = "FETCH_TEST_CHILD"

// child is what such a process is told.
type child struct {
	URL, Dir, SHA256 string
	FileBytes        uint64 // RLIMIT_FSIZE; 0 is none
	NoSpace          bool   // from the first bytes on
	Impatient        bool   // for servers that are not there
}

func TestMain(m *testing.M) {
	if order := os.Getenv(childVariable); order != "" {
		os.Exit(fetchAsChild(order))
	}
	os.Exit(m.Run())
}

// fetchAsChild prints what came of it in one line.
func fetchAsChild(order string) int {
	var c child
	if err := json.Unmarshal([]byte(order), &c); err != nil {
		fmt.Println(err)
		return 2
	}
	if c.FileBytes > 0 {
		signal.Ignore(unix.SIGXFSZ)
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: c.FileBytes, Max: c.FileBytes}); err != nil {
			fmt.Println(err)
			return 2
		}
	}
	src, err := source.Parse(c.URL)
	if err != nil {
		fmt.Println(err)
		return 2
	}
	client := fetch.Client{Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	client.SetPatience(time.Second)
	if c.Impatient {
		client.SetPatience(time.Millisecond)
	}
	src.SHA256 = c.SHA256
	var o fetch.Options
	if c.NoSpace {
		o.Progress = func(fetch.Progress) {
			if err := noSpace(); err != nil {
				fmt.Println(err)
				os.Exit(2)
			}
		}
	}
	file, err := client.Fetch(context.Background(), src, c.Dir, o)
	if err != nil {
		fmt.Println(errors.Is(err, fetch.ErrNoDisk), err)
		return 1
	}
	fmt.Println(file.Downloaded, file.SHA256)
	return 0
}

func (c child) command(t *testing.T, env ...string) *exec.Cmd {
	t.Helper()
	order, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(append(os.Environ(), childVariable+"="+string(order)), env...)
	return cmd
}

// counted is a server over TCP and how often it was asked.
func counted(t *testing.T, h http.Handler) (server *httptest.Server, requests *atomic.Int64) {
	t.Helper()
	requests = new(atomic.Int64)
	server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		h.ServeHTTP(rw, r)
	}))
	t.Cleanup(server.CloseClientConnections)
	t.Cleanup(server.Close)
	return server, requests
}

// The faults of a server, over TCP and in real time.
func TestFaultsOverTCP(t *testing.T) {
	a, b := blob(t, 1), blob(t, 2)
	whole := func(rw http.ResponseWriter, r *http.Request) { serve(rw, r, a) }
	cutAt := func(n int) http.HandlerFunc {
		return func(rw http.ResponseWriter, r *http.Request) { part(rw, r, a, n, false) }
	}
	lie := func(n int) http.HandlerFunc {
		return func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Length", strconv.Itoa(n))
			_, _ = rw.Write(a[:min(n, len(a))])
		}
	}
	corrupt := bytes.Clone(a)
	corrupt[len(a)/2] ^= 1
	for name, tt := range map[string]struct {
		answers  []http.HandlerFunc
		pinned   string
		want     []byte // nil is a failure
		kind     error
		requests int64
		atLeast  time.Duration
	}{
		"503":                    {[]http.HandlerFunc{status(503), status(503), whole}, "", a, nil, 3, 0},
		"503 for ever":           {[]http.HandlerFunc{status(503)}, "", nil, fetch.ErrUnavailable, 6, 0},
		"429":                    {[]http.HandlerFunc{status(429, "Retry-After", "1"), whole}, "", a, nil, 2, time.Second},
		"cut bodies":             {[]http.HandlerFunc{cutAt(1000), cutAt(300_000), cutAt(0), whole}, "", a, nil, 4, 0},
		"says too much":          {[]http.HandlerFunc{lie(len(a) + 9), whole}, "", a, nil, 2, 0},
		"says too little":        {[]http.HandlerFunc{lie(len(a) - 9), whole}, "", a, nil, 2, 0},
		"changed between ranges": {[]http.HandlerFunc{cutAt(1000), func(rw http.ResponseWriter, r *http.Request) { serve(rw, r, b) }}, "", b, nil, 2, 0},
		"corrupt":                {[]http.HandlerFunc{func(rw http.ResponseWriter, r *http.Request) { serve(rw, r, corrupt) }}, sha(a), nil, fetch.ErrChecksum, 2, 0},
		"corrupt once":           {[]http.HandlerFunc{func(rw http.ResponseWriter, r *http.Request) { serve(rw, r, corrupt) }, whole}, sha(a), a, nil, 2, 0},
		"stall":                  {[]http.HandlerFunc{func(rw http.ResponseWriter, r *http.Request) { part(rw, r, a, 5000, true) }, whole}, "", a, nil, 2, 100 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, requests := counted(t, script(tt.answers...))
			var log bytes.Buffer
			client := fetch.Client{Token: "hf_t0ken", Log: slog.New(slog.NewTextHandler(&log, nil))}
			client.SetPatience(time.Second)
			dir, start := t.TempDir(), time.Now()
			file, err := client.Fetch(t.Context(), pinned(t, server.URL+"/m.gguf?sig=s3cret", tt.pinned), dir, fetch.Options{})
			switch {
			case tt.want == nil:
				if !errors.Is(err, tt.kind) {
					t.Errorf("got %+v, %v", file, err)
				}
				if _, err := os.Lstat(filepath.Join(dir, "m.gguf")); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("the file is there: %v", err)
				}
			case err != nil || file.SHA256 != sha(tt.want):
				t.Errorf("got %+v, %v\n%s", file, err, &log)
			default:
				if got, err := os.ReadFile(file.Path); err != nil || !bytes.Equal(got, tt.want) {
					t.Errorf("wrong content, %v", err)
				}
			}
			if got := requests.Load(); got != tt.requests {
				t.Errorf("%d requests, want %d\n%s", got, tt.requests, &log)
			}
			if took := time.Since(start); took < tt.atLeast {
				t.Errorf("took %v", took)
			}
			silent(t, log.String(), fmt.Sprint(err))
		})
	}
}

func TestConnectionRefused(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	var client fetch.Client
	client.SetPatience(time.Millisecond)
	_, err = client.Fetch(t.Context(), parse(t, "http://u:s3cret@"+address+"/m.gguf?sig=s3cret"), t.TempDir(), fetch.Options{})
	if !errors.Is(err, fetch.ErrUnavailable) || !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("got %v", err)
	}
	silent(t, err.Error())
}

// A certificate that nobody knows is refused at once: asking again does not help.
func TestUnknownCertificate(t *testing.T) {
	var requests atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests.Add(1) }))
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	defer server.Close()
	var log bytes.Buffer
	client := fetch.Client{Log: slog.New(slog.NewTextHandler(&log, nil))}
	_, err := client.Fetch(t.Context(), parse(t, server.URL+"/m.gguf?sig=s3cret"), t.TempDir(), fetch.Options{})
	if !errors.As(err, new(*tls.CertificateVerificationError)) || requests.Load() != 0 || log.Len() != 0 {
		t.Errorf("got %v after %d requests\n%s", err, requests.Load(), &log)
	}
	silent(t, fmt.Sprint(err))
}

// Proxies are those of the environment, which a process reads once.
func TestProxyFromEnvironment(t *testing.T) {
	a := blob(t, 1)
	var asked atomic.Value
	proxy, _ := counted(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		asked.Store(r.URL.Host)
		serve(rw, r, a)
	}))
	c := child{URL: "http://files.test/m.gguf?sig=s3cret", Dir: t.TempDir()}
	out, err := c.command(t, "http_proxy="+proxy.URL, "HTTP_PROXY="+proxy.URL, "no_proxy=", "NO_PROXY=").CombinedOutput()
	if err != nil || asked.Load() != "files.test" || !strings.Contains(string(out), sha(a)) {
		t.Errorf("%v, the proxy was asked for %v: %s", err, asked.Load(), out)
	}
	// One that refuses, with a password in its address.
	out, err = c.command(t, "http_proxy=http://u:s3cret@127.0.0.1:1", "no_proxy=", "NO_PROXY=").CombinedOutput()
	if err != nil { // the file is there and is used as it is
		t.Errorf("%v: %s", err, out)
	}
	c.Dir, c.Impatient = t.TempDir(), true
	out, err = c.command(t, "http_proxy=http://u:s3cret@127.0.0.1:1", "no_proxy=", "NO_PROXY=").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "refused") {
		t.Errorf("%v: %s", err, out)
	}
	silent(t, string(out))
}

// A disk without room is said before the first byte.
func TestFullDisk(t *testing.T) {
	a := blob(t, 1)
	server, requests := counted(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { serve(rw, r, a) }))
	dir := t.TempDir()
	_, err := (&fetch.Client{ReserveBytes: new(int64(1 << 60))}).Fetch(t.Context(), parse(t, server.URL+"/m.gguf"), dir, fetch.Options{})
	var disk *fetch.DiskError
	if !errors.As(err, &disk) || errors.Is(err, fetch.ErrReserve) != (disk.Need <= disk.Free) || disk.Free <= 0 || disk.Need != int64(len(a)) || requests.Load() != 1 {
		t.Errorf("%v, %d requests", err, requests.Load())
	}
}

// A disk that fills up during the download ends it, and what is there is resumed
// when there is room. The kernel says so without any disk being full, to a process
// that has a limit on the size of files or asked for it: no privilege is needed.
func TestDiskFillsUp(t *testing.T) {
	a := blob(t, 1)
	for name, tt := range map[string]struct {
		how  child
		want string
	}{
		"ENOSPC": {child{NoSpace: true}, "no space left on device"},
		"EFBIG":  {child{FileBytes: 300 << 10}, "file too large"},
	} {
		t.Run(name, func(t *testing.T) {
			server, _ := counted(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { serve(rw, r, a) }))
			c := tt.how
			c.URL, c.Dir = server.URL+"/m.gguf", t.TempDir()
			out, err := c.command(t).Output()
			if err == nil || !strings.HasPrefix(string(out), "true") || !strings.Contains(string(out), tt.want) {
				t.Errorf("%v: %s", err, out)
			}
			file, err := (&fetch.Client{ReserveBytes: new(int64)}).Fetch(t.Context(), parse(t, c.URL), c.Dir, fetch.Options{})
			if err != nil || file.SHA256 != sha(a) || file.Downloaded == 0 || file.Downloaded >= int64(len(a)) {
				t.Errorf("with room: %+v, %v", file, err)
			}
		})
	}
}

// noSpace makes all further writes of this process fail as on a full disk, but for
// short ones, as those to a server and to the log are. The kernel allows it to
// every process (seccomp).
func noSpace() error {
	const short = 1 << 10             // bytes
	const number, count = 0, 16 + 2*8 // in struct seccomp_data: the call's number, the lower half of its third argument
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: number},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_WRITE, Jf: 3},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: count},
		{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, K: short, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSPC)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	runtime.LockOSThread() // the first call is for this thread, the second for all
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return fmt.Errorf("seccomp: %w", errno)
	}
	return nil
}

// Two processes that want the same file download it once.
func TestTwoProcesses(t *testing.T) {
	a := blob(t, 1)
	server, requests := counted(t, slowly(a, 4e6))
	dir := t.TempDir()
	sum := 0
	outs := make(chan string)
	for range 2 {
		cmd := child{URL: server.URL + "/m.gguf", Dir: dir, SHA256: sha(a)}.command(t)
		go func() {
			out, err := cmd.Output()
			if err != nil {
				t.Errorf("%v: %s", err, out)
			}
			outs <- string(out)
		}()
	}
	for range 2 {
		n, _, _ := strings.Cut(<-outs, " ")
		downloaded, err := strconv.Atoi(n)
		if err != nil {
			t.Error(err)
		}
		sum += downloaded
	}
	if sum != len(a) { // resumed or not, as the machine is busy
		t.Errorf("%d bytes in %d requests", sum, requests.Load())
	}
	leftovers(t, dir, ".m.gguf.json", "m.gguf")
}

// A process that is killed leaves a part, and the next one goes on with it.
func TestKilledAndResumed(t *testing.T) {
	a := blob(t, 1)
	server, requests := counted(t, slowly(a, 1e6))
	c := child{URL: server.URL + "/m.gguf", Dir: t.TempDir()}
	first := c.command(t)
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	for {
		if info, err := os.Stat(filepath.Join(c.Dir, "m.gguf.part")); err == nil && info.Size() > 100_000 {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = first.Wait()
	out, err := c.command(t).Output()
	var downloaded int
	var sum string
	if _, scanErr := fmt.Sscan(string(out), &downloaded, &sum); err != nil || scanErr != nil {
		t.Fatalf("%v, %v: %s", err, scanErr, out)
	}
	if sum != sha(a) || downloaded == 0 || downloaded > len(a)-100_000 {
		t.Errorf("%d bytes in %d requests, sha256 %s", downloaded, requests.Load(), sum)
	}
	leftovers(t, c.Dir, ".m.gguf.json", "m.gguf")
}

// A host that cannot be reached is tried twice by a brisk client, and not again for a
// while, also for other files; a server that
// answers with an error is as patiently asked as by any other.
func TestBrisk(t *testing.T) {
	for _, tt := range []struct {
		name        string
		brisk       bool
		handler     http.Handler // nil: nothing listens
		dials, asks int
		warnings    int // of the probe and of the download
	}{
		{"dead, patient", false, nil, 6, 0, 1},
		{"dead, brisk", true, nil, 2, 0, 0},
		{"busy, patient", false, status(429), 6, 6, 1},
		{"busy, brisk", true, status(503), 6, 6, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var asked, dialled atomic.Int64
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked.Add(1)
				tt.handler.ServeHTTP(w, r)
			}))
			defer server.Close()
			if tt.handler == nil {
				server.Close()
			}
			var log bytes.Buffer
			var dialer net.Dialer
			transport := &http.Transport{
				DisableKeepAlives: true,
				DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
					dialled.Add(1)
					return dialer.DialContext(ctx, network, address)
				},
			}
			client := func() *fetch.Client { // it does not know yet that the host is dead
				c := &fetch.Client{Brisk: tt.brisk, Log: slog.New(slog.NewTextHandler(&log, nil)), Transport: transport}
				c.SetPatience(time.Millisecond)
				return c
			}
			src, err := source.Parse(server.URL + "/m.gguf")
			if err != nil {
				t.Fatal(err)
			}
			check := func(what string, err error) {
				t.Helper()
				if err == nil || dialled.Load() != int64(tt.dials) || asked.Load() != int64(tt.asks) || strings.Count(log.String(), "level=WARN") != tt.warnings {
					t.Errorf("%s: %v after %d dials, %d requests, log:\n%s", what, err, dialled.Load(), asked.Load(), log.String())
				}
				dialled.Store(0)
				asked.Store(0)
				log.Reset()
			}
			_, err = client().Probe(t.Context(), src)
			check("probe", err)
			_, _, err = client().Header(t.Context(), src)
			check("header", err)
			_, err = client().Fetch(t.Context(), src, t.TempDir(), fetch.Options{})
			check("download", err)
		})
	}
}
