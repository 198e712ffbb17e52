//! Number formats: halves, bfloat16, the 8-, 6- and 4-bit floats, and rounding between them.
//!
//! Everything here is without branches where it runs once a lane, so that loops over lanes become
//! vector code. Conversions keep denormals; what the mode register says about them is applied by
//! the instructions ([`flush_f32`] and its relatives).

/// Rounding, in the encoding of the mode register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Round {
    /// To nearest, ties to even.
    NearestEven,
    /// Toward positive infinity.
    Up,
    /// Toward negative infinity.
    Down,
    /// Toward zero.
    TowardZero,
}

impl Round {
    /// Every rounding, by its number in the mode register.
    pub const ALL: [Round; 4] = [Round::NearestEven, Round::Up, Round::Down, Round::TowardZero];

    /// The rounding of f32 results.
    #[inline(always)]
    pub fn of_f32(mode: u32) -> Round {
        Round::ALL[(mode & 3) as usize]
    }

    /// The rounding of f16 and f64 results.
    #[inline(always)]
    pub fn of_f16_f64(mode: u32) -> Round {
        Round::ALL[(mode >> 2 & 3) as usize]
    }
}

/// Whether the mode register keeps denormal f32 inputs.
#[inline(always)]
pub fn keeps_f32_inputs(mode: u32) -> bool {
    mode & 0x10 != 0
}

/// Whether the mode register keeps denormal f32 results.
#[inline(always)]
pub fn keeps_f32_outputs(mode: u32) -> bool {
    mode & 0x20 != 0
}

/// Whether the mode register keeps denormal f16 and f64 inputs.
#[inline(always)]
pub fn keeps_f16_f64_inputs(mode: u32) -> bool {
    mode & 0x40 != 0
}

/// Whether the mode register keeps denormal f16 and f64 results.
#[inline(always)]
pub fn keeps_f16_f64_outputs(mode: u32) -> bool {
    mode & 0x80 != 0
}

/// A denormal to a zero of its sign.
#[inline(always)]
pub fn flush_f32(value: f32) -> f32 {
    let bits = value.to_bits();
    f32::from_bits(if bits & 0x7f80_0000 == 0 { bits & 0x8000_0000 } else { bits })
}

/// A denormal to a zero of its sign.
#[inline(always)]
pub fn flush_f64(value: f64) -> f64 {
    let bits = value.to_bits();
    f64::from_bits(if bits & 0x7ff << 52 == 0 { bits & 1 << 63 } else { bits })
}

/// A denormal half to a zero of its sign.
#[inline(always)]
pub fn flush_f16(bits: u16) -> u16 {
    if bits & 0x7c00 == 0 { bits & 0x8000 } else { bits }
}

/// A denormal bfloat16 to a zero of its sign.
#[inline(always)]
pub fn flush_bf16(bits: u16) -> u16 {
    if bits & 0x7f80 == 0 { bits & 0x8000 } else { bits }
}

/// A NaN with its quiet bit set; anything else as it is.
#[inline(always)]
pub fn quiet_f32(value: f32) -> f32 {
    let bits = value.to_bits();
    f32::from_bits(if value.is_nan() { bits | 0x0040_0000 } else { bits })
}

/// A NaN with its quiet bit set; anything else as it is.
#[inline(always)]
pub fn quiet_f64(value: f64) -> f64 {
    let bits = value.to_bits();
    f64::from_bits(if value.is_nan() { bits | 1 << 51 } else { bits })
}

/// A half NaN with its quiet bit set; anything else as it is.
#[inline(always)]
pub fn quiet_f16(bits: u16) -> u16 {
    if is_nan_f16(bits) { bits | 0x0200 } else { bits }
}

/// Whether a half is a NaN.
#[inline(always)]
pub fn is_nan_f16(bits: u16) -> bool {
    bits & 0x7fff > 0x7c00
}

/// Whether a bfloat16 is a NaN.
#[inline(always)]
pub fn is_nan_bf16(bits: u16) -> bool {
    bits & 0x7fff > 0x7f80
}

/// Whether a NaN signals.
#[inline(always)]
pub fn is_signaling_f32(value: f32) -> bool {
    value.is_nan() && value.to_bits() & 0x0040_0000 == 0
}

