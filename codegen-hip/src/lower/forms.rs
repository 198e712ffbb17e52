//! A kernel from any of the forms that it goes through on its way to machine code, edited or not.

use super::{
    BackEnd, CompiledKernel, KernelText, LlvmDiagnostics, assemble, check_calls, check_undefined,
    code_facts, compile,
};
use crate::target::{GpuTarget, Platform};
use crate::{CodegenError, Target};
use inkwell::context::Context as LlvmContext;
use inkwell::memory_buffer::MemoryBuffer;
use inkwell::targets::FileType;
use std::fmt;
use std::path::Path;

/// A form of a kernel in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// MLIR, before or after it was lowered to the `llvm` dialect.
    Mlir,
    /// LLVM IR after optimization: it is not optimized again.
    LlvmIr,
    /// Assembly; PTX for an NVIDIA GPU.
    Assembly,
    /// A relocatable object.
    Object,
}

impl Form {
    /// The form that a file of this name has, as dumps name them.
    pub fn of_file(path: &Path) -> Option<Form> {
        match path.extension()?.to_str()? {
            "mlir" => Some(Form::Mlir),
            "ll" => Some(Form::LlvmIr),
            "s" | "ptx" => Some(Form::Assembly),
            "o" => Some(Form::Object),
            _ => None,
        }
    }

    /// Compiles the rest of the way; `kernel` has everything but the text.
    pub fn compile(
        self,
        content: &[u8],
        kernel: &KernelText,
        target: &Target,
    ) -> Result<CompiledKernel, CodegenError> {
        let rest = Rest { form: self, kernel, target };
        let text = || std::str::from_utf8(content).map_err(|error| rest.refused(error));
        match self {
            Form::Mlir => rest.mlir(text()?),
            Form::LlvmIr => rest.llvm_ir(text()?),
            Form::Assembly => rest.assembly(text()?),
            // PTX is all the object that there is.
            Form::Object if is_nvidia(target) => rest.ptx(text()?.to_string()),
            Form::Object => rest.object(content.to_vec(), ""),
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Form::Mlir => "MLIR",
            Form::LlvmIr => "LLVM IR",
            Form::Assembly => "assembly",
            Form::Object => "object",
        })
    }
}

fn is_nvidia(target: &Target) -> bool {
    matches!(target, Target::Gpu(GpuTarget { platform: Platform::Nvidia, .. }))
}

/// The rest of the way for one kernel.
struct Rest<'a> {
    form: Form,
    kernel: &'a KernelText,
    target: &'a Target,
}

