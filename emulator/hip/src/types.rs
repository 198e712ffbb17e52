//! What crosses the C boundary: structures and numbers of HIP's headers.
//!
//! Addresses are `usize`, on the host's side and on the device's: they are the same thing here, and
//! nothing is dereferenced before it was looked up.

use std::ffi::c_void;

/// An address of the host or of the device.
pub type Address = usize;

/// A handle: an index that looks like a pointer to the program.
pub type Handle = usize;

/// Three sizes.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dim3 {
    pub x: u32,
    pub y: u32,
    pub z: u32,
}

impl Dim3 {
    /// As an array, x first.
    pub fn array(self) -> [u32; 3] {
        [self.x, self.y, self.z]
    }

    /// From an array, x first.
    pub fn from_array([x, y, z]: [u32; 3]) -> Dim3 {
        Dim3 { x, y, z }
    }
}

/// `hipMemcpyKind`.
pub mod kind {
    pub const HOST_TO_HOST: u32 = 0;
    pub const HOST_TO_DEVICE: u32 = 1;
    pub const DEVICE_TO_HOST: u32 = 2;
    pub const DEVICE_TO_DEVICE: u32 = 3;
    pub const DEFAULT: u32 = 4;
    pub const DEVICE_TO_DEVICE_NO_CU: u32 = 1024;
}

/// Flags of streams, events, allocations and devices.
pub mod flag {
    pub const STREAM_NON_BLOCKING: u32 = 1;
    pub const EVENT_DISABLE_TIMING: u32 = 2;
    pub const EVENT_INTERPROCESS: u32 = 4;
    pub const EVENT_ALL: u32 = 0xe000_0007;
    pub const HOST_MALLOC_ALL: u32 = 0xe000_0007;
    pub const HOST_REGISTER_ALL: u32 = 0xf;
    pub const MEM_ATTACH_GLOBAL: u32 = 1;
    pub const MEM_ATTACH_HOST: u32 = 2;
    pub const MEM_ATTACH_SINGLE: u32 = 4;
    pub const DEVICE_SCHEDULE_MASK: u32 = 7;
    pub const DEVICE_MAP_HOST: u32 = 8;
    pub const DEVICE_LMEM_RESIZE_TO_MAX: u32 = 0x16;
}

/// `hipStreamLegacy`: the default stream that waits for every blocking one.
pub const STREAM_LEGACY: Handle = 1;
/// `hipStreamPerThread`: the default stream of the calling thread.
pub const STREAM_PER_THREAD: Handle = 2;

/// Marks in the `extra` argument of launches.
pub mod extra {
    pub const BUFFER_POINTER: usize = 1;
    pub const BUFFER_SIZE: usize = 2;
    pub const END: usize = 3;
}

/// `hipPitchedPtr`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PitchedPtr {
    pub ptr: Address,
    pub pitch: usize,
    pub xsize: usize,
    pub ysize: usize,
}

/// `hipExtent`: bytes, rows, slices.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extent {
    pub width: usize,
    pub height: usize,
    pub depth: usize,
}

/// `hipPos`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pos {
    pub x: usize,
    pub y: usize,
    pub z: usize,
}

/// `hipMemcpy3DParms`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memcpy3d {
    pub src_array: Address,
    pub src_pos: Pos,
    pub src: PitchedPtr,
    pub dst_array: Address,
    pub dst_pos: Pos,
    pub dst: PitchedPtr,
    pub extent: Extent,
    pub kind: u32,
}

/// `hip_Memcpy2D`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct DrvMemcpy2d {
    pub src_x_in_bytes: usize,
    pub src_y: usize,
    pub src_memory_type: u32,
    pub src_host: Address,
    pub src_device: Address,
    pub src_array: Address,
    pub src_pitch: usize,
    pub dst_x_in_bytes: usize,
    pub dst_y: usize,
    pub dst_memory_type: u32,
    pub dst_host: Address,
    pub dst_device: Address,
    pub dst_array: Address,
    pub dst_pitch: usize,
    pub width_in_bytes: usize,
    pub height: usize,
}

/// `HIP_MEMCPY3D`, whose sizes are 32 bits wide in HIP 5 (`N` = `u32`) and 64 since (`usize`).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct DrvMemcpy3d<N> {
    pub src_x_in_bytes: N,
    pub src_y: N,
    pub src_z: N,
    pub src_lod: N,
    pub src_memory_type: u32,
    pub src_host: Address,
    pub src_device: Address,
    pub src_array: Address,
    pub src_pitch: N,
    pub src_height: N,
    pub dst_x_in_bytes: N,
    pub dst_y: N,
    pub dst_z: N,
    pub dst_lod: N,
    pub dst_memory_type: u32,
    pub dst_host: Address,
    pub dst_device: Address,
    pub dst_array: Address,
    pub dst_pitch: N,
    pub dst_height: N,
    pub width_in_bytes: N,
    pub height: N,
    pub depth: N,
}

