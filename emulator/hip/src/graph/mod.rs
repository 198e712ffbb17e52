//! Graphs: operations with dependencies, built node by node or captured from streams.

mod api;
mod exec;
mod node;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use crate::error::{HipError, Result};
use crate::handle::{fresh, lock};
use crate::runtime::Runtime;
use crate::types::Handle;

pub use api::*;
pub use exec::*;
pub use node::*;

/// A node of a graph.
#[derive(Clone)]
pub struct Node {
    /// Its handle.
    pub handle: Handle,
    /// What it does.
    pub work: NodeWork,
    /// Nodes of the same graph that come before it.
    pub dependencies: Vec<Handle>,
    /// The node that this one is a copy of, or itself.
    pub origin: Handle,
}

/// A graph; its nodes in the order in which they were added.
pub struct Graph {
    /// Its handle.
    pub handle: Handle,
    nodes: Mutex<Vec<Node>>,
}

impl Graph {
    /// An empty graph, known by its handle.
    pub fn create(runtime: &Runtime) -> Arc<Graph> {
        let graph = Arc::new(Graph { handle: fresh(), nodes: Mutex::default() });
        runtime.graphs.insert(graph.handle, graph.clone());
        graph
    }

    /// The graph of a handle.
    pub fn find(runtime: &Runtime, handle: Handle) -> Result<Arc<Graph>> {
        runtime.graphs.get(handle).ok_or(HipError::INVALID_VALUE)
    }

    /// The graph that a node is in.
    pub fn of_node(runtime: &Runtime, node: Handle) -> Result<Arc<Graph>> {
        let graph = lock(&runtime.nodes).get(&node).and_then(|graph| graph.upgrade());
        graph.ok_or(HipError::INVALID_VALUE)
    }

    /// Adds a node. Its dependencies must be nodes of this graph, each once.
    pub fn add(
        self: &Arc<Graph>,
        runtime: &Runtime,
        work: NodeWork,
        dependencies: Vec<Handle>,
    ) -> Result<Handle> {
        let mut nodes = lock(&self.nodes);
        let known = |handle: &Handle| nodes.iter().any(|node| node.handle == *handle);
        let once: BTreeSet<_> = dependencies.iter().collect();
        if !dependencies.iter().all(known) || once.len() != dependencies.len() {
            return Err(HipError::INVALID_VALUE);
        }
        let handle = fresh();
        nodes.push(Node { handle, work, dependencies, origin: handle });
        lock(&runtime.nodes).insert(handle, Arc::downgrade(self));
        Ok(handle)
    }

    /// All nodes.
    pub fn nodes(&self) -> Vec<Node> {
        lock(&self.nodes).clone()
    }

    /// One node.
    pub fn node(&self, handle: Handle) -> Result<Node> {
        let nodes = lock(&self.nodes);
        nodes.iter().find(|node| node.handle == handle).cloned().ok_or(HipError::INVALID_VALUE)
    }

    /// Changes what a node does, within its kind.
    pub fn set_work(&self, handle: Handle, work: &NodeWork) -> Result {
        let mut nodes = lock(&self.nodes);
        let node = nodes.iter_mut().find(|node| node.handle == handle);
        node.ok_or(HipError::INVALID_VALUE)?.work.replace(work)
    }

