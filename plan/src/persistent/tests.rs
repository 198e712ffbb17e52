//! A schedule by hand: its text, its words, and what is said of what is wrong with it.

use super::testing::DECODE;
use super::*;
use crate::plan::*;
use crate::{Expr, toy};
use insta::assert_snapshot;

/// The toy plan with launches of constant grids, and two streams that run two of them.
fn case() -> (Plan, PersistentStep) {
    let mut plan = toy::plan();
    for kernel in &mut plan.kernels {
        let bytes = Expr::from(640);
        kernel.workgroup = 256;
        kernel.work = Some(Work { bytes, operations: 0.into() });
    }
    let launches = &mut plan.programs[DECODE].launches;
    launches[0].grid = 4.into();
    for arg in launches.iter_mut().flat_map(|launch| &mut launch.args) {
        if let Arg::Scalar(expr) = arg {
            *expr = Expr::Symbol(2);
        }
    }
    let facts = CodeFacts { waves_per_simd: 2, lds_bytes: 40_000, ..CodeFacts::default() };
    plan.kernels.push(Kernel {
        name: "decode_step".into(),
        summary: "streams".into(),
        workgroup: 256,
        shared_bytes: 0,
        work: None,
        facts: Some(facts),
    });
    let append = |first, count| Instruction {
        launch: 0,
        first,
        count,
        waits: vec![],
        signal: Some(0),
        prefetches: vec![Prefetch { slot: 2, offset: 16, bytes: 48 }],
    };
    let predict = |first, count| Instruction {
        launch: 1,
        first,
        count,
        waits: vec![Wait { flag: 0, value: 4 }],
        signal: Some(1),
        prefetches: vec![],
    };
    let step = PersistentStep {
        version: PERSISTENT_VERSION,
        program: DECODE,
        launches: 2,
        kernel: 3,
        bodies: vec![0, 1],
        residency: Residency { units: 2, simds: 4, wave: 64, lds_bytes: 65536 },
        flags: 2,
        streams: vec![vec![append(0, 3), predict(0, 5)], vec![append(3, 1), predict(5, 5)]],
    };
    (plan, step)
}

/// The message after `change`.
fn error(change: impl FnOnce(&mut Plan, &mut PersistentStep)) -> String {
    let (mut plan, mut step) = case();
    change(&mut plan, &mut step);
    check_persistent(&plan, &step).expect_err("the step is wrong").to_string()
}

#[test]
fn a_good_step_verifies_with_its_plan_and_survives_json() {
    let (mut plan, step) = case();
    plan.persistent = Some(step);
    plan.verify().unwrap();
    assert_eq!(Plan::from_json(&plan.to_json()).unwrap(), plan);
}

