//! Functions into the e-graph and out of it.

use super::view::ViewTable;
use super::{FactKeeper, Graph, Head, Names, Node};
use crate::pass::PassError;
use crate::provenance::ValueMap;
use egg::Id;
use std::collections::BTreeMap;
use std::sync::Arc;
use waveloom_ir::{Function, FunctionBuilder, Module, ValueId};

/// A function in an e-graph.
pub struct Loaded {
    /// The graph.
    pub graph: Graph,
    /// The class of all results.
    pub root: Id,
    /// What the values were called.
    pub names: Names,
    /// The class of each value of the function.
    pub values: Vec<Option<Id>>,
    /// The nodes of the function as it was: of two that cost the same they are preferred.
    pub original: Vec<Node>,
}

/// An empty e-graph for functions of `module` with the parameters of `f`.
pub fn empty(module: &Arc<Module>, f: &Function) -> Graph {
    Graph::new(FactKeeper {
        module: Arc::clone(module),
        params: f.param_types().cloned().collect(),
        views: ViewTable::default(),
    })
}

/// Puts a function into an e-graph of its own.
pub fn load(pass: &'static str, module: &Arc<Module>, f: &Function) -> Result<Loaded, PassError> {
    let mut graph = empty(module, f);
    let inserted = insert(&mut graph, f).map_err(|problem| {
        let problem = format!("@{}: {problem}", f.name);
        PassError::Invalid { pass, problem }
    })?;
    graph.rebuild();
    let named = f.values.iter().zip(&inserted.values).rev();
    let names = named.filter_map(|(value, id)| Some(((*id)?, value.name.clone()?)));
    let names = names.collect();
    let Inserted { root, values, nodes: original } = inserted;
    Ok(Loaded { graph, root, names, values, original })
}

/// What a function became in a graph.
pub struct Inserted {
    /// The class of all results.
    pub root: Id,
    /// The class of each value.
    pub values: Vec<Option<Id>>,
    /// Every node that the function asked for.
    pub nodes: Vec<Node>,
}

impl Inserted {
    fn put(&mut self, graph: &mut Graph, head: Head, children: Vec<Id>) -> Option<Id> {
        let node = Node { head, children };
        self.nodes.push(node.clone());
        super::add(graph, node)
    }

    fn classes(&self, values: &[ValueId]) -> Result<Vec<Id>, String> {
        let classes: Option<Vec<Id>> = values.iter().map(|v| self.values[v.index()]).collect();
        classes.ok_or_else(|| "a value is used before its definition".to_string())
    }
}

/// Adds a function to a graph whose parameters are of the same types; or says what is wrong with
/// it.
pub fn insert(graph: &mut Graph, f: &Function) -> Result<Inserted, String> {
    let values = vec![None; f.values.len()];
    let mut inserted = Inserted { root: Id::from(0), values, nodes: vec![] };
    for (&param, index) in f.params.iter().zip(0..) {
        inserted.values[param.index()] = inserted.put(graph, Head::Param(index), vec![]);
    }
    for inst in &f.insts {
        let operands = inserted.classes(&inst.operands)?;
        let made = inserted
            .put(graph, Head::Op(inst.op.clone()), operands)
            .ok_or_else(|| format!("`{}` is ill-typed", inst.op.mnemonic()))?;
        if let [result] = inst.results[..] {
            inserted.values[result.index()] = Some(made);
            continue;
        }
        for (&result, index) in inst.results.iter().zip(0..) {
            let projected = inserted.put(graph, Head::Project(index), vec![made]);
            inserted.values[result.index()] = projected;
        }
    }
    let results = inserted.classes(&f.results)?;
    inserted.root = inserted.put(graph, Head::Results, results).unwrap_or(inserted.root);
    Ok(inserted)
}

/// One node for each class that is used.
pub type Choice = BTreeMap<Id, Node>;

