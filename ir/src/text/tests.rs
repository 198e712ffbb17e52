//! Round trips, errors, mutations.

use crate::module::Module;
use crate::testing::{self, Random, fixtures};
use crate::text::{parse, print};
use crate::verify::check;
use proptest::prelude::*;

/// Fixtures are as the printer writes them; `UPDATE_FIXTURES=1` rewrites them so.
#[test]
fn fixtures_round_trip() {
    for (path, text) in fixtures() {
        let module = parse(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        check(&module).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let printed = print(&module);
        assert_eq!(parse(&printed).as_ref(), Ok(&module), "{}", path.display());
        if std::env::var_os("UPDATE_FIXTURES").is_some() {
            std::fs::write(&path, &printed).unwrap();
        } else {
            assert_eq!(printed, text, "{}", path.display());
        }
    }
}

/// `every_op.wl` keeps its word.
#[test]
fn a_fixture_holds_every_op() {
    let (_, text) = fixtures().into_iter().find(|(path, _)| path.ends_with("every_op.wl")).unwrap();
    let decode_loop = include_str!("../../tests/fixtures/llama.macro.wl");
    for mnemonic in crate::op::Op::mnemonics() {
        let used = |text: &str| {
            text.split_whitespace().any(|word| word.trim_start_matches('(') == mnemonic)
        };
        assert!(used(&text) || used(decode_loop), "no fixture has `{mnemonic}`");
    }
}

#[test]
fn edited_text_is_numbered_anew() {
    let module = parse(
        "module @m { // what a person writes
            symbol T in 1..=4
            func @f(%10: f32[T], %x \"the name\": f32[T], %y: f32[T]) -> (f32[T]) {
                %7 = add %10, %x : f32[T]   // gaps in the numbers
                %3 = mul %7, %y : f32[T]
                return %3
            }
        }",
    )
    .unwrap();
    insta::assert_snapshot!(print(&module), @r#"
module @m {
  symbol T in 1..=4

  func @f(%0: f32[T], %1 "the name": f32[T], %2 "y": f32[T]) -> (f32[T]) {
    %3 = add %0, %1 : f32[T]
    %4 = mul %3, %2 : f32[T]
    return %4
  }
}
"#);
}

#[test]
fn what_is_for_resuming_round_trips() {
    let digest = "0123456789abcdef".repeat(4);
    let text = format!(
        "\
module @m {{
  note after = \"choose-tiles\"
  note \"a name\" = \"say \\\"so\\\"\"
  symbol T in 1..=4
  weight @w : f32[16, 4] from f16 blake3 \"{digest}\"

  func @f(%0 \"x\": f32[T, 4]) -> (f32[T, 16]) {{
    %1 = weight {{weight = @w}} : f32[16, 4]
    %2 = gemm %0, %1 {{weights = 1, outputs = [#0], prefill_tiles = matrix(rows = 64, columns = 16), \
         decode_tiles = vector()}} : f32[T, 16]
    return %2
  }}
}}
"
    );
    let module = parse(&text).unwrap();
    assert_eq!(print(&module), text);
    assert_eq!(module.note("after"), Some("choose-tiles"));
    assert_eq!(module.weights[0].digest.unwrap().to_string(), digest);
    let wrong = |from: &str, to: &str| problem(&text.replace(from, to));
    insta::assert_snapshot!(wrong("\"a name\"", "after"), @"line 3, column 8: there is a note `after` already");
    insta::assert_snapshot!(wrong("= \"choose-tiles\"", "= 3"), @"line 2, column 16: expected a text in quotes, found `3`");
    insta::assert_snapshot!(wrong(&digest, "0x12"), @"line 5, column 42: `0x12` is not a digest of 64 hexadecimal digits");
    insta::assert_snapshot!(wrong("rows = 64", "rows = -1"), @"line 9, column 82: `-1` is not a 32-bit number");
    insta::assert_snapshot!(wrong("matrix(rows", "(rows"), @"line 9, column 68: expected the name of a generator, found `(`");
}

fn problem(text: &str) -> String {
    parse(text).expect_err("the text is wrong").to_string()
}

/// A function `@f` of `%x: f32[T, 4]` with this body.
fn body(text: &str) -> String {
    problem(&format!(
        "module @m {{\n  symbol T in 1..=4\n  func @f(%x: f32[T, 4]) -> (f32[T, 4]) {{\n{text}\n  }}\n}}"
    ))
}

