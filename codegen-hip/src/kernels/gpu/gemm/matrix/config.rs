//! Sizes of tiles, and a good choice of them by reckoning.

use super::fragments::factors;
use super::product::op;
use crate::kernels::section::least_common_multiple;
use crate::pack::gpu::{GpuLayout, TILE_ROWS};
use crate::target::{GpuTarget, MatrixLayout, MatrixType};
use waveloom_ir::DType;

/// What a tuner may choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TileConfig {
    /// Rows of x of a workgroup's tile: a multiple of 16 for each wave along them.
    pub rows: u32,
    /// Columns of the tile, rows of a weight: a multiple of 16 for each wave along them, and of the
    /// columns of whole heads.
    pub columns: u32,
    /// Waves along rows and along columns.
    pub waves: [u32; 2],
    /// Elements of K between barriers: 64, or 128.
    pub depth: u32,
    /// Workgroups that share the blocks of K of a tile.
    pub splits: u32,
}

/// Work-items of a workgroup.
const WORKGROUP: u32 = 256;
/// Cycles a second, of any chip: it only weighs memory against the rest.
const CLOCK: f64 = 2e9;
/// Bytes of the first-level cache in a cycle of a compute unit, and of the local data share.
const L1_BYTES: f64 = 64.0;
const LDS_BYTES: f64 = 128.0;
/// Cycles between a workgroup's start and its first product, and of its epilogue.
const START: f64 = 4000.0;
/// Cycles that the barrier of a block of K costs.
const BARRIER: f64 = 100.0;
/// Most accumulators of a lane in waves of 64, half as many in those of 32, whose lanes hold twice
/// as much of everything: leaves registers for what is loaded ahead.
const MOST_SUMS: u32 = 128;
/// Most registers of a lane for accumulators and the weights of a block together, in waves of 32:
/// of 256, the rest is for fragments, addresses and what is unpacked.
const MOST_NARROW: u32 = 144;
/// Most registers of a lane for pieces of x on their way.
const MOST_PIECES: u32 = 32;
/// Most columns of a tile, where a head has no more.
const MOST_COLUMNS: u64 = 256;
/// Most banks of the local data share.
const BANKS: u64 = 64;
/// Most bytes of partial sums.
const MOST_PARTIALS: u64 = 64 << 20;

impl TileConfig {
    /// Work-items of a workgroup.
    pub(super) fn workgroup(&self, target: &GpuTarget) -> u32 {
        self.waves[0] * self.waves[1] * target.wave
    }

    /// The choice that should take least time for x of `rows` rows. `columns` are those of whole
    /// heads; `sections` the weights of each section, all K long.
    pub(super) fn reckoned(
        rows: u64,
        columns: u64,
        sections: &[Vec<GpuLayout>],
        target: &GpuTarget,
    ) -> Option<TileConfig> {
        let shape = Shape { rows, sections, target };
        let mut best: Option<(f64, TileConfig)> = None;
        for config in shape.candidates(columns) {
            let time = shape.time(&config);
            if best.is_none_or(|(least, _)| time < least) {
                best = Some((time, config));
            }
        }
        best.map(|(_, config)| config)
    }
}

/// What the choice depends on.
struct Shape<'a> {
    rows: u64,
    sections: &'a [Vec<GpuLayout>],
    target: &'a GpuTarget,
}

