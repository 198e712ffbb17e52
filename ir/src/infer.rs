//! Result types of an op from its operands' types.
//!
//! The builder calls [`infer`] to make types and the verifier calls it again to check them.

use crate::expr::{BinaryOp, Expr, UnaryOp};
use crate::module::{FuncId, Module};
use crate::op::{AttentionAttr, GemmAttr, Op, Store};
use crate::types::{DType, Dim, Layout, MAX_RANK, Shape, Type};
use thiserror::Error;

/// Why an op does not fit its operands.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{op}`: {problem}")]
pub struct InferError {
    /// Spelling of the op.
    pub op: &'static str,
    /// What is wrong.
    pub problem: String,
}

type Types = Result<Vec<Type>, String>;

/// The result types of `op` on operands of types `operands`.
pub fn infer(module: &Module, op: &Op, operands: &[&Type]) -> Result<Vec<Type>, InferError> {
    let fail = |problem| InferError { op: op.mnemonic(), problem };
    if let Some(arity) = op.arity()
        && operands.len() != arity
    {
        return Err(fail(format!("takes {arity} operands, found {}", operands.len())));
    }
    infer_types(module, op, operands).map_err(fail)
}

fn infer_types(module: &Module, op: &Op, args: &[&Type]) -> Types {
    match op {
        Op::Weight { weight } => {
            let weight = module.weights.get(weight.index()).ok_or("no such weight")?;
            Ok(vec![weight.ty.clone()])
        }
        Op::Call { func } => infer_call(module, *func, args),
        Op::Reshape { shape } => infer_reshape(args[0], shape),
        Op::Constant { ty, .. } => {
            require(!ty.dtype.is_block(), || format!("a constant cannot be {}", ty.dtype))?;
            Ok(vec![ty.clone()])
        }
        Op::Iota { len } => Ok(vec![Type::new(DType::I32, [*len])]),
        Op::Unary(op) => infer_unary(*op, args[0]),
        Op::Binary(op) => infer_binary(*op, args[0], args[1]),
        Op::Select {} => {
            require(args[0].dtype == DType::Bool, || "the condition is not bool".into())?;
            require(args[1].dtype == args[2].dtype, || "the two values differ in dtype".into())?;
            require(!args[1].dtype.is_block(), || "cannot select blocks".into())?;
            let values = broadcast_shapes(&args[1].shape, &args[2].shape)?;
            let shape = broadcast_shapes(&args[0].shape, &values)?;
            Ok(vec![Type::new(args[1].dtype, shape)])
        }
        Op::ReduceSum { axis } | Op::ReduceMean { axis } | Op::ReduceMax { axis } => {
            require_f32(args[0])?;
            let mut shape = args[0].shape.clone();
            *axis_mut(&mut shape, *axis)? = Dim::Const(1);
            Ok(vec![Type::f32(shape)])
        }
        Op::MatMul {} => infer_matmul(args[0], args[1]),
        Op::Transpose { perm } => infer_transpose(args[0], perm),
        Op::Slice { axis, start, len } => infer_slice(module, args[0], *axis, *start, *len),
        Op::Concat { axis } => infer_concat(args, *axis),
        Op::Broadcast { shape } => {
            require(!args[0].dtype.is_block(), || "cannot repeat blocks".into())?;
            let joined = broadcast_shapes(&args[0].shape, shape)?;
            require(&joined == shape, || "the operand does not repeat to the shape".into())?;
            Ok(vec![Type::new(args[0].dtype, shape.clone())])
        }
        Op::Gather {} => Ok(vec![Type::new(args[0].dtype, gathered_shape(args[0], args[1])?)]),
        Op::Embed {} => {
            require_stored_real(args[0])?;
            Ok(vec![Type::f32(gathered_shape(args[0], args[1])?)])
        }
        Op::Cast { dtype } => {
            require(!dtype.is_block() && !args[0].dtype.is_block(), || {
                "converts plain dtypes only; blocks are read by `dequantize`".into()
            })?;
            Ok(vec![Type::new(*dtype, args[0].shape.clone())])
        }
        Op::Dequantize {} => {
            require_stored_real(args[0])?;
            Ok(vec![Type::f32(args[0].shape.clone())])
        }
        Op::CacheAppend {} => infer_cache_append(args[0], args[1], args[2]),
        Op::TopK { k } => infer_top_k(args[0], *k),
        Op::Norm { .. } => {
            require_f32(args[0])?;
            require(args[1].rank() == 1 && args[0].shape.last() == args[1].shape.first(), || {
                "the weight's shape is not the last dimension of x".into()
            })?;
            require_stored_real(args[1])?;
            Ok(vec![args[0].clone()])
        }
        Op::Rope {} => {
            require_f32(args[0])?;
            let [rows, _, Dim::Const(dim)] = args[0].shape[..] else {
                return Err("x is not [T, heads, head_dim]".into());
            };
            let angles = Type::f32([rows, Dim::Const(dim / 2)]);
            require(dim % 2 == 0 && *args[1] == angles && *args[2] == angles, || {
                "angles are not f32[T, head_dim / 2]".into()
            })?;
            Ok(vec![args[0].clone()])
        }
        Op::Map { expr } => infer_map(expr, args),
        Op::Gemm { attr } => infer_gemm(attr, args),
        Op::Attention { attr } => infer_attention(attr, args),
        Op::Sample {} => {
            let logits = args[0].rank() == 2 && args[0].shape[0] == Dim::Const(1);
            require(logits && args[0].dtype == DType::F32, || "logits are not f32[1, V]".into())?;
            require(*args[1] == i32s(16), || "sampling parameters are not i32[16]".into())?;
            require(*args[2] == i32s(1), || "the counter is not i32[1]".into())?;
            let history = args[3].dtype == DType::I32 && args[3].rank() == 1;
            require(history, || "the history is not i32[H]".into())?;
            Ok(vec![i32s(1)])
        }
        Op::DecodeLoop { attr } => infer_decode_loop(module, attr.step, args),
    }
}

