//! Scalar memory: loads, and on CDNA stores and atomics, by address or through buffer resources.
//!
//! An access counts as lane 0 of the wave. The low two bits of an address are ignored, but for
//! parts of words. What a buffer's range does not hold reads as zero and is not written.

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, Ordering::Relaxed};

use super::{Place, Source, Word, atomic, immediate, operand, place, source};
use crate::asm::Value;
use crate::memory::Regions;
use crate::probe::{Access, Kind, Space};
use crate::program::{Compiled, Context};
use crate::wave::{Exec, Fault, Group, LANES, Step, Wave, scalar};

/// Compiles a scalar memory instruction.
pub fn compile(context: &Context<'_>) -> Compiled {
    let name = context.asm.mnemonic.strip_prefix("s_")?;
    let (name, buffer) = match name.strip_prefix("buffer_") {
        Some(name) => (name, true),
        None => (name, false),
    };
    if let Some(width) = name.strip_prefix("load_") {
        let width = Width::new(width)?;
        return Some(load(context, width, buffer));
    }
    if let Some(width) = name.strip_prefix("store_") {
        return match Width::new(width)? {
            Width::Words(words) => Some(store(context, words, buffer)),
            _ => None,
        };
    }
    atomic::compile(context, name.strip_prefix("atomic_")?, buffer)
}

/// What a load fetches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Width {
    /// Whole registers.
    Words(u16),
    /// Part of one, extended by zeros.
    Unsigned(u16),
    /// Part of one, extended by its sign.
    Signed(u16),
}

impl Width {
    /// From the end of the mnemonic.
    fn new(name: &str) -> Option<Width> {
        Some(match name {
            "dword" | "b32" => Width::Words(1),
            "dwordx2" | "b64" => Width::Words(2),
            "b96" => Width::Words(3),
            "dwordx4" | "b128" => Width::Words(4),
            "dwordx8" | "b256" => Width::Words(8),
            "dwordx16" | "b512" => Width::Words(16),
            "u8" => Width::Unsigned(1),
            "u16" => Width::Unsigned(2),
            "i8" => Width::Signed(1),
            "i16" => Width::Signed(2),
            _ => return None,
        })
    }
}

/// Modifiers that say how caches are to behave.
const CACHE_MODIFIERS: [&str; 5] = ["glc", "dlc", "nv", "scope", "th"];

/// Where an instruction accesses memory, and where it stands itself.
#[derive(Clone, Copy)]
pub(super) struct Address {
    /// First register of a 64-bit base, or of a buffer resource.
    base: u8,
    buffer: bool,
    register: Source,
    immediate: i64,
    /// Bits of the address that are ignored.
    ignored: u64,
    pc: u32,
    region: usize,
}

/// An address with the bytes from it on that the buffer holds.
#[derive(Clone, Copy)]
pub(super) struct Range {
    pub(super) address: u64,
    pub(super) available: u64,
}

impl Address {
    /// From the operands after the data. `part` is the width of the smallest part that is accessed
    /// on its own, in bytes: 1, 2 or 4.
    pub(super) fn new(context: &Context<'_>, buffer: bool, part: u64) -> Result<Address, Fault> {
        let known = |name: &str| name == "offset" || CACHE_MODIFIERS.contains(&name);
        let expected = context.asm.operands.len() == 3
            && context.asm.modifiers.iter().all(|modifier| known(&modifier.name));
        let base = match operand(context, 1)?.value {
            Value::Scalar(first, count) if count == if buffer { 4 } else { 2 } => first as u8,
            _ => return Err(context.unknown()),
        };
        let (register, immediate) = match immediate(context, 2) {
            Ok(immediate) if !context.asm.has("offset") => (Source::Constant(0), immediate),
            _ => (source::<u32>(context, 2)?, offset(context)?),
        };
        let pc = (context.index_of)(context.asm.address);
        let (true, Some(pc)) = (expected, pc) else { return Err(context.unknown()) };
        let region = Regions::place(context.asm.address);
        Ok(Address { base, buffer, register, immediate, ignored: part - 1, pc, region })
    }

