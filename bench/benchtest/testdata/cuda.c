// A fake of NVIDIA's CUDA runtime, driver and cuBLAS, for tests. ggml's own CUDA back-end runs on it, on any machine.
// Device memory is host memory and copies are real, but kernels compute nothing, so their results are undefined. Time
// is simulated: launches return at once, and waiting for a stream takes as long as its kernels would.
//
//   FAKECUDA_DEVICES       number of devices (1)
//   FAKECUDA_CODE          return code of cudaGetDeviceCount (0): 35 means the driver is too old, 100 no device
//   FAKECUDA_CAPABILITY    compute capability, 89 for 8.9 (89); FAKECUDA_CAPABILITIES lists one for each device, separated by commas
//   FAKECUDA_MEMORY_MIB    memory of each device (24576)
//   FAKECUDA_RESERVED_MIB  part of that memory that cudaMemGetInfo reports as free but that cannot be allocated (0)
//   FAKECUDA_POOL          1: memory for scratch space is mapped (cuMemCreate), as on newer cards; 0: it is allocated (1)
//   FAKECUDA_KERNEL_NS     time of a kernel in ns (0)
//   FAKECUDA_COMPILE_MS    time to compile a kernel at its first launch, in ms, unless the cache in CUDA_CACHE_PATH has it (0)
//   FAKECUDA_FAIL          number of the first launch, from 1, that fails; then everything fails, as after an illegal access (never)
//   FAKECUDA_HANG          number of the launch that never ends (never)
//   FAKECUDA_BUSY          1: devices are listed but cannot be used, as in exclusive mode (0)
//   FAKECUDA_LOG           file for a line per kernel at its first launch in a process: time (ns since 1970) and name
//   FAKECUDA_DISCARD       1: skip copies of 64 KiB or more to the device, so weights need no memory (0)
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { ok = 0, invalid = 1, no_memory = 2, too_old = 35, unavailable = 46, no_device = 100, invalid_device = 101, not_ready = 600, illegal_access = 700 };
enum { most_devices = 64, queued = 1024 };
typedef struct { unsigned x, y, z; } dim3;

static long read_setting(const char *name, long standard) {
	const char *s = getenv(name);
	return s == NULL || *s == 0 ? standard : strtol(s, NULL, 0);
}
// setting reads a variable once at each place, because getenv takes longer than a launch.
#define setting(name, standard) ({ static long value; static int known; if (!known) value = read_setting(name, standard), known = 1; value; })
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

// visible is which of the machine's devices the I-th is that CUDA_VISIBLE_DEVICES lets through, -1 where there is none.
static int visible(int i) {
	const int there = (int)setting("FAKECUDA_DEVICES", 1), most = there > most_devices ? most_devices : there;
	const char *s = getenv("CUDA_VISIBLE_DEVICES");
	if (i < 0) return -1;
	if (s == NULL) return i < most ? i : -1;
	for (;; s++) { // the first that is none ends the list
		char *end;
		const long device = strtol(s, &end, 10);
		if (end == s || device < 0 || device >= most) return -1;
		if (i-- == 0) return (int)device;
		if (*(s = end) != ',') return -1;
	}
}
// capability of the I-th device that is visible.
static long capability(int i) {
	const char *s = getenv("FAKECUDA_CAPABILITIES");
	for (i = visible(i); s != NULL && i > 0; i--) {
		s = strchr(s, ',');
		if (s != NULL) s++;
	}
	return s != NULL ? strtol(s, NULL, 10) : setting("FAKECUDA_CAPABILITY", 89);
}
static int devices(void) { int n = 0; while (visible(n) >= 0) n++; return n; }
static size_t memory(void) { return (size_t)setting("FAKECUDA_MEMORY_MIB", 24576) << 20; }
static size_t used[most_devices];
static __thread int current;
static __thread int last; // error of this thread
static int lost;          // the error that all later calls return

static int fail(int code) { return last = code; }
static int usable(void) {
	if (lost) return fail(lost);
	return setting("FAKECUDA_BUSY", 0) ? fail(unavailable) : ok;
}

// ---- time ----

typedef struct { int64_t until; } timeline; // ns of the monotonic clock
static timeline standard_stream[most_devices];

static int64_t now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}
static void wait_until(int64_t t) {
	for (int64_t left; (left = t - now()) > 0;) nanosleep(&(struct timespec){left / 1000000000, left % 1000000000}, NULL);
}
static timeline *stream_of(timeline *s) { return (uintptr_t)s <= 2 ? &standard_stream[current] : s; } // 0, 1, 2 are the standard streams

