// Package llama is the binding to libllama 0.7.0 and ggml 0.27.0, and the only
// package of this module that calls them through cgo. It wraps calls, owns C
// memory and translates errors. It makes no decisions: what to load, measure or
// retry is up to the caller. README.md shows a complete program.
//
// # One thread
//
// All calls for a model and its contexts must be made on one OS thread: inside
// Do of one [Thread]. libgomp keeps a team of threads for each OS thread that
// calls it, and a goroutine that is not locked moves between OS threads. After a
// move there are two teams. ggml then counts more threads than CPUs and stops
// spinning, and generation falls to a third of its speed without any error.
//
// A [Context] remembers the OS thread that made it. On any other thread its
// methods return [ErrWrongThread], unless [ContextParams.AnyThread] is set. Any
// goroutine may call [Context.Abort], [Context.ClearAbort] and
// [Timed.TokensDone].
//
// # Ownership
//
// The Go value that allocated memory in the library owns it. Its Close frees the
// memory. The garbage collector never does, because it knows neither the thread
// rule nor the order. Close is idempotent, and use after Close returns
// [ErrClosed]. A [Model] must outlive its contexts: closing it earlier returns
// [ErrInUse]. A [Threadpool] must outlive the contexts that it is attached to.
//
// C may use Go memory during one call and never keeps it. What C must keep (the
// abort flag, a saved state) is allocated in C.
//
// # Benchmarks
//
// [Timed] holds the instruments of benchmarks: whole repetitions that are timed
// inside one C call. Programs that want text use [Context.Generate].
//
// # Debugging
//
// With -tags llamadebug every call into the library first collects garbage. A Go
// pointer that C kept too long then crashes at once. Use it together with
// GOEXPERIMENT=cgocheck2.
package llama
