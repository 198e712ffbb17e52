//! Sizes of tiles, and a good choice of them by reckoning.

use super::division::{Division, LEAST_RUN};
use super::fragments::factors;
use super::product::op;
use super::ring::{self, UNIT_COLUMNS};
use crate::kernels::section::least_common_multiple;
use crate::kernels::tiles::{TileSizes, within};
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
    /// Which workgroup has which blocks of K of which tiles.
    pub division: Division,
    /// Blocks of K in the ring through which warpgroups get both factors; 0 where waves multiply, with
    /// weights in registers.
    pub stages: u32,
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
/// Cycles that the barrier of a block of K costs a workgroup.
const BARRIER: f64 = 100.0;
/// Of what a block of K takes of units other than the busiest: the share that does not overlap with
/// it where a SIMD has one wave alone. Two waves fill half of each other's gaps.
const SERIAL: f64 = 0.2;
/// Waves of a SIMD that are enough: with more, a tile would have to be smaller, and read more. Lanes
/// of waves of 32 have as many more registers as leave room for twice as many waves.
const ENOUGH_WAVES: u32 = 2;
/// Most accumulators of a lane in waves of 64, half as many in those of 32, whose lanes hold twice
/// as much of everything: leaves registers for what is loaded ahead.
const MOST_SUMS: u32 = 128;
/// Most registers of a lane for accumulators and the weights of a block together, in waves of 32:
/// of 256, the rest is for fragments, addresses and what is unpacked.
const MOST_NARROW: u32 = 144;
/// Registers of a lane for the fragments of a tile of 16 rows of x or of a weight.
const FRAGMENT: u32 = 4;
/// Registers of a lane for quants that are unpacked, and for their scales.
const UNPACKED: u32 = 32;
/// Registers of a lane for addresses, and for what is short-lived.
const OTHERS: u32 = 40;
/// Most registers of a lane for pieces of x on their way.
const MOST_PIECES: u32 = 32;
/// Most rows of a tile.
const MOST_TILE_ROWS: u32 = 128;
/// Most columns of a tile, where a head has no more.
const MOST_COLUMNS: u64 = 256;
/// Most banks of the local data share.
const BANKS: u64 = 64;
/// Bytes that a compute unit gets of the second-level cache in a cycle: what kernels with tiles of 128
/// by 256 and no multicast are known to get on an H100.
const L2_BYTES: f64 = 30.0;
/// How much faster than memory the cache is for what has just been written.
const CACHE_GAIN: f64 = 2.0;
/// Cycles of a launch that prepares activations, besides their bytes.
const PREPARATION: f64 = 5000.0;
/// Share of the matrix rate that single waves reach where warpgroups reach it.
const OF_WAVES: f64 = 0.6;
/// Stages of a ring: with fewer, copies would not be ahead of the products by their latency; with more,
/// nothing is gained.
const LEAST_STAGES: u32 = 3;
const MOST_STAGES: u32 = 6;
/// Most bytes of partial sums.
const MOST_PARTIALS: u64 = 64 << 20;

impl TileConfig {
    /// Work-items of a workgroup.
    pub(super) fn workgroup(&self, target: &GpuTarget) -> u32 {
        self.waves[0] * self.waves[1] * target.wave
    }

    /// Registers that a lane should need, where a section has these weights: for sums, for weights
    /// and pieces of x on their way, for the fragments of an operation of each tile, and the rest.
    pub(super) fn registers(&self, weights: &[GpuLayout], target: &GpuTarget) -> u32 {
        let sums = weights.len() as u32 * self.rows * self.columns / self.workgroup(target);
        let pieces = self.rows * self.depth / self.workgroup(target);
        let tiles = self.rows / self.waves[0] + self.columns / self.waves[1];
        let fragments = tiles / TILE_ROWS as u32 * FRAGMENT;
        // Those of a block of a single step are held twice (`Product::multiply`).
        let groups = target.layout.k_groups();
        let single = |weight: &GpuLayout| groups * weight.chunk_elements() as u32 == self.depth;
        let twice: Vec<GpuLayout> = weights.iter().copied().filter(single).collect();
        let held = [weights, &twice].map(|weights| self.weight_registers(weights, target));
        let unpacked = if weights.iter().any(|w| w.dtype.is_block()) { UNPACKED } else { 0 };
        sums + held[0] + held[1] + pieces + fragments + unpacked + OTHERS
    }

