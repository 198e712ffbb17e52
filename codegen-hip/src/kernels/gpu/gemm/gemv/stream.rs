//! Streams of weights: loads at full width, and the products with staged rows of x.
//!
//! K is cut into *cells*: what a lane group multiplies at a time, a block of 32 of a quantized form
//! (one chunk of q4, two of q8_0) or one chunk of a plain one. Sixteen cells are a *unit*: four
//! steps of the four lane groups of a wave of 64; a wave of 32 goes twice over a unit. Of a
//! quantized form loads of 16 bytes bring a lane's scales, of a unit or of a pass over it.
//!
//! With q the stored integers, a block is Σ w·x = d·Σ q·x + m·Σ x: scale and minimum are taken out
//! of the sums, and the sums Σ x were made when x was staged. q4_0 is read as it is stored, q + 8:
//! the offset is a minimum of −8·d. x is in fixed point, two signed bytes a number, and Σ q·x two
//! integer sums of which one instruction adds four products: below 2³¹ for all bytes, and exact.

use super::activations::{Activations, FACTORS, LOW_BYTES, RECORD};
use super::tile::TILE_COLUMNS;
use crate::kernels::gpu::gemm::split;
use crate::mlir::{Builder, Elem, Ty, Value};
use crate::pack::gpu::{
    CHUNK_BYTES, GpuLayout, SCALE_LOAD_BYTES, TILE_ROWS, UNIT_BLOCKS, UNIT_GROUPS, UNIT_STEPS,
};
use crate::target::{GpuTarget, MatrixLayout};
use std::collections::VecDeque;
use waveloom_ir::DType;

/// Cells of a unit.
const UNIT_CELLS: u32 = UNIT_BLOCKS as u32;
/// Lane groups that a unit is divided among.
const GROUPS: u32 = UNIT_GROUPS as u32;
/// Cells of a unit that a lane group multiplies.
const STEPS: u32 = UNIT_STEPS as u32;
/// Bytes of a chunk in all rows of a tile.
const ROW_OF_CHUNKS: u32 = (TILE_ROWS * CHUNK_BYTES) as u32;
/// Offsets below this are part of a load.
const IMMEDIATE: u32 = 4096;

/// The weights of a section that have one dtype.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bundle {
    pub dtype: DType,
    /// Their places among the section's weights.
    pub slots: Vec<usize>,
    /// Rows of x.
    rows: u32,
    /// Chunks of a row.
    chunks: u32,
    /// Elements of a chunk.
    chunk_elements: u32,
    /// Bytes of a block's scale, and minimum if it has one.
    scale_bytes: u32,
    /// Parts of the scales of a unit, 16 bytes a row each; none of plain forms.
    scale_parts: u32,
}

/// One tile of one matrix, as uniform addresses.
#[derive(Clone, Copy)]
pub(super) struct Stream {
    /// Its chunks.
    chunks: Value,
    /// Its scales in whole units, and after them.
    scales: Value,
    tail_scales: Value,
}

/// What a lane adds to addresses.
#[derive(Clone, Copy)]
pub(super) struct Lanes {
    /// Column in the tile.
    pub column: Value,
    /// Lane group.
    pub group: Value,
    chunk: Value,
    scale: Value,
    /// Address of its part of the staged x.
    x: Value,
}

/// A range of units of the staged slab.
#[derive(Clone, Copy)]
pub(super) struct Range {
    pub from: Value,
    pub to: Value,
    /// The slab's first unit.
    pub base: Value,
}

/// Loaded chunks and scales, by stream.
#[derive(Clone)]
pub(super) struct Loaded {
    chunks: Vec<Vec<Value>>,
    scales: Vec<Vec<Value>>,
}

/// A cell of a lane in a unit or in the tail.
#[derive(Clone, Copy)]
struct CellAt {
    /// Its number in the unit in lane group 0.
    index: u32,
    /// Which of the loaded scales, and which entry of it, is its.
    scale: (usize, u32),
}

/// Some numbers of a cell, at most 16, that come from one chunk.
#[derive(Clone, Copy)]
struct Group {
    /// The cell, among those at hand.
    cell: usize,
    /// The loaded chunk, among a stream's.
    chunk: usize,
    part: ChunkPart,
    /// Bytes of x from the start of the unit.
    x: u32,
    /// Whether it is the last of its cell.
    last: bool,
}