/// Writes the chosen nodes as a function with the name and parameters of `f`; also says what its
/// values were.
pub fn unload(
    pass: &'static str,
    loaded: &Loaded,
    choice: &Choice,
    f: &Function,
) -> Result<(Function, ValueMap), PassError> {
    let mut writer = Writer {
        pass,
        loaded,
        choice,
        builder: FunctionBuilder::new(&loaded.graph.analysis.module, &f.name),
        done: BTreeMap::new(),
        params: vec![],
        names: canonical_names(loaded),
    };
    for &param in &f.params {
        let value = &f.values[param.index()];
        let name = value.name.clone().unwrap_or_default();
        writer.params.push(writer.builder.param(name, value.ty.clone()));
    }
    let results = writer.write_all(loaded.graph.find(loaded.root), &f.name)?;
    let mut function = writer.builder.finish(&results);
    copy_param_names(f, &mut function);
    let values = value_map(loaded, &writer.done, f, &function);
    Ok((function, values))
}

/// A value that was written for a class equals every value that the class had.
fn value_map(
    loaded: &Loaded,
    written: &BTreeMap<Id, Vec<ValueId>>,
    before: &Function,
    after: &Function,
) -> ValueMap {
    let mut map = ValueMap::of_new(after.values.len());
    for (&new, &old) in after.params.iter().zip(&before.params) {
        map.equate(new, old);
    }
    for (old, class) in (0..).zip(&loaded.values) {
        let class = class.map(|class| loaded.graph.find(class));
        if let Some([new]) = class.and_then(|class| written.get(&class)).map(Vec::as_slice) {
            map.equate(*new, ValueId(old));
        }
    }
    map
}

/// Gives parameters the names they had; the builder wants one for each.
pub(crate) fn copy_param_names(from: &Function, to: &mut Function) {
    for (&old, &new) in from.params.iter().zip(&to.params) {
        to.values[new.index()].name = from.values[old.index()].name.clone();
    }
}

fn canonical_names(loaded: &Loaded) -> Names {
    // Several values may have become one; the first keeps its name.
    let named = loaded.names.iter().rev();
    named.map(|(&id, name)| (loaded.graph.find(id), name.clone())).collect()
}

struct Writer<'a> {
    pass: &'static str,
    loaded: &'a Loaded,
    choice: &'a Choice,
    builder: FunctionBuilder<'a>,
    /// Values of the classes written so far.
    done: BTreeMap<Id, Vec<ValueId>>,
    params: Vec<ValueId>,
    names: Names,
}

impl Writer<'_> {
    /// Writes a class and all it needs, without recursion: a step may be thousands of ops deep.
    fn write_all(&mut self, root: Id, function: &str) -> Result<Vec<ValueId>, PassError> {
        let mut stack = vec![root];
        let mut open = std::collections::BTreeSet::new();
        while let Some(&id) = stack.last() {
            if self.done.contains_key(&id) {
                stack.pop();
                continue;
            }
            let node = self.choice.get(&id).ok_or_else(|| self.bug(function))?;
            let canonical = |&child: &Id| self.loaded.graph.find(child);
            let children: Vec<Id> = node.children.iter().map(canonical).collect();
            let missing = children.iter().rev().filter(|c| !self.done.contains_key(c));
            let before = stack.len();
            stack.extend(missing);
            if stack.len() > before {
                if !open.insert(id) {
                    return Err(self.bug(function));
                }
                continue;
            }
            let values = self.write(node, &children, function)?;
            if let Some(name) = self.names.get(&id)
                && let [value] = values[..]
                && !self.params.contains(&value)
            {
                self.builder.name(value, name.clone());
            }
            self.done.insert(id, values);
        }
        Ok(self.done.remove(&root).unwrap_or_default())
    }

    fn bug(&self, function: &str) -> PassError {
        PassError::Invalid {
            pass: self.pass,
            problem: format!("extraction of @{function} left a class without a definition"),
        }
    }

    fn write(
        &mut self,
        node: &Node,
        children: &[Id],
        function: &str,
    ) -> Result<Vec<ValueId>, PassError> {
        let args = |done: &BTreeMap<Id, Vec<ValueId>>| -> Vec<ValueId> {
            children.iter().map(|child| done[child][0]).collect()
        };
        match &node.head {
            Head::Param(index) => Ok(vec![self.params[*index as usize]]),
            Head::Project(index) => Ok(vec![self.done[&children[0]][*index as usize]]),
            Head::Results => Ok(args(&self.done)),
            Head::Op(op) => {
                let args = args(&self.done);
                let pushed = self.builder.push(op.clone(), &args);
                pushed.map_err(|source| PassError::Infer {
                    pass: self.pass,
                    function: function.to_string(),
                    source,
                })
            }
        }
    }
}