    /// Waves of a SIMD that are planned for, with so many registers and bytes of the local data
    /// share: as many as can be, but no more than are enough.
    pub(super) fn planned_waves(&self, registers: u32, lds_bytes: u32, target: &GpuTarget) -> u32 {
        let enough = if target.wave == 32 { 2 * ENOUGH_WAVES } else { ENOUGH_WAVES };
        target.occupancy(registers, lds_bytes, self.workgroup(target)).min(enough)
    }

    /// Registers of a lane for the weights of a block of K.
    fn weight_registers(&self, weights: &[GpuLayout], target: &GpuTarget) -> u32 {
        let tiles = self.columns / self.waves[1] / TILE_ROWS as u32;
        let twice = if target.layout == MatrixLayout::Wmma3 { 2 } else { 1 };
        let of_tile = |weight: &GpuLayout| {
            let chunks = self.depth / weight.chunk_elements() as u32;
            chunks * TILE_ROWS as u32 * twice * 4 / target.wave
        };
        tiles * weights.iter().map(of_tile).sum::<u32>()
    }

    /// All choices for x of `rows` rows with the cycles that they should take, those that take least
    /// first. `columns` are those of whole heads; `sections` the weights of each section, all K long.
    pub(super) fn ranked(
        rows: u64,
        columns: u64,
        sections: &[Vec<GpuLayout>],
        target: &GpuTarget,
    ) -> Vec<(f64, TileConfig)> {
        let shape = Shape { rows, sections, target };
        let mut all: Vec<(f64, TileConfig)> =
            shape.candidates(columns).into_iter().map(|c| (shape.time(&c), c)).collect();
        all.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        all
    }
}

impl TileConfig {
    /// Why it is none of the configurations that the generator takes, if so.
    pub(super) fn refusal(
        &self,
        rows: u64,
        columns: u64,
        sections: &[Vec<GpuLayout>],
        target: &GpuTarget,
    ) -> Option<String> {
        let shape = Shape { rows, sections, target };
        if self.stages > 0 || matches!(self.division, Division::Rounds { .. }) {
            return shape.ring_refusal(self, columns);
        }
        let (waves, depth) = (WORKGROUP / target.wave, shape.depth());
        let [row_waves, column_waves] = self.waves;
        let all = row_waves.checked_mul(column_waves);
        if all != Some(waves) || !row_waves.is_power_of_two() {
            return Some(format!(
                "`row_waves` times `column_waves` must be {waves}, both powers of two"
            ));
        }
        if self.depth != depth {
            return Some(format!("`depth` must be {depth} for these weights"));
        }
        if !self.rows.is_power_of_two() {
            return Some("`rows` must be a power of two".to_string());
        }
        let most = MOST_COLUMNS.max(columns);
        if !u64::from(self.columns).is_multiple_of(columns) || u64::from(self.columns) > most {
            return Some(format!("`columns` must be a multiple of {columns}, at most {most}"));
        }
        if matches!(self.division, Division::Tiles { splits: 0 } | Division::Runs { workgroups: 0 })
        {
            return Some("there must be a workgroup".to_string());
        }
        within("rows", self.rows, 16, MOST_TILE_ROWS)
            .or_else(|| shape.misfit(self).map(str::to_string))
    }
}

impl TileSizes for TileConfig {
    const GENERATOR: &'static str = "matrix";

