//! Two numbers a register: packed halves and 16-bit integers, pairs of singles, and the mixed
//! multiply-adds that read halves and singles.
//!
//! Modifiers of this encoding choose for each source which half (or which register of a pair)
//! makes the low result and which the high one, and negate them one by one. The operation of a
//! table works on what they chose, prepared in rows of its own where that is not the register.

#![allow(unsafe_code)]

use super::dpp::{self, Dpp, Lanes};
use super::float::{add_f16, fma_f16, mul_f16};
use super::op::{Core, F16, Kind, Lane, Map, Mode, Op, Sources, blend, map2, map3, mode2};
use super::operand::Source;
use super::order;
use super::real::{Result as Checked, real2, real3};
use crate::Chip;
use crate::arith;
use crate::asm::{Operand, Value};
use crate::number::{Round, f16_to_f32, f32_to_f16_round, flush_f16, flush_f32, is_nan_f16};
use crate::program::{Compiled, Context};
use crate::wave::{Exec, Fault, Row, SCRATCH, Wave, mode, scalar};

/// First of the rows in which sources are prepared.
const SLOTS: u16 = SCRATCH as u16;
/// First of the rows for results that are not finished.
const RESULT: usize = SCRATCH + 8;

/// Two 16-bit values.
#[derive(Debug, Clone, Copy, Default)]
pub struct Two(pub u32);

impl Two {
    /// From its halves.
    #[inline(always)]
    pub fn new(low: u16, high: u16) -> Two {
        Two(u32::from(low) | u32::from(high) << 16)
    }

    /// The low half.
    #[inline(always)]
    pub fn low(self) -> u16 {
        self.0 as u16
    }

    /// The high half.
    #[inline(always)]
    pub fn high(self) -> u16 {
        (self.0 >> 16) as u16
    }
}

impl Lane for Two {
    const KIND: Kind = Kind::B32;
    #[inline(always)]
    fn from_bits(low: u32, _: u32) -> Two {
        Two(low)
    }
    #[inline(always)]
    fn to_bits(self) -> (u32, u32) {
        (self.0, 0)
    }
}

impl Checked for Two {
    const MODE: u32 = <F16 as Checked>::MODE;
    #[inline(always)]
    fn is_nan(self) -> bool {
        is_nan_f16(self.low()) | is_nan_f16(self.high())
    }
}

/// A function of halves, applied to the low and to the high ones.
macro_rules! halves {
    ($function:expr, $($x:ident),+) => {{
        let function = $function;
        let low: F16 = function($(F16($x.low())),+);
        let high: F16 = function($(F16($x.high())),+);
        Two::new(low.0, high.0)
    }};
}

/// The same for integers of a type.
macro_rules! integers {
    ($type:ty, $function:expr, $($x:ident),+) => {{
        let function = $function;
        let low: $type = function($($x.low() as $type),+);
        let high: $type = function($($x.high() as $type),+);
        Two::new(low as u16, high as u16)
    }};
}

/// What becomes of a result on its way to the register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// Nothing.
    Integer,
    /// Two halves.
    Halves,
    /// A single.
    Single,
    /// A single that knows no denormals, whatever the mode.
    Flushed,
    /// A single that becomes the low half.
    ToLow,
    /// A single that becomes the high half.
    ToHigh,
    /// A half in the low bits, to the low half.
    Low,
    /// A half in the low bits, to the high half.
    High,
}

/// How a source is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// Two halves; denormals by the mode of halves.
    Halves,
    /// Two integers, or halves whose denormals are the operation's own business.
    Words,
    /// A single; denormals by its mode.
    Single,
    /// 32 bits.
    Bits,
    /// A half that becomes a single.
    Widened,
}

/// A source and what is done to its bits.
#[derive(Debug, Clone, Copy)]
pub struct Input {
    source: Source,
    read: Read,
    low_shift: u32,
    high_shift: u32,
    and: u32,
    xor: u32,
}

impl Input {
    /// The bits as they are.
    pub fn new(source: Source, read: Read) -> Input {
        Input { source, read, low_shift: 0, high_shift: 16, and: u32::MAX, xor: 0 }
    }

    /// Chooses and negates halves.
    pub fn select(self, high: [bool; 2], neg: [bool; 2]) -> Input {
        Input {
            low_shift: if high[0] { 16 } else { 0 },
            high_shift: if high[1] { 16 } else { 0 },
            xor: self.xor ^ if neg[0] { 0x8000 } else { 0 } ^ if neg[1] { 1 << 31 } else { 0 },
            ..self
        }
    }

    /// Changes the sign of a single.
    pub fn with_sign(self, abs: bool, neg: bool) -> Input {
        let and = if abs { self.and & !(1 << 31) } else { self.and };
        Input { and, xor: self.xor ^ if neg { 1 << 31 } else { 0 }, ..self }
    }

    fn is_plain(&self) -> bool {
        (self.low_shift, self.high_shift, self.and, self.xor) == (0, 16, u32::MAX, 0)
            && self.read != Read::Widened
    }

