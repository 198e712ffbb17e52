//! Global, flat, scratch and local memory: loads, stores and atomics of every width.

use waveloom_emulator::Chip;
use waveloom_emulator::memory::{PRIVATE_APERTURE, SHARED_APERTURE};

use crate::atomics::{Update, updates};
use crate::machine::{AGPR, Bench, NAMED, Random, Report, wanted};

/// Bytes of the allocation.
pub const GLOBAL: usize = 32 << 10;
/// Bytes of LDS.
pub const LDS: usize = 64 << 10;
/// Bytes of private memory of a lane.
pub const PRIVATE: usize = 2 << 10;
/// Where in private memory the accesses begin: room for negative parts of an address.
const PRIVATE_LOW: usize = 640;

/// Memory as it should be, beside the emulator's.
pub struct Memories {
    /// Address of the allocation.
    pub base: u64,
    /// Its bytes.
    pub global: Vec<u8>,
    /// LDS.
    pub lds: Vec<u8>,
    /// Private memory, lane after lane.
    pub scratch: Vec<u8>,
}

/// The places that accesses go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    Global,
    Lds,
    Scratch,
}

impl Memories {
    /// Random bytes everywhere, and the same in the emulator.
    pub fn new(bench: &mut Bench) -> Memories {
        let mut random = Random(11);
        let mut fill =
            |size: usize| -> Vec<u8> { (0..size).map(|_| random.bits() as u8).collect() };
        let (global, lds) = (fill(GLOBAL), fill(LDS));
        let scratch = fill(PRIVATE * 64);
        let base = bench.group.memory.allocate(GLOBAL as u64, "test").expect("memory");
        let memories = Memories { base, global, lds, scratch };
        memories.sync(bench);
        memories
    }

    /// Gives the emulator these bytes.
    pub fn sync(&self, bench: &mut Bench) {
        bench.group.memory.write(self.base, &self.global).expect("an allocation");
        bench.group.lds.clone_from(&self.lds);
        bench.wave.scratch.clone_from(&self.scratch);
        bench.wave.scratch_stride = PRIVATE as u32;
    }

    /// The bytes of a space from an offset on; of scratch, a lane's.
    pub fn bytes(&mut self, space: Space, lane: usize, offset: usize) -> &mut [u8] {
        match space {
            Space::Global => &mut self.global[offset..],
            Space::Lds => &mut self.lds[offset..],
            Space::Scratch => &mut self.scratch[lane * PRIVATE..][..PRIVATE][offset..],
        }
    }

    /// A little-endian number.
    pub fn read(&mut self, space: Space, lane: usize, offset: usize, bytes: usize) -> u64 {
        let bytes = &self.bytes(space, lane, offset)[..bytes];
        bytes.iter().rev().fold(0, |all, byte| all << 8 | u64::from(*byte))
    }

    /// Writes a little-endian number.
    pub fn write(&mut self, space: Space, lane: usize, offset: usize, bytes: usize, value: u64) {
        let place = &mut self.bytes(space, lane, offset)[..bytes];
        place.copy_from_slice(&value.to_le_bytes()[..bytes]);
    }

    /// The first byte that differs.
    pub fn difference(&self, bench: &Bench) -> Option<String> {
        let mut global = vec![0; self.global.len()];
        bench.group.memory.read(self.base, &mut global).expect("an allocation");
        let pairs = [
            ("global", &global, &self.global),
            ("LDS", &bench.group.lds, &self.lds),
            ("scratch", &bench.wave.scratch, &self.scratch),
        ];
        pairs.into_iter().find_map(|(name, got, want)| {
            if got == want {
                return None;
            }
            let at = (0..want.len()).find(|at| got[*at] != want[*at])?;
            Some(format!("{name} byte {at:#x}: {:#04x}, should be {:#04x}", got[at], want[at]))
        })
    }
}

