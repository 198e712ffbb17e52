//! The state that the statements change, and the emulator beside it.
//!
//! [`State`] is the machine as the tests see it: plain arrays. A test gives both the same values,
//! lets the emulator execute one instruction and a statement change the state, and compares
//! everything: what was not to change must not have changed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use waveloom_emulator::Chip;
use waveloom_emulator::asm::Instruction;
use waveloom_emulator::memory::Memory;
use waveloom_emulator::program::Program;
use waveloom_emulator::wave::{Group, ROWS, Wave};

use crate::assembler::assemble;

/// Places of the scalar file.
pub const VCC: usize = 106;
/// The register that swallows writes.
pub const NULL: usize = 124;
/// Memory base.
pub const M0: usize = 125;
/// Execution mask.
pub const EXEC: usize = 126;
/// First row of the accumulation registers.
pub const AGPR: usize = 256;
/// Rows that instructions can name.
pub const NAMED: usize = 512;

/// Registers, as the statements see them.
#[derive(Clone)]
pub struct State {
    /// The chip.
    pub chip: Chip,
    /// 32 or 64.
    pub lanes: usize,
    /// v0 to v255, then a0 to a255.
    pub v: Vec<[u32; 64]>,
    /// The scalar file.
    pub s: [u32; 128],
    /// Scalar condition code.
    pub scc: bool,
    /// MODE.
    pub mode: u32,
}

impl State {
    /// Two scalar registers.
    pub fn pair(&self, index: usize) -> u64 {
        u64::from(self.s[index]) | u64::from(self.s[index + 1]) << 32
    }

    /// Writes two scalar registers.
    pub fn set_pair(&mut self, index: usize, value: u64) {
        self.s[index] = value as u32;
        self.s[index + 1] = (value >> 32) as u32;
    }

    /// A lane mask.
    pub fn mask(&self, index: usize) -> u64 {
        if self.lanes == 64 { self.pair(index) } else { u64::from(self.s[index]) }
    }

    /// Writes a lane mask: one register of a 32-lane wave, two of a 64-lane one.
    pub fn set_mask(&mut self, index: usize, value: u64) {
        self.s[index] = value as u32;
        if self.lanes == 64 {
            self.s[index + 1] = (value >> 32) as u32;
        }
    }

    /// Lanes that execute.
    pub fn exec(&self) -> u64 {
        self.mask(EXEC)
    }

    /// Whether a lane executes.
    pub fn on(&self, lane: usize) -> bool {
        self.exec() >> lane & 1 == 1
    }

    /// One or two registers of a lane.
    pub fn get(&self, row: usize, rows: usize, lane: usize) -> u64 {
        let high = if rows > 1 { u64::from(self.v[row + 1][lane]) } else { 0 };
        u64::from(self.v[row][lane]) | high << 32
    }

    /// Writes one or two registers of a lane.
    pub fn set(&mut self, row: usize, rows: usize, lane: usize, value: u64) {
        self.v[row][lane] = value as u32;
        if rows > 1 {
            self.v[row + 1][lane] = (value >> 32) as u32;
        }
    }
}

/// Reproducible numbers.
#[derive(Clone)]
pub struct Random(pub u64);

impl Random {
    /// Started by a text, such as an instruction.
    pub fn of(text: &str) -> Random {
        let fold = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Random(text.bytes().fold(0xcbf2_9ce4_8422_2325, fold))
    }

    /// 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.bits() % limit as u64) as usize
    }

    /// One of a list.
    pub fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    /// True once in `count` times.
    pub fn once_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}

/// What went wrong, by instruction.
#[derive(Default)]
pub struct Report {
    wrong: RefCell<BTreeMap<String, (usize, String)>>,
    checked: RefCell<usize>,
}

impl Report {
    /// Notes a disagreement about `mnemonic`; the first of each chip is shown.
    pub fn fail(&self, chip: Chip, mnemonic: &str, text: impl FnOnce() -> String) {
        let mut wrong = self.wrong.borrow_mut();
        let entry = wrong.entry(format!("{mnemonic} {chip}")).or_insert_with(|| (0, text()));
        entry.0 += 1;
    }

    /// Notes that something was compared.
    pub fn count(&self) {
        *self.checked.borrow_mut() += 1;
    }

    /// Panics if anything disagreed, with the first time of each instruction and chip.
    pub fn finish(self, at_least: usize) {
        let wrong = self.wrong.into_inner();
        let checked = self.checked.into_inner();
        assert!(checked >= at_least, "only {checked} executions were compared");
        for (name, (count, text)) in &wrong {
            println!("{name}: {count} wrong, first {text}");
        }
        assert!(wrong.is_empty(), "{} instructions disagree with their statement", wrong.len());
    }
}

/// Whether an instruction is to be tested: `CONFORM_ONLY=v_add,s_` chooses by beginnings.
pub fn wanted(mnemonic: &str) -> bool {
    match std::env::var("CONFORM_ONLY") {
        Ok(list) => list.split(',').any(|start| mnemonic.starts_with(start)),
        Err(_) => true,
    }
}

/// The emulator with one wave, and the state that it should have.
pub struct Bench {
    /// The emulator's wave.
    pub wave: Wave,
    /// The emulator's workgroup.
    pub group: Group,
    /// What it should be.
    pub state: State,
    program: Program,
    index: Vec<Option<u32>>,
}

/// Address of the snippets' first byte.
const BASE: u64 = 0x10_0000;

