//! The command lines. Plain data: those of the compiler's subcommands are here too, so that one
//! test sees every spelling without linking the compiler.

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Runs compiled transformer models
#[derive(Debug, Parser)]
#[command(name = "waveloom-run", version)]
pub struct RunnerCli {
    /// What to do.
    #[command(subcommand)]
    pub command: RunnerCommand,
}

/// What needs no compiler.
#[derive(Debug, Subcommand)]
pub enum RunnerCommand {
    /// Generate text with a compiled model
    Run(RunArgs),
    /// Measure loading, prefill and decode of a compiled model
    Bench(BenchArgs),
    /// Show what is inside a compiled model
    Inspect(InspectArgs),
    /// Run a compiled model's own test on a device: is every layer what the compiler expected?
    Selftest(SelfTestArgs),
    /// List the devices of this machine
    Devices(ListArgs),
}

/// Compiles transformer models ahead of time into one file, and runs it
#[derive(Debug, Parser)]
#[command(name = "waveloom", version)]
pub struct CompilerCli {
    /// What to do.
    #[command(subcommand)]
    pub command: CompilerCommand,
}

/// Everything.
#[derive(Debug, Subcommand)]
pub enum CompilerCommand {
    /// Compile a model into one file
    Compile(CompileArgs),
    /// Run passes on a module in its text form
    Opt(OptArgs),
    /// Run one kernel of a dump, edited or not, and measure it against the roofline
    BenchKernel(BenchKernelArgs),
    /// Say in words what changed between two modules or two compiled files; the exit code is 0 where
    /// nothing did, 1 where something did, 2 where they cannot be compared
    Diff(DiffArgs),
    /// List the targets that models can be compiled for
    Targets(ListArgs),
    /// Say what a target does with a model: what runs natively, what falls back and why, memory, time
    ExplainTarget(ExplainArgs),
    /// Check every kernel of a model against the interpreter, on a device
    Verify(VerifyArgs),
    /// Sign a file with a private key, in the OpenSSF Model Signing format
    Sign(SignArgs),
    /// Check a file against its signature and a public key
    VerifySignature(VerifySignatureArgs),
    /// What the runner does, too.
    #[command(flatten)]
    Runner(RunnerCommand),
}

/// `compile`.
#[derive(Debug, Args)]
pub struct CompileArgs {
    /// Directory with config.json and *.safetensors, or a .gguf file; with --synthetic-weights a
    /// config.json
    #[arg(required_unless_present = "compile_from")]
    pub model: Option<PathBuf>,
    /// File to write
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Targets, separated by commas; `waveloom targets` lists them [default: cpu]
    #[arg(long, value_name = "TARGETS", value_delimiter = ',')]
    pub target: Vec<String>,
    /// Dtype of matrix weights [default: keep]
    #[arg(long)]
    pub dtype: Option<String>,
    /// How the decode step runs on GPUs: launches, overlapping (each begins before the one ahead of it
    /// has ended, where the chip can do that), persistent (one kernel that stays on every compute unit)
    /// or persistent:N (on N of them) [default: launches]
    #[arg(long, value_name = "FORM")]
    pub decode: Option<String>,
    /// Largest context length that can be asked for when the file is run
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_context: Option<u32>,
    /// Take the model's shapes from its config.json, and random weights of this seed, which are made
    /// up when the file is loaded: for measuring speed and memory without the model
    #[arg(long, value_name = "SEED")]
    pub synthetic_weights: Option<u64>,
    /// Stop after this pass and write the module as text (.wl), from which --compile-from goes on
    #[arg(long, value_name = "PASS", conflicts_with = "report")]
    pub compile_to: Option<String>,
    /// Go on from a module that --compile-to or --dump-phases-to wrote, edited or not; MODEL is then
    /// where its weights are, if they are no longer where they were
    #[arg(long, value_name = "FILE.wl",
        conflicts_with_all = ["dtype", "max_context", "synthetic_weights"])]
    pub compile_from: Option<PathBuf>,
    /// Write the IR after each pass, and each kernel in each of its forms, to this directory
    #[arg(long, value_name = "DIR")]
    pub dump_phases_to: Option<PathBuf>,
    /// Print the IR after this pass or after `all`, or kernels in this form; the summary then goes
    /// to standard error
    #[arg(long, value_name = "PASS", conflicts_with = "json")]
    pub print_ir_after: Option<String>,
    /// Print these functions and kernels only: names separated by commas, with * for any letters;
    /// `--print-ir-after all` then prints the kernels among them in every form
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "print_ir_after")]
    pub print_ir_filter: Vec<String>,
    /// Write a page for a browser about the file and how it was made; as JSON where the name ends so
    #[arg(long, value_name = "OUT")]
    pub report: Option<PathBuf>,
    /// How passes are checked.
    #[command(flatten)]
    pub check: CheckArgs,
    /// Put a self-test into the file, for `selftest`: what each layer must compute for a short prompt
    /// [default: on, where the file has weights]
    #[arg(long, value_name = "SWITCH")]
    pub self_test: Option<Switch>,
    /// Print the summary as one JSON object, and no progress
    #[arg(long)]
    pub json: bool,
}

