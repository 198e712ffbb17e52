//! Products by matrix operations, for prefill: D = W·Xᵀ.
//!
//! A workgroup makes a tile of rows of x times columns of one section. Weights are the operand A:
//! what a lane loads of packed memory is its fragment (`weights`, `fragments`). Activations are the
//! operand B, staged in the local data share (`activations`). `product` is the loop over K. Then
//! the accumulators are staged as f32 and the epilogue evaluates the outputs, some rows at a time.
//!
//! Sections whose weights have the same dtypes share one loop: which weight it reads is chosen when
//! the kernel runs. `division` says which workgroup has which blocks of K of which tiles.

mod activations;
mod config;
mod division;
mod fragments;
mod prepare;
mod product;
mod ring;
#[cfg(test)]
mod tests;
mod weights;

pub use config::TileConfig;
pub use division::Division;

use super::epilogue::Epilogue;
use super::{Env, GemmSpec, Stage, Tile, split};
use crate::kernels::instance::Draft;
use crate::kernels::section::{Rows, Section};
use crate::kernels::{KernelError, KernelSource};
use crate::mlir::builder::Cmp;
use crate::mlir::gpu::warpgroup::COLUMN_GROUP;
use crate::mlir::{Builder, Elem, Value};
use crate::pack::gpu::{GpuLayout, TILE_ROWS};
use crate::target::{GpuTarget, MatrixLayout, MatrixType};
use activations::{Activations, Norm, PIECE, Source};
use division::Share;
use product::Product;
use waveloom_ir::DType;
use waveloom_ir::numerics::{Factors, Numerics, Rounding, Sums};
use waveloom_plan as plan;
use weights::Weights;

/// Rows that are left to products of vectors: most of a matrix operation would be for nothing.
const FEW_ROWS: u64 = 8;
/// Bytes of the local data share that the staged accumulators may claim, where the tile's rows can
/// be staged in turns: with more, a compute unit with 64 KiB would hold one workgroup only.
const STAGE_BYTES: u32 = 32 << 10;
/// Elements that are added to a staged row, so that rows do not share banks.
const PADDING: u32 = 4;

impl TileConfig {
    /// A good choice for x of up to `rows` rows, by reckoning; `None` where the generator does not
    /// do it: few rows, K that cannot be loaded in pieces, weights that no matrix operation takes.
    pub fn default_for(spec: &GemmSpec, rows: u64, target: &GpuTarget) -> Option<TileConfig> {
        TileConfig::ranked_for(spec, rows, target).into_iter().next().map(|(_, config)| config)
    }

    /// All choices with the cycles that they should take, the best first.
    pub fn ranked_for(spec: &GemmSpec, rows: u64, target: &GpuTarget) -> Vec<(f64, TileConfig)> {
        if rows <= FEW_ROWS || !spec.k.is_multiple_of(PIECE.into()) {
            return vec![];
        }
        let Ok((columns, weights)) = tiled(spec) else { return vec![] };
        // Offsets of scales are 32 bits.
        let small = |layout: &GpuLayout| layout.bytes() - layout.scales_offset() < 1 << 31;
        let takes = weights
            .iter()
            .all(|weights| config::multiplies(target, weights) && weights.iter().all(small));
        if takes { TileConfig::ranked(rows, columns, &weights, target) } else { vec![] }
    }
}

impl TileConfig {
    /// Why the generator does not take these sizes for x of up to `rows` rows, if so.
    pub(super) fn problem(
        &self,
        spec: &GemmSpec,
        rows: u64,
        target: &GpuTarget,
    ) -> Result<Option<String>, KernelError> {
        let (columns, weights) = tiled(spec)?;
        Ok(self.refusal(rows, columns, &weights, target))
    }
}

/// Columns that a tile must have a multiple of, and the weights of each section.
fn tiled(spec: &GemmSpec) -> Result<(u64, Vec<Vec<GpuLayout>>), KernelError> {
    let sections = spec.sections()?;
    let columns = config::column_unit(sections.iter().filter_map(|s| s.head_columns));
    Ok((columns, sections.iter().map(|section| layouts(spec, section)).collect()))
}

