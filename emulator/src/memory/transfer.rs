//! Between registers and resolved host addresses: loads and stores of every width.

use super::address::Locate;
use super::cell::Cell;
use crate::probe::Kind;
use crate::wave::{Exec, LANES, Row, Wave};

/// Where one instruction accesses the host's memory.
#[expect(clippy::large_enum_variant, reason = "it lives on the stack for one instruction")]
pub(super) enum Found {
    /// Every lane of the wave accesses; the first begins here, each other where the one before it
    /// ends.
    Row(u64),
    /// Anything else.
    Lanes(Targets),
}

/// Where the lanes of one instruction access the host's memory.
pub(super) struct Targets {
    /// Host address of each lane's first byte; of lanes in `lanes` only.
    pub(super) address: [u64; LANES],
    /// Lanes whose address was found good.
    pub(super) lanes: u64,
    /// Lanes that execute. Those that are not in `lanes` load zero and store nothing.
    pub(super) exec: u64,
    /// How many words of each lane in `lanes` may be accessed, where that is not all of them. The
    /// others load zero and are not stored.
    pub(super) words: Option<Box<[u8; LANES]>>,
}

impl Found {
    /// The address of each lane, for `bytes` bytes a lane.
    pub(super) fn targets(self, wave: &Wave, bytes: u32) -> Targets {
        match self {
            Found::Lanes(targets) => targets,
            Found::Row(first) => Targets {
                address: std::array::from_fn(|lane| first + lane as u64 * u64::from(bytes)),
                lanes: wave.all_lanes(),
                exec: wave.exec(),
                words: None,
            },
        }
    }
}

impl Targets {
    /// Words of a lane's `count` that may be accessed.
    #[inline(always)]
    pub(super) fn words(&self, lane: usize, count: usize) -> usize {
        self.words.as_ref().map_or(count, |words| usize::from(words[lane]).min(count))
    }
}

/// Whether the 32-bit offsets of the first `lanes` lanes follow each other at a distance of `bytes`
/// and do not wrap around.
#[inline(always)]
pub(super) fn is_row(offset: &[u32; LANES], lanes: u32, bytes: u32) -> bool {
    let first = offset[0];
    let differs = |range: std::ops::Range<usize>| {
        range.fold(0, |any, lane| any | (offset[lane].wrapping_sub(first) ^ lane as u32 * bytes))
    };
    // The last lane alone says no in most of the cases in which the answer is no.
    let last = lanes as usize % (LANES + 1);
    first.checked_add(lanes * bytes).is_some()
        && differs(last - 1..last) == 0
        && differs(0..32) == 0
        && (last <= 32 || differs(32..64) == 0)
}

/// Whether the first `lanes` lanes have the same bits.
#[inline(always)]
pub(super) fn is_uniform(row: &[u32; LANES], lanes: u32) -> bool {
    let differs =
        |range: std::ops::Range<usize>| range.fold(0, |any, lane| any | (row[lane] ^ row[0]));
    differs(0..32) == 0 && (lanes <= 32 || differs(32..64) == 0)
}

/// The numbers of the set bits, lowest first.
#[inline(always)]
pub(super) fn lanes_of(mut mask: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        (mask != 0).then(|| {
            let lane = mask.trailing_zeros() as usize;
            mask &= mask - 1;
            lane % LANES
        })
    })
}

/// The `N` rows from `row` on.
#[inline(always)]
fn rows_mut<const N: usize>(wave: &mut Wave, row: usize) -> &mut [Row; N] {
    let rows = &mut wave.rows[row..row + N];
    rows.first_chunk_mut().expect("as many rows as were asked for")
}

#[inline(always)]
fn rows<const N: usize>(wave: &Wave, row: usize) -> &[Row; N] {
    wave.rows[row..row + N].first_chunk().expect("as many rows as were asked for")
}

/// Loads `N` words a lane into the registers from `row` on.
///
/// # Safety
/// The addresses that were found are valid for `4 * N` bytes.
#[inline(always)]
pub(super) unsafe fn load_words<C: Cell, const N: usize>(
    wave: &mut Wave,
    row: usize,
    found: &Found,
) {
    let lanes = wave.lanes;
    let rows = rows_mut::<N>(wave, row);
    // SAFETY: the caller's; in a row, all lanes' bytes follow those of the first.
    unsafe {
        match found {
            Found::Row(first) if lanes == 64 => load_row::<C, N, 64>(rows, *first),
            Found::Row(first) => load_row::<C, N, 32>(rows, *first),
            Found::Lanes(targets) => load_lanes::<C, N>(rows, targets),
        }
    }
}

