//! Seeded miscompilations: a pipeline with one pass, or one rule of it, that is wrong. Each is found, and
//! the pass and the rewrite are named.
//!
//! Wrong rules and passes are the right ones with their result changed as the mistake would: what applies,
//! and when, is production's.

use crate::support::{first_wrong, model, pass_named, table_with};
use std::sync::LazyLock;
use waveloom_ir::{
    BinaryOp, DType, Expr, F32, GemmOutput, InstId, Layout, Module, Op, Prologue, Store, Type,
    parse,
};
use waveloom_passes::edit::{Editor, edit_functions};
use waveloom_passes::egraph::{Graph, Term};
use waveloom_passes::rules::{Find, Rule, always};
use waveloom_passes::{
    BufferKind, Numerics, Pass, PassError, PassFn, PassOptions, PassReport, Schedule, Step,
    choose_layouts, convert_weights, fuse_epilogue, fuse_prologue, plan_memory, raise,
    run_pipeline, schedule, simplify,
};
use waveloom_verify::passes::{Attempt, Culprit, Finding, bisect, memory, reduce, same_schedule};

type Rules = LazyLock<[&'static [Rule]; 1]>;
type Done = Result<(Module, PassReport), PassError>;

/// The tables of a pass with one rule replaced by another of its name.
fn with_rule(tables: &[&[Rule]], wrong: Rule) -> [&'static [Rule]; 1] {
    let rules = tables.iter().copied().flatten().copied();
    let replaced = rules.map(|rule| if rule.name == wrong.name { wrong } else { rule });
    [Box::leak(replaced.collect::<Vec<_>>().into_boxed_slice())]
}

/// A rule of `raise` by name.
fn raising(name: &str) -> &'static Rule {
    let found = raise::RULES.iter().copied().flatten().find(|rule| rule.name == name);
    found.expect("a rule of this name")
}

/// `raise` with the rule `name` offering what `find` does.
macro_rules! wrong_raise {
    ($name:literal, $numerics:ident, $find:expr) => {{
        static RULES: Rules = LazyLock::new(|| {
            let find: Find = $find;
            with_rule(raise::RULES, Rule::find(Numerics::$numerics, $name, find))
        });
        fn run(module: Module, options: &PassOptions) -> Done {
            raise::run_with(&*RULES, module, options)
        }
        Pass { rules: &*RULES, run, ..pass_named("raise") }
    }};
}

/// `simplify` with the rule `name` as this pattern.
macro_rules! wrong_simplify {
    ($name:literal, $from:literal, $to:literal) => {{
        static RULES: Rules = LazyLock::new(|| {
            let wrong = Rule::pattern(Numerics::Exact, $name, $from, $to, always);
            with_rule(simplify::RULES, wrong)
        });
        fn run(module: Module, options: &PassOptions) -> Done {
            simplify::run_with(&*RULES, module, options)
        }
        Pass { rules: &*RULES, run, ..pass_named("simplify") }
    }};
}

/// A pass whose instructions are changed after it.
fn altered(pass: PassFn, module: Module, options: &PassOptions, alter: impl Fn(&mut Op)) -> Done {
    let (mut module, report) = pass(module, options)?;
    let insts = module.functions.iter_mut().flat_map(|function| &mut function.insts);
    insts.for_each(|inst| alter(&mut inst.op));
    Ok((module, report))
}

/// A term with its op's attributes changed, wherever `alter` says so.
fn altered_term(term: Term, alter: &impl Fn(&mut Op, &mut Vec<Term>)) -> Term {
    match term {
        Term::Have(id) => Term::Have(id),
        Term::Make(mut op, args) => {
            let mut args = args.into_iter().map(|arg| altered_term(arg, alter)).collect();
            alter(&mut op, &mut args);
            Term::Make(op, args)
        }
    }
}

/// What a rule of `raise` offers, changed.
fn offered(
    name: &str,
    graph: &Graph,
    id: egg::Id,
    alter: impl Fn(&mut Op, &mut Vec<Term>),
) -> Vec<Term> {
    let terms = raising(name).offers(graph, id).into_iter();
    terms.map(|term| altered_term(term, &alter)).collect()
}

