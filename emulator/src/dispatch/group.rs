//! One workgroup on its way: waves in turns, barriers, faults.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{FaultReport, Shared};
use crate::object::Kernel;
use crate::probe::{Observer, Probes};
use crate::program::Program;
use crate::wave::{Fault, Group, State, Step, Wave, scalar};

/// Instructions that a wave executes before another has its turn.
const SLICE: u32 = 1 << 14;
/// Instructions that a workgroup executes before its thread looks after others. Most end sooner.
const SHARE: u64 = 1 << 21;

/// A workgroup that has started.
pub struct Running {
    group: Group,
    waves: Vec<Wave>,
    ended: Vec<Wave>,
    /// Observers that the probes are given back to, in the order of the probes.
    owners: Vec<Arc<dyn Observer>>,
}

impl Running {
    /// Sets a workgroup up; wave buffers come from `spare` as far as it has them.
    pub fn start(shared: &Shared<'_>, id: [u32; 3], spare: &mut Vec<Wave>) -> Running {
        let (group, waves) = super::setup::workgroup(shared, id, spare);
        let mut running = Running { group, waves, ended: Vec::new(), owners: Vec::new() };
        let mut probes = Vec::new();
        for observer in &shared.options.observers {
            let (kernel, launch) = (shared.kernel, &shared.launch);
            if let Some(probe) = observer.start_group(kernel, launch, &running.group) {
                running.owners.push(observer.clone());
                probes.push(probe);
            }
        }
        if !probes.is_empty() {
            running.group.probe = Some(Box::new(Probes(probes)));
        }
        running
    }

    /// Runs the workgroup for its share; `true` when it has ended.
    pub fn share(&mut self, shared: &Shared<'_>) -> Result<bool, Box<FaultReport>> {
        let program = shared.kernel.program();
        let mut used = 0;
        while used < SHARE {
            let mut progressed = false;
            let mut polling = true;
            let mut index = 0;
            while index < self.waves.len() {
                let wave = &mut self.waves[index];
                if wave.state == State::Barrier && !wave.passes_barrier(&self.group) {
                    index += 1;
                    continue;
                }
                progressed = true;
                wave.state = State::Running;
                let (executed, step) = run_slice(program, wave, &mut self.group);
                let step = step.and_then(|()| shared.count(executed).map_err(Box::new));
                if let Err(fault) = step {
                    return Err(self.report(shared.kernel, index, *fault));
                }
                used += executed;
                polling &= self.waves[index].state == State::Yielded;
                if self.waves[index].state == State::Ended {
                    self.end_wave(index);
                } else {
                    index += 1;
                }
            }
            if self.waves.is_empty() {
                return Ok(true);
            }
            if !progressed {
                return Err(self.deadlock(shared.kernel));
            }
            if polling {
                // Everybody waits for another workgroup: look after those.
                break;
            }
            if shared.failed.load(Ordering::Relaxed) {
                break;
            }
        }
        Ok(false)
    }

    fn end_wave(&mut self, index: usize) {
        let wave = self.waves.remove(index);
        if let Some(probe) = &mut self.group.probe {
            probe.wave_ended(&wave);
        }
        self.group.wave_ended();
        self.ended.push(wave);
    }

    /// All waves wait at the barrier, and one that did not signal waits too.
    fn deadlock(&self, kernel: &Kernel) -> Box<FaultReport> {
        let (signaled, live) = (self.group.signaled, self.group.live_waves);
        let text =
            format!("{signaled} of {live} waves have signaled the barrier, and all wait at it");
        self.report(kernel, 0, Fault::Deadlock(text))
    }

    /// Gives the probe back to its observer and the wave buffers to `spare`.
    pub fn finish(mut self, kernel: &Kernel, spare: &mut Vec<Wave>) {
        spare.append(&mut self.waves);
        spare.append(&mut self.ended);
        let probes = self.group.probe.take().map(|probe| probe.into_any().downcast::<Probes>());
        if let Some(Ok(probes)) = probes {
            let pairs = self.owners.iter().zip(probes.0);
            pairs.for_each(|(observer, probe)| observer.end_group(kernel, probe));
        }
    }

