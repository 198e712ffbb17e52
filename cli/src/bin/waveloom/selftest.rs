//! The self-test that `compile` puts into a file.

use std::error::Error;
use waveloom_codegen_hip::compile::{CompiledTarget, Source};
use waveloom_ir::Numerics;
use waveloom_plan::Plan;
use waveloom_plan::artifact::TOKENIZER;
use waveloom_runtime::Tokenizer;
use waveloom_verify::{Subject, selftest};

/// What every model goes on with, if it goes on with anything.
const TEXT: &str = "The capital of France is";

/// Tokens of a prompt where there is no tokenizer.
const TOKENS: u32 = 6;

/// The section, unless the model takes no two tokens.
pub fn make(
    source: &Source<'_>,
    compiled: &[CompiledTarget],
) -> Result<Option<Vec<u8>>, Box<dyn Error + Send + Sync>> {
    let Some(plan) = compiled.first().map(|target| &target.lowered.plan) else { return Ok(None) };
    let most = plan.model.prefill_chunk.min(plan.model.max_context);
    if most < 2 {
        return Ok(None);
    }
    let (tokens, text) = prompt(source, plan, most)?;
    let numerics: Vec<Vec<Numerics>> = compiled
        .iter()
        .map(|target| target.lowered.kernels.iter().map(|k| k.numerics.clone()).collect())
        .collect();
    let subjects: Vec<Subject<'_>> = compiled
        .iter()
        .zip(&numerics)
        .map(|(target, numerics)| Subject {
            module: &target.module,
            weights: source.weights,
            plan: &target.lowered.plan,
            origins: &target.lowered.origins,
            numerics,
        })
        .collect();
    let test = selftest::self_test(&subjects, &tokens, text)?;
    Ok(Some(test.to_json()))
}

/// The text's tokens, where the model has a tokenizer and they are ones that it takes; else any.
fn prompt(
    source: &Source<'_>,
    plan: &Plan,
    most: u32,
) -> Result<(Vec<u32>, Option<String>), Box<dyn Error + Send + Sync>> {
    let vocab = plan.model.vocab.max(1);
    if let Some((_, json)) = source.sections.iter().find(|(name, _)| name == TOKENIZER) {
        let tokens = Tokenizer::from_json(json)?.encode(TEXT, true)?;
        let fits = (2..=most as usize).contains(&tokens.len());
        if fits && tokens.iter().all(|token| *token < vocab) {
            return Ok((tokens, Some(TEXT.to_string())));
        }
    }
    // Different ones, spread over the vocabulary.
    let token = |index: u32| (u64::from(index) * 0x9e37_79b9 % u64::from(vocab)) as u32;
    Ok(((1..=TOKENS.min(most)).map(token).collect(), None))
}
