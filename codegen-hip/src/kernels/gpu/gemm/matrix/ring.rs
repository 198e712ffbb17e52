//! Products by warpgroups ([`crate::target::Warpgroups`]): factors come through a ring of blocks of K
//! in the local data share, which one wave fills by copies in hardware while two warpgroups multiply.
//! Quantized weights alone come straight to registers (`weights`), a block ahead, and become factors
//! there.
//!
//! Packed plain weights are core matrices already: chunk c of rows 0 to 7 of a tile of 16 are 128 bytes,
//! those of rows 8 to 15 the next 128. A product has 64 rows in groups of 8 at equal distances, so it
//! takes one half of each of eight tiles: the first warpgroup multiplies the lower halves of all
//! tiles, the second one the upper halves. Activations were rounded to factors and put in the same
//! order by a launch before ([`super::prepare`]), so a block of them is one copy.
//!
//! ```text
//! stage:   weights      [slot][tile of 16 rows][chunk of 8 elements][16 rows][16 bytes]
//!          activations  [8 rows of x][chunk of 8 elements][8 rows][16 bytes]
//! ```
//!
//! A stage has two barriers. *Full* ends a phase when all copies to it have arrived; *empty* when all
//! waves that multiply have read it.

use super::fragments::factors;
use super::weights::{Half, Held, Weights};
use super::{Family, Gemm, Place, Stage, TileConfig, split};
use crate::kernels::gpu::gemm::Env;
use crate::mlir::builder::Cmp;
pub(super) use crate::mlir::gpu::warpgroup::PRODUCT_ROWS;
use crate::mlir::gpu::warpgroup::{
    COLUMN_GROUP, MBARRIER_BYTES, Multiply, PRODUCT_DEPTH, Rows, Strides, WARPGROUP,
};
use crate::mlir::{Builder, Elem, Value};
use crate::pack::gpu::{CHUNK_BYTES, GpuLayout, TILE_ROWS};
use crate::target::{GpuTarget, Platform};
use waveloom_ir::DType;

/// Elements of K in a block, where weights come through the ring and where they do not.
pub(super) const DEPTH: u32 = 64;
pub(super) const QUANTS_DEPTH: u32 = 128;
/// Elements of a chunk of factors.
const CHUNK: u32 = 8;
/// Bytes of one chunk of the rows of a tile of weights, and of eight rows of activations.
const WEIGHT_CHUNKS: u32 = (TILE_ROWS * CHUNK_BYTES) as u32;
const ROW_CHUNKS: u32 = COLUMN_GROUP * CHUNK_BYTES as u32;
/// Bytes of a block of a tile of weights.
const WEIGHT_TILE: u32 = DEPTH / CHUNK * WEIGHT_CHUNKS;
/// Where the rows of a product lie: halves of tiles.
const WEIGHT_STRIDES: Strides = Strides { leading: WEIGHT_CHUNKS, stride: WEIGHT_TILE };
/// Warpgroups that multiply: one for each half of a tile.
const MULTIPLYING: u32 = 2;
/// Rows of a weight, columns of the result, that both together have in a product each.
pub(super) const UNIT_COLUMNS: u32 = MULTIPLYING * PRODUCT_ROWS;
/// Work-items that multiply.
pub(super) const WORKERS: u32 = MULTIPLYING * WARPGROUP;
/// Most sums of a work-item: leaves 48 registers, and 112 where weights are in registers too.
pub(super) const MOST_SUMS: u32 = 192;
pub(super) const MOST_SUMS_BESIDE_WEIGHTS: u32 = 128;
/// Words of factors of weights that a lane has at a time.
const MOST_FACTORS: u32 = 32;
/// Registers of a work-item that multiplies, and of one that copies: together those of a
/// multiprocessor ("setmaxnreg": multiples of 8).
const REGISTERS: [u32; 2] = [240, 24];
/// Bytes kept for barriers.
pub(super) const BARRIER_BYTES: u32 = 256;

impl TileConfig {
    /// Work-items that only copy.
    pub(super) fn copying(&self) -> u32 {
        if self.stages == 0 { 0 } else { WARPGROUP }
    }

