package benchtest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// RPC is how to start a ggml-rpc-server: a real device of GPU type on a machine
// without one.
type RPC struct {
	Host     string   // IPv4 address to listen on; empty: 127.0.0.1
	Prefix   []string // command to start it through, as "ip netns exec NAME"
	LimitKiB int      // memory that it may use, which it does not know; 0: no limit
	Args     []string // more of its arguments
}

// rpcPort is where a server in a namespace of its own listens: nobody else does.
const rpcPort = "50052"

// StartRPC starts a server with a CPU device, which ends with the test. It runs
// scripts/llama-tool, found from a package two folders below the module.
func StartRPC(t testing.TB, o RPC) (endpoint string, server *os.Process) {
	t.Helper()
	host, port := o.Host, rpcPort
	if host == "" {
		host = "127.0.0.1"
	}
	if o.Prefix == nil {
		l, err := net.Listen("tcp4", net.JoinHostPort(host, "0"))
		if err != nil {
			t.Fatal(err)
		}
		endpoint = l.Addr().String()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if _, port, err = net.SplitHostPort(endpoint); err != nil {
			t.Fatal(err)
		}
	}
	endpoint = net.JoinHostPort(host, port)
	// The shell and the script end with the server's execution: the process is the
	// server. Unless told otherwise it dies of SIGPIPE when its client does.
	script := `trap "" PIPE; exec "$@"`
	if o.LimitKiB > 0 {
		script = fmt.Sprintf("ulimit -v %d; %s", o.LimitKiB, script)
	}
	args := append([]string{}, o.Prefix...)
	args = append(args, "sh", "-c", script, "sh", filepath.Join("..", "..", "scripts", "llama-tool"), "ggml-rpc-server", "-H", host, "-p", port, "-t", "1")
	args = append(args, o.Args...)
	c := exec.Command(args[0], args[1:]...)
	var output LockedBuffer
	c.Stdout, c.Stderr = &output, &output
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() {
		_ = c.Wait() // it is killed
		close(exited)
	}()
	t.Cleanup(func() {
		_ = c.Process.Kill() // it may be gone
		<-exited
	})
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp4", endpoint)
		if err == nil {
			_ = conn.Close()
			return endpoint, c.Process
		}
		select {
		case <-exited:
			t.Fatalf("no ggml-rpc-server (`make tools` gets it):\n%s", output.String())
		default:
		}
		if time.Now().After(end) {
			t.Fatalf("ggml-rpc-server does not listen:\n%s", output.String())
		}
	}
}

// LockedBuffer is a buffer that is read while it is written.
type LockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *LockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *LockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// RPCProxy passes everything on between clients and a ggml-rpc-server, and looks
// at the requests. It takes in next to nothing ahead: the library sends graphs
// without waiting for their computation, as far as sockets hold them.
type RPCProxy struct {
	Endpoint string
	graphs   atomic.Int64
	before   atomic.Pointer[func(n int)]
}

// The requests that have the server compute a graph.
const (
	rpcGraphCompute   = 10
	rpcGraphRecompute = 16
)

// StartRPCProxy starts a proxy, which ends with the test.
func StartRPCProxy(t testing.TB, server string) *RPCProxy {
	t.Helper()
	small := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) {
			failed = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096)
		})
		return errors.Join(err, failed)
	}}
	l, err := small.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	p := &RPCProxy{Endpoint: l.Addr().String()}
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return // closed
			}
			to, err := net.Dial("tcp4", server)
			if err != nil {
				_ = client.Close()
				continue
			}
			go func() {
				_, _ = io.Copy(client, to) // until either hangs up
				_, _ = client.Close(), to.Close()
			}()
			go func() {
				_ = p.pass(client, to) // until either hangs up
				_, _ = client.Close(), to.Close()
			}()
		}
	}()
	return p
}

// pass passes requests on: a byte, the size of what follows in eight, and that.
func (p *RPCProxy) pass(from io.Reader, to io.Writer) error {
	head := make([]byte, 9)
	for {
		if _, err := io.ReadFull(from, head); err != nil {
			return err
		}
		if head[0] == rpcGraphCompute || head[0] == rpcGraphRecompute {
			n := int(p.graphs.Add(1))
			if before := p.before.Load(); before != nil {
				(*before)(n)
			}
		}
		if _, err := to.Write(head); err != nil {
			return err
		}
		if _, err := io.CopyN(to, from, int64(binary.LittleEndian.Uint64(head[1:]))); err != nil {
			return err
		}
	}
}

// Graphs is how many graphs clients had computed.
func (p *RPCProxy) Graphs() int { return int(p.graphs.Load()) }

// Before has f called with each graph's number, from 1, before the server gets
// it, and what follows waits until f returns.
func (p *RPCProxy) Before(f func(n int)) { p.before.Store(&f) }
