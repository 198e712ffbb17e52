//! Attention of many tokens: a wave takes 16 rows, or a few times 16, of one head.
//!
//! The waves of a workgroup share nothing but caches, so neighbours are rows that read the same keys and values: the
//! heads of a group, then the next rows. Workgroups of one KV head go to one die. A row sees the
//! more positions the later it is; workgroups are paired, the longest with the shortest, so that
//! any stretch of them is about as much work as any other.
//!
//! Few rows make few workgroups, and with many positions before them each has much to do: then
//! several workgroups have the same rows, and each a share of the positions (see `shares`).

use super::matrix::{Lane, Matrix};
use super::shares::{PAIR, pair, weight};
use super::walk::{Blocks, Column, Queries, Tile, Walk};
use super::{CHUNK, COLUMNS, Memory, Shape, to_f16};
use crate::kernels::KernelSource;
use crate::kernels::gpu::last::is_last;
use crate::kernels::instance::Draft;
use crate::lower_schedule::CACHE_LENGTH;
use crate::mlir::builder::Cmp;
use crate::mlir::gpu::Outside;
use crate::mlir::{Builder, Elem, Ty, Value};
use crate::target::{MatrixLayout, MatrixType};
use waveloom_plan as plan;

/// Waves of a workgroup.
const WAVES: u32 = 4;
/// Four numbers: neighbouring elements of one head.
const VECTOR: Ty = Elem::F32.vec(4);
/// Vectors of a share that are loaded together.
const AT_ONCE: usize = 8;

/// Fewest positions of a share, in whole blocks: several turns of the loop, which is more work than
/// leaving the results and adding them up.
const POSITIONS: u32 = 256;

/// The kernel for `tokens` rows; `most` are most rows and most positions.
pub(super) fn kernel(
    shape: &Shape<'_>,
    tokens: plan::Expr,
    capacity: plan::Expr,
    most: [u32; 2],
) -> KernelSource {
    let tile = tile(shape, &Matrix::new(shape));
    let number = |n: u32| plan::Expr::from(i64::from(n));
    let ceil_div = |a: plan::Expr, b: plan::Expr| plan::Expr::CeilDiv(Box::new(a), Box::new(b));
    let blocks = ceil_div(tokens.clone(), number(tile.columns * COLUMNS));
    let of_head = ceil_div(blocks * number(shape.group()), number(WAVES));
    let groups = number(shape.kv_heads) * of_head;
    let shares = ceil_div(number(most_groups(shape)), groups.clone());
    let mut draft = Draft::for_gpu("attention_prefill", WAVES * shape.target.wave, shape.target);
    let memory = Memory::new(&mut draft, capacity);
    let numbers = [tokens, plan::Expr::Symbol(CACHE_LENGTH), shares.clone()];
    let numbers = numbers.map(|number| draft.number(number));
    let scratch = draft.scratch();
    let k = &mut draft.builder;
    let [count, length, shared] = numbers.map(|number| k.trunc(number, Elem::I32));
    let split = Split { scratch, length, shares: shared };
    let prefill = Prefill { shape, tile, memory: &memory, tokens: count, split };
    prefill.emit(k);
    k.plan_registers(Walk::registers(shape, &Matrix::new(shape), &tile), shape.target);
    let partials = most_partials(shape, &tile, most) * u64::from(prefill.partial_bytes());
    let dies = shape.target.dies;
    let grid = number(dies) * ceil_div(groups * shares, number(dies));
    let numerics = shape.numerics(shape.target.rounding(MatrixType::F16));
    let scratch_bytes = plan::SCRATCH_COUNTERS + partials;
    KernelSource { numerics, ..draft.finish(shape.summary("prefill"), grid, scratch_bytes) }
}

/// Positions are shared as long as there are fewer workgroups than this: compute units, and no
/// more than there are counters.
fn most_groups(shape: &Shape<'_>) -> u32 {
    shape.target.compute_units.min(plan::SCRATCH_COUNTERS as u32 / 4)
}

/// Most results of workgroups that are in scratch together, for at most these rows and positions.
fn most_partials(shape: &Shape<'_>, tile: &Tile, [rows, positions]: [u32; 2]) -> u64 {
    let useful = positions.div_ceil(POSITIONS);
    let partials = (1..=rows.div_ceil(tile.columns * COLUMNS)).map(|blocks| {
        let groups = shape.kv_heads * (blocks * shape.group()).div_ceil(WAVES);
        match most_groups(shape).div_ceil(groups).min(useful) {
            1 => 0,
            shares => u64::from(groups) * u64::from(shares),
        }
    });
    partials.max().unwrap_or(0)
}

