//! Floating-point operations of one lane.

use std::cmp::Ordering;

use super::op;
use crate::exact::{self, BF16, F16, F32, F64, Format, Num, Round, compare, mul, zero};
use crate::values::T::{self, B16, B32, K16, K32};
use crate::vector::{ACC, CARRY_OUT, EITHER, KEEP, Lane, Op, VCC_IN, check, ulp};

const NAN: Num = Num::Nan;

/// Sum of two sources.
pub fn add(l: &Lane, format: Format, a: u64, b: u64) -> u64 {
    let sum = exact::add(l.num(format, a), l.num(format, b), l.round(format));
    l.result(format, sum)
}

/// Difference.
pub fn sub(l: &Lane, format: Format, a: u64, b: u64) -> u64 {
    add(l, format, a, if format.is_nan(b) { b } else { b ^ format.sign() })
}

/// Product.
pub fn times(l: &Lane, format: Format, a: u64, b: u64) -> u64 {
    l.result(format, mul(l.num(format, a), l.num(format, b)))
}

/// Fused product and sum.
pub fn fma(l: &Lane, format: Format, a: u64, b: u64, c: u64) -> u64 {
    let product = mul(l.num(format, a), l.num(format, b));
    l.result(format, exact::add(product, l.num(format, c), l.round(format)))
}

/// Product and sum, each rounded.
fn mad(l: &Lane, format: Format, a: u64, b: u64, c: u64) -> u64 {
    let product = times(l, format, a, b);
    add(l, format, product, c)
}

/// Single precision where zero times anything is plus zero.
fn is_zero(l: &Lane, bits: u64) -> bool {
    l.num(F32, bits).is_zero()
}

fn less(format: Format, a: u64, b: u64) -> bool {
    // Minus zero is below plus zero.
    match compare(format.value(a), format.value(b)) {
        Some(Ordering::Less) => true,
        Some(Ordering::Equal) => a & format.sign() != 0 && b & format.sign() == 0,
        _ => false,
    }
}

fn quiet(format: Format, bits: u64) -> u64 {
    bits | 1 << (format.fraction - 1)
}

/// Minimum or maximum that prefers numbers to NaNs.
pub fn extreme(l: &Lane, format: Format, a: u64, b: u64, largest: bool) -> u64 {
    let (a, b) = (l.flushed(format, a), l.flushed(format, b));
    let both = format.is_nan(a) && format.is_nan(b);
    let signaling = format.is_signaling(a) || format.is_signaling(b);
    let chosen = if both && signaling && !l.ieee() {
        // Without IEEE mode a NaN passes as it is, or quiet: either is taken for the other.
        format.infinity() | 1
    } else if l.ieee() && format.is_signaling(a) {
        quiet(format, a)
    } else if l.ieee() && format.is_signaling(b) {
        quiet(format, b)
    } else if format.is_nan(a) && format.is_nan(b) {
        // Whether the result is quiet depends on the chip; either is a NaN.
        quiet(format, a)
    } else if format.is_nan(a) {
        b
    } else if format.is_nan(b) {
        a
    } else if less(format, a, b) != largest {
        a
    } else {
        b
    };
    l.flush_result(format, chosen)
}

/// Minimum or maximum that any NaN makes NaN.
pub fn strict_extreme(l: &Lane, format: Format, a: u64, b: u64, largest: bool) -> u64 {
    if format.is_nan(a) || format.is_nan(b) {
        return format.nan();
    }
    extreme(l, format, a, b, largest)
}

/// Median of three, of the two smaller ones the larger; with a NaN the minimum.
fn median(l: &Lane, format: Format, s: &[u64; 4]) -> u64 {
    let s = [s[0], s[1], s[2]].map(|bits| l.flushed(format, bits));
    if s.iter().any(|bits| format.is_nan(*bits)) {
        let low = extreme(l, format, s[0], s[1], false);
        return extreme(l, format, low, s[2], false);
    }
    let high = extreme(l, format, s[0], s[1], true);
    let high = extreme(l, format, high, s[2], true);
    let equal =
        |bits: u64| compare(format.value(high), format.value(bits)) == Some(Ordering::Equal);
    if equal(s[0]) {
        extreme(l, format, s[1], s[2], true)
    } else if equal(s[1]) {
        extreme(l, format, s[0], s[2], true)
    } else {
        extreme(l, format, s[0], s[1], true)
    }
}

