//! `schedule`: the step function as one flat list of kernels over buffers.
//!
//! Calls are inlined per call, a reshape is another view of its operand's buffer, a cache is updated in
//! place. From here on nothing is SSA: memory planning and code generation look at this list alone.

use crate::plan_memory::{PlanError, peak_live_bytes};
use crate::storage::updated_operand;
use petgraph::Direction;
use petgraph::algo::tarjan_scc;
use petgraph::graph::{DiGraph, NodeIndex};
use std::collections::{BTreeSet, HashMap};
use thiserror::Error;
use waveloom_ir::verify::check;
use waveloom_ir::{DType, Family, FuncId, InstId, Module, Op, Type, VerifyError, WeightId};

/// A buffer of a schedule; its index in [`Schedule::buffers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BufferId(pub u32);

impl BufferId {
    /// As an index into [`Schedule::buffers`].
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// What a buffer holds and how long it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BufferKind {
    /// A weight: constant.
    Weight(WeightId),
    /// Written by the host before a step.
    Input,
    /// Survives from step to step: a KV cache.
    State,
    /// The result of the step.
    Logits,
    /// Lives within a step; memory planning gives it an offset in the arena.
    Temporary,
}

/// A piece of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Name for people, such as `layers.3.attention`.
    pub name: String,
    /// Type of the value that it is made for; views may have other shapes.
    pub ty: Type,
    /// What it holds.
    pub kind: BufferKind,
}

/// One kernel: instruction `inst` of function `func`, which has the op and the types of operands and
/// results as the kernel sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The function that holds the instruction.
    pub func: FuncId,
    /// The instruction.
    pub inst: InstId,
    /// Buffers of the operands, in the op's order.
    pub operands: Vec<BufferId>,
    /// Buffers of the results; an updated cache is the operand's own buffer.
    pub results: Vec<BufferId>,
}

/// A decode step, flat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// All buffers; one per weight in use.
    pub buffers: Vec<Buffer>,
    /// The kernels, in order of execution.
    pub steps: Vec<Step>,
    /// `i32[T]`: the step's tokens.
    pub tokens: BufferId,
    /// `i32[T]`: their positions.
    pub positions: BufferId,
    /// `i32[1]`: the row that reaches the head.
    pub last: BufferId,
    /// `f32[1, V]`.
    pub logits: BufferId,
}

/// Why a module has no schedule.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ScheduleError {
    /// The module breaks an invariant of the IR.
    #[error("the module is invalid: {0}")]
    Invalid(#[from] VerifyError),
    /// The module has no function `@step` of the agreed signature.
    #[error(
        "the module has no function @step (tokens, positions, last, caches…) → (logits, caches…): {problem}"
    )]
    NoStep {
        /// What is missing.
        problem: String,
    },
    /// A tensor op is left, which no kernel computes.
    #[error("`{op}` in @{function} is no macro-op; run the passes up to `raise` first")]
    NotMacro {
        /// Spelling of the op.
        op: &'static str,
        /// Name of the function.
        function: String,
    },
    /// Calls are nested too deep, or make too many steps.
    #[error("inlining the calls of @step makes more than {limit} {what}")]
    TooLarge {
        /// The limit.
        limit: usize,
        /// What it limits.
        what: &'static str,
    },
    /// A cache cannot be updated in place.
    #[error("cache `{cache}` cannot be updated in place: {problem}")]
    NotInPlace {
        /// Name of the cache's buffer.
        cache: String,
        /// Why.
        problem: &'static str,
    },
    /// The sizes of buffers do not fit in 64 bits.
    #[error(transparent)]
    Memory(#[from] PlanError),
}

/// Most steps that a schedule may have: calls can nest, so a small text can ask for any number.
const MAX_STEPS: usize = 20_000;
/// Deepest nesting of calls.
const MAX_DEPTH: usize = 64;

/// Flattens `@step` of `module`. Of two orders, that of the program and one that frees the most
/// memory first, the one with fewer live bytes is taken; the program's where they are equal.
pub fn schedule(module: &Module) -> Result<Schedule, ScheduleError> {
    check(module)?;
    let flat = flatten(module)?;
    let graph = dependence_graph(&flat)?;
    let in_program_order = flat.ordered(list_order(&graph, |_, _| 0));
    let mut freed = MemoryPressure::new(module, &flat);
    let greedy = flat.ordered(list_order(&graph, |node, done| freed.growth(node, done)));
    let live = |schedule: &Schedule| peak_live_bytes(module, schedule);
    if live(&greedy)? < live(&in_program_order)? { Ok(greedy) } else { Ok(in_program_order) }
}

