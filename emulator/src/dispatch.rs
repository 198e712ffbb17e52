//! Launches: workgroups over host threads, waves of a workgroup in turns.
//!
//! A host thread owns a set of workgroups and runs each of their waves for a slice of instructions.
//! Threads take workgroups in ascending order. A workgroup that has used up its share without
//! ending may be waiting for one that has not started, so its thread starts another beside it, up to
//! what the chip would hold at once. Results do not depend on the number of threads, unless the
//! kernel itself races.

mod group;
mod setup;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::check::{Checker, Report};
use crate::memory::Memory;
use crate::object::Kernel;
use crate::probe::Observer;
use crate::wave::{Fault, Wave};
use group::Running;
use setup::Arguments;

/// Most work-items of a workgroup.
pub const MAX_WORKGROUP_SIZE: u32 = 1024;
/// Most bytes of private memory of one work-item.
const MAX_SCRATCH_BYTES: u32 = 1 << 20;

/// A grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Launch {
    /// Workgroups in x, y, z.
    pub grid: [u32; 3],
    /// Work-items of a workgroup in x, y, z.
    pub block: [u32; 3],
    /// Bytes of LDS beyond the kernel's static ones.
    pub dynamic_lds: u32,
    /// Work-items of the whole grid, where the last workgroups are partial.
    pub global: Option<[u32; 3]>,
    /// All workgroups must be able to wait for each other.
    pub cooperative: bool,
}

impl Launch {
    /// Work-items in x, y, z.
    pub fn work_items(&self) -> [u64; 3] {
        std::array::from_fn(|axis| match self.global {
            Some(global) => u64::from(global[axis]),
            None => u64::from(self.grid[axis]) * u64::from(self.block[axis]),
        })
    }

    /// Workgroups.
    pub fn workgroups(&self) -> u64 {
        self.grid.iter().map(|count| u64::from(*count)).product()
    }

    /// Work-items of a full workgroup.
    pub fn block_size(&self) -> u32 {
        self.block.iter().fold(1, |size, axis| size.saturating_mul(*axis))
    }
}

/// How to execute.
#[derive(Clone, Default)]
pub struct Options {
    /// Host threads; 0 for as many as the host has.
    pub threads: usize,
    /// Instructions of all waves together after which a launch is stopped.
    pub max_instructions: Option<u64>,
    /// Look for what a card would not tell, and report it.
    pub check: bool,
    /// Where statistics are collected, if anywhere.
    pub observers: Vec<Arc<dyn Observer>>,
}

impl Options {
    /// `WAVELOOM_EMU_THREADS`, `WAVELOOM_EMU_MAX_INSTRUCTIONS` and `WAVELOOM_EMU_CHECK`.
    pub fn from_env() -> Options {
        let number = |name: &str| std::env::var(name).ok()?.trim().parse::<u64>().ok();
        Options {
            threads: number("WAVELOOM_EMU_THREADS").unwrap_or(0) as usize,
            max_instructions: number("WAVELOOM_EMU_MAX_INSTRUCTIONS"),
            check: number("WAVELOOM_EMU_CHECK").unwrap_or(0) != 0,
            observers: Vec::new(),
        }
    }

    fn thread_count(&self) -> usize {
        match self.threads {
            // Checks keep one account of all workgroups, and tell the same every time.
            _ if self.check => 1,
            0 => rayon::current_num_threads(),
            count => count,
        }
    }
}

/// What a launch did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Wave instructions.
    pub instructions: u64,
    /// Waves.
    pub waves: u64,
    /// What the checks found, if they were asked for.
    pub reports: Vec<Report>,
}

/// Why a launch failed.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// It asks for what the chip or the kernel cannot give.
    #[error("kernel {kernel} cannot be launched: {reason}")]
    Invalid {
        /// The kernel.
        kernel: String,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// Device memory is exhausted.
    #[error("no device memory for the arguments of kernel {0}")]
    OutOfMemory(String),
    /// A wave could not go on.
    #[error("{0}")]
    Fault(Box<FaultReport>),
}

/// A fault with all that is known about where it happened.
#[derive(Debug)]
pub struct FaultReport {
    /// The kernel.
    pub kernel: String,
    /// What happened.
    pub fault: Fault,
    /// Address of the instruction.
    pub address: u64,
    /// Function and offset.
    pub symbol: String,
    /// The instruction.
    pub text: String,
    /// Source file and line, where the object has debug information.
    pub source: Option<String>,
    /// Workgroup in x, y, z.
    pub workgroup: [u32; 3],
    /// Wave in the workgroup.
    pub wave: u32,
    /// Registers of the wave, as lines of text.
    pub state: String,
    /// What the checks found before, if they were asked for.
    pub reports: Vec<Report>,
}

