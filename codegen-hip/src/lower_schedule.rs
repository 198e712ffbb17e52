//! A schedule and its memory plan, lowered to an execution plan: buffers, kernels, launches.
//!
//! Nothing here knows how a kernel computes: for each step and variant [`kernel_of_size`] gives a
//! [`KernelSource`], and equal sources become one kernel.

use crate::kernels::{
    self, ArgRole, KernelError, KernelSource, SYMBOLS, Variant, kernel_of_size, tiling_of,
};
use crate::pack::packed_bytes;
use crate::target::Target;
use std::collections::{HashMap, HashSet};
use thiserror::Error;
use waveloom_ir::{Dim, Layout, Module, Op, Tiles, Type, WeightId};
use waveloom_passes::{BufferId, BufferKind, MemoryPlan, Schedule, Step};
use waveloom_plan::{self as plan, Arg, DecodeLoop, Expr, Launch, Segment};

/// Symbol `T` of every plan: tokens in the step.
pub const STEP_TOKENS: usize = 0;
/// Symbol `S` of every plan: KV cache length after the step.
pub const CACHE_LENGTH: usize = 1;
/// Symbol `C` of every plan: KV cache capacity.
pub const CONTEXT: usize = 2;

/// Every buffer starts at a multiple of this many bytes, and takes a multiple of it.
const ALIGNMENT: u64 = 64;

/// Why a schedule has no plan.
#[derive(Debug, Error)]
pub enum LowerError {
    /// The module lacks one of the three symbols.
    #[error("the module has no symbol `{0}`; the contract on symbols is in docs/architecture.md")]
    MissingSymbol(&'static str),
    /// A value's size is not computable or too large.
    #[error("the size of `{0}` does not fit in 63 bits")]
    TooLarge(String),
    /// A kernel cannot be made.
    #[error("kernel for `{buffer}`: {source}")]
    Kernel {
        /// What the step computes.
        buffer: String,
        /// Why not.
        source: KernelError,
    },
    /// The decode step cannot run as one kernel.
    #[error(
        "target {target} cannot run the decode step as one kernel: {what}; use `--decode launches`"
    )]
    Persistent {
        /// The target.
        target: String,
        /// Why not.
        what: String,
    },
}

/// A plan and what must be compiled and packed for it.
pub struct Lowered {
    /// The plan.
    pub plan: plan::Plan,
    /// Kernels, in the plan's order.
    pub kernels: Vec<KernelSource>,
    /// Weights, in the order of the constants segment.
    pub weights: Vec<WeightId>,
    /// The step of the schedule that each launch stands for, by program and launch of the plan; `None`
    /// for the choice of a token. A step's buffers have the same index in the plan. Of a step's launches
    /// those before the last write none of them: what they make is in scratch.
    pub origins: Vec<Vec<Option<Step>>>,
}

impl Lowered {
    /// Size of the packed weights.
    pub fn constant_bytes(&self) -> u64 {
        self.plan.segments.constants.eval(&[]).unwrap_or(0) as u64
    }
}

/// Lowers `schedule` for `target`; generations end at `stop_tokens`. Decode kernels of a GPU have
/// workgroups of at least `work_items` work-items.
pub fn lower_schedule(
    module: &Module,
    schedule: &Schedule,
    memory: &MemoryPlan,
    target: &Target,
    stop_tokens: &[u32],
    work_items: u32,
) -> Result<Lowered, LowerError> {
    let symbols = plan_symbols(module)?;
    let logits = &schedule.buffers[schedule.logits.index()];
    let vocab = logits.ty.last_const().and_then(|n| u32::try_from(n).ok());
    let vocab = vocab.ok_or_else(|| LowerError::TooLarge(logits.name.clone()))?;
    let mut buffers = Buffers::new(module, schedule, memory, target)?;
    let known = HashMap::new();
    let mut kernels = Kernels { module, schedule, target, work_items, sources: vec![], known };
    let sampler = Sampler::new(&mut buffers, schedule, vocab, target)?;
    let (prefill, prefilled) = kernels.program("prefill", Variant::Prefill)?;
    let (mut decode, mut decoded) = kernels.program("decode", Variant::Decode)?;
    let sample = kernels.launch(sampler.kernel.clone(), &sampler.buffers, &sampler.writes);
    decode.launches.push(sample.clone());
    let sample = plan::Program { name: "sample".into(), launches: vec![sample] };
    decoded.push(None);
    let origins = vec![prefilled, decoded, vec![None]];
    let weight_bytes_per_token = buffers.streamed_weights(&kernels, &decode);
    let scratch = kernels.sources.iter().map(|k| k.scratch_bytes).max().unwrap_or(0);
    let plan = plan::Plan {
        version: plan::FORMAT_VERSION,
        target: target.name().to_string(),
        requires: target.requires().into_iter().map(String::from).collect(),
        weights: target.weights().to_string(),
        synthetic: None,
        persistent: None,
        machine: target.machine(),
        model: plan::ModelInfo {
            name: module.name.clone(),
            vocab,
            max_context: symbols[CONTEXT].max as u32,
            prefill_chunk: symbols[STEP_TOKENS].max as u32,
            stop_tokens: stop_tokens.to_vec(),
            weight_bytes_per_token,
        },
        symbols,
        segments: buffers.segments(),
        buffers: buffers.list,
        scratch_bytes: scratch.next_multiple_of(ALIGNMENT),
        kernels: kernels.sources.iter().map(KernelSource::entry).collect(),
        programs: vec![prefill, decode, sample],
        decode_loop: DecodeLoop {
            step_tokens: STEP_TOKENS,
            cache_length: CACHE_LENGTH,
            context: CONTEXT,
            tokens: schedule.tokens.index(),
            positions: schedule.positions.index(),
            last: schedule.last.index(),
            logits: schedule.logits.index(),
            sampling: sampler.sampling,
            history: sampler.history,
            prefill: 0,
            decode: 1,
            sample: 2,
        },
        memory: plan::MemoryReport {
            arena_peak: memory.peak,
            arena_lower_bound: memory.lower_bound,
        },
    };
    Ok(Lowered { plan, kernels: kernels.sources, weights: buffers.weights, origins })
}

