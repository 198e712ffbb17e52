//! Small integer expressions over the plan's symbols: grids, scalar arguments, buffer sizes.

use serde::{Deserialize, Serialize};

/// Index of a symbol in [`crate::Plan::symbols`].
pub type SymbolId = usize;

/// Values of all symbols of a plan, indexed by [`SymbolId`].
pub type Symbols = [i64];

/// An integer expression over the symbols of a plan. All arithmetic is on `i64` and checked:
/// [`Expr::eval`] gives `None` on overflow or division by zero, which plan verification rules
/// out for every value inside the symbols' bounds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expr {
    /// A constant.
    Const(i64),
    /// The value of a symbol.
    Symbol(SymbolId),
    /// Sum.
    Add(Box<Expr>, Box<Expr>),
    /// Product.
    Mul(Box<Expr>, Box<Expr>),
    /// Quotient, rounded up.
    CeilDiv(Box<Expr>, Box<Expr>),
}

impl Expr {
    /// The value under `symbols`; `None` on overflow, a zero divisor or an unknown symbol.
    pub fn eval(&self, symbols: &Symbols) -> Option<i64> {
        match self {
            Expr::Const(value) => Some(*value),
            Expr::Symbol(id) => symbols.get(*id).copied(),
            Expr::Add(a, b) => a.eval(symbols)?.checked_add(b.eval(symbols)?),
            Expr::Mul(a, b) => a.eval(symbols)?.checked_mul(b.eval(symbols)?),
            Expr::CeilDiv(a, b) => {
                let (a, b) = (a.eval(symbols)?, b.eval(symbols)?);
                if b <= 0 {
                    return None;
                }
                a.checked_add(b - 1).map(|sum| sum.div_euclid(b))
            }
        }
    }
}

impl From<i64> for Expr {
    fn from(value: i64) -> Self {
        Expr::Const(value)
    }
}

impl std::ops::Add for Expr {
    type Output = Expr;
    fn add(self, other: Expr) -> Expr {
        match (self, other) {
            (Expr::Const(a), Expr::Const(b)) => Expr::Const(a + b),
            (Expr::Const(0), e) | (e, Expr::Const(0)) => e,
            (a, b) => Expr::Add(Box::new(a), Box::new(b)),
        }
    }
}

impl std::ops::Mul for Expr {
    type Output = Expr;
    fn mul(self, other: Expr) -> Expr {
        match (self, other) {
            (Expr::Const(a), Expr::Const(b)) => Expr::Const(a * b),
            (Expr::Const(1), e) | (e, Expr::Const(1)) => e,
            (a, b) => Expr::Mul(Box::new(a), Box::new(b)),
        }
    }
}