impl std::fmt::Display for FaultReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [x, y, z] = self.workgroup;
        writeln!(f, "kernel {}: {}", self.kernel, self.fault)?;
        write!(f, "  at {:#x} ({}): {}", self.address, self.symbol, self.text)?;
        if let Some(source) = &self.source {
            write!(f, "  [{source}]")?;
        }
        write!(f, "\n  workgroup ({x}, {y}, {z}), wave {}\n{}", self.wave, self.state)?;
        self.reports.iter().try_for_each(|report| write!(f, "\n{report}"))
    }
}

/// What the threads of one launch share.
struct Shared<'a> {
    kernel: &'a Kernel,
    launch: Launch,
    memory: &'a Arc<Memory>,
    options: &'a Options,
    arguments: &'a Arguments,
    /// Number of the next workgroup that nobody has taken.
    next: AtomicU64,
    /// Instructions executed, counted after each slice.
    executed: AtomicU64,
    failed: AtomicBool,
    failure: Mutex<Option<Box<FaultReport>>>,
    /// Workgroups that one thread may hold at once.
    resident: usize,
}

impl Shared<'_> {
    /// Takes the next workgroup.
    fn take(&self) -> Option<[u32; 3]> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if number >= self.launch.workgroups() {
            return None;
        }
        let [x, y, _] = self.launch.grid.map(u64::from);
        Some([(number % x) as u32, (number / x % y) as u32, (number / x / y) as u32])
    }

    fn fail(&self, report: Box<FaultReport>) {
        self.failed.store(true, Ordering::Relaxed);
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        // The first workgroup that fails is told, whichever thread was quicker.
        let number = |report: &FaultReport| {
            let [x, y, z] = report.workgroup;
            (z, y, x, report.wave)
        };
        if failure.as_ref().is_none_or(|other| number(&report) < number(other)) {
            *failure = Some(report);
        }
    }

    /// Counts instructions; an error when there were too many.
    fn count(&self, instructions: u64) -> Result<(), Fault> {
        let total = self.executed.fetch_add(instructions, Ordering::Relaxed) + instructions;
        match self.options.max_instructions {
            Some(limit) if total > limit => Err(Fault::Budget(limit)),
            _ => Ok(()),
        }
    }
}

/// Runs a kernel to its end. `kernarg` holds the explicit arguments at their offsets; hidden ones are
/// filled in.
pub fn launch(
    kernel: &Kernel,
    launch: &Launch,
    kernarg: &[u8],
    memory: &Arc<Memory>,
    options: &Options,
) -> Result<Summary, LaunchError> {
    validate(kernel, launch)?;
    if !options.check {
        return run(kernel, launch, kernarg, memory, options);
    }
    let checker = Arc::new(Checker::new(kernel, memory));
    let mut options = options.clone();
    options.observers.push(checker.clone());
    match run(kernel, launch, kernarg, memory, &options) {
        Ok(summary) => Ok(Summary { reports: checker.reports(kernel), ..summary }),
        Err(LaunchError::Fault(mut report)) => {
            report.reports = checker.reports(kernel);
            Err(LaunchError::Fault(report))
        }
        Err(error) => Err(error),
    }
}

fn run(
    kernel: &Kernel,
    launch: &Launch,
    kernarg: &[u8],
    memory: &Arc<Memory>,
    options: &Options,
) -> Result<Summary, LaunchError> {
    let arguments = Arguments::new(kernel, launch, kernarg, memory)
        .ok_or_else(|| LaunchError::OutOfMemory(kernel.name.clone()))?;
    let threads = options.thread_count().clamp(1, launch.workgroups().max(1) as usize);
    let shared = Shared {
        kernel,
        launch: *launch,
        memory,
        options,
        arguments: &arguments,
        next: AtomicU64::new(0),
        executed: AtomicU64::new(0),
        failed: AtomicBool::new(false),
        failure: Mutex::new(None),
        resident: resident_workgroups(kernel, launch).div_ceil(threads as u64).max(1) as usize,
    };
    if threads == 1 {
        work(&shared);
    } else {
        rayon::scope(|scope| (0..threads).for_each(|_| scope.spawn(|_| work(&shared))));
    }
    let failure = shared.failure.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(report) = failure {
        return Err(LaunchError::Fault(report));
    }
    let waves = u64::from(launch.block_size().div_ceil(kernel.lanes)) * launch.workgroups();
    let instructions = shared.executed.into_inner();
    Ok(Summary { instructions, waves, reports: Vec::new() })
}

