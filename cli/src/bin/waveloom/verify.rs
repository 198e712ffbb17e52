//! `verify`: every kernel of a model, or one that was kept, against the interpreter.

use crate::compile::{decode_form, failure, sections, weight_dtype};
use crate::each::PassCheck;
use crate::progress::Progress;
use std::path::{Path, PathBuf};
use waveloom_cli::args::{CheckArgs, VerifyArgs};
use waveloom_cli::{Failure, format, output};
use waveloom_codegen_hip::Target;
use waveloom_codegen_hip::compile::{
    CHOOSE_TILES, Clock, CompileOptions, CompiledTarget, IMPORT, Observer, Source,
    compile_schedule, compile_targets, write,
};
use waveloom_codegen_hip::{DecodeForm, KernelDump};
use waveloom_frontend::{ImportOptions, import};
use waveloom_ir::{Module, Numerics, Weights};
use waveloom_passes::{MemoryPlan, PassError, PassEvent, Schedule};
use waveloom_plan::{Artifact, Plan};
use waveloom_runtime::{Device, LoadRequest, LoadedPlan};
use waveloom_verify::{
    Drawn, Failure as WrongKernel, Machine, Options, Report, Reproducer, Subject, Watcher,
    verify as verify_model, verify_reproducer,
};

/// Verifies.
pub fn run(args: &VerifyArgs) -> Result<(), Failure> {
    let report = if is_reproducer(args) { run_again(args)? } else { run_model(args)? };
    if args.json {
        output::write_json(&report)?;
    } else {
        output::write(report.text(format::table))?;
    }
    match report.passed {
        true => Ok(()),
        false => Err(Failure::new(report.conclusion()).with_help(
            "docs/verify.md says how to go on; --reproducer DIR keeps the launch by itself",
        )),
    }
}

/// Whether it is a launch that was kept.
fn is_reproducer(args: &VerifyArgs) -> bool {
    args.model.extension().is_some_and(|extension| extension == "wl")
}

/// Compiles a model to a temporary file and runs it launch by launch.
fn run_model(args: &VerifyArgs) -> Result<Report, Failure> {
    let target = Target::from_name(args.target.as_deref().unwrap_or("cpu"))?;
    let dtype = weight_dtype(&args.dtype)?;
    // Verified is what is run: the cache has no more room than that takes.
    let context = args.tokens.saturating_add(args.steps);
    let import_options =
        ImportOptions { config_only: args.synthetic_weights.is_some(), ..ImportOptions::default() };
    let imported = import(&args.model, import_options).map_err(failure)?;
    let drawn =
        args.synthetic_weights.map(|seed| Drawn::new(&imported.module, &imported.weights, seed));
    let weights: &dyn Weights = match &drawn {
        Some(drawn) => drawn,
        None => &imported.weights,
    };
    let source = Source {
        module: imported.module.clone(),
        weights,
        after: IMPORT,
        synthetic: None,
        stop_tokens: imported.info.stop_tokens.clone(),
        sections: sections(&imported)?,
    };
    let mut watcher = Console::new(args);
    let decode = decode_form(&args.decode)?;
    let options = CompileOptions { targets: vec![target], dtype, decode };
    watcher.check.begin(&source.module);
    watcher.check.begin_target(Some(options.targets[0].name().to_string()));
    let compiled = match compile_targets(&source, &options, &mut watcher) {
        Ok((compiled, _)) => compiled,
        Err(error) => {
            let failure = watcher.check.compile_failure(error);
            if let (true, Some(wrong)) = (args.json, watcher.check.wrong()) {
                output::write_json(&serde_json::json!({ "passed": false, "wrong_pass": wrong }))?;
            }
            return Err(failure);
        }
    };
    let file = TemporaryFile::new()?;
    write(&source, &compiled, &file.path)?;
    let [compiled] = &compiled[..] else { return Err(Failure::new("one target gave no plan")) };
    let run = Run { compiled, weights, file: &file.path, context };
    let options = Options {
        tokens: args.tokens,
        steps: args.steps,
        seed: args.seed,
        launches_per_kernel: args.launches_per_kernel,
    };
    let mut report = run.with(args, |subject, machine, device| {
        Ok(verify_model(subject, machine, &options, device, &mut watcher)?)
    })?;
    report.right_passes = args.bisect.then(|| watcher.check.right());
    Ok(report)
}

/// Compiles and runs a launch that was kept.
fn run_again(args: &VerifyArgs) -> Result<Report, Failure> {
    let reproducer = Reproducer::read(&args.model)?;
    let name = args.target.as_ref().unwrap_or(&reproducer.facts.target);
    let target = Target::from_name(name)?;
    let mut module = reproducer.operation.module.clone();
    if *name != reproducer.facts.target {
        // Tiles are for the target that they were chosen for.
        module.clear_tiles();
    }
    let source = Source {
        module,
        weights: &reproducer.weights,
        after: CHOOSE_TILES,
        synthetic: None,
        stop_tokens: vec![],
        sections: vec![],
    };
    let mut watcher = Console::new(args);
    let (module, schedule) = (source.module.clone(), reproducer.schedule());
    let mut clock = Clock::new(&mut watcher);
    let compiled =
        compile_schedule(&source, module, &schedule, &target, DecodeForm::Launches, &mut clock)?;
    let compiled = vec![compiled];
    let file = TemporaryFile::new()?;
    write(&source, &compiled, &file.path)?;
    let context = reproducer.context();
    let weights = &reproducer.weights;
    let run = Run { compiled: &compiled[0], weights, file: &file.path, context };
    run.with(args, |subject, machine, device| {
        Ok(verify_reproducer(subject, machine, &reproducer, device)?)
    })
}

