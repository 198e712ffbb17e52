//! One GPU: calls of its driver, their errors, and owners of what it gives.
#![allow(unsafe_code)]

use super::driver::{DeviceAddress, Driver, Event, HostAddress, Resource, Status, Stream};
use crate::device::{DeviceError, DeviceKind};
use std::ptr;

/// A GPU of this machine.
#[derive(Clone, Copy)]
pub struct Gpu {
    pub driver: &'static dyn Driver,
    pub index: u32,
}

impl Gpu {
    /// The GPU of this number.
    pub fn open(driver: &'static dyn Driver, index: u32) -> Result<Gpu, DeviceError> {
        let found = driver.count()?;
        if index >= found {
            return Err(match found {
                0 => driver.no_device(),
                _ => DeviceError::NoSuchGpu {
                    device: driver.kind(index),
                    first: driver.kind(0),
                    found,
                },
            });
        }
        let gpu = Gpu { driver, index };
        gpu.bind()?;
        Ok(gpu)
    }

    /// How the program calls it.
    pub fn kind(self) -> DeviceKind {
        self.driver.kind(self.index)
    }

    /// Makes this GPU the one that the calling thread's calls go to.
    pub fn bind(self) -> Result<(), DeviceError> {
        self.check("selecting the device", self.driver.bind(self.index))
    }

    /// Fails unless `status` is success. `doing` completes "… failed".
    pub fn check(self, doing: &'static str, status: Status) -> Result<(), DeviceError> {
        match status {
            Status::SUCCESS => Ok(()),
            _ => Err(self.error(doing, status)),
        }
    }

    /// What a call gave, or why it did not.
    pub fn given<T>(
        self,
        doing: &'static str,
        result: Result<T, Status>,
    ) -> Result<T, DeviceError> {
        result.map_err(|status| self.error(doing, status))
    }

    /// What a status means that is not success.
    pub fn error(self, doing: &'static str, status: Status) -> DeviceError {
        let (device, problem) = (self.kind(), self.driver.describe(status));
        if self.driver.is_fault(status) {
            DeviceError::Fault { device, problem }
        } else {
            DeviceError::Driver { device, doing, problem }
        }
    }

    /// Free and total bytes of its memory.
    pub fn memory(self) -> Result<(u64, u64), DeviceError> {
        let (free, total) = self.given("asking for free memory", self.driver.memory())?;
        Ok((free as u64, total as u64))
    }

    /// A stream that waits for no other.
    pub fn stream(self) -> Result<Owned<Stream>, DeviceError> {
        let stream = self.given("creating a stream", self.driver.create_stream())?;
        Ok(Owned { gpu: self, value: stream })
    }

    /// An event; one that is `timed` costs more.
    pub fn event(self, timed: bool) -> Result<Owned<Event>, DeviceError> {
        let event = self.given("creating an event", self.driver.create_event(timed))?;
        Ok(Owned { gpu: self, value: event })
    }

    /// Seconds between two timed events that the device has passed.
    pub fn seconds(self, start: Event, end: Event) -> Result<f64, DeviceError> {
        // SAFETY: the events are alive.
        let milliseconds = unsafe { self.driver.milliseconds(start, end) };
        Ok(f64::from(self.given("reading a time", milliseconds)?) / 1e3)
    }

    /// Waits for all that has been queued.
    pub fn synchronize(self, stream: Stream) -> Result<(), DeviceError> {
        // SAFETY: the stream is alive, as every `Stream` that its owner hands out.
        let status = unsafe { self.driver.synchronize(stream) };
        self.check("waiting for the device", status)
    }

    /// Marks the point of a stream that the event will wait for.
    pub fn record(self, event: Event, stream: Stream) -> Result<(), DeviceError> {
        // SAFETY: both are alive.
        self.check("recording an event", unsafe { self.driver.record(event, stream) })
    }

    /// Waits for the point that the event marks; for none if it never marked one.
    pub fn wait(self, event: Event) -> Result<(), DeviceError> {
        // SAFETY: the event is alive.
        self.check("waiting for a copy", unsafe { self.driver.wait(event) })
    }
}

/// Something of a driver that goes back when its owner goes. Whoever owns what the device may still use
/// waits for the device before.
pub struct Owned<T: Copy + Into<Resource>> {
    pub gpu: Gpu,
    pub value: T,
}

impl<T: Copy + Into<Resource>> Drop for Owned<T> {
    fn drop(&mut self) {
        // Failing, they leave to the end of the process what cannot be given back.
        let _ = self.gpu.bind();
        // SAFETY: it is this owner's, who is going; see `Owned`.
        let _ = unsafe { self.gpu.driver.release(self.value.into()) };
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
        let size = usize::try_from(bytes).unwrap_or(usize::MAX);
        let address = match gpu.driver.allocate(size) {
            Err(Status::OUT_OF_MEMORY) => return Err(too_little(gpu, needed)),
            given => gpu.given("allocating memory", given)?,
        };
        let memory = Owned { gpu, value: address };
        // SAFETY: the allocation has that many bytes, and nobody uses it yet.
        let status = unsafe { gpu.driver.clear(address, size, stream) };
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
    DeviceError::TooLittleMemory { device: gpu.kind(), needed, free }
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
        let bytes = bytes.max(1);
        let given = gpu.driver.allocate_host(bytes, mapped);
        let address = gpu.given("allocating pinned memory of the host", given)?;
        let memory = Owned { gpu, value: address };
        // SAFETY: the allocation has that many bytes, and nobody uses it yet.
        unsafe { ptr::write_bytes(address.0.cast::<u8>(), 0, bytes) };
        Ok(Pinned { memory })
    }

    /// Its address for the host. Whoever goes there stays inside, and out of the device's way.
    pub fn host(&self) -> *mut u8 {
        self.memory.value.0.cast()
    }

    /// Its address for the device, if it is mapped.
    pub fn device(&self) -> Result<u64, DeviceError> {
        let Owned { gpu, value } = &self.memory;
        // SAFETY: the memory is of `allocate_host`.
        let mapped = unsafe { gpu.driver.mapped(*value) };
        let address = gpu.given("mapping memory of the host", mapped)?;
        Ok(address.0.expose_provenance() as u64)
    }
}
