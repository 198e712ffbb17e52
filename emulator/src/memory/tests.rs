//! Memory instructions, each stated again lane by lane.

use std::sync::Arc;

use super::{Memory, Region, compile};
use crate::Chip;
use crate::asm::{Disassembler, Instruction, parse};
use crate::program::{Context, Starts};
use crate::wave::{Fault, Group, Step, Wave};

/// A wave, its workgroup and 64 KiB of device memory in one allocation.
struct Machine {
    wave: Wave,
    group: Group,
    buffer: u64,
}

const BUFFER: u64 = 64 << 10;

impl Machine {
    fn new(chip: Chip) -> Machine {
        let memory = Arc::new(Memory::reserve(1 << 24).expect("address space"));
        let buffer = memory.allocate(BUFFER, "hipMalloc #0").expect("room");
        let mut wave = Wave::new(0, if chip.is_cdna() { 64 } else { 32 });
        wave.scratch_stride = 256;
        wave.scratch = vec![0; 256 * 64];
        Machine { wave, group: Group::new(chip, 4096, memory, [0; 3], 1), buffer }
    }

    fn run(&mut self, text: &str) -> Step {
        self.execute(&parse(text))
    }

    fn execute(&mut self, asm: &Instruction) -> Step {
        let context = Context {
            chip: self.group.chip,
            lanes: self.wave.lanes,
            asm,
            index_of: &|_| Some(0),
            starts: &Arc::new(Starts::every_fourth_byte(0, 16)),
        };
        let exec = compile(&context).expect("a memory instruction").map_err(Box::new)?;
        exec(&mut self.wave, &mut self.group)
    }

    fn ok(&mut self, text: &str) {
        self.run(text).unwrap_or_else(|fault| panic!("{text}: {fault}"));
    }

    fn poke32(&self, offset: u64, value: u32) {
        self.group.memory.write(self.buffer + offset, &value.to_le_bytes()).expect("in range");
    }

    fn peek32(&self, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        self.group.memory.read(self.buffer + offset, &mut bytes).expect("in range");
        u32::from_le_bytes(bytes)
    }

    /// Puts a 64-bit value per lane into two registers.
    fn set64(&mut self, row: usize, value: impl Fn(u64) -> u64) {
        for lane in 0..64 {
            self.wave.rows[row].0[lane] = value(lane as u64) as u32;
            self.wave.rows[row + 1].0[lane] = (value(lane as u64) >> 32) as u32;
        }
    }

    fn set32(&mut self, row: usize, value: impl Fn(u32) -> u32) {
        for lane in 0..64 {
            self.wave.rows[row].0[lane] = value(lane as u32);
        }
    }

    fn lane(&self, row: usize, lane: usize) -> u32 {
        self.wave.rows[row].0[lane]
    }
}

/// Each word of the buffer holds a number made of its offset.
fn filled(chip: Chip) -> Machine {
    let machine = Machine::new(chip);
    for offset in (0..BUFFER).step_by(4) {
        machine.poke32(offset, word_at(offset));
    }
    machine
}

fn word_at(offset: u64) -> u32 {
    (offset as u32).wrapping_mul(0x9e37_79b1) ^ 0x5bd1_e995
}

fn byte_at(offset: u64) -> u8 {
    word_at(offset & !3).to_le_bytes()[(offset % 4) as usize]
}

#[test]
fn loads_words_in_rows_and_scattered() {
    for (chip, names) in [
        (Chip::Gfx942, ["dword", "dwordx2", "dwordx3", "dwordx4"]),
        (Chip::Gfx1201, ["b32", "b64", "b96", "b128"]),
    ] {
        for (index, name) in names.iter().enumerate() {
            let words = index as u64 + 1;
            for (scale, exec) in [(4 * words, u64::MAX), (40, u64::MAX), (4 * words, 0x5555_00f1)] {
                let mut machine = filled(chip);
                let buffer = machine.buffer;
                machine.wave.set_exec(exec);
                machine.set64(8, |lane| buffer + 512 + lane * scale);
                let last = 20 + words - 1;
                machine.ok(&format!("global_load_{name} v[20:{last}], v[8:9], off offset:-16"));
                for lane in 0..machine.wave.lanes as u64 {
                    for word in 0..words {
                        let on = exec >> lane & 1 != 0;
                        let want = if on { word_at(496 + lane * scale + 4 * word) } else { 0 };
                        let found = machine.lane(20 + word as usize, lane as usize);
                        assert_eq!(found, want, "{chip} {name} lane {lane} word {word}");
                    }
                }
            }
        }
    }
}

#[test]
fn adds_scalar_and_unsigned_vector_parts_of_an_address() {
    let mut machine = filled(Chip::Gfx90a);
    let base = machine.buffer.wrapping_sub(0xffff_0000);
    machine.wave.set_pair(2, base);
    machine.set32(5, |lane| 0xffff_0000 + 16 * lane);
    machine.ok("global_load_dword v6, v5, s[2:3] offset:8 sc0 sc1 nt");
    machine.ok("global_load_dword a6, v5, s[2:3] offset:8");
    for lane in 0..64 {
        assert_eq!(machine.lane(6, lane), word_at(16 * lane as u64 + 8));
        assert_eq!(machine.lane(256 + 6, lane), word_at(16 * lane as u64 + 8));
    }
}

#[test]
fn a_load_may_overwrite_its_own_addresses() {
    let mut machine = filled(Chip::Gfx942);
    let buffer = machine.buffer;
    machine.set64(8, |lane| buffer + 24 * (63 - lane));
    machine.ok("global_load_dwordx2 v[8:9], v[8:9], off");
    for lane in 0..64 {
        assert_eq!(machine.lane(8, lane), word_at(24 * (63 - lane as u64)));
        assert_eq!(machine.lane(9, lane), word_at(24 * (63 - lane as u64) + 4));
    }
}

#[test]
fn stores_words_of_lanes_that_execute() {
    for (scale, exec) in [(16, u64::MAX), (48, u64::MAX), (16, 0xf0f0_f0f0_0000_0001)] {
        let mut machine = filled(Chip::Gfx950);
        machine.wave.set_pair(4, machine.buffer);
        machine.wave.set_exec(exec);
        machine.set32(1, |lane| lane * scale);
        for word in 0..4 {
            machine.set32(10 + word as usize, |lane| lane << 8 | word);
        }
        machine.ok("global_store_dwordx4 v1, v[10:13], s[4:5] offset:32");
        for lane in 0..64_u32 {
            for word in 0..4 {
                let offset = u64::from(lane * scale + 4 * word + 32);
                let on = exec >> lane & 1 != 0;
                let want = if on { lane << 8 | word } else { word_at(offset) };
                assert_eq!(machine.peek32(offset), want, "lane {lane} word {word}");
            }
        }
    }
}

