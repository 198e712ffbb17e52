//! Intermediate forms: the IR after each pass, kernels in each of their forms, for people and for
//! compilations that go on from them.

use crate::progress::Progress;
use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};
use waveloom_cli::args::CompileArgs;
use waveloom_cli::{Failure, output};
use waveloom_codegen_hip::alone::kernel_alone;
use waveloom_codegen_hip::compile::CompiledTarget;
use waveloom_codegen_hip::resume::{Resume, write_digests};
use waveloom_codegen_hip::{KernelDump, Target};
use waveloom_ir::text::print_function;
use waveloom_ir::{Digest, Module};

/// The forms of kernels that can be printed, by the name that they have where passes have theirs.
pub const KERNEL_FORMS: [&str; 4] = ["mlir", "lowered-mlir", "llvm-ir", "assembly"];

/// What is written into modules so that compilations can go on from them.
pub struct Stamp {
    /// Where they come from.
    pub resume: Resume,
    /// Digests of the weights.
    pub digests: Vec<(String, Digest)>,
}

impl Stamp {
    /// The module at a point, for all targets or one.
    pub fn module(&self, module: &Module, after: &'static str, target: Option<&Target>) -> Module {
        let mut resume = Resume { after, ..self.resume.clone() };
        if let Some(target) = target {
            resume.options.targets = vec![target.clone()];
        }
        let mut module = module.clone();
        resume.write(&mut module);
        write_digests(&mut module, &self.digests);
        module
    }
}

/// Shows and keeps what the user wants to see of a compilation.
///
/// The compiler's observer cannot fail for it, so the first failure is kept until the end.
pub struct Dump {
    folder: Option<PathBuf>,
    print_after: Option<String>,
    filter: Filter,
    /// Targets still to come, the next one last.
    targets: Vec<Target>,
    target: Option<Target>,
    stamp: Option<Stamp>,
    failure: Option<Failure>,
}

impl Dump {
    /// `targets` in the order in which they are compiled.
    pub fn new(args: &CompileArgs, targets: &[Target]) -> Dump {
        Dump {
            folder: args.dump_phases_to.clone(),
            print_after: args.print_ir_after.clone(),
            filter: Filter::new(&args.print_ir_filter),
            targets: targets.iter().rev().cloned().collect(),
            target: None,
            stamp: None,
            failure: None,
        }
    }

    /// Whether anything is written to files, for which [`Dump::stamp`] is due.
    pub fn wants_stamp(&self) -> bool {
        self.folder.is_some()
    }

    /// What modules in files carry.
    pub fn stamp(&mut self, stamp: Stamp) {
        self.stamp = Some(stamp);
    }

    /// Whether the forms of kernels are wanted.
    pub fn wants_kernels(&self) -> bool {
        let printed = self.print_after.as_deref();
        let all = printed == Some("all") && !self.filter.names.is_empty();
        self.folder.is_some() || all || printed.is_some_and(|form| KERNEL_FORMS.contains(&form))
    }

    /// The passes for the next target begin.
    pub fn next_target(&mut self) {
        self.target = self.targets.pop();
    }

    /// The module at a point of the compilation.
    pub fn module(&mut self, point: &'static str, module: &Module, progress: &Progress) {
        let wanted = |after: &str| after == "all" || after == point;
        if self.print_after.as_deref().is_some_and(wanted) {
            let text = self.filter.functions(module);
            if !text.is_empty() {
                self.print(&format!("after {point}"), &text, progress);
            }
        }
        let Some(stamp) = self.stamp.as_ref().filter(|_| self.folder.is_some()) else { return };
        let text = stamp.module(module, point, self.target.as_ref()).to_string();
        self.file(&format!("{:02}-{point}.wl", Resume::number(point)), text);
    }

