//! What a card will not tell: uninitialized reads, races, missing waits, divergent barriers, accesses
//! beyond LDS, misaligned wide accesses, registers that were never written.
//!
//! A [`Checker`] observes one launch. It reads instructions from their text ([`crate::effects`]) and
//! accesses from the addresses that the waves report, and keeps a shadow of registers, LDS and global
//! memory. One kind of mistake at one instruction is one report, with a count.

mod global;
mod lds;
mod registers;

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::asm::Instruction;
use crate::dispatch::Launch;
use crate::effects::{Class, Effects, Memory as MemoryEffect};
use crate::memory::Memory;
use crate::object::Kernel;
use crate::probe::{Access, Kind, Observer, Probe, Space};
use crate::program::Program;
use crate::wave::{Group, State, Wave};
use global::GlobalShadow;
use lds::LdsShadow;
use registers::Registers;

/// Kinds of mistakes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mistake {
    /// Global memory is read that nobody wrote.
    UninitializedGlobal,
    /// LDS is read that this workgroup did not write.
    UninitializedLds,
    /// Two waves access the same bytes of LDS, one writes, no barrier lies between.
    LdsRace,
    /// Two waves access the same bytes of global memory, one writes, nothing orders them.
    GlobalRace,
    /// LDS is accessed beyond what the workgroup has: the card reads zeros and drops writes.
    LdsOutOfBounds,
    /// A register is used before the wait for the load or atomic that fills it.
    MissingWait,
    /// A barrier is signaled before the wait for LDS stores that others will read.
    MissingWaitBeforeBarrier,
    /// A barrier with part of the wave's lanes off.
    DivergentBarrier,
    /// Some waves of a workgroup ended with fewer barriers than others.
    UnequalBarriers,
    /// A wide access whose address is not a multiple of what the instruction wants.
    Misaligned,
    /// A register is used that was never written.
    UnwrittenRegister,
}

impl Mistake {
    /// What it is, in words.
    pub fn name(self) -> &'static str {
        match self {
            Mistake::UninitializedGlobal => "uninitialized global memory is read",
            Mistake::UninitializedLds => "uninitialized LDS is read",
            Mistake::LdsRace => "race in LDS",
            Mistake::GlobalRace => "race in global memory",
            Mistake::LdsOutOfBounds => "access beyond the workgroup's LDS",
            Mistake::MissingWait => "missing wait",
            Mistake::MissingWaitBeforeBarrier => "missing wait before a barrier",
            Mistake::DivergentBarrier => "divergent barrier",
            Mistake::UnequalBarriers => "waves with unequal barriers",
            Mistake::Misaligned => "misaligned access",
            Mistake::UnwrittenRegister => "a register that was never written is read",
        }
    }
}

/// One kind of mistake at one instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What kind.
    pub mistake: Mistake,
    /// The kernel.
    pub kernel: String,
    /// Address of the instruction.
    pub address: u64,
    /// Function and offset.
    pub symbol: String,
    /// The instruction.
    pub text: String,
    /// Source file and line, where the object has debug information.
    pub source: Option<String>,
    /// Workgroup of the first time.
    pub workgroup: [u32; 3],
    /// Wave in the workgroup.
    pub wave: u32,
    /// Lane, where it is one lane's mistake.
    pub lane: Option<u32>,
    /// The particulars of the first time.
    pub detail: String,
    /// How often it happened.
    pub count: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [x, y, z] = self.workgroup;
        writeln!(f, "kernel {}: {}: {}", self.kernel, self.mistake.name(), self.detail)?;
        write!(f, "  at {:#x} ({}): {}", self.address, self.symbol, self.text)?;
        if let Some(source) = &self.source {
            write!(f, "  [{source}]")?;
        }
        write!(f, "\n  workgroup ({x}, {y}, {z}), wave {}", self.wave)?;
        if let Some(lane) = self.lane {
            write!(f, ", lane {lane}")?;
        }
        if self.count > 1 {
            write!(f, "; {} times", self.count)?;
        }
        Ok(())
    }
}

/// What was found and what all workgroups share.
struct Shared {
    chip: crate::Chip,
    memory: Arc<Memory>,
    global: GlobalShadow,
    /// By mistake and instruction.
    findings: BTreeMap<(Mistake, u32), Finding>,
    groups: u32,
}

/// A mistake before it is put into words.
#[derive(Clone)]
struct Finding {
    workgroup: [u32; 3],
    wave: u32,
    lane: Option<u32>,
    detail: String,
    count: u64,
}

