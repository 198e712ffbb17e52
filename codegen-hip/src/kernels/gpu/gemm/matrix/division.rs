//! How the products are divided among workgroups, and how the sums of those that have the same
//! tile come together.
//!
//! Where several workgroups have a tile, each leaves its sums in scratch and counts itself in; the
//! one that comes last adds them all up, in the order of K, so that results do not depend on who
//! is last. None waits for another one.

use super::{Gemm, split};
use crate::kernels::gpu::last::is_last;
use crate::mlir::builder::Cmp;
use crate::mlir::{Builder, Elem, Value};

/// How the products are divided among workgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Division {
    /// So many workgroups for each tile, each with a part of its blocks of K.
    Tiles {
        /// Workgroups of a tile.
        splits: u32,
    },
    /// So many workgroups in all, each with an equal run of the blocks of K of all tiles, tile
    /// after tile: the last workgroups end when the first ones do, whatever the shape. (Osama,
    /// Merrill, Cecka, Garland, Owens: Stream-K, 2023.)
    Runs {
        /// Workgroups in all, at most.
        workgroups: u32,
    },
    /// So many workgroups in all, which take a tile each, round after round: those of a round share
    /// weights and rows of x while they are in the cache. The tiles of the last round, which is not
    /// full, are divided as in runs.
    Rounds {
        /// Workgroups in all.
        workgroups: u32,
    },
}

/// Least blocks of K of a run: with less, what surrounds them costs more.
pub(super) const LEAST_RUN: u64 = 4;

/// What a workgroup has of a tile; all `i32`, the same in all lanes.
#[derive(Clone, Copy)]
pub(super) struct Share {
    /// The tile: those of the same columns are neighbours.
    pub tile: Value,
    /// Its blocks of K, from the first to behind the last.
    pub blocks: [Value; 2],
    /// The workgroups that have the tile, where there may be several.
    pub sharers: Option<Sharers>,
}

/// The workgroups that have a tile; all `i32`.
#[derive(Clone, Copy)]
pub(super) struct Sharers {
    count: Value,
    /// Place of this one among them.
    mine: Value,
    /// Index of the counter.
    counter: Value,
    /// Place in scratch of the first one's sums.
    first: Value,
    division: Division,
}

impl Division {
    /// Partial sums that scratch has room for, with `tiles` tiles.
    pub(super) fn partials(self, tiles: u64) -> u64 {
        match self {
            Division::Tiles { splits: 1 } => 0,
            Division::Tiles { splits } => tiles * u64::from(splits),
            // Of the tile in which a run begins, and of that in which it ends.
            Division::Runs { workgroups } | Division::Rounds { workgroups } => {
                2 * u64::from(workgroups)
            }
        }
    }

    /// Workgroups that count themselves in at counters of their own.
    pub(super) fn counters(self, tiles: u64) -> u64 {
        match self {
            Division::Tiles { splits: 1 } => 0,
            Division::Tiles { .. } => tiles,
            Division::Runs { workgroups } | Division::Rounds { workgroups } => workgroups.into(),
        }
    }
}

impl Sharers {
    /// Whether there is but one.
    fn alone(&self, k: &mut Builder) -> Value {
        let one = k.i32(1);
        k.cmp(Cmp::Eq, self.count, one)
    }

    /// Place in scratch of the sums of the `index`-th.
    fn place(&self, k: &mut Builder, index: Value) -> Value {
        let offset = match self.division {
            Division::Tiles { .. } => index,
            // A run has a place for the tile that it begins in and one for that it ends in; only
            // the first of a tile ends in it.
            Division::Runs { .. } | Division::Rounds { .. } => {
                let begins = k.mul_const(index, 2);
                let one = k.i32(1);
                k.max(begins, one)
            }
        };
        k.add(self.first, offset)
    }
}

