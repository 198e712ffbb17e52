// Bits of one lane and traffic between lanes: ballots, reads of lanes, permutes, DPP in its row,
// broadcast and share forms, permlane.

#include "device.h"

static __device__ __inline__ u32 index() { return blockIdx_x * blockDim_x + threadIdx_x; }

KERNEL bit_operations(const u32 *a, const u32 *b, const u32 *c, u32 *out, u32 count) {
  u32 i = index();
  if (i >= count) return;
  u32 x = a[i], y = b[i], z = c[i];
  u32 *mine = &out[20 * i];
  mine[0] = __builtin_popcount(x) + y;
  mine[1] = x ? __builtin_clz(x) : 32;
  mine[2] = x ? __builtin_ctz(x) : 32;
  mine[3] = __builtin_bitreverse32(x);
  mine[4] = __builtin_bswap32(x);
  mine[5] = __builtin_amdgcn_ubfe(x, y & 31, z & 31);
  mine[6] = __builtin_amdgcn_sbfe(x, y & 31, z & 31);
  mine[7] = (x & y) | (~x & z);
  mine[8] = __builtin_amdgcn_alignbit(x, y, z & 31);
  mine[9] = __builtin_amdgcn_alignbyte(x, y, z & 3);
  mine[10] = __builtin_amdgcn_perm(x, y, z & 0x0f0f0f0f);
  mine[11] = x << (y & 31) | x >> (-y & 31);
  mine[12] = (x << 3) + y;
  mine[13] = ((x ^ y) ^ z) + ((x & y) | z);
  mine[14] = (x + y) + z;
  mine[15] = x * y + z;
  mine[16] = (u32)((i64)(i32)x * (i32)y >> 32);
  mine[17] = (x & 0xffffff) * (y & 0xffffff) + z;
  mine[18] = __builtin_amdgcn_sad_u8(x, y, z);
  mine[19] = (u32)((i32)(x << 8) >> 8) * (u32)((i32)(y << 8) >> 8) + z;
}

// Votes under divergence, first lanes, reads of lanes.
KERNEL votes(const u32 *x, u64 *masks, u32 *out) {
  u32 i = index(), lane = lane_id(), value = x[i];
  masks[3 * i] = ballot(value & 1);
  if (value & 2) {
    masks[3 * i + 1] = ballot(value & 4);
    out[4 * i] = __builtin_amdgcn_readfirstlane(value);
  } else {
    masks[3 * i + 1] = ballot(true);
    out[4 * i] = __builtin_amdgcn_mbcnt_lo(0x55555555, lane);
  }
#if WAVE == 64
  masks[3 * i + 2] = __builtin_amdgcn_read_exec();
#else
  masks[3 * i + 2] = __builtin_amdgcn_read_exec_lo();
#endif
  out[4 * i + 1] = __builtin_amdgcn_readlane(value, WAVE / 2 + 3);
  u32 chosen = __builtin_amdgcn_readfirstlane(value) % WAVE;
  out[4 * i + 2] = __builtin_amdgcn_readlane(value, chosen);
  out[4 * i + 3] = __builtin_amdgcn_ballot_w64(lane % 3 == 0) >> (lane & 31) & 1;
}

// Lane permutes through the LDS hardware; every eighth lane is off for some of them.
KERNEL permutes(const i32 *x, const u32 *from, i32 *out) {
  u32 i = index(), lane = lane_id();
  i32 value = x[i];
  i32 *mine = &out[8 * i];
  mine[0] = __builtin_amdgcn_ds_bpermute(from[i] << 2, value);
  mine[1] = __builtin_amdgcn_ds_permute((lane * 5 + 3) % WAVE << 2, value);
  mine[2] = __builtin_amdgcn_ds_swizzle(value, 0x041f);
  mine[3] = __builtin_amdgcn_ds_swizzle(value, 0x801b);
  mine[4] = mine[5] = -1;
  if (lane % 8 != 5) {
    mine[4] = __builtin_amdgcn_ds_bpermute((lane ^ 1) << 2, value);
    mine[5] = __builtin_amdgcn_ds_swizzle(value, 0x401f);
  }
  mine[6] = __builtin_amdgcn_ds_swizzle(value, 0x1c07);
  // Of a constant the compiler would make a read of one lane.
  i32 last = -4;
  asm volatile("" : "+v"(last));
  mine[7] = __builtin_amdgcn_ds_bpermute(last, value);
}

#define DPP(slot, control, rows, banks, bound)                                                                   \
  mine[slot] = __builtin_amdgcn_update_dpp(old, value, control, rows, banks, bound);

