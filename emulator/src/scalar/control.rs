//! Program flow: branches, calls, the end of the program, barriers, messages, and everything that
//! steers the hardware without any effect on results.

use super::{Word, expect_operands, immediate, operand, place, source};
use crate::asm::Value;
use crate::program::{Compiled, Context};
use crate::wave::{Exec, Fault, State, Step, Wave, scalar};

/// Compiles an instruction of program flow.
pub fn compile(context: &Context<'_>) -> Compiled {
    branch(context)
        .or_else(|| call(context))
        .or_else(|| barrier(context))
        .or_else(|| state(context))
        .or_else(|| message(context))
        .or_else(|| without_effect(&context.asm.mnemonic).then(|| Ok(nothing())))
}

/// A closure that does nothing.
fn nothing() -> Exec {
    Box::new(|_, _| Ok(()))
}

/// A jump to a place that is known when the program is decoded. What is no instruction faults only
/// when it is jumped to.
#[derive(Clone, Copy)]
struct Target {
    index: Option<u32>,
    address: u64,
}

impl Target {
    /// The target of the relative branch whose offset is the operand at `index`.
    fn new(context: &Context<'_>, index: usize) -> Result<Target, Fault> {
        let words = immediate(context, index)? as i16;
        let address = next_address(context).wrapping_add_signed(i64::from(words) * 4);
        Ok(Target { index: (context.index_of)(address), address })
    }

    #[inline(always)]
    fn jump(self, wave: &mut Wave) -> Step {
        match self.index {
            Some(index) => {
                wave.pc = index;
                Ok(())
            }
            None => Err(Box::new(Fault::Jump(self.address))),
        }
    }
}

/// Address of the instruction after this one.
fn next_address(context: &Context<'_>) -> u64 {
    context.asm.address.wrapping_add(u64::from(context.asm.size))
}

/// A branch that is taken where `condition` holds.
fn branch_if(
    context: &Context<'_>,
    condition: impl Fn(&Wave) -> bool + Send + Sync + 'static,
) -> Result<Exec, Fault> {
    expect_operands(context, 1)?;
    let target = Target::new(context, 0)?;
    Ok(Box::new(move |wave, _| if condition(wave) { target.jump(wave) } else { Ok(()) }))
}

fn branch(context: &Context<'_>) -> Compiled {
    Some(match context.asm.mnemonic.as_str() {
        "s_branch" => branch_if(context, |_| true),
        "s_cbranch_scc0" => branch_if(context, |wave| !wave.scc),
        "s_cbranch_scc1" => branch_if(context, |wave| wave.scc),
        "s_cbranch_vccz" => branch_if(context, |wave| wave.mask(scalar::VCC) == 0),
        "s_cbranch_vccnz" => branch_if(context, |wave| wave.mask(scalar::VCC) != 0),
        "s_cbranch_execz" => branch_if(context, |wave| wave.exec() == 0),
        "s_cbranch_execnz" => branch_if(context, |wave| wave.exec() != 0),
        // Their conditions are bits that only a debugger sets.
        "s_cbranch_cdbgsys"
        | "s_cbranch_cdbguser"
        | "s_cbranch_cdbgsys_or_user"
        | "s_cbranch_cdbgsys_and_user" => branch_if(context, |_| false),
        _ => return None,
    })
}

/// Jumps to an address that a register holds; `link` is where the return address goes.
fn jump_to(context: &Context<'_>, index: usize, link: bool) -> Result<Exec, Fault> {
    expect_operands(context, index + 1)?;
    let link = if link { Some(place(context, 0, 2)?) } else { None };
    let (address, next) = (source::<u64>(context, index)?, next_address(context));
    let starts = context.starts.clone();
    Ok(Box::new(move |wave, _| {
        let address = u64::read(wave, address);
        let index = starts.index_of(address).ok_or_else(|| Box::new(Fault::Jump(address)))?;
        if let Some(link) = link {
            next.set(wave, link);
        }
        wave.pc = index;
        Ok(())
    }))
}

fn get_pc(context: &Context<'_>) -> Result<Exec, Fault> {
    expect_operands(context, 1)?;
    let (place, next) = (place(context, 0, 2)?, next_address(context));
    Ok(Box::new(move |wave, _| {
        next.set(wave, place);
        Ok(())
    }))
}

