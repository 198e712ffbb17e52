//! `compile`: a model to an artifact.

use crate::dump::{Dump, Stamp};
use crate::each::PassCheck;
use crate::module;
use crate::opt::PassTiming;
use crate::progress::Progress;
use crate::report::Recorder;
use crate::selftest;
use serde::Serialize;
use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};
use waveloom_cli::args::{CompileArgs, Switch};
use waveloom_cli::output::PendingFile;
use waveloom_cli::{Failure, format, output};
use waveloom_codegen_hip::compile::{
    CHOOSE_TILES, CompileOptions, CompileReport, CompiledTarget, IMPORT, Observer, Source,
    TargetReport, compile, compile_module, find_point,
};
use waveloom_codegen_hip::persistent::UnknownForm;
use waveloom_codegen_hip::resume::{Resume, check_digests, digests};
use waveloom_codegen_hip::{DecodeForm, KernelDump, Target};
use waveloom_frontend::{ImportError, ImportOptions, Imported, import};
use waveloom_ir::Module;
use waveloom_passes::{MemoryPlan, PassError, PassEvent, Schedule, WeightDtype};

/// Compiles a model.
pub fn run(args: &CompileArgs) -> Result<(), Failure> {
    let mut job = Job::new(args)?;
    // The compiler makes a temporary file of its own when it has something to write; this one only
    // finds out early that it could not.
    drop(PendingFile::create(&args.output)?);
    let dump = Dump::new(args, &job.begun.options.targets);
    let targets = job.begun.options.targets.iter().map(|target| target.name().to_string());
    let targets: Vec<String> = targets.collect();
    let recorder = Recorder::new(args.report.as_deref(), targets.iter().cloned())?;
    let progress = Progress::new(args.json);
    let check = PassCheck::new(&args.check);
    let targets = targets.into_iter();
    let self_test = wants_self_test(args, &job.begun)?;
    let mut watcher =
        Watcher { progress, dump, recorder, check, targets, self_test, passes: vec![] };
    let start = Instant::now();
    watcher.phase(IMPORT);
    let imported = job.import(args)?;
    let import_time = start.elapsed();
    if watcher.dump.wants_stamp() {
        watcher.dump.stamp(job.stamp(&imported));
    }
    let source = job.source(&imported)?;
    if source.after == IMPORT {
        watcher.dump.module(IMPORT, &source.module, &watcher.progress);
    }
    watcher.recorder.import(&source.module);
    watcher.check.begin(&source.module);
    if let Some(point) = &args.compile_to {
        let text = job.module_at(point, &source, &imported, &mut watcher);
        watcher.progress.finish();
        let text = text?;
        watcher.dump.finish()?;
        return write_module(args, point, &text);
    }
    let model = imported.info.name.clone();
    let report = compile(source, &job.begun.options, &args.output, &mut watcher);
    watcher.progress.finish();
    let report = report.map_err(|error| watcher.check.compile_failure(error))?;
    watcher.dump.finish()?;
    let time = start.elapsed();
    let import_phase = [(IMPORT.to_string(), import_time)];
    let phases: Vec<_> = import_phase.into_iter().chain(report.phases.iter().cloned()).collect();
    watcher.recorder.finish(&args.output, &phases, time)?;
    let summary = Summary::new(&job, args, model, phases, time, report, watcher.passes);
    if args.json {
        output::write_json(&summary)
    } else if args.print_ir_after.is_some() {
        output::note(summary.text().trim_end());
        Ok(())
    } else {
        output::write(summary.text())
    }
}

/// The dtype of weights that is spelled so.
pub fn weight_dtype(name: &str) -> Result<WeightDtype, Failure> {
    WeightDtype::parse(name).ok_or_else(|| Failure::new(format!("unknown dtype `{name}`")))
}

/// What the command line says of the self-test comes before what a module says.
fn asked_of_self_test(begun: Resume, args: &CompileArgs) -> Resume {
    match args.self_test {
        None => begun,
        Some(switch) => Resume { no_self_test: switch == Switch::Off, ..begun },
    }
}

/// Whether a self-test is made. There is none of synthetic weights: each target makes up its own.
fn wants_self_test(args: &CompileArgs, begun: &Resume) -> Result<bool, Failure> {
    match (args.self_test, begun.synthetic) {
        (Some(Switch::On), Some(_)) => Err(Failure::new(
            "synthetic weights have no self-test: each target makes up weights of its own",
        )),
        (_, synthetic) => Ok(!begun.no_self_test && synthetic.is_none()),
    }
}

/// Writes the module at which a compilation was to stop.
fn write_module(args: &CompileArgs, point: &str, module: &Module) -> Result<(), Failure> {
    PendingFile::create(&args.output)?.finish(|file| write!(file, "{module}"))?;
    let output = args.output.display().to_string();
    if args.json {
        return output::write_json(&serde_json::json!({ "output": output, "after": point }));
    }
    let text = format!("{output}: the module after {point}; `--compile-from` goes on from it\n");
    if args.print_ir_after.is_some() {
        output::note(text.trim_end());
        return Ok(());
    }
    output::write(text)
}

