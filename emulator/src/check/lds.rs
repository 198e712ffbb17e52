//! A shadow of LDS: who wrote each byte, and who accessed it since the last barrier.

use super::{Mistake, Sink, lanes, writes};
use crate::probe::{Access, Kind};

/// Marks a byte that nobody accessed.
const NOBODY: u32 = u32::MAX;

/// One byte.
#[derive(Clone, Copy)]
struct Byte {
    written: bool,
    /// Last writer, the barrier before it, and whether it was an atomic.
    writer: u32,
    write_epoch: u32,
    atomic: bool,
    /// Readers since the barrier `read_epoch`, one bit a wave.
    readers: u32,
    read_epoch: u32,
}

const FRESH: Byte = Byte {
    written: false,
    writer: NOBODY,
    write_epoch: 0,
    atomic: false,
    readers: 0,
    read_epoch: 0,
};

/// All bytes of one workgroup.
pub struct LdsShadow {
    bytes: Vec<Byte>,
    /// Barriers so far.
    epoch: u32,
}

impl LdsShadow {
    /// A shadow of `size` bytes that nobody has written.
    pub fn new(size: usize) -> LdsShadow {
        LdsShadow { bytes: vec![FRESH; size], epoch: 0 }
    }

    /// All waves met.
    pub fn barrier(&mut self) {
        self.epoch += 1;
    }

    /// Checks an access and records it.
    pub fn access(&mut self, access: &Access<'_>, wave: u32, sink: &mut Sink<'_>) {
        for lane in lanes(access.lanes) {
            let first = access.addresses[lane];
            let size = self.bytes.len() as u64;
            let end = first.saturating_add(u64::from(access.bytes));
            if end > size {
                sink.report(Mistake::LdsOutOfBounds, Some(lane as u32), || {
                    format!("{} bytes at {first:#x} of {size:#x} bytes", access.bytes)
                });
            }
            for at in first.min(size)..end.min(size) {
                self.touch(at as usize, access.kind, wave, lane as u32, sink);
            }
        }
    }

    fn touch(&mut self, at: usize, kind: Kind, wave: u32, lane: u32, sink: &mut Sink<'_>) {
        let epoch = self.epoch;
        let byte = &mut self.bytes[at];
        if kind != Kind::Store && !byte.written {
            sink.report(Mistake::UninitializedLds, Some(lane), || format!("byte {at:#x}"));
        }
        // Compare-and-swap loops begin with a plain load.
        let harmless = kind != Kind::Store && byte.atomic;
        let written_now = byte.writer != NOBODY && byte.write_epoch == epoch;
        if written_now && byte.writer != wave && !harmless {
            let other = byte.writer;
            sink.report(Mistake::LdsRace, Some(lane), || {
                format!("byte {at:#x} was written by wave {other} since the last barrier")
            });
        }
        let others = byte.readers & !bit(wave);
        if kind == Kind::Store && byte.read_epoch == epoch && others != 0 {
            let other = others.trailing_zeros();
            sink.report(Mistake::LdsRace, Some(lane), || {
                format!("byte {at:#x} was read by wave {other} since the last barrier")
            });
        }
        if writes(kind) {
            (byte.written, byte.writer, byte.write_epoch) = (true, wave, epoch);
            byte.atomic = kind == Kind::Atomic;
        } else {
            if byte.read_epoch != epoch {
                (byte.readers, byte.read_epoch) = (0, epoch);
            }
            byte.readers |= bit(wave);
        }
    }
}

fn bit(wave: u32) -> u32 {
    1 << (wave % 32)
}
