//! AMD GPUs through HIP, found when a program runs.
//!
//! `api` has the table of functions, `library` finds them, `facts` asks what a device is; what a
//! loaded plan does with them is in [`crate::gpu`].
#![allow(unsafe_code)]

mod api;
mod facts;
#[cfg(not(feature = "link-hip"))]
mod library;
#[cfg(feature = "link-hip")]
mod linked;

use crate::device::{DeviceError, DeviceInfo, DeviceKind, GpuInfo};
use crate::gpu::device::Gpu;
use crate::gpu::driver::{
    self, Block, DeviceAddress, Driver, Empty, Event, Fit, Function, Graph, GraphExec, HostAddress,
    Module, Order, Resource, Status, Stream, calls,
};
use crate::gpu::{self, GpuDevice};
use api::{Api, value};
use std::ffi::{CStr, c_int, c_uint, c_void};
use std::ptr;
use std::sync::OnceLock;
use waveloom_plan::Plan;

/// The GPU of this number.
pub fn open(index: u32) -> Result<GpuDevice, DeviceError> {
    GpuDevice::open(Hip::get()?, index)
}

/// What [`crate::devices`] says about AMD GPUs.
pub fn infos() -> Vec<DeviceInfo> {
    gpu::infos(Hip::get(), "hip", "AMD")
}

/// AMD's library.
pub struct Hip {
    api: Api,
}

impl Hip {
    /// That of this process: looked for once.
    fn get() -> Result<&'static dyn Driver, DeviceError> {
        static HIP: OnceLock<Result<Hip, String>> = OnceLock::new();
        match HIP.get_or_init(|| Ok(Hip { api: load()? })) {
            Ok(hip) => Ok(hip),
            Err(problem) => Err(DeviceError::NoHip(problem.clone())),
        }
    }
}

#[cfg(not(feature = "link-hip"))]
fn load() -> Result<Api, String> {
    library::load()
}

/// The table of the library that the build linked.
#[cfg(feature = "link-hip")]
fn load() -> Result<Api, String> {
    Ok(linked::table())
}

impl Driver for Hip {
    fn kind(&self, index: u32) -> DeviceKind {
        DeviceKind::Hip(index)
    }

    fn count(&self) -> Result<u32, DeviceError> {
        let mut count = 0;
        // SAFETY: the place is written before the call returns.
        match unsafe { (self.api.hipGetDeviceCount)(&mut count) } {
            Status::SUCCESS => Ok(u32::try_from(count).unwrap_or(0)),
            Status::NO_DEVICE | Status::INVALID_DEVICE => Ok(0),
            status => Err(DeviceError::NoHip(format!(
                "counting the GPUs failed: {}; check that the driver (amdgpu) is loaded",
                self.describe(status)
            ))),
        }
    }

    fn no_device(&self) -> DeviceError {
        DeviceError::NoAmdGpu
    }

    fn facts(&self, gpu: Gpu) -> Result<(String, GpuInfo), DeviceError> {
        facts::facts(self, gpu)
    }

    /// The code object of an architecture runs there and nowhere else.
    fn fit(&self, architecture: &str, requires: &[String]) -> Option<Fit> {
        (requires == [architecture]).then_some(Fit::EXACT)
    }

    fn mismatch(&self, found: String, device: String, architecture: String) -> DeviceError {
        DeviceError::WrongChip { found, device, architecture }
    }

    fn describe(&self, status: Status) -> String {
        // SAFETY: both take any number and give a constant text that ends in zero, or null.
        unsafe {
            let name = (self.api.hipGetErrorName)(status);
            driver::describe(status, name, (self.api.hipGetErrorString)(status))
        }
    }

    fn is_fault(&self, status: Status) -> bool {
        [
            Status::ECC,
            Status::ILLEGAL_ADDRESS,
            Status::LAUNCH_TIME_OUT,
            Status::CONTEXT_IS_DESTROYED,
            Status::ASSERT,
            Status::LAUNCH_FAILURE,
        ]
        .contains(&status)
    }

    fn bind(&self, index: u32) -> Status {
        // SAFETY: takes a number, which is checked by HIP.
        unsafe { (self.api.hipSetDevice)(index as c_int) }
    }

    fn memory(&self) -> Result<(usize, usize), Status> {
        let (mut free, mut total) = (0, 0);
        // SAFETY: both places are written before the call returns.
        unsafe { (self.api.hipMemGetInfo)(&mut free, &mut total) }.give((free, total))
    }

    unsafe fn release(&self, resource: Resource) -> Status {
        let api = &self.api;
        // SAFETY: the caller's promise.
        unsafe {
            match resource {
                Resource::Stream(stream) => (api.hipStreamDestroy)(stream),
                Resource::Event(event) => (api.hipEventDestroy)(event),
                Resource::Module(module) => (api.hipModuleUnload)(module),
                Resource::GraphExec(graph) => match api.hipGraphExecDestroy {
                    Some(destroy) => destroy(graph),
                    None => Status::SUCCESS,
                },
                Resource::Device(address) => (api.hipFree)(address.0),
                Resource::Host(address) => (api.hipHostFree)(address.0),
            }
        }
    }

    fn last_error(&self) -> Status {
        // SAFETY: no arguments.
        unsafe { (self.api.hipGetLastError)() }
    }

