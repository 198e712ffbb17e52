//! Products of many rows in the tile registers of AMX: `tdpbf16ps` adds 16 × 32 by 32 × 16 products of
//! bf16 to 16 × 16 sums in f32, 512 a cycle where a vector instruction has 16 or 32.
//!
//! A bf16 rounds to eight bits, which is what decode does to the activations of bf16 weights, and here so do
//! we. For other weights it is too little: both factors are taken as sums of two bf16, a number's rounded
//! value and what that leaves, and three products are added up:
//!
//! `x · w ≈ x₀·w₁ + x₀·w₀ + x₁·w₀`
//!
//! What is left out, and what two bf16 leave of a number, is below 2⁻¹⁴ of the product
//! ([`waveloom_ir::numerics::Rounding::TwoBf16`]). f16 and q4_0 are two bf16 exactly.
//!
//! Forms, in scratch, in tiles of 1 KiB whose 16 rows are a cache line each:
//!
//! - activations: `[row tile][K/32][part][16 rows][32]`, for all of K;
//! - panel: weights of a group of columns and a piece of K, `[weight][tile][K/32][part][16 pairs][16][2]`:
//!   pairs along K side by side, as bf16 weights are packed; those are read where they are.
//!
//! A panel is made once per row block and group of columns, and all rows of the block are multiplied with it.
//! Sums wait in the stage, which holds all rows of the block, while K goes on in another piece. Weights and
//! activations in K beyond its end are zeros.

use super::activations::Parts;
use super::{Env, Gemm, Section, Span};
use crate::mlir::builder::Cmp;
use crate::mlir::{Builder, Elem, Ty, Value};
use crate::pack::{PackedLayout, Q8_BIAS};
use waveloom_ir::DType;

/// Elements of K in a tile.
pub(super) const TILE_K: u64 = 32;
/// Rows of a tile of activations, and columns of a tile of weights.
pub(super) const TILE_ROWS: u32 = 16;
/// Bytes of a tile.
pub(super) const TILE_BYTES: u64 = 1024;
/// Bytes of a tile's row.
const ROW_BYTES: i64 = 64;
/// Most tiles of a piece of K: a panel of two parts of 64 columns then has 256 KiB.
const PIECE: u64 = 32;
/// Bytes of the configuration of tile registers.
pub(super) const CONFIG_BYTES: u64 = 64;
/// The first register that holds activations, and the first that holds weights. Sums are in those below.
const X: i64 = 4;
const W: i64 = 6;

/// The K tiles of an op.
pub(super) fn steps(k: u64) -> u64 {
    k.div_ceil(TILE_K)
}

/// The pieces that K is multiplied in: how many tiles each but the last has.
fn piece(steps: u64) -> u64 {
    steps.div_ceil(steps.div_ceil(PIECE))
}

/// Whether kernels take a weight in tiles where all of the op's are such.
pub(super) fn takes(dtype: DType) -> bool {
    matches!(dtype, DType::BF16 | DType::F16 | DType::Q8_0 | DType::Q4_0 | DType::Q4_1)
}

/// Whether a weight is multiplied where it lies: its packed form is tiles.
fn in_place(layout: &PackedLayout) -> bool {
    layout.dtype == DType::BF16 && layout.cols.is_multiple_of(TILE_K)
}

/// Bytes of the panels of a section.
pub(super) fn panel_bytes(layouts: &[PackedLayout], section: &Section, lanes: u64) -> u64 {
    let tiles = section.span_columns(lanes) / lanes;
    let bytes = |weight: &usize| {
        let layout = &layouts[*weight];
        match in_place(layout) {
            true => 0,
            false => tiles * piece(steps(layout.cols)) * parts(layout).count() * TILE_BYTES,
        }
    };
    section.weights.iter().map(bytes).sum()
}

fn parts(layout: &PackedLayout) -> Parts {
    Parts::of(layout.dtype)
}

/// Emits instructions without results.
fn instruction(k: &mut Builder, name: &str, operands: &[Value]) {
    k.intrinsic_void(&format!("llvm.x86.{name}"), operands);
}

fn register(k: &mut Builder, index: i64) -> Value {
    k.int(Elem::I8, index)
}

