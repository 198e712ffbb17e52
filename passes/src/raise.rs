//! `raise`: from tensor ops to macro-ops.
//!
//! Equality saturation finds `embed`, `norm`, `gemm`, `rope` and `attention` among the forms equal
//! to what a front end wrote, and extraction takes them, since they move fewer bytes. What is
//! elementwise and left is then fused into `map`s ([`map`](mod@map)). An op for which no macro-op
//! was found stays what it is; the gate after this pass names it.

pub mod map;

use crate::egraph::{Roofline, rewrite_module};
use crate::pass::{PassError, PassOptions, PassReport};
use crate::rules::{
    Rule, algebra, normalize, raise_attention, raise_embed, raise_gemm, raise_norm, raise_rope,
    shape,
};
use waveloom_ir::Module;

/// The tables of this pass.
pub const RULES: &[&[Rule]] = &[
    algebra::RULES,
    shape::RULES,
    normalize::RULES,
    raise_embed::RULES,
    raise_norm::RULES,
    raise_gemm::RULES,
    raise_rope::RULES,
    raise_attention::RULES,
];

/// Runs the pass.
pub fn run(module: Module, options: &PassOptions) -> Result<(Module, PassReport), PassError> {
    run_with(RULES, module, options)
}

/// The pass with other rules.
pub fn run_with(
    rules: &[&[Rule]],
    module: Module,
    options: &PassOptions,
) -> Result<(Module, PassReport), PassError> {
    let (mut module, mut report) =
        rewrite_module("raise", module, rules, &Roofline::MACRO_OPS, &options.rules)?;
    let declarations = module.clone();
    let max_rewrites = options.rules.max_rewrites.unwrap_or(u64::MAX);
    for function in &mut module.functions {
        if report.total() >= max_rewrites {
            break;
        }
        let (fused, step) = map::fuse(&declarations, function, &mut report)?;
        if let Some(values) = report.values.get_mut(&fused.name) {
            *values = values.then(&step);
        }
        *function = fused;
    }
    Ok((module, report))
}
