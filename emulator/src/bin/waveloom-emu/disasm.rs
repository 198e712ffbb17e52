//! Listings: facts of the kernel descriptor, and instructions with labels.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use waveloom_emulator::asm::{Instruction, Value};
use waveloom_emulator::dispatch::occupancy;
use waveloom_emulator::object::{Kernel, Object};

/// Facts of every kernel, then all functions.
pub fn object(out: &mut String, object: &Object) {
    for kernel in object.kernels() {
        facts(out, kernel);
    }
    // Wave widths differ between kernels of one object; each is listed as it runs.
    let mut shown = BTreeSet::new();
    for kernel in object.kernels() {
        for (start, name) in kernel.functions() {
            let is_other_kernel = *name != kernel.name && object.kernel(name).is_some();
            if !is_other_kernel && shown.insert(*start) {
                function(out, kernel, *start, name);
            }
        }
    }
}

/// Facts and instructions of one kernel, without the functions that it calls.
pub fn kernel(out: &mut String, kernel: &Kernel) {
    facts(out, kernel);
    for (start, name) in kernel.functions() {
        if *name == kernel.name {
            function(out, kernel, *start, name);
        }
    }
}

fn facts(out: &mut String, kernel: &Kernel) {
    let entry = kernel.entry.wrapping_sub(kernel.image_address());
    let _ = writeln!(
        out,
        "kernel {}: {}, {} lanes, entry {entry:#x}",
        kernel.name, kernel.chip, kernel.lanes
    );
    let _ = writeln!(
        out,
        "  registers: {} vector, {} accumulation, {} scalar; spilled: {} vector, {} scalar",
        kernel.vgprs, kernel.agprs, kernel.sgprs, kernel.vgpr_spills, kernel.sgpr_spills
    );
    let full = kernel.max_workgroup_size;
    let _ = writeln!(
        out,
        "  {} bytes of LDS, {} bytes of scratch a work-item, at most {full} work-items a workgroup",
        kernel.lds_bytes, kernel.scratch_bytes
    );
    let resident = |size: u32| occupancy(kernel, size, 0);
    let _ = writeln!(
        out,
        "  workgroups a compute unit: {} of {} work-items, {} of {full}",
        resident(kernel.lanes),
        kernel.lanes,
        resident(full)
    );
    if kernel.descriptor.preload_dwords > 0 {
        let count = kernel.descriptor.preload_dwords;
        let _ = writeln!(out, "  {count} words of arguments are preloaded into scalar registers");
    }
    let _ = writeln!(out, "  arguments, {} bytes:", kernel.kernarg_size);
    for argument in &kernel.arguments {
        let _ = writeln!(
            out,
            "    {:4} {:4}  {} {}",
            argument.offset, argument.size, argument.kind, argument.name
        );
    }
    out.push('\n');
}

fn function(out: &mut String, kernel: &Kernel, start: u64, name: &str) {
    let program = kernel.program();
    let image = kernel.image_address();
    let (code, code_address) = kernel.code();
    let next = kernel.functions().range(start + 1..).next().map(|(address, _)| *address);
    let end = next.unwrap_or(code_address + code.len() as u64);
    let first = program.asm.partition_point(|asm| asm.address < start);
    let mut body: Vec<&Instruction> =
        program.asm[first..].iter().take_while(|asm| asm.address < end).collect();
    // What follows the last instruction is padding.
    let is_padding = |asm: &Instruction| {
        matches!(asm.mnemonic.as_str(), "s_code_end" | "s_nop") || asm.size == 0
    };
    while body.last().is_some_and(|asm| is_padding(asm)) {
        body.pop();
    }
    let targets: BTreeSet<u64> = body.iter().filter_map(|asm| target(asm)).collect();
    let inside = targets.iter().filter(|target| (start + 1..end).contains(*target));
    let labels: BTreeMap<u64, String> =
        inside.enumerate().map(|(index, address)| (*address, format!("L{}", index + 1))).collect();

    let _ = writeln!(out, "{:06x} <{name}>:", start.wrapping_sub(image));
    for asm in body {
        if let Some(label) = labels.get(&asm.address) {
            let _ = writeln!(out, "{label}:");
        }
        let text = match target(asm) {
            Some(target) => branch(kernel, asm, target, &labels),
            None => asm.text.clone(),
        };
        let at = asm.address.wrapping_sub(code_address) as usize;
        let bytes = code.get(at..at + asm.size.max(4) as usize).unwrap_or_default();
        let words: Vec<String> = bytes
            .chunks_exact(4)
            .map(|word| format!("{:08x}", u32::from_le_bytes([word[0], word[1], word[2], word[3]])))
            .collect();
        let _ = writeln!(
            out,
            "  {:06x}: {:26} {text}",
            asm.address.wrapping_sub(image),
            words.join(" ")
        );
    }
    out.push('\n');
}

/// Where a branch goes: its last operand counts words from the next instruction.
fn target(asm: &Instruction) -> Option<u64> {
    let branches = ["s_branch", "s_cbranch", "s_call_b64"];
    if !branches.iter().any(|prefix| asm.mnemonic.starts_with(prefix)) {
        return None;
    }
    let words = match asm.operands.last()?.value {
        Value::Integer(words) => words as i16,
        Value::Literal(words) => words as i16,
        _ => return None,
    };
    let next = asm.address.wrapping_add(u64::from(asm.size));
    Some(next.wrapping_add_signed(i64::from(words) * 4))
}

/// A branch with a label or a symbol in place of the number.
fn branch(
    kernel: &Kernel,
    asm: &Instruction,
    target: u64,
    labels: &BTreeMap<u64, String>,
) -> String {
    let place = match labels.get(&target) {
        Some(label) => label.clone(),
        None => kernel.symbolize(target),
    };
    let head = asm.text.rsplit_once(' ').map_or(asm.text.as_str(), |(head, _)| head);
    format!("{head} {place}")
}
