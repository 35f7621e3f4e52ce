/* A stand-in libnvidia-ml.so.1 for tests: NVML's signatures and struct layouts over a state file.
 *
 * The file named by NVML_STANDIN_STATE holds lines `key=value` and is read anew at every call, so
 * that a test can rewrite it while the library is in use. Keys:
 *
 *   error.<function>=<code>       what <function> returns, instead of success; <function> may be *
 *   gpus=<n>                      physical GPUs
 *   gpu.<i>.<field>=<value>       uuid name total free used reserved util processes temp power ecc
 *                                 throttle bus; an absent figure is "not supported"
 *   gpu.<i>.allocations=<folder>  files named by process id hold the bytes of processes that are
 *                                 alive: they are listed, and count as used beside the figures;
 *                                 <folder>/../others holds the bytes of programs elsewhere
 *   gpu.<i>.error.<function>=<code>
 *   gpu.<i>.mig=<0|1>  gpu.<i>.migs=<places>
 *   gpu.<i>.mig.<j>.<field>       the same fields, and gi, ci; a place without uuid is empty
 *   gpu.<i>.nvlink.<k>=<bus>      an active NVLink and the PCI address at its far end
 *   link.<i>.<j>.level=<n>  link.<i>.<j>.p2p=<status>
 *   xid.<n>=<gpu> <code> [<gi> <ci>]   events, n from 0; each is delivered once
 *
 * Built with -DOLD_DRIVER it lacks the symbols that came with newer drivers.
 */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef int nvmlReturn_t;
enum {
    SUCCESS = 0,
    UNINITIALIZED = 1,
    INVALID_ARGUMENT = 2,
    NOT_SUPPORTED = 3,
    NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7,
    TIMEOUT = 10,
    VERSION_MISMATCH = 25
};

#define MAX_GPUS 8
#define MAX_MIGS 7
#define MAX_PROCESSES 256

struct nvmlDevice_st {
    int gpu;
    int mig; /* -1: the physical GPU */
};
typedef struct nvmlDevice_st *nvmlDevice_t;

struct nvmlEventSet_st {
    int registered[MAX_GPUS];
    int next;
};
typedef struct nvmlEventSet_st *nvmlEventSet_t;

typedef struct {
    unsigned long long total, free, used;
} nvmlMemory_t;

typedef struct {
    unsigned int version;
    unsigned long long total, reserved, free, used;
} nvmlMemory_v2_t;

typedef struct {
    unsigned int gpu, memory;
} nvmlUtilization_t;

typedef struct {
    unsigned int pid;
    unsigned long long usedGpuMemory;
    unsigned int gpuInstanceId, computeInstanceId;
} nvmlProcessInfo_t;

typedef struct {
    char busIdLegacy[16];
    unsigned int domain, bus, device, pciDeviceId, pciSubSystemId;
    char busId[32];
} nvmlPciInfo_t;

typedef struct {
    nvmlDevice_t device;
    unsigned long long eventType, eventData;
    unsigned int gpuInstanceId, computeInstanceId;
} nvmlEventData_t;

typedef struct {
    unsigned int version;
    unsigned int sensorType;
    int temperature;
} nvmlTemperature_t;

static struct nvmlDevice_st devices[MAX_GPUS][MAX_MIGS + 1];
static int references;

/* ---- state file ---- */

static int lookup(const char *key, char *value, size_t size)
{
    const char *path = getenv("NVML_STANDIN_STATE");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[512];
    size_t length = strlen(key);
    int found = 0;
    if (!file)
        return 0;
    while (!found && fgets(line, sizeof line, file)) {
        if (strncmp(line, key, length) == 0 && line[length] == '=') {
            line[strcspn(line, "\n")] = '\0';
            snprintf(value, size, "%s", line + length + 1);
            found = 1;
        }
    }
    fclose(file);
    return found;
}

static int number(const char *key, unsigned long long *value)
{
    char text[512];
    if (!lookup(key, text, sizeof text))
        return 0;
    *value = strtoull(text, NULL, 0);
    return 1;
}

static void field_key(nvmlDevice_t device, const char *field, char *key, size_t size)
{
    if (device->mig < 0)
        snprintf(key, size, "gpu.%d.%s", device->gpu, field);
    else
        snprintf(key, size, "gpu.%d.mig.%d.%s", device->gpu, device->mig, field);
}

static nvmlReturn_t text_of(nvmlDevice_t device, const char *field, char *value, unsigned int size)
{
    char key[256];
    field_key(device, field, key, sizeof key);
    return lookup(key, value, size) ? SUCCESS : NOT_SUPPORTED;
}

