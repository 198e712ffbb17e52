//! Statements of what instructions compute, one line or a few each.

pub mod compare;
pub mod convert;
pub mod dot;
pub mod float;
pub mod int;
pub mod packed;

use crate::values::T;
use crate::vector::{Lane, Op};

/// One row of a table.
pub const fn op(
    name: &'static str,
    dst: T,
    src: &'static [T],
    flags: u32,
    f: fn(&mut Lane, &[u64; 4]) -> u64,
) -> Op {
    Op { name, dst, src, f, flags }
}

/// Every table, for the list of what is covered.
pub fn all() -> Vec<(&'static str, Vec<Op>)> {
    vec![
        ("Vector integer", int::table()),
        ("Vector floating point", float::table()),
        ("Vector comparison", compare::table()),
        ("Conversion", convert::table()),
        ("Packed", packed::table()),
        ("Dot product and mixed precision", dot::table()),
    ]
}
