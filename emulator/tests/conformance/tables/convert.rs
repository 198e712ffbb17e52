//! Conversions of one lane.

use super::op;
use crate::exact::{F16, F32, F64, Format, Num, Round, add, integer};
use crate::values::T::{self, B16, B32};
use crate::vector::{ACC, EITHER, Lane, Op, check};

const LOW: u64 = 0xffff_ffff;

/// An integer of `bits` bits, signed or not, from a number: toward zero, saturated, NaN is zero.
pub fn to_int(l: &Lane, format: Format, bits: u64, width: u32, signed: bool) -> u64 {
    to_int_rounded(l.num(format, bits), Round::Zero, width, signed)
}

fn to_int_rounded(value: Num, round: Round, width: u32, signed: bool) -> u64 {
    let (low, high) = if signed {
        (-(1_i128 << (width - 1)), (1_i128 << (width - 1)) - 1)
    } else {
        (0, (1_i128 << width) - 1)
    };
    (value.to_range(round, low, high) & ((1 << width) - 1)) as u64
}

fn from_int(l: &Lane, format: Format, value: i128) -> u64 {
    l.result(format, integer(value))
}

fn half() -> Num {
    Num::Val { negative: false, mantissa: 1, exponent: -1 }
}

/// From one format to another.
pub fn convert(l: &Lane, from: Format, to: Format, bits: u64) -> u64 {
    let result = l.result(to, l.num(from, bits));
    let overflows = to == F16 && l.mode >> 23 & 1 == 1 && F16.is_infinite(result);
    // FP16_OVFL: what is finite stays so.
    if overflows && !from.is_infinite(bits) { result & F16.sign() | F16.largest() } else { result }
}

/// To halves, in the same direction in every mode. Whether denormal ones are flushed as the mode
/// says is not documented.
pub fn pair_of_halves(l: &mut Lane, s: &[u64; 4], round: Round) -> u64 {
    let kept = [s[0], s[1]].map(|bits| F16.round(l.num(F32, bits), round));
    let flushed = kept.map(|bits| l.flush_result(F16, bits));
    l.also.push(pair_of(kept[0], kept[1]));
    pair_of(flushed[0], flushed[1])
}

fn nearest_int(l: &mut Lane, bits: u64) -> u64 {
    let value = l.num(F32, bits);
    // The sum rounded to single, or exact.
    let sum = F32.value(l.result(F32, add(value, half(), l.round(F32))));
    l.also.push(to_int_rounded(add(value, half(), Round::Even), Round::Down, 32, true));
    to_int_rounded(sum, Round::Down, 32, true)
}

/// `x * scale` to an integer: which way it is rounded is not documented.
fn normalized(l: &mut Lane, format: Format, bits: u64, signed: bool) -> [u64; 3] {
    let scale = if signed { 32767 } else { 65535 };
    let value = match l.num(format, bits) {
        Num::Nan => Num::Val { negative: false, mantissa: 0, exponent: 0 },
        Num::Inf(negative) => integer(if negative { -1 } else { 1 }),
        value => value,
    };
    let product = crate::exact::mul(value, integer(scale));
    let low = if signed { -scale } else { 0 };
    let even = product.to_range(Round::Even, low, scale);
    let up = add(product, half(), Round::Even).to_range(Round::Down, low, scale);
    let mode = product.to_range(l.round(format), low, scale);
    [even, up, mode].map(|value| value as u64 & 0xffff)
}

fn normalized_pair(l: &mut Lane, format: Format, s: &[u64; 4], signed: bool) -> u64 {
    let (a, b) = (normalized(l, format, s[0], signed), normalized(l, format, s[1], signed));
    l.also.extend(a.iter().flat_map(|a| b.map(|b| a | b << 16)));
    a[0] | b[0] << 16
}

fn normalized_one(l: &mut Lane, s: &[u64; 4], signed: bool) -> u64 {
    let both = normalized(l, F16, s[0], signed);
    l.also.extend(both);
    both[0]
}

