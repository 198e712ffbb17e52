//! Every instruction form against an independent scalar statement of what it does.

#![allow(
    clippy::precedence,
    clippy::type_complexity,
    clippy::needless_range_loop,
    clippy::if_same_then_else,
    clippy::manual_is_multiple_of,
    clippy::nonminimal_bool,
    clippy::excessive_precision,
    reason = "tables of functions on lanes, in the words of the instruction set's documents"
)]

mod assembler;
mod atomics;
mod buffer;
mod control;
mod coverage;
mod exact;
mod lanes;
mod machine;
mod matrix;
mod measured;
mod memory;
mod scalar;
mod snippet;
mod special;
mod tables;
mod values;
mod vector;
mod vopd;