    /// The row of the source, prepared in `slot` if need be.
    #[inline(always)]
    fn prepare(&self, wave: &mut Wave, lanes: Option<&Lanes<'_>>, slot: u16) -> u16 {
        let mode = Mode(wave.mode);
        let flush = match self.read {
            Read::Halves | Read::Widened => !mode.keeps_inputs(Kind::F16),
            Read::Single => !mode.keeps_inputs(Kind::F32),
            Read::Words | Read::Bits => false,
        };
        let mut row = match (self.source, lanes) {
            (Source::Row(row), None) if self.is_plain() && !flush => return row,
            (Source::Row(row), None) => wave.rows[usize::from(row)],
            (Source::Row(row), Some(lanes)) => lanes.gather(&wave.rows[usize::from(row)]),
            (source, _) => Row([source.uniform(wave) as u32; 64]),
        };
        if !self.is_plain() || flush {
            for bits in &mut row.0 {
                *bits = self.apply(*bits, flush);
            }
        }
        wave.rows[usize::from(slot)] = row;
        slot
    }

    #[inline(always)]
    fn apply(&self, bits: u32, flush: bool) -> u32 {
        let low = bits >> (self.low_shift & 31) & 0xffff;
        let chosen = low | bits >> (self.high_shift & 31) << 16;
        let modified = |bits: u32| bits & self.and ^ self.xor;
        match self.read {
            Read::Widened => {
                let half = if flush { flush_f16(low as u16) } else { low as u16 };
                modified(f16_to_f32(half).to_bits())
            }
            Read::Halves if flush => {
                let two = Two(modified(chosen));
                Two::new(flush_f16(two.low()), flush_f16(two.high())).0
            }
            Read::Single if flush => flush_f32(f32::from_bits(modified(bits))).to_bits(),
            Read::Single | Read::Bits => modified(bits),
            Read::Halves | Read::Words => modified(chosen),
        }
    }
}

/// An instruction, ready to run.
pub struct Packed {
    /// The function of rows.
    pub map: Map,
    /// Its sources.
    pub inputs: Vec<Input>,
    /// Register of the result.
    pub destination: u16,
    /// What becomes of it.
    pub finish: Finish,
    /// Whether it is clamped to [0, 1].
    pub clamp: bool,
    /// The chip, for what its MODE register lacks.
    pub chip: Chip,
    /// Data of other lanes for the first source.
    pub dpp: Option<Dpp>,
}

impl Packed {
    /// The closure.
    pub fn into_exec(self) -> Exec {
        let rows: Option<Vec<u16>> = self
            .inputs
            .iter()
            .map(|input| match input.source {
                Source::Row(row) if input.is_plain() => Some(row),
                _ => None,
            })
            .collect();
        let direct = !self.clamp
            && self.dpp.is_none()
            && !matches!(self.finish, Finish::ToLow | Finish::ToHigh | Finish::Low | Finish::High);
        match rows {
            Some(rows) if direct && self.finish != Finish::Flushed => {
                let mut sources: Sources = [0; 4];
                sources[..rows.len()].copy_from_slice(&rows);
                let (map, destination) = (self.map, usize::from(self.destination));
                Box::new(move |wave, _| {
                    if wave.mode & mode::DENORM == mode::DENORM {
                        map.call(wave, destination, wave.exec(), sources);
                    } else {
                        // SAFETY: nothing is decoded on hosts without these instructions.
                        unsafe { run_vector(&self, wave) };
                    }
                    Ok(())
                })
            }
            _ => Box::new(move |wave, _| {
                // SAFETY: nothing is decoded on hosts without these instructions.
                unsafe { run_vector(&self, wave) };
                Ok(())
            }),
        }
    }

    #[inline(always)]
    fn run(&self, wave: &mut Wave) {
        let exec = wave.exec();
        let (lanes, write) = match &self.dpp {
            None => (None, exec),
            Some(dpp) => {
                let (lanes, write) = dpp.lanes(exec, wave.all_lanes());
                (Some(lanes), write)
            }
        };
        let mut sources: Sources = [0; 4];
        for (index, input) in self.inputs.iter().enumerate() {
            let lanes = if index == 0 { lanes.as_ref() } else { None };
            sources[index] = input.prepare(wave, lanes, SLOTS + index as u16);
        }
        self.map.call(wave, RESULT, write, sources);
        self.finish(wave, write);
    }

