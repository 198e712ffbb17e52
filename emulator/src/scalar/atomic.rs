//! Scalar atomics of CDNA.

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

use super::smem::{Address, write_words};
use super::{Place, place};
use crate::probe::Kind;
use crate::program::{Compiled, Context};
use crate::wave::{Exec, Fault, scalar};

/// Compiles an atomic by the end of its mnemonic: `add`, `cmpswap_x2`.
pub fn compile(context: &Context<'_>, name: &str, buffer: bool) -> Compiled {
    if !context.chip.is_cdna() {
        return None;
    }
    match name.strip_suffix("_x2") {
        Some("cmpswap") => Some(wide(
            context,
            buffer,
            4,
            |old, new, expected| {
                if old == expected { new } else { old }
            },
        )),
        Some(name) => Some(wide(context, buffer, 2, operation64(name)?)),
        None if name == "cmpswap" => {
            Some(narrow(
                context,
                buffer,
                2,
                |old, new, expected| {
                    if old == expected { new } else { old }
                },
            ))
        }
        None => Some(narrow(context, buffer, 1, operation32(name)?)),
    }
}

macro_rules! operations {
    ($name:ident, $type:ty, $signed:ty) => {
        /// What memory becomes, from what it was and the data.
        fn $name(name: &str) -> Option<fn($type, $type, $type) -> $type> {
            Some(match name {
                "swap" => |_, data, _| data,
                "add" => |old, data, _| old.wrapping_add(data),
                "sub" => |old, data, _| old.wrapping_sub(data),
                "smin" => |old, data, _| (old as $signed).min(data as $signed) as $type,
                "umin" => |old, data, _| old.min(data),
                "smax" => |old, data, _| (old as $signed).max(data as $signed) as $type,
                "umax" => |old, data, _| old.max(data),
                "and" => |old, data, _| old & data,
                "or" => |old, data, _| old | data,
                "xor" => |old, data, _| old ^ data,
                "inc" => |old, data, _| if old >= data { 0 } else { old + 1 },
                "dec" => |old, data, _| if old == 0 || old > data { data } else { old - 1 },
                _ => return None,
            })
        }
    };
}

operations!(operation32, u32, i32);
operations!(operation64, u64, i64);

/// The data registers; with `glc` what memory was is written to the first of them.
fn data(context: &Context<'_>, registers: u16) -> Result<(Place, bool), Fault> {
    let place = place(context, 0, registers)?;
    if usize::from(place.index) == scalar::NULL {
        return Err(context.unknown());
    }
    Ok((place, context.asm.has("glc")))
}

fn narrow(
    context: &Context<'_>,
    buffer: bool,
    registers: u16,
    f: fn(u32, u32, u32) -> u32,
) -> Result<Exec, Fault> {
    let address = Address::new(context, buffer, 4)?;
    let (place, returns) = data(context, registers)?;
    let first = usize::from(place.index);
    let second = first + usize::from(registers) - 1;
    Ok(Box::new(move |wave, group| {
        let range = address.range(wave);
        let mut old = 0;
        if range.available >= 4 {
            address.check(wave, group, Kind::Atomic, range.address, 4)?;
            let (data, expected) = (wave.sgpr[first], wave.sgpr[second]);
            // SAFETY: `check` found the word in an allocation; its address is a multiple of 4.
            let word = unsafe { AtomicU32::from_ptr(range.address as *mut u32) };
            old = word
                .fetch_update(SeqCst, SeqCst, |old| Some(f(old, data, expected)))
                .unwrap_or_else(|old| old);
        }
        if returns {
            write_words(wave, place, &[old]);
        }
        Ok(())
    }))
}

fn wide(
    context: &Context<'_>,
    buffer: bool,
    registers: u16,
    f: fn(u64, u64, u64) -> u64,
) -> Result<Exec, Fault> {
    let address = Address::new(context, buffer, 4)?;
    let (place, returns) = data(context, registers)?;
    let first = usize::from(place.index);
    let second = first + usize::from(registers) - 2;
    Ok(Box::new(move |wave, group| {
        let range = address.range(wave);
        let mut old = 0;
        if range.available >= 8 {
            if !range.address.is_multiple_of(8) {
                let text = format!("64-bit atomic at {:#x}, no multiple of 8", range.address);
                return Err(Box::new(Fault::Illegal(text)));
            }
            address.check(wave, group, Kind::Atomic, range.address, 8)?;
            let (data, expected) = (wave.pair(first), wave.pair(second));
            // SAFETY: `check` found the words in an allocation; their address is a multiple of 8.
            let word = unsafe { AtomicU64::from_ptr(range.address as *mut u64) };
            old = word
                .fetch_update(SeqCst, SeqCst, |old| Some(f(old, data, expected)))
                .unwrap_or_else(|old| old);
        }
        if returns {
            write_words(wave, place, &[old as u32, (old >> 32) as u32]);
        }
        Ok(())
    }))
}

