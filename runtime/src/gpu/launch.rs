//! Programs on a stream: launches with their arguments packed as kernels read them, and graphs.
#![allow(unsafe_code)]

use super::device::{Gpu, Owned};
use super::driver::{Block, Function, GraphExec, Module, Order, Status, Stream};
use super::persistent::Persistent;
use crate::device::DeviceError;
use crate::program::{self, Program};
use std::ffi::CString;
use std::ops::Range;
use waveloom_plan::{Plan, Symbol, Symbols};

/// A kernel of the code object.
#[derive(Clone, Copy)]
pub struct Kernel {
    function: Function,
    /// Work-items of a workgroup.
    workgroup: u32,
    /// Bytes of the local data share that its launches ask for.
    shared: u32,
    /// How it goes with the launch before it in its program.
    order: Order,
}

impl Kernel {
    /// The same, for workgroups that wait for each other.
    pub fn together(self) -> Kernel {
        Kernel { order: Order::Together, ..self }
    }

    /// How many of its workgroups a multiprocessor holds at once, if the driver knows.
    pub fn resident(self, gpu: Gpu) -> Result<Option<u32>, DeviceError> {
        // SAFETY: the function is of a loaded module.
        unsafe { gpu.driver.resident(gpu, self.function, self.workgroup) }.transpose()
    }
}

/// The loaded code object.
pub struct Code {
    /// By index in the plan.
    pub kernels: Vec<Kernel>,
    _module: Owned<Module>,
}

impl Code {
    /// Loads a code object and looks up the plan's kernels.
    pub fn load(gpu: Gpu, object: &[u8], plan: &Plan) -> Result<Code, DeviceError> {
        let target = || plan.target.clone();
        let module = Owned { gpu, value: gpu.driver.load(gpu, object, plan)? };
        let kernel = |kernel: &waveloom_plan::Kernel| {
            let missing =
                || DeviceError::NoKernel { target: target(), kernel: kernel.name.clone() };
            let name = CString::new(kernel.name.as_bytes()).map_err(|_| missing())?;
            // SAFETY: the module is loaded.
            let function = match unsafe { gpu.driver.function(module.value, &name) } {
                Err(Status::NOT_FOUND) => return Err(missing()),
                found => gpu.given("looking up a kernel", found)?,
            };
            let (workgroup, shared) = (kernel.workgroup, kernel.shared_bytes);
            if shared > 0 {
                // SAFETY: the function is of the module, which is loaded.
                let granted = unsafe { gpu.driver.grant_shared(function, shared) };
                gpu.check("asking for a kernel's shared memory", granted)?;
            }
            let waits = kernel.facts.as_ref().is_some_and(|facts| facts.waits);
            let order = if waits { Order::Overlapping } else { Order::After };
            Ok(Kernel { function, workgroup, shared, order })
        };
        let kernels = plan.kernels.iter().map(kernel).collect::<Result<_, DeviceError>>()?;
        Ok(Code { kernels, _module: module })
    }
}

/// The programs of a plan on a stream.
pub struct Programs {
    gpu: Gpu,
    stream: Stream,
    programs: Vec<Program<Kernel>>,
    /// One of them as it runs, if some of its launches run as one.
    persistent: Option<Persistent>,
    /// The programs that every step runs alike, captured.
    graphs: Vec<Option<Owned<GraphExec>>>,
    symbols: Vec<Symbol>,
    /// Room for the values of any program's expressions.
    values: Vec<i64>,
}

impl Programs {
    /// Captures what can be captured. `at_load` are the symbols' values of which the context
    /// length is the one in use.
    pub fn prepare(
        gpu: Gpu,
        stream: Stream,
        plan: &Plan,
        programs: Vec<Program<Kernel>>,
        persistent: Option<Persistent>,
        at_load: &Symbols,
    ) -> Result<Programs, DeviceError> {
        let whole = persistent.iter().map(|persistent| &persistent.program);
        let values = programs.iter().chain(whole).map(|program| program.values.len()).max();
        let mut prepared = Programs {
            gpu,
            stream,
            graphs: programs.iter().map(|_| None).collect(),
            programs,
            persistent,
            symbols: plan.symbols.clone(),
            values: vec![0; values.unwrap_or(0)],
        };
        for index in 0..prepared.programs.len() {
            let program = &prepared.programs[index];
            if program.is_fixed(&plan.decode_loop) && !program.launches.is_empty() {
                prepared.graphs[index] = prepared.capture(index, at_load)?;
            }
        }
        Ok(prepared)
    }

    /// Queues a program with these values of the plan's symbols.
    pub fn run(&mut self, index: usize, symbols: &Symbols) -> Result<(), DeviceError> {
        program::checked(&self.programs, index, &self.symbols, symbols)?;
        match &self.graphs[index] {
            Some(graph) => replay(self.gpu, graph.value, self.stream),
            None => self.launch_all(index, symbols),
        }
    }

    /// Queues one launch of a program.
    pub fn run_launch(
        &mut self,
        index: usize,
        launch: usize,
        symbols: &Symbols,
    ) -> Result<(), DeviceError> {
        let program = program::checked(&self.programs, index, &self.symbols, symbols)?;
        if launch >= program.launches.len() {
            return Err(DeviceError::Request("the program has no such launch"));
        }
        self.launch(index, launch..launch + 1, symbols)
    }

