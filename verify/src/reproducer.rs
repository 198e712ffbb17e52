//! A launch by itself: a module of one op (`NAME.wl`), and its inputs (`NAME.safetensors`).
//!
//! The module's function `@main` takes the operands that are no weights. The tensors are these, as
//! `operand.0`, `operand.1`, … in row-major order, and the weights by name as their stored bytes; the
//! metadata's `waveloom.reproducer` says for which target and program, with which values of symbols.

use crate::check::{Checked, Machine};
use crate::drawn::Drawn;
use crate::op::{Operation, extents};
use crate::passes::{Case, converted};
use crate::{Subject, VerifyError};
use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors, serialize_to_file, tensor::TensorView};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use waveloom_ir::{
    DType, Dim, Layout, Module, SymbolId, Tensor, Type, WeightId, interp::Data, weight_bytes,
};
use waveloom_passes::{Buffer, BufferId, BufferKind, Schedule, Step, updated_operand};

/// Key of the metadata.
const KEY: &str = "waveloom.reproducer";
/// Vocabulary of the sampler that a plan must have.
const VOCAB: u64 = 64;

/// A launch by itself.
pub struct Reproducer {
    /// The op.
    pub operation: Operation,
    /// Target, program, symbols.
    pub facts: Facts,
    /// By operand: bytes in row-major order, with the extents; `None` for weights.
    inputs: Vec<Option<(Vec<u64>, Vec<u8>)>>,
    /// Bytes of the weights, as their declarations store them.
    pub weights: HashMap<String, Vec<u8>>,
}

/// What a reproducer is for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// The target that the kernel was made for.
    pub target: String,
    /// Index of the program: 0 is prefill, 1 decode.
    pub program: usize,
    /// Values of the symbols, by name.
    pub symbols: Vec<(String, i64)>,
}

impl Reproducer {
    /// Of a launch that was checked; `None` of one that chose a token.
    pub fn of(
        subject: &Subject<'_>,
        machine: &Machine<'_>,
        program: usize,
        checked: &Checked,
    ) -> Result<Option<Reproducer>, VerifyError> {
        let Some(operation) = checked.operation.as_ref() else { return Ok(None) };
        let mut module = operation.module.clone();
        let mut weights = HashMap::new();
        for weight in &mut module.weights {
            let bytes = weight_bytes(weight, subject.weights)?;
            weights.insert(weight.name.clone(), bytes.into_owned());
            // They are kept as they were converted.
            weight.stored = weight.ty.dtype;
        }
        let operation = Operation::of_module(module)?;
        let input = |(tensor, ty): (&Option<Tensor<f64>>, &Type)| {
            tensor.as_ref().map(|tensor| (tensor.shape.clone(), bytes_of(tensor, ty.dtype)))
        };
        let inputs = checked.inputs.iter().zip(&operation.operands).map(input).collect();
        let names = machine.plan.symbols.iter().map(|symbol| symbol.name.clone());
        let facts = Facts {
            target: machine.plan.target.clone(),
            program,
            symbols: names.zip(machine.symbols.iter().copied()).collect(),
        };
        Ok(Some(Reproducer { operation, facts, inputs, weights }))
    }

    /// Of a step that could not run, on random inputs of a seed.
    pub fn drawn(
        module: &Module,
        schedule: &Schedule,
        step: &Step,
        (target, program): (&str, usize),
        seed: u64,
    ) -> Result<Reproducer, VerifyError> {
        let weight = |id: &BufferId| {
            let buffer = &schedule.buffers[id.index()];
            matches!(buffer.kind, BufferKind::Weight(_)).then(|| buffer.name.clone())
        };
        let function = &module.functions[step.func.index()];
        let named = step.operands.iter().map(weight).collect();
        let mut alone = Operation::new(module, function, step.inst, named)?.module;
        // In the form that kernels read, which is one that can be written.
        alone.weights.iter_mut().for_each(|weight| weight.stored = weight.ty.dtype);
        let given = HashMap::new();
        let mut weights = HashMap::new();
        for weight in &alone.weights {
            let bytes = weight_bytes(weight, &Drawn::new(&alone, &given, seed))?.into_owned();
            weights.insert(weight.name.clone(), bytes);
        }
        let operation = Operation::of_module(alone)?;
        // A decode step has one token.
        let cases = Case::all(&operation.module, seed);
        let case = if program == 0 { cases.first() } else { cases.last() };
        let case = case.ok_or(VerifyError::NotOneOp)?;
        let main = &operation.module.functions[crate::op::MAIN.index()];
        let mut params = 0..main.params.len();
        let inputs = operation.operands.iter().zip(&operation.weights).map(|(ty, weight)| {
            let param = if weight.is_none() { params.next()? } else { return None };
            let input = case.input(&operation.module, main, param);
            let input = converted::<f64>(&input, &[ty.dtype]);
            Some((input.shape.clone(), bytes_of(&input, ty.dtype)))
        });
        let inputs = inputs.collect();
        let symbols = case.extents.iter().zip(&operation.module.symbols);
        let symbols = symbols.map(|((_, extent), s)| (s.name.clone(), *extent as i64)).collect();
        let facts = Facts { target: target.to_string(), program, symbols };
        Ok(Reproducer { operation, facts, inputs, weights })
    }