    /// A kernel in its forms.
    pub fn kernel(&mut self, dump: &KernelDump, progress: &Progress) {
        let name = &dump.name;
        let texts = [&dump.mlir, &dump.mlir_lowered, &dump.llvm_ir, &dump.assembly];
        if self.filter.takes(name) {
            for (form, text) in KERNEL_FORMS.iter().zip(texts) {
                let all = !self.filter.names.is_empty();
                let wanted = |after: &str| after == *form || after == "all" && all;
                if self.print_after.as_deref().is_some_and(wanted) {
                    self.print(&format!("{form} of {name}"), text, progress);
                }
            }
        }
        self.file(&format!("kernels/{name}.mlir"), &dump.mlir);
        self.file(&format!("kernels/{name}.ll"), &dump.llvm_ir);
        if dump.object == dump.assembly.as_bytes() {
            return self.file(&format!("kernels/{name}.ptx"), &dump.assembly);
        }
        self.file(&format!("kernels/{name}.s"), &dump.assembly);
        self.file(&format!("kernels/{name}.o"), &dump.object);
    }

    /// A target is complete: how each kernel is launched can be said.
    pub fn compiled(&mut self, compiled: &CompiledTarget) {
        if self.folder.is_none() {
            return;
        }
        for (index, kernel) in compiled.lowered.plan.kernels.iter().enumerate() {
            if let Some(plan) = kernel_alone(compiled, index) {
                self.file(&format!("kernels/{}.json", kernel.name), plan.to_json());
            }
        }
    }

    /// The first failure, if any.
    pub fn finish(mut self) -> Result<(), Failure> {
        let filter = self.filter.unused();
        self.keep(filter);
        self.failure.map_or(Ok(()), Err)
    }

    fn print(&mut self, what: &str, text: &str, progress: &Progress) {
        let target = self.target.iter().map(|target| format!(" for {}", target.name()));
        let title = format!("// {what}{}\n", target.collect::<String>());
        let printed = progress.suspend(|| output::write(format!("{title}{text}\n")));
        self.keep(printed);
    }

    fn file(&mut self, name: &str, content: impl AsRef<[u8]>) {
        let Some(folder) = &self.folder else { return };
        let path = match &self.target {
            Some(target) => folder.join(target.name()).join(name),
            None => folder.join(name),
        };
        let written = match path.parent().map_or(Ok(()), fs::create_dir_all) {
            Ok(()) => fs::write(&path, content),
            Err(error) => Err(error),
        };
        self.keep(written.map_err(|error| cannot_write(&path, error)));
    }

    fn keep(&mut self, result: Result<(), Failure>) {
        if let Err(failure) = result {
            self.failure.get_or_insert(failure);
        }
    }
}

fn cannot_write(path: &Path, error: impl Display) -> Failure {
    Failure::new(format!("cannot write `{}`: {error}", path.display()))
}

/// Which functions and kernels are printed.
struct Filter {
    /// Names, `*` standing for any letters; without any, everything is printed.
    names: Vec<String>,
    /// By name: whether something is called so.
    used: Vec<bool>,
    /// What there was to choose from.
    seen: Vec<String>,
}

impl Filter {
    fn new(names: &[String]) -> Filter {
        Filter { names: names.to_vec(), used: vec![false; names.len()], seen: vec![] }
    }

    /// Whether what is called `name` is printed.
    fn takes(&mut self, name: &str) -> bool {
        if self.names.is_empty() {
            return true;
        }
        if !self.seen.iter().any(|seen| seen == name) {
            self.seen.push(name.to_string());
        }
        let mut takes = false;
        for (pattern, used) in self.names.iter().zip(&mut self.used) {
            let fits = matches(pattern.trim_start_matches('@'), name);
            *used |= fits;
            takes |= fits;
        }
        takes
    }

    /// The text of a module, or of those of its functions that are printed.
    fn functions(&mut self, module: &Module) -> String {
        if self.names.is_empty() {
            return module.to_string();
        }
        let taken = module.functions.iter().filter(|function| self.takes(&function.name));
        taken.map(|function| print_function(module, function)).collect()
    }

    /// A failure where a name is nobody's.
    fn unused(&self) -> Result<(), Failure> {
        match self.names.iter().zip(&self.used).find(|(_, used)| !**used) {
            None => Ok(()),
            Some((name, _)) => {
                let known = self.seen.join(", ");
                let message = format!("no function or kernel that was printed is called `{name}`");
                Err(Failure::new(message).with_help(format!("there are {known}")))
            }
        }
    }
}

/// Whether `name` is what `pattern` says, `*` standing for any letters.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|name| {
            let ends = name.char_indices().map(|(at, _)| at).chain([name.len()]);
            ends.into_iter().any(|at| matches(rest, &name[at..]))
        }),
    }
}
