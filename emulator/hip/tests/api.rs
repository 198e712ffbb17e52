//! Devices, memory, modules, launches, streams, events.

#![allow(unsafe_code, reason = "the API is C's")]

mod common;

use std::ffi::c_void;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use amdhip64::error::{HipError, hipGetLastError, hipPeekAtLastError};
use amdhip64::ffi::{List, Room, Text};
use amdhip64::types::*;
use amdhip64::{
    context, device, event, launch as launches, memory, missing, module, pool, profile, stream,
};
use common::*;

#[test]
fn devices_describe_themselves() {
    setup();
    let mut count = 0;
    good(device::hipGetDeviceCount(Some(&mut count)));
    assert_eq!(count as usize, DEVICES);
    // SAFETY: integers and arrays of integers; zero is a value of them.
    let mut properties: DeviceProp6 = unsafe { std::mem::zeroed() };
    good(device::hipGetDevicePropertiesR0600(Some(&mut properties), 3));
    assert!(properties.name.starts_with(b"AMD Instinct MI300X\0"));
    assert!(properties.gcn_arch_name.starts_with(b"gfx942:sramecc+:xnack-\0"));
    assert_eq!((properties.major, properties.minor), (9, 4));
    assert_eq!((properties.warp_size, properties.multi_processor_count), (64, 304));
    assert_eq!(properties.total_global_mem, 192 << 30);
    // SAFETY: as above.
    let mut old: DeviceProp5 = unsafe { std::mem::zeroed() };
    good(device::hipGetDeviceProperties(Some(&mut old), 3));
    assert_eq!(old.gcn_arch, 942);
    assert_eq!(old.pci_bus_id, properties.pci_bus_id);

    let mut value = 0;
    for (number, expected) in [(87, 64), (63, 304), (56, 1024), (74, 65536), (23, 9), (61, 4)] {
        good(device::hipDeviceGetAttribute(Some(&mut value), number, 0));
        assert_eq!(value, expected, "attribute {number}");
    }
    let bad = device::hipDeviceGetAttribute(Some(&mut value), 5000, 0);
    assert_eq!(bad, HipError::INVALID_VALUE);
    let bad = device::hipDeviceGetAttribute(Some(&mut value), 87, DEVICES as i32);
    assert_eq!(bad, HipError::INVALID_DEVICE);

    let mut id = [0u8; 32];
    good(device::hipDeviceGetPCIBusId(Room::new(&mut id), 32, 2));
    let end = id.iter().position(|byte| *byte == 0).unwrap();
    let id = std::ffi::CString::new(&id[..end]).unwrap();
    good(device::hipDeviceGetByPCIBusId(Some(&mut value), Text::new(&id)));
    assert_eq!(value, 2);
    let mut name = [0u8; 4];
    let cut = device::hipDeviceGetName(Room::new(&mut name), 4, 0);
    assert_eq!((cut, &name), (HipError::INVALID_VALUE, b"AMD\0"));
}

#[test]
fn each_thread_has_its_device() {
    use_device(2);
    std::thread::spawn(|| {
        let mut ordinal = -1;
        good(device::hipGetDevice(Some(&mut ordinal)));
        assert_eq!(ordinal, 0);
    })
    .join()
    .unwrap();
    let mut ordinal = -1;
    good(device::hipGetDevice(Some(&mut ordinal)));
    assert_eq!(ordinal, 2);

    let mut made = 0;
    good(context::hipCtxCreate(Some(&mut made), 0, 3));
    good(device::hipGetDevice(Some(&mut ordinal)));
    assert_eq!(ordinal, 3);
    let mut current = 0;
    good(context::hipCtxGetCurrent(Some(&mut current)));
    assert_eq!(current, made);
    good(context::hipCtxDestroy(made));
    assert_eq!(context::hipCtxPushCurrent(made), HipError::INVALID_CONTEXT);
}

#[test]
fn errors_are_kept_for_the_thread() {
    setup();
    assert_eq!(memory::hipMalloc(None, 4), HipError::INVALID_VALUE);
    assert_eq!(hipPeekAtLastError(), HipError::INVALID_VALUE);
    let mut address = 0;
    good(memory::hipMalloc(Some(&mut address), 4));
    assert_eq!(hipGetLastError(), HipError::INVALID_VALUE);
    assert_eq!(hipGetLastError(), HipError::SUCCESS);
    good(memory::hipFree(address));
    assert_eq!(HipError::NOT_READY.name(), c"hipErrorNotReady");
    assert_eq!(HipError::ILLEGAL_ADDRESS.text(), c"an illegal memory access was encountered");
}

