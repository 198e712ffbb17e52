//! A wave's walk over blocks of positions, with loads always under way.
//!
//! All that is loaded is one stream: the keys of a block, its values, the keys of the next block,
//! and so on. `depth` fragments of it are in flight at any time, across the two products, the
//! softmax between them and the turn of the loop.
//!
//! Blocks that every row sees whole come first, in a loop without masks; then those at the edges:
//! the newest ones, and with a window the oldest. An online softmax may take them in any order.
//! Lanes whose positions do not exist load nothing and get zeros, and so do lanes beyond the head;
//! a chunk of values that is there in part is masked, as what lies beyond may be NaN.

use super::matrix::{Lane, Matrix, REST, by_lane};
use super::{CHUNK, COLUMNS, Shape};
use crate::mlir::builder::Cmp;
use crate::mlir::gpu::Outside;
use crate::mlir::{Builder, Elem, Ty, Value};
use crate::target::Platform;
use std::collections::VecDeque;
use std::f64::consts::LOG2_E;

/// Probabilities are relative to the largest, which is 2 to this power: so that small ones are not
/// subnormal in f16, where CDNA 2 takes them for 0.
const HEADROOM: f64 = 14.0;
/// Stands for the largest score where there is none: finite, so that differences are no NaN.
const NONE_YET: f32 = -1e30;
/// Registers of a row besides its sums: largest score, mass, decay, position, number.
const COLUMN_STATE: u32 = 5;
/// Registers for what is the same in all lanes, where that has none of its own, and for addresses of
/// 64 bits.
const UNIFORM: u32 = 24;
/// Registers for all that is short-lived (exponents, comparisons, addresses of results), and those
/// that stay empty as vectors need neighbours.
const BESIDES: u32 = 32;
/// 16 bytes of the cache.
const LOADED: Ty = Elem::I32.vec(4);

/// How a wave walks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tile {
    /// Column tiles: 16 rows of queries each.
    pub columns: u32,
    /// Spans of a block.
    pub spans: u32,
    /// Fragments in flight.
    pub depth: u32,
    /// Where an operand is the chunks of both groups: every lane loads both, instead of half the
    /// bytes and an exchange. For what comes from a cache.
    pub whole: bool,
    /// Queries come from LDS at each use.
    pub shared_queries: bool,
    /// Columns 8 to 15 hold what f16 leaves of the queries in 0 to 7 (and then of probabilities),
    /// times [`REST`], so that the two together are as exact as f32.
    pub split: bool,
}

/// Queries as operand B.
pub(super) enum Queries {
    /// By column tile and line, and step.
    Registers(Vec<Vec<Value>>),
    /// By column tile: chunk c of query n is at (16c + n) · 16.
    Shared(Vec<Value>),
}

/// The rows of one line of a column tile in their lanes.
#[derive(Clone, Debug)]
pub(super) struct Column {
    /// Unnormalized results: for each tile of 16 elements of the head, a matrix operation's.
    pub sums: Vec<Value>,
    /// Largest score so far, before it is scaled by [`Walk::factor`]; equal in all groups.
    pub largest: Value,
    /// Sum of the probabilities of this group's positions.
    pub mass: Value,
}

/// Which blocks a wave takes: block j begins at position `start` + j · `stride`.
pub(super) struct Blocks {
    pub start: Value,
    pub stride: u32,
    /// Blocks.
    pub count: Value,
    /// Blocks `full` to `full_end` are seen whole by every row.
    pub full: Value,
    pub full_end: Value,
}

impl Blocks {
    /// The blocks from position `start` on, every `stride` positions, as far as they begin before
    /// `end`; `rows` are the oldest and the newest position of a row. All are uniform.
    pub fn new(
        k: &mut Builder,
        walk: &Walk<'_>,
        start: Value,
        stride: u32,
        end: Value,
        rows: [Value; 2],
    ) -> Blocks {
        let zero = k.i32(0);
        // How many blocks begin before a position.
        let before = |k: &mut Builder, position: Value| {
            let distance = k.sub(position, start);
            let distance = k.max(distance, zero);
            k.ceil_div_const(distance, stride.into())
        };
        let [oldest, newest] = rows;
        let count = before(k, end);
        let full = match walk.shape.window {
            None => zero,
            Some(window) => {
                let first_seen_by_all = k.add_const(newest, 1 - i64::from(window));
                let edges = before(k, first_seen_by_all);
                k.min(edges, count)
            }
        };
        // A block of n positions from b on is seen whole if b + n − 1 is not beyond the oldest row.
        let block = i64::from(walk.tile.block(&walk.matrix));
        let beyond = k.add_const(oldest, 2 - block);
        let full_end = before(k, beyond);
        let full_end = k.min(full_end, count);
        let full_end = k.max(full_end, full);
        Blocks { start, stride, count, full, full_end }
    }
}

