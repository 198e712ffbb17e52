//! Minimum, maximum and median. Negative zero is smaller than positive zero everywhere; what the
//! families differ in is NaN.

use super::op::{F16, Mode, Op, mode2, mode3};
use crate::Chip;

/// Numbers that can be ordered.
pub trait Ordered: Copy {
    /// Whether it is a NaN.
    fn is_nan(self) -> bool;
    /// Whether it is a NaN that signals.
    fn is_signaling(self) -> bool;
    /// The same NaN, quiet.
    fn quiet(self) -> Self;
    /// Whether it is smaller, and no NaN.
    fn is_below(self, other: Self) -> bool;
    /// Whether they are equal as numbers.
    fn equals(self, other: Self) -> bool;
}

macro_rules! ordered {
    ($type:ty, $signed:ty, $infinity:literal, $quiet:literal, |$v:ident| $bits:expr, |$b:ident| $from:expr) => {
        impl Ordered for $type {
            #[inline(always)]
            fn is_nan(self) -> bool {
                let $v = self;
                $bits & <$signed>::MAX > $infinity
            }
            #[inline(always)]
            fn is_signaling(self) -> bool {
                let $v = self;
                self.is_nan() & ($bits & $quiet == 0)
            }
            #[inline(always)]
            fn quiet(self) -> Self {
                let $v = self;
                let $b = $bits | $quiet;
                $from
            }
            #[inline(always)]
            fn is_below(self, other: Self) -> bool {
                // Flipping the magnitude of negative numbers puts bits in the order of numbers.
                let key = |$v: Self| $bits ^ (($bits >> (<$signed>::BITS - 1)) & <$signed>::MAX);
                key(self) < key(other)
            }
            #[inline(always)]
            fn equals(self, other: Self) -> bool {
                let magnitude = |$v: Self| $bits & <$signed>::MAX;
                let bits = |$v: Self| $bits;
                (bits(self) == bits(other)) | (magnitude(self) | magnitude(other) == 0)
            }
        }
    };
}

ordered!(f32, i32, 0x7f80_0000, 0x0040_0000, |v| v.to_bits() as i32, |b| f32::from_bits(b as u32));
ordered!(f64, i64, 0x7ff0_0000_0000_0000, 0x0008_0000_0000_0000, |v| v.to_bits() as i64, |b| {
    f64::from_bits(b as u64)
});
ordered!(F16, i16, 0x7c00, 0x0200, |v| v.0 as i16, |b| F16(b as u16));

/// `v_min` and `v_max` of CDNA: of two NaN the second.
const CDNA: u8 = 0;
/// The same of RDNA 3: of two NaN the first.
const RDNA3: u8 = 1;
/// IEEE's `minimumNumber`, RDNA 4: a NaN only if both are.
const NUMBER: u8 = 2;
/// IEEE's `minimum`: a NaN if there is any.
const STRICT: u8 = 3;

/// The smaller of two numbers, or the larger.
#[inline(always)]
fn pick<const FAMILY: u8, const LARGER: bool, T: Ordered>(mode: Mode, a: T, b: T) -> T {
    let first = if LARGER { b.is_below(a) } else { a.is_below(b) };
    let ordinary = if first { a } else { b };
    match FAMILY {
        CDNA | RDNA3 => {
            let both = if FAMILY == CDNA { b } else { a };
            let either = if a.is_nan() & b.is_nan() {
                both
            } else if a.is_nan() {
                b
            } else if b.is_nan() {
                a
            } else {
                ordinary
            };
            if mode.ieee() & a.is_signaling() {
                a.quiet()
            } else if mode.ieee() & b.is_signaling() {
                b.quiet()
            } else {
                either
            }
        }
        NUMBER => {
            if a.is_nan() & b.is_nan() {
                a.quiet()
            } else if a.is_nan() {
                b
            } else if b.is_nan() {
                a
            } else {
                ordinary
            }
        }
        _ => {
            if a.is_signaling() | (a.is_nan() & !b.is_signaling()) {
                a.quiet()
            } else if b.is_nan() {
                b.quiet()
            } else {
                ordinary
            }
        }
    }
}

/// The smaller number by IEEE's `minimum`.
#[inline(always)]
pub fn minimum<T: Ordered>(a: T, b: T) -> T {
    pick::<STRICT, false, T>(Mode(0), a, b)
}

/// The larger number by IEEE's `maximum`.
#[inline(always)]
pub fn maximum<T: Ordered>(a: T, b: T) -> T {
    pick::<STRICT, true, T>(Mode(0), a, b)
}

