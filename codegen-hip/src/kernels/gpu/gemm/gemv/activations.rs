//! Rows of x in the local data share, times the norm's weight: as f32 for plain weights, in fixed
//! point for quantized ones.
//!
//! As f32, as many elements as there are banks are followed by 16 bytes of padding: lane groups
//! read at distances of 4, 8 or 16 elements, and so never the same banks.
//!
//! In fixed point a block of 32 elements is a record of 96 bytes. Its numbers are integers times
//! the block's factor, which is the largest magnitude / 32639; an integer is 256 · high + low, two
//! signed bytes, so that products with bytes of weights are integer dot products and exact:
//!
//! ```text
//! high bytes (32) | low bytes (32) | factor, f32 | sum of the block, f32 | unused (24)
//! ```
//!
//! A number is off by at most 1 / 65278 of the block's largest magnitude: 257 times less than in
//! int8, and no more than in f16 for numbers above 1/16 of the largest. 96 bytes are 24 banks:
//! neither the lanes that store the bytes of neighbouring blocks nor those that read records share
//! banks.

use super::stream::Bundle;
use super::tile::TileConfig;
use crate::kernels::gpu::gemm::{Env, GemmSpec, split};
use crate::mlir::builder::Cmp;
use crate::mlir::{Builder, Elem, Ty, Value};
use crate::pack::gpu::GpuLayout;
use crate::target::{GpuTarget, Platform};
use waveloom_ir::numerics::{Factors, Numerics, Rounding};

/// Elements of a quantized block.
const BLOCK: u32 = 32;
/// Bytes of a block in fixed point.
pub(super) const RECORD: u32 = 96;
/// Where in a record its low bytes are.
pub(super) const LOW_BYTES: u32 = 32;
/// Where in a record its factor and its sum are.
pub(super) const FACTORS: u32 = 64;
/// The largest integer of two signed bytes.
const LARGEST: f32 = (127 * 256 + 127) as f32;
/// Blocks of smaller numbers are zero: factors are normal numbers.
const SMALLEST: f32 = 1e-30;
/// Elements of a padding: 16 bytes.
const PADDING: u32 = 4;
/// Loads of a work-item under way at a time.
const LOADS: u32 = 8;

/// How the kernel of `spec` rounds: x for quantized weights, nothing else.
pub(super) fn numerics(spec: &GemmSpec) -> Numerics {
    let product = |layout: &GpuLayout| match layout.dtype.is_block() {
        false => Factors::default(),
        true => {
            let activations = Rounding::Fixed { largest: LARGEST as u16 };
            Factors { activations, ..Factors::default() }
        }
    };
    Numerics { products: spec.weights.iter().map(product).collect() }
}

/// How x is staged.
#[derive(Clone, Debug)]
pub(super) struct Activations {
    /// Columns of x.
    k: u32,
    /// Elements between paddings: the banks of the local data share.
    banks: u32,
    /// Rows that are staged.
    rows: u32,
    /// Elements at whose multiples slabs begin.
    granule: u32,
    /// Slabs of K.
    pub slabs: u32,
    /// Elements of a row of a slab, zeros after the last included.
    capacity: u32,
    /// Whether they are needed as f32.
    plain: bool,
    /// Whether they are needed in fixed point.
    fixed: bool,
}

/// A part of K.
pub(super) struct Slab {
    /// Its first and its last granule plus one.
    granules: [Value; 2],
    /// Its first element.
    first: Value,
    /// Its last element plus one.
    end: Value,
    /// Whether it is the last one, if there are others.
    pub last: Option<Value>,
}

/// The workgroup's rows.
pub(super) struct Block<'a> {
    pub env: &'a Env,
    pub target: &'a GpuTarget,
    pub workgroup: u32,
    /// First row of x.
    pub first_row: Value,
    /// Address of the first staged element.
    pub shared: Value,
}

/// Some elements of a row, loaded.
struct Piece {
    /// Its index in the slab.
    index: Value,
    /// Whether the slab has room for it, where that is not sure.
    fits: Option<Value>,
    /// Whether x has it, and whether it is counted in this slab.
    exists: Value,
    counted: Value,
    weight: Option<Value>,
    x: Vec<Value>,
}