/// What fits the registers.
fn tile(shape: &Shape<'_>, matrix: &Matrix<'_>) -> Tile {
    let layout = shape.target.layout;
    let head = shape.head_dim;
    // Twice the rows for each byte of the cache, where registers allow it.
    let columns = if layout == MatrixLayout::Mfma && head <= 128 { 2 } else { 1 };
    let spans = match layout {
        MatrixLayout::Mfma => 2,
        MatrixLayout::Mma if head > 64 => 1,
        _ if head > 128 => 1,
        _ => 2,
    };
    // Where a fragment is two loads, half as many.
    let depth = match layout {
        MatrixLayout::Mma if head > 128 => 2,
        MatrixLayout::Wmma3 | MatrixLayout::Mma => 4,
        MatrixLayout::Mfma | MatrixLayout::Wmma4 => 8,
    };
    Tile {
        columns,
        spans,
        depth: depth.min(spans * Walk::fragments(shape, matrix)),
        whole: layout == MatrixLayout::Wmma3,
        shared_queries: match layout {
            MatrixLayout::Mfma => false,
            MatrixLayout::Wmma3 => head > 64,
            MatrixLayout::Mma => head > 64,
            MatrixLayout::Wmma4 => head > 128,
        },
        split: false,
    }
}

/// How positions are shared among workgroups.
struct Split {
    scratch: Value,
    /// Positions that there are.
    length: Value,
    /// Workgroups for the same rows.
    shares: Value,
}

struct Prefill<'a> {
    shape: &'a Shape<'a>,
    tile: Tile,
    memory: &'a Memory,
    tokens: Value,
    split: Split,
}

/// What a workgroup does.
struct Group {
    /// Its number among those with other rows.
    index: Value,
    /// Its share of the positions, how many there are, and of how many positions.
    share: Value,
    shares: Value,
    per_share: Value,
}

/// What a wave does.
struct Task {
    kv_head: Value,
    head: Value,
    wave: Value,
    lane: Lane,
    /// Rows of this lane and their positions, by column tile and line.
    rows: Vec<Value>,
    positions: Vec<Value>,
    /// The oldest and the newest position of a row; uniform.
    oldest: Value,
    newest: Value,
    /// The first position that a row sees, or one before it where a block begins.
    start: Value,
}

