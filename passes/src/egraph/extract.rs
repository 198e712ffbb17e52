//! Choosing one node per class so that the whole function is cheapest.
//!
//! First the cheapest tree of every class (which is acyclic, since every node costs something);
//! then classes are switched to other nodes as long as that makes the function cheaper with
//! shared values counted once. Both steps go in the order of class ids, so the result is the same
//! every time.

use super::function::{Choice, Loaded};
use super::{Graph, Head, Node, Roofline};
use egg::Id;
use std::collections::{BTreeMap, BTreeSet};
use waveloom_ir::Type;

/// Added to nodes that rules made: of two programs that cost the same, the one that was written
/// is kept.
const NOVELTY_SECONDS: f64 = 1e-13;

/// The cheapest choice found, and its cost in seconds.
pub fn extract(loaded: &Loaded, roofline: &Roofline) -> Option<(Choice, f64)> {
    let candidates = Candidates::new(loaded, roofline);
    let mut choice = candidates.cheapest_trees();
    let root = loaded.graph.find(loaded.root);
    choice.get(&root)?;
    let mut cost = candidates.cost(&choice, root)?;
    while let Some(cheaper) = candidates.improve(&mut choice, root, cost) {
        cost = cheaper;
    }
    let used = candidates.reachable(&choice, root)?;
    let chosen = used.into_iter().map(|id| (id, candidates.nodes[&id][choice[&id]].0.clone()));
    Some((chosen.collect(), cost))
}

/// The nodes of every class, children canonical, each with its own cost.
struct Candidates {
    nodes: BTreeMap<Id, Vec<(Node, f64)>>,
}

/// Index of the node of every class.
type Picks = BTreeMap<Id, usize>;

impl Candidates {
    fn new(loaded: &Loaded, roofline: &Roofline) -> Candidates {
        let graph = &loaded.graph;
        let canonical = |node: &Node| egg::Language::map_children(node.clone(), |c| graph.find(c));
        let original: BTreeSet<Node> = loaded.original.iter().map(canonical).collect();
        let cost = |node: &Node| {
            let novelty = if original.contains(node) { 0.0 } else { NOVELTY_SECONDS };
            own_cost(graph, roofline, node) + novelty
        };
        let nodes = graph.classes().map(|class| {
            let priced = class.nodes.iter().map(|node| {
                let node = canonical(node);
                let cost = cost(&node);
                (node, cost)
            });
            (class.id, priced.collect())
        });
        Candidates { nodes: nodes.collect() }
    }

    fn cheapest_trees(&self) -> Picks {
        let mut best: BTreeMap<Id, (f64, usize)> = BTreeMap::new();
        loop {
            let mut changed = false;
            for (&id, nodes) in &self.nodes {
                for (index, (node, own)) in nodes.iter().enumerate() {
                    let children = node.children.iter().map(|c| best.get(c).map(|b| b.0));
                    let Some(children) = children.sum::<Option<f64>>() else {
                        continue;
                    };
                    // Capped, so that deep sharing does not reach infinity, where nothing is less.
                    let cost = (own + children).min(1e300);
                    if best.get(&id).is_none_or(|&(old, _)| cost < old) {
                        best.insert(id, (cost, index));
                        changed = true;
                    }
                }
            }
            if !changed {
                return best.into_iter().map(|(id, (_, index))| (id, index)).collect();
            }
        }
    }

    /// Classes that the function of `root` uses; `None` where the choice is cyclic.
    fn reachable(&self, picks: &Picks, root: Id) -> Option<BTreeSet<Id>> {
        let mut done = BTreeSet::new();
        let mut open = BTreeSet::new();
        let mut stack = vec![(root, false)];
        while let Some((id, leaving)) = stack.pop() {
            if leaving {
                open.remove(&id);
                done.insert(id);
                continue;
            }
            if done.contains(&id) {
                continue;
            }
            if !open.insert(id) {
                return None;
            }
            stack.push((id, true));
            let (node, _) = self.nodes.get(&id)?.get(*picks.get(&id)?)?;
            for &child in &node.children {
                if open.contains(&child) {
                    return None;
                }
                if !done.contains(&child) {
                    stack.push((child, false));
                }
            }
        }
        Some(done)
    }

    fn cost(&self, picks: &Picks, root: Id) -> Option<f64> {
        let used = self.reachable(picks, root)?;
        Some(used.iter().map(|id| self.nodes[id][picks[id]].1).sum())
    }

    /// One round of switching; the new cost, if it is less.
    fn improve(&self, picks: &mut Picks, root: Id, cost: f64) -> Option<f64> {
        let mut best = cost;
        for id in self.reachable(picks, root)? {
            for index in 0..self.nodes[&id].len() {
                if picks[&id] == index {
                    continue;
                }
                let old = picks.insert(id, index)?;
                match self.cost(picks, root) {
                    Some(new) if new < best - NOVELTY_SECONDS / 2.0 => best = new,
                    _ => {
                        picks.insert(id, old);
                    }
                }
            }
        }
        (best < cost).then_some(best)
    }
}

fn own_cost(graph: &Graph, roofline: &Roofline, node: &Node) -> f64 {
    const BOOKKEEPING: f64 = 1e-12;
    match &node.head {
        Head::Param(_) | Head::Project(_) | Head::Results => BOOKKEEPING,
        Head::Op(op) => {
            let args = node.children.iter();
            let args: Vec<&Type> = args.filter_map(|&c| graph[c].data.types.first()).collect();
            let module = &graph.analysis.module;
            // A node of the graph was inferred when it was added.
            let results = waveloom_ir::infer(module, op, &args).unwrap_or_default();
            roofline.seconds(module, op, &args, &results)
        }
    }
}
