//! `waveloom verify`: every kernel of every tiny model on the CPU and on emulated GPUs; and kernels
//! that do not compute what they should, which it must find and name.
//!
//! A miscompilation is seeded the other way round: the kernels are right, and what verification takes
//! for right is changed, after the kernels were made. To tell them apart it must see the same difference.

use crate::golden::F32;
use crate::support::file;
use std::borrow::Cow;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;
use waveloom_codegen_hip::compile::{
    Clock, CompileOptions, CompiledTarget, IMPORT, Silent, Source, compile_schedule,
    compile_targets, write,
};
use waveloom_codegen_hip::{DecodeForm, Target};
use waveloom_frontend::{ImportOptions, Imported, import};
use waveloom_ir::{
    BinaryOp, DType, Expr, F32 as Number, Layout, Module, Numerics, Op, Prologue, UnaryOp, Weights,
};
use waveloom_passes::WeightDtype;
use waveloom_plan::Artifact;
use waveloom_runtime::{DeviceKind, LoadRequest};
use waveloom_tests::{emulator, rocm_with};
use waveloom_verify::{
    Drawn, Failure, Machine, Options, Report, Reproducer, Subject, Unwatched, Watcher, verify,
    verify_reproducer,
};

/// Names the job of a process, if it has one: model, target, what is wrong.
const JOB: &str = "WAVELOOM_VERIFY_JOB";

/// A model compiled for one target.
struct Prepared {
    compiled: CompiledTarget,
    imported: Imported,
    path: PathBuf,
    _folder: TempDir,
}

impl Prepared {
    fn new(model: &str, dtype: WeightDtype, target: &str) -> Prepared {
        Prepared::altered(model, dtype, target, DecodeForm::Launches, |_| ())
    }

    /// Compiled with a decode step of this form, and changed before it is written.
    fn altered(
        model: &str,
        dtype: WeightDtype,
        target: &str,
        decode: DecodeForm,
        alter: impl FnOnce(&mut CompiledTarget),
    ) -> Prepared {
        let path = file(&format!("fixtures/tiny/{model}"));
        let imported = import(&path, ImportOptions::default()).expect("it imports");
        let source = Source {
            module: imported.module.clone(),
            weights: &imported.weights,
            after: IMPORT,
            synthetic: None,
            stop_tokens: vec![],
            sections: vec![],
        };
        let targets = vec![Target::from_name(target).expect("a target")];
        let options = CompileOptions { targets, dtype, decode };
        let mut silent = Silent;
        let (mut compiled, _) =
            compile_targets(&source, &options, &mut silent).expect("it compiles");
        alter(&mut compiled[0]);
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("model.wlm");
        write(&source, &compiled, &path).expect("it is written");
        Prepared { compiled: compiled.remove(0), imported, path, _folder: folder }
    }

    /// Verifies on a device, with this mistake.
    fn verify(&self, device: DeviceKind, mistake: &str, watcher: &mut dyn Watcher) -> Report {
        let module = wrong(&self.compiled.module, mistake);
        let altered = Altered { given: &self.imported.weights, mistake };
        let options = Options { tokens: 20, steps: 3, seed: 5, launches_per_kernel: None };
        on_device(&self.compiled, &self.path, device, 24, &module, &altered, |subject, machine| {
            verify(subject, machine, &options, "a device".into(), watcher).expect("it runs")
        })
    }
}

