//! Buffer instructions: memory through a resource of four scalar registers.
//!
//! Range checks are those of the chapters on buffer addressing in AMD's instruction set documents;
//! a combination that they leave open is a fault. A resource with the thread number as index,
//! swizzled, and a base below 4 GiB is private memory, as gfx90a accesses it: the scalar parts of
//! its addresses count bytes of all lanes, the vector and immediate parts bytes of one lane.

use super::address::{Locate, Site, aligned, check, offset, private, row_is_good};
use super::atomic::{self, Operands, Policy, Update, is_double_operand};
use super::cell::Shared;
use super::direct;
use super::transfer::{Found, Load, Store, Targets, is_row, lanes_of};
use super::vector::{Action, check_modifiers, rows};
use crate::Chip;
use crate::asm::{Operand, Value};
use crate::probe::{Kind, Space};
use crate::program::{Compiled, Context};
use crate::wave::{Exec, Fault, Group, LANES, Wave, scalar};

/// Compiles a buffer instruction.
pub(super) fn compile(context: &Context<'_>) -> Compiled {
    let operation = context.asm.mnemonic.strip_prefix("buffer_")?;
    let known = ["offset", "offen", "idxen", "lds"];
    Some(check_modifiers(context, &known).and_then(|()| build(context, operation)))
}

fn build(context: &Context<'_>, operation: &str) -> Result<Exec, Fault> {
    let operands = context.asm.operands.as_slice();
    let unknown = || context.unknown();
    if let Some(name) = operation.strip_prefix("load_") {
        let form = Load::new(name).ok_or_else(unknown)?;
        if context.asm.has("lds") {
            let [vector, resource, scalar] = operands else { return Err(unknown()) };
            let buffer = Buffer::new(context, vector, resource, scalar)?;
            let target = direct::Target::new(context)?;
            return Ok(direct::load::<_, Shared>(buffer, form, target));
        }
        return access(context, Action::Load(form));
    }
    if context.asm.has("lds") {
        return Err(unknown());
    }
    if let Some(name) = operation.strip_prefix("store_") {
        return access(context, Action::Store(Store::new(name).ok_or_else(unknown)?));
    }
    let name = operation.strip_prefix("atomic_").ok_or_else(unknown)?;
    update(context, name)
}

fn access(context: &Context<'_>, action: Action) -> Result<Exec, Fault> {
    let [data, vector, resource, scalar] = context.asm.operands.as_slice() else {
        return Err(context.unknown());
    };
    let row = rows(context, data, action.rows())?;
    let buffer = Buffer::new(context, vector, resource, scalar)?;
    Ok(action.exec::<_, Shared>(buffer, row))
}

fn update(context: &Context<'_>, name: &str) -> Result<Exec, Fault> {
    let [data, vector, resource, scalar] = context.asm.operands.as_slice() else {
        return Err(context.unknown());
    };
    let update = Update::new(name).ok_or_else(|| context.unknown())?;
    let words = update.rows();
    let count = if is_double_operand(name) { 2 * words } else { words };
    let row = rows(context, data, count)?;
    let buffer = Buffer::new(context, vector, resource, scalar)?;
    let second = if count > words { row + words } else { row };
    let result = returns(context)?.then_some(row);
    let operands = Operands { result, data: [row, second] };
    let policy = Policy::memory(context.chip, name);
    Ok(atomic::atomic::<_, Shared>(buffer, update, operands, policy))
}

/// Whether a buffer atomic gives the old value back.
fn returns(context: &Context<'_>) -> Result<bool, Fault> {
    let asm = context.asm;
    if context.chip != Chip::Gfx1201 {
        return Ok(asm.has("sc0") || asm.has("glc"));
    }
    match asm.value("th") {
        None => Ok(false),
        Some(hint) if hint.starts_with("TH_ATOMIC_") => Ok(hint.ends_with("RETURN")),
        Some(_) => Err(context.unknown()),
    }
}

/// The scalar part of the address.
#[derive(Debug, Clone, Copy)]
enum Scalar {
    Register(usize),
    Constant(u32),
}

/// The operands of a buffer instruction's address.
#[derive(Debug, Clone, Copy)]
struct Buffer {
    /// Row of the index.
    index: Option<usize>,
    /// Row of the offset.
    vector: Option<usize>,
    /// First of the resource's registers.
    resource: usize,
    scalar: Scalar,
    offset: u32,
    site: Site,
}

