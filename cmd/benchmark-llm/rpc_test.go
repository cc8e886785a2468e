//go:build cgo && linux

package main

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
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
		{"split", nil, map[string]any{"backends": "RPC", "gpu_info": a + ", " + b, "devices": "auto", "n_gpu_layers": -1.0}},
		{
			"one of them, some layers",
			[]string{"--device", "RPC1", "--n-gpu-layers", "10"},
			map[string]any{"backends": "RPC", "gpu_info": a + ", " + b, "devices": "RPC1", "n_gpu_layers": 10.0},
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
				for field, want := range tt.want {
					if rec[field] != want {
						t.Errorf("%s is %v, want %v", field, rec[field], want)
					}
				}
			}
		})
	}
}

// A server that is not there, or is something else, is one line before anything
// is loaded or fetched.
func TestRPCServerCannotBeUsed(t *testing.T) {
	t.Parallel()
	web, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer web.Close()
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
	nobody, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := nobody.Close(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, endpoint string
		code           int
		line           string
	}{
		{"nobody", nobody.Addr().String(), exitLibrary, "RPC server cannot be used: " + nobody.Addr().String() + " cannot be reached: "},
		{"something else", web.Addr().String(), exitLibrary, "RPC server cannot be used: " + web.Addr().String() + " does not speak this library's RPC "},
		{"no address", "localhost", exitUsage, `--rpc: not HOST:PORT of an RPC server: "localhost"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newFaulty(t, "--rpc", tt.endpoint)
			r.start()
			r.over(tt.code)
			if log := r.stderr.String(); !strings.HasPrefix(log, "benchmark-llm: "+tt.line) || strings.Count(log, "\n") != 2 {
				t.Errorf("not one line and a hint:\n%s", log)
			}
			if dirs, err := os.ReadDir(r.results); err != nil || len(dirs) > 0 {
				t.Errorf("a run was begun: %v, %v", dirs, err)
			}
		})
	}
}
