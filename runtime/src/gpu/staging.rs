//! Copies to the device that the host does not wait for: through pinned memory, which is used again
//! when the device has read it.
#![allow(unsafe_code)]

use super::device::{Gpu, Owned, Pinned};
use super::driver::{DeviceAddress, Event, Stream};
use crate::device::DeviceError;
use std::ffi::c_void;
use std::ptr;

/// Pieces of pinned memory that are filled in turn.
pub struct Staging {
    gpu: Gpu,
    stream: Stream,
    pieces: Vec<Piece>,
    piece_bytes: usize,
    /// The piece that is being filled, and how much of it is.
    current: usize,
    filled: usize,
}

struct Piece {
    memory: Pinned,
    /// Marks the last copy from it, once there was one.
    read: Owned<Event>,
    used: bool,
}

impl Staging {
    /// `count` pieces of `bytes` bytes, copied by `stream`.
    pub fn new(
        gpu: Gpu,
        stream: Stream,
        count: usize,
        bytes: usize,
    ) -> Result<Staging, DeviceError> {
        let piece = |_| {
            let (memory, read) = (Pinned::zeroed(gpu, bytes, false)?, gpu.event(false)?);
            Ok(Piece { memory, read, used: false })
        };
        let pieces = (0..count.max(1)).map(piece).collect::<Result<_, DeviceError>>()?;
        Ok(Staging { gpu, stream, pieces, piece_bytes: bytes.max(1), current: 0, filled: 0 })
    }

    /// Queues a copy to device memory. Returns as soon as `bytes` may change again.
    ///
    /// # Safety
    /// At `to` is device memory for all of `bytes`, and no kernel outside of the stream uses it.
    pub unsafe fn copy(&mut self, to: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        // SAFETY: the caller's promise.
        unsafe {
            self.send(to, bytes.len(), &mut |done, part| {
                part.copy_from_slice(&bytes[done..done + part.len()]);
            })
        }
    }

    /// As [`Staging::copy`] of `bytes` bytes that `write` makes: it gets the number of those that
    /// are done, and where the next ones go, whose content is anything.
    ///
    /// # Safety
    /// As [`Staging::copy`].
    pub unsafe fn send(
        &mut self,
        to: u64,
        bytes: usize,
        write: &mut dyn FnMut(usize, &mut [u8]),
    ) -> Result<(), DeviceError> {
        let mut done = 0;
        while done < bytes {
            if self.filled >= self.piece_bytes {
                self.turn()?;
            }
            let room = (self.piece_bytes - self.filled).min(bytes - done);
            // SAFETY: inside the piece, which was zeroed once, behind what was filled: the device
            // does not read there, since `turn` waited for all copies from it, and no reference to
            // it is alive.
            unsafe {
                let place = self.pieces[self.current].memory.host().add(self.filled);
                write(done, std::slice::from_raw_parts_mut(place, room));
                self.queue(to + done as u64, place.cast(), room)?;
            }
            // What follows begins at a line of its own.
            self.filled += room.next_multiple_of(64);
            done += room;
        }
        Ok(())
    }

    /// # Safety
    /// As `copy`; and the host leaves `from` alone until the device has read it.
    unsafe fn queue(&self, to: u64, from: *const c_void, bytes: usize) -> Result<(), DeviceError> {
        let to = DeviceAddress(ptr::with_exposed_provenance_mut(to as usize));
        // SAFETY: the caller's promise.
        let status = unsafe { self.gpu.driver.upload(to, from, bytes, self.stream) };
        self.gpu.check("copying to the device", status)
    }

    /// Goes on to the next piece, and waits until the device has read it.
    fn turn(&mut self) -> Result<(), DeviceError> {
        let piece = &mut self.pieces[self.current];
        self.gpu.record(piece.read.value, self.stream)?;
        piece.used = true;
        self.current = (self.current + 1) % self.pieces.len();
        self.filled = 0;
        let next = &self.pieces[self.current];
        if next.used { self.gpu.wait(next.read.value) } else { Ok(()) }
    }
}
