//! The ways of writing an instruction: encodings, kinds of operands, modifiers.

use waveloom_emulator::Chip;

use super::other_lanes::{Ctrl, Dpp, all_controls};
use super::parts::{self, Sdwa};
use super::{ACC, CARRY_IN, CARRY_OUT, CMPX, MIX, NO_CLAMP, NO_CONSTANT, OWN_CLAMP, Op, SIGNS};
use crate::exact::{F32, Num, Round};
use crate::machine::{AGPR, EXEC, Random, VCC};
use crate::values::T;

/// Where a source comes from.
#[derive(Clone, Debug)]
pub enum Place {
    Row(usize),
    Scalar(usize),
    Constant(String, u64),
}

#[derive(Clone, Debug)]
pub struct Source {
    pub place: Place,
    pub neg: bool,
    pub abs: bool,
    /// The high half of a register, by `.h` or op_sel.
    pub high: bool,
}

/// op_sel and neg of packed instructions.
#[derive(Clone, Debug)]
pub struct Packed {
    pub sel: [bool; 3],
    pub sel_hi: [bool; 3],
    pub neg_lo: [bool; 3],
    pub neg_hi: [bool; 3],
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Encoding {
    Plain,
    E32,
    E64,
    Dpp,
    E64Dpp,
    Sdwa,
}

/// One way of writing an instruction.
#[derive(Clone)]
pub struct Form<'a> {
    pub op: &'a Op,
    pub encoding: Encoding,
    pub dst: usize,
    pub dst_high: bool,
    /// 16-bit registers are written `v1.l`, `v1.h`.
    pub true16: bool,
    pub src: Vec<Source>,
    /// Mask that is written: VCC or the number of a scalar register.
    pub mask_out: usize,
    pub mask_in: usize,
    pub clamp: bool,
    pub omod: i32,
    /// Halves by op_sel.
    pub op_sel: bool,
    pub dpp: Option<Dpp>,
    pub sdwa: Option<Sdwa>,
    pub packed: Option<Packed>,
    /// What is compared, in waves.
    pub waves: usize,
}

pub const DST: usize = 10;
pub const SRC: [usize; 4] = [2, 4, 6, 8];
/// Rows that forms name, and some around them.
pub const NEAR: std::ops::Range<usize> = 0..16;

fn vector_text(row: usize, rows: usize) -> String {
    let (file, row) = if row < AGPR { ("v", row) } else { ("a", row - AGPR) };
    if rows == 1 { format!("{file}{row}") } else { format!("{file}[{row}:{}]", row + rows - 1) }
}

/// Text of scalar registers.
pub fn scalar_text(index: usize, count: usize) -> String {
    match (index, count) {
        (VCC, 1) => "vcc_lo".to_string(),
        (VCC, _) => "vcc".to_string(),
        (EXEC, 1) => "exec_lo".to_string(),
        (EXEC, _) => "exec".to_string(),
        (125, _) => "m0".to_string(),
        (_, 1) => format!("s{index}"),
        _ => format!("s[{index}:{}]", index + count - 1),
    }
}

