//go:build cgo && linux

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/benchtest"
	"github.com/sparecores/benchmark-llm/bench/result"
)

func TestRPCFlag(t *testing.T) {
	for _, tt := range []struct {
		name string
		set  []string
		want rpcFlag
		err  string
	}{
		{"one", []string{"a:1"}, rpcFlag{"a:1"}, ""},
		{"several", []string{"a:1,b:2", "a:2"}, rpcFlag{"a:1", "b:2", "a:2"}, ""},
		{"no port", []string{"a"}, nil, `not HOST:PORT of an RPC server: "a"`},
		{"nothing after the comma", []string{"a:1,"}, nil, `not HOST:PORT of an RPC server: ""`},
		{"twice", []string{"a:1", "a:1"}, rpcFlag{"a:1"}, "RPC server a:1 is named twice"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got rpcFlag
			text := ""
			for _, s := range tt.set {
				if err := got.Set(s); err != nil {
					text = err.Error()
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" || text != tt.err {
				t.Errorf("error %q, want %q\n%s", text, tt.err, diff)
			}
		})
	}
}

// Two servers are two devices, which a model is split over, or of which one is
// chosen.
func TestRPCDevices(t *testing.T) {
	t.Parallel()
	a, _ := rpcServer(t)
	b, _ := rpcServer(t)
	out, err := exec.Command("benchmark-llm", "devices", "--rpc", a, "--rpc", b).Output()
	if err != nil {
		t.Fatal(err)
	}
	for device, endpoint := range map[string]string{"RPC0": a, "RPC1": b} {
		if want := regexp.MustCompile(`(?m)^` + device + ` +gpu +RPC +\d.* ` + endpoint + `$`); !want.Match(out) {
			t.Errorf("no line like %s in\n%s", want, out)
		}
	}

	for _, tt := range []struct {
		name string
		args []string
		want map[string]any // of the records
	}{
		{"split", nil, map[string]any{"backends": "RPC", "gpu_info": a + ", " + b, "devices": "auto", "n_gpu_layers": -1.0, "offload": "31/31"}},
		{
			"split as asked", []string{"--tensor-split", "1/3", "--device", "RPC1/RPC0"},
			map[string]any{"devices": "RPC1/RPC0", "tensor_split": "1.00/3.00", "n_gpu_layers": -1.0, "offload": "31/31"},
		},
		{
			"one whole", []string{"--split-mode", "none", "--main-gpu", "1"},
			map[string]any{"split_mode": "none", "main_gpu": 1.0, "n_gpu_layers": -1.0, "offload": "31/31"},
		},
		{
			"one of them, some layers",
			[]string{"--device", "RPC1", "--n-gpu-layers", "10"},
			map[string]any{"backends": "RPC", "gpu_info": a + ", " + b, "devices": "RPC1", "n_gpu_layers": 10.0, "offload": "10/31"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) { // one after another: a server has one client at a time
			r := newFaulty(t, append([]string{"--rpc", a + "," + b, "-p", "8", "-n", "2", "-r", "1"}, tt.args...)...)
			r.start()
			r.over(exitOK)
			if n := len(r.printed()); n != 2 {
				t.Fatalf("%d records, want 2; stderr:\n%s", n, r.stderr.String())
			}
			for line := range strings.Lines(r.stdout.String()) {
				var rec map[string]any
				if err := json.Unmarshal([]byte(line), &rec); err != nil {
					t.Fatal(err)
				}
				rec["offload"] = fmt.Sprintf("%d/%d", offloadOf(t, line).Ext.Offload.Layers, offloadOf(t, line).Ext.Offload.Of)
				for field, want := range tt.want {
					if rec[field] != want {
						t.Errorf("%s is %v, want %v", field, rec[field], want)
					}
				}
			}
		})
	}
}

// offloadOf is the last record of stdout, which says how many layers were where.
func offloadOf(t *testing.T, stdout string) result.Record {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	var rec result.Record
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &rec); err != nil {
		t.Fatalf("no record: %v", err)
	}
	if rec.Ext.Offload == nil {
		t.Fatalf("nothing of offloading in %+v", rec.Ext)
	}
	return rec
}

