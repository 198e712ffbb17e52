//! The state of a wave and of its workgroup.

use std::sync::Arc;

use crate::Chip;
use crate::memory::{Memory, Regions};
use crate::probe::Probe;

/// Lanes of a row. A 32-lane wave uses the first half.
pub const LANES: usize = 64;

/// One vector register: a 32-bit value per lane.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Row(pub [u32; LANES]);

impl Row {
    /// Every lane zero.
    pub const ZERO: Row = Row([0; LANES]);
}

/// First row of the accumulation registers; rows before it are v0 to v255.
pub const AGPR: usize = 256;
/// First of the rows in which operands are prepared (broadcast, negated, permuted).
pub const SCRATCH: usize = 512;
/// How many of them there are.
pub const SCRATCH_ROWS: usize = 32;
/// Rows of a wave.
pub const ROWS: usize = SCRATCH + SCRATCH_ROWS;

/// Places in the scalar file beyond the numbered registers, the same for every chip.
pub mod scalar {
    /// Flat scratch base on CDNA (s102 and s103 elsewhere).
    pub const FLAT_SCRATCH: usize = 102;
    /// XNACK mask on CDNA (s104 and s105 elsewhere).
    pub const XNACK_MASK: usize = 104;
    /// Vector condition code, low half.
    pub const VCC: usize = 106;
    /// First of sixteen trap temporaries.
    pub const TTMP: usize = 108;
    /// Reads as zero, swallows writes.
    pub const NULL: usize = 124;
    /// Memory base register.
    pub const M0: usize = 125;
    /// Execution mask, low half.
    pub const EXEC: usize = 126;
    /// Registers of the file.
    pub const COUNT: usize = 128;
}

/// Bits of the MODE register, the same on every chip where they exist.
pub mod mode {
    /// Bits 0–1: rounding of f32 (0 nearest even, 1 up, 2 down, 3 toward zero); 2–3: of f16 and f64.
    pub const ROUND: u32 = 0xf;
    /// Bits 4–5: denormals of f32 (bit 4 keeps inputs, bit 5 keeps outputs); 6–7: of f16 and f64.
    pub const DENORM: u32 = 0xf0;
    /// DX10_CLAMP: a clamped NaN is zero.
    pub const DX10_CLAMP: u32 = 1 << 8;
    /// IEEE: min and max quiet signaling NaNs, clamp and omod keep NaNs.
    pub const IEEE: u32 = 1 << 9;
    /// FP16_OVFL: conversions to f16 and fp8 saturate.
    pub const FP16_OVFL: u32 = 1 << 23;
    /// GPR_IDX_EN of CDNA: M0 is added to the numbers of vector registers.
    pub const GPR_INDEX: u32 = 1 << 27;
}

/// What the scheduler must do with a wave after an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Go on.
    Running,
    /// Let others run first (`s_sleep`, polling).
    Yielded,
    /// Waits at the workgroup's barrier: the scheduler resumes it when [`Wave::passes_barrier`].
    Barrier,
    /// `s_endpgm`.
    Ended,
}

/// Why a wave cannot go on. The dispatcher adds kernel, address, text and wave state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No semantics for this instruction or one of its modifiers.
    #[error("the emulator does not know `{0}`")]
    Unknown(String),
    /// A load, store or atomic outside of every allocation.
    #[error(
        "{access} of {bytes} bytes at {address:#x} by lane {lane} is outside of every allocation{note}"
    )]
    Address {
        /// "load", "store", "atomic" or "instruction fetch".
        access: &'static str,
        /// First byte.
        address: u64,
        /// Width of the access.
        bytes: u32,
        /// Lane, 0 for scalar accesses.
        lane: u32,
        /// What is near, in words that begin with ", ", or empty.
        note: String,
    },
    /// A jump to something that is no instruction.
    #[error("jump to {0:#x}, which is no instruction of this code object")]
    Jump(u64),
    /// `s_trap`, a failed assertion of the program.
    #[error("trap {0}")]
    Trap(u32),
    /// More instructions than `WAVELOOM_EMU_MAX_INSTRUCTIONS` allows.
    #[error("more than {0} instructions were executed")]
    Budget(u64),
    /// Every wave waits and none can go on.
    #[error("{0}")]
    Deadlock(String),
    /// Anything else that the machine forbids.
    #[error("{0}")]
    Illegal(String),
}

/// Outcome of one instruction.
pub type Step = Result<(), Box<Fault>>;

/// An instruction, compiled.
pub type Exec = Box<dyn Fn(&mut Wave, &mut Group) -> Step + Send + Sync>;

/// One wave's registers.
pub struct Wave {
    /// Vector registers: `ROWS` rows.
    pub rows: Box<[Row]>,
    /// Scalar registers; places beyond s105 are in [`scalar`].
    pub sgpr: [u32; scalar::COUNT],
    /// Scalar condition code.
    pub scc: bool,
    /// Index in the program of the next instruction to execute.
    pub pc: u32,
    /// 32 or 64.
    pub lanes: u32,
    /// MODE register, bits in [`mode`].
    pub mode: u32,
    /// What the scheduler must do next.
    pub state: State,
    /// Number in the workgroup.
    pub id: u32,
    /// The barrier phase that this wave has passed, see [`Group::phase`].
    pub phase: u32,
    /// Private memory: lane l's byte b is at `scratch[l * scratch_stride + b]`.
    pub scratch: Vec<u8>,
    /// Bytes of private memory per lane.
    pub scratch_stride: u32,
}

