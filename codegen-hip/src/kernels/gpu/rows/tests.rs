//! Row kernels on every chip against scalar references.

use crate::harness::random_f32;
use crate::kernels::gpu::testing::{
    CHIPS, Runner, f32_bytes, i32_bytes, kernel, module, target, to_f32, unwritten,
};
use crate::kernels::{ArgRole, KernelSource, Variant, kernel_for};
use crate::pack::pack_weight;
use crate::target::Target;
use half::f16;
use waveloom_ir::{
    BinaryOp, DType, Dim, Expr, F32, FunctionBuilder, InstId, Layout, Op, SymbolId, Type, UnaryOp,
    storage,
};
use waveloom_plan as plan;

/// Errors relative to the result: a mean of up to some thousand squares, its root, a reciprocal
/// and two products, each rounded to 2⁻²⁴.
const NORM_ROUNDING: f64 = 2e-6;
/// Errors relative to the largest result: what `mlir::math` grants its functions, a few ulp.
const MATH_ROUNDING: f64 = 1e-6;

const T: Dim = Dim::Symbol(SymbolId(0));
const C: Dim = Dim::Symbol(SymbolId(2));

fn dims<const N: usize>(extents: [u64; N]) -> [Dim; N] {
    extents.map(Dim::Const)
}

fn i32_type(shape: impl Into<Vec<Dim>>) -> Type {
    Type::new(DType::I32, shape.into())
}

/// Runs `op` on every chip for `tokens` tokens, and as a decode step where that is one; gives the
/// `count` f32 of each result.
fn run(op: &Op, types: &[Type], operands: &[Vec<u8>], tokens: i64, count: usize) -> Vec<Vec<f32>> {
    let variants = [Variant::Prefill, Variant::Decode];
    let variants = &variants[..if tokens == 1 { 2 } else { 1 }];
    let all = CHIPS.iter().flat_map(|name| variants.iter().map(move |&variant| (name, variant)));
    all.map(|(name, variant)| {
        let target = target(name);
        let source = kernel(op.clone(), types, variant, &target);
        if variant == Variant::Decode {
            check_captured(&source);
        }
        let mut buffers = operands.to_vec();
        buffers.push(unwritten(4 * count));
        let outcome = Runner::new(source, &target).run(&buffers, [tokens, 99, 99]);
        to_f32(&outcome.buffers[operands.len()])
    })
    .collect()
}

/// A launch of a decode step depends on no symbol but the capacity.
fn check_captured(source: &KernelSource) {
    let fixed = |expr: &plan::Expr| expr.eval(&[1, 5, 9]) == expr.eval(&[7, 8, 9]);
    assert!(fixed(&source.items), "{}", source.summary);
    for arg in &source.args {
        assert!(!matches!(arg, ArgRole::Scalar(expr) if !fixed(expr)), "{}", source.summary);
    }
}

// ---- embed ----------------------------------------------------------------------------------

/// The kernel of `embed` on a weight.
fn embed_of_weight(table: &Type, target: &Target) -> KernelSource {
    let mut module = module();
    let weight = module.add_weight("table", table.clone());
    let mut step = FunctionBuilder::new(&module, "step");
    let tokens = step.param("tokens", i32_type([T]));
    let table = step.weight(weight).unwrap();
    let rows = step.push1(Op::Embed {}, &[table, tokens]).unwrap();
    let step = step.finish(&[rows]);
    module.add_function(step);
    let inst = InstId(module.functions[0].insts.len() as u32 - 1);
    kernel_for(&module, &module.functions[0], inst, Variant::Prefill, target).unwrap()
}

#[test]
fn embed_reads_packed_weights_exactly() {
    let (rows, tokens) = (37, [0, 36, 17, 5, 16, 8, 15, 37, -1]);
    for (dtype, columns) in [
        (DType::F32, 21),
        (DType::F16, 33),
        (DType::F16, 576),
        (DType::BF16, 7),
        (DType::Q8_0, 96),
        (DType::Q8_0, 576),
        (DType::Q4_0, 64),
        (DType::Q4_1, 96),
        (DType::Q4_1, 2112),
    ] {
        let ty = Type::new(dtype, dims([rows, columns]));
        let columns = columns as usize;
        let values = random_f32(3, rows as usize * columns);
        let bytes = storage::quantize(dtype, &values, columns).unwrap();
        let mut exact = vec![0.0; values.len()];
        storage::dequantize(dtype, &bytes, &mut exact).unwrap();
        for name in CHIPS {
            let target = target(name);
            let runner = Runner::new(embed_of_weight(&ty, &target), &target);
            let packed = pack_weight("table", &ty, &bytes, &target).unwrap();
            let buffers = [packed, i32_bytes(&tokens), unwritten(4 * tokens.len() * columns)];
            let outcome = runner.run(&buffers, [tokens.len() as i64, 99, 99]);
            let results = to_f32(&outcome.buffers[2]);
            for (row, token) in results.chunks_exact(columns).zip(tokens) {
                let token = token.clamp(0, rows as i32 - 1) as usize;
                assert_eq!(row, &exact[token * columns..][..columns], "{name} {dtype}");
            }
        }
    }
}