#[test]
fn null_and_stale_arguments_are_errors() {
    setup();
    assert_eq!(event::hipEventCreate(None), HipError::INVALID_VALUE);
    assert_eq!(event::hipEventRecord(0x1234, 0), HipError::INVALID_HANDLE);
    assert_eq!(stream::hipStreamSynchronize(0xdead_beef), HipError::INVALID_HANDLE);
    assert_eq!(module::hipModuleUnload(0), HipError::INVALID_HANDLE);
    assert_eq!(launch(0x77, 1, 1, 0, &[]), HipError::INVALID_HANDLE);
    assert_eq!(memory::hipFree(0x1000), HipError::INVALID_VALUE);
    good(memory::hipFree(0));
    assert_eq!(memory::hipMemcpy(0, at(&1), 4, kind::DEFAULT), HipError::INVALID_VALUE);
    let stream = new_stream(0);
    good(stream::hipStreamDestroy(stream));
    assert_eq!(stream::hipStreamDestroy(stream), HipError::INVALID_HANDLE);
}

#[test]
fn functions_that_are_missing_say_so() {
    setup();
    assert_eq!(missing::hipMallocArray(), HipError::NOT_SUPPORTED);
    assert_eq!(missing::hipMemAddressReserve(), HipError::NOT_SUPPORTED);
    assert_eq!(hipGetLastError(), HipError::NOT_SUPPORTED);
}

#[test]
fn memory_is_accounted_and_limited() {
    use_device(3);
    let (mut before, mut during, mut total) = (0, 0, 0);
    good(memory::hipMemGetInfo(Some(&mut before), Some(&mut total)));
    assert_eq!(total, 192 << 30);
    let mut address = 0;
    good(memory::hipMalloc(Some(&mut address), 1 << 20));
    good(memory::hipMemGetInfo(Some(&mut during), None));
    assert_eq!(before - during, 1 << 20);
    good(memory::hipFree(address));
    assert_eq!(memory::hipFree(address), HipError::INVALID_VALUE);
    good(memory::hipMemGetInfo(Some(&mut during), None));
    assert_eq!(before, during);
    let mut huge = 1;
    assert_eq!(memory::hipMalloc(Some(&mut huge), total + 1), HipError::OUT_OF_MEMORY);
    assert_eq!(huge, 0);
    assert_eq!(memory::hipMalloc(Some(&mut huge), usize::MAX), HipError::OUT_OF_MEMORY);
}

#[test]
fn copies_and_fills_of_rows() {
    setup();
    let (mut address, mut pitch) = (0, 0);
    good(memory::hipMallocPitch(Some(&mut address), Some(&mut pitch), 10, 4));
    assert_eq!(pitch, 256);
    good(memory::hipMemset2D(address, pitch, 0x5a, 10, 4));
    let rows: Vec<u8> = (0..8).collect();
    let from = rows.as_ptr() as Address;
    // Two rows of four bytes to column 3 of rows 1 and 2.
    let to = address + pitch + 3;
    good(memory::hipMemcpy2D(to, pitch, from, 4, 4, 2, kind::HOST_TO_DEVICE));
    let mut all = vec![0u8; 40];
    let back = all.as_mut_ptr() as Address;
    good(memory::hipMemcpy2D(back, 10, address, pitch, 10, 4, kind::DEVICE_TO_HOST));
    let mut expected = vec![0x5a; 40];
    expected[13..17].copy_from_slice(&[0, 1, 2, 3]);
    expected[23..27].copy_from_slice(&[4, 5, 6, 7]);
    assert_eq!(all, expected);
    let narrow = memory::hipMemcpy2D(back, 9, address, pitch, 10, 4, kind::DEVICE_TO_HOST);
    assert_eq!(narrow, HipError::INVALID_PITCH_VALUE);
    let beyond = memory::hipMemcpy2D(back, 10, address, pitch, 10, 5, kind::DEVICE_TO_HOST);
    assert_eq!(beyond, HipError::INVALID_VALUE);
    good(memory::hipFree(address));
}

