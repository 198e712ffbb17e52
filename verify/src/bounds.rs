//! How far a kernel's results may be from the exact ones: one place for all bounds, each derived from
//! how the kernel says that it computes ([`Numerics`]).
//!
//! u = 2⁻²⁴ is the rounding of f32. Two kinds of error are told apart:
//!
//! - Roundings of different numbers are taken as independent and of mean zero, each of at most δᵢ.
//!   Such a sum is sub-Gaussian with σ² = Σδᵢ²/3 (each is uniform at worst), so it exceeds
//!   [`SPREAD`]·√(Σδᵢ²) with a probability of at most 2·e^(−25·3/2) ≈ 10⁻¹⁶ per element.
//! - What roundings share (the factor of a norm, a query that all scores have) is added up in full.
//!
//! An expression over sums carries the errors of its parts on: by the ends of the interval for
//! monotone functions, by the product rule for products, and adds what its own operations round.

use std::num::NonZero;
use waveloom_ir::numerics::{Factors, Sums};
use waveloom_ir::{
    AttentionAttr, BinaryOp, DType, Expr, GemmAttr, Numerics, Op, Prologue, Store, Tensor, UnaryOp,
    interp::Data,
};

/// Half a unit in the last place of f32, relative.
const U: f64 = 1.0 / (1 << 24) as f64;
/// Below it f32 is subnormal, and a GPU may take it for zero.
const TINY: f64 = f32::MIN_POSITIVE as f64;
/// By how much independent errors may exceed the root of the sum of their squares; see above.
pub(crate) const SPREAD: f64 = 5.0;
/// √3, by which the deviation of a uniform error is smaller than its largest value.
const UNIFORM: f64 = 1.732_050_8;

/// An operand as the kernel had it.
pub enum Operand<'a> {
    /// What a launch before it, or the host, has written.
    Value(&'a Tensor<f64>),
    /// A weight.
    Weight(&'a Matrix),
}

/// A weight's elements.
pub struct Matrix {
    /// Extents.
    pub shape: Vec<u64>,
    /// Its elements, exactly.
    pub values: Vec<f32>,
    /// Of stored forms in blocks: for each block, how large the terms can be that an element is made
    /// of. A kernel may add those up instead of the elements.
    pub terms: Option<Vec<f32>>,
}

impl Matrix {
    /// A weight with these stored bytes.
    pub fn new(dtype: DType, shape: Vec<u64>, values: Vec<f32>, bytes: &[u8]) -> Matrix {
        let f16 = |block: &[u8], at: usize| half::f16::from_le_bytes([block[at], block[at + 1]]);
        let of = |block: &[u8], at| f16(block, at).to_f32();
        let hypot = |quant: f32, block: &[u8], minimum: f32| (quant * of(block, 0)).hypot(minimum);
        let blocks = bytes.chunks_exact(dtype.block_bytes() as usize);
        // Unsigned quants, and what their excess is subtracted as, are added up apart.
        let terms = match dtype {
            DType::Q8_0 => Some(blocks.map(|b| hypot(255.0, b, 128.0 * of(b, 0))).collect()),
            DType::Q4_0 => Some(blocks.map(|b| hypot(15.0, b, 8.0 * of(b, 0))).collect()),
            DType::Q4_1 => Some(blocks.map(|b| hypot(15.0, b, of(b, 2))).collect()),
            _ => None,
        };
        Matrix { shape, values, terms }
    }

    fn columns(&self) -> usize {
        self.shape.last().map_or(1, |&n| n as usize)
    }

    /// Size of the terms of element `index`.
    fn term(&self, index: usize) -> f64 {
        match &self.terms {
            Some(terms) => terms[index / 32].into(),
            None => self.values[index].abs().into(),
        }
    }
}

impl Operand<'_> {
    fn shape(&self) -> &[u64] {
        match self {
            Operand::Value(value) => &value.shape,
            Operand::Weight(weight) => &weight.shape,
        }
    }

    fn reals(&self) -> Vec<f64> {
        match self {
            Operand::Value(value) => value.to_reals(),
            Operand::Weight(weight) => weight.values.iter().map(|&x| x.into()).collect(),
        }
    }

    fn ints(&self) -> Vec<i64> {
        match self {
            Operand::Value(Tensor { data: Data::Int(values), .. }) => {
                values.iter().map(|&x| x.into()).collect()
            }
            _ => vec![],
        }
    }
}