impl DrvMemcpy3d<u32> {
    /// The same with wide sizes.
    pub fn widen(self) -> DrvMemcpy3d<usize> {
        let wide = |value: u32| value as usize;
        DrvMemcpy3d {
            src_x_in_bytes: wide(self.src_x_in_bytes),
            src_y: wide(self.src_y),
            src_z: wide(self.src_z),
            src_lod: wide(self.src_lod),
            src_memory_type: self.src_memory_type,
            src_host: self.src_host,
            src_device: self.src_device,
            src_array: self.src_array,
            src_pitch: wide(self.src_pitch),
            src_height: wide(self.src_height),
            dst_x_in_bytes: wide(self.dst_x_in_bytes),
            dst_y: wide(self.dst_y),
            dst_z: wide(self.dst_z),
            dst_lod: wide(self.dst_lod),
            dst_memory_type: self.dst_memory_type,
            dst_host: self.dst_host,
            dst_device: self.dst_device,
            dst_array: self.dst_array,
            dst_pitch: wide(self.dst_pitch),
            dst_height: wide(self.dst_height),
            width_in_bytes: wide(self.width_in_bytes),
            height: wide(self.height),
            depth: wide(self.depth),
        }
    }
}

/// `hipPointerAttribute_t`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PointerAttributes {
    pub memory_type: u32,
    pub device: i32,
    pub device_pointer: Address,
    pub host_pointer: Address,
    pub is_managed: i32,
    pub allocation_flags: u32,
}

/// `hipFuncAttributes`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FuncAttributes {
    pub binary_version: i32,
    pub cache_mode_ca: i32,
    pub const_size_bytes: usize,
    pub local_size_bytes: usize,
    pub max_dynamic_shared_size_bytes: i32,
    pub max_threads_per_block: i32,
    pub num_regs: i32,
    pub preferred_shmem_carveout: i32,
    pub ptx_version: i32,
    pub shared_size_bytes: usize,
}

/// `hipKernelNodeParams`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct KernelNodeParams {
    pub block_dim: Dim3,
    pub extra: Address,
    pub func: Address,
    pub grid_dim: Dim3,
    pub kernel_params: Address,
    pub shared_mem_bytes: u32,
}

/// `hipMemsetParams`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemsetParams {
    pub dst: Address,
    pub element_size: u32,
    pub height: usize,
    pub pitch: usize,
    pub value: u32,
    pub width: usize,
}

/// `HIP_MEMSET_NODE_PARAMS`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DrvMemsetParams {
    pub dst: Address,
    pub pitch: usize,
    pub value: u32,
    pub element_size: u32,
    pub width: usize,
    pub height: usize,
}

/// `hipHostFn_t`.
pub type HostFn = extern "C" fn(*mut c_void);

/// `hipStreamCallback_t`; the second argument is a `hipError_t`.
pub type StreamCallback = extern "C" fn(Handle, i32, *mut c_void);

/// `hipHostNodeParams`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct HostNodeParams {
    pub function: Option<HostFn>,
    pub user_data: Address,
}

/// `hipLaunchParams`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct LaunchParams {
    pub func: Address,
    pub grid_dim: Dim3,
    pub block_dim: Dim3,
    pub args: Address,
    pub shared_mem: usize,
    pub stream: Handle,
}

/// `hipMemLocation`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct MemLocation {
    pub location_type: u32,
    pub id: i32,
}

/// `hipMemAccessDesc`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct MemAccessDesc {
    pub location: MemLocation,
    pub flags: u32,
}

/// `hipMemPoolProps`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct MemPoolProps {
    pub alloc_type: u32,
    pub handle_types: u32,
    pub location: MemLocation,
    pub win32_security_attributes: Address,
    pub reserved: [u8; 64],
}

/// `hipChannelFormatDesc`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelFormatDesc {
    pub x: i32,
    pub y: i32,
    pub z: i32,
    pub w: i32,
    pub kind: u32,
}

/// `hipUUID`.
pub type Uuid = [u8; 16];

