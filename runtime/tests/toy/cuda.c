// A libcuda.so.1 without a GPU: memory of the host in the place of a card's, and the toy kernels
// compiled for the host in the place of what the driver makes of PTX. It does at once what is
// queued, is strict about contexts, captures and events, and fails where the environment says:
//
//   FAKE_CUDA=9.0:2        compute capability and number of devices (default: none)
//   FAKE_CUDA_MEMORY=N     bytes of each (default: 4 GiB)
//   FAKE_CUDA_VERSION=N    release of CUDA (default: 12080), FAKE_CUDA_PTX=N of PTX (default: 87)
//   FAKE_CUDA_RESIDENT=N   workgroups that a multiprocessor holds at once (default: 1)
//   FAKE_CUDA_FAIL=F=N     function F gives the status N
//   FAKE_CUDA_LOG=1        what was called how often, as the program ends
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static __thread unsigned group, place;
#define __builtin_amdgcn_workgroup_id_x() group
#define __builtin_amdgcn_workitem_id_x() place
#define __builtin_amdgcn_s_sleep(n) ((void)0)
#define KERNEL static void
#define DEVICE static inline
#include "kernels.hip"

enum { STUB = 34, MEMORY = 2, INVALID = 1, NO_DEVICE = 100, BAD_DEVICE = 101, BAD_IMAGE = 200,
       NO_CONTEXT = 201, BAD_PTX = 218, OLD_PTX = 222, BAD_HANDLE = 400, NOT_FOUND = 500,
       FAULT = 700, TOO_LARGE = 720, CAPTURING = 900 };
enum { MULTIPROCESSORS = 108 };

static const char *setting(const char *name, const char *otherwise) {
    const char *value = getenv(name);
    return value ? value : otherwise;
}
static long number(const char *name, const char *otherwise) {
    return atol(setting(name, otherwise));
}

static int started, sticky, launches, overlapping, together, replays, waits, compilations, alive;
static size_t used;
static __thread long current; // A device's number, plus one.

// Every call comes by here; `bound`: it needs a context.
static int enter(const char *name, int bound) {
    const char *fail = setting("FAKE_CUDA_FAIL", "");
    size_t length = strlen(name);
    if (!strncmp(fail, name, length) && fail[length] == '=')
        return atoi(fail + length + 1);
    if (sticky)
        return sticky;
    return bound && !current ? NO_CONTEXT : 0;
}
#define ENTER(bound) \
    do { \
        int status = enter(__func__, bound); \
        if (status) \
            return status; \
    } while (0)

static int devices(void) {
    const char *count = strchr(setting("FAKE_CUDA", ":0"), ':');
    return count ? atoi(count + 1) : 1;
}

int cuInit(unsigned flags) {
    ENTER(0);
    started = 1;
    return devices() ? 0 : NO_DEVICE;
}
int cuDriverGetVersion(int *version) {
    *version = (int)number("FAKE_CUDA_VERSION", "12080");
    return 0;
}
int cuDeviceGetCount(int *count) {
    ENTER(0);
    *count = devices();
    return started ? 0 : 3;
}
int cuDeviceGet(int *device, int ordinal) {
    ENTER(0);
    *device = ordinal;
    return ordinal < devices() ? 0 : BAD_DEVICE;
}
int cuDeviceGetName(char *name, int room, int device) {
    ENTER(0);
    snprintf(name, room, "Paper GPU %d", device);
    return 0;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    ENTER(0);
    int major = 0, minor = 0;
    sscanf(setting("FAKE_CUDA", "0.0"), "%d.%d", &major, &minor);
    switch (attribute) {
    case 16: *value = MULTIPROCESSORS; break;
    case 75: *value = major; break;
    case 76: *value = minor; break;
    case 95: *value = number("FAKE_CUDA_RESIDENT", "1") > 0; break; // Cooperative launches.
    default: return INVALID;
    }
    return 0;
}
int cuDevicePrimaryCtxRetain(void **context, int device) {
    ENTER(0);
    *context = (void *)(intptr_t)(device + 1);
    return 0;
}
int cuCtxSetCurrent(void *context) {
    ENTER(0);
    current = (intptr_t)context;
    return 0;
}