#[cfg(test)]
mod tests {
    use crate::Chip;
    use crate::scalar::testing::Machine;

    /// Name, memory before, data, memory after.
    type Case = (&'static str, u64, u64, u64);

    fn check(cases: &[Case], wide: bool) {
        let mut machine = Machine::new(Chip::Gfx942);
        let base = machine.group.memory.allocate(64, "counter").expect("memory");
        machine.wave.set_pair(8, base);
        for &(name, before, data, after) in cases {
            machine.group.memory.write(base + 16, &before.to_le_bytes()).expect("allocated");
            machine.wave.set_pair(0, data);
            let (suffix, register) = if wide { ("_x2", "s[0:1]") } else { ("", "s0") };
            machine.run(&format!("s_atomic_{name}{suffix} {register}, s[8:9], 0x10 glc"));
            let mut bytes = [0; 8];
            machine.group.memory.read(base + 16, &mut bytes).expect("allocated");
            assert_eq!(u64::from_le_bytes(bytes), after, "{name} {before:#x} {data:#x}");
            assert_eq!(machine.wave.pair(0), before, "{name} returns what was there");
            machine.wave.set_pair(0, data);
            machine.run(&format!("s_atomic_{name}{suffix} {register}, s[8:9], 0x10"));
            assert_eq!(machine.wave.pair(0), data, "{name} returns nothing without glc");
        }
    }

    #[test]
    fn operations_of_words() {
        let minus_one = 0xffff_ffff;
        let cases = [
            ("swap", 5, 9, 9),
            ("add", minus_one, 2, 1),
            ("sub", 1, 2, minus_one),
            ("smin", 1, minus_one, minus_one),
            ("umin", 1, minus_one, 1),
            ("smax", 1, minus_one, 1),
            ("umax", 1, minus_one, minus_one),
            ("and", 0xf0, 0x3c, 0x30),
            ("or", 0xf0, 0x3c, 0xfc),
            ("xor", 0xf0, 0x3c, 0xcc),
            ("inc", 3, 4, 4),
            ("inc", 4, 4, 0),
            ("dec", 3, 4, 2),
            ("dec", 0, 4, 4),
            ("dec", 9, 4, 4),
        ];
        check(&cases, false);
    }

    #[test]
    fn operations_of_pairs() {
        let cases = [
            ("swap", 5, 9 << 40, 9 << 40),
            ("add", u64::MAX >> 1, 1, 1 << 63),
            ("smax", 1, u64::MAX, 1),
            ("umax", 1, u64::MAX, u64::MAX),
            ("dec", 0, 4 << 40, 4 << 40),
        ];
        check(&cases, true);
    }

    #[test]
    fn compare_and_swap() {
        let mut machine = Machine::new(Chip::Gfx942);
        let base = machine.group.memory.allocate(64, "counter").expect("memory");
        machine.wave.set_pair(8, base);
        machine.set(&[7, 0]).run("s_atomic_cmpswap s[0:1], s[8:9], 0x0 glc");
        assert_eq!(machine.wave.sgpr[..2], [0, 0]);
        machine.set(&[9, 8]).run("s_atomic_cmpswap s[0:1], s[8:9], 0x0 glc");
        assert_eq!(machine.wave.sgpr[..2], [7, 8], "memory is 7, not 8");
        machine.set(&[1, 2, 7, 0]).run("s_atomic_cmpswap_x2 s[0:3], s[8:9], 0x0 glc");
        assert_eq!(machine.wave.sgpr[..4], [7, 0, 7, 0]);
        machine.run("s_load_dwordx2 s[0:1], s[8:9], 0x0");
        assert_eq!(machine.wave.sgpr[..2], [1, 2]);
        machine.step("s_atomic_add_x2 s[0:1], s[8:9], 0x4").expect_err("misaligned");
        machine.wave.set_pair(4, base);
        machine.wave.set_pair(6, 8);
        machine.set(&[5]).run("s_buffer_atomic_add s0, s[4:7], 0x4 glc");
        assert_eq!(machine.wave.sgpr[0], 2);
        machine.run("s_buffer_atomic_add s0, s[4:7], 0x8 glc");
        assert_eq!(machine.wave.sgpr[0], 0, "outside of the buffer");
    }
}
