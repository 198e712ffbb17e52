//! The functions of the API that build, change and launch graphs.

use std::sync::Arc;

use crate::abi::Abi;
use crate::copy::{Copy, Fill};
use crate::error::{HipError, Result};
use crate::event::{self, Event};
use crate::ffi::{List, Place, Room, Text, api, given};
use crate::graph::{Exec, Graph, KernelNode, Node, NodeWork, copy_from_3d, copy_to_3d, update};
use crate::memory::{check_kind, copy_from_drv_3d};
use crate::register;
use crate::runtime::{Runtime, runtime};
use crate::stream;
use crate::types::{
    Address, DrvMemsetParams, Handle, HostNodeParams, KernelNodeParams, Memcpy3d, MemsetParams,
};
use crate::work::HostCall;

/// Adds a node and gives its handle.
fn add(
    place: Option<&mut Handle>,
    graph: Handle,
    dependencies: List<Handle>,
    count: usize,
    work: impl FnOnce(&Runtime) -> Result<NodeWork>,
) -> Result {
    let place = given(place)?;
    let runtime = runtime()?;
    let graph = Graph::find(runtime, graph)?;
    *place = graph.add(runtime, work(runtime)?, dependencies.read(count)?)?;
    Ok(())
}

/// Changes what a node of a graph does.
fn set(node: Handle, work: impl FnOnce(&Runtime) -> Result<NodeWork>) -> Result {
    let runtime = runtime()?;
    let graph = Graph::of_node(runtime, node)?;
    let work = work(runtime)?;
    graph.set_work(node, &work)
}

/// Changes what a node of an instantiated graph does.
fn set_exec(exec: Handle, node: Handle, work: impl FnOnce(&Runtime) -> Result<NodeWork>) -> Result {
    let runtime = runtime()?;
    let exec = Exec::find(runtime, exec)?;
    let work = work(runtime)?;
    exec.set(node, &work)
}

/// What a node does.
fn work_of(node: Handle) -> Result<NodeWork> {
    Ok(Graph::of_node(runtime()?, node)?.node(node)?.work)
}

fn kernel(
    params: Option<&KernelNodeParams>,
) -> impl FnOnce(&Runtime) -> Result<NodeWork> + use<'_> {
    move |runtime| Ok(NodeWork::Kernel(KernelNode::from_params(runtime, given(params)?)?))
}

fn copy_3d(params: Option<&Memcpy3d>) -> impl FnOnce(&Runtime) -> Result<NodeWork> + use<'_> {
    move |runtime| {
        let copy = copy_from_3d(given(params)?)?;
        copy.check(runtime)?;
        Ok(NodeWork::Copy(copy, false))
    }
}

fn copy_1d(
    dst: Address,
    src: Address,
    bytes: usize,
    kind: u32,
) -> impl FnOnce(&Runtime) -> Result<NodeWork> {
    move |runtime| {
        check_kind(kind)?;
        let copy = Copy::linear(dst, src, bytes, kind);
        copy.check(runtime)?;
        Ok(NodeWork::Copy(copy, true))
    }
}

/// A part of a variable: the host's symbol, bytes and offset.
#[derive(Clone, Copy)]
struct Part {
    symbol: Address,
    bytes: usize,
    offset: usize,
}

impl Part {
    fn address(&self, runtime: &Runtime) -> Result<Address> {
        register::part_of(runtime, self.symbol, self.bytes, self.offset)
    }
}

fn copy_from_symbol(
    dst: Address,
    part: Part,
    kind: u32,
) -> impl FnOnce(&Runtime) -> Result<NodeWork> {
    move |runtime| copy_1d(dst, part.address(runtime)?, part.bytes, kind)(runtime)
}

fn copy_to_symbol(
    part: Part,
    src: Address,
    kind: u32,
) -> impl FnOnce(&Runtime) -> Result<NodeWork> {
    move |runtime| copy_1d(part.address(runtime)?, src, part.bytes, kind)(runtime)
}

fn fill(params: Option<&MemsetParams>) -> impl FnOnce(&Runtime) -> Result<NodeWork> + use<'_> {
    move |runtime| {
        let fill = Fill::from_params(given(params)?)?;
        fill.check(runtime)?;
        Ok(NodeWork::Fill(fill))
    }
}

