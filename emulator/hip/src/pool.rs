//! Memory in the order of streams: `hipMallocAsync`, `hipFreeAsync` and the pools behind them.
//!
//! A pool is an account, not a store: what is freed goes back at once. That is allowed by its
//! interface, and a use after the free is then found.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::blocks::{self, Kind};
use crate::error::{HipError, Result};
use crate::ffi::{List, Place, Room, api, given};
use crate::handle::{fresh, lock};
use crate::runtime::{Device, Runtime, runtime};
use crate::stream;
use crate::types::{Address, Handle, MemAccessDesc, MemLocation, MemPoolProps};
use crate::work::Work;

/// `hipMemAccessFlagsProtReadWrite`.
const READ_WRITE: u32 = 3;
/// `hipMemLocationTypeDevice`.
const LOCATION_DEVICE: u32 = 1;
/// `hipMemAllocationTypePinned`.
const PINNED: u32 = 1;

/// A pool.
pub struct Pool {
    device: usize,
    /// Attributes that a program set: the number and the value.
    settings: Mutex<BTreeMap<u32, u64>>,
    /// Most bytes that were in use.
    peak: AtomicU64,
    /// Rights of other devices.
    access: Mutex<BTreeMap<i32, u32>>,
}

impl Pool {
    /// A pool of a device.
    pub fn new(device: usize) -> Pool {
        Pool {
            device,
            settings: Mutex::default(),
            peak: AtomicU64::new(0),
            access: Mutex::default(),
        }
    }
}

fn find(runtime: &Runtime, pool: Handle) -> Result<Arc<Pool>> {
    runtime.pools.get(pool).ok_or(HipError::INVALID_VALUE)
}

/// Bytes in use of a pool.
fn used(runtime: &Runtime, pool: Handle) -> u64 {
    let blocks = runtime.blocks.select(|block| block.kind == Kind::Pool(pool));
    blocks.iter().map(|block| block.size as u64).sum()
}

fn allocate(
    place: Option<&mut Address>,
    size: usize,
    stream: Handle,
    choose: impl FnOnce(&Device) -> Handle,
) -> Result {
    let place = given(place)?;
    let runtime = runtime()?;
    let stream = stream::find(runtime, stream)?;
    runtime.captures.forbid_in(&stream)?;
    if size == 0 {
        *place = 0;
        return Ok(());
    }
    let handle = choose(&runtime.devices[stream.device]);
    let pool = find(runtime, handle)?;
    let device = &runtime.devices[pool.device];
    device.check()?;
    let kind = Kind::Pool(handle);
    *place = blocks::allocate(runtime, device, size, kind, 0, "hipMallocAsync")?;
    pool.peak.fetch_max(used(runtime, handle), Ordering::Relaxed);
    Ok(())
}

/// Numbers of `hipMemPoolAttr`: 1 to 3 are switches, 4 a threshold, 5 to 8 bytes reserved and used,
/// now and at most.
fn attribute(runtime: &Runtime, handle: Handle, number: u32) -> Result<u64> {
    let pool = find(runtime, handle)?;
    let set = lock(&pool.settings).get(&number).copied();
    Ok(match number {
        1..=3 => set.unwrap_or(1),
        4 => set.unwrap_or(0),
        5 | 7 => used(runtime, handle),
        6 | 8 => pool.peak.load(Ordering::Relaxed),
        _ => return Err(HipError::INVALID_VALUE),
    })
}

