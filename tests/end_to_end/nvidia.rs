//! Compiled models for NVIDIA GPUs: what can be read off the PTX of every kernel of the real model.

use crate::support::{compiled, smollm2};
use waveloom_ir::DType;
use waveloom_passes::WeightDtype;
use waveloom_plan::Artifact;

/// Every NVIDIA GPU.
const CHIPS: [&str; 3] = ["sm_80", "sm_89", "sm_90"];

#[test]
fn the_ptx_of_every_kernel_is_what_was_planned() {
    let Some(path) = smollm2() else { return };
    for dtype in [WeightDtype::Keep, WeightDtype::Convert(DType::BF16)] {
        let compiled = compiled(&path, dtype, &CHIPS.join(","));
        let artifact = Artifact::open(&compiled.path).expect("the artifact opens");
        for chip in CHIPS {
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
                if name.starts_with("gemm") || name.starts_with("attention") {
                    assert!(hot.matrix > 0 && hot.wide_loads > 0, "{what}: {hot:?}");
                }
                if name.starts_with("gemv") {
                    assert_eq!(hot.narrow_loads, 0, "{what}: {hot:?}");
                }
            }
        }
    }
}
