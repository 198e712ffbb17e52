//! Dumps and what can be done with them: compilations go on from every dumped module, edited or not, to
//! the same file; kernels run by themselves in every form; differences are told.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

const WAVELOOM: &str = env!("CARGO_BIN_EXE_waveloom");

/// Points of a compilation at which there is a module.
const POINTS: usize = 11;

fn run(args: &[&str]) -> Output {
    Command::new(WAVELOOM).args(args).output().expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Standard output of a call that succeeds.
fn succeed(args: &[&str]) -> String {
    let output = run(args);
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// What a call that must fail says, from `error: ` on.
fn fail(args: &[&str]) -> String {
    let output = run(args);
    assert_eq!(output.status.code(), Some(1), "{args:?}: {}", text(&output.stdout));
    let said = text(&output.stderr);
    let start = said.find("error: ").unwrap_or_else(|| panic!("{args:?}: {said}"));
    said[start..].to_string()
}

/// A folder for a test, and names in it.
struct Folder(TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().expect("a directory"))
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().expect("utf-8").to_string()
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn text(&self, name: &str) -> String {
        text(&self.read(name))
    }

    /// Writes `from` as `to` with a replacement, which must change something.
    fn edit(&self, from: &str, to: &str, replace: &[(&str, &str)]) -> String {
        let mut text = self.text(from);
        for (old, new) in replace {
            assert!(text.contains(old), "{from} has no {old}");
            text = text.replacen(old, new, 1);
        }
        fs::write(self.path(to), text).expect("it is written");
        self.path(to)
    }

    /// Compiles on from a module.
    fn resume(&self, module: &str, output: &str) -> String {
        succeed(&["compile", "--compile-from", module, "-o", &self.path(output)])
    }

    /// Greedy tokens of a compiled file.
    fn tokens(&self, name: &str) -> String {
        let file = self.path(name);
        let args = ["run", &file, "--tokens", "5,6,7", "-n", "6", "--greedy", "--ignore-eos"];
        let json: serde_json::Value =
            serde_json::from_str(&succeed(&[&args[..], &["--json"]].concat())).expect("JSON");
        json["tokens"].to_string()
    }
}

fn tiny() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny/llama");
    path.to_str().expect("utf-8").to_string()
}

/// The modules of a dump for one target, in order.
fn modules(dump: &Path, target: &str) -> Vec<PathBuf> {
    let of = |folder: &Path| {
        let entries =
            fs::read_dir(folder).expect("it lists").map(|entry| entry.expect("one").path());
        entries.filter(|path| path.extension().is_some_and(|e| e == "wl")).collect::<Vec<_>>()
    };
    let mut found = [of(dump), of(&dump.join(target))].concat();
    found.sort_by_key(|path| path.file_name().map(std::ffi::OsStr::to_os_string));
    assert_eq!(found.len(), POINTS);
    found
}

/// The tiny model, compiled with a dump for a target.
fn dumped(target: &str) -> Folder {
    let folder = Folder::new();
    let (output, dump) = (folder.path("model.wlm"), folder.path("dump"));
    succeed(&["compile", &tiny(), "-o", &output, "--target", target, "--dump-phases-to", &dump]);
    folder
}

#[test]
fn every_dumped_module_compiles_on_to_the_same_file() {
    let folder = dumped("cpu-v3");
    let whole = folder.read("model.wlm");
    for module in modules(&folder.0.path().join("dump"), "cpu-v3") {
        folder.resume(module.to_str().expect("utf-8"), "again.wlm");
        assert!(folder.read("again.wlm") == whole, "{}", module.display());
    }
    // A compilation that does not dump makes the same file.
    let plain = folder.path("plain.wlm");
    succeed(&["compile", &tiny(), "-o", &plain, "--target", "cpu-v3"]);
    assert!(folder.read("plain.wlm") == whole);
}

