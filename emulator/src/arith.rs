//! IEEE arithmetic in integers: every format, every rounding, with or without denormals.
//!
//! The host's floating-point units round to nearest and say nothing about NaN payloads. What they
//! do is what a GPU does most of the time; this module is for the rest of it: other roundings,
//! NaN, saturating halves, and the scalar unit. Where host and module both apply they agree.

use crate::number::Round;
use crate::valu::op::{Bf16, F16, Mode};

/// A binary interchange format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format {
    /// Bits of the exponent.
    pub exponent: u32,
    /// Bits of the fraction.
    pub mantissa: u32,
}

impl Format {
    /// IEEE half.
    pub const F16: Format = Format { exponent: 5, mantissa: 10 };
    /// bfloat16.
    pub const BF16: Format = Format { exponent: 8, mantissa: 7 };
    /// IEEE single.
    pub const F32: Format = Format { exponent: 8, mantissa: 23 };
    /// IEEE double.
    pub const F64: Format = Format { exponent: 11, mantissa: 52 };

    /// Exponent of the smallest normal number.
    const fn smallest(self) -> i32 {
        2 - (1 << (self.exponent - 1))
    }

    /// Bits of positive infinity.
    pub const fn infinity(self) -> u64 {
        ((1 << self.exponent) - 1) << self.mantissa
    }

    /// The sign bit.
    pub const fn sign(self) -> u64 {
        1 << (self.exponent + self.mantissa)
    }

    /// The bit that makes a NaN quiet.
    pub const fn quiet(self) -> u64 {
        1 << (self.mantissa - 1)
    }

    /// The NaN of operations whose operands are none: negative and quiet, as AMD's documents
    /// give it for square roots, logarithms and quotients without a value.
    pub const fn default_nan(self) -> u64 {
        self.sign() | self.infinity() | self.quiet()
    }

    const fn signed(self, negative: bool, magnitude: u64) -> u64 {
        if negative { self.sign() | magnitude } else { magnitude }
    }
}

/// How results are rounded and what becomes of denormals.
#[derive(Debug, Clone, Copy)]
pub struct Env {
    /// Rounding.
    pub round: Round,
    /// Denormal operands keep their value.
    pub keeps_inputs: bool,
    /// Denormal results keep their value.
    pub keeps_outputs: bool,
    /// What overflows becomes the largest finite number.
    pub saturates: bool,
}

impl Env {
    /// To nearest, with denormals.
    pub const NEAREST: Env = Env {
        round: Round::NearestEven,
        keeps_inputs: true,
        keeps_outputs: true,
        saturates: false,
    };

    /// What the mode register says about numbers of type `T`.
    pub fn of<T: Real>(mode: Mode) -> Env {
        T::env(mode)
    }
}

/// A type of numbers that this module calculates with.
pub trait Real: Copy {
    /// Its format.
    const FORMAT: Format;
    /// Its bits.
    fn bits(self) -> u64;
    /// The number with some bits.
    fn of_bits(bits: u64) -> Self;
    /// What the mode register says about results of this type.
    fn env(mode: Mode) -> Env;
}

fn env_single(mode: Mode) -> Env {
    Env {
        round: Round::of_f32(mode.0),
        keeps_inputs: mode.0 & 0x10 != 0,
        keeps_outputs: mode.0 & 0x20 != 0,
        saturates: false,
    }
}

fn env_double(mode: Mode) -> Env {
    Env {
        round: Round::of_f16_f64(mode.0),
        keeps_inputs: mode.0 & 0x40 != 0,
        keeps_outputs: mode.0 & 0x80 != 0,
        saturates: false,
    }
}

macro_rules! real {
    ($type:ty, $format:ident, |$value:ident| $to:expr, |$bits:ident| $from:expr, |$mode:ident| $env:expr) => {
        impl Real for $type {
            const FORMAT: Format = Format::$format;
            #[inline(always)]
            fn bits(self) -> u64 {
                let $value = self;
                $to
            }
            #[inline(always)]
            fn of_bits($bits: u64) -> $type {
                $from
            }
            #[inline(always)]
            fn env($mode: Mode) -> Env {
                $env
            }
        }
    };
}