fn relative_call(context: &Context<'_>) -> Result<Exec, Fault> {
    expect_operands(context, 2)?;
    let (link, next) = (place(context, 0, 2)?, next_address(context));
    let target = Target::new(context, 1)?;
    Ok(Box::new(move |wave, _| {
        next.set(wave, link);
        target.jump(wave)
    }))
}

fn call(context: &Context<'_>) -> Compiled {
    Some(match context.asm.mnemonic.as_str() {
        "s_getpc_b64" => get_pc(context),
        "s_setpc_b64" => jump_to(context, 0, false),
        "s_swappc_b64" => jump_to(context, 1, true),
        "s_call_b64" => relative_call(context),
        _ => return None,
    })
}

/// The number of a barrier: an inline constant, or M0.
fn barrier_number(context: &Context<'_>, index: usize) -> Result<Barrier, Fault> {
    match operand(context, index)?.value {
        Value::Integer(-1) | Value::Literal(0xffff) => Ok(Barrier::Workgroup),
        Value::Integer(0) | Value::Literal(0) => Ok(Barrier::None),
        _ => Err(context.unknown()),
    }
}

/// The barriers that a program without named ones can name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Barrier {
    /// Number -1.
    Workgroup,
    /// Number 0, which does nothing.
    None,
}

fn signal(context: &Context<'_>, is_first: bool) -> Result<Exec, Fault> {
    expect_operands(context, 1)?;
    let barrier = barrier_number(context, 0)?;
    Ok(Box::new(move |wave, group| {
        if is_first {
            wave.scc = barrier == Barrier::Workgroup && group.signaled == 0;
        }
        if barrier == Barrier::Workgroup {
            group.signal();
        }
        Ok(())
    }))
}

fn barrier_wait(context: &Context<'_>) -> Result<Exec, Fault> {
    expect_operands(context, 1)?;
    if barrier_number(context, 0)? != Barrier::Workgroup {
        return Err(context.unknown());
    }
    Ok(Box::new(|wave, group| {
        wave.state = State::Barrier;
        wave.passes_barrier(group);
        Ok(())
    }))
}

/// Signals in bits 16 to 22, waves in bits 4 to 10, bit 0: the barrier exists.
fn barrier_state(context: &Context<'_>) -> Result<Exec, Fault> {
    expect_operands(context, 2)?;
    let place = place(context, 0, 1)?;
    if barrier_number(context, 1)? != Barrier::Workgroup {
        return Err(context.unknown());
    }
    Ok(Box::new(move |wave, group| {
        let value = (group.signaled & 0x7f) << 16 | (group.live_waves & 0x7f) << 4 | 1;
        value.set(wave, place);
        Ok(())
    }))
}

fn barrier(context: &Context<'_>) -> Compiled {
    Some(match context.asm.mnemonic.as_str() {
        "s_barrier" => Ok(Box::new(|wave, group| {
            group.signal();
            wave.state = State::Barrier;
            wave.passes_barrier(group);
            Ok(())
        })),
        "s_barrier_signal" => signal(context, false),
        "s_barrier_signal_isfirst" => signal(context, true),
        "s_barrier_wait" => barrier_wait(context),
        "s_get_barrier_state" => barrier_state(context),
        _ => return None,
    })
}

/// A fault whose text is made when it happens.
fn illegal(text: &'static str) -> Exec {
    Box::new(move |_, _| Err(Box::new(Fault::Illegal(text.to_string()))))
}

fn trap(context: &Context<'_>) -> Result<Exec, Fault> {
    expect_operands(context, 1)?;
    match immediate(context, 0)? as u32 {
        // `llvm.debugtrap`: without a debugger its handler goes on at once.
        3 => Ok(nothing()),
        number => Ok(Box::new(move |_, _| Err(Box::new(Fault::Trap(number))))),
    }
}

fn halt(context: &Context<'_>) -> Result<Exec, Fault> {
    expect_operands(context, 1)?;
    match immediate(context, 0)? & 1 {
        0 => Ok(nothing()),
        _ => Ok(illegal("s_sethalt stops the wave, and nothing can resume it")),
    }
}

fn state(context: &Context<'_>) -> Compiled {
    Some(match context.asm.mnemonic.as_str() {
        "s_endpgm" | "s_endpgm_saved" => Ok(Box::new(|wave, _| {
            wave.state = State::Ended;
            Ok(())
        })),
        "s_sleep" | "s_sleep_var" => Ok(Box::new(|wave, _| {
            wave.state = State::Yielded;
            Ok(())
        })),
        "s_trap" => trap(context),
        "s_sethalt" => halt(context),
        "s_code_end" => Ok(illegal("execution ran past the end of the program")),
        _ => return None,
    })
}

