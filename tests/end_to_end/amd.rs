//! Compiled models on emulated AMD GPUs, through the runtime as it is and the HIP API. HIP looks at
//! its environment once, so each run is a process of its own: this test binary, told what to do.

use crate::golden::{F32, golden};
use crate::support::{
    Compiled, compiled, f32_tensor, file, greedy, relative_error, session, smollm2,
};
use serde::{Deserialize, Serialize};
use std::env;
use std::path::PathBuf;
use std::process::Command;
use waveloom_passes::WeightDtype;
use waveloom_plan::Artifact;
use waveloom_runtime::{DeviceKind, LoadOptions, Session};
use waveloom_tests::{emulator, rocm_with};

/// Every AMD GPU.
const CHIPS: [&str; 6] = ["gfx90a", "gfx942", "gfx950", "gfx1100", "gfx1151", "gfx1201"];

/// Names the job of a process, if it has one.
const JOB: &str = "WAVELOOM_TEST_JOB";

/// Tokens to generate on the GPU of a process.
#[derive(Serialize, Deserialize)]
struct Job {
    artifact: PathBuf,
    prompt: Vec<u32>,
    count: usize,
    /// Where the result goes.
    result: PathBuf,
}

/// What was generated, with the logits that each token was chosen from.
#[derive(Serialize, Deserialize)]
struct Generated {
    tokens: Vec<u32>,
    logits: Vec<Vec<f32>>,
}

/// Not a test by itself: it does a job where the environment names one.
#[test]
fn amd_job() {
    let Ok(job) = env::var(JOB) else { return };
    let job: Job = serde_json::from_str(&job).expect("a job");
    let artifact = Artifact::open(&job.artifact).expect("the artifact opens");
    let options = LoadOptions { device: DeviceKind::Hip(0), ..LoadOptions::default() };
    let mut session = Session::load(&artifact, options).expect("it loads");
    let (tokens, logits) = greedy(&mut session, &job.prompt, job.count);
    let result = serde_json::to_vec(&Generated { tokens, logits }).expect("it serializes");
    std::fs::write(job.result, result).expect("the result is written");
}

/// Greedy tokens of a compiled model on an emulated chip; with `check`, under the emulator's
/// checks, which must find nothing. `None` where there is no emulator.
fn generate(
    chip: &str,
    compiled: &Compiled,
    prompt: &[u32],
    count: usize,
    check: bool,
) -> Option<Generated> {
    let rocm = rocm_with(&emulator()?).expect("a directory");
    let result = rocm.path().join("result.json");
    let job = Job {
        artifact: compiled.path.clone(),
        prompt: prompt.to_vec(),
        count,
        result: result.clone(),
    };
    let output = Command::new(env::current_exe().expect("this test"))
        .args(["--exact", "amd::amd_job", "--nocapture", "--test-threads=1"])
        .env("ROCM_PATH", rocm.path())
        .env("WAVELOOM_EMU_DEVICE", chip)
        .env("WAVELOOM_EMU_CHECK", if check { "1" } else { "0" })
        .env(JOB, serde_json::to_string(&job).expect("it serializes"))
        .output()
        .expect("the process runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("waveloom-emu:"), "{chip}: {said}");
    let result = std::fs::read(result).expect("a result");
    Some(serde_json::from_slice(&result).expect("it parses"))
}

/// Caches and factors of matrix operations are f16 (11 bits): of sums of some hundred products with
/// errors of 2⁻¹² each, in two layers, a logit can be off by some 2⁻⁹ of the largest.
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
        let Some(found) = generate(chip, &all, &prompt, count, true) else { return };
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

/// Factors of the prefill GEMM are f16 where the CPU's activations have 15 bits per block, in all of
/// 30 layers; measured 0.006 to 0.012 of the largest logit.
const SMOLLM2_TOLERANCE: f32 = 2e-2;

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
    let Some(found) = generate(chip, &both, &case.prompt_ids, count, false) else { return };
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
