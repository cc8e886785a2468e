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

// beginPass must be called before every pass, while no clock runs. With
// scripts/turns.c preloaded it waits until this process may compute; otherwise it
// returns at once. In other programs llama_memory_clear waits. This module calls
// that inside its timed calls.
func beginPass() { C.begin_pass() }
