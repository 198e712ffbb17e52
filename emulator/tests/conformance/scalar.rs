//! Scalar instructions: arithmetic, comparisons, masks, control.

use waveloom_emulator::Chip;
use waveloom_emulator::wave::State as WaveState;

use crate::exact::{F16, F32, Round};
use crate::machine::{Bench, EXEC, M0, NAMED, NULL, Random, Report, VCC, wanted};
use crate::tables::convert::{convert, pair_of_halves, to_int};
use crate::tables::float::{add, extreme, fma, strict_extreme, sub, times, to_integral};
use crate::values::T::{self, B32, B64, K16, K32};
use crate::vector::{Lane, scalar_text};

/// What a scalar statement sees and changes beside its destination.
pub struct Scalar {
    /// Modes, for floating point.
    pub lane: Lane,
    /// Scalar condition code.
    pub scc: bool,
    /// Execution mask, as wide as the instruction says.
    pub exec: u64,
    /// The destination before.
    pub old: u64,
}

/// A statement of a scalar instruction.
pub struct Op {
    /// Mnemonic.
    pub name: &'static str,
    /// The destination; [`T::Mask`] where there is none.
    pub dst: T,
    /// The sources; [`T::K32`] is a literal of the instruction, [`T::K16`] 16 bits of it.
    pub src: &'static [T],
    /// What it computes.
    pub f: fn(&mut Scalar, u64, u64, u64) -> u64,
}

const NONE: T = T::Mask;
const LOW: u64 = 0xffff_ffff;

const fn op(
    name: &'static str,
    dst: T,
    src: &'static [T],
    f: fn(&mut Scalar, u64, u64, u64) -> u64,
) -> Op {
    Op { name, dst, src, f }
}

fn i(bits: u64) -> i64 {
    i64::from(bits as u32 as i32)
}

/// A result that says in SCC whether it is zero.
fn nonzero(x: &mut Scalar, result: u64) -> u64 {
    x.scc = result != 0;
    result
}

fn bits_of(value: u64, count: u32) -> Vec<u64> {
    (0..count).map(|index| value >> index & 1).collect()
}

fn join(bits: impl Iterator<Item = u64>) -> u64 {
    bits.enumerate().fold(0, |all, (index, bit)| all | bit << index)
}

/// Position of the first bit that is `wanted`, or -1.
fn first(bits: impl Iterator<Item = u64>, wanted: u64) -> u64 {
    bits.enumerate().find(|(_, bit)| *bit == wanted).map_or(LOW, |(index, _)| index as u64)
}

fn sign_run(value: u64, count: u32) -> u64 {
    let bits = bits_of(value, count);
    let sign = bits[count as usize - 1];
    first(bits.into_iter().rev(), 1 - sign)
}

fn add_overflow(x: &mut Scalar, a: u64, b: u64) -> u64 {
    let sum = i(a) + i(b);
    x.scc = sum != i64::from(sum as i32);
    sum as u64 & LOW
}

fn sub_overflow(x: &mut Scalar, a: u64, b: u64) -> u64 {
    let difference = i(a) - i(b);
    x.scc = difference != i64::from(difference as i32);
    difference as u64 & LOW
}

fn add_carry(x: &mut Scalar, a: u64, b: u64, carry: bool) -> u64 {
    let sum = a + b + u64::from(carry);
    x.scc = sum > LOW;
    sum & LOW
}

fn sub_borrow(x: &mut Scalar, a: u64, b: u64, borrow: bool) -> u64 {
    x.scc = b + u64::from(borrow) > a;
    a.wrapping_sub(b).wrapping_sub(u64::from(borrow)) & LOW
}

fn extract(value: u64, field: u64, bits: u32, signed: bool) -> u64 {
    let offset = field & u64::from(bits - 1);
    let width = (field >> 16 & 127).min(u64::from(bits)) as u32;
    let all = if bits == 64 { u64::MAX } else { LOW };
    let value = i128::from(value) << (128 - bits) >> (128 - bits);
    let moved = if signed { value } else { value & i128::from(all) } >> offset;
    let part = if width == 0 { 0 } else { moved & ((1_i128 << width) - 1) };
    let negative = signed && width > 0 && part >> (width - 1) & 1 == 1;
    (if negative { part - (1_i128 << width) } else { part }) as u64 & all
}

fn shift_add(x: &mut Scalar, a: u64, b: u64, shift: u32) -> u64 {
    let sum = (a << shift) + b;
    x.scc = sum > LOW;
    sum & LOW
}

fn whole_quads(value: u64, count: u32) -> u64 {
    join((0..count).map(|index| u64::from(value >> (index / 4 * 4) & 15 != 0)))
}

fn quads(value: u64, count: u32) -> u64 {
    join((0..count / 4).map(|index| u64::from(value >> (index * 4) & 15 != 0)))
}

/// Saves the execution mask and sets another one.
fn save(x: &mut Scalar, all: u64, exec: u64) -> u64 {
    let old = x.exec & all;
    x.exec = exec & all;
    x.scc = x.exec != 0;
    old
}

