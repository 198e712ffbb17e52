//! Vector instructions of one lane: tables of statements, and every form that an instruction has.
//!
//! An [`Op`] says what one lane computes. From it come the forms: encodings, kinds of sources,
//! input and output modifiers, halves, other lanes' data (DPP), parts of registers (SDWA). LLVM's
//! assembler decides which of them a chip has; each of those is executed and compared.

mod execute;
mod form;
mod other_lanes;
mod parts;

use waveloom_emulator::Chip;

use crate::exact::{Format, Num, Round, round_of};
use crate::machine::{Bench, Random, Report, wanted};
use crate::values::T;
use execute::run;
use form::{Encoding, PLAIN_WAVES, Place, forms};
pub use form::{constants, literal, scalar_text};

/// An instruction's statement.
pub struct Op {
    /// Mnemonic without the suffix of the encoding.
    pub name: &'static str,
    /// The destination.
    pub dst: T,
    /// The sources.
    pub src: &'static [T],
    /// What a lane computes.
    pub f: fn(&mut Lane, &[u64; 4]) -> u64,
    /// Properties, see the constants of this module.
    pub flags: u32,
}

/// Writes a mask beside the destination.
pub const CARRY_OUT: u32 = 1;
/// Reads a mask after the other sources.
pub const CARRY_IN: u32 = 2;
/// Reads the destination.
pub const ACC: u32 = 4;
/// A 16-bit result keeps the other half also on CDNA, where most results clear it.
pub const KEEP: u32 = 8;
/// Which of the two CDNA does is not documented; either will do.
pub const EITHER: u32 = 16;
/// The comparison writes the execution mask.
pub const CMPX: u32 = 32;
/// Reads VCC without naming it.
pub const VCC_IN: u32 = 64;
/// The statement itself applies clamp.
pub const OWN_CLAMP: u32 = 256;
/// A sign of zero that no document fixes.
pub const ANY_ZERO: u32 = 512;
/// Halves are chosen by the statement (mixed precision).
pub const MIX: u32 = 1024;
/// Sign bits are chosen by neg_lo (dot products of iu8).
pub const SIGNS: u32 = 2048;
/// What clamp does is not documented for every chip.
pub const NO_CLAMP: u32 = 128;
/// What an inline constant is as a pair is not documented.
pub const NO_CONSTANT: u32 = 16384;
/// Only on CDNA has the instruction these operands.
pub const CDNA: u32 = 4096;
/// Only on RDNA has the instruction these operands.
pub const RDNA: u32 = 8192;
/// Results may be off by this many units in the last place.
pub const fn ulp(count: u32) -> u32 {
    count << 16
}

/// What a statement knows beside its sources.
pub struct Lane {
    /// The chip.
    pub chip: Chip,
    /// MODE.
    pub mode: u32,
    /// Number of the lane.
    pub lane: usize,
    /// Whether the instruction has `clamp`.
    pub clamp: bool,
    /// The lane's bit of the mask that is read.
    pub carry: bool,
    /// The lane's bit of the mask that is written.
    pub out: bool,
    /// The destination before.
    pub old: u64,
    /// The result is not fixed by any document for these sources.
    pub skip: bool,
    /// Results that the documents allow as well.
    pub also: Vec<u64>,
    /// Values between which the result may lie.
    pub range: Option<(f64, f64)>,
    /// `op_sel` of mixed precision.
    pub sel: [bool; 3],
    /// `op_sel_hi` of mixed precision.
    pub sel_hi: [bool; 3],
    /// `neg` of mixed precision and signs of integer dot products.
    pub neg: [bool; 3],
    /// `neg_hi`, which is abs in mixed precision.
    pub neg_hi: [bool; 3],
}

impl Lane {
    /// Without modifiers.
    pub fn new(chip: Chip, mode: u32) -> Lane {
        Lane {
            chip,
            mode,
            lane: 0,
            clamp: false,
            carry: false,
            out: false,
            old: 0,
            skip: false,
            also: Vec::new(),
            range: None,
            sel: [false; 3],
            sel_hi: [false; 3],
            neg: [false; 3],
            neg_hi: [false; 3],
        }
    }

    /// Rounding of results in a format.
    pub fn round(&self, format: Format) -> Round {
        round_of(if format.exponent == 8 { self.mode } else { self.mode >> 2 })
    }

    /// Whether denormal sources count, and denormal results.
    fn denormals(&self, format: Format) -> (bool, bool) {
        let bits = if format.exponent == 8 { self.mode >> 4 } else { self.mode >> 6 };
        (bits & 1 != 0, bits & 2 != 0)
    }