#[test]
fn prints_streams() {
    let (mut plan, step) = case();
    plan.persistent = Some(step);
    let text = plan.to_string();
    let start = text.find("persistent step").unwrap();
    assert_snapshot!(&text[start..], @r#"
    persistent step, version 1: launches 0..2 of program decode in one launch of decode_step
      code of k0, k1
      2 streams, for 2 units of 4 SIMDs with waves of 64 and 65536 bytes of LDS
      4 instructions, 2 waits, 4 signals, 2 flags in 512 bytes
      the busiest stream moves 1.250 x the mean
      stream 0: 2 instructions, 800 bytes
        0: append_0 [0..3] -> f0 prefetches 48
        1: predict_1 [0..5] when f0 >= 4 -> f1
      stream 1: 2 instructions, 480 bytes
        0: append_0 [3..4] -> f0 prefetches 48
        1: predict_1 [5..10] when f0 >= 4 -> f1
    "#);
}

#[test]
fn records_have_what_the_kernel_reads() {
    let (plan, step) = case();
    let code = step.encode(&plan).unwrap().code;
    assert_eq!(code.len(), 2 + 6 * RECORD_WORDS);
    let field = |record: usize, field: Field| code[2 + record * RECORD_WORDS + field.word()];
    assert_eq!(code[..2], [2, 2 + 3 * RECORD_WORDS as u32]);
    assert_eq!([0, 1, 2].map(|r| field(r, Field::Opcode)), [0, 1, Encoded::END]);
    // The second launch's arguments follow the five of the first.
    assert_eq!(field(1, Field::Arguments), 5);
    assert_eq!([0, 3].map(|r| field(r, Field::First)), [0, 3]);
    assert_eq!([0, 3].map(|r| field(r, Field::Count)), [3, 1]);
    assert_eq!(field(0, Field::Signal), SyncLayout::flag(0));
    assert_eq!([0, 1].map(|r| field(r, Field::Waits)), [0, 1]);
    let wait = 2 + RECORD_WORDS + Field::Wait(0).word();
    assert_eq!(code[wait..wait + 3], [SyncLayout::flag(0), 4, 4]);
    let prefetch = 2 + Field::Prefetch(0).word();
    assert_eq!(code[prefetch..prefetch + 3], [2, 16, 48]);
}

#[test]
fn names_what_is_wrong() {
    assert_snapshot!(error(|_, s| s.version = 9), @"the persistent step has version 9, this program knows 1: recompile the model");
    assert_snapshot!(error(|_, s| s.program = 9), @"the persistent step names program 9, but there are 3");
    assert_snapshot!(error(|_, s| s.launches = 9), @"the persistent step names launch 9, but there are 3");
    assert_snapshot!(error(|_, s| s.streams.clear()), @"the persistent step has no stream");
    assert_snapshot!(error(|p, _| p.programs[DECODE].launches[0].grid = Expr::Symbol(2)), @"launch 0 `append_0`: its grid is not a positive constant below 2^31");
    assert_snapshot!(error(|p, _| p.programs[DECODE].launches[1].args.push(Arg::Scalar(Expr::Symbol(1)))), @"launch 1 `predict_1`: an argument depends on more than the context length");
    assert_snapshot!(error(|p, _| p.kernels[1].workgroup = 512), @"kernel `predict_1` has workgroups of 512 work-items, the persistent kernel of 256");
    assert_snapshot!(error(|_, s| s.bodies = vec![1]), @"launch 0 `append_0` has no opcode: the persistent kernel lacks its code");
    assert_snapshot!(error(|p, _| p.kernels[3].facts = None), @"nothing is known of the registers of the persistent kernel `decode_step`");
    assert_snapshot!(error(|_, s| s.residency.units = 1), @"2 streams, but the chip holds 1 workgroups of `decode_step` at once (1 units, 1 on each): streams that wait for one that is not there never end");
    assert_snapshot!(error(|_, s| s.residency.lds_bytes = 1024), @"the persistent kernel needs 40000 bytes of LDS, a unit has 1024");
    assert_snapshot!(error(|_, s| s.streams[1][0].count = 2), @"stream 1, instruction 0 (launch 0 `append_0`): runs workgroups 3..5 of 4");
    assert_snapshot!(error(|_, s| s.streams[0][0].count = 2), @"workgroup 2 of launch 0 `append_0` never runs");
    assert_snapshot!(error(|_, s| s.streams[1][1].first = 4), @"workgroup 4 of launch 1 `predict_1` runs twice: stream 0, instruction 1 (launch 1 `predict_1`) and stream 1, instruction 1 (launch 1 `predict_1`)");
    assert_snapshot!(error(|_, s| s.streams[1][1].launch = 7), @"stream 1, instruction 1 (launch 7 `?`) names launch 7, but there are 2");
    assert_snapshot!(error(|_, s| s.streams[1][1].signal = Some(7)), @"stream 1, instruction 1 (launch 1 `predict_1`) names flag 7, but there are 2");
    assert_snapshot!(error(|_, s| s.streams[0][1].waits = vec![Wait { flag: 0, value: 4 }; 5]), @"stream 0, instruction 1 (launch 1 `predict_1`): more than 4 waits");
    assert_snapshot!(error(|_, s| s.streams[0][0].prefetches[0].bytes = 64), @"stream 0, instruction 0 (launch 0 `append_0`): prefetches what is not a range of constants, in units of 16 bytes");
    assert_snapshot!(error(|_, s| s.streams[0][0].prefetches[0].slot = 3), @"stream 0, instruction 0 (launch 0 `append_0`): prefetches what is not a range of constants, in units of 16 bytes");
    assert_snapshot!(error(|_, s| s.flags = 1 << 20), @"the persistent step: more than 65536 flags");
    assert_snapshot!(error(|_, s| s.streams[0].swap(0, 1)), @"deadlock: stream 0, instruction 0 (launch 1 `predict_1`) waits for 4 on flag 0, which gets to 1; 2 streams are stuck");
    assert_snapshot!(error(|_, s| s.streams[0][1].waits.clear()), @"stream 0, instruction 1 (launch 1 `predict_1`) may begin before stream 1, instruction 0 (launch 0 `append_0`) has ended, and both use buffer 2 `cache`");
    assert_snapshot!(error(|_, s| s.streams[0][1].waits[0].value = 3), @"stream 0, instruction 1 (launch 1 `predict_1`) may begin before stream 1, instruction 0 (launch 0 `append_0`) has ended, and both use buffer 2 `cache`");
}
