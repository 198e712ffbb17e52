// What ordinary C++ needs of the machine: calls, recursion, function pointers, private arrays,
// globals, bytes and shorts, grids in three dimensions, buffers.

#include "device.h"

// Fourth word of a buffer descriptor: untyped 32-bit elements, out of bounds by byte offset.
#if CDNA
#define BUFFER_FLAGS 0x00027000
#else
#define BUFFER_FLAGS 0x31027000
#endif

// Private memory ------------------------------------------------------------------------------

// Insertion sort in a dynamically indexed private array.
KERNEL sort_private(const i32 *x, i32 *out, u32 n) {
  i32 values[24];
  u32 i = blockIdx_x * blockDim_x + threadIdx_x;
  for (u32 j = 0; j < n; j++) values[j] = x[i * n + j];
  for (u32 j = 1; j < n; j++) {
    i32 value = values[j];
    u32 at = j;
    for (; at > 0 && values[at - 1] > value; at--) values[at] = values[at - 1];
    values[at] = value;
  }
  for (u32 j = 0; j < n; j++) out[i * n + j] = values[j];
}

struct Mixed {
  u8 byte;
  i16 word;
  double real;
  i32 quad[4];
  u64 wide;
};

// Private structures of every width, indexed by data.
KERNEL private_widths(const u32 *pick, double *out) {
  volatile Mixed items[6];
  u32 i = blockIdx_x * blockDim_x + threadIdx_x;
  for (u32 j = 0; j < 6; j++) {
    items[j].byte = i * 7 + j;
    items[j].word = -(i16)(i * 11 + j);
    items[j].real = (double)i * 0.5 + j;
    for (u32 q = 0; q < 4; q++) items[j].quad[q] = i + q * j;
    items[j].wide = (u64)i << 33 | j;
  }
  u32 chosen = pick[i] % 6;
  out[i] = items[chosen].byte + items[chosen].word + items[chosen].real + items[chosen].quad[pick[i] & 3] +
           (double)(items[chosen].wide >> 3);
}

// A generic pointer that is private, LDS or global by data: flat accesses through the apertures.
KERNEL __launch_bounds__(64) generic(u32 *global, const u32 *pick, u32 *out) {
  static __shared__ u32 local[64];
  u32 mine[4], i = threadIdx_x;
  for (u32 j = 0; j < 4; j++) mine[j] = 1000 + 10 * i + j;
  local[i] = 2000 + i;
  barrier();
  u32 *pointer = pick[i] % 3 == 0 ? &mine[pick[i] / 3 % 4] : pick[i] % 3 == 1 ? &local[i] : &global[i];
  asm volatile("" : "+v"(pointer));
  *pointer += 5;
  u32 kind = __builtin_amdgcn_is_private((void *)pointer) ? 1 : __builtin_amdgcn_is_shared((void *)pointer) ? 2 : 3;
  out[i] = *pointer + kind * 100000;
  out[64 + i] = mine[0] + mine[1] + mine[2] + mine[3];
}

// Calls -------------------------------------------------------------------------------------------

static __device__ __noinline__ float square_plus(float x, float y) { return x * x + y; }

static __device__ __noinline__ u64 fibonacci(u32 n) { return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2); }

static __device__ __noinline__ u32 is_odd(u32 n);
static __device__ __noinline__ u32 is_even(u32 n) { return n == 0 ? 1 : is_odd(n - 1); }
static __device__ __noinline__ u32 is_odd(u32 n) { return n == 0 ? 0 : is_even(n - 1); }

// Many arguments: the last ones go over the stack.
static __device__ __noinline__ double many(i32x16 a, i32x16 b, double c, i64 d, f16 e, i8 g) {
  double sum = c + (double)d + (double)e + g;
  for (u32 i = 0; i < 16; i++) sum += (double)a[i] * b[15 - i];
  return sum;
}

struct Result {
  float sum, product;
  i32 counts[12];
};

static __device__ __noinline__ Result by_value(Result r, float x) {
  r.sum += x;
  r.product *= x;
  r.counts[(u32)x % 12]++;
  return r;
}

static __device__ __noinline__ u32 ackermann(u32 m, u32 n) {
  while (m) {
    n = n == 0 ? 1 : ackermann(m, n - 1);
    m--;
  }
  return n + 1;
}