/// Sets the execution mask and gives it.
fn write(x: &mut Scalar, all: u64, exec: u64) -> u64 {
    save(x, all, exec);
    x.exec
}

fn less(x: &Scalar, format: crate::exact::Format, a: u64, b: u64) -> Option<std::cmp::Ordering> {
    crate::exact::compare(x.lane.num(format, a), x.lane.num(format, b))
}

fn compared(x: &mut Scalar, holds: bool) -> u64 {
    x.scc = holds;
    0
}

/// Unary and binary operations of 32 and of 64 bits.
macro_rules! both {
    ($list:ident, $name:literal, $src:expr, $wide:expr, |$x:ident, $a:ident, $b:ident| $e:expr) => {
        $list.push(op(concat!("s_", $name, "_b32"), B32, $src, |$x, $a, $b, _| {
            nonzero($x, $e & LOW)
        }));
        $list.push(op(concat!("s_", $name, "_b64"), B64, $wide, |$x, $a, $b, _| {
            nonzero($x, $e)
        }));
    };
}

macro_rules! exec_pair {
    ($list:ident, $name:literal, $f:ident, |$s:ident, $exec:ident| $e:expr) => {
        $list.push(op(concat!("s_", $name, "_b32"), B32, &[B32], |x, $s, _, _| {
            let $exec = x.exec;
            $f(x, LOW, $e)
        }));
        $list.push(op(concat!("s_", $name, "_b64"), B64, &[B64], |x, $s, _, _| {
            let $exec = x.exec;
            $f(x, u64::MAX, $e)
        }));
    };
}

macro_rules! scalar_floats {
    ($list:ident, $suffix:literal, $t:expr, $format:expr) => {
        $list.extend([
            op(concat!("s_add_", $suffix), $t, &[$t, $t], |x, a, b, _| add(&x.lane, $format, a, b)),
            op(concat!("s_sub_", $suffix), $t, &[$t, $t], |x, a, b, _| sub(&x.lane, $format, a, b)),
            op(concat!("s_mul_", $suffix), $t, &[$t, $t], |x, a, b, _| {
                times(&x.lane, $format, a, b)
            }),
            op(concat!("s_fmac_", $suffix), $t, &[$t, $t], |x, a, b, _| {
                let old = if $format == F16 { x.old & 0xffff } else { x.old };
                fma(&x.lane, $format, a, b, old)
            }),
            op(concat!("s_min_", $suffix), $t, &[$t, $t], |x, a, b, _| {
                extreme(&x.lane, $format, a, b, false)
            }),
            op(concat!("s_max_", $suffix), $t, &[$t, $t], |x, a, b, _| {
                extreme(&x.lane, $format, a, b, true)
            }),
            op(concat!("s_min_num_", $suffix), $t, &[$t, $t], |x, a, b, _| {
                extreme(&x.lane, $format, a, b, false)
            }),
            op(concat!("s_max_num_", $suffix), $t, &[$t, $t], |x, a, b, _| {
                extreme(&x.lane, $format, a, b, true)
            }),
            op(concat!("s_minimum_", $suffix), $t, &[$t, $t], |x, a, b, _| {
                strict_extreme(&x.lane, $format, a, b, false)
            }),
            op(concat!("s_maximum_", $suffix), $t, &[$t, $t], |x, a, b, _| {
                strict_extreme(&x.lane, $format, a, b, true)
            }),
            op(concat!("s_ceil_", $suffix), $t, &[$t], |x, a, _, _| {
                to_integral(&x.lane, $format, a, Round::Up)
            }),
            op(concat!("s_floor_", $suffix), $t, &[$t], |x, a, _, _| {
                to_integral(&x.lane, $format, a, Round::Down)
            }),
            op(concat!("s_trunc_", $suffix), $t, &[$t], |x, a, _, _| {
                to_integral(&x.lane, $format, a, Round::Zero)
            }),
            op(concat!("s_rndne_", $suffix), $t, &[$t], |x, a, _, _| {
                to_integral(&x.lane, $format, a, Round::Even)
            }),
        ]);
        scalar_compare!($list, $suffix, $t, $format, "lt", |o| o == Some(Less));
        scalar_compare!($list, $suffix, $t, $format, "eq", |o| o == Some(Equal));
        scalar_compare!($list, $suffix, $t, $format, "le", |o| matches!(o, Some(Less | Equal)));
        scalar_compare!($list, $suffix, $t, $format, "gt", |o| o == Some(Greater));
        scalar_compare!($list, $suffix, $t, $format, "lg", |o| matches!(o, Some(Less | Greater)));
        scalar_compare!($list, $suffix, $t, $format, "ge", |o| matches!(o, Some(Greater | Equal)));
        scalar_compare!($list, $suffix, $t, $format, "o", |o| o.is_some());
        scalar_compare!($list, $suffix, $t, $format, "u", |o| o.is_none());
        scalar_compare!($list, $suffix, $t, $format, "nge", |o| {
            !matches!(o, Some(Greater | Equal))
        });
        scalar_compare!($list, $suffix, $t, $format, "nlg", |o| !matches!(o, Some(Less | Greater)));
        scalar_compare!($list, $suffix, $t, $format, "ngt", |o| o != Some(Greater));
        scalar_compare!($list, $suffix, $t, $format, "nle", |o| !matches!(o, Some(Less | Equal)));
        scalar_compare!($list, $suffix, $t, $format, "neq", |o| o != Some(Equal));
        scalar_compare!($list, $suffix, $t, $format, "nlt", |o| o != Some(Less));
    };
}

