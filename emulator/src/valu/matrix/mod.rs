//! Matrix instructions: MFMA and SMFMAC of CDNA, WMMA and SWMMAC of RDNA.
//!
//! EXEC plays no part in them: all lanes take part, as the instruction set documents say. An
//! instruction reads A, B and C whole before it writes D, so they may overlap.
//!
//! # Arithmetic
//!
//! AMD documents shapes and layouts, but not how products are summed. Others have measured it, and
//! what they found is followed here, bit for bit:
//!
//! * CDNA 2 and 3: Xie, Wang, Yang and Yang, "Bit-Accurate Modeling of GPU Matrix
//!   Multiply-Accumulate Units" (arXiv:2511.10909, github.com/microsoft/MMA-Sim), whose models agree
//!   with MI250X and MI300X on random operands.
//! * RDNA 3 and 4, f16 and bf16: measurements of gfx1100 and gfx1201 that AMD published with its
//!   emulator rocjitsu (github.com/ROCm/rocm-systems, issue 12056). gfx1151 is taken to be like
//!   gfx1100.
//!
//! The sums, each from C on, k ascending:
//!
//! * [`Arithmetic::Chain`], f32 and f64 on CDNA: a chain of fused multiply-adds. Denormals are kept,
//!   but those of A and B in f32 are zeros if the mode register flushes single inputs.
//! * [`Arithmetic::Flushed`], f16, bf16 and bf16_1k on gfx90a: denormals of A, B and C are positive
//!   zeros (AMD says so, too: MIOpen's "MI200 MFMA behavior specifics"). Products in single
//!   precision; sums of pairs, and of two pairs (in the bf16 forms without `_1k` of one), which
//!   are added to C. Every denormal on the way is a zero of its sign.
//! * [`Arithmetic::Truncated`], f16, bf16 and xf32 on gfx942: steps of eight (xf32: four; 4x4x4:
//!   four) products. Let e be the largest sum of the exponents of two factors (of denormals the
//!   smallest exponent of their format; zeros do not count). Each product is cut toward zero to a
//!   multiple of 2^(e-24), and all are added exactly. With E the larger of e and C's exponent, the
//!   sum is rounded down to a multiple of 2^(E-32), C to one of 2^(E-24); their sum is rounded down
//!   to 31 bits after its leading one, then to the nearest single. Denormals are kept; a product
//!   beyond the singles is an infinity. xf32 ignores the 13 low bits of A and B.
//! * [`Arithmetic::Interleaved`], fp8 and bf8 on gfx942: steps of 16; the products of even and of
//!   odd k are summed apart in that way, the two sums are rounded down to 24 bits below the larger e
//!   and added; then as above, but a C below 2^(E-25) counts as zero.
//! * [`Arithmetic::Pairs`], RDNA 3: steps of two products. With g the larger of e - 24 and the
//!   leading bit of the largest of C and the products less 26, all three are cut to multiples of 2^g;
//!   one whose sign differs from C's counts as the complement to one of its magnitude, so that 1 - 1
//!   is not zero and even zeros matter. The sum is rounded to 24 bits; denormals, of inputs (but
//!   those of halves) and of results, are zeros.
//! * [`Arithmetic::Quads`], RDNA 4: steps of four products. Each pair is rounded down to multiples
//!   of 2^(e-24) with its own e and added, then rounded down to the grid of the larger of e - 24 and
//!   C's exponent less 26, as is C; the sum is rounded to the nearest single. On a grid above 2^-126
//!   a C of which nothing is left counts as zero. Denormals are kept.
//! * 16-bit results of RDNA are rounded after every step: halves to nearest from the exact sum,
//!   bfloat16 by cutting the single. FP16_OVFL keeps halves finite.
//! * [`Arithmetic::Wide`], everything else, of which nobody has published measurements: CDNA 4 but
//!   f32 and f64, fp8 of RDNA 4, all sparse forms, f8f6f4. Products are exact, C and all products
//!   are summed in double precision, and the sum is rounded once to the nearest single, from there to
//!   16 bits. That is closer to the exact result than any hardware is; expect other last bits.
//!   Denormals are kept.
//! * [`Arithmetic::Integer`]: exact; results wrap around, or stop at the ends with `clamp`.
//!
//! On gfx942 and gfx950, FP16_OVFL of the mode register makes overflowing results stop at the largest
//! number, of singles and of integers (CDNA 3's instruction set document, table of dense MFMA).
//!
//! RDNA's NaN have the measured bits. On CDNA a NaN result is 0x7fc00000 (of doubles
//! 0x7ff8000000000000); what bits hardware gives is not known. On gfx942 a sum of zeros is a
//! positive zero, whatever their signs.
//!
//! # Choices
//!
//! * gfx11 wants A and B twice (four times in 64-lane waves). Each 16 lanes use their own copy.
//! * f8f6f4: lane l's scale is for row (or column) l mod M and the 32 values of k from 32·⌊l/M⌋ on,
//!   also with 8-bit elements, of which a lane holds two runs of 16 from different such blocks.
//! * `cbsz` makes groups of 2^`cbsz` neighbouring blocks, and each group uses its own block `abid`:
//!   so say the tables of the encoding and AMD's matrix instruction calculator. The text of CDNA 3's
//!   chapter 7.1.5.1 repeats 64 / 2^`cbsz` lanes instead, which is the same where one group has all
//!   blocks. `cbsz`, `abid` and `blgp` fault on forms that do not have them.