/// Writes to every op of the schedule how its kernels are tiled. What an op says itself stays.
pub fn choose_tiles(
    module: &mut Module,
    schedule: &Schedule,
    target: &Target,
) -> Result<(), LowerError> {
    let mut known = HashSet::new();
    for step in &schedule.steps {
        if !known.insert((step.func, step.inst)) {
            continue;
        }
        let function = &module.functions[step.func.index()];
        let tiling = |variant| {
            tiling_of(module, function, step.inst, variant, target)
                .map_err(|source| kernel_error(schedule, step, source))
        };
        let [prefill_tiles, decode_tiles] = [tiling(Variant::Prefill)?, tiling(Variant::Decode)?];
        let inst = &mut module.functions[step.func.index()].insts[step.inst.index()];
        if let Op::Gemm { attr } = &mut inst.op {
            attr.tiles = Tiles { prefill_tiles, decode_tiles };
        }
    }
    Ok(())
}

fn kernel_error(schedule: &Schedule, step: &Step, source: KernelError) -> LowerError {
    let name = |id: &BufferId| schedule.buffers[id.index()].name.clone();
    LowerError::Kernel { buffer: step.results.first().map_or_else(String::new, name), source }
}

/// The three symbols with the module's bounds, in the plan's order.
fn plan_symbols(module: &Module) -> Result<Vec<plan::Symbol>, LowerError> {
    let symbol = |name| {
        let id = module.symbol(name).ok_or(LowerError::MissingSymbol(name))?;
        let symbol = &module.symbols[id.index()];
        let bound = |extent| {
            i32::try_from(extent).map(i64::from).map_err(|_| LowerError::TooLarge(name.into()))
        };
        let (min, max) = (bound(symbol.min)?, bound(symbol.max)?);
        Ok(plan::Symbol { name: symbol.name.clone(), min, max })
    };
    SYMBOLS.into_iter().map(symbol).collect()
}

/// The plan's buffers while they are laid out: those of the schedule, by the same index, then
/// the sampler's.
struct Buffers {
    list: Vec<plan::Buffer>,
    weights: Vec<WeightId>,
    constants: u64,
    arena: u64,
    state: Expr,
    io: Expr,
}

impl Buffers {
    fn new(
        module: &Module,
        schedule: &Schedule,
        memory: &MemoryPlan,
        target: &Target,
    ) -> Result<Buffers, LowerError> {
        let mut buffers = Buffers {
            list: vec![],
            weights: vec![],
            constants: 0,
            arena: memory.peak.next_multiple_of(ALIGNMENT),
            state: Expr::from(0),
            io: Expr::from(0),
        };
        let mut caches = StateLayout::default();
        for (index, buffer) in schedule.buffers.iter().enumerate() {
            let too_large = || LowerError::TooLarge(buffer.name.clone());
            let bytes = |ty: &Type| {
                let bytes = ty.bytes(|dim| module.max_extent(dim)).ok_or_else(too_large)?;
                i64::try_from(bytes.next_multiple_of(ALIGNMENT)).map_err(|_| too_large())
            };
            let (segment, offset, bytes) = match buffer.kind {
                BufferKind::Weight(id) => {
                    let bytes = packed_bytes(&buffer.ty, target).ok_or_else(too_large)?;
                    let offset = buffers.constants;
                    buffers.constants = offset.checked_add(bytes).ok_or_else(too_large)?;
                    buffers.weights.push(id);
                    (Segment::Constants, Expr::from(offset as i64), Expr::from(bytes as i64))
                }
                BufferKind::Temporary => {
                    let offset = memory.offsets[index].unwrap_or(0);
                    (Segment::Arena, Expr::from(offset as i64), Expr::from(bytes(&buffer.ty)?))
                }
                BufferKind::State => {
                    let bytes = cache_bytes(&buffer.ty).ok_or_else(too_large)?;
                    (Segment::State, caches.push(bytes.clone()), bytes)
                }
                BufferKind::Input | BufferKind::Logits => {
                    let bytes = Expr::from(bytes(&buffer.ty)?);
                    (Segment::Io, buffers.claim_io(bytes.clone()), bytes)
                }
            };
            buffers.list.push(plan::Buffer { name: buffer.name.clone(), segment, offset, bytes });
        }
        buffers.state = caches.total();
        Ok(buffers)
    }

