//! Weights of a tile: each lane loads the chunks that are its fragments, with their scales,
//! straight from packed memory into registers.

use super::fragments::{BIAS, Chunk};
use super::product::Product;
use super::split;
use crate::mlir::builder::Cmp;
use crate::mlir::gpu::Outside;
use crate::mlir::{Builder, Elem, Value};
use crate::pack::gpu::{
    BLOCK, CHUNK_BYTES, GpuLayout, SCALE_LOAD_BYTES, TILE_ROWS, UNIT_BLOCKS, UNIT_GROUPS,
    UNIT_STEPS,
};
use waveloom_ir::DType;

/// Bytes of one chunk of each row of a tile.
pub(super) const ROW_CHUNKS: i64 = (TILE_ROWS * CHUNK_BYTES) as i64;
/// Entries of scales of a unit.
const UNIT_ENTRIES: i64 = (UNIT_BLOCKS * TILE_ROWS) as i64;
/// Bytes of scales of one row, and of all rows, in a part of a unit.
const ROW_SCALES: i64 = SCALE_LOAD_BYTES as i64;
const PART_SCALES: i64 = TILE_ROWS as i64 * ROW_SCALES;

/// How one weight is stepped through: what is known while building.
#[derive(Clone, Copy, Debug)]
pub(super) struct Steps {
    pub layout: GpuLayout,
    /// Chunks of a row that a wave loads in a step.
    pub groups: u32,
    /// Steps of a block of K.
    pub count: u32,
}

impl Steps {
    pub(super) fn new(layout: GpuLayout, groups: u32, depth: u32) -> Steps {
        let count = depth / (groups * layout.chunk_elements() as u32);
        Steps { layout, groups, count }
    }

    /// Times 16 bytes of 16-bit factors, or of f32, that a chunk makes.
    pub(super) fn parts(&self) -> u32 {
        match self.layout.dtype {
            DType::Q8_0 => 2,
            DType::Q4_0 | DType::Q4_1 => 4,
            _ => 1,
        }
    }

    fn scaled(&self) -> bool {
        self.layout.scale_bytes() > 0
    }

    /// Steps that share the scales of a block.
    fn steps_of_scale(&self) -> u32 {
        (BLOCK as u32 / (self.groups * self.layout.chunk_elements() as u32)).max(1)
    }

    /// Loads of scales in a block of K.
    fn scales(&self) -> u32 {
        if self.scaled() { self.count / self.steps_of_scale() } else { 0 }
    }

    /// Whether the blocks of K reach beyond the chunks of a row.
    fn overruns(&self, blocks: u32) -> bool {
        u64::from(blocks * self.count * self.groups) > self.layout.chunks()
    }

    fn scale_elem(&self) -> Elem {
        if self.layout.scale_bytes() == 4 { Elem::I32 } else { Elem::F16 }
    }
}

/// A weight while the kernel runs.
#[derive(Clone)]
pub(super) struct Matrix {
    /// Chunks of the wave's tiles of 16 rows.
    pub chunks: Value,
    /// Scales of all rows, if it has any.
    pub scales: Option<Value>,
    /// Where among the scales those begin that are in no whole unit.
    pub tail: Value,
    /// The wave's tiles; those that do not exist are the last one.
    pub tiles: Vec<Value>,
}

/// The weights that a wave multiplies, and the lane's place in a step.
pub(super) struct Weights<'a> {
    product: &'a Product<'a>,
    /// By slot.
    matrices: Vec<Matrix>,
    /// Lane group, 0 where all groups hold the same.
    group: Value,
    /// Row in a tile.
    row: Value,
    bias: Value,
}

/// Half of the multiplications of a block, before or behind the staging of activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    First,
    Second,
}

/// What a lane holds of a block of K: by slot, step and line of rows.
#[derive(Clone)]
pub(super) struct Held {
    values: Vec<Value>,
}

impl Held {
    pub(super) fn values(&self) -> &[Value] {
        &self.values
    }

    pub(super) fn from_values(values: &[Value]) -> Held {
        Held { values: values.to_vec() }
    }

    /// Takes over what `other` has for the first step of a slot.
    pub(super) fn take(&mut self, product: &Product<'_>, slot: usize, other: &Held) {
        for place in product.held_by(slot) {
            self.values[place] = other.values[place];
        }
    }

    /// Moves what it has for the first step of a slot to other registers.
    pub(super) fn move_away(&mut self, k: &mut Builder, product: &Product<'_>, slot: usize) {
        for place in product.held_by(slot) {
            let value = self.values[place];
            self.values[place] = match value.ty.bytes() {
                2 => {
                    let bits = k.bitcast(value, Elem::I16);
                    let bits = k.zext(bits, Elem::I32);
                    let bits = k.moved(bits);
                    let bits = k.trunc(bits, Elem::I16);
                    k.bitcast(bits, value.ty)
                }
                _ => k.moved(value),
            };
        }
    }
}

