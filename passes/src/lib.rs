//! The passes of Waveloom: from the tensor ops of a front end to macro-ops, to a schedule of them
//! and a plan of its memory.
//!
//! In: a [`Module`](waveloom_ir::Module) of tensor ops. Out: the same functions in macro-ops ([`run_pipeline`]), then a
//! [`Schedule`] of its step ([`schedule()`]) and a [`MemoryPlan`] for it ([`plan_memory()`]).
//! Never: touches MLIR or LLVM; reads a weight's bytes; names a chip. What a target asks for comes
//! in as data ([`PassOptions`]).
//!
//! [`PASSES`] is the whole pipeline, one line per pass with the reason for its place. A pass's file,
//! its name on the command line, its tests and its entry in the timing report are the same word.

#![forbid(unsafe_code)]

pub mod check_memory;
pub mod choose_layouts;
pub mod convert_weights;
pub mod edit;
pub mod egraph;
pub mod fuse_epilogue;
pub mod fuse_gemm_inputs;
pub mod fuse_map;
pub mod fuse_prologue;
mod gemm;
pub mod pass;
pub mod plan_memory;
pub mod provenance;
pub mod raise;
pub mod rules;
pub mod schedule;
pub mod simplify;
mod storage;
pub mod wrap_decode_loop;

pub use check_memory::{MemoryError, check_memory};
pub use choose_layouts::TargetLayout;
pub use convert_weights::WeightDtype;
pub use pass::{
    Observer, PASSES, Pass, PassError, PassEvent, PassFn, PassOptions, PassReport, RuleLimits,
    find_pass, run_passes, run_pipeline, run_table,
};
pub use plan_memory::{MemoryPlan, PlanError, plan_memory};
pub use provenance::{Provenance, ValueMap};
pub use rules::Numerics;
pub use schedule::{Buffer, BufferId, BufferKind, Schedule, ScheduleError, Step, schedule};
pub use storage::updated_operand;