#[test]
fn narrow_loads_extend_or_keep_the_other_half() {
    let old = 0xdead_beef_u32;
    type Want = fn(u8, u8, u32) -> u32;
    let cases: [(&str, &str, Want); 10] = [
        ("ubyte", "u8", |a, _, _| u32::from(a)),
        ("sbyte", "i8", |a, _, _| a as i8 as i32 as u32),
        ("ushort", "u16", |a, b, _| u32::from(u16::from_le_bytes([a, b]))),
        ("sshort", "i16", |a, b, _| i16::from_le_bytes([a, b]) as i32 as u32),
        ("ubyte_d16", "d16_u8", |a, _, old| old & 0xffff_0000 | u32::from(a)),
        ("ubyte_d16_hi", "d16_hi_u8", |a, _, old| old & 0xffff | u32::from(a) << 16),
        ("sbyte_d16", "d16_i8", |a, _, old| {
            old & 0xffff_0000 | u32::from(i16::from(a as i8) as u16)
        }),
        ("sbyte_d16_hi", "d16_hi_i8", |a, _, old| {
            old & 0xffff | u32::from(i16::from(a as i8) as u16) << 16
        }),
        ("short_d16", "d16_b16", |a, b, old| {
            old & 0xffff_0000 | u32::from(u16::from_le_bytes([a, b]))
        }),
        ("short_d16_hi", "d16_hi_b16", |a, b, old| {
            old & 0xffff | u32::from(u16::from_le_bytes([a, b])) << 16
        }),
    ];
    for (cdna, rdna, want) in cases {
        for (chip, name) in [(Chip::Gfx90a, cdna), (Chip::Gfx1151, rdna)] {
            let mut machine = filled(chip);
            machine.wave.set_pair(2, machine.buffer);
            machine.set32(1, |lane| 7 * lane);
            machine.set32(3, |_| old);
            machine.wave.set_exec(0xffff_fff7);
            machine.ok(&format!("global_load_{name} v3, v1, s[2:3]"));
            for lane in 0..32 {
                let at = 7 * lane as u64;
                let found = machine.lane(3, lane);
                let expected =
                    if lane == 3 { old } else { want(byte_at(at), byte_at(at + 1), old) };
                assert_eq!(found, expected, "{name} lane {lane}");
            }
        }
    }
}

#[test]
fn narrow_stores_take_the_half_that_they_name() {
    for (name, shift, bytes) in [
        ("byte", 0, 1),
        ("byte_d16_hi", 16, 1),
        ("short", 0, 2),
        ("short_d16_hi", 16, 2),
        ("b8", 0, 1),
        ("d16_hi_b8", 16, 1),
        ("b16", 0, 2),
        ("d16_hi_b16", 16, 2),
    ] {
        let mut machine = Machine::new(Chip::Gfx1100);
        machine.wave.set_pair(2, machine.buffer);
        machine.set32(1, |lane| 4 * lane);
        machine.set32(3, |lane| 0x8182_8384 + lane);
        machine.ok(&format!("global_store_{name} v1, v3, s[2:3]"));
        for lane in 0..32 {
            let value = (0x8182_8384 + lane) >> shift;
            let want = if bytes == 1 { value & 0xff } else { value & 0xffff };
            assert_eq!(machine.peek32(4 * u64::from(lane)), want, "{name}");
        }
    }
}

#[test]
fn lds_reads_what_was_written_and_nothing_beyond_its_end() {
    let mut machine = Machine::new(Chip::Gfx942);
    machine.set32(1, |lane| 16 * lane);
    for word in 0..4 {
        machine.set32(4 + word as usize, |lane| 100 * lane + word);
    }
    machine.ok("ds_write_b128 v1, v[4:7] offset:3072");
    machine.set32(2, |lane| 4 * lane + 2048);
    machine.set32(8, |_| 7);
    machine.ok("ds_read_b32 v8, v2 offset:1920");
    for lane in 0..64_u32 {
        let offset = 4 * lane + 3968;
        let (owner, word) = ((offset - 3072) / 16, (offset - 3072) % 16 / 4);
        let want = if offset + 4 > 4096 { 0 } else { 100 * owner + word };
        assert_eq!(machine.lane(8, lane as usize), want, "lane {lane}");
    }
    // An offset is added without a carry beyond 32 bits.
    machine.set32(2, |_| 0_u32.wrapping_sub(16));
    machine.ok("ds_read_b32 v8, v2 offset:3092");
    assert_eq!(machine.lane(8, 5), 1);
}

#[test]
fn faults_say_lane_address_and_what_is_near() {
    let mut machine = filled(Chip::Gfx942);
    let buffer = machine.buffer;
    machine.set64(8, |lane| buffer + if lane == 9 { BUFFER - 8 } else { 0 });
    let fault = machine.run("global_load_dwordx4 v[0:3], v[8:9], off").expect_err("out of range");
    let text = fault.to_string();
    assert!(
        text.contains("lane 9") && text.contains("it crosses the end of hipMalloc #0"),
        "{text}"
    );
    machine.set64(8, |_| buffer + BUFFER + 100);
    let text = machine.run("global_store_dword v[8:9], v0, off").expect_err("past").to_string();
    assert!(text.contains("100 bytes past the end of hipMalloc #0"), "{text}");
    let other = machine.group.memory.allocate(4096, "hipMalloc #1").expect("room");
    machine.set64(8, |lane| other + 4 * lane);
    machine.ok("global_load_dword v0, v[8:9], off");
    assert!(machine.group.memory.free(other));
    let text = machine.run("global_load_dword v0, v[8:9], off").expect_err("freed").to_string();
    assert!(text.contains("in hipMalloc #1") && text.contains("which was freed"), "{text}");
    machine.set64(8, |_| 0);
    let fault = machine.run("global_load_dword v0, v[8:9], off").expect_err("null");
    assert!(matches!(*fault, Fault::Address { lane: 0, address: 0, bytes: 4, .. }));
    machine.wave.set_exec(0);
    machine.ok("global_load_dword v0, v[8:9], off");
    let unknown = machine.run("global_load_dword v0, v[8:9], off wobble").expect_err("unknown");
    assert!(matches!(*unknown, Fault::Unknown(_)));
}