impl<'a> Weights<'a> {
    pub(super) fn new(
        k: &mut Builder,
        product: &'a Product<'a>,
        matrices: Vec<Matrix>,
    ) -> Weights<'a> {
        let [group, row] = k.matrix_lane(product.target);
        let group = if product.groups() == 1 { k.i32(0) } else { group };
        let bias = k.i32(BIAS);
        let bias = k.in_vector_register(bias);
        Weights { product, matrices, group, row, bias }
    }

    /// The chunk that a lane holds for a step and a line of the wave's rows.
    pub(super) fn chunk(&self, held: &Held, slot: usize, step: u32, line: u32) -> Chunk {
        let product = self.product;
        let steps = &product.steps[slot];
        let index = step / steps.steps_of_scale();
        Chunk {
            dtype: steps.layout.dtype,
            words: held.values[product.held_chunk(slot, step, line)],
            scale: steps.scaled().then(|| held.values[product.held_scale(slot, index, line)]),
            order: product.order,
            bias: self.bias,
        }
    }

    /// Nothing yet.
    pub(super) fn nothing(&self, k: &mut Builder) -> Held {
        let zero = k.i32(0);
        Held { values: vec![zero; self.product.held()] }
    }

    /// Loads those steps of a block of K that the loop loads in half a block, step by step.
    pub(super) fn load(&self, k: &mut Builder, block: Value, half: Half, held: &mut Held) {
        for slot in 0..self.matrices.len() {
            let count = self.product.steps[slot].count;
            let middle = count.div_ceil(2);
            let steps = match half {
                Half::First => 0..middle,
                Half::Second => middle..count,
            };
            for step in steps {
                k.schedule_barrier();
                self.load_step(k, block, slot, step, held);
            }
        }
    }

    /// Loads what step `step` of block `block` takes of a weight.
    pub(super) fn load_step(
        &self,
        k: &mut Builder,
        block: Value,
        slot: usize,
        step: u32,
        held: &mut Held,
    ) {
        let steps = &self.product.steps[slot];
        let groups = i64::from(steps.groups);
        let first = k.mul_const(block, i64::from(steps.count) * groups * ROW_CHUNKS);
        let first = k.add_const(first, i64::from(step) * groups * ROW_CHUNKS);
        let group = k.mul_const(self.group, ROW_CHUNKS);
        let row = k.mul_const(self.row, CHUNK_BYTES as i64);
        let lane = k.add(group, row);
        let matrix = &self.matrices[slot];
        let outside = self.outside(steps);
        for (index, tile) in matrix.tiles.iter().enumerate() {
            let tile = k.sub(*tile, matrix.tiles[0]);
            let before = k.mul_const(tile, steps.layout.tile_bytes() as i64);
            let before = k.add(first, before);
            for line in 0..self.product.lines() {
                let row = self.other_row(line) * CHUNK_BYTES as i64;
                let uniform = plus(k, before, row);
                let (lane, uniform) = self.within(k, steps, lane, uniform);
                let at = self.product.held_chunk(slot, step, self.line(index, line));
                held.values[at] =
                    k.load_resource(matrix.chunks, lane, uniform, Elem::I32.vec(4), outside);
            }
        }
        // With the last of the steps that share it: until then the former one is needed.
        let share = steps.steps_of_scale();
        if (step + 1).is_multiple_of(share) {
            self.load_scales(k, block, slot, step / share, held);
        }
    }

    fn load_scales(&self, k: &mut Builder, block: Value, slot: usize, index: u32, held: &mut Held) {
        let steps = &self.product.steps[slot];
        let Some(scales) = self.matrices[slot].scales else { return };
        let outside = self.outside(steps);
        for (tile, number) in self.matrices[slot].tiles.iter().enumerate() {
            for line in 0..self.product.lines() {
                let other = self.other_row(line);
                let (lane, uniform) = self.scale_place(k, slot, block, index, *number, other);
                let (lane, uniform) = self.within(k, steps, lane, uniform);
                let at = self.product.held_scale(slot, index, self.line(tile, line));
                held.values[at] =
                    k.load_resource(scales, lane, uniform, steps.scale_elem(), outside);
            }
        }
    }

    /// What may be read beyond a weight: nothing, if blocks of K do not reach beyond a row.
    fn outside(&self, steps: &Steps) -> Outside {
        if steps.overruns(self.product.blocks()) { Outside::Any } else { Outside::Never }
    }

    /// Rows from a lane's first one to that of line `line` of a tile.
    fn other_row(&self, line: u32) -> i64 {
        i64::from(line) * TILE_ROWS as i64 / i64::from(self.product.lines())
    }

    /// Line `line` of tile `tile`, among all of the wave.
    fn line(&self, tile: usize, line: u32) -> u32 {
        tile as u32 * self.product.lines() + line
    }

    /// The two parts of an offset so that all of it is compared with the size of the buffer, if
    /// blocks of K reach beyond a row. What is loaded there, zeros or other weights, is multiplied
    /// by zeros.
    fn within(
        &self,
        k: &mut Builder,
        steps: &Steps,
        lane: Value,
        uniform: Value,
    ) -> (Value, Value) {
        match steps.overruns(self.product.blocks()) {
            false => (lane, uniform),
            true => (k.add(lane, uniform), k.i32(0)),
        }
    }

    /// Offset of the scale of the lane's block, `other` rows after its own: the lane's part, and what
    /// is the same in all.
    fn scale_place(
        &self,
        k: &mut Builder,
        slot: usize,
        block: Value,
        index: u32,
        tile: Value,
        other: i64,
    ) -> (Value, Value) {
        let steps = &self.product.steps[slot];
        let (layout, matrix) = (&steps.layout, &self.matrices[slot]);
        let bytes = layout.scale_bytes() as i64;
        // Blocks of 32 that the lanes of a step are spread over, and the lane's among them.
        let spread = (steps.groups * layout.chunk_elements() as u32 / BLOCK as u32).max(1);
        let chunks = (BLOCK / layout.chunk_elements()) as u32;
        let lane_block = if spread == 1 { k.i32(0) } else { split(k, self.group, chunks).0 };
        let first = k.mul_const(block, (steps.scales() * spread).into());
        let first = k.add_const(first, (index * spread).into());
        let in_units = |k: &mut Builder| {
            let (lane, uniform) = self.place_in_units(k, layout, first, lane_block);
            let before = k.mul_const(tile, layout.units() as i64 * UNIT_ENTRIES * bytes);
            let uniform = k.add(uniform, before);
            (lane, plus(k, uniform, other * ROW_SCALES))
        };
        let unit_blocks = (layout.units() * UNIT_BLOCKS) as i64;
        let in_tail = |k: &mut Builder| {
            let block = k.add_const(first, -unit_blocks);
            let before = k.mul_const(tile, layout.tail_blocks() as i64);
            let block = k.add(block, before);
            let uniform = k.mul_const(block, TILE_ROWS as i64 * bytes);
            let lane = k.mul_const(lane_block, TILE_ROWS as i64);
            let lane = k.add(lane, self.row);
            let uniform = k.add(uniform, matrix.tail);
            (k.mul_const(lane, bytes), plus(k, uniform, other * bytes))
        };
        match (layout.units(), layout.tail_blocks()) {
            (_, 0) => in_units(k),
            (0, _) => in_tail(k),
            _ => {
                let (units, tail) = (in_units(k), in_tail(k));
                let end = k.i32(unit_blocks as i32);
                let whole = k.cmp(Cmp::Lt, first, end);
                (k.select(whole, units.0, tail.0), k.select(whole, units.1, tail.1))
            }
        }
    }

    /// Offset of the scale of block `first` + `lane_block` in a tile's units, in two parts as
    /// above; `first` is the same in all lanes and leaves room for theirs in its group.
    fn place_in_units(
        &self,
        k: &mut Builder,
        layout: &GpuLayout,
        first: Value,
        lane_block: Value,
    ) -> (Value, Value) {
        let bytes = layout.scale_bytes() as i64;
        let (unit, rest) = split(k, first, UNIT_BLOCKS as u32);
        let (step, group) = split(k, rest, UNIT_GROUPS as u32);
        let unit = k.mul_const(unit, UNIT_ENTRIES * bytes);
        // Groups of lanes do not carry into those of `first`: the parts add up.
        let place_of_group = |k: &mut Builder, group: Value| {
            let (steps, part) = split(k, group, layout.scale_parts() as u32);
            let part = k.mul_const(part, PART_SCALES);
            let steps = k.mul_const(steps, UNIT_STEPS as i64 * bytes);
            k.add(part, steps)
        };
        let group = place_of_group(k, group);
        let step = k.mul_const(step, bytes);
        let uniform = k.add(unit, group);
        let uniform = k.add(uniform, step);
        let group = place_of_group(k, lane_block);
        let row = k.mul_const(self.row, ROW_SCALES);
        (k.add(group, row), uniform)
    }
}

