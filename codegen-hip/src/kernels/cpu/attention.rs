//! `attention`: softmax(q·Kᵀ)·V over the KV cache, without a score matrix in memory.
//!
//! A work item takes some rows (query vectors) that read the same KV head, and walks the
//! positions that any of them sees in blocks. Per block: scores of all rows by outer products,
//! `L` positions in a vector; then the online softmax of Milakov and Gimelshein, "Online
//! normalizer calculation for softmax" (2018), row by row; then probabilities times values, so
//! that each value vector serves all rows. In prefill the rows are query positions of one head, in
//! decode the heads that share a KV head.
//!
//! Which positions make a block, and so the order of every sum, depends on the item alone.

use super::Instance;
use crate::kernels::instance::Draft;
use crate::kernels::{KernelError, KernelSource, Variant, real};
use crate::mlir::builder::Cmp;
use crate::mlir::{Builder, Elem, Value};
use crate::target::CpuTarget;
use waveloom_ir::{AttentionAttr, Layout, Type};
use waveloom_plan as plan;

/// Most heads of a group that one decode item takes: more would leave threads without work.
const DECODE_HEADS: u32 = 4;
/// Most elements of a query row: offsets in scratch stay small.
const MAX_ROW: u32 = 1 << 20;
/// Most elements of a head: code per vector of it is repeated.
const MAX_HEAD: u32 = 1024;

/// What the kernel computes, and on what memory.
#[derive(Clone, Debug)]
struct Shape {
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    scale: f32,
    window: Option<u32>,
    softcap: Option<f32>,
    keys: Elem,
    values: Elem,
}

/// Sizes of the loops over registers.
#[derive(Clone, Copy, Debug)]
struct Tile {
    /// Rows of an item.
    rows: u32,
    /// Key vectors (of L positions) of a score tile.
    keys: u32,
    /// Elements of the head per turn of the score loop, each with accumulators of its own.
    unroll: u32,
    /// Value vectors (of L elements of the head) of an output tile.
    values: u32,
    /// Positions per block.
    block: u32,
}

impl Tile {
    /// Accumulators that leave registers for operands.
    fn accumulators(target: &CpuTarget) -> u32 {
        target.vector_registers * 3 / 4
    }

    fn prefill(shape: &Shape, target: &CpuTarget) -> Tile {
        Tile { block: 128, ..Tile::of_rows(Tile::accumulators(target) / 2, shape, target) }
    }

    /// Few rows need more sums side by side to hide the latency of a multiply-add.
    fn of_rows(rows: u32, shape: &Shape, target: &CpuTarget) -> Tile {
        let accumulators = Tile::accumulators(target);
        let vectors = shape.head_dim.div_ceil(target.lanes);
        Tile {
            rows,
            keys: 2,
            unroll: (accumulators / 3 / rows).clamp(1, 4),
            values: (accumulators / rows).clamp(1, vectors),
            block: 256,
        }
    }
}

/// Offsets in a worker's scratch, in bytes, and the strides of its matrices, in f32.
#[derive(Clone, Copy, Debug)]
struct Scratch {
    /// Scaled queries `[rows][head]`.
    queries: i64,
    /// Scores, then unnormalized probabilities `[rows][score_stride]`.
    scores: i64,
    /// Unnormalized results `[rows][head]`.
    sums: i64,
    /// By row: largest score so far, sum of probabilities, factor for older sums.
    largest: i64,
    mass: i64,
    decay: i64,
    /// By row, as i64: the newest position it sees.
    positions: i64,
    /// The head's elements, padded to whole vectors.
    head: u32,
    score_stride: u32,
    bytes: i64,
}

impl Scratch {
    fn new(shape: &Shape, tile: Tile, lanes: u32) -> Scratch {
        let head = shape.head_dim.next_multiple_of(lanes);
        // A line more than a power of two, so that rows do not share cache sets.
        let score_stride = tile.block + 16;
        let mut bytes = 0;
        let mut claim = |count: u32, size: u32| {
            let at = bytes;
            bytes += i64::from((count * size).next_multiple_of(64));
            at
        };
        Scratch {
            queries: claim(tile.rows * head, 4),
            scores: claim(tile.rows * score_stride, 4),
            sums: claim(tile.rows * head, 4),
            largest: claim(tile.rows, 4),
            mass: claim(tile.rows, 4),
            decay: claim(tile.rows, 4),
            positions: claim(tile.rows, 8),
            head,
            score_stride,
            bytes,
        }
    }
}

