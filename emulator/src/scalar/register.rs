//! Hardware registers: `s_getreg`, `s_setreg` and what reads clocks.
//!
//! Where a program runs on the chip and what time it is has no true answer here; the answers are
//! functions of the workgroup and the wave, so that every run gives the same.

use super::{Source, Word, expect_operands, immediate, operand, place, source};
use crate::Chip;
use crate::asm::Value;
use crate::memory::{PRIVATE_APERTURE, SHARED_APERTURE};
use crate::program::{Compiled, Context};
use crate::wave::{Exec, Fault, Group, Step, Wave, mode, scalar};

/// Compiles an instruction that reads or writes hardware registers.
pub fn compile(context: &Context<'_>) -> Compiled {
    Some(match context.asm.mnemonic.as_str() {
        "s_getreg_b32" => get(context),
        "s_setreg_b32" => set(context),
        "s_setreg_imm32_b32" => set(context),
        "s_round_mode" => set_mode(context, mode::ROUND),
        "s_denorm_mode" => set_mode(context, mode::DENORM),
        "s_memtime" | "s_memrealtime" => clock(context),
        "s_sendmsg_rtn_b32" => answer::<u32>(context),
        "s_sendmsg_rtn_b64" => answer::<u64>(context),
        _ => return None,
    })
}

/// The registers that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Register {
    Mode,
    Status,
    /// Exceptions that happened: never any.
    Exceptions,
    HardwareId,
    HardwareId1,
    HardwareId2,
    XccId,
    MemoryBases,
    Cycles,
    CyclesHigh,
    /// How far the hardware checks dependencies.
    Scheduling,
}

impl Register {
    /// From LLVM's name, whose numbers and layouts differ between chips.
    fn new(name: &str, chip: Chip) -> Option<Register> {
        Some(match name {
            "HW_REG_MODE" | "HW_REG_WAVE_MODE" => Register::Mode,
            "HW_REG_STATUS" => Register::Status,
            "HW_REG_TRAPSTS" | "HW_REG_WAVE_EXCP_FLAG_USER" => Register::Exceptions,
            "HW_REG_HW_ID" => Register::HardwareId,
            "HW_REG_HW_ID1" | "HW_REG_WAVE_HW_ID1" => Register::HardwareId1,
            "HW_REG_HW_ID2" | "HW_REG_WAVE_HW_ID2" => Register::HardwareId2,
            "HW_REG_XCC_ID" if chip.is_cdna() => Register::XccId,
            "HW_REG_SH_MEM_BASES" => Register::MemoryBases,
            "HW_REG_SHADER_CYCLES" | "HW_REG_SHADER_CYCLES_LO" => Register::Cycles,
            "HW_REG_SHADER_CYCLES_HI" => Register::CyclesHigh,
            "HW_REG_WAVE_SCHED_MODE" => Register::Scheduling,
            _ => return None,
        })
    }

    fn read(self, wave: &Wave, group: &mut Group) -> u32 {
        match self {
            Register::Mode => wave.mode & mode_bits(group.chip),
            Register::Status => status(wave),
            Register::Exceptions | Register::Scheduling => 0,
            Register::HardwareId => hardware_id(wave, group),
            Register::HardwareId1 => hardware_id1(wave, group),
            Register::HardwareId2 => 0,
            Register::XccId => position(group) % XCC_COUNT,
            Register::MemoryBases => {
                (PRIVATE_APERTURE >> 48) as u32 | (SHARED_APERTURE >> 32) as u32 & 0xffff_0000
            }
            Register::Cycles if group.chip.is_rdna() && group.chip != Chip::Gfx1201 => {
                tick(group) as u32 & 0xf_ffff
            }
            Register::Cycles => tick(group) as u32,
            Register::CyclesHigh => (group.clock >> 32) as u32,
        }
    }
}

/// Accelerator dies of a CDNA 3 or 4 chip, over which workgroups are dealt out in turn.
const XCC_COUNT: u32 = 8;

/// The clock that programs read. Each reading advances it, so that a program that waits for a time
/// to come sees it come.
fn tick(group: &mut Group) -> u64 {
    group.clock += 64;
    group.clock
}

/// Bits of MODE that the chip has. RDNA 4 has no DX10_CLAMP and no IEEE.
fn mode_bits(chip: Chip) -> u32 {
    if chip == Chip::Gfx1201 { !(mode::DX10_CLAMP | mode::IEEE) } else { u32::MAX }
}

/// Bits of MODE that change what instructions do in ways that are unknown here: traps on
/// floating-point exceptions, and on CDNA skipped vector instructions.
fn forbidden_mode_bits(chip: Chip) -> u32 {
    if chip.is_cdna() {
        0x1f << 12 | 1 << 28
    } else if chip == Chip::Gfx1201 {
        0
    } else {
        0x1f << 12
    }
}

/// SCC, EXECZ, VCCZ and VALID.
fn status(wave: &Wave) -> u32 {
    let execz = u32::from(wave.exec() == 0);
    let vccz = u32::from(wave.mask(scalar::VCC) == 0);
    u32::from(wave.scc) | execz << 9 | vccz << 10 | 1 << 16
}

