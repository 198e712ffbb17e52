//! Any error of this crate.

use crate::device::DeviceError;
use crate::generate::SamplingError;
use crate::session::PromptError;
use crate::text::TextError;
use thiserror::Error;
use waveloom_plan::{ArtifactError, PlanError, SelfTestError};

/// Why an artifact does not load or run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// In the artifact.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// In the plan, such as a context length it does not allow.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// In the self-test.
    #[error("the self-test: {0}")]
    SelfTest(#[from] SelfTestError),
    /// On the device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// In the prompt.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// In the sampling parameters.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// In tokenizer or chat template.
    #[error(transparent)]
    Text(#[from] TextError),
}
