//! Activations of a tile: rows of f32 from memory, normalized where asked for, rounded to the
//! factors of the matrix operations and staged in the local data share, a block of K at a time.
//!
//! A staged block is in *chunks* of 16 bytes, those of 16 rows side by side, as packed weights are:
//!
//! ```text
//! chunk c of row n:  ((n / 16) · chunks + c) · 256 + ((n ^ turn(c)) % 16) · 16 bytes
//! ```
//!
//! A fragment is chunk c of 16 rows, 16 lanes that cover 256 bytes in some order. A row is written
//! by neighbouring lanes, chunk by chunk; that is what the exclusive or is for, with turn(c) = c. So
//! neither has conflicts of banks, with 32 and with 64 of them.
//!
//! Of NVIDIA's fragments eight neighbouring lanes, which banks serve at once, are of two rows and of
//! four chunks, those of the groups of K. turn(c) = ((c ^ c / 4) % 4) · 2 | c / 4 % 2 puts them, and
//! eight neighbouring chunks of a row, into the eight different places of 128 bytes.

use super::fragments::Order;
use super::product::Product;
use super::split;
use crate::kernels::scalar;
use crate::mlir::gpu::Outside;
use crate::mlir::{Builder, Elem, Value};
use crate::pack::gpu::TILE_ROWS;
use crate::target::{MatrixLayout, MatrixType};

/// Elements of a piece: what a work-item loads of a row at once.
pub(super) const PIECE: u32 = 4;
/// Bytes of a chunk.
const CHUNK_BYTES: u32 = 16;
/// Bytes of one chunk of each of 16 rows.
const ROW_CHUNKS: u32 = CHUNK_BYTES * TILE_ROWS as u32;
/// Rows whose squares a wave sums at a time.
const NORM_ROWS: u32 = 8;

/// RMS norm of the rows: its weight, and what is added to the mean of squares.
#[derive(Clone, Copy)]
pub(super) struct Norm {
    /// Buffer of its weight.
    pub weight: Value,
    pub eps: f32,
}

/// Where the activations of a tile are.
#[derive(Clone, Copy)]
pub(super) struct Source {
    /// First row of the tile, and a buffer of all that exist.
    pub x: Value,
    pub buffer: Value,
    /// Rows of the tile that exist, at least one.
    pub rows: Value,
    pub norm: Option<Norm>,
}

/// The activations of a tile while the kernel runs.
pub(super) struct Activations<'a> {
    product: &'a Product<'a>,
    source: Source,
    /// Where blocks are staged.
    shared: Value,
    /// First element of this work-item's pieces in a block of K.
    first: Value,
    /// By pass: offset of this work-item's row.
    rows: Vec<Value>,
    /// By pass: scale of the row.
    scales: Vec<Value>,
    /// Offset in a staged block at which this work-item writes: in rows with bit 3 clear, and set.
    writes: [Value; 2],
    /// Row that a lane's fragments are of, and the lane's group, 0 where all hold the same.
    lane: [Value; 2],
    /// Offset of the first of the wave's tiles of rows in a staged block.
    wave: Value,
}

/// Pieces of a block of K on their way from memory: those of x by pass, then that of the norm's
/// weight.
#[derive(Clone)]
pub(super) struct Pieces(pub Vec<Value>);

impl Product<'_> {
    /// Elements of a chunk of staged activations.
    pub(super) fn staged_elements(&self) -> u32 {
        CHUNK_BYTES / self.op.factors.elem().bytes()
    }

    /// Bytes of a staged tile of 16 rows.
    fn staged_tile(&self) -> u32 {
        self.config.depth / self.staged_elements() * ROW_CHUNKS
    }

    /// Bytes of a staged block of K.
    pub(super) fn staged_bytes(&self) -> u32 {
        self.config.rows / TILE_ROWS as u32 * self.staged_tile()
    }

    /// Rows that are loaded in a pass.
    fn pass_rows(&self) -> u32 {
        self.config.workgroup(self.target) / (self.config.depth / PIECE)
    }

    fn passes(&self) -> u32 {
        self.config.rows / self.pass_rows()
    }

    /// What the rows of chunk `chunk` are turned by. Linear in its bits: of parts that share none, the
    /// exclusive or.
    fn turn(&self, chunk: u32) -> u32 {
        match self.target.layout {
            MatrixLayout::Mma => ((chunk ^ chunk >> 2) & 3) << 1 | chunk >> 2 & 1,
            _ => chunk,
        }
    }

    /// [`Product::turn`] of a number known when the kernel runs.
    fn turn_of(&self, k: &mut Builder, chunk: Value) -> Value {
        if self.target.layout != MatrixLayout::Mma {
            return chunk;
        }
        let [one, two, three] = [1, 2, 3].map(|n| k.i32(n));
        let upper = k.shr_u(chunk, two);
        let lower = k.xor(chunk, upper);
        let lower = k.and(lower, three);
        let lower = k.shl(lower, one);
        let upper = k.and(upper, one);
        k.or(lower, upper)
    }

    /// Whether the last block of K is not whole.
    fn has_tail(&self) -> bool {
        !self.k.is_multiple_of(self.config.depth)
    }
}

