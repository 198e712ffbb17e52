//! Launches: how the program describes a grid and its arguments, and what of it is wrong.

use std::cell::RefCell;
use std::sync::Arc;

use crate::backend::{Kernel, Launch};
use crate::device::MAX_GRID_YZ;
use crate::error::{HipError, Result, note};
use crate::event;
use crate::ffi::{List, Place, api, gather, given};
use crate::graph::{KernelNode, NodeWork};
use crate::module::Function;
use crate::register;
use crate::runtime::{Device, Runtime, runtime};
use crate::stream::{self, Stream};
use crate::types::{Address, Dim3, Handle, LaunchParams, extra};
use crate::work::KernelCall;

/// Work-items of a workgroup on every GPU.
const MAX_WORKGROUP: u32 = 1024;
/// Entries of `extra`, marks and values, after which its end must have come.
const MAX_EXTRA: usize = 16;
/// Bytes of arguments that make sense.
const MAX_KERNARG: u64 = 1 << 20;

/// A grid as the program describes it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Grid {
    /// Workgroups.
    pub grid: [u32; 3],
    /// Work-items of a workgroup.
    pub block: [u32; 3],
    /// Bytes of dynamic LDS.
    pub shared: usize,
    /// All workgroups are there at once.
    pub cooperative: bool,
    /// Work-items of the whole grid, instead of workgroups.
    pub global: Option<[u32; 3]>,
}

impl Grid {
    fn new(grid: Dim3, block: Dim3, shared: usize) -> Grid {
        Grid { grid: grid.array(), block: block.array(), shared, ..Grid::default() }
    }

    /// A grid given in work-items; a workgroup is not larger than it.
    fn of_work_items(global: [u32; 3], block: [u32; 3], shared: usize) -> Grid {
        let block: [u32; 3] = std::array::from_fn(|axis| block[axis].min(global[axis].max(1)));
        let grid = std::array::from_fn(|axis| global[axis].div_ceil(block[axis].max(1)));
        let whole = (0..3).all(|axis| global[axis].is_multiple_of(block[axis].max(1)));
        let global = if whole { None } else { Some(global) };
        Grid { grid, block, shared, cooperative: false, global }
    }

    fn check(&self, runtime: &Runtime, kernel: &Kernel) -> Result<Launch> {
        let [x, y, z] = self.grid;
        if x == 0 || y == 0 || z == 0 {
            return Err(HipError::INVALID_VALUE);
        }
        if self.block.contains(&0) {
            return Err(HipError::INVALID_CONFIGURATION);
        }
        if x > i32::MAX as u32 || y > MAX_GRID_YZ || z > MAX_GRID_YZ {
            return Err(HipError::INVALID_VALUE);
        }
        let items = |axis: usize| u64::from(self.grid[axis]) * u64::from(self.block[axis]);
        if self.global.is_none() && (0..3).any(|axis| items(axis) > u64::from(u32::MAX)) {
            return Err(HipError::INVALID_CONFIGURATION);
        }
        let size = self.block.iter().try_fold(1u32, |size, axis| size.checked_mul(*axis));
        let size = size.filter(|size| *size <= MAX_WORKGROUP).ok_or(HipError::INVALID_VALUE)?;
        if size > kernel.max_workgroup_size {
            note(&format!(
                "{}: {size} work-items in a workgroup, but it was compiled for at most {}",
                kernel.name, kernel.max_workgroup_size
            ));
            return Err(HipError::LAUNCH_FAILURE);
        }
        let limit = runtime.chip.lds_bytes() as usize;
        if self.shared > limit {
            return Err(HipError::INVALID_VALUE);
        }
        if self.shared + kernel.lds_bytes as usize > limit {
            let (name, fixed) = (&kernel.name, kernel.lds_bytes);
            note(&format!("{name}: {fixed} + {} bytes of LDS, there are {limit}", self.shared));
            return Err(HipError::LAUNCH_OUT_OF_RESOURCES);
        }
        let launch = Launch {
            grid: self.grid,
            block: self.block,
            dynamic_lds: self.shared as u32,
            global: self.global,
            cooperative: self.cooperative,
        };
        if self.cooperative {
            check_cooperative(runtime, kernel, &launch, size)?;
        }
        Ok(launch)
    }
}

