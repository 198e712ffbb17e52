//! A number with a bound of its error: running error analysis, after Wilkinson.
//!
//! A [`Bounded`] stands for a real number that is no further than `error` from `value`. Every
//! operation carries the errors of its operands on, in the worst case, and adds its own rounding.
//! So where two ways to compute something are equal in real arithmetic, their values differ by no
//! more than the sum of their errors, and a larger difference proves that they are not equal.

use super::Real;
use crate::expr::{BinaryOp, UnaryOp};
use crate::types::DType;
use std::cmp::Ordering;
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

/// A number and how far it may be from what it stands for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bounded {
    /// What was computed, in f64.
    pub value: f64,
    /// Largest distance of the exact number; infinite where nothing is known.
    pub error: f64,
}

/// Half a unit in the last place of an f64, relative.
const ROUNDING: f64 = f64::EPSILON / 2.0;

/// Of an f32, relative.
const F32_ROUNDING: f64 = (f32::EPSILON / 2.0) as f64;

/// Operations in f32 of which a constant may be the result: a division that became a product with
/// the inverse, and three more factors that were multiplied into it.
const CONSTANT_ROUNDINGS: f64 = 4.0;

/// Errors of the functions of the mathematical library, in units of the last place: below one in
/// those in use, with room.
const FUNCTION_ROUNDINGS: f64 = 8.0;

/// `factor · error`, where an error of 0 stays 0.
fn scaled(factor: f64, error: f64) -> f64 {
    if error == 0.0 || factor == 0.0 { 0.0 } else { factor.abs() * error }
}

impl Bounded {
    /// A value after an operation whose operands account for `error`.
    fn rounded(value: f64, error: f64) -> Bounded {
        Bounded::within(value, error + ROUNDING * value.abs())
    }

    /// Infinities are exact, and of what is no number nothing can be said.
    fn within(value: f64, error: f64) -> Bounded {
        // Computing the error rounds, too.
        let error = error * (1.0 + 8.0 * f64::EPSILON);
        match value.is_finite() {
            true => Bounded { value, error: if error.is_nan() { f64::INFINITY } else { error } },
            false => Bounded { value, error: 0.0 },
        }
    }

    fn exact(value: f64) -> Bounded {
        Bounded { value, error: 0.0 }
    }

    fn low(self) -> f64 {
        self.value - self.error
    }

    fn high(self) -> f64 {
        self.value + self.error
    }

    /// Of a function that rises or falls throughout, at the ends of the interval.
    fn monotone(self, function: impl Fn(f64) -> f64) -> Bounded {
        let value = function(self.value);
        let ends = [function(self.low()), function(self.high())];
        let error = match self.error {
            0.0 => 0.0,
            // Outside of its domain at one end.
            _ if ends.iter().any(|x| x.is_nan()) => f64::INFINITY,
            _ => (ends[0] - value).abs().max((ends[1] - value).abs()),
        };
        Bounded::within(value, error + FUNCTION_ROUNDINGS * ROUNDING * value.abs())
    }

    fn between(low: f64, high: f64, value: f64) -> Bounded {
        Bounded::within(value, (high - value).max(value - low))
    }
}

impl PartialEq for Bounded {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl PartialOrd for Bounded {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.value.partial_cmp(&other.value)
    }
}

impl Add for Bounded {
    type Output = Bounded;
    fn add(self, other: Bounded) -> Bounded {
        Bounded::rounded(self.value + other.value, self.error + other.error)
    }
}

impl Sub for Bounded {
    type Output = Bounded;
    fn sub(self, other: Bounded) -> Bounded {
        Bounded::rounded(self.value - other.value, self.error + other.error)
    }
}

impl Mul for Bounded {
    type Output = Bounded;
    fn mul(self, other: Bounded) -> Bounded {
        let error = scaled(self.value, other.error)
            + scaled(other.value, self.error)
            + scaled(self.error, other.error);
        Bounded::rounded(self.value * other.value, error)
    }
}

impl Div for Bounded {
    type Output = Bounded;
    fn div(self, other: Bounded) -> Bounded {
        let value = self.value / other.value;
        let room = other.value.abs() - other.error;
        let numerator = self.error + scaled(value, other.error);
        let error = match numerator {
            0.0 => 0.0,
            _ if room > 0.0 => numerator / room,
            _ => f64::INFINITY,
        };
        Bounded::rounded(value, error)
    }
}

impl Neg for Bounded {
    type Output = Bounded;
    fn neg(self) -> Bounded {
        Bounded { value: -self.value, ..self }
    }
}

impl AddAssign for Bounded {
    fn add_assign(&mut self, other: Bounded) {
        *self = *self + other;
    }
}

impl Real for Bounded {
    fn from_f32(x: f32) -> Self {
        Bounded::exact(x.into())
    }

    fn from_f64(x: f64) -> Self {
        Bounded::exact(x)
    }

    /// A rewrite may have computed it, in f32.
    fn constant(x: f32) -> Self {
        let x = f64::from(x);
        Bounded::within(x, CONSTANT_ROUNDINGS * F32_ROUNDING * x.abs())
    }

    fn to_f64(self) -> f64 {
        self.value
    }

    fn exp(self) -> Self {
        self.monotone(<f64 as Real>::exp)
    }

    fn sqrt(self) -> Self {
        self.monotone(f64::sqrt)
    }

