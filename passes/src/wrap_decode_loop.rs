//! `wrap-decode-loop`: adds `@generate`, the loop around the step.
//!
//! The loop owns the KV caches, the position, sampling and the stop rule, so that a whole generation is
//! one function: `func @generate(%prompt: i32[T], %params: i32[16]) -> i32[C]`.

use crate::pass::{PassError, PassOptions, PassReport};
use waveloom_ir::{DType, DecodeLoopAttr, Dim, FunctionBuilder, InferError, Module, Op, Type};

const NAME: &str = "wrap-decode-loop";
/// Name of the function that the pass adds.
const GENERATE: &str = "generate";
/// Words of the sampling parameters.
const PARAM_WORDS: u64 = 16;

/// The pass.
pub fn run(mut module: Module, options: &PassOptions) -> Result<(Module, PassReport), PassError> {
    let unsupported =
        |problem: &str| PassError::Unsupported { pass: NAME, problem: problem.to_string() };
    let step = module
        .function("step")
        .ok_or_else(|| unsupported("the module has no function @step to loop over"))?;
    if module.function(GENERATE).is_some() {
        return Err(unsupported("the module already has a function @generate"));
    }
    let function = &module.functions[step.index()];
    let prompt =
        function.param_types().next().ok_or_else(|| unsupported("@step takes no tokens"))?.clone();
    let attr = DecodeLoopAttr { step, stop_tokens: options.stop_tokens.clone() };
    let build = || -> Result<_, InferError> {
        let mut builder = FunctionBuilder::new(&module, GENERATE);
        let prompt = builder.param("prompt", prompt);
        let params = Type::new(DType::I32, [Dim::Const(PARAM_WORDS)]);
        let params = builder.param("params", params);
        let history = builder.push1(Op::DecodeLoop { attr }, &[prompt, params])?;
        builder.name(history, "history");
        Ok(builder.finish(&[history]))
    };
    let generate = build().map_err(|error| PassError::Unsupported {
        pass: NAME,
        problem: format!("@step cannot be looped over: {error}"),
    })?;
    module.add_function(generate);
    let mut report = PassReport::default();
    report.count("decode-loop");
    Ok((module, report))
}
