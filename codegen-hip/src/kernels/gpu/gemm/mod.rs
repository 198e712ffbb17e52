//! `gemm`: a row prologue, products with packed weights, and an epilogue of expressions.
//!
//! A workgroup makes a tile of rows times columns of one section (outputs that share weights): it
//! stages the accumulators in the local data share, and all its work-items then evaluate the
//! output expressions over them (`epilogue`). Two generators fill the stage: `gemv` reads every
//! weight once for up to eight rows, for decode; `matrix` multiplies many rows by matrix operations,
//! for prefill.

mod epilogue;
pub mod gemv;
pub mod matrix;
mod spec;
#[cfg(test)]
mod tests;

pub use spec::GemmSpec;

use super::Instance;
use crate::kernels::instance::Draft;
use crate::kernels::section::Rows;
use crate::kernels::tiles::{TileChoice, TileSizes, unknown_generator};
use crate::kernels::{KernelError, KernelSource, SYMBOLS, chosen_tiles};
use crate::mlir::{Builder, Elem, Value};
use waveloom_ir::{GemmAttr, Store, Tiling};
use waveloom_plan as plan;

/// The kernel.
pub(super) fn kernel(op: &Instance<'_>, attr: &GemmAttr) -> Result<KernelSource, KernelError> {
    let spec = GemmSpec::new(op, attr)?;
    match Tiled::chosen(op, attr, &spec)? {
        Tiled::Matrix(rows, config) => matrix::kernel(&spec, rows, config, op.target),
        Tiled::Vector(config) => gemv::kernel(&spec, config, op.target),
    }
}

/// How its kernel is tiled.
pub(in crate::kernels) fn tiling(
    op: &Instance<'_>,
    attr: &GemmAttr,
) -> Result<Tiling, KernelError> {
    let spec = GemmSpec::new(op, attr)?;
    Ok(match Tiled::chosen(op, attr, &spec)? {
        Tiled::Matrix(_, config) => config.tiling(),
        Tiled::Vector(config) => config.tiling(),
    })
}

/// How its kernel is tiled, why, and what else there was.
pub(in crate::kernels) fn choice(
    op: &Instance<'_>,
    attr: &GemmAttr,
) -> Result<TileChoice, KernelError> {
    let spec = GemmSpec::new(op, attr)?;
    Ok(match Tiled::chosen(op, attr, &spec)? {
        Tiled::Matrix(rows, config) => {
            let ranked = matrix::TileConfig::ranked_for(&spec, rows, op.target);
            let cost = ranked.iter().find(|(_, other)| *other == config).map(|(cost, _)| *cost);
            let other = ranked.iter().find(|(_, other)| *other != config);
            let runner_up = other.map(|(cost, other)| (other.tiling(), *cost));
            TileChoice::new(&config.tiling(), cost, runner_up, ranked.len(), BY_COST)
        }
        Tiled::Vector(config) => TileChoice::new(&config.tiling(), None, None, 1, BY_RULE),
    })
}

/// Why a kernel of matrix operations has its tiles.
const BY_COST: &str =
    "the least of what a model of matrix operations, memory, LDS and starts of workgroups reckons";
/// Why a kernel of vector operations has its tiles.
const BY_RULE: &str = "by rule: workgroups so wide that staging x shows little, narrower until two come on each compute unit";

/// The generator of a kernel, with its sizes.
enum Tiled {
    /// `matrix`, for x of up to so many rows.
    Matrix(u64, matrix::TileConfig),
    /// `gemv`.
    Vector(gemv::TileConfig),
}