/// All workgroups of a cooperative grid must fit on the device at once.
fn check_cooperative(
    runtime: &Runtime,
    kernel: &Kernel,
    launch: &Launch,
    block_size: u32,
) -> Result {
    let each = crate::backend::occupancy(kernel, block_size, launch.dynamic_lds);
    let units = crate::board::multiprocessors(runtime.chip);
    if launch.workgroups() > u64::from(each) * u64::from(units) {
        return Err(HipError::COOPERATIVE_LAUNCH_TOO_LARGE);
    }
    Ok(())
}

/// Arguments as the program describes them; one of the two is null.
#[derive(Debug, Clone, Copy, Default)]
pub struct Arguments {
    /// Addresses of the arguments, one after the other.
    pub params: Address,
    /// Marks and values: address and size of a buffer that is laid out like the kernel's.
    pub extra: Address,
}

impl Arguments {
    /// Arguments at a list of addresses.
    fn list(params: Address) -> Arguments {
        Arguments { params, extra: 0 }
    }

    /// The explicit arguments at their offsets.
    fn pack(&self, kernel: &Kernel) -> Result<Vec<u8>> {
        if self.params != 0 && self.extra != 0 {
            return Err(HipError::INVALID_VALUE);
        }
        let explicit = || kernel.arguments.iter().filter(|argument| !argument.is_hidden());
        let end = explicit().map(|a| u64::from(a.offset) + u64::from(a.size)).max().unwrap_or(0);
        let sum: u64 = explicit().map(|argument| u64::from(argument.size)).sum();
        if end > MAX_KERNARG || sum > MAX_KERNARG || end > u64::from(kernel.kernarg_size) {
            let (name, room) = (&kernel.name, kernel.kernarg_size);
            note(&format!(
                "{name}: its metadata has {sum} bytes of arguments up to {end} in {room}"
            ));
            return Err(HipError::INVALID_IMAGE);
        }
        let mut bytes = vec![0; end as usize];
        if end == 0 {
            return Ok(bytes);
        }
        match (self.params, self.extra) {
            (0, 0) => return Err(HipError::INVALID_VALUE),
            (params, 0) => pack_params(kernel, params, &mut bytes)?,
            (_, extra) => pack_extra(kernel, extra, &mut bytes)?,
        }
        Ok(bytes)
    }
}

fn pack_params(kernel: &Kernel, params: Address, bytes: &mut [u8]) -> Result {
    let explicit: Vec<_> = kernel.arguments.iter().filter(|a| !a.is_hidden()).collect();
    let word = size_of::<Address>();
    let list = gather(&[(params, explicit.len() * word)])?;
    let pointers = list.chunks_exact(word).map(|bytes| {
        let mut pointer = [0; size_of::<Address>()];
        pointer.copy_from_slice(bytes);
        Address::from_ne_bytes(pointer)
    });
    let sizes = explicit.iter().map(|argument| argument.size as usize);
    let values = gather(&pointers.zip(sizes).collect::<Vec<_>>()).inspect_err(|_| {
        let count = explicit.len();
        note(&format!("{}: one of its {count} arguments is not at its address", kernel.name));
    })?;
    let mut rest = values.as_slice();
    for argument in explicit {
        let (value, behind) = rest.split_at(argument.size as usize);
        let at = argument.offset as usize;
        bytes[at..at + value.len()].copy_from_slice(value);
        rest = behind;
    }
    Ok(())
}

fn pack_extra(kernel: &Kernel, list: Address, bytes: &mut [u8]) -> Result {
    let list = List::<Address>::at(list);
    let (mut buffer, mut size) = (None, None);
    for at in (0..MAX_EXTRA).step_by(2) {
        match list.get(at)? {
            extra::END => break,
            extra::BUFFER_POINTER => buffer = Some(list.get(at + 1)?),
            extra::BUFFER_SIZE => size = Some(List::<usize>::at(list.get(at + 1)?).get(0)?),
            _ => return Err(HipError::INVALID_VALUE),
        }
    }
    let (buffer, size) = given(buffer.zip(size))?;
    if size < bytes.len() {
        let (name, wanted) = (&kernel.name, bytes.len());
        note(&format!("{name}: {size} bytes of arguments were given, it takes {wanted}"));
        return Err(HipError::INVALID_VALUE);
    }
    bytes.copy_from_slice(&gather(&[(buffer, bytes.len())])?);
    Ok(())
}

/// Checks a launch and takes its arguments along.
pub fn call(
    runtime: &Runtime,
    device: &Device,
    function: Arc<Function>,
    grid: &Grid,
    arguments: Arguments,
) -> Result<KernelCall> {
    if function.device != device.ordinal {
        return Err(HipError::INVALID_DEVICE);
    }
    let launch = grid.check(runtime, &function.kernel)?;
    let kernarg = arguments.pack(&function.kernel)?.into();
    Ok(KernelCall { function, launch, kernarg })
}