#[inline(never)]
unsafe fn load_lanes<C: Cell, const N: usize>(rows: &mut [Row; N], targets: &Targets) {
    // SAFETY: the caller's.
    unsafe {
        if let (Some(quad), u64::MAX, None) =
            (rows.first_chunk_mut::<4>(), targets.lanes, &targets.words)
        {
            load_quads::<C, 64>(quad, |lane| targets.address[lane % LANES]);
            return;
        }
        for lane in lanes_of(targets.lanes) {
            let words = if targets.words(lane, N) == N {
                C::load::<N>(targets.address[lane])
            } else {
                let good = targets.words(lane, N) as u64;
                let mut words = [0; N];
                for at in 0..good {
                    words[at as usize] = C::load32(targets.address[lane] + 4 * at);
                }
                words
            };
            for at in 0..N {
                rows[at].0[lane] = words[at];
            }
        }
        for lane in lanes_of(targets.exec & !targets.lanes) {
            rows.iter_mut().for_each(|row| row.0[lane] = 0);
        }
    }
}

#[inline(always)]
unsafe fn load_row<C: Cell, const N: usize, const L: usize>(rows: &mut [Row; N], address: u64) {
    // SAFETY: the caller's.
    unsafe {
        if N == 1 {
            C::load_words(address, &mut rows[0].0[..L]);
            return;
        }
        if let Some(quad) = rows.first_chunk_mut::<4>() {
            load_quads::<C, L>(quad, |lane| address + 16 * lane as u64);
            return;
        }
        let mut words = [[0_u32; N]; L];
        C::load_words(address, words.as_flattened_mut());
        for at in 0..N {
            for lane in 0..L {
                rows[at].0[lane] = words[lane][at];
            }
        }
    }
}

/// Loads four words a lane, four lanes at a time.
#[inline(always)]
unsafe fn load_quads<C: Cell, const L: usize>(rows: &mut [Row; 4], address: impl Fn(usize) -> u64) {
    for block in 0..L / 4 {
        // SAFETY: the caller's.
        let lanes = std::array::from_fn(|at| unsafe { C::load_quad(address(4 * block + at)) });
        for (row, words) in rows.iter_mut().zip(transposed(lanes)) {
            row.0[4 * block..4 * block + 4].copy_from_slice(&words);
        }
    }
}