real!(f32, F32, |v| u64::from(v.to_bits()), |bits| f32::from_bits(bits as u32), |mode| {
    env_single(mode)
});
real!(f64, F64, |v| v.to_bits(), |bits| f64::from_bits(bits), |mode| env_double(mode));
real!(F16, F16, |v| u64::from(v.0), |bits| F16(bits as u16), |mode| Env {
    saturates: mode.fp16_ovfl(),
    ..env_double(mode)
});
real!(Bf16, BF16, |v| u64::from(v.0), |bits| Bf16(bits as u16), |mode| env_single(mode));

/// A finite number: `significand` times 2 to the power of `exponent`.
#[derive(Debug, Clone, Copy)]
pub struct Finite {
    /// Whether it, or a zero, is negative.
    pub negative: bool,
    /// Weight of the significand's lowest bit.
    pub exponent: i32,
    /// Zero is the only number whose significand is zero.
    pub significand: u128,
}

/// A number taken apart.
#[derive(Debug, Clone, Copy)]
pub enum Value {
    /// The bits of the NaN, in its own format, quiet.
    Nan(u64),
    /// Infinity, negative or not.
    Infinity(bool),
    /// Anything else.
    Finite(Finite),
}

/// Takes a number apart; a denormal is a zero unless they are kept.
pub fn unpack(format: Format, bits: u64, keeps_denormals: bool) -> Value {
    let negative = bits & format.sign() != 0;
    let field = (bits >> format.mantissa) & ((1 << format.exponent) - 1);
    let fraction = bits & ((1 << format.mantissa) - 1);
    if field == (1 << format.exponent) - 1 {
        return match fraction {
            0 => Value::Infinity(negative),
            _ => Value::Nan(bits | format.quiet()),
        };
    }
    let lowest = format.smallest() - format.mantissa as i32;
    let (significand, exponent) = match field {
        0 if keeps_denormals => (fraction, lowest),
        0 => (0, lowest),
        _ => (fraction | 1 << format.mantissa, lowest + field as i32 - 1),
    };
    Value::Finite(Finite { negative, exponent, significand: u128::from(significand) })
}

/// Rounds a finite number to a format.
pub fn pack(format: Format, env: Env, number: Finite) -> u64 {
    let Finite { negative, exponent, significand } = number;
    if significand == 0 {
        return format.signed(negative, 0);
    }
    let top = 127 - significand.leading_zeros() as i32;
    let leading = (exponent + top).max(format.smallest());
    let shift = leading - format.mantissa as i32 - exponent;
    let kept = round_shift(significand, shift, negative, env.round);
    // The significand's top bit counts as one in the exponent's field.
    let above = (leading - format.smallest()) as u64;
    let magnitude = match above >> format.exponent {
        0 => (above << format.mantissa) + kept,
        _ => format.infinity(),
    };
    if magnitude >= format.infinity() {
        return format.signed(negative, overflow(format, env, negative));
    }
    let denormal = magnitude < 1 << format.mantissa;
    format.signed(negative, if denormal && !env.keeps_outputs { 0 } else { magnitude })
}

/// What stands for a number that is too large.
fn overflow(format: Format, env: Env, negative: bool) -> u64 {
    let infinite = match env.round {
        _ if env.saturates => false,
        Round::NearestEven => true,
        Round::Up => !negative,
        Round::Down => negative,
        Round::TowardZero => false,
    };
    format.infinity() - u64::from(!infinite)
}

/// Shifts right and rounds, or left.
fn round_shift(significand: u128, shift: i32, negative: bool, round: Round) -> u64 {
    if shift <= 0 {
        return (significand << shift.unsigned_abs().min(127)) as u64;
    }
    let (kept, lost, half) = match shift {
        1..128 => (significand >> shift, significand & ((1 << shift) - 1), 1_u128 << (shift - 1)),
        // Less than a half: significands stay below 2^127.
        _ => (0, 1, u128::MAX),
    };
    let up = match round {
        Round::NearestEven => lost > half || (lost == half && kept & 1 != 0),
        Round::Up => lost != 0 && !negative,
        Round::Down => lost != 0 && negative,
        Round::TowardZero => false,
    };
    kept as u64 + u64::from(up)
}