/// The smaller number by IEEE's `minimumNumber`.
#[inline(always)]
pub fn minimum_number<T: Ordered>(a: T, b: T) -> T {
    pick::<NUMBER, false, T>(Mode(0), a, b)
}

/// The larger number by IEEE's `maximumNumber`.
#[inline(always)]
pub fn maximum_number<T: Ordered>(a: T, b: T) -> T {
    pick::<NUMBER, true, T>(Mode(0), a, b)
}

/// `v_min` of a chip before RDNA 4.
#[inline(always)]
pub fn min<const CDNA_NAN: bool, T: Ordered>(mode: Mode, a: T, b: T) -> T {
    if CDNA_NAN { pick::<CDNA, false, T>(mode, a, b) } else { pick::<RDNA3, false, T>(mode, a, b) }
}

/// `v_max` of a chip before RDNA 4.
#[inline(always)]
pub fn max<const CDNA_NAN: bool, T: Ordered>(mode: Mode, a: T, b: T) -> T {
    if CDNA_NAN { pick::<CDNA, true, T>(mode, a, b) } else { pick::<RDNA3, true, T>(mode, a, b) }
}

#[inline(always)]
fn pick3<const FAMILY: u8, const LARGER: bool, T: Ordered>(mode: Mode, a: T, b: T, c: T) -> T {
    pick::<FAMILY, LARGER, T>(mode, pick::<FAMILY, LARGER, T>(mode, a, b), c)
}

/// The larger of a minimum and a third number, or the smaller of a maximum and a third.
#[inline(always)]
fn bound<const FAMILY: u8, const LARGER: bool, T: Ordered>(mode: Mode, a: T, b: T, c: T) -> T {
    match LARGER {
        false => pick::<FAMILY, true, T>(mode, pick::<FAMILY, false, T>(mode, a, b), c),
        true => pick::<FAMILY, false, T>(mode, pick::<FAMILY, true, T>(mode, a, b), c),
    }
}

/// The middle one of three numbers; the smallest if one of them is a NaN.
#[inline(always)]
fn median<const FAMILY: u8, T: Ordered>(mode: Mode, a: T, b: T, c: T) -> T {
    let largest = pick3::<FAMILY, true, T>(mode, a, b, c);
    let max = pick::<FAMILY, true, T>;
    if a.is_nan() | b.is_nan() | c.is_nan() {
        pick3::<FAMILY, false, T>(mode, a, b, c)
    } else if largest.equals(a) {
        max(mode, b, c)
    } else if largest.equals(b) {
        max(mode, a, c)
    } else {
        max(mode, a, b)
    }
}

/// Operations of two or three numbers of one type, in one family.
macro_rules! table {
    ($type:ty, $family:ident, $name:expr) => {
        Some(match $name {
            "min" => mode2(|m: Mode, a: $type, b: $type| pick::<$family, false, $type>(m, a, b)),
            "max" => mode2(|m: Mode, a: $type, b: $type| pick::<$family, true, $type>(m, a, b)),
            "min3" => mode3(|m: Mode, a: $type, b: $type, c: $type| {
                pick3::<$family, false, $type>(m, a, b, c)
            }),
            "max3" => mode3(|m: Mode, a: $type, b: $type, c: $type| {
                pick3::<$family, true, $type>(m, a, b, c)
            }),
            "minmax" => mode3(|m: Mode, a: $type, b: $type, c: $type| {
                bound::<$family, false, $type>(m, a, b, c)
            }),
            "maxmin" => mode3(|m: Mode, a: $type, b: $type, c: $type| {
                bound::<$family, true, $type>(m, a, b, c)
            }),
            "med3" => {
                mode3(|m: Mode, a: $type, b: $type, c: $type| median::<$family, $type>(m, a, b, c))
            }
            _ => return None,
        })
    };
}

/// The operation of a mnemonic.
pub fn find(mnemonic: &str, chip: Chip) -> Option<Op> {
    let name = mnemonic.strip_prefix("v_")?;
    let (name, kind) = name.rsplit_once('_')?;
    if let Some(name) = name.strip_suffix("_num") {
        return by_type(name, kind, NUMBER);
    }
    let strict = match name {
        "minimum" => "min",
        "maximum" => "max",
        "minimum3" => "min3",
        "maximum3" => "max3",
        "minimummaximum" => "minmax",
        "maximumminimum" => "maxmin",
        _ => return by_type(name, kind, if chip.is_cdna() { CDNA } else { RDNA3 }),
    };
    by_type(strict, kind, STRICT)
}

