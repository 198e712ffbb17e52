//! Streams of weights: loads at full width, and the products with staged rows of x.
//!
//! K is cut into *cells*: what a lane group multiplies at a time, a block of 32 of a quantized form
//! (one chunk of q4, two of q8_0) or one chunk of a plain one. Sixteen cells are a *unit*: four
//! steps of the four lane groups of a wave of 64; a wave of 32 goes twice over a unit. Of a
//! quantized form one wide load brings a lane's scales of its four steps.
//!
//! With q the stored integers, a block is Σ w·x = d·Σ q·x + m·Σ x: scale and minimum are taken out
//! of the sums, and the sums Σ x were made when x was staged. q8_0 is read as q + 128, and q4_0 as
//! it is stored, q + 8: unsigned bytes become f32 in one instruction, and the offset is a minimum
//! of −128·d or −8·d. The error that this adds is that of a sum whose terms are at most some times
//! larger: within a few units of 2⁻²⁴ of Σ|q + 128|·|x|.

use super::activations::{Activations, padded};
use super::tile::TILE_COLUMNS;
use crate::mlir::{Builder, Elem, Ty, Value};
use crate::pack::amd::{AmdLayout, CHUNK_BYTES, TILE_ROWS, UNIT_BLOCKS, UNIT_GROUPS};
use crate::target::{AmdTarget, MatrixLayout};
use waveloom_ir::DType;

/// Cells of a unit.
const UNIT_CELLS: u32 = UNIT_BLOCKS as u32;
/// Lane groups that a unit is divided among.
const GROUPS: u32 = UNIT_GROUPS as u32;
/// Cells of a unit that a lane group multiplies.
const STEPS: u32 = UNIT_CELLS / GROUPS;
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
    /// Address of its part of the staged x, and of the sums.
    x: Value,
    sums: Value,
}

/// A unit, or the half of it that a wave of 32 lanes multiplies at a time, or a part of the tail.
#[derive(Clone, Copy)]
struct Part {
    /// The first lane group of the unit that the wave stands for.
    first_group: u32,
    /// Cells of a lane.
    steps: u32,
}

/// A range of units of the staged slab.
#[derive(Clone, Copy)]
pub(super) struct Range {
    pub from: Value,
    pub to: Value,
    /// The slab's first unit.
    pub base: Value,
}

/// A loaded part: raw chunks and scales, by stream.
type Loaded = Vec<Value>;

/// Code for one bundle in one wave.
pub(super) struct Wave<'a> {
    pub bundle: &'a Bundle,
    pub activations: &'a Activations,
    pub target: &'a AmdTarget,
    pub streams: &'a [Stream],
    pub lanes: Lanes,
}