/// One fragment: operand A.
#[derive(Clone, Copy, Debug)]
enum Item {
    Key { span: u32, tile: u32, step: u32 },
    Value { span: u32, tile: u32 },
}

/// Where the chunks of a block are.
struct Place {
    /// Of the first position to exist no more, relative to the block, minus 1: `limit` − base.
    left: Value,
    /// Bytes before the block, by cache.
    keys: Value,
    values: Value,
    /// By span, and tile and line: bytes of this lane's chunk; the same for the last step.
    key_lanes: Vec<Vec<[Value; 2]>>,
    /// By span and load of a fragment; the same for the last tile.
    value_lanes: Vec<Vec<[Value; 2]>>,
}

/// The fragments of a block in the order of their use, while later ones are under way.
struct Stream<'a> {
    walk: &'a Walk<'a>,
    /// This block and the next one.
    places: [Place; 2],
    items: Vec<Item>,
    /// Items that were used.
    taken: usize,
    /// Loads under way.
    queue: VecDeque<Value>,
}

impl Stream<'_> {
    /// What was loaded of the next item; begins a load in its place.
    fn take(&mut self, k: &mut Builder) -> Vec<Value> {
        let loaded = self.queue.drain(..self.walk.loads() as usize).collect();
        let later = self.taken + self.walk.tile.depth as usize;
        let place = &self.places[later / self.items.len()];
        let item = self.items[later % self.items.len()];
        self.queue.extend(self.walk.load(k, place, item));
        self.taken += 1;
        loaded
    }
}

/// The code of a wave's walk.
pub(super) struct Walk<'a> {
    pub shape: &'a Shape<'a>,
    pub tile: Tile,
    pub matrix: Matrix<'a>,
    pub lane: Lane,
    /// Buffers of the head's keys and values.
    pub caches: [Value; 2],
    pub queries: Queries,
    /// By column tile and line: the position of this lane's row.
    pub positions: Vec<Value>,
    /// The last position that this wave takes; uniform.
    pub limit: Value,
}

impl Tile {
    /// 16-byte loads of a fragment: of both groups' chunks, or of each line's.
    fn loads(&self, matrix: &Matrix<'_>) -> u32 {
        if self.whole { 2 } else { matrix.lines() }
    }

    /// Positions of a block.
    pub fn block(&self, matrix: &Matrix<'_>) -> u32 {
        self.spans * matrix.span()
    }

    /// Fragments whose instructions the scheduler may mix: with all that are in flight, it could
    /// let the last ones land before it begins others.
    fn mixed(&self) -> usize {
        (self.depth as usize / 2).max(1)
    }
}

/// The queue of loads and the columns, as a loop carries them.
struct State {
    columns: Vec<Column>,
    queue: VecDeque<Value>,
}

impl State {
    fn flatten(&self) -> Vec<Value> {
        let columns = self
            .columns
            .iter()
            .flat_map(|column| column.sums.iter().copied().chain([column.largest, column.mass]));
        columns.chain(self.queue.iter().copied()).collect()
    }

    /// A state of the same shape from [`State::flatten`]'s values.
    fn with(&self, values: &[Value]) -> State {
        let mut rest = values.iter().copied();
        let mut take = |count: usize| -> Vec<Value> { rest.by_ref().take(count).collect() };
        let columns = self.columns.iter().map(|column| {
            let sums = take(column.sums.len());
            let [largest, mass] = take(2)[..] else { unreachable!("flatten's order") };
            Column { sums, largest, mass }
        });
        let columns = columns.collect();
        State { columns, queue: take(self.queue.len()).into() }
    }
}

impl<'a> Walk<'a> {
    /// Steps of a score: chunks of the head that groups of lanes take together.
    pub fn steps(shape: &Shape<'_>, matrix: &Matrix<'_>) -> u32 {
        shape.chunks().div_ceil(matrix.groups())
    }

    /// Tiles of 16 elements of the head.
    pub fn value_tiles(shape: &Shape<'_>) -> u32 {
        shape.head_dim.div_ceil(COLUMNS)
    }

