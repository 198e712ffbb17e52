//! The toy model for GPUs: the plan of the same model with kernels of 32 work-items, of which the
//! decode step depends on nothing that changes from step to step.

use super::*;
use std::env;
use std::path::PathBuf;

/// The plan of the toy model for an architecture.
pub fn gpu_plan(architecture: &str) -> Plan {
    let mut plan = plan();
    plan.target = architecture.into();
    plan.requires = vec![architecture.into()];
    plan.weights = "gpu".into();
    plan.scratch_bytes = SCRATCH_COUNTERS;
    plan.programs = gpu_programs();
    let names = [
        "append",
        "mix",
        "predict",
        "sample",
        "decode_mix",
        "decode_predict",
        "fault",
        "forget",
        "slow_mix",
        "slow_decode_mix",
    ];
    let kernel = |name: &str| Kernel {
        name: name.into(),
        summary: "toy".into(),
        workgroup: 32,
        shared_bytes: 0,
        work: None,
        facts: None,
    };
    plan.kernels = names.map(kernel).into();
    if architecture.starts_with("sm_") {
        plan.kernels[1].shared_bytes = 64 << 10;
    }
    plan
}

fn gpu_programs() -> Vec<Program> {
    let launch = |kernel, grid: Expr, args: Vec<Arg>, writes: &[BufferId]| Launch {
        kernel,
        grid: Expr::CeilDiv(Box::new(grid), Box::new(Expr::from(32))),
        args,
        writes: writes.to_vec(),
    };
    let (vocab, length) = (Expr::from(i64::from(VOCAB)), Expr::Symbol(S));
    let buffers = |ids: &[BufferId]| ids.iter().map(|id| Arg::Buffer(*id)).collect::<Vec<_>>();
    let with = |ids: &[BufferId], rest: Vec<Arg>| [buffers(ids), rest].concat();
    let scalar = |expr: &Expr| Arg::Scalar(expr.clone());
    let appended = [TOKENS, POSITIONS, WEIGHT, CACHE];
    let append =
        |count: Expr| launch(0, count.clone(), with(&appended, vec![Arg::Scalar(count)]), &[CACHE]);
    let prefill = vec![
        append(Expr::Symbol(T)),
        launch(1, length.clone(), with(&[CACHE, MIXED], vec![scalar(&length)]), &[MIXED]),
        launch(
            2,
            vocab.clone(),
            with(&[MIXED, POSITIONS, LAST, LOGITS], vec![scalar(&length), scalar(&vocab)]),
            &[LOGITS],
        ),
    ];
    let sample = launch(
        3,
        1.into(),
        with(
            &[LOGITS, SAMPLING, TOKENS, POSITIONS, LAST, HISTORY],
            vec![Arg::Scratch, scalar(&vocab)],
        ),
        &[TOKENS, POSITIONS, LAST, HISTORY],
    );
    let decode = vec![
        append(1.into()),
        launch(4, Expr::Symbol(C), buffers(&[CACHE, MIXED, POSITIONS]), &[MIXED]),
        launch(
            5,
            vocab.clone(),
            with(&[MIXED, POSITIONS, LOGITS], vec![scalar(&vocab)]),
            &[LOGITS],
        ),
        sample.clone(),
    ];
    let program = |name: &str, launches| Program { name: name.into(), launches };
    vec![program("prefill", prefill), program("decode", decode), program("sample", vec![sample])]
}

/// A code object of the toy kernels; `None`, and a word about it, where no clang can make one.
pub fn gpu_code(folder: &Path, architecture: &str) -> Option<Vec<u8>> {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/toy/kernels.hip");
    let object = folder.join("kernels.hsaco");
    let here = Path::new("/usr/lib/llvm-22/bin/clang");
    let clang = if here.exists() { here } else { Path::new("clang-22") };
    let status = Command::new(clang)
        .args(["-x", "hip", "--offload-device-only", "--no-gpu-bundle-output", "-nogpulib"])
        .args(["-nogpuinc", "-O2"])
        .arg(format!("--offload-arch={architecture}"))
        .arg(source)
        .arg("-o")
        .arg(&object)
        .status();
    match status {
        Ok(status) => assert!(status.success(), "clang fails on {source}"),
        Err(error) => {
            println!("skipped: no clang for the toy kernels of GPUs: {error}");
            return None;
        }
    }
    Some(std::fs::read(object).unwrap())
}

/// The emulated GPU's library: `WAVELOOM_EMULATOR_LIBRARY` names it, or it was built beside this
/// test, as `cargo test --workspace` does. `None`, and a word about it, where there is none.
pub fn emulator() -> Option<PathBuf> {
    let here = env::current_exe().unwrap();
    let folder = here.parent().unwrap();
    let named = env::var_os("WAVELOOM_EMULATOR_LIBRARY").map(PathBuf::from);
    let beside = [folder.join("libamdhip64.so"), folder.join("../libamdhip64.so")];
    let found = named.into_iter().chain(beside).find(|place| place.exists());
    if found.is_none() {
        println!("skipped: no emulated GPU; `cargo build --release -p waveloom-emulator-hip`");
    }
    found
}