#[test]
fn flat_accesses_reach_lds_and_scratch_lane_by_lane() {
    let mut machine = filled(Chip::Gfx942);
    let buffer = machine.buffer;
    machine.group.lds[64..68].copy_from_slice(&0x1111_2222_u32.to_le_bytes());
    for lane in 0..64 {
        machine.wave.scratch[lane * 256 + 12] = lane as u8;
    }
    let address = |lane: u64| match lane % 3 {
        0 => buffer + 4 * lane,
        1 => super::SHARED_APERTURE + 60,
        _ => super::PRIVATE_APERTURE + 8,
    };
    machine.set64(8, address);
    machine.ok("flat_load_dword v0, v[8:9] offset:4");
    for lane in 0..64 {
        let want = match lane % 3 {
            0 => word_at(4 * lane as u64 + 4),
            1 => 0x1111_2222,
            _ => lane as u32,
        };
        assert_eq!(machine.lane(0, lane), want, "lane {lane}");
    }
    machine.set32(1, |lane| 1000 + lane);
    machine.ok("flat_store_dword v[8:9], v1 offset:4");
    assert_eq!(machine.peek32(4), 1000);
    assert_eq!(machine.group.lds[64..68], 1061_u32.to_le_bytes());
    assert_eq!(machine.wave.scratch[5 * 256 + 12..][..4], 1005_u32.to_le_bytes());
}

#[test]
fn scratch_belongs_to_a_lane() {
    let mut machine = Machine::new(Chip::Gfx942);
    machine.set32(1, |lane| 1000 + lane);
    machine.set32(2, |lane| 4 * (lane % 4));
    machine.wave.sgpr[4] = 24;
    machine.ok("scratch_store_dword v2, v1, s4 offset:-4");
    machine.ok("scratch_load_dword v3, v2, off offset:20");
    machine.ok("scratch_load_dword v5, off, s4 offset:-4");
    machine.ok("scratch_load_dword v6, off, off offset:24");
    for lane in 0..64_usize {
        assert_eq!(machine.lane(3, lane), 1000 + lane as u32);
        assert_eq!(machine.lane(5, lane), if lane % 4 == 0 { 1000 + lane as u32 } else { 0 });
        assert_eq!(machine.lane(6, lane), if lane % 4 == 1 { 1000 + lane as u32 } else { 0 });
    }
    machine.set32(2, |_| 240);
    let text =
        machine.run("scratch_load_dword v3, v2, off offset:16").expect_err("end").to_string();
    assert!(text.contains("the lane has 256 bytes"), "{text}");
}

#[test]
fn the_allocator_joins_free_ranges_and_counts() {
    let memory = Memory::reserve(1 << 20).expect("address space");
    let first: Vec<u64> = (0..4).map(|_| memory.allocate(1000, "a").expect("room")).collect();
    assert_eq!(memory.statistics().used, 4000);
    assert!(first.windows(2).all(|pair| pair[1] >= pair[0] + 1256));
    assert!(memory.free(first[1]) && memory.free(first[2]) && !memory.free(first[1]));
    // Two joined spans hold what neither could alone.
    assert_eq!(memory.allocate(2200, "b"), Some(first[1]));
    assert_eq!(memory.statistics().used, 4200);
    assert!(memory.free(first[3]));
    assert_eq!(memory.allocate(1 << 20, "too large"), None);
    assert_eq!(memory.allocate(u64::MAX, "far too large"), None);
    let aligned = memory.allocate_aligned(10, 4096, "page").expect("room");
    assert_eq!(aligned % 4096, 0);
    assert_eq!(memory.statistics().peak, 4200);
    let mut region = Region::default();
    assert!(
        memory.contains(&mut region, aligned, 10) && !memory.contains(&mut region, aligned, 11)
    );
    assert!(memory.free(aligned));
    assert!(!memory.contains(&mut region, aligned, 10), "a region outlives no allocation");
    assert_eq!(memory.find_freed(aligned).map(|a| a.size), Some(10));
    let host = [0_u8; 64];
    memory.register(host.as_ptr() as u64, 64, "host");
    assert!(memory.contains(&mut region, host.as_ptr() as u64 + 60, 4));
    assert!(!memory.free(host.as_ptr() as u64), "registered memory is not ours to free");
    assert!(memory.unregister(host.as_ptr() as u64));
    assert!(!memory.contains(&mut region, host.as_ptr() as u64 + 60, 4));
}

/// Bytes of `text` as LLVM's assembler encodes it are needed where only the encoding says all.
fn decode(chip: Chip, bytes: &[u8]) -> Instruction {
    Disassembler::new(chip, if chip.is_cdna() { 64 } else { 32 }).decode(bytes, 0)
}

