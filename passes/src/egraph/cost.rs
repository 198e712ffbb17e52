//! What an op costs: the roofline of a nominal machine.

use std::ops::Range;
use waveloom_ir::{Dim, Family, Module, Op, Type};

/// A machine as far as choosing between equal programs needs it: an op takes
/// max(bytes / bandwidth, operations / rate), and starting it takes a while.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Roofline {
    /// Memory bandwidth.
    pub bytes_per_second: f64,
    /// Arithmetic rate.
    pub operations_per_second: f64,
    /// To start one op.
    pub launch_seconds: f64,
    /// Added to tensor ops for which there is no kernel (those that `map` cannot do).
    pub unraised_seconds: f64,
}

impl Roofline {
    /// A machine of no particular make. Only ratios matter here, and those between bandwidth and
    /// arithmetic are alike on CPUs and GPUs to within what the choices depend on.
    pub const NOMINAL: Roofline = Roofline {
        bytes_per_second: 50e9,
        operations_per_second: 1e12,
        launch_seconds: 2e-6,
        unraised_seconds: 0.0,
    };

    /// The same machine, having macro-ops only: more than anything that runs on it costs what it
    /// cannot run.
    pub const MACRO_OPS: Roofline = Roofline { unraised_seconds: 1.0, ..Roofline::NOMINAL };

    /// Seconds that `op` takes, with every symbol at its largest. An op that moves nothing costs
    /// just enough to be left out where it can be.
    pub fn seconds(&self, module: &Module, op: &Op, args: &[&Type], results: &[Type]) -> f64 {
        const NOTHING: f64 = 1e-10;
        let read = sum(args.iter().copied(), |ty| bytes(module, ty));
        let written = sum(results, |ty| bytes(module, ty));
        let elements_written = sum(results, |ty| elements(module, ty));
        let (moved, work) = match cost(op) {
            Cost::Free => return NOTHING,
            Cost::Stream => {
                let elements_read = sum(args.iter().copied(), |ty| elements(module, ty));
                (read + written, elements_written.max(elements_read))
            }
            Cost::Rows => (elements_written * element_bytes(args[0]) + written, elements_written),
            Cost::Append => (2.0 * bytes(module, args[1]), elements(module, args[1])),
            Cost::MatMul => (read + written, 2.0 * elements_written * last(module, args[0])),
            Cost::Gemm { weights } => {
                let rows = elements(module, args[0]) / last(module, args[0]);
                let weights = sum(args[weights].iter().copied(), |ty| elements(module, ty));
                (read + written, 2.0 * rows * weights)
            }
            Cost::Attention => {
                let cached = args[1].shape.first().map_or(1.0, |&dim| extent(module, dim));
                (read + written, 4.0 * elements_written * cached)
            }
        };
        let unraised = if has_kernel(op) { 0.0 } else { self.unraised_seconds };
        let busy = (moved / self.bytes_per_second).max(work / self.operations_per_second);
        self.launch_seconds + busy + unraised
    }
}

/// Whether an op is a macro-op or can be part of a `map`.
fn has_kernel(op: &Op) -> bool {
    match op {
        Op::Unary(_) | Op::Cast { .. } | Op::Dequantize {} | Op::Constant { .. } => true,
        Op::Binary(op) => !op.is_comparison() && !op.is_logical(),
        op => op.family() != Family::Tensor,
    }
}

/// How the cost of an op is made up.
enum Cost {
    /// Nothing happens when the program runs.
    Free,
    /// Reads its operands, writes its results, an operation for each element.
    Stream,
    /// Reads as many rows as it writes, whatever the size of the table.
    Rows,
    /// Writes new rows into a cache, in place.
    Append,
    /// Two operations per element of the result and of the reduced extent.
    MatMul,
    /// Two operations per row of x and element of the weights.
    Gemm {
        /// Which operands are weights.
        weights: Range<usize>,
    },
    /// Two products over the rows of a cache.
    Attention,
}

fn cost(op: &Op) -> Cost {
    match op {
        Op::Reshape { .. } | Op::Weight { .. } | Op::Constant { .. } => Cost::Free,
        Op::Embed {} | Op::Gather {} => Cost::Rows,
        Op::CacheAppend {} => Cost::Append,
        Op::MatMul {} => Cost::MatMul,
        Op::Gemm { attr } => Cost::Gemm { weights: attr.first_weight()..attr.first_extra() },
        Op::Attention { .. } => Cost::Attention,
        Op::Call { .. }
        | Op::Iota { .. }
        | Op::Unary(_)
        | Op::Binary(_)
        | Op::Select {}
        | Op::ReduceSum { .. }
        | Op::ReduceMean { .. }
        | Op::ReduceMax { .. }
        | Op::Transpose { .. }
        | Op::Slice { .. }
        | Op::Concat { .. }
        | Op::Broadcast { .. }
        | Op::Cast { .. }
        | Op::Dequantize {}
        | Op::TopK { .. }
        | Op::Norm { .. }
        | Op::Rope {}
        | Op::Map { .. }
        | Op::Sample {}
        | Op::DecodeLoop { .. } => Cost::Stream,
    }
}

fn sum<'t>(types: impl IntoIterator<Item = &'t Type>, of: impl Fn(&Type) -> f64) -> f64 {
    types.into_iter().map(of).sum()
}

fn extent(module: &Module, dim: Dim) -> f64 {
    module.max_extent(dim) as f64
}

fn elements(module: &Module, ty: &Type) -> f64 {
    ty.shape.iter().map(|&dim| extent(module, dim)).product()
}

fn last(module: &Module, ty: &Type) -> f64 {
    ty.shape.last().map_or(1.0, |&dim| extent(module, dim)).max(1.0)
}

fn bytes(module: &Module, ty: &Type) -> f64 {
    elements(module, ty) * element_bytes(ty)
}

fn element_bytes(ty: &Type) -> f64 {
    ty.dtype.block_bytes() as f64 / ty.dtype.block_len() as f64
}
