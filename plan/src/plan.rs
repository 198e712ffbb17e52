//! The plan: what a runtime interprets, and nothing else.
//!
//! One plan serves one target. It names the symbols that vary between steps, the buffers and
//! where they lie, the kernels of the code object, and the programs: flat lists of launches.

use crate::expr::{Expr, SymbolId, Symbols};
use crate::persistent::PersistentStep;
use crate::synthetic::Synthetic;
use serde::{Deserialize, Serialize};

/// Version of the plan's data model; a runtime refuses any other.
pub const FORMAT_VERSION: u32 = 2;

/// A quantity known only at run time, with inclusive bounds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Symbol {
    /// Spelling in the IR, such as `T`.
    pub name: String,
    /// Smallest value it takes.
    pub min: i64,
    /// Largest value it takes.
    pub max: i64,
}

/// Where a buffer lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Segment {
    /// Packed weights: the artifact's `weights.*` sections, contiguous, read-only.
    Constants,
    /// Intermediate values of one step; offsets come from the memory planner.
    Arena,
    /// What lives from step to step: the KV cache. Sized at load from the context length.
    State,
    /// What host and programs exchange: tokens, positions, logits, sampling parameters.
    Io,
}

/// Index into [`Plan::buffers`].
pub type BufferId = usize;

/// A range of bytes in a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Buffer {
    /// For people: the IR value or weight it holds.
    pub name: String,
    /// The segment that holds it.
    pub segment: Segment,
    /// Offset in bytes from the segment's start, a multiple of 64. Only the load-time symbol
    /// (`context`) may occur in it.
    pub offset: Expr,
    /// Size in bytes. Only the load-time symbol may occur in it.
    pub bytes: Expr,
}

/// A function of the code object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// The symbol to look up.
    pub name: String,
    /// For people: the macro-op and its shape, such as `gemm q4_1 [T,576]x[960,576] norm rope`.
    pub summary: String,
    /// Work-items of a workgroup, along x, on a GPU; 0 where an item is called by itself.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub workgroup: u32,
    /// Bytes of the local data share that a launch on a GPU asks for, besides those that the code
    /// says.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub shared_bytes: u32,
    /// What a launch cannot do without. Nothing depends on it at run time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<Work>,
    /// What the compiler found in the code of a GPU's kernel. Nothing depends on it at run time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<CodeFacts>,
}

/// Work of a launch, over the plan's symbols.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// Bytes that must be read or written at least once.
    pub bytes: Expr,
    /// Additions and multiplications.
    pub operations: Expr,
}

/// How fast the target's hardware is at most, by its maker's figures.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Memory bandwidth in bytes per second.
    pub bandwidth: f64,
    /// Dense f16 matrix operations: additions and multiplications per second.
    pub matrix_rate: f64,
}

impl Machine {
    /// Seconds that a launch takes at least: the roofline. `None` where its work overflows.
    pub fn seconds(&self, work: &Work, symbols: &Symbols) -> Option<f64> {
        let bytes = work.bytes.eval(symbols)? as f64;
        let operations = work.operations.eval(symbols)? as f64;
        Some((bytes / self.bandwidth).max(operations / self.matrix_rate))
    }
}

/// What can be read off a GPU kernel's machine code.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeFacts {
    /// Vector registers of a wave, accumulation registers included; 0 where the code is PTX, for
    /// which the driver decides on registers, spills and waves.
    pub vgprs: u32,
    /// Scalar registers of a wave.
    pub sgprs: u32,
    /// Registers of either kind that were spilled to memory.
    pub spills: u32,
    /// Bytes of private memory of a work-item.
    pub private_bytes: u32,
    /// Bytes of the local data share of a workgroup.
    pub lds_bytes: u32,
    /// Waves that a SIMD can hold at once, by registers and LDS.
    pub waves_per_simd: u32,
    /// What its generator planned for, at least: 1 if it has no plan.
    #[serde(default)]
    pub planned_waves_per_simd: u32,
    /// Whether its code waits for the launches before it: no work-item reads what they may write, or
    /// writes, before that, and each has waited when it ends. Such a launch may begin while the
    /// one before it runs; and as its end comes after the ends of all before it, so may the next.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub waits: bool,
    /// Instructions in all.
    pub instructions: u32,
    /// Its innermost loop with the most matrix operations, else the most loads from memory.
    pub hot_loop: Option<LoopFacts>,
}