/// The kernel of `spec` for x of up to `rows` rows with the given tiles.
pub fn kernel(
    spec: &GemmSpec,
    rows: u64,
    config: TileConfig,
    target: &GpuTarget,
) -> Result<KernelSource, KernelError> {
    let workgroup = config.workgroup(target) + config.copying();
    let mut draft = Draft::for_gpu(spec.description().stem(), workgroup, target);
    let env = Env::new(&mut draft, spec);
    let gemm = Gemm::new(spec, rows, config, target)?;
    let scratch = (gemm.scratch_bytes() > 0).then(|| draft.scratch());
    match scratch {
        Some(scratch) if config.stages > 0 => gemm.emit_ring(&mut draft.builder, &env, scratch),
        scratch => gemm.emit(&mut draft.builder, &env, scratch),
    }
    let summary = spec.description().summary();
    let mut source = draft.finish(summary, gemm.workgroups(), gemm.scratch_bytes());
    source.streams_weights = true;
    source.numerics = gemm.numerics();
    source.before = (config.stages > 0).then(|| Box::new(prepare::kernel(&gemm)));
    Ok(source)
}

fn layouts(spec: &GemmSpec, section: &Section) -> Vec<GpuLayout> {
    section.weights.iter().map(|weight| spec.weights[*weight]).collect()
}

/// A kernel's fixed facts.
struct Gemm<'a> {
    spec: &'a GemmSpec,
    /// Most rows of x.
    most_rows: u64,
    config: TileConfig,
    target: &'a GpuTarget,
    /// Sections by families, which share a loop.
    families: Vec<Family<'a>>,
}

/// Sections whose weights have the same dtypes.
struct Family<'a> {
    product: Product<'a>,
    sections: Vec<Part>,
}

/// A section, and the first of its tiles of columns among all.
struct Part {
    section: Section,
    layouts: Vec<GpuLayout>,
    first: u32,
}

/// Which tile is worked on; all `i32`.
#[derive(Clone, Copy)]
struct Place {
    /// Tile of rows.
    row: Value,
    /// Tile of columns, among those of all sections.
    column: Value,
    share: Share,
}

impl Part {
    fn tiles(&self, columns: u32) -> u32 {
        self.section.n.div_ceil(columns.into()) as u32
    }
}

impl Family<'_> {
    /// Tiles of columns `first..end` of all.
    fn tiles(&self) -> (u32, u32) {
        let columns = self.product.config.columns;
        let first = self.sections.first().map_or(0, |part| part.first);
        (first, self.sections.last().map_or(0, |part| part.first + part.tiles(columns)))
    }
}

