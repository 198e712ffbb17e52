//! Integer and bitwise arithmetic and moves.

use super::op::{Kind, Op, Sources, blend, carry2, carry3, map1, map2, map3, map4};
use crate::Chip;
use crate::wave::{LANES, Wave};

/// The operation of a mnemonic.
pub fn find(mnemonic: &str, chip: Chip) -> Option<Op> {
    moves(mnemonic)
        .or_else(|| bits(mnemonic, chip))
        .or_else(|| shifts(mnemonic))
        .or_else(|| sums(mnemonic))
        .or_else(|| carries(mnemonic))
        .or_else(|| products(mnemonic))
        .or_else(|| choices(mnemonic))
        .or_else(|| halves(mnemonic))
        .or_else(|| bytes(mnemonic))
}

fn moves(mnemonic: &str) -> Option<Op> {
    Some(match mnemonic {
        "v_mov_b32" | "v_accvgpr_read_b32" | "v_accvgpr_write_b32" | "v_accvgpr_mov_b32" => {
            map1(|a: u32| a)
        }
        "v_mov_b64" => map1(|a: u64| a),
        "v_mov_b16" => map1(|a: u16| a),
        "v_cndmask_b32" => carry2(|a: u32, b: u32, bit: bool| if bit { b } else { a }).reads_mask(),
        "v_cndmask_b16" => carry2(|a: u16, b: u16, bit: bool| if bit { b } else { a }).reads_mask(),
        "v_cvt_i32_i16" => map1(|a: i16| i32::from(a)),
        "v_cvt_u32_u16" => map1(|a: u16| u32::from(a)),
        _ => return None,
    })
}

fn bits(mnemonic: &str, chip: Chip) -> Option<Op> {
    Some(match mnemonic {
        "v_not_b32" => map1(|a: u32| !a),
        "v_not_b16" => map1(|a: u16| !a),
        "v_and_b32" => map2(|a: u32, b: u32| a & b),
        "v_or_b32" => map2(|a: u32, b: u32| a | b),
        "v_xor_b32" => map2(|a: u32, b: u32| a ^ b),
        "v_xnor_b32" => map2(|a: u32, b: u32| !(a ^ b)),
        "v_and_b16" => map2(|a: u16, b: u16| a & b),
        "v_or_b16" => map2(|a: u16, b: u16| a | b),
        "v_xor_b16" => map2(|a: u16, b: u16| a ^ b),
        "v_or3_b32" => map3(|a: u32, b: u32, c: u32| a | b | c),
        "v_xor3_b32" => map3(|a: u32, b: u32, c: u32| a ^ b ^ c),
        "v_and_or_b32" => map3(|a: u32, b: u32, c: u32| a & b | c),
        "v_bitop3_b32" => map4(bitop3).immediate("bitop3"),
        "v_bitop3_b16" => map4(|a: u16, b: u16, c: u16, table: u32| {
            bitop3(u32::from(a), u32::from(b), u32::from(c), table) as u16
        })
        .immediate("bitop3"),
        "v_bfi_b32" => map3(|mask: u32, a: u32, b: u32| mask & a | !mask & b),
        "v_bfm_b32" => map2(|width: u32, shift: u32| low_ones(width) << (shift & 31)),
        "v_bfe_u32" => map3(|a: u32, shift: u32, width: u32| a >> (shift & 31) & low_ones(width)),
        "v_bfe_i32" => map3(bfe_i32),
        "v_bfrev_b32" => map1(u32::reverse_bits),
        "v_bcnt_u32_b32" => map2(|a: u32, b: u32| a.count_ones().wrapping_add(b)),
        "v_ffbh_u32" | "v_clz_i32_u32" => {
            map1(|a: u32| if a == 0 { u32::MAX } else { a.leading_zeros() })
        }
        "v_ffbl_b32" | "v_ctz_i32_b32" => {
            map1(|a: u32| if a == 0 { u32::MAX } else { a.trailing_zeros() })
        }
        "v_ffbh_i32" | "v_cls_i32" => map1(|a: u32| {
            let changes = a ^ (a as i32 >> 31) as u32;
            if changes == 0 { u32::MAX } else { changes.leading_zeros() }
        }),
        // RDNA reads the shift from half a register.
        "v_alignbit_b32" if chip.is_rdna() => {
            map3(|a: u32, b: u32, shift: u16| align(a, b, u32::from(shift) & 31))
        }
        "v_alignbit_b32" => map3(|a: u32, b: u32, shift: u32| align(a, b, shift & 31)),
        "v_alignbyte_b32" if chip.is_rdna() => {
            map3(|a: u32, b: u32, shift: u16| align(a, b, 8 * (u32::from(shift) & 3)))
        }
        "v_alignbyte_b32" => map3(|a: u32, b: u32, shift: u32| align(a, b, 8 * (shift & 3))),
        "v_mbcnt_lo_u32_b32" => Op::whole(&[Kind::B32, Kind::B32], Kind::B32, mbcnt::<0>),
        "v_mbcnt_hi_u32_b32" => Op::whole(&[Kind::B32, Kind::B32], Kind::B32, mbcnt::<32>),
        "v_prng_b32" => map1(|a: u32| a << 1 ^ if a >> 31 != 0 { 197 } else { 0 }),
        _ => return None,
    })
}