/// A number of the workgroup from which its place on the chip is derived.
fn position(group: &Group) -> u32 {
    let [x, y, z] = group.id;
    x.wrapping_add(y.wrapping_mul(31)).wrapping_add(z.wrapping_mul(997))
}

/// GFX9: wave in bits 0 to 3, SIMD in 4 and 5, compute unit in 8 to 11, shader engine in 13 and 14.
fn hardware_id(wave: &Wave, group: &Group) -> u32 {
    let position = position(group) / XCC_COUNT;
    let (engine, unit) = (position % 4, position / 4 % 8);
    wave.id / 4 % 16 | wave.id % 4 << 4 | unit << 8 | engine << 13
}

/// RDNA: wave in bits 0 to 4, SIMD in 8 and 9, work-group processor in 10 to 13, shader array in
/// 16, shader engine in 18 to 20.
fn hardware_id1(wave: &Wave, group: &Group) -> u32 {
    let position = position(group);
    let (engine, array, processor) = (position % 4, position / 4 % 2, position / 8 % 4);
    wave.id / 4 % 32 | wave.id % 4 << 8 | processor << 10 | array << 16 | engine << 18
}

/// Some bits of a register: `hwreg(NAME, offset, size)`.
#[derive(Clone, Copy)]
struct Field {
    register: Register,
    offset: u32,
    mask: u32,
}

impl Field {
    fn new(context: &Context<'_>, index: usize) -> Result<Field, Fault> {
        Field::parse(context, index).ok_or_else(|| context.unknown())
    }

    fn parse(context: &Context<'_>, index: usize) -> Option<Field> {
        let Value::Word(word) = &operand(context, index).ok()?.value else { return None };
        let inner = word.strip_prefix("hwreg(")?.strip_suffix(')')?;
        let mut parts = inner.split(',').map(str::trim);
        let register = Register::new(parts.next()?, context.chip)?;
        let (offset, size) = match (parts.next(), parts.next()) {
            (None, _) => (0, 32),
            (Some(offset), size) => (offset.parse().ok()?, size?.parse().ok()?),
        };
        if offset >= 32 || size == 0 || size > 32 {
            return None;
        }
        Some(Field { register, offset, mask: u32::MAX >> (32 - size) })
    }
}

fn get(context: &Context<'_>) -> Result<Exec, Fault> {
    expect_operands(context, 2)?;
    let (place, field) = (place(context, 0, 1)?, Field::new(context, 1)?);
    Ok(Box::new(move |wave, group| {
        let value = field.register.read(wave, group) >> field.offset & field.mask;
        value.set(wave, place);
        Ok(())
    }))
}

fn set(context: &Context<'_>) -> Result<Exec, Fault> {
    expect_operands(context, 2)?;
    let (field, value) = (Field::new(context, 0)?, source::<u32>(context, 1)?);
    match field.register {
        Register::Mode => Ok(write_mode(field.mask << field.offset, field.offset, value)),
        // Dependencies are always observed.
        Register::Scheduling => Ok(Box::new(|_, _| Ok(()))),
        // There is nothing that could be cleared.
        Register::Exceptions => Ok(clear_exceptions(value)),
        _ => Err(context.unknown()),
    }
}

/// Replaces the bits of MODE that `mask` has.
fn write_mode(mask: u32, offset: u32, value: Source) -> Exec {
    Box::new(move |wave, group| {
        let mask = mask & mode_bits(group.chip);
        let mode = wave.mode & !mask | u32::read(wave, value) << offset & mask;
        if mode & mask & forbidden_mode_bits(group.chip) != 0 {
            return refuse(format!("MODE {mode:#x} asks for traps or modes that are not emulated"));
        }
        wave.mode = mode;
        Ok(())
    })
}

fn clear_exceptions(value: Source) -> Exec {
    Box::new(move |wave, _| match u32::read(wave, value) {
        0 => Ok(()),
        bits => refuse(format!("exception flags {bits:#x} cannot be raised by hand")),
    })
}

fn refuse(text: String) -> Step {
    Err(Box::new(Fault::Illegal(text)))
}

/// `s_round_mode` and `s_denorm_mode`: the immediate becomes four bits of MODE.
fn set_mode(context: &Context<'_>, mask: u32) -> Result<Exec, Fault> {
    expect_operands(context, 1)?;
    let bits = immediate(context, 0)? as u32;
    Ok(write_mode(mask, mask.trailing_zeros(), Source::Constant(u64::from(bits & 0xf))))
}

/// `s_memtime` and `s_memrealtime`.
fn clock(context: &Context<'_>) -> Result<Exec, Fault> {
    expect_operands(context, 1)?;
    let place = place(context, 0, 2)?;
    Ok(Box::new(move |wave, group| {
        tick(group).set(wave, place);
        Ok(())
    }))
}

/// What a message asks for.
#[derive(Clone, Copy)]
enum Question {
    RealTime,
    /// Doorbell number and addresses of the trap handler, of which there is none.
    Nothing,
}

