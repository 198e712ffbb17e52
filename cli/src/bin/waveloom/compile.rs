//! `compile`: a model to an artifact.

use crate::dump::Dump;
use crate::each::PassCheck;
use crate::opt::PassTiming;
use crate::progress::Progress;
use crate::report::Recorder;
use crate::selftest;
use serde::Serialize;
use std::error::Error;
use std::time::{Duration, Instant};
use waveloom_cli::args::{CompileArgs, Switch};
use waveloom_cli::output::PendingFile;
use waveloom_cli::{Failure, format, output};
use waveloom_codegen_hip::compile::{
    CHOOSE_TILES, CompileOptions, CompileReport, CompiledTarget, IMPORT, Observer, Source,
    TargetReport, compile,
};
use waveloom_codegen_hip::persistent::UnknownForm;
use waveloom_codegen_hip::{KernelDump, Target};
use waveloom_frontend::{ImportError, ImportOptions, Imported, import};
use waveloom_ir::Module;
use waveloom_passes::{MemoryPlan, PassError, PassEvent, Schedule, WeightDtype};

/// Compiles a model.
pub fn run(args: &CompileArgs) -> Result<(), Failure> {
    let options = compile_options(args)?;
    // The compiler makes a temporary file of its own when it has something to write; this one only
    // finds out early that it could not.
    drop(PendingFile::create(&args.output)?);
    let targets = || options.targets.iter().map(|target| target.name().to_string());
    let dump = Dump::new(args.dump_phases_to.as_deref(), args.print_ir_after.as_deref(), targets());
    let recorder = Recorder::new(args.report.as_deref(), targets())?;
    let progress = Progress::new(args.json);
    let check = PassCheck::new(&args.check);
    let names: Vec<String> = targets().collect();
    let targets = names.into_iter();
    let self_test = wants_self_test(args)?;
    let mut watcher =
        Watcher { progress, dump, recorder, check, targets, self_test, passes: vec![] };
    let start = Instant::now();
    watcher.phase(IMPORT);
    let imported = import(&args.model, import_options(args)).map_err(failure)?;
    let import_time = start.elapsed();
    watcher.dump.module(IMPORT, &imported.module, &watcher.progress);
    watcher.recorder.import(&imported.module);
    watcher.check.begin(&imported.module);
    let model = imported.info.name.clone();
    let report =
        compile(source(&imported, args.synthetic_weights)?, &options, &args.output, &mut watcher);
    watcher.progress.finish();
    let report = report.map_err(|error| watcher.check.compile_failure(error))?;
    watcher.dump.finish()?;
    let time = start.elapsed();
    let import_phase = [(IMPORT.to_string(), import_time)];
    let phases: Vec<_> = import_phase.into_iter().chain(report.phases.iter().cloned()).collect();
    watcher.recorder.finish(&args.output, &phases, time)?;
    let summary = Summary::new(args, model, phases, time, report, watcher.passes);
    if args.json {
        output::write_json(&summary)
    } else if args.print_ir_after.is_some() {
        output::note(summary.text().trim_end());
        Ok(())
    } else {
        output::write(summary.text())
    }
}

fn compile_options(args: &CompileArgs) -> Result<CompileOptions, Failure> {
    let targets: Result<Vec<Target>, _> =
        args.target.iter().map(|name| Target::from_name(name)).collect();
    let dtype = weight_dtype(&args.dtype)?;
    let decode =
        args.decode.parse().map_err(|error: UnknownForm| Failure::new(error.to_string()))?;
    Ok(CompileOptions { targets: targets?, dtype, decode })
}

/// The dtype of weights that is spelled so.
pub fn weight_dtype(name: &str) -> Result<WeightDtype, Failure> {
    WeightDtype::parse(name).ok_or_else(|| Failure::new(format!("unknown dtype `{name}`")))
}

/// Whether a self-test is made. There is none of synthetic weights: each target makes up its own.
fn wants_self_test(args: &CompileArgs) -> Result<bool, Failure> {
    match (args.self_test, args.synthetic_weights) {
        (Some(Switch::On), Some(_)) => Err(Failure::new(
            "synthetic weights have no self-test: each target makes up weights of its own",
        )),
        (wanted, synthetic) => Ok(wanted != Some(Switch::Off) && synthetic.is_none()),
    }
}

fn import_options(args: &CompileArgs) -> ImportOptions {
    ImportOptions {
        max_context: args.max_context,
        config_only: args.synthetic_weights.is_some(),
        ..ImportOptions::default()
    }
}

/// The error, with the option that it is about.
pub fn failure(error: ImportError) -> Failure {
    let config_only = matches!(error, ImportError::ConfigOnly { .. });
    let failure = Failure::from(error);
    match config_only {
        true => failure.with_help("`--synthetic-weights SEED` makes weights up"),
        false => failure,
    }
}

fn source(imported: &Imported, synthetic: Option<u64>) -> Result<Source<'_>, Failure> {
    Ok(Source {
        module: imported.module.clone(),
        after: IMPORT,
        weights: &imported.weights,
        synthetic,
        stop_tokens: imported.info.stop_tokens.clone(),
        sections: sections(imported)?,
    })
}