#[test]
fn fills_of_every_width() {
    setup();
    let address = upload(&[0; 8]);
    good(memory::hipMemsetD32(address, 0x0102_0304, 8));
    good(memory::hipMemsetD16(address + 4, 0xabcd, 2));
    good(memory::hipMemsetD8(address + 8, 0x11, 3));
    good(memory::hipMemset(address + 12, 0x7fff_ff22, 4));
    let expected = [0x0102_0304, 0xabcd_abcd, 0x0111_1111, 0x2222_2222, 0x0102_0304];
    assert_eq!(download(address, 5), expected);
    let bad = memory::hipMemsetD32(address, 0, 9);
    assert_eq!(bad, HipError::INVALID_VALUE);
    good(memory::hipFree(address));
}

#[test]
fn copies_check_what_they_touch() {
    setup();
    let address = upload(&[1, 2, 3, 4]);
    let mut host = [0u32; 8];
    let there = host.as_mut_ptr() as Address;
    let copy = |dst, src, bytes, kind| memory::hipMemcpy(dst, src, bytes, kind);
    // Longer than the allocation.
    assert_eq!(copy(there, address, 20, kind::DEVICE_TO_HOST), HipError::INVALID_VALUE);
    // In the wrong direction.
    assert_eq!(copy(there, address, 4, kind::HOST_TO_DEVICE), HipError::INVALID_VALUE);
    assert_eq!(copy(there, there, 4, 7), HipError::INVALID_MEMCPY_DIRECTION);
    good(copy(there, address + 4, 8, kind::DEFAULT));
    assert_eq!(host[..3], [2, 3, 0]);
    let other = upload(&[0; 4]);
    good(memory::hipMemcpyDtoD(other + 4, address, 12));
    assert_eq!(download(other, 4), [0, 1, 2, 3]);
    good(memory::hipFree(address));
    // Freed.
    assert_eq!(copy(there, address, 4, kind::DEVICE_TO_HOST), HipError::INVALID_VALUE);
    good(memory::hipFree(other));
}

#[test]
fn pointers_are_described() {
    setup();
    let of = |address| {
        let mut attributes = PointerAttributes::default();
        good(memory::hipPointerGetAttributes(Some(&mut attributes), address));
        attributes
    };
    let (mut device, mut host, mut managed) = (0, 0, 0);
    good(memory::hipMalloc(Some(&mut device), 100));
    good(memory::hipHostMalloc(Some(&mut host), 100, 0));
    good(memory::hipMallocManaged(Some(&mut managed), 100, 1));
    let mut own = [0u8; 64];
    let registered = own.as_mut_ptr() as Address;
    // Numbers of HIP 6: unregistered 0, host 1, device 2, managed 3.
    assert_eq!(of(device + 99).memory_type, 2);
    assert_eq!(of(device + 99).host_pointer, 0);
    assert_eq!(of(host).memory_type, 1);
    assert_eq!((of(managed).memory_type, of(managed).is_managed), (3, 1));
    assert_eq!(of(registered).memory_type, 0);
    good(memory::hipHostRegister(registered, 64, 0));
    assert_eq!(of(registered + 5).memory_type, 1);
    let again = memory::hipHostRegister(registered + 8, 8, 0);
    assert_eq!(again, HipError::HOST_MEMORY_ALREADY_REGISTERED);
    let (mut base, mut size) = (0, 0);
    good(memory::hipMemGetAddressRange(Some(&mut base), Some(&mut size), device + 7));
    assert_eq!((base, size), (device, 100));
    good(memory::hipHostUnregister(registered));
    let again = memory::hipHostUnregister(registered);
    assert_eq!(again, HipError::HOST_MEMORY_NOT_REGISTERED);
    good(memory::hipFree(device));
    good(memory::hipFree(managed));
    assert_eq!(memory::hipFree(host), HipError::INVALID_VALUE);
    good(memory::hipHostFree(host));
}

#[test]
fn kernels_use_host_and_managed_memory() {
    setup();
    let module = load();
    let func = function(module, "add");
    let (mut host, mut managed) = (0, 0);
    good(memory::hipHostMalloc(Some(&mut host), 64 * 4, 0));
    good(memory::hipMallocManaged(Some(&mut managed), 64 * 4, 1));
    let mut own = [3u32; 64];
    let registered = own.as_mut_ptr() as Address;
    good(memory::hipHostRegister(registered, 64 * 4, 0));
    for address in [host, managed] {
        good(memory::hipMemset(address, 0, 64 * 4));
    }
    for address in [host, managed, registered] {
        add(func, 0, address, 4, 64, 0);
    }
    good(device::hipDeviceSynchronize());
    assert_eq!(download(host, 64), [4; 64]);
    assert_eq!(download(managed, 64), [4; 64]);
    good(memory::hipHostUnregister(registered));
    assert_eq!(own, [7; 64]);
    good(memory::hipHostFree(host));
    good(memory::hipFree(managed));
    good(module::hipModuleUnload(module));
}

