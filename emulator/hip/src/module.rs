//! Modules: code objects that the program loads itself, their kernels and variables.

use std::collections::BTreeMap;
use std::ffi::{CString, c_char};
use std::sync::{Arc, Mutex};

use crate::backend::{Image, Kernel, occupancy};
use crate::board;
use crate::error::{HipError, Result, note};
use crate::ffi::{Place, Text, api, given, probe_memory};
use crate::handle::{fresh, lock};
use crate::launch::function_of;
use crate::runtime::{Runtime, runtime};
use crate::types::{Address, FuncAttributes, Handle};

/// Bytes of a code object or bundle that make sense.
const MAX_IMAGE: u64 = 4 << 30;
/// Bytes that are read to find out how long an image is.
const HEADER_BYTES: usize = 4096;

/// A loaded code object.
pub struct Module {
    device: usize,
    image: Arc<Image>,
    /// Handles of its kernels, as far as they were asked for.
    functions: Mutex<BTreeMap<String, Handle>>,
}

/// A kernel on a device.
pub struct Function {
    /// The kernel.
    pub kernel: Arc<Kernel>,
    /// The device that its code was loaded on.
    pub device: usize,
    name: CString,
}

impl Function {
    /// A kernel.
    pub fn new(kernel: Arc<Kernel>, device: usize) -> Function {
        let name = CString::new(kernel.name.as_str()).unwrap_or_default();
        Function { kernel, device, name }
    }

    /// Its name, for programs in C.
    pub fn name(&self) -> *const c_char {
        self.name.as_ptr()
    }
}

