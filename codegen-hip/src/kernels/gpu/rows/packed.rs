//! A row of a packed matrix, as f32: for `embed`.

use crate::kernels::real;
use crate::mlir::builder::Cmp;
use crate::mlir::{Builder, Elem, Value};
use crate::pack::gpu::{
    BLOCK, CHUNK_BYTES, GpuLayout, TILE_ROWS, UNIT_BLOCKS, UNIT_GROUPS, UNIT_STEPS,
};
use crate::target::GpuTarget;
use waveloom_ir::DType;

/// Most work-items of a workgroup.
const WORKGROUP: u64 = 256;

/// One row of a packed matrix: every 16th chunk of its tile.
pub(super) struct PackedRow {
    layout: GpuLayout,
    table: Value,
    /// `row / 16` and `row % 16`, `i64`: the same in all lanes.
    tile: Value,
    row: Value,
}

impl PackedRow {
    /// Work-items that share a row: a chunk each, at once.
    pub fn workgroup(layout: GpuLayout, target: &GpuTarget) -> u32 {
        (layout.chunks().min(WORKGROUP) as u32).next_multiple_of(target.wave)
    }

    /// Registers of a work-item: a chunk, its elements as f32, and what leads to them.
    pub fn registers(layout: GpuLayout) -> u32 {
        (CHUNK_BYTES / 4) as u32 + layout.chunk_elements() as u32 + super::BESIDES
    }

    pub fn new(k: &mut Builder, layout: GpuLayout, table: Value, row: Value) -> PackedRow {
        let rows = k.i64(TILE_ROWS as i64);
        PackedRow { layout, table, tile: k.udiv(row, rows), row: k.rem(row, rows) }
    }

    /// Writes the row to `to`, chunk by chunk.
    pub fn unpack(&self, k: &mut Builder, to: Value, workgroup: u32) {
        let tile = k.mul_const(self.tile, self.layout.tile_bytes() as i64);
        let row = k.mul_const(self.row, CHUNK_BYTES as i64);
        let offset = k.add(tile, row);
        let from = k.offset(self.table, offset);
        let (thread, chunks) = (k.thread(), k.i32(self.layout.chunks() as i32));
        k.for_strided(thread, chunks, workgroup, |k, chunk| {
            let offset = k.mul_const(chunk, (TILE_ROWS * CHUNK_BYTES) as i64);
            let at = k.offset_u32(from, offset);
            let bytes = k.load_aligned(at, Elem::I32.vec(4), CHUNK_BYTES as u32);
            let column = k.mul_const(chunk, self.layout.chunk_elements() as i64);
            match self.layout.dtype {
                DType::F32 => self.plain(k, Elem::F32, bytes, to, column),
                DType::F16 => self.plain(k, Elem::F16, bytes, to, column),
                DType::BF16 => self.plain(k, Elem::I16, bytes, to, column),
                _ => self.blocks(k, bytes, to, chunk, column),
            }
        });
    }

    /// Writes the elements of a chunk of plain numbers that are within the row.
    fn plain(&self, k: &mut Builder, elem: Elem, bytes: Value, to: Value, column: Value) {
        let lanes = self.layout.chunk_elements() as u32;
        let numbers = k.bitcast(bytes, elem.vec(lanes));
        let numbers = real::widen(k, numbers);
        if self.layout.cols.is_multiple_of(lanes.into()) {
            return store(k, numbers, to, column);
        }
        for lane in 0..lanes {
            let column = k.add_const(column, lane.into());
            let end = k.i32(self.layout.cols as i32);
            let within = k.below(column, end);
            let number = k.extract(numbers, lane);
            k.if_then(within, |k| {
                let at = k.element_u32(to, Elem::F32, column);
                k.store(number, at);
            });
        }
    }

    /// Writes the elements of a chunk of a quantized form.
    fn blocks(&self, k: &mut Builder, bytes: Value, to: Value, chunk: Value, column: Value) {
        let chunks_per_block = (BLOCK / self.layout.chunk_elements()) as i32;
        let divisor = k.i32(chunks_per_block);
        let block = k.udiv(chunk, divisor);
        let (scale, minimum) = self.scales(k, block);
        let bytes = k.bitcast(bytes, Elem::I8.vec(16));
        for (first, quants) in self.quants(k, bytes) {
            let numbers = k.sitofp(quants, Elem::F32);
            let scale = k.splat(scale, 16);
            let mut numbers = k.mul(numbers, scale);
            if let Some(minimum) = minimum {
                let minimum = k.splat(minimum, 16);
                numbers = k.add(numbers, minimum);
            }
            let column = k.add_const(column, first);
            store(k, numbers, to, column);
        }
    }

