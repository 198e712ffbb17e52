//! What a GPU kernel's assembly says about it: registers, LDS, occupancy, what is in its hot loop.
//!
//! Read from LLVM's assembly text, whose metadata block and labels are stable. PTX knows no registers:
//! the driver's compiler decides on those, and on what is spilled.

mod ptx;
mod waits;

use crate::lower::KernelText;
use crate::target::{GpuTarget, Platform};
use std::cmp::Reverse;
use waveloom_plan::{CodeFacts, LoopFacts};

/// Reads off a kernel's assembly what it needs and does.
pub fn code_facts(assembly: &str, kernel: &KernelText, target: &GpuTarget) -> CodeFacts {
    match target.platform {
        Platform::Amd => amd_facts(assembly, kernel, target),
        Platform::Nvidia => ptx::facts(assembly, kernel, target),
    }
}

fn amd_facts(assembly: &str, kernel: &KernelText, target: &GpuTarget) -> CodeFacts {
    let metadata = |key: &str| -> u32 {
        let lines = assembly.lines().map(|line| line.trim_start().trim_start_matches("- "));
        let mut values = lines.filter_map(|line| line.strip_prefix(key)?.trim().parse().ok());
        values.next().unwrap_or(0)
    };
    let vgprs = metadata(".vgpr_count:");
    let lds_bytes = metadata(".group_segment_fixed_size:");
    let lines = body(assembly);
    CodeFacts {
        vgprs,
        sgprs: metadata(".sgpr_count:"),
        spills: metadata(".vgpr_spill_count:") + metadata(".sgpr_spill_count:"),
        private_bytes: metadata(".private_segment_fixed_size:"),
        lds_bytes,
        waves_per_simd: target.occupancy(vgprs, lds_bytes, kernel.workgroup),
        planned_waves_per_simd: kernel.planned_waves,
        waits: false,
        instructions: lines.iter().filter(|line| line.is_instruction()).count() as u32,
        hot_loop: hot_loop(&lines, &AMD),
    }
}

/// How a platform's instructions are called.
struct Dialect {
    /// Whether a mnemonic may jump to the label that is its operand.
    jumps: fn(&str) -> bool,
    /// Counts an instruction, mnemonic and operands.
    count: fn(&mut LoopFacts, &str, &str),
}

const AMD: Dialect = Dialect {
    jumps: |mnemonic| mnemonic.starts_with("s_cbranch") || mnemonic.starts_with("s_branch"),
    count: count_amd,
};

/// A line of assembly that does something.
#[derive(Clone, Copy)]
enum Line<'a> {
    Label(&'a str),
    Instruction { mnemonic: &'a str, operands: &'a str },
}

impl Line<'_> {
    fn is_instruction(&self) -> bool {
        matches!(self, Line::Instruction { .. })
    }
}

/// Labels and instructions up to the end of the function.
fn body(assembly: &str) -> Vec<Line<'_>> {
    let code = assembly.lines().map(|line| line.split(';').next().unwrap_or("").trim_end());
    let code = code.take_while(|line| !line.trim_start().starts_with(".section"));
    code.filter_map(|line| {
        if let Some(label) = line.strip_suffix(':') {
            return label.starts_with(".LBB").then_some(Line::Label(label));
        }
        let line = line.strip_prefix('\t')?;
        let (mnemonic, operands) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let instruction = mnemonic.starts_with(|c: char| c.is_ascii_lowercase());
        instruction.then_some(Line::Instruction { mnemonic, operands })
    })
    .collect()
}

