//! Compiled models for NVIDIA GPUs: what can be read off the PTX of every kernel of the real model, and
//! off the persistent one. Where there is a `ptxas` (environment variable `PTXAS`, or on the path), it
//! assembles that.

use crate::support::{compiled, compiled_as, file, smollm2};
use std::path::Path;
use std::process::Command;
use waveloom_codegen_hip::DecodeForm;
use waveloom_ir::DType;
use waveloom_passes::WeightDtype;
use waveloom_plan::{Artifact, Plan};

/// Every NVIDIA GPU.
const CHIPS: [&str; 3] = ["sm_80", "sm_89", "sm_90"];
/// The one with warpgroups, whose kernels differ in products alone.
const WARPGROUPS: &str = "sm_90a";

#[test]
fn the_ptx_of_every_kernel_is_what_was_planned() {
    let Some(path) = smollm2() else { return };
    for dtype in [WeightDtype::Keep, WeightDtype::Convert(DType::BF16)] {
        let mut chips = CHIPS.to_vec();
        chips.extend((dtype != WeightDtype::Keep).then_some(WARPGROUPS));
        let compiled = compiled(&path, dtype, &chips.join(","));
        let artifact = Artifact::open(&compiled.path).expect("the artifact opens");
        for chip in chips {
            let code = artifact.code(chip).expect("its code");
            let ptx = std::str::from_utf8(code).expect("PTX is text");
            assert!(ptx.contains(&format!(".target {chip}")), "{chip}");
            assert!(!ptx.contains(".local"), "{chip} {dtype:?}: private memory");
            for kernel in artifact.plan(chip).expect("its plan").kernels {
                let what = format!("{chip} {dtype:?}: {}", kernel.name);
                let entry = format!(".visible .entry {}(", kernel.name);
                assert_eq!(ptx.matches(&entry).count(), 1, "{what}");
                let facts = kernel.facts.expect("facts of a GPU's kernel");
                assert_eq!([facts.spills, facts.private_bytes], [0, 0], "{what}");
                assert!(facts.planned_waves_per_simd >= 1, "{what}");
                let Some(hot) = facts.hot_loop else { continue };
                let name = &kernel.name;
                if kernel.shared_bytes > 0 {
                    let text = self::entry(ptx, name);
                    assert!(hot.matrix > 0 && facts.lds_bytes == kernel.shared_bytes, "{what}");
                    assert!(text.contains("cp.async.bulk") && text.contains("wgmma"), "{what}");
                } else if name.starts_with("gemm") || name.starts_with("attention") {
                    assert!(hot.matrix > 0 && hot.wide_loads > 0, "{what}: {hot:?}");
                }
                if name.starts_with("gemv") {
                    assert_eq!(hot.narrow_loads, 0, "{what}: {hot:?}");
                }
            }
        }
    }
}

/// The text of a kernel in PTX, from its parameters on.
fn entry<'a>(ptx: &'a str, kernel: &str) -> &'a str {
    let (_, rest) = ptx.split_once(&format!(".visible .entry {kernel}(")).expect("its entry");
    rest.split_once("\n}\n").map_or(rest, |(text, _)| text)
}

/// The number that follows a directive.
fn directive(text: &str, name: &str) -> u32 {
    let (_, rest) = text.split_once(name).unwrap_or_else(|| panic!("no {name}"));
    rest.trim_start().split([',', '\n']).next().and_then(|n| n.parse().ok()).expect("a number")
}