impl Tiled {
    /// As the op says, and else what should be best.
    fn chosen(op: &Instance<'_>, attr: &GemmAttr, spec: &GemmSpec) -> Result<Tiled, KernelError> {
        const MATRIX: &str = matrix::TileConfig::GENERATOR;
        const VECTOR: &str = gemv::TileConfig::GENERATOR;
        let rows = op.module.max_extent(op.operand(0).shape[0]);
        let matrix = || {
            let many = spec.rows != Rows::One;
            many.then(|| matrix::TileConfig::default_for(spec, rows, op.target)).flatten()
        };
        let Some(tiling) = chosen_tiles(&attr.tiles, op.variant) else {
            return Ok(match matrix() {
                Some(config) => Tiled::Matrix(rows, config),
                None => Tiled::Vector(gemv::TileConfig::default_for(spec, op.target)?),
            });
        };
        match (tiling.generator.as_str(), matrix()) {
            (MATRIX, Some(reckoned)) => {
                let config = reckoned.with(tiling)?;
                let problem = config.problem(spec, rows, op.target)?;
                Ok(Tiled::Matrix(rows, config.check(problem)?))
            }
            (VECTOR, _) => {
                let reckoned = gemv::TileConfig::default_for(spec, op.target)?;
                let config = reckoned.with(tiling)?;
                let problem = config.problem(spec, op.target);
                Ok(Tiled::Vector(config.check(problem)?))
            }
            (_, None) => Err(unknown_generator(tiling, &[VECTOR])),
            (_, Some(_)) => Err(unknown_generator(tiling, &[MATRIX, VECTOR])),
        }
    }
}

/// The kernel's arguments as values.
struct Env {
    x: Value,
    /// Weight of the norm before the products.
    norm: Option<Value>,
    weights: Vec<Value>,
    extras: Vec<Value>,
    /// By output; the cache itself where it is appended to.
    results: Vec<Value>,
    /// Rows of x, `i32`.
    m: Value,
    /// Capacity of the caches in positions, `i32`, where there are caches.
    capacity: Option<Value>,
}

impl Env {
    /// Claims argument slots: every operand, the dense results, M if it varies, C if there is a
    /// cache.
    fn new(draft: &mut Draft, spec: &GemmSpec) -> Env {
        let mut operand = 0..spec.operands();
        let mut next = |draft: &mut Draft| draft.buffer(operand.next().unwrap_or(0));
        let x = next(draft);
        let norm = spec.norm_eps.map(|_| next(draft));
        let weights = spec.weights.iter().map(|_| next(draft)).collect();
        let extras: Vec<Value> = spec.extras.iter().map(|_| next(draft)).collect();
        let mut results = vec![];
        for (index, output) in spec.outputs.iter().enumerate() {
            results.push(match output.store {
                Store::Dense => draft.buffer(spec.operands() + index),
                Store::Append { cache, .. } => extras[cache as usize],
            });
        }
        let m = match &spec.rows {
            Rows::One => draft.builder.i32(1),
            Rows::Many(rows) => {
                let m = draft.number(rows.clone());
                draft.builder.trunc(m, Elem::I32)
            }
        };
        let symbol = SYMBOLS.iter().position(|name| *name == "C").filter(|_| spec.appends());
        let capacity = symbol.map(|symbol| {
            let capacity = draft.number(plan::Expr::Symbol(symbol));
            draft.builder.trunc(capacity, Elem::I32)
        });
        Env { x, norm, weights, extras, results, m, capacity }
    }
}

/// Accumulators in the local data share, as f32: a plane of `rows` rows per weight of the section.
/// Element (slot, row, column) is at `((slot·rows + row)·pitch + column)·4` from `base`.
#[derive(Clone, Copy, Debug)]
struct Stage {
    /// Where they begin; [`epilogue::Epilogue::shared_bytes`] are claimed there.
    base: Value,
    /// Rows of a plane.
    rows: u32,
    /// Columns: whole heads where the section has any, a multiple of 4 otherwise.
    columns: u32,
    /// Elements between rows.
    pitch: u32,
}

/// Where a staged tile lies in the section's results; all `i32`.
#[derive(Clone, Copy, Debug)]
struct Tile {
    /// Its first row.
    first_row: Value,
    /// How many of the stage's rows exist.
    rows: Value,
    /// Its first column, below N.
    first_column: Value,
}

/// Quotient and remainder by a constant of an `i32` that is not negative.
fn split(k: &mut Builder, value: Value, by: u32) -> (Value, Value) {
    if by == 1 {
        let zero = k.i32(0);
        return (value, zero);
    }
    let divisor = k.i32(by as i32);
    let quotient = k.udiv(value, divisor);
    let whole = k.mul(quotient, divisor);
    (quotient, k.sub(value, whole))
}