// ---- kernels ----

typedef struct { const void *stub; const char *name; int launched; } kernel;
static kernel *kernels;
static size_t n_kernels;

static int order(const void *a, const void *b) {
	const kernel *x = a, *y = b;
	return x->stub < y->stub ? -1 : x->stub > y->stub;
}

void **__cudaRegisterFatBinary(void *binary) { return malloc(8); }
void __cudaRegisterFatBinaryEnd(void **handle) { }
void __cudaUnregisterFatBinary(void **handle) { free(handle); }
void __cudaRegisterVar(void **h, char *host, char *address, const char *name, int ext, size_t size, int constant, int global) { }
void __cudaRegisterFunction(void **h, const char *stub, char *fun, const char *name, int limit, void *t, void *b, void *bd, void *gd, int *w) {
	static size_t room;
	if (n_kernels == room) kernels = realloc(kernels, (room = room ? 2 * room : 4096) * sizeof *kernels);
	kernels[n_kernels++] = (kernel){stub, name, 0};
}

static kernel *find(const void *stub) {
	static size_t sorted; // back-ends are registered when they are loaded, one after another
	if (sorted != n_kernels) {
		qsort(kernels, n_kernels, sizeof *kernels, order);
		sorted = n_kernels;
	}
	const kernel key = {.stub = stub};
	return bsearch(&key, kernels, n_kernels, sizeof *kernels, order);
}

// compile waits for the driver's compiler: once in a process, or once for all processes that share its cache.
static void compile(const char *name) {
	const char *log = getenv("FAKECUDA_LOG"), *cache = getenv("CUDA_CACHE_PATH");
	if (log != NULL) {
		struct timespec t;
		clock_gettime(CLOCK_REALTIME, &t);
		FILE *f = fopen(log, "a");
		if (f != NULL) { fprintf(f, "%lld %s\n", (long long)t.tv_sec * 1000000000 + t.tv_nsec, name); fclose(f); }
	}
	const long ms = setting("FAKECUDA_COMPILE_MS", 0);
	if (ms == 0) return;
	uint64_t hash = 14695981039346656037u;
	for (const char *c = name; *c; c++) hash = (hash ^ (unsigned char)*c) * 1099511628211u;
	char path[4096];
	snprintf(path, sizeof path, "%s/%016lx", cache == NULL ? "/nonexistent" : cache, hash);
	if (access(path, F_OK) == 0) return;
	wait_until(now() + ms * 1000000);
	const int fd = open(path, O_CREAT | O_WRONLY, 0644);
	if (fd >= 0) close(fd);
}

static int launch_named(kernel *k, timeline *stream) {
	static long launches;
	int code = usable();
	if (code) return code;
	pthread_mutex_lock(&mutex);
	const int first = !k->launched++;
	const long n = ++launches;
	pthread_mutex_unlock(&mutex);
	if (first) compile(k->name);
	if (n == setting("FAKECUDA_FAIL", 0)) lost = illegal_access; // later calls report it, as with real CUDA
	timeline *s = stream_of(stream);
	const int64_t each = setting("FAKECUDA_KERNEL_NS", 0), t = now();
	if (n == setting("FAKECUDA_HANG", 0)) s->until = INT64_MAX;
	if (s->until == INT64_MAX) return ok;
	wait_until(s->until - queued * each); // a stream queues no more kernels than that
	s->until = (s->until > t ? s->until : t) + each;
	return ok;
}
static int launch(const void *stub, timeline *stream) {
	kernel *k = find(stub);
	return k == NULL ? fail(98) : launch_named(k, stream); // cudaErrorInvalidDeviceFunction
}

int cudaLaunchKernel(const void *f, dim3 grid, dim3 block, void **args, size_t shared, timeline *s) { return launch(f, s); }
int cudaLaunchCooperativeKernel(const void *f, dim3 grid, dim3 block, void **args, size_t shared, timeline *s) { return launch(f, s); }
typedef struct { dim3 grid, block; size_t shared; timeline *stream; } launch_config;
int cudaLaunchKernelExC(const launch_config *c, const void *f, void **args) { return launch(f, c->stream); }

static __thread struct { dim3 grid, block; size_t shared; void *stream; } configuration;
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, void *stream) {
	configuration.grid = grid, configuration.block = block, configuration.shared = shared, configuration.stream = stream;
	return 0;
}
int __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void **stream) {
	*grid = configuration.grid, *block = configuration.block, *shared = configuration.shared, *stream = configuration.stream;
	return ok;
}

