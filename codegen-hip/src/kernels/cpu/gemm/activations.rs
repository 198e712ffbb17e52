//! The prologue: rows of x, normalized and converted to what the weights multiply with.
//!
//! Forms, in scratch, for groups of `R` rows (`rows` of the tile configuration) so that what a
//! micro-kernel reads lies side by side:
//!
//! - f32: `[group][K'/4][R][4]`;
//! - bf16: the same, where the target multiplies bf16 pairs;
//! - int8: per block of 32 along K, `[group][K/32][R]`: quants of 15 bits, each as two bytes that
//!   multiply apart: 32 high parts, then 32 low parts, quant = 128 · high + low; their scale
//!   (largest magnitude / [`LARGEST_QUANT`]) in f32; and corrections: for a weight format whose
//!   bytes stand for `byte − z`, `−z · Σ quants` as i32, which the dot product starts from; for
//!   one with minima, `scale · Σ quants` as f32. One byte per activation, as llama.cpp has it,
//!   would cost more accuracy than the weights' own rounding (`docs/measuring.md`);
//! - tiles of bf16, of one part or two, as `amx` multiplies them.

use super::{Env, Gemm, GemmSpec, Rows, TileConfig, amx};
use crate::kernels::scalar;
use crate::mlir::builder::Cmp;
use crate::mlir::{Builder, Elem, Ty, Value};
use crate::pack::{BLOCK, PackedLayout, Q8_BIAS};
use crate::target::{CpuTarget, Int8Dot};
use waveloom_ir::DType;
use waveloom_ir::numerics::{Factors, Numerics, Rounding, Sums};

/// K is padded to a multiple of this in the plain forms.
pub(super) const STEP: u64 = 4;
/// Bits of a quant's low part.
pub(super) const LOW_BITS: i64 = 7;
/// Bytes of a block of quants: high parts, then low parts.
pub(super) const BLOCK_BYTES: u64 = 2 * BLOCK;
/// The largest quant: its high part is 127, its low part 0.
const LARGEST_QUANT: f32 = 127.0 * (1 << LOW_BITS) as f32;
/// Blocks of smaller numbers are taken for zeros: the inverse of their scale is not finite.
const SMALLEST_BLOCK: f32 = 1e-30;

/// What activations a weight multiplies with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    F32,
    Bf16,
    Int8(Correction),
    /// AMX tiles of bf16.
    Tiles(Parts),
}

/// How many bf16 stand for a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parts {
    One,
    /// Its rounded value, and what that leaves.
    Two,
}

impl Parts {
    /// What a weight of a dtype takes, and what it is multiplied with.
    pub(super) fn of(dtype: DType) -> Parts {
        if dtype == DType::BF16 { Parts::One } else { Parts::Two }
    }

    pub(super) fn count(self) -> u64 {
        match self {
            Parts::One => 1,
            Parts::Two => 2,
        }
    }
}

/// What a quantized weight format needs beside the dot product of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Correction {
    None,
    /// Bytes stand for `byte − z`.
    ZeroPoint(u8),
    /// A minimum per block.
    Minimum,
}

impl Form {
    /// The forms that an op's weights multiply with, one each. Many rows are multiplied in tiles where
    /// the target has them and can take all of the weights.
    pub(super) fn all(spec: &GemmSpec, target: &CpuTarget) -> Vec<Form> {
        let weights = spec.weights.iter();
        let tiles = target.amx
            && spec.rows != Rows::One
            && spec.weights.iter().all(|weight| amx::takes(weight.dtype));
        match tiles {
            true => weights.map(|weight| Form::Tiles(Parts::of(weight.dtype))).collect(),
            false => weights.map(|weight| Form::of(weight, &spec.rows, target)).collect(),
        }
    }