    #[inline(always)]
    pub(super) fn range(&self, wave: &Wave) -> Range {
        let register = u64::from(u32::read(wave, self.register));
        let offset = register.wrapping_add_signed(self.immediate);
        if self.buffer {
            return self.buffer_range(wave, offset & !self.ignored);
        }
        let address = u64::get(wave, self.base).wrapping_add(offset) & !self.ignored;
        Range { address, available: u64::MAX }
    }

    /// A buffer resource: base in bits 0 to 47, stride in 48 to 61, and in 64 to 95 the number of
    /// records, which are bytes if the stride is zero.
    fn buffer_range(&self, wave: &Wave, offset: u64) -> Range {
        let low = u64::get(wave, self.base);
        let (base, stride) = (low & 0xffff_ffff_ffff, low >> 48 & 0x3fff);
        let bytes = u64::from(u32::get(wave, self.base + 2)) * stride.max(1);
        let address = (base & !self.ignored).wrapping_add(offset);
        Range { address, available: bytes.saturating_sub(offset) }
    }

    /// Tells the probe of an access and finds it good.
    #[inline(always)]
    pub(super) fn check(
        &self,
        wave: &Wave,
        group: &mut Group,
        kind: Kind,
        address: u64,
        bytes: u32,
    ) -> Step {
        if group.probe.is_some() {
            self.report(wave, group, kind, address, bytes);
        }
        let region = group.regions.at(self.region);
        if group.memory.contains(region, address, u64::from(bytes)) {
            return Ok(());
        }
        let word = match kind {
            Kind::Load => "load",
            Kind::Store => "store",
            Kind::Atomic => "atomic",
        };
        Err(group.memory.fault(word, address, bytes, 0))
    }

    #[cold]
    fn report(&self, wave: &Wave, group: &mut Group, kind: Kind, address: u64, bytes: u32) {
        let mut addresses = [0; LANES];
        addresses[0] = address;
        let space = Space::Global;
        if let Some(probe) = &mut group.probe {
            let access = Access { kind, space, addresses: &addresses, lanes: 1, bytes };
            probe.access(self.pc, wave, &access);
        }
    }
}

/// The modifier `offset`; zero if there is none.
fn offset(context: &Context<'_>) -> Result<i64, Fault> {
    if context.asm.has("offset") {
        context.asm.number("offset").ok_or_else(|| context.unknown())
    } else {
        Ok(0)
    }
}

fn load(context: &Context<'_>, width: Width, buffer: bool) -> Result<Exec, Fault> {
    let part = match width {
        Width::Words(_) => 4,
        Width::Unsigned(bytes) | Width::Signed(bytes) => u64::from(bytes),
    };
    let address = Address::new(context, buffer, part)?;
    let words = if let Width::Words(words) = width { words } else { 1 };
    let place = place(context, 0, words)?;
    Ok(match width {
        Width::Words(1) => load_words::<1>(address, place),
        Width::Words(2) => load_words::<2>(address, place),
        Width::Words(3) => load_words::<3>(address, place),
        Width::Words(4) => load_words::<4>(address, place),
        Width::Words(8) => load_words::<8>(address, place),
        Width::Words(16) => load_words::<16>(address, place),
        Width::Unsigned(1) => load_part::<1>(address, place, |bits| bits),
        Width::Unsigned(2) => load_part::<2>(address, place, |bits| bits),
        Width::Signed(1) => load_part::<1>(address, place, |bits| i32::from(bits as i8) as u32),
        Width::Signed(2) => load_part::<2>(address, place, |bits| i32::from(bits as i16) as u32),
        _ => return Err(context.unknown()),
    })
}

fn load_words<const N: usize>(address: Address, place: Place) -> Exec {
    Box::new(move |wave, group| {
        let range = address.range(wave);
        let count = if range.available >= 4 * N as u64 { N } else { range.available as usize / 4 };
        let mut words = [0; N];
        if count > 0 {
            address.check(wave, group, Kind::Load, range.address, 4 * count as u32)?;
        }
        for (at, word) in words.iter_mut().enumerate().take(count) {
            // SAFETY: `check` found these words in an allocation; the address is a multiple of 4.
            *word = unsafe { word_at(range.address + 4 * at as u64) }.load(Relaxed);
        }
        write_words(wave, place, &words);
        Ok(())
    })
}