/// What NVIDIA's assembler says of a kernel's registers and memory, if there is one.
fn assembled(ptx: &str, chip: &str, kernel: &str) -> Option<String> {
    let ptxas = std::env::var_os("PTXAS").unwrap_or("ptxas".into());
    if Command::new(&ptxas).arg("--version").output().is_err() {
        eprintln!("skipped: no ptxas: set PTXAS, or put it on the path");
        return None;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let [input, output] = ["kernels.ptx", "kernels.cubin"].map(|name| folder.path().join(name));
    std::fs::write(&input, ptx).expect("it is written");
    let run = Command::new(ptxas).args(["-v", "-arch", chip, "-o"]).args([output, input]).output();
    let run = run.expect("it runs");
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(run.status.success(), "{said}");
    let (_, rest) = said.split_once(&format!("entry function '{kernel}'")).expect("the kernel");
    Some(rest.split("Compiling entry").next().unwrap_or(rest).to_string())
}

/// A decode step as one kernel: as many streams as the chip has multiprocessors, registers bounded so
/// that each holds its workgroup, and all that orders streams.
fn check_persistent(path: &Path, chips: &[&str]) {
    let compiled =
        compiled_as(path, WeightDtype::Keep, &chips.join(","), DecodeForm::Persistent(None));
    let artifact = Artifact::open(&compiled.path).expect("the artifact opens");
    for chip in chips {
        let plan: Plan = artifact.plan(chip).expect("its plan");
        let step = plan.persistent.as_ref().expect("a persistent step");
        let multiprocessors = match *chip {
            "sm_80" => 108,
            "sm_89" => 128,
            _ => 132,
        };
        assert_eq!(step.streams.len(), multiprocessors, "{chip}");
        let kernel = &plan.kernels[step.kernel];
        let ptx = std::str::from_utf8(artifact.code(chip).expect("its code")).expect("text");
        let text = entry(ptx, &kernel.name);
        assert_eq!(directive(text, ".reqntid"), kernel.workgroup, "{chip}");
        let registers = directive(text, ".maxnreg").next_multiple_of(8);
        assert!(registers * kernel.workgroup <= 64 << 10, "{chip}: {registers} registers");
        assert!(kernel.facts.as_ref().is_some_and(|facts| facts.waves_per_simd > 0), "{chip}");
        // The streams ask where they are; bodies are told.
        assert_eq!(text.matches("%ctaid.x").count(), 1, "{chip}");
        assert!(!text.contains(".local"), "{chip}: private memory");
        let in_order = |words: &[&str]| {
            words.iter().fold(text, |rest, word| {
                rest.split_once(word).unwrap_or_else(|| panic!("{chip}: no {word} of {words:?}")).1
            });
        };
        in_order(&["ld.relaxed.gpu", "nanosleep", "fence.acq_rel.gpu", "bar"]);
        assert!(text.contains("prefetch.global.L2"), "{chip}");
        in_order(&["mma.sync", "bar.sync", "fence.acq_rel.gpu", "add.u32", "st.release.gpu"]);
        if let Some(said) = assembled(ptx, chip, &kernel.name) {
            assert!(said.contains("0 bytes stack frame, 0 bytes spill stores"), "{chip}: {said}");
        }
    }
}

#[test]
fn tiny_persistent_steps_fit() {
    check_persistent(&file("fixtures/tiny/llama"), &CHIPS);
    check_persistent(&file("fixtures/tiny/gguf/mixed.gguf"), &["sm_90"]);
}

#[test]
fn the_persistent_step_of_smollm2_fits() {
    let Some(path) = smollm2() else { return };
    check_persistent(&path, &["sm_90"]);
}

/// Launches that may overlap: every kernel of the decode step waits for the launches before it, on all
/// paths and before it reads or writes what is not its own, and products have loads of weights under
/// way by then (if their rows are `long_rows`: shorter than what lanes load at once is a tail). Where
/// launches shall not overlap, and on chips that cannot do it, no kernel waits.
fn check_overlapping(path: &Path, chips: &str, long_rows: bool) {
    let apart = compiled(path, WeightDtype::Keep, &CHIPS.join(","));
    let apart = Artifact::open(&apart.path).expect("the artifact opens");
    let overlapping = compiled_as(path, WeightDtype::Keep, chips, DecodeForm::Overlapping);
    let artifact = Artifact::open(&overlapping.path).expect("the artifact opens");
    for chip in chips.split(',').filter(|chip| *chip != "sm_90") {
        assert_eq!(artifact.code(chip).ok(), apart.code(chip).ok(), "{chip}");
    }
    let words = |artifact: &Artifact| {
        let code = artifact.code("sm_90").expect("its code");
        String::from_utf8_lossy(code).matches("griddepcontrol").count()
    };
    assert_eq!(words(&apart), 0);
    assert!(words(&artifact) > 0);
    let plan = artifact.plan("sm_90").expect("its plan");
    let ptx = std::str::from_utf8(artifact.code("sm_90").expect("its code")).expect("text");
    let decode = &plan.programs[plan.decode_loop.decode];
    for launch in &decode.launches {
        let kernel = &plan.kernels[launch.kernel];
        assert!(kernel.facts.as_ref().is_some_and(|facts| facts.waits), "{}", kernel.name);
        let text = entry(ptx, &kernel.name);
        let (before, _) = text.split_once("griddepcontrol.wait").expect("a wait");
        let early = before.matches("ld.global.nc.L1::no_allocate").count();
        let product = kernel.name.starts_with("gemv");
        let right = if long_rows { product == (early > 0) } else { product || early == 0 };
        assert!(right, "{}: {early} loads before the wait", kernel.name);
    }
    assembled(ptx, "sm_90", "sample");
}

#[test]
fn overlapping_launches_wait() {
    check_overlapping(&file("fixtures/tiny/llama"), "sm_89,sm_90", false);
    check_overlapping(&file("fixtures/tiny/gguf/mixed.gguf"), "sm_90", false);
}

#[test]
fn overlapping_launches_of_smollm2_wait() {
    let Some(path) = smollm2() else { return };
    check_overlapping(&path, "sm_90", true);
}
