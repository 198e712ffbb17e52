//! What an artifact's self-test expects: a prompt through a model in f64, and how far correct kernels
//! may be from that.
//!
//! In: the compiled targets of a model, its weights, a prompt. Out: a [`SelfTest`] to go into the
//! artifact. No kernel is asked what is right: the reference reads the stored weights and evaluates
//! the module after the passes, and gives the same bytes on every machine.
//!
//! How far a value may be off is found by doing it: beside the exact computation runs one in which
//! every number is moved by what the kernels say that they round ([`waveloom_ir::Numerics`], the
//! coarsest of all targets), at random. What the difference of the two has grown to at a value, through
//! all layers before it and this model's own amplification, is the size of the error that kernels
//! make there. [`MARGIN`] times that is allowed.

mod product;
mod reference;

use crate::op::extents;
use crate::{Subject, VerifyError};
use reference::{Reference, Roundings, World};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use waveloom_ir::{DType, Dim, Numerics, SymbolId, Tensor, Type};
use waveloom_passes::Step;
use waveloom_plan::selftest::{
    Choice, Digest, Element, Place, Probe, SELF_TEST_VERSION, TargetTest, View,
};
use waveloom_plan::{Plan, SelfTest};

/// How often the error that was simulated may be exceeded. The projections of an error of norm e
/// scatter normally around 0 with deviation e: eight deviations are exceeded with a probability of
/// 10⁻¹⁵, and twice that allows for the difference between one draw of roundings and another.
pub const MARGIN: f64 = 16.0;

/// Seed of the signs of digests, and of simulated roundings.
const SEED: u64 = 0x7365_6c66_7465_7374;

