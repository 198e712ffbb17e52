//! Which bytes of device memory were ever written, for the check of uninitialized reads.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

/// Bits of a word of the map.
const BITS: u64 = 64;

/// Allocations whose writes are tracked: those made after tracking began.
#[derive(Default)]
pub struct Written {
    enabled: AtomicBool,
    maps: RwLock<BTreeMap<u64, Map>>,
}

/// One bit for each byte of an allocation.
struct Map {
    size: u64,
    words: Vec<AtomicU64>,
}

impl Written {
    /// Tracks allocations from now on.
    pub fn enable(&self) {
        self.enabled.store(true, Ordering::Relaxed);
    }

    /// Whether allocations are tracked.
    pub fn is_enabled(&self) -> bool {
        self.enabled.load(Ordering::Relaxed)
    }

    /// An allocation was made.
    pub fn start(&self, base: u64, size: u64) {
        if self.is_enabled() {
            let words = (0..size.div_ceil(BITS)).map(|_| AtomicU64::new(0)).collect();
            let mut maps = self.maps.write().unwrap_or_else(PoisonError::into_inner);
            maps.insert(base, Map { size, words });
        }
    }

    /// An allocation went away.
    pub fn end(&self, base: u64) {
        if self.is_enabled() {
            self.maps.write().unwrap_or_else(PoisonError::into_inner).remove(&base);
        }
    }

    /// Bytes were written.
    pub fn mark(&self, address: u64, bytes: u64) {
        self.visit(address, bytes, |word, mask, _| {
            word.fetch_or(mask, Ordering::Relaxed);
            None
        });
    }

    /// The first byte of a range that is tracked and was never written.
    pub fn first_unwritten(&self, address: u64, bytes: u64) -> Option<u64> {
        self.visit(address, bytes, |word, mask, first| {
            let missing = mask & !word.load(Ordering::Relaxed);
            (missing != 0).then(|| first + u64::from(missing.trailing_zeros()))
        })
    }

    /// Calls `each` with every word of the map that a range touches, the range's bits in it and the
    /// address of its bit 0, until it gives something.
    fn visit(
        &self,
        address: u64,
        bytes: u64,
        each: impl Fn(&AtomicU64, u64, u64) -> Option<u64>,
    ) -> Option<u64> {
        if !self.is_enabled() {
            return None;
        }
        let maps = self.maps.read().unwrap_or_else(PoisonError::into_inner);
        let (base, map) = maps.range(..=address).next_back()?;
        let mut at = address - base;
        let end = at.saturating_add(bytes).min(map.size);
        while at < end {
            let word = at / BITS;
            let stop = end.min((word + 1) * BITS);
            let mask = (u64::MAX >> (BITS - (stop - at))) << (at % BITS);
            let found = each(map.words.get(word as usize)?, mask, base + word * BITS);
            if found.is_some() {
                return found;
            }
            at = stop;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_counts() {
        let written = Written::default();
        written.start(0x1000, 100);
        assert_eq!(written.first_unwritten(0x1000, 100), None, "nothing is tracked yet");
        written.enable();
        written.start(0x2000, 200);
        assert_eq!(written.first_unwritten(0x2010, 4), Some(0x2010));
        written.mark(0x2000, 70);
        assert_eq!(written.first_unwritten(0x2000, 70), None);
        assert_eq!(written.first_unwritten(0x2000, 71), Some(0x2046));
        written.mark(0x2047, 200);
        assert_eq!(written.first_unwritten(0x2000, 200), Some(0x2046));
        written.mark(0x2046, 1);
        assert_eq!(written.first_unwritten(0x2000, 200), None);
        written.end(0x2000);
        assert_eq!(written.first_unwritten(0x2000, 200), None);
    }
}