    /// IEEE mode; gfx12 does not have it.
    pub fn ieee(&self) -> bool {
        self.chip != Chip::Gfx1201 && self.mode >> 9 & 1 == 1
    }

    /// Whether clamping makes NaN zero; gfx12 always does.
    fn dx10_clamp(&self) -> bool {
        self.chip == Chip::Gfx1201 || self.mode >> 8 & 1 == 1
    }

    /// A source's pattern, denormals flushed as MODE says.
    pub fn flushed(&self, format: Format, bits: u64) -> u64 {
        let (keep, _) = self.denormals(format);
        if format.is_denormal(bits) && !keep { bits & format.sign() } else { bits }
    }

    /// A source's value, denormals flushed as MODE says.
    pub fn num(&self, format: Format, bits: u64) -> Num {
        format.value(self.flushed(format, bits))
    }

    /// A result's pattern, rounded and flushed as MODE says.
    pub fn result(&self, format: Format, value: Num) -> u64 {
        self.flush_result(format, format.round(value, self.round(format)))
    }

    /// A result's pattern, flushed as MODE says.
    pub fn flush_result(&self, format: Format, bits: u64) -> u64 {
        let (_, keep) = self.denormals(format);
        if format.is_denormal(bits) && !keep { bits & format.sign() } else { bits }
    }
}

/// A few lines of each encoding of a table's instructions, for the list of what is covered.
pub fn lines(table: &[Op], chip: Chip, lanes: u32) -> Vec<String> {
    let other = if chip.is_cdna() { RDNA } else { CDNA };
    let mut list = Vec::new();
    for op in table.iter().filter(|op| op.flags & other == 0) {
        let mut random = Random::of(op.name);
        let mut seen = Vec::new();
        for form in forms(op, chip, &mut random) {
            let kind = (form.encoding, form.true16, form.packed.is_some());
            let before = seen.iter().filter(|other| **other == kind).count();
            // All of what is seldom: several draws may be needed until one exists.
            let limit =
                if matches!(form.encoding, Encoding::Plain | Encoding::E64) { 3 } else { 8 };
            if before < limit {
                seen.push(kind);
                list.push(form.text(chip, lanes));
            }
        }
    }
    list
}

/// Runs a table on every chip; `lanes` as the chip has them.
pub fn check(table: &[Op], at_least: usize) {
    let report = Report::default();
    for chip in Chip::ALL {
        let widths: &[u32] = if chip.is_cdna() { &[64] } else { &[32, 64] };
        for lanes in widths {
            check_on(table, chip, *lanes, &report);
        }
    }
    if std::env::var("CONFORM_ONLY").is_err() {
        report.finish(at_least);
    } else {
        report.finish(0);
    }
}

fn check_on(table: &[Op], chip: Chip, lanes: u32, report: &Report) {
    let mut all = Vec::new();
    let other = if chip.is_cdna() { RDNA } else { CDNA };
    for op in table.iter().filter(|op| wanted(op.name) && op.flags & other == 0) {
        let mut random = Random::of(op.name);
        all.extend(forms(op, chip, &mut random));
    }
    let mut lines: Vec<String> = all.iter().map(|form| form.text(chip, lanes)).collect();
    if std::env::var("CONFORM_LIST").is_ok() {
        lines.iter().for_each(|line| println!("{chip} {line}"));
    }
    // A form that appears twice is executed once.
    let mut seen = std::collections::HashSet::new();
    for line in &mut lines {
        if !seen.insert(line.clone()) {
            line.replace_range(.., "not_again");
        }
    }
    let mut bench = Bench::new(chip, lanes, &lines);
    // Values that cross all edges, once for each instruction.
    let mut crossed = std::collections::HashSet::new();
    for (line, form) in all.iter().enumerate() {
        if !bench.has(line) {
            continue;
        }
        let mut random = Random::of(&lines[line]);
        let vectors = form.src.iter().all(|source| matches!(source.place, Place::Row(_)));
        let cross = lanes == 64 || chip.is_rdna() && lanes == 32;
        let cross = cross && form.waves == PLAIN_WAVES && vectors && crossed.insert(form.op.name);
        let waves = if lanes == 64 && chip.is_rdna() { 1 } else { form.waves };
        if let Err(text) = run(&mut bench, line, form, waves, cross, &mut random) {
            report.fail(chip, form.op.name, || {
                format!("{} ({}): {text}", lines[line], bench.text(line))
            });
            bench.resync();
        }
        report.count();
    }
}
