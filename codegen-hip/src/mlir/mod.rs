//! Kernels as MLIR text: a typed builder, and numeric functions over it.

pub mod builder;
pub mod gpu;
pub mod math;
pub mod types;

pub use builder::Builder;
pub use types::{Elem, Ty, Value};
