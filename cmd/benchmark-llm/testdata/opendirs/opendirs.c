// Preloaded, it writes the path of every back-end directory that the process looks into to the file OPENDIRS_LOG.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static void note(const char *path) {
	const char *log = getenv("OPENDIRS_LOG");
	if (path == NULL || log == NULL || strstr(path, "/ggml/backends") == NULL) return;
	int fd = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND, 0600);
	if (fd < 0) return;
	if (write(fd, path, strlen(path)) < 0 || write(fd, "\n", 1) < 0) abort();
	close(fd);
}

int openat(int dir, const char *path, int flags, ...) {
	va_list args;
	va_start(args, flags);
	int mode = va_arg(args, int);
	va_end(args);
	note(path);
	return (int)syscall(SYS_openat, dir, path, flags, mode);
}

int stat(const char *path, struct stat *s) {
	note(path);
	int (*next)(const char *, struct stat *) = dlsym(RTLD_NEXT, "stat");
	return next(path, s);
}