impl<'a> Activations<'a> {
    /// Sets up addresses and, for a norm, computes the scales of the tile's rows, which go through
    /// the local data share before anything is staged there.
    pub(super) fn new(
        k: &mut Builder,
        product: &'a Product<'a>,
        source: Source,
        shared: Value,
    ) -> Activations<'a> {
        let thread = k.thread();
        let (slot, piece) = split(k, thread, product.config.depth / PIECE);
        let first = k.mul_const(piece, PIECE.into());
        let [group, row] = k.matrix_lane(product.target);
        let group = if product.groups() == 1 { k.i32(0) } else { group };
        let wave = product.wave(k)[0];
        let tiles = product.row_tiles() * product.staged_tile();
        let mut x = Activations {
            product,
            source,
            shared,
            first,
            rows: vec![],
            scales: vec![],
            writes: [first; 2],
            lane: [row, group],
            wave: k.mul_const(wave, tiles.into()),
        };
        if let Some(norm) = source.norm {
            x.row_scales(k, norm.eps);
            k.barrier_shared();
        }
        for pass in 0..product.passes() {
            let row = x.row(k, slot, pass);
            if source.norm.is_some() {
                let from = k.element_u32(shared, Elem::F32, row);
                x.scales.push(k.load(from, Elem::F32));
            }
            if pass < 2 {
                x.writes[pass as usize] = x.write_offset(k, row, first);
            }
            x.rows.push(k.mul_const(row, i64::from(product.k) * 4));
        }
        if source.norm.is_some() {
            // Before blocks are staged in their place.
            k.barrier_shared();
        }
        x
    }

    /// Row of the tile that the work-items of `slot` load in a pass. Neighbouring slots take rows 8
    /// apart where a pass has as many: as written, such rows share no bank.
    fn row(&self, k: &mut Builder, slot: Value, pass: u32) -> Value {
        let rows = self.product.pass_rows();
        let row = match rows.is_multiple_of(TILE_ROWS as u32) {
            false => slot,
            true => {
                let (tile, row) = split(k, slot, TILE_ROWS as u32);
                let (low, high) = split(k, row, 2);
                let tile = k.mul_const(tile, TILE_ROWS as i64);
                let high = k.mul_const(high, TILE_ROWS as i64 / 2);
                let row = k.add(tile, high);
                k.add(row, low)
            }
        };
        k.add_const(row, (pass * rows).into())
    }

    /// The row, or the last that exists.
    fn existing(&self, k: &mut Builder, row: Value) -> Value {
        let last = k.add_const(self.source.rows, -1);
        k.min(row, last)
    }

    /// Where the piece of a row goes in a staged block.
    fn write_offset(&self, k: &mut Builder, row: Value, first: Value) -> Value {
        let (tile, row) = split(k, row, TILE_ROWS as u32);
        let (chunk, element) = split(k, first, self.product.staged_elements());
        let turn = self.product.turn_of(k, chunk);
        let place = k.xor(row, turn);
        let place = split(k, place, TILE_ROWS as u32).1;
        let tile = k.mul_const(tile, self.product.staged_tile().into());
        let chunk = k.mul_const(chunk, ROW_CHUNKS.into());
        let place = k.mul_const(place, CHUNK_BYTES.into());
        let bytes = self.product.op.factors.elem().bytes();
        let element = k.mul_const(element, bytes.into());
        let offset = k.add(tile, chunk);
        let offset = k.add(offset, place);
        k.add(offset, element)
    }

    /// Writes 1 / √(mean of squares + eps) of each row to the local data share, as f32.
    fn row_scales(&self, k: &mut Builder, eps: f32) {
        let target = self.product.target;
        let waves = self.product.config.waves.iter().product::<u32>();
        let rows = self.product.config.rows / waves;
        let wave = k.wave(target);
        let first = k.mul_const(wave, rows.into());
        let together = rows.min(NORM_ROWS);
        let (zero, end) = (k.i32(0), k.i32(rows as i32));
        k.for_loop(zero, end, together.into(), [], |k, done, []| {
            let first = k.add(first, done);
            let rows: Vec<Value> = (0..together).map(|i| k.add_const(first, i.into())).collect();
            let sums = self.squares(k, &rows);
            for (row, sum) in rows.into_iter().zip(sums) {
                let sum = k.reduce_add(sum);
                let sum = k.reduce_lanes(sum, target.wave, target, |k, a, b| k.add(a, b));
                let scale = scalar::rms_scale(k, sum, self.product.k.into(), eps);
                let to = k.element_u32(self.shared, Elem::F32, row);
                k.store(scale, to);
            }
            []
        });
    }

    /// A lane's share of the sums of squares of rows: four of each row.
    fn squares(&self, k: &mut Builder, rows: &[Value]) -> Vec<Value> {
        let target = self.product.target;
        let addresses: Vec<Value> = rows
            .iter()
            .map(|row| {
                let row = self.existing(k, *row);
                let offset = k.mul_const(row, i64::from(self.product.k) * 4);
                k.offset_u32(self.source.x, offset)
            })
            .collect();
        let lane = k.lane(target);
        let lane = k.mul_const(lane, PIECE.into());
        let step = target.wave * PIECE;
        let zeros = vec![k.zero(f32s()); rows.len()];
        let add = |k: &mut Builder, at: Value, valid: Option<Value>, sums: &[Value]| {
            let pieces: Vec<Value> = addresses
                .iter()
                .map(|row| {
                    let from = k.element_u32(*row, Elem::F32, at);
                    let x = k.load_aligned(from, f32s(), 16);
                    let zero = k.zero(f32s());
                    valid.map_or(x, |valid| k.select(valid, x, zero))
                })
                .collect();
            let pairs = pieces.into_iter().zip(sums);
            pairs.map(|(x, sum)| k.fma(x, x, *sum)).collect::<Vec<Value>>()
        };
        let whole = self.product.k / step * step;
        let (zero, end) = (k.i32(0), k.i32(whole as i32));
        let sums = k.for_values(zero, end, step.into(), &zeros, |k, start, sums| {
            let at = k.add(start, lane);
            add(k, at, None, sums)
        });
        if whole == self.product.k {
            return sums;
        }
        let at = k.add_const(lane, whole.into());
        let last = k.i32((self.product.k - PIECE) as i32);
        let valid = k.cmp(crate::mlir::builder::Cmp::Le, at, last);
        let at = k.min(at, last);
        add(k, at, Some(valid), &sums)
    }

    /// Loads the pieces of a block of K.
    pub(super) fn load(&self, k: &mut Builder, block: Value) -> Pieces {
        let start = k.mul_const(block, i64::from(self.product.config.depth) * 4);
        let mut first = k.mul_const(self.first, 4);
        // Beyond the last row is anything; what is loaded beyond the end of a row, zeros will
        // replace. To be compared with the size of the buffer, an offset must be the lane's.
        let mut start = start;
        if self.product.has_tail() {
            first = k.add(first, start);
            start = k.i32(0);
        }
        // Of rows that are not there the results do not count.
        let outside = Outside::Any;
        let mut pieces = vec![];
        for row in &self.rows {
            let lane = k.add(*row, first);
            pieces.push(k.load_resource(self.source.buffer, lane, start, f32s(), outside));
        }
        let weight = self.source.norm.map(|norm| norm.weight);
        pieces.extend(weight.map(|w| k.load_resource(w, first, start, f32s(), outside)));
        Pieces(pieces)
    }

    /// Stages the pieces of block `block` at offset `buffer`.
    pub(super) fn stage(&self, k: &mut Builder, block: Value, pieces: &Pieces, buffer: Value) {
        let valid = self.product.has_tail().then(|| {
            let done = k.mul_const(block, self.product.config.depth.into());
            let end = k.i32(self.product.k as i32);
            let left = k.sub(end, done);
            k.cmp(crate::mlir::builder::Cmp::Lt, self.first, left)
        });
        let writes = self.writes.map(|offset| k.add(offset, buffer));
        for pass in 0..self.product.passes() {
            let mut x = pieces.0[pass as usize];
            if let (Some(scale), Some(weight)) =
                (self.scales.get(pass as usize), pieces.0.get(self.rows.len()))
            {
                let scale = k.splat(*scale, PIECE);
                x = k.mul(x, scale);
                x = k.mul(x, *weight);
            }
            let words = self.factors(k, x);
            let zero = k.zero(words.ty);
            let words = valid.map_or(words, |valid| k.select(valid, words, zero));
            let (offset, at) = self.written(pass);
            let to = k.offset_u32(self.shared, writes[offset]);
            let to = k.offset_const(to, at.into());
            k.store_aligned(words, to, words.ty.bytes());
        }
    }

    /// Which of the two offsets a pass writes at, and how far from it.
    fn written(&self, pass: u32) -> (usize, u32) {
        let (rows, tile) = (self.product.pass_rows(), self.product.staged_tile());
        match rows.is_multiple_of(TILE_ROWS as u32) {
            true => (0, pass * (rows / TILE_ROWS as u32) * tile),
            false => ((pass % 2) as usize, pass / 2 * tile),
        }
    }

    /// A piece as factors, in words.
    fn factors(&self, k: &mut Builder, x: Value) -> Value {
        match self.product.op.factors {
            MatrixType::F32 => k.bitcast(x, Elem::I32.vec(4)),
            MatrixType::Bf16 => k.pack_bf16(x, self.product.target),
            MatrixType::F16 => {
                let x = match self.product.order {
                    Order::Natural => x,
                    Order::Interleaved => k.shuffle(x, x, &[0, 2, 1, 3]),
                };
                let x = k.truncf(x, Elem::F16);
                k.bitcast(x, Elem::I32.vec(2))
            }
        }
    }

    /// The lane's part `part` of 16 bytes of step `step` for line `line` of the wave's rows, where a
    /// chunk of weights makes `parts` of them.
    pub(super) fn fragment(
        &self,
        k: &mut Builder,
        buffer: Value,
        parts: u32,
        (step, part): (u32, u32),
        line: u32,
    ) -> Value {
        let [row, group] = self.lane;
        let lines = self.product.lines();
        let (tile, line) = (line / lines, line % lines);
        // The rows of a lane differ in bits that its first row has not.
        let other_row = line * (TILE_ROWS as u32 / lines);
        // Chunk (step · groups + group) · parts + part: the lane's bits and the others are apart.
        let lane_chunk = k.mul_const(group, parts.into());
        let chunk = step * self.product.groups() * parts + part;
        let turn = self.product.turn_of(k, lane_chunk);
        let place = k.xor(row, turn);
        let turn = self.product.turn(chunk) % TILE_ROWS as u32;
        let low = k.i32((turn ^ other_row) as i32);
        let place = k.xor(place, low);
        let place = k.mul_const(place, CHUNK_BYTES.into());
        let offset = k.mul_const(lane_chunk, ROW_CHUNKS.into());
        let offset = k.add(offset, place);
        let offset = k.add(offset, self.wave);
        let offset = k.add(offset, buffer);
        let from = k.offset_u32(self.shared, offset);
        let more = chunk * ROW_CHUNKS + tile * self.product.staged_tile();
        let from = k.offset_const(from, more.into());
        k.load_aligned(from, Elem::I32.vec(4), CHUNK_BYTES)
    }
}