/// Configures the eight tile registers, all whole, from `at`, 64 bytes.
pub(super) fn configure(k: &mut Builder, at: Value) {
    // Palette 1; bytes per row from byte 16 on, in two bytes each; rows from byte 48 on, in one each.
    let words: [i64; 16] = std::array::from_fn(|word| match word {
        0 => 1,
        4..8 => 0x0040_0040,
        12..14 => 0x1010_1010,
        _ => 0,
    });
    let words = k.int_vector(Elem::I32, &words);
    k.store_aligned(words, at, 64);
    instruction(k, "ldtilecfg", &[at]);
}

/// Gives the tile registers back: without content they cost nothing when threads change.
pub(super) fn release(k: &mut Builder) {
    instruction(k, "tilerelease", &[]);
}

/// The products of a span of a section's columns with all rows of a block.
pub(super) struct Products<'a> {
    pub(super) gemm: &'a Gemm<'a>,
    pub(super) env: &'a Env,
    pub(super) section: &'a Section,
    pub(super) span: Span,
    pub(super) row_groups: Value,
}

/// A weight of the section while a piece of K is multiplied.
#[derive(Clone, Copy)]
struct Operand<'a> {
    layout: &'a PackedLayout,
    /// The span's first tile, packed.
    packed: Value,
    /// Its panel.
    panel: Value,
    /// Where its sums are staged.
    stage: Value,
}

/// A piece of K: its first tile, and how many it has.
#[derive(Clone, Copy)]
struct Piece {
    first: Value,
    steps: Value,
}

