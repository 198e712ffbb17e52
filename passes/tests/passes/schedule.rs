//! The schedule of a step.

use crate::fuse::run;
use crate::model::{build, gemm, llama};
use waveloom_ir::{
    BinaryOp, DType, Dim, Expr, FunctionBuilder, InferError, Module, Op, Type, ValueId,
};
use waveloom_passes::{BufferId, BufferKind, Schedule, schedule};

const FUSION: [&str; 4] = ["fuse-map", "fuse-gemm-inputs", "fuse-prologue", "fuse-epilogue"];

/// One line per step, by names of buffers.
fn listing(module: &Module, schedule: &Schedule) -> String {
    let names = |ids: &[BufferId]| {
        let name = |id: &BufferId| schedule.buffers[id.index()].name.clone();
        ids.iter().map(name).collect::<Vec<_>>().join(", ")
    };
    let line = |step: &waveloom_passes::Step| {
        let inst = &module.functions[step.func.index()].insts[step.inst.index()];
        let op = inst.op.mnemonic();
        format!("{} = {op} {}\n", names(&step.results), names(&step.operands))
    };
    schedule.steps.iter().map(line).collect()
}

#[test]
fn calls_are_inlined_by_name() {
    let module = run(&FUSION, build(llama()));
    let schedule = schedule(&module).expect("the step has a schedule");
    insta::assert_snapshot!(listing(&module, &schedule));
    let kinds = |kind| schedule.buffers.iter().filter(|b| b.kind == kind).count();
    assert_eq!(kinds(BufferKind::Input), 3);
    assert_eq!(kinds(BufferKind::State), 4);
    assert_eq!(kinds(BufferKind::Logits), 1);
}

#[test]
fn unfused_modules_have_a_schedule_too() {
    let module = build(llama());
    let schedule = schedule(&module).expect("the step has a schedule");
    // Every instruction but weights, calls and reshapes is a step.
    assert_eq!(schedule.steps.len(), 7 + 2 * 18);
}

/// A step over one cache, whose body `body` writes: it gets the new row, the cache and positions and
/// gives logits and the new cache.
fn cache_step(
    body: impl Fn(&mut FunctionBuilder<'_>, [ValueId; 3]) -> Result<[ValueId; 2], InferError>,
) -> Module {
    let mut module = Module::new("cache");
    let t = module.add_symbol("T", 1, 4);
    let c = module.add_symbol("C", 1, 8);
    let table = module.add_weight("table", Type::f32([Dim::Const(5), Dim::Const(4)]));
    let mut b = FunctionBuilder::new(&module, "step");
    let ints = |dim| Type::new(DType::I32, [dim]);
    let tokens = b.param("tokens", ints(t.into()));
    let positions = b.param("positions", ints(t.into()));
    let last = b.param("last", ints(Dim::Const(1)));
    let cache = b.param("cache", Type::f32([c.into(), Dim::Const(4)]));
    let step = (|| {
        let table = b.weight(table)?;
        let rows = b.push1(Op::Embed {}, &[table, tokens])?;
        let [x, cache] = body(&mut b, [rows, cache, positions])?;
        let row = b.push1(Op::Embed {}, &[x, last])?;
        let logits = gemm(&mut b, row, table)?;
        Ok::<_, InferError>(b.finish(&[logits, cache]))
    })()
    .expect("well typed");
    module.add_function(step);
    module
}

type Built = Result<ValueId, InferError>;

fn append(b: &mut FunctionBuilder<'_>, cache: ValueId, new: ValueId, at: ValueId) -> Built {
    b.push1(Op::CacheAppend {}, &[cache, new, at])
}

#[test]
fn readers_of_the_old_cache_come_first() {
    let module = cache_step(|b, [rows, cache, positions]| {
        let new = append(b, cache, rows, positions)?;
        let old = b.push1(Op::Embed {}, &[cache, positions])?;
        Ok([old, new])
    });
    let schedule = schedule(&module).expect("the old cache can be read before the update");
    insta::assert_snapshot!(listing(&module, &schedule));
}

#[test]
fn caches_that_cannot_be_updated_in_place_are_errors() {
    let old_is_returned = cache_step(|b, [rows, cache, positions]| {
        let new = append(b, cache, rows, positions)?;
        let read = b.push1(Op::Embed {}, &[new, positions])?;
        Ok([read, cache])
    });
    let two_updates = cache_step(|b, [rows, cache, positions]| {
        let new = append(b, cache, rows, positions)?;
        let other = append(b, cache, rows, positions)?;
        let read = b.push1(Op::Embed {}, &[other, positions])?;
        Ok([read, new])
    });
    let copy_is_returned = cache_step(|b, [rows, cache, _]| {
        let copy = b.push1(Op::Map { expr: Expr::Operand(0) }, &[cache])?;
        Ok([rows, copy])
    });
    // The old cache is added to a row of the new one.
    let cycle = cache_step(|b, [rows, cache, positions]| {
        let new = append(b, cache, rows, positions)?;
        let zero = b.function().params[2];
        let row = b.push1(Op::Embed {}, &[new, zero])?;
        let expr = Expr::binary(BinaryOp::Add, Expr::Operand(0), Expr::Operand(1));
        let mixed = b.push1(Op::Map { expr }, &[row, cache])?;
        let read = b.push1(Op::Embed {}, &[mixed, positions])?;
        Ok([read, new])
    });
    let modules = [old_is_returned, two_updates, copy_is_returned, cycle];
    let errors = modules
        .iter()
        .chain([&Module::new("empty")])
        .map(|module| schedule(module).unwrap_err().to_string())
        .collect::<Vec<_>>();
    insta::assert_snapshot!(errors.join("\n"));
}

#[test]
fn tensor_ops_have_no_kernel() {
    let module = cache_step(|b, [rows, cache, positions]| {
        let new = append(b, cache, rows, positions)?;
        Ok([b.add(rows, rows)?, new])
    });
    insta::assert_snapshot!(schedule(&module).unwrap_err());
}