/// Rows to columns.
#[inline(always)]
fn transposed(rows: [[u32; 4]; 4]) -> [[u32; 4]; 4] {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{
            __m128i, _mm_unpackhi_epi32, _mm_unpackhi_epi64, _mm_unpacklo_epi32, _mm_unpacklo_epi64,
        };
        // SAFETY: the types have the same size and no invalid values; SSE2 is part of x86-64.
        unsafe {
            let [a, b, c, d] = std::mem::transmute::<[[u32; 4]; 4], [__m128i; 4]>(rows);
            let (low_ab, low_cd) = (_mm_unpacklo_epi32(a, b), _mm_unpacklo_epi32(c, d));
            let (high_ab, high_cd) = (_mm_unpackhi_epi32(a, b), _mm_unpackhi_epi32(c, d));
            std::mem::transmute::<[__m128i; 4], [[u32; 4]; 4]>([
                _mm_unpacklo_epi64(low_ab, low_cd),
                _mm_unpackhi_epi64(low_ab, low_cd),
                _mm_unpacklo_epi64(high_ab, high_cd),
                _mm_unpackhi_epi64(high_ab, high_cd),
            ])
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    std::array::from_fn(|column| std::array::from_fn(|row| rows[row][column]))
}

/// Stores `N` words a lane from the registers from `row` on.
///
/// # Safety
/// The addresses that were found are valid for `4 * N` bytes.
#[inline(always)]
pub(super) unsafe fn store_words<C: Cell, const N: usize>(wave: &Wave, row: usize, found: &Found) {
    let rows = rows::<N>(wave, row);
    // SAFETY: the caller's; in a row, all lanes' bytes follow those of the first.
    unsafe {
        match found {
            Found::Row(first) if wave.lanes == 64 => store_row::<C, N, 64>(rows, *first),
            Found::Row(first) => store_row::<C, N, 32>(rows, *first),
            Found::Lanes(targets) => store_lanes::<C, N>(rows, targets),
        }
    }
}

#[inline(never)]
unsafe fn store_lanes<C: Cell, const N: usize>(rows: &[Row; N], targets: &Targets) {
    // SAFETY: the caller's.
    unsafe {
        if let (Some(quad), u64::MAX, None) =
            (rows.first_chunk::<4>(), targets.lanes, &targets.words)
        {
            store_quads::<C, 64>(quad, |lane| targets.address[lane % LANES]);
            return;
        }
        for lane in lanes_of(targets.lanes) {
            let mut words = [0; N];
            for at in 0..N {
                words[at] = rows[at].0[lane];
            }
            if targets.words(lane, N) == N {
                C::store(targets.address[lane], words);
                continue;
            }
            for at in 0..targets.words(lane, N) {
                C::store32(targets.address[lane] + 4 * at as u64, words[at]);
            }
        }
    }
}

#[inline(always)]
unsafe fn store_row<C: Cell, const N: usize, const L: usize>(rows: &[Row; N], address: u64) {
    // SAFETY: the caller's.
    unsafe {
        if N == 1 {
            C::store_words(address, &rows[0].0[..L]);
            return;
        }
        if let Some(quad) = rows.first_chunk::<4>() {
            store_quads::<C, L>(quad, |lane| address + 16 * lane as u64);
            return;
        }
        let mut words = [[0_u32; N]; L];
        for lane in 0..L {
            for at in 0..N {
                words[lane][at] = rows[at].0[lane];
            }
        }
        C::store_words(address, words.as_flattened());
    }
}

/// Stores four words a lane, in the order of the lanes.
#[inline(always)]
unsafe fn store_quads<C: Cell, const L: usize>(rows: &[Row; 4], address: impl Fn(usize) -> u64) {
    for block in 0..L / 4 {
        let words = std::array::from_fn(|row| {
            let words = rows[row].0[4 * block..4 * block + 4].first_chunk().copied();
            words.unwrap_or_default()
        });
        for (at, lane) in transposed(words).into_iter().enumerate() {
            // SAFETY: the caller's.
            unsafe { C::store_quad(address(4 * block + at), lane) };
        }
    }
}

/// What a load of less than 32 bits makes of the bits, loaded without a sign, and of the register's
/// old contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Merge {
    /// The bits.
    Zero,
    /// The bits, their sign extended.
    Sign,
    /// In the low half; the other is kept.
    Low,
    /// The sign extended to the low half; the other is kept.
    LowSign,
    /// In the high half; the other is kept.
    High,
    /// The sign extended to the high half; the other is kept.
    HighSign,
}

impl Merge {
    /// What becomes of a lane.
    pub(super) fn apply<const BYTES: usize>(self, new: u32, old: u32) -> u32 {
        let unused = 32 - 8 * BYTES as u32;
        let signed = ((new << unused) as i32 >> unused) as u32;
        match self {
            Merge::Zero => new,
            Merge::Sign => signed,
            Merge::Low => old & 0xffff_0000 | new,
            Merge::LowSign => old & 0xffff_0000 | signed & 0xffff,
            Merge::High => old & 0xffff | new << 16,
            Merge::HighSign => old & 0xffff | signed << 16,
        }
    }

    /// What becomes of all lanes; a loop for each kind.
    #[inline(never)]
    fn apply_all<const BYTES: usize>(self, new: &[u32; LANES], old: &[u32; LANES]) -> Row {
        let each = |kind: Merge| {
            let mut row = Row::ZERO;
            for lane in 0..LANES {
                row.0[lane] = kind.apply::<BYTES>(new[lane], old[lane]);
            }
            row
        };
        match self {
            Merge::Zero => each(Merge::Zero),
            Merge::Sign => each(Merge::Sign),
            Merge::Low => each(Merge::Low),
            Merge::LowSign => each(Merge::LowSign),
            Merge::High => each(Merge::High),
            Merge::HighSign => each(Merge::HighSign),
        }
    }
}

/// The bytes of a row of parts, as words.
type Parts = [u32; LANES / 2];

