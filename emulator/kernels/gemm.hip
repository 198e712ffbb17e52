// C = A Bt with matrix instructions: A is m x k, B is n x k, both row-major, C is m x n.
// A workgroup makes 64 x 64 of C from tiles of K that go through LDS; edges are padded with zeros.

#include "device.h"

// Each traits class describes one matrix instruction: the tile it makes, how a lane's operand
// fragment is gathered from LDS and where the elements of a lane's accumulator belong.

#if CDNA
// CDNA: lane l holds row l % SIZE and elements [PER * (l / SIZE), +PER) of k; the accumulator of a
// 32 x 32 tile is in groups of four rows, eight apart, shifted by four in the upper half wave.
static __device__ __inline__ u32 row_32(u32 lane, u32 r) { return 8 * (r / 4) + 4 * (lane / 32) + r % 4; }
static __device__ __inline__ u32 row_16(u32 lane, u32 r) { return 4 * (lane / 16) + r; }

template <typename T, typename FRAGMENT, u32 SIZE, u32 PER> struct Cdna {
  static constexpr u32 M = SIZE, K = PER * (64 / SIZE);
  typedef FRAGMENT Operand;
  static __device__ __inline__ Operand load(const T *tile, u32 stride, u32 lane) {
    Operand out;
    __builtin_memcpy(&out, &tile[(lane % SIZE) * stride + PER * (lane / SIZE)], sizeof(Operand));
    return out;
  }
  static __device__ __inline__ u32 row(u32 lane, u32 r) { return SIZE == 32 ? row_32(lane, r) : row_16(lane, r); }
  static __device__ __inline__ u32 column(u32 lane) { return lane % SIZE; }
};

struct Bf16 : Cdna<bf16, i16x4, 32, 4> {
  typedef bf16 Element;
  typedef f32x16 Result;
  static __device__ __inline__ Result multiply(Operand a, Operand b, Result c) {
    return __builtin_amdgcn_mfma_f32_32x32x8bf16_1k(a, b, c, 0, 0, 0);
  }
};
struct Bf16Small : Cdna<bf16, i16x4, 16, 4> {
  typedef bf16 Element;
  typedef f32x4 Result;
  static __device__ __inline__ Result multiply(Operand a, Operand b, Result c) {
    return __builtin_amdgcn_mfma_f32_16x16x16bf16_1k(a, b, c, 0, 0, 0);
  }
};
struct F16 : Cdna<f16, f16x4, 16, 4> {
  typedef f16 Element;
  typedef f32x4 Result;
  static __device__ __inline__ Result multiply(Operand a, Operand b, Result c) {
    return __builtin_amdgcn_mfma_f32_16x16x16f16(a, b, c, 0, 0, 0);
  }
};
struct F32 : Cdna<float, float, 32, 1> {
  typedef float Element;
  typedef f32x16 Result;
  static __device__ __inline__ Result multiply(Operand a, Operand b, Result c) {
    return __builtin_amdgcn_mfma_f32_32x32x2f32(a, b, c, 0, 0, 0);
  }
};
struct F64 : Cdna<double, double, 16, 1> {
  typedef double Element;
  typedef f64x4 Result;
  // Rows of f64 results are interleaved instead of grouped.
  static __device__ __inline__ u32 row(u32 lane, u32 r) { return 4 * r + lane / 16; }
  static __device__ __inline__ Result multiply(Operand a, Operand b, Result c) {
    return __builtin_amdgcn_mfma_f64_16x16x4f64(a, b, c, 0, 0, 0);
  }
};
#if defined(__gfx90a__)
struct I8 : Cdna<i8, i32, 32, 4> {
  typedef i8 Element;
  typedef i32x16 Result;
  static __device__ __inline__ Result multiply(Operand a, Operand b, Result c) {
    return __builtin_amdgcn_mfma_i32_32x32x8i8(a, b, c, 0, 0, 0);
  }
};
#else
struct I8 : Cdna<i8, i64, 16, 8> {
  typedef i8 Element;
  typedef i32x4 Result;
  static __device__ __inline__ Result multiply(Operand a, Operand b, Result c) {
    return __builtin_amdgcn_mfma_i32_16x16x32_i8(a, b, c, 0, 0, 0);
  }
};
struct Fp8 : Cdna<u8, i64, 32, 8> {
  typedef u8 Element;
  typedef f32x16 Result;
  static __device__ __inline__ Result multiply(Operand a, Operand b, Result c) {
    return __builtin_amdgcn_mfma_f32_32x32x16_fp8_bf8(a, b, c, 0, 0, 0);
  }
};
#endif
#if defined(__gfx950__)
struct Bf16Wide : Cdna<bf16, bf16x8, 32, 8> {
  typedef bf16 Element;
  typedef f32x16 Result;
  static __device__ __inline__ Result multiply(Operand a, Operand b, Result c) {
    return __builtin_amdgcn_mfma_f32_32x32x16_bf16(a, b, c, 0, 0, 0);
  }
};
struct Fp8Scaled : Cdna<u8, i32x8, 16, 32> {
  typedef u8 Element;
  typedef f32x4 Result;
  // Scales 2^-1 for A and 2^2 for B, the same for every block.
  static __device__ __inline__ Result multiply(Operand a, Operand b, Result c) {
    return __builtin_amdgcn_mfma_scale_f32_16x16x128_f8f6f4(a, b, c, 0, 1, 0, 126, 0, 129);
  }
};
#endif
#else