/// What goes along with a model.
pub fn sections(imported: &Imported) -> Result<Vec<(String, Vec<u8>)>, Failure> {
    let mut sections = vec![];
    let texts = [
        ("tokenizer.json", &imported.tokenizer_json),
        ("chat_template.jinja", &imported.chat_template),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            sections.push((name.to_string(), text.clone().into_bytes()));
        }
    }
    let generation = serde_json::to_vec(&imported.generation_config)?;
    sections.push(("generation_config.json".to_string(), generation));
    Ok(sections)
}

/// Passes on what happens to the user.
struct Watcher {
    progress: Progress,
    dump: Dump,
    recorder: Recorder,
    check: PassCheck,
    targets: std::vec::IntoIter<String>,
    self_test: bool,
    passes: Vec<PassTiming>,
}

impl Observer for Watcher {
    fn phase(&mut self, name: &str) {
        if name == "passes" {
            self.dump.next_target();
            self.recorder.next_target();
            let target = self.targets.next();
            self.check.begin_target(target);
        }
        self.progress.phase(name);
    }

    fn progress(&mut self, done: u64, total: u64) {
        self.progress.set(done, total);
    }

    fn pass(&mut self, event: &PassEvent<'_>) -> Result<(), PassError> {
        self.passes.push(PassTiming::new(event));
        self.dump.module(event.pass.name, event.after, &self.progress);
        self.recorder.pass(event);
        self.check.pass(event)
    }

    fn scheduled(
        &mut self,
        module: &Module,
        schedule: &Schedule,
        memory: &MemoryPlan,
    ) -> Result<(), PassError> {
        self.dump.module(CHOOSE_TILES, module, &self.progress);
        self.check.scheduled(module, schedule, memory)
    }

    fn wants_self_test(&self) -> bool {
        self.self_test
    }

    fn self_test(
        &mut self,
        source: &Source<'_>,
        compiled: &[CompiledTarget],
    ) -> Result<Option<Vec<u8>>, Box<dyn Error + Send + Sync>> {
        selftest::make(source, compiled)
    }

    fn kernel(&mut self, dump: &KernelDump) {
        self.dump.kernel(dump);
        self.recorder.kernel(dump);
    }

    fn wants_kernels(&self) -> bool {
        self.dump.wants_kernels() || self.recorder.wants_kernels()
    }
}

/// What was made, and how long it took.
#[derive(Serialize)]
struct Summary {
    model: String,
    output: String,
    file_bytes: u64,
    seconds: f64,
    /// Seed of synthetic weights, which are not in the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    synthetic_weights: Option<u64>,
    phases: Vec<Phase>,
    passes: Vec<PassTiming>,
    targets: Vec<TargetSummary>,
}

#[derive(Serialize)]
struct Phase {
    name: String,
    seconds: f64,
}

#[derive(Serialize)]
struct TargetSummary {
    target: String,
    kernels: usize,
    code_bytes: u64,
    weight_bytes: u64,
    arena_peak: u64,
    arena_lower_bound: u64,
    arena_ratio: f64,
}

impl From<TargetReport> for TargetSummary {
    fn from(report: TargetReport) -> TargetSummary {
        TargetSummary {
            target: report.target,
            kernels: report.kernels,
            code_bytes: report.code_bytes,
            weight_bytes: report.weight_bytes,
            arena_peak: report.memory.arena_peak,
            arena_lower_bound: report.memory.arena_lower_bound,
            arena_ratio: format::ratio(report.memory.arena_peak, report.memory.arena_lower_bound),
        }
    }
}

impl Summary {
    fn new(
        args: &CompileArgs,
        model: String,
        phases: Vec<(String, Duration)>,
        time: Duration,
        report: CompileReport,
        passes: Vec<PassTiming>,
    ) -> Summary {
        Summary {
            model,
            output: args.output.display().to_string(),
            file_bytes: report.file_bytes,
            seconds: time.as_secs_f64(),
            synthetic_weights: args.synthetic_weights,
            phases: phases
                .into_iter()
                .map(|(name, time)| Phase { name, seconds: time.as_secs_f64() })
                .collect(),
            passes,
            targets: report.targets.into_iter().map(TargetSummary::from).collect(),
        }
    }

    fn text(&self) -> String {
        let seconds = |seconds| format::duration(Duration::from_secs_f64(seconds));
        let mut text = format!(
            "{}: {}, {} in {}\n",
            self.output,
            self.model,
            format::bytes(self.file_bytes),
            seconds(self.seconds)
        );
        for target in &self.targets {
            text += &format!(
                "  {}: {} ({}), {}weights {}, activations {} ({:.2} x the lower bound)\n",
                target.target,
                format::count(target.kernels as u64, "kernel"),
                format::bytes(target.code_bytes),
                if self.synthetic_weights.is_some() { "synthetic " } else { "" },
                format::bytes(target.weight_bytes),
                format::bytes(target.arena_peak),
                target.arena_ratio
            );
        }
        let phases =
            self.phases.iter().map(|phase| format!("{} {}", phase.name, seconds(phase.seconds)));
        text + &format!("  {}\n", phases.collect::<Vec<_>>().join(", "))
    }
}