// A server that has less memory than it says gets as many layers as fit there
// beside the context of the longest test, found without running one.
func TestOffloadThatFits(t *testing.T) {
	t.Parallel()
	const limitKiB = 120_000 // SmolLM has 99 MiB; a server takes a tensor of 29 MiB in before it puts it away
	endpoint, _ := rpcServerWith(t, limitKiB)
	r := newFaulty(t, "--rpc", endpoint, "-p", "8", "-n", "4", "-r", "1", "--benchmark-timeout-scale", "30")
	r.start()
	r.over(exitOK)
	rec := offloadOf(t, r.stdout.String())
	fits := rec.GPULayers
	if n := len(r.printed()); n != 2 || fits < 1 || fits > 30 || rec.Ext.Offload.Layers != fits || rec.Ext.Offload.Of != 31 {
		t.Fatalf("%d records, n_gpu_layers %d, %+v", n, fits, *rec.Ext.Offload)
	}
	next := fmt.Sprintf("%d of 31 layers on devices: with %d, ", fits, fits+1)
	if w := rec.Ext.Warnings[0]; w.Code != "partial_offload" || !strings.HasPrefix(w.Message, next) || !strings.Contains(w.Message, "allocate") {
		t.Errorf("%+v, want one that begins with %q", w, next)
	}
	tried := make(map[int]bool)
	for _, e := range r.steps() {
		if e, ok := e.(bench.OffloadTry); ok {
			tried[e.Layers] = true
		}
	}
	if !tried[31] || !tried[fits] || !tried[fits+1] || len(tried) > 7 {
		t.Errorf("tried %v", tried)
	}

	// A longer test's context takes its part of the memory.
	r = newFaulty(t, "--rpc", endpoint, "-p", "8", "-n", "0", "-d", "8,2000", "-r", "1", "--benchmark-timeout-scale", "30", "--no-warmup")
	r.start()
	r.over(exitOK)
	if beside := offloadOf(t, r.stdout.String()).GPULayers; beside >= fits || beside < 0 {
		t.Errorf("%d layers beside a context of 2008 tokens, %d beside one of 8", beside, fits)
	}
}

// Two servers hold a model that one of them cannot, on what are two machines as
// far as the network goes.
func TestModelLargerThanOneServer(t *testing.T) {
	t.Parallel()
	first, second := twoMachines(t)
	first.LimitKiB, second.LimitKiB = 110_000, 110_000
	a, _ := benchtest.StartRPC(t, first)
	b, _ := benchtest.StartRPC(t, second)
	measured := func(servers string) result.Record {
		r := newFaulty(t, "--rpc", servers, "-p", "8", "-n", "0", "-r", "1", "--benchmark-timeout-scale", "30")
		r.start()
		r.over(exitOK)
		return offloadOf(t, r.stdout.String())
	}
	both := measured(a + "," + b)
	if o := both.Ext.Offload; o.Layers != o.Of || both.GPULayers != -1 || both.Backends != "RPC" || both.GPUInfo != a+", "+b {
		t.Errorf("%+v on %s, %s", *o, both.Backends, both.GPUInfo)
	}
	if diff := cmp.Diff([]string{"RPC0", "RPC1"}, layersOn(both)); diff != "" {
		t.Errorf("devices with layers (-want +got)\n%s", diff)
	}
	if one := measured(a).Ext.Offload; one.Layers == one.Of || one.Layers == 0 {
		t.Errorf("%+v on one", *one)
	}
}

// twoMachines are two places for servers: network namespaces, each on a link of
// its own, where this user may make them; else two addresses of the loopback.
func twoMachines(t *testing.T) (a, b benchtest.RPC) {
	t.Helper()
	ip := func(command string) error {
		out, err := exec.Command("ip", strings.Fields(command)...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("ip %s: %w: %s", command, err, bytes.TrimSpace(out))
		}
		return nil
	}
	// 198.18.0.0/15 is set aside for measurements, and routed nowhere.
	machine := func(n int) (benchtest.RPC, error) {
		name, subnet := fmt.Sprintf("bl%d-%d", os.Getpid(), n), fmt.Sprintf("198.18.%d.", os.Getpid()%250)
		if err := ip("netns add " + name); err != nil {
			return benchtest.RPC{}, err
		}
		t.Cleanup(func() { // its link goes with it
			if err := ip("netns del " + name); err != nil {
				t.Error(err)
			}
		})
		here, there := fmt.Sprint(subnet, 4*n+1), fmt.Sprint(subnet, 4*n+2)
		for _, command := range []string{
			"link add " + name + " type veth peer name eth0 netns " + name,
			"addr add " + here + "/30 dev " + name, "link set " + name + " up",
			"-n " + name + " addr add " + there + "/30 dev eth0", "-n " + name + " link set eth0 up",
		} {
			if err := ip(command); err != nil {
				return benchtest.RPC{}, err
			}
		}
		return benchtest.RPC{Host: there, Prefix: []string{"ip", "netns", "exec", name}}, nil
	}
	a, err := machine(0)
	if err == nil {
		b, err = machine(1)
	}
	if err != nil {
		t.Logf("two addresses of the loopback, because network namespaces cannot be made: %v", err)
		return benchtest.RPC{Host: "127.0.0.1"}, benchtest.RPC{Host: "127.0.0.2"}
	}
	t.Logf("two network namespaces, %s and %s", a.Host, b.Host)
	return a, b
}

