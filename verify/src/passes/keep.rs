//! A fault of a pass by itself: a module (`NAME.wl`), and on what it was judged (`NAME.safetensors`).
//!
//! The inputs follow from the seed, so the module is all that it takes to see the fault again. For other
//! programs the tensors are there as well: by case, the parameters of the module's last function and its
//! weights. The metadata's `waveloom.pass` says which pass it was, and what was wrong.

use super::attempt::{Attempt, Fault};
use super::inputs::Case;
use crate::VerifyError;
use crate::reproducer::{failed, inputs_path};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, serialize_to_file};
use serde::Serialize;
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use waveloom_ir::interp::Data;
use waveloom_ir::{Module, Tensor};

/// Key of the metadata.
const KEY: &str = "waveloom.pass";

/// What is said of a fault.
#[derive(Serialize)]
struct Facts<'a> {
    pass: &'a str,
    fault: String,
    seed: u64,
    /// By case: extents by symbol.
    extents: Vec<HashMap<&'a str, u64>>,
}

/// Writes a module that shows a fault, and beside it the inputs.
pub fn keep(
    attempt: &Attempt<'_>,
    fault: &Fault,
    module: &Module,
    path: &Path,
) -> Result<(), VerifyError> {
    let fail = |problem: &dyn std::fmt::Display| failed(path, problem);
    fs::write(path, module.to_string()).map_err(|error| fail(&error))?;
    let cases = Case::all(module, attempt.seed);
    let mut tensors = vec![];
    for (index, case) in cases.iter().enumerate() {
        for (name, tensor) in inputs(module, case) {
            tensors.push((format!("case.{index}.{name}"), stored(&tensor)));
        }
    }
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        TensorView::new(*dtype, shape.clone(), bytes).map(|view| (name.clone(), view))
    });
    let views: Vec<_> = views.collect::<Result<_, _>>().map_err(|error| fail(&error))?;
    let extents = |case: &Case| {
        let symbols = case.extents.iter().zip(&module.symbols);
        symbols.map(|((_, extent), symbol)| (symbol.name.as_str(), *extent)).collect()
    };
    let facts = Facts {
        pass: attempt.pass.name,
        fault: fault.to_string(),
        seed: attempt.seed,
        extents: cases.iter().map(extents).collect(),
    };
    let facts = serde_json::to_string(&facts).map_err(|error| fail(&error))?;
    let metadata = HashMap::from([(KEY.to_string(), facts)]);
    serialize_to_file(views, Some(metadata), &inputs_path(path)).map_err(|error| fail(&error))
}

/// Parameters of the last function, and weights, by name.
fn inputs(module: &Module, case: &Case) -> Vec<(String, Tensor<f32>)> {
    let mut all = vec![];
    if let Some(function) = module.functions.last() {
        for (index, param) in function.params.iter().enumerate() {
            let name = function.values[param.index()].name.clone().unwrap_or_default();
            let input = case.input(module, function, index);
            all.push((format!("param.{index}.{name}"), input));
        }
    }
    for weight in &module.weights {
        let value = case.weight(&weight.name, &weight.ty, None);
        all.push((format!("weight.{}", weight.name), value));
    }
    all
}

fn stored(tensor: &Tensor<f32>) -> (Dtype, Vec<usize>, Vec<u8>) {
    let (dtype, bytes) = match &tensor.data {
        Data::Real(values) => {
            (Dtype::F32, values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>())
        }
        Data::Int(values) => (Dtype::I32, values.iter().flat_map(|x| x.to_le_bytes()).collect()),
        Data::Bool(values) => (Dtype::BOOL, values.iter().map(|&x| x.into()).collect()),
    };
    (dtype, tensor.shape.iter().map(|&extent| extent as usize).collect(), bytes)
}
