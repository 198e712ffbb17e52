//! Attention of many tokens: a wave takes 16 rows, or a few times 16, of one head.
//!
//! Waves share nothing but caches, so neighbours are rows that read the same keys and values: the
//! heads of a group, then the next rows. Workgroups of one KV head go to one die. A row sees the
//! more positions the later it is; workgroups are paired, the longest with the shortest, so that
//! any stretch of them is about as much work as any other.

use super::matrix::{Lane, Matrix};
use super::walk::{Blocks, Column, Queries, Tile, Walk};
use super::{CHUNK, COLUMNS, Memory, Shape, to_f16};
use crate::kernels::KernelSource;
use crate::kernels::instance::Draft;
use crate::mlir::builder::Cmp;
use crate::mlir::{Builder, Elem, Value};
use crate::target::MatrixLayout;
use waveloom_plan as plan;

/// Waves of a workgroup.
const WAVES: u32 = 4;

/// The kernel for `tokens` rows.
pub(super) fn kernel(shape: &Shape<'_>, tokens: plan::Expr, capacity: plan::Expr) -> KernelSource {
    let tile = tile(shape, &Matrix::new(shape));
    let mut draft = Draft::for_gpu("attention_prefill", WAVES * shape.target.wave);
    let memory = Memory::new(&mut draft, capacity);
    let count = draft.number(tokens.clone());
    let k = &mut draft.builder;
    let count = k.trunc(count, Elem::I32);
    let prefill = Prefill { shape, tile, memory: &memory, tokens: count };
    prefill.emit(k);
    k.plan_registers(Walk::registers(shape, &Matrix::new(shape), &tile), shape.target);
    let number = |n: u32| plan::Expr::from(i64::from(n));
    let ceil_div = |a: plan::Expr, b: u32| plan::Expr::CeilDiv(Box::new(a), Box::new(number(b)));
    let blocks = ceil_div(tokens, tile.columns * COLUMNS);
    let groups = number(shape.kv_heads) * ceil_div(blocks * number(shape.group()), WAVES);
    let dies = shape.target.dies;
    let grid = number(dies) * ceil_div(groups, dies);
    draft.finish(shape.summary("prefill"), grid, 0)
}

/// What fits the registers.
fn tile(shape: &Shape<'_>, matrix: &Matrix<'_>) -> Tile {
    let layout = shape.target.layout;
    let head = shape.head_dim;
    // Twice the rows for each byte of the cache, where registers allow it.
    let columns = if layout == MatrixLayout::Mfma && head <= 128 { 2 } else { 1 };
    let spans = if head > 128 && layout != MatrixLayout::Mfma { 1 } else { 2 };
    let depth = if layout == MatrixLayout::Wmma3 { 4 } else { 8 };
    Tile {
        columns,
        spans,
        depth: depth.min(spans * Walk::fragments(shape, matrix)),
        whole: layout == MatrixLayout::Wmma3,
        shared_queries: match layout {
            MatrixLayout::Mfma => false,
            MatrixLayout::Wmma3 => head > 64,
            MatrixLayout::Wmma4 => head > 128,
        },
        split: false,
    }
}

struct Prefill<'a> {
    shape: &'a Shape<'a>,
    tile: Tile,
    memory: &'a Memory,
    tokens: Value,
}

/// What a wave does.
struct Task {
    kv_head: Value,
    head: Value,
    /// First row.
    row: Value,
}