/// Loads 1 or 2 bytes a lane.
///
/// # Safety
/// The addresses that were found are valid for `BYTES` bytes.
#[inline(always)]
unsafe fn load_part<C: Cell, const BYTES: usize>(
    wave: &mut Wave,
    row: usize,
    found: &Found,
    merge: Merge,
) {
    let (lanes, exec) = (wave.lanes as usize, wave.exec());
    let [row] = rows_mut::<1>(wave, row);
    let mut new = [0; LANES];
    match found {
        Found::Row(first) => {
            let mut words: Parts = [0; LANES / 2];
            // SAFETY: the caller's; 32 or 64 parts are whole words.
            unsafe { C::load_words(*first, &mut words[..lanes * BYTES / 4]) };
            for lane in 0..LANES {
                let word = words[lane * BYTES / 4];
                let bits = word >> (8 * (lane * BYTES % 4));
                new[lane] = bits & (u32::MAX >> (32 - 8 * BYTES));
            }
        }
        Found::Lanes(targets) => {
            for lane in lanes_of(targets.lanes) {
                let address = targets.address[lane];
                // SAFETY: the caller's.
                new[lane] = unsafe {
                    match BYTES {
                        1 => u32::from(C::load8(address)),
                        _ => u32::from(C::load16(address)),
                    }
                };
            }
        }
    }
    let merged = merge.apply_all::<BYTES>(&new, &row.0);
    if exec == u64::MAX {
        *row = merged;
        return;
    }
    for lane in lanes_of(exec) {
        row.0[lane] = merged.0[lane];
    }
}

/// Stores 1 or 2 bytes a lane, from bit `shift` of the register on.
///
/// # Safety
/// The addresses that were found are valid for `BYTES` bytes.
#[inline(always)]
unsafe fn store_part<C: Cell, const BYTES: usize>(
    wave: &Wave,
    row: usize,
    found: &Found,
    shift: u32,
) {
    let lanes = wave.lanes as usize;
    let [Row(row)] = rows::<1>(wave, row);
    match found {
        Found::Row(first) => {
            let mut words: Parts = [0; LANES / 2];
            for lane in 0..LANES {
                let bits = row[lane] >> (shift & 31) & (u32::MAX >> (32 - 8 * BYTES));
                words[lane * BYTES / 4] |= bits << (8 * (lane * BYTES % 4));
            }
            // SAFETY: the caller's; 32 or 64 parts are whole words.
            unsafe { C::store_words(*first, &words[..lanes * BYTES / 4]) };
        }
        Found::Lanes(targets) => {
            for lane in lanes_of(targets.lanes) {
                let (address, bits) = (targets.address[lane], row[lane] >> (shift & 31));
                // SAFETY: the caller's.
                unsafe {
                    match BYTES {
                        1 => C::store8(address, bits as u8),
                        _ => C::store16(address, bits as u16),
                    }
                }
            }
        }
    }
}

/// What a load brings.
#[derive(Clone, Copy)]
pub(super) enum Load {
    /// That many words.
    Words(usize),
    /// One byte.
    Byte(Merge),
    /// Two bytes.
    Half(Merge),
}

/// What a store takes.
#[derive(Clone, Copy)]
pub(super) enum Store {
    /// That many words.
    Words(usize),
    /// One byte, from a bit on.
    Byte(u32),
    /// Two bytes, from a bit on.
    Half(u32),
}

impl Load {
    /// From the names that CDNA, RDNA and LDS have for the same forms. Those with `d16` keep the
    /// other half of the register.
    pub(super) fn new(name: &str) -> Option<Load> {
        Some(match name {
            "dword" | "b32" => Load::Words(1),
            "dwordx2" | "b64" => Load::Words(2),
            "dwordx3" | "b96" => Load::Words(3),
            "dwordx4" | "b128" => Load::Words(4),
            "ubyte" | "u8" => Load::Byte(Merge::Zero),
            "sbyte" | "i8" => Load::Byte(Merge::Sign),
            "ushort" | "u16" => Load::Half(Merge::Zero),
            "sshort" | "i16" => Load::Half(Merge::Sign),
            "ubyte_d16" | "d16_u8" | "u8_d16" => Load::Byte(Merge::Low),
            "sbyte_d16" | "d16_i8" | "i8_d16" => Load::Byte(Merge::LowSign),
            "short_d16" | "d16_b16" | "u16_d16" => Load::Half(Merge::Low),
            "ubyte_d16_hi" | "d16_hi_u8" | "u8_d16_hi" => Load::Byte(Merge::High),
            "sbyte_d16_hi" | "d16_hi_i8" | "i8_d16_hi" => Load::Byte(Merge::HighSign),
            "short_d16_hi" | "d16_hi_b16" | "u16_d16_hi" => Load::Half(Merge::High),
            _ => return None,
        })
    }