/// Loads an artifact and hands it out with what it is verified against.
fn on_device(
    compiled: &CompiledTarget,
    path: &Path,
    device: DeviceKind,
    context: u32,
    module: &Module,
    weights: &dyn Weights,
    run: impl FnOnce(&Subject<'_>, &mut Machine<'_>) -> Report,
) -> Report {
    let artifact = Artifact::open(path).expect("it opens");
    let device = device.open(Some(2)).expect("a device");
    let plan = device.choose_plan(&artifact).expect("a plan");
    let layout = plan.layout(context).expect("a layout");
    let request =
        LoadRequest { artifact: &artifact, plan: &plan, layout: &layout, progress: &mut |_| {} };
    let mut loaded = device.load(request).expect("it loads");
    let numerics: Vec<Numerics> =
        compiled.lowered.kernels.iter().map(|kernel| kernel.numerics.clone()).collect();
    let origins = &compiled.lowered.origins;
    let subject = Subject { module, weights, plan: &plan, origins, numerics: &numerics };
    let mut symbols: Vec<i64> = plan.symbols.iter().map(|symbol| symbol.min).collect();
    symbols[plan.decode_loop.context] = context.into();
    run(&subject, &mut Machine { plan: &plan, loaded: &mut *loaded, symbols })
}

/// Weights of which one is not what was packed.
struct Altered<'a> {
    given: &'a dyn Weights,
    mistake: &'a str,
}

impl Weights for Altered<'_> {
    fn bytes(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let bytes = self.given.bytes(name)?;
        match (self.mistake, name) {
            ("rope base", "rope.inv_freq") => {
                let of = |b: &[u8; 4]| (f32::from_le_bytes(*b) * 1.001).to_le_bytes();
                Some(Cow::Owned(bytes.as_chunks().0.iter().flat_map(of).collect()))
            }
            ("weight", "model.layers.1.mlp.down_proj.weight") => {
                // The upper byte of an element in the middle: its sign.
                let mut bytes = bytes.into_owned();
                let at = (bytes.len() / 2) | 3;
                bytes[at] ^= 0x80;
                Some(Cow::Owned(bytes))
            }
            _ => Some(bytes),
        }
    }
}

/// The module with a mistake.
pub fn wrong(module: &Module, mistake: &str) -> Module {
    let mut module = module.clone();
    for function in &mut module.functions {
        let of_step = function.name == "step";
        for value in &mut function.values {
            value.ty.layout = match (mistake, value.ty.layout) {
                ("layout", Layout::PositionLanes(_)) => Layout::HeadMajor,
                ("layout", Layout::KeyBlocks(lanes)) => Layout::ValueBlocks(lanes),
                (_, layout) => layout,
            };
        }
        for inst in &mut function.insts {
            match &mut inst.op {
                Op::Gemm { attr } => {
                    for output in &mut attr.outputs {
                        output.expr = wrong_expr(&output.expr, mistake);
                    }
                    if mistake == "eps" && of_step && attr.prologue.is_some() {
                        attr.prologue = Some(Prologue::RmsNorm { eps: Number(1e-2) });
                    }
                }
                Op::Attention { attr } if mistake == "window" => attr.window = Some(5),
                Op::Attention { attr } if mistake == "scale" => attr.scale.0 *= 1.02,
                _ => {}
            }
        }
    }
    module
}

fn wrong_expr(expr: &Expr, mistake: &str) -> Expr {
    match (mistake, expr) {
        ("epilogue", Expr::Unary(UnaryOp::Sigmoid, x)) => Expr::Unary(UnaryOp::Tanh, x.clone()),
        ("residual", Expr::Binary(BinaryOp::Add, x, y)) => {
            Expr::Binary(BinaryOp::Sub, x.clone(), y.clone())
        }
        // Gate and up, which are the weights of one product, change places.
        ("gate", Expr::Unary(op @ UnaryOp::Sigmoid, _)) => Expr::unary(*op, Expr::Acc(1)),
        (_, Expr::Binary(op, x, y)) => {
            Expr::binary(*op, wrong_expr(x, mistake), wrong_expr(y, mistake))
        }
        (_, other) => other.clone(),
    }
}

/// What a summary of each kernel that is found must have, and of none other: of every mistake.
const MISTAKES: [(&str, &[&str]); 8] = [
    ("epilogue", &["sigmoid"]),
    ("residual", &["(add $0 #0)"]),
    ("gate", &["sigmoid"]),
    ("eps", &["[320, 64]"]),
    ("layout", &["append", "attention"]),
    ("window", &["attention"]),
    ("scale", &["attention"]),
    ("rope base", &["(cos (", "(sin ("]),
];

