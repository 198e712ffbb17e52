//! The table against `hip-sys`, whose bindings come from HIP's headers: every entry must take and
//! give what the function of that name does, and constants must be theirs. It compiles or not.
#![allow(unsafe_code)]

use super::api::{Api, GraphNode, hip_functions, value};
use crate::gpu::driver::{Event, Function, Graph, GraphExec, Module, Status, Stream};
use hip_sys::hiprt;
use std::ffi::{c_char, c_int, c_uint, c_void};

/// `Self`, of the headers, is passed as `Ours` is.
trait PassedAs<Ours> {}

macro_rules! passed {
    ($($theirs:ty as $ours:ty),* $(,)?) => {$(
        impl PassedAs<$ours> for $theirs {}
        const _: () = assert!(size_of::<$theirs>() == size_of::<$ours>());
        const _: () = assert!(align_of::<$theirs>() == align_of::<$ours>());
    )*};
}

passed! {
    c_int as c_int,
    c_uint as c_uint,
    c_char as c_char,
    usize as usize,
    f32 as f32,
    hiprt::hipError_t as Status,
    hiprt::hipDeviceAttribute_t as c_uint,
    hiprt::hipMemcpyKind as c_uint,
    hiprt::hipStreamCaptureMode as c_uint,
    hiprt::hipStream_t as Stream,
    hiprt::hipEvent_t as Event,
    hiprt::hipModule_t as Module,
    hiprt::hipFunction_t as Function,
    hiprt::hipGraph_t as Graph,
    hiprt::hipGraphExec_t as GraphExec,
    hiprt::hipGraphNode_t as GraphNode,
}

impl PassedAs<c_void> for c_void {}
/// The properties of a device, of which no layout is assumed: only that there is room.
impl PassedAs<c_void> for hiprt::hipDeviceProp_t {}
const _: () = assert!(size_of::<hiprt::hipDeviceProp_t>() <= value::PROPERTIES_ROOM);

impl<Ours, Theirs: PassedAs<Ours>> PassedAs<*mut Ours> for *mut Theirs {}
impl<Ours, Theirs: PassedAs<Ours>> PassedAs<*const Ours> for *const Theirs {}

/// A function of the headers that can be called as `Ours`.
trait CalledAs<Ours> {
    fn adopt(self) -> Ours;
}

macro_rules! called {
    ($($theirs:ident $ours:ident),*) => {
        impl<$($theirs: PassedAs<$ours>, $ours,)* R: PassedAs<S>, S>
            CalledAs<unsafe extern "C" fn($($ours),*) -> S> for unsafe extern "C" fn($($theirs),*) -> R
        {
            fn adopt(self) -> unsafe extern "C" fn($($ours),*) -> S {
                // SAFETY: pointers to functions of one calling convention, whose arguments and
                // results are passed alike one by one.
                unsafe { std::mem::transmute(self) }
            }
        }
    };
}

called!();
called!(A0 B0);
called!(A0 B0, A1 B1);
called!(A0 B0, A1 B1, A2 B2);
called!(A0 B0, A1 B1, A2 B2, A3 B3);
called!(A0 B0, A1 B1, A2 B2, A3 B3, A4 B4);
called!(
    A0 B0, A1 B1, A2 B2, A3 B3, A4 B4, A5 B5, A6 B6, A7 B7, A8 B8, A9 B9, A10 B10
);

macro_rules! adopt {
    ($name:ident($($type:ty),*) -> $result:ty) => {{
        // The headers' own function, by the number of its arguments and nothing else.
        let theirs: unsafe extern "C" fn($(adopt!(@any $type)),*) -> _ = hiprt::$name;
        CalledAs::<unsafe extern "C" fn($($type),*) -> $result>::adopt(theirs)
    }};
    (@any $type:ty) => { _ };
}

/// Functions that the bindings, of HIP 5.4, do not have yet.
macro_rules! optional {
    (hipGetDevicePropertiesR0600($($type:ty),*) -> $result:ty) => { None };
    ($name:ident($($type:ty),*) -> $result:ty) => { Some(adopt!($name($($type),*) -> $result)) };
}

macro_rules! linked {
    (
        required { $($must:ident($($a:ident: $at:ty),*) -> $ar:ty;)* }
        optional { $($may:ident($($b:ident: $bt:ty),*) -> $br:ty;)* }
    ) => {
        /// The functions of the library that was linked.
        pub fn table() -> Api {
            Api {
                $($must: adopt!($must($($at),*) -> $ar),)*
                $($may: optional!($may($($bt),*) -> $br),)*
            }
        }
    };
}

hip_functions!(linked);

macro_rules! same {
    ($($ours:expr, $theirs:expr;)*) => {$(const _: () = assert!($ours as u64 == $theirs as u64);)*};
}

same! {
    Status::SUCCESS.0, hiprt::hipError_t::hipSuccess;
    Status::OUT_OF_MEMORY.0, hiprt::hipError_t::hipErrorOutOfMemory;
    Status::NO_DEVICE.0, hiprt::hipError_t::hipErrorNoDevice;
    Status::INVALID_DEVICE.0, hiprt::hipError_t::hipErrorInvalidDevice;
    Status::NOT_FOUND.0, hiprt::hipError_t::hipErrorNotFound;
    Status::NOT_READY.0, hiprt::hipError_t::hipErrorNotReady;
    Status::ECC.0, hiprt::hipError_t::hipErrorECCNotCorrectable;
    Status::ILLEGAL_ADDRESS.0, hiprt::hipError_t::hipErrorIllegalAddress;
    Status::LAUNCH_TIME_OUT.0, hiprt::hipError_t::hipErrorLaunchTimeOut;
    Status::CONTEXT_IS_DESTROYED.0, hiprt::hipError_t::hipErrorContextIsDestroyed;
    Status::ASSERT.0, hiprt::hipError_t::hipErrorAssert;
    Status::LAUNCH_FAILURE.0, hiprt::hipError_t::hipErrorLaunchFailure;
    value::HOST_TO_DEVICE, hiprt::hipMemcpyKind::hipMemcpyHostToDevice;
    value::DEVICE_TO_HOST, hiprt::hipMemcpyKind::hipMemcpyDeviceToHost;
    value::STREAM_NON_BLOCKING, hiprt::hipStreamNonBlocking;
    value::EVENT_DISABLE_TIMING, hiprt::hipEventDisableTiming;
    value::HOST_MAPPED, hiprt::hipHostMallocMapped;
    value::HOST_COHERENT, hiprt::hipHostMallocCoherent;
    value::CAPTURE_THREAD_LOCAL, hiprt::hipStreamCaptureMode::hipStreamCaptureModeThreadLocal;
    value::MULTIPROCESSOR_COUNT,
        hiprt::hipDeviceAttribute_t::hipDeviceAttributeMultiprocessorCount;
}
