//! Embeds the compiler in a program: a model directory or GGUF file to an artifact for this machine.
//!
//! `cargo run --release -p waveloom-examples --bin compile_model -- MODEL OUT.wlm`

use std::error::Error;
use std::path::Path;
use waveloom_codegen_hip::compile::{CompileOptions, IMPORT, Observer, Source, compile};
use waveloom_codegen_hip::{DecodeForm, KernelDump, Target};
use waveloom_frontend::{ImportOptions, import};
use waveloom_passes::{PassError, PassEvent, WeightDtype};

/// Prints what happens. An observer could also draw a progress bar, or keep the IR.
struct Log;

impl Observer for Log {
    fn phase(&mut self, name: &str) {
        println!("{name}");
    }
    fn progress(&mut self, _done: u64, _total: u64) {}
    fn pass(&mut self, event: &PassEvent<'_>) -> Result<(), PassError> {
        println!("  {}: {} rewrites", event.pass.name, event.report.total());
        Ok(())
    }
    fn kernel(&mut self, _dump: &KernelDump) {}
    fn wants_kernels(&self) -> bool {
        false
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(model), Some(output)) = (args.next(), args.next()) else {
        return Err("usage: compile_model MODEL OUT.wlm".into());
    };
    let imported = import(Path::new(&model), ImportOptions::default())?;
    // What a runtime needs beside code and weights travels in the artifact, too.
    let mut sections = vec![(
        "generation_config.json".to_string(),
        serde_json::to_vec(&imported.generation_config)?,
    )];
    if let Some(tokenizer) = imported.tokenizer_json {
        sections.push(("tokenizer.json".to_string(), tokenizer.into_bytes()));
    }
    if let Some(template) = imported.chat_template {
        sections.push(("chat_template.jinja".to_string(), template.into_bytes()));
    }
    let source = Source {
        module: imported.module,
        weights: &imported.weights,
        after: IMPORT,
        synthetic: None,
        stop_tokens: imported.info.stop_tokens,
        sections,
    };
    let options = CompileOptions {
        targets: vec![Target::from_name("cpu")?],
        dtype: WeightDtype::Keep,
        decode: DecodeForm::Launches,
    };
    let report = compile(source, &options, Path::new(&output), &mut Log)?;
    for target in &report.targets {
        println!("{}: {} kernels for {}", output, target.kernels, target.target);
    }
    println!("{} bytes", report.file_bytes);
    Ok(())
}