/// An integral value.
pub fn to_integral(l: &Lane, format: Format, bits: u64, round: Round) -> u64 {
    l.result(format, l.num(format, bits).to_integer(round))
}

fn fract(l: &mut Lane, format: Format, bits: u64) -> u64 {
    let value = l.num(format, bits);
    let floor = value.to_integer(Round::Down);
    if matches!(value, Num::Inf(_)) {
        return format.nan();
    }
    let difference = exact::add(value, floor.negate(), l.round(format));
    let result = l.result(format, difference);
    // Below one by definition; whether rounding may reach one is not said.
    let one = (format.bias as u64) << format.fraction;
    if result == one {
        l.also.push(one - 1);
    }
    if difference.is_zero() {
        l.also.extend([0, format.sign()]);
    }
    result
}

fn ldexp(l: &mut Lane, format: Format, bits: u64, power: i64) -> u64 {
    let power = power.clamp(-5000, 5000) as i32;
    l.result(format, l.num(format, bits).scale(power))
}

/// Mantissa in [0.5, 1) and exponent of a finite value other than zero.
fn split(value: Num) -> Option<(Num, i32)> {
    match value {
        Num::Val { negative, mantissa, exponent } if mantissa != 0 => {
            let top = 128 - mantissa.leading_zeros() as i32;
            Some((Num::Val { negative, mantissa, exponent: -top }, exponent + top))
        }
        _ => None,
    }
}

/// No document says whether these flush denormals as the mode says.
fn frexp_mant(l: &mut Lane, format: Format, bits: u64) -> u64 {
    let kept = format.value(bits);
    l.also.push(l.result(format, split(kept).map_or(kept, |(mantissa, _)| mantissa)));
    let value = l.num(format, bits);
    l.result(format, split(value).map_or(value, |(mantissa, _)| mantissa))
}

fn frexp_exp(l: &mut Lane, format: Format, bits: u64, mask: u64) -> u64 {
    let exponent = |value: Num| split(value).map_or(0, |(_, exponent)| exponent as u64) & mask;
    l.also.push(exponent(format.value(bits)));
    exponent(l.num(format, bits))
}

/// A function by the host's double precision: exact enough for single and half.
fn by_host(l: &mut Lane, format: Format, bits: u64, f: fn(f64) -> f64) -> u64 {
    let bits_in =
        if format.exponent == 8 { flush_always(format, bits) } else { l.flushed(format, bits) };
    let result = f(format.value(bits_in).to_f64());
    let rounded = format.round(Num::from_f64(result), Round::Even);
    if format.exponent == 8 && format.is_denormal(bits) {
        // Singles that are denormal count as zero in these units; chips that take them say so.
        let other = f(format.value(bits).to_f64());
        l.also.push(format.round(Num::from_f64(other), Round::Even));
    }
    if format.is_denormal(rounded) || rounded == 1 << format.fraction {
        l.also.extend([rounded & format.sign(), rounded]);
    }
    rounded
}

fn flush_always(format: Format, bits: u64) -> u64 {
    if format.is_denormal(bits) { bits & format.sign() } else { bits }
}

/// Sine and cosine of revolutions, to an absolute error.
fn wave(l: &mut Lane, format: Format, bits: u64, f: fn(f64) -> f64) -> u64 {
    let value = l.num(format, bits).to_f64();
    if value.is_infinite() || value.is_nan() {
        return format.nan();
    }
    // Beyond 256 revolutions the units differ.
    l.skip = value.abs() > 256.0;
    let want = f((value - value.floor()) * std::f64::consts::TAU);
    let step = if format.fraction == 10 { 2_f64.powi(-11) } else { 2_f64.powi(-22) };
    // Absolute error: every pattern within a step of the value will do; a few are listed.
    let low = format.round(Num::from_f64(want - step), Round::Even);
    let high = format.round(Num::from_f64(want + step), Round::Even);
    l.range = Some((format.value(low).to_f64(), format.value(high).to_f64()));
    format.round(Num::from_f64(want), Round::Even)
}

fn rcp(x: f64) -> f64 {
    1.0 / x
}