impl Buffer {
    fn new(
        context: &Context<'_>,
        vector: &Operand,
        resource: &Operand,
        scalar: &Operand,
    ) -> Result<Buffer, Fault> {
        let asm = context.asm;
        let (with_index, with_offset) = (asm.has("idxen"), asm.has("offen"));
        let count = usize::from(with_index) + usize::from(with_offset);
        let first = match &vector.value {
            Value::Word(word) if word == "off" && count == 0 => 0,
            _ if count > 0 => rows(context, vector, count)?,
            _ => return Err(context.unknown()),
        };
        let resource = match resource.value {
            Value::Scalar(index, 4) => usize::from(index),
            _ => return Err(context.unknown()),
        };
        let scalar = match scalar.value {
            Value::Scalar(index, 1) if usize::from(index) == scalar::NULL => Scalar::Constant(0),
            Value::Scalar(index, 1) => Scalar::Register(usize::from(index)),
            Value::Integer(integer) => Scalar::Constant(integer as u32),
            Value::Literal(bits) => Scalar::Constant(bits as u32),
            _ => return Err(context.unknown()),
        };
        Ok(Buffer {
            index: with_index.then_some(first),
            vector: with_offset.then_some(first + usize::from(with_index)),
            resource,
            scalar,
            offset: offset(context)? as u32,
            site: Site::new(context),
        })
    }
}

/// The fields of a resource.
#[derive(Debug, Clone, Copy)]
struct Resource {
    base: u64,
    stride: u64,
    records: u64,
    /// Bytes of an element, if the buffer is swizzled.
    element: Option<u64>,
    /// Indices that lie side by side in a swizzled buffer.
    indices: u64,
    /// The thread's number is added to the index.
    thread: bool,
    /// No format: loads give zero, stores are dropped.
    unbound: bool,
    /// RDNA's choice of range check.
    select: u32,
}

impl Resource {
    #[inline(always)]
    fn new(chip: Chip, words: [u32; 4]) -> Resource {
        let bits = |word: usize, first: u32, count: u32| {
            u64::from(words[word] >> first & ((1 << count) - 1))
        };
        let thread = bits(3, 23, 1) != 0;
        let (element, unbound) = if chip.is_cdna() {
            ((bits(1, 31, 1) != 0).then(|| 2 << bits(3, 19, 2)), bits(3, 15, 4) == 0)
        } else {
            let element = match bits(1, 30, 2) {
                0 => None,
                3 => Some(16),
                _ => Some(4),
            };
            (element, bits(3, 12, 6) == 0)
        };
        let mut stride = bits(1, 16, 14);
        if chip.is_cdna() && thread {
            // Formatless accesses with the thread's number have 18 bits of stride.
            stride |= bits(3, 15, 4) << 14;
        }
        if chip == Chip::Gfx1201 {
            stride *= [1, 4, 8, 32][bits(3, 14, 2) as usize % 4];
        }
        Resource {
            base: u64::from(words[0]) | bits(1, 0, 16) << 32,
            stride,
            records: u64::from(words[2]),
            element,
            indices: 8 << bits(3, 21, 2),
            thread,
            unbound: unbound && !thread,
            select: bits(3, 28, 2) as u32,
        }
    }

    /// Whether the resource is that of private memory.
    #[inline(always)]
    fn is_private(&self) -> bool {
        self.thread && self.element.is_some() && self.base <= u64::from(u32::MAX)
    }

    /// Where in the buffer a record's byte lies.
    #[inline(always)]
    fn place(&self, index: u64, offset: u64) -> u64 {
        let Some(element) = self.element else {
            return self.stride.wrapping_mul(index).wrapping_add(offset);
        };
        let block = (index / self.indices).wrapping_mul(self.stride);
        let row = block.wrapping_add(offset / element * element).wrapping_mul(self.indices);
        row.wrapping_add(index % self.indices * element + offset % element)
    }
}

/// What an access has to stay below.
#[derive(Debug, Clone, Copy)]
struct Range {
    /// The index must be smaller.
    index: u64,
    /// The byte offset in the record or in the buffer must be smaller ...
    offset: u64,
    /// ... at its first byte, or at all of them.
    whole: bool,
}

impl Range {
    const ALL: Range = Range { index: u64::MAX, offset: u64::MAX, whole: false };
    const NONE: Range = Range { index: 0, ..Range::ALL };

