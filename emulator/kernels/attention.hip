// Flash attention: softmax(Q Kt * scale) V with a running maximum and sum, the scores never in
// memory. Heads of 64 elements in bf16, keys in blocks of 32.

#include "device.h"

#define HEAD 64
#define BLOCK 32
#define LOG2E 1.4426950408889634f

// One workgroup of 128 work-items for 32 queries of one head. Scores and the output go through
// matrix instructions; probabilities pass through LDS to change from result to operand layout.

#if CDNA
#define TILE 16
#define INNER 16
typedef i16x4 Fragment;
typedef f32x4 Tile;
static __device__ __inline__ Tile multiply(Fragment a, Fragment b, Tile c) {
  return __builtin_amdgcn_mfma_f32_16x16x16bf16_1k(a, b, c, 0, 0, 0);
}
static __device__ __inline__ u32 start_k(u32 lane) { return 4 * (lane / 16); }
static __device__ __inline__ u32 row_of(u32 lane, u32 r) { return 4 * (lane / 16) + r; }
#elif defined(__GFX12__)
#define TILE 16
#define INNER 16
typedef i16x8 Fragment;
typedef f32x8 Tile;
static __device__ __inline__ Tile multiply(Fragment a, Fragment b, Tile c) {
  return __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32_gfx12(a, b, c);
}
static __device__ __inline__ u32 start_k(u32 lane) { return 8 * (lane / 16); }
static __device__ __inline__ u32 row_of(u32 lane, u32 r) { return 8 * (lane / 16) + r; }
#else
#define TILE 16
#define INNER 16
typedef i16x16 Fragment;
typedef vec<float, 256 / WAVE> Tile;
static __device__ __inline__ Tile multiply(Fragment a, Fragment b, Tile c) {
#if WAVE == 64
  return __builtin_amdgcn_wmma_f32_16x16x16_bf16_w64(a, b, c);
#else
  return __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32(a, b, c);
#endif
}
static __device__ __inline__ u32 start_k(u32) { return 0; }
static __device__ __inline__ u32 row_of(u32 lane, u32 r) { return WAVE / 16 * r + lane / 16; }
#endif

#define RESULTS (256 / WAVE)

static __device__ __inline__ Fragment fragment(const bf16 *tile, u32 stride, u32 lane) {
  Fragment out;
  __builtin_memcpy(&out, &tile[lane % 16 * stride + start_k(lane)], sizeof(out));
  return out;
}