macro_rules! scalar_compare {
    ($list:ident, $suffix:literal, $t:expr, $format:expr, $name:literal, |$o:ident| $e:expr) => {
        $list.push(op(concat!("s_cmp_", $name, "_", $suffix), NONE, &[$t, $t], |x, a, b, _| {
            let $o = less(x, $format, a, b);
            compared(x, $e)
        }));
    };
}

macro_rules! integer_compare {
    ($list:ident, $name:literal, $op:tt) => {
        $list.extend([
            op(concat!("s_cmp_", $name, "_i32"), NONE, &[B32, B32], |x, a, b, _| {
                compared(x, i(a) $op i(b))
            }),
            op(concat!("s_cmp_", $name, "_u32"), NONE, &[B32, B32], |x, a, b, _| {
                compared(x, a $op b)
            }),
            op(concat!("s_cmp_", $name, "_u64"), NONE, &[B64, B64], |x, a, b, _| {
                compared(x, a $op b)
            }),
            op(concat!("s_cmpk_", $name, "_i32"), NONE, &[B32, K16], |x, a, b, _| {
                compared(x, i(a) $op i64::from(b as i16))
            }),
            op(concat!("s_cmpk_", $name, "_u32"), NONE, &[B32, K16], |x, a, b, _| {
                compared(x, a $op b)
            }),
        ]);
    };
}

