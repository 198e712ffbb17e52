//! The two programs as a user meets them: a tiny model through every subcommand, and what bad input
//! gets: one line that says what and where, exit code 1, nothing half-written.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

const WAVELOOM: &str = env!("CARGO_BIN_EXE_waveloom");
const WAVELOOM_RUN: &str = env!("CARGO_BIN_EXE_waveloom-run");

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny").join(name)
}

fn run(program: &str, args: &[&str]) -> Output {
    Command::new(program).args(args).output().expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Standard output of a call that succeeds.
fn succeed(program: &str, args: &[&str]) -> String {
    let output = run(program, args);
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// The error line of a call that must fail.
fn fail(program: &str, args: &[&str]) -> String {
    let output = run(program, args);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{args:?}: {stderr}");
    let errors: Vec<&str> = stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{args:?}: {stderr}");
    errors[0].to_string()
}

/// The tiny llama, compiled into a directory of its own.
fn compiled(dir: &TempDir) -> String {
    let output = path(dir, "model.wlm");
    let model = fixture("llama");
    succeed(WAVELOOM, &["compile", model.to_str().expect("utf-8"), "-o", &output]);
    output
}

fn path(dir: &TempDir, name: &str) -> String {
    dir.path().join(name).to_str().expect("utf-8").to_string()
}

fn entries(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("it lists").map(|entry| entry.expect("an entry"));
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_model_goes_through_every_subcommand() {
    let dir = tempfile::tempdir().expect("a directory");
    let model = compiled(&dir);
    for program in [WAVELOOM, WAVELOOM_RUN] {
        let logits = path(&dir, "logits.safetensors");
        let args = ["run", &model, "--tokens", "5,6,7", "-n", "4", "--greedy", "--ignore-eos"];
        let args = [&args[..], &["--json", "--logits", &logits]].concat();
        let report: serde_json::Value =
            serde_json::from_str(&succeed(program, &args)).expect("it is JSON");
        assert_eq!(report["tokens"].as_array().map(Vec::len), Some(4));
        assert_eq!(report["finish_reason"], "length");
        for key in
            ["prompt_tokens", "text", "prefill_tok_s", "decode_tok_s", "peak_bytes", "load_s"]
        {
            assert!(report.get(key).is_some(), "{key}");
        }
        let bytes = fs::read(&logits).expect("logits were written");
        let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("they are safetensors");
        assert_eq!(tensors.tensor("logits").expect("the tensor").shape(), [4, 320]);

        let bench = ["bench", &model, "--prompt-tokens", "8", "--gen-tokens", "4", "--json"];
        let report: serde_json::Value =
            serde_json::from_str(&succeed(program, &bench)).expect("it is JSON");
        assert!(report["decode_tok_s"]["median"].as_f64().is_some_and(|rate| rate > 0.0));
        assert!(succeed(program, &["inspect", &model]).contains("cpu"));
        assert!(succeed(program, &["inspect", &model, "--plan"]).contains("program decode"));
        assert!(succeed(program, &["devices"]).contains("cpu"));
    }
    assert!(succeed(WAVELOOM, &["targets"]).contains("cpu-v3"));
}

/// A configuration of the examples, with a context that makes a small KV cache.
fn example_config(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/configs").join(name);
    path.to_str().expect("utf-8").to_string()
}

#[test]
fn synthetic_weights_need_a_configuration_and_no_more() {
    let dir = tempfile::tempdir().expect("a directory");
    let model = path(&dir, "model.wlm");
    let config = fixture("llama").join("config.json");
    let config = config.to_str().expect("utf-8");
    let synthetic = ["--synthetic-weights", "7"];
    let compile = |model: &str, output: &str, options: &[&str]| {
        succeed(WAVELOOM, &[&["compile", model, "-o", output], options].concat())
    };
    let summary = compile(config, &model, &[&synthetic[..], &["--dtype", "q4_0"]].concat());
    assert!(summary.contains("synthetic weights"), "{summary}");
    let run = ["run", &model, "--tokens", "5,6,7", "-n", "4", "--ignore-eos", "--json"];
    let report: serde_json::Value =
        serde_json::from_str(&succeed(WAVELOOM_RUN, &run)).expect("it is JSON");
    assert_eq!(report["tokens"].as_array().map(Vec::len), Some(4));
    let prompt = fail(WAVELOOM_RUN, &["run", &model, "-p", "hello"]);
    assert!(prompt.contains("no tokenizer: give token ids"), "{prompt}");
    let inspection = succeed(WAVELOOM_RUN, &["inspect", &model]);
    assert!(inspection.contains("synthetic with seed 7"), "{inspection}");
    assert!(succeed(WAVELOOM_RUN, &["inspect", &model, "--plan"]).contains("random bytes"));
    let bench = ["bench", &model, "--prompt-tokens", "8", "--gen-tokens", "4", "--repeat", "1"];
    assert!(succeed(WAVELOOM_RUN, &bench).contains("decode"));

    // The same bytes from the same seed; a directory's configuration, too.
    let again = path(&dir, "again.wlm");
    let directory = fixture("llama");
    let from_directory = directory.to_str().expect("utf-8");
    compile(from_directory, &again, &[&synthetic[..], &["--dtype", "q4_0"]].concat());
    assert!(fs::read(&again).expect("written") == fs::read(&model).expect("written"));

    let refused = path(&dir, "refused.wlm");
    let alone = fail(WAVELOOM, &["compile", config, "-o", &refused]);
    assert!(alone.contains("has no weights"), "{alone}");
    let gguf = fixture("gguf/llama.gguf");
    let gguf = gguf.to_str().expect("utf-8");
    let other = fail(WAVELOOM, &["compile", gguf, "-o", &refused, "--synthetic-weights", "1"]);
    assert!(other.contains("give a `config.json`"), "{other}");
    assert!(!Path::new(&refused).exists());
}

/// The shape of Llama 3.1 8B in 4-bit weights: `inspect` shows what it takes.
#[test]
fn inspect_shows_the_memory_of_a_large_shape() {
    let dir = tempfile::tempdir().expect("a directory");
    let model = path(&dir, "large.wlm");
    let config = example_config("Llama-3.1-8B.json");
    let options = ["--synthetic-weights", "1", "--dtype", "q4_0", "--max-context", "4096"];
    let summary = [&["compile", &config, "-o", &model, "--json"], &options[..]].concat();
    let summary: serde_json::Value =
        serde_json::from_str(&succeed(WAVELOOM, &summary)).expect("it is JSON");
    println!("compiled in {} s", summary["seconds"]);
    assert_eq!(summary["synthetic_weights"], 1);
    assert!(summary["file_bytes"].as_u64().is_some_and(|bytes| bytes < 4 << 20));
    let inspection = succeed(WAVELOOM_RUN, &["inspect", &model, "--json"]);
    let inspection: serde_json::Value = serde_json::from_str(&inspection).expect("it is JSON");
    let memory = &inspection["targets"][0]["memory"];
    // 18 bytes for 32 of 8 029 995 008 elements of matrices; 65 norms of 4096, 64 frequencies.
    assert_eq!(memory["constants"], 8_029_995_008u64 / 32 * 18 + 4 * (65 * 4096 + 64));
    // 32 layers, keys and values, 8 heads of 128, two bytes.
    assert_eq!(memory["state"], 32 * 2 * 8 * 128 * 2 * 4096);
}

#[test]
fn compiling_twice_gives_the_same_bytes() {
    let (first, second) = (tempfile::tempdir(), tempfile::tempdir());
    let read = |dir: TempDir| fs::read(compiled(&dir)).expect("it was written");
    assert!(read(first.expect("a directory")) == read(second.expect("a directory")));
}

#[test]
fn a_flipped_byte_anywhere_is_an_error_that_names_the_section() {
    let dir = tempfile::tempdir().expect("a directory");
    let model = compiled(&dir);
    let bytes = fs::read(&model).expect("it was written");
    let broken = path(&dir, "broken.wlm");
    for part in 0..40 {
        let at = bytes.len() * part / 40;
        let mut changed = bytes.clone();
        changed[at] ^= 0x10;
        fs::write(&broken, changed).expect("it is written");
        // The self-test checks what running would never read, too.
        let error = fail(WAVELOOM_RUN, &["selftest", &broken]);
        assert!(error.contains("section") || error.contains("header"), "byte {at}: {error}");
    }
    fs::write(&broken, &bytes[..bytes.len() / 2]).expect("it is written");
    fail(WAVELOOM_RUN, &["run", &broken, "--tokens", "1,2", "-n", "1"]);
}

/// What a target does with a model, of formats that need conversion, on a machine with few
/// instructions and on a GPU.
#[test]
fn targets_explain_themselves() {
    let model = fixture("gguf/mixed.gguf").display().to_string();
    let explain = |target: &str| succeed(WAVELOOM, &["explain-target", &model, "--target", target]);
    let says = |target: &str, parts: &[&str]| {
        let said = explain(target);
        parts.iter().for_each(|part| assert!(said.contains(part), "{part}: {said}"));
    };
    says("cpu-v3", &["none: no VNNI", "q5_0 -> q8_0: no kernel", "one kernel: not available"]);
    says("gfx1100", &["on f32: none", "    matrix units: f16 x f16", "one kernel: available"]);
    says("gfx1100", &["one row: memory is the limit", "16 at a time", "by the roofline"]);
    // A configuration is as good as a model; the JSON has what the text says.
    let config = example_config("SmolLM2-135M.json");
    let arguments = ["explain-target", &config, "--target", "gfx942", "--dtype", "f32", "--json"];
    let json: serde_json::Value =
        serde_json::from_str(&succeed(WAVELOOM, &arguments)).expect("it is JSON");
    assert_eq!(json["persistent"]["available"], true);
    assert!(json["times"][0]["decode"].as_f64().is_some_and(|seconds| seconds > 0.0));
    let kernels = json["kernels"].as_array().expect("kernels");
    let units = |name: &str| kernels.iter().filter(|kernel| kernel["units"] == name).count();
    assert!(units("matrix") > 0 && units("vector") > 0, "{json:#}");
}

#[test]
fn an_artifact_tests_itself_unless_told_not_to() {
    let dir = TempDir::new().expect("a directory");
    let model = compiled(&dir);
    for program in [WAVELOOM, WAVELOOM_RUN] {
        let report = succeed(program, &["selftest", &model, "--json"]);
        let report: serde_json::Value = serde_json::from_str(&report).expect("it is JSON");
        assert_eq!(report["passed"], true, "{report:#}");
        assert!(succeed(program, &["selftest", &model]).contains("within its tolerance"));
    }
    let without = path(&dir, "without.wlm");
    let source = fixture("llama").display().to_string();
    succeed(WAVELOOM, &["compile", &source, "-o", &without, "--self-test", "off"]);
    assert!(fail(WAVELOOM_RUN, &["selftest", &without]).contains("has no self-test"));
    let config = example_config("SmolLM2-135M.json");
    let synthetic = ["compile", &config, "-o", &without, "--synthetic-weights", "1"];
    let error = fail(WAVELOOM, &[&synthetic[..], &["--self-test", "on"]].concat());
    assert!(error.contains("synthetic weights have no self-test"), "{error}");
}

/// Keys of the tests of `waveloom-sign`.
fn key(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sign/tests/fixtures");
    folder.join(name).display().to_string()
}

#[test]
fn signatures_hold_until_a_byte_changes() {
    let dir = TempDir::new().expect("a directory");
    let (model, signature) = (path(&dir, "model.wlm"), path(&dir, "model.wlm.sig"));
    fs::write(&model, "weights").expect("it is written");
    succeed(WAVELOOM, &["sign", &model, "--key", &key("p256.pem")]);
    let verify = ["verify-signature", &model, "--key", &key("p256.pub"), "--json"];
    let verified: serde_json::Value =
        serde_json::from_str(&succeed(WAVELOOM, &verify)).expect("it is JSON");
    assert_eq!(verified["name"], "model.wlm");
    fs::write(&model, "Weights").expect("it is written");
    assert!(fail(WAVELOOM, &verify).contains("is not what was signed"));
    let error = fail(WAVELOOM, &["sign", &model, "--key", &model]);
    assert!(error.contains("this is no private key in PEM"), "{error}");
    fs::remove_file(&signature).expect("it is removed");
    assert!(fail(WAVELOOM, &verify).contains("cannot read"));
}

#[test]
fn bad_models_are_refused_in_words_and_leave_nothing_behind() {
    let dir = tempfile::tempdir().expect("a directory");
    let out = tempfile::tempdir().expect("a directory");
    let output = path(&out, "model.wlm");
    let refused = |model: &str| fail(WAVELOOM, &["compile", model, "-o", &output]);

    assert!(refused(&path(&dir, "nowhere")).contains("nowhere"));

    let gguf = fs::read(fixture("gguf/llama.gguf")).expect("the fixture is there");
    let truncated = path(&dir, "truncated.gguf");
    fs::write(&truncated, &gguf[..gguf.len() / 2]).expect("it is written");
    assert!(refused(&truncated).contains("truncated.gguf"));

    let mut absurd = gguf.clone();
    absurd[8..16].fill(0xff);
    let counts = path(&dir, "absurd.gguf");
    fs::write(&counts, absurd).expect("it is written");
    refused(&counts);

    for (name, from, to, expect) in [
        ("architecture", "Qwen3ForCausalLM", "MambaForCausalLM", "Mamba"),
        ("shape", "\"hidden_size\": 64", "\"hidden_size\": 128", "model"),
    ] {
        let model = dir.path().join(name);
        fs::create_dir(&model).expect("it is made");
        for entry in fs::read_dir(fixture("qwen3")).expect("the fixture is there") {
            let entry = entry.expect("an entry");
            fs::copy(entry.path(), model.join(entry.file_name())).expect("it is copied");
        }
        let config = model.join("config.json");
        let json = fs::read_to_string(&config).expect("the config is there");
        fs::write(&config, json.replace(from, to)).expect("it is written");
        let error = refused(model.to_str().expect("utf-8"));
        assert!(error.contains(expect), "{name}: {error}");
    }
    assert_eq!(entries(out.path()), Vec::<String>::new());
}

#[test]
fn bad_arguments_are_refused_in_words() {
    let dir = tempfile::tempdir().expect("a directory");
    let model = compiled(&dir);
    let run = |args: &[&str]| fail(WAVELOOM_RUN, &[&["run", &model], args].concat());
    assert!(run(&["--tokens", "5,100000", "-n", "1"]).contains("vocabulary"));
    assert!(run(&["--tokens", "5,6,7", "-n", "1", "--context", "2"]).contains("context"));
    assert!(run(&["--tokens", "5", "--device", "hip"]).to_lowercase().contains("hip"));
    assert!(run(&["--tokens", "5", "--device", "cuda"]).to_lowercase().contains("cuda"));
    // What the command line itself rules out is a usage error, which lists what there is.
    let target = ["compile", "model", "-o", "other.wlm", "--target", "gfx000"];
    let usage = Command::new(WAVELOOM).args(target).output().expect("the program starts");
    assert_eq!(usage.status.code(), Some(2));
    assert!(text(&usage.stderr).contains("cpu-v3"), "{}", text(&usage.stderr));
    let usage = Command::new(WAVELOOM).arg("compile").output().expect("the program starts");
    assert_eq!(usage.status.code(), Some(2));
}

/// A directory to give as ROCM_PATH, with the emulated GPU's library if that was built beside this
/// test.
fn rocm() -> Option<TempDir> {
    let here = std::env::current_exe().expect("it runs");
    let folder = here.parent().expect("it is in a directory");
    let named = std::env::var_os("WAVELOOM_EMULATOR_LIBRARY").map(PathBuf::from);
    let beside = [folder.join("libamdhip64.so"), folder.join("../libamdhip64.so")];
    let Some(library) = named.into_iter().chain(beside).find(|place| place.exists()) else {
        println!("skipped: no emulated GPU; `cargo build --release -p waveloom-emulator-hip`");
        return None;
    };
    let dir = tempfile::tempdir().expect("a directory");
    fs::create_dir(dir.path().join("lib")).expect("it is made");
    let library = library.canonicalize().expect("it is there");
    let link = dir.path().join("lib/libamdhip64.so");
    std::os::unix::fs::symlink(library, link).expect("it is linked");
    Some(dir)
}

#[test]
fn gpus_are_listed_and_say_what_they_can_run() {
    let Some(rocm) = rocm() else { return };
    let on_gpu = |args: &[&str]| {
        let mut command = Command::new(WAVELOOM_RUN);
        command.args(args).env("ROCM_PATH", rocm.path()).env("WAVELOOM_EMU_DEVICE", "gfx942:2");
        command.output().expect("the program starts")
    };
    let listed = text(&on_gpu(&["devices"]).stdout);
    for device in ["cpu", "hip:0", "hip:1"] {
        assert!(listed.lines().any(|line| line.starts_with(device)), "{listed}");
    }
    assert!(listed.contains("304 compute units  gfx942, "), "{listed}");
    let json: serde_json::Value =
        serde_json::from_slice(&on_gpu(&["devices", "--json"]).stdout).expect("it is JSON");
    assert_eq!(json[2]["name"], "hip:1");
    assert_eq!(json[2]["gpu"]["architecture"], "gfx942");

    let dir = tempfile::tempdir().expect("a directory");
    let model = compiled(&dir);
    let run = |device: &str| {
        let output = on_gpu(&["run", &model, "--tokens", "5", "--device", device]);
        assert_eq!(output.status.code(), Some(1));
        text(&output.stderr)
    };
    assert_eq!(
        run("hip:1"),
        "error: the artifact was compiled for cpu, the device is AMD Instinct MI300X (emulated) (gfx942), \
         hip:1: recompile the model with `--target gfx942`\n"
    );
    let absent = "error: there is no device hip:2: HIP finds 2, the first of which is hip:0\n";
    assert_eq!(run("hip:2"), absent);
    assert!(run("hip:first").contains("this program knows: cpu, hip, hip:N, cuda, cuda:N"));
}

#[test]
fn a_full_context_ends_the_generation() {
    let dir = tempfile::tempdir().expect("a directory");
    let model = compiled(&dir);
    let args = ["run", &model, "--tokens", "5,6,7", "-n", "100", "--greedy", "--ignore-eos"];
    let args = [&args[..], &["--context", "8", "--json"]].concat();
    let report: serde_json::Value =
        serde_json::from_str(&succeed(WAVELOOM_RUN, &args)).expect("it is JSON");
    assert_eq!(report["finish_reason"], "context_full");
    assert_eq!(report["tokens"].as_array().map(Vec::len), Some(6));
}

/// `waveloom-run` is small and has no LLVM in it.
#[test]
fn the_runtime_program_is_small() {
    let dir = tempfile::tempdir().expect("a directory");
    let stripped = path(&dir, "waveloom-run");
    fs::copy(WAVELOOM_RUN, &stripped).expect("it is copied");
    let status = Command::new("strip").arg(&stripped).status().expect("binutils are there");
    assert!(status.success());
    let bytes = fs::read(&stripped).expect("it is there");
    println!("waveloom-run: {} bytes stripped", bytes.len());
    assert!(bytes.len() <= 15_000_000, "{}", bytes.len());
    let llvm = b"LLVM ERROR";
    assert!(!bytes.windows(llvm.len()).any(|window| window == llvm));
}

/// A file system without room: the error says so and the directory stays empty. Mounting one takes
/// privileges, so elsewhere this says that it was skipped.
#[test]
fn a_full_disk_is_an_error_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().expect("a directory");
    let small = dir.path().join("small");
    fs::create_dir(&small).expect("it is made");
    let mount =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(&small).output();
    if !mount.is_ok_and(|output| output.status.success()) {
        println!("skipped: no privilege to mount a small file system");
        return;
    }
    let output = small.join("model.wlm");
    let model = fixture("llama");
    let args = ["compile", model.to_str().expect("utf-8"), "-o", output.to_str().expect("utf-8")];
    let error = run(WAVELOOM, &args);
    let left = entries(&small);
    let unmounted = Command::new("umount").arg(&small).status();
    assert_eq!(error.status.code(), Some(1));
    assert!(text(&error.stderr).contains("No space left"), "{}", text(&error.stderr));
    assert_eq!(left, Vec::<String>::new());
    assert!(unmounted.is_ok_and(|status| status.success()));
}
