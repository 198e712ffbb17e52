//! Attention of one token: the rows are the heads that read one KV head, so that each byte of the
//! cache is read once for all of them.
//!
//! The grid is fixed when the kernel is made: workgroups for each KV head, enough to fill the chip.
//! How many positions there are is read from device memory; a *share* of them goes to each
//! workgroup, of which waves take blocks in turn. Shares are at least so large that what a workgroup
//! moves besides keys and values is little, so a short context has work for some workgroups only;
//! the others end at once.
//!
//! The waves' results are combined through LDS; with several shares, those of the workgroups through
//! scratch (see `shares`).

use super::matrix::{Lane, Matrix, REST};
use super::shares::{PAIR, pair, weight};
use super::walk::{Blocks, Column, Queries, Tile, Walk, load_query};
use super::{CHUNK, COLUMNS, Memory, Shape, to_f16};
use crate::kernels::KernelSource;
use crate::kernels::gpu::last::is_last;
use crate::kernels::instance::Draft;
use crate::mlir::builder::Cmp;
use crate::mlir::{Builder, Elem, Ty, Value};
use crate::target::MatrixLayout;
use waveloom_ir::numerics::Rounding;
use waveloom_plan as plan;

/// Waves of a workgroup, if no more are asked for.
const WAVES: u32 = 4;
/// Most heads of a workgroup: the other columns are their second parts.
const ROWS: u32 = COLUMNS / 2;
/// Fewest positions of a share, for each head of the group: queries and results, 4 bytes an element
/// each, are then a thirty-second of the keys and values.
const POSITIONS_PER_HEAD: u32 = 64;
/// Most shares: their sums of probabilities are in LDS when they are combined.
const MAX_SHARES: u32 = 128;
/// Workgroups for each compute unit, if the context is long enough.
const OCCUPANCY: u32 = 2;
/// Four numbers: neighbouring elements of one head.
const VECTOR: Ty = Elem::F32.vec(4);

/// How the work is divided.
#[derive(Clone, Copy, Debug)]
struct Split {
    /// Workgroups for each KV head, of [`Split::rows`] query heads each.
    parts: u32,
    rows: u32,
    /// Shares of the positions: workgroups for each part.
    shares: u32,
    /// Fewest positions of a share.
    positions: u32,
}

impl Split {
    fn new(shape: &Shape<'_>, context: u32, stride: u32) -> Split {
        let group = shape.group();
        let parts = group.div_ceil(ROWS);
        let rows = group.div_ceil(parts);
        let positions = (POSITIONS_PER_HEAD * rows).next_multiple_of(stride);
        let wanted = (OCCUPANCY * shape.target.compute_units).div_ceil(shape.kv_heads * parts);
        let useful = context.div_ceil(positions).clamp(1, MAX_SHARES);
        Split { parts, rows, shares: wanted.clamp(1, useful), positions }
    }
}

/// The kernel for at most `context` positions; `None` where counters are too few.
pub(super) fn kernel(
    shape: &Shape<'_>,
    context: u32,
    capacity: plan::Expr,
) -> Option<KernelSource> {
    let matrix = Matrix::new(shape);
    let tile = tile(shape, &matrix);
    let waves = WAVES.max((shape.work_items / shape.target.wave).next_power_of_two());
    let split = Split::new(shape, context, waves * tile.block(&matrix));
    let counters = shape.kv_heads * split.parts;
    if u64::from(counters) * 4 > plan::SCRATCH_COUNTERS {
        return None;
    }
    let mut draft = Draft::for_gpu("attention_decode", waves * shape.target.wave, shape.target);
    let memory = Memory::new(&mut draft, capacity);
    let scratch = draft.scratch();
    let k = &mut draft.builder;
    let decode = Decode::new(k, shape, &memory, scratch, split, tile, waves);
    decode.emit(k);
    k.plan_registers(Walk::registers(shape, &matrix, &tile), shape.target);
    let partial = u64::from(decode.partial_bytes()) * u64::from(split.shares * counters);
    let scratch_bytes = plan::SCRATCH_COUNTERS + partial;
    let grid = i64::from(counters * split.shares);
    let numerics = shape.numerics(Rounding::TwoF16);
    let source = draft.finish(shape.summary("decode"), grid.into(), scratch_bytes);
    Some(KernelSource { numerics, ..source })
}

