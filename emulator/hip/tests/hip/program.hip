// An ordinary HIP C++ program: kernels are called with <<<>>>, variables of the device by name. It
// needs no header of HIP, so that it compiles everywhere.

typedef unsigned int u32;
typedef unsigned long size_t;
extern "C" int printf(const char *, ...);

struct dim3 {
  u32 x, y, z;
  constexpr dim3(u32 x = 1, u32 y = 1, u32 z = 1) : x(x), y(y), z(z) {}
};
typedef int hipError_t;
typedef void *hipStream_t;
extern "C" {
hipError_t __hipPushCallConfiguration(dim3, dim3, size_t = 0, hipStream_t = nullptr);
hipError_t hipLaunchKernel(const void *, dim3, dim3, void **, size_t, hipStream_t);
hipError_t hipMalloc(void **, size_t);
hipError_t hipFree(void *);
hipError_t hipMemcpy(void *, const void *, size_t, int);
hipError_t hipMemcpyToSymbol(const void *, const void *, size_t, size_t, int);
hipError_t hipMemcpyFromSymbol(void *, const void *, size_t, size_t, int);
hipError_t hipGetSymbolSize(size_t *, const void *);
hipError_t hipDeviceSynchronize();
hipError_t hipGetLastError();
hipError_t hipOccupancyMaxPotentialBlockSize(int *, int *, const void *, size_t, int);
const char *hipKernelNameRefByPtr(const void *, hipStream_t);
}

#define __global__ __attribute__((global))
#define __device__ __attribute__((device))
#define __constant__ __attribute__((constant))
#define __managed__ __attribute__((managed))

__constant__ u32 factors[4];
__device__ u32 total = 5;
__managed__ u32 shared_count = 100;

template <typename T>
__global__ void scale(T *p, T by, u32 n) {
  u32 i = __builtin_amdgcn_workgroup_id_x() * __builtin_amdgcn_workgroup_size_x() +
          __builtin_amdgcn_workitem_id_x();
  if (i < n) {
    p[i] = p[i] * by + factors[i % 4];
    __atomic_fetch_add(&total, 1, __ATOMIC_RELAXED);
    __atomic_fetch_add(&shared_count, 2, __ATOMIC_RELAXED);
  }
}

#define CHECK(what)                                          \
  do {                                                       \
    if (!(what)) {                                           \
      printf("line %d: %s does not hold\n", __LINE__, #what); \
      return 1;                                              \
    }                                                        \
  } while (0)

// Launches the kernel twice on memory that nobody wrote.
static int uninitialized(u32 n) {
  u32 *p = nullptr;
  CHECK(hipMalloc((void **)&p, n * sizeof(u32)) == 0);
  for (int i = 0; i < 2; ++i) scale<u32><<<dim3(1), dim3(64)>>>(p + 64 * i, 7, 64);
  CHECK(hipDeviceSynchronize() == 0);
  printf("launched\n");
  return 0;
}

int main(int argc, char **) {
  const u32 n = 1000;
  if (argc > 1) return uninitialized(n);
  static u32 values[n];
  for (u32 i = 0; i < n; ++i) values[i] = i;
  u32 host_factors[4] = {1, 2, 3, 4};
  size_t size = 0;
  CHECK(hipGetSymbolSize(&size, &factors) == 0 && size == sizeof(host_factors));
  CHECK(hipMemcpyToSymbol(&factors, host_factors, sizeof(host_factors), 0, 1) == 0);
  CHECK(hipMemcpyToSymbol(&factors, host_factors, sizeof(host_factors), 4, 1) != 0);
  CHECK(hipGetLastError() != 0);
  CHECK(hipGetLastError() == 0);
  u32 *p = nullptr;
  CHECK(hipMalloc((void **)&p, sizeof(values)) == 0);
  CHECK(hipMemcpy(p, values, sizeof(values), 1) == 0);
  shared_count += 1;
  scale<u32><<<dim3((n + 127) / 128), dim3(128)>>>(p, 7, n);
  CHECK(hipGetLastError() == 0);
  CHECK(hipDeviceSynchronize() == 0);
  CHECK(hipMemcpy(values, p, sizeof(values), 2) == 0);
  for (u32 i = 0; i < n; ++i) CHECK(values[i] == i * 7 + host_factors[i % 4]);
  u32 found = 0;
  CHECK(hipMemcpyFromSymbol(&found, &total, sizeof(found), 0, 2) == 0);
  CHECK(found == 5 + n);
  CHECK(shared_count == 101 + 2 * n);
  int grid = 0, block = 0;
  CHECK(hipOccupancyMaxPotentialBlockSize(&grid, &block, (const void *)scale<u32>, 0, 0) == 0);
  CHECK(grid > 0 && block > 0);
  CHECK(hipFree(p) == 0);
  printf("%s: good\n", hipKernelNameRefByPtr((const void *)scale<u32>, nullptr));
  return 0;
}
