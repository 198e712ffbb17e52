//! The parts of a decoder besides attention, as different front ends write them.

use crate::support::{one_function, ops, raised, spelling};
use waveloom_ir::{
    BinaryOp, DType, Dim, Expr, F32, FunctionBuilder, GemmAttr, GemmOutput, InferError, Module, Op,
    Store, Type, UnaryOp, ValueId,
};

type Built = Result<ValueId, InferError>;
type Builder<'m> = FunctionBuilder<'m>;

fn c(extent: u64) -> Dim {
    Dim::Const(extent)
}

fn plain_gemm() -> Op {
    let outputs = vec![GemmOutput { expr: Expr::Acc(0), store: Store::Dense }];
    let tiles = waveloom_ir::Tiles::default();
    Op::Gemm { attr: GemmAttr { weights: 1, prologue: None, outputs, tiles } }
}

/// The variant becomes exactly `expected`, with the parameters as its operands.
fn becomes(
    expected: Op,
    write: impl FnOnce(&mut Builder<'_>, [Dim; 3]) -> Result<Vec<ValueId>, InferError>,
) {
    let (after, _) = raised(&one_function(write));
    assert_eq!(ops(&after), [expected]);
    let function = &after.functions[0];
    let is_reshape = |op: &Op| matches!(op, Op::Reshape { .. });
    let inst = function.insts.iter().find(|inst| !is_reshape(&inst.op)).expect("an op");
    let source = |mut value: ValueId| {
        // Through reshapes only.
        while let Some(inst) = function.insts.iter().find(|inst| inst.results.contains(&value)) {
            assert!(is_reshape(&inst.op));
            value = inst.operands[0];
        }
        value
    };
    let sources: Vec<ValueId> = inst.operands.iter().map(|&value| source(value)).collect();
    assert_eq!(sources, function.params);
}

const EPS: f32 = 1e-5;
const WIDTH: u64 = 6;

/// A norm of rows `[T, 6]` with a bf16 weight.
fn norm_becomes(write: impl FnOnce(&mut Builder<'_>, ValueId, ValueId) -> Built) {
    becomes(Op::Norm { eps: F32(EPS) }, |b, [t, ..]| {
        let x = b.param("x", Type::f32([t, c(WIDTH)]));
        let w = b.param("w", Type::new(DType::BF16, [c(WIDTH)]));
        Ok(vec![write(b, x, w)?])
    });
}

fn mean_square_plus_eps(b: &mut Builder<'_>, x: ValueId) -> Built {
    let axis = b.ty(x).rank() as u32 - 1;
    let squares = b.mul(x, x)?;
    let mean = b.push1(Op::ReduceMean { axis }, &[squares])?;
    let eps = b.scalar(EPS)?;
    b.add(mean, eps)
}

#[test]
fn norm_with_the_weight_last() {
    norm_becomes(|b, x, w| {
        let m = mean_square_plus_eps(b, x)?;
        let r = b.unary(UnaryOp::Rsqrt, m)?;
        let y = b.mul(x, r)?;
        let w = b.dequantize(w)?;
        b.mul(y, w)
    });
}

#[test]
fn norm_with_the_weight_first_and_a_division() {
    norm_becomes(|b, x, w| {
        let m = mean_square_plus_eps(b, x)?;
        let d = b.unary(UnaryOp::Sqrt, m)?;
        let y = b.div(x, d)?;
        let w = b.cast(w, DType::F32)?;
        b.mul(w, y)
    });
}

#[test]
fn norm_with_a_sum_divided_by_its_length() {
    norm_becomes(|b, x, w| {
        let squares = b.mul(x, x)?;
        let sum = b.push1(Op::ReduceSum { axis: 1 }, &[squares])?;
        let n = b.scalar(WIDTH as f32)?;
        let mean = b.div(sum, n)?;
        let eps = b.scalar(EPS)?;
        let m = b.add(eps, mean)?;
        let d = b.unary(UnaryOp::Sqrt, m)?;
        let one = b.scalar(1.0)?;
        let r = b.div(one, d)?;
        let w = b.dequantize(w)?;
        let y = b.mul(x, w)?;
        b.mul(y, r)
    });
}

#[test]
fn norm_with_a_sum_times_the_inverse_length_and_explicit_broadcasts() {
    norm_becomes(|b, x, w| {
        let shape = b.ty(x).shape.clone();
        let squares = b.mul(x, x)?;
        let sum = b.push1(Op::ReduceSum { axis: 1 }, &[squares])?;
        let sum = b.reshape(sum, [shape[0]])?;
        let n = b.scalar((WIDTH as f32).recip())?;
        let mean = b.mul(sum, n)?;
        let eps = b.scalar(EPS)?;
        let m = b.add(mean, eps)?;
        let r = b.unary(UnaryOp::Rsqrt, m)?;
        let r = b.reshape(r, [shape[0], c(1)])?;
        let r = b.broadcast(r, shape.clone())?;
        let w = b.dequantize(w)?;
        let w = b.reshape(w, [c(1), c(WIDTH)])?;
        let w = b.broadcast(w, shape)?;
        let scale = b.mul(w, r)?;
        b.mul(x, scale)
    });
}

#[test]
fn norm_with_the_product_divided() {
    norm_becomes(|b, x, w| {
        let m = mean_square_plus_eps(b, x)?;
        let d = b.unary(UnaryOp::Sqrt, m)?;
        let w = b.dequantize(w)?;
        let y = b.mul(w, x)?;
        b.div(y, d)
    });
}

#[test]
fn norm_of_heads_behind_a_transpose() {
    becomes(Op::Norm { eps: F32(EPS) }, |b, [t, ..]| {
        let x = b.param("x", Type::f32([t, c(3), c(4)]));
        let w = b.param("w", Type::f32([c(4)]));
        let heads = b.transpose(x, [1, 0, 2])?;
        let m = mean_square_plus_eps(b, heads)?;
        let r = b.unary(UnaryOp::Rsqrt, m)?;
        let y = b.mul(heads, r)?;
        let y = b.mul(y, w)?;
        Ok(vec![b.transpose(y, [1, 0, 2])?])
    });
}

/// Gemma's: the weight is an offset from one. The sum is a map of its own.
#[test]
fn norm_with_one_plus_the_weight() {
    let (after, _) = raised(&one_function(|b, [t, ..]| {
        let x = b.param("x", Type::f32([t, c(WIDTH)]));
        let w = b.param("w", Type::new(DType::BF16, [c(WIDTH)]));
        let m = mean_square_plus_eps(b, x)?;
        let r = b.unary(UnaryOp::Rsqrt, m)?;
        let y = b.mul(x, r)?;
        let w = b.dequantize(w)?;
        let one = b.scalar(1.0)?;
        let w = b.add(one, w)?;
        Ok(vec![b.mul(y, w)?])
    }));
    assert_eq!(spelling(&after), ["map", "norm"]);
}

#[test]
fn a_norm_with_the_wrong_length_is_none() {
    let before = one_function(|b, [t, ..]| {
        let x = b.param("x", Type::f32([t, c(WIDTH)]));
        let w = b.param("w", Type::f32([c(WIDTH)]));
        let squares = b.mul(x, x)?;
        let sum = b.push1(Op::ReduceSum { axis: 1 }, &[squares])?;
        let n = b.scalar(5.0)?;
        let m = b.div(sum, n)?;
        let r = b.unary(UnaryOp::Rsqrt, m)?;
        let y = b.mul(x, r)?;
        Ok(vec![b.mul(y, w)?])
    });
    let (after, _) =
        crate::support::run(waveloom_passes::raise::run, &before, crate::support::REASSOCIATED);
    assert!(!spelling(&after).contains(&"norm"));
}

const HEADS: u64 = 3;
const DIM: u64 = 8;
const HALF: u64 = DIM / 2;

/// Rotary embedding of x `[T, heads, D]` with angles `[T, D / 2]`.
fn rope_becomes(write: impl FnOnce(&mut Builder<'_>, Dim, ValueId, [ValueId; 2]) -> Built) {
    becomes(Op::Rope {}, |b, [t, ..]| {
        let x = b.param("x", Type::f32([t, c(HEADS * DIM)]));
        let cos = b.param("cos", Type::f32([t, c(HALF)]));
        let sin = b.param("sin", Type::f32([t, c(HALF)]));
        Ok(vec![write(b, t, x, [cos, sin])?])
    });
}

/// x · cos + rotate_half(x) · sin over the last axis.
fn rotate(b: &mut Builder<'_>, x: ValueId, cos: ValueId, sin: ValueId) -> Built {
    let last = b.ty(x).rank() as u32 - 1;
    let x1 = b.slice(x, last, 0, HALF)?;
    let x2 = b.slice(x, last, HALF, HALF)?;
    let x2 = b.unary(UnaryOp::Neg, x2)?;
    let rotated = b.concat(last, &[x2, x1])?;
    let a = b.mul(x, cos)?;
    let r = b.mul(rotated, sin)?;
    b.add(a, r)
}

#[test]
fn rope_with_angles_of_full_width() {
    rope_becomes(|b, t, x, angles| {
        let x = b.reshape(x, [t, c(HEADS), c(DIM)])?;
        let [cos, sin] = angles.map(|angle| {
            let full = b.concat(1, &[angle, angle])?;
            b.reshape(full, [t, c(1), c(DIM)])
        });
        rotate(b, x, cos?, sin?)
    });
}

/// As Hugging Face: heads before positions, a batch of one, broadcast by `unsqueeze`.
#[test]
fn rope_with_heads_first_and_a_batch() {
    rope_becomes(|b, t, x, angles| {
        let x = b.reshape(x, [c(1), t, c(HEADS), c(DIM)])?;
        let x = b.transpose(x, [0, 2, 1, 3])?;
        let [cos, sin] = angles.map(|angle| {
            let full = b.concat(1, &[angle, angle])?;
            b.reshape(full, [c(1), c(1), t, c(DIM)])
        });
        let y = rotate(b, x, cos?, sin?)?;
        let y = b.transpose(y, [0, 2, 1, 3])?;
        b.reshape(y, [t, c(HEADS * DIM)])
    });
}

#[test]
fn rope_by_halves() {
    rope_becomes(|b, t, x, angles| {
        let x = b.reshape(x, [t, c(HEADS), c(DIM)])?;
        let [cos, sin] = angles.map(|angle| b.reshape(angle, [t, c(1), c(HALF)]));
        let (cos, sin) = (cos?, sin?);
        let x1 = b.slice(x, 2, 0, HALF)?;
        let x2 = b.slice(x, 2, HALF, HALF)?;
        let (a, r) = (b.mul(x1, cos)?, b.mul(x2, sin)?);
        let low = b.sub(a, r)?;
        let (a, r) = (b.mul(x2, cos)?, b.mul(sin, x1)?);
        let high = b.add(r, a)?;
        b.concat(2, &[low, high])
    });
}

/// Halves taken from `[T, heads, 2, D / 2]`, angles broadcast explicitly, −1 as a factor.
#[test]
fn rope_by_halves_of_a_reshape() {
    rope_becomes(|b, t, x, angles| {
        let x = b.reshape(x, [t, c(HEADS), c(2), c(HALF)])?;
        let shape = [t, c(HEADS), c(HALF)];
        let [cos, sin] = angles.map(|angle| {
            let angle = b.reshape(angle, [t, c(1), c(HALF)])?;
            b.broadcast(angle, shape)
        });
        let (cos, sin) = (cos?, sin?);
        let [x1, x2] = [0, 1].map(|half| {
            let half = b.slice(x, 2, half, 1)?;
            b.reshape(half, shape)
        });
        let (x1, x2) = (x1?, x2?);
        let minus = b.scalar(-1.0)?;
        let negated = b.mul(x2, minus)?;
        let (a, r) = (b.mul(x1, cos)?, b.mul(negated, sin)?);
        let low = b.add(a, r)?;
        let (a, r) = (b.mul(x2, cos)?, b.mul(x1, sin)?);
        let high = b.add(a, r)?;
        b.concat(2, &[low, high])
    });
}

/// cos(concat(a, a)) · scale, as written where the angles are joined before the cosine.
#[test]
fn rope_with_angles_joined_first() {
    let (after, _) = raised(&one_function(|b, [t, ..]| {
        let x = b.param("x", Type::f32([t, c(HEADS), c(DIM)]));
        let positions = b.param("positions", Type::new(DType::I32, [t]));
        let inv_freq = b.param("inv_freq", Type::f32([c(HALF)]));
        let p = b.cast(positions, DType::F32)?;
        let p = b.reshape(p, [t, c(1)])?;
        let f = b.reshape(inv_freq, [c(1), c(HALF)])?;
        let angles = b.matmul(p, f)?;
        let full = b.concat(1, &[angles, angles])?;
        let [cos, sin] = [UnaryOp::Cos, UnaryOp::Sin].map(|op| {
            let y = b.unary(op, full)?;
            let scale = b.scalar(1.25)?;
            let y = b.mul(y, scale)?;
            b.reshape(y, [t, c(1), c(DIM)])
        });
        Ok(vec![rotate(b, x, cos?, sin?)?])
    }));
    assert_eq!(spelling(&after), ["map", "map", "rope"]);
}

#[test]
fn rope_with_different_halves_is_none() {
    let before = one_function(|b, [t, ..]| {
        let x = b.param("x", Type::f32([t, c(HEADS), c(DIM)]));
        let cos = b.param("cos", Type::f32([t, c(1), c(DIM)]));
        let sin = b.param("sin", Type::f32([t, c(1), c(DIM)]));
        Ok(vec![rotate(b, x, cos, sin)?])
    });
    let (after, _) =
        crate::support::run(waveloom_passes::raise::run, &before, crate::support::REASSOCIATED);
    assert!(!spelling(&after).contains(&"rope"));
}

fn gemm_becomes(write: impl FnOnce(&mut Builder<'_>, Dim, ValueId, ValueId) -> Built) {
    becomes(plain_gemm(), |b, [t, ..]| {
        let x = b.param("x", Type::f32([t, c(32)]));
        let w = b.param("w", Type::new(DType::Q8_0, [c(5), c(32)]));
        Ok(vec![write(b, t, x, w)?])
    });
}

#[test]
fn gemm_with_a_transposed_weight() {
    gemm_becomes(|b, _, x, w| {
        let w = b.dequantize(w)?;
        let w = b.transpose(w, [1, 0])?;
        b.matmul(x, w)
    });
}

#[test]
fn gemm_with_a_batch_of_one() {
    gemm_becomes(|b, t, x, w| {
        let x = b.reshape(x, [c(1), t, c(32)])?;
        let w = b.dequantize(w)?;
        let w = b.transpose(w, [1, 0])?;
        let w = b.reshape(w, [c(1), c(32), c(5)])?;
        b.matmul(x, w)
    });
}

#[test]
fn gemm_with_the_weight_on_the_left() {
    gemm_becomes(|b, _, x, w| {
        let w = b.dequantize(w)?;
        let x = b.transpose(x, [1, 0])?;
        let y = b.matmul(w, x)?;
        b.transpose(y, [1, 0])
    });
}

#[test]
fn a_product_of_activations_is_no_gemm() {
    let before = one_function(|b, [t, ..]| {
        let x = b.param("x", Type::f32([t, c(4)]));
        let y = b.param("y", Type::f32([c(5), c(4)]));
        let y = b.unary(UnaryOp::Exp, y)?;
        let y = b.transpose(y, [1, 0])?;
        Ok(vec![b.matmul(x, y)?])
    });
    let (after, _) =
        crate::support::run(waveloom_passes::raise::run, &before, crate::support::REASSOCIATED);
    assert!(spelling(&after).contains(&"matmul"));
}

#[test]
fn embed_of_either_order_and_of_activations() {
    let table = |b: &mut Builder<'_>, dtype, t| {
        let table = b.param("table", Type::new(dtype, [c(5), c(32)]));
        (table, b.param("tokens", Type::new(DType::I32, [t])))
    };
    // Whether the stored rows are much smaller than what they become, or not.
    for dtype in [DType::Q4_1, DType::Q8_0, DType::BF16, DType::F32] {
        becomes(Op::Embed {}, |b, [t, ..]| {
            let (table, tokens) = table(b, dtype, t);
            let rows = b.gather(table, tokens)?;
            Ok(vec![b.dequantize(rows)?])
        });
    }
    becomes(Op::Embed {}, |b, [t, ..]| {
        let (table, tokens) = table(b, DType::BF16, t);
        let table = b.cast(table, DType::F32)?;
        Ok(vec![b.gather(table, tokens)?])
    });
    becomes(Op::Embed {}, |b, [t, ..]| {
        let x = b.param("x", Type::f32([t, c(32)]));
        let last = b.param("last", Type::new(DType::I32, [c(1)]));
        Ok(vec![b.gather(x, last)?])
    });
}

fn maps(module: &Module) -> Vec<String> {
    let ops = ops(module).into_iter().map(|op| match op {
        Op::Map { expr } => expr.to_string(),
        other => other.mnemonic().to_string(),
    });
    ops.collect()
}

#[test]
fn elementwise_trees_become_one_map() {
    let (after, _) = raised(&one_function(|b, [t, ..]| {
        let gate = b.param("gate", Type::f32([t, c(4)]));
        let up = b.param("up", Type::f32([t, c(4)]));
        let bias = b.param("bias", Type::new(DType::F16, [c(4)]));
        let bias = b.dequantize(bias)?;
        let gate = b.add(gate, bias)?;
        let s = b.unary(UnaryOp::Sigmoid, gate)?;
        let y = b.mul(gate, s)?;
        Ok(vec![b.mul(y, up)?])
    }));
    assert_eq!(maps(&after), ["(mul (mul (add $0 $1) (sigmoid (add $0 $1))) $2)"]);
}

#[test]
fn what_others_read_stays_a_value() {
    let (after, _) = raised(&one_function(|b, [t, ..]| {
        let x = b.param("x", Type::f32([t, c(4)]));
        let y = b.param("y", Type::f32([t, c(4)]));
        let h = b.add(x, y)?;
        let e = b.unary(UnaryOp::Exp, h)?;
        let a = b.mul(e, x)?;
        let s = b.mul(e, y)?;
        Ok(vec![h, a, s])
    }));
    // h is a result; e has two readers and is not cheap.
    assert_eq!(maps(&after), ["(add $0 $1)", "(exp $0)", "(mul $0 $1)", "(mul $0 $1)"]);
}

#[test]
fn angles_are_one_map_each() {
    let (after, _) = raised(&one_function(|b, [t, ..]| {
        let positions = b.param("positions", Type::new(DType::I32, [t]));
        let inv_freq = b.param("inv_freq", Type::f32([c(HALF)]));
        let p = b.cast(positions, DType::F32)?;
        let p = b.reshape(p, [t, c(1)])?;
        let f = b.reshape(inv_freq, [c(1), c(HALF)])?;
        let angles = b.binary(BinaryOp::Mul, p, f)?;
        Ok(vec![b.unary(UnaryOp::Cos, angles)?, b.unary(UnaryOp::Sin, angles)?])
    }));
    assert_eq!(maps(&after), ["(cos (mul $0 $1))", "(sin (mul $0 $1))"]);
}
