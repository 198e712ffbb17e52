//! `embed` from gathers.

use super::Numerics::Exact;
use super::{Rule, always};

/// Rows of a stored table, converted before or after they are picked. A gather of i32 rows stays as
/// it is: `embed` of it would be ill-typed.
#[rustfmt::skip]
pub const RULES: &[Rule] = &[
    Rule::pattern(Exact, "gather-dequantized", "(gather (dequantize ?t) ?i)", "(embed ?t ?i)", always),
    Rule::pattern(Exact, "dequantize-gathered", "(dequantize (gather ?t ?i))", "(embed ?t ?i)", always),
    Rule::pattern(Exact, "gather-f32",          "(gather ?t ?i)",              "(embed ?t ?i)", always),
];
