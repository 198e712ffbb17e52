//! Scalar expressions: bodies of `map`, epilogues of `gemm`.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

/// An `f32` that compares and hashes by its bits, so that it can be part of an op.
#[derive(Clone, Copy, Debug)]
pub struct F32(pub f32);

impl PartialEq for F32 {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}
impl Eq for F32 {}
impl Hash for F32 {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}
impl PartialOrd for F32 {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for F32 {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}
impl fmt::Display for F32 {
    /// The shortest decimal that reads back to the same bits, always with a point or an exponent;
    /// or `inf`, `-inf`, `nan`, and for NaNs with other bits `nan.0x…`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            x if x.to_bits() == f32::NAN.to_bits() => f.write_str("nan"),
            x if x.is_nan() => write!(f, "nan.{:#x}", x.to_bits()),
            x => write!(f, "{x:?}"),
        }
    }
}

/// Declares scalar functions once: variant, spelling.
macro_rules! scalar_ops {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// Every function.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// Spelling in the text form.
            pub const fn name(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }

            /// The function spelled `name`.
            pub fn parse(name: &str) -> Option<$name> {
                Self::ALL.iter().copied().find(|op| op.name() == name)
            }
        }
    };
}

scalar_ops! {
    /// A function of one real number.
    UnaryOp {
        /// −x.
        Neg "neg",
        /// |x|.
        Abs "abs",
        /// eˣ.
        Exp "exp",
        /// Natural logarithm.
        Log "log",
        /// Square root.
        Sqrt "sqrt",
        /// 1/√x.
        Rsqrt "rsqrt",
        /// 1/(1 + e⁻ˣ).
        Sigmoid "sigmoid",
        /// Hyperbolic tangent.
        Tanh "tanh",
        /// Sine.
        Sin "sin",
        /// Cosine.
        Cos "cos",
    }
}

scalar_ops! {
    /// A function of two numbers. Comparisons give `bool`; `And` and `Or` take it.
    BinaryOp {
        /// a + b.
        Add "add",
        /// a − b.
        Sub "sub",
        /// a · b.
        Mul "mul",
        /// a / b.
        Div "div",
        /// The larger.
        Max "max",
        /// The smaller.
        Min "min",
        /// a < b.
        Lt "lt",
        /// a ≤ b.
        Le "le",
        /// Logical and.
        And "and",
        /// Logical or.
        Or "or",
    }
}

impl BinaryOp {
    /// Whether the result is `bool` whatever the operands are.
    pub const fn is_comparison(self) -> bool {
        matches!(self, BinaryOp::Lt | BinaryOp::Le)
    }

    /// Whether operands and result are `bool`.
    pub const fn is_logical(self) -> bool {
        matches!(self, BinaryOp::And | BinaryOp::Or)
    }
}

/// How deep expressions may nest, so that walking them needs little stack.
pub const MAX_EXPR_DEPTH: u32 = 128;

/// An expression over the operands of a macro-op, evaluated for each element in f32.
///
/// Text: s-expressions such as `(mul (mul #0 (sigmoid #0)) #1)`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Expr {
    /// `#i`: the accumulator of weight `i` of a `gemm`.
    Acc(u32),
    /// `$i`: operand `i` of a `map`, or extra operand `i` of a `gemm`, broadcast to the result's
    /// shape; i32 operands are converted to f32.
    Operand(u32),
    /// A constant.
    Const(F32),
    /// `(exp x)`.
    Unary(UnaryOp, Box<Expr>),
    /// `(add x y)`.
    Binary(BinaryOp, Box<Expr>, Box<Expr>),
    /// `(rope x $cos $sin head_dim)`: rotary embedding of each group of `head_dim` columns, in
    /// the rotate-half convention of Hugging Face: with h = head_dim / 2,
    /// `y[i] = x[i]·cos[i] − x[i+h]·sin[i]` and `y[i+h] = x[i+h]·cos[i] + x[i]·sin[i]`, i < h.
    /// `cos` and `sin` are `[rows, h]`.
    Rope {
        /// What is rotated.
        x: Box<Expr>,
        /// Extra operand with the cosines.
        cos: u32,
        /// Extra operand with the sines.
        sin: u32,
        /// Columns per head.
        head_dim: u32,
    },
    /// `(head_norm x $weight eps head_dim)`: RMS norm of each group of `head_dim` columns:
    /// y = x · rsqrt(mean(x²) + eps) · weight, weight `[head_dim]`.
    HeadNorm {
        /// What is normalized.
        x: Box<Expr>,
        /// Extra operand with the weight.
        weight: u32,
        /// Added to the mean of squares.
        eps: F32,
        /// Columns per head.
        head_dim: u32,
    },
}

