//! Memory: allocation, registration, copies, fills, questions about pointers.

use std::sync::atomic::Ordering;

use crate::abi::{Abi, MemoryType};
use crate::blocks::{self, Block, Kind};
use crate::copy::{Copy, Fill, STAGED_BYTES, Side, Whose};
use crate::device::PITCH_ALIGNMENT;
use crate::error::{HipError, Result};
use crate::ffi::{List, Place, Room, api, given};
use crate::graph::{NodeWork, copy_from_3d};
use crate::register::part_of;
use crate::runtime::{Device, Runtime, runtime};
use crate::stream;
use crate::types::{
    Address, ChannelFormatDesc, DrvMemcpy2d, DrvMemcpy3d, Extent, Handle, Memcpy3d, PitchedPtr,
    PointerAttributes, flag, kind,
};

/// `hipInvalidDeviceId`.
const INVALID_DEVICE_ID: i32 = -2;
/// `hipCpuDeviceId`.
const CPU_DEVICE_ID: i32 = -1;

/// Checks that a number is a `hipMemcpyKind`.
pub fn check_kind(kind: u32) -> Result {
    if kind <= kind::DEFAULT || kind == kind::DEVICE_TO_DEVICE_NO_CU {
        return Ok(());
    }
    Err(HipError::INVALID_MEMCPY_DIRECTION)
}

/// Allocates for a function of the API.
fn allocate(
    place: Option<&mut Address>,
    size: usize,
    kind: Kind,
    flags: u32,
    name: &str,
) -> Result {
    let place = given(place)?;
    *place = 0;
    let runtime = runtime()?;
    runtime.captures.forbid_unsafe()?;
    let device = runtime.current();
    device.check()?;
    if size > 0 {
        *place = blocks::allocate(runtime, device, size, kind, flags, name)?;
    }
    Ok(())
}

fn allocate_host(place: Option<&mut Address>, size: usize, flags: u32, name: &str) -> Result {
    if flags & !flag::HOST_MALLOC_ALL != 0 {
        return Err(HipError::INVALID_VALUE);
    }
    allocate(place, size, Kind::Host, flags, name)
}

/// Frees memory when nothing uses it any more: the device's work is waited for.
fn free(address: Address, kind: impl Fn(Kind) -> bool) -> Result {
    let runtime = runtime()?;
    if address == 0 {
        return Ok(());
    }
    runtime.captures.forbid_unsafe()?;
    let block = runtime.blocks.at(address).filter(|block| kind(block.kind));
    let device = &runtime.devices[block.ok_or(HipError::INVALID_VALUE)?.device];
    let state = stream::synchronize_device(device);
    blocks::free(runtime, address, kind)?;
    state
}

/// Frees everything that belongs to a device.
pub fn release_device(runtime: &Runtime, device: &Device) {
    let of_device = |block: &Block| block.device == device.ordinal;
    for block in runtime.blocks.select(of_device) {
        let _ = match block.kind {
            Kind::Registered => blocks::unregister(runtime, block.base),
            _ => blocks::free(runtime, block.base, |_| true).map(|_| ()),
        };
    }
}

/// A pitched allocation; gives its address and the bytes from row to row.
fn allocate_pitched(extent: Extent, name: &str) -> Result<(Address, usize)> {
    let Extent { width, height, depth } = extent;
    let pitch = width.checked_next_multiple_of(PITCH_ALIGNMENT).ok_or(HipError::INVALID_VALUE)?;
    let size = pitch.checked_mul(height).and_then(|slice| slice.checked_mul(depth));
    let mut address = 0;
    allocate(Some(&mut address), size.ok_or(HipError::OUT_OF_MEMORY)?, Kind::Device, 0, name)?;
    Ok((address, pitch))
}

/// Copies while the program waits.
fn copy_now(stream: Handle, copy: Copy) -> Result {
    check_kind(copy.kind)?;
    let runtime = runtime()?;
    if copy.is_empty() {
        return Ok(());
    }
    copy.check(runtime)?;
    stream::put_and_wait(runtime, &stream::find(runtime, stream)?, NodeWork::Copy(copy, false))
}

/// Puts a copy into a stream. The program may use pageable memory again as soon as this returns, as
/// on a card.
fn copy_async(stream: Handle, mut copy: Copy) -> Result {
    check_kind(copy.kind)?;
    let runtime = runtime()?;
    let stream = stream::find(runtime, stream)?;
    if copy.is_empty() {
        return Ok(());
    }
    let (dst, src) = copy.check(runtime)?;
    let capturing = runtime.captures.position(&stream)?.is_some();
    let small = copy.bytes() <= STAGED_BYTES;
    if !capturing && src == Whose::Program && dst == Whose::Device && small {
        copy.stage();
    }
    let pageable = dst == Whose::Program || src == Whose::Program;
    let must_wait = pageable && copy.staged.is_none();
    if let Some(mark) = stream::put(runtime, &stream, NodeWork::Copy(copy, true))?
        && must_wait
    {
        mark.wait()?;
        runtime.devices[stream.device].check()?;
    }
    Ok(())
}

fn fill_now(stream: Handle, fill: Fill) -> Result {
    let runtime = runtime()?;
    fill.check(runtime)?;
    stream::put_and_wait(runtime, &stream::find(runtime, stream)?, NodeWork::Fill(fill))
}

