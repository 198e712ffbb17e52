//! What a pass is, the table of them, and how the table is run.

use crate::choose_layouts::TargetLayout;
use crate::convert_weights::WeightDtype;
use crate::provenance::ValueMap;
use crate::rules::{Numerics, Rule};
use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};
use thiserror::Error;
use waveloom_ir::verify::check;
use waveloom_ir::{InferError, Module, Phase, VerifyError, gate};

/// Why a pass gave up.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PassError {
    /// A rewritten instruction does not fit its operands: a mistake in the pass.
    #[error(
        "pass `{pass}` made an ill-typed instruction in @{function}: {source}; this is a bug in the pass"
    )]
    Infer {
        /// The pass.
        pass: &'static str,
        /// Name of the function.
        function: String,
        /// What does not fit.
        source: InferError,
    },
    /// The module that came in breaks an invariant.
    #[error("the module to compile is invalid: {0}")]
    InvalidInput(VerifyError),
    /// The module after a pass breaks an invariant: a mistake in the pass.
    #[error("the module is invalid after pass `{pass}`: {problem}; this is a bug in the pass")]
    Invalid {
        /// The pass.
        pass: &'static str,
        /// What the verifier, or the pass itself, found.
        problem: String,
    },
    /// An op is left that the phase after a pass must not hold.
    #[error("after pass `{pass}`, {source}; the passes have no rule for what it is part of")]
    Gate {
        /// The pass.
        pass: &'static str,
        /// Which op, and where.
        source: VerifyError,
    },
    /// The module lacks something that the pass needs, or has what it cannot handle.
    #[error("pass `{pass}`: {problem}")]
    Unsupported {
        /// The pass.
        pass: &'static str,
        /// What, where and what to do.
        problem: String,
    },
    /// The pass gave up in a way that it must not: a mistake in the pass.
    #[error("pass `{pass}` panicked: {message}; this is a bug in the pass")]
    Panicked {
        /// The pass.
        pass: &'static str,
        /// What it said.
        message: String,
    },
    /// A check found that the result is not what it should be: a mistake in the pass.
    #[error("pass `{pass}` is wrong: {problem}; this is a bug in the pass")]
    Wrong {
        /// The pass.
        pass: &'static str,
        /// What the check found.
        problem: String,
    },
    /// No pass has this name.
    #[error("unknown pass `{name}`; the passes are {known}")]
    UnknownPass {
        /// The name asked for.
        name: String,
        /// Every known name.
        known: String,
    },
}

impl PassError {
    /// The pass that failed, if it is the pass's mistake and not the module's.
    pub fn culprit(&self) -> Option<&'static str> {
        match self {
            PassError::Infer { pass, .. }
            | PassError::Invalid { pass, .. }
            | PassError::Panicked { pass, .. }
            | PassError::Wrong { pass, .. } => Some(pass),
            PassError::Gate { .. }
            | PassError::InvalidInput(_)
            | PassError::Unsupported { .. }
            | PassError::UnknownPass { .. } => None,
        }
    }
}

/// Budgets of the rewrite engine: counts, never seconds, so that a build is deterministic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleLimits {
    /// Nodes that an e-graph may hold.
    pub nodes: usize,
    /// Rounds of rule application.
    pub iterations: usize,
    /// Rewrites applied at most in the whole run, to bisect a wrong rule; `None`: all.
    pub max_rewrites: Option<u64>,
}

impl Default for RuleLimits {
    fn default() -> Self {
        RuleLimits { nodes: 50_000, iterations: 30, max_rewrites: None }
    }
}

/// What the user or the target asks of the passes.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct PassOptions {
    /// Dtype of matrix weights.
    pub dtype: WeightDtype,
    /// Tokens that end a generation.
    pub stop_tokens: Vec<u32>,
    /// What the target's kernels want of memory.
    pub layout: TargetLayout,
    /// Budgets of the rewrite engine.
    pub rules: RuleLimits,
}

/// What a pass did, for people and for the timing report.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct PassReport {
    /// How often each rewrite was applied, by name, in order of first use.
    pub rewrites: Vec<(String, u64)>,
    /// By name of a function that was written anew: what its values were before. In other functions
    /// each value is what it was.
    pub values: BTreeMap<String, ValueMap>,
}