impl<'a> Form<'a> {
    /// All operands in vector registers, no modifiers.
    pub fn new(op: &'a Op, chip: Chip, encoding: Encoding) -> Form<'a> {
        let source = |index: usize| Source {
            place: Place::Row(SRC[index]),
            neg: false,
            abs: false,
            high: false,
        };
        let has_halves = op.dst.is_half() || op.src.iter().any(|t| t.is_half());
        Form {
            op,
            encoding,
            dst: DST,
            dst_high: false,
            true16: has_halves && chip.is_rdna(),
            src: (0..op.src.len()).map(source).collect(),
            mask_out: VCC,
            mask_in: VCC,
            clamp: false,
            omod: 0,
            op_sel: false,
            dpp: None,
            sdwa: None,
            packed: None,
            waves: 2,
        }
    }

    fn source_text(&self, index: usize) -> String {
        let (source, t) = (&self.src[index], self.op.src[index]);
        let mut text = match &source.place {
            Place::Row(row) => vector_text(*row, t.rows()),
            Place::Scalar(index) => scalar_text(*index, t.rows()),
            Place::Constant(text, _) => text.clone(),
        };
        if self.true16 && t.is_half() && matches!(source.place, Place::Row(_)) {
            text += if source.high { ".h" } else { ".l" };
        }
        if let Some(sdwa) = &self.sdwa
            && sdwa.sext[index.min(1)]
        {
            text = format!("sext({text})");
        }
        if source.abs {
            text = format!("|{text}|");
        }
        if source.neg {
            text = format!("-{text}");
        }
        text
    }

    /// The assembly.
    pub fn text(&self, chip: Chip, lanes: u32) -> String {
        let op = self.op;
        let suffix = match self.encoding {
            Encoding::Plain => "",
            Encoding::E32 => "_e32",
            Encoding::E64 => "_e64",
            Encoding::Dpp => "_dpp",
            Encoding::E64Dpp => "_e64_dpp",
            Encoding::Sdwa => "_sdwa",
        };
        let mask_rows = if lanes == 64 { 2 } else { 1 };
        let mut list = Vec::new();
        if op.dst != T::Mask {
            let mut text = vector_text(self.dst, op.dst.rows());
            if self.true16 && op.dst.is_half() {
                text += if self.dst_high { ".h" } else { ".l" };
            }
            list.push(text);
        }
        let hidden = op.flags & CMPX != 0 && chip.is_rdna();
        if op.flags & CARRY_OUT != 0 || op.dst == T::Mask && !hidden {
            list.push(scalar_text(self.mask_out, mask_rows));
        }
        list.extend((0..self.src.len()).map(|index| self.source_text(index)));
        if op.flags & CARRY_IN != 0 {
            list.push(scalar_text(self.mask_in, mask_rows));
        }
        let mut text = format!("{}{suffix} {}", op.name, list.join(", "));
        let bits = |list: &[bool]| {
            let list: Vec<&str> = list.iter().map(|b| if *b { "1" } else { "0" }).collect();
            format!("[{}]", list.join(","))
        };
        if self.op_sel {
            let mut sel: Vec<bool> = self.src.iter().map(|source| source.high).collect();
            sel.push(self.dst_high);
            text += &format!(" op_sel:{}", bits(&sel));
        }
        if let Some(packed) = &self.packed {
            let n = self.src.len();
            text += &format!(" op_sel:{}", bits(&packed.sel[..n]));
            text += &format!(" op_sel_hi:{}", bits(&packed.sel_hi[..n]));
            if packed.neg_lo.iter().any(|b| *b) {
                text += &format!(" neg_lo:{}", bits(&packed.neg_lo[..n]));
            }
            if packed.neg_hi.iter().any(|b| *b) {
                text += &format!(" neg_hi:{}", bits(&packed.neg_hi[..n]));
            }
        }
        if self.clamp {
            text += " clamp";
        }
        text += match self.omod {
            1 => " mul:2",
            2 => " mul:4",
            -1 => " div:2",
            _ => "",
        };
        if let Some(dpp) = &self.dpp {
            text += &format!(" {}", dpp.text());
        }
        if let Some(sdwa) = &self.sdwa {
            if op.dst != T::Mask {
                text += &format!(" dst_sel:{}", parts::NAMES[sdwa.dst]);
                text += &format!(" dst_unused:{}", parts::UNUSED[sdwa.unused]);
            }
            text += &format!(" src0_sel:{}", parts::NAMES[sdwa.src[0]]);
            if self.src.len() > 1 {
                text += &format!(" src1_sel:{}", parts::NAMES[sdwa.src[1]]);
            }
        }
        text
    }
}

/// Inline constants and literals for a source, with the bits that an instruction sees.
pub fn constants(t: T) -> Vec<(String, u64)> {
    let width = t.bits();
    let mask = if width == 64 { u64::MAX } else { (1 << width) - 1 };
    let mut list: Vec<(String, u64)> = [-16, -1, 0, 1, 7, 64]
        .iter()
        .map(|value: &i64| (value.to_string(), *value as u64 & mask))
        .collect();
    let floats = [0.5, -0.5, 1.0, -1.0, 2.0, -2.0, 4.0, -4.0];
    let single = F32;
    let format = match t {
        T::B32 | T::PkB16 => Some(single),
        other => other.format(),
    };
    if let Some(format) = format {
        for value in floats {
            let bits = format.round(Num::from_f64(value), Round::Even);
            list.push((format!("{value:?}"), bits));
        }
        let (text, bits) = match (format.exponent, format.fraction) {
            (5, _) => ("0.15915494", 0x3118),
            (8, 7) => ("0.15915494", 0x3e22),
            (8, _) => ("0.15915494", 0x3e22_f983),
            _ => ("0.15915494309189532", 0x3fc4_5f30_6dc9_c882),
        };
        list.push((text.to_string(), bits));
    }
    list
}

/// A literal for a source.
pub fn literal(t: T, random: &mut Random) -> (String, u64) {
    match t {
        T::F64 => {
            // Too large for an inline constant.
            let high = t.sample(random) >> 32 | 0x1000;
            (format!("{high:#x}"), high << 32)
        }
        T::B64 => {
            // Bits whose extension to 64 is the same whether by sign or by zeros.
            let bits = random.bits() & 0x7fff_ffff | 0x1000;
            (format!("{bits:#x}"), bits)
        }
        T::B16 | T::F16 | T::Bf16 => {
            let bits = random.bits() & 0x7fff | 0x1081;
            (format!("{bits:#x}"), bits)
        }
        _ => {
            let bits = random.bits() & 0xffff_ffff | 0x1081;
            (format!("{bits:#x}"), bits)
        }
    }
}

/// How many waves of values the plain forms get, beside the crossing of edges.
pub const PLAIN_WAVES: usize = 12;

/// The forms of an instruction, before the assembler chooses those that exist.
pub fn forms<'a>(op: &'a Op, chip: Chip, random: &mut Random) -> Vec<Form<'a>> {
    let mut list = Vec::new();
    for encoding in [Encoding::Plain, Encoding::E32, Encoding::E64] {
        plain_forms(&mut list, op, chip, encoding, random);
    }
    for encoding in [Encoding::Plain, Encoding::E64] {
        modified_forms(&mut list, op, chip, encoding, random);
    }
    let mut form = base(op, chip, Encoding::E32, random);
    if has_halves(op) && form.true16 {
        // Halves in the short encoding.
        form.dst_high = op.dst.is_half();
        form.src.iter_mut().zip(op.src).for_each(|(source, t)| source.high = t.is_half());
        list.push(form);
    }
    other_lane_forms(&mut list, op, chip, random);
    // What a part of two numbers would be is no document's subject.
    let packed = op.src.iter().any(|t| t.is_packed());
    if chip.is_cdna() && !packed {
        part_forms(&mut list, op, chip, random);
    }
    list
}

