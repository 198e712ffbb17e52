// What a kernel needs of HIP, without HIP's headers or device libraries: names for the compiler's
// own attributes and builtins. Compiled with `-x hip -nogpuinc -nogpulib`; the wave width comes in
// as -DWAVE=32 or -DWAVE=64.

#pragma once

#define __global__ __attribute__((global))
#define __device__ __attribute__((device))
#define __constant__ __attribute__((constant))
#define __shared__ __attribute__((shared))
#define __noinline__ __attribute__((noinline))
#define __inline__ inline __attribute__((always_inline))
#define __launch_bounds__(threads) __attribute__((amdgpu_flat_work_group_size(1, threads)))
#define KERNEL extern "C" __global__ void

#if defined(__gfx90a__) || defined(__gfx942__) || defined(__gfx950__)
#define CDNA 1
#else
#define RDNA 1
#endif

typedef signed char i8;
typedef unsigned char u8;
typedef short i16;
typedef unsigned short u16;
typedef int i32;
typedef unsigned int u32;
typedef long i64;
typedef unsigned long u64;
typedef _Float16 f16;
typedef __bf16 bf16;

template <typename T, int N> using vec = T __attribute__((ext_vector_type(N)));

typedef vec<f16, 2> f16x2;
typedef vec<f16, 4> f16x4;
typedef vec<f16, 8> f16x8;
typedef vec<f16, 16> f16x16;
typedef vec<bf16, 2> bf16x2;
typedef vec<bf16, 8> bf16x8;
typedef vec<i16, 2> i16x2;
typedef vec<i16, 4> i16x4;
typedef vec<i16, 8> i16x8;
typedef vec<i16, 16> i16x16;
typedef vec<u16, 2> u16x2;
typedef vec<i32, 2> i32x2;
typedef vec<i32, 4> i32x4;
typedef vec<i32, 8> i32x8;
typedef vec<i32, 16> i32x16;
typedef vec<u32, 2> u32x2;
typedef vec<u32, 4> u32x4;
typedef vec<float, 2> f32x2;
typedef vec<float, 4> f32x4;
typedef vec<float, 8> f32x8;
typedef vec<float, 16> f32x16;
typedef vec<double, 4> f64x4;

#define threadIdx_x __builtin_amdgcn_workitem_id_x()
#define threadIdx_y __builtin_amdgcn_workitem_id_y()
#define threadIdx_z __builtin_amdgcn_workitem_id_z()
#define blockIdx_x __builtin_amdgcn_workgroup_id_x()
#define blockIdx_y __builtin_amdgcn_workgroup_id_y()
#define blockIdx_z __builtin_amdgcn_workgroup_id_z()
#define blockDim_x ((u32)__builtin_amdgcn_workgroup_size_x())
#define blockDim_y ((u32)__builtin_amdgcn_workgroup_size_y())
#define blockDim_z ((u32)__builtin_amdgcn_workgroup_size_z())
// Work-items of the grid, from the dispatch packet.
#define gridSize_x ((u32)__builtin_amdgcn_grid_size_x())
#define gridSize_y ((u32)__builtin_amdgcn_grid_size_y())
#define gridSize_z ((u32)__builtin_amdgcn_grid_size_z())
// Workgroups of the grid; the last one in each direction may be partial.
#define gridDim_x ((gridSize_x + blockDim_x - 1) / blockDim_x)

typedef const __attribute__((address_space(4))) u8 *implicit_ptr;

// A field of the hidden arguments of code object version 5 and later, by its offset.
template <typename T> static __device__ __inline__ T hidden(u32 offset) {
  return *(const __attribute__((address_space(4))) T *)((implicit_ptr)__builtin_amdgcn_implicitarg_ptr() + offset);
}

static __device__ __inline__ void barrier() {
  __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
  __builtin_amdgcn_s_barrier();
  __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");
}

static __device__ __inline__ u32 lane_id() {
  u32 low = __builtin_amdgcn_mbcnt_lo(~0u, 0);
#if WAVE == 64
  low = __builtin_amdgcn_mbcnt_hi(~0u, low);
#endif
  return low;
}

static __device__ __inline__ u64 ballot(bool vote) {
#if WAVE == 64
  return __builtin_amdgcn_ballot_w64(vote);
#else
  return __builtin_amdgcn_ballot_w32(vote);
#endif
}

static __device__ __inline__ i32 bits(float x) { return __builtin_bit_cast(i32, x); }
static __device__ __inline__ float from_bits(i32 x) { return __builtin_bit_cast(float, x); }

// The value of another lane. In 64-lane waves of RDNA 3 the permute stays within 32 lanes.
static __device__ __inline__ i32 shuffle(i32 value, u32 lane) {
  i32 near = __builtin_amdgcn_ds_bpermute(lane << 2, value);
#if WAVE == 64 && defined(__GFX11__)
  i32 far = __builtin_amdgcn_ds_bpermute(lane << 2, __builtin_amdgcn_permlane64(value));
  return (lane ^ lane_id()) & 32 ? far : near;
#else
  return near;
#endif
}
static __device__ __inline__ float shuffle(float value, u32 lane) {
  return from_bits(shuffle(bits(value), lane));
}

// All lanes get the sum (or maximum) over the wave; lanes add in a fixed tree.
static __device__ __inline__ float wave_sum(float x) {
  for (u32 step = WAVE / 2; step; step /= 2) x += shuffle(x, lane_id() ^ step);
  return x;
}
static __device__ __inline__ float wave_max(float x) {
  for (u32 step = WAVE / 2; step; step /= 2) x = __builtin_fmaxf(x, shuffle(x, lane_id() ^ step));
  return x;
}

// The same over a workgroup of at most 1024 work-items in x; `space` holds one value per wave.
static __device__ __inline__ float block_sum(float x, float *space) {
  x = wave_sum(x);
  u32 waves = (blockDim_x + WAVE - 1) / WAVE;
  if (lane_id() == 0) space[threadIdx_x / WAVE] = x;
  barrier();
  float total = 0;
  for (u32 wave = 0; wave < waves; wave++) total += space[wave];
  barrier();
  return total;
}
static __device__ __inline__ float block_max(float x, float *space) {
  x = wave_max(x);
  u32 waves = (blockDim_x + WAVE - 1) / WAVE;
  if (lane_id() == 0) space[threadIdx_x / WAVE] = x;
  barrier();
  float best = space[0];
  for (u32 wave = 1; wave < waves; wave++) best = __builtin_fmaxf(best, space[wave]);
  barrier();
  return best;
}

template <typename T> static __device__ __inline__ T least(T a, T b) { return a < b ? a : b; }
template <typename T> static __device__ __inline__ T most(T a, T b) { return a < b ? b : a; }