fn rsq(x: f64) -> f64 {
    if x == 0.0 { 1.0 / x } else { 1.0 / x.sqrt() }
}

fn log2(x: f64) -> f64 {
    if x < 0.0 { f64::NAN } else { x.log2() }
}

fn sin(x: f64) -> f64 {
    x.sin()
}

fn cos(x: f64) -> f64 {
    x.cos()
}

fn double_function(l: &mut Lane, bits: u64, f: fn(f64) -> f64) -> u64 {
    let result = f(f64::from_bits(l.flushed(F64, bits)));
    if F64.is_denormal(result.to_bits()) {
        l.also.push(result.to_bits() & F64.sign());
    }
    result.to_bits()
}

fn field(format: Format, bits: u64) -> i64 {
    (format.magnitude(bits) >> format.fraction) as i64
}

fn div_fixup(l: &mut Lane, format: Format, s: &[u64; 4]) -> u64 {
    let [quotient, denominator, numerator] = [s[0], s[1], s[2]];
    let sign = (denominator ^ numerator) & format.sign();
    let default = format.nan() | format.sign();
    if [s[1], s[2]].iter().any(|bits| format.is_denormal(*bits)) {
        // Whether denormals count depends on the mode, and only the quotient's does by the text.
        l.skip = l.flushed(format, 1) == 0;
    }
    let is_zero = |bits| format.magnitude(bits) == 0;
    if format.is_nan(numerator) || format.is_nan(denominator) {
        format.nan()
    } else if is_zero(denominator) && is_zero(numerator) {
        default
    } else if format.is_infinite(denominator) && format.is_infinite(numerator) {
        default
    } else if is_zero(denominator) || format.is_infinite(numerator) {
        sign | format.infinity()
    } else if format.is_infinite(denominator) || is_zero(numerator) {
        sign
    } else {
        let limit = if format == F64 { -1075 } else { -150 };
        if format != F16 && field(format, numerator) - field(format, denominator) < limit {
            l.skip = true;
        }
        if format.is_nan(quotient) {
            // Chips were seen to take it for an overflow; halves keep it.
            let kept = sign | format.magnitude(quotient);
            return if format == F16 { kept } else { sign | format.infinity() };
        }
        if format.is_denormal(quotient) {
            // A sign is set; nothing says whether a denormal is flushed.
            l.also.push(sign);
        }
        sign | format.magnitude(quotient)
    }
}

fn div_fmas(l: &mut Lane, format: Format, s: &[u64; 4], power: i32) -> u64 {
    let product = mul(l.num(format, s[0]), l.num(format, s[1]));
    let sum = exact::add(product, l.num(format, s[2]), l.round(format));
    if !l.carry {
        return l.result(format, sum);
    }
    // Chips were seen to scale by the size of the addend: up from two on, down below.
    let large = field(format, s[2]) > format.bias.into();
    let power = if large { power } else { -power };
    let rounded = l.result(format, sum);
    l.also.push(l.result(format, format.value(rounded).scale(power)));
    l.result(format, sum.scale(power))
}

/// Below the least normal value.
fn tiny(format: Format, value: Num) -> bool {
    match value {
        Num::Val { mantissa, exponent, .. } => {
            mantissa != 0 && exponent + 127 - mantissa.leading_zeros() as i32 <= -format.bias
        }
        _ => false,
    }
}

/// Long division with enough bits to tell a denormal quotient from a normal one.
fn quotient(a: Num, b: Num) -> Num {
    match (a, b) {
        (
            Num::Val { negative: an, mantissa: am, exponent: ae },
            Num::Val { negative: bn, mantissa: bm, exponent: be },
        ) if bm != 0 && am != 0 => {
            let up = am.leading_zeros() as i32 - 1;
            let wide = (am << up) / bm;
            let rest = u128::from((am << up) % bm != 0);
            Num::Val { negative: an != bn, mantissa: wide << 1 | rest, exponent: ae - up - be - 1 }
        }
        _ => zero(false),
    }
}

