//! Generated functions: whatever the rules find, the values stay.

use crate::support::{Random, difference, one_function};
use std::collections::BTreeSet;
use waveloom_ir::{
    BinaryOp, Dim, FunctionBuilder, InferError, Module, Op, Type, UnaryOp, ValueId, print, verify,
};
use waveloom_passes::{PassFn, PassOptions, raise, simplify};

/// The rules turn divisions into products with rounded constants, and differences of nearly equal
/// values enlarge that; a wrong rule gives another value altogether.
const ROUNDED: f64 = 1e-3;

const MODULES: u64 = 400;
const OPS: usize = 14;

fn c(extent: u64) -> Dim {
    Dim::Const(extent)
}

/// Appends one random op on values made so far; `None` where the choice does not fit.
fn step(
    b: &mut FunctionBuilder<'_>,
    random: &mut Random,
    values: &[ValueId],
    t: Dim,
) -> Option<ValueId> {
    let mut below = |n: usize| (random.bits() % n as u64) as usize;
    let x = values[below(values.len())];
    let y = values[below(values.len())];
    let shape = b.ty(x).shape.clone();
    let rank = shape.len();
    let made: Result<ValueId, InferError> = match below(12) {
        0 => {
            let ops = [UnaryOp::Neg, UnaryOp::Abs, UnaryOp::Tanh, UnaryOp::Cos, UnaryOp::Sigmoid];
            b.unary(ops[below(ops.len())], x)
        }
        1 | 2 => {
            let ops = [BinaryOp::Add, BinaryOp::Sub, BinaryOp::Mul, BinaryOp::Max, BinaryOp::Min];
            b.binary(ops[below(ops.len())], x, y)
        }
        3 | 4 => {
            let constants = [0.0, 1.0, -1.0, 2.0, 3.0, 0.5];
            let constant = b.scalar(constants[below(constants.len())]).ok()?;
            let ops = [BinaryOp::Add, BinaryOp::Sub, BinaryOp::Mul];
            let op = ops[below(ops.len())];
            if below(2) == 0 { b.binary(op, x, constant) } else { b.binary(op, constant, x) }
        }
        5 => {
            let divisor = b.scalar([1.0, 2.0, 3.0, 8.0][below(4)]).ok()?;
            b.div(x, divisor)
        }
        6 => {
            let shapes = [
                vec![t, c(6)],
                vec![t, c(2), c(3)],
                vec![c(2), t, c(3)],
                vec![c(6), t],
                vec![t, c(3), c(2)],
                vec![c(1), t, c(6)],
            ];
            b.reshape(x, shapes[below(shapes.len())].clone())
        }
        7 => {
            let mut perm: Vec<u32> = (0..rank as u32).collect();
            for i in (1..rank).rev() {
                perm.swap(i, below(i + 1));
            }
            b.transpose(x, perm)
        }
        8 => {
            let axis = below(rank.max(1));
            let Dim::Const(extent) = *shape.get(axis)? else { return None };
            let len = 1 + below(extent as usize) as u64;
            let start = below((extent - len + 1) as usize) as u64;
            b.slice(x, axis as u32, start, len)
        }
        9 => {
            let axis = below(rank.max(1)) as u32;
            let other = if below(2) == 0 { x } else { y };
            b.concat(axis, &[x, other])
        }
        10 => {
            let axis = below(rank.max(1)) as u32;
            let ops = [Op::ReduceSum { axis }, Op::ReduceMean { axis }, Op::ReduceMax { axis }];
            b.push1(ops[below(3)].clone(), &[x])
        }
        _ => b.matmul(x, y),
    };
    // Nothing large: the interpreter must stay quick.
    made.ok().filter(|&value| b.ty(value).rank() <= 4)
}

fn generated(seed: u64) -> Module {
    one_function(|b, [t, ..]| {
        let mut random = Random(seed);
        let x = b.param("x", Type::f32([t, c(6)]));
        let y = b.param("y", Type::f32([c(2), t, c(3)]));
        let w = b.param("w", Type::f32([c(3), c(6)]));
        let mut values = vec![x, y, w];
        while values.len() < OPS + 3 {
            values.extend(step(b, &mut random, &values, t));
        }
        // The last values, and one in the middle that others may read.
        Ok(vec![values[OPS + 2], values[OPS + 1], values[OPS / 2 + 3]])
    })
}

/// Runs a pass on every generated module; the rules that were applied at least once.
fn keeps_values(pass: PassFn) -> BTreeSet<String> {
    let mut applied = BTreeSet::new();
    for seed in 0..MODULES {
        let before = generated(seed);
        let (after, report) = pass(before.clone(), &PassOptions::default()).expect("the pass runs");
        let after = verify(after).expect("the module is valid").into_module();
        let difference = difference(&before, &after);
        assert!(
            difference <= ROUNDED,
            "seed {seed}: {difference:e}\n{}\n{}\n{report:?}",
            print(&before),
            print(&after)
        );
        applied.extend(report.rewrites.into_iter().map(|(name, _)| name));
    }
    applied
}

#[test]
fn simplify_keeps_values() {
    let applied = keeps_values(simplify::run);
    assert!(applied.len() >= 25, "few rules are tried: {applied:?}");
}

#[test]
fn raise_keeps_values() {
    let applied = keeps_values(raise::run);
    assert!(applied.len() >= 30, "few rules are tried: {applied:?}");
}
