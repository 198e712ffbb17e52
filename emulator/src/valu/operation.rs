//! One instruction of vector arithmetic: the operation of a table with its operands, modifiers and
//! destinations, and how it runs.

#![allow(unsafe_code)]

use super::dpp::{self, Dpp};
use super::halves;
use super::op::{Core, Hidden, Kind, MaskIn, Mode, Op, Sources, vectorized};
use super::operand::{Input, Modify, Source};
use super::output::{Output, Place, Rest, Scale};
use crate::asm::{Instruction, Operand, Value};
use crate::program::Context;
use crate::wave::{AGPR, Exec, Fault, SCRATCH, Step, Wave, mode, scalar};

/// Row of the first operand's slot; each has two.
const SLOTS: usize = SCRATCH;
/// First of the rows for a result that is not finished.
const RESULT: usize = SCRATCH + 8;
/// MODE bit that adds M0 to the numbers of vector registers, on CDNA.
const INDEX_MODE: u32 = 1 << 27;

/// A mask that is read.
#[derive(Debug, Clone, Copy)]
enum MaskSource {
    Place(usize),
    Constant(u64),
}

/// An instruction, ready to run.
#[derive(Clone)]
pub struct Operation {
    core: Core,
    inputs: [Input; 4],
    count: usize,
    output: Output,
    mask_in: MaskSource,
    mask_out: Option<usize>,
    writes_exec: bool,
    dpp: Option<Box<Dpp>>,
    /// Bits of MODE that matter.
    watched: u32,
    text: String,
}

/// Compiles an instruction whose operation is known.
pub fn compile(context: &Context<'_>, op: Op) -> Result<Exec, Fault> {
    let operation = Builder { context, asm: context.asm, op }.build()?;
    Ok(operation.into_exec())
}

/// The operands of an instruction, assigned.
struct Assigned<'a> {
    result: Option<&'a Operand>,
    mask_out: Option<&'a Operand>,
    sources: &'a [Operand],
    mask_in: Option<&'a Operand>,
}

struct Builder<'a> {
    context: &'a Context<'a>,
    asm: &'a Instruction,
    op: Op,
}