impl Wave {
    /// A wave with all registers zero and all lanes on.
    pub fn new(id: u32, lanes: u32) -> Wave {
        let mut wave = Wave {
            rows: vec![Row::ZERO; ROWS].into_boxed_slice(),
            sgpr: [0; scalar::COUNT],
            scc: false,
            pc: 0,
            lanes,
            mode: mode::DENORM,
            state: State::Running,
            id,
            phase: 0,
            scratch: Vec::new(),
            scratch_stride: 0,
        };
        wave.set_exec(u64::MAX);
        wave
    }

    /// Lanes that execute.
    #[inline(always)]
    pub fn exec(&self) -> u64 {
        self.pair(scalar::EXEC)
    }

    /// Sets the lanes that execute, cut to the wave's width.
    pub fn set_exec(&mut self, exec: u64) {
        self.set_mask(scalar::EXEC, exec);
    }

    /// Two scalar registers as one value.
    #[inline(always)]
    pub fn pair(&self, index: usize) -> u64 {
        u64::from(self.sgpr[index]) | u64::from(self.sgpr[index + 1]) << 32
    }

    /// Writes two scalar registers; `NULL` swallows the write.
    #[inline(always)]
    pub fn set_pair(&mut self, index: usize, value: u64) {
        if index != scalar::NULL {
            self.sgpr[index] = value as u32;
            self.sgpr[index + 1] = (value >> 32) as u32;
        }
    }

    /// Writes one scalar register; `NULL` swallows the write.
    #[inline(always)]
    pub fn set_sgpr(&mut self, index: usize, value: u32) {
        if index != scalar::NULL {
            self.sgpr[index] = value;
        }
    }

    /// A lane mask: one register of a 32-lane wave, two of a 64-lane one.
    #[inline(always)]
    pub fn mask(&self, index: usize) -> u64 {
        if self.lanes == 64 { self.pair(index) } else { u64::from(self.sgpr[index]) }
    }

    /// Writes a lane mask, the second register only in a 64-lane wave.
    #[inline(always)]
    pub fn set_mask(&mut self, index: usize, mask: u64) {
        if self.lanes == 64 {
            self.set_pair(index, mask);
        } else {
            self.set_sgpr(index, mask as u32);
        }
    }

    /// Whether a wave in state [`State::Barrier`] may go on, because a phase is complete that it has
    /// not passed yet; if so it has passed it now, and runs.
    pub fn passes_barrier(&mut self, group: &Group) -> bool {
        let passes = self.phase != group.phase;
        if passes {
            (self.phase, self.state) = (group.phase, State::Running);
        }
        passes
    }

    /// The mask of all lanes that the wave has.
    #[inline(always)]
    pub fn all_lanes(&self) -> u64 {
        if self.lanes == 64 { u64::MAX } else { 0xffff_ffff }
    }
}

/// What the waves of one workgroup share.
pub struct Group {
    /// The chip that is emulated.
    pub chip: Chip,
    /// Local data share: static and dynamic bytes of this workgroup.
    pub lds: Vec<u8>,
    /// Global memory.
    pub memory: Arc<Memory>,
    /// Where recent accesses found it good.
    pub regions: Regions,
    /// Workgroup number in x, y, z.
    pub id: [u32; 3],
    /// Waves of this workgroup that have not ended.
    pub live_waves: u32,
    /// Waves that have signaled in the present phase of the barrier. `s_barrier` signals and waits.
    pub signaled: u32,
    /// Phases of the barrier that are complete: every live wave had signaled.
    pub phase: u32,
    /// The time that programs read; each reading advances it.
    pub clock: u64,
    /// Observer of this workgroup, if checks, statistics or a trace were asked for.
    pub probe: Option<Box<dyn Probe>>,
}

impl Group {
    /// A workgroup of `waves` waves with `lds_bytes` of LDS, all zero.
    pub fn new(
        chip: Chip,
        lds_bytes: usize,
        memory: Arc<Memory>,
        id: [u32; 3],
        waves: u32,
    ) -> Group {
        let lds = vec![0; lds_bytes];
        let regions = Regions::default();
        let live_waves = waves;
        Group {
            chip,
            lds,
            memory,
            regions,
            id,
            live_waves,
            signaled: 0,
            phase: 0,
            clock: 0,
            probe: None,
        }
    }

    /// A wave signals the barrier.
    pub fn signal(&mut self) {
        self.signaled += 1;
        self.complete_barrier();
    }

    /// A wave has ended; the others no longer wait for it.
    pub fn wave_ended(&mut self) {
        self.live_waves = self.live_waves.saturating_sub(1);
        self.complete_barrier();
    }

    /// Starts the next phase if every live wave has signaled in this one.
    fn complete_barrier(&mut self) {
        if self.signaled == 0 || self.signaled < self.live_waves {
            return;
        }
        self.signaled = 0;
        self.phase = self.phase.wrapping_add(1);
        if let Some(probe) = &mut self.probe {
            probe.barrier();
        }
    }
}
