//! The self-test of an artifact: right kernels pass on every kind of target, wrong ones are named by
//! layer and launch, on the CPU and on emulated GPUs.
//!
//! A kernel is miscompiled on purpose by making it of a module with a mistake; everything else in the
//! artifact is as it should be.

use crate::golden::F32;
use crate::support::file;
use crate::verify::wrong;
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
use waveloom_ir::{DType, Module, Numerics};
use waveloom_passes::{WeightDtype, schedule};
use waveloom_plan::artifact::SELF_TEST;
use waveloom_plan::{Artifact, SelfTest};
use waveloom_runtime::DeviceKind;
use waveloom_runtime::selftest::{SelfTestReport, self_test};
use waveloom_tests::{emulator, rocm_with};
use waveloom_verify::{Subject, selftest};

/// Names the artifact that a process tests, if it does.
const JOB: &str = "WAVELOOM_SELF_TEST_JOB";

/// The prompt: any tokens will do.
const PROMPT: [u32; 6] = [1, 7, 42, 100, 3, 77];

/// A model, compiled.
struct Made {
    imported: Imported,
    compiled: Vec<CompiledTarget>,
    folder: TempDir,
}

impl Made {
    fn new(model: &str, dtype: WeightDtype, targets: &[&str], decode: DecodeForm) -> Made {
        let path = file(&format!("fixtures/tiny/{model}"));
        let imported = import(&path, ImportOptions::default()).expect("it imports");
        let targets = targets.iter().map(|name| Target::from_name(name).expect("a target"));
        let options = CompileOptions { targets: targets.collect(), dtype, decode };
        let mut silent = Silent;
        let (compiled, _) = compile_targets(&source(&imported, vec![]), &options, &mut silent)
            .expect("it compiles");
        Made { imported, compiled, folder: tempfile::tempdir().expect("a folder") }
    }

    /// What its artifact says that it computes.
    fn test(&self) -> SelfTest {
        let numerics: Vec<Vec<Numerics>> = self
            .compiled
            .iter()
            .map(|target| target.lowered.kernels.iter().map(|k| k.numerics.clone()).collect())
            .collect();
        let subjects: Vec<Subject<'_>> = self
            .compiled
            .iter()
            .zip(&numerics)
            .map(|(target, numerics)| Subject {
                module: &target.module,
                weights: &self.imported.weights,
                plan: &target.lowered.plan,
                origins: &target.lowered.origins,
                numerics,
            })
            .collect();
        selftest::self_test(&subjects, &PROMPT, None).expect("a self-test")
    }

    /// Writes the artifact with this self-test.
    fn write(&self, test: &SelfTest) -> PathBuf {
        let path = self.folder.path().join("model.wlm");
        let sections = vec![(SELF_TEST.to_string(), test.to_json())];
        write(&source(&self.imported, sections), &self.compiled, &path).expect("it is written");
        path
    }

    /// Makes all kernels again, of a module with a mistake in the functions that `concerns` names.
    fn miscompile(&mut self, mistake: &str, concerns: &dyn Fn(&str) -> bool) {
        for target in &mut self.compiled {
            let module = mistaken(&target.module, mistake, concerns);
            assert_ne!(module, target.module, "{mistake}");
            let order = schedule(&module).expect("a schedule");
            let mut silent = Silent;
            let mut clock = Clock::new(&mut silent);
            let source = source(&self.imported, vec![]);
            let launches = DecodeForm::Launches;
            let made =
                compile_schedule(&source, module, &order, &target.target, launches, &mut clock);
            *target = made.expect("it compiles");
        }
    }
}

fn source(imported: &Imported, sections: Vec<(String, Vec<u8>)>) -> Source<'_> {
    Source {
        module: imported.module.clone(),
        weights: &imported.weights,
        after: IMPORT,
        synthetic: None,
        stop_tokens: vec![],
        sections,
    }
}