/// `hipDeviceProp_t` of HIP 5, which `hipGetDeviceProperties` fills in every version.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct DeviceProp5 {
    pub name: [u8; 256],
    pub total_global_mem: usize,
    pub shared_mem_per_block: usize,
    pub regs_per_block: i32,
    pub warp_size: i32,
    pub max_threads_per_block: i32,
    pub max_threads_dim: [i32; 3],
    pub max_grid_size: [i32; 3],
    pub clock_rate: i32,
    pub memory_clock_rate: i32,
    pub memory_bus_width: i32,
    pub total_const_mem: usize,
    pub major: i32,
    pub minor: i32,
    pub multi_processor_count: i32,
    pub l2_cache_size: i32,
    pub max_threads_per_multi_processor: i32,
    pub compute_mode: i32,
    pub clock_instruction_rate: i32,
    pub arch: u32,
    pub concurrent_kernels: i32,
    pub pci_domain_id: i32,
    pub pci_bus_id: i32,
    pub pci_device_id: i32,
    pub max_shared_memory_per_multi_processor: usize,
    pub is_multi_gpu_board: i32,
    pub can_map_host_memory: i32,
    pub gcn_arch: i32,
    pub gcn_arch_name: [u8; 256],
    pub integrated: i32,
    pub cooperative_launch: i32,
    pub cooperative_multi_device_launch: i32,
    pub max_texture_1d_linear: i32,
    pub max_texture_1d: i32,
    pub max_texture_2d: [i32; 2],
    pub max_texture_3d: [i32; 3],
    pub hdp_mem_flush_cntl: Address,
    pub hdp_reg_flush_cntl: Address,
    pub mem_pitch: usize,
    pub texture_alignment: usize,
    pub texture_pitch_alignment: usize,
    pub kernel_exec_timeout_enabled: i32,
    pub ecc_enabled: i32,
    pub tcc_driver: i32,
    pub cooperative_multi_device_unmatched_func: i32,
    pub cooperative_multi_device_unmatched_grid_dim: i32,
    pub cooperative_multi_device_unmatched_block_dim: i32,
    pub cooperative_multi_device_unmatched_shared_mem: i32,
    pub is_large_bar: i32,
    pub asic_revision: i32,
    pub managed_memory: i32,
    pub direct_managed_mem_access_from_host: i32,
    pub concurrent_managed_access: i32,
    pub pageable_memory_access: i32,
    pub pageable_memory_access_uses_host_page_tables: i32,
}

