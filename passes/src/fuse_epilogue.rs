//! `fuse-epilogue`: what is done to a product, element by element or head by head, becomes part of
//! its `gemm`: bias, residual and activation maps, rotary embedding, the norm of queries and keys, and
//! the write into the KV cache.
//!
//! Heads are a view: `gemm` gives `[T, heads · head_dim]`, while rope, norm and cache_append see
//! `[T, heads, head_dim]`. A fused output is followed by the same reshape as before, so that every
//! rewrite stands for itself; pairs of reshapes that undo each other are elided by rewrites of their own.

use crate::edit::{Editor, edit_functions};
use crate::fuse_map::uses_of;
use crate::gemm::{Gemm, MAX_EXPR_NODES, expr_nodes};
use crate::pass::{PassError, PassOptions, PassReport};
use waveloom_ir::{DType, Dim, Expr, GemmOutput, InstId, Module, Op, Shape, Store, ValueId};

/// The pass.
pub fn run(module: Module, options: &PassOptions) -> Result<(Module, PassReport), PassError> {
    edit_functions("fuse-epilogue", module, options, |editor, report| {
        editor.until_stable(report, |editor, id| {
            if elide_reshape(editor, id)? {
                return Ok(Some("elide-reshape"));
            }
            fuse_gemm(editor, id)
        })
    })
}