fn by_type(name: &str, kind: &str, family: u8) -> Option<Op> {
    match (kind, family) {
        ("f32", CDNA) => table!(f32, CDNA, name),
        ("f32", RDNA3) => table!(f32, RDNA3, name),
        ("f32", NUMBER) => table!(f32, NUMBER, name),
        ("f32", _) => table!(f32, STRICT, name),
        ("f16", CDNA) => table!(F16, CDNA, name),
        ("f16", RDNA3) => table!(F16, RDNA3, name),
        ("f16", NUMBER) => table!(F16, NUMBER, name),
        ("f16", _) => table!(F16, STRICT, name),
        ("f64", CDNA) => table!(f64, CDNA, name),
        ("f64", RDNA3) => table!(f64, RDNA3, name),
        ("f64", NUMBER) => table!(f64, NUMBER, name),
        ("f64", _) => table!(f64, STRICT, name),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IEEE: Mode = Mode(0x2f0);
    const PLAIN: Mode = Mode(0xf0);

    fn f(bits: u32) -> f32 {
        f32::from_bits(bits)
    }

    #[test]
    fn zeros_have_an_order() {
        for (a, b) in [(0.0, -0.0), (-0.0, 0.0)] {
            assert_eq!(pick::<CDNA, false, f32>(IEEE, a, b).to_bits(), 0x8000_0000);
            assert_eq!(pick::<CDNA, true, f32>(IEEE, a, b).to_bits(), 0);
            assert_eq!(minimum(a, b).to_bits(), 0x8000_0000);
            assert_eq!(maximum_number(a, b).to_bits(), 0);
        }
    }

    /// Every pair of some halves against a comparison as the documents state it.
    #[test]
    fn halves_are_ordered_as_numbers() {
        let values: Vec<u16> =
            (0..=u16::MAX).step_by(37).chain([0, 0x8000, 0x7c00, 0xfc00]).collect();
        for &a in &values {
            for &b in &values {
                let (x, y) = (half::f16::from_bits(a), half::f16::from_bits(b));
                let below = x < y || (a == 0x8000 && b == 0);
                assert_eq!(F16(a).is_below(F16(b)) && !x.is_nan() && !y.is_nan(), below);
                assert_eq!(F16(a).equals(F16(b)) && !x.is_nan(), x == y);
                assert_eq!(Ordered::is_nan(F16(a)), x.is_nan());
            }
        }
    }

    #[test]
    fn families_treat_nan_as_documented() {
        let (quiet, signal, other) = (f(0x7fc0_0001), f(0x7fa0_0000), f(0xffc0_0002));
        // CDNA with IEEE: a signaling NaN wins, quiet; a quiet one loses.
        assert_eq!(pick::<CDNA, false, f32>(IEEE, 1.0, signal).to_bits(), 0x7fe0_0000);
        assert_eq!(pick::<CDNA, false, f32>(IEEE, quiet, 1.0), 1.0);
        assert_eq!(pick::<CDNA, false, f32>(IEEE, quiet, other).to_bits(), 0xffc0_0002);
        assert_eq!(pick::<RDNA3, false, f32>(IEEE, quiet, other).to_bits(), 0x7fc0_0001);
        // Without IEEE it loses as well.
        assert_eq!(pick::<CDNA, true, f32>(PLAIN, 1.0, signal), 1.0);
        assert_eq!(pick::<NUMBER, true, f32>(IEEE, 1.0, signal), 1.0);
        assert_eq!(pick::<NUMBER, true, f32>(PLAIN, signal, other).to_bits(), 0x7fe0_0000);
        assert_eq!(minimum(1.0, signal).to_bits(), 0x7fe0_0000);
        assert_eq!(minimum(quiet, signal).to_bits(), 0x7fe0_0000);
        assert_eq!(minimum(quiet, other).to_bits(), 0x7fc0_0001);
    }

    #[test]
    fn the_median_is_the_middle_one() {
        let values = [-1.0_f32, 0.5, 2.0];
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let [a, b, c] = order.map(|index: usize| values[index]);
            assert_eq!(median::<CDNA, f32>(PLAIN, a, b, c), 0.5);
            assert_eq!(median::<NUMBER, f32>(PLAIN, a, b, c), 0.5);
        }
        assert_eq!(median::<NUMBER, f32>(PLAIN, f32::NAN, 3.0, 2.0), 2.0);
        assert_eq!(bound::<RDNA3, false, f32>(PLAIN, 1.0, 2.0, 3.0), 3.0);
        assert_eq!(bound::<RDNA3, true, f32>(PLAIN, 1.0, 2.0, -3.0), -3.0);
    }
}