impl Builder<'_> {
    fn unknown(&self) -> Fault {
        Fault::Unknown(self.asm.text.clone())
    }

    fn build(&self) -> Result<Operation, Fault> {
        self.check_modifiers()?;
        let operands = self.assign()?;
        let dpp = Dpp::new(self.asm, self.context.lanes).map_err(|()| self.unknown())?;
        let core = self.core()?;
        let output = self.output(operands.result)?;
        let blank = Input {
            source: Source::Constant(0),
            kind: Kind::B32,
            modify: Modify::NONE,
            slot: SLOTS as u16,
        };
        let mut inputs = [blank; 4];
        let count = self.op.sources.len();
        for (index, input) in inputs.iter_mut().enumerate().take(count) {
            *input = match (self.op.hidden, operands.sources.get(index)) {
                (_, Some(operand)) => self.input(index, operand)?,
                (Hidden::Destination, None) => self.old_destination(index, operands.result)?,
                (Hidden::Modifier(name), None) => Input {
                    source: Source::Constant(self.asm.number(name).unwrap_or(0) as u64),
                    kind: self.op.sources[index],
                    ..blank
                },
                (Hidden::None, None) => return Err(self.unknown()),
            };
            input.slot = (SLOTS + 2 * index) as u16;
        }
        if dpp.is_some() && !matches!(inputs[0].source, Source::Row(_)) {
            return Err(self.unknown());
        }
        let operation = Operation {
            core,
            inputs,
            count,
            output,
            mask_in: self.mask_in(operands.mask_in)?,
            mask_out: operands.mask_out.map(|operand| self.mask_place(operand)).transpose()?,
            writes_exec: self.op.writes_exec,
            dpp: dpp.map(Box::new),
            watched: self.watched(),
            text: self.asm.text.clone(),
        };
        Ok(operation)
    }

    fn check_modifiers(&self) -> Result<(), Fault> {
        const KNOWN: [&str; 8] =
            ["clamp", "mul", "div", "op_sel", "dst_sel", "dst_unused", "src0_sel", "src1_sel"];
        let known = |name: &str| {
            KNOWN.contains(&name)
                || dpp::MODIFIERS.contains(&name)
                || matches!(self.op.hidden, Hidden::Modifier(hidden) if hidden == name)
        };
        match self.asm.modifiers.iter().all(|modifier| known(&modifier.name)) {
            true => Ok(()),
            false => Err(self.unknown()),
        }
    }

    /// The text's operands in their places.
    fn assign(&self) -> Result<Assigned<'_>, Fault> {
        let is_compare = matches!(self.op.core, Core::Compare(_));
        let hidden = usize::from(self.op.hidden != Hidden::None);
        let in_text = self.op.sources.len() - hidden;
        let mut rest = self.asm.operands.as_slice();
        let mut take = |wanted: bool| match (wanted, rest.split_first()) {
            (false, _) => Ok(None),
            (true, Some((first, others))) => {
                rest = others;
                Ok(Some(first))
            }
            (true, None) => Err(self.unknown()),
        };
        let result = take(!is_compare)?;
        // RDNA's v_cmpx has no destination but EXEC.
        let has_mask = if is_compare {
            !(self.op.writes_exec && self.context.chip.is_rdna())
        } else {
            self.op.mask_out
        };
        let mask_out = take(has_mask)?;
        if rest.len() < in_text {
            return Err(self.unknown());
        }
        let (sources, rest) = rest.split_at(in_text);
        let mask_in = match (self.op.mask_in, rest) {
            (_, []) => None,
            (MaskIn::Operand, [mask]) => Some(mask),
            _ => return Err(self.unknown()),
        };
        Ok(Assigned { result, mask_out, sources, mask_in })
    }

    /// The function: with `clamp`, an integer operation needs another.
    fn core(&self) -> Result<Core, Fault> {
        let is_map = !matches!(self.op.core, Core::Compare(_));
        if self.asm.has("clamp") && is_map && !self.op.result.is_float() {
            return self.op.saturated.ok_or_else(|| self.unknown());
        }
        Ok(self.op.core)
    }

    fn input(&self, index: usize, operand: &Operand) -> Result<Input, Fault> {
        let kind = self.op.sources[index];
        let source = Source::new(operand, kind).ok_or_else(|| self.unknown())?;
        match (source, &operand.value) {
            (Source::Row(_), Value::Vector(_, count)) if usize::from(*count) == kind.rows() => {}
            (Source::Row(_), _) => return Err(self.unknown()),
            _ if kind.rows() > 2 => return Err(self.unknown()),
            _ => {}
        }
        let part = match index {
            0 => self.asm.value("src0_sel"),
            1 => self.asm.value("src1_sel"),
            _ => None,
        };
        let selected = match part {
            Some(name) => {
                let (first, width) = part_of(name).ok_or_else(|| self.unknown())?;
                // A 16-bit operation reads the low half of a whole register.
                let width = if kind.is_half() { width.min(16) } else { width };
                if kind.rows() != 1 {
                    return Err(self.unknown());
                }
                Modify::part(first, width, operand.sext)
            }
            None if operand.sext => return Err(self.unknown()),
            None if operand.high || self.op_sel(index) => {
                if !kind.is_half() && !operand.high {
                    return Err(self.unknown());
                }
                Modify::part(16, 16, false)
            }
            None => Modify::NONE,
        };
        let modify = selected.with_sign(operand.abs, operand.neg, kind.sign());
        Ok(Input { source, kind, modify, slot: 0 })
    }

    /// The destination's old value as a source.
    fn old_destination(&self, index: usize, result: Option<&Operand>) -> Result<Input, Fault> {
        let kind = self.op.sources[index];
        let operand = result.ok_or_else(|| self.unknown())?;
        let Value::Vector(row, count) = operand.value else { return Err(self.unknown()) };
        if usize::from(count) != kind.rows() {
            return Err(self.unknown());
        }
        let high = kind.is_half() && self.output(result)?.place == Some(Place::half(true));
        let modify = if high { Modify::part(16, 16, false) } else { Modify::NONE };
        Ok(Input { source: Source::Row(row), kind, modify, slot: 0 })
    }

    /// Bit `index` of op_sel: of a source, or after all sources of the destination.
    fn op_sel(&self, index: usize) -> bool {
        let list = self.asm.list("op_sel").unwrap_or_default();
        list.get(index).is_some_and(|bit| *bit != 0)
    }

    fn output(&self, operand: Option<&Operand>) -> Result<Output, Fault> {
        let kind = self.op.result;
        let chip = self.context.chip;
        let blank = Output { row: 0, kind, clamp: false, scale: Scale::One, place: None, chip };
        let Some(operand) = operand else { return Ok(blank) };
        let Value::Vector(row, count) = operand.value else { return Err(self.unknown()) };
        if usize::from(count) != kind.rows() {
            return Err(self.unknown());
        }
        let scale = match (self.asm.number("mul"), self.asm.number("div")) {
            (None, None) => Scale::One,
            (Some(2), None) => Scale::Double,
            (Some(4), None) => Scale::Quadruple,
            (None, Some(2)) => Scale::Half,
            _ => return Err(self.unknown()),
        };
        let clamp = self.asm.has("clamp") && kind.is_float();
        let scaled = matches!(kind, Kind::F16 | Kind::F32 | Kind::F64 | Kind::Halves);
        if scale != Scale::One && !scaled {
            return Err(self.unknown());
        }
        let place = self.place(operand)?;
        let output = Output { row, kind, clamp, scale, place, chip };
        if !output.is_direct() && kind.rows() > 2 {
            return Err(self.unknown());
        }
        Ok(output)
    }

    /// The part of the destination that is written; none is all of it.
    fn place(&self, operand: &Operand) -> Result<Option<Place>, Fault> {
        let kind = self.op.result;
        if let Some(part) = self.asm.value("dst_sel") {
            let (shift, width) = part_of(part).ok_or_else(|| self.unknown())?;
            let rest = match self.asm.value("dst_unused") {
                Some("UNUSED_PAD") => Rest::Zero,
                Some("UNUSED_SEXT") => Rest::Sign,
                Some("UNUSED_PRESERVE") => Rest::Keep,
                _ => return Err(self.unknown()),
            };
            if kind.rows() != 1 {
                return Err(self.unknown());
            }
            return Ok((width != 32).then_some(Place { shift, width, rest }));
        }
        let hidden = usize::from(self.op.hidden != Hidden::None);
        let high = operand.high || self.op_sel(self.op.sources.len() - hidden);
        if !kind.is_half() {
            return if high { Err(self.unknown()) } else { Ok(None) };
        }
        let zeroes = halves::zeroes_high(&self.asm.mnemonic, self.context.chip);
        Ok((high || !zeroes).then_some(Place::half(high)))
    }

    fn mask_in(&self, operand: Option<&Operand>) -> Result<MaskSource, Fault> {
        match (self.op.mask_in, operand.map(|operand| &operand.value)) {
            (MaskIn::None, _) => Ok(MaskSource::Constant(0)),
            (_, None) => Ok(MaskSource::Place(scalar::VCC)),
            (_, Some(Value::Integer(bits))) => Ok(MaskSource::Constant(*bits as u64)),
            (_, Some(Value::Literal(bits))) => Ok(MaskSource::Constant(*bits)),
            _ => {
                let operand = operand.ok_or_else(|| self.unknown())?;
                Ok(MaskSource::Place(self.mask_place(operand)?))
            }
        }
    }

    /// The scalar register of a mask.
    fn mask_place(&self, operand: &Operand) -> Result<usize, Fault> {
        match operand.value {
            Value::Scalar(index, _) if usize::from(index) + 2 <= scalar::COUNT => {
                Ok(usize::from(index))
            }
            _ => Err(self.unknown()),
        }
    }

    /// The bits of MODE that this operation depends on.
    fn watched(&self) -> u32 {
        let mut watched = if self.context.chip.is_cdna() { INDEX_MODE } else { 0 };
        if !self.op.keeps_denormals {
            for kind in &self.op.sources {
                watched |= match kind {
                    Kind::F32 => 0x10,
                    Kind::F16 | Kind::F64 => 0x40,
                    _ => 0,
                };
            }
            watched |= match self.op.result {
                Kind::F32 => 0x20,
                Kind::F16 | Kind::F64 => 0x80,
                _ => 0,
            };
        }
        watched
    }
}

