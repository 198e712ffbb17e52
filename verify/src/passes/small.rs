//! A module with smaller extents: of the vocabulary and the like, which cost much and say little.
//!
//! An extent may be another number where it only ever appears as a whole: nothing splits or sums it, and
//! the module type-checks with it replaced everywhere. A pass that is right for one is right for the
//! other; whoever finds a difference in the smaller module looks again in the module itself.

use waveloom_ir::verify::check;
use waveloom_ir::{Dim, Expr, Function, Module, Op, Prologue, Type};

/// Extents below are left alone.
const LARGE: u64 = 1024;

/// What a large one becomes: whole blocks of every dtype.
const SMALL: u64 = 256;

/// Replaces extents of all `modules`, which are one model; `None` where there is nothing to gain.
pub fn smaller<const N: usize>(modules: [&Module; N]) -> Option<[Module; N]> {
    let mut extents: Vec<u64> = modules.iter().flat_map(|m| large_extents(m)).collect();
    extents.sort_unstable();
    extents.dedup();
    extents.retain(|&extent| !modules.iter().any(|module| is_summed(module, extent)));
    let mut current = modules.map(Module::clone);
    let mut changed = false;
    for extent in extents {
        let mut next = current.clone();
        next.iter_mut().for_each(|module| replace(module, extent));
        if next.iter().all(|module| check(module).is_ok()) {
            current = next;
            changed = true;
        }
    }
    changed.then_some(current)
}

/// Of weights and parameters.
fn large_extents(module: &Module) -> Vec<u64> {
    let params = module.functions.iter().flat_map(|f| f.param_types());
    let types = module.weights.iter().map(|weight| &weight.ty).chain(params);
    let extents = types.flat_map(|ty| &ty.shape).filter_map(|dim| match dim {
        Dim::Const(extent) if *extent >= LARGE => Some(*extent),
        Dim::Const(_) | Dim::Symbol(_) => None,
    });
    extents.collect()
}

/// Whether a mean or sum runs over it: a factor elsewhere may be its inverse.
fn is_summed(module: &Module, extent: u64) -> bool {
    let sums = |function: &Function| {
        function.insts.iter().any(|inst| {
            let operand = |index: usize| function.ty(inst.operands[index]);
            match &inst.op {
                Op::ReduceSum { axis } | Op::ReduceMean { axis } | Op::ReduceMax { axis } => {
                    operand(0).shape[*axis as usize] == Dim::Const(extent)
                }
                Op::Norm { .. } => operand(0).last_const() == Some(extent),
                Op::Gemm { attr } => {
                    let whole = matches!(attr.prologue, Some(Prologue::RmsNorm { .. }));
                    let mut by_head = false;
                    for output in &attr.outputs {
                        output.expr.walk(&mut |e| match e {
                            Expr::HeadNorm { head_dim, .. } | Expr::Rope { head_dim, .. } => {
                                by_head |= u64::from(*head_dim) == extent;
                            }
                            _ => {}
                        });
                    }
                    by_head || whole && operand(0).last_const() == Some(extent)
                }
                _ => false,
            }
        })
    };
    module.functions.iter().any(sums)
}

fn replace(module: &mut Module, extent: u64) {
    let dim = |dim: &mut Dim| {
        if *dim == Dim::Const(extent) {
            *dim = Dim::Const(SMALL);
        }
    };
    let of_type = |ty: &mut Type| ty.shape.iter_mut().for_each(dim);
    for weight in &mut module.weights {
        of_type(&mut weight.ty);
    }
    for function in &mut module.functions {
        function.values.iter_mut().for_each(|value| of_type(&mut value.ty));
        for inst in &mut function.insts {
            match &mut inst.op {
                Op::Reshape { shape } | Op::Broadcast { shape } => shape.iter_mut().for_each(dim),
                Op::Constant { ty, .. } => of_type(ty),
                Op::Slice { len, .. } | Op::Iota { len } => dim(len),
                _ => {}
            }
        }
    }
}
