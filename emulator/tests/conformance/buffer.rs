//! Buffers, scalar memory, loads from memory into LDS, transposing loads, LDS by lane number.

use waveloom_emulator::Chip;

use crate::atomics::updates;
use crate::machine::{Bench, M0, NAMED, NULL, Random, Report, wanted};
use crate::memory::{Action, GLOBAL, Half, Memories, Space, plain_accesses, range, returning};

/// One instruction with its statement.
struct Case {
    name: String,
    text: String,
    all_lanes: bool,
    /// Sets registers; gives what the statement needs of them.
    prepare: Box<dyn Fn(&mut Bench, &mut Memories, &mut Random)>,
    apply: Box<dyn Fn(&mut Bench, &mut Memories)>,
}

const RESOURCE: usize = 8;
const OFFSET: usize = 12;
const VECTOR: usize = 2;
const DATA: usize = 20;

/// Bytes of the buffer, from the beginning of the allocation on.
const RECORDS: usize = 16 << 10;
/// Bytes of a record of a structured buffer.
const STRIDE: usize = 48;

/// The resource's last word: a 32-bit format; on RDNA with the range check in bits 28 and 29.
fn last_word(chip: Chip, structured: bool) -> u32 {
    match (chip, structured) {
        (Chip::Gfx1100 | Chip::Gfx1151, true) => 0x1100_4000,
        (Chip::Gfx1100 | Chip::Gfx1151, false) => 0x3100_4000,
        // gfx12 has a scale of the stride in bits 14 and 15.
        (Chip::Gfx1201, true) => 0x1100_1000,
        (Chip::Gfx1201, false) => 0x3100_1000,
        _ => 0x0002_0000,
    }
}

fn set_resource(bench: &mut Bench, m: &Memories, structured: bool) {
    let stride = if structured { STRIDE as u32 } else { 0 };
    bench.state.s[RESOURCE] = m.base as u32;
    bench.state.s[RESOURCE + 1] = (m.base >> 32) as u32 & 0xffff | stride << 16;
    bench.state.s[RESOURCE + 2] = (if structured { RECORDS / STRIDE } else { RECORDS }) as u32;
    bench.state.s[RESOURCE + 3] = last_word(bench.state.chip, structured);
}

/// How a buffer instruction addresses.
#[derive(Clone, Copy)]
struct Mode {
    offen: bool,
    idxen: bool,
    soffset: Option<usize>,
    offset: usize,
}

/// Offset in the buffer of a lane's access, or none out of range.
fn buffer_offset(bench: &Bench, mode: Mode, lane: usize) -> Option<usize> {
    let state = &bench.state;
    let soffset = mode.soffset.map_or(0, |index| state.s[index] as usize);
    let vector = |index: usize| state.v[VECTOR + index][lane] as usize;
    let index = if mode.idxen { vector(0) } else { 0 };
    let offset = if mode.offen { vector(usize::from(mode.idxen)) } else { 0 };
    let within = offset + mode.offset;
    if mode.idxen {
        return (index < RECORDS / STRIDE).then_some(soffset + index * STRIDE + within);
    }
    (soffset + within < RECORDS).then_some(soffset + within)
}

fn buffer_cases(chip: Chip) -> Vec<Case> {
    let mut list = Vec::new();
    let mut actions: Vec<(String, Action)> =
        plain_accesses().into_iter().map(|(name, action)| (name.to_string(), action)).collect();
    for (name, update) in updates() {
        for returns in [false, true] {
            actions.push((format!("atomic_{name}"), Action::Atomic { update, returns }));
        }
    }
    for (name, action) in actions {
        for kind in 0..6 {
            let mode = Mode {
                offen: matches!(kind, 1 | 3 | 4),
                idxen: matches!(kind, 2 | 3),
                soffset: matches!(kind, 0 | 1 | 5).then_some(OFFSET),
                offset: [0, 16, 8, 8, 4080, 32][kind],
            };
            // Every lane at one place does not suit what writes.
            if kind % 5 == 0 && !matches!(action, Action::Load { .. }) {
                continue;
            }
            list.push(buffer_case(chip, &name, action, mode));
        }
    }
    list
}