/// A number whose lowest `width & 31` bits are one.
#[inline(always)]
fn low_ones(width: u32) -> u32 {
    (1_u32 << (width & 31)).wrapping_sub(1)
}

#[inline(always)]
fn bfe_i32(a: u32, shift: u32, width: u32) -> u32 {
    let width = width & 31;
    // A field that reaches beyond the top sees copies of the sign there.
    let field = ((a as i32) >> (shift & 31)) as u32 & low_ones(width);
    let sign = 1_u32 << width >> 1;
    (field ^ sign).wrapping_sub(sign)
}

/// The low register of two, shifted right.
#[inline(always)]
fn align(high: u32, low: u32, shift: u32) -> u32 {
    ((u64::from(high) << 32 | u64::from(low)) >> shift) as u32
}

/// A truth table of three bits, whose number has `a` as its highest bit.
#[inline(always)]
fn bitop3(a: u32, b: u32, c: u32, table: u32) -> u32 {
    let mut out = 0;
    for row in 0..8 {
        let a = if row & 4 != 0 { a } else { !a };
        let b = if row & 2 != 0 { b } else { !b };
        let c = if row & 1 != 0 { c } else { !c };
        out |= a & b & c & (table >> row & 1).wrapping_neg();
    }
    out
}

/// Bits of the mask below each lane, added up; `FIRST` is the lane of the mask's bit 0.
fn mbcnt<const FIRST: u32>(wave: &mut Wave, destination: usize, exec: u64, sources: Sources) {
    let mask = wave.rows[usize::from(sources[0])];
    let base = wave.rows[usize::from(sources[1])];
    let mut out = [0; LANES];
    for lane in 0..LANES {
        let below = (lane as u32).saturating_sub(FIRST).min(32);
        let bits = (1_u64 << below).wrapping_sub(1) as u32;
        out[lane] = (mask.0[lane] & bits).count_ones().wrapping_add(base.0[lane]);
    }
    let width = if wave.lanes == 64 { 64 } else { 32 };
    blend(&mut wave.rows[destination], exec, width, &out);
}

