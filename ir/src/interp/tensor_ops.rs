//! The tensor ops.

use super::tensor::{broadcast_strides, gather_strided, strides};
use super::{Data, Real, Tensor, bools, ints, reals, row};
use crate::expr::{BinaryOp, UnaryOp};
use crate::sample::falling;
use crate::types::{DType, Type};
use std::rc::Rc;

type Values<R> = Result<Data<R>, String>;

pub(super) fn constant<R: Real>(value: f32, ty: &Type, shape: &[u64]) -> Data<R> {
    let count = shape.iter().product::<u64>() as usize;
    match ty.dtype {
        // `as` rounds towards zero.
        DType::I32 => Data::Int(vec![value as i32; count]),
        DType::I8 => Data::Int(vec![i32::from(value as i8); count]),
        DType::U8 => Data::Int(vec![i32::from(value as u8); count]),
        DType::Bool => Data::Bool(vec![value != 0.0; count]),
        real => Data::Real(vec![R::constant(value).rounded_to(real); count]),
    }
}

pub(super) fn unary<R: Real>(op: UnaryOp, x: &Tensor<R>) -> Data<R> {
    match &x.data {
        Data::Real(values) => Data::Real(values.iter().map(|x| x.unary(op)).collect()),
        Data::Int(values) => Data::Int(values.iter().map(|i| i.wrapping_neg()).collect()),
        Data::Bool(values) => Data::Bool(values.clone()),
    }
}

/// A tensor's elements repeated to `shape`.
fn repeated<R: Real>(x: &Tensor<R>, shape: &[u64]) -> Data<R> {
    if x.shape == shape {
        x.data.clone()
    } else {
        x.data.strided(shape, &broadcast_strides(&x.shape, shape))
    }
}

pub(super) fn binary<R: Real>(
    op: BinaryOp,
    a: &Tensor<R>,
    b: &Tensor<R>,
    shape: &[u64],
) -> Values<R> {
    match (repeated(a, shape), repeated(b, shape)) {
        (Data::Real(a), Data::Real(b)) => {
            let pairs = a.into_iter().zip(b);
            Ok(if op.is_comparison() {
                let is_true = |x: R| x != R::default();
                Data::Bool(pairs.map(|(a, b)| is_true(a.binary(op, b))).collect())
            } else {
                Data::Real(pairs.map(|(a, b)| a.binary(op, b)).collect())
            })
        }
        (Data::Int(a), Data::Int(b)) => binary_ints(op, &a, &b),
        (Data::Bool(a), Data::Bool(b)) => {
            let function = if op == BinaryOp::And { |a, b| a && b } else { |a, b| a || b };
            Ok(Data::Bool(a.into_iter().zip(b).map(|(a, b)| function(a, b)).collect()))
        }
        (Data::Real(_) | Data::Int(_) | Data::Bool(_), _) => Err("operands differ in dtype".into()),
    }
}

/// Integer arithmetic wraps; division truncates.
fn binary_ints<R>(op: BinaryOp, a: &[i32], b: &[i32]) -> Values<R> {
    let pairs = || a.iter().copied().zip(b.iter().copied());
    let compare =
        |test: fn(i32, i32) -> bool| Ok(Data::Bool(pairs().map(|(a, b)| test(a, b)).collect()));
    let function: fn(i32, i32) -> i32 = match op {
        BinaryOp::Add => i32::wrapping_add,
        BinaryOp::Sub => i32::wrapping_sub,
        BinaryOp::Mul => i32::wrapping_mul,
        BinaryOp::Max => i32::max,
        BinaryOp::Min => i32::min,
        BinaryOp::Div if b.contains(&0) => return Err("an integer is divided by zero".into()),
        BinaryOp::Div => i32::wrapping_div,
        BinaryOp::Lt => return compare(|a, b| a < b),
        BinaryOp::Le => return compare(|a, b| a <= b),
        BinaryOp::And | BinaryOp::Or => return Err("logic on integers".into()),
    };
    Ok(Data::Int(pairs().map(|(a, b)| function(a, b)).collect()))
}

pub(super) fn select<R: Real>(
    cond: &Tensor<R>,
    a: &Tensor<R>,
    b: &Tensor<R>,
    shape: &[u64],
) -> Values<R> {
    fn choose<T>(cond: &[bool], a: Vec<T>, b: Vec<T>) -> Vec<T> {
        cond.iter().zip(a.into_iter().zip(b)).map(|(&c, (a, b))| if c { a } else { b }).collect()
    }
    let cond = gather_strided(bools(cond)?, shape, &broadcast_strides(&cond.shape, shape));
    match (repeated(a, shape), repeated(b, shape)) {
        (Data::Real(a), Data::Real(b)) => Ok(Data::Real(choose(&cond, a, b))),
        (Data::Int(a), Data::Int(b)) => Ok(Data::Int(choose(&cond, a, b))),
        (Data::Bool(a), Data::Bool(b)) => Ok(Data::Bool(choose(&cond, a, b))),
        (Data::Real(_) | Data::Int(_) | Data::Bool(_), _) => Err("operands differ in dtype".into()),
    }
}

/// Folds along an axis, in index order.
fn reduce<R: Real>(
    x: &Tensor<R>,
    axis: u32,
    start: R,
    fold: impl Fn(R, R) -> R,
) -> Result<Vec<R>, String> {
    let values = reals(x)?;
    let axis = axis as usize;
    let extent = x.shape[axis] as usize;
    let outer = x.shape[..axis].iter().product::<u64>() as usize;
    let inner = x.shape[axis + 1..].iter().product::<u64>() as usize;
    let mut out = vec![start; outer * inner];
    for i in 0..outer {
        for j in 0..extent {
            let from = &values[(i * extent + j) * inner..][..inner];
            for (sum, &x) in out[i * inner..][..inner].iter_mut().zip(from) {
                *sum = fold(*sum, x);
            }
        }
    }
    Ok(out)
}