// Memory. Before each piece is its size.
static int take(void **address, size_t bytes, size_t limit) {
    if (bytes > limit)
        return MEMORY;
    size_t *memory = aligned_alloc(256, (bytes + 511) / 256 * 256);
    if (!memory)
        return MEMORY;
    *memory = bytes;
    memset((char *)memory + 256, 0xee, bytes);
    *address = (char *)memory + 256;
    alive++;
    return 0;
}
static void give(void *address) {
    free((char *)address - 256);
    alive--;
}
int cuMemGetInfo_v2(size_t *free, size_t *total) {
    ENTER(1);
    *total = number("FAKE_CUDA_MEMORY", "4294967296");
    *free = *total - used;
    return 0;
}
int cuMemAlloc_v2(void **address, size_t bytes) {
    ENTER(1);
    int status = take(address, bytes, number("FAKE_CUDA_MEMORY", "4294967296") - used);
    used += status ? 0 : bytes;
    return status;
}
int cuMemFree_v2(void *address) {
    ENTER(1);
    used -= *(size_t *)((char *)address - 256);
    give(address);
    return 0;
}
int cuMemHostAlloc(void **address, size_t bytes, unsigned flags) {
    ENTER(1);
    return take(address, bytes, SIZE_MAX / 2);
}
int cuMemFreeHost(void *address) {
    ENTER(1);
    give(address);
    return 0;
}
int cuMemHostGetDevicePointer_v2(void **device, void *host, unsigned flags) {
    ENTER(1);
    *device = host;
    return 0;
}

// Streams, events, graphs.
struct launch { const struct kernel *kernel; unsigned grid, block, count; u64 args[16]; };
struct graph { int count; struct launch launches[64]; };
struct stream { struct graph *capture; };
struct event { unsigned flags; int recorded; };
#define OBJECT(type, name) \
    struct type *name = calloc(1, sizeof *name); \
    alive++
#define END(object) (free(object), alive--)
#define IDLE(stream) \
    if (((struct stream *)stream)->capture) \
    return CAPTURING

int cuStreamCreate(void **stream, unsigned flags) {
    ENTER(1);
    OBJECT(stream, made);
    *stream = made;
    return flags == 1 ? 0 : INVALID;
}
int cuStreamDestroy_v2(void *stream) {
    ENTER(1);
    END(stream);
    return 0;
}
int cuStreamSynchronize(void *stream) {
    ENTER(1);
    IDLE(stream);
    waits++;
    return 0;
}
int cuStreamQuery(void *stream) {
    ENTER(1);
    IDLE(stream);
    return 0;
}
int cuMemsetD8Async(void *to, unsigned char value, size_t bytes, void *stream) {
    ENTER(1);
    IDLE(stream);
    memset(to, value, bytes);
    return 0;
}
int cuMemcpyHtoDAsync_v2(void *to, const void *from, size_t bytes, void *stream) {
    ENTER(1);
    IDLE(stream);
    memcpy(to, from, bytes);
    return 0;
}
int cuMemcpyDtoHAsync_v2(void *to, const void *from, size_t bytes, void *stream) {
    return cuMemcpyHtoDAsync_v2(to, from, bytes, stream);
}
int cuEventCreate(void **event, unsigned flags) {
    ENTER(1);
    OBJECT(event, made);
    made->flags = flags;
    *event = made;
    return 0;
}
int cuEventDestroy_v2(void *event) {
    ENTER(1);
    END(event);
    return 0;
}
int cuEventRecord(struct event *event, void *stream) {
    ENTER(1);
    IDLE(stream);
    event->recorded = 1;
    return 0;
}
int cuEventSynchronize(struct event *event) {
    ENTER(1);
    return 0;
}
int cuEventElapsedTime(float *milliseconds, struct event *start, struct event *end) {
    ENTER(1);
    *milliseconds = 0.25f;
    return start->recorded && end->recorded && !start->flags && !end->flags ? 0 : BAD_HANDLE;
}
int cuStreamBeginCapture_v2(struct stream *stream, int mode) {
    ENTER(1);
    IDLE(stream);
    OBJECT(graph, graph);
    stream->capture = graph;
    return mode == 1 ? 0 : INVALID;
}
int cuStreamEndCapture(struct stream *stream, struct graph **graph) {
    ENTER(1);
    *graph = stream->capture;
    stream->capture = 0;
    return *graph ? 0 : 903;
}
int cuGraphInstantiateWithFlags(struct graph **exec, struct graph *graph, u64 flags) {
    ENTER(1);
    OBJECT(graph, made);
    *made = *graph;
    *exec = made;
    return flags ? INVALID : 0;
}
int cuGraphDestroy(void *graph) {
    ENTER(1);
    END(graph);
    return 0;
}
int cuGraphExecDestroy(void *graph) { return cuGraphDestroy(graph); }