/// A compiled model in a file, to be loaded.
struct Run<'a> {
    compiled: &'a CompiledTarget,
    weights: &'a dyn Weights,
    file: &'a Path,
    context: u32,
}

impl Run<'_> {
    /// Loads it on the device asked for, and verifies it there.
    fn with(
        &self,
        args: &VerifyArgs,
        verify: impl FnOnce(&Subject<'_>, &mut Machine<'_>, String) -> Result<Report, Failure>,
    ) -> Result<Report, Failure> {
        let kind: waveloom_runtime::DeviceKind = args.device.device.parse()?;
        let device = kind.open(args.device.threads.map(|threads| threads as usize))?;
        let artifact = Artifact::open(self.file)?;
        let plan = device.choose_plan(&artifact)?;
        let mut loaded = load(&*device, &artifact, &plan, self.context)?;
        let lowered = &self.compiled.lowered;
        let numerics: Vec<Numerics> =
            lowered.kernels.iter().map(|kernel| kernel.numerics.clone()).collect();
        let subject = Subject {
            module: &self.compiled.module,
            weights: self.weights,
            plan: &plan,
            origins: &lowered.origins,
            numerics: &numerics,
        };
        let mut symbols: Vec<i64> = plan.symbols.iter().map(|symbol| symbol.min).collect();
        symbols[plan.decode_loop.context] = i64::from(self.context.min(plan.model.max_context));
        let mut machine = Machine { plan: &plan, loaded: &mut *loaded, symbols };
        verify(&subject, &mut machine, device.describe())
    }
}

fn load(
    device: &dyn Device,
    artifact: &Artifact,
    plan: &Plan,
    context: u32,
) -> Result<Box<dyn LoadedPlan>, Failure> {
    let layout = plan.layout(context.min(plan.model.max_context))?;
    let request = LoadRequest { artifact, plan, layout: &layout, progress: &mut |_| {} };
    Ok(device.load(request)?)
}

/// An artifact that goes when it was verified.
struct TemporaryFile {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl TemporaryFile {
    fn new() -> Result<TemporaryFile, Failure> {
        let folder = tempfile::tempdir()
            .map_err(|error| Failure::new(format!("no place for a temporary file: {error}")))?;
        let path = folder.path().join("model.wlm");
        Ok(TemporaryFile { _folder: folder, path })
    }
}

/// Shows how far it is, and keeps reproducers.
struct Console {
    progress: Progress,
    folder: Option<PathBuf>,
    check: PassCheck,
}

impl Console {
    fn new(args: &VerifyArgs) -> Console {
        let folder = args.reproducer.clone();
        // What was kept has no passes before it.
        let bisect = args.bisect && !is_reproducer(args);
        let check = CheckArgs { verify_each: bisect, bisect, reproducer: folder.clone() };
        let check = PassCheck::new(&check);
        Console { progress: Progress::new(args.json), folder, check }
    }
}

impl Observer for Console {
    fn phase(&mut self, name: &str) {
        self.progress.phase(name);
    }
    fn progress(&mut self, done: u64, total: u64) {
        self.progress.set(done, total);
    }
    fn pass(&mut self, event: &PassEvent<'_>) -> Result<(), PassError> {
        self.check.pass(event)
    }
    fn scheduled(
        &mut self,
        module: &Module,
        schedule: &Schedule,
        memory: &MemoryPlan,
    ) -> Result<(), PassError> {
        self.check.scheduled(module, schedule, memory)
    }
    fn kernel(&mut self, _: &KernelDump) {}
    fn wants_kernels(&self) -> bool {
        false
    }
}

impl Watcher for Console {
    fn progress(&mut self, program: &str, done: usize, of: usize) {
        if done == 1 {
            self.progress.phase(program);
        }
        self.progress.set(done as u64, of as u64);
    }

    fn wants_reproducers(&self) -> bool {
        self.folder.is_some()
    }

    fn keep(&mut self, failure: &WrongKernel, reproducer: &Reproducer) -> Option<String> {
        let folder = self.folder.as_ref()?;
        let name = format!("{}-{}-{}.wl", failure.kernel, failure.program, failure.launch);
        let path = folder.join(name);
        let written = std::fs::create_dir_all(folder)
            .map_err(|error| error.to_string())
            .and_then(|()| reproducer.write(&path).map_err(|error| error.to_string()));
        match written {
            Ok(()) => Some(path.display().to_string()),
            Err(error) => {
                output::note(format!("the reproducer could not be kept: {error}"));
                None
            }
        }
    }
}
