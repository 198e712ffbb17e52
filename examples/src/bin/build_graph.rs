//! Builds a small graph by hand, runs passes, prints it after each, interprets it before and after.
//!
//! `cargo run --release -p waveloom-examples --no-default-features --bin build_graph`

use std::borrow::Cow;
use std::error::Error;
use waveloom_ir::interp::{Interpreter, Tensor};
use waveloom_ir::{Dim, FuncId, FunctionBuilder, InferError, Module, Op, Type, UnaryOp, Weights};
use waveloom_passes::{PASSES, PassOptions, run_passes};

const HIDDEN: u64 = 16;
const INNER: u64 = 32;

/// Weights that need no file: small numbers that depend on the name and the position.
struct Synthetic;

impl Weights for Synthetic {
    fn bytes(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let seed = name.bytes().map(u64::from).sum::<u64>();
        let elements = if name == "norm" { HIDDEN } else { HIDDEN * INNER };
        Some((0..elements).flat_map(|i| ((i * i + seed) as f32).sin().to_le_bytes()).collect())
    }
}

/// `silu(gate(norm(x))) * up(norm(x))` from primitives: how the MLP of a decoder layer begins.
fn swiglu() -> Result<Module, InferError> {
    let mut module = Module::new("swiglu");
    let tokens = Dim::Symbol(module.add_symbol("T", 1, 8));
    let matrix = Type::f32([Dim::Const(INNER), Dim::Const(HIDDEN)]);
    let norm = module.add_weight("norm", Type::f32([Dim::Const(HIDDEN)]));
    let gate = module.add_weight("gate", matrix.clone());
    let up = module.add_weight("up", matrix);
    let mut f = FunctionBuilder::new(&module, "swiglu");
    let x = f.param("x", Type::f32([tokens, Dim::Const(HIDDEN)]));
    let squares = f.mul(x, x)?;
    let mean = f.push1(Op::ReduceMean { axis: 1 }, &[squares])?;
    let eps = f.scalar(1e-5)?;
    let shifted = f.add(mean, eps)?;
    let scale = f.unary(UnaryOp::Rsqrt, shifted)?;
    let scaled = f.mul(x, scale)?;
    let norm = f.weight(norm)?;
    let normed = f.mul(scaled, norm)?;
    let mut product = |weight| {
        let weight = f.weight(weight)?;
        let weight = f.dequantize(weight)?;
        let transposed = f.transpose(weight, [1, 0])?;
        f.matmul(normed, transposed)
    };
    let (gate, up) = (product(gate)?, product(up)?);
    let sigmoid = f.unary(UnaryOp::Sigmoid, gate)?;
    let silu = f.mul(gate, sigmoid)?;
    let y = f.mul(silu, up)?;
    let swiglu = f.finish(&[y]);
    module.add_function(swiglu);
    Ok(module)
}

fn interpret(module: &Module) -> Result<Vec<f64>, Box<dyn Error>> {
    let x: Vec<f64> = (0..3 * HIDDEN).map(|i| (i as f64 * 0.37).sin()).collect();
    let interpreter = Interpreter::<f64>::new(module, &Synthetic);
    let results = interpreter.run(FuncId(0), &[Tensor::reals([3, HIDDEN], x)], &[])?;
    Ok(results[0].to_reals())
}

fn main() -> Result<(), Box<dyn Error>> {
    let module = swiglu()?;
    println!("// as built\n{module}");
    let before = interpret(&module)?;
    // All but the loop around a decoder's step, which this graph does not have.
    let passes = PASSES.iter().filter(|pass| pass.name != "wrap-decode-loop");
    let module = run_passes(passes, module, &PassOptions::default(), &mut |event| {
        println!("// after {}: {}\n{}", event.pass.name, event.pass.summary, event.after);
        Ok(())
    })?;
    let after = interpret(&module)?;
    let difference = before.iter().zip(&after).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    println!("// largest difference of {} values: {difference:e}", before.len());
    if difference < 1e-12 { Ok(()) } else { Err("the passes changed the values".into()) }
}
