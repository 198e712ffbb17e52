//! `waveloom`: compiles models, and does all that `waveloom-run` does.

#![forbid(unsafe_code)]

mod compile;
mod dump;
mod each;
mod explain;
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
use waveloom_codegen_hip::compile::points;
use waveloom_passes::{PASSES, WeightDtype};

fn main() -> ExitCode {
    let matches = command().get_matches();
    let cli = CompilerCli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    waveloom_cli::failure::exit_code(run(&cli.command))
}

/// The command line, with the values that only the compiler's crates know.
fn command() -> clap::Command {
    let dtypes = WeightDtype::CONVERTIBLE.iter().map(|dtype| dtype.name());
    let dtypes = PossibleValuesParser::new(["keep"].into_iter().chain(dtypes));
    let (dtypes_again, dtypes_for_opt) = (dtypes.clone(), dtypes.clone());
    let passes = || PASSES.iter().map(|pass| pass.name);
    let print_after = PossibleValuesParser::new(["all"].into_iter().chain(points()));
    let passes = PossibleValuesParser::new(["all"].into_iter().chain(passes()));
    CompilerCli::command()
        .mut_subcommand("compile", |compile| {
            compile
                .mut_arg("target", |arg| arg.value_parser(Target::NAMES.to_vec()))
                .mut_arg("dtype", |arg| arg.value_parser(dtypes))
                .mut_arg("print_ir_after", |arg| arg.value_parser(print_after))
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
        CompilerCommand::Targets(args) => targets::run(args),
        CompilerCommand::ExplainTarget(args) => explain::run(args),
        CompilerCommand::Verify(args) => verify::run(args),
        CompilerCommand::Sign(args) => sign::run(args),
        CompilerCommand::VerifySignature(args) => sign::verify(args),
        CompilerCommand::Runner(command) => waveloom_cli::runner_command(command),
    }
}