#if defined(__GFX12__)
// RDNA 4: the lanes of a tile share its K; sixteen lanes hold one half each (a quarter in wave64).
#if WAVE == 64
#error "the kernels use matrix instructions of RDNA 4 in 32-lane waves only"
#endif
template <typename T, typename FRAGMENT> struct Rdna {
  static constexpr u32 M = 16, K = 16;
  typedef FRAGMENT Operand;
  static __device__ __inline__ Operand load(const T *tile, u32 stride, u32 lane) {
    Operand out;
    __builtin_memcpy(&out, &tile[(lane % 16) * stride + 8 * (lane / 16)], sizeof(Operand));
    return out;
  }
  static __device__ __inline__ u32 row(u32 lane, u32 r) { return 8 * (lane / 16) + r; }
  static __device__ __inline__ u32 column(u32 lane) { return lane % 16; }
};
#define WMMA(name) __builtin_amdgcn_wmma_##name##_w32_gfx12
typedef Rdna<bf16, i16x8> RdnaBf16;
typedef Rdna<f16, f16x8> RdnaF16;
typedef Rdna<i8, i32x2> RdnaI8;
#define ACCUMULATORS 8
#else
// RDNA 3: every lane holds a whole row of K, twice; rows of the result alternate between halves.
template <typename T, typename FRAGMENT> struct Rdna {
  static constexpr u32 M = 16, K = 16;
  typedef FRAGMENT Operand;
  static __device__ __inline__ Operand load(const T *tile, u32 stride, u32 lane) {
    Operand out;
    __builtin_memcpy(&out, &tile[(lane % 16) * stride], sizeof(Operand));
    return out;
  }
  static __device__ __inline__ u32 row(u32 lane, u32 r) { return WAVE / 16 * r + lane / 16; }
  static __device__ __inline__ u32 column(u32 lane) { return lane % 16; }
};
#if WAVE == 64
#define WMMA(name) __builtin_amdgcn_wmma_##name##_w64
#define ACCUMULATORS 4
#else
#define WMMA(name) __builtin_amdgcn_wmma_##name##_w32
#define ACCUMULATORS 8
#endif
typedef Rdna<bf16, i16x16> RdnaBf16;
typedef Rdna<f16, f16x16> RdnaF16;
typedef Rdna<i8, i32x4> RdnaI8;
#endif

struct Bf16 : RdnaBf16 {
  typedef bf16 Element;
  typedef vec<float, ACCUMULATORS> Result;
  static __device__ __inline__ Result multiply(Operand a, Operand b, Result c) {
    return WMMA(f32_16x16x16_bf16)(a, b, c);
  }
};
struct F16 : RdnaF16 {
  typedef f16 Element;
  typedef vec<float, ACCUMULATORS> Result;
  static __device__ __inline__ Result multiply(Operand a, Operand b, Result c) {
    return WMMA(f32_16x16x16_f16)(a, b, c);
  }
};
struct I8 : RdnaI8 {
  typedef i8 Element;
  typedef vec<i32, ACCUMULATORS> Result;
  static __device__ __inline__ Result multiply(Operand a, Operand b, Result c) {
    return WMMA(i32_16x16x16_iu8)(true, a, true, b, c, false);
  }
};
#if defined(__GFX12__)
struct Fp8 : Rdna<u8, i32x2> {
  typedef u8 Element;
  typedef f32x8 Result;
  static __device__ __inline__ Result multiply(Operand a, Operand b, Result c) {
    return __builtin_amdgcn_wmma_f32_16x16x16_fp8_bf8_w32_gfx12(a, b, c);
  }
};
#endif
#endif