/// The exact sum, but for a sticky last bit where the numbers lie far apart.
pub fn sum(a: Finite, b: Finite, round: Round) -> Finite {
    if a.significand == 0 && b.significand == 0 {
        let negative = if a.negative == b.negative { a.negative } else { round == Round::Down };
        return Finite { negative, ..a };
    }
    if a.significand == 0 || b.significand == 0 {
        return if a.significand == 0 { b } else { a };
    }
    let (a, b) = (raise(a), raise(b));
    let (large, small) = if a.exponent >= b.exponent { (a, b) } else { (b, a) };
    let distance = (large.exponent - small.exponent).unsigned_abs();
    let aligned = match distance {
        0..127 => {
            let lost = small.significand & ((1 << distance) - 1);
            small.significand >> distance | u128::from(lost != 0)
        }
        _ => 1,
    };
    if large.negative == small.negative {
        return Finite { significand: large.significand + aligned, ..large };
    }
    let (significand, swapped) = match large.significand.checked_sub(aligned) {
        Some(difference) => (difference, false),
        None => (aligned - large.significand, true),
    };
    let negative = if significand == 0 { round == Round::Down } else { large.negative != swapped };
    Finite { negative, significand, ..large }
}

/// The same number with its top bit at 125.
fn raise(number: Finite) -> Finite {
    let shift = number.significand.leading_zeros() as i32 - 2;
    if shift < 0 {
        return number;
    }
    Finite { significand: number.significand << shift, exponent: number.exponent - shift, ..number }
}

/// The exact product of numbers of up to 63 bits.
pub fn product(a: Finite, b: Finite) -> Finite {
    Finite {
        negative: a.negative != b.negative,
        exponent: a.exponent + b.exponent,
        significand: a.significand * b.significand,
    }
}

/// `a * b + c` with one rounding. Of several NaN the first is the result, quiet.
pub fn fma<T: Real>(mode: Mode, a: T, b: T, c: T) -> T {
    fma_env(T::env(mode), a, b, c)
}

/// [`fma`] where something else than the mode register says how to round.
pub fn fma_env<T: Real>(env: Env, a: T, b: T, c: T) -> T {
    fma_scaled(env, a, b, c, 0)
}

/// [`fma_env`] times 2 to the power of `power`, with one rounding in all.
pub fn fma_scaled<T: Real>(env: Env, a: T, b: T, c: T, power: i32) -> T {
    let parts = [a, b, c].map(|x| unpack(T::FORMAT, x.bits(), env.keeps_inputs));
    T::of_bits(match parts {
        [Value::Nan(nan), _, _] | [_, Value::Nan(nan), _] | [_, _, Value::Nan(nan)] => nan,
        [Value::Finite(a), Value::Finite(b), Value::Finite(c)] => {
            let sum = sum(product(a, b), c, env.round);
            pack(T::FORMAT, env, Finite { exponent: sum.exponent + power, ..sum })
        }
        [Value::Finite(_), Value::Finite(_), Value::Infinity(negative)] => {
            T::FORMAT.signed(negative, T::FORMAT.infinity())
        }
        [a, b, c] => infinite_fma(T::FORMAT, a, b, c),
    })
}

/// A product with an infinite factor, and a sum with it; no operand is a NaN.
fn infinite_fma(format: Format, a: Value, b: Value, c: Value) -> u64 {
    let sign = |value| match value {
        Value::Infinity(negative) => negative,
        Value::Finite(number) => number.negative,
        Value::Nan(_) => false,
    };
    let is_zero = |value| matches!(value, Value::Finite(number) if number.significand == 0);
    let negative = sign(a) != sign(b);
    match c {
        _ if is_zero(a) || is_zero(b) => format.default_nan(),
        Value::Infinity(other) if other != negative => format.default_nan(),
        _ => format.signed(negative, format.infinity()),
    }
}

