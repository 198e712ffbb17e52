//! What a driver's library must do for a GPU to run plans, and the words in which it answers.
//!
//! HIP took over the numbers of CUDA's errors and the meaning of its functions; so one [`Status`]
//! serves both, and each driver is a list of its functions' names (`calls!`).
#![allow(unsafe_code)]

use super::device::Gpu;
use crate::device::{DeviceError, DeviceKind, GpuInfo};
use std::ffi::{CStr, c_char, c_void};
use waveloom_plan::Plan;

/// `hipError_t` and `CUresult`. A number, not an enum: a library may be newer than this program.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Status(pub u32);

impl Status {
    pub const SUCCESS: Status = Status(0);
    pub const OUT_OF_MEMORY: Status = Status(2);
    pub const NO_DEVICE: Status = Status(100);
    pub const INVALID_DEVICE: Status = Status(101);
    pub const ECC: Status = Status(214);
    pub const NOT_FOUND: Status = Status(500);
    pub const NOT_READY: Status = Status(600);
    pub const ILLEGAL_ADDRESS: Status = Status(700);
    pub const LAUNCH_TIME_OUT: Status = Status(702);
    pub const CONTEXT_IS_DESTROYED: Status = Status(709);
    pub const ASSERT: Status = Status(710);
    pub const LAUNCH_FAILURE: Status = Status(719);

    /// The value, if this is success.
    pub fn give<T>(self, value: T) -> Result<T, Status> {
        if self == Status::SUCCESS { Ok(value) } else { Err(self) }
    }
}

/// What a library writes to has a value before.
pub trait Empty {
    /// A handle of nothing, zero.
    fn empty() -> Self;
}

impl Empty for f32 {
    fn empty() -> f32 {
        0.0
    }
}

