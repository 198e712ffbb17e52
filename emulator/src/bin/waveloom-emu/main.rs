//! `waveloom-emu`: runs, disassembles and traces one kernel of a code object.

mod arguments;
mod arrays;
mod disasm;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use clap::{Args, Parser, Subcommand};
use waveloom_emulator::Chip;
use waveloom_emulator::dispatch::{Launch, LaunchError, Options, Summary, launch};
use waveloom_emulator::memory::Memory;
use waveloom_emulator::object::{Kernel, Object, ObjectError};
use waveloom_emulator::stats::Statistics;
use waveloom_emulator::trace::{Selection, Tracer};

use arguments::{Argument, Prepared};

/// Address space for device memory; pages come as they are touched.
const MEMORY_BYTES: u64 = 1 << 40;

/// Runs AMD GPU code objects on the CPU.
#[derive(Parser)]
#[command(name = "waveloom-emu", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a kernel on arrays from files
    Run {
        #[command(flatten)]
        launch: LaunchArgs,
        /// Look for races, uninitialized reads, missing waits; mistakes make the command fail
        #[arg(long)]
        check: bool,
        /// Write statistics of the kernel as JSON
        #[arg(long, value_name = "FILE")]
        stats: Option<PathBuf>,
        /// Print a summary as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show kernels, their registers and arguments, and their instructions
    Disasm {
        #[command(flatten)]
        object: ObjectArgs,
        /// Only this kernel
        #[arg(long, value_name = "NAME")]
        kernel: Option<String>,
    },
    /// Run a kernel and show each instruction with what it wrote
    Trace {
        #[command(flatten)]
        launch: LaunchArgs,
        /// Workgroup that is shown
        #[arg(long, value_name = "X,Y,Z", value_parser = parse_place, default_value = "0,0,0")]
        workgroup: Extent,
        /// Wave of the workgroup that is shown; all if it is not given
        #[arg(long)]
        wave: Option<u32>,
        /// Lanes whose registers are shown
        #[arg(long, value_name = "0-3,8", value_parser = parse_lanes, default_value = "0")]
        lanes: Lanes,
        /// Instructions that are shown
        #[arg(long, value_name = "N")]
        limit: Option<u64>,
        /// Write the trace to a file
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

#[derive(Args)]
struct ObjectArgs {
    /// Code object (hsaco) or offload bundle
    file: PathBuf,
    /// The GPU; only needed for a bundle with several
    #[arg(long, value_name = "GFX", value_parser = parse_chip)]
    chip: Option<Chip>,
}

#[derive(Args)]
struct LaunchArgs {
    #[command(flatten)]
    object: ObjectArgs,
    /// The kernel; not needed where there is only one
    #[arg(long, value_name = "NAME")]
    kernel: Option<String>,
    /// Workgroups
    #[arg(long, value_name = "X[,Y[,Z]]", value_parser = parse_extent, default_value = "1")]
    grid: Extent,
    /// Work-items of a workgroup
    #[arg(long, value_name = "X[,Y[,Z]]", value_parser = parse_extent)]
    block: Extent,
    /// Bytes of dynamic LDS
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    dynamic_lds: u32,
    /// Launch cooperatively: all workgroups may wait for each other
    #[arg(long)]
    cooperative: bool,
    /// Host threads; all of the host's if it is not given
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Wave instructions after which the kernel is stopped
    #[arg(long, value_name = "N")]
    max_instructions: Option<u64>,
    /// Arguments of the kernel
    #[arg(long, num_args = 0.., value_name = "ARG",
        long_help = arguments::GRAMMAR)]
    args: Vec<String>,
}

/// Three numbers; those that are not given are 1 (sizes) or must be given (places).
#[derive(Debug, Clone, Copy)]
struct Extent([u32; 3]);

#[derive(Debug, Clone)]
struct Lanes(Vec<u32>);

fn parse_chip(text: &str) -> Result<Chip, String> {
    let names = Chip::ALL.map(Chip::name).join(", ");
    Chip::from_name(text).ok_or_else(|| format!("the emulator knows {names}"))
}