/// What of a chunk is multiplied.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ChunkPart {
    All,
    /// The low halves of all bytes.
    Low,
    /// The high halves.
    High,
}

/// Loads of the unit after the one that is multiplied.
struct Next {
    /// What lanes add to addresses of chunks and of scales.
    offsets: [Value; 2],
    loaded: Loaded,
}

/// Code for one bundle in one wave.
#[derive(Clone)]
pub(super) struct Wave<'a> {
    pub bundle: &'a Bundle,
    pub activations: &'a Activations,
    pub target: &'a GpuTarget,
    pub streams: &'a [Stream],
    pub lanes: Lanes,
}

impl Bundle {
    pub fn new(layout: &GpuLayout, slot: usize, rows: u32) -> Bundle {
        Bundle {
            dtype: layout.dtype,
            slots: vec![slot],
            rows,
            chunks: layout.chunks() as u32,
            chunk_elements: layout.chunk_elements() as u32,
            scale_bytes: layout.scale_bytes() as u32,
            scale_parts: if layout.dtype.is_block() { layout.scale_parts() as u32 } else { 0 },
        }
    }

    /// Chunks of a cell.
    fn cell_chunks(&self) -> u32 {
        if self.dtype == DType::Q8_0 { 2 } else { 1 }
    }

    fn cell_elements(&self) -> u32 {
        self.cell_chunks() * self.chunk_elements
    }

    fn cell_bytes(&self) -> u32 {
        self.cell_chunks() * ROW_OF_CHUNKS
    }

    fn cells(&self) -> u32 {
        self.chunks / self.cell_chunks()
    }

    /// Elements of a unit.
    pub fn unit_elements(&self) -> u32 {
        UNIT_CELLS * self.cell_elements()
    }

    /// Whole units.
    pub fn units(&self) -> u32 {
        self.cells() / UNIT_CELLS
    }

    /// Cells beyond whole units.
    pub fn tail_cells(&self) -> u32 {
        self.cells() % UNIT_CELLS
    }

    /// Bytes of the scales of a unit of a tile.
    fn unit_scale_bytes(&self) -> u32 {
        UNIT_CELLS * TILE_ROWS as u32 * self.scale_bytes
    }

    /// Loads of x for a group: of plain forms four numbers each, of quantized ones high bytes and
    /// low bytes of 16.
    fn x_pieces(&self) -> u32 {
        if self.dtype.is_block() { 2 } else { self.chunk_elements / 4 }
    }

    /// Loads of scales in a unit, per stream.
    fn scale_loads(&self, target: &GpuTarget) -> u32 {
        self.scale_parts.div_ceil(target.groups())
    }

    /// Groups whose x is read ahead: 16 registers of it.
    fn groups_ahead(&self) -> u32 {
        4 / self.x_pieces()
    }

    /// Vector registers of the sums of `streams` streams.
    pub fn sum_registers(&self, streams: u32) -> u32 {
        streams * self.rows * self.sum_type().lanes.max(1)
    }

    /// Vector registers of `streams` streams' loads under way: a unit of chunks, with its scales.
    pub fn loads_registers(&self, streams: u32, target: &GpuTarget) -> u32 {
        let chunks = UNIT_CELLS / target.groups() * self.cell_chunks();
        streams * 4 * (chunks + self.scale_loads(target))
    }

    /// Vector registers for multiplying them, besides loads and sums: scales in use while the next
    /// ones are loaded, a group of weights, sums of a block that has been begun, and x.
    pub fn product_registers(&self, streams: u32, target: &GpuTarget) -> u32 {
        let scales = 4 * self.scale_loads(target).min(1);
        let weights = if self.dtype.is_block() { 4 } else { self.chunk_elements };
        let begun = if self.dtype.is_block() { 2 * self.rows } else { 0 };
        let x = 4 * self.x_pieces() * (self.groups_ahead() + 1);
        // The tail is loaded before the last unit is multiplied.
        let cells = self.tail_cells().div_ceil(target.groups());
        let tail = cells * (4 * self.cell_chunks() + self.scale_bytes.div_ceil(4));
        streams * (scales + weights + begun + tail) + x
    }