// The beginning of cudaFuncAttributes. The rest is not written.
typedef struct { size_t shared, constant, local; int threads, registers, ptx, binary, ca, dynamic; } func_attributes;
int cudaFuncGetAttributes(func_attributes *a, const void *f) {
	const int version = (int)capability(current);
	*a = (func_attributes){.threads = 1024, .registers = 32, .ptx = version, .binary = version, .dynamic = 48 << 10};
	return ok;
}
int cudaFuncSetAttribute(const void *f, int attribute, int value) { return ok; }
int cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *n, const void *f, int threads, size_t shared, unsigned flags) { *n = 2; return ok; }

// ---- devices ----

// cudaDeviceProp of CUDA 12.
typedef struct {
	char name[256], uuid[16], luid[8];
	unsigned luid_mask;
	size_t totalGlobalMem, sharedMemPerBlock;
	int regsPerBlock, warpSize;
	size_t memPitch;
	int maxThreadsPerBlock, maxThreadsDim[3], maxGridSize[3], clockRate;
	size_t totalConstMem;
	int major, minor;
	size_t textureAlignment, texturePitchAlignment;
	int deviceOverlap, multiProcessorCount, kernelExecTimeoutEnabled, integrated, canMapHostMemory, computeMode;
	int maxTexture1D, maxTexture1DMipmap, maxTexture1DLinear, maxTexture2D[2], maxTexture2DMipmap[2], maxTexture2DLinear[3], maxTexture2DGather[2];
	int maxTexture3D[3], maxTexture3DAlt[3], maxTextureCubemap, maxTexture1DLayered[2], maxTexture2DLayered[3], maxTextureCubemapLayered[2];
	int maxSurface1D, maxSurface2D[2], maxSurface3D[3], maxSurface1DLayered[2], maxSurface2DLayered[3], maxSurfaceCubemap, maxSurfaceCubemapLayered[2];
	size_t surfaceAlignment;
	int concurrentKernels, ECCEnabled, pciBusID, pciDeviceID, pciDomainID, tccDriver, asyncEngineCount, unifiedAddressing, memoryClockRate;
	int memoryBusWidth, l2CacheSize, persistingL2CacheMaxSize, maxThreadsPerMultiProcessor, streamPrioritiesSupported, globalL1CacheSupported;
	int localL1CacheSupported;
	size_t sharedMemPerMultiprocessor;
	int regsPerMultiprocessor, managedMemory, isMultiGpuBoard, multiGpuBoardGroupID, hostNativeAtomicSupported, singleToDoublePrecisionPerfRatio;
	int pageableMemoryAccess, concurrentManagedAccess, computePreemptionSupported, canUseHostPointerForRegisteredMem, cooperativeLaunch;
	int cooperativeMultiDeviceLaunch;
	size_t sharedMemPerBlockOptin;
	int rest[82];
} properties;
_Static_assert(sizeof(properties) <= 1032, "cudaDeviceProp");

int cudaGetDeviceCount(int *n) {
	const int code = (int)setting("FAKECUDA_CODE", 0);
	if (code) { *n = 0; return fail(code); }
	*n = devices();
	return *n > 0 ? ok : fail(no_device);
}
int cudaGetDeviceProperties_v2(properties *p, int device) {
	if (device < 0 || device >= devices()) return fail(invalid_device);
	const long version = capability(device);
	*p = (properties){
		.totalGlobalMem = memory(), .sharedMemPerBlock = 48 << 10, .regsPerBlock = 65536, .warpSize = 32, .maxThreadsPerBlock = 1024,
		.maxThreadsDim = {1024, 1024, 64}, .maxGridSize = {2147483647, 65535, 65535}, .major = (int)(version / 10), .minor = (int)(version % 10),
		.multiProcessorCount = 58, .pciBusID = 0xC1 + visible(device), .maxThreadsPerMultiProcessor = 1536, .sharedMemPerMultiprocessor = 100 << 10,
		.cooperativeLaunch = 1, .sharedMemPerBlockOptin = 99 << 10,
	};
	snprintf(p->name, sizeof p->name, "Fake GPU %d", visible(device));
	return ok;
}
int cudaDeviceGetAttribute(int *value, int attribute, int device) {
	switch (attribute) {
	case 16: *value = 58; break;       // multiprocessors
	case 95: *value = 1; break;        // cooperative launches
	case 97: *value = 99 << 10; break; // largest shared memory of a block
	default: *value = 0;
	}
	return ok;
}
int cudaDeviceGetPCIBusId(char *s, int n, int device) { snprintf(s, (size_t)n, "0000:%02X:00.0", 0xC1 + visible(device)); return ok; }
int cudaDeviceCanAccessPeer(int *can, int device, int peer) { *can = 0; return ok; }
int cudaDeviceEnablePeerAccess(int peer, unsigned flags) { return ok; }
int cudaSetDevice(int device) {
	if (device < 0 || device >= devices()) return fail(invalid_device);
	const int code = usable();
	if (!code) current = device;
	return code;
}
int cudaSetDeviceFlags(unsigned flags) { return ok; }
int cudaGetDevice(int *device) { *device = current; return ok; }
int cudaGetLastError(void) { const int code = last; last = ok; return lost ? lost : code; }
int cudaPeekAtLastError(void) { return lost ? lost : last; }
const char *cudaGetErrorString(int code) {
	switch (code) {
	case ok: return "no error";
	case no_memory: return "out of memory";
	case too_old: return "CUDA driver version is insufficient for CUDA runtime version";
	case unavailable: return "CUDA-capable device(s) is/are busy or unavailable";
	case no_device: return "no CUDA-capable device is detected";
	case illegal_access: return "an illegal memory access was encountered";
	default: return "unknown error";
	}
}

