// Kernels that the benchmark times beside those of the tests.

#include "device.h"

#if CDNA
// C = A Bt for sizes that divide 128 and 32: 128 x 128 of C a workgroup of four waves, 64 x 64 a
// wave in four tiles of 32 x 32, so that each fragment from LDS is used twice.
KERNEL __launch_bounds__(256) gemm_large(const bf16 *a, const bf16 *b, float *c, u32 n, u32 k) {
  constexpr u32 STEP = 32, STRIDE = STEP + 4;
  static __shared__ __attribute__((aligned(16))) i16 tile_a[128 * STRIDE], tile_b[128 * STRIDE];
  u32 lane = lane_id(), wave = __builtin_amdgcn_readfirstlane(threadIdx_x / 64);
  u32 top = blockIdx_y * 128, left = blockIdx_x * 128, y = wave / 2 * 64, x = wave % 2 * 64;
  f32x16 sum[2][2] = {};
  for (u32 start = 0; start < k; start += STEP) {
    for (u32 chunk = threadIdx_x; chunk < 128 * STEP / 8; chunk += 256) {
      u32 row = chunk / (STEP / 8), at = chunk % (STEP / 8) * 8;
      i16x8 part_a = *(const i16x8 *)&a[(u64)(top + row) * k + start + at];
      i16x8 part_b = *(const i16x8 *)&b[(u64)(left + row) * k + start + at];
      *(i16x4 *)&tile_a[row * STRIDE + at] = part_a.lo;
      *(i16x4 *)&tile_a[row * STRIDE + at + 4] = part_a.hi;
      *(i16x4 *)&tile_b[row * STRIDE + at] = part_b.lo;
      *(i16x4 *)&tile_b[row * STRIDE + at + 4] = part_b.hi;
    }
    barrier();
#pragma unroll
    for (u32 inner = 0; inner < STEP; inner += 8) {
      i16x4 from_a[2], from_b[2];
#pragma unroll
      for (u32 i = 0; i < 2; i++) {
        u32 at = lane % 32 * STRIDE + inner + 4 * (lane / 32);
        from_a[i] = *(i16x4 *)&tile_a[(y + 32 * i) * STRIDE + at];
        from_b[i] = *(i16x4 *)&tile_b[(x + 32 * i) * STRIDE + at];
      }
#pragma unroll
      for (u32 i = 0; i < 4; i++)
        sum[i / 2][i % 2] = __builtin_amdgcn_mfma_f32_32x32x8bf16_1k(from_a[i / 2], from_b[i % 2], sum[i / 2][i % 2], 0, 0, 0);
    }
    barrier();
  }
  for (u32 i = 0; i < 4; i++)
    for (u32 r = 0; r < 16; r++) {
      u32 row = top + y + i / 2 * 32 + 8 * (r / 4) + 4 * (lane / 32) + r % 4;
      c[(u64)row * n + left + x + i % 2 * 32 + lane % 32] = sum[i / 2][i % 2][r];
    }
}
#endif