    /// In vector registers: bf16 weights multiply bf16 pairs for a single row only: there the fewest instructions per
    /// byte count, while over many rows `vdpbf16ps`, at one in two cycles, is slower than two
    /// fused multiply-adds on weights widened once.
    fn of(layout: &PackedLayout, rows: &Rows, target: &CpuTarget) -> Form {
        match layout.dtype {
            DType::Q8_0 if target.int8_dot == Int8Dot::PairSums => Form::Int8(Correction::None),
            DType::Q8_0 => Form::Int8(Correction::ZeroPoint(Q8_BIAS)),
            DType::Q4_0 => Form::Int8(Correction::ZeroPoint(8)),
            DType::Q4_1 => Form::Int8(Correction::Minimum),
            DType::BF16 if target.bf16_dot && *rows == Rows::One => Form::Bf16,
            _ => Form::F32,
        }
    }
}

impl Form {
    /// Bytes of an element.
    pub(super) fn bytes(self) -> u64 {
        match self {
            Form::F32 => 4,
            Form::Bf16 => 2,
            Form::Int8(_) => 1,
            Form::Tiles(parts) => 2 * parts.count(),
        }
    }
}

/// How the kernel of `spec` rounds.
pub(super) fn numerics(spec: &GemmSpec, target: &CpuTarget) -> Numerics {
    let rounding = |form| match form {
        Form::F32 => Rounding::None,
        Form::Bf16 => Rounding::Bf16,
        Form::Int8(_) => Rounding::Fixed { largest: LARGEST_QUANT as u16 },
        Form::Tiles(Parts::One) => Rounding::Bf16,
        Form::Tiles(Parts::Two) => Rounding::TwoBf16,
    };
    let product = |form| {
        let activations = rounding(form);
        match form {
            Form::Tiles(parts) => {
                let matrix = if parts == Parts::Two { activations } else { Rounding::None };
                Factors { activations, matrix, sums: Sums::Matrix }
            }
            _ => Factors { activations, ..Factors::default() },
        }
    };
    Numerics { products: Form::all(spec, target).into_iter().map(product).collect() }
}

/// Where the forms that a kernel uses lie in scratch: offsets in bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Activations {
    pub(super) f32: Option<i64>,
    pub(super) bf16: Option<i64>,
    pub(super) int8: Option<Int8>,
    pub(super) amx: Option<i64>,
    /// Of the tiles.
    parts: u64,
    bytes: u64,
}

/// Offsets of the parts of the int8 form.
#[derive(Clone, Debug)]
pub(super) struct Int8 {
    pub(super) quants: i64,
    pub(super) scales: i64,
    pub(super) corrections: Vec<(Correction, i64)>,
}

impl Activations {
    pub(super) fn new(spec: &GemmSpec, config: &TileConfig, target: &CpuTarget) -> Activations {
        let forms = Form::all(spec, target);
        let rows = u64::from(config.block_rows);
        let mut all = Activations::default();
        let plain = spec.k.next_multiple_of(STEP) * rows;
        if forms.contains(&Form::F32) {
            all.f32 = Some(all.claim(plain * 4));
        }
        if forms.contains(&Form::Bf16) {
            all.bf16 = Some(all.claim(plain * 2));
        }
        let parts = |form: &Form| if let Form::Tiles(parts) = form { parts.count() } else { 0 };
        all.parts = forms.iter().map(parts).max().unwrap_or(0);
        if all.parts > 0 {
            let tiles = rows / u64::from(amx::TILE_ROWS) * amx::steps(spec.k);
            all.amx = Some(all.claim(tiles * all.parts * amx::TILE_BYTES));
        }
        let mut corrections: Vec<Correction> = vec![];
        for form in &forms {
            if let Form::Int8(correction) = form
                && !corrections.contains(correction)
            {
                corrections.push(*correction);
            }
        }
        if !corrections.is_empty() {
            let per_block = spec.k / BLOCK * rows * 4;
            all.int8 = Some(Int8 {
                quants: all.claim(spec.k / BLOCK * BLOCK_BYTES * rows),
                scales: all.claim(per_block),
                corrections: corrections
                    .into_iter()
                    .filter(|correction| *correction != Correction::None)
                    .map(|correction| (correction, all.claim(per_block)))
                    .collect(),
            });
        }
        all
    }