/// A number and a constant.
fn plus(k: &mut Builder, a: Value, more: i64) -> Value {
    if more == 0 { a } else { k.add_const(a, more) }
}

impl Product<'_> {
    /// Values that a lane holds of a block of K.
    fn held(&self) -> usize {
        self.held_scale(self.steps.len(), 0, 0)
    }

    /// Place of a chunk among the values held.
    fn held_chunk(&self, slot: usize, step: u32, line: u32) -> usize {
        let before: u32 = self.steps[..slot].iter().map(|steps| steps.count).sum();
        ((before + step) * self.column_lines() + line) as usize
    }

    /// Places of what is held for the first step of a slot.
    fn held_by(&self, slot: usize) -> Vec<usize> {
        let scaled = self.steps[slot].scaled();
        let lines = 0..self.column_lines();
        let places = lines.flat_map(|line| {
            let scale = scaled.then(|| self.held_scale(slot, 0, line));
            [Some(self.held_chunk(slot, 0, line)), scale]
        });
        places.flatten().collect()
    }

    /// Place of the scale of a chunk.
    fn held_scale(&self, slot: usize, index: u32, line: u32) -> usize {
        let chunks: u32 = self.steps.iter().map(|steps| steps.count).sum();
        let before: u32 = self.steps[..slot].iter().map(Steps::scales).sum();
        ((chunks + before + index) * self.column_lines() + line) as usize
    }
}
