// Arithmetic whose expansion is long: division and square roots rounded correctly, remainders,
// 64-bit integers, double precision, transcendental functions, conversions.

#include "device.h"

static __device__ __inline__ u32 index() { return blockIdx_x * blockDim_x + threadIdx_x; }

// IEEE division and square root: correctly rounded, denormals kept.
KERNEL divide_f32(const float *a, const float *b, float *out, u32 count) {
  u32 i = index();
  if (i >= count) return;
  out[3 * i] = a[i] / b[i];
  out[3 * i + 1] = __builtin_sqrtf(a[i]);
  out[3 * i + 2] = 1.0f / b[i];
}
KERNEL divide_f64(const double *a, const double *b, double *out, u32 count) {
  u32 i = index();
  if (i >= count) return;
  out[4 * i] = a[i] / b[i];
  out[4 * i + 1] = __builtin_sqrt(a[i]);
  out[4 * i + 2] = 1.0 / b[i];
  out[4 * i + 3] = __builtin_fma(a[i], b[i], -a[i]);
}
KERNEL divide_f16(const f16 *a, const f16 *b, f16 *out, u32 count) {
  u32 i = index();
  if (i >= count) return;
  out[2 * i] = a[i] / b[i];
  out[2 * i + 1] = __builtin_elementwise_sqrt(a[i]);
}

// Integer division and remainder, 32 and 64 bits, signed and not.
KERNEL divide_integers(const i64 *a, const i64 *b, i64 *out, u32 count) {
  u32 i = index();
  if (i >= count) return;
  i64 x = a[i], y = b[i] ? b[i] : 3;
  i32 narrow = (i32)y ? (i32)y : 5;
  // The one quotient that overflows is left out.
  if (y == -1) y = -2;
  if (narrow == -1) narrow = -2;
  out[8 * i] = x / y;
  out[8 * i + 1] = x % y;
  out[8 * i + 2] = (u64)x / (u64)y;
  out[8 * i + 3] = (u64)x % (u64)y;
  out[8 * i + 4] = (i32)x / narrow;
  out[8 * i + 5] = (i32)x % narrow;
  out[8 * i + 6] = (u32)x / (u32)narrow;
  out[8 * i + 7] = (u32)x % (u32)narrow;
}

KERNEL integers_64(const u64 *a, const u64 *b, u64 *out, u32 count) {
  u32 i = index();
  if (i >= count) return;
  u64 x = a[i], y = b[i];
  u64 *mine = &out[12 * i];
  mine[0] = x + y;
  mine[1] = x - y;
  mine[2] = x * y;
  mine[3] = (u64)((unsigned __int128)x * y >> 64);
  mine[4] = (u64)((__int128)(i64)x * (i64)y >> 64);
  mine[5] = x << (y & 63);
  mine[6] = x >> (y & 63);
  mine[7] = (i64)x >> (y & 63);
  mine[8] = x < y ? x : y;
  mine[9] = (i64)x < (i64)y ? y : x;
  mine[10] = __builtin_bitreverse64(x) ^ __builtin_bswap64(y);
  mine[11] = (u64)(u32)x * (u32)y + y + ((x >> 32) * 5 ^ __builtin_popcountll(x));
}

// Exponentials and logarithms within a few units in the last place; v_sin and v_cos are coarse.
KERNEL transcendental(const float *x, float *out, u32 count) {
  u32 i = index();
  if (i >= count) return;
  float v = x[i], positive = __builtin_fabsf(v) + 0.001f;
  float *mine = &out[12 * i];
  mine[0] = __builtin_expf(v);
  mine[1] = __builtin_exp2f(v);
  mine[2] = __builtin_logf(positive);
  mine[3] = __builtin_log2f(positive);
  mine[4] = __builtin_log10f(positive);
  mine[5] = __builtin_sinf(v);
  mine[6] = __builtin_cosf(v);
  mine[7] = __builtin_amdgcn_rsqf(positive);
  mine[8] = __builtin_amdgcn_rcpf(positive);
  mine[9] = __builtin_elementwise_exp10(v);
  mine[10] = __builtin_amdgcn_exp2f(v);
  mine[11] = __builtin_amdgcn_sqrtf(positive);
}

