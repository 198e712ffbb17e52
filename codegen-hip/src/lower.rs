//! One kernel from MLIR text to an ELF object: MLIR's conversions to the `llvm` dialect,
//! translation to LLVM IR, a short pipeline of LLVM's passes, and its most thorough code
//! generation.
//!
//! Each call has an MLIR and an LLVM context of its own, so kernels compile in parallel.
//! LLVM neither inlines, unrolls nor vectorizes: the generators already wrote what they want. What
//! is left to it is to clean up addresses and to hoist what does not change in a loop; `O3` gives
//! the same speed for twice the time to compile.
#![allow(unsafe_code)]

mod forms;

pub use forms::Form;

use crate::elf::undefined_symbols;
use crate::facts::code_facts;
use crate::mlir::gpu::SHARED;
use crate::target::{GpuTarget, Platform};
use crate::{CodegenError, Target};
use inkwell::OptimizationLevel;
use inkwell::attributes::AttributeLoc;
use inkwell::context::{AsContextRef, Context as LlvmContext};
use inkwell::llvm_sys::LLVMDiagnosticSeverity;
use inkwell::llvm_sys::core::{
    LLVMContextSetDiagnosticHandler, LLVMDisposeMessage, LLVMGetDiagInfoDescription,
    LLVMGetDiagInfoSeverity,
};
use inkwell::llvm_sys::prelude::LLVMDiagnosticInfoRef;
use inkwell::module::{FlagBehavior, Linkage, Module as LlvmModule};
use inkwell::passes::PassBuilderOptions;
use inkwell::targets::{
    CodeModel, FileType, InitializationConfig, RelocMode, Target as LlvmTarget, TargetMachine,
    TargetTriple,
};
use inkwell::values::FunctionValue;
use melior::Context;
use melior::dialect::DialectHandle;
use melior::ir::Module;
use melior::ir::operation::OperationLike;
use melior::pass::{PassManager, conversion};
use mlir_sys::{
    mlirCreateConversionConvertVectorToLLVMPass, mlirGetDialectHandle__math__,
    mlirGetDialectHandle__vector__, mlirRegisterAllLLVMTranslations, mlirTranslateModuleToLLVMIR,
};
use std::cell::RefCell;
use std::ffi::{CStr, c_void};
use std::rc::Rc;
use waveloom_plan::CodeFacts;

/// LLVM's passes before code generation.
const PASSES: &str = "function(simplifycfg,early-cse<memssa>,instcombine<no-verify-fixpoint>,\
                      loop-mssa(licm),gvn,instcombine<no-verify-fixpoint>,simplifycfg)";

/// The same for GPUs: loops test at their end, so that a loop is one block, which is what the AMD
/// back end schedules. (For NVIDIA GPUs LLVM's code generation has no scheduling to speak of: the
/// driver's compiler does that.)
const GPU_PASSES: &str = "function(simplifycfg,early-cse<memssa>,instcombine<no-verify-fixpoint>,\
                          loop-mssa(loop-rotate<header-duplication>,licm),gvn,\
                          instcombine<no-verify-fixpoint>,simplifycfg)";

/// Then, where a kernel has functions: they become part of it. Not before, so that nothing is moved
/// from one into the loop around all.
const INLINE: &str = "always-inline,function(simplifycfg,early-cse<memssa>,\
                      instcombine<no-verify-fixpoint>,simplifycfg)";

/// Last on AMD GPUs: hidden arguments that a kernel can do without are found out.
const AMD_LAST: &str = "amdgpu-attributor";

/// What kernels' variable in shared memory is called in PTX: as nothing else is.
pub(crate) const PTX_SHARED: &str = "waveloom_shared";

/// Version of the code objects: the newest that every release of HIP since 5.3 loads.
const CODE_OBJECT_VERSION: u64 = 500;

