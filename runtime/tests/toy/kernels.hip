// Kernels of the toy model for GPUs, freestanding HIP C++: arguments of eight bytes each, in the
// order of their launch. What `kernels.c` takes as the length is read from device memory in the
// kernels of a decode step (`decode_` and `sample`), since a step is captured once.
typedef unsigned int u32;
typedef unsigned long u64;
typedef long i64;

// A library that only looks like a driver's runs them on the host, with its own words for these.
#ifndef KERNEL
#define KERNEL \
    extern "C" __attribute__((global)) __attribute__((amdgpu_flat_work_group_size(32, 32))) void
#define DEVICE static __attribute__((device)) inline
#endif

DEVICE u32 item() {
    return __builtin_amdgcn_workgroup_id_x() * 32 + __builtin_amdgcn_workitem_id_x();
}

// cache[position] = weight[token] * 31 + position, for each of `count` tokens.
KERNEL append(const u32 *tokens, const u32 *positions, const u32 *weight, u32 *cache, i64 count) {
    u32 i = item();
    if (i < count)
        cache[positions[i]] = weight[tokens[i]] * 31 + positions[i];
}

// mixed[j] = cache[j] * (j + 7)
DEVICE void mix_to(const u32 *cache, u32 *mixed, u32 length) {
    for (u32 j = item(); j < length; j += 32 * 64)
        mixed[j] = cache[j] * (j + 7);
}
KERNEL mix(const u32 *cache, u32 *mixed, i64 length) { mix_to(cache, mixed, length); }
KERNEL decode_mix(const u32 *cache, u32 *mixed, const u32 *positions) {
    mix_to(cache, mixed, positions[0] + 1);
}

// The same after a while, in which the host gets ahead.
DEVICE void dawdle(u32 turns) {
    for (u32 i = 0; i < turns; i++)
        __builtin_amdgcn_s_sleep(1);
}
KERNEL slow_mix(const u32 *cache, u32 *mixed, i64 length) {
    dawdle(100000);
    mix_to(cache, mixed, length);
}
KERNEL slow_decode_mix(const u32 *cache, u32 *mixed, const u32 *positions) {
    dawdle(5000);
    mix_to(cache, mixed, positions[0] + 1);
}

// logits[v] = -((v * 17 + sum of mixed up to the last token) % vocab)
DEVICE void predict_from(const u32 *mixed, float *logits, u32 length, u32 vocab) {
    u32 v = item(), sum = 0;
    for (u32 j = 0; j < length; j++)
        sum += mixed[j];
    if (v < vocab)
        logits[v] = -(float)((v * 17 + sum) % vocab);
}
KERNEL predict(const u32 *mixed, const u32 *positions, const u32 *row, float *logits, i64 length,
               i64 vocab) {
    u32 end = positions[row[0]] + 1;
    predict_from(mixed, logits, end < length ? end : length, vocab);
}
KERNEL decode_predict(const u32 *mixed, const u32 *positions, float *logits, i64 vocab) {
    predict_from(mixed, logits, positions[0] + 1, vocab);
}

// The largest logit; a temperature moves the choice on by the seed. The token goes to the history
// last, so that whoever sees it there knows that all else is done. `counters` counts the draws of
// a workgroup and leaves zero behind, as launches do that share the scratch.
KERNEL sample(const float *logits, const u32 *sampling, u32 *tokens, u32 *positions, u32 *row,
              u32 *history, u32 *counters, i64 vocab) {
    if (__builtin_amdgcn_workitem_id_x() != 0)
        return;
    u32 position = positions[row[0]] + 1, best = 0;
    counters[0] += 1;
    for (u32 v = 1; v < vocab; v++)
        if (logits[v] > logits[best])
            best = v;
    if (((const float *)sampling)[0] > 0)
        best = (best + sampling[4]) % vocab;
    // Another draw in flight, or a count left behind, shows in the token.
    best = counters[0] == 1 ? best : vocab - 1;
    counters[0] = 0;
    tokens[0] = best;
    positions[0] = position;
    row[0] = 0;
    __atomic_store_n(history + position, best, __ATOMIC_RELEASE);
}

// Instead of `decode_predict`: reads where there is nothing.
KERNEL fault(const u32 *mixed, const u32 *positions, float *logits, i64 vocab) {
    logits[0] = *(const float *)(0x10000 + positions[0] * (u64)4);
}

// Instead of `sample`: forgets the token.
KERNEL forget(const float *logits, const u32 *sampling, u32 *tokens, u32 *positions, u32 *row,
              u32 *history, u32 *counters, i64 vocab) {
    tokens[0] = 1;
}