/// For each result of an op, for each element: how far from the exact value it may be. `results` are
/// the exact ones, `dtypes` what they are stored in.
pub fn bounds(
    op: &Op,
    numerics: &Numerics,
    operands: &[Operand<'_>],
    results: &[Tensor<f64>],
    dtypes: &[DType],
) -> Vec<Vec<f64>> {
    let first = results.first().map(Tensor::to_reals).unwrap_or_default();
    match op {
        Op::Gemm { attr } => gemm(attr, numerics, operands, dtypes),
        Op::Attention { attr } => vec![attention(attr, numerics, operands, &first)],
        Op::Norm { .. } => {
            let columns = operands[1].reals().len();
            vec![first.iter().map(|y| norm_error(columns) * y.abs() + TINY).collect()]
        }
        Op::Map { expr } => vec![map(expr, operands, &results[0].shape)],
        Op::Rope {} => vec![rope(operands)],
        Op::Embed {} => vec![embed(operands)],
        Op::CacheAppend {} => {
            let (cache, new) = (operands[0].reals(), operands[1].reals());
            let errors = vec![0.0; new.len()];
            let values = Approximate { values: new, errors };
            vec![appended(cache.len(), &operands[2].ints(), operands[0].shape(), values, dtypes[0])]
        }
        // No kernel computes another op on numbers that round.
        _ => results.iter().map(|result| vec![0.0; result.data.len()]).collect(),
    }
}

/// Relative error of the factor of an RMS norm over `n` elements, and of its products: the sum of n
/// squares, of one sign, is off by some u·√n of itself, its root by half of that; the mean, eps, the
/// root, the reciprocal and two products round once or twice each.
fn norm_error(n: usize) -> f64 {
    (SPREAD / UNIFORM / 2.0 * (n as f64).sqrt() + 8.0) * U
}

/// Error of a sum of `n` products that comes from adding, `size` being the root of the sum of the
/// squares of all terms. A running sum is between 0 and the result but for what the terms scatter,
/// for which 3·`size` is enough.
fn sum_error(sums: Sums, n: usize, size: f64, result: f64) -> f64 {
    let running = 3.0 * size + result.abs();
    match sums {
        // Each addition rounds a running sum by u, each product twice.
        Sums::Nearest => {
            SPREAD / UNIFORM * (n as f64).sqrt() * U * running + 2.0 * SPREAD * U * size
        }
        // Two roundings a product that may all point one way, and be twice as large when they cut.
        Sums::Matrix => 4.0 * n as f64 * U * running,
    }
}

/// Numbers, and how far from them a kernel's may be.
struct Approximate {
    values: Vec<f64>,
    errors: Vec<f64>,
}

impl Approximate {
    fn exact(values: Vec<f64>) -> Approximate {
        let errors = vec![0.0; values.len()];
        Approximate { values, errors }
    }

    fn pairs(&self) -> impl Iterator<Item = (f64, f64)> {
        self.values.iter().copied().zip(self.errors.iter().copied())
    }
}

impl FromIterator<(f64, f64)> for Approximate {
    fn from_iter<I: IntoIterator<Item = (f64, f64)>>(pairs: I) -> Approximate {
        let (values, errors) = pairs.into_iter().unzip();
        Approximate { values, errors }
    }
}

/// A row of activations as a product takes it.
struct Row {
    values: Vec<f64>,
    /// Squares of errors that come from rounding them, and of the values.
    squared_errors: Vec<f64>,
    squares: Vec<f64>,
}

/// Products of all rows with a matrix, with their errors: `[row][column]`.
fn products(rows: &[Row], matrix: &Matrix, factors: Factors, norm: f64) -> Vec<Approximate> {
    let k = matrix.columns();
    let n = matrix.values.len() / k.max(1);
    let column = |column: usize| -> Vec<(f64, f64)> {
        let start = column * k;
        let w: Vec<f64> = matrix.values[start..start + k].iter().map(|&w| w.into()).collect();
        let own: Vec<f64> = factors.matrix.errors(&w).iter().map(|e| e * e).collect();
        let terms: Vec<f64> = (start..start + k).map(|i| matrix.term(i).powi(2)).collect();
        let product = |row: &Row| {
            let (mut sum, mut rounded, mut size) = (0.0, 0.0, 0.0);
            for i in 0..k {
                sum += w[i] * row.values[i];
                rounded += w[i] * w[i] * row.squared_errors[i] + own[i] * row.squares[i];
                size += terms[i] * row.squares[i];
            }
            let size = size.sqrt();
            let error =
                SPREAD * rounded.sqrt() + sum_error(factors.sums, k, size, sum) + norm * sum.abs();
            (sum, error)
        };
        rows.iter().map(product).collect()
    };
    let columns = in_parallel(n, column);
    (0..rows.len()).map(|m| columns.iter().map(|column| column[m]).collect()).collect()
}

/// `make` of each index below `count`, on all processors.
fn in_parallel<T: Send>(count: usize, make: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let part = count.div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let make = &make;
        let parts = (0..count).step_by(part).map(|first| {
            let last = (first + part).min(count);
            scope.spawn(move || (first..last).map(make).collect::<Vec<T>>())
        });
        let parts: Vec<_> = parts.collect();
        parts.into_iter().flat_map(|part| part.join().expect("no bound panics")).collect()
    })
}