impl Bench {
    /// Assembles and decodes `lines`; every register gets a random value.
    pub fn new(chip: Chip, lanes: u32, lines: &[String]) -> Bench {
        let code = assemble(chip, lanes, lines);
        let program = Program::decode(&code.bytes, BASE, chip, lanes);
        // LLVM 22 assembles high halves for gfx12 that its disassembler cannot print.
        let index_of = |offset: usize| {
            let index = program.index_of(BASE + offset as u64)?;
            (!program.asm[index as usize].text.contains("/*Invalid")).then_some(index)
        };
        let index = code.offsets.iter().map(|offset| offset.and_then(index_of)).collect();
        let memory = Memory::reserve(1 << 30).expect("address space");
        let group = Group::new(chip, chip.lds_bytes() as usize, Arc::new(memory), [0; 3], 1);
        let mut random = Random(7);
        let v = (0..NAMED).map(|_| std::array::from_fn(|_| random.bits() as u32)).collect();
        let mut s = std::array::from_fn(|_| random.bits() as u32);
        s[NULL] = 0;
        let state = State { chip, lanes: lanes as usize, v, s, scc: false, mode: 0xf0 };
        let wave = Wave::new(0, lanes);
        let mut bench = Bench { wave, group, state, program, index };
        bench.set_exec(u64::MAX);
        bench.resync();
        bench
    }

    /// Whether the chip has the instruction of a line.
    pub fn has(&self, line: usize) -> bool {
        self.index[line].is_some()
    }

    /// LLVM's reading of a line.
    pub fn instruction(&self, line: usize) -> Option<&Instruction> {
        self.index[line].map(|index| &self.program.asm[index as usize])
    }

    /// LLVM's text of a line.
    pub fn text(&self, line: usize) -> &str {
        self.index[line].map_or("not on this chip", |index| &self.program.asm[index as usize].text)
    }

    /// Sets the execution mask of the state.
    pub fn set_exec(&mut self, exec: u64) {
        let exec = if self.state.lanes == 64 { exec } else { exec & 0xffff_ffff };
        self.state.set_pair(EXEC, exec);
    }

    /// Gives the emulator the state's registers, all of them.
    pub fn resync(&mut self) {
        for (row, values) in self.wave.rows[..NAMED].iter_mut().zip(&self.state.v) {
            row.0 = *values;
        }
        self.sync_scalars();
    }

    /// Gives the emulator the state's scalar registers and modes.
    pub fn sync_scalars(&mut self) {
        self.wave.sgpr = self.state.s;
        self.wave.scc = self.state.scc;
        self.wave.mode = self.state.mode;
    }

    /// Gives the emulator some of the state's rows.
    pub fn sync_rows(&mut self, first: usize, count: usize) {
        for row in first..first + count {
            self.wave.rows[row].0 = self.state.v[row];
        }
    }

    /// The emulator executes a line.
    pub fn execute(&mut self, line: usize) -> Result<(), String> {
        let index = self.index[line].expect("a line that the chip has");
        self.wave.pc = index + 1;
        let exec = &self.program.exec[index as usize];
        let (wave, group) = (&mut self.wave, &mut self.group);
        match catch_unwind(AssertUnwindSafe(|| exec(wave, group))) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(fault)) => Err(fault.to_string()),
            Err(_) => Err("the emulator panicked".to_string()),
        }
    }

    /// The same for an instruction that goes on to the next one.
    pub fn step(&mut self, line: usize) -> Result<(), String> {
        self.execute(line)?;
        let next = self.index[line].map(|index| index + 1);
        if Some(self.wave.pc) == next { Ok(()) } else { Err("it jumped".to_string()) }
    }

    /// Byte address of a line.
    pub fn address(&self, line: usize) -> u64 {
        self.program.address_of(self.index[line].expect("a line that the chip has"))
    }

    /// Bytes of a line's encoding.
    pub fn size(&self, line: usize) -> u64 {
        let index = self.index[line].expect("a line that the chip has");
        u64::from(self.program.asm[index as usize].size)
    }

    /// Where the wave goes on.
    pub fn next_address(&self) -> u64 {
        self.program.address_of(self.wave.pc)
    }

    /// The first difference between emulator and state within `rows` and everything scalar.
    pub fn difference(&self, rows: std::ops::Range<usize>) -> Option<String> {
        let state = &self.state;
        for row in rows {
            let (got, want) = (&self.wave.rows[row].0, &state.v[row]);
            if got != want {
                let lane = (0..64).find(|lane| got[*lane] != want[*lane]).unwrap_or(0);
                let name = if row < AGPR { format!("v{row}") } else { format!("a{}", row - AGPR) };
                return Some(format!(
                    "{name} lane {lane}: {:#010x}, should be {:#010x}",
                    got[lane], want[lane]
                ));
            }
        }
        for index in (0..128).filter(|index| *index != NULL) {
            let (got, want) = (self.wave.sgpr[index], state.s[index]);
            if got != want {
                return Some(format!("scalar {index}: {got:#010x}, should be {want:#010x}"));
            }
        }
        if self.wave.scc != state.scc {
            return Some(format!("scc {}, should be {}", self.wave.scc, state.scc));
        }
        if self.wave.mode != state.mode {
            return Some(format!("mode {:#x}, should be {:#x}", self.wave.mode, state.mode));
        }
        None
    }
}

const _: () = assert!(ROWS >= NAMED);
