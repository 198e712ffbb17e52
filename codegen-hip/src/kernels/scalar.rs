//! Scalar functions of the IR as vector code.

use crate::mlir::builder::Cmp;
use crate::mlir::{Builder, Value};
use waveloom_ir::{BinaryOp, UnaryOp};

/// A function of one f32, by lane.
pub fn unary(k: &mut Builder, op: UnaryOp, x: Value) -> Value {
    match op {
        UnaryOp::Neg => k.neg(x),
        UnaryOp::Abs => k.abs(x),
        UnaryOp::Exp => k.exp(x),
        UnaryOp::Log => k.log(x),
        UnaryOp::Sqrt => k.sqrt(x),
        UnaryOp::Rsqrt => k.rsqrt(x),
        UnaryOp::Sigmoid => k.sigmoid(x),
        UnaryOp::Tanh => k.tanh(x),
        UnaryOp::Sin => k.sin_cos(x).0,
        UnaryOp::Cos => k.sin_cos(x).1,
    }
}

/// What an RMS norm multiplies with: 1 / √(squares / count + eps), of the sum of `count` squares.
pub fn rms_scale(k: &mut Builder, squares: Value, count: u64, eps: f32) -> Value {
    let count = k.f32(count as f32);
    let mean = k.div(squares, count);
    let eps = k.f32(eps);
    let mean = k.add(mean, eps);
    k.rsqrt(mean)
}

/// A function of two f32, by lane; comparisons and logic give and take 1 for true, 0 for false.
pub fn binary(k: &mut Builder, op: BinaryOp, x: Value, y: Value) -> Value {
    match op {
        BinaryOp::Add => k.add(x, y),
        BinaryOp::Sub => k.sub(x, y),
        BinaryOp::Mul => k.mul(x, y),
        BinaryOp::Div => k.div(x, y),
        BinaryOp::Max => k.max(x, y),
        BinaryOp::Min => k.min(x, y),
        BinaryOp::Lt => {
            let truth = k.cmp(Cmp::Lt, x, y);
            flag(k, truth, x)
        }
        BinaryOp::Le => {
            let truth = k.cmp(Cmp::Le, x, y);
            flag(k, truth, x)
        }
        BinaryOp::And => {
            let (x_true, y_true) = (is_true(k, x), is_true(k, y));
            let truth = k.and(x_true, y_true);
            flag(k, truth, x)
        }
        BinaryOp::Or => {
            let (x_true, y_true) = (is_true(k, x), is_true(k, y));
            let truth = k.or(x_true, y_true);
            flag(k, truth, x)
        }
    }
}

/// 1 or 0 of the type of `like`.
fn flag(k: &mut Builder, truth: Value, like: Value) -> Value {
    let (one, zero) = (k.float(like.ty, 1.0), k.zero(like.ty));
    k.select(truth, one, zero)
}

fn is_true(k: &mut Builder, x: Value) -> Value {
    let zero = k.zero(x.ty);
    k.cmp(Cmp::Ne, x, zero)
}