/// Fills consecutive registers.
#[inline(always)]
pub(super) fn write_words(wave: &mut Wave, place: Place, words: &[u32]) {
    let first = usize::from(place.index);
    if first == scalar::NULL {
        return;
    }
    if let Some(registers) = wave.sgpr.get_mut(first..first + words.len()) {
        registers.copy_from_slice(words);
    }
    if place.narrow_exec {
        wave.sgpr[scalar::EXEC + 1] = 0;
    }
}

/// Loads 1 or 2 bytes; `extend` makes a register of them.
fn load_part<const BYTES: u64>(
    address: Address,
    place: Place,
    extend: impl Fn(u32) -> u32 + Send + Sync + 'static,
) -> Exec {
    Box::new(move |wave, group| {
        let range = address.range(wave);
        let mut bits = 0;
        if range.available >= BYTES {
            address.check(wave, group, Kind::Load, range.address, BYTES as u32)?;
            // SAFETY: `check` found these bytes in an allocation; the address is a multiple of
            // their number.
            bits = unsafe {
                match BYTES {
                    1 => u32::from(AtomicU8::from_ptr(range.address as *mut u8).load(Relaxed)),
                    _ => u32::from(AtomicU16::from_ptr(range.address as *mut u16).load(Relaxed)),
                }
            };
        }
        extend(bits).set(wave, place);
        Ok(())
    })
}

fn store(context: &Context<'_>, words: u16, buffer: bool) -> Result<Exec, Fault> {
    let address = Address::new(context, buffer, 4)?;
    let data = match operand(context, 0)?.value {
        Value::Scalar(first, count) if count == words => usize::from(first),
        _ => return Err(context.unknown()),
    };
    Ok(Box::new(move |wave, group| {
        let range = address.range(wave);
        let count = u64::from(words).min(range.available / 4);
        if count == 0 {
            return Ok(());
        }
        address.check(wave, group, Kind::Store, range.address, 4 * count as u32)?;
        let registers = wave.sgpr.iter().skip(data).take(count as usize);
        for (at, word) in registers.enumerate() {
            // SAFETY: `check` found these words in an allocation; the address is a multiple of 4.
            unsafe { word_at(range.address + 4 * at as u64) }.store(*word, Relaxed);
        }
        Ok(())
    }))
}

/// A word of device memory.
///
/// # Safety
/// `address` is a multiple of 4 in a live allocation.
unsafe fn word_at<'a>(address: u64) -> &'a AtomicU32 {
    // SAFETY: the caller's; all accesses to device memory are atomic, or races of the program.
    unsafe { AtomicU32::from_ptr(address as *mut u32) }
}

#[cfg(test)]
mod tests {
    use crate::Chip;
    use crate::scalar::testing::Machine;

    /// A machine whose s[8:9] holds the address of 64 words 100, 101, ...
    fn machine(chip: Chip) -> (Machine, u64) {
        let mut machine = Machine::new(chip);
        let base = machine.group.memory.allocate(256, "words").expect("memory");
        let bytes: Vec<u8> = (100_u32..164).flat_map(u32::to_le_bytes).collect();
        machine.group.memory.write(base, &bytes).expect("allocated");
        machine.wave.set_pair(8, base);
        (machine, base)
    }

    #[test]
    fn loads_words() {
        let (mut machine, _) = machine(Chip::Gfx942);
        machine.run("s_load_dword s0, s[8:9], 0x8");
        assert_eq!(machine.wave.sgpr[0], 102);
        machine.run("s_load_dwordx16 s[16:31], s[8:9], 0x40 glc");
        assert_eq!(machine.wave.sgpr[16..32], (116..132).collect::<Vec<_>>());
        machine.wave.sgpr[3] = 13;
        // 13 + 20 = 33, of which the low two bits are ignored.
        machine.run("s_load_dwordx2 s[4:5], s[8:9], s3 offset:0x14");
        assert_eq!(machine.wave.sgpr[4..6], [108, 109]);
        machine.wave.sgpr[3] = 32;
        machine.run("s_load_dword s0, s[8:9], s3 offset:-0x10");
        assert_eq!(machine.wave.sgpr[0], 104);
        let fault = machine.step("s_load_dword s0, s[8:9], -0x4").expect_err("before the words");
        assert!(fault.to_string().contains("outside of every allocation"), "{fault}");
        machine.step("s_load_dwordx2 s[0:1], s[8:9], 0xfc").expect_err("past the words");
    }