impl Products<'_> {
    /// Stages the sums of all rows.
    pub(super) fn emit(&self, k: &mut Builder) {
        let operands = self.operands(k);
        let all = steps(self.gemm.spec.k);
        let (zero, end) = (k.i64(0), k.i64(all as i64));
        let most = k.i64(piece(all) as i64);
        k.for_loop(zero, end, piece(all) as i64, [], |k, first, []| {
            let left = k.sub(end, first);
            let piece = Piece { first, steps: k.min(left, most) };
            for operand in operands.iter().filter(|operand| !in_place(operand.layout)) {
                self.fill_panel(k, operand, piece);
            }
            k.for_loop(zero, self.row_groups, 1, [], |k, group, []| {
                for operand in &operands {
                    self.row_group(k, operand, piece, group);
                }
                []
            });
            []
        });
    }

    fn operands(&self, k: &mut Builder) -> Vec<Operand<'_>> {
        let lanes = self.gemm.lanes();
        let row_bytes = self.section.span_columns(lanes) * 4;
        let mut panel = self.gemm.panels;
        let mut operands = vec![];
        for (slot, &weight) in self.section.weights.iter().enumerate() {
            let layout = &self.gemm.spec.weights[weight];
            let start = k.mul_const(self.span.first_tile, layout.tile_bytes() as i64);
            let stage = slot as u64 * self.gemm.staged_rows() * row_bytes;
            operands.push(Operand {
                layout,
                packed: k.offset(self.env.weights[weight], start),
                panel: k.offset_const(self.env.scratch, panel),
                stage: k.offset_const(self.env.scratch, self.gemm.stage + stage as i64),
            });
            let tiles = self.section.span_columns(lanes) / lanes;
            panel += (tiles * self.panel_tile_bytes(layout)) as i64;
        }
        operands
    }

    /// Bytes of a panel's tiles of 16 columns; none where there is no panel.
    fn panel_tile_bytes(&self, layout: &PackedLayout) -> u64 {
        match in_place(layout) {
            true => 0,
            false => piece(steps(layout.cols)) * parts(layout).count() * TILE_BYTES,
        }
    }

    fn row_group(&self, k: &mut Builder, operand: &Operand<'_>, piece: Piece, group: Value) {
        let width = i64::from(self.gemm.config.tiles);
        let (zero, whole) = (k.i64(0), k.i64(width));
        let rest = k.rem(self.span.tiles, whole);
        let together = k.sub(self.span.tiles, rest);
        k.for_loop(zero, together, width, [], |k, tile, []| {
            self.sums(k, operand, piece, group, tile, width);
            []
        });
        if width > 1 && !self.gemm.always_whole(self.section, self.gemm.config.tiles) {
            k.for_loop(together, self.span.tiles, 1, [], |k, tile, []| {
                self.sums(k, operand, piece, group, tile, 1);
                []
            });
        }
    }

    /// Adds the products of a piece of K of `width` tiles of columns to the sums of a row group.
    fn sums(
        &self,
        k: &mut Builder,
        operand: &Operand<'_>,
        piece: Piece,
        group: Value,
        tile: Value,
        width: i64,
    ) {
        let height = self.row_tiles();
        let row_bytes = self.section.span_columns(self.gemm.lanes()) as i64 * 4;
        let rows = k.mul_const(group, i64::from(self.gemm.config.rows) * row_bytes);
        let stage = k.offset(operand.stage, rows);
        let columns = k.mul_const(tile, ROW_BYTES);
        let stage = k.offset(stage, columns);
        let stride = k.i64(row_bytes);
        let sums: Vec<(Value, Value)> = (0..height * width)
            .map(|sum| {
                let (row, column) = (sum / width, sum % width);
                let offset = row * i64::from(TILE_ROWS) * row_bytes + column * ROW_BYTES;
                (register(k, sum), k.offset_const(stage, offset))
            })
            .collect();
        let zero = k.i64(0);
        let begins = k.cmp(Cmp::Eq, piece.first, zero);
        k.if_else(
            begins,
            |k| {
                for (register, _) in &sums {
                    instruction(k, "tilezero", &[*register]);
                }
                []
            },
            |k| {
                for (register, at) in &sums {
                    instruction(k, "tileloadd64", &[*register, *at, stride]);
                }
                []
            },
        );
        self.steps(k, operand, piece, group, tile, width);
        for (register, at) in sums {
            instruction(k, "tilestored64", &[register, at, stride]);
        }
    }

    /// Tiles of rows that are multiplied at a time.
    fn row_tiles(&self) -> i64 {
        i64::from(self.gemm.config.rows / TILE_ROWS)
    }

    /// Multiplies, tile by tile along a piece of K.
    fn steps(
        &self,
        k: &mut Builder,
        operand: &Operand<'_>,
        piece: Piece,
        group: Value,
        tile: Value,
        width: i64,
    ) {
        let height = self.row_tiles();
        let all = steps(self.gemm.spec.k);
        let x_step = (self.gemm.activations.parts() * TILE_BYTES) as i64;
        let x_tile = all as i64 * x_step;
        let x = k.offset_const(self.env.scratch, self.gemm.activations.amx.unwrap_or(0));
        let rows = k.mul_const(group, height * x_tile);
        let x = k.offset(x, rows);
        let before = k.mul_const(piece.first, x_step);
        let x = k.offset(x, before);
        let w_step = (parts(operand.layout).count() * TILE_BYTES) as i64;
        let (w, w_tile) = self.weights(k, operand, piece);
        let columns = k.mul_const(tile, w_tile);
        let w = k.offset(w, columns);
        let zero = k.i64(0);
        k.for_loop(zero, piece.steps, 1, [], |k, step, []| {
            let at = k.mul_const(step, x_step);
            let x = k.offset(x, at);
            let at = k.mul_const(step, w_step);
            let w = k.offset(w, at);
            let load_x = |k: &mut Builder, part| load(k, X, height, x, x_tile, part);
            let load_w = |k: &mut Builder, part| load(k, W, width, w, w_tile, part);
            load_x(k, 0);
            if parts(operand.layout) == Parts::Two {
                load_w(k, 1);
                multiply(k, height, width);
                load_w(k, 0);
                multiply(k, height, width);
                load_x(k, 1);
            } else {
                load_w(k, 0);
            }
            multiply(k, height, width);
            []
        });
    }

    /// Where the weights of a piece of K begin, and the bytes from a tile of columns to the next.
    fn weights(&self, k: &mut Builder, operand: &Operand<'_>, piece: Piece) -> (Value, i64) {
        if !in_place(operand.layout) {
            return (operand.panel, self.panel_tile_bytes(operand.layout) as i64);
        }
        let before = k.mul_const(piece.first, TILE_BYTES as i64);
        (k.offset(operand.packed, before), operand.layout.tile_bytes() as i64)
    }

    // ---- the panel --------------------------------------------------------------------------

    /// Converts a piece of K of the span's columns.
    fn fill_panel(&self, k: &mut Builder, operand: &Operand<'_>, piece: Piece) {
        let layout = operand.layout;
        let step_bytes = (parts(layout).count() * TILE_BYTES) as i64;
        let zero = k.i64(0);
        k.for_loop(zero, self.span.tiles, 1, [], |k, tile, []| {
            let at = k.mul_const(tile, layout.tile_bytes() as i64);
            let from = k.offset(operand.packed, at);
            let at = k.mul_const(tile, self.panel_tile_bytes(layout) as i64);
            let to = k.offset(operand.panel, at);
            k.for_loop(zero, piece.steps, 1, [], |k, step, []| {
                let at = k.mul_const(step, step_bytes);
                let to = k.offset(to, at);
                let index = k.add(piece.first, step);
                self.convert(k, layout, from, index, to);
                []
            });
            []
        });
    }

    /// Converts tile `index` along K of the packed weights at `from`.
    fn convert(
        &self,
        k: &mut Builder,
        layout: &PackedLayout,
        from: Value,
        index: Value,
        to: Value,
    ) {
        if layout.dtype.is_block() {
            let at = k.mul_const(index, layout.block_stride() as i64);
            let from = k.offset(from, at);
            return Quants::load(k, layout, from).store(k, to);
        }
        let bytes = TILE_K * layout.lanes * layout.dtype.block_bytes();
        let at = k.mul_const(index, bytes as i64);
        let from = k.offset(from, at);
        let rest = layout.padded_cols() % TILE_K;
        if rest == 0 {
            return plain(k, layout, from, TILE_K, to);
        }
        let last = k.i64(steps(layout.cols) as i64 - 1);
        let whole = k.cmp(Cmp::Lt, index, last);
        k.if_else(
            whole,
            |k| {
                plain(k, layout, from, TILE_K, to);
                []
            },
            |k| {
                plain(k, layout, from, rest, to);
                []
            },
        );
    }
}

