//! The products of a tile: the loop over blocks of K.
//!
//! Activations are staged in the local data share, weights come straight to registers. While block
//! b is multiplied, the weights of block b + 1 and the activations of block b + 2 are on their way;
//! those of block b + 1 are staged in the other of two buffers behind the multiplications. So there
//! is one barrier in a block, and nothing waits for a load that was issued in the same block.

use super::activations::Activations;
use super::fragments::{Order, factors};
use super::weights::{Half, Held, Steps, Weights};
use super::{TileConfig, split};
use crate::mlir::{Builder, Elem, Value};
use crate::pack::gpu::{GpuLayout, TILE_ROWS};
use crate::target::{GpuTarget, MatrixOp};
use waveloom_ir::DType;

/// Weights that are multiplied with the same activations, and how.
pub(super) struct Product<'a> {
    pub target: &'a GpuTarget,
    pub op: &'a MatrixOp,
    pub config: TileConfig,
    /// Columns of x and of the weights.
    pub k: u32,
    /// Order of the factors in a piece of K.
    pub order: Order,
    /// By slot.
    pub steps: Vec<Steps>,
}

impl<'a> Product<'a> {
    /// `None` where no matrix operation takes all of the weights.
    pub(super) fn new(
        target: &'a GpuTarget,
        config: TileConfig,
        weights: &[GpuLayout],
    ) -> Option<Product<'a>> {
        let dtypes: Vec<DType> = weights.iter().map(|weight| weight.dtype).collect();
        let op = op(target, &dtypes)?;
        let groups = target.layout.k_groups();
        let steps = weights.iter().map(|layout| Steps::new(*layout, groups, config.depth));
        Some(Product {
            target,
            op,
            config,
            k: weights.first()?.cols as u32,
            order: Order::of(&dtypes),
            steps: steps.collect(),
        })
    }

    /// Groups of lanes that K is spread over.
    pub(super) fn groups(&self) -> u32 {
        self.target.layout.k_groups()
    }

    /// Blocks of K.
    pub(super) fn blocks(&self) -> u32 {
        self.k.div_ceil(self.config.depth)
    }

    /// Tiles of 16 rows of x that a wave multiplies.
    pub(super) fn row_tiles(&self) -> u32 {
        self.config.rows / TILE_ROWS as u32 / self.config.waves[0]
    }

    /// Tiles of 16 columns, rows of a weight, that a wave multiplies.
    pub(super) fn column_tiles(&self) -> u32 {
        self.config.columns / TILE_ROWS as u32 / self.config.waves[1]
    }

    /// Rows of A and columns of B of an operation that a lane holds.
    pub(super) fn lines(&self) -> u32 {
        self.target.layout.lines()
    }

    /// Columns of the tile, rows of a weight, that a lane has factors of.
    pub(super) fn column_lines(&self) -> u32 {
        self.column_tiles() * self.lines()
    }

    /// Rows of x that a lane has factors and sums of.
    pub(super) fn row_lines(&self) -> u32 {
        self.row_tiles() * self.lines()
    }

    /// This wave's place along rows and along columns.
    pub(super) fn wave(&self, k: &mut Builder) -> [Value; 2] {
        let wave = k.wave(self.target);
        let (row, column) = split(k, wave, self.config.waves[1]);
        [row, column]
    }

    /// Accumulators of a lane: by slot, tile of columns, tile of rows and line of that.
    pub(super) fn sums(&self) -> usize {
        self.steps.len() * (self.column_tiles() * self.row_lines()) as usize
    }

    /// The accumulator of a tile of columns and a line of rows.
    pub(super) fn sum(&self, slot: usize, column: u32, row: u32) -> usize {
        let tiles = slot as u32 * self.column_tiles() + column;
        (tiles * self.row_lines() + row) as usize
    }

    /// Multiplies blocks `first..end`, at least one, and gives the accumulators.
    pub(super) fn emit(
        &self,
        k: &mut Builder,
        x: &Activations<'_>,
        weights: &Weights<'_>,
        [first, end]: [Value; 2],
    ) -> Vec<Value> {
        let last = k.add_const(end, -1);
        let zero = k.zero(Elem::F32.vec(self.target.layout.sums()));
        let mut carried = vec![zero; self.sums()];
        // In this order, which is the loop's: waits in the loop count what was issued since, by any
        // way into it.
        let staged = x.load(k, first);
        k.schedule_barrier();
        let next = k.add_const(first, 1);
        let next = k.min(next, last);
        let mut held = weights.nothing(k);
        weights.load(k, first, Half::First, &mut held);
        k.schedule_barrier();
        let pieces = x.load(k, next);
        weights.load(k, first, Half::Second, &mut held);
        let buffer = k.i32(0);
        x.stage(k, first, &staged, buffer);
        let cuts = [self.sums(), self.sums() + held.values().len()];
        carried.extend(held.values());
        carried.extend(&pieces.0);
        carried.push(buffer);
        let unpack = |values: &[Value]| {
            let sums = values[..cuts[0]].to_vec();
            let held = Held::from_values(&values[cuts[0]..cuts[1]]);
            let buffer = values[values.len() - 1];
            let pieces = super::activations::Pieces(values[cuts[1]..values.len() - 1].to_vec());
            (sums, held, pieces, buffer)
        };
        let carried = k.for_values(first, last, 1, &carried, |k, block, values| {
            let (mut sums, mut held, pieces, buffer) = unpack(values);
            k.barrier_shared();
            let next = k.add_const(block, 1);
            let size = k.i32(self.staged_bytes() as i32);
            let other = k.sub(size, buffer);
            let after = k.add_const(block, 2);
            let after = k.min(after, last);
            let mut ahead = pieces.clone();
            let mut stage = |k: &mut Builder| {
                // Not earlier: the pieces have been on their way for half a block only.
                k.schedule_barrier_but_matrix();
                x.stage(k, next, &pieces, other);
                // The next ones get their registers.
                k.schedule_barrier_but_matrix();
                ahead = x.load(k, after);
            };
            let turn = Next { block: next, stage: &mut stage };
            self.multiply(k, x, (weights, buffer), &mut sums, &mut held, Some(turn));
            sums.extend(held.values());
            sums.extend(ahead.0);
            sums.push(other);
            sums
        });
        let (mut sums, mut held, _, buffer) = unpack(&carried);
        k.barrier_shared();
        self.multiply(k, x, (weights, buffer), &mut sums, &mut held, None);
        sums
    }

    /// Adds the products of one block. As a step's weights have been used, those of the same step
    /// of the next block are loaded to their place; where there is but one step, that would be too
    /// late, and they are loaded to a place of their own at the beginning. Between the two halves
    /// activations are staged.
    fn multiply(
        &self,
        k: &mut Builder,
        x: &Activations<'_>,
        (weights, buffer): (&Weights<'_>, Value),
        sums: &mut [Value],
        held: &mut Held,
        mut next: Option<Next<'_>>,
    ) {
        let mut forms: Vec<u32> = self.steps.iter().map(Steps::parts).collect();
        forms.sort_unstable();
        forms.dedup();
        // Parts of 16 bytes that a lane has of a block, and that one operation takes.
        let parts = self.config.depth / (self.groups() * self.staged_elements());
        let together = (self.op.per_lane / self.staged_elements()).max(1);
        let mut ahead = held.clone();
        let (single, several): (Vec<usize>, Vec<usize>) =
            (0..self.steps.len()).partition(|slot| self.steps[*slot].count == 1);
        if let Some(next) = &next {
            for &slot in &single {
                held.move_away(k, self, slot);
                weights.load_step(k, next.block, slot, 0, &mut ahead);
            }
            if !single.is_empty() {
                // Not later.
                k.schedule_barrier_but_matrix();
            }
        }
        let turns: Vec<(u32, u32)> = forms
            .iter()
            .flat_map(|form| (0..parts).step_by(together as usize).map(|part| (*form, part)))
            .collect();
        for (index, (form, part)) in turns.iter().copied().enumerate() {
            if index == turns.len() / 2
                && let Some(next) = &mut next
            {
                (next.stage)(k);
            }
            let places: Vec<(u32, u32)> =
                (part..part + together).map(|part| (part / form, part % form)).collect();
            let b: Vec<Value> = (0..self.row_lines())
                .map(|line| {
                    let parts = places.iter().map(|at| x.fragment(k, buffer, form, *at, line));
                    let parts = parts.collect::<Vec<_>>();
                    joined(k, &parts)
                })
                .collect();
            for slot in (0..self.steps.len()).filter(|slot| self.steps[*slot].parts() == form) {
                self.multiply_part(k, (weights, slot), &places, &b, sums, held);
                let Some(next) = next.as_ref().filter(|_| several.contains(&slot)) else {
                    continue;
                };
                for &(step, _) in places.iter().filter(|(_, part)| part + 1 == form) {
                    weights.load_step(k, next.block, slot, step, held);
                }
            }
        }
        for slot in single {
            held.take(self, slot, &ahead);
        }
    }

    fn multiply_part(
        &self,
        k: &mut Builder,
        (weights, slot): (&Weights<'_>, usize),
        places: &[(u32, u32)],
        b: &[Value],
        sums: &mut [Value],
        held: &Held,
    ) {
        let a: Vec<Value> = (0..self.column_lines())
            .map(|line| {
                let parts = places
                    .iter()
                    .map(|&(step, part)| weights.chunk(held, slot, step, line).factors(k, part));
                let parts = parts.collect::<Vec<_>>();
                joined(k, &parts)
            })
            .collect();
        let operations = (self.staged_elements() / self.op.per_lane).max(1);
        let lines = self.lines() as usize;
        for operation in 0..operations {
            for (column, a) in a.chunks_exact(lines).enumerate() {
                for (row, b) in b.chunks_exact(lines).enumerate() {
                    let [a, b] = [a, b].map(|factors| {
                        let factors = factors.iter();
                        factors.map(|x| self.operand(k, *x, operation, operations)).collect()
                    });
                    let (a, b): (Vec<Value>, Vec<Value>) = (a, b);
                    let first = self.sum(slot, column as u32, (row * lines) as u32);
                    let sums = &mut sums[first..first + lines];
                    let next = k.matrix(self.op, &a, &b, sums);
                    sums.copy_from_slice(&next);
                }
            }
        }
    }

    /// The `index`-th of `count` equal parts of words, as the operation wants them.
    fn operand(&self, k: &mut Builder, x: Value, index: u32, count: u32) -> Value {
        let x = piece(k, x, index, count);
        let elem = self.op.operand;
        match self.op.per_lane {
            1 => {
                let x = k.extract(x, 0);
                k.bitcast(x, elem)
            }
            lanes => k.bitcast(x, elem.vec(lanes)),
        }
    }
}

/// What is done for blocks to come while one is multiplied.
struct Next<'a> {
    /// The next block.
    block: Value,
    /// Stages its activations and loads those of the one after.
    stage: &'a mut dyn FnMut(&mut Builder),
}

/// The operation that multiplies weights of these dtypes, all with the same activations.
pub(super) fn op<'a>(target: &'a GpuTarget, dtypes: &[DType]) -> Option<&'a MatrixOp> {
    let wanted = factors(*dtypes.first()?)?;
    let same = dtypes.iter().all(|dtype| factors(*dtype) == Some(wanted));
    if same { target.matrix_op(wanted) } else { None }
}

/// One vector of the words of one or two.
fn joined(k: &mut Builder, parts: &[Value]) -> Value {
    match parts {
        [first, second] => k.concat(*first, *second),
        _ => parts[0],
    }
}

/// The `index`-th of `count` equal parts of a vector.
fn piece(k: &mut Builder, x: Value, index: u32, count: u32) -> Value {
    if count == 1 {
        return x;
    }
    let lanes = x.ty.lanes / count;
    k.slice(x, index * lanes, lanes)
}