    /// Fragments of a span, keys and values.
    pub fn fragments(shape: &Shape<'_>, matrix: &Matrix<'_>) -> u32 {
        matrix.tiles() * Self::steps(shape, matrix) + Self::value_tiles(shape)
    }

    /// What a score is multiplied by to become an exponent of 2.
    pub fn factor(shape: &Shape<'_>) -> f64 {
        match shape.softcap {
            Some(cap) => f64::from(cap) * LOG2_E,
            None if shape.scale > 0.0 => f64::from(shape.scale) * LOG2_E,
            // The largest score must be the largest exponent.
            None => LOG2_E,
        }
    }

    /// Scores as they are compared: capped, and divided by what [`Walk::factor`] has.
    fn score(&self, k: &mut Builder, dot: Value) -> Value {
        let scale = f64::from(self.shape.scale);
        match self.shape.softcap {
            Some(cap) => {
                // tanh x = 1 − 2 / (e²ˣ + 1): within 4·10⁻⁷.
                let double = k.float(dot.ty, 2.0 * LOG2_E * scale / f64::from(cap));
                let exponent = k.mul(dot, double);
                let power = by_lane(k, exponent, |k, x| k.exp2_fast(x));
                let (one, minus_two) = (k.float(dot.ty, 1.0), k.float(dot.ty, -2.0));
                let sum = k.add(power, one);
                let inverse = by_lane(k, sum, |k, x| k.reciprocal_fast(x));
                k.fma(minus_two, inverse, one)
            }
            None if scale > 0.0 => dot,
            None => {
                let scale = k.float(dot.ty, scale);
                k.mul(dot, scale)
            }
        }
    }

    /// All blocks; gives the columns with the masses of all groups added up.
    pub fn run(&self, k: &mut Builder, blocks: &Blocks) -> Vec<Column> {
        let one = k.i32(1);
        let zero = k.i32(0);
        let full = k.sub(blocks.full_end, blocks.full);
        // The number of an edge block among all.
        let edge = |k: &mut Builder, e: Value| {
            let after = k.add(e, full);
            let before = k.cmp(Cmp::Lt, e, blocks.full);
            k.select(before, e, after)
        };
        let edges = k.sub(blocks.count, full);
        let first_edge = edge(k, zero);
        let any_full = k.cmp(Cmp::Lt, blocks.full, blocks.full_end);
        let first = k.select(any_full, blocks.full, first_edge);
        let base = self.base(k, blocks, first);
        let first = self.place(k, base, true);
        let state = State { columns: self.begin(k), queue: self.fill(k, &first) };
        let walked =
            k.for_values(blocks.full, blocks.full_end, 1, &state.flatten(), |k, j, old| {
                let after = k.add(j, one);
                let more = k.cmp(Cmp::Lt, after, blocks.full_end);
                let next = k.select(more, after, first_edge);
                self.block(k, blocks, [j, next], false, state.with(old)).flatten()
            });
        let walked = k.for_values(zero, edges, 1, &walked, |k, e, old| {
            let after = k.add(e, one);
            let (j, next) = (edge(k, e), edge(k, after));
            self.block(k, blocks, [j, next], true, state.with(old)).flatten()
        });
        let mut columns = state.with(&walked).columns;
        for column in &mut columns {
            column.mass = self.matrix.over_groups(k, column.mass, |k, a, b| k.add(a, b));
        }
        columns
    }

    fn begin(&self, k: &mut Builder) -> Vec<Column> {
        let (zeros, mass) = (self.matrix.zeros(k), k.f32(0.0));
        let tiles = Self::value_tiles(self.shape) as usize;
        let largest = k.f32(NONE_YET);
        let column = Column { sums: vec![zeros; tiles], largest, mass };
        vec![column; (self.tile.columns * self.matrix.lines()) as usize]
    }

    fn loads(&self) -> u32 {
        self.tile.loads(&self.matrix)
    }

    fn base(&self, k: &mut Builder, blocks: &Blocks, j: Value) -> Value {
        let before = k.mul_const(j, blocks.stride.into());
        k.add(blocks.start, before)
    }