/// What an access does with the bytes.
#[derive(Clone, Copy)]
pub enum Action {
    /// Loads; sign-extended or not.
    Load { bytes: usize, signed: bool, half: Half },
    /// Stores the low or the high half's first bytes.
    Store { bytes: usize, high: bool },
    /// Reads, computes and writes at once.
    Atomic { update: Update, returns: bool },
    /// Two loads, stores or exchanges at two offsets.
    Two { bytes: usize, kind: Double, step: usize },
}

/// The part of a register that a short load writes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Half {
    Whole,
    Low,
    High,
}

/// What is done twice.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Double {
    Load,
    Store,
    Exchange,
}

/// How the address is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    /// 64 bits of each lane.
    Vector64,
    /// 64 scalar bits and 32 bits of each lane.
    Scalar64,
    /// 32 bits of each lane.
    Vector32,
    /// 32 scalar bits.
    Scalar32,
    /// 32 scalar bits and 32 of each lane.
    Both32,
    /// The offset alone.
    Offset,
}

struct Form {
    name: String,
    text: String,
    space: Space,
    flat: bool,
    mode: Mode,
    action: Action,
    offset: i64,
    /// Second offset of a double access, in steps.
    offset2: i64,
    dst: usize,
    data: usize,
}

const VECTOR: usize = 2;
const SCALAR: usize = 8;
const DATA: usize = 20;
const DATA2: usize = 24;
const DST: usize = 30;

/// A range of vector registers.
pub fn range(row: usize, rows: usize) -> String {
    let (file, row) = if row < AGPR { ("v", row) } else { ("a", row - AGPR) };
    if rows == 1 { format!("{file}{row}") } else { format!("{file}[{row}:{}]", row + rows - 1) }
}

/// Loads and stores by both generations' names.
pub fn plain_accesses() -> Vec<(&'static str, Action)> {
    use Half::{High, Low, Whole};
    let load = |bytes, signed, half| Action::Load { bytes, signed, half };
    let store = |bytes, high| Action::Store { bytes, high };
    let mut list = Vec::new();
    for name in ["load_dword", "load_b32"] {
        list.push((name, load(4, false, Whole)));
    }
    let loads: [(&[&str], usize, bool, Half); 14] = [
        (&["load_dwordx2", "load_b64"], 8, false, Whole),
        (&["load_dwordx3", "load_b96"], 12, false, Whole),
        (&["load_dwordx4", "load_b128"], 16, false, Whole),
        (&["load_ubyte", "load_u8"], 1, false, Whole),
        (&["load_sbyte", "load_i8"], 1, true, Whole),
        (&["load_ushort", "load_u16"], 2, false, Whole),
        (&["load_sshort", "load_i16"], 2, true, Whole),
        (&["load_ubyte_d16", "load_d16_u8"], 1, false, Low),
        (&["load_ubyte_d16_hi", "load_d16_hi_u8"], 1, false, High),
        (&["load_sbyte_d16", "load_d16_i8"], 1, true, Low),
        (&["load_sbyte_d16_hi", "load_d16_hi_i8"], 1, true, High),
        (&["load_short_d16", "load_d16_b16"], 2, false, Low),
        (&["load_short_d16_hi", "load_d16_hi_b16"], 2, false, High),
        (&[], 0, false, Whole),
    ];
    for (names, bytes, signed, half) in loads {
        names.iter().for_each(|name| list.push((name, load(bytes, signed, half))));
    }
    let stores: [(&[&str], usize, bool); 8] = [
        (&["store_dword", "store_b32"], 4, false),
        (&["store_dwordx2", "store_b64"], 8, false),
        (&["store_dwordx3", "store_b96"], 12, false),
        (&["store_dwordx4", "store_b128"], 16, false),
        (&["store_byte", "store_b8"], 1, false),
        (&["store_short", "store_b16"], 2, false),
        (&["store_byte_d16_hi", "store_d16_hi_b8"], 1, true),
        (&["store_short_d16_hi", "store_d16_hi_b16"], 2, true),
    ];
    for (names, bytes, high) in stores {
        names.iter().for_each(|name| list.push((name, store(bytes, high))));
    }
    list
}

