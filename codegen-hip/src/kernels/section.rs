//! What generators of `gemm` kernels share: rows, outputs grouped by the weights that they take,
//! names.

use super::{KernelError, SYMBOLS};
use waveloom_ir::{DType, Expr, GemmOutput, Store, Type};
use waveloom_plan as plan;

/// How many rows x has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rows {
    /// One: a matrix-vector product.
    One,
    /// So many, when it runs.
    Many(plan::Expr),
}

/// Outputs that share accumulators, with the weights they take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Section {
    /// The outputs, by index.
    pub outputs: Vec<usize>,
    /// The weights, by index.
    pub weights: Vec<usize>,
    /// Columns: rows of each of the weights.
    pub n: u64,
    /// Columns of the heads that must be worked on together; `None` where there are no heads.
    pub head_columns: Option<u64>,
}

impl Section {
    /// Place of a weight among the section's.
    pub fn slot(&self, weight: u32) -> usize {
        self.weights.iter().position(|w| *w == weight as usize).unwrap_or(0)
    }
}

/// Divides outputs into sections: those that share a weight are in one. `weights` are N by weight.
pub(super) fn sections(
    outputs: &[GemmOutput],
    weights: &[u64],
    extras: &[Type],
) -> Result<Vec<Section>, KernelError> {
    let mut sections: Vec<Section> = vec![];
    for (index, output) in outputs.iter().enumerate() {
        let used = accumulators(&output.expr);
        let Some(&n) = used.first().and_then(|&weight| weights.get(weight)) else {
            return Err(KernelError(format!("gemm: output {index} has no accumulator")));
        };
        let head_columns = head_columns(output, extras);
        let mut new = Section { outputs: vec![index], weights: used, n, head_columns };
        // Absorb the sections that use one of these weights.
        let (shared, rest): (Vec<_>, Vec<_>) = sections
            .into_iter()
            .partition(|section| section.weights.iter().any(|w| new.weights.contains(w)));
        sections = rest;
        for section in shared {
            new.outputs.extend(section.outputs);
            new.weights.extend(section.weights);
            new.head_columns = [new.head_columns, section.head_columns]
                .into_iter()
                .flatten()
                .reduce(least_common_multiple);
        }
        new.outputs.sort_unstable();
        new.weights.sort_unstable();
        new.weights.dedup();
        sections.push(new);
    }
    Ok(sections)
}

/// Accumulators that an expression uses.
pub(super) fn accumulators(expr: &Expr) -> Vec<usize> {
    let mut found = vec![];
    expr.walk(&mut |e| {
        if let Expr::Acc(i) = e {
            found.push(*i as usize);
        }
    });
    found.sort_unstable();
    found.dedup();
    found
}

/// Columns of an output; `weights` are N by weight.
pub(super) fn columns(output: &GemmOutput, weights: &[u64]) -> u64 {
    accumulators(&output.expr).first().and_then(|&weight| weights.get(weight)).map_or(0, |n| *n)
}

/// Columns that must be worked on together for an output: whole heads, if it has any.
fn head_columns(output: &GemmOutput, extras: &[Type]) -> Option<u64> {
    let mut columns: Option<u64> = None;
    let mut need = |dim: u64| {
        columns = Some(columns.map_or(dim, |old| least_common_multiple(old, dim)));
    };
    output.expr.walk(&mut |e| match e {
        Expr::Rope { head_dim, .. } | Expr::HeadNorm { head_dim, .. } => need((*head_dim).into()),
        Expr::Acc(_) | Expr::Operand(_) | Expr::Const(_) | Expr::Unary(..) | Expr::Binary(..) => {}
    });
    if let Store::Append { cache, .. } = output.store {
        need(extras.get(cache as usize).and_then(Type::last_const).unwrap_or(1));
    }
    columns
}

/// The smallest number that both divide.
pub(super) fn least_common_multiple(a: u64, b: u64) -> u64 {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    a / x.max(1) * b
}

/// The `rope` and `head_norm` nodes of a section's outputs, innermost first, each once.
pub(super) fn nodes<'a>(outputs: &'a [GemmOutput], section: &[usize]) -> Vec<&'a Expr> {
    let mut found = vec![];
    for &output in section {
        collect(&outputs[output].expr, &mut found);
    }
    found
}

