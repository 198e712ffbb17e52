//! Rewrite rules, in tables by theme.
//!
//! A rule is directional and says what it does to numbers. Rules over ops without attributes are
//! patterns; the others are functions that offer equal terms for a class. Where a rule's result
//! would have another type than what it replaces, it does not apply: `mul-one` leaves alone a
//! product in which the one broadcasts the other operand.

pub mod algebra;
pub mod normalize;
pub mod raise_attention;
pub mod raise_embed;
pub mod raise_gemm;
pub mod raise_norm;
pub mod raise_rope;
pub mod shape;

use crate::egraph::{self, FactKeeper, Graph, Node, Term};
use egg::{
    Applier, ENodeOrVar, Id, Pattern, PatternAst, Rewrite, SearchMatches, Searcher, Subst, Symbol,
    Var,
};

/// What a rule does to numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Numerics {
    /// Equal values (0 and −0 count as equal).
    Exact,
    /// Equal in real arithmetic; rounding differs.
    Reassociates,
    /// Different values, within what the rule's comment argues.
    Lossy,
}

/// A rewrite rule.
#[derive(Clone, Copy)]
pub struct Rule {
    /// Name in reports, kebab-case.
    pub name: &'static str,
    /// What it does to numbers.
    pub numerics: Numerics,
    body: Body,
}

/// A condition on what a pattern's variables are bound to.
pub type Condition = fn(&Graph, &Subst) -> bool;

/// Offers terms equal to a class.
pub type Find = fn(&Graph, Id) -> Vec<Term>;

#[derive(Clone, Copy)]
enum Body {
    Pattern { from: &'static str, to: &'static str, when: Condition },
    Find(Find),
}

impl Rule {
    /// A rule from a pattern to a pattern, under a condition.
    pub const fn pattern(
        numerics: Numerics,
        name: &'static str,
        from: &'static str,
        to: &'static str,
        when: Condition,
    ) -> Rule {
        let body = Body::Pattern { from, to, when };
        Rule { name, numerics, body }
    }

    /// A rule that looks at classes with a function.
    pub const fn find(numerics: Numerics, name: &'static str, find: Find) -> Rule {
        let body = Body::Find(find);
        Rule { name, numerics, body }
    }

    /// What it offers as equal to a class; nothing where it is a pattern.
    pub fn offers(&self, graph: &Graph, class: Id) -> Vec<Term> {
        match self.body {
            Body::Pattern { .. } => vec![],
            Body::Find(find) => find(graph, class),
        }
    }

    /// The rule as egg runs it.
    ///
    /// # Panics
    /// Where a pattern does not parse or names an unbound variable: a mistake in a table, which
    /// the tests over all tables find.
    pub fn compile(&self) -> Rewrite<Node, FactKeeper> {
        let made = match self.body {
            Body::Pattern { from, to, when } => {
                let parse = |text: &str| text.parse::<Pattern<Node>>().map_err(|e| e.to_string());
                parse(from).and_then(|from| {
                    let to = parse(to)?.ast;
                    Rewrite::new(self.name, from, Replace { to, when })
                })
            }
            Body::Find(find) => Rewrite::new(self.name, Offer { find }, Offer { find }),
        };
        made.unwrap_or_else(|problem| panic!("rule {}: {problem}", self.name))
    }
}

/// No condition.
pub fn always(_: &Graph, _: &Subst) -> bool {
    true
}

/// What a pattern's variable is bound to.
fn bound(subst: &Subst, var: &str) -> Option<Id> {
    subst.get(var.parse::<Var>().ok()?).copied()
}

/// Whether `?c` has one value everywhere, for which `test` holds.
fn constant(graph: &Graph, subst: &Subst, test: fn(f32) -> bool) -> bool {
    bound(subst, "?c").and_then(|c| egraph::splat(graph, c)).is_some_and(test)
}

/// `?c` is 1 everywhere.
pub fn c_is_one(graph: &Graph, subst: &Subst) -> bool {
    constant(graph, subst, |c| c == 1.0)
}

/// `?c` is 0 everywhere.
pub fn c_is_zero(graph: &Graph, subst: &Subst) -> bool {
    constant(graph, subst, |c| c == 0.0)
}

/// `?c` is −1 everywhere.
pub fn c_is_minus_one(graph: &Graph, subst: &Subst) -> bool {
    constant(graph, subst, |c| c == -1.0)
}

/// Unites a class with what a rule makes of it, if that is news and of the same type.
fn unite(graph: &mut Graph, class: Id, made: Option<Id>) -> Option<Id> {
    let made = made?;
    let same_type = graph[made].data.types == graph[class].data.types;
    (same_type && graph.union(class, made)).then_some(made)
}

/// The right-hand side of a pattern rule.
struct Replace {
    to: PatternAst<Node>,
    when: Condition,
}

impl Replace {
    fn instantiate(&self, graph: &mut Graph, subst: &Subst) -> Option<Id> {
        let mut ids: Vec<Id> = vec![];
        for node in self.to.iter() {
            let id = match node {
                ENodeOrVar::Var(var) => *subst.get(*var)?,
                ENodeOrVar::ENode(node) => {
                    let children = node.children.iter().map(|&c| ids[usize::from(c)]);
                    let (head, children) = (node.head.clone(), children.collect());
                    egraph::add(graph, Node { head, children })?
                }
            };
            ids.push(id);
        }
        ids.last().copied()
    }
}

impl Applier<Node, FactKeeper> for Replace {
    fn apply_one(
        &self,
        graph: &mut Graph,
        class: Id,
        subst: &Subst,
        _: Option<&PatternAst<Node>>,
        _: Symbol,
    ) -> Vec<Id> {
        if !(self.when)(graph, subst) {
            return vec![];
        }
        let made = self.instantiate(graph, subst);
        unite(graph, class, made).into_iter().collect()
    }

    fn vars(&self) -> Vec<Var> {
        let vars = self.to.iter().filter_map(|node| match node {
            ENodeOrVar::Var(var) => Some(*var),
            ENodeOrVar::ENode(_) => None,
        });
        vars.collect()
    }
}

/// A rule that is a function: finds classes it has terms for, and unites them.
struct Offer {
    find: Find,
}

impl Searcher<Node, FactKeeper> for Offer {
    fn search_eclass_with_limit(
        &self,
        graph: &Graph,
        class: Id,
        limit: usize,
    ) -> Option<SearchMatches<'_, Node>> {
        // Only a class that is one value can be equal to a term.
        if limit == 0 || graph[class].data.types.len() != 1 || (self.find)(graph, class).is_empty()
        {
            return None;
        }
        Some(SearchMatches { eclass: class, substs: vec![Subst::default()], ast: None })
    }

    fn vars(&self) -> Vec<Var> {
        vec![]
    }
}

impl Applier<Node, FactKeeper> for Offer {
    fn apply_one(
        &self,
        graph: &mut Graph,
        class: Id,
        _: &Subst,
        _: Option<&PatternAst<Node>>,
        _: Symbol,
    ) -> Vec<Id> {
        let terms = (self.find)(graph, class);
        let mut united = vec![];
        for term in terms {
            let made = term.add(graph);
            united.extend(unite(graph, class, made));
        }
        united
    }
}