    /// Vector registers of a lane: what is alive together in the loops, where it is most.
    pub fn registers(shape: &Shape<'_>, matrix: &Matrix<'_>, tile: &Tile) -> u32 {
        let lines = matrix.lines();
        let loads = tile.loads(matrix);
        let operand = if matrix.is_doubled() { CHUNK } else { CHUNK / 2 };
        let sums = Self::value_tiles(shape) * matrix.sums() + COLUMN_STATE;
        let queries = match tile.shared_queries {
            // One for each fragment, of those that the scheduler may mix.
            true => tile.mixed() as u32 * operand,
            false => Self::steps(shape, matrix) * operand,
        };
        // First scores, then the operands that they become, with masks for the values.
        let columns = tile.columns * lines;
        let scores = columns * tile.spans * CHUNK;
        let operands = columns * tile.spans * operand + tile.spans * loads * LOADED.lanes;
        // What f16 leaves of probabilities; powers beside scores.
        let rest = if tile.split { CHUNK } else { 0 };
        let powers = if shape.softcap.is_some() { CHUNK } else { 0 };
        // Loads in place of those of some fragments may begin before these are used.
        let in_flight = (tile.depth + tile.mixed() as u32) * loads * LOADED.lanes;
        // The last step, or tile, has others where not all lanes have a part of it.
        let whole = shape.chunks().is_multiple_of(matrix.groups())
            && shape.head_dim.is_multiple_of(COLUMNS);
        let addresses = tile.spans * (matrix.tiles() * lines + loads) * if whole { 1 } else { 2 };
        let uniform = if shape.target.platform == Platform::Nvidia { UNIFORM } else { 0 };
        let columns = columns * (sums + queries) + scores.max(operands);
        let besides = addresses + uniform + BESIDES;
        columns + rest + powers + in_flight + 2 * lines * operand + besides
    }

    // ---- loads ------------------------------------------------------------------------------

    /// A block's fragments in the order of their use.
    fn items(&self) -> Vec<Item> {
        let mut items = vec![];
        for step in 0..Self::steps(self.shape, &self.matrix) {
            for span in 0..self.tile.spans {
                items.extend((0..self.matrix.tiles()).map(|tile| Item::Key { span, tile, step }));
            }
        }
        for span in 0..self.tile.spans {
            let tiles = 0..Self::value_tiles(self.shape);
            items.extend(tiles.map(|tile| Item::Value { span, tile }));
        }
        items
    }

    /// The addresses of the block at position `base`; `partial` where it may reach beyond `limit`.
    fn place(&self, k: &mut Builder, base: Value, partial: bool) -> Place {
        let left = k.sub(self.limit, base);
        // Uniform offsets stay inside of the buffer, also where no lane reads.
        let inside = if partial { k.min(base, self.limit) } else { base };
        let block = i64::from(self.tile.block(&self.matrix));
        let mask = k.i32(-(block as i32));
        let inside = if partial { k.and(inside, mask) } else { inside };
        let position_bytes = i64::from(self.shape.head_dim) * 2;
        let wave = i64::from(self.shape.target.wave);
        let values = k.mul_const(inside, position_bytes);
        let keys = if block % wave == 0 {
            values
        } else {
            let (whole, rest) = (k.i32(-(wave as i32)), k.i32(wave as i32 - 1));
            let (whole, rest) = (k.and(inside, whole), k.and(inside, rest));
            let (whole, rest) = (k.mul_const(whole, position_bytes), k.mul_const(rest, 16));
            k.add(whole, rest)
        };
        let spans = 0..self.tile.spans;
        let lefts: Vec<Value> =
            spans.map(|span| k.add_const(left, -i64::from(span * self.matrix.span()))).collect();
        let left_if = |left: Value| partial.then_some(left);
        let key_lanes = lefts.iter().map(|&l| self.key_lanes(k, left_if(l))).collect();
        let value_lanes = lefts.iter().map(|&l| self.value_lanes(k, left_if(l))).collect();
        Place { left, keys, values, key_lanes, value_lanes }
    }

    /// Offset of this lane's chunk of keys by tile and line, and for the last step, where fewer lanes may
    /// have one.
    fn key_lanes(&self, k: &mut Builder, left: Option<Value>) -> Vec<[Value; 2]> {
        let Lane { n, g } = self.lane;
        let lines = self.matrix.lines();
        let mut lanes = vec![];
        for index in 0..self.matrix.tiles() * lines {
            let position = self.matrix.position(k, n, index % lines, index / lines);
            let mut offset = k.mul_const(position, 16);
            let row = 16 * i64::from(self.shape.target.wave);
            if !self.tile.whole {
                let rows = k.mul_const(g, row);
                offset = k.add(offset, rows);
            }
            let chunks = self.shape.chunks() % self.matrix.groups();
            let mut last = offset;
            if chunks != 0 && !self.tile.whole {
                let chunks = k.i32(chunks as i32);
                let there = k.cmp(Cmp::Lt, g, chunks);
                last = only_if(k, there, offset);
            }
            lanes.push([offset, last].map(|offset| match left {
                None => offset,
                Some(left) => {
                    let there = k.cmp(Cmp::Le, position, left);
                    only_if(k, there, offset)
                }
            }));
        }
        lanes
    }

