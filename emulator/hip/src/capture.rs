//! Stream capture: operations become nodes of a graph instead of being done.
//!
//! A capture begins in one stream and spreads to others that wait for an event recorded in it. Each
//! stream that takes part remembers the nodes that its next one must come after.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;

use crate::error::{HipError, Result};
use crate::ffi::{List, Place, api, given};
use crate::graph::{Graph, NodeWork};
use crate::handle::lock;
use crate::runtime::{Runtime, runtime};
use crate::stream::{self, Sort, Stream};
use crate::types::Handle;

/// How strict a capture is about calls that are unsafe while it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Nowhere in the process.
    Global,
    /// Not in the thread that captures.
    ThreadLocal,
    /// Everything goes.
    Relaxed,
}

impl Mode {
    fn from_number(number: u32) -> Result<Mode> {
        [Mode::Global, Mode::ThreadLocal, Mode::Relaxed]
            .get(number as usize)
            .copied()
            .ok_or(HipError::INVALID_VALUE)
    }
}

thread_local! {
    /// What the thread allows itself: `hipThreadExchangeStreamCaptureMode`.
    static THREAD_MODE: Cell<Mode> = const { Cell::new(Mode::Global) };
}

/// `hipStreamCaptureStatus`.
mod status {
    pub const NONE: u32 = 0;
    pub const ACTIVE: u32 = 1;
    pub const INVALIDATED: u32 = 2;
}

/// All captures that are under way.
#[derive(Default)]
pub struct Captures(Mutex<State>);

#[derive(Default)]
struct State {
    captures: BTreeMap<u64, Capture>,
    /// Streams that take part, by [`Stream::id`].
    members: BTreeMap<usize, Member>,
    last_id: u64,
}

struct Capture {
    graph: Arc<Graph>,
    /// The graph is the program's, so it stays when the capture fails.
    given: bool,
    origin: usize,
    mode: Mode,
    thread: ThreadId,
    valid: bool,
}

struct Member {
    capture: u64,
    blocking: bool,
    /// Nodes that the next one comes after.
    last: Vec<Handle>,
    /// A copy of them that the program was given.
    exposed: Box<[Handle]>,
}

impl State {
    fn invalidate(&mut self, chosen: impl Fn(&Capture) -> bool) -> bool {
        let mut any = false;
        for capture in self.captures.values_mut().filter(|capture| chosen(capture)) {
            capture.valid = false;
            any = true;
        }
        any
    }

    /// The capture that a stream takes part in; an error if it failed already.
    fn active(&mut self, stream: &Stream) -> Result<Option<(&Capture, &mut Member)>> {
        let Some(member) = self.members.get_mut(&stream.id()) else { return Ok(None) };
        match self.captures.get(&member.capture) {
            Some(capture) if capture.valid => Ok(Some((capture, member))),
            Some(_) => Err(HipError::STREAM_CAPTURE_INVALIDATED),
            None => Ok(None),
        }
    }
}

impl Captures {
    /// Adds a node behind what the stream captured; `false` if it is not being captured.
    pub fn add(&self, runtime: &Runtime, stream: &Stream, work: &NodeWork) -> Result<bool> {
        let mut state = lock(&self.0);
        let Some((capture, member)) = state.active(stream)? else { return Ok(false) };
        let node = capture.graph.add(runtime, work.clone(), member.last.clone())?;
        member.last = vec![node];
        Ok(true)
    }

    /// Where the stream is: its capture and the nodes that the next one comes after.
    pub fn position(&self, stream: &Stream) -> Result<Option<(u64, Vec<Handle>)>> {
        let mut state = lock(&self.0);
        let active = state.active(stream)?;
        Ok(active.map(|(_, member)| (member.capture, member.last.clone())))
    }