    /// Registers that it fills.
    pub(super) fn rows(self) -> usize {
        match self {
            Load::Words(words) => words,
            Load::Byte(_) | Load::Half(_) => 1,
        }
    }
}

impl Store {
    /// From the names that CDNA, RDNA and LDS have for the same forms.
    pub(super) fn new(name: &str) -> Option<Store> {
        Some(match name {
            "dword" | "b32" => Store::Words(1),
            "dwordx2" | "b64" => Store::Words(2),
            "dwordx3" | "b96" => Store::Words(3),
            "dwordx4" | "b128" => Store::Words(4),
            "byte" | "b8" => Store::Byte(0),
            "short" | "b16" => Store::Half(0),
            "byte_d16_hi" | "d16_hi_b8" | "b8_d16_hi" => Store::Byte(16),
            "short_d16_hi" | "d16_hi_b16" | "b16_d16_hi" => Store::Half(16),
            _ => return None,
        })
    }

    /// Registers that it takes from.
    pub(super) fn rows(self) -> usize {
        match self {
            Store::Words(words) => words,
            Store::Byte(_) | Store::Half(_) => 1,
        }
    }
}

/// The closure of a load into the registers from `row` on.
pub(super) fn load<L: Locate, C: Cell + 'static>(locate: L, row: usize, form: Load) -> Exec {
    match form {
        Load::Words(1) => load_exec::<L, C, 1>(locate, row),
        Load::Words(2) => load_exec::<L, C, 2>(locate, row),
        Load::Words(3) => load_exec::<L, C, 3>(locate, row),
        Load::Words(_) => load_exec::<L, C, 4>(locate, row),
        Load::Byte(merge) => part_load_exec::<L, C, 1>(locate, row, merge),
        Load::Half(merge) => part_load_exec::<L, C, 2>(locate, row, merge),
    }
}

fn load_exec<L: Locate, C: Cell + 'static, const N: usize>(locate: L, row: usize) -> Exec {
    Box::new(move |wave, group| {
        let found = locate.locate(wave, group, Kind::Load, 4 * N as u32)?;
        // SAFETY: located for that many bytes.
        unsafe { load_words::<C, N>(wave, row, &found) };
        Ok(())
    })
}

fn part_load_exec<L: Locate, C: Cell + 'static, const BYTES: usize>(
    locate: L,
    row: usize,
    merge: Merge,
) -> Exec {
    Box::new(move |wave, group| {
        let found = locate.locate(wave, group, Kind::Load, BYTES as u32)?;
        // SAFETY: located for that many bytes.
        unsafe { load_part::<C, BYTES>(wave, row, &found, merge) };
        Ok(())
    })
}

/// The closure of a store from the registers from `row` on.
pub(super) fn store<L: Locate, C: Cell + 'static>(locate: L, row: usize, form: Store) -> Exec {
    match form {
        Store::Words(1) => store_exec::<L, C, 1>(locate, row),
        Store::Words(2) => store_exec::<L, C, 2>(locate, row),
        Store::Words(3) => store_exec::<L, C, 3>(locate, row),
        Store::Words(_) => store_exec::<L, C, 4>(locate, row),
        Store::Byte(shift) => part_store_exec::<L, C, 1>(locate, row, shift),
        Store::Half(shift) => part_store_exec::<L, C, 2>(locate, row, shift),
    }
}

fn store_exec<L: Locate, C: Cell + 'static, const N: usize>(locate: L, row: usize) -> Exec {
    Box::new(move |wave, group| {
        let found = locate.locate(wave, group, Kind::Store, 4 * N as u32)?;
        // SAFETY: located for that many bytes.
        unsafe { store_words::<C, N>(wave, row, &found) };
        Ok(())
    })
}

fn part_store_exec<L: Locate, C: Cell + 'static, const BYTES: usize>(
    locate: L,
    row: usize,
    shift: u32,
) -> Exec {
    Box::new(move |wave, group| {
        let found = locate.locate(wave, group, Kind::Store, BYTES as u32)?;
        // SAFETY: located for that many bytes.
        unsafe { store_part::<C, BYTES>(wave, row, &found, shift) };
        Ok(())
    })
}