fn div_scale(l: &mut Lane, format: Format, s: &[u64; 4], near: i64, power: i32, least: i64) -> u64 {
    let [value, denominator, numerator] = [s[0], s[1], s[2]];
    let odd = |bits| format.is_nan(bits) || format.is_infinite(bits) || format.is_denormal(bits);
    // NaNs, infinities and denormals (which some modes flush) are left to what follows.
    l.skip = odd(value) || odd(denominator) || odd(numerator);
    let is_zero = |bits| format.magnitude(bits) == 0;
    let scaled = |power: i32| format.round(format.value(value).scale(power), Round::Even);
    // Chips were seen to set the mask for zeros.
    l.out = is_zero(numerator) || is_zero(denominator);
    if l.out {
        return format.nan();
    }
    let one = Num::Val { negative: false, mantissa: 1, exponent: 0 };
    let reciprocal = tiny(format, quotient(one, format.value(denominator)));
    let small = tiny(format, quotient(format.value(numerator), format.value(denominator)));
    // Units that look at exponents alone decide otherwise at the edge.
    let top = i64::from(format.bias) * 2 - 1;
    let distance = field(format, numerator) - field(format, denominator);
    l.skip |= reciprocal != (field(format, denominator) >= top);
    l.skip |= small != (distance <= 1 - i64::from(format.bias));
    if field(format, numerator) - field(format, denominator) >= near {
        l.out = true;
        if value == denominator { scaled(power) } else { value }
    } else if reciprocal && small {
        l.out = true;
        // The documents scale up here; only scaling down gives right quotients.
        l.also.push(if value == denominator { scaled(-power) } else { value });
        if value == denominator { scaled(power) } else { value }
    } else if reciprocal {
        scaled(-power)
    } else if small {
        l.out = true;
        if value == numerator { scaled(power) } else { value }
    } else if field(format, numerator) <= least {
        scaled(power)
    } else {
        value
    }
}

/// 2/π: 1201 bits behind the point, the first one first.
const TWO_OVER_PI: [u64; 19] = [
    0xa2f9836e4e441529,
    0xfc2757d1f534ddc0,
    0xdb6295993c439041,
    0xfe5163abdebbc561,
    0xb7246e3a424dd2e0,
    0x06492eea09d1921c,
    0xfe1deb1cb129a73e,
    0xe88235f52ebb4484,
    0xe99c7026b45f7e41,
    0x3991d639835339f4,
    0x9c845f8bbdf9283b,
    0x1ff897ffde05980f,
    0xef2f118b5a0a6d1f,
    0x6d367ecf27cb09b7,
    0x4f463f669e5fea2d,
    0x7527bac7ebe5f17b,
    0x3d0739f78a5292ea,
    0x6bfb5fb11f8d5d08,
    0x56033046fc7b0000,
];

fn trig_preop(l: &mut Lane, s: &[u64; 4]) -> u64 {
    let exponent = field(F64, s[0]);
    let shift = (s[1] & 31) as i64 * 53 + (exponent - 1077).max(0);
    let bit = |index: i64| match usize::try_from(index) {
        Ok(index) if index < 1201 => TWO_OVER_PI[index / 64] >> (63 - index % 64) & 1,
        _ => 0,
    };
    let mantissa = (0..53).fold(0, |all, i| all << 1 | u128::from(bit(shift + i)));
    let scale = -53 - shift as i32 + if exponent >= 1968 { 128 } else { 0 };
    // Rounding is toward zero in every mode.
    let segment = Num::Val { negative: false, mantissa, exponent: scale };
    l.flush_result(F64, F64.round(segment, Round::Zero))
}

/// The axis of a cube map's face: 0 x, 1 y, 2 z.
fn major(s: &[u64; 4]) -> usize {
    let size = |index: usize| F32.value(F32.magnitude(s[index]));
    let at_least = |a: usize, b: usize| {
        matches!(compare(size(a), size(b)), Some(Ordering::Greater | Ordering::Equal))
    };
    if at_least(2, 0) && at_least(2, 1) {
        2
    } else if at_least(1, 0) {
        1
    } else {
        0
    }
}

fn below_zero(bits: u64) -> bool {
    compare(F32.value(bits), zero(false)) == Some(Ordering::Less)
}

fn cube(l: &mut Lane, s: &[u64; 4], f: fn(&[u64; 4], usize) -> u64) -> u64 {
    let odd = |bits: &u64| F32.is_nan(*bits) || F32.is_denormal(*bits);
    l.skip = s[..3].iter().any(odd);
    f(s, major(s))
}

