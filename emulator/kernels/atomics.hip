// Atomics on global memory and LDS: integers, floats, 64 bits, compare and swap, and flags that
// order the memory of different workgroups.

#include "device.h"

#define AGENT __HIP_MEMORY_SCOPE_AGENT
#define GROUP __HIP_MEMORY_SCOPE_WORKGROUP

// Every operation on a word of its own; results must not depend on the order of the work-items.
KERNEL integers(i32 *words, u32 *unsigned_words, u64 *longs) {
  i32 i = blockIdx_x * blockDim_x + threadIdx_x;
  __hip_atomic_fetch_add(&words[0], i, __ATOMIC_RELAXED, AGENT);
  __hip_atomic_fetch_sub(&words[1], i, __ATOMIC_RELAXED, AGENT);
  __hip_atomic_fetch_and(&words[2], ~(1 << (i & 15)), __ATOMIC_RELAXED, AGENT);
  __hip_atomic_fetch_or(&words[3], 1 << (i & 31), __ATOMIC_RELAXED, AGENT);
  __hip_atomic_fetch_xor(&words[4], i * 77, __ATOMIC_RELAXED, AGENT);
  __hip_atomic_fetch_min(&words[5], 50 - i * 3, __ATOMIC_RELAXED, AGENT);
  __hip_atomic_fetch_max(&words[6], i * 3 - 50, __ATOMIC_RELAXED, AGENT);
  __hip_atomic_fetch_min(&unsigned_words[0], (u32)(i - 1), __ATOMIC_RELAXED, AGENT);
  __hip_atomic_fetch_max(&unsigned_words[1], (u32)(5 - i), __ATOMIC_RELAXED, AGENT);
  __builtin_amdgcn_atomic_inc32(&unsigned_words[2], 99u, __ATOMIC_RELAXED, "agent");
  __builtin_amdgcn_atomic_dec32(&unsigned_words[3], 99u, __ATOMIC_RELAXED, "agent");
  __hip_atomic_fetch_add(&longs[0], (u64)i << 30, __ATOMIC_RELAXED, AGENT);
  __hip_atomic_fetch_or(&longs[1], 1ul << (i & 63), __ATOMIC_RELAXED, AGENT);
  __hip_atomic_fetch_max(&longs[2], (u64)i << 33, __ATOMIC_RELAXED, AGENT);
  __hip_atomic_fetch_min((i64 *)&longs[3], -((i64)i << 33), __ATOMIC_RELAXED, AGENT);
  __hip_atomic_fetch_xor(&longs[4], 0x100000001ul * i, __ATOMIC_RELAXED, AGENT);
  __hip_atomic_fetch_and(&longs[5], ~(1ul << (i & 31)), __ATOMIC_RELAXED, AGENT);
  __builtin_amdgcn_atomic_inc64(&longs[6], 99ul, __ATOMIC_RELAXED, "agent");
}

// The value before: every work-item draws a ticket and marks it; exchange and compare-and-swap
// chains keep the sum of all values.
KERNEL tickets(u32 *counter, u32 *seen, u32 *exchanged, u32 *sums, u64 *wide) {
  u32 i = blockIdx_x * blockDim_x + threadIdx_x;
  u32 ticket = __hip_atomic_fetch_add(counter, 1, __ATOMIC_RELAXED, AGENT);
  seen[ticket] = ticket;
  u32 before = __hip_atomic_exchange(exchanged, i + 1, __ATOMIC_RELAXED, AGENT);
  __hip_atomic_fetch_add(&sums[0], before, __ATOMIC_RELAXED, AGENT);
  u32 expected = 0;
  while (!__hip_atomic_compare_exchange_weak(&sums[1], &expected, expected * 2 % 65521 + 1, __ATOMIC_RELAXED,
                                             __ATOMIC_RELAXED, AGENT))
    ;
  u64 old = 0;
  while (!__hip_atomic_compare_exchange_strong(wide, &old, old + ((u64)i << 20) + 1, __ATOMIC_RELAXED,
                                               __ATOMIC_RELAXED, AGENT))
    ;
}

// Floating sums of small integers are exact in any order.
KERNEL floats(float *sums, double *doubles, f16x2 *halves, bf16x2 *bfloats) {
  u32 i = blockIdx_x * blockDim_x + threadIdx_x;
  [[clang::atomic(no_fine_grained_memory, no_remote_memory, ignore_denormal_mode)]] {
    __hip_atomic_fetch_add(&sums[0], (float)(i % 7), __ATOMIC_RELAXED, AGENT);
    float before = __hip_atomic_fetch_add(&sums[1], 1.0f, __ATOMIC_RELAXED, AGENT);
    sums[16 + (u32)before] = before;
    __hip_atomic_fetch_add(&doubles[0], (double)i * 0.5, __ATOMIC_RELAXED, AGENT);
    __hip_atomic_fetch_max(&doubles[1], (double)i - 7.0, __ATOMIC_RELAXED, AGENT);
    __hip_atomic_fetch_min(&doubles[2], 3.0 - (double)i, __ATOMIC_RELAXED, AGENT);
  }
  // Without the promise: whatever the compiler must do for any memory.
  __hip_atomic_fetch_add(&sums[2], 0.25f, __ATOMIC_RELAXED, AGENT);
  __hip_atomic_fetch_max(&sums[3], (float)i, __ATOMIC_RELAXED, AGENT);
  __hip_atomic_fetch_min(&sums[4], -(float)i, __ATOMIC_RELAXED, AGENT);
#if defined(__gfx90a__) || defined(__gfx942__) || defined(__gfx950__) || defined(__GFX12__)
  f16x2 pair = {(f16)1.0f, (f16)(float)(i % 3)};
  __builtin_amdgcn_global_atomic_fadd_v2f16((__attribute__((address_space(1))) f16x2 *)halves, pair);
#endif
#if defined(__gfx942__) || defined(__gfx950__) || defined(__GFX12__)
  i16x2 bpair = {0x3f80, 0x4000};
  __builtin_amdgcn_global_atomic_fadd_v2bf16((__attribute__((address_space(1))) i16x2 *)bfloats, bpair);
#else
  (void)bfloats;
#endif
  (void)halves;
}