#[test]
fn integer_atomics_return_the_old_value_and_go_in_lane_order() {
    let mut machine = Machine::new(Chip::Gfx942);
    machine.wave.set_pair(2, machine.buffer);
    machine.set32(1, |_| 8);
    machine.set32(3, |lane| lane + 1);
    machine.poke32(8, 1000);
    machine.ok("global_atomic_add v4, v1, v3, s[2:3] sc0");
    assert_eq!(machine.peek32(8), 1000 + 64 * 65 / 2);
    for lane in 0..64_u32 {
        assert_eq!(machine.lane(4, lane as usize), 1000 + lane * (lane + 1) / 2);
    }
    machine.set32(4, |_| 7);
    machine.ok("global_atomic_add v1, v3, s[2:3]");
    assert_eq!((machine.peek32(8), machine.lane(4, 0)), (1000 + 64 * 65, 7));
    type Case = (&'static str, u32, u32, u32);
    let cases: [Case; 18] = [
        ("sub", 5, 7, 0xffff_fffe),
        ("swap", 5, 7, 7),
        ("smin", 5, 0xffff_ffff, 0xffff_ffff),
        ("smax", 5, 0xffff_ffff, 5),
        ("umin", 5, 0xffff_ffff, 5),
        ("umax", 5, 0xffff_ffff, 0xffff_ffff),
        ("and", 0b1100, 0b1010, 0b1000),
        ("or", 0b1100, 0b1010, 0b1110),
        ("xor", 0b1100, 0b1010, 0b0110),
        ("inc", 5, 5, 0),
        ("inc", 4, 5, 5),
        ("inc", 9, 5, 0),
        ("dec", 0, 5, 5),
        ("dec", 5, 5, 4),
        ("dec", 6, 5, 5),
        ("add_f32", 0x3f80_0000, 0x4000_0000, 0x4040_0000),
        ("pk_add_f16", 0x3c00_3c00, 0x4000_bc00, 0x4200_0000),
        ("pk_add_bf16", 0x3f80_3f80, 0x4000_bf80, 0x4040_0000),
    ];
    for (name, old, value, new) in cases {
        machine.wave.set_exec(0x10);
        machine.poke32(8, old);
        machine.set32(3, |_| value);
        machine.ok(&format!("global_atomic_{name} v4, v1, v3, s[2:3] sc0"));
        assert_eq!((machine.peek32(8), machine.lane(4, 4)), (new, old), "{name}");
    }
}

#[test]
fn wide_atomics_and_compare_and_swap() {
    let mut machine = Machine::new(Chip::Gfx1201);
    machine.wave.set_exec(1);
    machine.wave.set_pair(2, machine.buffer);
    machine.set32(1, |_| 16);
    machine.poke32(16, 0xffff_ffff);
    machine.poke32(20, 1);
    machine.set64(4, |_| 2);
    machine.ok("global_atomic_add_u64 v[6:7], v1, v[4:5], s[2:3] th:TH_ATOMIC_RETURN");
    assert_eq!((machine.peek32(16), machine.peek32(20)), (1, 2));
    assert_eq!((machine.lane(6, 0), machine.lane(7, 0)), (0xffff_ffff, 1));
    // The new value first, then the expected one.
    machine.set64(8, |_| 77 | 2 << 32);
    machine.ok("global_atomic_cmpswap_b32 v1, v[8:9], s[2:3] offset:4");
    assert_eq!(machine.peek32(20), 77);
    machine.ok("global_atomic_cmpswap_b32 v6, v1, v[8:9], s[2:3] offset:4 th:TH_ATOMIC_RETURN");
    assert_eq!((machine.peek32(20), machine.lane(6, 0)), (77, 77));
    machine.poke32(20, 10);
    machine.set32(3, |_| 11);
    machine.ok("global_atomic_sub_clamp_u32 v1, v3, s[2:3] offset:4");
    assert_eq!(machine.peek32(20), 0);
    machine.poke32(20, 10);
    machine.ok("global_atomic_cond_sub_u32 v1, v3, s[2:3] offset:4");
    assert_eq!(machine.peek32(20), 10);
    machine.set32(1, |_| 18);
    let fault = machine.run("global_atomic_add_u32 v1, v3, s[2:3]").expect_err("misaligned");
    assert!(fault.to_string().contains("is not aligned"), "{fault}");
}

#[test]
fn float_atomics_follow_the_documents_rules_for_nan_zero_and_denormals() {
    let run = |chip: Chip, text: &str, old: u32, value: u32| {
        let mut machine = Machine::new(chip);
        machine.wave.set_exec(1);
        machine.wave.set_pair(2, machine.buffer);
        machine.set32(3, |_| value);
        machine.poke32(0, old);
        machine.group.lds[..4].copy_from_slice(&old.to_le_bytes());
        machine.ok(text);
        let lds = machine.group.lds[..4].try_into().map(u32::from_le_bytes).expect("four bytes");
        if text.starts_with("ds") { lds } else { machine.peek32(0) }
    };
    let add = "global_atomic_add_f32 v1, v3, s[2:3]";
    let denormal = 0x0000_0001;
    assert_eq!(run(Chip::Gfx90a, add, denormal, denormal), 0);
    assert_eq!(run(Chip::Gfx942, add, denormal, denormal), 2);
    assert_eq!(run(Chip::Gfx1100, add, denormal, denormal), 2);
    // A tie goes to even; a signaling NaN becomes quiet.
    assert_eq!(run(Chip::Gfx942, add, 0x3f80_0000, 0x3380_0000), 0x3f80_0000);
    assert_eq!(run(Chip::Gfx942, add, 0x3f80_0001, 0x3380_0000), 0x3f80_0002);
    assert_eq!(run(Chip::Gfx942, add, 0x7f80_0001, 0x3f80_0000), 0x7fc0_0001);
    assert_eq!(run(Chip::Gfx1201, add, 0x7f80_0000, 0xff80_0000), 0xffc0_0000);
    let (minus_zero, quiet, signaling, one) = (0x8000_0000, 0x7fc0_0005, 0x7f80_0005, 0x3f80_0000);
    let (min, max) = ("ds_min_f32 v1, v3", "ds_max_f32 v1, v3");
    assert_eq!(run(Chip::Gfx942, min, 0, minus_zero), minus_zero);
    assert_eq!(run(Chip::Gfx942, max, minus_zero, 0), 0);
    assert_eq!(run(Chip::Gfx942, min, quiet, one), one);
    assert_eq!(run(Chip::Gfx942, max, one, quiet), one);
    assert_eq!(run(Chip::Gfx942, min, one, signaling), 0x7fc0_0005);
    assert_eq!(run(Chip::Gfx1201, "ds_min_num_f32 v1, v3", one, signaling), one);
    assert_eq!(run(Chip::Gfx1201, "ds_max_num_f32 v1, v3", signaling, quiet), quiet);
    let swap = "ds_cmpst_b32 v1, v3, v4";
    assert_eq!(run(Chip::Gfx942, swap, 5, 5), 0, "data is the expected value, v4 the new one");
    assert_eq!(run(Chip::Gfx1100, "ds_cmpstore_b32 v1, v3, v4", 0, 9), 9);
}

#[test]
fn updates_from_many_threads_are_never_lost() {
    let memory = Arc::new(Memory::reserve(1 << 20).expect("address space"));
    let address = memory.allocate(8, "counter").expect("room");
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let group = Group::new(Chip::Gfx942, 0, memory.clone(), [0; 3], 1);
                let mut machine = Machine { wave: Wave::new(0, 64), group, buffer: address };
                machine.wave.set_pair(2, address);
                machine.set32(3, |_| 0x3f80_0000);
                for _ in 0..500 {
                    machine.ok("global_atomic_add_f32 v1, v3, s[2:3]");
                }
            });
        }
    });
    let mut bytes = [0; 4];
    memory.read(address, &mut bytes).expect("in range");
    assert_eq!(f32::from_le_bytes(bytes), 2.0 * 500.0 * 64.0);
}

