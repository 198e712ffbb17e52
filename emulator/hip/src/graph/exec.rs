//! Instantiated graphs: a fixed order of operations that is launched as a whole.

use std::sync::{Arc, Mutex};

use crate::error::{HipError, Result};
use crate::graph::{Graph, Node, NodeWork, order};
use crate::handle::{fresh, lock};
use crate::runtime::Runtime;
use crate::stream::{self, Mark, Stream, Wait};
use crate::types::Handle;
use crate::work::Work;

/// An instantiated graph.
pub struct Exec {
    /// Flags of its instantiation.
    pub flags: u64,
    /// A copy of the graph, which belongs to it.
    graph: Arc<Graph>,
    /// Nodes of the original that are switched off.
    disabled: Mutex<Vec<Handle>>,
    /// The end of the last launch: launches of one graph do not overlap.
    last: Mutex<Option<Mark>>,
}

/// `hipGraphExecUpdateResult`.
pub mod update {
    pub const SUCCESS: u32 = 0;
    pub const TOPOLOGY_CHANGED: u32 = 2;
    pub const NODE_TYPE_CHANGED: u32 = 3;
    pub const PARAMETERS_CHANGED: u32 = 5;
}

/// Why an update failed: the node that differs, or 0, and an [`update`] number.
type UpdateResult = std::result::Result<(), (Handle, u32)>;

impl Exec {
    /// Instantiates a graph.
    pub fn create(runtime: &Runtime, graph: &Graph, flags: u64) -> Result<Handle> {
        order(&graph.nodes())?;
        let handle = fresh();
        let exec = Exec {
            flags,
            graph: graph.copy(runtime),
            disabled: Mutex::default(),
            last: Mutex::default(),
        };
        runtime.execs.insert(handle, Arc::new(exec));
        Ok(handle)
    }

    /// The instantiated graph of a handle.
    pub fn find(runtime: &Runtime, handle: Handle) -> Result<Arc<Exec>> {
        runtime.execs.get(handle).ok_or(HipError::INVALID_VALUE)
    }

    /// Puts all operations into a stream, or the graph into the graph that is captured from it.
    pub fn launch(&self, runtime: &Runtime, stream: &Arc<Stream>) -> Result {
        if runtime.captures.position(stream)?.is_some() {
            let child = NodeWork::Child(self.graph.copy(runtime));
            return runtime.captures.add(runtime, stream, &child).map(|_| ());
        }
        stream::check_legacy(runtime, stream)?;
        runtime.devices[stream.device].check()?;
        let mut last = lock(&self.last);
        let nodes = self.graph.nodes();
        let disabled = lock(&self.disabled).clone();
        let mut sequence = Vec::with_capacity(nodes.len());
        for at in order(&nodes)? {
            if !disabled.contains(&nodes[at].origin) {
                sequence.push(nodes[at].work.prepare()?);
            }
        }
        let waits = last.take().into_iter().map(Wait::Stream).collect();
        *last = Some(stream::submit(runtime, stream, Work::Sequence(sequence), waits)?);
        Ok(())
    }

    /// What the copy of a node does.
    pub fn work(&self, origin: Handle) -> Result<NodeWork> {
        let node = self.graph.nodes().into_iter().find(|node| node.origin == origin);
        node.map(|node| node.work).ok_or(HipError::INVALID_VALUE)
    }

    /// Changes what the copy of a node does, from the next launch on.
    pub fn set(&self, origin: Handle, work: &NodeWork) -> Result {
        let found = self.graph.set_copy(origin, work)?;
        if found { Ok(()) } else { Err(HipError::INVALID_VALUE) }
    }

    /// Whether a node is executed.
    pub fn is_enabled(&self, origin: Handle) -> Result<bool> {
        self.work(origin)?;
        Ok(!lock(&self.disabled).contains(&origin))
    }

    /// Switches a node on or off: kernels, copies and fills can be.
    pub fn enable(&self, origin: Handle, on: bool) -> Result {
        let work = self.work(origin)?;
        if !matches!(work, NodeWork::Kernel(_) | NodeWork::Copy(..) | NodeWork::Fill(_)) {
            return Err(HipError::INVALID_VALUE);
        }
        let mut disabled = lock(&self.disabled);
        disabled.retain(|other| *other != origin);
        if !on {
            disabled.push(origin);
        }
        Ok(())
    }

    /// Takes over the parameters of a graph of the same shape, all or none.
    pub fn update(&self, runtime: &Runtime, graph: &Graph) -> UpdateResult {
        let (old, new) = (self.graph.nodes(), graph.nodes());
        compare(&old, &new)?;
        for (old, new) in old.iter().zip(&new) {
            let replaced = self.graph.set_work(old.handle, &new.work.copy(runtime));
            replaced.map_err(|_| (new.handle, update::PARAMETERS_CHANGED))?;
        }
        Ok(())
    }

    /// Gives back what belongs to it. Launches that are under way go on.
    pub fn destroy(&self, runtime: &Runtime) {
        self.graph.destroy(runtime);
    }
}

/// Compares kinds and edges of two graphs, graphs within them included. Nodes correspond by the
/// order in which they were added.
fn compare(old: &[Node], new: &[Node]) -> UpdateResult {
    if old.len() != new.len() {
        return Err((0, update::TOPOLOGY_CHANGED));
    }
    let edges = |nodes: &[Node], at: usize| -> Vec<Option<usize>> {
        let place = |handle: &Handle| nodes.iter().position(|node| node.handle == *handle);
        let mut places: Vec<_> = nodes[at].dependencies.iter().map(place).collect();
        places.sort_unstable();
        places
    };
    for (at, (left, right)) in old.iter().zip(new).enumerate() {
        if !left.work.is_like(&right.work) {
            return Err((right.handle, update::NODE_TYPE_CHANGED));
        }
        if edges(old, at) != edges(new, at) {
            return Err((right.handle, update::TOPOLOGY_CHANGED));
        }
        match (&left.work, &right.work) {
            (NodeWork::Copy(before, _), NodeWork::Copy(after, _)) if before.kind != after.kind => {
                return Err((right.handle, update::PARAMETERS_CHANGED));
            }
            (NodeWork::Child(left), NodeWork::Child(right)) => {
                compare(&left.nodes(), &right.nodes())?;
            }
            _ => {}
        }
    }
    Ok(())
}