fn has_halves(op: &Op) -> bool {
    op.dst.is_half() || op.src.iter().any(|t| t.is_half())
}

fn is_fixed(t: T) -> bool {
    matches!(t, T::K32 | T::K16)
}

/// Vector registers everywhere, literals where the instruction has one of its own.
fn base<'a>(op: &'a Op, chip: Chip, encoding: Encoding, random: &mut Random) -> Form<'a> {
    let mut form = Form::new(op, chip, encoding);
    for index in (0..op.src.len()).filter(|index| is_fixed(op.src[*index])) {
        // LLVM 22 prints what has an inline constant's number as that constant.
        let value = op.src[index].sample(random) | 0x400;
        form.src[index].place = Place::Constant(format!("{value:#x}"), value);
    }
    if encoding == Encoding::E64 || encoding == Encoding::E64Dpp {
        (form.mask_out, form.mask_in) = (20, 24);
    }
    form
}

/// Kinds of operands: registers, scalars, constants, literals, the destination itself.
fn plain_forms<'a>(
    list: &mut Vec<Form<'a>>,
    op: &'a Op,
    chip: Chip,
    encoding: Encoding,
    random: &mut Random,
) {
    let mut form = base(op, chip, encoding, random);
    form.waves = PLAIN_WAVES;
    list.push(form.clone());
    if form.true16 {
        // Some 16-bit operands are written as whole registers.
        form.true16 = false;
        list.push(form);
    }
    for index in (0..op.src.len()).filter(|index| !is_fixed(op.src[*index])) {
        if op.flags & ACC == 0 {
            let mut form = base(op, chip, encoding, random);
            form.src[index].place = Place::Row(DST);
            list.push(form);
        }
        let mut form = base(op, chip, encoding, random);
        form.src[index].place = Place::Scalar(30);
        list.push(form);
        // What constants are in pairs of words is no document's subject.
        let packed = op.src[index].is_packed();
        if matches!(op.src[index], T::PkF32 | T::PkB32) || packed && op.flags & NO_CONSTANT != 0 {
            continue;
        }
        let all = constants(op.src[index]);
        let chosen = all[random.below(all.len())].clone();
        for (text, bits) in [chosen, literal(op.src[index], random)] {
            let mut form = base(op, chip, encoding, random);
            form.src[index].place = Place::Constant(text, bits);
            list.push(form);
        }
    }
    // The same scalar in all places.
    let mut form = base(op, chip, encoding, random);
    for source in &mut form.src {
        if matches!(source.place, Place::Row(_)) {
            source.place = Place::Scalar(30);
        }
    }
    list.push(form);
}