fn host(params: Option<&HostNodeParams>) -> impl FnOnce(&Runtime) -> Result<NodeWork> + use<'_> {
    move |_| {
        let params = given(params)?;
        let call = HostCall { function: given(params.function)?, data: params.user_data };
        Ok(NodeWork::Host(call))
    }
}

fn child(graph: Handle) -> impl FnOnce(&Runtime) -> Result<NodeWork> {
    move |runtime| Ok(NodeWork::Child(Graph::find(runtime, graph)?.copy(runtime)))
}

fn event_node(
    event: Handle,
    make: fn(Arc<Event>) -> NodeWork,
) -> impl FnOnce(&Runtime) -> Result<NodeWork> {
    move |runtime| event::find(runtime, event).map(make)
}

/// Gives a list in the way of HIP: without room only its length, else as much as there is room for.
fn give_list(items: &[Handle], room: Room<Handle>, count: Option<&mut usize>) -> Result {
    let count = given(count)?;
    if room.is_null() {
        *count = items.len();
        return Ok(());
    }
    let given = items.len().min(*count);
    room.write(&items[..given])?;
    // Room that is left over is cleared.
    let unused = vec![0; *count - given];
    room.skip(given).write(&unused)?;
    *count = given;
    Ok(())
}

fn edges(from: List<Handle>, to: List<Handle>, count: usize) -> Result<Vec<(Handle, Handle)>> {
    Ok(from.read(count)?.into_iter().zip(to.read(count)?).collect())
}

fn instantiate(exec: Option<&mut Handle>, graph: Handle, flags: u64) -> Result {
    let place = given(exec)?;
    let runtime = runtime()?;
    let graph = Graph::find(runtime, graph)?;
    *place = Exec::create(runtime, &graph, flags)?;
    Ok(())
}

fn launch(exec: Handle, stream: Handle) -> Result {
    let runtime = runtime()?;
    Exec::find(runtime, exec)?.launch(runtime, &stream::find(runtime, stream)?)
}

/// A graph in the language of Graphviz.
fn dot(nodes: &[Node]) -> String {
    let mut text = String::from("digraph hip {\n");
    for node in nodes {
        let label = match &node.work {
            NodeWork::Kernel(kernel) => kernel.call.function.kernel.name.replace('"', "'"),
            NodeWork::Copy(copy, _) => format!("memcpy {} bytes", copy.bytes()),
            NodeWork::Fill(_) => "memset".to_string(),
            NodeWork::Host(_) => "host".to_string(),
            NodeWork::Empty => "empty".to_string(),
            NodeWork::Child(_) => "graph".to_string(),
            NodeWork::Record(_) => "event record".to_string(),
            NodeWork::Wait(_) => "event wait".to_string(),
        };
        text += &format!("  n{:x} [label=\"{label}\"];\n", node.handle);
        for dependency in &node.dependencies {
            text += &format!("  n{dependency:x} -> n{:x};\n", node.handle);
        }
    }
    text + "}\n"
}

/// `hipGraphInstantiateParams`.
#[repr(C)]
pub struct InstantiateParams {
    error_node: Handle,
    flags: u64,
    result: u32,
    upload_stream: Handle,
}

/// `hipGraphNodeParams`: the node's type and a union of all descriptions, 232 bytes long.
#[repr(C)]
pub struct NodeParams {
    node_type: u32,
    reserved: [i32; 3],
    description: [u64; 29],
    reserved2: u64,
}

impl NodeParams {
    fn work(&self) -> impl FnOnce(&Runtime) -> Result<NodeWork> + use<'_> {
        let at = self.description.as_ptr() as Address;
        move |runtime| match self.node_type {
            0 => kernel(Some(&List::at(at).get(0)?))(runtime),
            // Flags come before the copy itself.
            1 => copy_3d(Some(&List::at(at + 16).get(0)?))(runtime),
            2 => fill(Some(&List::at(at).get(0)?))(runtime),
            3 => host(Some(&List::at(at).get(0)?))(runtime),
            4 => child(self.description[0] as Handle)(runtime),
            5 => Ok(NodeWork::Empty),
            6 => event_node(self.description[0] as Handle, NodeWork::Wait)(runtime),
            7 => event_node(self.description[0] as Handle, NodeWork::Record)(runtime),
            _ => Err(HipError::NOT_SUPPORTED),
        }
    }
}