/// What is to be compiled, and from where on.
struct Job {
    /// Where it begins: at the import, or where a module stands.
    begun: Resume,
    /// The module that it goes on from.
    module: Option<Module>,
}

impl Job {
    fn new(args: &CompileArgs) -> Result<Job, Failure> {
        match &args.compile_from {
            None => Job::of_model(args),
            Some(path) => Job::of_module(args, path),
        }
    }

    fn of_model(args: &CompileArgs) -> Result<Job, Failure> {
        let targets = if args.target.is_empty() { &["cpu".to_string()][..] } else { &args.target };
        let options = CompileOptions {
            targets: targets
                .iter()
                .map(|name| Target::from_name(name))
                .collect::<Result<_, _>>()?,
            dtype: weight_dtype(args.dtype.as_deref().unwrap_or("keep"))?,
            decode: decode_form(args.decode.as_deref().unwrap_or("launches"))?,
        };
        let model = args.model.clone().unwrap_or_default();
        let synthetic = args.synthetic_weights;
        let (after, stop_tokens, no_self_test) = (IMPORT, vec![], false);
        let begun = Resume { after, model, options, stop_tokens, synthetic, no_self_test };
        Ok(Job { begun: asked_of_self_test(begun, args), module: None })
    }

    fn of_module(args: &CompileArgs, path: &Path) -> Result<Job, Failure> {
        let module = module::read(path)?;
        let mut begun = Resume::read(&module)
            .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
        if let Some(model) = &args.model {
            begun.model = model.clone();
        }
        if let Some(form) = &args.decode {
            begun.options.decode = decode_form(form)?;
        }
        if !args.target.is_empty() {
            let targets: Result<Vec<Target>, _> =
                args.target.iter().map(|name| Target::from_name(name)).collect();
            let targets = targets?;
            let layouts = Resume::number("choose-layouts");
            if Resume::number(begun.after) >= layouts && targets != begun.options.targets {
                let message = format!(
                    "the module stands after {}, which chose for target {}",
                    begun.after,
                    module.note("target").unwrap_or_default()
                );
                return Err(Failure::new(message)
                    .with_help("for another target go on from a module before choose-layouts"));
            }
            begun.options.targets = targets;
        }
        Ok(Job { begun: asked_of_self_test(begun, args), module: Some(module) })
    }

    /// The model: its weights, and what goes along with them.
    fn import(&mut self, args: &CompileArgs) -> Result<Imported, Failure> {
        let options = ImportOptions {
            max_context: args.max_context,
            config_only: self.begun.synthetic.is_some(),
            ..ImportOptions::default()
        };
        let imported = import(&self.begun.model, options).map_err(failure)?;
        // As it can be found from anywhere.
        self.begun.model = self.begun.model.canonicalize()?;
        match &self.module {
            None => self.begun.stop_tokens = imported.info.stop_tokens.clone(),
            Some(module) => check_digests(module, &imported.weights)?,
        }
        Ok(imported)
    }

    fn stamp(&self, imported: &Imported) -> Stamp {
        let module = self.module.as_ref().unwrap_or(&imported.module);
        let digests = digests(module, &imported.weights);
        Stamp { resume: self.begun.clone(), digests }
    }

    fn source<'a>(&self, imported: &'a Imported) -> Result<Source<'a>, Failure> {
        Ok(Source {
            module: self.module.clone().unwrap_or_else(|| imported.module.clone()),
            after: self.begun.after,
            weights: &imported.weights,
            synthetic: self.begun.synthetic,
            stop_tokens: self.begun.stop_tokens.clone(),
            sections: sections(imported)?,
        })
    }

    /// The module at a point, as it is written.
    fn module_at(
        &self,
        point: &str,
        source: &Source<'_>,
        imported: &Imported,
        watcher: &mut Watcher,
    ) -> Result<Module, Failure> {
        let point = find_point(point)?;
        let after = self.begun.after;
        if Resume::number(point) < Resume::number(after) {
            return Err(Failure::new(format!("the module stands after {after}, beyond {point}")));
        }
        let stamp = self.stamp(imported);
        if point == IMPORT {
            return Ok(stamp.module(&source.module, IMPORT, None));
        }
        let [target] = &self.begun.options.targets[..] else {
            let message = "a module after a pass is for one target, and there are several";
            return Err(Failure::new(message).with_help("name one with `--target`"));
        };
        let module = compile_module(source, target, &self.begun.options, point, watcher)
            .map_err(|error| watcher.check.compile_failure(error))?;
        Ok(stamp.module(&module, point, Some(target)))
    }
}

/// The form of the decode step that is spelled so.
pub fn decode_form(text: &str) -> Result<DecodeForm, Failure> {
    text.parse().map_err(|error: UnknownForm| Failure::new(error.to_string()))
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
        self.dump.kernel(dump, &self.progress);
        self.recorder.kernel(dump);
    }

    fn compiled(&mut self, target: &CompiledTarget) {
        self.dump.compiled(target);
        self.recorder.compiled(target);
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
        job: &Job,
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
            synthetic_weights: job.begun.synthetic,
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
