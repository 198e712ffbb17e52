//! `waveloom`: compiles models, and does all that `waveloom-run` does.

#![forbid(unsafe_code)]

mod bench_kernel;
mod compile;
mod diff;
mod dump;
mod each;
mod explain;
mod module;
mod opt;
mod progress;
mod report;
mod selftest;
mod sign;
mod targets;
mod verify;

use clap::builder::PossibleValuesParser;
use clap::{CommandFactory, FromArgMatches};
use std::process::ExitCode;
use waveloom_cli::Failure;
use waveloom_cli::args::{CompilerCli, CompilerCommand};
use waveloom_codegen_hip::Target;
use waveloom_codegen_hip::compile::{CHOOSE_TILES, points};
use waveloom_passes::{PASSES, WeightDtype};

fn main() -> ExitCode {
    let matches = command().get_matches();
    let cli = CompilerCli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match &cli.command {
        CompilerCommand::Diff(args) => diff::exit_code(diff::run(args)),
        command => waveloom_cli::failure::exit_code(run(command)),
    }
}

/// The command line, with the values that only the compiler's crates know.
fn command() -> clap::Command {
    let dtypes = WeightDtype::CONVERTIBLE.iter().map(|dtype| dtype.name());
    let dtypes = PossibleValuesParser::new(["keep"].into_iter().chain(dtypes));
    let (dtypes_again, dtypes_for_opt) = (dtypes.clone(), dtypes.clone());
    let passes = || PASSES.iter().map(|pass| pass.name);
    let forms = dump::KERNEL_FORMS;
    let print_after = PossibleValuesParser::new(["all"].into_iter().chain(points()).chain(forms));
    let compile_to = PossibleValuesParser::new(points());
    let passes = ["all"].into_iter().chain(passes()).chain([CHOOSE_TILES]);
    let passes = PossibleValuesParser::new(passes);
    CompilerCli::command()
        .mut_subcommand("compile", |compile| {
            compile
                .mut_arg("target", |arg| arg.value_parser(Target::NAMES.to_vec()))
                .mut_arg("dtype", |arg| arg.value_parser(dtypes))
                .mut_arg("print_ir_after", |arg| arg.value_parser(print_after))
                .mut_arg("compile_to", |arg| arg.value_parser(compile_to))
        })
        .mut_subcommand("verify", |verify| {
            verify
                .mut_arg("target", |arg| arg.value_parser(Target::NAMES.to_vec()))
                .mut_arg("dtype", |arg| arg.value_parser(dtypes_again))
        })
        .mut_subcommand("opt", |opt| {
            opt.mut_arg("passes", |arg| arg.value_parser(passes))
                .mut_arg("target", |arg| arg.value_parser(Target::NAMES.to_vec()))
                .mut_arg("dtype", |arg| arg.value_parser(dtypes_for_opt))
        })
}

fn run(command: &CompilerCommand) -> Result<(), Failure> {
    match command {
        CompilerCommand::Compile(args) => compile::run(args),
        CompilerCommand::Opt(args) => opt::run(args),
        CompilerCommand::BenchKernel(args) => bench_kernel::run(args),
        CompilerCommand::Diff(args) => diff::run(args).map(drop),
        CompilerCommand::Targets(args) => targets::run(args),
        CompilerCommand::ExplainTarget(args) => explain::run(args),
        CompilerCommand::Verify(args) => verify::run(args),
        CompilerCommand::Sign(args) => sign::run(args),
        CompilerCommand::VerifySignature(args) => sign::verify(args),
        CompilerCommand::Runner(command) => waveloom_cli::runner_command(command),
    }
}
