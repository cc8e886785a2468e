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

// rpcProbe is how to ask RPC servers.
type rpcProbe struct {
	want    rpcVersion    // the library's own
	connect time.Duration // most time to connect
	// Most time for the answer. A server has one client at a time: its kernel
	// connects the next one too, who gets no answer.
	answer time.Duration
}

// rpcHello is the request that opens every connection, the same in all versions
// of the protocol: command 14, then the size of what follows in 8 bytes, here
// what the client's transport can do: nothing special.
const (
	rpcHello          = 14
	rpcHelloBytes     = 24
	rpcHelloReplySize = 4 + rpcHelloBytes // major, minor, patch, padding; the same of the server
)

// rpcVersion is a version of the protocol.
type rpcVersion struct{ major, minor, patch uint8 }

func (v rpcVersion) String() string { return fmt.Sprintf("%d.%d.%d", v.major, v.minor, v.patch) }

// CheckEndpoint refuses what the library cannot take for the address of an RPC
// server, with ErrRPCEndpoint: it parses HOST:PORT itself, where HOST is a name
// or an IPv4 address.
func CheckEndpoint(endpoint string) error {
	host, port, found := strings.Cut(endpoint, ":")
	n, err := strconv.ParseUint(port, 10, 16)
	if !found || host == "" || err != nil || n == 0 || strings.ContainsAny(host, " /[]\x00") {
		return fmt.Errorf("%w: %q", ErrRPCEndpoint, endpoint)
	}
	return nil
}

// check connects to an RPC server and asks for its version, because the library
// ends the process when there is none, or waits forever. It returns ErrRPCServer
// unless the server speaks the version wanted or an older minor one of it.
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
	_ = conn.SetDeadline(time.Now().Add(p.answer)) // of a connection that is open: never fails

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
		// A server that gets to this client later must find an error, and not send an
		// answer to nobody, which would end it by SIGPIPE.
		_ = tcp.SetLinger(0)
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return refuse("does not answer within %v: it serves another program, or is no RPC server", p.answer)
	case err != nil: // what it sends, if anything, is not what follows a hello
		return refuse("does not speak this library's RPC %v: %w", p.want, err)
	case n != rpcHelloReplySize:
		return refuse("does not speak this library's RPC %v", p.want)
	}
	if got := (rpcVersion{reply[0], reply[1], reply[2]}); got.major != p.want.major || got.minor > p.want.minor {
		return refuse("speaks RPC %v, this library %v", got, p.want)
	}
	return nil
}
