//! The decoder family: its description, its weights, its module.

pub(crate) mod config;
pub(crate) mod emit;
pub(crate) mod names;
pub(crate) mod rope;