// Code. A cubin is a word and the PTX that it was made of.
struct link { char *errors, *info; size_t room; long target; char *cubin; };
int cuLinkCreate_v2(unsigned count, const int *options, void **values, struct link **state) {
    ENTER(1);
    OBJECT(link, link);
    for (unsigned i = 0; i < count; i++) {
        if (options[i] == 3)
            link->info = values[i];
        else if (options[i] == 5)
            link->errors = values[i];
        else if (options[i] == 6)
            link->room = (size_t)values[i];
        else if (options[i] == 9)
            link->target = (long)values[i];
    }
    *state = link;
    return 0;
}
static int refuse(struct link *link, int status, const char *why) {
    snprintf(link->errors, link->room, "ptxas application ptx input, line 3; %s\n", why);
    snprintf(link->info, link->room, "ptxas fatal   : Ptx assembly aborted due to errors\n");
    return status;
}
int cuLinkAddData_v2(struct link *link, int kind, const char *ptx, size_t bytes, const char *name,
                     unsigned count, void *options, void *values) {
    ENTER(1);
    int major = 0, minor = 0, target = 0;
    char suffix = 0;
    if (kind != 1 || !bytes || strlen(ptx) != bytes - 1)
        return INVALID;
    compilations++;
    const char *version = strstr(ptx, ".version "), *arch = strstr(ptx, ".target sm_");
    if (!version || sscanf(version, ".version %d.%d", &major, &minor) != 2)
        return refuse(link, BAD_PTX, "fatal   : Missing .version directive");
    if (10 * major + minor > number("FAKE_CUDA_PTX", "87"))
        return OLD_PTX;
    if (!arch || sscanf(arch, ".target sm_%d%c", &target, &suffix) < 1)
        return refuse(link, BAD_PTX, "fatal   : Missing .target directive");
    if (link->target != (suffix == 'a' ? 65536 + target : 0))
        return refuse(link, BAD_PTX, "error   : PTX of another target");
    if (!strstr(ptx, ".entry"))
        return refuse(link, BAD_PTX, "error   : Parsing error near 'nonsense': syntax error");
    link->cubin = malloc(bytes + 8);
    memcpy(link->cubin, "\177paper\n\n", 8);
    memcpy(link->cubin + 8, ptx, bytes);
    return 0;
}
int cuLinkComplete(struct link *link, void **cubin, size_t *bytes) {
    ENTER(1);
    *cubin = link->cubin;
    *bytes = link->cubin ? 8 + strlen(link->cubin + 8) + 1 : 0;
    return 0;
}
int cuLinkDestroy(struct link *link) {
    free(link->cubin);
    END(link);
    return 0;
}
struct module { char *ptx; };
int cuModuleLoadData(struct module **module, const char *cubin) {
    ENTER(1);
    if (memcmp(cubin, "\177paper\n\n", 8))
        return BAD_IMAGE;
    OBJECT(module, made);
    made->ptx = strdup(cubin + 8);
    *module = made;
    return 0;
}
int cuModuleUnload(struct module *module) {
    ENTER(1);
    free(module->ptx);
    END(module);
    return 0;
}

struct kernel { const char *name; void (*run)(const u64 *); };
#define P(i) ((void *)a[i])
#define RUN(name, ...) \
    static void run_##name(const u64 *a) { name(__VA_ARGS__); }