/// Checks one launch.
pub struct Checker {
    shared: Arc<Mutex<Shared>>,
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Checker {
    /// A checker for one launch of `kernel`.
    pub fn new(kernel: &Kernel, memory: &Arc<Memory>) -> Checker {
        let shared = Shared {
            chip: kernel.chip,
            memory: memory.clone(),
            global: GlobalShadow::default(),
            findings: BTreeMap::new(),
            groups: 0,
        };
        Checker { shared: Arc::new(Mutex::new(shared)) }
    }

    /// What was found so far, by kind and address.
    pub fn reports(&self, kernel: &Kernel) -> Vec<Report> {
        let program = kernel.program();
        let shared = lock(&self.shared);
        let report = |(&(mistake, pc), finding): (&(Mistake, u32), &Finding)| {
            let address = program.address_of(pc);
            Report {
                mistake,
                kernel: kernel.name.clone(),
                address,
                symbol: kernel.symbolize(address),
                text: program.asm.get(pc as usize).map_or(String::new(), |asm| asm.text.clone()),
                source: kernel.source_line(address),
                workgroup: finding.workgroup,
                wave: finding.wave,
                lane: finding.lane,
                detail: finding.detail.clone(),
                count: finding.count,
            }
        };
        shared.findings.iter().map(report).collect()
    }
}

impl Observer for Checker {
    fn start_group(&self, kernel: &Kernel, _: &Launch, group: &Group) -> Option<Box<dyn Probe>> {
        let mut shared = lock(&self.shared);
        shared.groups += 1;
        let number = shared.groups;
        shared.global.start_group(number);
        let user_scalars = (kernel.descriptor.rsrc[1] >> 1 & 0x1f) as u16;
        Some(Box::new(GroupChecker {
            shared: self.shared.clone(),
            number,
            id: group.id,
            initial_scalars: user_scalars + 4,
            waves: BTreeMap::new(),
            lds: LdsShadow::new(group.lds.len()),
            barriers: 0,
            fewest: None,
            present: (None, false),
        }))
    }

    fn end_group(&self, _: &Kernel, _: Box<dyn Probe>) {}
}

/// State of one wave.
struct WaveState {
    registers: Registers,
    /// Lanes that were on when the wave started.
    initial_exec: u64,
    /// Barriers that it signaled.
    barriers: u32,
}

/// Checks one workgroup.
struct GroupChecker {
    shared: Arc<Mutex<Shared>>,
    /// Number among the workgroups of the launch, from 1.
    number: u32,
    id: [u32; 3],
    /// Scalar registers that the dispatcher may have filled.
    initial_scalars: u16,
    waves: BTreeMap<u32, WaveState>,
    lds: LdsShadow,
    /// Barriers that all waves passed.
    barriers: u32,
    /// The fewest barriers of a wave that has ended.
    fewest: Option<u32>,
    /// What the present instruction does with memory, and whether at device scope.
    present: (Option<MemoryEffect>, bool),
}

/// Collects findings of one instruction.
struct Sink<'a> {
    findings: &'a mut BTreeMap<(Mistake, u32), Finding>,
    workgroup: [u32; 3],
    wave: u32,
    pc: u32,
}

impl Sink<'_> {
    fn report(&mut self, mistake: Mistake, lane: Option<u32>, detail: impl FnOnce() -> String) {
        let (workgroup, wave) = (self.workgroup, self.wave);
        self.findings
            .entry((mistake, self.pc))
            .and_modify(|finding| finding.count += 1)
            .or_insert_with(|| Finding { workgroup, wave, lane, detail: detail(), count: 1 });
    }
}

impl GroupChecker {
    fn state(&mut self, wave: &Wave) -> &mut WaveState {
        let scalars = self.initial_scalars;
        self.waves.entry(wave.id).or_insert_with(|| WaveState {
            registers: Registers::new(scalars),
            initial_exec: wave.exec(),
            barriers: 0,
        })
    }
}

impl Probe for GroupChecker {
    fn before(&mut self, program: &Program, pc: u32, wave: &Wave, _: &Group) {
        let shared = self.shared.clone();
        let mut shared = lock(&shared);
        let Shared { chip, findings, global, .. } = &mut *shared;
        let (Some(asm), Some(effects)) =
            (program.asm.get(pc as usize), program.effects().get(pc as usize))
        else {
            return;
        };
        let mut sink = Sink { findings, workgroup: self.id, wave: wave.id, pc };
        self.present = (effects.memory, effects.coherent);
        let (number, fewest) = (self.number, self.fewest);
        let state = self.state(wave);
        state.registers.before(asm, effects, *chip, wave, &mut sink);
        if signals_barrier(asm, effects) {
            state.barriers += 1;
            if let Some(fewest) = fewest.filter(|fewest| *fewest < state.barriers) {
                let mine = state.barriers;
                sink.report(Mistake::UnequalBarriers, None, || {
                    format!("its barrier number {mine}, another wave ended after {fewest}")
                });
            }
            if wave.exec() != state.initial_exec {
                let (now, all) = (wave.exec(), state.initial_exec);
                sink.report(Mistake::DivergentBarrier, None, || {
                    format!("lanes {now:#x} of {all:#x} are on")
                });
            }
        }
        if registers::drains_stores(asm, *chip) {
            global.release(number);
        }
        if invalidates_cache(asm) || effects.memory == Some(MemoryEffect::AtomicReturn) {
            global.acquire(number);
        }
    }