/// Whether a NaN signals.
#[inline(always)]
pub fn is_signaling_f64(value: f64) -> bool {
    value.is_nan() && value.to_bits() & 1 << 51 == 0
}

/// Whether a half NaN signals.
#[inline(always)]
pub fn is_signaling_f16(bits: u16) -> bool {
    is_nan_f16(bits) && bits & 0x0200 == 0
}

/// 2 to the power of `exponent`, which must be one of a normal f32.
#[inline(always)]
const fn power_of_two(exponent: i32) -> f32 {
    f32::from_bits(((exponent + 127) as u32) << 23)
}

/// Magnitude bits of a small float with a sign above them, as f32, as if it had no infinities and
/// no NaN: `mantissa` bits of fraction and an exponent of that bias. Exact.
#[inline(always)]
fn expand(magnitude: u32, mantissa: u32, bias: i32) -> f32 {
    let normal = f32::from_bits((magnitude << (23 - mantissa)) + (((127 - bias) as u32) << 23));
    let denormal = magnitude as i32 as f32 * power_of_two(1 - bias - mantissa as i32);
    if magnitude >> mantissa == 0 { denormal } else { normal }
}

/// The magnitude of a finite f32, rounded to a small float of `mantissa` bits of fraction and an
/// exponent of that bias, as bits; beyond the largest exponent they go on counting.
#[inline(always)]
fn round_magnitude(bits: u32, mantissa: u32, bias: i32, round: Round) -> u32 {
    let magnitude = bits & 0x7fff_ffff;
    let exponent = (magnitude >> 23).max(1);
    let implicit = if magnitude >= 0x0080_0000 { 0x0080_0000 } else { 0 };
    let significand = magnitude & 0x007f_ffff | implicit;
    // Exponents below the smallest one lose further bits; those above it add to the significand.
    let smallest = (127 - bias + 1) as u32;
    let shift = (23 - mantissa + smallest.saturating_sub(exponent)).min(31);
    let wide = significand.wrapping_add(exponent.saturating_sub(smallest) << 23);
    let (kept, lost, half) = (wide >> shift, wide & ((1 << shift) - 1), 1 << (shift - 1));
    let negative = bits >> 31 != 0;
    let up = match round {
        Round::NearestEven => (lost > half) | ((lost == half) & (kept & 1 != 0)),
        Round::Up => (lost != 0) & !negative,
        Round::Down => (lost != 0) & negative,
        Round::TowardZero => false,
    };
    kept + u32::from(up)
}

/// As [`round_magnitude`], rounding by chance. A number below the smallest normal one first loses
/// the bits that its exponent costs.
#[inline(always)]
fn stochastic_magnitude(bits: u32, mantissa: u32, bias: i32, seed: u32) -> u32 {
    let magnitude = bits & 0x7fff_ffff;
    let exponent = (magnitude >> 23).max(1);
    let implicit = if magnitude >= 0x0080_0000 { 0x0080_0000 } else { 0 };
    let significand = magnitude & 0x007f_ffff | implicit;
    let smallest = (127 - bias + 1) as u32;
    let shifted = significand >> smallest.saturating_sub(exponent).min(31);
    let wide = shifted.wrapping_add(exponent.saturating_sub(smallest) << 23);
    wide.wrapping_add(seed >> (9 + mantissa)) >> (23 - mantissa)
}

/// Whether an overflow becomes infinity and not the largest finite number.
#[inline(always)]
fn overflows_to_infinity(negative: bool, round: Round) -> bool {
    match round {
        Round::NearestEven => true,
        Round::Up => !negative,
        Round::Down => negative,
        Round::TowardZero => false,
    }
}

/// A half, exactly. A NaN becomes quiet and keeps its payload.
#[inline(always)]
pub fn f16_to_f32(bits: u16) -> f32 {
    let (sign, magnitude) = (u32::from(bits & 0x8000) << 16, u32::from(bits & 0x7fff));
    let finite = expand(magnitude, 10, 15).to_bits();
    let nan = if magnitude > 0x7c00 { 0x0040_0000 } else { 0 };
    let special = 0x7f80_0000 | magnitude << 13 | nan;
    f32::from_bits(sign | if magnitude >= 0x7c00 { special } else { finite })
}