fn number(bytes: &[u8], at: usize, size: usize) -> u64 {
    let field = bytes.get(at..at + size).unwrap_or(&[]);
    field.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// How many bytes an ELF file, a bundle or a compressed bundle says that it has.
fn image_size(header: &[u8], rest: impl Fn(u64, u64) -> Result<Vec<u8>>) -> Result<u64> {
    if header.starts_with(b"\x7fELF") {
        return elf_size(header, rest);
    }
    if header.starts_with(b"__CLANG_OFFLOAD_BUNDLE__") {
        return bundle_size(header);
    }
    if header.starts_with(b"CCOB") {
        // The loader only needs enough of it to say that it is compressed.
        return Ok(header.len() as u64);
    }
    note("the image is neither an ELF file nor an offload bundle");
    Err(HipError::INVALID_IMAGE)
}

fn elf_size(header: &[u8], rest: impl Fn(u64, u64) -> Result<Vec<u8>>) -> Result<u64> {
    let table = |offset: usize, entry: usize, count: usize| {
        let (offset, entry) = (number(header, offset, 8), number(header, entry, 2));
        let bytes = entry * number(header, count, 2);
        (offset, entry as usize, bytes, offset.saturating_add(bytes))
    };
    let (programs, entry, program_bytes, program_end) = table(32, 54, 56);
    let (_, _, _, section_end) = table(40, 58, 60);
    let mut end = program_end.max(section_end);
    if entry >= 56 {
        for program in rest(programs, program_bytes)?.chunks_exact(entry) {
            end = end.max(number(program, 8, 8).saturating_add(number(program, 32, 8)));
        }
    }
    Ok(end)
}

fn bundle_size(header: &[u8]) -> Result<u64> {
    let mut at = 32;
    let mut end = 0;
    for _ in 0..number(header, 24, 8) {
        let length = number(header, at + 16, 8);
        let next = (at as u64 + 24).saturating_add(length);
        if next > header.len() as u64 {
            break;
        }
        end = end.max(number(header, at, 8).saturating_add(number(header, at + 8, 8)));
        at = next as usize;
    }
    Ok(end.max(at as u64))
}

/// The bytes of an image in the program's memory, whose length only its header tells.
pub fn image_bytes(address: Address) -> Result<Vec<u8>> {
    if address == 0 {
        return Err(HipError::INVALID_VALUE);
    }
    let header = probe_memory(address, HEADER_BYTES)?;
    let rest = |offset: u64, bytes: u64| {
        if offset > MAX_IMAGE {
            return Ok(Vec::new());
        }
        probe_memory(address.wrapping_add(offset as usize), bytes as usize)
    };
    let size = image_size(&header, rest)?;
    if size > MAX_IMAGE {
        note(&format!("the image's header speaks of {size} bytes"));
        return Err(HipError::INVALID_IMAGE);
    }
    probe_memory(address, size as usize)
}

fn load(place: Option<&mut Handle>, bytes: &[u8], what: &str) -> Result {
    let place = given(place)?;
    let runtime = runtime()?;
    runtime.captures.forbid_unsafe()?;
    let device = runtime.current().ordinal;
    let image = Arc::new(Image::load(runtime, bytes, what)?);
    let handle = fresh();
    let module = Module { device, image, functions: Mutex::default() };
    runtime.modules.insert(handle, Arc::new(module));
    *place = handle;
    Ok(())
}

fn load_data(module: Option<&mut Handle>, image: Address) -> Result {
    load(module, &image_bytes(image)?, "hipModuleLoadData")
}

fn load_file(module: Option<&mut Handle>, path: &str) -> Result {
    let bytes = std::fs::read(path).map_err(|error| {
        note(&format!("hipModuleLoad: {path}: {error}"));
        HipError::FILE_NOT_FOUND
    })?;
    load(module, &bytes, path)
}

fn find(runtime: &Runtime, module: Handle) -> Result<Arc<Module>> {
    runtime.modules.get(module).ok_or(HipError::INVALID_HANDLE)
}

fn function(runtime: &Runtime, func: Handle) -> Result<Arc<Function>> {
    runtime.functions.get(func).ok_or(HipError::INVALID_HANDLE)
}

/// Version that the API gives code: major and minor of the graphics core.
fn code_version(runtime: &Runtime) -> i32 {
    let [major, minor, _] = board::version(runtime.chip);
    major * 10 + minor
}

fn attributes(runtime: &Runtime, kernel: &Kernel) -> FuncAttributes {
    let lds = runtime.chip.lds_bytes();
    FuncAttributes {
        binary_version: code_version(runtime),
        cache_mode_ca: 0,
        const_size_bytes: 0,
        local_size_bytes: kernel.scratch_bytes as usize,
        max_dynamic_shared_size_bytes: lds.saturating_sub(kernel.lds_bytes) as i32,
        max_threads_per_block: kernel.max_workgroup_size as i32,
        num_regs: (kernel.vgprs + kernel.agprs) as i32,
        preferred_shmem_carveout: 0,
        ptx_version: code_version(runtime),
        shared_size_bytes: kernel.lds_bytes as usize,
    }
}

fn attribute(runtime: &Runtime, kernel: &Kernel, number: u32) -> Result<i32> {
    let all = attributes(runtime, kernel);
    Ok(match number {
        0 => all.max_threads_per_block,
        1 => all.shared_size_bytes as i32,
        2 => all.const_size_bytes as i32,
        3 => all.local_size_bytes as i32,
        4 => all.num_regs,
        5 => all.ptx_version,
        6 => all.binary_version,
        7 => all.cache_mode_ca,
        8 => all.max_dynamic_shared_size_bytes,
        9 => all.preferred_shmem_carveout,
        _ => return Err(HipError::INVALID_VALUE),
    })
}

/// Workgroups that a multiprocessor holds.
fn active_blocks(kernel: &Kernel, block_size: i32, shared: usize) -> Result<i32> {
    let size = u32::try_from(block_size).ok().filter(|size| *size > 0);
    let size = size.ok_or(HipError::INVALID_VALUE)?;
    if size > kernel.max_workgroup_size {
        return Ok(0);
    }
    let shared = u32::try_from(shared).unwrap_or(u32::MAX);
    Ok(occupancy(kernel, size, shared) as i32)
}

/// The workgroup size that keeps most work-items on a multiprocessor, the largest of several, and
/// the grid that then fills the device.
fn best_block(runtime: &Runtime, kernel: &Kernel, shared: usize, limit: i32) -> Result<(i32, i32)> {
    let lanes = kernel.lanes as i32;
    let most = kernel.max_workgroup_size as i32;
    let most = if limit > 0 { limit.min(most) } else { most };
    let mut best = (0, 0, 0);
    for size in (lanes..=most.max(lanes)).step_by(lanes as usize) {
        let size = size.min(most);
        let blocks = active_blocks(kernel, size, shared)?;
        best = best.max((blocks * size, size, blocks));
    }
    let (_, size, blocks) = best;
    if blocks == 0 {
        return Err(HipError::INVALID_VALUE);
    }
    Ok((blocks * board::multiprocessors(runtime.chip) as i32, size))
}

fn potential_block(
    grid: Option<&mut i32>,
    block: Option<&mut i32>,
    find: impl FnOnce(&Runtime) -> Result<Arc<Function>>,
    shared: usize,
    limit: i32,
) -> Result {
    let (grid, block) = (given(grid)?, given(block)?);
    let runtime = runtime()?;
    let function = find(runtime)?;
    (*grid, *block) = best_block(runtime, &function.kernel, shared, limit)?;
    Ok(())
}

fn active(
    blocks: Option<&mut i32>,
    find: impl FnOnce(&Runtime) -> Result<Arc<Function>>,
    block_size: i32,
    shared: usize,
) -> Result {
    let blocks = given(blocks)?;
    let runtime = runtime()?;
    *blocks = active_blocks(&find(runtime)?.kernel, block_size, shared)?;
    Ok(())
}

/// The kernel of a host function or a handle on the current device.
fn host_function(runtime: &Runtime, func: Address) -> Result<Arc<Function>> {
    function_of(runtime, func, runtime.current().ordinal)
}

api! {
    /// Loads a code object or bundle from a file.
    fn hipModuleLoad(module: Option<&mut Handle>, path: Text) {
        load_file(module, path.read()?)
    }

    /// Loads a code object or bundle from memory.
    fn hipModuleLoadData(module: Option<&mut Handle>, image: Address) {
        load_data(module, image)
    }

    /// Loads a code object or bundle from memory; options are for just-in-time compilers.
    fn hipModuleLoadDataEx(
        module: Option<&mut Handle>,
        image: Address,
        _count: u32,
        _options: Address,
        _values: Address,
    ) {
        load_data(module, image)
    }

    /// Loads a bundle from memory.
    fn hipModuleLoadFatBinary(module: Option<&mut Handle>, image: Address) {
        load_data(module, image)
    }

    /// Unloads a module. Its memory goes when no work needs it any more.
    fn hipModuleUnload(module: Handle) {
        let runtime = runtime()?;
        let module = runtime.modules.remove(module).ok_or(HipError::INVALID_HANDLE)?;
        for handle in lock(&module.functions).values() {
            runtime.functions.remove(*handle);
        }
        Ok(())
    }

    /// A kernel of a module.
    fn hipModuleGetFunction(func: Option<&mut Handle>, module: Handle, name: Text) {
        let place = given(func)?;
        let name = name.read()?;
        let runtime = runtime()?;
        let module = find(runtime, module)?;
        let mut functions = lock(&module.functions);
        if let Some(handle) = functions.get(name) {
            *place = *handle;
            return Ok(());
        }
        let kernel = module.image.kernel(name).ok_or(HipError::NOT_FOUND)?;
        let handle = fresh();
        runtime.functions.insert(handle, Arc::new(Function::new(kernel, module.device)));
        functions.insert(name.to_string(), handle);
        *place = handle;
        Ok(())
    }

    /// Number of kernels of a module.
    fn hipModuleGetFunctionCount(count: Option<&mut u32>, module: Handle) {
        count.put(find(runtime()?, module)?.image.kernel_count() as u32)
    }

    /// A variable of a module.
    fn hipModuleGetGlobal(
        address: Option<&mut Address>,
        bytes: Option<&mut usize>,
        module: Handle,
        name: Text,
    ) {
        let name = name.read()?;
        let module = find(runtime()?, module)?;
        let (found, size) = module.image.symbol(name).ok_or(HipError::NOT_FOUND)?;
        address.offer(found);
        bytes.offer(size);
        Ok(())
    }

    /// One attribute of a kernel.
    fn hipFuncGetAttribute(value: Option<&mut i32>, number: u32, func: Handle) {
        let value = given(value)?;
        let runtime = runtime()?;
        *value = attribute(runtime, &function(runtime, func)?.kernel, number)?;
        Ok(())
    }

    /// All attributes of the kernel of a host function.
    fn hipFuncGetAttributes(place: Option<&mut FuncAttributes>, func: Address) {
        let place = given(place)?;
        let runtime = runtime()?;
        *place = attributes(runtime, &host_function(runtime, func)?.kernel);
        Ok(())
    }

    /// Sets the most dynamic LDS (8) or the preferred share of it (9), which limit nothing here
    /// beyond what there is.
    fn hipFuncSetAttribute(func: Address, number: u32, value: i32) {
        let runtime = runtime()?;
        let kernel = &host_function(runtime, func)?.kernel;
        let room = attributes(runtime, kernel).max_dynamic_shared_size_bytes;
        match number {
            8 if (0..=room).contains(&value) => Ok(()),
            9 if (-1..=100).contains(&value) => Ok(()),
            _ => Err(HipError::INVALID_VALUE),
        }
    }

    /// A preference between L1 and LDS, which are separate.
    fn hipFuncSetCacheConfig(func: Address, config: u32) {
        let runtime = runtime()?;
        host_function(runtime, func)?;
        if config > 3 { Err(HipError::INVALID_VALUE) } else { Ok(()) }
    }

    /// Width of LDS banks, which is fixed.
    fn hipFuncSetSharedMemConfig(func: Address, config: u32) {
        let runtime = runtime()?;
        host_function(runtime, func)?;
        if config > 2 { Err(HipError::INVALID_VALUE) } else { Ok(()) }
    }

    /// The handle of the kernel of a host function.
    fn hipGetFuncBySymbol(func: Option<&mut Handle>, symbol: Address) {
        let place = given(func)?;
        let runtime = runtime()?;
        *place = crate::register::handle(runtime, symbol, runtime.current().ordinal)?;
        Ok(())
    }

    /// Workgroups that a multiprocessor holds.
    fn hipModuleOccupancyMaxActiveBlocksPerMultiprocessor(
        blocks: Option<&mut i32>,
        func: Handle,
        block_size: i32,
        shared: usize,
    ) {
        active(blocks, |runtime| function(runtime, func), block_size, shared)
    }

    /// Workgroups that a multiprocessor holds.
    fn hipModuleOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        blocks: Option<&mut i32>,
        func: Handle,
        block_size: i32,
        shared: usize,
        flags: u32,
    ) {
        if flags > 1 {
            return Err(HipError::INVALID_VALUE);
        }
        active(blocks, |runtime| function(runtime, func), block_size, shared)
    }

    /// Workgroups that a multiprocessor holds.
    fn hipOccupancyMaxActiveBlocksPerMultiprocessor(
        blocks: Option<&mut i32>,
        func: Address,
        block_size: i32,
        shared: usize,
    ) {
        active(blocks, |runtime| host_function(runtime, func), block_size, shared)
    }

    /// Workgroups that a multiprocessor holds.
    fn hipOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        blocks: Option<&mut i32>,
        func: Address,
        block_size: i32,
        shared: usize,
        flags: u32,
    ) {
        if flags > 1 {
            return Err(HipError::INVALID_VALUE);
        }
        active(blocks, |runtime| host_function(runtime, func), block_size, shared)
    }

    /// The workgroup size that fills a multiprocessor best.
    fn hipModuleOccupancyMaxPotentialBlockSize(
        grid: Option<&mut i32>,
        block: Option<&mut i32>,
        func: Handle,
        shared: usize,
        limit: i32,
    ) {
        potential_block(grid, block, |runtime| function(runtime, func), shared, limit)
    }

    /// The workgroup size that fills a multiprocessor best.
    fn hipModuleOccupancyMaxPotentialBlockSizeWithFlags(
        grid: Option<&mut i32>,
        block: Option<&mut i32>,
        func: Handle,
        shared: usize,
        limit: i32,
        flags: u32,
    ) {
        if flags > 1 {
            return Err(HipError::INVALID_VALUE);
        }
        potential_block(grid, block, |runtime| function(runtime, func), shared, limit)
    }

    /// The workgroup size that fills a multiprocessor best.
    fn hipOccupancyMaxPotentialBlockSize(
        grid: Option<&mut i32>,
        block: Option<&mut i32>,
        func: Address,
        shared: usize,
        limit: i32,
    ) {
        potential_block(grid, block, |runtime| host_function(runtime, func), shared, limit)
    }

    /// Bytes of dynamic LDS that leave room for so many workgroups on a multiprocessor.
    fn hipOccupancyAvailableDynamicSMemPerBlock(
        bytes: Option<&mut usize>,
        func: Address,
        blocks: i32,
        block_size: i32,
    ) {
        let place = given(bytes)?;
        let runtime = runtime()?;
        let kernel = &host_function(runtime, func)?.kernel;
        if blocks < 1 || active_blocks(kernel, block_size, 0)? < blocks {
            return Err(HipError::INVALID_VALUE);
        }
        let fits = |shared: &usize| {
            active_blocks(kernel, block_size, *shared).is_ok_and(|found| found >= blocks)
        };
        let most = runtime.chip.lds_bytes().saturating_sub(kernel.lds_bytes) as usize;
        // From more to less: what fits is monotonic, and LDS is given out in steps.
        *place = (0..=most).rev().step_by(256).find(fits).unwrap_or(0);
        Ok(())
    }
}

