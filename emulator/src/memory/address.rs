//! Addresses: operands to one address a lane, and from there to host memory that is good.

use super::transfer::{Found, Targets, is_row, is_uniform, lanes_of};
use super::{APERTURE_BYTES, PRIVATE_APERTURE, Regions, SHARED_APERTURE};
use crate::Chip;
use crate::asm::{Operand, Value};
use crate::probe::{Access, Kind, Space};
use crate::program::Context;
use crate::wave::{Fault, Group, LANES, Wave};

/// How an instruction finds the memory that its lanes access.
///
/// # Safety
/// `locate` gives addresses that are valid for `bytes` bytes while the instruction executes. For
/// atomics it never gives a row.
pub(super) unsafe trait Locate: Copy + Send + Sync + 'static {
    /// Finds the memory for `bytes` bytes a lane, and tells the probe about the access.
    fn locate(
        &self,
        wave: &mut Wave,
        group: &mut Group,
        kind: Kind,
        bytes: u32,
    ) -> Result<Found, Box<Fault>>;
}

/// Where an instruction stands: its index for probes, its place in [`Regions`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Site {
    pc: u32,
    place: usize,
}

impl Site {
    pub(super) fn new(context: &Context<'_>) -> Site {
        let address = context.asm.address;
        let pc = (context.index_of)(address).unwrap_or_default();
        Site { pc, place: Regions::place(address) }
    }

    /// Tells the probe of an access, if there is one.
    #[inline(always)]
    pub(super) fn report(
        self,
        wave: &Wave,
        group: &mut Group,
        (kind, space): (Kind, Space),
        addresses: &[u64; LANES],
        lanes: u64,
        bytes: u32,
    ) {
        if group.probe.is_some() {
            let access = Access { kind, space, addresses, lanes, bytes };
            report(self.pc, wave, group, &access);
        }
    }
}

#[cold]
#[inline(never)]
fn report(pc: u32, wave: &Wave, group: &mut Group, access: &Access<'_>) {
    if let Some(mut probe) = group.probe.take() {
        probe.access(pc, wave, access);
        group.probe = Some(probe);
    }
}

/// Scalar, vector and immediate parts of an address.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sum {
    /// First register of a 64-bit, or the register of a 32-bit vector part.
    vector: Option<usize>,
    /// The vector part has 64 bits.
    wide: bool,
    /// First register of the scalar part.
    scalar: Option<usize>,
    /// Immediate.
    offset: i64,
    /// What the lane's number counts, where there is no vector part.
    thread: u64,
}

impl Sum {
    /// From the operands of a global, flat or scratch instruction; `scalar` is none where the
    /// instruction has no such operand.
    pub(super) fn new(
        context: &Context<'_>,
        vector: &Operand,
        scalar: Option<&Operand>,
        widths: Widths,
    ) -> Result<Sum, Fault> {
        let unknown = || context.unknown();
        let scalar = match scalar.map(|operand| &operand.value) {
            Some(Value::Scalar(index, count)) if *count == widths.scalar => {
                Some(usize::from(*index))
            }
            Some(Value::Word(word)) if word == "off" => None,
            None => None,
            Some(_) => return Err(unknown()),
        };
        let wide = widths.vector == 2 && scalar.is_none();
        let vector = match &vector.value {
            Value::Vector(row, count) if *count == 1 + u16::from(wide) => Some(usize::from(*row)),
            Value::Word(word) if word == "off" => None,
            _ => return Err(unknown()),
        };
        let offset = offset(context)?;
        Ok(Sum { vector, wide, scalar, offset, thread: 0 })
    }

    /// Scalar base, immediate and four times the lane's number.
    pub(super) fn by_thread(context: &Context<'_>, scalar: &Operand) -> Result<Sum, Fault> {
        let off = Operand { value: Value::Word("off".to_string()), ..scalar.clone() };
        let sum = Sum::new(context, &off, Some(scalar), Widths { vector: 2, scalar: 2 })?;
        Ok(Sum { thread: 4, ..sum })
    }

