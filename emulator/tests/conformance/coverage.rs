//! The table of what this suite executes, chip by chip: `docs/emulator-coverage.md`.
//!
//! Rows are the mnemonics that LLVM's disassembler prints. `UPDATE_FIXTURES=1` rewrites the file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::PathBuf;

use waveloom_emulator::Chip;
use waveloom_emulator::asm::{Encoding, Instruction};

use crate::assembler::assemble;
use crate::machine::Bench;
use crate::{buffer, control, lanes, matrix, memory, scalar, special, tables, vector, vopd};

/// Every mnemonic that LLVM 22 has on one of the chips.
const ALL: &str = include_str!("mnemonics.txt");

/// Instructions that no kernel of a compute program has, or that only a trap handler or a driver
/// may use: beginnings of mnemonics, and why.
const OUTSIDE: &[(&str, &str)] = &[
    ("image_", "textures and samplers"),
    ("tbuffer_", "typed buffers of graphics"),
    ("buffer_load_format", "typed buffers of graphics"),
    ("buffer_store_format", "typed buffers of graphics"),
    ("buffer_load_d16_format", "typed buffers of graphics"),
    ("buffer_load_d16_hi_format", "typed buffers of graphics"),
    ("buffer_store_d16_format", "typed buffers of graphics"),
    ("buffer_store_d16_hi_format", "typed buffers of graphics"),
    ("exp", "outputs of graphics"),
    ("v_interp", "interpolation of graphics"),
    ("lds_param_load", "interpolation of graphics"),
    ("lds_direct_load", "interpolation of graphics"),
    ("ds_param_load", "interpolation of graphics"),
    ("ds_direct_load", "interpolation of graphics"),
    ("ds_bvh", "ray tracing"),
    ("ds_gws", "global wave synchronization of graphics"),
    ("ds_ordered_count", "ordered counters of graphics"),
    ("ds_add_gs_reg", "geometry shaders"),
    ("ds_sub_gs_reg", "geometry shaders"),
    ("ds_append", "counters of graphics"),
    ("ds_consume", "counters of graphics"),
    ("buffer_store_lds", "not emitted: stores from LDS to memory"),
    ("global_atomic_ordered_add", "ordered counters of graphics"),
    ("s_atc_probe", "address translation by drivers"),
    ("s_atomic", "not emitted: scalar atomics"),
    ("s_buffer_atomic", "not emitted: scalar atomics"),
    ("s_store", "not emitted: scalar stores"),
    ("s_buffer_store", "not emitted: scalar stores"),
    ("s_scratch", "not emitted: scalar scratch"),
    ("s_dcache_discard", "not emitted: scalar stores"),
    ("s_cbranch_cdbg", "debuggers"),
    ("s_cbranch_g_fork", "not emitted: fork and join"),
    ("s_cbranch_i_fork", "not emitted: fork and join"),
    ("s_cbranch_join", "not emitted: fork and join"),
    ("s_rfe", "trap handlers"),
    ("s_trap", "trap handlers"),
    ("s_sethalt", "debuggers"),
    ("s_sendmsghalt", "stops a wave until the driver resumes it"),
    ("s_setkill", "debuggers"),
    ("s_setvskip", "not emitted: vector skip"),
    ("s_endpgm_", "trap handlers and graphics"),
    ("s_subvector_loop", "not emitted: subvector loops"),
    ("s_alloc_vgpr", "dynamic registers of graphics"),
    ("s_barrier_init", "named barriers, which these chips have for drivers only"),
    ("s_barrier_join", "named barriers, which these chips have for drivers only"),
    ("s_barrier_leave", "named barriers, which these chips have for drivers only"),
    ("s_ttracedata", "thread trace"),
    ("s_code_end", "padding behind code"),
    ("v_illegal", "an instruction that always faults"),
    ("v_clrexcp", "trap handlers"),
    ("v_pipeflush", "not emitted"),
    ("v_screen_partition", "graphics"),
    ("v_mfma_ld_scale", "the first half of the scaled matrix forms, executed with them"),
    ("global_load_block", "spilling of dynamic registers"),
    ("global_store_block", "spilling of dynamic registers"),
    ("scratch_load_block", "spilling of dynamic registers"),
    ("scratch_store_block", "spilling of dynamic registers"),
];

