//! What an instruction reads, writes and waits for, from its text alone: the ground of checks and
//! statistics, which must not trust the closures that they watch.

use std::ops::Range;

use crate::asm::{Instruction, Operand, Value};
use crate::wave::scalar;

/// The kind of unit that executes an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Vector arithmetic.
    Vector,
    /// Matrix multiply-accumulate.
    Matrix,
    /// Scalar arithmetic.
    Scalar,
    /// Loads through the scalar cache.
    ScalarMemory,
    /// Global, flat, buffer and scratch memory.
    VectorMemory,
    /// Local data share.
    Lds,
    /// Branches, calls and the end.
    Control,
    /// Waits for counters, delays and no-operations.
    Wait,
    /// The workgroup's barrier.
    Barrier,
    /// Messages, cache control and the rest.
    Other,
}

impl Class {
    /// Name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Class::Vector => "vector",
            Class::Matrix => "matrix",
            Class::Scalar => "scalar",
            Class::ScalarMemory => "scalar_memory",
            Class::VectorMemory => "vector_memory",
            Class::Lds => "lds",
            Class::Control => "control",
            Class::Wait => "wait",
            Class::Barrier => "barrier",
            Class::Other => "other",
        }
    }
}

/// What a memory instruction does with its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// Registers are written.
    Load,
    /// Registers are read.
    Store,
    /// Memory is changed and nothing comes back.
    Atomic,
    /// Memory is changed and its old value comes back.
    AtomicReturn,
    /// Global memory goes to LDS.
    LoadToLds,
}

/// Registers and counters of one instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effects {
    /// Who executes it.
    pub class: Class,
    /// What it does with memory, if anything.
    pub memory: Option<Memory>,
    /// The access is visible to the whole device, as the polling of a flag must be.
    pub coherent: bool,
    /// Rows of vector registers that are read.
    pub vector_reads: Vec<Range<u16>>,
    /// Rows of vector registers that are written.
    pub vector_writes: Vec<Range<u16>>,
    /// Scalar registers that are read.
    pub scalar_reads: Vec<Range<u16>>,
    /// Scalar registers that are written.
    pub scalar_writes: Vec<Range<u16>>,
}

impl Effects {
    /// The effects of an instruction.
    pub fn of(asm: &Instruction) -> Effects {
        let class = class(asm);
        let memory = memory(asm, class);
        let mut effects = Effects {
            class,
            memory,
            coherent: memory.is_some() && is_coherent(asm),
            vector_reads: Vec::new(),
            vector_writes: Vec::new(),
            scalar_reads: Vec::new(),
            scalar_writes: Vec::new(),
        };
        effects.add_operands(asm);
        if let Some(second) = &asm.paired {
            effects.add_operands(second);
        }
        effects.add_implicit(asm);
        effects
    }

    fn add_operands(&mut self, asm: &Instruction) {
        let written = destinations(asm, self.class, self.memory);
        for (index, operand) in asm.operands.iter().enumerate() {
            let writes = index < written || swaps(&asm.mnemonic);
            let reads = index >= written || accumulates(&asm.mnemonic) || swaps(&asm.mnemonic);
            self.add(operand, reads, writes);
        }
    }

    fn add(&mut self, operand: &Operand, reads: bool, writes: bool) {
        let (file_reads, file_writes, range) = match operand.value {
            Value::Vector(first, count) => {
                (&mut self.vector_reads, &mut self.vector_writes, first..first + count)
            }
            Value::Scalar(first, count) if usize::from(first) != scalar::NULL => {
                (&mut self.scalar_reads, &mut self.scalar_writes, first..first + count)
            }
            _ => return,
        };
        if reads {
            file_reads.push(range.clone());
        }
        if writes {
            file_writes.push(range);
        }
    }

    /// Registers that the text does not name.
    fn add_implicit(&mut self, asm: &Instruction) {
        let vcc = scalar::VCC as u16..scalar::VCC as u16 + 2;
        let exec = scalar::EXEC as u16..scalar::EXEC as u16 + 2;
        let mnemonic = asm.mnemonic.as_str();
        if mnemonic.starts_with("v_div_fmas") {
            self.scalar_reads.push(vcc);
        } else if mnemonic.starts_with("v_cmpx") || mnemonic.contains("saveexec") {
            self.scalar_writes.push(exec);
        }
    }
}