// DPP of every form that both families have, with old values and bound control.
KERNEL dpp(const i32 *x, i32 *out) {
  u32 i = index();
  i32 value = x[i], old = -(i32)i - 1;
  i32 *mine = &out[24 * i];
  DPP(0, 0x1b, 15, 15, false)   // quad_perm:[3,2,1,0]
  DPP(1, 0x4e, 15, 15, true)    // quad_perm:[2,3,0,1]
  DPP(2, 0x101, 15, 15, false)  // row_shl:1
  DPP(3, 0x10f, 15, 15, true)   // row_shl:15
  DPP(4, 0x111, 15, 15, false)  // row_shr:1
  DPP(5, 0x118, 15, 15, true)   // row_shr:8
  DPP(6, 0x121, 15, 15, false)  // row_ror:1
  DPP(7, 0x12c, 15, 15, false)  // row_ror:12
  DPP(8, 0x140, 15, 15, false)  // row_mirror
  DPP(9, 0x141, 15, 15, false)  // row_half_mirror
  DPP(10, 0x111, 5, 15, false)  // rows 0 and 2 only
  DPP(11, 0x101, 15, 3, true)   // banks 0 and 1 only
  // Some lanes off: reads of them give the old value or zero.
  mine[12] = mine[13] = -7;
  if (lane_id() % 4 != 2) {
    DPP(12, 0x1b, 15, 15, false)
    DPP(13, 0x1b, 15, 15, true)
  }
#if CDNA
  DPP(14, 0x142, 15, 15, false)  // row_bcast:15
  DPP(15, 0x143, 15, 15, false)  // row_bcast:31
  DPP(16, 0x142, 10, 15, false)
  DPP(17, 0x143, 12, 15, true)
  DPP(18, 0x138, 15, 15, false)  // wave_shr:1
  DPP(19, 0x130, 15, 15, true)   // wave_shl:1
  DPP(20, 0x134, 15, 15, false)  // wave_rol:1
  DPP(21, 0x13c, 15, 15, false)  // wave_ror:1
  DPP(22, 0x155, 15, 15, false)  // row_newbcast:5
#else
  DPP(14, 0x150, 15, 15, false)  // row_share:0
  DPP(15, 0x15d, 15, 15, false)  // row_share:13
  DPP(16, 0x163, 15, 15, false)  // row_xmask:3
  DPP(17, 0x16a, 15, 15, true)   // row_xmask:10
  mine[18] = __builtin_amdgcn_mov_dpp8(value, 0xfac688);  // lanes 0,1,2,3,4,5,6,7 of eight
  mine[19] = __builtin_amdgcn_mov_dpp8(value, 0x053977);  // and backwards
  mine[20] = __builtin_amdgcn_permlane16(old, value, 0x13579bdf, 0x02468ace, false, false);
  mine[21] = __builtin_amdgcn_permlanex16(old, value, 0x01234567, 0x89abcdef, false, false);
#if WAVE == 64
  mine[22] = __builtin_amdgcn_permlane64(value);
#else
  mine[22] = 0;
#endif
#endif
  // Arithmetic whose operand is another lane's: an inclusive sum over each row of sixteen.
  i32 sum = value;
  sum += __builtin_amdgcn_update_dpp(0, sum, 0x111, 15, 15, true);
  sum += __builtin_amdgcn_update_dpp(0, sum, 0x112, 15, 15, true);
  sum += __builtin_amdgcn_update_dpp(0, sum, 0x114, 15, 15, true);
  sum += __builtin_amdgcn_update_dpp(0, sum, 0x118, 15, 15, true);
  mine[23] = sum;
}

// Reductions that the compiler builds from DPP and permutes.
KERNEL reductions(const i32 *x, const float *f, i32 *out, float *fout) {
  u32 i = index();
  i32 value = x[i];
  if (i % 5 == 1) {
    out[6 * i] = 0;
    return;
  }
  out[6 * i] = __builtin_amdgcn_wave_reduce_add_u32(value, 0);
  out[6 * i + 1] = __builtin_amdgcn_wave_reduce_max_i32(value, 0);
  out[6 * i + 2] = __builtin_amdgcn_wave_reduce_min_i32(value, 1);
  out[6 * i + 3] = __builtin_amdgcn_wave_reduce_and_b32(value, 1);
  out[6 * i + 4] = __builtin_amdgcn_wave_reduce_or_b32(value, 2);
  out[6 * i + 5] = __builtin_amdgcn_wave_reduce_xor_b32(value, 2);
  fout[i] = f[i];
}

#if defined(__gfx950__)
// Swaps between halves and rows of the wave.
KERNEL swaps(const u32 *x, const u32 *y, u32 *out) {
  u32 i = index();
  auto halves = __builtin_amdgcn_permlane32_swap(x[i], y[i], false, false);
  auto rows = __builtin_amdgcn_permlane16_swap(x[i], y[i], false, false);
  out[4 * i] = halves[0];
  out[4 * i + 1] = halves[1];
  out[4 * i + 2] = rows[0];
  out[4 * i + 3] = rows[1];
}
#endif

#if defined(__GFX12__)
// Split barriers: waves signal, do other work, then wait. Permlane with indices per lane.
KERNEL __launch_bounds__(128) split_barrier(const u32 *x, u32 *out) {
  static __shared__ u32 values[128];
  u32 i = threadIdx_x;
  values[i] = x[i];
  __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
  __builtin_amdgcn_s_barrier_signal(-1);
  u32 own = x[i] * x[i] + 1;
  __builtin_amdgcn_s_barrier_wait(-1);
  __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");
  out[i] = values[127 - i] + own;
  out[128 + i] = __builtin_amdgcn_permlane16_var(0, x[i], i * 7 + 2, false, false);
  out[256 + i] = __builtin_amdgcn_permlanex16_var(0, x[i], i * 3 + 1, false, false);
}
#endif