fn parse_extent(text: &str) -> Result<Extent, String> {
    let mut extent = [1; 3];
    let parts: Vec<&str> = text.split(',').collect();
    if parts.len() > 3 {
        return Err("at most three numbers: 4,2,1".to_string());
    }
    for (place, part) in extent.iter_mut().zip(parts) {
        *place = part.trim().parse().map_err(|_| format!("`{part}` is no number"))?;
    }
    Ok(Extent(extent))
}

fn parse_place(text: &str) -> Result<Extent, String> {
    match text.split(',').count() {
        3 => parse_extent(text),
        _ => Err("three numbers: 0,0,0".to_string()),
    }
}

fn parse_lanes(text: &str) -> Result<Lanes, String> {
    let mut lanes = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let lane = |text: &str| text.trim().parse().ok().filter(|lane: &u32| *lane < 64);
        let (Some(first), Some(last)) = (lane(first), lane(last)) else {
            return Err(format!("`{part}` is no lane (0 to 63) and no range of lanes"));
        };
        lanes.extend(first..=last);
    }
    Ok(Lanes(lanes))
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run { launch, check, stats, json } => run(&launch, check, stats.as_deref(), json),
        Command::Disasm { object, kernel } => disassemble(&object, kernel.as_deref()),
        Command::Trace { launch, workgroup, wave, lanes, limit, output } => {
            let selection = Selection { workgroup: Some(workgroup.0), wave, lanes: lanes.0, limit };
            trace(&launch, selection, output.as_deref())
        }
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A code object in memory.
struct Opened {
    memory: Arc<Memory>,
    object: Object,
}

impl Opened {
    fn new(arguments: &ObjectArgs) -> Result<Opened, String> {
        let error =
            |error: &dyn std::fmt::Display| format!("{}: {error}", arguments.file.display());
        let bytes = std::fs::read(&arguments.file).map_err(|e| error(&e))?;
        let memory = Memory::reserve(MEMORY_BYTES).map_err(|e| error(&e))?;
        let memory = Arc::new(memory);
        let chips = match arguments.chip {
            Some(chip) => vec![chip],
            None => Chip::ALL.to_vec(),
        };
        let mut failure = None;
        let mut good = Vec::new();
        for chip in chips {
            match Object::load(&bytes, chip, &memory) {
                Ok(object) => good.push((chip, object)),
                // The error of the right chip says more than that the others are wrong.
                Err(other) if !matches!(failure, None | Some(ObjectError::WrongChip { .. })) => {
                    drop(other);
                }
                Err(other) => failure = Some(other),
            }
        }
        if good.len() > 1 {
            let names: Vec<&str> = good.iter().map(|(chip, _)| chip.name()).collect();
            return Err(error(&format!("choose one with --chip: it has {}", names.join(", "))));
        }
        match (good.pop(), failure) {
            (Some((_, object)), _) => Ok(Opened { memory, object }),
            (None, Some(ObjectError::WrongChip { found, .. })) if arguments.chip.is_none() => {
                Err(error(&format!("a code object for {found}, which the emulator does not know")))
            }
            (None, failure) => Err(failure.map_or(error(&"empty"), |failure| error(&failure))),
        }
    }

    fn kernel(&self, name: Option<&str>) -> Result<Arc<Kernel>, String> {
        let names: Vec<&str> = self.object.kernels().map(|kernel| kernel.name.as_str()).collect();
        let names = names.join(", ");
        let found = match name {
            Some(name) => self.object.kernel(name),
            None => {
                self.object.kernels().next().filter(|_| self.object.kernels().count() == 1).cloned()
            }
        };
        found.ok_or_else(|| match name {
            Some(name) => format!("no kernel {name}: there are {names}"),
            None => format!("choose one with --kernel: there are {names}"),
        })
    }
}

/// A launch with its arguments in memory.
struct Ready {
    opened: Opened,
    kernel: Arc<Kernel>,
    launch: Launch,
    prepared: Prepared,
    options: Options,
}

impl Ready {
    /// Loads code and arrays. With `check`, it is remembered which bytes were ever written.
    fn new(arguments: &LaunchArgs, check: bool) -> Result<Ready, String> {
        let parse = |text: &String| Argument::parse(text);
        let parsed: Vec<Argument> = arguments.args.iter().map(parse).collect::<Result<_, _>>()?;
        let opened = Opened::new(&arguments.object)?;
        if check {
            opened.memory.track_writes();
        }
        let kernel = opened.kernel(arguments.kernel.as_deref())?;
        let prepared = Prepared::new(&kernel, &parsed, &opened.memory)?;
        let launch = Launch {
            grid: arguments.grid.0,
            block: arguments.block.0,
            dynamic_lds: arguments.dynamic_lds,
            global: None,
            cooperative: arguments.cooperative,
        };
        let options = Options {
            threads: arguments.threads,
            max_instructions: arguments.max_instructions,
            check,
            ..Options::default()
        };
        Ok(Ready { opened, kernel, launch, prepared, options })
    }

