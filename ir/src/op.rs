//! The ops, each declared once.

use crate::expr::{BinaryOp, Expr, F32, UnaryOp};
use crate::module::{FuncId, WeightId};
use crate::text::ParseError;
use crate::text::attr::{AttrWriter, Field, FieldReader};
use crate::types::{DType, Dim, Shape, Type};

pub use crate::text::attr::AttrId;

/// Which phase an op belongs to; gates between phases say which families may remain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// What front ends emit.
    Tensor,
    /// What passes raise to and back ends take.
    Macro,
    /// Allowed in every phase.
    Structural,
}

/// Declares the ops: family, variant, spelling, number of operands (`any` where it varies),
/// attributes.
macro_rules! ops {
    ($($(#[$doc:meta])* $family:ident $variant:ident $text:literal ($arity:tt)
        { $($(#[$fdoc:meta])* $field:ident: $ty:ty),* $(,)? };)*) => {
        /// An op with its attributes.
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Op {
            /// A function of one tensor, elementwise; spelled by the function's name.
            Unary(UnaryOp),
            /// A function of two tensors, elementwise with NumPy broadcasting (shapes aligned
            /// at the last dimension; an extent of 1, or a missing one, repeats).
            Binary(BinaryOp),
            $($(#[$doc])* $variant { $($(#[$fdoc])* $field: $ty),* },)*
        }

        impl Op {
            /// Spelling in the text form.
            pub fn mnemonic(&self) -> &'static str {
                match self {
                    Op::Unary(op) => op.name(),
                    Op::Binary(op) => op.name(),
                    $(Op::$variant { .. } => $text,)*
                }
            }

            /// The spelling of every op.
            pub fn mnemonics() -> impl Iterator<Item = &'static str> {
                let unary = UnaryOp::ALL.iter().map(|op| op.name());
                unary.chain(BinaryOp::ALL.iter().map(|op| op.name())).chain([$($text),*])
            }

            /// The family it belongs to.
            pub fn family(&self) -> Family {
                match self {
                    Op::Unary(_) | Op::Binary(_) => Family::Tensor,
                    $(Op::$variant { .. } => Family::$family,)*
                }
            }

            /// Number of operands; `None` where it varies.
            pub fn arity(&self) -> Option<usize> {
                match self {
                    Op::Unary(_) => Some(1),
                    Op::Binary(_) => Some(2),
                    $(Op::$variant { .. } => ops!(@arity $arity),)*
                }
            }

            /// Appends the attributes as text.
            pub(crate) fn write_attrs(&self, out: &mut AttrWriter<'_>) {
                match self {
                    Op::Unary(_) | Op::Binary(_) => {}
                    $(Op::$variant { $($field),* } => {
                        $($field.write_field(stringify!($field), out);)*
                    })*
                }
            }

            /// The op spelled `mnemonic`, with the attributes that follow; `None` where no op is
            /// spelled so.
            pub(crate) fn read(
                mnemonic: &str,
                fields: &mut FieldReader<'_, '_>,
            ) -> Result<Option<Op>, ParseError> {
                Ok(match mnemonic {
                    $($text => Some(Op::$variant {
                        $($field: Field::read_field(stringify!($field), fields)?),*
                    }),)*
                    name => UnaryOp::parse(name)
                        .map(Op::Unary)
                        .or_else(|| BinaryOp::parse(name).map(Op::Binary)),
                })
            }

            /// Visits every id in the attributes.
            pub fn visit_ids(&self, visit: &mut dyn FnMut(AttrId)) {
                match self {
                    Op::Unary(_) | Op::Binary(_) => {}
                    $(Op::$variant { $($field),* } => { $($field.field_ids(visit);)* })*
                }
            }
        }
    };
    (@arity any) => { None };
    (@arity $n:literal) => { Some($n) };
}

ops! {
    /// The weight itself.
    Structural Weight "weight" (0) { /// Which.
        weight: WeightId };
    /// Applies a function: `results = call args`.
    Structural Call "call" (any) { /// Callee; declared before the caller.
        func: FuncId };
    /// The same elements in row-major order under another shape; no element moves.
    Structural Reshape "reshape" (1) { /// New shape; same number of elements for all symbols.
        shape: Shape };
    /// `cache_append cache, new, positions`: `cache[C, …]` with row `positions[i]` replaced by
    /// `new[i]`, converted to the cache's dtype.
    Structural CacheAppend "cache_append" (3) {};

    /// A tensor with one value everywhere.
    Tensor Constant "constant" (0) { /// The value; rounded towards zero for integers.
        value: F32, /// Type of the result.
        ty: Type };
    /// `i32[n]`: 0, 1, 2, …
    Tensor Iota "iota" (0) { /// Number of elements.
        len: Dim };
    /// `select cond, a, b`: a where cond is true, else b, with broadcasting.
    Tensor Select "select" (3) {};
    /// Sum along an axis, which stays with extent 1.
    Tensor ReduceSum "reduce_sum" (1) { /// The axis.
        axis: u32 };
    /// Arithmetic mean along an axis, which stays with extent 1.
    Tensor ReduceMean "reduce_mean" (1) { /// The axis.
        axis: u32 };
    /// Maximum along an axis, which stays with extent 1.
    Tensor ReduceMax "reduce_max" (1) { /// The axis.
        axis: u32 };
    /// `[…, M, K] × […, K, N] → […, M, N]`, accumulated in f32; leading extents are equal.
    Tensor MatMul "matmul" (2) {};
    /// Permutes dimensions: dimension i of the result is dimension `perm[i]` of the operand.
    Tensor Transpose "transpose" (1) { /// A permutation.
        perm: Vec<u32> };
    /// `len` indices of one axis, from `start`.
    Tensor Slice "slice" (1) { /// The axis.
        axis: u32, /// First index.
        start: u64, /// Number of indices; `start + len` is within the operand for all symbols.
        len: Dim };
    /// Joins operands along an axis.
    Tensor Concat "concat" (any) { /// The axis.
        axis: u32 };
    /// Repeats to a shape, by the rules of NumPy broadcasting.
    Tensor Broadcast "broadcast" (1) { /// The shape.
        shape: Shape };
    /// `gather table, indices`: rows of `table` (dimension 0) at i32 `indices`:
    /// `[V, …rest] , [… i] → [… i, …rest]`. The dtype is the table's.
    Tensor Gather "gather" (2) {};
    /// Converts elements between plain dtypes, rounding to nearest even.
    Tensor Cast "cast" (1) { /// Dtype of the result.
        dtype: DType };
    /// Any stored form of real numbers to f32.
    Tensor Dequantize "dequantize" (1) {};
    /// The k largest along the last axis, in falling order, ties by index: values and i32 indices.
    Tensor TopK "top_k" (1) { /// How many.
        k: u64 };

    /// `embed table, indices`: as `gather`, then `dequantize`.
    Macro Embed "embed" (2) {};
    /// `norm x, weight`: RMS norm over the last dimension,
    /// y = x · rsqrt(mean(x²) + eps) · weight.
    Macro Norm "norm" (2) { /// Added to the mean of squares.
        eps: F32 };
    /// `rope x, cos, sin`: rotary embedding of x `f32[T, heads, head_dim]` with angles
    /// `f32[T, head_dim / 2]`, as [`Expr::Rope`].
    Macro Rope "rope" (3) {};
    /// A fused elementwise expression over operands that broadcast to the result.
    Macro Map "map" (any) { /// The expression.
        expr: Expr };
    /// `gemm x, [norm weight], weights…, extras…`; see [`GemmAttr`].
    Macro Gemm "gemm" (any) { /// Everything else.
        attr: GemmAttr };
    /// `attention q, k_cache, v_cache, positions`; see [`AttentionAttr`].
    Macro Attention "attention" (4) { /// Everything else.
        attr: AttentionAttr };
    /// `sample logits, params, counter, history`: draws one token: `f32[1, V], i32[16], i32[1],
    /// i32[H] → i32[1]`. `params` are the words of `SamplingParams` of the plan; `counter` is the
    /// position of the drawn token; of `history` the tokens before it count for penalties. The rule
    /// is in `docs/architecture.md`, "The decode loop".
    Macro Sample "sample" (4) {};
    /// `decode_loop prompt, params`: `i32[T], i32[16] → i32[C]`: generates until a stop token or a
    /// full cache; see [`DecodeLoopAttr`]. The result is every token by position, prompt first, −1
    /// after the end.
    Macro DecodeLoop "decode_loop" (2) { /// Everything else.
        attr: DecodeLoopAttr };
}

/// What happens to the rows of x before the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Prologue {
    /// RMS norm over K with a weight operand `[K]`, as [`Op::Norm`].
    RmsNorm {
        /// Added to the mean of squares.
        eps: F32,
    },
}

/// Where an output of a `gemm` goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Store {
    /// A tensor `[M, N]`.
    Dense,
    /// Rows of a KV cache, as [`Op::CacheAppend`]; the result is the updated cache
    /// `[C, heads, head_dim]` with heads · head_dim = N.
    Append {
        /// Extra operand: the cache.
        cache: u32,
        /// Extra operand: i32 positions, one per row.
        positions: u32,
    },
}

/// One output of a `gemm`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GemmOutput {
    /// Value of an element from accumulators `#i` and extra operands `$j` (`[M, N]`, `[N]`, or
    /// what `Rope` and `HeadNorm` ask for). All accumulators in it have the same N.
    pub expr: Expr,
    /// Where it goes.
    pub store: Store,
}

/// How the kernels of an op are tiled, by program; where it is not said, the back end chooses. A pass
/// that changes the op leaves it out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tiles {
    /// Of the kernel for many tokens.
    pub prefill_tiles: Option<Tiling>,
    /// Of the kernel for one token.
    pub decode_tiles: Option<Tiling>,
}

/// Sizes of tiles: `matrix(rows = 64, columns = 128)`. What they mean is the generator's business.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tiling {
    /// The generator of the kernel, by the back end's name for it.
    pub generator: String,
    /// Sizes by name; the back end chooses those that are left out.
    pub sizes: Vec<(String, u32)>,
}