#[test]
fn launches_with_both_forms_of_arguments() {
    setup();
    let module = load();
    let mixed = function(module, "mixed");
    let out = upload(&[0; 5]);
    let (a, b, c, d) = (0xf1u8, 0xf234u16, 0xdead_beefu32, 0x1122_3344_5566_7788u64);
    let expected = [0xf1, 0xf234, 0xdead_beef, 0x5566_7788, 0x1122_3344];
    good(launch(mixed, 1, 1, 0, &[at(&a), at(&b), at(&c), at(&d), at(&out)]));
    assert_eq!(download(out, 5), expected);

    #[repr(C)]
    struct Packed(u8, u16, u32, u64, Address);
    let packed = Packed(a, b, c, d, out);
    let size = size_of::<Packed>();
    let extra = [extra::BUFFER_POINTER, at(&packed), extra::BUFFER_SIZE, at(&size), extra::END];
    let with = |params: Address, extra: Address| {
        launches::hipModuleLaunchKernel(mixed, 1, 1, 1, 1, 1, 1, 0, 0, params, extra)
    };
    good(memory::hipMemset(out, 0, 20));
    good(with(0, extra.as_ptr() as Address));
    assert_eq!(download(out, 5), expected);
    assert_eq!(with(0, 0), HipError::INVALID_VALUE);
    assert_eq!(with(at(&0usize), extra.as_ptr() as Address), HipError::INVALID_VALUE);
    let short = 16usize;
    let cut = [extra::BUFFER_POINTER, at(&packed), extra::BUFFER_SIZE, at(&short), extra::END];
    assert_eq!(with(0, cut.as_ptr() as Address), HipError::INVALID_VALUE);
    good(memory::hipFree(out));
    good(module::hipModuleUnload(module));
}

#[test]
fn launches_check_the_grid() {
    setup();
    let module = load();
    let (count, small) = (function(module, "count"), function(module, "small"));
    let out = upload(&[0; 64]);
    let params = [at(&out)];
    let go = |func, grid: [u32; 3], block: [u32; 3], shared| {
        launches::hipModuleLaunchKernel(
            func,
            grid[0],
            grid[1],
            grid[2],
            block[0],
            block[1],
            block[2],
            shared,
            0,
            params.as_ptr() as Address,
            0,
        )
    };
    assert_eq!(go(count, [0, 1, 1], [1; 3], 0), HipError::INVALID_VALUE);
    assert_eq!(go(count, [1; 3], [1, 0, 1], 0), HipError::INVALID_CONFIGURATION);
    assert_eq!(go(count, [1; 3], [1025, 1, 1], 0), HipError::INVALID_VALUE);
    assert_eq!(go(count, [1, 70000, 1], [1; 3], 0), HipError::INVALID_VALUE);
    assert_eq!(go(count, [1 << 30, 1, 1], [16, 1, 1], 0), HipError::INVALID_CONFIGURATION);
    assert_eq!(go(count, [1; 3], [1; 3], 65537), HipError::INVALID_VALUE);
    assert_eq!(go(small, [1; 3], [65, 1, 1], 0), HipError::LAUNCH_FAILURE);
    good(go(count, [2, 3, 2], [4, 2, 8], 0));
    assert_eq!(download(out, 1), [2 * 3 * 2 * 4 * 2 * 8]);

    // In work-items, with partial workgroups: 100 x 3 of them.
    good(memory::hipMemset(out, 0, 4));
    let (mut start, mut stop) = (0, 0);
    good(event::hipEventCreate(Some(&mut start)));
    good(event::hipEventCreate(Some(&mut stop)));
    good(launches::hipExtModuleLaunchKernel(
        count,
        100,
        3,
        1,
        64,
        2,
        1,
        0,
        0,
        params.as_ptr() as Address,
        0,
        start,
        stop,
        0,
    ));
    assert_eq!(download(out, 1), [300]);
    let mut milliseconds = -1.0;
    good(event::hipEventElapsedTime(Some(&mut milliseconds), start, stop));
    assert!(milliseconds > 0.0);

    let cooperative = |grid| {
        let params = params.as_ptr() as Address;
        launches::hipModuleLaunchCooperativeKernel(count, grid, 1, 1, 64, 1, 1, 0, 0, params)
    };
    assert_eq!(cooperative(1 << 20), HipError::COOPERATIVE_LAUNCH_TOO_LARGE);
    good(cooperative(4));
    good(device::hipDeviceSynchronize());
    good(memory::hipFree(out));
    good(module::hipModuleUnload(module));
}