/// How passes are checked.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Interpret the module before and after each pass on random inputs, and stop at the first pass that
    /// changed what it computes
    #[arg(long)]
    pub verify_each: bool,
    /// Name the first rewrite of that pass that is wrong
    #[arg(long, requires = "verify_each")]
    pub bisect: bool,
    /// Keep what shows the fault of a pass in this directory, as a small module with its inputs
    /// [default: waveloom-reproducer in the system's temporary directory]
    #[arg(long, value_name = "DIR")]
    pub reproducer: Option<PathBuf>,
}

/// `explain-target`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Directory with config.json and *.safetensors, a .gguf file, or a config.json alone
    pub model: PathBuf,
    /// Target; `waveloom targets` lists them
    #[arg(long, value_name = "TARGET", default_value = "cpu")]
    pub target: String,
    /// Dtype of matrix weights
    #[arg(long, default_value = "keep")]
    pub dtype: String,
    /// Largest context length that can be asked for
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_context: Option<u32>,
    /// Numbers of sequences at a time to give the memory of, separated by commas
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "1,4,16",
        value_parser = clap::value_parser!(u64).range(1..))]
    pub batch: Vec<u64>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Whether something is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Switch {
    /// It is.
    On,
    /// It is not.
    Off,
}

/// `selftest`.
#[derive(Debug, Args)]
pub struct SelfTestArgs {
    /// Compiled model
    pub file: PathBuf,
    /// Where to run.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `opt`.
#[derive(Debug, Args)]
pub struct OptArgs {
    /// Module in its text form
    pub input: PathBuf,
    /// Passes to run in this order, separated by commas, or `all` for the whole pipeline
    #[arg(long, value_name = "PASSES", value_delimiter = ',', required = true)]
    pub passes: Vec<String>,
    /// File to write, instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Dtype of matrix weights [default: what the module was dumped for, or keep]
    #[arg(long)]
    pub dtype: Option<String>,
    /// Target whose layouts and tiles are chosen [default: what the module was dumped for, or cpu]
    #[arg(long, value_name = "TARGET")]
    pub target: Option<String>,
    /// How passes are checked.
    #[command(flatten)]
    pub check: CheckArgs,
    /// Print what each pass did as one JSON object
    #[arg(long, requires = "output")]
    pub json: bool,
}

/// `verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Directory with config.json and *.safetensors, a .gguf file, with --synthetic-weights a
    /// config.json; or a .wl file that --reproducer wrote
    pub model: PathBuf,
    /// Target to compile for; `waveloom targets` lists them [default: cpu, or the reproducer's]
    #[arg(long, value_name = "TARGET")]
    pub target: Option<String>,
    /// Where to run.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Dtype of matrix weights
    #[arg(long, default_value = "keep")]
    pub dtype: String,
    /// Take the model's shapes from its config.json, and weights drawn with this seed
    #[arg(long, value_name = "SEED")]
    pub synthetic_weights: Option<u64>,
    /// How the decode step runs on GPUs, as for `compile`: a step as one kernel is compared with its
    /// launches, which are verified
    #[arg(long, value_name = "FORM", default_value = "launches")]
    pub decode: String,
    /// Seed of the prompt, and of drawn tokens
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Length of the prompt
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub tokens: u32,
    /// Decode steps after it
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub steps: u32,
    /// Check at most so many launches of a kernel in each step, for large models [default: all]
    #[arg(long, value_name = "N")]
    pub launches_per_kernel: Option<usize>,
    /// Keep the first wrong launch of each kernel in this directory, as a module of one op with its
    /// inputs, which `verify` runs again
    #[arg(long, value_name = "DIR")]
    pub reproducer: Option<PathBuf>,
    /// Check the passes, too, each by the module before and after it: says whether a pass is at fault,
    /// and which rewrite of it, or a kernel
    #[arg(long)]
    pub bisect: bool,
    /// Print one JSON object, and no progress
    #[arg(long)]
    pub json: bool,
}