fn fill_async(stream: Handle, fill: Fill) -> Result {
    let runtime = runtime()?;
    fill.check(runtime)?;
    stream::put(runtime, &stream::find(runtime, stream)?, NodeWork::Fill(fill)).map(|_| ())
}

/// A fill of bytes in rows.
fn fill_2d(address: Address, pitch: usize, value: i32, width: usize, height: usize) -> Fill {
    let dst = Side { address, pitch, slice: 0 };
    Fill { dst, element: 1, value: value as u32, width, height, depth: 1 }
}

fn fill_3d(at: &PitchedPtr, value: i32, extent: &Extent) -> Result<Fill> {
    let slice = at.pitch.checked_mul(at.ysize).ok_or(HipError::INVALID_VALUE)?;
    Ok(Fill {
        dst: Side { address: at.ptr, pitch: at.pitch, slice },
        element: 1,
        value: value as u32,
        width: extent.width,
        height: extent.height,
        depth: extent.depth,
    })
}

/// The sides of a copy as the driver API describes them.
struct DrvSide {
    memory_type: u32,
    host: Address,
    device: Address,
    array: Address,
    /// Bytes, rows and slices to skip.
    at: [usize; 3],
    pitch: usize,
    height: usize,
}

impl DrvSide {
    fn side(&self, abi: Abi) -> Result<Side> {
        let base = match abi.memory_type_of(self.memory_type) {
            Some(MemoryType::Host) => self.host,
            Some(MemoryType::Device | MemoryType::Managed | MemoryType::Unified) => self.device,
            Some(MemoryType::Array) => return Err(HipError::NOT_SUPPORTED),
            Some(MemoryType::Unregistered) | None => return Err(HipError::INVALID_VALUE),
        };
        if base == 0 || self.array != 0 {
            return Err(HipError::INVALID_VALUE);
        }
        let [x, y, z] = self.at;
        let slice = self.pitch.checked_mul(self.height).ok_or(HipError::INVALID_VALUE)?;
        let offset = y.checked_mul(self.pitch).zip(z.checked_mul(slice));
        let address = offset.and_then(|(y, z)| base.checked_add(x)?.checked_add(y)?.checked_add(z));
        Ok(Side { address: address.ok_or(HipError::INVALID_VALUE)?, pitch: self.pitch, slice })
    }
}

fn copy_from_drv_2d(params: Option<&DrvMemcpy2d>) -> Result<Copy> {
    let p = given(params)?;
    let abi = Abi::current();
    let src = DrvSide {
        memory_type: p.src_memory_type,
        host: p.src_host,
        device: p.src_device,
        array: p.src_array,
        at: [p.src_x_in_bytes, p.src_y, 0],
        pitch: p.src_pitch,
        height: 0,
    };
    let dst = DrvSide {
        memory_type: p.dst_memory_type,
        host: p.dst_host,
        device: p.dst_device,
        array: p.dst_array,
        at: [p.dst_x_in_bytes, p.dst_y, 0],
        pitch: p.dst_pitch,
        height: 0,
    };
    Ok(Copy {
        dst: dst.side(abi)?,
        src: src.side(abi)?,
        width: p.width_in_bytes,
        height: p.height,
        depth: 1,
        kind: kind::DEFAULT,
        staged: None,
    })
}

/// A copy as `HIP_MEMCPY3D` describes it, in the form of the program's HIP.
pub fn copy_from_drv_3d(params: Address) -> Result<Copy> {
    let abi = Abi::current();
    let p = match abi {
        Abi::Hip5 => List::<DrvMemcpy3d<u32>>::at(params).get(0)?.widen(),
        Abi::Hip6 => List::<DrvMemcpy3d<usize>>::at(params).get(0)?,
    };
    let src = DrvSide {
        memory_type: p.src_memory_type,
        host: p.src_host,
        device: p.src_device,
        array: p.src_array,
        at: [p.src_x_in_bytes, p.src_y, p.src_z],
        pitch: p.src_pitch,
        height: p.src_height,
    };
    let dst = DrvSide {
        memory_type: p.dst_memory_type,
        host: p.dst_host,
        device: p.dst_device,
        array: p.dst_array,
        at: [p.dst_x_in_bytes, p.dst_y, p.dst_z],
        pitch: p.dst_pitch,
        height: p.dst_height,
    };
    Ok(Copy {
        dst: dst.side(abi)?,
        src: src.side(abi)?,
        width: p.width_in_bytes,
        height: p.height,
        depth: p.depth,
        kind: kind::DEFAULT,
        staged: None,
    })
}

/// What is known about a pointer: its kind, device, flags and the allocation around it.
fn describe(runtime: &Runtime, address: Address) -> Option<(MemoryType, Block)> {
    if let Some(block) = runtime.blocks.find(address) {
        let memory_type = match block.kind {
            Kind::Device | Kind::Pool(_) => MemoryType::Device,
            Kind::Managed => MemoryType::Managed,
            Kind::Host | Kind::Registered => MemoryType::Host,
        };
        return Some((memory_type, block));
    }
    // Variables of device code.
    let found = runtime.memory.find(address as u64)?;
    let block = Block {
        base: found.base as Address,
        size: found.size as usize,
        kind: Kind::Device,
        device: runtime.current().ordinal,
        flags: 0,
        id: 0,
    };
    Some((MemoryType::Device, block))
}

