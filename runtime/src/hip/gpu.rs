//! One GPU: calls of HIP's functions on it, their errors, and owners of what they give.
#![allow(unsafe_code)]

use super::api::{Api, Event, GraphExec, Module, Status, Stream, value};
use crate::device::DeviceError;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;

/// A GPU of this machine.
#[derive(Clone, Copy)]
pub struct Gpu {
    pub api: &'static Api,
    pub index: u32,
}

impl Gpu {
    /// The GPU of this number.
    pub fn open(index: u32) -> Result<Gpu, DeviceError> {
        let api = Api::get().map_err(|problem| DeviceError::NoHip(problem.into()))?;
        let found = count(api)?;
        if index >= found {
            return Err(match found {
                0 => DeviceError::NoGpu,
                _ => DeviceError::NoSuchGpu { index, found },
            });
        }
        let gpu = Gpu { api, index };
        gpu.bind()?;
        Ok(gpu)
    }

    /// Makes this GPU the one that the calling thread's calls go to.
    pub fn bind(self) -> Result<(), DeviceError> {
        // SAFETY: takes a number, which is checked by HIP.
        let status = unsafe { (self.api.hipSetDevice)(self.index as c_int) };
        self.check("selecting the device", status)
    }

    /// Fails unless `status` is success. `doing` completes "… failed".
    pub fn check(self, doing: &'static str, status: Status) -> Result<(), DeviceError> {
        match status {
            Status::SUCCESS => Ok(()),
            _ => Err(self.error(doing, status)),
        }
    }

    /// What a status means that is not success.
    pub fn error(self, doing: &'static str, status: Status) -> DeviceError {
        let (device, problem) = (self.index, describe(self.api, status));
        if is_fault(status) {
            DeviceError::Fault { device, problem }
        } else {
            DeviceError::Hip { device, doing, problem }
        }
    }

    /// Free and total bytes of its memory.
    pub fn memory(self) -> Result<(u64, u64), DeviceError> {
        let (mut free, mut total) = (0, 0);
        // SAFETY: both places are written before the call returns.
        let status = unsafe { (self.api.hipMemGetInfo)(&mut free, &mut total) };
        self.check("asking for free memory", status)?;
        Ok((free as u64, total as u64))
    }

    /// A stream that waits for no other.
    pub fn stream(self) -> Result<Owned<Stream>, DeviceError> {
        let mut stream = Stream::null();
        // SAFETY: the place is written before the call returns.
        let status =
            unsafe { (self.api.hipStreamCreateWithFlags)(&mut stream, value::STREAM_NON_BLOCKING) };
        self.check("creating a stream", status)?;
        Ok(Owned { gpu: self, value: stream })
    }

    /// An event; one that is `timed` costs more.
    pub fn event(self, timed: bool) -> Result<Owned<Event>, DeviceError> {
        let mut event = Event::null();
        let flags = if timed { 0 } else { value::EVENT_DISABLE_TIMING };
        // SAFETY: the place is written before the call returns.
        let status = unsafe { (self.api.hipEventCreateWithFlags)(&mut event, flags) };
        self.check("creating an event", status)?;
        Ok(Owned { gpu: self, value: event })
    }

    /// Seconds between two timed events that the device has passed.
    pub fn seconds(self, start: Event, end: Event) -> Result<f64, DeviceError> {
        let mut milliseconds = 0.0;
        // SAFETY: the events are alive; the place is written before the call returns.
        let status = unsafe { (self.api.hipEventElapsedTime)(&mut milliseconds, start, end) };
        self.check("reading a time", status)?;
        Ok(f64::from(milliseconds) / 1e3)
    }

    /// Waits for all that has been queued.
    pub fn synchronize(self, stream: Stream) -> Result<(), DeviceError> {
        // SAFETY: the stream is alive, as every `Stream` that its owner hands out.
        let status = unsafe { (self.api.hipStreamSynchronize)(stream) };
        self.check("waiting for the device", status)
    }

    /// Marks the point of a stream that the event will wait for.
    pub fn record(self, event: Event, stream: Stream) -> Result<(), DeviceError> {
        // SAFETY: both are alive.
        self.check("recording an event", unsafe { (self.api.hipEventRecord)(event, stream) })
    }