/// `gemm x, [norm weight], weights…, extras…`.
///
/// x is `f32[M, K]`; weight i is `[N_i, K]` in any stored form; `#i = prologue(x) · W_iᵀ`, `[M, N_i]`
/// in f32. Results, one per output: `f32[M, N]`, or the type of the cache.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GemmAttr {
    /// Number of weight operands.
    pub weights: u32,
    /// What is done to x first; where it is a norm, the norm's weight is the second operand.
    pub prologue: Option<Prologue>,
    /// The outputs.
    pub outputs: Vec<GemmOutput>,
    /// How its kernels are tiled; nothing that it computes.
    pub tiles: Tiles,
}

impl GemmAttr {
    /// Index of the first weight operand.
    pub fn first_weight(&self) -> usize {
        1 + usize::from(self.prologue.is_some())
    }

    /// Index of the first extra operand.
    pub fn first_extra(&self) -> usize {
        self.first_weight() + self.weights as usize
    }
}

/// `attention q, k_cache, v_cache, positions`: q `f32[T, heads · head_dim]`, caches
/// `[C, kv_heads, head_dim]` with the step's rows already appended, positions `i32[T]`; the result
/// is `f32[T, heads · head_dim]`.
///
/// Query row t with position p attends to cache rows j ≤ p (and p − j < window):
/// out = softmax(cap(scale · q·k_j)) · v_j, where cap(x) = softcap · tanh(x / softcap) if given. Head h
/// reads KV head h / (heads / kv_heads).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttentionAttr {
    /// Query heads.
    pub heads: u32,
    /// Key and value heads; divides `heads`.
    pub kv_heads: u32,
    /// Elements per head.
    pub head_dim: u32,
    /// Multiplies the scores.
    pub scale: F32,
    /// Sliding window: how many positions, the query's own included, are seen.
    pub window: Option<u32>,
    /// Soft cap of the scores.
    pub softcap: Option<F32>,
}

/// The loop around a decode step: it owns the KV cache, the position, sampling and the stop rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DecodeLoopAttr {
    /// The region: one step `(tokens i32[T], positions i32[T], last i32[1], caches…) → (logits
    /// f32[1, V], caches…)`. Caches start as zeros.
    pub step: FuncId,
    /// Tokens that end a generation (and are not part of it).
    pub stop_tokens: Vec<u32>,
}
