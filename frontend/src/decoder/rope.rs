//! Rotary position embedding: inverse frequencies with their scaling.

/// Rotary position embedding over all of `head_dim`.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// The base of the geometric sequence of frequencies.
    pub theta: f64,
    /// What is done to the frequencies for long contexts.
    pub scaling: RopeScaling,
}

/// What is done to the inverse frequencies for long contexts.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// Nothing.
    None,
    /// All are divided by `factor`.
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Llama 3.1: low frequencies are divided by `factor`, high ones stay, those in between are
    /// interpolated.
    Llama3(Llama3Scaling),
    /// Each is divided by a number of its own, as GGUF files store the result of
    /// [`RopeScaling::Llama3`].
    Divisors(Vec<f32>),
}

/// Parameters of Llama 3.1's scaling.
#[derive(Clone, Debug, PartialEq)]
pub struct Llama3Scaling {
    /// Divisor of the low frequencies.
    pub factor: f64,
    /// `original_context / low_freq_factor` is the wavelength above which a frequency is low.
    pub low_freq_factor: f64,
    /// `original_context / high_freq_factor` is the wavelength below which a frequency is high.
    pub high_freq_factor: f64,
    /// Context length of the pretraining.
    pub original_context: f64,
}

impl Rope {
    /// The inverse frequencies of a head of `head_dim` elements: theta^(−2i / head_dim), scaled.
    ///
    /// The arithmetic is f32 in the order of transformers' `modeling_rope_utils.py`; only the power is
    /// taken in f64 and rounded, so that it is the same on every machine.
    pub fn inv_freq(&self, head_dim: u32) -> Vec<f32> {
        let base: Vec<f32> = (0..head_dim / 2)
            .map(|i| (2 * i) as f32 / head_dim as f32)
            .map(|exponent| 1.0 / self.theta.powf(f64::from(exponent)) as f32)
            .collect();
        match &self.scaling {
            RopeScaling::None => base,
            RopeScaling::Linear { factor } => {
                base.into_iter().map(|f| f / *factor as f32).collect()
            }
            RopeScaling::Llama3(scaling) => base.into_iter().map(|f| scaling.apply(f)).collect(),
            RopeScaling::Divisors(divisors) => {
                base.iter().zip(divisors).map(|(f, d)| f / d).collect()
            }
        }
    }
}

impl Llama3Scaling {
    /// `_compute_llama3_parameters` of transformers for one frequency.
    fn apply(&self, inv_freq: f32) -> f32 {
        let factor = self.factor as f32;
        let low_wavelength = (self.original_context / self.low_freq_factor) as f32;
        let high_wavelength = (self.original_context / self.high_freq_factor) as f32;
        let wavelength = std::f64::consts::TAU as f32 / inv_freq;
        if wavelength > low_wavelength {
            return inv_freq / factor;
        }
        if wavelength < high_wavelength {
            return inv_freq;
        }
        let smooth = (self.original_context as f32 / wavelength - self.low_freq_factor as f32)
            / (self.high_freq_factor - self.low_freq_factor) as f32;
        (1.0 - smooth) * inv_freq / factor + smooth * inv_freq
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rope(scaling: RopeScaling) -> Vec<f32> {
        let theta = 10000.0;
        Rope { theta, scaling }.inv_freq(16)
    }

    fn llama3() -> RopeScaling {
        RopeScaling::Llama3(Llama3Scaling {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_context: 64.0,
        })
    }

    #[test]
    fn frequencies_fall_geometrically() {
        let base = rope(RopeScaling::None);
        assert_eq!(base.len(), 8);
        assert_eq!((base[0], base[4]), (1.0, 0.01));
        let linear = rope(RopeScaling::Linear { factor: 4.0 });
        assert_eq!((linear[0], linear[4]), (0.25, 0.0025));
    }

    /// Wavelengths are 6.3, 19.9, 62.8, 198.7, …; below 16 is high, above 64 is low.
    #[test]
    fn llama3_scales_low_frequencies_only() {
        let (base, scaled) = (rope(RopeScaling::None), rope(llama3()));
        assert_eq!(scaled[0], base[0]);
        assert!(scaled[1] < base[1] && scaled[1] > base[1] / 8.0);
        assert!(scaled[2] < base[2] && scaled[2] > base[2] / 8.0);
        for i in 3..8 {
            assert_eq!(scaled[i], base[i] / 8.0);
        }
    }

    #[test]
    fn divisors_give_the_same_as_the_formula() {
        let (base, scaled) = (rope(RopeScaling::None), rope(llama3()));
        let divisors: Vec<f32> = base.iter().zip(&scaled).map(|(b, s)| b / s).collect();
        for (a, b) in rope(RopeScaling::Divisors(divisors)).iter().zip(&scaled) {
            assert!((a - b).abs() <= 1e-6 * b.abs());
        }
    }
}