fn f32_bits(value: f32) -> u64 {
    u64::from(value.to_bits())
}

macro_rules! three_formats {
    ($list:ident, $suffix:literal, $t:expr, $format:expr) => {
        $list.extend([
            op(concat!("v_add_", $suffix), $t, &[$t, $t], 0, |l, s| add(l, $format, s[0], s[1])),
            op(concat!("v_mul_", $suffix), $t, &[$t, $t], 0, |l, s| times(l, $format, s[0], s[1])),
            op(concat!("v_min_", $suffix), $t, &[$t, $t], 0, |l, s| {
                extreme(l, $format, s[0], s[1], false)
            }),
            op(concat!("v_max_", $suffix), $t, &[$t, $t], 0, |l, s| {
                extreme(l, $format, s[0], s[1], true)
            }),
            op(concat!("v_min_num_", $suffix), $t, &[$t, $t], 0, |l, s| {
                extreme(l, $format, s[0], s[1], false)
            }),
            op(concat!("v_max_num_", $suffix), $t, &[$t, $t], 0, |l, s| {
                extreme(l, $format, s[0], s[1], true)
            }),
            op(concat!("v_minimum_", $suffix), $t, &[$t, $t], 0, |l, s| {
                strict_extreme(l, $format, s[0], s[1], false)
            }),
            op(concat!("v_maximum_", $suffix), $t, &[$t, $t], 0, |l, s| {
                strict_extreme(l, $format, s[0], s[1], true)
            }),
            op(concat!("v_fma_", $suffix), $t, &[$t, $t, $t], KEEP, |l, s| {
                fma(l, $format, s[0], s[1], s[2])
            }),
            op(concat!("v_fmac_", $suffix), $t, &[$t, $t], ACC | EITHER, |l, s| {
                fma(l, $format, s[0], s[1], l.old)
            }),
            op(concat!("v_trunc_", $suffix), $t, &[$t], 0, |l, s| {
                to_integral(l, $format, s[0], Round::Zero)
            }),
            op(concat!("v_ceil_", $suffix), $t, &[$t], 0, |l, s| {
                to_integral(l, $format, s[0], Round::Up)
            }),
            op(concat!("v_floor_", $suffix), $t, &[$t], 0, |l, s| {
                to_integral(l, $format, s[0], Round::Down)
            }),
            op(concat!("v_rndne_", $suffix), $t, &[$t], 0, |l, s| {
                to_integral(l, $format, s[0], Round::Even)
            }),
            op(concat!("v_fract_", $suffix), $t, &[$t], 0, |l, s| fract(l, $format, s[0])),
            op(concat!("v_frexp_mant_", $suffix), $t, &[$t], 0, |l, s| {
                frexp_mant(l, $format, s[0])
            }),
            op(concat!("v_div_fixup_", $suffix), $t, &[$t, $t, $t], KEEP, |l, s| {
                div_fixup(l, $format, s)
            }),
        ]);
    };
}

