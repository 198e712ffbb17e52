//! The history of tokens in memory of the host, which the device writes and the host reads without
//! waiting for anything else.
//!
//! A slot is emptied when the step that fills it is queued, so a token is there as soon as its
//! slot is not empty. The host touches a slot only while no queued step may write it.
#![allow(unsafe_code)]

use super::device::{Gpu, Pinned};
use super::driver::{Status, Stream};
use crate::device::DeviceError;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// No token.
const EMPTY: u32 = u32::MAX;

/// Polls before the host looks at the clock.
const SPINS: u32 = 512;
/// For so long the host polls without sleeping: what a step of a small model takes.
const AWAKE: Duration = Duration::from_micros(500);
/// How long the host sleeps between two polls.
const NAP: Duration = Duration::from_micros(50);
/// How often the host asks whether the device still works at it.
const PATROL: Duration = Duration::from_millis(2);

/// The history buffer, and which of its slots are on their way.
pub struct Ring {
    gpu: Gpu,
    stream: Stream,
    memory: Pinned,
    slots: usize,
    /// Slots that queued steps fill and nobody has seen filled.
    expected: Range<usize>,
}

impl Ring {
    /// A history of `bytes` bytes, filled by kernels of `stream`.
    pub fn new(gpu: Gpu, stream: Stream, bytes: u64) -> Result<Ring, DeviceError> {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let memory = Pinned::zeroed(gpu, bytes, true)?;
        Ok(Ring { gpu, stream, memory, slots: bytes / 4, expected: 0..0 })
    }

    /// Its address for kernels.
    pub fn address(&self) -> Result<u64, DeviceError> {
        self.memory.device()
    }

    fn slot(&self, index: usize) -> Option<&AtomicU32> {
        // SAFETY: inside the pinned memory, which is aligned to more than 4 and lives as long as
        // `self`; host and device access it by atomic operations or one at a time.
        (index < self.slots)
            .then(|| unsafe { AtomicU32::from_ptr(self.memory.host().cast::<u32>().add(index)) })
    }

    /// All that was queued is done, by what the stream's owner knows.
    pub fn settled(&mut self) {
        self.expected = 0..0;
    }

    /// Empties the slot that the next queued step fills.
    pub fn expect(&mut self, index: usize) -> Result<(), DeviceError> {
        // Steps that were queued for nothing may still come by this slot, or a later one.
        if !self.expected.is_empty() && index != self.expected.end {
            self.settle()?;
        }
        let slot = self.slot(index).ok_or(DeviceError::Request("a step beyond the history"))?;
        slot.store(EMPTY, Ordering::Release);
        let first = if self.expected.is_empty() { index } else { self.expected.start };
        self.expected = first..index + 1;
        Ok(())
    }

    /// Writes tokens that the host knows.
    pub fn write(&mut self, first: usize, tokens: &[u32]) -> Result<(), DeviceError> {
        if !self.expected.is_empty() {
            self.settle()?;
        }
        for (index, token) in tokens.iter().enumerate() {
            let slot = self.slot(first + index);
            let slot = slot.ok_or(DeviceError::Request("words outside an io buffer"))?;
            slot.store(*token, Ordering::Release);
        }
        Ok(())
    }

    /// A slot's token, as soon as the step that fills it has stored it.
    pub fn read(&mut self, index: usize) -> Result<u32, DeviceError> {
        let slot = self.slot(index).ok_or(DeviceError::Request("words outside an io buffer"))?;
        let token = self.poll(slot)?;
        if self.expected.contains(&index) {
            self.expected.start = index + 1;
        }
        Ok(token)
    }

    /// Waits until nothing queued can write a slot.
    fn settle(&mut self) -> Result<(), DeviceError> {
        self.gpu.synchronize(self.stream)?;
        self.settled();
        Ok(())
    }

    fn poll(&self, slot: &AtomicU32) -> Result<u32, DeviceError> {
        for _ in 0..SPINS {
            match slot.load(Ordering::Acquire) {
                EMPTY => std::hint::spin_loop(),
                token => return Ok(token),
            }
        }
        let start = Instant::now();
        let mut patrol = PATROL;
        loop {
            let token = slot.load(Ordering::Acquire);
            if token != EMPTY {
                return Ok(token);
            }
            let elapsed = start.elapsed();
            if elapsed >= patrol {
                patrol = elapsed + PATROL;
                self.check_alive(slot)?;
            }
            if elapsed < AWAKE { std::thread::yield_now() } else { std::thread::sleep(NAP) }
        }
    }

    /// Fails if the token will not come any more.
    fn check_alive(&self, slot: &AtomicU32) -> Result<(), DeviceError> {
        // SAFETY: the stream lives as long as what uses its ring.
        match unsafe { self.gpu.driver.query(self.stream) } {
            Status::NOT_READY => Ok(()),
            Status::SUCCESS if slot.load(Ordering::Acquire) != EMPTY => Ok(()),
            Status::SUCCESS => Err(match self.gpu.driver.last_error() {
                Status::SUCCESS | Status::NOT_READY => DeviceError::NoToken(self.gpu.kind()),
                status => self.gpu.error("decoding", status),
            }),
            status => Err(self.gpu.error("decoding", status)),
        }
    }
}