fn i32s(len: u64) -> Type {
    Type::new(DType::I32, [Dim::Const(len)])
}

fn require(condition: bool, problem: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(problem()) }
}

fn require_f32(ty: &Type) -> Result<(), String> {
    require(ty.dtype == DType::F32, || format!("wants f32, found {}", ty.dtype))
}

fn require_stored_real(ty: &Type) -> Result<(), String> {
    require(ty.dtype.is_stored_real(), || format!("wants stored real numbers, found {}", ty.dtype))
}

fn axis_mut(shape: &mut Shape, axis: u32) -> Result<&mut Dim, String> {
    let rank = shape.len();
    shape.get_mut(axis as usize).ok_or_else(|| format!("axis {axis} of a rank-{rank} tensor"))
}

/// The shape that two shapes broadcast to: aligned at the last dimension, 1 repeats.
pub fn broadcast_shapes(a: &[Dim], b: &[Dim]) -> Result<Shape, String> {
    let rank = a.len().max(b.len());
    let dim = |shape: &[Dim], i: usize| match (i + shape.len()).checked_sub(rank) {
        Some(i) => shape[i],
        None => Dim::Const(1),
    };
    (0..rank)
        .map(|i| match (dim(a, i), dim(b, i)) {
            (x, y) if x == y => Ok(x),
            (Dim::Const(1), y) => Ok(y),
            (x, Dim::Const(1)) => Ok(x),
            _ => Err(format!("shapes do not broadcast at dimension {i}")),
        })
        .collect()
}

fn infer_call(module: &Module, func: FuncId, args: &[&Type]) -> Types {
    let callee = module.functions.get(func.index()).ok_or("no such function, or not before it")?;
    require(args.len() == callee.params.len(), || {
        format!("@{} takes {} arguments, found {}", callee.name, callee.params.len(), args.len())
    })?;
    for (i, (arg, param)) in args.iter().zip(callee.param_types()).enumerate() {
        require(*arg == param, || format!("argument {i} is not of @{}'s type", callee.name))?;
    }
    Ok(callee.result_types().cloned().collect())
}