fn buffer_case(chip: Chip, action_name: &str, action: Action, mode: Mode) -> Case {
    let (bytes, rows) = match action {
        Action::Load { bytes, .. } | Action::Store { bytes, .. } => (bytes, bytes.div_ceil(4)),
        Action::Atomic { update, .. } => {
            let rows = update.bytes / 4;
            (update.bytes, if update.second { 2 * rows } else { rows })
        }
        Action::Two { .. } => unreachable!("LDS only"),
    };
    let vector = match (mode.offen, mode.idxen) {
        (false, false) => "off".to_string(),
        (true, true) => range(VECTOR, 2),
        _ => range(VECTOR, 1),
    };
    let scalar = match mode.soffset {
        Some(index) => format!("s{index}"),
        None if chip == Chip::Gfx1201 => "null".to_string(),
        None => "0".to_string(),
    };
    let resource = format!("s[{RESOURCE}:{}]", RESOURCE + 3);
    let name = format!("buffer_{action_name}");
    let mut text = format!("{name} {}, {vector}, {resource}, {scalar}", range(DATA, rows));
    if mode.idxen {
        text += " idxen";
    }
    if mode.offen {
        text += " offen";
    }
    if mode.offset > 0 {
        text += &format!(" offset:{}", mode.offset);
    }
    if matches!(action, Action::Atomic { returns: true, .. }) {
        text += returning(chip);
    }
    Case {
        name,
        text,
        all_lanes: false,
        prepare: Box::new(move |bench, m, random| {
            set_resource(bench, m, mode.idxen);
            bench.state.s[OFFSET] = 16 * random.below(64) as u32;
            for lane in 0..64 {
                // Some lanes lie beyond the end.
                let slot = lane * 3 % 64;
                let out = random.once_in(8);
                let at = if out { RECORDS + 64 * slot } else { 2048 + 128 * slot } as u32;
                if mode.idxen {
                    let index = if out { RECORDS / STRIDE + slot } else { slot * 5 };
                    bench.state.v[VECTOR][lane] = index as u32;
                    bench.state.v[VECTOR + 1][lane] = 16;
                } else {
                    bench.state.v[VECTOR][lane] = at;
                }
                for row in 0..4 {
                    bench.state.v[DATA + row][lane] = random.bits() as u32;
                }
                if let Action::Atomic { update, .. } = action {
                    let rows = update.bytes / 4;
                    let old = (update.sample)(random);
                    let near = !update.float && random.once_in(3);
                    let data = if near { old } else { (update.sample)(random) };
                    bench.state.set(DATA, rows, lane, data);
                    if update.second {
                        let same = random.once_in(2);
                        let second = if same { old } else { (update.sample)(random) };
                        bench.state.set(DATA + rows, rows, lane, second);
                    }
                    if let Some(at) = buffer_offset(bench, mode, lane)
                        && lane < bench.state.lanes
                    {
                        m.write(Space::Global, 0, at, update.bytes, old);
                    }
                }
            }
        }),
        apply: Box::new(move |bench, m| {
            for lane in 0..bench.state.lanes {
                if bench.state.on(lane) {
                    let at = buffer_offset(bench, mode, lane);
                    buffer_lane(bench, m, action, lane, at, bytes);
                }
            }
        }),
    }
}

/// What one lane's access does; out of range it loads zero and stores nothing.
fn buffer_lane(
    bench: &mut Bench,
    m: &mut Memories,
    action: Action,
    lane: usize,
    at: Option<usize>,
    bytes: usize,
) {
    match action {
        Action::Load { signed, half, .. } => {
            for word in 0..bytes.div_ceil(4) {
                let size = bytes.min(4);
                let raw = at.map_or(0, |at| m.read(Space::Global, 0, at + 4 * word, size));
                let value = extended(raw as u32, size, signed);
                let place = &mut bench.state.v[DATA + word][lane];
                *place = match half {
                    Half::Whole => value,
                    Half::Low => *place & 0xffff_0000 | value & 0xffff,
                    Half::High => *place & 0xffff | value << 16,
                };
            }
        }
        Action::Store { high, .. } => {
            let Some(at) = at else { return };
            for word in 0..bytes.div_ceil(4) {
                let value = u64::from(bench.state.v[DATA + word][lane]);
                let value = if high { value >> 16 } else { value };
                m.write(Space::Global, 0, at + 4 * word, bytes.min(4), value);
            }
        }
        Action::Atomic { update, returns } => {
            let rows = bytes / 4;
            let old = at.map_or(0, |at| m.read(Space::Global, 0, at, bytes));
            let data = bench.state.get(DATA, rows, lane);
            let second = bench.state.get(DATA + rows, rows, lane);
            if let Some(at) = at {
                let new = (update.f)(bench.state.chip, old, data, second);
                m.write(Space::Global, 0, at, bytes, new);
            }
            if returns {
                bench.state.set(DATA, rows, lane, old);
            }
        }
        Action::Two { .. } => unreachable!("LDS only"),
    }
}

