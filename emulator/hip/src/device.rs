//! Devices: how many there are, what they say about themselves, settings, peers.

use std::sync::atomic::Ordering;

use crate::abi::Abi;
use crate::board;
use crate::error::{HipError, Result};
use crate::ffi::{List, Place, Room, Text, api, given};
use crate::handle::lock;
use crate::runtime::{Device, Runtime, current_ordinal, runtime, set_current};
use crate::stream;
use crate::types::{DeviceProp5, DeviceProp6, Uuid, flag};

/// Work-items of a workgroup.
const MAX_THREADS: i32 = 1024;
/// Work-items that a multiprocessor holds: 2048 on every GPU here.
const THREADS_PER_MULTIPROCESSOR: i32 = 2048;
/// Registers of a multiprocessor, as ROCm reports them on every GPU here.
const REGISTERS: i32 = 65536;
/// Most workgroups in y and in z.
pub const MAX_GRID_YZ: u32 = 65536;
/// Alignment of rows in pitched allocations.
pub const PITCH_ALIGNMENT: usize = 256;
/// Alignment of allocations.
const MEMORY_ALIGNMENT: usize = 256;
/// The devices' PCI buses are numbered from here.
const FIRST_BUS: i32 = 3;
/// Clock of `wall_clock64()` in kHz.
const WALL_CLOCK: i32 = 100_000;

fn text<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    let length = text.len().min(N - 1);
    bytes[..length].copy_from_slice(&text.as_bytes()[..length]);
    bytes
}

/// `hipDeviceArch_t`: which of the features of early GPUs there are, in the order of its bits.
fn arch_bits() -> u32 {
    let features = [
        true,  // 32-bit integer atomics in global memory
        true,  // float exchange in global memory
        true,  // 32-bit integer atomics in LDS
        true,  // float exchange in LDS
        true,  // float addition
        true,  // 64-bit integer atomics in global memory
        true,  // 64-bit integer atomics in LDS
        true,  // doubles
        true,  // votes
        true,  // ballots
        true,  // shuffles
        false, // funnel shift
        true,  // fences to the system
        false, // __syncthreads_count and its like
        false, // surfaces
        true,  // three-dimensional grids
        false, // launches from kernels
    ];
    features.iter().enumerate().fold(0, |bits, (at, set)| bits | u32::from(*set) << at)
}

fn uuid(device: &Device) -> Uuid {
    let mut uuid = *b"GPU-emulated\0\0\0\0";
    uuid[12..].copy_from_slice(&(device.ordinal as u32).to_be_bytes());
    uuid
}

fn bus(device: &Device) -> i32 {
    FIRST_BUS + device.ordinal as i32
}