    fn load(&self, _gpu: Gpu, code: &[u8], plan: &Plan) -> Result<Module, DeviceError> {
        let mut module = Module::empty();
        // SAFETY: the place is written before the call returns; the object is an artifact's code,
        // whose digest has been checked.
        let status = unsafe { (self.api.hipModuleLoadData)(&mut module, code.as_ptr().cast()) };
        status.give(module).map_err(|status| DeviceError::Code {
            target: plan.target.clone(),
            problem: self.describe(status),
        })
    }

    /// HIP wants no word of it.
    unsafe fn grant_shared(&self, _: Function, _: u32) -> Status {
        Status::SUCCESS
    }

    unsafe fn launch(
        &self,
        function: Function,
        grid: u32,
        block: Block,
        args: &[u64],
        // Code objects never overlap, and workgroups that wait for each other fit by the plan.
        _: Order,
        stream: Stream,
    ) -> Status {
        let Block { work_items: items, shared } = block;
        let mut bytes = size_of_val(args);
        let mut extra = driver::packed(args, &mut bytes, value::PARAM_END);
        let (launch, none) = (self.api.hipModuleLaunchKernel, ptr::null_mut());
        // SAFETY: the caller's promise; `extra` names a buffer and its size as HIP wants it.
        unsafe {
            launch(function, grid, 1, 1, items, 1, 1, shared, stream, none, extra.as_mut_ptr())
        }
    }

    fn has_graphs(&self) -> bool {
        let api = &self.api;
        api.hipStreamBeginCapture.is_some()
            && api.hipStreamEndCapture.is_some()
            && api.hipGraphInstantiate.is_some()
            && api.hipGraphLaunch.is_some()
            && api.hipGraphDestroy.is_some()
            && api.hipGraphExecDestroy.is_some()
    }

    calls! {
        plain {
            clear(to: DeviceAddress, bytes: usize, stream: Stream) =
                hipMemsetAsync(to.0, 0, bytes, stream);
            upload(to: DeviceAddress, from: *const c_void, bytes: usize, stream: Stream) =
                hipMemcpyAsync(to.0, from, bytes, value::HOST_TO_DEVICE, stream);
            download(to: *mut c_void, from: DeviceAddress, bytes: usize, stream: Stream) =
                hipMemcpyAsync(to, from.0, bytes, value::DEVICE_TO_HOST, stream);
            synchronize(stream: Stream) = hipStreamSynchronize(stream);
            query(stream: Stream) = hipStreamQuery(stream);
            record(event: Event, stream: Stream) = hipEventRecord(event, stream);
            wait(event: Event) = hipEventSynchronize(event);
        }
        giving {
            mapped(host: HostAddress) -> DeviceAddress = hipHostGetDevicePointer(host.0, 0);
            milliseconds(start: Event, end: Event) -> f32 = hipEventElapsedTime(start, end);
            function(module: Module, name: &CStr) -> Function =
                hipModuleGetFunction(module, name.as_ptr());
        }
        making {
            create_stream() -> Stream = hipStreamCreateWithFlags(value::STREAM_NON_BLOCKING);
            create_event(timed: bool) -> Event =
                hipEventCreateWithFlags(if timed { 0 } else { value::EVENT_DISABLE_TIMING });
            allocate(bytes: usize) -> DeviceAddress = hipMalloc(bytes);
            allocate_host(bytes: usize, mapped: bool) -> HostAddress =
                hipHostMalloc(bytes, host_flags(mapped));
        }
    }

    unsafe fn begin_capture(&self, stream: Stream) -> Status {
        let Some(begin) = self.api.hipStreamBeginCapture else { return Status::NOT_FOUND };
        // SAFETY: the caller's promise.
        unsafe { begin(stream, value::CAPTURE_THREAD_LOCAL) }
    }

    unsafe fn end_capture(&self, stream: Stream) -> Result<Graph, Status> {
        let mut graph = Graph::empty();
        let end = self.api.hipStreamEndCapture.ok_or(Status::NOT_FOUND)?;
        // SAFETY: the caller's promise; the place is written before the call returns.
        unsafe { end(stream, &mut graph) }.give(graph)
    }

    unsafe fn instantiate(&self, graph: Graph) -> Result<GraphExec, Status> {
        let mut exec = GraphExec::empty();
        let instantiate = self.api.hipGraphInstantiate.ok_or(Status::NOT_FOUND)?;
        // SAFETY: the caller's promise; no node and no log are asked for.
        unsafe { instantiate(&mut exec, graph, ptr::null_mut(), ptr::null_mut(), 0) }.give(exec)
    }

    unsafe fn discard(&self, graph: Graph) -> Status {
        let Some(destroy) = self.api.hipGraphDestroy else { return Status::NOT_FOUND };
        // SAFETY: the caller's promise.
        unsafe { destroy(graph) }
    }

    unsafe fn replay(&self, graph: GraphExec, stream: Stream) -> Status {
        let Some(launch) = self.api.hipGraphLaunch else { return Status::NOT_FOUND };
        // SAFETY: the caller's promise.
        unsafe { launch(graph, stream) }
    }
}

fn host_flags(mapped: bool) -> c_uint {
    if mapped { value::HOST_MAPPED | value::HOST_COHERENT } else { 0 }
}