fn extended(value: u32, bytes: usize, signed: bool) -> u32 {
    let bits = 8 * bytes as u32;
    let negative = signed && bits < 32 && value >> (bits - 1) & 1 == 1;
    if negative { value | u32::MAX << bits } else { value }
}

/// Scalar loads: registers, bytes, sign.
const SCALAR_LOADS: [(&str, usize, usize, bool); 16] = [
    ("load_dword", 1, 4, false),
    ("load_dwordx2", 2, 4, false),
    ("load_dwordx4", 4, 4, false),
    ("load_dwordx8", 8, 4, false),
    ("load_dwordx16", 16, 4, false),
    ("load_b32", 1, 4, false),
    ("load_b64", 2, 4, false),
    ("load_b96", 3, 4, false),
    ("load_b128", 4, 4, false),
    ("load_b256", 8, 4, false),
    ("load_b512", 16, 4, false),
    ("load_u8", 1, 1, false),
    ("load_i8", 1, 1, true),
    ("load_u16", 1, 2, false),
    ("load_i16", 1, 2, true),
    ("", 0, 0, false),
];

fn scalar_cases(chip: Chip) -> Vec<Case> {
    const BASE: usize = 8;
    const DST: usize = 20;
    let mut list = Vec::new();
    for (name, count, bytes, signed) in SCALAR_LOADS.into_iter().filter(|row| row.1 > 0) {
        for buffer in [false, true] {
            let whole = format!("s_{}{name}", if buffer { "buffer_" } else { "" });
            let base = format!("s[{BASE}:{}]", BASE + if buffer { 3 } else { 1 });
            let dst = if count == 1 {
                format!("s{DST}")
            } else {
                format!("s[{DST}:{}]", DST + count - 1)
            };
            let forms: [(&str, i64, bool); 6] = [
                (", 0x0", 0, false),
                (", 0x14", 0x14, false),
                (", -0x10", -0x10, false),
                (", s12", 0, true),
                (", s12 offset:0x18", 0x18, true),
                (", null", 0, false),
            ];
            for (suffix, immediate, register) in forms {
                if buffer && immediate < 0 || suffix == ", null" && !chip.is_rdna() {
                    continue;
                }
                list.push(Case {
                    name: whole.clone(),
                    text: format!("{whole} {dst}, {base}{suffix}"),
                    all_lanes: false,
                    prepare: Box::new(move |bench, m, random| {
                        if buffer {
                            set_resource(bench, m, false);
                        } else {
                            let base = m.base + 1024 + 4 * random.below(100) as u64;
                            bench.state.set_pair(BASE, base);
                        }
                        let out = buffer && random.once_in(4);
                        let near = 4 * random.below(512) as u32;
                        bench.state.s[12] = if out { RECORDS as u32 + near } else { near };
                    }),
                    apply: Box::new(move |bench, m| {
                        let extra = if register { i64::from(bench.state.s[12]) } else { 0 };
                        let offset = immediate + extra;
                        let start =
                            if buffer { 0 } else { (bench.state.pair(BASE) - m.base) as i64 };
                        for index in 0..count {
                            let at = (start + offset) as usize + 4 * index;
                            let inside = !buffer || at + bytes <= RECORDS;
                            let raw = if inside { m.read(Space::Global, 0, at, bytes) } else { 0 };
                            bench.state.s[DST + index] = extended(raw as u32, bytes, signed);
                        }
                    }),
                });
            }
        }
    }
    list
}

