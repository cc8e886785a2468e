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

// RPC holds the options of a ggml-rpc-server. Such a server is a real device of the
// GPU type on a machine without a GPU.
type RPC struct {
	Host     string   // IPv4 address to listen on; empty: 127.0.0.1
	Prefix   []string // command that starts the server, such as "ip netns exec NAME"
	LimitKiB int      // limit of its address space, which it does not report; 0: none
	Args     []string // further arguments of the server
}

// rpcPort is the port of a server in a network namespace of its own, where no port
// is taken.
const rpcPort = "50052"

// StartRPC starts a server with a CPU device. The server ends with the test.
// StartRPC runs ../../scripts/llama-tool, so the test's package must lie two folders
// below the module.
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
	// The shell and the script exec the server, so the process is the server. By
	// default it would die of SIGPIPE when its client dies.
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
		_ = c.Wait() // fails, because the server is killed
		close(exited)
	}()
	t.Cleanup(func() {
		_ = c.Process.Kill() // fails if the server has ended
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
			t.Fatalf("ggml-rpc-server ended (install it with `make tools`):\n%s", output.String())
		default:
		}
		if time.Now().After(end) {
			t.Fatalf("ggml-rpc-server does not listen:\n%s", output.String())
		}
	}
}

// LockedBuffer is a buffer that several goroutines may read and write.
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

// RPCProxy forwards data between clients and a ggml-rpc-server, and inspects the
// requests. Its receive buffers are small, because libllama sends graphs ahead of
// their computation as far as the sockets hold them.
type RPCProxy struct {
	Endpoint string
	graphs   atomic.Int64
	before   atomic.Pointer[func(n int)]
}

// The requests that make the server compute a graph.
const (
	rpcGraphCompute   = 10
	rpcGraphRecompute = 16
)

// StartRPCProxy starts a proxy to a server. The proxy ends with the test.
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
				return // the listener is closed
			}
			to, err := net.Dial("tcp4", server)
			if err != nil {
				_ = client.Close()
				continue
			}
			go func() {
				_, _ = io.Copy(client, to) // until one side closes
				_, _ = client.Close(), to.Close()
			}()
			go func() {
				_ = p.pass(client, to) // until one side closes
				_, _ = client.Close(), to.Close()
			}()
		}
	}()
	return p
}

// pass forwards requests. A request is a byte for its kind, eight bytes for the size
// of the rest, and the rest.
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

// Graphs is the number of graphs that the proxy has forwarded.
func (p *RPCProxy) Graphs() int { return int(p.graphs.Load()) }

// Before sets a function that is called with each graph's number, from 1, before
// the graph is forwarded. The request waits until f returns.
func (p *RPCProxy) Before(f func(n int)) { p.before.Store(&f) }
