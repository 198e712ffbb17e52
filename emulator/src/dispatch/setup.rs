//! What a kernel finds when it starts: arguments in memory, and registers as the descriptor asks.
//!
//! Source: "Initial Kernel Execution State" and "Kernel Dispatch Packet" of LLVM's "User Guide for
//! AMDGPU Backend".

use std::sync::Arc;

use super::{Launch, Shared};
use crate::Chip;
use crate::memory::{Memory, PRIVATE_APERTURE, SHARED_APERTURE};
use crate::object::{Argument, Kernel};
use crate::wave::{AGPR, Group, Row, State, Wave, mode, scalar};

/// Bytes of a dispatch packet.
const PACKET_BYTES: usize = 64;
/// Alignment of the kernel-argument segment.
const KERNARG_ALIGNMENT: usize = 64;
/// Bytes of the part of a queue that kernels read.
const QUEUE_BYTES: usize = 128;
/// KERNEL_CODE_PROPERTIES: which user registers are set up, in this order.
mod property {
    pub const PRIVATE_SEGMENT_BUFFER: u32 = 0;
    pub const DISPATCH_PTR: u32 = 1;
    pub const QUEUE_PTR: u32 = 2;
    pub const KERNARG_SEGMENT_PTR: u32 = 3;
    pub const DISPATCH_ID: u32 = 4;
    pub const FLAT_SCRATCH_INIT: u32 = 5;
    pub const PRIVATE_SEGMENT_SIZE: u32 = 6;
}

/// The arguments, dispatch packet and queue of one launch, in device memory.
pub struct Arguments {
    memory: Arc<Memory>,
    /// Kernel arguments, 64-byte aligned.
    kernarg: u64,
    bytes: Vec<u8>,
    packet: u64,
    queue: u64,
}

impl Arguments {
    /// Puts the arguments into memory; `None` if there is none left.
    pub fn new(
        kernel: &Kernel,
        launch: &Launch,
        kernarg: &[u8],
        memory: &Arc<Memory>,
    ) -> Option<Arguments> {
        let mut bytes = kernarg.to_vec();
        // Compilers widen scalar loads of arguments up to the alignment of the segment.
        let size = bytes.len().max(kernel.kernarg_size as usize);
        bytes.resize(size.next_multiple_of(KERNARG_ALIGNMENT), 0);
        let allocate = |size: usize, name| memory.allocate(size as u64, name);
        let mut arguments = Arguments {
            memory: memory.clone(),
            kernarg: allocate(bytes.len(), "kernel arguments")?,
            bytes,
            packet: allocate(PACKET_BYTES, "dispatch packet")?,
            queue: allocate(QUEUE_BYTES, "queue")?,
        };
        for argument in kernel.arguments.iter().filter(|argument| argument.is_hidden()) {
            arguments.fill_hidden(argument, launch);
        }
        memory.write(arguments.kernarg, &arguments.bytes).ok()?;
        memory.write(arguments.packet, &arguments.packet_bytes(kernel, launch)).ok()?;
        memory.write(arguments.queue, &queue_bytes()).ok()?;
        Some(arguments)
    }

    fn fill_hidden(&mut self, argument: &Argument, launch: &Launch) {
        let items = launch.work_items();
        let remainder = |axis: usize| items[axis] % u64::from(launch.block[axis].max(1));
        let full = |axis: usize| items[axis] / u64::from(launch.block[axis].max(1));
        let dimensions = match (launch.grid, launch.block) {
            ([_, 1, 1], [_, 1, 1]) => 1,
            ([_, _, 1], [_, _, 1]) => 2,
            _ => 3,
        };
        let value = match argument.kind.as_str() {
            "hidden_block_count_x" => full(0),
            "hidden_block_count_y" => full(1),
            "hidden_block_count_z" => full(2),
            "hidden_group_size_x" => u64::from(launch.block[0]),
            "hidden_group_size_y" => u64::from(launch.block[1]),
            "hidden_group_size_z" => u64::from(launch.block[2]),
            "hidden_remainder_x" => remainder(0),
            "hidden_remainder_y" => remainder(1),
            "hidden_remainder_z" => remainder(2),
            "hidden_grid_dims" => dimensions,
            "hidden_dynamic_lds_size" => u64::from(launch.dynamic_lds),
            "hidden_private_base" => PRIVATE_APERTURE >> 32,
            "hidden_shared_base" => SHARED_APERTURE >> 32,
            "hidden_queue_ptr" => self.queue,
            // Offsets, and pointers to services that are not there: null.
            _ => 0,
        };
        let at = argument.offset as usize;
        let size = (argument.size as usize).min(8);
        if let Some(place) = at.checked_add(size).and_then(|end| self.bytes.get_mut(at..end)) {
            place.copy_from_slice(&value.to_le_bytes()[..size]);
        }
    }

