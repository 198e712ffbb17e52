//! `simplify`: identities that change no value, by equality saturation.
//!
//! Front ends write what is easy to write; this pass takes out what does nothing: products with
//! one, chains of shape ops, casts to the same dtype, constants of constants.

use crate::egraph::{Roofline, rewrite_module};
use crate::pass::{PassError, PassOptions, PassReport};
use crate::rules::{Rule, algebra, shape};
use waveloom_ir::Module;

/// The tables of this pass.
pub const RULES: &[&[Rule]] = &[algebra::RULES, shape::RULES];

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
    rewrite_module("simplify", module, rules, &Roofline::NOMINAL, &options.rules)
}