/// The code of a kernel as a generator writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelText {
    /// Its symbol.
    pub name: String,
    /// An MLIR module with a function of that name, and perhaps others that it calls.
    pub mlir: String,
    /// Work-items of a workgroup, on a GPU; 0 on a CPU.
    pub workgroup: u32,
    /// Waves that a SIMD of a GPU shall be able to hold at once, at least; 0 on a CPU. 1 asks for
    /// nothing.
    pub planned_waves: u32,
    /// Registers of a work-item that the driver of an NVIDIA GPU, which assigns them, must not exceed.
    pub most_registers: Option<u32>,
    /// Bytes of the local data share that a launch has to ask for; 0 where the code says it.
    pub dynamic_shared: u32,
}

impl KernelText {
    /// The same code under another symbol.
    pub fn named(&self, name: &str) -> KernelText {
        let (old, new) = (format!("func.func @{}(", self.name), format!("func.func @{name}("));
        let mlir = self.mlir.replacen(&old, &new, 1);
        KernelText { name: name.to_string(), mlir, ..*self }
    }
}

/// A kernel as machine code.
#[derive(Clone, Debug)]
pub struct CompiledKernel {
    /// Its symbol.
    pub name: String,
    /// A relocatable ELF object; for an NVIDIA GPU, PTX.
    pub object: Vec<u8>,
    /// What was found in the code, for a GPU.
    pub facts: Option<CodeFacts>,
    /// What it went through, if asked for.
    pub dump: Option<KernelDump>,
}

/// A kernel's forms on its way to machine code, for people.
#[derive(Clone, Debug)]
pub struct KernelDump {
    /// Its symbol.
    pub name: String,
    /// As generated: `func`, `scf`, `arith`, `vector`, `math`, `llvm`.
    pub mlir: String,
    /// In the `llvm` dialect alone.
    pub mlir_lowered: String,
    /// LLVM IR after optimization.
    pub llvm_ir: String,
    /// Assembly.
    pub assembly: String,
    /// [`CompiledKernel::object`].
    pub object: Vec<u8>,
}

/// Compiles a kernel for a target; `dump` keeps its intermediate forms.
pub fn compile(
    kernel: &KernelText,
    target: &Target,
    dump: bool,
) -> Result<CompiledKernel, CodegenError> {
    let context = mlir_context();
    let diagnostics = Diagnostics::attach(&context);
    let mlir_error = |phase| CodegenError::Mlir {
        kernel: kernel.name.clone(),
        phase,
        diagnostics: diagnostics.take(),
    };
    let mut module = Module::parse(&context, &kernel.mlir).ok_or_else(|| mlir_error("parse"))?;
    if !module.as_operation().verify() {
        return Err(mlir_error("verify"));
    }
    to_llvm_dialect(&context, &mut module).map_err(|_| mlir_error("lowering"))?;
    let llvm_context = LlvmContext::create();
    let said = LlvmDiagnostics::attach(&llvm_context);
    let llvm = translate(&module, &llvm_context).ok_or_else(|| mlir_error("translation"))?;
    let back_end = BackEnd { kernel, target };
    let machine = back_end.optimize(&llvm, &llvm_context)?;
    // Generated once: a GPU's facts are read from it, and of NVIDIA's it is the code.
    let wants_assembly = dump || matches!(target, Target::Gpu(_));
    let assembly = match wants_assembly {
        false => String::new(),
        true => {
            let text = back_end.emit(&machine, &llvm, FileType::Assembly)?;
            String::from_utf8_lossy(&text).into_owned()
        }
    };
    said.check(&back_end)?;
    let facts = match target {
        Target::Cpu(_) => None,
        Target::Gpu(target) => Some(code_facts(&assembly, kernel, target)),
    };
    let object = match target {
        Target::Gpu(GpuTarget { platform: Platform::Nvidia, .. }) => {
            check_calls(&kernel.name, &assembly)?;
            assembly.clone().into_bytes()
        }
        _ => {
            let object = back_end.emit(&machine, &llvm, FileType::Object)?;
            said.check(&back_end)?;
            check_undefined(&kernel.name, &object)?;
            object
        }
    };
    let dump = dump.then(|| KernelDump {
        name: kernel.name.clone(),
        object: object.clone(),
        mlir: kernel.mlir.clone(),
        mlir_lowered: module.as_operation().to_string(),
        llvm_ir: llvm.print_to_string().to_string(),
        assembly,
    });
    Ok(CompiledKernel { name: kernel.name.clone(), object, facts, dump })
}

