//! Streams: queues of work, each with a thread of its own that does it in order.
//!
//! Order between streams comes from waits. A wait always refers to work that was put into a queue
//! earlier, because [`Runtime::submission`] is held while work is put in; so there are no circles.
//! The default stream ("legacy") waits for all blocking streams of its device, and they for it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::error::{HipError, Result, note};
use crate::event::{self, Record};
use crate::ffi::{List, Place, Room, api, given};
use crate::graph::NodeWork;
use crate::handle::{fresh, lock};
use crate::runtime::{Device, Runtime, current_ordinal, runtime};
use crate::types::{
    Address, Handle, HostFn, STREAM_LEGACY, STREAM_PER_THREAD, StreamCallback, flag,
};
use crate::work::{Compare, HostCall, ValueWait, Work, check_value};

/// Priorities run from this one, the least urgent, ...
const LEAST_PRIORITY: i32 = 1;
/// ... to this one.
const GREATEST_PRIORITY: i32 = -1;

/// What sort of stream it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// A device's default stream.
    Legacy,
    /// A thread's default stream.
    PerThread,
    /// Made by the program.
    Created,
}

/// A stream.
pub struct Stream {
    /// Its handle: what the program calls it in callbacks.
    pub handle: Handle,
    /// Its device.
    pub device: usize,
    /// What sort it is.
    pub sort: Sort,
    flags: u32,
    priority: i32,
    /// Compute units that the program asked for.
    cu_mask: Vec<u32>,
    queue: Arc<Queue>,
}

/// The work of a stream.
struct Queue {
    state: Mutex<QueueState>,
    /// There is work, or there will be no more.
    filled: Condvar,
    /// Work was done.
    advanced: Condvar,
}

#[derive(Default)]
struct QueueState {
    entries: VecDeque<Entry>,
    /// Operations put in so far.
    submitted: u64,
    /// Operations done so far.
    completed: u64,
    /// Whether the thread runs.
    started: bool,
    /// The stream is gone; the thread ends when the queue is empty.
    closed: bool,
}

struct Entry {
    waits: Vec<Wait>,
    work: Work,
}

/// A point in a stream.
#[derive(Clone)]
pub struct Mark {
    queue: Arc<Queue>,
    number: u64,
}

/// A stream in its device's list, until it is gone and its work is done.
pub struct Member {
    queue: Arc<Queue>,
    blocking: bool,
}

/// What an operation waits for before it starts.
#[derive(Clone)]
pub enum Wait {
    /// Everything up to a point of a stream.
    Stream(Mark),
    /// An event.
    Event(Arc<Record>),
}

impl Wait {
    fn wait(&self) {
        match self {
            Wait::Stream(mark) => mark.block(),
            Wait::Event(record) => record.wait(),
        }
    }
}

impl Mark {
    /// Whether the point was reached.
    pub fn is_reached(&self) -> bool {
        self.queue.lock().completed >= self.number
    }

    /// Waits until it is reached.
    pub fn wait(&self) -> Result {
        if !self.is_reached() {
            forbid_in_callback()?;
            self.block();
        }
        Ok(())
    }

    fn block(&self) {
        let state = self.queue.lock();
        let waited = self.queue.advanced.wait_while(state, |state| state.completed < self.number);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

thread_local! {
    /// Whether this is the thread of a stream.
    static IS_WORKER: Cell<bool> = const { Cell::new(false) };
    /// The thread's default streams, by device.
    static OWN: RefCell<BTreeMap<usize, Arc<Stream>>> = const { RefCell::new(BTreeMap::new()) };
}

/// Waiting for a stream from a function that a stream called could wait for itself.
pub fn forbid_in_callback() -> Result {
    if is_worker() {
        note("a function called by a stream must not wait for streams");
        return Err(HipError::NOT_SUPPORTED);
    }
    Ok(())
}

/// Whether the caller is called by a stream.
pub fn is_worker() -> bool {
    IS_WORKER.try_with(Cell::get).unwrap_or(false)
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        lock(&self.state)
    }

    /// The end of what was put in so far.
    fn mark(queue: &Arc<Queue>) -> Mark {
        Mark { queue: queue.clone(), number: queue.lock().submitted }
    }

    /// Whether the stream is gone and its work done.
    fn is_over(&self) -> bool {
        let state = self.lock();
        state.closed && state.completed == state.submitted
    }

    /// The thread: does the work in order until the stream is gone.
    fn run(&self, runtime: &Runtime, device: &Device) {
        IS_WORKER.set(true);
        loop {
            let waiting = |state: &mut QueueState| state.entries.is_empty() && !state.closed;
            let state = self.filled.wait_while(self.lock(), waiting);
            let entry = state.unwrap_or_else(PoisonError::into_inner).entries.pop_front();
            let Some(Entry { waits, work }) = entry else { return };
            waits.iter().for_each(Wait::wait);
            work.run(runtime, device);
            self.lock().completed += 1;
            self.advanced.notify_all();
        }
    }
}

impl Stream {
    fn new(device: usize, sort: Sort, flags: u32, priority: i32) -> Stream {
        let queue =
            Queue { state: Mutex::default(), filled: Condvar::new(), advanced: Condvar::new() };
        let handle = match sort {
            Sort::Legacy => 0,
            Sort::PerThread => STREAM_PER_THREAD,
            Sort::Created => fresh(),
        };
        let cu_mask = Vec::new();
        Stream { handle, device, sort, flags, priority, cu_mask, queue: Arc::new(queue) }
    }

