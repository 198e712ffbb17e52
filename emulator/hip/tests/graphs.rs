//! Graphs: built by hand, captured, instantiated, launched, updated.

#![allow(unsafe_code, reason = "the API is C's")]

mod common;

use std::ffi::c_void;
use std::sync::atomic::{AtomicU32, Ordering};

use amdhip64::error::HipError;
use amdhip64::ffi::{List, Room};
use amdhip64::types::*;
use amdhip64::{capture, device, event, graph, memory, module, stream};
use common::*;

const GLOBAL: u32 = 0;
const THREAD_LOCAL: u32 = 1;
const RELAXED: u32 = 2;

/// A graph whose handles are given back at the end.
struct Graph(Handle);

impl Graph {
    fn new() -> Graph {
        let mut handle = 0;
        good(graph::hipGraphCreate(Some(&mut handle), 0));
        Graph(handle)
    }

    fn instantiate(&self) -> Exec {
        let mut handle = 0;
        good(graph::hipGraphInstantiate(Some(&mut handle), self.0, None, Room::NULL, 0));
        Exec(handle)
    }

    fn nodes(&self) -> Vec<Handle> {
        let mut count = 0;
        good(graph::hipGraphGetNodes(self.0, Room::NULL, Some(&mut count)));
        let mut nodes = vec![0; count];
        good(graph::hipGraphGetNodes(self.0, Room::new(&mut nodes), Some(&mut count)));
        nodes
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        let _ = graph::hipGraphDestroy(self.0);
    }
}

struct Exec(Handle);

impl Exec {
    #[track_caller]
    fn launch(&self, stream: Handle) {
        good(graph::hipGraphLaunch(self.0, stream));
        good(stream::hipStreamSynchronize(stream));
    }
}

impl Drop for Exec {
    fn drop(&mut self) {
        let _ = graph::hipGraphExecDestroy(self.0);
    }
}

/// Arguments of `add`, kept for as long as a description points to them.
struct Add {
    address: Address,
    value: u32,
    count: u32,
    spins: u32,
    list: [Address; 4],
}

impl Add {
    fn new(address: Address, value: u32) -> Box<Add> {
        let mut add = Box::new(Add { address, value, count: 64, spins: 0, list: [0; 4] });
        add.list = [at(&add.address), at(&add.value), at(&add.count), at(&add.spins)];
        add
    }

    fn params(&self, func: Handle) -> KernelNodeParams {
        KernelNodeParams {
            block_dim: Dim3 { x: 64, y: 1, z: 1 },
            extra: 0,
            func,
            grid_dim: Dim3 { x: 1, y: 1, z: 1 },
            kernel_params: self.list.as_ptr() as Address,
            shared_mem_bytes: 0,
        }
    }
}

fn add_kernel(graph: &Graph, after: &[Handle], func: Handle, address: Address, by: u32) -> Handle {
    let mut node = 0;
    let add = Add::new(address, by);
    let (list, count) = (List::new(after), after.len());
    let params = add.params(func);
    good(graph::hipGraphAddKernelNode(Some(&mut node), graph.0, list, count, Some(&params)));
    node
}

fn add_fill(graph: &Graph, after: &[Handle], address: Address, value: u32) -> Handle {
    let mut node = 0;
    let params =
        MemsetParams { dst: address, element_size: 4, height: 1, pitch: 0, value, width: 64 };
    let (list, count) = (List::new(after), after.len());
    good(graph::hipGraphAddMemsetNode(Some(&mut node), graph.0, list, count, Some(&params)));
    node
}

