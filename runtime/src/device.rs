//! What every device implements: load a plan, run its programs, exchange words with them.
//!
//! The session above knows no device; a device knows nothing but plans. Work is queued in order:
//! a device may return from [`LoadedPlan::run`] and [`LoadedPlan::write`] before it is done, and
//! waits in the reads.

use crate::{cpu, cuda, hip};
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
    /// Is told how far the weights are, on a device to which they are copied.
    pub progress: &'a mut dyn FnMut(LoadProgress),
}

/// How far loading is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadProgress {
    /// Bytes of weights that are on their way to the device or there.
    pub done: u64,
    /// Bytes of all weights.
    pub total: u64,
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
    /// Bytes that were allocated where programs run, or mapped for the weights.
    fn allocated_bytes(&self) -> u64;

    /// Workers that share a launch: threads of a CPU.
    fn workers(&self) -> usize;

    /// What whoever loaded the plan should know: that it runs in another way than it was compiled to.
    fn notice(&self) -> Option<&str> {
        None
    }

    /// Steps that may be queued before the token of the first of them is read. With more than one,
    /// reading a word of the history waits for no later step than the one that writes it.
    fn lookahead(&self) -> usize {
        1
    }

    /// Runs a program of the plan with these values of its symbols.
    fn run(&mut self, program: usize, symbols: &Symbols) -> Result<(), DeviceError>;

    /// Writes 32-bit words to an io buffer, from its word `first` on.
    fn write(&mut self, buffer: BufferId, first: usize, words: &[u32]) -> Result<(), DeviceError>;

    /// Words of an io buffer, after all that has been queued.
    fn read(&mut self, buffer: BufferId, words: Range<usize>) -> Result<&[u32], DeviceError>;

    /// The same as floats.
    fn read_f32(&mut self, buffer: BufferId, words: Range<usize>) -> Result<&[f32], DeviceError>;

    /// Runs one launch of a program by itself, for those who look at what it does.
    fn run_launch(
        &mut self,
        program: usize,
        launch: usize,
        symbols: &Symbols,
    ) -> Result<(), DeviceError>;

    /// Runs a program as [`LoadedPlan::run`] does and waits for its end; gives the seconds that it
    /// took where it ran.
    fn time_program(&mut self, program: usize, symbols: &Symbols) -> Result<f64, DeviceError>;

    /// Runs a program launch by launch, never as a graph; stores the seconds that each took where it
    /// ran, one for each launch of the program.
    fn time_launches(
        &mut self,
        program: usize,
        symbols: &Symbols,
        seconds: &mut [f64],
    ) -> Result<(), DeviceError>;

    /// Bytes of a buffer of any segment, from its byte `first` on, after all that has been queued.
    fn read_bytes(
        &mut self,
        buffer: BufferId,
        first: u64,
        to: &mut [u8],
    ) -> Result<(), DeviceError>;

    /// Writes bytes to a buffer that is no constant, from its byte `first` on.
    fn write_bytes(
        &mut self,
        buffer: BufferId,
        first: u64,
        bytes: &[u8],
    ) -> Result<(), DeviceError>;
}

/// What the description of a device has in it that is no hardware.
pub const EMULATED: &str = "(emulated)";

/// A device by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceKind {
    /// The host's processors.
    #[default]
    Cpu,
    /// An AMD GPU, by its number in HIP.
    Hip(u32),
    /// An NVIDIA GPU, by its number in CUDA.
    Cuda(u32),
}

impl DeviceKind {
    /// The device itself; a CPU with so many threads, by default one per physical core.
    pub fn open(self, threads: Option<usize>) -> Result<Box<dyn Device>, DeviceError> {
        Ok(match self {
            DeviceKind::Cpu => Box::new(cpu::Cpu::new(threads)?),
            DeviceKind::Hip(index) => Box::new(hip::open(index)?),
            DeviceKind::Cuda(index) => Box::new(cuda::open(index)?),
        })
    }
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceKind::Cpu => f.write_str("cpu"),
            DeviceKind::Hip(index) => write!(f, "hip:{index}"),
            DeviceKind::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

impl FromStr for DeviceKind {
    type Err = DeviceError;