/// A value as a state of a buffer: in-place updates make new versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Place {
    buffer: BufferId,
    version: u32,
}

/// The inlined step in program order, with the versions that dependences come from.
struct Flat {
    schedule: Schedule,
    /// By step: the places it reads.
    reads: Vec<Vec<Place>>,
    /// By step: the places it makes.
    writes: Vec<Vec<Place>>,
}

impl Flat {
    fn ordered(&self, order: Vec<usize>) -> Schedule {
        let steps = &self.schedule.steps;
        Schedule {
            steps: order.into_iter().map(|i| steps[i].clone()).collect(),
            ..self.schedule.clone()
        }
    }
}

/// Inlines calls and gives every value a buffer.
struct Flattener<'m> {
    module: &'m Module,
    buffers: Vec<Buffer>,
    /// By buffer: its newest version.
    versions: Vec<u32>,
    weights: HashMap<WeightId, BufferId>,
    names: HashMap<String, u32>,
    steps: Vec<Step>,
    reads: Vec<Vec<Place>>,
    writes: Vec<Vec<Place>>,
}

fn flatten(module: &Module) -> Result<Flat, ScheduleError> {
    let id = step_function(module)?;
    let step = &module.functions[id.index()];
    let mut flattener = Flattener {
        module,
        buffers: vec![],
        versions: vec![],
        weights: HashMap::new(),
        names: HashMap::new(),
        steps: vec![],
        reads: vec![],
        writes: vec![],
    };
    let mut params = vec![];
    for (i, &param) in step.params.iter().enumerate() {
        let value = &step.values[param.index()];
        let name = value.name.clone().unwrap_or_else(|| format!("param.{i}"));
        let kind = if i < 3 { BufferKind::Input } else { BufferKind::State };
        params.push(flattener.buffer(&name, &value.ty, kind));
    }
    let results = flattener.inline(id, &params, "", 0)?;
    flattener.check_caches(&params[3..], &results[1..])?;
    let logits = results[0].buffer;
    let buffer = &mut flattener.buffers[logits.index()];
    if buffer.kind != BufferKind::Temporary {
        return Err(ScheduleError::NoStep {
            problem: format!("its logits are `{}`, which no kernel computes", buffer.name),
        });
    }
    buffer.kind = BufferKind::Logits;
    Ok(Flat {
        schedule: Schedule {
            tokens: params[0].buffer,
            positions: params[1].buffer,
            last: params[2].buffer,
            logits,
            buffers: flattener.buffers,
            steps: flattener.steps,
        },
        reads: flattener.reads,
        writes: flattener.writes,
    })
}

/// `@step`, with its signature checked.
fn step_function(module: &Module) -> Result<FuncId, ScheduleError> {
    let fail = |problem: String| ScheduleError::NoStep { problem };
    let id = module.function("step").ok_or_else(|| fail("no function has that name".into()))?;
    let step = &module.functions[id.index()];
    if step.params.len() < 3 || step.results.len() + 2 != step.params.len() {
        return Err(fail(format!(
            "found {} parameters and {} results",
            step.params.len(),
            step.results.len()
        )));
    }
    if step.param_types().take(3).any(|ty| ty.dtype != DType::I32) {
        return Err(fail("tokens, positions and last are not i32".into()));
    }
    let caches = step.param_types().skip(3);
    if !caches.eq(step.result_types().skip(1)) {
        return Err(fail("caches change their type".into()));
    }
    Ok(id)
}

