//! Memory: the device's allocations here, the instructions that access them in the modules below.
//!
//! Global memory is a reserved range of the host's addresses in which every allocation lies; memory
//! of the host program can be registered beside it. A device address is a host address, as with
//! unified memory, so kernels, copies and the host program agree about pointers. Nothing is
//! dereferenced before it was found in an allocation.

#![allow(unsafe_code)]

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::program::{Compiled, Context};
use crate::wave::{Exec, Fault};
use written::Written;

mod address;
mod atomic;
mod buffer;
mod cell;
mod direct;
mod exchange;
mod lds;
mod transfer;
mod transpose;
mod vector;
mod written;

#[cfg(test)]
mod tests;

/// Alignment of allocations and of the space between them, in bytes.
pub const ALIGNMENT: u64 = 256;

/// Base of the aperture through which flat accesses reach private memory.
pub const PRIVATE_APERTURE: u64 = 0x0001_0000_0000_0000;
/// Base of the aperture through which flat accesses reach LDS.
pub const SHARED_APERTURE: u64 = 0x0002_0000_0000_0000;
/// Bytes of each aperture.
pub const APERTURE_BYTES: u64 = 1 << 32;

/// Freed allocations that reports still know.
const FREED: usize = 256;
/// Farthest distance in bytes at which a report names an allocation.
const NEAR: u64 = 1 << 20;
/// Freed ranges of at least this many bytes give their pages back to the host.
const RELEASE: u64 = 1 << 20;

/// Compiles an instruction that accesses memory.
pub fn compile(context: &Context<'_>) -> Compiled {
    const CACHE: [&str; 10] = [
        "buffer_wbl2",
        "buffer_inv",
        "buffer_invl2",
        "buffer_wbinvl1",
        "buffer_wbinvl1_vol",
        "buffer_gl0_inv",
        "buffer_gl1_inv",
        "global_inv",
        "global_wb",
        "global_wbinv",
    ];
    let mnemonic = context.asm.mnemonic.as_str();
    if CACHE.contains(&mnemonic) {
        return Some(cache(context));
    }
    let (prefix, _) = mnemonic.split_once('_')?;
    match prefix {
        "global" | "flat" | "scratch" => vector::compile(context),
        "ds" => lds::compile(context),
        "buffer" => buffer::compile(context),
        _ => None,
    }
}

/// An instruction that writes back or invalidates caches. There are none, but programs put such
/// instructions where their accesses must not pass each other, so the host's must not, either.
fn cache(context: &Context<'_>) -> Result<Exec, Fault> {
    vector::check_modifiers(context, &[])?;
    if !context.asm.operands.is_empty() {
        return Err(context.unknown());
    }
    Ok(Box::new(|_, _| {
        std::sync::atomic::fence(Ordering::SeqCst);
        Ok(())
    }))
}

/// A live allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocation {
    /// Number in the order of allocation, unique in the process's memory.
    pub id: u64,
    /// Address of its first byte.
    pub base: u64,
    /// Bytes asked for.
    pub size: u64,
    /// What it is, for reports: "hipMalloc #3".
    pub name: String,
}

/// Bytes of device memory in use; memory of the host program is not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statistics {
    /// Bytes of live allocations.
    pub used: u64,
    /// The most that there ever were.
    pub peak: u64,
    /// Live allocations.
    pub allocations: u64,
    /// Bytes of the reserved range.
    pub reserved: u64,
}

/// A range of addresses known to be good, kept by whoever accesses memory often.
#[derive(Debug, Clone, Copy, Default)]
pub struct Region {
    first: u64,
    end: u64,
    /// What [`Memory::generation`] was.
    generation: u64,
}

impl Region {
    /// Whether `bytes` at `address` lie in the range, which may be stale.
    #[inline(always)]
    fn holds(&self, address: u64, bytes: u64) -> bool {
        let room = (self.end - self.first).wrapping_sub(bytes);
        bytes <= self.end - self.first && address.wrapping_sub(self.first) <= room
    }
}

/// The ranges that the accesses of one workgroup found good. Each instruction has a place in it, so
/// that the operands of a kernel do not displace each other.
#[derive(Debug, Clone, Copy, Default)]
pub struct Regions([Region; Regions::PLACES]);

