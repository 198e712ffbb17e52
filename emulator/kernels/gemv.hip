// y = W x for one token: weights in bf16, int8 and int4, a wave (or a workgroup) per row.

#include "device.h"

// A wave per row, sixteen bytes of weights a lane and step.
KERNEL __launch_bounds__(256) gemv_bf16(const bf16 *w, const bf16 *x, float *y, u32 rows, u32 columns) {
  u32 row = blockIdx_x * (blockDim_x / WAVE) + threadIdx_x / WAVE;
  if (row >= rows) return;
  w += (u64)row * columns;
  float sum = 0;
  for (u32 i = lane_id() * 8; i < columns; i += WAVE * 8) {
    u32x4 weights = *(const u32x4 *)&w[i], inputs = *(const u32x4 *)&x[i];
#pragma unroll
    for (u32 j = 0; j < 4; j++) {
      sum += from_bits(weights[j] << 16) * from_bits(inputs[j] << 16);
      sum += from_bits(weights[j] & 0xffff0000) * from_bits(inputs[j] & 0xffff0000);
    }
  }
  sum = wave_sum(sum);
  if (lane_id() == 0) y[row] = sum;
}

// The same with the chip's dot product of two halves.
KERNEL __launch_bounds__(256) gemv_f16(const f16 *w, const f16 *x, float *y, u32 rows, u32 columns) {
  u32 row = blockIdx_x * (blockDim_x / WAVE) + threadIdx_x / WAVE;
  if (row >= rows) return;
  w += (u64)row * columns;
  float sum = 0;
  for (u32 i = lane_id() * 4; i < columns; i += WAVE * 4) {
    f16x4 weights = *(const f16x4 *)&w[i], inputs = *(const f16x4 *)&x[i];
    sum = __builtin_amdgcn_fdot2(weights.lo, inputs.lo, sum, false);
    sum = __builtin_amdgcn_fdot2(weights.hi, inputs.hi, sum, false);
  }
  sum = wave_sum(sum);
  if (lane_id() == 0) y[row] = sum;
}

#if defined(__gfx950__) || RDNA
// And of two bfloats.
KERNEL __launch_bounds__(256) gemv_bf16_dot(const bf16x2 *w, const bf16x2 *x, float *y, u32 rows, u32 columns) {
  u32 row = blockIdx_x * (blockDim_x / WAVE) + threadIdx_x / WAVE;
  if (row >= rows) return;
  w += (u64)row * columns / 2;
  float sum = 0;
  for (u32 i = lane_id(); i < columns / 2; i += WAVE) sum = __builtin_amdgcn_fdot2_f32_bf16(w[i], x[i], sum, false);
  sum = wave_sum(sum);
  if (lane_id() == 0) y[row] = sum;
}
#endif

static __device__ __inline__ i32 dot4(i32 a, i32 b, i32 c) {
#if CDNA
  return __builtin_amdgcn_sdot4(a, b, c, false);
#else
  return __builtin_amdgcn_sudot4(true, a, true, b, c, false);
#endif
}

// int8 weights with a scale per 32, int8 activations with a scale per 32.
KERNEL __launch_bounds__(256) gemv_i8(const i32 *w, const float *w_scale, const i32 *x, const float *x_scale, float *y,
                                      u32 rows, u32 columns) {
  u32 row = blockIdx_x * (blockDim_x / WAVE) + threadIdx_x / WAVE, blocks = columns / 32;
  if (row >= rows) return;
  float sum = 0;
  for (u32 block = lane_id(); block < blocks; block += WAVE) {
    i32 dot = 0;
#pragma unroll
    for (u32 j = 0; j < 8; j++) dot = dot4(w[((u64)row * blocks + block) * 8 + j], x[block * 8 + j], dot);
    sum += (float)dot * w_scale[row * blocks + block] * x_scale[block];
  }
  sum = wave_sum(sum);
  if (lane_id() == 0) y[row] = sum;
}

// int4 weights: per block of 32 a half scale, a half minimum and sixteen bytes whose low nibbles
// are the first sixteen weights; weight = scale * nibble + minimum.
struct Block4 {
  f16 scale, minimum;
  u32 nibbles[4];
};

KERNEL __launch_bounds__(256) gemv_i4(const Block4 *w, const i32 *x, const float *x_scale, float *y, u32 rows,
                                      u32 columns) {
  u32 row = blockIdx_x * (blockDim_x / WAVE) + threadIdx_x / WAVE, blocks = columns / 32;
  if (row >= rows) return;
  float sum = 0;
  for (u32 index = lane_id(); index < blocks; index += WAVE) {
    const Block4 *block = &w[(u64)row * blocks + index];
    i32 dot = 0, total = 0;
#pragma unroll
    for (u32 j = 0; j < 4; j++) {
      u32 packed = block->nibbles[j];
      i32 low = x[index * 8 + j], high = x[index * 8 + 4 + j];
      dot = dot4(packed & 0x0f0f0f0f, low, dot);
      dot = dot4(packed >> 4 & 0x0f0f0f0f, high, dot);
      total = dot4(0x01010101, low, dot4(0x01010101, high, total));
    }
    sum += x_scale[index] * ((float)block->scale * (float)dot + (float)block->minimum * (float)total);
  }
  sum = wave_sum(sum);
  if (lane_id() == 0) y[row] = sum;
}

// Eight nibbles at a time; unsigned and signed.
KERNEL dot8(const i32 *a, const i32 *b, i32 *out, u32 count) {
  u32 i = blockIdx_x * blockDim_x + threadIdx_x;
  if (i >= count) return;
#if CDNA
  out[2 * i] = __builtin_amdgcn_sdot8(a[i], b[i], i, false);
#else
  out[2 * i] = __builtin_amdgcn_sudot8(true, a[i], true, b[i], i, false);
#endif
  out[2 * i + 1] = __builtin_amdgcn_udot8(a[i], b[i], i, false);
}