    fn launch(&self) -> Result<Summary, String> {
        let Ready { kernel, launch: shape, prepared, opened, options } = self;
        let done = launch(kernel, shape, &prepared.kernarg, &opened.memory, options);
        done.map_err(|error| {
            if let LaunchError::Fault(report) = &error {
                report.reports.iter().for_each(|report| eprintln!("{report}"));
            }
            error.to_string()
        })
    }
}

fn run(
    arguments: &LaunchArgs,
    check: bool,
    stats: Option<&Path>,
    json: bool,
) -> Result<ExitCode, String> {
    let mut ready = Ready::new(arguments, check)?;
    let statistics = Arc::new(Statistics::default());
    if stats.is_some() {
        ready.options.observers.push(statistics.clone());
    }
    let start = Instant::now();
    let summary = ready.launch()?;
    let seconds = start.elapsed().as_secs_f64();
    let outputs = ready.prepared.outputs(&ready.opened.memory)?;
    arrays::write_all(&outputs)?;
    if let Some(path) = stats {
        statistics.write(path).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let rate = summary.instructions as f64 / seconds / 1e6;
    if json {
        let described = |(place, array): &(arrays::Place, arrays::Array)| serde_json::json!({ "to": place.to_string(), "type": array.dtype.name, "shape": array.shape });
        let summary = serde_json::json!({
            "kernel": ready.kernel.name,
            "chip": ready.kernel.chip.name(),
            "workgroups": ready.launch.workgroups(),
            "waves": summary.waves,
            "instructions": summary.instructions,
            "seconds": seconds,
            "mistakes": summary.reports.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "outputs": outputs.iter().map(described).collect::<Vec<_>>(),
        });
        println!("{summary:#}");
    } else {
        println!(
            "{} on {}: {} workgroups, {} waves, {} instructions in {:.1} ms ({rate:.1} million a second)",
            ready.kernel.name,
            ready.kernel.chip,
            ready.launch.workgroups(),
            summary.waves,
            summary.instructions,
            seconds * 1e3,
        );
        for (place, array) in &outputs {
            println!("wrote {place}: {}", array.describe());
        }
        summary.reports.iter().for_each(|report| eprintln!("{report}"));
        if check && summary.reports.is_empty() {
            println!("no mistakes found");
        }
    }
    Ok(if summary.reports.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn disassemble(arguments: &ObjectArgs, kernel: Option<&str>) -> Result<ExitCode, String> {
    let opened = Opened::new(arguments)?;
    let mut text = String::new();
    match kernel {
        Some(name) => disasm::kernel(&mut text, &*opened.kernel(Some(name))?),
        None => disasm::object(&mut text, &opened.object),
    }
    // A closed pipe (`| head`) is no error.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(ExitCode::SUCCESS)
}

fn trace(
    arguments: &LaunchArgs,
    selection: Selection,
    output: Option<&Path>,
) -> Result<ExitCode, String> {
    let mut ready = Ready::new(arguments, false)?;
    let out: Box<dyn Write + Send> = match output {
        Some(path) => {
            let file = std::fs::File::create(path);
            let file = file.map_err(|error| format!("{}: {error}", path.display()))?;
            Box::new(std::io::BufWriter::new(file))
        }
        None => Box::new(std::io::BufWriter::new(std::io::stdout())),
    };
    let tracer = Arc::new(Tracer::new(selection, out));
    ready.options.observers.push(tracer.clone());
    // One thread keeps the order of the trace.
    ready.options.threads = 1;
    let done = ready.launch();
    match tracer.finish() {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            return Err(format!("writing the trace: {error}"));
        }
        _ => {}
    }
    done?;
    arrays::write_all(&ready.prepared.outputs(&ready.opened.memory)?)?;
    Ok(ExitCode::SUCCESS)
}