impl PassReport {
    /// Counts one application of `rewrite`.
    pub fn count(&mut self, rewrite: &str) {
        self.add(rewrite, 1);
    }

    /// Counts `times` applications of `rewrite`.
    pub fn add(&mut self, rewrite: &str, times: u64) {
        match self.rewrites.iter_mut().find(|(name, _)| name == rewrite) {
            Some((_, count)) => *count += times,
            None => self.rewrites.push((rewrite.to_string(), times)),
        }
    }

    /// All rewrites together.
    pub fn total(&self) -> u64 {
        self.rewrites.iter().map(|(_, count)| count).sum()
    }
}

/// A pass as a function.
pub type PassFn = fn(Module, &PassOptions) -> Result<(Module, PassReport), PassError>;

/// One entry of the pipeline.
#[derive(Clone, Copy)]
pub struct Pass {
    /// Name: its file, its word on the command line, its entry in reports.
    pub name: &'static str,
    /// One line for people.
    pub summary: &'static str,
    /// Which ops may remain after it, in the pipeline.
    pub phase: Phase,
    /// What it does to numbers beside its rules, given the values of weights: that those are stored in
    /// another dtype is no change of this module.
    pub numerics: Numerics,
    /// The rules that it applies.
    pub rules: &'static [&'static [Rule]],
    /// Does it.
    pub run: PassFn,
}

impl Pass {
    /// What a run that did what `report` says may do to numbers.
    pub fn numerics(&self, report: &PassReport) -> Numerics {
        let applied = |rule: &&Rule| report.rewrites.iter().any(|(name, _)| name == rule.name);
        let rules = self.rules.iter().copied().flatten().filter(applied);
        rules.map(|rule| rule.numerics).fold(self.numerics, Numerics::max)
    }

    /// Runs it, as the pipeline does: a panic is an error.
    fn apply(
        &self,
        module: Module,
        options: &PassOptions,
    ) -> Result<(Module, PassReport), PassError> {
        // What the pass was at work on is dropped with it.
        catch_unwind(AssertUnwindSafe(|| (self.run)(module, options))).unwrap_or_else(|payload| {
            Err(PassError::Panicked { pass: self.name, message: panic_message(&*payload) })
        })
    }
}

/// What a panic said.
fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| text.to_string());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "it said nothing".to_string())
}

/// The pipeline, in order.
pub const PASSES: &[Pass] = &[
    // First, since it changes types only; every later pass sees the dtypes that kernels will read.
    Pass {
        name: "convert-weights",
        summary: "choose the dtype of each weight",
        phase: Phase::Tensor,
        numerics: Numerics::Exact,
        rules: &[],
        run: crate::convert_weights::run,
    },
    // Before raising, so that its patterns meet fewer forms of the same thing.
    Pass {
        name: "simplify",
        summary: "take out what does nothing",
        phase: Phase::Tensor,
        numerics: Numerics::Exact,
        rules: crate::simplify::RULES,
        run: crate::simplify::run,
    },
    // From here on the module holds macro-ops only.
    Pass {
        name: "raise",
        summary: "find gemm, attention, norm, rope, embed and map among the primitives",
        phase: Phase::Macro,
        numerics: Numerics::Exact,
        rules: crate::raise::RULES,
        run: crate::raise::run,
    },
    // Before gemms take maps in: a chain of maps is one candidate, not several.
    Pass {
        name: "fuse-map",
        summary: "compute maps of maps as one map",
        phase: Phase::Macro,
        numerics: Numerics::Exact,
        rules: &[],
        run: crate::fuse_map::run,
    },
    // Before the other fusions: while gemms have no extra operands, none depends on another.
    Pass {
        name: "fuse-gemm-inputs",
        summary: "compute all products of one x as one gemm",
        phase: Phase::Macro,
        numerics: Numerics::Exact,
        rules: &[],
        run: crate::fuse_gemm_inputs::run,
    },
    // After inputs are merged: the norm of a layer then has one reader.
    Pass {
        name: "fuse-prologue",
        summary: "normalize rows within the gemms that read them",
        phase: Phase::Macro,
        numerics: Numerics::Exact,
        rules: &[],
        run: crate::fuse_prologue::run,
    },
    // After inputs are merged: the product of gate and up needs both in one gemm.
    Pass {
        name: "fuse-epilogue",
        summary: "compute bias, residual, activation, rope, head norm and cache write within gemms",
        phase: Phase::Macro,
        numerics: Numerics::Exact,
        rules: &[],
        run: crate::fuse_epilogue::run,
    },
    // Once the step is final; no pass before it has to know what a loop is.
    Pass {
        name: "wrap-decode-loop",
        summary: "add @generate, the loop that owns caches, position, sampling and the stop rule",
        phase: Phase::Macro,
        numerics: Numerics::Exact,
        rules: &[],
        run: crate::wrap_decode_loop::run,
    },
    // Last: only now do none but attention and appends read and write each cache.
    Pass {
        name: "choose-layouts",
        summary: "give the KV caches the dtype and memory layout that the target's kernels read",
        phase: Phase::Macro,
        // Caches are rounded to f16.
        numerics: Numerics::Lossy,
        rules: &[],
        run: crate::choose_layouts::run,
    },
];

