//! Kernels for NVIDIA GPUs as PTX, for which there is no emulator: what its text shows and, where
//! there is a `ptxas` (named by the environment variable `PTXAS`, or on the path), that NVIDIA's own
//! assembler takes it and spills nothing.

use super::sample;
use super::testing::kernel;
use crate::kernels::{KernelSource, Variant};
use crate::link::link_shared_object;
use crate::target::Target;
use crate::{CompiledKernel, compile};
use std::path::Path;
use std::process::Command;
use waveloom_ir::{
    AttentionAttr, DType, Dim, Expr, F32, GemmAttr, GemmOutput, Layout, Op, Prologue, Store,
    SymbolId, Type,
};
use waveloom_plan::CodeFacts;

const CHIPS: [&str; 4] = ["sm_80", "sm_89", "sm_90", "sm_90a"];
/// The one whose warpgroups multiply.
const WARPGROUPS: &str = "sm_90a";
/// Most bytes of a work-item's registers that heads of 256 elements spill, which nothing else does:
/// their sums alone are 128 registers of 255. As many were seen, of ptxas 12.9.
const SPILLED_BY_LONG_HEADS: u32 = 200;
const T: Dim = Dim::Symbol(SymbolId(0));
const C: Dim = Dim::Symbol(SymbolId(2));

fn attention(
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    variant: Variant,
    chip: &Target,
) -> KernelSource {
    let scale = F32(0.125);
    let attr = AttentionAttr { heads, kv_heads, head_dim, scale, window: None, softcap: None };
    let row = [C, Dim::Const(kv_heads.into()), Dim::Const(head_dim.into())];
    let cache = |layout| Type { layout, ..Type::new(DType::F16, row) };
    let width = u64::from(heads * head_dim);
    let types = [
        Type::f32([T, Dim::Const(width)]),
        cache(Layout::KeyBlocks(32)),
        cache(Layout::ValueBlocks(32)),
        Type::new(DType::I32, [T]),
    ];
    kernel(Op::Attention { attr }, &types, variant, chip)
}

/// A product with one weight.
fn plain_gemm(dtype: DType, k: u64, n: u64, chip: &Target) -> KernelSource {
    let outputs = vec![GemmOutput { expr: Expr::Acc(0), store: Store::Dense }];
    let tiles = waveloom_ir::Tiles::default();
    let attr = GemmAttr { weights: 1, prologue: None, outputs, tiles };
    let types = [Type::f32([T, Dim::Const(k)]), Type::new(dtype, [n, k].map(Dim::Const))];
    kernel(Op::Gemm { attr }, &types, Variant::Prefill, chip)
}

/// Gate and up of a feed-forward network behind a norm.
fn gemm(dtype: DType, k: u64, n: u64, variant: Variant, chip: &Target) -> KernelSource {
    let product = Expr::binary(waveloom_ir::BinaryOp::Mul, Expr::Acc(0), Expr::Acc(1));
    let attr = GemmAttr {
        weights: 2,
        prologue: Some(Prologue::RmsNorm { eps: F32(1e-5) }),
        outputs: vec![GemmOutput { expr: product, store: Store::Dense }],
        tiles: waveloom_ir::Tiles::default(),
    };
    let weight = Type::new(dtype, [n, k].map(Dim::Const));
    let types = [Type::f32([T, Dim::Const(k)]), Type::f32([Dim::Const(k)]), weight.clone(), weight];
    kernel(Op::Gemm { attr }, &types, variant, chip)
}

