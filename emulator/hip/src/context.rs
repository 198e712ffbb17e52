//! Contexts of the driver API. A context is a view of its device: whatever it is used for happens
//! on the device itself.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::error::{HipError, Result};
use crate::ffi::{Place, api, given};
use crate::handle::fresh;
use crate::runtime::{Device, Runtime, runtime, set_current};
use crate::stream;
use crate::types::Handle;

/// A context.
pub struct Context {
    device: usize,
    flags: u32,
    primary: bool,
}

impl Context {
    /// The context of a device that the runtime API uses.
    pub fn primary(device: &Device) -> Context {
        Context { device: device.ordinal, flags: 0, primary: true }
    }
}

thread_local! {
    /// Contexts that the thread pushed, the current one last.
    static STACK: RefCell<Vec<Handle>> = const { RefCell::new(Vec::new()) };
}

fn find(runtime: &Runtime, context: Handle) -> Result<Arc<Context>> {
    runtime.contexts.get(context).ok_or(HipError::INVALID_CONTEXT)
}

/// The thread's context: the last one pushed, or the primary one of its device.
fn current(runtime: &Runtime) -> Handle {
    let device = runtime.current();
    let top = STACK.with_borrow(|stack| stack.last().copied());
    let here = |handle: &Handle| {
        runtime.contexts.get(*handle).is_some_and(|context| context.device == device.ordinal)
    };
    top.filter(here).unwrap_or(device.context)
}

api! {
    /// Makes a context and makes it current.
    fn hipCtxCreate(context: Option<&mut Handle>, flags: u32, device: i32) {
        let place = given(context)?;
        let runtime = runtime()?;
        let device = runtime.device(device)?.ordinal;
        let handle = fresh();
        runtime.contexts.insert(handle, Arc::new(Context { device, flags, primary: false }));
        STACK.with_borrow_mut(|stack| stack.push(handle));
        set_current(device);
        *place = handle;
        Ok(())
    }

    /// Ends a context.
    fn hipCtxDestroy(context: Handle) {
        let runtime = runtime()?;
        if find(runtime, context)?.primary {
            return Err(HipError::INVALID_CONTEXT);
        }
        runtime.contexts.remove(context);
        STACK.with_borrow_mut(|stack| stack.retain(|other| *other != context));
        Ok(())
    }

    /// Makes a context current.
    fn hipCtxPushCurrent(context: Handle) {
        let device = find(runtime()?, context)?.device;
        STACK.with_borrow_mut(|stack| stack.push(context));
        set_current(device);
        Ok(())
    }

    /// Takes the current context off the thread's stack.
    fn hipCtxPopCurrent(context: Option<&mut Handle>) {
        let runtime = runtime()?;
        let popped = STACK.with_borrow_mut(Vec::pop).ok_or(HipError::INVALID_CONTEXT)?;
        let below = STACK.with_borrow(|stack| stack.last().copied());
        let device = below.and_then(|handle| runtime.contexts.get(handle));
        set_current(device.map_or(0, |context| context.device));
        context.offer(popped);
        Ok(())
    }

    /// Replaces the current context; none means the primary one.
    fn hipCtxSetCurrent(context: Handle) {
        let runtime = runtime()?;
        STACK.with_borrow_mut(Vec::pop);
        if context != 0 {
            let device = find(runtime, context)?.device;
            STACK.with_borrow_mut(|stack| stack.push(context));
            set_current(device);
        }
        Ok(())
    }

    /// The current context.
    fn hipCtxGetCurrent(context: Option<&mut Handle>) {
        context.put(current(runtime()?))
    }

    /// Device of the current context.
    fn hipCtxGetDevice(device: Option<&mut i32>) {
        device.put(runtime()?.current().ordinal as i32)
    }

    /// Version of the driver API that a context was made for.
    fn hipCtxGetApiVersion(context: Handle, version: Option<&mut i32>) {
        let runtime = runtime()?;
        if context != 0 {
            find(runtime, context)?;
        }
        version.put(4)
    }

    /// Preference between L1 and LDS: none.
    fn hipCtxGetCacheConfig(config: Option<&mut u32>) {
        config.put(0)
    }

    /// A preference between L1 and LDS, which are separate.
    fn hipCtxSetCacheConfig(config: u32) {
        if config > 3 { Err(HipError::INVALID_VALUE) } else { Ok(()) }
    }

    /// Width of LDS banks, which is fixed.
    fn hipCtxSetSharedMemConfig(config: u32) {
        if config > 2 { Err(HipError::INVALID_VALUE) } else { Ok(()) }
    }

    /// Width of LDS banks: four bytes.
    fn hipCtxGetSharedMemConfig(config: Option<&mut u32>) {
        config.put(1)
    }

    /// Waits for everything on the context's device.
    fn hipCtxSynchronize() {
        let runtime = runtime()?;
        runtime.captures.forbid_synchronization()?;
        stream::synchronize_device(runtime.current())
    }

    /// Flags of the current context.
    fn hipCtxGetFlags(flags: Option<&mut u32>) {
        let runtime = runtime()?;
        flags.put(find(runtime, current(runtime))?.flags)
    }

    /// Lets kernels access memory of another context's device.
    fn hipCtxEnablePeerAccess(context: Handle, flags: u32) {
        let device = find(runtime()?, context)?.device as i32;
        status(crate::device::hipDeviceEnablePeerAccess(device, flags))
    }

    /// Ends that.
    fn hipCtxDisablePeerAccess(context: Handle) {
        let device = find(runtime()?, context)?.device as i32;
        status(crate::device::hipDeviceDisablePeerAccess(device))
    }

    /// Whether a device's primary context is in use, and its flags.
    fn hipDevicePrimaryCtxGetState(
        device: i32,
        flags: Option<&mut u32>,
        active: Option<&mut i32>,
    ) {
        let device = runtime()?.device(device)?;
        flags.put(device.flags.load(Ordering::Relaxed))?;
        active.put(i32::from(device.active.load(Ordering::Relaxed)))
    }

    /// Keeps a device's primary context.
    fn hipDevicePrimaryCtxRetain(context: Option<&mut Handle>, device: i32) {
        let place = given(context)?;
        let device = runtime()?.device(device)?;
        device.retained.fetch_add(1, Ordering::Relaxed);
        device.active.store(true, Ordering::Relaxed);
        *place = device.context;
        Ok(())
    }

    /// Lets it go.
    fn hipDevicePrimaryCtxRelease(device: i32) {
        let device = runtime()?.device(device)?;
        let less = |count: u32| count.checked_sub(1);
        let _ = device.retained.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        Ok(())
    }

    /// Resets a device.
    fn hipDevicePrimaryCtxReset(device: i32) {
        let runtime = runtime()?;
        let before = runtime.current().ordinal;
        set_current(runtime.device(device)?.ordinal);
        let result = status(crate::device::hipDeviceReset());
        set_current(before);
        result
    }

    /// Flags of a primary context, which cannot change while it is in use.
    fn hipDevicePrimaryCtxSetFlags(device: i32, flags: u32) {
        let device = runtime()?.device(device)?;
        if device.active.load(Ordering::Relaxed) {
            return Err(HipError::CONTEXT_ALREADY_IN_USE);
        }
        device.flags.store(flags, Ordering::Relaxed);
        Ok(())
    }
}

/// The outcome of another function of the API.
pub fn status(error: HipError) -> Result {
    if error == HipError::SUCCESS { Ok(()) } else { Err(error) }
}