#[test]
fn graphs_are_built_and_launched() {
    use_device(1);
    let module = load();
    let func = function(module, "add");
    let (address, out) = (upload(&[0; 64]), upload(&[0; 64]));
    let stream = new_stream(1);
    let graph = Graph::new();
    // Added before its dependencies: edges decide, not the order of the calls.
    let mut copy = 0;
    good(graph::hipGraphAddMemcpyNode1D(
        Some(&mut copy),
        graph.0,
        List::NULL,
        0,
        out,
        address,
        256,
        kind::DEVICE_TO_DEVICE,
    ));
    let fill = add_fill(&graph, &[], address, 100);
    let first = add_kernel(&graph, &[fill], func, address, 5);
    let second = add_kernel(&graph, &[first], func, address, 7);
    let (from, to) = ([second], [copy]);
    good(graph::hipGraphAddDependencies(graph.0, List::new(&from), List::new(&to), 1));
    let circle = graph::hipGraphAddDependencies(graph.0, List::new(&to), List::new(&[fill]), 1);
    assert_eq!(circle, HipError::INVALID_VALUE);

    let mut count = 0;
    good(graph::hipGraphGetEdges(graph.0, Room::NULL, Room::NULL, Some(&mut count)));
    assert_eq!(count, 3);
    let mut roots = [0; 4];
    count = 4;
    good(graph::hipGraphGetRootNodes(graph.0, Room::new(&mut roots), Some(&mut count)));
    assert_eq!((count, roots), (1, [fill, 0, 0, 0]));
    let mut number = 99;
    good(graph::hipGraphNodeGetType(first, Some(&mut number)));
    assert_eq!(number, 0);

    let exec = graph.instantiate();
    for _ in 0..3 {
        exec.launch(stream);
        assert_eq!(download(out, 64), [112; 64]);
    }
    // A kernel's arguments, read back, changed, in the graph and in its instance.
    let mut params = KernelNodeParams::default();
    good(graph::hipGraphKernelNodeGetParams(first, Some(&mut params)));
    assert_eq!(params.func, func);
    let add = Add::new(address, 50);
    good(graph::hipGraphExecKernelNodeSetParams(exec.0, first, Some(&add.params(func))));
    exec.launch(stream);
    assert_eq!(download(out, 64), [157; 64]);
    good(graph::hipGraphKernelNodeSetParams(second, Some(&params)));
    let other = graph.instantiate();
    other.launch(stream);
    assert_eq!(download(out, 64), [110; 64]);
    // A node that is switched off.
    good(graph::hipGraphNodeSetEnabled(other.0, second, 0));
    other.launch(stream);
    assert_eq!(download(out, 64), [105; 64]);
    let wrong = graph::hipGraphMemsetNodeSetParams(first, None);
    assert_eq!(wrong, HipError::INVALID_VALUE);
    drop((graph, exec, other));
    for address in [address, out] {
        good(memory::hipFree(address));
    }
    good(stream::hipStreamDestroy(stream));
    good(module::hipModuleUnload(module));
}

#[test]
fn instances_are_updated() {
    use_device(2);
    let module = load();
    let func = function(module, "add");
    let address = upload(&[0; 64]);
    let stream = new_stream(1);
    let make = |fill, by| {
        let graph = Graph::new();
        let node = add_fill(&graph, &[], address, fill);
        add_kernel(&graph, &[node], func, address, by);
        graph
    };
    let graph = make(1, 2);
    let exec = graph.instantiate();
    exec.launch(stream);
    assert_eq!(download(address, 64), [3; 64]);
    let update = |with: &Graph| {
        let (mut node, mut result) = (0, 99);
        let error = graph::hipGraphExecUpdate(exec.0, with.0, Some(&mut node), Some(&mut result));
        (error, node, result)
    };
    let other = make(10, 20);
    assert_eq!(update(&other), (HipError::SUCCESS, 0, 0));
    exec.launch(stream);
    assert_eq!(download(address, 64), [30; 64]);

    let failure = HipError::GRAPH_EXEC_UPDATE_FAILURE;
    let longer = make(1, 2);
    add_fill(&longer, &[], address, 0);
    assert_eq!(update(&longer), (failure, 0, 2));
    let swapped = Graph::new();
    let first = add_kernel(&swapped, &[], func, address, 1);
    add_fill(&swapped, &[first], address, 0);
    assert_eq!(update(&swapped), (failure, first, 3));
    let loose = Graph::new();
    add_fill(&loose, &[], address, 0);
    let second = add_kernel(&loose, &[], func, address, 1);
    assert_eq!(update(&loose), (failure, second, 2));
    // None of them changed anything.
    exec.launch(stream);
    assert_eq!(download(address, 64), [30; 64]);
    good(stream::hipStreamDestroy(stream));
    good(memory::hipFree(address));
    good(module::hipModuleUnload(module));
}