/// A work item's rows.
struct Rows {
    /// Elements of q (and of the result) before row 0.
    first: Value,
    /// Elements from row to row.
    stride: i64,
    /// How many there are; at least one, at most the tile's.
    count: Value,
    /// Position of row 0.
    position: Value,
    /// Positions from row to row: 1 where rows are query positions, 0 where they are heads.
    step: i64,
    /// The KV head they read.
    kv_head: Value,
}

/// Arguments that are the same for all items.
struct Memory {
    queries: Value,
    keys: Value,
    values: Value,
    positions: Value,
    result: Value,
    capacity: Value,
}

/// The code of one work item.
struct Item<'a> {
    shape: &'a Shape,
    tile: Tile,
    at: Scratch,
    lanes: u32,
    memory: &'a Memory,
    rows: &'a Rows,
}

impl Item<'_> {
    fn emit(&self, k: &mut Builder) {
        self.begin(k);
        let (from, to) = self.visible(k);
        let keys = self.head_of_keys(k);
        let values = self.head_of_values(k);
        k.for_loop(from, to, i64::from(self.tile.block), [], |k, first, []| {
            let left = k.sub(to, first);
            let block = k.i64(self.tile.block.into());
            let count = k.min(left, block);
            let vectors = k.ceil_div_const(count, self.lanes.into());
            self.scores(k, keys, first, vectors);
            self.softmax(k, first, vectors);
            self.accumulate(k, values, first, count);
            []
        });
        self.end(k);
    }

    fn row(&self, k: &mut Builder, base: i64, row: Value, stride: u32, size: i64) -> Value {
        let scratch = k.scratch();
        let base = k.offset_const(scratch, base);
        let bytes = k.mul_const(row, i64::from(stride) * size);
        k.offset(base, bytes)
    }

    fn query_row(&self, k: &mut Builder, row: Value) -> Value {
        self.row(k, self.at.queries, row, self.at.head, 4)
    }

    fn score_row(&self, k: &mut Builder, row: Value) -> Value {
        self.row(k, self.at.scores, row, self.at.score_stride, 4)
    }

    fn sum_row(&self, k: &mut Builder, row: Value) -> Value {
        self.row(k, self.at.sums, row, self.at.head, 4)
    }

    /// The address of row `row` of the tensor `tensor`; rows that are not there repeat the last.
    fn tensor_row(&self, k: &mut Builder, tensor: Value, row: Value) -> Value {
        let offset = k.mul_const(row, self.rows.stride);
        let element = k.add(self.rows.first, offset);
        k.element(tensor, Elem::F32, element)
    }

    fn last_row(&self, k: &mut Builder) -> Value {
        k.add_const(self.rows.count, -1)
    }

    fn for_rows(&self, k: &mut Builder, body: impl FnOnce(&mut Builder, Value)) {
        let (from, to) = (k.i64(0), k.i64(self.tile.rows.into()));
        k.for_loop(from, to, 1, [], |k, row, []| {
            body(k, row);
            []
        });
    }

    /// For each vector of a head: its element offset, and how many lanes where not all.
    fn head_vectors(&self) -> impl Iterator<Item = (u32, Option<u32>)> {
        let (head, lanes) = (self.shape.head_dim, self.lanes);
        (0..head)
            .step_by(lanes as usize)
            .map(move |at| (at, (head - at < lanes).then_some(head - at)))
    }

    /// Scaled queries into scratch; nothing seen so far.
    fn begin(&self, k: &mut Builder) {
        let last = self.last_row(k);
        let minus_infinity = k.f32(f32::NEG_INFINITY);
        let zero = k.f32(0.0);
        let zeros = k.zero(Elem::F32.vec(self.lanes));
        let scale = k.float(Elem::F32.vec(self.lanes), self.shape.scale.into());
        self.for_rows(k, |k, row| {
            let present = k.min(row, last);
            let from = self.tensor_row(k, self.memory.queries, present);
            let to = self.query_row(k, row);
            let sums = self.sum_row(k, row);
            for (at, lanes) in self.head_vectors() {
                let (from, to) = (byte(k, from, at), byte(k, to, at));
                let query = load_lanes(k, Elem::F32, from, self.lanes, lanes);
                let query = k.mul(query, scale);
                k.store(query, to);
                let sums = byte(k, sums, at);
                k.store(zeros, sums);
            }
            let at = self.row(k, self.at.largest, row, 1, 4);
            k.store(minus_infinity, at);
            let at = self.row(k, self.at.mass, row, 1, 4);
            k.store(zero, at);
            let steps = k.mul_const(present, self.rows.step);
            let position = k.add(self.rows.position, steps);
            let at = self.row(k, self.at.positions, row, 1, 8);
            k.store(position, at);
        });
    }

    /// The positions that any row sees, from a multiple of L: first, one past the last.
    fn visible(&self, k: &mut Builder) -> (Value, Value) {
        let zero = k.i64(0);
        let from = match self.shape.window {
            None => zero,
            Some(window) => {
                let first = k.add_const(self.rows.position, 1 - i64::from(window));
                let first = k.max(first, zero);
                let lanes = k.i64(self.lanes.into());
                let vector = k.udiv(first, lanes);
                k.mul(vector, lanes)
            }
        };
        let last = self.last_row(k);
        let steps = k.mul_const(last, self.rows.step);
        let last = k.add(self.rows.position, steps);
        let end = k.add_const(last, 1);
        (from, k.min(end, self.memory.capacity))
    }

    fn head_of_keys(&self, k: &mut Builder) -> Value {
        let vectors = k.ceil_div_const(self.memory.capacity, self.lanes.into());
        let vector = self.key_vector_bytes();
        let head = k.mul_const(vectors, vector);
        let bytes = k.mul(self.rows.kv_head, head);
        k.offset(self.memory.keys, bytes)
    }

    fn head_of_values(&self, k: &mut Builder) -> Value {
        let head = k.mul_const(self.memory.capacity, self.value_row_bytes());
        let bytes = k.mul(self.rows.kv_head, head);
        k.offset(self.memory.values, bytes)
    }

    /// Bytes of the keys of L positions.
    fn key_vector_bytes(&self) -> i64 {
        i64::from(self.shape.head_dim * self.lanes * self.shape.keys.bytes())
    }

    fn value_row_bytes(&self) -> i64 {
        i64::from(self.shape.head_dim * self.shape.values.bytes())
    }

    /// Scores of `vectors` vectors of positions from position `first` on.
    fn scores(&self, k: &mut Builder, keys: Value, first: Value, vectors: Value) {
        let lanes = k.i64(self.lanes.into());
        let before = k.udiv(first, lanes);
        let bytes = k.mul_const(before, self.key_vector_bytes());
        let keys = k.offset(keys, bytes);
        let zero = k.i64(0);
        let tile = k.i64(self.tile.keys.into());
        let rest = k.rem(vectors, tile);
        let whole = k.sub(vectors, rest);
        k.for_loop(zero, whole, self.tile.keys.into(), [], |k, vector, []| {
            self.score_tile(k, keys, vector, self.tile.keys);
            []
        });
        if self.tile.keys > 1 {
            k.for_loop(whole, vectors, 1, [], |k, vector, []| {
                self.score_tile(k, keys, vector, 1);
                []
            });
        }
    }

    /// Scores of `count` vectors of positions, all rows: a sum of outer products.
    fn score_tile(&self, k: &mut Builder, keys: Value, vector: Value, count: u32) {
        let bytes = k.mul_const(vector, self.key_vector_bytes());
        let keys = k.offset(keys, bytes);
        let queries = k.offset_const(k.scratch(), self.at.queries);
        let sums = (count * self.tile.rows) as usize;
        let unroll = self.tile.unroll;
        let whole = self.shape.head_dim / unroll * unroll;
        let zero = k.zero(Elem::F32.vec(self.lanes));
        let (from, to) = (k.i64(0), k.i64(whole.into()));
        let start = vec![zero; sums * unroll as usize];
        let mut parts = k.for_values(from, to, unroll.into(), &start, |k, element, parts| {
            let bytes = k.mul_const(element, i64::from(self.lanes * self.shape.keys.bytes()));
            let keys = k.offset(keys, bytes);
            let queries = k.element(queries, Elem::F32, element);
            let mut next = vec![];
            for (step, part) in parts.chunks_exact(sums).enumerate() {
                next.extend(self.outer_product(k, keys, queries, step as u32, count, part));
            }
            next
        });
        for element in whole..self.shape.head_dim {
            let part = (element - whole) as usize * sums;
            let sum = self.outer_product(k, keys, queries, element, count, &parts[part..][..sums]);
            parts.splice(part..part + sums, sum);
        }
        for index in 0..sums {
            let mut sum = parts[index];
            for part in 1..unroll as usize {
                sum = k.add(sum, parts[part * sums + index]);
            }
            let (row, column) = (index as u32 / count, index as u32 % count);
            let row = k.i64(row.into());
            let scores = self.score_row(k, row);
            let column = k.add_const(vector, column.into());
            let bytes = k.mul_const(column, i64::from(self.lanes) * 4);
            let at = k.offset(scores, bytes);
            k.store(sum, at);
        }
    }

    /// `sums` plus keys × queries of element `element` of the head.
    fn outer_product(
        &self,
        k: &mut Builder,
        keys: Value,
        queries: Value,
        element: u32,
        count: u32,
        sums: &[Value],
    ) -> Vec<Value> {
        let row_bytes = i64::from(self.lanes * self.shape.keys.bytes());
        let mut vectors = vec![];
        for vector in 0..count {
            let at = i64::from(vector) * self.key_vector_bytes() + i64::from(element) * row_bytes;
            let at = k.offset_const(keys, at);
            vectors.push(real::load(k, self.shape.keys, at, self.lanes));
        }
        let mut next = vec![];
        for (row, sums) in sums.chunks_exact(count as usize).enumerate() {
            let at = byte(k, queries, row as u32 * self.at.head + element);
            let query = k.load(at, Elem::F32);
            let query = k.splat(query, self.lanes);
            for (&sum, &vector) in sums.iter().zip(&vectors) {
                next.push(k.fma(vector, query, sum));
            }
        }
        next
    }

    /// Scores of a block to unnormalized probabilities, in place; updates what is known by row.
    fn softmax(&self, k: &mut Builder, first: Value, vectors: Value) {
        self.for_rows(k, |k, row| {
            let scores = self.score_row(k, row);
            let at = self.row(k, self.at.positions, row, 1, 8);
            let position = k.load(at, Elem::I64);
            let newest = k.sub(position, first);
            let largest = self.mask(k, scores, newest, vectors);
            let at = self.row(k, self.at.largest, row, 1, 4);
            let before = k.load(at, Elem::F32);
            let largest = k.max(before, largest);
            k.store(largest, at);
            // A row that has seen nothing yet has no largest score: any finite number will do,
            // as all its probabilities are 0.
            let none = k.f32(f32::NEG_INFINITY);
            let seen = k.cmp(Cmp::Ne, largest, none);
            let zero = k.f32(0.0);
            let base = k.select(seen, largest, zero);
            let mass = self.exponentials(k, scores, base, vectors);
            let decay = k.sub(before, base);
            let decay = exp_of_negative(k, decay);
            let at = self.row(k, self.at.decay, row, 1, 4);
            k.store(decay, at);
            let at = self.row(k, self.at.mass, row, 1, 4);
            let before = k.load(at, Elem::F32);
            let mass = k.fma(before, decay, mass);
            k.store(mass, at);
        });
    }

    /// Caps scores and gives −∞ to positions that the row does not see: those beyond `newest`,
    /// its own position in the block, and those before its window. Gives the largest score.
    fn mask(&self, k: &mut Builder, scores: Value, newest: Value, vectors: Value) -> Value {
        let lanes = self.lanes;
        let newest = k.trunc(newest, Elem::I32);
        let newest = k.splat(newest, lanes);
        let oldest = self.shape.window.map(|window| k.add_const(newest, 1 - i64::from(window)));
        let none = k.float(Elem::F32.vec(lanes), f64::NEG_INFINITY);
        let lane = k.iota(Elem::I32, lanes);
        let zero = k.i64(0);
        let [largest] = k.for_loop(zero, vectors, 1, [none], |k, vector, [largest]| {
            let bytes = k.mul_const(vector, i64::from(lanes) * 4);
            let at = k.offset(scores, bytes);
            let score = k.load(at, Elem::F32.vec(lanes));
            let score = self.cap(k, score);
            let start = k.mul_const(vector, lanes.into());
            let start = k.trunc(start, Elem::I32);
            let start = k.splat(start, lanes);
            let index = k.add(start, lane);
            let mut seen = k.cmp(Cmp::Le, index, newest);
            if let Some(oldest) = oldest {
                let inside = k.cmp(Cmp::Ge, index, oldest);
                seen = k.and(seen, inside);
            }
            let score = k.select(seen, score, none);
            k.store(score, at);
            [k.max(score, largest)]
        });
        k.reduce_max(largest)
    }

    fn cap(&self, k: &mut Builder, score: Value) -> Value {
        let Some(cap) = self.shape.softcap else { return score };
        let factor = k.float(score.ty, cap.into());
        let score = k.div(score, factor);
        let score = k.tanh(score);
        k.mul(score, factor)
    }

    /// Replaces scores by e^(score − base); gives their sum.
    fn exponentials(&self, k: &mut Builder, scores: Value, base: Value, vectors: Value) -> Value {
        let lanes = self.lanes;
        let base = k.splat(base, lanes);
        let zero = k.i64(0);
        let zeros = k.zero(Elem::F32.vec(lanes));
        let [sum] = k.for_loop(zero, vectors, 1, [zeros], |k, vector, [sum]| {
            let bytes = k.mul_const(vector, i64::from(lanes) * 4);
            let at = k.offset(scores, bytes);
            let score = k.load(at, Elem::F32.vec(lanes));
            let score = k.sub(score, base);
            let probability = exp_of_negative(k, score);
            k.store(probability, at);
            [k.add(sum, probability)]
        });
        k.reduce_add(sum)
    }

    /// Sums of a block: probabilities times values of `count` positions from `first` on.
    fn accumulate(&self, k: &mut Builder, values: Value, first: Value, count: Value) {
        let bytes = k.mul_const(first, self.value_row_bytes());
        let values = k.offset(values, bytes);
        let lanes = self.lanes;
        let step = self.tile.values;
        let head = self.shape.head_dim;
        let whole = head / (lanes * step);
        let (from, to) = (k.i64(0), k.i64(whole.into()));
        k.for_loop(from, to, 1, [], |k, tile, []| {
            let element = k.mul_const(tile, i64::from(lanes * step));
            self.sum_tile(k, values, element, count, &vec![None; step as usize]);
            []
        });
        let rest: Vec<Option<u32>> =
            self.head_vectors().skip((whole * step) as usize).map(|(_, lanes)| lanes).collect();
        if !rest.is_empty() {
            let element = k.i64((whole * step * lanes).into());
            self.sum_tile(k, values, element, count, &rest);
        }
    }

    /// All rows' sums for some vectors of the head from `element` on; `vectors` says how many
    /// lanes each has, where not all.
    fn sum_tile(
        &self,
        k: &mut Builder,
        values: Value,
        element: Value,
        count: Value,
        vectors: &[Option<u32>],
    ) {
        let bytes = k.mul_const(element, self.shape.values.bytes().into());
        let values = k.offset(values, bytes);
        let mut places = vec![];
        let mut start = vec![];
        for row in 0..self.tile.rows {
            let row = k.i64(row.into());
            let at = self.row(k, self.at.decay, row, 1, 4);
            let decay = k.load(at, Elem::F32);
            let decay = k.splat(decay, self.lanes);
            let sums = self.sum_row(k, row);
            let sums = k.element(sums, Elem::F32, element);
            for vector in 0..vectors.len() as u32 {
                let place = byte(k, sums, vector * self.lanes);
                let sum = k.load(place, Elem::F32.vec(self.lanes));
                start.push(k.mul(sum, decay));
                places.push(place);
            }
        }
        let scores = k.offset_const(k.scratch(), self.at.scores);
        let zero = k.i64(0);
        let sums = k.for_values(zero, count, 1, &start, |k, position, sums| {
            let bytes = k.mul_const(position, self.value_row_bytes());
            let values = k.offset(values, bytes);
            let probabilities = k.element(scores, Elem::F32, position);
            self.weighted_values(k, values, probabilities, vectors, sums)
        });
        for (sum, place) in sums.into_iter().zip(places) {
            k.store(sum, place);
        }
    }

    /// `sums` plus the values of one position times each row's probability.
    fn weighted_values(
        &self,
        k: &mut Builder,
        values: Value,
        probabilities: Value,
        vectors: &[Option<u32>],
        sums: &[Value],
    ) -> Vec<Value> {
        let elem = self.shape.values;
        let mut loaded = vec![];
        for (vector, &lanes) in vectors.iter().enumerate() {
            let bytes = i64::from(vector as u32 * self.lanes * elem.bytes());
            let at = k.offset_const(values, bytes);
            loaded.push(load_lanes(k, elem, at, self.lanes, lanes));
        }
        let mut next = vec![];
        for (row, sums) in sums.chunks_exact(vectors.len()).enumerate() {
            let at = byte(k, probabilities, row as u32 * self.at.score_stride);
            let probability = k.load(at, Elem::F32);
            let probability = k.splat(probability, self.lanes);
            for (&sum, &value) in sums.iter().zip(&loaded) {
                next.push(k.fma(value, probability, sum));
            }
        }
        next
    }

    /// Normalized sums of the rows that are there into the result.
    fn end(&self, k: &mut Builder) {
        let zero = k.i64(0);
        k.for_loop(zero, self.rows.count, 1, [], |k, row, []| {
            let at = self.row(k, self.at.mass, row, 1, 4);
            let mass = k.load(at, Elem::F32);
            let mass = k.splat(mass, self.lanes);
            let from = self.sum_row(k, row);
            let to = self.tensor_row(k, self.memory.result, row);
            for (at, lanes) in self.head_vectors() {
                let (from, to) = (byte(k, from, at), byte(k, to, at));
                let sum = k.load(from, Elem::F32.vec(self.lanes));
                let result = k.div(sum, mass);
                match lanes {
                    None => k.store(result, to),
                    Some(lanes) => {
                        let lanes = k.i64(lanes.into());
                        k.store_partial(result, to, lanes);
                    }
                }
            }
            []
        });
    }
}