    /// Offset of this lane's chunk of values by load, and for the last tile.
    fn value_lanes(&self, k: &mut Builder, left: Option<Value>) -> Vec<[Value; 2]> {
        let Lane { n, g } = self.lane;
        let row = 16 * i64::from(self.shape.head_dim);
        let mut lanes = vec![];
        for load in 0..self.loads() {
            let (line, chunk) = if self.tile.whole { (0, k.i32(load as i32)) } else { (load, g) };
            let element = self.matrix.element(k, n, line);
            let bytes = k.mul_const(element, 16);
            let rows = k.mul_const(chunk, row);
            let offset = k.add(bytes, rows);
            let elements = k.i32((self.shape.head_dim % COLUMNS) as i32);
            let mut last = offset;
            if !self.shape.head_dim.is_multiple_of(COLUMNS) {
                let there = k.cmp(Cmp::Lt, element, elements);
                last = only_if(k, there, offset);
            }
            lanes.push([offset, last].map(|offset| match left {
                None => offset,
                Some(left) => {
                    let position = k.mul_const(chunk, CHUNK.into());
                    let there = k.cmp(Cmp::Le, position, left);
                    only_if(k, there, offset)
                }
            }));
        }
        lanes
    }

    /// Starts the loads of a fragment.
    fn load(&self, k: &mut Builder, place: &Place, item: Item) -> Vec<Value> {
        let shape = self.shape;
        match item {
            Item::Key { span, tile, step } => {
                let last = step + 1 == Self::steps(shape, &self.matrix);
                // Scores of positions that are not there are masked, but products with queries
                // beyond the head count.
                let partial = !shape.chunks().is_multiple_of(self.matrix.groups());
                let outside = if last && partial { Outside::Zeros } else { Outside::Any };
                let lanes = &place.key_lanes[span as usize];
                let first = step * self.matrix.groups();
                // Where blocks of the cache are shorter than those of the walk.
                let position = span * self.matrix.span();
                let (block, inside) = (position / shape.target.wave, position % shape.target.wave);
                let before = block * shape.target.wave * shape.head_dim * 2;
                let load = |index: u32| {
                    let (line, chunk) = if self.tile.whole { (0, index) } else { (index, 0) };
                    let line = (tile * self.matrix.lines() + line) as usize;
                    let (lanes, chunk) = (lanes[line][usize::from(last)], first + chunk);
                    // Lanes that load both chunks: the second may not be there.
                    let exists = chunk < shape.chunks();
                    let lanes = if exists { lanes } else { k.i32(Builder::OUTSIDE) };
                    let chunk = if exists { chunk } else { 0 };
                    let offset = before + 16 * (chunk * shape.target.wave + inside);
                    let uniform = k.add_const(place.keys, offset.into());
                    k.load_resource(self.caches[0], lanes, uniform, LOADED, outside)
                };
                (0..self.loads()).map(load).collect()
            }
            Item::Value { span, tile } => {
                let last = usize::from(tile + 1 == Self::value_tiles(shape));
                let rows = span * self.matrix.groups() * shape.head_dim;
                let offset = 16 * (rows + tile * COLUMNS);
                let lanes = &place.value_lanes[span as usize];
                // Values of positions that are not there are masked, elements beyond the head are
                // not stored.
                let load = |lanes: &[Value; 2]| {
                    let uniform = k.add_const(place.values, offset.into());
                    k.load_resource(self.caches[1], lanes[last], uniform, LOADED, Outside::Any)
                };
                lanes.iter().map(load).collect()
            }
        }
    }

    /// The first fragments of the first block.
    fn fill(&self, k: &mut Builder, place: &Place) -> VecDeque<Value> {
        let items = self.items();
        let depth = self.tile.depth as usize;
        assert!(depth <= items.len(), "more in flight than a block has");
        items[..depth].iter().flat_map(|&item| self.load(k, place, item)).collect()
    }

