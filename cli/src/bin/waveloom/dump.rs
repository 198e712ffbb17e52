//! Intermediate forms for people: the IR after each pass, kernels in each of their forms.

use crate::progress::Progress;
use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};
use waveloom_cli::{Failure, output};
use waveloom_codegen_hip::KernelDump;
use waveloom_ir::Module;

/// Shows and keeps what the user wants to see of a compilation.
///
/// The compiler's observer cannot fail, so the first failure is kept until the end.
pub struct Dump {
    folder: Option<PathBuf>,
    print_after: Option<String>,
    /// Targets still to come, the next one last.
    targets: Vec<String>,
    target: Option<String>,
    passes: usize,
    failure: Option<Failure>,
}

impl Dump {
    /// `targets` in the order in which they are compiled.
    pub fn new(
        folder: Option<&Path>,
        print_after: Option<&str>,
        targets: impl DoubleEndedIterator<Item = String>,
    ) -> Dump {
        Dump {
            folder: folder.map(Path::to_path_buf),
            print_after: print_after.map(str::to_string),
            targets: targets.rev().collect(),
            target: None,
            passes: 0,
            failure: None,
        }
    }

    /// Whether kernels are kept.
    pub fn wants_kernels(&self) -> bool {
        self.folder.is_some()
    }

    /// The passes for the next target begin.
    pub fn next_target(&mut self) {
        self.target = self.targets.pop();
        self.passes = 1;
    }

    /// The module at a point of the compilation.
    pub fn module(&mut self, pass: &str, module: &Module, progress: &Progress) {
        let wanted = |after: &str| after == "all" || after == pass;
        if self.print_after.as_deref().is_some_and(wanted) {
            let target = self.target.iter().map(|target| format!(" for {target}"));
            let title = format!("// after {pass}{}\n", target.collect::<String>());
            let printed = progress.suspend(|| output::write(format!("{title}{module}\n")));
            self.keep(printed);
        }
        self.file(&format!("{:02}-{pass}.wl", self.passes), module);
        self.passes += 1;
    }

    /// A kernel in its forms.
    pub fn kernel(&mut self, dump: &KernelDump) {
        let name = &dump.name;
        let forms = [
            ("mlir", &dump.mlir),
            ("llvm.mlir", &dump.mlir_lowered),
            ("ll", &dump.llvm_ir),
            ("s", &dump.assembly),
        ];
        for (extension, text) in forms {
            self.file(&format!("kernels/{name}.{extension}"), text);
        }
    }

    /// The first failure, if any.
    pub fn finish(self) -> Result<(), Failure> {
        self.failure.map_or(Ok(()), Err)
    }

    fn file(&mut self, name: &str, text: impl Display) {
        let Some(folder) = &self.folder else { return };
        let path = match &self.target {
            Some(target) => folder.join(target).join(name),
            None => folder.join(name),
        };
        let written = match path.parent().map_or(Ok(()), fs::create_dir_all) {
            Ok(()) => fs::write(&path, text.to_string()),
            Err(error) => Err(error),
        };
        self.keep(
            written.map_err(|error| {
                Failure::new(format!("cannot write `{}`: {error}", path.display()))
            }),
        );
    }

    fn keep(&mut self, result: Result<(), Failure>) {
        if let Err(failure) = result {
            self.failure.get_or_insert(failure);
        }
    }
}