/// A context that knows the dialects that kernels use, and no other.
fn mlir_context() -> Context {
    let context = Context::new_with_threading(false);
    for dialect in [
        DialectHandle::func(),
        DialectHandle::scf(),
        DialectHandle::cf(),
        DialectHandle::arith(),
        DialectHandle::llvm(),
        // SAFETY: the two functions give static handles of dialects that are linked in.
        unsafe { DialectHandle::from_raw(mlirGetDialectHandle__math__()) },
        // SAFETY: as above.
        unsafe { DialectHandle::from_raw(mlirGetDialectHandle__vector__()) },
    ] {
        dialect.register_dialect(&context);
        dialect.load_dialect(&context);
    }
    // SAFETY: the context is valid and outlives the call.
    unsafe { mlirRegisterAllLLVMTranslations(context.to_raw()) };
    context
}

/// Collects what MLIR has to say about a context.
struct Diagnostics(Rc<RefCell<String>>);

impl Diagnostics {
    fn attach(context: &Context) -> Diagnostics {
        let text = Rc::new(RefCell::new(String::new()));
        let sink = Rc::clone(&text);
        context.attach_diagnostic_handler(move |diagnostic| {
            let mut sink = sink.borrow_mut();
            if !sink.is_empty() {
                sink.push_str("; ");
            }
            sink.push_str(&format!("{}: {diagnostic}", diagnostic.location()));
            true
        });
        Diagnostics(text)
    }

    fn take(&self) -> String {
        match self.0.take() {
            text if text.is_empty() => "no diagnostics".to_string(),
            text => text,
        }
    }
}

/// Assembles a piece of text for a target.
pub(crate) fn assemble(text: &str, target: &Target) -> Result<Vec<u8>, CodegenError> {
    let context = LlvmContext::create();
    let diagnostics = LlvmDiagnostics::attach(&context);
    let module = context.create_module("assembly");
    module.set_inline_assembly(text);
    if let Target::Gpu(GpuTarget { platform: Platform::Amd, .. }) = target {
        set_code_object_version(&module, &context);
    }
    let name = "metadata".to_string();
    let kernel = KernelText { name, ..KernelText::default() };
    let back_end = BackEnd { kernel: &kernel, target };
    let machine = back_end.machine()?;
    module.set_triple(&machine.get_triple());
    module.set_data_layout(&machine.get_target_data().get_data_layout());
    let object = back_end.emit(&machine, &module, FileType::Object);
    diagnostics.check(&back_end)?;
    object
}

/// Collects what LLVM has to say about a context; without, it would end the process.
struct LlvmDiagnostics(Box<RefCell<String>>);

impl LlvmDiagnostics {
    fn attach(context: &LlvmContext) -> LlvmDiagnostics {
        extern "C" fn collect(info: LLVMDiagnosticInfoRef, sink: *mut c_void) {
            // SAFETY: the sink is what `attach` gave, which outlives all use of the context, and the
            // description a zero-terminated string that is ours to free.
            unsafe {
                let sink = &*sink.cast::<RefCell<String>>();
                let text = LLVMGetDiagInfoDescription(info);
                if LLVMGetDiagInfoSeverity(info) == LLVMDiagnosticSeverity::LLVMDSError {
                    let mut sink = sink.borrow_mut();
                    sink.push_str(CStr::from_ptr(text).to_string_lossy().trim_end());
                    sink.push('\n');
                }
                LLVMDisposeMessage(text);
            }
        }
        let sink = Box::new(RefCell::new(String::new()));
        let address: *const RefCell<String> = &raw const *sink;
        // SAFETY: the context is valid, and the sink stays where it is until the context is no longer
        // used.
        unsafe {
            let context = context.as_ctx_ref();
            LLVMContextSetDiagnosticHandler(context, Some(collect), address.cast_mut().cast());
        }
        LlvmDiagnostics(sink)
    }

