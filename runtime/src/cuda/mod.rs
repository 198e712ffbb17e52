//! NVIDIA GPUs through CUDA's driver API, found when a program runs.
//!
//! `api` has the table of functions, `library` finds them. Code is PTX (`ptx`), which the driver
//! compiles when a plan is loaded (`jit`), once (`cache`). What a loaded plan does is in
//! [`crate::gpu`].
#![allow(unsafe_code)]

mod api;
mod cache;
mod jit;
mod library;
mod ptx;

use crate::device::{DeviceError, DeviceInfo, DeviceKind, GpuInfo, NvidiaInfo};
use crate::gpu::device::Gpu;
use crate::gpu::driver::{
    self, Block, DeviceAddress, Driver, Empty, Event, Fit, Function, Graph, GraphExec, HostAddress,
    Module, Order, Resource, Status, Stream, calls,
};
use crate::gpu::{self, GpuDevice};
use api::Api;
use cache::Cache;
use cudarc::driver::sys::{
    CU_MEMHOSTALLOC_DEVICEMAP, CU_MEMHOSTALLOC_PORTABLE, CUcontext, CUdevice_attribute,
    CUevent_flags, CUfunction_attribute, CUlaunchAttribute, CUlaunchAttributeID,
    CUlaunchAttributeValue, CUlaunchConfig, CUresult, CUstream_flags, CUstreamCaptureMode,
};
use ptx::Architecture;
use std::ffi::{CStr, c_int, c_uint, c_void};
use std::ptr;
use std::sync::{Mutex, OnceLock, PoisonError};
use waveloom_plan::Plan;

/// What the driver says of a number that is none.
const INVALID_VALUE: Status = Status(CUresult::CUDA_ERROR_INVALID_VALUE as u32);
/// `CU_LAUNCH_PARAM_END`.
const PARAM_END: usize = 0;

/// The GPU of this number.
pub fn open(index: u32) -> Result<GpuDevice, DeviceError> {
    GpuDevice::open(Cuda::get()?, index)
}

/// What [`crate::devices`] says about NVIDIA GPUs.
pub fn infos() -> Vec<DeviceInfo> {
    gpu::infos(Cuda::get(), "cuda", "NVIDIA")
}

/// NVIDIA's driver.
struct Cuda {
    api: Api,
    /// The release of CUDA that it is for: a thousand times the major number, plus ten times the
    /// minor one.
    version: u32,
    /// By device: its primary context, once it was asked for. It stays until the process ends.
    contexts: Vec<Mutex<Option<Context>>>,
}

#[derive(Clone, Copy)]
struct Context(CUcontext);

// SAFETY: the driver accepts a context from any thread.
unsafe impl Send for Context {}

