// A Vulkan driver in front of Mesa's lavapipe, for tests. It passes everything on to the driver FAKEVULKAN_DRIVER, whose
// results are real, and changes what these variables ask for:
//
//   FAKEVULKAN_TYPE=N         type of the device: 1 integrated, 2 discrete (VkPhysicalDeviceType); lavapipe's is 4, a CPU
//   FAKEVULKAN_NAME=TEXT      name of the device
//   FAKEVULKAN_BUS=N          it is on the PCI bus N (hexadecimal): 0000:N:00.0
//   FAKEVULKAN_MEMORY_MIB=N   memory of the device
//   FAKEVULKAN_NO16=1         it has no 16-bit storage
//   FAKEVULKAN_FULL=N         it has no more memory from the Nth allocation on
//   FAKEVULKAN_LOST=N         it is lost at the Nth submission
//   FAKEVULKAN_CRASH=N        the driver ends the process at the Nth submission; 0: when it is opened
//   FAKEVULKAN_HANG=N         the driver does not return from the Nth submission; 0: when it is opened
//   FAKEVULKAN_LOG=FILE       one line for each pipeline (compiled shader): its time in nanoseconds since 1970
//
// INDEX, a macro, counts the copies of this driver. Each has another UUID, because ggml takes devices with the same UUID for
// one. Structures and numbers are those of vulkan_core.h.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef void (*fn)(void);
typedef struct { uint32_t type; const void *next; } base;

static fn (*real_get)(void *, const char *);
static fn (*real_device_get)(void *, const char *);

static long number(const char *name) {
	const char *value = getenv(name);
	return value ? strtol(value, NULL, strcmp(name, "FAKEVULKAN_BUS") == 0 ? 16 : 10) : 0;
}

static long submissions;

// reached tells whether the event that a variable asks for is due: at so many submissions.
static int reached(const char *name) { return getenv(name) && submissions >= number(name); }

static void fail(void) {
	if (reached("FAKEVULKAN_CRASH")) abort();
	while (reached("FAKEVULKAN_HANG")) pause();
}

static void *driver(void) {
	static void *lib;
	if (lib == NULL) {
		lib = dlopen(getenv("FAKEVULKAN_DRIVER"), RTLD_NOW | RTLD_LOCAL);
		if (lib == NULL) {
			fprintf(stderr, "vulkan.c: %s\n", dlerror());
			exit(1);
		}
		real_get = (fn (*)(void *, const char *))dlsym(lib, "vk_icdGetInstanceProcAddr");
	}
	return lib;
}

// ---- facts of the device

static void properties(uint32_t *p) { // VkPhysicalDeviceProperties
	if (number("FAKEVULKAN_TYPE")) p[4] = number("FAKEVULKAN_TYPE");
	if (getenv("FAKEVULKAN_NAME")) snprintf((char *)(p + 5), 256, "%s %d", getenv("FAKEVULKAN_NAME"), INDEX);
}

static void (*real_properties)(void *, uint32_t *);
static void my_properties(void *dev, uint32_t *p) { real_properties(dev, p); properties(p); }

static void (*real_properties2)(void *, base *);
static void my_properties2(void *dev, base *p) {
	real_properties2(dev, p);
	properties((uint32_t *)(p + 1));
	for (base *n = (base *)p->next; n; n = (base *)n->next) {
		uint32_t *body = (uint32_t *)(n + 1);
		if (n->type == 1000071004 || n->type == 50) body[3] += INDEX + 1; // VkPhysicalDeviceIDProperties, VkPhysicalDeviceVulkan11Properties: the UUID
		if (n->type == 1000212000) { // VkPhysicalDevicePCIBusInfoPropertiesEXT
			body[0] = body[2] = body[3] = 0;
			body[1] = number("FAKEVULKAN_BUS") + INDEX;
		}
	}
}

static int (*real_extensions)(void *, const char *, uint32_t *, char *);
static int my_extensions(void *dev, const char *layer, uint32_t *count, char *list) { // VkExtensionProperties: 260 bytes
	uint32_t room = *count;
	int rc = real_extensions(dev, layer, count, list);
	if (layer != NULL || !number("FAKEVULKAN_BUS")) return rc;
	if (list != NULL && *count < room) {
		memset(list + 260 * *count, 0, 260);
		strcpy(list + 260 * *count, "VK_EXT_pci_bus_info");
	}
	++*count;
	return rc;
}

static void (*real_features2)(void *, base *);
static void my_features2(void *dev, base *f) {
	real_features2(dev, f);
	if (!number("FAKEVULKAN_NO16")) return;
	for (base *n = (base *)f->next; n; n = (base *)n->next) // VkPhysicalDevice16BitStorageFeatures, VkPhysicalDeviceVulkan11Features
		if (n->type == 1000083000 || n->type == 49) *(uint32_t *)(n + 1) = 0;
}

// ---- memory

static uint64_t used;
static long allocations;
static struct { uint64_t handle, size; } blocks[4096];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static uint64_t limit(void) { return (uint64_t)number("FAKEVULKAN_MEMORY_MIB") << 20; }

static void heaps(char *p) { // VkPhysicalDeviceMemoryProperties
	uint32_t n = *(uint32_t *)(p + 260);
	for (uint32_t i = 0; limit() && i < n; i++) *(uint64_t *)(p + 264 + 16 * i) = limit();
}