fn gemm(
    attr: &GemmAttr,
    numerics: &Numerics,
    operands: &[Operand<'_>],
    dtypes: &[DType],
) -> Vec<Vec<f64>> {
    let rows = operands[0].shape()[0] as usize;
    let x = operands[0].reals();
    let k = x.len() / rows.max(1);
    let norm = attr.prologue.map(|Prologue::RmsNorm { eps }| (eps.0, operands[1].reals()));
    let inputs: Vec<Vec<f64>> = x.chunks(k.max(1)).map(|x| normalized(x, norm.as_ref())).collect();
    let norm_factor = if norm.is_some() { norm_error(k) } else { 0.0 };
    let accumulators: Vec<Vec<Approximate>> = (attr.first_weight()..attr.first_extra())
        .enumerate()
        .map(|(index, operand)| {
            let Operand::Weight(matrix) = &operands[operand] else { return vec![] };
            let factors = numerics.product(index);
            let row = |values: &Vec<f64>| Row {
                squared_errors: factors.activations.errors(values).iter().map(|e| e * e).collect(),
                squares: values.iter().map(|x| x * x).collect(),
                values: values.clone(),
            };
            products(&inputs.iter().map(row).collect::<Vec<_>>(), matrix, factors, norm_factor)
        })
        .collect();
    let extras = &operands[attr.first_extra()..];
    let values: Vec<Vec<f64>> = extras.iter().map(Operand::reals).collect();
    let output = |(output, dtype): (&waveloom_ir::GemmOutput, &DType)| {
        let mut all = Approximate::exact(vec![]);
        for m in 0..rows {
            let row = Epilogue {
                accumulators: accumulators.iter().filter_map(|rows| rows.get(m)).collect(),
                operands: values.iter().zip(extras).map(|(v, e)| row_of(v, e, m, rows)).collect(),
            };
            let row = row.eval(&output.expr);
            all.values.extend(row.values);
            all.errors.extend(row.errors);
        }
        match output.store {
            Store::Dense => all.errors,
            Store::Append { cache, positions } => {
                let (cache, positions) = (&extras[cache as usize], &extras[positions as usize]);
                let elements = cache.shape().iter().product::<u64>() as usize;
                appended(elements, &positions.ints(), cache.shape(), all, *dtype)
            }
        }
    };
    attr.outputs.iter().zip(dtypes).map(output).collect()
}

/// A row of x as it is multiplied.
fn normalized(x: &[f64], norm: Option<&(f32, Vec<f64>)>) -> Vec<f64> {
    let Some((eps, weight)) = norm else { return x.to_vec() };
    let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
    let scale = 1.0 / (mean + f64::from(*eps)).sqrt();
    x.iter().zip(weight).map(|(x, w)| x * scale * w).collect()
}

/// What row `m` sees of an extra operand: its row of a matrix, all of a vector.
fn row_of<'a>(values: &'a [f64], operand: &Operand<'_>, m: usize, rows: usize) -> &'a [f64] {
    match operand.shape() {
        [_, _] => &values[m * (values.len() / rows)..][..values.len() / rows],
        _ => values,
    }
}

/// Bounds of a cache of `elements` elements after `new` was stored in it at `positions`: a number may
/// round to either neighbour, and what is not written must stay.
fn appended(
    elements: usize,
    positions: &[i64],
    cache: &[u64],
    new: Approximate,
    dtype: DType,
) -> Vec<f64> {
    let unit = match dtype {
        DType::F16 => 2f64.powi(-11),
        DType::BF16 => 2f64.powi(-8),
        _ => U,
    };
    let smallest = if dtype == DType::F16 { 2f64.powi(-24) } else { TINY };
    let width = elements / cache.first().map_or(1, |&n| n.max(1) as usize);
    let mut errors = vec![0.0; elements];
    for (position, row) in positions.iter().zip(new.pairs().collect::<Vec<_>>().chunks(width)) {
        let Ok(start) = usize::try_from(*position).map(|position| position * width) else {
            continue;
        };
        for (to, (value, error)) in errors.iter_mut().skip(start).zip(row) {
            *to = error + 2.0 * (unit * (value.abs() + error)).max(smallest);
        }
    }
    errors
}

/// What an expression of a `gemm` sees of a row.
struct Epilogue<'a> {
    accumulators: Vec<&'a Approximate>,
    operands: Vec<&'a [f64]>,
}