impl Regions {
    const PLACES: usize = 32;

    /// The place of the instruction at an address.
    pub fn place(address: u64) -> usize {
        (address / 4) as usize % Regions::PLACES
    }

    /// The region at a place.
    #[inline(always)]
    pub fn at(&mut self, place: usize) -> &mut Region {
        &mut self.0[place % Regions::PLACES]
    }
}

/// All device memory of the process.
pub struct Memory {
    base: u64,
    reserved: u64,
    table: Mutex<Table>,
    /// Counts what makes a [`Region`] stale: allocations that went away.
    generation: AtomicU64,
    written: Written,
}

#[derive(Default)]
struct Table {
    /// Live allocations by base address.
    live: BTreeMap<u64, Allocation>,
    /// Free ranges below `top`: base and size. No two of them touch.
    free: BTreeMap<u64, u64>,
    /// Allocations that were freed, the last at the back.
    freed: VecDeque<Allocation>,
    /// End of the used part of the reserved range.
    top: u64,
    next_id: u64,
    used: u64,
    peak: u64,
}

impl Memory {
    /// Reserves `bytes` of address space; pages come as they are touched.
    pub fn reserve(bytes: u64) -> std::io::Result<Memory> {
        // SAFETY: an anonymous mapping at an address of the kernel's choice aliases nothing.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes as usize,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        let base = base as u64;
        let table = Table { top: base, ..Table::default() };
        let generation = AtomicU64::new(1);
        let (table, written) = (Mutex::new(table), Written::default());
        Ok(Memory { base, reserved: bytes, table, generation, written })
    }