    /// The first lane's address, if those of all lanes follow each other at a distance of `bytes`.
    #[inline(always)]
    fn row(&self, wave: &Wave, bytes: u32) -> Option<u64> {
        let row = self.vector?;
        let low = &wave.rows[row].0;
        if wave.exec() != wave.all_lanes() || !is_row(low, wave.lanes, bytes) {
            return None;
        }
        let mut vector = u64::from(low[0]);
        if self.wide {
            let high = &wave.rows[row + 1].0;
            if !is_uniform(high, wave.lanes) {
                return None;
            }
            vector |= u64::from(high[0]) << 32;
        }
        let scalar = self.scalar.map_or(0, |index| wave.pair(index));
        Some(vector.wrapping_add(scalar).wrapping_add(self.offset as u64))
    }

    /// 64-bit addresses of the first `L` lanes.
    #[inline(always)]
    fn lanes<const L: usize>(&self, wave: &Wave, out: &mut [u64; LANES]) {
        let scalar = self.scalar.map_or(0, |index| wave.pair(index));
        let base = scalar.wrapping_add(self.offset as u64);
        match (self.vector, self.wide) {
            (Some(row), true) => {
                let (low, high) = (&wave.rows[row].0, &wave.rows[row + 1].0);
                for lane in 0..L {
                    let address = u64::from(low[lane]) | u64::from(high[lane]) << 32;
                    out[lane] = address.wrapping_add(base);
                }
            }
            (Some(row), false) => {
                let low = &wave.rows[row].0;
                for lane in 0..L {
                    out[lane] = u64::from(low[lane]).wrapping_add(base);
                }
            }
            (None, _) => {
                for lane in 0..L {
                    out[lane] = base.wrapping_add(self.thread * lane as u64);
                }
            }
        }
    }

    /// 32-bit offsets of all lanes, as scratch has them.
    #[inline(always)]
    fn offsets(&self, wave: &Wave, out: &mut [u64; LANES]) {
        let scalar = self.scalar.map_or(0, |index| wave.sgpr[index]);
        let base = scalar.wrapping_add(self.offset as u32);
        match self.vector {
            Some(row) => {
                let low = &wave.rows[row].0;
                for lane in 0..LANES {
                    out[lane] = u64::from(low[lane].wrapping_add(base));
                }
            }
            None => out.fill(u64::from(base)),
        }
    }
}

/// Registers of the parts of an address.
#[derive(Debug, Clone, Copy)]
pub(super) struct Widths {
    /// Of the vector part where there is no scalar one.
    pub(super) vector: u16,
    /// Of the scalar part.
    pub(super) scalar: u16,
}

/// The number after `offset:`, or 0.
pub(super) fn offset(context: &Context<'_>) -> Result<i64, Fault> {
    match context.asm.value("offset") {
        None => Ok(0),
        Some(_) => context.asm.number("offset").ok_or_else(|| context.unknown()),
    }
}

/// Global memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Global {
    pub(super) sum: Sum,
    pub(super) site: Site,
}

// SAFETY: a row is found in an allocation as a whole; `check` finds every other address in one.
unsafe impl Locate for Global {
    #[inline(always)]
    fn locate(
        &self,
        wave: &mut Wave,
        group: &mut Group,
        kind: Kind,
        bytes: u32,
    ) -> Result<Found, Box<Fault>> {
        if kind != Kind::Atomic
            && let Some(first) = self.sum.row(wave, bytes)
            && row_is_good(self.site, wave, group, first, bytes)
        {
            return Ok(Found::Row(first));
        }
        self.lanes(wave, group, kind, bytes).map(Found::Lanes)
    }
}