/// Signs, clamp and output scale, halves, packed halves.
fn modified_forms<'a>(
    list: &mut Vec<Form<'a>>,
    op: &'a Op,
    chip: Chip,
    encoding: Encoding,
    random: &mut Random,
) {
    let float = op.src.iter().any(|t| t.format().is_some());
    let signs = op.flags & SIGNS != 0;
    let packed = op.src.iter().any(|t| t.is_packed()) || op.flags & (MIX | SIGNS) != 0;
    for _ in 0..if float && !packed { 4 } else { 0 } {
        let mut form = base(op, chip, encoding, random);
        for (source, t) in form.src.iter_mut().zip(op.src) {
            let modified = t.format().is_some() && !is_fixed(*t);
            source.neg = modified && random.once_in(2);
            // The encoding with a mask as second result has no absolute values.
            source.abs = modified && op.flags & CARRY_OUT == 0 && random.once_in(2);
        }
        list.push(form);
    }
    let mut form = base(op, chip, encoding, random);
    if op.flags & NO_CLAMP == 0 && (op.dst.format().is_some() || op.flags & OWN_CLAMP != 0) {
        form.clamp = true;
        form.waves = 4;
        list.push(form.clone());
    }
    let clamps = form.clamp;
    for omod in [1, 2, -1] {
        // Nor is what the output scale does to two results where clamp is not documented.
        let documented = clamps || !op.dst.is_packed();
        if op.dst.format().is_some() && !packed && documented {
            form.clamp = clamps && random.once_in(3);
            form.omod = omod;
            list.push(form.clone());
        }
    }
    for _ in 0..if has_halves(op) { 3 } else { 0 } {
        // By name, and by op_sel.
        let mut form = base(op, chip, encoding, random);
        form.dst_high = op.dst.is_half() && random.once_in(2);
        for (source, t) in form.src.iter_mut().zip(op.src) {
            source.high = t.is_half() && random.once_in(2);
        }
        if form.true16 {
            list.push(form.clone());
        }
        (form.true16, form.op_sel) = (false, true);
        list.push(form);
    }
    for _ in 0..if packed { 5 } else { 0 } {
        let mut form = base(op, chip, encoding, random);
        let mut bits = |on: bool| on && random.once_in(2);
        // An operand of 32 bits has no halves to choose from, its bit must be zero; and the text
        // says what a negation does to halves only.
        let mixed = op.flags & (MIX | SIGNS) != 0;
        let halved: [bool; 3] =
            std::array::from_fn(|at| mixed || op.src.get(at).is_none_or(|t| t.is_packed()));
        let mut bits = |on: bool| std::array::from_fn(|at| bits(on && halved[at]));
        form.packed = Some(Packed {
            sel: bits(!signs),
            sel_hi: if signs { [true; 3] } else { bits(true) },
            neg_lo: bits(float || op.flags & (MIX | SIGNS) != 0),
            neg_hi: bits(float || op.flags & MIX != 0),
        });
        form.clamp = clamps && random.once_in(3);
        list.push(form);
    }
}