/// What fits the registers.
fn tile(shape: &Shape<'_>, matrix: &Matrix<'_>) -> Tile {
    let layout = shape.target.layout;
    let head = shape.head_dim;
    let spans = match layout {
        MatrixLayout::Mfma => 2,
        MatrixLayout::Mma if head > 64 => 1,
        _ if head > 128 => 1,
        _ => 2,
    };
    // Where a fragment is two loads, half as many, and fewer of long heads.
    let depth = match (layout, head) {
        (MatrixLayout::Mma, 0..=64) => 4,
        (MatrixLayout::Mma, 65..=128) => 3,
        (MatrixLayout::Mma, _) => 2,
        _ => 8,
    };
    Tile {
        columns: 1,
        spans,
        depth: (spans * Walk::fragments(shape, matrix)).min(depth),
        whole: false,
        shared_queries: layout != MatrixLayout::Mfma && head > 64,
        split: true,
    }
}

/// The code of a workgroup.
struct Decode<'a> {
    shape: &'a Shape<'a>,
    memory: &'a Memory,
    scratch: Value,
    split: Split,
    tile: Tile,
    /// Waves of the workgroup: a power of two.
    waves: u32,
    matrix: Matrix<'a>,
    thread: Value,
    wave: Value,
    lane: Lane,
    /// Which counter: KV head and part.
    part: Value,
    kv_head: Value,
    /// First query head, and how many.
    head: Value,
    rows: Value,
    /// Share of the positions.
    share: Value,
}

