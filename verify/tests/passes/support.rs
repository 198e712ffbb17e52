//! Tiny models, and pipelines that are judged.

use std::path::Path;
use waveloom_frontend::{ImportOptions, import};
use waveloom_ir::Module;
use waveloom_passes::{Pass, PassError, PassOptions, run_table};
use waveloom_verify::passes::{Finding, judge};

/// Every architecture, and weights in blocks.
pub const MODELS: [&str; 7] =
    ["llama", "llama3", "mistral", "qwen2", "qwen3", "gguf/llama.gguf", "gguf/mixed.gguf"];

pub fn model(name: &str) -> Module {
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny");
    let imported = import(&tiny.join(name), ImportOptions::default());
    imported.expect("a fixture can be imported").module
}

/// The first pass of a table that is wrong, if one is.
pub fn first_wrong(
    table: &[Pass],
    module: &Module,
    options: &PassOptions,
) -> Option<(&'static str, Finding)> {
    let mut found = None;
    let run = run_table(table, module.clone(), options, &mut |event| match judge(&event, 0) {
        Ok(()) => Ok(()),
        Err(finding) => {
            let pass = event.pass.name;
            let problem = finding.to_string();
            found = Some((pass, finding));
            Err(PassError::Wrong { pass, problem })
        }
    });
    assert_eq!(run.is_err(), found.is_some(), "{:?}", run.err());
    found
}