/// `sign`.
#[derive(Debug, Args)]
pub struct SignArgs {
    /// File to sign
    pub file: PathBuf,
    /// Private key as PEM, of the curves P-256 and P-384
    #[arg(long, value_name = "KEY")]
    pub key: PathBuf,
    /// File to write the signature to [default: FILE.sig]
    #[arg(short, long, value_name = "SIGNATURE")]
    pub output: Option<PathBuf>,
}

/// `verify-signature`.
#[derive(Debug, Args)]
pub struct VerifySignatureArgs {
    /// File that was signed
    pub file: PathBuf,
    /// Public key of the signer as PEM
    #[arg(long, value_name = "KEY")]
    pub key: PathBuf,
    /// The signature [default: FILE.sig]
    #[arg(long, value_name = "SIGNATURE")]
    pub signature: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `bench-kernel`.
#[derive(Debug, Args)]
pub struct BenchKernelArgs {
    /// A kernel of a dump in any of its forms, kernels/NAME.mlir, .ll, .s, .ptx or .o, edited or not;
    /// NAME.json must be beside it
    pub file: PathBuf,
    /// Where to run.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Tokens of the step [default: as many as a step takes]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub tokens: Option<u32>,
    /// Length of the KV cache after the step [default: 1024, or the model's context]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub cache_length: Option<u32>,
    /// How often to run every launch
    #[arg(long, value_name = "R", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub repeat: u32,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `diff`.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// A module (.wl) or a compiled file
    pub old: PathBuf,
    /// Another one of the same kind
    pub new: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `targets` and `devices`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Print one JSON array
    #[arg(long)]
    pub json: bool,
}

/// Where and how to run.
#[derive(Debug, Args)]
pub struct DeviceArgs {
    /// Device to run on: cpu, an AMD GPU as hip or hip:N, or an NVIDIA GPU as cuda or cuda:N;
    /// `devices` lists them
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// Threads of the CPU device [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: Option<u32>,
}

/// `run`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("input").required(true).args(["prompt", "tokens"]))]
pub struct RunArgs {
    /// Compiled model
    pub file: PathBuf,
    /// Where and how.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Text to continue, or with --chat to answer
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    pub prompt: Option<String>,
    /// Make a conversation of the prompt with the model's chat template
    #[arg(long, conflicts_with = "tokens")]
    pub chat: bool,
    /// System message of the conversation
    #[arg(long, value_name = "TEXT", requires = "chat", allow_hyphen_values = true)]
    pub system: Option<String>,
    /// Token ids to continue, separated by commas
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    pub tokens: Option<Vec<u32>>,
    /// Most tokens to generate
    #[arg(short = 'n', long, value_name = "N", default_value_t = 256)]
    pub max_tokens: u32,
    /// Length of the KV cache [default: what prompt and new tokens need]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub context: Option<u32>,
    /// How tokens are chosen.
    #[command(flatten)]
    pub sampling: SamplingArgs,
    /// Go on after a stop token
    #[arg(long)]
    pub ignore_eos: bool,
    /// Write the logits that each new token was chosen from to this safetensors file
    #[arg(long, value_name = "FILE")]
    pub logits: Option<PathBuf>,
    /// Print one JSON object at the end, and nothing before
    #[arg(long)]
    pub json: bool,
}

/// How tokens are chosen. What is not given here comes from the model's own defaults.
#[derive(Debug, Args)]
pub struct SamplingArgs {
    /// Always take the most probable token, without penalties
    #[arg(long, conflicts_with_all = ["temperature", "top_k", "top_p", "min_p", "seed",
        "repetition_penalty", "presence_penalty", "frequency_penalty", "penalty_last_n"])]
    pub greedy: bool,
    /// Divide the logits by this; 0 is greedy
    #[arg(long, value_name = "T", value_parser = non_negative)]
    pub temperature: Option<f32>,
    /// Keep the K most probable tokens; 0 keeps all
    #[arg(long, value_name = "K")]
    pub top_k: Option<u32>,
    /// Keep the most probable tokens up to this probability mass
    #[arg(long, value_name = "P", value_parser = probability)]
    pub top_p: Option<f32>,
    /// Keep tokens at least this probable relative to the most probable
    #[arg(long, value_name = "P", value_parser = probability)]
    pub min_p: Option<f32>,
    /// Seed of the random numbers [default: 0]
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,
    /// Divide the positive and multiply the negative logits of tokens seen; 1 is off
    #[arg(long, value_name = "R", value_parser = positive)]
    pub repetition_penalty: Option<f32>,
    /// Subtract this once from the logits of tokens seen; 0 is off
    #[arg(long, value_name = "X", value_parser = finite, allow_negative_numbers = true)]
    pub presence_penalty: Option<f32>,
    /// Subtract this from a logit for each time that its token was seen; 0 is off
    #[arg(long, value_name = "X", value_parser = finite, allow_negative_numbers = true)]
    pub frequency_penalty: Option<f32>,
    /// Tokens before the new one, prompt included, that penalties count as seen [default: all]
    #[arg(long, value_name = "N")]
    pub penalty_last_n: Option<u32>,
}

