//! Events: points in the order of streams, with the time at which they were reached.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use crate::error::{HipError, Result};
use crate::ffi::{api, given};
use crate::handle::{fresh, lock};
use crate::runtime::{Runtime, runtime};
use crate::stream::{self, Stream, Wait};
use crate::types::{Handle, flag};
use crate::work::Work;

/// One recording of an event.
#[derive(Default)]
pub struct Record {
    reached: Mutex<Option<Instant>>,
    signal: Condvar,
}

impl Record {
    /// Notes the time and wakes whoever waits.
    pub fn finish(&self) {
        *lock(&self.reached) = Some(Instant::now());
        self.signal.notify_all();
    }

    /// When it was reached, if it was.
    pub fn time(&self) -> Option<Instant> {
        *lock(&self.reached)
    }

    /// Waits until it was reached.
    pub fn wait(&self) {
        let reached = lock(&self.reached);
        let waited = self.signal.wait_while(reached, |reached| reached.is_none());
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

/// What happened last to an event.
#[derive(Clone, Default)]
pub enum State {
    /// Nothing.
    #[default]
    Never,
    /// It was recorded in a stream.
    Recorded(Arc<Record>),
    /// It was recorded in a stream that was being captured: the capture, and the nodes that lay
    /// before it.
    Captured(u64, Vec<Handle>),
}

/// An event.
pub struct Event {
    /// Its handle.
    pub handle: Handle,
    /// Its device.
    pub device: usize,
    flags: u32,
    state: Mutex<State>,
}

impl Event {
    /// What happened last.
    pub fn state(&self) -> State {
        lock(&self.state).clone()
    }

    /// Changes what happened last.
    pub fn set(&self, state: State) {
        *lock(&self.state) = state;
    }

    /// Begins a new recording.
    pub fn begin(&self) -> Arc<Record> {
        let record = Arc::new(Record::default());
        self.set(State::Recorded(record.clone()));
        record
    }

    fn recording(&self) -> Result<Option<Arc<Record>>> {
        match self.state() {
            State::Never => Ok(None),
            State::Recorded(record) => Ok(Some(record)),
            State::Captured(..) => Err(HipError::CAPTURED_EVENT),
        }
    }
}

/// The event of a handle.
pub fn find(runtime: &Runtime, handle: Handle) -> Result<Arc<Event>> {
    runtime.events.get(handle).ok_or(HipError::INVALID_HANDLE)
}

/// The event of a handle, or none for null.
pub fn find_optional(runtime: &Runtime, handle: Handle) -> Result<Option<Arc<Event>>> {
    if handle == 0 { Ok(None) } else { find(runtime, handle).map(Some) }
}

fn create(place: Option<&mut Handle>, flags: u32) -> Result {
    let place = given(place)?;
    if flags & !flag::EVENT_ALL != 0 {
        return Err(HipError::INVALID_VALUE);
    }
    if flags & flag::EVENT_INTERPROCESS != 0 {
        return Err(HipError::NOT_SUPPORTED);
    }
    let runtime = runtime()?;
    let handle = fresh();
    let device = runtime.current().ordinal;
    let event = Event { handle, device, flags, state: Mutex::default() };
    runtime.events.insert(handle, Arc::new(event));
    *place = handle;
    Ok(())
}

/// Records an event in a stream.
pub fn record(runtime: &Runtime, event: &Event, stream: &Arc<Stream>) -> Result {
    if let Some((capture, nodes)) = runtime.captures.position(stream)? {
        event.set(State::Captured(capture, nodes));
        return Ok(());
    }
    if event.device != stream.device {
        return Err(HipError::INVALID_HANDLE);
    }
    stream::check_legacy(runtime, stream)?;
    let record = Arc::new(Record::default());
    stream::submit(runtime, stream, Work::Record(record.clone()), Vec::new())?;
    event.set(State::Recorded(record));
    Ok(())
}

/// Makes a stream wait for an event.
pub fn wait(runtime: &Runtime, stream: &Arc<Stream>, event: &Event) -> Result {
    match event.state() {
        State::Captured(capture, nodes) => runtime.captures.join(stream, capture, nodes),
        state => {
            runtime.captures.forbid_isolation(stream)?;
            stream::check_legacy(runtime, stream)?;
            let State::Recorded(record) = state else { return Ok(()) };
            let waits = vec![Wait::Event(record)];
            stream::submit(runtime, stream, Work::Nothing, waits).map(|_| ())
        }
    }
}

api! {
    /// Makes an event.
    fn hipEventCreate(event: Option<&mut Handle>) {
        create(event, 0)
    }

    /// Makes an event.
    fn hipEventCreateWithFlags(event: Option<&mut Handle>, flags: u32) {
        create(event, flags)
    }

    /// Ends an event; what waits for it goes on waiting.
    fn hipEventDestroy(event: Handle) {
        runtime()?.events.remove(event).map(|_| ()).ok_or(HipError::INVALID_HANDLE)
    }

    /// Records an event in a stream.
    fn hipEventRecord(event: Handle, stream: Handle) {
        let runtime = runtime()?;
        let event = find(runtime, event)?;
        record(runtime, &event, &stream::find(runtime, stream)?)
    }

    /// Records an event in a stream; null is the thread's own.
    fn hipEventRecord_spt(event: Handle, stream: Handle) {
        let runtime = runtime()?;
        let event = find(runtime, event)?;
        record(runtime, &event, &stream::find(runtime, stream::per_thread(stream))?)
    }

    /// Records an event in a stream; flags (external nodes of graphs) are not there.
    fn hipEventRecordWithFlags(event: Handle, stream: Handle, flags: u32) {
        if flags != 0 {
            return Err(HipError::NOT_SUPPORTED);
        }
        let runtime = runtime()?;
        let event = find(runtime, event)?;
        record(runtime, &event, &stream::find(runtime, stream)?)
    }

    /// Waits for an event.
    fn hipEventSynchronize(event: Handle) {
        let runtime = runtime()?;
        let event = find(runtime, event)?;
        if let Some(record) = event.recording()? {
            if record.time().is_none() {
                stream::forbid_in_callback()?;
            }
            record.wait();
        }
        runtime.devices[event.device].check()
    }

    /// Whether an event was reached.
    fn hipEventQuery(event: Handle) {
        let runtime = runtime()?;
        let event = find(runtime, event)?;
        match event.recording()? {
            Some(record) if record.time().is_none() => Err(HipError::NOT_READY),
            _ => runtime.devices[event.device].check(),
        }
    }

    /// Milliseconds between two events.
    fn hipEventElapsedTime(milliseconds: Option<&mut f32>, start: Handle, stop: Handle) {
        let milliseconds = given(milliseconds)?;
        let runtime = runtime()?;
        let (start, stop) = (find(runtime, start)?, find(runtime, stop)?);
        let untimed = (start.flags | stop.flags) & flag::EVENT_DISABLE_TIMING != 0;
        if untimed || start.device != stop.device {
            return Err(HipError::INVALID_HANDLE);
        }
        let (Some(start), Some(stop)) = (start.recording()?, stop.recording()?) else {
            return Err(HipError::INVALID_HANDLE);
        };
        let (Some(start), Some(stop)) = (start.time(), stop.time()) else {
            return Err(HipError::NOT_READY);
        };
        let seconds = match stop.checked_duration_since(start) {
            Some(forward) => forward.as_secs_f64(),
            None => -start.duration_since(stop).as_secs_f64(),
        };
        *milliseconds = (seconds * 1e3) as f32;
        Ok(())
    }
}