/// What is in a loop.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoopFacts {
    /// Instructions.
    pub instructions: u32,
    /// Of them, matrix operations.
    pub matrix: u32,
    /// Loads from memory of 16 bytes a lane.
    pub wide_loads: u32,
    /// Other loads from memory.
    pub narrow_loads: u32,
    /// Waits for every load that is in flight.
    pub full_waits: u32,
}

/// One argument slot of a launch: eight bytes, a pointer or an `i64`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arg {
    /// The address of a buffer.
    Buffer(BufferId),
    /// The value of an expression, as `i64`.
    Scalar(Expr),
    /// The address of [`Plan::scratch_bytes`] that all launches share, on a GPU. Zero when the plan
    /// is loaded; the first [`SCRATCH_COUNTERS`] bytes are zero before and after every launch.
    Scratch,
}

/// Bytes at the beginning of a GPU's scratch in which workgroups count each other.
pub const SCRATCH_COUNTERS: u64 = 4096;

/// Most bytes of the local data share that a launch may ask for: what compute capability 9.0 gives a
/// workgroup, the most of all GPUs.
pub const MAX_SHARED_BYTES: u32 = 227 << 10;

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// One kernel run over `grid` work items: on a GPU, workgroups. Launches of a program run in order; a launch sees all
/// that earlier ones wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// Index into [`Plan::kernels`].
    pub kernel: usize,
    /// Number of independent work items.
    pub grid: Expr,
    /// Arguments, in the kernel's order.
    pub args: Vec<Arg>,
    /// Buffers (of `args`) that the launch writes, for checkers.
    pub writes: Vec<BufferId>,
}

/// A list of launches under a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// `prefill`, `decode` or `sample`.
    pub name: String,
    /// Launches, in order.
    pub launches: Vec<Launch>,
}

/// How the runtime turns programs into generated tokens; see `docs/architecture.md`, "The decode
/// loop". All buffers are in [`Segment::Io`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecodeLoop {
    /// Symbol: tokens in this step.
    pub step_tokens: SymbolId,
    /// Symbol: KV cache length after this step.
    pub cache_length: SymbolId,
    /// Symbol: KV cache capacity chosen at load.
    pub context: SymbolId,
    /// `i32[prefill_chunk]`: token ids of the step.
    pub tokens: BufferId,
    /// `i32[prefill_chunk]`: position of each of them.
    pub positions: BufferId,
    /// `i32[1]`: which row of the step predicts the next token.
    pub last: BufferId,
    /// `f32[1, vocab]`: logits of that row.
    pub logits: BufferId,
    /// [`SamplingParams`] as 64 bytes.
    pub sampling: BufferId,
    /// `i32[context + 1]`: every token by position, prompt and generated.
    pub history: BufferId,
    /// Index of the program for a chunk of 1 to `prefill_chunk` prompt tokens; ends in `logits`.
    pub prefill: usize,
    /// Index of the program for one token; ends with the sampled next token in place.
    pub decode: usize,
    /// Index of the program that samples from `logits`, run once after the prompt.
    pub sample: usize,
}