impl Activations {
    pub fn new(
        spec: &GemmSpec,
        bundles: &[Bundle],
        config: &TileConfig,
        target: &GpuTarget,
    ) -> Activations {
        let banks = target.lds_banks;
        let k = spec.k as u32;
        let granule = bundles.iter().map(Bundle::unit_elements).max().unwrap_or(1);
        let granules = k / granule;
        let fixed = bundles.iter().any(|bundle| bundle.dtype.is_block());
        let plain = bundles.iter().any(|bundle| !bundle.dtype.is_block());
        let plain_bytes = if plain { granule * (banks + PADDING) / banks * 4 } else { 0 };
        let fixed_bytes = if fixed { granule / BLOCK * RECORD } else { 0 };
        let granule_bytes = (plain_bytes + fixed_bytes) * config.rows;
        let per_slab = (config.slab_bytes / granule_bytes).max(1);
        let slabs = granules.div_ceil(per_slab).max(1);
        let rest = k - granules * granule;
        // Whole steps of four cells of any dtype.
        let capacity = (granules.div_ceil(slabs) * granule + rest).next_multiple_of(4 * BLOCK);
        Activations { k, banks, rows: config.rows, granule, slabs, capacity, plain, fixed }
    }

    /// Units of a bundle that every slab has.
    pub fn least_units(&self, bundle: &Bundle) -> u32 {
        match self.slabs {
            1 => bundle.units(),
            slabs => self.k / self.granule / slabs * (self.granule / bundle.unit_elements()),
        }
    }

    /// Elements, paddings included, before element `element`, at which a lane begins to read.
    pub fn padded(&self, element: u32) -> u32 {
        element + element / self.banks * PADDING
    }

    /// The same of a number that is only known when the kernel runs.
    pub fn padded_value(&self, k: &mut Builder, element: Value) -> Value {
        let (before, _) = split(k, element, self.banks);
        let padding = k.mul_const(before, PADDING.into());
        k.add(element, padding)
    }

    /// Bytes between rows as f32.
    pub fn plain_row_bytes(&self) -> u32 {
        if self.plain { self.padded(self.capacity) * 4 } else { 0 }
    }

    /// Bytes between rows in fixed point.
    pub fn fixed_row_bytes(&self) -> u32 {
        if self.fixed { self.capacity / BLOCK * RECORD } else { 0 }
    }

    /// Where records begin.
    pub fn fixed_offset(&self) -> u32 {
        self.rows * self.plain_row_bytes()
    }

    /// Bytes of all rows.
    pub fn bytes(&self) -> u32 {
        self.fixed_offset() + self.rows * self.fixed_row_bytes()
    }

    /// Vector registers of a lane while x is staged, with a norm or without.
    pub fn registers(&self, norm: bool) -> u32 {
        let together = (LOADS / self.rows).max(1);
        self.width() * (together * (self.rows + u32::from(norm)) + self.rows)
    }

    /// Slab `index`.
    pub fn slab(&self, k: &mut Builder, index: Value) -> Slab {
        let granules = self.k / self.granule;
        if self.slabs == 1 {
            let [zero, granules, end] = [0, granules, self.k].map(|n| k.i32(n as i32));
            return Slab { granules: [zero, granules], first: zero, end, last: None };
        }
        let slabs = k.i32(self.slabs as i32);
        let from = k.mul_const(index, granules.into());
        let to = k.add_const(from, granules.into());
        let granules = [k.udiv(from, slabs), k.udiv(to, slabs)];
        let [first, end] = granules.map(|granule| k.mul_const(granule, self.granule.into()));
        let one_before = k.i32(self.slabs as i32 - 1);
        let last = k.cmp(Cmp::Eq, index, one_before);
        let all = k.i32(self.k as i32);
        let end = k.select(last, all, end);
        Slab { granules, first, end, last: Some(last) }
    }

    /// First unit of a bundle in a slab, and the last plus one.
    pub fn units(&self, k: &mut Builder, slab: &Slab, bundle: &Bundle) -> [Value; 2] {
        let per_granule = self.granule / bundle.unit_elements();
        let [from, to] = slab.granules.map(|granule| k.mul_const(granule, per_granule.into()));
        let all = k.i32(bundle.units() as i32);
        let to = match slab.last {
            None => all,
            Some(last) => k.select(last, all, to),
        };
        [from, to]
    }

    /// Elements of a piece: 16 bytes where rows are aligned so.
    fn width(&self) -> u32 {
        if self.k.is_multiple_of(4) { 4 } else { 1 }
    }

    fn piece_type(&self) -> Ty {
        if self.width() == 1 { Elem::F32.scalar() } else { Elem::F32.vec(self.width()) }
    }

    /// Sums of squares to begin with, by row.
    pub fn no_squares(&self, k: &mut Builder) -> Vec<Value> {
        (0..self.rows).map(|_| k.zero(self.piece_type())).collect()
    }

