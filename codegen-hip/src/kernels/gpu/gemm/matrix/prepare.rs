//! Activations as factors, for products by warpgroups ([`super::ring`]): a launch before them reads
//! x once, normalizes its rows where asked for, rounds and leaves them in scratch in the order in
//! which a block of K of some rows is one copy.
//!
//! ```text
//! [block of 64 or 128 elements][8 rows][chunk of 8 elements][8 rows][16 bytes]
//! ```
//!
//! A workgroup has eight rows. Rows that are not there are zeros.
//!
//! For plain weights elements follow each other. With quantized ones a lane of a product has, of
//! each of its two rows, four neighbouring elements of the chunk of its group g (`fragments`), as
//! they fall out of a word: 0 and 2 where the product has elements 2·g and 2·g + 1, 1 and 3 where it
//! has 8 + 2·g and 9 + 2·g. With E elements in a chunk of weights, product p of the E / 4 that four
//! chunks from element s on are for has elements s + E·g + 4·p to that + 3 for g from 0 to 3.

use super::{Gemm, split};
use crate::kernels::instance::Draft;
use crate::kernels::section::Rows;
use crate::kernels::{KernelSource, scalar};
use crate::mlir::{Builder, Elem, Value};
use crate::target::{GpuTarget, MatrixType};
use waveloom_plan as plan;

/// Work-items of a workgroup.
const WORKGROUP: u32 = 256;
/// Rows of a workgroup.
const ROWS: u32 = 8;
/// Elements of a chunk of factors, and its bytes.
const CHUNK: u32 = 8;
const CHUNK_BYTES: u32 = 16;
/// Elements that are loaded at a time.
const PIECE: u32 = 4;
/// Units of a row that the workgroup takes at a time.
const TOGETHER: u32 = WORKGROUP / ROWS;
/// Pieces that are loaded before the first is used.
const AHEAD: u32 = 8;

/// Which elements the product of warpgroups wants side by side.
#[derive(Clone, Copy)]
enum Order {
    /// Those that are.
    Natural,
    /// As described above, for weights of so many elements in a chunk.
    Quants(u32),
}

impl Order {
    fn of(gemm: &Gemm<'_>) -> Order {
        match gemm.spec.weights.first() {
            Some(weight) if weight.dtype.is_block() => {
                Order::Quants(weight.chunk_elements() as u32)
            }
            _ => Order::Natural,
        }
    }

    /// Pieces of a unit, what a work-item takes at a time: a chunk of factors, or the two of a
    /// product.
    fn pieces(self) -> u32 {
        match self {
            Order::Natural => CHUNK / PIECE,
            Order::Quants(_) => 2 * CHUNK / PIECE,
        }
    }

    /// First elements of the pieces of a unit.
    fn elements(self, k: &mut Builder, unit: Value) -> Vec<Value> {
        let (first, apart) = match self {
            Order::Natural => (k.mul_const(unit, CHUNK.into()), PIECE),
            Order::Quants(chunk) => {
                let (chunks, product) = split(k, unit, chunk / PIECE);
                let before = k.mul_const(chunks, 4 * i64::from(chunk));
                let product = k.mul_const(product, PIECE.into());
                (k.add(before, product), chunk)
            }
        };
        (0..self.pieces()).map(|piece| k.add_const(first, (piece * apart).into())).collect()
    }

    /// The chunks of factors of a unit, of its pieces' two words each.
    fn chunks(self, k: &mut Builder, pieces: &[Value]) -> Vec<Value> {
        let joined = |k: &mut Builder, words: [(usize, u32); 4]| {
            let mut chunk = k.zero(Elem::I32.vec(4));
            for (lane, (piece, word)) in words.into_iter().enumerate() {
                let word = k.extract(pieces[piece], word);
                chunk = k.insert(word, chunk, lane as u32);
            }
            chunk
        };
        match self {
            Order::Natural => vec![joined(k, [(0, 0), (0, 1), (1, 0), (1, 1)])],
            Order::Quants(_) => {
                [0, 1].map(|word| joined(k, [0, 1, 2, 3].map(|piece| (piece, word)))).into()
            }
        }
    }
}

/// The rows of a workgroup while the kernel runs.
struct Activations<'a> {
    gemm: &'a Gemm<'a>,
    order: Order,
    /// The work-item's row of x, or the last.
    x: Value,
    /// Its first unit.
    first: Value,
    norm: Option<Value>,
}

