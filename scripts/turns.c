// A library that makes processes take turns. `make parity` and `make peers` preload
// it into the programs that they compare. These programs call llama_memory_clear
// before every pass, while no clock runs, and nowhere else. Here this call waits
// until the driver (scripts/parity/turns.go) grants passes over the socket at
// PARITY_TURNS. During a pass no code of this file runs.
//
// go-llama.cpp clears inside its timed passes. So cmd/gollama-peer calls
// turns_begin_pass before each pass, and after that llama_memory_clear does not
// wait.
//
// The protocol: this side writes a byte when it waits. The driver answers with one
// byte, the number of passes granted. If the driver is gone, all passes are granted.
#include <dlfcn.h>
#include <limits.h>
#include <llama.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

// The address of the library's function, which the one below hides.
static void (*library_memory_clear)(llama_memory_t, bool);

static int driver(void) {
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	const char *path = getenv("PARITY_TURNS");
	const int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (path == NULL || strlen(path) >= sizeof address.sun_path || s < 0) return -1;
	strcpy(address.sun_path, path);
	return connect(s, (struct sockaddr *)&address, sizeof address) == 0 ? s : -1;
}

static unsigned passes_granted(int s) {
	unsigned char passes = 0;
	if (send(s, "w", 1, MSG_NOSIGNAL) != 1 || read(s, &passes, 1) != 1) return UINT_MAX;
	return passes;
}

static void await_pass(void) {
	// Only one thread of a process calls this.
	static int s = -1;
	static unsigned passes;
	if (s < 0 && (s = driver()) < 0) {
		fputs("turns: no driver\n", stderr);
		abort();
	}
	if (passes == 0) passes = passes_granted(s);
	passes--;
}

static bool says_when_passes_begin;

void turns_begin_pass(void) {
	says_when_passes_begin = true;
	await_pass();
}

void llama_memory_clear(llama_memory_t memory, bool data) {
	if (library_memory_clear == NULL) {
		*(void **)&library_memory_clear = dlsym(RTLD_NEXT, "llama_memory_clear");
		if (library_memory_clear == NULL) {
			fputs("turns: no library\n", stderr);
			abort();
		}
	}
	if (!says_when_passes_begin) await_pass();
	library_memory_clear(memory, data);
}