    fn from_str(name: &str) -> Result<Self, DeviceError> {
        let unknown = || DeviceError::UnknownDevice(name.into());
        let (kind, index) = match name.split_once(':') {
            None if name == "cpu" => return Ok(DeviceKind::Cpu),
            None => (name, 0),
            Some((kind, index)) => (kind, index.parse().map_err(|_| unknown())?),
        };
        match kind {
            "hip" => Ok(DeviceKind::Hip(index)),
            "cuda" => Ok(DeviceKind::Cuda(index)),
            _ => Err(unknown()),
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
    /// Of a GPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu: Option<GpuInfo>,
    /// Why nothing can run on it; `name` may then stand for a kind of devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unavailable: Option<String>,
}

/// Facts about a GPU.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct GpuInfo {
    /// Such as `gfx942` or `sm_90`.
    pub architecture: String,
    /// Compute units, or where two of them work as one, those pairs; multiprocessors.
    pub compute_units: u32,
    /// Bytes of its memory.
    pub memory_bytes: u64,
    /// Bytes that nobody uses now.
    pub free_bytes: u64,
    /// Of an NVIDIA GPU.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub nvidia: Option<NvidiaInfo>,
}

/// Facts about an NVIDIA GPU.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct NvidiaInfo {
    /// Such as `9.0`.
    pub compute_capability: String,
    /// The newest release of CUDA that the driver is for, such as `12.8`.
    pub driver_cuda: String,
}

/// The devices of this machine; and of a kind of which there is none, why.
pub fn devices() -> Vec<DeviceInfo> {
    let mut devices = vec![cpu::info()];
    devices.extend(hip::infos());
    devices.extend(cuda::infos());
    devices
}

/// Why a device does not load or run a plan.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// No such device.
    #[error("unknown device `{0}`; this program knows: cpu, hip, hip:N, cuda, cuda:N")]
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
    /// No HIP on this machine.
    #[error("HIP, which AMD GPUs need, is not available: {0}")]
    NoHip(String),
    /// HIP, but no GPU.
    #[error(
        "HIP finds no AMD GPU: check that its driver (amdgpu) is loaded, that this user may open /dev/kfd and /dev/dri (groups `render` and `video`), and that neither HIP_VISIBLE_DEVICES nor ROCR_VISIBLE_DEVICES hides it"
    )]
    NoAmdGpu,
    /// No driver of NVIDIA's on this machine, or one that does not start.
    #[error("CUDA's driver, which NVIDIA GPUs need, is not available: {0}")]
    NoCuda(String),
    /// A driver of NVIDIA's, but no GPU.
    #[error(
        "CUDA finds no NVIDIA GPU: check that `nvidia-smi` lists it, that a container was started with it (`--gpus all`), and that CUDA_VISIBLE_DEVICES does not hide it"
    )]
    NoNvidiaGpu,
    /// Fewer GPUs.
    #[error(
        "there is no device {device}: {} finds {found}, the first of which is {first}",
        library(*.device)
    )]
    NoSuchGpu {
        /// What was asked for.
        device: DeviceKind,
        /// The first that there is.
        first: DeviceKind,
        /// How many there are.
        found: u32,
    },
    /// The artifact has nothing for this GPU.
    #[error(
        "the artifact was compiled for {found}, the device is {device}: recompile the model with `--target {architecture}`"
    )]
    WrongChip {
        /// What it was compiled for.
        found: String,
        /// The device.
        device: String,
        /// The device's architecture.
        architecture: String,
    },
    /// The artifact has nothing that this NVIDIA GPU runs.
    #[error(
        "the artifact was compiled for {found}, the device is {device}, which runs code for sm_NN up to {architecture}: recompile the model with such a `--target`; `targets` lists them"
    )]
    WrongCapability {
        /// What it was compiled for.
        found: String,
        /// The device.
        device: String,
        /// The device's architecture.
        architecture: String,
    },
    /// The driver does not know the PTX of the code yet.
    #[error(
        "the driver of {device} is too old for the code of target {target}: that is PTX {needed}, which needs a driver for CUDA {release}, and this one is for CUDA {found}; install a newer driver"
    )]
    OldDriver {
        /// The GPU.
        device: DeviceKind,
        /// The plan's target.
        target: String,
        /// Version of the PTX.
        needed: String,
        /// First release of CUDA that knows it.
        release: String,
        /// Release of CUDA that the driver is for.
        found: String,
    },
    /// The GPU has not enough free memory.
    #[error(
        "the model needs {needed} bytes of memory ({}), and {device} has {free} free ({}): load it with a shorter context, or end what else uses the device",
        gib(*.needed), gib(*.free)
    )]
    TooLittleMemory {
        /// The GPU.
        device: DeviceKind,
        /// What the plan takes.
        needed: u64,
        /// What is free.
        free: u64,
    },
    /// A function of the GPU's driver failed.
    #[error("{doing} failed on {device}: {problem}")]
    Driver {
        /// The GPU.
        device: DeviceKind,
        /// What was tried.
        doing: &'static str,
        /// The driver's words.
        problem: String,
    },
    /// A kernel failed, or the device is lost.
    #[error(
        "a kernel failed or the device was lost on {device}: {problem}; nothing more can run on it in this process: start again; if it fails again, check the system's log (`dmesg`) for the device, or recompile the model"
    )]
    Fault {
        /// The GPU.
        device: DeviceKind,
        /// The driver's words.
        problem: String,
    },
    /// A step that did not do what the decode loop needs.
    #[error("a step on {0} ended without choosing a token: recompile the model")]
    NoToken(DeviceKind),
    /// A program, symbol or range that the plan does not have: a mistake of the caller.
    #[error("{0}")]
    Request(&'static str),
    /// Code or weights are damaged.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
}

/// The library that counts the devices of a kind.
fn library(device: DeviceKind) -> &'static str {
    match device {
        DeviceKind::Cpu => "the system",
        DeviceKind::Hip(_) => "HIP",
        DeviceKind::Cuda(_) => "CUDA",
    }
}

/// Bytes for people.
fn gib(bytes: u64) -> String {
    format!("{:.2} GiB", bytes as f64 / f64::from(1 << 30))
}