/// Loads, stores and exchanges of LDS.
fn local_accesses() -> Vec<(&'static str, Action)> {
    use Half::{High, Low, Whole};
    let load = |bytes, signed, half| Action::Load { bytes, signed, half };
    let store = |bytes, high| Action::Store { bytes, high };
    let two = |bytes, kind, step| Action::Two { bytes, kind, step };
    let mut list = Vec::new();
    let mut both = |old: &'static str, new: &'static str, action: Action| {
        list.push((old, action));
        list.push((new, action));
    };
    both("ds_read_b32", "ds_load_b32", load(4, false, Whole));
    both("ds_read_b64", "ds_load_b64", load(8, false, Whole));
    both("ds_read_b96", "ds_load_b96", load(12, false, Whole));
    both("ds_read_b128", "ds_load_b128", load(16, false, Whole));
    both("ds_read_u8", "ds_load_u8", load(1, false, Whole));
    both("ds_read_i8", "ds_load_i8", load(1, true, Whole));
    both("ds_read_u16", "ds_load_u16", load(2, false, Whole));
    both("ds_read_i16", "ds_load_i16", load(2, true, Whole));
    both("ds_read_u8_d16", "ds_load_u8_d16", load(1, false, Low));
    both("ds_read_u8_d16_hi", "ds_load_u8_d16_hi", load(1, false, High));
    both("ds_read_i8_d16", "ds_load_i8_d16", load(1, true, Low));
    both("ds_read_i8_d16_hi", "ds_load_i8_d16_hi", load(1, true, High));
    both("ds_read_u16_d16", "ds_load_u16_d16", load(2, false, Low));
    both("ds_read_u16_d16_hi", "ds_load_u16_d16_hi", load(2, false, High));
    both("ds_write_b8", "ds_store_b8", store(1, false));
    both("ds_write_b16", "ds_store_b16", store(2, false));
    both("ds_write_b32", "ds_store_b32", store(4, false));
    both("ds_write_b64", "ds_store_b64", store(8, false));
    both("ds_write_b96", "ds_store_b96", store(12, false));
    both("ds_write_b128", "ds_store_b128", store(16, false));
    both("ds_write_b8_d16_hi", "ds_store_b8_d16_hi", store(1, true));
    both("ds_write_b16_d16_hi", "ds_store_b16_d16_hi", store(2, true));
    both("ds_read2_b32", "ds_load_2addr_b32", two(4, Double::Load, 4));
    both("ds_read2_b64", "ds_load_2addr_b64", two(8, Double::Load, 8));
    both("ds_read2st64_b32", "ds_load_2addr_stride64_b32", two(4, Double::Load, 256));
    both("ds_read2st64_b64", "ds_load_2addr_stride64_b64", two(8, Double::Load, 512));
    both("ds_write2_b32", "ds_store_2addr_b32", two(4, Double::Store, 4));
    both("ds_write2_b64", "ds_store_2addr_b64", two(8, Double::Store, 8));
    both("ds_write2st64_b32", "ds_store_2addr_stride64_b32", two(4, Double::Store, 256));
    both("ds_write2st64_b64", "ds_store_2addr_stride64_b64", two(8, Double::Store, 512));
    both("ds_wrxchg2_rtn_b32", "ds_storexchg_2addr_rtn_b32", two(4, Double::Exchange, 4));
    both("ds_wrxchg2_rtn_b64", "ds_storexchg_2addr_rtn_b64", two(8, Double::Exchange, 8));
    let (old, new) = ("ds_wrxchg2st64_rtn_b32", "ds_storexchg_2addr_stride64_rtn_b32");
    both(old, new, two(4, Double::Exchange, 256));
    let (old, new) = ("ds_wrxchg2st64_rtn_b64", "ds_storexchg_2addr_stride64_rtn_b64");
    both(old, new, two(8, Double::Exchange, 512));
    list
}

