//! From a module of tensor ops to an artifact file: passes, schedule, memory plan, kernels, weights.

use crate::error::CodegenError;
use crate::kernels::KernelSource;
use crate::link::link_shared_object;
use crate::lower::{CompiledKernel, KernelDump, compile as compile_kernel};
use crate::lower_schedule::{LowerError, Lowered, choose_tiles, lower_schedule};
use crate::overlap;
use crate::pack::synthetic::{drawn_weight, given_weight};
use crate::pack::{pack_weight, packed_bytes};
use crate::persistent::{self, DecodeForm};
use crate::target::Target;
use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use thiserror::Error;
use waveloom_ir::storage::{StorageError, weight_bytes};
use waveloom_ir::{Module, Op, WeightId, Weights};
use waveloom_passes::{
    self as passes, MemoryPlan, PassError, PassEvent, PassOptions, Schedule, WeightDtype,
};
use waveloom_plan as plan;
use waveloom_plan::artifact::{SELF_TEST, code_section, plan_section, weight_section};
use waveloom_plan::{ArtifactInfo, Section, write_artifact};

/// A model to compile, as a front end gives it, or as a compilation had it.
pub struct Source<'a> {
    /// Tensor ops, or what `after` left.
    pub module: Module,
    /// The point of a compilation at which the module stands: one of [`points`].
    pub after: &'static str,
    /// Bytes of its weights.
    pub weights: &'a dyn Weights,
    /// Seed of synthetic weights. The artifact then has none: those of which `weights` has no bytes
    /// are drawn when it is loaded.
    pub synthetic: Option<u64>,
    /// Tokens that end a generation; those of the module's decode loop, where it has one already,
    /// come in their place.
    pub stop_tokens: Vec<u32>,
    /// Sections to carry along: `tokenizer.json`, `chat_template.jinja`, `generation_config.json`.
    pub sections: Vec<(String, Vec<u8>)>,
}

/// What is asked of a compilation.
#[derive(Clone, Debug)]
pub struct CompileOptions {
    /// Targets; the artifact carries one plan, code object and set of weights for each.
    pub targets: Vec<Target>,
    /// Dtype of matrix weights.
    pub dtype: WeightDtype,
    /// How the decode step runs on GPUs.
    pub decode: DecodeForm,
}

/// Watches a compilation.
pub trait Observer {
    /// A phase begins: `passes`, `schedule`, `kernels`, `link`, `write`.
    fn phase(&mut self, name: &str);
    /// The phase got so far.
    fn progress(&mut self, done: u64, total: u64);
    /// A pass ran; an error stops the compilation.
    fn pass(&mut self, event: &PassEvent<'_>) -> Result<(), PassError>;
    /// The steps have an order and their values memory; an error stops the compilation.
    fn scheduled(
        &mut self,
        _module: &Module,
        _schedule: &Schedule,
        _memory: &MemoryPlan,
    ) -> Result<(), PassError> {
        Ok(())
    }
    /// A target is complete.
    fn compiled(&mut self, _target: &CompiledTarget) {}
    /// Whether [`Observer::self_test`] makes one.
    fn wants_self_test(&self) -> bool {
        false
    }
    /// Everything is compiled; gives the self-test to be written along, as a section. An error stops
    /// the compilation.
    fn self_test(
        &mut self,
        _source: &Source<'_>,
        _compiled: &[CompiledTarget],
    ) -> Result<Option<Vec<u8>>, Box<dyn Error + Send + Sync>> {
        Ok(None)
    }
    /// A kernel was compiled.
    fn kernel(&mut self, dump: &KernelDump);
    /// Whether [`Observer::kernel`] wants the texts, which cost time.
    fn wants_kernels(&self) -> bool;
}

/// The point of a compilation at which the front end hands over.
pub const IMPORT: &str = "import";
/// The point at which steps are scheduled and every op says how its kernels are tiled: the last one
/// with a module.
pub const CHOOSE_TILES: &str = "choose-tiles";

/// The points of a compilation at which there is a module, in order: [`IMPORT`], each pass,
/// [`CHOOSE_TILES`].
pub fn points() -> impl Iterator<Item = &'static str> {
    let passes = passes::PASSES.iter().map(|pass| pass.name);
    [IMPORT].into_iter().chain(passes).chain([CHOOSE_TILES])
}

