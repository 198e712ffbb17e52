//! The macro-ops, and appending to a cache.

use super::tensor::broadcast_strides;
use super::{Data, Real, Tensor, ints, reals, row};
use crate::expr::Expr;
use crate::op::{AttentionAttr, GemmAttr, Prologue, Store};
use crate::types::{DType, Type};
use std::rc::Rc;

type Values<R> = Result<Data<R>, String>;

/// `cache` with row `positions[i]` replaced by row i of `new`, rounded to the cache's dtype.
pub(super) fn append<R: Real>(
    mut cache: Rc<Tensor<R>>,
    dtype: DType,
    new: &[R],
    positions: &[i32],
) -> Result<Rc<Tensor<R>>, String> {
    let (rows, width) = cache.rows();
    let Data::Real(values) = &mut Rc::make_mut(&mut cache).data else {
        return Err("the cache does not hold real numbers".into());
    };
    for (i, &position) in positions.iter().enumerate() {
        let start = row(position, rows)? * width;
        for (to, x) in values[start..start + width].iter_mut().zip(&new[i * width..]) {
            *to = x.rounded_to(dtype);
        }
    }
    Ok(cache)
}

fn dot<R: Real>(a: &[R], b: &[R]) -> R {
    a.iter().zip(b).fold(R::default(), |sum, (&x, &y)| sum + x * y)
}

/// 1 / √(mean(x²) + eps).
fn rms_scale<R: Real>(x: &[R], eps: f32) -> R {
    let mean = dot(x, x) / R::from_f64(x.len() as f64);
    R::from_f32(1.0) / (mean + R::from_f32(eps)).sqrt()
}

fn rms_norm<R: Real>(x: &[R], weight: &[R], eps: f32) -> Vec<R> {
    let scale = rms_scale(x, eps);
    x.iter().zip(weight).map(|(&x, &w)| x * scale * w).collect()
}

pub(super) fn norm<R: Real>(x: &Tensor<R>, weight: &Tensor<R>, eps: f32) -> Values<R> {
    let weight = reals(weight)?;
    let rows = reals(x)?.chunks_exact(weight.len().max(1));
    Ok(Data::Real(rows.flat_map(|x| rms_norm(x, weight, eps)).collect()))
}

/// Rotates each group of `2 · cos.len()` numbers.
fn rotate_half<R: Real>(x: &[R], cos: &[R], sin: &[R]) -> Vec<R> {
    let half = cos.len();
    let mut out = x.to_vec();
    for (from, to) in x.chunks_exact(2 * half.max(1)).zip(out.chunks_exact_mut(2 * half.max(1))) {
        for i in 0..half {
            to[i] = from[i] * cos[i] - from[i + half] * sin[i];
            to[i + half] = from[i + half] * cos[i] + from[i] * sin[i];
        }
    }
    out
}

pub(super) fn rope<R: Real>(x: &Tensor<R>, cos: &Tensor<R>, sin: &Tensor<R>) -> Values<R> {
    let (rows, width) = x.rows();
    let half = cos.rows().1;
    let (x, cos, sin) = (reals(x)?, reals(cos)?, reals(sin)?);
    let rotated = (0..rows).flat_map(|t| {
        let angles = t * half..(t + 1) * half;
        rotate_half(&x[t * width..(t + 1) * width], &cos[angles.clone()], &sin[angles])
    });
    Ok(Data::Real(rotated.collect()))
}

/// What an expression sees of one row: accumulators, and the row of each operand.
struct Row<'a, R> {
    width: usize,
    accumulators: Vec<&'a [R]>,
    operands: Vec<&'a [R]>,
}