/// The address of f32 number `index` from `pointer` on.
fn byte(k: &mut Builder, pointer: Value, index: u32) -> Value {
    k.offset_const(pointer, i64::from(index) * 4)
}

/// A vector of which only the first `count` lanes are there, where given.
fn load_lanes(
    k: &mut Builder,
    elem: Elem,
    pointer: Value,
    lanes: u32,
    count: Option<u32>,
) -> Value {
    match count {
        None => real::load(k, elem, pointer, lanes),
        Some(count) => {
            let count = k.i64(count.into());
            real::load_partial(k, elem, pointer, lanes, count)
        }
    }
}

/// eˣ for x ≤ 0, within 1.5 ulp; below −87 it is 0, which next to e⁰ no f32 sum can tell apart.
/// Cheaper than [`Builder::exp`]: no result is subnormal or overflows.
fn exp_of_negative(k: &mut Builder, x: Value) -> Value {
    let low = k.float(x.ty, -87.0);
    // This way round a NaN stays.
    let bounded = k.max(low, x);
    let log2e = k.float(x.ty, std::f64::consts::LOG2_E);
    let rounder = k.float(x.ty, 12_582_912.0);
    let shifted = k.fma(bounded, log2e, rounder);
    let n = k.sub(shifted, rounder);
    let high = k.float(x.ty, -0.693_359_375);
    let rest = k.float(x.ty, 2.121_944_400_546_905_8e-4);
    let r = k.fma(n, high, bounded);
    let r = k.fma(n, rest, r);
    let p = k.polynomial(
        r,
        &[
            1.0,
            1.0,
            0.500_000_012,
            1.666_666_545_9e-1,
            4.166_579_589_4e-2,
            8.333_451_907_3e-3,
            1.398_199_950_7e-3,
            1.987_569_150_0e-4,
        ],
    );
    // n into p's exponent: p is in √½..√2 and n ≥ −126, so it stays a normal number.
    let integer = x.ty.with(Elem::I32);
    let bits = k.bitcast(shifted, integer);
    let shift = k.int(integer, 23);
    let exponent = k.shl(bits, shift);
    let p = k.bitcast(p, integer);
    let scaled = k.add(p, exponent);
    let scaled = k.bitcast(scaled, x.ty);
    let zero = k.float(x.ty, 0.0);
    let under = k.cmp(Cmp::Lt, x, low);
    k.select(under, zero, scaled)
}