fn f32s() -> crate::mlir::Ty {
    Elem::F32.vec(PIECE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::gpu::gemm::matrix::{Division, TileConfig};
    use crate::pack::gpu::GpuLayout;
    use crate::target::GpuTarget;
    use waveloom_ir::DType;

    /// Eight lanes of `mma.sync`'s fragments, and of a row as it is written, in the eight places of
    /// 16 bytes that banks serve at once. What a form of weights makes of a chunk is so many parts.
    #[test]
    fn nvidias_fragments_share_no_bank() {
        let target = GpuTarget::from_name("sm_80").unwrap();
        let division = Division::Tiles { splits: 1 };
        let (rows, columns, waves, depth) = (32, 64, [2, 4], 128);
        let config = TileConfig { rows, columns, waves, depth, division, stages: 0 };
        let layout = GpuLayout::new(DType::F16, 64, 128).unwrap();
        let product = Product::new(&target, config, &[layout]).unwrap();
        let place = |row: u32, chunk: u32| (row ^ product.turn(chunk)) % 8;
        let all = |mut places: Vec<u32>| {
            places.sort_unstable();
            places == (0..8).collect::<Vec<_>>()
        };
        for parts in [1, 2, 4] {
            for part in 0..parts {
                for row in (0..16).step_by(2) {
                    let lanes = (0..8).map(|lane| place(row + lane / 4, lane % 4 * parts + part));
                    assert!(all(lanes.collect()), "{parts} {part} {row}");
                }
            }
        }
        for chunk in [0, 8] {
            assert!(all((chunk..chunk + 8).map(|chunk| place(3, chunk)).collect()));
        }
    }
}