    /// Changes the copy of a node, in this graph or in one within it; `false` if there is none.
    fn set_copy(&self, origin: Handle, work: &NodeWork) -> Result<bool> {
        let mut nodes = lock(&self.nodes);
        for node in nodes.iter_mut() {
            if node.origin == origin {
                node.work.replace(work)?;
                return Ok(true);
            }
            if let NodeWork::Child(child) = &node.work
                && child.set_copy(origin, work)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Removes a node and its edges.
    fn remove(&self, runtime: &Runtime, handle: Handle) -> Result {
        let mut nodes = lock(&self.nodes);
        let at = nodes.iter().position(|node| node.handle == handle);
        let node = nodes.remove(at.ok_or(HipError::INVALID_VALUE)?);
        for node in nodes.iter_mut() {
            node.dependencies.retain(|other| *other != handle);
        }
        drop(nodes);
        forget_node(runtime, &node);
        Ok(())
    }

    /// Adds edges, all or none.
    fn connect(&self, edges: &[(Handle, Handle)]) -> Result {
        let mut nodes = lock(&self.nodes);
        let mut changed = nodes.clone();
        for (from, to) in edges {
            let known = changed.iter().any(|node| node.handle == *from);
            let node = changed.iter_mut().find(|node| node.handle == *to && known);
            let node = node.ok_or(HipError::INVALID_VALUE)?;
            if from == to || node.dependencies.contains(from) {
                return Err(HipError::INVALID_VALUE);
            }
            node.dependencies.push(*from);
        }
        order(&changed)?;
        *nodes = changed;
        Ok(())
    }

    /// Removes edges, all or none.
    fn disconnect(&self, edges: &[(Handle, Handle)]) -> Result {
        let mut nodes = lock(&self.nodes);
        let mut changed = nodes.clone();
        for (from, to) in edges {
            let node = changed.iter_mut().find(|node| node.handle == *to);
            let node = node.ok_or(HipError::INVALID_VALUE)?;
            let at = node.dependencies.iter().position(|other| other == from);
            node.dependencies.remove(at.ok_or(HipError::INVALID_VALUE)?);
        }
        *nodes = changed;
        Ok(())
    }

    /// A copy whose nodes know which they are copies of. Graphs within it are copied, too.
    pub fn copy(&self, runtime: &Runtime) -> Arc<Graph> {
        let graph = Graph::create(runtime);
        let nodes = self.nodes();
        let handles: BTreeMap<Handle, Handle> =
            nodes.iter().map(|node| (node.handle, fresh())).collect();
        let copies = nodes.into_iter().map(|node| Node {
            handle: handles[&node.handle],
            work: node.work.copy(runtime),
            dependencies: node.dependencies.iter().map(|other| handles[other]).collect(),
            origin: node.handle,
        });
        *lock(&graph.nodes) = copies.collect();
        let known = handles.values().map(|handle| (*handle, Arc::downgrade(&graph)));
        lock(&runtime.nodes).extend(known);
        graph
    }

    /// Nodes from which one of `ends` can be reached, `ends` included.
    pub fn ancestors(&self, ends: &[Handle]) -> BTreeSet<Handle> {
        let nodes = self.nodes();
        let mut found = BTreeSet::new();
        let mut open = ends.to_vec();
        while let Some(handle) = open.pop() {
            if found.insert(handle)
                && let Some(node) = nodes.iter().find(|node| node.handle == handle)
            {
                open.extend(&node.dependencies);
            }
        }
        found
    }

    /// Makes the graph's handles and those of its nodes unknown.
    pub fn destroy(&self, runtime: &Runtime) {
        runtime.graphs.remove(self.handle);
        self.nodes().iter().for_each(|node| forget_node(runtime, node));
    }
}

fn forget_node(runtime: &Runtime, node: &Node) {
    lock(&runtime.nodes).remove(&node.handle);
    if let NodeWork::Child(child) = &node.work {
        child.destroy(runtime);
    }
}

/// Sorts nodes so that each comes after its dependencies, otherwise in the order of the list; an
/// error if there is a circle.
pub fn order(nodes: &[Node]) -> Result<Vec<usize>> {
    let index: BTreeMap<Handle, usize> =
        nodes.iter().enumerate().map(|(at, node)| (node.handle, at)).collect();
    let mut missing: Vec<usize> = nodes.iter().map(|node| node.dependencies.len()).collect();
    let mut dependents = vec![Vec::new(); nodes.len()];
    for (at, node) in nodes.iter().enumerate() {
        for dependency in &node.dependencies {
            let from = *index.get(dependency).ok_or(HipError::INVALID_VALUE)?;
            dependents[from].push(at);
        }
    }
    let mut ready: BTreeSet<usize> = (0..nodes.len()).filter(|at| missing[*at] == 0).collect();
    let mut sorted = Vec::with_capacity(nodes.len());
    while let Some(at) = ready.pop_first() {
        sorted.push(at);
        for dependent in &dependents[at] {
            missing[*dependent] -= 1;
            if missing[*dependent] == 0 {
                ready.insert(*dependent);
            }
        }
    }
    if sorted.len() == nodes.len() { Ok(sorted) } else { Err(HipError::INVALID_VALUE) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(handle: Handle, dependencies: &[Handle]) -> Node {
        let dependencies = dependencies.to_vec();
        Node { handle, work: NodeWork::Empty, dependencies, origin: handle }
    }

    #[test]
    fn order_follows_dependencies() {
        let nodes = [node(1, &[3]), node(2, &[]), node(3, &[2]), node(4, &[])];
        assert_eq!(order(&nodes).unwrap(), [1, 2, 0, 3]);
    }

    #[test]
    fn circles_are_found() {
        let nodes = [node(1, &[3]), node(2, &[1]), node(3, &[2])];
        assert_eq!(order(&nodes), Err(HipError::INVALID_VALUE));
    }
}