RUN(append, P(0), P(1), P(2), P(3), a[4])
RUN(mix, P(0), P(1), a[2])
RUN(predict, P(0), P(1), P(2), P(3), a[4], a[5])
RUN(sample, P(0), P(1), P(2), P(3), P(4), P(5), P(6), a[7])
RUN(decode_mix, P(0), P(1), P(2))
RUN(decode_predict, P(0), P(1), P(2), a[3])
RUN(forget, P(0), P(1), P(2), P(3), P(4), P(5), P(6), a[7])
RUN(slow_mix, P(0), P(1), a[2])
RUN(slow_decode_mix, P(0), P(1), P(2))
// What a card finds where there is nothing.
static void run_fault(const u64 *a) {
    (void)fault;
    sticky = FAULT;
}
#define ENTRY(name) {#name, run_##name}
static const struct kernel kernels[] = {
    ENTRY(append), ENTRY(mix), ENTRY(predict), ENTRY(sample), ENTRY(decode_mix),
    ENTRY(decode_predict), ENTRY(fault), ENTRY(forget), ENTRY(slow_mix), ENTRY(slow_decode_mix),
    {"streams", 0},
};

// Bytes of shared memory that launches may ask for.
static int granted[sizeof kernels / sizeof *kernels];

int cuModuleGetFunction(const struct kernel **function, struct module *module, const char *name) {
    ENTER(1);
    char entry[100];
    snprintf(entry, sizeof entry, ".entry %s(", name);
    for (unsigned i = 0; strstr(module->ptx, entry) && i < sizeof kernels / sizeof *kernels; i++)
        if (!strcmp(kernels[i].name, name)) {
            *function = &kernels[i];
            return 0;
        }
    return NOT_FOUND;
}
// CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES.
int cuFuncSetAttribute(const struct kernel *kernel, int attribute, int value) {
    ENTER(1);
    if (attribute != 8 || value <= 0 || value > 227 << 10)
        return INVALID;
    granted[kernel - kernels] = value;
    return 0;
}
// A persistent step, the last stream first: each goes as far as its flags let it. The bodies are
// those of the toy's decode step.
static void run_streams(const struct launch *launch) {
    static const unsigned bodies[] = {0, 4, 5};
    const u64 *arguments = (void *)launch->args[0];
    const u32 *code = (void *)launch->args[1];
    u32 *sync = (void *)launch->args[2], at[MULTIPROCESSORS], left = launch->grid;
    memcpy(at, code, left * sizeof *at);
    while (left) {
        int moved = 0;
        for (u32 stream = launch->grid; stream--;) {
            const u32 *record = code + at[stream];
            int passed = at[stream] != 0;
            for (u32 i = 0; passed && record[0] != -1u && i < record[5]; i++) {
                const u32 *wait = record + 8 + 3 * i;
                passed = (int)(sync[wait[0] / 4] - (sync[0] * wait[2] + wait[1])) >= 0;
            }
            if (!passed)
                continue;
            moved = 1;
            if (record[0] == -1u) {
                at[stream] = 0;
                left--;
                continue;
            }
            for (group = record[2]; group < record[2] + record[3]; group++)
                for (place = 0; place < launch->block; place++)
                    kernels[bodies[record[0]]].run(arguments + record[1]);
            if (record[4])
                sync[record[4] / 4] += record[3];
            at[stream] += 32;
        }
        if (!moved)
            abort();
    }
    sync[0]++;
}
static void run(const struct launch *launch) {
    if (!launch->kernel->run)
        return run_streams(launch);
    for (group = 0; group < launch->grid; group++)
        for (place = 0; place < launch->block; place++)
            launch->kernel->run(launch->args);
}
static int queue(struct launch *launch, struct stream *stream) {
    launches++;
    if (stream->capture)
        stream->capture->launches[stream->capture->count++] = *launch;
    else
        run(launch);
    return 0;
}
int cuLaunchKernel(const struct kernel *kernel, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
                   unsigned by, unsigned bz, unsigned shared, struct stream *stream, void **params,
                   void **extra) {
    ENTER(1);
    struct launch launch = {.kernel = kernel, .grid = gx, .block = bx};
    // CU_LAUNCH_PARAM_BUFFER_POINTER, _SIZE, _END.
    int packed = extra && extra[0] == (void *)1 && extra[2] == (void *)2 && !extra[4];
    size_t bytes = packed ? *(size_t *)extra[3] : sizeof launch.args + 1;
    if (!gx || !bx || gy != 1 || gz != 1 || by != 1 || bz != 1 ||
        shared > (unsigned)granted[kernel - kernels] || params ||
        bytes > sizeof launch.args)
        return INVALID;
    memcpy(launch.args, extra[1], bytes);
    return queue(&launch, stream);
}
struct attribute { int id, pad; union { char pad[64]; int word; } value; };
struct config { unsigned grid[3], block[3], shared; struct stream *stream;
                struct attribute *attributes; unsigned count; };