    #[inline(always)]
    fn finish(&self, wave: &mut Wave, write: u64) {
        let mode = Mode(wave.mode);
        let zero_nan = mode.dx10_clamp() || self.chip == Chip::Gfx1201;
        let mut row = wave.rows[RESULT];
        let old = &wave.rows[usize::from(self.destination)].0;
        let (keeps_halves, keeps_singles) =
            (mode.keeps_outputs(Kind::F16), mode.keeps_outputs(Kind::F32));
        for (bits, old) in row.0.iter_mut().zip(old) {
            *bits = match self.finish {
                Finish::Integer => *bits,
                Finish::Halves => {
                    let two = Two(*bits);
                    let finish = |half| self.half(half, keeps_halves, zero_nan);
                    Two::new(finish(two.low()), finish(two.high())).0
                }
                Finish::Single => self.single(*bits, keeps_singles, zero_nan),
                Finish::Flushed => self.single(*bits, false, zero_nan),
                Finish::ToLow | Finish::ToHigh => {
                    let half = round_to_half(mode, f32::from_bits(*bits));
                    self.place(u32::from(self.half(half, keeps_halves, zero_nan)), *old)
                }
                Finish::Low | Finish::High => self.place(*bits & 0xffff, *old),
            };
        }
        let width = if wave.lanes == 64 { 64 } else { 32 };
        blend(&mut wave.rows[usize::from(self.destination)], write, width, &row.0);
    }

    #[inline(always)]
    fn place(&self, half: u32, old: u32) -> u32 {
        match self.finish {
            Finish::ToHigh | Finish::High => old & 0xffff | half << 16,
            _ => old & 0xffff_0000 | half,
        }
    }

    #[inline(always)]
    fn half(&self, bits: u16, keeps_denormals: bool, zero_nan: bool) -> u16 {
        let kept = if keeps_denormals { bits } else { flush_f16(bits) };
        if self.clamp { clamp_half(kept, zero_nan) } else { kept }
    }

    #[inline(always)]
    fn single(&self, bits: u32, keeps_denormals: bool, zero_nan: bool) -> u32 {
        let value = f32::from_bits(bits);
        let kept = if keeps_denormals { value } else { flush_f32(value) };
        if !self.clamp || (value.is_nan() && !zero_nan) {
            kept.to_bits()
        } else if kept > 0.0 {
            if kept < 1.0 { kept.to_bits() } else { 1.0_f32.to_bits() }
        } else {
            0
        }
    }
}

/// A half clamped to [0, 1]; a NaN is zero if MODE's DX10_CLAMP says so.
#[inline(always)]
fn clamp_half(bits: u16, zero_nan: bool) -> u16 {
    if is_nan_f16(bits) {
        if zero_nan { 0 } else { bits }
    } else if bits & 0x8000 != 0 {
        0
    } else {
        bits.min(0x3c00)
    }
}

#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma,f16c,bmi2"))]
unsafe fn run_vector(packed: &Packed, wave: &mut Wave) {
    packed.run(wave);
}

/// A half by the mode's rounding, the largest one for what is too large if the mode wants that.
#[inline(always)]
fn round_to_half(mode: Mode, value: f32) -> u16 {
    let half = match Round::of_f16_f64(mode.0) {
        Round::NearestEven => crate::number::f32_to_f16(value),
        round => f32_to_f16_round(value, round),
    };
    let overflows = mode.fp16_ovfl() & (half & 0x7fff == 0x7c00) & value.is_finite();
    if overflows { half - 1 } else { half }
}

/// The lists of modifiers of this encoding, a bit per source (and one more for a destination).
pub struct Modifiers {
    op_sel: Vec<u32>,
    op_sel_hi: Option<Vec<u32>>,
    neg_lo: Vec<u32>,
    neg_hi: Vec<u32>,
    /// Whether `clamp` is there.
    pub clamp: bool,
}

impl Modifiers {
    /// Reads them; any other modifier, but for those of DPP, is unknown.
    pub fn new(context: &Context<'_>) -> Result<Modifiers, Fault> {
        const KNOWN: [&str; 5] = ["op_sel", "op_sel_hi", "neg_lo", "neg_hi", "clamp"];
        let asm = context.asm;
        let known = |name: &str| KNOWN.contains(&name) || dpp::MODIFIERS.contains(&name);
        if !asm.modifiers.iter().all(|modifier| known(&modifier.name)) {
            return Err(context.unknown());
        }
        let list = |name| asm.list(name).unwrap_or_default();
        Ok(Modifiers {
            op_sel: list("op_sel"),
            op_sel_hi: asm.list("op_sel_hi"),
            neg_lo: list("neg_lo"),
            neg_hi: list("neg_hi"),
            clamp: asm.has("clamp"),
        })
    }

    fn bit(list: &[u32], index: usize) -> bool {
        list.get(index).is_some_and(|bit| *bit != 0)
    }

    /// Whether the low result, and the high one, use the source's high half. Without a word the
    /// high one does.
    pub fn halves(&self, index: usize) -> [bool; 2] {
        let high = self.op_sel_hi.as_ref().is_none_or(|list| Modifiers::bit(list, index));
        [Modifiers::bit(&self.op_sel, index), high]
    }

    /// Bit `index` of op_sel.
    pub fn op_sel(&self, index: usize) -> bool {
        Modifiers::bit(&self.op_sel, index)
    }

    /// Bit `index` of op_sel_hi, zero where there is none.
    pub fn op_sel_hi(&self, index: usize) -> bool {
        self.op_sel_hi.as_ref().is_some_and(|list| Modifiers::bit(list, index))
    }