/// The table.
pub fn table() -> Vec<Op> {
    use std::cmp::Ordering::{Equal, Greater, Less};
    const BB: &[T] = &[B32, B32];
    const WW: &[T] = &[B64, B64];
    const S: T = T::F32;
    const H: T = T::F16;
    let mut list = vec![
        op("s_mov_b32", B32, &[B32], |_, a, _, _| a),
        op("s_mov_b64", B64, &[B64], |_, a, _, _| a),
        op("s_cmov_b32", B32, &[B32], |x, a, _, _| if x.scc { a } else { x.old }),
        op("s_cmov_b64", B64, &[B64], |x, a, _, _| if x.scc { a } else { x.old }),
        op("s_brev_b32", B32, &[B32], |_, a, _, _| join(bits_of(a, 32).into_iter().rev())),
        op("s_brev_b64", B64, &[B64], |_, a, _, _| join(bits_of(a, 64).into_iter().rev())),
        op("s_bcnt0_i32_b32", B32, &[B32], |x, a, _, _| {
            nonzero(x, 32 - bits_of(a, 32).iter().sum::<u64>())
        }),
        op("s_bcnt0_i32_b64", B32, &[B64], |x, a, _, _| {
            nonzero(x, 64 - bits_of(a, 64).iter().sum::<u64>())
        }),
        op("s_bcnt1_i32_b32", B32, &[B32], |x, a, _, _| {
            nonzero(x, bits_of(a, 32).iter().sum::<u64>())
        }),
        op("s_bcnt1_i32_b64", B32, &[B64], |x, a, _, _| {
            nonzero(x, bits_of(a, 64).iter().sum::<u64>())
        }),
        op("s_ff0_i32_b32", B32, &[B32], |_, a, _, _| first(bits_of(a, 32).into_iter(), 0)),
        op("s_ff0_i32_b64", B32, &[B64], |_, a, _, _| first(bits_of(a, 64).into_iter(), 0)),
        op("s_ff1_i32_b32", B32, &[B32], |_, a, _, _| first(bits_of(a, 32).into_iter(), 1)),
        op("s_ff1_i32_b64", B32, &[B64], |_, a, _, _| first(bits_of(a, 64).into_iter(), 1)),
        op("s_ctz_i32_b32", B32, &[B32], |_, a, _, _| first(bits_of(a, 32).into_iter(), 1)),
        op("s_ctz_i32_b64", B32, &[B64], |_, a, _, _| first(bits_of(a, 64).into_iter(), 1)),
        op("s_flbit_i32_b32", B32, &[B32], |_, a, _, _| first(bits_of(a, 32).into_iter().rev(), 1)),
        op("s_flbit_i32_b64", B32, &[B64], |_, a, _, _| first(bits_of(a, 64).into_iter().rev(), 1)),
        op("s_clz_i32_u32", B32, &[B32], |_, a, _, _| first(bits_of(a, 32).into_iter().rev(), 1)),
        op("s_clz_i32_u64", B32, &[B64], |_, a, _, _| first(bits_of(a, 64).into_iter().rev(), 1)),
        op("s_flbit_i32", B32, &[B32], |_, a, _, _| sign_run(a, 32)),
        op("s_flbit_i32_i64", B32, &[B64], |_, a, _, _| sign_run(a, 64)),
        op("s_cls_i32", B32, &[B32], |_, a, _, _| sign_run(a, 32)),
        op("s_cls_i32_i64", B32, &[B64], |_, a, _, _| sign_run(a, 64)),
        op("s_sext_i32_i8", B32, &[B32], |_, a, _, _| i64::from(a as i8) as u64 & LOW),
        op("s_sext_i32_i16", B32, &[B32], |_, a, _, _| i64::from(a as i16) as u64 & LOW),
        op("s_bitset0_b32", B32, &[B32], |x, a, _, _| x.old & !(1 << (a & 31))),
        op("s_bitset1_b32", B32, &[B32], |x, a, _, _| x.old | 1 << (a & 31)),
        op("s_bitset0_b64", B64, &[B32], |x, a, _, _| x.old & !(1 << (a & 63))),
        op("s_bitset1_b64", B64, &[B32], |x, a, _, _| x.old | 1 << (a & 63)),
        op("s_abs_i32", B32, &[B32], |x, a, _, _| nonzero(x, i(a).unsigned_abs() & LOW)),
        op("s_bitreplicate_b64_b32", B64, &[B32], |_, a, _, _| {
            join(bits_of(a, 32).into_iter().flat_map(|bit| [bit, bit]))
        }),
        op("s_add_u32", B32, BB, |x, a, b, _| add_carry(x, a, b, false)),
        op("s_sub_u32", B32, BB, |x, a, b, _| sub_borrow(x, a, b, false)),
        op("s_add_co_u32", B32, BB, |x, a, b, _| add_carry(x, a, b, false)),
        op("s_sub_co_u32", B32, BB, |x, a, b, _| sub_borrow(x, a, b, false)),
        op("s_add_i32", B32, BB, |x, a, b, _| add_overflow(x, a, b)),
        op("s_sub_i32", B32, BB, |x, a, b, _| sub_overflow(x, a, b)),
        op("s_add_co_i32", B32, BB, |x, a, b, _| add_overflow(x, a, b)),
        op("s_sub_co_i32", B32, BB, |x, a, b, _| sub_overflow(x, a, b)),
        op("s_addc_u32", B32, BB, |x, a, b, _| add_carry(x, a, b, x.scc)),
        op("s_subb_u32", B32, BB, |x, a, b, _| sub_borrow(x, a, b, x.scc)),
        op("s_add_co_ci_u32", B32, BB, |x, a, b, _| add_carry(x, a, b, x.scc)),
        op("s_sub_co_ci_u32", B32, BB, |x, a, b, _| sub_borrow(x, a, b, x.scc)),
        op("s_add_nc_u64", B64, WW, |_, a, b, _| a.wrapping_add(b)),
        op("s_sub_nc_u64", B64, WW, |_, a, b, _| a.wrapping_sub(b)),
        op("s_mul_u64", B64, WW, |_, a, b, _| a.wrapping_mul(b)),
        op("s_min_i32", B32, BB, |x, a, b, _| {
            x.scc = i(a) < i(b);
            if x.scc { a } else { b }
        }),
        op("s_min_u32", B32, BB, |x, a, b, _| {
            x.scc = a < b;
            if x.scc { a } else { b }
        }),
        op("s_max_i32", B32, BB, |x, a, b, _| {
            x.scc = i(a) >= i(b);
            if x.scc { a } else { b }
        }),
        op("s_max_u32", B32, BB, |x, a, b, _| {
            x.scc = a >= b;
            if x.scc { a } else { b }
        }),
        op("s_cselect_b32", B32, BB, |x, a, b, _| if x.scc { a } else { b }),
        op("s_cselect_b64", B64, WW, |x, a, b, _| if x.scc { a } else { b }),
        op("s_lshl_b32", B32, BB, |x, a, b, _| nonzero(x, a << (b & 31) & LOW)),
        op("s_lshl_b64", B64, &[B64, B32], |x, a, b, _| nonzero(x, a << (b & 63))),
        op("s_lshr_b32", B32, BB, |x, a, b, _| nonzero(x, a >> (b & 31))),
        op("s_lshr_b64", B64, &[B64, B32], |x, a, b, _| nonzero(x, a >> (b & 63))),
        op("s_ashr_i32", B32, BB, |x, a, b, _| nonzero(x, (i(a) >> (b & 31)) as u64 & LOW)),
        op("s_ashr_i64", B64, &[B64, B32], |x, a, b, _| nonzero(x, (a as i64 >> (b & 63)) as u64)),
        op("s_bfm_b32", B32, BB, |_, a, b, _| (((1 << (a & 31)) - 1) << (b & 31)) & LOW),
        op("s_bfm_b64", B64, BB, |_, a, b, _| ((1 << (a & 63)) - 1) << (b & 63)),
        op("s_mul_i32", B32, BB, |_, a, b, _| a.wrapping_mul(b) & LOW),
        op("s_mul_hi_u32", B32, BB, |_, a, b, _| a * b >> 32),
        op("s_mul_hi_i32", B32, BB, |_, a, b, _| (i(a) * i(b) >> 32) as u64 & LOW),
        op("s_bfe_u32", B32, BB, |x, a, b, _| nonzero(x, extract(a, b, 32, false))),
        op("s_bfe_i32", B32, BB, |x, a, b, _| nonzero(x, extract(a, b, 32, true))),
        op("s_bfe_u64", B64, &[B64, B32], |x, a, b, _| nonzero(x, extract(a, b, 64, false))),
        op("s_bfe_i64", B64, &[B64, B32], |x, a, b, _| nonzero(x, extract(a, b, 64, true))),
        op("s_absdiff_i32", B32, BB, |x, a, b, _| {
            let difference = i64::from((i(a) - i(b)) as i32);
            nonzero(x, difference.unsigned_abs() & LOW)
        }),
        op("s_lshl1_add_u32", B32, BB, |x, a, b, _| shift_add(x, a, b, 1)),
        op("s_lshl2_add_u32", B32, BB, |x, a, b, _| shift_add(x, a, b, 2)),
        op("s_lshl3_add_u32", B32, BB, |x, a, b, _| shift_add(x, a, b, 3)),
        op("s_lshl4_add_u32", B32, BB, |x, a, b, _| shift_add(x, a, b, 4)),
        op("s_pack_ll_b32_b16", B32, BB, |_, a, b, _| a & 0xffff | (b & 0xffff) << 16),
        op("s_pack_lh_b32_b16", B32, BB, |_, a, b, _| a & 0xffff | b >> 16 << 16),
        op("s_pack_hh_b32_b16", B32, BB, |_, a, b, _| a >> 16 | b >> 16 << 16),
        op("s_pack_hl_b32_b16", B32, BB, |_, a, b, _| a >> 16 | (b & 0xffff) << 16),
        op("s_bitcmp0_b32", NONE, BB, |x, a, b, _| compared(x, a >> (b & 31) & 1 == 0)),
        op("s_bitcmp1_b32", NONE, BB, |x, a, b, _| compared(x, a >> (b & 31) & 1 == 1)),
        op("s_bitcmp0_b64", NONE, &[B64, B32], |x, a, b, _| compared(x, a >> (b & 63) & 1 == 0)),
        op("s_bitcmp1_b64", NONE, &[B64, B32], |x, a, b, _| compared(x, a >> (b & 63) & 1 == 1)),
        op("s_movk_i32", B32, &[K16], |_, a, _, _| i64::from(a as i16) as u64 & LOW),
        op("s_cmovk_i32", B32, &[K16], |x, a, _, _| {
            if x.scc { i64::from(a as i16) as u64 & LOW } else { x.old }
        }),
        op("s_addk_i32", B32, &[K16], |x, a, _, _| {
            add_overflow(x, x.old, i64::from(a as i16) as u64 & LOW)
        }),
        op("s_addk_co_i32", B32, &[K16], |x, a, _, _| {
            add_overflow(x, x.old, i64::from(a as i16) as u64 & LOW)
        }),
        op("s_mulk_i32", B32, &[K16], |x, a, _, _| (i(x.old) * i64::from(a as i16)) as u64 & LOW),
        op("s_cvt_f32_i32", S, &[B32], |x, a, _, _| {
            x.lane.result(F32, crate::exact::integer(i(a).into()))
        }),
        op("s_cvt_f32_u32", S, &[B32], |x, a, _, _| {
            x.lane.result(F32, crate::exact::integer(a.into()))
        }),
        op("s_cvt_i32_f32", B32, &[S], |x, a, _, _| to_int(&x.lane, F32, a, 32, true)),
        op("s_cvt_u32_f32", B32, &[S], |x, a, _, _| to_int(&x.lane, F32, a, 32, false)),
        op("s_cvt_f16_f32", H, &[S], |x, a, _, _| convert(&x.lane, F32, F16, a)),
        op("s_cvt_f32_f16", S, &[H], |x, a, _, _| convert(&x.lane, F16, F32, a)),
        op("s_cvt_hi_f32_f16", S, &[B32], |x, a, _, _| convert(&x.lane, F16, F32, a >> 16)),
        op("s_cvt_pk_rtz_f16_f32", T::PkF16, &[S, S], |x, a, b, _| {
            pair_of_halves(&mut x.lane, &[a, b, 0, 0], Round::Zero)
        }),
        op("s_fmaak_f32", S, &[S, S, K32], |x, a, b, c| fma(&x.lane, F32, a, b, c)),
        op("s_fmamk_f32", S, &[S, K32, S], |x, a, b, c| fma(&x.lane, F32, a, b, c)),
    ];
    both!(list, "not", &[B32], &[B64], |x, a, _b| !a);
    both!(list, "and", BB, WW, |x, a, b| a & b);
    both!(list, "or", BB, WW, |x, a, b| a | b);
    both!(list, "xor", BB, WW, |x, a, b| a ^ b);
    both!(list, "andn2", BB, WW, |x, a, b| a & !b);
    both!(list, "orn2", BB, WW, |x, a, b| a | !b);
    both!(list, "and_not1", BB, WW, |x, a, b| a & !b);
    both!(list, "or_not1", BB, WW, |x, a, b| a | !b);
    both!(list, "nand", BB, WW, |x, a, b| !(a & b));
    both!(list, "nor", BB, WW, |x, a, b| !(a | b));
    both!(list, "xnor", BB, WW, |x, a, b| !(a ^ b));
    both!(list, "wqm", &[B32], &[B64], |x, a, _b| whole_quads(a, 64));
    both!(list, "quadmask", &[B32], &[B64], |x, a, _b| quads(a, 64));
    exec_pair!(list, "and_saveexec", save, |s, exec| s & exec);
    exec_pair!(list, "or_saveexec", save, |s, exec| s | exec);
    exec_pair!(list, "xor_saveexec", save, |s, exec| s ^ exec);
    exec_pair!(list, "nand_saveexec", save, |s, exec| !(s & exec));
    exec_pair!(list, "nor_saveexec", save, |s, exec| !(s | exec));
    exec_pair!(list, "xnor_saveexec", save, |s, exec| !(s ^ exec));
    exec_pair!(list, "andn1_saveexec", save, |s, exec| !s & exec);
    exec_pair!(list, "andn2_saveexec", save, |s, exec| s & !exec);
    exec_pair!(list, "orn1_saveexec", save, |s, exec| !s | exec);
    exec_pair!(list, "orn2_saveexec", save, |s, exec| s | !exec);
    exec_pair!(list, "and_not0_saveexec", save, |s, exec| !s & exec);
    exec_pair!(list, "and_not1_saveexec", save, |s, exec| s & !exec);
    exec_pair!(list, "or_not0_saveexec", save, |s, exec| !s | exec);
    exec_pair!(list, "or_not1_saveexec", save, |s, exec| s | !exec);
    exec_pair!(list, "andn1_wrexec", write, |s, exec| !s & exec);
    exec_pair!(list, "andn2_wrexec", write, |s, exec| s & !exec);
    exec_pair!(list, "and_not0_wrexec", write, |s, exec| !s & exec);
    exec_pair!(list, "and_not1_wrexec", write, |s, exec| s & !exec);
    integer_compare!(list, "eq", ==);
    integer_compare!(list, "lg", !=);
    integer_compare!(list, "gt", >);
    integer_compare!(list, "ge", >=);
    integer_compare!(list, "lt", <);
    integer_compare!(list, "le", <=);
    scalar_floats!(list, "f32", S, F32);
    scalar_floats!(list, "f16", H, F16);
    list
}