/// The kernel of a function of the host that a compiler registered, or of a handle.
pub fn function_of(runtime: &Runtime, func: Address, device: usize) -> Result<Arc<Function>> {
    if func == 0 {
        return Err(HipError::INVALID_DEVICE_FUNCTION);
    }
    match register::function(runtime, func, device)? {
        Some(function) => Ok(function),
        None => runtime.functions.get(func).ok_or(HipError::INVALID_DEVICE_FUNCTION),
    }
}

/// Puts a launch into a stream.
fn launch(
    runtime: &Runtime,
    stream: &Arc<Stream>,
    (function, func): (Arc<Function>, Address),
    grid: &Grid,
    arguments: Arguments,
) -> Result {
    let device = &runtime.devices[stream.device];
    let call = call(runtime, device, function, grid, arguments)?;
    stream::put(runtime, stream, NodeWork::Kernel(KernelNode::new(call, func))).map(|_| ())
}

/// Launches a kernel of a module.
fn launch_handle(func: Handle, grid: &Grid, stream: Handle, arguments: Arguments) -> Result {
    let runtime = runtime()?;
    let function = runtime.functions.get(func).ok_or(HipError::INVALID_HANDLE)?;
    let stream = stream::find(runtime, stream)?;
    launch(runtime, &stream, (function, func), grid, arguments)
}

/// Launches the kernel of a function of the host.
fn launch_host(func: Address, grid: &Grid, stream: Handle, arguments: Arguments) -> Result {
    let runtime = runtime()?;
    let stream = stream::find(runtime, stream)?;
    let function = function_of(runtime, func, stream.device)?;
    launch(runtime, &stream, (function, func), grid, arguments)
}

/// Launches between two events, each of which may be none.
fn between_events(
    stream: Handle,
    (start, stop): (Handle, Handle),
    launch: impl FnOnce() -> Result,
) -> Result {
    let runtime = runtime()?;
    let found = stream::find(runtime, stream)?;
    let start = event::find_optional(runtime, start)?;
    let stop = event::find_optional(runtime, stop)?;
    if let Some(start) = start {
        event::record(runtime, &start, &found)?;
    }
    launch()?;
    match stop {
        Some(stop) => event::record(runtime, &stop, &found),
        None => Ok(()),
    }
}

/// A launch that is described piece by piece.
#[derive(Clone)]
struct Configuration {
    grid: Dim3,
    block: Dim3,
    shared: usize,
    stream: Handle,
    /// Arguments of `hipSetupArgument`.
    arguments: Vec<u8>,
}

thread_local! {
    /// Launches whose description has begun, the last one last.
    static CONFIGURATIONS: RefCell<Vec<Configuration>> = const { RefCell::new(Vec::new()) };
}

fn push_configuration(grid: Dim3, block: Dim3, shared: usize, stream: Handle) -> Result {
    let configuration = Configuration { grid, block, shared, stream, arguments: Vec::new() };
    CONFIGURATIONS.with_borrow_mut(|all| all.push(configuration));
    Ok(())
}

fn pop_configuration() -> Result<Configuration> {
    CONFIGURATIONS.with_borrow_mut(Vec::pop).ok_or(HipError::MISSING_CONFIGURATION)
}

