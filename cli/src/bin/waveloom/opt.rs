//! `opt`: passes over a module in its text form.

use crate::compile::weight_dtype;
use crate::each::PassCheck;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use waveloom_cli::Failure;
use waveloom_cli::args::OptArgs;
use waveloom_cli::output::{self, PendingFile};
use waveloom_codegen_hip::Target;
use waveloom_ir::Module;
use waveloom_passes::{PASSES, Pass, PassEvent, PassOptions, find_pass, run_passes};

/// What a pass did.
#[derive(Clone, Debug, Serialize)]
pub struct PassTiming {
    name: &'static str,
    seconds: f64,
    /// How often each rewrite was applied.
    rewrites: BTreeMap<String, u64>,
}

impl PassTiming {
    /// What the event says.
    pub fn new(event: &PassEvent<'_>) -> PassTiming {
        PassTiming {
            name: event.pass.name,
            seconds: event.elapsed.as_secs_f64(),
            rewrites: event.report.rewrites.iter().cloned().collect(),
        }
    }
}

/// Runs passes.
pub fn run(args: &OptArgs) -> Result<(), Failure> {
    let input = args.input.display();
    let text = fs::read_to_string(&args.input)
        .map_err(|error| Failure::new(format!("cannot read `{input}`: {error}")))?;
    let module: Module =
        waveloom_ir::parse(&text).map_err(|error| Failure::new(format!("{input}: {error}")))?;
    let mut timings = vec![];
    let mut check = PassCheck::new(&args.check);
    check.begin(&module);
    check.begin_target(Some(args.target.clone()));
    let options = PassOptions {
        dtype: weight_dtype(&args.dtype)?,
        layout: Target::from_name(&args.target)?.layout(),
        ..PassOptions::default()
    };
    let module = run_passes(passes(&args.passes)?, module, &options, &mut |event| {
        timings.push(PassTiming::new(&event));
        check.pass(&event)
    })
    .map_err(|error| check.failure(error))?;
    match &args.output {
        Some(path) => PendingFile::create(path)?.finish(|file| write!(file, "{module}"))?,
        None => output::write(&module)?,
    }
    if args.json { output::write_json(&serde_json::json!({ "passes": timings })) } else { Ok(()) }
}

fn passes(names: &[String]) -> Result<Vec<&'static Pass>, Failure> {
    let mut passes = vec![];
    for name in names {
        match name.as_str() {
            "all" => passes.extend(PASSES),
            name => passes.push(find_pass(name)?),
        }
    }
    Ok(passes)
}
