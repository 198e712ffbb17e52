//! Floating-point arithmetic of RDNA 3.5 and 4.
//!
//! A scalar instruction is the vector instruction of the same name on one lane: its sources go to
//! temporary rows, and its result comes from one. So rounding, denormals, NaNs and saturation
//! follow MODE as they do there. A half is the low half of a register; the high half becomes zero.

use super::{Place, Source, Word, expect_operands, operand, place, source};
use crate::Chip;
use crate::asm::{Encoding, Instruction, Operand, Value};
use crate::program::{Compiled, Context};
use crate::valu;
use crate::valu::op::Kind;
use crate::wave::{Exec, Fault, Group, SCRATCH, SCRATCH_ROWS, Step, Wave, scalar};

/// Rows of up to three sources.
const SOURCES: usize = SCRATCH + SCRATCH_ROWS - 4;
/// Row of the result.
const RESULT: usize = SCRATCH + SCRATCH_ROWS - 1;

/// Compiles a scalar floating-point instruction.
pub fn compile(context: &Context<'_>) -> Compiled {
    if !matches!(context.chip, Chip::Gfx1151 | Chip::Gfx1201) {
        return None;
    }
    let mnemonic = context.asm.mnemonic.as_str();
    // RDNA 4 names its transcendental functions of scalars after the unit that computes them.
    let name = mnemonic.strip_prefix("s_").or_else(|| mnemonic.strip_prefix("v_s_"))?;
    if let Some(comparison) = name.strip_prefix("cmp_") {
        return compare(context, comparison);
    }
    let (vector, operands) = form(name)?;
    Some(arithmetic(context, vector, operands))
}

/// Where a source of the vector instruction comes from.
#[derive(Clone, Copy)]
enum Part {
    /// An operand, as a 32-bit value.
    Word(usize),
    /// An operand, as a half.
    Half(usize),
    /// The high half of an operand.
    High(usize),
}

/// The vector instruction without its `v_`, and its sources.
fn form(name: &str) -> Option<(&str, Vec<Part>)> {
    use Part::{Half, High, Word};
    Some(match name {
        "fmaak_f32" => ("fma_f32", vec![Word(1), Word(2), Word(3)]),
        "fmamk_f32" => ("fma_f32", vec![Word(1), Word(2), Word(3)]),
        "fmac_f32" => ("fma_f32", vec![Word(1), Word(2), Word(0)]),
        "fmac_f16" => ("fma_f16", vec![Half(1), Half(2), Half(0)]),
        "add_f32" | "sub_f32" | "mul_f32" | "min_f32" | "max_f32" | "min_num_f32"
        | "max_num_f32" | "minimum_f32" | "maximum_f32" | "cvt_pk_rtz_f16_f32" => {
            (name, vec![Word(1), Word(2)])
        }
        "add_f16" | "sub_f16" | "mul_f16" | "min_f16" | "max_f16" | "min_num_f16"
        | "max_num_f16" | "minimum_f16" | "maximum_f16" => (name, vec![Half(1), Half(2)]),
        "ceil_f32" | "floor_f32" | "trunc_f32" | "rndne_f32" | "cvt_f32_i32" | "cvt_f32_u32"
        | "cvt_i32_f32" | "cvt_u32_f32" | "cvt_f16_f32" | "exp_f32" | "log_f32" | "rcp_f32"
        | "rsq_f32" | "sqrt_f32" => (name, vec![Word(1)]),
        "ceil_f16" | "floor_f16" | "trunc_f16" | "rndne_f16" | "cvt_f32_f16" | "exp_f16"
        | "log_f16" | "rcp_f16" | "rsq_f16" | "sqrt_f16" => (name, vec![Half(1)]),
        "cvt_hi_f32_f16" => ("cvt_f32_f16", vec![High(1)]),
        _ => return None,
    })
}

/// A source with what is done to its bits.
#[derive(Clone, Copy)]
struct Input {
    source: Source,
    shift: u32,
}

impl Input {
    fn new(context: &Context<'_>, from: Part) -> Result<Input, Fault> {
        let (index, half, shift) = match from {
            Part::Word(index) => (index, false, 0),
            Part::Half(index) => (index, true, 0),
            Part::High(index) => (index, false, 16),
        };
        let source = match operand(context, index)?.value {
            Value::Float(float) if half => Source::Constant(Kind::F16.inline_float(float)),
            _ => source::<u32>(context, index)?,
        };
        Ok(Input { source, shift })
    }