/// Data of other lanes: every control for two instructions, some for each.
fn other_lane_forms<'a>(list: &mut Vec<Form<'a>>, op: &'a Op, chip: Chip, random: &mut Random) {
    let packed = op.src.iter().any(|t| t.is_packed());
    let all = all_controls();
    let controls = match op.name {
        "v_mov_b32" | "v_add_f32" => all,
        _ => (0..5).map(|_| all[random.below(all.len())].clone()).collect(),
    };
    for ctrl in controls {
        for encoding in [Encoding::Dpp, Encoding::E64Dpp] {
            let mut form = base(op, chip, encoding, random);
            if random.once_in(3) && op.flags & ACC == 0 {
                form.dst = SRC[0];
            }
            for (source, t) in form.src.iter_mut().zip(op.src) {
                let modified = t.format().is_some() && !packed;
                source.neg = modified && random.once_in(3);
                source.abs = modified && random.once_in(3);
                source.high = form.true16 && t.is_half() && random.once_in(2);
            }
            // No document says what rows without a source get in a broadcast.
            let rows = match ctrl {
                Ctrl::Bcast15 => 0xe,
                Ctrl::Bcast31 => 0xc,
                _ => 0xf,
            };
            let mut some = || if random.once_in(2) { 0xf } else { random.below(16) as u32 };
            let (row_mask, bank_mask) = (some() & rows, some());
            form.dpp = Some(Dpp {
                ctrl: ctrl.clone(),
                row_mask,
                bank_mask,
                bound: random.once_in(2),
                fetch_inactive: chip.is_rdna() && random.once_in(2),
            });
            form.waves = 4;
            list.push(form.clone());
            if form.true16 {
                form.true16 = false;
                form.src.iter_mut().for_each(|source| source.high = false);
                list.push(form);
            }
        }
    }
}

/// Parts of registers: many for two instructions, some for each.
fn part_forms<'a>(list: &mut Vec<Form<'a>>, op: &'a Op, chip: Chip, random: &mut Random) {
    let float = op.src.iter().any(|t| t.format().is_some());
    let accumulates = op.flags & ACC != 0;
    let count = if matches!(op.name, "v_mov_b32" | "v_add_u32") { 60 } else { 5 };
    for _ in 0..count {
        let mut form = base(op, chip, Encoding::Sdwa, random);
        let sdwa = Sdwa {
            dst: if op.dst == T::Mask || accumulates { 6 } else { random.below(7) },
            unused: if accumulates { 2 } else { random.below(3) },
            src: [random.below(7), random.below(7)],
            sext: if float { [false; 2] } else { [random.once_in(2), random.once_in(2)] },
        };
        for index in 0..op.src.len().min(2) {
            // What a sign is when only a part was taken is left to whole operands.
            let (_, width) = parts::place(sdwa.src[index]);
            let whole = op.src[index].format().is_some() && width >= op.src[index].bits();
            form.src[index].neg = whole && random.once_in(3);
            form.src[index].abs = whole && random.once_in(3);
            if random.once_in(5) {
                form.src[index].place = Place::Scalar(30);
            }
        }
        form.sdwa = Some(sdwa);
        list.push(form);
    }
}
