//! Floating point as the standard defines it: exact values, rounded once.
//!
//! A finite value is an integer times a power of two. Products and sums are formed exactly (or with
//! a sticky bit far below the result's last place) and rounded by [`Format::round`]. Nothing here
//! uses the host's floating-point unit, nor anything of the emulator.

/// How a result that no format value equals is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Round {
    /// To the nearest, ties to even.
    Even,
    /// Toward plus infinity.
    Up,
    /// Toward minus infinity.
    Down,
    /// Toward zero.
    Zero,
}

/// The rounding of two bits of the MODE register.
pub fn round_of(bits: u32) -> Round {
    [Round::Even, Round::Up, Round::Down, Round::Zero][(bits & 3) as usize]
}

/// What the largest exponents of a format mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// Infinities and NaNs as IEEE 754 has them.
    Ieee,
    /// No infinity; all ones is NaN (OCP E4M3).
    OnesNan,
    /// No infinity, no minus zero; its pattern is the NaN (FNUZ).
    MinusZeroNan,
    /// Numbers only (fp6, fp4).
    None,
}

/// A binary floating-point format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format {
    /// Bits of the exponent.
    pub exponent: u32,
    /// Bits of the fraction.
    pub fraction: u32,
    /// Bias of the exponent.
    pub bias: i32,
    /// Infinities and NaNs.
    pub special: Special,
}

const fn format(exponent: u32, fraction: u32, bias: i32, special: Special) -> Format {
    Format { exponent, fraction, bias, special }
}

/// Half.
pub const F16: Format = format(5, 10, 15, Special::Ieee);
/// bfloat16.
pub const BF16: Format = format(8, 7, 127, Special::Ieee);
/// Single.
pub const F32: Format = format(8, 23, 127, Special::Ieee);
/// Double.
pub const F64: Format = format(11, 52, 1023, Special::Ieee);
/// OCP fp8.
pub const E4M3: Format = format(4, 3, 7, Special::OnesNan);
/// OCP bf8.
pub const E5M2: Format = format(5, 2, 15, Special::Ieee);
/// fp8 of gfx942.
pub const E4M3_FNUZ: Format = format(4, 3, 8, Special::MinusZeroNan);
/// bf8 of gfx942.
pub const E5M2_FNUZ: Format = format(5, 2, 16, Special::MinusZeroNan);
/// fp6.
pub const E2M3: Format = format(2, 3, 1, Special::None);
/// bf6.
pub const E3M2: Format = format(3, 2, 3, Special::None);
/// fp4.
pub const E2M1: Format = format(2, 1, 1, Special::None);

/// A value of some format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Num {
    /// Not a number.
    Nan,
    /// Infinite; `true` is negative.
    Inf(bool),
    /// `(-1)^negative * mantissa * 2^exponent`.
    Val { negative: bool, mantissa: u128, exponent: i32 },
}

use Num::{Inf, Nan, Val};

/// Zero with a sign.
pub fn zero(negative: bool) -> Num {
    Val { negative, mantissa: 0, exponent: 0 }
}

/// An integer.
pub fn integer(value: i128) -> Num {
    Val { negative: value < 0, mantissa: value.unsigned_abs(), exponent: 0 }
}

impl Format {
    /// Bits of the format.
    pub fn bits(self) -> u32 {
        1 + self.exponent + self.fraction
    }

    /// The sign bit.
    pub fn sign(self) -> u64 {
        1 << (self.bits() - 1)
    }

    /// All bits but the sign.
    pub fn magnitude(self, bits: u64) -> u64 {
        bits & (self.sign() - 1)
    }

    /// Plus infinity; of formats without one, nothing sensible.
    pub fn infinity(self) -> u64 {
        ((1 << self.exponent) - 1) << self.fraction
    }

    /// A quiet NaN.
    pub fn nan(self) -> u64 {
        match self.special {
            Special::Ieee => self.infinity() | 1 << (self.fraction - 1),
            Special::OnesNan => self.sign() - 1,
            Special::MinusZeroNan => self.sign(),
            Special::None => panic!("no NaN"),
        }
    }

    /// Whether the bits are a NaN.
    pub fn is_nan(self, bits: u64) -> bool {
        let magnitude = self.magnitude(bits);
        match self.special {
            Special::Ieee => magnitude > self.infinity(),
            Special::OnesNan => magnitude == self.sign() - 1,
            Special::MinusZeroNan => bits & (2 * self.sign() - 1) == self.sign(),
            Special::None => false,
        }
    }

    /// Whether the bits are a signaling NaN.
    pub fn is_signaling(self, bits: u64) -> bool {
        self.special == Special::Ieee && self.is_nan(bits) && bits >> (self.fraction - 1) & 1 == 0
    }