#[test]
fn pairs_of_lds_accesses_scale_their_offsets() {
    let mut machine = Machine::new(Chip::Gfx942);
    for at in 0..1024_u32 {
        machine.group.lds[4 * at as usize..][..4].copy_from_slice(&at.to_le_bytes());
    }
    machine.set32(1, |lane| 4 * lane);
    machine.ok("ds_read2_b32 v[4:5], v1 offset0:3 offset1:10");
    machine.ok("ds_read2st64_b32 v[6:7], v1 offset1:2");
    machine.ok("ds_read2_b64 v[8:11], v1 offset0:1 offset1:4");
    for lane in 0..64 {
        let found: Vec<u32> = (4..12).map(|row| machine.lane(row, lane)).collect();
        let want = [3, 10, 0, 128, 2, 3, 8, 9].map(|offset| offset + lane as u32);
        assert_eq!(found, want, "lane {lane}");
    }
    // The first address register is overwritten only after both reads.
    machine.ok("ds_read2_b32 v[1:2], v1 offset0:3 offset1:10");
    assert_eq!((machine.lane(1, 7), machine.lane(2, 7)), (10, 17));
    machine.set32(1, |lane| 8 * lane);
    machine.set32(2, |lane| 1000 + lane);
    machine.set32(3, |lane| 2000 + lane);
    machine.ok("ds_write2_b32 v1, v2, v3 offset0:0 offset1:1");
    machine.ok("ds_wrxchg2_rtn_b32 v[4:5], v1, v3, v2 offset1:1");
    machine.ok("ds_read_b64 v[6:7], v1");
    assert_eq!((machine.lane(4, 9), machine.lane(5, 9)), (1009, 2009));
    assert_eq!((machine.lane(6, 9), machine.lane(7, 9)), (2009, 1009));
}

