//! `attention`: softmax(q·Kᵀ)·V over the KV cache by matrix operations, without a score matrix in
//! memory.
//!
//! A wave holds 16 rows of queries (a *column tile*, as they are columns of what it computes) and
//! walks blocks of positions: Sᵀ = K·Qᵀ, the online softmax of Milakov and Gimelshein, "Online
//! normalizer calculation for softmax" (2018), then Oᵀ += Vᵀ·Pᵀ. The cache's 16-byte chunks are
//! operand A of both products as they lie in memory, and the scores, once exponentiated and
//! rounded to f16, are operand B of the second without leaving their lanes (see `matrix`).
//!
//! In prefill the rows are tokens, and the waves of a workgroup share nothing but caches. In decode
//! the rows are the heads that read one KV head, and the positions are shared among waves. In both,
//! where rows and heads make fewer workgroups than the chip has compute units, positions are shared
//! among workgroups, the last of which to finish adds up what the others found.

mod decode;
mod matrix;
mod prefill;
mod shares;
#[cfg(test)]
mod tests;
mod walk;

use super::Instance;
use crate::kernels::instance::Draft;
use crate::kernels::{KernelError, KernelSource, Variant};
use crate::mlir::{Builder, Elem, Value};
use crate::target::{GpuTarget, MatrixOp, MatrixType};
use waveloom_ir::numerics::{Factors, Numerics, Rounding, Sums};
use waveloom_ir::{AttentionAttr, DType, Layout};
use waveloom_plan as plan;

/// Elements of the head, or positions, that make 16 bytes of the cache.
const CHUNK: u32 = 8;
/// Rows of queries that a matrix operation takes: columns of its result.
const COLUMNS: u32 = 16;
/// Most elements of a head: a wave's sums of them are in registers.
const MAX_HEAD: u32 = 256;

/// What the kernel computes, and for which chip.
#[derive(Clone, Copy, Debug)]
struct Shape<'a> {
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    scale: f32,
    window: Option<u32>,
    softcap: Option<f32>,
    /// Fewest work-items of a workgroup.
    work_items: u32,
    target: &'a GpuTarget,
    op: &'a MatrixOp,
}

/// The kernel of an `attention`.
pub(super) fn kernel(op: &Instance<'_>, attr: &AttentionAttr) -> Result<KernelSource, KernelError> {
    op.refuse_packed()?;
    let shape = Shape::new(op, attr)?;
    let [tokens, _] = op.operand(0).shape[..] else {
        return Err(op.unsupported("q is not [T, heads · head_dim]"));
    };
    let most_tokens = op.module.max_extent(tokens);
    let context = op.operand(1).shape[0];
    let most_positions = op.module.max_extent(context);
    let row_bytes = u64::from(shape.heads * shape.head_dim) * 4;
    let cache_bytes = u64::from(shape.head_dim) * 2;
    // Offsets into the queries and into the cache of one head are 31 bits.
    for (count, bytes) in [(most_tokens, row_bytes), (most_positions, cache_bytes)] {
        if count.checked_mul(bytes).is_none_or(|bytes| bytes > i32::MAX as u64 / 2) {
            return Err(op.unsupported("more than a GiB of queries, or of one head's cache"));
        }
    }
    let capacity = op.product(&[context])?;
    match op.variant {
        Variant::Prefill => {
            let most = [most_tokens, most_positions].map(|most| most as u32);
            Ok(prefill::kernel(&shape, op.product(&[tokens])?, capacity, most))
        }
        Variant::Decode => decode::kernel(&shape, most_positions as u32, capacity)
            .ok_or_else(|| op.unsupported("more KV heads than there are counters in scratch")),
    }
}

