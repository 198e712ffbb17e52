//! What a `gemm` kernel depends on, and the sizes that a tuner may choose.

use super::activations::Form;
use super::amx;
use crate::kernels::section::{self, Description, Rows};
use crate::kernels::tiles::{TileSizes, unknown_generator, within};
use crate::kernels::{KernelError, Variant, extent_expr};
use crate::pack::PackedLayout;
use crate::target::CpuTarget;
use waveloom_ir::{DType, Dim, GemmAttr, GemmOutput, Module, Prologue, Tiling, Type};

/// A `gemm` without its module: what the kernel depends on.
#[derive(Clone, Debug)]
pub struct GemmSpec {
    /// Rows of x.
    pub rows: Rows,
    /// Columns of x and of the weights.
    pub k: u64,
    /// RMS norm before the products: what is added to the mean of squares.
    pub norm_eps: Option<f32>,
    /// The weights.
    pub weights: Vec<PackedLayout>,
    /// The outputs.
    pub outputs: Vec<GemmOutput>,
    /// Types of the extra operands.
    pub extras: Vec<Type>,
}

/// Most rows with accumulators in registers, and most tiles: a kernel is written out for all of them.
const MOST_ROWS: u32 = 32;
const MOST_TILES: u32 = 16;
/// Most rows of a work item: its scratch holds them.
const MOST_BLOCK_ROWS: u32 = 1024;
/// Most tiles of a group, and most groups at a time.
const MOST_GROUP_TILES: u32 = 256;
/// Farthest prefetch, in bytes.
const MOST_PREFETCH: u32 = 1 << 20;

/// What a tuner may choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TileConfig {
    /// Rows of a work item; a multiple of `rows`.
    pub block_rows: u32,
    /// Rows whose accumulators are in registers at a time.
    pub rows: u32,
    /// Tiles of L columns whose accumulators are in registers at a time.
    pub tiles: u32,
    /// Tiles of a group of columns that no head size determines.
    pub group_tiles: u32,
    /// How many such groups are multiplied, and then stored, at a time where a worker's range has
    /// them. Which ones are does not change a result.
    pub span_groups: u32,
    /// How far ahead of the loads weights are prefetched, in bytes; 0 for not at all.
    pub prefetch_bytes: u32,
}

impl TileConfig {
    /// A good choice by reckoning: accumulators fill the registers that operands leave; a row
    /// block fits in half of the second-level cache; groups are small enough to spread over
    /// workers and large enough that the epilogue does not show.
    pub fn default_for(spec: &GemmSpec, target: &CpuTarget) -> TileConfig {
        match spec.rows {
            Rows::One => TileConfig::one_row(),
            Rows::Many(_) => TileConfig::many_rows(spec, target),
        }
    }

    /// The sizes that the op chooses, and else good ones.
    pub(super) fn chosen(
        spec: &GemmSpec,
        tiling: Option<&Tiling>,
        target: &CpuTarget,
    ) -> Result<TileConfig, KernelError> {
        let reckoned = TileConfig::default_for(spec, target);
        match tiling {
            None => Ok(reckoned),
            Some(tiling) if tiling.generator == TileConfig::GENERATOR => {
                let config = reckoned.with(tiling)?;
                config.check(config.problem(spec, target))
            }
            Some(tiling) => Err(unknown_generator(tiling, &[TileConfig::GENERATOR])),
        }
    }

    /// Why the generator does not take these sizes, if so.
    fn problem(&self, spec: &GemmSpec, target: &CpuTarget) -> Option<String> {
        if self.misfits_tiles(spec, target) {
            return Some("`rows` must be 16 or 32 and `tiles` 1 or 2 for AMX".to_string());
        }
        if spec.rows == Rows::One && (self.rows, self.block_rows) != (1, 1) {
            return Some("`rows` and `block_rows` must be 1, as x has one row".to_string());
        }
        if self.rows == 0 || !self.block_rows.is_multiple_of(self.rows) {
            return Some("`block_rows` must be a multiple of `rows`".to_string());
        }
        within("rows", self.rows, 1, MOST_ROWS)
            .or_else(|| within("block_rows", self.block_rows, 1, MOST_BLOCK_ROWS))
            .or_else(|| within("tiles", self.tiles, 1, MOST_TILES))
            .or_else(|| within("group_tiles", self.group_tiles, 1, MOST_GROUP_TILES))
            .or_else(|| within("span_groups", self.span_groups, 1, MOST_GROUP_TILES))
            .or_else(|| within("prefetch_bytes", self.prefetch_bytes, 0, MOST_PREFETCH))
    }

    /// Whether AMX's eight registers do not hold the sums and their operands: rows are whole tiles, at most
    /// two of them, as are columns.
    pub(super) fn misfits_tiles(&self, spec: &GemmSpec, target: &CpuTarget) -> bool {
        let most = 2;
        spec.in_tiles(target)
            && !((1..=most).contains(&self.tiles)
                && self.rows.is_multiple_of(amx::TILE_ROWS)
                && (1..=most).contains(&(self.rows / amx::TILE_ROWS)))
    }

    fn one_row() -> TileConfig {
        TileConfig {
            block_rows: 1,
            rows: 1,
            // Each tile is a chain of multiply-adds and a stream of memory: several of them
            // together keep more loads under way.
            tiles: 4,
            group_tiles: 1,
            span_groups: 4,
            prefetch_bytes: 1024,
        }
    }