static nvmlReturn_t figure(nvmlDevice_t device, const char *field, unsigned long long *value)
{
    char key[256];
    field_key(device, field, key, sizeof key);
    return number(key, value) ? SUCCESS : NOT_SUPPORTED;
}

static nvmlReturn_t figure32(nvmlDevice_t device, const char *field, unsigned int *value)
{
    unsigned long long wide = 0;
    nvmlReturn_t code = figure(device, field, &wide);
    if (code == SUCCESS)
        *value = (unsigned int)wide;
    return code;
}

/* The code that the state file wants from this function. */
static nvmlReturn_t wanted(const char *prefix, const char *function)
{
    char key[256];
    unsigned long long code = 0;
    snprintf(key, sizeof key, "%serror.%s", prefix, function);
    if (!number(key, &code)) {
        snprintf(key, sizeof key, "%serror.*", prefix);
        number(key, &code);
    }
    return (nvmlReturn_t)code;
}

static nvmlReturn_t check(nvmlDevice_t device, const char *function)
{
    char prefix[64];
    nvmlReturn_t code;
    if (!references)
        return UNINITIALIZED;
    code = wanted("", function);
    if (code != SUCCESS || !device)
        return code;
    snprintf(prefix, sizeof prefix, "gpu.%d.", device->gpu);
    code = wanted(prefix, function);
    if (code != SUCCESS || device->mig < 0)
        return code;
    snprintf(prefix, sizeof prefix, "gpu.%d.mig.%d.", device->gpu, device->mig);
    return wanted(prefix, function);
}

#define CHECK(device)                                      \
    do {                                                   \
        nvmlReturn_t code_ = check((device), __func__);    \
        if (code_ != SUCCESS)                              \
            return code_;                                  \
    } while (0)

/* ---- memory of real processes ---- */

typedef struct {
    int count;
    unsigned int pids[MAX_PROCESSES];
    unsigned long long sizes[MAX_PROCESSES];
    unsigned long long sum;
} allocations_t;

static unsigned long long number_in(const char *folder, const char *name)
{
    char path[1024];
    unsigned long long size = 0;
    FILE *file;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    file = fopen(path, "r");
    if (!file)
        return 0;
    if (fscanf(file, "%llu", &size) != 1)
        size = 0;
    fclose(file);
    return size;
}

static int allocations(nvmlDevice_t device, allocations_t *found)
{
    char folder[512];
    DIR *entries;
    struct dirent *entry;
    memset(found, 0, sizeof *found);
    if (text_of(device, "allocations", folder, sizeof folder) != SUCCESS)
        return 0;
    entries = opendir(folder);
    while (entries && (entry = readdir(entries)) && found->count < MAX_PROCESSES) {
        char *end;
        long pid = strtol(entry->d_name, &end, 10);
        unsigned long long size;
        if (pid <= 0 || *end || (kill((pid_t)pid, 0) != 0 && errno == ESRCH))
            continue;
        size = number_in(folder, entry->d_name);
        if (size) {
            found->pids[found->count] = (unsigned int)pid;
            found->sizes[found->count++] = size;
            found->sum += size;
        }
    }
    if (entries)
        closedir(entries);
    found->sum += number_in(folder, "../others");
    return 1;
}

static void take_off(nvmlDevice_t device, unsigned long long *free_bytes,
                     unsigned long long *used_bytes)
{
    allocations_t found;
    if (!allocations(device, &found))
        return;
    *free_bytes -= found.sum < *free_bytes ? found.sum : *free_bytes;
    *used_bytes += found.sum;
}

/* ---- library ---- */

nvmlReturn_t nvmlInitWithFlags(unsigned int flags)
{
    nvmlReturn_t code = wanted("", __func__);
    int gpu, place;
    (void)flags;
    if (code != SUCCESS)
        return code;
    for (gpu = 0; gpu < MAX_GPUS; gpu++)
        for (place = 0; place <= MAX_MIGS; place++) {
            devices[gpu][place].gpu = gpu;
            devices[gpu][place].mig = place - 1;
        }
    references++;
    return SUCCESS;
}

nvmlReturn_t nvmlShutdown(void)
{
    if (!references)
        return UNINITIALIZED;
    references--;
    return SUCCESS;
}

const char *nvmlErrorString(nvmlReturn_t code)
{
    (void)code;
    return "an error of the stand-in";
}

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count)
{
    unsigned long long gpus = 0;
    CHECK(NULL);
    number("gpus", &gpus);
    *count = (unsigned int)gpus;
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device)
{
    unsigned long long gpus = 0;
    if (!references)
        return UNINITIALIZED;
    number("gpus", &gpus);
    if (index >= gpus || index >= MAX_GPUS)
        return INVALID_ARGUMENT;
    CHECK(&devices[index][0]);
    *device = &devices[index][0];
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned int length)
{
    CHECK(device);
    return text_of(device, "uuid", uuid, length);
}

nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned int length)
{
    CHECK(device);
    return text_of(device, "name", name, length);
}

nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *pci)
{
    CHECK(device);
    memset(pci, 0, sizeof *pci);
    return text_of(device, "bus", pci->busId, sizeof pci->busId);
}

/* ---- figures ---- */

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory)
{
    nvmlReturn_t code;
    unsigned long long reserved = 0;
    CHECK(device);
    code = figure(device, "total", &memory->total);
    if (code != SUCCESS)
        return code;
    figure(device, "free", &memory->free);
    figure(device, "used", &memory->used);
    figure(device, "reserved", &reserved);
    take_off(device, &memory->free, &memory->used);
    memory->used += reserved; /* version 1 counts it as used */
    return SUCCESS;
}

#ifndef OLD_DRIVER
nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory)
{
    nvmlReturn_t code;
    CHECK(device);
    if (memory->version != (sizeof(nvmlMemory_v2_t) | (2u << 24)))
        return VERSION_MISMATCH;
    code = figure(device, "total", &memory->total);
    if (code != SUCCESS)
        return code;
    figure(device, "free", &memory->free);
    figure(device, "used", &memory->used);
    figure(device, "reserved", &memory->reserved);
    take_off(device, &memory->free, &memory->used);
    return SUCCESS;
}
#endif

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *rates)
{
    CHECK(device);
    rates->memory = 0;
    return figure32(device, "util", &rates->gpu);
}

static nvmlReturn_t processes(nvmlDevice_t device, unsigned int *count, nvmlProcessInfo_t *infos)
{
    unsigned int running = 0, i;
    allocations_t found;
    nvmlReturn_t code;
    if (allocations(device, &found)) {
        running = *count;
        *count = (unsigned int)found.count;
        if (running < *count)
            return INSUFFICIENT_SIZE;
        for (i = 0; i < *count; i++) {
            infos[i].pid = found.pids[i];
            infos[i].usedGpuMemory = found.sizes[i];
            infos[i].gpuInstanceId = infos[i].computeInstanceId = 0xFFFFFFFFu;
        }
        return SUCCESS;
    }
    code = figure32(device, "processes", &running);
    if (code != SUCCESS)
        return code;
    if (*count < running) {
        *count = running;
        return INSUFFICIENT_SIZE;
    }
    for (i = 0; i < running; i++) {
        infos[i].pid = 1000 + i;
        infos[i].usedGpuMemory = 1 << 20;
        infos[i].gpuInstanceId = infos[i].computeInstanceId = 0xFFFFFFFFu;
    }
    *count = running;
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v2(nvmlDevice_t device, unsigned int *count,
                                                     nvmlProcessInfo_t *infos)
{
    CHECK(device);
    return processes(device, count, infos);
}

#ifndef OLD_DRIVER
nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned int *count,
                                                     nvmlProcessInfo_t *infos)
{
    CHECK(device);
    return processes(device, count, infos);
}

nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t device, nvmlTemperature_t *temperature)
{
    unsigned int celsius = 0;
    nvmlReturn_t code;
    CHECK(device);
    if (temperature->version != (sizeof(nvmlTemperature_t) | (1u << 24)))
        return VERSION_MISMATCH;
    code = figure32(device, "temp", &celsius);
    temperature->temperature = (int)celsius;
    return code;
}

nvmlReturn_t nvmlDeviceGetCurrentClocksEventReasons(nvmlDevice_t device, unsigned long long *bits)
{
    CHECK(device);
    return figure(device, "throttle", bits);
}
#endif

nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, unsigned int sensor,
                                      unsigned int *celsius)
{
    CHECK(device);
    if (sensor != 0)
        return INVALID_ARGUMENT;
    return figure32(device, "temp", celsius);
}

nvmlReturn_t nvmlDeviceGetCurrentClocksThrottleReasons(nvmlDevice_t device,
                                                       unsigned long long *bits)
{
    CHECK(device);
    return figure(device, "throttle", bits);
}

nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned int *milliwatts)
{
    CHECK(device);
    return figure32(device, "power", milliwatts);
}

nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, unsigned int type,
                                         unsigned int counter, unsigned long long *count)
{
    CHECK(device);
    if (type != 1 || counter != 0)
        return INVALID_ARGUMENT;
    return figure(device, "ecc", count);
}

/* ---- MIG ---- */

