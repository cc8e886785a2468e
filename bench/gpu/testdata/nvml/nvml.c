// A stand-in for NVIDIA's libnvidia-ml.so.1, for tests. With -DOLD it lacks what old drivers lack.
//
//   NVML_DEVICES     number of devices (1)
//   NVML_CODE        what nvmlInit_v2 returns (0): 9 is no driver, 18 a driver of another version
//   NVML_HANG        1: nvmlInit_v2 does not return (0)
//   NVML_OTHERS      number of processes on a device, not counting the one that asks (0)
//   NVML_THROTTLE    bits of the reasons for throttling (0)
//   NVML_CUDA        CUDA version that the driver supports, 12040 for 12.4 (12040)
//   NVML_CAPABILITY  compute capability, 89 for 8.9 (89); NVML_CAPABILITIES has one for each device, after commas
//   NVML_MEMORY_MIB  memory of each device (24576)
//   NVML_USED_MIB    part of it that is in use (1024)
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef struct { char legacy[16]; unsigned domain, bus, device, id, sub; char address[32]; } pci_info;
typedef struct { unsigned long long total, free, used; } memory_info;
typedef struct { unsigned gpu, memory; } utilization;
typedef struct { unsigned pid; unsigned long long used; unsigned gpu, compute; } process_info;

static long setting(const char *name, long standard) {
	const char *s = getenv(name);
	return s == NULL ? standard : strtol(s, NULL, 0);
}
static int index_of(void *device) { return (int)(long)device - 1; }

int nvmlInit_v2(void) { if (setting("NVML_HANG", 0)) for (;;) pause(); return (int)setting("NVML_CODE", 0); }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { return code == 18 ? "Driver/library version mismatch" : "Driver Not Loaded"; }
int nvmlSystemGetDriverVersion(char *s, unsigned n) { snprintf(s, n, "550.54.15"); return 0; }
int nvmlDeviceGetCount_v2(unsigned *n) { *n = (unsigned)setting("NVML_DEVICES", 1); return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **device) { *device = (void *)(long)(i + 1); return 0; }
int nvmlDeviceGetName(void *d, char *s, unsigned n) { snprintf(s, n, "Fake GPU %d", index_of(d)); return 0; }
int nvmlDeviceGetPciInfo_v3(void *d, pci_info *p) {
	memset(p, 0, sizeof *p);
	snprintf(p->address, sizeof p->address, "00000000:%02X:00.0", 0xC1 + index_of(d));
	return 0;
}
int nvmlDeviceGetMemoryInfo(void *d, memory_info *m) { 
	const unsigned long long total = (unsigned long long)setting("NVML_MEMORY_MIB", 24576) << 20, used = (unsigned long long)setting("NVML_USED_MIB", 1024) << 20;
	*m = (memory_info){total, total - used, used};
	return 0;
}
int nvmlDeviceGetPowerUsage(void *d, unsigned *mw) { *mw = 71500; return 0; }
int nvmlDeviceGetClockInfo(void *d, int type, unsigned *mhz) { *mhz = type == 1 ? 2040 : 6251; return 0; }
int nvmlDeviceGetTemperature(void *d, int sensor, unsigned *c) { *c = 54; return 0; }
int nvmlDeviceGetUtilizationRates(void *d, utilization *u) { *u = (utilization){97, 40}; return 0; }
#ifndef OLD
int nvmlSystemGetCudaDriverVersion_v2(int *v) { *v = (int)setting("NVML_CUDA", 12040); return 0; }
int nvmlDeviceGetCudaComputeCapability(void *d, int *major, int *minor) {
	const char *each = getenv("NVML_CAPABILITIES"); // after commas
	for (int i = index_of(d); each != NULL && i > 0; i--) each = (each = strchr(each, ',')) == NULL ? NULL : each + 1;
	const int capability = each != NULL ? atoi(each) : (int)setting("NVML_CAPABILITY", 89);
	*major = capability / 10, *minor = capability % 10;
	return 0;
}
int nvmlDeviceGetTotalEnergyConsumption(void *d, unsigned long long *mj) { // of 100 W
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	*mj = (unsigned long long)t.tv_sec * 100000 + (unsigned long long)t.tv_nsec / 10000;
	return 0;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(void *d, unsigned long long *r) { *r = (unsigned long long)setting("NVML_THROTTLE", 0); return 0; }
int nvmlDeviceGetComputeRunningProcesses_v2(void *d, unsigned *n, process_info *p) {
	const unsigned count = 1 + (unsigned)setting("NVML_OTHERS", 0);
	if (*n < count) { *n = count; return 7; }
	*n = count;
	for (unsigned i = 0; i < count; i++) p[i] = (process_info){i == 0 ? (unsigned)getpid() : 1000000 + i, 1ull << 20, -1u, -1u};
	return 0;
}
#endif
