//! How a kernel computes, as far as its results can differ from those of exact arithmetic: what a
//! generator says of the kernel it made, and a checker derives its bounds from.
//!
//! Everything is f32 with one rounding per operation, unless it is said here.

/// How a number is rounded before it is multiplied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Rounding {
    /// Not at all, from what is stored: an f32, or a stored form.
    #[default]
    None,
    /// To f16. Where `flushes`, results below the smallest normal number count as zero.
    F16 {
        /// Whether there are no subnormal numbers.
        flushes: bool,
    },
    /// To bf16.
    Bf16,
    /// To the sum of two f16.
    TwoF16,
    /// To the sum of two bf16. Where both factors are such sums, the product of the second ones is left
    /// out.
    TwoBf16,
    /// To an integer of at most so much times a factor that a block of 32 shares.
    Fixed {
        /// The integer of the block's largest number.
        largest: u16,
    },
}

/// Elements that share a scale in [`Rounding::Fixed`].
pub const BLOCK: usize = 32;

impl Rounding {
    /// Largest error relative to the number; 0 where that is not how it rounds.
    pub fn relative(self) -> f64 {
        match self {
            Rounding::None | Rounding::Fixed { .. } => 0.0,
            Rounding::F16 { .. } => 2f64.powi(-11),
            Rounding::Bf16 => 2f64.powi(-8),
            // The second f16 holds what the first one leaves, to eleven bits.
            Rounding::TwoF16 => 2f64.powi(-22),
            // What the first bf16 cuts off is below 2⁻⁷ of the number, and what the second one cuts off
            // of that below 2⁻¹⁵; the product that is left out is below 2⁻⁸ · 2⁻⁷ of the factors'.
            Rounding::TwoBf16 => 2f64.powi(-14),
        }
    }

    /// Largest error of a number that is too small for the relative one.
    pub fn absolute(self) -> f64 {
        match self {
            Rounding::None | Rounding::Bf16 | Rounding::Fixed { .. } => 0.0,
            // Subnormal numbers count as zeros.
            Rounding::TwoBf16 => 2f64.powi(-126),
            Rounding::F16 { flushes: false } | Rounding::TwoF16 => 2f64.powi(-25),
            Rounding::F16 { flushes: true } => 2f64.powi(-14),
        }
    }

    /// Largest errors of the numbers of a row, one by one.
    pub fn errors(self, row: &[f64]) -> Vec<f64> {
        match self {
            Rounding::Fixed { largest } => row
                .chunks(BLOCK)
                .flat_map(|block| {
                    let most = block.iter().fold(0.0f64, |a, x| a.max(x.abs()));
                    // Half a step, and a hundredth for the rounding of the factor's inverse.
                    std::iter::repeat_n(most / f64::from(largest) * 0.51, block.len())
                })
                .collect(),
            _ => {
                let (relative, absolute) = (self.relative(), self.absolute());
                row.iter().map(|x| (relative * x.abs()).max(absolute)).collect()
            }
        }
    }
}

/// How products are added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Sums {
    /// In f32, each sum rounded to the nearest; integers exactly.
    #[default]
    Nearest,
    /// By a matrix operation: in f32, with up to two roundings a product, in any direction.
    Matrix,
}

/// How a product of activations with a matrix is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Factors {
    /// How activations are rounded.
    pub activations: Rounding,
    /// How elements of the matrix are rounded.
    pub matrix: Rounding,
    /// How their products are added up.
    pub sums: Sums,
}

/// How a kernel computes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Numerics {
    /// Its products, in the op's order: of a `gemm` one per weight, of an `attention` those of
    /// queries with keys, and of probabilities with values. What is missing is plain f32.
    pub products: Vec<Factors>,
}

impl Numerics {
    /// Factors `index`.
    pub fn product(&self, index: usize) -> Factors {
        self.products.get(index).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

    /// What the declared errors bound, on numbers of every size.
    #[test]
    fn roundings_are_within_their_errors() {
        let numbers: Vec<f64> = (-30..16)
            .flat_map(|e| (0..40).map(move |i| (1.0 + f64::from(i) / 39.7) * 2f64.powi(e)))
            .collect();
        let check = |rounding: Rounding, round: &dyn Fn(f64) -> f64| {
            for (x, error) in numbers.iter().zip(rounding.errors(&numbers)) {
                assert!((round(*x) - x).abs() <= error, "{rounding:?} of {x}");
            }
        };
        let to_f16 = |x: f64| f16::from_f64(x).to_f64();
        check(Rounding::F16 { flushes: false }, &to_f16);
        let flushed = |x: f64| if to_f16(x) < 2f64.powi(-14) { 0.0 } else { to_f16(x) };
        check(Rounding::F16 { flushes: true }, &flushed);
        check(Rounding::Bf16, &|x| bf16::from_f64(x).to_f64());
        check(Rounding::TwoF16, &|x| to_f16(x) + to_f16(x - to_f16(x)));
        // Cut off, which is worse than rounded.
        let cut = |x: f64| f64::from(f32::from_bits((x as f32).to_bits() & 0xffff_0000));
        check(Rounding::TwoBf16, &|x| cut(x) + cut(x - cut(x)));
        let largest = numbers[..BLOCK].iter().fold(0.0f64, |a, x| a.max(*x));
        let errors = Rounding::Fixed { largest: 16256 }.errors(&numbers);
        for (x, error) in numbers[..BLOCK].iter().zip(errors) {
            let step = largest / 16256.0;
            assert!(((x / step).round() * step - x).abs() <= error);
        }
    }
}
