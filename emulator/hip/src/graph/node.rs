//! What nodes do, and the forms in which the program describes it.

use std::sync::Arc;

use crate::abi::Abi;
use crate::copy::{Copy, Fill, Side};
use crate::error::{HipError, Result};
use crate::event::{Event, State};
use crate::graph::{Graph, order};
use crate::launch;
use crate::runtime::Runtime;
use crate::types::{Address, Dim3, Extent, KernelNodeParams, Memcpy3d, PitchedPtr, Pos};
use crate::work::{HostCall, KernelCall, Work};

/// A kernel with what the program called it.
#[derive(Clone)]
pub struct KernelNode {
    /// The launch.
    pub call: KernelCall,
    /// The host's function or the handle that the program gave.
    pub func: Address,
    /// Addresses of the arguments in `call.kernarg`, for programs that ask.
    pointers: Arc<[Address]>,
}

/// What a node does.
#[derive(Clone)]
pub enum NodeWork {
    /// Runs a kernel.
    Kernel(KernelNode),
    /// Copies rows; `true` if the program described it as one row.
    Copy(Copy, bool),
    /// Fills.
    Fill(Fill),
    /// Calls the program.
    Host(HostCall),
    /// Nothing.
    Empty,
    /// Runs another graph, which belongs to the node.
    Child(Arc<Graph>),
    /// Records an event.
    Record(Arc<Event>),
    /// Waits for an event.
    Wait(Arc<Event>),
}

impl NodeWork {
    /// `hipGraphNodeType`, whose numbers changed with HIP 6.
    pub fn type_number(&self, abi: Abi) -> u32 {
        let number = match self {
            NodeWork::Kernel(_) => 0,
            NodeWork::Copy(_, true) if abi == Abi::Hip5 => 8,
            NodeWork::Copy(..) => 1,
            NodeWork::Fill(_) => 2,
            NodeWork::Host(_) => 3,
            NodeWork::Child(_) => 4,
            NodeWork::Empty => 5,
            NodeWork::Wait(_) => 6,
            NodeWork::Record(_) => 7,
        };
        if abi == Abi::Hip5 { number + 1 } else { number }
    }

    /// Whether `other` is of the same kind.
    pub fn is_like(&self, other: &NodeWork) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }

    /// Takes over what another node of the same kind does.
    pub fn replace(&mut self, other: &NodeWork) -> Result {
        if !self.is_like(other) {
            return Err(HipError::INVALID_VALUE);
        }
        *self = other.clone();
        Ok(())
    }

    /// The same for another graph: a graph within it is copied.
    pub fn copy(&self, runtime: &Runtime) -> NodeWork {
        match self {
            NodeWork::Child(child) => NodeWork::Child(child.copy(runtime)),
            work => work.clone(),
        }
    }

    /// Makes an operation of it that is about to be put into a stream.
    pub fn prepare(&self) -> Result<Work> {
        Ok(match self {
            NodeWork::Kernel(node) => Work::Kernel(node.call.clone()),
            NodeWork::Copy(copy, _) => Work::Copy(copy.clone()),
            NodeWork::Fill(fill) => Work::Fill(*fill),
            NodeWork::Host(call) => Work::Host(*call),
            NodeWork::Empty => Work::Nothing,
            NodeWork::Record(event) => Work::Record(event.begin()),
            NodeWork::Wait(event) => match event.state() {
                State::Never => Work::Nothing,
                State::Recorded(record) => Work::Await(record),
                State::Captured(..) => return Err(HipError::CAPTURED_EVENT),
            },
            NodeWork::Child(child) => {
                let nodes = child.nodes();
                let sequence = order(&nodes)?.into_iter().map(|at| nodes[at].work.prepare());
                Work::Sequence(sequence.collect::<Result<_>>()?)
            }
        })
    }
}

impl KernelNode {
    /// A launch; `func` is what the program calls the kernel.
    pub fn new(call: KernelCall, func: Address) -> KernelNode {
        let base = call.kernarg.as_ptr() as Address;
        let arguments = call.function.kernel.arguments.iter().filter(|a| !a.is_hidden());
        let pointers = arguments.map(|argument| base + argument.offset as usize).collect();
        KernelNode { call, func, pointers }
    }