/// The pass named `name`.
pub fn find_pass(name: &str) -> Result<&'static Pass, PassError> {
    PASSES.iter().find(|pass| pass.name == name).ok_or_else(|| PassError::UnknownPass {
        name: name.to_string(),
        known: PASSES.iter().map(|p| p.name).collect::<Vec<_>>().join(", "),
    })
}

/// What the observer of a run sees after each pass.
pub struct PassEvent<'a> {
    /// The pass that ran.
    pub pass: &'a Pass,
    /// The module it was given.
    pub before: &'a Module,
    /// The module it made; already verified.
    pub after: &'a Module,
    /// What it did.
    pub report: &'a PassReport,
    /// What it may have done to numbers.
    pub numerics: Numerics,
    /// What was asked of it.
    pub options: &'a PassOptions,
    /// How long it took, without verification.
    pub elapsed: Duration,
}

/// Is called after each pass; an error stops the run.
pub type Observer<'o> = dyn FnMut(PassEvent<'_>) -> Result<(), PassError> + 'o;

/// Runs the whole pipeline on a front end's module.
///
/// The module is verified before the first pass and after each, and each pass's gate is applied.
pub fn run_pipeline(
    module: Module,
    options: &PassOptions,
    observer: &mut Observer<'_>,
) -> Result<Module, PassError> {
    run_table(PASSES, module, options, observer)
}

/// Runs a pipeline that is this table, as [`run_pipeline`] does.
pub fn run_table(
    table: &[Pass],
    module: Module,
    options: &PassOptions,
    observer: &mut Observer<'_>,
) -> Result<Module, PassError> {
    run(table.iter().map(|pass| (pass, Some(pass.phase))), module, options, observer)
}

/// Runs `passes` in order on any module, verifying before the first and after each. There are no
/// gates: the module may be at any point of the pipeline.
pub fn run_passes<'p>(
    passes: impl IntoIterator<Item = &'p Pass>,
    module: Module,
    options: &PassOptions,
    observer: &mut Observer<'_>,
) -> Result<Module, PassError> {
    run(passes.into_iter().map(|pass| (pass, None)), module, options, observer)
}

fn run<'p>(
    passes: impl Iterator<Item = (&'p Pass, Option<Phase>)>,
    mut module: Module,
    options: &PassOptions,
    observer: &mut Observer<'_>,
) -> Result<Module, PassError> {
    check(&module).map_err(PassError::InvalidInput)?;
    for (pass, phase) in passes {
        let before = module.clone();
        let start = Instant::now();
        let (after, report) = pass.apply(module, options)?;
        let elapsed = start.elapsed();
        check(&after)
            .map_err(|error| PassError::Invalid { pass: pass.name, problem: error.to_string() })?;
        if let Some(phase) = phase {
            gate(&after, phase).map_err(|source| PassError::Gate { pass: pass.name, source })?;
        }
        let (report, numerics) = (&report, pass.numerics(&report));
        let before = &before;
        observer(PassEvent { pass, before, after: &after, report, numerics, options, elapsed })?;
        module = after;
    }
    Ok(module)
}
