//! What a device does after a kernel failed, and how the program hears of it.

#![allow(unsafe_code, reason = "the API is C's")]

mod common;

use std::ffi::c_void;
use std::sync::atomic::{AtomicI32, Ordering};

use amdhip64::error::HipError;
use amdhip64::types::*;
use amdhip64::{device, event, launch as launches, memory, module, stream};
use common::*;

/// Runs a kernel that fails; every later call on the device tells, until it is reset.
fn fails(ordinal: i32, kernel: &str, error: HipError) {
    use_device(ordinal);
    let module = load();
    let address = upload(&[0; 64]);
    let stream = new_stream(0);
    let (mut before, mut after) = (0, 0);
    good(event::hipEventCreate(Some(&mut before)));
    good(event::hipEventCreate(Some(&mut after)));
    good(event::hipEventRecord(before, stream));
    good(stream::hipStreamSynchronize(stream));
    // The launch itself is good: the device finds out later.
    good(launch(function(module, kernel), 1, 64, stream, &[at(&address)]));
    assert_eq!(stream::hipStreamSynchronize(stream), error);
    assert_eq!(device::hipDeviceSynchronize(), error);
    assert_eq!(stream::hipStreamQuery(stream), error);
    assert_eq!(memory::hipMalloc(Some(&mut 0), 4), error);
    assert_eq!(memory::hipMemset(address, 0, 4), error);
    let again = launch(function(module, "count"), 1, 64, stream, &[at(&address)]);
    assert_eq!(again, error);
    good(device::hipDeviceReset());
    assert_eq!(memory::hipFree(address), HipError::INVALID_VALUE);
    assert_eq!(stream::hipStreamQuery(stream), HipError::INVALID_HANDLE);
    // It works again.
    let address = upload(&[0]);
    good(launch(function(module, "count"), 1, 64, 0, &[at(&address)]));
    assert_eq!(download(address, 1), [64]);
    good(memory::hipFree(address));
    good(module::hipModuleUnload(module));
}

#[test]
fn wild_addresses() {
    fails(1, "wild", HipError::ILLEGAL_ADDRESS);
}

#[test]
fn endless_loops() {
    fails(2, "forever", HipError::LAUNCH_TIME_OUT);
}

#[test]
fn traps() {
    fails(3, "trap", HipError::LAUNCH_FAILURE);
}

#[test]
fn who_waits_is_told() {
    static STATUS: AtomicI32 = AtomicI32::new(-1);
    extern "C" fn callback(_: Handle, status: i32, _: *mut c_void) {
        STATUS.store(status, Ordering::SeqCst);
    }
    extern "C" fn never(_: *mut c_void) {
        panic!("a function behind a failed kernel was called");
    }
    use_device(4);
    let module = load();
    let address = upload(&[7; 64]);
    let stream = new_stream(0);
    let mut event = 0;
    good(event::hipEventCreate(Some(&mut event)));
    good(launch(function(module, "wild"), 1, 1, stream, &[at(&address)]));
    // The device may have failed already when these are put in.
    let late = [
        stream::hipStreamAddCallback(stream, Some(callback), 0, 0),
        event::hipEventRecord(event, stream),
        stream::hipLaunchHostFunc(stream, Some(never), 0),
        memory::hipMemsetAsync(address, 0, 256, stream),
    ];
    good(late[0]);
    good(late[1]);
    for error in &late[2..] {
        assert!([HipError::SUCCESS, HipError::ILLEGAL_ADDRESS].contains(error));
    }
    assert_eq!(event::hipEventSynchronize(event), HipError::ILLEGAL_ADDRESS);
    assert_eq!(STATUS.load(Ordering::SeqCst), HipError::ILLEGAL_ADDRESS.0);
    good(device::hipDeviceReset());
    good(module::hipModuleUnload(module));
}

#[test]
fn other_devices_go_on() {
    use_device(5);
    let module = load();
    good(launch(function(module, "wild"), 1, 1, 0, &[at(&0usize)]));
    assert_eq!(device::hipDeviceSynchronize(), HipError::ILLEGAL_ADDRESS);
    good(device::hipSetDevice(6));
    good(device::hipDeviceSynchronize());
    let address = upload(&[4]);
    assert_eq!(download(address, 1), [4]);
    good(memory::hipFree(address));
    good(device::hipSetDevice(5));
    good(device::hipDeviceReset());
    good(module::hipModuleUnload(module));
}

#[test]
fn freed_memory_is_illegal() {
    use_device(7);
    let module = load();
    // Large, so that allocations of other tests take its start and not its middle.
    let mut address = 0;
    good(memory::hipMalloc(Some(&mut address), 1 << 30));
    good(memory::hipFree(address));
    let address = address + (1 << 29);
    let params = [at(&address)];
    let list = params.as_ptr() as Address;
    let count = function(module, "count");
    good(launches::hipModuleLaunchKernel(count, 1, 1, 1, 1, 1, 1, 0, 0, list, 0));
    assert_eq!(device::hipDeviceSynchronize(), HipError::ILLEGAL_ADDRESS);
    good(device::hipDeviceReset());
    good(module::hipModuleUnload(module));
}
