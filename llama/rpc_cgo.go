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

// MaxRPCServers is how many RPC servers the library takes.
const MaxRPCServers = C.GGML_RPC_MAX_SERVERS

var libraryRPC = rpcProbe{
	want:    rpcVersion{C.RPC_PROTO_MAJOR_VERSION, C.RPC_PROTO_MINOR_VERSION, C.RPC_PROTO_PATCH_VERSION},
	connect: 5 * time.Second, answer: 10 * time.Second,
}

// rpcAdded are the servers whose devices are registered; loadOnce is locked.
var rpcAdded []string

// CheckRPCServer tells whether the RPC server at HOST:PORT is there and free and
// speaks the library's protocol: nil, ErrRPCEndpoint or ErrRPCServer. It takes 15
// seconds at most, and may be called from any goroutine.
func CheckRPCServer(ctx context.Context, endpoint string) error {
	return libraryRPC.check(ctx, endpoint)
}

// AddRPCServer registers the devices of the RPC server at HOST:PORT, as "RPC0",
// "RPC1" and so on over all servers, before those of this machine when a model
// is split. A server that is busy gets so long to answer; 0 is what CheckRPCServer
// gives it. Call it on the engine's thread, after LoadBackends and before
// Devices. The library ends the process when it has lost a server that it needs.
// A server that cannot be used is ErrRPCServer; it is ErrNoRPC
// when the back-end is not installed, or not opened in this build.
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

// rpcProc is a function of the RPC back-end's module; nil when there is none.
func rpcProc(name string) unsafe.Pointer {
	rpc := C.CString("RPC")
	defer C.free(unsafe.Pointer(rpc))
	reg := C.ggml_backend_reg_by_name(rpc)
	if reg == nil {
		return nil
	}
	return procOf(reg, name)
}