    #[test]
    fn loads_parts_of_words() {
        let (mut machine, base) = machine(Chip::Gfx1201);
        machine.group.memory.write(base, &[0x11, 0x82, 0x93, 0xa4]).expect("allocated");
        let cases = [
            ("s_load_u8 s0, s[8:9], 0x1", 0x82),
            ("s_load_i8 s0, s[8:9], 0x1", 0xffff_ff82),
            ("s_load_u16 s0, s[8:9], 0x3", 0xa493),
            ("s_load_i16 s0, s[8:9], 0x2", 0xffff_a493),
        ];
        for (text, expected) in cases {
            machine.run(text);
            assert_eq!(machine.wave.sgpr[0], expected, "{text}");
        }
        machine.run("s_load_b96 s[4:6], s[8:9], 0x4");
        assert_eq!(machine.wave.sgpr[4..7], [101, 102, 103]);
    }

    /// s[4:7] becomes the resource of the words.
    fn resource(machine: &mut Machine, base: u64, stride: u64, records: u32) {
        machine.wave.set_pair(4, base | stride << 48);
        machine.wave.set_pair(6, u64::from(records));
    }

    #[test]
    fn buffers_end_where_their_records_end() {
        let (mut machine, base) = machine(Chip::Gfx1201);
        resource(&mut machine, base, 0, 40);
        machine.run("s_buffer_load_b32 s0, s[4:7], 0x24");
        assert_eq!(machine.wave.sgpr[0], 109);
        machine.wave.sgpr[1] = 30;
        // 30 + 4 = 34, of which the low two bits are ignored: words 8, 9, and two outside.
        machine.run("s_buffer_load_b128 s[16:19], s[4:7], s1 offset:0x4");
        assert_eq!(machine.wave.sgpr[16..20], [108, 109, 0, 0]);
        machine.run("s_buffer_load_u8 s0, s[4:7], 0x27").run("s_buffer_load_i16 s1, s[4:7], 0x28");
        assert_eq!(machine.wave.sgpr[..2], [0, 0]);
        resource(&mut machine, base, 8, 2);
        machine.run("s_buffer_load_b256 s[16:23], s[4:7], 0x0");
        assert_eq!(machine.wave.sgpr[16..24], [100, 101, 102, 103, 0, 0, 0, 0]);
        // Nothing is accessed outside of the range, whatever the address.
        resource(&mut machine, 0x1000, 0, 0);
        machine.run("s_buffer_load_b64 s[0:1], s[4:7], 0x0");
        assert_eq!(machine.wave.sgpr[..2], [0, 0]);
        resource(&mut machine, 0x1000, 0, 4);
        machine.step("s_buffer_load_b32 s0, s[4:7], 0x0").expect_err("no allocation");
    }

    #[test]
    fn stores_words() {
        let (mut machine, base) = machine(Chip::Gfx90a);
        machine.set(&[7, 8, 9, 10]);
        machine
            .run("s_store_dwordx4 s[0:3], s[8:9], 0x10")
            .run("s_load_dwordx2 s[20:21], s[8:9], 0x18");
        assert_eq!(machine.wave.sgpr[20..22], [9, 10]);
        resource(&mut machine, base, 0, 8);
        machine.run("s_buffer_store_dwordx2 s[0:1], s[4:7], 0x4");
        machine.run("s_load_dwordx4 s[20:23], s[8:9], 0x0");
        assert_eq!(machine.wave.sgpr[20..24], [100, 7, 102, 103]);
        machine.step("s_store_dword s0, s[8:9], 0x100").expect_err("behind the words");
    }

    #[test]
    fn nothing_is_loaded_into_null() {
        let (mut machine, _) = machine(Chip::Gfx1100);
        let exec = machine.wave.exec();
        machine.run("s_load_b128 null, s[8:9], 0x0");
        assert_eq!(machine.wave.exec(), exec);
    }
}