    /// Operand A of loaded chunks, by line.
    fn fragment(&self, k: &mut Builder, loaded: &[Value]) -> Vec<Value> {
        let halves = Elem::F16.vec(CHUNK);
        let chunks: Vec<Value> = loaded.iter().map(|&chunk| k.bitcast(chunk, halves)).collect();
        match chunks[..] {
            [low, high] if self.tile.whole => vec![k.concat(low, high)],
            _ => chunks.into_iter().map(|chunk| self.matrix.spread(k, self.lane, chunk)).collect(),
        }
    }

    // ---- a block ----------------------------------------------------------------------------

    /// Block `numbers[0]`; meanwhile loads of block `numbers[1]` begin.
    fn block(
        &self,
        k: &mut Builder,
        blocks: &Blocks,
        numbers: [Value; 2],
        edge: bool,
        state: State,
    ) -> State {
        let [base, after] = numbers.map(|j| self.base(k, blocks, j));
        let mut stream = Stream {
            walk: self,
            places: [self.place(k, base, edge), self.place(k, after, true)],
            items: self.items(),
            taken: 0,
            queue: state.queue,
        };
        let scores = self.scores(k, &mut stream, base);
        let scores: Vec<Vec<Value>> = scores.iter().map(|scores| self.spans(k, scores)).collect();
        let mut columns = state.columns;
        let mut probabilities = vec![];
        let lines = self.matrix.lines() as usize;
        // Two parts of numbers in two lines of a lane have one softmax.
        let together = if self.tile.split { lines } else { 1 };
        for first in (0..columns.len()).step_by(together) {
            let mut scores = match self.tile.split {
                false => scores[first].clone(),
                true => self.joined(k, &scores[first..first + together]),
            };
            scores = scores.into_iter().map(|scores| self.score(k, scores)).collect();
            if edge {
                self.mask(k, first, base, &mut scores);
            }
            let all = self.softmax(k, &mut columns[first..first + together], &scores);
            for index in first..first + together {
                let line = (index % lines) as u32;
                probabilities.push(all.iter().map(|&p| self.operand(k, p, line)).collect());
            }
        }
        let masks = edge.then(|| self.value_masks(k, &stream.places[0]));
        self.accumulate(k, &mut stream, &probabilities, masks.as_deref(), &mut columns);
        State { columns, queue: stream.queue }
    }

    /// Sᵀ of a block: by column tile and line, a result for each span and tile.
    fn scores(&self, k: &mut Builder, stream: &mut Stream<'_>, base: Value) -> Vec<Vec<Value>> {
        let zeros = self.matrix.zeros(k);
        let results = (self.tile.spans * self.matrix.tiles()) as usize;
        let lines = self.matrix.lines() as usize;
        let mut scores = vec![vec![zeros; results]; self.tile.columns as usize * lines];
        while let Some(&Item::Key { span, tile, step }) = stream.items.get(stream.taken) {
            let loaded = stream.take(k);
            let keys = self.fragment(k, &loaded);
            let at = (span * self.matrix.tiles() + tile) as usize;
            for (column, scores) in scores.chunks_exact_mut(lines).enumerate() {
                let query = self.query(k, column, step, base);
                let before: Vec<Value> = scores.iter().map(|scores| scores[at]).collect();
                let after = self.matrix.product(k, &keys, &query, &before);
                for (scores, after) in scores.iter_mut().zip(after) {
                    scores[at] = after;
                }
            }
            self.pin(k, stream.taken, self.tile.mixed());
        }
        scores
    }

    /// Oᵀ += Vᵀ·Pᵀ for a block.
    fn accumulate(
        &self,
        k: &mut Builder,
        stream: &mut Stream<'_>,
        probabilities: &[Vec<Value>],
        masks: Option<&[Vec<Value>]>,
        columns: &mut [Column],
    ) {
        // Masks wait for their loads: not before other loads have begun.
        let mixed = if masks.is_some() { 1 } else { self.tile.mixed() };
        while let Some(&Item::Value { span, tile }) = stream.items.get(stream.taken) {
            let mut loaded = stream.take(k);
            if let Some(masks) = masks {
                for (chunk, mask) in loaded.iter_mut().zip(&masks[span as usize]) {
                    *chunk = k.and(*chunk, *mask);
                }
            }
            let values = self.fragment(k, &loaded);
            let lines = self.matrix.lines() as usize;
            let tiles = columns.chunks_exact_mut(lines).zip(probabilities.chunks_exact(lines));
            for (columns, operands) in tiles {
                let operands: Vec<Value> = operands.iter().map(|o| o[span as usize]).collect();
                let before: Vec<Value> = columns.iter().map(|c| c.sums[tile as usize]).collect();
                let after = self.matrix.product(k, &values, &operands, &before);
                for (column, after) in columns.iter_mut().zip(after) {
                    column.sums[tile as usize] = after;
                }
            }
            self.pin(k, stream.taken, mixed);
        }
    }

