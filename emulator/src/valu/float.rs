//! Floating-point arithmetic: sums, products, roundings to integers, exponents.

use super::op::{F16, Mode, Op, map1, map3, mode3};
use super::real::{real1, real2, real3};
use super::{convert, divide, order, transcendental};
use crate::Chip;
use crate::arith;
use crate::number::{
    f16_to_f32, f32_to_f16, flush_f16, flush_f32, quiet_f16, quiet_f32, quiet_f64,
};

/// Mode in which everything about denormals is flushed, other things as in `mode`.
fn flushing(mode: Mode) -> Mode {
    Mode(mode.0 & !crate::wave::mode::DENORM)
}

/// A half of the exact result `high + low`, rounded once: `low` is what `high` lacks.
#[inline(always)]
fn round_sum_to_half(high: f32, low: f32) -> F16 {
    // Rounding to odd in f32 leaves the rounding to nearest in f16 right.
    let bits = high.to_bits();
    let away = (low > 0.0) == (high > 0.0);
    let odd = if away { bits.wrapping_add(1) } else { bits.wrapping_sub(1) };
    let inexact = (low != 0.0) & (bits & 1 == 0) & !low.is_nan();
    F16(f32_to_f16(f32::from_bits(if inexact { odd } else { bits })))
}

/// `a * b + c` with one rounding.
#[inline(always)]
pub fn fma_f16(a: F16, b: F16, c: F16) -> F16 {
    let product = f16_to_f32(a.0) * f16_to_f32(b.0);
    let c = f16_to_f32(c.0);
    let sum = product + c;
    // Knuth's exact error of a sum.
    let part = sum - product;
    let low = (product - (sum - part)) + (c - part);
    round_sum_to_half(sum, low)
}

/// `a + b`.
#[inline(always)]
pub fn add_f16(a: F16, b: F16) -> F16 {
    F16(f32_to_f16(f16_to_f32(a.0) + f16_to_f32(b.0)))
}

/// `a - b`.
#[inline(always)]
pub fn sub_f16(a: F16, b: F16) -> F16 {
    F16(f32_to_f16(f16_to_f32(a.0) - f16_to_f32(b.0)))
}

/// `a * b`.
#[inline(always)]
pub fn mul_f16(a: F16, b: F16) -> F16 {
    F16(f32_to_f16(f16_to_f32(a.0) * f16_to_f32(b.0)))
}

/// A product that is zero if a factor is, whatever the other one.
#[inline(always)]
fn mul_zero(mode: Mode, a: f32, b: f32) -> f32 {
    if a == 0.0 || b == 0.0 { 0.0 } else { arith::multiply(mode, a, b) }
}

/// `a * b + c` with two roundings and without denormals, as CDNA's `v_mad` has it.
#[inline(always)]
fn mad_f32(a: f32, b: f32, c: f32) -> f32 {
    let product = flush_f32(flush_f32(a) * flush_f32(b));
    flush_f32(product + flush_f32(c))
}

/// The same for halves.
#[inline(always)]
fn mad_f16(a: F16, b: F16, c: F16) -> F16 {
    let flush = |x: F16| F16(flush_f16(x.0));
    let product = flush(mul_f16(flush(a), flush(b)));
    flush(add_f16(product, flush(c)))
}

fn mad_exact<T: arith::Real>(mode: Mode, a: T, b: T, c: T) -> T {
    let mode = flushing(mode);
    arith::add(mode, arith::multiply(mode, a, b), c)
}

fn add_group(name: &str) -> Option<Op> {
    Some(match name {
        "add_f32" => real2(|a: f32, b: f32| a + b, arith::add),
        "add_f64" => real2(|a: f64, b: f64| a + b, arith::add),
        "add_f16" => real2(|a: F16, b: F16| add_f16(a, b), arith::add),
        "sub_f32" => real2(|a: f32, b: f32| a - b, arith::subtract),
        "sub_f16" => real2(|a: F16, b: F16| sub_f16(a, b), arith::subtract),
        "subrev_f32" => real2(|a: f32, b: f32| b - a, |m, a, b| arith::subtract(m, b, a)),
        "subrev_f16" => real2(|a: F16, b: F16| sub_f16(b, a), |m, a, b| arith::subtract(m, b, a)),
        "mul_f32" => real2(|a: f32, b: f32| a * b, arith::multiply),
        "mul_f64" => real2(|a: f64, b: f64| a * b, arith::multiply),
        "mul_f16" => real2(|a: F16, b: F16| mul_f16(a, b), arith::multiply),
        "mul_legacy_f32" | "mul_dx9_zero_f32" => {
            real2(|a: f32, b: f32| if (a == 0.0) | (b == 0.0) { 0.0 } else { a * b }, mul_zero)
        }
        _ => return None,
    })
}

