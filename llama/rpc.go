package llama

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// Errors of RPC servers.
var (
	ErrRPCEndpoint = errors.New("not HOST:PORT of an RPC server")
	ErrRPCServer   = errors.New("RPC server cannot be used")
	ErrNoRPC       = errors.New("the RPC back-end is not there")
)

// rpcProbe says how to ask an RPC server whether it can be used.
type rpcProbe struct {
	want    rpcVersion    // of the library
	connect time.Duration // longest time to connect
	// Longest time until the answer. A server serves one client at a time. Its
	// kernel also accepts the connection of the next client, which gets no answer.
	answer time.Duration
}

// rpcHello is the command of the first request on every connection, in all
// versions of the protocol. Its 8-byte length and as many bytes follow: what the
// client's transport can do. Zeros mean nothing special.
const (
	rpcHello          = 14
	rpcHelloBytes     = 24
	rpcHelloReplySize = 4 + rpcHelloBytes // major, minor, patch, padding, the server's transport
)

// rpcVersion is a version of the RPC protocol.
type rpcVersion struct{ major, minor, patch uint8 }

func (v rpcVersion) String() string { return fmt.Sprintf("%d.%d.%d", v.major, v.minor, v.patch) }

// CheckEndpoint returns ErrRPCEndpoint unless the library can parse endpoint as
// HOST:PORT, where HOST is a name or an IPv4 address. It asks no server.
func CheckEndpoint(endpoint string) error {
	host, port, found := strings.Cut(endpoint, ":")
	n, err := strconv.ParseUint(port, 10, 16)
	if !found || host == "" || err != nil || n == 0 || strings.ContainsAny(host, " /[]\x00") {
		return fmt.Errorf("%w: %q", ErrRPCEndpoint, endpoint)
	}
	return nil
}

// check connects to an RPC server and asks for its version. Without a server the
// library would end the process or wait forever. check returns ErrRPCServer
// unless the server speaks the wanted version or an older minor version of it.
func (p rpcProbe) check(ctx context.Context, endpoint string) error {
	if err := CheckEndpoint(endpoint); err != nil {
		return err
	}
	refuse := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s %w", ErrRPCServer, endpoint, fmt.Errorf(format, args...))
	}
	dialer := net.Dialer{Timeout: p.connect}
	conn, err := dialer.DialContext(ctx, "tcp4", endpoint)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) { // its text repeats the address
			err = op.Err
		}
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			return refuse("does not answer within %v", p.connect)
		}
		return refuse("cannot be reached: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })()
	_ = conn.SetDeadline(time.Now().Add(p.answer)) // does not fail on an open connection

	hello := make([]byte, 1+8+rpcHelloBytes)
	hello[0] = rpcHello
	binary.LittleEndian.PutUint64(hello[1:], rpcHelloBytes)
	var size [8]byte
	reply := make([]byte, rpcHelloReplySize)
	_, err = conn.Write(hello)
	if err == nil {
		_, err = io.ReadFull(conn, size[:])
	}
	n := binary.LittleEndian.Uint64(size[:])
	if err == nil && n == rpcHelloReplySize {
		_, err = io.ReadFull(conn, reply)
	}
	if tcp, ok := conn.(*net.TCPConn); ok && err != nil {
		// The server may get to this connection later. It must find a reset then: an
		// answer to a closed connection would end the server by SIGPIPE.
		_ = tcp.SetLinger(0)
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return refuse("does not answer within %v: it serves another program, or is no RPC server", p.answer)
	case err != nil: // it sent nothing, or no answer to a hello
		return refuse("does not speak this library's RPC %v: %w", p.want, err)
	case n != rpcHelloReplySize:
		return refuse("does not speak this library's RPC %v", p.want)
	}
	if got := (rpcVersion{reply[0], reply[1], reply[2]}); got.major != p.want.major || got.minor > p.want.minor {
		return refuse("speaks RPC %v, this library %v", got, p.want)
	}
	return nil
}
