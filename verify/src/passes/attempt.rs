//! A pass run once more: as a whole, or as far as so many rewrites go.

use super::finding::Finding;
use super::judge;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use waveloom_ir::Module;
use waveloom_passes::{Pass, PassError, PassOptions, PassReport, run_passes};

/// How a pass went wrong.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It changed what the module computes.
    Wrong(Finding),
    /// It gave no module, or no valid one.
    Failed(PassError),
}

impl Fault {
    /// Whether another fault is of the same kind; one that is not may have another cause.
    pub fn is_like(&self, other: &Fault) -> bool {
        match (self, other) {
            (Fault::Wrong(a), Fault::Wrong(b)) => {
                std::mem::discriminant(a) == std::mem::discriminant(b)
            }
            (Fault::Failed(a), Fault::Failed(b)) => {
                std::mem::discriminant(a) == std::mem::discriminant(b)
            }
            (Fault::Wrong(_) | Fault::Failed(_), _) => false,
        }
    }

    /// The function that it is about, if it says so.
    pub fn function(&self) -> Option<&str> {
        match self {
            Fault::Wrong(finding) => finding.function(),
            Fault::Failed(PassError::Infer { function, .. }) => Some(function),
            Fault::Failed(_) => None,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Wrong(finding) => finding.fmt(f),
            Fault::Failed(error) => error.fmt(f),
        }
    }
}

/// A pass and what it is given.
#[derive(Clone, Copy)]
pub struct Attempt<'a> {
    /// The pass.
    pub pass: &'a Pass,
    /// What is asked of it.
    pub options: &'a PassOptions,
    /// Of the inputs on which it is judged.
    pub seed: u64,
}

/// What a pass made.
pub struct Made {
    /// The module.
    pub module: Module,
    /// What was applied.
    pub report: PassReport,
}

impl Attempt<'_> {
    /// Runs the pass on a module and judges the result.
    pub fn run(&self, before: &Module) -> Result<Made, Fault> {
        self.run_up_to(before, None)
    }

    /// The same with at most so many rewrites.
    pub fn run_up_to(&self, before: &Module, rewrites: Option<u64>) -> Result<Made, Fault> {
        let mut made = None;
        let mut found = None;
        let options = self.limited(rewrites);
        let run = run_passes([self.pass], before.clone(), &options, &mut |event| {
            made = Some(event.report.clone());
            found = judge(&event, self.seed).err();
            Ok(())
        });
        match (run, found) {
            (Err(error), _) => Err(Fault::Failed(error)),
            (Ok(_), Some(finding)) => Err(Fault::Wrong(finding)),
            (Ok(module), None) => Ok(Made { module, report: made.unwrap_or_default() }),
        }
    }

    /// What the pass gives, valid or not, if it gives anything.
    pub fn unjudged(&self, before: &Module, rewrites: Option<u64>) -> Option<(Module, PassReport)> {
        let options = self.limited(rewrites);
        // What the pass was at work on is dropped with it.
        catch_unwind(AssertUnwindSafe(|| (self.pass.run)(before.clone(), &options))).ok()?.ok()
    }

    fn limited(&self, rewrites: Option<u64>) -> PassOptions {
        let mut options = self.options.clone();
        options.rules.max_rewrites = rewrites;
        options
    }
}
