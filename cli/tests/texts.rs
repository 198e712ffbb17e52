//! What the commands print for people, as a whole: with numbers, which depend on the machine or change
//! with every kernel, blanked out.

use std::path::Path;
use std::process::Command;

/// Standard output of a call that succeeds, every run of digits a `#`, columns one space apart.
fn printed(args: &[&str]) -> String {
    let output =
        Command::new(env!("CARGO_BIN_EXE_waveloom")).args(args).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {said}");
    blanked(&String::from_utf8_lossy(&output.stdout))
}

fn blanked(text: &str) -> String {
    let mut blanked = String::new();
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        blanked.push_str(&line[..indent]);
        let mut words = vec![];
        for word in line.split_whitespace() {
            let mut new = String::new();
            for c in word.chars() {
                match c {
                    c if !c.is_ascii_digit() => new.push(c),
                    _ if new.ends_with('#') => {}
                    _ => new.push('#'),
                }
            }
            words.push(new.replace("#.#", "#"));
        }
        blanked.push_str(&words.join(" "));
        blanked.push('\n');
    }
    blanked
}

/// Without the lines that name the machine or a unit that depends on its speed.
fn without(text: &str, words: &[&str]) -> String {
    let kept = text.lines().filter(|line| !words.iter().any(|word| line.contains(word)));
    kept.map(|line| format!("{line}\n")).collect()
}

#[test]
fn reports_of_a_compiled_file() {
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("model.wlm");
    let file = path.to_str().expect("utf-8");
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny/llama");
    let model = model.to_str().expect("utf-8");
    let dump = folder.path().join("dump");
    let dump = dump.to_str().expect("utf-8");
    let args = ["compile", model, "-o", file, "--target", "cpu-v3", "--dump-phases-to", dump];
    let here = |text: String| text.replace(&blanked(file).trim_end().to_string(), "FILE");
    let compiled = without(&here(printed(&args)), &["import"]);
    insta::assert_snapshot!("compile", compiled.replace(" s\n", " ms\n"));
    let inspected = without(&here(printed(&["inspect", file])), &["blake"]);
    insta::assert_snapshot!("inspect", inspected);
    insta::assert_snapshot!("inspect_kernels", printed(&["inspect", file, "--kernels"]));
    insta::assert_snapshot!("inspect_memory", printed(&["inspect", file, "--memory"]));
    let kernel = format!("{dump}/cpu-v3/kernels/gemm_f32_64_k64.o");
    let bench = printed(&["bench-kernel", &kernel, "--repeat", "1"]);
    insta::assert_snapshot!("bench_kernel", without(&bench, &["kernels/", " on "]));
    let diff = printed(&["diff", file, file]);
    assert_eq!(here(diff), "FILE and FILE are equal\n");
}

#[test]
fn reports_of_checks_and_of_a_target() {
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("model.wlm");
    let file = path.to_str().expect("utf-8");
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny/llama");
    let model = model.to_str().expect("utf-8");
    printed(&["compile", model, "-o", file, "--target", "cpu-v3", "--verify-each"]);
    let tested = printed(&["selftest", file, "--device", "cpu"]);
    insta::assert_snapshot!("selftest", without(&tested, &[" on "]));
    let verified = printed(&["verify", model, "--target", "cpu-v3", "--bisect"]);
    insta::assert_snapshot!("verify", without(&verified, &[" on "]));
    let explained = printed(&["explain-target", model, "--target", "gfx942"]);
    insta::assert_snapshot!("explain_target", explained);
}
