//! Small integer expressions over the plan's symbols: grids, scalar arguments, buffer sizes.

use crate::plan::Symbol;
use serde::{Deserialize, Serialize};
use std::fmt;

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

    /// Smallest and largest value over all values of `symbols` inside their bounds; the interval
    /// may be wider than the truth, never narrower. `None` if some value overflows, divides by
    /// less than one, or a symbol is unknown.
    pub fn bounds(&self, symbols: &[Symbol]) -> Option<(i64, i64)> {
        let corners = |a: &Expr, b: &Expr, apply: fn(i64, i64) -> Option<i64>| {
            let ((a0, a1), (b0, b1)) = (a.bounds(symbols)?, b.bounds(symbols)?);
            let values = [apply(a0, b0)?, apply(a0, b1)?, apply(a1, b0)?, apply(a1, b1)?];
            Some((*values.iter().min()?, *values.iter().max()?))
        };
        match self {
            Expr::Const(value) => Some((*value, *value)),
            Expr::Symbol(id) => symbols.get(*id).map(|symbol| (symbol.min, symbol.max)),
            Expr::Add(a, b) => corners(a, b, i64::checked_add),
            Expr::Mul(a, b) => corners(a, b, i64::checked_mul),
            Expr::CeilDiv(a, b) => corners(a, b, |a, b| {
                Expr::CeilDiv(Box::new(Expr::Const(a)), Box::new(Expr::Const(b))).eval(&[])
            }),
        }
    }

    /// Whether `test` holds for every symbol that occurs.
    pub fn all_symbols(&self, test: &mut dyn FnMut(SymbolId) -> bool) -> bool {
        match self {
            Expr::Const(_) => true,
            Expr::Symbol(id) => test(*id),
            Expr::Add(a, b) | Expr::Mul(a, b) | Expr::CeilDiv(a, b) => {
                a.all_symbols(test) && b.all_symbols(test)
            }
        }
    }

    /// The expression as text, with symbols spelled as in `symbols`.
    pub fn display<'a>(&'a self, symbols: &'a [Symbol]) -> impl fmt::Display + 'a {
        Spelled { expr: self, symbols }
    }
}

/// An expression with the names of its symbols.
struct Spelled<'a> {
    expr: &'a Expr,
    symbols: &'a [Symbol],
}

impl<'a> Spelled<'a> {
    fn of(&self, expr: &'a Expr) -> Spelled<'a> {
        Spelled { expr, symbols: self.symbols }
    }

    /// A factor: sums get parentheses.
    fn factor(&self, f: &mut fmt::Formatter<'_>, expr: &'a Expr) -> fmt::Result {
        match expr {
            Expr::Add(..) => write!(f, "({})", self.of(expr)),
            _ => write!(f, "{}", self.of(expr)),
        }
    }
}

impl fmt::Display for Spelled<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.expr {
            Expr::Const(value) => write!(f, "{value}"),
            Expr::Symbol(id) => match self.symbols.get(*id) {
                Some(symbol) => f.write_str(&symbol.name),
                None => write!(f, "symbol{id}"),
            },
            Expr::Add(a, b) => write!(f, "{} + {}", self.of(a), self.of(b)),
            Expr::Mul(a, b) => {
                self.factor(f, a)?;
                f.write_str("*")?;
                self.factor(f, b)
            }
            Expr::CeilDiv(a, b) => write!(f, "ceil_div({}, {})", self.of(a), self.of(b)),
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
            (Expr::Const(0), e) | (e, Expr::Const(0)) => e,
            (Expr::Const(a), Expr::Const(b)) if a.checked_add(b).is_some() => Expr::Const(a + b),
            // An overflow stays as it is, for verification to report.
            (a, b) => Expr::Add(Box::new(a), Box::new(b)),
        }
    }
}

impl std::ops::Mul for Expr {
    type Output = Expr;
    fn mul(self, other: Expr) -> Expr {
        match (self, other) {
            (Expr::Const(1), e) | (e, Expr::Const(1)) => e,
            (Expr::Const(a), Expr::Const(b)) if a.checked_mul(b).is_some() => Expr::Const(a * b),
            (a, b) => Expr::Mul(Box::new(a), Box::new(b)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn symbols() -> Vec<Symbol> {
        let symbol = |name: &str, min, max| Symbol { name: name.into(), min, max };
        vec![symbol("T", 1, 8), symbol("S", 1, 64)]
    }

    fn any_expr() -> impl Strategy<Value = Expr> {
        let leaf = prop_oneof![
            (-9i64..9).prop_map(Expr::Const),
            Just(Expr::Const(i64::MAX)),
            (0usize..3).prop_map(Expr::Symbol),
        ];
        leaf.prop_recursive(4, 24, 2, |inner| {
            (0..3, inner.clone(), inner).prop_map(|(op, a, b)| match op {
                0 => a + b,
                1 => a * b,
                _ => Expr::CeilDiv(Box::new(a), Box::new(b)),
            })
        })
    }

    proptest! {
        #[test]
        fn bounds_hold_for_every_value(expr in any_expr(), t in 1i64..=8, s in 1i64..=64) {
            if let Some((low, high)) = expr.bounds(&symbols()) {
                let value = expr.eval(&[t, s]);
                prop_assert!(value.is_some_and(|v| low <= v && v <= high), "{value:?}");
            }
        }
    }

    #[test]
    fn folding_does_not_overflow() {
        let huge = Expr::from(i64::MAX);
        assert_eq!((huge.clone() + Expr::from(1)).eval(&[]), None);
        assert_eq!((huge.clone() * Expr::from(2)).eval(&[]), None);
        assert_eq!(huge + Expr::from(0), Expr::from(i64::MAX));
        assert_eq!(Expr::from(3) * Expr::from(4), Expr::from(12));
    }

    #[test]
    fn prints_with_names() {
        let sum = Expr::Symbol(0) + Expr::from(3);
        let expr = Expr::CeilDiv(Box::new(sum.clone() * Expr::Symbol(1)), Box::new(Expr::from(4)));
        assert_eq!(expr.display(&symbols()).to_string(), "ceil_div((T + 3)*S, 4)");
        assert_eq!(Expr::Symbol(7).display(&symbols()).to_string(), "symbol7");
    }
}
