//! `choose-layouts`: gives the KV caches the dtype and the memory layout that kernels read.
//!
//! The cache that is a key operand of attention anywhere gets the layout that the target wants for keys
//! ([`TargetLayout`]), one that is a value operand that for values: on every parameter, argument and result
//! that is this cache. Elements are f16, or f32 where all matrices are and the target wants exact caches.
//! Both are chosen here, where nothing but `attention` reads a cache, and that reads any form.

use crate::convert_weights::matrices_are_f32;
use crate::pass::{PassError, PassOptions, PassReport};
use crate::storage::{StorageClasses, retype};
use waveloom_ir::{DType, FuncId, Layout, Module, Op};

const NAME: &str = "choose-layouts";

/// What a target's kernels want of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetLayout {
    /// Caches of keys.
    pub keys: Layout,
    /// Caches of values.
    pub values: Layout,
    /// Whether caches are f32 where all matrices are.
    pub exact_caches: bool,
}

impl Default for TargetLayout {
    fn default() -> Self {
        TargetLayout {
            keys: Layout::PositionLanes(16),
            values: Layout::HeadMajor,
            exact_caches: true,
        }
    }
}

/// The pass.
pub fn run(module: Module, options: &PassOptions) -> Result<(Module, PassReport), PassError> {
    let classes = StorageClasses::new(&module);
    let mut layouts: Vec<Option<Layout>> = vec![None; classes.len()];
    for (index, function) in module.functions.iter().enumerate() {
        for inst in &function.insts {
            let Op::Attention { .. } = inst.op else {
                continue;
            };
            for (operand, layout) in [(1, options.layout.keys), (2, options.layout.values)] {
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
    let exact = options.layout.exact_caches && matrices_are_f32(&module, &classes);
    let dtype = if exact { DType::F32 } else { DType::F16 };
    let mut report = PassReport::default();
    let module = retype(NAME, module, |func, value, ty| {
        if let Some(layout) = layouts[classes.of(func, value)] {
            ty.layout = layout;
            ty.dtype = dtype;
            report.count(match layout {
                Layout::PositionLanes(_) => "position-lanes",
                Layout::HeadMajor | Layout::RowMajor => "head-major",
                Layout::KeyBlocks(_) => "key-blocks",
                Layout::ValueBlocks(_) => "value-blocks",
            });
        }
    })?;
    Ok((module, report))
}