    /// Type of a sum: of quantized forms a number, of plain ones four that are added at the end.
    pub fn sum_type(&self) -> Ty {
        if self.dtype.is_block() { Elem::F32.scalar() } else { Elem::F32.vec(4) }
    }

    /// Tile `tile` (an `i32`) of the matrix whose chunks, scales and tail of scales are at `bases`.
    pub fn stream(&self, k: &mut Builder, bases: [Value; 3], tile: Value) -> Stream {
        let tile = k.zext(tile, Elem::I64);
        let tile_bytes = [
            self.chunks * ROW_OF_CHUNKS,
            self.units() * self.unit_scale_bytes(),
            self.tail_cells() * TILE_ROWS as u32 * self.scale_bytes,
        ];
        let mut at = bases;
        for (at, bytes) in at.iter_mut().zip(tile_bytes) {
            let bytes = k.mul_const(tile, bytes.into());
            *at = k.offset(*at, bytes);
        }
        let [chunks, scales, tail_scales] = at;
        Stream { chunks, scales, tail_scales }
    }

    /// What lanes add to addresses; `shared` is where x is staged. This is bundle `place` of its
    /// section: LLVM must not see that bundles read the same x, which it would keep in registers
    /// from one to the next.
    pub fn lanes(
        &self,
        k: &mut Builder,
        activations: &Activations,
        target: &GpuTarget,
        shared: Value,
        place: usize,
    ) -> Lanes {
        let lane = k.lane(target);
        let sixteen = k.i32(TILE_COLUMNS as i32 - 1);
        let column = k.and(lane, sixteen);
        let four = k.i32(4);
        let group = k.shr_u(lane, four);
        let of_group = k.mul_const(group, self.cell_bytes().into());
        let of_column = k.mul_const(column, CHUNK_BYTES as i64);
        let chunk = k.add(of_group, of_column);
        // More lane groups than parts share them.
        let lanes = self.scale_parts.clamp(1, target.groups()) * TILE_ROWS as u32;
        let (_, reader) = split(k, lane, lanes);
        let scale = k.mul_const(reader, SCALE_LOAD_BYTES as i64);
        let reader = (0..place).fold(group, |group, _| k.opaque(group));
        let x = if self.dtype.is_block() {
            let records = k.mul_const(reader, RECORD.into());
            let x = k.offset_u32(shared, records);
            k.offset_const(x, activations.fixed_offset().into())
        } else {
            let x = k.mul_const(reader, self.cell_elements().into());
            let x = activations.padded_value(k, x);
            k.element_u32(shared, Elem::F32, x)
        };
        Lanes { column, group, chunk, scale, x }
    }
}