/// The kernel that prepares the activations of `gemm`.
pub(super) fn kernel(gemm: &Gemm<'_>) -> KernelSource {
    let (spec, target) = (gemm.spec, gemm.target);
    let factors = gemm.factors();
    let name = if factors == MatrixType::Bf16 { "bf16" } else { "f16" };
    let normed = if spec.norm_eps.is_some() { "_norm" } else { "" };
    let order = match Order::of(gemm) {
        Order::Natural => String::new(),
        Order::Quants(chunk) => format!("_q{chunk}"),
    };
    let stem = format!("factors_{name}_k{}{order}{normed}", spec.k);
    let mut draft = Draft::for_gpu(stem, WORKGROUP, target);
    let x = draft.buffer(0);
    let norm = spec.norm_eps.map(|_| draft.buffer(1));
    let rows = match &spec.rows {
        Rows::One => plan::Expr::from(1),
        Rows::Many(rows) => rows.clone(),
    };
    let m = draft.number(rows.clone());
    let scratch = draft.scratch();
    let k = &mut draft.builder;
    let m = k.trunc(m, Elem::I32);
    emit(k, gemm, [x, m, scratch], norm);
    let tile = i64::from(gemm.config.rows);
    let tiles = plan::Expr::CeilDiv(Box::new(rows), Box::new(plan::Expr::from(tile)));
    let groups = tiles * plan::Expr::from(tile / i64::from(ROWS));
    let norm = if spec.norm_eps.is_some() { " norm" } else { "" };
    let summary = format!("factors {name} [T,{}]{norm}", spec.k);
    draft.finish(summary, groups, plan::SCRATCH_COUNTERS + gemm.prepared_bytes())
}

fn emit(k: &mut Builder, gemm: &Gemm<'_>, [x, m, scratch]: [Value; 3], norm: Option<Value>) {
    k.saturate_f16();
    let (thread, group) = (k.thread(), k.workgroup());
    let (first, row) = split(k, thread, ROWS);
    let before = k.mul_const(group, ROWS.into());
    let token = k.add(before, row);
    let exists = k.below(token, m);
    let last = k.add_const(m, -1);
    let token = k.min(token, last);
    let offset = k.mul_const(token, gemm.spec.k as i64 * 4);
    let x = k.offset_u32(x, offset);
    let order = Order::of(gemm);
    let rows = Activations { gemm, order, x, first, norm };
    let scale = gemm.spec.norm_eps.map(|eps| rows.scale(k, row, eps, gemm.target));
    let padded = gemm.padded_rows(k, m);
    let depth = gemm.config.depth;
    let block_bytes = k.mul_const(padded, i64::from(depth) * 2);
    let to = k.offset_const(scratch, plan::SCRATCH_COUNTERS as i64);
    let before = k.mul_const(group, gemm.config.row_group().into());
    let to = k.offset_u32(to, before);
    let in_chunk = k.mul_const(row, CHUNK_BYTES.into());
    let to = k.offset_u32(to, in_chunk);
    let unit_elements = order.pieces() * PIECE;
    rows.for_units(k, &[], |k, unit, valid, pieces, _| {
        let pieces = rows.factors(k, scale, pieces);
        let chunks = order.chunks(k, &pieces);
        let (block, unit) = split(k, unit, depth / unit_elements);
        let before = k.mul(block, block_bytes);
        let chunk_bytes = i64::from(ROWS * CHUNK_BYTES);
        let unit = k.mul_const(unit, chunk_bytes * chunks.len() as i64);
        let offset = k.add(before, unit);
        let store = |k: &mut Builder| {
            let to = k.offset_u32(to, offset);
            for (words, index) in chunks.into_iter().zip(0..) {
                let zero = k.zero(words.ty);
                let words = k.select(exists, words, zero);
                let to = k.offset_const(to, chunk_bytes * index);
                k.store_aligned(words, to, CHUNK_BYTES);
            }
        };
        match valid {
            None => store(k),
            Some(valid) => k.if_then(valid, store),
        }
        vec![]
    });
}