/// Whether a row of accesses to global memory is within one allocation, and nobody watches lanes.
#[inline(always)]
pub(super) fn row_is_good(
    site: Site,
    wave: &Wave,
    group: &mut Group,
    first: u64,
    bytes: u32,
) -> bool {
    let region = group.regions.at(site.place);
    group.probe.is_none()
        && group.memory.contains(region, first, u64::from(bytes) * u64::from(wave.lanes))
}

impl Global {
    #[inline(never)]
    fn lanes(
        &self,
        wave: &mut Wave,
        group: &mut Group,
        kind: Kind,
        bytes: u32,
    ) -> Result<Targets, Box<Fault>> {
        let mut address = [0; LANES];
        self.sum.lanes::<LANES>(wave, &mut address);
        let exec = wave.exec();
        self.site.report(wave, group, (kind, Space::Global), &address, exec, bytes);
        aligned(&address, exec, (kind, bytes))?;
        check(self.site, group, &address, exec, (kind, bytes))?;
        Ok(Targets { address, lanes: exec, exec, words: None })
    }
}

/// That atomics are aligned to their width, which loads and stores need not be.
#[inline(always)]
pub(super) fn aligned(
    address: &[u64; LANES],
    lanes: u64,
    (kind, bytes): (Kind, u32),
) -> Result<(), Box<Fault>> {
    if kind != Kind::Atomic {
        return Ok(());
    }
    let odd = |lane: &usize| !address[*lane].is_multiple_of(u64::from(bytes.max(1)));
    match lanes_of(lanes).find(odd) {
        None => Ok(()),
        Some(lane) => Err(Box::new(Fault::Illegal(format!(
            "atomic of {bytes} bytes at {:#x} by lane {lane} is not aligned",
            address[lane]
        )))),
    }
}

/// Finds the addresses of lanes in allocations.
pub(super) fn check(
    site: Site,
    group: &mut Group,
    address: &[u64; LANES],
    lanes: u64,
    (kind, bytes): (Kind, u32),
) -> Result<(), Box<Fault>> {
    let Some(first) = lanes_of(lanes).next() else { return Ok(()) };
    let (region, bytes) = (group.regions.at(site.place), u64::from(bytes));
    if group.memory.contains(region, address[first], bytes) {
        let good = |address: u64| region.holds(address, bytes);
        let all = match lanes {
            u64::MAX => address.iter().fold(true, |all, address| all & good(*address)),
            _ => lanes_of(lanes).all(|lane| good(address[lane])),
        };
        if all {
            return Ok(());
        }
    }
    for lane in lanes_of(lanes) {
        if !group.memory.contains(region, address[lane], bytes) {
            let fault = group.memory.fault(word(kind), address[lane], bytes as u32, lane as u32);
            return Err(fault);
        }
    }
    Ok(())
}

/// How faults call an access.
pub(super) fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Load => "load",
        Kind::Store => "store",
        Kind::Atomic => "atomic",
    }
}

/// Private memory; addresses are offsets in the lane's part.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scratch {
    pub(super) sum: Sum,
    pub(super) site: Site,
}

// SAFETY: `private` checks every address.
unsafe impl Locate for Scratch {
    #[inline(always)]
    fn locate(
        &self,
        wave: &mut Wave,
        group: &mut Group,
        kind: Kind,
        bytes: u32,
    ) -> Result<Found, Box<Fault>> {
        let mut address = [0; LANES];
        self.sum.offsets(wave, &mut address);
        let exec = wave.exec();
        self.site.report(wave, group, (kind, Space::Scratch), &address, exec, bytes);
        aligned(&address, exec, (kind, bytes))?;
        for lane in lanes_of(exec) {
            address[lane] = private(wave, lane, address[lane] as u32, (kind, bytes))?;
        }
        Ok(Found::Lanes(Targets { address, lanes: exec, exec, words: None }))
    }
}

