//! Why a model cannot be verified, which is not that a kernel is wrong.

use thiserror::Error;
use waveloom_ir::{InferError, InterpError, StorageError};
use waveloom_plan::PlanError;
use waveloom_runtime::DeviceError;

/// Why a model cannot be verified.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The plan does not fit the context.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The interpreter has no value.
    #[error("the reference has no value: {0}")]
    Interp(#[from] InterpError),
    /// The op does not take these operands.
    #[error("the reference does not type-check: {0}")]
    Infer(#[from] InferError),
    /// A weight cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The plan names a weight that the module lacks.
    #[error("the module has no weight `{0}`: plan and module are not of one compilation")]
    NoWeight(String),
    /// Plan, origins and module are not of one compilation.
    #[error("the plan is not that of the module: {0}")]
    NotOfModule(&'static str),
    /// More tokens than the model takes.
    #[error(
        "{tokens} prompt tokens and {steps} decode steps need a context of {needed}, and the model has {context}: lower --tokens or --steps"
    )]
    Context {
        /// Prompt tokens.
        tokens: u32,
        /// Decode steps.
        steps: u32,
        /// Both.
        needed: u64,
        /// What there is.
        context: u32,
    },
    /// The layout does not fit the shape.
    #[error("a cache cannot lie in memory as its type says: {0}")]
    Layout(String),
    /// A reproducer that is none.
    #[error(
        "a reproducer is a module of one function @main with one op; `verify --reproducer` writes such"
    )]
    NotOneOp,
    /// Something is wrong with the tensors of a reproducer.
    #[error("`{path}`: {problem}")]
    Inputs {
        /// The file.
        path: String,
        /// What is wrong.
        problem: String,
    },
}
