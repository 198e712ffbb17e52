//! What PTX says of a kernel.

use super::waits::waits;
use super::{Dialect, Line, hot_loop};
use crate::lower::KernelText;
use crate::target::GpuTarget;
use waveloom_plan::{CodeFacts, LoopFacts};

const PTX: Dialect = Dialect { jumps: |mnemonic| mnemonic.starts_with("bra"), count };

/// Reads off a kernel's PTX what it says. Registers are not in it; where it bounds them, the bound
/// says how much of the kernel a multiprocessor can hold at least.
pub(super) fn facts(text: &str, kernel: &KernelText, target: &GpuTarget) -> CodeFacts {
    let statements = statements(text);
    let lds_bytes = declared_bytes(text, ".shared");
    let resident = |registers| target.occupancy(registers, lds_bytes, kernel.workgroup);
    let lines: Vec<Line<'_>> = statements.iter().filter_map(|text| line(text)).collect();
    CodeFacts {
        private_bytes: declared_bytes(text, ".local"),
        lds_bytes: lds_bytes + kernel.dynamic_shared,
        waves_per_simd: most_registers(text).map_or(0, resident),
        planned_waves_per_simd: kernel.planned_waves,
        waits: waits(&statements),
        instructions: lines.iter().filter(|line| line.is_instruction()).count() as u32,
        hot_loop: hot_loop(&lines, &PTX),
        ..CodeFacts::default()
    }
}

/// The registers that a work-item has at most by the text's own word: `.maxnreg 128`.
fn most_registers(text: &str) -> Option<u32> {
    let mut bounds = text.lines().filter_map(|line| line.trim().strip_prefix(".maxnreg"));
    bounds.next()?.trim().parse().ok()
}

/// Bytes of the variables in a state space: `.shared .align 128 .b8 name[bytes];`.
fn declared_bytes(text: &str, space: &str) -> u32 {
    let variables = text.lines().filter_map(|line| line.trim_start().strip_prefix(space));
    variables
        .filter_map(|line| line.split_once('[')?.1.split_once(']')?.0.parse::<u32>().ok())
        .sum()
}

/// Labels and what ends with a semicolon, each as one line without comments.
fn statements(text: &str) -> Vec<String> {
    let mut statements = vec![];
    let mut open = String::new();
    for line in text.lines() {
        let line = line.split("//").next().unwrap_or("").trim();
        open.push_str(line);
        if line.ends_with([';', ':']) {
            statements.push(std::mem::take(&mut open));
        } else if open == "{" || open == "}" || open.starts_with('.') {
            open.clear();
        } else if !open.is_empty() {
            open.push(' ');
        }
    }
    statements
}

/// A label or an instruction, which may have a predicate before it.
fn line(line: &str) -> Option<Line<'_>> {
    if let Some(label) = line.strip_suffix(':') {
        return Some(Line::Label(label));
    }
    let line = line.strip_suffix(';')?;
    let line = match line.strip_prefix('@') {
        Some(predicated) => predicated.split_once(char::is_whitespace)?.1.trim_start(),
        None => line,
    };
    let (mnemonic, operands) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let instruction = mnemonic.starts_with(|c: char| c.is_ascii_lowercase());
    instruction.then_some(Line::Instruction { mnemonic, operands })
}

fn count(facts: &mut LoopFacts, mnemonic: &str, _: &str) {
    let matrix = mnemonic.starts_with("mma.") || mnemonic.starts_with("wgmma.mma_async");
    facts.matrix += u32::from(matrix);
    if mnemonic.starts_with("ld.global") {
        let wide = loaded_bytes(mnemonic) == Some(16);
        facts.wide_loads += u32::from(wide);
        facts.narrow_loads += u32::from(!wide);
    }
}

/// Bytes that a lane loads: `ld.global.nc.v4.b32` has 16.
fn loaded_bytes(mnemonic: &str) -> Option<u32> {
    let (rest, ty) = mnemonic.rsplit_once('.')?;
    let bits: u32 = ty.get(1..)?.parse().ok()?;
    let lanes = match rest.rsplit_once('.') {
        Some((_, "v2")) => 2,
        Some((_, "v4")) => 4,
        _ => 1,
    };
    Some(lanes * bits / 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_is_read_off_ptx() {
        let text = "\
.version 7.4
.shared .align 128 .b8 waveloom_shared[1024];
.visible .entry k(
\t.param .u64 k_param_0
)
{
\t.local .align 16 .b8 \t__local_depot0[48];
\t.reg .b32 \t%r<5>;
\tmov.b32 \t%r1, 0;
$L__BB0_1:                              // =>This Inner Loop
\tld.global.nc.v4.b32 \t{%r1, %r2, %r3, %r4}, [%rd1];
\t// begin inline asm
\tld.global.nc.L1::no_allocate.v4.b32 {%r1, %r2, %r3, %r4}, [%rd1];
\t// end inline asm
\tld.global.b32 \t%r1, [%rd1+4];
\tmma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32
\t\t{%r1},
\t\t{%r2},
\t\t{%r3},
\t\t{%r4};
\t@%p1 bra \t$L__BB0_1;
\tret;
}
";
        let planned_waves = 3;
        let text_of = KernelText { workgroup: 256, planned_waves, ..KernelText::default() };
        let target = GpuTarget::from_name("sm_80").unwrap();
        let facts = facts(text, &text_of, &target);
        assert_eq!([facts.private_bytes, facts.lds_bytes, facts.instructions], [48, 1024, 7]);
        assert_eq!([facts.vgprs, facts.sgprs, facts.waves_per_simd], [0; 3]);
        let hot = facts.hot_loop.expect("the loop");
        let counts = [hot.instructions, hot.matrix, hot.wide_loads, hot.narrow_loads];
        assert_eq!(counts, [5, 1, 2, 1]);
    }
}