/// The module with a mistake in some functions.
fn mistaken(module: &Module, mistake: &str, concerns: &dyn Fn(&str) -> bool) -> Module {
    let mut all = wrong(module, mistake);
    for (function, right) in all.functions.iter_mut().zip(&module.functions) {
        if !concerns(&function.name) {
            *function = right.clone();
        }
    }
    all
}

fn run(path: &Path, device: DeviceKind) -> SelfTestReport {
    let artifact = Artifact::open(path).expect("it opens");
    let device = device.open(Some(2)).expect("a device");
    let report = self_test(&*device, &artifact, &mut |_| {}).expect("it runs");
    for step in &report.steps {
        let closest = step.closest.as_ref().expect("something was compared");
        println!(
            "{} {}: {} values, {:.1e} of {:.1e} at {}; {:?}",
            report.target,
            step.program,
            step.values,
            closest.deviation,
            closest.tolerance,
            closest.value,
            step.choice
        );
    }
    println!("{:?}", report.whole);
    report
}

/// Not a test by itself: it tests an artifact where the environment names one, and leaves the report in
/// the folder that is its ROCm.
#[test]
fn selftest_job() {
    let Ok(artifact) = env::var(JOB) else { return };
    let report = run(Path::new(&artifact), DeviceKind::Hip(0));
    let said = serde_json::to_vec(&report).expect("it serializes");
    let rocm = PathBuf::from(env::var_os("ROCM_PATH").expect("a folder"));
    std::fs::write(rocm.join("report.json"), said).expect("it is written");
}

/// The report of an emulated chip; `None` where there is no emulator.
fn run_on(path: &Path, chip: &str) -> Option<serde_json::Value> {
    let rocm = rocm_with(&emulator()?).expect("a directory");
    let output = Command::new(env::current_exe().expect("this test"))
        .args(["--exact", "selftest::selftest_job", "--nocapture", "--test-threads=1"])
        .env("ROCM_PATH", rocm.path())
        .env("WAVELOOM_EMU_DEVICE", chip)
        .env(JOB, path)
        .output()
        .expect("the process runs");
    println!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{chip}: {}", String::from_utf8_lossy(&output.stderr));
    let report = std::fs::read(rocm.path().join("report.json")).expect("a report");
    Some(serde_json::from_slice(&report).expect("it parses"))
}

/// All of it right, with both tokens compared.
fn passes(report: &serde_json::Value, what: &str) {
    assert_eq!(report["passed"], true, "{what}: {report:#}");
    for step in report["steps"].as_array().expect("steps") {
        assert!(step["values"].as_u64().is_some_and(|values| values > 10), "{what}: {step}");
    }
}

fn json(report: &SelfTestReport) -> serde_json::Value {
    serde_json::to_value(report).expect("it serializes")
}

/// Stored forms of every kind; one self-test for all targets.
#[test]
fn right_kernels_pass() {
    for (model, dtype) in [
        ("llama", F32),
        ("qwen3", WeightDtype::Convert(DType::BF16)),
        ("mistral", WeightDtype::Convert(DType::Q8_0)),
        ("gguf/mixed.gguf", WeightDtype::Keep),
    ] {
        let made = Made::new(model, dtype, &["cpu", "gfx942", "gfx1100"], DecodeForm::Launches);
        let test = made.test();
        assert_eq!(test, made.test(), "{model}: made twice");
        let path = made.write(&test);
        passes(&json(&run(&path, DeviceKind::Cpu)), model);
        for chip in ["gfx942", "gfx1100"] {
            let Some(report) = run_on(&path, chip) else { return };
            passes(&report, &format!("{model} on {chip}"));
        }
    }
}

/// What is expected does not depend on what is compiled for; in f32 on the CPU it is held to narrow
/// bounds, on older vectors, too.
#[test]
fn a_cpu_is_held_to_f32() {
    let [one, two] = [["cpu-v3"], ["cpu"]].map(|targets| {
        let made = Made::new("llama3", F32, &targets, DecodeForm::Launches);
        let test = made.test();
        passes(&json(&run(&made.write(&test), DeviceKind::Cpu)), targets[0]);
        test
    });
    for (a, b) in one.probes.iter().zip(&two.probes) {
        for (a, b) in a.digests.iter().zip(&b.digests) {
            assert_eq!((a.norm, a.projections), (b.norm, b.projections));
            // f32 keeps seven digits; two layers and sixteen deviations lose three.
            assert!(a.tolerance < 3e-4, "{a:?}");
        }
    }
    assert_eq!(one.choices.map(|choice| choice.token), two.choices.map(|choice| choice.token));
}