/// The product of the constant extents and the sorted symbols.
fn element_count(shape: &[Dim]) -> Option<(u64, Vec<Dim>)> {
    let mut constant = 1u64;
    let mut symbols = vec![];
    for &dim in shape {
        match dim {
            Dim::Const(extent) => constant = constant.checked_mul(extent)?,
            Dim::Symbol(_) => symbols.push(dim),
        }
    }
    symbols.sort();
    Some((constant, symbols))
}

fn infer_reshape(x: &Type, shape: &Shape) -> Types {
    require(!x.dtype.is_block(), || "cannot reshape blocks".into())?;
    let (from, to) = (element_count(&x.shape), element_count(shape));
    require(from.is_some() && from == to, || "the number of elements changes".into())?;
    Ok(vec![Type::new(x.dtype, shape.clone())])
}

fn infer_unary(op: UnaryOp, x: &Type) -> Types {
    require(x.dtype == DType::F32 || op == UnaryOp::Neg && x.dtype == DType::I32, || {
        format!("wants f32, found {}", x.dtype)
    })?;
    Ok(vec![Type::new(x.dtype, x.shape.clone())])
}

fn infer_binary(op: BinaryOp, a: &Type, b: &Type) -> Types {
    require(a.dtype == b.dtype, || format!("operands are {} and {}", a.dtype, b.dtype))?;
    let wants_bool = op.is_logical();
    let known = if wants_bool {
        a.dtype == DType::Bool
    } else {
        matches!(a.dtype, DType::F32 | DType::I32)
    };
    require(known, || format!("does not take {}", a.dtype))?;
    let dtype = if op.is_comparison() { DType::Bool } else { a.dtype };
    Ok(vec![Type::new(dtype, broadcast_shapes(&a.shape, &b.shape)?)])
}

fn infer_matmul(a: &Type, b: &Type) -> Types {
    require_f32(a)?;
    require_f32(b)?;
    let rank = a.rank();
    require(rank >= 2 && rank == b.rank(), || "wants two tensors of equal rank, 2 or more".into())?;
    require(a.shape[..rank - 2] == b.shape[..rank - 2], || "leading extents differ".into())?;
    require(a.shape[rank - 1] == b.shape[rank - 2], || "the reduced extents differ".into())?;
    let mut shape = a.shape.clone();
    shape[rank - 1] = b.shape[rank - 1];
    Ok(vec![Type::f32(shape)])
}

fn infer_transpose(x: &Type, perm: &[u32]) -> Types {
    require(!x.dtype.is_block(), || "cannot transpose blocks".into())?;
    let mut seen: Vec<u32> = perm.to_vec();
    seen.sort_unstable();
    require(seen.iter().copied().eq(0..x.rank() as u32), || "not a permutation".into())?;
    let shape: Shape = perm.iter().map(|&i| x.shape[i as usize]).collect();
    Ok(vec![Type::new(x.dtype, shape)])
}

fn infer_slice(module: &Module, x: &Type, axis: u32, start: u64, len: Dim) -> Types {
    require(!x.dtype.is_block(), || "cannot slice blocks".into())?;
    let mut shape = x.shape.clone();
    let extent = axis_mut(&mut shape, axis)?;
    let fits = match (*extent, len) {
        (Dim::Const(extent), len) => {
            start.checked_add(module.max_extent(len)).is_some_and(|end| end <= extent)
        }
        // Within a symbolic extent only a prefix is provable: the cache `[C]` up to `S`, whose
        // bounds are the same by the contract between the symbols (S ≤ C).
        (symbolic, len) if symbolic == len => start == 0,
        (Dim::Symbol(extent), Dim::Symbol(len)) => {
            let (extent, len) = (&module.symbols[extent.index()], &module.symbols[len.index()]);
            start == 0 && len.max <= extent.max
        }
        (Dim::Symbol(extent), Dim::Const(len)) => {
            let min = module.symbols[extent.index()].min;
            start.checked_add(len).is_some_and(|end| end <= min)
        }
    };
    require(fits, || "reaches past the operand".into())?;
    *extent = len;
    Ok(vec![Type::new(x.dtype, shape)])
}