    /// Makes a stream wait for nodes of a capture, which it joins if it takes part in none.
    pub fn join(&self, stream: &Stream, id: u64, nodes: Vec<Handle>) -> Result {
        let mut state = lock(&self.0);
        let capture = state.captures.get_mut(&id).ok_or(HipError::CAPTURED_EVENT)?;
        if !capture.valid {
            return Err(HipError::STREAM_CAPTURE_INVALIDATED);
        }
        if stream.sort == Sort::Legacy {
            capture.valid = false;
            return Err(HipError::STREAM_CAPTURE_IMPLICIT);
        }
        let blocking = stream.is_blocking();
        let member = state.members.entry(stream.id()).or_insert_with(|| Member {
            capture: id,
            blocking,
            last: Vec::new(),
            exposed: Box::default(),
        });
        if member.capture != id {
            let other = member.capture;
            state
                .captures
                .iter_mut()
                .filter(|(number, _)| **number == id || **number == other)
                .for_each(|(_, capture)| capture.valid = false);
            return Err(HipError::STREAM_CAPTURE_MERGE);
        }
        for node in nodes {
            if !member.last.contains(&node) {
                member.last.push(node);
            }
        }
        Ok(())
    }

    /// A stream that is being captured must not wait for what is outside of the capture.
    pub fn forbid_isolation(&self, stream: &Stream) -> Result {
        self.fail(stream, HipError::STREAM_CAPTURE_ISOLATION)
    }

    /// For calls that a stream does not permit while it is being captured.
    pub fn forbid_in(&self, stream: &Stream) -> Result {
        self.fail(stream, HipError::STREAM_CAPTURE_UNSUPPORTED)
    }

    fn fail(&self, stream: &Stream, error: HipError) -> Result {
        let mut state = lock(&self.0);
        let Some((_, member)) = state.active(stream)? else { return Ok(()) };
        let id = member.capture;
        if let Some(capture) = state.captures.get_mut(&id) {
            capture.valid = false;
        }
        Err(error)
    }

    /// Use of the default stream while a blocking stream is being captured.
    pub fn forbid_legacy(&self) -> Result {
        let mut state = lock(&self.0);
        let touched: Vec<u64> =
            state.members.values().filter(|m| m.blocking).map(|m| m.capture).collect();
        for id in &touched {
            if let Some(capture) = state.captures.get_mut(id) {
                capture.valid = false;
            }
        }
        if touched.is_empty() { Ok(()) } else { Err(HipError::STREAM_CAPTURE_IMPLICIT) }
    }

    /// Waiting for a whole device while anything is being captured.
    pub fn forbid_synchronization(&self) -> Result {
        let any = lock(&self.0).invalidate(|_| true);
        if any { Err(HipError::STREAM_CAPTURE_UNSUPPORTED) } else { Ok(()) }
    }

    /// Calls such as `hipMalloc`, which the capture's mode and the thread's must permit.
    pub fn forbid_unsafe(&self) -> Result {
        let (mode, thread) = (THREAD_MODE.get(), std::thread::current().id());
        let touched = |capture: &Capture| match (mode, capture.mode) {
            (Mode::Relaxed, _) | (_, Mode::Relaxed) => false,
            (Mode::Global, Mode::Global) => true,
            _ => capture.thread == thread,
        };
        let any = lock(&self.0).invalidate(touched);
        if any { Err(HipError::STREAM_CAPTURE_UNSUPPORTED) } else { Ok(()) }
    }

    /// A stream is destroyed.
    pub fn abandon(&self, stream: &Stream) {
        let mut state = lock(&self.0);
        if let Some(member) = state.members.remove(&stream.id())
            && let Some(capture) = state.captures.get_mut(&member.capture)
        {
            capture.valid = false;
        }
    }

    fn begin(
        &self,
        stream: &Stream,
        mode: u32,
        (graph, given): (Arc<Graph>, bool),
        dependencies: Vec<Handle>,
    ) -> Result {
        let mode = Mode::from_number(mode)?;
        if stream.sort == Sort::Legacy {
            return Err(HipError::STREAM_CAPTURE_UNSUPPORTED);
        }
        let mut state = lock(&self.0);
        if state.members.contains_key(&stream.id()) {
            return Err(HipError::ILLEGAL_STATE);
        }
        state.last_id += 1;
        let id = state.last_id;
        let thread = std::thread::current().id();
        let origin = stream.id();
        state.captures.insert(id, Capture { graph, given, origin, mode, thread, valid: true });
        let blocking = stream.is_blocking();
        let exposed = Box::default();
        state.members.insert(origin, Member { capture: id, blocking, last: dependencies, exposed });
        Ok(())
    }