/// Sampling parameters as the `sample` kernel reads them: little-endian 32-bit words in this
/// order, up to 64 bytes. `temperature == 0` means arg-max; `top_k == 0`, `top_p >= 1` and
/// `min_p == 0` switch that filter off, `repetition_penalty == 1`, `presence_penalty == 0` and
/// `frequency_penalty == 0` that penalty. Penalties are applied before the temperature; the logits
/// that the user gets are those before.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SamplingParams {
    /// Divides the logits; 0 picks the largest.
    pub temperature: f32,
    /// Keep the k largest logits (and ties of the k-th).
    pub top_k: u32,
    /// Keep the most probable tokens whose mass first reaches this.
    pub top_p: f32,
    /// Keep tokens at least this probable relative to the most probable.
    pub min_p: f32,
    /// Key of the counter-based generator; the counter is the position.
    pub seed: u64,
    /// Divides the positive and multiplies the negative logits of tokens seen.
    pub repetition_penalty: f32,
    /// Subtracted once from the logits of tokens seen.
    pub presence_penalty: f32,
    /// Subtracted from a logit for each time that its token was seen.
    pub frequency_penalty: f32,
    /// Which tokens count as seen: this many before the new one, prompt and generated.
    pub penalty_last_n: u32,
}

impl SamplingParams {
    /// Arg-max.
    pub const GREEDY: SamplingParams = SamplingParams {
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        seed: 0,
        repetition_penalty: 1.0,
        presence_penalty: 0.0,
        frequency_penalty: 0.0,
        penalty_last_n: u32::MAX,
    };

    /// Size of [`SamplingParams::to_bytes`].
    pub const BYTES: usize = 64;

    /// The words that the `sample` kernel reads: temperature, top_k, top_p, min_p, seed low,
    /// seed high, repetition, presence and frequency penalty, penalty_last_n, six zeros.
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let words = [
            self.temperature.to_bits(),
            self.top_k,
            self.top_p.to_bits(),
            self.min_p.to_bits(),
            self.seed as u32,
            (self.seed >> 32) as u32,
            self.repetition_penalty.to_bits(),
            self.presence_penalty.to_bits(),
            self.frequency_penalty.to_bits(),
            self.penalty_last_n,
        ];
        let mut bytes = [0; Self::BYTES];
        for (to, word) in bytes.chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }
}

/// Facts about the model that a runtime and its user need.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// Name, from the model's files.
    pub name: String,
    /// Size of the vocabulary.
    pub vocab: u32,
    /// Largest context length that can be asked for at load.
    pub max_context: u32,
    /// Most prompt tokens per prefill step.
    pub prefill_chunk: u32,
    /// Tokens that end a generation.
    pub stop_tokens: Vec<u32>,
    /// Bytes of weights that one decode step reads.
    pub weight_bytes_per_token: u64,
}

/// What the memory planner reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryReport {
    /// Bytes of the arena.
    pub arena_peak: u64,
    /// Largest sum of bytes alive at once: no plan can be smaller.
    pub arena_lower_bound: u64,
}

/// A static execution plan for one target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// [`FORMAT_VERSION`].
    pub version: u32,
    /// Target name, such as `cpu`.
    pub target: String,
    /// Hardware features that the code needs, in the target's own words (`avx512vnni`); for an AMD
    /// GPU its architecture (`gfx942`).
    pub requires: Vec<String>,
    /// The hardware, for predictions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<Machine>,
    /// Name of the packed weights that its kernels read: targets may share them.
    pub weights: String,
    /// What stands for weights that the artifact does not have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub synthetic: Option<Synthetic>,
    /// The model.
    pub model: ModelInfo,
    /// Symbols.
    pub symbols: Vec<Symbol>,
    /// Buffers.
    pub buffers: Vec<Buffer>,
    /// Sizes of the segments in bytes; only the load-time symbol may occur.
    pub segments: Segments,
    /// Scratch bytes that each worker of a launch needs of its own; a GPU is one worker.
    pub scratch_bytes: u64,
    /// Kernels of the code object.
    pub kernels: Vec<Kernel>,
    /// Programs.
    pub programs: Vec<Program>,
    /// How a program's launches run as one, where the device has room for it; all the same they can
    /// run one by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent: Option<PersistentStep>,
    /// The decode loop over them.
    pub decode_loop: DecodeLoop,
    /// Memory planner's figures.
    pub memory: MemoryReport,
}

/// Sizes of the segments in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segments {
    /// Packed weights.
    pub constants: Expr,
    /// Intermediate values.
    pub arena: Expr,
    /// KV cache.
    pub state: Expr,
    /// Host and program exchange.
    pub io: Expr,
}