fn shifts(mnemonic: &str) -> Option<Op> {
    Some(match mnemonic {
        "v_lshlrev_b32" => map2(|shift: u32, a: u32| a << (shift & 31)),
        "v_lshrrev_b32" => map2(|shift: u32, a: u32| a >> (shift & 31)),
        "v_ashrrev_i32" => map2(|shift: u32, a: i32| a >> (shift & 31)),
        "v_lshlrev_b64" => map2(|shift: u32, a: u64| a << (shift & 63)),
        "v_lshrrev_b64" => map2(|shift: u32, a: u64| a >> (shift & 63)),
        "v_ashrrev_i64" => map2(|shift: u32, a: i64| a >> (shift & 63)),
        "v_lshlrev_b16" => map2(|shift: u16, a: u16| a << (shift & 15)),
        "v_lshrrev_b16" => map2(|shift: u16, a: u16| a >> (shift & 15)),
        "v_ashrrev_i16" => map2(|shift: u16, a: i16| a >> (shift & 15)),
        "v_lshl_add_u32" => map3(|a: u32, b: u32, c: u32| (a << (b & 31)).wrapping_add(c)),
        "v_lshl_add_u64" => map3(|a: u64, b: u32, c: u64| (a << (b & 7)).wrapping_add(c)),
        "v_add_lshl_u32" => map3(|a: u32, b: u32, c: u32| a.wrapping_add(b) << (c & 31)),
        "v_lshl_or_b32" => map3(|a: u32, b: u32, c: u32| a << (b & 31) | c),
        "v_ashr_pk_i8_i32" => map3(|a: i32, b: i32, shift: u32| {
            let byte = |value: i32| (value >> (shift & 31)).clamp(-128, 127) as u16 & 0xff;
            byte(a) | byte(b) << 8
        }),
        "v_ashr_pk_u8_i32" => map3(|a: i32, b: i32, shift: u32| {
            let byte = |value: i32| (value >> (shift & 31)).clamp(0, 255) as u16;
            byte(a) | byte(b) << 8
        }),
        _ => return None,
    })
}

fn sums(mnemonic: &str) -> Option<Op> {
    Some(match mnemonic {
        "v_add_u32" | "v_add_nc_u32" => {
            map2(u32::wrapping_add).saturating(map2(u32::saturating_add))
        }
        "v_sub_u32" | "v_sub_nc_u32" => {
            map2(u32::wrapping_sub).saturating(map2(u32::saturating_sub))
        }
        "v_subrev_u32" | "v_subrev_nc_u32" => map2(|a: u32, b: u32| b.wrapping_sub(a))
            .saturating(map2(|a: u32, b: u32| b.saturating_sub(a))),
        "v_add_i32" | "v_add_nc_i32" => {
            map2(i32::wrapping_add).saturating(map2(i32::saturating_add))
        }
        "v_sub_i32" | "v_sub_nc_i32" => {
            map2(i32::wrapping_sub).saturating(map2(i32::saturating_sub))
        }
        "v_add3_u32" => map3(|a: u32, b: u32, c: u32| a.wrapping_add(b).wrapping_add(c)),
        "v_xad_u32" => map3(|a: u32, b: u32, c: u32| (a ^ b).wrapping_add(c)),
        _ => return None,
    })
}

fn carries(mnemonic: &str) -> Option<Op> {
    Some(match mnemonic {
        "v_add_co_u32" => carry2(|a: u32, b: u32, _| a.overflowing_add(b))
            .saturating(carry2(|a: u32, b: u32, _| {
                (a.saturating_add(b), a.checked_add(b).is_none())
            }))
            .writes_mask(),
        "v_sub_co_u32" => carry2(|a: u32, b: u32, _| a.overflowing_sub(b))
            .saturating(carry2(|a: u32, b: u32, _| (a.saturating_sub(b), a < b)))
            .writes_mask(),
        "v_subrev_co_u32" => carry2(|a: u32, b: u32, _| b.overflowing_sub(a))
            .saturating(carry2(|a: u32, b: u32, _| (b.saturating_sub(a), b < a)))
            .writes_mask(),
        "v_addc_co_u32" | "v_add_co_ci_u32" => carry2(add_carry)
            .saturating(carry2(|a, b, carry| {
                let (sum, over) = add_carry(a, b, carry);
                (if over { u32::MAX } else { sum }, over)
            }))
            .reads_mask()
            .writes_mask(),
        "v_subb_co_u32" | "v_sub_co_ci_u32" => carry2(sub_borrow)
            .saturating(carry2(|a, b, borrow| {
                let (difference, under) = sub_borrow(a, b, borrow);
                (if under { 0 } else { difference }, under)
            }))
            .reads_mask()
            .writes_mask(),
        "v_subbrev_co_u32" | "v_subrev_co_ci_u32" => {
            carry2(|a, b, borrow| sub_borrow(b, a, borrow))
                .saturating(carry2(|a, b, borrow| {
                    let (difference, under) = sub_borrow(b, a, borrow);
                    (if under { 0 } else { difference }, under)
                }))
                .reads_mask()
                .writes_mask()
        }
        "v_mad_u64_u32" | "v_mad_co_u64_u32" => {
            carry3(|a: u32, b: u32, c: u64, _| (u64::from(a) * u64::from(b)).overflowing_add(c))
                .saturating(carry3(|a: u32, b: u32, c: u64, _| {
                    let (sum, over) = (u64::from(a) * u64::from(b)).overflowing_add(c);
                    (if over { u64::MAX } else { sum }, over)
                }))
                .writes_mask()
        }
        // The mask gets bit 64 of the exact sum, its sign.
        "v_mad_i64_i32" | "v_mad_co_i64_i32" => carry3(|a: i32, b: i32, c: i64, _| {
            let (sum, over) = (i64::from(a) * i64::from(b)).overflowing_add(c);
            (sum, (sum < 0) != over)
        })
        .saturating(carry3(|a: i32, b: i32, c: i64, _| {
            let sum = (i64::from(a) * i64::from(b)).saturating_add(c);
            (sum, sum < 0)
        }))
        .writes_mask(),
        _ => return None,
    })
}

