//! What compilers of HIP C++ put into programs: their device code with the functions and variables
//! of the host that stand for kernels and variables of the device.
//!
//! Registration happens before `main`, so it only takes notes (except for managed variables, which
//! the host may use at once). Code is loaded when a device first needs it.

use std::collections::BTreeMap;
use std::ffi::c_char;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use crate::backend::Image;
use crate::blocks::{self, Kind};
use crate::error::{HipError, Result, note};
use crate::ffi::{List, Place, Text, api, given};
use crate::handle::{fresh, lock};
use crate::module::{Function, image_bytes};
use crate::runtime::{Runtime, runtime};
use crate::stream;
use crate::types::{Address, Handle, flag};

/// Start of the structure that compilers pass: "HIPF".
const WRAPPER_MAGIC: u32 = 0x4849_5046;

/// `__ClangOffloadBundleHeader`'s owner: where the bundle is.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct FatBinaryWrapper {
    magic: u32,
    version: u32,
    binary: Address,
    unused: Address,
}

/// Everything that was registered.
static REGISTRY: Mutex<Registry> = Mutex::new(Registry {
    binaries: BTreeMap::new(),
    functions: BTreeMap::new(),
    variables: BTreeMap::new(),
});

struct Registry {
    binaries: BTreeMap<Handle, Binary>,
    /// By address of the host's function.
    functions: BTreeMap<Address, HostFunction>,
    /// By address of the host's variable.
    variables: BTreeMap<Address, Variable>,
}

struct Binary {
    address: Address,
    /// Loaded code, by device.
    images: BTreeMap<usize, Arc<Image>>,
}

struct HostFunction {
    binary: Handle,
    name: String,
    /// Kernels and their handles, by device.
    loaded: BTreeMap<usize, (Handle, Arc<Function>)>,
}

#[derive(Clone)]
struct Variable {
    binary: Handle,
    name: String,
    size: usize,
    /// Memory that host and device share, if it is a managed variable.
    managed: Option<Address>,
}

impl Registry {
    /// The code of a binary on a device.
    fn image(&mut self, runtime: &Runtime, handle: Handle, device: usize) -> Result<Arc<Image>> {
        let binary = self.binaries.get_mut(&handle).ok_or(HipError::INVALID_DEVICE_FUNCTION)?;
        if let Some(image) = binary.images.get(&device) {
            return Ok(image.clone());
        }
        let bytes = image_bytes(binary.address)?;
        let image = Arc::new(Image::load(runtime, &bytes, "device code of the program")?);
        binary.images.insert(device, image.clone());
        // A managed variable of the device is a pointer to the shared memory.
        for variable in self.variables.values().filter(|variable| variable.binary == handle) {
            if let Some(shared) = variable.managed
                && let Some((pointer, 8)) = image.symbol(&variable.name)
            {
                let written = runtime.memory.write(pointer as u64, &shared.to_le_bytes());
                written.map_err(|_| HipError::INVALID_IMAGE)?;
            }
        }
        Ok(image)
    }

    fn load(
        &mut self,
        runtime: &Runtime,
        host: Address,
        device: usize,
    ) -> Result<Option<(Handle, Arc<Function>)>> {
        let Some(function) = self.functions.get(&host) else { return Ok(None) };
        if let Some(loaded) = function.loaded.get(&device) {
            return Ok(Some(loaded.clone()));
        }
        let (binary, name) = (function.binary, function.name.clone());
        let Some(kernel) = self.image(runtime, binary, device)?.kernel(&name) else {
            note(&format!("the program's device code has no kernel {name}"));
            return Err(HipError::INVALID_DEVICE_FUNCTION);
        };
        let loaded = (fresh(), Arc::new(Function::new(kernel, device)));
        runtime.functions.insert(loaded.0, loaded.1.clone());
        if let Some(function) = self.functions.get_mut(&host) {
            function.loaded.insert(device, loaded.clone());
        }
        Ok(Some(loaded))
    }
}

/// The kernel of a function of the host on a device; `None` if none was registered for it.
pub fn function(runtime: &Runtime, host: Address, device: usize) -> Result<Option<Arc<Function>>> {
    let loaded = lock(&REGISTRY).load(runtime, host, device)?;
    Ok(loaded.map(|(_, function)| function))
}

/// The handle of that kernel.
pub fn handle(runtime: &Runtime, host: Address, device: usize) -> Result<Handle> {
    let loaded = lock(&REGISTRY).load(runtime, host, device)?;
    loaded.map(|(handle, _)| handle).ok_or(HipError::INVALID_DEVICE_FUNCTION)
}

/// Address and size on the current device of a variable of the host.
fn variable(runtime: &Runtime, host: Address) -> Result<(Address, usize)> {
    let mut registry = lock(&REGISTRY);
    let found = registry.variables.get(&host).cloned().ok_or(HipError::INVALID_SYMBOL)?;
    if let Some(shared) = found.managed {
        return Ok((shared, found.size));
    }
    let image = registry.image(runtime, found.binary, runtime.current().ordinal)?;
    image.symbol(&found.name).ok_or(HipError::INVALID_SYMBOL)
}

/// Address of a part of a variable.
pub fn part_of(runtime: &Runtime, host: Address, bytes: usize, offset: usize) -> Result<Address> {
    let (address, size) = variable(runtime, host)?;
    if offset.checked_add(bytes).is_none_or(|end| end > size) {
        return Err(HipError::INVALID_VALUE);
    }
    Ok(address + offset)
}

