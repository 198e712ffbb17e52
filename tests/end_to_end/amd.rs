//! Compiled models on emulated AMD GPUs, through the runtime as it is and the HIP API. HIP looks at
//! its environment once, so each run is a process of its own: this test binary, told what to do.

use crate::golden::{F32, golden};
use crate::support::{
    self, Compiled, compiled, compiled_as, f32_tensor, file, greedy, relative_error, session,
    smollm2,
};
use serde::{Deserialize, Serialize};
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempPath;
use waveloom_codegen_hip::DecodeForm;
use waveloom_ir::DType;
use waveloom_passes::WeightDtype;
use waveloom_plan::artifact::plan_section;
use waveloom_plan::{Artifact, ArtifactInfo, Plan, SamplingParams, Section, write_artifact};
use waveloom_runtime::{DeviceKind, LoadOptions, Session};
use waveloom_tests::{emulator, rocm_with};

/// Every AMD GPU.
const CHIPS: [&str; 6] = ["gfx90a", "gfx942", "gfx950", "gfx1100", "gfx1151", "gfx1201"];

/// Names the job of a process, if it has one.
const JOB: &str = "WAVELOOM_TEST_JOB";

/// Tokens to generate on the GPU of a process.
#[derive(Clone, Serialize, Deserialize)]
struct Job {
    artifact: PathBuf,
    prompt: Vec<u32>,
    count: usize,
    sampling: SamplingParams,
    /// Whether logits are wanted; without them steps are queued ahead.
    logits: bool,
}

/// What was generated, with the logits that each token was chosen from.
#[derive(Serialize, Deserialize)]
struct Generated {
    tokens: Vec<u32>,
    logits: Vec<Vec<f32>>,
}

/// Not a test by itself: it does a job where the environment names one, and leaves the result in the
/// folder that is its ROCm.
#[test]
fn amd_job() {
    let Ok(job) = env::var(JOB) else { return };
    let job: Job = serde_json::from_str(&job).expect("a job");
    let artifact = Artifact::open(&job.artifact).expect("the artifact opens");
    let options = LoadOptions { device: DeviceKind::Hip(0), ..LoadOptions::default() };
    let mut session = Session::load(&artifact, options).expect("it loads");
    let (tokens, logits) =
        support::generate(&mut session, &job.prompt, job.count, job.sampling, job.logits);
    let result = serde_json::to_vec(&Generated { tokens, logits }).expect("it serializes");
    let rocm = env::var_os("ROCM_PATH").expect("a folder");
    std::fs::write(PathBuf::from(rocm).join("result.json"), result).expect("it is written");
}

impl Job {
    /// Greedy tokens with their logits.
    fn greedy(compiled: &Compiled, prompt: &[u32], count: usize) -> Job {
        Job {
            artifact: compiled.path.clone(),
            prompt: prompt.to_vec(),
            count,
            sampling: SamplingParams::GREEDY,
            logits: true,
        }
    }