impl Flattener<'_> {
    fn buffer(&mut self, name: &str, ty: &Type, kind: BufferKind) -> Place {
        let taken = self.names.entry(name.to_string()).or_insert(0);
        let unique = match *taken {
            0 => name.to_string(),
            n => format!("{name}.{n}"),
        };
        *taken += 1;
        self.buffers.push(Buffer { name: unique, ty: ty.clone(), kind });
        self.versions.push(0);
        Place { buffer: BufferId(self.buffers.len() as u32 - 1), version: 0 }
    }

    /// Appends the steps of one call; gives the places of its results.
    fn inline(
        &mut self,
        func: FuncId,
        args: &[Place],
        prefix: &str,
        depth: usize,
    ) -> Result<Vec<Place>, ScheduleError> {
        if depth > MAX_DEPTH {
            return Err(ScheduleError::TooLarge { limit: MAX_DEPTH, what: "nested calls" });
        }
        let function = &self.module.functions[func.index()];
        let mut places: Vec<Option<Place>> = vec![None; function.values.len()];
        for (&param, &place) in function.params.iter().zip(args) {
            places[param.index()] = Some(place);
        }
        let mut calls = 0;
        for (index, inst) in function.insts.iter().enumerate() {
            // The verifier has seen that operands are defined before they are used.
            let operands: Vec<Place> =
                inst.operands.iter().filter_map(|v| places[v.index()]).collect();
            let results = match &inst.op {
                Op::Call { func: callee } => {
                    let name = family_name(&self.module.functions[callee.index()].name);
                    let inner = format!("{prefix}{name}.{calls}.");
                    calls += 1;
                    self.inline(*callee, &operands, &inner, depth + 1)?
                }
                Op::Reshape { shape: _ } => operands,
                Op::Weight { weight } => vec![self.weight(*weight)],
                op if has_kernel(op) => self.step(func, InstId(index as u32), &operands, prefix)?,
                op => {
                    return Err(ScheduleError::NotMacro {
                        op: op.mnemonic(),
                        function: function.name.clone(),
                    });
                }
            };
            for (&result, place) in inst.results.iter().zip(results) {
                places[result.index()] = Some(place);
            }
        }
        let results = function.results.iter().filter_map(|v| places[v.index()]);
        Ok(results.collect())
    }

    fn weight(&mut self, weight: WeightId) -> Place {
        let buffer = match self.weights.get(&weight) {
            Some(&buffer) => buffer,
            None => {
                let declaration = &self.module.weights[weight.index()];
                let kind = BufferKind::Weight(weight);
                let place = self.buffer(&declaration.name, &declaration.ty, kind);
                self.weights.insert(weight, place.buffer);
                place.buffer
            }
        };
        Place { buffer, version: 0 }
    }

    fn step(
        &mut self,
        func: FuncId,
        id: InstId,
        operands: &[Place],
        prefix: &str,
    ) -> Result<Vec<Place>, ScheduleError> {
        let function = &self.module.functions[func.index()];
        let inst = &function.insts[id.index()];
        if self.steps.len() == MAX_STEPS {
            return Err(ScheduleError::TooLarge { limit: MAX_STEPS, what: "steps" });
        }
        let mut results = vec![];
        for (i, &result) in inst.results.iter().enumerate() {
            let place = match updated_operand(&inst.op, i) {
                Some(operand) => self.update(operands, operand)?,
                None => {
                    let value = &function.values[result.index()];
                    let name = value.name.as_deref().unwrap_or(inst.op.mnemonic());
                    self.buffer(&format!("{prefix}{name}"), &value.ty, BufferKind::Temporary)
                }
            };
            results.push(place);
        }
        let buffers = |places: &[Place]| places.iter().map(|place| place.buffer).collect();
        self.steps.push(Step {
            func,
            inst: id,
            operands: buffers(operands),
            results: buffers(&results),
        });
        self.reads.push(operands.to_vec());
        self.writes.push(results.clone());
        Ok(results)
    }

    /// The next version of an operand that a step updates in place.
    fn update(&mut self, operands: &[Place], operand: usize) -> Result<Place, ScheduleError> {
        let old = operands[operand];
        let newest = &mut self.versions[old.buffer.index()];
        let buffer = &self.buffers[old.buffer.index()];
        let uses = operands.iter().filter(|place| place.buffer == old.buffer);
        let problem = match buffer.kind {
            BufferKind::Weight(_) | BufferKind::Input => "a step must not write to it",
            _ if old.version != *newest => "two steps update the same version of it",
            _ if uses.count() > 1 => "the step that updates it reads it, too",
            BufferKind::State | BufferKind::Temporary | BufferKind::Logits => {
                *newest += 1;
                return Ok(Place { buffer: old.buffer, version: *newest });
            }
        };
        Err(ScheduleError::NotInPlace { cache: buffer.name.clone(), problem })
    }

    /// Requires that the step returns each cache as the newest version of its own buffer.
    fn check_caches(&self, params: &[Place], results: &[Place]) -> Result<(), ScheduleError> {
        for (param, result) in params.iter().zip(results) {
            let buffer = param.buffer.index();
            let problem = if param.buffer != result.buffer {
                "the step returns something else in its place"
            } else if result.version != self.versions[buffer] {
                "the step returns an old version of it"
            } else {
                continue;
            };
            return Err(ScheduleError::NotInPlace {
                cache: self.buffers[buffer].name.clone(),
                problem,
            });
        }
        Ok(())
    }
}

/// A function's name without the number of its variant: `@layer.1` is the second kind of layer, not
/// layer 1.
fn family_name(name: &str) -> &str {
    match name.rsplit_once('.') {
        Some((family, variant)) if variant.bytes().all(|b| b.is_ascii_digit()) => family,
        _ => name,
    }
}