mod exact;
mod form;
mod host;
mod kernel;
mod layout;
mod operand;
mod run;
mod simd;
#[cfg(test)]
mod tests;

use crate::Chip;
use crate::asm::{Instruction, Value};
use crate::program::{Compiled, Context};
use crate::valu::Source;
use crate::valu::op::Kind;
use crate::wave::{Exec, mode};

use form::{Arithmetic, Family, Type};
pub use form::{Form, forms};
use layout::Spread;
use operand::{Denormals, Format, IDENTITY, Input};
use run::{Addend, Index, Packing, Plan, Scales};

/// Multiplications and additions of one execution of a matrix instruction.
pub fn operations(mnemonic: &str, chip: Chip) -> Option<u64> {
    form::find(mnemonic, chip).map(Form::operations)
}

/// Compiles a matrix instruction.
pub fn compile(context: &Context<'_>) -> Compiled {
    let form = form::find(&context.asm.mnemonic, context.chip)?;
    Some(build(context, form).ok_or_else(|| context.unknown()))
}

/// The closure; nothing if an operand or a modifier is not what the form has.
fn build(context: &Context<'_>, form: &'static Form) -> Option<Exec> {
    let plan = plan(context, form)?;
    let arithmetic = form.arithmetic(context.chip);
    let runner = run::runner(arithmetic, &plan, plan.clamp)?;
    if !(plan.integer && obeys_overflow_mode(form, context.chip)) {
        return Some(Box::new(move |wave, _| {
            runner.run(&plan, wave);
            Ok(())
        }));
    }
    let clamping = run::runner(arithmetic, &plan, true)?;
    Some(Box::new(move |wave, _| {
        let clamps = wave.mode & mode::FP16_OVFL != 0;
        let runner = if clamps { clamping } else { runner };
        runner.run(&plan, wave);
        Ok(())
    }))
}

/// Whether FP16_OVFL of the mode register makes results stop at the ends of their range.
fn obeys_overflow_mode(form: &Form, chip: Chip) -> bool {
    matches!(chip, Chip::Gfx942 | Chip::Gfx950) && form.a != Type::F8f6f4
}

