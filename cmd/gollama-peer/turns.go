//go:build gollama

package main

// #include <dlfcn.h>
// static void begin_pass(void) {
// 	void (*wait)(void);
// 	*(void **) &wait = dlsym(RTLD_DEFAULT, "turns_begin_pass");
// 	if (wait != 0) wait();
// }
// #cgo CFLAGS: -D_GNU_SOURCE
import "C"

// beginPass is called before every pass with no clock running. Where
// scripts/turns.c is preloaded it returns when this process may compute, elsewhere
// at once. The module's own clearing of its memory cannot wait in its place: it is
// inside of what is timed.
func beginPass() { C.begin_pass() }