#[test]
fn dynamic_lds_and_kernel_attributes() {
    setup();
    let module = load();
    let (reverse, small) = (function(module, "reverse"), function(module, "small"));
    let values: Vec<u32> = (0..256).collect();
    let address = upload(&values);
    good(launches::hipModuleLaunchKernel(
        reverse,
        2,
        1,
        1,
        128,
        1,
        1,
        128 * 4,
        0,
        [at(&address)].as_ptr() as Address,
        0,
    ));
    let expected: Vec<u32> = (0..128).rev().chain((128..256).rev()).collect();
    assert_eq!(download(address, 256), expected);
    let attribute = |func, number| {
        let mut value = -1;
        good(module::hipFuncGetAttribute(Some(&mut value), number, func));
        value
    };
    assert_eq!((attribute(small, 0), attribute(reverse, 0)), (64, 1024));
    assert_eq!((attribute(reverse, 1), attribute(reverse, 8)), (0, 65536));
    let (mut grid, mut block) = (0, 0);
    good(module::hipModuleOccupancyMaxPotentialBlockSize(
        Some(&mut grid),
        Some(&mut block),
        small,
        0,
        0,
    ));
    assert_eq!(block, 64);
    assert_eq!(grid % 304, 0);
    let mut blocks = 0;
    let of = module::hipModuleOccupancyMaxActiveBlocksPerMultiprocessor;
    // 64 KiB of LDS: one workgroup with more than half of it, two with half.
    good(of(Some(&mut blocks), reverse, 64, 40 << 10));
    assert_eq!(blocks, 1);
    good(of(Some(&mut blocks), reverse, 64, 32 << 10));
    assert_eq!(blocks, 2);
    assert_eq!(of(Some(&mut blocks), reverse, 0, 0), HipError::INVALID_VALUE);
    good(memory::hipFree(address));
    good(module::hipModuleUnload(module));
}

#[test]
fn variables_of_modules() {
    setup();
    let module = load();
    let (mut address, mut size) = (0, 0);
    let global = |address: &mut Address, size: &mut usize, name| {
        module::hipModuleGetGlobal(Some(address), Some(size), module, Text::new(name))
    };
    good(global(&mut address, &mut size, c"table"));
    assert_eq!(size, 16);
    assert_eq!(download(address, 4), [10, 20, 30, 40]);
    good(global(&mut address, &mut size, c"scale"));
    good(memory::hipMemcpyHtoD(address, at(&11u32), 4));
    let values = upload(&[1, 2, 3]);
    let count = 3u32;
    good(launch(function(module, "times_scale"), 1, 64, 0, &[at(&values), at(&count)]));
    assert_eq!(download(values, 3), [11, 22, 33]);
    assert_eq!(global(&mut address, &mut size, c"nothing"), HipError::NOT_FOUND);
    good(memory::hipFree(values));
    good(module::hipModuleUnload(module));
    assert_eq!(global(&mut address, &mut size, c"table"), HipError::INVALID_HANDLE);
}

#[test]
fn images_of_all_sorts() {
    setup();
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("other.hsaco");
    compile("hip/kernels.hip", "gfx90a", &other);
    let other = std::fs::read(other).unwrap();
    let load = |bytes: &[u8]| {
        let mut handle = 0;
        let error = module::hipModuleLoadData(Some(&mut handle), bytes.as_ptr() as Address);
        if error == HipError::SUCCESS {
            function(handle, "add");
            good(module::hipModuleUnload(handle));
        }
        error
    };
    good(load(kernels()));
    assert_eq!(load(&other), HipError::NO_BINARY_FOR_GPU);
    let host = ("host-x86_64-unknown-linux-gnu-", &[][..]);
    let (first, second) = ("hipv4-amdgcn-amd-amdhsa--gfx90a", "hipv4-amdgcn-amd-amdhsa--gfx942");
    good(load(&bundle(&[host, (first, &other), (second, kernels())])));
    let without = bundle(&[host, (first, &other)]);
    assert_eq!(load(&without), HipError::NO_BINARY_FOR_GPU);
    let mut text = b"this is no code object".to_vec();
    text.resize(8192, 0);
    assert_eq!(load(&text), HipError::INVALID_IMAGE);
    assert_eq!(module::hipModuleLoadData(Some(&mut 0), 0), HipError::INVALID_VALUE);

    let path = folder.path().join("kernels.hsaco");
    let c_path = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    let mut handle = 0;
    let missing = module::hipModuleLoad(Some(&mut handle), Text::new(&c_path));
    assert_eq!(missing, HipError::FILE_NOT_FOUND);
    // A file that ends too early, anywhere.
    for part in [0, 3, 63, 64, 700, kernels().len() / 2, kernels().len() - 1] {
        std::fs::write(&path, &kernels()[..part]).unwrap();
        let error = module::hipModuleLoad(Some(&mut handle), Text::new(&c_path));
        assert_eq!(error, HipError::INVALID_IMAGE, "{part} bytes");
    }
    std::fs::write(&path, kernels()).unwrap();
    good(module::hipModuleLoad(Some(&mut handle), Text::new(&c_path)));
    good(module::hipModuleUnload(handle));
}

