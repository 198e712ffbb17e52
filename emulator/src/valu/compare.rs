//! Comparisons: `v_cmp_*` writes a mask, `v_cmpx_*` the execution mask (and on CDNA the mask, too).

use super::op::{F16, Lane, Op, compare};
use crate::number::f16_to_f32;

/// The operation of a mnemonic.
pub fn find(mnemonic: &str) -> Option<Op> {
    if let Some(name) = mnemonic.strip_prefix("v_cmpx_") {
        return Some(named(name)?.writing_exec());
    }
    named(mnemonic.strip_prefix("v_cmp_")?)
}

fn named(name: &str) -> Option<Op> {
    let (predicate, of) = name.rsplit_once('_')?;
    match (predicate, of) {
        ("class", "f16") => {
            return Some(compare(|a: F16, set: u16| class_f16(a, set)).keeping_denormals());
        }
        ("class", "f32") => {
            return Some(compare(|a: f32, set: u32| class_f32(a, set)).keeping_denormals());
        }
        ("class", "f64") => {
            return Some(compare(|a: f64, set: u32| class_f64(a, set)).keeping_denormals());
        }
        _ => {}
    }
    match of {
        "i16" => integers::<i16>(predicate),
        "u16" => integers::<u16>(predicate),
        "i32" => integers::<i32>(predicate),
        "u32" => integers::<u32>(predicate),
        "i64" => integers::<i64>(predicate),
        "u64" => integers::<u64>(predicate),
        "f16" => floats::<F16>(predicate),
        "f32" => floats::<f32>(predicate),
        "f64" => floats::<f64>(predicate),
        _ => None,
    }
}

fn integers<T: Lane + Ord>(predicate: &str) -> Option<Op> {
    Some(match predicate {
        "f" => compare(|_: T, _: T| false),
        "lt" => compare(|a: T, b: T| a < b),
        "eq" => compare(|a: T, b: T| a == b),
        "le" => compare(|a: T, b: T| a <= b),
        "gt" => compare(|a: T, b: T| a > b),
        "ne" => compare(|a: T, b: T| a != b),
        "ge" => compare(|a: T, b: T| a >= b),
        "t" => compare(|_: T, _: T| true),
        _ => return None,
    })
}

/// A number that the host can compare.
trait Real: Lane {
    type Value: PartialOrd;
    fn value(self) -> Self::Value;
}

impl Real for F16 {
    type Value = f32;
    #[inline(always)]
    fn value(self) -> f32 {
        f16_to_f32(self.0)
    }
}

impl Real for f32 {
    type Value = f32;
    #[inline(always)]
    fn value(self) -> f32 {
        self
    }
}

impl Real for f64 {
    type Value = f64;
    #[inline(always)]
    fn value(self) -> f64 {
        self
    }
}

/// The sixteen predicates: each ordered one, and its negation, which a NaN satisfies.
#[expect(clippy::neg_cmp_op_on_partial_ord, reason = "the predicates are named so")]
fn floats<T: Real>(predicate: &str) -> Option<Op> {
    Some(match predicate {
        "f" => compare(|_: T, _: T| false),
        "lt" => compare(|a: T, b: T| a.value() < b.value()),
        "eq" => compare(|a: T, b: T| a.value() == b.value()),
        "le" => compare(|a: T, b: T| a.value() <= b.value()),
        "gt" => compare(|a: T, b: T| a.value() > b.value()),
        "lg" => compare(|a: T, b: T| a.value() < b.value() || a.value() > b.value()),
        "ge" => compare(|a: T, b: T| a.value() >= b.value()),
        "o" => compare(|a: T, b: T| a.value() == a.value() && b.value() == b.value()),
        "u" => compare(|a: T, b: T| a.value() != a.value() || b.value() != b.value()),
        "nge" => compare(|a: T, b: T| !(a.value() >= b.value())),
        "nlg" => compare(|a: T, b: T| !(a.value() < b.value() || a.value() > b.value())),
        "ngt" => compare(|a: T, b: T| !(a.value() > b.value())),
        "nle" => compare(|a: T, b: T| !(a.value() <= b.value())),
        "neq" => compare(|a: T, b: T| a.value() != b.value()),
        "nlt" => compare(|a: T, b: T| !(a.value() < b.value())),
        "t" | "tru" => compare(|_: T, _: T| true),
        _ => return None,
    })
}

/// Number of the class of a value: 0 signaling NaN, 1 quiet NaN, 2 to 5 negative infinity, normal,
/// denormal and zero, 6 to 9 positive zero, denormal, normal and infinity.
#[inline(always)]
fn class(bits: u64, exponent_bits: u32, fraction_bits: u32) -> u32 {
    let fraction = bits & ((1 << fraction_bits) - 1);
    let top = (1_u64 << exponent_bits) - 1;
    let exponent = bits >> fraction_bits & top;
    let negative = bits >> (exponent_bits + fraction_bits) & 1 != 0;
    let positive = if exponent == top {
        9
    } else if exponent != 0 {
        8
    } else if fraction != 0 {
        7
    } else {
        6
    };
    if exponent == top && fraction != 0 {
        (fraction >> (fraction_bits - 1)) as u32
    } else if negative {
        11 - positive
    } else {
        positive
    }
}

#[inline(always)]
fn class_f16(a: F16, set: u16) -> bool {
    set >> class(u64::from(a.0), 5, 10) & 1 != 0
}

#[inline(always)]
fn class_f32(a: f32, set: u32) -> bool {
    set >> class(u64::from(a.to_bits()), 8, 23) & 1 != 0
}

#[inline(always)]
fn class_f64(a: f64, set: u32) -> bool {
    set >> class(a.to_bits(), 11, 52) & 1 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_those_of_the_isa() {
        let cases = [
            (0x7f80_0001, 0),
            (0x7fc0_0000, 1),
            (0xff80_0000, 2),
            (0xbf80_0000, 3),
            (0x8000_0001, 4),
            (0x8000_0000, 5),
            (0x0000_0000, 6),
            (0x0000_0001, 7),
            (0x3f80_0000, 8),
            (0x7f80_0000, 9),
        ];
        for (bits, expected) in cases {
            assert_eq!(class(bits, 8, 23), expected, "{bits:#x}");
        }
        assert_eq!(class(0x7c00, 5, 10), 9);
        assert_eq!(class(f64::NEG_INFINITY.to_bits(), 11, 52), 2);
    }
}