#[inline(always)]
fn add_carry(a: u32, b: u32, carry: bool) -> (u32, bool) {
    let sum = u64::from(a) + u64::from(b) + u64::from(carry);
    (sum as u32, sum >> 32 != 0)
}

#[inline(always)]
fn sub_borrow(a: u32, b: u32, borrow: bool) -> (u32, bool) {
    let taken = u64::from(b) + u64::from(borrow);
    (a.wrapping_sub(b).wrapping_sub(u32::from(borrow)), taken > u64::from(a))
}

/// The low 24 bits.
#[inline(always)]
fn u24(a: u32) -> u64 {
    u64::from(a & 0xff_ffff)
}

/// The low 24 bits with their sign.
#[inline(always)]
fn i24(a: u32) -> i64 {
    i64::from((a << 8) as i32 >> 8)
}

/// The nearest number of 32 bits.
#[inline(always)]
fn saturate_u32(value: u64) -> u32 {
    value.min(u64::from(u32::MAX)) as u32
}

#[inline(always)]
fn saturate_i32(value: i64) -> i32 {
    value.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32
}

fn products(mnemonic: &str) -> Option<Op> {
    Some(match mnemonic {
        "v_mul_lo_u32" => map2(u32::wrapping_mul),
        "v_mul_hi_u32" => map2(|a: u32, b: u32| ((u64::from(a) * u64::from(b)) >> 32) as u32),
        "v_mul_hi_i32" => map2(|a: i32, b: i32| ((i64::from(a) * i64::from(b)) >> 32) as i32),
        "v_mul_u32_u24" => map2(|a: u32, b: u32| (a & 0xff_ffff).wrapping_mul(b & 0xff_ffff)),
        "v_mul_hi_u32_u24" => map2(|a: u32, b: u32| ((u24(a) * u24(b)) >> 32) as u32),
        "v_mul_i32_i24" => {
            map2(|a: u32, b: u32| ((a << 8) as i32 >> 8).wrapping_mul((b << 8) as i32 >> 8))
        }
        "v_mul_hi_i32_i24" => map2(|a: u32, b: u32| ((i24(a) * i24(b)) >> 32) as i32),
        "v_mad_u32_u24" => map3(|a: u32, b: u32, c: u32| {
            (a & 0xff_ffff).wrapping_mul(b & 0xff_ffff).wrapping_add(c)
        })
        .saturating(map3(|a: u32, b: u32, c: u32| saturate_u32(u24(a) * u24(b) + u64::from(c)))),
        "v_mad_i32_i24" => map3(|a: u32, b: u32, c: i32| {
            ((a << 8) as i32 >> 8).wrapping_mul((b << 8) as i32 >> 8).wrapping_add(c)
        })
        .saturating(map3(|a: u32, b: u32, c: i32| saturate_i32(i24(a) * i24(b) + i64::from(c)))),
        "v_mad_u32_u16" => {
            map3(|a: u16, b: u16, c: u32| (u32::from(a) * u32::from(b)).wrapping_add(c)).saturating(
                map3(|a: u16, b: u16, c: u32| (u32::from(a) * u32::from(b)).saturating_add(c)),
            )
        }
        "v_mad_i32_i16" => {
            map3(|a: i16, b: i16, c: i32| (i32::from(a) * i32::from(b)).wrapping_add(c)).saturating(
                map3(|a: i16, b: i16, c: i32| (i32::from(a) * i32::from(b)).saturating_add(c)),
            )
        }
        _ => return None,
    })
}