static void (*real_memory)(void *, char *);
static void my_memory(void *dev, char *p) { real_memory(dev, p); heaps(p); }

static void (*real_memory2)(void *, base *);
static void my_memory2(void *dev, base *p) {
	real_memory2(dev, p);
	heaps((char *)(p + 1));
	for (base *n = (base *)p->next; n && limit(); n = (base *)n->next)
		if (n->type == 1000237000) { // VkPhysicalDeviceMemoryBudgetPropertiesEXT
			uint64_t *body = (uint64_t *)(n + 1);
			for (int i = 0; i < 16; i++) body[i] = limit(), body[16 + i] = used;
		}
}

static int (*real_allocate)(void *, const void *, const void *, uint64_t *);
static int my_allocate(void *dev, const void *info, const void *a, uint64_t *memory) {
	uint64_t size = *(const uint64_t *)((const char *)info + 16);
	++allocations;
	if (getenv("FAKEVULKAN_FULL") && allocations >= number("FAKEVULKAN_FULL")) return -2;
	if (limit() && used + size > limit()) return -2; // VK_ERROR_OUT_OF_DEVICE_MEMORY
	int rc = real_allocate(dev, info, a, memory);
	if (rc != 0) return rc;
	pthread_mutex_lock(&lock);
	for (int i = 0; i < 4096; i++)
		if (blocks[i].size == 0) {
			blocks[i].handle = *memory, blocks[i].size = size, used += size;
			break;
		}
	pthread_mutex_unlock(&lock);
	return rc;
}

static void (*real_free)(void *, uint64_t, const void *);
static void my_free(void *dev, uint64_t memory, const void *a) {
	pthread_mutex_lock(&lock);
	for (int i = 0; i < 4096; i++)
		if (blocks[i].size != 0 && blocks[i].handle == memory) used -= blocks[i].size, blocks[i].size = 0;
	pthread_mutex_unlock(&lock);
	real_free(dev, memory, a);
}

// ---- computing

static int (*real_submit)(void *, uint32_t, const void *, uint64_t);
static int my_submit(void *queue, uint32_t n, const void *submits, uint64_t fence) {
	++submissions;
	fail();
	if (reached("FAKEVULKAN_LOST")) return -4; // VK_ERROR_DEVICE_LOST
	return real_submit(queue, n, submits, fence);
}

static int (*real_pipelines)(void *, uint64_t, uint32_t, const void *, const void *, uint64_t *);
static int my_pipelines(void *dev, uint64_t cache, uint32_t n, const void *infos, const void *a, uint64_t *out) {
	int rc = real_pipelines(dev, cache, n, infos, a, out);
	if (getenv("FAKEVULKAN_LOG")) {
		struct timespec now;
		clock_gettime(CLOCK_REALTIME, &now);
		FILE *log = fopen(getenv("FAKEVULKAN_LOG"), "a");
		fprintf(log, "%lld\n", (long long)now.tv_sec * 1000000000 + now.tv_nsec);
		fclose(log);
	}
	return rc;
}

// ---- the driver's interface

#define REPLACE(function, mine, real) \
	if (strcmp(name, function) == 0) { \
		if (found == NULL) return NULL; \
		real = (void *)found; \
		return (fn)mine; \
	}

static fn my_device_get(void *dev, const char *name);

static fn replaced(const char *name, fn found) {
	REPLACE("vkGetPhysicalDeviceProperties", my_properties, real_properties)
	REPLACE("vkGetPhysicalDeviceProperties2", my_properties2, real_properties2)
	REPLACE("vkEnumerateDeviceExtensionProperties", my_extensions, real_extensions)
	REPLACE("vkGetPhysicalDeviceFeatures2", my_features2, real_features2)
	REPLACE("vkGetPhysicalDeviceMemoryProperties", my_memory, real_memory)
	REPLACE("vkGetPhysicalDeviceMemoryProperties2", my_memory2, real_memory2)
	REPLACE("vkGetDeviceProcAddr", my_device_get, real_device_get)
	REPLACE("vkAllocateMemory", my_allocate, real_allocate)
	REPLACE("vkFreeMemory", my_free, real_free)
	REPLACE("vkQueueSubmit", my_submit, real_submit)
	REPLACE("vkCreateComputePipelines", my_pipelines, real_pipelines)
	return found;
}

static fn my_device_get(void *dev, const char *name) { return replaced(name, real_device_get(dev, name)); }

fn vk_icdGetInstanceProcAddr(void *instance, const char *name) {
	driver();
	fail();
	return replaced(name, real_get(instance, name));
}

fn vk_icdGetPhysicalDeviceProcAddr(void *instance, const char *name) {
	fn (*get)(void *, const char *) = (fn (*)(void *, const char *))dlsym(driver(), "vk_icdGetPhysicalDeviceProcAddr");
	return get ? replaced(name, get(instance, name)) : NULL;
}

int vk_icdNegotiateLoaderICDInterfaceVersion(uint32_t *version) {
	int (*negotiate)(uint32_t *) = (int (*)(uint32_t *))dlsym(driver(), "vk_icdNegotiateLoaderICDInterfaceVersion");
	return negotiate(version);
}
