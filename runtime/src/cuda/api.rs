//! The functions of CUDA's driver API that the device needs, found in NVIDIA's driver when a
//! program runs.
//!
//! Types and signatures are those of the crate `cudarc`, which makes them from CUDA's headers:
//! this file does not compile unless every entry takes what `cudarc`'s function of that name does.
//! The entries are looked up here all the same, since `cudarc` panics where the library or a
//! function is missing, and gives errors as an enum that a newer driver's numbers are not in.
#![allow(unsafe_code)]

use crate::gpu::driver::{DeviceAddress, Event, Function, Status, Stream};
use crate::gpu::table::function_table;
use cudarc::driver::sys;
use std::ffi::{c_char, c_int, c_uchar, c_uint, c_ulonglong, c_void};
use sys::{
    CUcontext, CUdevice, CUdevice_attribute, CUdeviceptr, CUevent, CUfunction,
    CUfunction_attribute, CUgraph, CUgraphExec, CUjit_option, CUjitInputType, CUlaunchConfig,
    CUlinkState, CUmodule, CUstream, CUstreamCaptureMode,
};

macro_rules! cuda_functions {
    ($($expand:ident)*) => {$(
        $expand! {
            required {
                cuInit(flags: c_uint) -> Status;
                cuDriverGetVersion(version: *mut c_int) -> Status;
                cuDeviceGetCount(count: *mut c_int) -> Status;
                cuDeviceGet(device: *mut CUdevice, ordinal: c_int) -> Status;
                cuDeviceGetName(name: *mut c_char, room: c_int, device: CUdevice) -> Status;
                cuDeviceGetAttribute(
                    value: *mut c_int, attribute: CUdevice_attribute, device: CUdevice
                ) -> Status;
                cuDevicePrimaryCtxRetain(context: *mut CUcontext, device: CUdevice) -> Status;
                cuCtxSetCurrent(context: CUcontext) -> Status;
                cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> Status;
                cuMemAlloc_v2(address: *mut CUdeviceptr, bytes: usize) -> Status;
                cuMemFree_v2(address: CUdeviceptr) -> Status;
                cuMemHostAlloc(address: *mut *mut c_void, bytes: usize, flags: c_uint) -> Status;
                cuMemFreeHost(address: *mut c_void) -> Status;
                cuMemHostGetDevicePointer_v2(
                    device: *mut CUdeviceptr, host: *mut c_void, flags: c_uint
                ) -> Status;
                cuMemsetD8Async(
                    to: CUdeviceptr, value: c_uchar, bytes: usize, stream: CUstream
                ) -> Status;
                cuMemcpyHtoDAsync_v2(
                    to: CUdeviceptr, from: *const c_void, bytes: usize, stream: CUstream
                ) -> Status;
                cuMemcpyDtoHAsync_v2(
                    to: *mut c_void, from: CUdeviceptr, bytes: usize, stream: CUstream
                ) -> Status;
                cuStreamCreate(stream: *mut CUstream, flags: c_uint) -> Status;
                cuStreamDestroy_v2(stream: CUstream) -> Status;
                cuStreamSynchronize(stream: CUstream) -> Status;
                cuStreamQuery(stream: CUstream) -> Status;
                cuStreamBeginCapture_v2(stream: CUstream, mode: CUstreamCaptureMode) -> Status;
                cuStreamEndCapture(stream: CUstream, graph: *mut CUgraph) -> Status;
                cuEventCreate(event: *mut CUevent, flags: c_uint) -> Status;
                cuEventDestroy_v2(event: CUevent) -> Status;
                cuEventRecord(event: CUevent, stream: CUstream) -> Status;
                cuEventSynchronize(event: CUevent) -> Status;
                cuEventElapsedTime(
                    milliseconds: *mut f32, start: CUevent, end: CUevent
                ) -> Status;
                cuLinkCreate_v2(
                    count: c_uint, options: *mut CUjit_option, values: *mut *mut c_void,
                    state: *mut CUlinkState
                ) -> Status;
                cuLinkAddData_v2(
                    state: CUlinkState, kind: CUjitInputType, data: *mut c_void, bytes: usize,
                    name: *const c_char, count: c_uint, options: *mut CUjit_option,
                    values: *mut *mut c_void
                ) -> Status;
                cuLinkComplete(
                    state: CUlinkState, cubin: *mut *mut c_void, bytes: *mut usize
                ) -> Status;
                cuLinkDestroy(state: CUlinkState) -> Status;
                cuModuleLoadData(module: *mut CUmodule, image: *const c_void) -> Status;
                cuModuleUnload(module: CUmodule) -> Status;
                cuModuleGetFunction(
                    function: *mut CUfunction, module: CUmodule, name: *const c_char
                ) -> Status;
                cuFuncSetAttribute(
                    function: CUfunction, attribute: CUfunction_attribute, value: c_int
                ) -> Status;
                cuLaunchKernel(
                    function: CUfunction,
                    grid_x: c_uint, grid_y: c_uint, grid_z: c_uint,
                    block_x: c_uint, block_y: c_uint, block_z: c_uint,
                    shared: c_uint, stream: CUstream,
                    params: *mut *mut c_void, extra: *mut *mut c_void
                ) -> Status;
                cuLaunchCooperativeKernel(
                    function: CUfunction,
                    grid_x: c_uint, grid_y: c_uint, grid_z: c_uint,
                    block_x: c_uint, block_y: c_uint, block_z: c_uint,
                    shared: c_uint, stream: CUstream, params: *mut *mut c_void
                ) -> Status;
                cuOccupancyMaxActiveBlocksPerMultiprocessor(
                    blocks: *mut c_int, function: CUfunction, block: c_int, shared: usize
                ) -> Status;
                cuGraphInstantiateWithFlags(
                    exec: *mut CUgraphExec, graph: CUgraph, flags: c_ulonglong
                ) -> Status;
                cuGraphLaunch(exec: CUgraphExec, stream: CUstream) -> Status;
                cuGraphDestroy(graph: CUgraph) -> Status;
                cuGraphExecDestroy(exec: CUgraphExec) -> Status;
            }
            // Those about errors take an error's number, which is no value of `cudarc`'s enum if it
            // is new.
            optional {
                cuLaunchKernelEx(
                    config: *const CUlaunchConfig, function: CUfunction,
                    params: *mut *mut c_void, extra: *mut *mut c_void
                ) -> Status;
                cuGetErrorName(error: Status, name: *mut *const c_char) -> Status;
                cuGetErrorString(error: Status, text: *mut *const c_char) -> Status;
            }
        }
    )*};
}