/// `hipDeviceProp_t` since HIP 6 (`hipGetDevicePropertiesR0600`).
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct DeviceProp6 {
    pub name: [u8; 256],
    pub uuid: Uuid,
    pub luid: [u8; 8],
    pub luid_device_node_mask: u32,
    pub total_global_mem: usize,
    pub shared_mem_per_block: usize,
    pub regs_per_block: i32,
    pub warp_size: i32,
    pub mem_pitch: usize,
    pub max_threads_per_block: i32,
    pub max_threads_dim: [i32; 3],
    pub max_grid_size: [i32; 3],
    pub clock_rate: i32,
    pub total_const_mem: usize,
    pub major: i32,
    pub minor: i32,
    pub texture_alignment: usize,
    pub texture_pitch_alignment: usize,
    pub device_overlap: i32,
    pub multi_processor_count: i32,
    pub kernel_exec_timeout_enabled: i32,
    pub integrated: i32,
    pub can_map_host_memory: i32,
    pub compute_mode: i32,
    pub max_texture_1d: i32,
    pub max_texture_1d_mipmap: i32,
    pub max_texture_1d_linear: i32,
    pub max_texture_2d: [i32; 2],
    pub max_texture_2d_mipmap: [i32; 2],
    pub max_texture_2d_linear: [i32; 3],
    pub max_texture_2d_gather: [i32; 2],
    pub max_texture_3d: [i32; 3],
    pub max_texture_3d_alt: [i32; 3],
    pub max_texture_cubemap: i32,
    pub max_texture_1d_layered: [i32; 2],
    pub max_texture_2d_layered: [i32; 3],
    pub max_texture_cubemap_layered: [i32; 2],
    pub max_surface_1d: i32,
    pub max_surface_2d: [i32; 2],
    pub max_surface_3d: [i32; 3],
    pub max_surface_1d_layered: [i32; 2],
    pub max_surface_2d_layered: [i32; 3],
    pub max_surface_cubemap: i32,
    pub max_surface_cubemap_layered: [i32; 2],
    pub surface_alignment: usize,
    pub concurrent_kernels: i32,
    pub ecc_enabled: i32,
    pub pci_bus_id: i32,
    pub pci_device_id: i32,
    pub pci_domain_id: i32,
    pub tcc_driver: i32,
    pub async_engine_count: i32,
    pub unified_addressing: i32,
    pub memory_clock_rate: i32,
    pub memory_bus_width: i32,
    pub l2_cache_size: i32,
    pub persisting_l2_cache_max_size: i32,
    pub max_threads_per_multi_processor: i32,
    pub stream_priorities_supported: i32,
    pub global_l1_cache_supported: i32,
    pub local_l1_cache_supported: i32,
    pub shared_mem_per_multiprocessor: usize,
    pub regs_per_multiprocessor: i32,
    pub managed_memory: i32,
    pub is_multi_gpu_board: i32,
    pub multi_gpu_board_group_id: i32,
    pub host_native_atomic_supported: i32,
    pub single_to_double_precision_perf_ratio: i32,
    pub pageable_memory_access: i32,
    pub concurrent_managed_access: i32,
    pub compute_preemption_supported: i32,
    pub can_use_host_pointer_for_registered_mem: i32,
    pub cooperative_launch: i32,
    pub cooperative_multi_device_launch: i32,
    pub shared_mem_per_block_optin: usize,
    pub pageable_memory_access_uses_host_page_tables: i32,
    pub direct_managed_mem_access_from_host: i32,
    pub max_blocks_per_multi_processor: i32,
    pub access_policy_max_window_size: i32,
    pub reserved_shared_mem_per_block: usize,
    pub host_register_supported: i32,
    pub sparse_hip_array_supported: i32,
    pub host_register_read_only_supported: i32,
    pub timeline_semaphore_interop_supported: i32,
    pub memory_pools_supported: i32,
    pub gpu_direct_rdma_supported: i32,
    pub gpu_direct_rdma_flush_writes_options: u32,
    pub gpu_direct_rdma_writes_ordering: i32,
    pub memory_pool_supported_handle_types: u32,
    pub deferred_mapping_hip_array_supported: i32,
    pub ipc_event_supported: i32,
    pub cluster_launch: i32,
    pub unified_function_pointers: i32,
    pub reserved: [i32; 63],
    pub hip_reserved: [i32; 32],
    pub gcn_arch_name: [u8; 256],
    pub max_shared_memory_per_multi_processor: usize,
    pub clock_instruction_rate: i32,
    pub arch: u32,
    pub hdp_mem_flush_cntl: Address,
    pub hdp_reg_flush_cntl: Address,
    pub cooperative_multi_device_unmatched_func: i32,
    pub cooperative_multi_device_unmatched_grid_dim: i32,
    pub cooperative_multi_device_unmatched_block_dim: i32,
    pub cooperative_multi_device_unmatched_shared_mem: i32,
    pub is_large_bar: i32,
    pub asic_revision: i32,
}

/// Sizes and offsets that a C compiler gives for the headers of HIP 5.2 and 6.2.
#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::{offset_of, size_of};

    #[test]
    fn layouts_are_those_of_the_headers() {
        assert_eq!(size_of::<DeviceProp5>(), 792);
        assert_eq!(offset_of!(DeviceProp5, arch), 356);
        assert_eq!(offset_of!(DeviceProp5, gcn_arch_name), 396);
        assert_eq!(offset_of!(DeviceProp5, integrated), 652);
        assert_eq!(offset_of!(DeviceProp5, hdp_mem_flush_cntl), 696);
        assert_eq!(offset_of!(DeviceProp5, pageable_memory_access_uses_host_page_tables), 788);
        assert_eq!(size_of::<DeviceProp6>(), 1472);
        assert_eq!(offset_of!(DeviceProp6, total_global_mem), 288);
        assert_eq!(offset_of!(DeviceProp6, surface_alignment), 568);
        assert_eq!(offset_of!(DeviceProp6, shared_mem_per_multiprocessor), 640);
        assert_eq!(offset_of!(DeviceProp6, cooperative_launch), 688);
        assert_eq!(offset_of!(DeviceProp6, unified_function_pointers), 776);
        assert_eq!(offset_of!(DeviceProp6, gcn_arch_name), 1160);
        assert_eq!(offset_of!(DeviceProp6, asic_revision), 1468);
        assert_eq!(size_of::<FuncAttributes>(), 56);
        assert_eq!(size_of::<Memcpy3d>(), 160);
        assert_eq!(size_of::<DrvMemcpy2d>(), 128);
        assert_eq!(size_of::<DrvMemcpy3d<u32>>(), 128);
        assert_eq!(size_of::<DrvMemcpy3d<usize>>(), 184);
        assert_eq!(size_of::<KernelNodeParams>(), 64);
        assert_eq!(size_of::<MemsetParams>(), 48);
        assert_eq!(size_of::<PointerAttributes>(), 32);
        assert_eq!(size_of::<MemPoolProps>(), 88);
    }
}