/// Host address of a byte of a lane's private memory.
#[inline(always)]
pub(super) fn private(
    wave: &mut Wave,
    lane: usize,
    offset: u32,
    (kind, bytes): (Kind, u32),
) -> Result<u64, Box<Fault>> {
    let end = u64::from(offset) + u64::from(bytes);
    let first = lane as u64 * u64::from(wave.scratch_stride) + u64::from(offset);
    let inside = end <= u64::from(wave.scratch_stride)
        && first + u64::from(bytes) <= wave.scratch.len() as u64;
    if !inside {
        return Err(private_fault(wave.scratch_stride, lane, offset, (kind, bytes)));
    }
    Ok(wave.scratch.as_mut_ptr() as u64 + first)
}

#[cold]
fn private_fault(stride: u32, lane: usize, offset: u32, (kind, bytes): (Kind, u32)) -> Box<Fault> {
    Box::new(Fault::Address {
        access: word(kind),
        address: u64::from(offset),
        bytes,
        lane: lane as u32,
        note: format!(", the lane has {stride} bytes of private memory"),
    })
}

/// Addresses that may lie in global memory, in LDS or in private memory, lane by lane.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flat {
    pub(super) sum: Sum,
    pub(super) site: Site,
}

// SAFETY: every address goes through the check of the space in which it lies.
unsafe impl Locate for Flat {
    #[inline(always)]
    fn locate(
        &self,
        wave: &mut Wave,
        group: &mut Group,
        kind: Kind,
        bytes: u32,
    ) -> Result<Found, Box<Fault>> {
        if kind != Kind::Atomic
            && let Some(first) = self.sum.row(wave, bytes)
            // The immediate does not count in the test for apertures.
            && !is_windowed(first.wrapping_sub(self.sum.offset as u64))
            && row_is_good(self.site, wave, group, first, bytes)
        {
            return Ok(Found::Row(first));
        }
        self.mixed(wave, group, (kind, bytes)).map(Found::Lanes)
    }
}

/// Whether a flat address is not one of global memory.
#[inline(always)]
fn is_windowed(address: u64) -> bool {
    address.wrapping_sub(PRIVATE_APERTURE) < SHARED_APERTURE + APERTURE_BYTES - PRIVATE_APERTURE
}

impl Flat {
    #[inline(never)]
    fn mixed(
        &self,
        wave: &mut Wave,
        group: &mut Group,
        (kind, bytes): (Kind, u32),
    ) -> Result<Targets, Box<Fault>> {
        let mut address = [0; LANES];
        Sum { offset: 0, ..self.sum }.lanes::<LANES>(wave, &mut address);
        let exec = wave.exec();
        let within = |base: u64| {
            let inside = |lane: &usize| address[*lane].wrapping_sub(base) < APERTURE_BYTES;
            lanes_of(exec).filter(inside).fold(0, |mask, lane| mask | 1 << lane)
        };
        let (lds, scratch): (u64, u64) = (within(SHARED_APERTURE), within(PRIVATE_APERTURE));
        let global = exec & !lds & !scratch;
        for lane in lanes_of(exec) {
            address[lane] = address[lane].wrapping_add(self.sum.offset as u64);
        }
        for lane in lanes_of(lds | scratch) {
            address[lane] &= APERTURE_BYTES - 1;
        }
        let spaces = [(Space::Global, global), (Space::Lds, lds), (Space::Scratch, scratch)];
        for (space, lanes) in spaces.into_iter().filter(|(_, lanes)| *lanes != 0) {
            self.site.report(wave, group, (kind, space), &address, lanes, bytes);
        }
        aligned(&address, exec, (kind, bytes))?;
        check(self.site, group, &address, global, (kind, bytes))?;
        let mut good = exec;
        for lane in lanes_of(lds) {
            match shared(group, address[lane], bytes) {
                Some(host) => address[lane] = host,
                None => good &= !(1 << lane),
            }
        }
        for lane in lanes_of(scratch) {
            address[lane] = private(wave, lane, address[lane] as u32, (kind, bytes))?;
        }
        Ok(Targets { address, lanes: good, exec, words: None })
    }
}