/// Makes a stream wait until the returned sender is used or dropped.
fn block(stream: Handle) -> Sender<()> {
    extern "C" fn wait(data: *mut c_void) {
        // SAFETY: the box that `block` made, for this one call.
        let receiver = unsafe { Box::from_raw(data.cast::<Receiver<()>>()) };
        let _ = receiver.recv();
    }
    let (sender, receiver) = channel();
    let data = Box::into_raw(Box::new(receiver)) as Address;
    good(stream::hipLaunchHostFunc(stream, Some(wait), data));
    sender
}

#[test]
fn streams_run_beside_the_host_and_in_order() {
    use_device(1);
    let module = load();
    let func = function(module, "add");
    let stream = new_stream(flag::STREAM_NON_BLOCKING);
    let address = upload(&[0; 64]);
    let gate = block(stream);
    add(func, stream, address, 1, 64, 0);
    let mut host = 0;
    good(memory::hipHostMalloc(Some(&mut host), 64 * 4, 0));
    good(memory::hipMemcpyDtoHAsync(host, address, 64 * 4, stream));
    add(func, stream, address, 10, 64, 0);
    assert_eq!(stream::hipStreamQuery(stream), HipError::NOT_READY);
    assert_eq!(hipGetLastError(), HipError::NOT_READY);
    // Nothing has run yet: a stream that does not block sees the old numbers.
    assert_eq!(download(address, 64), [0; 64]);
    drop(gate);
    good(stream::hipStreamSynchronize(stream));
    good(stream::hipStreamQuery(stream));
    assert_eq!(download(host, 64), [1; 64]);
    assert_eq!(download(address, 64), [11; 64]);
    good(stream::hipStreamDestroy(stream));
    good(memory::hipHostFree(host));
    good(memory::hipFree(address));
    good(module::hipModuleUnload(module));
}

#[test]
fn events_order_streams() {
    use_device(1);
    let module = load();
    let func = function(module, "add");
    let (first, second) = (new_stream(1), new_stream(1));
    let address = upload(&[0; 64]);
    let mut event = 0;
    good(event::hipEventCreate(Some(&mut event)));
    // An event that was never recorded is no obstacle.
    good(event::hipEventQuery(event));
    good(stream::hipStreamWaitEvent(second, event, 0));
    let gate = block(first);
    add(func, first, address, 1, 64, 0);
    good(event::hipEventRecord(event, first));
    good(stream::hipStreamWaitEvent(second, event, 0));
    let mut host = [9u32; 64];
    let waiting = std::thread::spawn(move || {
        good(device::hipSetDevice(1));
        let to = host.as_mut_ptr() as Address;
        let bytes = size_of_val(&host);
        good(memory::hipMemcpyWithStream(to, address, bytes, kind::DEVICE_TO_HOST, second));
        host
    });
    assert_eq!(event::hipEventQuery(event), HipError::NOT_READY);
    let mut milliseconds = 0.0;
    let early = event::hipEventElapsedTime(Some(&mut milliseconds), event, event);
    assert_eq!(early, HipError::NOT_READY);
    std::thread::sleep(Duration::from_millis(20));
    assert!(!waiting.is_finished());
    drop(gate);
    assert_eq!(waiting.join().unwrap(), [1; 64]);
    good(event::hipEventSynchronize(event));
    good(event::hipEventQuery(event));
    good(event::hipEventDestroy(event));
    assert_eq!(event::hipEventQuery(event), HipError::INVALID_HANDLE);
    good(memory::hipFree(address));
    good(stream::hipStreamDestroy(first));
    good(stream::hipStreamDestroy(second));
    good(module::hipModuleUnload(module));
}