fn plan(context: &Context<'_>, form: &'static Form) -> Option<Plan> {
    let (asm, lanes) = (context.asm, context.lanes as usize);
    let modifiers = Modifiers::new(context, form)?;
    let [a, b] = inputs(context, form, &modifiers)?;
    let spreads = [
        Spread::new(form, lanes, form.m, form.stored_k(), a.format),
        Spread::new(form, lanes, form.n, form.k, b.format),
    ];
    let tasks = layout::tasks(form, lanes, spreads, |block| modifiers.block_of_a(block));
    let packing = match (form.family, form.c) {
        (_, Type::F64) => Packing::Double,
        (Family::Wmma11, Type::F16 | Type::Bf16) => Packing::Half(modifiers.high),
        (_, Type::F16 | Type::Bf16) => Packing::Packed,
        _ => Packing::Whole,
    };
    let results = form.m * form.n * form.blocks / lanes;
    let registers = match packing {
        Packing::Whole | Packing::Half(_) => results,
        Packing::Double => 2 * results,
        Packing::Packed => results / 2,
    };
    let destination = vector(asm, 0, registers)?;
    let c = if form.sparse { Addend::Row(destination) } else { addend(asm, form, registers)? };
    let index = match form.sparse {
        true => Some(index(asm, form, &a, &modifiers)?),
        false => None,
    };
    let value = match form.c {
        Type::F16 => run::Value::F16,
        Type::Bf16 => run::Value::Bf16,
        _ => run::Value::Bits,
    };
    Some(Plan {
        a,
        b,
        c,
        destination,
        value,
        packing,
        sign: modifiers.sign_of_c,
        columns: form.n,
        strips: run::strips(&tasks, form.n, packing),
        tasks,
        index,
        scales: scales(asm, form, &modifiers)?,
        integer: form.c == Type::I32,
        clamp: modifiers.clamp,
        bounded_by_mode: obeys_overflow_mode(form, context.chip) && form.c == Type::F32,
    })
}

/// The first row of an operand that must have so many registers.
fn vector(asm: &Instruction, operand: usize, registers: usize) -> Option<usize> {
    let operand = asm.operands.get(operand)?;
    let plain = !(operand.neg || operand.abs || operand.sext || operand.high);
    match operand.value {
        Value::Vector(row, count) if plain && usize::from(count) == registers => Some(row.into()),
        _ => None,
    }
}

fn inputs(context: &Context<'_>, form: &'static Form, modifiers: &Modifiers) -> Option<[Input; 2]> {
    let lanes = context.lanes as usize;
    let of = [form.a, form.b];
    let outer = [form.m, form.n];
    let k = [form.stored_k(), form.k];
    let mut inputs = Vec::new();
    for side in 0..2 {
        let (signed, select) = (modifiers.signed[side], modifiers.formats[side]);
        let format = Format::new(of[side], context.chip, signed, select)?;
        let spread = Spread::new(form, lanes, outer[side], k[side], format);
        let mut input = Input::new(0, format, spread.elements);
        input.row = vector(context.asm, 1 + side, input.registers())?;
        input.flip = modifiers.flip[side];
        input.denormals = match (form.arithmetic(context.chip), of[side]) {
            (Arithmetic::Flushed(_), _) => Denormals::Zero,
            (Arithmetic::Pairs, Type::Bf16) => Denormals::SignedZero,
            (Arithmetic::Chain, Type::F32) => Denormals::ByMode,
            _ => Denormals::Keep,
        };
        inputs.push(input);
    }
    inputs[1].quarters = modifiers.quarters;
    inputs.try_into().ok()
}

/// C: registers or an inline constant, whose bits depend on the type.
fn addend(asm: &Instruction, form: &Form, registers: usize) -> Option<Addend> {
    let operand = asm.operands.get(3)?;
    if let Value::Vector(..) = operand.value {
        return vector(asm, 3, registers).map(Addend::Row);
    }
    let kind = match form.c {
        Type::F64 => Kind::F64,
        Type::F16 => Kind::F16,
        Type::Bf16 => Kind::Bf16,
        Type::F32 => Kind::F32,
        _ => Kind::B32,
    };
    match (&operand.value, operand.neg || operand.abs) {
        (Value::Integer(_) | Value::Float(_), false) => match Source::new(operand, kind)? {
            Source::Constant(bits) => Some(Addend::Constant(bits)),
            _ => None,
        },
        _ => None,
    }
}

