//! Weights that are in no file: what a runtime puts into the constants segment instead, so that a
//! model's speed and memory can be seen without the model.
//!
//! What lies at a byte depends on the seed and the byte's offset in the segment alone. So devices
//! make it in any order and in pieces of any size, and every device gets the same.

use crate::verify::{PlanError, Result, ensure};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Weights that a runtime makes up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Synthetic {
    /// Key of the random numbers.
    pub seed: u64,
    /// What lies where in the constants segment, later ones over earlier ones. The rest is zero.
    pub fills: Vec<Fill>,
}

/// What lies in `count` ranges of `bytes` bytes each, `stride` bytes from one's begin to the next's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fill {
    /// First byte of the first range, from the begin of the constants segment.
    pub offset: u64,
    /// Bytes of a range.
    pub bytes: u64,
    /// Number of ranges.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub count: u64,
    /// Bytes from the begin of a range to that of the next; 0 where there is only one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub stride: u64,
    /// What lies in them.
    pub content: Content,
}

/// What lies in a range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// Random numbers of either sign, of magnitudes from 2^(exponent − 4) to below 2^exponent: each
    /// of the four octaves is as likely as the other, and so is each number in it. Their root mean
    /// square is 0.44 · 2^exponent.
    Numbers {
        /// How they are stored.
        form: NumberForm,
        /// In [`EXPONENTS`].
        exponent: i32,
    },
    /// Random bytes.
    Bytes,
    /// These bytes, again and again from the begin of each range; all of a range that is no longer.
    Repeat(Vec<u8>),
}

/// Exponents of [`Content::Numbers`]: all numbers are then normal and finite in each form.
pub const EXPONENTS: std::ops::RangeInclusive<i32> = -10..=15;

/// How random numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NumberForm {
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// The upper half of binary32.
    BF16,
}

impl NumberForm {
    /// Bytes of a number.
    pub fn bytes(self) -> u64 {
        match self {
            NumberForm::F32 => 4,
            NumberForm::F16 | NumberForm::BF16 => 2,
        }
    }