    /// Ends the capture that began in a stream; gives the graph.
    fn end(&self, runtime: &Runtime, stream: &Stream) -> Result<Handle> {
        let mut state = lock(&self.0);
        let member = state.members.get(&stream.id()).ok_or(HipError::ILLEGAL_STATE)?;
        let (id, last) = (member.capture, member.last.clone());
        let capture = state.captures.get(&id).ok_or(HipError::ILLEGAL_STATE)?;
        if capture.origin != stream.id() {
            return Err(HipError::STREAM_CAPTURE_UNMATCHED);
        }
        if capture.mode != Mode::Relaxed && capture.thread != std::thread::current().id() {
            return Err(HipError::STREAM_CAPTURE_WRONG_THREAD);
        }
        let capture = state.captures.remove(&id).ok_or(HipError::ILLEGAL_STATE)?;
        let joined = capture.graph.ancestors(&last);
        let unjoined = state
            .members
            .values()
            .any(|m| m.capture == id && m.last.iter().any(|node| !joined.contains(node)));
        state.members.retain(|_, member| member.capture != id);
        drop(state);
        let failure = match (capture.valid, unjoined) {
            (false, _) => HipError::STREAM_CAPTURE_INVALIDATED,
            (true, true) => HipError::STREAM_CAPTURE_UNJOINED,
            (true, false) => return Ok(capture.graph.handle),
        };
        if !capture.given {
            capture.graph.destroy(runtime);
        }
        Err(failure)
    }

    fn status(&self, stream: &Stream) -> u32 {
        match lock(&self.0).active(stream) {
            Ok(None) => status::NONE,
            Ok(Some(_)) => status::ACTIVE,
            Err(_) => status::INVALIDATED,
        }
    }

    /// Adds to or replaces the nodes that the stream's next one comes after.
    fn update(&self, stream: &Stream, nodes: Vec<Handle>, replace: bool) -> Result {
        let mut state = lock(&self.0);
        let active = state.active(stream)?;
        let (capture, member) = active.ok_or(HipError::ILLEGAL_STATE)?;
        if nodes.iter().any(|node| capture.graph.node(*node).is_err()) {
            return Err(HipError::INVALID_VALUE);
        }
        if replace {
            member.last.clear();
        }
        for node in nodes {
            if !member.last.contains(&node) {
                member.last.push(node);
            }
        }
        Ok(())
    }
}

fn begin(stream: Handle, mode: u32) -> Result {
    let runtime = runtime()?;
    let stream = stream::find(runtime, stream)?;
    Mode::from_number(mode)?;
    let graph = Graph::create(runtime);
    let begun = runtime.captures.begin(&stream, mode, (graph.clone(), false), Vec::new());
    if begun.is_err() {
        graph.destroy(runtime);
    }
    begun
}

fn end(stream: Handle, graph: Option<&mut Handle>) -> Result {
    let place = given(graph)?;
    *place = 0;
    let runtime = runtime()?;
    *place = runtime.captures.end(runtime, &*stream::find(runtime, stream)?)?;
    Ok(())
}

fn is_capturing(stream: Handle, place: Option<&mut u32>) -> Result {
    let place = given(place)?;
    let runtime = runtime()?;
    *place = runtime.captures.status(&*stream::find(runtime, stream)?);
    Ok(())
}

fn info(stream: Handle, place: Option<&mut u32>, id: Option<&mut u64>) -> Result {
    let place = given(place)?;
    let runtime = runtime()?;
    let stream = stream::find(runtime, stream)?;
    *place = runtime.captures.status(&stream);
    if let Ok(Some((number, _))) = runtime.captures.position(&stream) {
        id.offer(number);
    }
    Ok(())
}

/// What `hipStreamGetCaptureInfo_v2` gives.
struct Places<'a> {
    status: Option<&'a mut u32>,
    id: Option<&'a mut u64>,
    graph: Option<&'a mut Handle>,
    dependencies: Option<&'a mut *const Handle>,
    count: Option<&'a mut usize>,
}

fn info_v2(stream: Handle, places: Places<'_>) -> Result {
    let status = given(places.status)?;
    let runtime = runtime()?;
    let stream = stream::find(runtime, stream)?;
    *status = runtime.captures.status(&stream);
    let mut state = lock(&runtime.captures.0);
    if let Ok(Some((capture, member))) = state.active(&stream) {
        member.exposed = member.last.clone().into_boxed_slice();
        places.id.offer(member.capture);
        places.graph.offer(capture.graph.handle);
        places.dependencies.offer(member.exposed.as_ptr());
        places.count.offer(member.exposed.len());
    }
    Ok(())
}

