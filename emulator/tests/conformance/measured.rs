//! Sums of matrix instructions that are not exact, as they were measured.
//!
//! RDNA 3 (github.com/ROCm/rocm-systems, issue 12056): two products at a time are added to C in
//! integers, on a grid that the largest of the three decides; a term whose sign is not C's counts as
//! the complement to one of its magnitude, a zero as well.

use crate::exact::{F16, F32, Format, Num, Round};

/// Bits that a product keeps below the product of its factors' leading bits.
const PRODUCT: i32 = 24;
/// Bits that a sum keeps below its largest term's leading bit.
const SUM: i32 = 26;

/// Exponent of the leading bit; of zero, none.
fn leading(value: f64) -> Option<i32> {
    let field = (value.abs().to_bits() >> 52) as i32;
    (value != 0.0).then_some(field - 1023)
}

/// Exponent of the leading bit in a format, whose denormals have the least one.
fn exponent(format: Format, value: f64) -> Option<i32> {
    leading(value).map(|exponent| exponent.max(1 - format.bias))
}

/// Zero with the sign of a denormal of formats with eight bits of exponent.
fn flushed(format: Format, value: f64) -> f64 {
    let tiny = format.exponent == 8 && value.abs() < f64::from(f32::MIN_POSITIVE);
    if tiny { 0.0_f64.copysign(value) } else { value }
}

/// `c` and the products of a row and a column of numbers of a format, as RDNA 3 adds them; the
/// result is a number of another format.
pub fn rdna3(from: Format, to: Format, row: &[f64], column: &[f64], c: f64) -> f64 {
    let factors: Vec<[f64; 2]> =
        row.iter().zip(column).map(|(a, b)| [*a, *b].map(|x| flushed(from, x))).collect();
    factors.chunks(2).fold(c, |sum, pair| step(from, to, [pair[0], pair[1]], sum))
}

fn step(from: Format, to: Format, pairs: [[f64; 2]; 2], c: f64) -> f64 {
    let c = flushed(to, c);
    let terms = [c, pairs[0][0] * pairs[0][1], pairs[1][0] * pairs[1][1]];
    if terms.iter().all(|term| *term == 0.0) {
        return 0.0;
    }
    // A half as C has the exponent of its least normal numbers even if it is zero.
    let least_c = (to == F16).then_some(1 - F16.bias);
    let tops = terms.map(leading).into_iter().chain([least_c]).flatten();
    let products =
        pairs.iter().filter_map(|[a, b]| Some(exponent(from, *a)? + exponent(from, *b)?));
    let grid = tops.map(|top| top - SUM).chain(products.map(|top| top - PRODUCT)).max();
    let grid = grid.expect("a term that is not zero");
    let unit = 2_f64.powi(grid);
    let framed = |term: f64| {
        let magnitude = (term.abs() / unit).floor() as i64;
        let same = term.is_sign_negative() == c.is_sign_negative();
        if same { magnitude } else { -1 - magnitude }
    };
    let total: i64 = terms.map(framed).iter().sum();
    if total == 0 {
        return 0.0;
    }
    let negative = (total < 0) != c.is_sign_negative();
    let sum = Num::Val { negative, mantissa: total.unsigned_abs().into(), exponent: grid };
    if to == F16 {
        let half = F16.value(F16.round(sum, Round::Even)).to_f64();
        return half + 0.0;
    }
    let single = f32::from_bits(F32.round(sum, Round::Even) as u32);
    let single = flushed(F32, f64::from(single));
    // A bfloat16 is what is left of the single.
    let cut = if to.fraction == F32.fraction { u32::MAX } else { 0xffff_0000 };
    f64::from(f32::from_bits((single as f32).to_bits() & cut))
}