    fn claim(&mut self, bytes: u64) -> i64 {
        let offset = self.bytes.next_multiple_of(64);
        self.bytes = offset + bytes;
        offset as i64
    }

    /// Parts of a number in tiles; 0 where there are none.
    pub(super) fn parts(&self) -> u64 {
        self.parts
    }

    /// Bytes of scratch that the forms take.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Converts `row_groups` groups of rows of x from `first_row`. Rows beyond the last repeat
    /// it: their products are computed and not stored.
    pub(super) fn prologue(
        &self,
        k: &mut Builder,
        gemm: &Gemm,
        env: &Env,
        first_row: Value,
        row_groups: Value,
    ) {
        let rows = i64::from(gemm.config.rows);
        let zero = k.i64(0);
        k.for_loop(zero, row_groups, 1, [], |k, group, []| {
            let count = k.i64(rows);
            k.for_loop(zero, count, 1, [], |k, row, []| {
                let before = k.mul_const(group, rows);
                let in_block = k.add(before, row);
                let index = k.add(first_row, in_block);
                let end = k.add_const(env.m, -1);
                let index = k.min(index, end);
                let bytes = k.mul_const(index, gemm.spec.k as i64 * 4);
                let x = k.offset(env.x, bytes);
                RowPrologue { activations: self, gemm, env, x, group, row }.emit(k);
                []
            });
            []
        });
    }
}

/// The prologue of one row.
struct RowPrologue<'a> {
    activations: &'a Activations,
    gemm: &'a Gemm<'a>,
    env: &'a Env,
    /// The row of x.
    x: Value,
    group: Value,
    /// The row in its group.
    row: Value,
}