/// Loads from memory straight into LDS.
fn direct_cases(chip: Chip) -> Vec<Case> {
    let sizes: [(&str, &str, usize, bool); 7] = [
        ("dword", "dword", 4, false),
        ("ubyte", "ubyte", 1, false),
        ("sbyte", "sbyte", 1, true),
        ("ushort", "ushort", 2, false),
        ("sshort", "sshort", 2, true),
        ("dwordx3", "dwordx3", 12, false),
        ("dwordx4", "dwordx4", 16, false),
    ];
    let mut list = Vec::new();
    for (global, buffer, bytes, signed) in sizes {
        for offset in [0_usize, 64] {
            let suffix = if offset > 0 { format!(" offset:{offset}") } else { String::new() };
            let slot = if bytes > 4 { 16 } else { 4 };
            let words = bytes.div_ceil(4);
            let m0 = move |bench: &mut Bench, random: &mut Random| {
                bench.state.s[M0] = 1024 + 16 * random.below(64) as u32;
            };
            let store = move |bench: &mut Bench, m: &mut Memories, lane: usize, at: usize| {
                let place = bench.state.s[M0] as usize + offset + slot * lane;
                for word in 0..words {
                    let raw = m.read(Space::Global, 0, at + 4 * word, bytes.min(4));
                    let value = extended(raw as u32, bytes.min(4), signed);
                    m.write(Space::Lds, 0, place + 4 * word, 4, value.into());
                }
            };
            let name = format!("global_load_lds_{global}");
            list.push(Case {
                text: format!("{name} {}, off{suffix}", range(VECTOR, 2)),
                name,
                all_lanes: false,
                prepare: Box::new(move |bench, m, random| {
                    m0(bench, random);
                    for lane in 0..64 {
                        let at = m.base + 4 * random.below(4000) as u64;
                        bench.state.set(VECTOR, 2, lane, at);
                    }
                }),
                apply: Box::new(move |bench, m| {
                    for lane in (0..bench.state.lanes)
                        .filter(|lane| bench.state.on(*lane))
                        .collect::<Vec<_>>()
                    {
                        let at = bench.state.get(VECTOR, 2, lane) - m.base;
                        store(bench, m, lane, at as usize + offset);
                    }
                }),
            });
            let name = format!("buffer_load_{buffer}");
            let resource = format!("s[{RESOURCE}:{}]", RESOURCE + 3);
            list.push(Case {
                text: format!("{name} v{VECTOR}, {resource}, s{OFFSET} offen{suffix} lds"),
                name,
                all_lanes: false,
                prepare: Box::new(move |bench, m, random| {
                    m0(bench, random);
                    set_resource(bench, m, false);
                    bench.state.s[OFFSET] = 128;
                    for lane in 0..64 {
                        bench.state.v[VECTOR][lane] = 4 * random.below(2000) as u32;
                    }
                }),
                apply: Box::new(move |bench, m| {
                    for lane in (0..bench.state.lanes)
                        .filter(|lane| bench.state.on(*lane))
                        .collect::<Vec<_>>()
                    {
                        let at = bench.state.v[VECTOR][lane] as usize + 128 + offset;
                        store(bench, m, lane, at);
                    }
                }),
            });
        }
    }
    if !chip.is_cdna() {
        list.clear();
    }
    list
}

/// Loads that transpose: groups of lanes hold the rows of a matrix, each lane gets a column.
fn transposing_cases() -> Vec<Case> {
    let forms: [(&str, bool, usize, usize, usize); 6] = [
        ("ds_read_b64_tr_b16", true, 16, 2, 16),
        ("ds_read_b64_tr_b8", true, 8, 2, 16),
        ("ds_read_b64_tr_b4", true, 4, 2, 16),
        ("ds_read_b96_tr_b6", true, 6, 3, 16),
        ("global_load_tr_b128", false, 16, 4, 8),
        ("", false, 0, 0, 0),
    ];
    let mut list = Vec::new();
    for (name, lds, bits, words, columns) in forms.into_iter().filter(|form| form.2 > 0) {
        let (address, suffix) = if lds {
            (range(VECTOR, 1), " offset:32")
        } else {
            (range(VECTOR, 2), ", off offset:32")
        };
        list.push(Case {
            name: name.to_string(),
            text: format!("{name} {}, {address}{suffix}", range(DATA, words)),
            all_lanes: true,
            prepare: Box::new(move |bench, m, random| {
                for lane in 0..64 {
                    let at = 16 * random.below(1000) as u64;
                    if lds {
                        bench.state.v[VECTOR][lane] = at as u32;
                    } else {
                        bench.state.set(VECTOR, 2, lane, m.base + at);
                    }
                }
            }),
            apply: Box::new(move |bench, m| {
                let lanes = bench.state.lanes;
                let count = 32 * words / bits;
                let mut elements = Vec::new();
                for lane in 0..lanes {
                    let at = if lds {
                        bench.state.v[VECTOR][lane] as usize
                    } else {
                        (bench.state.get(VECTOR, 2, lane) - m.base) as usize
                    };
                    let space = if lds { Space::Lds } else { Space::Global };
                    let low = m.read(space, 0, at + 32, 8);
                    let high =
                        if words > 2 { m.read(space, 0, at + 40, 4 * (words - 2)) } else { 0 };
                    let all = u128::from(low) | u128::from(high) << 64;
                    elements.extend((0..count).map(|e| (all >> (bits * e)) & ((1 << bits) - 1)));
                }
                for lane in 0..lanes {
                    let (group, column) = (lane / columns * columns, lane % columns);
                    let value = (0..count).fold(0_u128, |all, row| {
                        all | elements[group * count + row * columns + column] << (bits * row)
                    });
                    for word in 0..words {
                        bench.state.v[DATA + word][lane] = (value >> (32 * word)) as u32;
                    }
                }
            }),
        });
    }
    list
}

