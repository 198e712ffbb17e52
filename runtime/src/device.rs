//! What every device implements: load a plan, run its programs, exchange words with them.
//!
//! The session above knows no device; a device knows nothing but plans. Work is queued in order:
//! a device may return from [`LoadedPlan::run`] and [`LoadedPlan::write`] before it is done, and
//! waits in the reads.

use crate::cpu;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use thiserror::Error;
use waveloom_plan::{Artifact, ArtifactError, BufferId, Layout, Plan, Symbols};

/// What a device needs to load a plan.
pub struct LoadRequest<'a> {
    /// Holds code and weights.
    pub artifact: &'a Artifact,
    /// The plan, verified.
    pub plan: &'a Plan,
    /// Its memory for the context length asked for.
    pub layout: &'a Layout,
}

/// Hardware that can run plans.
pub trait Device {
    /// For people.
    fn describe(&self) -> String;

    /// Which of an artifact's plans it runs, best first; an error says why none.
    fn choose_plan(&self, artifact: &Artifact) -> Result<Plan, DeviceError>;

    /// Allocates all segments, loads the code, and resolves every argument. This is the only
    /// place that allocates.
    fn load(&self, request: LoadRequest<'_>) -> Result<Box<dyn LoadedPlan>, DeviceError>;
}

/// A plan on a device, with its memory.
pub trait LoadedPlan: Send {
    /// Bytes that were allocated, or mapped for the weights.
    fn allocated_bytes(&self) -> u64;

    /// Workers that share a launch: threads of a CPU.
    fn workers(&self) -> usize;

    /// Runs a program of the plan with these values of its symbols.
    fn run(&mut self, program: usize, symbols: &Symbols) -> Result<(), DeviceError>;

    /// Writes 32-bit words to an io buffer, from its word `first` on.
    fn write(&mut self, buffer: BufferId, first: usize, words: &[u32]) -> Result<(), DeviceError>;

    /// Words of an io buffer, after all that has been queued.
    fn read(&mut self, buffer: BufferId, words: Range<usize>) -> Result<&[u32], DeviceError>;

    /// The same as floats.
    fn read_f32(&mut self, buffer: BufferId, words: Range<usize>) -> Result<&[f32], DeviceError>;
}

/// A device by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceKind {
    /// The host's processors.
    #[default]
    Cpu,
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceKind::Cpu => f.write_str("cpu"),
        }
    }
}

impl FromStr for DeviceKind {
    type Err = DeviceError;

    fn from_str(name: &str) -> Result<Self, DeviceError> {
        match name {
            "cpu" => Ok(DeviceKind::Cpu),
            _ => Err(DeviceError::UnknownDevice(name.into())),
        }
    }
}

/// A device of this machine.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct DeviceInfo {
    /// What `--device` takes.
    pub name: String,
    /// Model of the hardware.
    pub description: String,
    /// Workers it uses by default.
    pub workers: usize,
    /// Features that plans can require and that it has, in LLVM's words.
    pub features: Vec<String>,
}

/// The devices of this machine.
pub fn devices() -> Vec<DeviceInfo> {
    vec![cpu::info()]
}

/// Why a device does not load or run a plan.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// No such device.
    #[error("unknown device `{0}`; this program knows: cpu")]
    UnknownDevice(String),
    /// The artifact has nothing for this device.
    #[error(
        "the artifact was compiled for {found}, not for the CPU: recompile the model with `--target cpu`"
    )]
    NoPlan {
        /// What it was compiled for.
        found: String,
    },
    /// The code needs features that the machine lacks.
    #[error(
        "the code for target {target} needs {missing}, which this machine's CPU lacks: recompile the model with `--target cpu` on this machine, or with `--target cpu-v3`"
    )]
    MissingFeatures {
        /// The plan's target.
        target: String,
        /// What is missing, in LLVM's words.
        missing: String,
    },
    /// An absurd number of threads.
    #[error("{0} threads: give a number in 1..=1024")]
    Threads(usize),
    /// No memory.
    #[error(
        "cannot allocate {bytes} bytes for {what}: {source}; a smaller context length needs less"
    )]
    Memory {
        /// What for.
        what: &'static str,
        /// How much.
        bytes: u64,
        /// Why not.
        source: std::io::Error,
    },
    /// No thread.
    #[error("cannot start a thread: {0}; ask for fewer threads")]
    Spawn(std::io::Error),
    /// The code object does not load.
    #[error("the code for target {target} does not load: {problem}")]
    Code {
        /// The plan's target.
        target: String,
        /// What the loader says.
        problem: String,
    },
    /// The code object lacks a kernel.
    #[error("the code for target {target} has no kernel `{kernel}`: recompile the model")]
    NoKernel {
        /// The plan's target.
        target: String,
        /// The kernel.
        kernel: String,
    },
    /// A program, symbol or range that the plan does not have: a mistake of the caller.
    #[error("{0}")]
    Request(&'static str),
    /// Code or weights are damaged.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
}