KERNEL __launch_bounds__(128) attention(const bf16 *q, const bf16 *k, const bf16 *v, float *out, u32 queries,
                                        u32 keys, u32 causal, float scale) {
  constexpr u32 PAD = 8;
  static __shared__ __attribute__((aligned(16))) bf16 tile_q[32][HEAD + PAD], tile_k[BLOCK][HEAD + PAD],
      tile_v[HEAD][BLOCK + PAD], tile_p[32][BLOCK + PAD];
  static __shared__ float scores[32][BLOCK + 1], correction[32], total[32];
  u32 lane = lane_id(), wave = __builtin_amdgcn_readfirstlane(threadIdx_x / WAVE);
  constexpr u32 WAVES = 128 / WAVE;
  u32 head = blockIdx_y, first = blockIdx_x * 32;
  q += (u64)head * queries * HEAD;
  k += (u64)head * keys * HEAD;
  v += (u64)head * keys * HEAD;
  out += (u64)head * queries * HEAD;

  for (u32 i = threadIdx_x; i < 32 * HEAD; i += 128) {
    u32 row = i / HEAD;
    tile_q[row][i % HEAD] = first + row < queries ? q[(first + row) * HEAD + i % HEAD] : (bf16)0.0f;
  }
  // Four 16 x 16 tiles of scores and eight of output, dealt to the waves.
  Tile sum[8 / WAVES] = {};
  float best = -__builtin_inff(), weight = 0;

  for (u32 start = 0; start < keys; start += BLOCK) {
    barrier();
    for (u32 i = threadIdx_x; i < BLOCK * HEAD; i += 128) {
      u32 row = i / HEAD, column = i % HEAD;
      bool inside = start + row < keys;
      tile_k[row][column] = inside ? k[(start + row) * HEAD + column] : (bf16)0.0f;
      tile_v[column][row] = inside ? v[(start + row) * HEAD + column] : (bf16)0.0f;
    }
    barrier();
    for (u32 tile = wave; tile < 4; tile += WAVES) {
      u32 y = tile / 2 * 16, x = tile % 2 * 16;
      Tile score = 0;
#pragma unroll
      for (u32 inner = 0; inner < HEAD; inner += INNER)
        score = multiply(fragment(&tile_q[y][inner], HEAD + PAD, lane), fragment(&tile_k[x][inner], HEAD + PAD, lane),
                         score);
      for (u32 r = 0; r < RESULTS; r++) scores[y + row_of(lane, r)][x + lane % 16] = score[r] * scale;
    }
    barrier();
    // One work-item per query keeps the running maximum and sum.
    if (threadIdx_x < 32) {
      u32 row = threadIdx_x, limit = causal ? least(keys, first + row + keys - queries + 1) : keys;
      float higher = best;
      for (u32 i = 0; i < BLOCK; i++)
        if (start + i < limit) higher = __builtin_fmaxf(higher, scores[row][i]);
      float rescale = __builtin_exp2f((best - higher) * LOG2E);
      weight *= rescale;
      for (u32 i = 0; i < BLOCK; i++) {
        float p = start + i < limit ? __builtin_exp2f((scores[row][i] - higher) * LOG2E) : 0;
        tile_p[row][i] = (bf16)p;
        weight += p;
      }
      correction[row] = rescale;
      total[row] = weight;
      best = higher;
    }
    barrier();
#pragma unroll
    for (u32 i = 0; i < 8 / WAVES; i++) {
      u32 tile = i * WAVES + wave, y = tile / 4 * 16, x = tile % 4 * 16;
      for (u32 r = 0; r < RESULTS; r++) sum[i][r] *= correction[y + row_of(lane, r)];
      for (u32 inner = 0; inner < BLOCK; inner += INNER)
        sum[i] = multiply(fragment(&tile_p[y][inner], BLOCK + PAD, lane),
                          fragment(&tile_v[x][inner], BLOCK + PAD, lane), sum[i]);
    }
  }
#pragma unroll
  for (u32 i = 0; i < 8 / WAVES; i++) {
    u32 tile = i * WAVES + wave, y = tile / 4 * 16, x = tile % 4 * 16;
    for (u32 r = 0; r < RESULTS; r++) {
      u32 row = y + row_of(lane, r);
      if (first + row < queries) out[(first + row) * HEAD + x + lane % 16] = sum[i][r] / total[row];
    }
  }
}

// Decode: one query per head with grouped key heads, one wave per head. Each lane owns two (or
// one) elements of the head; the dot product is reduced across the wave.
KERNEL __launch_bounds__(WAVE) attention_decode(const bf16 *q, const bf16 *k, const bf16 *v, float *out, u32 keys,
                                                u32 group, float scale) {
  constexpr u32 EACH = HEAD / WAVE;
  u32 head = blockIdx_x, lane = lane_id();
  k += (u64)(head / group) * keys * HEAD;
  v += (u64)(head / group) * keys * HEAD;
  float query[EACH], sum[EACH] = {}, best = -__builtin_inff(), weight = 0;
  for (u32 i = 0; i < EACH; i++) query[i] = (float)q[head * HEAD + lane * EACH + i] * scale;
  for (u32 key = 0; key < keys; key++) {
    float dot = 0;
    for (u32 i = 0; i < EACH; i++) dot += query[i] * (float)k[key * HEAD + lane * EACH + i];
    dot = wave_sum(dot);
    float higher = __builtin_fmaxf(best, dot);
    float rescale = __builtin_exp2f((best - higher) * LOG2E), p = __builtin_exp2f((dot - higher) * LOG2E);
    weight = weight * rescale + p;
    for (u32 i = 0; i < EACH; i++) sum[i] = sum[i] * rescale + p * (float)v[key * HEAD + lane * EACH + i];
    best = higher;
  }
  for (u32 i = 0; i < EACH; i++) out[head * HEAD + lane * EACH + i] = sum[i] / weight;
}
