//! Finds the tensor for each weight of a description, and checks its shape.

use crate::checkpoint::{Checkpoint, ModelWeights, RopeRows};
use crate::decoder::config::DecoderConfig;
use crate::decoder::emit::INV_FREQ;
use crate::decoder::names::{LayerWeight, WeightName};
use crate::error::Result;
use crate::model::Tensors;
use std::collections::HashMap;
use waveloom_ir::{DType, Dim, Type};

/// What the files hold for each weight.
pub(crate) struct Bound {
    /// The type of each weight as stored.
    pub types: HashMap<WeightName, Type>,
    /// Bytes by canonical name.
    pub weights: ModelWeights,
}

/// Binds every weight that `config` asks for; what else the files hold is left aside.
pub(crate) fn bind(config: &DecoderConfig, tensors: Tensors) -> Result<Bound> {
    let mut bound = Bound { types: HashMap::new(), weights: ModelWeights::new() };
    match tensors {
        Tensors::Stored { checkpoint, file_name } => bound.find(config, checkpoint, file_name)?,
        Tensors::Implied(dtype) => bound.imply(config, dtype),
    }
    let inv_freq = config.rope.inv_freq(config.head_dim);
    bound.weights.add_owned(INV_FREQ, inv_freq.iter().flat_map(|f| f.to_le_bytes()).collect());
    Ok(bound)
}

impl Bound {
    /// Finds each weight in the model's files.
    fn find(
        &mut self,
        config: &DecoderConfig,
        checkpoint: Checkpoint,
        file_name: fn(WeightName) -> String,
    ) -> Result<()> {
        for (name, shape) in weight_shapes(config) {
            let (tensor, dtype) = checkpoint.find(&file_name(name), &shape)?;
            let canonical = name.canonical();
            match checkpoint.rope_rows {
                RopeRows::Pairs if is_rotated(name) => {
                    self.weights.add_paired(&canonical, tensor, config.head_dim.into());
                }
                _ => self.weights.add_mapped(&canonical, tensor),
            }
            self.declare(name, dtype, shape);
        }
        self.weights.take_files(checkpoint.files);
        Ok(())
    }

    /// Declares each weight, and gives norms, which scale by about 1, the value 1.
    fn imply(&mut self, config: &DecoderConfig, dtype: DType) {
        for (name, shape) in weight_shapes(config) {
            if name.is_norm() {
                let one: &[u8] = match dtype {
                    DType::F16 => &[0x00, 0x3c],
                    DType::BF16 => &[0x80, 0x3f],
                    _ => &[0x00, 0x00, 0x80, 0x3f],
                };
                self.weights.add_repeated(&name.canonical(), one, shape.iter().product());
            }
            self.declare(name, dtype, shape);
        }
    }

    fn declare(&mut self, name: WeightName, dtype: DType, shape: Vec<u64>) {
        let shape: Vec<Dim> = shape.into_iter().map(Dim::Const).collect();
        self.types.insert(name, Type::new(dtype, shape));
    }
}

fn is_rotated(name: WeightName) -> bool {
    matches!(name, WeightName::Layer(_, weight) if weight.is_rotated())
}

/// Every weight with its shape, outermost extent first, in the order in which modules declare them.
fn weight_shapes(config: &DecoderConfig) -> impl Iterator<Item = (WeightName, Vec<u64>)> {
    let (vocab, hidden) = (u64::from(config.vocab), u64::from(config.hidden));
    let layers = (0..config.layers()).flat_map(move |i| {
        LayerWeight::ALL.iter().filter_map(move |&weight| {
            let shape = config.shape_of(weight)?;
            Some((WeightName::Layer(i, weight), shape))
        })
    });
    let head = (!config.tied_embeddings).then(|| (WeightName::Head, vec![vocab, hidden]));
    std::iter::once((WeightName::Embedding, vec![vocab, hidden]))
        .chain(layers)
        .chain([(WeightName::FinalNorm, vec![hidden])])
        .chain(head)
}