impl Epilogue<'_> {
    fn eval(&self, expr: &Expr) -> Approximate {
        let operand = |index: &u32| self.operands[*index as usize];
        match expr {
            Expr::Acc(i) => self.accumulators[*i as usize].pairs().collect(),
            Expr::Operand(i) => Approximate::exact(operand(i).to_vec()),
            Expr::Const(c) => {
                let width = self.accumulators.iter().map(|acc| acc.values.len()).max();
                Approximate::exact(vec![c.0.into(); width.unwrap_or(1)])
            }
            Expr::Unary(op, x) => self.eval(x).pairs().map(|x| unary(*op, x)).collect(),
            Expr::Binary(op, x, y) => {
                let (x, y) = (self.eval(x), self.eval(y));
                x.pairs().zip(y.pairs()).map(|(x, y)| binary(*op, x, y)).collect()
            }
            Expr::Rope { x, cos, sin, .. } => rotated(&self.eval(x), operand(cos), operand(sin)),
            Expr::HeadNorm { x, weight, eps, head_dim } => {
                head_norm(&self.eval(x), operand(weight), eps.0.into(), *head_dim as usize)
            }
        }
    }
}

/// Rotates groups of numbers; two products and a sum round.
fn rotated(x: &Approximate, cos: &[f64], sin: &[f64]) -> Approximate {
    let half = cos.len().max(1);
    let all: Vec<(f64, f64)> = x.pairs().collect();
    let turned = |index: usize| {
        let (group, i) = (index / (2 * half) * 2 * half, index % (2 * half));
        let (c, s) = (cos[i % half], sin[i % half]);
        let (value, error) = all[index];
        let (other, other_error) = all[group + (i + half) % (2 * half)];
        let sign = if i < half { -1.0 } else { 1.0 };
        let (a, b) = (value * c, other * s);
        let own = 2.0 * U * (a.abs() + b.abs()) + TINY;
        (a + sign * b, error * c.abs() + other_error * s.abs() + own)
    };
    (0..all.len()).map(turned).collect()
}

/// Each group of `dim` numbers through an RMS norm: an error of a number moves it, and the factor
/// that all of its group share.
fn head_norm(x: &Approximate, weight: &[f64], eps: f64, dim: usize) -> Approximate {
    let all: Vec<(f64, f64)> = x.pairs().collect();
    let group = |group: &[(f64, f64)]| -> Vec<(f64, f64)> {
        let n = group.len() as f64;
        let mean = group.iter().map(|(x, _)| x * x).sum::<f64>() / n + eps;
        let moved = group.iter().map(|(x, e)| (2.0 * x.abs() + e) * e).sum::<f64>() / n;
        let scale = 1.0 / mean.sqrt();
        // Of 1/√: largest where the mean is smallest.
        let low = (mean - moved).max(eps).max(f64::MIN_POSITIVE);
        let factor = (1.0 / low.sqrt() - scale) / scale + norm_error(group.len());
        let each = group.iter().zip(weight).map(|((x, e), w)| {
            let value = x * scale * w;
            (value, (e * scale * w).abs() * (1.0 + factor) + value.abs() * factor + TINY)
        });
        each.collect()
    };
    all.chunks(dim.max(1)).flat_map(group).collect()
}

