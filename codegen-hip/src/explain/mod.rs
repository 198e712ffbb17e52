//! What a target does with a model, without the hardware: what runs natively, what is done in another
//! way and why, the memory it takes and the time that the roofline predicts.
//!
//! In: a compiled target. Out: plain data for `explain-target`. Everything is read off what was
//! compiled: the module's weights, what each kernel says of its arithmetic, its machine code, the plan.

mod text;

use crate::compile::CompiledTarget;
use crate::kernels::KernelSource;
use crate::lower_schedule::lower_schedule;
use crate::persistent;
use crate::target::{CpuTarget, GpuTarget, Int8Dot, MatrixType, Platform, Target};
use serde::Serialize;
use std::collections::BTreeMap;
use waveloom_ir::DType;
use waveloom_ir::numerics::{Factors, Rounding, Sums};
use waveloom_passes as passes;
use waveloom_plan::{CodeFacts, Plan, Program};

/// What a target does with a model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// The model.
    pub model: String,
    /// The target.
    pub target: String,
    /// The target, for people.
    pub description: String,
    /// What the hardware must have.
    pub requires: Vec<String>,
    /// What it has instructions for, and what is done where it has none.
    pub instructions: Vec<Instruction>,
    /// Weights by stored form.
    pub weights: Vec<WeightUse>,
    /// Kernels, in the plan's order.
    pub kernels: Vec<KernelUse>,
    /// The decode step as one kernel.
    pub persistent: PersistentUse,
    /// Memory by context length.
    pub memory: Vec<MemoryUse>,
    /// Predictions by context length; none where the hardware has no figures.
    pub times: Vec<Times>,
}

/// Something that a model needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Instruction {
    /// What for.
    pub purpose: String,
    /// The instruction; none where the hardware has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub native: Option<String>,
    /// What is done where it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instead: Option<String>,
}

/// Weights of one stored form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WeightUse {
    /// As they come.
    pub stored: String,
    /// As kernels read them.
    pub used: String,
    /// How many.
    pub count: usize,
    /// Bytes as kernels read them, without padding.
    pub bytes: u64,
    /// Why they are not read as they come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// A kernel and how it computes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KernelUse {
    /// Its symbol.
    pub name: String,
    /// What it computes.
    pub summary: String,
    /// Launches by program.
    pub launches: BTreeMap<String, usize>,
    /// The units that multiply: `matrix`, `vector`, or nothing where there is no product.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub units: Option<&'static str>,
    /// How it multiplies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arithmetic: Option<String>,
    /// Why not with matrix operations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What its machine code needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub facts: Option<CodeFacts>,
}

/// Whether `--decode persistent` can be had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PersistentUse {
    /// Whether.
    pub available: bool,
    /// Its workgroups, or why not.
    pub why: String,
}

/// Memory at one context length, in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemoryUse {
    /// Positions of the KV cache.
    pub context: u32,
    /// Weights, activations and scratch of one worker: there once.
    pub shared: u64,
    /// KV cache and what is exchanged with the host: there for each sequence.
    pub per_sequence: u64,
}

impl MemoryUse {
    /// For so many sequences at a time.
    pub fn total(&self, sequences: u64) -> u64 {
        self.shared.saturating_add(self.per_sequence.saturating_mul(sequences))
    }
}

/// The roofline's times at one context length, in seconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Times {
    /// Positions in the KV cache.
    pub context: u32,
    /// A decode step.
    pub decode: f64,
    /// A whole prefill chunk that ends there, or as much of it as fits.
    pub prefill: f64,
    /// Tokens of that chunk.
    pub prefill_tokens: u32,
}

/// Explains a compiled target.
pub fn explain(compiled: &CompiledTarget) -> Explanation {
    let plan = &compiled.lowered.plan;
    let contexts = contexts(plan);
    Explanation {
        model: plan.model.name.clone(),
        target: plan.target.clone(),
        description: compiled.target.to_string(),
        requires: plan.requires.clone(),
        instructions: match &compiled.target {
            Target::Cpu(target) => cpu_instructions(target),
            Target::Gpu(target) => gpu_instructions(target),
        },
        weights: weights(compiled),
        kernels: kernels(compiled),
        persistent: persistent_use(compiled),
        memory: contexts.iter().filter_map(|&context| memory(plan, context)).collect(),
        times: contexts.iter().filter_map(|&context| times(plan, context)).collect(),
    }
}

/// Powers of two from 1024 on, and the largest context.
fn contexts(plan: &Plan) -> Vec<u32> {
    let largest = plan.model.max_context;
    (10..32).map(|log| 1 << log).take_while(|context| *context < largest).chain([largest]).collect()
}

fn instruction(purpose: &str, native: Option<String>, instead: &str) -> Instruction {
    let instead = native.is_none().then(|| instead.to_string());
    Instruction { purpose: purpose.to_string(), native, instead }
}