#[derive(Clone)]
enum Place {
    Register(usize),
    Constant(String, u64),
}

struct Form<'a> {
    op: &'a Op,
    text: String,
    dst: usize,
    src: Vec<Place>,
    cross: bool,
}

fn text_of(op: &Op, dst: usize, src: &[Place]) -> String {
    let mut list = Vec::new();
    if op.dst != NONE {
        list.push(scalar_text(dst, op.dst.rows()));
    }
    for (place, t) in src.iter().zip(op.src) {
        list.push(match place {
            Place::Register(index) => scalar_text(*index, t.rows()),
            Place::Constant(text, _) => text.clone(),
        });
    }
    format!("{} {}", op.name, list.join(", "))
}

fn forms<'a>(op: &'a Op, random: &mut Random) -> Vec<Form<'a>> {
    const SRC: [usize; 3] = [2, 4, 6];
    let mut list = Vec::new();
    let mut push = |dst: usize, src: Vec<Place>, cross: bool| {
        list.push(Form { op, text: text_of(op, dst, &src), dst, src, cross });
    };
    let plain = |random: &mut Random| -> Vec<Place> {
        let place = |(index, t): (usize, &T)| match t {
            T::K16 => {
                let value = random.pick(T::B16.edges());
                Place::Constant(format!("{value:#x}"), value)
            }
            T::K32 => {
                let value = T::F32.sample(random) | 0x400;
                Place::Constant(format!("{value:#x}"), value)
            }
            _ => Place::Register(SRC[index]),
        };
        op.src.iter().enumerate().map(place).collect()
    };
    push(10, plain(random), true);
    if op.src.iter().any(|t| matches!(t, T::K16 | T::K32)) {
        for _ in 0..16 {
            push(10, plain(random), false);
        }
    }
    for index in 0..op.src.len() {
        let t = op.src[index];
        if matches!(t, T::K16 | T::K32) {
            continue;
        }
        let with = |place: Place, random: &mut Random| {
            let mut src = plain(random);
            src[index] = place;
            src
        };
        push(SRC[index], plain(random), false);
        for (text, bits) in crate::vector::constants(t) {
            push(10, with(Place::Constant(text, bits), random), false);
        }
        for _ in 0..2 {
            let (text, bits) = crate::vector::literal(t, random);
            push(10, with(Place::Constant(text, bits), random), false);
        }
        for register in [VCC, EXEC, M0] {
            push(10, with(Place::Register(register), random), false);
        }
    }
    push(VCC, plain(random), false);
    if op.dst.rows() == 1 {
        push(M0, plain(random), false);
    }
    list
}