/// Every kernel was checked and is right.
fn all_right(report: &Report, what: &str) {
    println!(
        "{what}:\n{}",
        report.text(|rows, _| rows.iter().map(|r| r.join(" ") + "\n").collect())
    );
    assert!(report.passed && report.failures.is_empty(), "{what}: {}", report.conclusion());
    assert!(
        report.kernels.iter().all(|kernel| kernel.launches > 0 && kernel.elements > 0),
        "{what}"
    );
}

/// The kernels that were found wrong are those that compute the mistake, and all of them.
fn found(report: &Report, mistake: &str, parts: &[&str]) {
    assert!(!report.passed, "{mistake} was not found");
    for kernel in &report.kernels {
        let expected = parts.iter().any(|part| kernel.summary.contains(part));
        assert_eq!(kernel.wrong > 0, expected, "{mistake}: {} {}", kernel.name, kernel.summary);
    }
    for failure in &report.failures {
        let worst = failure.elements.first().expect("an element");
        assert!(worst.is_wrong() && !worst.index.is_empty(), "{mistake}: {failure:?}");
    }
}

const MODELS: [(&str, WeightDtype); 9] = [
    ("llama", WeightDtype::Keep),
    ("llama3", WeightDtype::Keep),
    ("mistral", WeightDtype::Keep),
    ("qwen2", WeightDtype::Keep),
    ("qwen3", WeightDtype::Keep),
    ("gguf/mixed.gguf", WeightDtype::Keep),
    ("qwen2", WeightDtype::Convert(DType::Q4_1)),
    ("llama", WeightDtype::Convert(DType::Q8_0)),
    ("llama", WeightDtype::Convert(DType::Q4_0)),
];

#[test]
fn kernels_of_the_cpu_are_within_their_bounds() {
    for target in ["cpu", "cpu-v3"] {
        for (model, dtype) in MODELS {
            let report =
                Prepared::new(model, dtype, target).verify(DeviceKind::Cpu, "", &mut Unwatched);
            all_right(&report, &format!("{model} {dtype} on {target}"));
        }
    }
}

#[test]
fn miscompiled_kernels_are_named() {
    let prepared = Prepared::new("llama", F32, "cpu");
    for (mistake, parts) in MISTAKES {
        found(&prepared.verify(DeviceKind::Cpu, mistake, &mut Unwatched), mistake, parts);
    }
    // One element of one weight: the column of the result that it belongs to.
    let report = prepared.verify(DeviceKind::Cpu, "weight", &mut Unwatched);
    assert!(report.failures.iter().all(|failure| failure.op == "gemm"), "{}", report.conclusion());
    for failure in &report.failures {
        // Element 64 · 96 / 2 is in row 32.
        assert_eq!(failure.elements[0].index[1], 32, "{failure:?}");
    }
    assert_eq!(report.failures.len(), 2, "prefill and decode: {}", report.conclusion());
}

/// Not a test by itself: it does a job where the environment names one, and leaves the result in the
/// folder that is its ROCm.
#[test]
fn verify_job() {
    let Ok(job) = env::var(JOB) else { return };
    let rocm = PathBuf::from(env::var_os("ROCM_PATH").expect("a folder"));
    let [model, dtype, target, decode, mistakes] = job.split('|').collect::<Vec<_>>()[..] else {
        panic!("a job has five parts: {job}")
    };
    let dtype = WeightDtype::parse(dtype).expect("a dtype");
    let decode = decode.parse().expect("a form");
    let prepared = Prepared::altered(model, dtype, target, decode, |_| ());
    for mistake in mistakes.split(',') {
        let report = prepared.verify(DeviceKind::Hip(0), mistake, &mut Unwatched);
        let what = format!("{model} {dtype} on {target}");
        match MISTAKES.iter().find(|(known, _)| *known == mistake) {
            Some((_, parts)) => found(&report, mistake, parts),
            None => all_right(&report, &what),
        }
    }
    std::fs::write(rocm.join("done"), "").expect("it is written");
}