#[test]
fn a_gpus_modules_compile_on_to_the_same_file() {
    let folder = dumped("gfx942");
    for (index, module) in modules(&folder.0.path().join("dump"), "gfx942").iter().enumerate() {
        let module = module.to_str().expect("utf-8");
        if index + 1 == POINTS {
            folder.resume(module, "again.wlm");
            assert!(folder.read("again.wlm") == folder.read("model.wlm"));
        } else {
            // What comes after the last module depends on nothing else.
            let last = folder.path("last.wl");
            succeed(&[
                "compile",
                "--compile-from",
                module,
                "--compile-to",
                "choose-tiles",
                "-o",
                &last,
                "--target",
                "gfx942",
            ]);
            assert!(folder.read("last.wl") == folder.read("dump/gfx942/10-choose-tiles.wl"));
        }
    }
}

/// SmolLM2-135M: every dumped module leads to the same last module, which all the rest is made of;
/// three of them are compiled to the end.
#[test]
fn dumps_of_the_real_model_compile_on() {
    let Some(model) = std::env::var_os("WAVELOOM_SMOLLM2") else {
        println!("skipped: WAVELOOM_SMOLLM2 does not name the model; `./x test` does");
        return;
    };
    let folder = Folder::new();
    let (output, dump) = (folder.path("model.wlm"), folder.path("dump"));
    let model = model.to_str().expect("utf-8");
    let args = ["compile", model, "-o", &output, "--target", "cpu-v3", "--self-test", "off"];
    succeed(&[&args[..], &["--dump-phases-to", &dump]].concat());
    let last = folder.path("last.wl");
    for (index, module) in modules(Path::new(&dump), "cpu-v3").iter().enumerate() {
        let module = module.to_str().expect("utf-8");
        let to = ["--compile-to", "choose-tiles", "-o", &last];
        succeed(&[&["compile", "--compile-from", module], &to[..]].concat());
        assert!(
            folder.read("last.wl") == folder.read("dump/cpu-v3/10-choose-tiles.wl"),
            "{module}"
        );
        if [0, 7, POINTS - 1].contains(&index) {
            folder.resume(module, "again.wlm");
            assert!(folder.read("again.wlm") == folder.read("model.wlm"), "{module}");
        }
    }
}

#[test]
fn a_dump_of_an_8b_model_is_small() {
    let config =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/configs/Llama-3.1-8B.json");
    let config = config.to_str().expect("utf-8");
    let folder = Folder::new();
    let (output, dump) = (folder.path("model.wlm"), folder.path("dump"));
    let args = ["compile", config, "-o", &output, "--synthetic-weights", "1", "--target", "cpu-v3"];
    succeed(&[&args[..], &["--dump-phases-to", &dump]].concat());
    fn size(path: &Path) -> u64 {
        let entries = fs::read_dir(path).expect("it lists").map(|entry| entry.expect("one"));
        let sizes = entries.map(|entry| match entry.file_type().expect("a type").is_dir() {
            true => size(&entry.path()),
            false => entry.metadata().expect("metadata").len(),
        });
        sizes.sum()
    }
    let bytes = size(Path::new(&dump));
    println!("{bytes} bytes");
    assert!(bytes <= 5_000_000, "{bytes}");
    folder.resume(&folder.path("dump/cpu-v3/03-raise.wl"), "again.wlm");
    assert!(folder.read("again.wlm") == folder.read("model.wlm"));
}