macro_rules! handles {
    ($($(#[$meta:meta])* $name:ident)*) => {$(
        $(#[$meta])*
        #[repr(transparent)]
        #[derive(Clone, Copy, Debug)]
        pub struct $name(pub *mut c_void);

        impl Empty for $name {
            fn empty() -> $name {
                $name(std::ptr::null_mut())
            }
        }

        // SAFETY: a handle is a name that drivers accept from any thread; what it stands for is
        // guarded by them. Of addresses, `Pinned` and `DeviceMemory` say who may look there.
        unsafe impl Send for $name {}
    )*};
}

handles! {
    /// `hipStream_t`, `CUstream`.
    Stream
    /// `hipEvent_t`, `CUevent`.
    Event
    /// `hipModule_t`, `CUmodule`.
    Module
    /// `hipFunction_t`, `CUfunction`.
    Function
    /// `hipGraph_t`, `CUgraph`.
    Graph
    /// `hipGraphExec_t`, `CUgraphExec`.
    GraphExec
    /// An address in device memory: a number for the host, which never looks there.
    DeviceAddress
    /// An address in memory of the host that the device reaches.
    HostAddress
}

/// What a driver gives and takes back.
#[derive(Clone, Copy)]
pub enum Resource {
    Stream(Stream),
    Event(Event),
    Module(Module),
    GraphExec(GraphExec),
    Device(DeviceAddress),
    Host(HostAddress),
}

macro_rules! resources {
    ($($variant:ident of $name:ident,)*) => {$(
        impl From<$name> for Resource {
            fn from(value: $name) -> Resource {
                Resource::$variant(value)
            }
        }
    )*};
}

resources! {
    Stream of Stream,
    Event of Event,
    Module of Module,
    GraphExec of GraphExec,
    Device of DeviceAddress,
    Host of HostAddress,
}

/// How a launch goes with what was queued before it on its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// It begins when all of that has ended.
    After,
    /// It may begin before, where the device can do that: its code waits for it.
    Overlapping,
    /// As [`Order::After`], with all of its workgroups at once, or not at all.
    Together,
}

/// How well a plan fits a device: more is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fit(pub u32);

impl Fit {
    /// Made for it.
    pub const EXACT: Fit = Fit(u32::MAX);
}

/// A workgroup of a launch.
#[derive(Clone, Copy)]
pub struct Block {
    /// Work-items.
    pub work_items: u32,
    /// Bytes of the local data share besides those of the code.
    pub shared: u32,
}

/// A library that drives GPUs.
///
/// The functions that are `unsafe` want this of their callers: handles were given by this driver,
/// on the device that is bound, and not released; memory is there for all the bytes that are
/// named, and nobody else uses it until the stream has got past the call; an address of the host
/// is of pinned memory where the call does not wait.
#[allow(clippy::missing_safety_doc, reason = "the trait says it for all of them")]
pub trait Driver: Sync {
    /// How the program calls the device of this number.
    fn kind(&self, index: u32) -> DeviceKind;

    /// Number of devices. That there is none is no error.
    fn count(&self) -> Result<u32, DeviceError>;

    /// The error where there is none.
    fn no_device(&self) -> DeviceError;

    /// A device's name, and the facts that people and plans ask for. It is bound.
    fn facts(&self, gpu: Gpu) -> Result<(String, GpuInfo), DeviceError>;

    /// How well a device of this architecture runs what requires this; `None` if not at all.
    fn fit(&self, architecture: &str, requires: &[String]) -> Option<Fit>;

    /// The error where nothing that was `found` in an artifact fits.
    fn mismatch(&self, found: String, device: String, architecture: String) -> DeviceError;

    /// A status in the library's words, such as `an illegal memory access was encountered
    /// (hipErrorIllegalAddress)`.
    fn describe(&self, status: Status) -> String;

    /// Whether nothing more can be done in this process after an error.
    fn is_fault(&self, status: Status) -> bool;

    /// Makes a device the one that the calling thread's calls go to.
    fn bind(&self, index: u32) -> Status;

    /// Free and total bytes of its memory.
    fn memory(&self) -> Result<(usize, usize), Status>;

    /// Memory of the device.
    fn allocate(&self, bytes: usize) -> Result<DeviceAddress, Status>;

    /// Memory of the host that stays where it is; `mapped`: the device can work in it, and each
    /// sees what the other stores without either ending what it does.
    fn allocate_host(&self, bytes: usize, mapped: bool) -> Result<HostAddress, Status>;

    /// Where the device finds mapped memory of the host.
    unsafe fn mapped(&self, host: HostAddress) -> Result<DeviceAddress, Status>;

    /// A stream that waits for no other.
    fn create_stream(&self) -> Result<Stream, Status>;

    /// An event; `timed`: it keeps the time at which the device passed it.
    fn create_event(&self, timed: bool) -> Result<Event, Status>;

    /// The time between two timed events that the device has passed.
    unsafe fn milliseconds(&self, start: Event, end: Event) -> Result<f32, Status>;

    /// Takes something back, of which nothing is used any more, on host and device.
    unsafe fn release(&self, resource: Resource) -> Status;

    /// Queues zeros.
    unsafe fn clear(&self, to: DeviceAddress, bytes: usize, stream: Stream) -> Status;

    /// Queues a copy to the device.
    unsafe fn upload(
        &self,
        to: DeviceAddress,
        from: *const c_void,
        bytes: usize,
        stream: Stream,
    ) -> Status;

    /// Queues a copy from the device.
    unsafe fn download(
        &self,
        to: *mut c_void,
        from: DeviceAddress,
        bytes: usize,
        stream: Stream,
    ) -> Status;

    /// Waits for all that has been queued.
    unsafe fn synchronize(&self, stream: Stream) -> Status;

    /// `NOT_READY` while something queued is not done.
    unsafe fn query(&self, stream: Stream) -> Status;

    /// An error that no other call told; `SUCCESS` if there is none.
    fn last_error(&self) -> Status {
        Status::SUCCESS
    }

    /// Marks the point of a stream that the event stands for.
    unsafe fn record(&self, event: Event, stream: Stream) -> Status;

    /// Waits for the point that the event stands for; for none if it never stood for one.
    unsafe fn wait(&self, event: Event) -> Status;

    /// Loads the code of a plan on the device that is bound.
    fn load(&self, gpu: Gpu, code: &[u8], plan: &Plan) -> Result<Module, DeviceError>;

    /// Looks up a kernel; `NOT_FOUND` if there is none of that name.
    unsafe fn function(&self, module: Module, name: &CStr) -> Result<Function, Status>;

    /// Says that a kernel's launches will ask for so many bytes of the local data share.
    unsafe fn grant_shared(&self, function: Function, bytes: u32) -> Status;

    /// Workgroups of `block` work-items of a kernel that a multiprocessor holds at once, by the code
    /// that the driver made; `None` where its code is what the plan says. 0 where they cannot be
    /// launched together.
    unsafe fn resident(
        &self,
        _: Gpu,
        _: Function,
        _block: u32,
    ) -> Option<Result<u32, DeviceError>> {
        None
    }

    /// Queues a kernel: `grid` workgroups. Its arguments are copied before this returns; the kernel takes them, and what it reaches through them is alive until it
    /// has run; it waits for the launches before it if it may overlap with them.
    unsafe fn launch(
        &self,
        function: Function,
        grid: u32,
        block: Block,
        args: &[u64],
        order: Order,
        stream: Stream,
    ) -> Status;

    /// Whether the library has graphs; without, nothing is captured.
    fn has_graphs(&self) -> bool;

    /// From here on, what this thread queues on the stream is captured and not run.
    unsafe fn begin_capture(&self, stream: Stream) -> Status;

    /// Ends a capture.
    unsafe fn end_capture(&self, stream: Stream) -> Result<Graph, Status>;

    /// Makes a captured graph executable.
    unsafe fn instantiate(&self, graph: Graph) -> Result<GraphExec, Status>;

    /// Takes a captured graph back; what was made of it stays.
    unsafe fn discard(&self, graph: Graph) -> Status;

    /// Queues a graph.
    unsafe fn replay(&self, graph: GraphExec, stream: Stream) -> Status;
}

/// Methods of [`Driver`] that are a call each: `method(arguments) = function(what it is given)`.
/// With a result, what it is given begins with where the result goes.
macro_rules! calls {
    (
        plain { $($method:ident($($arg:ident: $type:ty),*) = $function:ident($($given:expr),*);)* }
        giving {
            $($maker:ident($($marg:ident: $mtype:ty),*) -> $made:ident =
                $mfunction:ident($($mgiven:expr),*);)*
        }
        making {
            $($safe:ident($($sarg:ident: $stype:ty),*) -> $smade:ident =
                $sfunction:ident($($sgiven:expr),*);)*
        }
    ) => {
        $(unsafe fn $method(&self, $($arg: $type),*) -> Status {
            // SAFETY: the caller's promise, as `Driver` says it.
            unsafe { (self.api.$function)($($given),*) }
        })*
        $(unsafe fn $maker(&self, $($marg: $mtype),*) -> Result<$made, Status> {
            let mut made = <$made>::empty();
            // SAFETY: as above; the place is written before the call returns.
            unsafe { (self.api.$mfunction)((&raw mut made).cast(), $($mgiven),*) }.give(made)
        })*
        $(fn $safe(&self, $($sarg: $stype),*) -> Result<$smade, Status> {
            let mut made = <$smade>::empty();
            // SAFETY: numbers, which the library checks; the place is written before the call
            // returns.
            unsafe { (self.api.$sfunction)((&raw mut made).cast(), $($sgiven),*) }.give(made)
        })*
    };
}
pub(crate) use calls;

/// A launch's arguments as one buffer, which both libraries take under numbers of their own:
/// `HIP_LAUNCH_PARAM_BUFFER_POINTER`, `_SIZE`, which are CUDA's, and `_END`, which is not.
pub fn packed(args: &[u64], bytes: &mut usize, end: usize) -> [*mut c_void; 5] {
    use std::ptr::without_provenance_mut;
    [
        without_provenance_mut(1),
        args.as_ptr().cast_mut().cast(),
        without_provenance_mut(2),
        (&raw mut *bytes).cast(),
        without_provenance_mut(end),
    ]
}

/// A status by the two texts that a library has for it.
///
/// # Safety
/// Each is null, or ends in zero and stays as it is.
pub unsafe fn describe(status: Status, name: *const c_char, text: *const c_char) -> String {
    let owned = |text: *const c_char| {
        // SAFETY: the caller's promise.
        (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
    };
    match (owned(name), owned(text)) {
        (Some(name), Some(text)) => format!("{text} ({name})"),
        (Some(word), None) | (None, Some(word)) => word,
        (None, None) => format!("error {}", status.0),
    }
}

/// A device's name as a library wrote it into a buffer; `unknown` if that is empty.
pub fn device_name(buffer: &[u8], unknown: &str) -> String {
    let name = buffer.split(|byte| *byte == 0).next().unwrap_or_default();
    let name = String::from_utf8_lossy(name).trim().to_string();
    if name.is_empty() { unknown.into() } else { name }
}