impl Cuda {
    /// That of this process: looked for once.
    fn get() -> Result<&'static dyn Driver, DeviceError> {
        static CUDA: OnceLock<Result<Cuda, String>> = OnceLock::new();
        match CUDA.get_or_init(Cuda::start) {
            Ok(cuda) => Ok(cuda),
            Err(problem) => Err(DeviceError::NoCuda(problem.clone())),
        }
    }

    fn start() -> Result<Cuda, String> {
        let mut cuda = Cuda { api: library::load()?, version: 0, contexts: vec![] };
        let (mut version, mut count) = (0, 0);
        // SAFETY: no flags; the places are written before each call returns.
        let started = unsafe {
            let started = (cuda.api.cuInit)(0);
            let _ = (cuda.api.cuDriverGetVersion)(&mut version);
            match started {
                Status::SUCCESS => (cuda.api.cuDeviceGetCount)(&mut count),
                failed => failed,
            }
        };
        cuda.version = u32::try_from(version).unwrap_or(0);
        match started {
            Status::SUCCESS | Status::NO_DEVICE => {}
            failed => return Err(cuda.no_start(failed)),
        }
        cuda.contexts = (0..count).map(|_| Mutex::new(None)).collect();
        Ok(cuda)
    }

    /// Why the driver does not start, and what to do.
    fn no_start(&self, status: Status) -> String {
        let advice = if is(status, CUresult::CUDA_ERROR_STUB_LIBRARY) {
            "the library is the CUDA toolkit's, for linking only: take its `stubs` out of \
             LD_LIBRARY_PATH, and install NVIDIA's driver"
        } else if is(status, CUresult::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH) {
            "the library and the kernel's module are of different versions: restart the machine \
             after an update of the driver"
        } else {
            "check that `nvidia-smi` works"
        };
        format!("the driver does not start: {}; {advice}", self.describe(status))
    }

    /// The release of CUDA that the driver is for.
    fn release(&self) -> String {
        format!("{}.{}", self.version / 1000, self.version % 1000 / 10)
    }

    fn attribute(&self, gpu: Gpu, attribute: CUdevice_attribute) -> Result<u32, DeviceError> {
        let (mut device, mut value) = (0, 0);
        // SAFETY: the places are written before each call returns.
        let status = unsafe {
            match (self.api.cuDeviceGet)(&mut device, gpu.index as c_int) {
                Status::SUCCESS => (self.api.cuDeviceGetAttribute)(&mut value, attribute, device),
                failed => failed,
            }
        };
        gpu.check("asking what the device is", status)?;
        Ok(u32::try_from(value).unwrap_or(0))
    }

    /// Major and minor number of a device's compute capability.
    fn capability(&self, gpu: Gpu) -> Result<(u32, u32), DeviceError> {
        let major = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR;
        let minor = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR;
        Ok((self.attribute(gpu, major)?, self.attribute(gpu, minor)?))
    }

    fn name(&self, gpu: Gpu) -> Result<String, DeviceError> {
        let (mut device, mut name) = (0, [0u8; 256]);
        // SAFETY: the place is written before the call returns; there is as much room as the call
        // is told.
        let status = unsafe {
            match (self.api.cuDeviceGet)(&mut device, gpu.index as c_int) {
                Status::SUCCESS => (self.api.cuDeviceGetName)(
                    name.as_mut_ptr().cast(),
                    name.len() as c_int,
                    device,
                ),
                failed => failed,
            }
        };
        gpu.check("asking for the device's name", status)?;
        Ok(driver::device_name(&name, "NVIDIA GPU"))
    }

    fn module(&self, cubin: &[u8]) -> Result<Module, Status> {
        let mut module = Module::empty();
        let (place, image) = ((&raw mut module).cast(), cubin.as_ptr().cast());
        // SAFETY: the place is written before the call returns; the code is what this driver made.
        unsafe { (self.api.cuModuleLoadData)(place, image) }.give(module)
    }

    /// What it means that the driver does not compile a plan's code.
    fn not_compiled(&self, gpu: Gpu, code: &[u8], plan: &Plan, why: jit::Failure) -> DeviceError {
        let target = plan.target.clone();
        if is(why.status, CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION) {
            let needed = ptx::version(code).unwrap_or_else(|| "of an unknown version".into());
            let release = ptx::first_cuda(&needed);
            return DeviceError::OldDriver {
                device: gpu.kind(),
                target,
                needed,
                release: release.unwrap_or_else(|| "a later release".into()),
                found: self.release(),
            };
        }
        if self.is_fault(why.status) {
            return gpu.error("compiling the kernels", why.status);
        }
        let advice = if is(why.status, CUresult::CUDA_ERROR_JIT_COMPILER_NOT_FOUND) {
            "; the driver's compiler is the library libnvidia-ptxjitcompiler.so.1: install all of \
             the driver"
        } else if is(why.status, CUresult::CUDA_ERROR_JIT_COMPILATION_DISABLED) {
            "; it is switched off: unset CUDA_DISABLE_PTX_JIT"
        } else {
            ""
        };
        let said = if why.log.is_empty() { String::new() } else { format!(": {}", why.log) };
        let problem = format!("{}{said}{advice}", self.describe(why.status));
        DeviceError::Code { target, problem }
    }
}

fn is(status: Status, result: CUresult) -> bool {
    status.0 == result as u32
}

impl Driver for Cuda {
    fn kind(&self, index: u32) -> DeviceKind {
        DeviceKind::Cuda(index)
    }

    fn count(&self) -> Result<u32, DeviceError> {
        Ok(u32::try_from(self.contexts.len()).unwrap_or(u32::MAX))
    }

    fn no_device(&self) -> DeviceError {
        DeviceError::NoNvidiaGpu
    }