    #[inline(always)]
    fn read(self, wave: &Wave) -> u32 {
        u32::read(wave, self.source) >> self.shift
    }
}

/// The vector instruction on the temporary rows.
fn on_rows(
    context: &Context<'_>,
    mnemonic: &str,
    result: Value,
    count: usize,
) -> Result<Exec, Fault> {
    let plain = |value| Operand { value, neg: false, abs: false, sext: false, high: false };
    let row = |index: usize| plain(Value::Vector((SOURCES + index) as u16, 1));
    let operands = std::iter::once(plain(result)).chain((0..count).map(row)).collect();
    let asm = Instruction {
        mnemonic: mnemonic.to_string(),
        encoding: Encoding::E64,
        text: context.asm.text.clone(),
        operands,
        ..Instruction::default()
    };
    let vector = Context { asm: &asm, ..*context };
    valu::compile(&vector).unwrap_or_else(|| Err(context.unknown()))
}

/// Runs a vector instruction on the first lane alone.
#[inline(always)]
fn run(wave: &mut Wave, group: &mut Group, inputs: &[Input], vector: &Exec) -> Step {
    for (index, input) in inputs.iter().enumerate() {
        wave.rows[SOURCES + index].0[0] = input.read(wave);
    }
    let exec = wave.exec();
    wave.set_exec(1);
    let step = vector(wave, group);
    wave.set_exec(exec);
    step
}

fn arithmetic(context: &Context<'_>, vector: &str, sources: Vec<Part>) -> Result<Exec, Fault> {
    let last = sources.iter().map(|from| match from {
        Part::Word(index) | Part::Half(index) | Part::High(index) => *index,
    });
    expect_operands(context, 1 + last.max().unwrap_or(0))?;
    let place: Place = place(context, 0, 1)?;
    let count = sources.len();
    let inputs = sources.into_iter().map(|from| Input::new(context, from));
    let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
    let result = Value::Vector(RESULT as u16, 1);
    let vector = on_rows(context, &format!("v_{vector}"), result, count)?;
    Ok(Box::new(move |wave, group| {
        wave.rows[RESULT].0[0] = 0;
        run(wave, group, &inputs, &vector)?;
        wave.rows[RESULT].0[0].set(wave, place);
        Ok(())
    }))
}

/// `lt_f32`: the vector comparison's mask goes to VCC for a moment.
fn compare(context: &Context<'_>, name: &str) -> Compiled {
    let half = match name.split_once('_')?.1 {
        "f16" => true,
        "f32" => false,
        _ => return None,
    };
    let input =
        |index| Input::new(context, if half { Part::Half(index) } else { Part::Word(index) });
    let build = || {
        expect_operands(context, 2)?;
        let inputs = [input(0)?, input(1)?];
        let mask = Value::Scalar(scalar::VCC as u16, if context.lanes == 64 { 2 } else { 1 });
        let vector = on_rows(context, &format!("v_cmp_{name}"), mask, 2)?;
        let exec: Exec = Box::new(move |wave, group| {
            let vcc = wave.pair(scalar::VCC);
            let step = run(wave, group, &inputs, &vector);
            wave.scc = wave.sgpr[scalar::VCC] & 1 != 0;
            wave.set_pair(scalar::VCC, vcc);
            step
        });
        Ok(exec)
    };
    Some(build())
}

#[cfg(test)]
mod tests {
    use crate::Chip;
    use crate::scalar::testing::Machine;
    use crate::wave::{mode, scalar};

    /// Instruction with its sources s0 and s1, and the bits in s4 afterwards.
    fn check(machine: &mut Machine, cases: &[(&str, u32, u32, u32)]) {
        for &(text, a, b, expected) in cases {
            machine.set(&[a, b]);
            machine.run(text);
            let got = machine.wave.sgpr[4];
            assert_eq!(got, expected, "{text} {a:#x} {b:#x}: {got:#x}");
        }
    }

    fn bits(value: f32) -> u32 {
        value.to_bits()
    }