/// A function of a number that may be off: what it may be off by. What functions themselves are off
/// by is what `mlir::math` states, in units in the last place.
fn unary(op: UnaryOp, (x, error): (f64, f64)) -> (f64, f64) {
    use waveloom_ir::interp::Real;
    let value = Real::unary(x, op);
    let end = |x: f64| (Real::unary(x, op) - value).abs();
    let (moved, units) = match op {
        UnaryOp::Neg | UnaryOp::Abs => return (value, error),
        UnaryOp::Sin | UnaryOp::Cos => (error.min(2.0), 1.0),
        UnaryOp::Sqrt | UnaryOp::Rsqrt | UnaryOp::Log => {
            (end((x - error).max(0.0)).max(end(x + error)), 2.0)
        }
        UnaryOp::Exp => (end(x + error), 1.5),
        UnaryOp::Sigmoid | UnaryOp::Tanh => (end(x - error).max(end(x + error)), 3.0),
    };
    let moved = if error == 0.0 { 0.0 } else { moved };
    (value, moved + units * 2.0 * U * (value.abs() + moved) + TINY)
}

fn binary(op: BinaryOp, (x, a): (f64, f64), (y, b): (f64, f64)) -> (f64, f64) {
    use waveloom_ir::interp::Real;
    let value = Real::binary(x, op, y);
    let rounded = |moved: f64| moved + U * (value.abs() + moved) + TINY;
    let error = match op {
        BinaryOp::Add | BinaryOp::Sub => rounded(a + b),
        BinaryOp::Mul => rounded(x.abs() * b + y.abs() * a + a * b),
        // A quotient may be a product with a reciprocal.
        BinaryOp::Div => {
            let least = (y.abs() - b).max(0.0);
            rounded((a + value.abs() * b) / least + 2.0 * U * value.abs())
        }
        BinaryOp::Max | BinaryOp::Min => a.max(b),
        // The other way where they are too close to tell.
        BinaryOp::Lt | BinaryOp::Le => f64::from((x - y).abs() <= a + b && a + b > 0.0),
        BinaryOp::And | BinaryOp::Or => a.max(b).min(1.0),
    };
    (value, error)
}