fn collect<'a>(expr: &'a Expr, found: &mut Vec<&'a Expr>) {
    match expr {
        Expr::Acc(_) | Expr::Operand(_) | Expr::Const(_) => {}
        Expr::Unary(_, x) => collect(x, found),
        Expr::Binary(_, x, y) => {
            collect(x, found);
            collect(y, found);
        }
        Expr::Rope { x, .. } | Expr::HeadNorm { x, .. } => {
            collect(x, found);
            if !found.contains(&expr) {
                found.push(expr);
            }
        }
    }
}

/// Refuses extra operands that no generator reads, in words.
pub(super) fn check_extras(outputs: &[GemmOutput], extras: &[Type]) -> Result<(), KernelError> {
    let require = |index: u32, dtypes: &[DType]| match extras.get(index as usize) {
        Some(ty) if dtypes.contains(&ty.dtype) => Ok(()),
        Some(ty) => Err(KernelError(format!("gemm: extra operand {index} is {}", ty.dtype))),
        None => Err(KernelError(format!("gemm: there is no extra operand {index}"))),
    };
    for output in outputs {
        if let Store::Append { cache, positions } = output.store {
            require(cache, &[DType::F32, DType::F16, DType::BF16])?;
            require(positions, &[DType::I32])?;
        }
        let mut result = Ok(());
        output.expr.walk(&mut |e| {
            let checked = match e {
                Expr::Operand(i) => require(*i, &[DType::F32, DType::I32]),
                Expr::Rope { cos, sin, .. } => {
                    require(*cos, &[DType::F32]).and_then(|()| require(*sin, &[DType::F32]))
                }
                Expr::HeadNorm { weight, .. } => require(*weight, &[DType::F32]),
                Expr::Acc(_) | Expr::Const(_) | Expr::Unary(..) | Expr::Binary(..) => Ok(()),
            };
            if result.is_ok() {
                result = checked;
            }
        });
        result?;
    }
    Ok(())
}

/// Whether an output goes to a cache.
pub(super) fn appends(outputs: &[GemmOutput]) -> bool {
    outputs.iter().any(|output| matches!(output.store, Store::Append { .. }))
}

/// A `gemm` in words: what its kernel is called, and what people read of it.
pub(super) struct Description<'a> {
    /// Rows of x.
    pub rows: &'a Rows,
    /// Columns of x.
    pub k: u64,
    /// Whether x is normalized first.
    pub norm: bool,
    /// Dtype and N of the weights.
    pub weights: Vec<(DType, u64)>,
    /// The outputs.
    pub outputs: &'a [GemmOutput],
}

impl Description<'_> {
    /// `gemm_q4_1_576_k960` and the like: a C identifier.
    pub fn stem(&self) -> String {
        let mut stem = match self.rows {
            Rows::One => "gemv".to_string(),
            Rows::Many(_) => "gemm".to_string(),
        };
        for (dtype, n) in &self.weights {
            stem.push_str(&format!("_{dtype}_{n}"));
        }
        stem.push_str(&format!("_k{}", self.k));
        stem
    }

    /// `gemm [T, 576] x q4_1[960, 576], norm; #0` and the like.
    pub fn summary(&self) -> String {
        let rows = match &self.rows {
            Rows::One => "1".to_string(),
            Rows::Many(plan::Expr::Symbol(id)) => SYMBOLS.get(*id).unwrap_or(&"?").to_string(),
            Rows::Many(_) => "M".to_string(),
        };
        let k = self.k;
        let weights: Vec<String> =
            self.weights.iter().map(|(dtype, n)| format!("{dtype}[{n}, {k}]")).collect();
        let mut summary = format!("gemm [{rows}, {k}] x {}", weights.join(" "));
        if self.norm {
            summary.push_str(", norm");
        }
        for output in self.outputs {
            let append = matches!(output.store, Store::Append { .. });
            summary.push_str(&format!("; {}{}", output.expr, if append { " append" } else { "" }));
        }
        summary
    }
}
