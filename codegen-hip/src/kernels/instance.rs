//! A macro-op where it stands: its types, and how its operands lie in memory.

use super::{ArgRole, KernelError, KernelSource, Variant, extent_expr};
use crate::lower_schedule::{CACHE_LENGTH, STEP_TOKENS};
use crate::mlir::{Builder, Value};
use crate::target::GpuTarget;
use waveloom_ir::{DType, Dim, Function, Inst, Module, Numerics, Op, Type, ValueId};
use waveloom_plan as plan;

/// One application of a macro-op, and what its kernel is made for.
pub(crate) struct Instance<'a, T> {
    pub module: &'a Module,
    pub function: &'a Function,
    pub inst: &'a Inst,
    pub variant: Variant,
    pub target: &'a T,
    /// Whether the launch is captured once and replayed at every length of the cache: then the
    /// symbol `T` is 1, and nothing may depend on `S`.
    pub captured: bool,
    /// Fewest work-items of a workgroup, where kernels that run as one must agree; 0 leaves it to
    /// the generator.
    pub work_items: u32,
}

impl<T> Clone for Instance<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Instance<'_, T> {}

impl<'a, T> Instance<'a, T> {
    /// The type of operand `index`.
    pub fn operand(&self, index: usize) -> &'a Type {
        self.function.ty(self.inst.operands[index])
    }

    /// The type of result 0.
    pub fn result(&self) -> &'a Type {
        self.function.ty(self.inst.results[0])
    }

    /// The buffer of result 0: results follow the operands.
    pub fn result_buffer(&self) -> usize {
        self.inst.operands.len()
    }

    /// An error about this op.
    pub fn unsupported(&self, what: impl AsRef<str>) -> KernelError {
        KernelError(format!("`{}`: {}", self.inst.op.mnemonic(), what.as_ref()))
    }

    /// A constant extent.
    pub fn constant(&self, dim: Dim) -> Result<u32, KernelError> {
        match dim {
            Dim::Const(extent) => u32::try_from(extent)
                .ok()
                .filter(|extent| *extent <= i32::MAX as u32)
                .ok_or_else(|| self.unsupported(format!("extent {extent} is too large"))),
            Dim::Symbol(_) => Err(self.unsupported("an extent that must be known varies")),
        }
    }

    /// An extent, over the plan's symbols.
    pub fn extent(&self, dim: Dim) -> Result<plan::Expr, KernelError> {
        match extent_expr(self.module, dim)? {
            plan::Expr::Symbol(STEP_TOKENS) if self.captured => Ok(plan::Expr::from(1)),
            plan::Expr::Symbol(CACHE_LENGTH) if self.captured => {
                Err(self.unsupported("a decode step's launch depends on the cache length"))
            }
            extent => Ok(extent),
        }
    }

    /// The product of extents, over the plan's symbols.
    pub fn product(&self, dims: &[Dim]) -> Result<plan::Expr, KernelError> {
        let elements = dims.iter().try_fold(1u64, |n, &dim| {
            n.checked_mul(self.module.max_extent(dim)).filter(|n| *n < 1 << 60)
        });
        elements.ok_or_else(|| self.unsupported("a tensor is too large"))?;
        dims.iter().try_fold(plan::Expr::from(1), |product, &dim| Ok(product * self.extent(dim)?))
    }

    /// The type of operand `index`, with its rows and columns, if it is a weight that is packed as a
    /// matrix.
    pub fn matrix(&self, index: usize) -> Option<(DType, u64, u64)> {
        let ty = self.weight(self.function, self.inst.operands[index])?;
        match ty.shape[..] {
            [Dim::Const(rows), Dim::Const(cols)] => Some((ty.dtype, rows, cols)),
            _ => None,
        }
    }

    /// Refuses operands that were packed as matrices: few kernels can read them.
    pub fn refuse_packed(&self) -> Result<(), KernelError> {
        match (0..self.inst.operands.len()).find(|&index| self.matrix(index).is_some()) {
            None => Ok(()),
            Some(index) => {
                let what = format!("operand {index} is a weight packed as a matrix");
                Err(self.unsupported(what))
            }
        }
    }

    /// The declared type of the weight that `value` is, looking through calls and reshapes.
    /// Calls of one function agree on which parameters are weights of which type.
    fn weight(&self, function: &Function, value: ValueId) -> Option<&'a Type> {
        if let Some(index) = function.params.iter().position(|&param| param == value) {
            let arguments = self.module.functions.iter().flat_map(|caller| {
                caller.insts.iter().filter_map(move |inst| match inst.op {
                    Op::Call { func }
                        if self.module.functions[func.index()].name == function.name =>
                    {
                        Some((caller, *inst.operands.get(index)?))
                    }
                    _ => None,
                })
            });
            return arguments.map(|(caller, value)| self.weight(caller, value)).next()?;
        }
        let inst = function.insts.iter().find(|inst| inst.results.contains(&value))?;
        match &inst.op {
            Op::Weight { weight } => Some(&self.module.weights[weight.index()].ty),
            Op::Reshape { shape: _ } => self.weight(function, inst.operands[0]),
            _ => None,
        }
    }

    /// A type for people: `f32[T,576]`.
    pub fn spell(&self, ty: &Type) -> String {
        let extents = ty.shape.iter().map(|&dim| match dim {
            Dim::Const(extent) => extent.to_string(),
            Dim::Symbol(id) => self.module.symbols[id.index()].name.clone(),
        });
        format!("{}[{}]", ty.dtype, extents.collect::<Vec<_>>().join(","))
    }
}