/// Finds the first wrong pass, its first wrong rewrite, and what is left of the module that shows it.
fn caught(wrong: Pass, module: &Module) -> (Culprit, Finding, Module) {
    let options = PassOptions::default();
    let table = table_with(wrong);
    let (pass, finding, before) = first_wrong(&table, module, &options)
        .unwrap_or_else(|| panic!("{} is not found", wrong.name));
    assert_eq!(pass, wrong.name, "{finding}");
    let attempt = Attempt { pass: &wrong, options: &options, seed: 0 };
    let fault = attempt.run(&before).err().expect("it is wrong again");
    let fails = |module: &Module| attempt.run(module).is_err_and(|other| other.is_like(&fault));
    let reduced = reduce(&before, &mut { fails });
    let again = attempt.run(&reduced).err().expect("what is left is wrong, too");
    let culprit = bisect(&attempt, &reduced);
    println!("{pass}: {again}\n  {culprit}\n  {} instructions", size(&reduced));
    assert_eq!(
        bisect(&attempt, &before).rule,
        culprit.rule,
        "the whole module blames another rule"
    );
    (culprit, finding, reduced)
}

fn size(module: &Module) -> usize {
    module.functions.iter().map(|function| function.insts.len()).sum()
}

/// A mistake of a rewrite is found, and named by rule and function.
fn named(wrong: Pass, module: &Module, rule: &str, function: &str, most: usize) {
    let (culprit, _, reduced) = caught(wrong, module);
    assert_eq!(culprit.rule.as_deref(), Some(rule));
    assert_eq!(culprit.function.as_deref(), Some(function));
    assert!(culprit.at.is_some());
    assert!(size(&reduced) <= most, "{} instructions are left: {reduced}", size(&reduced));
}

#[test]
fn a_norm_raised_without_its_epsilon() {
    let wrong = wrong_raise!("raise-norm", Reassociates, |graph, id| {
        offered("raise-norm", graph, id, |op, _| {
            if let Op::Norm { eps } = op {
                *eps = F32(0.0);
            }
        })
    });
    named(wrong, &model("llama"), "raise-norm", "layer", 8);
}

#[test]
fn a_rope_raised_with_neighbours_as_pairs() {
    let wrong = wrong_raise!("raise-rope-full-width", Reassociates, |graph, id| {
        offered("raise-rope-full-width", graph, id, |op, args| {
            if let (Op::Rope {}, Term::Make(Op::Reshape { shape }, _)) = (&*op, &args[0]) {
                let (shape, half) = (shape.clone(), shape[2]);
                let half = match half {
                    waveloom_ir::Dim::Const(width) => width / 2,
                    waveloom_ir::Dim::Symbol(_) => return,
                };
                let pairs = vec![shape[0], shape[1], half.into(), 2.into()];
                let x = args[0].clone().reshape(pairs).transpose([0, 1, 3, 2]);
                args[0] = x.reshape(shape);
            }
        })
    });
    named(wrong, &model("llama"), "raise-rope-full-width", "layer", 16);
}

#[test]
fn an_attention_raised_without_its_window() {
    let wrong = wrong_raise!("raise-attention", Lossy, |graph, id| {
        offered("raise-attention", graph, id, |op, _| {
            if let Op::Attention { attr } = op {
                attr.window = None;
            }
        })
    });
    named(wrong, &model("mistral"), "raise-attention", "layer", 40);
}

#[test]
fn an_attention_raised_with_another_scale() {
    let wrong = wrong_raise!("raise-attention", Lossy, |graph, id| {
        offered("raise-attention", graph, id, |op, _| {
            if let Op::Attention { attr } = op {
                attr.scale.0 *= 1.0 + 1e-5;
            }
        })
    });
    named(wrong, &model("qwen3"), "raise-attention", "layer", 40);
}

#[test]
fn a_sign_lost_in_a_product() {
    let module = parse(
        "module @m {
            symbol T in 1..=4
            func @f(%x: f32[T, 8], %y: f32[T, 8]) -> (f32[T, 8]) {
                %a = add %x, %y : f32[T, 8]
                %n = neg %a : f32[T, 8]
                %p = mul %n, %y : f32[T, 8]
                %q = mul %p, %p : f32[T, 8]
                %r = add %q, %p : f32[T, 8]
                return %r
            }
        }",
    );
    let wrong = wrong_simplify!("neg-mul", "(mul (neg ?x) ?y)", "(mul ?x ?y)");
    named(wrong, &module.expect("well formed"), "neg-mul", "f", 2);
}

