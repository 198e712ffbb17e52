//! Runs programs: every worker walks the same launches, each does its share, and a barrier
//! follows every launch.
#![allow(unsafe_code)]

use super::code::{Code, KernelFn};
use super::memory::Memory;
use super::pool::{Barrier, Gate};
use crate::device::DeviceError;
use crate::program::{self, Program, Resolve};
use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Instant;
use waveloom_plan::{BufferId, Plan, Symbol, Symbols};

/// Program number that ends the workers.
const EXIT: usize = usize::MAX;
/// Launch number that stands for all of a program.
const ALL: usize = usize::MAX;

/// What a launch calls and gives it: kernels of the shared object, addresses in memory.
struct Places<'a> {
    memory: &'a Memory,
    code: &'a Code,
}

impl Resolve for Places<'_> {
    type Kernel = KernelFn;

    fn kernel(&self, index: usize) -> Option<KernelFn> {
        self.code.kernel(index)
    }

    fn address(&self, buffer: BufferId) -> Option<u64> {
        self.memory.address(buffer).map(|address| address as u64)
    }

    fn scratch(&self) -> Option<u64> {
        None
    }
}

/// All programs of a plan.
pub struct Programs {
    programs: Vec<Program<KernelFn>>,
}

impl Programs {
    /// Looks up kernels and addresses.
    pub fn resolve(plan: &Plan, memory: &Memory, code: &Code) -> Result<Programs, DeviceError> {
        Ok(Programs { programs: program::resolve(plan, &Places { memory, code })? })
    }
}

/// What workers share.
struct Shared {
    programs: Arc<Programs>,
    workers: usize,
    gate: Gate,
    barrier: Barrier,
    /// Threads that run.
    started: AtomicUsize,
    /// Program of this step, or [`EXIT`].
    program: AtomicUsize,
    /// Its launch that is to run, or [`ALL`].
    launch: AtomicUsize,
    /// Values of its expressions. Written before the gate opens.
    values: Vec<AtomicI64>,
}

/// One worker's own state.
struct Worker {
    index: usize,
    /// An argument table per program.
    tables: Vec<Vec<u64>>,
    /// Address of its scratch area.
    scratch: usize,
}

impl Worker {
    fn new(index: usize, scratch: usize, programs: &Programs) -> Worker {
        let tables = programs.programs.iter().map(|program| program.table.clone());
        Worker { index, tables: tables.collect(), scratch }
    }

    /// Does its share of a program; `done` is told after each launch that all workers are done.
    fn walk(&mut self, shared: &Shared, program: usize, mut done: impl FnMut()) {
        let table = &mut self.tables[program];
        let program = &shared.programs.programs[program];
        let value = |index: usize| shared.values[index].load(Ordering::Relaxed);
        for &(slot, index) in &program.patches {
            table[slot] = value(index) as u64;
        }
        let scratch = std::ptr::with_exposed_provenance_mut::<c_void>(self.scratch);
        let (worker, workers) = (self.index as i64, shared.workers as i64);
        let launches = match shared.launch.load(Ordering::Relaxed) {
            ALL => &program.launches[..],
            launch => &program.launches[launch..=launch],
        };
        for launch in launches {
            let grid = value(launch.grid);
            let (first, last) = (grid * worker / workers, grid * (worker + 1) / workers);
            if first < last {
                let args = &table[launch.args.clone()];
                // SAFETY: the kernel is of a library that outlives the executor, and is called
                // as its plan says: verified arguments (pointers to buffers inside their mapped
                // segments, scalars computed from bounded symbols), items inside the grid, and
                // scratch of the plan's size that no other worker uses. Kernels write only what
                // belongs to their items; the barrier orders launches.
                unsafe { (launch.kernel)(args.as_ptr(), first, last, scratch) };
            }
            shared.barrier.wait();
            done();
        }
    }
}

/// Threads that run programs in lockstep; the caller's is the first of them.
pub struct Executor {
    shared: Arc<Shared>,
    own: Worker,
    threads: Vec<JoinHandle<()>>,
    symbols: Vec<Symbol>,
}

