//! Row kernels against scalar references.

use crate::harness::{Aligned, random_f32, runnable_targets};
use crate::kernels::cpu::testing::{C, Runner, T, f32s, i32s, kernel, module, read_f32s};
use crate::kernels::{KernelSource, Variant, kernel_for};
use crate::pack::pack_weight;
use crate::target::CpuTarget;
use half::f16;
use waveloom_ir::{
    BinaryOp, DType, Dim, Expr, F32, FunctionBuilder, InstId, Layout, Op, Type, UnaryOp, storage,
};

/// Errors relative to the result: a mean of up to some hundred squares, its root, a reciprocal
/// and two products, each rounded to 2⁻²⁴.
const NORM_ROUNDING: f64 = 2e-6;
/// Errors relative to the largest result: what `mlir::math` grants its functions, a few ulp.
const MATH_ROUNDING: f64 = 1e-6;

const TARGETS: [&str; 3] = ["cpu", "cpu-v3", "cpu-v4"];

fn dims<const N: usize>(extents: [u64; N]) -> [Dim; N] {
    extents.map(Dim::Const)
}

fn i32_type(shape: impl Into<Vec<Dim>>) -> Type {
    Type::new(DType::I32, shape.into())
}

/// Runs `op` on every target and gives the first `count` f32 of its result.
fn run(
    op: &Op,
    types: &[Type],
    operands: &[&dyn Fn() -> Aligned],
    symbols: [i64; 3],
    count: usize,
) -> Vec<Vec<f32>> {
    runnable_targets(&TARGETS)
        .iter()
        .map(|target| {
            let runner = Runner::new(kernel(op.clone(), types, Variant::Prefill, target), target);
            let mut buffers: Vec<Aligned> = operands.iter().map(|make| make()).collect();
            buffers.push(f32s(&vec![7.0; count + 1]));
            runner.run(&mut buffers, symbols);
            let mut results = read_f32s(&buffers[operands.len()], count + 1);
            assert_eq!(results.pop(), Some(7.0), "wrote past the end");
            results
        })
        .collect()
}

// ---- embed ----------------------------------------------------------------------------------

/// The kernel of `embed` on a weight that comes through a call, as a layer's weights do.
fn embed_of_weight(table: &Type, target: &CpuTarget) -> KernelSource {
    let mut module = module();
    let weight = module.add_weight("table", table.clone());
    let mut callee = FunctionBuilder::new(&module, "layer");
    let table = callee.param("table", table.clone());
    let tokens = callee.param("tokens", i32_type([T]));
    let rows = callee.push1(Op::Embed {}, &[table, tokens]).unwrap();
    let callee = callee.finish(&[rows]);
    let callee = module.add_function(callee);
    let mut step = FunctionBuilder::new(&module, "step");
    let tokens = step.param("tokens", i32_type([T]));
    let table = step.weight(weight).unwrap();
    let rows = step.call(callee, &[table, tokens]).unwrap();
    let step = step.finish(&rows);
    module.add_function(step);
    let function = &module.functions[callee.index()];
    kernel_for(&module, function, InstId(0), Variant::Prefill, &target.clone().into()).unwrap()
}

#[test]
fn embed_reads_packed_weights_exactly() {
    let (rows, tokens) = (37, [0, 36, 17, 5, 16, 8, 15]);
    for (dtype, columns) in [
        (DType::F32, 21),
        (DType::F16, 33),
        (DType::BF16, 7),
        (DType::Q8_0, 96),
        (DType::Q4_0, 64),
        (DType::Q4_1, 96),
    ] {
        let ty = Type::new(dtype, dims([rows, columns]));
        let columns = columns as usize;
        let values = random_f32(3, rows as usize * columns);
        let bytes = storage::quantize(dtype, &values, columns).unwrap();
        let mut exact = vec![0.0; values.len()];
        storage::dequantize(dtype, &bytes, &mut exact).unwrap();
        for target in runnable_targets(&TARGETS) {
            let runner = Runner::new(embed_of_weight(&ty, &target), &target);
            let packed = pack_weight("table", &ty, &bytes, &target.clone().into()).unwrap();
            let result = f32s(&vec![7.0; tokens.len() * columns + 1]);
            let mut buffers = [Aligned::from_bytes(&packed), i32s(&tokens), result];
            runner.run(&mut buffers, [tokens.len() as i64, 9, 9]);
            let results = read_f32s(&buffers[2], tokens.len() * columns + 1);
            let (last, results) = results.split_last().unwrap();
            assert_eq!(*last, 7.0, "wrote past the end");
            for (row, token) in results.chunks_exact(columns).zip(tokens) {
                assert_eq!(row, &exact[token as usize * columns..][..columns], "{dtype}");
            }
        }
    }
}

