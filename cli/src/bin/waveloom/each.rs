//! Passes watched as they run: `--verify-each` checks each, `--bisect` looks for the rewrite that is wrong,
//! and what makes a pass fail is kept as a small module.

use serde::Serialize;
use std::panic;
use std::path::{Path, PathBuf};
use waveloom_cli::args::CheckArgs;
use waveloom_cli::{Failure, format};
use waveloom_codegen_hip::compile::CompileError;
use waveloom_ir::Module;
use waveloom_passes::{
    MemoryPlan, Pass, PassError, PassEvent, PassOptions, Schedule, Step, WeightDtype, find_pass,
};
use waveloom_verify::Reproducer;
use waveloom_verify::passes::{
    Attempt, Culprit, Finding, bisect, judge, keep, memory, reduce, same_schedule,
};

/// Seed of the inputs.
const SEED: u64 = 0;

/// A pass that is wrong, for programs.
#[derive(Clone, Debug, Serialize)]
pub struct WrongPass {
    pass: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    finding: Option<Finding>,
    /// The first wrong rewrite.
    #[serde(skip_serializing_if = "Option::is_none")]
    rewrite: Option<Culprit>,
    /// The module that shows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    reproducer: Option<PathBuf>,
}

/// Watches passes.
pub struct PassCheck {
    verify: bool,
    bisect: bool,
    folder: PathBuf,
    /// For the command line that shows a fault again.
    target: Option<String>,
    imported: Option<Module>,
    /// What the pass that runs now was given, and the options of those before it.
    last: Option<(Module, PassOptions)>,
    /// What kernels are made for now.
    scheduled: Option<(Module, Schedule)>,
    /// How many runs of passes were right.
    right: u64,
    /// The fault that was looked into.
    wrong: Option<WrongPass>,
}

impl PassCheck {
    /// As the command line says.
    pub fn new(args: &CheckArgs) -> PassCheck {
        let folder = args.reproducer.clone();
        let folder = folder.unwrap_or_else(|| std::env::temp_dir().join("waveloom-reproducer"));
        PassCheck {
            verify: args.verify_each,
            bisect: args.bisect,
            folder,
            target: None,
            imported: None,
            last: None,
            scheduled: None,
            right: 0,
            wrong: None,
        }
    }

    /// How many runs of passes were found right.
    pub fn right(&self) -> u64 {
        self.right
    }

    /// The pass that was found wrong.
    pub fn wrong(&self) -> Option<&WrongPass> {
        self.wrong.as_ref()
    }

    /// Passes begin on this module.
    pub fn begin(&mut self, module: &Module) {
        self.imported = Some(module.clone());
        self.last = None;
    }

    /// Passes begin again on the same module, for this target.
    pub fn begin_target(&mut self, target: Option<String>) {
        self.target = target;
        self.last = None;
    }

    /// After a pass.
    pub fn pass(&mut self, event: &PassEvent<'_>) -> Result<(), PassError> {
        if self.verify
            && let Err(finding) = judge(event, SEED)
        {
            let more = self.look_into(event.pass, event.before, event.options);
            let problem = format!("{finding}{more}");
            if let Some(wrong) = &mut self.wrong {
                wrong.finding = Some(finding);
            }
            return Err(PassError::Wrong { pass: event.pass.name, problem });
        }
        self.right += u64::from(self.verify);
        self.last = Some((event.after.clone(), event.options.clone()));
        Ok(())
    }