/// The kernel of an `attention`.
pub(super) fn kernel(op: &Instance<'_>, attr: &AttentionAttr) -> Result<KernelSource, KernelError> {
    op.refuse_packed()?;
    let shape = Shape::new(op, attr)?;
    let [tokens, _] = op.operand(0).shape[..] else {
        return Err(op.unsupported("q is not [T, heads · head_dim]"));
    };
    let tokens = op.product(&[tokens])?;
    let capacity = op.product(&op.operand(1).shape[..1])?;
    let source = match op.variant {
        Variant::Prefill => prefill(&shape, op.target, tokens, capacity),
        Variant::Decode => decode(&shape, op.target, capacity),
    };
    Ok(source)
}

impl Shape {
    fn new(op: &Instance<'_>, attr: &AttentionAttr) -> Result<Shape, KernelError> {
        let AttentionAttr { heads, kv_heads, head_dim, scale, window, softcap } = attr.clone();
        let elements = heads.checked_mul(head_dim).filter(|&elements| elements <= MAX_ROW);
        let grouped = kv_heads > 0 && heads > 0 && heads % kv_heads == 0;
        if elements.is_none()
            || !(1..=MAX_HEAD).contains(&head_dim)
            || !grouped
            || window == Some(0)
        {
            return Err(op.unsupported(format!(
                "{heads} heads, {kv_heads} KV heads of {head_dim} elements; the KV heads must \
                 divide the heads, a head must have 1 to {MAX_HEAD} elements, a row at most \
                 {MAX_ROW}, a window at least one position"
            )));
        }
        let (keys, values) = (op.operand(1), op.operand(2));
        let lanes = op.target.lanes;
        if keys.layout != Layout::PositionLanes(lanes) || values.layout != Layout::HeadMajor {
            return Err(op.unsupported(format!(
                "wants keys with {lanes} positions side by side and values by head; run \
                 choose-layouts for this target"
            )));
        }
        let elem = |ty: &Type| {
            real::elem(ty.dtype)
                .ok_or_else(|| op.unsupported(format!("a KV cache of {}", ty.dtype)))
        };
        let (keys, values) = (elem(keys)?, elem(values)?);
        let softcap = softcap.map(|cap| cap.0);
        Ok(Shape { heads, kv_heads, head_dim, scale: scale.0, window, softcap, keys, values })
    }