api! {
    /// Makes an empty graph.
    fn hipGraphCreate(graph: Option<&mut Handle>, flags: u32) {
        let place = given(graph)?;
        if flags != 0 {
            return Err(HipError::INVALID_VALUE);
        }
        *place = Graph::create(runtime()?).handle;
        Ok(())
    }

    /// Ends a graph.
    fn hipGraphDestroy(graph: Handle) {
        let runtime = runtime()?;
        Graph::find(runtime, graph)?.destroy(runtime);
        Ok(())
    }

    /// Copies a graph.
    fn hipGraphClone(clone: Option<&mut Handle>, graph: Handle) {
        let place = given(clone)?;
        let runtime = runtime()?;
        *place = Graph::find(runtime, graph)?.copy(runtime).handle;
        Ok(())
    }

    /// The copy of a node in a copy of its graph.
    fn hipGraphNodeFindInClone(copy: Option<&mut Handle>, node: Handle, clone: Handle) {
        let place = given(copy)?;
        let nodes = Graph::find(runtime()?, clone)?.nodes();
        let found = nodes.iter().find(|other| other.origin == node && other.handle != node);
        *place = found.ok_or(HipError::INVALID_VALUE)?.handle;
        Ok(())
    }

    /// Adds edges.
    fn hipGraphAddDependencies(
        graph: Handle,
        from: List<Handle>,
        to: List<Handle>,
        count: usize,
    ) {
        Graph::find(runtime()?, graph)?.connect(&edges(from, to, count)?)
    }

    /// Removes edges.
    fn hipGraphRemoveDependencies(
        graph: Handle,
        from: List<Handle>,
        to: List<Handle>,
        count: usize,
    ) {
        Graph::find(runtime()?, graph)?.disconnect(&edges(from, to, count)?)
    }

    /// All edges.
    fn hipGraphGetEdges(
        graph: Handle,
        from: Room<Handle>,
        to: Room<Handle>,
        count: Option<&mut usize>,
    ) {
        let count = given(count)?;
        if from.is_null() != to.is_null() {
            return Err(HipError::INVALID_VALUE);
        }
        let nodes = Graph::find(runtime()?, graph)?.nodes();
        let edges = nodes.iter().flat_map(|n| n.dependencies.iter().map(|d| (*d, n.handle)));
        let (starts, ends): (Vec<_>, Vec<_>) = edges.unzip();
        let mut room = *count;
        give_list(&starts, from, Some(&mut room))?;
        give_list(&ends, to, Some(count))
    }

    /// All nodes.
    fn hipGraphGetNodes(graph: Handle, nodes: Room<Handle>, count: Option<&mut usize>) {
        let found = Graph::find(runtime()?, graph)?.nodes();
        let handles: Vec<_> = found.iter().map(|node| node.handle).collect();
        give_list(&handles, nodes, count)
    }

    /// Nodes that come after no other.
    fn hipGraphGetRootNodes(graph: Handle, nodes: Room<Handle>, count: Option<&mut usize>) {
        let found = Graph::find(runtime()?, graph)?.nodes();
        let roots = found.iter().filter(|node| node.dependencies.is_empty());
        let handles: Vec<_> = roots.map(|node| node.handle).collect();
        give_list(&handles, nodes, count)
    }

    /// Nodes that come before one.
    fn hipGraphNodeGetDependencies(
        node: Handle,
        nodes: Room<Handle>,
        count: Option<&mut usize>,
    ) {
        let node = Graph::of_node(runtime()?, node)?.node(node)?;
        give_list(&node.dependencies, nodes, count)
    }

    /// Nodes that come after one.
    fn hipGraphNodeGetDependentNodes(
        node: Handle,
        nodes: Room<Handle>,
        count: Option<&mut usize>,
    ) {
        let found = Graph::of_node(runtime()?, node)?.nodes();
        let dependents = found.iter().filter(|other| other.dependencies.contains(&node));
        let handles: Vec<_> = dependents.map(|other| other.handle).collect();
        give_list(&handles, nodes, count)
    }

    /// What sort of node it is.
    fn hipGraphNodeGetType(node: Handle, number: Option<&mut u32>) {
        number.put(work_of(node)?.type_number(Abi::current()))
    }

    /// Removes a node.
    fn hipGraphDestroyNode(node: Handle) {
        let runtime = runtime()?;
        Graph::of_node(runtime, node)?.remove(runtime, node)
    }

    /// Instantiates a graph.
    fn hipGraphInstantiate(
        exec: Option<&mut Handle>,
        graph: Handle,
        error_node: Option<&mut Handle>,
        log: Room<u8>,
        log_size: usize,
    ) {
        error_node.offer(0);
        if !log.is_null() && log_size > 0 {
            log.write(&[0])?;
        }
        instantiate(exec, graph, 0)
    }

    /// Instantiates a graph.
    fn hipGraphInstantiateWithFlags(exec: Option<&mut Handle>, graph: Handle, flags: u64) {
        if flags & !0xf != 0 {
            return Err(HipError::INVALID_VALUE);
        }
        instantiate(exec, graph, flags)
    }

    /// Instantiates a graph.
    fn hipGraphInstantiateWithParams(
        exec: Option<&mut Handle>,
        graph: Handle,
        params: Option<&mut InstantiateParams>,
    ) {
        let params = given(params)?;
        let result = instantiate(exec, graph, params.flags);
        params.error_node = 0;
        // hipGraphInstantiateSuccess or hipGraphInstantiateError
        params.result = u32::from(result.is_err());
        result
    }

    /// Flags of an instantiated graph.
    fn hipGraphExecGetFlags(exec: Handle, flags: Option<&mut u64>) {
        flags.put(Exec::find(runtime()?, exec)?.flags)
    }

    /// Prepares a launch; there is nothing to prepare.
    fn hipGraphUpload(exec: Handle, stream: Handle) {
        let runtime = runtime()?;
        Exec::find(runtime, exec)?;
        stream::find(runtime, stream).map(|_| ())
    }

    /// Launches an instantiated graph.
    fn hipGraphLaunch(exec: Handle, stream: Handle) {
        launch(exec, stream)
    }

    /// Launches an instantiated graph; null is the thread's own stream.
    fn hipGraphLaunch_spt(exec: Handle, stream: Handle) {
        launch(exec, stream::per_thread(stream))
    }

    /// Ends an instantiated graph.
    fn hipGraphExecDestroy(exec: Handle) {
        let runtime = runtime()?;
        let exec = runtime.execs.remove(exec).ok_or(HipError::INVALID_VALUE)?;
        exec.destroy(runtime);
        Ok(())
    }

    /// Takes over the parameters of another graph of the same shape.
    fn hipGraphExecUpdate(
        exec: Handle,
        graph: Handle,
        error_node: Option<&mut Handle>,
        result: Option<&mut u32>,
    ) {
        let (error_node, result) = (given(error_node)?, given(result)?);
        let runtime = runtime()?;
        let exec = Exec::find(runtime, exec)?;
        let updated = exec.update(runtime, &*Graph::find(runtime, graph)?);
        (*error_node, *result) = updated.err().unwrap_or((0, update::SUCCESS));
        updated.map_err(|_| HipError::GRAPH_EXEC_UPDATE_FAILURE)
    }

    /// Whether a node of an instantiated graph is executed.
    fn hipGraphNodeGetEnabled(exec: Handle, node: Handle, enabled: Option<&mut u32>) {
        enabled.put(u32::from(Exec::find(runtime()?, exec)?.is_enabled(node)?))
    }

    /// Switches a node of an instantiated graph on or off.
    fn hipGraphNodeSetEnabled(exec: Handle, node: Handle, enabled: u32) {
        Exec::find(runtime()?, exec)?.enable(node, enabled != 0)
    }

    /// Writes a graph to a file in the language of Graphviz.
    fn hipGraphDebugDotPrint(graph: Handle, path: Text, _flags: u32) {
        let nodes = Graph::find(runtime()?, graph)?.nodes();
        std::fs::write(path.read()?, dot(&nodes)).map_err(|_| HipError::OPERATING_SYSTEM)
    }

    /// Adds a node that runs a kernel.
    fn hipGraphAddKernelNode(
        node: Option<&mut Handle>,
        graph: Handle,
        dependencies: List<Handle>,
        count: usize,
        params: Option<&KernelNodeParams>,
    ) {
        add(node, graph, dependencies, count, kernel(params))
    }

    /// The kernel of a node, its grid and arguments.
    fn hipGraphKernelNodeGetParams(node: Handle, params: Option<&mut KernelNodeParams>) {
        match work_of(node)? {
            NodeWork::Kernel(kernel) => params.put(kernel.params()),
            _ => Err(HipError::INVALID_VALUE),
        }
    }

    /// Changes them.
    fn hipGraphKernelNodeSetParams(node: Handle, params: Option<&KernelNodeParams>) {
        set(node, kernel(params))
    }

    /// Changes them in an instantiated graph.
    fn hipGraphExecKernelNodeSetParams(
        exec: Handle,
        node: Handle,
        params: Option<&KernelNodeParams>,
    ) {
        set_exec(exec, node, kernel(params))
    }

    /// Adds a node that copies.
    fn hipGraphAddMemcpyNode(
        node: Option<&mut Handle>,
        graph: Handle,
        dependencies: List<Handle>,
        count: usize,
        params: Option<&Memcpy3d>,
    ) {
        add(node, graph, dependencies, count, copy_3d(params))
    }

    /// What a node copies.
    fn hipGraphMemcpyNodeGetParams(node: Handle, params: Option<&mut Memcpy3d>) {
        match work_of(node)? {
            NodeWork::Copy(copy, _) => params.put(copy_to_3d(&copy)),
            _ => Err(HipError::INVALID_VALUE),
        }
    }

    /// Changes it.
    fn hipGraphMemcpyNodeSetParams(node: Handle, params: Option<&Memcpy3d>) {
        set(node, copy_3d(params))
    }

    /// Changes it in an instantiated graph.
    fn hipGraphExecMemcpyNodeSetParams(exec: Handle, node: Handle, params: Option<&Memcpy3d>) {
        set_exec(exec, node, copy_3d(params))
    }

    /// Adds a node that copies bytes.
    fn hipGraphAddMemcpyNode1D(
        node: Option<&mut Handle>,
        graph: Handle,
        dependencies: List<Handle>,
        count: usize,
        dst: Address,
        src: Address,
        bytes: usize,
        kind: u32,
    ) {
        add(node, graph, dependencies, count, copy_1d(dst, src, bytes, kind))
    }

    /// Changes what a node copies.
    fn hipGraphMemcpyNodeSetParams1D(
        node: Handle,
        dst: Address,
        src: Address,
        bytes: usize,
        kind: u32,
    ) {
        set(node, copy_1d(dst, src, bytes, kind))
    }

    /// Changes it in an instantiated graph.
    fn hipGraphExecMemcpyNodeSetParams1D(
        exec: Handle,
        node: Handle,
        dst: Address,
        src: Address,
        bytes: usize,
        kind: u32,
    ) {
        set_exec(exec, node, copy_1d(dst, src, bytes, kind))
    }

    /// Adds a node that copies from a variable of device code.
    fn hipGraphAddMemcpyNodeFromSymbol(
        node: Option<&mut Handle>,
        graph: Handle,
        dependencies: List<Handle>,
        count: usize,
        dst: Address,
        symbol: Address,
        bytes: usize,
        offset: usize,
        kind: u32,
    ) {
        let part = Part { symbol, bytes, offset };
        add(node, graph, dependencies, count, copy_from_symbol(dst, part, kind))
    }

    /// Changes what a node copies.
    fn hipGraphMemcpyNodeSetParamsFromSymbol(
        node: Handle,
        dst: Address,
        symbol: Address,
        bytes: usize,
        offset: usize,
        kind: u32,
    ) {
        set(node, copy_from_symbol(dst, Part { symbol, bytes, offset }, kind))
    }

    /// Changes it in an instantiated graph.
    fn hipGraphExecMemcpyNodeSetParamsFromSymbol(
        exec: Handle,
        node: Handle,
        dst: Address,
        symbol: Address,
        bytes: usize,
        offset: usize,
        kind: u32,
    ) {
        set_exec(exec, node, copy_from_symbol(dst, Part { symbol, bytes, offset }, kind))
    }

    /// Adds a node that copies to a variable of device code.
    fn hipGraphAddMemcpyNodeToSymbol(
        node: Option<&mut Handle>,
        graph: Handle,
        dependencies: List<Handle>,
        count: usize,
        symbol: Address,
        src: Address,
        bytes: usize,
        offset: usize,
        kind: u32,
    ) {
        let part = Part { symbol, bytes, offset };
        add(node, graph, dependencies, count, copy_to_symbol(part, src, kind))
    }

    /// Changes what a node copies.
    fn hipGraphMemcpyNodeSetParamsToSymbol(
        node: Handle,
        symbol: Address,
        src: Address,
        bytes: usize,
        offset: usize,
        kind: u32,
    ) {
        set(node, copy_to_symbol(Part { symbol, bytes, offset }, src, kind))
    }

    /// Changes it in an instantiated graph.
    fn hipGraphExecMemcpyNodeSetParamsToSymbol(
        exec: Handle,
        node: Handle,
        symbol: Address,
        src: Address,
        bytes: usize,
        offset: usize,
        kind: u32,
    ) {
        set_exec(exec, node, copy_to_symbol(Part { symbol, bytes, offset }, src, kind))
    }

    /// Adds a node that copies, as the driver API describes it.
    fn hipDrvGraphAddMemcpyNode(
        node: Option<&mut Handle>,
        graph: Handle,
        dependencies: List<Handle>,
        count: usize,
        params: Address,
        _context: Handle,
    ) {
        add(node, graph, dependencies, count, |runtime| {
            let copy = copy_from_drv_3d(params)?;
            copy.check(runtime)?;
            Ok(NodeWork::Copy(copy, false))
        })
    }

    /// Adds a node that fills, as the driver API describes it.
    fn hipDrvGraphAddMemsetNode(
        node: Option<&mut Handle>,
        graph: Handle,
        dependencies: List<Handle>,
        count: usize,
        params: Option<&DrvMemsetParams>,
        _context: Handle,
    ) {
        let DrvMemsetParams { dst, pitch, value, element_size, width, height } = *given(params)?;
        let params = MemsetParams { dst, element_size, height, pitch, value, width };
        add(node, graph, dependencies, count, fill(Some(&params)))
    }

    /// Adds a node that fills.
    fn hipGraphAddMemsetNode(
        node: Option<&mut Handle>,
        graph: Handle,
        dependencies: List<Handle>,
        count: usize,
        params: Option<&MemsetParams>,
    ) {
        add(node, graph, dependencies, count, fill(params))
    }

    /// What a node fills.
    fn hipGraphMemsetNodeGetParams(node: Handle, params: Option<&mut MemsetParams>) {
        match work_of(node)? {
            NodeWork::Fill(fill) => params.put(fill.params()),
            _ => Err(HipError::INVALID_VALUE),
        }
    }

    /// Changes it.
    fn hipGraphMemsetNodeSetParams(node: Handle, params: Option<&MemsetParams>) {
        set(node, fill(params))
    }

    /// Changes it in an instantiated graph.
    fn hipGraphExecMemsetNodeSetParams(
        exec: Handle,
        node: Handle,
        params: Option<&MemsetParams>,
    ) {
        set_exec(exec, node, fill(params))
    }

    /// Adds a node that calls the program.
    fn hipGraphAddHostNode(
        node: Option<&mut Handle>,
        graph: Handle,
        dependencies: List<Handle>,
        count: usize,
        params: Option<&HostNodeParams>,
    ) {
        add(node, graph, dependencies, count, host(params))
    }

    /// What a node calls.
    fn hipGraphHostNodeGetParams(node: Handle, params: Option<&mut HostNodeParams>) {
        let NodeWork::Host(call) = work_of(node)? else { return Err(HipError::INVALID_VALUE) };
        params.put(HostNodeParams { function: Some(call.function), user_data: call.data })
    }

    /// Changes it.
    fn hipGraphHostNodeSetParams(node: Handle, params: Option<&HostNodeParams>) {
        set(node, host(params))
    }

    /// Changes it in an instantiated graph.
    fn hipGraphExecHostNodeSetParams(
        exec: Handle,
        node: Handle,
        params: Option<&HostNodeParams>,
    ) {
        set_exec(exec, node, host(params))
    }

    /// Adds a node that runs a copy of another graph.
    fn hipGraphAddChildGraphNode(
        node: Option<&mut Handle>,
        graph: Handle,
        dependencies: List<Handle>,
        count: usize,
        inner: Handle,
    ) {
        add(node, graph, dependencies, count, child(inner))
    }

    /// The graph that a node runs.
    fn hipGraphChildGraphNodeGetGraph(node: Handle, graph: Option<&mut Handle>) {
        match work_of(node)? {
            NodeWork::Child(child) => graph.put(child.handle),
            _ => Err(HipError::INVALID_VALUE),
        }
    }

    /// Changes it in an instantiated graph.
    fn hipGraphExecChildGraphNodeSetParams(exec: Handle, node: Handle, inner: Handle) {
        set_exec(exec, node, child(inner))
    }

    /// Adds a node that does nothing.
    fn hipGraphAddEmptyNode(
        node: Option<&mut Handle>,
        graph: Handle,
        dependencies: List<Handle>,
        count: usize,
    ) {
        add(node, graph, dependencies, count, |_| Ok(NodeWork::Empty))
    }

    /// Adds a node that records an event.
    fn hipGraphAddEventRecordNode(
        node: Option<&mut Handle>,
        graph: Handle,
        dependencies: List<Handle>,
        count: usize,
        event: Handle,
    ) {
        add(node, graph, dependencies, count, event_node(event, NodeWork::Record))
    }

    /// The event that a node records.
    fn hipGraphEventRecordNodeGetEvent(node: Handle, event: Option<&mut Handle>) {
        match work_of(node)? {
            NodeWork::Record(found) => event.put(found.handle),
            _ => Err(HipError::INVALID_VALUE),
        }
    }

    /// Changes it.
    fn hipGraphEventRecordNodeSetEvent(node: Handle, event: Handle) {
        set(node, event_node(event, NodeWork::Record))
    }

    /// Changes it in an instantiated graph.
    fn hipGraphExecEventRecordNodeSetEvent(exec: Handle, node: Handle, event: Handle) {
        set_exec(exec, node, event_node(event, NodeWork::Record))
    }

    /// Adds a node that waits for an event.
    fn hipGraphAddEventWaitNode(
        node: Option<&mut Handle>,
        graph: Handle,
        dependencies: List<Handle>,
        count: usize,
        event: Handle,
    ) {
        add(node, graph, dependencies, count, event_node(event, NodeWork::Wait))
    }

    /// The event that a node waits for.
    fn hipGraphEventWaitNodeGetEvent(node: Handle, event: Option<&mut Handle>) {
        match work_of(node)? {
            NodeWork::Wait(found) => event.put(found.handle),
            _ => Err(HipError::INVALID_VALUE),
        }
    }

    /// Changes it.
    fn hipGraphEventWaitNodeSetEvent(node: Handle, event: Handle) {
        set(node, event_node(event, NodeWork::Wait))
    }

    /// Changes it in an instantiated graph.
    fn hipGraphExecEventWaitNodeSetEvent(exec: Handle, node: Handle, event: Handle) {
        set_exec(exec, node, event_node(event, NodeWork::Wait))
    }

    /// Adds a node of any kind.
    fn hipGraphAddNode(
        node: Option<&mut Handle>,
        graph: Handle,
        dependencies: List<Handle>,
        count: usize,
        params: Option<&NodeParams>,
    ) {
        add(node, graph, dependencies, count, given(params)?.work())
    }

    /// Changes what a node does.
    fn hipGraphNodeSetParams(node: Handle, params: Option<&NodeParams>) {
        set(node, given(params)?.work())
    }

    /// Changes it in an instantiated graph.
    fn hipGraphExecNodeSetParams(exec: Handle, node: Handle, params: Option<&NodeParams>) {
        set_exec(exec, node, given(params)?.work())
    }
}
