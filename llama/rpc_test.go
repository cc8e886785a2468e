package llama

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

func TestCheckEndpoint(t *testing.T) {
	for endpoint, want := range map[string]bool{
		"127.0.0.1:50052": true, "gpu-box:1": true, "gpu.example.org:65535": true,
		"": false, ":": false, ":50052": false, "host": false, "host:": false, "host:0": false, "host:65536": false, "host:-1": false,
		"host:1x": false, "host: 1": false, "ho st:1": false, "::1:50052": false, "[::1]:50052": false, "tcp://host:1": false, "a:1:2": false,
	} {
		if err := CheckEndpoint(endpoint); (err == nil) != want || err != nil && !errors.Is(err, ErrRPCEndpoint) {
			t.Errorf("%q: %v", endpoint, err)
		}
	}
}

// rpcServer serves connections with f, and returns its address.
func rpcServer(t *testing.T, f func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed
			}
			go func() {
				defer c.Close()
				f(c)
			}()
		}
	}()
	return l.Addr().String()
}

// says answers a hello with a version of the protocol, in an answer of size bytes.
func says(major, minor, patch byte, size uint64) func(net.Conn) {
	return func(c net.Conn) {
		hello := make([]byte, 1+8+rpcHelloBytes)
		if _, err := io.ReadFull(c, hello); err != nil || hello[0] != 14 || binary.LittleEndian.Uint64(hello[1:]) != rpcHelloBytes {
			return
		}
		reply := make([]byte, 8+size)
		binary.LittleEndian.PutUint64(reply, size)
		copy(reply[8:], []byte{major, minor, patch})
		_, _ = c.Write(reply)
		_, _ = io.Copy(io.Discard, c)
	}
}

func TestRPCProbe(t *testing.T) {
	write := func(s string) func(net.Conn) {
		return func(c net.Conn) {
			_, _ = io.WriteString(c, s)
			_, _ = io.Copy(io.Discard, c)
		}
	}
	for _, tt := range []struct {
		name  string
		serve func(net.Conn)
		want  string // of the error, after the address; empty: none
	}{
		{"the same", says(8, 1, 2, rpcHelloReplySize), ""},
		{"another patch", says(8, 1, 9, rpcHelloReplySize), ""},
		{"older", says(8, 0, 2, rpcHelloReplySize), ""},
		{"newer", says(8, 2, 0, rpcHelloReplySize), "speaks RPC 8.2.0, this library 8.1.2"},
		{"much older", says(7, 1, 2, rpcHelloReplySize), "speaks RPC 7.1.2, this library 8.1.2"},
		{"another form", says(2, 0, 0, 3), "does not speak this library's RPC 8.1.2"},
		{"a longer form", says(8, 1, 2, rpcHelloReplySize+8), "does not speak this library's RPC 8.1.2"},
		{"hangs up", func(net.Conn) {}, "does not speak this library's RPC 8.1.2: "},
		{"busy", func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }, "does not answer within 200ms: it serves another program, or is no RPC server"},
		{"half an answer", write("\x1c\x00\x00\x00\x00\x00\x00\x00\x08\x01"), "does not answer within 200ms"},
		{"a shell", write("SSH-2.0-OpenSSH_9.9\r\n" + strings.Repeat("x", 50)), "does not speak this library's RPC 8.1.2"},
		{"a talker", func(c net.Conn) {
			for {
				if _, err := c.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		}, "does not speak this library's RPC 8.1.2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			endpoint := rpcServer(t, tt.serve)
			err := rpcProbe{rpcVersion{8, 1, 2}, 5 * time.Second, 200 * time.Millisecond}.check(t.Context(), endpoint)
			switch {
			case tt.want == "" && err != nil:
				t.Error(err)
			case tt.want == "":
			case !errors.Is(err, ErrRPCServer) || !strings.Contains(err.Error(), endpoint+" "+tt.want):
				t.Errorf("got %v, want ErrRPCServer: %s", err, tt.want)
			case strings.ContainsAny(err.Error(), "\n\r"):
				t.Errorf("more than a line: %q", err)
			}
		})
	}
}

func TestRPCProbeReachesNobody(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	endpoint := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	p := rpcProbe{rpcVersion{8, 0, 0}, 5 * time.Second, 5 * time.Second}
	if err := p.check(t.Context(), endpoint); !errors.Is(err, ErrRPCServer) || !strings.Contains(err.Error(), endpoint+" cannot be reached: ") {
		t.Errorf("nobody listens: %v", err)
	}
	if err := p.check(t.Context(), "no-such-host.invalid:50052"); !errors.Is(err, ErrRPCServer) {
		t.Errorf("no such host: %v", err)
	}
	if err := p.check(t.Context(), "nonsense"); !errors.Is(err, ErrRPCEndpoint) {
		t.Errorf("no address: %v", err)
	}
}

func TestRPCProbeIsStopped(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	endpoint := rpcServer(t, func(c net.Conn) {
		cancel() // it is connected
		_, _ = io.Copy(io.Discard, c)
	})
	p := rpcProbe{rpcVersion{8, 0, 0}, time.Hour, time.Hour}
	if err := p.check(ctx, endpoint); err == nil {
		t.Error("no error")
	}
}