    /// Stages a slab; runs `meanwhile` when the last loads of x are under way, on NVIDIA GPUs before the
    /// first, so that what is loaded there is when other launches are still waited for. Adds squares of
    /// x to `squares` if there is a norm.
    pub fn stage(
        &self,
        k: &mut Builder,
        block: &Block<'_>,
        slab: &Slab,
        squares: &[Value],
        meanwhile: impl FnOnce(&mut Builder),
    ) -> Vec<Value> {
        let turns = (self.capacity / self.width()).div_ceil(block.workgroup);
        let together = (LOADS / self.rows).max(1);
        let batches = (turns - 1) / together;
        let thread = k.thread();
        let (zero, end) = (k.i32(0), k.i32((batches * together * block.workgroup) as i32));
        let step = i64::from(together * block.workgroup);
        let mut squares = squares.to_vec();
        let mut meanwhile = Some(meanwhile);
        if block.target.platform == Platform::Nvidia {
            meanwhile.take().into_iter().for_each(|meanwhile| meanwhile(k));
            k.others_from_here();
        }
        if batches > 0 {
            squares = k.for_values(zero, end, step, &squares, |k, first, squares| {
                let first = k.add(first, thread);
                let pieces = self.load(k, block, slab, first, together);
                self.store(k, block, &pieces, squares)
            });
        }
        let first = k.add(thread, end);
        let pieces = self.load(k, block, slab, first, turns - batches * together);
        meanwhile.into_iter().for_each(|meanwhile| meanwhile(k));
        self.store(k, block, &pieces, &squares)
    }

    /// Loads the pieces `first`, `first + workgroup`, … of all rows.
    fn load(
        &self,
        k: &mut Builder,
        block: &Block<'_>,
        slab: &Slab,
        first: Value,
        count: u32,
    ) -> Vec<Piece> {
        let width = self.width();
        let room = self.capacity / width;
        let mut pieces = vec![];
        for turn in 0..count {
            let index = k.add_const(first, (turn * block.workgroup).into());
            let fits = (!room.is_multiple_of(block.workgroup) && turn + 1 == count).then(|| {
                let room = k.i32(room as i32);
                k.below(index, room)
            });
            let element = k.mul_const(index, width.into());
            let element = k.add(slab.first, element);
            let all = k.i32(self.k as i32);
            let exists = k.below(element, all);
            let counted = if self.slabs == 1 { exists } else { k.below(element, slab.end) };
            let most = k.i32((self.k - width) as i32);
            let element = k.select(exists, element, most);
            let at = k.mul_const(element, 4);
            let load = |k: &mut Builder| self.load_piece(k, block, at);
            let mut loaded = match fits {
                None => load(k),
                Some(fits) => k.if_values(fits, load, |k| {
                    let count = usize::from(block.env.norm.is_some()) + self.rows as usize;
                    vec![k.zero(self.piece_type()); count]
                }),
            };
            let weight = block.env.norm.map(|_| loaded.remove(0));
            let x = loaded;
            pieces.push(Piece { index, fits, exists, counted, weight, x });
        }
        pieces
    }

    /// Loads the piece at `at`, in bytes: of the norm's weight, if there is a norm, and of all rows.
    fn load_piece(&self, k: &mut Builder, block: &Block<'_>, at: Value) -> Vec<Value> {
        let mut bases: Vec<Value> = block.env.norm.into_iter().collect();
        bases.extend((0..self.rows).map(|row| self.row(k, block, row)));
        bases
            .into_iter()
            .map(|base| {
                let from = k.offset_u32(base, at);
                k.load_aligned(from, self.piece_type(), 4 * self.width())
            })
            .collect()
    }

    /// Address of row `row` of the block; the last row of x stands for those after it.
    fn row(&self, k: &mut Builder, block: &Block<'_>, row: u32) -> Value {
        let index = k.add_const(block.first_row, row.into());
        let one = k.i32(1);
        let last = k.sub(block.env.m, one);
        let index = k.min(index, last);
        let bytes = k.mul_const(index, i64::from(self.k) * 4);
        k.offset_u32(block.env.x, bytes)
    }

    /// Stores loaded pieces, and adds their squares.
    fn store(
        &self,
        k: &mut Builder,
        block: &Block<'_>,
        pieces: &[Piece],
        squares: &[Value],
    ) -> Vec<Value> {
        let mut squares = squares.to_vec();
        let zero = k.zero(self.piece_type());
        for piece in pieces {
            let mut staged = vec![];
            for (x, square) in piece.x.iter().zip(&mut squares) {
                if piece.weight.is_some() {
                    let counted = k.select(piece.counted, *x, zero);
                    *square = k.fma(counted, counted, *square);
                }
                let x = piece.weight.map_or(*x, |weight| k.mul(*x, weight));
                staged.push(k.select(piece.exists, x, zero));
            }
            let store = |k: &mut Builder| self.store_piece(k, block, piece.index, &staged);
            match piece.fits {
                None => store(k),
                Some(fits) => k.if_then(fits, store),
            }
        }
        squares
    }

    fn store_piece(&self, k: &mut Builder, block: &Block<'_>, index: Value, rows: &[Value]) {
        if self.plain {
            self.store_plain(k, block, index, rows);
        }
        if self.fixed {
            for (row, &x) in rows.iter().enumerate() {
                self.store_fixed(k, block, index, row as u32, x);
            }
        }
    }