// What was asked for is not changed: a context that does not fit beside it costs
// its test alone.
func TestOffloadAsked(t *testing.T) {
	t.Parallel()
	endpoint, _ := rpcServerWith(t, 120_000)
	r := newFaulty(t, "--rpc", endpoint, "-ngl", "8", "-p", "16384", "-n", "2", "-r", "1", "--benchmark-timeout-scale", "30")
	r.start()
	r.over(exitOK)
	if diff := cmp.Diff([]string{"pp16384 out_of_memory 0", "tg2 ok 1"}, tally(r.steps())); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	rec := offloadOf(t, r.stdout.String())
	if rec.GPULayers != 8 || rec.Ext.Offload.Layers != 8 || strings.Contains(r.events(), "offload_try") {
		t.Errorf("n_gpu_layers %d, %+v", rec.GPULayers, *rec.Ext.Offload)
	}
}

// More devices than the library takes, which would end its process, are left out
// with a warning, and the record names those that were used. One alone is used
// wherever it is in the list.
func TestDevicesLimited(t *testing.T) {
	t.Parallel()
	endpoint, _ := rpcServerWith(t, 0, "-d", strings.TrimSuffix(strings.Repeat("CPU,", 18), ","))
	const used = "RPC0/RPC1/RPC2/RPC3/RPC4/RPC5/RPC6/RPC7/RPC8/RPC9/RPC10/RPC11/RPC12/RPC13/RPC14"
	for _, tt := range []struct {
		name    string
		args    []string
		warned  bool
		devices string
		split   string
		on      []string // that hold layers, by the library
	}{
		{"all", nil, true, used, "0.00", strings.Split(used, "/")},
		{
			"as asked", []string{"--tensor-split", "1/0/0/1" + strings.Repeat("/0", 13) + "/7"}, true, used,
			"1.00/0.00/0.00/1.00" + strings.Repeat("/0.00", 11), []string{"RPC0", "RPC3"},
		},
		{"one", []string{"--split-mode", "none", "--main-gpu", "16"}, false, "auto", "0.00", []string{"RPC16"}},
	} {
		t.Run(tt.name, func(t *testing.T) { // one after another: a server has one client at a time
			r := newFaulty(t, append([]string{"--rpc", endpoint, "-p", "8", "-n", "0", "-r", "1", "--benchmark-timeout-scale", "30"}, tt.args...)...)
			r.start()
			r.over(exitOK)
			rec := offloadOf(t, r.stdout.String())
			const message = "15 of 18 devices used, the most that the library takes: RPC0 to RPC14"
			if w := rec.Ext.Warnings[0]; (w == result.Warning{Code: "devices_limited", Message: message}) != tt.warned {
				t.Errorf("%+v", w)
			}
			if rec.Devices != tt.devices || rec.TensorSplit != tt.split {
				t.Errorf("devices %s, split %s", rec.Devices, rec.TensorSplit)
			}
			if diff := cmp.Diff(tt.on, layersOn(rec)); diff != "" {
				t.Errorf("devices with layers (-want +got)\n%s", diff)
			}
		})
	}
	r := newFaulty(t, append(neverAsked(t), "--rpc", endpoint, "--tensor-split", strings.Repeat("0/", 15)+"1/1/1")...)
	r.start()
	r.over(exitUsage)
	r.refusedBeforeAll("start engine: settings do not match the devices: a tensor split without a share for the first 15 devices, the most that the library takes; there are 18: RPC0, ")
}

// layersOn are the devices that hold layers, as a record has them.
func layersOn(r result.Record) (names []string) {
	if r.Ext.GPU != nil {
		for _, d := range r.Ext.GPU.Devices {
			names = append(names, d.Name)
		}
	}
	return names
}