    /// Fails if there was an error.
    fn check(&self, back_end: &BackEnd<'_>) -> Result<(), CodegenError> {
        let said = self.0.take();
        if said.is_empty() { Ok(()) } else { Err(back_end.error("emission", said.trim_end())) }
    }
}

/// Lowers a module to the `llvm` dialect.
fn to_llvm_dialect(context: &Context, module: &mut Module) -> Result<(), melior::Error> {
    let passes = PassManager::new(context);
    passes.add_pass(conversion::create_scf_to_control_flow());
    // SAFETY: the function gives a new pass, whose owner `Pass` becomes.
    passes.add_pass(unsafe {
        melior::pass::Pass::from_raw(mlirCreateConversionConvertVectorToLLVMPass())
    });
    passes.add_pass(conversion::create_math_to_llvm());
    passes.add_pass(conversion::create_arith_to_llvm());
    passes.add_pass(conversion::create_control_flow_to_llvm());
    passes.add_pass(conversion::create_func_to_llvm());
    passes.add_pass(conversion::create_reconcile_unrealized_casts());
    passes.run(module)
}

/// Translates a module in the `llvm` dialect to LLVM IR.
fn translate<'c>(module: &Module, context: &'c LlvmContext) -> Option<LlvmModule<'c>> {
    // SAFETY: both handles are valid for the call. The result is null or a module that belongs
    // to `context` and to nobody else, which inkwell's `Module` then owns.
    unsafe {
        let raw = mlirTranslateModuleToLLVMIR(
            module.as_operation().to_raw(),
            context.as_ctx_ref().cast(),
        );
        (!raw.is_null()).then(|| LlvmModule::new(raw.cast()))
    }
}

/// Says for which version of code objects a module is.
fn set_code_object_version<'c>(module: &LlvmModule<'c>, context: &'c LlvmContext) {
    let version = context.i32_type().const_int(CODE_OBJECT_VERSION, false);
    module.add_basic_value_flag("amdhsa_code_object_version", FlagBehavior::Error, version);
}

/// LLVM for one kernel and target.
struct BackEnd<'a> {
    kernel: &'a KernelText,
    target: &'a Target,
}