impl Expr {
    /// A constant.
    pub fn constant(value: f32) -> Expr {
        Expr::Const(F32(value))
    }

    /// `op(x)`.
    pub fn unary(op: UnaryOp, x: Expr) -> Expr {
        Expr::Unary(op, Box::new(x))
    }

    /// `op(x, y)`.
    pub fn binary(op: BinaryOp, x: Expr, y: Expr) -> Expr {
        Expr::Binary(op, Box::new(x), Box::new(y))
    }

    /// Whether it nests at most `depth` deep; a leaf is 1 deep.
    pub fn is_within_depth(&self, depth: u32) -> bool {
        let Some(inner) = depth.checked_sub(1) else {
            return false;
        };
        match self {
            Expr::Acc(_) | Expr::Operand(_) | Expr::Const(_) => true,
            Expr::Unary(_, x) | Expr::Rope { x, .. } | Expr::HeadNorm { x, .. } => {
                x.is_within_depth(inner)
            }
            Expr::Binary(_, x, y) => x.is_within_depth(inner) && y.is_within_depth(inner),
        }
    }

    /// Visits this expression and all inside it, outermost first.
    pub fn walk(&self, visit: &mut impl FnMut(&Expr)) {
        visit(self);
        match self {
            Expr::Acc(_) | Expr::Operand(_) | Expr::Const(_) => {}
            Expr::Unary(_, x) | Expr::Rope { x, .. } | Expr::HeadNorm { x, .. } => x.walk(visit),
            Expr::Binary(_, x, y) => {
                x.walk(visit);
                y.walk(visit);
            }
        }
    }

    /// Replaces each leaf (`Acc`, `Operand`) by what `leaf` gives for it, and the operand indices
    /// of `Rope` and `HeadNorm` by what `index` gives.
    pub fn rewrite(&self, leaf: &impl Fn(&Expr) -> Expr, index: &impl Fn(u32) -> u32) -> Expr {
        let inner = |x: &Expr| Box::new(x.rewrite(leaf, index));
        match self {
            Expr::Acc(_) | Expr::Operand(_) => leaf(self),
            Expr::Const(value) => Expr::Const(*value),
            Expr::Unary(op, x) => Expr::Unary(*op, inner(x)),
            Expr::Binary(op, x, y) => Expr::Binary(*op, inner(x), inner(y)),
            Expr::Rope { x, cos, sin, head_dim } => {
                Expr::Rope { x: inner(x), cos: index(*cos), sin: index(*sin), head_dim: *head_dim }
            }
            Expr::HeadNorm { x, weight, eps, head_dim } => Expr::HeadNorm {
                x: inner(x),
                weight: index(*weight),
                eps: *eps,
                head_dim: *head_dim,
            },
        }
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expr::Acc(i) => write!(f, "#{i}"),
            Expr::Operand(i) => write!(f, "${i}"),
            Expr::Const(value) => value.fmt(f),
            Expr::Unary(op, x) => write!(f, "({} {x})", op.name()),
            Expr::Binary(op, x, y) => write!(f, "({} {x} {y})", op.name()),
            Expr::Rope { x, cos, sin, head_dim } => {
                write!(f, "(rope {x} ${cos} ${sin} {head_dim})")
            }
            Expr::HeadNorm { x, weight, eps, head_dim } => {
                write!(f, "(head_norm {x} ${weight} {eps} {head_dim})")
            }
        }
    }
}
