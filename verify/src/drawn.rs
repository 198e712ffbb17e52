//! Weights that are in no file, as a checkpoint would have them: what a model is compiled and
//! verified with of which there is only the configuration.
//!
//! They are made of a seed and a weight's name, in the stored dtype of its declaration, so that
//! packing is verified, too (unlike synthetic weights, which a runtime makes up in packed form).

use std::borrow::Cow;
use std::collections::HashMap;
use waveloom_ir::storage::{is_writable, quantize};
use waveloom_ir::{DType, Dim, Module, Type, Weights};
use waveloom_plan::synthetic::scatter;

/// A source of weights that are made up where another source has none.
pub struct Drawn<'a> {
    given: &'a dyn Weights,
    seed: u64,
    /// Declarations by name.
    declared: HashMap<&'a str, (DType, &'a Type)>,
}

impl<'a> Drawn<'a> {
    /// The weights that `module` declares: those of `given`, the others drawn.
    pub fn new(module: &'a Module, given: &'a dyn Weights, seed: u64) -> Drawn<'a> {
        let declared = module.weights.iter().map(|w| (w.name.as_str(), (w.stored, &w.ty)));
        Drawn { given, seed, declared: declared.collect() }
    }
}

impl Weights for Drawn<'_> {
    fn bytes(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        if let Some(bytes) = self.given.bytes(name) {
            return Some(bytes);
        }
        let (dtype, ty) = self.declared.get(name)?;
        let shape: Option<Vec<u64>> = ty.shape.iter().map(|dim| constant(*dim)).collect();
        let shape = shape.filter(|_| is_writable(*dtype))?;
        let columns = *shape.last()? as usize;
        let seed = name.bytes().fold(self.seed, |hash, byte| scatter(hash ^ u64::from(byte)));
        let mut random = Random::new(seed);
        // Products with a vector are then of about the vector's own size.
        let scale = 1.0 / (columns.max(1) as f32).sqrt();
        let count = shape.iter().product::<u64>() as usize;
        let values: Vec<f32> = (0..count).map(|_| random.normal() * scale).collect();
        quantize(*dtype, &values, columns).ok().map(Cow::Owned)
    }
}

fn constant(dim: Dim) -> Option<u64> {
    match dim {
        Dim::Const(extent) => Some(extent),
        Dim::Symbol(_) => None,
    }
}

/// Random numbers: SplitMix64.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Random {
        Random(scatter(seed))
    }

    /// 64 random bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        scatter(self.0)
    }

    /// In −1..1.
    pub fn real(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// About normal, of mean 0 and variance 1: a sum of four uniform numbers.
    fn normal(&mut self) -> f32 {
        let bits = self.next();
        let parts = [0, 16, 32, 48].map(|shift| (bits >> shift & 0xffff) as f32 / 65536.0 - 0.5);
        // Four uniform numbers of variance 1/12 each.
        parts.iter().sum::<f32>() * 3f32.sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use waveloom_ir::storage::dequantize;

    #[test]
    fn weights_depend_on_seed_and_name_and_have_their_size() {
        let mut module = Module::new("m");
        module.add_weight("a", Type::new(DType::BF16, [Dim::Const(64), Dim::Const(256)]));
        module.add_weight("b", Type::new(DType::Q8_0, [Dim::Const(64), Dim::Const(256)]));
        let given = HashMap::from([("c".to_string(), vec![1u8, 2])]);
        let drawn = Drawn::new(&module, &given, 1);
        assert_eq!(drawn.bytes("c").unwrap().as_ref(), [1, 2]);
        assert!(drawn.bytes("d").is_none());
        let other = Drawn::new(&module, &given, 2);
        assert_eq!(drawn.bytes("a"), Drawn::new(&module, &given, 1).bytes("a"));
        assert_ne!(drawn.bytes("a"), other.bytes("a"));
        for (name, dtype) in [("a", DType::BF16), ("b", DType::Q8_0)] {
            let mut values = vec![0.0; 64 * 256];
            dequantize(dtype, &drawn.bytes(name).unwrap(), &mut values).unwrap();
            let square: f32 = values.iter().map(|x| x * x).sum::<f32>() / values.len() as f32;
            assert!((square * 256.0 - 1.0).abs() < 0.05, "{name}: {square}");
        }
    }
}
