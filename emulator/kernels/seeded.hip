// Mistakes, one a kernel, that a card runs without a word, and the same kernel without it where the
// difference is a line. The checks must name each.

#include "device.h"

#define BARRIER() __builtin_amdgcn_s_barrier()
// What clang makes of __syncthreads(): LDS is complete before the barrier.
static __device__ __inline__ void sync() {
  __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
  __builtin_amdgcn_s_barrier();
  __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");
}

// Reads one element beyond the end.
KERNEL global_out_of_bounds(const u32 *in, u32 *out, u32 n) {
  u32 i = blockIdx_x * blockDim_x + threadIdx_x;
  if (i < n) out[i] = in[i + 1];
}

KERNEL copy(const u32 *in, u32 *out, u32 n) {
  u32 i = blockIdx_x * blockDim_x + threadIdx_x;
  if (i < n) out[i] = in[i];
}

// Writes words of LDS from 0 to `words`, of which there are 64.
KERNEL lds_out_of_bounds(u32 *out, u32 words) {
  __shared__ u32 buffer[64];
  volatile u32 *place = buffer;  // Through a flat pointer.
  for (u32 i = threadIdx_x; i < words; i += blockDim_x) place[i] = i;
  sync();
  out[threadIdx_x] = place[threadIdx_x % 64];
}

// Each wave reads what the other wrote, with a barrier between or without.
static __device__ __inline__ void exchange(u32 *out, bool with_barrier) {
  __shared__ volatile u32 place[256];
  place[threadIdx_x] = threadIdx_x;
  if (with_barrier) sync();
  out[threadIdx_x] = place[blockDim_x - 1 - threadIdx_x];
}

KERNEL lds_race(u32 *out) { exchange(out, false); }
KERNEL lds_exchange(u32 *out) { exchange(out, true); }

// The second half of the workgroup reads what the first one wrote before it counted itself, or after.
static __device__ __inline__ void hand_over(u32 *out, bool in_order) {
  __shared__ volatile u32 place[64];
  __shared__ u32 counted;
  if (threadIdx_x == 0) counted = 0;
  if (threadIdx_x < 64) place[threadIdx_x] = 0;
  sync();
  if (threadIdx_x < 64) {
    if (in_order) place[threadIdx_x] = threadIdx_x;
    __hip_atomic_fetch_add(&counted, 1, __ATOMIC_RELEASE, __HIP_MEMORY_SCOPE_WORKGROUP);
    if (!in_order) place[threadIdx_x] = threadIdx_x;
  } else {
    while (__hip_atomic_load(&counted, __ATOMIC_ACQUIRE, __HIP_MEMORY_SCOPE_WORKGROUP) < 64) {}
    out[threadIdx_x - 64] = place[threadIdx_x - 64];
  }
}

KERNEL lds_handed_over(u32 *out) { hand_over(out, true); }
KERNEL lds_handed_over_early(u32 *out) { hand_over(out, false); }

// Reads LDS that nobody wrote.
KERNEL lds_uninitialized(u32 *out) {
  __shared__ volatile u32 place[64];
  if (threadIdx_x < 32) place[threadIdx_x] = 1;
  sync();
  out[threadIdx_x] = place[threadIdx_x];
}

// Every workgroup writes the same word.
KERNEL global_race(u32 *out) {
  if (threadIdx_x == 0) out[0] = blockIdx_x;
}

// Every workgroup adds to the same word.
KERNEL global_atomic(u32 *out) {
  if (threadIdx_x == 0) __hip_atomic_fetch_add(out, 1u, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_AGENT);
}

// The last workgroup to arrive adds up what the others wrote.
KERNEL last_workgroup(u32 *parts, u32 *count, u32 *out, u32 groups) {
  if (threadIdx_x != 0) return;
  parts[blockIdx_x] = blockIdx_x + 1;
  u32 before = __hip_atomic_fetch_add(count, 1u, __ATOMIC_ACQ_REL, __HIP_MEMORY_SCOPE_AGENT);
  if (before + 1 == groups) {
    u32 sum = 0;
    for (u32 i = 0; i < groups; i++) sum += parts[i];
    out[0] = sum;
  }
}

