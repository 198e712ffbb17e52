//! `.wl` fixtures of the passes: command, input and expected output in one file.
//!
//! A file starts with comments, the first of which is the command: `// opt --passes a,b` with
//! `--dtype`, `--lanes` and `--stop` where a pass asks for them. After a line `// =>` comes what the
//! printer makes of the result, or `// error: …`. `INSTA_UPDATE=always` (`./x bless`) rewrites it.
//!
//! Beyond the text, values must not change: the functions of input and output are interpreted on the
//! same random inputs, where all weights are f32 and caches stay so.

use crate::oracle::assert_same;
use std::fs;
use std::path::{Path, PathBuf};
use waveloom_ir::{DType, Layout, Module, parse, print};
use waveloom_passes::{PASSES, Pass, PassOptions, WeightDtype, find_pass, run_passes};

const SEPARATOR: &str = "// =>\n";

struct Command {
    passes: Vec<&'static Pass>,
    options: PassOptions,
}

fn command(line: &str) -> Command {
    let mut words = line.split_whitespace();
    assert_eq!([words.next(), words.next()], [Some("//"), Some("opt")]);
    let mut command = Command { passes: vec![], options: PassOptions::default() };
    while let (Some(option), Some(value)) = (words.next(), words.next()) {
        match option {
            "--passes" => {
                let passes = value.split(',').map(|name| find_pass(name).expect("a known pass"));
                command.passes = passes.collect();
            }
            "--dtype" => {
                command.options.dtype = WeightDtype::parse(value).expect("a dtype");
            }
            "--lanes" => {
                let lanes = value.parse().expect("a number");
                command.options.layout.keys = Layout::PositionLanes(lanes);
            }
            "--stop" => {
                let tokens = value.split(',').map(|token| token.parse().expect("a token"));
                command.options.stop_tokens = tokens.collect();
            }
            _ => panic!("unknown option {option}"),
        }
    }
    command
}

fn comparable(module: &Module) -> bool {
    let caches = |module: &Module| {
        let values = module.functions.iter().flat_map(|f| &f.values);
        values.into_iter().all(|value| matches!(value.ty.dtype, DType::F32 | DType::I32))
    };
    module.weights.iter().all(|weight| weight.stored == DType::F32) && caches(module)
}

/// Runs a fixture; gives the text that it should be.
fn run(text: &str) -> String {
    let input = text.split_once(SEPARATOR).map_or(text, |(input, _)| input);
    let command = command(input.lines().next().unwrap_or_default());
    let before = parse(input).expect("the input parses");
    let result = run_passes(command.passes, before.clone(), &command.options, &mut |_| Ok(()));
    let output = match result {
        Ok(after) => {
            let printed = print(&after);
            assert_eq!(parse(&printed).as_ref(), Ok(&after), "the output parses back");
            if comparable(&before) && comparable(&after) {
                assert_same(&before, &after);
            }
            printed
        }
        Err(error) => format!("// error: {error}\n"),
    };
    format!("{input}{SEPARATOR}{output}")
}

fn fixtures() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let list = |dir: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(dir).expect("a folder");
        let mut paths: Vec<PathBuf> =
            entries.map(|entry| entry.expect("an entry").path()).collect();
        paths.sort();
        paths
    };
    list(&root).iter().flat_map(|dir| list(dir)).collect()
}

#[test]
fn fixtures_give_what_they_say() {
    let bless = std::env::var("INSTA_UPDATE").is_ok_and(|value| value == "always");
    let mut wrong = vec![];
    for path in fixtures() {
        let text = fs::read_to_string(&path).expect("a text file");
        let expected = run(&text);
        if expected == text {
            continue;
        }
        if bless {
            fs::write(&path, expected).expect("the fixture is written");
        } else {
            wrong.push(format!("{}\n{expected}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "fixtures differ:\n{}", wrong.join("\n"));
}

#[test]
fn every_pass_of_this_kind_has_a_fixture() {
    // `simplify` and `raise` are tested rule by rule, in `tests/raise`.
    let elsewhere = ["simplify", "raise"];
    for pass in PASSES.iter().filter(|pass| !elsewhere.contains(&pass.name)) {
        let has = |path: &PathBuf| path.parent().is_some_and(|dir| dir.ends_with(pass.name));
        assert!(fixtures().iter().any(has), "no fixture for {}", pass.name);
    }
}