impl RowPrologue<'_> {
    fn emit(&self, k: &mut Builder) {
        let scale = self.gemm.spec.norm_eps.map(|eps| self.rms_scale(k, eps));
        let (zero, whole) = (k.i64(0), k.i64((self.gemm.spec.k / BLOCK) as i64));
        k.for_loop(zero, whole, 1, [], |k, block, []| {
            self.convert(k, block, BLOCK, scale);
            []
        });
        let rest = self.gemm.spec.k % BLOCK;
        if rest > 0 {
            self.convert(k, whole, rest, scale);
        }
    }

    fn vector(&self) -> Ty {
        Elem::F32.vec(self.gemm.target.lanes)
    }

    /// Loads `len` numbers at `index`; lanes beyond are zero.
    fn load(&self, k: &mut Builder, base: Value, index: Value, len: u64) -> Value {
        let at = k.element(base, Elem::F32, index);
        if len >= u64::from(self.gemm.target.lanes) {
            return k.load(at, self.vector());
        }
        let len = k.i64(len as i64);
        k.load_partial(at, self.vector(), len)
    }

    /// 1 / √(mean(x²) + eps), in every lane.
    fn rms_scale(&self, k: &mut Builder, eps: f32) -> Value {
        let lanes = u64::from(self.gemm.target.lanes);
        let n = self.gemm.spec.k;
        // Four sums hide the latency of the multiply-add.
        let step = 4 * lanes;
        let zero = k.zero(self.vector());
        let (from, to) = (k.i64(0), k.i64((n / step * step) as i64));
        let mut sums = k.for_loop(from, to, step as i64, [zero; 4], |k, i, mut sums| {
            for (part, sum) in sums.iter_mut().enumerate() {
                let at = k.add_const(i, part as i64 * lanes as i64);
                let x = self.load(k, self.x, at, lanes);
                *sum = k.fma(x, x, *sum);
            }
            sums
        });
        let mut at = n / step * step;
        for sum in &mut sums {
            if at < n {
                let index = k.i64(at as i64);
                let x = self.load(k, self.x, index, n - at);
                *sum = k.fma(x, x, *sum);
                at += lanes;
            }
        }
        let (a, b) = (k.add(sums[0], sums[1]), k.add(sums[2], sums[3]));
        let sum = k.add(a, b);
        let sum = k.reduce_add(sum);
        let scale = scalar::rms_scale(k, sum, n, eps);
        k.splat(scale, self.gemm.target.lanes)
    }

    /// Converts `len` (at most 32) numbers from block `block`.
    fn convert(&self, k: &mut Builder, block: Value, len: u64, scale: Option<Value>) {
        let lanes = u64::from(self.gemm.target.lanes);
        let base = k.mul_const(block, BLOCK as i64);
        let vectors: Vec<Value> = (0..len.div_ceil(lanes))
            .map(|i| {
                let at = k.add_const(base, (i * lanes) as i64);
                let x = self.load(k, self.x, at, len - i * lanes);
                let (Some(scale), Some(norm)) = (scale, self.env.norm) else { return x };
                let weight = self.load(k, norm, at, len - i * lanes);
                let x = k.mul(x, scale);
                k.mul(x, weight)
            })
            .collect();
        if let Some(offset) = self.activations.f32 {
            self.store_steps(k, offset, base, &vectors, len);
        }
        if let Some(offset) = self.activations.bf16 {
            let vectors: Vec<Value> = vectors.iter().map(|x| k.f32_to_bf16(*x)).collect();
            self.store_steps(k, offset, base, &vectors, len);
        }
        if let Some(int8) = &self.activations.int8 {
            self.quantize(k, int8, block, &vectors);
        }
        if let Some(offset) = self.activations.amx {
            self.store_tile_row(k, offset, block, &vectors);
        }
    }

    /// Stores a row of a tile, of each part: 32 numbers, zeros where there are fewer.
    fn store_tile_row(&self, k: &mut Builder, offset: i64, block: Value, vectors: &[Value]) {
        let parts = self.activations.parts;
        let step_bytes = (parts * amx::TILE_BYTES) as i64;
        let row_tile = self.row_in_block(k);
        let height = k.i64(amx::TILE_ROWS.into());
        let row = k.rem(row_tile, height);
        let tile = k.udiv(row_tile, height);
        let tile = k.mul_const(tile, amx::steps(self.gemm.spec.k) as i64);
        let step = k.add(tile, block);
        let step = k.mul_const(step, step_bytes);
        let start = k.offset_const(self.env.scratch, offset);
        let start = k.offset(start, step);
        let row = k.mul_const(row, 2 * amx::TILE_K as i64);
        let start = k.offset(start, row);
        for index in 0..2 {
            let mut rest = vectors.get(index).copied().unwrap_or_else(|| k.zero(self.vector()));
            for part in 0..parts {
                let bits = amx::to_bf16(k, rest);
                let at = (part * amx::TILE_BYTES) as i64 + index as i64 * 32;
                let at = k.offset_const(start, at);
                k.store_aligned(bits, at, 32);
                let rounded = k.bf16_to_f32(bits);
                rest = k.sub(rest, rounded);
            }
        }
    }

    /// The row's index in its row block.
    fn row_in_block(&self, k: &mut Builder) -> Value {
        let before = k.mul_const(self.group, self.gemm.config.rows.into());
        k.add(before, self.row)
    }

    /// Stores vectors of numbers from `base` along K in steps of 4, rows of the group between.
    fn store_steps(&self, k: &mut Builder, offset: i64, base: Value, vectors: &[Value], len: u64) {
        let rows = i64::from(self.gemm.config.rows);
        let bytes = i64::from(vectors[0].ty.elem.bytes());
        let padded = self.gemm.spec.k.next_multiple_of(STEP) as i64;
        let start = k.offset_const(self.env.scratch, offset);
        let group = k.mul_const(self.group, padded * rows * bytes);
        let start = k.offset(start, group);
        let column = k.mul_const(base, rows * bytes);
        let start = k.offset(start, column);
        let row = k.mul_const(self.row, STEP as i64 * bytes);
        let start = k.offset(start, row);
        let lanes = u64::from(self.gemm.target.lanes);
        for step in 0..len.div_ceil(STEP) {
            let at = step * STEP;
            let part = k.slice(vectors[(at / lanes) as usize], (at % lanes) as u32, STEP as u32);
            let to = k.offset_const(start, at as i64 * rows * bytes);
            k.store(part, to);
        }
    }

    /// The address of this row in an array `[group][block][row]` of `bytes` each.
    fn slot(&self, k: &mut Builder, offset: i64, block: Value, bytes: u64) -> Value {
        let blocks = (self.gemm.spec.k / BLOCK) as i64;
        let group = k.mul_const(self.group, blocks);
        let index = k.add(group, block);
        let index = k.mul_const(index, self.gemm.config.rows.into());
        let index = k.add(index, self.row);
        let bytes = k.mul_const(index, bytes as i64);
        let start = k.offset_const(self.env.scratch, offset);
        k.offset(start, bytes)
    }

    /// One block of 32 as quants.
    fn quantize(&self, k: &mut Builder, int8: &Int8, block: Value, vectors: &[Value]) {
        let lanes = self.gemm.target.lanes;
        let magnitudes: Vec<Value> = vectors.iter().map(|x| k.abs(*x)).collect();
        let largest = combine(k, &magnitudes, |k, a, b| k.max(a, b));
        let largest = k.reduce_max(largest);
        let most = k.f32(LARGEST_QUANT);
        let scale = k.div(largest, most);
        let zero = k.f32(0.0);
        let inverse = k.div(most, largest);
        let smallest = k.f32(SMALLEST_BLOCK);
        let any = k.cmp(Cmp::Gt, largest, smallest);
        let inverse = k.select(any, inverse, zero);
        let inverse = k.splat(inverse, lanes);
        let to = self.slot(k, int8.quants, block, BLOCK_BYTES);
        let mut integers = vec![];
        for (i, x) in vectors.iter().enumerate() {
            let x = k.mul(*x, inverse);
            let x = k.round_even(x);
            let q = k.fptosi(x, Elem::I32);
            integers.push(q);
            let to = k.offset_const(to, i as i64 * i64::from(lanes));
            self.store_parts(k, q, to);
        }
        let to = self.slot(k, int8.scales, block, 4);
        k.store(scale, to);
        if int8.corrections.is_empty() {
            return;
        }
        let sum = combine(k, &integers, |k, a, b| k.add(a, b));
        let sum = k.reduce_add(sum);
        for (correction, offset) in &int8.corrections {
            let value = match correction {
                Correction::None => continue,
                Correction::ZeroPoint(z) => k.mul_const(sum, -i64::from(*z)),
                Correction::Minimum => {
                    let sum = k.sitofp(sum, Elem::F32);
                    k.mul(scale, sum)
                }
            };
            let to = self.slot(k, *offset, block, 4);
            k.store(value, to);
        }
    }
}

impl RowPrologue<'_> {
    /// Stores the high parts of quants at `to` and the low ones, −64 to 63, a block further.
    fn store_parts(&self, k: &mut Builder, quants: Value, to: Value) {
        let half = k.int(quants.ty, 1 << (LOW_BITS - 1));
        let shift = k.int(quants.ty, LOW_BITS);
        let rounded = k.add(quants, half);
        let high = k.shr_s(rounded, shift);
        let whole = k.shl(high, shift);
        let low = k.sub(quants, whole);
        let bytes = k.trunc(high, Elem::I8);
        k.store(bytes, to);
        let bytes = k.trunc(low, Elem::I8);
        let to = k.offset_const(to, BLOCK as i64);
        k.store(bytes, to);
    }
}

/// Combines vectors by halving the list.
fn combine(
    k: &mut Builder,
    vectors: &[Value],
    mut pair: impl FnMut(&mut Builder, Value, Value) -> Value,
) -> Value {
    let mut vectors = vectors.to_vec();
    while vectors.len() > 1 {
        let half = vectors.len().div_ceil(2);
        for i in half..vectors.len() {
            vectors[i - half] = pair(k, vectors[i - half], vectors[i]);
        }
        vectors.truncate(half);
    }
    vectors[0]
}