/// First bit and width of a part that SDWA names.
fn part_of(name: &str) -> Option<(u32, u32)> {
    Some(match name {
        "BYTE_0" => (0, 8),
        "BYTE_1" => (8, 8),
        "BYTE_2" => (16, 8),
        "BYTE_3" => (24, 8),
        "WORD_0" => (0, 16),
        "WORD_1" => (16, 16),
        "DWORD" => (0, 32),
        _ => return None,
    })
}

type RunFn = unsafe fn(&Operation, &mut Wave) -> Step;

impl Operation {
    /// The closure: a short one where operands and results need nothing done.
    fn into_exec(self) -> Exec {
        let run = run_vector as RunFn;
        let (core, count, watched) = (self.core, self.count, self.watched);
        let ordinary = watched & mode::DENORM;
        let rows: Option<Vec<u16>> = self.inputs[..count].iter().map(|input| input.row()).collect();
        let destination = usize::from(self.output.row);
        let simple = self.output.is_direct() && self.dpp.is_none();
        // SAFETY (of the calls of `run` below): operations are made for hosts that
        // `host_is_fit` only.
        match (core, rows) {
            (Core::Map(map), Some(rows)) if simple => {
                let mut sources = [0; 4];
                sources[..count].copy_from_slice(&rows);
                Box::new(move |wave, _| {
                    if wave.mode & watched != ordinary {
                        // SAFETY: as above.
                        return unsafe { run(&self, wave) };
                    }
                    map.call(wave, destination, wave.exec(), sources);
                    Ok(())
                })
            }
            // SAFETY: as above.
            _ => Box::new(move |wave, _| unsafe { run(&self, wave) }),
        }
    }