fn families(chip: Chip, lanes: u32) -> Vec<(&'static str, Vec<String>)> {
    let mut list = vec![("Scalar", scalar::lines()), ("Control", control::lines())];
    for (name, table) in tables::all() {
        list.push((name, vector::lines(&table, chip, lanes)));
    }
    let snippets = lanes::snippets(chip, lanes as usize);
    list.push(("Other lanes and moves", snippets.into_iter().map(|s| s.text).collect()));
    list.push(("Parts of registers", special::lines()));
    list.push(("Pairs (VOPD)", vopd::lines()));
    list.push(("Matrix", matrix::lines(chip, lanes as usize)));
    list.push(("Local memory", memory::local_lines()));
    list.push(("Global, flat and scratch memory", memory::lines(chip)));
    list.push(("Buffers, scalar memory, transfers", buffer::lines(chip)));
    list
}

fn encoding(instruction: &Instruction) -> &'static str {
    match instruction.encoding {
        Encoding::Plain => "",
        Encoding::E32 => "e32",
        Encoding::E64 => "e64",
        Encoding::Dpp | Encoding::E64Dpp if instruction.has("dpp8") => "dpp8",
        Encoding::Dpp => "dpp",
        Encoding::E64Dpp => "e64 dpp",
        Encoding::Sdwa => "sdwa",
    }
}

/// What is executed of one mnemonic.
#[derive(Default)]
struct Row {
    family: &'static str,
    chips: BTreeSet<Chip>,
    encodings: BTreeSet<&'static str>,
}

struct Coverage {
    rows: BTreeMap<String, Row>,
    /// Mnemonics as they were written, by chip: aliases of others among them.
    written: BTreeMap<Chip, BTreeSet<String>>,
    /// What LLVM has, by chip.
    known: BTreeMap<Chip, BTreeSet<&'static str>>,
}

/// The mnemonic of a line without the suffix of its encoding.
fn bare(line: &str) -> String {
    let name = line.split(' ').next().unwrap_or_default();
    let suffixes = ["_e64_dpp", "_e64", "_e32", "_dpp", "_sdwa"];
    suffixes.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name).to_string()
}

fn collect() -> Coverage {
    let mut coverage =
        Coverage { rows: BTreeMap::new(), written: BTreeMap::new(), known: BTreeMap::new() };
    for chip in Chip::ALL {
        let lanes = if chip.is_cdna() { 64 } else { 32 };
        let families = families(chip, lanes);
        let lines: Vec<String> = families.iter().flat_map(|(_, lines)| lines.clone()).collect();
        let names = families.iter().flat_map(|(name, lines)| lines.iter().map(|_| *name));
        let bench = Bench::new(chip, lanes, &lines);
        for (line, family) in names.enumerate() {
            let Some(instruction) = bench.instruction(line) else { continue };
            coverage.written.entry(chip).or_default().insert(bare(&lines[line]));
            let paired = instruction.paired.as_deref();
            for instruction in [Some(instruction), paired].into_iter().flatten() {
                let row = coverage.rows.entry(instruction.mnemonic.clone()).or_default();
                row.family = family;
                row.chips.insert(chip);
                row.encodings.insert(encoding(instruction));
            }
        }
        coverage.known.insert(chip, known(chip, lanes));
    }
    coverage
}

/// The mnemonics that a chip has: without operands LLVM says what it misses, not that the
/// instruction is missing.
fn known(chip: Chip, lanes: u32) -> BTreeSet<&'static str> {
    let names: Vec<&str> = ALL.lines().collect();
    let lines: Vec<String> = names.iter().map(|name| name.to_string()).collect();
    let code = assemble(chip, lanes, &lines);
    let mut missing = BTreeSet::new();
    for (line, error) in code.errors {
        if error.contains("not supported on this GPU") || error.contains("invalid instruction") {
            missing.insert(line);
        }
    }
    let there = names.iter().enumerate().filter(|(line, _)| !missing.contains(line));
    there.map(|(_, name)| *name).collect()
}

fn outside(mnemonic: &str) -> Option<&'static str> {
    let found = OUTSIDE.iter().find(|(start, _)| mnemonic.starts_with(start));
    found.map(|(_, reason)| *reason)
}

/// What LLVM has on a chip, and this suite neither executes nor leaves out.
fn holes(coverage: &Coverage, chip: Chip) -> Vec<&'static str> {
    let executed = |name: &str| {
        coverage.rows.get(name).is_some_and(|row| row.chips.contains(&chip))
            || coverage.written[&chip].contains(name)
    };
    let known = coverage.known[&chip].iter().copied();
    known.filter(|name| !executed(&bare(name)) && outside(name).is_none()).collect()
}

