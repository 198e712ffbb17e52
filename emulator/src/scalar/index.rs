//! Index mode of CDNA: numbers of vector registers are displaced by M0.
//!
//! A bit of MODE turns it on; M0 holds the displacement in bits 0 to 7 and in bits 12 to 15 which
//! of three sources and the destination it is added to. Vector instructions look at both.

use super::{Word, expect_operands, operand, source};
use crate::asm::Value;
use crate::program::{Compiled, Context};
use crate::wave::{Exec, Fault, Wave, mode, scalar};

/// Compiles an instruction that steers index mode.
pub fn compile(context: &Context<'_>) -> Compiled {
    if !context.chip.is_cdna() {
        return None;
    }
    Some(match context.asm.mnemonic.as_str() {
        "s_set_gpr_idx_on" => turn_on(context),
        "s_set_gpr_idx_off" => Ok(Box::new(|wave, _| {
            wave.mode &= !mode::GPR_INDEX;
            Ok(())
        })),
        "s_set_gpr_idx_idx" => set_index(context),
        "s_set_gpr_idx_mode" => set_operands(context),
        _ => return None,
    })
}

/// Which operands are displaced: `gpr_idx(SRC0,DST)`.
fn operands(context: &Context<'_>, index: usize) -> Result<u32, Fault> {
    let bits = || {
        let Value::Word(word) = &operand(context, index).ok()?.value else { return None };
        let inner = word.strip_prefix("gpr_idx(")?.strip_suffix(')')?;
        let names = inner.split(',').filter(|name| !name.is_empty());
        names
            .map(|name| ["SRC0", "SRC1", "SRC2", "DST"].iter().position(|known| *known == name))
            .try_fold(0, |bits, position| Some(bits | 1 << position?))
    };
    bits().ok_or_else(|| context.unknown())
}

fn replace(wave: &mut Wave, mask: u32, bits: u32) {
    let m0 = &mut wave.sgpr[scalar::M0];
    *m0 = *m0 & !mask | bits & mask;
}

fn turn_on(context: &Context<'_>) -> Result<Exec, Fault> {
    expect_operands(context, 2)?;
    let (index, operands) = (source::<u32>(context, 0)?, operands(context, 1)?);
    Ok(Box::new(move |wave, _| {
        let index = u32::read(wave, index);
        replace(wave, 0xf0ff, index & 0xff | operands << 12);
        wave.mode |= mode::GPR_INDEX;
        Ok(())
    }))
}

fn set_index(context: &Context<'_>) -> Result<Exec, Fault> {
    expect_operands(context, 1)?;
    let index = source::<u32>(context, 0)?;
    Ok(Box::new(move |wave, _| {
        let index = u32::read(wave, index);
        replace(wave, 0xff, index);
        Ok(())
    }))
}

fn set_operands(context: &Context<'_>) -> Result<Exec, Fault> {
    expect_operands(context, 1)?;
    let operands = operands(context, 0)?;
    Ok(Box::new(move |wave, _| {
        replace(wave, 0xf000, operands << 12);
        Ok(())
    }))
}

#[cfg(test)]
mod tests {
    use crate::Chip;
    use crate::scalar::testing::Machine;
    use crate::wave::{mode, scalar};

    #[test]
    fn index_mode_is_in_mode_and_m0() {
        let mut machine = Machine::new(Chip::Gfx90a);
        machine.wave.sgpr[scalar::M0] = u32::MAX;
        machine.set(&[0x1234]).run("s_set_gpr_idx_on s0, gpr_idx(SRC0,DST)");
        assert_eq!(machine.wave.sgpr[scalar::M0], 0xffff_9f34);
        assert_ne!(machine.wave.mode & mode::GPR_INDEX, 0);
        machine.run("s_set_gpr_idx_idx 5").run("s_set_gpr_idx_mode gpr_idx(SRC1,SRC2)");
        assert_eq!(machine.wave.sgpr[scalar::M0], 0xffff_6f05);
        machine.run("s_set_gpr_idx_mode gpr_idx()").run("s_set_gpr_idx_off");
        assert_eq!(machine.wave.sgpr[scalar::M0], 0xffff_0f05);
        assert_eq!(machine.wave.mode & mode::GPR_INDEX, 0);
    }

    #[test]
    fn vector_moves_are_displaced() {
        let mut machine = Machine::new(Chip::Gfx942);
        for row in 0..16 {
            machine.wave.rows[row].0.fill(100 + row as u32);
        }
        machine.set(&[3]).run("s_set_gpr_idx_on s0, gpr_idx(SRC0)");
        machine.run("v_mov_b32_e32 v20, v4").run("s_set_gpr_idx_off");
        machine.run("v_mov_b32_e32 v21, v4");
        assert_eq!((machine.wave.rows[20].0[9], machine.wave.rows[21].0[9]), (107, 104));
        machine.run("s_set_gpr_idx_on s0, gpr_idx(DST)").run("v_mov_b32_e32 v22, v4");
        assert_eq!(machine.wave.rows[25].0[9], 104);
    }
}