fn index(asm: &Instruction, form: &Form, a: &Input, modifiers: &Modifiers) -> Option<Index> {
    let row = vector(asm, 3, 1)?;
    let bits = 2 * a.elements;
    let first = modifiers.index_set * bits;
    match form.family {
        // Of ABID, only the bits count that a choice needs.
        Family::Mfma => Some(Index { row, first: first % 32 }),
        _ => (first + bits <= 32).then_some(Index { row, first }),
    }
}

fn scales(asm: &Instruction, form: &Form, modifiers: &Modifiers) -> Option<Option<[Scales; 2]>> {
    if !form.scaled {
        return Some(None);
    }
    let [byte_a, byte_b] = modifiers.scale_bytes;
    let a = Scales { row: vector(asm, 4, 1)?, byte: byte_a, stride: form.m };
    let b = Scales { row: vector(asm, 5, 1)?, byte: byte_b, stride: form.n };
    Some(Some([a, b]))
}

/// What the modifiers say, with the meaning that the form gives them.
struct Modifiers {
    /// Signedness of A's and B's integers.
    signed: [bool; 2],
    /// Formats of A and B in f8f6f4.
    formats: [i64; 2],
    /// Sign bits to flip in A's and B's even and odd elements.
    flip: [[u32; 2]; 2],
    /// Bits of C to keep and to flip.
    sign_of_c: [u32; 2],
    /// C and D are the high halves of registers.
    high: bool,
    clamp: bool,
    /// How many blocks share one of A, and which of them it is.
    broadcast: [usize; 2],
    /// Permutation of B's lanes.
    quarters: [usize; 4],
    /// Which part of the index register a sparse form uses.
    index_set: usize,
    /// Bytes of the scale registers.
    scale_bytes: [usize; 2],
}

const SIGN: u32 = 1 << 31;

impl Modifiers {
    /// The modifiers of an instruction; nothing if there is one that the form does not have.
    fn new(context: &Context<'_>, form: &'static Form) -> Option<Modifiers> {
        let asm = context.asm;
        let operands = if form.scaled { 6 } else { 4 };
        let known = known(form, context.chip);
        let strange = asm.modifiers.iter().any(|m| !known.contains(&m.name.as_str()));
        if strange || asm.operands.len() != operands {
            return None;
        }
        let mut modifiers = Modifiers {
            signed: [false; 2],
            formats: [0; 2],
            flip: [[0; 2]; 2],
            sign_of_c: [u32::MAX, 0],
            high: false,
            clamp: asm.has("clamp"),
            broadcast: [1, 0],
            quarters: IDENTITY,
            index_set: 0,
            scale_bytes: [0; 2],
        };
        match form.family {
            Family::Mfma => modifiers.read_mfma(asm, form)?,
            Family::Wmma11 | Family::Wmma12 => modifiers.read_wmma(asm, form)?,
        }
        Some(modifiers)
    }

    fn read_mfma(&mut self, asm: &Instruction, form: &Form) -> Option<()> {
        let [cbsz, abid, blgp] = ["cbsz", "abid", "blgp"].map(|name| field(asm, name));
        let (cbsz, abid, blgp) = (cbsz?, abid?, blgp?);
        if form.a == Type::F8f6f4 {
            self.formats = [cbsz, blgp];
            let [low, high] = [list(asm, "op_sel")?, list(asm, "op_sel_hi")?];
            self.scale_bytes = [0, 1].map(|side| (low[side] + 2 * high[side]) as usize);
        } else if form.sparse {
            // Any CBSZ but zero means the first part of the index, whatever ABID is.
            self.index_set = if cbsz == 0 { abid as usize } else { 0 };
        } else {
            let blocks = 1_usize.checked_shl(cbsz as u32)?;
            if blocks > form.blocks || abid as usize >= blocks {
                return None;
            }
            self.broadcast = [blocks, abid as usize];
            self.quarters = permutation(blgp)?;
        }
        let [neg_a, neg_b, neg_c] = list(asm, "neg")?;
        self.flip = [[neg_a * SIGN; 2], [neg_b * SIGN; 2]];
        self.sign_of_c[1] = neg_c * SIGN;
        Some(())
    }

