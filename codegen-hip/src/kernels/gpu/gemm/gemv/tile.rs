//! How a matrix-vector product is divided among workgroups and waves.

use super::activations::Activations;
use super::stream::Bundle;
use crate::kernels::KernelError;
use crate::kernels::gpu::gemm::GemmSpec;
use crate::kernels::section::{Rows, Section, least_common_multiple};
use crate::kernels::tiles::{TileSizes, within};
use crate::target::GpuTarget;
use waveloom_plan as plan;

/// Columns of a tile: rows of a packed tile of weights.
pub const TILE_COLUMNS: u64 = 16;
/// Most rows of x that a workgroup multiplies.
const MOST_ROWS: u32 = 8;
/// Work-items of a workgroup where heads do not ask for more.
const WORKGROUP: u32 = 256;
/// Most work-items of a workgroup: more would have few registers each.
const MOST_WORK_ITEMS: u32 = 512;
/// Most tiles whose sums a wave has: a kernel is written out for all of them.
const MOST_TILES: u32 = 8;
/// Fewest bytes of a slab.
const LEAST_SLAB: u32 = 1024;

/// Vector registers that instructions can name.
const REGISTERS: u32 = 256;
/// Vector registers of a lane for addresses, and for what the scheduler overlaps.
const BESIDES: u32 = 32;

/// What a tuner may choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TileConfig {
    /// Rows of x that a workgroup multiplies, 1 to 8.
    pub rows: u32,
    /// Tiles of 16 columns whose sums a wave has in registers at a time.
    pub tiles: u32,
    /// Waves of a workgroup side by side along N, where heads do not decide.
    pub waves_n: u32,
    /// Waves of a workgroup that share K, where there is enough of it.
    pub waves_k: u32,
    /// Bytes of the local data share for rows of x; longer rows come in slabs.
    pub slab_bytes: u32,
}

impl TileConfig {
    /// A good choice by reckoning: workgroups of 256 work-items, so wide that staging x shows
    /// little, and narrower, with K divided among waves, until two workgroups come on a compute
    /// unit; half of the local data share for x, so that two fit.
    pub fn default_for(spec: &GemmSpec, target: &GpuTarget) -> Result<TileConfig, KernelError> {
        let rows = match &spec.rows {
            Rows::One => 1,
            Rows::Many(plan::Expr::Const(m)) => (*m).clamp(1, MOST_ROWS.into()) as u32,
            Rows::Many(_) => MOST_ROWS,
        };
        let waves = WORKGROUP / target.wave;
        let mut config = TileConfig {
            rows,
            tiles: 1,
            waves_n: waves,
            waves_k: 1,
            slab_bytes: target.lds_bytes / 2,
        };
        let sections = spec.sections()?;
        let free = || sections.iter().filter(|section| section.head_columns.is_none());
        let groups = |config: &TileConfig| -> u64 {
            let span = u64::from(config.tiles * config.waves_n) * TILE_COLUMNS;
            free().map(|section| section.n.div_ceil(span)).sum()
        };
        let most_k = |config: &TileConfig| {
            let most =
                free().map(|section| Shares::of(spec, section, config, target).most_waves_k());
            most.min().unwrap_or(waves)
        };
        let enough = 2 * u64::from(target.compute_units);
        while config.waves_n > 1 && groups(&config) < enough {
            let halved =
                TileConfig { waves_n: config.waves_n / 2, waves_k: 2 * config.waves_k, ..config };
            if halved.waves_k > most_k(&halved) {
                break;
            }
            config = halved;
        }
        Ok(config)
    }
}

impl TileConfig {
    /// Why the generator does not take these sizes, if so. Whether they fit in the local data share
    /// is found out as the kernel is made.
    pub(in crate::kernels::gpu::gemm) fn problem(
        &self,
        spec: &GemmSpec,
        target: &GpuTarget,
    ) -> Option<String> {
        if spec.rows == Rows::One && self.rows != 1 {
            return Some("`rows` must be 1, as x has one row".to_string());
        }
        let waves = self.waves_n.checked_mul(self.waves_k).unwrap_or(0);
        let most = MOST_WORK_ITEMS / target.wave;
        if waves == 0 || waves > most {
            return Some(format!("`waves_n` times `waves_k` must be within 1 and {most}"));
        }
        within("rows", self.rows, 1, MOST_ROWS)
            .or_else(|| within("tiles", self.tiles, 1, MOST_TILES))
            .or_else(|| within("slab_bytes", self.slab_bytes, LEAST_SLAB, target.lds_bytes))
    }
}

impl TileSizes for TileConfig {
    const GENERATOR: &'static str = "vector";

    fn sizes(&self) -> Vec<(&'static str, u32)> {
        let TileConfig { rows, tiles, waves_n, waves_k, slab_bytes } = *self;
        vec![
            ("rows", rows),
            ("tiles", tiles),
            ("waves_n", waves_n),
            ("waves_k", waves_k),
            ("slab_bytes", slab_bytes),
        ]
    }