impl<R: Real> Row<'_, R> {
    fn eval(&self, expr: &Expr) -> Vec<R> {
        match expr {
            Expr::Acc(i) => self.accumulators[*i as usize].to_vec(),
            Expr::Operand(i) => self.operands[*i as usize].to_vec(),
            Expr::Const(value) => vec![R::constant(value.0); self.width],
            Expr::Unary(op, x) => self.eval(x).into_iter().map(|x| x.unary(*op)).collect(),
            Expr::Binary(op, x, y) => {
                let pairs = self.eval(x).into_iter().zip(self.eval(y));
                pairs.map(|(x, y)| x.binary(*op, y)).collect()
            }
            Expr::Rope { x, cos, sin, .. } => {
                let (cos, sin) = (self.operands[*cos as usize], self.operands[*sin as usize]);
                rotate_half(&self.eval(x), cos, sin)
            }
            Expr::HeadNorm { x, weight, eps, head_dim } => {
                let x = self.eval(x);
                let weight = self.operands[*weight as usize];
                let heads = x.chunks_exact((*head_dim).max(1) as usize);
                heads.flat_map(|x| rms_norm(x, weight, eps.0)).collect()
            }
        }
    }
}

pub(super) fn map<R: Real>(expr: &Expr, args: &[Rc<Tensor<R>>], shape: &[u64]) -> Data<R> {
    let repeated: Vec<Vec<R>> = args
        .iter()
        .map(|arg| {
            let reals = arg.to_reals();
            let strides = broadcast_strides(&arg.shape, shape);
            super::tensor::gather_strided(&reals, shape, &strides)
        })
        .collect();
    let row = Row {
        width: shape.iter().product::<u64>() as usize,
        accumulators: vec![],
        operands: repeated.iter().map(Vec::as_slice).collect(),
    };
    Data::Real(row.eval(expr))
}

pub(super) fn gemm<R: Real>(
    attr: &GemmAttr,
    args: &[Rc<Tensor<R>>],
    types: &[&Type],
    shapes: Vec<Vec<u64>>,
) -> Result<Vec<Rc<Tensor<R>>>, String> {
    let rows = args[0].shape[0] as usize;
    let x = gemm_input(attr, args)?;
    let weights = &args[attr.first_weight()..attr.first_extra()];
    let accumulators: Vec<Vec<R>> =
        weights.iter().map(|w| product(&x, w, rows)).collect::<Result<_, String>>()?;
    gemm_results(attr, rows, &accumulators, &args[attr.first_extra()..], types, shapes)
}

/// What a gemm with these operands multiplies by its weights: x after the prologue. Of `args` only x
/// and the norm's weight are looked at.
pub fn gemm_input<R: Real>(attr: &GemmAttr, args: &[Rc<Tensor<R>>]) -> Result<Vec<R>, String> {
    match attr.prologue {
        None => Ok(reals(&args[0])?.to_vec()),
        Some(Prologue::RmsNorm { eps }) => match norm(&args[0], &args[1], eps.0)? {
            Data::Real(values) => Ok(values),
            Data::Int(_) | Data::Bool(_) => Err(super::WRONG_KIND.into()),
        },
    }
}

/// The results of a gemm from its products with each weight, `[rows, N_i]`, and its extra operands.
pub fn gemm_results<R: Real>(
    attr: &GemmAttr,
    rows: usize,
    accumulators: &[Vec<R>],
    extra_args: &[Rc<Tensor<R>>],
    types: &[&Type],
    shapes: Vec<Vec<u64>>,
) -> Result<Vec<Rc<Tensor<R>>>, String> {
    let extras: Vec<Vec<R>> = extra_args.iter().map(|e| e.to_reals()).collect();
    let mut results = vec![];
    for ((output, ty), shape) in attr.outputs.iter().zip(types).zip(shapes) {
        let mut values = vec![];
        for m in 0..rows {
            let accumulators: Vec<&[R]> =
                accumulators.iter().map(|acc| row_of(acc, m, rows)).collect();
            let operands: Vec<&[R]> = extras
                .iter()
                .zip(extra_args)
                .map(|(values, arg)| row_operand(values, arg, m, rows))
                .collect();
            let width = output_width(&output.expr, &accumulators);
            values.extend(Row { width, accumulators, operands }.eval(&output.expr));
        }
        results.push(match output.store {
            Store::Dense => Rc::new(Tensor { shape, data: Data::Real(values) }),
            Store::Append { cache, positions } => {
                let cache = Rc::clone(&extra_args[cache as usize]);
                append(cache, ty.dtype, &values, ints(&extra_args[positions as usize])?)?
            }
        });
    }
    Ok(results)
}

