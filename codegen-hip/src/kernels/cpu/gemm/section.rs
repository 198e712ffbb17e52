//! Columns of sections in groups of tiles.

use super::{GemmSpec, TileConfig};
use crate::kernels::KernelError;
use crate::kernels::section::{self, least_common_multiple};

/// Outputs that share accumulators, with the weights they take: columns `0..n` in groups.
#[derive(Clone, Debug)]
pub(super) struct Section {
    pub(super) outputs: Vec<usize>,
    pub(super) weights: Vec<usize>,
    pub(super) n: u64,
    /// Tiles of a group.
    pub(super) group_tiles: u64,
    pub(super) groups: u64,
    /// Groups that are staged at a time.
    pub(super) span: u64,
}

/// Divides outputs into sections: those that share a weight are in one.
pub(super) fn sections(
    spec: &GemmSpec,
    config: &TileConfig,
    lanes: u64,
) -> Result<Vec<Section>, KernelError> {
    let columns: Vec<u64> = spec.weights.iter().map(|weight| weight.rows).collect();
    let sections = section::sections(&spec.outputs, &columns, &spec.extras)?;
    Ok(sections.into_iter().map(|section| in_groups(section, config, lanes)).collect())
}

fn in_groups(section: section::Section, config: &TileConfig, lanes: u64) -> Section {
    let section::Section { outputs, weights, n, head_columns } = section;
    let tiles = n.div_ceil(lanes);
    let (group_tiles, span) = match head_columns {
        Some(columns) => (least_common_multiple(columns, lanes) / lanes, 1),
        None => (u64::from(config.group_tiles).min(tiles), config.span_groups.into()),
    };
    let groups = tiles.div_ceil(group_tiles);
    Section { outputs, weights, n, group_tiles, groups, span: span.min(groups) }
}

impl Section {
    fn group_columns(&self, lanes: u64) -> u64 {
        self.group_tiles * lanes
    }

    /// Columns that are staged at a time.
    pub(super) fn span_columns(&self, lanes: u64) -> u64 {
        self.group_columns(lanes) * self.span
    }

    /// Whether fewer columns may be staged: groups are missing, or the last one is not full.
    pub(super) fn has_tail(&self, lanes: u64) -> bool {
        self.span > 1 || !self.n.is_multiple_of(self.group_columns(lanes))
    }
}