#[test]
fn graphs_within_graphs_copies_and_functions() {
    use_device(3);
    static CALLS: AtomicU32 = AtomicU32::new(0);
    extern "C" fn call(data: *mut c_void) {
        CALLS.fetch_add(data as usize as u32, Ordering::SeqCst);
    }
    let module = load();
    let func = function(module, "add");
    let address = upload(&[0; 64]);
    let stream = new_stream(1);
    let inner = Graph::new();
    let kernel = add_kernel(&inner, &[], func, address, 3);
    let outer = Graph::new();
    let fill = add_fill(&outer, &[], address, 1);
    let (mut child, mut host, mut last) = (0, 0, 0);
    good(graph::hipGraphAddChildGraphNode(
        Some(&mut child),
        outer.0,
        List::new(&[fill]),
        1,
        inner.0,
    ));
    let params = HostNodeParams { function: Some(call), user_data: 5 };
    let after = [child];
    good(graph::hipGraphAddHostNode(Some(&mut host), outer.0, List::new(&after), 1, Some(&params)));
    good(graph::hipGraphAddEmptyNode(Some(&mut last), outer.0, List::new(&[host]), 1));
    let mut of_node = Graph(0);
    good(graph::hipGraphChildGraphNodeGetGraph(child, Some(&mut of_node.0)));
    let copies = of_node.nodes();
    std::mem::forget(of_node);
    assert_eq!(copies.len(), 1);
    assert_ne!(copies[0], kernel);

    let mut clone = Graph(0);
    good(graph::hipGraphClone(Some(&mut clone.0), outer.0));
    let mut copy = 0;
    good(graph::hipGraphNodeFindInClone(Some(&mut copy), host, clone.0));
    assert!(clone.nodes().contains(&copy));
    good(graph::hipGraphDestroyNode(copy));
    assert_eq!(clone.nodes().len(), 3);
    assert_eq!(outer.nodes(), [fill, child, host, last]);

    let (exec, exec_clone) = (outer.instantiate(), clone.instantiate());
    drop((inner, outer, clone));
    exec.launch(stream);
    assert_eq!(download(address, 64), [4; 64]);
    assert_eq!(CALLS.load(Ordering::SeqCst), 5);
    exec_clone.launch(stream);
    assert_eq!(CALLS.load(Ordering::SeqCst), 5);
    // The node within the node can be changed in the instance.
    let add = Add::new(address, 9);
    good(graph::hipGraphExecKernelNodeSetParams(exec.0, copies[0], Some(&add.params(func))));
    exec.launch(stream);
    assert_eq!(download(address, 64), [10; 64]);
    let gone = graph::hipGraphNodeGetType(host, Some(&mut 0));
    assert_eq!(gone, HipError::INVALID_VALUE);
    good(stream::hipStreamDestroy(stream));
    good(memory::hipFree(address));
    good(module::hipModuleUnload(module));
}

/// Ends a capture; the graph, or the error.
fn end(stream: Handle) -> Result<Graph, HipError> {
    let mut graph = Graph(0);
    match capture::hipStreamEndCapture(stream, Some(&mut graph.0)) {
        HipError::SUCCESS => Ok(graph),
        error => Err(error),
    }
}

fn status(stream: Handle) -> u32 {
    let mut status = 99;
    good(capture::hipStreamIsCapturing(stream, Some(&mut status)));
    status
}

#[test]
fn streams_are_captured_with_their_forks() {
    use_device(4);
    let module = load();
    let func = function(module, "add");
    let (left, right) = (upload(&[0; 64]), upload(&[0; 64]));
    let (origin, fork) = (new_stream(1), new_stream(1));
    let (mut forked, mut joined) = (0, 0);
    good(event::hipEventCreate(Some(&mut forked)));
    good(event::hipEventCreate(Some(&mut joined)));
    good(capture::hipStreamBeginCapture(origin, THREAD_LOCAL));
    assert_eq!((status(origin), status(fork)), (1, 0));
    good(memory::hipMemsetD32Async(left, 10, 64, origin));
    good(event::hipEventRecord(forked, origin));
    good(stream::hipStreamWaitEvent(fork, forked, 0));
    assert_eq!(status(fork), 1);
    add(func, origin, left, 1, 64, 0);
    good(memory::hipMemcpyDtoDAsync(right, left, 256, fork));
    add(func, fork, right, 5, 64, 0);
    good(event::hipEventRecord(joined, fork));
    good(stream::hipStreamWaitEvent(origin, joined, 0));
    let (mut id, mut handle, mut count) = (0, 0, 0);
    let mut list = std::ptr::null();
    good(capture::hipStreamGetCaptureInfo_v2(
        origin,
        Some(&mut 0),
        Some(&mut id),
        Some(&mut handle),
        Some(&mut list),
        Some(&mut count),
    ));
    assert_eq!(count, 2);
    assert_eq!(event::hipEventQuery(forked), HipError::CAPTURED_EVENT);
    assert!(matches!(end(fork), Err(HipError::STREAM_CAPTURE_UNMATCHED)));
    let graph = end(origin).unwrap();
    assert_eq!(graph.0, handle);
    assert_eq!((status(origin), status(fork)), (0, 0));
    assert_eq!(graph.nodes().len(), 4);
    // Nothing was done yet.
    assert_eq!(download(left, 64), [0; 64]);
    let exec = graph.instantiate();
    exec.launch(origin);
    exec.launch(0);
    assert_eq!(download(left, 64), [11; 64]);
    // The fork's copy comes after the fill, beside the addition in the origin.
    assert!([15, 16].contains(&download(right, 1)[0]));

    // A graph that is launched into a capture becomes a node of it.
    good(capture::hipStreamBeginCapture(origin, RELAXED));
    good(graph::hipGraphLaunch(exec.0, origin));
    add(func, origin, left, 30, 64, 0);
    let nested = end(origin).unwrap();
    nested.instantiate().launch(origin);
    assert_eq!(download(left, 64), [41; 64]);
    for address in [left, right] {
        good(memory::hipFree(address));
    }
    for stream in [origin, fork] {
        good(stream::hipStreamDestroy(stream));
    }
    good(module::hipModuleUnload(module));
}