impl BackEnd<'_> {
    fn error(&self, phase: &'static str, message: impl ToString) -> CodegenError {
        let kernel = self.kernel.name.clone();
        CodegenError::Llvm { kernel, phase, message: message.to_string() }
    }

    fn machine(&self) -> Result<TargetMachine, CodegenError> {
        let config = InitializationConfig { disassembler: false, ..Default::default() };
        match self.target {
            Target::Cpu(_) => LlvmTarget::initialize_x86(&config),
            Target::Gpu(target) => match target.platform {
                Platform::Amd => LlvmTarget::initialize_amd_gpu(&config),
                Platform::Nvidia => LlvmTarget::initialize_nvptx(&config),
            },
        }
        let triple = TargetTriple::create(self.target.triple());
        LlvmTarget::from_triple(&triple)
            .map_err(|error| self.error("target machine", error))?
            .create_target_machine(
                &triple,
                self.target.processor(),
                &self.target.feature_string(),
                OptimizationLevel::Aggressive,
                RelocMode::PIC,
                CodeModel::Default,
            )
            .ok_or_else(|| self.error("target machine", "LLVM gave none"))
    }

    /// Runs [`PASSES`] on a module and gives the machine to emit it with.
    fn optimize<'c>(
        &self,
        module: &LlvmModule<'c>,
        context: &'c LlvmContext,
    ) -> Result<TargetMachine, CodegenError> {
        let machine = self.machine()?;
        module.set_triple(&machine.get_triple());
        module.set_data_layout(&machine.get_target_data().get_data_layout());
        let mut has_functions = false;
        for function in module.get_functions().filter(|f| f.count_basic_blocks() > 0) {
            // Without it LLVM may turn a loop into a call of memset or memcpy.
            let no_builtins = context.create_string_attribute("no-builtins", "");
            function.add_attribute(AttributeLoc::Function, no_builtins);
            let kind = inkwell::attributes::Attribute::get_named_enum_kind_id("nounwind");
            let nounwind = context.create_enum_attribute(kind, 0);
            function.add_attribute(AttributeLoc::Function, nounwind);
            let is_kernel = function.get_name().to_bytes() == self.kernel.name.as_bytes();
            match self.target {
                Target::Gpu(target) if is_kernel => {
                    self.make_gpu_kernel(function, context, target);
                }
                Target::Gpu(_) => {
                    has_functions = true;
                    make_inlined(function, context);
                }
                Target::Cpu(_) => {}
            }
        }
        if let Target::Gpu(GpuTarget { platform: Platform::Nvidia, .. }) = self.target
            && let Some(shared) = module.get_global(SHARED)
        {
            shared.set_name(PTX_SHARED);
        }
        let mut pipelines = match self.target {
            Target::Cpu(_) => vec![PASSES],
            Target::Gpu(_) => vec![GPU_PASSES],
        };
        if has_functions {
            pipelines.push(INLINE);
        }
        if let Target::Gpu(GpuTarget { platform: Platform::Amd, .. }) = self.target {
            set_code_object_version(module, context);
            pipelines.push(AMD_LAST);
        }
        for passes in pipelines {
            module
                .run_passes(passes, &machine, PassBuilderOptions::create())
                .map_err(|error| self.error("optimization", error))?;
        }
        module.verify().map_err(|error| self.error("verification", error))?;
        Ok(machine)
    }

    /// Makes a function an entry point, and says what the back end must know of its launches: the
    /// exact size of a workgroup decides how many registers a work-item may use.
    ///
    /// So does the number of waves that were planned for each SIMD. It is the least (there is no
    /// upper bound) that registers must leave room for; the compiler spills rather than use more,
    /// and LLVM ignores a number that the workgroup or its LDS make impossible: hence the checks of
    /// `CodeFacts`.
    fn make_gpu_kernel(&self, function: FunctionValue, context: &LlvmContext, target: &GpuTarget) {
        let KernelText { workgroup, planned_waves, most_registers, dynamic_shared, .. } =
            *self.kernel;
        let mut attributes = vec![];
        match target.platform {
            Platform::Amd => {
                // llvm::CallingConv::AMDGPU_KERNEL.
                function.set_call_conventions(91);
                attributes.extend([
                    ("amdgpu-flat-work-group-size", format!("{workgroup},{workgroup}")),
                    ("uniform-work-group-size", "true".to_string()),
                ]);
                if planned_waves > 1 {
                    attributes.push(("amdgpu-waves-per-eu", planned_waves.to_string()));
                }
            }
            Platform::Nvidia => {
                // llvm::CallingConv::PTX_Kernel.
                function.set_call_conventions(71);
                attributes.push(("nvvm.reqntid", format!("{workgroup},1,1")));
                // In workgroups of a multiprocessor.
                let groups = planned_waves * target.simds() * target.wave / workgroup.max(1);
                // `setmaxnreg` wants to be told that it is one.
                if groups > 1 || dynamic_shared > 0 {
                    attributes.push(("nvvm.minctasm", groups.max(1).to_string()));
                }
                if let Some(registers) = most_registers {
                    attributes.push(("nvvm.maxnreg", registers.to_string()));
                }
            }
        }
        for (key, value) in attributes {
            let attribute = context.create_string_attribute(key, &value);
            function.add_attribute(AttributeLoc::Function, attribute);
        }
    }

    fn emit(
        &self,
        machine: &TargetMachine,
        module: &LlvmModule,
        kind: FileType,
    ) -> Result<Vec<u8>, CodegenError> {
        // Code generation changes the module, and has no use for what it changed already.
        let module = module.clone();
        let buffer = machine
            .write_to_memory_buffer(&module, kind)
            .map_err(|error| self.error("emission", error))?;
        Ok(buffer.as_slice().to_vec())
    }
}