#[test]
fn a_division_that_multiplies() {
    let module = parse(
        "module @m {
            symbol T in 1..=4
            func @f(%x: f32[T, 8], %y: f32[T, 8]) -> (f32[T, 8]) {
                %c = constant {value = 3.0, ty = f32[]} : f32[]
                %e = constant {value = 5.0, ty = f32[]} : f32[]
                %d = div %x, %c : f32[T, 8]
                %m = mul %d, %e : f32[T, 8]
                %s = add %m, %y : f32[T, 8]
                return %s
            }
        }",
    );
    let wrong = wrong_raise!("div-by-splat", Reassociates, |graph, id| {
        offered("div-by-splat", graph, id, |op, _| {
            if let Op::Constant { value, .. } = op {
                value.0 = value.0.recip();
            }
        })
    });
    named(wrong, &module.expect("well formed"), "div-by-splat", "f", 4);
}

#[test]
fn a_norm_fused_without_its_epsilon() {
    fn run(module: Module, options: &PassOptions) -> Done {
        altered(fuse_prologue::run, module, options, |op| {
            if let Op::Gemm { attr } = op {
                let zero = |Prologue::RmsNorm { .. }| Prologue::RmsNorm { eps: F32(0.0) };
                attr.prologue = attr.prologue.map(zero);
            }
        })
    }
    let wrong = Pass { run, ..pass_named("fuse-prologue") };
    named(wrong, &model("llama"), "norm-into-gemm", "layer", 2);
}

#[test]
fn an_epilogue_in_another_order() {
    // The norm of a head and its rotation change places.
    fn swapped(expr: &Expr) -> Expr {
        match expr {
            Expr::Rope { x, cos, sin, head_dim } => match &**x {
                Expr::HeadNorm { x, weight, eps, head_dim: normed } => {
                    let (x, head_dim) = (x.clone(), *head_dim);
                    let rope = Expr::Rope { x, cos: *cos, sin: *sin, head_dim };
                    let (weight, eps, head_dim) = (*weight, *eps, *normed);
                    Expr::HeadNorm { x: Box::new(rope), weight, eps, head_dim }
                }
                _ => expr.clone(),
            },
            _ => expr.clone(),
        }
    }
    fn run(module: Module, options: &PassOptions) -> Done {
        altered(fuse_epilogue::run, module, options, |op| {
            if let Op::Gemm { attr } = op {
                attr.outputs.iter_mut().for_each(|output| output.expr = swapped(&output.expr));
            }
        })
    }
    let wrong = Pass { run, ..pass_named("fuse-epilogue") };
    named(wrong, &model("qwen3"), "rope-into-gemm", "layer", 5);
}

#[test]
fn a_residual_that_is_subtracted() {
    fn negated(expr: &Expr) -> Expr {
        match expr {
            Expr::Binary(BinaryOp::Add, x, y) if matches!(**x, Expr::Operand(_)) => {
                Expr::Binary(BinaryOp::Sub, x.clone(), y.clone())
            }
            other => other.clone(),
        }
    }
    fn run(module: Module, options: &PassOptions) -> Done {
        altered(fuse_epilogue::run, module, options, |op| {
            if let Op::Gemm { attr } = op {
                attr.outputs.iter_mut().for_each(|output| output.expr = negated(&output.expr));
            }
        })
    }
    let wrong = Pass { run, ..pass_named("fuse-epilogue") };
    named(wrong, &model("llama"), "map-into-gemm", "layer", 2);
}