/// The innermost loop with the most matrix operations; where none has any, the most loads.
fn hot_loop(lines: &[Line<'_>], dialect: &Dialect) -> Option<LoopFacts> {
    let mut loops: Vec<(usize, usize)> = vec![];
    for (end, line) in lines.iter().enumerate() {
        let Line::Instruction { mnemonic, operands } = line else { continue };
        if !(dialect.jumps)(mnemonic) {
            continue;
        }
        let is_target = |line: &Line<'_>| matches!(line, Line::Label(l) if *l == operands.trim());
        if let Some(start) = lines[..end].iter().rposition(is_target) {
            loops.push((start, end));
        }
    }
    // What only polls is part of the loop around it.
    let works = |&&(start, end): &&(usize, usize)| {
        let facts = loop_facts(&lines[start..=end], dialect);
        facts.matrix + facts.wide_loads + facts.narrow_loads > 0
    };
    let working: Vec<(usize, usize)> = loops.iter().filter(works).copied().collect();
    let innermost = loops.iter().filter(|(start, end)| {
        !working.iter().any(|(a, b)| (a, b) != (start, end) && start <= a && b <= end)
    });
    let facts = innermost.map(|&(start, end)| loop_facts(&lines[start..=end], dialect));
    // Of two forms of one loop the shorter one runs more often: the other one is for edges.
    facts.max_by_key(|facts| {
        let loads = facts.wide_loads + facts.narrow_loads;
        (facts.matrix, loads, Reverse(facts.instructions))
    })
}

fn loop_facts(lines: &[Line<'_>], dialect: &Dialect) -> LoopFacts {
    let mut facts = LoopFacts::default();
    for line in lines {
        let Line::Instruction { mnemonic, operands } = line else { continue };
        facts.instructions += 1;
        (dialect.count)(&mut facts, mnemonic, operands);
    }
    facts
}

fn count_amd(facts: &mut LoopFacts, mnemonic: &str, operands: &str) {
    facts.matrix += u32::from(mnemonic.contains("mfma") || mnemonic.contains("wmma"));
    if mnemonic.starts_with("global_load") || mnemonic.starts_with("buffer_load") {
        let wide = mnemonic.ends_with("x4") || mnemonic.ends_with("b128");
        facts.wide_loads += u32::from(wide);
        facts.narrow_loads += u32::from(!wide);
    }
    facts.full_waits += u32::from(
        mnemonic.starts_with("s_waitcnt") && operands.contains("vmcnt(0)")
            || mnemonic.starts_with("s_wait_loadcnt") && operands.trim() == "0x0",
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::instance::Draft;
    use crate::mlir::Elem;
    use crate::{Target, compile};

    const CHIPS: [&str; 6] = ["gfx90a", "gfx942", "gfx950", "gfx1100", "gfx1151", "gfx1201"];

    /// A loop that loads 16 bytes a lane and adds them up.
    #[test]
    fn a_loop_is_read_off_the_assembly() {
        for name in CHIPS {
            let target = Target::from_name(name).unwrap();
            let Target::Gpu(amd) = &target else { panic!("{name} is a GPU") };
            let mut draft = Draft::for_gpu("k", 256, amd);
            let (from, to, count) =
                (draft.buffer(0), draft.buffer(1), draft.number(waveloom_plan::Expr::Symbol(0)));
            let k = &mut draft.builder;
            let thread = k.thread();
            let zero = k.zero(Elem::F32.vec(4));
            let start = k.i64(0);
            let [sum] = k.for_loop(start, count, 1, [zero], |k, i, [sum]| {
                let before = k.mul_const(i, 4096);
                let at = k.offset(from, before);
                let bytes = k.mul_const(thread, 16);
                let at = k.offset_u32(at, bytes);
                let x = k.load_aligned(at, Elem::F32.vec(4), 16);
                [k.add(sum, x)]
            });
            let bytes = k.mul_const(thread, 16);
            let at = k.offset_u32(to, bytes);
            k.store_aligned(sum, at, 16);
            draft.builder.plan_waves(amd.vector_registers.max_waves);
            let text = draft.finish("k".into(), 1.into(), 0).text;
            let assembly = compile(&text, &target, true).unwrap().dump.unwrap().assembly;
            let facts = code_facts(&assembly, &text, amd);
            assert!(facts.vgprs > 0 && facts.sgprs > 0, "{name}: {facts:?}");
            assert_eq!([facts.spills, facts.private_bytes, facts.lds_bytes], [0; 3]);
            assert_eq!(facts.waves_per_simd, amd.vector_registers.max_waves);
            assert_eq!(facts.planned_waves_per_simd, facts.waves_per_simd);
            let hot = facts.hot_loop.expect("the loop");
            assert!(hot.wide_loads >= 1 && hot.narrow_loads == 0, "{name}: {hot:?}");
            assert!(hot.instructions < facts.instructions);
        }
    }

    /// What is planned bounds the registers: 128 numbers that are alive together, more waves than
    /// they leave room for.
    #[test]
    fn planned_waves_bound_the_registers() {
        for name in CHIPS {
            let target = Target::from_name(name).unwrap();
            let Target::Gpu(gpu) = &target else { panic!("{name} is a GPU") };
            let facts = |planned: u32| {
                let mut draft = Draft::for_gpu("k", 64, gpu);
                let (from, to) = (draft.buffer(0), draft.buffer(1));
                let k = &mut draft.builder;
                k.plan_waves(planned);
                let thread = k.thread();
                let lane = k.mul_const(thread, 16);
                let [from, to] = [from, to].map(|array| k.offset_u32(array, lane));
                let numbers: Vec<_> = (0..32)
                    .map(|index| {
                        let at = k.offset_const(from, 1024 * index);
                        k.load_aligned(at, Elem::F32.vec(4), 16)
                    })
                    .collect();
                k.barrier_all();
                for (index, number) in numbers.into_iter().enumerate() {
                    let at = k.offset_const(to, 1024 * index as i64);
                    k.store_aligned(number, at, 16);
                }
                let text = draft.finish("k".into(), 1.into(), 0).text;
                compile(&text, &target, false).unwrap().facts.unwrap()
            };
            let free = facts(1);
            let bound = facts(gpu.vector_registers.max_waves);
            assert!(free.vgprs >= 128 && free.spills == 0, "{name}: {free:?}");
            assert!(bound.vgprs <= gpu.vector_registers.most(bound.planned_waves_per_simd));
            assert_eq!(bound.waves_per_simd, gpu.vector_registers.max_waves, "{name}: {bound:?}");
        }
    }
}
