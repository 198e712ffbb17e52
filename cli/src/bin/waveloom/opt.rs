//! `opt`: passes over a module in its text form.

use crate::compile::weight_dtype;
use crate::each::PassCheck;
use crate::module;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Write;
use waveloom_cli::Failure;
use waveloom_cli::args::OptArgs;
use waveloom_cli::output::{self, PendingFile};
use waveloom_codegen_hip::Target;
use waveloom_codegen_hip::compile::CHOOSE_TILES;
use waveloom_codegen_hip::lower_schedule::choose_tiles;
use waveloom_codegen_hip::resume::Resume;
use waveloom_passes::{PASSES, PassEvent, PassOptions, find_pass, run_passes, schedule};

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
    let mut module = module::read(&args.input)?;
    // What a module was dumped for goes for the passes, too.
    let resume = module.note("after").map(|_| Resume::read(&module)).transpose()?;
    let named = args.target.as_ref().map(|name| Target::from_name(name)).transpose()?;
    let dumped = resume.as_ref().and_then(|resume| resume.options.targets.first().cloned());
    let target = named.or(dumped);
    let mut options = pass_options(resume.as_ref(), target.as_ref());
    if let Some(dtype) = &args.dtype {
        options.dtype = weight_dtype(dtype)?;
    }
    let mut timings = vec![];
    let mut check = PassCheck::new(&args.check);
    check.begin(&module);
    check.begin_target(target.as_ref().map(|target| target.name().to_string()));
    for name in names(&args.passes) {
        if name == CHOOSE_TILES {
            let target = target.clone().map_or_else(|| Target::from_name("cpu"), Ok)?;
            let schedule = schedule(&module)?;
            choose_tiles(&mut module, &schedule, &target)?;
        } else {
            module = run_passes([find_pass(name)?], module, &options, &mut |event| {
                timings.push(PassTiming::new(&event));
                check.pass(&event)
            })
            .map_err(|error| check.failure(error))?;
        }
        let before = module.note("after").map(Resume::number);
        if before.is_some_and(|before| before < Resume::number(name)) {
            module.set_note("after", name);
            if let Some(target) = &target {
                module.set_note("target", target.name());
            }
        }
    }
    match &args.output {
        Some(path) => PendingFile::create(path)?.finish(|file| write!(file, "{module}"))?,
        None => output::write(&module)?,
    }
    if args.json { output::write_json(&serde_json::json!({ "passes": timings })) } else { Ok(()) }
}

/// The options of the compilation that a module is from, or those of a model without any.
fn pass_options(resume: Option<&Resume>, target: Option<&Target>) -> PassOptions {
    let layout = target.map(Target::layout).unwrap_or_default();
    let options = PassOptions { layout, ..PassOptions::default() };
    match resume {
        None => options,
        Some(resume) => PassOptions {
            dtype: resume.options.dtype,
            stop_tokens: resume.stop_tokens.clone(),
            ..options
        },
    }
}

/// The passes that were asked for, one by one.
fn names(names: &[String]) -> Vec<&str> {
    let mut passes = vec![];
    for name in names {
        match name.as_str() {
            "all" => passes.extend(PASSES.iter().map(|pass| pass.name)),
            name => passes.push(name),
        }
    }
    passes
}