    /// Whether the bits are an infinity.
    pub fn is_infinite(self, bits: u64) -> bool {
        self.special == Special::Ieee && self.magnitude(bits) == self.infinity()
    }

    /// Whether the bits are a denormal.
    pub fn is_denormal(self, bits: u64) -> bool {
        let magnitude = self.magnitude(bits);
        magnitude != 0 && magnitude >> self.fraction == 0
    }

    /// The largest finite magnitude.
    pub fn largest(self) -> u64 {
        match self.special {
            Special::Ieee => self.infinity() - 1,
            Special::OnesNan => self.sign() - 2,
            Special::MinusZeroNan | Special::None => self.sign() - 1,
        }
    }

    /// The value of a pattern.
    pub fn value(self, bits: u64) -> Num {
        let negative = bits & self.sign() != 0;
        if self.is_nan(bits) {
            return Nan;
        }
        if self.is_infinite(bits) {
            return Inf(negative);
        }
        let field = (self.magnitude(bits) >> self.fraction) as i32;
        let fraction = u128::from(bits & ((1 << self.fraction) - 1));
        let least = 1 - self.bias - self.fraction as i32;
        if field == 0 {
            return Val { negative, mantissa: fraction, exponent: least };
        }
        Val { negative, mantissa: fraction | 1 << self.fraction, exponent: least + field - 1 }
    }

    /// The pattern of a value, rounded; too large ones become infinity (NaN where there is none)
    /// or the largest number, as the direction says.
    pub fn round(self, value: Num, round: Round) -> u64 {
        let (bits, overflow) = self.round_unbounded(value, round);
        let Some(negative) = overflow else { return bits };
        let sign = if negative { self.sign() } else { 0 };
        let to_largest = match round {
            Round::Even => false,
            Round::Zero => true,
            Round::Up => negative,
            Round::Down => !negative,
        };
        match self.special {
            _ if to_largest => sign | self.largest(),
            Special::Ieee => sign | self.infinity(),
            Special::MinusZeroNan => self.nan(),
            Special::OnesNan => sign | self.nan(),
            Special::None => sign | self.largest(),
        }
    }

    /// The same where too large values and infinities become the largest number.
    pub fn round_saturating(self, value: Num, round: Round) -> u64 {
        if let Inf(negative) = value {
            return self.largest() | if negative { self.sign() } else { 0 };
        }
        match self.round_unbounded(value, round) {
            (bits, None) => bits,
            (_, Some(negative)) => self.largest() | if negative { self.sign() } else { 0 },
        }
    }

    /// The pattern, or the sign of a value that is too large.
    fn round_unbounded(self, value: Num, round: Round) -> (u64, Option<bool>) {
        let (negative, mantissa, exponent) = match value {
            Nan => return (self.nan(), None),
            Inf(negative) if self.special == Special::Ieee => {
                return (self.infinity() | if negative { self.sign() } else { 0 }, None);
            }
            Inf(negative) => return (0, Some(negative)),
            Val { negative, mantissa, exponent } => (negative, mantissa, exponent),
        };
        let sign = if negative { self.sign() } else { 0 };
        let minus_zero = self.special == Special::MinusZeroNan;
        if mantissa == 0 {
            return (if minus_zero { 0 } else { sign }, None);
        }
        let top = exponent + 127 - mantissa.leading_zeros() as i32;
        let least = 1 - self.bias - self.fraction as i32;
        let mut unit = (top - self.fraction as i32).max(least);
        let mut kept = scale_down(negative, mantissa, unit - exponent, round);
        if kept >> (self.fraction + 1) != 0 {
            kept >>= 1;
            unit += 1;
        }
        if kept == 0 {
            return (if minus_zero { 0 } else { sign }, None);
        }
        let normal = kept >> self.fraction != 0;
        let field = if normal { i128::from(unit - least + 1) } else { 0 };
        let fraction = (kept & ((1 << self.fraction) - 1)) as i128;
        let pattern = field << self.fraction | fraction;
        if pattern > i128::from(self.largest()) {
            return (0, Some(negative));
        }
        (sign | pattern as u64, None)
    }
}

/// `mantissa / 2^shift`, rounded to an integer.
fn scale_down(negative: bool, mantissa: u128, shift: i32, round: Round) -> u128 {
    if shift <= 0 {
        return mantissa << -shift;
    }
    let (kept, rest, half) = match shift {
        1..=127 => (mantissa >> shift, mantissa & ((1 << shift) - 1), 1_u128 << (shift - 1)),
        // What is left is below half of the last place.
        _ => (0, u128::from(mantissa != 0), 2),
    };
    let up = match round {
        Round::Even => rest > half || rest == half && kept & 1 == 1,
        Round::Zero => false,
        Round::Up => rest != 0 && !negative,
        Round::Down => rest != 0 && negative,
    };
    kept + u128::from(up)
}