#[test]
fn the_default_stream_waits_for_blocking_streams() {
    use_device(4);
    let (blocking, free) = (new_stream(0), new_stream(flag::STREAM_NON_BLOCKING));
    let address = upload(&[0]);
    let gate = block(blocking);
    good(memory::hipMemsetD32Async(address, 5, 1, blocking));
    // Behind the default stream's work, so behind the gate.
    good(memory::hipMemsetAsync(address, 0, 0, 0));
    let other = new_stream(0);
    let mut last = [0; 2];
    for (index, stream) in [other, free].into_iter().enumerate() {
        good(event::hipEventCreate(Some(&mut last[index])));
        good(event::hipEventRecord(last[index], stream));
    }
    good(event::hipEventSynchronize(last[1]));
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(event::hipEventQuery(last[0]), HipError::NOT_READY);
    assert_eq!(stream::hipStreamQuery(0), HipError::NOT_READY);
    drop(gate);
    assert_eq!(download(address, 1), [5]);
    good(event::hipEventSynchronize(last[0]));
    for stream in [blocking, free, other] {
        good(stream::hipStreamDestroy(stream));
    }
    good(memory::hipFree(address));
}

#[test]
fn work_of_a_destroyed_stream_is_done() {
    use_device(5);
    let module = load();
    let func = function(module, "add");
    let address = upload(&[0; 64]);
    let stream = new_stream(flag::STREAM_NON_BLOCKING);
    let gate = block(stream);
    add(func, stream, address, 6, 64, 0);
    good(stream::hipStreamDestroy(stream));
    drop(gate);
    good(device::hipDeviceSynchronize());
    assert_eq!(download(address, 64), [6; 64]);
    good(memory::hipFree(address));
    good(module::hipModuleUnload(module));
}

#[test]
fn callbacks_are_called_in_order() {
    setup();
    static STEPS: AtomicU32 = AtomicU32::new(0);
    extern "C" fn first(_: Handle, status: i32, data: *mut c_void) {
        assert_eq!((status, data as usize), (0, 42));
        STEPS.store(1, Ordering::SeqCst);
    }
    extern "C" fn second(_: *mut c_void) {
        // Waiting from here would never end; it is an error instead.
        let waited = stream::hipStreamSynchronize(0);
        let step = if waited == HipError::NOT_SUPPORTED { 2 } else { 3 };
        let _ = STEPS.compare_exchange(1, step, Ordering::SeqCst, Ordering::SeqCst);
    }
    let stream = new_stream(0);
    good(stream::hipStreamAddCallback(stream, Some(first), 42, 0));
    good(stream::hipLaunchHostFunc(stream, Some(second), 0));
    // Keeps the default stream busy while the function asks for it.
    let gate = block(stream);
    good(memory::hipMemsetAsync(0, 0, 0, 0));
    while STEPS.load(Ordering::SeqCst) < 2 {
        std::thread::yield_now();
    }
    drop(gate);
    good(stream::hipStreamSynchronize(stream));
    assert_eq!(STEPS.load(Ordering::SeqCst), 2);
    assert_eq!(stream::hipLaunchHostFunc(stream, None, 0), HipError::INVALID_VALUE);
    good(stream::hipStreamDestroy(stream));
}

#[test]
fn pageable_memory_may_be_reused_at_once() {
    setup();
    let stream = new_stream(flag::STREAM_NON_BLOCKING);
    let address = upload(&[0; 4]);
    let gate = block(stream);
    let mut host = [1u32, 2, 3, 4];
    let from = host.as_ptr() as Address;
    good(memory::hipMemcpyHtoDAsync(address, from, 16, stream));
    host.fill(9);
    drop(gate);
    good(stream::hipStreamSynchronize(stream));
    assert_eq!((download(address, 4), host), (vec![1, 2, 3, 4], [9; 4]));
    good(stream::hipStreamDestroy(stream));
    good(memory::hipFree(address));
}