fn fma_group(name: &str) -> Option<Op> {
    Some(match name {
        "fma_f32" | "fmaak_f32" | "fmamk_f32" | "fmac_f32" => {
            real3(|a: f32, b: f32, c: f32| a.mul_add(b, c), arith::fma)
        }
        "fma_f64" | "fmac_f64" => real3(|a: f64, b: f64, c: f64| a.mul_add(b, c), arith::fma),
        "fma_f16" | "fma_legacy_f16" | "fmaak_f16" | "fmamk_f16" | "fmac_f16" => {
            real3(|a: F16, b: F16, c: F16| fma_f16(a, b, c), arith::fma)
        }
        "fma_dx9_zero_f32" | "fma_legacy_f32" | "fmac_dx9_zero_f32" | "fmac_legacy_f32" => real3(
            |a: f32, b: f32, c: f32| {
                let (a, b, c) = (flush_f32(a), flush_f32(b), flush_f32(c));
                let is_zero = (a == 0.0) | (b == 0.0);
                flush_f32(if is_zero { c } else { a.mul_add(b, c) })
            },
            |m, a: f32, b: f32, c: f32| {
                let (a, b) = (flush_f32(a), flush_f32(b));
                let is_zero = a == 0.0 || b == 0.0;
                if is_zero { quiet_f32(flush_f32(c)) } else { arith::fma(flushing(m), a, b, c) }
            },
        ),
        "mad_f32" | "mac_f32" | "madak_f32" | "madmk_f32" => {
            real3(|a: f32, b: f32, c: f32| mad_f32(a, b, c), mad_exact)
        }
        "mad_legacy_f32" => real3(
            |a: f32, b: f32, c: f32| {
                let is_zero = (flush_f32(a) == 0.0) | (flush_f32(b) == 0.0);
                if is_zero { flush_f32(c) + 0.0 } else { mad_f32(a, b, c) }
            },
            |m, a: f32, b: f32, c: f32| {
                let mode = flushing(m);
                arith::add(mode, mul_zero(mode, flush_f32(a), flush_f32(b)), c)
            },
        ),
        "mad_f16" | "mac_f16" | "madak_f16" | "madmk_f16" | "mad_legacy_f16" => {
            real3(|a: F16, b: F16, c: F16| mad_f16(a, b, c), mad_exact)
        }
        "mullit_f32" => real3(
            |a: f32, b: f32, c: f32| if dims(b, c) { f32::MIN } else { a * b },
            |m, a: f32, b: f32, c: f32| {
                if dims(b, c) { f32::MIN } else { arith::multiply(m, a, b) }
            },
        ),
        _ => return None,
    })
}

/// The cases in which `v_mullit_f32` gives the most negative number.
#[inline(always)]
fn dims(b: f32, c: f32) -> bool {
    (b == f32::MIN) | (b == f32::NEG_INFINITY) | b.is_nan() | (c <= 0.0) | c.is_nan()
}

/// The part of a number above the next lower integer, always less than one.
macro_rules! fract {
    ($type:ty, $below_one:expr) => {
        real1(
            |a: $type| {
                let fraction = a - a.floor();
                if fraction >= 1.0 { $below_one } else { fraction }
            },
            |m, a: $type| {
                let fraction = arith::subtract(m, a, a.floor());
                if fraction >= 1.0 { $below_one } else { fraction }
            },
        )
    };
}

/// A rounding to integers: exact, but for NaN becoming quiet.
macro_rules! integral {
    ($name:expr, $method:ident) => {
        match $name {
            "f32" => real1(|a: f32| a.$method(), |_, a: f32| quiet_f32(a.$method())),
            "f64" => real1(|a: f64| a.$method(), |_, a: f64| quiet_f64(a.$method())),
            "f16" => real1(
                |a: F16| F16(f32_to_f16(f16_to_f32(a.0).$method())),
                |_, a: F16| F16(quiet_f16(f32_to_f16(f16_to_f32(a.0).$method()))),
            ),
            _ => return None,
        }
    };
}