/// The middle one of three.
#[inline(always)]
fn median<T: Ord + Copy>(a: T, b: T, c: T) -> T {
    a.min(b).max(a.max(b).min(c))
}

fn choices(mnemonic: &str) -> Option<Op> {
    Some(match mnemonic {
        "v_min_i32" => map2(|a: i32, b: i32| a.min(b)),
        "v_max_i32" => map2(|a: i32, b: i32| a.max(b)),
        "v_min_u32" => map2(|a: u32, b: u32| a.min(b)),
        "v_max_u32" => map2(|a: u32, b: u32| a.max(b)),
        "v_min3_i32" => map3(|a: i32, b: i32, c: i32| a.min(b).min(c)),
        "v_max3_i32" => map3(|a: i32, b: i32, c: i32| a.max(b).max(c)),
        "v_med3_i32" => map3(|a: i32, b: i32, c: i32| median(a, b, c)),
        "v_min3_u32" => map3(|a: u32, b: u32, c: u32| a.min(b).min(c)),
        "v_max3_u32" => map3(|a: u32, b: u32, c: u32| a.max(b).max(c)),
        "v_med3_u32" => map3(|a: u32, b: u32, c: u32| median(a, b, c)),
        "v_minmax_i32" => map3(|a: i32, b: i32, c: i32| a.min(b).max(c)),
        "v_maxmin_i32" => map3(|a: i32, b: i32, c: i32| a.max(b).min(c)),
        "v_minmax_u32" => map3(|a: u32, b: u32, c: u32| a.min(b).max(c)),
        "v_maxmin_u32" => map3(|a: u32, b: u32, c: u32| a.max(b).min(c)),
        "v_min_i16" => map2(|a: i16, b: i16| a.min(b)),
        "v_max_i16" => map2(|a: i16, b: i16| a.max(b)),
        "v_min_u16" => map2(|a: u16, b: u16| a.min(b)),
        "v_max_u16" => map2(|a: u16, b: u16| a.max(b)),
        "v_min3_i16" => map3(|a: i16, b: i16, c: i16| a.min(b).min(c)),
        "v_max3_i16" => map3(|a: i16, b: i16, c: i16| a.max(b).max(c)),
        "v_med3_i16" => map3(|a: i16, b: i16, c: i16| median(a, b, c)),
        "v_min3_u16" => map3(|a: u16, b: u16, c: u16| a.min(b).min(c)),
        "v_max3_u16" => map3(|a: u16, b: u16, c: u16| a.max(b).max(c)),
        "v_med3_u16" => map3(|a: u16, b: u16, c: u16| median(a, b, c)),
        _ => return None,
    })
}