    fn packet_bytes(&self, kernel: &Kernel, launch: &Launch) -> [u8; PACKET_BYTES] {
        let mut packet = [0; PACKET_BYTES];
        let mut put = |at: usize, bytes: &[u8]| packet[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &2_u16.to_le_bytes());
        put(2, &3_u16.to_le_bytes());
        for axis in 0..3 {
            put(4 + 2 * axis, &(launch.block[axis] as u16).to_le_bytes());
            put(12 + 4 * axis, &(launch.work_items()[axis] as u32).to_le_bytes());
        }
        put(24, &kernel.scratch_bytes.to_le_bytes());
        put(28, &kernel.lds_bytes.wrapping_add(launch.dynamic_lds).to_le_bytes());
        put(32, &kernel.descriptor_address.to_le_bytes());
        put(40, &self.kernarg.to_le_bytes());
        packet
    }
}

impl Drop for Arguments {
    fn drop(&mut self) {
        for base in [self.kernarg, self.packet, self.queue] {
            self.memory.free(base);
        }
    }
}

/// `amd_queue_t`, of which kernels read the apertures.
fn queue_bytes() -> [u8; QUEUE_BYTES] {
    let mut queue = [0; QUEUE_BYTES];
    queue[64..68].copy_from_slice(&((SHARED_APERTURE >> 32) as u32).to_le_bytes());
    queue[68..72].copy_from_slice(&((PRIVATE_APERTURE >> 32) as u32).to_le_bytes());
    queue
}

/// A workgroup and its waves, ready to run.
pub fn workgroup(shared: &Shared<'_>, id: [u32; 3], spare: &mut Vec<Wave>) -> (Group, Vec<Wave>) {
    let (kernel, launch) = (shared.kernel, &shared.launch);
    let items = launch.work_items();
    let block: [u32; 3] = std::array::from_fn(|axis| {
        let before = u64::from(id[axis]) * u64::from(launch.block[axis]);
        items[axis].saturating_sub(before).min(u64::from(launch.block[axis])) as u32
    });
    let size = block.iter().product::<u32>();
    let count = size.div_ceil(kernel.lanes);
    let lds = kernel.lds_bytes as usize + launch.dynamic_lds as usize;
    let group = Group::new(kernel.chip, lds, shared.memory.clone(), id, count);
    let waves = (0..count)
        .map(|number| {
            let mut wave = spare.pop().unwrap_or_else(|| Wave::new(0, kernel.lanes));
            reset(&mut wave, number, kernel);
            set_exec(&mut wave, number, size);
            set_scalars(&mut wave, shared, id);
            set_work_items(&mut wave, number, block, kernel);
            wave
        })
        .collect();
    (group, waves)
}

/// Clears what the kernel can see, so that results do not depend on what ran before.
fn reset(wave: &mut Wave, number: u32, kernel: &Kernel) {
    let used = (kernel.vgprs as usize).min(AGPR);
    wave.rows[..used].fill(Row::ZERO);
    let accumulators = (kernel.agprs as usize).min(AGPR);
    wave.rows[AGPR..AGPR + accumulators].fill(Row::ZERO);
    wave.sgpr = [0; scalar::COUNT];
    wave.scc = false;
    wave.state = State::Running;
    wave.phase = 0;
    wave.id = number;
    wave.lanes = kernel.lanes;
    wave.mode = initial_mode(kernel);
    wave.scratch_stride = kernel.scratch_bytes;
    wave.scratch.clear();
    wave.scratch.resize(kernel.scratch_bytes as usize * kernel.lanes as usize, 0);
    wave.pc = kernel.program().index_of(kernel.entry).unwrap_or(u32::MAX);
}

/// MODE as COMPUTE_PGM_RSRC1 gives it.
fn initial_mode(kernel: &Kernel) -> u32 {
    let rsrc1 = kernel.descriptor.rsrc[0];
    let bit = |position: u32, value: u32| if rsrc1 >> position & 1 != 0 { value } else { 0 };
    let overflow = bit(26, mode::FP16_OVFL);
    let float = rsrc1 >> 12 & 0xff;
    if kernel.chip == Chip::Gfx1201 {
        // Bits 21 and 23 mean other things; a clamped NaN is always zero.
        return float | mode::DX10_CLAMP | overflow;
    }
    float | bit(21, mode::DX10_CLAMP) | bit(23, mode::IEEE) | overflow
}