    fn new(
        chip: Chip,
        resource: &Resource,
        indexed: bool,
        scalar: u32,
    ) -> Result<Range, Box<Fault>> {
        let records = resource.records;
        if resource.unbound {
            return Ok(Range::NONE);
        }
        if !chip.is_cdna() {
            let structured = Range { index: records, offset: resource.stride, whole: true };
            return Ok(match resource.select {
                0 => structured,
                1 => Range { index: records, ..Range::ALL },
                2 if records == 0 => Range::NONE,
                2 => Range::ALL,
                _ if resource.element.is_some() && resource.stride != 0 => structured,
                _ => {
                    let offset = records.saturating_sub(u64::from(scalar));
                    Range { offset, whole: true, ..Range::ALL }
                }
            });
        }
        match (resource.thread, indexed, resource.element) {
            (true, false, _) => Ok(Range::ALL),
            (false, false, None) => Ok(Range { offset: records, ..Range::ALL }),
            (false, true, _) if resource.stride != 0 => Ok(Range { index: records, ..Range::ALL }),
            _ => Err(Box::new(Fault::Illegal(
                "the range check of this buffer resource is not documented".to_string(),
            ))),
        }
    }

    /// How many of `units` parts of `payload` bytes each are in range.
    #[inline(always)]
    fn units(&self, index: u64, offset: u64, units: u64, payload: u64) -> u64 {
        if index >= self.index {
            return 0;
        }
        // The largest offset at which a part may begin.
        let before = if self.whole {
            (self.offset.saturating_add(1)).saturating_sub(payload)
        } else {
            self.offset
        };
        // The payload is a power of two.
        let parts = before.saturating_sub(offset).saturating_add(payload - 1);
        (parts >> payload.trailing_zeros()).min(units)
    }
}

// SAFETY: a row is found in an allocation as a whole; of other addresses `check` finds those that
// are in range in allocations, `private` those of private memory.
unsafe impl Locate for Buffer {
    #[inline(always)]
    fn locate(
        &self,
        wave: &mut Wave,
        group: &mut Group,
        kind: Kind,
        bytes: u32,
    ) -> Result<Found, Box<Fault>> {
        if kind != Kind::Atomic
            && self.index.is_none()
            && wave.exec() == wave.all_lanes()
            && let Some(vector) = self.vector
            && is_row(&wave.rows[vector].0, wave.lanes, bytes)
        {
            let offset = u64::from(wave.rows[vector].0[0]) + u64::from(self.offset);
            if let Some(first) = self.row(wave, group, offset, bytes)
                && row_is_good(self.site, wave, group, first, bytes)
            {
                return Ok(Found::Row(first));
            }
        }
        self.lanes(wave, group, kind, bytes).map(Found::Lanes)
    }
}

impl Buffer {
    /// The resource and the scalar part of the address.
    #[inline(always)]
    fn scalars(&self, wave: &Wave, chip: Chip) -> (Resource, u32) {
        let words: [u32; 4] = std::array::from_fn(|at| wave.sgpr[(self.resource + at) % 128]);
        let scalar = match self.scalar {
            Scalar::Register(index) => wave.sgpr[index],
            Scalar::Constant(value) => value,
        };
        (Resource::new(chip, words), scalar)
    }

    /// Address of the byte at `offset` of a plain buffer that holds all of the row behind it.
    #[inline(always)]
    fn row(&self, wave: &Wave, group: &Group, offset: u64, bytes: u32) -> Option<u64> {
        let (resource, scalar) = self.scalars(wave, group.chip);
        if resource.element.is_some() || resource.thread {
            return None;
        }
        let range = Range::new(group.chip, &resource, false, scalar).ok()?;
        let end = offset + u64::from(bytes) * u64::from(wave.lanes);
        let inside = range.index != 0 && end <= range.offset;
        inside.then(|| resource.base.wrapping_add(u64::from(scalar)).wrapping_add(offset))
    }

    /// Offsets without an index; `false` if there is no vector part.
    fn linear(&self, wave: &Wave, offsets: &mut [u64; LANES]) -> bool {
        let Some(row) = self.vector else { return false };
        let row = &wave.rows[row].0;
        for lane in 0..LANES {
            offsets[lane] = u64::from(row[lane]) + u64::from(self.offset);
        }
        true
    }