/// The self-test of a model compiled for `subjects`, which share its weights, on a prompt of two
/// tokens at least.
pub fn self_test(
    subjects: &[Subject<'_>],
    tokens: &[u32],
    text: Option<String>,
) -> Result<SelfTest, VerifyError> {
    let Some(subject) = subjects.first() else {
        return Err(VerifyError::NotOfModule("there is no target"));
    };
    let (prefill, fewest) = (subject.plan.decode_loop.prefill, tokens.len() < 2);
    if fewest {
        return Err(VerifyError::NotOfModule("a self-test takes two tokens"));
    }
    let mut recorder = Recorder::new(tokens.len());
    let mut reference = Reference::new(subject, tokens, SEED)?;
    for (index, step) in subject.origins[prefill].iter().enumerate() {
        let step = step.as_ref().ok_or(VerifyError::NotOfModule("prefill chooses a token"))?;
        reference.step(step, &roundings(subjects, index))?;
        recorder.record(subject, step, &reference)?;
    }
    let mut targets = BTreeMap::new();
    for subject in subjects {
        targets.insert(subject.plan.target.clone(), recorder.places(subject)?);
    }
    let logits = subject.plan.decode_loop.logits;
    let second = reference.second.as_ref().unwrap_or(&reference.first);
    let choices = [choice(&reference.first, logits)?, choice(second, logits)?];
    let tokens = tokens.to_vec();
    let (version, seed, probes) = (SELF_TEST_VERSION, SEED, recorder.probes);
    Ok(SelfTest { version, text, tokens, seed, choices, probes, targets })
}

/// How the kernels of a step round, on all targets and in both steps.
fn roundings<'n>(subjects: &'n [Subject<'_>], step: usize) -> Roundings<'n> {
    let mut numerics: Vec<&Numerics> = vec![];
    let mut caches = DType::F32;
    for subject in subjects {
        let walk = &subject.plan.decode_loop;
        for program in [walk.prefill, walk.decode] {
            let launch = subject.plan.programs[program].launches.get(step);
            let own = launch.and_then(|launch| subject.numerics.get(launch.kernel));
            numerics.extend(own.filter(|own| !numerics.contains(own)));
        }
        let mut values = subject.module.functions.iter().flat_map(|function| &function.values);
        if values.any(|value| value.ty.rank() == 3 && value.ty.dtype == DType::F16) {
            caches = DType::F16;
        }
    }
    Roundings { numerics, caches }
}

/// What was recorded of a reference.
struct Recorder {
    tokens: usize,
    probes: Vec<Probe>,
    /// Probes by the name of the buffer.
    known: HashMap<String, usize>,
}

impl Recorder {
    fn new(tokens: usize) -> Recorder {
        Recorder { tokens, probes: vec![], known: HashMap::new() }
    }

    /// Digests of what a step has left.
    fn record(
        &mut self,
        subject: &Subject<'_>,
        step: &Step,
        reference: &Reference<'_, '_>,
    ) -> Result<(), VerifyError> {
        let types = result_types(subject, step)?;
        for (buffer, ty) in step.results.iter().zip(types) {
            let value = &subject.plan.buffers[buffer.index()].name;
            let rows = [self.tokens - 2, self.tokens - 1];
            let worlds = [&reference.first, reference.second.as_ref().unwrap_or(&reference.first)];
            let mut digests = vec![];
            let mut width = 0;
            for (worlds, row) in worlds.into_iter().zip(rows) {
                let [exact, rounded] = worlds.each_ref().map(|world| {
                    let value = world.values[buffer.index()].as_deref();
                    value.map_or_else(Vec::new, |value| own_row(subject, ty, value, row))
                });
                width = exact.len() as u64;
                digests.push(digest(&exact, &rounded));
            }
            let Ok(digests) = <[Digest; 2]>::try_from(digests) else { continue };
            self.known.insert(value.clone(), self.probes.len());
            self.probes.push(Probe {
                layer: layer(subject, step),
                value: value.clone(),
                width,
                digests,
            });
        }
        Ok(())
    }

    /// Where a target has what was recorded.
    fn places(&self, subject: &Subject<'_>) -> Result<TargetTest, VerifyError> {
        let mut test = TargetTest::default();
        let walk = &subject.plan.decode_loop;
        let mut known: HashMap<View, usize> = HashMap::new();
        for (index, program) in [walk.prefill, walk.decode].into_iter().enumerate() {
            for (launch, step) in subject.origins[program].iter().enumerate() {
                let Some(step) = step else { continue };
                for (buffer, ty) in step.results.iter().zip(result_types(subject, step)?) {
                    let name = &subject.plan.buffers[buffer.index()].name;
                    let probe = *self.known.get(name).ok_or(VerifyError::NotOfModule(
                        "a target computes what another does not",
                    ))?;
                    let view = self.view(subject, ty, index);
                    let next = test.views.len();
                    let view = *known.entry(view).or_insert_with_key(|view| {
                        test.views.push(view.clone());
                        next
                    });
                    test.places[index].push(Place { launch, probe, buffer: buffer.index(), view });
                }
            }
        }
        Ok(test)
    }

    /// The elements of the last position of a value of this type, after prefill (0) or decode (1).
    fn view(&self, subject: &Subject<'_>, ty: &Type, step: usize) -> View {
        let element = if ty.dtype == DType::F16 { Element::F16 } else { Element::F32 };
        let context = self.tokens as u64;
        let shape = extents(ty, &symbols(subject, context));
        if let [_, heads, dim] = shape[..] {
            let position = context - 2 + step as u64;
            let at = (0..heads * dim).map(|i| [position, i / dim, i % dim]);
            let bytes = element.bytes();
            return View::new(
                element,
                at.map(|at| ty.layout.index([context, heads, dim], at, bytes)),
            );
        }
        let width: u64 = shape.iter().skip(1).product();
        let row = match is_by_token(subject, ty) {
            true if step == 0 => context - 2,
            _ => 0,
        };
        let count = if is_by_token(subject, ty) { width } else { shape.iter().product() };
        View::new(element, row * width..row * width + count)
    }
}

/// All symbols at this value.
fn symbols(subject: &Subject<'_>, value: u64) -> Vec<(SymbolId, u64)> {
    (0..subject.module.symbols.len() as u32).map(|id| (SymbolId(id), value)).collect()
}

/// Whether a value has a row for each token of a step.
fn is_by_token(subject: &Subject<'_>, ty: &Type) -> bool {
    let name = &subject.plan.symbols[subject.plan.decode_loop.step_tokens].name;
    match ty.shape.first() {
        Some(Dim::Symbol(id)) => subject.module.symbols[id.index()].name == *name,
        _ => false,
    }
}

/// Of a value by token or by position, the elements of one; else all.
fn own_row(subject: &Subject<'_>, ty: &Type, value: &Tensor<f64>, row: usize) -> Vec<f64> {
    let values = value.as_reals().unwrap_or_default();
    if ty.rank() != 3 && !is_by_token(subject, ty) {
        return values.to_vec();
    }
    let rows = value.shape.first().map_or(1, |&rows| rows as usize).max(1);
    values.chunks_exact((values.len() / rows).max(1)).nth(row).unwrap_or_default().to_vec()
}

/// What is expected of a value, and how far it may be off.
fn digest(exact: &[f64], rounded: &[f64]) -> Digest {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let error = norm(&mut exact.iter().zip(rounded).map(|(a, b)| a - b));
    let size = norm(&mut exact.iter().copied()).max(f64::from(f32::MIN_POSITIVE));
    // The digests themselves are f32.
    let tolerance = MARGIN * (error / size + f64::from(f32::EPSILON));
    Digest::of(exact.iter().copied(), SEED, tolerance as f32)
}

/// The most probable token, and how certain that is.
fn choice(worlds: &[World; 2], logits: usize) -> Result<Choice, VerifyError> {
    let missing = VerifyError::NotOfModule("no step makes logits");
    let [exact, rounded] = worlds.each_ref().map(|world| world.values[logits].clone());
    let (Some(exact), Some(rounded)) = (exact, rounded) else { return Err(missing) };
    let reals = |value: Rc<Tensor<f64>>| value.to_reals();
    let (exact, rounded) = (reals(exact), reals(rounded));
    let errors = exact.iter().zip(&rounded).map(|(a, b)| (a - b) * (a - b));
    let error = (errors.sum::<f64>() / exact.len().max(1) as f64).sqrt();
    let (mut token, mut best, mut next) = (0, f64::NEG_INFINITY, f64::NEG_INFINITY);
    for (index, &logit) in exact.iter().enumerate() {
        if logit > best {
            (token, best, next) = (index as u32, logit, best);
        } else if logit > next {
            next = logit;
        }
    }
    let margin = (best - next).min(f64::from(f32::MAX)) as f32;
    Ok(Choice { token, margin, tolerance: (MARGIN * error) as f32 })
}

/// Types of a step's results.
fn result_types<'s>(subject: &Subject<'s>, step: &Step) -> Result<Vec<&'s Type>, VerifyError> {
    let unknown = || VerifyError::NotOfModule("a launch stands for no instruction of it");
    let function = subject.module.functions.get(step.func.index()).ok_or_else(unknown)?;
    let inst = function.insts.get(step.inst.index()).ok_or_else(unknown)?;
    Ok(inst.results.iter().map(|&value| function.ty(value)).collect())
}

/// What a step is a part of: the call that scheduling has inlined, by the first two parts of the name
/// of what it computes; of `@step` itself, nothing.
fn layer(subject: &Subject<'_>, step: &Step) -> String {
    if subject.module.function("step") == Some(step.func) {
        return String::new();
    }
    let names = step.results.iter().map(|buffer| &buffer_of(subject.plan, buffer.index()).name);
    let mut calls = names.filter_map(|name| {
        let (function, rest) = name.split_once('.')?;
        let (call, _) = rest.split_once('.')?;
        call.parse::<u32>().ok().map(|_| format!("{function}.{call}"))
    });
    calls.next().unwrap_or_default()
}

fn buffer_of(plan: &Plan, buffer: usize) -> &waveloom_plan::Buffer {
    &plan.buffers[buffer]
}