/// Whether a kernel computes `op` within a step.
fn has_kernel(op: &Op) -> bool {
    match op.family() {
        Family::Tensor => false,
        Family::Macro => !matches!(op, Op::DecodeLoop { attr: _ }),
        Family::Structural => matches!(op, Op::CacheAppend {}),
    }
}

/// Steps as nodes, in program order; an edge where one must come before the other: it writes what the
/// other reads, or it reads what the other then overwrites.
fn dependence_graph(flat: &Flat) -> Result<DiGraph<(), ()>, ScheduleError> {
    let mut graph = DiGraph::new();
    let mut writer: HashMap<Place, NodeIndex> = HashMap::new();
    for writes in &flat.writes {
        let node = graph.add_node(());
        writer.extend(writes.iter().map(|&place| (place, node)));
    }
    for (reads, node) in flat.reads.iter().zip(graph.node_indices()) {
        for &place in reads {
            if let Some(&from) = writer.get(&place) {
                graph.update_edge(from, node, ());
            }
            let next = Place { version: place.version + 1, ..place };
            if let Some(&overwrites) = writer.get(&next).filter(|&&other| other != node) {
                graph.update_edge(node, overwrites, ());
            }
        }
    }
    let cycle = tarjan_scc(&graph).into_iter().find(|scc| scc.len() > 1);
    let Some(cycle) = cycle else {
        return Ok(graph);
    };
    let writes = cycle.iter().flat_map(|node| &flat.writes[node.index()]);
    let updated = writes.filter(|place| place.version > 0).min_by_key(|place| place.buffer);
    let name = |place: &Place| flat.schedule.buffers[place.buffer.index()].name.clone();
    Err(ScheduleError::NotInPlace {
        cache: updated.map(name).unwrap_or_default(),
        problem: "its old version is read after the update",
    })
}

/// A topological order: of the steps that are ready, the one with the smallest `cost` comes first,
/// then the first in program order. `cost` is told which steps are done.
fn list_order(
    graph: &DiGraph<(), ()>,
    mut cost: impl FnMut(usize, &[usize]) -> i128,
) -> Vec<usize> {
    let mut waits: Vec<usize> = graph
        .node_indices()
        .map(|node| graph.neighbors_directed(node, Direction::Incoming).count())
        .collect();
    let mut ready: BTreeSet<usize> = (0..waits.len()).filter(|&i| waits[i] == 0).collect();
    let mut order = vec![];
    while let Some(node) = ready.iter().copied().min_by_key(|&n| (cost(n, &order), n)) {
        ready.remove(&node);
        order.push(node);
        for next in graph.neighbors(NodeIndex::new(node)) {
            waits[next.index()] -= 1;
            if waits[next.index()] == 0 {
                ready.insert(next.index());
            }
        }
    }
    order
}

/// How much each step would make the arena grow or shrink.
struct MemoryPressure<'a> {
    flat: &'a Flat,
    /// By buffer: bytes if it is temporary.
    bytes: Vec<u64>,
    /// By buffer: steps that still use it.
    users: Vec<usize>,
    seen: usize,
}

impl<'a> MemoryPressure<'a> {
    fn new(module: &Module, flat: &'a Flat) -> Self {
        let bytes = flat.schedule.buffers.iter().map(|buffer| {
            let bytes = buffer.ty.bytes(|dim| module.max_extent(dim));
            match buffer.kind {
                BufferKind::Temporary => bytes.unwrap_or(u64::MAX),
                _ => 0,
            }
        });
        let mut users = vec![0; flat.schedule.buffers.len()];
        for step in &flat.schedule.steps {
            for buffer in distinct(&step.operands) {
                users[buffer.index()] += 1;
            }
        }
        MemoryPressure { flat, bytes: bytes.collect(), users, seen: 0 }
    }

    /// Bytes that `step` allocates less those it frees, after the steps `done`.
    fn growth(&mut self, step: usize, done: &[usize]) -> i128 {
        for &step in &done[self.seen..] {
            for buffer in distinct(&self.flat.schedule.steps[step].operands) {
                self.users[buffer.index()] -= 1;
            }
        }
        self.seen = done.len();
        let step = &self.flat.schedule.steps[step];
        let bytes = |id: BufferId| i128::from(self.bytes[id.index()]);
        let allocated: i128 = step.results.iter().map(|&id| bytes(id)).sum();
        let freed: i128 =
            distinct(&step.operands).filter(|id| self.users[id.index()] == 1).map(bytes).sum();
        allocated - freed
    }
}

fn distinct(buffers: &[BufferId]) -> impl Iterator<Item = BufferId> {
    let set: BTreeSet<BufferId> = buffers.iter().copied().collect();
    set.into_iter()
}