pub(super) fn reduce_sum<R: Real>(x: &Tensor<R>, axis: u32) -> Values<R> {
    Ok(Data::Real(reduce(x, axis, R::default(), |a, b| a + b)?))
}

pub(super) fn reduce_mean<R: Real>(x: &Tensor<R>, axis: u32) -> Values<R> {
    let count = R::from_f64(x.shape[axis as usize] as f64);
    let sums = reduce(x, axis, R::default(), |a, b| a + b)?;
    Ok(Data::Real(sums.into_iter().map(|sum| sum / count).collect()))
}

pub(super) fn reduce_max<R: Real>(x: &Tensor<R>, axis: u32) -> Values<R> {
    Ok(Data::Real(reduce(x, axis, R::from_f32(f32::NEG_INFINITY), R::max)?))
}

pub(super) fn matmul<R: Real>(a: &Tensor<R>, b: &Tensor<R>) -> Values<R> {
    let rank = a.shape.len();
    let extent = |shape: &[u64], i: usize| shape[i] as usize;
    let (m, k) = (extent(&a.shape, rank - 2), extent(&a.shape, rank - 1));
    let n = extent(&b.shape, rank - 1);
    let batch = a.shape[..rank - 2].iter().product::<u64>() as usize;
    let (a, b) = (reals(a)?, reals(b)?);
    let mut out = vec![R::default(); batch * m * n];
    for (row, sums) in out.chunks_exact_mut(n.max(1)).enumerate() {
        let b = &b[row / m * k * n..];
        for (j, &x) in a[row * k..][..k].iter().enumerate() {
            for (sum, &y) in sums.iter_mut().zip(&b[j * n..][..n]) {
                *sum += x * y;
            }
        }
    }
    Ok(Data::Real(out))
}

pub(super) fn transpose<R: Real>(x: &Tensor<R>, perm: &[u32], shape: &[u64]) -> Data<R> {
    let own = strides(&x.shape);
    let permuted: Vec<usize> = perm.iter().map(|&i| own[i as usize]).collect();
    x.data.strided(shape, &permuted)
}

pub(super) fn slice<R: Real>(x: &Tensor<R>, axis: u32, start: u64, shape: &[u64]) -> Values<R> {
    let axis = axis as usize;
    let extent = x.shape[axis];
    if start.checked_add(shape[axis]).is_none_or(|end| end > extent) {
        let len = shape[axis];
        return Err(format!("{len} indices from {start} of an extent of {extent}"));
    }
    let inner = x.shape[axis + 1..].iter().product::<u64>();
    let outer = x.shape[..axis].iter().product::<u64>();
    let mut out = x.data.empty();
    for i in 0..outer {
        let from = ((i * extent + start) * inner) as usize;
        out.extend_from(&x.data, from..from + (shape[axis] * inner) as usize);
    }
    Ok(out)
}

pub(super) fn concat<R: Real>(parts: &[Rc<Tensor<R>>], axis: u32) -> Data<R> {
    let axis = axis as usize;
    let outer = parts[0].shape[..axis].iter().product::<u64>() as usize;
    let mut out = parts[0].data.empty();
    for i in 0..outer {
        for part in parts {
            let run = part.shape[axis..].iter().product::<u64>() as usize;
            out.extend_from(&part.data, i * run..(i + 1) * run);
        }
    }
    out
}

pub(super) fn gather<R: Real>(table: &Tensor<R>, indices: &Tensor<R>) -> Values<R> {
    let (rows, width) = table.rows();
    let mut out = table.data.empty();
    for &index in ints(indices)? {
        let start = row(index, rows)? * width;
        out.extend_from(&table.data, start..start + width);
    }
    Ok(out)
}

/// Real to integer rounds to nearest even and saturates; to `bool`, all but zero is true.
pub(super) fn cast<R: Real>(x: &Tensor<R>, to: DType) -> Data<R> {
    let integer = |lowest: i32, highest: i32| -> Vec<i32> {
        match &x.data {
            Data::Int(values) => values.iter().map(|&i| i.clamp(lowest, highest)).collect(),
            Data::Bool(values) => values.iter().map(|&b| b.into()).collect(),
            Data::Real(values) => values
                .iter()
                .map(|x| (x.to_f64().round_ties_even() as i32).clamp(lowest, highest))
                .collect(),
        }
    };
    match to {
        DType::I32 => Data::Int(integer(i32::MIN, i32::MAX)),
        DType::I8 => Data::Int(integer(i8::MIN.into(), i8::MAX.into())),
        DType::U8 => Data::Int(integer(0, u8::MAX.into())),
        DType::Bool => Data::Bool(x.to_reals().into_iter().map(|x| x != R::default()).collect()),
        real => Data::Real(x.to_reals().into_iter().map(|x| x.rounded_to(real)).collect()),
    }
}

/// Values and indices.
pub(super) fn top_k<R: Real>(x: &Tensor<R>, k: u64) -> Result<(Vec<R>, Vec<i32>), String> {
    let values = reals(x)?;
    let width = x.shape.last().map_or(1, |&n| n as usize);
    let (mut best, mut indices) = (vec![], vec![]);
    for row in values.chunks_exact(width.max(1)) {
        let mut order: Vec<usize> = (0..width).collect();
        // The sort is stable, so that equals stay in index order.
        order.sort_by(|&a, &b| falling(row[a], row[b]));
        for &i in &order[..k as usize] {
            best.push(row[i]);
            indices.push(i as i32);
        }
    }
    Ok((best, indices))
}