    /// For integers NEG says that A and B are signed; for floats NEG_LO and NEG_HI negate even and
    /// odd elements of A and B, and for C they are negation and absolute value.
    fn read_wmma(&mut self, asm: &Instruction, form: &Form) -> Option<()> {
        let [low, high] = [list(asm, "neg_lo")?, list(asm, "neg_hi")?];
        if form.c == Type::I32 {
            self.signed = [low[0] == 1, low[1] == 1];
            if low[2] == 1 || high != [0; 3] {
                return None;
            }
        } else {
            self.flip = [0, 1].map(|side| [low[side] * SIGN, high[side] * SIGN]);
            self.sign_of_c = [if high[2] == 1 { !SIGN } else { u32::MAX }, low[2] * SIGN];
        }
        let select = list(asm, "op_sel")?;
        self.high = select[2] == 1;
        self.index_set = field(asm, "index_key")? as usize;
        (select[..2] == [0, 0]).then_some(())
    }

    /// The block of A that a block uses: CBSZ makes groups of blocks, ABID says which of a group
    /// is used for all.
    fn block_of_a(&self, block: usize) -> usize {
        let [group, which] = self.broadcast;
        block / group * group + which
    }
}

/// The modifiers that a form has.
fn known(form: &Form, chip: Chip) -> Vec<&'static str> {
    let mut known = Vec::new();
    let is_integer = form.c == Type::I32;
    match form.family {
        Family::Mfma if form.a == Type::F8f6f4 => known.extend(["cbsz", "blgp"]),
        Family::Mfma if form.sparse => known.extend(["cbsz", "abid"]),
        Family::Mfma => {}
        Family::Wmma11 | Family::Wmma12 => known.extend(["neg_lo", "neg_hi"]),
    }
    if form.scaled {
        known.extend(["op_sel", "op_sel_hi"]);
    }
    if form.broadcasts_a() {
        known.extend(["cbsz", "abid"]);
    }
    if form.permutes_b(chip) {
        known.push("blgp");
    }
    // From gfx940 on, the field of BLGP negates the operands of doubles.
    if form.c == Type::F64 && chip != Chip::Gfx90a {
        known.push("neg");
    }
    if form.family != Family::Mfma && is_integer {
        known.push("clamp");
    }
    if form.family == Family::Wmma11 && matches!(form.c, Type::F16 | Type::Bf16) {
        known.push("op_sel");
    }
    if form.family == Family::Wmma12 && form.sparse {
        known.push("index_key");
    }
    known
}

/// A number, zero where the modifier is not there.
fn field(asm: &Instruction, name: &str) -> Option<i64> {
    if !asm.has(name) {
        return Some(0);
    }
    asm.number(name).filter(|number| (0..16).contains(number))
}

/// Three bits, zero where the modifier is not there.
fn list(asm: &Instruction, name: &str) -> Option<[u32; 3]> {
    if !asm.has(name) {
        return Some([0; 3]);
    }
    let bits: [u32; 3] = asm.list(name)?.try_into().ok()?;
    bits.iter().all(|bit| *bit < 2).then_some(bits)
}

/// From which 16 lanes of B each 16 lanes are read.
fn permutation(blgp: i64) -> Option<[usize; 4]> {
    Some(match blgp {
        0 => IDENTITY,
        1 => [0, 1, 0, 1],
        2 => [2, 3, 2, 3],
        3 => [1, 2, 3, 0],
        4 => [0; 4],
        5 => [1; 4],
        6 => [2; 4],
        7 => [3; 4],
        _ => return None,
    })
}