#[test]
fn embed_reads_rows_of_an_activation() {
    for columns in [19, 64] {
        let x = random_f32(1, 5 * columns);
        let types = [Type::f32([T, Dim::Const(columns as u64)]), i32_type(dims([1]))];
        for results in run(&Op::Embed {}, &types, &[f32_bytes(&x), i32_bytes(&[3])], 5, columns) {
            assert_eq!(results, &x[3 * columns..4 * columns]);
        }
        // In a decode step there is one row.
        for results in run(&Op::Embed {}, &types, &[f32_bytes(&x), i32_bytes(&[0])], 1, columns) {
            assert_eq!(results, &x[..columns]);
        }
    }
}

#[test]
fn indices_out_of_range_stay_within_the_table() {
    let x = random_f32(1, 5 * 8);
    let types = [Type::f32(dims([5, 8])), i32_type(dims([2]))];
    let operands = [f32_bytes(&x), i32_bytes(&[i32::MIN, i32::MAX])];
    for results in run(&Op::Embed {}, &types, &operands, 2, 16) {
        assert_eq!(results, [&x[..8], &x[32..]].concat());
    }
}

// ---- norm -----------------------------------------------------------------------------------

#[test]
fn norm_of_any_width() {
    let eps = F32(1e-5);
    for (columns, dtype, tokens, heads) in [
        (1, DType::F32, 5, 3),
        (20, DType::F32, 5, 3),
        (64, DType::F16, 5, 3),
        (576, DType::F32, 1, 1),
        (77, DType::BF16, 5, 1),
        (1001, DType::F16, 2, 1),
        (4096, DType::F32, 2, 1),
    ] {
        let x = random_f32(4, tokens * heads * columns);
        let bytes = storage::quantize(dtype, &random_f32(5, columns), columns).unwrap();
        let mut weight = vec![0.0; columns];
        storage::dequantize(dtype, &bytes, &mut weight).unwrap();
        let shape = [T, Dim::Const(heads as u64), Dim::Const(columns as u64)];
        let types = [Type::f32(shape), Type::new(dtype, dims([columns as u64]))];
        let operands = [f32_bytes(&x), bytes];
        for results in run(&Op::Norm { eps }, &types, &operands, tokens as i64, x.len()) {
            for (row, result) in x.chunks_exact(columns).zip(results.chunks_exact(columns)) {
                let squares: f64 = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
                let scale = 1.0 / (squares / columns as f64 + f64::from(eps.0)).sqrt();
                for ((&x, &weight), &got) in row.iter().zip(&weight).zip(result) {
                    let want = f64::from(x) * scale * f64::from(weight);
                    assert!((f64::from(got) - want).abs() <= NORM_ROUNDING * want.abs());
                }
            }
        }
    }
}

// ---- map ------------------------------------------------------------------------------------

fn operand(index: u32) -> Expr {
    Expr::Operand(index)
}

#[test]
fn rope_angles_of_large_positions() {
    // cos(position · inverse frequency): [T, 1] · [1, 20] and a weight of rank 1.
    let angle = Expr::binary(BinaryOp::Mul, operand(0), operand(1));
    let op = Op::Map { expr: Expr::unary(UnaryOp::Cos, angle) };
    let types = [i32_type([T, Dim::Const(1)]), Type::f32(dims([20]))];
    let frequencies: Vec<f32> = (0..20).map(|i| 1e5f32.powf(-(i as f32) / 20.0)).collect();
    for positions in [&[0, 1, 1000, 131_071, 1_000_000][..], &[777]] {
        let operands = [i32_bytes(positions), f32_bytes(&frequencies)];
        let tokens = positions.len();
        for results in run(&op, &types, &operands, tokens as i64, 20 * tokens) {
            for (index, &got) in results.iter().enumerate() {
                let angle = positions[index / 20] as f32 * frequencies[index % 20];
                let want = f64::from(angle).cos();
                assert!((f64::from(got) - want).abs() <= MATH_ROUNDING, "cos {angle} is not {got}");
            }
        }
    }
}

/// A function of an f32 and what it should be, by f64.
type Function = (UnaryOp, fn(f64) -> f64);