// Eight bytes of a row at a time into LDS, zeros beyond the matrix.
template <typename T, u32 TILE_K>
static __device__ __inline__ void stage(T *tile, u32 stride, const T *matrix, u32 first, u32 rows,
                                        u32 start, u32 k) {
  constexpr u32 EACH = 8 / sizeof(T), CHUNKS = TILE_K / EACH;
  for (u32 chunk = threadIdx_x; chunk < 64 * CHUNKS; chunk += blockDim_x) {
    u32 row = chunk / CHUNKS, at = chunk % CHUNKS * EACH;
    const T *from = &matrix[(u64)(first + row) * k + start + at];
    vec<T, EACH> part = 0;
    if (first + row < rows) {
      if (start + at + EACH <= k && (u64)from % 8 == 0) {
        part = *(const vec<T, EACH> *)from;
      } else {
        for (u32 i = 0; i < EACH; i++)
          if (start + at + i < k) part[i] = from[i];
      }
    }
    *(vec<T, EACH> *)&tile[row * stride + at] = part;
  }
}

template <typename M, typename RESULT>
static __device__ __inline__ void gemm(const typename M::Element *a, const typename M::Element *b, RESULT *c, u32 m,
                                       u32 n, u32 k) {
  typedef typename M::Element T;
  // Rows are padded by eight bytes against bank conflicts.
  constexpr u32 TILE_K = M::K > 32 ? M::K : 32, STRIDE = TILE_K + 8 / sizeof(T), TILES = 64 / M::M;
  static __shared__ __attribute__((aligned(16))) T tile_a[64 * STRIDE], tile_b[64 * STRIDE];
  constexpr u32 WAVES = 256 / WAVE, PER_WAVE = TILES * TILES / WAVES;
  u32 lane = lane_id(), wave = __builtin_amdgcn_readfirstlane(threadIdx_x / WAVE);
  u32 top = blockIdx_y * 64, left = blockIdx_x * 64;
  typename M::Result sum[PER_WAVE] = {};
  for (u32 start = 0; start < k; start += TILE_K) {
    stage<T, TILE_K>(tile_a, STRIDE, a, top, m, start, k);
    stage<T, TILE_K>(tile_b, STRIDE, b, left, n, start, k);
    barrier();
    for (u32 inner = 0; inner < TILE_K; inner += M::K) {
#pragma unroll
      for (u32 i = 0; i < PER_WAVE; i++) {
        u32 tile = wave * PER_WAVE + i, y = tile / TILES * M::M, x = tile % TILES * M::M;
        auto left_operand = M::load(&tile_a[y * STRIDE + inner], STRIDE, lane);
        auto right_operand = M::load(&tile_b[x * STRIDE + inner], STRIDE, lane);
        sum[i] = M::multiply(left_operand, right_operand, sum[i]);
      }
    }
    barrier();
  }
#pragma unroll
  for (u32 i = 0; i < PER_WAVE; i++) {
    u32 tile = wave * PER_WAVE + i;
    u32 column = left + tile % TILES * M::M + M::column(lane);
    for (u32 r = 0; r < sizeof(sum[i]) / sizeof(sum[i][0]); r++) {
      u32 row = top + tile / TILES * M::M + M::row(lane, r);
      if (row < m && column < n) c[(u64)row * n + column] = sum[i][r];
    }
  }
}

#define GEMM(name, traits, element, result)                                                                    \
  KERNEL __launch_bounds__(256) name(const element *a, const element *b, result *c, u32 m, u32 n, u32 k) {    \
    gemm<traits>(a, b, c, m, n, k);                                                                             \
  }