/// Registers of an action's data, second data and result.
fn registers(action: Action) -> (usize, usize, usize) {
    match action {
        Action::Load { bytes, .. } => (0, 0, bytes.div_ceil(4)),
        Action::Store { bytes, .. } => (bytes.div_ceil(4), 0, 0),
        Action::Atomic { update, returns } => {
            let rows = update.bytes / 4;
            let second = if update.second { rows } else { 0 };
            (rows, second, if returns { rows } else { 0 })
        }
        Action::Two { bytes, kind, .. } => match kind {
            Double::Load => (0, 0, bytes / 2),
            Double::Store => (bytes / 4, bytes / 4, 0),
            Double::Exchange => (bytes / 4, bytes / 4, bytes / 2),
        },
    }
}

/// What makes an atomic of memory give the old value back.
pub fn returning(chip: Chip) -> &'static str {
    match chip {
        Chip::Gfx942 | Chip::Gfx950 => " sc0",
        Chip::Gfx1201 => " th:TH_ATOMIC_RETURN",
        _ => " glc",
    }
}

/// Hints for caches, which change nothing here.
fn hints(chip: Chip, load: bool) -> &'static [&'static str] {
    match (chip, load) {
        (Chip::Gfx90a, _) => &["", " glc", " slc"],
        (Chip::Gfx942 | Chip::Gfx950, _) => &["", " sc0 nt", " sc0 sc1", " sc1 nt"],
        (Chip::Gfx1100 | Chip::Gfx1151, _) => &["", " glc", " slc dlc"],
        (Chip::Gfx1201, true) => &["", " th:TH_LOAD_NT scope:SCOPE_SYS", " th:TH_LOAD_LU"],
        (Chip::Gfx1201, false) => &["", " th:TH_STORE_NT scope:SCOPE_DEV"],
    }
}

fn memory_forms(chip: Chip) -> Vec<Form> {
    let mut list = Vec::new();
    let mut actions: Vec<(String, Action)> =
        plain_accesses().into_iter().map(|(name, action)| (name.to_string(), action)).collect();
    for (name, update) in updates() {
        for returns in [false, true] {
            actions.push((format!("atomic_{name}"), Action::Atomic { update, returns }));
        }
    }
    let modes = [
        ("global", Mode::Vector64),
        ("global", Mode::Scalar64),
        ("flat", Mode::Vector64),
        ("scratch", Mode::Vector32),
        ("scratch", Mode::Scalar32),
        ("scratch", Mode::Both32),
        ("scratch", Mode::Offset),
    ];
    for (action_name, action) in actions {
        for (kind, mode) in modes {
            let offsets: &[i64] = match kind {
                "scratch" => &[0, 16, -64, 255],
                "flat" => &[0, 16, 4095, -32],
                _ => &[0, 16, -32, 4095, -4096, 70_000],
            };
            let atomic = matches!(action, Action::Atomic { .. });
            let load = matches!(action, Action::Load { .. });
            let all = if atomic { &[""][..] } else { hints(chip, load) };
            // An offset alone cannot be negative.
            let fits = |offset: &&i64| mode != Mode::Offset || **offset >= 0;
            for (index, offset) in offsets.iter().filter(fits).enumerate() {
                let hint = all[index % all.len()];
                list.push(memory_form(chip, kind, mode, &action_name, action, *offset, hint));
            }
        }
    }
    // The accumulation registers of CDNA hold data as well.
    if chip.is_cdna() {
        for (name, action) in plain_accesses() {
            let mode = Mode::Vector64;
            let mut form = memory_form(chip, "global", mode, name, action, 0, "");
            let (data, _, result) = registers(action);
            (form.data, form.dst) = (AGPR + DATA, AGPR + DST);
            let rows = range(AGPR + if data > 0 { DATA } else { DST }, data.max(result));
            let address = range(VECTOR, 2);
            form.text = if data > 0 {
                format!("global_{name} {address}, {rows}, off")
            } else {
                format!("global_{name} {rows}, {address}, off")
            };
            list.push(form);
        }
    }
    list
}