/// x `[M, K]` · Wᵀ, W `[N, K]`.
fn product<R: Real>(x: &[R], weight: &Tensor<R>, rows: usize) -> Result<Vec<R>, String> {
    let (columns, k) = weight.rows();
    let weight = reals(weight)?;
    let mut out = Vec::with_capacity(rows * columns);
    for m in 0..rows {
        let x = &x[m * k..][..k];
        out.extend((0..columns).map(|n| dot(x, &weight[n * k..][..k])));
    }
    Ok(out)
}

/// Row m of `rows`.
fn row_of<R>(values: &[R], m: usize, rows: usize) -> &[R] {
    let width = values.len() / rows;
    &values[m * width..(m + 1) * width]
}

/// What row m sees of an extra operand: its row of a matrix, all of a vector.
fn row_operand<'a, R>(values: &'a [R], arg: &Tensor<R>, m: usize, rows: usize) -> &'a [R] {
    if arg.shape.len() == 2 { row_of(values, m, rows) } else { values }
}

/// Width of the accumulators that an expression uses; `infer` sees to it that there is one.
fn output_width<R>(expr: &Expr, accumulators: &[&[R]]) -> usize {
    let mut width = 0;
    expr.walk(&mut |e| {
        if let Expr::Acc(i) = e {
            width = accumulators[*i as usize].len();
        }
    });
    width
}

pub(super) fn attention<R: Real>(attr: &AttentionAttr, args: &[Rc<Tensor<R>>]) -> Values<R> {
    let [q, k, v, positions] = args else {
        return Err("takes four operands".into());
    };
    let capacity = k.rows().0;
    let (q, k, v) = (reals(q)?, reals(k)?, reals(v)?);
    let dim = attr.head_dim as usize;
    let (heads, kv_heads) = (attr.heads as usize, attr.kv_heads as usize);
    let mut out = Vec::with_capacity(q.len());
    for (t, &position) in ints(positions)?.iter().enumerate() {
        let last = row(position, capacity)?;
        let first = attr.window.map_or(0, |window| (last + 1).saturating_sub(window as usize));
        for head in 0..heads {
            let q = &q[(t * heads + head) * dim..][..dim];
            let kv_head = head / (heads / kv_heads);
            let cached = |cache: &'_ [R], j: usize| (j * kv_heads + kv_head) * dim..cache.len();
            let key = |j: usize| &k[cached(k, j)][..dim];
            let value = |j: usize| &v[cached(v, j)][..dim];
            let scores = (first..=last).map(|j| score(attr, dot(q, key(j))));
            out.extend(mix(scores.collect(), dim, |i| value(first + i)));
        }
    }
    Ok(Data::Real(out))
}

fn score<R: Real>(attr: &AttentionAttr, product: R) -> R {
    let scaled = product * R::constant(attr.scale.0);
    match attr.softcap {
        None => scaled,
        Some(cap) => {
            let cap = R::constant(cap.0);
            cap * (scaled / cap).unary(crate::expr::UnaryOp::Tanh)
        }
    }
}

/// softmax(scores) · values.
fn mix<'a, R: Real>(scores: Vec<R>, dim: usize, value: impl Fn(usize) -> &'a [R]) -> Vec<R> {
    let largest = scores.iter().copied().fold(R::from_f32(f32::NEG_INFINITY), R::max);
    let weights: Vec<R> = scores.into_iter().map(|s| (s - largest).exp()).collect();
    let total = weights.iter().fold(R::default(), |sum, &w| sum + w);
    let mut out = vec![R::default(); dim];
    for (i, &weight) in weights.iter().enumerate() {
        for (sum, &x) in out.iter_mut().zip(value(i)) {
            *sum += weight / total * x;
        }
    }
    out
}