    /// Bits of the fraction, and what is added to exponents.
    pub fn fraction_and_bias(self) -> (u32, i32) {
        match self {
            NumberForm::F32 => (23, 127),
            NumberForm::F16 => (10, 15),
            NumberForm::BF16 => (7, 127),
        }
    }
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators"):
/// scatters what differs in a few bits.
pub fn scatter(mut x: u64) -> u64 {
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_one(count: &u64) -> bool {
    *count == 1
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_zero(count: &u64) -> bool {
    *count == 0
}

fn one() -> u64 {
    1
}

impl Fill {
    /// One range.
    pub fn range(offset: u64, bytes: u64, content: Content) -> Fill {
        Fill { offset, bytes, count: 1, stride: 0, content }
    }

    /// End of the last range; `None` beyond 2⁶⁴.
    pub fn end(&self) -> Option<u64> {
        let before = self.count.checked_sub(1)?.checked_mul(self.stride)?;
        self.offset.checked_add(before)?.checked_add(self.bytes)
    }

    /// Checks that the ranges are there, apart, and inside a segment of `constants` bytes, and that
    /// numbers lie at multiples of their size.
    fn verify(&self, place: &str, constants: u64) -> Result {
        ensure(self.bytes > 0 && self.count > 0, place, "it is empty")?;
        let apart = if self.count == 1 { self.stride == 0 } else { self.stride >= self.bytes };
        ensure(apart, place, "its ranges overlap")?;
        let end = self.end().unwrap_or(u64::MAX);
        if end > constants {
            return Err(PlanError::OutsideSegment { place: place.into(), end, size: constants });
        }
        match &self.content {
            Content::Numbers { form, exponent } => {
                let known = EXPONENTS.contains(exponent);
                ensure(known, place, "the exponent of its numbers is not in -10..=15")?;
                let size = form.bytes();
                let sizes = [self.offset, self.bytes, self.stride];
                let whole = sizes.iter().all(|bytes| bytes.is_multiple_of(size));
                ensure(whole, place, "its ranges are not made of whole numbers")
            }
            Content::Bytes => Ok(()),
            Content::Repeat(bytes) => ensure(!bytes.is_empty(), place, "it repeats nothing"),
        }
    }
}

impl Synthetic {
    /// Checks every fill for a constants segment of `constants` bytes.
    pub(crate) fn verify(&self, constants: u64) -> Result {
        let mut fills = self.fills.iter().enumerate();
        fills.try_for_each(|(i, fill)| fill.verify(&format!("fill {i}"), constants))
    }
}

impl fmt::Display for Fill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}; {}]", self.offset, self.bytes)?;
        if self.count > 1 {
            write!(f, " x {} by {}", self.count, self.stride)?;
        }
        match &self.content {
            Content::Numbers { form, exponent } => {
                let form = match form {
                    NumberForm::F32 => "f32",
                    NumberForm::F16 => "f16",
                    NumberForm::BF16 => "bf16",
                };
                write!(f, " random {form} below 2^{exponent}")
            }
            Content::Bytes => write!(f, " random bytes"),
            Content::Repeat(bytes) if bytes.len() > 8 => write!(f, " {} given bytes", bytes.len()),
            Content::Repeat(bytes) => {
                write!(f, " repeats")?;
                bytes.iter().try_for_each(|byte| write!(f, " {byte:02x}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Plan, toy};
    use insta::assert_snapshot;

    fn numbers(offset: u64, bytes: u64) -> Fill {
        let form = NumberForm::F32;
        Fill::range(offset, bytes, Content::Numbers { form, exponent: -3 })
    }

    /// The toy plan, whose constants segment has 128 bytes, with synthetic weights.
    fn plan(fills: Vec<Fill>) -> Plan {
        Plan { synthetic: Some(Synthetic { seed: 7, fills }), ..toy::plan() }
    }

    fn error(fill: Fill) -> String {
        plan(vec![numbers(0, 128), fill]).verify().expect_err("the fill is wrong").to_string()
    }

    #[test]
    fn fills_verify_print_and_return_from_json() {
        let scales =
            Fill { count: 4, stride: 20, ..Fill::range(2, 2, Content::Repeat(vec![0, 1])) };
        let fills = vec![
            numbers(64, 64),
            scales,
            Fill::range(0, 64, Content::Bytes),
            Fill::range(64, 16, Content::Repeat(vec![1; 16])),
        ];
        let plan = plan(fills);
        plan.verify().unwrap();
        assert_eq!(Plan::from_json(&plan.to_json()).unwrap(), plan);
        let text = plan.to_string();
        let weights = text.split("synthetic weights").nth(1).unwrap();
        assert_snapshot!(weights.split("\n\n").next().unwrap(), @r"
        , seed 7
          [64; 64] random f32 below 2^-3
          [2; 2] x 4 by 20 repeats 00 01
          [0; 64] random bytes
          [64; 16] 16 given bytes
        ");
    }

    #[test]
    fn bad_fills_are_refused() {
        let number = |form, exponent| Content::Numbers { form, exponent };
        let many = |bytes, count, stride| Fill { count, stride, ..numbers(0, bytes) };
        assert_snapshot!(error(numbers(64, 68)), @"fill 1: ends at byte 132 of a segment of 128");
        assert_snapshot!(error(numbers(u64::MAX - 3, 64)), @"fill 1: ends at byte 18446744073709551615 of a segment of 128");
        assert_snapshot!(error(many(4, u64::MAX, u64::MAX - 3)), @"fill 1: ends at byte 18446744073709551615 of a segment of 128");
        assert_snapshot!(error(many(4, 17, 8)), @"fill 1: ends at byte 132 of a segment of 128");
        assert_snapshot!(error(many(8, 3, 4)), @"fill 1: its ranges overlap");
        assert_snapshot!(error(many(4, 2, 0)), @"fill 1: its ranges overlap");
        assert_snapshot!(error(many(4, 1, 8)), @"fill 1: its ranges overlap");
        assert_snapshot!(error(numbers(0, 0)), @"fill 1: it is empty");
        assert_snapshot!(error(many(4, 0, 8)), @"fill 1: it is empty");
        assert_snapshot!(error(numbers(2, 64)), @"fill 1: its ranges are not made of whole numbers");
        assert_snapshot!(error(numbers(0, 6)), @"fill 1: its ranges are not made of whole numbers");
        assert_snapshot!(error(many(4, 2, 6)), @"fill 1: its ranges are not made of whole numbers");
        for (form, exponent) in [(NumberForm::F16, 16), (NumberForm::F32, -11)] {
            let error = error(Fill::range(0, 64, number(form, exponent)));
            assert_eq!(error, "fill 1: the exponent of its numbers is not in -10..=15");
        }
        assert_snapshot!(error(Fill::range(0, 64, Content::Repeat(vec![]))), @"fill 1: it repeats nothing");
    }

    /// All numbers of a form are normal and finite for every exponent that is allowed.
    #[test]
    fn exponents_stay_inside_every_form() {
        for form in [NumberForm::F32, NumberForm::F16, NumberForm::BF16] {
            let (fraction, bias) = form.fraction_and_bias();
            let infinite = (1 << (8 * form.bytes() as i32 - 1 - fraction as i32)) - 1;
            assert!(EXPONENTS.start() - 4 + bias >= 1);
            assert!(EXPONENTS.end() - 1 + bias < infinite);
        }
    }
}