    /// Bytes of a stage of the ring, where so many weights of a section come through it.
    pub(super) fn stage_bytes(&self, weights: u32) -> u32 {
        let weights = weights * self.columns / TILE_ROWS as u32 * WEIGHT_TILE;
        weights + self.rows / COLUMN_GROUP * self.row_group()
    }

    /// Bytes of a block of eight rows of activations.
    pub(super) fn row_group(&self) -> u32 {
        self.depth / CHUNK * ROW_CHUNKS
    }
}

/// Elements of K in a block of the ring, where warpgroups multiply all of these weights: activations
/// are prepared once, so they must agree on the type of factors and on their order.
pub(super) fn depth(target: &GpuTarget, weights: &[GpuLayout]) -> Option<u32> {
    let depth = match weights.first()?.dtype {
        DType::F16 | DType::BF16 => DEPTH,
        dtype if dtype.is_block() => QUANTS_DEPTH,
        _ => return None,
    };
    let form = |w: &GpuLayout| (factors(w.dtype), w.dtype.is_block(), w.chunk_elements());
    let same = weights.windows(2).all(|pair| form(&pair[0]) == form(&pair[1]));
    let whole = weights.iter().all(|w| w.cols.is_multiple_of(depth.into()));
    (target.warpgroups.is_some() && same && whole).then_some(depth)
}

/// The ring while the kernel runs.
#[derive(Clone, Copy)]
struct Ring {
    stages: u32,
    stage_bytes: u32,
    /// The stages, side by side.
    base: Value,
    /// Full barriers, then empty ones, then that of the waves that multiply.
    barriers: Value,
    /// The wave in its workgroup, and this lane in the wave.
    wave: Value,
    lane: Value,
}

/// A stage, and the parity of the phase in which it is filled.
#[derive(Clone, Copy)]
struct Turn {
    stage: Value,
    parity: Value,
}

impl Ring {
    /// Of the block that follows `done` others.
    fn turn(&self, k: &mut Builder, done: Value) -> Turn {
        let (round, stage) = split(k, done, self.stages);
        let one = k.i32(1);
        Turn { stage, parity: k.and(round, one) }
    }

    fn next(&self, k: &mut Builder, turn: Turn) -> Turn {
        let (zero, one, end) = (k.i32(0), k.i32(1), k.i32(self.stages as i32));
        let stage = k.add(turn.stage, one);
        let wraps = k.cmp(Cmp::Eq, stage, end);
        let other = k.xor(turn.parity, one);
        Turn { stage: k.select(wraps, zero, stage), parity: k.select(wraps, other, turn.parity) }
    }

    fn at(&self, k: &mut Builder, turn: Turn) -> Value {
        let offset = k.mul_const(turn.stage, self.stage_bytes.into());
        k.offset_u32(self.base, offset)
    }

    fn full(&self, k: &mut Builder, turn: Turn) -> Value {
        let offset = k.mul_const(turn.stage, MBARRIER_BYTES.into());
        k.offset_u32(self.barriers, offset)
    }

    fn empty(&self, k: &mut Builder, turn: Turn) -> Value {
        let full = self.full(k, turn);
        k.offset_const(full, (self.stages * MBARRIER_BYTES).into())
    }

    fn meeting(&self, k: &mut Builder) -> Value {
        k.offset_const(self.barriers, (2 * self.stages * MBARRIER_BYTES).into())
    }

    /// Sets up all barriers; all work-items of the workgroup.
    fn prepare(&self, k: &mut Builder, waves: u32) {
        let (thread, zero) = (k.thread(), k.i32(0));
        let first = k.cmp(Cmp::Eq, thread, zero);
        let meeting = self.meeting(k);
        k.if_then(first, |k| {
            for stage in 0..self.stages {
                let full = k.offset_const(self.barriers, (stage * MBARRIER_BYTES).into());
                k.mbarrier_init(full, 1);
                let empty = k.offset_const(full, (self.stages * MBARRIER_BYTES).into());
                k.mbarrier_init(empty, waves);
            }
            k.mbarrier_init(meeting, waves);
            k.mbarriers_ready();
        });
        k.barrier_shared();
    }

