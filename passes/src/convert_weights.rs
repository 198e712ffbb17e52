//! `convert-weights`: chooses the dtype of each weight.
//!
//! Matrix weights become what the user asks for; with `keep`, stored forms that kernels do not multiply
//! directly become the nearest one that they do. Vectors (norms, biases, RoPE frequencies) become f32:
//! they are small, and kernels read them once per row. Only declarations and types change; the bytes
//! are converted when they are packed. Layers that differed in nothing but stored dtypes then share
//! one function.

use crate::pass::{PassError, PassOptions, PassReport};
use crate::storage::{StorageClasses, retype};
use std::fmt;
use waveloom_ir::{DType, Family, FuncId, Function, Inst, Module, Op, ValueId, Weight, WeightId};

const NAME: &str = "convert-weights";

/// What the user asks of matrix weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum WeightDtype {
    /// As stored, or the nearest form that kernels multiply directly.
    #[default]
    Keep,
    /// This one, of [`WeightDtype::CONVERTIBLE`]; f16 where the rows are not whole blocks.
    Convert(DType),
}

impl WeightDtype {
    /// The dtypes that a user can ask for.
    pub const CONVERTIBLE: &'static [DType] =
        &[DType::F32, DType::F16, DType::BF16, DType::Q8_0, DType::Q4_0, DType::Q4_1];

    /// What `name` spells: `keep` or a convertible dtype.
    pub fn parse(name: &str) -> Option<WeightDtype> {
        if name == "keep" {
            return Some(WeightDtype::Keep);
        }
        let dtype = DType::parse(name)?;
        Self::CONVERTIBLE.contains(&dtype).then_some(WeightDtype::Convert(dtype))
    }

    /// The dtype for a matrix that is stored as `stored` in rows of `k` elements.
    fn matrix(self, stored: DType, k: Option<u64>) -> DType {
        let wanted = match self {
            WeightDtype::Keep => multiplied_as(stored),
            WeightDtype::Convert(dtype) => dtype,
        };
        match k {
            Some(k) if k.is_multiple_of(wanted.block_len()) => wanted,
            _ if wanted.is_block() => DType::F16,
            _ => wanted,
        }
    }
}

impl fmt::Display for WeightDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WeightDtype::Keep => f.write_str("keep"),
            WeightDtype::Convert(dtype) => dtype.fmt(f),
        }
    }
}

/// The form that kernels multiply weights stored as `stored` in.
fn multiplied_as(stored: DType) -> DType {
    match stored {
        // A sub-block of 32 of Q4_K is a scale, a minimum and 4-bit quants: those of Q4_1 exactly,
        // its scale and minimum rounded to f16.
        DType::Q4_K => DType::Q4_1,
        DType::Q5_0 | DType::Q5_1 | DType::Q5_K | DType::Q6_K => DType::Q8_0,
        DType::F8E4M3 | DType::F8E4M3FNUZ => DType::F16,
        DType::F32 | DType::F16 | DType::BF16 | DType::Q8_0 | DType::Q4_0 | DType::Q4_1 => stored,
        DType::I32 | DType::I8 | DType::U8 | DType::Bool => stored,
    }
}

/// How the values of a storage class are used.
#[derive(Clone, Copy, Default)]
struct Uses {
    /// As a factor of a matrix product or a table of rows.
    matrix: bool,
    /// In a way that depends on the dtype.
    fixed: bool,
}

/// The pass.
pub fn run(mut module: Module, options: &PassOptions) -> Result<(Module, PassReport), PassError> {
    if let WeightDtype::Convert(dtype) = options.dtype
        && !WeightDtype::CONVERTIBLE.contains(&dtype)
    {
        return Err(PassError::Unsupported {
            pass: NAME,
            problem: format!("weights cannot be converted to {dtype}"),
        });
    }
    let mut report = PassReport::default();
    let classes = StorageClasses::new(&module);
    let uses = class_uses(&module, &classes);
    let mut new_dtypes: Vec<Option<DType>> = vec![None; classes.len()];
    for (index, weight) in module.weights.iter_mut().enumerate() {
        let class = classes.of_weight(WeightId(index as u32));
        let dtype = weight_dtype(weight, uses[class], options.dtype);
        if dtype != weight.ty.dtype {
            report.count(&format!("{}-to-{dtype}", weight.ty.dtype));
            weight.ty.dtype = dtype;
        }
        new_dtypes[class] = Some(dtype);
    }
    let mut module = retype(NAME, module, |func, value, ty| {
        if let Some(dtype) = new_dtypes[classes.of(func, value)] {
            ty.dtype = dtype;
        }
    })?;
    let merged = merge_equal_functions(&mut module);
    if merged > 0 {
        report.add("merge-equal-functions", merged);
    }
    Ok((module, report))
}