#[test]
fn embed_reads_rows_of_an_activation() {
    let x = random_f32(1, 5 * 19);
    let types = [Type::f32([T, Dim::Const(19)]), i32_type(dims([1]))];
    for results in run(&Op::Embed {}, &types, &[&|| f32s(&x), &|| i32s(&[3])], [5, 9, 9], 19) {
        assert_eq!(results, &x[3 * 19..4 * 19]);
    }
}

#[test]
fn indices_out_of_range_stay_within_the_table() {
    let x = random_f32(1, 5 * 8);
    let types = [Type::f32(dims([5, 8])), i32_type(dims([2]))];
    let operands: [&dyn Fn() -> Aligned; 2] = [&|| f32s(&x), &|| i32s(&[i32::MIN, i32::MAX])];
    for results in run(&Op::Embed {}, &types, &operands, [2, 9, 9], 16) {
        assert_eq!(results, [&x[..8], &x[32..]].concat());
    }
}

// ---- norm -----------------------------------------------------------------------------------

#[test]
fn norm_of_any_width() {
    let eps = F32(1e-5);
    for (columns, dtype) in
        [(1, DType::F32), (20, DType::F32), (64, DType::F16), (576, DType::F32), (77, DType::BF16)]
    {
        let (tokens, heads) = (5usize, 3usize);
        let x = random_f32(4, tokens * heads * columns);
        let bytes = storage::quantize(dtype, &random_f32(5, columns), columns).unwrap();
        let mut weight = vec![0.0; columns];
        storage::dequantize(dtype, &bytes, &mut weight).unwrap();
        let shape = [T, Dim::Const(heads as u64), Dim::Const(columns as u64)];
        let types = [Type::f32(shape), Type::new(dtype, dims([columns as u64]))];
        let operands: [&dyn Fn() -> Aligned; 2] = [&|| f32s(&x), &|| Aligned::from_bytes(&bytes)];
        for results in run(&Op::Norm { eps }, &types, &operands, [5, 9, 9], x.len()) {
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
    let positions = [0, 1, 1000, 131_071, 1_000_000];
    let frequencies: Vec<f32> = (0..20).map(|i| 1e5f32.powf(-(i as f32) / 20.0)).collect();
    let operands: [&dyn Fn() -> Aligned; 2] = [&|| i32s(&positions), &|| f32s(&frequencies)];
    for results in run(&op, &types, &operands, [5, 9, 9], 100) {
        for (index, &got) in results.iter().enumerate() {
            let angle = positions[index / 20] as f32 * frequencies[index % 20];
            let want = f64::from(angle).cos();
            assert!((f64::from(got) - want).abs() <= MATH_ROUNDING, "cos {angle} is not {got}");
        }
    }
}

#[test]
fn map_broadcasts_every_way() {
    // (x + row) · column + scalar · plane over [T, 3, 2050]: more than two blocks of a row.
    let columns = 2050;
    let sum = Expr::binary(BinaryOp::Add, operand(0), operand(1));
    let product = Expr::binary(BinaryOp::Mul, sum, operand(2));
    let other = Expr::binary(BinaryOp::Mul, operand(3), operand(4));
    let op = Op::Map { expr: Expr::binary(BinaryOp::Add, product, other) };
    let types = [
        Type::f32([T, Dim::Const(3), Dim::Const(columns)]),
        Type::new(DType::F16, dims([columns])),
        Type::f32([T, Dim::Const(3), Dim::Const(1)]),
        Type::f32([]),
        i32_type([T, Dim::Const(1), Dim::Const(columns)]),
    ];
    let (tokens, columns) = (4, columns as usize);
    let x = random_f32(1, tokens * 3 * columns);
    let row: Vec<f16> = random_f32(2, columns).into_iter().map(f16::from_f32).collect();
    let column = random_f32(3, tokens * 3);
    let plane: Vec<i32> = (0..(tokens * columns) as i32).map(|i| i % 91 - 45).collect();
    let operands: [&dyn Fn() -> Aligned; 5] = [
        &|| f32s(&x),
        &|| Aligned::from_bytes(&row.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>()),
        &|| f32s(&column),
        &|| f32s(&[0.25]),
        &|| i32s(&plane),
    ];
    for results in run(&op, &types, &operands, [tokens as i64, 9, 9], x.len()) {
        for (index, &got) in results.iter().enumerate() {
            let (outer, c) = (index / columns, index % columns);
            let sum = (x[index] + row[c].to_f32()) * column[outer];
            let want = sum + 0.25 * plane[outer / 3 * columns + c] as f32;
            assert_eq!(got, want, "element {index}");
        }
    }
}

#[test]
fn map_without_a_last_dimension_and_with_a_varying_one() {
    let op = Op::Map { expr: Expr::unary(UnaryOp::Neg, operand(0)) };
    for results in run(&op, &[Type::f32([])], &[&|| f32s(&[2.5])], [1, 9, 9], 1) {
        assert_eq!(results, [-2.5]);
    }
    let x = random_f32(1, 3 * 37);
    let types = [Type::f32([Dim::Const(3), T])];
    for results in run(&op, &types, &[&|| f32s(&x)], [37, 99, 99], x.len()) {
        assert_eq!(results, x.iter().map(|x| -x).collect::<Vec<_>>());
    }
}

// ---- rope -----------------------------------------------------------------------------------

#[test]
fn rope_rotates_halves() {
    for (tokens, heads, dim) in [(1, 1, 2), (3, 5, 64), (4, 2, 20)] {
        let half = dim / 2;
        let x = random_f32(1, tokens * heads * dim);
        let angles = random_f32(2, tokens * half);
        let cos: Vec<f32> = angles.iter().map(|x| (3.0 * x).cos()).collect();
        let sin: Vec<f32> = angles.iter().map(|x| (3.0 * x).sin()).collect();
        let table = Type::f32([T, Dim::Const(half as u64)]);
        let shape = [T, Dim::Const(heads as u64), Dim::Const(dim as u64)];
        let types = [Type::f32(shape), table.clone(), table];
        let operands: [&dyn Fn() -> Aligned; 3] = [&|| f32s(&x), &|| f32s(&cos), &|| f32s(&sin)];
        for results in run(&Op::Rope {}, &types, &operands, [tokens as i64, 9, 9], x.len()) {
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
    let (heads, dim, capacity) = (3usize, 20usize, 37usize);
    let positions = [5, 6, 7, 15, 16, 36];
    let new = random_f32(1, positions.len() * heads * dim);
    for target in runnable_targets(&TARGETS) {
        let lanes = target.lanes as usize;
        for layout in [Layout::RowMajor, Layout::HeadMajor, Layout::PositionLanes(target.lanes)] {
            let at = |p: usize, head: usize, element: usize| {
                let cache = [capacity, heads, dim].map(|n| n as u64);
                layout.index(cache, [p, head, element].map(|n| n as u64), 2) as usize
            };
            let row = [Dim::Const(heads as u64), Dim::Const(dim as u64)];
            let cache = Type { layout, ..Type::new(DType::F16, [C, row[0], row[1]]) };
            let types = [cache, Type::f32([T, row[0], row[1]]), i32_type([T])];
            let source = kernel(Op::CacheAppend {}, &types, Variant::Prefill, &target);
            let runner = Runner::new(source, &target);
            let elements = heads * capacity.next_multiple_of(lanes) * dim;
            let mut want = vec![f16::from_f32(9.0); elements];
            let bytes =
                |cache: &[f16]| cache.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>();
            // A position beyond the capacity is dropped.
            let mut all = positions.to_vec();
            all.push(capacity as i32);
            let rows = [&new[..], &vec![1.0; heads * dim]].concat();
            let mut buffers = [Aligned::from_bytes(&bytes(&want)), f32s(&rows), i32s(&all)];
            runner.run(&mut buffers, [all.len() as i64, 37, capacity as i64]);
            for (index, &x) in new.iter().enumerate() {
                let (row, element) = (index / dim, index % dim);
                let p = positions[row / heads] as usize;
                want[at(p, row % heads, element)] = f16::from_f32(x);
            }
            assert!(
                buffers[0].bytes()[..elements * 2] == bytes(&want),
                "{} {layout:?}",
                target.name
            );
        }
    }
}

#[test]
fn what_has_no_kernel_is_refused() {
    let target = CpuTarget::from_name("cpu-v3").unwrap();
    let mut module = module();
    let table = Type::new(DType::Q6_K, dims([4, 256]));
    let weight = module.add_weight("table", table);
    let matrix = module.add_weight("matrix", Type::f32(dims([4, 256])));
    let mut function = FunctionBuilder::new(&module, "main");
    let tokens = function.param("tokens", i32_type([T]));
    let table = function.weight(weight).unwrap();
    let matrix = function.weight(matrix).unwrap();
    let rows = function.push1(Op::Embed {}, &[table, tokens]).unwrap();
    let expr = Expr::unary(UnaryOp::Neg, operand(0));
    let negated = function.push1(Op::Map { expr }, &[matrix]).unwrap();
    let function = function.finish(&[rows, negated]);
    module.add_function(function);
    let refuse = |inst| {
        let function = &module.functions[0];
        kernel_for(&module, function, InstId(inst), Variant::Decode, &target.clone().into())
            .unwrap_err()
            .to_string()
    };
    assert_eq!(refuse(2), "`embed`: no kernel reads q6_k weights");
    assert_eq!(refuse(3), "`map`: operand 0 is a weight packed as a matrix");
}
