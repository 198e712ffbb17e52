//! Data-parallel primitives: an operation whose first source comes from other lanes.

use crate::asm::Instruction;
use crate::wave::{LANES, Row};

/// Marks a lane that has no source.
const NONE: u8 = 255;

/// A lane pattern, what happens where it has no source, and which lanes write.
#[derive(Debug, Clone)]
pub struct Dpp {
    /// The lane that each lane reads, or `NONE`.
    from: [u8; LANES],
    /// Lanes that have a source, whether it executes or not.
    exists: u64,
    /// Lanes that `row_mask` and `bank_mask` let write.
    enabled: u64,
    /// A lane without a source reads zero; otherwise it does not write.
    bound_zero: bool,
    /// Lanes that do not execute are sources, too.
    fetch_inactive: bool,
}

/// A pattern for the present execution mask.
pub struct Lanes<'a> {
    from: &'a [u8; LANES],
    valid: u64,
}

impl Lanes<'_> {
    /// Each lane's value from its source; zero where it has none.
    #[inline(always)]
    pub fn gather(&self, row: &Row) -> Row {
        let mut out = Row::ZERO;
        for lane in 0..LANES {
            let value = row.0[usize::from(self.from[lane] & 63)];
            let valid = (self.valid >> lane & 1) as u32;
            out.0[lane] = value & valid.wrapping_neg();
        }
        out
    }
}

impl Dpp {
    /// The pattern of an instruction's modifiers. No pattern at all is `Ok(None)`, one that is not
    /// known an error.
    pub fn new(asm: &Instruction, lanes: u32) -> Result<Option<Dpp>, ()> {
        let Some(source) = pattern(asm, lanes as usize)? else { return Ok(None) };
        let mut dpp = Dpp {
            from: [NONE; LANES],
            exists: 0,
            enabled: 0,
            bound_zero: asm.number("bound_ctrl").is_some(),
            // An eight-lane permutation has no bound_ctrl: a source that is off reads zero.
            fetch_inactive: asm.number("fi") == Some(1),
        };
        if asm.has("dpp8") {
            dpp.bound_zero = true;
        }
        let row_mask = asm.number("row_mask").unwrap_or(0xf);
        let bank_mask = asm.number("bank_mask").unwrap_or(0xf);
        for lane in 0..lanes as usize {
            if let Some(from) = source(lane) {
                dpp.from[lane] = from as u8;
                dpp.exists |= 1 << lane;
            }
            let (row, bank) = (lane / 16, lane / 4 % 4);
            dpp.enabled |= ((row_mask >> row & bank_mask >> bank & 1) as u64) << lane;
        }
        Ok(Some(dpp))
    }

    /// The lanes to read from and the lanes that write, for an execution mask.
    #[inline(always)]
    pub fn lanes(&self, exec: u64, all: u64) -> (Lanes<'_>, u64) {
        let valid = if self.fetch_inactive || exec == all { self.exists } else { self.live(exec) };
        let write = if self.bound_zero { exec } else { exec & valid };
        (Lanes { from: &self.from, valid }, write & self.enabled)
    }

    /// Lanes whose source executes.
    fn live(&self, exec: u64) -> u64 {
        let mut live = 0;
        for lane in 0..LANES {
            live |= (exec >> (self.from[lane] & 63) & 1) << lane;
        }
        live & self.exists
    }
}

/// A function from a lane to the lane that it reads.
type Pattern = Box<dyn Fn(usize) -> Option<usize>>;

/// The pattern that the modifiers name.
fn pattern(asm: &Instruction, lanes: usize) -> Result<Option<Pattern>, ()> {
    for modifier in &asm.modifiers {
        let count = || match asm.number(&modifier.name) {
            Some(count) => usize::try_from(count).map_err(|_| ()),
            None => Err(()),
        };
        let list = |length: usize, limit: u32| match asm.list(&modifier.name) {
            Some(list) if list.len() == length && list.iter().all(|&at| at < limit) => Ok(list),
            _ => Err(()),
        };
        return Ok(Some(match modifier.name.as_str() {
            "quad_perm" => {
                let list = list(4, 4)?;
                Box::new(move |lane| Some((lane & !3) + list[lane & 3] as usize))
            }
            "dpp8" => {
                let list = list(8, 8)?;
                Box::new(move |lane| Some((lane & !7) + list[lane & 7] as usize))
            }
            "row_shl" => {
                let count = count()?;
                Box::new(move |lane| (lane % 16 + count < 16).then_some(lane + count))
            }
            "row_shr" => {
                let count = count()?;
                Box::new(move |lane| (lane % 16 >= count).then(|| lane - count))
            }
            "row_ror" => {
                let count = count()? % 16;
                Box::new(move |lane| Some((lane & !15) + (lane + 16 - count) % 16))
            }
            "wave_shl" => Box::new(move |lane| (lane + 1 < lanes).then_some(lane + 1)),
            "wave_shr" => Box::new(move |lane| lane.checked_sub(1)),
            "wave_rol" => Box::new(move |lane| Some((lane + 1) % lanes)),
            "wave_ror" => Box::new(move |lane| Some((lane + lanes - 1) % lanes)),
            "row_mirror" => Box::new(|lane| Some(lane ^ 15)),
            "row_half_mirror" => Box::new(|lane| Some(lane ^ 7)),
            // The last lane of each row (or of the first half) to the whole next row (or half).
            "row_bcast" => match count()? {
                15 => Box::new(|lane| (lane / 16 * 16).checked_sub(1)),
                31 => Box::new(|lane| (lane / 32 * 32).checked_sub(1)),
                _ => return Err(()),
            },
            "row_newbcast" | "row_share" => {
                let from = count()? % 16;
                Box::new(move |lane| Some((lane & !15) + from))
            }
            "row_xmask" => {
                let mask = count()? % 16;
                Box::new(move |lane| Some(lane ^ mask))
            }
            _ => continue,
        }));
    }
    Ok(None)
}

/// The modifiers that this module reads.
pub const MODIFIERS: &[&str] = &[
    "quad_perm",
    "dpp8",
    "row_shl",
    "row_shr",
    "row_ror",
    "wave_shl",
    "wave_shr",
    "wave_rol",
    "wave_ror",
    "row_mirror",
    "row_half_mirror",
    "row_bcast",
    "row_newbcast",
    "row_share",
    "row_xmask",
    "row_mask",
    "bank_mask",
    "bound_ctrl",
    "fi",
];