impl Num {
    /// Whether the value is negative (or minus zero).
    pub fn negative(self) -> bool {
        match self {
            Nan => false,
            Inf(negative) | Val { negative, .. } => negative,
        }
    }

    /// Whether it is zero.
    pub fn is_zero(self) -> bool {
        matches!(self, Val { mantissa: 0, .. })
    }

    /// The other sign.
    pub fn negate(self) -> Num {
        match self {
            Nan => Nan,
            Inf(negative) => Inf(!negative),
            Val { negative, mantissa, exponent } => Val { negative: !negative, mantissa, exponent },
        }
    }

    /// Times a power of two.
    pub fn scale(self, power: i32) -> Num {
        match self {
            Val { negative, mantissa, exponent } => {
                Val { negative, mantissa, exponent: exponent.saturating_add(power) }
            }
            other => other,
        }
    }

    /// An integer, rounded; its zero keeps the sign.
    pub fn to_integer(self, round: Round) -> Num {
        match self {
            Val { negative, mantissa, exponent } if exponent < 0 => {
                let mantissa = scale_down(negative, mantissa, -exponent, round);
                Val { negative, mantissa, exponent: 0 }
            }
            other => other,
        }
    }

    /// An integer, rounded and cut to a range; NaN is zero.
    pub fn to_range(self, round: Round, low: i128, high: i128) -> i128 {
        match self.to_integer(round) {
            Nan => 0,
            Inf(negative) => {
                if negative {
                    low
                } else {
                    high
                }
            }
            Val { mantissa: 0, .. } => 0_i128.clamp(low, high),
            Val { negative, mantissa, exponent } => {
                let top = 128 - mantissa.leading_zeros() as i32 + exponent;
                let size = if top > 100 { i128::MAX } else { (mantissa << exponent) as i128 };
                (if negative { -size } else { size }).clamp(low, high)
            }
        }
    }

    /// The host's double that is nearest; for tolerances only.
    pub fn to_f64(self) -> f64 {
        f64::from_bits(F64.round(self, Round::Even))
    }

    /// The value of a host's double.
    pub fn from_f64(value: f64) -> Num {
        F64.value(value.to_bits())
    }
}

/// At most 118 bits of a mantissa; a last bit stands for what is lost.
fn shortened(mantissa: u128, exponent: i32) -> (u128, i32) {
    let excess = 10 - mantissa.leading_zeros() as i32;
    if excess <= 0 {
        return (mantissa, exponent);
    }
    let sticky = u128::from(mantissa & ((1 << excess) - 1) != 0);
    (mantissa >> excess | sticky, exponent + excess)
}

/// Sum; `round` only decides the sign of an exact zero.
pub fn add(a: Num, b: Num, round: Round) -> Num {
    match (a, b) {
        (Nan, _) | (_, Nan) => Nan,
        (Inf(x), Inf(y)) => {
            if x == y {
                Inf(x)
            } else {
                Nan
            }
        }
        (Inf(x), _) | (_, Inf(x)) => Inf(x),
        (
            Val { negative: an, mantissa: am, exponent: ae },
            Val { negative: bn, mantissa: bm, exponent: be },
        ) => {
            if am == 0 && bm == 0 {
                return zero(if an == bn { an } else { round == Round::Down });
            }
            if am == 0 {
                return b;
            }
            if bm == 0 {
                return a;
            }
            let (am, ae) = shortened(am, ae);
            let (bm, be) = shortened(bm, be);
            // The larger one is moved to the top; what the smaller one loses stays as a last bit.
            let top = |m: u128, e: i32| e + 127 - m.leading_zeros() as i32;
            let ((ln, lm, le), (sn, sm, se)) = if top(am, ae) >= top(bm, be) {
                ((an, am, ae), (bn, bm, be))
            } else {
                ((bn, bm, be), (an, am, ae))
            };
            let up = lm.leading_zeros() as i32 - 2;
            let (lm, le) = (lm << up, le - up);
            let shift = le - se;
            let sm = match shift {
                i32::MIN..=0 => sm << -shift,
                1..=127 => sm >> shift | u128::from(sm & ((1 << shift) - 1) != 0),
                _ => 1,
            };
            if ln == sn {
                return Val { negative: ln, mantissa: lm + sm, exponent: le };
            }
            match lm.cmp(&sm) {
                std::cmp::Ordering::Equal => zero(round == Round::Down),
                std::cmp::Ordering::Greater => {
                    Val { negative: ln, mantissa: lm - sm, exponent: le }
                }
                std::cmp::Ordering::Less => Val { negative: sn, mantissa: sm - lm, exponent: le },
            }
        }
    }
}