/// Host address of a byte of LDS, or none beyond its end.
#[inline(always)]
pub(super) fn shared(group: &mut Group, offset: u64, bytes: u32) -> Option<u64> {
    let inside = offset + u64::from(bytes) <= group.lds.len() as u64;
    inside.then(|| group.lds.as_mut_ptr() as u64 + offset)
}

/// LDS; addresses are offsets in the workgroup's part.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lds {
    /// Register with the lane's byte offset.
    pub(super) vector: usize,
    /// Immediate.
    pub(super) offset: u32,
    pub(super) site: Site,
}

// SAFETY: lanes that are not in range are taken out.
unsafe impl Locate for Lds {
    #[inline(always)]
    fn locate(
        &self,
        wave: &mut Wave,
        group: &mut Group,
        kind: Kind,
        bytes: u32,
    ) -> Result<Found, Box<Fault>> {
        let row = &wave.rows[self.vector].0;
        if kind != Kind::Atomic
            && wave.exec() == wave.all_lanes()
            && group.probe.is_none()
            && is_row(row, wave.lanes, bytes)
        {
            // Beyond LDS, wrapped around or not, it is not a row.
            let first = row[0].wrapping_add(self.offset);
            let end = u64::from(first) + u64::from(bytes) * u64::from(wave.lanes);
            if end <= group.lds.len() as u64 {
                return Ok(Found::Row(group.lds.as_mut_ptr() as u64 + u64::from(first)));
            }
        }
        self.lanes(wave, group, kind, bytes).map(Found::Lanes)
    }
}

impl Lds {
    #[inline(never)]
    fn lanes(
        &self,
        wave: &mut Wave,
        group: &mut Group,
        kind: Kind,
        bytes: u32,
    ) -> Result<Targets, Box<Fault>> {
        let row = &wave.rows[self.vector].0;
        let mut address = [0; LANES];
        for lane in 0..LANES {
            address[lane] = u64::from(row[lane].wrapping_add(self.offset));
        }
        let exec = wave.exec();
        self.site.report(wave, group, (kind, Space::Lds), &address, exec, bytes);
        aligned(&address, exec, (kind, bytes))?;
        Ok(local(wave, group, address, exec, (kind, bytes)))
    }
}

/// Offsets in LDS to host addresses; what lies beyond its end is taken out.
#[inline(always)]
pub(super) fn local(
    wave: &Wave,
    group: &mut Group,
    mut address: [u64; LANES],
    lanes: u64,
    (kind, bytes): (Kind, u32),
) -> Targets {
    let (size, base) = (group.lds.len() as u64, group.lds.as_mut_ptr() as u64);
    let mut last = 0;
    for lane in 0..LANES {
        last = last.max(address[lane]);
    }
    let (mut good, mut words) = (lanes, None);
    if last + u64::from(bytes) > size {
        (good, words) = within(group.chip, &address, lanes, (kind, bytes), size);
    }
    for lane in 0..LANES {
        address[lane] = address[lane].wrapping_add(base);
    }
    Targets { address, lanes: good, exec: wave.exec(), words }
}

/// Lanes whose access is in LDS, and how much of it: gfx12 checks each word, the chips before it
/// the whole access.
#[inline(never)]
fn within(
    chip: Chip,
    address: &[u64; LANES],
    lanes: u64,
    (kind, bytes): (Kind, u32),
    size: u64,
) -> (u64, Option<Box<[u8; LANES]>>) {
    let by_word = chip == Chip::Gfx1201 && kind != Kind::Atomic && bytes > 4;
    let (mut good, mut words) = (lanes, None);
    for lane in lanes_of(lanes) {
        let room = size.saturating_sub(address[lane]);
        if room >= u64::from(bytes) {
            continue;
        }
        if by_word && room >= 4 {
            let words = words.get_or_insert_with(|| Box::new([u8::MAX; LANES]));
            words[lane] = (room / 4) as u8;
        } else {
            good &= !(1 << lane);
        }
    }
    (good, words)
}