    fn set(&mut self, name: &str, size: u32) -> bool {
        *match name {
            "rows" => &mut self.rows,
            "tiles" => &mut self.tiles,
            "waves_n" => &mut self.waves_n,
            "waves_k" => &mut self.waves_k,
            "slab_bytes" => &mut self.slab_bytes,
            _ => return false,
        } = size;
        true
    }
}

/// Sections of the same dtypes, divided alike: they share the code of the products.
pub(super) struct Class {
    /// The sections, by index.
    pub sections: Vec<usize>,
    /// Spans of each section.
    pub section_groups: Vec<u64>,
    /// The weights of a section by dtype.
    pub bundles: Vec<Bundle>,
    pub activations: Activations,
    /// Tiles of a span.
    pub span_tiles: u32,
    /// Tiles of a span, and of each weight of the section, that a wave multiplies.
    pub tiles: u32,
    /// Waves side by side along N.
    pub waves_n: u32,
    /// Waves that share K.
    pub waves_k: u32,
}

impl Class {
    /// Spans of all its sections.
    pub fn groups(&self) -> u64 {
        self.section_groups.iter().sum()
    }

    /// Vector registers of a lane, where it has the most: while x is staged, or while one of the
    /// bundles is multiplied. Of several, what LLVM does in between is not reckoned with, and
    /// nothing is planned.
    pub fn registers(&self, norm: bool, target: &GpuTarget) -> u32 {
        let streams = |bundle: &Bundle| bundle.slots.len() as u32 * self.tiles;
        let [bundle] = &self.bundles[..] else { return REGISTERS };
        let streams = streams(bundle);
        let multiplied = bundle.product_registers(streams, target);
        let staged = self.activations.registers(norm);
        let loads = bundle.loads_registers(streams, target);
        bundle.sum_registers(streams) + loads + multiplied.max(staged) + BESIDES
    }

    /// Weights of a section.
    pub fn slots(&self) -> u32 {
        self.bundles.iter().map(|bundle| bundle.slots.len() as u32).sum()
    }
}

/// A section's weights by dtype, and x as they need it.
struct Shares {
    bundles: Vec<Bundle>,
    activations: Activations,
}

impl Shares {
    fn of(spec: &GemmSpec, section: &Section, config: &TileConfig, target: &GpuTarget) -> Shares {
        let mut bundles: Vec<Bundle> = vec![];
        for (slot, &weight) in section.weights.iter().enumerate() {
            let layout = &spec.weights[weight];
            match bundles.iter_mut().find(|bundle| bundle.dtype == layout.dtype) {
                Some(bundle) => bundle.slots.push(slot),
                None => bundles.push(Bundle::new(layout, slot, config.rows)),
            }
        }
        let activations = Activations::new(spec, &bundles, config, target);
        Shares { bundles, activations }
    }

    /// Among how many waves K can be divided so that each has a unit of every slab.
    fn most_waves_k(&self) -> u32 {
        let units = self.bundles.iter().map(|bundle| self.activations.least_units(bundle));
        units.min().unwrap_or(1).max(1)
    }
}

/// Tiles of a span, tiles of a wave, and waves along N of a section.
fn along_n(section: &Section, config: &TileConfig, target: &GpuTarget) -> [u32; 3] {
    let Some(columns) = section.head_columns else {
        return [config.waves_n * config.tiles, config.tiles, config.waves_n];
    };
    let span = (least_common_multiple(columns, TILE_COLUMNS) / TILE_COLUMNS) as u32;
    let tiles = span.div_ceil(MOST_WORK_ITEMS / target.wave);
    [span, tiles, span.div_ceil(tiles)]
}

/// The classes of a kernel's sections, and the waves of a workgroup.
pub(super) fn classes(
    spec: &GemmSpec,
    sections: &[Section],
    config: &TileConfig,
    target: &GpuTarget,
) -> (Vec<Class>, u32) {
    let widest = sections.iter().map(|section| along_n(section, config, target)[2]).max();
    let waves = widest.unwrap_or(1).max(config.waves_n * config.waves_k);
    let mut classes: Vec<Class> = vec![];
    for (index, section) in sections.iter().enumerate() {
        let [span_tiles, tiles, waves_n] = along_n(section, config, target);
        let groups = section.n.div_ceil(u64::from(span_tiles) * TILE_COLUMNS);
        let shares = Shares::of(spec, section, config, target);
        let same =
            |class: &&mut Class| class.span_tiles == span_tiles && class.bundles == shares.bundles;
        if let Some(class) = classes.iter_mut().find(same) {
            class.sections.push(index);
            class.section_groups.push(groups);
            continue;
        }
        let waves_k = (waves / waves_n).min(shares.most_waves_k());
        let Shares { bundles, activations } = shares;
        classes.push(Class {
            sections: vec![index],
            section_groups: vec![groups],
            bundles,
            activations,
            span_tiles,
            tiles,
            waves_n,
            waves_k,
        });
    }
    let busy = classes.iter().map(|class| class.waves_n * class.waves_k).max();
    (classes, busy.unwrap_or(1).max(spec.work_items / target.wave))
}