// ---- memory ----

// take counts bytes of a device's memory as used, give counts them as free again.
static int take(int device, size_t n) {
	pthread_mutex_lock(&mutex);
	const size_t most = memory() - ((size_t)setting("FAKECUDA_RESERVED_MIB", 0) << 20);
	const int fits = n <= most - used[device];
	if (fits) used[device] += n;
	pthread_mutex_unlock(&mutex);
	return fits ? ok : no_memory;
}
static void give(int device, size_t n) {
	pthread_mutex_lock(&mutex);
	used[device] -= n;
	pthread_mutex_unlock(&mutex);
}

typedef struct { size_t bytes; int device; } block; // stored in the page before its memory
enum { page = 4096 };
int cudaMalloc(void **p, size_t n) {
	int code = usable();
	if (!code) code = take(current, n);
	if (code) return fail(code);
	char *m = mmap(NULL, n + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (m == MAP_FAILED) { give(current, n); return fail(no_memory); }
	*(block *)m = (block){n, current};
	*p = m + page;
	return ok;
}
int cudaMallocManaged(void **p, size_t n, unsigned flags) { return cudaMalloc(p, n); }
int cudaFree(void *p) {
	if (p == NULL) return ok;
	char *m = (char *)p - page;
	const block b = *(block *)m;
	give(b.device, b.bytes);
	munmap(m, b.bytes + page);
	return ok;
}
int cudaMallocHost(void **p, size_t n) { return posix_memalign(p, page, n) ? fail(no_memory) : ok; }
int cudaHostAlloc(void **p, size_t n, unsigned flags) { return cudaMallocHost(p, n); }
int cudaFreeHost(void *p) { free(p); return ok; }
int cudaHostGetDevicePointer(void **p, void *host, unsigned flags) { *p = host; return ok; }
int cudaHostRegister(void *p, size_t n, unsigned flags) { return ok; }
int cudaHostUnregister(void *p) { return ok; }
int cudaMemGetInfo(size_t *free, size_t *total) {
	const int code = usable();
	if (code) return code;
	*total = memory();
	pthread_mutex_lock(&mutex);
	*free = *total - used[current];
	pthread_mutex_unlock(&mutex);
	return ok;
}

int cudaStreamSynchronize(timeline *);
int cudaMemcpyAsync(void *to, const void *from, size_t n, int kind, timeline *s) {
	int code = usable();
	if (!code && kind == 2) code = cudaStreamSynchronize(s); // to the host
	if (!code && !(kind == 1 && n >= 64 << 10 && setting("FAKECUDA_DISCARD", 0))) memcpy(to, from, n);
	return code;
}
int cudaMemcpyPeerAsync(void *to, int to_device, const void *from, int from_device, size_t n, timeline *s) { return cudaMemcpyAsync(to, from, n, 3, s); }
int cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width, size_t height, int kind, timeline *s) {
	int code = ok;
	for (size_t y = 0; y < height && !code; y++) code = cudaMemcpyAsync((char *)to + y * to_pitch, (const char *)from + y * from_pitch, width, kind, s);
	return code;
}
// New memory is zero, and untouched pages take no memory.
static void set(char *p, int value, size_t n) { if (value || n < (1 << 20)) memset(p, value, n); }
int cudaMemset(void *p, int value, size_t n) { set(p, value, n); return usable(); }
int cudaMemsetAsync(void *p, int value, size_t n, timeline *s) { set(p, value, n); return usable(); }

