// Package llama is the binding to libllama 0.7.0 and ggml 0.27.0: the only
// package of this module with cgo in it. It knows how to call the library and
// who owns what; it has no policy, no clock of its own and no opinion on what
// to measure.
//
// # One thread
//
// libgomp keeps a team of threads per calling OS thread. A goroutine that is
// not locked moves between OS threads, so warm-up and repetition can run on
// different ones; the second builds a second team, ggml then counts more
// threads than CPUs, stops spinning, and generation falls to a third without
// any error. So all calls for one model and its contexts are made through one
// [Thread], for its whole life. A [Context] remembers the OS thread that made
// it and answers [ErrWrongThread] to any other, unless
// [ContextParams.AnyThread] is set. [Context.Abort], [Context.Aborting] and
// [Context.ClearAbort] are the exceptions: any goroutine may call them.
//
// # Ownership
//
// Everything that the library allocates is owned by the Go value that made it
// and is freed by that value's Close, never by the garbage collector, which
// knows neither the thread rule nor the order. Close is idempotent. A [Model]
// must outlive its contexts: closing it while one is open is [ErrInUse]. A
// [Threadpool] must outlive the contexts it is attached to. Use after Close is
// [ErrClosed]. Memory of Go is lent to C for the length of one call, never
// kept; what C must keep (the abort flag, a saved state) is allocated in C.
//
// # Debugging
//
// Build with -tags llamadebug to collect garbage at every call into the
// library, which turns a pointer kept too long into a crash at once, best
// together with GOEXPERIMENT=cgocheck2.
package llama