    /// Whether the source is negated for the low result and for the high one.
    pub fn neg(&self, index: usize) -> [bool; 2] {
        [Modifiers::bit(&self.neg_lo, index), Modifiers::bit(&self.neg_hi, index)]
    }
}

/// The register of a destination.
pub fn destination(context: &Context<'_>, rows: u16) -> Result<u16, Fault> {
    match context.asm.operands.first().map(|operand| &operand.value) {
        Some(Value::Vector(row, count)) if *count == rows => Ok(*row),
        _ => Err(context.unknown()),
    }
}

/// Data of other lanes for the first source, which must be a vector register then.
pub fn lanes(context: &Context<'_>) -> Result<Option<Dpp>, Fault> {
    let dpp = Dpp::new(context.asm, context.lanes).map_err(|()| context.unknown())?;
    let first = context.asm.operands.get(1).map(|operand| &operand.value);
    match (&dpp, first) {
        (None, _) | (Some(_), Some(Value::Vector(_, 1))) => Ok(dpp),
        _ => Err(context.unknown()),
    }
}

/// A source of one register or a constant, without modifiers of its own.
pub fn plain_source(context: &Context<'_>, operand: &Operand, kind: Kind) -> Result<Source, Fault> {
    let modified = operand.neg || operand.abs || operand.sext || operand.high;
    let is_wide = matches!(operand.value, Value::Vector(_, 2..));
    match Source::new(operand, kind) {
        Some(source) if !modified && !is_wide => Ok(source),
        _ => Err(context.unknown()),
    }
}

fn halves_group(name: &str, chip: Chip) -> Option<Op> {
    Some(match name {
        "add_f16" => real2(
            |a: Two, b: Two| halves!(add_f16, a, b),
            |m, a: Two, b: Two| halves!(|x: F16, y: F16| arith::add(m, x, y), a, b),
        ),
        "mul_f16" => real2(
            |a: Two, b: Two| halves!(mul_f16, a, b),
            |m, a: Two, b: Two| halves!(|x: F16, y: F16| arith::multiply(m, x, y), a, b),
        ),
        "fma_f16" | "fmac_f16" => real3(
            |a: Two, b: Two, c: Two| halves!(fma_f16, a, b, c),
            |m, a: Two, b: Two, c: Two| {
                halves!(|x: F16, y: F16, z: F16| arith::fma(m, x, y, z), a, b, c)
            },
        ),
        "min_f16" if chip.is_cdna() => {
            mode2(|m: Mode, a: Two, b: Two| halves!(|x, y| order::min::<true, F16>(m, x, y), a, b))
        }
        "max_f16" if chip.is_cdna() => {
            mode2(|m: Mode, a: Two, b: Two| halves!(|x, y| order::max::<true, F16>(m, x, y), a, b))
        }
        "min_f16" => {
            mode2(|m: Mode, a: Two, b: Two| halves!(|x, y| order::min::<false, F16>(m, x, y), a, b))
        }
        "max_f16" => {
            mode2(|m: Mode, a: Two, b: Two| halves!(|x, y| order::max::<false, F16>(m, x, y), a, b))
        }
        "min_num_f16" => map2(|a: Two, b: Two| halves!(order::minimum_number::<F16>, a, b)),
        "max_num_f16" => map2(|a: Two, b: Two| halves!(order::maximum_number::<F16>, a, b)),
        "minimum_f16" => map2(|a: Two, b: Two| halves!(order::minimum::<F16>, a, b)),
        "maximum_f16" => map2(|a: Two, b: Two| halves!(order::maximum::<F16>, a, b)),
        "minimum3_f16" => map3(|a: Two, b: Two, c: Two| {
            halves!(|x, y, z| order::minimum::<F16>(order::minimum(x, y), z), a, b, c)
        }),
        "maximum3_f16" => map3(|a: Two, b: Two, c: Two| {
            halves!(|x, y, z| order::maximum::<F16>(order::maximum(x, y), z), a, b, c)
        }),
        _ => return None,
    })
}