// What a record says of devices is what llama-bench says with the same flags.
func TestDevicesAsLlamaBench(t *testing.T) {
	t.Parallel()
	const tiny = "tiny.Q4_K_M.gguf"
	file := filepath.Join(t.TempDir(), tiny)
	if out, err := exec.Command("benchmark-llm", "models", "synth", tiny, "-o", file).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	a, _ := rpcServer(t)
	b, _ := rpcServer(t)
	both := a + "," + b
	for _, tt := range []struct {
		flags []string
		on    []string // devices with layers, by our record
	}{
		{[]string{"--rpc", a}, []string{"RPC0"}},
		{[]string{"--rpc", a, "-dev", "RPC0", "-ngl", "1"}, []string{"RPC0"}},
		{[]string{"--rpc", both}, []string{"RPC0", "RPC1"}},
		{[]string{"--rpc", both, "-dev", "RPC1"}, []string{"RPC1"}},
		{[]string{"--rpc", both, "-dev", "RPC1/RPC0", "-ts", "1/3"}, []string{"RPC1", "RPC0"}},
		{[]string{"--rpc", both, "-ts", "0/1"}, []string{"RPC1"}},
		{[]string{"--rpc", both, "-sm", "none", "-mg", "1"}, []string{"RPC1"}},
		{[]string{"--rpc", both, "-ngl", "0"}, nil},
		{[]string{"--rpc", both, "-dev", "none"}, nil},
	} {
		t.Run(strings.Join(tt.flags, " "), func(t *testing.T) { // one after another: a server has one client at a time
			flags := append([]string{"-m", file, "-p", "8", "-n", "0", "-r", "1", "-t", "1", "-o", "jsonl"}, tt.flags...)
			out, err := exec.Command(filepath.Join("..", "..", "scripts", "llama-tool"), append([]string{"llama-bench"}, flags...)...).Output()
			if err != nil {
				t.Fatalf("llama-bench: %v\n%s", err, out)
			}
			r := newFaulty(t, append([]string{"--weights", "file"}, flags...)...)
			r.start()
			r.over(exitOK)
			said := func(line []byte) (fields struct {
				Backends    string `json:"backends"`
				GPUInfo     string `json:"gpu_info"`
				Devices     string `json:"devices"`
				SplitMode   string `json:"split_mode"`
				MainGPU     int    `json:"main_gpu"`
				TensorSplit string `json:"tensor_split"`
				GPULayers   int    `json:"n_gpu_layers"`
			},
			) {
				if err := json.Unmarshal(line, &fields); err != nil {
					t.Fatalf("%v in %q", err, line)
				}
				return fields
			}
			if diff := cmp.Diff(said(out), said(r.stdout.Bytes())); diff != "" {
				t.Errorf("(-llama-bench +ours)\n%s", diff)
			}
			var record result.Record
			if err := json.Unmarshal(r.stdout.Bytes(), &record); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.on, layersOn(record)); diff != "" {
				t.Errorf("devices with layers (-want +got)\n%s", diff)
			}
		})
	}
}

// neverAsked is the address of a model on a server that nobody may ask for
// anything, and the flags to fetch it.
func neverAsked(t *testing.T) []string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("%s %s was asked for", r.Method, r.URL)
	}))
	t.Cleanup(server.Close)
	return []string{"-m", server.URL + "/" + embedded, "--weights", "file", "--models-dir", t.TempDir()}
}