fn cpu_instructions(target: &CpuTarget) -> Vec<Instruction> {
    let when = |is: bool, name: &str| is.then(|| name.to_string());
    vec![
        instruction(
            "products of 8-bit integers (q8_0, q4_0, q4_1)",
            when(target.int8_dot == Int8Dot::Vnni, "vpdpbusd"),
            "no VNNI: vpmaddubsw and vpmaddwd, twice the operations, the same integers",
        ),
        instruction(
            "products of bf16 pairs",
            when(target.bf16_dot, "vdpbf16ps"),
            "no AVX-512 BF16: bf16 is widened to f32 and multiplied as such",
        ),
        instruction(
            "prefill with all weights but f32",
            when(target.amx, "tdpbf16ps"),
            "no AMX: products in vector registers",
        ),
        instruction(
            "products of f16",
            None,
            "f16 weights are widened to f32 (vcvtph2ps) and multiplied as such",
        ),
        instruction("products of f32", Some("vfmadd231ps".to_string()), ""),
    ]
}

fn gpu_instructions(target: &GpuTarget) -> Vec<Instruction> {
    let matrix = |factors: MatrixType| target.matrix_op(factors).map(|op| op.intrinsic.to_string());
    let rounds = match target.platform {
        Platform::Amd => "v_cvt_pk_bf16_f32",
        Platform::Nvidia => "cvt.rn.bf16x2.f32",
    };
    vec![
        instruction("matrix operations on f16", matrix(MatrixType::F16), "vector products in f32"),
        instruction(
            "matrix operations on bf16",
            matrix(MatrixType::Bf16),
            "vector products in f32",
        ),
        instruction(
            "matrix operations on f32",
            matrix(MatrixType::F32),
            "each f32 is the sum of two f16 or vector products in f32; see the kernels",
        ),
        instruction(
            "matrix operations on 4- and 8-bit blocks",
            None,
            "prefill dequantizes to f16 in registers; decode multiplies integers exactly",
        ),
        instruction(
            "rounding f32 to bf16",
            target.converts_bf16.then(|| rounds.to_string()),
            "by integer operations",
        ),
    ]
}

/// Weights by stored form and form in use.
fn weights(compiled: &CompiledTarget) -> Vec<WeightUse> {
    let mut uses: BTreeMap<(&str, &str), WeightUse> = BTreeMap::new();
    for id in &compiled.lowered.weights {
        let weight = &compiled.module.weights[id.index()];
        let (stored, used) = (weight.stored, weight.ty.dtype);
        let entry = uses.entry((stored.name(), used.name())).or_insert_with(|| WeightUse {
            stored: stored.name().to_string(),
            used: used.name().to_string(),
            count: 0,
            bytes: 0,
            why: (stored != used).then(|| conversion(stored, used)),
        });
        entry.count += 1;
        let constant = |dim: waveloom_ir::Dim| match dim {
            waveloom_ir::Dim::Const(extent) => extent,
            waveloom_ir::Dim::Symbol(_) => 0,
        };
        entry.bytes += weight.ty.bytes(constant).unwrap_or(0);
    }
    uses.into_values().collect()
}

/// Why a form is not used as it is stored.
fn conversion(stored: DType, used: DType) -> String {
    match (stored, used) {
        (DType::Q4_K, DType::Q4_1) => {
            "no kernel reads q4_k: the same quants, scales and minimums rounded to f16".to_string()
        }
        (DType::Q5_0 | DType::Q5_1 | DType::Q5_K | DType::Q6_K, DType::Q8_0) => {
            format!("no kernel reads {stored}: quantized again, to more bits")
        }
        (DType::F8E4M3 | DType::F8E4M3FNUZ, DType::F16) => {
            format!("no kernel reads {stored}: f16 holds the same numbers")
        }
        (_, DType::F32) if !stored.is_block() => {
            "norms, biases and other small weights are read as f32".to_string()
        }
        _ => "asked for by --dtype".to_string(),
    }
}

fn kernels(compiled: &CompiledTarget) -> Vec<KernelUse> {
    let plan = &compiled.lowered.plan;
    let sources = compiled.lowered.kernels.iter();
    let entries = plan.kernels.iter().zip(sources).enumerate();
    entries
        .map(|(index, (entry, source))| {
            let launches = |program: &Program| {
                let count = program.launches.iter().filter(|launch| launch.kernel == index).count();
                (count > 0).then(|| (program.name.clone(), count))
            };
            let launches: BTreeMap<String, usize> =
                plan.programs.iter().filter_map(launches).collect();
            let mut factors = source.numerics.products.iter();
            let matrix = factors.any(|factors| factors.sums == Sums::Matrix);
            let products = is_product(source);
            KernelUse {
                name: entry.name.clone(),
                summary: entry.summary.clone(),
                units: products.then_some(if matrix { "matrix" } else { "vector" }),
                arithmetic: products.then(|| arithmetic(source)),
                why: match (&compiled.target, products && !matrix) {
                    (Target::Gpu(_), true) => Some(no_matrix(&launches)),
                    _ => None,
                },
                launches,
                facts: entry.facts.clone(),
            }
        })
        .collect()
}

