//! Micro-kernels: some rows times one or two tiles of L columns, over all of K, accumulators in
//! registers.

use super::activations::{BLOCK_BYTES, Correction, Form, LOW_BITS, STEP};
use super::{Env, Gemm, RowGroup};
use crate::mlir::builder::Cmp;
use crate::mlir::{Builder, Elem, Ty, Value};
use crate::pack::{BLOCK, PackedLayout, Q8_BIAS};
use crate::target::Int8Dot;
use waveloom_ir::DType;

/// Cache lines, for prefetches.
const LINE: u64 = 64;

/// The micro-kernel of one weight, for a span of columns and a group of rows.
pub(super) struct Micro<'a> {
    pub(super) gemm: &'a Gemm<'a>,
    pub(super) env: &'a Env,
    pub(super) layout: &'a PackedLayout,
    pub(super) form: Form,
    pub(super) row_group: RowGroup,
    /// The span's first tile.
    pub(super) matrix: Value,
    /// Where the sums go: row r of the group at `r * row_bytes`, column by column.
    pub(super) stage: Value,
    pub(super) row_bytes: u64,
    /// What is streamed after the span's tiles.
    pub(super) next: Next,
}

/// Where a worker goes on reading after some tiles.
#[derive(Clone, Copy)]
pub(super) enum Next {
    /// In the same columns of another weight, whose part for the span begins there.
    Weight { matrix: Value, tile_bytes: u64 },
    /// In the columns that follow, of the weight whose part for the span begins there.
    Columns { matrix: Value, tile_bytes: u64 },
}

/// A tile while it is read.
#[derive(Clone, Copy)]
struct Stream {
    tile: Value,
    /// What is read from there on after it.
    next: Value,
}

/// Where a block of int8 activations lies: quants `[row][32]`, scales and corrections `[row]`.
struct BlockOfX {
    quants: Value,
    scales: Value,
    corrections: Option<Value>,
}