// ---- streams and events ----

int cudaStreamCreateWithFlags(timeline **s, unsigned flags) { *s = calloc(1, sizeof **s); return usable(); }
int cudaStreamDestroy(timeline *s) { free(s); return ok; }
int cudaStreamSynchronize(timeline *s) {
	const int code = usable();
	if (!code) wait_until(stream_of(s)->until);
	return code;
}
int cudaStreamWaitEvent(timeline *s, timeline *event, unsigned flags) {
	s = stream_of(s);
	if (event->until > s->until) s->until = event->until;
	return ok;
}
int cudaDeviceSynchronize(void) { return cudaStreamSynchronize(NULL); }
int cudaEventCreateWithFlags(timeline **e, unsigned flags) { *e = calloc(1, sizeof **e); return ok; }
int cudaEventDestroy(timeline *e) { free(e); return ok; }
int cudaEventRecord(timeline *e, timeline *s) { e->until = stream_of(s)->until; return ok; }
int cudaEventSynchronize(timeline *e) { wait_until(e->until); return usable(); }

// ---- the driver ----

int cuDeviceGet(int *device, int i) { *device = i; return ok; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
	*value = attribute == 102 ? (int)setting("FAKECUDA_POOL", 1) : 0; // virtual memory management
	return ok;
}
int cuGetErrorString(int code, const char **s) { *s = cudaGetErrorString(code); return ok; }
typedef struct { int kind, handles, location, device; } allocation_properties;
int cuMemGetAllocationGranularity(size_t *n, const allocation_properties *p, int option) { *n = 2 << 20; return ok; }
int cuMemCreate(uint64_t *handle, size_t n, const allocation_properties *p, uint64_t flags) {
	const int code = take(p->device, n);
	if (code) return code;
	block *b = malloc(sizeof *b);
	*b = (block){n, p->device};
	*handle = (uint64_t)(uintptr_t)b;
	return ok;
}
int cuMemRelease(uint64_t handle) { return ok; } // the memory stays in use until it is unmapped
int cuMemAddressReserve(uint64_t *p, size_t n, size_t alignment, uint64_t address, uint64_t flags) {
	void *m = mmap(NULL, n, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	*p = (uint64_t)(uintptr_t)m;
	return m == MAP_FAILED ? no_memory : ok;
}
int cuMemAddressFree(uint64_t p, size_t n) { munmap((void *)(uintptr_t)p, n); return ok; }
static block mapped[most_devices]; // the pools, whose addresses are unmapped as a whole
static uint64_t mapped_at[most_devices];
int cuMemMap(uint64_t p, size_t n, size_t offset, uint64_t handle, uint64_t flags) {
	block *b = (block *)(uintptr_t)handle;
	if (mapped[b->device].bytes == 0) mapped_at[b->device] = p;
	mapped[b->device].bytes += n;
	mprotect((void *)(uintptr_t)p, n, PROT_READ | PROT_WRITE);
	free(b);
	return ok;
}
int cuMemUnmap(uint64_t p, size_t n) {
	for (int d = 0; d < most_devices; d++) {
		if (mapped_at[d] == p && mapped[d].bytes >= n) { mapped[d].bytes -= n; give(d, n); break; }
	}
	return ok;
}
int cuMemSetAccess(uint64_t p, size_t n, const void *access, size_t count) { return ok; }

// ---- cuBLAS ----

int cublasCreate_v2(void **handle) { *handle = calloc(1, sizeof(timeline *)); return usable() ? 1 : ok; }
int cublasDestroy_v2(void *handle) { free(handle); return ok; }
int cublasSetStream_v2(timeline **handle, timeline *s) { *handle = s; return ok; }
int cublasSetMathMode(void *handle, int mode) { return ok; }
int cublasSetWorkspace_v2(void *handle, void *workspace, size_t n) { return ok; }
const char *cublasGetStatusString(int status) { return status ? "CUBLAS_STATUS_EXECUTION_FAILED" : "CUBLAS_STATUS_SUCCESS"; }
#define OF_CUBLAS(name) int name(timeline **handle) { static kernel k = {NULL, #name, 0}; return launch_named(&k, *handle) ? 13 : ok; }
OF_CUBLAS(cublasGemmBatchedEx)
OF_CUBLAS(cublasGemmEx)
OF_CUBLAS(cublasGemmStridedBatchedEx)
OF_CUBLAS(cublasSgemmBatched)
OF_CUBLAS(cublasSgemmStridedBatched)
OF_CUBLAS(cublasSgemm_v2)
OF_CUBLAS(cublasStrsmBatched)