fn integer_group(name: &str) -> Option<Op> {
    Some(match name {
        "add_u16" => map2(|a: Two, b: Two| integers!(u16, u16::wrapping_add, a, b))
            .saturating(map2(|a: Two, b: Two| integers!(u16, u16::saturating_add, a, b))),
        "add_i16" => map2(|a: Two, b: Two| integers!(i16, i16::wrapping_add, a, b))
            .saturating(map2(|a: Two, b: Two| integers!(i16, i16::saturating_add, a, b))),
        "sub_u16" => map2(|a: Two, b: Two| integers!(u16, u16::wrapping_sub, a, b))
            .saturating(map2(|a: Two, b: Two| integers!(u16, u16::saturating_sub, a, b))),
        "sub_i16" => map2(|a: Two, b: Two| integers!(i16, i16::wrapping_sub, a, b))
            .saturating(map2(|a: Two, b: Two| integers!(i16, i16::saturating_sub, a, b))),
        // Chips ignore the clamp of a product.
        "mul_lo_u16" => map2(|a: Two, b: Two| integers!(u16, u16::wrapping_mul, a, b))
            .saturating(map2(|a: Two, b: Two| integers!(u16, u16::wrapping_mul, a, b))),
        "mad_u16" => map3(|a: Two, b: Two, c: Two| {
            integers!(u16, |x: u16, y, z| x.wrapping_mul(y).wrapping_add(z), a, b, c)
        })
        .saturating(map3(|a: Two, b: Two, c: Two| {
            integers!(
                u16,
                |x: u16, y: u16, z: u16| {
                    (u64::from(x) * u64::from(y) + u64::from(z)).min(0xffff) as u16
                },
                a,
                b,
                c
            )
        })),
        "mad_i16" => map3(|a: Two, b: Two, c: Two| {
            integers!(i16, |x: i16, y, z| x.wrapping_mul(y).wrapping_add(z), a, b, c)
        })
        .saturating(map3(|a: Two, b: Two, c: Two| {
            integers!(
                i16,
                |x: i16, y: i16, z: i16| {
                    (i64::from(x) * i64::from(y) + i64::from(z)).clamp(-0x8000, 0x7fff) as i16
                },
                a,
                b,
                c
            )
        })),
        "min_u16" => map2(|a: Two, b: Two| integers!(u16, |x: u16, y: u16| x.min(y), a, b)),
        "max_u16" => map2(|a: Two, b: Two| integers!(u16, |x: u16, y: u16| x.max(y), a, b)),
        "min_i16" => map2(|a: Two, b: Two| integers!(i16, |x: i16, y: i16| x.min(y), a, b)),
        "max_i16" => map2(|a: Two, b: Two| integers!(i16, |x: i16, y: i16| x.max(y), a, b)),
        "lshlrev_b16" => {
            map2(|a: Two, b: Two| integers!(u16, |x: u16, y: u16| y << (x & 15), a, b))
        }
        "lshrrev_b16" => {
            map2(|a: Two, b: Two| integers!(u16, |x: u16, y: u16| y >> (x & 15), a, b))
        }
        "ashrrev_i16" => {
            map2(|a: Two, b: Two| integers!(i16, |x: i16, y: i16| y >> (x & 15), a, b))
        }
        _ => return None,
    })
}

/// Compiles a packed or mixed instruction.
pub fn compile(context: &Context<'_>) -> Compiled {
    let mnemonic = context.asm.mnemonic.as_str();
    match mnemonic {
        "v_fma_mix_f32" => return Some(mixed(context, Finish::Single)),
        "v_fma_mixlo_f16" => return Some(mixed(context, Finish::ToLow)),
        "v_fma_mixhi_f16" => return Some(mixed(context, Finish::ToHigh)),
        "v_pk_fma_f32" => return Some(pairs(context, fma_single(), 3)),
        "v_pk_mul_f32" => return Some(pairs(context, mul_single(), 2)),
        "v_pk_add_f32" => return Some(pairs(context, add_single(), 2)),
        _ => {}
    }
    let name = mnemonic.strip_prefix("v_pk_")?;
    if let Some(op) = halves_group(name, context.chip) {
        return Some(words(context, op, Read::Halves, name == "fmac_f16"));
    }
    Some(words(context, integer_group(name)?, Read::Words, false))
}

fn words(context: &Context<'_>, op: Op, read: Read, accumulates: bool) -> Result<Exec, Fault> {
    let modifiers = Modifiers::new(context)?;
    let (kind, finish) = match read {
        Read::Halves => (Kind::F16, Finish::Halves),
        _ => (Kind::B32, Finish::Integer),
    };
    let row = destination(context, 1)?;
    let in_text = op.sources.len() - usize::from(accumulates);
    if context.asm.operands.len() != 1 + in_text {
        return Err(context.unknown());
    }
    let mut inputs = Vec::new();
    for (index, operand) in context.asm.operands[1..].iter().enumerate() {
        let source = plain_source(context, operand, kind)?;
        // Without op_sel the text cannot say what the high half of a constant would be.
        if accumulates && matches!(source, Source::Constant(_)) {
            return Err(context.unknown());
        }
        let input = Input::new(source, read);
        inputs.push(input.select(modifiers.halves(index), modifiers.neg(index)));
    }
    if accumulates {
        inputs.push(Input::new(Source::Row(row), read));
    }
    let core = match (modifiers.clamp && finish == Finish::Integer, op.saturated) {
        (false, _) => op.core,
        (true, Some(core)) => core,
        (true, None) => return Err(context.unknown()),
    };
    let Core::Map(map) = core else { return Err(context.unknown()) };
    let clamp = modifiers.clamp && finish == Finish::Halves;
    let dpp = lanes(context)?;
    let chip = context.chip;
    Ok(Packed { map, inputs, destination: row, finish, clamp, chip, dpp }.into_exec())
}

fn fma_single() -> Op {
    real3(|a: f32, b: f32, c: f32| a.mul_add(b, c), arith::fma::<f32>)
}

fn mul_single() -> Op {
    real2(|a: f32, b: f32| a * b, arith::multiply::<f32>)
}

fn add_single() -> Op {
    real2(|a: f32, b: f32| a + b, arith::add::<f32>)
}