    fn summary(&self, variant: &str) -> String {
        let Shape { heads, kv_heads, head_dim, .. } = self;
        format!("attention {variant} {heads}/{kv_heads} heads of {head_dim}")
    }
}

/// Items: heads × blocks of query rows, head by head.
fn prefill(
    shape: &Shape,
    target: &CpuTarget,
    tokens: plan::Expr,
    capacity: plan::Expr,
) -> KernelSource {
    let tile = Tile::prefill(shape, target);
    let at = Scratch::new(shape, tile, target.lanes);
    let mut draft = Draft::new("attention_prefill");
    let memory = Memory::new(&mut draft, capacity);
    let step_tokens = draft.number(tokens.clone());
    let k = &mut draft.builder;
    let blocks = k.ceil_div_const(step_tokens, tile.rows.into());
    let (first, last) = (k.first(), k.last());
    k.for_loop(first, last, 1, [], |k, item, []| {
        let head = k.udiv(item, blocks);
        let block = k.rem(item, blocks);
        let row = k.mul_const(block, tile.rows.into());
        let left = k.sub(step_tokens, row);
        let most = k.i64(tile.rows.into());
        let width = shape.heads * shape.head_dim;
        let before = k.mul_const(row, width.into());
        let column = k.mul_const(head, shape.head_dim.into());
        let group = k.i64((shape.heads / shape.kv_heads).into());
        let rows = Rows {
            first: k.add(before, column),
            stride: width.into(),
            count: k.min(left, most),
            position: memory.position(k, row),
            step: 1,
            kv_head: k.udiv(head, group),
        };
        Item { shape, tile, at, lanes: target.lanes, memory: &memory, rows: &rows }.emit(k);
        []
    });
    let rows = plan::Expr::from(i64::from(tile.rows));
    let blocks = plan::Expr::CeilDiv(Box::new(tokens), Box::new(rows));
    let items = plan::Expr::from(i64::from(shape.heads)) * blocks;
    draft.finish(shape.summary("prefill"), items, at.bytes as u64)
}