/// Properties in HIP 6's form; HIP 5's are taken from it.
pub fn properties(runtime: &Runtime, device: &Device) -> DeviceProp6 {
    let (chip, board) = (runtime.chip, &runtime.board);
    let [major, minor, _] = board::version(chip);
    let lds = chip.lds_bytes() as usize;
    let shares_memory = i32::from(board.integrated);
    DeviceProp6 {
        name: text(board.name),
        uuid: uuid(device),
        luid: [0; 8],
        luid_device_node_mask: 0,
        total_global_mem: device.total as usize,
        shared_mem_per_block: lds,
        regs_per_block: REGISTERS,
        warp_size: board::warp_size(chip) as i32,
        mem_pitch: i32::MAX as usize,
        max_threads_per_block: MAX_THREADS,
        max_threads_dim: [MAX_THREADS; 3],
        max_grid_size: [i32::MAX, MAX_GRID_YZ as i32, MAX_GRID_YZ as i32],
        clock_rate: board.clock,
        total_const_mem: i32::MAX as usize,
        major,
        minor,
        texture_alignment: MEMORY_ALIGNMENT,
        texture_pitch_alignment: PITCH_ALIGNMENT,
        device_overlap: 1,
        multi_processor_count: board::multiprocessors(chip) as i32,
        kernel_exec_timeout_enabled: 0,
        integrated: shares_memory,
        can_map_host_memory: 1,
        compute_mode: 0,
        // There are no textures.
        max_texture_1d: 0,
        max_texture_1d_mipmap: 0,
        max_texture_1d_linear: 0,
        max_texture_2d: [0; 2],
        max_texture_2d_mipmap: [0; 2],
        max_texture_2d_linear: [0; 3],
        max_texture_2d_gather: [0; 2],
        max_texture_3d: [0; 3],
        max_texture_3d_alt: [0; 3],
        max_texture_cubemap: 0,
        max_texture_1d_layered: [0; 2],
        max_texture_2d_layered: [0; 3],
        max_texture_cubemap_layered: [0; 2],
        max_surface_1d: 0,
        max_surface_2d: [0; 2],
        max_surface_3d: [0; 3],
        max_surface_1d_layered: [0; 2],
        max_surface_2d_layered: [0; 3],
        max_surface_cubemap: 0,
        max_surface_cubemap_layered: [0; 2],
        surface_alignment: MEMORY_ALIGNMENT,
        concurrent_kernels: 1,
        ecc_enabled: i32::from(board.ecc),
        pci_bus_id: bus(device),
        pci_device_id: 0,
        pci_domain_id: 0,
        tcc_driver: 0,
        async_engine_count: 2,
        unified_addressing: 1,
        memory_clock_rate: board.memory_clock,
        memory_bus_width: board.bus_bits,
        l2_cache_size: board.l2_bytes,
        persisting_l2_cache_max_size: board.l2_bytes,
        max_threads_per_multi_processor: THREADS_PER_MULTIPROCESSOR,
        stream_priorities_supported: 1,
        global_l1_cache_supported: 1,
        local_l1_cache_supported: 1,
        shared_mem_per_multiprocessor: lds * board::multiprocessors(chip) as usize,
        regs_per_multiprocessor: REGISTERS,
        managed_memory: 1,
        is_multi_gpu_board: 0,
        multi_gpu_board_group_id: 0,
        host_native_atomic_supported: 1,
        single_to_double_precision_perf_ratio: 0,
        // Memory of the host must be registered, as on a card without XNACK.
        pageable_memory_access: 0,
        concurrent_managed_access: 1,
        compute_preemption_supported: 0,
        can_use_host_pointer_for_registered_mem: 1,
        cooperative_launch: 1,
        cooperative_multi_device_launch: 0,
        shared_mem_per_block_optin: lds,
        pageable_memory_access_uses_host_page_tables: 0,
        direct_managed_mem_access_from_host: 1,
        max_blocks_per_multi_processor: THREADS_PER_MULTIPROCESSOR / MAX_THREADS,
        access_policy_max_window_size: 0,
        reserved_shared_mem_per_block: 0,
        host_register_supported: 1,
        sparse_hip_array_supported: 0,
        host_register_read_only_supported: 0,
        timeline_semaphore_interop_supported: 0,
        memory_pools_supported: 1,
        gpu_direct_rdma_supported: 0,
        gpu_direct_rdma_flush_writes_options: 0,
        gpu_direct_rdma_writes_ordering: 0,
        memory_pool_supported_handle_types: 0,
        deferred_mapping_hip_array_supported: 0,
        ipc_event_supported: 0,
        cluster_launch: 0,
        unified_function_pointers: 0,
        reserved: [0; 63],
        hip_reserved: [0; 32],
        gcn_arch_name: text(board.target),
        max_shared_memory_per_multi_processor: lds,
        clock_instruction_rate: WALL_CLOCK,
        arch: arch_bits(),
        hdp_mem_flush_cntl: 0,
        hdp_reg_flush_cntl: 0,
        cooperative_multi_device_unmatched_func: 0,
        cooperative_multi_device_unmatched_grid_dim: 0,
        cooperative_multi_device_unmatched_block_dim: 0,
        cooperative_multi_device_unmatched_shared_mem: 0,
        is_large_bar: 1,
        asic_revision: 0,
    }
}

/// The processor as a decimal number: 942, and 910 for gfx90a.
fn gcn_arch(runtime: &Runtime) -> i32 {
    let [major, minor, stepping] = board::version(runtime.chip);
    major * 100 + minor * 10 + stepping
}

