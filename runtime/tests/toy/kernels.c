// Kernels of a toy model, by the ABI of docs/architecture.md. They need no library.
#include <stdint.h>

#define KERNEL(name) \
    void name(const uint64_t *args, int64_t first, int64_t last, void *scratch)
#define POINTER(type, index) ((type *)args[index])

// cache[position] = weight[token] * 31 + position, for each token of the step.
KERNEL(append) {
    const uint32_t *tokens = POINTER(const uint32_t, 0), *positions = POINTER(const uint32_t, 1);
    const uint32_t *weight = POINTER(const uint32_t, 2);
    uint32_t *cache = POINTER(uint32_t, 3);
    for (int64_t i = first; i < last; i++)
        cache[positions[i]] = weight[tokens[i]] * 31 + positions[i];
}

// mixed[j] = cache[j] * (j + 7), by way of the worker's scratch.
KERNEL(mix) {
    const uint32_t *cache = POINTER(const uint32_t, 0);
    uint32_t *mixed = POINTER(uint32_t, 1);
    volatile uint32_t *own = scratch;
    for (int64_t j = first; j < last; j++) {
        own[j % 16] = cache[j];
        mixed[j] = own[j % 16] * (uint32_t)(j + 7);
    }
}

// logits[v] = -((v * 17 + sum of mixed up to the last token) % vocab)
KERNEL(predict) {
    const uint32_t *mixed = POINTER(const uint32_t, 0), *positions = POINTER(const uint32_t, 1);
    const uint32_t *row = POINTER(const uint32_t, 2);
    float *logits = POINTER(float, 3);
    uint32_t length = (uint32_t)args[4], vocab = (uint32_t)args[5], sum = 0;
    for (uint32_t j = 0; j < length && j <= positions[row[0]]; j++)
        sum += mixed[j];
    for (int64_t v = first; v < last; v++)
        logits[v] = -(float)(((uint32_t)v * 17 + sum) % vocab);
}

// The largest logit; a temperature moves the choice on by the seed.
KERNEL(sample) {
    const float *logits = POINTER(const float, 0);
    const uint32_t *sampling = POINTER(const uint32_t, 1);
    uint32_t *tokens = POINTER(uint32_t, 2), *positions = POINTER(uint32_t, 3);
    uint32_t *row = POINTER(uint32_t, 4), *history = POINTER(uint32_t, 5);
    uint32_t length = (uint32_t)args[6], vocab = (uint32_t)args[7], best = 0;
    for (uint32_t v = 1; v < vocab; v++)
        if (logits[v] > logits[best])
            best = v;
    if (((const float *)sampling)[0] > 0)
        best = (best + sampling[4]) % vocab;
    tokens[0] = best;
    positions[0] = length;
    row[0] = 0;
    history[length] = best;
}
