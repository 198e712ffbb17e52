//! Integer and bit operations of one lane.

use super::op;
use crate::values::T::{B16, B32, B64, F16, F32};
use crate::vector::{CARRY_IN, CARRY_OUT, CDNA, EITHER, KEEP, Lane, OWN_CLAMP, Op, RDNA, check};

fn i32_of(bits: u64) -> i64 {
    i64::from(bits as u32 as i32)
}

fn i16_of(bits: u64) -> i64 {
    i64::from(bits as u16 as i16)
}

/// The low 24 bits, signed.
fn i24_of(bits: u64) -> i64 {
    i64::from((bits as u32) << 8) << 32 >> 40
}

fn u24_of(bits: u64) -> u64 {
    bits & 0xff_ffff
}

/// Wraps, or with `clamp` saturates, an unsigned result.
fn unsigned(lane: &Lane, value: i128, bits: u32) -> u64 {
    let high = (1_i128 << bits) - 1;
    (if lane.clamp { value.clamp(0, high) } else { value & high }) as u64
}

/// Wraps, or with `clamp` saturates, a signed result.
fn signed(lane: &Lane, value: i128, bits: u32) -> u64 {
    let high = (1_i128 << (bits - 1)) - 1;
    let value = if lane.clamp { value.clamp(-high - 1, high) } else { value };
    (value & ((1 << bits) - 1)) as u64
}

fn add_carry(lane: &mut Lane, a: u64, b: u64, carry: bool) -> u64 {
    let sum = a + b + u64::from(carry);
    lane.out = sum > 0xffff_ffff;
    unsigned(lane, i128::from(sum), 32)
}

fn sub_borrow(lane: &mut Lane, a: u64, b: u64, borrow: bool) -> u64 {
    let difference = i128::from(a) - i128::from(b) - i128::from(borrow);
    lane.out = difference < 0;
    unsigned(lane, difference, 32)
}

fn byte(bits: u64, index: u32) -> u64 {
    bits >> (8 * index) & 0xff
}

fn sad(a: u64, b: u64, bytes: u32, masked: bool) -> u64 {
    let difference = |index| match byte(b, index) {
        0 if masked => 0,
        other => byte(a, index).abs_diff(other),
    };
    (0..bytes).map(difference).sum()
}

fn sad_windows(s: &[u64; 4], masked: bool) -> u64 {
    (0..4).fold(0, |all, window| {
        let start = s[2] >> (16 * window) & 0xffff;
        let sum = start + sad(s[0] >> (8 * window), s[1] & 0xffff_ffff, 4, masked);
        // Each 16-bit sum saturates or wraps; the hardware's choice is not documented.
        all | (sum & 0xffff) << (16 * window)
    })
}

fn sad_overflows(s: &[u64; 4], masked: bool) -> bool {
    (0..4).any(|window| {
        let start = s[2] >> (16 * window) & 0xffff;
        start + sad(s[0] >> (8 * window), s[1] & 0xffff_ffff, 4, masked) > 0xffff
    })
}

fn perm(s: &[u64; 4]) -> u64 {
    let data = s[0] << 32 | s[1];
    let one = |selector: u64| match selector {
        0..=7 => byte(data, selector as u32),
        8..=11 => [0, 0xff][(data >> (16 * (selector - 8) + 15) & 1) as usize],
        12 => 0,
        _ => 0xff,
    };
    (0..4).fold(0, |all, index| all | one(byte(s[2], index)) << (8 * index))
}

fn median(mut list: [i64; 3]) -> i64 {
    list.sort_unstable();
    list[1]
}

fn first_one_from_top(bits: u64) -> u64 {
    (0..32).find(|i| bits >> (31 - i) & 1 == 1).unwrap_or(0xffff_ffff)
}

fn first_one_from_bottom(bits: u64) -> u64 {
    (0..32).find(|i| bits >> i & 1 == 1).unwrap_or(0xffff_ffff)
}

