//! Functions that HIP has and this library does not: each says its name once on stderr and returns
//! `hipErrorNotSupported`.

use std::collections::BTreeSet;
use std::sync::Mutex;

use crate::error::{HipError, call, note};
use crate::handle::lock;

fn not_supported(name: &'static str) -> HipError {
    static SAID: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());
    call(name, || {
        if lock(&SAID).insert(name) {
            note(&format!("{name} is not supported"));
        }
        Err(HipError::NOT_SUPPORTED)
    })
}

/// Defines functions that ignore their arguments: with C's calling convention the caller cleans up
/// after them, however many there are.
macro_rules! missing {
    ($($name:ident)*) => {$(
        #[doc = concat!("`", stringify!($name), "` is not supported.")]
        #[unsafe(no_mangle)]
        pub extern "C" fn $name() -> HipError {
            not_supported(stringify!($name))
        }
    )*};
}

// Arrays, textures and surfaces.
missing! {
    hipArray3DCreate hipArray3DGetDescriptor hipArrayCreate hipArrayDestroy
    hipArrayGetDescriptor hipArrayGetInfo hipBindTexture hipBindTexture2D
    hipBindTextureToArray hipBindTextureToMipmappedArray hipCreateTextureObject
    hipDestroyTextureObject hipDeviceGetTexture1DLinearMaxWidth hipFreeArray
    hipFreeMipmappedArray hipGetChannelDesc hipGetMipmappedArrayLevel
    hipGetTextureAlignmentOffset hipGetTextureObjectResourceDesc
    hipGetTextureObjectResourceViewDesc hipGetTextureObjectTextureDesc hipGetTextureReference
    hipGraphicsSubResourceGetMappedArray hipMalloc3DArray hipMallocArray
    hipMallocMipmappedArray hipMemMapArrayAsync hipMemcpy2DArrayToArray hipMemcpy2DFromArray
    hipMemcpy2DFromArrayAsync hipMemcpy2DFromArrayAsync_spt hipMemcpy2DFromArray_spt
    hipMemcpy2DToArray hipMemcpy2DToArrayAsync hipMemcpy2DToArrayAsync_spt
    hipMemcpy2DToArray_spt hipMemcpyAtoA hipMemcpyAtoD hipMemcpyAtoH hipMemcpyAtoHAsync
    hipMemcpyDtoA hipMemcpyFromArray hipMemcpyFromArray_spt hipMemcpyHtoA hipMemcpyHtoAAsync
    hipMemcpyToArray hipMipmappedArrayCreate hipMipmappedArrayDestroy
    hipMipmappedArrayGetLevel hipMipmappedArrayGetMemoryRequirements hipModuleGetTexRef
    hipTexObjectCreate hipTexObjectDestroy hipTexObjectGetResourceDesc
    hipTexObjectGetResourceViewDesc hipTexObjectGetTextureDesc hipTexRefGetAddress
    hipTexRefGetAddressMode hipTexRefGetArray hipTexRefGetBorderColor hipTexRefGetFilterMode
    hipTexRefGetFlags hipTexRefGetFormat hipTexRefGetMaxAnisotropy hipTexRefGetMipMappedArray
    hipTexRefGetMipmapFilterMode hipTexRefGetMipmapLevelBias hipTexRefGetMipmapLevelClamp
    hipTexRefSetAddress hipTexRefSetAddress2D hipTexRefSetAddressMode hipTexRefSetArray
    hipTexRefSetBorderColor hipTexRefSetFilterMode hipTexRefSetFlags hipTexRefSetFormat
    hipTexRefSetMaxAnisotropy hipTexRefSetMipmapFilterMode hipTexRefSetMipmapLevelBias
    hipTexRefSetMipmapLevelClamp hipTexRefSetMipmappedArray hipUnbindTexture
}

// Virtual memory management.
missing! {
    hipMemAddressFree hipMemAddressReserve hipMemCreate hipMemExportToShareableHandle
    hipMemGetAccess hipMemGetAllocationGranularity hipMemGetAllocationPropertiesFromHandle
    hipMemGetHandleForAddressRange hipMemImportFromShareableHandle hipMemMap hipMemRelease
    hipMemRetainAllocationHandle hipMemSetAccess hipMemUnmap
}