fn properties5(runtime: &Runtime, device: &Device) -> DeviceProp5 {
    let p = properties(runtime, device);
    DeviceProp5 {
        name: p.name,
        total_global_mem: p.total_global_mem,
        shared_mem_per_block: p.shared_mem_per_block,
        regs_per_block: p.regs_per_block,
        warp_size: p.warp_size,
        max_threads_per_block: p.max_threads_per_block,
        max_threads_dim: p.max_threads_dim,
        max_grid_size: p.max_grid_size,
        clock_rate: p.clock_rate,
        memory_clock_rate: p.memory_clock_rate,
        memory_bus_width: p.memory_bus_width,
        total_const_mem: p.total_const_mem,
        major: p.major,
        minor: p.minor,
        multi_processor_count: p.multi_processor_count,
        l2_cache_size: p.l2_cache_size,
        max_threads_per_multi_processor: p.max_threads_per_multi_processor,
        compute_mode: p.compute_mode,
        clock_instruction_rate: p.clock_instruction_rate,
        arch: p.arch,
        concurrent_kernels: p.concurrent_kernels,
        pci_domain_id: p.pci_domain_id,
        pci_bus_id: p.pci_bus_id,
        pci_device_id: p.pci_device_id,
        max_shared_memory_per_multi_processor: p.max_shared_memory_per_multi_processor,
        is_multi_gpu_board: p.is_multi_gpu_board,
        can_map_host_memory: p.can_map_host_memory,
        gcn_arch: gcn_arch(runtime),
        gcn_arch_name: p.gcn_arch_name,
        integrated: p.integrated,
        cooperative_launch: p.cooperative_launch,
        cooperative_multi_device_launch: p.cooperative_multi_device_launch,
        max_texture_1d_linear: p.max_texture_1d_linear,
        max_texture_1d: p.max_texture_1d,
        max_texture_2d: p.max_texture_2d,
        max_texture_3d: p.max_texture_3d,
        hdp_mem_flush_cntl: p.hdp_mem_flush_cntl,
        hdp_reg_flush_cntl: p.hdp_reg_flush_cntl,
        mem_pitch: p.mem_pitch,
        texture_alignment: p.texture_alignment,
        texture_pitch_alignment: p.texture_pitch_alignment,
        kernel_exec_timeout_enabled: p.kernel_exec_timeout_enabled,
        ecc_enabled: p.ecc_enabled,
        tcc_driver: p.tcc_driver,
        cooperative_multi_device_unmatched_func: p.cooperative_multi_device_unmatched_func,
        cooperative_multi_device_unmatched_grid_dim: p.cooperative_multi_device_unmatched_grid_dim,
        cooperative_multi_device_unmatched_block_dim: p
            .cooperative_multi_device_unmatched_block_dim,
        cooperative_multi_device_unmatched_shared_mem: p
            .cooperative_multi_device_unmatched_shared_mem,
        is_large_bar: p.is_large_bar,
        asic_revision: p.asic_revision,
        managed_memory: p.managed_memory,
        direct_managed_mem_access_from_host: p.direct_managed_mem_access_from_host,
        concurrent_managed_access: p.concurrent_managed_access,
        pageable_memory_access: p.pageable_memory_access,
        pageable_memory_access_uses_host_page_tables: p
            .pageable_memory_access_uses_host_page_tables,
    }
}