impl Prefill<'_> {
    fn emit(&self, k: &mut Builder) {
        let group = i64::from(self.shape.group());
        let rows = self.tile.columns * COLUMNS;
        let blocks = k.ceil_div_const(self.tokens, rows.into());
        let tasks = k.mul_const(blocks, group);
        let groups = k.ceil_div_const(tasks, WAVES.into());
        let all = k.mul_const(groups, self.shape.kv_heads.into());
        let all = k.mul(all, self.split.shares);
        let index = self.workgroup(k, all);
        let there = k.cmp(Cmp::Lt, index, all);
        let of_group = self.group(k, index);
        let needed = k.cmp(Cmp::Lt, of_group.share, of_group.shares);
        let there = k.and(there, needed);
        k.if_then(there, |k| {
            let kv_head = k.udiv(of_group.index, groups);
            let before = k.mul(kv_head, groups);
            let index = k.sub(of_group.index, before);
            let index = longest_with_shortest(k, index, groups);
            let wave = k.wave(self.shape.target);
            let first = k.mul_const(index, WAVES.into());
            let task = k.add(first, wave);
            let there = k.cmp(Cmp::Lt, task, tasks);
            let task = self.task(k, kv_head, task, wave);
            let (one, counter) = (k.i32(1), of_group.index);
            k.if_then(there, |k| self.walk(k, &task, &of_group));
            let split = k.cmp(Cmp::Gt, of_group.shares, one);
            k.if_then(split, |k| {
                let counter = k.element_u32(self.split.scratch, Elem::I32, counter);
                let flag = k.shared(4);
                let last = is_last(k, counter, of_group.shares, flag);
                let there = k.and(there, last);
                k.if_then(there, |k| self.combine(k, &task, &of_group));
            });
        });
    }

    /// What workgroup `index` has of the rows and of the positions.
    fn group(&self, k: &mut Builder, index: Value) -> Group {
        let Split { length, shares, .. } = self.split;
        let of_rows = k.udiv(index, shares);
        let before = k.mul(of_rows, shares);
        let share = k.sub(index, before);
        let block = self.tile.block(&Matrix::new(self.shape));
        let more = k.add_const(shares, -1);
        let padded = k.add(length, more);
        let per_share = k.udiv(padded, shares);
        let per_share = k.ceil_div_const(per_share, block.into());
        let per_share = k.mul_const(per_share, block.into());
        let fewest = k.i32(POSITIONS.next_multiple_of(block) as i32);
        let per_share = k.max(per_share, fewest);
        let more = k.add_const(per_share, -1);
        let padded = k.add(length, more);
        Group { index: of_rows, share, shares: k.udiv(padded, per_share), per_share }
    }

    fn task(&self, k: &mut Builder, kv_head: Value, task: Value, wave: Value) -> Task {
        let group = k.i32(self.shape.group() as i32);
        let block = k.udiv(task, group);
        let before = k.mul(block, group);
        let inside = k.sub(task, before);
        let head = k.mul(kv_head, group);
        let head = k.add(head, inside);
        let row = k.mul_const(block, (self.tile.columns * COLUMNS).into());
        let (lane, matrix) = (Lane::new(k, self.shape.target), Matrix::new(self.shape));
        let last = k.add_const(self.tokens, -1);
        let mut rows = vec![];
        let mut positions = vec![];
        for index in 0..self.lines() {
            let (column, line) = (index / matrix.lines(), index % matrix.lines());
            let row = k.add_const(row, (column * COLUMNS + matrix.apart(line)).into());
            let row = k.add(row, lane.n);
            let exists = k.min(row, last);
            let at = k.element_u32(self.memory.positions, Elem::I32, exists);
            rows.push(row);
            positions.push(k.load(at, Elem::I32));
        }
        let oldest = over_rows(k, &matrix, &positions, Builder::min);
        let newest = over_rows(k, &matrix, &positions, Builder::max);
        let start = match self.shape.window {
            None => k.i32(0),
            Some(window) => {
                let first = k.add_const(oldest, 1 - i64::from(window));
                let zero = k.i32(0);
                let first = k.max(first, zero);
                let mask = k.i32(-(self.tile.block(&matrix) as i32));
                k.and(first, mask)
            }
        };
        Task { kv_head, head, wave, lane, rows, positions, oldest, newest, start }
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

    /// A wave's walk over its share of the positions; stores the results, or where there are other
    /// shares leaves them for [`Prefill::combine`].
    fn walk(&self, k: &mut Builder, task: &Task, group: &Group) {
        let first = k.mul(group.share, group.per_share);
        let end = k.add(first, group.per_share);
        let start = k.max(first, task.start);
        let seen = k.add_const(task.newest, 1);
        let end = k.min(end, seen);
        let any = k.cmp(Cmp::Lt, start, end);
        k.if_then(any, |k| {
            let columns = self.columns(k, task, start, end);
            let one = k.i32(1);
            let alone = k.cmp(Cmp::Eq, group.shares, one);
            k.if_else(
                alone,
                |k| {
                    self.store(k, task, &columns);
                    []
                },
                |k| {
                    self.store_partial(k, task, group, &columns);
                    []
                },
            );
        });
    }

    /// What the positions from `start`, where a block begins, to `end` give.
    fn columns(&self, k: &mut Builder, task: &Task, start: Value, end: Value) -> Vec<Column> {
        let matrix = Matrix::new(self.shape);
        let queries = self.queries(k, &matrix, task);
        let walk = Walk {
            shape: self.shape,
            tile: self.tile,
            matrix,
            lane: task.lane,
            caches: self.memory.head(k, self.shape, task.kv_head),
            queries,
            positions: task.positions.clone(),
            limit: k.add_const(end, -1),
        };
        let block = self.tile.block(&matrix);
        let blocks = Blocks::new(k, &walk, start, block, end, [task.oldest, task.newest]);
        walk.run(k, &blocks)
    }

    // ---- shares -----------------------------------------------------------------------------

    /// Rows of a lane: lines of all column tiles.
    fn lines(&self) -> u32 {
        self.tile.columns * Matrix::new(self.shape).lines()
    }

    /// Vectors of a lane's sums of a row.
    fn vectors(&self) -> u32 {
        Walk::value_tiles(self.shape) * Matrix::new(self.shape).sums() / VECTOR.lanes
    }

    /// Bytes of a row of each lane in scratch: `[vector][lane]`, then the pairs of the lanes.
    fn column_bytes(&self) -> u32 {
        self.shape.target.wave * (self.vectors() * VECTOR.bytes() + PAIR.bytes())
    }

    /// Bytes of a workgroup's results: `[wave][line]`.
    fn partial_bytes(&self) -> u32 {
        WAVES * self.lines() * self.column_bytes()
    }

    /// Where the wave leaves its results of share `share`: vectors and pair of line 0 of this
    /// lane.
    fn partial(&self, k: &mut Builder, task: &Task, group: &Group, share: Value) -> [Value; 2] {
        let before = k.mul(group.index, group.shares);
        let index = k.add(before, share);
        let index = k.zext(index, Elem::I64);
        let bytes = k.mul_const(index, self.partial_bytes().into());
        let at = k.offset_const(self.split.scratch, plan::SCRATCH_COUNTERS as i64);
        let at = k.offset(at, bytes);
        let before = k.mul_const(task.wave, (self.lines() * self.column_bytes()).into());
        let at = k.offset_u32(at, before);
        let lane = k.lane(self.shape.target);
        let pairs = self.shape.target.wave * self.vectors() * VECTOR.bytes();
        let pairs = k.offset_const(at, pairs.into());
        [(at, VECTOR), (pairs, PAIR)].map(|(at, ty)| {
            let bytes = k.mul_const(lane, ty.bytes().into());
            k.offset_u32(at, bytes)
        })
    }

    fn store_partial(&self, k: &mut Builder, task: &Task, group: &Group, columns: &[Column]) {
        let factor = k.float(Elem::F32, Walk::factor(self.shape));
        let [vectors, pairs] = self.partial(k, task, group, group.share);
        for (index, column) in columns.iter().enumerate() {
            let before = i64::from(index as u32 * self.column_bytes());
            let mut at = k.offset_const(vectors, before);
            for &sums in &column.sums {
                for part in 0..sums.ty.lanes / VECTOR.lanes {
                    let vector = k.slice(sums, part * VECTOR.lanes, VECTOR.lanes);
                    k.store_aligned(vector, at, VECTOR.bytes());
                    at = k.offset_const(at, self.vector_stride());
                }
            }
            let largest = k.mul(column.largest, factor);
            let pair = pair(k, largest, column.mass);
            let at = k.offset_const(pairs, before);
            k.store_aligned(pair, at, PAIR.bytes());
        }
    }

    /// Bytes from one vector of a lane to the next.
    fn vector_stride(&self) -> i64 {
        i64::from(self.shape.target.wave * VECTOR.bytes())
    }

    /// In the last workgroup: the wave's results of all shares.
    fn combine(&self, k: &mut Builder, task: &Task, group: &Group) {
        let first = k.udiv(task.start, group.per_share);
        let last = k.udiv(task.newest, group.per_share);
        let shares = [first, k.add_const(last, 1)];
        let columns: Vec<Column> =
            (0..self.lines()).map(|line| self.over_shares(k, task, group, shares, line)).collect();
        self.store(k, task, &columns);
    }

    /// A line over shares `first` to `end`.
    fn over_shares(
        &self,
        k: &mut Builder,
        task: &Task,
        group: &Group,
        [first, end]: [Value; 2],
        line: u32,
    ) -> Column {
        let before = i64::from(line * self.column_bytes());
        let load_pair = |k: &mut Builder, pairs: Value| {
            let at = k.offset_const(pairs, before);
            let pair = k.load_aligned(at, PAIR, PAIR.bytes());
            [k.extract(pair, 0), k.extract(pair, 1)]
        };
        let start = [k.f32(f32::NEG_INFINITY), k.f32(0.0)];
        let [top, mass] = k.for_loop(first, end, 1, start, |k, share, [top, mass]| {
            let [_, pairs] = self.partial(k, task, group, share);
            let [largest, own] = load_pair(k, pairs);
            let highest = k.max_number(top, largest);
            let [decay, weight] = [top, largest].map(|score| weight(k, score, highest));
            let mass = k.mul(mass, decay);
            [highest, k.fma(own, weight, mass)]
        });
        let mut vectors = vec![];
        for from in (0..self.vectors()).step_by(AT_ONCE) {
            let count = (self.vectors() - from).min(AT_ONCE as u32);
            let zeros = vec![k.zero(VECTOR); count as usize];
            vectors.extend(k.for_values(first, end, 1, &zeros, |k, share, sums| {
                let [at, pairs] = self.partial(k, task, group, share);
                let at = k.offset_const(at, before + i64::from(from) * self.vector_stride());
                let loaded: Vec<Value> = (0..i64::from(count))
                    .map(|index| {
                        let at = k.offset_const(at, index * self.vector_stride());
                        k.load_aligned(at, VECTOR, VECTOR.bytes())
                    })
                    .collect();
                let [largest, _] = load_pair(k, pairs);
                let weight = weight(k, largest, top);
                let weight = k.splat(weight, VECTOR.lanes);
                let pairs = loaded.into_iter().zip(sums);
                pairs.map(|(vector, &sum)| k.fma(vector, weight, sum)).collect()
            }));
        }
        let per_tile = (Matrix::new(self.shape).sums() / VECTOR.lanes) as usize;
        let tiles = vectors.chunks_exact(per_tile);
        let sums = tiles.map(|vectors| match *vectors {
            [low, high] => k.concat(low, high),
            _ => vectors[0],
        });
        Column { sums: sums.collect(), largest: top, mass }
    }

    // ---- rows -------------------------------------------------------------------------------

    /// The queries in f16; rows that are not there are zeros.
    fn queries(&self, k: &mut Builder, matrix: &Matrix<'_>, task: &Task) -> Queries {
        let (shape, lane) = (self.shape, task.lane);
        let before = k.mul_const(task.head, i64::from(shape.head_dim) * 4);
        let head = k.offset_u32(self.memory.queries, before);
        let buffer = k.resource(head, shape.target);
        let steps = Walk::steps(shape, matrix);
        let rows = task.rows.iter();
        let by_column: Vec<Vec<Value>> = rows
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
            return self.share(k, matrix, lane, &by_column, task.wave);
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
        let wave_bytes = column_bytes * self.tile.columns;
        let shared = k.shared(WAVES * wave_bytes);
        let before = k.mul_const(wave, wave_bytes.into());
        let shared = k.offset_u32(shared, before);
        let group = k.mul_const(lane.g, COLUMNS.into());
        let index = k.add(group, lane.n);
        let bytes = k.mul_const(index, 16);
        let own = k.offset_u32(shared, bytes);
        let mut addresses = vec![];
        for (index, chunks) in by_column.iter().enumerate() {
            let (column, line) = (index as u32 / matrix.lines(), index as u32 % matrix.lines());
            let before = column * column_bytes + 16 * matrix.apart(line);
            for (step, &chunk) in chunks.iter().enumerate() {
                let step = step as u32 * matrix.groups() * COLUMNS * 16;
                let at = k.offset_const(own, i64::from(before + step));
                k.store_aligned(chunk, at, 16);
            }
        }
        for column in 0..self.tile.columns {
            addresses.push(k.offset_const(shared, (column * column_bytes).into()));
        }
        Queries::Shared(addresses)
    }

    /// Normalized results.
    fn store(&self, k: &mut Builder, task: &Task, columns: &[Column]) {
        for (&row, column) in task.rows.iter().zip(columns) {
            self.store_column(k, task, row, column);
        }
    }

    fn store_column(&self, k: &mut Builder, task: &Task, row: Value, column: &Column) {
        let shape = self.shape;
        let there = k.cmp(Cmp::Lt, row, self.tokens);
        k.if_then(there, |k| {
            let before = k.mul_const(task.head, i64::from(shape.head_dim) * 4);
            let head = k.offset_u32(self.memory.result, before);
            let before = k.mul_const(row, i64::from(shape.heads * shape.head_dim) * 4);
            let first = Matrix::new(shape).first_element(k, task.lane.g);
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

/// Combines a number over all rows; uniform.
fn over_rows(
    k: &mut Builder,
    matrix: &Matrix<'_>,
    columns: &[Value],
    combine: fn(&mut Builder, Value, Value) -> Value,
) -> Value {
    let all = columns[1..].iter().fold(columns[0], |all, &column| combine(k, all, column));
    let all = matrix.over_columns(k, all, combine);
    k.first_lane(all)
}

/// 8 numbers from chunk `chunk` on in f16; what f16 cannot hold becomes its largest number.
fn load_chunk(k: &mut Builder, buffer: Value, lanes: Value, chunk: u32) -> Value {
    let [low, high] = [0, 16].map(|bytes| {
        let offset = k.i32((chunk * CHUNK * 4 + bytes) as i32);
        k.load_resource(buffer, lanes, offset, Elem::F32.vec(4), Outside::Zeros)
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