fn memory_form(
    chip: Chip,
    kind: &str,
    mode: Mode,
    action_name: &str,
    action: Action,
    offset: i64,
    hint: &str,
) -> Form {
    let (data, second, result) = registers(action);
    let address = match mode {
        Mode::Vector64 => range(VECTOR, 2),
        Mode::Scalar64 | Mode::Vector32 | Mode::Both32 => range(VECTOR, 1),
        _ => "off".to_string(),
    };
    let scalar = match mode {
        Mode::Scalar64 => Some(format!("s[{SCALAR}:{}]", SCALAR + 1)),
        Mode::Scalar32 | Mode::Both32 => Some(format!("s{SCALAR}")),
        _ if kind == "flat" => None,
        _ => Some("off".to_string()),
    };
    let mut operands = Vec::new();
    let stored = (data > 0).then(|| range(DATA, data + second));
    if result > 0 {
        operands.push(range(DST, result));
    }
    operands.push(address);
    operands.extend(stored);
    operands.extend(scalar);
    let mut text = format!("{kind}_{action_name} {}", operands.join(", "));
    if offset != 0 {
        text += &format!(" offset:{offset}");
    }
    if matches!(action, Action::Atomic { returns: true, .. }) {
        text += returning(chip);
    }
    text += hint;
    let space = if kind == "scratch" { Space::Scratch } else { Space::Global };
    Form {
        name: format!("{kind}_{action_name}"),
        text,
        space,
        flat: kind == "flat",
        mode,
        action,
        offset,
        offset2: 0,
        dst: DST,
        data: DATA,
    }
}

fn local_forms() -> Vec<Form> {
    let mut list = Vec::new();
    let mut actions: Vec<(String, Action)> =
        local_accesses().into_iter().map(|(name, action)| (name.to_string(), action)).collect();
    for (name, update, returns) in crate::atomics::local_updates() {
        actions.push((name, Action::Atomic { update, returns }));
    }
    for (name, action) in actions {
        let (data, second, result) = registers(action);
        let double = matches!(action, Action::Two { .. });
        let offsets: &[(i64, i64)] =
            if double { &[(0, 1), (3, 2), (17, 90)] } else { &[(0, 0), (16, 0), (4660, 0)] };
        for (offset, offset2) in offsets {
            let mut operands = Vec::new();
            if result > 0 {
                operands.push(range(DST, result));
            }
            operands.push(range(VECTOR, 1));
            if data > 0 {
                operands.push(range(DATA, data));
            }
            if second > 0 {
                operands.push(range(DATA2, second));
            }
            let mut text = format!("{name} {}", operands.join(", "));
            if double {
                text += &format!(" offset0:{offset} offset1:{offset2}");
            } else if *offset != 0 {
                text += &format!(" offset:{offset}");
            }
            list.push(Form {
                name: name.clone(),
                text,
                space: Space::Lds,
                flat: false,
                mode: Mode::Vector32,
                action,
                offset: *offset,
                offset2: *offset2,
                dst: DST,
                data: DATA,
            });
        }
    }
    list
}

/// The bytes that an action touches from its address on.
fn reach(form: &Form) -> usize {
    match form.action {
        Action::Load { bytes, .. } | Action::Store { bytes, .. } => bytes,
        Action::Atomic { update, .. } => update.bytes,
        Action::Two { bytes, step, .. } => bytes + step * form.offset2.max(form.offset) as usize,
    }
}