fn integral_group(name: &str) -> Option<Op> {
    let (function, kind) = name.split_once('_')?;
    Some(match (function, kind) {
        ("trunc", kind) => integral!(kind, trunc),
        ("ceil", kind) => integral!(kind, ceil),
        ("floor", kind) => integral!(kind, floor),
        ("rndne", kind) => integral!(kind, round_ties_even),
        ("fract", "f32") => fract!(f32, f32::from_bits(0x3f7f_ffff)),
        ("fract", "f64") => fract!(f64, f64::from_bits(0x3fef_ffff_ffff_ffff)),
        ("fract", "f16") => real1(
            |a: F16| {
                let x = f16_to_f32(a.0);
                let fraction = f32_to_f16(x - x.floor());
                F16(if fraction == 0x3c00 { 0x3bff } else { fraction })
            },
            |m, a: F16| {
                let whole = F16(f32_to_f16(f16_to_f32(a.0).floor()));
                let fraction = arith::subtract(m, a, whole).0;
                F16(if fraction == 0x3c00 { 0x3bff } else { fraction })
            },
        ),
        _ => return None,
    })
}

/// A number of the same sign and significand in [0.5, 1); a zero, an infinity or a NaN itself.
#[inline(always)]
pub fn frexp_mant_f32(a: f32) -> f32 {
    let bits = a.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    // The conversion of a denormal's bits to f32 puts its significand in place.
    let normal = if magnitude < 0x0080_0000 { (magnitude as i32 as f32).to_bits() } else { bits };
    let half = bits & 0x8000_0000 | normal & 0x007f_ffff | 0x3f00_0000;
    if (magnitude == 0) | (magnitude >= 0x7f80_0000) { quiet_f32(a) } else { f32::from_bits(half) }
}

/// The exponent that goes with [`frexp_mant_f32`]; zero for a zero, an infinity and a NaN.
#[inline(always)]
pub fn frexp_exp_f32(a: f32) -> i32 {
    let magnitude = a.to_bits() & 0x7fff_ffff;
    let denormal = ((magnitude as i32 as f32).to_bits() >> 23) as i32 - 126 - 149;
    let normal = (magnitude >> 23) as i32 - 126;
    if (magnitude == 0) | (magnitude >= 0x7f80_0000) {
        0
    } else if magnitude < 0x0080_0000 {
        denormal
    } else {
        normal
    }
}

/// A double taken apart into significand in [0.5, 1) and exponent.
#[inline(always)]
fn frexp_f64(a: f64) -> (f64, i32) {
    if a == 0.0 || !a.is_finite() {
        return (quiet_f64(a), 0);
    }
    let is_denormal = a.abs() < f64::MIN_POSITIVE;
    let scaled = if is_denormal { a * 18_014_398_509_481_984.0 } else { a };
    let bits = scaled.to_bits();
    let exponent = (bits >> 52 & 0x7ff) as i32 - 1022 - if is_denormal { 54 } else { 0 };
    (f64::from_bits(bits & !(0x7ff << 52) | 0x3fe << 52), exponent)
}

/// `a` times 2 to the power of `exponent`.
#[inline(always)]
pub fn ldexp_f32(a: f32, exponent: i32) -> f32 {
    // The product is exact in f64, even where it is far out of f32's range.
    let power = f64::from_bits(((exponent.clamp(-400, 400) + 1023) as u64) << 52);
    (f64::from(a) * power) as f32
}

/// `a` times 2 to the power of `exponent`.
#[inline(always)]
pub fn ldexp_f16(a: F16, exponent: i32) -> F16 {
    let power = f32::from_bits(((exponent.clamp(-60, 60) + 127) as u32) << 23);
    F16(f32_to_f16(f16_to_f32(a.0) * power))
}

/// `a` times 2 to the power of `exponent`.
#[inline(always)]
fn ldexp_f64(a: f64, exponent: i32) -> f64 {
    let bits = a.to_bits();
    let moved = (bits >> 52 & 0x7ff) as i32 + exponent.clamp(-5000, 5000);
    let is_normal = bits & 0x7ff << 52 != 0 && bits & 0x7ff << 52 != 0x7ff << 52;
    if is_normal && (1..0x7ff).contains(&moved) {
        return f64::from_bits(bits & !(0x7ff << 52) | (moved as u64) << 52);
    }
    arith::scale(Mode(crate::wave::mode::DENORM), a, exponent)
}