    /// After some fragments: what comes later stays behind. Else the scheduler would begin loads as
    /// early as there are registers, and find too late that there are too few.
    fn pin(&self, k: &mut Builder, taken: usize, every: usize) {
        if taken.is_multiple_of(every) {
            k.schedule_barrier();
        }
    }

    /// Operand B of the scores, by line; `base` differs from turn to turn.
    fn query(&self, k: &mut Builder, column: usize, step: u32, base: Value) -> Vec<Value> {
        let lines = self.matrix.lines();
        match &self.queries {
            Queries::Registers(queries) => {
                let lines = lines as usize;
                let queries = &queries[column * lines..(column + 1) * lines];
                queries.iter().map(|query| query[step as usize]).collect()
            }
            Queries::Shared(addresses) => {
                // Always 0, which the optimizer must not know: it would move the loads out of the
                // loop, into registers that there are not.
                let zero = k.zero_of(base);
                let address = k.offset_u32(addresses[column], zero);
                let load = |line| load_query(k, &self.matrix, self.lane, address, step, line);
                (0..lines).map(load).collect()
            }
        }
    }

    /// Scores by span: the 8 positions of this lane's group.
    fn spans(&self, k: &mut Builder, results: &[Value]) -> Vec<Value> {
        let spans = results.chunks_exact(self.matrix.tiles() as usize);
        let spans = spans.map(|tiles| match *tiles {
            [low, high] => k.concat(low, high),
            _ => tiles[0],
        });
        spans.collect()
    }

    /// The sums, by span, of both parts of scores, which are in columns n and n + 8.
    fn joined(&self, k: &mut Builder, parts: &[Vec<Value>]) -> Vec<Value> {
        let spans = 0..parts[0].len();
        spans
            .map(|span| {
                let parts: Vec<Value> = parts.iter().map(|part| part[span]).collect();
                self.matrix.join(k, self.lane, &parts)
            })
            .collect()
    }

    /// −∞ for what a row does not see.
    fn mask(&self, k: &mut Builder, column: usize, base: Value, scores: &mut [Value]) {
        let group = k.mul_const(self.lane.g, CHUNK.into());
        let newest = k.sub(self.positions[column], base);
        let newest = k.sub(newest, group);
        let (none, zero) = (k.f32(f32::NEG_INFINITY), k.i32(0));
        for (span, scores) in scores.iter_mut().enumerate() {
            let first = span as i32 * self.matrix.span() as i32;
            for index in 0..CHUNK {
                // How many positions before the row's own: seen from 0 on, up to the window.
                let age = k.add_const(newest, -i64::from(first + index as i32));
                let seen = match self.shape.window {
                    None => k.cmp(Cmp::Ge, age, zero),
                    Some(window) => {
                        let window = k.i32(window as i32);
                        k.cmp(Cmp::Ult, age, window)
                    }
                };
                let score = k.extract(*scores, index);
                let score = k.select(seen, score, none);
                *scores = k.insert(score, *scores, index);
            }
            // Conditions are in scalar registers: not all of them at once.
            k.schedule_barrier();
        }
    }

    /// The online softmax of columns that have the same scores: scales what was summed up before,
    /// and gives the probabilities by span.
    fn softmax(&self, k: &mut Builder, columns: &mut [Column], scores: &[Value]) -> Vec<Value> {
        let column = columns[0].clone();
        let factor = k.float(Elem::F32, Self::factor(self.shape));
        let mut largest = None;
        for &scores in scores {
            for index in 0..CHUNK {
                let score = k.extract(scores, index);
                largest = Some(largest.map_or(score, |largest| k.max_number(largest, score)));
            }
        }
        let largest = largest.expect("a block has positions");
        let largest = self.matrix.over_groups(k, largest, |k, a, b| k.max_number(a, b));
        let largest = k.max_number(column.largest, largest);
        let decay = k.sub(column.largest, largest);
        let decay = k.mul(decay, factor);
        let decay = k.exp2_fast(decay);
        let base = k.mul(largest, factor);
        let headroom = k.float(Elem::F32, HEADROOM);
        let base = k.sub(headroom, base);
        let [factors, bases] = [factor, base].map(|x| k.splat(x, CHUNK));
        let mut total = None;
        let mut all = vec![];
        for &scores in scores {
            let exponents = k.fma(scores, factors, bases);
            let probabilities = by_lane(k, exponents, |k, x| k.exp2_fast(x));
            total = Some(total.map_or(probabilities, |total| k.add(total, probabilities)));
            all.push(probabilities);
        }
        let total = k.reduce_add(total.expect("a block has positions"));
        let mass = k.fma(column.mass, decay, total);
        let decays = k.splat(decay, self.matrix.sums());
        for column in columns {
            let sums = column.sums.iter().map(|&sums| k.mul(sums, decays)).collect();
            *column = Column { sums, largest, mass };
        }
        all
    }