/// Chooses where each lane accesses, and sets the registers that say so.
fn place_lanes(bench: &mut Bench, m: &Memories, form: &Form, random: &mut Random) -> Vec<usize> {
    let single = match form.action {
        Action::Two { bytes, .. } => bytes,
        _ => reach(form),
    };
    let align = single.next_power_of_two().min(16);
    let writes =
        !matches!(form.action, Action::Load { .. } | Action::Two { kind: Double::Load, .. });
    let uniform = matches!(form.mode, Mode::Scalar32 | Mode::Offset);
    // Accesses need not be aligned, except atomics and double ones.
    let loose = matches!(form.action, Action::Load { .. } | Action::Store { .. })
        && form.space != Space::Lds
        && random.once_in(3);
    let (low, high) = match form.space {
        Space::Global => (12 << 10, 20 << 10),
        Space::Lds => (5 << 10, (60 << 10) - reach(form)),
        Space::Scratch => (PRIVATE_LOW, 1400),
    };
    let fixed = match form.mode {
        Mode::Offset => Some(form.offset as usize),
        _ if uniform => Some(low + random.below((high - low) / align) * align),
        _ => None,
    };
    let slots = (high - low) / 64;
    // Lanes that write must not meet, because nothing says which of them is last: each has a slot of
    // its own, of scratch all have.
    let private = form.space == Space::Scratch;
    let shift = random.below(64);
    let row = random.once_in(4);
    let pairs = writes && matches!(form.action, Action::Two { .. });
    let stride = if pairs { reach(form) } else { single };
    let row = row && stride < slots;
    let targets: Vec<usize> = (0..64)
        .map(|lane| match fixed {
            Some(at) => at,
            None if row => low + lane * stride,
            None if writes && !private => {
                let slot = (lane + shift) * 37 % 64;
                let room = (slots.saturating_sub(single)).max(1);
                let at = low + slot * slots + random.below(room);
                if loose { at } else { at / align * align }
            }
            None => {
                let at = low + random.below(high - low - 16);
                if loose { at } else { at / align * align }
            }
        })
        .collect();
    let targets =
        if pairs && !row { place_pairs(form, (low, high), align, random) } else { targets };
    set_addresses(bench, m, form, &targets, random);
    targets
}

/// Chooses where lanes write two places each, so that none of them meet.
fn place_pairs(
    form: &Form,
    (low, high): (usize, usize),
    align: usize,
    random: &mut Random,
) -> Vec<usize> {
    let Action::Two { bytes, step, .. } = form.action else { unreachable!("one place") };
    let mut taken = vec![false; LDS];
    let mut next = || loop {
        let target = (low + random.below(high - low)) / align * align;
        let places = [form.offset, form.offset2].map(|n| target + n as usize * step);
        if places.iter().all(|place| !taken[*place..place + bytes].contains(&true)) {
            places.iter().for_each(|place| taken[*place..place + bytes].fill(true));
            return target;
        }
    };
    (0..64).map(|_| next()).collect()
}

fn set_addresses(
    bench: &mut Bench,
    m: &Memories,
    form: &Form,
    targets: &[usize],
    random: &mut Random,
) {
    let double = matches!(form.action, Action::Two { .. });
    let offset = if double { 0 } else { form.offset };
    let scalar: u64 = match form.mode {
        // What is left for the 32-bit vector part must not be negative.
        Mode::Scalar64 => (m.base + 4 * random.below(256) as u64).wrapping_sub(offset as u64),
        Mode::Scalar32 => (targets[0] as i64 - offset) as u64,
        Mode::Both32 => 4 * random.below(64) as u64,
        _ => random.bits(),
    };
    bench.state.set_pair(SCALAR, scalar);
    for (lane, target) in targets.iter().enumerate() {
        let target = *target as u64;
        let whole = match form.space {
            Space::Global => m.base + target,
            _ => target,
        };
        let aperture = match form.space {
            Space::Lds if form.flat => SHARED_APERTURE,
            Space::Scratch if form.flat => PRIVATE_APERTURE,
            _ => 0,
        };
        let vector = match form.mode {
            Mode::Scalar64 | Mode::Both32 => whole.wrapping_sub(scalar),
            _ => whole,
        };
        let vector = vector.wrapping_sub(offset as u64).wrapping_add(aperture);
        let rows = if form.mode == Mode::Vector64 { 2 } else { 1 };
        bench.state.set(VECTOR, rows, lane, vector);
    }
}