/// `hipDeviceGetAttribute`; numbers are those of HIP 5.2 to 6.2, which agree.
fn attribute(runtime: &Runtime, device: &Device, attribute: u32) -> Result<i32> {
    let p = properties(runtime, device);
    let cut = |value: usize| value.min(i32::MAX as usize) as i32;
    Ok(match attribute {
        0 => p.ecc_enabled,
        1 => p.access_policy_max_window_size,
        2 => p.async_engine_count,
        3 => p.can_map_host_memory,
        4 => p.can_use_host_pointer_for_registered_mem,
        5 => p.clock_rate,
        6 => p.compute_mode,
        7 => p.compute_preemption_supported,
        8 => p.concurrent_kernels,
        9 => p.concurrent_managed_access,
        10 => p.cooperative_launch,
        11 => p.cooperative_multi_device_launch,
        12 => p.device_overlap,
        13 => p.direct_managed_mem_access_from_host,
        14 => p.global_l1_cache_supported,
        15 => p.host_native_atomic_supported,
        16 => p.integrated,
        17 => p.is_multi_gpu_board,
        18 => p.kernel_exec_timeout_enabled,
        19 => p.l2_cache_size,
        20 => p.local_l1_cache_supported,
        22 => p.luid_device_node_mask as i32,
        23 => p.major,
        24 => p.managed_memory,
        25 => p.max_blocks_per_multi_processor,
        26..=28 => p.max_threads_dim[attribute as usize - 26],
        29..=31 => p.max_grid_size[attribute as usize - 29],
        // Textures and surfaces, of which there are none.
        32..=54 => 0,
        55 | 56 => p.max_threads_per_block,
        57 => p.max_threads_per_multi_processor,
        58 => cut(p.mem_pitch),
        59 => p.memory_bus_width,
        60 => p.memory_clock_rate,
        61 => p.minor,
        62 => p.multi_gpu_board_group_id,
        63 => p.multi_processor_count,
        65 => p.pageable_memory_access,
        66 => p.pageable_memory_access_uses_host_page_tables,
        67 => p.pci_bus_id,
        68 => p.pci_device_id,
        69 => p.pci_domain_id,
        70 => p.persisting_l2_cache_max_size,
        71 => p.regs_per_block,
        72 => p.regs_per_multiprocessor,
        73 => cut(p.reserved_shared_mem_per_block),
        74 => cut(p.shared_mem_per_block),
        75 => cut(p.shared_mem_per_block_optin),
        76 => cut(p.shared_mem_per_multiprocessor),
        77 => p.single_to_double_precision_perf_ratio,
        78 => p.stream_priorities_supported,
        79 => cut(p.surface_alignment),
        80 => p.tcc_driver,
        81 => cut(p.texture_alignment),
        82 => cut(p.texture_pitch_alignment),
        83 => cut(p.total_const_mem),
        84 => cut(p.total_global_mem),
        85 => p.unified_addressing,
        87 => p.warp_size,
        88 => p.memory_pools_supported,
        89 => 0, // mapping of virtual memory
        90 => p.host_register_supported,
        91 => p.memory_pool_supported_handle_types as i32,
        92 => 0, // NUMA node of the host
        10000 => p.clock_instruction_rate,
        10001 => p.arch as i32,
        10002 => cut(p.max_shared_memory_per_multi_processor),
        10003 => gcn_arch(runtime),
        10007..=10010 => 0, // cooperation of several devices
        10011 => p.is_large_bar,
        10012 => p.asic_revision,
        10013 => 1, // hipStreamWaitValue
        10014 => 0, // images
        10015 => p.multi_processor_count,
        10016 => 1, // fine-grained memory
        10017 => WALL_CLOCK,
        10018 => runtime.board.xccs,
        10019 => {
            if runtime.chip.is_cdna() {
                512
            } else {
                256
            }
        }
        _ => return Err(HipError::INVALID_VALUE),
    })
}

/// Whether `found` has at least what `wanted` asks for; zero asks for nothing.
fn satisfies(found: &DeviceProp5, wanted: &DeviceProp5) -> bool {
    found.total_global_mem >= wanted.total_global_mem
        && found.shared_mem_per_block >= wanted.shared_mem_per_block
        && found.max_threads_per_block >= wanted.max_threads_per_block
        && found.multi_processor_count >= wanted.multi_processor_count
        && (found.major, found.minor) >= (wanted.major, wanted.minor)
}

