//! Packed operations: two elements in a register, or in a pair of registers.

use super::float::{add, extreme, fma, strict_extreme, times};
use super::op;
use crate::exact::{F16, F32};
use crate::values::T::{PkB16, PkB32, PkF16, PkF32};
use crate::vector::{ACC, Lane, NO_CONSTANT, OWN_CLAMP, Op, check};

/// Applies a function to both 16-bit elements.
fn halves(l: &Lane, s: &[u64; 4], f: fn(&Lane, u64, u64, u64) -> u64) -> u64 {
    let one = |shift: u32| {
        let part = |bits: u64| bits >> shift & 0xffff;
        (f(l, part(s[0]), part(s[1]), part(s[2])) & 0xffff) << shift
    };
    one(0) | one(16)
}

/// Applies a function to both 32-bit elements.
fn words(l: &Lane, s: &[u64; 4], f: fn(&Lane, u64, u64, u64) -> u64) -> u64 {
    let one = |shift: u32| {
        let part = |bits: u64| bits >> shift & 0xffff_ffff;
        (f(l, part(s[0]), part(s[1]), part(s[2])) & 0xffff_ffff) << shift
    };
    one(0) | one(32)
}

fn i(bits: u64) -> i64 {
    i64::from(bits as i16)
}

fn signed(l: &Lane, value: i64) -> u64 {
    (if l.clamp { value.clamp(-0x8000, 0x7fff) } else { value }) as u64
}

fn unsigned(l: &Lane, value: i64) -> u64 {
    (if l.clamp { value.clamp(0, 0xffff) } else { value }) as u64
}

/// The table.
pub fn table() -> Vec<Op> {
    use crate::values::T;
    const II: &[T] = &[PkB16, PkB16];
    const III: &[T] = &[PkB16, PkB16, PkB16];
    const HH: &[T] = &[PkF16, PkF16];
    const HHH: &[T] = &[PkF16, PkF16, PkF16];
    vec![
        op("v_pk_mad_i16", PkB16, III, OWN_CLAMP, |l, s| {
            halves(l, s, |l, a, b, c| signed(l, i(a) * i(b) + i(c)))
        }),
        op("v_pk_mad_u16", PkB16, III, OWN_CLAMP, |l, s| {
            halves(l, s, |l, a, b, c| unsigned(l, (a * b + c) as i64))
        }),
        op("v_pk_mul_lo_u16", PkB16, II, 0, |l, s| halves(l, s, |_, a, b, _| a * b)),
        op("v_pk_add_i16", PkB16, II, OWN_CLAMP, |l, s| {
            halves(l, s, |l, a, b, _| signed(l, i(a) + i(b)))
        }),
        op("v_pk_sub_i16", PkB16, II, OWN_CLAMP, |l, s| {
            halves(l, s, |l, a, b, _| signed(l, i(a) - i(b)))
        }),
        op("v_pk_add_u16", PkB16, II, OWN_CLAMP, |l, s| {
            halves(l, s, |l, a, b, _| unsigned(l, (a + b) as i64))
        }),
        op("v_pk_sub_u16", PkB16, II, OWN_CLAMP, |l, s| {
            halves(l, s, |l, a, b, _| unsigned(l, a as i64 - b as i64))
        }),
        op("v_pk_lshlrev_b16", PkB16, II, 0, |l, s| halves(l, s, |_, a, b, _| b << (a & 15))),
        op("v_pk_lshrrev_b16", PkB16, II, 0, |l, s| halves(l, s, |_, a, b, _| b >> (a & 15))),
        op("v_pk_ashrrev_i16", PkB16, II, 0, |l, s| {
            halves(l, s, |_, a, b, _| (i(b) >> (a & 15)) as u64)
        }),
        op("v_pk_min_i16", PkB16, II, 0, |l, s| halves(l, s, |_, a, b, _| i(a).min(i(b)) as u64)),
        op("v_pk_max_i16", PkB16, II, 0, |l, s| halves(l, s, |_, a, b, _| i(a).max(i(b)) as u64)),
        op("v_pk_min_u16", PkB16, II, 0, |l, s| halves(l, s, |_, a, b, _| a.min(b))),
        op("v_pk_max_u16", PkB16, II, 0, |l, s| halves(l, s, |_, a, b, _| a.max(b))),
        op("v_pk_fma_f16", PkF16, HHH, 0, |l, s| halves(l, s, |l, a, b, c| fma(l, F16, a, b, c))),
        op("v_pk_fmac_f16", PkF16, HH, ACC | NO_CONSTANT, |l, s| {
            halves(l, &[s[0], s[1], l.old, 0], |l, a, b, c| fma(l, F16, a, b, c))
        }),
        op("v_pk_add_f16", PkF16, HH, 0, |l, s| halves(l, s, |l, a, b, _| add(l, F16, a, b))),
        op("v_pk_mul_f16", PkF16, HH, 0, |l, s| halves(l, s, |l, a, b, _| times(l, F16, a, b))),
        op("v_pk_min_f16", PkF16, HH, 0, |l, s| {
            halves(l, s, |l, a, b, _| extreme(l, F16, a, b, false))
        }),
        op("v_pk_max_f16", PkF16, HH, 0, |l, s| {
            halves(l, s, |l, a, b, _| extreme(l, F16, a, b, true))
        }),
        op("v_pk_min_num_f16", PkF16, HH, 0, |l, s| {
            halves(l, s, |l, a, b, _| extreme(l, F16, a, b, false))
        }),
        op("v_pk_max_num_f16", PkF16, HH, 0, |l, s| {
            halves(l, s, |l, a, b, _| extreme(l, F16, a, b, true))
        }),
        op("v_pk_minimum_f16", PkF16, HH, 0, |l, s| {
            halves(l, s, |l, a, b, _| strict_extreme(l, F16, a, b, false))
        }),
        op("v_pk_maximum_f16", PkF16, HH, 0, |l, s| {
            halves(l, s, |l, a, b, _| strict_extreme(l, F16, a, b, true))
        }),
        op("v_pk_minimum3_f16", PkF16, HHH, 0, |l, s| {
            halves(l, s, |l, a, b, c| {
                strict_extreme(l, F16, strict_extreme(l, F16, a, b, false), c, false)
            })
        }),
        op("v_pk_maximum3_f16", PkF16, HHH, 0, |l, s| {
            halves(l, s, |l, a, b, c| {
                strict_extreme(l, F16, strict_extreme(l, F16, a, b, true), c, true)
            })
        }),
        op("v_pk_fma_f32", PkF32, &[PkF32, PkF32, PkF32], 0, |l, s| {
            words(l, s, |l, a, b, c| fma(l, F32, a, b, c))
        }),
        op("v_pk_mul_f32", PkF32, &[PkF32, PkF32], 0, |l, s| {
            words(l, s, |l, a, b, _| times(l, F32, a, b))
        }),
        op("v_pk_add_f32", PkF32, &[PkF32, PkF32], 0, |l, s| {
            words(l, s, |l, a, b, _| add(l, F32, a, b))
        }),
        // op_sel chooses a word of each source; op_sel_hi has no part.
        op("v_pk_mov_b32", PkB32, &[PkB32, PkB32], 0, |_, s| s[0] & 0xffff_ffff | s[1] << 32),
    ]
}

#[test]
fn packed_arithmetic() {
    check(&table(), 1000);
}