impl Micro<'_> {
    /// Multiplies tiles `tile..tile + count` of the span and stages the sums.
    pub(super) fn emit(&self, k: &mut Builder, tile: Value, count: u32) {
        let (matrix, tile_bytes, skipped) = match self.next {
            Next::Weight { matrix, tile_bytes } => (matrix, tile_bytes as i64, 0),
            Next::Columns { matrix, tile_bytes } => (matrix, tile_bytes as i64, count.into()),
        };
        let after = k.add_const(tile, skipped);
        let after = k.mul_const(after, tile_bytes);
        let bytes = k.mul_const(tile, self.layout.tile_bytes() as i64);
        let first = k.offset(self.matrix, bytes);
        let tiles: Vec<Stream> = (0..i64::from(count))
            .map(|i| {
                let next = k.add_const(after, i * tile_bytes);
                Stream {
                    tile: k.offset_const(first, i * self.layout.tile_bytes() as i64),
                    next: k.offset_anywhere(matrix, next),
                }
            })
            .collect();
        let sums = match self.form {
            Form::Int8(correction) => self.int8(k, &tiles, correction),
            Form::Bf16 => self.bf16_pairs(k, &tiles),
            Form::F32 => self.plain(k, &tiles),
            Form::Tiles(_) => unreachable!("`amx` multiplies tiles"),
        };
        let column = k.mul_const(tile, i64::from(self.gemm.target.vector_bytes()));
        let stage = k.offset(self.stage, column);
        for (index, sum) in sums.into_iter().enumerate() {
            let (tile, row) = (index as i64 / self.rows(), index as i64 % self.rows());
            let offset =
                row * self.row_bytes as i64 + tile * i64::from(self.gemm.target.vector_bytes());
            let to = k.offset_const(stage, offset);
            k.store(sum, to);
        }
    }

    fn rows(&self) -> i64 {
        i64::from(self.gemm.config.rows)
    }

    fn lanes(&self) -> u32 {
        self.gemm.target.lanes
    }

    fn vector(&self, elem: Elem) -> Ty {
        elem.vec(self.lanes())
    }

    /// Zeros for `tiles` × rows sums.
    fn zeros(&self, k: &mut Builder, tiles: usize) -> Vec<Value> {
        let zero = k.zero(self.vector(Elem::F32));
        vec![zero; tiles * self.rows() as usize]
    }

    /// The row group's part of an activation form of `bytes` per row and step or block.
    fn activations(&self, k: &mut Builder, offset: i64, steps: u64, bytes: u64) -> Value {
        let group = k.mul_const(self.row_group.index, (steps * bytes) as i64 * self.rows());
        let start = k.offset_const(self.env.scratch, offset);
        k.offset(start, group)
    }

    /// Prefetches what will be read `prefetch_bytes` after the byte at `offset` of a tile: `bytes`
    /// of it, in what comes next where that is beyond the tile.
    fn prefetch(&self, k: &mut Builder, stream: &Stream, offset: Value, bytes: u64) {
        if self.gemm.config.prefetch_bytes == 0 {
            return;
        }
        let ahead = k.add_const(offset, self.gemm.config.prefetch_bytes.into());
        let end = k.i64(self.layout.tile_bytes() as i64);
        let beyond = k.cmp(Cmp::Ge, ahead, end);
        let rest = k.sub(ahead, end);
        let base = k.select(beyond, stream.next, stream.tile);
        let from = k.select(beyond, rest, ahead);
        for line in 0..bytes.div_ceil(LINE) {
            let at = k.add_const(from, (line * LINE) as i64);
            let at = k.offset_anywhere(base, at);
            k.prefetch(at);
        }
    }

    /// f32 activations: one fused multiply-add per element of K.
    fn plain(&self, k: &mut Builder, tiles: &[Stream]) -> Vec<Value> {
        let steps = self.layout.padded_cols() / STEP;
        let offset = self.gemm.activations.f32.unwrap_or(0);
        let x = self.activations(k, offset, steps, STEP * 4);
        let step_bytes = STEP * self.layout.lanes * self.layout.dtype.block_bytes();
        let rows = self.rows();
        let (zero, count) = (k.i64(0), k.i64(steps as i64));
        let sums = self.zeros(k, tiles.len());
        k.for_values(zero, count, 1, &sums, |k, step, sums| {
            let mut sums = sums.to_vec();
            let at = k.mul_const(step, step_bytes as i64);
            let weights: Vec<Vec<Value>> = tiles
                .iter()
                .map(|tile| {
                    self.prefetch(k, tile, at, step_bytes);
                    let at = k.offset(tile.tile, at);
                    self.load_step(k, at)
                })
                .collect();
            let at = k.mul_const(step, rows * STEP as i64 * 4);
            let x = k.offset(x, at);
            for i in 0..STEP {
                for row in 0..rows {
                    let at = k.offset_const(x, (row * STEP as i64 + i as i64) * 4);
                    let a = k.load(at, Elem::F32);
                    let a = k.splat(a, self.lanes());
                    for (tile, weights) in weights.iter().enumerate() {
                        let sum = &mut sums[tile * rows as usize + row as usize];
                        *sum = k.fma(a, weights[i as usize], *sum);
                    }
                }
            }
            sums
        })
    }

    /// Four vectors of weights as f32, for four consecutive k.
    fn load_step(&self, k: &mut Builder, at: Value) -> Vec<Value> {
        let stride = i64::from(self.lanes()) * self.layout.dtype.block_bytes() as i64;
        match self.layout.dtype {
            DType::BF16 => {
                (0..2).flat_map(|pair| self.load_pair(k, at, 2 * pair * stride)).collect()
            }
            DType::F16 => (0..STEP as i64)
                .map(|i| {
                    let at = k.offset_const(at, i * stride);
                    let w = k.load_aligned(at, self.vector(Elem::F16), self.lanes() * 2);
                    k.extf(w, Elem::F32)
                })
                .collect(),
            _ => (0..STEP as i64)
                .map(|i| {
                    let at = k.offset_const(at, i * stride);
                    k.load_aligned(at, self.vector(Elem::F32), self.lanes() * 4)
                })
                .collect(),
        }
    }

    /// Two vectors of f32 from one of bf16 pairs.
    fn load_pair(&self, k: &mut Builder, at: Value, offset: i64) -> [Value; 2] {
        let at = k.offset_const(at, offset);
        let pairs = k.load_aligned(at, self.vector(Elem::I32), self.lanes() * 4);
        let shift = k.int(pairs.ty, 16);
        let low = k.shl(pairs, shift);
        let mask = k.int(pairs.ty, 0xffff_0000u32 as i32 as i64);
        let high = k.and(pairs, mask);
        [low, high].map(|bits| k.bitcast(bits, self.vector(Elem::F32)))
    }

    /// bf16 activations: one `vdpbf16ps` per pair.
    fn bf16_pairs(&self, k: &mut Builder, tiles: &[Stream]) -> Vec<Value> {
        let steps = self.layout.padded_cols() / STEP;
        let offset = self.gemm.activations.bf16.unwrap_or(0);
        let x = self.activations(k, offset, steps, STEP * 2);
        let step_bytes = STEP * self.layout.lanes * 2;
        let rows = self.rows();
        let pairs = Elem::BF16.vec(2 * self.lanes());
        let intrinsic = format!("llvm.x86.avx512bf16.dpbf16ps.{}", self.lanes() * 32);
        let (zero, count) = (k.i64(0), k.i64(steps as i64));
        let sums = self.zeros(k, tiles.len());
        k.for_values(zero, count, 1, &sums, |k, step, sums| {
            let mut sums = sums.to_vec();
            let at = k.mul_const(step, step_bytes as i64);
            for tile in tiles {
                self.prefetch(k, tile, at, step_bytes);
            }
            let tiles: Vec<Value> = tiles.iter().map(|tile| k.offset(tile.tile, at)).collect();
            let at = k.mul_const(step, rows * STEP as i64 * 2);
            let x = k.offset(x, at);
            for pair in 0..2 {
                let weights: Vec<Value> = tiles
                    .iter()
                    .map(|tile| {
                        let at = k.offset_const(*tile, pair * i64::from(self.lanes()) * 4);
                        let w = k.load_aligned(at, self.vector(Elem::I32), self.lanes() * 4);
                        k.bitcast(w, pairs)
                    })
                    .collect();
                for row in 0..rows {
                    let at = k.offset_const(x, row * STEP as i64 * 2 + pair * 4);
                    let a = k.load_aligned(at, Elem::I32, 4);
                    let a = k.splat(a, self.lanes());
                    let a = k.bitcast(a, pairs);
                    for (tile, w) in weights.iter().enumerate() {
                        let sum = &mut sums[tile * rows as usize + row as usize];
                        *sum = k.intrinsic(&intrinsic, &[*sum, *w, a], sum.ty);
                    }
                }
            }
            sums
        })
    }

    /// int8 activations: per block of 32 an exact dot product, scaled and summed in f32.
    fn int8(&self, k: &mut Builder, tiles: &[Stream], correction: Correction) -> Vec<Value> {
        let Some(int8) = &self.gemm.activations.int8 else { return vec![] };
        let blocks = self.layout.cols / BLOCK;
        let quants = self.activations(k, int8.quants, blocks, BLOCK_BYTES);
        let scales = self.activations(k, int8.scales, blocks, 4);
        let corrections = int8.corrections.iter().find(|(kind, _)| *kind == correction);
        let corrections = corrections.map(|(_, offset)| self.activations(k, *offset, blocks, 4));
        let rows = self.rows();
        let (zero, count) = (k.i64(0), k.i64(blocks as i64));
        let sums = self.zeros(k, tiles.len());
        k.for_values(zero, count, 1, &sums, |k, block, sums| {
            let at = |k: &mut Builder, base: Value, bytes: i64| {
                let offset = k.mul_const(block, bytes);
                k.offset(base, offset)
            };
            let x = BlockOfX {
                quants: at(k, quants, BLOCK_BYTES as i64 * rows),
                scales: at(k, scales, 4 * rows),
                corrections: corrections.map(|base| at(k, base, 4 * rows)),
            };
            let mut next = vec![];
            for (tile, sums) in tiles.iter().zip(sums.chunks(rows as usize)) {
                let offset = k.mul_const(block, self.layout.block_stride() as i64);
                self.prefetch(k, tile, offset, self.layout.block_stride());
                let weights = k.offset(tile.tile, offset);
                next.extend(self.int8_block(k, weights, &x, sums, correction));
            }
            next
        })
    }

    /// One block of 32 along K of a tile: `sums`, one per row, with its products added.
    fn int8_block(
        &self,
        k: &mut Builder,
        weights: Value,
        x: &BlockOfX,
        sums: &[Value],
        correction: Correction,
    ) -> Vec<Value> {
        let (scale, minimum) = self.block_scales(k, weights);
        let bytes = self.block_bytes(k, weights);
        let mut next = vec![];
        for (row, sum) in sums.iter().enumerate() {
            let row = row as i64;
            let start = match (correction, x.corrections) {
                (Correction::ZeroPoint(_), Some(base)) => {
                    Some(self.broadcast(k, base, row * 4, Elem::I32))
                }
                _ => None,
            };
            let quants = k.offset_const(x.quants, row * BLOCK_BYTES as i64);
            let dot = self.quants_dot(k, &bytes, quants, start);
            let dot = k.sitofp(dot, Elem::F32);
            let x_scale = self.broadcast(k, x.scales, row * 4, Elem::F32);
            let both = k.mul(scale, x_scale);
            let mut sum = k.fma(dot, both, *sum);
            if let (Some(minimum), Some(base)) = (minimum, x.corrections) {
                let x_sum = self.broadcast(k, base, row * 4, Elem::F32);
                sum = k.fma(minimum, x_sum, sum);
            }
            next.push(sum);
        }
        next
    }

    /// A 4-byte number in every lane.
    fn broadcast(&self, k: &mut Builder, base: Value, offset: i64, elem: Elem) -> Value {
        let at = k.offset_const(base, offset);
        let value = k.load(at, elem);
        k.splat(value, self.lanes())
    }

    /// Scales, and minima where the format has them, of a block.
    fn block_scales(&self, k: &mut Builder, at: Value) -> (Value, Option<Value>) {
        let bytes = self.lanes() * 2;
        let load = |k: &mut Builder, at: Value| {
            let half = k.load(at, self.vector(Elem::F16));
            k.extf(half, Elem::F32)
        };
        let scale = load(k, at);
        let minimum = (self.layout.scales_per_block() == 2).then(|| {
            let at = k.offset_const(at, bytes.into());
            load(k, at)
        });
        (scale, minimum)
    }

    /// The eight vectors of a block, each with four consecutive k of each row.
    fn block_bytes(&self, k: &mut Builder, at: Value) -> Vec<Value> {
        let at = k.offset_const(at, self.layout.quants_offset() as i64);
        let ty = self.vector(Elem::I32);
        let mut load = |i: i64| {
            let at = k.offset_const(at, i * i64::from(ty.bytes()));
            k.load_aligned(at, ty, 2)
        };
        if self.layout.dtype == DType::Q8_0 {
            return (0..8).map(load).collect();
        }
        let packed: Vec<Value> = (0..4).map(&mut load).collect();
        let mask = k.int(ty, 0x0f0f_0f0f);
        let four = k.int(ty, 4);
        let low: Vec<Value> = packed.iter().map(|v| k.and(*v, mask)).collect();
        let high: Vec<Value> = packed
            .iter()
            .map(|v| {
                let shifted = k.shr_u(*v, four);
                k.and(shifted, mask)
            })
            .collect();
        [low, high].concat()
    }

    /// Σ weights · quants of a block of 32 at `x`, exact, plus `start`: at most
    /// 32 · 255 · 16,256 < 2²⁸.
    fn quants_dot(
        &self,
        k: &mut Builder,
        weights: &[Value],
        x: Value,
        start: Option<Value>,
    ) -> Value {
        let high = self.block_dot(k, weights, x, None);
        let shift = k.int(high.ty, LOW_BITS);
        let high = k.shl(high, shift);
        let start = start.map_or(high, |start| k.add(high, start));
        let low = k.offset_const(x, BLOCK as i64);
        self.block_dot(k, weights, low, Some(start))
    }

    /// Σ weights · bytes of a block of 32 at `x`, exact, plus `start`.
    fn block_dot(
        &self,
        k: &mut Builder,
        weights: &[Value],
        x: Value,
        start: Option<Value>,
    ) -> Value {
        let ty = self.vector(Elem::I32);
        let start = match start {
            Some(start) => start,
            None => k.zero(ty),
        };
        let fours: Vec<(Value, Value)> = weights
            .iter()
            .enumerate()
            .map(|(i, w)| (*w, self.broadcast(k, x, i as i64 * 4, Elem::I32)))
            .collect();
        match (self.gemm.target.int8_dot, self.layout.dtype) {
            (Int8Dot::Vnni, _) => fours.into_iter().fold(start, |sum, (w, a)| {
                let name = format!("llvm.x86.avx512.vpdpbusd.{}", self.lanes() * 32);
                let (w, a) = (self.as_bytes(k, w), self.as_bytes(k, a));
                k.intrinsic(&name, &[sum, w, a], ty)
            }),
            (Int8Dot::PairSums, DType::Q8_0) => fours.into_iter().fold(start, |sum, (w, a)| {
                let pairs = self.signed_pairs(k, w, a);
                let fours = self.sum_pairs(k, pairs);
                k.add(sum, fours)
            }),
            (Int8Dot::PairSums, _) => {
                // 8 · 2 · 15 · 127 < 2¹⁵: the pairs of a whole block sum up in 16 bits.
                let mut pairs: Option<Value> = None;
                for (w, a) in fours {
                    let (w, a) = (self.as_bytes(k, w), self.as_bytes(k, a));
                    let new = self.multiply_pairs(k, w, a);
                    pairs = Some(pairs.map_or(new, |old| k.add(old, new)));
                }
                let fours = pairs.map_or(start, |pairs| self.sum_pairs(k, pairs));
                k.add(start, fours)
            }
        }
    }

    fn as_bytes(&self, k: &mut Builder, v: Value) -> Value {
        k.bitcast(v, Elem::I8.vec(self.lanes() * 4))
    }

    /// u8 × i8, neighbours summed in 16 bits; the caller knows that they fit.
    fn multiply_pairs(&self, k: &mut Builder, unsigned: Value, signed: Value) -> Value {
        let name = match self.lanes() {
            16 => "llvm.x86.avx512.pmaddubs.w.512",
            _ => "llvm.x86.avx2.pmadd.ub.sw",
        };
        k.intrinsic(name, &[unsigned, signed], Elem::I16.vec(self.lanes() * 2))
    }

    /// (w − 128) × a as |w − 128| × (a with the sign of w − 128): at most 128 · 127 · 2 < 2¹⁵.
    fn signed_pairs(&self, k: &mut Builder, w: Value, a: Value) -> Value {
        let (w, a) = (self.as_bytes(k, w), self.as_bytes(k, a));
        let bias = k.int(w.ty, i64::from(Q8_BIAS.cast_signed()));
        let w = k.xor(w, bias);
        let zero = k.zero(w.ty);
        let negative = k.cmp(Cmp::Lt, w, zero);
        let minus = k.sub(zero, w);
        let magnitude = k.select(negative, minus, w);
        let minus = k.sub(zero, a);
        let signed = k.select(negative, minus, a);
        self.multiply_pairs(k, magnitude, signed)
    }

    /// Neighbours of 16 bits summed in 32.
    fn sum_pairs(&self, k: &mut Builder, pairs: Value) -> Value {
        let name = match self.lanes() {
            16 => "llvm.x86.avx512.pmaddw.d.512",
            _ => "llvm.x86.avx2.pmadd.wd",
        };
        let ones = k.int(pairs.ty, 1);
        k.intrinsic(name, &[pairs, ones], self.vector(Elem::I32))
    }
}