/// Does a job on the emulated chip that is its target.
fn on_gpu(model: &str, dtype: WeightDtype, target: &str, mistakes: &str) {
    on_gpu_as(model, dtype, target, "launches", mistakes);
}

/// The same with a decode step of this form.
fn on_gpu_as(model: &str, dtype: WeightDtype, target: &str, decode: &str, mistakes: &str) {
    let Some(library) = emulator() else { return };
    let rocm = rocm_with(&library).expect("a directory");
    let output = Command::new(env::current_exe().expect("this test"))
        .args(["--exact", "verify::verify_job", "--nocapture", "--test-threads=1"])
        .env("ROCM_PATH", rocm.path())
        .env("WAVELOOM_EMU_DEVICE", target)
        .env(JOB, format!("{model}|{dtype}|{target}|{decode}|{mistakes}"))
        .output()
        .expect("the process runs");
    let said = String::from_utf8_lossy(&output.stderr);
    println!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{model} on {target}: {said}");
    assert!(rocm.path().join("done").exists(), "{model} on {target} was not verified");
}

#[test]
fn kernels_of_gfx942_are_within_their_bounds() {
    for (model, dtype) in MODELS {
        on_gpu(model, dtype, "gfx942", "");
    }
}

#[test]
fn kernels_of_gfx1100_are_within_their_bounds() {
    for (model, dtype) in MODELS {
        on_gpu(model, dtype, "gfx1100", "");
    }
}

#[test]
fn miscompiled_kernels_of_gpus_are_named() {
    let names: Vec<&str> = MISTAKES.iter().map(|(name, _)| *name).collect();
    on_gpu("llama", F32, "gfx942", &names.join(","));
    on_gpu(
        "llama",
        WeightDtype::Convert(DType::Q8_0),
        "gfx1100",
        "epilogue,layout,window,rope base",
    );
}

/// The decode step as one kernel leaves what its launches do, each of which is verified.
#[test]
fn persistent_steps_are_verified() {
    on_gpu_as("llama", WeightDtype::Keep, "gfx942", "persistent:8", "");
    on_gpu_as("qwen2", WeightDtype::Convert(DType::Q4_1), "gfx1100", "persistent:5", "");
}

/// A launch that stops one tile early is found, and no other.
#[test]
fn a_wrong_tile_bound_is_named() {
    let mut shortened = None;
    let shorten = |compiled: &mut CompiledTarget| {
        let plan = &mut compiled.lowered.plan;
        let gemm = |kernel: usize| plan.kernels[kernel].summary.starts_with("gemm");
        let launches = &plan.programs[0].launches;
        let at = launches.iter().position(|launch| gemm(launch.kernel)).expect("a gemm");
        let launch = &mut plan.programs[0].launches[at];
        let all = Box::new(launch.grid.clone());
        launch.grid = waveloom_plan::Expr::Add(all, Box::new(waveloom_plan::Expr::Const(-1)));
        shortened = Some((launch.kernel, at));
    };
    let prepared = Prepared::altered("llama", F32, "cpu", DecodeForm::Launches, shorten);
    let report = prepared.verify(DeviceKind::Cpu, "", &mut Unwatched);
    let (kernel, launch) = shortened.expect("a gemm was shortened");
    assert_eq!(report.failures.len(), 1, "{}", report.conclusion());
    let failure = &report.failures[0];
    assert_eq!(failure.kernel, report.kernels[kernel].name);
    assert_eq!((failure.op.as_str(), failure.launch), ("gemm", launch));
}

/// Keeps reproducers in a folder.
struct Keeper(PathBuf);

impl Watcher for Keeper {
    fn progress(&mut self, _: &str, _: usize, _: usize) {}
    fn wants_reproducers(&self) -> bool {
        true
    }
    fn keep(&mut self, failure: &Failure, reproducer: &Reproducer) -> Option<String> {
        let path = self.0.join(format!("{}.wl", failure.kernel));
        reproducer.write(&path).expect("it is written");
        Some(path.display().to_string())
    }
}