    #[test]
    fn sums_and_products() {
        for chip in [Chip::Gfx1151, Chip::Gfx1201] {
            let mut machine = Machine::new(chip);
            machine.wave.set_exec(0);
            let cases = [
                ("s_add_f32 s4, s0, s1", bits(1.5), bits(2.25), bits(3.75)),
                ("s_sub_f32 s4, s0, s1", bits(1.5), bits(2.25), bits(-0.75)),
                ("s_mul_f32 s4, s0, s1", bits(1.5), bits(-2.0), bits(-3.0)),
                ("s_mul_f32 s4, s0, -4.0", bits(1.5), 0, bits(-6.0)),
                ("s_fmaak_f32 s4, s0, s1, 0xbf800000", 0x3f80_0001, 0x3f7f_fffe, 0xa880_0000),
                ("s_fmamk_f32 s4, s0, 0x3f7ffffe, s1", 0x3f80_0001, 0xbf80_0000, 0xa880_0000),
                // 2.0 + 1.0 in halves, with something in the high halves of the sources.
                ("s_add_f16 s4, s0, s1", 0xabcd_4000, 0x1234_3c00, 0x4200),
                ("s_add_f16 s4, s0, 1.0", 0x3c00, 0, 0x4000),
                ("s_sub_f16 s4, s0, s1", 0x4000, 0x3c00, 0x3c00),
                ("s_mul_f16 s4, s0, 0x3800", 0x3c00, 0, 0x3800),
            ];
            check(&mut machine, &cases);
            assert_eq!(machine.wave.exec(), 0, "EXEC plays no part");
        }
    }

    #[test]
    fn fused_products_round_once() {
        let mut machine = Machine::new(Chip::Gfx1201);
        machine.wave.sgpr[4] = 0xbf80_0000;
        check(&mut machine, &[("s_fmac_f32 s4, s0, s1", 0x3f80_0001, 0x3f7f_fffe, 0xa880_0000)]);
        machine.wave.sgpr[4] = 0xabcd_bc00;
        check(&mut machine, &[("s_fmac_f16 s4, s0, s1", 0x3c01, 0x3bfe, 0x8010)]);
        machine.wave.sgpr[4] = 0;
        machine.wave.mode |= mode::FP16_OVFL;
        check(&mut machine, &[("s_fmac_f16 s4, s0, s1", 0x7bff, 0x4000, 0x7bff)]);
    }

    #[test]
    fn integral_values() {
        let mut machine = Machine::new(Chip::Gfx1201);
        let cases = [
            ("s_ceil_f32 s4, s0", bits(1.25), 0, bits(2.0)),
            ("s_floor_f32 s4, s0", bits(-1.25), 0, bits(-2.0)),
            ("s_trunc_f32 s4, s0", bits(-1.75), 0, bits(-1.0)),
            ("s_rndne_f32 s4, s0", bits(2.5), 0, bits(2.0)),
            ("s_ceil_f32 s4, s0", 0x8000_0001, 0, 0x8000_0000),
            ("s_floor_f16 s4, s0", 0xabcd_fc01, 0, 0xfe01),
            ("s_floor_f16 s4, s0", 0x8001, 0, 0xbc00),
            ("s_rndne_f16 s4, s0", 0x4100, 0, 0x4000),
            ("s_ceil_f16 s4, s0", 0x3c01, 0, 0x4000),
            ("s_trunc_f16 s4, s0", 0x3fff, 0, 0x3c00),
        ];
        check(&mut machine, &cases);
    }

