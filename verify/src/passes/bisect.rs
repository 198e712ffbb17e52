//! The first rewrite of a pass that is wrong.
//!
//! Rules of the rewrite engine only ever claim that two values are equal, and what they claim stays in the
//! e-graph. So the e-graph is evaluated: every node of a class must have the class's value. The first
//! application after which one has not is the wrong one, whether or not extraction then took what it
//! offers ([`Equalities`]). What other passes do stands by itself after every rewrite: there the module
//! after n rewrites is judged as the pass is.

use super::attempt::Attempt;
use super::finding::spelled;
use super::inputs::{Case, converted};
use super::values::stand_in;
use egg::{Id, Rewrite};
use serde::Serialize;
use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use waveloom_ir::interp::{Bounded, Data};
use waveloom_ir::{Function, Inst, Interpreter, Module, Tensor, Type, WeightId};
use waveloom_passes::RuleLimits;
use waveloom_passes::egraph::function::{Loaded, load};
use waveloom_passes::egraph::{FactKeeper, Graph, Head, Node, saturate};
use waveloom_passes::rules::Rule;

/// A wrong rewrite.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Culprit {
    /// The rule or rewrite; `None` where the fault is there before any is applied.
    pub rule: Option<String>,
    /// How many were applied with it, it being the last.
    pub application: u64,
    /// All that the pass applies.
    pub of: u64,
    /// The function that it was applied to.
    pub function: Option<String>,
    /// What it was applied to there.
    pub at: Option<String>,
}

impl fmt::Display for Culprit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.rule {
            Some(rule) => {
                write!(f, "rule `{rule}`, rewrite {} of {}", self.application, self.of)?;
            }
            None if self.application > 0 => {
                write!(f, "rewrite {} of {}", self.application, self.of)?;
            }
            None => write!(f, "no rewrite, but what the pass does besides")?,
        }
        if let Some(function) = &self.function {
            write!(f, ", in @{function}")?;
        }
        match &self.at {
            Some(at) => write!(f, " at `{at}`"),
            None => Ok(()),
        }
    }
}

/// Finds the first wrong rewrite of a pass that is wrong on `before`.
pub fn bisect(attempt: &Attempt<'_>, before: &Module) -> Culprit {
    // A rule that panics does so here, too; the steps of a pass are run with that in mind.
    let equality = catch_unwind(AssertUnwindSafe(|| wrong_equality(attempt, before)));
    equality.ok().flatten().unwrap_or_else(|| wrong_step(attempt, before))
}

/// The smallest number in `1..=most` for which `wrong` holds, if it holds for the largest and not for 0.
/// Where it changes more than once, one of the places where it begins.
fn first(most: u64, mut wrong: impl FnMut(u64) -> bool) -> Option<u64> {
    if most == 0 || wrong(0) || !wrong(most) {
        return None;
    }
    let (mut right, mut found) = (0, most);
    while found - right > 1 {
        let middle = right + (found - right) / 2;
        match wrong(middle) {
            true => found = middle,
            false => right = middle,
        }
    }
    Some(found)
}

/// The rewrite that the second report has more of.
fn added(fewer: &[(String, u64)], more: &[(String, u64)]) -> Option<String> {
    let count =
        |name: &String| fewer.iter().find(|(known, _)| known == name).map_or(0, |(_, n)| *n);
    more.iter().find(|(name, times)| *times > count(name)).map(|(name, _)| name.clone())
}

/// By the module after each number of rewrites.
fn wrong_step(attempt: &Attempt<'_>, before: &Module) -> Culprit {
    let made = |n| attempt.unjudged(before, n);
    let fails = |n: &u64| attempt.run_up_to(before, Some(*n)).is_err();
    // A pass that gives nothing does not say how many it would have applied.
    let all = made(None).map(|(_, report)| report.total());
    let of = all.or_else(|| (0..20).map(|bits| 1 << bits).find(fails)).unwrap_or(0);
    let none = Culprit { rule: None, application: 0, of, function: None, at: None };
    let Some(application) = first(of, |n| fails(&n)) else { return none };
    let (Some((right, fewer)), wrong) = (made(Some(application - 1)), made(Some(application)))
    else {
        return Culprit { application, ..none };
    };
    let Some((wrong, more)) = wrong else { return Culprit { application, ..none } };
    let rule = added(&fewer.rewrites, &more.rewrites);
    let (function, at) = changed(&right, &wrong);
    Culprit { rule, application, function, at, ..none }
}

