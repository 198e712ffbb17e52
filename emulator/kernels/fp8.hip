// fp8 and bf8 where the chip has them: conversions both ways, plain, packed and stochastic, the
// scaled forms of gfx950, and a matrix-vector product over fp8 weights.

#include "device.h"

#if defined(__gfx942__) || defined(__gfx950__) || defined(__GFX12__)

static __device__ __inline__ u32 index() { return blockIdx_x * blockDim_x + threadIdx_x; }

// Every byte to f32; `words` holds four bytes each.
KERNEL from_fp8(const i32 *words, float *out, u32 count) {
  u32 i = index();
  if (i >= count) return;
  i32 word = words[i];
  float *mine = &out[12 * i];
  mine[0] = __builtin_amdgcn_cvt_f32_fp8(word, 0);
  mine[1] = __builtin_amdgcn_cvt_f32_fp8(word, 1);
  mine[2] = __builtin_amdgcn_cvt_f32_fp8(word, 2);
  mine[3] = __builtin_amdgcn_cvt_f32_fp8(word, 3);
  mine[4] = __builtin_amdgcn_cvt_f32_bf8(word, 0);
  mine[5] = __builtin_amdgcn_cvt_f32_bf8(word, 1);
  mine[6] = __builtin_amdgcn_cvt_f32_bf8(word, 2);
  mine[7] = __builtin_amdgcn_cvt_f32_bf8(word, 3);
  f32x2 low = __builtin_amdgcn_cvt_pk_f32_fp8(word, false), high = __builtin_amdgcn_cvt_pk_f32_bf8(word, true);
  mine[8] = low.x, mine[9] = low.y, mine[10] = high.x, mine[11] = high.y;
}

// Pairs of f32 to both halves of a word; the other half is kept.
KERNEL to_fp8(const float *x, const float *y, const u32 *seed, i32 *out, u32 count) {
  u32 i = index();
  if (i >= count) return;
  i32 word = __builtin_amdgcn_cvt_pk_fp8_f32(x[i], y[i], 0x11223344, false);
  out[4 * i] = __builtin_amdgcn_cvt_pk_fp8_f32(-y[i], x[i], word, true);
  out[4 * i + 1] = __builtin_amdgcn_cvt_pk_bf8_f32(x[i], y[i], 0x55667788, true);
  out[4 * i + 2] = __builtin_amdgcn_cvt_sr_fp8_f32(x[i], seed[i], 0, 2);
  out[4 * i + 3] = __builtin_amdgcn_cvt_sr_bf8_f32(x[i], seed[i], -1, 1);
}

// A wave per row over fp8 weights.
KERNEL __launch_bounds__(256) gemv_fp8(const i32 *w, const float *x, float *y, u32 rows, u32 columns) {
  u32 row = blockIdx_x * (blockDim_x / WAVE) + threadIdx_x / WAVE;
  if (row >= rows) return;
  w += (u64)row * columns / 4;
  float sum = 0;
  for (u32 i = lane_id(); i < columns / 4; i += WAVE) {
    f32x2 low = __builtin_amdgcn_cvt_pk_f32_fp8(w[i], false), high = __builtin_amdgcn_cvt_pk_f32_fp8(w[i], true);
    f32x4 inputs = *(const f32x4 *)&x[4 * i];
    sum += low.x * inputs.x + low.y * inputs.y + high.x * inputs.z + high.y * inputs.w;
  }
  sum = wave_sum(sum);
  if (lane_id() == 0) y[row] = sum;
}

#if defined(__gfx950__)
// Scaled conversions: fp8, and fp4 two to a byte.
KERNEL scaled(const i32 *words, const float *scale, float *out, u32 *packed, u32 count) {
  u32 i = index();
  if (i >= count) return;
  f32x2 a = __builtin_amdgcn_cvt_scalef32_pk_f32_fp8(words[i], scale[i], false);
  f32x2 b = __builtin_amdgcn_cvt_scalef32_pk_f32_fp4(words[i], scale[i], 1);
  out[4 * i] = a.x, out[4 * i + 1] = a.y, out[4 * i + 2] = b.x, out[4 * i + 3] = b.y;
  packed[i] = __builtin_amdgcn_cvt_scalef32_pk_fp4_f32(0, b.x, b.y, scale[i], 1);
}
#endif
#endif
