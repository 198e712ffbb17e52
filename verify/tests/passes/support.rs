//! Tiny models, and pipelines that are judged.

use std::path::Path;
use waveloom_frontend::{ImportOptions, import};
use waveloom_ir::Module;
use waveloom_passes::{PASSES, Pass, PassError, PassOptions, find_pass, run_passes};
use waveloom_verify::passes::{Finding, judge};

/// Every architecture, and weights in blocks.
pub const MODELS: [&str; 7] =
    ["llama", "llama3", "mistral", "qwen2", "qwen3", "gguf/llama.gguf", "gguf/mixed.gguf"];

pub fn model(name: &str) -> Module {
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny");
    let imported = import(&tiny.join(name), ImportOptions::default());
    imported.expect("a fixture can be imported").module
}

/// A pass of the pipeline.
pub fn pass_named(name: &str) -> Pass {
    *find_pass(name).expect("a pass of this name")
}

/// The pipeline with this pass in place of the one of its name.
pub fn table_with(wrong: Pass) -> Vec<Pass> {
    PASSES.iter().map(|pass| if pass.name == wrong.name { wrong } else { *pass }).collect()
}

/// The first pass of a table that is wrong, if one is, with what is wrong and what it was given. Gates
/// are not applied: what is tested need not be a model.
pub fn first_wrong(
    table: &[Pass],
    module: &Module,
    options: &PassOptions,
) -> Option<(&'static str, Finding, Module)> {
    let mut found = None;
    let is_model = module.function("step").is_some();
    let runs = |pass: &&Pass| is_model || pass.name != "wrap-decode-loop";
    let mut check = |event: waveloom_passes::PassEvent<'_>| match judge(&event, 0) {
        Ok(()) => Ok(()),
        Err(finding) => {
            let (pass, problem) = (event.pass.name, finding.to_string());
            found = Some((pass, finding, event.before.clone()));
            Err(PassError::Wrong { pass, problem })
        }
    };
    let run = run_passes(table.iter().filter(runs), module.clone(), options, &mut check);
    assert_eq!(run.is_err(), found.is_some(), "{:?}", run.err());
    found
}