/// Loads part `part` of `count` tiles, each `stride` bytes after the one before.
fn load(k: &mut Builder, first: i64, count: i64, at: Value, stride: i64, part: i64) {
    let row_bytes = k.i64(ROW_BYTES);
    for index in 0..count {
        let register = register(k, first + index);
        let at = k.offset_const(at, index * stride + part * TILE_BYTES as i64);
        instruction(k, "tileloadd64", &[register, at, row_bytes]);
    }
}

/// Adds the products of what is loaded.
fn multiply(k: &mut Builder, height: i64, width: i64) {
    for sum in 0..height * width {
        let operands = [sum, X + sum / width, W + sum % width].map(|index| register(k, index));
        instruction(k, "tdpbf16ps", &operands);
    }
}

/// f32 as the bits of the nearest bf16; subnormal numbers are zeros, as products take them.
pub(super) fn to_bf16(k: &mut Builder, x: Value) -> Value {
    let rounded =
        k.intrinsic("llvm.x86.avx512bf16.cvtneps2bf16.512", &[x], Elem::BF16.vec(TILE_ROWS));
    k.bitcast(rounded, vector(Elem::I16))
}

fn vector(elem: Elem) -> Ty {
    elem.vec(TILE_ROWS)
}

/// Stores pair `pair` of a tile of weights: two vectors of f32, as the bits of two bf16 each.
fn store_pair(k: &mut Builder, pair: u64, [even, odd]: [Value; 2], to: Value) {
    let mask = k.int(vector(Elem::I32), 0xffff_0000u32 as i32 as i64);
    let sixteen = k.int(vector(Elem::I32), 16);
    let store = |k: &mut Builder, part: u64, [even, odd]: [Value; 2]| {
        let low = k.shr_u(even, sixteen);
        let high = k.and(odd, mask);
        let both = k.or(low, high);
        let at = k.offset_const(to, (part * TILE_BYTES) as i64 + pair as i64 * ROW_BYTES);
        k.store_aligned(both, at, 64);
    };
    let bits = [even, odd].map(|x| k.bitcast(x, vector(Elem::I32)));
    store(k, 0, bits);
    // What cutting off the lower half leaves, exactly.
    let rest = [0, 1].map(|i| {
        let first = k.and(bits[i], mask);
        let first = k.bitcast(first, vector(Elem::F32));
        let rest = k.sub([even, odd][i], first);
        k.bitcast(rest, vector(Elem::I32))
    });
    store(k, 1, rest);
}