/// A workgroup's run of the blocks of K of tiles; all `i32`.
struct Run {
    /// Blocks of a tile.
    blocks: u32,
    /// Blocks in all, and the workgroups that have some.
    all: Value,
    groups: Value,
    /// This one's place among them, and its blocks, from the first to behind the last.
    mine: Value,
    first: Value,
    end: Value,
    /// Its tiles.
    first_tile: Value,
    tiles: Value,
}

impl Run {
    /// Blocks that it has of a tile, and who else has some.
    fn share(&self, k: &mut Builder, tile: Value, division: Division) -> ([Value; 2], Sharers) {
        // The workgroup that has a block: the last g with ⌊g·W / G⌋ up to it.
        let holder = |k: &mut Builder, block: Value| {
            let next = k.add_const(block, 1);
            let next = k.mul(next, self.groups);
            let next = k.add_const(next, -1);
            let holder = k.udiv(next, self.all);
            k.first_lane(holder)
        };
        let start = k.mul_const(tile, self.blocks.into());
        let last = k.add_const(start, i64::from(self.blocks) - 1);
        let [zero, behind] = [0, self.blocks as i32].map(|n| k.i32(n));
        let from = k.sub(self.first, start);
        let from = k.max(from, zero);
        let to = k.sub(self.end, start);
        let to = k.min(to, behind);
        let [first, last] = [start, last].map(|block| holder(k, block));
        let others = k.sub(last, first);
        let sharers = Sharers {
            count: k.add_const(others, 1),
            mine: k.sub(self.mine, first),
            counter: first,
            first: k.mul_const(first, 2),
            division,
        };
        ([from, to], sharers)
    }
}

/// All tiles while the kernel runs; `i32`.
#[derive(Clone, Copy)]
struct Tiles {
    /// Those of the same columns.
    rows: Value,
    count: Value,
    /// Blocks of K of each.
    blocks: u32,
}