/// Gemms that read different rows as one: the condition of `fuse-gemm-inputs` without what it says of x.
#[test]
fn gemms_of_different_rows_made_one() {
    fn partner(editor: &Editor<'_>, first: InstId) -> Option<InstId> {
        let plain = |id: InstId| {
            let inst = editor.inst(id)?;
            matches!(&inst.op, Op::Gemm { attr } if attr.weights == 1).then_some(inst)
        };
        let x = plain(first)?.operands[0];
        (first.0 + 1..first.0 + 64).map(InstId).find(|&id| {
            plain(id).is_some_and(|other| {
                other.operands[0] != x && editor.ty(other.operands[0]) == editor.ty(x)
            })
        })
    }
    fn merge(editor: &mut Editor<'_>, first: InstId) -> Result<Option<&'static str>, PassError> {
        let Some(second) = partner(editor, first) else { return Ok(None) };
        let parts = [first, second].map(|id| editor.inst(id).cloned());
        let [Some(a), Some(b)] = parts else { return Ok(None) };
        let (Op::Gemm { attr }, Op::Gemm { .. }) = (&a.op, &b.op) else { return Ok(None) };
        let mut attr = attr.clone();
        attr.weights = 2;
        attr.outputs.push(GemmOutput { expr: Expr::Acc(1), store: Store::Dense });
        let operands = vec![a.operands[0], a.operands[1], b.operands[1]];
        let made = editor.insert(first, Op::Gemm { attr }, operands)?;
        for (old, new) in [a.results[0], b.results[0]].into_iter().zip(made) {
            editor.replace(old, new)?;
        }
        Ok(Some("merge-gemms"))
    }
    fn run(module: Module, options: &PassOptions) -> Done {
        edit_functions("fuse-gemm-inputs", module, options, |editor, report| {
            editor.until_stable(report, merge)
        })
    }
    let wrong = Pass { run, ..pass_named("fuse-gemm-inputs") };
    named(wrong, &model("llama"), "merge-gemms", "layer", 20);
}

/// A pass that is wrong without a rewrite of its own.
fn unnamed(wrong: Pass, module: &Module) -> Finding {
    let (culprit, finding, _) = caught(wrong, module);
    assert_eq!(culprit.rule, None);
    finding
}

#[test]
fn functions_made_one_that_differ() {
    let module = parse(
        "module @m {
            symbol T in 1..=4
            func @first(%x: f32[T, 8]) -> (f32[T, 8]) {
                %y = neg %x : f32[T, 8]
                return %y
            }
            func @second(%x: f32[T, 8]) -> (f32[T, 8]) {
                %y = abs %x : f32[T, 8]
                return %y
            }
            func @f(%x: f32[T, 8]) -> (f32[T, 8]) {
                %a = call %x {func = @first} : f32[T, 8]
                %b = call %a {func = @second} : f32[T, 8]
                return %b
            }
        }",
    );
    fn run(module: Module, options: &PassOptions) -> Done {
        let (mut module, mut report) = convert_weights::run(module, options)?;
        let (Some(first), Some(second)) = (module.function("first"), module.function("second"))
        else {
            return Ok((module, report));
        };
        for inst in module.functions.iter_mut().flat_map(|f| &mut f.insts) {
            if inst.op == (Op::Call { func: second }) {
                inst.op = Op::Call { func: first };
            }
        }
        report.count("merge-equal-functions");
        Ok((module, report))
    }
    let wrong = Pass { run, ..pass_named("convert-weights") };
    let finding = unnamed(wrong, &module.expect("well formed"));
    assert_eq!(finding.function(), Some("second"), "{finding}");
}

#[test]
fn layouts_of_keys_and_values_swapped() {
    fn run(module: Module, options: &PassOptions) -> Done {
        let mut swapped = options.clone();
        std::mem::swap(&mut swapped.layout.keys, &mut swapped.layout.values);
        choose_layouts::run(module, &swapped)
    }
    let wrong = Pass { run, ..pass_named("choose-layouts") };
    let finding = unnamed(wrong, &model("llama"));
    assert!(matches!(finding, Finding::Structure { .. }), "{finding}");
}

/// A cache that is rounded more than its dtype says.
#[test]
fn a_cache_of_too_few_bits() {
    fn run(module: Module, options: &PassOptions) -> Done {
        let (mut module, report) = choose_layouts::run(module, options)?;
        for value in module.functions.iter_mut().flat_map(|f| &mut f.values) {
            if value.ty.layout != Layout::RowMajor {
                value.ty.dtype = DType::F8E4M3;
            }
        }
        Ok((module, report))
    }
    let wrong = Pass { numerics: Numerics::Exact, run, ..pass_named("choose-layouts") };
    let finding = unnamed(wrong, &model("llama"));
    assert!(matches!(finding, Finding::Differs(_)), "{finding}");
}