fn infer_concat(args: &[&Type], axis: u32) -> Types {
    let first = args.first().ok_or("wants at least one operand")?;
    let mut total = 0u64;
    for part in args {
        let mut shape = part.shape.clone();
        let extent = *axis_mut(&mut shape, axis)?;
        let Dim::Const(extent) = extent else {
            return Err("the joined extent is symbolic".into());
        };
        total = total.checked_add(extent).ok_or("the joined extent overflows")?;
        *axis_mut(&mut shape, axis)? = first.shape[axis as usize];
        require(part.dtype == first.dtype && shape == first.shape, || {
            "operands differ in more than the joined extent".into()
        })?;
    }
    require(!first.dtype.is_block() || axis as usize + 1 < first.rank(), || {
        "cannot join blocks along the last dimension".into()
    })?;
    let mut shape = first.shape.clone();
    *axis_mut(&mut shape, axis)? = Dim::Const(total);
    Ok(vec![Type::new(first.dtype, shape)])
}

fn gathered_shape(table: &Type, indices: &Type) -> Result<Shape, String> {
    require(indices.dtype == DType::I32, || "indices are not i32".into())?;
    require(table.rank() > usize::from(table.dtype.is_block()), || "the table has no rows".into())?;
    require(indices.rank() + table.rank() <= MAX_RANK + 1, || {
        format!("the result has more than {MAX_RANK} dimensions")
    })?;
    Ok(indices.shape.iter().chain(&table.shape[1..]).copied().collect())
}

fn infer_cache_append(cache: &Type, new: &Type, positions: &Type) -> Types {
    require(cache.rank() >= 1 && new.rank() == cache.rank(), || "ranks differ".into())?;
    require(new.shape[1..] == cache.shape[1..], || "rows differ in shape".into())?;
    require(positions.dtype == DType::I32 && positions.shape[..] == new.shape[..1], || {
        "positions are not one i32 per new row".into()
    })?;
    require(!cache.dtype.is_block() && cache.dtype.is_stored_real(), || {
        format!("a cache cannot be {}", cache.dtype)
    })?;
    require_f32(new)?;
    Ok(vec![cache.clone()])
}

fn infer_top_k(x: &Type, k: u64) -> Types {
    require_f32(x)?;
    let mut shape = x.shape.clone();
    let last = shape.last_mut().ok_or("wants rank 1 or more")?;
    require(matches!(*last, Dim::Const(n) if n >= k), || format!("fewer than {k} elements"))?;
    *last = Dim::Const(k);
    Ok(vec![Type::f32(shape.clone()), Type::new(DType::I32, shape)])
}

fn infer_map(expr: &Expr, args: &[&Type]) -> Types {
    let mut problem = None;
    expr.walk(&mut |e| match e {
        Expr::Acc(_) | Expr::Rope { .. } | Expr::HeadNorm { .. } => {
            problem = Some("only `gemm` has accumulators, `rope` and `head_norm`".to_string());
        }
        Expr::Operand(i) if *i as usize >= args.len() => {
            problem = Some(format!("names operand ${i} of {}", args.len()));
        }
        Expr::Unary(..) | Expr::Binary(..) | Expr::Operand(_) | Expr::Const(_) => {}
    });
    if let Some(problem) = problem {
        return Err(problem);
    }
    let mut shape = Shape::new();
    for arg in args {
        require(matches!(arg.dtype, DType::I32) || arg.dtype.is_stored_real(), || {
            format!("does not take {}", arg.dtype)
        })?;
        shape = broadcast_shapes(&shape, &arg.shape)?;
    }
    Ok(vec![Type::f32(shape)])
}