    /// Operand B of probabilities, in line `line`.
    fn operand(&self, k: &mut Builder, probabilities: Value, line: u32) -> Value {
        let mut rounded = k.truncf(probabilities, Elem::F16);
        let lines = self.matrix.lines();
        // With two lines, the first is that of the larger parts.
        if self.tile.split && (lines == 1 || line == 1) {
            let exact = k.extf(rounded, Elem::F32);
            let rest = k.sub(probabilities, exact);
            let scale = k.float(rest.ty, REST);
            let rest = k.mul(rest, scale);
            let rest = k.truncf(rest, Elem::F16);
            rounded = match lines {
                1 => {
                    let half = k.i32(COLUMNS as i32 / 2);
                    let high = k.cmp(Cmp::Lt, self.lane.n, half);
                    k.select(high, rounded, rest)
                }
                _ => rest,
            };
        }
        self.matrix.spread(k, self.lane, rounded)
    }

    /// By span and load: ones in the elements of a chunk of values whose positions exist.
    fn value_masks(&self, k: &mut Builder, place: &Place) -> Vec<Vec<Value>> {
        let mut masks = vec![];
        for span in 0..self.tile.spans {
            let first = i64::from(span * self.matrix.span());
            let left = k.add_const(place.left, 1 - first);
            let chunks = 0..self.loads();
            let by_chunk = chunks.map(|chunk| {
                let before = match self.tile.whole {
                    true => k.i32((chunk * CHUNK) as i32),
                    false => k.mul_const(self.lane.g, CHUNK.into()),
                };
                let count = k.sub(left, before);
                first_elements(k, count)
            });
            masks.push(by_chunk.collect());
        }
        masks
    }
}

/// The query operand of a step and a line, from where chunk c of query n is at (16c + n) · 16.
pub(super) fn load_query(
    k: &mut Builder,
    matrix: &Matrix<'_>,
    lane: Lane,
    address: Value,
    step: u32,
    line: u32,
) -> Value {
    let chunk = |k: &mut Builder, offset: Value, chunk: u32| {
        let address = k.offset_u32(address, offset);
        let address = k.offset_const(address, i64::from(16 * COLUMNS * chunk));
        k.load_aligned(address, Elem::F16.vec(CHUNK), 16)
    };
    let query = k.mul_const(lane.n, 16);
    let query = k.add_const(query, i64::from(16 * matrix.apart(line)));
    let first = step * matrix.groups();
    if matrix.is_doubled() {
        let (low, high) = (chunk(k, query, first), chunk(k, query, first + 1));
        return k.concat(low, high);
    }
    let group = k.mul_const(lane.g, i64::from(16 * COLUMNS));
    let offset = k.add(query, group);
    chunk(k, offset, first)
}

/// An offset, or one that is outside of the buffer.
fn only_if(k: &mut Builder, condition: Value, offset: Value) -> Value {
    let outside = k.i32(Builder::OUTSIDE);
    k.select(condition, offset, outside)
}

/// Ones in the first `count` (any `i32`) of the 8 halves of a chunk.
fn first_elements(k: &mut Builder, count: Value) -> Value {
    let mask = k.zero(LOADED);
    (0..4).fold(mask, |mask, word| {
        let (none, low, all) = (k.i32(0), k.i32(0xffff), k.i32(-1));
        let (even, odd) = (k.i32(2 * word), k.i32(2 * word + 1));
        let some = k.cmp(Cmp::Gt, count, even);
        let both = k.cmp(Cmp::Gt, count, odd);
        let word_mask = k.select(some, low, none);
        let word_mask = k.select(both, all, word_mask);
        k.insert(word_mask, mask, word as u32)
    })
}
