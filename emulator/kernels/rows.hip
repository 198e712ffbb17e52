// Kernels of one row per workgroup and of one element per work-item: norms, softmax, rope,
// activations.

#include "device.h"

KERNEL __launch_bounds__(256) rms_norm(const bf16 *x, const bf16 *weight, bf16 *out, u32 columns, float epsilon) {
  static __shared__ float space[32];
  x += (u64)blockIdx_x * columns;
  out += (u64)blockIdx_x * columns;
  float sum = 0;
  for (u32 i = threadIdx_x; i < columns; i += blockDim_x) sum += (float)x[i] * (float)x[i];
  float scale = 1.0f / __builtin_sqrtf(block_sum(sum, space) / (float)columns + epsilon);
  for (u32 i = threadIdx_x; i < columns; i += blockDim_x) out[i] = (bf16)((float)x[i] * scale * (float)weight[i]);
}

KERNEL __launch_bounds__(1024) layer_norm(const float *x, const float *weight, const float *bias, float *out,
                                          u32 columns, float epsilon) {
  static __shared__ float space[32];
  x += (u64)blockIdx_x * columns;
  out += (u64)blockIdx_x * columns;
  float sum = 0, squares = 0;
  for (u32 i = threadIdx_x; i < columns; i += blockDim_x) sum += x[i];
  float mean = block_sum(sum, space) / (float)columns;
  for (u32 i = threadIdx_x; i < columns; i += blockDim_x) squares += (x[i] - mean) * (x[i] - mean);
  float scale = __builtin_amdgcn_rsqf(block_sum(squares, space) / (float)columns + epsilon);
  for (u32 i = threadIdx_x; i < columns; i += blockDim_x) out[i] = (x[i] - mean) * scale * weight[i] + bias[i];
}

// The row is kept in LDS whose size the launch gives.
KERNEL __launch_bounds__(256) softmax(const f16 *x, f16 *out, u32 columns) {
  extern __shared__ float row[];
  static __shared__ float space[32];
  x += (u64)blockIdx_x * columns;
  out += (u64)blockIdx_x * columns;
  float best = -__builtin_inff(), sum = 0;
  for (u32 i = threadIdx_x; i < columns; i += blockDim_x) best = __builtin_fmaxf(best, row[i] = (float)x[i]);
  best = block_max(best, space);
  for (u32 i = threadIdx_x; i < columns; i += blockDim_x) sum += row[i] = __builtin_expf(row[i] - best);
  sum = block_sum(sum, space);
  for (u32 i = threadIdx_x; i < columns; i += blockDim_x) out[i] = (f16)(row[i] / sum);
}

// Rotates pairs (i, i + half) of every head in place. grid: x = heads, y = tokens.
KERNEL rope(f16 *x, const i32 *positions, u32 heads, u32 half, float base) {
  u32 head = blockIdx_x, token = blockIdx_y, i = threadIdx_x;
  if (i >= half) return;
  float frequency = __builtin_exp2f(-__builtin_log2f(base) * (float)i / (float)half);
  float angle = (float)positions[token] * frequency;
  float sine = __builtin_sinf(angle), cosine = __builtin_cosf(angle);
  f16 *row = &x[(u64)(token * heads + head) * half * 2];
  float a = (float)row[i], b = (float)row[i + half];
  row[i] = (f16)(a * cosine - b * sine);
  row[i + half] = (f16)(b * cosine + a * sine);
}

KERNEL silu_multiply(const bf16 *gate, const bf16 *up, bf16 *out, u32 count) {
  for (u32 i = blockIdx_x * blockDim_x + threadIdx_x; i < count; i += gridSize_x) {
    float g = (float)gate[i];
    out[i] = (bf16)(g / (1.0f + __builtin_expf(-g)) * (float)up[i]);
  }
}

// GELU in its tanh form, two packed halves at a time.
KERNEL gelu(const f16x2 *x, f16x2 *out, u32 pairs) {
  u32 i = blockIdx_x * blockDim_x + threadIdx_x;
  if (i >= pairs) return;
  f16x2 v = x[i], inner = (v + (f16)0.044715f * v * v * v) * (f16)0.7978845608f;
  f16x2 result;
  for (u32 j = 0; j < 2; j++) {
    float e = __builtin_expf(-2.0f * (float)inner[j]);
    result[j] = (f16)((float)v[j] * 0.5f * (1.0f + (1.0f - e) / (1.0f + e)));
  }
  out[i] = result;
}

// Packed and mixed half arithmetic: fused multiply-add, minimum, maximum, and a sum in f32.
KERNEL packed(const f16x2 *a, const f16x2 *b, f16x2 *out, float *sums, u32 pairs) {
  u32 i = blockIdx_x * blockDim_x + threadIdx_x;
  if (i >= pairs) return;
  f16x2 x = a[i], y = b[i];
  f16x2 sum = __builtin_elementwise_fma(x, y, -x) + __builtin_elementwise_max(x, y.yx) * __builtin_elementwise_min(-x, y);
  out[i] = sum;
  sums[i] = (float)x.x * (float)y.y + (float)x.y + __builtin_fmaf((float)y.x, (float)x.y, -(float)y.y);
}
