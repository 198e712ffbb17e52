// Choosing a token: argmax, the k largest, and a draw from the softmax of them.

#include "device.h"

// One workgroup; the first of equal maxima wins.
KERNEL __launch_bounds__(1024) argmax(const float *logits, u32 *token, u32 count) {
  static __shared__ float best_of[32];
  static __shared__ u32 index_of[32];
  float best = -__builtin_inff();
  u32 index = ~0u;
  for (u32 i = threadIdx_x; i < count; i += blockDim_x)
    if (logits[i] > best) best = logits[i], index = i;
  for (u32 step = WAVE / 2; step; step /= 2) {
    float other = shuffle(best, lane_id() ^ step);
    u32 other_index = shuffle((i32)index, lane_id() ^ step);
    if (other > best || (other == best && other_index < index)) best = other, index = other_index;
  }
  u32 waves = (blockDim_x + WAVE - 1) / WAVE;
  if (lane_id() == 0) best_of[threadIdx_x / WAVE] = best, index_of[threadIdx_x / WAVE] = index;
  barrier();
  if (threadIdx_x == 0) {
    for (u32 wave = 1; wave < waves; wave++)
      if (best_of[wave] > best || (best_of[wave] == best && index_of[wave] < index))
        best = best_of[wave], index = index_of[wave];
    *token = index;
  }
}

// An order-preserving map of floats to unsigned integers.
static __device__ __inline__ u32 key_of(float x) {
  i32 b = bits(x);
  return b < 0 ? ~b : b | 0x80000000;
}

// The k largest, largest first and earlier index first among equals: a radix select over 8-bit
// digits with an LDS histogram finds the k-th key, then candidates are collected and sorted.
KERNEL __launch_bounds__(256) top_k(const float *logits, u32 count, u32 k, float *values, u32 *indices) {
  static __shared__ u32 histogram[256], prefix, wanted, taken;
  static __shared__ u64 candidates[512];
  if (threadIdx_x == 0) prefix = 0, wanted = k, taken = 0;
  for (i32 shift = 24; shift >= 0; shift -= 8) {
    histogram[threadIdx_x] = 0;
    barrier();
    u32 mask = shift == 24 ? 0 : ~0u << (shift + 8);
    for (u32 i = threadIdx_x; i < count; i += 256) {
      u32 key = key_of(logits[i]);
      if ((key & mask) == prefix)
        __hip_atomic_fetch_add(&histogram[key >> shift & 255], 1, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_WORKGROUP);
    }
    barrier();
    if (threadIdx_x == 0) {
      u32 digit = 255;
      while (digit > 0 && histogram[digit] < wanted) wanted -= histogram[digit--];
      prefix |= digit << shift;
    }
    barrier();
  }
  for (u32 i = threadIdx_x; i < count; i += 256) {
    u32 key = key_of(logits[i]);
    if (key >= prefix) {
      u32 slot = __hip_atomic_fetch_add(&taken, 1, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_WORKGROUP);
      if (slot < 512) candidates[slot] = (u64)key << 32 | (~i & 0xffffffff);
    }
  }
  barrier();
  u32 filled = least(taken, 512u);
  for (u32 i = threadIdx_x; i < 512; i += 256)
    if (i >= filled) candidates[i] = 0;
  // Bitonic, descending.
  for (u32 size = 2; size <= 512; size *= 2) {
    for (u32 step = size / 2; step; step /= 2) {
      barrier();
      u32 i = threadIdx_x / step * 2 * step + threadIdx_x % step, j = i + step;
      u64 a = candidates[i], b = candidates[j];
      if ((a < b) == ((i & size) == 0)) candidates[i] = b, candidates[j] = a;
    }
  }
  barrier();
  for (u32 i = threadIdx_x; i < k; i += 256) {
    u32 index = ~(u32)candidates[i];
    indices[i] = index;
    values[i] = logits[index];
  }
}

// A draw with a counter-based generator from the softmax of k sorted logits, cut at `top_p`.
KERNEL __launch_bounds__(WAVE) sample(const float *values, const u32 *indices, u32 k, float temperature, float top_p,
                                      u64 seed, u32 *token) {
  if (lane_id() != 0) return;
  float total = 0, best = values[0];
  for (u32 i = 0; i < k; i++) total += __builtin_expf((values[i] - best) / temperature);
  float kept = 0;
  u32 used = 0;
  while (used < k && kept < top_p * total) kept += __builtin_expf((values[used++] - best) / temperature);
  u64 z = seed + 0x9e3779b97f4a7c15;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
  z = (z ^ z >> 27) * 0x94d049bb133111eb;
  z ^= z >> 31;
  float target = (float)(u32)(z >> 40) * 0x1p-24f * kept;
  u32 chosen = 0;
  for (float sum = __builtin_expf((values[0] - best) / temperature); chosen + 1 < used && sum <= target;)
    sum += __builtin_expf((values[++chosen] - best) / temperature);
  *token = indices[chosen];
}

// Inclusive prefix sums of one workgroup's elements, through DPP-friendly shuffles and LDS.
KERNEL __launch_bounds__(1024) prefix_sum(const u32 *x, u32 *out, u32 count) {
  extern __shared__ u32 sums[];
  u32 i = threadIdx_x, value = i < count ? x[i] : 0;
  for (u32 step = 1; step < WAVE; step *= 2) {
    u32 other = shuffle((i32)value, lane_id() - step);
    if (lane_id() >= step) value += other;
  }
  if (lane_id() == WAVE - 1) sums[i / WAVE] = value;
  barrier();
  for (u32 wave = 0; wave < i / WAVE; wave++) value += sums[wave];
  if (i < count) out[i] = value;
}