/// Runs the body of a function that has no way to fail but to say so.
fn registering<T: Default>(what: &str, body: impl FnOnce() -> Result<T>) -> T {
    let result = catch_unwind(AssertUnwindSafe(body)).unwrap_or(Err(HipError::UNKNOWN));
    result.unwrap_or_else(|error| {
        note(&format!("{what}: {}", error.text().to_string_lossy()));
        T::default()
    })
}

/// Registers a program's device code; gives a handle for the functions below.
#[unsafe(no_mangle)]
pub extern "C" fn __hipRegisterFatBinary(wrapper: Option<&FatBinaryWrapper>) -> Handle {
    registering("__hipRegisterFatBinary", || {
        let wrapper = given(wrapper)?;
        if wrapper.magic != WRAPPER_MAGIC || wrapper.version != 1 || wrapper.binary == 0 {
            return Err(HipError::INVALID_IMAGE);
        }
        let handle = fresh();
        let binary = Binary { address: wrapper.binary, images: BTreeMap::new() };
        lock(&REGISTRY).binaries.insert(handle, binary);
        Ok(handle)
    })
}

/// Registers a function of the host that stands for a kernel.
#[unsafe(no_mangle)]
pub extern "C" fn __hipRegisterFunction(
    binary: Handle,
    host: Address,
    _device_function: Address,
    name: Text,
    _thread_limit: u32,
    _thread: Address,
    _block: Address,
    _block_dim: Address,
    _grid_dim: Address,
    _warp_size: Address,
) {
    registering("__hipRegisterFunction", || {
        let name = name.read()?.to_string();
        let function = HostFunction { binary, name, loaded: BTreeMap::new() };
        lock(&REGISTRY).functions.insert(host, function);
        Ok(())
    });
}

/// Registers a variable of the host that stands for one of the device.
#[unsafe(no_mangle)]
pub extern "C" fn __hipRegisterVar(
    binary: Handle,
    host: Address,
    _host_name: Address,
    name: Text,
    _external: i32,
    size: usize,
    _constant: i32,
    _global: i32,
) {
    registering("__hipRegisterVar", || {
        let name = name.read()?.to_string();
        let variable = Variable { binary, name, size, managed: None };
        lock(&REGISTRY).variables.insert(host, variable);
        Ok(())
    });
}

/// Registers a variable that host and device share; its memory is made here.
#[unsafe(no_mangle)]
pub extern "C" fn __hipRegisterManagedVar(
    binary: Handle,
    pointer: Option<&mut Address>,
    initial: List<u8>,
    name: Text,
    size: usize,
    _align: u32,
) {
    registering("__hipRegisterManagedVar", || {
        let pointer = given(pointer)?;
        let name = name.read()?.to_string();
        let runtime = runtime()?;
        let device = runtime.device(0)?;
        let global = flag::MEM_ATTACH_GLOBAL;
        let shared = blocks::allocate(runtime, device, size, Kind::Managed, global, &name)?;
        let bytes = initial.read(size)?;
        runtime.memory.write(shared as u64, &bytes).map_err(|_| HipError::UNKNOWN)?;
        *pointer = shared;
        let host = pointer as *const Address as Address;
        let variable = Variable { binary, name, size, managed: Some(shared) };
        lock(&REGISTRY).variables.insert(host, variable);
        Ok(())
    });
}

/// Registers a texture, of which there are none.
#[unsafe(no_mangle)]
pub extern "C" fn __hipRegisterTexture(
    _binary: Handle,
    _host: Address,
    _host_name: Address,
    name: Text,
    _type: i32,
    _normalized: i32,
    _external: i32,
) {
    note(&format!("texture {} is not supported", name.read().unwrap_or("?")));
}

/// Registers a surface, of which there are none.
#[unsafe(no_mangle)]
pub extern "C" fn __hipRegisterSurface(
    _binary: Handle,
    _host: Address,
    _host_name: Address,
    name: Text,
    _type: i32,
    _external: i32,
) {
    note(&format!("surface {} is not supported", name.read().unwrap_or("?")));
}

/// Forgets a program's device code, when the program ends. Work that still uses it is waited for.
#[unsafe(no_mangle)]
pub extern "C" fn __hipUnregisterFatBinary(binary: Handle) {
    registering("__hipUnregisterFatBinary", || {
        let removed = lock(&REGISTRY).binaries.remove(&binary);
        if removed.is_some_and(|binary| !binary.images.is_empty()) && !stream::is_worker() {
            for device in &runtime()?.devices {
                // A fault was told already, when it happened.
                let _ = stream::synchronize_device(device);
            }
        }
        let mut registry = lock(&REGISTRY);
        registry.functions.retain(|_, function| function.binary != binary);
        registry.variables.retain(|_, variable| variable.binary != binary);
        Ok(())
    });
}

/// The precompiled header of HIP, which is not there.
#[unsafe(no_mangle)]
pub extern "C" fn __hipGetPCH(header: Option<&mut *const c_char>, size: Option<&mut u32>) {
    header.offer(std::ptr::null());
    size.offer(0);
}

api! {
    /// Address of a variable on the current device.
    fn hipGetSymbolAddress(address: Option<&mut Address>, symbol: Address) {
        let place = given(address)?;
        *place = variable(runtime()?, symbol)?.0;
        Ok(())
    }

    /// Bytes of a variable.
    fn hipGetSymbolSize(size: Option<&mut usize>, symbol: Address) {
        let place = given(size)?;
        *place = variable(runtime()?, symbol)?.1;
        Ok(())
    }
}
