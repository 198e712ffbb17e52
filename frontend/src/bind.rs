//! Finds the tensor for each weight of a description, and checks its shape.

use crate::checkpoint::{Checkpoint, ModelWeights, RopeRows};
use crate::decoder::config::DecoderConfig;
use crate::decoder::emit::INV_FREQ;
use crate::decoder::names::{LayerWeight, WeightName};
use crate::error::Result;
use std::collections::HashMap;
use waveloom_ir::{Dim, Type};

/// What the files hold for each weight.
pub(crate) struct Bound {
    /// The type of each weight as stored.
    pub types: HashMap<WeightName, Type>,
    /// Bytes by canonical name.
    pub weights: ModelWeights,
}

/// Binds every weight that `config` asks for; what else the files hold is left aside.
pub(crate) fn bind(
    config: &DecoderConfig,
    checkpoint: Checkpoint,
    file_name: fn(WeightName) -> String,
) -> Result<Bound> {
    let mut types = HashMap::new();
    let mut weights = ModelWeights::new();
    for (name, shape) in weight_shapes(config) {
        let (tensor, dtype) = checkpoint.find(&file_name(name), &shape)?;
        let canonical = name.canonical();
        match checkpoint.rope_rows {
            RopeRows::Pairs if is_rotated(name) => {
                weights.add_paired(&canonical, tensor, config.head_dim.into());
            }
            _ => weights.add_mapped(&canonical, tensor),
        }
        let shape: Vec<Dim> = shape.into_iter().map(Dim::Const).collect();
        types.insert(name, Type::new(dtype, shape));
    }
    weights.add_owned(INV_FREQ, &config.rope.inv_freq(config.head_dim));
    weights.take_files(checkpoint.files);
    Ok(Bound { types, weights })
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
