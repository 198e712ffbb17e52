// A program in C against the headers of HIP 5.2, linked with AMD's own library and run with the
// emulator's in its place. The argument is a code object with the kernels of kernels.hip.

#define __HIP_PLATFORM_AMD__
#include <hip/hip_runtime_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(what)                                            \
  do {                                                         \
    if (!(what)) {                                             \
      printf("line %d: %s does not hold\n", __LINE__, #what);  \
      exit(1);                                                 \
    }                                                          \
  } while (0)

#define GOOD(call)                                                                     \
  do {                                                                                 \
    hipError_t error = (call);                                                         \
    if (error != hipSuccess) {                                                         \
      printf("line %d: %s: %s\n", __LINE__, #call, hipGetErrorString(error));          \
      exit(1);                                                                         \
    }                                                                                  \
  } while (0)

enum { N = 1000 };

static void devices(void) {
  int count = 0, value = 0;
  hipDeviceProp_t properties;
  GOOD(hipInit(0));
  GOOD(hipGetDeviceCount(&count));
  CHECK(count == 2);
  GOOD(hipGetDeviceProperties(&properties, 1));
  CHECK(strcmp(properties.gcnArchName, "gfx942:sramecc+:xnack-") == 0);
  CHECK(strcmp(properties.name, "AMD Instinct MI300X") == 0);
  CHECK(properties.warpSize == 64 && properties.multiProcessorCount == 304);
  CHECK(properties.major == 9 && properties.minor == 4 && properties.gcnArch == 942);
  CHECK(properties.arch.hasDoubles && !properties.arch.hasDynamicParallelism);
  CHECK(properties.maxThreadsDim[2] == 1024 && properties.cooperativeLaunch == 1);
  CHECK(properties.concurrentManagedAccess == 1 && properties.pageableMemoryAccess == 0);
  GOOD(hipDeviceGetAttribute(&value, hipDeviceAttributeWarpSize, 0));
  CHECK(value == 64);
  GOOD(hipDeviceGetAttribute(&value, hipDeviceAttributeMultiprocessorCount, 0));
  CHECK(value == 304);
  GOOD(hipDeviceGetAttribute(&value, hipDeviceAttributeMaxSharedMemoryPerBlock, 0));
  CHECK(value == 65536);
  CHECK(hipSetDevice(2) == hipErrorInvalidDevice);
  CHECK(hipGetLastError() == hipErrorInvalidDevice && hipGetLastError() == hipSuccess);
  GOOD(hipRuntimeGetVersion(&value));
  CHECK(value == HIP_VERSION);
}

static void pointers(float *device, float *host) {
  hipPointerAttribute_t attributes;
  GOOD(hipPointerGetAttributes(&attributes, device + 1));
  CHECK(attributes.memoryType == hipMemoryTypeDevice && attributes.devicePointer == device + 1);
  GOOD(hipPointerGetAttributes(&attributes, host));
  CHECK(attributes.memoryType == hipMemoryTypeHost && attributes.hostPointer == host);
}

static void copies_3d(void) {
  hipPitchedPtr pitched;
  hipExtent extent = make_hipExtent(12, 3, 2);
  unsigned char in[72], out[72];
  for (int i = 0; i < 72; ++i) in[i] = (unsigned char)i;
  GOOD(hipMalloc3D(&pitched, extent));
  HIP_MEMCPY3D copy;
  memset(&copy, 0, sizeof copy);
  copy.srcMemoryType = hipMemoryTypeHost;
  copy.srcHost = in;
  copy.srcPitch = 12;
  copy.srcHeight = 3;
  copy.dstMemoryType = hipMemoryTypeDevice;
  copy.dstDevice = pitched.ptr;
  copy.dstPitch = (unsigned)pitched.pitch;
  copy.dstHeight = 3;
  copy.WidthInBytes = 12;
  copy.Height = 3;
  copy.Depth = 2;
  GOOD(hipDrvMemcpy3D(&copy));
  struct hipMemcpy3DParms back;
  memset(&back, 0, sizeof back);
  back.srcPtr = pitched;
  back.dstPtr = make_hipPitchedPtr(out, 12, 12, 3);
  back.extent = extent;
  back.kind = hipMemcpyDeviceToHost;
  GOOD(hipMemcpy3D(&back));
  CHECK(memcmp(in, out, 72) == 0);
  GOOD(hipFree(pitched.ptr));
}

static void graph(hipStream_t stream, hipFunction_t add, unsigned *device) {
  hipGraph_t graph;
  hipGraphExec_t exec;
  hipGraphNode_t fill, kernel;
  unsigned value = 5, n = 64, spins = 0, result[64];
  void *arguments[] = {&device, &value, &n, &spins};
  hipMemsetParams memset_params = {device, 4, 1, 0, 100, 64};
  hipKernelNodeParams kernel_params = {{64, 1, 1}, NULL, (void *)add, {1, 1, 1}, arguments, 0};
  hipGraphNodeType type;
  GOOD(hipGraphCreate(&graph, 0));
  GOOD(hipGraphAddMemsetNode(&fill, graph, NULL, 0, &memset_params));
  GOOD(hipGraphAddKernelNode(&kernel, graph, &fill, 1, &kernel_params));
  GOOD(hipGraphNodeGetType(kernel, &type));
  CHECK(type == hipGraphNodeTypeKernel);
  GOOD(hipGraphInstantiate(&exec, graph, NULL, NULL, 0));
  GOOD(hipGraphLaunch(exec, stream));
  GOOD(hipStreamSynchronize(stream));
  GOOD(hipMemcpy(result, device, sizeof result, hipMemcpyDeviceToHost));
  for (int i = 0; i < 64; ++i) CHECK(result[i] == 105);
  GOOD(hipGraphExecDestroy(exec));
  GOOD(hipGraphDestroy(graph));
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  devices();
  float *x, *y, *host;
  GOOD(hipMalloc((void **)&x, N * sizeof(float)));
  GOOD(hipMalloc((void **)&y, N * sizeof(float)));
  GOOD(hipHostMalloc((void **)&host, N * sizeof(float), hipHostMallocDefault));
  pointers(x, host);
  for (int i = 0; i < N; ++i) host[i] = (float)i;
  hipModule_t module;
  hipFunction_t saxpy, add;
  GOOD(hipModuleLoad(&module, argv[1]));
  GOOD(hipModuleGetFunction(&saxpy, module, "saxpy"));
  GOOD(hipModuleGetFunction(&add, module, "add"));
  CHECK(hipModuleGetFunction(&add, module, "no such kernel") == hipErrorNotFound);
  GOOD(hipModuleGetFunction(&add, module, "add"));

  hipStream_t stream;
  hipEvent_t start, stop;
  GOOD(hipStreamCreateWithFlags(&stream, hipStreamNonBlocking));
  GOOD(hipEventCreate(&start));
  GOOD(hipEventCreate(&stop));
  GOOD(hipMemcpyAsync(x, host, N * sizeof(float), hipMemcpyHostToDevice, stream));
  GOOD(hipMemsetAsync(y, 0, N * sizeof(float), stream));
  GOOD(hipEventRecord(start, stream));
  float a = 2.5f;
  unsigned n = N;
  void *params[] = {&a, &x, &y, &n};
  GOOD(hipModuleLaunchKernel(saxpy, (N + 255) / 256, 1, 1, 256, 1, 1, 0, stream, params, NULL));
  struct {
    float a;
    float *x, *y;
    unsigned n;
  } packed = {0.5f, x, y, N};
  size_t size = sizeof packed;
  void *extra[] = {HIP_LAUNCH_PARAM_BUFFER_POINTER, &packed, HIP_LAUNCH_PARAM_BUFFER_SIZE, &size,
                   HIP_LAUNCH_PARAM_END};
  GOOD(hipModuleLaunchKernel(saxpy, (N + 255) / 256, 1, 1, 256, 1, 1, 0, stream, NULL, extra));
  GOOD(hipEventRecord(stop, stream));
  GOOD(hipMemcpyAsync(host, y, N * sizeof(float), hipMemcpyDeviceToHost, stream));
  GOOD(hipStreamSynchronize(stream));
  for (int i = 0; i < N; ++i) CHECK(host[i] == 3.0f * (float)i);
  float milliseconds = -1;
  GOOD(hipEventElapsedTime(&milliseconds, start, stop));
  CHECK(milliseconds > 0);

  copies_3d();
  graph(stream, add, (unsigned *)x);
  CHECK(hipIpcCloseMemHandle(x) == hipErrorNotSupported);
  CHECK(hipFree(host) == hipErrorInvalidValue);
  GOOD(hipEventDestroy(start));
  GOOD(hipEventDestroy(stop));
  GOOD(hipStreamDestroy(stream));
  GOOD(hipModuleUnload(module));
  GOOD(hipHostFree(host));
  GOOD(hipFree(x));
  GOOD(hipFree(y));
  GOOD(hipDeviceReset());
  puts("good");
  return 0;
}