/// Plain lines of the table's instructions, for the list of what is covered.
pub fn lines() -> Vec<String> {
    let mut list = Vec::new();
    for op in &table() {
        list.extend(forms(op, &mut Random::of(op.name)).into_iter().take(1).map(|form| form.text));
    }
    list.extend(HINTS.map(str::to_string));
    list
}

/// A 32-bit and a 64-bit place hold the value of a scalar source.
fn read(bench: &Bench, t: T, place: &Place) -> u64 {
    match place {
        Place::Register(index) if t.rows() == 2 => bench.state.pair(*index),
        Place::Register(index) => {
            let bits = u64::from(bench.state.s[*index]);
            if t.is_half() { bits & 0xffff } else { bits }
        }
        Place::Constant(_, bits) => *bits,
    }
}

fn set(bench: &mut Bench, t: T, place: &Place, value: u64) {
    let Place::Register(index) = place else { return };
    // M0 and the high half of EXEC have their own width.
    let cut = *index == EXEC && bench.state.lanes == 32;
    bench.state.s[*index] = value as u32;
    if t.rows() == 2 {
        bench.state.s[*index + 1] = if cut { 0 } else { (value >> 32) as u32 };
    }
}

const MODES: [u32; 6] = [0xf0, 0x2f0, 0x00, 0x1f5, 0x3fa, 0x30f];