    #[inline(never)]
    fn lanes(
        &self,
        wave: &mut Wave,
        group: &mut Group,
        kind: Kind,
        bytes: u32,
    ) -> Result<Targets, Box<Fault>> {
        let (resource, scalar) = self.scalars(wave, group.chip);
        if resource.is_private() && self.index.is_none() {
            return self.private(wave, group, &resource, scalar, (kind, bytes));
        }
        let range = Range::new(group.chip, &resource, self.index.is_some(), scalar)?;
        // Parts that are checked one by one.
        let (units, payload) = match kind {
            Kind::Atomic => (1, bytes),
            _ if bytes > 4 => (bytes / 4, 4),
            _ => (1, bytes),
        };
        let (units, payload) = (u64::from(units), u64::from(payload));
        let base = resource.base.wrapping_add(u64::from(scalar));
        let (mut address, mut good, mut partial) = ([0; LANES], 0_u64, None);
        let linear = resource.element.is_none() && !resource.thread && self.index.is_none();
        if linear && range.index != 0 && self.linear(wave, &mut address) {
            // With all offsets in range there is nothing to find out lane by lane.
            let last = address.iter().copied().max().unwrap_or_default();
            good = if last + u64::from(bytes) <= range.offset { u64::MAX } else { 0 };
            address.iter_mut().for_each(|at| *at = base.wrapping_add(*at));
        }
        let rest = if good == 0 { 0..LANES } else { 0..0 };
        for lane in rest {
            let mut index = self.index.map_or(0, |row| u64::from(wave.rows[row].0[lane]));
            index += if resource.thread { lane as u64 } else { 0 };
            let vector = self.vector.map_or(0, |row| u64::from(wave.rows[row].0[lane]));
            let offset = vector + u64::from(self.offset);
            address[lane] = base.wrapping_add(resource.place(index, offset));
            let inside = range.units(index, offset, units, payload);
            good |= u64::from(inside != 0) << lane;
            if inside != 0 && inside != units {
                let words = partial.get_or_insert_with(|| Box::new([u8::MAX; LANES]));
                words[lane] = inside as u8;
            }
        }
        let (exec, lanes) = (wave.exec(), good & wave.exec());
        self.site.report(wave, group, (kind, Space::Global), &address, lanes, bytes);
        aligned(&address, lanes, (kind, bytes))?;
        match &partial {
            None => check(self.site, group, &address, lanes, (kind, bytes))?,
            Some(words) => partially(self.site, group, &address, lanes, (kind, bytes), words)?,
        }
        Ok(Targets { address, lanes, exec, words: partial })
    }
}

/// The check of accesses of which some are partly in range.
fn partially(
    site: Site,
    group: &mut Group,
    address: &[u64; LANES],
    lanes: u64,
    (kind, bytes): (Kind, u32),
    words: &[u8; LANES],
) -> Result<(), Box<Fault>> {
    for lane in lanes_of(lanes) {
        let bytes = bytes.min(4 * u32::from(words[lane]));
        check(site, group, address, 1 << lane, (kind, bytes))?;
    }
    Ok(())
}

impl Buffer {
    #[inline(never)]
    fn private(
        &self,
        wave: &mut Wave,
        group: &mut Group,
        resource: &Resource,
        scalar: u32,
        (kind, bytes): (Kind, u32),
    ) -> Result<Targets, Box<Fault>> {
        let exec = wave.exec();
        let shared = (resource.base as u32).wrapping_add(scalar);
        let element = resource.element.unwrap_or(4) as u32;
        if !shared.is_multiple_of(resource.indices as u32 * element) {
            return Err(Box::new(Fault::Illegal(format!(
                "the scalar offset {shared:#x} in private memory is not a whole element of all lanes"
            ))));
        }
        let first = (shared / resource.indices as u32).wrapping_add(self.offset);
        let mut address: [u64; LANES] = std::array::from_fn(|lane| {
            let vector = self.vector.map_or(0, |row| wave.rows[row].0[lane]);
            u64::from(first.wrapping_add(vector))
        });
        self.site.report(wave, group, (kind, Space::Scratch), &address, exec, bytes);
        aligned(&address, exec, (kind, bytes))?;
        for lane in lanes_of(exec) {
            address[lane] = private(wave, lane, address[lane] as u32, (kind, bytes))?;
        }
        Ok(Targets { address, lanes: exec, exec, words: None })
    }
}
