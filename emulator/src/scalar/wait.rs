//! What wait instructions wait for.
//!
//! Every access completes at once here, so waits have no effect on execution. Those who look for
//! missing waits read from this how many accesses an instruction leaves outstanding.

use crate::asm::{Instruction, Value};
use crate::wave::scalar;

/// Counters of outstanding accesses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Counter {
    /// Vector memory: loads and atomics that return; on CDNA every other access too. `vmcnt`,
    /// `loadcnt`.
    Load,
    /// Vector memory on RDNA: stores, and atomics that return nothing. `vscnt`, `storecnt`.
    Store,
    /// LDS, scalar memory and messages together, before GFX12. `lgkmcnt`.
    Lgkm,
    /// LDS from GFX12 on. `dscnt`.
    Lds,
    /// Scalar memory and messages from GFX12 on. `kmcnt`.
    Scalar,
    /// Exports; on CDNA stores whose data is still to be read. `expcnt`.
    Export,
    /// Image samples from GFX12 on.
    Sample,
    /// Ray tracing from GFX12 on.
    Bvh,
}

impl Counter {
    /// Every counter.
    pub const ALL: [Counter; 8] = [
        Counter::Load,
        Counter::Store,
        Counter::Lgkm,
        Counter::Lds,
        Counter::Scalar,
        Counter::Export,
        Counter::Sample,
        Counter::Bvh,
    ];
}

/// What must have completed when a wait is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wait {
    limits: [Option<u8>; Counter::ALL.len()],
}

impl Wait {
    /// What `asm` waits for; nothing if it is no wait.
    pub fn new(asm: &Instruction) -> Wait {
        use Counter::{Bvh, Export, Lds, Lgkm, Load, Sample, Scalar, Store};
        let mut wait = Wait::default();
        match asm.mnemonic.as_str() {
            "s_waitcnt" => wait.words(asm),
            "s_waitcnt_vmcnt" => wait.beside_null(asm, Load),
            "s_waitcnt_vscnt" => wait.beside_null(asm, Store),
            "s_waitcnt_lgkmcnt" => wait.beside_null(asm, Lgkm),
            "s_waitcnt_expcnt" => wait.beside_null(asm, Export),
            "s_wait_loadcnt" => wait.number(asm, Load),
            "s_wait_storecnt" => wait.number(asm, Store),
            "s_wait_dscnt" => wait.number(asm, Lds),
            "s_wait_kmcnt" => wait.number(asm, Scalar),
            "s_wait_expcnt" => wait.number(asm, Export),
            "s_wait_samplecnt" => wait.number(asm, Sample),
            "s_wait_bvhcnt" => wait.number(asm, Bvh),
            "s_wait_loadcnt_dscnt" => wait.with_lds(asm, Load),
            "s_wait_storecnt_dscnt" => wait.with_lds(asm, Store),
            "s_wait_idle" => wait.limits = [Some(0); Counter::ALL.len()],
            _ => {}
        }
        wait
    }

    /// How many accesses of a counter may be outstanding afterwards; `None` for any number.
    pub fn limit(&self, counter: Counter) -> Option<u8> {
        self.limits[counter as usize]
    }

    /// Whether it waits for anything.
    pub fn is_any(&self) -> bool {
        self.limits.iter().any(Option::is_some)
    }

    fn set(&mut self, counter: Counter, limit: i64) {
        self.limits[counter as usize] = u8::try_from(limit).ok();
    }

    /// `vmcnt(0) lgkmcnt(1)`.
    fn words(&mut self, asm: &Instruction) {
        for operand in &asm.operands {
            let Value::Word(word) = &operand.value else { continue };
            let Some((name, rest)) = word.split_once('(') else { continue };
            let Some(Ok(limit)) = rest.strip_suffix(')').map(str::parse) else { continue };
            match name {
                "vmcnt" => self.set(Counter::Load, limit),
                "lgkmcnt" => self.set(Counter::Lgkm, limit),
                "expcnt" => self.set(Counter::Export, limit),
                _ => {}
            }
        }
    }

    /// `null, 0x0`: the limit in a register is not used by anyone.
    fn beside_null(&mut self, asm: &Instruction, counter: Counter) {
        let null = Value::Scalar(scalar::NULL as u16, 1);
        if asm.operands.first().is_some_and(|operand| operand.value == null)
            && let Some(limit) = number(asm, 1)
        {
            self.set(counter, limit);
        }
    }

    fn number(&mut self, asm: &Instruction, counter: Counter) {
        if let Some(limit) = number(asm, 0) {
            self.set(counter, limit & 0x3f);
        }
    }

    /// LDS in bits 0 to 5, another counter in bits 8 to 13.
    fn with_lds(&mut self, asm: &Instruction, counter: Counter) {
        if let Some(limits) = number(asm, 0) {
            self.set(Counter::Lds, limits & 0x3f);
            self.set(counter, limits >> 8 & 0x3f);
        }
    }
}

fn number(asm: &Instruction, index: usize) -> Option<i64> {
    match asm.operands.get(index)?.value {
        Value::Integer(integer) => Some(integer),
        Value::Literal(bits) => Some(bits as i64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asm::parse;

    fn limits(text: &str) -> Vec<(Counter, u8)> {
        let wait = Wait::new(&parse(text));
        Counter::ALL.into_iter().filter_map(|c| Some((c, wait.limit(c)?))).collect()
    }

    #[test]
    fn reads_every_spelling() {
        use Counter::{Lds, Lgkm, Load, Scalar, Store};
        assert_eq!(limits("s_waitcnt vmcnt(3) lgkmcnt(0)"), [(Load, 3), (Lgkm, 0)]);
        assert_eq!(limits("s_waitcnt_vscnt null, 0x2"), [(Store, 2)]);
        assert_eq!(limits("s_waitcnt_vscnt s4, 0x2"), []);
        assert_eq!(limits("s_wait_kmcnt 0x0"), [(Scalar, 0)]);
        assert_eq!(limits("s_wait_loadcnt_dscnt 0x305"), [(Load, 3), (Lds, 5)]);
        assert_eq!(limits("s_wait_storecnt_dscnt 0x1"), [(Store, 0), (Lds, 1)]);
        assert_eq!(limits("s_nop 3"), []);
        assert_eq!(limits("s_wait_idle").len(), Counter::ALL.len());
        assert!(!Wait::new(&parse("s_branch 3")).is_any());
    }
}