    fn after(&mut self, program: &Program, pc: u32, wave: &Wave, _: &Group) {
        let shared = self.shared.clone();
        let mut shared = lock(&shared);
        let Shared { global, .. } = &mut *shared;
        let (Some(asm), Some(effects)) =
            (program.asm.get(pc as usize), program.effects().get(pc as usize))
        else {
            return;
        };
        if matches!(effects.memory, Some(MemoryEffect::Atomic | MemoryEffect::AtomicReturn)) {
            global.release(self.number);
        }
        self.state(wave).registers.after(asm, effects);
    }

    fn access(&mut self, pc: u32, wave: &Wave, access: &Access<'_>) {
        let shared = self.shared.clone();
        let mut shared = lock(&shared);
        let Shared { findings, global, memory, .. } = &mut *shared;
        let mut sink = Sink { findings, workgroup: self.id, wave: wave.id, pc };
        check_alignment(access, &mut sink);
        match access.space {
            Space::Lds => {
                let dma = self.present.0 == Some(MemoryEffect::LoadToLds);
                self.lds.access(access, wave.id, &mut sink);
                let state = self.state(wave);
                state.registers.lds_access(access, dma, &mut sink);
            }
            Space::Global => {
                let coherent = self.present.1;
                let who =
                    global::Who { group: self.number, wave: wave.id, barriers: self.barriers };
                global.access(access, who, coherent, memory, &mut sink);
            }
            Space::Scratch => {}
        }
    }

    fn barrier(&mut self) {
        self.barriers += 1;
        self.lds.barrier();
    }

    fn wave_ended(&mut self, wave: &Wave) {
        let pc = wave.pc.saturating_sub(1);
        let counts: Vec<u32> = self.waves.values().map(|state| state.barriers).collect();
        let Some(mine) = self.waves.get(&wave.id).map(|state| state.barriers) else { return };
        let most = counts.iter().copied().max().unwrap_or(0);
        self.fewest = Some(self.fewest.map_or(mine, |fewest| fewest.min(mine)));
        // Others that have signaled once more may be waiting for this wave.
        if wave.state == State::Ended && most > mine {
            let shared = self.shared.clone();
            let mut shared = lock(&shared);
            let findings = &mut shared.findings;
            let mut sink = Sink { findings, workgroup: self.id, wave: wave.id, pc };
            sink.report(Mistake::UnequalBarriers, None, || {
                format!("it ended after {mine} barriers, another wave is at number {most}")
            });
        }
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

fn signals_barrier(asm: &Instruction, effects: &Effects) -> bool {
    effects.class == Class::Barrier
        && (asm.mnemonic == "s_barrier" || asm.mnemonic.starts_with("s_barrier_signal"))
}

/// Acquires at device scope end with one of these.
fn invalidates_cache(asm: &Instruction) -> bool {
    let prefixes =
        ["buffer_inv", "buffer_wbinvl1", "buffer_gl0_inv", "buffer_gl1_inv", "global_inv"];
    prefixes.iter().any(|prefix| asm.mnemonic.starts_with(prefix))
}

/// LDS wants wide accesses aligned to their width (up to 16 bytes), global memory to four bytes.
fn check_alignment(access: &Access<'_>, sink: &mut Sink<'_>) {
    let wanted = match (access.space, access.bytes) {
        (Space::Lds, 8) => 8,
        (Space::Lds, 12 | 16) => 16,
        (_, bytes @ (1 | 2)) => u64::from(bytes),
        _ => 4,
    };
    for lane in lanes(access.lanes) {
        let address = access.addresses[lane];
        if !address.is_multiple_of(wanted) {
            let bytes = access.bytes;
            sink.report(Mistake::Misaligned, Some(lane as u32), || {
                format!("{bytes} bytes at {address:#x}, which is no multiple of {wanted}")
            });
        }
    }
}

/// The numbers of the bits that are set.
fn lanes(mut mask: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        (mask != 0).then(|| {
            let lane = mask.trailing_zeros() as usize;
            mask &= mask - 1;
            lane
        })
    })
}

fn writes(kind: Kind) -> bool {
    kind != Kind::Load
}