/// The nearest half, ties to even. A NaN becomes quiet and keeps the payload's high bits.
#[inline(always)]
pub fn f32_to_f16(value: f32) -> u16 {
    let bits = value.to_bits();
    let (sign, magnitude) = (bits >> 16 & 0x8000, bits & 0x7fff_ffff);
    // Below the smallest normal half, an addition lets the host round at the right bit.
    let magic = power_of_two(-1);
    let denormal = (f32::from_bits(magnitude) + magic).to_bits().wrapping_sub(magic.to_bits());
    let odd = magnitude >> 13 & 1;
    let normal = magnitude.wrapping_sub(112 << 23).wrapping_add(0xfff + odd) >> 13;
    let nan = 0x7e00 | magnitude >> 13 & 0x1ff;
    let finite = if magnitude < 113 << 23 { denormal } else { normal.min(0x7c00) };
    (sign | if magnitude > 0x7f80_0000 { nan } else { finite }) as u16
}

/// A half by any rounding. A NaN becomes quiet and keeps the payload's high bits.
#[inline(always)]
pub fn f32_to_f16_round(value: f32, round: Round) -> u16 {
    let bits = value.to_bits();
    let (sign, magnitude) = (bits >> 16 & 0x8000, bits & 0x7fff_ffff);
    let limit = if overflows_to_infinity(sign != 0, round) { 0x7c00 } else { 0x7bff };
    let finite = round_magnitude(bits, 10, 15, round).min(limit);
    let special = if magnitude > 0x7f80_0000 { 0x7e00 | magnitude >> 13 & 0x1ff } else { 0x7c00 };
    (sign | if magnitude >= 0x7f80_0000 { special } else { finite }) as u16
}

/// A bfloat16, exactly; a NaN with all its bits.
#[inline(always)]
pub fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The nearest bfloat16, ties to even. A NaN becomes quiet and keeps the payload's high bits.
#[inline(always)]
pub fn f32_to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    (if value.is_nan() { bits >> 16 | 0x40 } else { rounded }) as u16
}

/// A bfloat16 by any rounding. A NaN becomes quiet and keeps the payload's high bits.
#[inline(always)]
pub fn f32_to_bf16_round(value: f32, round: Round) -> u16 {
    let bits = value.to_bits();
    let negative = bits >> 31 != 0;
    let finite = bits & 0x7fff_ffff < 0x7f80_0000;
    let up = match round {
        Round::NearestEven => 0x7fff + (bits >> 16 & 1),
        Round::Up if !negative => 0xffff,
        Round::Down if negative => 0xffff,
        _ => 0,
    };
    let rounded = bits.wrapping_add(if finite { up } else { 0 }) >> 16;
    (if value.is_nan() { bits >> 16 | 0x40 } else { rounded }) as u16
}

/// A neighbouring half as [`Fp8::from_f32_stochastic`] chooses it.
#[inline(always)]
pub fn f32_to_f16_stochastic(value: f32, seed: u32, saturate: bool) -> u16 {
    let bits = value.to_bits();
    let (sign, magnitude) = (bits >> 16 & 0x8000, bits & 0x7fff_ffff);
    let limit = if saturate { 0x7bff } else { 0x7c00 };
    let finite = stochastic_magnitude(bits, 10, 15, seed).min(limit);
    let special = if magnitude > 0x7f80_0000 { 0x7e00 | magnitude >> 13 & 0x1ff } else { 0x7c00 };
    (sign | if magnitude >= 0x7f80_0000 { special } else { finite }) as u16
}

/// A neighbouring bfloat16 as [`Fp8::from_f32_stochastic`] chooses it.
#[inline(always)]
pub fn f32_to_bf16_stochastic(value: f32, seed: u32) -> u16 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(seed >> 16) >> 16;
    let special = if value.is_nan() { bits >> 16 | 0x40 } else { bits >> 16 };
    (if value.is_finite() { rounded } else { special }) as u16
}