impl Shape<'_> {
    /// All configurations that the generator takes and that do not spill.
    fn candidates(&self, columns: u64) -> Vec<TileConfig> {
        let waves = WORKGROUP / self.target.wave;
        let depth = self.depth();
        let mut found = vec![];
        for rows in [16, 32, 64, 128] {
            for columns in (columns..=MOST_COLUMNS.max(columns)).step_by(columns as usize) {
                for along in (0..=waves.ilog2()).map(|bit| 1 << bit) {
                    for splits in [1, 2, 4, 8] {
                        let waves = [along, waves / along];
                        let columns = columns as u32;
                        let config = TileConfig { rows, columns, waves, depth, splits };
                        if self.fits(&config) {
                            found.push(config);
                        }
                    }
                }
            }
        }
        found
    }

    /// Elements of K that all weights have whole steps of.
    fn depth(&self) -> u32 {
        let groups = self.target.layout.k_groups();
        let steps = self.sections.iter().flatten();
        let longest = steps.map(|weight| groups * weight.chunk_elements() as u32).max();
        longest.unwrap_or(0).max(64)
    }

    fn fits(&self, config: &TileConfig) -> bool {
        let [rows, columns] = [config.rows, config.columns];
        let whole = rows.is_multiple_of(16 * config.waves[0])
            && columns.is_multiple_of(16 * config.waves[1]);
        let workgroup = config.workgroup(self.target);
        let pieces = rows * config.depth / workgroup;
        let slots = self.sections.iter().map(Vec::len).max().unwrap_or(1) as u32;
        let sums = slots * rows * columns / workgroup;
        let blocks = self.k() / u64::from(config.depth);
        let split = config.splits == 1
            || (blocks >= 4 * u64::from(config.splits)
                && self.tiles(config) <= waveloom_plan::SCRATCH_COUNTERS / 4
                && self.partial_bytes(config) <= MOST_PARTIALS);
        let narrow = self.target.wave == 32;
        let most = if narrow { MOST_SUMS / 2 } else { MOST_SUMS };
        let ahead = !narrow || sums + self.weight_registers(config) <= MOST_NARROW;
        whole && sums <= most && ahead && (4..=MOST_PIECES).contains(&pieces) && split
    }

    /// Registers of a lane for the weights of a block of K.
    fn weight_registers(&self, config: &TileConfig) -> u32 {
        let tiles = config.columns / config.waves[1] / TILE_ROWS as u32;
        let twice = if self.target.layout == MatrixLayout::Wmma3 { 2 } else { 1 };
        let of_tile = |weight: &GpuLayout| {
            let chunks = config.depth / weight.chunk_elements() as u32;
            let lanes_of_chunk = TILE_ROWS as u32 * twice;
            chunks * lanes_of_chunk * 4 / self.target.wave
        };
        let section = |weights: &Vec<GpuLayout>| weights.iter().map(of_tile).sum::<u32>();
        tiles * self.sections.iter().map(section).max().unwrap_or(0)
    }

    fn k(&self) -> u64 {
        self.sections.iter().flatten().map(|weight| weight.cols).max().unwrap_or(1)
    }

    /// Tiles of results.
    fn tiles(&self, config: &TileConfig) -> u64 {
        let columns = |weights: &Vec<GpuLayout>| {
            weights.first().map_or(0, |weight| weight.rows.div_ceil(config.columns.into()))
        };
        self.rows.div_ceil(config.rows.into()) * self.sections.iter().map(columns).sum::<u64>()
    }

    fn partial_bytes(&self, config: &TileConfig) -> u64 {
        let slots = self.sections.iter().map(Vec::len).max().unwrap_or(1) as u64;
        let tile = u64::from(config.rows * config.columns) * 4 * slots;
        self.tiles(config) * u64::from(config.splits) * tile
    }

    /// Cycles that the whole takes.
    fn time(&self, config: &TileConfig) -> f64 {
        let units = u64::from(self.target.compute_units);
        let workgroups = self.tiles(config) * u64::from(config.splits);
        let rounds = workgroups.div_ceil(units) as f64;
        let section = |weights: &Vec<GpuLayout>| self.block_cycles(config, weights);
        let block = self.sections.iter().map(section).fold(0.0, f64::max);
        let blocks = self.k().div_ceil(config.depth.into()).div_ceil(config.splits.into());
        let mut time = rounds * (blocks as f64 * block + START);
        if config.splits > 1 {
            // Written by all workgroups, read by the last of each tile.
            let bytes_per_cycle = self.target.bandwidth / CLOCK;
            time += START + 2.0 * self.partial_bytes(config) as f64 / bytes_per_cycle;
        }
        time
    }

    /// Cycles of a block of K on a compute unit.
    fn block_cycles(&self, config: &TileConfig, weights: &[GpuLayout]) -> f64 {
        let [rows, columns, depth] = [config.rows, config.columns, config.depth].map(f64::from);
        let [row_waves, column_waves] = config.waves.map(f64::from);
        let slots = weights.len() as f64;
        let dtypes: Vec<DType> = weights.iter().map(|weight| weight.dtype).collect();
        let single = dtypes.first().and_then(|d| factors(*d)) == Some(MatrixType::F32);
        let bytes = if single { 4.0 } else { 2.0 };
        let rate = self.target.matrix_rate / f64::from(self.target.compute_units) / CLOCK;
        let rate = if single { rate / 8.0 } else { rate };
        let matrix = 2.0 * rows * columns * depth * slots / rate;
        let twice = if self.target.layout == MatrixLayout::Wmma3 { 2.0 } else { 1.0 };
        let weight_bytes = |w: &GpuLayout| w.bytes() as f64 / (w.rows * w.cols) as f64;
        let stored: f64 = weights.iter().map(weight_bytes).sum();
        let l1 = rows * depth * 4.0 + columns * depth * stored * row_waves * twice;
        let lds = rows * depth * bytes * (1.0 + column_waves * twice);
        // Vector instructions, of which four SIMDs do one for 16 lanes a cycle each.
        let unpacking = dtypes.iter().filter(|dtype| dtype.is_block()).count() as f64 * 1.7;
        let vector = (columns * depth * unpacking * row_waves * twice + rows * depth * 4.0) / 64.0;
        // RDNA 3 does nothing else while it multiplies matrices.
        let matrix = if twice > 1.0 { matrix + vector } else { matrix };
        let busy = matrix.max(l1 / L1_BYTES).max(lds / LDS_BYTES).max(vector);
        // Nothing overlaps perfectly.
        busy + 0.1 * (matrix + l1 / L1_BYTES + lds / LDS_BYTES + vector) + BARRIER
    }
}

/// Columns that a tile must have a multiple of: whole heads, and where that is not too much, as
/// many as there are banks, so that epilogues read whole turns of them.
pub(super) fn column_unit(heads: impl Iterator<Item = u64>) -> u64 {
    let unit = heads.fold(TILE_ROWS, least_common_multiple);
    Some(least_common_multiple(unit, BANKS)).filter(|all| *all <= MOST_COLUMNS).unwrap_or(unit)
}

/// Whether a matrix operation multiplies these weights.
pub(super) fn multiplies(target: &GpuTarget, weights: &[GpuLayout]) -> bool {
    let dtypes: Vec<DType> = weights.iter().map(|weight| weight.dtype).collect();
    op(target, &dtypes).is_some()
}