/// A wrong launch is kept with its inputs; run again it is wrong in the same place, and right once the
/// kernel is.
#[test]
fn a_wrong_launch_is_kept_and_runs_again() {
    let prepared = Prepared::new("qwen3", WeightDtype::Keep, "cpu");
    for mistake in ["epilogue", "window"] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut keeper = Keeper(folder.path().to_path_buf());
        let report = prepared.verify(DeviceKind::Cpu, mistake, &mut keeper);
        assert!(report.failures.len() >= 2, "{}", report.conclusion());
        for failure in &report.failures {
            let path = PathBuf::from(failure.reproducer.as_ref().expect("it was kept"));
            let reproducer = Reproducer::read(&path).expect("it can be read");
            // The mistake is in the reference, which is what was kept: a kernel made of it is right.
            let right = run_again(&reproducer, &reproducer.operation.module);
            assert!(right.passed, "{}", right.conclusion());
            // The kernel that was compiled first, found out again.
            let module = wrong(&reproducer.operation.module, "scale");
            let module = wrong(&module, "residual");
            if module != reproducer.operation.module {
                let again = run_again(&reproducer, &module);
                assert!(!again.passed, "{}", failure.kernel);
                assert_eq!(again.failures[0].op, failure.op);
            }
        }
    }
}

/// Compiles a reproducer and verifies it against `module`.
fn run_again(reproducer: &Reproducer, module: &Module) -> Report {
    let source = Source {
        module: reproducer.operation.module.clone(),
        weights: &reproducer.weights,
        after: IMPORT,
        synthetic: None,
        stop_tokens: vec![],
        sections: vec![],
    };
    let target = Target::from_name(&reproducer.facts.target).expect("its target");
    let mut silent = Silent;
    let mut clock = Clock::new(&mut silent);
    let schedule = reproducer.schedule();
    let compiled = compile_schedule(
        &source,
        source.module.clone(),
        &schedule,
        &target,
        DecodeForm::Launches,
        &mut clock,
    );
    let compiled = vec![compiled.expect("it compiles")];
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.wlm");
    write(&source, &compiled, &path).expect("it is written");
    let (context, weights) = (reproducer.context(), &reproducer.weights);
    on_device(&compiled[0], &path, DeviceKind::Cpu, context, module, weights, |subject, machine| {
        verify_reproducer(subject, machine, reproducer, "a device".into()).expect("it runs")
    })
}

/// A model of which there is only the shape: weights drawn in the stored form, packed, and verified.
#[test]
fn drawn_weights_are_packed_and_verified() {
    let config = file("fixtures/tiny/qwen2/config.json");
    let options = ImportOptions { config_only: true, ..ImportOptions::default() };
    let imported = import(&config, options).expect("it imports");
    let drawn = Drawn::new(&imported.module, &imported.weights, 3);
    let source = Source {
        module: imported.module.clone(),
        weights: &drawn,
        after: IMPORT,
        synthetic: None,
        stop_tokens: vec![],
        sections: vec![],
    };
    let targets = vec![Target::from_name("cpu").expect("a target")];
    let options =
        CompileOptions { targets, dtype: WeightDtype::Keep, decode: DecodeForm::Launches };
    let mut silent = Silent;
    let (compiled, _) = compile_targets(&source, &options, &mut silent).expect("it compiles");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.wlm");
    write(&source, &compiled, &path).expect("it is written");
    let options = Options { tokens: 7, steps: 2, seed: 1, launches_per_kernel: Some(1) };
    let module = &compiled[0].module;
    let report =
        on_device(&compiled[0], &path, DeviceKind::Cpu, 9, module, &drawn, |subject, machine| {
            verify(subject, machine, &options, "a device".into(), &mut Unwatched).expect("it runs")
        });
    all_right(&report, "drawn");
    // One prefill step or two decode steps, and the choice of three tokens.
    assert!(report.kernels.iter().all(|kernel| kernel.launches <= 3));
}