/// Workgroups that may be under way at once: those that the chip holds, or all of a cooperative grid.
fn resident_workgroups(kernel: &Kernel, launch: &Launch) -> u64 {
    if launch.cooperative {
        return launch.workgroups();
    }
    let each = occupancy(kernel, launch.block_size(), launch.dynamic_lds).max(1);
    u64::from(each) * u64::from(kernel.chip.compute_units())
}

fn validate(kernel: &Kernel, launch: &Launch) -> Result<(), LaunchError> {
    let invalid =
        |reason: String| Err(LaunchError::Invalid { kernel: kernel.name.clone(), reason });
    let size = launch.block_size();
    if launch.grid.contains(&0) || launch.block.contains(&0) {
        return invalid(format!("grid {:?} or block {:?} is empty", launch.grid, launch.block));
    }
    if size > kernel.max_workgroup_size {
        let limit = kernel.max_workgroup_size;
        return invalid(format!("{size} work-items in a workgroup, it was compiled for {limit}"));
    }
    if launch.work_items().iter().any(|items| *items > u64::from(u32::MAX)) {
        return invalid(format!("grid {:?} has more than 2^32 - 1 work-items", launch.grid));
    }
    let lds = u64::from(kernel.lds_bytes) + u64::from(launch.dynamic_lds);
    if lds > u64::from(kernel.chip.lds_bytes()) {
        let limit = kernel.chip.lds_bytes();
        return invalid(format!("{lds} bytes of LDS, {} has {limit}", kernel.chip));
    }
    if kernel.scratch_bytes > MAX_SCRATCH_BYTES {
        let bytes = kernel.scratch_bytes;
        return invalid(format!("{bytes} bytes of private memory per work-item"));
    }
    let resident = u64::from(occupancy(kernel, size, launch.dynamic_lds))
        * u64::from(kernel.chip.compute_units());
    if launch.cooperative && launch.workgroups() > resident {
        let count = launch.workgroups();
        return invalid(format!("{count} cooperating workgroups, {resident} fit on the chip"));
    }
    if kernel.program().index_of(kernel.entry).is_none() {
        return invalid(format!("its entry {:#x} is outside of its code", kernel.entry));
    }
    Ok(())
}

/// Workgroups that one compute unit holds at once; 0 if not even one fits.
pub fn occupancy(kernel: &Kernel, block_size: u32, dynamic_lds: u32) -> u32 {
    let waves = block_size.div_ceil(kernel.lanes).max(1);
    let registers = kernel.vgprs + kernel.agprs;
    let (per_simd, simds) = if kernel.chip.is_cdna() {
        ((512 / registers.next_multiple_of(8).max(8)).min(8), 4)
    } else {
        let file = if kernel.lanes == 32 { 1536 } else { 768 };
        ((file / registers.next_multiple_of(24).max(24)).min(16), 2)
    };
    let by_registers = per_simd * simds / waves;
    let lds = kernel.lds_bytes.saturating_add(dynamic_lds).next_multiple_of(512);
    let by_lds = kernel.chip.lds_bytes().checked_div(lds).unwrap_or(u32::MAX);
    by_registers.min(by_lds).min(if waves == 1 { 32 } else { 16 })
}

/// One host thread's part of a launch.
fn work(shared: &Shared<'_>) {
    let mut resident: Vec<Running> = Vec::new();
    let mut waves: Vec<Wave> = Vec::new();
    while !shared.failed.load(Ordering::Relaxed) {
        if resident.len() < shared.resident
            && let Some(id) = shared.take()
        {
            resident.push(Running::start(shared, id, &mut waves));
        }
        if resident.is_empty() {
            break;
        }
        // One share for each; those that end make room.
        let mut index = 0;
        while index < resident.len() {
            match resident[index].share(shared) {
                Ok(true) => resident.remove(index).finish(shared.kernel, &mut waves),
                Ok(false) => index += 1,
                Err(report) => {
                    shared.fail(report);
                    break;
                }
            }
        }
    }
    for running in resident {
        running.finish(shared.kernel, &mut waves);
    }
}