/// The rules of capture. One test, because some of them hold for the whole process.
#[test]
fn captures_fail_by_the_rules() {
    use_device(5);
    let address = upload(&[0; 64]);
    let (origin, fork) = (new_stream(1), new_stream(1));
    let mut event = 0;
    good(event::hipEventCreate(Some(&mut event)));
    let begin = |mode| good(capture::hipStreamBeginCapture(origin, mode));
    let fill = |stream| memory::hipMemsetAsync(address, 1, 4, stream);

    let legacy = capture::hipStreamBeginCapture(0, GLOBAL);
    assert_eq!(legacy, HipError::STREAM_CAPTURE_UNSUPPORTED);
    assert!(matches!(end(origin), Err(HipError::ILLEGAL_STATE)));

    // Work of a fork that the origin did not wait for.
    begin(RELAXED);
    let again = capture::hipStreamBeginCapture(origin, RELAXED);
    assert_eq!(again, HipError::ILLEGAL_STATE);
    good(fill(origin));
    good(event::hipEventRecord(event, origin));
    good(stream::hipStreamWaitEvent(fork, event, 0));
    good(fill(fork));
    assert!(matches!(end(origin), Err(HipError::STREAM_CAPTURE_UNJOINED)));
    assert_eq!(status(fork), 0);

    // An event from outside.
    good(event::hipEventRecord(event, fork));
    begin(RELAXED);
    let wait = stream::hipStreamWaitEvent(origin, event, 0);
    assert_eq!(wait, HipError::STREAM_CAPTURE_ISOLATION);
    assert_eq!(status(origin), 2);
    assert_eq!(fill(origin), HipError::STREAM_CAPTURE_INVALIDATED);
    assert!(matches!(end(origin), Err(HipError::STREAM_CAPTURE_INVALIDATED)));

    // Waiting for a stream that is being captured.
    begin(RELAXED);
    let wait = stream::hipStreamSynchronize(origin);
    assert_eq!(wait, HipError::STREAM_CAPTURE_UNSUPPORTED);
    assert!(matches!(end(origin), Err(HipError::STREAM_CAPTURE_INVALIDATED)));

    // Allocation: not in this thread, unless it says that it knows.
    let mut other = 0;
    begin(THREAD_LOCAL);
    let unsafe_call = memory::hipMalloc(Some(&mut other), 4);
    assert_eq!(unsafe_call, HipError::STREAM_CAPTURE_UNSUPPORTED);
    assert!(matches!(end(origin), Err(HipError::STREAM_CAPTURE_INVALIDATED)));
    let mut mode = RELAXED;
    good(capture::hipThreadExchangeStreamCaptureMode(Some(&mut mode)));
    assert_eq!(mode, GLOBAL);
    begin(THREAD_LOCAL);
    good(memory::hipMalloc(Some(&mut other), 4));
    good(fill(origin));
    assert_eq!(end(origin).unwrap().nodes().len(), 1);
    good(capture::hipThreadExchangeStreamCaptureMode(Some(&mut mode)));

    // From another thread.
    begin(THREAD_LOCAL);
    let elsewhere = std::thread::spawn(move || end(origin).err()).join().unwrap();
    assert_eq!(elsewhere, Some(HipError::STREAM_CAPTURE_WRONG_THREAD));
    assert!(end(origin).is_ok());
    for address in [address, other] {
        good(memory::hipFree(address));
    }
    good(device::hipDeviceSynchronize());
}
