//! The static execution plan and the artifact, as plain data.
//!
//! In: what the compiler decided (buffers with offsets, kernels, launches, the decode loop).
//! Out: the same, read back and checked by a runtime.
//! Never: depends on the IR, on LLVM, or on a device.

pub mod artifact;
pub mod diff;
pub mod expr;
pub mod layout;
pub mod persistent;
pub mod plan;
pub mod selftest;
pub mod synthetic;
mod text;
#[doc(hidden)]
pub mod toy;
mod verify;

pub use artifact::{Artifact, ArtifactError, ArtifactInfo, Section, write_artifact};
pub use expr::{Expr, Symbols};
pub use layout::{Layout, Placement};
pub use persistent::{PersistentError, PersistentStep, check_persistent};
pub use plan::*;
pub use selftest::{SelfTest, SelfTestError};
pub use synthetic::{Content, Fill, NumberForm, Synthetic};
pub use verify::PlanError;