/// Name of a kernel.
#[unsafe(no_mangle)]
pub extern "C" fn hipKernelNameRef(func: Handle) -> *const c_char {
    let found = std::panic::catch_unwind(|| runtime().ok()?.functions.get(func));
    found.ok().flatten().map_or(std::ptr::null(), |function| function.name())
}

/// Name of the kernel of a host function.
#[unsafe(no_mangle)]
pub extern "C" fn hipKernelNameRefByPtr(func: Address, stream: Handle) -> *const c_char {
    let found = std::panic::catch_unwind(|| {
        let runtime = runtime().ok()?;
        let device = crate::stream::find(runtime, stream).ok()?.device;
        function_of(runtime, func, device).ok()
    });
    found.ok().flatten().map_or(std::ptr::null(), |function| function.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_bundles() {
        let mut bundle = b"__CLANG_OFFLOAD_BUNDLE__".to_vec();
        bundle.extend(1u64.to_le_bytes());
        for field in [4096u64, 100, 4] {
            bundle.extend(field.to_le_bytes());
        }
        bundle.extend(b"host");
        assert_eq!(bundle_size(&bundle), Ok(4196));
        // An entry whose name is cut off does not count.
        bundle.truncate(bundle.len() - 1);
        assert_eq!(bundle_size(&bundle), Ok(32));
    }

    #[test]
    fn sizes_of_elf_files() {
        let mut elf = vec![0u8; 64];
        elf[..4].copy_from_slice(b"\x7fELF");
        elf[40..48].copy_from_slice(&1000u64.to_le_bytes()); // e_shoff
        elf[58..60].copy_from_slice(&64u16.to_le_bytes()); // e_shentsize
        elf[60..62].copy_from_slice(&3u16.to_le_bytes()); // e_shnum
        assert_eq!(elf_size(&elf, |_, _| Ok(Vec::new())), Ok(1192));
    }

    #[test]
    fn images_that_are_not_mapped_are_errors() {
        assert_eq!(image_bytes(0), Err(HipError::INVALID_VALUE));
        assert_eq!(image_bytes(0x10), Err(HipError::INVALID_IMAGE));
    }
}