/// The point called `name`.
pub fn find_point(name: &str) -> Result<&'static str, CompileError> {
    let unknown = || CompileError::UnknownPoint { name: name.to_string() };
    points().find(|point| *point == name).ok_or_else(unknown)
}

/// The passes between two points.
fn passes_between(after: &str, to: &str) -> &'static [passes::Pass] {
    let all = passes::PASSES;
    let done = |point| points().position(|known| known == point).unwrap_or(0).min(all.len());
    &all[done(after).min(done(to))..done(to)]
}

/// Watches nothing.
pub struct Silent;

impl Observer for Silent {
    fn phase(&mut self, _: &str) {}
    fn progress(&mut self, _: u64, _: u64) {}
    fn pass(&mut self, _: &PassEvent<'_>) -> Result<(), PassError> {
        Ok(())
    }
    fn kernel(&mut self, _: &KernelDump) {}
    fn wants_kernels(&self) -> bool {
        false
    }
}

/// What a compilation made.
#[derive(Clone, Debug)]
pub struct CompileReport {
    /// Time by phase, in order.
    pub phases: Vec<(String, Duration)>,
    /// What each target got.
    pub targets: Vec<TargetReport>,
    /// Size of the file.
    pub file_bytes: u64,
}

/// What one target got.
#[derive(Clone, Debug)]
pub struct TargetReport {
    /// Its name.
    pub target: String,
    /// Number of kernels.
    pub kernels: usize,
    /// Size of the code object.
    pub code_bytes: u64,
    /// Size of the packed weights.
    pub weight_bytes: u64,
    /// Peak and lower bound of the arena.
    pub memory: plan::MemoryReport,
}

