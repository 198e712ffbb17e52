//! Loads and runs Waveloom artifacts.
//!
//! In: an artifact and a device. Out: tokens and text.
//! Never: knows a model's architecture, the IR or LLVM; allocates between load and the end of a
//! generation.
//!
//! ```no_run
//! use std::ops::ControlFlow;
//! use waveloom_plan::Artifact;
//! use waveloom_runtime::{GenerateOptions, LoadOptions, Session, TextModel};
//!
//! fn main() -> Result<(), waveloom_runtime::Error> {
//!     let artifact = Artifact::open("model.wlm")?;
//!     let text = TextModel::load(&artifact)?;
//!     let mut session = Session::load(&artifact, LoadOptions::default())?;
//!     let prompt = text.encode_prompt("Once upon a time")?;
//!     let mut stream = text.stream();
//!     session.generate(&prompt, &GenerateOptions::default(), &mut |event| {
//!         print!("{}", stream.push(event.token).unwrap_or_default());
//!         ControlFlow::Continue(())
//!     })?;
//!     Ok(())
//! }
//! ```

mod cpu;
mod cuda;
mod device;
mod error;
mod generate;
mod gpu;
mod hip;
mod program;
pub mod selftest;
mod session;
mod synthetic;
mod text;

pub use device::{
    Device, DeviceError, DeviceInfo, DeviceKind, EMULATED, GpuInfo, LoadProgress, LoadRequest,
    LoadedPlan, NvidiaInfo, devices,
};
pub use error::Error;
pub use generate::{FinishReason, GenerateOptions, Generation, SamplingError, TokenEvent};
pub use session::{Detail, LoadOptions, PromptError, Session, StepTimes};
pub use text::{
    ChatError, ChatTemplate, GenerationConfig, Message, SpecialTokens, TextError, TextModel,
    TextStream, Tokenizer,
};
pub use waveloom_plan::SamplingParams;