/// The first instruction of `right` that `wrong` has not, with its function.
fn changed(right: &Module, wrong: &Module) -> (Option<String>, Option<String>) {
    let mut pairs = right.functions.iter().zip(&wrong.functions);
    let Some((old, new)) = pairs.find(|(old, new)| old != new) else { return (None, None) };
    let is_gone = |inst: &&Inst| {
        !new.insts
            .iter()
            .any(|other| other.op == inst.op && spelled(old, inst) == spelled(new, other))
    };
    let inst = old.insts.iter().find(is_gone);
    (Some(old.name.clone()), inst.map(|inst| spelled(old, inst)))
}

/// By the classes of the e-graph after each number of applications.
fn wrong_equality(attempt: &Attempt<'_>, before: &Module) -> Option<Culprit> {
    if attempt.pass.rules.is_empty() {
        return None;
    }
    let rules: Vec<_> = attempt.pass.rules.iter().copied().flatten().map(Rule::compile).collect();
    let module = Arc::new(before.clone());
    let case = Case::all(before, attempt.seed).into_iter().next()?;
    let mut earlier = 0;
    let mut culprit = None;
    for function in &before.functions {
        let equalities =
            Equalities { attempt, module: &module, function, rules: &rules, case: &case };
        let all = equalities.after(None)?;
        let count = |counts: &[(String, u64)]| counts.iter().map(|(_, n)| n).sum::<u64>();
        let most = count(&all.counts);
        if culprit.is_none()
            && let Some(n) =
                first(most, |n| equalities.after(Some(n)).is_some_and(|e| e.wrong.is_some()))
        {
            let [fewer, more] = [n - 1, n].map(|n| equalities.after(Some(n)));
            let more = more?;
            culprit = Some(Culprit {
                rule: added(&fewer?.counts, &more.counts),
                application: earlier + n,
                of: 0,
                function: Some(function.name.clone()),
                at: more.wrong,
            });
        }
        earlier += most;
    }
    culprit.map(|culprit| Culprit { of: earlier, ..culprit })
}

/// What rules claim to be equal to what a function computes.
struct Equalities<'a> {
    attempt: &'a Attempt<'a>,
    module: &'a Arc<Module>,
    function: &'a Function,
    rules: &'a [Rewrite<Node, FactKeeper>],
    case: &'a Case,
}

/// An e-graph, judged.
struct Judged {
    /// What was applied.
    counts: Vec<(String, u64)>,
    /// What a class with a wrong node was, in the function or as an op.
    wrong: Option<String>,
}

/// The values of an op's results.
type Values = Vec<Rc<Tensor<Bounded>>>;