const MATRIX: [&str; 5] = ["v_mfma", "v_smfmac", "v_wmma", "v_swmmac", "v_dot_matrix"];
const WAITS: [&str; 5] = ["s_wait", "s_delay_alu", "s_nop", "s_sleep", "s_clause"];
const CONTROL: [&str; 8] =
    ["s_branch", "s_cbranch", "s_call", "s_setpc", "s_swappc", "s_endpgm", "s_trap", "s_rfe"];
const CACHE: [&str; 9] = [
    "buffer_inv",
    "buffer_wb",
    "buffer_gl",
    "global_inv",
    "global_wb",
    "global_prefetch",
    "s_dcache",
    "s_icache",
    "s_prefetch",
];

fn starts_with_any(mnemonic: &str, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| mnemonic.starts_with(prefix))
}

fn class(asm: &Instruction) -> Class {
    let mnemonic = asm.mnemonic.as_str();
    if starts_with_any(mnemonic, &MATRIX) {
        Class::Matrix
    } else if starts_with_any(mnemonic, &CACHE) {
        Class::Other
    } else if mnemonic.starts_with("v_") {
        Class::Vector
    } else if mnemonic.starts_with("ds_") {
        Class::Lds
    } else if starts_with_any(mnemonic, &["global_", "flat_", "scratch_", "buffer_", "tbuffer_"]) {
        Class::VectorMemory
    } else if starts_with_any(mnemonic, &["s_load_", "s_buffer_load", "s_scratch_", "s_memtime"]) {
        Class::ScalarMemory
    } else if mnemonic.starts_with("s_barrier") {
        Class::Barrier
    } else if starts_with_any(mnemonic, &WAITS) {
        Class::Wait
    } else if starts_with_any(mnemonic, &CONTROL) {
        Class::Control
    } else if starts_with_any(mnemonic, &["s_sendmsg", "s_set_inst", "s_inst_prefetch", "s_ttrace"])
    {
        Class::Other
    } else if mnemonic.starts_with("s_") {
        Class::Scalar
    } else {
        Class::Other
    }
}

/// Whether an atomic gives the old value back: glc on CDNA 2 and RDNA 3, sc0 on CDNA 3 and 4, the
/// temporal hint on RDNA 4.
fn returns(asm: &Instruction) -> bool {
    asm.has("sc0")
        || asm.has("glc")
        || asm.value("th").is_some_and(|policy| policy.contains("RETURN"))
}

/// At device or system scope.
fn is_coherent(asm: &Instruction) -> bool {
    let scope = asm.value("scope").unwrap_or("");
    asm.has("sc1") || asm.has("glc") || scope.contains("DEV") || scope.contains("SYS")
}

fn memory(asm: &Instruction, class: Class) -> Option<Memory> {
    let mnemonic = asm.mnemonic.as_str();
    match class {
        Class::ScalarMemory => Some(Memory::Load),
        Class::VectorMemory if mnemonic.contains("_load_lds") || asm.has("lds") => {
            Some(Memory::LoadToLds)
        }
        Class::VectorMemory if mnemonic.contains("_load") => Some(Memory::Load),
        Class::VectorMemory if mnemonic.contains("_store") => Some(Memory::Store),
        Class::VectorMemory if mnemonic.contains("_atomic") => {
            Some(if returns(asm) { Memory::AtomicReturn } else { Memory::Atomic })
        }
        Class::Lds => lds_memory(mnemonic),
        _ => None,
    }
}

fn lds_memory(mnemonic: &str) -> Option<Memory> {
    let shuffles = ["ds_bpermute", "ds_permute", "ds_swizzle"];
    if starts_with_any(mnemonic, &["ds_nop", "ds_gws", "ds_ordered"]) {
        None
    } else if starts_with_any(mnemonic, &["ds_read", "ds_load"])
        || starts_with_any(mnemonic, &shuffles)
    {
        Some(Memory::Load)
    } else if starts_with_any(mnemonic, &["ds_write", "ds_store"]) {
        Some(Memory::Store)
    } else if mnemonic.contains("_rtn") || starts_with_any(mnemonic, &["ds_append", "ds_consume"]) {
        Some(Memory::AtomicReturn)
    } else {
        Some(Memory::Atomic)
    }
}