#[test]
fn errors_say_where_and_what() {
    insta::assert_snapshot!(problem(""), @"line 1, column 1: expected `module`, found the end of the text");
    insta::assert_snapshot!(problem("module m"), @"line 1, column 8: expected `@` and a name, found `m`");
    insta::assert_snapshot!(problem("module @m { symbol T in 1..512 }"), @"line 1, column 26: no token starts with '.'");
    insta::assert_snapshot!(problem("module @m { symbol T in 1..=99999999999999999999 }"), @"line 1, column 29: `99999999999999999999` is not a 64-bit number");
    insta::assert_snapshot!(problem("module @m { symbol T in 1..=2 symbol T in 1..=2 }"), @"line 1, column 38: there is a symbol `T` already");
    insta::assert_snapshot!(problem("module @m { weight @w : q9[3] }"), @"line 1, column 25: expected a dtype (f32, f16, bf16, f8e4m3, f8e4m3fnuz, i32, i8, u8, bool, q8_0, q4_0, q4_1, q5_0, q5_1, q4_k, q5_k, q6_k), found `q9`");
    insta::assert_snapshot!(problem("module @m { weight @w : f32[N] }"), @"line 1, column 29: there is no symbol `N` before this");
    insta::assert_snapshot!(problem("module @m { weight @\"w : f32[3] }"), @"line 1, column 20: the string does not end on its line");
    insta::assert_snapshot!(problem("module @m { weight @\"\\q\" : f32[3] }"), @r#"line 1, column 20: no such escape in a string: `\q`; known are \" \\ \n \r \t \u{…}"#);
    insta::assert_snapshot!(problem("module @m { weight @w : f32[3] } }"), @"line 1, column 34: expected the end of the text, found `}`");
    insta::assert_snapshot!(problem("module @m {\n  §\n}"), @"line 2, column 3: no token starts with '§'");
    insta::assert_snapshot!(body("    return %z"), @"line 4, column 12: there is no value `%z` before this");
    insta::assert_snapshot!(body("    %y = frobnicate %x : f32[T, 4]"), @"line 4, column 10: there is no op `frobnicate`");
    insta::assert_snapshot!(body("    %y = neg %x : f32[T, 5]\n    return %y"), @"line 4, column 19: the type is f32[T, 4], the text says f32[T, 5]");
    insta::assert_snapshot!(body("    %y = add %x : f32[T, 4]\n    return %y"), @"line 4, column 10: `add`: takes 2 operands, found 1");
    insta::assert_snapshot!(body("    %x = neg %x : f32[T, 4]\n    return %x"), @"line 4, column 5: there is a value `%x` already");
    insta::assert_snapshot!(body("    %y = reduce_sum %x : f32[T, 1]\n    return %y"), @"line 4, column 24: expected `{axis = …`, found `:`");
    insta::assert_snapshot!(body("    %y = reduce_sum %x {dim = 1} : f32[T, 1]\n    return %y"), @"line 4, column 25: expected `axis = …`, found `dim`");
    insta::assert_snapshot!(body("    %y = slice %x {axis = 1, len = 2} : f32[T, 2]\n    return %y"), @"line 4, column 30: expected `start = …`, found `len`");
    insta::assert_snapshot!(body("    %y = map %x {expr = (relu $0)} : f32[T, 4]\n    return %y"), @"line 4, column 26: expected a function of numbers, found `relu`");
    insta::assert_snapshot!(body("    %y, %z = neg %x : f32[T, 4]\n    return %y"), @"line 4, column 5: the op gives 1 results, the text names 2");
    insta::assert_snapshot!(body("    %y = reduce_sum %x {axis = 1} : f32[T, 1]\n    return %y"), @"line 3, column 29: the type is f32[T, 1], the text says f32[T, 4]");
    insta::assert_snapshot!(body("    %y = call %x {func = @f} : f32[T, 4]\n    return %y"), @"line 4, column 26: there is no function `f` before this");
}

#[test]
fn deep_expressions_are_refused() {
    let nested = |depth: usize| {
        let expr = format!("{}$0{}", "(neg ".repeat(depth), ")".repeat(depth));
        format!(
            "module @m {{ func @f(%x: f32[4]) -> (f32[4]) {{
                %y = map %x {{expr = {expr}}} : f32[4] return %y }} }}"
        )
    };
    assert!(parse(&nested(127)).is_ok());
    insta::assert_snapshot!(problem(&nested(128)), @"line 2, column 677: expressions nest too deep");
    assert!(problem(&nested(1_000_000)).contains("nest too deep"));
}

#[test]
fn unverified_modules_print() {
    use crate::module::{FuncId, Function, Inst, ValueId, WeightId};
    use crate::op::Op;
    let mut module = Module::new("odd");
    module.add_function(Function {
        name: "f".into(),
        values: vec![],
        params: vec![ValueId(3)],
        insts: vec![
            Inst {
                op: Op::Weight { weight: WeightId(7) },
                operands: vec![],
                results: vec![ValueId(9)],
            },
            Inst { op: Op::Call { func: FuncId(2) }, operands: vec![ValueId(1)], results: vec![] },
        ],
        results: vec![],
    });
    insta::assert_snapshot!(print(&module), @"
module @odd {

  func @f(%3) -> () {
    %9 = weight {weight = @<weight7>} : ()
    call %1 {func = @<func2>} : ()
    return
  }
}
");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn generated_modules_round_trip_and_run(seed: u64) {
        let module = testing::module(&mut Random::new(seed));
        prop_assert_eq!(check(&module), Ok(()));
        let text = print(&module);
        let parsed = parse(&text);
        prop_assert_eq!(parsed.as_ref(), Ok(&module), "{}", text);
        testing::run_everything(&module);
    }

    #[test]
    fn any_text_parses_or_fails(text in "\\PC*") {
        let _ = parse(&text);
    }
}

/// Mutated fixtures give an error or a module, which in turn verifies or not, prints and runs,
/// and nothing panics.
#[test]
fn mutated_fixtures_never_panic() {
    let mut random = Random::new(1);
    let (mut parsed, mut sound) = (0, 0);
    for (_, text) in fixtures() {
        for _ in 0..1000 {
            let mutated = testing::mutate(&text, &mut random);
            let Ok(module) = parse(&mutated) else { continue };
            parsed += 1;
            if check(&module).is_ok() {
                sound += 1;
                assert_eq!(parse(&print(&module)).as_ref(), Ok(&module));
                testing::run_everything(&module);
            }
        }
    }
    // Mutations that changed names and numbers only got far enough to mean something.
    assert!(parsed > 100 && sound > 100, "{parsed} parsed, {sound} verified");
}