    fn facts(&self, gpu: Gpu) -> Result<(String, GpuInfo), DeviceError> {
        let (free_bytes, memory_bytes) = gpu.memory()?;
        let (major, minor) = self.capability(gpu)?;
        let multiprocessors = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
        let info = GpuInfo {
            architecture: format!("sm_{major}{minor}"),
            compute_units: self.attribute(gpu, multiprocessors)?,
            memory_bytes,
            free_bytes,
            nvidia: Some(NvidiaInfo {
                compute_capability: format!("{major}.{minor}"),
                driver_cuda: self.release(),
            }),
        };
        Ok((self.name(gpu)?, info))
    }

    fn fit(&self, architecture: &str, requires: &[String]) -> Option<Fit> {
        let [code] = requires else { return None };
        Architecture::parse(architecture)?.fit(Architecture::parse(code)?)
    }

    fn mismatch(&self, found: String, device: String, architecture: String) -> DeviceError {
        DeviceError::WrongCapability { found, device, architecture }
    }

    fn describe(&self, status: Status) -> String {
        let (mut name, mut text) = (ptr::null(), ptr::null());
        // SAFETY: both take any number, and give a constant text that ends in zero, or null.
        unsafe {
            let _ = self.api.cuGetErrorName.map(|call| call(status, &mut name));
            let _ = self.api.cuGetErrorString.map(|call| call(status, &mut text));
            driver::describe(status, name, text)
        }
    }

    /// The errors after which, by CUDA's manual, the process has to be started again.
    fn is_fault(&self, status: Status) -> bool {
        const CONTAINED: Status = Status(226);
        const TENSOR_MEMORY_LEAK: Status = Status(721);
        const EXTERNAL_DEVICE: Status = Status(911);
        let listed = [
            Status::ECC,
            Status(CUresult::CUDA_ERROR_NVLINK_UNCORRECTABLE as u32),
            CONTAINED,
            Status::ILLEGAL_ADDRESS,
            Status::LAUNCH_TIME_OUT,
            Status::CONTEXT_IS_DESTROYED,
            Status::ASSERT,
            Status(CUresult::CUDA_ERROR_HARDWARE_STACK_ERROR as u32),
            Status(CUresult::CUDA_ERROR_ILLEGAL_INSTRUCTION as u32),
            Status(CUresult::CUDA_ERROR_MISALIGNED_ADDRESS as u32),
            Status(CUresult::CUDA_ERROR_INVALID_ADDRESS_SPACE as u32),
            Status(CUresult::CUDA_ERROR_INVALID_PC as u32),
            Status::LAUNCH_FAILURE,
            TENSOR_MEMORY_LEAK,
            EXTERNAL_DEVICE,
        ];
        listed.contains(&status)
    }