impl<'a> Wave<'a> {
    /// The same, of which nothing is loaded before there is `sum`.
    pub fn after(&self, k: &mut Builder, sum: Value) -> Wave<'a> {
        let Lanes { column, group, chunk, scale, x } = self.lanes;
        let [column, group, chunk, scale] =
            [column, group, chunk, scale].map(|value| k.after(value, sum));
        let elsewhere = k.i32(0);
        let elsewhere = k.after(elsewhere, sum);
        let x = k.offset_u32(x, elsewhere);
        Wave { lanes: Lanes { column, group, chunk, scale, x }, ..self.clone() }
    }

    /// Times that the wave goes over a unit.
    fn passes(&self) -> u32 {
        GROUPS / self.target.groups()
    }

    /// The cells of a lane in a unit, in the order in which they are multiplied.
    fn cells(&self) -> Vec<CellAt> {
        let groups = self.target.groups();
        (0..self.passes() * STEPS)
            .map(|i| {
                let (pass, step) = (i / STEPS, i % STEPS);
                let scale = match self.bundle.scale_loads(self.target) == self.passes() {
                    true => (pass as usize, step),
                    false => (0, pass * STEPS + step),
                };
                CellAt { index: GROUPS * step + groups * pass, scale }
            })
            .collect()
    }

    /// What lanes add to addresses in unit `unit`: chunks, scales. LLVM must not see how they
    /// change: it would have a 64-bit address of every lane instead.
    fn offsets(&self, k: &mut Builder, unit: Value) -> [Value; 2] {
        let bundle = self.bundle;
        let strides = [UNIT_CELLS * bundle.cell_bytes(), bundle.unit_scale_bytes()];
        let lanes = [self.lanes.chunk, self.lanes.scale];
        [0, 1].map(|i| {
            let before = k.mul_const(unit, strides[i].into());
            let offset = k.add(lanes[i], before);
            k.opaque(offset)
        })
    }

    /// Starts loading unit `unit`.
    pub fn first_loads(&self, k: &mut Builder, unit: Value) -> Loaded {
        let offsets = self.offsets(k, unit);
        let chunks = self.passes() * STEPS * self.bundle.cell_chunks();
        let loads = self.bundle.scale_loads(self.target);
        let scales = self.streams.iter().map(|stream| {
            (0..loads).map(|load| self.load_scales(k, stream, offsets[1], load)).collect()
        });
        let scales = scales.collect();
        // They are needed first: behind chunks they would be waited for together with all of those.
        k.schedule_barrier();
        let chunks = self.streams.iter().map(|stream| {
            (0..chunks).map(|chunk| self.load_unit_chunk(k, stream, offsets[0], chunk)).collect()
        });
        let loaded = Loaded { chunks: chunks.collect(), scales };
        k.schedule_barrier();
        loaded
    }

    /// Loads a lane's chunk `index` of a unit.
    fn load_unit_chunk(&self, k: &mut Builder, stream: &Stream, lane: Value, index: u32) -> Value {
        let bundle = self.bundle;
        let (cell, half) = (index / bundle.cell_chunks(), index % bundle.cell_chunks());
        let cell = self.cells()[cell as usize].index;
        let offset = cell * bundle.cell_bytes() + half * ROW_OF_CHUNKS;
        self.load_chunk(k, stream, lane, offset)
    }

    /// Starts load `load` of a lane's scales in a unit.
    fn load_scales(&self, k: &mut Builder, stream: &Stream, lane: Value, load: u32) -> Value {
        let bytes = SCALE_LOAD_BYTES as u32;
        let before = load * self.target.wave * bytes;
        let at = k.offset_u32(stream.scales, lane);
        let at = k.offset_const(at, before.into());
        k.load_streamed(at, Elem::I32.vec(bytes / 4), bytes)
    }

    /// Of loaded scales those that lanes use, where more lane groups than parts share them.
    fn own_scales(&self, k: &mut Builder, scales: &[Vec<Value>]) -> Vec<Vec<Value>> {
        if self.target.groups() <= self.bundle.scale_parts {
            return scales.to_vec();
        }
        let parts = k.i32(self.bundle.scale_parts as i32);
        let first = k.below(self.lanes.group, parts);
        let own = |k: &mut Builder, loaded: Value| {
            let half = loaded.ty.lanes / 2;
            let [low, high] = [0, half].map(|from| k.slice(loaded, from, half));
            k.select(first, low, high)
        };
        scales.iter().map(|of_stream| of_stream.iter().map(|&s| own(k, s)).collect()).collect()
    }

    /// Loads 16 bytes at `lane` (by lane) and `offset` of a stream: a 32-bit sum, and what is left
    /// of the offset in the instruction.
    fn load_chunk(&self, k: &mut Builder, stream: &Stream, lane: Value, offset: u32) -> Value {
        let lane = k.add_const(lane, (offset / IMMEDIATE * IMMEDIATE).into());
        let at = k.offset_u32(stream.chunks, lane);
        let at = k.offset_const(at, (offset % IMMEDIATE).into());
        k.load_streamed(at, Elem::I32.vec(4), CHUNK_BYTES as u32)
    }

    /// Adds the products with the units of `range`, at least one, of which the first is `loaded`;
    /// runs `meanwhile` before the last is multiplied. What has been multiplied is loaded anew from
    /// the next unit at once, into the same registers: a whole unit is always under way.
    pub fn units(
        &self,
        k: &mut Builder,
        range: Range,
        loaded: Loaded,
        sums: &[Value],
        meanwhile: impl FnOnce(&mut Builder),
    ) -> Vec<Value> {
        let last = k.add_const(range.to, -1);
        let carried: Vec<Value> = loaded.values().into_iter().chain(sums.iter().copied()).collect();
        let count = carried.len() - sums.len();
        let carried = k.for_values(range.from, last, 1, &carried, |k, unit, carried| {
            let (now, sums) = carried.split_at(count);
            let now = loaded.with_values(now);
            let after = k.add_const(unit, 1);
            let mut next = Next { offsets: self.offsets(k, after), loaded: now.clone() };
            let sums = self.unit(k, unit, range.base, &now, sums, Some(&mut next));
            next.loaded.values().into_iter().chain(sums).collect()
        });
        let (now, sums) = carried.split_at(count);
        meanwhile(k);
        self.unit(k, last, range.base, &loaded.with_values(now), sums, None)
    }

    /// Adds the products with a loaded unit, and loads the next.
    fn unit(
        &self,
        k: &mut Builder,
        unit: Value,
        base: Value,
        loaded: &Loaded,
        sums: &[Value],
        next: Option<&mut Next>,
    ) -> Vec<Value> {
        let at = k.sub(unit, base);
        let scales = self.own_scales(k, &loaded.scales);
        let loaded = Loaded { chunks: loaded.chunks.clone(), scales };
        self.multiply(k, at, &self.cells(), &loaded, sums, next)
    }

    /// The groups of cells, in the order in which they are multiplied.
    fn groups(&self, cells: &[CellAt]) -> Vec<Group> {
        let bundle = self.bundle;
        let mut groups = vec![];
        for (cell, at) in cells.iter().enumerate() {
            let first = cell * bundle.cell_chunks() as usize;
            let x = self.x_bytes(at.index);
            let all = Group { cell, chunk: first, part: ChunkPart::All, x, last: true };
            match bundle.dtype {
                DType::Q4_0 | DType::Q4_1 => {
                    groups.push(Group { part: ChunkPart::Low, last: false, ..all });
                    groups.push(Group { part: ChunkPart::High, x: x + 16, ..all });
                }
                DType::Q8_0 => {
                    groups.push(Group { last: false, ..all });
                    groups.push(Group { chunk: first + 1, x: x + 16, ..all });
                }
                _ => groups.push(all),
            }
        }
        groups
    }

    /// Adds the products with loaded cells of unit `at` of the slab. Group after group, and in each
    /// row after row; x is read some groups ahead, and no further, since registers are few.
    fn multiply(
        &self,
        k: &mut Builder,
        at: Value,
        cells: &[CellAt],
        loaded: &Loaded,
        sums: &[Value],
        mut next: Option<&mut Next>,
    ) -> Vec<Value> {
        let bundle = self.bundle;
        let bytes = k.mul_const(at, self.x_bytes(UNIT_CELLS).into());
        let x_of_unit = k.offset_u32(self.lanes.x, bytes);
        let groups = self.groups(cells);
        let turns: Vec<(Group, u32)> = groups
            .iter()
            .flat_map(|group| (0..bundle.rows).map(move |row| (*group, row)))
            .collect();
        let ahead = (bundle.groups_ahead() as usize).min(turns.len());
        let mut sums = sums.to_vec();
        let mut x: VecDeque<Activation> = VecDeque::new();
        let mut weights: Vec<Vec<Value>> = vec![];
        // Sums over the first group of a block, of high and of low bytes, by stream and row.
        let mut begun = vec![None; sums.len()];
        if self.bundle.scale_loads(self.target) == 1 {
            self.reload_scales(k, &mut next, 0);
        }
        for turn in 0..turns.len() + ahead {
            if let Some(&(group, row)) = turns.get(turn) {
                x.push_back(self.read_x(k, x_of_unit, cells, group, row));
            }
            let Some(&(group, row)) = turn.checked_sub(ahead).and_then(|i| turns.get(i)) else {
                continue;
            };
            let Some(x) = x.pop_front() else { continue };
            if row == 0 {
                let chunks = loaded.chunks.iter().map(|chunks| chunks[group.chunk]);
                weights = chunks.map(|chunk| self.weights(k, chunk, group.part)).collect();
            }
            let scale = cells[group.cell].scale;
            for (stream, weights) in weights.iter().enumerate() {
                let place = stream * bundle.rows as usize + row as usize;
                if !bundle.dtype.is_block() {
                    sums[place] = self.plain(k, weights, &x.pieces, sums[place]);
                    continue;
                }
                let products = self.dots(k, weights[0], &x.pieces, begun[place].take());
                match x.factors {
                    Some(factors) => {
                        let scale = self.scale(k, loaded.scales[stream][scale.0], scale.1);
                        sums[place] = self.block(k, products, &scale, factors, sums[place]);
                    }
                    None => begun[place] = Some(products),
                }
            }
            if row + 1 == bundle.rows {
                self.reload(k, &mut next, group, scale);
            }
            k.schedule_barrier();
        }
        sums
    }

    /// Bytes of staged x before cell `cell` of a unit.
    fn x_bytes(&self, cell: u32) -> u32 {
        match self.bundle.dtype.is_block() {
            true => cell * RECORD,
            false => 4 * self.activations.padded(cell * self.bundle.cell_elements()),
        }
    }

    /// Reads what a group is multiplied with of a row and, for the last group of a block, its
    /// factor and its sum.
    fn read_x(
        &self,
        k: &mut Builder,
        x: Value,
        cells: &[CellAt],
        group: Group,
        row: u32,
    ) -> Activation {
        let fixed = self.bundle.dtype.is_block();
        let (elem, step, row_bytes) = match fixed {
            true => (Elem::I32, LOW_BYTES, self.activations.fixed_row_bytes()),
            false => (Elem::F32, 16, self.activations.plain_row_bytes()),
        };
        let row = k.offset_const(x, (row * row_bytes).into());
        let pieces = (0..self.bundle.x_pieces())
            .map(|piece| {
                let at = k.offset_const(row, (group.x + step * piece).into());
                k.load_aligned(at, elem.vec(4), 16)
            })
            .collect();
        let factors = (fixed && group.last).then(|| {
            let record = cells[group.cell].index * RECORD;
            let at = k.offset_const(row, (record + FACTORS).into());
            k.load_aligned(at, Elem::F32.vec(2), 8)
        });
        Activation { pieces, factors }
    }

    /// Loads the next unit's chunk in place of one that has been multiplied, and the scales in place
    /// of those whose pass is over.
    fn reload(
        &self,
        k: &mut Builder,
        next: &mut Option<&mut Next>,
        group: Group,
        scale: (usize, u32),
    ) {
        let Some(Next { offsets, loaded }) = next else { return };
        if group.part != ChunkPart::Low {
            for (stream, chunks) in self.streams.iter().zip(&mut loaded.chunks) {
                let index = group.chunk as u32;
                chunks[group.chunk] = self.load_unit_chunk(k, stream, offsets[0], index);
            }
        }
        if self.bundle.scale_loads(self.target) > 1 && group.last && scale.1 + 1 == STEPS {
            self.reload_scales(k, next, scale.0);
        }
    }

    fn reload_scales(&self, k: &mut Builder, next: &mut Option<&mut Next>, load: usize) {
        let Some(Next { offsets, loaded }) = next else { return };
        for (stream, scales) in self.streams.iter().zip(&mut loaded.scales) {
            scales[load] = self.load_scales(k, stream, offsets[1], load as u32);
        }
    }

    /// Scale and, of q4_1, minimum in entry `index` of loaded ones.
    fn scale(&self, k: &mut Builder, scales: Value, index: u32) -> Scale {
        let halves = scales.ty.bytes() / 2;
        let halves = k.bitcast(scales, Elem::F16.vec(halves));
        let mut number = |index| {
            let half = k.extract(halves, index);
            k.extf(half, Elem::F32)
        };
        match self.bundle.dtype {
            DType::Q4_1 => Scale { d: number(2 * index), m: Some(number(2 * index + 1)) },
            _ => Scale { d: number(index), m: None },
        }
    }

    /// The numbers of a part of a chunk in the order of x: as f32, four at a time, or as 16 signed
    /// bytes.
    fn weights(&self, k: &mut Builder, chunk: Value, part: ChunkPart) -> Vec<Value> {
        match (self.bundle.dtype, part) {
            (DType::F32, _) => vec![k.bitcast(chunk, Elem::F32.vec(4))],
            (DType::F16, _) => halves(k, chunk, Elem::F16, |k, four| k.extf(four, Elem::F32)),
            (DType::BF16, _) => halves(k, chunk, Elem::I16, |k, four| k.bf16_to_f32(four)),
            (_, ChunkPart::All) => vec![chunk],
            (_, part) => {
                let halves = match part {
                    ChunkPart::High => {
                        let four = k.int(chunk.ty, 4);
                        k.shr_u(chunk, four)
                    }
                    _ => chunk,
                };
                let mask = k.int(chunk.ty, 0x0f0f_0f0f);
                vec![k.and(halves, mask)]
            }
        }
    }

    /// `sum` and the products of a group of a plain form.
    fn plain(&self, k: &mut Builder, weights: &[Value], x: &[Value], mut sum: Value) -> Value {
        // Multiply-adds that widen one factor exist by themselves, those of pairs do not.
        let widens = self.bundle.dtype == DType::F16 && self.target.layout == MatrixLayout::Mfma;
        for (&weight, &x) in weights.iter().zip(x) {
            if !widens {
                sum = k.fma(weight, x, sum);
                continue;
            }
            for lane in 0..4 {
                let [a, b, c] = [weight, x, sum].map(|v| k.extract(v, lane));
                let c = k.fma(a, b, c);
                sum = k.insert(c, sum, lane);
            }
        }
        sum
    }

    /// Σ weight · x of a group, after those of the block that have been `begun`: of high bytes of x
    /// and of low ones, as `i32`.
    fn dots(
        &self,
        k: &mut Builder,
        weights: Value,
        x: &[Value],
        begun: Option<[Value; 2]>,
    ) -> [Value; 2] {
        let zero = k.i32(0);
        let mut sums = begun.unwrap_or([zero; 2]);
        for word in 0..4 {
            let weights = k.extract(weights, word);
            for (sum, &x) in sums.iter_mut().zip(x) {
                let x = k.extract(x, word);
                *sum = k.dot4(weights, x, *sum, self.target);
            }
        }
        sums
    }

    /// `sum` and the products of a block, whose stored numbers give `products`, of high and of low
    /// bytes of x; `factors` are x's factor and sum.
    fn block(
        &self,
        k: &mut Builder,
        products: [Value; 2],
        scale: &Scale,
        factors: Value,
        sum: Value,
    ) -> Value {
        let [factor, block_sum] = [0, 1].map(|i| k.extract(factors, i));
        let [high, low] = products;
        let eight = k.i32(8);
        let high = k.shl(high, eight);
        let products = k.add(high, low);
        let products = k.sitofp(products, Elem::F32);
        let products = match self.bundle.dtype {
            DType::Q4_0 => {
                let offset = k.f32(-8.0);
                let offset = k.mul(offset, block_sum);
                k.fma(products, factor, offset)
            }
            _ => k.mul(products, factor),
        };
        let sum = k.fma(scale.d, products, sum);
        match scale.m {
            None => sum,
            Some(m) => k.fma(m, block_sum, sum),
        }
    }

    /// Starts loading the cells beyond whole units; lanes beyond the last cell get zeros.
    pub fn load_tail(&self, k: &mut Builder) -> Loaded {
        let bundle = self.bundle;
        let streams = self.streams.len();
        let mut loaded = Loaded { chunks: vec![vec![]; streams], scales: vec![vec![]; streams] };
        for at in self.tail() {
            let cell = k.add_const(self.lanes.group, at.index.into());
            let load = |k: &mut Builder| -> Vec<Value> {
                let of_stream = |stream| self.load_tail_cell(k, stream, cell);
                self.streams.iter().flat_map(of_stream).collect()
            };
            let values = match at.index + self.target.groups() <= bundle.tail_cells() {
                true => load(k),
                false => {
                    let end = k.i32(bundle.tail_cells() as i32);
                    let exists = k.below(cell, end);
                    let zeros = |k: &mut Builder| -> Vec<Value> {
                        let types = self.tail_types();
                        (0..streams).flat_map(|_| types.clone()).map(|ty| k.zero(ty)).collect()
                    };
                    k.if_values(exists, load, zeros)
                }
            };
            let per_stream = values.len() / streams;
            for (stream, values) in values.chunks_exact(per_stream).enumerate() {
                let (chunks, scales) = values.split_at(bundle.cell_chunks() as usize);
                loaded.chunks[stream].extend(chunks);
                loaded.scales[stream].extend(scales);
            }
        }
        k.schedule_barrier();
        loaded
    }

    /// Loads the chunks, and the scale, of cell `cell` of the tail.
    fn load_tail_cell(&self, k: &mut Builder, stream: &Stream, cell: Value) -> Vec<Value> {
        let bundle = self.bundle;
        let before = bundle.units() * UNIT_CELLS * bundle.cell_bytes();
        let bytes = k.mul_const(cell, bundle.cell_bytes().into());
        let column = k.mul_const(self.lanes.column, CHUNK_BYTES as i64);
        let lane = k.add(bytes, column);
        let mut loaded: Vec<Value> = (0..bundle.cell_chunks())
            .map(|half| self.load_chunk(k, stream, lane, before + half * ROW_OF_CHUNKS))
            .collect();
        if bundle.scale_bytes > 0 {
            let row = k.mul_const(cell, TILE_ROWS as i64);
            let entry = k.add(row, self.lanes.column);
            let bytes = k.mul_const(entry, bundle.scale_bytes.into());
            let at = k.offset_u32(stream.tail_scales, bytes);
            let ty = Elem::F16.vec(bundle.scale_bytes / 2);
            loaded.push(k.load_streamed(at, ty, bundle.scale_bytes));
        }
        loaded
    }

    /// Types of what [`Wave::load_tail_cell`] loads.
    fn tail_types(&self) -> Vec<Ty> {
        let bundle = self.bundle;
        let mut types = vec![Elem::I32.vec(4); bundle.cell_chunks() as usize];
        if bundle.scale_bytes > 0 {
            types.push(Elem::F16.vec(bundle.scale_bytes / 2));
        }
        types
    }

    /// The cells of a lane in the tail, as far as any lane group has one.
    fn tail(&self) -> Vec<CellAt> {
        let mut cells = self.cells();
        cells.retain(|at| at.index < self.bundle.tail_cells());
        for (index, at) in cells.iter_mut().enumerate() {
            at.scale = (index, 0);
        }
        cells
    }

    /// Adds the products with the tail, `loaded` before. x is zero beyond its last element.
    pub fn multiply_tail(
        &self,
        k: &mut Builder,
        base: Value,
        loaded: &Loaded,
        sums: &[Value],
    ) -> Vec<Value> {
        let units = k.i32(self.bundle.units() as i32);
        let at = k.sub(units, base);
        self.multiply(k, at, &self.tail(), loaded, sums, None)
    }
}

