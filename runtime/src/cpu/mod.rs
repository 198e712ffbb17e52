//! The host CPU: threads that walk the plan in lockstep.
//!
//! Unsafe code of this device is in: memory (`memory`), the shared object (`code`), the calls of its
//! kernels (`executor`), and the question whether it may use tile registers (`tiles`).

mod code;
mod executor;
mod features;
mod memory;
mod pool;
mod tiles;
mod topology;

use crate::device::{Device, DeviceError, DeviceInfo, LoadRequest, LoadedPlan};
use code::Code;
use executor::{Executor, Programs};
use memory::Memory;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;
use waveloom_plan::{Artifact, BufferId, Plan, Symbols};

/// The host CPU with a number of threads.
pub struct Cpu {
    threads: usize,
}

/// What [`crate::devices`] says about the host CPU.
pub fn info() -> DeviceInfo {
    DeviceInfo {
        name: "cpu".into(),
        description: topology::model_name(),
        workers: topology::physical_cores(),
        features: features::present().map(String::from).collect(),
        gpu: None,
        unavailable: None,
    }
}

impl Cpu {
    /// The host CPU with `threads` threads, by default as many as it has cores.
    pub fn new(threads: Option<usize>) -> Result<Cpu, DeviceError> {
        let threads = threads.unwrap_or_else(topology::physical_cores);
        if (1..=1024).contains(&threads) {
            Ok(Cpu { threads })
        } else {
            Err(DeviceError::Threads(threads))
        }
    }
}

impl Device for Cpu {
    fn describe(&self) -> String {
        format!("{}, {} threads", topology::model_name(), self.threads)
    }

    /// Of the targets `cpu` and `cpu-*`, the one that needs the most features that are here.
    fn choose_plan(&self, artifact: &Artifact) -> Result<Plan, DeviceError> {
        let targets = artifact.targets().iter();
        let mine = targets.filter(|target| *target == "cpu" || target.starts_with("cpu-"));
        let mut best: Option<Plan> = None;
        let mut refusal = None;
        for target in mine {
            let plan = artifact.plan(target)?;
            match features::check(target, &plan.requires) {
                Ok(()) if best.as_ref().is_none_or(|b| b.requires.len() < plan.requires.len()) => {
                    best = Some(plan);
                }
                Ok(()) => {}
                Err(error) => refusal = refusal.or(Some(error)),
            }
        }
        let found = || artifact.targets().join(", ");
        best.ok_or_else(|| refusal.unwrap_or_else(|| DeviceError::NoPlan { found: found() }))
    }

    fn load(&self, mut request: LoadRequest<'_>) -> Result<Box<dyn LoadedPlan>, DeviceError> {
        let plan = request.plan;
        features::check(&plan.target, &plan.requires)?;
        let memory = Memory::allocate(&mut request, self.threads)?;
        let code = Code::load(request.artifact.code(&plan.target)?, plan)?;
        let programs = Arc::new(Programs::resolve(plan, &memory, &code)?);
        let executor = Executor::start(programs, memory.scratch(), plan.symbols.clone())?;
        Ok(Box::new(CpuPlan { executor, _code: code, memory }))
    }
}

/// A plan loaded on the host CPU. Threads end before what they use goes: fields drop in order.
struct CpuPlan {
    executor: Executor,
    _code: Code,
    memory: Memory,
}

impl LoadedPlan for CpuPlan {
    fn allocated_bytes(&self) -> u64 {
        self.memory.bytes()
    }

    fn workers(&self) -> usize {
        self.executor.workers()
    }

    fn run(&mut self, program: usize, symbols: &Symbols) -> Result<(), DeviceError> {
        self.executor.run(program, symbols)
    }

    fn write(&mut self, buffer: BufferId, first: usize, words: &[u32]) -> Result<(), DeviceError> {
        let end = first.checked_add(words.len());
        let end = end.ok_or(DeviceError::Request("a write ends beyond all memory"))?;
        self.memory.io_words(buffer, first..end)?.copy_from_slice(words);
        Ok(())
    }

    fn read(&mut self, buffer: BufferId, words: Range<usize>) -> Result<&[u32], DeviceError> {
        Ok(self.memory.io_words(buffer, words)?)
    }

    fn read_f32(&mut self, buffer: BufferId, words: Range<usize>) -> Result<&[f32], DeviceError> {
        self.memory.io_floats(buffer, words)
    }

    fn run_launch(
        &mut self,
        program: usize,
        launch: usize,
        symbols: &Symbols,
    ) -> Result<(), DeviceError> {
        self.executor.run_launch(program, launch, symbols)
    }

    fn time_program(&mut self, program: usize, symbols: &Symbols) -> Result<f64, DeviceError> {
        let start = Instant::now();
        self.executor.run(program, symbols)?;
        Ok(start.elapsed().as_secs_f64())
    }

    fn time_launches(
        &mut self,
        program: usize,
        symbols: &Symbols,
        seconds: &mut [f64],
    ) -> Result<(), DeviceError> {
        self.executor.time_launches(program, symbols, seconds)
    }

    fn read_bytes(
        &mut self,
        buffer: BufferId,
        first: u64,
        to: &mut [u8],
    ) -> Result<(), DeviceError> {
        self.memory.read_bytes(buffer, first, to)
    }

    fn write_bytes(
        &mut self,
        buffer: BufferId,
        first: u64,
        bytes: &[u8],
    ) -> Result<(), DeviceError> {
        self.memory.write_bytes(buffer, first, bytes)
    }
}