// Settings that do not match the devices are one line, before anything is
// fetched.
func TestDevicesDoNotGo(t *testing.T) {
	t.Parallel()
	a, _ := rpcServer(t)
	b, _ := rpcServer(t)
	for _, tt := range []struct {
		name string
		args []string
		code int
		line string
	}{
		{"no such device", []string{"--device", "RPC0/RPC7"}, exitLibrary, `start engine: no device called "RPC7"; there are: CPU, RPC0, RPC1`},
		{
			"the CPU", []string{"--device", "RPC0/CPU"}, exitUsage,
			"start engine: settings do not match the devices: nothing can be offloaded to CPU; there are 2: RPC0, RPC1",
		},
		{
			"a share too many", []string{"--tensor-split", "1/1/1"}, exitUsage,
			"start engine: settings do not match the devices: the tensor split has 3 shares for 2 devices: RPC0, RPC1",
		},
		{
			"a share too few", []string{"--tensor-split", "1"}, exitUsage,
			"start engine: settings do not match the devices: the tensor split has 1 share for 2 devices: RPC0, RPC1",
		},
		{
			"a share for a device left out", []string{"--device", "RPC1", "--tensor-split", "1/1"}, exitUsage,
			"--tensor-split: 1/1 has 2 shares for the 1 of --device RPC1",
		},
		{
			"no such main GPU", []string{"--split-mode", "none", "--main-gpu", "2"}, exitUsage,
			"start engine: settings do not match the devices: there is no main GPU 2 (counted from 0); there are 2: RPC0, RPC1",
		},
		{"no device called so, with no layer to offload", []string{"--device", "CUDA0", "-ngl", "0"}, exitLibrary, `start engine: no device called "CUDA0"; there are: CPU, RPC0, RPC1`},
		{"every share 0", []string{"--tensor-split", "0/0"}, exitUsage, "--tensor-split: every share is 0"},
		{"a share below 0", []string{"--tensor-split", "1/-1"}, exitUsage, "--tensor-split: -1 is negative"},
		{"a main GPU below 0", []string{"--main-gpu", "-1"}, exitUsage, "--main-gpu: -1 is outside 0…1023"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newFaulty(t, slices.Concat(neverAsked(t), []string{"--rpc", a + "," + b}, tt.args)...)
			r.start()
			r.over(tt.code)
			r.refusedBeforeAll(tt.line)
		})
	}
}

// refusedBeforeAll checks for one line and a hint, and that no run was begun.
func (r *faulty) refusedBeforeAll(line string) {
	r.t.Helper()
	if log := r.stderr.String(); !strings.HasPrefix(log, "benchmark-llm: "+line) || strings.Count(log, "\n") != 2 || !strings.Contains(log, "\nhint: ") {
		r.t.Errorf("not that line and a hint:\n%s", log)
	}
	if r.stdout.Len() > 0 {
		r.t.Errorf("stdout: %s", r.stdout.String())
	}
	if dirs, err := os.ReadDir(r.results); err != nil || len(dirs) > 0 {
		r.t.Errorf("a run was begun: %v, %v", dirs, err)
	}
}

// blackHole is an address whose packets get no answer: that of a listener whose
// queue of connections is full.
func blackHole(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", name.(*syscall.SockaddrInet4).Port)
	for { // until it takes no more
		c, err := net.DialTimeout("tcp4", address, 300*time.Millisecond)
		if err != nil {
			return address
		}
		t.Cleanup(func() { _ = c.Close() })
	}
}

// impatient is the address of a server that answers anything with a line of HTTP.
func impatient(t *testing.T) string {
	t.Helper()
	web, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = web.Close() })
	go func() {
		for {
			c, err := web.Accept()
			if err != nil {
				return // closed
			}
			_, _ = c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
			_ = c.Close()
		}
	}()
	return web.Addr().String()
}

// A server that is not there, or is something else, is one line before anything
// is loaded or fetched.
func TestRPCServerCannotBeUsed(t *testing.T) {
	t.Parallel()
	web := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(web.Close)
	busy, err := net.Listen("tcp4", "127.0.0.1:0") // the kernel connects, and nobody answers
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = busy.Close() })
	nobody, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := nobody.Close(); err != nil {
		t.Fatal(err)
	}
	fine, _ := rpcServer(t)
	for _, tt := range []struct{ name, endpoint, how string }{
		{"nobody", nobody.Addr().String(), "cannot be reached: connect: connection refused"},
		{"a web server, which waits for a line", web.Listener.Addr().String(), "does not answer within 10s: it serves another program, or is no RPC server"},
		{"a web server, which does not", impatient(t), "does not speak this library's RPC "},
		{"busy", busy.Addr().String(), "does not answer within 10s: it serves another program, or is no RPC server"},
		{"no way there", blackHole(t), "does not answer within 5s"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newFaulty(t, append(neverAsked(t), "--rpc", fine+","+tt.endpoint)...)
			r.start()
			r.over(exitLibrary)
			r.refusedBeforeAll("RPC server cannot be used: " + tt.endpoint + " " + tt.how)
		})
	}
	r := newFaulty(t, append(neverAsked(t), "--rpc", "localhost")...)
	r.start()
	r.over(exitUsage)
	r.refusedBeforeAll(`--rpc: not HOST:PORT of an RPC server: "localhost"`)
}