    fn sizes(&self) -> Vec<(&'static str, u32)> {
        let TileConfig { rows, columns, waves: [row_waves, column_waves], depth, division, stages } =
            *self;
        let mut sizes = vec![
            ("rows", rows),
            ("columns", columns),
            ("row_waves", row_waves),
            ("column_waves", column_waves),
            ("depth", depth),
            match division {
                Division::Tiles { splits } => ("splits", splits),
                Division::Runs { workgroups } => ("workgroups", workgroups),
                Division::Rounds { workgroups } => ("rounds_of", workgroups),
            },
        ];
        if stages > 0 {
            sizes.push(("stages", stages));
        }
        sizes
    }

    fn set(&mut self, name: &str, size: u32) -> bool {
        match name {
            "rows" => self.rows = size,
            "columns" => self.columns = size,
            "row_waves" => self.waves[0] = size,
            "column_waves" => self.waves[1] = size,
            "depth" => self.depth = size,
            "splits" => self.division = Division::Tiles { splits: size },
            "workgroups" => self.division = Division::Runs { workgroups: size },
            "rounds_of" => self.division = Division::Rounds { workgroups: size },
            "stages" => self.stages = size,
            _ => return false,
        }
        true
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
        for rows in [16, 32, 64, MOST_TILE_ROWS] {
            for columns in (columns..=MOST_COLUMNS.max(columns)).step_by(columns as usize) {
                for along in (0..=waves.ilog2()).map(|bit| 1 << bit) {
                    let waves = [along, waves / along];
                    let division = Division::Tiles { splits: 1 };
                    let columns = columns as u32;
                    let config = TileConfig { rows, columns, waves, depth, division, stages: 0 };
                    found.extend(self.divisions(config));
                }
            }
        }
        found.retain(|config| self.fits(config));
        found.extend(self.rings(columns));
        found
    }

    /// Configurations for warpgroups: as many stages as there is room for beside 16 staged rows of
    /// sums with one more plane for the epilogue.
    fn rings(&self, columns: u64) -> Vec<TileConfig> {
        let all: Vec<GpuLayout> = self.sections.iter().flatten().copied().collect();
        let (Some(warpgroups), Some(depth)) =
            (self.target.warpgroups, ring::depth(self.target, &all))
        else {
            return vec![];
        };
        let quants = self.quants();
        let most_sums = if quants { ring::MOST_SUMS_BESIDE_WEIGHTS } else { ring::MOST_SUMS };
        let (slots, workgroups) = (self.slots(), self.target.compute_units);
        let mut found = vec![];
        for rows in [32, 64, 128, 192, 256] {
            for wide in [UNIT_COLUMNS, 2 * UNIT_COLUMNS] {
                let sums = slots * rows * wide / ring::WORKERS;
                let in_ring = if quants { 0 } else { slots };
                let copies = in_ring * wide / TILE_ROWS as u32;
                if !u64::from(wide).is_multiple_of(columns)
                    || sums > most_sums
                    || copies >= self.target.wave
                {
                    continue;
                }
                let mut config = TileConfig {
                    rows,
                    columns: wide,
                    waves: [1, ring::WORKERS / self.target.wave],
                    depth,
                    division: Division::Rounds { workgroups },
                    stages: 0,
                };
                let staged = TILE_ROWS as u32 * (wide + super::PADDING) * 4 * (slots + 1);
                let room = warpgroups.lds_bytes.saturating_sub(staged + ring::BARRIER_BYTES);
                config.stages = (room / config.stage_bytes(in_ring)).min(MOST_STAGES);
                if config.stages >= LEAST_STAGES && self.divides(&config) {
                    found.push(config);
                }
            }
        }
        found
    }

    /// A configuration with all divisions.
    fn divisions(&self, config: TileConfig) -> impl Iterator<Item = TileConfig> {
        let tiles = [1, 2, 4, 8].map(|splits| Division::Tiles { splits });
        let runs = Division::Runs { workgroups: self.resident(&config) as u32 };
        tiles.into_iter().chain([runs]).map(move |division| TileConfig { division, ..config })
    }