#[test]
fn every_function_of_one_number() {
    let functions: [Function; 8] = [
        (UnaryOp::Neg, |x| -x),
        (UnaryOp::Abs, f64::abs),
        (UnaryOp::Exp, f64::exp),
        (UnaryOp::Log, f64::ln),
        (UnaryOp::Sqrt, f64::sqrt),
        (UnaryOp::Rsqrt, |x| 1.0 / x.sqrt()),
        (UnaryOp::Sigmoid, |x| 1.0 / (1.0 + (-x).exp())),
        (UnaryOp::Tanh, f64::tanh),
    ];
    for (op, exact) in functions {
        let positive = matches!(op, UnaryOp::Log | UnaryOp::Sqrt | UnaryOp::Rsqrt);
        let x: Vec<f32> = random_f32(9, 101)
            .into_iter()
            .map(|x| if positive { x.abs() + 1e-3 } else { 30.0 * x })
            .collect();
        let op = Op::Map { expr: Expr::unary(op, operand(0)) };
        for results in run(&op, &[Type::f32(dims([101]))], &[f32_bytes(&x)], 3, 101) {
            for (&x, &got) in x.iter().zip(&results) {
                let want = exact(f64::from(x));
                let error = (f64::from(got) - want).abs();
                assert!(error <= MATH_ROUNDING * want.abs(), "{op:?} {x}: {got}, {want}");
            }
        }
    }
}

#[test]
fn map_broadcasts_every_way() {
    // (x + row) · column + scalar · plane over [T, 3, columns], of several blocks, with whole
    // vectors and without.
    let sum = Expr::binary(BinaryOp::Add, operand(0), operand(1));
    let product = Expr::binary(BinaryOp::Mul, sum, operand(2));
    let other = Expr::binary(BinaryOp::Mul, operand(3), operand(4));
    let op = Op::Map { expr: Expr::binary(BinaryOp::Add, product, other) };
    for (columns, tokens) in [(2050usize, 4usize), (2052, 1), (12, 3)] {
        let extent = Dim::Const(columns as u64);
        let types = [
            Type::f32([T, Dim::Const(3), extent]),
            Type::new(DType::F16, [extent]),
            Type::f32([T, Dim::Const(3), Dim::Const(1)]),
            Type::f32([]),
            i32_type([T, Dim::Const(1), extent]),
        ];
        let x = random_f32(1, tokens * 3 * columns);
        let row: Vec<f16> = random_f32(2, columns).into_iter().map(f16::from_f32).collect();
        let column = random_f32(3, tokens * 3);
        let plane: Vec<i32> = (0..(tokens * columns) as i32).map(|i| i % 91 - 45).collect();
        let operands = [
            f32_bytes(&x),
            row.iter().flat_map(|x| x.to_le_bytes()).collect(),
            f32_bytes(&column),
            f32_bytes(&[0.25]),
            i32_bytes(&plane),
        ];
        for results in run(&op, &types, &operands, tokens as i64, x.len()) {
            for (index, &got) in results.iter().enumerate() {
                let (outer, c) = (index / columns, index % columns);
                let sum = (x[index] + row[c].to_f32()) * column[outer];
                let want = sum + 0.25 * plane[outer / 3 * columns + c] as f32;
                assert_eq!(got, want, "element {index}");
            }
        }
    }
}

#[test]
fn map_without_a_last_dimension_and_with_a_varying_one() {
    let op = Op::Map { expr: Expr::unary(UnaryOp::Neg, operand(0)) };
    for results in run(&op, &[Type::f32([])], &[f32_bytes(&[2.5])], 1, 1) {
        assert_eq!(results, [-2.5]);
    }
    for tokens in [1, 37] {
        let x = random_f32(1, 3 * tokens);
        let types = [Type::f32([Dim::Const(3), T])];
        for results in run(&op, &types, &[f32_bytes(&x)], tokens as i64, x.len()) {
            assert_eq!(results, x.iter().map(|x| -x).collect::<Vec<_>>());
        }
    }
}

// ---- rope -----------------------------------------------------------------------------------