impl Activations<'_> {
    /// Runs `body` with each of the work-item's units, whether there is such a unit, where that is not
    /// certain, and its pieces: first element and numbers.
    fn for_units(
        &self,
        k: &mut Builder,
        carried: &[Value],
        body: impl Fn(&mut Builder, Value, Option<Value>, &[(Value, Value)], &[Value]) -> Vec<Value>,
    ) -> Vec<Value> {
        let units = self.gemm.spec.k as u32 / (self.order.pieces() * PIECE);
        let ahead = AHEAD / self.order.pieces();
        let (end, last) = (k.i32(units as i32), k.i32(units as i32 - 1));
        let certain = units.is_multiple_of(TOGETHER * ahead);
        k.for_values(self.first, end, (TOGETHER * ahead).into(), carried, |k, first, values| {
            let mut loaded = vec![];
            for turn in 0..ahead {
                let unit = k.add_const(first, (turn * TOGETHER).into());
                let valid = (!certain && turn > 0).then(|| k.below(unit, end));
                let unit = k.min(unit, last);
                let elements = self.order.elements(k, unit);
                let piece = |k: &mut Builder, element: Value| {
                    let from = k.element_u32(self.x, Elem::F32, element);
                    (element, k.load_aligned(from, Elem::F32.vec(PIECE), 16))
                };
                let pieces: Vec<_> = elements.into_iter().map(|at| piece(k, at)).collect();
                loaded.push((unit, valid, pieces));
            }
            let mut values = values.to_vec();
            for (unit, valid, pieces) in loaded {
                values = body(k, unit, valid, &pieces, &values);
            }
            values
        })
    }

    /// 1 / √(mean of squares + eps) of the work-item's row.
    fn scale(&self, k: &mut Builder, row: Value, eps: f32, target: &GpuTarget) -> Value {
        let zero = k.zero(Elem::F32.vec(4));
        let sums = self.for_units(k, &[zero], |k, _, valid, pieces, sums| {
            let mut sum = sums[0];
            for &(_, x) in pieces {
                let x = valid.map_or(x, |valid| k.select(valid, x, zero));
                sum = k.fma(x, x, sum);
            }
            vec![sum]
        });
        let sum = k.reduce_add(sums[0]);
        // Of the lanes of a wave that have the row, then of all waves.
        let sum = k.reduce_groups(sum, ROWS, target, |k, a, b| k.add(a, b));
        let waves = WORKGROUP / target.wave;
        let shared = k.shared(waves * ROWS * 4);
        let (wave, lane) = (k.wave(target), k.lane(target));
        let most = k.i32(ROWS as i32);
        let writes = k.below(lane, most);
        let before = k.mul_const(wave, ROWS.into());
        k.if_then(writes, |k| {
            let place = k.add(before, lane);
            let to = k.element_u32(shared, Elem::F32, place);
            k.store(sum, to);
        });
        k.barrier_shared();
        let from = k.element_u32(shared, Elem::F32, row);
        let mut sum = k.f32(0.0);
        for wave in 0..waves {
            let from = k.offset_const(from, (wave * ROWS * 4).into());
            let part = k.load(from, Elem::F32);
            sum = k.add(sum, part);
        }
        scalar::rms_scale(k, sum, self.gemm.spec.k, eps)
    }

    /// Pieces as factors, two words each.
    fn factors(
        &self,
        k: &mut Builder,
        scale: Option<Value>,
        pieces: &[(Value, Value)],
    ) -> Vec<Value> {
        let piece = |&(element, x): &(Value, Value)| {
            let x = match (scale, self.norm) {
                (Some(scale), Some(norm)) => {
                    let scale = k.splat(scale, PIECE);
                    let from = k.element_u32(norm, Elem::F32, element);
                    let weight = k.load_aligned(from, Elem::F32.vec(PIECE), 16);
                    let scaled = k.mul(x, scale);
                    k.mul(scaled, weight)
                }
                _ => x,
            };
            let x = match self.order {
                Order::Natural => x,
                Order::Quants(_) => k.shuffle(x, x, &[0, 2, 1, 3]),
            };
            if self.gemm.factors() == MatrixType::Bf16 {
                return k.pack_bf16(x, self.gemm.target);
            }
            let x = k.truncf(x, Elem::F16);
            k.bitcast(x, Elem::I32.vec(2))
        };
        pieces.iter().map(piece).collect()
    }
}