macro_rules! two_formats {
    ($list:ident, $suffix:literal, $t:expr, $format:expr) => {
        $list.extend([
            op(concat!("v_sub_", $suffix), $t, &[$t, $t], 0, |l, s| sub(l, $format, s[0], s[1])),
            op(concat!("v_subrev_", $suffix), $t, &[$t, $t], 0, |l, s| sub(l, $format, s[1], s[0])),
            op(concat!("v_min3_", $suffix), $t, &[$t, $t, $t], EITHER, |l, s| {
                let first = extreme(l, $format, s[0], s[1], false);
                extreme(l, $format, first, s[2], false)
            }),
            op(concat!("v_max3_", $suffix), $t, &[$t, $t, $t], EITHER, |l, s| {
                let first = extreme(l, $format, s[0], s[1], true);
                extreme(l, $format, first, s[2], true)
            }),
            op(concat!("v_min3_num_", $suffix), $t, &[$t, $t, $t], 0, |l, s| {
                let first = extreme(l, $format, s[0], s[1], false);
                extreme(l, $format, first, s[2], false)
            }),
            op(concat!("v_max3_num_", $suffix), $t, &[$t, $t, $t], 0, |l, s| {
                let first = extreme(l, $format, s[0], s[1], true);
                extreme(l, $format, first, s[2], true)
            }),
            op(concat!("v_minimum3_", $suffix), $t, &[$t, $t, $t], 0, |l, s| {
                let first = strict_extreme(l, $format, s[0], s[1], false);
                strict_extreme(l, $format, first, s[2], false)
            }),
            op(concat!("v_maximum3_", $suffix), $t, &[$t, $t, $t], 0, |l, s| {
                let first = strict_extreme(l, $format, s[0], s[1], true);
                strict_extreme(l, $format, first, s[2], true)
            }),
            op(concat!("v_med3_", $suffix), $t, &[$t, $t, $t], EITHER, |l, s| {
                median(l, $format, s)
            }),
            op(concat!("v_med3_num_", $suffix), $t, &[$t, $t, $t], 0, |l, s| median(l, $format, s)),
            op(concat!("v_maxmin_", $suffix), $t, &[$t, $t, $t], 0, |l, s| {
                let first = extreme(l, $format, s[0], s[1], true);
                extreme(l, $format, first, s[2], false)
            }),
            op(concat!("v_minmax_", $suffix), $t, &[$t, $t, $t], 0, |l, s| {
                let first = extreme(l, $format, s[0], s[1], false);
                extreme(l, $format, first, s[2], true)
            }),
            op(concat!("v_maxmin_num_", $suffix), $t, &[$t, $t, $t], 0, |l, s| {
                let first = extreme(l, $format, s[0], s[1], true);
                extreme(l, $format, first, s[2], false)
            }),
            op(concat!("v_minmax_num_", $suffix), $t, &[$t, $t, $t], 0, |l, s| {
                let first = extreme(l, $format, s[0], s[1], false);
                extreme(l, $format, first, s[2], true)
            }),
            op(concat!("v_maximumminimum_", $suffix), $t, &[$t, $t, $t], 0, |l, s| {
                let first = strict_extreme(l, $format, s[0], s[1], true);
                strict_extreme(l, $format, first, s[2], false)
            }),
            op(concat!("v_minimummaximum_", $suffix), $t, &[$t, $t, $t], 0, |l, s| {
                let first = strict_extreme(l, $format, s[0], s[1], false);
                strict_extreme(l, $format, first, s[2], true)
            }),
            op(concat!("v_rcp_", $suffix), $t, &[$t], ulp(1), |l, s| {
                by_host(l, $format, s[0], rcp)
            }),
            op(concat!("v_rsq_", $suffix), $t, &[$t], ulp(1), |l, s| {
                by_host(l, $format, s[0], rsq)
            }),
            op(concat!("v_sqrt_", $suffix), $t, &[$t], ulp(1), |l, s| {
                by_host(l, $format, s[0], f64::sqrt)
            }),
            op(concat!("v_exp_", $suffix), $t, &[$t], ulp(1), |l, s| {
                by_host(l, $format, s[0], f64::exp2)
            }),
            op(concat!("v_log_", $suffix), $t, &[$t], ulp(1), |l, s| {
                by_host(l, $format, s[0], log2)
            }),
            op(concat!("v_sin_", $suffix), $t, &[$t], 0, |l, s| wave(l, $format, s[0], sin)),
            op(concat!("v_cos_", $suffix), $t, &[$t], 0, |l, s| wave(l, $format, s[0], cos)),
        ]);
    };
}