fn pointer_attributes(runtime: &Runtime, address: Address) -> PointerAttributes {
    let abi = Abi::current();
    let Some((memory_type, block)) = describe(runtime, address) else {
        return PointerAttributes {
            memory_type: abi.memory_type(MemoryType::Unregistered),
            device: INVALID_DEVICE_ID,
            ..PointerAttributes::default()
        };
    };
    let on_host = memory_type != MemoryType::Device;
    PointerAttributes {
        memory_type: abi.memory_type(memory_type),
        device: block.device as i32,
        device_pointer: address,
        host_pointer: if on_host { address } else { 0 },
        is_managed: i32::from(memory_type == MemoryType::Managed),
        allocation_flags: block.flags,
    }
}

/// `hipPointerGetAttribute`, written where `data` points to.
fn pointer_attribute(runtime: &Runtime, data: Address, number: u32, address: Address) -> Result {
    let abi = Abi::current();
    let (memory_type, block) = describe(runtime, address).ok_or(HipError::INVALID_VALUE)?;
    let on_host = memory_type != MemoryType::Device;
    let number32 = |value: u32| Room::at(data).write(&[value]);
    let number64 = |value: usize| Room::at(data).write(&[value]);
    match number {
        2 => number32(match memory_type {
            MemoryType::Managed => abi.memory_type(MemoryType::Device),
            other => abi.memory_type(other),
        }),
        3 => number64(address),
        4 if on_host => number64(address),
        6 => number32(1), // synchronous operations are synchronous
        7 => number64(block.id as usize),
        8 => Room::at(data).write(&[u8::from(memory_type == MemoryType::Managed)]),
        9 => number32(block.device as u32),
        11 => number64(block.base),
        12 => number64(block.size),
        13 => Room::at(data).write(&[1u8]),
        16 => number32(3), // read and write
        1 | 5 | 10 | 14 | 15 | 17 => Err(HipError::NOT_SUPPORTED),
        _ => Err(HipError::INVALID_VALUE),
    }
}

/// Numbers of `hipMemRangeAttribute` for managed memory, for which nothing but access is kept.
fn range_attribute(data: Address, size: usize, number: u32) -> Result {
    let Some(count) = size.checked_div(4).filter(|count| *count > 0) else {
        return Err(HipError::INVALID_VALUE);
    };
    let mut values = vec![INVALID_DEVICE_ID; count];
    match number {
        1 => values = vec![0], // not mostly read
        2 | 4 => values = vec![INVALID_DEVICE_ID],
        3 => {}
        100 => values = vec![0], // fine-grained
        _ => return Err(HipError::INVALID_VALUE),
    }
    Room::at(data).write(&values)
}

/// Checks that a range is managed memory.
fn check_managed(runtime: &Runtime, address: Address, bytes: usize) -> Result<Block> {
    let block = runtime.blocks.find(address).filter(|block| block.kind == Kind::Managed);
    let block = block.ok_or(HipError::INVALID_VALUE)?;
    let inside = bytes > 0 && bytes <= block.size - (address - block.base);
    if inside { Ok(block) } else { Err(HipError::INVALID_VALUE) }
}

fn check_location(runtime: &Runtime, device: i32) -> Result {
    if device == CPU_DEVICE_ID { Ok(()) } else { runtime.device(device).map(|_| ()) }
}

/// Waits in a stream for what a symbol's copy needs, and copies.
fn to_symbol(
    (symbol, offset): (Address, usize),
    src: Address,
    bytes: usize,
    kind: u32,
) -> Result<Copy> {
    if !matches!(kind, kind::HOST_TO_DEVICE | kind::DEVICE_TO_DEVICE | kind::DEFAULT) {
        return Err(HipError::INVALID_MEMCPY_DIRECTION);
    }
    let dst = part_of(runtime()?, symbol, bytes, offset)?;
    Ok(Copy::linear(dst, src, bytes, kind))
}

fn from_symbol(
    dst: Address,
    (symbol, offset): (Address, usize),
    bytes: usize,
    kind: u32,
) -> Result<Copy> {
    if !matches!(kind, kind::DEVICE_TO_HOST | kind::DEVICE_TO_DEVICE | kind::DEFAULT) {
        return Err(HipError::INVALID_MEMCPY_DIRECTION);
    }
    let src = part_of(runtime()?, symbol, bytes, offset)?;
    Ok(Copy::linear(dst, src, bytes, kind))
}

/// A copy between devices; every device reaches every other's memory.
fn peer_copy(dst: (Address, i32), src: (Address, i32), bytes: usize) -> Result<Copy> {
    let runtime = runtime()?;
    runtime.device(dst.1)?;
    runtime.device(src.1)?;
    Ok(Copy::linear(dst.0, src.0, bytes, kind::DEVICE_TO_DEVICE))
}

/// The stream that functions without one use.
const NULL: Handle = 0;

fn own() -> Handle {
    stream::per_thread(NULL)
}