    /// Rows of two tiles. A panel of weights is made once for all rows of a block, at the cost of their
    /// products with ten or so, so that blocks are large; the activations of one are to stay in the
    /// second-level cache, but for large K, where a block is read from further away.
    fn tiled_rows(spec: &GemmSpec, target: &CpuTarget) -> TileConfig {
        let rows = 2 * amx::TILE_ROWS;
        let forms = Form::all(spec, target).into_iter().map(Form::bytes);
        let row_bytes = spec.k.next_multiple_of(amx::TILE_K) * forms.max().unwrap_or(4);
        let in_cache = u64::from(target.l2_bytes) / 4 * 3 / row_bytes.max(1);
        let blocks = (in_cache as u32 / rows).clamp(4, 256 / rows);
        TileConfig {
            block_rows: blocks * rows,
            rows,
            tiles: 2,
            group_tiles: 4,
            span_groups: 1,
            prefetch_bytes: 0,
        }
    }

    fn many_rows(spec: &GemmSpec, target: &CpuTarget) -> TileConfig {
        if spec.in_tiles(target) {
            return TileConfig::tiled_rows(spec, target);
        }
        let wide = target.vector_registers >= 32;
        let quantized = spec.weights.iter().any(|w| w.dtype.is_block());
        let rows = match (wide, quantized) {
            (true, true) => 16,
            (true, false) => 12,
            (false, true) => 4,
            (false, false) => 6,
        };
        let forms = Form::all(spec, target).into_iter().map(Form::bytes);
        let row_bytes = (spec.k * forms.max().unwrap_or(4)).max(1);
        let in_cache = u64::from(target.l2_bytes) / 2 / row_bytes;
        let blocks = (in_cache / rows).clamp(1, 96 / rows);
        TileConfig {
            block_rows: (blocks * rows) as u32,
            rows: rows as u32,
            tiles: if quantized { 1 } else { 2 },
            group_tiles: 4,
            span_groups: 1,
            prefetch_bytes: 0,
        }
    }
}

impl TileSizes for TileConfig {
    const GENERATOR: &'static str = "cpu";

    fn sizes(&self) -> Vec<(&'static str, u32)> {
        let TileConfig { block_rows, rows, tiles, group_tiles, span_groups, prefetch_bytes } =
            *self;
        vec![
            ("block_rows", block_rows),
            ("rows", rows),
            ("tiles", tiles),
            ("group_tiles", group_tiles),
            ("span_groups", span_groups),
            ("prefetch_bytes", prefetch_bytes),
        ]
    }

    fn set(&mut self, name: &str, size: u32) -> bool {
        *match name {
            "block_rows" => &mut self.block_rows,
            "rows" => &mut self.rows,
            "tiles" => &mut self.tiles,
            "group_tiles" => &mut self.group_tiles,
            "span_groups" => &mut self.span_groups,
            "prefetch_bytes" => &mut self.prefetch_bytes,
            _ => return false,
        } = size;
        true
    }
}

impl GemmSpec {
    pub(super) fn new(
        module: &Module,
        attr: &GemmAttr,
        types: &[&Type],
        variant: Variant,
        target: &CpuTarget,
    ) -> Result<GemmSpec, KernelError> {
        let (Some(x), Some(weights), Some(extras)) = (
            types.first(),
            types.get(attr.first_weight()..attr.first_extra()),
            types.get(attr.first_extra()..),
        ) else {
            return Err(KernelError("gemm: too few operands".to_string()));
        };
        let [rows, Dim::Const(k)] = x.shape[..] else {
            return Err(KernelError("gemm: x is not [M, constant]".to_string()));
        };
        let rows = match (rows, variant) {
            (Dim::Const(1), _) | (Dim::Symbol(_), Variant::Decode) => Rows::One,
            _ => Rows::Many(extent_expr(module, rows)?),
        };
        let weights = weights
            .iter()
            .map(|ty| packed_layout(ty, target))
            .collect::<Result<Vec<_>, KernelError>>()?;
        let norm_eps = attr.prologue.map(|Prologue::RmsNorm { eps }| eps.0);
        if attr.prologue.is_some() && types.get(1).is_some_and(|ty| ty.dtype != DType::F32) {
            return Err(KernelError("gemm: the norm weight is not f32".to_string()));
        }
        Ok(GemmSpec {
            rows,
            k,
            norm_eps,
            weights,
            outputs: attr.outputs.clone(),
            extras: extras.iter().map(|ty| (*ty).clone()).collect(),
        })
    }

    /// It in words.
    pub(super) fn description(&self) -> Description<'_> {
        Description {
            rows: &self.rows,
            k: self.k,
            norm: self.norm_eps.is_some(),
            weights: self.weights.iter().map(|weight| (weight.dtype, weight.rows)).collect(),
            outputs: &self.outputs,
        }
    }

    /// Whether the products are done in AMX tiles.
    pub(super) fn in_tiles(&self, target: &CpuTarget) -> bool {
        matches!(Form::all(self, target).first(), Some(Form::Tiles(_)))
    }

    /// Whether an output goes to a cache.
    pub(super) fn appends(&self) -> bool {
        section::appends(&self.outputs)
    }
}

pub(super) fn packed_layout(ty: &Type, target: &CpuTarget) -> Result<PackedLayout, KernelError> {
    let cannot = || KernelError(format!("gemm: cannot multiply a weight of dtype {}", ty.dtype));
    match ty.shape[..] {
        [Dim::Const(n), Dim::Const(k)] => {
            PackedLayout::new(ty.dtype, n, k, target).ok_or_else(cannot)
        }
        _ => Err(cannot()),
    }
}