    /// What 16 bytes hold: the first column, and the quants of it and those after it, as `i32`.
    fn quants(&self, k: &mut Builder, bytes: Value) -> Vec<(i64, Value)> {
        if self.layout.dtype == DType::Q8_0 {
            return vec![(0, k.sext(bytes, Elem::I32))];
        }
        let bytes = k.zext(bytes, Elem::I32);
        let (mask, shift) = (k.int(bytes.ty, 15), k.int(bytes.ty, 4));
        let (low, high) = (k.and(bytes, mask), k.shr_u(bytes, shift));
        let center = if self.layout.dtype == DType::Q4_0 { -8 } else { 0 };
        [(0, low), (16, high)].map(|(first, quants)| (first, k.add_const(quants, center))).into()
    }

    /// Scale, and minimum where the form has one, of block `block` (`i32`): see
    /// [`GpuLayout::scale_offset`].
    fn scales(&self, k: &mut Builder, block: Value) -> (Value, Option<Value>) {
        let layout = self.layout;
        let whole = (layout.units() * UNIT_BLOCKS) as i64;
        // In a unit: (unit, group % parts, row, group / parts, step).
        let [unit, groups, parts, sixteen] =
            [UNIT_BLOCKS, UNIT_GROUPS, layout.scale_parts(), TILE_ROWS].map(|n| k.i32(n as i32));
        let row = k.trunc(self.row, Elem::I32);
        let (index, in_unit) = (k.udiv(block, unit), k.rem(block, unit));
        let (group, step) = (k.rem(in_unit, groups), k.udiv(in_unit, groups));
        let (part, before) = (k.rem(group, parts), k.udiv(group, parts));
        let entry = k.mul(index, parts);
        let entry = k.add(entry, part);
        let entry = k.mul(entry, sixteen);
        let entry = k.add(entry, row);
        let entry = k.mul_const(entry, layout.scale_run() as i64);
        let before = k.mul_const(before, UNIT_STEPS as i64);
        let entry = k.add(entry, before);
        let entry = k.add(entry, step);
        let of_unit = self.entry(k, layout.scales_offset(), layout.units() * UNIT_BLOCKS, entry);
        // After the units: (block, row).
        let entry = k.add_const(block, -whole);
        let entry = k.mul(entry, sixteen);
        let entry = k.add(entry, row);
        let of_tail = self.entry(k, layout.tail_offset(), layout.tail_blocks(), entry);
        let whole = k.i32(whole as i32);
        let within = k.cmp(Cmp::Lt, block, whole);
        let offset = k.select(within, of_unit, of_tail);
        let at = k.offset(self.table, offset);
        let scale = real::load(k, Elem::F16, at, 0);
        let minimum = (layout.scale_bytes() == 4).then(|| {
            let at = k.offset_const(at, 2);
            real::load(k, Elem::F16, at, 0)
        });
        (scale, minimum)
    }

    /// Offset in bytes, `i64`, of entry `entry` of this tile, of `blocks` blocks of 16 rows.
    fn entry(&self, k: &mut Builder, offset: u64, blocks: u64, entry: Value) -> Value {
        let before = k.mul_const(self.tile, (blocks * TILE_ROWS) as i64);
        let entry = k.sext(entry, Elem::I64);
        let entry = k.add(before, entry);
        let bytes = k.mul_const(entry, self.layout.scale_bytes() as i64);
        k.add_const(bytes, offset as i64)
    }
}

/// Stores a vector of f32 in parts of 16 bytes, from element `column` on, a multiple of 4.
fn store(k: &mut Builder, numbers: Value, to: Value, column: Value) {
    let at = k.element_u32(to, Elem::F32, column);
    for part in 0..numbers.ty.lanes / 4 {
        let at = k.offset_const(at, 16 * i64::from(part));
        let four = k.slice(numbers, 4 * part, 4);
        k.store_aligned(four, at, 16);
    }
}
