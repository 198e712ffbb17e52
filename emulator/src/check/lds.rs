//! A shadow of LDS: who wrote each byte, and who accessed it since the last barrier.
//!
//! Between barriers of the workgroup, waves may order each other by atomics in LDS: LDS does what a
//! wave asks of it in order, so who sees an atomic sees all that the wave did before. Every wave
//! knows up to which time it has seen the others; an atomic takes over what is known of its address
//! and adds what its wave knows, a load of what an atomic wrote takes it over.

use super::{Mistake, Sink, lanes, writes};
use crate::probe::{Access, Kind};
use std::collections::HashMap;

/// Marks a byte that nobody accessed.
const NOBODY: u32 = u32::MAX;

/// One byte.
#[derive(Clone, Copy)]
struct Byte {
    written: bool,
    /// Last writer, the barrier before it, its time, and whether it was an atomic.
    writer: u32,
    write_epoch: u32,
    write_time: u32,
    atomic: bool,
    /// Readers since the barrier `read_epoch`, one bit a wave.
    readers: u32,
    read_epoch: u32,
}

const FRESH: Byte = Byte {
    written: false,
    writer: NOBODY,
    write_epoch: 0,
    write_time: 0,
    atomic: false,
    readers: 0,
    read_epoch: 0,
};

/// All bytes of one workgroup.
pub struct LdsShadow {
    bytes: Vec<Byte>,
    /// Barriers so far.
    epoch: u32,
    /// Accesses so far.
    time: u32,
    /// What waves know of each other, from the first atomic on.
    order: Option<Order>,
}

/// Waves that are told apart.
const WAVES: usize = 32;

/// By wave: the time up to which what it did is known.
type Known = [u32; WAVES];

/// What waves know of each other.
struct Order {
    waves: Vec<Known>,
    /// By address of an atomic: what who sees it knows.
    atomics: HashMap<u64, Known>,
    /// By byte: when each wave read it last.
    reads: Vec<Known>,
}

impl Order {
    fn new(bytes: usize) -> Order {
        // Of what was read before, nobody knows.
        let reads = vec![[u32::MAX; WAVES]; bytes];
        Order { waves: vec![[0; WAVES]; WAVES], atomics: HashMap::new(), reads }
    }

    /// An atomic, or a load of what one wrote.
    fn see(&mut self, wave: u32, address: u64, now: u32, kind: Kind) {
        let wave = wave as usize % WAVES;
        let mine = &mut self.waves[wave];
        mine[wave] = now;
        let there = self.atomics.entry(address).or_insert([0; WAVES]);
        for (mine, there) in mine.iter_mut().zip(there) {
            *mine = (*mine).max(*there);
            if kind == Kind::Atomic {
                *there = *mine;
            }
        }
    }

    /// Whether `wave` knows of what `other` did at `time`.
    fn knows(&self, wave: u32, other: u32, time: u32) -> bool {
        self.waves[wave as usize % WAVES][other as usize % WAVES] >= time
    }
}

impl LdsShadow {
    /// A shadow of `size` bytes that nobody has written.
    pub fn new(size: usize) -> LdsShadow {
        LdsShadow { bytes: vec![FRESH; size], epoch: 0, time: 0, order: None }
    }

    /// All waves met.
    pub fn barrier(&mut self) {
        self.epoch += 1;
    }

    /// Checks an access and records it.
    pub fn access(&mut self, access: &Access<'_>, wave: u32, sink: &mut Sink<'_>) {
        self.time = self.time.saturating_add(1);
        self.order(access, wave);
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

    /// Notes what the wave gets to know by the access.
    fn order(&mut self, access: &Access<'_>, wave: u32) {
        if access.kind == Kind::Atomic && self.order.is_none() {
            self.order = Some(Order::new(self.bytes.len()));
        }
        let Some(order) = &mut self.order else { return };
        for lane in lanes(access.lanes) {
            let address = access.addresses[lane];
            let of_atomic = self.bytes.get(address as usize).is_some_and(|byte| byte.atomic);
            if access.kind == Kind::Atomic || access.kind == Kind::Load && of_atomic {
                order.see(wave, address, self.time, access.kind);
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
        let known = self
            .order
            .as_ref()
            .is_some_and(|order| order.knows(wave, byte.writer, byte.write_time));
        if written_now && byte.writer != wave && !harmless && !known {
            let other = byte.writer;
            sink.report(Mistake::LdsRace, Some(lane), || {
                format!("byte {at:#x} was written by wave {other} since the last barrier")
            });
        }
        let mut others = byte.readers & !bit(wave);
        if let Some(order) = self.order.as_ref().filter(|_| kind == Kind::Store && others != 0) {
            let reads = &order.reads[at];
            let known = |reader: &u32| order.knows(wave, *reader, reads[*reader as usize]);
            let all = 0..WAVES as u32;
            others &= !all.filter(known).fold(0, |known, reader| known | bit(reader));
        }
        if kind == Kind::Store && byte.read_epoch == epoch && others != 0 {
            let other = others.trailing_zeros();
            sink.report(Mistake::LdsRace, Some(lane), || {
                format!("byte {at:#x} was read by wave {other} since the last barrier")
            });
        }
        if writes(kind) {
            (byte.written, byte.writer, byte.write_epoch) = (true, wave, epoch);
            (byte.write_time, byte.atomic) = (self.time, kind == Kind::Atomic);
        } else {
            if byte.read_epoch != epoch {
                (byte.readers, byte.read_epoch) = (0, epoch);
            }
            byte.readers |= bit(wave);
            if let Some(order) = &mut self.order {
                order.reads[at][wave as usize % WAVES] = self.time;
            }
        }
    }
}

fn bit(wave: u32) -> u32 {
    1 << (wave % 32)
}