impl<'a> Decode<'a> {
    fn new(
        k: &mut Builder,
        shape: &'a Shape<'a>,
        memory: &'a Memory,
        scratch: Value,
        split: Split,
        tile: Tile,
        waves: u32,
    ) -> Decode<'a> {
        let (workgroup, shares) = (k.workgroup(), k.i32(split.shares as i32));
        let part = k.udiv(workgroup, shares);
        let before = k.mul(part, shares);
        let share = k.sub(workgroup, before);
        let parts = k.i32(split.parts as i32);
        let kv_head = k.udiv(part, parts);
        let before = k.mul(kv_head, parts);
        let inside = k.sub(part, before);
        let first = k.mul_const(inside, split.rows.into());
        let before = k.mul_const(kv_head, shape.group().into());
        let head = k.add(before, first);
        let group = k.i32(shape.group() as i32);
        let left = k.sub(group, first);
        let most = k.i32(split.rows as i32);
        let rows = if split.parts == 1 { most } else { k.min(left, most) };
        let (thread, wave) = (k.thread(), k.wave(shape.target));
        let (lane, matrix) = (Lane::new(k, shape.target), Matrix::new(shape));
        Decode {
            shape,
            memory,
            scratch,
            split,
            tile,
            waves,
            matrix,
            thread,
            wave,
            lane,
            part,
            kv_head,
            head,
            rows,
            share,
        }
    }

    /// Work-items of a workgroup.
    fn work_items(&self) -> u32 {
        self.waves * self.shape.target.wave
    }

    /// Groups of four elements of a head, in whole tiles.
    fn vectors(&self) -> u32 {
        Walk::value_tiles(self.shape) * COLUMNS / 4
    }

    /// Bytes of a workgroup's results.
    fn sums_bytes(&self) -> u32 {
        self.vectors() * ROWS * VECTOR.bytes()
    }

    /// Bytes of a workgroup's results and their masses.
    fn partial_bytes(&self) -> u32 {
        self.sums_bytes() + ROWS * PAIR.bytes()
    }

    fn emit(&self, k: &mut Builder) {
        let zero = k.i32(0);
        let at = k.offset_const(self.memory.positions, 0);
        let position = k.load_uniform(at, Elem::I32);
        let length = k.add_const(position, 1);
        let stride = self.waves * self.tile.block(&self.matrix);
        let start = match self.shape.window {
            None => zero,
            Some(window) => {
                let first = k.add_const(length, -i64::from(window));
                let first = k.max(first, zero);
                let mask = k.i32(-(self.tile.block(&self.matrix) as i32));
                k.and(first, mask)
            }
        };
        // Positions of a share: a multiple of what the waves do at once.
        let positions = k.sub(length, start);
        let per_share = k.ceil_div_const(positions, (self.split.shares * stride).into());
        let per_share = k.mul_const(per_share, stride.into());
        let fewest = k.i32(self.split.positions as i32);
        let per_share = k.max(per_share, fewest);
        let before = k.mul(self.share, per_share);
        let first = k.add(start, before);
        let there = k.cmp(Cmp::Lt, first, length);
        k.if_then(there, |k| {
            let end = k.add(first, per_share);
            let end = k.min(end, length);
            let column = self.positions(k, position, first, end);
            let (sums, mass) = self.over_waves(k, column);
            let alone = k.cmp(Cmp::Ge, per_share, positions);
            k.if_else(
                alone,
                |k| {
                    self.store_alone(k, &sums, mass);
                    []
                },
                |k| {
                    // How many shares there are.
                    let more = k.add_const(per_share, -1);
                    let padded = k.add(positions, more);
                    let shares = k.udiv(padded, per_share);
                    self.store_partial(k, &sums, mass);
                    self.combine(k, shares);
                    []
                },
            );
        });
    }

    /// The wave's walk over its blocks of positions `first` to `end`.
    fn positions(&self, k: &mut Builder, position: Value, first: Value, end: Value) -> Column {
        let queries = self.queries(k);
        let limit = k.add_const(end, -1);
        let walk = Walk {
            shape: self.shape,
            tile: self.tile,
            matrix: self.matrix,
            lane: self.lane,
            caches: self.memory.head(k, self.shape, self.kv_head),
            queries,
            positions: vec![position],
            limit,
        };
        let block = self.tile.block(&self.matrix);
        let before = k.mul_const(self.wave, block.into());
        let start = k.add(first, before);
        let stride = self.waves * block;
        let blocks = Blocks::new(k, &walk, start, stride, end, [position; 2]);
        let columns = walk.run(k, &blocks);
        self.one_column(k, columns)
    }

    /// The parts of numbers that are in two lines of a lane added up.
    fn one_column(&self, k: &mut Builder, mut columns: Vec<Column>) -> Column {
        let first = columns.remove(0);
        let Some(second) = columns.first() else { return first };
        let pairs = first.sums.iter().zip(&second.sums);
        let sums = pairs.map(|(&a, &b)| self.matrix.join(k, self.lane, &[a, b])).collect();
        Column { sums, ..first }
    }

    /// Queries through LDS, once for all waves: each in two parts, as columns n and n + 8.
    fn queries(&self, k: &mut Builder) -> Queries {
        let steps = Walk::steps(self.shape, &self.matrix);
        let chunks = steps * self.matrix.groups();
        let shared = k.shared(chunks * COLUMNS * 16);
        let items = k.i32((chunks * ROWS) as i32);
        k.for_strided(self.thread, items, self.work_items(), |k, index| {
            let (mask, shift) = (k.i32(ROWS as i32 - 1), k.i32(ROWS.trailing_zeros() as i32));
            let (row, chunk) = (k.and(index, mask), k.shr_u(index, shift));
            let numbers = self.query_chunk(k, row, chunk);
            store_parts(k, shared, row, chunk, numbers);
        });
        k.barrier_shared();
        if self.tile.shared_queries {
            return Queries::Shared(vec![shared]);
        }
        let mut by_line = vec![];
        for line in 0..self.matrix.lines() {
            let load = |step| load_query(k, &self.matrix, self.lane, shared, step, line);
            by_line.push((0..steps).map(load).collect());
        }
        Queries::Registers(by_line)
    }

    /// 8 numbers of query row `row` of this workgroup, zeros where there are none.
    fn query_chunk(&self, k: &mut Builder, row: Value, chunk: Value) -> Value {
        let exist = k.i32(self.shape.chunks() as i32);
        let in_head = k.cmp(Cmp::Lt, chunk, exist);
        let in_group = k.cmp(Cmp::Lt, row, self.rows);
        let there = k.and(in_head, in_group);
        let zero = k.zero(VECTOR);
        let [low, high] = k.if_else(
            there,
            |k| {
                let head = k.add(self.head, row);
                let before = k.mul_const(head, self.shape.head_dim.into());
                let inside = k.mul_const(chunk, CHUNK.into());
                let element = k.add(before, inside);
                let at = k.element_u32(self.memory.queries, Elem::F32, element);
                [0, 16].map(|bytes| {
                    let at = k.offset_const(at, bytes);
                    k.load_aligned(at, VECTOR, 16)
                })
            },
            |_| [zero; 2],
        );
        k.concat(low, high)
    }

    // ---- waves ------------------------------------------------------------------------------

    /// Bytes before vector `vector` of tile `tile` of this lane's sums: four elements of `columns`
    /// columns side by side, so that the lanes of a group access neighbours.
    fn slot(&self, k: &mut Builder, tile: usize, vector: u32, columns: u32) -> Value {
        let per_lane = self.matrix.sums() / 4;
        let group = k.mul_const(self.lane.g, per_lane.into());
        let first = tile as u32 * COLUMNS / 4 + vector;
        let index = k.add_const(group, first.into());
        let index = k.mul_const(index, columns.into());
        let index = k.add(index, self.lane.n);
        k.mul_const(index, VECTOR.bytes().into())
    }

    /// Stores this lane's sums of a tile.
    fn store_tile(&self, k: &mut Builder, at: Value, tile: usize, columns: u32, sums: Value) {
        for vector in 0..self.matrix.sums() / 4 {
            let slot = self.slot(k, tile, vector, columns);
            let at = k.offset_u32(at, slot);
            let vector = k.slice(sums, 4 * vector, 4);
            k.store_aligned(vector, at, 16);
        }
    }

    /// Bytes of a wave's results in LDS.
    fn area_bytes(&self) -> u32 {
        self.vectors() * self.columns() * VECTOR.bytes()
    }

    /// Columns of a wave's results: of two lines of a lane one is left.
    fn columns(&self) -> u32 {
        COLUMNS / self.matrix.lines()
    }

    /// Adds up the waves' results; gives those of the workgroup in wave 0, and their largest scaled
    /// score and sum of probabilities.
    fn over_waves(&self, k: &mut Builder, column: Column) -> (Vec<Value>, [Value; 2]) {
        let factor = k.float(Elem::F32, Walk::factor(self.shape));
        let largest = k.mul(column.largest, factor);
        let (weight, mass) = self.weigh_waves(k, largest, column.mass);
        let mut sums: Vec<Value> = column
            .sums
            .iter()
            .map(|&sums| {
                let weight = k.splat(weight, sums.ty.lanes);
                k.mul(sums, weight)
            })
            .collect();
        let mut half = self.waves / 2;
        let shared = k.shared(half * self.area_bytes());
        while half > 0 {
            let first = k.i32(half as i32);
            let gives = k.cmp(Cmp::Ge, self.wave, first);
            let in_use = k.i32(2 * half as i32);
            let in_use = k.cmp(Cmp::Lt, self.wave, in_use);
            let gives = k.and(gives, in_use);
            k.if_then(gives, |k| {
                let area = k.sub(self.wave, first);
                let at = self.area(k, shared, area);
                for (tile, &sums) in sums.iter().enumerate() {
                    self.store_tile(k, at, tile, self.columns(), sums);
                }
            });
            k.barrier_shared();
            sums = self.take(k, first, shared, sums);
            half /= 2;
            if half > 0 {
                k.barrier_shared();
            }
        }
        (sums, mass)
    }

    fn area(&self, k: &mut Builder, shared: Value, area: Value) -> Value {
        let before = k.mul_const(area, self.area_bytes().into());
        k.offset_u32(shared, before)
    }

    /// In waves before `first`: sums plus those of another wave. Tile by tile, for the sake of
    /// registers.
    fn take(&self, k: &mut Builder, first: Value, shared: Value, sums: Vec<Value>) -> Vec<Value> {
        let takes = k.cmp(Cmp::Lt, self.wave, first);
        let at = self.area(k, shared, self.wave);
        let tiles = sums.into_iter().enumerate();
        tiles
            .map(|(tile, sums)| {
                let add = |k: &mut Builder| {
                    let mut others = vec![];
                    for vector in 0..self.matrix.sums() / 4 {
                        let slot = self.slot(k, tile, vector, self.columns());
                        let at = k.offset_u32(at, slot);
                        others.push(k.load_aligned(at, VECTOR, 16));
                    }
                    let others = match others[..] {
                        [low, high] => k.concat(low, high),
                        _ => others[0],
                    };
                    [k.add(sums, others)]
                };
                let [sums] = k.if_else(takes, add, |_| [sums]);
                sums
            })
            .collect()
    }

    /// What this wave's sums are worth, and the workgroup's largest scaled score and mass.
    fn weigh_waves(&self, k: &mut Builder, largest: Value, mass: Value) -> (Value, [Value; 2]) {
        let shared = k.shared(self.waves * COLUMNS * PAIR.bytes());
        let (zero, columns) = (k.i32(0), i64::from(COLUMNS));
        let first = k.cmp(Cmp::Eq, self.lane.g, zero);
        let column = k.mul_const(self.lane.n, PAIR.bytes().into());
        let column = k.offset_u32(shared, column);
        k.if_then(first, |k| {
            let before = k.mul_const(self.wave, columns * i64::from(PAIR.bytes()));
            let at = k.offset_u32(column, before);
            let pair = pair(k, largest, mass);
            k.store_aligned(pair, at, 8);
        });
        k.barrier_shared();
        let pairs: Vec<Value> = (0..self.waves)
            .map(|wave| {
                let at = k.offset_const(column, i64::from(wave * COLUMNS * PAIR.bytes()));
                k.load_aligned(at, PAIR, 8)
            })
            .collect();
        let tops: Vec<Value> = pairs.iter().map(|&pair| k.extract(pair, 0)).collect();
        let top = tops[1..].iter().fold(tops[0], |top, &other| k.max_number(top, other));
        let mut total = k.f32(0.0);
        for (&pair, &largest) in pairs.iter().zip(&tops) {
            let weight = weight(k, largest, top);
            let mass = k.extract(pair, 1);
            total = k.fma(mass, weight, total);
        }
        (weight(k, largest, top), [top, total])
    }

    // ---- workgroups -------------------------------------------------------------------------

    /// Runs `body` for each tile of the results of wave 0, in lanes that have results of a head.
    fn for_results(
        &self,
        k: &mut Builder,
        sums: &[Value],
        body: impl Fn(&mut Builder, usize, Value),
    ) {
        let zero = k.i32(0);
        let is_first = k.cmp(Cmp::Eq, self.wave, zero);
        let is_head = k.cmp(Cmp::Lt, self.lane.n, self.rows);
        k.if_then(is_first, |k| {
            for (tile, &sums) in sums.iter().enumerate() {
                // Parts in two lines were joined before.
                let joined = match self.matrix.lines() {
                    1 => self.matrix.join(k, self.lane, &[sums]),
                    _ => sums,
                };
                k.if_then(is_head, |k| body(k, tile, joined));
            }
        });
    }

    /// The results, where this workgroup has seen all positions.
    fn store_alone(&self, k: &mut Builder, sums: &[Value], [_, mass]: [Value; 2]) {
        let one = k.f32(1.0);
        let inverse = k.div(one, mass);
        let inverse = k.splat(inverse, 4);
        let first = self.matrix.first_element(k, self.lane.g);
        self.for_results(k, sums, |k, tile, sums| {
            for vector in 0..self.matrix.sums() / 4 {
                let before = tile as u32 * COLUMNS + 4 * vector;
                let element = k.add_const(first, before.into());
                let result = k.slice(sums, 4 * vector, 4);
                let result = k.mul(result, inverse);
                self.store(k, self.lane.n, element, result);
            }
        });
    }

    /// Stores four elements of a head, where it has them.
    fn store(&self, k: &mut Builder, row: Value, element: Value, result: Value) {
        let elements = k.i32(self.shape.head_dim as i32);
        let there = k.cmp(Cmp::Lt, element, elements);
        k.if_then(there, |k| {
            let head = k.add(self.head, row);
            let before = k.mul_const(head, self.shape.head_dim.into());
            let element = k.add(before, element);
            let at = k.element_u32(self.memory.result, Elem::F32, element);
            k.store_aligned(result, at, 16);
        });
    }

    /// Where share 0 of this part leaves its results.
    fn partials(&self, k: &mut Builder) -> Value {
        let bytes = i64::from(self.partial_bytes()) * i64::from(self.split.shares);
        let part = k.zext(self.part, Elem::I64);
        let before = k.mul_const(part, bytes);
        let first = k.offset_const(self.scratch, plan::SCRATCH_COUNTERS as i64);
        k.offset(first, before)
    }

    fn store_partial(&self, k: &mut Builder, sums: &[Value], [largest, mass]: [Value; 2]) {
        let partials = self.partials(k);
        let before = k.mul_const(self.share, self.partial_bytes().into());
        let partial = k.offset_u32(partials, before);
        self.for_results(k, sums, |k, tile, sums| {
            self.store_tile(k, partial, tile, ROWS, sums);
            if tile > 0 {
                return;
            }
            let zero = k.i32(0);
            let first = k.cmp(Cmp::Eq, self.lane.g, zero);
            k.if_then(first, |k| {
                let at = k.offset_const(partial, self.sums_bytes().into());
                let row = k.mul_const(self.lane.n, PAIR.bytes().into());
                let at = k.offset_u32(at, row);
                let pair = pair(k, largest, mass);
                k.store_aligned(pair, at, 8);
            });
        });
    }

    /// In the last workgroup of `shares` to get here: the result of all of them.
    fn combine(&self, k: &mut Builder, shares: Value) {
        let counter = k.element_u32(self.scratch, Elem::I32, self.part);
        let flag = k.shared(4);
        let last = is_last(k, counter, shares, flag);
        let pairs = k.shared(MAX_SHARES.min(self.split.shares) * ROWS * PAIR.bytes());
        k.if_then(last, |k| {
            let partials = self.partials(k);
            self.load_pairs(k, partials, pairs, shares);
            let vectors = k.i32((self.shape.head_dim / 4 * ROWS) as i32);
            k.for_strided(self.thread, vectors, self.work_items(), |k, index| {
                let (mask, shift) = (k.i32(ROWS as i32 - 1), k.i32(ROWS.trailing_zeros() as i32));
                let row = k.and(index, mask);
                let is_head = k.cmp(Cmp::Lt, row, self.rows);
                k.if_then(is_head, |k| {
                    let bytes = k.mul_const(index, VECTOR.bytes().into());
                    let from = k.offset_u32(partials, bytes);
                    let row_bytes = k.mul_const(row, PAIR.bytes().into());
                    let pairs = k.offset_u32(pairs, row_bytes);
                    let result = self.over_shares(k, from, pairs, shares);
                    let vector = k.shr_u(index, shift);
                    let element = k.mul_const(vector, 4);
                    self.store(k, row, element, result);
                });
            });
        });
    }

    /// The shares' largest scores and masses into LDS.
    fn load_pairs(&self, k: &mut Builder, partials: Value, pairs: Value, shares: Value) {
        let count = k.mul_const(shares, ROWS.into());
        let first = k.offset_const(partials, self.sums_bytes().into());
        k.for_strided(self.thread, count, self.work_items(), |k, index| {
            let (mask, shift) = (k.i32(ROWS as i32 - 1), k.i32(ROWS.trailing_zeros() as i32));
            let row = k.and(index, mask);
            let is_head = k.cmp(Cmp::Lt, row, self.rows);
            k.if_then(is_head, |k| {
                let share = k.shr_u(index, shift);
                let before = k.mul_const(share, self.partial_bytes().into());
                let inside = k.mul_const(row, PAIR.bytes().into());
                let bytes = k.add(before, inside);
                let from = k.offset_u32(first, bytes);
                let pair = k.load_aligned(from, PAIR, 8);
                let bytes = k.mul_const(index, PAIR.bytes().into());
                let to = k.offset_u32(pairs, bytes);
                k.store_aligned(pair, to, 8);
            });
        });
        k.barrier_shared();
    }

    /// Four elements of a head: all shares' vectors from `from` on, weighed by `pairs`.
    fn over_shares(&self, k: &mut Builder, from: Value, pairs: Value, shares: Value) -> Value {
        let zero = k.i32(0);
        let pair_at = |k: &mut Builder, share: Value| {
            let before = k.mul_const(share, i64::from(ROWS * PAIR.bytes()));
            let at = k.offset_u32(pairs, before);
            k.load_aligned(at, PAIR, 8)
        };
        let none = k.f32(f32::NEG_INFINITY);
        let [top] = k.for_loop(zero, shares, 1, [none], |k, share, [top]| {
            let pair = pair_at(k, share);
            let largest = k.extract(pair, 0);
            [k.max_number(top, largest)]
        });
        // Loads of some shares at once; beyond the last one they are its own again, and count 0.
        const AT_ONCE: u32 = 4;
        let (nothing, empty) = (k.zero(VECTOR), k.f32(0.0));
        let last = k.add_const(shares, -1);
        let start = [nothing, empty];
        let [sums, mass] = k.for_loop(zero, shares, AT_ONCE.into(), start, |k, share, state| {
            let loaded: Vec<[Value; 3]> = (0..AT_ONCE)
                .map(|next| {
                    let share = k.add_const(share, next.into());
                    let there = k.cmp(Cmp::Le, share, last);
                    let share = k.min(share, last);
                    let before = k.mul_const(share, self.partial_bytes().into());
                    let at = k.offset_u32(from, before);
                    [there, k.load_aligned(at, VECTOR, 16), pair_at(k, share)]
                })
                .collect();
            loaded.into_iter().fold(state, |[sums, mass], [there, vector, pair]| {
                let largest = k.extract(pair, 0);
                let weight = weight(k, largest, top);
                let weight = k.select(there, weight, empty);
                let own = k.extract(pair, 1);
                let mass = k.fma(own, weight, mass);
                let weight = k.splat(weight, 4);
                [k.fma(vector, weight, sums), mass]
            })
        });
        let one = k.f32(1.0);
        let inverse = k.div(one, mass);
        let inverse = k.splat(inverse, 4);
        k.mul(sums, inverse)
    }
}

/// Stores a chunk of a query as column `row`, what f16 leaves of it as column `row` + 8.
fn store_parts(k: &mut Builder, shared: Value, row: Value, chunk: Value, numbers: Value) {
    let rounded = to_f16(k, numbers);
    let exact = k.extf(rounded, Elem::F32);
    let rest = k.sub(numbers, exact);
    let scale = k.float(rest.ty, REST);
    let rest = k.mul(rest, scale);
    let rest = to_f16(k, rest);
    let before = k.mul_const(chunk, i64::from(COLUMNS) * 16);
    let inside = k.mul_const(row, 16);
    let bytes = k.add(before, inside);
    // Odd chunks in the other order, so that two chunks at once are in different banks.
    let (one, zero, second) = (k.i32(1), k.i32(0), k.i32(ROWS as i32 * 16));
    let odd = k.and(chunk, one);
    for parity in [1, 0] {
        let parity = k.i32(parity);
        let is_rest = k.cmp(Cmp::Eq, odd, parity);
        let part = k.select(is_rest, rest, rounded);
        let inside = k.select(is_rest, second, zero);
        let bytes = k.add(bytes, inside);
        let at = k.offset_u32(shared, bytes);
        k.store_aligned(part, at, 16);
    }
}