/// A byte among the others of a register. The text says nothing of rounding; a gfx90c was seen to
/// round to nearest (with the mode's default), so truncation is wrong and another mode may count.
fn byte_among(l: &mut Lane, s: &[u64; 4], others: u64) -> u64 {
    let shift = 8 * (s[1] & 3);
    let value = l.num(F32, s[0]);
    let place = |byte: u64| others & !(0xff << shift) & LOW | byte << shift;
    l.also.push(place(to_int_rounded(value, Round::Even, 8, false)));
    place(to_int_rounded(value, l.round(F32), 8, false))
}

fn pair_of(low: u64, high: u64) -> u64 {
    low & 0xffff | high << 16 & LOW
}

/// The table.
pub fn table() -> Vec<Op> {
    const S: T = T::F32;
    const D: T = T::F64;
    const H: T = T::F16;
    vec![
        op("v_cvt_i32_f32", B32, &[S], 0, |l, s| to_int(l, F32, s[0], 32, true)),
        op("v_cvt_u32_f32", B32, &[S], 0, |l, s| to_int(l, F32, s[0], 32, false)),
        op("v_cvt_i32_f64", B32, &[D], 0, |l, s| to_int(l, F64, s[0], 32, true)),
        op("v_cvt_u32_f64", B32, &[D], 0, |l, s| to_int(l, F64, s[0], 32, false)),
        op("v_cvt_i16_f16", B16, &[H], EITHER, |l, s| to_int(l, F16, s[0], 16, true)),
        op("v_cvt_u16_f16", B16, &[H], EITHER, |l, s| to_int(l, F16, s[0], 16, false)),
        op("v_cvt_flr_i32_f32", B32, &[S], 0, |l, s| {
            to_int_rounded(l.num(F32, s[0]), Round::Down, 32, true)
        }),
        op("v_cvt_floor_i32_f32", B32, &[S], 0, |l, s| {
            to_int_rounded(l.num(F32, s[0]), Round::Down, 32, true)
        }),
        op("v_cvt_rpi_i32_f32", B32, &[S], 0, |l, s| nearest_int(l, s[0])),
        op("v_cvt_nearest_i32_f32", B32, &[S], 0, |l, s| nearest_int(l, s[0])),
        op("v_cvt_f32_i32", S, &[B32], 0, |l, s| from_int(l, F32, (s[0] as i32).into())),
        op("v_cvt_f32_u32", S, &[B32], 0, |l, s| from_int(l, F32, s[0].into())),
        op("v_cvt_f64_i32", D, &[B32], 0, |l, s| from_int(l, F64, (s[0] as i32).into())),
        op("v_cvt_f64_u32", D, &[B32], 0, |l, s| from_int(l, F64, s[0].into())),
        op("v_cvt_f16_i16", H, &[B16], 0, |l, s| from_int(l, F16, (s[0] as i16).into())),
        op("v_cvt_f16_u16", H, &[B16], 0, |l, s| from_int(l, F16, s[0].into())),
        op("v_cvt_f32_ubyte0", S, &[B32], 0, |l, s| from_int(l, F32, (s[0] & 255).into())),
        op("v_cvt_f32_ubyte1", S, &[B32], 0, |l, s| from_int(l, F32, (s[0] >> 8 & 255).into())),
        op("v_cvt_f32_ubyte2", S, &[B32], 0, |l, s| from_int(l, F32, (s[0] >> 16 & 255).into())),
        op("v_cvt_f32_ubyte3", S, &[B32], 0, |l, s| from_int(l, F32, (s[0] >> 24 & 255).into())),
        op("v_cvt_off_f32_i4", S, &[B32], 0, |_, s| {
            let value = (s[0] & 15) as i32;
            let value = if value > 7 { value - 16 } else { value };
            u64::from((value as f32 / 16.0).to_bits())
        }),
        op("v_cvt_f16_f32", H, &[S], 0, |l, s| convert(l, F32, F16, s[0])),
        op("v_cvt_f32_f16", S, &[H], 0, |l, s| convert(l, F16, F32, s[0])),
        op("v_cvt_f32_f64", S, &[D], 0, |l, s| convert(l, F64, F32, s[0])),
        op("v_cvt_f64_f32", D, &[S], 0, |l, s| convert(l, F32, F64, s[0])),
        op("v_cvt_f32_bf16", S, &[T::Bf16], 0, |l, s| {
            // A move of the bits; a unit that makes signaling NaNs quiet or flushes does as well.
            l.also.push(convert(l, crate::exact::BF16, F32, s[0]));
            s[0] << 16
        }),
        op("v_cvt_pkrtz_f16_f32", T::PkF16, &[S, S], 0, |l, s| pair_of_halves(l, s, Round::Zero)),
        op("v_cvt_pk_rtz_f16_f32", T::PkF16, &[S, S], 0, |l, s| pair_of_halves(l, s, Round::Zero)),
        op("v_cvt_pk_f16_f32", T::PkF16, &[S, S], 0, |l, s| pair_of_halves(l, s, Round::Even)),
        op("v_cvt_pk_bf16_f32", T::PkBf16, &[S, S], crate::vector::NO_CLAMP, |l, s| {
            let format = crate::exact::BF16;
            let one = |bits| format.round(l.num(F32, bits), Round::Even);
            let flushed = |bits| l.flush_result(format, one(bits));
            let (also, kept) =
                (pair_of(flushed(s[0]), flushed(s[1])), pair_of(one(s[0]), one(s[1])));
            l.also.push(also);
            kept
        }),
        op("v_cvt_pk_u8_f32", B32, &[S, B32, B32], 0, |l, s| byte_among(l, s, s[2])),
        op("v_cvt_pkaccum_u8_f32", B32, &[S, B32], ACC, |l, s| byte_among(l, s, l.old)),
        op("v_cvt_pk_i16_f32", B32, &[S, S], 0, |l, s| {
            pair_of(to_int(l, F32, s[0], 16, true), to_int(l, F32, s[1], 16, true))
        }),
        op("v_cvt_pk_u16_f32", B32, &[S, S], 0, |l, s| {
            pair_of(to_int(l, F32, s[0], 16, false), to_int(l, F32, s[1], 16, false))
        }),
        op("v_cvt_pknorm_i16_f32", B32, &[S, S], 0, |l, s| normalized_pair(l, F32, s, true)),
        op("v_cvt_pknorm_u16_f32", B32, &[S, S], 0, |l, s| normalized_pair(l, F32, s, false)),
        op("v_cvt_pk_norm_i16_f32", B32, &[S, S], 0, |l, s| normalized_pair(l, F32, s, true)),
        op("v_cvt_pk_norm_u16_f32", B32, &[S, S], 0, |l, s| normalized_pair(l, F32, s, false)),
        op("v_cvt_pknorm_i16_f16", B32, &[H, H], 0, |l, s| normalized_pair(l, F16, s, true)),
        op("v_cvt_pknorm_u16_f16", B32, &[H, H], 0, |l, s| normalized_pair(l, F16, s, false)),
        op("v_cvt_pk_norm_i16_f16", B32, &[H, H], 0, |l, s| normalized_pair(l, F16, s, true)),
        op("v_cvt_pk_norm_u16_f16", B32, &[H, H], 0, |l, s| normalized_pair(l, F16, s, false)),
        op("v_cvt_norm_i16_f16", B16, &[H], EITHER, |l, s| normalized_one(l, s, true)),
        op("v_cvt_norm_u16_f16", B16, &[H], EITHER, |l, s| normalized_one(l, s, false)),
    ]
}

#[test]
fn conversions() {
    check(&table(), 500);
}