    fn bind(&self, index: u32) -> Status {
        let Some(slot) = self.contexts.get(index as usize) else { return Status::INVALID_DEVICE };
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut device, mut context) = (0, ptr::null_mut());
        // SAFETY: numbers, which the driver checks; the places are written before each call
        // returns; a primary context stays until it is released, which nobody does.
        unsafe {
            if slot.is_none() {
                let found = (self.api.cuDeviceGet)(&mut device, index as c_int);
                let retained = found.give(()).and_then(|()| {
                    (self.api.cuDevicePrimaryCtxRetain)(&mut context, device).give(())
                });
                match retained {
                    Ok(()) => *slot = Some(Context(context)),
                    Err(status) => return status,
                }
            }
            slot.map_or(Status::INVALID_DEVICE, |Context(context)| {
                (self.api.cuCtxSetCurrent)(context)
            })
        }
    }

    fn memory(&self) -> Result<(usize, usize), Status> {
        let (mut free, mut total) = (0, 0);
        // SAFETY: both places are written before the call returns.
        unsafe { (self.api.cuMemGetInfo_v2)(&mut free, &mut total) }.give((free, total))
    }

    unsafe fn release(&self, resource: Resource) -> Status {
        let api = &self.api;
        // SAFETY: the caller's promise.
        unsafe {
            match resource {
                Resource::Stream(stream) => (api.cuStreamDestroy_v2)(stream.0.cast()),
                Resource::Event(event) => (api.cuEventDestroy_v2)(event.0.cast()),
                Resource::Module(module) => (api.cuModuleUnload)(module.0.cast()),
                Resource::GraphExec(graph) => (api.cuGraphExecDestroy)(graph.0.cast()),
                Resource::Device(address) => (api.cuMemFree_v2)(number(address)),
                Resource::Host(address) => (api.cuMemFreeHost)(address.0),
            }
        }
    }

    fn load(&self, gpu: Gpu, code: &[u8], plan: &Plan) -> Result<Module, DeviceError> {
        let (major, minor) = self.capability(gpu)?;
        let device = format!("sm_{major}{minor}");
        let named = plan.requires.first().and_then(|name| Architecture::parse(name));
        let Some(architecture) = named else {
            let problem = "its plan names no version of compute capability".into();
            return Err(DeviceError::Code { target: plan.target.clone(), problem });
        };
        let cache = Cache::of_user();
        let kept = cache.read(code, self.version, &device);
        if let Some(module) = kept.and_then(|cubin| self.module(&cubin).ok()) {
            return Ok(module);
        }
        let cubin = jit::compile(&self.api, code, architecture)
            .map_err(|why| self.not_compiled(gpu, code, plan, why))?;
        let module = self.module(&cubin).map_err(|status| {
            self.not_compiled(gpu, code, plan, jit::Failure { status, log: String::new() })
        })?;
        cache.write(code, self.version, &device, &cubin);
        Ok(module)
    }

    unsafe fn resident(
        &self,
        gpu: Gpu,
        function: Function,
        block: u32,
    ) -> Option<Result<u32, DeviceError>> {
        let cooperative = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH;
        match self.attribute(gpu, cooperative) {
            Ok(0) => return Some(Ok(0)),
            Ok(_) => {}
            Err(error) => return Some(Err(error)),
        }
        let (mut blocks, block) = (0, block as c_int);
        let ask = self.api.cuOccupancyMaxActiveBlocksPerMultiprocessor;
        // SAFETY: the caller's promise; the place is written before the call returns.
        let status = unsafe { ask(&mut blocks, function.0.cast(), block, 0) };
        let checked = gpu.check("asking how many workgroups fit", status);
        Some(checked.map(|()| u32::try_from(blocks).unwrap_or(0)))
    }

    unsafe fn grant_shared(&self, function: Function, bytes: u32) -> Status {
        let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        let Ok(bytes) = c_int::try_from(bytes) else { return INVALID_VALUE };
        // SAFETY: a number, which the driver checks; the caller's promise.
        unsafe { (self.api.cuFuncSetAttribute)(function.0.cast(), attribute, bytes) }
    }

    unsafe fn launch(
        &self,
        function: Function,
        grid: u32,
        block: Block,
        args: &[u64],
        order: Order,
        stream: Stream,
    ) -> Status {
        let Block { work_items: items, shared } = block;
        let mut bytes = size_of_val(args);
        let mut extra = driver::packed(args, &mut bytes, PARAM_END);
        let (function, none) = (function.0.cast(), ptr::null_mut());
        let (stream, extra) = (stream.0.cast(), extra.as_mut_ptr());
        match (order, self.api.cuLaunchKernelEx) {
            (Order::Together, _) => {
                let address = |arg: &u64| (&raw const *arg).cast_mut().cast();
                let mut params: Vec<*mut c_void> = args.iter().map(address).collect();
                let (launch, params) = (self.api.cuLaunchCooperativeKernel, params.as_mut_ptr());
                // SAFETY: the caller's promise; `params` has the address of each argument.
                unsafe { launch(function, grid, 1, 1, items, 1, 1, shared, stream, params) }
            }
            (Order::Overlapping, Some(launch)) => {
                let mut overlapping = overlapping();
                let config = CUlaunchConfig {
                    gridDimX: grid,
                    gridDimY: 1,
                    gridDimZ: 1,
                    blockDimX: items,
                    blockDimY: 1,
                    blockDimZ: 1,
                    sharedMemBytes: shared,
                    hStream: stream,
                    attrs: &mut overlapping,
                    numAttrs: 1,
                };
                // SAFETY: the caller's promise; `extra` names a buffer and its size as CUDA wants
                // it, and the configuration's one attribute is there.
                unsafe { launch(&config, function, none, extra) }
            }
            // An older driver has no such launches, and nothing is lost but time.
            (Order::After | Order::Overlapping, _) => {
                let launch = self.api.cuLaunchKernel;
                // SAFETY: as above.
                unsafe { launch(function, grid, 1, 1, items, 1, 1, shared, stream, none, extra) }
            }
        }
    }

    fn has_graphs(&self) -> bool {
        true
    }

    unsafe fn end_capture(&self, stream: Stream) -> Result<Graph, Status> {
        let mut graph = Graph::empty();
        let place = (&raw mut graph).cast();
        // SAFETY: the caller's promise; the place is written before the call returns.
        unsafe { (self.api.cuStreamEndCapture)(stream.0.cast(), place) }.give(graph)
    }

    calls! {
        plain {
            clear(to: DeviceAddress, bytes: usize, stream: Stream) =
                cuMemsetD8Async(number(to), 0, bytes, stream.0.cast());
            upload(to: DeviceAddress, from: *const c_void, bytes: usize, stream: Stream) =
                cuMemcpyHtoDAsync_v2(number(to), from, bytes, stream.0.cast());
            download(to: *mut c_void, from: DeviceAddress, bytes: usize, stream: Stream) =
                cuMemcpyDtoHAsync_v2(to, number(from), bytes, stream.0.cast());
            synchronize(stream: Stream) = cuStreamSynchronize(stream.0.cast());
            query(stream: Stream) = cuStreamQuery(stream.0.cast());
            record(event: Event, stream: Stream) =
                cuEventRecord(event.0.cast(), stream.0.cast());
            wait(event: Event) = cuEventSynchronize(event.0.cast());
            begin_capture(stream: Stream) =
                cuStreamBeginCapture_v2(stream.0.cast(), CAPTURE);
            discard(graph: Graph) = cuGraphDestroy(graph.0.cast());
            replay(graph: GraphExec, stream: Stream) =
                cuGraphLaunch(graph.0.cast(), stream.0.cast());
        }
        giving {
            mapped(host: HostAddress) -> DeviceAddress =
                cuMemHostGetDevicePointer_v2(host.0, 0);
            milliseconds(start: Event, end: Event) -> f32 =
                cuEventElapsedTime(start.0.cast(), end.0.cast());
            function(module: Module, name: &CStr) -> Function =
                cuModuleGetFunction(module.0.cast(), name.as_ptr());
            instantiate(graph: Graph) -> GraphExec =
                cuGraphInstantiateWithFlags(graph.0.cast(), 0);
        }
        making {
            create_stream() -> Stream =
                cuStreamCreate(CUstream_flags::CU_STREAM_NON_BLOCKING as c_uint);
            create_event(timed: bool) -> Event = cuEventCreate(event_flags(timed));
            allocate(bytes: usize) -> DeviceAddress = cuMemAlloc_v2(bytes);
            allocate_host(bytes: usize, mapped: bool) -> HostAddress =
                cuMemHostAlloc(bytes, host_flags(mapped));
        }
    }
}

/// Lets a launch begin before the one ahead of it in its stream has ended; captured, it makes such an
/// edge of the graph.
fn overlapping() -> CUlaunchAttribute {
    // SAFETY: zeros are a value of each member of the union, of which they are the padding, too.
    let mut value: CUlaunchAttributeValue = unsafe { std::mem::zeroed() };
    value.programmaticStreamSerializationAllowed = 1;
    let id = CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
    CUlaunchAttribute { id, pad: [0; 4], value }
}

/// Other threads may do what they like while one captures.
const CAPTURE: CUstreamCaptureMode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;

fn event_flags(timed: bool) -> c_uint {
    let untimed = CUevent_flags::CU_EVENT_DISABLE_TIMING;
    if timed { 0 } else { untimed as c_uint }
}

/// Flags of pinned memory, which all devices may use.
fn host_flags(mapped: bool) -> c_uint {
    CU_MEMHOSTALLOC_PORTABLE | if mapped { CU_MEMHOSTALLOC_DEVICEMAP } else { 0 }
}

/// An address as CUDA passes it.
fn number(address: DeviceAddress) -> u64 {
    address.0.expose_provenance() as u64
}