/// Compiles kernels and, where there is NVIDIA's assembler, has it assemble all of them.
fn check(
    kernels: Vec<KernelSource>,
    chip: &Target,
    most_spilled: u32,
) -> Vec<(KernelSource, CodeFacts)> {
    let compiled: Vec<CompiledKernel> = kernels
        .iter()
        .enumerate()
        .map(|(i, source)| {
            let text = source.text.named(&format!("{}_{i}", source.stem));
            let compiled = compile(&text, chip, false);
            compiled.unwrap_or_else(|e| panic!("{}: {}: {e}", chip.name(), source.summary))
        })
        .collect();
    let text = link_shared_object(&compiled, chip).expect("one text");
    let text = String::from_utf8(text).expect("PTX");
    for (source, kernel) in kernels.iter().zip(&compiled) {
        let what = format!("{}: {}", chip.name(), source.summary);
        let entry = text.split(&format!(".visible .entry {}(", kernel.name)).nth(1);
        let entry = entry.unwrap_or_else(|| panic!("{what}: no entry point"));
        let parameters = entry.split(')').next().unwrap_or("");
        assert_eq!(parameters.matches(".param .u64").count(), source.args.len(), "{what}");
        let facts = kernel.facts.as_ref().expect("facts of a GPU's kernel");
        assert_eq!([facts.spills, facts.private_bytes], [0; 2], "{what}");
        let asked = source.text.dynamic_shared;
        let most = if asked > 0 { 227 << 10 } else { 48 << 10 };
        assert!(facts.lds_bytes <= most, "{what}: {facts:?}");
        assert!(asked == 0 || asked == facts.lds_bytes, "{what}: {facts:?}");
    }
    assemble(&text, chip.name(), most_spilled);
    let facts = compiled.into_iter().map(|kernel| kernel.facts.expect("facts"));
    kernels.into_iter().zip(facts).collect()
}