#ifndef OLD_DRIVER
nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned int *current,
                                  unsigned int *pending)
{
    nvmlReturn_t code;
    CHECK(device);
    code = figure32(device, "mig", current);
    *pending = *current;
    return code;
}

nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t device, unsigned int *count)
{
    CHECK(device);
    return figure32(device, "migs", count);
}

nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned int index,
                                                 nvmlDevice_t *instance)
{
    char uuid[96];
    CHECK(device);
    if (index >= MAX_MIGS)
        return INVALID_ARGUMENT;
    *instance = &devices[device->gpu][index + 1];
    return text_of(*instance, "uuid", uuid, sizeof uuid) == SUCCESS ? SUCCESS : NOT_FOUND;
}

nvmlReturn_t nvmlDeviceGetGpuInstanceId(nvmlDevice_t device, unsigned int *id)
{
    CHECK(device);
    return figure32(device, "gi", id);
}

nvmlReturn_t nvmlDeviceGetComputeInstanceId(nvmlDevice_t device, unsigned int *id)
{
    CHECK(device);
    return figure32(device, "ci", id);
}
#endif

/* ---- topology ---- */

static nvmlReturn_t link_figure(nvmlDevice_t first, nvmlDevice_t second, const char *field,
                                unsigned int *value)
{
    char key[64];
    unsigned long long wide = 0;
    snprintf(key, sizeof key, "link.%d.%d.%s", first->gpu, second->gpu, field);
    if (!number(key, &wide))
        return NOT_SUPPORTED;
    *value = (unsigned int)wide;
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceGetTopologyCommonAncestor(nvmlDevice_t first, nvmlDevice_t second,
                                                 unsigned int *level)
{
    CHECK(first);
    return link_figure(first, second, "level", level);
}

nvmlReturn_t nvmlDeviceGetP2PStatus(nvmlDevice_t first, nvmlDevice_t second, unsigned int index,
                                    unsigned int *status)
{
    CHECK(first);
    if (index != 2)
        return INVALID_ARGUMENT;
    return link_figure(first, second, "p2p", status);
}

nvmlReturn_t nvmlDeviceGetNvLinkState(nvmlDevice_t device, unsigned int link, unsigned int *active)
{
    char field[32], bus[32];
    nvmlReturn_t code;
    CHECK(device);
    snprintf(field, sizeof field, "nvlink.%u", link);
    code = text_of(device, field, bus, sizeof bus);
    *active = code == SUCCESS;
    return code;
}

nvmlReturn_t nvmlDeviceGetNvLinkRemotePciInfo_v2(nvmlDevice_t device, unsigned int link,
                                                 nvmlPciInfo_t *pci)
{
    char field[32];
    CHECK(device);
    memset(pci, 0, sizeof *pci);
    snprintf(field, sizeof field, "nvlink.%u", link);
    return text_of(device, field, pci->busId, sizeof pci->busId);
}

/* ---- events ---- */

#ifndef OLD_DRIVER
nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *set)
{
    char key[32], text[64];
    CHECK(NULL);
    *set = calloc(1, sizeof **set);
    /* events from before are not delivered */
    for (;; (*set)->next++) {
        snprintf(key, sizeof key, "xid.%d", (*set)->next);
        if (!lookup(key, text, sizeof text))
            return SUCCESS;
    }
}

nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set)
{
    free(set);
    return SUCCESS;
}

nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long types,
                                      nvmlEventSet_t set)
{
    CHECK(device);
    if (types != 0x8)
        return INVALID_ARGUMENT;
    set->registered[device->gpu] = 1;
    return SUCCESS;
}

nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *event,
                                 unsigned int milliseconds)
{
    struct timespec pause = {0, 5000000};
    unsigned int waited;
    for (waited = 0;; waited += 5) {
        char key[32], text[64];
        int gpu;
        unsigned int xid, gi = 0xFFFFFFFFu, ci = 0xFFFFFFFFu;
        CHECK(NULL);
        snprintf(key, sizeof key, "xid.%d", set->next);
        if (lookup(key, text, sizeof text) &&
            sscanf(text, "%d %u %u %u", &gpu, &xid, &gi, &ci) >= 2) {
            set->next++;
            if (gpu >= 0 && gpu < MAX_GPUS && set->registered[gpu]) {
                event->device = &devices[gpu][0];
                event->eventType = 0x8;
                event->eventData = xid;
                event->gpuInstanceId = gi;
                event->computeInstanceId = ci;
                return SUCCESS;
            }
        }
        if (waited >= milliseconds)
            return TIMEOUT;
        nanosleep(&pause, NULL);
    }
}
#endif
