//! The examples run as their headers say.

use std::path::Path;
use std::process::Command;

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().expect("the example starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_model_is_compiled_and_run() {
    let dir = tempfile::tempdir().expect("a directory");
    let artifact = dir.path().join("model.wlm");
    let artifact = artifact.to_str().expect("utf-8");
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny/llama");
    run(env!("CARGO_BIN_EXE_compile_model"), &[model.to_str().expect("utf-8"), artifact]);
    let text = run(env!("CARGO_BIN_EXE_run_artifact"), &[artifact, "a question"]);
    assert!(!text.is_empty());
}

#[test]
fn a_graph_is_printed_after_each_phase() {
    let text = run(env!("CARGO_BIN_EXE_build_graph"), &[]);
    for part in ["matmul", "gemm"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}