KERNEL calls(const float *x, float *out, u64 *numbers, double *sums) {
  u32 i = blockIdx_x * blockDim_x + threadIdx_x;
  out[2 * i] = square_plus(x[i], square_plus(x[i], 1.0f));
  numbers[3 * i] = fibonacci(i % 12);
  numbers[3 * i + 1] = is_even(i);
  numbers[3 * i + 2] = ackermann(2, i % 4);
  i32x16 a, b;
  for (u32 j = 0; j < 16; j++) a[j] = i + j, b[j] = 3 * i - j;
  sums[i] = many(a, b, 0.5, -(i64)i << 20, (f16)x[i], -3);
  Result result = {};
  result.product = 1;
  for (u32 j = 0; j < i % 5 + 1; j++) result = by_value(result, (float)(i + j));
  out[2 * i + 1] = result.sum + result.product + result.counts[i % 12];
}

typedef u32 (*Operation)(u32, u32);
static __device__ __noinline__ u32 add(u32 a, u32 b) { return a + b; }
static __device__ __noinline__ u32 subtract(u32 a, u32 b) { return a - b; }
static __device__ __noinline__ u32 multiply(u32 a, u32 b) { return a * b; }
static __device__ __noinline__ u32 divide(u32 a, u32 b) { return a / (b | 1); }
__device__ Operation operations[4] = {add, subtract, multiply, divide};

// Different lanes call different functions through a table in memory.
KERNEL pointers(const u32 *which, const u32 *a, const u32 *b, u32 *out) {
  u32 i = blockIdx_x * blockDim_x + threadIdx_x;
  out[i] = operations[which[i] % 4](a[i], b[i]);
}

struct Shape {
  u32 kind;
  __device__ virtual float area() const { return 0; }
};
struct Circle : Shape {
  float radius;
  __device__ float area() const override { return 3.0f * radius * radius; }
};
struct Box : Shape {
  float width, height;
  __device__ float area() const override { return width * height; }
};

KERNEL virtual_calls(const float *x, float *out) {
  u32 i = blockIdx_x * blockDim_x + threadIdx_x;
  Circle circle;
  Box box;
  circle.radius = x[i];
  box.width = x[i], box.height = 4;
  Shape *shape = x[i] > 0 ? (Shape *)&circle : (Shape *)&box;
  asm volatile("" : "+v"(shape));
  out[i] = shape->area();
}

// Globals and constants --------------------------------------------------------------------------

__device__ u32 counter = 17;
__device__ float table[8] = {1, 2.5f, -3, 4, 0.125f, 6, 7, 8};
__constant__ i16 steps[16] = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3};

KERNEL globals(const u32 *pick, float *out) {
  static const u8 letters[] = "the quick brown fox jumps over the lazy dog";
  u32 i = blockIdx_x * blockDim_x + threadIdx_x;
  out[i] = table[pick[i] % 8] * steps[pick[i] / 8 % 16] + letters[pick[i] % 43];
  __hip_atomic_fetch_add(&counter, 1, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_AGENT);
}

// Bytes and shorts -------------------------------------------------------------------------------

KERNEL narrow(const u8 *a, const i8 *b, const u16 *c, const i16 *d, u8 *out8, i16 *out16, i32 *out32) {
  static __shared__ u8 local8[64];
  static __shared__ i16 local16[64];
  u32 i = threadIdx_x;
  local8[i] = a[i] + 1;
  local16[63 - i] = d[i] - 1;
  barrier();
  out8[i] = local8[(i + 1) % 64] ^ b[i];
  out16[i] = local16[i] + c[i] * 3;
  out32[i] = (i8)local8[63 - i] * (i32)b[i] - (i32)c[i] * d[i] + (a[i] << 8 | (u8)b[i]);
}

// Unaligned halves and packed structures: byte addresses of every remainder.
struct __attribute__((packed)) Packed {
  u8 tag;
  u32 value;
  u16 extra;
  u64 wide;
};
KERNEL unaligned(const Packed *in, Packed *out) {
  u32 i = blockIdx_x * blockDim_x + threadIdx_x;
  Packed item = in[i];
  item.tag += 1;
  item.value = item.value * 3 + item.tag;
  item.extra ^= 0x5a5a;
  item.wide = item.wide >> 7 | item.wide << 57;
  out[i] = item;
}

// Sixteen-bit arithmetic on both halves of registers.
KERNEL shorts(const i16x2 *a, const i16x2 *b, i16x2 *out, u16x2 *unsigned_out, u32 count) {
  u32 i = blockIdx_x * blockDim_x + threadIdx_x;
  if (i >= count) return;
  i16x2 x = a[i], y = b[i];
  out[4 * i] = x * y + x;
  out[4 * i + 1] = __builtin_elementwise_max(x - y, x.yx);
  out[4 * i + 2] = __builtin_elementwise_add_sat(x, y);
  i16x2 shift = y & (i16)15;
  out[4 * i + 3] = x >> shift;
  u16x2 u = __builtin_bit_cast(u16x2, x), w = __builtin_bit_cast(u16x2, y);
  unsigned_out[2 * i] = __builtin_elementwise_min(u, w) << __builtin_bit_cast(u16x2, shift);
  unsigned_out[2 * i + 1] = __builtin_elementwise_sub_sat(u, w);
}