/// Product, exact for mantissas of up to 64 bits.
pub fn mul(a: Num, b: Num) -> Num {
    let negative = a.negative() != b.negative();
    match (a, b) {
        (Nan, _) | (_, Nan) => Nan,
        (Inf(_), other) | (other, Inf(_)) => {
            if other.is_zero() {
                Nan
            } else {
                Inf(negative)
            }
        }
        (Val { mantissa: am, exponent: ae, .. }, Val { mantissa: bm, exponent: be, .. }) => {
            Val { negative, mantissa: am * bm, exponent: ae + be }
        }
    }
}

/// Order of two numbers, none if one is NaN; zeros are equal.
pub fn compare(a: Num, b: Num) -> Option<std::cmp::Ordering> {
    use std::cmp::Ordering::{Equal, Greater, Less};
    if a == Nan || b == Nan {
        return None;
    }
    Some(match add(a, b.negate(), Round::Even) {
        // Infinity minus itself.
        Nan => Equal,
        difference if difference.is_zero() => Equal,
        difference if difference.negative() => Less,
        _ => Greater,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(seed: &mut u64) -> u64 {
        *seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        *seed ^ *seed >> 29
    }

    /// The host's unit rounds to nearest even; it must agree.
    #[test]
    fn agrees_with_the_host() {
        let mut seed = 1;
        let special = [0, 1, 0x7f80_0000, 0x7f7f_ffff, 0x0080_0000, 0x007f_ffff, 0x3f80_0000];
        for i in 0..200_000 {
            let mut bits = || {
                let bits = spread(&mut seed) as u32;
                match i % 3 {
                    0 => bits,
                    // Near each other, so that sums cancel.
                    1 => bits & 0x81ff_ffff | 0x3e00_0000,
                    _ => special[(bits >> 8) as usize % 7] ^ bits << 31,
                }
            };
            let (a, b, c) = (bits(), bits(), bits());
            let host = |x: u32| f32::from_bits(x);
            let num = |x: u32| F32.value(u64::from(x));
            let check = |want: f32, got: Num| {
                let got = f32::from_bits(F32.round(got, Round::Even) as u32);
                let same = want.to_bits() == got.to_bits() || want.is_nan() && got.is_nan();
                assert!(same, "{a:08x} {b:08x} {c:08x}: {want} {got}");
            };
            check(host(a) + host(b), add(num(a), num(b), Round::Even));
            check(host(a) * host(b), mul(num(a), num(b)));
            let fused = add(mul(num(a), num(b)), num(c), Round::Even);
            check(host(a).mul_add(host(b), host(c)), fused);
            let wide = |x: u32, y: u32| f64::from_bits(u64::from(x) << 32 | u64::from(y));
            let (x, y, z) = (wide(a, b), wide(b, c), wide(c, a));
            let value = Num::from_f64;
            let got = add(mul(value(x), value(y)), value(z), Round::Even);
            let want = x.mul_add(y, z);
            let got = f64::from_bits(F64.round(got, Round::Even));
            assert!(want.to_bits() == got.to_bits() || want.is_nan() && got.is_nan());
            assert_eq!(compare(num(a), num(b)), host(a).partial_cmp(&host(b)));
            assert_eq!(num(a).to_range(Round::Zero, -(1 << 31), (1 << 31) - 1), {
                i128::from(host(a) as i32)
            });
        }
    }

    #[test]
    fn rounds_in_every_direction() {
        let value = Val { negative: false, mantissa: 0x3ff_ffff, exponent: 0 };
        assert_eq!(F32.round(value, Round::Even), u64::from(67_108_864_f32.to_bits()));
        assert_eq!(F32.round(value, Round::Down), u64::from(67_108_860_f32.to_bits()));
        assert_eq!(F32.round(value.negate(), Round::Up), u64::from((-67_108_860_f32).to_bits()));
        assert_eq!(F16.round(value, Round::Zero), 0x7bff);
        assert_eq!(F16.round(value, Round::Even), 0x7c00);
        assert_eq!(E4M3.round(integer(448), Round::Even), 0x7e);
        assert_eq!(E4M3.round(integer(480), Round::Even), 0x7f);
        assert_eq!(E4M3_FNUZ.round(integer(-240), Round::Even), 0xff);
        assert_eq!(E4M3_FNUZ.round(integer(256), Round::Even), 0x80);
        assert!(compare(E2M1.value(0xf), integer(-6)).is_some_and(std::cmp::Ordering::is_eq));
        assert_eq!(E2M3.round_saturating(Inf(true), Round::Even), 0x3f);
    }
}