    fn claim_io(&mut self, bytes: Expr) -> Expr {
        let offset = self.io.clone();
        self.io = offset.clone() + bytes;
        offset
    }

    fn add_io(&mut self, name: &str, bytes: Expr) -> plan::BufferId {
        let offset = self.claim_io(bytes.clone());
        let buffer = plan::Buffer { name: name.into(), segment: Segment::Io, offset, bytes };
        self.list.push(buffer);
        self.list.len() - 1
    }

    fn segments(&self) -> plan::Segments {
        plan::Segments {
            constants: Expr::from(self.constants as i64),
            arena: Expr::from(self.arena as i64),
            state: self.state.clone(),
            io: self.io.clone(),
        }
    }

    /// Bytes of constants that the gemms of a decode step read.
    fn streamed_weights(&self, kernels: &Kernels<'_>, decode: &plan::Program) -> u64 {
        let launches = decode.launches.iter();
        let streaming = launches.filter(|launch| kernels.sources[launch.kernel].streams_weights);
        let args = streaming.flat_map(|launch| &launch.args);
        args.filter_map(|arg| match arg {
            Arg::Buffer(id) if self.list[*id].segment == Segment::Constants => {
                self.list[*id].bytes.eval(&[])
            }
            Arg::Buffer(_) | Arg::Scalar(_) | Arg::Scratch => None,
        })
        .sum::<i64>() as u64
    }
}

/// The state segment: caches of few distinct sizes, so that an offset is a short sum of
/// count × size and not a chain as long as the model is deep.
#[derive(Default)]
struct StateLayout {
    sizes: Vec<(Expr, i64)>,
}

impl StateLayout {
    fn push(&mut self, bytes: Expr) -> Expr {
        let offset = self.total();
        match self.sizes.iter_mut().find(|(size, _)| *size == bytes) {
            Some((_, count)) => *count += 1,
            None => self.sizes.push((bytes, 1)),
        }
        offset
    }

    fn total(&self) -> Expr {
        let terms = self.sizes.iter().map(|(size, count)| Expr::from(*count) * size.clone());
        terms.fold(Expr::from(0), |sum, term| sum + term)
    }
}

/// Bytes of a cache `[C, heads, head_dim]` in its layout, as an expression over the capacity,
/// rounded up to the alignment.
fn cache_bytes(ty: &Type) -> Option<Expr> {
    let [_, Dim::Const(heads), Dim::Const(head_dim)] = ty.shape[..] else { return None };
    let row = heads.checked_mul(head_dim)?.checked_mul(ty.dtype.block_bytes())?;
    let context = Expr::Symbol(CONTEXT);
    let bytes = match ty.layout {
        Layout::PositionLanes(lanes) => {
            let group = i64::try_from(row.checked_mul(lanes.into())?).ok()?;
            Expr::from(group) * ceil_div(context, i64::from(lanes))
        }
        Layout::HeadMajor | Layout::RowMajor => Expr::from(i64::try_from(row).ok()?) * context,
        Layout::KeyBlocks(lanes) | Layout::ValueBlocks(lanes) => {
            let block = i64::try_from(row.checked_mul(lanes.into())?).ok()?;
            Expr::from(block) * ceil_div(context, i64::from(lanes))
        }
    };
    Some(aligned(bytes))
}

fn ceil_div(a: Expr, b: i64) -> Expr {
    Expr::CeilDiv(Box::new(a), Box::new(Expr::from(b)))
}

fn aligned(bytes: Expr) -> Expr {
    Expr::from(ALIGNMENT as i64) * ceil_div(bytes, ALIGNMENT as i64)
}

/// What sampling adds to the schedule: its kernel and its buffers.
struct Sampler {
    kernel: KernelSource,
    buffers: Vec<plan::BufferId>,
    writes: Vec<plan::BufferId>,
    sampling: plan::BufferId,
    history: plan::BufferId,
}