fn infer_gemm(attr: &GemmAttr, args: &[&Type]) -> Types {
    require(attr.weights > 0 && args.len() >= attr.first_extra(), || "too few operands".into())?;
    let x = args[0];
    require_f32(x)?;
    require(x.rank() == 2, || "x is not [M, K]".into())?;
    let k = x.shape[1];
    if attr.prologue.is_some() {
        require(args[1].shape == [k], || "the norm weight is not [K]".into())?;
        require_stored_real(args[1])?;
    }
    let weights = &args[attr.first_weight()..attr.first_extra()];
    let mut columns = vec![];
    for weight in weights {
        require_stored_real(weight)?;
        require(weight.rank() == 2 && weight.shape[1] == k, || "a weight is not [N, K]".into())?;
        match weight.shape[0] {
            Dim::Const(n) => columns.push(n),
            Dim::Symbol(_) => return Err("a weight has a symbolic extent".into()),
        }
    }
    let extras = &args[attr.first_extra()..];
    attr.outputs
        .iter()
        .map(|output| infer_gemm_output(output, x.shape[0], &columns, extras))
        .collect()
}

fn infer_gemm_output(
    output: &crate::op::GemmOutput,
    rows: Dim,
    columns: &[u64],
    extras: &[&Type],
) -> Result<Type, String> {
    let n = output_columns(&output.expr, columns)?;
    check_epilogue(&output.expr, rows, n, extras)?;
    match output.store {
        Store::Dense => Ok(Type::f32([rows, Dim::Const(n)])),
        Store::Append { cache, positions } => {
            let cache = extras.get(cache as usize).ok_or("names a cache that is not there")?;
            let positions =
                extras.get(positions as usize).ok_or("names positions that are not there")?;
            let row = match cache.shape[..] {
                [_, Dim::Const(heads), Dim::Const(dim)] => heads.checked_mul(dim),
                _ => None,
            };
            require(row == Some(n), || "the cache's rows are not as wide as the output".into())?;
            require(positions.dtype == DType::I32 && positions.shape == [rows], || {
                "positions are not one i32 per row".into()
            })?;
            Ok((*cache).clone())
        }
    }
}

/// The one N of all accumulators in an output's expression.
fn output_columns(expr: &Expr, columns: &[u64]) -> Result<u64, String> {
    let mut found: Result<Option<u64>, String> = Ok(None);
    expr.walk(&mut |e| {
        if let (Expr::Acc(i), Ok(n)) = (e, &found) {
            found = match (columns.get(*i as usize), n) {
                (None, _) => Err(format!("names weight #{i} of {}", columns.len())),
                (Some(new), Some(old)) if new != old => {
                    Err("accumulators of one output differ in width".into())
                }
                (Some(new), _) => Ok(Some(*new)),
            };
        }
    });
    found?.ok_or_else(|| "an output uses no accumulator".into())
}

fn check_epilogue(expr: &Expr, rows: Dim, n: u64, extras: &[&Type]) -> Result<(), String> {
    let mut result = Ok(());
    expr.walk(&mut |e| {
        if result.is_ok() {
            result = check_epilogue_node(e, rows, n, extras);
        }
    });
    result
}

fn check_epilogue_node(expr: &Expr, rows: Dim, n: u64, extras: &[&Type]) -> Result<(), String> {
    let extra = |i: u32| {
        extras
            .get(i as usize)
            .ok_or_else(|| format!("names extra operand ${i} of {}", extras.len()))
    };
    match expr {
        Expr::Acc(_) | Expr::Const(_) | Expr::Unary(..) | Expr::Binary(..) => Ok(()),
        Expr::Operand(i) => {
            let shape = &extra(*i)?.shape;
            let columns = Dim::Const(n);
            require(*shape == [rows, columns] || *shape == [columns], || {
                format!("extra operand ${i} is neither [M, N] nor [N]")
            })
        }
        Expr::Rope { cos, sin, head_dim, .. } => {
            let half = Dim::Const(u64::from(*head_dim) / 2);
            let angles = extra(*cos)?.shape == [rows, half] && extra(*sin)?.shape == [rows, half];
            require(angles, || "`rope` wants angles [M, head_dim / 2]".into())?;
            require_heads(n, *head_dim)
        }
        Expr::HeadNorm { weight, head_dim, .. } => {
            let shape = &extra(*weight)?.shape;
            require(*shape == [Dim::Const(u64::from(*head_dim))], || {
                "`head_norm` wants a weight [head_dim]".into()
            })?;
            require_heads(n, *head_dim)
        }
    }
}