// Sharing with other processes and interfaces.
missing! {
    hipDestroyExternalMemory hipDestroyExternalSemaphore hipExternalMemoryGetMappedBuffer
    hipGLGetDevices hipGraphAddExternalSemaphoresSignalNode
    hipGraphAddExternalSemaphoresWaitNode hipGraphExecExternalSemaphoresSignalNodeSetParams
    hipGraphExecExternalSemaphoresWaitNodeSetParams
    hipGraphExternalSemaphoresSignalNodeGetParams
    hipGraphExternalSemaphoresSignalNodeSetParams hipGraphExternalSemaphoresWaitNodeGetParams
    hipGraphExternalSemaphoresWaitNodeSetParams hipGraphicsGLRegisterBuffer
    hipGraphicsGLRegisterImage hipGraphicsMapResources hipGraphicsResourceGetMappedPointer
    hipGraphicsUnmapResources hipGraphicsUnregisterResource hipImportExternalMemory
    hipImportExternalSemaphore hipIpcCloseMemHandle hipIpcGetEventHandle hipIpcGetMemHandle
    hipIpcOpenEventHandle hipIpcOpenMemHandle hipMemPoolExportPointer
    hipMemPoolExportToShareableHandle hipMemPoolImportFromShareableHandle
    hipMemPoolImportPointer hipSignalExternalSemaphoresAsync hipWaitExternalSemaphoresAsync
}

// Nodes of graphs, objects that belong to graphs.
missing! {
    hipDeviceGetGraphMemAttribute hipDeviceGraphMemTrim hipDeviceSetGraphMemAttribute
    hipDrvGraphAddMemFreeNode hipDrvGraphExecMemcpyNodeSetParams
    hipDrvGraphExecMemsetNodeSetParams hipDrvGraphMemcpyNodeGetParams
    hipDrvGraphMemcpyNodeSetParams hipGraphAddBatchMemOpNode hipGraphAddMemAllocNode
    hipGraphAddMemFreeNode hipGraphBatchMemOpNodeGetParams hipGraphBatchMemOpNodeSetParams
    hipGraphExecBatchMemOpNodeSetParams hipGraphKernelNodeCopyAttributes
    hipGraphKernelNodeGetAttribute hipGraphKernelNodeSetAttribute
    hipGraphMemAllocNodeGetParams hipGraphMemFreeNodeGetParams hipGraphReleaseUserObject
    hipGraphRetainUserObject hipUserObjectCreate hipUserObjectRelease hipUserObjectRetain
}

// Profilers.
missing! {
    hipEnableActivityCallback hipExtDisableLogging hipExtEnableLogging hipExtSetLoggingParams
    hipRegisterActivityCallback hipRegisterApiCallback hipRegisterTracerCallback
    hipRemoveActivityCallback hipRemoveApiCallback
}

// Linking, and code as libraries.
missing! {
    hipKernelGetAttribute hipKernelGetFunction hipKernelGetLibrary hipKernelGetName
    hipKernelGetParamInfo hipKernelSetAttribute hipLibraryEnumerateKernels hipLibraryGetKernel
    hipLibraryGetKernelCount hipLibraryLoadData hipLibraryLoadFromFile hipLibraryUnload
    hipLinkAddData hipLinkAddFile hipLinkComplete hipLinkCreate hipLinkDestroy
}

// The rest.
missing! {
    hipDrvLaunchKernelEx hipGetDriverEntryPoint hipGetDriverEntryPoint_spt
    hipGetProcAddress_spt hipLaunchCooperativeKernelMultiDevice hipLaunchKernelExC
    hipMemAdvise_v2 hipMemGetMemPool hipMemPrefetchAsync_v2 hipMemPrefetchBatchAsync
    hipMemSetMemPool hipMemcpy3DBatchAsync hipMemcpy3DPeer hipMemcpy3DPeerAsync
    hipMemcpyBatchAsync
    hipModuleLaunchCooperativeKernelMultiDevice
    hipStreamBatchMemOp hipStreamCopyAttributes hipStreamGetAttribute hipStreamSetAttribute
}

/// Prepares callbacks for profilers, of which there are none.
#[unsafe(no_mangle)]
pub extern "C" fn hipInitActivityCallback() {
    let _ = not_supported("hipInitActivityCallback");
}

macro_rules! missing_cpp {
    ($($name:ident = $mangled:literal;)*) => {$(
        #[doc = concat!("`", stringify!($name), "` is not supported; it is exported as C++.")]
        #[unsafe(export_name = $mangled)]
        pub extern "C" fn $name() -> HipError {
            not_supported(stringify!($name))
        }
    )*};
}

missing_cpp! {
    hipCreateSurfaceObject = "_Z22hipCreateSurfaceObjectPP13__hip_surfacePK15hipResourceDesc";
    hipDestroySurfaceObject = "_Z23hipDestroySurfaceObjectP13__hip_surface";
}