#[test]
fn streams_wait_for_values() {
    use_device(6);
    let (writer, reader) = (new_stream(1), new_stream(1));
    let flags = upload(&[0, 0, 0]);
    good(stream::hipStreamWaitValue32(reader, flags, 3, 0, u32::MAX));
    good(memory::hipMemsetD32Async(flags + 4, 8, 1, reader));
    good(stream::hipStreamWriteValue32(writer, flags, 2, 0));
    good(stream::hipStreamSynchronize(writer));
    std::thread::sleep(Duration::from_millis(10));
    assert_eq!(stream::hipStreamQuery(reader), HipError::NOT_READY);
    good(stream::hipStreamWriteValue32(writer, flags, 3, 0));
    good(stream::hipStreamSynchronize(reader));
    assert_eq!(download(flags, 3), [3, 8, 0]);
    let bad = stream::hipStreamWriteValue64(writer, flags + 8, 1, 0);
    assert_eq!(bad, HipError::INVALID_VALUE);
    good(memory::hipFree(flags));
    good(stream::hipStreamDestroy(writer));
    good(stream::hipStreamDestroy(reader));
}

#[test]
fn pools_free_in_the_order_of_streams() {
    use_device(6);
    let stream = new_stream(1);
    let (mut handle, mut address) = (0, 0);
    good(pool::hipDeviceGetDefaultMemPool(Some(&mut handle), 6));
    let used = || {
        let mut bytes = 0u64;
        good(pool::hipMemPoolGetAttribute(handle, 7, std::ptr::from_mut(&mut bytes) as Address));
        bytes
    };
    good(pool::hipMallocAsync(Some(&mut address), 1000, stream));
    assert_eq!(used(), 1000);
    let gate = block(stream);
    good(memory::hipMemsetAsync(address, 1, 1000, stream));
    good(pool::hipFreeAsync(address, stream));
    assert_eq!(used(), 1000);
    drop(gate);
    good(stream::hipStreamSynchronize(stream));
    assert_eq!(used(), 0);
    assert_eq!(pool::hipFreeAsync(address, stream), HipError::INVALID_VALUE);
    good(stream::hipStreamDestroy(stream));
}

#[test]
fn peers() {
    use_device(7);
    let mut can = -1;
    good(device::hipDeviceCanAccessPeer(Some(&mut can), 7, 6));
    assert_eq!(can, 1);
    good(device::hipDeviceCanAccessPeer(Some(&mut can), 7, 7));
    assert_eq!(can, 0);
    good(device::hipDeviceEnablePeerAccess(6, 0));
    let again = device::hipDeviceEnablePeerAccess(6, 0);
    assert_eq!(again, HipError::PEER_ACCESS_ALREADY_ENABLED);
    good(device::hipDeviceDisablePeerAccess(6));
    assert_eq!(device::hipDeviceDisablePeerAccess(6), HipError::PEER_ACCESS_NOT_ENABLED);
    let from = upload(&[1, 2, 3]);
    good(device::hipSetDevice(6));
    let to = upload(&[0; 3]);
    good(memory::hipMemcpyPeer(to, 6, from, 7, 12));
    assert_eq!(download(to, 3), [1, 2, 3]);
    assert_eq!(memory::hipMemcpyPeer(to, 6, from, 99, 12), HipError::INVALID_DEVICE);
    good(memory::hipFree(to));
    good(memory::hipFree(from));
}

#[test]
fn kernels_belong_to_their_device() {
    use_device(6);
    let module = load();
    let func = function(module, "count");
    let address = upload(&[0]);
    good(device::hipSetDevice(7));
    assert_eq!(launch(func, 1, 1, 0, &[at(&address)]), HipError::INVALID_DEVICE);
    good(memory::hipFree(address));
    good(module::hipModuleUnload(module));
}

#[test]
fn odds_and_ends() {
    setup();
    assert_eq!(profile::__gnu_h2f_ieee(0x3e00), 1.5);
    assert_eq!(profile::__gnu_f2h_ieee(-2.0), 0xc000);
    let mask: [u32; 1] = [0xf];
    let mut stream = 0;
    good(stream::hipExtStreamCreateWithCUMask(Some(&mut stream), 1, List::new(&mask)));
    let mut words = [9u32; 10];
    good(stream::hipExtStreamGetCUMask(stream, 10, Room::new(&mut words)));
    assert_eq!(words, [0xf, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    // 304 compute units: nine whole words and sixteen bits.
    good(stream::hipExtStreamGetCUMask(0, 10, Room::new(&mut words)));
    assert_eq!((words[..9].to_vec(), words[9]), (vec![u32::MAX; 9], 0xffff));
    good(stream::hipStreamDestroy(stream));
    let (mut least, mut greatest) = (0, 0);
    good(stream::hipDeviceGetStreamPriorityRange(Some(&mut least), Some(&mut greatest)));
    assert!(greatest < least);
}