/// The statement of a form for one lane.
fn perform(bench: &mut Bench, m: &mut Memories, form: &Form, lane: usize, target: usize) {
    let space = form.space;
    match form.action {
        Action::Load { bytes, signed, half } => {
            load(bench, m, form, lane, (target, bytes), (signed, half));
        }
        Action::Store { bytes, high } => {
            for word in 0..bytes.div_ceil(4) {
                let value = u64::from(bench.state.v[form.data + word][lane]);
                let value = if high { value >> 16 } else { value };
                m.write(space, lane, target + 4 * word, (bytes - 4 * word).min(4), value);
            }
        }
        Action::Atomic { update, returns } => {
            let rows = update.bytes / 4;
            let old = m.read(space, lane, target, update.bytes);
            let data = bench.state.get(form.data, rows, lane);
            let local = space == Space::Lds && !form.flat;
            let second_row = if local { DATA2 } else { form.data + rows };
            let second = bench.state.get(second_row, rows, lane);
            // LDS has the comparand first on CDNA.
            let swapped = local && update.compares && form.name.contains("cmpst_");
            let (data, second) = if swapped { (second, data) } else { (data, second) };
            let new = (update.f)(bench.state.chip, old, data, second);
            m.write(space, lane, target, update.bytes, new);
            if returns {
                bench.state.set(form.dst, rows, lane, old);
            }
        }
        Action::Two { bytes, kind, step } => {
            let places = [form.offset, form.offset2].map(|n| target + n as usize * step);
            let rows = bytes / 4;
            let old = places.map(|place| m.read(space, lane, place, bytes));
            for index in 0..2 {
                if kind != Double::Load {
                    let data = bench.state.get([form.data, DATA2][index], rows, lane);
                    m.write(space, lane, places[index], bytes, data);
                }
            }
            for index in 0..2 {
                if kind != Double::Store {
                    bench.state.set(form.dst + index * rows, rows, lane, old[index]);
                }
            }
        }
    }
}

fn load(
    bench: &mut Bench,
    m: &mut Memories,
    form: &Form,
    lane: usize,
    (target, bytes): (usize, usize),
    (signed, half): (bool, Half),
) {
    if bytes >= 4 {
        for word in 0..bytes / 4 {
            let value = m.read(form.space, lane, target + 4 * word, 4);
            bench.state.v[form.dst + word][lane] = value as u32;
        }
        return;
    }
    let value = m.read(form.space, lane, target, bytes) as u32;
    let bits = 8 * bytes as u32;
    let negative = signed && value >> (bits - 1) & 1 == 1;
    let value = if negative { value | u32::MAX << bits } else { value };
    let place = &mut bench.state.v[form.dst][lane];
    *place = match half {
        Half::Whole => value,
        Half::Low => *place & 0xffff_0000 | value & 0xffff,
        Half::High => *place & 0xffff | value << 16,
    };
}

fn run(
    bench: &mut Bench,
    m: &mut Memories,
    line: usize,
    form: &mut Form,
    random: &mut Random,
) -> Result<(), String> {
    for space in spaces(form) {
        form.space = space;
        for wave in 0..4 {
            let exec = [u64::MAX, random.bits(), random.bits() & random.bits(), 0][wave];
            bench.set_exec(exec);
            bench.state.mode = 0xf0;
            for row in DATA..DATA + 8 {
                fill_data(bench, m, form, row, random);
            }
            let targets = place_lanes(bench, m, form, random);
            for lane in 0..64 {
                prepare_atomic(bench, m, form, (lane, targets[lane]), random);
            }
            bench.sync_rows(0, 40);
            if form.dst >= AGPR {
                bench.sync_rows(AGPR, 40);
            }
            m.sync(bench);
            bench.sync_scalars();
            for lane in 0..bench.state.lanes {
                if bench.state.on(lane) {
                    perform(bench, m, form, lane, targets[lane]);
                }
            }
            bench.step(line)?;
            let rows = if wave == 0 { 0..NAMED } else { 0..48 };
            if let Some(difference) = bench.difference(rows).or_else(|| m.difference(bench)) {
                return Err(format!("{space:?}: {difference}, exec {:#x}", bench.state.exec()));
            }
        }
    }
    Ok(())
}

