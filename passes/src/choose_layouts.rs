//! `choose-layouts`: gives the KV caches the dtype and the memory layout that kernels read.
//!
//! Attention reads keys of several positions as one vector of scores, and values row by row. So the cache
//! that is a key operand anywhere gets [`Layout::PositionLanes`], one that is a value operand
//! [`Layout::HeadMajor`]: on every parameter, argument and result that is this cache. Elements are f32
//! where all matrices are, for exact results, and f16 otherwise. Both are chosen here, where nothing but
//! `attention` reads a cache, and that reads any form.

use crate::convert_weights::matrices_are_f32;
use crate::pass::{PassError, PassOptions, PassReport};
use crate::storage::{StorageClasses, retype};
use waveloom_ir::{DType, FuncId, Layout, Module, Op};

const NAME: &str = "choose-layouts";

/// What a target's kernels want of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetLayout {
    /// f32 lanes of a vector: positions of the key cache that lie side by side.
    pub lanes: u32,
}

impl Default for TargetLayout {
    fn default() -> Self {
        TargetLayout { lanes: 16 }
    }
}

/// The pass.
pub fn run(module: Module, options: &PassOptions) -> Result<(Module, PassReport), PassError> {
    let keys = Layout::PositionLanes(options.layout.lanes.max(1));
    let classes = StorageClasses::new(&module);
    let mut layouts: Vec<Option<Layout>> = vec![None; classes.len()];
    for (index, function) in module.functions.iter().enumerate() {
        for inst in &function.insts {
            let Op::Attention { .. } = inst.op else {
                continue;
            };
            for (operand, layout) in [(1, keys), (2, Layout::HeadMajor)] {
                let class = classes.of(FuncId(index as u32), inst.operands[operand]);
                let chosen = layouts[class].get_or_insert(layout);
                if *chosen != layout {
                    return Err(PassError::Unsupported {
                        pass: NAME,
                        problem: format!(
                            "one cache holds keys and values of attention in @{}; give each its own",
                            function.name
                        ),
                    });
                }
            }
        }
    }
    let dtype = match matrices_are_f32(&module, &classes) {
        true => DType::F32,
        false => DType::F16,
    };
    let mut report = PassReport::default();
    let module = retype(NAME, module, |func, value, ty| {
        if let Some(layout) = layouts[classes.of(func, value)] {
            ty.layout = layout;
            ty.dtype = dtype;
            report.count(match layout {
                Layout::PositionLanes(_) => "position-lanes",
                Layout::HeadMajor | Layout::RowMajor => "head-major",
            });
        }
    })?;
    Ok((module, report))
}