// Grids ------------------------------------------------------------------------------------------

// Transposes x and z of a volume; partial workgroups at every edge.
KERNEL volume(const u32 *in, u32 *out, u32 width, u32 height, u32 depth) {
  u32 x = blockIdx_x * blockDim_x + threadIdx_x, y = blockIdx_y * blockDim_y + threadIdx_y,
      z = blockIdx_z * blockDim_z + threadIdx_z;
  if (x >= width || y >= height || z >= depth) return;
  out[(x * height + y) * depth + z] = in[(z * height + y) * width + x] * 2 + 1;
}

// What a work-item knows of its place: ids, sizes, counts.
KERNEL places(u32 *out) {
  u32 x = blockIdx_x * blockDim_x + threadIdx_x, y = blockIdx_y * blockDim_y + threadIdx_y,
      z = blockIdx_z * blockDim_z + threadIdx_z;
  u32 at = (z * gridSize_y + y) * gridSize_x + x;
  u32 *mine = &out[at * 8];
  mine[0] = threadIdx_x | threadIdx_y << 10 | threadIdx_z << 20;
  mine[1] = blockIdx_x | blockIdx_y << 10 | blockIdx_z << 20;
  mine[2] = blockDim_x | blockDim_y << 10 | blockDim_z << 20;
  mine[3] = gridSize_x;
  mine[4] = gridSize_y;
  mine[5] = gridSize_z;
  mine[6] = gridDim_x;
  mine[7] = WAVE;
}

#if HIDDEN
// Hidden arguments of code object version 5: block counts, group sizes, remainders, dimensions.
KERNEL hidden_arguments(u32 *out) {
  if (threadIdx_x | threadIdx_y | threadIdx_z | blockIdx_x | blockIdx_y | blockIdx_z) return;
  for (u32 i = 0; i < 3; i++) out[i] = hidden<u32>(4 * i);
  for (u32 i = 0; i < 3; i++) out[3 + i] = hidden<u16>(12 + 2 * i);
  for (u32 i = 0; i < 3; i++) out[6 + i] = hidden<u16>(18 + 2 * i);
  for (u32 i = 0; i < 3; i++) out[9 + i] = (u32)hidden<u64>(40 + 8 * i);
  out[12] = hidden<u16>(64);
}
#endif

// Buffers ----------------------------------------------------------------------------------------

// Buffer loads beyond the size of the buffer give zero, stores there do nothing.
KERNEL buffers(u32 *in, u32 *out, u32 bytes) {
  auto source = __builtin_amdgcn_make_buffer_rsrc(in, 0, bytes, BUFFER_FLAGS);
  auto sink = __builtin_amdgcn_make_buffer_rsrc(out, 0, bytes, BUFFER_FLAGS);
  u32 i = blockIdx_x * blockDim_x + threadIdx_x;
  u32x4 four = __builtin_amdgcn_raw_buffer_load_b128(source, i * 16, 0, 0);
  u32x2 two = __builtin_amdgcn_raw_buffer_load_b64(source, i * 8, 16, 0);
  u32 one = __builtin_amdgcn_raw_buffer_load_b32(source, i * 4 + 4, 0, 0);
  u32 half = __builtin_amdgcn_raw_buffer_load_b16(source, i * 2, 2, 0);
  u32 byte = __builtin_amdgcn_raw_buffer_load_b8(source, i + 1, 0, 0);
  four.x += two.x + one;
  four.w += two.y ^ half << 8 ^ byte;
  __builtin_amdgcn_raw_buffer_store_b128(four, sink, i * 16, 0, 0);
}

// Half loads into either half of a register.
KERNEL halves(const f16 *a, const f16 *b, const u8 *c, f16x2 *out, u16 *mixed, u32 count) {
  u32 i = blockIdx_x * blockDim_x + threadIdx_x;
  if (i >= count) return;
  f16x2 pair = {a[i * 3], b[i * 2 + 1]};
  out[i] = pair * (f16)2.0f + pair.yx;
  u16x2 bytes = {(u16)c[i], (u16)(i16)(i8)c[i + count]};
  mixed[2 * i] = bytes.x * 3 + bytes.y;
  mixed[2 * i + 1] = bytes.y;
}