impl Loaded {
    fn values(&self) -> Vec<Value> {
        self.chunks.iter().chain(&self.scales).flatten().copied().collect()
    }

    /// Other values in the places of [`Loaded::values`].
    fn with_values(&self, values: &[Value]) -> Loaded {
        let mut values = values.iter().copied();
        let mut like = |lists: &[Vec<Value>]| -> Vec<Vec<Value>> {
            lists.iter().map(|list| values.by_ref().take(list.len()).collect()).collect()
        };
        Loaded { chunks: like(&self.chunks), scales: like(&self.scales) }
    }
}

/// What a group is multiplied with.
struct Activation {
    /// Four numbers at a time, or high bytes and low bytes of 16.
    pieces: Vec<Value>,
    /// Factor and sum of the block that the group ends.
    factors: Option<Value>,
}

/// Of a block.
struct Scale {
    d: Value,
    m: Option<Value>,
}

/// The eight numbers of a chunk as f32, four at a time.
fn halves(
    k: &mut Builder,
    chunk: Value,
    elem: Elem,
    widen: impl Fn(&mut Builder, Value) -> Value,
) -> Vec<Value> {
    let eight = k.bitcast(chunk, elem.vec(8));
    [0, 4]
        .map(|first| {
            let four = k.slice(eight, first, 4);
            widen(k, four)
        })
        .to_vec()
}