    /// Waits for the point that the event marks; for none if it never marked one.
    pub fn wait(self, event: Event) -> Result<(), DeviceError> {
        // SAFETY: the event is alive.
        self.check("waiting for a copy", unsafe { (self.api.hipEventSynchronize)(event) })
    }
}

/// Number of GPUs. That there is none is no error.
pub fn count(api: &'static Api) -> Result<u32, DeviceError> {
    let mut count = 0;
    // SAFETY: the place is written before the call returns.
    match unsafe { (api.hipGetDeviceCount)(&mut count) } {
        Status::SUCCESS => Ok(u32::try_from(count).unwrap_or(0)),
        Status::NO_DEVICE | Status::INVALID_DEVICE => Ok(0),
        status => Err(DeviceError::NoHip(format!(
            "counting the GPUs failed: {}; check that the driver (amdgpu) is loaded",
            describe(api, status)
        ))),
    }
}

/// A status in HIP's words, such as `an illegal memory access was encountered
/// (hipErrorIllegalAddress)`.
pub fn describe(api: &Api, status: Status) -> String {
    // SAFETY: both take any number and give a constant text that ends in zero, or null.
    let (name, text) =
        unsafe { (text((api.hipGetErrorName)(status)), text((api.hipGetErrorString)(status))) };
    match (name, text) {
        (Some(name), Some(text)) => format!("{text} ({name})"),
        (Some(word), None) | (None, Some(word)) => word,
        (None, None) => format!("error {}", status.0),
    }
}