    /// From the program's description.
    pub fn from_params(runtime: &Runtime, params: &KernelNodeParams) -> Result<KernelNode> {
        let device = runtime.current();
        let function = launch::function_of(runtime, params.func, device.ordinal)?;
        let grid = launch::Grid {
            grid: params.grid_dim.array(),
            block: params.block_dim.array(),
            shared: params.shared_mem_bytes as usize,
            ..launch::Grid::default()
        };
        let arguments = launch::Arguments { params: params.kernel_params, extra: params.extra };
        let call = launch::call(runtime, device, function, &grid, arguments)?;
        Ok(KernelNode::new(call, params.func))
    }

    /// As the program would describe it. The addresses are good until the node changes.
    pub fn params(&self) -> KernelNodeParams {
        let empty = self.pointers.is_empty();
        KernelNodeParams {
            block_dim: Dim3::from_array(self.call.launch.block),
            extra: 0,
            func: self.func,
            grid_dim: Dim3::from_array(self.call.launch.grid),
            kernel_params: if empty { 0 } else { self.pointers.as_ptr() as Address },
            shared_mem_bytes: self.call.launch.dynamic_lds,
        }
    }
}

/// A copy as `hipMemcpy3D` and the nodes of graphs describe it.
pub fn copy_from_3d(params: &Memcpy3d) -> Result<Copy> {
    if params.src_array != 0 || params.dst_array != 0 {
        return Err(HipError::NOT_SUPPORTED);
    }
    let extent = &params.extent;
    Ok(Copy {
        dst: side_from_3d(&params.dst, &params.dst_pos)?,
        src: side_from_3d(&params.src, &params.src_pos)?,
        width: extent.width,
        height: extent.height,
        depth: extent.depth,
        kind: params.kind,
        staged: None,
    })
}

fn side_from_3d(at: &PitchedPtr, pos: &Pos) -> Result<Side> {
    if at.ptr == 0 {
        return Err(HipError::INVALID_VALUE);
    }
    let slice = at.pitch.checked_mul(at.ysize).ok_or(HipError::INVALID_VALUE)?;
    let offset = pos.z.checked_mul(slice).zip(pos.y.checked_mul(at.pitch));
    let offset = offset.and_then(|(z, y)| z.checked_add(y)?.checked_add(pos.x));
    let address = offset.and_then(|offset| at.ptr.checked_add(offset));
    Ok(Side { address: address.ok_or(HipError::INVALID_VALUE)?, pitch: at.pitch, slice })
}

/// The description of a copy.
pub fn copy_to_3d(copy: &Copy) -> Memcpy3d {
    let side = |side: &Side| PitchedPtr {
        ptr: side.address,
        pitch: side.pitch,
        xsize: copy.width,
        ysize: side.slice.checked_div(side.pitch).unwrap_or(0).max(copy.height),
    };
    Memcpy3d {
        src: side(&copy.src),
        dst: side(&copy.dst),
        extent: Extent { width: copy.width, height: copy.height, depth: copy.depth },
        kind: copy.kind,
        ..Memcpy3d::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::kind;

    #[test]
    fn descriptions_round_trip() {
        let params = Memcpy3d {
            src: PitchedPtr { ptr: 0x1000, pitch: 64, xsize: 10, ysize: 8 },
            dst: PitchedPtr { ptr: 0x9000, pitch: 32, xsize: 10, ysize: 5 },
            extent: Extent { width: 10, height: 3, depth: 2 },
            kind: kind::DEFAULT,
            ..Memcpy3d::default()
        };
        let copy = copy_from_3d(&params).unwrap();
        assert_eq!(copy.src, Side { address: 0x1000, pitch: 64, slice: 512 });
        assert_eq!(copy_to_3d(&copy), params);
        let moved = Memcpy3d { src_pos: Pos { x: 3, y: 2, z: 1 }, ..params };
        assert_eq!(copy_from_3d(&moved).unwrap().src.address, 0x1000 + 512 + 128 + 3);
    }

    /// Numbers of `hipGraphNodeType` in the headers of HIP 5.2 and 6.2.
    #[test]
    fn type_numbers() {
        let empty = NodeWork::Empty;
        assert_eq!((empty.type_number(Abi::Hip5), empty.type_number(Abi::Hip6)), (6, 5));
        let copy = NodeWork::Copy(Copy::linear(1, 1, 1, 0), true);
        assert_eq!((copy.type_number(Abi::Hip5), copy.type_number(Abi::Hip6)), (9, 1));
    }
}
