//! What the binaries `waveloom` and `waveloom-run` share.
//!
//! In: command lines. Out: calls of the other crates, their results as text or JSON.
//! Never: holds logic; names a crate of the compiler, so that `waveloom-run` links no LLVM.

#![forbid(unsafe_code)]

pub mod args;
pub mod bench;
pub mod devices;
pub mod failure;
pub mod format;
pub mod inspect;
pub mod load;
pub mod output;
pub mod profile;
pub mod report;
pub mod run;
pub mod selftest;

pub use failure::Failure;

/// Runs a command that needs no compiler.
pub fn runner_command(command: &args::RunnerCommand) -> Result<(), Failure> {
    use args::RunnerCommand;
    match command {
        RunnerCommand::Run(args) => run::run(args),
        RunnerCommand::Bench(args) => bench::run(args),
        RunnerCommand::Inspect(args) => inspect::run(args),
        RunnerCommand::Selftest(args) => selftest::run(args),
        RunnerCommand::Devices(args) => devices::run(args),
    }
}
