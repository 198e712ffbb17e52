//! Tiny random models of every architecture against transformers (`tests/fixtures/tiny/README.md`).

use crate::golden::F32;
use crate::support::session_with_context;
use crate::support::{compiled, f32_tensor, file, greedy, relative_error, session};
use serde::Deserialize;
use waveloom_codegen_hip::Target;
use waveloom_ir::DType;
use waveloom_passes::WeightDtype;
use waveloom_plan::Artifact;

/// As for the real model; two layers lose less.
const F32_TOLERANCE: f32 = 1e-4;

const Q8_0: WeightDtype = WeightDtype::Convert(DType::Q8_0);

#[derive(Deserialize)]
struct Reference {
    prompt: Vec<u32>,
    greedy: Vec<u32>,
}

/// Prompt, greedy continuation, and the logits that each token was chosen from, row after row.
fn reference(name: &str) -> (Reference, Vec<f32>) {
    let path = |extension: &str| file(&format!("fixtures/tiny/{name}.{extension}"));
    let json = std::fs::read_to_string(path("json")).expect("the reference is there");
    let bytes = std::fs::read(path("safetensors")).expect("its logits are there");
    (serde_json::from_str(&json).expect("it parses"), f32_tensor(&bytes, "greedy_logits"))
}

/// The compiled model in f32 gives the reference's logits and greedy tokens, in one chunk.
fn matches_reference(model: &str, reference_name: &str) {
    for target in ["cpu", "cpu-v3"] {
        let (reference, expected) = reference(reference_name);
        let compiled = compiled(&file(&format!("fixtures/tiny/{model}")), F32, target);
        let mut session = session(&compiled, 2);
        let (tokens, logits) = greedy(&mut session, &reference.prompt, reference.greedy.len());
        let error = relative_error(&logits.concat(), &expected);
        assert!(error < F32_TOLERANCE, "{model} on {target}: {error}");
        assert_eq!(tokens, reference.greedy, "{model} on {target}");
    }
}

#[test]
fn llama_from_two_shards() {
    matches_reference("llama", "llama/reference");
}

#[test]
fn llama3_with_scaled_rope_and_tied_head() {
    matches_reference("llama3", "llama3/reference");
}

#[test]
fn mistral_with_a_window_shorter_than_the_prompt() {
    matches_reference("mistral", "mistral/reference");
}

#[test]
fn qwen2_with_biases() {
    matches_reference("qwen2", "qwen2/reference");
}

#[test]
fn qwen3_with_head_norms() {
    matches_reference("qwen3", "qwen3/reference");
}

#[test]
fn gguf_files_give_the_tokens_of_the_same_safetensors() {
    for name in ["llama", "llama3", "qwen2", "qwen3"] {
        let model = |path: &str| file(&format!("fixtures/tiny/{path}"));
        let (reference, _) = reference(&format!("{name}/reference"));
        let run = |path: &str| {
            let mut session = session(&compiled(&model(path), F32, "cpu"), 2);
            greedy(&mut session, &reference.prompt, reference.greedy.len()).0
        };
        assert_eq!(run(&format!("gguf/{name}.gguf")), run(name), "{name}");
    }
}

#[test]
fn a_gguf_of_mixed_quantization_matches_its_expansion() {
    matches_reference("gguf/mixed.gguf", "gguf/mixed.reference");
}

/// Whether this machine runs code for `target`; says so where it does not.
fn runs_here(target: &str) -> bool {
    let host = waveloom_runtime::devices().remove(0).features;
    let needed = Target::from_name(target).expect("a target").requires();
    let runs = needed.iter().all(|feature| host.iter().any(|has| has == feature));
    if !runs {
        println!("skipped: this machine does not run {target}");
    }
    runs
}

/// Every stored form runs on every CPU target, and both targets agree on what they compute: the
/// greedy tokens of tiny random models are not stable under quantization, so this compares logits.
#[test]
fn every_stored_form_runs_on_every_cpu_target() {
    let model = file("fixtures/tiny/llama");
    let (reference, _) = reference("llama/reference");
    for dtype in WeightDtype::CONVERTIBLE {
        let run = |target: &str| {
            let compiled = compiled(&model, WeightDtype::Convert(*dtype), target);
            greedy(&mut session(&compiled, 2), &reference.prompt, 1).1.remove(0)
        };
        let wide = run("cpu");
        let targets = ["cpu-v3", "cpu-v4", "cpu-amx"];
        for target in targets.into_iter().filter(|target| runs_here(target)) {
            // bf16 activations where the host multiplies bf16 pairs, f32 ones elsewhere.
            let error = relative_error(&run(target), &wide);
            assert!(error < 2e-2, "{dtype} on {target}: {error}");
        }
    }
}

/// One file for several processors: those with vectors of one width share the weights, and the plan that
/// is run is the one that uses the most of this machine.
#[test]
fn a_file_for_several_cpus_runs_the_best_plan_for_this_one() {
    let model = file("fixtures/tiny/llama");
    let (reference, _) = reference("llama/reference");
    let names = ["cpu-v3", "cpu-v4", "cpu-amx"];
    let together = compiled(&model, Q8_0, &names.join(","));
    let artifact = Artifact::open(&together.path).expect("it opens");
    let sets = names.map(|name| artifact.plan(name).expect("a plan").weights);
    assert_eq!(sets[1], sets[2]);
    assert_ne!(sets[0], sets[1]);
    let weights = artifact.sections().filter(|section| section.name.starts_with("weights."));
    let each = artifact
        .sections()
        .filter(|section| section.name.starts_with(&format!("weights.{}.", sets[1])));
    assert_eq!(weights.count(), 2 * each.count(), "two sets of weights, not three");
    let best = names.into_iter().rfind(|target| runs_here(target)).expect("one that runs");
    let mut session = session(&together, 2);
    assert_eq!(session.plan().target, best);
    let alone = compiled(&model, Q8_0, best);
    let (tokens, logits) = greedy(&mut session, &reference.prompt, 4);
    assert_eq!(
        greedy(&mut crate::support::session(&alone, 2), &reference.prompt, 4),
        (tokens, logits)
    );
}

/// Prefill gives the same bits however a prompt is cut into chunks, in tiles too.
#[test]
fn chunks_of_a_prompt_do_not_show() {
    let (reference, _) = reference("llama/reference");
    let compiled = compiled(&file("fixtures/tiny/llama"), Q8_0, "cpu");
    let (first, second) = reference.prompt.split_at(reference.prompt.len() / 2);
    let mut whole = session(&compiled, 2);
    whole.prefill(&reference.prompt).expect("it runs");
    let mut cut = session(&compiled, 2);
    cut.prefill(first).expect("it runs");
    cut.prefill(second).expect("it runs");
    assert_eq!(whole.logits().expect("logits"), cut.logits().expect("logits"));
}

/// Caches whose capacity is no multiple of a vector are padded, not overrun.
#[test]
fn any_context_length_gives_the_same_tokens() {
    let (reference, _) = reference("llama/reference");
    let compiled = compiled(&file("fixtures/tiny/llama"), F32, "cpu");
    let needed = (reference.prompt.len() + reference.greedy.len()) as u32;
    for context in needed..needed + 9 {
        let mut session = session_with_context(&compiled, 2, Some(context));
        let (tokens, _) = greedy(&mut session, &reference.prompt, reference.greedy.len());
        assert_eq!(tokens, reference.greedy, "context {context}");
    }
}
