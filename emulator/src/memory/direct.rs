//! Loads from memory straight into LDS.
//!
//! Each lane's data goes to M0's offset plus the instruction's plus the lane's number times the
//! size of a slot: 4 bytes for one word and less (bytes and shorts are extended to a word), 16 for
//! three words, of which the fourth is left alone, and for four.

use super::address::{Locate, Site, offset};
use super::cell::{Cell, Owned};
use super::transfer::{Found, Load, Targets, lanes_of};
use crate::Chip;
use crate::probe::{Kind, Space};
use crate::program::Context;
use crate::wave::{Exec, Fault, LANES, scalar};

/// Where in LDS the data goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target {
    /// The bits of M0 that count.
    mask: u32,
    /// The instruction's offset, which counts in memory and in LDS.
    offset: u32,
    site: Site,
}

impl Target {
    pub(super) fn new(context: &Context<'_>) -> Result<Target, Fault> {
        let buffer = context.asm.mnemonic.starts_with("buffer");
        let mask = match (context.chip, buffer) {
            (Chip::Gfx90a, _) => 0xffff,
            (_, true) => 0x3_ffff,
            (_, false) => 0x3_fffc,
        };
        Ok(Target { mask, offset: offset(context)? as u32, site: Site::new(context) })
    }
}

/// The closure of a load of `form` into LDS.
pub(super) fn load<L: Locate, C: Cell + 'static>(locate: L, form: Load, target: Target) -> Exec {
    let (words, bytes) = match form {
        Load::Words(words) => (words, 4 * words as u32),
        Load::Byte(_) => (1, 1),
        Load::Half(_) => (1, 2),
    };
    let slot = if words > 1 { 16 } else { 4 };
    Box::new(move |wave, group| {
        let found = locate.locate(wave, group, Kind::Load, bytes)?;
        let first = (wave.sgpr[scalar::M0] & target.mask).wrapping_add(target.offset);
        if let (Found::Row(source), Load::Words(1 | 4)) = (&found, form) {
            let size = (bytes * wave.lanes) as usize;
            let mut row = [0_u32; 4 * LANES];
            let row = &mut row[..size / 4];
            // SAFETY: located for that many bytes.
            unsafe { C::load_words(*source, row) };
            let end = first as usize + size;
            if let (Some(place), None) = (group.lds.get_mut(first as usize..end), &group.probe) {
                // SAFETY: LDS has that many bytes there, and registers are no part of it.
                unsafe { Owned::store_words(place.as_mut_ptr() as u64, row) };
                return Ok(());
            }
        }
        let targets = found.targets(wave, bytes);
        let places: [u64; LANES] =
            std::array::from_fn(|lane| u64::from(first.wrapping_add(slot * lane as u32)));
        let stored = 4 * words as u32;
        let access = (Kind::Store, Space::Lds);
        target.site.report(wave, group, access, &places, targets.exec, stored);
        for lane in lanes_of(targets.exec) {
            // SAFETY: located for that many bytes.
            let data = unsafe { read::<C>(&targets, lane, form) };
            let (start, end) = (places[lane] as usize, places[lane] as usize + 4 * words);
            if let Some(place) = group.lds.get_mut(start..end) {
                place.copy_from_slice(&data.map(u32::to_le_bytes).as_flattened()[..4 * words]);
            }
        }
        Ok(())
    })
}

/// A lane's words; zero what may not be read.
///
/// # Safety
/// The addresses of `targets.lanes` are valid for what `form` loads.
unsafe fn read<C: Cell>(targets: &Targets, lane: usize, form: Load) -> [u32; 4] {
    let mut data = [0; 4];
    if targets.lanes >> lane & 1 == 0 {
        return data;
    }
    let address = targets.address[lane];
    // SAFETY: the caller's.
    unsafe {
        match form {
            Load::Words(count) => {
                for word in 0..targets.words(lane, count) {
                    data[word] = C::load32(address + 4 * word as u64);
                }
            }
            Load::Byte(merge) => data[0] = merge.apply::<1>(u32::from(C::load8(address)), 0),
            Load::Half(merge) => data[0] = merge.apply::<2>(u32::from(C::load16(address)), 0),
        }
    }
    data
}