GEMM(gemm_bf16, Bf16, bf16, float)
GEMM(gemm_f16, F16, f16, float)
GEMM(gemm_i8, I8, i8, i32)
#if CDNA
GEMM(gemm_bf16_small, Bf16Small, bf16, float)
GEMM(gemm_f32, F32, float, float)
GEMM(gemm_f64, F64, double, double)
#endif
#if defined(__gfx942__) || defined(__gfx950__) || defined(__GFX12__)
GEMM(gemm_fp8, Fp8, u8, float)
#endif
#if defined(__gfx950__)
GEMM(gemm_bf16_wide, Bf16Wide, bf16, float)
GEMM(gemm_fp8_scaled, Fp8Scaled, u8, float)
#endif

#if CDNA
// Tiles of A go from global memory to LDS without passing registers: 4 bytes a lane, consecutive
// in LDS. C = A Bt with one 32 x 32 tile a wave, k a multiple of 8.
KERNEL __launch_bounds__(64) gemm_direct(const bf16 *a, const bf16 *b, float *c, u32 n, u32 k) {
  static __shared__ __attribute__((aligned(16))) bf16 tile[2][32 * 8];
  u32 lane = lane_id(), top = blockIdx_y * 32, left = blockIdx_x * 32;
  f32x16 sum = 0;
  for (u32 start = 0; start < k; start += 8) {
    for (u32 part = 0; part < 2; part++) {
      // Lane l brings elements 2l and 2l + 1 of sixteen rows of eight.
      u32 row = 16 * part + lane / 4, at = start + lane % 4 * 2;
      __builtin_amdgcn_global_load_lds(
          (__attribute__((address_space(1))) void *)&a[(u64)(top + row) * k + at],
          (__attribute__((address_space(3))) void *)&tile[0][128 * part], 4, 0, 0);
      __builtin_amdgcn_global_load_lds(
          (__attribute__((address_space(1))) void *)&b[(u64)(left + row) * k + at],
          (__attribute__((address_space(3))) void *)&tile[1][128 * part], 4, 0, 0);
    }
    __builtin_amdgcn_s_waitcnt(0);
    barrier();
    sum = Bf16::multiply(Bf16::load(tile[0], 8, lane), Bf16::load(tile[1], 8, lane), sum);
    barrier();
  }
  for (u32 r = 0; r < 16; r++) c[(u64)(top + Bf16::row(lane, r)) * n + left + Bf16::column(lane)] = sum[r];
}
#endif

#if defined(__gfx950__)
// C = A B with B stored k x n: the transposing LDS read turns its tile. One wave, 16 x 16 of C.
KERNEL __launch_bounds__(64) gemm_transposed(const bf16 *a, const bf16 *b, float *c, u32 n, u32 k) {
  static __shared__ __attribute__((aligned(16))) i16 tile[32 * 16];
  u32 lane = lane_id(), top = blockIdx_y * 16, left = blockIdx_x * 16;
  f32x4 sum = 0;
  for (u32 start = 0; start < k; start += 32) {
    for (u32 at = lane; at < 512; at += 64)
      tile[at] = ((const i16 *)b)[(u64)(start + at / 16) * n + left + at % 16];
    barrier();
    bf16x8 rows;
    __builtin_memcpy(&rows, &a[(u64)(top + lane % 16) * k + start + 8 * (lane / 16)], 16);
    // Sixteen lanes read a block of 4 x 16 as one wide row each and receive it transposed.
    i16x4 part[2];
    for (u32 half = 0; half < 2; half++) {
      u32 block = 8 * (lane / 16) + 4 * half;
      u32 at = (block + lane % 16 / 4) * 16 + lane % 4 * 4;
      part[half] = __builtin_amdgcn_ds_read_tr16_b64_v4i16((__attribute__((address_space(3))) i16x4 *)&tile[at]);
    }
    bf16x8 columns;
    __builtin_memcpy(&columns, part, 16);
    sum = __builtin_amdgcn_mfma_f32_16x16x32_bf16(rows, columns, sum, 0, 0, 0);
    barrier();
  }
  for (u32 r = 0; r < 4; r++) c[(u64)(top + 4 * (lane / 16) + r) * n + left + lane % 16] = sum[r];
}
#endif