/// Multiply-add of halves and singles: the two bits of a source in op_sel and op_sel_hi say
/// whether it is a half and which one.
fn mixed(context: &Context<'_>, finish: Finish) -> Result<Exec, Fault> {
    let modifiers = Modifiers::new(context)?;
    let [_, operands @ ..] = context.asm.operands.as_slice() else { return Err(context.unknown()) };
    if operands.len() != 3 {
        return Err(context.unknown());
    }
    let mut inputs = Vec::new();
    for (index, operand) in operands.iter().enumerate() {
        let is_half = modifiers.op_sel_hi(index);
        let bare = Operand { neg: false, abs: false, ..operand.clone() };
        let source = plain_source(context, &bare, Kind::F32)?;
        // Which bits a float constant has as a half is documented nowhere.
        if is_half && matches!(operand.value, Value::Float(_)) {
            return Err(context.unknown());
        }
        let input = match is_half {
            false => Input::new(source, Read::Single),
            true => {
                let high = modifiers.op_sel(index);
                Input::new(source, Read::Widened).select([high, true], [false; 2])
            }
        };
        inputs.push(input.with_sign(operand.abs, operand.neg));
    }
    let Core::Map(map) = fma_single().core else { return Err(context.unknown()) };
    let row = destination(context, 1)?;
    let (clamp, chip, dpp) = (modifiers.clamp, context.chip, lanes(context)?);
    Ok(Packed { map, inputs, destination: row, finish, clamp, chip, dpp }.into_exec())
}

/// An operation on the low and on the high registers of pairs.
fn pairs(context: &Context<'_>, op: Op, count: usize) -> Result<Exec, Fault> {
    let modifiers = Modifiers::new(context)?;
    let row = destination(context, 2)?;
    if context.asm.operands.len() != 1 + count {
        return Err(context.unknown());
    }
    let Core::Map(map) = op.core else { return Err(context.unknown()) };
    let half = |high: usize| -> Result<Packed, Fault> {
        let mut inputs = Vec::new();
        for (index, operand) in context.asm.operands[1..].iter().enumerate() {
            let second = modifiers.halves(index)[high];
            let source = half_of_pair(operand, second).ok_or_else(|| context.unknown())?;
            let neg = modifiers.neg(index)[high];
            inputs.push(Input::new(source, Read::Single).with_sign(false, neg));
        }
        let (finish, clamp) = (Finish::Single, modifiers.clamp);
        let destination = row + high as u16;
        let chip = context.chip;
        Ok(Packed { map, inputs, destination, finish, clamp, chip, dpp: None })
    };
    let (low, high) = (half(0)?, half(1)?);
    let reads =
        |packed: &Packed, row| packed.inputs.iter().any(|input| input.source == Source::Row(row));
    let (first, second) = match (reads(&high, row), reads(&low, row + 1)) {
        (false, _) => (low, high),
        (true, false) => (high, low),
        (true, true) => return Ok(crossed(low, high)),
    };
    let (first, second) = (first.into_exec(), second.into_exec());
    Ok(Box::new(move |wave, group| {
        first(wave, group)?;
        second(wave, group)
    }))
}

/// Each half reads the register that the other writes: the first result waits.
fn crossed(low: Packed, high: Packed) -> Exec {
    const WAITING: u16 = SCRATCH as u16 + 12;
    let to = usize::from(low.destination);
    let low = Packed { destination: WAITING, ..low }.into_exec();
    let high = high.into_exec();
    Box::new(move |wave, group| {
        let waiting = usize::from(WAITING);
        wave.rows[waiting] = wave.rows[to];
        low(wave, group)?;
        high(wave, group)?;
        wave.rows[to] = wave.rows[waiting];
        Ok(())
    })
}