/// A text of the library.
///
/// # Safety
/// `text` is null, or ends in zero and stays as it is.
unsafe fn text(text: *const c_char) -> Option<String> {
    // SAFETY: the caller's promise.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}

/// After these nothing more can be done with the device in this process.
fn is_fault(status: Status) -> bool {
    const ECC: u32 = 214;
    const CONTEXT_IS_DESTROYED: u32 = 709;
    const ASSERT: u32 = 710;
    const LAUNCH_FAILURE: u32 = 719;
    const ILLEGAL_ADDRESS: u32 = 700;
    const LAUNCH_TIME_OUT: u32 = 702;
    [ECC, ILLEGAL_ADDRESS, LAUNCH_TIME_OUT, CONTEXT_IS_DESTROYED, ASSERT, LAUNCH_FAILURE]
        .contains(&status.0)
}

/// What HIP gives and takes back.
pub trait Release: Copy {
    /// Gives it back.
    ///
    /// # Safety
    /// Nothing uses it any more, on host and device.
    unsafe fn release(self, api: &Api) -> Status;
}

macro_rules! release {
    ($($name:ident with $function:ident;)*) => {$(
        impl Release for $name {
            unsafe fn release(self, api: &Api) -> Status {
                // SAFETY: the caller's promise.
                unsafe { (api.$function)(self) }
            }
        }
    )*};
}

release! {
    Stream with hipStreamDestroy;
    Event with hipEventDestroy;
    Module with hipModuleUnload;
}

impl Release for GraphExec {
    unsafe fn release(self, api: &Api) -> Status {
        // SAFETY: the caller's promise.
        api.hipGraphExecDestroy.map_or(Status::SUCCESS, |destroy| unsafe { destroy(self) })
    }
}

/// An address in device memory.
#[derive(Clone, Copy)]
pub struct DeviceAddress(pub *mut c_void);

// SAFETY: a number for the host, which never looks there.
unsafe impl Send for DeviceAddress {}

impl Release for DeviceAddress {
    unsafe fn release(self, api: &Api) -> Status {
        // SAFETY: the caller's promise.
        unsafe { (api.hipFree)(self.0) }
    }
}

/// An address in memory of the host that the device reaches.
#[derive(Clone, Copy)]
pub struct HostAddress(pub *mut c_void);

// SAFETY: the memory belongs to no thread; `Pinned` says who may look there.
unsafe impl Send for HostAddress {}

impl Release for HostAddress {
    unsafe fn release(self, api: &Api) -> Status {
        // SAFETY: the caller's promise.
        unsafe { (api.hipHostFree)(self.0) }
    }
}

/// Something of HIP that goes back when its owner goes. Whoever owns what the device may still use
/// waits for the device before.
pub struct Owned<T: Release> {
    pub gpu: Gpu,
    pub value: T,
}

impl<T: Release> Drop for Owned<T> {
    fn drop(&mut self) {
        // Failing, they leave to the end of the process what cannot be given back.
        let _ = self.gpu.bind();
        // SAFETY: it is this owner's, who is going; see `Owned`.
        let _ = unsafe { self.value.release(self.gpu.api) };
    }
}

/// Memory of the device.
pub struct DeviceMemory {
    /// None of none.
    memory: Option<Owned<DeviceAddress>>,
    pub bytes: u64,
}

impl DeviceMemory {
    /// `bytes` bytes, zeroed as soon as the stream gets there. `needed` is what the plan takes in
    /// all, for the error where there is not enough.
    pub fn zeroed(
        gpu: Gpu,
        bytes: u64,
        needed: u64,
        stream: Stream,
    ) -> Result<DeviceMemory, DeviceError> {
        if bytes == 0 {
            return Ok(DeviceMemory { memory: None, bytes });
        }
        let mut address = ptr::null_mut();
        let size = usize::try_from(bytes).unwrap_or(usize::MAX);
        // SAFETY: the place is written before the call returns.
        match unsafe { (gpu.api.hipMalloc)(&mut address, size) } {
            Status::OUT_OF_MEMORY => return Err(too_little(gpu, needed)),
            status => gpu.check("allocating memory", status)?,
        }
        let memory = Owned { gpu, value: DeviceAddress(address) };
        // SAFETY: the allocation has that many bytes, and nobody uses it yet.
        let status = unsafe { (gpu.api.hipMemsetAsync)(address, 0, size, stream) };
        gpu.check("clearing memory", status)?;
        Ok(DeviceMemory { memory: Some(memory), bytes })
    }

    /// Address of its byte `offset`.
    pub fn address(&self, offset: u64) -> Option<u64> {
        let start = self.memory.as_ref().map_or(64, |memory| memory.value.0.expose_provenance());
        (start as u64).checked_add(offset)
    }
}

/// The error of a device that has less free memory than a plan needs.
pub fn too_little(gpu: Gpu, needed: u64) -> DeviceError {
    let free = gpu.memory().map_or(0, |(free, _)| free);
    DeviceError::TooLittleMemory { device: gpu.index, needed, free }
}

/// Memory of the host that stays where it is, so that the device copies from and to it by itself,
/// or, if it is mapped, works in it.
pub struct Pinned {
    memory: Owned<HostAddress>,
}

impl Pinned {
    /// `bytes` bytes (at least one), zeroed; `mapped`: the device can work in it, and each sees
    /// what the other stores without either ending what it does.
    pub fn zeroed(gpu: Gpu, bytes: usize, mapped: bool) -> Result<Pinned, DeviceError> {
        let flags = if mapped { value::HOST_MAPPED | value::HOST_COHERENT } else { 0 };
        let (mut address, bytes) = (ptr::null_mut(), bytes.max(1));
        // SAFETY: the place is written before the call returns.
        let status = unsafe { (gpu.api.hipHostMalloc)(&mut address, bytes, flags) };
        gpu.check("allocating pinned memory of the host", status)?;
        let memory = Owned { gpu, value: HostAddress(address) };
        // SAFETY: the allocation has that many bytes, and nobody uses it yet.
        unsafe { ptr::write_bytes(address.cast::<u8>(), 0, bytes) };
        Ok(Pinned { memory })
    }

    /// Its address for the host. Whoever goes there stays inside, and out of the device's way.
    pub fn host(&self) -> *mut u8 {
        self.memory.value.0.cast()
    }

    /// Its address for the device, if it is mapped.
    pub fn device(&self) -> Result<u64, DeviceError> {
        let (gpu, mut address) = (self.memory.gpu, ptr::null_mut());
        // SAFETY: the memory is of `hipHostMalloc`; the place is written before the call returns.
        let status =
            unsafe { (gpu.api.hipHostGetDevicePointer)(&mut address, self.memory.value.0, 0) };
        gpu.check("mapping memory of the host", status)?;
        Ok(address.expose_provenance() as u64)
    }
}