/// `a + b`.
pub fn add<T: Real>(mode: Mode, a: T, b: T) -> T {
    let env = T::env(mode);
    let parts = [a, b].map(|x| unpack(T::FORMAT, x.bits(), env.keeps_inputs));
    T::of_bits(match parts {
        [Value::Nan(nan), _] | [_, Value::Nan(nan)] => nan,
        [Value::Infinity(a), Value::Infinity(b)] if a != b => T::FORMAT.default_nan(),
        [Value::Infinity(negative), _] | [_, Value::Infinity(negative)] => {
            T::FORMAT.signed(negative, T::FORMAT.infinity())
        }
        [Value::Finite(a), Value::Finite(b)] => pack(T::FORMAT, env, sum(a, b, env.round)),
    })
}

/// `a - b`. A NaN keeps its sign.
pub fn subtract<T: Real>(mode: Mode, a: T, b: T) -> T {
    let is_nan = b.bits() & (T::FORMAT.sign() - 1) > T::FORMAT.infinity();
    let flip = if is_nan { 0 } else { T::FORMAT.sign() };
    add(mode, a, T::of_bits(b.bits() ^ flip))
}

/// `a * b`.
pub fn multiply<T: Real>(mode: Mode, a: T, b: T) -> T {
    let env = T::env(mode);
    let parts = [a, b].map(|x| unpack(T::FORMAT, x.bits(), env.keeps_inputs));
    T::of_bits(match parts {
        [Value::Nan(nan), _] | [_, Value::Nan(nan)] => nan,
        [Value::Finite(a), Value::Finite(b)] => pack(T::FORMAT, env, product(a, b)),
        [a, b] => {
            let zero = Finite { negative: false, exponent: 0, significand: 0 };
            infinite_fma(T::FORMAT, a, b, Value::Finite(zero))
        }
    })
}

/// `a` times 2 to the power of `exponent`.
pub fn scale<T: Real>(mode: Mode, a: T, exponent: i32) -> T {
    let env = T::env(mode);
    T::of_bits(match unpack(T::FORMAT, a.bits(), env.keeps_inputs) {
        Value::Nan(nan) => nan,
        Value::Infinity(_) => a.bits(),
        Value::Finite(number) => {
            // Beyond these powers the result is what it is at them.
            let exponent = number.exponent + exponent.clamp(-5000, 5000);
            pack(T::FORMAT, env, Finite { exponent, ..number })
        }
    })
}

/// A number in another format: denormals in by the mode of the one, rounding and denormals out by
/// the mode of the other. A NaN keeps the high bits of its payload.
pub fn convert<A: Real, R: Real>(mode: Mode, a: A) -> R {
    convert_env(A::env(mode).keeps_inputs, R::env(mode), a)
}

/// [`convert`] where something else than the mode register says how.
pub fn convert_env<A: Real, R: Real>(keeps_inputs: bool, env: Env, a: A) -> R {
    let (from, to) = (A::FORMAT, R::FORMAT);
    let negative = a.bits() & from.sign() != 0;
    R::of_bits(match unpack(from, a.bits(), keeps_inputs) {
        Value::Nan(nan) => {
            let payload = nan & ((1 << from.mantissa) - 1);
            let payload = if to.mantissa >= from.mantissa {
                payload << (to.mantissa - from.mantissa)
            } else {
                payload >> (from.mantissa - to.mantissa)
            };
            to.signed(negative, to.infinity() | payload)
        }
        Value::Infinity(_) => to.signed(negative, to.infinity()),
        Value::Finite(number) => pack(to, env, number),
    })
}

