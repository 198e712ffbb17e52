// Kernels for the tests of the API: freestanding HIP C++, compiled for one device.

#define __global__ __attribute__((global))
#define __device__ __attribute__((device))
#define __constant__ __attribute__((constant))
#define __shared__ __attribute__((shared))

typedef unsigned int u32;

static __device__ u32 thread() {
  return __builtin_amdgcn_workgroup_id_x() * __builtin_amdgcn_workgroup_size_x() +
         __builtin_amdgcn_workitem_id_x();
}

__device__ u32 scale = 3;
__device__ u32 table[4] = {10, 20, 30, 40};

// y = a x + y
extern "C" __global__ void saxpy(float a, const float *x, float *y, u32 n) {
  u32 i = thread();
  if (i < n) y[i] = a * x[i] + y[i];
}

// Adds a value to n numbers, slowly if asked.
extern "C" __global__ void add(u32 *p, u32 value, u32 n, u32 spins) {
  for (u32 i = 0; i < spins; ++i) __builtin_amdgcn_s_sleep(1);
  u32 i = thread();
  if (i < n) p[i] += value;
}

// Multiplies by a variable of the device.
extern "C" __global__ void times_scale(u32 *p, u32 n) {
  u32 i = thread();
  if (i < n) p[i] *= scale;
}

// Numbers of bytes between arguments of several sizes must be right.
extern "C" __global__ void mixed(unsigned char a, unsigned short b, u32 c, unsigned long d,
                                 u32 *out) {
  out[0] = a;
  out[1] = b;
  out[2] = c;
  out[3] = (u32)d;
  out[4] = (u32)(d >> 32);
}

// Reverses the numbers of a workgroup through dynamic LDS.
extern "C" __global__ void reverse(u32 *p) {
  extern __shared__ u32 lds[];
  u32 i = __builtin_amdgcn_workitem_id_x(), n = __builtin_amdgcn_workgroup_size_x();
  u32 *mine = p + __builtin_amdgcn_workgroup_id_x() * n;
  lds[i] = mine[i];
  __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
  __builtin_amdgcn_s_barrier();
  __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");
  mine[i] = lds[n - 1 - i];
}

// Counts the work-items that ran.
extern "C" __global__ void count(u32 *p) { __atomic_fetch_add(p, 1, __ATOMIC_RELAXED); }

// Writes where nothing is.
extern "C" __global__ void wild(u32 *p) { *(volatile u32 *)((unsigned long)p + (1ul << 40)) = 1; }

// Never ends.
extern "C" __global__ void forever(u32 *p) {
  while (*(volatile u32 *)p == 0) {
  }
}

// Gives up.
extern "C" __global__ void trap(u32 *p) {
  if (*p == 0) __builtin_trap();
}

// At most 64 work-items.
extern "C" __global__ void __attribute__((amdgpu_flat_work_group_size(1, 64))) small(u32 *p) {
  p[__builtin_amdgcn_workitem_id_x()] = 7;
}
