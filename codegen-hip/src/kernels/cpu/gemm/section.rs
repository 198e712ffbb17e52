//! Outputs by the weights that they take, and their columns in groups.

use super::{GemmSpec, TileConfig};
use crate::kernels::KernelError;
use waveloom_ir::{Expr, GemmOutput, Store, Type};

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

/// Accumulators that an expression uses.
pub(super) fn accumulators(expr: &Expr) -> Vec<usize> {
    let mut found = vec![];
    expr.walk(&mut |e| {
        if let Expr::Acc(i) = e {
            found.push(*i as usize);
        }
    });
    found.sort_unstable();
    found.dedup();
    found
}

/// Columns that must be in one group for an output: whole heads, if it has any.
fn head_columns(output: &GemmOutput, extras: &[Type]) -> Option<u64> {
    let mut columns: Option<u64> = None;
    let mut need = |dim: u64| columns = Some(columns.map_or(dim, |old| lcm(old, dim)));
    output.expr.walk(&mut |e| match e {
        Expr::Rope { head_dim, .. } | Expr::HeadNorm { head_dim, .. } => need((*head_dim).into()),
        Expr::Acc(_) | Expr::Operand(_) | Expr::Const(_) | Expr::Unary(..) | Expr::Binary(..) => {}
    });
    if let Store::Append { cache, .. } = output.store {
        need(extras.get(cache as usize).and_then(Type::last_const).unwrap_or(1));
    }
    columns
}

fn lcm(a: u64, b: u64) -> u64 {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    a / x.max(1) * b
}

/// Divides outputs into sections: those that share a weight are in one.
pub(super) fn sections(
    spec: &GemmSpec,
    config: &TileConfig,
    lanes: u64,
) -> Result<Vec<Section>, KernelError> {
    let mut sections: Vec<Section> = vec![];
    for (index, output) in spec.outputs.iter().enumerate() {
        let mut outputs = vec![index];
        let mut weights = accumulators(&output.expr);
        let Some(n) = weights.first().and_then(|w| spec.weights.get(*w)).map(|w| w.rows) else {
            return Err(KernelError(format!("gemm: output {index} has no accumulator")));
        };
        // Absorb the sections that use one of these weights.
        let (shared, rest): (Vec<_>, Vec<_>) = sections
            .into_iter()
            .partition(|section| section.weights.iter().any(|w| weights.contains(w)));
        sections = rest;
        for section in shared {
            outputs.extend(section.outputs);
            weights.extend(section.weights);
        }
        outputs.sort_unstable();
        weights.sort_unstable();
        weights.dedup();
        sections.push(Section { outputs, weights, n, group_tiles: 0, groups: 0, span: 1 });
    }
    for section in &mut sections {
        let heads =
            section.outputs.iter().filter_map(|&i| head_columns(&spec.outputs[i], &spec.extras));
        let tiles = section.n.div_ceil(lanes);
        (section.group_tiles, section.span) = match heads.reduce(lcm) {
            Some(columns) => (lcm(columns, lanes) / lanes, 1),
            None => (u64::from(config.group_tiles).min(tiles), config.span_groups.into()),
        };
        section.groups = tiles.div_ceil(section.group_tiles);
        section.span = section.span.min(section.groups);
    }
    Ok(sections)
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