/// Whether every weight that is a factor of a matrix product is f32.
pub(crate) fn matrices_are_f32(module: &Module, classes: &StorageClasses) -> bool {
    let uses = class_uses(module, classes);
    let mut weights = module.weights.iter().enumerate();
    weights.all(|(index, weight)| {
        let class = classes.of_weight(WeightId(index as u32));
        weight.ty.dtype == DType::F32 || !uses[class].matrix
    })
}

/// Calls the first of several functions that differ in name only, and removes the others.
fn merge_equal_functions(module: &mut Module) -> u64 {
    let mut kept: Vec<Function> = vec![];
    let mut new_ids: Vec<FuncId> = vec![];
    // Callees come first, so that their new ids are known, and equal callers become equal, too.
    for mut function in std::mem::take(&mut module.functions) {
        for inst in &mut function.insts {
            match &mut inst.op {
                Op::Call { func } => *func = new_ids[func.index()],
                Op::DecodeLoop { attr } => attr.step = new_ids[attr.step.index()],
                _ => {}
            }
        }
        let mut named_alike = function.clone();
        let equal = kept.iter().position(|other| {
            named_alike.name.clone_from(&other.name);
            *other == named_alike
        });
        new_ids.push(FuncId(equal.unwrap_or(kept.len()) as u32));
        if equal.is_none() {
            kept.push(function);
        }
    }
    module.functions = kept;
    (new_ids.len() - module.functions.len()) as u64
}

fn weight_dtype(weight: &Weight, uses: Uses, wanted: WeightDtype) -> DType {
    let dtype = weight.ty.dtype;
    if !dtype.is_stored_real() || (uses.fixed && weight.ty.rank() > 1) {
        dtype
    } else if uses.matrix && weight.ty.rank() > 1 {
        wanted.matrix(dtype, weight.ty.last_const())
    } else {
        DType::F32
    }
}

fn class_uses(module: &Module, classes: &StorageClasses) -> Vec<Uses> {
    let mut uses = vec![Uses::default(); classes.len()];
    for (index, function) in module.functions.iter().enumerate() {
        let func = FuncId(index as u32);
        for inst in &function.insts {
            for (operand, &value) in inst.operands.iter().enumerate() {
                let new = operand_use(function, inst, operand);
                let class = &mut uses[classes.of(func, value)];
                class.matrix |= new.matrix;
                class.fixed |= new.fixed;
            }
        }
    }
    uses
}

fn operand_use(function: &Function, inst: &Inst, operand: usize) -> Uses {
    let read = Uses::default();
    let matrix = Uses { matrix: true, ..read };
    let fixed = Uses { fixed: true, ..read };
    match &inst.op {
        // The callee's uses are those of the same class.
        Op::Call { .. } => read,
        Op::Dequantize {} if reaches_product(function, inst.results[0]) => matrix,
        Op::Dequantize {} => read,
        Op::Gather {} if operand == 0 && only_dequantized(function, inst.results[0]) => matrix,
        Op::Embed {} if operand == 0 => matrix,
        Op::Gemm { attr } if operand >= attr.first_weight() && operand < attr.first_extra() => {
            matrix
        }
        op if op.family() == Family::Macro => read,
        _ => fixed,
    }
}

/// Whether every use of `value` is a `dequantize`.
fn only_dequantized(function: &Function, value: ValueId) -> bool {
    let users = function.insts.iter().filter(|inst| inst.operands.contains(&value));
    !function.results.contains(&value) && users.into_iter().all(|u| u.op == Op::Dequantize {})
}

/// Whether `value` is a factor of a matrix product, through changes of shape.
fn reaches_product(function: &Function, value: ValueId) -> bool {
    let mut reached = vec![value];
    // Uses come after definitions, so one sweep sees every path.
    for inst in &function.insts {
        if !inst.operands.iter().any(|operand| reached.contains(operand)) {
            continue;
        }
        match inst.op {
            Op::MatMul {} => return true,
            Op::Transpose { .. } | Op::Reshape { .. } | Op::Broadcast { .. } | Op::Slice { .. } => {
                reached.extend(&inst.results);
            }
            _ => {}
        }
    }
    false
}