impl Rest<'_> {
    fn refused(&self, message: impl ToString) -> CodegenError {
        let (form, kernel) = (self.form.to_string(), self.kernel.name.clone());
        CodegenError::Edited { form, kernel, message: message.to_string() }
    }

    /// What was our mistake where we wrote the text is the writer's here.
    fn edited(&self, error: CodegenError) -> CodegenError {
        match error {
            CodegenError::Mlir { diagnostics, .. } => self.refused(diagnostics),
            CodegenError::Llvm { phase, message, .. } => {
                self.refused(format!("{phase}: {message}"))
            }
            CodegenError::UndefinedSymbols { symbols, .. } => {
                self.refused(format!("it calls {}", symbols.join(", ")))
            }
            CodegenError::MalformedObject { what, .. } => self.refused(what),
            other => other,
        }
    }

    fn mlir(&self, text: &str) -> Result<CompiledKernel, CodegenError> {
        let kernel = KernelText { mlir: text.to_string(), ..self.kernel.clone() };
        compile(&kernel, self.target, false).map_err(|error| self.edited(error))
    }

    fn llvm_ir(&self, text: &str) -> Result<CompiledKernel, CodegenError> {
        let context = LlvmContext::create();
        let said = LlvmDiagnostics::attach(&context);
        let buffer = MemoryBuffer::create_from_memory_range_copy(text.as_bytes(), "kernel");
        let module = context.create_module_from_ir(buffer).map_err(|error| self.refused(error))?;
        module.verify().map_err(|error| self.refused(error))?;
        let back_end = BackEnd { kernel: self.kernel, target: self.target };
        let edited = |error| self.edited(error);
        let machine = back_end.machine().map_err(edited)?;
        let emit = |kind| back_end.emit(&machine, &module, kind).map_err(edited);
        let assembly = String::from_utf8_lossy(&emit(FileType::Assembly)?).into_owned();
        let object = match is_nvidia(self.target) {
            true => None,
            false => Some(emit(FileType::Object)?),
        };
        said.check(&back_end).map_err(edited)?;
        match object {
            None => self.ptx(assembly),
            Some(object) => self.object(object, &assembly),
        }
    }

    fn assembly(&self, text: &str) -> Result<CompiledKernel, CodegenError> {
        if is_nvidia(self.target) {
            return self.ptx(text.to_string());
        }
        let object = assemble(text, self.target).map_err(|error| self.edited(error))?;
        self.object(object, text)
    }

    fn ptx(&self, text: String) -> Result<CompiledKernel, CodegenError> {
        check_calls(&self.kernel.name, &text).map_err(|error| self.edited(error))?;
        Ok(self.compiled(text.clone().into_bytes(), &text))
    }

    fn object(&self, object: Vec<u8>, assembly: &str) -> Result<CompiledKernel, CodegenError> {
        check_undefined(&self.kernel.name, &object).map_err(|error| self.edited(error))?;
        Ok(self.compiled(object, assembly))
    }

    fn compiled(&self, object: Vec<u8>, assembly: &str) -> CompiledKernel {
        let facts = match self.target {
            Target::Gpu(target) if !assembly.is_empty() => {
                Some(code_facts(assembly, self.kernel, target))
            }
            _ => None,
        };
        CompiledKernel { name: self.kernel.name.clone(), object, facts, dump: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mlir::{Builder, Elem};

    /// A kernel for a CPU, or for a GPU.
    fn kernel(target: &Target) -> KernelText {
        let mut k = match target {
            Target::Cpu(_) => Builder::new("twice"),
            Target::Gpu(gpu) => Builder::for_gpu("twice", gpu.wave, gpu.platform),
        };
        let [from, to] = [0, 1].map(|slot| k.arg_ptr(slot));
        let x = k.load(from, Elem::F32);
        let y = k.add(x, x);
        k.store(y, to);
        k.finish()
    }

    /// The instructions of the kernel, as a device finds them, without what pads their end.
    fn instructions(code: &[u8], chip: &str) -> Vec<u8> {
        use waveloom_emulator::Chip;
        use waveloom_emulator::memory::Memory;
        use waveloom_emulator::object::Object;
        let memory = std::sync::Arc::new(Memory::reserve(1 << 24).unwrap());
        let chip = Chip::from_name(chip).unwrap();
        let object = Object::load(code, chip, &memory).unwrap();
        let kernel = object.kernel("twice").unwrap();
        let mut code = kernel.code().0.to_vec();
        let padding = code[code.len() - 4..].to_vec();
        while code.ends_with(&padding) {
            code.truncate(code.len() - 4);
        }
        code
    }

    /// Every form is the same code again.
    #[test]
    fn every_form_compiles_to_the_same_code() {
        for name in ["cpu-v3", "gfx942", "gfx1100", "sm_90"] {
            let target = Target::from_name(name).unwrap();
            let text = kernel(&target);
            let whole = compile(&text, &target, true).unwrap();
            let dump = whole.dump.unwrap();
            let again = |form: Form, content: &[u8]| form.compile(content, &text, &target).unwrap();
            let link = |kernel: CompiledKernel| {
                crate::link::link_shared_object(&[kernel], &target).unwrap()
            };
            let code = link(again(Form::Object, &dump.object));
            for (form, content) in [
                (Form::Mlir, &dump.mlir),
                (Form::Mlir, &dump.mlir_lowered),
                (Form::LlvmIr, &dump.llvm_ir),
                (Form::Assembly, &dump.assembly),
            ] {
                let compiled = again(form, content.as_bytes());
                let facts = compiled.facts.clone();
                assert_eq!(facts, whole.facts, "{name} {form}");
                let linked = link(compiled);
                // LLVM pads the end of what it assembles for an AMD GPU once more.
                let padded = form == Form::Assembly && name.starts_with("gfx");
                let same = match padded {
                    true => instructions(&linked, name) == instructions(&code, name),
                    false => linked == code,
                };
                assert!(same, "{name}: {form} gives other code");
            }
        }
    }

    /// What LLVM does not understand is an error with LLVM's words, of whatever form.
    #[test]
    fn broken_forms_are_refused() {
        for name in ["cpu-v3", "gfx942"] {
            let target = Target::from_name(name).unwrap();
            let text = kernel(&target);
            let error = |form: Form, content: &str| {
                form.compile(content.as_bytes(), &text, &target).unwrap_err().to_string()
            };
            let mlir = error(Form::Mlir, "module { func.func @twice() { return %x : f32 } }");
            assert!(mlir.starts_with("the MLIR of kernel 'twice' does not compile: "), "{mlir}");
            let ir = error(Form::LlvmIr, "define void @twice() { ret i32 %x }");
            assert!(ir.contains("%x"), "{ir}");
            let assembly = error(Form::Assembly, "twice:\n\tno_such_instruction v0\n");
            assert!(
                assembly.contains("no_such_instruction") || assembly.contains(":2:"),
                "{assembly}"
            );
            let object = error(Form::Object, "not an object");
            assert!(object.starts_with("the object of kernel 'twice'"), "{object}");
        }
    }
}