/// The table.
pub fn table() -> Vec<Op> {
    const S: T = T::F32;
    const D: T = T::F64;
    const H: T = T::F16;
    let mut list = Vec::new();
    three_formats!(list, "f32", S, F32);
    three_formats!(list, "f64", D, F64);
    three_formats!(list, "f16", H, F16);
    two_formats!(list, "f32", S, F32);
    two_formats!(list, "f16", H, F16);
    list.extend([
        op("v_rcp_iflag_f32", S, &[S], ulp(1), |l, s| by_host(l, F32, s[0], rcp)),
        op("v_exp_legacy_f32", S, &[S], ulp(1), |l, s| by_host(l, F32, s[0], f64::exp2)),
        op("v_log_legacy_f32", S, &[S], ulp(1), |l, s| by_host(l, F32, s[0], log2)),
        op("v_rcp_f64", D, &[D], ulp(1), |l, s| double_function(l, s[0], rcp)),
        op("v_rsq_f64", D, &[D], ulp(1), |l, s| double_function(l, s[0], rsq)),
        op("v_sqrt_f64", D, &[D], ulp(1), |l, s| double_function(l, s[0], f64::sqrt)),
        op("v_frexp_exp_i32_f32", B32, &[S], 0, |l, s| frexp_exp(l, F32, s[0], 0xffff_ffff)),
        op("v_frexp_exp_i32_f64", B32, &[D], 0, |l, s| frexp_exp(l, F64, s[0], 0xffff_ffff)),
        op("v_frexp_exp_i16_f16", B16, &[H], 0, |l, s| frexp_exp(l, F16, s[0], 0xffff)),
        op("v_ldexp_f32", S, &[S, B32], 0, |l, s| ldexp(l, F32, s[0], i64::from(s[1] as i32))),
        op("v_ldexp_f64", D, &[D, B32], 0, |l, s| ldexp(l, F64, s[0], i64::from(s[1] as i32))),
        op("v_ldexp_f16", H, &[H, B16], 0, |l, s| ldexp(l, F16, s[0], i64::from(s[1] as i16))),
        op("v_mul_legacy_f32", S, &[S, S], 0, |l, s| {
            if is_zero(l, s[0]) || is_zero(l, s[1]) { 0 } else { times(l, F32, s[0], s[1]) }
        }),
        op("v_mul_dx9_zero_f32", S, &[S, S], 0, |l, s| {
            if is_zero(l, s[0]) || is_zero(l, s[1]) { 0 } else { times(l, F32, s[0], s[1]) }
        }),
        op("v_fma_dx9_zero_f32", S, &[S, S, S], 0, |l, s| dx9_fma(l, s, s[2])),
        op("v_fmac_dx9_zero_f32", S, &[S, S], ACC, |l, s| dx9_fma(l, s, l.old)),
        op("v_fma_legacy_f32", S, &[S, S, S], 0, |l, s| dx9_fma(l, s, s[2])),
        op("v_fmac_legacy_f32", S, &[S, S], ACC, |l, s| dx9_fma(l, s, l.old)),
        op("v_fmaak_f32", S, &[S, S, K32], 0, |l, s| fma(l, F32, s[0], s[1], s[2])),
        op("v_fmamk_f32", S, &[S, K32, S], 0, |l, s| fma(l, F32, s[0], s[1], s[2])),
        op("v_fmaak_f16", H, &[H, H, K16], 0, |l, s| fma(l, F16, s[0], s[1], s[2])),
        op("v_fmamk_f16", H, &[H, K16, H], 0, |l, s| fma(l, F16, s[0], s[1], s[2])),
        op("v_fma_legacy_f16", H, &[H, H, H], 0, |l, s| fma(l, F16, s[0], s[1], s[2])),
        op("v_div_fixup_legacy_f16", H, &[H, H, H], 0, |l, s| div_fixup(l, F16, s)),
        op("v_mad_f32", S, &[S, S, S], 0, mad_f32),
        op("v_mac_f32", S, &[S, S], ACC, |l, s| mad_f32(l, &[s[0], s[1], l.old, 0])),
        op("v_madak_f32", S, &[S, S, K32], 0, mad_f32),
        op("v_madmk_f32", S, &[S, K32, S], 0, mad_f32),
        op("v_mad_legacy_f32", S, &[S, S, S], 0, |l, s| {
            if s[..2].iter().any(|bits| F32.value(flush_always(F32, *bits)).is_zero()) {
                mad_f32(l, &[0, 0, s[2], 0])
            } else {
                mad_f32(l, s)
            }
        }),
        op("v_mad_f16", H, &[H, H, H], KEEP, mad_f16),
        op("v_mad_legacy_f16", H, &[H, H, H], 0, mad_f16),
        op("v_mac_f16", H, &[H, H], ACC | EITHER, |l, s| mad_f16(l, &[s[0], s[1], l.old, 0])),
        op("v_madak_f16", H, &[H, H, K16], EITHER, mad_f16),
        op("v_madmk_f16", H, &[H, K16, H], EITHER, mad_f16),
        op("v_div_fmas_f32", S, &[S, S, S], VCC_IN, |l, s| div_fmas(l, F32, s, 64)),
        op("v_div_fmas_f64", D, &[D, D, D], VCC_IN, |l, s| div_fmas(l, F64, s, 128)),
        op("v_div_scale_f32", S, &[S, S, S], CARRY_OUT, |l, s| div_scale(l, F32, s, 96, 64, 23)),
        op("v_div_scale_f64", D, &[D, D, D], CARRY_OUT, |l, s| div_scale(l, F64, s, 768, 128, 53)),
        op("v_trig_preop_f64", D, &[D, B32], 0, trig_preop),
        op("v_mullit_f32", S, &[S, S, S], 0, mullit),
        op("v_cubeid_f32", S, &[S, S, S], 0, |l, s| {
            cube(l, s, |s, axis| {
                f32_bits(2.0 * axis as f32 + if below_zero(s[axis]) { 1.0 } else { 0.0 })
            })
        }),
        op("v_cubema_f32", S, &[S, S, S], 0, |l, s| {
            let axis = major(s);
            cube(l, s, |_, _| 0);
            times(l, F32, s[axis], f32_bits(2.0))
        }),
        op("v_cubesc_f32", S, &[S, S, S], 0, |l, s| {
            cube(l, s, |s, axis| match (axis, below_zero(s[axis])) {
                (2, true) => s[0] ^ F32.sign(),
                (2, false) | (1, _) => s[0],
                (_, true) => s[2],
                (_, false) => s[2] ^ F32.sign(),
            })
        }),
        op("v_cubetc_f32", S, &[S, S, S], 0, |l, s| {
            cube(l, s, |s, axis| match (axis, below_zero(s[axis])) {
                (1, true) => s[2] ^ F32.sign(),
                (1, false) => s[2],
                _ => s[1] ^ F32.sign(),
            })
        }),
    ]);
    list
}

