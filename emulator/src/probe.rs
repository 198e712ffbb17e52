//! Observers of execution: checks, statistics and traces hook in here and nowhere else.

use std::any::Any;

use crate::dispatch::Launch;
use crate::object::Kernel;
use crate::program::Program;
use crate::wave::{Group, LANES, Wave};

/// What an access does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Reads.
    Load,
    /// Writes.
    Store,
    /// Reads and writes at once.
    Atomic,
}

/// Where an access goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// Device memory.
    Global,
    /// Workgroup memory; addresses are offsets in it.
    Lds,
    /// Private memory; addresses are offsets in the lane's part.
    Scratch,
}

/// One memory instruction of one wave.
pub struct Access<'a> {
    /// What it does.
    pub kind: Kind,
    /// Where.
    pub space: Space,
    /// First byte of each lane's access; meaningless for lanes that are off.
    pub addresses: &'a [u64; LANES],
    /// Lanes that access. A scalar access is lane 0.
    pub lanes: u64,
    /// Bytes of each lane's access.
    pub bytes: u32,
}

/// Called around every instruction of one workgroup. Every method may look at anything and
/// change nothing of the program's results.
pub trait Probe: Send {
    /// Before the instruction at `pc` executes. `group.probe` is empty during the call.
    fn before(&mut self, program: &Program, pc: u32, wave: &Wave, group: &Group);
    /// After it executed without a fault.
    fn after(&mut self, program: &Program, pc: u32, wave: &Wave, group: &Group);
    /// A memory access of the instruction at `pc`, before it happens.
    fn access(&mut self, pc: u32, wave: &Wave, access: &Access<'_>);
    /// All waves passed the workgroup's barrier.
    fn barrier(&mut self);
    /// A wave reached its end.
    fn wave_ended(&mut self, wave: &Wave);
    /// The probe itself, for the observer that made it.
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
}

/// Observes a launch: makes a probe for each workgroup that it wants to see and takes it back when
/// the workgroup is done. Workgroups run on several threads.
pub trait Observer: Send + Sync {
    /// A probe for the workgroup `group`, or none. Registers are not set up yet.
    fn start_group(
        &self,
        kernel: &Kernel,
        launch: &Launch,
        group: &Group,
    ) -> Option<Box<dyn Probe>>;
    /// The workgroup ended or faulted.
    fn end_group(&self, kernel: &Kernel, probe: Box<dyn Probe>);
}

/// Several probes as one.
pub struct Probes(pub Vec<Box<dyn Probe>>);

impl Probe for Probes {
    fn before(&mut self, program: &Program, pc: u32, wave: &Wave, group: &Group) {
        self.0.iter_mut().for_each(|probe| probe.before(program, pc, wave, group));
    }

    fn after(&mut self, program: &Program, pc: u32, wave: &Wave, group: &Group) {
        self.0.iter_mut().for_each(|probe| probe.after(program, pc, wave, group));
    }

    fn access(&mut self, pc: u32, wave: &Wave, access: &Access<'_>) {
        self.0.iter_mut().for_each(|probe| probe.access(pc, wave, access));
    }

    fn barrier(&mut self) {
        self.0.iter_mut().for_each(|probe| probe.barrier());
    }

    fn wave_ended(&mut self, wave: &Wave) {
        self.0.iter_mut().for_each(|probe| probe.wave_ended(wave));
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
