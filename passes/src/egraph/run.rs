//! Running rules over a function: saturate, extract, write back.

use super::extract::extract;
use super::function::{load, unload};
use super::{Counts, FactKeeper, Graph, Node, Roofline};
use crate::pass::{PassError, PassReport, RuleLimits};
use crate::provenance::ValueMap;
use crate::rules::Rule;
use egg::{Rewrite, RewriteScheduler, Runner, SearchMatches, StopReason};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use waveloom_ir::{Function, Module};

/// Rewrites every function of a module with `rules`.
pub fn rewrite_module(
    pass: &'static str,
    mut module: Module,
    rules: &[&[Rule]],
    roofline: &Roofline,
    limits: &RuleLimits,
) -> Result<(Module, PassReport), PassError> {
    let declarations = Arc::new(module.clone());
    let compiled: Vec<_> = rules.iter().flat_map(|table| table.iter().map(Rule::compile)).collect();
    let mut limits = *limits;
    let mut report = PassReport::default();
    for function in &mut module.functions {
        let (rewritten, values, counts) =
            rewrite(pass, &declarations, function, &compiled, roofline, &limits)?;
        let applied = counts.iter().map(|(_, count)| count).sum::<u64>();
        limits.max_rewrites = limits.max_rewrites.map(|left| left.saturating_sub(applied));
        for (name, count) in counts {
            report.add(&name, count);
        }
        report.values.insert(rewritten.name.clone(), values);
        *function = rewritten;
    }
    Ok((module, report))
}

/// Rewrites one function: the cheapest equal one that the rules find within the limits, what its values
/// were, and what was applied.
pub fn rewrite(
    pass: &'static str,
    module: &Arc<Module>,
    function: &Function,
    rules: &[Rewrite<Node, FactKeeper>],
    roofline: &Roofline,
    limits: &RuleLimits,
) -> Result<(Function, ValueMap, Counts), PassError> {
    let mut loaded = load(pass, module, function)?;
    let (graph, counts) = saturate(loaded.graph, rules, limits).map_err(|problem| {
        PassError::Unsupported { pass, problem: format!("@{}: {problem}", function.name) }
    })?;
    loaded.graph = graph;
    let (choice, _) = extract(&loaded, roofline).ok_or_else(|| PassError::Invalid {
        pass,
        problem: format!("nothing could be extracted for @{}", function.name),
    })?;
    let (function, values) = unload(pass, &loaded, &choice, function)?;
    Ok((function, values, counts))
}

/// Applies rules until nothing is new or a limit is met; what was applied how often.
pub fn saturate(
    graph: Graph,
    rules: &[Rewrite<Node, FactKeeper>],
    limits: &RuleLimits,
) -> Result<(Graph, Counts), String> {
    let left = Rc::new(Cell::new(limits.max_rewrites.unwrap_or(u64::MAX)));
    let runner: Runner<Node, FactKeeper> = Runner::new(graph.analysis.clone())
        .with_egraph(graph)
        .with_scheduler(Budget { left })
        .with_hook(|runner| {
            runner.egraph.analysis.views.clear();
            Ok(())
        })
        .with_iter_limit(limits.iterations)
        .with_node_limit(limits.nodes)
        .with_time_limit(Duration::MAX)
        .run(rules);
    if let Some(StopReason::TimeLimit(_)) = runner.stop_reason {
        return Err("the rewrite engine met a time limit".to_string());
    }
    let mut counts = Counts::new();
    for (name, count) in runner.iterations.iter().flat_map(|i| &i.applied) {
        match counts.iter_mut().find(|(known, _)| known == name.as_str()) {
            Some((_, sum)) => *sum += *count as u64,
            None => counts.push((name.to_string(), *count as u64)),
        }
    }
    Ok((runner.egraph, counts))
}

/// Applies every match of every rule in every round, up to a number of rewrites in all.
struct Budget {
    left: Rc<Cell<u64>>,
}

impl RewriteScheduler<Node, FactKeeper> for Budget {
    fn apply_rewrite(
        &mut self,
        _iteration: usize,
        graph: &mut Graph,
        rewrite: &Rewrite<Node, FactKeeper>,
        matches: Vec<SearchMatches<'_, Node>>,
    ) -> usize {
        let mut applied = 0;
        for found in matches {
            for subst in found.substs {
                if self.left.get() == 0 {
                    return applied;
                }
                let single = SearchMatches { eclass: found.eclass, substs: vec![subst], ast: None };
                if !rewrite.apply(graph, &[single]).is_empty() {
                    applied += 1;
                    self.left.set(self.left.get() - 1);
                }
            }
        }
        applied
    }
}