fn fill_data(bench: &mut Bench, _: &Memories, form: &Form, row: usize, random: &mut Random) {
    let base = if form.data >= AGPR { AGPR } else { 0 };
    for lane in 0..64 {
        bench.state.v[base + row][lane] = random.bits() as u32;
    }
}

/// Gives an atomic operands at edges: values that are near each other, numbers, equal ones.
fn prepare_atomic(
    bench: &mut Bench,
    m: &mut Memories,
    form: &Form,
    (lane, target): (usize, usize),
    random: &mut Random,
) {
    let Action::Atomic { update, .. } = form.action else { return };
    let rows = update.bytes / 4;
    let sample = |random: &mut Random| (update.sample)(random);
    let old = sample(random);
    if lane < bench.state.lanes {
        m.write(form.space, lane, target, update.bytes, old);
    }
    let near = [old, old.wrapping_add(1), old.wrapping_sub(1)];
    let data = if random.once_in(3) && !update.float { random.pick(&near) } else { sample(random) };
    let mask = if rows == 2 { u64::MAX } else { 0xffff_ffff };
    bench.state.set(form.data, rows, lane, data & mask);
    let local = form.space == Space::Lds && !form.flat;
    let second_row = if local { DATA2 } else { form.data + rows };
    let second = if random.once_in(2) { old } else { sample(random) };
    if update.second {
        bench.state.set(second_row, rows, lane, second);
        if local && random.once_in(2) {
            bench.state.set(form.data, rows, lane, old);
        }
    }
}

/// The spaces that a form is tried in: a flat one in every space that has it. The immediate does not
/// choose the space of a flat address, so the register alone must lie within the aperture.
fn spaces(form: &Form) -> Vec<Space> {
    let atomic = matches!(form.action, Action::Atomic { .. });
    match form.flat {
        false => vec![form.space],
        true if atomic || form.offset > PRIVATE_LOW as i64 => vec![Space::Global, Space::Lds],
        true => vec![Space::Global, Space::Lds, Space::Scratch],
    }
}

fn check(make: fn(Chip) -> Vec<Form>, at_least: usize) {
    let report = Report::default();
    for chip in Chip::ALL {
        let mut forms = make(chip);
        forms.retain(|form| wanted(&form.name));
        let lanes = if chip.is_cdna() { 64 } else { 32 };
        let lines: Vec<String> = forms.iter().map(|form| form.text.clone()).collect();
        let mut bench = Bench::new(chip, lanes, &lines);
        let mut memories = Memories::new(&mut bench);
        for (line, form) in forms.iter_mut().enumerate() {
            if !bench.has(line) {
                continue;
            }
            let mut random = Random::of(&form.text);
            if let Err(text) = run(&mut bench, &mut memories, line, form, &mut random) {
                report.fail(chip, &form.name, || format!("{}: {text}", form.text));
                bench.resync();
            }
            report.count();
        }
    }
    report.finish(if std::env::var("CONFORM_ONLY").is_ok() { 0 } else { at_least });
}

#[test]
fn global_flat_and_scratch_memory() {
    check(memory_forms, 2000);
}

#[test]
fn local_memory() {
    check(|_| local_forms(), 500);
}

/// Lines of this file, for the list of what is covered.
pub fn lines(chip: Chip) -> Vec<String> {
    memory_forms(chip).into_iter().map(|form| form.text).collect()
}

/// The same of LDS.
pub fn local_lines() -> Vec<String> {
    local_forms().into_iter().map(|form| form.text).collect()
}