/// `bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Compiled model
    pub file: PathBuf,
    /// Where and how.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Length of the prompt
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    pub prompt_tokens: u32,
    /// Tokens to generate after it
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    pub gen_tokens: u32,
    /// Time every launch, too: a table, and all of it as JSON to this file
    #[arg(long, value_name = "FILE")]
    pub profile: Option<PathBuf>,
    /// Write what --profile measures as a trace that Perfetto and Chrome open
    #[arg(long, value_name = "FILE", requires = "profile")]
    pub trace: Option<PathBuf>,
    /// How often to load and measure
    #[arg(long, value_name = "R", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub repeat: u32,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Compiled model
    pub file: PathBuf,
    /// Print everything as one JSON object
    #[arg(long, group = "view")]
    pub json: bool,
    /// Show segments and buffers
    #[arg(long, group = "view")]
    pub memory: bool,
    /// Show kernels and where they are launched
    #[arg(long, group = "view")]
    pub kernels: bool,
    /// Show the execution plan
    #[arg(long, group = "view")]
    pub plan: bool,
    /// Write everything as one page for a browser to this file; as JSON where its name ends so
    #[arg(long, value_name = "OUT", group = "view")]
    pub html: Option<PathBuf>,
}

fn non_negative(text: &str) -> Result<f32, String> {
    let value: f32 = text.parse().map_err(|_| "not a number".to_string())?;
    if value.is_finite() && value >= 0.0 { Ok(value) } else { Err("must be 0 or more".into()) }
}

fn finite(text: &str) -> Result<f32, String> {
    let value: f32 = text.parse().map_err(|_| "not a number".to_string())?;
    if value.is_finite() { Ok(value) } else { Err("must be finite".into()) }
}

fn positive(text: &str) -> Result<f32, String> {
    let value = finite(text)?;
    if value > 0.0 { Ok(value) } else { Err("must be more than 0".into()) }
}