/// How the heads of a group are shared between decode items: parts, heads of all but the last
/// part, heads of the last.
fn decode_parts(shape: &Shape) -> (u32, u32, u32) {
    let group = shape.heads / shape.kv_heads;
    let parts = group.div_ceil(DECODE_HEADS);
    let rows = group.div_ceil(parts);
    let parts = group.div_ceil(rows);
    (parts, rows, group - (parts - 1) * rows)
}

/// Items: parts of the groups of heads that share a KV head.
fn decode(shape: &Shape, target: &CpuTarget, capacity: plan::Expr) -> KernelSource {
    let (parts, rows, last_rows) = decode_parts(shape);
    let mut draft = Draft::new("attention_decode");
    let memory = Memory::new(&mut draft, capacity);
    let k = &mut draft.builder;
    let zero = k.i64(0);
    let position = memory.position(k, zero);
    let mut scratch_bytes = 0;
    let (first, last) = (k.first(), k.last());
    k.for_loop(first, last, 1, [], |k, item, []| {
        let divisor = k.i64(parts.into());
        let kv_head = k.udiv(item, divisor);
        let part = k.rem(item, divisor);
        let mut emit = |k: &mut Builder, count: u32| {
            let tile = Tile::of_rows(count, shape, target);
            let at = Scratch::new(shape, tile, target.lanes);
            scratch_bytes = at.bytes.max(scratch_bytes);
            let before = k.mul_const(kv_head, (shape.heads / shape.kv_heads).into());
            let inside = k.mul_const(part, rows.into());
            let head = k.add(before, inside);
            let rows = Rows {
                first: k.mul_const(head, shape.head_dim.into()),
                stride: shape.head_dim.into(),
                count: k.i64(count.into()),
                position,
                step: 0,
                kv_head,
            };
            Item { shape, tile, at, lanes: target.lanes, memory: &memory, rows: &rows }.emit(k);
        };
        if rows == last_rows {
            emit(k, rows);
        } else {
            let last_part = k.i64((parts - 1).into());
            let whole = k.cmp(Cmp::Ne, part, last_part);
            k.if_then(whole, |k| emit(k, rows));
            let short = k.cmp(Cmp::Eq, part, last_part);
            k.if_then(short, |k| emit(k, last_rows));
        }
        []
    });
    let items = plan::Expr::from(i64::from(shape.kv_heads * parts));
    draft.finish(shape.summary("decode"), items, scratch_bytes as u64)
}

impl Memory {
    fn new(draft: &mut Draft, capacity: plan::Expr) -> Memory {
        Memory {
            queries: draft.buffer(0),
            keys: draft.buffer(1),
            values: draft.buffer(2),
            positions: draft.buffer(3),
            result: draft.buffer(4),
            capacity: draft.number(capacity),
        }
    }

    /// The position of query row `row`.
    fn position(&self, k: &mut Builder, row: Value) -> Value {
        let at = k.element(self.positions, Elem::I32, row);
        let position = k.load(at, Elem::I32);
        k.sext(position, Elem::I64)
    }
}

#[cfg(test)]
mod tests;