/// A kernel while it is written.
pub(crate) struct Draft {
    pub builder: Builder,
    stem: String,
    args: Vec<ArgRole>,
}

impl Draft {
    /// A kernel that a CPU calls with a range of work items.
    pub fn new(stem: impl Into<String>) -> Draft {
        let stem = stem.into();
        Draft { builder: Builder::new(&stem), stem, args: vec![] }
    }

    /// A kernel that a GPU runs in workgroups of `workgroup` work-items.
    pub fn for_gpu(stem: impl Into<String>, workgroup: u32, target: &GpuTarget) -> Draft {
        let stem = stem.into();
        Draft { builder: Builder::for_gpu(&stem, workgroup, target.platform), stem, args: vec![] }
    }

    fn slot(&mut self, role: ArgRole) -> usize {
        let known = self.args.iter().position(|known| *known == role);
        known.unwrap_or_else(|| {
            self.args.push(role);
            self.args.len() - 1
        })
    }

    /// The address of the buffer of operand (or, after them, result) `index`.
    pub fn buffer(&mut self, index: usize) -> Value {
        let slot = self.slot(ArgRole::Buffer(index));
        self.builder.arg_ptr(slot)
    }

    /// The address of the scratch that all launches share, on a GPU.
    pub fn scratch(&mut self) -> Value {
        let slot = self.slot(ArgRole::Scratch);
        self.builder.arg_ptr(slot)
    }

    /// The value of an expression: a constant, or an argument.
    pub fn number(&mut self, expr: plan::Expr) -> Value {
        match expr {
            plan::Expr::Const(value) => self.builder.i64(value),
            expr => {
                let slot = self.slot(ArgRole::Scalar(expr));
                self.builder.arg_i64(slot)
            }
        }
    }

    /// The kernel, with `items` work items.
    pub fn finish(self, summary: String, items: plan::Expr, scratch_bytes: u64) -> KernelSource {
        KernelSource {
            stem: self.stem,
            summary,
            text: self.builder.finish(),
            items,
            args: self.args,
            scratch_bytes,
            streams_weights: false,
            work: None,
            numerics: Numerics::default(),
            first_reads: vec![],
            before: None,
        }
    }
}
