// A HIP library before another one: counts what is launched, replayed and waited for, and says so
// when the program ends.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>

static int launches, replays, waits;

#define NEXT(result, name, ...) \
    static result (*next)(__VA_ARGS__); \
    if (!next) \
        next = (result(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

int hipModuleLaunchKernel(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                          unsigned bz, unsigned lds, void *stream, void **params, void **extra) {
    NEXT(int, "hipModuleLaunchKernel", void *, unsigned, unsigned, unsigned, unsigned, unsigned,
         unsigned, unsigned, void *, void **, void **);
    launches++;
    return next(f, gx, gy, gz, bx, by, bz, lds, stream, params, extra);
}

int hipGraphLaunch(void *graph, void *stream) {
    NEXT(int, "hipGraphLaunch", void *, void *);
    replays++;
    return next(graph, stream);
}

int hipStreamSynchronize(void *stream) {
    NEXT(int, "hipStreamSynchronize", void *);
    waits++;
    return next(stream);
}

__attribute__((destructor)) static void tell(void) {
    printf("\n> %d launches, %d replays, %d waits\n", launches, replays, waits);
    fflush(stdout);
}
