//! SmolLM2-135M against the reference implementation (`tests/golden/README.md`).

use crate::support::{compiled, f32_tensor, file, greedy, relative_error, session, smollm2};
use serde::Deserialize;
use std::time::Duration;
use waveloom_ir::DType;
use waveloom_passes::WeightDtype;

/// Weights as f32.
pub const F32: WeightDtype = WeightDtype::Convert(DType::F32);

/// f32 against f32 with sums in another order: 30 layers of sums of up to 1536 products lose some
/// five of 24 bits.
const F32_TOLERANCE: f32 = 1e-4;

/// `tests/golden/smollm2-135m.json`.
#[derive(Deserialize)]
pub struct Golden {
    pub cases: Vec<Case>,
}

/// One prompt and its greedy continuation.
#[derive(Deserialize)]
pub struct Case {
    pub name: String,
    pub prompt_ids: Vec<u32>,
    pub greedy_ids: Vec<u32>,
    pub top16: Vec<Vec<(u32, f32)>>,
}

/// The reference.
pub fn golden() -> Golden {
    let text = std::fs::read_to_string(file("golden/smollm2-135m.json")).expect("it is there");
    serde_json::from_str(&text).expect("it parses")
}

#[test]
fn f32_greedy_tokens_and_top_logits_are_the_reference_implementations() {
    let Some(path) = smollm2() else { return };
    let mut session = session(&compiled(&path, F32, "cpu"), 2);
    for case in golden().cases {
        let (tokens, logits) = greedy(&mut session, &case.prompt_ids, case.greedy_ids.len());
        assert_eq!(tokens, case.greedy_ids, "{}", case.name);
        for (position, top) in case.top16.iter().enumerate() {
            let found: Vec<f32> =
                top.iter().map(|(id, _)| logits[position][*id as usize]).collect();
            let reference: Vec<f32> = top.iter().map(|(_, logit)| *logit).collect();
            let error = relative_error(&found, &reference);
            assert!(error < F32_TOLERANCE, "{}, token {position}: {error}", case.name);
        }
    }
}

#[test]
fn f32_logits_are_the_reference_implementations() {
    let Some(path) = smollm2() else { return };
    let mut session = session(&compiled(&path, F32, "cpu"), 2);
    let bytes =
        std::fs::read(file("golden/france-logits-first8.safetensors")).expect("it is there");
    let reference = f32_tensor(&bytes, "logits");
    let case = golden().cases.into_iter().find(|case| case.name == "france").expect("the case");
    let (_, logits) = greedy(&mut session, &case.prompt_ids, 8);
    let error = relative_error(&logits.concat(), &reference);
    println!("largest difference over the largest logit: {error:e}");
    assert!(error < F32_TOLERANCE, "{error}");
}

#[test]
fn f32_is_bit_equal_for_any_number_of_threads() {
    let Some(path) = smollm2() else { return };
    let compiled = compiled(&path, F32, "cpu");
    let case = &golden().cases[0];
    let one = greedy(&mut session(&compiled, 1), &case.prompt_ids, 8);
    for threads in [2, 4] {
        assert!(greedy(&mut session(&compiled, threads), &case.prompt_ids, 8) == one, "{threads}");
    }
}

#[test]
fn the_model_as_stored_compiles_quickly_into_a_tight_arena() {
    let Some(path) = smollm2() else { return };
    let compiled = compiled(&path, WeightDtype::Keep, "cpu");
    let total: Duration = compiled.report.phases.iter().map(|(_, time)| *time).sum();
    println!("compiled in {total:?}: {:?}", compiled.report.phases);
    assert!(total < Duration::from_secs(5), "{total:?}");
    let memory = &compiled.report.targets[0].memory;
    assert!(memory.arena_peak as f64 <= 1.10 * memory.arena_lower_bound as f64, "{memory:?}");
}