fn run(bench: &mut Bench, line: usize, form: &Form<'_>, random: &mut Random) -> Result<(), String> {
    let edges: Vec<&[u64]> = form.op.src.iter().map(|t| t.edges()).collect();
    let pairs = match edges.len() {
        1 => edges[0].len(),
        2 => edges[0].len() * edges[1].len(),
        _ => 200,
    };
    let times = if form.cross { pairs } else { 12 };
    for time in 0..times {
        bench.set_exec(random.bits());
        bench.state.scc = random.once_in(2);
        bench.state.mode = if form.cross { 0xf0 } else { MODES[time % MODES.len()] };
        let mut at = time;
        for (index, place) in form.src.iter().enumerate() {
            let t = form.op.src[index];
            let mut value = t.sample(random);
            if form.cross && edges.len() < 3 && !t.is_packed() {
                value = edges[index][at % edges[index].len()];
                at /= edges[index].len();
            }
            set(bench, t, place, value);
        }
        let rows = form.op.dst.rows();
        if form.op.dst != NONE && form.dst == 10 {
            let old = form.op.dst.sample(random);
            bench.state.s[10] = old as u32;
            bench.state.s[11] = random.bits() as u32;
        }
        let values: Vec<u64> =
            form.src.iter().zip(form.op.src).map(|(place, t)| read(bench, *t, place)).collect();
        let old =
            if rows == 2 { bench.state.pair(form.dst) } else { bench.state.s[form.dst].into() };
        let exec = bench.state.pair(EXEC);
        let lane = Lane::new(bench.state.chip, bench.state.mode);
        let mut scalar = Scalar { lane, scc: bench.state.scc, exec, old };
        bench.sync_scalars();
        let value = |index: usize| values.get(index).copied().unwrap_or(0);
        let result = (form.op.f)(&mut scalar, value(0), value(1), value(2));
        // A mask of 32 bits leaves the other half of EXEC alone.
        let saved = form.op.name.contains("exec");
        if saved {
            let high = if form.op.dst == B32 { exec & !LOW } else { 0 };
            bench.set_exec(scalar.exec & if form.op.dst == B32 { LOW } else { u64::MAX } | high);
        }
        bench.state.scc = scalar.scc;
        bench.step(line)?;
        if form.op.dst != NONE && form.dst != NULL {
            let got = if rows == 2 {
                bench.wave.pair(form.dst)
            } else {
                u64::from(bench.wave.sgpr[form.dst])
            };
            let half = form.op.dst.is_half();
            let same = got == result
                || half && got & 0xffff == result
                || same_nan(form.op.dst, got, result)
                || scalar.lane.also.contains(&got);
            if !same {
                let sources: Vec<String> = values.iter().map(|v| format!("{v:#x}")).collect();
                return Err(format!(
                    "{got:#x}, should be {result:#x}; sources {}, old {old:#x}, mode {:#x}",
                    sources.join(" "),
                    bench.state.mode
                ));
            }
            bench.state.s[form.dst] = got as u32;
            if rows == 2 {
                bench.state.s[form.dst + 1] = (got >> 32) as u32;
            }
        }
        if let Some(difference) = bench.difference(0..if time == 0 { NAMED } else { 0 }) {
            let sources: Vec<String> = values.iter().map(|v| format!("{v:#x}")).collect();
            return Err(format!("{difference}; sources {}", sources.join(" ")));
        }
    }
    Ok(())
}

fn same_nan(t: T, got: u64, want: u64) -> bool {
    let Some(format) = t.format() else { return false };
    let width = t.element_bits();
    let mask = (1 << width) - 1;
    let one = |got: u64, want: u64| got == want || format.is_nan(got) && format.is_nan(want);
    let low = one(got & mask, want & mask);
    low && (!t.is_packed() || one(got >> width & mask, want >> width & mask))
}