    #[test]
    fn conversions() {
        let mut machine = Machine::new(Chip::Gfx1201);
        let cases = [
            ("s_cvt_f32_i32 s4, s0", -3_i32 as u32, 0, bits(-3.0)),
            ("s_cvt_f32_u32 s4, s0", 0x0100_0003, 0, 0x4b80_0002),
            ("s_cvt_i32_f32 s4, s0", 0x7f80_0000, 0, 0x7fff_ffff),
            ("s_cvt_i32_f32 s4, s0", bits(-2.9), 0, -2_i32 as u32),
            ("s_cvt_i32_f32 s4, s0", 0xff80_0001, 0, 0),
            ("s_cvt_u32_f32 s4, s0", bits(-1.0), 0, 0),
            ("s_cvt_u32_f32 s4, s0", 0x4f80_0000, 0, u32::MAX),
            ("s_cvt_f32_f16 s4, s0", 0x3c00_bc00, 0, bits(-1.0)),
            ("s_cvt_hi_f32_f16 s4, s0", 0x3c00_bc00, 0, bits(1.0)),
            ("s_cvt_f16_f32 s4, s0", 0x387f_e000, 0, 0x400),
            ("s_cvt_f16_f32 s4, s0", bits(-2.0), 0, 0xc000),
            ("s_cvt_pk_rtz_f16_f32 s4, s0, s1", 0x4780_0000, 0xff80_0000, 0xfc00_7bff),
        ];
        check(&mut machine, &cases);
    }

    #[test]
    fn extremes() {
        let nan = 0x7fc0_0000;
        let cases = [
            ("s_min_num_f32 s4, s0, s1", bits(1.0), bits(2.0), bits(1.0)),
            ("s_min_num_f32 s4, s0, s1", nan, bits(2.0), bits(2.0)),
            ("s_max_num_f32 s4, s0, s1", bits(1.0), nan, bits(1.0)),
            ("s_minimum_f32 s4, s0, s1", bits(1.0), nan, nan),
            ("s_maximum_f32 s4, s0, s1", bits(-0.0), bits(0.0), bits(0.0)),
            ("s_max_num_f16 s4, s0, s1", 0x3c00, 0xbc00, 0x3c00),
            ("s_minimum_f16 s4, s0, s1", 0x3c00, 0x7e00, 0x7e00),
        ];
        check(&mut Machine::new(Chip::Gfx1201), &cases);
        let older = [
            ("s_min_f32 s4, s0, s1", bits(1.0), bits(-2.0), bits(-2.0)),
            ("s_max_f16 s4, s0, s1", 0x3c00, 0x4000, 0x4000),
        ];
        check(&mut Machine::new(Chip::Gfx1151), &older);
    }

    #[test]
    fn comparisons() {
        let mut machine = Machine::new(Chip::Gfx1151);
        machine.wave.set_pair(scalar::VCC, 0x1234_5678_9abc_def0);
        let (one, two, nan) = (bits(1.0), bits(2.0), 0x7fc0_0000);
        // Which of less, equal, greater and unordered make a comparison true.
        let names = [
            ("lt", [true, false, false, false]),
            ("eq", [false, true, false, false]),
            ("le", [true, true, false, false]),
            ("gt", [false, false, true, false]),
            ("lg", [true, false, true, false]),
            ("ge", [false, true, true, false]),
            ("o", [true, true, true, false]),
            ("u", [false, false, false, true]),
            ("nge", [true, false, false, true]),
            ("nlg", [false, true, false, true]),
            ("ngt", [true, true, false, true]),
            ("nle", [false, false, true, true]),
            ("neq", [true, false, true, true]),
            ("nlt", [false, true, true, true]),
        ];
        for (name, expected) in names {
            let pairs = [(one, two), (two, two), (two, one), (one, nan)];
            for ((a, b), expected) in pairs.into_iter().zip(expected) {
                machine.set(&[a, b]).run(&format!("s_cmp_{name}_f32 s0, s1"));
                assert_eq!(machine.wave.scc, expected, "{name} {a:#x} {b:#x}");
                let half = |bits: u32| {
                    0xffff_0000
                        | match bits {
                            bits if bits == one => 0x3c00,
                            bits if bits == two => 0x4000,
                            _ => 0x7e00,
                        }
                };
                machine.set(&[half(a), half(b)]).run(&format!("s_cmp_{name}_f16 s0, s1"));
                assert_eq!(machine.wave.scc, expected, "{name} of halves {a:#x} {b:#x}");
            }
        }
        assert_eq!(machine.wave.pair(scalar::VCC), 0x1234_5678_9abc_def0);
        machine.set(&[0x4000]).run("s_cmp_eq_f16 s0, 2.0");
        assert!(machine.wave.scc);
    }

    #[test]
    fn other_chips_have_none() {
        Machine::new(Chip::Gfx1100).step("s_add_f32 s4, s0, s1").expect_err("no such instruction");
    }
}