api! {
    /// Launches a kernel of a module.
    fn hipModuleLaunchKernel(
        func: Handle,
        grid_x: u32,
        grid_y: u32,
        grid_z: u32,
        block_x: u32,
        block_y: u32,
        block_z: u32,
        shared: u32,
        stream: Handle,
        params: Address,
        extra: Address,
    ) {
        let grid = Grid {
            grid: [grid_x, grid_y, grid_z],
            block: [block_x, block_y, block_z],
            shared: shared as usize,
            ..Grid::default()
        };
        launch_handle(func, &grid, stream, Arguments { params, extra })
    }

    /// Launches a kernel of a module whose workgroups are all there at once.
    fn hipModuleLaunchCooperativeKernel(
        func: Handle,
        grid_x: u32,
        grid_y: u32,
        grid_z: u32,
        block_x: u32,
        block_y: u32,
        block_z: u32,
        shared: u32,
        stream: Handle,
        params: Address,
    ) {
        let grid = Grid {
            grid: [grid_x, grid_y, grid_z],
            block: [block_x, block_y, block_z],
            shared: shared as usize,
            cooperative: true,
            global: None,
        };
        launch_handle(func, &grid, stream, Arguments { params, extra: 0 })
    }

    /// Launches a kernel of a module on a grid that is given in work-items.
    fn hipExtModuleLaunchKernel(
        func: Handle,
        global_x: u32,
        global_y: u32,
        global_z: u32,
        block_x: u32,
        block_y: u32,
        block_z: u32,
        shared: usize,
        stream: Handle,
        params: Address,
        extra: Address,
        start: Handle,
        stop: Handle,
        _flags: u32,
    ) {
        let global = [global_x, global_y, global_z];
        let grid = Grid::of_work_items(global, [block_x, block_y, block_z], shared);
        between_events(stream, (start, stop), || {
            launch_handle(func, &grid, stream, Arguments { params, extra })
        })
    }

    /// The same without flags.
    fn hipHccModuleLaunchKernel(
        func: Handle,
        global_x: u32,
        global_y: u32,
        global_z: u32,
        block_x: u32,
        block_y: u32,
        block_z: u32,
        shared: usize,
        stream: Handle,
        params: Address,
        extra: Address,
        start: Handle,
        stop: Handle,
    ) {
        let global = [global_x, global_y, global_z];
        let grid = Grid::of_work_items(global, [block_x, block_y, block_z], shared);
        between_events(stream, (start, stop), || {
            launch_handle(func, &grid, stream, Arguments { params, extra })
        })
    }

    /// Launches the kernel of a function of the host.
    fn hipLaunchKernel(
        func: Address,
        grid: Dim3,
        block: Dim3,
        params: Address,
        shared: usize,
        stream: Handle,
    ) {
        launch_host(func, &Grid::new(grid, block, shared), stream, Arguments::list(params))
    }

    /// The same; null is the thread's own stream.
    fn hipLaunchKernel_spt(
        func: Address,
        grid: Dim3,
        block: Dim3,
        params: Address,
        shared: usize,
        stream: Handle,
    ) {
        let stream = stream::per_thread(stream);
        launch_host(func, &Grid::new(grid, block, shared), stream, Arguments::list(params))
    }

    /// Launches a kernel whose workgroups are all there at once.
    fn hipLaunchCooperativeKernel(
        func: Address,
        grid: Dim3,
        block: Dim3,
        params: Address,
        shared: u32,
        stream: Handle,
    ) {
        let grid = Grid { cooperative: true, ..Grid::new(grid, block, shared as usize) };
        launch_host(func, &grid, stream, Arguments::list(params))
    }

    /// The same; null is the thread's own stream.
    fn hipLaunchCooperativeKernel_spt(
        func: Address,
        grid: Dim3,
        block: Dim3,
        params: Address,
        shared: u32,
        stream: Handle,
    ) {
        let grid = Grid { cooperative: true, ..Grid::new(grid, block, shared as usize) };
        launch_host(func, &grid, stream::per_thread(stream), Arguments::list(params))
    }

    /// Launches a kernel between two events.
    fn hipExtLaunchKernel(
        func: Address,
        grid: Dim3,
        block: Dim3,
        params: Address,
        shared: usize,
        stream: Handle,
        start: Handle,
        stop: Handle,
        _flags: i32,
    ) {
        between_events(stream, (start, stop), || {
            launch_host(func, &Grid::new(grid, block, shared), stream, Arguments::list(params))
        })
    }

    /// Launches kernels on several devices, each of them on its own.
    fn hipExtLaunchMultiKernelMultiDevice(
        launches: List<LaunchParams>,
        count: i32,
        _flags: u32,
    ) {
        let count = usize::try_from(count).map_err(|_| HipError::INVALID_VALUE)?;
        for one in launches.read(count)? {
            let grid = Grid::new(one.grid_dim, one.block_dim, one.shared_mem);
            launch_host(one.func, &grid, one.stream, Arguments::list(one.args))?;
        }
        Ok(())
    }

    /// The first half of `kernel<<<...>>>(...)`.
    fn __hipPushCallConfiguration(grid: Dim3, block: Dim3, shared: usize, stream: Handle) {
        push_configuration(grid, block, shared, stream)
    }

    /// The second half, in the function that stands for the kernel.
    fn __hipPopCallConfiguration(
        grid: Option<&mut Dim3>,
        block: Option<&mut Dim3>,
        shared: Option<&mut usize>,
        stream: Option<&mut Handle>,
    ) {
        let configuration = pop_configuration()?;
        grid.put(configuration.grid)?;
        block.put(configuration.block)?;
        shared.put(configuration.shared)?;
        stream.put(configuration.stream)
    }

    /// Begins the description of a launch.
    fn hipConfigureCall(grid: Dim3, block: Dim3, shared: usize, stream: Handle) {
        push_configuration(grid, block, shared, stream)
    }

    /// Adds an argument to it.
    fn hipSetupArgument(argument: List<u8>, size: usize, offset: usize) {
        let bytes = argument.read(size)?;
        let end = offset.checked_add(size).filter(|end| *end as u64 <= MAX_KERNARG);
        let end = end.ok_or(HipError::INVALID_VALUE)?;
        CONFIGURATIONS.with_borrow_mut(|all| {
            let last = all.last_mut().ok_or(HipError::MISSING_CONFIGURATION)?;
            last.arguments.resize(last.arguments.len().max(end), 0);
            last.arguments[offset..end].copy_from_slice(&bytes);
            Ok(())
        })
    }

    /// Launches what was described.
    fn hipLaunchByPtr(func: Address) {
        let Configuration { grid, block, shared, stream, arguments } = pop_configuration()?;
        let size = arguments.len();
        let list = [
            extra::BUFFER_POINTER,
            arguments.as_ptr() as Address,
            extra::BUFFER_SIZE,
            &size as *const usize as Address,
            extra::END,
        ];
        let arguments = Arguments { params: 0, extra: list.as_ptr() as Address };
        launch_host(func, &Grid::new(grid, block, shared), stream, arguments)
    }
}