/// The tiles of a kernel are edited in the last module: the kernel is another one, and nothing else.
#[test]
fn an_edited_tile_takes_effect() {
    let folder = dumped("cpu-v3");
    let last = "dump/cpu-v3/10-choose-tiles.wl";
    let tiles = folder.text(last);
    let start = tiles.find("prefill_tiles = cpu(").expect("tiles") + "prefill_tiles = cpu(".len();
    let end = start + tiles[start..].find(')').expect("their end");
    let chosen = &tiles[start..end];
    let edited = "block_rows = 6, rows = 3, tiles = 1, group_tiles = 2, span_groups = 1";
    let module = folder.edit(last, "edited.wl", &[(chosen, edited)]);
    folder.resume(&module, "edited.wlm");
    assert_eq!(folder.tokens("edited.wlm"), folder.tokens("model.wlm"));

    let (old, new) = (folder.path("model.wlm"), folder.path("edited.wlm"));
    let told = run(&["diff", &old, &new]);
    assert_eq!(told.status.code(), Some(1));
    let told = text(&told.stdout);
    assert!(told.contains("launches\n  prefill of gemm_"), "{told}");
    assert!(told.contains("section\n  code.cpu-v3"), "{told}");
    assert!(told.contains("kernel\n  gemm_") && told.contains(": code "), "{told}");
    assert!(!told.contains("gemv_"), "only prefill was edited: {told}");
    let told = run(&["diff", &folder.path(last), &module]);
    assert_eq!(told.status.code(), Some(1));
    assert!(text(&told.stdout).contains("prefill_tiles: "), "{}", text(&told.stdout));

    // What the generator cannot do is refused in words.
    let refused = |replace: &[(&str, &str)]| {
        let module = folder.edit(last, "refused.wl", replace);
        fail(&["compile", "--compile-from", &module, "-o", &folder.path("refused.wlm")])
    };
    let odd = refused(&[(chosen, "block_rows = 7, rows = 3")]);
    assert!(odd.contains("`block_rows` must be a multiple of `rows`"), "{odd}");
    let unknown = refused(&[(chosen, "columns = 7")]);
    assert!(unknown.contains("there is no size `columns`; there are block_rows"), "{unknown}");
    let other = refused(&[("prefill_tiles = cpu(", "prefill_tiles = matrix(")]);
    assert!(other.contains("the generators that could make this kernel are cpu"), "{other}");
    assert!(!Path::new(&folder.path("refused.wlm")).exists());
}

/// Tiles that are written by hand are completed, or refused with the reason, on a GPU, too.
#[test]
fn a_gpus_tiles_are_checked() {
    let folder = Folder::new();
    let module = folder.path("at.wl");
    let args = ["compile", &tiny(), "-o", &module, "--target", "gfx942"];
    succeed(&[&args[..], &["--compile-to", "choose-tiles"]].concat());
    let text = folder.text("at.wl");
    let start = text.find("prefill_tiles = ").expect("tiles") + "prefill_tiles = ".len();
    let chosen = &text[start..=start + text[start..].find(')').expect("their end")];
    let mut told = format!("chosen: {chosen}\n");
    for tiles in [
        "matrix(rows = 16)",
        "vector(rows = 4)",
        "matrix(rows = 48)",
        "matrix(columns = 40)",
        "matrix(depth = 32)",
        "matrix(row_waves = 3)",
        "matrix(row_waves = 4, column_waves = 1)",
        "matrix(splits = 4294967295)",
        "matrix(workgroups = 100000)",
        "vector(rows = 9)",
        "vector(waves_n = 64)",
        "cpu()",
        "matrix(rows = 16, rows = 16)",
    ] {
        let edited = folder.edit("at.wl", "edited.wl", &[(chosen, tiles)]);
        let output = run(&["opt", &edited, "--passes", "choose-tiles"]);
        let answer = match output.status.success() {
            false => text_of_problem(&output),
            true => {
                let module = self::text(&output.stdout);
                let start = module.find("prefill_tiles = ").expect("tiles");
                let end = start + module[start..].find(')').expect("their end");
                module[start..=end].to_string()
            }
        };
        told += &format!("{tiles}\n  {answer}\n");
    }
    insta::assert_snapshot!(told);
}

/// What follows `cannot be: `.
fn text_of_problem(output: &Output) -> String {
    let said = text(&output.stderr);
    said.trim().rsplit_once("cannot be: ").map_or(said.clone(), |(_, what)| what.to_string())
}