fn exponent_group(name: &str) -> Option<Op> {
    Some(match name {
        "frexp_mant_f32" => map1(frexp_mant_f32).keeping_denormals(),
        "frexp_exp_i32_f32" => map1(frexp_exp_f32).keeping_denormals(),
        "frexp_mant_f64" => map1(|a: f64| frexp_f64(a).0).keeping_denormals(),
        "frexp_exp_i32_f64" => map1(|a: f64| frexp_f64(a).1).keeping_denormals(),
        "frexp_mant_f16" => {
            map1(|a: F16| F16(f32_to_f16(frexp_mant_f32(f16_to_f32(a.0))))).keeping_denormals()
        }
        "frexp_exp_i16_f16" => {
            map1(|a: F16| frexp_exp_f32(f16_to_f32(a.0)) as i16).keeping_denormals()
        }
        "ldexp_f32" => real2(
            |a: f32, exponent: i32| ldexp_f32(a, exponent),
            |m, a: f32, exponent| arith::scale(m, a, exponent),
        ),
        "ldexp_f64" => real2(
            |a: f64, exponent: i32| ldexp_f64(a, exponent),
            |m, a: f64, exponent| arith::scale(m, a, exponent),
        ),
        "ldexp_f16" => real2(
            |a: F16, exponent: i16| ldexp_f16(a, i32::from(exponent)),
            |m, a: F16, exponent| arith::scale(m, a, i32::from(exponent)),
        ),
        _ => return None,
    })
}

/// Which of x, y and z is the major axis of a cube map: 0, 1 or 2.
#[inline(always)]
fn major_axis(x: f32, y: f32, z: f32) -> u32 {
    if (z.abs() >= x.abs()) & (z.abs() >= y.abs()) {
        2
    } else if y.abs() >= x.abs() {
        1
    } else {
        0
    }
}

/// Cube maps' coordinates; they know no denormals.
fn cube_group(name: &str) -> Option<Op> {
    /// Flushes the operands and the result.
    #[inline(always)]
    fn flushed(a: f32, b: f32, c: f32, f: impl Fn(f32, f32, f32) -> f32) -> f32 {
        flush_f32(f(flush_f32(a), flush_f32(b), flush_f32(c)))
    }
    Some(match name {
        "cubeid_f32" => map3(|x: f32, y: f32, z: f32| {
            flushed(x, y, z, |x, y, z| match major_axis(x, y, z) {
                2 => 4.0 + f32::from(u8::from(z < 0.0)),
                1 => 2.0 + f32::from(u8::from(y < 0.0)),
                _ => f32::from(u8::from(x < 0.0)),
            })
        }),
        "cubesc_f32" => map3(|x: f32, y: f32, z: f32| {
            flushed(x, y, z, |x, y, z| match major_axis(x, y, z) {
                2 if z < 0.0 => -x,
                1 | 2 => x,
                _ if x < 0.0 => z,
                _ => -z,
            })
        }),
        "cubetc_f32" => map3(|x: f32, y: f32, z: f32| {
            flushed(x, y, z, |x, y, z| match major_axis(x, y, z) {
                1 if y < 0.0 => -z,
                1 => z,
                _ => -y,
            })
        }),
        "cubema_f32" => mode3(|m: Mode, x: f32, y: f32, z: f32| {
            flushed(x, y, z, |x, y, z| {
                let axis = match major_axis(x, y, z) {
                    2 => z,
                    1 => y,
                    _ => x,
                };
                arith::multiply(m, axis, 2.0)
            })
        }),
        _ => return None,
    })
}

/// The operation of a mnemonic.
pub fn find(mnemonic: &str, chip: Chip) -> Option<Op> {
    let name = mnemonic.strip_prefix("v_")?;
    let accumulates = name.starts_with("fmac_") || name.starts_with("mac_");
    let fused = fma_group(name).map(|op| if accumulates { op.accumulate() } else { op });
    fused
        .or_else(|| add_group(name))
        .or_else(|| integral_group(name))
        .or_else(|| exponent_group(name))
        .or_else(|| cube_group(name))
        .or_else(|| transcendental::find(mnemonic))
        .or_else(|| divide::find(mnemonic))
        .or_else(|| convert::find(mnemonic, chip))
        .or_else(|| order::find(mnemonic, chip))
}