#[test]
fn lds_by_thread_append_and_conditional_exchange() {
    let mut machine = Machine::new(Chip::Gfx942);
    machine.wave.sgpr[crate::wave::scalar::M0] = 64;
    machine.set32(1, |lane| lane);
    machine.ok("ds_write_addtid_b32 v1 offset:16");
    machine.ok("ds_read_addtid_b32 v2 offset:20");
    assert_eq!((machine.lane(2, 5), machine.lane(2, 62)), (6, 63));
    assert!(machine.run("ds_append v3 offset:512").is_err());
    machine.wave.sgpr[crate::wave::scalar::M0] = 0;
    machine.wave.set_exec(0xf0);
    machine.ok("ds_append v3 offset:512");
    machine.ok("ds_append v4 offset:512");
    machine.ok("ds_consume v5 offset:512");
    assert_eq!([3, 4, 5].map(|row| machine.lane(row, 6)), [0, 4, 8]);
    assert_eq!(machine.lane(4, 0), 0);
    machine.set32(1, |_| 512);
    machine.wave.set_exec(1);
    machine.set64(6, |_| 0x8000_0007 | 5 << 32);
    machine.ok("ds_condxchg32_rtn_b64 v[8:9], v1, v[6:7]");
    assert_eq!((machine.lane(8, 0), machine.lane(9, 0)), (4, 0));
    assert_eq!(machine.group.lds[512..520], [7, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn permutes_within_the_wave_or_its_half() {
    for (chip, span) in [(Chip::Gfx942, 64), (Chip::Gfx1100, 32), (Chip::Gfx1201, 64)] {
        let mut machine = Machine::new(chip);
        machine.wave.lanes = 64;
        machine.wave.set_exec(!(1 << 40));
        machine.set32(1, |lane| 4 * (lane + 8));
        machine.set32(2, |lane| 100 + lane);
        machine.set32(3, |_| 1);
        machine.ok("ds_bpermute_b32 v3, v1, v2");
        for lane in (0..64_usize).filter(|lane| *lane != 40) {
            let from = lane / span * span + (lane + 8) % span;
            let want = if from == 40 { 0 } else { 100 + from as u32 };
            assert_eq!(machine.lane(3, lane), want, "{chip} lane {lane}");
        }
        assert_eq!(machine.lane(3, 40), 1);
        machine.set32(1, |lane| 4 * (lane & !1));
        machine.ok("ds_permute_b32 v4, v1, v2");
        assert_eq!((machine.lane(4, 6), machine.lane(4, 7)), (107, 0), "the highest lane wins");
        assert_eq!(
            machine.lane(4, if span == 64 { 42 } else { 10 }),
            if span == 64 { 143 } else { 111 }
        );
    }
}

#[test]
fn swizzles_as_the_documents_examples() {
    let cases: [(u16, Vec<u32>); 8] = [
        (0x801b, (0..32).map(|lane| lane / 4 * 4 + 3 - lane % 4).collect()),
        (0x401f, (0..32).map(|lane| lane ^ 16).collect()),
        (0x7c1f, (0..32).map(|lane| 31 - lane).collect()),
        (0x00b8, (0..32).map(|lane| lane / 8 * 8 + 5).collect()),
        (0xc020, (0..32).map(|lane| (lane + 1) % 32).collect()),
        (0xc420, (0..32).map(|lane| (lane + 31) % 32).collect()),
        (
            0xc021,
            // The document's example counts lanes from one.
            [
                0x1, 0x4, 0x3, 0x6, 0x5, 0x8, 0x7, 0xa, 0x9, 0xc, 0xb, 0xe, 0xd, 0x10, 0xf, 0x12,
                0x11, 0x14, 0x13, 0x16, 0x15, 0x18, 0x17, 0x1a, 0x19, 0x1c, 0x1b, 0x1e, 0x1d, 0x20,
                0x1f, 0x2,
            ]
            .map(|lane| lane - 1)
            .to_vec(),
        ),
        (
            0xe010,
            vec![
                0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15, 16, 24, 20, 28, 18, 26, 22,
                30, 17, 25, 21, 29, 19, 27, 23, 31,
            ],
        ),
    ];
    for (pattern, want) in cases {
        let mut machine = Machine::new(Chip::Gfx942);
        machine.set32(1, |lane| lane);
        // ds_swizzle_b32 v0, v1
        let word = 0xd87a_0000_u64 | u64::from(pattern) | 1 << 32;
        let asm = decode(Chip::Gfx942, &word.to_le_bytes());
        assert_eq!(asm.mnemonic, "ds_swizzle_b32");
        machine.execute(&asm).expect("no fault");
        let found: Vec<u32> = (0..64).map(|lane| machine.lane(0, lane)).collect();
        assert_eq!(found[..32], want, "{pattern:#x}");
        assert!((32..64).all(|lane| found[lane] == want[lane - 32] + 32), "{pattern:#x}");
    }
}

#[test]
fn lds_transposes_blocks_of_sixteen_lanes() {
    // 16 rows of 16 elements and a lane gets a column, whatever the width.
    for (name, bits, words) in
        [("b64_tr_b16", 16, 2), ("b64_tr_b8", 8, 2), ("b96_tr_b6", 6, 3), ("b64_tr_b4", 4, 2)]
    {
        let mut machine = Machine::new(Chip::Gfx950);
        let count = 32 * words / bits;
        let slot = if words == 3 { 16 } else { 8 };
        let value = |block: usize, row: usize, column: usize| {
            (block * 7 + row * 3 + column * 5) as u128 & ((1 << bits) - 1)
        };
        for lane in 0..64 {
            let mut packed = 0_u128;
            for element in 0..count {
                let place = lane % 16 * count + element;
                packed |= value(lane / 16, place / 16, place % 16) << (element * bits);
            }
            machine.group.lds[lane * slot..][..4 * words]
                .copy_from_slice(&packed.to_le_bytes()[..4 * words]);
        }
        machine.set32(1, |lane| lane * slot as u32);
        machine.ok(&format!("ds_read_{name} v[2:{}], v1", 1 + words));
        for lane in 0..64 {
            let mut packed = 0_u128;
            (0..words).for_each(|w| packed |= u128::from(machine.lane(2 + w, lane)) << (32 * w));
            for row in 0..count {
                let found = packed >> (row * bits) & ((1 << bits) - 1);
                assert_eq!(found, value(lane / 16, row, lane % 16), "{name} lane {lane} row {row}");
            }
        }
    }
}

#[test]
fn gfx12_transposes_eight_by_eight_halves() {
    // Measured on a gfx1201: received(l, j) = read(8 (l / 8) + j)[l % 8].
    let mut machine = Machine::new(Chip::Gfx1201);
    for at in 0..256_u64 {
        let bytes = (at as u16).to_le_bytes();
        machine.group.memory.write(machine.buffer + 2 * at, &bytes).expect("in range");
    }
    let buffer = machine.buffer;
    machine.set64(4, |lane| buffer + 16 * lane);
    machine.ok("global_load_tr_b128 v[0:3], v[4:5], off");
    for lane in 0..32_usize {
        for j in 0..8 {
            let half = machine.lane(j / 2, lane) >> (16 * (j % 2)) & 0xffff;
            assert_eq!(half as usize, (8 * (lane / 8) + j) * 8 + lane % 8);
        }
    }
    machine.wave.set_exec(1);
    assert!(machine.run("global_load_tr_b128 v[0:3], v[4:5], off").is_err());
}

#[test]
fn loads_into_lds_go_to_slots_by_lane() {
    let mut machine = filled(Chip::Gfx950);
    machine.wave.set_pair(2, machine.buffer);
    machine.wave.sgpr[crate::wave::scalar::M0] = 128;
    machine.wave.set_exec(!2);
    machine.set32(1, |lane| 12 * lane);
    machine.ok("global_load_lds_dword v1, s[2:3] offset:16");
    let word = |machine: &Machine, at: usize| {
        machine.group.lds[at..at + 4].try_into().map(u32::from_le_bytes).expect("four bytes")
    };
    for lane in 0..64 {
        let want = if lane == 1 { 0 } else { word_at(12 * lane as u64 + 16) };
        assert_eq!(word(&machine, 144 + 4 * lane), want, "lane {lane}");
    }
    machine.ok("global_load_lds_dwordx3 v1, s[2:3]");
    assert_eq!(word(&machine, 128 + 16 * 5 + 8), word_at(12 * 5 + 8));
    assert_eq!(word(&machine, 128 + 16 * 63 + 12), 0, "the fourth word is left alone");
    machine.ok("global_load_lds_sbyte v1, s[2:3] offset:2048");
    assert_eq!(word(&machine, 2176 + 4 * 7) as i32, i32::from(byte_at(2048 + 84) as i8));
    set_resource(&mut machine, 4, [0, BUFFER as u32 / 2, 0x0002_7000]);
    machine.ok("buffer_load_dword v1, s[4:7], 0 offen lds");
    assert_eq!(word(&machine, 128 + 4 * 9), word_at(108));
}

/// Puts a resource for the machine's buffer into four scalar registers.
fn set_resource(machine: &mut Machine, first: usize, [high, records, flags]: [u32; 3]) {
    machine.wave.set_pair(first, machine.buffer | u64::from(high) << 32);
    machine.wave.sgpr[first + 2] = records;
    machine.wave.sgpr[first + 3] = flags;
}

#[test]
fn raw_buffers_drop_what_is_out_of_range() {
    for (chip, flags, load, store) in [
        (Chip::Gfx90a, 0x0002_7000, "dwordx4", "dwordx2"),
        (Chip::Gfx942, 0x0002_7000, "dwordx4", "dwordx2"),
        (Chip::Gfx1100, 0x3101_6000, "b128", "b64"),
        (Chip::Gfx1201, 0x3101_6000, "b128", "b64"),
    ] {
        let mut machine = filled(chip);
        set_resource(&mut machine, 4, [0, 200, flags]);
        machine.set32(1, |lane| 16 * lane + 4);
        machine.ok(&format!("buffer_load_{load} v[8:11], v1, s[4:7], 0 offen offset:4"));
        for lane in 0..machine.wave.lanes as usize {
            for word in 0..4 {
                let offset = 16 * lane as u64 + 8 + 4 * word;
                let want = if offset < 200 { word_at(offset) } else { 0 };
                assert_eq!(machine.lane(8 + word as usize, lane), want, "{chip} {lane} {word}");
            }
        }
        machine.ok(&format!("buffer_store_{store} v[1:2], v1, s[4:7], 0 offen offset:4"));
        assert_eq!(machine.peek32(16 * 11 + 8), 16 * 11 + 4);
        assert_eq!(machine.peek32(200), word_at(200), "{chip}");
        machine.set32(3, |_| 1);
        let hint = match chip {
            Chip::Gfx1201 => "th:TH_ATOMIC_RETURN",
            Chip::Gfx942 => "sc0",
            _ => "glc",
        };
        let add = if chip.is_cdna() { "add" } else { "add_u32" };
        let before = machine.peek32(8);
        machine.ok(&format!("buffer_atomic_{add} v3, v1, s[4:7], 0 offen offset:4 {hint}"));
        assert_eq!((machine.lane(3, 0), machine.lane(3, 31)), (before, 0), "{chip}");
        assert_eq!(machine.peek32(8), before + 1);
        machine.set32(3, |_| 1);
        machine.ok(&format!("buffer_atomic_{add} v3, v1, s[4:7], 0 offen offset:4"));
        assert_eq!(machine.lane(3, 0), 1, "not returned");
    }
}

#[test]
fn the_scalar_offset_counts_in_the_range_check_of_rdna_only() {
    for (chip, flags, text) in [
        (Chip::Gfx942, 0x0002_7000, "buffer_load_ubyte v3, v1, s[4:7], s8 offen"),
        (Chip::Gfx1100, 0x3101_6000, "buffer_load_u8 v3, v1, s[4:7], s8 offen"),
    ] {
        let mut machine = filled(chip);
        set_resource(&mut machine, 4, [0, 20, flags]);
        machine.wave.sgpr[8] = 8;
        machine.set32(1, |lane| lane);
        machine.ok(text);
        let limit = if chip.is_cdna() { 20 } else { 12 };
        for lane in 0..32 {
            let want = if lane < limit { byte_at(lane as u64 + 8) } else { 0 };
            assert_eq!(machine.lane(3, lane), u32::from(want), "{chip} lane {lane}");
        }
    }
}

#[test]
fn structured_and_swizzled_buffers() {
    let mut machine = filled(Chip::Gfx942);
    set_resource(&mut machine, 4, [24 << 16, 10, 0x0002_7000]);
    machine.set32(1, |lane| lane);
    machine.set32(2, |_| 4);
    machine.ok("buffer_load_dword v3, v[1:2], s[4:7], 0 idxen offen offset:8");
    for lane in 0..64 {
        let want = if lane < 10 { word_at(24 * lane as u64 + 12) } else { 0 };
        assert_eq!(machine.lane(3, lane), want);
    }
    // Elements of four bytes, eight indices side by side.
    set_resource(&mut machine, 4, [16 << 16 | 1 << 31, 64, 0x0002_7000 | 1 << 19]);
    machine.ok("buffer_load_dword v3, v1, s[4:7], 0 idxen offset:8");
    for lane in 0..64_u64 {
        let place = (lane / 8 * 16 + 8) * 8 + lane % 8 * 4;
        assert_eq!(machine.lane(3, lane as usize), word_at(place), "lane {lane}");
    }
    // No format: not bound.
    set_resource(&mut machine, 4, [0, 64, 0]);
    machine.ok("buffer_load_dword v3, off, s[4:7], 0");
    assert_eq!(machine.lane(3, 0), 0);
    // Every chip faults outside of allocations.
    set_resource(&mut machine, 4, [0, u32::MAX, 0x0002_7000]);
    machine.set32(1, |_| BUFFER as u32);
    assert!(machine.run("buffer_load_dword v3, v1, s[4:7], 0 offen").is_err());
}

#[test]
fn gfx90a_reaches_private_memory_through_a_resource() {
    let mut machine = Machine::new(Chip::Gfx90a);
    machine.wave.sgpr[..4].copy_from_slice(&[0, 1 << 16 | 1 << 31, u32::MAX, 0x00e8_0000]);
    // 16 bytes of each lane: the stack pointer counts those of all 64.
    machine.wave.sgpr[32] = 16 * 64;
    machine.set32(1, |lane| 500 + lane);
    machine.ok("buffer_store_dword v1, off, s[0:3], s32 offset:4");
    machine.set32(2, |_| 16);
    machine.ok("buffer_load_dword v3, v2, s[0:3], 0 offen offset:4");
    machine.ok("scratch_load_dword v4, v2, off offset:4");
    for lane in 0..64 {
        assert_eq!(machine.lane(3, lane), 500 + lane as u32);
        assert_eq!(machine.lane(4, lane), 500 + lane as u32);
    }
    machine.set32(2, |_| 256);
    assert!(machine.run("buffer_load_dword v3, v2, s[0:3], 0 offen").is_err());
}

/// Encodings of every opcode of every format that accesses memory, with operands of each kind.
fn encodings(chip: Chip) -> Vec<[u32; 3]> {
    let mut all = Vec::new();
    let ds = [0x0206_0408, 0x0200_0408, 0x0200_0008, 0x0200_0000, 0x0006_0408, 0x0000_0408];
    for op in 0..256_u32 {
        match chip {
            Chip::Gfx90a | Chip::Gfx942 | Chip::Gfx950 => {
                all.extend(ds.map(|rest| [0xd800_0000 | op << 17, rest, 0]));
                for flags in [0, 1 << 16] {
                    for (segment, scalar) in
                        [(0, 0), (0, 0x7f), (1, 0x7f), (1, 2), (2, 0x7f), (2, 2)]
                    {
                        let first = 0xdc00_0000 | (op & 0x7f) << 18 | segment << 14 | flags;
                        all.push([first, 0x0200_0408 | scalar << 16, 0]);
                    }
                    all.push([0xe000_0000 | (op & 0x7f) << 18 | flags, 0x8002_0408, 0]);
                    all.push([0xe000_0000 | (op & 0x7f) << 18 | flags | 1 << 13, 0x8002_0408, 0]);
                }
                all.push([0xe800_0000 | (op & 0xf) << 15, 0x8002_0408, 0]);
            }
            Chip::Gfx1100 | Chip::Gfx1151 => {
                all.extend(ds.map(|rest| [0xd800_0000 | op << 18, rest, 0]));
                for flags in [0, 1 << 14] {
                    for (segment, scalar) in
                        [(0, 0), (0, 0x7c), (1, 0x7c), (1, 2), (2, 0x7c), (2, 2)]
                    {
                        let first = 0xdc00_0000 | (op & 0x7f) << 18 | segment << 16 | flags;
                        all.push([first, 0x0200_0408 | scalar << 16, 0]);
                    }
                    all.push([0xe000_0000 | op << 18 | flags, 0x8002_0408, 0]);
                }
                all.push([0xe800_0000 | (op & 0xf) << 15, 0x8002_0408, 0]);
            }
            Chip::Gfx1201 => {
                all.extend(ds.map(|rest| [0xd800_0000 | op << 18, rest, 0]));
                for hint in [0, 1] {
                    for (segment, scalar) in
                        [(0, 0), (0, 0x7c), (1, 0x7c), (1, 2), (2, 0x7c), (2, 2)]
                    {
                        let first = 0xec00_0000 | segment << 24 | op << 14 | scalar;
                        let middle = 8 | hint << 20 | 4 << 23 | u32::from(segment == 1) << 17;
                        all.push([first, middle, 2]);
                    }
                    all.push([0xc400_0000 | op << 14 | 0x7c, 8 | hint << 20 | 8 << 9, 2]);
                }
            }
        }
    }
    all
}

#[test]
fn only_these_of_llvms_memory_instructions_are_unknown() {
    let mut total = 0;
    for chip in Chip::ALL {
        let mut known = std::collections::BTreeMap::<String, bool>::new();
        for words in encodings(chip) {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            let asm = decode(chip, &bytes);
            let (prefix, _) = asm.mnemonic.split_once('_').unwrap_or_default();
            if !["global", "flat", "scratch", "buffer", "tbuffer", "ds"].contains(&prefix) {
                continue;
            }
            let lanes = if chip.is_cdna() { 64 } else { 32 };
            let starts = Arc::new(Starts::every_fourth_byte(0, 16));
            let context =
                Context { chip, lanes, asm: &asm, index_of: &|_| Some(0), starts: &starts };
            let compiles = matches!(compile(&context), Some(Ok(_)));
            *known.entry(asm.mnemonic.clone()).or_default() |= compiles;
        }
        total += known.len();
        // What converts formats, and what has no documented semantics.
        let expected = |name: &str| {
            let opaque = [
                "buffer_store_lds_dword",
                "global_atomic_ordered_add_b64",
                "global_load_block",
                "global_store_block",
                "scratch_load_block",
                "scratch_store_block",
                "global_load_tr_b64",
            ];
            name.contains("_format_") || name.starts_with("ds_bvh") || opaque.contains(&name)
        };
        for (name, compiles) in known {
            assert_ne!(compiles, expected(&name), "{chip} {name}");
        }
    }
    assert!(total > 1800, "{total} mnemonics of six chips");
}

#[test]
#[ignore]
fn bench_speed() {
    let now = || {
        let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        #[allow(unsafe_code)]
        // SAFETY: plain call.
        unsafe {
            libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut t)
        };
        t.tv_sec as f64 * 1e9 + t.tv_nsec as f64
    };
    let mut machine = filled(Chip::Gfx950);
    let buffer = machine.buffer;
    machine.wave.set_pair(2, buffer);
    set_resource(&mut machine, 4, [0, BUFFER as u32, 0x0002_7000]);
    for (name, text, scale) in [
        ("contig x1 saddr", "global_load_dword v3, v1, s[2:3]", 4),
        ("contig x2 saddr", "global_load_dwordx2 v[12:13], v1, s[2:3]", 8),
        ("contig x4 saddr", "global_load_dwordx4 v[12:15], v1, s[2:3]", 16),
        ("contig x4 vaddr", "global_load_dwordx4 v[12:15], v[8:9], off", 16),
        ("flat x4 vaddr", "flat_load_dwordx4 v[12:15], v[8:9]", 16),
        ("stride64 x4 saddr", "global_load_dwordx4 v[12:15], v1, s[2:3]", 64),
        ("bcast x1 saddr", "global_load_dword v3, v1, s[2:3]", 0),
        ("stride64 x1 saddr", "global_load_dword v3, v1, s[2:3]", 64),
        ("contig ushort", "global_load_ushort v3, v1, s[2:3]", 2),
        ("contig ubyte", "global_load_ubyte v3, v1, s[2:3]", 1),
        ("short_d16_hi", "global_load_short_d16_hi v3, v1, s[2:3]", 2),
        ("store x1", "global_store_dword v1, v3, s[2:3]", 4),
        ("store x4", "global_store_dwordx4 v1, v[12:15], s[2:3]", 16),
        ("store short", "global_store_short v1, v3, s[2:3]", 2),
        ("buffer x4", "buffer_load_dwordx4 v[12:15], v1, s[4:7], 0 offen", 16),
        ("atomic add", "global_atomic_add v1, v3, s[2:3]", 4),
        ("atomic f32 same", "global_atomic_add_f32 v1, v3, s[2:3]", 0),
        ("ds_read_b32", "ds_read_b32 v3, v1", 4),
        ("ds_read_b64", "ds_read_b64 v[12:13], v1", 8),
        ("ds_read_b128", "ds_read_b128 v[12:15], v1", 16),
        ("ds_read_b128 s48", "ds_read_b128 v[12:15], v1", 48),
        ("ds_write_b128", "ds_write_b128 v1, v[12:15]", 16),
        ("ds_write_b16 s2", "ds_write_b16 v1, v3", 2),
        ("ds_read2_b32", "ds_read2_b32 v[12:13], v1 offset1:1", 8),
        ("ds_read_b64_tr_b16", "ds_read_b64_tr_b16 v[12:13], v1", 8),
        ("ds_bpermute", "ds_bpermute_b32 v12, v1, v3", 4),
        ("ds_add_u32", "ds_add_u32 v1, v3", 4),
        ("lds dma x4", "global_load_lds_dwordx4 v1, s[2:3]", 16),
        ("lds dma x1", "global_load_lds_dword v1, s[2:3]", 4),
        ("scratch x4", "scratch_load_dwordx4 v[12:15], off, off offset:16", 0),
    ] {
        machine.set32(1, |lane| lane * scale);
        machine.set64(8, |lane| buffer + lane * u64::from(scale));
        let asm = parse(text);
        let starts = Arc::new(Starts::every_fourth_byte(0, 16));
        let context = Context {
            chip: Chip::Gfx950,
            lanes: 64,
            asm: &asm,
            index_of: &|_| Some(0),
            starts: &starts,
        };
        let exec = compile(&context).expect("memory").expect("known");
        let n = 100_000;
        let mut best = f64::MAX;
        for _ in 0..4 {
            let start = now();
            for _ in 0..n {
                exec(&mut machine.wave, &mut machine.group).expect("ok");
            }
            best = best.min((now() - start) / f64::from(n));
        }
        println!("{name:22} {best:7.1} ns  {:6.1} M/s", 1e3 / best);
    }
}
