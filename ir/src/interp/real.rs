//! The numbers that the interpreter computes in.

use crate::expr::{BinaryOp, UnaryOp};
use crate::storage::{f8e4m3_to_f32, f8e4m3fnuz_to_f32, round_to_f8e4m3, round_to_f8e4m3fnuz};
use crate::types::DType;
use half::{bf16, f16};
use std::fmt::Debug;
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

mod bounded;

pub use bounded::Bounded;

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
    impl Sealed for super::Bounded {}
}

/// `f32`, `f64` or [`Bounded`]: what stands for every real number of a module, whatever its dtype.
pub trait Real:
    sealed::Sealed
    + Copy
    + Debug
    + Default
    + PartialOrd
    + Send
    + Sync
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + 'static
{
    /// From an f32, exactly.
    fn from_f32(x: f32) -> Self;
    /// From an f64, rounded.
    fn from_f64(x: f64) -> Self;
    /// A constant of the module.
    fn constant(x: f32) -> Self {
        Self::from_f32(x)
    }
    /// To an f64, exactly.
    fn to_f64(self) -> f64;
    /// To an f32, rounded.
    fn to_f32(self) -> f32 {
        self.to_f64() as f32
    }
    /// eˣ.
    fn exp(self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// A scalar function.
    fn unary(self, op: UnaryOp) -> Self;
    /// The larger; the other where one is NaN.
    fn max(self, other: Self) -> Self;
    /// A scalar function; comparisons and logic take and give 1 for true and 0 for false.
    fn binary(self, op: BinaryOp, other: Self) -> Self;

    /// Rounded to what `dtype` can hold. f32 changes nothing, so that f64 stays exact through it.
    fn rounded_to(self, dtype: DType) -> Self {
        match dtype {
            DType::F16 => Self::from_f32(f16::from_f64(self.to_f64()).to_f32()),
            DType::BF16 => Self::from_f32(bf16::from_f64(self.to_f64()).to_f32()),
            DType::F8E4M3 => Self::from_f32(f8e4m3_to_f32(round_to_f8e4m3(self.to_f64()))),
            DType::F8E4M3FNUZ => {
                Self::from_f32(f8e4m3fnuz_to_f32(round_to_f8e4m3fnuz(self.to_f64())))
            }
            DType::F32 | DType::I32 | DType::I8 | DType::U8 | DType::Bool => self,
            DType::Q8_0
            | DType::Q4_0
            | DType::Q4_1
            | DType::Q5_0
            | DType::Q5_1
            | DType::Q4_K
            | DType::Q5_K
            | DType::Q6_K => self,
        }
    }
}

// libm's functions, as the system's differ from machine to machine in the last place, and what is computed
// here ends up in files that must not.
macro_rules! real {
    ($ty:ident, $from_f32:expr, $exp:path, $log:path, $tanh:path, $sin:path, $cos:path) => {
        impl Real for $ty {
            fn from_f32(x: f32) -> Self {
                $from_f32(x)
            }
            fn from_f64(x: f64) -> Self {
                x as $ty
            }
            fn to_f64(self) -> f64 {
                self.into()
            }
            fn exp(self) -> Self {
                $exp(self)
            }
            fn sqrt(self) -> Self {
                self.sqrt()
            }
            fn max(self, other: Self) -> Self {
                self.max(other)
            }
            fn unary(self, op: UnaryOp) -> Self {
                match op {
                    UnaryOp::Neg => -self,
                    UnaryOp::Abs => self.abs(),
                    UnaryOp::Exp => $exp(self),
                    UnaryOp::Log => $log(self),
                    UnaryOp::Sqrt => self.sqrt(),
                    UnaryOp::Rsqrt => 1.0 / self.sqrt(),
                    UnaryOp::Sigmoid => 1.0 / (1.0 + $exp(-self)),
                    UnaryOp::Tanh => $tanh(self),
                    UnaryOp::Sin => $sin(self),
                    UnaryOp::Cos => $cos(self),
                }
            }
            fn binary(self, op: BinaryOp, other: Self) -> Self {
                let flag = |truth: bool| $ty::from(truth as u8);
                match op {
                    BinaryOp::Add => self + other,
                    BinaryOp::Sub => self - other,
                    BinaryOp::Mul => self * other,
                    BinaryOp::Div => self / other,
                    BinaryOp::Max => self.max(other),
                    BinaryOp::Min => self.min(other),
                    BinaryOp::Lt => flag(self < other),
                    BinaryOp::Le => flag(self <= other),
                    BinaryOp::And => flag(self != 0.0 && other != 0.0),
                    BinaryOp::Or => flag(self != 0.0 || other != 0.0),
                }
            }
        }
    };
}

real!(f32, |x| x, libm::expf, libm::logf, libm::tanhf, libm::sinf, libm::cosf);
real!(f64, f64::from, libm::exp, libm::log, libm::tanh, libm::sin, libm::cos);
