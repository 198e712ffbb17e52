//! A persistent step on the device: the arguments of its launches, its streams, and the memory in
//! which streams meet. `waveloom_plan::persistent` says what these are.
#![allow(unsafe_code)]

use super::device::{DeviceMemory, Gpu};
use super::driver::Stream;
use super::launch::Kernel;
use super::staging::Staging;
use crate::device::DeviceError;
use crate::program::{Launch, Program};
use waveloom_plan::{Expr, PersistentStep, Plan, Symbols};

/// A program whose first launches run as one.
pub struct Persistent {
    /// Its index in the plan.
    pub index: usize,
    /// The launch of the streams, then those that follow it.
    pub program: Program<Kernel>,
    /// Arguments, streams, flags.
    memory: [DeviceMemory; 3],
}

/// Why a device that has so many units runs a plan's persistent step launch by launch, if it does:
/// streams that wait for one that has no place on the chip would never end.
pub fn too_small(plan: &Plan, step: &PersistentStep, units: u32) -> Option<String> {
    let kernel = plan.kernels.get(step.kernel)?;
    let per_unit = step.residency.per_unit(kernel.workgroup, kernel.facts.as_ref()?);
    let resident = u64::from(per_unit) * u64::from(units);
    let streams = step.streams.len();
    (streams as u64 > resident).then(|| {
        format!(
            "the decode step was compiled for {streams} workgroups at once and this device holds \
             {resident} of them: it runs launch by launch; `--decode persistent:{resident}` compiles \
             for this device"
        )
    })
}

impl Persistent {
    /// Brings a plan's persistent step to the device. `program` is its program, resolved; `at_load`
    /// are the symbols' values of which the context length is the one in use.
    pub fn load(
        gpu: Gpu,
        stream: Stream,
        plan: &Plan,
        step: &PersistentStep,
        kernel: Kernel,
        program: &Program<Kernel>,
        at_load: &Symbols,
    ) -> Result<Persistent, DeviceError> {
        let unknown = || DeviceError::Request("the plan's persistent step is not of its program");
        let code = step.encode(plan).ok_or_else(unknown)?.code;
        let arguments = arguments(program, step.launches, at_load).ok_or_else(unknown)?;
        let arguments: Vec<u8> = arguments.into_iter().flat_map(u64::to_le_bytes).collect();
        let code: Vec<u8> = code.into_iter().flat_map(u32::to_le_bytes).collect();
        let sync = step.sync().bytes();
        let needed = (arguments.len() + code.len()) as u64 + sync;
        let zeroed = |bytes: u64| DeviceMemory::zeroed(gpu, bytes, needed, stream);
        let memory = [zeroed(arguments.len() as u64)?, zeroed(code.len() as u64)?, zeroed(sync)?];
        let mut staging = Staging::new(gpu, stream, 2, 1 << 20)?;
        for (memory, bytes) in memory.iter().zip([&arguments, &code]) {
            let address = memory.address(0).ok_or_else(unknown)?;
            // SAFETY: the allocation has as many bytes, and no kernel uses it yet.
            unsafe { staging.copy(address, bytes)? };
        }
        gpu.synchronize(stream)?;
        let addresses: Option<Vec<u64>> = memory.iter().map(|memory| memory.address(0)).collect();
        let addresses = addresses.ok_or_else(unknown)?;
        let streams = step.streams.len() as i64;
        let program = shortened(program, step.launches, kernel, streams, addresses);
        let program = program.ok_or_else(unknown)?;
        Ok(Persistent { index: step.program, program, memory })
    }

    /// Bytes on the device.
    pub fn bytes(&self) -> u64 {
        self.memory.iter().map(|memory| memory.bytes).sum()
    }
}

/// The argument slots of a program's first launches.
fn arguments(program: &Program<Kernel>, launches: usize, at_load: &Symbols) -> Option<Vec<u64>> {
    let end = launches
        .checked_sub(1)
        .map_or(Some(0), |last| program.launches.get(last).map(|launch| launch.args.end))?;
    let mut table = program.table.get(..end)?.to_vec();
    for &(slot, value) in &program.patches {
        if let Some(slot) = table.get_mut(slot) {
            *slot = program.values.get(value)?.eval(at_load)? as u64;
        }
    }
    Some(table)
}

/// A program with `kernel` in the place of its first launches.
fn shortened(
    program: &Program<Kernel>,
    launches: usize,
    kernel: Kernel,
    grid: i64,
    arguments: Vec<u64>,
) -> Option<Program<Kernel>> {
    let rest = program.launches.get(launches..)?;
    let before = rest.first().map_or(program.table.len(), |launch| launch.args.start);
    let moved = |slot: usize| slot - before + arguments.len();
    let mut values = program.values.clone();
    values.push(Expr::from(grid));
    let streams = Launch { kernel, grid: values.len() - 1, args: 0..arguments.len() };
    let rest = rest.iter().map(|launch| Launch {
        kernel: launch.kernel,
        grid: launch.grid,
        args: moved(launch.args.start)..moved(launch.args.end),
    });
    let patches = program.patches.iter().filter(|(slot, _)| *slot >= before);
    Some(Program {
        launches: std::iter::once(streams).chain(rest).collect(),
        patches: patches.map(|&(slot, value)| (moved(slot), value)).collect(),
        table: [&arguments[..], &program.table[before..]].concat(),
        values,
    })
}