api! {
    /// Allocates in the order of a stream.
    fn hipMallocAsync(address: Option<&mut Address>, size: usize, stream: Handle) {
        allocate(address, size, stream, |device| *lock(&device.pool))
    }

    /// Allocates from a pool in the order of a stream.
    fn hipMallocFromPoolAsync(
        address: Option<&mut Address>,
        size: usize,
        pool: Handle,
        stream: Handle,
    ) {
        allocate(address, size, stream, |_| pool)
    }

    /// Frees in the order of a stream.
    fn hipFreeAsync(address: Address, stream: Handle) {
        let runtime = runtime()?;
        let stream = stream::find(runtime, stream)?;
        if address == 0 {
            return Ok(());
        }
        let block = runtime.blocks.at(address).filter(|block| block.kind.is_on_device());
        block.ok_or(HipError::INVALID_VALUE)?;
        stream::put_uncapturable(runtime, &stream, Work::Free(address)).map(|_| ())
    }

    /// A device's default pool.
    fn hipDeviceGetDefaultMemPool(pool: Option<&mut Handle>, device: i32) {
        pool.put(runtime()?.device(device)?.default_pool)
    }

    /// The pool that a device uses.
    fn hipDeviceGetMemPool(pool: Option<&mut Handle>, device: i32) {
        pool.put(*lock(&runtime()?.device(device)?.pool))
    }

    /// Makes a device use a pool.
    fn hipDeviceSetMemPool(device: i32, pool: Handle) {
        let runtime = runtime()?;
        let device = runtime.device(device)?;
        if find(runtime, pool)?.device != device.ordinal {
            return Err(HipError::INVALID_VALUE);
        }
        *lock(&device.pool) = pool;
        Ok(())
    }

    /// Makes a pool.
    fn hipMemPoolCreate(pool: Option<&mut Handle>, props: Option<&MemPoolProps>) {
        let (place, props) = (given(pool)?, given(props)?);
        let runtime = runtime()?;
        if props.alloc_type != PINNED || props.location.location_type != LOCATION_DEVICE {
            return Err(HipError::INVALID_VALUE);
        }
        if props.handle_types != 0 {
            return Err(HipError::NOT_SUPPORTED);
        }
        let device = runtime.device(props.location.id)?.ordinal;
        let handle = fresh();
        runtime.pools.insert(handle, Arc::new(Pool::new(device)));
        *place = handle;
        Ok(())
    }

    /// Ends a pool. What was allocated from it lives on.
    fn hipMemPoolDestroy(pool: Handle) {
        let runtime = runtime()?;
        let device = &runtime.devices[find(runtime, pool)?.device];
        if pool == device.default_pool {
            return Err(HipError::INVALID_VALUE);
        }
        let mut chosen = lock(&device.pool);
        if *chosen == pool {
            *chosen = device.default_pool;
        }
        runtime.pools.remove(pool);
        Ok(())
    }

    /// Gives memory back that a pool keeps; it keeps none.
    fn hipMemPoolTrimTo(pool: Handle, _keep: usize) {
        find(runtime()?, pool).map(|_| ())
    }

    /// An attribute of a pool: an `int` up to number 3, then a `uint64_t`.
    fn hipMemPoolGetAttribute(pool: Handle, number: u32, value: Address) {
        let found = attribute(runtime()?, pool, number)?;
        if number <= 3 {
            Room::at(value).write(&[found as i32])
        } else {
            Room::at(value).write(&[found])
        }
    }

    /// Sets an attribute of a pool. Maxima can only be set to zero.
    fn hipMemPoolSetAttribute(pool: Handle, number: u32, value: Address) {
        let runtime = runtime()?;
        let found = find(runtime, pool)?;
        match number {
            1..=3 => {
                let on: i32 = List::at(value).get(0)?;
                lock(&found.settings).insert(number, u64::from(on != 0));
            }
            4 => {
                lock(&found.settings).insert(number, List::at(value).get(0)?);
            }
            6 | 8 if List::<u64>::at(value).get(0)? == 0 => {
                found.peak.store(used(runtime, pool), Ordering::Relaxed);
            }
            _ => return Err(HipError::INVALID_VALUE),
        }
        Ok(())
    }

    /// Sets who may access a pool's memory; every device can, whatever is set.
    fn hipMemPoolSetAccess(pool: Handle, list: List<MemAccessDesc>, count: usize) {
        let runtime = runtime()?;
        let found = find(runtime, pool)?;
        for one in list.read(count)? {
            if one.location.location_type != LOCATION_DEVICE {
                return Err(HipError::INVALID_VALUE);
            }
            let device = runtime.device(one.location.id)?;
            if device.ordinal == found.device && one.flags != READ_WRITE {
                return Err(HipError::INVALID_VALUE);
            }
            lock(&found.access).insert(one.location.id, one.flags);
        }
        Ok(())
    }

    /// Who may access a pool's memory.
    fn hipMemPoolGetAccess(
        flags: Option<&mut u32>,
        pool: Handle,
        location: Option<&MemLocation>,
    ) {
        let (place, location) = (given(flags)?, given(location)?);
        let runtime = runtime()?;
        let found = find(runtime, pool)?;
        if location.location_type != LOCATION_DEVICE {
            return Err(HipError::INVALID_VALUE);
        }
        let own = runtime.device(location.id)?.ordinal == found.device;
        let set = lock(&found.access).get(&location.id).copied();
        *place = if own { READ_WRITE } else { set.unwrap_or(0) };
        Ok(())
    }
}