    fn report(&self, kernel: &Kernel, wave: usize, fault: Fault) -> Box<FaultReport> {
        let wave = &self.waves[wave];
        let program = kernel.program();
        let pc = wave.pc.saturating_sub(1);
        let address = program.address_of(pc);
        let text = program.asm.get(pc as usize).map_or("end of the code", |asm| &asm.text);
        Box::new(FaultReport {
            kernel: kernel.name.clone(),
            fault,
            address,
            symbol: kernel.symbolize(address),
            text: text.to_string(),
            source: kernel.source_line(address),
            workgroup: self.group.id,
            wave: wave.id,
            state: describe(wave),
            reports: Vec::new(),
        })
    }
}

/// Runs one wave until it must wait, has ended, or has had its turn.
fn run_slice(program: &Program, wave: &mut Wave, group: &mut Group) -> (u64, Step) {
    if group.probe.is_some() {
        return run_slice_observed(program, wave, group);
    }
    let mut left = SLICE;
    while left > 0 {
        let Some(exec) = program.exec.get(wave.pc as usize) else {
            return (u64::from(SLICE - left), Err(off_the_end(program, wave)));
        };
        wave.pc += 1;
        left -= 1;
        if let Err(fault) = exec(wave, group) {
            return (u64::from(SLICE - left), Err(fault));
        }
        if wave.state != State::Running {
            break;
        }
    }
    (u64::from(SLICE - left), Ok(()))
}

fn run_slice_observed(program: &Program, wave: &mut Wave, group: &mut Group) -> (u64, Step) {
    let mut executed = 0;
    while executed < u64::from(SLICE) {
        let pc = wave.pc;
        let Some(exec) = program.exec.get(pc as usize) else {
            return (executed, Err(off_the_end(program, wave)));
        };
        let mut probe = group.probe.take();
        if let Some(probe) = &mut probe {
            probe.before(program, pc, wave, group);
        }
        group.probe = probe;
        wave.pc += 1;
        executed += 1;
        if let Err(fault) = exec(wave, group) {
            return (executed, Err(fault));
        }
        let mut probe = group.probe.take();
        if let Some(probe) = &mut probe {
            probe.after(program, pc, wave, group);
        }
        group.probe = probe;
        if wave.state != State::Running {
            break;
        }
    }
    (executed, Ok(()))
}

fn off_the_end(program: &Program, wave: &mut Wave) -> Box<Fault> {
    let address = program.address_of(wave.pc);
    wave.pc = wave.pc.saturating_add(1);
    Box::new(Fault::Jump(address))
}

/// Registers that help to see what went wrong.
fn describe(wave: &Wave) -> String {
    let mut out = String::new();
    let (exec, vcc) = (wave.exec(), wave.mask(scalar::VCC));
    let _ = writeln!(
        out,
        "  exec {exec:#x}, vcc {vcc:#x}, scc {}, m0 {:#x}, mode {:#x}",
        u8::from(wave.scc),
        wave.sgpr[scalar::M0],
        wave.mode
    );
    for row in 0..4 {
        let _ = write!(out, "  s{:<3}", 8 * row);
        for value in &wave.sgpr[8 * row..8 * row + 8] {
            let _ = write!(out, " {value:08x}");
        }
        out.push('\n');
    }
    let lane = exec.trailing_zeros().min(63) as usize;
    for row in 0..2 {
        let _ = write!(out, "  v{:<3}", 8 * row);
        for register in &wave.rows[8 * row..8 * row + 8] {
            let _ = write!(out, " {:08x}", register.0[lane]);
        }
        let _ = writeln!(out, "  (lane {lane})");
    }
    out.truncate(out.trim_end().len());
    out
}