impl Bundle {
    pub fn new(layout: &AmdLayout, slot: usize, rows: u32) -> Bundle {
        Bundle {
            dtype: layout.dtype,
            slots: vec![slot],
            rows,
            chunks: layout.chunks() as u32,
            chunk_elements: layout.chunk_elements() as u32,
            scale_bytes: layout.scale_bytes() as u32,
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

    /// Bytes of the scales of a lane's steps.
    fn lane_scale_bytes(&self) -> u32 {
        STEPS * self.scale_bytes
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

    /// What lanes add to addresses; `shared` is where x is staged.
    pub fn lanes(
        &self,
        k: &mut Builder,
        activations: &Activations,
        target: &AmdTarget,
        shared: Value,
    ) -> Lanes {
        let lane = k.lane(target);
        let sixteen = k.i32(TILE_COLUMNS as i32 - 1);
        let column = k.and(lane, sixteen);
        let four = k.i32(4);
        let group = k.shr_u(lane, four);
        let of_group = k.mul_const(group, self.cell_bytes().into());
        let of_column = k.mul_const(column, CHUNK_BYTES as i64);
        let chunk = k.add(of_group, of_column);
        let scale = k.mul_const(lane, self.lane_scale_bytes().into());
        let x = k.mul_const(group, i64::from(4 * padded(self.cell_elements())));
        let x = k.offset_u32(shared, x);
        let sums = k.mul_const(group, i64::from(4 * STEPS));
        let sums = k.offset_u32(shared, sums);
        let sums = k.offset_const(sums, activations.sums_offset().into());
        Lanes { column, group, chunk, scale, x, sums }
    }
}

impl Wave<'_> {
    /// The parts of a unit.
    fn parts(&self) -> Vec<Part> {
        let groups = self.target.groups();
        (0..GROUPS / groups).map(|i| Part { first_group: i * groups, steps: STEPS }).collect()
    }

    /// Bytes from the start of a unit, and of the lane's part, to a cell.
    fn cell_offset(&self, part: Part, step: u32) -> u32 {
        (GROUPS * step + part.first_group) * self.bundle.cell_bytes()
    }

    /// Starts loading the first part of unit `unit`.
    pub fn first_loads(&self, k: &mut Builder, unit: Value) -> Loaded {
        self.load(k, unit, self.parts()[0])
    }

    /// Starts loading a part of unit `unit` of all streams.
    fn load(&self, k: &mut Builder, unit: Value, part: Part) -> Loaded {
        let bundle = self.bundle;
        let before = k.mul_const(unit, (UNIT_CELLS * bundle.cell_bytes()).into());
        let chunk = k.add(self.lanes.chunk, before);
        let before = k.mul_const(unit, bundle.unit_scale_bytes().into());
        let scale = k.add(self.lanes.scale, before);
        let mut loaded = vec![];
        for stream in self.streams {
            for step in 0..part.steps {
                for half in 0..bundle.cell_chunks() {
                    let offset = self.cell_offset(part, step) + half * ROW_OF_CHUNKS;
                    loaded.push(self.load_chunk(k, stream, chunk, offset));
                }
            }
            if bundle.scale_bytes > 0 {
                let group = TILE_ROWS as u32 * bundle.lane_scale_bytes();
                let at = k.offset_u32(stream.scales, scale);
                let at = k.offset_const(at, (part.first_group * group).into());
                let ty = Elem::I32.vec(bundle.lane_scale_bytes() / 4);
                loaded.push(k.load_streamed(at, ty, bundle.lane_scale_bytes()));
            }
        }
        k.schedule_barrier();
        loaded
    }

    /// Loads 16 bytes at `lane` (by lane) and `offset` of a stream: a 32-bit sum, and what is left
    /// of the offset in the instruction.
    fn load_chunk(&self, k: &mut Builder, stream: &Stream, lane: Value, offset: u32) -> Value {
        let lane = k.add_const(lane, (offset / IMMEDIATE * IMMEDIATE).into());
        let at = k.offset_u32(stream.chunks, lane);
        let at = k.offset_const(at, (offset % IMMEDIATE).into());
        k.load_streamed(at, Elem::I32.vec(4), CHUNK_BYTES as u32)
    }

    /// Adds the products with the units of `range`, at least one, whose first part is `loaded`;
    /// runs `meanwhile` before the last part is multiplied.
    pub fn units(
        &self,
        k: &mut Builder,
        range: Range,
        loaded: Loaded,
        sums: &[Value],
        meanwhile: impl FnOnce(&mut Builder),
    ) -> Vec<Value> {
        let last = k.add_const(range.to, -1);
        let raw = loaded.len();
        let carried: Vec<Value> = loaded.iter().chain(sums).copied().collect();
        let carried = k.for_values(range.from, last, 1, &carried, |k, unit, carried| {
            let (loaded, sums) = carried.split_at(raw);
            let mut next = vec![];
            let sums = self.unit(k, unit, range.base, loaded, sums, |k| {
                let after = k.add_const(unit, 1);
                next = self.first_loads(k, after);
            });
            next.into_iter().chain(sums).collect()
        });
        let (loaded, sums) = carried.split_at(raw);
        self.unit(k, last, range.base, loaded, sums, meanwhile)
    }

    /// A unit whose first part is loaded: each further part is loaded before the one ahead of it
    /// is multiplied, and `next` runs before the last.
    fn unit(
        &self,
        k: &mut Builder,
        unit: Value,
        base: Value,
        loaded: &[Value],
        sums: &[Value],
        next: impl FnOnce(&mut Builder),
    ) -> Vec<Value> {
        let at = k.sub(unit, base);
        let parts = self.parts();
        let (mut loaded, mut sums) = (loaded.to_vec(), sums.to_vec());
        for pair in parts.windows(2) {
            let following = self.load(k, unit, pair[1]);
            sums = self.multiply(k, at, pair[0], &loaded, &sums);
            loaded = following;
        }
        next(k);
        self.multiply(k, at, parts[parts.len() - 1], &loaded, &sums)
    }

    /// Adds the products with a loaded part of unit `at` of the slab.
    fn multiply(
        &self,
        k: &mut Builder,
        at: Value,
        part: Part,
        loaded: &[Value],
        sums: &[Value],
    ) -> Vec<Value> {
        let bundle = self.bundle;
        let x = self.x_of_unit(k, at);
        let four = Elem::F32.vec(STEPS);
        let block_sums = self.block_sums(k, at, part, 0, four);
        let mut sums = sums.to_vec();
        let per_stream = loaded.len() / self.streams.len();
        for step in 0..part.steps {
            let cells = loaded
                .chunks_exact(per_stream)
                .map(|stream| {
                    let first = (step * bundle.cell_chunks()) as usize;
                    let chunks = &stream[first..first + bundle.cell_chunks() as usize];
                    let scales = stream.get((part.steps * bundle.cell_chunks()) as usize);
                    let scale = scales.map(|&scales| self.scale(k, scales, step));
                    Cell { weights: self.weights(k, chunks), scale }
                })
                .collect::<Vec<_>>();
            let block_sums: Vec<Value> =
                block_sums.iter().map(|&four| k.extract(four, step)).collect();
            let x = k.offset_const(x, self.x_offset(part, step));
            self.cell(k, x, &block_sums, &cells, &mut sums);
        }
        sums
    }

    /// Address of a lane's part of unit `at` of the staged x.
    fn x_of_unit(&self, k: &mut Builder, at: Value) -> Value {
        let bytes = k.mul_const(at, i64::from(4 * padded(self.bundle.unit_elements())));
        k.offset_u32(self.lanes.x, bytes)
    }

    /// Bytes from there to a step.
    fn x_offset(&self, part: Part, step: u32) -> i64 {
        let element = (GROUPS * step + part.first_group) * self.bundle.cell_elements();
        i64::from(4 * padded(element))
    }

    /// The sums over the blocks of a lane's steps from `step`, of type `ty`, by row of x.
    fn block_sums(&self, k: &mut Builder, at: Value, part: Part, step: u32, ty: Ty) -> Vec<Value> {
        if !self.bundle.dtype.is_block() {
            return vec![];
        }
        let at = k.mul_const(at, i64::from(4 * UNIT_CELLS));
        let at = k.offset_u32(self.lanes.sums, at);
        let at = k.offset_const(at, (part.first_group * 4 * STEPS + 4 * step).into());
        (0..self.bundle.rows)
            .map(|row| {
                let row = row * self.activations.sums_row_bytes();
                let at = k.offset_const(at, row.into());
                k.load_aligned(at, ty, ty.bytes())
            })
            .collect()
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

    /// The numbers of a cell, four at a time, in the order of x. The second half of a q4 cell is 16
    /// times too large.
    fn weights(&self, k: &mut Builder, chunks: &[Value]) -> Vec<Value> {
        match self.bundle.dtype {
            DType::Q4_0 | DType::Q4_1 => {
                let masks = [0x0f0f_0f0f, 0xf0f0_f0f0u32];
                let halves = masks.map(|mask| {
                    let mask = k.int(chunks[0].ty, i64::from(mask as i32));
                    let quarters = k.and(chunks[0], mask);
                    bytes_to_f32(k, quarters)
                });
                halves.concat()
            }
            DType::Q8_0 => {
                let mut weights = vec![];
                for &chunk in chunks {
                    let sign = k.int(chunk.ty, i64::from(0x8080_8080u32 as i32));
                    let unsigned = k.xor(chunk, sign);
                    weights.extend(bytes_to_f32(k, unsigned));
                }
                weights
            }
            DType::F16 => halves(k, chunks[0], Elem::F16, |k, four| k.extf(four, Elem::F32)),
            DType::BF16 => halves(k, chunks[0], Elem::I16, |k, four| k.bf16_to_f32(four)),
            _ => vec![k.bitcast(chunks[0], Elem::F32.vec(4))],
        }
    }

    /// Adds the products of a cell of every stream with x at address `x`.
    fn cell(
        &self,
        k: &mut Builder,
        x: Value,
        block_sums: &[Value],
        cells: &[Cell],
        sums: &mut [Value],
    ) {
        let rows = self.bundle.rows as usize;
        let pieces = cells.first().map_or(0, |cell| cell.weights.len());
        for row in 0..rows {
            let x = k.offset_const(x, row as i64 * i64::from(self.activations.row_bytes()));
            let x: Vec<Value> = (0..pieces)
                .map(|piece| {
                    let at = k.offset_const(x, 16 * piece as i64);
                    k.load_aligned(at, Elem::F32.vec(4), 16)
                })
                .collect();
            for (stream, cell) in cells.iter().enumerate() {
                let sum = &mut sums[stream * rows + row];
                *sum = match &cell.scale {
                    Some(scale) => self.block(k, cell, scale, &x, block_sums[row], *sum),
                    None => self.plain(k, cell, &x, *sum),
                };
            }
        }
        if rows > 2 {
            // Else so many reads of x are begun at once that registers run out.
            k.schedule_barrier();
        }
    }

    /// `sum` and the products of a cell of a plain form.
    fn plain(&self, k: &mut Builder, cell: &Cell, x: &[Value], mut sum: Value) -> Value {
        // Multiply-adds that widen one factor exist by themselves, those of pairs do not.
        let widens = self.bundle.dtype == DType::F16 && self.target.layout == MatrixLayout::Mfma;
        for (&weight, &x) in cell.weights.iter().zip(x) {
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

    /// `sum` and the products of a block.
    fn block(
        &self,
        k: &mut Builder,
        cell: &Cell,
        scale: &Scale,
        x: &[Value],
        block_sum: Value,
        sum: Value,
    ) -> Value {
        let half = x.len() / 2;
        let mut chains = vec![];
        for (weights, x) in cell.weights.chunks_exact(half).zip(x.chunks_exact(half)) {
            let mut chain = k.mul(weights[0], x[0]);
            for (&weight, &x) in weights.iter().zip(x).skip(1) {
                chain = k.fma(weight, x, chain);
            }
            chains.push(chain);
        }
        let (low, high) = (chains[0], chains[1]);
        let four = match self.bundle.dtype {
            DType::Q8_0 => k.add(low, high),
            _ => {
                let sixteenth = k.float(high.ty, 1.0 / 16.0);
                k.fma(high, sixteenth, low)
            }
        };
        let products = k.reduce_add(four);
        let offset = match self.bundle.dtype {
            DType::Q8_0 => Some(-128.0),
            DType::Q4_0 => Some(-8.0),
            _ => None,
        };
        let products = match offset {
            None => products,
            Some(offset) => {
                let offset = k.f32(offset);
                k.fma(offset, block_sum, products)
            }
        };
        let sum = k.fma(scale.d, products, sum);
        match scale.m {
            None => sum,
            Some(m) => k.fma(m, block_sum, sum),
        }
    }

    /// Starts loading the cells beyond whole units; lanes beyond the last cell load that one.
    pub fn load_tail(&self, k: &mut Builder) -> Loaded {
        let mut loaded = vec![];
        for stream in self.streams {
            for (part, step) in self.tail_steps() {
                let cell = self.tail_cell(k, part, step);
                let bytes = k.mul_const(cell, self.bundle.cell_bytes().into());
                let column = k.mul_const(self.lanes.column, CHUNK_BYTES as i64);
                let lane = k.add(bytes, column);
                let before = self.bundle.units() * UNIT_CELLS * self.bundle.cell_bytes();
                for half in 0..self.bundle.cell_chunks() {
                    loaded.push(self.load_chunk(k, stream, lane, before + half * ROW_OF_CHUNKS));
                }
                if self.bundle.scale_bytes > 0 {
                    let row = k.mul_const(cell, TILE_ROWS as i64);
                    let entry = k.add(row, self.lanes.column);
                    let bytes = k.mul_const(entry, self.bundle.scale_bytes.into());
                    let at = k.offset_u32(stream.tail_scales, bytes);
                    let ty = Elem::F16.vec(self.bundle.scale_bytes / 2);
                    loaded.push(k.load_streamed(at, ty, self.bundle.scale_bytes));
                }
            }
        }
        k.schedule_barrier();
        loaded
    }

    /// The steps of the tail that have a cell for any lane group.
    fn tail_steps(&self) -> Vec<(Part, u32)> {
        let tail = self.bundle.tail_cells();
        let steps = (0..STEPS).flat_map(|step| self.parts().into_iter().map(move |p| (p, step)));
        steps.filter(|(part, step)| GROUPS * step + part.first_group < tail).collect()
    }

    /// A lane's cell in the tail, counted from its first.
    fn tail_cell(&self, k: &mut Builder, part: Part, step: u32) -> Value {
        let first = GROUPS * step + part.first_group;
        let cell = k.add_const(self.lanes.group, first.into());
        if first + self.target.groups() <= self.bundle.tail_cells() {
            return cell;
        }
        let last = k.i32(self.bundle.tail_cells() as i32 - 1);
        k.min(cell, last)
    }

    /// Adds the products with the tail, `loaded` before. x is zero beyond its last element.
    pub fn multiply_tail(
        &self,
        k: &mut Builder,
        base: Value,
        loaded: &[Value],
        sums: &[Value],
    ) -> Vec<Value> {
        let units = k.i32(self.bundle.units() as i32);
        let at = k.sub(units, base);
        let x = self.x_of_unit(k, at);
        let steps = self.tail_steps();
        let mut sums = sums.to_vec();
        let per_stream = loaded.len() / self.streams.len();
        let per_step = per_stream / steps.len();
        for (index, (part, step)) in steps.into_iter().enumerate() {
            let chunks = self.bundle.cell_chunks() as usize;
            let cells = loaded
                .chunks_exact(per_stream)
                .map(|stream| {
                    let step = &stream[index * per_step..(index + 1) * per_step];
                    let scale = step.get(chunks).map(|&scale| self.scale(k, scale, 0));
                    Cell { weights: self.weights(k, &step[..chunks]), scale }
                })
                .collect::<Vec<_>>();
            let block_sums = self.block_sums(k, at, part, step, Elem::F32.scalar());
            let x = k.offset_const(x, self.x_offset(part, step));
            self.cell(k, x, &block_sums, &cells, &mut sums);
        }
        sums
    }
}

/// A cell of a stream.
struct Cell {
    /// Four numbers at a time.
    weights: Vec<Value>,
    scale: Option<Scale>,
}

/// Of a block.
struct Scale {
    d: Value,
    m: Option<Value>,
}

/// The unsigned bytes of four `i32` as f32, four at a time.
fn bytes_to_f32(k: &mut Builder, quarters: Value) -> Vec<Value> {
    (0..4)
        .map(|quarter| {
            let word = k.extract(quarters, quarter);
            let mut four = k.zero(Elem::F32.vec(4));
            for byte in 0..4 {
                let shift = k.i32(8 * byte as i32);
                let shifted = k.shr_u(word, shift);
                let mask = k.i32(0xff);
                let byte_value = k.and(shifted, mask);
                let number = k.uitofp(byte_value, Elem::F32);
                four = k.insert(number, four, byte);
            }
            four
        })
        .collect()
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