/// Elementwise over operands that repeat.
fn map(expr: &Expr, operands: &[Operand<'_>], shape: &[u64]) -> Vec<f64> {
    let count = shape.iter().product::<u64>() as usize;
    let repeated: Vec<Vec<f64>> = operands.iter().map(|operand| repeat(operand, shape)).collect();
    // An expression sees a row: here, all elements.
    let accumulator = Approximate::exact(vec![0.0; count]);
    let row = Epilogue {
        accumulators: vec![&accumulator],
        operands: repeated.iter().map(Vec::as_slice).collect(),
    };
    row.eval(expr).errors
}

/// An operand's elements, repeated to a shape.
fn repeat(operand: &Operand<'_>, shape: &[u64]) -> Vec<f64> {
    let (own, values) = (operand.shape(), operand.reals());
    let missing = shape.len() - own.len();
    let count = shape.iter().product::<u64>() as usize;
    let place = |index: usize| {
        let (mut rest, mut at, mut stride) = (index as u64, 0, 1);
        for (axis, &extent) in shape.iter().enumerate().rev() {
            let own = axis.checked_sub(missing).map_or(1, |axis| own[axis]);
            at += if own == 1 { 0 } else { rest % extent * stride };
            stride *= own;
            rest /= extent;
        }
        at as usize
    };
    (0..count).map(|index| values[place(index)]).collect()
}

fn rope(operands: &[Operand<'_>]) -> Vec<f64> {
    let rows = operands[0].shape()[0] as usize;
    let [x, cos, sin] = [0, 1, 2].map(|index| operands[index].reals());
    let row = |values: &[f64], m: usize| {
        let width = values.len() / rows;
        values[m * width..(m + 1) * width].to_vec()
    };
    (0..rows)
        .flat_map(|m| rotated(&Approximate::exact(row(&x, m)), &row(&cos, m), &row(&sin, m)).errors)
        .collect()
}

/// Rows of a table: exact, but that a block's scale times quant, and minimum, round.
fn embed(operands: &[Operand<'_>]) -> Vec<f64> {
    let columns = operands[0].shape().iter().skip(1).product::<u64>() as usize;
    let row = |index: i64| match &operands[0] {
        Operand::Weight(table) if table.terms.is_some() => {
            let start = index.max(0) as usize * columns;
            (start..start + columns).map(|i| 2.0 * U * table.term(i)).collect()
        }
        _ => vec![0.0; columns],
    };
    operands[1].ints().into_iter().flat_map(row).collect()
}

fn attention(
    attr: &AttentionAttr,
    numerics: &Numerics,
    operands: &[Operand<'_>],
    results: &[f64],
) -> Vec<f64> {
    let [q, k, v] = [0, 1, 2].map(|index| operands[index].reals());
    let positions = operands[3].ints();
    let (heads, dim) = (attr.heads as usize, attr.head_dim as usize);
    let of_row = |row: usize| {
        let (token, head) = (row / heads, row % heads);
        let last = positions[token].max(0) as usize;
        let first = attr.window.map_or(0, |window| (last + 1).saturating_sub(window as usize));
        let kv_head = head / (heads / attr.kv_heads as usize);
        let at = |j: usize| (j * attr.kv_heads as usize + kv_head) * dim;
        let head = AttentionRow {
            attr,
            numerics,
            query: &q[row * dim..][..dim],
            keys: (first..=last).map(|j| &k[at(j)..][..dim]).collect(),
            values: (first..=last).map(|j| &v[at(j)..][..dim]).collect(),
        };
        head.errors(&results[row * dim..][..dim])
    };
    in_parallel(positions.len() * heads, of_row).concat()
}

/// A query of a head, and what it attends to.
struct AttentionRow<'a> {
    attr: &'a AttentionAttr,
    numerics: &'a Numerics,
    query: &'a [f64],
    keys: Vec<&'a [f64]>,
    values: Vec<&'a [f64]>,
}

impl AttentionRow<'_> {
    /// Scores with their errors. Queries may be rounded after they were multiplied with the scale
    /// and log₂ e, for the exponential is one of base 2.
    fn scores(&self) -> Vec<(f64, f64)> {
        let factors = self.numerics.product(0);
        let scale = f64::from(self.attr.scale.0);
        let relative = factors.activations.relative();
        let absolute = factors.activations.absolute() / scale.abs().clamp(TINY, 1.0);
        let rounded = |q: f64| (relative * q.abs()).max(absolute);
        let score = |key: &&[f64]| {
            let products = || self.query.iter().zip(*key).map(|(q, k)| q * k);
            let size = products().map(|p| p * p).sum::<f64>().sqrt();
            let moved = self.query.iter().zip(*key).map(|(q, k)| (rounded(*q) * k).powi(2));
            let product: f64 = products().sum();
            let error = SPREAD * moved.sum::<f64>().sqrt()
                + sum_error(factors.sums, self.query.len(), size, product);
            let (score, error) = (scale * product, scale.abs() * error);
            match self.attr.softcap {
                None => (score, error),
                // Its slope is at most 1; division, tanh and product round.
                Some(cap) => {
                    let cap = f64::from(cap.0);
                    (cap * (score / cap).tanh(), error + 8.0 * U * score.abs().min(cap))
                }
            }
        };
        self.keys.iter().map(score).collect()
    }

    /// Errors of the result: what a score is off by moves its probability by as much, relatively, and
    /// the result towards its value; then come the roundings of probabilities and of the sum.
    fn errors(&self, results: &[f64]) -> Vec<f64> {
        let factors = self.numerics.product(1);
        let scores = self.scores();
        let largest = scores.iter().fold(f64::NEG_INFINITY, |a, (s, _)| a.max(*s));
        let weights: Vec<f64> = scores.iter().map(|(s, _)| (s - largest).exp()).collect();
        let mass: f64 = weights.iter().sum();
        // The scaled score, the subtraction and the argument of the exponential round, which is
        // within 1.5 units itself.
        let own = |score: f64| 4.0 * U * (score.abs() + largest.abs()) + 4.0 * U;
        let moved: Vec<f64> =
            scores.iter().map(|(score, error)| (error + own(*score)).exp_m1()).collect();
        let (relative, absolute) = (factors.activations.relative(), factors.activations.absolute());
        let error = |(element, result): (usize, &f64)| {
            let (mut shared, mut rounded, mut size) = (0.0, 0.0, 0.0);
            for ((weight, moved), value) in weights.iter().zip(&moved).zip(&self.values) {
                let (p, value) = (weight / mass, value[element]);
                shared += p * (value - result).abs() * moved;
                let error = (relative * weight).max(absolute) / mass;
                // Once in the sum with values, once in the sum of probabilities.
                rounded += (error * value).powi(2) + (error * result).powi(2);
                size += (p * value).powi(2);
            }
            shared
                + SPREAD * rounded.sqrt()
                + sum_error(factors.sums, weights.len(), size.sqrt(), *result)
                + 8.0 * U * result.abs()
                + TINY
        };
        results.iter().enumerate().map(error).collect()
    }
}

#[cfg(test)]
mod tests;