impl Gemm<'_> {
    /// Runs `body` for each tile of which this workgroup has a share, of `count` in `rows` rows.
    pub(super) fn for_shares(
        &self,
        k: &mut Builder,
        [rows, count]: [Value; 2],
        body: impl FnOnce(&mut Builder, Share),
    ) {
        let tiles = Tiles { rows, count, blocks: self.blocks() };
        match self.config.division {
            Division::Tiles { splits } => {
                let share = self.part_of_tile(k, tiles, splits);
                body(k, share);
            }
            Division::Runs { workgroups } => self.for_run(k, tiles, workgroups, body),
            Division::Rounds { .. } => unreachable!("of kernels with a ring alone"),
        }
    }

    /// Place of this workgroup among `all`. Those that follow each other
    /// share weights, and are on one die: workgroups go round the dies, so each die gets a run.
    fn place_on_die(&self, k: &mut Builder, all: Value) -> Value {
        let index = k.workgroup();
        let dies = self.target.dies;
        if dies == 1 {
            return index;
        }
        let (each, more) = split(k, all, dies);
        let (turn, die) = split(k, index, dies);
        let before = k.mul(die, each);
        let extra = k.min(die, more);
        let before = k.add(before, extra);
        k.add(before, turn)
    }

    fn part_of_tile(&self, k: &mut Builder, tiles: Tiles, splits: u32) -> Share {
        let all = k.mul_const(tiles.count, splits.into());
        let index = self.place_on_die(k, all);
        let index = k.first_lane(index);
        if splits == 1 {
            let blocks = [k.i32(0), k.i32(tiles.blocks as i32)];
            return Share { tile: index, blocks, sharers: None };
        }
        // Neighbours have neighbouring tiles: the same weights.
        let others = k.udiv(index, tiles.rows);
        let whole = k.mul(others, tiles.rows);
        let row = k.sub(index, whole);
        let (column, mine) = split(k, others, splits);
        let tile = k.mul(column, tiles.rows);
        let tile = k.add(tile, row);
        let next = k.add_const(mine, 1);
        let blocks = [mine, next].map(|at| {
            let at = k.mul_const(at, tiles.blocks.into());
            split(k, at, splits).0
        });
        let sharers = Sharers {
            count: k.i32(splits as i32),
            mine,
            counter: tile,
            first: k.mul_const(tile, splits.into()),
            division: self.config.division,
        };
        Share { tile, blocks, sharers: Some(sharers) }
    }

    /// With W blocks in all and G workgroups, g has blocks ⌊g·W / G⌋ to ⌊(g + 1)·W / G⌋.
    fn for_run(
        &self,
        k: &mut Builder,
        tiles: Tiles,
        workgroups: u32,
        body: impl FnOnce(&mut Builder, Share),
    ) {
        let run = self.run(k, tiles, workgroups);
        let end_tile = k.add(run.first_tile, run.tiles);
        k.for_loop(run.first_tile, end_tile, 1, [], |k, tile, []| {
            let (blocks, sharers) = run.share(k, tile, self.config.division);
            // What the former tile had in the local data share has been read.
            k.barrier_shared();
            body(k, Share { tile, blocks, sharers: Some(sharers) });
            []
        });
    }

    /// This workgroup's run of the blocks of `tiles`.
    fn run(&self, k: &mut Builder, tiles: Tiles, workgroups: u32) -> Run {
        let all = k.mul_const(tiles.count, tiles.blocks.into());
        let groups = split(k, all, LEAST_RUN as u32).0;
        let [one, most] = [1, workgroups as i32].map(|n| k.i32(n));
        let groups = k.max(groups, one);
        let groups = k.min(groups, most);
        let mine = self.place_on_die(k, groups);
        let mine = k.first_lane(mine);
        let next = k.add_const(mine, 1);
        let [first, end] = [mine, next].map(|g| {
            let before = k.mul(g, all);
            let before = k.udiv(before, groups);
            k.first_lane(before)
        });
        let first_tile = split(k, first, tiles.blocks).0;
        let end_tile = k.add_const(end, i64::from(tiles.blocks) - 1);
        let end_tile = split(k, end_tile, tiles.blocks).0;
        // The grid has room for more rows than there are.
        let workgroup = k.workgroup();
        let works = k.below(workgroup, groups);
        let (count, zero) = (k.sub(end_tile, first_tile), k.i32(0));
        let count = k.select(works, count, zero);
        let all = k.max(all, one);
        Run { blocks: tiles.blocks, all, groups, mine, first, end, first_tile, tiles: count }
    }

    /// Runs `body` for each tile of which this workgroup has a share in rounds, of `count` in `rows`
    /// rows, with the number of blocks of K that it has had before.
    pub(super) fn for_rounds(
        &self,
        k: &mut Builder,
        [rows, count]: [Value; 2],
        body: impl FnOnce(&mut Builder, Share, Value),
    ) {
        let tiles = Tiles { rows, count, blocks: self.blocks() };
        let Division::Rounds { workgroups } = self.config.division else {
            unreachable!("of kernels with a ring alone")
        };
        let (rounds, _) = split(k, tiles.count, workgroups);
        let whole = k.mul_const(rounds, workgroups.into());
        let count = k.sub(tiles.count, whole);
        let run = self.run(k, Tiles { count, ..tiles }, workgroups);
        let workgroup = k.workgroup();
        let (zero, end) = (k.i32(0), k.add(rounds, run.tiles));
        k.for_loop(zero, end, 1, [], |k, turn, []| {
            let is_whole = k.below(turn, rounds);
            let before = k.mul_const(turn, workgroups.into());
            let own = k.add(before, workgroup);
            let later = k.sub(turn, rounds);
            let shared = k.add(run.first_tile, later);
            let (blocks, sharers) = run.share(k, shared, self.config.division);
            let shared = k.add(whole, shared);
            let all = [k.i32(0), k.i32(tiles.blocks as i32)];
            let done = {
                let start = k.add(run.first_tile, later);
                let start = k.mul_const(start, tiles.blocks.into());
                let done = k.sub(start, run.first);
                let done = k.max(done, zero);
                let before = k.mul_const(rounds, tiles.blocks.into());
                k.add(before, done)
            };
            let own_done = k.mul_const(turn, tiles.blocks.into());
            let one = k.i32(1);
            let share = Share {
                tile: k.select(is_whole, own, shared),
                blocks: [0, 1].map(|i| k.select(is_whole, all[i], blocks[i])),
                sharers: Some(Sharers { count: k.select(is_whole, one, sharers.count), ..sharers }),
            };
            let done = k.select(is_whole, own_done, done);
            body(k, share, done);
            []
        });
    }

    /// Brings together the sums of a tile: runs `body` with all of them, in the workgroup that
    /// has them. `shared` is some of the local data share.
    pub(super) fn with_all_sums(
        &self,
        k: &mut Builder,
        (scratch, shared): (Value, Value),
        sharers: &Sharers,
        sums: &[Value],
        body: impl FnOnce(&mut Builder, &[Value]),
    ) {
        let alone = sharers.alone(k);
        let complete = k.if_else(
            alone,
            |k| [k.bool(true)],
            |k| {
                self.leave_partial(k, scratch, sharers, sums);
                let counter = k.element_u32(scratch, Elem::I32, sharers.counter);
                [is_last(k, counter, sharers.count, shared)]
            },
        );
        k.if_then(complete[0], |k| {
            let sums = self.add_partials(k, scratch, sharers, alone, sums);
            body(k, &sums);
        });
    }

    /// Where this work-item's part of the sums of the `index`-th sharer begins in scratch.
    fn partial(&self, k: &mut Builder, scratch: Value, sharers: &Sharers, index: Value) -> Value {
        let place = sharers.place(k, index);
        let offset = k.mul_const(place, self.partial_bytes() as i64);
        let base = k.offset_const(scratch, self.partials_offset() as i64);
        let base = k.offset_u32(base, offset);
        let thread = k.thread();
        let mine = k.mul_const(thread, 16);
        k.offset_u32(base, mine)
    }

    /// Offset of four elements of a sum from a work-item's first: those of all work-items are
    /// neighbours.
    fn partial_offset(&self, sum: usize, part: u32) -> i64 {
        let parts = self.target.layout.sums() / 4;
        let bytes = i64::from(self.config.workgroup(self.target)) * 16;
        (sum as i64 * i64::from(parts) + i64::from(part)) * bytes
    }

    fn leave_partial(&self, k: &mut Builder, scratch: Value, sharers: &Sharers, sums: &[Value]) {
        let base = self.partial(k, scratch, sharers, sharers.mine);
        for (index, sum) in sums.iter().enumerate() {
            for part in 0..self.target.layout.sums() / 4 {
                let to = k.offset_const(base, self.partial_offset(index, part));
                let values = k.slice(*sum, 4 * part, 4);
                k.store_aligned(values, to, 16);
            }
        }
    }

    /// The sums of all sharers, added in their order; those at hand if this workgroup is alone.
    fn add_partials(
        &self,
        k: &mut Builder,
        scratch: Value,
        sharers: &Sharers,
        alone: Value,
        sums: &[Value],
    ) -> Vec<Value> {
        let zero = k.i32(0);
        let end = k.select(alone, zero, sharers.count);
        let start = |sum: &Value| {
            let zero = k.zero(sum.ty);
            k.select(alone, *sum, zero)
        };
        let start: Vec<Value> = sums.iter().map(start).collect();
        k.for_values(zero, end, 1, &start, |k, index, sums| {
            let base = self.partial(k, scratch, sharers, index);
            let add = |(index, sum): (usize, &Value)| {
                let parts = 0..self.target.layout.sums() / 4;
                let parts: Vec<Value> = parts
                    .map(|part| {
                        let from = k.offset_const(base, self.partial_offset(index, part));
                        k.load_aligned(from, Elem::F32.vec(4), 16)
                    })
                    .collect();
                let value = match parts[..] {
                    [low, high] => k.concat(low, high),
                    _ => parts[0],
                };
                k.add(*sum, value)
            };
            sums.iter().enumerate().map(add).collect()
        })
    }
}