/// Messages without an answer: registers are released, or the host is woken up to look at memory.
fn message(context: &Context<'_>) -> Compiled {
    let stops = match context.asm.mnemonic.as_str() {
        "s_sendmsg" => false,
        "s_sendmsghalt" => true,
        _ => return None,
    };
    let Some(Value::Word(word)) = context.asm.operands.first().map(|operand| &operand.value) else {
        return Some(Err(context.unknown()));
    };
    Some(match word.as_str() {
        "sendmsg(MSG_DEALLOC_VGPRS)" | "sendmsg(MSG_INTERRUPT)" if stops => {
            Ok(illegal("s_sendmsghalt stops the wave, and nothing can resume it"))
        }
        "sendmsg(MSG_DEALLOC_VGPRS)" | "sendmsg(MSG_INTERRUPT)" => Ok(nothing()),
        _ => Err(context.unknown()),
    })
}

/// Waits, hints, caches and counters: every access completes at once and every cache is coherent
/// here, so nothing is left to do.
fn without_effect(mnemonic: &str) -> bool {
    matches!(
        mnemonic,
        "s_nop"
            | "s_waitcnt"
            | "s_waitcnt_depctr"
            | "s_waitcnt_vscnt"
            | "s_waitcnt_vmcnt"
            | "s_waitcnt_expcnt"
            | "s_waitcnt_lgkmcnt"
            | "s_wait_loadcnt"
            | "s_wait_storecnt"
            | "s_wait_samplecnt"
            | "s_wait_bvhcnt"
            | "s_wait_expcnt"
            | "s_wait_dscnt"
            | "s_wait_kmcnt"
            | "s_wait_loadcnt_dscnt"
            | "s_wait_storecnt_dscnt"
            | "s_wait_alu"
            | "s_wait_idle"
            | "s_wait_event"
            | "s_delay_alu"
            | "s_clause"
            | "s_inst_prefetch"
            | "s_set_inst_prefetch_distance"
            | "s_icache_inv"
            | "s_gl1_inv"
            | "s_dcache_inv"
            | "s_dcache_inv_vol"
            | "s_dcache_wb"
            | "s_dcache_wb_vol"
            | "s_prefetch_inst"
            | "s_prefetch_inst_pc_rel"
            | "s_prefetch_data"
            | "s_prefetch_data_pc_rel"
            | "s_buffer_prefetch_data"
            | "s_setprio"
            | "s_incperflevel"
            | "s_decperflevel"
            | "s_ttracedata"
            | "s_ttracedata_imm"
            | "s_version"
            | "s_wakeup"
            | "s_atc_probe"
            | "s_atc_probe_buffer"
    )
}

#[cfg(test)]
mod tests {
    use crate::Chip;
    use crate::scalar::testing::Machine;
    use crate::wave::{Fault, State, scalar};

    // The instruction stands at 0x1000, so that the one behind it has the index 0x401.

    #[test]
    fn branches() {
        let mut machine = Machine::new(Chip::Gfx942);
        machine.run("s_branch 3");
        assert_eq!(machine.wave.pc, 0x404);
        machine.run("s_branch 65535");
        assert_eq!(machine.wave.pc, 0x400);
        machine.wave.pc = 7;
        machine.run("s_cbranch_scc1 9");
        machine.run("s_cbranch_execz 9");
        machine.run("s_cbranch_vccnz 9");
        machine.run("s_cbranch_cdbgsys 9");
        assert_eq!(machine.wave.pc, 7, "no condition holds");
        machine.run("s_cbranch_scc0 9");
        assert_eq!(machine.wave.pc, 0x40a);
        machine.run("s_cbranch_execnz 10");
        assert_eq!(machine.wave.pc, 0x40b);
        machine.run("s_cbranch_vccz 11");
        assert_eq!(machine.wave.pc, 0x40c);
        let wild = machine.step("s_branch 32768").expect_err("before the program");
        assert_eq!(*wild, Fault::Jump(0x1004_u64.wrapping_sub(0x20000)));
    }