/// `s_sendmsg_rtn`.
fn answer<T: Word>(context: &Context<'_>) -> Result<Exec, Fault> {
    expect_operands(context, 2)?;
    let place = place(context, 0, T::REGISTERS)?;
    let Value::Word(word) = &operand(context, 1)?.value else { return Err(context.unknown()) };
    let question = match word.as_str() {
        "sendmsg(MSG_RTN_GET_REALTIME)" => Question::RealTime,
        "sendmsg(MSG_RTN_GET_DOORBELL)"
        | "sendmsg(MSG_RTN_GET_TMA)"
        | "sendmsg(MSG_RTN_GET_TBA)" => Question::Nothing,
        _ => return Err(context.unknown()),
    };
    Ok(Box::new(move |wave, group| {
        let value = match question {
            Question::RealTime => tick(group),
            Question::Nothing => 0,
        };
        T::from_bits(value).set(wave, place);
        Ok(())
    }))
}

#[cfg(test)]
mod tests {
    use crate::Chip;
    use crate::scalar::testing::Machine;
    use crate::wave::mode;

    #[test]
    fn mode_is_read_and_written_by_bit_fields() {
        let mut machine = Machine::new(Chip::Gfx942);
        machine.wave.mode = mode::DENORM | mode::IEEE | mode::DX10_CLAMP;
        machine.run("s_getreg_b32 s0, hwreg(HW_REG_MODE)");
        assert_eq!(machine.wave.sgpr[0], 0x3f0);
        machine.run("s_getreg_b32 s0, hwreg(HW_REG_MODE, 4, 5)");
        assert_eq!(machine.wave.sgpr[0], 0x1f);
        machine.run("s_setreg_imm32_b32 hwreg(HW_REG_MODE, 0, 2), 3");
        assert_eq!(machine.wave.mode, 0x3f3);
        machine.wave.sgpr[7] = 0xff00;
        machine.run("s_setreg_b32 hwreg(HW_REG_MODE, 4, 4), s7");
        assert_eq!(machine.wave.mode, 0x303, "only four bits of s7, all zero");
        machine.run("s_setreg_imm32_b32 hwreg(HW_REG_MODE, 8, 2), 0x1");
        assert_eq!(machine.wave.mode, 0x103);
        machine.step("s_setreg_imm32_b32 hwreg(HW_REG_MODE, 12, 1), 1").expect_err("traps");
        machine.step("s_setreg_imm32_b32 hwreg(HW_REG_STATUS, 0, 1), 1").expect_err("read only");
    }

    #[test]
    fn short_forms_set_rounding_and_denormals() {
        let mut machine = Machine::new(Chip::Gfx1100);
        machine.wave.mode = 0x3f0;
        machine.run("s_round_mode 0x9").run("s_denorm_mode 6");
        assert_eq!(machine.wave.mode, 0x369);
    }

    #[test]
    fn rdna4_has_neither_clamp_nor_ieee_bits() {
        let mut machine = Machine::new(Chip::Gfx1201);
        machine.wave.mode = mode::DENORM | mode::DX10_CLAMP;
        machine.run("s_getreg_b32 s0, hwreg(HW_REG_WAVE_MODE)");
        assert_eq!(machine.wave.sgpr[0], 0xf0);
        machine.run("s_setreg_imm32_b32 hwreg(HW_REG_WAVE_MODE), 0x5");
        assert_eq!(machine.wave.mode, 0x105);
    }

    #[test]
    fn status_and_apertures() {
        let mut machine = Machine::new(Chip::Gfx942);
        machine.wave.scc = true;
        machine.run("s_getreg_b32 s0, hwreg(HW_REG_STATUS, 0, 16)");
        assert_eq!(machine.wave.sgpr[0], 0x401, "SCC, and VCC is zero");
        machine.run("s_getreg_b32 s1, hwreg(HW_REG_SH_MEM_BASES, 16, 16)");
        machine.run("s_mov_b64 s[2:3], src_shared_base");
        assert_eq!(machine.wave.sgpr[1] << 16, machine.wave.sgpr[3]);
        machine.run("s_getreg_b32 s1, hwreg(HW_REG_SH_MEM_BASES, 0, 16)");
        machine.run("s_mov_b64 s[2:3], src_private_base");
        assert_eq!(machine.wave.sgpr[1] << 16, machine.wave.sgpr[3]);
        machine.step("s_getreg_b32 s0, hwreg(HW_REG_IB_STS)").expect_err("unknown");
        machine.step("s_getreg_b32 s0, hwreg(63, 3, 2)").expect_err("no such register");
    }

    #[test]
    fn clocks_advance() {
        let mut machine = Machine::new(Chip::Gfx1100);
        machine.run("s_getreg_b32 s0, hwreg(HW_REG_SHADER_CYCLES, 0, 20)");
        machine.run("s_sendmsg_rtn_b64 s[2:3], sendmsg(MSG_RTN_GET_REALTIME)");
        let (first, second) = (machine.wave.sgpr[0], machine.wave.sgpr[2]);
        assert!(second > first);
        let mut machine = Machine::new(Chip::Gfx90a);
        machine.run("s_memtime s[0:1]").run("s_memrealtime s[2:3]");
        assert!(machine.wave.pair(2) > machine.wave.pair(0));
    }
}
