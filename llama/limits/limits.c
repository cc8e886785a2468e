// Limits of the process that are too low for Go's run time. It would end the program with
// a trace of stacks and exit code 2, before any Go code runs. This check comes earlier.

#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
    exit_nothing = 1, // exitNothing of cmd/benchmark-llm
    threads = 16,     // Go's run time and this program have about ten before the engine starts
    stack_kib = 64,
    // Go's run time reserves 600 MiB at its start. Each thread takes 8 MiB for its stack, and
    // up to 64 MiB for malloc.
    address_space_mib = 1280,
};

static void *wait_for_all(void *all) {
    pthread_mutex_lock(all);
    pthread_mutex_unlock(all);
    return NULL;
}

// can_start tells how many threads can run at once, up to a number.
static int can_start(int wanted) {
    pthread_mutex_t all = PTHREAD_MUTEX_INITIALIZER;
    pthread_t started[threads];
    pthread_attr_t attr;
    int n = 0;
    if (pthread_attr_init(&attr) != 0 || pthread_attr_setstacksize(&attr, stack_kib << 10) != 0) return wanted;
    pthread_mutex_lock(&all);
    while (n < wanted && pthread_create(&started[n], &attr, wait_for_all, &all) == 0) n++;
    pthread_mutex_unlock(&all);
    for (int i = 0; i < n; i++) pthread_join(started[i], NULL);
    pthread_attr_destroy(&attr);
    return n;
}

__attribute__((constructor)) static void check_limits(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
        size_t bytes = (size_t) address_space_mib << 20;
        void *space = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (space == MAP_FAILED) {
            fprintf(stderr,
                    "benchmark-llm: the address space is limited to %llu MiB, which is too little to start\n"
                    "hint: raise the limit (ulimit -v unlimited)\n",
                    (unsigned long long) limit.rlim_cur >> 20);
            _exit(exit_nothing);
        }
        munmap(space, bytes);
    }
    if (getrlimit(RLIMIT_NPROC, &limit) == 0) {
        int n = can_start(threads);
        if (n < threads) {
            fprintf(stderr,
                    "benchmark-llm: only %d more threads can be started, and %d are needed\n"
                    "hint: raise the limit on processes (ulimit -u, or the pids limit of the container)\n",
                    n, threads);
            _exit(exit_nothing);
        }
    }
}
