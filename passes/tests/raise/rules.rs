//! Every rule by itself: `rules.wl` has a start and a goal for each; the rule alone, applied to the
//! start, finds the goal; and both have the same values within what the rule says of numbers.

use crate::support::{EXACT, REASSOCIATED, results, tensor_difference};
use std::collections::BTreeSet;
use std::sync::Arc;
use waveloom_ir::{FuncId, Module, parse, verify};
use waveloom_passes::RuleLimits;
use waveloom_passes::egraph::function::{empty, insert};
use waveloom_passes::egraph::saturate;
use waveloom_passes::rules::{Numerics, Rule};
use waveloom_passes::{raise, simplify};

fn examples() -> Module {
    let module = parse(include_str!("rules.wl")).expect("rules.wl parses");
    verify(module).expect("rules.wl is valid").into_module()
}

fn rules() -> impl Iterator<Item = &'static Rule> {
    raise::RULES.iter().copied().flatten()
}

/// The start and the goal of a rule.
fn example(module: &Module, rule: &Rule) -> [FuncId; 2] {
    let name = rule.name.replace('-', "_");
    ["start", "goal"].map(|end| {
        let name = format!("{name}.{end}");
        module.function(&name).unwrap_or_else(|| panic!("rules.wl has no @{name}"))
    })
}

#[test]
fn names_are_unique_and_kebab_case() {
    let mut names = BTreeSet::new();
    for rule in rules() {
        assert!(names.insert(rule.name), "{} is there twice", rule.name);
        let kebab = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        assert!(rule.name.chars().all(kebab), "{}", rule.name);
    }
    for table in simplify::RULES {
        assert!(table.iter().all(|rule| names.contains(rule.name)), "raise has what simplify has");
    }
}

#[test]
fn simplify_is_exact() {
    let rules = simplify::RULES.iter().copied().flatten();
    let inexact: Vec<&str> =
        rules.filter(|rule| rule.numerics != Numerics::Exact).map(|rule| rule.name).collect();
    assert_eq!(inexact, [""; 0]);
}

#[test]
fn each_rule_takes_its_start_to_its_goal() {
    let module = Arc::new(examples());
    for rule in rules() {
        let [start, goal] = example(&module, rule).map(|id| &module.functions[id.index()]);
        let mut graph = empty(&module, start);
        let started = insert(&mut graph, start).expect("the start is well typed");
        graph.rebuild();
        let rewrites = [rule.compile()];
        let (mut graph, counts) =
            saturate(graph, &rewrites, &RuleLimits::default()).expect("no time limit");
        assert_eq!(counts.len(), 1, "{} applies", rule.name);
        let reached = insert(&mut graph, goal).expect("the goal is well typed");
        graph.rebuild();
        let (start, goal) = (graph.find(started.root), graph.find(reached.root));
        assert_eq!(start, goal, "{}: the goal is not reached", rule.name);
    }
}

#[test]
fn both_sides_of_each_rule_have_the_same_values() {
    let module = examples();
    for rule in rules() {
        let [start, goal] = example(&module, rule);
        let tolerance = match rule.numerics {
            Numerics::Exact => EXACT,
            // In f64, a constant that underflows in f32 is far below this, too.
            Numerics::Reassociates | Numerics::Lossy => REASSOCIATED,
        };
        for seed in 1..=3 {
            let (a, b) = (results(&module, start, seed), results(&module, goal, seed));
            let difference = tensor_difference(&a[0], &b[0]);
            assert!(difference <= tolerance, "{} differs by {difference:e}", rule.name);
        }
    }
}

/// Every function of `rules.wl` belongs to a rule.
#[test]
fn no_example_is_left_over() {
    let module = examples();
    let used: BTreeSet<FuncId> = rules().flat_map(|rule| example(&module, rule)).collect();
    assert_eq!(used.len(), module.functions.len());
}
