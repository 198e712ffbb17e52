//! Bounds against arithmetic as kernels do it: never exceeded, and not much larger than needed.

use super::*;
use half::{bf16, f16};
use waveloom_ir::numerics::Rounding;
use waveloom_ir::storage::{dequantize, quantize};
use waveloom_ir::{F32, GemmOutput};

/// Numbers in −1..1, as f32.
fn random(seed: u64, count: usize) -> Vec<f32> {
    let mut random = crate::drawn::Random::new(seed);
    (0..count).map(|_| (random.next() >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()
}

fn reals(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&x| x.into()).collect()
}

fn tensor(shape: &[u64], values: &[f32]) -> Tensor<f64> {
    Tensor::reals(shape, reals(values))
}

fn stored(dtype: DType, rows: u64, columns: u64, values: &[f32]) -> Matrix {
    let bytes = quantize(dtype, values, columns as usize).unwrap();
    let mut exact = vec![0.0; values.len()];
    dequantize(dtype, &bytes, &mut exact).unwrap();
    Matrix::new(dtype, vec![rows, columns], exact, &bytes)
}

/// A product of `m` rows in which factors are rounded by `round` and sums are of f32: the largest
/// error as a part of its bound.
fn largest_share(k: usize, dtype: DType, factors: Factors, round: &dyn Fn(f64) -> f64) -> f64 {
    let (m, n) = (3, 64);
    let x = random(k as u64, m * k);
    let weight = stored(dtype, n as u64, k as u64, &random(7 + k as u64, n * k));
    let attr = GemmAttr {
        weights: 1,
        prologue: None,
        outputs: vec![GemmOutput { expr: Expr::Acc(0), store: Store::Dense }],
        tiles: waveloom_ir::Tiles::default(),
    };
    let input = tensor(&[m as u64, k as u64], &x);
    let operands = [Operand::Value(&input), Operand::Weight(&weight)];
    let numerics = Numerics { products: vec![factors] };
    let bounds = gemm(&attr, &numerics, &operands, &[DType::F32]).remove(0);
    let mut largest = 0.0f64;
    for row in 0..m {
        for column in 0..n {
            let x = &x[row * k..][..k];
            let w = &weight.values[column * k..][..k];
            let exact: f64 = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
            let pairs = x.iter().zip(w).map(|(x, w)| (round((*x).into()), round((*w).into())));
            let sum = pairs.fold(0f32, |sum, (x, w)| sum + (x as f32) * (w as f32));
            let bound = bounds[row * n + column];
            assert!(bound.is_finite() && bound > 0.0);
            largest = largest.max((f64::from(sum) - exact).abs() / bound);
        }
    }
    largest
}

#[test]
fn products_stay_within_their_bounds_and_use_them() {
    let f16_factors = Rounding::F16 { flushes: false };
    for k in [32, 576, 4096] {
        let plain = largest_share(k, DType::F32, Factors::default(), &|x| x);
        assert!((0.02..0.7).contains(&plain), "f32, K = {k}: {plain}");
        let factors =
            Factors { activations: f16_factors, matrix: f16_factors, sums: Sums::Nearest };
        let halves = largest_share(k, DType::Q8_0, factors, &|x| f16::from_f64(x).to_f64());
        assert!((0.1..0.8).contains(&halves), "f16, K = {k}: {halves}");
        let factors =
            Factors { activations: Rounding::Bf16, matrix: Rounding::Bf16, sums: Sums::Nearest };
        let brains = largest_share(k, DType::F32, factors, &|x| bf16::from_f64(x).to_f64());
        assert!((0.1..0.8).contains(&brains), "bf16, K = {k}: {brains}");
        // Rounding that was not declared shows.
        let undeclared =
            largest_share(k, DType::F32, Factors::default(), &|x| f16::from_f64(x).to_f64());
        assert!(undeclared > 10.0, "K = {k}: {undeclared}");
    }
}

#[test]
fn terms_of_blocks_are_those_that_kernels_add() {
    let values = random(3, 64);
    for (dtype, excess) in [(DType::Q8_0, 128.0), (DType::Q4_0, 8.0), (DType::Q4_1, 0.0)] {
        let matrix = stored(dtype, 1, 64, &values);
        for (i, value) in matrix.values.iter().enumerate() {
            assert!(matrix.term(i) >= f64::from(value.abs()), "{dtype}");
        }
        // With a scale of about 1/127, 1/8 or 2/15.
        let smallest = matrix.term(0).min(matrix.term(32));
        assert!(smallest > 0.8 && matrix.term(0) < 4.0, "{dtype}, {excess}: {smallest}");
    }
}

/// Errors of parts move a result by no more than is said: at all corners of their intervals.
#[test]
fn expressions_carry_errors_on() {
    let numbers = [-3.5, -0.4, 0.3, 1.7, 6.0];
    let errors = [0.0, 1e-6, 1e-2];
    for &(x, a) in numbers.map(|x| errors.map(|e| (x, e))).as_flattened() {
        for op in UnaryOp::ALL.iter().filter(|op| x > 0.5 || !is_partial(**op)) {
            use waveloom_ir::interp::Real;
            let (value, bound) = unary(*op, (x, a));
            for moved in [x - a, x - a / 3.0, x + a] {
                let error = (Real::unary(moved, *op) - value).abs();
                assert!(error <= bound + 1e-14, "{op:?} of {x} ± {a}: {error} > {bound}");
            }
            assert!(bound <= 1e-6 * value.abs() + 500.0 * a + 1e-6, "{op:?} of {x} ± {a}");
        }
        for &(y, b) in numbers.map(|y| errors.map(|e| (y, e))).as_flattened() {
            for op in BinaryOp::ALL.iter().filter(|op| !op.is_logical()) {
                use waveloom_ir::interp::Real;
                let (value, bound) = binary(*op, (x, a), (y, b));
                for (x, y) in [(x - a, y - b), (x - a, y + b), (x + a, y - b), (x + a, y + b)] {
                    let error = (Real::binary(x, *op, y) - value).abs();
                    // What the test itself rounds.
                    let own = 1e-15 * (x.abs() + y.abs() + 1.0);
                    assert!(error <= bound + own, "{op:?} of {x}, {y}: {error} > {bound}");
                }
            }
        }
    }
}

fn is_partial(op: UnaryOp) -> bool {
    matches!(op, UnaryOp::Log | UnaryOp::Sqrt | UnaryOp::Rsqrt)
}

#[test]
fn rotations_and_head_norms_carry_errors_on() {
    let values = reals(&random(1, 16));
    let errors = vec![1e-4; 16];
    let x = Approximate { values: values.clone(), errors };
    let (cos, sin) = ([0.6, 0.0, 1.0, -0.8], [0.8, 1.0, 0.0, 0.6]);
    let weight = reals(&random(2, 8));
    let turn = |values: &[f64]| rotated(&Approximate::exact(values.to_vec()), &cos, &sin).values;
    let norm =
        |values: &[f64]| head_norm(&Approximate::exact(values.to_vec()), &weight, 1e-5, 8).values;
    let (turned, normed) = (rotated(&x, &cos, &sin), head_norm(&x, &weight, 1e-5, 8));
    for seed in 0..200 {
        let signs = random(100 + seed, 16);
        let moved: Vec<f64> =
            values.iter().zip(&signs).map(|(x, s)| x + 1e-4 * f64::from(s.signum())).collect();
        for (found, bounded) in [(turn(&moved), &turned), (norm(&moved), &normed)] {
            for (found, (value, bound)) in found.iter().zip(bounded.pairs()) {
                assert!((found - value).abs() <= bound, "{found} {value} {bound}");
            }
        }
    }
    assert!(turned.errors.iter().all(|e| *e < 2e-4));
}

/// Attention in f16 as a matrix operation computes it, and in f32.
#[test]
fn attention_stays_within_its_bounds() {
    let (heads, dim, length) = (2, 64, 200);
    let attr = AttentionAttr {
        heads,
        kv_heads: 1,
        head_dim: dim,
        scale: F32(0.25),
        window: None,
        softcap: None,
    };
    let dim = dim as usize;
    let q = tensor(&[1, 128], &random(1, 128));
    let half = |seed| -> Vec<f32> {
        random(seed, length * dim).iter().map(|&x| f16::from_f32(x).to_f32()).collect()
    };
    let (keys, values) = (half(2), half(3));
    let shape = [length as u64, 1, dim as u64];
    let (k, v) = (tensor(&shape, &keys), tensor(&shape, &values));
    let position = Tensor::ints([1], [length as i32 - 1]);
    let operands = [&q, &k, &v, &position].map(Operand::Value);
    let exact = attend(&q.to_reals(), &keys, &values, &|x| x);
    let to_f16 = |x: f64| f16::from_f64(x).to_f64();
    let found = attend(&q.to_reals(), &keys, &values, &to_f16);
    let share = |activations| {
        let product = Factors { activations, ..Factors::default() };
        let numerics = Numerics { products: vec![product; 2] };
        let bounds = attention(&attr, &numerics, &operands, &exact);
        let errors = found.iter().zip(&exact).map(|(a, b)| (a - b).abs());
        errors.zip(bounds).map(|(error, bound)| error / bound).fold(0.0, f64::max)
    };
    let declared = share(Rounding::F16 { flushes: false });
    assert!((0.02..0.8).contains(&declared), "{declared}");
    assert!(share(Rounding::None) > 1.0);
}

/// Two heads that share keys and values, queries and probabilities rounded.
fn attend(q: &[f64], keys: &[f32], values: &[f32], round: &dyn Fn(f64) -> f64) -> Vec<f64> {
    let mut out = vec![];
    for q in q.chunks(64) {
        let score =
            |k: &[f32]| 0.25 * q.iter().zip(k).map(|(q, k)| round(*q) * f64::from(*k)).sum::<f64>();
        let scores: Vec<f64> = keys.chunks(64).map(score).collect();
        let largest = scores.iter().copied().fold(f64::MIN, f64::max);
        let weights: Vec<f64> = scores.iter().map(|s| round((s - largest).exp())).collect();
        let mass: f64 = weights.iter().sum();
        out.extend((0..64).map(|i| {
            let value = |j: usize| f64::from(values[64 * j + i]);
            weights.iter().enumerate().map(|(j, w)| w * value(j)).sum::<f64>() / mass
        }));
    }
    out
}

/// What an append does not write must stay as it is; what it writes may round to a neighbour.
#[test]
fn untouched_rows_of_a_cache_are_exact() {
    let cache = tensor(&[4, 1, 2], &[1.0; 8]);
    let new = tensor(&[1, 2], &[0.3, 1000.0]);
    let positions = Tensor::ints([1], [2]);
    let operands = [&cache, &new, &positions].map(Operand::Value);
    let after = tensor(&[4, 1, 2], &[1.0; 8]);
    let bounds =
        bounds(&Op::CacheAppend {}, &Numerics::default(), &operands, &[after], &[DType::F16]);
    assert_eq!(bounds[0][..4], [0.0; 4]);
    assert!((1e-4..1e-3).contains(&bounds[0][4]) && (0.5..1.5).contains(&bounds[0][5]));
    assert_eq!(bounds[0][6..], [0.0; 2]);
}