fn require_heads(n: u64, head_dim: u32) -> Result<(), String> {
    require(
        head_dim > 0 && head_dim.is_multiple_of(2) && n.is_multiple_of(u64::from(head_dim)),
        || format!("{n} columns are not whole heads of {head_dim}"),
    )
}

fn infer_attention(attr: &AttentionAttr, args: &[&Type]) -> Types {
    let [q, k, v, positions] = args else {
        return Err("wants four operands".into());
    };
    let wide = |heads: u32| Dim::Const(u64::from(heads) * u64::from(attr.head_dim));
    require_f32(q)?;
    require(q.rank() == 2 && q.shape[1] == wide(attr.heads), || {
        "q is not [T, heads · head_dim]".into()
    })?;
    require(attr.kv_heads > 0 && attr.heads.is_multiple_of(attr.kv_heads), || {
        "query heads are not a multiple of KV heads".into()
    })?;
    require(attr.heads > 0 && attr.head_dim > 0 && attr.window != Some(0), || {
        "heads, head_dim and window cannot be 0".into()
    })?;
    let row = [Dim::Const(attr.kv_heads.into()), Dim::Const(attr.head_dim.into())];
    require(k.rank() == 3 && k.shape[1..] == row && k.shape == v.shape, || {
        "caches are not [C, kv_heads, head_dim]".into()
    })?;
    require(positions.dtype == DType::I32 && positions.shape[..] == q.shape[..1], || {
        "positions are not one i32 per query row".into()
    })?;
    let accepts = |ty: &Type| !ty.dtype.is_block() && ty.dtype.is_stored_real();
    require(accepts(k) && accepts(v), || "caches are not plain reals".into())?;
    Ok(vec![Type::f32(q.shape.clone())])
}

fn infer_decode_loop(module: &Module, step: FuncId, args: &[&Type]) -> Types {
    let step = module.functions.get(step.index()).ok_or("no such step function")?;
    let params: Vec<&Type> = step.param_types().collect();
    let results: Vec<&Type> = step.result_types().collect();
    require(params.len() >= 3 && params.len() == results.len() + 2, || {
        "the step is not (tokens, positions, last, caches…) → (logits, caches…)".into()
    })?;
    let [tokens, positions, last, caches @ ..] = &params[..] else {
        return Err("the step takes fewer than three operands".into());
    };
    require(tokens.dtype == DType::I32 && tokens.rank() == 1 && positions == tokens, || {
        "tokens and positions of the step are not i32[T]".into()
    })?;
    require(**last == i32s(1), || "the step's third operand is not i32[1]".into())?;
    let logits = results[0].dtype == DType::F32 && results[0].rank() == 2;
    require(logits && results[0].shape[0] == Dim::Const(1), || {
        "the step's first result is not f32[1, V]".into()
    })?;
    require(caches.iter().eq(results[1..].iter()), || "caches change their type".into())?;
    let plain_real = |ty: &&Type| !ty.dtype.is_block() && ty.dtype.is_stored_real();
    require(caches.iter().all(plain_real), || "caches are not plain reals".into())?;
    require(args[0] == *tokens, || "the prompt is not of the step's token type".into())?;
    require(*args[1] == i32s(16), || "sampling parameters are not i32[16]".into())?;
    let context = caches.first().and_then(|cache| cache.shape.first()).copied();
    let context = context.ok_or("the step has no cache")?;
    Ok(vec![Type::new(DType::I32, [context])])
}

/// Whether `layout` may describe a tensor of this shape; the verifier asks.
pub fn layout_fits(ty: &Type) -> bool {
    match ty.layout {
        Layout::RowMajor => true,
        Layout::PositionLanes(lanes) => lanes > 0 && ty.rank() == 3,
        Layout::HeadMajor => ty.rank() == 3,
        Layout::KeyBlocks(lanes) | Layout::ValueBlocks(lanes) => {
            lanes > 0 && lanes % 8 == 0 && ty.rank() == 3 && !ty.dtype.is_block()
        }
    }
}

#[cfg(test)]
mod tests;