fn dx9_fma(l: &mut Lane, s: &[u64; 4], addend: u64) -> u64 {
    // Some units of this family flush denormals in every mode.
    let flushing = l.mode & !0x30;
    let mode = std::mem::replace(&mut l.mode, flushing);
    let flushed = if is_zero(l, s[0]) || is_zero(l, s[1]) {
        l.result(F32, l.num(F32, addend))
    } else {
        fma(l, F32, s[0], s[1], addend)
    };
    l.also.push(flushed);
    l.mode = mode;
    if is_zero(l, s[0]) || is_zero(l, s[1]) {
        // The addend itself, or added to zero: they differ for minus zero and signaling NaNs.
        l.also.push(fma(l, F32, 0, 0, addend));
        return l.result(F32, l.num(F32, addend));
    }
    fma(l, F32, s[0], s[1], addend)
}

/// Single-precision mad and mac flush denormals in every mode.
fn mad_f32(l: &mut Lane, s: &[u64; 4]) -> u64 {
    let flushing = l.mode & !0x30;
    let mode = std::mem::replace(&mut l.mode, flushing);
    let result = mad(l, F32, s[0], s[1], s[2]);
    l.mode = mode;
    result
}

/// So do those of halves: the text says it of `v_mad_f16` and is silent about the others, LLVM
/// forms none of them where MODE keeps denormals.
fn mad_f16(l: &mut Lane, s: &[u64; 4]) -> u64 {
    let flushing = l.mode & !0xc0;
    let mode = std::mem::replace(&mut l.mode, flushing);
    let result = mad(l, F16, s[0], s[1], s[2]);
    l.mode = mode;
    result
}

fn mullit(l: &mut Lane, s: &[u64; 4]) -> u64 {
    let lowest = F32.sign() | F32.largest();
    let second = F32.value(s[1]);
    let third = compare(l.num(F32, s[2]), zero(false));
    let cut = s[1] == lowest
        || second == Num::Inf(true)
        || second == NAN
        || matches!(third, None | Some(Ordering::Less | Ordering::Equal));
    if cut {
        return lowest;
    }
    // Zero times anything is zero in this family; the text does not repeat it.
    l.skip = is_zero(l, s[0]) || is_zero(l, s[1]);
    times(l, F32, s[0], s[1])
}

const _: Format = BF16;

#[test]
fn vector_floats() {
    check(&table(), 5000);
}
