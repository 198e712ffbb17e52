//! What the program allocated, and of which kind.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{HipError, Result};
use crate::handle::lock;
use crate::runtime::{Device, Runtime};
use crate::types::{Address, Handle};

/// How memory came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `hipMalloc` and its like.
    Device,
    /// `hipMallocAsync`.
    Pool(Handle),
    /// `hipMallocManaged`.
    Managed,
    /// `hipHostMalloc`.
    Host,
    /// `hipHostRegister`.
    Registered,
}

impl Kind {
    /// Counts as memory of a device.
    pub fn is_on_device(self) -> bool {
        matches!(self, Kind::Device | Kind::Pool(_) | Kind::Managed)
    }
}

/// An allocation.
#[derive(Debug, Clone, Copy)]
pub struct Block {
    /// First byte.
    pub base: Address,
    /// Bytes.
    pub size: usize,
    /// How it came about.
    pub kind: Kind,
    /// The device that was current.
    pub device: usize,
    /// Flags of the function that made it.
    pub flags: u32,
    /// A number that no other allocation has.
    pub id: u64,
}

/// All allocations, by address.
#[derive(Default)]
pub struct Blocks(Mutex<BTreeMap<Address, Block>>);

impl Blocks {
    /// The allocation that holds an address.
    pub fn find(&self, address: Address) -> Option<Block> {
        let blocks = lock(&self.0);
        let (_, block) = blocks.range(..=address).next_back()?;
        (address - block.base < block.size.max(1)).then_some(*block)
    }

    /// The allocation that starts at an address.
    pub fn at(&self, base: Address) -> Option<Block> {
        lock(&self.0).get(&base).copied()
    }

    /// Whether any byte of a range belongs to an allocation.
    pub fn overlaps(&self, base: Address, size: usize) -> bool {
        let end = base.saturating_add(size);
        let blocks = lock(&self.0);
        blocks.range(..end).next_back().is_some_and(|(_, b)| b.base.saturating_add(b.size) > base)
    }

    /// Takes out the allocation that starts at an address, if it is of the right kind.
    fn take(&self, base: Address, kind: impl Fn(Kind) -> bool) -> Option<Block> {
        let mut blocks = lock(&self.0);
        let right = blocks.get(&base).is_some_and(|block| kind(block.kind));
        if right { blocks.remove(&base) } else { None }
    }

    /// Every allocation for which `condition` holds.
    pub fn select(&self, condition: impl Fn(&Block) -> bool) -> Vec<Block> {
        lock(&self.0).values().filter(|block| condition(block)).copied().collect()
    }

    fn insert(&self, block: Block) {
        lock(&self.0).insert(block.base, block);
    }
}

/// Allocates memory; `name` is the function of the API, for reports.
pub fn allocate(
    runtime: &Runtime,
    device: &Device,
    size: usize,
    kind: Kind,
    flags: u32,
    name: &str,
) -> Result<Address> {
    if kind.is_on_device() {
        device.take(size as u64)?;
    }
    let id = next_id();
    let Some(base) = runtime.memory.allocate(size as u64, &format!("{name} #{id}")) else {
        if kind.is_on_device() {
            device.give_back(size as u64);
        }
        return Err(HipError::OUT_OF_MEMORY);
    };
    if matches!(kind, Kind::Host | Kind::Managed) {
        // The host writes there without asking, so all of it counts as written.
        runtime.memory.mark_written(base, size as u64);
    }
    let base = base as Address;
    runtime.blocks.insert(Block { base, size, kind, device: device.ordinal, flags, id });
    Ok(base)
}

/// Frees the allocation that starts at `base`, if it is of the right kind.
pub fn free(runtime: &Runtime, base: Address, kind: impl Fn(Kind) -> bool) -> Result<Block> {
    let block = runtime.blocks.take(base, kind).ok_or(HipError::INVALID_VALUE)?;
    runtime.memory.free(base as u64);
    if block.kind.is_on_device() {
        runtime.devices[block.device].give_back(block.size as u64);
    }
    Ok(block)
}

/// Makes memory of the program accessible to kernels.
pub fn register(runtime: &Runtime, base: Address, size: usize, flags: u32) -> Result {
    if runtime.blocks.overlaps(base, size) {
        return Err(HipError::HOST_MEMORY_ALREADY_REGISTERED);
    }
    let id = next_id();
    runtime.memory.register(base as u64, size as u64, &format!("hipHostRegister #{id}"));
    let device = runtime.current().ordinal;
    runtime.blocks.insert(Block { base, size, kind: Kind::Registered, device, flags, id });
    Ok(())
}

/// Ends that.
pub fn unregister(runtime: &Runtime, base: Address) -> Result {
    let block = runtime.blocks.take(base, |kind| kind == Kind::Registered);
    block.ok_or(HipError::HOST_MEMORY_NOT_REGISTERED)?;
    runtime.memory.unregister(base as u64);
    Ok(())
}

fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