/// Operands, from the first on, that are written.
fn destinations(asm: &Instruction, class: Class, memory: Option<Memory>) -> usize {
    let mnemonic = asm.mnemonic.as_str();
    match class {
        Class::Vector | Class::Matrix => vector_destinations(asm),
        Class::ScalarMemory => 1,
        Class::VectorMemory | Class::Lds => {
            usize::from(matches!(memory, Some(Memory::Load | Memory::AtomicReturn)))
        }
        Class::Scalar => {
            let none = ["s_cmp", "s_bitcmp", "s_setreg", "s_round_mode", "s_denorm_mode"];
            usize::from(!starts_with_any(mnemonic, &none))
        }
        Class::Control => usize::from(starts_with_any(mnemonic, &["s_call", "s_swappc"])),
        Class::Other => usize::from(mnemonic.starts_with("s_sendmsg_rtn")),
        Class::Wait | Class::Barrier => 0,
    }
}

fn vector_destinations(asm: &Instruction) -> usize {
    let mnemonic = asm.mnemonic.as_str();
    if mnemonic.starts_with("v_cmp") {
        // v_cmpx on RDNA names no destination.
        return asm.operands.len().saturating_sub(2);
    }
    let carries = mnemonic.contains("_co_") || mnemonic.starts_with("v_div_scale");
    let wide = ["v_mad_u64_u32", "v_mad_i64_i32"];
    if carries || wide.contains(&mnemonic) { 2 } else { 1 }
}

/// The destination is also a source.
fn accumulates(mnemonic: &str) -> bool {
    let prefixes = [
        "v_fmac",
        "v_mac_",
        "v_pk_fmac",
        "v_dot2c",
        "v_dot4c",
        "v_dot8c",
        "v_smfmac",
        "v_swmmac",
        "v_dual_fmac",
        "v_dual_dot2acc",
        "s_fmac",
        "s_addk",
        "s_mulk",
        "s_bitset",
        "s_cmov",
    ];
    starts_with_any(mnemonic, &prefixes)
}

fn swaps(mnemonic: &str) -> bool {
    mnemonic.starts_with("v_swap") || mnemonic.ends_with("_swap_b32")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asm::parse;

    fn effects(text: &str) -> Effects {
        Effects::of(&parse(text))
    }

    #[test]
    #[expect(clippy::single_range_in_vec_init, reason = "lists of ranges")]
    fn registers_of_the_families() {
        let fma = effects("v_fmac_f32_e32 v0, s3, v2");
        assert_eq!((fma.vector_reads, fma.vector_writes), (vec![0..1, 2..3], vec![0..1]));
        assert_eq!(fma.scalar_reads, vec![3..4]);
        let load = effects("global_load_dwordx4 v[4:7], v2, s[2:3] offset:16");
        assert_eq!(load.vector_writes, vec![4..8]);
        assert_eq!((load.vector_reads, load.scalar_reads), (vec![2..3], vec![2..4]));
        let store = effects("global_store_dwordx2 v2, v[4:5], s[2:3]");
        assert_eq!((store.vector_reads, store.vector_writes.len()), (vec![2..3, 4..6], 0));
        let add = effects("v_add_co_u32_e64 v1, s[4:5], v2, v3");
        assert_eq!((add.vector_writes, add.scalar_writes), (vec![1..2], vec![4..6]));
        let atomic = effects("global_atomic_add_f32 v1, v0, v2, s[0:1] sc0");
        assert_eq!((atomic.memory, atomic.vector_writes), (Some(Memory::AtomicReturn), vec![1..2]));
        let silent = effects("global_atomic_add_f32 v0, v2, s[0:1]");
        assert_eq!((silent.memory, silent.vector_writes.len()), (Some(Memory::Atomic), 0));
        let dma = effects("global_load_lds_dword v[0:1], off");
        assert_eq!((dma.memory, dma.vector_reads), (Some(Memory::LoadToLds), vec![0..2]));
        let compare = effects("v_cmp_lt_f32_e64 s[0:1], v1, v2");
        assert_eq!(compare.scalar_writes, vec![0..2]);
        assert_eq!(
            effects("v_mfma_f32_4x4x4_16b_f16 a[0:3], v[0:1], v[2:3], a[0:3]").class,
            Class::Matrix
        );
        assert_eq!(effects("buffer_inv sc1").class, Class::Other);
        assert_eq!(effects("s_and_saveexec_b64 s[0:1], vcc").scalar_writes.len(), 2);
    }
}