#[test]
fn scalar_arithmetic() {
    let table = table();
    let report = Report::default();
    let narrow = Chip::ALL.map(|chip| (chip, if chip.is_cdna() { 64 } else { 32 }));
    let wide = Chip::ALL.into_iter().filter(|chip| chip.is_rdna()).map(|chip| (chip, 64));
    for (chip, lanes) in narrow.into_iter().chain(wide) {
        // The 64-bit forms that write the execution mask are for waves of 64 lanes.
        let fits = |op: &&Op| {
            let masks = op.name.contains("exec_");
            let wide = op.name.ends_with("b64");
            if lanes == 32 { !(masks && wide) } else { chip.is_cdna() || masks && wide }
        };
        let mut all = Vec::new();
        for op in table.iter().filter(|op| wanted(op.name)).filter(fits) {
            all.extend(forms(op, &mut Random::of(op.name)));
        }
        let lines: Vec<String> = all.iter().map(|form| form.text.clone()).collect();
        let mut bench = Bench::new(chip, lanes, &lines);
        for (line, form) in all.iter().enumerate() {
            if !bench.has(line) {
                continue;
            }
            let mut random = Random::of(&form.text);
            if let Err(text) = run(&mut bench, line, form, &mut random) {
                report.fail(chip, form.op.name, || format!("{}: {text}", form.text));
                bench.resync();
            }
            report.count();
        }
    }
    report.finish(5000);
}

/// Instructions that a program cannot tell from nothing.
const HINTS: [&str; 58] = [
    "s_nop 0",
    "s_nop 7",
    "s_waitcnt vmcnt(0) lgkmcnt(0)",
    "s_waitcnt vmcnt(3)",
    "s_waitcnt_vscnt null, 0x0",
    "s_waitcnt_vmcnt null, 0x0",
    "s_waitcnt_expcnt null, 0x0",
    "s_waitcnt_lgkmcnt null, 0x0",
    "s_waitcnt_depctr 0xfffe",
    "s_wait_loadcnt 0x0",
    "s_wait_storecnt 0x0",
    "s_wait_samplecnt 0x0",
    "s_wait_bvhcnt 0x0",
    "s_wait_expcnt 0x0",
    "s_wait_dscnt 0x0",
    "s_wait_kmcnt 0x0",
    "s_wait_loadcnt_dscnt 0x0",
    "s_wait_storecnt_dscnt 0x0",
    "s_wait_alu 0xfffe",
    "s_wait_idle",
    "s_delay_alu instid0(VALU_DEP_1)",
    "s_clause 0x3",
    "s_setprio 1",
    "s_set_inst_prefetch_distance 0x3",
    "s_inst_prefetch 0x3",
    "s_icache_inv",
    "s_dcache_inv",
    "s_dcache_wb",
    "s_dcache_inv_vol",
    "s_dcache_wb_vol",
    "s_gl1_inv",
    "s_ttracedata_imm 0x1",
    "s_incperflevel 1",
    "s_decperflevel 1",
    "s_sendmsg sendmsg(MSG_DEALLOC_VGPRS)",
    "s_prefetch_data s[2:3], 0x0, s4, 0",
    "s_prefetch_data_pc_rel 0x10, s4, 0",
    "s_prefetch_inst s[2:3], 0x0, s4, 0",
    "s_prefetch_inst_pc_rel 0x10, s4, 0",
    "s_buffer_prefetch_data s[8:11], 0x0, s4, 0",
    "s_wait_event 0x1",
    "s_wakeup",
    "s_sendmsg sendmsg(MSG_INTERRUPT)",
    "s_version UC_VERSION_W64_BIT",
    "v_nop",
    "v_nop_e32",
    "buffer_wbl2 sc1",
    "buffer_wbl2",
    "buffer_invl2",
    "buffer_inv sc1",
    "buffer_wbinvl1",
    "buffer_wbinvl1_vol",
    "buffer_gl0_inv",
    "buffer_gl1_inv",
    "global_inv scope:SCOPE_DEV",
    "global_wb scope:SCOPE_DEV",
    "global_wbinv scope:SCOPE_SYS",
    "ds_nop",
];

/// Waits, hints and priorities change nothing that a program sees.
#[test]
fn hints_change_nothing() {
    let report = Report::default();
    for chip in Chip::ALL {
        let lanes = if chip.is_cdna() { 64 } else { 32 };
        let mut bench = Bench::new(chip, lanes, &HINTS.map(str::to_string));
        for (line, text) in HINTS.iter().enumerate().filter(|(line, _)| wanted(HINTS[*line])) {
            if !bench.has(line) {
                continue;
            }
            let name = text.split(' ').next().expect("a mnemonic");
            let outcome = bench.step(line).err().or_else(|| bench.difference(0..NAMED));
            if let Some(wrong) = outcome {
                report.fail(chip, name, || format!("{text}: {wrong}"));
                bench.resync();
            }
            if bench.wave.state != WaveState::Running && !text.contains("s_sleep") {
                report.fail(chip, name, || format!("{text}: the wave is {:?}", bench.wave.state));
                bench.wave.state = WaveState::Running;
            }
            report.count();
        }
    }
    report.finish(if std::env::var("CONFORM_ONLY").is_ok() { 0 } else { 90 });
}