impl<'a> Shape<'a> {
    fn new(op: &Instance<'a>, attr: &AttentionAttr) -> Result<Shape<'a>, KernelError> {
        let AttentionAttr { heads, kv_heads, head_dim, scale, window, softcap } = attr.clone();
        let grouped = kv_heads > 0 && heads > 0 && heads % kv_heads == 0 && heads <= 1 << 16;
        if !(1..=MAX_HEAD).contains(&head_dim)
            || head_dim % CHUNK != 0
            || !grouped
            || window == Some(0)
        {
            return Err(op.unsupported(format!(
                "{heads} heads, {kv_heads} KV heads of {head_dim} elements; the KV heads must \
                 divide the heads (at most 65536), a head must have a multiple of {CHUNK} elements \
                 up to {MAX_HEAD}, a window at least one position"
            )));
        }
        let (keys, values) = (op.operand(1), op.operand(2));
        let wave = op.target.wave;
        let layouts = [keys.layout, values.layout];
        if layouts != [Layout::KeyBlocks(wave), Layout::ValueBlocks(wave)] {
            return Err(op.unsupported(format!(
                "wants keys and values in blocks of {wave} positions; run choose-layouts for this \
                 target"
            )));
        }
        if [keys.dtype, values.dtype] != [DType::F16; 2] {
            let what = format!("a KV cache of {} and {}, not f16", keys.dtype, values.dtype);
            return Err(op.unsupported(what));
        }
        let matrix = op.target.matrix_op(MatrixType::F16);
        let matrix = matrix.ok_or_else(|| op.unsupported("the chip has no matrix ops on f16"))?;
        Ok(Shape {
            heads,
            kv_heads,
            head_dim,
            scale: scale.0,
            window: window.filter(|&window| window <= i32::MAX as u32),
            softcap: softcap.map(|cap| cap.0),
            work_items: op.work_items,
            target: op.target,
            op: matrix,
        })
    }

    /// How a kernel rounds that rounds queries and probabilities so.
    fn numerics(&self, rounding: Rounding) -> Numerics {
        let product = Factors { activations: rounding, matrix: Rounding::None, sums: Sums::Matrix };
        Numerics { products: vec![product; 2] }
    }

    /// Query heads that read one KV head.
    fn group(&self) -> u32 {
        self.heads / self.kv_heads
    }

    /// Chunks of a head.
    fn chunks(&self) -> u32 {
        self.head_dim / CHUNK
    }

    fn summary(&self, variant: &str) -> String {
        let Shape { heads, kv_heads, head_dim, .. } = self;
        format!("attention {variant} {heads}/{kv_heads} heads of {head_dim}")
    }
}

/// The buffers, and how many positions the caches have room for.
struct Memory {
    queries: Value,
    keys: Value,
    values: Value,
    positions: Value,
    result: Value,
    capacity: Value,
}

impl Memory {
    fn new(draft: &mut Draft, capacity: plan::Expr) -> Memory {
        let [queries, keys, values, positions, result] = [0, 1, 2, 3, 4].map(|i| draft.buffer(i));
        let capacity = draft.number(capacity);
        Memory { queries, keys, values, positions, result, capacity }
    }

    /// The keys and the values of KV head `head` as buffers.
    fn head(&self, k: &mut Builder, shape: &Shape<'_>, head: Value) -> [Value; 2] {
        let wave = i64::from(shape.target.wave);
        let blocks = k.ceil_div_const(self.capacity, wave);
        let bytes = k.mul_const(blocks, wave * i64::from(shape.head_dim) * 2);
        let head = k.zext(head, Elem::I64);
        let bytes = k.mul(head, bytes);
        [self.keys, self.values].map(|cache| {
            let cache = k.offset(cache, bytes);
            k.resource(cache, shape.target)
        })
    }
}

/// Numbers in f16; those that it cannot hold become its largest, NaN stays.
fn to_f16(k: &mut Builder, numbers: Value) -> Value {
    let [low, high] = [-65504.0, 65504.0].map(|bound| k.float(numbers.ty, bound));
    let bounded = k.max(low, numbers);
    let bounded = k.min(high, bounded);
    k.truncf(bounded, Elem::F16)
}
