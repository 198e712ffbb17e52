//! What an artifact has for one target, with what follows from its plan.

use super::lifetimes::{ProgramLifetimes, lifetimes};
use crate::{Failure, format};
use serde::Serialize;
use waveloom_plan::{CodeFacts, Layout, Plan};

/// What is there for one target.
#[derive(Serialize)]
pub struct Target {
    /// Its name.
    pub target: String,
    /// What the hardware must have.
    pub requires: Vec<String>,
    /// Bytes at the largest context.
    pub memory: Memory,
    /// Bytes at other contexts.
    pub contexts: Vec<ContextMemory>,
    /// Buffers of the arena over the launches of each program.
    pub lifetimes: Vec<ProgramLifetimes>,
    /// Kernels, in the plan's order.
    pub kernels: Vec<Kernel>,
    /// The plan itself.
    pub plan: Plan,
}

/// Bytes at the largest context.
#[derive(Serialize)]
pub struct Memory {
    /// The largest context.
    pub context: u32,
    /// Packed weights.
    pub constants: u64,
    /// Intermediate values.
    pub arena: u64,
    /// No memory plan has a smaller arena.
    pub arena_lower_bound: u64,
    /// Arena over lower bound.
    pub arena_ratio: f64,
    /// KV cache.
    pub state: u64,
    /// Exchange with the host.
    pub io: u64,
    /// Scratch of each worker.
    pub scratch_per_worker: u64,
    /// Where each buffer lies.
    #[serde(skip)]
    pub layout: Layout,
}

/// Bytes that depend on the context.
#[derive(Serialize)]
pub struct ContextMemory {
    /// Positions of the KV cache.
    pub context: u32,
    /// KV cache.
    pub state: u64,
    /// Exchange with the host.
    pub io: u64,
    /// All memory of a session with one worker, weights included.
    pub total: u64,
}

/// A kernel and how often each program launches it.
#[derive(Serialize)]
pub struct Kernel {
    /// Its symbol.
    pub name: String,
    /// What it computes.
    pub summary: String,
    /// Launches by program.
    pub launches: serde_json::Map<String, serde_json::Value>,
    /// What its code needs and has, on a GPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub facts: Option<CodeFacts>,
    /// Bytes of a launch: of prefill with a whole chunk where a program of that name has it, else
    /// of a decode step, the KV cache half full.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<i64>,
    /// By the roofline of the hardware's nominal figures: predicted, not measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub predicted_us: Option<f64>,
}

impl Target {
    /// What follows from a plan.
    pub fn new(plan: Plan) -> Result<Target, Failure> {
        let layout = plan.layout(plan.model.max_context)?;
        let contexts = contexts(&plan)?;
        let lifetimes = lifetimes(&plan, &layout);
        let kernels = (0..plan.kernels.len()).map(|kernel| Kernel::new(&plan, kernel)).collect();
        let memory = Memory::new(&plan, layout);
        let (target, requires) = (plan.target.clone(), plan.requires.clone());
        Ok(Target { target, requires, memory, contexts, lifetimes, kernels, plan })
    }
}

impl Memory {
    fn new(plan: &Plan, layout: Layout) -> Memory {
        let (peak, bound) = (plan.memory.arena_peak, plan.memory.arena_lower_bound);
        Memory {
            context: layout.context,
            constants: layout.constants,
            arena: layout.arena,
            arena_lower_bound: bound,
            arena_ratio: format::ratio(peak, bound),
            state: layout.state,
            io: layout.io,
            scratch_per_worker: layout.scratch,
            layout,
        }
    }
}

/// Memory at the powers of two from 1024, and at the largest context.
fn contexts(plan: &Plan) -> Result<Vec<ContextMemory>, Failure> {
    let largest = plan.model.max_context;
    let powers = (10..32).map(|log| 1 << log).take_while(|&context| context < largest);
    let memory = |context| {
        let layout = plan.layout(context)?;
        let (state, io, total) = (layout.state, layout.io, layout.peak_bytes(1));
        Ok(ContextMemory { context, state, io, total })
    };
    powers.chain([largest]).map(memory).collect()
}

impl Kernel {
    fn new(plan: &Plan, index: usize) -> Kernel {
        let mut launches = serde_json::Map::new();
        for program in &plan.programs {
            let count = program.launches.iter().filter(|launch| launch.kernel == index).count();
            if count > 0 {
                launches.insert(program.name.clone(), count.into());
            }
        }
        let kernel = &plan.kernels[index];
        let symbols = step_symbols(
            plan,
            launches.contains_key(&plan.programs[plan.decode_loop.prefill].name),
        );
        let work = kernel.work.as_ref();
        Kernel {
            name: kernel.name.clone(),
            summary: kernel.summary.clone(),
            launches,
            facts: kernel.facts.clone(),
            bytes: work.and_then(|work| work.bytes.eval(&symbols)),
            predicted_us: work.zip(plan.machine).and_then(|(work, machine)| {
                machine.seconds(work, &symbols).map(|seconds| seconds * 1e6)
            }),
        }
    }
}

/// Values of the symbols in a step of prefill or decode.
fn step_symbols(plan: &Plan, prefill: bool) -> Vec<i64> {
    let walk = &plan.decode_loop;
    let mut symbols: Vec<i64> = plan.symbols.iter().map(|symbol| symbol.max).collect();
    let tokens = if prefill { i64::from(plan.model.prefill_chunk) } else { 1 };
    symbols[walk.step_tokens] = tokens;
    symbols[walk.cache_length] = tokens.max(i64::from(plan.model.max_context) / 2);
    symbols
}