/// Makes a function part of the kernel that calls it.
fn make_inlined(function: FunctionValue, context: &LlvmContext) {
    function.set_linkage(Linkage::Internal);
    let kind = inkwell::attributes::Attribute::get_named_enum_kind_id("alwaysinline");
    function.add_attribute(AttributeLoc::Function, context.create_enum_attribute(kind, 0));
}

/// Kernels call nothing: fails if the object refers to a symbol that it does not define.
fn check_undefined(kernel: &str, object: &[u8]) -> Result<(), CodegenError> {
    let symbols = undefined_symbols(object)
        .map_err(|what| CodegenError::MalformedObject { kernel: kernel.to_string(), what })?;
    match symbols.is_empty() {
        true => Ok(()),
        false => Err(CodegenError::UndefinedSymbols { kernel: kernel.to_string(), symbols }),
    }
}

/// As [`check_undefined`], of PTX.
fn check_calls(kernel: &str, ptx: &str) -> Result<(), CodegenError> {
    // `.extern .func (.param .b32 func_retval0) name`, and a list of parameters on lines of its own.
    let symbols: Vec<String> = ptx
        .lines()
        .filter_map(|line| line.trim().strip_prefix(".extern"))
        // What a launch asks for.
        .filter(|line| !line.trim_start().starts_with(".shared"))
        .map(|line| line.rsplit([' ', ')']).find(|word| !word.is_empty()).unwrap_or("").to_string())
        .collect();
    match symbols.is_empty() {
        true => Ok(()),
        false => Err(CodegenError::UndefinedSymbols { kernel: kernel.to_string(), symbols }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mlir::{Builder, Elem};

    fn source(mlir: &str) -> KernelText {
        let (name, mlir) = ("k".to_string(), mlir.to_string());
        KernelText { name, mlir, ..KernelText::default() }
    }

    #[test]
    fn diagnostics_are_carried() {
        let error = compile(
            &source("module { func.func @k() { %0 = arith.addi %1, %1 : i64 return } }"),
            &Target::from_name("cpu-v3").unwrap(),
            false,
        )
        .unwrap_err();
        assert!(error.to_string().contains("undeclared SSA value"), "{error}");
    }

    #[test]
    fn calls_are_refused() {
        let mut k = Builder::new("k");
        let out = k.arg_ptr(0);
        let x = k.load(out, Elem::F32);
        let y = k.intrinsic("llvm.sin", &[x], Elem::F32.into());
        k.store(y, out);
        let error = compile(&k.finish(), &Target::from_name("cpu-v3").unwrap(), false).unwrap_err();
        assert_eq!(error.to_string(), "internal error: kernel 'k' calls sinf");
    }

    #[test]
    fn same_source_same_bytes_and_dump() {
        let make = || {
            let mut k = Builder::new("k");
            let out = k.arg_ptr(0);
            let (first, last) = (k.first(), k.last());
            k.for_loop(first, last, 1, [], |k, i, []| {
                let at = k.element(out, Elem::I64, i);
                k.store(i, at);
                []
            });
            k.finish()
        };
        let target = Target::from_name("cpu-v4").unwrap();
        let one = compile(&make(), &target, true).unwrap();
        let two = compile(&make(), &target, false).unwrap();
        assert_eq!(one.object, two.object);
        let dump = one.dump.unwrap();
        assert!(dump.mlir.contains("scf.for"));
        assert!(dump.mlir_lowered.contains("llvm.func"));
        assert!(dump.llvm_ir.contains("define void @k"));
        assert!(dump.assembly.contains("retq"));
        assert!(two.dump.is_none());
    }
}