// With the attribute for programmatic serialization, which the first of a graph has no use for.
int cuLaunchKernelEx(const struct config *c, const struct kernel *kernel, void **params,
                     void **extra) {
    ENTER(1);
    if (c->count != 1 || c->attributes->id != 6 || c->attributes->value.word != 1 ||
        (c->stream->capture && !c->stream->capture->count))
        return INVALID;
    overlapping++;
    return cuLaunchKernel(kernel, c->grid[0], c->grid[1], c->grid[2], c->block[0], c->block[1],
                          c->block[2], c->shared, c->stream, params, extra);
}
int cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, const struct kernel *kernel, int block,
                                                size_t shared) {
    ENTER(1);
    *blocks = (int)number("FAKE_CUDA_RESIDENT", "1");
    return block > 0 && !shared ? 0 : INVALID;
}
// Takes three arguments, as the one kernel that waits for its other workgroups does.
int cuLaunchCooperativeKernel(const struct kernel *kernel, unsigned gx, unsigned gy, unsigned gz,
                              unsigned bx, unsigned by, unsigned bz, unsigned shared,
                              struct stream *stream, void **params) {
    ENTER(1);
    struct launch launch = {.kernel = kernel, .grid = gx, .block = bx};
    if (!gx || !bx || gy != 1 || gz != 1 || by != 1 || bz != 1 || shared || kernel->run)
        return INVALID;
    if (gx > MULTIPROCESSORS * number("FAKE_CUDA_RESIDENT", "1"))
        return TOO_LARGE;
    for (int i = 0; i < 3; i++)
        launch.args[i] = *(u64 *)params[i];
    together++;
    return queue(&launch, stream);
}
int cuGraphLaunch(const struct graph *graph, void *stream) {
    ENTER(1);
    IDLE(stream);
    replays++;
    for (int i = 0; i < graph->count; i++)
        run(&graph->launches[i]);
    return 0;
}

static const struct { int status; const char *name, *text; } errors[] = {
    {2, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {34, "CUDA_ERROR_STUB_LIBRARY", "CUDA driver is a stub library"},
    {46, "CUDA_ERROR_DEVICE_UNAVAILABLE", "CUDA-capable device(s) is/are busy or unavailable"},
    {200, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {218, "CUDA_ERROR_INVALID_PTX", "a PTX JIT compilation failed"},
    {221, "CUDA_ERROR_JIT_COMPILER_NOT_FOUND", "PTX JIT compiler library not found"},
    {700, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {719, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {803, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
     "system has unsupported display driver / cuda driver combination"},
};
static int told(int status, const char **to, int name) {
    for (unsigned i = 0; i < sizeof errors / sizeof *errors; i++)
        if (errors[i].status == status) {
            *to = name ? errors[i].name : errors[i].text;
            return 0;
        }
    *to = 0;
    return INVALID;
}
int cuGetErrorName(int status, const char **name) { return told(status, name, 1); }
int cuGetErrorString(int status, const char **text) { return told(status, text, 0); }

__attribute__((destructor)) static void tell(void) {
    if (getenv("FAKE_CUDA_LOG"))
        printf("\n> %d compilations, %d launches (%d overlapping, %d together), %d replays, %d waits, "
               "%d things left\n",
               compilations, launches, overlapping, together, replays, waits, alive);
    fflush(stdout);
}