fn render(coverage: &Coverage) -> String {
    let mut text = String::from(
        "# What the emulator is shown to execute\n\n\
         Written by the instruction conformance suite (`emulator/tests/conformance/`); do not edit.\n\
         `UPDATE_FIXTURES=1 cargo test --release -p waveloom-emulator --test conformance coverage`\n\
         writes it anew.\n\n\
         A row is a mnemonic as LLVM 22 prints it. `yes`: LLVM's assembler has it on the chip, and\n\
         the suite executes it there and compares every register and every byte of memory with an\n\
         independent statement of what it does. `-`: the chip does not have it (or has it by another\n\
         name). The encodings are those that at least one chip executes; the forms within them\n\
         (kinds of operands, modifiers, halves, other lanes' data, modes, execution masks) are in the\n\
         suite's tables.\n\n",
    );
    let chips: Vec<String> = Chip::ALL.iter().map(Chip::to_string).collect();
    let rule = "---|".repeat(chips.len());
    let _ = writeln!(text, "| mnemonics | {} |\n|---|{rule}", chips.join(" | "));
    let count = |f: &dyn Fn(Chip) -> usize| Chip::ALL.map(|chip| f(chip).to_string()).join(" | ");
    let executed =
        count(&|chip| coverage.rows.values().filter(|row| row.chips.contains(&chip)).count());
    let left =
        count(&|chip| coverage.known[&chip].iter().filter(|name| outside(name).is_some()).count());
    let open = count(&|chip| holes(coverage, chip).len());
    let _ = writeln!(text, "| executed | {executed} |\n| outside of compute | {left} |");
    let _ = writeln!(text, "| not executed | {open} |");
    let mut families: BTreeMap<&str, Vec<(&String, &Row)>> = BTreeMap::new();
    for (name, row) in &coverage.rows {
        families.entry(row.family).or_default().push((name, row));
    }
    for (family, rows) in families {
        let _ = writeln!(text, "\n## {family}\n");
        let _ = writeln!(text, "| mnemonic | {} | encodings |\n|---|{rule}---|", chips.join(" | "));
        for (name, row) in rows {
            let cells = Chip::ALL.map(|chip| match row.chips.contains(&chip) {
                true => "yes",
                false => "-",
            });
            let encodings: Vec<&str> =
                row.encodings.iter().copied().filter(|encoding| !encoding.is_empty()).collect();
            let _ = writeln!(text, "| {name} | {} | {} |", cells.join(" | "), encodings.join(", "));
        }
    }
    render_rest(coverage, &mut text);
    text
}

fn render_rest(coverage: &Coverage, text: &mut String) {
    text.push_str(
        "\n## Outside of compute\n\nInstructions that are no part of the suite, and why.\n\n",
    );
    let mut reasons: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for name in coverage.known.values().flatten() {
        if let Some(reason) = outside(name) {
            reasons.entry(reason).or_default().insert(name);
        }
    }
    for (reason, names) in reasons {
        let count = names.len();
        let start: Vec<&str> = names.into_iter().take(4).collect();
        let more = if count > 4 { format!(" and {} more", count - 4) } else { String::new() };
        let _ = writeln!(text, "- {reason}: `{}`{more}", start.join("`, `"));
    }
    let mut open: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for chip in Chip::ALL {
        for name in holes(coverage, chip) {
            open.entry(name).or_default().push(chip.to_string());
        }
    }
    if !open.is_empty() {
        text.push_str("\n## Not executed\n\n");
        for (name, chips) in open {
            let _ = writeln!(text, "- `{name}` on {}", chips.join(", "));
        }
    }
}

#[test]
fn coverage_table_is_current() {
    let text = render(&collect());
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/emulator-coverage.md");
    if std::env::var("UPDATE_FIXTURES").is_ok() {
        std::fs::write(&path, &text).expect("docs/emulator-coverage.md can be written");
        return;
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    let line = stored.lines().zip(text.lines()).find(|(stored, now)| stored != now);
    assert!(
        stored == text,
        "docs/emulator-coverage.md is not what the suite covers (first difference {line:?}); \
         UPDATE_FIXTURES=1 rewrites it"
    );
}