fn probability(text: &str) -> Result<f32, String> {
    let value = non_negative(text)?;
    if value <= 1.0 { Ok(value) } else { Err("must be between 0 and 1".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    #[test]
    fn command_lines_are_well_formed() {
        CompilerCli::command().debug_assert();
        RunnerCli::command().debug_assert();
    }

    fn run(line: &str) -> Result<RunArgs, ErrorKind> {
        match RunnerCli::try_parse_from(line.split(' ')).map_err(|error| error.kind())?.command {
            RunnerCommand::Run(args) => Ok(args),
            other => panic!("not `run`: {other:?}"),
        }
    }

    #[test]
    fn run_takes_a_prompt_or_tokens() {
        let args = run("waveloom-run run m.wlm --tokens 1,2,4294967295 -n 3 --greedy").unwrap();
        assert_eq!(args.tokens, Some(vec![1, 2, u32::MAX]));
        assert_eq!((args.max_tokens, args.sampling.greedy), (3, true));
        let args = run("waveloom-run run m.wlm -p -5 --chat --system be-brief").unwrap();
        assert_eq!(args.prompt.as_deref(), Some("-5"));
        assert_eq!(args.device.device, "cpu");
        assert_eq!(run("w run m").unwrap_err(), ErrorKind::MissingRequiredArgument);
        assert_eq!(run("w run m -p a --tokens 1").unwrap_err(), ErrorKind::ArgumentConflict);
        assert_eq!(run("w run m --tokens 1 --chat").unwrap_err(), ErrorKind::ArgumentConflict);
        for ids in ["1,,2", "-1", "4294967296", "a", ""] {
            let error = run(&format!("w run m --tokens {ids}")).unwrap_err();
            let known =
                [ErrorKind::ValueValidation, ErrorKind::InvalidValue, ErrorKind::UnknownArgument];
            assert!(known.contains(&error), "{ids}: {error:?}");
        }
    }

    #[test]
    fn sampling_values_are_checked() {
        let args = run("w run m -p a --temperature 0.7 --top-k 40 --top-p 1 --min-p 0 --seed 18446744073709551615").unwrap();
        assert_eq!(args.sampling.temperature, Some(0.7));
        assert_eq!(args.sampling.seed, Some(u64::MAX));
        for bad in
            ["--temperature=-1", "--temperature=nan", "--top-p=1.1", "--min-p=inf", "--top-k=-1"]
        {
            let error = run(&format!("w run m -p a {bad}")).unwrap_err();
            assert_eq!(error, ErrorKind::ValueValidation, "{bad}");
        }
        let error = run("w run m -p a --greedy --top-k 3").unwrap_err();
        assert_eq!(error, ErrorKind::ArgumentConflict);
    }

    fn compiler(line: &str) -> Result<CompilerCommand, ErrorKind> {
        let cli = CompilerCli::try_parse_from(line.split(' '));
        cli.map(|cli| cli.command).map_err(|error| error.kind())
    }

    #[test]
    fn compile_takes_lists_of_targets() {
        let command = compiler("waveloom compile dir -o m.wlm --target cpu-v3,cpu-v4").unwrap();
        let CompilerCommand::Compile(args) = command else { panic!("not `compile`") };
        assert_eq!(args.target, ["cpu-v3", "cpu-v4"]);
        assert_eq!((args.dtype, args.max_context), (None, None));
        assert_eq!(args.synthetic_weights, None);
        let command = compiler("w compile config.json -o m --synthetic-weights 7").unwrap();
        let CompilerCommand::Compile(args) = command else { panic!("not `compile`") };
        assert_eq!(args.synthetic_weights, Some(7));
        assert!(compiler("w compile config.json -o m --synthetic-weights").is_err());
        let command = compiler("w compile dir -o m --report m.html").unwrap();
        let CompilerCommand::Compile(args) = command else { panic!("not `compile`") };
        assert_eq!(args.report.as_deref(), Some(std::path::Path::new("m.html")));
        assert!(compiler("w compile dir").is_err());
        assert!(compiler("w compile dir -o m --max-context 0").is_err());
        assert!(compiler("w compile dir -o m --json --print-ir-after all").is_err());
        assert!(compiler("w compile dir -o m --print-ir-filter layer").is_err());
        assert!(compiler("w compile -o m").is_err());
        assert!(compiler("w compile -o m --compile-from a.wl --dtype f16").is_err());
        let command = compiler("w compile -o m --compile-from a.wl --compile-to raise").unwrap();
        let CompilerCommand::Compile(args) = command else { panic!("not `compile`") };
        assert_eq!((args.model, args.compile_to.as_deref()), (None, Some("raise")));
    }

    #[test]
    fn the_compiler_has_the_runners_commands() {
        let command = compiler("waveloom bench m.wlm --json --repeat 1 --prompt-tokens 4").unwrap();
        let CompilerCommand::Runner(RunnerCommand::Bench(args)) = command else {
            panic!("not `bench`")
        };
        assert_eq!((args.repeat, args.prompt_tokens, args.gen_tokens), (1, 4, 128));
        assert!(compiler("waveloom devices --json").is_ok());
        assert_eq!(compiler("w inspect m --json --plan").unwrap_err(), ErrorKind::ArgumentConflict);
        assert!(compiler("w inspect m --html report.html").is_ok());
        assert!(compiler("w inspect m --html report.html --json").is_err());
        let opt = compiler("w opt a.wl --passes raise,fuse").unwrap();
        let CompilerCommand::Opt(args) = opt else { panic!("not `opt`") };
        assert_eq!(args.passes, ["raise", "fuse"]);
        assert!(compiler("w opt a.wl --passes raise --json").is_err());
    }
}