impl Equalities<'_> {
    /// After so many applications; `None` where the function has no values.
    fn after(&self, rewrites: Option<u64>) -> Option<Judged> {
        let mut loaded = load(self.attempt.pass.name, self.module, self.function).ok()?;
        let limits = RuleLimits { max_rewrites: rewrites, ..self.attempt.options.rules };
        let original = loaded.graph.clone();
        let (graph, counts) = saturate(loaded.graph, self.rules, &limits).ok()?;
        loaded.graph = graph;
        let wrong = self.wrong_class(&original, &loaded);
        let wrong = wrong.map(|class| self.place(&loaded, class));
        Some(Judged { counts, wrong })
    }

    /// The value of the function in this class, or an op of it.
    fn place(&self, loaded: &Loaded, class: Id) -> String {
        let is_here = |id: &Id| loaded.graph.find(*id) == class;
        let value = loaded.values.iter().position(|id| id.as_ref().is_some_and(is_here));
        let made_by = |value: usize| {
            let makes = |inst: &&Inst| inst.results.iter().any(|r| r.index() == value);
            self.function.insts.iter().find(makes)
        };
        let nodes = || {
            let nodes = loaded.graph[class].nodes.iter();
            let ops = nodes.filter_map(|node| match &node.head {
                Head::Op(op) => Some(op.mnemonic()),
                _ => None,
            });
            ops.collect::<Vec<_>>().join(" = ")
        };
        value.and_then(made_by).map_or_else(nodes, |inst| spelled(self.function, inst))
    }

    /// A class of which two nodes have different values, or that was two classes of different value.
    fn wrong_class(&self, original: &Graph, loaded: &Loaded) -> Option<Id> {
        let case = self.case;
        let weight = |id: WeightId| {
            let declared = &self.module.weights[id.index()];
            Ok(converted(&case.weight(&declared.name, &declared.ty, None), &[]))
        };
        let interpreter = Interpreter::with_values(self.module, &weight).with_calls(&stand_in);
        let graph = &loaded.graph;
        let mut values: HashMap<Id, Values> = HashMap::new();
        // First what the function itself computes, then all that is claimed to be equal.
        for of in [original, graph] {
            let mut open: Vec<(Id, &Node)> = of
                .classes()
                .flat_map(|class| class.nodes.iter().map(move |n| (class.id, n)))
                .collect();
            open.sort_by_key(|(id, _)| *id);
            loop {
                let before = open.len();
                let mut later = vec![];
                for (id, node) in open {
                    let class = graph.find(id);
                    let args: Option<Vec<&Values>> =
                        node.children.iter().map(|child| values.get(&graph.find(*child))).collect();
                    let Some(args) = args else {
                        later.push((id, node));
                        continue;
                    };
                    let types = &graph[class].data.types;
                    let Some(found) = self.value(&interpreter, node, &args, types) else {
                        continue;
                    };
                    match values.get(&class) {
                        Some(known) if !agree(known, &found) => return Some(class),
                        Some(_) => {}
                        None => {
                            values.insert(class, found);
                        }
                    }
                }
                open = later;
                if open.is_empty() || open.len() == before {
                    break;
                }
            }
        }
        None
    }

    /// The value of a node; `None` for the results of the function, and what has none.
    fn value(
        &self,
        interpreter: &Interpreter<'_, Bounded>,
        node: &Node,
        args: &[&Values],
        types: &[Type],
    ) -> Option<Values> {
        match &node.head {
            Head::Results => None,
            Head::Project(index) => Some(vec![Rc::clone(args.first()?.get(*index as usize)?)]),
            Head::Param(index) => {
                let input = self.case.input(self.module, self.function, *index as usize);
                Some(vec![Rc::new(converted(&input, &[]))])
            }
            Head::Op(op) => {
                let args: Option<Values> = args.iter().map(|arg| arg.first().cloned()).collect();
                let types: Vec<&Type> = types.iter().collect();
                interpreter.apply(op, &args?, &types, &self.case.extents).ok()
            }
        }
    }
}

/// Whether two values may be the same.
fn agree(a: &Values, b: &Values) -> bool {
    let same = |(a, b): (&Rc<Tensor<Bounded>>, &Rc<Tensor<Bounded>>)| match (&a.data, &b.data) {
        (Data::Real(x), Data::Real(y)) => {
            let near = |(x, y): (&Bounded, &Bounded)| {
                let same = x.value == y.value || x.value.is_nan() && y.value.is_nan();
                same || (x.value - y.value).abs() <= x.error + y.error
            };
            a.shape == b.shape && x.iter().zip(y).all(near)
        }
        (x, y) => a.shape == b.shape && x == y,
    };
    a.len() == b.len() && a.iter().zip(b).all(same)
}