#[test]
fn rope_rotates_halves() {
    for (tokens, heads, dim) in [(1, 1, 2), (3, 9, 64), (4, 2, 20), (1, 5, 128)] {
        let half = dim / 2;
        let x = random_f32(1, tokens * heads * dim);
        let angles = random_f32(2, tokens * half);
        let cos: Vec<f32> = angles.iter().map(|x| (3.0 * x).cos()).collect();
        let sin: Vec<f32> = angles.iter().map(|x| (3.0 * x).sin()).collect();
        let table = Type::f32([T, Dim::Const(half as u64)]);
        let shape = [T, Dim::Const(heads as u64), Dim::Const(dim as u64)];
        let types = [Type::f32(shape), table.clone(), table];
        let operands = [f32_bytes(&x), f32_bytes(&cos), f32_bytes(&sin)];
        for results in run(&Op::Rope {}, &types, &operands, tokens as i64, x.len()) {
            for (index, &got) in results.iter().enumerate() {
                let (row, i) = (index / dim, index % dim % half);
                let angle = row / heads * half + i;
                let (a, b) = (x[row * dim + i], x[row * dim + i + half]);
                let want = match index % dim < half {
                    true => a * cos[angle] - b * sin[angle],
                    false => b * cos[angle] + a * sin[angle],
                };
                assert_eq!(got, want, "element {index}");
            }
        }
    }
}

// ---- cache_append ---------------------------------------------------------------------------

#[test]
fn cache_append_writes_its_rows_alone() {
    let (heads, dim, capacity) = (3usize, 24usize, 37usize);
    for (name, variant) in
        CHIPS.iter().flat_map(|name| [(name, Variant::Prefill), (name, Variant::Decode)])
    {
        let target = target(name);
        let Target::Gpu(amd) = &target else { unreachable!("a GPU") };
        let positions = match variant {
            Variant::Prefill => &[5, 6, 7, 15, 16, 36][..],
            Variant::Decode => &[33],
        };
        let new = random_f32(1, positions.len() * heads * dim);
        for layout in [
            Layout::RowMajor,
            Layout::HeadMajor,
            Layout::PositionLanes(16),
            Layout::KeyBlocks(amd.wave),
            Layout::ValueBlocks(amd.wave),
        ] {
            let at = |p: usize, head: usize, element: usize| {
                let cache = [capacity, heads, dim].map(|n| n as u64);
                layout.index(cache, [p, head, element].map(|n| n as u64), 2) as usize
            };
            let row = [Dim::Const(heads as u64), Dim::Const(dim as u64)];
            let cache = Type { layout, ..Type::new(DType::F16, [C, row[0], row[1]]) };
            let types = [cache, Type::f32([T, row[0], row[1]]), i32_type([T])];
            let source = kernel(Op::CacheAppend {}, &types, variant, &target);
            let runner = Runner::new(source, &target);
            let mut want = vec![f16::from_f32(9.0); heads * capacity.next_multiple_of(64) * dim];
            let bytes =
                |cache: &[f16]| cache.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>();
            // Positions beyond the capacity are dropped.
            let (mut all, mut rows) = (positions.to_vec(), new.clone());
            if variant == Variant::Prefill {
                all.extend([capacity as i32, -1]);
                rows.extend(vec![1.0; 2 * heads * dim]);
            }
            // The result is operand 0, updated in place.
            let buffers = [vec![], f32_bytes(&rows), i32_bytes(&all), bytes(&want)];
            let outcome = runner.run(&buffers, [all.len() as i64, 37, capacity as i64]);
            for (index, &x) in new.iter().enumerate() {
                let (row, element) = (index / dim, index % dim);
                let p = positions[row / heads] as usize;
                want[at(p, row % heads, element)] = f16::from_f32(x);
            }
            assert!(outcome.buffers[3] == bytes(&want), "{name} {layout:?} {variant:?}");
            if variant == Variant::Decode {
                check_captured(&runner.source);
            }
        }
    }
}

#[test]
fn what_has_no_kernel_is_refused() {
    let target = target("gfx942");
    let mut module = module();
    let table = module.add_weight("table", Type::new(DType::Q6_K, dims([4, 256])));
    let matrix = module.add_weight("matrix", Type::f32(dims([4, 256])));
    let mut function = FunctionBuilder::new(&module, "main");
    let tokens = function.param("tokens", i32_type([T]));
    let lengths = function.param("lengths", Type::f32([Dim::Symbol(SymbolId(1))]));
    let table = function.weight(table).unwrap();
    let matrix = function.weight(matrix).unwrap();
    let rows = function.push1(Op::Embed {}, &[table, tokens]).unwrap();
    let negate = || Op::Map { expr: Expr::unary(UnaryOp::Neg, operand(0)) };
    let negated = function.push1(negate(), &[matrix]).unwrap();
    let by_length = function.push1(negate(), &[lengths]).unwrap();
    let function = function.finish(&[rows, negated, by_length]);
    module.add_function(function);
    let refuse = |inst| {
        let function = &module.functions[0];
        kernel_for(&module, function, InstId(inst), Variant::Decode, &target)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(refuse(2), "`embed`: no kernel reads q6_k weights");
    assert_eq!(refuse(3), "`map`: operand 0 is a weight packed as a matrix");
    assert_eq!(refuse(4), "`map`: a decode step's launch depends on the cache length");
}