fn halves(mnemonic: &str) -> Option<Op> {
    Some(match mnemonic {
        "v_add_u16" | "v_add_nc_u16" => {
            map2(u16::wrapping_add).saturating(map2(u16::saturating_add))
        }
        "v_sub_u16" | "v_sub_nc_u16" => {
            map2(u16::wrapping_sub).saturating(map2(u16::saturating_sub))
        }
        "v_subrev_u16" => map2(|a: u16, b: u16| b.wrapping_sub(a))
            .saturating(map2(|a: u16, b: u16| b.saturating_sub(a))),
        "v_add_i16" | "v_add_nc_i16" => {
            map2(i16::wrapping_add).saturating(map2(i16::saturating_add))
        }
        "v_sub_i16" | "v_sub_nc_i16" => {
            map2(i16::wrapping_sub).saturating(map2(i16::saturating_sub))
        }
        "v_mul_lo_u16" => map2(u16::wrapping_mul),
        "v_mad_u16" | "v_mad_legacy_u16" => {
            map3(|a: u16, b: u16, c: u16| a.wrapping_mul(b).wrapping_add(c)).saturating(map3(
                |a: u16, b: u16, c: u16| {
                    (u64::from(a) * u64::from(b) + u64::from(c)).min(0xffff) as u16
                },
            ))
        }
        "v_mad_i16" | "v_mad_legacy_i16" => {
            map3(|a: i16, b: i16, c: i16| a.wrapping_mul(b).wrapping_add(c)).saturating(map3(
                |a: i16, b: i16, c: i16| {
                    (i64::from(a) * i64::from(b) + i64::from(c)).clamp(-0x8000, 0x7fff) as i16
                },
            ))
        }
        _ => return None,
    })
}

fn bytes(mnemonic: &str) -> Option<Op> {
    Some(match mnemonic {
        "v_perm_b32" => map3(perm),
        "v_lerp_u8" => map3(|a: u32, b: u32, c: u32| {
            let mut out = 0;
            for shift in [0, 8, 16, 24] {
                let sum = (a >> shift & 0xff) + (b >> shift & 0xff) + (c >> shift & 1);
                out |= sum >> 1 << shift;
            }
            out
        }),
        "v_sad_u8" => map3(|a: u32, b: u32, c: u32| sad(a, b).wrapping_add(c))
            .saturating(map3(|a: u32, b: u32, c: u32| sad(a, b).saturating_add(c))),
        "v_sad_hi_u8" => map3(|a: u32, b: u32, c: u32| (sad(a, b) << 16).wrapping_add(c))
            .saturating(map3(|a: u32, b: u32, c: u32| (sad(a, b) << 16).saturating_add(c))),
        "v_sad_u16" => map3(|a: u32, b: u32, c: u32| sad_u16(a, b).wrapping_add(c))
            .saturating(map3(|a: u32, b: u32, c: u32| sad_u16(a, b).saturating_add(c))),
        "v_sad_u32" => map3(|a: u32, b: u32, c: u32| a.abs_diff(b).wrapping_add(c))
            .saturating(map3(|a: u32, b: u32, c: u32| a.abs_diff(b).saturating_add(c))),
        "v_msad_u8" => map3(|a: u32, b: u32, c: u32| msad(a, b).wrapping_add(c))
            .saturating(map3(|a: u32, b: u32, c: u32| msad(a, b).saturating_add(c))),
        "v_qsad_pk_u16_u8" => map3(|a: u64, b: u32, c: u64| {
            quad(|index| sad((a >> (8 * index)) as u32, b).wrapping_add(word(c, index)))
        })
        .saturating(map3(|a: u64, b: u32, c: u64| {
            quad(|index| (sad((a >> (8 * index)) as u32, b) + word(c, index)).min(0xffff))
        })),
        "v_mqsad_pk_u16_u8" => map3(|a: u64, b: u32, c: u64| {
            quad(|index| msad((a >> (8 * index)) as u32, b).wrapping_add(word(c, index)))
        })
        .saturating(map3(|a: u64, b: u32, c: u64| {
            quad(|index| (msad((a >> (8 * index)) as u32, b) + word(c, index)).min(0xffff))
        })),
        "v_mqsad_u32_u8" => {
            let sources = [Kind::B64, Kind::B32, Kind::Rows(4)];
            Op::whole(&sources, Kind::Rows(4), mqsad_u32::<false>).saturating(Op::whole(
                &sources,
                Kind::Rows(4),
                mqsad_u32::<true>,
            ))
        }
        "v_sat_pk_u8_i16" => map1(|a: u32| {
            let byte = |half: u32| (half as i16).clamp(0, 255) as u16;
            byte(a) | byte(a >> 16) << 8
        }),
        _ => return None,
    })
}