impl<'a> Gemm<'a> {
    fn new(
        spec: &'a GemmSpec,
        most_rows: u64,
        config: TileConfig,
        target: &'a GpuTarget,
    ) -> Result<Gemm<'a>, KernelError> {
        let mut families: Vec<Family<'a>> = vec![];
        for section in spec.sections()? {
            let layouts = layouts(spec, &section);
            let same = |family: &&mut Family<'_>| {
                let steps = &family.product.steps;
                let dtypes = steps.iter().map(|step| step.layout.dtype);
                dtypes.eq(layouts.iter().map(|layout| layout.dtype))
            };
            let part = Part { section, layouts: layouts.clone(), first: 0 };
            match families.iter_mut().find(same) {
                Some(family) => family.sections.push(part),
                None => {
                    let product = Product::new(target, config, &layouts).ok_or_else(|| {
                        KernelError("gemm: no matrix operation multiplies the weights".to_string())
                    })?;
                    families.push(Family { product, sections: vec![part] });
                }
            }
        }
        let mut first = 0;
        for part in families.iter_mut().flat_map(|family| &mut family.sections) {
            part.first = first;
            first += part.tiles(config.columns);
        }
        Ok(Gemm { spec, most_rows, config, target, families })
    }

    /// How it rounds: both factors, to what the matrix operation takes.
    fn numerics(&self) -> Numerics {
        let product = |layout: &GpuLayout| {
            let factors = fragments::factors(layout.dtype);
            let rounding = factors.map_or(Rounding::None, |ty| self.target.rounding(ty));
            // What is stored as factors are needs no rounding.
            let stored = matches!(layout.dtype, DType::F16 | DType::BF16 | DType::F32);
            let matrix = if stored { Rounding::None } else { rounding };
            Factors { activations: rounding, matrix, sums: Sums::Matrix }
        };
        Numerics { products: self.spec.weights.iter().map(product).collect() }
    }

    /// Tiles of columns of all sections.
    fn column_tiles(&self) -> u32 {
        self.families.last().map_or(0, |family| family.tiles().1)
    }

    fn workgroups(&self) -> plan::Expr {
        let splits = match self.config.division {
            Division::Tiles { splits } => splits,
            Division::Runs { workgroups } | Division::Rounds { workgroups } => {
                return plan::Expr::from(i64::from(workgroups));
            }
        };
        let columns = plan::Expr::from(i64::from(self.column_tiles() * splits));
        match &self.spec.rows {
            Rows::One => columns,
            Rows::Many(rows) => {
                let tile = plan::Expr::from(i64::from(self.config.rows));
                plan::Expr::CeilDiv(Box::new(rows.clone()), Box::new(tile)) * columns
            }
        }
    }

    /// Type of the factors, which all products agree on.
    fn factors(&self) -> MatrixType {
        self.families.first().map_or(MatrixType::F32, |family| family.product.op.factors)
    }

    /// Blocks of K of a tile.
    fn blocks(&self) -> u32 {
        self.families.first().map_or(0, |family| family.product.blocks())
    }

    /// Bytes of a workgroup's sums of a tile.
    fn partial_bytes(&self) -> u64 {
        let slots = self.families.iter().map(|family| family.product.steps.len()).max();
        u64::from(self.config.rows * self.config.columns * 4) * slots.unwrap_or(1) as u64
    }

    /// Counters, then prepared activations, then partial sums.
    fn scratch_bytes(&self) -> u64 {
        let tiles =
            self.most_rows.div_ceil(self.config.rows.into()) * u64::from(self.column_tiles());
        match self.config.division.partials(tiles) * self.partial_bytes() + self.prepared_bytes() {
            0 => 0,
            bytes => plan::SCRATCH_COUNTERS + bytes,
        }
    }

    /// Where partial sums begin in scratch.
    fn partials_offset(&self) -> u64 {
        plan::SCRATCH_COUNTERS + self.prepared_bytes()
    }

    /// Elements of a staged row.
    fn pitch(&self) -> u32 {
        self.config.columns + PADDING
    }

    fn epilogue(&'a self, section: &'a Section) -> Epilogue<'a> {
        Epilogue::new(self.spec, section, self.target, self.config.workgroup(self.target))
    }

    /// Registers that a lane should need.
    fn registers(&self) -> u32 {
        let parts = self.families.iter().flat_map(|family| &family.sections);
        let registers = parts.map(|part| self.config.registers(&part.layouts, self.target));
        registers.max().unwrap_or(1)
    }

    /// Rows whose accumulators are staged at a time, and the bytes that they need.
    fn stage_rows(&self) -> (u32, u32) {
        let sections = || self.families.iter().flat_map(|family| &family.sections);
        let bytes = |rows: u32| {
            let each = sections()
                .map(|part| self.epilogue(&part.section).shared_bytes(rows, self.pitch()));
            each.max().unwrap_or(0)
        };
        let mut rows = self.config.rows;
        if self.config.stages > 0 {
            // Whole groups: half of them is left.
            while rows.is_multiple_of(2 * COLUMN_GROUP) && bytes(rows) > self.beside_the_ring() {
                rows /= 2;
            }
            return (rows, bytes(rows));
        }
        while rows > TILE_ROWS as u32 && bytes(rows) > STAGE_BYTES.max(self.staged_bytes()) {
            rows /= 2;
        }
        (rows, bytes(rows))
    }

    /// Bytes of both buffers of activations.
    fn staged_bytes(&self) -> u32 {
        self.families.iter().map(|f| 2 * f.product.staged_bytes()).max().unwrap_or(0)
    }

    fn emit(&self, k: &mut Builder, env: &Env, scratch: Option<Value>) {
        k.saturate_f16();
        let bytes = self.stage_rows().1.max(self.staged_bytes()).max(self.config.rows * 4);
        let shared = k.shared(bytes);
        k.plan_waves(self.config.planned_waves(self.registers(), bytes, self.target));
        let rows = self.row_tiles(k, env.m);
        let tiles = k.mul_const(rows, self.column_tiles().into());
        self.for_shares(k, [rows, tiles], |k, share| {
            let column = k.udiv(share.tile, rows);
            let column = k.first_lane(column);
            let whole = k.mul(column, rows);
            let row = k.sub(share.tile, whole);
            self.tile(k, env, scratch, Place { row, column, share }, shared);
        });
    }

    /// Tiles of rows.
    fn row_tiles(&self, k: &mut Builder, rows: Value) -> Value {
        k.ceil_div_const(rows, self.config.rows.into())
    }

    /// A tile, of the family that has it.
    fn tile(
        &self,
        k: &mut Builder,
        env: &Env,
        scratch: Option<Value>,
        place: Place,
        shared: Value,
    ) {
        if let [family] = &self.families[..] {
            return self.family(k, env, scratch, family, place, shared);
        }
        for family in &self.families {
            let (first, end) = family.tiles();
            let here = within(k, place.column, first, end);
            k.if_then(here, |k| self.family(k, env, scratch, family, place, shared));
        }
    }

    /// The tile of a section of the family.
    fn family(
        &self,
        k: &mut Builder,
        env: &Env,
        scratch: Option<Value>,
        family: &Family<'_>,
        place: Place,
        shared: Value,
    ) {
        let product = &family.product;
        let first_row = k.mul_const(place.row, self.config.rows.into());
        let rows = k.sub(env.m, first_row);
        let source = self.source(k, env, first_row, rows);
        let activations = Activations::new(k, product, source, shared);
        let weights = self.weights(k, env, family, place);
        let sums = product.emit(k, &activations, &weights, place.share.blocks);
        match (place.share.sharers, scratch) {
            (Some(sharers), Some(scratch)) => {
                let memory = (scratch, shared);
                self.with_all_sums(k, memory, &sharers, &sums, |k, sums| {
                    self.outputs(k, env, family, place, sums, shared);
                });
            }
            _ => self.outputs(k, env, family, place, &sums, shared),
        }
    }

    fn source(&self, k: &mut Builder, env: &Env, first_row: Value, rows: Value) -> Source {
        let offset = k.mul_const(first_row, self.spec.k as i64 * 4);
        let x = k.offset_u32(env.x, offset);
        let norm = match (env.norm, self.spec.norm_eps) {
            (Some(weight), Some(eps)) => {
                let bytes = k.i32(self.spec.k as i32 * 4);
                Some(Norm { weight: k.resource_of(weight, bytes, self.target), eps })
            }
            _ => None,
        };
        let most = k.i32(self.config.rows as i32);
        let rows = k.min(rows, most);
        let bytes = k.mul_const(rows, self.spec.k as i64 * 4);
        Source { x, buffer: k.resource_of(x, bytes, self.target), rows, norm }
    }

    /// The weights of the tile: those of the section that has it.
    fn weights<'p>(
        &self,
        k: &mut Builder,
        env: &Env,
        family: &'p Family<'p>,
        place: Place,
    ) -> Weights<'p> {
        let product = &family.product;
        let matrices = 0..product.steps.len();
        let matrices = matrices.map(|slot| self.matrix(k, env, family, place, slot));
        let matrices = matrices.collect();
        Weights::new(k, product, matrices)
    }

    /// The weight in a slot, of that section of the family which has the tile.
    fn matrix(
        &self,
        k: &mut Builder,
        env: &Env,
        family: &Family<'_>,
        place: Place,
        slot: usize,
    ) -> weights::Matrix {
        let chosen = self.choice(k, env, family, place, slot);
        let product = &family.product;
        let layout = &product.steps[slot].layout;
        let wave = product.wave(k)[1];
        let offset = k.mul_const(wave, product.column_tiles().into());
        let first_tile = k.add(chosen.first_tile, offset);
        let last = k.add_const(chosen.tiles, -1);
        let tiles = (0..product.column_tiles()).map(|tile| {
            let tile = k.add_const(first_tile, tile.into());
            k.min(tile, last)
        });
        let tiles: Vec<Value> = tiles.collect();
        let others = k.sub(tiles[tiles.len() - 1], tiles[0]);
        let bytes = k.add_const(others, 1);
        let bytes = k.mul_const(bytes, layout.tile_bytes() as i64);
        let wide = k.zext(tiles[0], Elem::I64);
        let before = k.mul_const(wide, layout.tile_bytes() as i64);
        let chunks = k.offset(chosen.base, before);
        let chunks = k.resource_of(chunks, bytes, self.target);
        let scales = (layout.scale_bytes() > 0).then(|| {
            let scales = k.offset(chosen.base, chosen.scales);
            k.resource_of(scales, chosen.scale_bytes, self.target)
        });
        weights::Matrix { chunks, scales, tail: chosen.tail, tiles }
    }

    /// Facts of the weight in a slot, chosen among the family's sections by the tile.
    fn choice(
        &self,
        k: &mut Builder,
        env: &Env,
        family: &Family<'_>,
        place: Place,
        slot: usize,
    ) -> Choice {
        let mut chosen: Option<Choice> = None;
        for part in &family.sections {
            let layout = &part.layouts[slot];
            let column = k.add_const(place.column, -i64::from(part.first));
            let tiles = i64::from(self.config.columns) / TILE_ROWS as i64;
            let scales = layout.scales_offset();
            let choice = Choice {
                base: env.weights[part.section.weights[slot]],
                first_tile: k.mul_const(column, tiles),
                tiles: k.i32(layout.tiles() as i32),
                scales: k.i64(scales as i64),
                scale_bytes: k.i32((layout.bytes() - scales) as i32),
                tail: k.i32((layout.tail_offset() - scales) as i32),
            };
            chosen = Some(match chosen {
                None => choice,
                Some(other) => {
                    let first = k.i32(part.first as i32);
                    let this = k.cmp(Cmp::Ge, place.column, first);
                    other.or(k, this, choice)
                }
            });
        }
        chosen.unwrap_or_else(|| unreachable!("a family has sections"))
    }

    /// Stages the accumulators, some rows at a time, and runs the epilogue over them.
    fn outputs(
        &self,
        k: &mut Builder,
        env: &Env,
        family: &Family<'_>,
        place: Place,
        sums: &[Value],
        shared: Value,
    ) {
        let (rows, _) = self.stage_rows();
        let turns = self.config.rows / rows;
        if turns == 1 {
            let turn = k.i32(0);
            return self.turn(k, env, family, place, sums, shared, turn);
        }
        let (zero, end) = (k.i32(0), k.i32(turns as i32));
        k.for_loop(zero, end, 1, [], |k, turn, []| {
            self.turn(k, env, family, place, sums, shared, turn);
            []
        });
    }

    /// Stages and stores the rows of one turn.
    #[allow(clippy::too_many_arguments)]
    fn turn(
        &self,
        k: &mut Builder,
        env: &Env,
        family: &Family<'_>,
        place: Place,
        sums: &[Value],
        shared: Value,
        turn: Value,
    ) {
        let (rows, _) = self.stage_rows();
        let stage = Stage { base: shared, rows, columns: self.config.columns, pitch: self.pitch() };
        // What was in the local data share has been read.
        k.barrier_shared();
        match self.config.stages {
            0 => self.stage(k, &family.product, sums, &stage, turn),
            _ => self.stage_sums(k, family, sums, &stage, turn),
        }
        k.barrier_shared();
        let first_row = k.mul_const(place.row, self.config.rows.into());
        let done = k.mul_const(turn, rows.into());
        let first_row = k.add(first_row, done);
        let left = k.sub(env.m, first_row);
        let (zero, most) = (k.i32(0), k.i32(rows as i32));
        let left = k.max(left, zero);
        let left = k.min(left, most);
        for part in &family.sections {
            let end = part.first + part.tiles(self.config.columns);
            let column = k.add_const(place.column, -i64::from(part.first));
            let first_column = k.mul_const(column, self.config.columns.into());
            let tile = Tile { first_row, rows: left, first_column };
            let emit = |k: &mut Builder| self.epilogue(&part.section).emit(k, env, &stage, &tile);
            if family.sections.len() == 1 {
                emit(k);
            } else {
                let here = within(k, place.column, part.first, end);
                k.if_then(here, emit);
            }
        }
    }

    /// Stores the accumulators of a turn's rows to the stage.
    fn stage(
        &self,
        k: &mut Builder,
        product: &Product<'_>,
        sums: &[Value],
        stage: &Stage,
        turn: Value,
    ) {
        let [group, row] = k.matrix_lane(self.target);
        let [wave_row, wave_column] = product.wave(k);
        let first_tile = k.mul_const(wave_row, product.row_tiles().into());
        let staged_tiles = stage.rows / TILE_ROWS as u32;
        let skipped = k.mul_const(turn, staged_tiles.into());
        let columns = product.column_tiles() * TILE_ROWS as u32;
        let column = k.mul_const(wave_column, columns.into());
        let (_, step) = self.target.layout.row(0);
        let group = k.mul_const(group, step.into());
        let column = k.add(column, group);
        for line in 0..product.row_lines() {
            let (row_tile, other) = (line / product.lines(), line % product.lines());
            let tile = k.add_const(first_tile, row_tile.into());
            let tile = k.sub(tile, skipped);
            let first_row = k.mul_const(tile, TILE_ROWS as i64);
            let other = i64::from(other * TILE_ROWS as u32 / product.lines());
            let first_row = k.add_const(first_row, other);
            let row = k.add(first_row, row);
            let element = k.mul_const(row, stage.pitch.into());
            let element = k.add(element, column);
            let store = |k: &mut Builder| {
                for slot in 0..product.steps.len() {
                    for column_tile in 0..product.column_tiles() {
                        let sum = sums[product.sum(slot, column_tile, line)];
                        let plane = slot as u32 * stage.rows * stage.pitch;
                        let offset = plane + column_tile * TILE_ROWS as u32;
                        let at = k.element_u32(stage.base, Elem::F32, element);
                        self.store_sum(k, sum, at, offset);
                    }
                }
            };
            if stage.rows == self.config.rows {
                store(k);
            } else {
                // Below zero is above all that there is.
                let end = k.i32(staged_tiles as i32);
                let here = k.cmp(Cmp::Ult, tile, end);
                k.if_then(here, store);
            }
        }
    }

    /// Stores the elements of an accumulator, columns of one row of the stage, `offset` elements
    /// from the lane's place.
    fn store_sum(&self, k: &mut Builder, sum: Value, at: Value, offset: u32) {
        let layout = self.target.layout;
        // Elements that are neighbours in the result.
        let run = match layout {
            MatrixLayout::Wmma3 => 1,
            MatrixLayout::Mma => 2,
            MatrixLayout::Mfma | MatrixLayout::Wmma4 => 4,
        };
        for first in (0..layout.sums()).step_by(run as usize) {
            let (column, _) = layout.row(first);
            let to = k.offset_const(at, i64::from(offset + column) * 4);
            match run {
                1 => {
                    let value = k.extract(sum, first);
                    k.store(value, to);
                }
                run => {
                    let values = k.slice(sum, first, run);
                    k.store_aligned(values, to, 4 * run);
                }
            }
        }
    }
}

/// One of a family's weights, as values.
struct Choice {
    base: Value,
    /// The workgroup's first tile of 16 rows, and the number that exist.
    first_tile: Value,
    tiles: Value,
    /// Where scales begin, how many bytes they are, and where among them those beyond whole units
    /// are.
    scales: Value,
    scale_bytes: Value,
    tail: Value,
}

impl Choice {
    /// `other` if `condition`.
    fn or(&self, k: &mut Builder, condition: Value, other: Choice) -> Choice {
        Choice {
            base: k.select(condition, other.base, self.base),
            first_tile: k.select(condition, other.first_tile, self.first_tile),
            tiles: k.select(condition, other.tiles, self.tiles),
            scales: k.select(condition, other.scales, self.scales),
            scale_bytes: k.select(condition, other.scale_bytes, self.scale_bytes),
            tail: k.select(condition, other.tail, self.tail),
        }
    }
}

/// Whether `value` is in `first..end`.
fn within(k: &mut Builder, value: Value, first: u32, end: u32) -> Value {
    let offset = k.add_const(value, -i64::from(first));
    let count = k.i32((end - first) as i32);
    k.cmp(Cmp::Ult, offset, count)
}