    /// Enters the stream in its device's list.
    fn enter(self, runtime: &Runtime) -> Arc<Stream> {
        let mut members = lock(&runtime.devices[self.device].members);
        members.retain(|member| !member.queue.is_over());
        members.push(Member { queue: self.queue.clone(), blocking: self.is_blocking() });
        drop(members);
        Arc::new(self)
    }

    /// Waits for the default stream, and it waits for this one.
    pub fn is_blocking(&self) -> bool {
        self.sort != Sort::Legacy && self.flags & flag::STREAM_NON_BLOCKING == 0
    }

    /// A number that no other stream has.
    pub fn id(&self) -> usize {
        Arc::as_ptr(&self.queue) as usize
    }

    /// The end of what was put in so far.
    fn mark(&self) -> Mark {
        Queue::mark(&self.queue)
    }

    /// Puts an operation in; starts the thread with the first one.
    fn push(&self, waits: Vec<Wait>, work: Work) -> Result<Mark> {
        let mut state = self.queue.lock();
        if !state.started {
            let (queue, ordinal) = (self.queue.clone(), self.device);
            let body = move || {
                if let Ok(runtime) = runtime() {
                    queue.run(runtime, &runtime.devices[ordinal]);
                }
            };
            let thread = std::thread::Builder::new().name("hip-stream".into());
            thread.spawn(body).map_err(|_| HipError::OPERATING_SYSTEM)?;
            state.started = true;
        }
        state.entries.push_back(Entry { waits, work });
        state.submitted += 1;
        let number = state.submitted;
        drop(state);
        self.queue.filled.notify_one();
        Ok(Mark { queue: self.queue.clone(), number })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.queue.lock().closed = true;
        self.queue.filled.notify_one();
    }
}

/// A device's default stream.
pub fn legacy(runtime: &Runtime, device: &Device) -> Arc<Stream> {
    let make = || Stream::new(device.ordinal, Sort::Legacy, 0, 0).enter(runtime);
    device.default_stream.get_or_init(make).clone()
}

/// The calling thread's default stream on its device.
fn own(runtime: &Runtime) -> Arc<Stream> {
    let device = runtime.current().ordinal;
    let make = || Stream::new(device, Sort::PerThread, 0, 0).enter(runtime);
    OWN.with_borrow_mut(|own| own.entry(device).or_insert_with(make).clone())
}

/// The stream of a handle.
pub fn find(runtime: &Runtime, handle: Handle) -> Result<Arc<Stream>> {
    match handle {
        0 | STREAM_LEGACY => Ok(legacy(runtime, runtime.current())),
        STREAM_PER_THREAD => Ok(own(runtime)),
        handle => runtime.streams.get(handle).ok_or(HipError::INVALID_HANDLE),
    }
}

/// What null means in functions whose name ends in `_spt`.
pub fn per_thread(stream: Handle) -> Handle {
    if stream == 0 { STREAM_PER_THREAD } else { stream }
}

/// The ends of a device's streams, of the blocking ones or of all.
fn marks(device: &Device, only_blocking: bool) -> Vec<Mark> {
    let members = lock(&device.members);
    let chosen = members.iter().filter(|member| member.blocking || !only_blocking);
    chosen.map(|member| Queue::mark(&member.queue)).collect()
}

/// The default stream must not be used where that would touch a stream that is being captured.
pub fn check_legacy(runtime: &Runtime, stream: &Stream) -> Result {
    if stream.sort == Sort::Legacy { runtime.captures.forbid_legacy() } else { Ok(()) }
}

/// Puts an operation into a stream that is not being captured. `waits` come on top of the order that
/// the default stream gives.
pub fn submit(
    runtime: &Runtime,
    stream: &Arc<Stream>,
    work: Work,
    mut waits: Vec<Wait>,
) -> Result<Mark> {
    let device = &runtime.devices[stream.device];
    let _order = lock(&runtime.submission);
    let others = if stream.sort == Sort::Legacy {
        marks(device, true)
    } else if stream.is_blocking() {
        device.default_stream.get().map(|other| other.mark()).into_iter().collect()
    } else {
        Vec::new()
    };
    waits.extend(others.into_iter().filter(|mark| !mark.is_reached()).map(Wait::Stream));
    stream.push(waits, work)
}

/// Puts an operation into a stream, or a node into the graph that is captured from it. `None` if it
/// was captured.
pub fn put(runtime: &Runtime, stream: &Arc<Stream>, node: NodeWork) -> Result<Option<Mark>> {
    if runtime.captures.add(runtime, stream, &node)? {
        return Ok(None);
    }
    check_legacy(runtime, stream)?;
    runtime.devices[stream.device].check()?;
    submit(runtime, stream, node.prepare()?, Vec::new()).map(Some)
}

/// Puts an operation that cannot be captured into a stream.
pub fn put_uncapturable(runtime: &Runtime, stream: &Arc<Stream>, work: Work) -> Result<Mark> {
    runtime.captures.forbid_in(stream)?;
    check_legacy(runtime, stream)?;
    runtime.devices[stream.device].check()?;
    submit(runtime, stream, work, Vec::new())
}

/// Puts an operation into a stream and waits for it. Streams that are being captured cannot wait.
pub fn put_and_wait(runtime: &Runtime, stream: &Arc<Stream>, node: NodeWork) -> Result {
    runtime.captures.forbid_in(stream)?;
    if let Some(mark) = put(runtime, stream, node)? {
        mark.wait()?;
    }
    runtime.devices[stream.device].check()
}

/// Waits for everything in a stream. For the default stream that includes the blocking streams.
fn synchronize(runtime: &Runtime, stream: &Stream) -> Result {
    let device = &runtime.devices[stream.device];
    if stream.sort == Sort::Legacy {
        for mark in marks(device, true) {
            mark.wait()?;
        }
    }
    stream.mark().wait()?;
    device.check()
}

/// Waits for everything on a device.
pub fn synchronize_device(device: &Device) -> Result {
    for mark in marks(device, false) {
        mark.wait()?;
    }
    device.check()
}

fn create(place: Option<&mut Handle>, flags: u32, priority: i32, cu_mask: Vec<u32>) -> Result {
    let place = given(place)?;
    if flags & !flag::STREAM_NON_BLOCKING != 0 {
        return Err(HipError::INVALID_VALUE);
    }
    let runtime = runtime()?;
    let device = runtime.current().ordinal;
    let priority = priority.clamp(GREATEST_PRIORITY, LEAST_PRIORITY);
    let mut stream = Stream::new(device, Sort::Created, flags, priority);
    stream.cu_mask = cu_mask;
    let stream = stream.enter(runtime);
    *place = stream.handle;
    runtime.streams.insert(stream.handle, stream);
    Ok(())
}

fn query(stream: Handle) -> Result {
    let runtime = runtime()?;
    let stream = find(runtime, stream)?;
    runtime.captures.forbid_in(&stream)?;
    let device = &runtime.devices[stream.device];
    let others = if stream.sort == Sort::Legacy { marks(device, true) } else { Vec::new() };
    if !stream.mark().is_reached() || !others.iter().all(Mark::is_reached) {
        return Err(HipError::NOT_READY);
    }
    device.check()
}

fn wait_stream(stream: Handle) -> Result {
    let runtime = runtime()?;
    let stream = find(runtime, stream)?;
    runtime.captures.forbid_in(&stream)?;
    check_legacy(runtime, &stream)?;
    synchronize(runtime, &stream)
}

fn wait_event(stream: Handle, event: Handle, flags: u32) -> Result {
    if flags > 1 {
        return Err(HipError::INVALID_VALUE);
    }
    let runtime = runtime()?;
    let event = event::find(runtime, event)?;
    event::wait(runtime, &find(runtime, stream)?, &event)
}

fn get_flags(stream: Handle, flags: Option<&mut u32>) -> Result {
    flags.put(find(runtime()?, stream)?.flags)
}

fn get_priority(stream: Handle, priority: Option<&mut i32>) -> Result {
    priority.put(find(runtime()?, stream)?.priority)
}

fn add_callback(stream: Handle, function: Option<StreamCallback>, data: Address) -> Result {
    let function = given(function)?;
    let runtime = runtime()?;
    let found = find(runtime, stream)?;
    runtime.captures.forbid_in(&found)?;
    check_legacy(runtime, &found)?;
    // It is called after a fault, too, so that it hears of it.
    submit(runtime, &found, Work::Callback { function, stream, data }, Vec::new()).map(|_| ())
}

fn host_function(stream: Handle, function: Option<HostFn>, data: Address) -> Result {
    let call = HostCall { function: given(function)?, data };
    let runtime = runtime()?;
    put(runtime, &find(runtime, stream)?, NodeWork::Host(call)).map(|_| ())
}

fn wait_value(
    stream: Handle,
    address: Address,
    (bytes, value): (u32, u64),
    flags: u32,
    mask: u64,
) -> Result {
    let compare = match flags {
        0 => Compare::GreaterEqual,
        1 => Compare::Equal,
        2 => Compare::And,
        3 => Compare::Nor,
        _ => return Err(HipError::INVALID_VALUE),
    };
    let runtime = runtime()?;
    check_value(runtime, address, bytes)?;
    let wait = ValueWait { address, bytes, value, mask, compare };
    put_uncapturable(runtime, &find(runtime, stream)?, Work::WaitValue(wait)).map(|_| ())
}

fn write_value(stream: Handle, address: Address, bytes: u32, value: u64) -> Result {
    let runtime = runtime()?;
    check_value(runtime, address, bytes)?;
    let work = Work::WriteValue { address, bytes, value };
    put_uncapturable(runtime, &find(runtime, stream)?, work).map(|_| ())
}

api! {
    /// Makes a stream.
    fn hipStreamCreate(stream: Option<&mut Handle>) {
        create(stream, 0, 0, Vec::new())
    }

    /// Makes a stream.
    fn hipStreamCreateWithFlags(stream: Option<&mut Handle>, flags: u32) {
        create(stream, flags, 0, Vec::new())
    }

    /// Makes a stream; the priority is remembered, all threads of the host are alike.
    fn hipStreamCreateWithPriority(stream: Option<&mut Handle>, flags: u32, priority: i32) {
        create(stream, flags, priority, Vec::new())
    }

    /// Makes a stream for some of the compute units; the mask is remembered.
    fn hipExtStreamCreateWithCUMask(stream: Option<&mut Handle>, size: u32, mask: List<u32>) {
        if size == 0 {
            return Err(HipError::INVALID_VALUE);
        }
        create(stream, 0, 0, mask.read(size as usize)?)
    }

    /// The mask of a stream; all compute units where none was given.
    fn hipExtStreamGetCUMask(stream: Handle, size: u32, mask: Room<u32>) {
        let runtime = runtime()?;
        let stream = find(runtime, stream)?;
        let units = runtime.chip.compute_units() as usize;
        let words = units.div_ceil(32);
        if mask.is_null() || (size as usize) < words {
            return Err(HipError::INVALID_VALUE);
        }
        let all: Vec<u32> = (0..words)
            .map(|word| u32::MAX >> (32 - (units - word * 32).min(32)))
            .collect();
        let mut chosen = if stream.cu_mask.is_empty() { all } else { stream.cu_mask.clone() };
        chosen.resize(size as usize, 0);
        mask.write(&chosen)
    }

    /// Ends a stream when its work is done.
    fn hipStreamDestroy(stream: Handle) {
        let runtime = runtime()?;
        if matches!(stream, 0 | STREAM_LEGACY | STREAM_PER_THREAD) {
            return Err(HipError::INVALID_HANDLE);
        }
        let stream = runtime.streams.remove(stream).ok_or(HipError::INVALID_HANDLE)?;
        runtime.captures.abandon(&stream);
        Ok(())
    }

    /// Whether a stream has nothing to do.
    fn hipStreamQuery(stream: Handle) {
        query(stream)
    }

    /// Whether a stream has nothing to do; null is the thread's own.
    fn hipStreamQuery_spt(stream: Handle) {
        query(per_thread(stream))
    }

    /// Waits for a stream.
    fn hipStreamSynchronize(stream: Handle) {
        wait_stream(stream)
    }

    /// Waits for a stream; null is the thread's own.
    fn hipStreamSynchronize_spt(stream: Handle) {
        wait_stream(per_thread(stream))
    }

    /// Makes a stream wait for an event.
    fn hipStreamWaitEvent(stream: Handle, event: Handle, flags: u32) {
        wait_event(stream, event, flags)
    }

    /// Makes a stream wait for an event; null is the thread's own stream.
    fn hipStreamWaitEvent_spt(stream: Handle, event: Handle, flags: u32) {
        wait_event(per_thread(stream), event, flags)
    }

    /// Flags of a stream.
    fn hipStreamGetFlags(stream: Handle, flags: Option<&mut u32>) {
        get_flags(stream, flags)
    }

    /// Flags of a stream; null is the thread's own.
    fn hipStreamGetFlags_spt(stream: Handle, flags: Option<&mut u32>) {
        get_flags(per_thread(stream), flags)
    }

    /// Priority of a stream.
    fn hipStreamGetPriority(stream: Handle, priority: Option<&mut i32>) {
        get_priority(stream, priority)
    }

    /// Priority of a stream; null is the thread's own.
    fn hipStreamGetPriority_spt(stream: Handle, priority: Option<&mut i32>) {
        get_priority(per_thread(stream), priority)
    }

    /// Device of a stream.
    fn hipStreamGetDevice(stream: Handle, device: Option<&mut i32>) {
        device.put(find(runtime()?, stream)?.device as i32)
    }

    /// A number that no other stream has.
    fn hipStreamGetId(stream: Handle, id: Option<&mut u64>) {
        id.put(find(runtime()?, stream)?.id() as u64)
    }

    /// Priorities that streams can have.
    fn hipDeviceGetStreamPriorityRange(least: Option<&mut i32>, greatest: Option<&mut i32>) {
        runtime()?;
        least.offer(LEAST_PRIORITY);
        greatest.offer(GREATEST_PRIORITY);
        Ok(())
    }

    /// Calls the program when a stream gets there, with the state of its device.
    fn hipStreamAddCallback(
        stream: Handle,
        function: Option<StreamCallback>,
        data: Address,
        flags: u32,
    ) {
        if flags != 0 {
            return Err(HipError::INVALID_VALUE);
        }
        add_callback(stream, function, data)
    }

    /// The same; null is the thread's own stream.
    fn hipStreamAddCallback_spt(
        stream: Handle,
        function: Option<StreamCallback>,
        data: Address,
        flags: u32,
    ) {
        if flags != 0 {
            return Err(HipError::INVALID_VALUE);
        }
        add_callback(per_thread(stream), function, data)
    }

    /// Calls the program when a stream gets there.
    fn hipLaunchHostFunc(stream: Handle, function: Option<HostFn>, data: Address) {
        host_function(stream, function, data)
    }

    /// The same; null is the thread's own stream.
    fn hipLaunchHostFunc_spt(stream: Handle, function: Option<HostFn>, data: Address) {
        host_function(per_thread(stream), function, data)
    }

    /// Makes a stream wait for a value in memory.
    fn hipStreamWaitValue32(stream: Handle, at: Address, value: u32, flags: u32, mask: u32) {
        wait_value(stream, at, (4, u64::from(value)), flags, u64::from(mask))
    }

    /// Makes a stream wait for a value in memory.
    fn hipStreamWaitValue64(stream: Handle, at: Address, value: u64, flags: u32, mask: u64) {
        wait_value(stream, at, (8, value), flags, mask)
    }

    /// Makes a stream write a value to memory.
    fn hipStreamWriteValue32(stream: Handle, at: Address, value: u32, _flags: u32) {
        write_value(stream, at, 4, u64::from(value))
    }

    /// Makes a stream write a value to memory.
    fn hipStreamWriteValue64(stream: Handle, at: Address, value: u64, _flags: u32) {
        write_value(stream, at, 8, value)
    }

    /// Binds managed memory to a stream, which changes nothing here.
    fn hipStreamAttachMemAsync(stream: Handle, at: Address, _length: usize, flags: u32) {
        let runtime = runtime()?;
        find(runtime, stream)?;
        let known = runtime.blocks.find(at).is_some();
        let kinds = [flag::MEM_ATTACH_GLOBAL, flag::MEM_ATTACH_HOST, flag::MEM_ATTACH_SINGLE];
        if known && kinds.contains(&flags) { Ok(()) } else { Err(HipError::INVALID_VALUE) }
    }
}

/// Number of a stream's device, or -1.
#[unsafe(no_mangle)]
pub extern "C" fn hipGetStreamDeviceId(stream: Handle) -> i32 {
    let found = std::panic::catch_unwind(|| {
        let runtime = runtime().ok()?;
        match stream {
            0 => Some(current_ordinal()),
            stream => find(runtime, stream).ok().map(|stream| stream.device),
        }
    });
    found.ok().flatten().map_or(-1, |device| device as i32)
}