impl Sampler {
    fn new(
        buffers: &mut Buffers,
        schedule: &Schedule,
        vocab: u32,
        target: &Target,
    ) -> Result<Sampler, LowerError> {
        let sampling = buffers.add_io("sampling", Expr::from(ALIGNMENT as i64));
        let tokens = Expr::Symbol(CONTEXT) + Expr::from(1);
        let history = buffers.add_io("history", aligned(Expr::from(4) * tokens));
        let kernel = kernels::sampler(vocab, target)
            .map_err(|source| LowerError::Kernel { buffer: "sample".into(), source })?;
        let io = |id: BufferId| id.index();
        let (tokens, positions) = (io(schedule.tokens), io(schedule.positions));
        let last = io(schedule.last);
        Ok(Sampler {
            kernel,
            buffers: vec![io(schedule.logits), sampling, tokens, positions, last, history],
            writes: vec![tokens, positions, last, history],
            sampling,
            history,
        })
    }
}

/// The kernels made so far, and the launches that use them.
struct Kernels<'a> {
    module: &'a Module,
    schedule: &'a Schedule,
    target: &'a Target,
    /// Fewest work-items of a workgroup of a decode kernel.
    work_items: u32,
    sources: Vec<KernelSource>,
    /// By op and program: its kernel, and before it the one whose launch comes first.
    known: HashMap<(u32, u32, Variant), Vec<usize>>,
}

impl Kernels<'_> {
    /// A program, and the step that each of its launches stands for.
    fn program(
        &mut self,
        name: &str,
        variant: Variant,
    ) -> Result<(plan::Program, Vec<Option<Step>>), LowerError> {
        let (mut launches, mut origins) = (vec![], vec![]);
        for step in &self.schedule.steps {
            let of_step = self.step(step, variant)?;
            origins.extend(of_step.iter().map(|_| Some(step.clone())));
            launches.extend(of_step);
        }
        Ok((plan::Program { name: name.into(), launches }, origins))
    }

    /// The launches of a step.
    fn step(&mut self, step: &Step, variant: Variant) -> Result<Vec<Launch>, LowerError> {
        let operands = step.operands.iter().map(|id| id.index());
        let results: Vec<plan::BufferId> = step.results.iter().map(|id| id.index()).collect();
        let buffers: Vec<plan::BufferId> = operands.chain(results.iter().copied()).collect();
        let key = (step.func.0, step.inst.0, variant);
        if !self.known.contains_key(&key) {
            let mut source = self.source(step, variant)?;
            let before = source.before.take().map(|before| self.add(*before));
            let kernel = self.add(source);
            self.known.insert(key, before.into_iter().chain([kernel]).collect());
        }
        let kernels = &self.known[&key];
        let last = kernels.len() - 1;
        let launch = |(index, &kernel)| {
            let writes = if index == last { &results[..] } else { &[] };
            self.launch_known(kernel, &buffers, writes)
        };
        Ok(kernels.iter().enumerate().map(launch).collect())
    }

    fn source(&self, step: &Step, variant: Variant) -> Result<KernelSource, LowerError> {
        let function = &self.module.functions[step.func.index()];
        let work_items = match variant {
            Variant::Prefill => 0,
            Variant::Decode => self.work_items,
        };
        let source =
            kernel_of_size(self.module, function, step.inst, variant, self.target, work_items);
        source.map_err(|source| kernel_error(self.schedule, step, source))
    }

    /// The index of `source` among the kernels, where an equal one may already stand.
    fn add(&mut self, mut source: KernelSource) -> usize {
        if let Some(known) = self.sources.iter().position(|k| k.same_code(&source)) {
            return known;
        }
        let taken = self.sources.iter().filter(|k| k.stem == source.stem).count();
        if taken > 0 {
            source.rename(format!("{}_{taken}", source.stem));
        }
        self.sources.push(source);
        self.sources.len() - 1
    }

    fn launch(
        &mut self,
        source: KernelSource,
        buffers: &[plan::BufferId],
        writes: &[plan::BufferId],
    ) -> Launch {
        let kernel = self.add(source);
        self.launch_known(kernel, buffers, writes)
    }

    /// `buffers` are the step's operands, then its results.
    fn launch_known(
        &self,
        kernel: usize,
        buffers: &[plan::BufferId],
        writes: &[plan::BufferId],
    ) -> Launch {
        let source = &self.sources[kernel];
        let args = source.args.iter().map(|role| match role {
            ArgRole::Buffer(index) => Arg::Buffer(buffers[*index]),
            ArgRole::Scalar(expr) => Arg::Scalar(expr.clone()),
            ArgRole::Scratch => Arg::Scratch,
        });
        let mut writes = writes.to_vec();
        writes.dedup();
        Launch { kernel, grid: source.items.clone(), args: args.collect(), writes }
    }
}