/// An epilogue is taken out of a product in the text: a kernel of its own adds the residual.
#[test]
fn a_removed_fusion_takes_effect() {
    let folder = dumped("cpu-v3");
    let fused = folder.text("dump/cpu-v3/07-fuse-epilogue.wl");
    let line =
        fused.lines().find(|line| line.contains("outputs = [(add $0 #0)]")).expect("a residual");
    let (result, rest) = line.trim().split_once(" = gemm ").expect("a product");
    let (operands, attributes) = rest.split_once(" {").expect("attributes");
    let ty = attributes.rsplit_once(" : ").expect("a type").1;
    let [x, weight, residual] = operands.split(", ").collect::<Vec<_>>()[..] else {
        panic!("{line}")
    };
    let apart = format!(
        "    %plain = gemm {x}, {weight} {{weights = 1, outputs = [#0]}} : {ty}\n    \
         {result} = map {residual}, %plain {{expr = (add $0 $1)}} : {ty}"
    );
    let module = folder.edit("dump/cpu-v3/07-fuse-epilogue.wl", "edited.wl", &[(line, &apart)]);
    folder.resume(&module, "edited.wlm");
    assert_eq!(folder.tokens("edited.wlm"), folder.tokens("model.wlm"));
    let json = run(&["diff", "--json", &folder.path("model.wlm"), &folder.path("edited.wlm")]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(json["equal"], false);
    let changes = json["changes"].as_array().expect("changes");
    let added = |change: &&serde_json::Value| {
        change["area"] == "kernel"
            && change["what"].as_str().is_some_and(|w| w.starts_with("added: map"))
    };
    assert!(changes.iter().any(|change| added(&change)), "{json}");
}

#[test]
fn a_changed_weight_is_named() {
    let folder = Folder::new();
    let model = folder.0.path().join("model");
    fs::create_dir(&model).expect("a directory");
    for entry in fs::read_dir(tiny()).expect("it lists") {
        let entry = entry.expect("an entry");
        fs::copy(entry.path(), model.join(entry.file_name())).expect("it copies");
    }
    let module = folder.path("at.wl");
    let name = model.to_str().expect("utf-8");
    succeed(&["compile", name, "-o", &module, "--compile-to", "raise"]);
    let weights = model.join("model-00002-of-00002.safetensors");
    let mut bytes = fs::read(&weights).expect("weights");
    *bytes.last_mut().expect("bytes") ^= 1;
    fs::write(&weights, bytes).expect("they are written");
    let output = folder.path("out.wlm");
    let error = fail(&["compile", "--compile-from", &module, "-o", &output]);
    assert!(error.starts_with("error: weight `"), "{error}");
    assert!(error.contains("is not the one that the module was made from"), "{error}");
    assert!(!Path::new(&output).exists());
    // The model that is given counts, not the one that is named in the text.
    succeed(&["compile", &tiny(), "--compile-from", &module, "-o", &output]);
}

#[test]
fn text_that_does_not_parse_is_shown() {
    let folder = Folder::new();
    let at = folder.path("at.wl");
    succeed(&["compile", &tiny(), "-o", &at, "--compile-to", "import"]);
    let wrong =
        folder.edit("at.wl", "wrong.wl", &[("symbol T in 1..=128", "symbol T in 1 to 128")]);
    let error = fail(&["compile", "--compile-from", &wrong, "-o", &folder.path("o")]);
    let shown: Vec<&str> = error.lines().collect();
    let line =
        folder.text("wrong.wl").lines().position(|l| l.contains("symbol T")).expect("it") + 1;
    assert!(shown[0].contains(&format!("wrong.wl:{line}:")), "{error}");
    assert!(shown[0].contains("expected `..=`, found `to`"), "{error}");
    assert_eq!(shown[1].find("to 128"), shown[2].find('^'), "{error}");
    let bare = folder.edit("at.wl", "bare.wl", &[("  note after = \"import\"\n", "")]);
    let error = fail(&["compile", "--compile-from", &bare, "-o", &folder.path("o")]);
    assert!(error.contains("does not say `note after = …`"), "{error}");
    // `opt` keeps the notes true.
    let opt = folder.path("opt.wl");
    succeed(&["opt", &at, "--passes", "convert-weights,simplify,raise", "-o", &opt]);
    assert!(folder.text("opt.wl").contains("note after = \"raise\""));
    succeed(&["opt", &opt, "--passes", "fuse-map", "-o", &opt]);
    let fused = folder.path("fused.wl");
    succeed(&["compile", &tiny(), "-o", &fused, "--compile-to", "fuse-map"]);
    assert!(folder.read("opt.wl") == folder.read("fused.wl"));
}

#[test]
fn printing_can_be_confined_to_functions_and_kernels() {
    let folder = Folder::new();
    let output = folder.path("model.wlm");
    let print = |after: &str, filter: &str| {
        let to = ["--target", "cpu-v3", "--print-ir-after", after, "--print-ir-filter", filter];
        run(&[&["compile", &tiny(), "-o", &output], &to[..]].concat())
    };
    let printed = print("raise", "layer");
    assert!(printed.status.success());
    let printed = text(&printed.stdout);
    assert!(printed.starts_with("// after raise for cpu-v3\n  func @layer("), "{printed}");
    assert_eq!(printed.matches("func @").count(), 1);
    let printed = text(&print("all", "gemv_*").stdout);
    for form in ["mlir", "lowered-mlir", "llvm-ir", "assembly"] {
        assert!(printed.contains(&format!("// {form} of gemv_")), "{form}");
    }
    assert!(!printed.contains("// after ") && !printed.contains("of attention"), "{printed}");
    let none = print("raise", "no_such");
    assert_eq!(none.status.code(), Some(1));
    let said = text(&none.stderr);
    assert!(said.contains("no function or kernel that was printed is called `no_such`"), "{said}");
    assert!(said.contains("there are layer, step"), "{said}");
}

/// Every form of a kernel runs by itself; an edited one is another kernel.
#[test]
fn dumped_kernels_run_by_themselves() {
    let folder = dumped("cpu-v3");
    let kernels = folder.0.path().join("dump/cpu-v3/kernels");
    let names: Vec<PathBuf> = fs::read_dir(&kernels)
        .expect("it lists")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "o"))
        .collect();
    assert!(names.len() > 5);
    let bench = |path: &Path| {
        let path = path.to_str().expect("utf-8");
        let args = ["bench-kernel", path, "--repeat", "2", "--tokens", "8", "--json"];
        let json: serde_json::Value = serde_json::from_str(&succeed(&args)).expect("JSON");
        assert!(json["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{json}");
        json
    };
    for name in &names {
        bench(name);
    }
    let gemv =
        names.iter().find(|name| name.to_string_lossy().contains("gemv_")).expect("a product");
    for form in ["mlir", "ll", "s"] {
        let json = bench(&gemv.with_extension(form));
        assert!(json["bytes"].as_f64().is_some_and(|bytes| bytes > 0.0), "{json}");
        assert!(json["bytes_per_second"].as_f64().is_some_and(|rate| rate > 0.0), "{json}");
    }
    let ir = fs::read_to_string(gemv.with_extension("ll")).expect("LLVM IR");
    let edited = gemv.with_extension("edited.ll");
    fs::write(&edited, ir.replacen("define void", "define undefined", 1)).expect("it is written");
    let error = fail(&["bench-kernel", edited.to_str().expect("utf-8")]);
    assert!(error.contains("the LLVM IR of kernel 'gemv_"), "{error}");
    fs::write(&edited, ir).expect("it is written");
    bench(&edited);
    let lost = folder.path("lost.ll");
    fs::copy(&edited, &lost).expect("it copies");
    let error = fail(&["bench-kernel", &lost]);
    assert!(error.contains("cannot read") && error.contains("lost.json"), "{error}");
    let error = fail(&["bench-kernel", &folder.path("model.wlm")]);
    assert!(error.contains("is no form of a kernel"), "{error}");
    let text = succeed(&["bench-kernel", edited.to_str().expect("utf-8"), "--repeat", "2"]);
    assert!(text.contains(" us a launch\n") && text.contains("knows no roofline"), "{text}");
}

#[test]
fn diff_exits_as_diff_does() {
    let folder = Folder::new();
    let [a, b] = ["a.wl", "b.wl"].map(|name| folder.path(name));
    succeed(&["compile", &tiny(), "-o", &a, "--compile-to", "fuse-map"]);
    succeed(&["compile", &tiny(), "-o", &b, "--compile-to", "fuse-epilogue"]);
    let equal = run(&["diff", &a, &a]);
    assert_eq!(equal.status.code(), Some(0));
    assert!(text(&equal.stdout).ends_with("are equal\n"));
    let different = run(&["diff", &a, &b]);
    assert_eq!(different.status.code(), Some(1));
    let told = text(&different.stdout).replace(&a, "A").replace(&b, "B");
    insta::assert_snapshot!(told);
    for (old, new) in [(&a, &tiny()), (&a, &folder.path("missing.wl"))] {
        let trouble = run(&["diff", old, new]);
        assert_eq!(trouble.status.code(), Some(2), "{}", text(&trouble.stderr));
        assert!(text(&trouble.stderr).starts_with("error: "));
    }
}