/// An 8-bit float. `E4m3` and `E5m2` are OCP's; the `Fnuz` forms of CDNA 3 have a bias larger by
/// one, neither infinities nor a negative zero, and a single NaN, 0x80.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fp8 {
    /// 4 bits of exponent, bias 7, no infinity.
    E4m3,
    /// 5 bits of exponent, bias 15.
    E5m2,
    /// 4 bits of exponent, bias 8.
    E4m3Fnuz,
    /// 5 bits of exponent, bias 16.
    E5m2Fnuz,
}

impl Fp8 {
    /// Bits of fraction.
    #[inline(always)]
    pub const fn mantissa(self) -> u32 {
        match self {
            Fp8::E4m3 | Fp8::E4m3Fnuz => 3,
            Fp8::E5m2 | Fp8::E5m2Fnuz => 2,
        }
    }

    /// Bias of the exponent.
    #[inline(always)]
    pub const fn bias(self) -> i32 {
        match self {
            Fp8::E4m3 => 7,
            Fp8::E5m2 => 15,
            Fp8::E4m3Fnuz => 8,
            Fp8::E5m2Fnuz => 16,
        }
    }

    /// Bits of the largest finite number.
    #[inline(always)]
    pub const fn largest(self) -> u8 {
        match self {
            Fp8::E4m3 => 0x7e,
            Fp8::E5m2 => 0x7b,
            Fp8::E4m3Fnuz | Fp8::E5m2Fnuz => 0x7f,
        }
    }

    /// Whether the single zero and the single NaN are those of the FNUZ forms.
    #[inline(always)]
    pub const fn is_fnuz(self) -> bool {
        matches!(self, Fp8::E4m3Fnuz | Fp8::E5m2Fnuz)
    }

    /// The number, exactly. NaN becomes the quiet one of the same sign; that of the FNUZ forms,
    /// whose sign bit is set, is negative.
    #[inline(always)]
    pub fn to_f32(self, bits: u8) -> f32 {
        let (sign, magnitude) = (u32::from(bits & 0x80) << 24, u32::from(bits & 0x7f));
        let finite = sign | expand(magnitude, self.mantissa(), self.bias()).to_bits();
        f32::from_bits(match self {
            Fp8::E4m3 if magnitude == 0x7f => sign | 0x7fc0_0000,
            Fp8::E5m2 if magnitude == 0x7c => sign | 0x7f80_0000,
            Fp8::E5m2 if magnitude > 0x7c => sign | 0x7fc0_0000,
            Fp8::E4m3Fnuz | Fp8::E5m2Fnuz if bits == 0x80 => 0xffc0_0000,
            _ => finite,
        })
    }

    /// The nearest number, ties to even. What is too large becomes the largest finite number if
    /// `saturate`, else infinity where the format has one and NaN where it has none.
    #[inline(always)]
    pub fn from_f32(self, value: f32, saturate: bool) -> u8 {
        let rounded = round_magnitude(value.to_bits(), self.mantissa(), self.bias(), NEAREST);
        self.assemble(value, rounded, saturate)
    }

    /// A neighbouring number, the larger one the likelier the nearer it is: the top bits of `seed`
    /// are added below the bits that are kept, then the rest is cut off.
    #[inline(always)]
    pub fn from_f32_stochastic(self, value: f32, seed: u32, saturate: bool) -> u8 {
        let rounded = stochastic_magnitude(value.to_bits(), self.mantissa(), self.bias(), seed);
        self.assemble(value, rounded, saturate)
    }

    /// Adds sign and special cases to the rounded magnitude of a number.
    #[inline(always)]
    fn assemble(self, value: f32, rounded: u32, saturate: bool) -> u8 {
        let sign = value.to_bits() >> 24 & 0x80;
        let nan = match self {
            Fp8::E4m3 => sign | 0x7f,
            Fp8::E5m2 => sign | 0x7e,
            Fp8::E4m3Fnuz | Fp8::E5m2Fnuz => 0x80,
        };
        let beyond = match self {
            _ if saturate => sign | u32::from(self.largest()),
            Fp8::E5m2 => sign | 0x7c,
            _ => nan,
        };
        let finite = if self.is_fnuz() && rounded == 0 { 0 } else { sign | rounded };
        let large = rounded > u32::from(self.largest()) || value.is_infinite();
        (if value.is_nan() {
            nan
        } else if large {
            beyond
        } else {
            finite
        }) as u8
    }
}

