//! The functions of HIP that the device needs, found in AMD's library when a program runs.
//!
//! The table is the only place that names them. Nothing of ROCm is needed to build; one binary
//! serves every release, since of HIP's structures none is read by layout. With the feature
//! `link-hip` the table is checked against the crate `hip-sys` and linked (`linked`).
#![allow(unsafe_code)]

use crate::gpu::driver::{Event, Function, Graph, GraphExec, Module, Status, Stream};
use crate::gpu::table::function_table;
use std::ffi::{c_char, c_int, c_uint, c_void};

/// `hipGraphNode_t`, of which none is ever asked for.
#[repr(transparent)]
pub struct GraphNode(#[allow(dead_code)] *mut c_void);

/// Values that HIP's headers define.
pub mod value {
    use std::ffi::{c_int, c_uint};

    /// `hipMemcpyHostToDevice`.
    pub const HOST_TO_DEVICE: c_uint = 1;
    /// `hipMemcpyDeviceToHost`.
    pub const DEVICE_TO_HOST: c_uint = 2;
    /// `hipStreamNonBlocking`: does not wait for the default stream.
    pub const STREAM_NON_BLOCKING: c_uint = 1;
    /// `hipEventDisableTiming`.
    pub const EVENT_DISABLE_TIMING: c_uint = 2;
    /// `hipHostMallocMapped`: the device can reach it.
    pub const HOST_MAPPED: c_uint = 2;
    /// `hipHostMallocCoherent`: what a running kernel stores is seen by the host.
    pub const HOST_COHERENT: c_uint = 0x4000_0000;
    /// `hipStreamCaptureModeThreadLocal`: other threads may do what they like meanwhile.
    pub const CAPTURE_THREAD_LOCAL: c_uint = 1;
    /// `hipDeviceAttributeMultiprocessorCount`.
    pub const MULTIPROCESSOR_COUNT: c_uint = 63;
    /// `HIP_LAUNCH_PARAM_END`.
    pub const PARAM_END: usize = 3;
    /// Most bytes that a device's properties have had in any release, and as many again.
    pub const PROPERTIES_ROOM: usize = 4096;
    /// Room for a device's name.
    pub const NAME_ROOM: c_int = 256;
}

/// Every function, with what to do where a library lacks it: `required` refuses the library.
macro_rules! hip_functions {
    ($expand:ident) => {
        $expand! {
            required {
                hipGetDeviceCount(count: *mut c_int) -> Status;
                hipSetDevice(device: c_int) -> Status;
                hipDeviceGetAttribute(to: *mut c_int, attribute: c_uint, device: c_int) -> Status;
                hipDeviceGetName(name: *mut c_char, room: c_int, device: c_int) -> Status;
                hipMemGetInfo(free: *mut usize, total: *mut usize) -> Status;
                hipMalloc(address: *mut *mut c_void, bytes: usize) -> Status;
                hipFree(address: *mut c_void) -> Status;
                hipHostMalloc(address: *mut *mut c_void, bytes: usize, flags: c_uint) -> Status;
                hipHostFree(address: *mut c_void) -> Status;
                hipHostGetDevicePointer(
                    device: *mut *mut c_void, host: *mut c_void, flags: c_uint
                ) -> Status;
                hipMemcpyAsync(
                    to: *mut c_void, from: *const c_void, bytes: usize, kind: c_uint, stream: Stream
                ) -> Status;
                hipMemsetAsync(
                    to: *mut c_void, value: c_int, bytes: usize, stream: Stream
                ) -> Status;
                hipStreamCreateWithFlags(stream: *mut Stream, flags: c_uint) -> Status;
                hipStreamDestroy(stream: Stream) -> Status;
                hipStreamSynchronize(stream: Stream) -> Status;
                hipStreamQuery(stream: Stream) -> Status;
                hipEventCreateWithFlags(event: *mut Event, flags: c_uint) -> Status;
                hipEventDestroy(event: Event) -> Status;
                hipEventRecord(event: Event, stream: Stream) -> Status;
                hipEventSynchronize(event: Event) -> Status;
                hipEventElapsedTime(milliseconds: *mut f32, start: Event, end: Event) -> Status;
                hipModuleLoadData(module: *mut Module, image: *const c_void) -> Status;
                hipModuleUnload(module: Module) -> Status;
                hipModuleGetFunction(
                    function: *mut Function, module: Module, name: *const c_char
                ) -> Status;
                hipModuleLaunchKernel(
                    function: Function,
                    grid_x: c_uint, grid_y: c_uint, grid_z: c_uint,
                    block_x: c_uint, block_y: c_uint, block_z: c_uint,
                    lds: c_uint, stream: Stream,
                    params: *mut *mut c_void, extra: *mut *mut c_void
                ) -> Status;
                hipGetErrorName(status: Status) -> *const c_char;
                hipGetErrorString(status: Status) -> *const c_char;
                hipGetLastError() -> Status;
            }
            // Their structure has had two layouts, of which each name stands for one or both;
            // see `facts`.
            optional {
                hipGetDevicePropertiesR0600(to: *mut c_void, device: c_int) -> Status;
                hipGetDeviceProperties(to: *mut c_void, device: c_int) -> Status;
                hipStreamBeginCapture(stream: Stream, mode: c_uint) -> Status;
                hipStreamEndCapture(stream: Stream, graph: *mut Graph) -> Status;
                hipGraphInstantiate(
                    exec: *mut GraphExec, graph: Graph,
                    node: *mut GraphNode, log: *mut c_char, room: usize
                ) -> Status;
                hipGraphLaunch(exec: GraphExec, stream: Stream) -> Status;
                hipGraphDestroy(graph: Graph) -> Status;
                hipGraphExecDestroy(exec: GraphExec) -> Status;
            }
        }
    };
}
#[cfg(feature = "link-hip")]
pub(super) use hip_functions;

hip_functions!(function_table);
