//! Models of which there is only the shape: artifacts without weights, which are made up at load.

use crate::support::{greedy, session_of};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use waveloom_codegen_hip::compile::{
    CompileOptions, CompileReport, IMPORT, Silent, Source, compile,
};
use waveloom_codegen_hip::{DecodeForm, Target};
use waveloom_frontend::{ImportOptions, import};
use waveloom_passes::WeightDtype;
use waveloom_plan::{Artifact, Content};

/// A small Qwen 2: it has norms, biases, and projections whose rows fill no tile of any target.
const TINY: &str = r#"{
    "architectures": ["Qwen2ForCausalLM"],
    "vocab_size": 301, "hidden_size": 96, "intermediate_size": 160, "num_hidden_layers": 2,
    "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 16,
    "max_position_embeddings": 64, "torch_dtype": "float16"
}"#;

const PROMPT: [u32; 5] = [1, 300, 17, 42, 5];

/// Compiles a `config.json` with synthetic weights.
fn compiled(
    config: &Path,
    seed: u64,
    dtype: WeightDtype,
    targets: &str,
    output: &Path,
) -> CompileReport {
    let options = ImportOptions { config_only: true, ..ImportOptions::default() };
    let imported = import(config, options).expect("the configuration imports");
    assert_eq!((imported.tokenizer_json, imported.chat_template), (None, None));
    let source = Source {
        module: imported.module,
        weights: &imported.weights,
        after: IMPORT,
        synthetic: Some(seed),
        stop_tokens: imported.info.stop_tokens,
        sections: vec![],
    };
    let targets = targets.split(',').map(|name| Target::from_name(name).expect("a known target"));
    let options =
        CompileOptions { targets: targets.collect(), dtype, decode: DecodeForm::Launches };
    compile(source, &options, output, &mut Silent).expect("it compiles")
}

/// A directory with the tiny configuration.
fn tiny() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("tiny.json");
    std::fs::write(&config, TINY).expect("it is written");
    (dir, config)
}

/// In every form and for every CPU target: finite logits, the same from the same seed, others from
/// another.
#[test]
fn a_config_alone_runs_with_weights_of_every_dtype() {
    let (dir, config) = tiny();
    let output = dir.path().join("model.wlm");
    let compile = |seed, dtype, target| {
        compiled(&config, seed, dtype, target, &output);
        Artifact::open(&output).expect("the artifact opens")
    };
    let run = |artifact: &Artifact, threads| {
        let mut session = session_of(artifact, threads);
        assert_eq!(session.allocated_bytes(), session.peak_bytes());
        greedy(&mut session, &PROMPT, 6)
    };
    let all = WeightDtype::CONVERTIBLE.iter().map(|dtype| WeightDtype::Convert(*dtype));
    for dtype in all.chain([WeightDtype::Keep]) {
        for target in ["cpu", "cpu-v3"] {
            let artifact = compile(7, dtype, target);
            let (tokens, logits) = run(&artifact, 2);
            let finite = logits.iter().flatten().all(|logit| logit.is_finite());
            assert!(finite, "{dtype} on {target}: {logits:?}");
            // The head multiplies what is normalized by rows of about unit length: logits spread by
            // about 1. Weights that are not there, or far too large, show here.
            let spread = variance(&logits[0]);
            assert!((0.2..5.0).contains(&spread), "{dtype} on {target}: {spread}");
            assert_eq!(run(&artifact, 1), (tokens.clone(), logits), "{dtype} on {target}");
            if target == "cpu" {
                assert_ne!(run(&compile(8, dtype, target), 2).0, tokens, "{dtype}");
            }
        }
    }
}

fn variance(values: &[f32]) -> f32 {
    let mean = values.iter().sum::<f32>() / values.len() as f32;
    values.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / values.len() as f32
}

/// One artifact for several targets has no weights at all; RoPE's frequencies are real.
#[test]
fn an_artifact_with_synthetic_weights_has_none() {
    let (dir, config) = tiny();
    let output = dir.path().join("model.wlm");
    compiled(&config, 3, WeightDtype::Keep, "cpu,cpu-v3", &output);
    let artifact = Artifact::open(&output).expect("the artifact opens");
    let names: Vec<&str> = artifact.sections().map(|section| section.name).collect();
    assert_eq!(names, ["plan.cpu", "code.cpu", "plan.cpu-v3", "code.cpu-v3"]);
    artifact.verify_all().expect("the artifact is whole");
    let plan = artifact.plan("cpu").expect("a plan");
    let synthetic = plan.synthetic.expect("synthetic weights");
    assert_eq!(synthetic.seed, 3);
    // RoPE's frequencies are as they are: the first is 1, eight for heads of 16.
    let given: Vec<&Vec<u8>> = synthetic
        .fills
        .iter()
        .filter_map(|fill| match &fill.content {
            Content::Repeat(bytes) if bytes.len() > 4 => Some(bytes),
            _ => None,
        })
        .collect();
    let [frequencies] = given[..] else { panic!("not one given weight: {given:?}") };
    let frequencies: Vec<f32> =
        frequencies.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let expected = (0..8).map(|i| 10_000f64.powf(f64::from(-i) / 8.0) as f32);
    for (found, expected) in frequencies.iter().zip(expected) {
        assert!((found - expected).abs() <= 1e-6 * expected, "{found} {expected}");
    }
}

/// A model of 8 billion parameters compiles without its 16 GB, from the configuration that ships
/// with the examples.
#[test]
fn a_large_shape_compiles_to_a_small_file() {
    let config =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/configs/Llama-3.1-8B.json");
    let dir = tempfile::tempdir().expect("a directory");
    let output = dir.path().join("model.wlm");
    let start = std::time::Instant::now();
    let report = compiled(&config, 1, WeightDtype::Keep, "cpu", &output);
    println!("{} bytes in {:.1} s", report.file_bytes, start.elapsed().as_secs_f64());
    // 8 030 261 248 parameters of two bytes; norms (65 of 4096) take four, frequencies are ours.
    let norms = 65 * 4096;
    let expected = 2 * (8_030_261_248 - norms) + 4 * norms + 4 * 64;
    assert_eq!(report.targets[0].weight_bytes, expected);
    assert!(report.file_bytes < 4 << 20, "{}", report.file_bytes);
    let plan = Artifact::open(&output).expect("it opens").plan("cpu").expect("a plan");
    assert_eq!(plan.layout(4096).expect("a layout").constants, expected);
}