fn assemble(text: &str, chip: &str, most_spilled: u32) {
    let ptxas = std::env::var_os("PTXAS").unwrap_or("ptxas".into());
    if Command::new(&ptxas).arg("--version").output().is_err() {
        eprintln!("skipped: no ptxas: set PTXAS, or put it on the path");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let [input, output] = ["kernels.ptx", "kernels.cubin"].map(|name| folder.path().join(name));
    std::fs::write(&input, text).expect("it is written");
    let said =
        run(Command::new(ptxas).args(["-v", "-arch", chip, "-o"]).arg(output).arg(&input), &input);
    for line in said.lines().filter(|l| l.contains("Compiling entry") || l.contains("Used ")) {
        eprintln!("{line}");
    }
    // `    8 bytes stack frame, 8 bytes spill stores, 16 bytes spill loads`
    for line in said.lines().filter(|line| line.contains("spill stores")) {
        let bytes = line.trim().split(' ').next().and_then(|bytes| bytes.parse::<u32>().ok());
        assert!(bytes.is_some_and(|bytes| bytes <= most_spilled), "{said}");
    }
    // Products of warpgroups that wait for each other, `setmaxnreg` that is ignored: all that it warns
    // of costs time.
    assert!(!said.contains("warning"), "{said}");
    assert!(!said.contains("wgmma.mma_async instructions are serialized"), "{said}");
}

/// What a command says, if it succeeds.
fn run(command: &mut Command, input: &Path) -> String {
    let output = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success()
        && let Some(folder) = std::env::var_os("WAVELOOM_DUMP")
    {
        std::fs::copy(input, Path::new(&folder).join("kernels.ptx")).expect("it is copied");
    }
    assert!(output.status.success(), "{said}");
    said
}

#[test]
fn attention_has_matrix_operations() {
    for chip in CHIPS.map(super::testing::target) {
        let both = |(heads, kv_heads, head_dim)| {
            [Variant::Prefill, Variant::Decode]
                .map(|variant| attention(heads, kv_heads, head_dim, variant, &chip))
        };
        let shapes = [(9, 3, 64), (32, 8, 128), (4, 2, 24), (4, 4, 72)];
        let mut checked = check(shapes.into_iter().flat_map(both).collect(), &chip, 0);
        checked.extend(check(both((8, 1, 256)).into(), &chip, SPILLED_BY_LONG_HEADS));
        for (source, facts) in checked {
            let hot = facts.hot_loop.expect("a walk over blocks");
            assert!(hot.matrix > 0, "{}: {}: {hot:?}", chip.name(), source.summary);
            assert_eq!(hot.narrow_loads, 0, "{}: {}: {hot:?}", chip.name(), source.summary);
        }
    }
}

/// Launches write the cache, so it is not loaded by what never looks whether others wrote: in a
/// persistent kernel such a launch runs in the same kernel, and launches can overlap.
#[test]
fn attention_loads_no_constants() {
    let chip = super::testing::target("sm_80");
    for variant in [Variant::Prefill, Variant::Decode] {
        let source = attention(9, 3, 64, variant, &chip);
        let ptx = compile(&source.text, &chip, false).expect("PTX").object;
        let ptx = String::from_utf8(ptx).expect("text");
        assert!(ptx.contains("ld.global.v4.b32") && !ptx.contains(".nc"), "{}", source.summary);
    }
}

#[test]
fn products_load_weights_16_bytes_wide() {
    use DType::{BF16, F16, Q4_0, Q4_1, Q8_0};
    for chip in CHIPS.map(super::testing::target) {
        let (mut many, mut one) = (vec![], vec![]);
        for dtype in [F16, BF16, Q8_0, Q4_0, Q4_1] {
            for (k, n) in [(576, 1536), (2048, 8192)] {
                many.push((dtype, gemm(dtype, k, n, Variant::Prefill, &chip)));
            }
            for (k, n) in [(576, 1536), (8192, 2048)] {
                one.push(gemm(dtype, k, n, Variant::Decode, &chip));
            }
        }
        one.push(gemm(DType::F32, 576, 1536, Variant::Prefill, &chip));
        one.push(gemm(DType::F32, 576, 1536, Variant::Decode, &chip));
        let (dtypes, many): (Vec<DType>, Vec<KernelSource>) = many.into_iter().unzip();
        for ((source, facts), dtype) in check(many, &chip, 0).into_iter().zip(dtypes) {
            if source.text.dynamic_shared > 0 {
                // By copies, or beside them: `products_by_warpgroups`.
                continue;
            }
            let hot = facts.hot_loop.expect("a loop over K");
            assert!(hot.matrix > 0, "{}: {}: {hot:?}", chip.name(), source.summary);
            assert!(hot.wide_loads > 0, "{}: {}: {hot:?}", chip.name(), source.summary);
            // Scales are narrow.
            if !dtype.is_block() {
                assert_eq!(hot.narrow_loads, 0, "{}: {}: {hot:?}", chip.name(), source.summary);
            }
        }
        for (source, facts) in check(one, &chip, 0) {
            // The shorter K is no more than the loads ahead of a loop.
            let Some(hot) = facts.hot_loop.filter(|_| source.stem.ends_with("k8192")) else {
                continue;
            };
            assert!(hot.wide_loads > 0, "{}: {}: {hot:?}", chip.name(), source.summary);
        }
    }
}

/// Both kernels of a product by warpgroups: no spills with the most sums that a lane may have, all
/// products in the loop over K.
#[test]
fn products_by_warpgroups() {
    let chip = super::testing::target(WARPGROUPS);
    for dtype in [DType::BF16, DType::F16, DType::Q4_1, DType::Q4_0, DType::Q8_0] {
        let sources = [
            gemm(dtype, 4096, 14336, Variant::Prefill, &chip),
            plain_gemm(dtype, 4096, 14336, &chip),
            plain_gemm(dtype, 14336, 4096, &chip),
        ];
        let before = sources.iter().map(|source| source.before.as_deref().cloned());
        let before = before.collect::<Option<Vec<_>>>().expect("kernels before");
        let kernels = before.into_iter().chain(sources).collect();
        for (source, facts) in check(kernels, &chip, 0) {
            let what = format!("{}: {facts:?}", source.summary);
            let hot = facts.hot_loop.as_ref().expect("a loop over K");
            match source.text.dynamic_shared {
                0 => assert!(hot.wide_loads > 0 && hot.narrow_loads == 0, "{what}"),
                _ => assert!(hot.matrix >= 4 && facts.lds_bytes > 64 << 10, "{what}"),
            }
        }
    }
}

#[test]
fn the_other_kernels_are_good_ptx() {
    for chip in CHIPS.map(super::testing::target) {
        let Target::Gpu(gpu) = &chip else { panic!("a GPU") };
        let row = Type::f32([T, Dim::Const(576)]);
        let kernels = vec![
            sample::kernel(49152, gpu).expect("a sampler"),
            kernel(
                Op::Norm { eps: F32(1e-5) },
                &[row.clone(), Type::f32([Dim::Const(576)])],
                Variant::Prefill,
                &chip,
            ),
            kernel(
                Op::Embed {},
                &[Type::new(DType::F16, [1000, 576].map(Dim::Const)), Type::new(DType::I32, [T])],
                Variant::Prefill,
                &chip,
            ),
        ];
        check(kernels, &chip, 0);
    }
}