impl Prefill<'_> {
    fn emit(&self, k: &mut Builder) {
        let group = i64::from(self.shape.group());
        let rows = self.tile.columns * COLUMNS;
        let blocks = k.ceil_div_const(self.tokens, rows.into());
        let tasks = k.mul_const(blocks, group);
        let groups = k.ceil_div_const(tasks, WAVES.into());
        let all = k.mul_const(groups, self.shape.kv_heads.into());
        let index = self.workgroup(k, all);
        let there = k.cmp(Cmp::Lt, index, all);
        k.if_then(there, |k| {
            let kv_head = k.udiv(index, groups);
            let before = k.mul(kv_head, groups);
            let index = k.sub(index, before);
            let index = longest_with_shortest(k, index, groups);
            let wave = k.wave(self.shape.target);
            let first = k.mul_const(index, WAVES.into());
            let task = k.add(first, wave);
            let there = k.cmp(Cmp::Lt, task, tasks);
            k.if_then(there, |k| {
                let group = k.i32(group as i32);
                let block = k.udiv(task, group);
                let before = k.mul(block, group);
                let inside = k.sub(task, before);
                let head = k.mul(kv_head, group);
                let head = k.add(head, inside);
                let row = k.mul_const(block, rows.into());
                self.wave(k, &Task { kv_head, head, row }, wave);
            });
        });
    }

    /// This workgroup in the order of the work: dies, which workgroups go round, get neighbours.
    fn workgroup(&self, k: &mut Builder, all: Value) -> Value {
        let workgroup = k.workgroup();
        let dies = i64::from(self.shape.target.dies);
        if dies == 1 {
            return workgroup;
        }
        let share = k.ceil_div_const(all, dies);
        let dies = k.i32(dies as i32);
        let inside = k.udiv(workgroup, dies);
        let before = k.mul(inside, dies);
        let die = k.sub(workgroup, before);
        let before = k.mul(die, share);
        k.add(before, inside)
    }

    fn wave(&self, k: &mut Builder, task: &Task, wave: Value) {
        let shape = self.shape;
        let lane = Lane::new(k, shape.target);
        let matrix = Matrix::new(shape);
        let last = k.add_const(self.tokens, -1);
        let rows: Vec<Value> = (0..self.tile.columns)
            .map(|column| {
                let row = k.add_const(task.row, (column * COLUMNS).into());
                k.add(row, lane.n)
            })
            .collect();
        let positions: Vec<Value> = rows
            .iter()
            .map(|&row| {
                let row = k.min(row, last);
                let at = k.element_u32(self.memory.positions, Elem::I32, row);
                k.load(at, Elem::I32)
            })
            .collect();
        let oldest = self.over_rows(k, &positions, Builder::min);
        let newest = self.over_rows(k, &positions, Builder::max);
        let queries = self.queries(k, &matrix, lane, task, &rows, wave);
        let walk = Walk {
            shape,
            tile: self.tile,
            matrix,
            lane,
            caches: self.memory.head(k, shape, task.kv_head),
            queries,
            positions,
            limit: newest,
        };
        let block = self.tile.block(&walk.matrix);
        let start = match shape.window {
            None => k.i32(0),
            Some(window) => {
                let first = k.add_const(oldest, 1 - i64::from(window));
                let zero = k.i32(0);
                let first = k.max(first, zero);
                let mask = k.i32(-(block as i32));
                k.and(first, mask)
            }
        };
        let end = k.add_const(newest, 1);
        let blocks = Blocks::new(k, &walk, start, block, end, [oldest, newest]);
        let columns = walk.run(k, &blocks);
        for (column, row) in columns.into_iter().zip(rows) {
            self.store(k, &walk, task, row, &column);
        }
    }

    /// Combines a number over all rows; uniform.
    fn over_rows(
        &self,
        k: &mut Builder,
        columns: &[Value],
        combine: fn(&mut Builder, Value, Value) -> Value,
    ) -> Value {
        let all = columns[1..].iter().fold(columns[0], |all, &column| combine(k, all, column));
        let all = k.reduce_lanes(all, COLUMNS, self.shape.target, combine);
        k.first_lane(all)
    }

    /// The queries in f16; rows that are not there are zeros.
    fn queries(
        &self,
        k: &mut Builder,
        matrix: &Matrix<'_>,
        lane: Lane,
        task: &Task,
        rows: &[Value],
        wave: Value,
    ) -> Queries {
        let shape = self.shape;
        let before = k.mul_const(task.head, i64::from(shape.head_dim) * 4);
        let head = k.offset_u32(self.memory.queries, before);
        let buffer = k.resource(head, shape.target);
        let steps = Walk::steps(shape, matrix);
        let by_column: Vec<Vec<Value>> = rows
            .iter()
            .map(|&row| {
                let lanes = self.query_lanes(k, matrix, lane, row);
                (0..steps)
                    .map(|step| {
                        let lanes = lanes[usize::from(step + 1 == steps)];
                        load_chunk(k, buffer, lanes, step * matrix.groups())
                    })
                    .collect()
            })
            .collect();
        if self.tile.shared_queries {
            return self.share(k, matrix, lane, &by_column, wave);
        }
        let spread = |k: &mut Builder, chunks: Vec<Value>| -> Vec<Value> {
            chunks.into_iter().map(|chunk| matrix.spread(k, lane, chunk)).collect()
        };
        Queries::Registers(by_column.into_iter().map(|chunks| spread(k, chunks)).collect())
    }

    /// Offset of this lane's chunk of a row of queries, and for the last step, where fewer lanes
    /// may have one.
    fn query_lanes(
        &self,
        k: &mut Builder,
        matrix: &Matrix<'_>,
        lane: Lane,
        row: Value,
    ) -> [Value; 2] {
        let width = i64::from(self.shape.heads * self.shape.head_dim);
        let outside = k.i32(Builder::OUTSIDE);
        let before = k.mul_const(row, width * 4);
        let group = k.mul_const(lane.g, i64::from(CHUNK) * 4);
        let offset = k.add(before, group);
        let there = k.cmp(Cmp::Lt, row, self.tokens);
        let offset = k.select(there, offset, outside);
        match self.shape.chunks() % matrix.groups() {
            0 => [offset; 2],
            chunks => {
                let chunks = k.i32(chunks as i32);
                let there = k.cmp(Cmp::Lt, lane.g, chunks);
                [offset, k.select(there, offset, outside)]
            }
        }
    }

    /// Puts chunks into LDS, where only this wave reads them.
    fn share(
        &self,
        k: &mut Builder,
        matrix: &Matrix<'_>,
        lane: Lane,
        by_column: &[Vec<Value>],
        wave: Value,
    ) -> Queries {
        let column_bytes = by_column[0].len() as u32 * matrix.groups() * COLUMNS * 16;
        let wave_bytes = column_bytes * by_column.len() as u32;
        let shared = k.shared(WAVES * wave_bytes);
        let before = k.mul_const(wave, wave_bytes.into());
        let shared = k.offset_u32(shared, before);
        let group = k.mul_const(lane.g, COLUMNS.into());
        let index = k.add(group, lane.n);
        let bytes = k.mul_const(index, 16);
        let own = k.offset_u32(shared, bytes);
        let mut addresses = vec![];
        for (column, chunks) in by_column.iter().enumerate() {
            let before = column as u32 * column_bytes;
            for (step, &chunk) in chunks.iter().enumerate() {
                let step = step as u32 * matrix.groups() * COLUMNS * 16;
                let at = k.offset_const(own, i64::from(before + step));
                k.store_aligned(chunk, at, 16);
            }
            addresses.push(k.offset_const(shared, before.into()));
        }
        Queries::Shared(addresses)
    }

    /// Normalized results of a column tile's rows.
    fn store(&self, k: &mut Builder, walk: &Walk<'_>, task: &Task, row: Value, column: &Column) {
        let shape = self.shape;
        let there = k.cmp(Cmp::Lt, row, self.tokens);
        k.if_then(there, |k| {
            let before = k.mul_const(task.head, i64::from(shape.head_dim) * 4);
            let head = k.offset_u32(self.memory.result, before);
            let before = k.mul_const(row, i64::from(shape.heads * shape.head_dim) * 4);
            let first = walk.matrix.first_element(k, walk.lane.g);
            let bytes = k.mul_const(first, 4);
            let before = k.add(before, bytes);
            let at = k.offset_u32(head, before);
            let one = k.f32(1.0);
            let inverse = k.div(one, column.mass);
            for (tile, &sums) in column.sums.iter().enumerate() {
                let at = k.offset_const(at, 4 * i64::from(COLUMNS) * tile as i64);
                let elements = shape.head_dim - tile as u32 * COLUMNS;
                let inverse = k.splat(inverse, sums.ty.lanes);
                let result = k.mul(sums, inverse);
                let store = |k: &mut Builder| {
                    for part in 0..sums.ty.lanes / 4 {
                        let at = k.offset_const(at, 16 * i64::from(part));
                        let result = k.slice(result, 4 * part, 4);
                        k.store_aligned(result, at, 16);
                    }
                };
                if elements >= COLUMNS {
                    store(k);
                } else {
                    let elements = k.i32(elements as i32);
                    let there = k.cmp(Cmp::Lt, first, elements);
                    k.if_then(there, store);
                }
            }
        });
    }
}

/// 8 numbers from chunk `chunk` on in f16; what f16 cannot hold becomes its largest number.
fn load_chunk(k: &mut Builder, buffer: Value, lanes: Value, chunk: u32) -> Value {
    let [low, high] = [0, 16].map(|bytes| {
        let offset = k.i32((chunk * CHUNK * 4 + bytes) as i32);
        k.load_resource(buffer, lanes, offset, Elem::F32.vec(4))
    });
    let numbers = k.concat(low, high);
    to_f16(k, numbers)
}

/// Numbers 0, n − 1, 1, n − 2, … for 0, 1, 2, 3, … below `n`.
fn longest_with_shortest(k: &mut Builder, index: Value, n: Value) -> Value {
    let one = k.i32(1);
    let half = k.shr_u(index, one);
    let odd = k.and(index, one);
    let zero = k.i32(0);
    let is_even = k.cmp(Cmp::Eq, odd, zero);
    let last = k.sub(n, one);
    let from_end = k.sub(last, half);
    k.select(is_even, half, from_end)
}