fn first_unlike_sign(bits: u64) -> u64 {
    let sign = bits >> 31 & 1;
    (1..32).find(|i| bits >> (31 - i) & 1 != sign).unwrap_or(0xffff_ffff)
}

fn count_below(s: &[u64; 4], lanes_below: u64) -> u64 {
    (s[1] + u64::from((s[0] & lanes_below).count_ones())) & 0xffff_ffff
}

fn mad_wide_unsigned(lane: &mut Lane, s: &[u64; 4]) -> u64 {
    let value = u128::from(s[0]) * u128::from(s[1]) + u128::from(s[2]);
    lane.out = value >> 64 != 0;
    value as u64
}

fn mad_wide_signed(lane: &mut Lane, s: &[u64; 4]) -> u64 {
    let value = i128::from(i32_of(s[0])) * i128::from(i32_of(s[1])) + i128::from(s[2] as i64);
    // The 65th bit of the signed sum.
    lane.out = value >> 64 & 1 == 1;
    value as u64
}

fn ashr_pk(s: &[u64; 4], low: i64, high: i64) -> u64 {
    let one = |bits: u64| ((i32_of(bits) >> (s[2] & 31)).clamp(low, high) & 0xff) as u64;
    one(s[0]) | one(s[1]) << 8
}

/// The table.
pub fn table() -> Vec<Op> {
    const BB: &[crate::values::T] = &[B32, B32];
    const BBB: &[crate::values::T] = &[B32, B32, B32];
    const BBH: &[crate::values::T] = &[B32, B32, B16];
    const HH: &[crate::values::T] = &[B16, B16];
    const HHH: &[crate::values::T] = &[B16, B16, B16];
    const LOW: u64 = 0xffff_ffff;
    const HALF: u64 = 0xffff;
    vec![
        op("v_mov_b32", B32, &[B32], 0, |_, s| s[0]),
        op("v_mov_b16", B16, &[B16], 0, |_, s| s[0]),
        op("v_mov_b64", B64, &[B64], 0, |_, s| s[0]),
        op("v_not_b32", B32, &[B32], 0, |_, s| !s[0] & LOW),
        op("v_not_b16", B16, &[B16], 0, |_, s| !s[0] & HALF),
        op("v_bfrev_b32", B32, &[B32], 0, |_, s| {
            (0..32).fold(0, |all, i| all | (s[0] >> i & 1) << (31 - i))
        }),
        op("v_ffbh_u32", B32, &[B32], 0, |_, s| first_one_from_top(s[0])),
        op("v_clz_i32_u32", B32, &[B32], 0, |_, s| first_one_from_top(s[0])),
        op("v_ffbl_b32", B32, &[B32], 0, |_, s| first_one_from_bottom(s[0])),
        op("v_ctz_i32_b32", B32, &[B32], 0, |_, s| first_one_from_bottom(s[0])),
        op("v_ffbh_i32", B32, &[B32], 0, |_, s| first_unlike_sign(s[0])),
        op("v_cls_i32", B32, &[B32], 0, |_, s| first_unlike_sign(s[0])),
        op("v_prng_b32", B32, &[B32], 0, |_, s| {
            (s[0] << 1 ^ if s[0] >> 31 & 1 == 1 { 197 } else { 0 }) & LOW
        }),
        op("v_sat_pk_u8_i16", B16, &[B32], EITHER, |_, s| {
            let one = |bits: u64| i16_of(bits).clamp(0, 255) as u64;
            one(s[0]) | one(s[0] >> 16) << 8
        }),
        op("v_cndmask_b32", B32, &[F32, F32], CARRY_IN, |l, s| if l.carry { s[1] } else { s[0] }),
        op("v_cndmask_b16", B16, HH, CARRY_IN, |l, s| if l.carry { s[1] } else { s[0] }),
        op("v_and_b32", B32, BB, 0, |_, s| s[0] & s[1]),
        op("v_or_b32", B32, BB, 0, |_, s| s[0] | s[1]),
        op("v_xor_b32", B32, BB, 0, |_, s| s[0] ^ s[1]),
        op("v_xnor_b32", B32, BB, 0, |_, s| !(s[0] ^ s[1]) & LOW),
        op("v_and_b16", B16, HH, 0, |_, s| s[0] & s[1]),
        op("v_or_b16", B16, HH, 0, |_, s| s[0] | s[1]),
        op("v_xor_b16", B16, HH, 0, |_, s| s[0] ^ s[1]),
        op("v_or3_b32", B32, BBB, 0, |_, s| s[0] | s[1] | s[2]),
        op("v_xor3_b32", B32, BBB, 0, |_, s| s[0] ^ s[1] ^ s[2]),
        op("v_and_or_b32", B32, BBB, 0, |_, s| s[0] & s[1] | s[2]),
        op("v_bfi_b32", B32, BBB, 0, |_, s| s[0] & s[1] | !s[0] & s[2] & LOW),
        op("v_bfe_u32", B32, BBB, 0, |_, s| s[0] >> (s[1] & 31) & ((1 << (s[2] & 31)) - 1)),
        op("v_bfe_i32", B32, BBB, 0, |_, s| {
            let width = s[2] & 31;
            let part = (i32_of(s[0]) >> (s[1] & 31)) as u64 & ((1 << width) - 1);
            let negative = width > 0 && part >> (width - 1) & 1 == 1;
            (if negative { part | u64::MAX << width } else { part }) & LOW
        }),
        op("v_bfm_b32", B32, BB, 0, |_, s| (((1 << (s[0] & 31)) - 1) << (s[1] & 31)) & LOW),
        op("v_bcnt_u32_b32", B32, BB, 0, |_, s| (s[1] + u64::from(s[0].count_ones())) & LOW),
        op("v_mbcnt_lo_u32_b32", B32, BB, 0, |l, s| {
            count_below(s, if l.lane < 32 { (1 << l.lane) - 1 } else { LOW })
        }),
        op("v_mbcnt_hi_u32_b32", B32, BB, 0, |l, s| {
            count_below(s, if l.lane < 32 { 0 } else { (1 << (l.lane - 32)) - 1 })
        }),
        op("v_perm_b32", B32, BBB, 0, |_, s| perm(s)),
        op("v_alignbit_b32", B32, BBB, CDNA, |_, s| (s[0] << 32 | s[1]) >> (s[2] & 31) & LOW),
        op("v_alignbyte_b32", B32, BBB, CDNA, |_, s| (s[0] << 32 | s[1]) >> (8 * (s[2] & 3)) & LOW),
        op("v_alignbit_b32", B32, BBH, RDNA, |_, s| (s[0] << 32 | s[1]) >> (s[2] & 31) & LOW),
        op("v_alignbyte_b32", B32, BBH, RDNA, |_, s| (s[0] << 32 | s[1]) >> (8 * (s[2] & 3)) & LOW),
        op("v_lerp_u8", B32, BBB, 0, |_, s| {
            (0..4).fold(0, |all, i| {
                let sum = byte(s[0], i) + byte(s[1], i) + (s[2] >> (8 * i) & 1);
                all | (sum >> 1) << (8 * i)
            })
        }),
        op("v_lshlrev_b32", B32, BB, 0, |_, s| s[1] << (s[0] & 31) & LOW),
        op("v_lshrrev_b32", B32, BB, 0, |_, s| s[1] >> (s[0] & 31)),
        op("v_ashrrev_i32", B32, BB, 0, |_, s| (i32_of(s[1]) >> (s[0] & 31)) as u64 & LOW),
        op("v_lshlrev_b64", B64, &[B32, B64], 0, |_, s| s[1] << (s[0] & 63)),
        op("v_lshrrev_b64", B64, &[B32, B64], 0, |_, s| s[1] >> (s[0] & 63)),
        op("v_ashrrev_i64", B64, &[B32, B64], 0, |_, s| (s[1] as i64 >> (s[0] & 63)) as u64),
        op("v_lshlrev_b16", B16, HH, 0, |_, s| s[1] << (s[0] & 15) & HALF),
        op("v_lshrrev_b16", B16, HH, 0, |_, s| s[1] >> (s[0] & 15)),
        op("v_ashrrev_i16", B16, HH, 0, |_, s| (i16_of(s[1]) >> (s[0] & 15)) as u64 & HALF),
        op("v_lshl_add_u32", B32, BBB, 0, |_, s| ((s[0] << (s[1] & 31) & LOW) + s[2]) & LOW),
        op("v_add_lshl_u32", B32, BBB, 0, |_, s| ((s[0] + s[1]) & LOW) << (s[2] & 31) & LOW),
        op("v_lshl_or_b32", B32, BBB, 0, |_, s| s[0] << (s[1] & 31) & LOW | s[2]),
        op("v_lshl_add_u64", B64, &[B64, B32, B64], 0, |_, s| {
            (s[0] << (s[1] & 7)).wrapping_add(s[2])
        }),
        op("v_xad_u32", B32, BBB, 0, |_, s| ((s[0] ^ s[1]) + s[2]) & LOW),
        op("v_add3_u32", B32, BBB, 0, |_, s| (s[0] + s[1] + s[2]) & LOW),
        op("v_add_u32", B32, BB, OWN_CLAMP, |l, s| unsigned(l, (s[0] + s[1]).into(), 32)),
        op("v_add_nc_u32", B32, BB, OWN_CLAMP, |l, s| unsigned(l, (s[0] + s[1]).into(), 32)),
        op("v_sub_u32", B32, BB, OWN_CLAMP, |l, s| {
            unsigned(l, i128::from(s[0]) - i128::from(s[1]), 32)
        }),
        op("v_sub_nc_u32", B32, BB, OWN_CLAMP, |l, s| {
            unsigned(l, i128::from(s[0]) - i128::from(s[1]), 32)
        }),
        op("v_subrev_u32", B32, BB, OWN_CLAMP, |l, s| {
            unsigned(l, i128::from(s[1]) - i128::from(s[0]), 32)
        }),
        op("v_subrev_nc_u32", B32, BB, OWN_CLAMP, |l, s| {
            unsigned(l, i128::from(s[1]) - i128::from(s[0]), 32)
        }),
        op("v_add_i32", B32, BB, OWN_CLAMP, |l, s| {
            signed(l, (i32_of(s[0]) + i32_of(s[1])).into(), 32)
        }),
        op("v_sub_i32", B32, BB, OWN_CLAMP, |l, s| {
            signed(l, (i32_of(s[0]) - i32_of(s[1])).into(), 32)
        }),
        op("v_add_nc_i32", B32, BB, OWN_CLAMP, |l, s| {
            signed(l, (i32_of(s[0]) + i32_of(s[1])).into(), 32)
        }),
        op("v_sub_nc_i32", B32, BB, OWN_CLAMP, |l, s| {
            signed(l, (i32_of(s[0]) - i32_of(s[1])).into(), 32)
        }),
        op("v_add_co_u32", B32, BB, CARRY_OUT | OWN_CLAMP, |l, s| add_carry(l, s[0], s[1], false)),
        op("v_sub_co_u32", B32, BB, CARRY_OUT | OWN_CLAMP, |l, s| sub_borrow(l, s[0], s[1], false)),
        op("v_subrev_co_u32", B32, BB, CARRY_OUT | OWN_CLAMP, |l, s| {
            sub_borrow(l, s[1], s[0], false)
        }),
        op("v_addc_co_u32", B32, BB, CARRY_OUT | CARRY_IN | OWN_CLAMP, |l, s| {
            add_carry(l, s[0], s[1], l.carry)
        }),
        op("v_subb_co_u32", B32, BB, CARRY_OUT | CARRY_IN | OWN_CLAMP, |l, s| {
            sub_borrow(l, s[0], s[1], l.carry)
        }),
        op("v_subbrev_co_u32", B32, BB, CARRY_OUT | CARRY_IN | OWN_CLAMP, |l, s| {
            sub_borrow(l, s[1], s[0], l.carry)
        }),
        op("v_add_co_ci_u32", B32, BB, CARRY_OUT | CARRY_IN | OWN_CLAMP, |l, s| {
            add_carry(l, s[0], s[1], l.carry)
        }),
        op("v_sub_co_ci_u32", B32, BB, CARRY_OUT | CARRY_IN | OWN_CLAMP, |l, s| {
            sub_borrow(l, s[0], s[1], l.carry)
        }),
        op("v_subrev_co_ci_u32", B32, BB, CARRY_OUT | CARRY_IN | OWN_CLAMP, |l, s| {
            sub_borrow(l, s[1], s[0], l.carry)
        }),
        op("v_add_u16", B16, HH, OWN_CLAMP, |l, s| unsigned(l, (s[0] + s[1]).into(), 16)),
        op("v_sub_u16", B16, HH, OWN_CLAMP, |l, s| {
            unsigned(l, i128::from(s[0]) - i128::from(s[1]), 16)
        }),
        op("v_subrev_u16", B16, HH, OWN_CLAMP, |l, s| {
            unsigned(l, i128::from(s[1]) - i128::from(s[0]), 16)
        }),
        op("v_add_nc_u16", B16, HH, OWN_CLAMP, |l, s| unsigned(l, (s[0] + s[1]).into(), 16)),
        op("v_sub_nc_u16", B16, HH, OWN_CLAMP, |l, s| {
            unsigned(l, i128::from(s[0]) - i128::from(s[1]), 16)
        }),
        op("v_add_i16", B16, HH, OWN_CLAMP | EITHER, |l, s| {
            signed(l, (i16_of(s[0]) + i16_of(s[1])).into(), 16)
        }),
        op("v_sub_i16", B16, HH, OWN_CLAMP | EITHER, |l, s| {
            signed(l, (i16_of(s[0]) - i16_of(s[1])).into(), 16)
        }),
        op("v_add_nc_i16", B16, HH, OWN_CLAMP, |l, s| {
            signed(l, (i16_of(s[0]) + i16_of(s[1])).into(), 16)
        }),
        op("v_sub_nc_i16", B16, HH, OWN_CLAMP, |l, s| {
            signed(l, (i16_of(s[0]) - i16_of(s[1])).into(), 16)
        }),
        op("v_mul_lo_u16", B16, HH, 0, |_, s| s[0] * s[1] & HALF),
        op("v_mul_lo_u32", B32, BB, 0, |_, s| s[0] * s[1] & LOW),
        op("v_mul_lo_i32", B32, BB, 0, |_, s| s[0] * s[1] & LOW),
        op("v_mul_hi_u32", B32, BB, 0, |_, s| s[0] * s[1] >> 32),
        op("v_mul_hi_i32", B32, BB, 0, |_, s| (i32_of(s[0]) * i32_of(s[1]) >> 32) as u64 & LOW),
        op("v_mul_i32_i24", B32, BB, 0, |l, s| signed(l, (i24_of(s[0]) * i24_of(s[1])).into(), 32)),
        op("v_mul_u32_u24", B32, BB, 0, |l, s| {
            unsigned(l, (u24_of(s[0]) * u24_of(s[1])).into(), 32)
        }),
        op("v_mul_hi_i32_i24", B32, BB, 0, |_, s| (i24_of(s[0]) * i24_of(s[1]) >> 32) as u64 & LOW),
        op("v_mul_hi_u32_u24", B32, BB, 0, |_, s| u24_of(s[0]) * u24_of(s[1]) >> 32),
        op("v_mad_i32_i24", B32, BBB, OWN_CLAMP, |l, s| {
            signed(l, (i24_of(s[0]) * i24_of(s[1]) + i32_of(s[2])).into(), 32)
        }),
        op("v_mad_u32_u24", B32, BBB, OWN_CLAMP, |l, s| {
            unsigned(l, (u24_of(s[0]) * u24_of(s[1]) + s[2]).into(), 32)
        }),
        op("v_mad_u32_u16", B32, &[B16, B16, B32], OWN_CLAMP, |l, s| {
            unsigned(l, (s[0] * s[1] + s[2]).into(), 32)
        }),
        op("v_mad_i32_i16", B32, &[B16, B16, B32], OWN_CLAMP, |l, s| {
            signed(l, (i16_of(s[0]) * i16_of(s[1]) + i32_of(s[2])).into(), 32)
        }),
        op("v_mad_u16", B16, HHH, OWN_CLAMP | KEEP, |l, s| {
            unsigned(l, (s[0] * s[1] + s[2]).into(), 16)
        }),
        op("v_mad_i16", B16, HHH, OWN_CLAMP | KEEP, |l, s| {
            signed(l, (i16_of(s[0]) * i16_of(s[1]) + i16_of(s[2])).into(), 16)
        }),
        op("v_mad_legacy_u16", B16, HHH, OWN_CLAMP, |l, s| {
            unsigned(l, (s[0] * s[1] + s[2]).into(), 16)
        }),
        op("v_mad_legacy_i16", B16, HHH, OWN_CLAMP, |l, s| {
            signed(l, (i16_of(s[0]) * i16_of(s[1]) + i16_of(s[2])).into(), 16)
        }),
        op("v_mad_u64_u32", B64, &[B32, B32, B64], CARRY_OUT, mad_wide_unsigned),
        op("v_mad_co_u64_u32", B64, &[B32, B32, B64], CARRY_OUT, mad_wide_unsigned),
        op("v_mad_i64_i32", B64, &[B32, B32, B64], CARRY_OUT, mad_wide_signed),
        op("v_mad_co_i64_i32", B64, &[B32, B32, B64], CARRY_OUT, mad_wide_signed),
        op("v_min_i32", B32, BB, 0, |_, s| i32_of(s[0]).min(i32_of(s[1])) as u64 & LOW),
        op("v_max_i32", B32, BB, 0, |_, s| i32_of(s[0]).max(i32_of(s[1])) as u64 & LOW),
        op("v_min_u32", B32, BB, 0, |_, s| s[0].min(s[1])),
        op("v_max_u32", B32, BB, 0, |_, s| s[0].max(s[1])),
        op("v_min_i16", B16, HH, 0, |_, s| i16_of(s[0]).min(i16_of(s[1])) as u64 & HALF),
        op("v_max_i16", B16, HH, 0, |_, s| i16_of(s[0]).max(i16_of(s[1])) as u64 & HALF),
        op("v_min_u16", B16, HH, 0, |_, s| s[0].min(s[1])),
        op("v_max_u16", B16, HH, 0, |_, s| s[0].max(s[1])),
        op("v_min3_i32", B32, BBB, 0, |_, s| {
            i32_of(s[0]).min(i32_of(s[1])).min(i32_of(s[2])) as u64 & LOW
        }),
        op("v_max3_i32", B32, BBB, 0, |_, s| {
            i32_of(s[0]).max(i32_of(s[1])).max(i32_of(s[2])) as u64 & LOW
        }),
        op("v_min3_u32", B32, BBB, 0, |_, s| s[0].min(s[1]).min(s[2])),
        op("v_max3_u32", B32, BBB, 0, |_, s| s[0].max(s[1]).max(s[2])),
        op("v_med3_i32", B32, BBB, 0, |_, s| {
            median([i32_of(s[0]), i32_of(s[1]), i32_of(s[2])]) as u64 & LOW
        }),
        op("v_med3_u32", B32, BBB, 0, |_, s| {
            median([s[0] as i64, s[1] as i64, s[2] as i64]) as u64
        }),
        op("v_min3_i16", B16, HHH, EITHER, |_, s| {
            i16_of(s[0]).min(i16_of(s[1])).min(i16_of(s[2])) as u64 & HALF
        }),
        op("v_max3_i16", B16, HHH, EITHER, |_, s| {
            i16_of(s[0]).max(i16_of(s[1])).max(i16_of(s[2])) as u64 & HALF
        }),
        op("v_min3_u16", B16, HHH, EITHER, |_, s| s[0].min(s[1]).min(s[2])),
        op("v_max3_u16", B16, HHH, EITHER, |_, s| s[0].max(s[1]).max(s[2])),
        op("v_med3_i16", B16, HHH, EITHER, |_, s| {
            median([i16_of(s[0]), i16_of(s[1]), i16_of(s[2])]) as u64 & HALF
        }),
        op("v_med3_u16", B16, HHH, EITHER, |_, s| {
            median([s[0] as i64, s[1] as i64, s[2] as i64]) as u64
        }),
        op("v_maxmin_i32", B32, BBB, 0, |_, s| {
            i32_of(s[0]).max(i32_of(s[1])).min(i32_of(s[2])) as u64 & LOW
        }),
        op("v_minmax_i32", B32, BBB, 0, |_, s| {
            i32_of(s[0]).min(i32_of(s[1])).max(i32_of(s[2])) as u64 & LOW
        }),
        op("v_maxmin_u32", B32, BBB, 0, |_, s| s[0].max(s[1]).min(s[2])),
        op("v_minmax_u32", B32, BBB, 0, |_, s| s[0].min(s[1]).max(s[2])),
        op("v_sad_u8", B32, BBB, 0, |_, s| (sad(s[0], s[1], 4, false) + s[2]) & LOW),
        op("v_sad_hi_u8", B32, BBB, 0, |_, s| ((sad(s[0], s[1], 4, false) << 16) + s[2]) & LOW),
        op("v_sad_u16", B32, BBB, 0, |_, s| {
            let one = |shift: u32| (s[0] >> shift & HALF).abs_diff(s[1] >> shift & HALF);
            (one(0) + one(16) + s[2]) & LOW
        }),
        op("v_sad_u32", B32, BBB, 0, |_, s| (s[0].abs_diff(s[1]) + s[2]) & LOW),
        op("v_msad_u8", B32, BBB, 0, |_, s| (sad(s[0], s[1], 4, true) + s[2]) & LOW),
        op("v_qsad_pk_u16_u8", B64, &[B64, B32, B64], 0, |l, s| {
            l.skip = sad_overflows(s, false);
            sad_windows(s, false)
        }),
        op("v_mqsad_pk_u16_u8", B64, &[B64, B32, B64], 0, |l, s| {
            l.skip = sad_overflows(s, true);
            sad_windows(s, true)
        }),
        op("v_pack_b32_f16", B32, &[F16, F16], 0, |_, s| s[0] | s[1] << 16),
        op("v_cvt_pk_u16_u32", B32, BB, 0, |_, s| s[0].min(HALF) | s[1].min(HALF) << 16),
        op("v_cvt_pk_i16_i32", B32, BB, 0, |_, s| {
            let one = |bits: u64| i32_of(bits).clamp(-0x8000, 0x7fff) as u64 & HALF;
            one(s[0]) | one(s[1]) << 16
        }),
        op("v_cvt_i32_i16", B32, &[B16], 0, |_, s| i16_of(s[0]) as u64 & LOW),
        op("v_cvt_u32_u16", B32, &[B16], 0, |_, s| s[0]),
        op("v_ashr_pk_i8_i32", B16, BBB, KEEP | EITHER, |_, s| ashr_pk(s, -128, 127)),
        op("v_ashr_pk_u8_i32", B16, BBB, KEEP | EITHER, |_, s| ashr_pk(s, 0, 255)),
    ]
}

#[test]
fn vector_integers() {
    check(&table(), 5000);
}
