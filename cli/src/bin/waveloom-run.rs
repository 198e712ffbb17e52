//! `waveloom-run`: runs compiled models; no compiler inside.

use clap::Parser;
use std::process::ExitCode;
use waveloom_cli::args::RunnerCli;

fn main() -> ExitCode {
    let cli = RunnerCli::parse();
    waveloom_cli::failure::exit_code(waveloom_cli::runner_command(&cli.command))
}
