//! Rows of x in the local data share: as f32, times the norm's weight, with the sums that minima
//! of quantized weights are multiplied with.
//!
//! As many elements as there are banks are followed by 16 bytes of padding: lane groups read at
//! distances of 4, 8, 16 or 32 elements, and so never the same banks.

use super::stream::Bundle;
use super::tile::TileConfig;
use crate::kernels::gpu::gemm::{Env, GemmSpec, split};
use crate::mlir::builder::Cmp;
use crate::mlir::{Builder, Elem, Ty, Value};
use crate::target::GpuTarget;

/// Elements of a quantized block.
const BLOCK: u32 = 32;
/// Elements of a padding: 16 bytes.
const PADDING: u32 = 4;
/// Loads of a work-item under way at a time.
const LOADS: u32 = 8;

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
    /// Whether sums over blocks are needed.
    with_sums: bool,
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
        let granule_bytes = granule * (banks + PADDING) / banks * 4 * config.rows;
        let per_slab = (config.slab_bytes / granule_bytes).max(1);
        let slabs = granules.div_ceil(per_slab).max(1);
        let rest = k - granules * granule;
        // Whole steps of four cells of any dtype.
        let capacity = (granules.div_ceil(slabs) * granule + rest).next_multiple_of(4 * BLOCK);
        let with_sums = bundles.iter().any(|bundle| bundle.dtype.is_block());
        Activations { k, banks, rows: config.rows, granule, slabs, capacity, with_sums }
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

    /// Bytes between rows.
    pub fn row_bytes(&self) -> u32 {
        self.padded(self.capacity) * 4
    }

    /// Bytes between the sums of rows.
    pub fn sums_row_bytes(&self) -> u32 {
        (self.capacity / BLOCK).next_multiple_of(4) * 4
    }

    /// Where the sums begin.
    pub fn sums_offset(&self) -> u32 {
        self.rows * self.row_bytes()
    }

    /// Bytes of rows and sums.
    pub fn bytes(&self) -> u32 {
        let sums = if self.with_sums { self.rows * self.sums_row_bytes() } else { 0 };
        self.sums_offset() + sums
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

    /// Stages a slab; runs `meanwhile` when the last loads of x are under way. Adds squares of x to
    /// `squares` if there is a norm.
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
        if batches > 0 {
            squares = k.for_values(zero, end, step, &squares, |k, first, squares| {
                let first = k.add(first, thread);
                let pieces = self.load(k, block, slab, first, together);
                self.store(k, block, &pieces, squares)
            });
        }
        let first = k.add(thread, end);
        let pieces = self.load(k, block, slab, first, turns - batches * together);
        meanwhile(k);
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
        let width = self.width();
        let element = k.mul_const(index, width.into());
        let element = self.padded_value(k, element);
        let to = k.element_u32(block.shared, Elem::F32, element);
        for (row, &x) in rows.iter().enumerate() {
            let to = k.offset_const(to, row as i64 * i64::from(self.row_bytes()));
            k.store_aligned(x, to, 4 * width);
        }
        if !self.with_sums {
            return;
        }
        // Quantized rows are whole blocks: eight pieces each, of neighbouring lanes.
        let sums: Vec<Value> = rows
            .iter()
            .map(|&x| {
                let sum = k.reduce_add(x);
                k.reduce_lanes(sum, BLOCK / width, block.target, |k, a, b| k.add(a, b))
            })
            .collect();
        let (block_index, place) = split(k, index, BLOCK / width);
        let zero = k.i32(0);
        let first = k.cmp(Cmp::Eq, place, zero);
        k.if_then(first, |k| {
            let to = k.element_u32(block.shared, Elem::F32, block_index);
            for (row, &sum) in sums.iter().enumerate() {
                let row = row as u32 * self.sums_row_bytes();
                let to = k.offset_const(to, (self.sums_offset() + row).into());
                k.store(sum, to);
            }
        });
    }
}
