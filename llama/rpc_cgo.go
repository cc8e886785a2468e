//go:build cgo

package llama

// #include <stdlib.h>
// #include "bridge.h"
// #include <ggml-rpc.h>
//
// static ggml_backend_reg_t bl_rpc_add_server(void *add, const char *endpoint) {
// 	return ((ggml_backend_reg_t (*)(const char *))add)(endpoint);
// }
import "C"

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"
	"unsafe"
)

// MaxRPCServers is the largest number of RPC servers that the library takes.
const MaxRPCServers = C.GGML_RPC_MAX_SERVERS

var libraryRPC = rpcProbe{
	want:    rpcVersion{C.RPC_PROTO_MAJOR_VERSION, C.RPC_PROTO_MINOR_VERSION, C.RPC_PROTO_PATCH_VERSION},
	connect: 5 * time.Second, answer: 10 * time.Second,
}

// rpcAdded are the servers whose devices are registered. loadOnce protects it.
var rpcAdded []string

// CheckRPCServer asks the RPC server at HOST:PORT whether it is free and speaks the
// library's protocol. It returns nil, ErrRPCEndpoint or ErrRPCServer, within 15
// seconds. It may be called from any goroutine.
func CheckRPCServer(ctx context.Context, endpoint string) error {
	return libraryRPC.check(ctx, endpoint)
}

// AddRPCServer registers the devices of the RPC server at HOST:PORT. They are
// named "RPC0", "RPC1" and so on across all servers, and come before this
// machine's devices when a model is split. answer is the time that a busy server
// has to answer; 0 means as long as in CheckRPCServer.
//
// Call it on the Thread that will own the model, after LoadBackends and before
// Devices. The error is ErrRPCServer if the server cannot be used, and ErrNoRPC if
// the RPC back-end is not installed or not opened. If a server is lost later, the
// library ends the process at the next call that needs it.
func AddRPCServer(ctx context.Context, endpoint string, answer time.Duration) error {
	entering()
	loadOnce.Lock()
	defer loadOnce.Unlock()
	if slices.Contains(rpcAdded, endpoint) {
		return nil
	}
	if len(rpcAdded) == MaxRPCServers {
		return fmt.Errorf("%w: %s is one more than the %d that the library takes", ErrRPCServer, endpoint, MaxRPCServers)
	}
	if err := opened(); err != nil {
		return fmt.Errorf("RPC server %s: %w", endpoint, err)
	}
	add := rpcProc("ggml_backend_rpc_add_server")
	if add == nil {
		return fmt.Errorf("%w: libggml-rpc.so is not installed, or not opened by this build", ErrNoRPC)
	}
	probe := libraryRPC
	probe.answer = cmp.Or(answer, probe.answer)
	if err := probe.check(ctx, endpoint); err != nil {
		return err
	}
	c := C.CString(endpoint)
	defer C.free(unsafe.Pointer(c))
	reg := C.bl_rpc_add_server(add, c)
	if reg == nil {
		return fmt.Errorf("%w: %s has no device", ErrRPCServer, endpoint)
	}
	C.ggml_backend_register(reg)
	rpcAdded = append(rpcAdded, endpoint)
	return nil
}

// rpcProc is the address of a function of the RPC back-end; nil if there is none.
func rpcProc(name string) unsafe.Pointer {
	rpc := C.CString("RPC")
	defer C.free(unsafe.Pointer(rpc))
	reg := C.ggml_backend_reg_by_name(rpc)
	if reg == nil {
		return nil
	}
	return procOf(reg, name)
}