/// Why a compilation failed.
#[derive(Debug, Error)]
pub enum CompileError {
    /// In a pass.
    #[error(transparent)]
    Pass(#[from] passes::PassError),
    /// In scheduling.
    #[error(transparent)]
    Schedule(#[from] passes::ScheduleError),
    /// In memory planning.
    #[error(transparent)]
    Memory(#[from] passes::PlanError),
    /// The memory planner's checker found a mistake: our bug.
    #[error("internal error: the memory plan of `plan-memory` is wrong: {0}")]
    MemoryCheck(#[from] passes::MemoryError),
    /// In the lowering to a plan.
    #[error(transparent)]
    Lower(#[from] LowerError),
    /// A kernel has no code: our bug.
    #[error("{source}")]
    Kernel {
        /// Index of the program whose kernel it is: 0 is prefill, 1 decode.
        program: usize,
        /// The step that it was made for.
        step: Box<passes::Step>,
        /// What is wrong.
        source: CodegenError,
    },
    /// In code generation.
    #[error(transparent)]
    Codegen(#[from] CodegenError),
    /// The plan does not verify: our bug.
    #[error("internal error: the plan is wrong: {0}")]
    Plan(#[from] plan::PlanError),
    /// The decode step must not run as one kernel: too many workgroups were asked for, or our bug.
    #[error(
        "the decode step cannot run as one kernel: {0}; give `--decode persistent:N` a smaller N"
    )]
    Persistent(plan::PersistentError),
    /// A weight cannot be read or converted.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The plan cannot be written as JSON: our bug.
    #[error("internal error: the plan cannot be serialized: {0}")]
    Serialize(serde_json::Error),
    /// In writing the artifact.
    #[error(transparent)]
    Artifact(#[from] plan::ArtifactError),
    /// Two targets want the same packed weights in different orders: our bug.
    #[error("internal error: targets {0} and {1} disagree about the order of weights")]
    SharedWeights(String, String),
    /// No point of a compilation has this name.
    #[error("there is no point `{name}` in a compilation; there are {}", points().collect::<Vec<_>>().join(", "))]
    UnknownPoint {
        /// What was asked for.
        name: String,
    },
    /// The self-test.
    #[error("the self-test cannot be made: {0}; `--self-test off` leaves it out")]
    SelfTest(Box<dyn Error + Send + Sync>),
    /// No target was named.
    #[error("no target; name at least one, such as `cpu`")]
    NoTarget,
}

/// Everything of one target but the bytes of its weights.
pub struct CompiledTarget {
    /// The target.
    pub target: Target,
    /// The module after the passes.
    pub module: Module,
    /// Plan, kernels, order of weights.
    pub lowered: Lowered,
    /// The code object.
    pub code: Vec<u8>,
}

/// Compiles `source` to the file `output`.
///
/// The file is written to a temporary name beside it and renamed, so that `output` is either whole
/// or untouched.
pub fn compile(
    mut source: Source<'_>,
    options: &CompileOptions,
    output: &Path,
    observer: &mut dyn Observer,
) -> Result<CompileReport, CompileError> {
    if options.targets.is_empty() {
        return Err(CompileError::NoTarget);
    }
    let (compiled, mut clock) = compile_targets(&source, options, observer)?;
    if clock.observer.wants_self_test() {
        clock.phase("self-test");
        let test = clock.observer.self_test(&source, &compiled);
        let section = |test| (SELF_TEST.to_string(), test);
        source.sections.extend(test.map_err(CompileError::SelfTest)?.map(section));
    }
    clock.phase("write");
    let file_bytes = write(&source, &compiled, output)?;
    clock.finish();
    let targets = compiled.iter().map(|c| TargetReport {
        target: c.lowered.plan.target.clone(),
        kernels: c.lowered.kernels.len(),
        code_bytes: c.code.len() as u64,
        weight_bytes: c.lowered.constant_bytes(),
        memory: c.lowered.plan.memory.clone(),
    });
    Ok(CompileReport { targets: targets.collect(), phases: clock.phases, file_bytes })
}

/// Compiles `source` for each target, all but the weights: [`write`] does the rest.
pub fn compile_targets<'o>(
    source: &Source<'_>,
    options: &CompileOptions,
    observer: &'o mut dyn Observer,
) -> Result<(Vec<CompiledTarget>, Clock<'o>), CompileError> {
    let mut clock = Clock::new(observer);
    let compile = |target| compile_target(source, target, options, &mut clock);
    let compiled = options.targets.iter().map(compile).collect::<Result<_, _>>()?;
    Ok((compiled, clock))
}

/// Times phases and tells the observer.
pub struct Clock<'o> {
    observer: &'o mut dyn Observer,
    phases: Vec<(String, Duration)>,
    started: Option<(&'static str, Instant)>,
}

impl<'o> Clock<'o> {
    /// A clock before the first phase.
    pub fn new(observer: &'o mut dyn Observer) -> Clock<'o> {
        Clock { observer, phases: vec![], started: None }
    }

    fn phase(&mut self, name: &'static str) {
        self.finish();
        self.started = Some((name, Instant::now()));
        self.observer.phase(name);
    }

    fn finish(&mut self) {
        let Some((name, start)) = self.started.take() else { return };
        match self.phases.iter_mut().find(|(known, _)| known == name) {
            Some((_, time)) => *time += start.elapsed(),
            None => self.phases.push((name.to_string(), start.elapsed())),
        }
    }
}

/// Compiles `source` for one target, all but its weights.
pub fn compile_target(
    source: &Source<'_>,
    target: &Target,
    options: &CompileOptions,
    clock: &mut Clock<'_>,
) -> Result<CompiledTarget, CompileError> {
    let mut module = run_passes(source, target, options, CHOOSE_TILES, clock)?;
    clock.phase("schedule");
    let schedule = passes::schedule(&module)?;
    choose_tiles(&mut module, &schedule, target)?;
    compile_schedule(source, module, &schedule, target, options.decode, clock)
}

/// The module of `source` at a later point of its compilation for `target`.
pub fn compile_module(
    source: &Source<'_>,
    target: &Target,
    options: &CompileOptions,
    to: &str,
    observer: &mut dyn Observer,
) -> Result<Module, CompileError> {
    let mut clock = Clock::new(observer);
    let mut module = run_passes(source, target, options, to, &mut clock)?;
    if to == CHOOSE_TILES {
        clock.phase("schedule");
        let schedule = passes::schedule(&module)?;
        choose_tiles(&mut module, &schedule, target)?;
    }
    Ok(module)
}

/// Runs the passes from where `source` stands up to a point.
fn run_passes(
    source: &Source<'_>,
    target: &Target,
    options: &CompileOptions,
    to: &str,
    clock: &mut Clock<'_>,
) -> Result<Module, CompileError> {
    clock.phase("passes");
    let pass_options = PassOptions {
        dtype: options.dtype,
        stop_tokens: source.stop_tokens.clone(),
        layout: target.layout(),
        ..PassOptions::default()
    };
    let observer = &mut *clock.observer;
    let part = passes_between(source.after, to);
    Ok(passes::run_table(part, source.module.clone(), &pass_options, &mut |event| {
        observer.pass(&event)
    })?)
}

/// Tokens at which the module's decode loop ends, if it has one.
fn stop_tokens(module: &Module) -> Option<&[u32]> {
    let insts = module.functions.iter().flat_map(|function| &function.insts);
    insts
        .filter_map(|inst| match &inst.op {
            Op::DecodeLoop { attr } => Some(attr.stop_tokens.as_slice()),
            _ => None,
        })
        .next()
}

/// Compiles a schedule of `module`, the source's module after the passes.
pub fn compile_schedule(
    source: &Source<'_>,
    module: Module,
    schedule: &Schedule,
    target: &Target,
    decode: DecodeForm,
    clock: &mut Clock<'_>,
) -> Result<CompiledTarget, CompileError> {
    let memory = passes::plan_memory(&module, schedule)?;
    passes::check_memory(schedule, &module, &memory)?;
    clock.observer.scheduled(&module, schedule, &memory)?;
    let stop_tokens = stop_tokens(&module).unwrap_or(&source.stop_tokens);
    let lower =
        |work_items| lower_schedule(&module, schedule, &memory, target, stop_tokens, work_items);
    let mut lowered = lower(0)?;
    let persistent = match (target, decode) {
        (Target::Gpu(target), DecodeForm::Persistent(streams)) => {
            lowered = lower(persistent::work_items(&lowered))?;
            Some(persistent::lower(&mut lowered, target, streams)?)
        }
        (Target::Gpu(target), DecodeForm::Overlapping) => {
            overlap::lower(&mut lowered, target);
            None
        }
        (Target::Cpu(_), _) | (_, DecodeForm::Launches) => None,
    };
    if let Some(seed) = source.synthetic {
        let fills = synthetic_fills(&module, &lowered.weights, source.weights, target)?;
        lowered.plan.synthetic = Some(plan::Synthetic { seed, fills });
    }
    lowered.plan.verify()?;
    clock.phase("kernels");
    let objects = compile_kernels(&lowered.kernels, target, clock.observer)
        .map_err(|source| kernel_failure(&lowered, source))?;
    for (kernel, object) in lowered.plan.kernels.iter_mut().zip(&objects) {
        kernel.facts = object.facts.clone();
    }
    if let Some(step) = &persistent {
        plan::check_persistent(&lowered.plan, step).map_err(CompileError::Persistent)?;
    }
    lowered.plan.persistent = persistent;
    clock.phase("link");
    let code = link_shared_object(&objects, target)?;
    let compiled = CompiledTarget { target: target.clone(), module, lowered, code };
    clock.observer.compiled(&compiled);
    Ok(compiled)
}

/// The error, with the step whose kernel it is about.
fn kernel_failure(lowered: &Lowered, source: CodegenError) -> CompileError {
    let failed = |kernel: usize| {
        let name = &lowered.plan.kernels[kernel].name;
        source.failed_kernel() == Some(name.as_str())
    };
    let programs = lowered.plan.programs.iter().zip(&lowered.origins).enumerate();
    let step = programs.flat_map(|(program, (launches, origins))| {
        let steps = launches.launches.iter().zip(origins);
        steps.filter_map(move |(launch, step)| {
            Some((launch.kernel, program, Box::new(step.clone()?)))
        })
    });
    match step
        .filter(|(kernel, ..)| failed(*kernel))
        .map(|(_, program, step)| (program, step))
        .next()
    {
        Some((program, step)) => CompileError::Kernel { program, step, source },
        None => source.into(),
    }
}

/// What stands for the weights of a module, in the order of the constants segment: those that are
/// given as they are, the others at random.
fn synthetic_fills(
    module: &Module,
    order: &[WeightId],
    given: &dyn Weights,
    target: &Target,
) -> Result<Vec<plan::Fill>, CompileError> {
    let (mut fills, mut offset) = (vec![], 0);
    for id in order {
        let weight = &module.weights[id.index()];
        let too_large = || LowerError::TooLarge(weight.name.clone());
        if given.bytes(&weight.name).is_some() {
            let bytes = weight_bytes(weight, given)?;
            let packed = pack_weight(&weight.name, &weight.ty, &bytes, target)?;
            fills.extend(given_weight(&packed, offset));
        } else {
            let cannot = || CodegenError::CannotPack {
                name: weight.name.clone(),
                dtype: weight.ty.dtype.name(),
            };
            fills.extend(drawn_weight(&weight.ty, target, offset).ok_or_else(cannot)?);
        }
        offset += packed_bytes(&weight.ty, target).ok_or_else(too_large)?;
    }
    Ok(fills)
}

/// Compiles kernels on all processors; the objects come back in the kernels' order.
fn compile_kernels(
    kernels: &[KernelSource],
    target: &Target,
    observer: &mut dyn Observer,
) -> Result<Vec<CompiledKernel>, CodegenError> {
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(kernels.len());
    let dump = observer.wants_kernels();
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(kernel) = kernels.get(index) else { break };
                    if sender.send((index, compile_kernel(&kernel.text, target, dump))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        let mut objects: Vec<Option<CompiledKernel>> = kernels.iter().map(|_| None).collect();
        for (done, (index, result)) in receiver.into_iter().enumerate() {
            let kernel = result?;
            if let Some(dump) = &kernel.dump {
                observer.kernel(dump);
            }
            objects[index] = Some(kernel);
            observer.progress(done as u64 + 1, kernels.len() as u64);
        }
        Ok(objects.into_iter().flatten().collect())
    })
}

/// Writes the artifact; gives its size in bytes.
pub fn write(
    source: &Source<'_>,
    compiled: &[CompiledTarget],
    output: &Path,
) -> Result<u64, CompileError> {
    let mut sections = vec![];
    for compiled in compiled {
        let target = compiled.target.name();
        let plan = serde_json::to_vec(&compiled.lowered.plan).map_err(CompileError::Serialize)?;
        sections.push(Section::from_bytes(plan_section(target), plan));
        sections.push(Section::from_bytes(code_section(target), &compiled.code));
    }
    for (name, bytes) in &source.sections {
        sections.push(Section::from_bytes(name, bytes));
    }
    // Targets that read the same packed weights share them. Synthetic ones are in their plans.
    let mut sets: HashMap<&str, &CompiledTarget> = HashMap::new();
    for compiled in compiled {
        match sets.get(compiled.target.weights()) {
            Some(first) if first.lowered.weights == compiled.lowered.weights => {}
            Some(first) => {
                let [a, b] = [*first, compiled].map(|c| c.target.name().to_string());
                return Err(CompileError::SharedWeights(a, b));
            }
            None => {
                if source.synthetic.is_none() {
                    sections.extend(compiled.weight_sections(source.weights)?);
                }
                sets.insert(compiled.target.weights(), compiled);
            }
        }
    }
    let info = ArtifactInfo {
        compiler: concat!("waveloom ", env!("CARGO_PKG_VERSION")).into(),
        model: source.module.name.clone(),
        targets: compiled.iter().map(|compiled| compiled.target.name().to_string()).collect(),
    };
    Ok(write_artifact(output, &info, sections)?)
}

impl CompiledTarget {
    /// The weights in the order of the constants segment, each fetched and packed when it is written.
    fn weight_sections<'a>(
        &'a self,
        weights: &'a dyn Weights,
    ) -> Result<Vec<Section<'a>>, CompileError> {
        let section = |&id: &WeightId| {
            let weight = &self.module.weights[id.index()];
            let bytes = packed_bytes(&weight.ty, &self.target);
            let bytes = bytes.ok_or_else(|| LowerError::TooLarge(weight.name.clone()))?;
            let name = weight_section(self.target.weights(), &weight.name);
            Ok(Section::new(name, bytes, move |out| {
                out.write_all(&self.packed_weight(id, weights).map_err(io::Error::other)?)
            }))
        };
        self.lowered.weights.iter().map(section).collect()
    }

    /// The bytes of a weight as the target's kernels read them.
    pub fn packed_weight(
        &self,
        id: WeightId,
        weights: &dyn Weights,
    ) -> Result<Vec<u8>, CompileError> {
        let weight = &self.module.weights[id.index()];
        let bytes = weight_bytes(weight, weights)?;
        Ok(pack_weight(&weight.name, &weight.ty, &bytes, &self.target)?)
    }
}