/// [`hipExtModuleLaunchKernel`] as C++, which is how it was exported before ROCm 6.
#[unsafe(export_name = "_Z24hipExtModuleLaunchKernelP18ihipModuleSymbol_tjjjjjjmP12ihipStream_\
                        tPPvS4_P11ihipEvent_tS6_j")]
pub extern "C" fn ext_module_launch_kernel(
    func: Handle,
    global_x: u32,
    global_y: u32,
    global_z: u32,
    block_x: u32,
    block_y: u32,
    block_z: u32,
    shared: usize,
    stream: Handle,
    params: Address,
    extra: Address,
    start: Handle,
    stop: Handle,
    flags: u32,
) -> HipError {
    hipExtModuleLaunchKernel(
        func, global_x, global_y, global_z, block_x, block_y, block_z, shared, stream, params,
        extra, start, stop, flags,
    )
}

/// [`hipHccModuleLaunchKernel`] as C++.
#[unsafe(export_name = "_Z24hipHccModuleLaunchKernelP18ihipModuleSymbol_tjjjjjjmP12ihipStream_\
                        tPPvS4_P11ihipEvent_tS6_")]
pub extern "C" fn hcc_module_launch_kernel(
    func: Handle,
    global_x: u32,
    global_y: u32,
    global_z: u32,
    block_x: u32,
    block_y: u32,
    block_z: u32,
    shared: usize,
    stream: Handle,
    params: Address,
    extra: Address,
    start: Handle,
    stop: Handle,
) -> HipError {
    hipHccModuleLaunchKernel(
        func, global_x, global_y, global_z, block_x, block_y, block_z, shared, stream, params,
        extra, start, stop,
    )
}

/// Launches with packed arguments; code of ROCm's first compilers calls this, in C++.
#[unsafe(export_name = "_ZN8hip_impl22hipLaunchKernelGGLImplEmRK4dim3S2_jP12ihipStream_tPPv")]
pub extern "C" fn launch_kernel_ggl(
    func: Address,
    grid: Option<&Dim3>,
    block: Option<&Dim3>,
    shared: u32,
    stream: Handle,
    extra: Address,
) {
    let _ = crate::error::call("hipLaunchKernelGGL", || {
        let grid = Grid::new(*given(grid)?, *given(block)?, shared as usize);
        launch_host(func, &grid, stream, Arguments { params: 0, extra })
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_items_become_workgroups() {
        let grid = Grid::of_work_items([100, 8, 1], [64, 4, 1], 0);
        assert_eq!(
            (grid.grid, grid.block, grid.global),
            ([2, 2, 1], [64, 4, 1], Some([100, 8, 1]))
        );
        let grid = Grid::of_work_items([128, 1, 1], [64, 4, 1], 0);
        assert_eq!((grid.grid, grid.block, grid.global), ([2, 1, 1], [64, 1, 1], None));
    }
}