const NEAREST: Round = Round::NearestEven;

/// A float of 6 or 4 bits of OCP's microscaling formats; none has infinities or NaN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tiny {
    /// fp6: 2 bits of exponent, 3 of fraction.
    E2m3,
    /// bf6: 3 bits of exponent, 2 of fraction.
    E3m2,
    /// fp4: 2 bits of exponent, 1 of fraction.
    E2m1,
}

impl Tiny {
    /// Bits of the whole number.
    pub const fn bits(self) -> u32 {
        if matches!(self, Tiny::E2m1) { 4 } else { 6 }
    }

    /// Bits of fraction.
    #[inline(always)]
    pub const fn mantissa(self) -> u32 {
        match self {
            Tiny::E2m3 => 3,
            Tiny::E3m2 => 2,
            Tiny::E2m1 => 1,
        }
    }

    /// Bias of the exponent.
    #[inline(always)]
    pub const fn bias(self) -> i32 {
        if matches!(self, Tiny::E3m2) { 3 } else { 1 }
    }

    /// The number, exactly. Bits above the format's are ignored.
    #[inline(always)]
    pub fn to_f32(self, bits: u8) -> f32 {
        let sign_at = self.bits() - 1;
        let magnitude = u32::from(bits) & ((1 << sign_at) - 1);
        let sign = (u32::from(bits) >> sign_at & 1) << 31;
        f32::from_bits(sign | expand(magnitude, self.mantissa(), self.bias()).to_bits())
    }

    /// The nearest number, ties to even, at most the largest one; NaN becomes that, too.
    #[inline(always)]
    pub fn from_f32(self, value: f32) -> u8 {
        let rounded = round_magnitude(value.to_bits(), self.mantissa(), self.bias(), NEAREST);
        self.assemble(value, rounded)
    }

    /// A neighbouring number as [`Fp8::from_f32_stochastic`] chooses it.
    #[inline(always)]
    pub fn from_f32_stochastic(self, value: f32, seed: u32) -> u8 {
        let rounded = stochastic_magnitude(value.to_bits(), self.mantissa(), self.bias(), seed);
        self.assemble(value, rounded)
    }

    /// Adds the sign to a rounded magnitude and limits it.
    #[inline(always)]
    fn assemble(self, value: f32, rounded: u32) -> u8 {
        let (sign_at, special) = (self.bits() - 1, !value.is_finite());
        let largest = (1 << sign_at) - 1;
        let magnitude = if special { largest } else { rounded.min(largest) };
        ((value.to_bits() >> 31) << sign_at | magnitude) as u8
    }
}

/// An fp6 number (e2m3) in the low six bits.
#[inline(always)]
pub fn fp6_to_f32(bits: u8) -> f32 {
    Tiny::E2m3.to_f32(bits)
}

/// A bf6 number (e3m2) in the low six bits.
#[inline(always)]
pub fn bf6_to_f32(bits: u8) -> f32 {
    Tiny::E3m2.to_f32(bits)
}

/// An fp4 number (e2m1) in the low four bits.
#[inline(always)]
pub fn fp4_to_f32(bits: u8) -> f32 {
    Tiny::E2m1.to_f32(bits)
}

