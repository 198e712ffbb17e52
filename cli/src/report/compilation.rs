//! How an artifact was made, as plain data: the compiler fills it in.
//!
//! Functions of the IR are kept once, however many passes left them alone: a [`Stage`] names them
//! by their index.

use serde::Serialize;
use std::collections::BTreeMap;

/// How an artifact was made.
#[derive(Debug, Default, Serialize)]
pub struct Compilation {
    /// Wall-clock time in all.
    pub seconds: f64,
    /// Time by phase, in order; of all targets together.
    pub phases: Vec<Phase>,
    /// What each pass did, target by target.
    pub passes: Vec<PassRun>,
    /// The module as it was imported, then after each pass for each target.
    pub stages: Vec<Stage>,
    /// Functions that the stages name.
    pub functions: Vec<Graph>,
    /// Texts of the kernels.
    pub kernels: Vec<KernelTexts>,
}

/// How long a phase took.
#[derive(Debug, Serialize)]
pub struct Phase {
    /// Its name.
    pub name: String,
    /// Its time.
    pub seconds: f64,
}

/// What a pass did.
#[derive(Debug, Serialize)]
pub struct PassRun {
    /// The target that it ran for.
    pub target: String,
    /// Its name.
    pub name: String,
    /// What it is for.
    pub summary: String,
    /// Its time, without verification.
    pub seconds: f64,
    /// How often each rewrite was applied.
    pub rewrites: BTreeMap<String, u64>,
}

/// A module at a point of the compilation.
#[derive(Debug, Serialize)]
pub struct Stage {
    /// The target that it is for; none for the module of the front end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// `import`, or the pass that made it.
    pub name: String,
    /// Its functions: indices into [`Compilation::functions`].
    pub functions: Vec<usize>,
}

/// A function as a graph.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Graph {
    /// Its name.
    pub name: String,
    /// Values: parameters first, then results of instructions in order.
    pub values: Vec<GraphValue>,
    /// How many of them are parameters.
    pub params: usize,
    /// Instructions.
    pub insts: Vec<GraphInst>,
    /// What it returns: indices into `values`.
    pub results: Vec<u32>,
}

/// A value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct GraphValue {
    /// What people call it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its type as in the text form.
    #[serde(rename = "type")]
    pub ty: String,
}

/// An instruction.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct GraphInst {
    /// Spelling of its op.
    pub op: String,
    /// Attributes as in the text form, without braces.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub attributes: String,
    /// Operands: indices into the values.
    pub operands: Vec<u32>,
    /// Results.
    pub results: Vec<u32>,
    /// Instructions of the imported function of the same name that this one was made of: their
    /// indices there. Empty where the function was not imported.
    pub origins: Vec<u32>,
}

/// An instruction of a function after the last pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KernelOp {
    /// The function's name.
    pub function: String,
    /// Index of the instruction in it.
    pub inst: u32,
}

/// A kernel in its forms.
#[derive(Debug, Serialize)]
pub struct KernelTexts {
    /// The target that it is for.
    pub target: String,
    /// Its name.
    pub name: String,
    /// Instructions that it computes.
    pub ops: Vec<KernelOp>,
    /// How the first of them is tiled and why, where there was a choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tiles: Option<serde_json::Value>,
    /// As its generator wrote it.
    pub mlir: String,
    /// As LLVM got it.
    pub llvm_ir: String,
    /// Of the code object.
    pub assembly: String,
}