macro_rules! compare {
    (
        required { $($must:ident($($a:ident: $at:ty),*) -> $ar:ty;)* }
        optional {
            cuLaunchKernelEx($($l:ident: $lt:ty),*) -> $lr:ty;
            $($may:ident($($b:ident: $bt:ty),*) -> $br:ty;)*
        }
    ) => {
        $(const _: unsafe fn($($at),*) -> sys::CUresult = sys::$must;)*
        const _: unsafe fn($($lt),*) -> sys::CUresult = sys::cuLaunchKernelEx;
        $(const _: unsafe fn(sys::CUresult, *mut *const c_char) -> sys::CUresult = sys::$may;)*
    };
}

cuda_functions!(function_table compare);

macro_rules! same_size {
    ($($ours:ty, $theirs:ty;)*) => {$(
        const _: () = assert!(size_of::<$ours>() == size_of::<$theirs>());
        const _: () = assert!(align_of::<$ours>() == align_of::<$theirs>());
    )*};
}

// What is passed as another type than `cudarc`'s; addresses of the device are numbers there.
same_size! {
    Status, sys::CUresult;
    DeviceAddress, CUdeviceptr;
    Stream, CUstream;
    Event, CUevent;
    Function, CUfunction;
}

macro_rules! same {
    ($($ours:expr, $theirs:ident;)*) => {$(
        const _: () = assert!($ours.0 == sys::CUresult::$theirs as u32);
    )*};
}

same! {
    Status::SUCCESS, CUDA_SUCCESS;
    Status::OUT_OF_MEMORY, CUDA_ERROR_OUT_OF_MEMORY;
    Status::NO_DEVICE, CUDA_ERROR_NO_DEVICE;
    Status::INVALID_DEVICE, CUDA_ERROR_INVALID_DEVICE;
    Status::ECC, CUDA_ERROR_ECC_UNCORRECTABLE;
    Status::NOT_FOUND, CUDA_ERROR_NOT_FOUND;
    Status::NOT_READY, CUDA_ERROR_NOT_READY;
    Status::ILLEGAL_ADDRESS, CUDA_ERROR_ILLEGAL_ADDRESS;
    Status::LAUNCH_TIME_OUT, CUDA_ERROR_LAUNCH_TIMEOUT;
    Status::CONTEXT_IS_DESTROYED, CUDA_ERROR_CONTEXT_IS_DESTROYED;
    Status::ASSERT, CUDA_ERROR_ASSERT;
    Status::LAUNCH_FAILURE, CUDA_ERROR_LAUNCH_FAILED;
}