    fn store_plain(&self, k: &mut Builder, block: &Block<'_>, index: Value, rows: &[Value]) {
        let width = self.width();
        let element = k.mul_const(index, width.into());
        let element = self.padded_value(k, element);
        let to = k.element_u32(block.shared, Elem::F32, element);
        for (row, &x) in rows.iter().enumerate() {
            let to = k.offset_const(to, row as i64 * i64::from(self.plain_row_bytes()));
            k.store_aligned(x, to, 4 * width);
        }
    }

    /// Stores piece `index` of a row in fixed point. Quantized rows are whole blocks: eight pieces
    /// each, of neighbouring lanes.
    fn store_fixed(&self, k: &mut Builder, block: &Block<'_>, index: Value, row: u32, x: Value) {
        let pieces = BLOCK / self.width();
        let fixed = FixedPoint::of(k, x, |k, value, combine| {
            k.reduce_lanes(value, pieces, block.target, combine)
        });
        let (block_index, place) = split(k, index, pieces);
        let record = k.mul_const(block_index, RECORD.into());
        let record = k.offset_u32(block.shared, record);
        let offset = self.fixed_offset() + row * self.fixed_row_bytes();
        let record = k.offset_const(record, offset.into());
        let to = k.element_u32(record, Elem::I32, place);
        k.store(fixed.high, to);
        let to = k.offset_const(to, LOW_BYTES.into());
        k.store(fixed.low, to);
        let zero = k.i32(0);
        let first = k.cmp(Cmp::Eq, place, zero);
        k.if_then(first, |k| {
            let to = k.offset_const(record, FACTORS.into());
            k.store_aligned(fixed.factors, to, 8);
        });
    }
}

/// Four numbers of a block in fixed point.
struct FixedPoint {
    /// Their high and their low bytes.
    high: Value,
    low: Value,
    /// The block's factor and its sum.
    factors: Value,
}

impl FixedPoint {
    /// Of four f32; `reduce` combines an `i32` over the lanes that have the block.
    fn of(
        k: &mut Builder,
        x: Value,
        mut reduce: impl FnMut(&mut Builder, Value, fn(&mut Builder, Value, Value) -> Value) -> Value,
    ) -> FixedPoint {
        // Magnitudes compare as integers, and NaN is the largest.
        let bits = k.bitcast(x, Elem::I32.vec(4));
        let magnitude = k.int(bits.ty, 0x7fff_ffff);
        let magnitudes = k.and(bits, magnitude);
        let smallest = k.i32(SMALLEST.to_bits() as i32);
        let largest = (0..4).fold(smallest, |largest, lane| {
            let magnitude = k.extract(magnitudes, lane);
            k.max(magnitude, largest)
        });
        let largest = reduce(k, largest, |k, a, b| k.max(a, b));
        let largest = k.bitcast(largest, Elem::F32);
        let unit = k.f32(1.0 / LARGEST);
        let factor = k.mul(largest, unit);
        let inverse = k.reciprocal_fast(largest);
        let units = k.f32(LARGEST);
        let inverse = k.mul(inverse, units);
        // Rounds to the last bit of 1.5 · 2²³; 128 more, so that bits 8 to 15 are the high byte of
        // what has a signed low byte.
        let one_and_a_half = 12_582_912.0 + 128.0;
        let rounder = k.float(x.ty, one_and_a_half);
        let inverse = k.splat(inverse, 4);
        let numbers = k.fma(x, inverse, rounder);
        let numbers = k.bitcast(numbers, Elem::I32.vec(4));
        let [a, b, c, d] = [0, 1, 2, 3].map(|lane| k.extract(numbers, lane));
        // Bytes 0 of both, then bytes 1.
        let (first, second) =
            (k.permute_bytes(b, a, 0x0501_0400), k.permute_bytes(d, c, 0x0501_0400));
        let low = k.permute_bytes(second, first, 0x0504_0100);
        let high = k.permute_bytes(second, first, 0x0706_0302);
        let sign = k.i32(0x8080_8080_u32 as i32);
        let low = k.xor(low, sign);
        let sums = [k.add(a, b), k.add(c, d)];
        let sum = k.add(sums[0], sums[1]);
        let sum = reduce(k, sum, |k, a, b| k.add(a, b));
        let bias = (one_and_a_half as f32).to_bits().wrapping_mul(BLOCK);
        let sum = k.add_const(sum, -i64::from(bias as i32));
        let sum = k.sitofp(sum, Elem::F32);
        let sum = k.mul(sum, factor);
        let factors = k.splat(factor, 2);
        FixedPoint { high, low, factors: k.insert(sum, factors, 1) }
    }
}