    /// Does the job on an emulated chip; with `check`, under the emulator's checks, which must find
    /// nothing. `None` where there is no emulator.
    fn run_on(&self, chip: &str, check: bool) -> Option<Generated> {
        let rocm = rocm_with(&emulator()?).expect("a directory");
        let output = Command::new(env::current_exe().expect("this test"))
            .args(["--exact", "amd::amd_job", "--nocapture", "--test-threads=1"])
            .env("ROCM_PATH", rocm.path())
            .env("WAVELOOM_EMU_DEVICE", chip)
            .env("WAVELOOM_EMU_CHECK", if check { "1" } else { "0" })
            .env(JOB, serde_json::to_string(self).expect("it serializes"))
            .output()
            .expect("the process runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !said.contains("waveloom-emu:"), "{chip}: {said}");
        let result = std::fs::read(rocm.path().join("result.json")).expect("a result");
        Some(serde_json::from_slice(&result).expect("it parses"))
    }
}

/// Caches and factors of matrix operations are f16 (11 bits): of sums of some hundred products with
/// errors of 2⁻¹² each, in two layers, a logit can be off by some 2⁻⁸ of the largest; 2e-3 was seen.
const TINY_TOLERANCE: f32 = 4e-3;

#[derive(Deserialize)]
struct Reference {
    prompt: Vec<u32>,
    greedy: Vec<u32>,
}

fn reference(name: &str) -> Reference {
    let path = file(&format!("fixtures/tiny/{name}.json"));
    let json = std::fs::read_to_string(path).expect("the reference is there");
    serde_json::from_str(&json).expect("it parses")
}

/// A tiny model on every chip against the CPU, in weights of `dtype`: prefill by chunks, then
/// decode.
fn agrees_with_the_cpu(model: &str, reference_name: &str, dtype: WeightDtype) {
    let path = file(&format!("fixtures/tiny/{model}"));
    let Reference { prompt, greedy: continuation } = reference(reference_name);
    let count = continuation.len().min(8);
    let (tokens, logits) = {
        let mut session = session(&compiled(&path, dtype, "cpu"), 2);
        greedy(&mut session, &prompt, count)
    };
    let all = compiled(&path, dtype, &CHIPS.join(","));
    for chip in CHIPS {
        let Some(found) = Job::greedy(&all, &prompt, count).run_on(chip, true) else { return };
        for (step, (found, expected)) in found.logits.iter().zip(&logits).enumerate() {
            let error = relative_error(found, expected);
            println!("{model} {dtype:?} on {chip}: step {step}: {error}");
            assert!(error < TINY_TOLERANCE, "{model} on {chip}, step {step}: {error}");
        }
        assert_eq!(found.tokens, tokens, "{model} on {chip}");
    }
}

#[test]
fn llama() {
    agrees_with_the_cpu("llama", "llama/reference", F32);
}

#[test]
fn llama3() {
    agrees_with_the_cpu("llama3", "llama3/reference", F32);
}

#[test]
fn mistral() {
    agrees_with_the_cpu("mistral", "mistral/reference", F32);
}

#[test]
fn qwen2() {
    agrees_with_the_cpu("qwen2", "qwen2/reference", F32);
}

#[test]
fn qwen3() {
    agrees_with_the_cpu("qwen3", "qwen3/reference", F32);
}

#[test]
fn mixed_quantization() {
    agrees_with_the_cpu("gguf/mixed.gguf", "gguf/mixed.reference", WeightDtype::Keep);
}

/// Seeded draws with every filter and penalty, steps queued ahead of the host: the same tokens as on
/// the CPU. A draw is decided by differences in logits far above the tolerance, or the seeds would
/// have to be chosen.
#[test]
fn draws_are_those_of_the_cpu() {
    let path = file("fixtures/tiny/qwen3");
    let Reference { prompt, .. } = reference("qwen3/reference");
    let sampling = SamplingParams {
        temperature: 0.8,
        top_k: 20,
        top_p: 0.95,
        min_p: 0.01,
        seed: 7,
        repetition_penalty: 1.1,
        penalty_last_n: 16,
        ..SamplingParams::GREEDY
    };
    let count = 12;
    let expected = {
        let mut session = session(&compiled(&path, F32, "cpu"), 2);
        support::generate(&mut session, &prompt, count, sampling, false).0
    };
    let all = compiled(&path, F32, &CHIPS.join(","));
    for chip in CHIPS {
        let job = Job { sampling, logits: false, ..Job::greedy(&all, &prompt, count) };
        let Some(found) = job.run_on(chip, true) else { return };
        assert_eq!(found.tokens, expected, "{chip}");
    }
}

/// What can be read off the code of every kernel of every chip, for the real model as stored, in
/// bf16 and in f32.
#[test]
fn the_code_of_every_kernel_is_what_was_planned() {
    let Some(path) = smollm2() else { return };
    for dtype in [WeightDtype::Keep, WeightDtype::Convert(DType::BF16), F32] {
        let compiled = compiled(&path, dtype, &CHIPS.join(","));
        let artifact = Artifact::open(&compiled.path).expect("the artifact opens");
        for chip in CHIPS {
            let code = artifact.code(chip).expect("its code").len();
            assert!(code <= 2 << 20, "{chip}: {code} bytes of code");
            for kernel in artifact.plan(chip).expect("its plan").kernels {
                let what = format!("{chip} {dtype:?}: {}", kernel.name);
                let facts = kernel.facts.expect("facts of a GPU's kernel");
                assert_eq!([facts.spills, facts.private_bytes], [0, 0], "{what}");
                let planned = facts.planned_waves_per_simd;
                assert!(planned >= 1 && facts.waves_per_simd >= planned, "{what}: {facts:?}");
                let Some(hot) = facts.hot_loop else { continue };
                let rdna = chip.starts_with("gfx1");
                let product = kernel.name.starts_with("gemm") || kernel.name.ends_with("prefill");
                if product && !(rdna && dtype == F32 && kernel.name.starts_with("gemm")) {
                    assert!(hot.matrix > 0, "{what}: {hot:?}");
                }
                if hot.wide_loads > 0 && hot.matrix > 0 {
                    assert_eq!(hot.full_waits, 0, "{what}: {hot:?}");
                }
                if kernel.name.starts_with("gemv") {
                    assert_eq!(hot.narrow_loads, 0, "{what}: {hot:?}");
                }
            }
        }
    }
}

/// The artifact with a plan that says nothing of a persistent step: the same kernels, launch by
/// launch.
fn without_persistent(path: &Path, targets: &[&str]) -> TempPath {
    let artifact = Artifact::open(path).expect("the artifact opens");
    let manifest = artifact.manifest();
    let info = ArtifactInfo {
        compiler: manifest.compiler.clone(),
        model: manifest.model.clone(),
        targets: artifact.targets().to_vec(),
    };
    let names: Vec<String> = artifact.sections().map(|section| section.name.to_string()).collect();
    let names = names.into_iter().filter(|name| !name.starts_with("padding."));
    let sections = names.map(|name| match targets.iter().find(|t| plan_section(t) == name) {
        Some(target) => {
            let plan = artifact.plan(target).expect("its plan");
            let plan = Plan { persistent: None, ..plan };
            Section::from_bytes(name, plan.to_json())
        }
        None => {
            let bytes = artifact.section(&name).expect("its bytes").to_vec();
            Section::from_bytes(name, bytes)
        }
    });
    let output = tempfile::NamedTempFile::new().expect("a file").into_temp_path();
    write_artifact(&output, &info, sections.collect()).expect("it is written");
    output
}

/// Scalar registers that the persistent kernel may keep in lanes of a vector register (it has no private
/// memory, so none is in memory). LLVM moves constants of all bodies out of the loop around them, more
/// than there are registers for; what it spills instead is the loop's own state, which is used once
/// for each record and never inside of a body's loops. 9 were seen.
const SCALAR_SPILLS: u32 = 12;

/// The decode step as one persistent kernel gives what its launches give, to the bit, under the
/// emulator's checks; `streams` of it, so that each runs several parts of a launch.
fn persistent_is_launch_by_launch(model: &str, reference_name: &str, dtype: WeightDtype) {
    let path = file(&format!("fixtures/tiny/{model}"));
    let Reference { prompt, greedy } = reference(reference_name);
    let count = greedy.len().min(6);
    for streams in [Some(3), None] {
        let decode = DecodeForm::Persistent(streams);
        let chips = ["gfx942", "gfx1100"];
        let compiled = compiled_as(&path, dtype, &chips.join(","), decode);
        let apart = without_persistent(&compiled.path, &chips);
        for chip in chips {
            let artifact = Artifact::open(&compiled.path).expect("the artifact opens");
            let plan = artifact.plan(chip).expect("its plan");
            let step = plan.persistent.as_ref().expect("a persistent step");
            let facts = plan.kernels[step.kernel].facts.as_ref().expect("facts");
            println!("{model} on {chip}: {} streams: {facts:?}", step.streams.len());
            assert_eq!(facts.private_bytes, 0, "{chip}: {facts:?}");
            assert!(facts.spills <= SCALAR_SPILLS, "{chip}: {facts:?}");
            let job = Job::greedy(&compiled, &prompt, count);
            let apart = Job { artifact: apart.to_path_buf(), ..job.clone() };
            let Some(expected) = apart.run_on(chip, true) else { return };
            let Some(found) = job.run_on(chip, true) else { return };
            assert_eq!(found.tokens, expected.tokens, "{model} on {chip}");
            assert_eq!(found.logits, expected.logits, "{model} on {chip}");
        }
    }
}

#[test]
fn persistent_llama() {
    persistent_is_launch_by_launch("llama", "llama/reference", F32);
}

#[test]
fn persistent_mixed_quantization() {
    persistent_is_launch_by_launch("gguf/mixed.gguf", "gguf/mixed.reference", WeightDtype::Keep);
}

#[test]
fn persistent_qwen3() {
    persistent_is_launch_by_launch("qwen3", "qwen3/reference", F32);
}

/// As above, against f32; the larger sums of the larger model average more: 1.4e-3 was seen.
const SMOLLM2_TOLERANCE: f32 = 4e-3;

/// The real model, its quantization as stored: prefill on matrix operations, decode, sampling on
/// the device, graphs: all as it would run on a card.
fn smollm2_on(chip: &str) {
    let Some(path) = smollm2() else { return };
    let case = golden().cases.into_iter().find(|case| case.name == "france").expect("the case");
    let count = 8;
    let expected = {
        let mut session = session(&compiled(&path, WeightDtype::Keep, "cpu"), 2);
        greedy(&mut session, &case.prompt_ids, count).0
    };
    let both = compiled(&path, WeightDtype::Keep, "gfx942,gfx1100");
    let job = Job::greedy(&both, &case.prompt_ids, count);
    let Some(found) = job.run_on(chip, false) else { return };
    assert_eq!(found.tokens, expected, "{chip}");
    let bytes =
        std::fs::read(file("golden/france-logits-first8.safetensors")).expect("it is there");
    let reference = f32_tensor(&bytes, "logits");
    for (step, logits) in found.logits.iter().enumerate() {
        let error = relative_error(logits, &reference[step * logits.len()..][..logits.len()]);
        println!("{chip}: step {step}: {error}");
        assert!(error < SMOLLM2_TOLERANCE, "{chip}, step {step}: {error}");
    }
}

#[test]
fn smollm2_on_gfx942() {
    smollm2_on("gfx942");
}

#[test]
fn smollm2_on_gfx1100() {
    smollm2_on("gfx1100");
}

/// The real model: a stream on every compute unit, some hundred and fifty launches in each step.
#[test]
fn persistent_smollm2_on_gfx942() {
    let Some(path) = smollm2() else { return };
    let case = golden().cases.into_iter().find(|case| case.name == "france").expect("the case");
    let decode = DecodeForm::Persistent(None);
    let compiled = compiled_as(&path, WeightDtype::Keep, "gfx942", decode);
    let artifact = Artifact::open(&compiled.path).expect("the artifact opens");
    let step = artifact.plan("gfx942").expect("its plan").persistent.expect("a persistent step");
    assert_eq!(step.streams.len(), 304);
    let count = 4;
    let job = Job::greedy(&compiled, &case.prompt_ids, count);
    let apart = without_persistent(&compiled.path, &["gfx942"]);
    let apart = Job { artifact: apart.to_path_buf(), ..job.clone() };
    let Some(expected) = apart.run_on("gfx942", false) else { return };
    let Some(found) = job.run_on("gfx942", false) else { return };
    assert_eq!(found.tokens, expected.tokens);
    assert_eq!(found.logits, expected.logits);
}