fn set_exec(wave: &mut Wave, number: u32, size: u32) {
    let lanes = (size - number * wave.lanes).min(wave.lanes);
    wave.set_exec(if lanes >= 64 { u64::MAX } else { (1 << lanes) - 1 });
}

/// User and system scalar registers.
fn set_scalars(wave: &mut Wave, shared: &Shared<'_>, id: [u32; 3]) {
    let (kernel, arguments) = (shared.kernel, shared.arguments);
    let descriptor = &kernel.descriptor;
    let mut next = 0;
    let mut push = |wave: &mut Wave, words: &[u32]| {
        for word in words {
            if next < scalar::VCC {
                wave.sgpr[next] = *word;
            }
            next += 1;
        }
    };
    let pair = |value: u64| [value as u32, (value >> 32) as u32];
    let entries: [(u32, &[u32]); 7] = [
        (property::PRIVATE_SEGMENT_BUFFER, &PRIVATE_SEGMENT_BUFFER_RESOURCE),
        (property::DISPATCH_PTR, &pair(arguments.packet)),
        (property::QUEUE_PTR, &pair(arguments.queue)),
        (property::KERNARG_SEGMENT_PTR, &pair(arguments.kernarg)),
        (property::DISPATCH_ID, &[0, 0]),
        (property::FLAT_SCRATCH_INIT, &[0, 0]),
        (property::PRIVATE_SEGMENT_SIZE, &[kernel.scratch_bytes]),
    ];
    for (bit, words) in entries {
        if descriptor.property(bit) {
            push(wave, words);
        }
    }
    for dword in 0..descriptor.preload_dwords {
        let at = 4 * (usize::from(descriptor.preload_offset) + usize::from(dword));
        let word = arguments.bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        push(wave, &[u32::from_le_bytes(word.unwrap_or_default())]);
    }
    set_system_scalars(wave, kernel, id);
}

/// Workgroup numbers follow the user registers, of which the descriptor tells the count: it can be
/// more than were set up. From gfx12 on they are in trap temporaries.
fn set_system_scalars(wave: &mut Wave, kernel: &Kernel, id: [u32; 3]) {
    if kernel.chip == Chip::Gfx1201 {
        wave.sgpr[scalar::TTMP + 9] = id[0];
        wave.sgpr[scalar::TTMP + 7] = id[1] & 0xffff | id[2] << 16;
        return;
    }
    let rsrc2 = kernel.descriptor.rsrc[1];
    let mut next = (rsrc2 >> 1 & 0x1f) as usize;
    for axis in 0..3 {
        if rsrc2 >> (7 + axis) & 1 != 0 {
            wave.sgpr[next] = id[axis];
            next += 1;
        }
    }
    // Workgroup info and the private segment's wave offset are zero.
}

/// The buffer resource of private memory on chips without flat scratch instructions: the private
/// aperture, swizzled in elements of four bytes with the thread number as the index.
const PRIVATE_SEGMENT_BUFFER_RESOURCE: [u32; 4] = {
    const ADD_TID_ENABLE: u32 = 1 << 23;
    const INDEX_STRIDE_64: u32 = 3 << 21;
    const ELEMENT_SIZE_4: u32 = 1 << 19;
    const SWIZZLE_ENABLE: u32 = 1 << 31;
    [
        PRIVATE_APERTURE as u32,
        (PRIVATE_APERTURE >> 32) as u32 | SWIZZLE_ENABLE,
        u32::MAX,
        ADD_TID_ENABLE | INDEX_STRIDE_64 | ELEMENT_SIZE_4,
    ]
};

/// Work-item numbers: all three packed into v0, on every chip there is here.
fn set_work_items(wave: &mut Wave, number: u32, block: [u32; 3], kernel: &Kernel) {
    let wanted = kernel.descriptor.rsrc[1] >> 11 & 3;
    let size = block.iter().product::<u32>();
    for lane in 0..wave.lanes {
        let item = number * wave.lanes + lane;
        if item >= size {
            break;
        }
        let x = item % block[0];
        let y = if wanted >= 1 { item / block[0] % block[1] } else { 0 };
        let z = if wanted >= 2 { item / block[0] / block[1] } else { 0 };
        wave.rows[0].0[lane as usize] = x | y << 10 | z << 20;
    }
}