/// An integer as a number.
pub fn from_integer<R: Real>(mode: Mode, integer: i64) -> R {
    let significand = u128::from(integer.unsigned_abs());
    let number = Finite { negative: integer < 0, exponent: 0, significand };
    R::of_bits(pack(R::FORMAT, R::env(mode), number))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nearest even and all denormals.
    const PLAIN: Mode = Mode(0xf0);

    /// Numbers at and around every boundary, and some without a pattern.
    fn interesting(format: Format) -> Vec<u64> {
        let (top, one) = (format.infinity(), 1_u64 << format.mantissa);
        let bias = ((1_u64 << (format.exponent - 1)) - 1) << format.mantissa;
        let mut all = vec![0, 1, 2, one - 1, one, one + 1, one | one >> 1, top - 1, top - 2, top];
        all.extend([bias, bias + 1, bias - 1, bias | one >> 1, bias + one, bias - one, top / 2]);
        all.extend([top | 1, top | format.quiet(), top | format.quiet() | 5]);
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..60 {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            all.push((state >> 7) & (format.sign() - 1));
            // Near one, so that sums and products stay in range.
            all.push(bias ^ (state >> 9) & (4 * one - 1));
        }
        all.iter().flat_map(|bits| [*bits, bits | format.sign()]).collect()
    }

    fn same_f32(ours: f32, host: f32, operands: &[f32]) {
        if host.is_nan() {
            let first = operands.iter().find(|x| x.is_nan());
            let expected = first.map_or(0xffc0_0000, |x| x.to_bits() | 0x0040_0000);
            assert_eq!(ours.to_bits(), expected, "{operands:?}");
        } else {
            assert_eq!(ours.to_bits(), host.to_bits(), "{operands:?}");
        }
    }

    #[test]
    fn nearest_f32_and_f64_equal_the_host() {
        let singles: Vec<f32> =
            interesting(Format::F32).iter().map(|bits| f32::from_bits(*bits as u32)).collect();
        for (index, &a) in singles.iter().enumerate() {
            for &b in &singles {
                same_f32(add(PLAIN, a, b), a + b, &[a, b]);
                same_f32(subtract(PLAIN, a, b), a - b, &[a, b]);
                same_f32(multiply(PLAIN, a, b), a * b, &[a, b]);
                let c = singles[(index * 7 + 3) % singles.len()];
                same_f32(fma(PLAIN, a, b, c), a.mul_add(b, c), &[a, b, c]);
                same_f32(fma(PLAIN, a, b, -(a * b)), a.mul_add(b, -(a * b)), &[a, b, -(a * b)]);
            }
        }
        let doubles: Vec<f64> =
            interesting(Format::F64).iter().map(|bits| f64::from_bits(*bits)).collect();
        let check = |ours: f64, host: f64| {
            assert!(ours.to_bits() == host.to_bits() || (ours.is_nan() && host.is_nan()));
        };
        for &a in &doubles {
            for &b in &doubles {
                check(add(PLAIN, a, b), a + b);
                check(multiply(PLAIN, a, b), a * b);
                check(fma(PLAIN, a, b, -(a * b)), a.mul_add(b, -(a * b)));
                check(fma(PLAIN, a, b, 1.0), a.mul_add(b, 1.0));
            }
        }
    }

    /// Sums and products of halves are exact in f64, so one conversion rounds them.
    #[test]
    fn halves_round_once_in_every_direction() {
        let halves: Vec<u16> = interesting(Format::F16).iter().map(|bits| *bits as u16).collect();
        for round in 0..4_u32 {
            let mode = Mode(0xf0 | round << 2);
            for &a in &halves {
                for &b in &halves {
                    let wide = |bits| half::f16::from_bits(bits).to_f64_const();
                    let (sum, product) = (wide(a) + wide(b), wide(a) * wide(b));
                    check_half(round, sum, add(mode, F16(a), F16(b)).0);
                    check_half(round, product, multiply(mode, F16(a), F16(b)).0);
                }
            }
        }
    }

    /// The largest half below, or the smallest above, or the nearest, the even one of two.
    fn check_half(round: u32, exact: f64, ours: u16) {
        let value = half::f16::from_bits(ours).to_f64_const();
        if exact.is_nan() || value.is_nan() {
            assert!(exact.is_nan() && value.is_nan());
            return;
        }
        let above = |bits: u16| half::f16::from_bits(next(bits)).to_f64_const();
        let below = |bits: u16| -half::f16::from_bits(next(bits ^ 0x8000)).to_f64_const();
        match round {
            0 if value.is_infinite() => assert!(exact.abs() >= 65520.0),
            0 => {
                let distance = (value - exact).abs();
                let others = [above(ours), below(ours)].map(|other| (other - exact).abs());
                let tie = others.contains(&distance);
                assert!(others.iter().all(|other| *other >= distance) && (!tie || ours & 1 == 0));
            }
            1 => assert!(value >= exact && (below(ours) < exact || value == exact), "{exact}"),
            2 => assert!(value <= exact && (above(ours) > exact || value == exact), "{exact}"),
            _ if exact >= 0.0 => assert!(value <= exact && (above(ours) > exact || value == exact)),
            _ => assert!(value >= exact && (below(ours) < exact || value == exact)),
        }
    }

    /// The next half toward positive infinity.
    fn next(bits: u16) -> u16 {
        match bits {
            0x8000 => 1,
            0x7c00 => 0x7c00,
            _ if bits & 0x8000 != 0 => bits - 1,
            _ => bits + 1,
        }
    }

    #[test]
    fn modes_flush_and_saturate() {
        let denormal = f32::from_bits(1);
        assert_eq!(add(Mode(0xc0), denormal, 0.0), 0.0);
        assert_eq!(add(Mode(0x20), denormal, f32::MIN_POSITIVE), f32::MIN_POSITIVE);
        assert_eq!(multiply(Mode(0x10), f32::MIN_POSITIVE, -0.5).to_bits(), 0x8000_0000);
        assert_eq!(add(Mode(0x80_00f0), F16(0x7bff), F16(0x7bff)), F16(0x7bff));
        assert_eq!(add(Mode(0x80_00f0), F16(0xfc00), F16(0x7bff)), F16(0xfc00));
        assert_eq!(add(Mode(0xf0), F16(0x7bff), F16(0x7bff)), F16(0x7c00));
        // One minus one is negative zero only when rounding down.
        assert_eq!(subtract(Mode(0xf2), 1.0_f32, 1.0).to_bits(), 0x8000_0000);
        assert_eq!(subtract(Mode(0xf3), 1.0_f32, 1.0).to_bits(), 0);
        assert_eq!(add(Mode(0xf1), 1.0_f32, 1e-30).to_bits(), 0x3f80_0001);
        assert_eq!(add(Mode(0xf3), 1.0_f32, -1e-30).to_bits(), 0x3f7f_ffff);
        assert_eq!(multiply(Mode(0xf3), f32::MAX, f32::MAX), f32::MAX);
    }

    #[test]
    fn conversions_equal_the_host() {
        for bits in interesting(Format::F64) {
            let double = f64::from_bits(bits);
            let (ours, host): (f32, f32) = (convert(PLAIN, double), double as f32);
            assert!(ours.to_bits() == host.to_bits() || (ours.is_nan() && host.is_nan()));
        }
        // The sum of a double and its error lies between the directed roundings.
        for bits in interesting(Format::F64) {
            let double = f64::from_bits(bits);
            let up: f32 = convert(Mode(0xf1), double);
            let down: f32 = convert(Mode(0xf2), double);
            assert!(double.is_nan() || (f64::from(down) <= double && double <= f64::from(up)));
        }
        for integer in [0, 1, -1, 16_777_217, -16_777_219, i64::from(u32::MAX), i64::MIN, i64::MAX]
        {
            assert_eq!(from_integer::<f32>(PLAIN, integer), integer as f32);
            assert_eq!(from_integer::<f64>(PLAIN, integer), integer as f64);
        }
        assert_eq!(from_integer::<f32>(Mode(0xf3), 16_777_219), 16_777_218.0);
        let nan: f64 = convert(PLAIN, f32::from_bits(0x7fa0_0000));
        assert_eq!(nan.to_bits(), 0x7ffc_0000_0000_0000);
    }

    #[test]
    fn scaling_rounds_once() {
        assert_eq!(scale(PLAIN, 1.5_f32, -149), f32::from_bits(2));
        assert_eq!(scale(PLAIN, 1.0_f32, i32::MIN), 0.0);
        assert_eq!(scale(PLAIN, -1.0_f32, i32::MAX), f32::NEG_INFINITY);
        assert_eq!(scale(PLAIN, f64::from_bits(1), 1074), 1.0);
        assert_eq!(scale(PLAIN, F16(0x3c00), -24), F16(1));
    }
}