fn scheduled() -> (Module, Schedule) {
    let options = PassOptions::default();
    let module = run_pipeline(model("llama"), &options, &mut |_| Ok(())).expect("it compiles");
    let schedule = schedule(&module).expect("a schedule");
    (module, schedule)
}

#[test]
fn a_schedule_in_another_order() {
    let (module, schedule) = scheduled();
    same_schedule(&module, &schedule).expect("the order is right");
    let mut found = 0;
    for at in 1..schedule.steps.len() {
        let mut wrong = schedule.clone();
        wrong.steps.swap(at - 1, at);
        // Most neighbours depend on each other.
        found += usize::from(same_schedule(&module, &wrong).is_err());
    }
    assert!(found * 2 > schedule.steps.len(), "{found} of {}", schedule.steps.len());
    let mut wrong = schedule.clone();
    // A step that reads another layer's cache.
    let states = |step: &Step| {
        step.operands.iter().position(|id| schedule.buffers[id.index()].kind == BufferKind::State)
    };
    let mut steps = wrong.steps.iter_mut().filter(|step| states(step).is_some());
    let (first, last) = (steps.next().expect("a step"), steps.next_back().expect("another"));
    let (from, to) = (states(last).expect("a cache"), states(first).expect("a cache"));
    first.operands[to] = last.operands[from];
    assert!(same_schedule(&module, &wrong).is_err());
}

#[test]
fn a_memory_plan_that_overlaps() {
    let (module, schedule) = scheduled();
    let plan = plan_memory(&module, &schedule).expect("a plan");
    memory(&module, &schedule, &plan).expect("the plan is right");
    let placed = |index: &usize| plan.offsets[*index].is_some_and(|offset| offset > 0);
    let mut found = 0;
    for index in (0..plan.offsets.len()).filter(placed) {
        let mut wrong = plan.clone();
        wrong.offsets[index] = Some(0);
        found += usize::from(memory(&module, &schedule, &wrong).is_err());
    }
    assert!(found > 0);
}

/// A pass that fails is named, and what makes it fail is made small.
#[test]
fn passes_that_fail() {
    fn fails_at(mnemonic: &str, module: &Module) -> bool {
        module.functions.iter().flat_map(|f| &f.insts).any(|inst| inst.op.mnemonic() == mnemonic)
    }
    fn panics(module: Module, options: &PassOptions) -> Done {
        let (module, report) = raise::run(module, options)?;
        assert!(!fails_at("attention", &module), "no attention, please");
        Ok((module, report))
    }
    fn spoils(module: Module, options: &PassOptions) -> Done {
        let (mut module, report) = fuse_prologue::run(module, options)?;
        for function in module.functions.iter_mut().filter(|_| report.total() > 0) {
            function.values[function.results[0].index()].ty = Type::f32([]);
        }
        Ok((module, report))
    }
    for (run, name, left, rule) in [
        (panics as PassFn, "raise", 40, None),
        (spoils, "fuse-prologue", 6, Some("norm-into-gemm")),
    ] {
        let wrong = Pass { run, ..pass_named(name) };
        let options = PassOptions::default();
        let mut before = None;
        let run = run_pipeline(model("llama"), &options, &mut |event| {
            if event.pass.name == name {
                before = Some(event.before.clone());
            }
            Ok(())
        });
        run.expect("the right passes run");
        let before = before.expect("the pass was run");
        let attempt = Attempt { pass: &wrong, options: &options, seed: 0 };
        let fault = attempt.run(&before).err().expect("it fails");
        let reduced = reduce(&before, &mut |module| {
            attempt.run(module).is_err_and(|other| other.is_like(&fault))
        });
        assert!(size(&reduced) <= left, "{}: {reduced}", size(&reduced));
        let culprit = bisect(&attempt, &reduced);
        println!("{fault}\n  {culprit}\n  {} instructions", size(&reduced));
        if let Some(rule) = rule {
            assert_eq!(culprit.rule.as_deref(), Some(rule));
        }
    }
}