/// Bytes of eight, those of `b` first, chosen by the bytes of `select`; beyond them the signs of
/// four, zero and all ones.
#[inline(always)]
fn perm(a: u32, b: u32, select: u32) -> u32 {
    let data = u64::from(a) << 32 | u64::from(b);
    let mut out = 0;
    for shift in [0, 8, 16, 24] {
        let index = select >> shift & 0xff;
        let sign = |byte: u32| (data >> (8 * byte + 7) & 1) as u32 * 0xff;
        let byte = match index {
            0..8 => (data >> (8 * index)) as u32 & 0xff,
            8..12 => sign(2 * (index - 8) + 1),
            12 => 0,
            _ => 0xff,
        };
        out |= byte << shift;
    }
    out
}

/// Sum of the absolute differences of four bytes.
#[inline(always)]
fn sad(a: u32, b: u32) -> u32 {
    let mut sum = 0;
    for shift in [0, 8, 16, 24] {
        sum += (a >> shift & 0xff).abs_diff(b >> shift & 0xff);
    }
    sum
}

/// The same without the bytes that are zero in `b`.
#[inline(always)]
fn msad(a: u32, b: u32) -> u32 {
    let mut sum = 0;
    for shift in [0, 8, 16, 24] {
        let reference = b >> shift & 0xff;
        if reference != 0 {
            sum += (a >> shift & 0xff).abs_diff(reference);
        }
    }
    sum
}

#[inline(always)]
fn sad_u16(a: u32, b: u32) -> u32 {
    (a & 0xffff).abs_diff(b & 0xffff) + (a >> 16).abs_diff(b >> 16)
}

/// The 16-bit word with an index.
#[inline(always)]
fn word(value: u64, index: u32) -> u32 {
    (value >> (16 * index)) as u32 & 0xffff
}

/// Four 16-bit words.
#[inline(always)]
fn quad(f: impl Fn(u32) -> u32) -> u64 {
    let mut out = 0;
    for index in 0..4 {
        out |= u64::from(f(index) & 0xffff) << (16 * index);
    }
    out
}

fn mqsad_u32<const SATURATE: bool>(
    wave: &mut Wave,
    destination: usize,
    exec: u64,
    sources: Sources,
) {
    let [low, reference, sum] = [sources[0], sources[1], sources[2]].map(usize::from);
    let width = if wave.lanes == 64 { 64 } else { 32 };
    let mut out = [[0; LANES]; 4];
    for lane in 0..LANES {
        let row = |row: usize| wave.rows[row].0[lane];
        let data = u64::from(row(low)) | u64::from(row(low + 1)) << 32;
        for (index, out) in out.iter_mut().enumerate() {
            let difference = msad((data >> (8 * index)) as u32, row(reference));
            let base = row(sum + index);
            out[lane] = if SATURATE {
                base.saturating_add(difference)
            } else {
                base.wrapping_add(difference)
            };
        }
    }
    for (index, out) in out.iter().enumerate() {
        blend(&mut wave.rows[destination + index], exec, width, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_bytes() {
        assert_eq!(bfe_i32(0xf0, 4, 4), u32::MAX);
        assert_eq!(bfe_i32(0x70, 4, 4), 7);
        assert_eq!(bfe_i32(0xffff_ffff, 4, 0), 0);
        assert_eq!(bfe_i32(0xc834_cb6e, 8, 31), 0xffc8_34cb);
        // The bytes of b are 0 to 3, of a 4 to 7.
        assert_eq!(perm(0x7766_5544, 0x3322_1100, 0x0704_0300), 0x7744_3300);
        assert_eq!(perm(0x8000_8000, 0x0000_8000, 0x0c0d_0b08), 0x00ff_ffff);
        assert_eq!(sad(0x0102_0304, 0x0201_0500), 1 + 1 + 2 + 4);
        assert_eq!(msad(0x0102_0304, 0x0201_0500), 1 + 1 + 2);
        assert_eq!(bitop3(0xf0, 0xcc, 0xaa, 0x27) & 0xff, 0x27);
        assert_eq!(median(3, 1, 2), 2);
        assert_eq!(median(1, 1, 5), 1);
    }
}