    /// Reserves what a process can need: 1 TiB of address space, or the largest power of two below
    /// it that the host grants, but no less than 1 GiB.
    pub fn reserve_most() -> std::io::Result<Memory> {
        let mut bytes = 1_u64 << 40;
        loop {
            match Memory::reserve(bytes) {
                Err(_) if bytes > 1 << 30 => bytes /= 2,
                outcome => return outcome,
            }
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Allocates `size` bytes, aligned to [`ALIGNMENT`]; `None` if the reserved range is full.
    pub fn allocate(&self, size: u64, name: &str) -> Option<u64> {
        self.allocate_aligned(size, ALIGNMENT, name)
    }

    /// Allocates `size` bytes at a multiple of `alignment`, a power of two; `None` if the reserved
    /// range is full. At least [`ALIGNMENT`] bytes behind every allocation belong to none.
    pub fn allocate_aligned(&self, size: u64, alignment: u64, name: &str) -> Option<u64> {
        let alignment = alignment.max(ALIGNMENT);
        if !alignment.is_power_of_two() {
            return None;
        }
        let mut table = self.table();
        let base = table.take(span(size)?, alignment, self.base + self.reserved)?;
        table.insert(base, size, name);
        table.used += size;
        table.peak = table.peak.max(table.used);
        self.written.start(base, size);
        Some(base)
    }

    /// Frees the allocation that starts at `base`; `false` if there is none.
    pub fn free(&self, base: u64) -> bool {
        let mut table = self.table();
        let own = base >= self.base && base < self.base + self.reserved;
        let Some(allocation) = (if own { table.live.remove(&base) } else { None }) else {
            return false;
        };
        let size = allocation.size;
        table.used -= size;
        // The span of a live allocation did not overflow when it was allocated.
        let span = span(size).unwrap_or(size);
        if span >= RELEASE {
            release(base, span);
        }
        // Addresses are not used again while writes are tracked, so that late accesses are found.
        if !self.written.is_enabled() {
            table.give(base, span);
        }
        self.written.end(base);
        table.bury(allocation);
        self.generation.fetch_add(1, Ordering::SeqCst);
        true
    }

    /// Makes memory of the host program known, so that kernels may access it.
    pub fn register(&self, base: u64, size: u64, name: &str) {
        self.table().insert(base, size, name);
    }

    /// Forgets what [`Memory::register`] made known.
    pub fn unregister(&self, base: u64) -> bool {
        let mut table = self.table();
        let Some(allocation) = table.live.remove(&base) else { return false };
        table.bury(allocation);
        self.generation.fetch_add(1, Ordering::SeqCst);
        true
    }

    /// Bytes in use.
    pub fn statistics(&self) -> Statistics {
        let table = self.table();
        let own = table.live.range(self.base..self.base + self.reserved);
        Statistics {
            used: table.used,
            peak: table.peak,
            allocations: own.count() as u64,
            reserved: self.reserved,
        }
    }

    /// The allocation that holds `address`.
    pub fn find(&self, address: u64) -> Option<Allocation> {
        self.table().holder(address).cloned()
    }

    /// The allocation that last held `address`, if it was freed not long ago.
    pub fn find_freed(&self, address: u64) -> Option<Allocation> {
        self.table().former_holder(address).cloned()
    }

    /// Every live allocation, in the order of addresses.
    pub fn allocations(&self) -> Vec<Allocation> {
        self.table().live.values().cloned().collect()
    }

    /// Whether an address lies in the reserved range, allocated or not.
    pub fn covers(&self, address: u64) -> bool {
        (self.base..self.base + self.reserved).contains(&address)
    }

    /// Whether `bytes` at `address` lie within one allocation; `region` remembers the last one.
    #[inline(always)]
    pub fn contains(&self, region: &mut Region, address: u64, bytes: u64) -> bool {
        (region.holds(address, bytes)
            && region.generation == self.generation.load(Ordering::Relaxed))
            || self.locate(region, address, bytes)
    }

    #[cold]
    #[inline(never)]
    fn locate(&self, region: &mut Region, address: u64, bytes: u64) -> bool {
        let table = self.table();
        let Some(found) = table.holder(address) else { return false };
        let generation = self.generation.load(Ordering::Relaxed);
        *region = Region { first: found.base, end: found.base + found.size, generation };
        address.checked_add(bytes).is_some_and(|end| end <= region.end)
    }

    /// Copies bytes out of device memory.
    pub fn read(&self, address: u64, out: &mut [u8]) -> Result<(), Box<Fault>> {
        self.expect("load", address, out.len())?;
        // SAFETY: the range lies within a live allocation; races with other threads are the
        // program's own, as on the device.
        unsafe { std::ptr::copy(address as *const u8, out.as_mut_ptr(), out.len()) };
        Ok(())
    }

    /// Copies bytes into device memory.
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Box<Fault>> {
        self.expect("store", address, bytes.len())?;
        // SAFETY: as in `read`.
        unsafe { std::ptr::copy(bytes.as_ptr(), address as *mut u8, bytes.len()) };
        self.written.mark(address, bytes.len() as u64);
        Ok(())
    }

    /// Sets bytes of device memory.
    pub fn fill(&self, address: u64, value: u8, bytes: u64) -> Result<(), Box<Fault>> {
        let size = usize::try_from(bytes).unwrap_or(usize::MAX);
        self.expect("store", address, size)?;
        // SAFETY: as in `read`.
        unsafe { std::ptr::write_bytes(address as *mut u8, value, size) };
        self.written.mark(address, bytes);
        Ok(())
    }

    /// Keeps track, for allocations made from now on, of the bytes that were ever written, and no
    /// longer uses addresses again that were freed.
    pub fn track_writes(&self) {
        self.written.enable();
    }

    /// Notes that bytes were written, by a kernel or behind the allocator's back.
    pub fn mark_written(&self, address: u64, bytes: u64) {
        self.written.mark(address, bytes);
    }

    /// The first byte of a range that nobody wrote, if its allocation is tracked.
    pub fn first_unwritten(&self, address: u64, bytes: u64) -> Option<u64> {
        self.written.first_unwritten(address, bytes)
    }

    fn expect(&self, access: &'static str, address: u64, bytes: usize) -> Result<(), Box<Fault>> {
        if bytes == 0 || self.contains(&mut Region::default(), address, bytes as u64) {
            return Ok(());
        }
        Err(self.fault(access, address, u32::try_from(bytes).unwrap_or(u32::MAX), 0))
    }

    /// The fault of an access that is not within one allocation.
    #[cold]
    pub fn fault(&self, access: &'static str, address: u64, bytes: u32, lane: u32) -> Box<Fault> {
        let note = self.table().describe(address);
        Box::new(Fault::Address { access, address, bytes, lane, note })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the range that `reserve` mapped.
        unsafe { libc::munmap(self.base as *mut libc::c_void, self.reserved as usize) };
    }
}

/// Bytes that an allocation of `size` takes up.
fn span(size: u64) -> Option<u64> {
    size.max(1).checked_next_multiple_of(ALIGNMENT)?.checked_add(ALIGNMENT)
}

/// Gives the whole pages of a free range back to the host; they read as zeros when touched again.
fn release(base: u64, bytes: u64) {
    const PAGE: u64 = 4096;
    let first = base.next_multiple_of(PAGE);
    let end = (base + bytes) & !(PAGE - 1);
    if first < end {
        // SAFETY: a range of our own mapping in which no allocation lives any more.
        unsafe {
            libc::madvise(first as *mut libc::c_void, (end - first) as usize, libc::MADV_DONTNEED)
        };
    }
}

impl Table {
    fn insert(&mut self, base: u64, size: u64, name: &str) {
        let id = self.next_id;
        self.next_id += 1;
        self.live.insert(base, Allocation { id, base, size, name: name.to_string() });
    }

    /// Takes a range out of the first free one that is large enough, or from the top.
    fn take(&mut self, span: u64, alignment: u64, limit: u64) -> Option<u64> {
        let fits = |(first, size): (&u64, &u64)| {
            let base = first.checked_next_multiple_of(alignment)?;
            (base.checked_add(span)? <= first + size).then_some((*first, *size, base))
        };
        if let Some((first, size, base)) = self.free.iter().find_map(fits) {
            self.free.remove(&first);
            if base > first {
                self.free.insert(first, base - first);
            }
            if base + span < first + size {
                self.free.insert(base + span, first + size - base - span);
            }
            return Some(base);
        }
        let first = self.top;
        let base = first.checked_next_multiple_of(alignment)?;
        let end = base.checked_add(span)?;
        if end > limit {
            return None;
        }
        self.top = end;
        if base > first {
            self.give(first, base - first);
        }
        Some(base)
    }

    /// Puts a range among the free ones, joined to its neighbours.
    fn give(&mut self, mut base: u64, mut size: u64) {
        if let Some((&before, &length)) = self.free.range(..base).next_back()
            && before + length == base
        {
            self.free.remove(&before);
            (base, size) = (before, length + size);
        }
        if let Some(length) = self.free.remove(&(base + size)) {
            size += length;
        }
        if base + size == self.top {
            self.top = base;
        } else {
            self.free.insert(base, size);
        }
    }

    fn bury(&mut self, allocation: Allocation) {
        if self.freed.len() == FREED {
            self.freed.pop_front();
        }
        self.freed.push_back(allocation);
    }

    fn holder(&self, address: u64) -> Option<&Allocation> {
        let (_, allocation) = self.live.range(..=address).next_back()?;
        (address - allocation.base < allocation.size).then_some(allocation)
    }

    fn former_holder(&self, address: u64) -> Option<&Allocation> {
        let holds = |a: &&Allocation| address >= a.base && address - a.base < a.size.max(1);
        self.freed.iter().rev().find(holds)
    }

    /// What is at or near an address, in words that begin with ", ", or nothing.
    fn describe(&self, address: u64) -> String {
        let sized = |a: &Allocation| format!("{} ({:#x}, {} bytes)", a.name, a.base, a.size);
        if let Some(inside) = self.holder(address) {
            return format!(", it crosses the end of {}", sized(inside));
        }
        if let Some(freed) = self.former_holder(address) {
            return format!(", in {}, which was freed", sized(freed));
        }
        let before = self.live.range(..=address).next_back().map(|(_, a)| a);
        let after = self.live.range(address..).next().map(|(_, a)| a);
        let past = before.map(|a| (address - (a.base + a.size), a)).filter(|(d, _)| *d < NEAR);
        let short = after.map(|a| (a.base - address, a)).filter(|(d, _)| *d < NEAR);
        match (past, short) {
            (Some((past, a)), Some((short, _))) if past <= short => {
                format!(", {past} bytes past the end of {}", sized(a))
            }
            (_, Some((short, a))) => format!(", {short} bytes before {}", sized(a)),
            (Some((past, a)), None) => format!(", {past} bytes past the end of {}", sized(a)),
            (None, None) if address < 4096 => ", a null pointer".to_string(),
            (None, None) => String::new(),
        }
    }
}