    /// After scheduling and memory planning.
    pub fn scheduled(
        &mut self,
        module: &Module,
        schedule: &Schedule,
        plan: &MemoryPlan,
    ) -> Result<(), PassError> {
        self.scheduled = Some((module.clone(), schedule.clone()));
        if !self.verify {
            return Ok(());
        }
        let wrong = |pass: &'static str| {
            move |finding: Finding| PassError::Wrong { pass, problem: finding.to_string() }
        };
        same_schedule(module, schedule).map_err(wrong("schedule"))?;
        memory(module, schedule, plan).map_err(wrong("plan-memory"))
    }

    /// The module after the passes so far.
    pub fn module(&self) -> Option<&Module> {
        self.last.as_ref().map(|(module, _)| module).or(self.imported.as_ref())
    }

    /// What to say of an error; where it is a pass's mistake, with the place of a small module that shows
    /// it.
    pub fn failure(&mut self, error: PassError) -> Failure {
        let culprit = error.culprit().and_then(|name| find_pass(name).ok());
        let (Some(pass), Some(module)) = (culprit, self.module().cloned()) else {
            return error.into();
        };
        if self.wrong.is_some() {
            return error.into();
        }
        let options = self.last.as_ref().map(|(_, options)| options.clone()).unwrap_or_default();
        let more = self.look_into(pass, &module, &options);
        Failure::new(format!("{error}{more}"))
    }

    /// The same of a compilation.
    pub fn compile_failure(&mut self, error: CompileError) -> Failure {
        match error {
            CompileError::Pass(error) => self.failure(error),
            CompileError::Kernel { program, ref step, .. } => {
                let kept = self.keep_kernel(program, step);
                Failure::new(format!("{error}\n{kept}"))
            }
            error => error.into(),
        }
    }

    /// Keeps the op of a kernel that has no code, with inputs; says where.
    fn keep_kernel(&self, program: usize, step: &Step) -> String {
        let Some((module, schedule)) = &self.scheduled else { return String::new() };
        let target = self.target.as_deref().unwrap_or("cpu");
        let path = self.folder.join("kernel.wl");
        let kept = Reproducer::drawn(module, schedule, step, (target, program), SEED)
            .map_err(|error| error.to_string())
            .and_then(|reproducer| {
                std::fs::create_dir_all(&self.folder).map_err(|error| error.to_string())?;
                reproducer.write(&path).map_err(|error| error.to_string())
            });
        match kept {
            Ok(()) => format!("its op is kept: `waveloom verify {}`", path.display()),
            Err(error) => format!("the reproducer could not be kept: {error}"),
        }
    }

    /// Makes the module small, keeps it, and looks for the rewrite; says where and which.
    fn look_into(&mut self, pass: &Pass, before: &Module, options: &PassOptions) -> String {
        let mut wrong =
            WrongPass { pass: pass.name, finding: None, rewrite: None, reproducer: None };
        let attempt = Attempt { pass, options, seed: SEED };
        let (reduced, culprit) = quietly(|| {
            let fault = attempt.run(before).err()?;
            let reduced = reduce(before, &mut |module| {
                attempt.run(module).is_err_and(|other| other.is_like(&fault))
            });
            let culprit = self.bisect.then(|| bisect(&attempt, &reduced));
            Some((Some((fault, reduced)), culprit))
        })
        .unwrap_or_default();
        let mut text = culprit.as_ref().map_or(String::new(), |culprit| format!("\n{culprit}"));
        wrong.rewrite = culprit;
        if let Some((fault, reduced)) = reduced {
            let path = self.folder.join(format!("{}.wl", pass.name));
            let kept =
                std::fs::create_dir_all(&self.folder).map_err(|error| error.to_string()).and_then(
                    |()| keep(&attempt, &fault, &reduced, &path).map_err(|error| error.to_string()),
                );
            text += &match kept {
                Ok(()) => {
                    wrong.reproducer = Some(path.clone());
                    self.how_to_see_it(pass, options, &reduced, &path)
                }
                Err(error) => format!("\nthe reproducer could not be kept: {error}"),
            };
        }
        self.wrong = Some(wrong);
        text
    }

    fn how_to_see_it(
        &self,
        pass: &Pass,
        options: &PassOptions,
        reduced: &Module,
        path: &Path,
    ) -> String {
        let ops: usize = reduced.functions.iter().map(|function| function.insts.len()).sum();
        let target = self.target.as_ref().map_or(String::new(), |t| format!(" --target {t}"));
        let dtype = match options.dtype {
            WeightDtype::Keep => String::new(),
            dtype => format!(" --dtype {dtype}"),
        };
        let (path, pass, ops) = (path.display(), pass.name, format::count(ops as u64, "op"));
        format!(
            "\n{ops} that show it are kept: `waveloom opt {path} --passes {pass}{dtype}{target} \
             --verify-each --bisect`"
        )
    }
}

/// Runs `work` while panics, of which each is an answer, say nothing.
fn quietly<T>(work: impl FnOnce() -> T) -> T {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let result = work();
    panic::set_hook(hook);
    result
}
