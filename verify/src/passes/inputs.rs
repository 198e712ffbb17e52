//! Seeded random inputs for the functions of a module: extents, parameters, weights.
//!
//! What a function is given depends on the seed, the parameter's place and the weight's name, never on
//! what a pass may change; so a module before a pass and after it get the same. Stored forms are given
//! real numbers, not blocks of bits: how weights are packed is not the passes' business.

use crate::drawn::Random;
use waveloom_ir::interp::{Data, Real};
use waveloom_ir::{DType, Dim, Function, Module, Op, SymbolId, Tensor, Type};

/// One set of inputs.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// Of the random numbers.
    pub seed: u64,
    /// Of every symbol.
    pub extents: Vec<(SymbolId, u64)>,
    /// Size of the activations: small ones show what is added to their squares.
    pub scale: f32,
}

/// Positions in the cache before those of the step.
const EARLIER: u64 = 4;

/// Longest cache that is made so that a window ends within it.
const LONGEST: u64 = 8192;

/// A symbol of which nothing is known.
const EXTENT: u64 = 3;

impl Case {
    /// The sets of inputs that a module is judged on: some tokens, and one.
    pub fn all(module: &Module, seed: u64) -> Vec<Case> {
        let case = |seed, tokens, scale| {
            let extents = Case::extents(module, tokens);
            Case { seed, extents, scale }
        };
        let mut cases = vec![case(seed, EXTENT, 2.0), case(seed.wrapping_add(1), 1, 1.0 / 64.0)];
        cases.dedup_by(|a, b| a.extents == b.extents && a.scale == b.scale);
        cases
    }

    fn extents(module: &Module, tokens: u64) -> Vec<(SymbolId, u64)> {
        let longest = window(module).filter(|&window| window < LONGEST).unwrap_or(0);
        let length = longest + tokens + EARLIER;
        let wanted = |name: &str| match name {
            "T" => tokens,
            "S" => length,
            "C" => length + 2,
            _ => EXTENT,
        };
        let symbols = (0..).map(SymbolId).zip(&module.symbols);
        symbols.map(|(id, s)| (id, wanted(&s.name).clamp(s.min, s.max))).collect()
    }

    /// Extents by name, for people.
    pub fn text(&self, module: &Module) -> String {
        let symbols = self.extents.iter().zip(&module.symbols);
        let each: Vec<_> = symbols.map(|((_, n), s)| format!("{} = {n}", s.name)).collect();
        each.join(", ")
    }

    fn named(&self, module: &Module, name: &str) -> Option<u64> {
        let id = module.symbol(name)?;
        self.extents.iter().find(|(known, _)| *known == id).map(|(_, extent)| *extent)
    }

    /// The extents of a shape.
    pub fn shape(&self, ty: &Type) -> Vec<u64> {
        crate::op::extents(ty, &self.extents)
    }

    /// What parameter `index` of `function` is given. Positions are the last ones of the cache.
    pub fn input(&self, module: &Module, function: &Function, index: usize) -> Tensor<f32> {
        let value = &function.values[function.params[index].index()];
        let name = value.name.as_deref().unwrap_or_default();
        let mut random = Random::new(mix(self.seed, index as u64));
        let shape = self.shape(&value.ty);
        let count = shape.iter().product::<u64>();
        if value.ty.dtype == DType::I32 && name.contains("position") {
            let rows = [self.named(module, "S"), self.named(module, "C")].into_iter().flatten();
            let end = rows.min().unwrap_or(count).max(count);
            let positions = (end - count..end).map(|p| i32::try_from(p).unwrap_or(i32::MAX));
            return Tensor::ints(shape, positions.collect::<Vec<_>>());
        }
        if value.ty.dtype == DType::I32 && name == "last" {
            let last = self.named(module, "T").unwrap_or(1).saturating_sub(1);
            let last = i32::try_from(last).unwrap_or(i32::MAX);
            return Tensor::ints(shape, vec![last; count as usize]);
        }
        let varies = value.ty.shape.iter().any(|dim| matches!(dim, Dim::Symbol(_)));
        let scale = if varies && value.ty.rank() == 2 { self.scale } else { weight_scale(&shape) };
        random_tensor(&mut random, &value.ty, shape, scale)
    }

    /// The value of a weight; of one that is `shortened`, its first elements.
    pub fn weight(&self, name: &str, ty: &Type, shortened: Option<usize>) -> Tensor<f32> {
        let shape = self.shape(ty);
        let seed = name.bytes().fold(self.seed, |seed, byte| mix(seed, byte.into()));
        let mut random = Random::new(seed);
        let scale = weight_scale(&shape);
        let shape = match shortened {
            Some(most) => vec![shape.iter().product::<u64>().min(most as u64)],
            None => shape,
        };
        random_tensor(&mut random, ty, shape, scale)
    }
}

/// Products with a matrix of this scale are about as large as what is multiplied.
fn weight_scale(shape: &[u64]) -> f32 {
    match shape {
        [.., columns] if shape.len() > 1 => 1.0 / (*columns as f32 / 3.0).sqrt().max(1.0),
        _ => 1.0,
    }
}

fn random_tensor(random: &mut Random, ty: &Type, shape: Vec<u64>, scale: f32) -> Tensor<f32> {
    let count = shape.iter().product::<u64>() as usize;
    let data = match ty.dtype {
        // An index of anything that is indexed, or a small number.
        DType::I32 | DType::I8 | DType::U8 => {
            Data::Int((0..count).map(|_| (random.next() % 3) as i32).collect())
        }
        DType::Bool => Data::Bool((0..count).map(|_| random.next().is_multiple_of(2)).collect()),
        _ => Data::Real((0..count).map(|_| random.real() * scale).collect()),
    };
    Tensor { shape, data }
}

/// `a` and `b` as one seed.
fn mix(a: u64, b: u64) -> u64 {
    a.rotate_left(21) ^ b.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The longest window that the module may see through: of an attention, or as a number in a mask.
fn window(module: &Module) -> Option<u64> {
    let insts = module.functions.iter().flat_map(|f| &f.insts);
    let windows = insts.filter_map(|inst| match &inst.op {
        Op::Attention { attr } => attr.window.map(u64::from),
        Op::Constant { value, ty } if ty.dtype == DType::I32 => {
            Some(f64::from(value.0).abs() as u64)
        }
        _ => None,
    });
    windows.max()
}

/// The same numbers in other arithmetic, rounded to what the parameter can hold before and after.
pub fn converted<R: Real>(tensor: &Tensor<f32>, dtypes: &[DType]) -> Tensor<R> {
    let data = match &tensor.data {
        Data::Real(values) => {
            let round = |&x: &f32| dtypes.iter().fold(x, |x, dtype| x.rounded_to(*dtype));
            Data::Real(values.iter().map(|x| R::from_f32(round(x))).collect())
        }
        Data::Int(values) => Data::Int(values.clone()),
        Data::Bool(values) => Data::Bool(values.clone()),
    };
    Tensor { shape: tensor.shape.clone(), data }
}