// Half of a wave goes past the barrier.
KERNEL divergent_barrier(u32 *out) {
  if (threadIdx_x % 2 == 0) {
    BARRIER();
    out[threadIdx_x] = 1;
  }
}

// The second wave does not come to the barrier.
KERNEL unequal_barriers(u32 *out) {
  if (__builtin_amdgcn_readfirstlane(threadIdx_x) < WAVE) BARRIER();
  out[threadIdx_x] = 1;
}

// A loaded register is used without a wait.
KERNEL missing_wait(const u32 *in, u32 *out) {
  u32 value;
#if defined(RDNA)
  asm volatile("global_load_b32 v40, %1, off\n v_add_nc_u32_e32 %0, v40, v40"
               : "=v"(value) : "v"(in + threadIdx_x) : "v40");
#else
  asm volatile("global_load_dword v40, %1, off\n v_add_u32_e32 %0, v40, v40"
               : "=v"(value) : "v"(in + threadIdx_x) : "v40");
#endif
  out[threadIdx_x] = value;
}

// The same of a scalar load.
KERNEL missing_scalar_wait(const u32 *in, u32 *out) {
  u32 value;
#if defined(RDNA)
  asm volatile("s_load_b32 s40, %1, 0x0\n s_add_u32 %0, s40, s40" : "=s"(value) : "s"(in) : "s40", "scc");
#else
  asm volatile("s_load_dword s40, %1, 0x0\n s_add_u32 %0, s40, s40" : "=s"(value) : "s"(in) : "s40", "scc");
#endif
  out[threadIdx_x] = value;
}

// LDS is written and the barrier signaled before the write is complete.
KERNEL missing_wait_before_barrier(u32 *out) {
  __shared__ volatile u32 place[256];
  if (threadIdx_x == 0) place[0] = 0;
  sync();
  u32 address = threadIdx_x * 4;
#if defined(__gfx1201__)
  asm volatile("ds_store_b32 %0, %1\n s_barrier_signal -1\n s_barrier_wait -1\n s_wait_dscnt 0x0"
               : : "v"(address), "v"(address) : "memory");
#else
  asm volatile("ds_write_b32 %0, %1\n s_barrier\n s_waitcnt lgkmcnt(0)"
               : : "v"(address), "v"(address) : "memory");
#endif
  out[threadIdx_x] = place[blockDim_x - 1 - threadIdx_x];
}

// 16 bytes of LDS at an address that is a multiple of four only.
KERNEL misaligned(u32 *out) {
  __shared__ volatile u32 place[264];
  for (u32 i = threadIdx_x; i < 264; i += blockDim_x) place[i] = i;
  sync();
  u32x4 value;
  u32 address = threadIdx_x % 4 * 16 + 4;
#if defined(RDNA)
  asm volatile("ds_load_b128 %0, %1\n s_nop 0" : "=v"(value) : "v"(address));
#else
  asm volatile("ds_read_b128 %0, %1\n s_nop 0" : "=v"(value) : "v"(address));
#endif
#if defined(__gfx1201__)
  asm volatile("s_wait_dscnt 0x0" : "+v"(value));
#else
  asm volatile("s_waitcnt lgkmcnt(0)" : "+v"(value));
#endif
  out[threadIdx_x] = value.x;
}

// A register that nobody wrote.
KERNEL unwritten_register(u32 *out) {
  u32 value;
#if defined(RDNA)
  asm volatile("v_add_nc_u32_e32 %0, v99, v99" : "=v"(value) : : "v99");
#else
  asm volatile("v_add_u32_e32 %0, v99, v99" : "=v"(value) : : "v99");
#endif
  out[threadIdx_x] = value;
}
