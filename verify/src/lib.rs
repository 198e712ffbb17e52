//! Every kernel of a compiled model against the reference interpreter, on any device.
//!
//! In: a module after the passes, the plan that was made of it, what each launch stands for, the
//! bytes of the weights, and the plan loaded on a device. Out: a [`Report`]: for each kernel how far
//! its results were from exact ones, and from the bound that its arithmetic allows.
//! Never: compiles (it depends on no LLVM); knows a chip or a model's architecture.
//!
//! Programs run launch by launch ([`verify()`]). Before a launch its operands are read as the device
//! holds them, the op that it stands for is evaluated on them in f64 ([`op`]), and what the launch
//! then writes is compared within bounds ([`bounds`]). So errors do not add up, and each kernel is
//! judged by itself on real data. A failing launch can be kept as a small module with its inputs
//! ([`Reproducer`]).
//!
//! Kernels are judged against the module after the passes; [`passes`] judges how that came about.

#![forbid(unsafe_code)]

pub mod bounds;
mod check;
mod drawn;
mod error;
pub mod op;
pub mod passes;
mod report;
mod reproducer;
pub mod selftest;
mod together;
mod walk;

pub use check::{Checked, Compared, Machine};
pub use drawn::Drawn;
pub use error::VerifyError;
pub use report::{Element, Failure, KernelReport, Report, Worst};
pub use reproducer::{Facts, Reproducer};
pub use walk::{Options, Unwatched, Watcher, verify, verify_launch, verify_reproducer};

use waveloom_ir::{Module, Numerics, Weights};
use waveloom_passes::Step;
use waveloom_plan::Plan;

/// What is verified.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// What the kernels are to compute: the module after the passes.
    pub module: &'a Module,
    /// The bytes of its weights.
    pub weights: &'a dyn Weights,
    /// The plan that runs.
    pub plan: &'a Plan,
    /// By program and launch of the plan: the step of the schedule that it stands for; `None` for the
    /// choice of a token. A step's buffers have the same index in the plan.
    pub origins: &'a [Vec<Option<Step>>],
    /// By kernel of the plan: how it computes.
    pub numerics: &'a [Numerics],
}