api! {
    /// Begins to capture a stream.
    fn hipStreamBeginCapture(stream: Handle, mode: u32) {
        begin(stream, mode)
    }

    /// Begins to capture a stream; null is the thread's own.
    fn hipStreamBeginCapture_spt(stream: Handle, mode: u32) {
        begin(stream::per_thread(stream), mode)
    }

    /// Begins to capture a stream into a graph that exists.
    fn hipStreamBeginCaptureToGraph(
        stream: Handle,
        graph: Handle,
        dependencies: List<Handle>,
        edge_data: usize,
        count: usize,
        mode: u32,
    ) {
        if edge_data != 0 {
            return Err(HipError::NOT_SUPPORTED);
        }
        let runtime = runtime()?;
        let stream = stream::find(runtime, stream)?;
        let graph = Graph::find(runtime, graph)?;
        let dependencies = dependencies.read(count)?;
        for node in &dependencies {
            graph.node(*node)?;
        }
        runtime.captures.begin(&stream, mode, (graph, true), dependencies)
    }

    /// Ends a capture.
    fn hipStreamEndCapture(stream: Handle, graph: Option<&mut Handle>) {
        end(stream, graph)
    }

    /// Ends a capture; null is the thread's own stream.
    fn hipStreamEndCapture_spt(stream: Handle, graph: Option<&mut Handle>) {
        end(stream::per_thread(stream), graph)
    }

    /// Whether a stream is being captured.
    fn hipStreamIsCapturing(stream: Handle, status: Option<&mut u32>) {
        is_capturing(stream, status)
    }

    /// Whether a stream is being captured; null is the thread's own.
    fn hipStreamIsCapturing_spt(stream: Handle, status: Option<&mut u32>) {
        is_capturing(stream::per_thread(stream), status)
    }

    /// Whether a stream is being captured, and the capture's number.
    fn hipStreamGetCaptureInfo(stream: Handle, status: Option<&mut u32>, id: Option<&mut u64>) {
        info(stream, status, id)
    }

    /// The same; null is the thread's own stream.
    fn hipStreamGetCaptureInfo_spt(
        stream: Handle,
        status: Option<&mut u32>,
        id: Option<&mut u64>,
    ) {
        info(stream::per_thread(stream), status, id)
    }

    /// The same with the graph and the nodes that the next one comes after.
    fn hipStreamGetCaptureInfo_v2(
        stream: Handle,
        status: Option<&mut u32>,
        id: Option<&mut u64>,
        graph: Option<&mut Handle>,
        dependencies: Option<&mut *const Handle>,
        count: Option<&mut usize>,
    ) {
        info_v2(stream, Places { status, id, graph, dependencies, count })
    }

    /// The same; null is the thread's own stream.
    fn hipStreamGetCaptureInfo_v2_spt(
        stream: Handle,
        status: Option<&mut u32>,
        id: Option<&mut u64>,
        graph: Option<&mut Handle>,
        dependencies: Option<&mut *const Handle>,
        count: Option<&mut usize>,
    ) {
        let stream = stream::per_thread(stream);
        info_v2(stream, Places { status, id, graph, dependencies, count })
    }

    /// Changes the nodes that the stream's next one comes after.
    fn hipStreamUpdateCaptureDependencies(
        stream: Handle,
        nodes: List<Handle>,
        count: usize,
        flags: u32,
    ) {
        if flags > 1 {
            return Err(HipError::INVALID_VALUE);
        }
        let runtime = runtime()?;
        let stream = stream::find(runtime, stream)?;
        runtime.captures.update(&stream, nodes.read(count)?, flags == 1)
    }

    /// Changes what the thread allows itself during captures; gives what was before.
    fn hipThreadExchangeStreamCaptureMode(mode: Option<&mut u32>) {
        let place = given(mode)?;
        let wanted = Mode::from_number(*place)?;
        *place = THREAD_MODE.replace(wanted) as u32;
        Ok(())
    }
}