impl Executor {
    /// Starts a worker per scratch area, the caller's thread being the first. The programs were
    /// verified for `symbols`.
    pub fn start(
        programs: Arc<Programs>,
        scratch: Vec<usize>,
        symbols: Vec<Symbol>,
    ) -> Result<Executor, DeviceError> {
        let values = programs.programs.iter().map(|program| program.values.len()).max();
        let shared = Arc::new(Shared {
            programs: programs.clone(),
            workers: scratch.len(),
            gate: Gate::new(scratch.len()),
            barrier: Barrier::new(scratch.len()),
            started: AtomicUsize::new(0),
            program: AtomicUsize::new(EXIT),
            launch: AtomicUsize::new(ALL),
            values: (0..values.unwrap_or(0)).map(|_| AtomicI64::new(0)).collect(),
        });
        let own = Worker::new(0, scratch.first().copied().unwrap_or(64), &programs);
        // Dropped on an error, it ends the threads that have started.
        let mut executor = Executor { shared, own, threads: vec![], symbols };
        for (index, &scratch) in scratch.iter().enumerate().skip(1) {
            let (shared, worker) =
                (executor.shared.clone(), Worker::new(index, scratch, &programs));
            let thread = thread::Builder::new()
                .name(format!("waveloom-{index}"))
                .spawn(move || serve(&shared, worker))
                .map_err(DeviceError::Spawn)?;
            executor.threads.push(thread);
        }
        // A thread allocates as it starts; that belongs to the loading.
        while executor.shared.started.load(Ordering::Acquire) < executor.threads.len() {
            thread::yield_now();
        }
        Ok(executor)
    }

    /// Number of workers.
    pub fn workers(&self) -> usize {
        self.shared.workers
    }

    /// Runs a program and waits for its end.
    pub fn run(&mut self, program: usize, symbols: &Symbols) -> Result<(), DeviceError> {
        self.start_launches(program, ALL, symbols, || ())
    }

    /// Runs one launch of a program and waits for its end.
    pub fn run_launch(
        &mut self,
        program: usize,
        launch: usize,
        symbols: &Symbols,
    ) -> Result<(), DeviceError> {
        self.start_launches(program, launch, symbols, || ())
    }

    /// Runs a program; `seconds` gets the time of each launch, the wait for all workers included.
    pub fn time_launches(
        &mut self,
        program: usize,
        symbols: &Symbols,
        seconds: &mut [f64],
    ) -> Result<(), DeviceError> {
        let (mut before, mut seconds) = (Instant::now(), seconds.iter_mut());
        self.start_launches(program, ALL, symbols, || {
            let now = Instant::now();
            if let Some(seconds) = seconds.next() {
                *seconds = now.duration_since(before).as_secs_f64();
            }
            before = now;
        })
    }

    /// Runs a launch of a program, or [`ALL`], and waits; `done` is told after each.
    fn start_launches(
        &mut self,
        program: usize,
        launch: usize,
        symbols: &Symbols,
        done: impl FnMut(),
    ) -> Result<(), DeviceError> {
        let shared = &*self.shared;
        let programs = &shared.programs.programs;
        let resolved = program::checked(programs, program, &self.symbols, symbols)?;
        if resolved.launches.is_empty() {
            // No barrier would tell that all workers have seen this step.
            return Ok(());
        }
        if launch != ALL && launch >= resolved.launches.len() {
            return Err(DeviceError::Request("the program has no such launch"));
        }
        resolved.evaluate(symbols, |index, value| {
            shared.values[index].store(value, Ordering::Relaxed);
        })?;
        shared.program.store(program, Ordering::Relaxed);
        shared.launch.store(launch, Ordering::Relaxed);
        shared.gate.open(self.threads.iter().map(JoinHandle::thread));
        self.own.walk(shared, program, done);
        Ok(())
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.shared.program.store(EXIT, Ordering::Relaxed);
        self.shared.gate.open(self.threads.iter().map(JoinHandle::thread));
        for thread in self.threads.drain(..) {
            // A worker cannot have panicked without the step hanging; nothing is left to do.
            let _ = thread.join();
        }
    }
}

/// The life of a worker's thread.
fn serve(shared: &Shared, mut worker: Worker) {
    shared.started.fetch_add(1, Ordering::Release);
    let mut step = 0;
    loop {
        step = shared.gate.pass(step);
        match shared.program.load(Ordering::Relaxed) {
            EXIT => return,
            program => worker.walk(shared, program, || ()),
        }
    }
}