    /// Runs a program as it is run, or launch by launch, between events, and waits; gives the
    /// seconds between them. Events are made here: who measures may allocate.
    pub fn time(
        &mut self,
        index: usize,
        symbols: &Symbols,
        by_launch: bool,
    ) -> Result<Vec<f64>, DeviceError> {
        let (gpu, stream) = (self.gpu, self.stream);
        let program = program::checked(&self.programs, index, &self.symbols, symbols)?;
        let parts = if by_launch { program.launches.len() } else { 1 };
        let events = (0..=parts).map(|_| gpu.event(true)).collect::<Result<Vec<_>, _>>()?;
        gpu.record(events[0].value, stream)?;
        for (part, event) in events[1..].iter().enumerate() {
            match by_launch {
                true => self.launch(index, part..part + 1, symbols)?,
                false => self.run(index, symbols)?,
            }
            gpu.record(event.value, stream)?;
        }
        gpu.synchronize(stream)?;
        events.windows(2).map(|pair| gpu.seconds(pair[0].value, pair[1].value)).collect()
    }

    /// Bytes on the device that programs need besides what the plan says.
    pub fn bytes(&self) -> u64 {
        self.persistent.as_ref().map_or(0, Persistent::bytes)
    }

    fn launch_all(&mut self, index: usize, symbols: &Symbols) -> Result<(), DeviceError> {
        let Programs { gpu, stream, programs, persistent, values, .. } = self;
        let program = match persistent {
            Some(persistent) if persistent.index == index => &mut persistent.program,
            _ => &mut programs[index],
        };
        queue(*gpu, *stream, program, 0..program.launches.len(), values, symbols)
    }

    /// Queues some of a program's launches one by one.
    fn launch(
        &mut self,
        index: usize,
        launches: Range<usize>,
        symbols: &Symbols,
    ) -> Result<(), DeviceError> {
        let Programs { gpu, stream, programs, values, .. } = self;
        queue(*gpu, *stream, &mut programs[index], launches, values, symbols)
    }

    /// A program as a graph; none where the library has no graphs.
    fn capture(
        &mut self,
        index: usize,
        symbols: &Symbols,
    ) -> Result<Option<Owned<GraphExec>>, DeviceError> {
        let (gpu, stream) = (self.gpu, self.stream);
        if !gpu.driver.has_graphs() {
            return Ok(None);
        }
        // SAFETY: the stream is alive, and nothing else captures it.
        gpu.check("capturing a step", unsafe { gpu.driver.begin_capture(stream) })?;
        let launched = self.launch_all(index, symbols);
        // SAFETY: the capture that began above.
        let ended = unsafe { gpu.driver.end_capture(stream) };
        launched?;
        let graph = gpu.given("capturing a step", ended)?;
        // SAFETY: the graph was captured; what is made of it does not need it any more.
        let made = unsafe {
            let made = gpu.driver.instantiate(graph);
            let _ = gpu.driver.discard(graph);
            made
        };
        Ok(Some(Owned { gpu, value: gpu.given("preparing a graph", made)? }))
    }
}

/// Queues some of a program's launches. `values` has room for its expressions' values.
fn queue(
    gpu: Gpu,
    stream: Stream,
    program: &mut Program<Kernel>,
    launches: Range<usize>,
    values: &mut [i64],
    symbols: &Symbols,
) -> Result<(), DeviceError> {
    program.evaluate(symbols, |index, value| values[index] = value)?;
    for &(slot, value) in &program.patches {
        program.table[slot] = values[value] as u64;
    }
    let mut first = true;
    for launch in &program.launches[launches] {
        let grid = u32::try_from(values[launch.grid]);
        let grid = grid.map_err(|_| DeviceError::Request("a grid beyond 32 bits"))?;
        if grid > 0 {
            let args = &program.table[launch.args.clone()];
            // SAFETY: as the plan, which is verified, says: arguments are addresses of buffers
            // inside their segments and scalars computed from bounded symbols, and the module and
            // all segments outlive what is queued (see `GpuPlan`).
            unsafe { start(gpu, launch.kernel, grid, args, first, stream)? };
            first = false;
        }
    }
    Ok(())
}

/// Queues a captured program.
fn replay(gpu: Gpu, graph: GraphExec, stream: Stream) -> Result<(), DeviceError> {
    // SAFETY: graph and stream are alive, and so is what the graph's kernels use.
    gpu.check("replaying a step", unsafe { gpu.driver.replay(graph, stream) })
}

/// Queues a kernel, the `first` of those that are queued together: others may be copies or other
/// programs' launches, with which it does not overlap. Its arguments are copied before this returns.
///
/// # Safety
/// The kernel takes these arguments, and what it reaches through them is alive until it has run.
unsafe fn start(
    gpu: Gpu,
    kernel: Kernel,
    grid: u32,
    args: &[u64],
    first: bool,
    stream: Stream,
) -> Result<(), DeviceError> {
    let block = Block { work_items: kernel.workgroup.max(1), shared: kernel.shared };
    let order =
        if first && kernel.order == Order::Overlapping { Order::After } else { kernel.order };
    // SAFETY: the function is of a loaded module; the facts of a kernel that may overlap say that
    // it waits; the rest is the caller's promise.
    let status = unsafe { gpu.driver.launch(kernel.function, grid, block, args, order, stream) };
    gpu.check("launching a kernel", status)
}