/// LDS addressed by M0 and the lane's number; counters.
fn by_lane_cases() -> Vec<Case> {
    let mut list = Vec::new();
    for (read, write) in [
        ("ds_read_addtid_b32", "ds_write_addtid_b32"),
        ("ds_load_addtid_b32", "ds_store_addtid_b32"),
    ] {
        for offset in [0_usize, 256] {
            let suffix = if offset > 0 { format!(" offset:{offset}") } else { String::new() };
            let m0 = |bench: &mut Bench, _: &mut Memories, random: &mut Random| {
                bench.state.s[M0] = 4 * random.below(2000) as u32;
            };
            let place = move |bench: &Bench, lane: usize| {
                (bench.state.s[M0] & 0xffff) as usize + offset + 4 * lane
            };
            list.push(Case {
                name: read.to_string(),
                text: format!("{read} v{DATA}{suffix}"),
                all_lanes: false,
                prepare: Box::new(m0),
                apply: Box::new(move |bench, m| {
                    for lane in 0..bench.state.lanes {
                        if bench.state.on(lane) {
                            let value = m.read(Space::Lds, 0, place(bench, lane), 4);
                            bench.state.v[DATA][lane] = value as u32;
                        }
                    }
                }),
            });
            list.push(Case {
                name: write.to_string(),
                text: format!("{write} v{DATA}{suffix}"),
                all_lanes: false,
                prepare: Box::new(m0),
                apply: Box::new(move |bench, m| {
                    for lane in 0..bench.state.lanes {
                        if bench.state.on(lane) {
                            let value = bench.state.v[DATA][lane];
                            m.write(Space::Lds, 0, place(bench, lane), 4, value.into());
                        }
                    }
                }),
            });
        }
    }
    list
}

/// Global memory addressed by a scalar base and the lane's number.
fn global_by_lane_cases() -> Vec<Case> {
    const BASE: usize = 8;
    let mut list = Vec::new();
    for (load, store) in [
        ("global_load_addtid_b32", "global_store_addtid_b32"),
        ("global_load_dword_addtid", "global_store_dword_addtid"),
    ] {
        for offset in [0_i64, 1028, -512] {
            let suffix = if offset == 0 { String::new() } else { format!(" offset:{offset}") };
            let place = move |bench: &Bench, m: &Memories, lane: usize| {
                let base = bench.state.pair(BASE).wrapping_add(offset as u64);
                (base - m.base) as usize + 4 * lane
            };
            let case = |name: &str, apply: Box<dyn Fn(&mut Bench, &mut Memories)>| Case {
                name: name.to_string(),
                text: format!("{name} v{DATA}, s[{BASE}:{}]{suffix}", BASE + 1),
                all_lanes: false,
                prepare: Box::new(|bench, m, random| {
                    bench.state.set_pair(BASE, m.base + 1024 + 4 * random.below(1000) as u64);
                }),
                apply,
            };
            list.push(case(
                load,
                Box::new(move |bench, m| {
                    for lane in (0..bench.state.lanes)
                        .filter(|lane| bench.state.on(*lane))
                        .collect::<Vec<_>>()
                    {
                        let value = m.read(Space::Global, 0, place(bench, m, lane), 4);
                        bench.state.v[DATA][lane] = value as u32;
                    }
                }),
            ));
            list.push(case(
                store,
                Box::new(move |bench, m| {
                    for lane in (0..bench.state.lanes).filter(|lane| bench.state.on(*lane)) {
                        let at = place(bench, m, lane);
                        m.write(Space::Global, 0, at, 4, bench.state.v[DATA][lane].into());
                    }
                }),
            ));
        }
    }
    list
}