    /// Elements of K that all weights have whole steps of.
    fn depth(&self) -> u32 {
        let groups = self.target.layout.k_groups();
        let steps = self.sections.iter().flatten();
        let longest = steps.map(|weight| groups * weight.chunk_elements() as u32).max();
        longest.unwrap_or(0).max(64)
    }

    fn fits(&self, config: &TileConfig) -> bool {
        self.misfit(config).is_none()
    }

    /// Why a configuration would not run, or spill.
    fn misfit(&self, config: &TileConfig) -> Option<&'static str> {
        let [rows, columns] = [config.rows, config.columns];
        let whole = rows.is_multiple_of(16 * config.waves[0])
            && columns.is_multiple_of(16 * config.waves[1]);
        let workgroup = config.workgroup(self.target);
        let pieces = rows * config.depth / workgroup;
        let sums = self.slots() * rows * columns / workgroup;
        let narrow = self.target.wave == 32;
        let most = if narrow { MOST_SUMS / 2 } else { MOST_SUMS };
        let held = |weights: &Vec<GpuLayout>| config.weight_registers(weights, self.target);
        let held = self.sections.iter().map(held).max().unwrap_or(0);
        let ahead = !narrow || sums + held <= MOST_NARROW;
        let pieces = (4..=MOST_PIECES).contains(&pieces);
        let shared = self.shared_bytes(config) <= self.target.lds_bytes;
        let divides = || self.divides(config);
        match () {
            () if !whole => {
                Some("rows and columns must be multiples of 16 for each wave along them")
            }
            () if sums > most || !ahead => Some("the tile needs more registers than there are"),
            () if !pieces => Some("a work-item would have too few or too many pieces of x"),
            () if !shared => Some("the tile needs more of the local data share than there is"),
            () if !divides() => Some("the parts that K is divided into are too short, or too many"),
            () => None,
        }
    }

    /// Bytes of the local data share: for two blocks of activations, or the sums of 16 rows with
    /// one more plane for the epilogue.
    fn shared_bytes(&self, config: &TileConfig) -> u32 {
        let weights = || self.sections.iter().flatten();
        let single = weights().any(|w| factors(w.dtype) == Some(MatrixType::F32));
        let activations = 2 * config.rows * config.depth * if single { 4 } else { 2 };
        let planes = self.slots() + 1;
        activations.max(TILE_ROWS as u32 * (config.columns + super::PADDING) * 4 * planes)
    }

    /// Whether the division makes parts that are worth it, and scratch has room for their sums.
    fn divides(&self, config: &TileConfig) -> bool {
        let (tiles, blocks) = (self.tiles(config), self.blocks(config));
        let worth = match config.division {
            Division::Tiles { splits: 1 } => true,
            Division::Tiles { splits } => blocks >= LEAST_RUN * u64::from(splits),
            // Of parts of a round there is no least number.
            Division::Rounds { .. } => true,
            // Numbers of blocks, times numbers of workgroups, are 32 bits.
            Division::Runs { workgroups } => {
                let workgroups = u64::from(workgroups);
                let runs = LEAST_RUN * workgroups..(1 << 31) / workgroups;
                runs.contains(&(tiles * blocks))
            }
        };
        worth
            && config.division.counters(tiles) <= waveloom_plan::SCRATCH_COUNTERS / 4
            && self.partial_bytes(config) <= MOST_PARTIALS
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

    fn blocks(&self, config: &TileConfig) -> u64 {
        self.k().div_ceil(config.depth.into())
    }

    fn slots(&self) -> u32 {
        self.sections.iter().map(Vec::len).max().unwrap_or(1) as u32
    }

    fn partial_bytes(&self, config: &TileConfig) -> u64 {
        let tile = u64::from(config.rows * config.columns * 4 * self.slots());
        config.division.partials(self.tiles(config)) * tile
    }

    /// Bytes of both buffers of activations.
    fn staged_bytes(&self, config: &TileConfig) -> u32 {
        2 * config.rows * config.depth * if self.single() { 4 } else { 2 }
    }

    /// Whether factors are f32.
    fn single(&self) -> bool {
        let first = self.sections.first().and_then(|weights| weights.first());
        first.and_then(|weight| factors(weight.dtype)) == Some(MatrixType::F32)
    }

    /// Waves that a SIMD should hold.
    fn waves(&self, config: &TileConfig) -> u32 {
        let registers = |weights: &Vec<GpuLayout>| config.registers(weights, self.target);
        let registers = self.sections.iter().map(registers).max().unwrap_or(1);
        config.planned_waves(registers, self.staged_bytes(config), self.target)
    }

    /// Workgroups of a compute unit, at most and on average over the SIMDs that share its LDS.
    fn workgroups_of_unit(&self, config: &TileConfig) -> f64 {
        let waves = self.waves(config) * self.target.simds();
        let groups = waves / config.waves.iter().product::<u32>();
        f64::from(groups.max(1)) / if self.target.wave == 32 { 2.0 } else { 1.0 }
    }

    /// Workgroups that the chip holds at once.
    fn resident(&self, config: &TileConfig) -> u64 {
        (f64::from(self.target.compute_units) * self.workgroups_of_unit(config)) as u64
    }

    /// Why warpgroups do not take it, if so.
    fn ring_refusal(&self, config: &TileConfig, columns: u64) -> Option<String> {
        let takes = |candidate: &TileConfig| {
            let (stages, division) = (candidate.stages, candidate.division);
            (1..=stages).contains(&config.stages)
                && TileConfig { stages, division, ..*config } == *candidate
        };
        let rings = self.rings(columns);
        if rings.is_empty() {
            return Some("no warpgroups multiply these weights: `stages` must be 0".to_string());
        }
        match config.division {
            Division::Rounds { workgroups } if (1..=self.most_counters()).contains(&workgroups) => {
            }
            _ => {
                return Some(
                    "with `stages`, `rounds_of` must be a number of workgroups".to_string(),
                );
            }
        }
        if rings.iter().any(takes) {
            return None;
        }
        let list = rings.iter().map(|c| format!("{} x {} x {}", c.rows, c.columns, c.stages));
        let list = list.collect::<Vec<_>>().join(", ");
        Some(format!("`rows`, `columns` and most `stages` must be one of {list}"))
    }

    /// Most workgroups that have counters of their own.
    fn most_counters(&self) -> u32 {
        (waveloom_plan::SCRATCH_COUNTERS / 4) as u32
    }

    /// Whether weights are quantized.
    fn quants(&self) -> bool {
        self.sections.iter().flatten().any(|weight| weight.dtype.is_block())
    }

    /// Cycles that the whole takes where warpgroups multiply.
    fn ring_time(&self, config: &TileConfig, workgroups: u32) -> f64 {
        let workgroups = u64::from(workgroups);
        let (tiles, blocks) = (self.tiles(config), self.blocks(config));
        let (rounds, rest) = (tiles / workgroups, tiles % workgroups);
        let parts = (rest * blocks).div_ceil(workgroups);
        let block = (rounds * blocks + parts) as f64 * self.ring_block_cycles(config);
        let starts = rounds + rest.min(1);
        let memory = self.target.bandwidth / CLOCK;
        // A part of a tile is written, and read by the last of those that have it.
        let sums = f64::from(config.rows * config.columns * self.slots() * 4);
        let partial = if rest > 0 { START + 2.0 * sums * workgroups as f64 / memory } else { 0.0 };
        let prepared = (self.rows * self.k()) as f64 * 6.0;
        let before = PREPARATION + prepared / (CACHE_GAIN * memory);
        before + block + starts as f64 * START + partial
    }

    /// Cycles of a block of K of a workgroup of warpgroups, alone on its unit: the busiest of matrix
    /// operations, the cache, and the local data share, of which a product reads both factors.
    fn ring_block_cycles(&self, config: &TileConfig) -> f64 {
        let [rows, columns, depth] = [config.rows, config.columns, config.depth].map(f64::from);
        let columns = columns * f64::from(self.slots());
        let rate = self.target.matrix_rate / f64::from(self.target.compute_units) / CLOCK;
        let matrix = 2.0 * rows * columns * depth / rate;
        let all = || self.sections.iter().flatten();
        let stored = all().map(|w| w.bytes() as f64 / (w.rows * w.cols) as f64).fold(0.0, f64::max);
        let cache = (rows * 2.0 + columns * stored) * depth / L2_BYTES;
        let products = columns / f64::from(ring::PRODUCT_ROWS);
        let of_weights = if self.quants() { 0.0 } else { f64::from(ring::PRODUCT_ROWS) };
        let lds = products * (of_weights + rows) * depth * 2.0 / LDS_BYTES;
        // Of which one warpgroup does some while the other one multiplies.
        let unpacking = if self.quants() { columns * depth * 1.7 / 128.0 } else { 0.0 };
        let matrix = matrix + SERIAL * unpacking;
        matrix.max(cache).max(lds).max(unpacking) + BARRIER
    }

    /// Cycles that the whole takes.
    fn time(&self, config: &TileConfig) -> f64 {
        if let Division::Rounds { workgroups } = config.division {
            return self.ring_time(config, workgroups);
        }
        let units = u64::from(self.target.compute_units);
        let (tiles, blocks) = (self.tiles(config), self.blocks(config));
        // Blocks and starts of a compute unit, one workgroup after the other.
        let (workgroups, blocks, starts) = match config.division {
            Division::Tiles { splits } => {
                let workgroups = tiles * u64::from(splits);
                let rounds = workgroups.div_ceil(units);
                (workgroups, rounds * blocks.div_ceil(splits.into()), rounds)
            }
            Division::Runs { workgroups } => {
                let workgroups = u64::from(workgroups);
                let rounds = workgroups.div_ceil(units);
                let run = (tiles * blocks).div_ceil(workgroups);
                // A run crosses tiles, of which each is begun once more.
                (workgroups, rounds * run, rounds + tiles.div_ceil(units))
            }
            Division::Rounds { .. } => unreachable!("of kernels with a ring alone"),
        };
        let together = (workgroups as f64 / units as f64).min(self.workgroups_of_unit(config));
        let section = |weights: &Vec<GpuLayout>| self.block_cycles(config, weights, together);
        let block = self.sections.iter().map(section).fold(0.0, f64::max);
        let mut time = blocks as f64 * block + starts as f64 * START / together.max(1.0);
        let partials = self.partial_bytes(config);
        if partials > 0 {
            // Written by all workgroups, read by the last of each tile.
            let bytes_per_cycle = self.target.bandwidth / CLOCK;
            time += START + 2.0 * partials as f64 / bytes_per_cycle;
        }
        time
    }

    /// Cycles of a block of K on a compute unit that holds `together` workgroups.
    fn block_cycles(&self, config: &TileConfig, weights: &[GpuLayout], together: f64) -> f64 {
        let [rows, columns, depth] = [config.rows, config.columns, config.depth].map(f64::from);
        let [row_waves, column_waves] = config.waves.map(f64::from);
        let slots = weights.len() as f64;
        let dtypes: Vec<DType> = weights.iter().map(|weight| weight.dtype).collect();
        let single = self.single();
        let bytes = if single { 4.0 } else { 2.0 };
        let rate = self.target.matrix_rate / f64::from(self.target.compute_units) / CLOCK;
        let rate = if single { rate / 8.0 } else { rate };
        let rate = if self.target.warpgroups.is_some() { rate * OF_WAVES } else { rate };
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
        let all = matrix + l1 / L1_BYTES + lds / LDS_BYTES + vector;
        // By what the four SIMDs hold, of RDNA of two units.
        let pair = if self.target.wave == 32 { 2.0 } else { 1.0 };
        let together = together.max(1.0);
        let waves = pair * together * row_waves * column_waves / f64::from(self.target.simds());
        busy + SERIAL / waves.min(ENOUGH_WAVES.into()) * all + BARRIER / together
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