api! {
    /// Starts the runtime, as every other function does by itself.
    fn hipInit(flags: u32) {
        if flags != 0 {
            return Err(HipError::INVALID_VALUE);
        }
        runtime().map(|_| ())
    }

    /// Version of the driver.
    fn hipDriverGetVersion(version: Option<&mut i32>) {
        version.put(Abi::current().version())
    }

    /// Version of the runtime.
    fn hipRuntimeGetVersion(version: Option<&mut i32>) {
        version.put(Abi::current().version())
    }

    /// Number of devices.
    fn hipGetDeviceCount(count: Option<&mut i32>) {
        let count = given(count)?;
        *count = 0;
        *count = runtime()?.devices.len() as i32;
        Ok(())
    }

    /// The device of a number.
    fn hipDeviceGet(device: Option<&mut i32>, ordinal: i32) {
        runtime()?.device(ordinal)?;
        device.put(ordinal)
    }

    /// Chooses the calling thread's device.
    fn hipSetDevice(device: i32) {
        set_current(runtime()?.device(device)?.ordinal);
        Ok(())
    }

    /// The calling thread's device.
    fn hipGetDevice(device: Option<&mut i32>) {
        runtime()?;
        device.put(current_ordinal() as i32)
    }

    /// Restricts and orders the devices that are tried; every one is as good as another.
    fn hipSetValidDevices(devices: List<i32>, count: i32) {
        let runtime = runtime()?;
        let count = usize::try_from(count).map_err(|_| HipError::INVALID_VALUE)?;
        for index in 0..count {
            runtime.device(devices.get(index)?)?;
        }
        Ok(())
    }

    /// Name of a device.
    fn hipDeviceGetName(name: Room<u8>, length: i32, device: i32) {
        let runtime = runtime()?;
        runtime.device(device)?;
        put_text(name, length, runtime.board.name)
    }

    /// UUID of a device.
    fn hipDeviceGetUuid(place: Option<&mut Uuid>, device: i32) {
        place.put(uuid(runtime()?.device(device)?))
    }

    /// Version of the graphics core.
    fn hipDeviceComputeCapability(
        major: Option<&mut i32>,
        minor: Option<&mut i32>,
        device: i32,
    ) {
        let runtime = runtime()?;
        runtime.device(device)?;
        let [first, second, _] = board::version(runtime.chip);
        major.put(first)?;
        minor.put(second)
    }

    /// Bytes of memory of a device.
    fn hipDeviceTotalMem(bytes: Option<&mut usize>, device: i32) {
        bytes.put(runtime()?.device(device)?.total as usize)
    }

    /// PCI address of a device.
    fn hipDeviceGetPCIBusId(place: Room<u8>, length: i32, device: i32) {
        let id = format!("0000:{:02x}:00.0", bus(runtime()?.device(device)?));
        put_text(place, length, &id)
    }

    /// The device at a PCI address.
    fn hipDeviceGetByPCIBusId(device: Option<&mut i32>, address: Text) {
        let address = address.read()?.to_ascii_lowercase();
        let runtime = runtime()?;
        let found = runtime.devices.iter().find(|device| {
            let short = format!("{:02x}:00.0", bus(device));
            address == short || address == format!("0000:{short}")
        });
        device.put(found.ok_or(HipError::INVALID_VALUE)?.ordinal as i32)
    }

    /// One property of a device.
    fn hipDeviceGetAttribute(value: Option<&mut i32>, number: u32, device: i32) {
        let value = given(value)?;
        let runtime = runtime()?;
        *value = attribute(runtime, runtime.device(device)?, number)?;
        Ok(())
    }

    /// All properties of a device, in HIP 5's form.
    fn hipGetDeviceProperties(place: Option<&mut DeviceProp5>, device: i32) {
        let place = given(place)?;
        let runtime = runtime()?;
        *place = properties5(runtime, runtime.device(device)?);
        Ok(())
    }

    /// All properties of a device, in HIP 5's form.
    fn hipGetDevicePropertiesR0000(place: Option<&mut DeviceProp5>, device: i32) {
        let place = given(place)?;
        let runtime = runtime()?;
        *place = properties5(runtime, runtime.device(device)?);
        Ok(())
    }

    /// All properties of a device, in HIP 6's form.
    fn hipGetDevicePropertiesR0600(place: Option<&mut DeviceProp6>, device: i32) {
        let place = given(place)?;
        let runtime = runtime()?;
        *place = properties(runtime, runtime.device(device)?);
        Ok(())
    }

    /// A device that has what is asked for.
    fn hipChooseDevice(device: Option<&mut i32>, wanted: Option<&DeviceProp5>) {
        let wanted = given(wanted)?;
        let runtime = runtime()?;
        let found = properties5(runtime, runtime.device(0)?);
        device.put(if satisfies(&found, wanted) { 0 } else { -1 })
    }

    /// A device that has what is asked for, in HIP 5's form.
    fn hipChooseDeviceR0000(device: Option<&mut i32>, wanted: Option<&DeviceProp5>) {
        let wanted = given(wanted)?;
        let runtime = runtime()?;
        let found = properties5(runtime, runtime.device(0)?);
        device.put(if satisfies(&found, wanted) { 0 } else { -1 })
    }

    /// A device that has what is asked for, in HIP 6's form.
    fn hipChooseDeviceR0600(device: Option<&mut i32>, wanted: Option<&DeviceProp6>) {
        let wanted = given(wanted)?;
        let runtime = runtime()?;
        let found = properties(runtime, runtime.device(0)?);
        let good = found.total_global_mem >= wanted.total_global_mem
            && found.shared_mem_per_block >= wanted.shared_mem_per_block
            && found.max_threads_per_block >= wanted.max_threads_per_block
            && found.multi_processor_count >= wanted.multi_processor_count
            && (found.major, found.minor) >= (wanted.major, wanted.minor);
        device.put(if good { 0 } else { -1 })
    }

    /// Waits until the calling thread's device has nothing to do.
    fn hipDeviceSynchronize() {
        let runtime = runtime()?;
        runtime.captures.forbid_synchronization()?;
        stream::synchronize_device(runtime.current())
    }

    /// Gives everything on the calling thread's device back and forgets its faults.
    fn hipDeviceReset() {
        let runtime = runtime()?;
        let device = runtime.current();
        // An error of the work that is waited for is what the reset is for.
        let _ = stream::synchronize_device(device);
        let ordinal = device.ordinal;
        runtime.streams.remove_if(|stream| stream.device == ordinal);
        crate::memory::release_device(runtime, device);
        *lock(&device.fault) = None;
        device.flags.store(0, Ordering::Relaxed);
        lock(&device.peers).clear();
        Ok(())
    }

    /// Chooses how the host waits; it always sleeps.
    fn hipSetDeviceFlags(flags: u32) {
        let schedule = flags & flag::DEVICE_SCHEDULE_MASK;
        let all = flag::DEVICE_SCHEDULE_MASK
            | flag::DEVICE_MAP_HOST
            | flag::DEVICE_LMEM_RESIZE_TO_MAX;
        if flags & !all != 0 || !(schedule == 0 || schedule.is_power_of_two()) {
            return Err(HipError::INVALID_VALUE);
        }
        runtime()?.current().flags.store(flags, Ordering::Relaxed);
        Ok(())
    }

    /// Gives what was chosen.
    fn hipGetDeviceFlags(flags: Option<&mut u32>) {
        flags.put(runtime()?.current().flags.load(Ordering::Relaxed))
    }

    /// A preference between L1 and LDS, which are separate.
    fn hipDeviceSetCacheConfig(config: u32) {
        runtime()?;
        if config > 3 { Err(HipError::INVALID_VALUE) } else { Ok(()) }
    }

    /// The preference between L1 and LDS: none.
    fn hipDeviceGetCacheConfig(config: Option<&mut u32>) {
        config.put(0)
    }

    /// Width of LDS banks, which is fixed.
    fn hipDeviceSetSharedMemConfig(config: u32) {
        runtime()?;
        if config > 2 { Err(HipError::INVALID_VALUE) } else { Ok(()) }
    }

    /// Width of LDS banks: four bytes.
    fn hipDeviceGetSharedMemConfig(config: Option<&mut u32>) {
        config.put(1)
    }

    /// A limit: 0 stack, 1 buffer of `printf`, 2 heap of device code, of which only the first is
    /// there.
    fn hipDeviceGetLimit(value: Option<&mut usize>, limit: u32) {
        let value = given(value)?;
        let device = runtime()?.current();
        match limit {
            0 => *value = device.stack_limit.load(Ordering::Relaxed) as usize,
            1 | 2 => return Err(HipError::UNSUPPORTED_LIMIT),
            _ => return Err(HipError::INVALID_VALUE),
        }
        Ok(())
    }

    /// Sets a limit.
    fn hipDeviceSetLimit(limit: u32, value: usize) {
        let device = runtime()?.current();
        match limit {
            0 => device.stack_limit.store(value as u64, Ordering::Relaxed),
            1 | 2 => return Err(HipError::UNSUPPORTED_LIMIT),
            _ => return Err(HipError::INVALID_VALUE),
        }
        Ok(())
    }

    /// Whether one device may access another's memory: yes, if they are two.
    fn hipDeviceCanAccessPeer(place: Option<&mut i32>, device: i32, peer: i32) {
        let place = given(place)?;
        let runtime = runtime()?;
        let (device, peer) = (runtime.device(device)?, runtime.device(peer)?);
        *place = i32::from(device.ordinal != peer.ordinal);
        Ok(())
    }

    /// Lets kernels of the calling thread's device access a peer's memory.
    fn hipDeviceEnablePeerAccess(peer: i32, flags: u32) {
        let runtime = runtime()?;
        let peer = runtime.device(peer)?.ordinal;
        let device = runtime.current();
        if flags != 0 || peer == device.ordinal {
            return Err(HipError::INVALID_VALUE);
        }
        let mut peers = lock(&device.peers);
        if peers.contains(&peer) {
            return Err(HipError::PEER_ACCESS_ALREADY_ENABLED);
        }
        peers.push(peer);
        Ok(())
    }

    /// Ends that.
    fn hipDeviceDisablePeerAccess(peer: i32) {
        let runtime = runtime()?;
        let peer = runtime.device(peer)?.ordinal;
        let mut peers = lock(&runtime.current().peers);
        let at = peers.iter().position(|other| *other == peer);
        peers.remove(at.ok_or(HipError::PEER_ACCESS_NOT_ENABLED)?);
        Ok(())
    }

    /// What a pair of devices can do: rank, access, atomics, arrays.
    fn hipDeviceGetP2PAttribute(
        value: Option<&mut i32>,
        attribute: u32,
        source: i32,
        destination: i32,
    ) {
        let value = given(value)?;
        let runtime = runtime()?;
        let (source, destination) = (runtime.device(source)?, runtime.device(destination)?);
        if source.ordinal == destination.ordinal {
            return Err(HipError::INVALID_DEVICE);
        }
        *value = match attribute {
            0 | 3 => 0,
            1 | 2 => 1,
            _ => return Err(HipError::INVALID_VALUE),
        };
        Ok(())
    }

    /// How two devices are connected: by Infinity Fabric (4) or PCIe (2), directly.
    fn hipExtGetLinkTypeAndHopCount(
        first: i32,
        second: i32,
        link: Option<&mut u32>,
        hops: Option<&mut u32>,
    ) {
        let runtime = runtime()?;
        let (first, second) = (runtime.device(first)?, runtime.device(second)?);
        if first.ordinal == second.ordinal {
            return Err(HipError::INVALID_VALUE);
        }
        link.put(if runtime.chip.is_cdna() { 4 } else { 2 })?;
        hops.put(1)
    }
}

/// Writes a string with its NUL into room for `length` bytes; an error if it was cut.
fn put_text(place: Room<u8>, length: i32, text: &str) -> Result {
    let length = usize::try_from(length).ok().filter(|length| *length > 0);
    let length = length.ok_or(HipError::INVALID_VALUE)?;
    let cut = text.len().min(length - 1);
    let mut bytes = text.as_bytes()[..cut].to_vec();
    bytes.push(0);
    place.write(&bytes)?;
    if cut < text.len() { Err(HipError::INVALID_VALUE) } else { Ok(()) }
}