    /// Writes `NAME.wl` and, beside it, the inputs.
    pub fn write(&self, path: &Path) -> Result<(), VerifyError> {
        let fail = |problem: &dyn std::fmt::Display| failed(path, problem);
        fs::write(path, self.operation.module.to_string()).map_err(|e| fail(&e))?;
        let mut tensors = vec![];
        for (index, input) in self.inputs.iter().enumerate() {
            let Some((shape, bytes)) = input else { continue };
            let dtype = dtype_of(self.operation.operands[index].dtype);
            let shape = shape.iter().map(|&n| n as usize).collect();
            let view = TensorView::new(dtype, shape, bytes).map_err(|e| fail(&e))?;
            tensors.push((format!("operand.{index}"), view));
        }
        for (name, bytes) in &self.weights {
            let view = TensorView::new(Dtype::U8, vec![bytes.len()], bytes);
            tensors.push((name.clone(), view.map_err(|e| fail(&e))?));
        }
        let facts = serde_json::to_string(&self.facts).map_err(|e| fail(&e))?;
        let metadata = HashMap::from([(KEY.to_string(), facts)]);
        serialize_to_file(tensors, Some(metadata), &inputs_path(path)).map_err(|e| fail(&e))
    }

    /// Reads what [`Reproducer::write`] wrote.
    pub fn read(path: &Path) -> Result<Reproducer, VerifyError> {
        let text = fs::read_to_string(path).map_err(|e| failed(path, &e))?;
        let module = waveloom_ir::parse(&text).map_err(|e| failed(path, &e))?;
        waveloom_ir::verify::check(&module).map_err(|e| failed(path, &e))?;
        let operation = Operation::of_module(module)?;
        let beside = inputs_path(path);
        let fail = |problem: &dyn std::fmt::Display| failed(&beside, problem);
        let bytes = fs::read(&beside).map_err(|e| fail(&e))?;
        let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|e| fail(&e))?;
        let facts = metadata.metadata().as_ref().and_then(|metadata| metadata.get(KEY));
        let facts = facts.ok_or_else(|| fail(&format!("its metadata has no `{KEY}`")))?;
        let facts: Facts = serde_json::from_str(facts).map_err(|e| fail(&e))?;
        let tensors = SafeTensors::deserialize(&bytes).map_err(|e| fail(&e))?;
        let mut reproducer =
            Reproducer { operation, facts, inputs: vec![], weights: HashMap::new() };
        reproducer.check_facts().map_err(|problem| fail(&problem))?;
        reproducer.take(&tensors).map_err(|problem| fail(&problem))?;
        Ok(reproducer)
    }

    fn check_facts(&self) -> Result<(), String> {
        if self.facts.program > 1 {
            return Err(format!("there is no program {}", self.facts.program));
        }
        for symbol in &self.operation.module.symbols {
            let value = self.facts.symbols.iter().find(|(name, _)| *name == symbol.name);
            let (_, value) = value.ok_or_else(|| format!("symbol {} has no value", symbol.name))?;
            if !(symbol.min as i64..=symbol.max as i64).contains(value) {
                return Err(format!("symbol {} cannot be {value}", symbol.name));
            }
        }
        Ok(())
    }

    fn take(&mut self, tensors: &SafeTensors<'_>) -> Result<(), String> {
        let symbols = self.extents();
        let get = |name: &str| tensors.tensor(name).map_err(|e| format!("`{name}`: {e}"));
        for (index, ty) in self.operation.operands.iter().enumerate() {
            if self.operation.weights[index].is_some() {
                self.inputs.push(None);
                continue;
            }
            let name = format!("operand.{index}");
            let tensor = get(&name)?;
            let shape = extents(ty, &symbols);
            let found: Vec<u64> = tensor.shape().iter().map(|&n| n as u64).collect();
            if tensor.dtype() != dtype_of(ty.dtype) || found != shape {
                return Err(format!("`{name}` must be {} of {shape:?}", ty.dtype));
            }
            self.inputs.push(Some((shape, tensor.data().to_vec())));
        }
        for weight in &self.operation.module.weights {
            let bytes = get(&weight.name)?.data().to_vec();
            self.weights.insert(weight.name.clone(), bytes);
        }
        Ok(())
    }

    /// The context that it needs.
    pub fn context(&self) -> u32 {
        let context = self.facts.symbols.iter().find(|(name, _)| name == "C");
        context.and_then(|(_, value)| u32::try_from(*value).ok()).unwrap_or(1)
    }

    fn extents(&self) -> Vec<(SymbolId, u64)> {
        let value = |name: &str| {
            let known = self.facts.symbols.iter().find(|(known, _)| known == name)?;
            u64::try_from(known.1).ok()
        };
        let symbols = (0..).zip(&self.operation.module.symbols);
        symbols.filter_map(|(id, symbol)| Some((SymbolId(id), value(&symbol.name)?))).collect()
    }

    /// The op as all of a step: what is compiled to run it again.
    pub fn schedule(&self) -> Schedule {
        let operation = &self.operation;
        let mut buffers: Vec<Buffer> = vec![];
        let mut add = |name: String, ty: Type, kind: BufferKind| {
            buffers.push(Buffer { name, ty, kind });
            BufferId(buffers.len() as u32 - 1)
        };
        let mut known: HashMap<&str, BufferId> = HashMap::new();
        let results = 0..operation.results.len();
        let updated: Vec<Option<usize>> =
            results.map(|result| updated_operand(operation.op(), result)).collect();
        let mut operands = vec![];
        for (index, ty) in operation.operands.iter().enumerate() {
            operands.push(match &operation.weights[index] {
                Some(name) => *known.entry(name).or_insert_with(|| {
                    let declared = operation.module.weights.iter().zip(0..);
                    let declared = declared.filter(|(weight, _)| weight.name == *name);
                    let (ty, id) = declared
                        .map(|(weight, id)| (weight.ty.clone(), WeightId(id)))
                        .next()
                        .unwrap_or((ty.clone(), WeightId(0)));
                    add(name.clone(), ty, BufferKind::Weight(id))
                }),
                None => {
                    let stays = ty.layout != Layout::RowMajor || updated.contains(&Some(index));
                    let kind = if stays { BufferKind::State } else { BufferKind::Input };
                    add(format!("operand.{index}"), ty.clone(), kind)
                }
            });
        }
        let results =
            operation.results.iter().enumerate().map(|(index, ty)| match updated[index] {
                Some(operand) => operands[operand],
                None => add(format!("result.{index}"), ty.clone(), BufferKind::Temporary),
            });
        let results = results.collect();
        // What a plan has besides.
        let tokens = operation.module.symbol("T").map_or(Dim::Const(1), Dim::Symbol);
        let ints = |dim| Type::new(DType::I32, [dim]);
        let host = [("tokens", tokens), ("positions", tokens), ("last", Dim::Const(1))];
        let [tokens, positions, last] =
            host.map(|(name, dim)| add(name.into(), ints(dim), BufferKind::Input));
        let logits = Type::f32([Dim::Const(1), Dim::Const(VOCAB)]);
        let logits = add("logits".into(), logits, BufferKind::Logits);
        let step = Step { func: crate::op::MAIN, inst: operation.inst, operands, results };
        Schedule { buffers, steps: vec![step], tokens, positions, last, logits }
    }

    /// Stores the inputs where the launch reads them, and sets the symbols.
    pub fn load(&self, machine: &mut Machine<'_>, step: &Step) -> Result<(), VerifyError> {
        for (index, input) in self.inputs.iter().enumerate() {
            let Some((shape, bytes)) = input else { continue };
            let ty = &self.operation.operands[index];
            machine.write(step.operands[index].index(), ty, shape, bytes)?;
        }
        for (symbol, value) in machine.plan.symbols.iter().zip(&mut machine.symbols) {
            if let Some((_, given)) = self.facts.symbols.iter().find(|(n, _)| *n == symbol.name) {
                *value = *given;
            }
        }
        Ok(())
    }
}

/// The inputs of a module.
pub(crate) fn inputs_path(module: &Path) -> PathBuf {
    module.with_extension("safetensors")
}

pub(crate) fn failed(path: &Path, problem: &dyn std::fmt::Display) -> VerifyError {
    VerifyError::Inputs { path: path.display().to_string(), problem: problem.to_string() }
}

/// Of an operand that is no weight.
fn dtype_of(dtype: DType) -> Dtype {
    match dtype {
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::I32 => Dtype::I32,
        _ => Dtype::U8,
    }
}

/// A value as it was read.
fn bytes_of(tensor: &Tensor<f64>, dtype: DType) -> Vec<u8> {
    match &tensor.data {
        Data::Int(values) => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Data::Bool(values) => values.iter().map(|&x| x.into()).collect(),
        Data::Real(values) => match dtype {
            DType::F16 => values.iter().flat_map(|&x| f16::from_f64(x).to_le_bytes()).collect(),
            DType::BF16 => values.iter().flat_map(|&x| bf16::from_f64(x).to_le_bytes()).collect(),
            _ => values.iter().flat_map(|&x| (x as f32).to_le_bytes()).collect(),
        },
    }
}