/// Whether it multiplies matrices.
fn is_product(source: &KernelSource) -> bool {
    !source.numerics.products.is_empty() || source.stem.starts_with("attention")
}

/// Why a product has no matrix operations.
fn no_matrix(launches: &BTreeMap<String, usize>) -> String {
    let one_row = launches.contains_key("decode");
    let why = match one_row {
        true => "one row: memory is the limit, and matrix operations would idle",
        false => "no matrix operation takes these weights, or not in pieces of this K",
    };
    why.to_string()
}

/// How a kernel multiplies.
fn arithmetic(source: &KernelSource) -> String {
    let mut kinds: Vec<String> = vec![];
    let plain = [Factors::default()];
    let products = match &source.numerics.products[..] {
        [] => &plain,
        products => products,
    };
    for factors in products {
        let kind = of_factors(*factors);
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    kinds.join("; ")
}

fn of_factors(Factors { activations, matrix, sums }: Factors) -> String {
    let form = |rounding: Rounding, plain: &str| match rounding {
        Rounding::None => plain.to_string(),
        Rounding::F16 { flushes: false } => "f16".to_string(),
        Rounding::F16 { flushes: true } => "f16 without subnormals".to_string(),
        Rounding::Bf16 => "bf16".to_string(),
        Rounding::TwoF16 => "two f16".to_string(),
        Rounding::TwoBf16 => "two bf16".to_string(),
        Rounding::Fixed { largest } => format!("integers of ±{largest} per block of 32"),
    };
    let sums = match sums {
        Sums::Nearest => "sums in f32",
        Sums::Matrix => "sums by matrix operations",
    };
    format!("{} x {}, {sums}", form(activations, "f32"), form(matrix, "as stored"))
}

/// Whether the decode step can run as one kernel, by trying.
fn persistent_use(compiled: &CompiledTarget) -> PersistentUse {
    let no = |why: String| PersistentUse { available: false, why };
    let Target::Gpu(target) = &compiled.target else {
        return no("a CPU's threads walk the launches in lockstep: there is nothing to save".into());
    };
    let lower = || {
        let module = &compiled.module;
        let schedule = passes::schedule(module).map_err(|error| error.to_string())?;
        let memory = passes::plan_memory(module, &schedule).map_err(|error| error.to_string())?;
        let lower = |work_items| {
            lower_schedule(module, &schedule, &memory, &compiled.target, &[], work_items)
                .map_err(|error| error.to_string())
        };
        let mut lowered = lower(persistent::work_items(&lower(0)?))?;
        let step = persistent::lower(&mut lowered, target, None).map_err(|e| e.to_string())?;
        Ok::<usize, String>(step.streams.len())
    };
    match lower() {
        Ok(streams) => PersistentUse {
            available: true,
            why: format!("`--decode persistent` keeps {streams} workgroups on the device"),
        },
        Err(why) => no(why),
    }
}

fn memory(plan: &Plan, context: u32) -> Option<MemoryUse> {
    let layout = plan.layout(context).ok()?;
    let per_sequence = layout.state.saturating_add(layout.io);
    Some(MemoryUse {
        context,
        shared: layout.peak_bytes(1).saturating_sub(per_sequence),
        per_sequence,
    })
}

fn times(plan: &Plan, context: u32) -> Option<Times> {
    let chunk = plan.model.prefill_chunk.min(context);
    Some(Times {
        context,
        decode: program_seconds(plan, plan.decode_loop.decode, 1, context)?,
        prefill: program_seconds(plan, plan.decode_loop.prefill, chunk, context)?,
        prefill_tokens: chunk,
    })
}

/// Seconds of a program by the roofline; `None` without figures of the hardware.
fn program_seconds(plan: &Plan, program: usize, tokens: u32, context: u32) -> Option<f64> {
    let machine = plan.machine?;
    let walk = &plan.decode_loop;
    let mut symbols: Vec<i64> = plan.symbols.iter().map(|symbol| symbol.max).collect();
    symbols[walk.step_tokens] = tokens.into();
    symbols[walk.cache_length] = context.into();
    symbols[walk.context] = context.into();
    let launches = plan.programs[program].launches.iter();
    let seconds = launches.map(|launch| {
        let work = plan.kernels[launch.kernel].work.as_ref();
        work.map_or(Some(0.0), |work| machine.seconds(work, &symbols))
    });
    seconds.sum()
}