/// Loads from private memory straight into LDS.
fn private_direct_cases() -> Vec<Case> {
    const SCALAR: usize = 8;
    let sizes = [
        ("dword", 4, false),
        ("ubyte", 1, false),
        ("sbyte", 1, true),
        ("ushort", 2, false),
        ("sshort", 2, true),
    ];
    let mut list = Vec::new();
    for (size, bytes, signed) in sizes {
        for (vector, scalar, offset) in
            [(true, false, 0_usize), (true, false, 64), (false, true, 64), (true, true, 20)]
        {
            let name = format!("scratch_load_lds_{size}");
            let address = if vector { format!("v{VECTOR}") } else { "off".to_string() };
            let base = if scalar { format!("s{SCALAR}") } else { "off".to_string() };
            let suffix = if offset > 0 { format!(" offset:{offset}") } else { String::new() };
            list.push(Case {
                text: format!("{name} {address}, {base}{suffix}"),
                name,
                all_lanes: false,
                prepare: Box::new(|bench, _, random| {
                    bench.state.s[M0] = 1024 + 4 * random.below(256) as u32;
                    bench.state.s[SCALAR] = 4 * random.below(128) as u32;
                    for lane in 0..64 {
                        bench.state.v[VECTOR][lane] = 4 * random.below(256) as u32;
                    }
                }),
                apply: Box::new(move |bench, m| {
                    for lane in (0..bench.state.lanes).filter(|lane| bench.state.on(*lane)) {
                        let register = if vector { bench.state.v[VECTOR][lane] } else { 0 };
                        let base = if scalar { bench.state.s[SCALAR] } else { 0 };
                        let from = (register + base) as usize + offset;
                        let raw = m.read(Space::Scratch, lane, from, bytes);
                        let value = extended(raw as u32, bytes, signed);
                        // The immediate counts on both sides.
                        let to = bench.state.s[M0] as usize + offset + 4 * lane;
                        m.write(Space::Lds, 0, to, 4, value.into());
                    }
                }),
            });
        }
    }
    list
}

fn run(
    bench: &mut Bench,
    m: &mut Memories,
    line: usize,
    case: &Case,
    random: &mut Random,
) -> Result<(), String> {
    for wave in 0..4 {
        let exec = [u64::MAX, random.bits(), random.bits() & random.bits(), 0][wave];
        bench.set_exec(if case.all_lanes { u64::MAX } else { exec });
        bench.state.mode = 0xf0;
        for row in DATA..DATA + 8 {
            for lane in 0..64 {
                bench.state.v[row][lane] = random.bits() as u32;
            }
        }
        (case.prepare)(bench, m, random);
        bench.state.s[NULL] = 0;
        bench.sync_rows(0, 32);
        m.sync(bench);
        bench.sync_scalars();
        (case.apply)(bench, m);
        bench.step(line)?;
        let rows = if wave == 0 { 0..NAMED } else { 0..32 };
        if let Some(difference) = bench.difference(rows).or_else(|| m.difference(bench)) {
            return Err(format!("{difference}, exec {:#x}", bench.state.exec()));
        }
    }
    Ok(())
}

fn cases(chip: Chip) -> Vec<Case> {
    let mut list = buffer_cases(chip);
    list.extend(scalar_cases(chip));
    list.extend(direct_cases(chip));
    list.extend(transposing_cases());
    list.extend(by_lane_cases());
    list.extend(global_by_lane_cases());
    list.extend(private_direct_cases());
    list
}

/// Lines of this file, for the list of what is covered.
pub fn lines(chip: Chip) -> Vec<String> {
    cases(chip).into_iter().map(|case| case.text).collect()
}

#[test]
fn buffers_scalar_memory_and_transfers() {
    let report = Report::default();
    for chip in Chip::ALL {
        let mut list = cases(chip);
        list.retain(|case| wanted(&case.name));
        let lines: Vec<String> = list.iter().map(|case| case.text.clone()).collect();
        let lanes = if chip.is_cdna() { 64 } else { 32 };
        let mut bench = Bench::new(chip, lanes, &lines);
        let mut memories = Memories::new(&mut bench);
        for (line, case) in list.iter().enumerate() {
            if !bench.has(line) {
                continue;
            }
            let mut random = Random::of(&case.text);
            if let Err(text) = run(&mut bench, &mut memories, line, case, &mut random) {
                report.fail(chip, &case.name, || format!("{}: {text}", case.text));
                bench.resync();
            }
            report.count();
        }
    }
    report.finish(if std::env::var("CONFORM_ONLY").is_ok() { 0 } else { 800 });
}

const _: () = assert!(RECORDS < GLOBAL);