/// Converts `count` columns of K of f16 or bf16 weights; the tile's others become zeros.
fn plain(k: &mut Builder, layout: &PackedLayout, from: Value, count: u64, to: Value) {
    let row_bytes = i64::from(TILE_ROWS) * layout.dtype.block_bytes() as i64;
    for pair in 0..TILE_K / 2 {
        let at = k.offset_const(from, 2 * pair as i64 * row_bytes);
        if layout.dtype == DType::BF16 {
            let to = k.offset_const(to, pair as i64 * ROW_BYTES);
            let bits = match 2 * pair < count {
                true => k.load(at, vector(Elem::I32)),
                false => k.zero(vector(Elem::I32)),
            };
            k.store_aligned(bits, to, 64);
            continue;
        }
        let mut load = |offset: i64| match 2 * pair < count {
            true => {
                let at = k.offset_const(at, offset);
                let half = k.load(at, vector(Elem::F16));
                k.extf(half, Elem::F32)
            }
            false => k.zero(vector(Elem::F32)),
        };
        let both = [load(0), load(row_bytes)];
        store_pair(k, pair, both, to);
    }
}

/// A block of 32 quants of 16 rows: weight = quant · scale + minimum.
struct Quants {
    /// Four quants in the bytes of each lane; of two quants in a byte, those in the low halves.
    words: Vec<Value>,
    nibbles: bool,
    scale: Value,
    minimum: Value,
}

impl Quants {
    fn load(k: &mut Builder, layout: &PackedLayout, at: Value) -> Quants {
        let half = |k: &mut Builder, offset: i64| {
            let at = k.offset_const(at, offset);
            let half = k.load(at, vector(Elem::F16));
            k.extf(half, Elem::F32)
        };
        let scale = half(k, 0);
        // Bytes stand for the quant plus this.
        let bias = match layout.dtype {
            DType::Q8_0 => Some(Q8_BIAS),
            DType::Q4_0 => Some(8),
            _ => None,
        };
        let minimum = match bias {
            None => half(k, i64::from(TILE_ROWS) * 2),
            Some(bias) => {
                let minus = k.float(vector(Elem::F32), -f64::from(bias));
                k.mul(scale, minus)
            }
        };
        let nibbles = layout.dtype != DType::Q8_0;
        let quants = k.offset_const(at, layout.quants_offset() as i64);
        let words = (0..if nibbles { 4 } else { 8 })
            .map(|word| {
                let at = k.offset_const(quants, word * ROW_BYTES);
                k.load(at, vector(Elem::I32))
            })
            .collect();
        Quants { words, nibbles, scale, minimum }
    }

    /// Quant `index` of the block, in f32.
    fn quant(&self, k: &mut Builder, index: u64) -> Value {
        let half = if self.nibbles { index / 16 } else { 0 };
        let word = self.words[(index % (4 * self.words.len() as u64) / 4) as usize];
        let (first, bits) = match self.nibbles {
            true => (index % 4 * 8 + half * 4, 4),
            false => (index % 4 * 8, 8),
        };
        let by = k.int(vector(Elem::I32), first as i64);
        let low = k.shr_u(word, by);
        let mask = k.int(vector(Elem::I32), (1 << bits) - 1);
        let quant = k.and(low, mask);
        k.sitofp(quant, Elem::F32)
    }

    /// One rounding; with a bias instead of a minimum, none: the result has the bits of quant and scale.
    fn weight(&self, k: &mut Builder, index: u64) -> Value {
        let quant = self.quant(k, index);
        k.fma(quant, self.scale, self.minimum)
    }

    /// Stores the block as a tile.
    fn store(&self, k: &mut Builder, to: Value) {
        for pair in 0..TILE_K / 2 {
            let both = [self.weight(k, 2 * pair), self.weight(k, 2 * pair + 1)];
            store_pair(k, pair, both, to);
        }
    }
}