    /// One lane of the wave says that it has read a stage.
    fn release(&self, k: &mut Builder, turn: Turn) {
        let zero = k.i32(0);
        let first = k.cmp(Cmp::Eq, self.lane, zero);
        let empty = self.empty(k, turn);
        k.if_then(first, |k| k.mbarrier_arrive(empty));
    }
}

impl Gemm<'_> {
    /// Most weights of a section.
    pub(super) fn slots(&self) -> u32 {
        self.families.iter().map(|f| f.product.steps.len() as u32).max().unwrap_or(1)
    }

    /// Whether weights come through the ring.
    fn weights_in_ring(&self) -> bool {
        !self.spec.weights.iter().any(|weight| weight.dtype.is_block())
    }

    /// Most weights of a section that come through the ring.
    fn slots_in_ring(&self) -> u32 {
        if self.weights_in_ring() { self.slots() } else { 0 }
    }

    /// Bytes of the ring.
    pub(super) fn ring_bytes(&self) -> u32 {
        self.config.stages * self.config.stage_bytes(self.slots_in_ring())
    }

    /// Bytes of the local data share that are left for staged accumulators.
    pub(super) fn beside_the_ring(&self) -> u32 {
        let all = self.target.warpgroups.map_or(0, |warpgroups| warpgroups.lds_bytes);
        all.saturating_sub(self.ring_bytes() + BARRIER_BYTES)
    }

    /// Bytes of prepared activations.
    pub(super) fn prepared_bytes(&self) -> u64 {
        match self.config.stages {
            0 => 0,
            _ => self.most_rows.next_multiple_of(self.config.rows.into()) * self.spec.k * 2,
        }
    }

    /// Columns, in units of both warpgroups, times weights: sets of sums of a lane.
    fn sets(&self, family: &Family<'_>) -> u32 {
        family.product.steps.len() as u32 * self.config.columns / UNIT_COLUMNS
    }

    pub(super) fn emit_ring(&self, k: &mut Builder, env: &Env, scratch: Value) {
        k.saturate_f16();
        if self.target.platform == Platform::Nvidia {
            k.ask_for_shared();
        }
        let base = k.shared(self.ring_bytes());
        let staged = k.shared(self.stage_rows().1.max(self.config.rows * 4));
        let barriers = k.shared(BARRIER_BYTES);
        let workers = self.config.workgroup(self.target);
        let waves = workers / self.target.wave;
        // From one lane, so that the compiler knows that all have it.
        let (wave, lane, zero) = (k.wave(self.target), k.lane(self.target), k.i32(0));
        let wave = k.read_lane(wave, zero);
        let (stages, stage_bytes) =
            (self.config.stages, self.config.stage_bytes(self.slots_in_ring()));
        let ring = Ring { stages, stage_bytes, base, barriers, wave, lane };
        ring.prepare(k, waves);
        let waves = k.i32(waves as i32);
        let multiplies = k.below(wave, waves);
        k.if_else(
            multiplies,
            |k| {
                k.registers(REGISTERS[0], true);
                let meeting = ring.meeting(k);
                k.only_workers(workers, meeting);
                self.for_places(k, env, |k, family, place, done| {
                    self.multiply_tile(k, env, (scratch, staged), family, place, (&ring, done));
                });
                []
            },
            |k| {
                k.registers(REGISTERS[1], false);
                let copies = k.cmp(Cmp::Eq, wave, waves);
                k.if_then(copies, |k| {
                    self.for_places(k, env, |k, family, place, done| {
                        self.copy_tile(k, env, scratch, family, place, (&ring, done));
                    });
                });
                []
            },
        );
    }

    /// Runs `body` for each tile of this workgroup and the family that has it, with the number of
    /// blocks before.
    fn for_places(
        &self,
        k: &mut Builder,
        env: &Env,
        body: impl Fn(&mut Builder, &Family<'_>, Place, Value),
    ) {
        let rows = self.row_tiles(k, env.m);
        let tiles = k.mul_const(rows, self.column_tiles().into());
        self.for_rounds(k, [rows, tiles], |k, share, done| {
            let column = k.udiv(share.tile, rows);
            let whole = k.mul(column, rows);
            let row = k.sub(share.tile, whole);
            let place = Place { row, column, share };
            match &self.families[..] {
                [family] => body(k, family, place, done),
                families => {
                    for family in families {
                        let (first, end) = family.tiles();
                        let here = super::within(k, column, first, end);
                        k.if_then(here, |k| body(k, family, place, done));
                    }
                }
            }
        });
    }

    /// Copies the blocks of a tile: lanes have a tile of weights each, the one behind them has the
    /// activations.
    fn copy_tile(
        &self,
        k: &mut Builder,
        env: &Env,
        scratch: Value,
        family: &Family<'_>,
        place: Place,
        (ring, done): (&Ring, Value),
    ) {
        let copies = self.copies(k, env, scratch, family, place, ring);
        let turn = ring.turn(k, done);
        let all = k.i32(self.config.stage_bytes(self.ring_slots(family)) as i32);
        let [first, end] = place.share.blocks;
        let (zero, one) = (k.i32(0), k.i32(1));
        k.for_loop(first, end, 1, [turn.stage, turn.parity], |k, block, [stage, parity]| {
            let turn = Turn { stage, parity };
            let (full, empty, at) = (ring.full(k, turn), ring.empty(k, turn), ring.at(k, turn));
            // Nobody reads the stage before it was filled once.
            let before = k.xor(parity, one);
            k.mbarrier_wait(empty, before);
            let is_first = k.cmp(Cmp::Eq, ring.lane, zero);
            k.if_then(is_first, |k| k.mbarrier_expect(full, all));
            k.wave_barrier();
            k.if_then(copies.takes_part, |k| {
                let wide = k.zext(block, Elem::I64);
                let before = k.mul(wide, copies.step);
                let from = k.offset(copies.from, before);
                let to = k.offset_u32(at, copies.to);
                k.copy_bulk(to, from, copies.bytes, full);
            });
            let next = ring.next(k, turn);
            [next.stage, next.parity]
        });
    }

    /// Weights of the family's sections that come through the ring.
    fn ring_slots(&self, family: &Family<'_>) -> u32 {
        if self.weights_in_ring() { family.product.steps.len() as u32 } else { 0 }
    }

    /// What this lane copies of each block of a tile.
    fn copies(
        &self,
        k: &mut Builder,
        env: &Env,
        scratch: Value,
        family: &Family<'_>,
        place: Place,
        ring: &Ring,
    ) -> Copies {
        let slots = self.ring_slots(family) as usize;
        let tiles = self.config.columns / TILE_ROWS as u32;
        let count = slots as u32 * tiles;
        assert!(count < self.target.wave, "a lane for each copy");
        let (slot, tile) = split(k, ring.lane, tiles);
        let mut from: Option<Value> = None;
        for index in 0..slots {
            let chosen = self.choice(k, env, family, place, index);
            let tile = k.add(chosen.first_tile, tile);
            let last = k.add_const(chosen.tiles, -1);
            let tile = k.min(tile, last);
            let tile = k.zext(tile, Elem::I64);
            let before = k.mul_const(tile, family.product.steps[index].layout.tile_bytes() as i64);
            let at = k.offset(chosen.base, before);
            from = Some(match from {
                None => at,
                Some(other) => {
                    let index = k.i32(index as i32);
                    let here = k.cmp(Cmp::Ge, slot, index);
                    k.select(here, at, other)
                }
            });
        }
        let padded = self.padded_rows(k, env.m);
        let row_bytes = i64::from(self.config.depth) * 2;
        let first_row = k.mul_const(place.row, i64::from(self.config.rows) * row_bytes);
        let prepared = k.offset_const(scratch, waveloom_plan::SCRATCH_COUNTERS as i64);
        let prepared = k.offset_u32(prepared, first_row);
        let [weights, behind] = [count, count + 1].map(|lane| k.i32(lane as i32));
        let is_weights = k.below(ring.lane, weights);
        let [weight_bytes, row_count] =
            [WEIGHT_TILE, self.config.rows / COLUMN_GROUP * self.config.row_group()]
                .map(|bytes| k.i32(bytes as i32));
        let weight_step = k.i64(WEIGHT_TILE.into());
        let padded = k.zext(padded, Elem::I64);
        let row_step = k.mul_const(padded, row_bytes);
        Copies {
            takes_part: k.below(ring.lane, behind),
            from: k.select(is_weights, from.unwrap_or(prepared), prepared),
            step: k.select(is_weights, weight_step, row_step),
            to: k.mul_const(ring.lane, WEIGHT_TILE.into()),
            bytes: k.select(is_weights, weight_bytes, row_count),
        }
    }

    /// Rows of x, rounded up to whole tiles: of which there are prepared activations.
    pub(super) fn padded_rows(&self, k: &mut Builder, rows: Value) -> Value {
        let tiles = self.row_tiles(k, rows);
        k.mul_const(tiles, self.config.rows.into())
    }

    /// Multiplies the blocks of a tile, and makes its outputs.
    fn multiply_tile(
        &self,
        k: &mut Builder,
        env: &Env,
        (scratch, staged): (Value, Value),
        family: &Family<'_>,
        place: Place,
        (ring, done): (&Ring, Value),
    ) {
        let sums = match self.weights_in_ring() {
            true => self.sums_of_ring(k, family, place, (ring, done)),
            false => self.sums_of_registers(k, env, family, place, (ring, done)),
        };
        let sums: Vec<Value> = sums
            .chunks(4)
            .map(|four| {
                let mut sum = k.zero(Elem::F32.vec(4));
                for (lane, number) in four.iter().enumerate() {
                    sum = k.insert(*number, sum, lane as u32);
                }
                sum
            })
            .collect();
        match place.share.sharers {
            Some(sharers) => {
                self.with_all_sums(k, (scratch, staged), &sharers, &sums, |k, sums| {
                    self.outputs(k, env, family, place, sums, staged);
                });
            }
            None => self.outputs(k, env, family, place, &sums, staged),
        }
    }

    /// The sums of a tile's blocks, both factors of which come through the ring: by set, numbers.
    fn sums_of_ring(
        &self,
        k: &mut Builder,
        family: &Family<'_>,
        place: Place,
        (ring, done): (&Ring, Value),
    ) -> Vec<Value> {
        let turn = ring.turn(k, done);
        let mut carried = self.no_sums(k, family);
        let count = carried.len();
        carried.extend([turn.stage, turn.parity]);
        let [first, end] = place.share.blocks;
        let mut results = k.for_values(first, end, 1, &carried, |k, _, values| {
            let (sums, turn) = values.split_at(count);
            let turn = Turn { stage: turn[0], parity: turn[1] };
            let full = ring.full(k, turn);
            k.mbarrier_wait(full, turn.parity);
            let products = self.products(k, family, ring, turn);
            let mut values = self.multiplied(k, family, &products, sums);
            ring.release(k, turn);
            let next = ring.next(k, turn);
            values.extend([next.stage, next.parity]);
            values
        });
        results.truncate(count);
        results
    }

    /// The same where weights are in registers: those of the next block are on their way while one is
    /// multiplied.
    fn sums_of_registers(
        &self,
        k: &mut Builder,
        env: &Env,
        family: &Family<'_>,
        place: Place,
        (ring, done): (&Ring, Value),
    ) -> Vec<Value> {
        let weights = self.weights(k, env, family, place);
        let [first, end] = place.share.blocks;
        let last = k.add_const(end, -1);
        let mut held = weights.nothing(k);
        for half in [Half::First, Half::Second] {
            weights.load(k, first, half, &mut held);
        }
        let turn = ring.turn(k, done);
        let mut carried = self.no_sums(k, family);
        let count = carried.len();
        carried.extend(held.values());
        let held_end = carried.len();
        carried.extend([turn.stage, turn.parity]);
        let mut results = k.for_values(first, end, 1, &carried, |k, block, values| {
            let held = Held::from_values(&values[count..held_end]);
            let turn = Turn { stage: values[held_end], parity: values[held_end + 1] };
            let next = k.add_const(block, 1);
            let next = k.min(next, last);
            let mut ahead = weights.nothing(k);
            for half in [Half::First, Half::Second] {
                weights.load(k, next, half, &mut ahead);
            }
            let full = ring.full(k, turn);
            k.mbarrier_wait(full, turn.parity);
            let mut sums = values[..count].to_vec();
            let at = ring.at(k, turn);
            let rows = k.descriptor(at, self.row_strides());
            for batch in self.batches(family) {
                let factors = (&weights, &held);
                let products = self.products_of_registers(k, family, factors, rows, &batch);
                sums = self.multiplied(k, family, &products, &sums);
            }
            ring.release(k, turn);
            let next = ring.next(k, turn);
            sums.extend(ahead.values());
            sums.extend([next.stage, next.parity]);
            sums
        });
        results.truncate(count);
        results
    }

    fn no_sums(&self, k: &mut Builder, family: &Family<'_>) -> Vec<Value> {
        let zero = k.f32(0.0);
        vec![zero; (self.sets(family) * self.config.rows / 2) as usize]
    }

    /// All sums with products added.
    fn multiplied(
        &self,
        k: &mut Builder,
        family: &Family<'_>,
        products: &[Multiply],
        sums: &[Value],
    ) -> Vec<Value> {
        let of_set = (self.config.rows / 2) as usize;
        let sums: Vec<Vec<Value>> = sums.chunks(of_set).map(<[Value]>::to_vec).collect();
        k.multiply(family.product.op.factors, products, &sums).concat()
    }

    /// Parts of the chunks that a lane has of a block: step, part of 16 bytes of factors, and their
    /// number. In batches whose factors there are registers for.
    fn batches(&self, family: &Family<'_>) -> Vec<Vec<(u32, u32, u32)>> {
        // All weights have chunks of as many elements.
        let step = family.product.steps[0];
        let parts = (0..step.count).flat_map(|s| (0..step.parts()).map(move |part| (s, part)));
        let parts: Vec<(u32, u32, u32)> =
            parts.zip(0..).map(|((s, part), i)| (s, part, i)).collect();
        let together = MOST_FACTORS / (8 * self.sets(family));
        parts.chunks(together.max(1) as usize).map(<[_]>::to_vec).collect()
    }

    /// The products of a batch with weights in registers, two for each part. A lane has four elements
    /// of its chunk for each, which activations were prepared for ([`super::prepare`]).
    fn products_of_registers(
        &self,
        k: &mut Builder,
        family: &Family<'_>,
        (weights, held): (&Weights<'_>, &Held),
        rows: Value,
        batch: &[(u32, u32, u32)],
    ) -> Vec<Multiply> {
        let product = &family.product;
        let tiles = product.column_tiles();
        let mut products = vec![];
        for &(step, part, index) in batch {
            let of_line = |k: &mut Builder, set: u32, line: u32| {
                let (slot, tile) = ((set / tiles) as usize, set % tiles);
                let line = tile * product.lines() + line;
                let words = weights.chunk(held, slot, step, line).factors(k, part);
                [0, 1, 2, 3].map(|word| k.extract(words, word))
            };
            let words: Vec<[[Value; 4]; 2]> = (0..self.sets(family))
                .map(|set| [0, 1].map(|line| of_line(k, set, line)))
                .collect();
            for half in 0..2 {
                let b = k.descriptor_at(rows, (2 * index + half) * 2 * ROW_CHUNKS);
                let (low, high) = (2 * half as usize, 2 * half as usize + 1);
                for (sums, [upper, lower]) in words.iter().enumerate() {
                    let a = [upper[low], lower[low], upper[high], lower[high]];
                    products.push(Multiply { sums, a: Rows::Registers(a), b });
                }
            }
        }
        products
    }

    /// Where the columns of a product lie.
    fn row_strides(&self) -> Strides {
        Strides { leading: ROW_CHUNKS, stride: self.config.row_group() }
    }

    /// The products of the block in a stage.
    fn products(
        &self,
        k: &mut Builder,
        family: &Family<'_>,
        ring: &Ring,
        turn: Turn,
    ) -> Vec<Multiply> {
        let at = ring.at(k, turn);
        let weights = k.descriptor(at, WEIGHT_STRIDES);
        // Of the upper halves for the second warpgroup.
        let half = self.half(k, ring.wave);
        let half = k.mul_const(half, i64::from(WEIGHT_CHUNKS / 2) >> 4);
        let half = k.zext(half, Elem::I64);
        let weights = k.add(weights, half);
        let slots = family.product.steps.len() as u32;
        let behind = slots * self.config.columns / TILE_ROWS as u32 * WEIGHT_TILE;
        let rows = k.offset_const(at, behind.into());
        let rows = k.descriptor(rows, self.row_strides());
        let unit = UNIT_COLUMNS / TILE_ROWS as u32 * WEIGHT_TILE;
        let chunks = PRODUCT_DEPTH / CHUNK;
        let mut products = vec![];
        for step in 0..DEPTH / PRODUCT_DEPTH {
            let b = k.descriptor_at(rows, step * chunks * ROW_CHUNKS);
            for set in 0..self.sets(family) {
                let a = k.descriptor_at(weights, set * unit + step * chunks * WEIGHT_CHUNKS);
                products.push(Multiply { sums: set as usize, a: Rows::Shared(a), b });
            }
        }
        products
    }

    /// Which halves of tiles this wave's warpgroup multiplies.
    fn half(&self, k: &mut Builder, wave: Value) -> Value {
        split(k, wave, WARPGROUP / self.target.wave).0
    }

    /// Column of this lane's first sum, columns from a set of sums to the next of the weight, and from
    /// the first to the second row of a product ([`crate::target::Warpgroups`]). Through the ring a
    /// wave has of a unit tiles 2·w and 2·w + 1, of both the same row; with weights in registers the
    /// rows of its own tiles.
    fn columns_of_lane(&self, k: &mut Builder, n: Value) -> (Value, u32, u32) {
        let wave = k.wave(self.target);
        let tile = TILE_ROWS as u32;
        if !self.weights_in_ring() {
            let columns = self.config.columns / self.config.waves[1];
            let column = k.mul_const(wave, columns.into());
            return (k.add(column, n), tile, tile / 2);
        }
        let half = self.half(k, wave);
        let in_group = split(k, wave, WARPGROUP / self.target.wave).1;
        let column = k.mul_const(in_group, 2 * i64::from(tile));
        let half = k.mul_const(half, i64::from(tile) / 2);
        let column = k.add(column, half);
        (k.add(column, n), UNIT_COLUMNS, tile)
    }

    /// Stores the accumulators of a turn's rows to the stage.
    pub(super) fn stage_sums(
        &self,
        k: &mut Builder,
        family: &Family<'_>,
        sums: &[Value],
        stage: &Stage,
        turn: Value,
    ) {
        let lane = k.lane(self.target);
        let (n, g) = split(k, lane, 4);
        let (column, of_unit, of_row) = self.columns_of_lane(k, n);
        let row = k.mul_const(g, 2 * i64::from(stage.pitch));
        let lane = k.add(row, column);
        let at = k.element_u32(stage.base, Elem::F32, lane);
        let groups = self.config.rows / COLUMN_GROUP;
        let units = self.config.columns / UNIT_COLUMNS;
        let of_turn = stage.rows / COLUMN_GROUP;
        for first in (0..groups).step_by(of_turn as usize) {
            let store = |k: &mut Builder| {
                for set in 0..self.sets(family) {
                    let (slot, unit) = (set / units, set % units);
                    for group in first..first + of_turn {
                        let sum = sums[(set * groups + group) as usize];
                        for element in 0..4 {
                            let row = (group - first) * COLUMN_GROUP + element % 2;
                            let column = unit * of_unit + element / 2 * of_row;
                            let plane = slot * stage.rows;
                            let offset = (plane + row) * stage.pitch + column;
                            let to = k.offset_const(at, i64::from(offset) * 4);
                            let number = k.extract(sum, element);
                            k.store(number, to);
                        }
                    }
                }
            };
            if of_turn == groups {
                store(k);
            } else {
                let this = k.i32((first / of_turn) as i32);
                let here = k.cmp(Cmp::Eq, turn, this);
                k.if_then(here, store);
            }
        }
    }
}

/// What a lane copies of each block; the first of its addresses is that of block 0.
struct Copies {
    takes_part: Value,
    from: Value,
    /// Bytes to the next block, `i64`.
    step: Value,
    /// Offset in a stage.
    to: Value,
    bytes: Value,
}