    fn unary(self, op: UnaryOp) -> Self {
        match op {
            UnaryOp::Neg => -self,
            UnaryOp::Abs => Bounded { value: self.value.abs(), ..self },
            UnaryOp::Exp => Real::exp(self),
            UnaryOp::Sqrt => Real::sqrt(self),
            UnaryOp::Rsqrt => self.monotone(|x| x.sqrt().recip()),
            UnaryOp::Log | UnaryOp::Sigmoid | UnaryOp::Tanh => {
                self.monotone(|x| Real::unary(x, op))
            }
            UnaryOp::Sin | UnaryOp::Cos => {
                let value = Real::unary(self.value, op);
                let error = self.error.min(2.0) + FUNCTION_ROUNDINGS * ROUNDING;
                Bounded::within(value, error)
            }
        }
    }

    fn max(self, other: Self) -> Self {
        let (low, high) = (self.low().max(other.low()), self.high().max(other.high()));
        Bounded::between(low, high, self.value.max(other.value))
    }

    /// A comparison is taken to be decided: a program whose result hangs on one that is not is
    /// different after any rounding.
    fn binary(self, op: BinaryOp, other: Self) -> Self {
        match op {
            BinaryOp::Add => self + other,
            BinaryOp::Sub => self - other,
            BinaryOp::Mul => self * other,
            BinaryOp::Div => self / other,
            BinaryOp::Max => Real::max(self, other),
            BinaryOp::Min => -Real::max(-self, -other),
            BinaryOp::Lt | BinaryOp::Le | BinaryOp::And | BinaryOp::Or => {
                Bounded::exact(Real::binary(self.value, op, other.value))
            }
        }
    }

    /// The exact number may be rounded, too, to a neighbour of what it is rounded to here.
    fn rounded_to(self, dtype: DType) -> Self {
        let value = self.value.rounded_to(dtype);
        let next = |x: f64| (x.rounded_to(dtype) - x).abs();
        let own = (value - self.value).abs();
        let error = match self.error {
            0.0 => own,
            error => error + own.max(next(self.low())).max(next(self.high())),
        };
        Bounded::within(value, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    /// Two orders of a sum, and two spellings of a quotient, differ by less than their errors say,
    /// and by about as much as f64 rounds.
    #[test]
    fn what_is_equal_is_within_the_errors_and_little_more() {
        let mut random = Random::new(3);
        for _ in 0..100 {
            let xs: Vec<Bounded> = random.reals(200).into_iter().map(Bounded::from_f32).collect();
            let sum = |xs: &mut dyn Iterator<Item = &Bounded>| {
                xs.fold(Bounded::default(), |sum, &x| sum + x * x)
            };
            let (a, b) = (sum(&mut xs.iter()), sum(&mut xs.iter().rev()));
            assert!((a.value - b.value).abs() <= a.error + b.error);
            assert!(a.error < 1e-11, "{a:?}");
            let (inverse, divided) = (a.unary(UnaryOp::Rsqrt), Bounded::from_f32(1.0) / a.sqrt());
            assert!((inverse.value - divided.value).abs() <= inverse.error + divided.error);
        }
    }

    /// What begins within an error of the operands ends within that of the result.
    #[test]
    fn errors_cover_operands_that_are_off() {
        let mut random = Random::new(4);
        let functions = [UnaryOp::Exp, UnaryOp::Sigmoid, UnaryOp::Tanh, UnaryOp::Cos];
        for _ in 0..1000 {
            let [x, y] = [random.real(), random.real()];
            let near = |x: f32| Bounded::within(x.into(), 1e-3);
            let moved = |x: f32| f64::from(x) + 0.999e-3;
            for op in functions {
                let (bounded, exact) = (near(x).unary(op), Real::unary(moved(x), op));
                assert!((bounded.value - exact).abs() <= bounded.error, "{op:?} of {x}");
            }
            for op in [BinaryOp::Add, BinaryOp::Mul, BinaryOp::Div, BinaryOp::Max, BinaryOp::Min] {
                let bounded = near(x).binary(op, near(y));
                let exact = Real::binary(moved(x), op, moved(y));
                assert!((bounded.value - exact).abs() <= bounded.error, "{op:?} of {x}, {y}");
            }
        }
    }

    #[test]
    fn infinities_and_masks_do_not_blur_what_is_beside_them() {
        let mask = Bounded::constant(f32::NEG_INFINITY);
        let score = Bounded::within(0.5, 1e-9);
        assert_eq!((mask + score).error, 0.0);
        assert_eq!(Real::exp(mask + score).value, 0.0);
        let large = Bounded::constant(-1e30);
        let largest = Real::max(large, score);
        assert_eq!(largest.value, 0.5);
        assert!(largest.error <= 1e-9 + f64::EPSILON);
        assert_eq!(Real::exp(large - largest).error, 0.0);
        // Dividing by what may be nothing.
        assert_eq!((score / Bounded::within(1e-12, 1e-9)).error, f64::INFINITY);
    }

    #[test]
    fn rounding_to_a_dtype_is_an_error() {
        let x = Bounded::exact(1.0 + 2f64.powi(-12));
        let rounded = x.rounded_to(DType::F16);
        assert_eq!(rounded.value, 1.0);
        assert!((rounded.error - 2f64.powi(-12)).abs() < 1e-15);
        assert_eq!(x.rounded_to(DType::F32).error, 0.0);
    }
}