/// One register of a pair. A constant has a low half only, as far as anyone says.
fn half_of_pair(operand: &Operand, second: bool) -> Option<Source> {
    if operand.neg || operand.abs || operand.sext || operand.high {
        return None;
    }
    let offset = u16::from(second);
    match operand.value {
        Value::Vector(row, 2) => Some(Source::Row(row + offset)),
        Value::Scalar(index, 2) if usize::from(index) + 2 <= scalar::COUNT => {
            Some(Source::Scalar(index + offset))
        }
        Value::Integer(_) | Value::Float(_) | Value::Literal(_) if !second => {
            Source::new(operand, Kind::F32)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Bench;
    use super::*;

    fn run(chip: Chip, text: &str, rows: &[u32]) -> u32 {
        let lanes = if chip.is_cdna() { 64 } else { 32 };
        let mut bench = Bench::new(chip, lanes);
        for (row, value) in rows.iter().enumerate() {
            bench.set(row, |_| *value);
        }
        bench.run(text);
        bench.lane(0, 17)
    }

    /// What a gfx1200 gives for these operands with every choice of halves and signs.
    #[test]
    fn halves_are_chosen_and_negated() {
        let rows = [0, 0x4000_3c00, 0x4200_c000, 0xb800_3800];
        for (text, result) in [
            ("v_pk_mad_i16 v0, v1, v2, v3", 0xb800_3800),
            ("v_pk_mad_i16 v0, v1, v2, v3 op_sel:[0,0,1]", 0xb800_b800),
            ("v_pk_mad_i16 v0, v1, v2, v3 op_sel_hi:[0,0,0]", 0x3800_3800),
            ("v_pk_mad_i16 v0, v1, v2, v3 neg_lo:[0,0,1]", 0xb800_b800),
            ("v_pk_mad_i16 v0, v1, v2, v3 neg_hi:[0,0,1]", 0x3800_3800),
            ("v_pk_mad_i16 v0, v1, v2, v3 clamp", 0x7fff_8000),
            ("v_pk_mul_lo_u16 v0, v1, v2 clamp", 0),
            ("v_pk_add_i16 v0, v1, v2", 0x8200_fc00),
            ("v_pk_add_i16 v0, v1, v2 op_sel:[1,0]", 0x8200_0000),
            ("v_pk_add_i16 v0, v1, v2 op_sel:[0,1]", 0x8200_7e00),
            ("v_pk_add_i16 v0, v1, v2 op_sel:[1,1]", 0x8200_8200),
            ("v_pk_add_i16 v0, v1, v2 op_sel_hi:[0,0]", 0xfc00_fc00),
            ("v_pk_add_i16 v0, v1, v2 op_sel_hi:[1,0]", 0xfc00_0000_u32.wrapping_add(0x0400_fc00)),
        ] {
            assert_eq!(run(Chip::Gfx1201, text, &rows), result, "{text}");
        }
    }

    #[test]
    fn halves_are_calculated_apart() {
        // 1 and 2; -2 and 3; 0.5 and -0.5.
        let rows = [0, 0x4000_3c00, 0x4200_c000, 0xb800_3800];
        for (text, result) in [
            ("v_pk_add_f16 v0, v1, v2", 0x4500_bc00),
            ("v_pk_mul_f16 v0, v1, v2", 0x4600_c000),
            ("v_pk_mul_f16 v0, v1, v2 neg_lo:[1,0] neg_hi:[0,1]", 0xc600_4000),
            ("v_pk_fma_f16 v0, v1, v2, v3", 0x4580_be00),
            ("v_pk_fma_f16 v0, v1, v2, v3 clamp", 0x3c00_0000),
            ("v_pk_min_f16 v0, v1, v2", 0x4000_c000),
            ("v_pk_max_f16 v0, v1, v2 op_sel:[1,1] op_sel_hi:[0,0]", 0x3c00_4200),
            ("v_pk_add_f16 v0, v1, s4", 0x4000_3c00),
        ] {
            assert_eq!(run(Chip::Gfx942, text, &rows), result, "{text}");
            assert_eq!(run(Chip::Gfx1100, text, &rows), result, "{text}");
        }
        // The old value is the third operand; a NaN in one half leaves the other alone.
        assert_eq!(
            run(
                Chip::Gfx90a,
                "v_pk_fmac_f16_e32 v0, v1, v2",
                &[0x3c00_3c00, 0x4000_3c00, 0x4200_c000]
            ),
            0x4700_bc00
        );
        assert_eq!(
            run(Chip::Gfx90a, "v_pk_add_f16 v0, v1, v2", &[0, 0x7d00_3c00, 0x3c00_3c00]),
            0x7f00_4000
        );
    }

    /// A float constant is a half in the low half of f16 operands, a single for integers; a whole
    /// number has all its bits.
    #[test]
    fn constants_have_halves() {
        let rows = [0, 0x4000_4000];
        for (text, result) in [
            ("v_pk_add_f16 v0, v1, 1.0", 0x4000_4200),
            ("v_pk_add_f16 v0, v1, 1.0 op_sel_hi:[1,0]", 0x4200_4200),
            ("v_pk_add_u16 v0, v1, 2.0", 0x8000_4000),
            ("v_pk_add_u16 v0, v1, -1", 0x3fff_3fff),
            ("v_pk_add_u16 v0, v1, 1", 0x4000_4001),
            ("v_pk_add_u16 v0, v1, 1 op_sel_hi:[1,0]", 0x4001_4001),
            ("v_pk_add_u16 v0, v1, 0x20001", 0x4002_4001),
            ("v_pk_lshlrev_b16 v0, 1, v1 op_sel_hi:[0,1]", 0x8000_8000),
        ] {
            assert_eq!(run(Chip::Gfx1100, text, &rows), result, "{text}");
        }
    }

    #[test]
    fn integers_saturate() {
        let rows = [0, 0xffff_8000, 0x0002_ffff];
        for (text, result) in [
            ("v_pk_add_u16 v0, v1, v2", 0x0001_7fff),
            ("v_pk_add_u16 v0, v1, v2 clamp", 0xffff_ffff),
            ("v_pk_add_i16 v0, v1, v2 clamp", 0x0001_8000),
            ("v_pk_sub_u16 v0, v2, v1 clamp", 0x0000_7fff),
            ("v_pk_sub_i16 v0, v1, v2 clamp", 0xfffd_8001),
            ("v_pk_mad_u16 v0, v1, v2, v2 clamp", 0xffff_ffff),
            ("v_pk_max_i16 v0, v1, v2", 0x0002_ffff),
            ("v_pk_min_u16 v0, v1, v2", 0x0002_8000),
            ("v_pk_ashrrev_i16 v0, v2, v1", 0xffff_ffff),
            ("v_pk_lshrrev_b16 v0, v2, v1", 0x3fff_0001),
        ] {
            assert_eq!(run(Chip::Gfx950, text, &rows), result, "{text}");
        }
    }

    #[test]
    fn denormals_follow_the_mode() {
        let mut bench = Bench::new(Chip::Gfx942, 64);
        bench.set(1, |_| 0x0001_8400).set(2, |_| 0x3c00_3800);
        bench.run("v_pk_mul_f16 v0, v1, v2");
        assert_eq!(bench.lane(0, 3), 0x0001_8200);
        bench.wave.mode = 0x30;
        bench.run("v_pk_mul_f16 v0, v1, v2");
        assert_eq!(bench.lane(0, 3), 0x0000_8000);
    }

    #[test]
    fn mixed_operands_are_halves_or_singles() {
        let f = f32::to_bits;
        // A register with halves 1 and 2, singles 3 and 0.25.
        let rows = [0xdead_beef, 0x4000_3c00, f(3.0), f(0.25)];
        for (text, result) in [
            ("v_fma_mix_f32 v0, v1, v2, v3 op_sel_hi:[1,0,0]", f(3.25)),
            ("v_fma_mix_f32 v0, v1, v2, v3 op_sel:[1,0,0] op_sel_hi:[1,0,0]", f(6.25)),
            ("v_fma_mix_f32 v0, -v1, |v2|, -v3 op_sel_hi:[1,0,0]", f(-3.25)),
            ("v_fma_mix_f32 v0, v2, v2, v1 op_sel_hi:[0,0,1]", f(10.0)),
            ("v_fma_mix_f32 v0, v2, v3, 1.0", f(1.75)),
            ("v_fma_mix_f32 v0, v2, v3, 1.0 clamp", f(1.0)),
            ("v_fma_mixlo_f16 v0, v1, v2, v3 op_sel_hi:[1,0,0]", 0xdead_4280),
            ("v_fma_mixhi_f16 v0, v1, v2, v3 op_sel_hi:[1,0,0]", 0x4280_beef),
            ("v_fma_mixhi_f16 v0, v1, -v2, v3 op_sel_hi:[1,0,0] clamp", 0x0000_beef),
        ] {
            assert_eq!(run(Chip::Gfx942, text, &rows), result, "{text}");
            assert_eq!(run(Chip::Gfx1201, text, &rows), result, "{text}");
        }
    }

    #[test]
    fn pairs_choose_registers() {
        let f = f32::to_bits;
        let pair = |text: &str| {
            let mut bench = Bench::new(Chip::Gfx90a, 64);
            for (row, value) in [(2, 2.0), (3, 3.0), (4, 5.0), (5, 7.0_f32)] {
                bench.set(row, |_| f(value));
            }
            (bench.wave.sgpr[6], bench.wave.sgpr[7]) = (f(10.0), f(100.0));
            bench.run(text);
            (f32::from_bits(bench.lane(2, 60)), f32::from_bits(bench.lane(3, 60)))
        };
        assert_eq!(pair("v_pk_mul_f32 v[2:3], v[2:3], v[4:5]"), (10.0, 21.0));
        assert_eq!(pair("v_pk_mul_f32 v[2:3], v[2:3], v[4:5] op_sel:[1,0]"), (15.0, 21.0));
        assert_eq!(pair("v_pk_mul_f32 v[2:3], v[2:3], v[4:5] op_sel_hi:[0,1]"), (10.0, 14.0));
        // Both halves read what the other writes.
        assert_eq!(
            pair("v_pk_add_f32 v[2:3], v[2:3], v[4:5] op_sel:[1,0] op_sel_hi:[0,1]"),
            (8.0, 9.0)
        );
        assert_eq!(pair("v_pk_add_f32 v[2:3], v[2:3], s[6:7]"), (12.0, 103.0));
        assert_eq!(pair("v_pk_add_f32 v[2:3], v[2:3], s[6:7] op_sel_hi:[1,0]"), (12.0, 13.0));
        assert_eq!(pair("v_pk_add_f32 v[2:3], v[2:3], 1.0 op_sel_hi:[1,0]"), (3.0, 4.0));
        let fma = "v_pk_fma_f32 v[2:3], v[2:3], v[4:5], v[2:3] neg_lo:[1,0,0] neg_hi:[0,0,1]";
        assert_eq!(pair(fma), (-8.0, 18.0));
        let mut bench = Bench::new(Chip::Gfx90a, 64);
        assert!(bench.try_run("v_pk_add_f32 v[2:3], v[2:3], 1.0").is_err());
    }
}