    #[test]
    fn vccz_looks_at_the_lanes_that_the_wave_has() {
        let mut machine = Machine::with_lanes(Chip::Gfx1100, 32);
        machine.wave.sgpr[scalar::VCC + 1] = 1;
        machine.run("s_cbranch_vccz 1");
        assert_eq!(machine.wave.pc, 0x402);
        let mut machine = Machine::with_lanes(Chip::Gfx1100, 64);
        machine.wave.sgpr[scalar::VCC + 1] = 1;
        machine.run("s_cbranch_vccz 1");
        assert_eq!(machine.wave.pc, 0);
    }

    #[test]
    fn calls() {
        let mut machine = Machine::new(Chip::Gfx942);
        machine.run("s_getpc_b64 s[4:5]");
        assert_eq!(machine.wave.pair(4), 0x1004);
        machine.wave.set_pair(6, 0x2000);
        machine.run("s_swappc_b64 s[30:31], s[6:7]");
        assert_eq!((machine.wave.pc, machine.wave.pair(30)), (0x800, 0x1004));
        machine.run("s_swappc_b64 s[6:7], s[6:7]");
        assert_eq!((machine.wave.pc, machine.wave.pair(6)), (0x800, 0x1004));
        machine.run("s_setpc_b64 s[30:31]");
        assert_eq!(machine.wave.pc, 0x401);
        machine.run("s_call_b64 s[2:3], 65534");
        assert_eq!((machine.wave.pc, machine.wave.pair(2)), (0x3ff, 0x1004));
        machine.wave.set_pair(6, 0x1002);
        assert_eq!(*machine.step("s_setpc_b64 s[6:7]").expect_err("odd"), Fault::Jump(0x1002));
        machine.wave.set_pair(6, u64::MAX);
        assert_eq!(*machine.step("s_setpc_b64 s[6:7]").expect_err("wild"), Fault::Jump(u64::MAX));
    }

    #[test]
    fn a_barrier_holds_until_every_wave_has_signaled() {
        let mut machine = Machine::new(Chip::Gfx942);
        machine.group.live_waves = 3;
        machine.run("s_barrier");
        assert_eq!(machine.wave.state, State::Barrier);
        let mut other = Machine::new(Chip::Gfx942);
        other.group.live_waves = 3;
        other.group.signaled = 1;
        other.run("s_barrier");
        assert_eq!(other.wave.state, State::Barrier);
        assert!(!other.wave.passes_barrier(&other.group));
        // The third wave ends instead of coming to the barrier.
        other.group.wave_ended();
        assert!(other.wave.passes_barrier(&other.group));
        assert_eq!(other.wave.state, State::Running);
        assert_eq!(other.group.signaled, 0);
    }

    #[test]
    fn split_barriers_signal_and_wait_apart() {
        let mut machine = Machine::new(Chip::Gfx1201);
        machine.group.live_waves = 2;
        machine.run("s_barrier_signal_isfirst -1");
        assert!(machine.wave.scc);
        machine.run("s_get_barrier_state s0, -1");
        assert_eq!(machine.wave.sgpr[0], 1 << 16 | 2 << 4 | 1);
        assert_eq!(machine.wave.state, State::Running);
        machine.run("s_barrier_signal_isfirst -1");
        assert!(!machine.wave.scc);
        machine.run("s_barrier_wait 0xffff");
        assert_eq!(machine.wave.state, State::Running, "both signals are there");
        machine.run("s_barrier_signal -1");
        machine.run("s_barrier_wait 0xffff");
        assert_eq!(machine.wave.state, State::Barrier);
        machine.step("s_barrier_signal m0").expect_err("named barriers are unknown");
    }

    #[test]
    fn ends_traps_and_yields() {
        let mut machine = Machine::new(Chip::Gfx1100);
        machine.run("s_sleep 2");
        assert_eq!(machine.wave.state, State::Yielded);
        machine.run("s_endpgm");
        assert_eq!(machine.wave.state, State::Ended);
        assert_eq!(*machine.step("s_trap 2").expect_err("a trap"), Fault::Trap(2));
        machine.run("s_trap 3");
        machine.run("s_sethalt 0").step("s_sethalt 5").expect_err("a halt");
        machine.step("s_code_end").expect_err("beyond the program");
        machine.run("s_waitcnt vmcnt(0) lgkmcnt(0)").run("s_delay_alu instid0(VALU_DEP_1)");
        let unknown = machine.step("s_rfe_b64 s[0:1]").expect_err("privileged");
        assert_eq!(*unknown, Fault::Unknown("s_rfe_b64 s[0:1]".to_string()));
    }
}