api! {
    /// Allocates on the current device.
    fn hipMalloc(address: Option<&mut Address>, size: usize) {
        allocate(address, size, Kind::Device, 0, "hipMalloc")
    }

    /// Allocates on the current device; flags choose a coherence that is always there.
    fn hipExtMallocWithFlags(address: Option<&mut Address>, size: usize, flags: u32) {
        if flags & !0x7 != 0 {
            return Err(HipError::INVALID_VALUE);
        }
        allocate(address, size, Kind::Device, flags, "hipExtMallocWithFlags")
    }

    /// Allocates memory that host and devices share.
    fn hipMallocManaged(address: Option<&mut Address>, size: usize, flags: u32) {
        if !matches!(flags, flag::MEM_ATTACH_GLOBAL | flag::MEM_ATTACH_HOST) || size == 0 {
            return Err(HipError::INVALID_VALUE);
        }
        allocate(address, size, Kind::Managed, flags, "hipMallocManaged")
    }

    /// Allocates memory of the host that kernels may access.
    fn hipHostMalloc(address: Option<&mut Address>, size: usize, flags: u32) {
        allocate_host(address, size, flags, "hipHostMalloc")
    }

    /// The same.
    fn hipHostAlloc(address: Option<&mut Address>, size: usize, flags: u32) {
        allocate_host(address, size, flags, "hipHostAlloc")
    }

    /// The same.
    fn hipExtHostAlloc(address: Option<&mut Address>, size: usize, flags: u32) {
        allocate_host(address, size, flags, "hipExtHostAlloc")
    }

    /// The same without flags.
    fn hipMallocHost(address: Option<&mut Address>, size: usize) {
        allocate_host(address, size, 0, "hipMallocHost")
    }

    /// The same without flags.
    fn hipMemAllocHost(address: Option<&mut Address>, size: usize) {
        allocate_host(address, size, 0, "hipMemAllocHost")
    }

    /// Frees memory of a device.
    fn hipFree(address: Address) {
        free(address, Kind::is_on_device)
    }

    /// Frees memory of the host.
    fn hipHostFree(address: Address) {
        free(address, |kind| kind == Kind::Host)
    }

    /// Frees memory of the host.
    fn hipFreeHost(address: Address) {
        free(address, |kind| kind == Kind::Host)
    }

    /// Makes memory of the program accessible to kernels.
    fn hipHostRegister(address: Address, size: usize, flags: u32) {
        if address == 0 || size == 0 || flags & !flag::HOST_REGISTER_ALL != 0 {
            return Err(HipError::INVALID_VALUE);
        }
        let runtime = runtime()?;
        runtime.captures.forbid_unsafe()?;
        blocks::register(runtime, address, size, flags)
    }

    /// Ends that.
    fn hipHostUnregister(address: Address) {
        if address == 0 {
            return Err(HipError::INVALID_VALUE);
        }
        let runtime = runtime()?;
        runtime.captures.forbid_unsafe()?;
        let block = runtime.blocks.at(address).filter(|block| block.kind == Kind::Registered);
        let block = block.ok_or(HipError::HOST_MEMORY_NOT_REGISTERED)?;
        let state = stream::synchronize_device(&runtime.devices[block.device]);
        blocks::unregister(runtime, address)?;
        state
    }

    /// The address by which kernels know memory of the host: the same.
    fn hipHostGetDevicePointer(place: Option<&mut Address>, address: Address, flags: u32) {
        let place = given(place)?;
        let block = runtime()?.blocks.find(address);
        let known = block.is_some_and(|b| matches!(b.kind, Kind::Host | Kind::Registered));
        if flags != 0 || !known {
            return Err(HipError::INVALID_VALUE);
        }
        *place = address;
        Ok(())
    }

    /// Flags of memory of the host.
    fn hipHostGetFlags(flags: Option<&mut u32>, address: Address) {
        let place = given(flags)?;
        let block = runtime()?.blocks.find(address).filter(|block| block.kind == Kind::Host);
        *place = block.ok_or(HipError::INVALID_VALUE)?.flags;
        Ok(())
    }

    /// Allocates rows.
    fn hipMallocPitch(
        address: Option<&mut Address>,
        pitch: Option<&mut usize>,
        width: usize,
        height: usize,
    ) {
        let (address, pitch) = (given(address)?, given(pitch)?);
        let extent = Extent { width, height, depth: 1 };
        (*address, *pitch) = allocate_pitched(extent, "hipMallocPitch")?;
        Ok(())
    }

    /// Allocates rows of elements.
    fn hipMemAllocPitch(
        address: Option<&mut Address>,
        pitch: Option<&mut usize>,
        width: usize,
        height: usize,
        element: u32,
    ) {
        let (address, pitch) = (given(address)?, given(pitch)?);
        if !matches!(element, 4 | 8 | 16) || width == 0 || height == 0 {
            return Err(HipError::INVALID_VALUE);
        }
        let extent = Extent { width, height, depth: 1 };
        (*address, *pitch) = allocate_pitched(extent, "hipMemAllocPitch")?;
        Ok(())
    }

    /// Allocates slices of rows.
    fn hipMalloc3D(place: Option<&mut PitchedPtr>, extent: Extent) {
        let place = given(place)?;
        let (ptr, pitch) = allocate_pitched(extent, "hipMalloc3D")?;
        *place = PitchedPtr { ptr, pitch, xsize: extent.width, ysize: extent.height };
        Ok(())
    }

    /// Bytes of memory of the current device, free and in all.
    fn hipMemGetInfo(free: Option<&mut usize>, total: Option<&mut usize>) {
        let device = runtime()?.current();
        free.offer(device.total.saturating_sub(device.used.load(Ordering::Relaxed)) as usize);
        total.offer(device.total as usize);
        Ok(())
    }

    /// Bytes of an allocation.
    fn hipMemPtrGetInfo(address: Address, size: Option<&mut usize>) {
        let place = given(size)?;
        let found = describe(runtime()?, address).ok_or(HipError::INVALID_VALUE)?;
        *place = found.1.size;
        Ok(())
    }

    /// The allocation around an address.
    fn hipMemGetAddressRange(
        base: Option<&mut Address>,
        size: Option<&mut usize>,
        address: Address,
    ) {
        let found = describe(runtime()?, address);
        let (_, block) = found.ok_or(HipError::INVALID_DEVICE_POINTER)?;
        base.offer(block.base);
        size.offer(block.size);
        Ok(())
    }

    /// What an address points to.
    fn hipPointerGetAttributes(place: Option<&mut PointerAttributes>, address: Address) {
        let place = given(place)?;
        if address == 0 {
            return Err(HipError::INVALID_VALUE);
        }
        let runtime = runtime()?;
        *place = pointer_attributes(runtime, address);
        // HIP 5 has no number for memory that it does not know.
        let unknown = Abi::current() == Abi::Hip5 && place.device == INVALID_DEVICE_ID;
        if unknown { Err(HipError::INVALID_VALUE) } else { Ok(()) }
    }

    /// One attribute of an address.
    fn hipPointerGetAttribute(data: Address, number: u32, address: Address) {
        if data == 0 {
            return Err(HipError::INVALID_VALUE);
        }
        pointer_attribute(runtime()?, data, number, address)
    }

    /// Several attributes of an address; what there is no answer to is zero.
    fn hipDrvPointerGetAttributes(
        count: u32,
        numbers: List<u32>,
        data: List<Address>,
        address: Address,
    ) {
        let runtime = runtime()?;
        let numbers = numbers.read(count as usize)?;
        for (number, data) in numbers.into_iter().zip(data.read(count as usize)?) {
            if data == 0 {
                return Err(HipError::INVALID_VALUE);
            }
            match pointer_attribute(runtime, data, number, address) {
                Err(HipError::INVALID_VALUE) => Room::at(data).write(&[0u32])?,
                other => other?,
            }
        }
        Ok(())
    }

    /// Sets the one attribute that can be set (6, synchronous operations), which changes nothing.
    fn hipPointerSetAttribute(value: Address, number: u32, address: Address) {
        describe(runtime()?, address).ok_or(HipError::INVALID_DEVICE_POINTER)?;
        if number == 6 && value != 0 { Ok(()) } else { Err(HipError::INVALID_VALUE) }
    }

    /// Advice about managed memory, which needs none.
    fn hipMemAdvise(address: Address, bytes: usize, advice: u32, device: i32) {
        let runtime = runtime()?;
        check_managed(runtime, address, bytes)?;
        check_location(runtime, device)?;
        if matches!(advice, 1..=6 | 100 | 101) { Ok(()) } else { Err(HipError::INVALID_VALUE) }
    }

    /// Moves managed memory, which is everywhere.
    fn hipMemPrefetchAsync(address: Address, bytes: usize, device: i32, stream: Handle) {
        let runtime = runtime()?;
        check_managed(runtime, address, bytes)?;
        check_location(runtime, device)?;
        let stream = stream::find(runtime, stream)?;
        stream::put(runtime, &stream, NodeWork::Empty).map(|_| ())
    }

    /// An attribute of a range of managed memory.
    fn hipMemRangeGetAttribute(
        data: Address,
        size: usize,
        number: u32,
        address: Address,
        bytes: usize,
    ) {
        check_managed(runtime()?, address, bytes)?;
        range_attribute(data, size, number)
    }

    /// Several attributes of a range of managed memory.
    fn hipMemRangeGetAttributes(
        data: List<Address>,
        sizes: List<usize>,
        numbers: List<u32>,
        count: usize,
        address: Address,
        bytes: usize,
    ) {
        check_managed(runtime()?, address, bytes)?;
        for index in 0..count {
            range_attribute(data.get(index)?, sizes.get(index)?, numbers.get(index)?)?;
        }
        Ok(())
    }

    /// Copies.
    fn hipMemcpy(dst: Address, src: Address, bytes: usize, kind: u32) {
        copy_now(NULL, Copy::linear(dst, src, bytes, kind))
    }

    /// Copies in the thread's own stream.
    fn hipMemcpy_spt(dst: Address, src: Address, bytes: usize, kind: u32) {
        copy_now(own(), Copy::linear(dst, src, bytes, kind))
    }

    /// Copies behind a stream's work.
    fn hipMemcpyWithStream(
        dst: Address,
        src: Address,
        bytes: usize,
        kind: u32,
        stream: Handle,
    ) {
        copy_now(stream, Copy::linear(dst, src, bytes, kind))
    }

    /// Puts a copy into a stream.
    fn hipMemcpyAsync(dst: Address, src: Address, bytes: usize, kind: u32, stream: Handle) {
        copy_async(stream, Copy::linear(dst, src, bytes, kind))
    }

    /// Puts a copy into a stream; null is the thread's own.
    fn hipMemcpyAsync_spt(dst: Address, src: Address, bytes: usize, kind: u32, stream: Handle) {
        copy_async(stream::per_thread(stream), Copy::linear(dst, src, bytes, kind))
    }

    /// Copies to a device.
    fn hipMemcpyHtoD(dst: Address, src: Address, bytes: usize) {
        copy_now(NULL, Copy::linear(dst, src, bytes, kind::HOST_TO_DEVICE))
    }

    /// Copies from a device.
    fn hipMemcpyDtoH(dst: Address, src: Address, bytes: usize) {
        copy_now(NULL, Copy::linear(dst, src, bytes, kind::DEVICE_TO_HOST))
    }

    /// Copies on devices.
    fn hipMemcpyDtoD(dst: Address, src: Address, bytes: usize) {
        copy_now(NULL, Copy::linear(dst, src, bytes, kind::DEVICE_TO_DEVICE))
    }

    /// Puts a copy to a device into a stream.
    fn hipMemcpyHtoDAsync(dst: Address, src: Address, bytes: usize, stream: Handle) {
        copy_async(stream, Copy::linear(dst, src, bytes, kind::HOST_TO_DEVICE))
    }

    /// Puts a copy from a device into a stream.
    fn hipMemcpyDtoHAsync(dst: Address, src: Address, bytes: usize, stream: Handle) {
        copy_async(stream, Copy::linear(dst, src, bytes, kind::DEVICE_TO_HOST))
    }

    /// Puts a copy on devices into a stream.
    fn hipMemcpyDtoDAsync(dst: Address, src: Address, bytes: usize, stream: Handle) {
        copy_async(stream, Copy::linear(dst, src, bytes, kind::DEVICE_TO_DEVICE))
    }

    /// Copies from one device to another.
    fn hipMemcpyPeer(dst: Address, to: i32, src: Address, from: i32, bytes: usize) {
        copy_now(NULL, peer_copy((dst, to), (src, from), bytes)?)
    }

    /// Puts a copy from one device to another into a stream.
    fn hipMemcpyPeerAsync(
        dst: Address,
        to: i32,
        src: Address,
        from: i32,
        bytes: usize,
        stream: Handle,
    ) {
        copy_async(stream, peer_copy((dst, to), (src, from), bytes)?)
    }

    /// Copies rows.
    fn hipMemcpy2D(
        dst: Address,
        dst_pitch: usize,
        src: Address,
        src_pitch: usize,
        width: usize,
        height: usize,
        kind: u32,
    ) {
        copy_now(NULL, Copy::rows((dst, dst_pitch), (src, src_pitch), width, height, kind))
    }

    /// Copies rows in the thread's own stream.
    fn hipMemcpy2D_spt(
        dst: Address,
        dst_pitch: usize,
        src: Address,
        src_pitch: usize,
        width: usize,
        height: usize,
        kind: u32,
    ) {
        copy_now(own(), Copy::rows((dst, dst_pitch), (src, src_pitch), width, height, kind))
    }

    /// Puts a copy of rows into a stream.
    fn hipMemcpy2DAsync(
        dst: Address,
        dst_pitch: usize,
        src: Address,
        src_pitch: usize,
        width: usize,
        height: usize,
        kind: u32,
        stream: Handle,
    ) {
        copy_async(stream, Copy::rows((dst, dst_pitch), (src, src_pitch), width, height, kind))
    }

    /// Puts a copy of rows into a stream; null is the thread's own.
    fn hipMemcpy2DAsync_spt(
        dst: Address,
        dst_pitch: usize,
        src: Address,
        src_pitch: usize,
        width: usize,
        height: usize,
        kind: u32,
        stream: Handle,
    ) {
        let copy = Copy::rows((dst, dst_pitch), (src, src_pitch), width, height, kind);
        copy_async(stream::per_thread(stream), copy)
    }

    /// Copies rows, as the driver API describes them.
    fn hipMemcpyParam2D(params: Option<&DrvMemcpy2d>) {
        copy_now(NULL, copy_from_drv_2d(params)?)
    }

    /// Puts such a copy into a stream.
    fn hipMemcpyParam2DAsync(params: Option<&DrvMemcpy2d>, stream: Handle) {
        copy_async(stream, copy_from_drv_2d(params)?)
    }

    /// Copies rows, as the driver API describes them.
    fn hipDrvMemcpy2DUnaligned(params: Option<&DrvMemcpy2d>) {
        copy_now(NULL, copy_from_drv_2d(params)?)
    }

    /// Copies slices of rows.
    fn hipMemcpy3D(params: Option<&Memcpy3d>) {
        copy_now(NULL, copy_from_3d(given(params)?)?)
    }

    /// Copies slices of rows in the thread's own stream.
    fn hipMemcpy3D_spt(params: Option<&Memcpy3d>) {
        copy_now(own(), copy_from_3d(given(params)?)?)
    }

    /// Puts a copy of slices of rows into a stream.
    fn hipMemcpy3DAsync(params: Option<&Memcpy3d>, stream: Handle) {
        copy_async(stream, copy_from_3d(given(params)?)?)
    }

    /// Puts a copy of slices of rows into a stream; null is the thread's own.
    fn hipMemcpy3DAsync_spt(params: Option<&Memcpy3d>, stream: Handle) {
        copy_async(stream::per_thread(stream), copy_from_3d(given(params)?)?)
    }

    /// Copies slices of rows, as the driver API describes them.
    fn hipDrvMemcpy3D(params: Address) {
        copy_now(NULL, copy_from_drv_3d(params)?)
    }

    /// Puts such a copy into a stream.
    fn hipDrvMemcpy3DAsync(params: Address, stream: Handle) {
        copy_async(stream, copy_from_drv_3d(params)?)
    }

    /// Copies to a variable.
    fn hipMemcpyToSymbol(symbol: Address, src: Address, bytes: usize, offset: usize, kind: u32) {
        copy_now(NULL, to_symbol((symbol, offset), src, bytes, kind)?)
    }

    /// Copies to a variable in the thread's own stream.
    fn hipMemcpyToSymbol_spt(
        symbol: Address,
        src: Address,
        bytes: usize,
        offset: usize,
        kind: u32,
    ) {
        copy_now(own(), to_symbol((symbol, offset), src, bytes, kind)?)
    }

    /// Puts a copy to a variable into a stream.
    fn hipMemcpyToSymbolAsync(
        symbol: Address,
        src: Address,
        bytes: usize,
        offset: usize,
        kind: u32,
        stream: Handle,
    ) {
        copy_async(stream, to_symbol((symbol, offset), src, bytes, kind)?)
    }

    /// Puts a copy to a variable into a stream; null is the thread's own.
    fn hipMemcpyToSymbolAsync_spt(
        symbol: Address,
        src: Address,
        bytes: usize,
        offset: usize,
        kind: u32,
        stream: Handle,
    ) {
        copy_async(stream::per_thread(stream), to_symbol((symbol, offset), src, bytes, kind)?)
    }

    /// Copies from a variable.
    fn hipMemcpyFromSymbol(
        dst: Address,
        symbol: Address,
        bytes: usize,
        offset: usize,
        kind: u32,
    ) {
        copy_now(NULL, from_symbol(dst, (symbol, offset), bytes, kind)?)
    }

    /// Copies from a variable in the thread's own stream.
    fn hipMemcpyFromSymbol_spt(
        dst: Address,
        symbol: Address,
        bytes: usize,
        offset: usize,
        kind: u32,
    ) {
        copy_now(own(), from_symbol(dst, (symbol, offset), bytes, kind)?)
    }

    /// Puts a copy from a variable into a stream.
    fn hipMemcpyFromSymbolAsync(
        dst: Address,
        symbol: Address,
        bytes: usize,
        offset: usize,
        kind: u32,
        stream: Handle,
    ) {
        copy_async(stream, from_symbol(dst, (symbol, offset), bytes, kind)?)
    }

    /// Puts a copy from a variable into a stream; null is the thread's own.
    fn hipMemcpyFromSymbolAsync_spt(
        dst: Address,
        symbol: Address,
        bytes: usize,
        offset: usize,
        kind: u32,
        stream: Handle,
    ) {
        copy_async(stream::per_thread(stream), from_symbol(dst, (symbol, offset), bytes, kind)?)
    }

    /// Fills with a byte.
    fn hipMemset(dst: Address, value: i32, bytes: usize) {
        fill_now(NULL, Fill::linear(dst, 1, value as u32, bytes))
    }

    /// Fills with a byte in the thread's own stream.
    fn hipMemset_spt(dst: Address, value: i32, bytes: usize) {
        fill_now(own(), Fill::linear(dst, 1, value as u32, bytes))
    }

    /// Puts a fill with a byte into a stream.
    fn hipMemsetAsync(dst: Address, value: i32, bytes: usize, stream: Handle) {
        fill_async(stream, Fill::linear(dst, 1, value as u32, bytes))
    }

    /// Puts a fill with a byte into a stream; null is the thread's own.
    fn hipMemsetAsync_spt(dst: Address, value: i32, bytes: usize, stream: Handle) {
        fill_async(stream::per_thread(stream), Fill::linear(dst, 1, value as u32, bytes))
    }

    /// Fills with a byte.
    fn hipMemsetD8(dst: Address, value: u8, count: usize) {
        fill_now(NULL, Fill::linear(dst, 1, u32::from(value), count))
    }

    /// Puts a fill with a byte into a stream.
    fn hipMemsetD8Async(dst: Address, value: u8, count: usize, stream: Handle) {
        fill_async(stream, Fill::linear(dst, 1, u32::from(value), count))
    }

    /// Fills with two bytes.
    fn hipMemsetD16(dst: Address, value: u16, count: usize) {
        fill_now(NULL, Fill::linear(dst, 2, u32::from(value), count))
    }

    /// Puts a fill with two bytes into a stream.
    fn hipMemsetD16Async(dst: Address, value: u16, count: usize, stream: Handle) {
        fill_async(stream, Fill::linear(dst, 2, u32::from(value), count))
    }

    /// Fills with four bytes.
    fn hipMemsetD32(dst: Address, value: i32, count: usize) {
        fill_now(NULL, Fill::linear(dst, 4, value as u32, count))
    }

    /// Puts a fill with four bytes into a stream.
    fn hipMemsetD32Async(dst: Address, value: i32, count: usize, stream: Handle) {
        fill_async(stream, Fill::linear(dst, 4, value as u32, count))
    }

    /// Fills rows.
    fn hipMemset2D(dst: Address, pitch: usize, value: i32, width: usize, height: usize) {
        fill_now(NULL, fill_2d(dst, pitch, value, width, height))
    }

    /// Fills rows in the thread's own stream.
    fn hipMemset2D_spt(dst: Address, pitch: usize, value: i32, width: usize, height: usize) {
        fill_now(own(), fill_2d(dst, pitch, value, width, height))
    }

    /// Puts a fill of rows into a stream.
    fn hipMemset2DAsync(
        dst: Address,
        pitch: usize,
        value: i32,
        width: usize,
        height: usize,
        stream: Handle,
    ) {
        fill_async(stream, fill_2d(dst, pitch, value, width, height))
    }

    /// Puts a fill of rows into a stream; null is the thread's own.
    fn hipMemset2DAsync_spt(
        dst: Address,
        pitch: usize,
        value: i32,
        width: usize,
        height: usize,
        stream: Handle,
    ) {
        fill_async(stream::per_thread(stream), fill_2d(dst, pitch, value, width, height))
    }

    /// Fills rows with a byte.
    fn hipMemsetD2D8(
        dst: Address,
        pitch: usize,
        value: u8,
        width: usize,
        height: usize,
    ) {
        let fill = Fill { element: 1, ..fill_2d(dst, pitch, 0, width, height) };
        let fill = Fill { value: u32::from(value), ..fill };
        fill_now(NULL, fill)
    }

    /// Puts a fill of rows with a byte into a stream.
    fn hipMemsetD2D8Async(
        dst: Address,
        pitch: usize,
        value: u8,
        width: usize,
        height: usize,
        stream: Handle,
    ) {
        let fill = Fill { element: 1, ..fill_2d(dst, pitch, 0, width, height) };
        let fill = Fill { value: u32::from(value), ..fill };
        fill_async(stream, fill)
    }

    /// Fills rows with two bytes.
    fn hipMemsetD2D16(
        dst: Address,
        pitch: usize,
        value: u16,
        width: usize,
        height: usize,
    ) {
        let fill = Fill { element: 2, ..fill_2d(dst, pitch, 0, width, height) };
        let fill = Fill { value: u32::from(value), ..fill };
        fill_now(NULL, fill)
    }

    /// Puts a fill of rows with two bytes into a stream.
    fn hipMemsetD2D16Async(
        dst: Address,
        pitch: usize,
        value: u16,
        width: usize,
        height: usize,
        stream: Handle,
    ) {
        let fill = Fill { element: 2, ..fill_2d(dst, pitch, 0, width, height) };
        let fill = Fill { value: u32::from(value), ..fill };
        fill_async(stream, fill)
    }

    /// Fills rows with four bytes.
    fn hipMemsetD2D32(
        dst: Address,
        pitch: usize,
        value: u32,
        width: usize,
        height: usize,
    ) {
        let fill = Fill { element: 4, ..fill_2d(dst, pitch, 0, width, height) };
        let fill = Fill { value, ..fill };
        fill_now(NULL, fill)
    }

    /// Puts a fill of rows with four bytes into a stream.
    fn hipMemsetD2D32Async(
        dst: Address,
        pitch: usize,
        value: u32,
        width: usize,
        height: usize,
        stream: Handle,
    ) {
        let fill = Fill { element: 4, ..fill_2d(dst, pitch, 0, width, height) };
        let fill = Fill { value, ..fill };
        fill_async(stream, fill)
    }

    /// Fills slices of rows.
    fn hipMemset3D(at: PitchedPtr, value: i32, extent: Extent) {
        fill_now(NULL, fill_3d(&at, value, &extent)?)
    }

    /// Fills slices of rows in the thread's own stream.
    fn hipMemset3D_spt(at: PitchedPtr, value: i32, extent: Extent) {
        fill_now(own(), fill_3d(&at, value, &extent)?)
    }

    /// Puts a fill of slices of rows into a stream.
    fn hipMemset3DAsync(at: PitchedPtr, value: i32, extent: Extent, stream: Handle) {
        fill_async(stream, fill_3d(&at, value, &extent)?)
    }

    /// Puts a fill of slices of rows into a stream; null is the thread's own.
    fn hipMemset3DAsync_spt(at: PitchedPtr, value: i32, extent: Extent, stream: Handle) {
        fill_async(stream::per_thread(stream), fill_3d(&at, value, &extent)?)
    }
}

/// Describes elements of up to four numbers.
#[unsafe(no_mangle)]
pub extern "C" fn hipCreateChannelDesc(
    x: i32,
    y: i32,
    z: i32,
    w: i32,
    kind: u32,
) -> ChannelFormatDesc {
    ChannelFormatDesc { x, y, z, w, kind }
}