// Exact functions of f32: rounding, parts, scaling, sorting networks.
KERNEL exact_f32(const float *a, const float *b, const float *c, float *out, i32 *integers, u32 count) {
  u32 i = index();
  if (i >= count) return;
  float x = a[i], y = b[i], z = c[i];
  float *mine = &out[18 * i];
  mine[0] = __builtin_floorf(x);
  mine[1] = __builtin_ceilf(x);
  mine[2] = __builtin_truncf(x);
  mine[3] = __builtin_rintf(x);
  mine[4] = __builtin_roundf(x);
  mine[5] = __builtin_fmaf(x, y, z);
  mine[6] = x * y + z;
  mine[7] = __builtin_fminf(x, y);
  mine[8] = __builtin_fmaxf(x, y);
  mine[9] = __builtin_amdgcn_fmed3f(x, y, z);
  mine[10] = __builtin_copysignf(x, y);
  mine[11] = __builtin_ldexpf(x, (i32)__builtin_fmaxf(-200, __builtin_fminf(200, z)));
  mine[12] = __builtin_amdgcn_frexp_mantf(x);
  mine[13] = __builtin_fminf(__builtin_fmaxf(x, 0.0f), 1.0f) * 2.0f;
  mine[14] = x > y ? -x : __builtin_fabsf(z);
  mine[15] = __builtin_fabsf(x) - __builtin_fabsf(y);
  mine[16] = __builtin_fmaxf(__builtin_fmaxf(x, y), z);
  mine[17] = __builtin_fminf(__builtin_fminf(x, y), -z);
  integers[4 * i] = __builtin_isnan(x) ? -1 : __builtin_isinf(x) ? -2 : __builtin_amdgcn_frexp_expf(x);
  integers[4 * i + 1] = (x < y) | (x <= y) << 1 | (x == y) << 2 | (x != y) << 3 | __builtin_isunordered(x, y) << 4 |
                        !(x > y) << 5 | !(x >= z) << 6;
  integers[4 * i + 2] = __builtin_amdgcn_classf(x, 0x3c8);
  integers[4 * i + 3] = __builtin_signbit(z);
}

KERNEL exact_f64(const double *a, const double *b, double *out, i32 *integers, u32 count) {
  u32 i = index();
  if (i >= count) return;
  double x = a[i], y = b[i];
  double *mine = &out[12 * i];
  mine[0] = __builtin_floor(x);
  mine[1] = __builtin_ceil(x);
  mine[2] = __builtin_trunc(x);
  mine[3] = __builtin_rint(x);
  mine[4] = x * y;
  mine[5] = x + y;
  mine[6] = __builtin_fmin(x, y);
  mine[7] = __builtin_fmax(x, y);
  mine[8] = __builtin_ldexp(x, (i32)(i % 64) - 32);
  mine[9] = __builtin_amdgcn_frexp_mant(x);
  mine[10] = x > y ? -x : __builtin_fabs(y);
  mine[11] = (double)(float)x;
  integers[2 * i] = __builtin_amdgcn_frexp_exp(x);
  integers[2 * i + 1] = (x < y) | (x == y) << 1 | __builtin_isunordered(x, y) << 2;
}

// Conversions among integers and floats, with saturation where C++ leaves it open.
KERNEL conversions(const float *x, const i64 *n, float *floats, i64 *integers, double *doubles, u16 *halves, u32 count) {
  u32 i = index();
  if (i >= count) return;
  float v = x[i], bounded = __builtin_fminf(__builtin_fmaxf(v, -1e9f), 1e9f);
  i64 k = n[i];
  floats[6 * i] = (float)(i32)k;
  floats[6 * i + 1] = (float)(u32)k;
  floats[6 * i + 2] = (float)k;
  floats[6 * i + 3] = (float)(u64)k;
  floats[6 * i + 4] = (float)(u8)(k >> 16);
  floats[6 * i + 5] = (float)(f16)v;
  integers[4 * i] = (i32)bounded;
  integers[4 * i + 1] = (i64)(bounded * 1e6f);
  integers[4 * i + 2] = (u64)(__builtin_fabsf(bounded) * 1e6f);
  integers[4 * i + 3] = (i64)((double)bounded * 1e3);
  doubles[4 * i] = (double)k;
  doubles[4 * i + 1] = (double)(u64)k;
  doubles[4 * i + 2] = (double)v;
  doubles[4 * i + 3] = (double)(i32)k * 0.5;
  halves[4 * i] = __builtin_bit_cast(u16, (f16)v);
  halves[4 * i + 1] = __builtin_bit_cast(u16, (bf16)v);
  halves[4 * i + 2] = __builtin_bit_cast(u16, (f16)(float)(i16)k);
  halves[4 * i + 3] = (u16)(i16)(f16)(__builtin_fminf(__builtin_fmaxf(v, -30000.0f), 30000.0f));
}