/// A scale of OCP's E8M0: 2 to the power of `bits` - 127; 255 is NaN.
#[inline(always)]
pub fn e8m0_to_f32(bits: u8) -> f32 {
    f32::from_bits(match bits {
        0 => 0x0040_0000,
        255 => 0x7fc0_0000,
        _ => u32::from(bits) << 23,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A number of a small format from its definition: sign, exponent, fraction.
    fn define(bits: u32, exponent_bits: u32, mantissa: u32, bias: i32) -> f64 {
        let sign = if bits >> (exponent_bits + mantissa) & 1 != 0 { -1.0 } else { 1.0 };
        let exponent = (bits >> mantissa & ((1 << exponent_bits) - 1)) as i32;
        let fraction = f64::from(bits & ((1 << mantissa) - 1)) / f64::from(1_u32 << mantissa);
        let (significand, exponent) =
            if exponent == 0 { (fraction, 1) } else { (1.0 + fraction, exponent) };
        sign * significand * 2_f64.powi(exponent - bias)
    }

    /// Numbers around every boundary of every format: all exponents, many fractions.
    fn samples() -> impl Iterator<Item = f32> {
        let fractions = (0..512_u32).flat_map(|high| {
            let high = high << 14;
            [high, high | 1, high.wrapping_sub(1) & 0x7f_ffff, high | 0x1fff, high | 0x2000]
        });
        fractions.flat_map(|fraction| {
            (0..=255_u32).flat_map(move |exponent| {
                let bits = exponent << 23 | fraction;
                [f32::from_bits(bits), f32::from_bits(bits | 1 << 31)]
            })
        })
    }

    #[test]
    fn halves_equal_those_of_the_half_crate() {
        for bits in 0..=u16::MAX {
            let (ours, theirs) = (f16_to_f32(bits), half::f16::from_bits(bits).to_f32_const());
            let quiet = if theirs.is_nan() { 0x0040_0000 } else { 0 };
            assert_eq!(ours.to_bits(), theirs.to_bits() | quiet, "{bits:#x}");
            assert_eq!(f32_to_f16(ours), quiet_f16(bits), "{bits:#x}");
            let brain = half::bf16::from_bits(bits);
            let quiet = if is_nan_bf16(bits) { 0x40 } else { 0 };
            assert_eq!(bf16_to_f32(bits).to_bits(), u32::from(bits) << 16);
            assert_eq!(f32_to_bf16(bf16_to_f32(bits)), brain.to_bits() | quiet, "{bits:#x}");
        }
        for value in samples() {
            let theirs = half::f16::from_f32_const(value);
            if value.is_nan() {
                assert!(is_nan_f16(f32_to_f16(value)) && is_nan_bf16(f32_to_bf16(value)));
                continue;
            }
            assert_eq!(f32_to_f16(value), theirs.to_bits(), "{value:e}");
            assert_eq!(f32_to_f16_round(value, Round::NearestEven), theirs.to_bits(), "{value:e}");
            let theirs = half::bf16::from_f32_const(value);
            assert_eq!(f32_to_bf16(value), theirs.to_bits(), "{value:e}");
            assert_eq!(f32_to_bf16_round(value, Round::NearestEven), theirs.to_bits());
        }
    }

    /// The directed roundings by their definition: the neighbour on the right side.
    #[test]
    fn directed_roundings_take_the_right_neighbour() {
        for value in samples().filter(|value| !value.is_nan()) {
            for round in [Round::Up, Round::Down, Round::TowardZero] {
                let up = round == Round::Up || (round == Round::TowardZero && value < 0.0);
                let half = f16_to_f32(f32_to_f16_round(value, round));
                check_directed(value, half, up, |v| half::f16::from_f32_const(v).to_f32_const());
                let brain = bf16_to_f32(f32_to_bf16_round(value, round));
                check_directed(value, brain, up, |v| half::bf16::from_f32_const(v).to_f32_const());
            }
        }
        assert_eq!(f32_to_f16_round(1e6, Round::TowardZero), 0x7bff);
        assert_eq!(f32_to_f16_round(-1e6, Round::Up), 0xfbff);
        assert_eq!(f32_to_f16_round(-1e6, Round::Down), 0xfc00);
        assert_eq!(f32_to_f16_round(f32::INFINITY, Round::TowardZero), 0x7c00);
        assert_eq!(f32_to_f16_round(1e-30, Round::Up), 1);
        assert_eq!(f32_to_f16_round(-1e-30, Round::Up), 0x8000);
    }

    fn check_directed(value: f32, rounded: f32, up: bool, nearest: impl Fn(f32) -> f32) {
        assert_eq!(value.is_sign_negative(), rounded.is_sign_negative(), "{value:e}");
        assert!(if up { rounded >= value } else { rounded <= value }, "{value:e} {rounded:e}");
        // No number of the format lies strictly between: the nearest one of the middle is an end.
        if rounded.is_finite() && rounded != value {
            let middle = ((f64::from(value) + f64::from(rounded)) / 2.0) as f32;
            let near = nearest(middle);
            let inside =
                if up { near >= value && near < rounded } else { near <= value && near > rounded };
            assert!(!inside, "{value:e} {rounded:e} {near:e}");
        }
    }

    const FP8: [(Fp8, u32, u32, i32); 4] = [
        (Fp8::E4m3, 4, 3, 7),
        (Fp8::E5m2, 5, 2, 15),
        (Fp8::E4m3Fnuz, 4, 3, 8),
        (Fp8::E5m2Fnuz, 5, 2, 16),
    ];

    fn is_special(format: Fp8, bits: u8) -> bool {
        match format {
            Fp8::E4m3 => bits & 0x7f == 0x7f,
            Fp8::E5m2 => bits & 0x7c == 0x7c,
            _ => bits == 0x80,
        }
    }

    #[test]
    fn fp8_numbers_are_as_defined() {
        for (format, exponent, mantissa, bias) in FP8 {
            for bits in 0..=u8::MAX {
                let number = format.to_f32(bits);
                if !is_special(format, bits) {
                    let defined = define(u32::from(bits), exponent, mantissa, bias);
                    assert_eq!(f64::from(number).to_bits(), defined.to_bits(), "{bits:#x}");
                    assert_eq!(format.from_f32(number, false), bits);
                } else if format == Fp8::E5m2 && bits & 3 == 0 {
                    assert!(number.is_infinite() && number.is_sign_negative() == (bits >= 0x80));
                } else {
                    assert!(number.is_nan());
                }
            }
        }
        // The largest numbers as the formats' papers name them.
        assert_eq!(Fp8::E4m3.to_f32(0x7e), 448.0);
        assert_eq!(Fp8::E5m2.to_f32(0x7b), 57344.0);
        assert_eq!(Fp8::E4m3Fnuz.to_f32(0x7f), 240.0);
        assert_eq!(Fp8::E5m2Fnuz.to_f32(0x7f), 57344.0);
    }

    #[test]
    fn fp8_rounds_to_the_nearest_and_to_even() {
        for (format, ..) in FP8 {
            let finite: Vec<(u8, f64)> = (0..128_u8)
                .filter(|bits| !is_special(format, *bits))
                .map(|bits| (bits, f64::from(format.to_f32(bits))))
                .collect();
            let largest = finite[finite.len() - 1].1;
            let step = largest - finite[finite.len() - 2].1;
            for value in samples().filter(|value| value.is_finite()) {
                let magnitude = f64::from(value.abs());
                let at = finite.partition_point(|(_, number)| *number <= magnitude) - 1;
                let next = finite.get(at + 1).map_or(largest + step, |(_, number)| *number);
                let middle = (finite[at].1 + next) / 2.0;
                let up = magnitude > middle || (magnitude == middle && finite[at].0 & 1 != 0);
                let index = at + usize::from(up);
                let sign = if value.is_sign_negative() { 0x80 } else { 0 };
                let expected = match finite.get(index) {
                    Some((0, _)) if format.is_fnuz() => 0,
                    Some((bits, _)) => bits | sign,
                    None if format == Fp8::E5m2 => 0x7c | sign,
                    None if format == Fp8::E4m3 => 0x7f | sign,
                    None => 0x80,
                };
                assert_eq!(format.from_f32(value, false), expected, "{format:?} {value:e}");
                let saturated =
                    if index == finite.len() { format.largest() | sign } else { expected };
                assert_eq!(format.from_f32(value, true), saturated, "{format:?} {value:e}");
            }
        }
        assert_eq!(Fp8::E4m3Fnuz.from_f32(f32::NAN, true), 0x80);
        assert_eq!(Fp8::E5m2.from_f32(f32::NEG_INFINITY, false), 0xfc);
        assert_eq!(Fp8::E4m3Fnuz.from_f32(-0.0, false), 0);
    }

    #[test]
    fn tiny_floats_are_as_defined() {
        for (format, exponent) in [(Tiny::E2m3, 2), (Tiny::E3m2, 3), (Tiny::E2m1, 2)] {
            let (count, mantissa, bias) = (1_u8 << format.bits(), format.mantissa(), format.bias());
            let numbers: Vec<f32> = (0..count).map(|bits| format.to_f32(bits)).collect();
            for bits in 0..count {
                let defined = define(u32::from(bits), exponent, mantissa, bias);
                assert_eq!(f64::from(numbers[usize::from(bits)]).to_bits(), defined.to_bits());
                assert_eq!(format.from_f32(numbers[usize::from(bits)]), bits);
            }
            for value in samples().filter(|value| value.abs() < 1e6) {
                let magnitude = f64::from(value.abs());
                let best = (0..count / 2).min_by(|a, b| {
                    let distance =
                        |bits: u8| (f64::from(numbers[usize::from(bits)]) - magnitude).abs();
                    distance(*a).total_cmp(&distance(*b)).then((a & 1).cmp(&(b & 1)))
                });
                let sign = if value.is_sign_negative() { count / 2 } else { 0 };
                assert_eq!(Some(format.from_f32(value) - sign), best, "{format:?} {value:e}");
            }
        }
        assert_eq!(
            (Tiny::E2m3.from_f32(3e38), Tiny::E3m2.from_f32(f32::NEG_INFINITY)),
            (0x1f, 0x3f)
        );
        // From OCP's microscaling specification.
        assert_eq!((fp6_to_f32(0x1f), bf6_to_f32(0x1f), fp4_to_f32(0x7)), (7.5, 28.0, 6.0));
        assert_eq!((fp6_to_f32(1), bf6_to_f32(1), fp4_to_f32(1)), (0.125, 0.0625, 0.5));
    }

    /// With all seeds in equal steps, the share of the upper neighbour is the distance from the
    /// lower one; numbers that the format has stay as they are.
    #[test]
    fn chance_rounds_by_distance() {
        let seeds: Vec<u32> = (0..4096_u32).map(|step| step << 20).collect();
        for (value, upper, share) in [
            (1.0625_f32, 0x39, 0.5),
            (1.09375, 0x39, 0.75),
            (-1.03125, 0xb9, 0.25),
            (1.99, 0x40, 0.92),
        ] {
            let ups = seeds
                .iter()
                .filter(|seed| Fp8::E4m3.from_f32_stochastic(value, **seed, false) == upper);
            let found = ups.count() as f64 / 4096.0;
            assert!((found - share).abs() < 0.001, "{value}: {found}");
        }
        for bits in (0..=255_u8).filter(|bits| bits & 0x7f != 0x7f) {
            let value = Fp8::E4m3.to_f32(bits);
            assert_eq!(Fp8::E4m3.from_f32_stochastic(value, u32::MAX, false), bits);
        }
        assert_eq!(Tiny::E2m1.from_f32_stochastic(5.0, 0x7fff_ffff), 6);
        assert_eq!(Tiny::E2m1.from_f32_stochastic(5.0, 0x8000_0000), 7);
        assert_eq!(f32_to_f16_stochastic(1.0 + 0.5 / 1024.0, 0x7fff_ffff, false), 0x3c00);
        assert_eq!(f32_to_f16_stochastic(1.0 + 0.5 / 1024.0, 0x8000_0000, false), 0x3c01);
        assert_eq!(f32_to_f16_stochastic(-1e9, 0, true), 0xfbff);
        assert_eq!(f32_to_bf16_stochastic(f32::from_bits(0x3f80_8000), 0x8000_0000), 0x3f81);
        assert_eq!(f32_to_bf16_stochastic(f32::INFINITY, u32::MAX), 0x7f80);
    }

    #[test]
    fn scales_are_powers_of_two() {
        for bits in 0..255_u8 {
            assert_eq!(f64::from(e8m0_to_f32(bits)), 2_f64.powi(i32::from(bits) - 127));
        }
        assert!(e8m0_to_f32(255).is_nan());
    }

    #[test]
    fn denormals_flush_to_zeros_of_their_sign() {
        assert_eq!(flush_f32(-1e-40).to_bits(), 0x8000_0000);
        assert_eq!(flush_f32(f32::MIN_POSITIVE), f32::MIN_POSITIVE);
        assert_eq!(flush_f64(-1e-310).to_bits(), 1 << 63);
        assert_eq!((flush_f16(0x83ff), flush_f16(0x0400), flush_bf16(0x007f)), (0x8000, 0x400, 0));
    }
}