/// A decode step that is one kernel is tested as such, too.
#[test]
fn a_persistent_step_passes() {
    let made = Made::new("llama", F32, &["gfx942"], DecodeForm::Persistent(Some(3)));
    let Some(report) = run_on(&made.write(&made.test()), "gfx942") else { return };
    passes(&report, "persistent");
}

/// Kernels with a mistake, and the value that must be the first wrong one, with its layer.
const MISTAKES: [(&str, &str, &str, &str); 5] = [
    ("llama", "epilogue", "layer.0", "layer.0.gemm.2"),
    ("llama", "residual", "layer.0", "layer.0.gemm.1"),
    // Five positions: nothing is missed before the sixth, which is decoded.
    ("llama", "window", "layer.0", "layer.0.attention"),
    // A thousandth: too little to tell where the chip's f16 is allowed, too.
    ("llama", "eps", "", "logits"),
    // Its second layer is a function of its own.
    ("gguf/mixed.gguf", "epilogue", "layer.1", "layer.1.gemm.2"),
];

fn found(report: &serde_json::Value, (model, mistake, layer, value): (&str, &str, &str, &str)) {
    assert_eq!(report["passed"], false, "{model}: {mistake} was not found");
    let first = &report["first"];
    let program = if mistake == "window" { "decode" } else { "prefill" };
    let named = [&first["layer"], &first["value"], &first["program"]];
    assert_eq!(named, [layer, value, program], "{model}: {mistake}: {first:#}");
}

#[test]
fn miscompiled_kernels_are_named_at_their_layer() {
    for case in MISTAKES {
        let (model, mistake, layer, _) = case;
        let dtype = if model == "llama" { F32 } else { WeightDtype::Keep };
        let targets: &[&str] = if mistake == "eps" { &["cpu"] } else { &["cpu", "gfx942"] };
        let mut made = Made::new(model, dtype, targets, DecodeForm::Launches);
        let test = made.test();
        let second = layer == "layer.1";
        made.miscompile(mistake, &|function| !second || function == "layer.1");
        let path = made.write(&test);
        found(&json(&run(&path, DeviceKind::Cpu)), case);
        if targets.len() == 1 {
            continue;
        }
        let Some(report) = run_on(&path, "gfx942") else { continue };
        found(&report, case);
    }
}

/// Damage is named by section before anything runs.
#[test]
fn a_damaged_section_is_named() {
    let made = Made::new("llama", F32, &["cpu"], DecodeForm::Launches);
    let path = made.write(&made.test());
    let whole = std::fs::read(&path).expect("it is there");
    let artifact = Artifact::open(&path).expect("it opens");
    let sections: Vec<(String, usize)> = artifact
        .sections()
        .map(|section| (section.name.to_string(), (section.offset + section.bytes / 2) as usize))
        .collect();
    let set = artifact.plan("cpu").expect("a plan").weights;
    let weight = format!("weights.{set}.model.layers.1.mlp.up_proj.weight");
    for kind in ["plan.cpu", "code.cpu", SELF_TEST, &weight] {
        let (name, at) = sections.iter().find(|(name, _)| name == kind).expect("the section");
        let mut damaged = whole.clone();
        damaged[*at] ^= 4;
        std::fs::write(&path, damaged).expect("it is written");
        let artifact = Artifact::open(&path).expect("its header is whole");
        let device = DeviceKind::Cpu.open(Some(1)).expect("a device");
        let error = self_test(&*device, &artifact, &mut |_| {}).expect_err("it is damaged");
        let error = error.to_string();
        assert!(error.starts_with(&format!("section `{name}` of ")), "{error}");
    }
}