// LDS: a histogram, floating sums, 64-bit and returning forms, compare and swap.
KERNEL __launch_bounds__(256) local(const u8 *bytes, u32 count, u32 *histogram, float *sum, u64 *wide, u32 *order) {
  static __shared__ u32 bins[256], last, spun;
  static __shared__ float total;
  static __shared__ u64 longs[3];
  static __shared__ double exact;
  u32 i = threadIdx_x;
  bins[i] = 0;
  if (i == 0) last = 0, spun = 0, total = 0, longs[0] = 0, longs[1] = 0, longs[2] = 0, exact = 0;
  barrier();
  for (u32 at = i; at < count; at += 256) __hip_atomic_fetch_add(&bins[bytes[at]], 1, __ATOMIC_RELAXED, GROUP);
  [[clang::atomic(no_fine_grained_memory, no_remote_memory, ignore_denormal_mode)]] {
    __hip_atomic_fetch_add(&total, (float)i, __ATOMIC_RELAXED, GROUP);
    __hip_atomic_fetch_add(&exact, (double)i, __ATOMIC_RELAXED, GROUP);
  }
  __hip_atomic_fetch_add(&longs[0], (u64)i << 31, __ATOMIC_RELAXED, GROUP);
  __hip_atomic_fetch_max(&longs[1], (u64)i * i, __ATOMIC_RELAXED, GROUP);
  __hip_atomic_fetch_or(&longs[2], 1ul << (i & 63), __ATOMIC_RELAXED, GROUP);
  u32 place = __hip_atomic_fetch_add(&last, 1, __ATOMIC_RELAXED, GROUP);
  order[place] = place;
  u32 old = 0;
  while (!__hip_atomic_compare_exchange_weak(&spun, &old, old + i, __ATOMIC_RELAXED, __ATOMIC_RELAXED, GROUP))
    ;
  barrier();
  histogram[i] = bins[i];
  if (i == 0) sum[0] = total, sum[1] = (float)exact, wide[0] = longs[0], wide[1] = longs[1], wide[2] = longs[2], wide[3] = spun;
}

// A chain: workgroup g waits for the flag of workgroup g - 1, adds to what it wrote, and raises
// its own. Numbers are drawn so that earlier ones are already running.
KERNEL __launch_bounds__(64) chain(u32 *next, u32 *flags, u32 *values) {
  static __shared__ u32 number;
  if (threadIdx_x == 0) number = __hip_atomic_fetch_add(next, 1, __ATOMIC_RELAXED, AGENT);
  barrier();
  u32 mine = number;
  if (threadIdx_x == 0 && mine > 0)
    while (!__hip_atomic_load(&flags[mine - 1], __ATOMIC_ACQUIRE, AGENT)) __builtin_amdgcn_s_sleep(1);
  barrier();
  __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "agent");
  u32 before = mine > 0 ? values[(mine - 1) * 64 + threadIdx_x] : threadIdx_x;
  values[mine * 64 + threadIdx_x] = before * 3 + mine;
  __builtin_amdgcn_fence(__ATOMIC_RELEASE, "agent");
  barrier();
  if (threadIdx_x == 0) __hip_atomic_store(&flags[mine], 1, __ATOMIC_RELEASE, AGENT);
}

// The last workgroup to finish reduces what all wrote.
KERNEL __launch_bounds__(128) last_block(const float *x, u32 count, float *partial, u32 *done, float *out) {
  static __shared__ float space[32];
  static __shared__ bool is_last;
  float sum = 0;
  for (u32 i = blockIdx_x * 128 + threadIdx_x; i < count; i += gridSize_x) sum += x[i];
  sum = block_sum(sum, space);
  if (threadIdx_x == 0) {
    partial[blockIdx_x] = sum;
    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "agent");
    u32 finished = __hip_atomic_fetch_add(done, 1, __ATOMIC_ACQ_REL, AGENT);
    is_last = finished == gridDim_x - 1;
  }
  barrier();
  if (!is_last) return;
  __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "agent");
  float total = 0;
  for (u32 i = threadIdx_x; i < gridDim_x; i += 128) total += partial[i];
  total = block_sum(total, space);
  if (threadIdx_x == 0) *out = total;
}

// Cooperative: all workgroups meet at a barrier of ours between steps of a stencil.
KERNEL __launch_bounds__(64) grid_barrier(u32 *arrived, u32 *a, u32 *b, u32 steps) {
  u32 i = blockIdx_x * 64 + threadIdx_x, total = gridSize_x, groups = gridDim_x;
  for (u32 step = 0; step < steps; step++) {
    u32 *from = step % 2 ? b : a, *to = step % 2 ? a : b;
    to[i] = from[(i + total - 1) % total] + 2 * from[i] + from[(i + 1) % total];
    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "agent");
    barrier();
    if (threadIdx_x == 0) {
      __hip_atomic_fetch_add(arrived, 1, __ATOMIC_ACQ_REL, AGENT);
      while (__hip_atomic_load(arrived, __ATOMIC_ACQUIRE, AGENT) < (step + 1) * groups) __builtin_amdgcn_s_sleep(2);
    }
    barrier();
    __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "agent");
  }
}