/// Rewrites the use of an output of a gemm, or declines. Tried in this order at each output.
type Rewrite = fn(&Editor<'_>, &Site) -> Option<Fusion>;

const REWRITES: &[(&str, Rewrite)] = &[
    ("map-into-gemm", map_into_gemm),
    ("head-map-into-gemm", head_map_into_gemm),
    ("rope-into-gemm", rope_into_gemm),
    ("head-norm-into-gemm", head_norm_into_gemm),
    ("cache-append-into-gemm", cache_append_into_gemm),
];

/// A dense output of a gemm with a single reader.
struct Site {
    /// The gemm.
    id: InstId,
    gemm: Gemm,
    /// All results of the gemm.
    results: Vec<ValueId>,
    /// Which output.
    output: usize,
    /// The reader; of the view by heads, if it is read through one.
    user: InstId,
    /// The value that the reader reads: the output, or its view by heads.
    value: ValueId,
    /// `[T, heads, head_dim]`, if it is read through such a view.
    heads: Option<(Dim, u64, u64)>,
}

impl Site {
    fn expr(&self) -> Expr {
        self.gemm.outputs[self.output].expr.clone()
    }

    /// Width of the output.
    fn shape<'a>(&self, editor: &'a Editor<'_>) -> &'a Shape {
        &editor.ty(self.results[self.output]).shape
    }
}

/// The new form of a gemm and what it replaces.
struct Fusion {
    /// The gemm, with the output changed.
    gemm: Gemm,
    /// The value that the changed output stands for: by heads if the site is.
    replaces: ValueId,
}

/// A reshape of a reshape is one reshape; one that changes nothing is none.
fn elide_reshape(editor: &mut Editor<'_>, id: InstId) -> Result<bool, PassError> {
    let Some(inst) = editor.inst(id).cloned() else {
        return Ok(false);
    };
    let Op::Reshape { shape } = inst.op else {
        return Ok(false);
    };
    let (x, result) = (inst.operands[0], inst.results[0]);
    if editor.ty(x) == editor.ty(result) {
        editor.replace(result, x)?;
        return Ok(true);
    }
    let inner = editor.producer(x).and_then(|(id, _)| editor.inst(id));
    let Some(Op::Reshape { .. }) = inner.map(|inst| &inst.op) else {
        return Ok(false);
    };
    let origin = inner.map_or(x, |inst| inst.operands[0]);
    let direct = editor.insert1(id, Op::Reshape { shape }, vec![origin])?;
    editor.replace(result, direct)?;
    Ok(true)
}

/// Applies the first rewrite that fits an output of gemm `id`.
fn fuse_gemm(editor: &mut Editor<'_>, id: InstId) -> Result<Option<&'static str>, PassError> {
    let Some(inst) = editor.inst(id) else {
        return Ok(None);
    };
    let outputs = match &inst.op {
        Op::Gemm { attr } => attr.outputs.len(),
        _ => return Ok(None),
    };
    for output in 0..outputs {
        let Some(site) = site(editor, id, output) else {
            continue;
        };
        for (name, rewrite) in REWRITES {
            if let Some(fusion) = rewrite(editor, &site) {
                apply(editor, &site, fusion)?;
                return Ok(Some(name));
            }
        }
    }
    Ok(None)
}

fn site(editor: &Editor<'_>, id: InstId, output: usize) -> Option<Site> {
    let inst = editor.inst(id)?;
    let gemm = Gemm::from_inst(inst)?;
    if gemm.outputs[output].store != Store::Dense {
        return None;
    }
    let mut value = inst.results[output];
    let mut user = editor.sole_user(value)?;
    let mut heads = None;
    let reader = editor.inst(user)?;
    if let Op::Reshape { shape } = &reader.op {
        let [rows, Dim::Const(count), Dim::Const(dim)] = shape[..] else {
            return None;
        };
        if editor.ty(value).shape[0] != rows {
            return None;
        }
        heads = Some((rows, count, dim));
        value = reader.results[0];
        user = editor.sole_user(value)?;
    }
    Some(Site { id, gemm, results: inst.results.clone(), output, user, value, heads })
}

fn apply(editor: &mut Editor<'_>, site: &Site, fusion: Fusion) -> Result<(), PassError> {
    let append = fusion.gemm.outputs[site.output].store != Store::Dense;
    // Outputs that only the fused reader read are not computed any more.
    let keep: Vec<bool> = (0..site.results.len())
        .map(|i| i == site.output || is_read_elsewhere(editor, site.results[i], site.user))
        .collect();
    let mut gemm = fusion.gemm;
    gemm.keep_outputs(&keep);
    let (op, operands) = gemm.into_op();
    let mut new = editor.insert(site.id, op, operands)?.into_iter();
    for (i, &old) in site.results.iter().enumerate().filter(|&(i, _)| keep[i]) {
        let Some(new) = new.next() else { break };
        if i != site.output {
            editor.replace(old, new)?;
            continue;
        }
        match site.heads {
            Some((rows, heads, dim)) if !append => {
                editor.copy_name(fusion.replaces, new);
                let shape = vec![rows, Dim::Const(heads), Dim::Const(dim)];
                let view = editor.insert1(site.user, Op::Reshape { shape }, vec![new])?;
                editor.replace(fusion.replaces, view)?;
            }
            _ => editor.replace(fusion.replaces, new)?,
        }
    }
    Ok(())
}

fn is_read_elsewhere(editor: &Editor<'_>, value: ValueId, reader: InstId) -> bool {
    editor.is_returned(value) || editor.users(value).into_iter().any(|user| user != reader)
}

/// Residual, bias, activation, and the product of activated gate and up.
fn map_into_gemm(editor: &Editor<'_>, site: &Site) -> Option<Fusion> {
    let user = editor.inst(site.user)?;
    let Op::Map { expr } = &user.op else {
        return None;
    };
    let shape = site.shape(editor);
    if site.heads.is_some() || &editor.ty(user.results[0]).shape != shape {
        return None;
    }
    let mut gemm = site.gemm.clone();
    let mut nodes = expr_nodes(expr);
    let mut leaves = vec![];
    for (i, &operand) in user.operands.iter().enumerate() {
        let leaf = match editor.producer(operand) {
            Some((id, output)) if id == site.id => {
                let output = &site.gemm.outputs[output];
                if output.store != Store::Dense || &editor.ty(operand).shape != shape {
                    return None;
                }
                output.expr.clone()
            }
            _ => {
                let ty = editor.ty(operand);
                let fits = &ty.shape == shape || ty.shape[..] == shape[1..];
                if !fits || ty.dtype != DType::F32 || editor.depends_on(operand, site.id) {
                    return None;
                }
                Expr::Operand(gemm.extra(operand))
            }
        };
        nodes += uses_of(expr, i as u32) * expr_nodes(&leaf);
        leaves.push(leaf);
    }
    if nodes > MAX_EXPR_NODES {
        return None;
    }
    let expr = substitute(expr, &leaves);
    with_output(gemm, site, expr, user.results[0])
}

/// A map of one operand on the view by heads.
fn head_map_into_gemm(editor: &Editor<'_>, site: &Site) -> Option<Fusion> {
    let user = editor.inst(site.user)?;
    let Op::Map { expr } = &user.op else {
        return None;
    };
    site.heads?;
    if user.operands[..] != [site.value] {
        return None;
    }
    let nodes = expr_nodes(expr) + uses_of(expr, 0) * expr_nodes(&site.expr());
    if nodes > MAX_EXPR_NODES {
        return None;
    }
    let expr = substitute(expr, &[site.expr()]);
    with_output(site.gemm.clone(), site, expr, user.results[0])
}

/// Rotary embedding of each head.
fn rope_into_gemm(editor: &Editor<'_>, site: &Site) -> Option<Fusion> {
    let user = editor.inst(site.user)?;
    let (Op::Rope {}, Some((_, _, dim))) = (&user.op, site.heads) else {
        return None;
    };
    let [x, cos, sin] = user.operands[..] else {
        return None;
    };
    if x != site.value || [cos, sin].iter().any(|&v| editor.depends_on(v, site.id)) {
        return None;
    }
    let mut gemm = site.gemm.clone();
    let expr = Expr::Rope {
        x: Box::new(site.expr()),
        cos: gemm.extra(cos),
        sin: gemm.extra(sin),
        head_dim: u32::try_from(dim).ok()?,
    };
    with_output(gemm, site, expr, user.results[0])
}

/// RMS norm of each head, as Qwen3 has for queries and keys.
fn head_norm_into_gemm(editor: &Editor<'_>, site: &Site) -> Option<Fusion> {
    let user = editor.inst(site.user)?;
    let (Op::Norm { eps }, Some((_, _, dim))) = (&user.op, site.heads) else {
        return None;
    };
    let [x, weight] = user.operands[..] else {
        return None;
    };
    let whole = dim > 0 && dim.is_multiple_of(2);
    if !whole || x != site.value || editor.depends_on(weight, site.id) {
        return None;
    }
    let mut gemm = site.gemm.clone();
    let expr = Expr::HeadNorm {
        x: Box::new(site.expr()),
        weight: gemm.extra(weight),
        eps: *eps,
        head_dim: u32::try_from(dim).ok()?,
    };
    with_output(gemm, site, expr, user.results[0])
}

/// The write of keys or values into their cache. No one else may read the old cache: it is updated in
/// place, earlier than before.
fn cache_append_into_gemm(editor: &Editor<'_>, site: &Site) -> Option<Fusion> {
    let user = editor.inst(site.user)?;
    let (Op::CacheAppend {}, Some(_)) = (&user.op, site.heads) else {
        return None;
    };
    let [cache, new, positions] = user.operands[..] else {
        return None;
    };
    let alone = editor.sole_user(cache) == Some(site.user) && editor.use_count(cache) == 1;
    let depends = |value| editor.depends_on(value, site.id);
    if new != site.value || !alone || depends(cache) || depends(positions) {
        return None;
    }
    let mut gemm = site.gemm.clone();
    let (cache, positions) = (gemm.extra(cache), gemm.extra(positions));
    gemm.outputs[site.output].store = Store::Append { cache, positions };
    Some(Fusion { gemm, replaces: user.results[0] })
}

fn with_output(mut gemm: Gemm, site: &Site, expr: Expr, replaces: ValueId) -> Option<Fusion> {
    let small = expr_nodes(&expr) <= MAX_EXPR_NODES;
    gemm.outputs[site.output] = GemmOutput { expr, store: Store::Dense };
    small.then_some(Fusion { gemm, replaces })
}

/// A map's expression with `leaves` in place of its operands.
fn substitute(expr: &Expr, leaves: &[Expr]) -> Expr {
    let leaf = |leaf: &Expr| match leaf {
        Expr::Operand(i) => leaves[*i as usize].clone(),
        other => other.clone(),
    };
    // Maps have no `rope` and no `head_norm`, so that only leaves name operands.
    expr.rewrite(&leaf, &|i| i)
}