    fn mask_in(&self, wave: &Wave) -> u64 {
        match self.mask_in {
            MaskSource::Place(index) => wave.mask(index),
            MaskSource::Constant(mask) => mask,
        }
    }

    /// Runs in every mode, with every modifier.
    #[inline(always)]
    fn run(&self, wave: &mut Wave) -> Step {
        let mode = self.mode(wave);
        let exec = wave.exec();
        let (lanes, write) = match &self.dpp {
            None => (None, exec),
            Some(dpp) => {
                let (lanes, write) = dpp.lanes(exec, wave.all_lanes());
                (Some(lanes), write)
            }
        };
        let offsets = self.offsets(wave)?;
        let mut sources: Sources = [0; 4];
        for index in 0..self.count {
            let lanes = if index == 0 { lanes.as_ref() } else { None };
            let offset = if index < 3 { offsets[index] } else { 0 };
            sources[index] = self.inputs[index].prepare(wave, mode, lanes, offset);
        }
        self.call(wave, mode, sources, write, offsets[3]);
        Ok(())
    }

    /// MODE as this operation sees it.
    fn mode(&self, wave: &Wave) -> Mode {
        let keep = mode::DENORM & !self.watched;
        Mode(wave.mode | keep)
    }

    #[inline(always)]
    fn call(&self, wave: &mut Wave, mode: Mode, sources: Sources, write: u64, offset: u16) {
        let row = self.output.row + offset;
        let direct = self.output.is_direct_in(mode);
        let target = if direct { usize::from(row) } else { RESULT };
        match self.core {
            Core::Map(map) => map.call(wave, target, write, sources),
            Core::Carry(carry) => {
                let mask = self.mask_in(wave);
                let mask = carry.call(wave, target, write, sources, mask) & write;
                if let Some(place) = self.mask_out {
                    wave.set_mask(place, mask);
                }
            }
            Core::Compare(compare) => {
                let mask = compare.call(wave, write, sources);
                if let Some(place) = self.mask_out {
                    wave.set_mask(place, mask);
                }
                if self.writes_exec {
                    wave.set_exec(mask);
                }
                return;
            }
        }
        if !direct {
            self.output.finish(wave, mode, RESULT, write, row);
        }
    }

    /// What CDNA's index mode adds to the numbers of vector registers: of three sources and of the
    /// destination.
    fn offsets(&self, wave: &Wave) -> Result<[u16; 4], Box<Fault>> {
        if self.watched & INDEX_MODE == 0 || wave.mode & INDEX_MODE == 0 {
            return Ok([0; 4]);
        }
        let m0 = wave.sgpr[scalar::M0];
        let mut offsets = [0; 4];
        for (index, offset) in offsets.iter_mut().enumerate() {
            if m0 >> (12 + index) & 1 == 0 {
                continue;
            }
            *offset = (m0 & 0xff) as u16;
            let (row, rows) = match self.inputs.get(index) {
                _ if index == 3 => (Some(self.output.row), self.output.kind.rows()),
                Some(Input { source: Source::Row(row), kind, .. }) => (Some(*row), kind.rows()),
                _ => (None, 0),
            };
            if row.is_some_and(|row| usize::from(row + *offset) + rows > AGPR) {
                return Err(Box::new(Fault::Illegal(format!(
                    "`{}` with index {} reaches beyond the vector registers",
                    self.text, *offset
                ))));
            }
        }
        Ok(offsets)
    }
}

#[inline(always)]
fn run_body(operation: &Operation, wave: &mut Wave) -> Step {
    operation.run(wave)
}

vectorized!(run_vector, run_body, [], [], (operation: &Operation, wave: &mut Wave) -> Step);
