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

/// Why a device that has so many units runs a persistent step launch by launch, if it does: streams
/// that wait for one that has no place on the chip would never end. `kernel` runs the streams;
/// `per_unit` is how many of its workgroups a unit holds, if the driver knows better than the plan.
pub fn too_small(
    step: &PersistentStep,
    kernel: &waveloom_plan::Kernel,
    units: u32,
    per_unit: Option<u32>,
) -> Option<String> {
    let planned = || Some(step.residency.per_unit(kernel.workgroup, kernel.facts.as_ref()?));
    let resident = u64::from(per_unit.or_else(planned)?) * u64::from(units);
    let streams = step.streams.len();
    let form = match resident {
        0 => "launches".to_string(),
        some => format!("persistent:{some}"),
    };
    (streams as u64 > resident).then(|| {
        format!(
            "the decode step was compiled to run on {streams} workgroups at once, and this device \
             has room for {resident}: it runs launch by launch; recompile the model with \
             `--decode {form}`"
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
        let program = shortened(program, step.launches, kernel.together(), streams, addresses);
        let program = program.ok_or_else(unknown)?;
        Ok(Persistent { index: step.program, program, memory })
    }

    /// Bytes on the device.
    pub fn bytes(&self) -> u64 {
        self.memory.iter().map(|memory| memory.bytes).sum()
    }
}

/// The argument slots of a program's first launches.
fn arguments<K>(program: &Program<K>, launches: usize, at_load: &Symbols) -> Option<Vec<u64>> {
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
fn shortened<K: Copy>(
    program: &Program<K>,
    launches: usize,
    kernel: K,
    grid: i64,
    arguments: Vec<u64>,
) -> Option<Program<K>> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use waveloom_plan::persistent::{PERSISTENT_VERSION, Residency};
    use waveloom_plan::{CodeFacts, Kernel};

    /// Three launches: of the slots 1 is the context length, 4 it plus one.
    fn program() -> Program<&'static str> {
        let launch = |kernel, args| Launch { kernel, grid: 0, args };
        let context = Expr::Symbol(0);
        Program {
            launches: vec![launch("a", 0..2), launch("b", 2..3), launch("c", 3..5)],
            values: vec![7.into(), context.clone(), context + 1.into()],
            patches: vec![(1, 1), (4, 2)],
            table: vec![100, 0, 102, 103, 0],
        }
    }

    #[test]
    fn the_table_has_the_arguments_of_the_launches_in_streams() {
        assert_eq!(arguments(&program(), 2, &[512]), Some(vec![100, 512, 102]));
        assert_eq!(arguments(&program(), 3, &[512]), Some(vec![100, 512, 102, 103, 513]));
        assert_eq!(arguments(&program(), 4, &[512]), None);
    }

    #[test]
    fn one_launch_stands_for_the_first_ones() {
        let program = shortened(&program(), 2, "streams", 304, vec![1, 2, 3]).unwrap();
        let launches: Vec<_> = program
            .launches
            .iter()
            .map(|launch| (launch.kernel, program.values[launch.grid].clone(), launch.args.clone()))
            .collect();
        assert_eq!(launches, [("streams", 304.into(), 0..3), ("c", 7.into(), 3..5)]);
        assert_eq!(program.table, [1, 2, 3, 103, 0]);
        assert_eq!(program.patches, [(4, 2)]);
    }

    #[test]
    fn a_device_without_room_for_all_streams_is_told() {
        let facts = CodeFacts { waves_per_simd: 3, lds_bytes: 40 << 10, ..CodeFacts::default() };
        let kernel = Kernel {
            name: "decode_step".into(),
            summary: String::new(),
            workgroup: 256,
            shared_bytes: 0,
            work: None,
            facts: Some(facts),
        };
        let step = PersistentStep {
            version: PERSISTENT_VERSION,
            program: 0,
            launches: 0,
            kernel: 0,
            bodies: vec![],
            residency: Residency { units: 304, simds: 4, wave: 64, lds_bytes: 64 << 10 },
            flags: 0,
            streams: vec![vec![]; 304],
        };
        assert_eq!(too_small(&step, &kernel, 304, None), None);
        assert_eq!(too_small(&step, &kernel, 152, Some(2)), None);
        let none = too_small(&step, &kernel, 304, Some(0)).unwrap();
        assert!(none.ends_with("recompile the model with `--decode launches`"), "{none}");
        assert_eq!(
            too_small(&step, &kernel, 228, None).unwrap(),
            "the decode step was compiled to run on 304 workgroups at once, and this device has room \
             for 228: it runs launch by launch; recompile the model with `--decode persistent:228`"
        );
    }
}
