//! LLVM's assembler, in-process: lines of assembly to the bytes of each line.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr::null_mut;
use std::sync::Once;

use llvm_sys::core::{
    LLVMContextCreate, LLVMContextDispose, LLVMContextSetDiagnosticHandler, LLVMDisposeMessage,
    LLVMDisposeModule, LLVMGetDiagInfoDescription, LLVMModuleCreateWithNameInContext,
    LLVMSetModuleInlineAsm2, LLVMSetTarget,
};
use llvm_sys::object::{
    LLVMCreateBinary, LLVMDisposeBinary, LLVMDisposeSectionIterator, LLVMDisposeSymbolIterator,
    LLVMGetSectionContents, LLVMGetSectionName, LLVMGetSectionSize, LLVMGetSymbolAddress,
    LLVMGetSymbolName, LLVMMoveToNextSection, LLVMMoveToNextSymbol,
    LLVMObjectFileCopySectionIterator, LLVMObjectFileCopySymbolIterator,
    LLVMObjectFileIsSectionIteratorAtEnd, LLVMObjectFileIsSymbolIteratorAtEnd,
};
use llvm_sys::prelude::{LLVMDiagnosticInfoRef, LLVMMemoryBufferRef};
use llvm_sys::target_machine::{
    LLVMCodeGenFileType, LLVMCodeGenOptLevel, LLVMCodeModel, LLVMCreateTargetMachine,
    LLVMDisposeTargetMachine, LLVMGetTargetFromTriple, LLVMRelocMode,
    LLVMTargetMachineEmitToMemoryBuffer,
};
use waveloom_emulator::Chip;

const TRIPLE: &CStr = c"amdgcn-amd-amdhsa";

/// Machine code and where each line's instruction starts in it.
pub struct Code {
    /// Bytes of `.text`.
    pub bytes: Vec<u8>,
    /// Offset of each line; `None` where the chip has no such instruction.
    pub offsets: Vec<Option<usize>>,
    /// What LLVM said about the lines that it refused.
    pub errors: Vec<(usize, String)>,
}

/// Assembles `lines`, one instruction each. A line that LLVM refuses has no offset.
pub fn assemble(chip: Chip, lanes: u32, lines: &[String]) -> Code {
    let (_, errors) = emit(chip, lanes, lines, &vec![true; lines.len()]);
    let mut good = vec![true; lines.len()];
    errors.iter().for_each(|(line, _)| good[*line] = false);
    let (object, again) = emit(chip, lanes, lines, &good);
    assert!(again.is_empty(), "{chip}: refused twice: {again:?}");
    let (bytes, symbols) = object.expect("an object");
    let mut offsets = vec![None; lines.len()];
    for (name, offset) in symbols {
        if let Some(line) = name.strip_prefix("line").and_then(|n| n.parse::<usize>().ok())
            && good[line]
        {
            offsets[line] = Some(offset);
        }
    }
    Code { bytes, offsets, errors }
}

/// One line that must assemble.
pub fn assemble_one(chip: Chip, lanes: u32, line: &str) -> Vec<u8> {
    let code = assemble(chip, lanes, &[line.to_string()]);
    assert!(code.errors.is_empty(), "{chip}: {line}: {:?}", code.errors);
    code.bytes
}

type Object = (Vec<u8>, Vec<(String, usize)>);

extern "C" fn collect(info: LLVMDiagnosticInfoRef, list: *mut c_void) {
    // SAFETY: LLVM passes the pointer that was installed with the handler, a `Vec<String>` that
    // outlives the context, and a diagnostic that is valid during the call.
    unsafe {
        let text = LLVMGetDiagInfoDescription(info);
        let list = &mut *list.cast::<Vec<String>>();
        list.push(CStr::from_ptr(text).to_string_lossy().into_owned());
        LLVMDisposeMessage(text);
    }
}

fn initialize() {
    static TARGET: Once = Once::new();
    // SAFETY: these register LLVM's AMDGPU tables; `Once` makes it a single call.
    TARGET.call_once(|| unsafe {
        llvm_sys::target::LLVMInitializeAMDGPUTargetInfo();
        llvm_sys::target::LLVMInitializeAMDGPUTarget();
        llvm_sys::target::LLVMInitializeAMDGPUTargetMC();
        llvm_sys::target::LLVMInitializeAMDGPUAsmPrinter();
        llvm_sys::target::LLVMInitializeAMDGPUAsmParser();
    });
}

/// Assembles the lines that are `on`; answers the object and the lines with errors.
fn emit(
    chip: Chip,
    lanes: u32,
    lines: &[String],
    on: &[bool],
) -> (Option<Object>, Vec<(usize, String)>) {
    initialize();
    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        assert!(!line.contains('\n'));
        let line = if on[index] { line.as_str() } else { "" };
        text += &format!("line{index}: {line}\n");
    }
    // LLVM pads the section; what follows this symbol is not ours.
    text += "end:\n";
    let features = match (chip.is_rdna(), lanes) {
        (true, 64) => c"+wavefrontsize64",
        (true, _) => c"+wavefrontsize32",
        (false, _) => c"",
    };
    let cpu = CString::new(chip.name()).expect("no zeros");
    let mut said: Vec<String> = Vec::new();
    // SAFETY: every object is made here, used while it lives and disposed of once; strings outlive
    // the calls that read them.
    let object = unsafe {
        let mut target = null_mut();
        let mut message = null_mut();
        let failed = LLVMGetTargetFromTriple(TRIPLE.as_ptr(), &mut target, &mut message);
        assert_eq!(failed, 0, "LLVM was built without the AMDGPU target");
        let machine = LLVMCreateTargetMachine(
            target,
            TRIPLE.as_ptr(),
            cpu.as_ptr(),
            features.as_ptr(),
            LLVMCodeGenOptLevel::LLVMCodeGenLevelNone,
            LLVMRelocMode::LLVMRelocPIC,
            LLVMCodeModel::LLVMCodeModelDefault,
        );
        let context = LLVMContextCreate();
        let list: *mut Vec<String> = &mut said;
        LLVMContextSetDiagnosticHandler(context, Some(collect), list.cast());
        let module = LLVMModuleCreateWithNameInContext(c"snippets".as_ptr(), context);
        LLVMSetTarget(module, TRIPLE.as_ptr());
        LLVMSetModuleInlineAsm2(module, text.as_ptr().cast::<c_char>(), text.len());
        let mut buffer: LLVMMemoryBufferRef = null_mut();
        let failed = LLVMTargetMachineEmitToMemoryBuffer(
            machine,
            module,
            LLVMCodeGenFileType::LLVMObjectFile,
            &mut message,
            &mut buffer,
        );
        let object = (failed == 0 && said.is_empty()).then(|| read_object(buffer));
        if failed == 0 {
            llvm_sys::core::LLVMDisposeMemoryBuffer(buffer);
        }
        LLVMDisposeModule(module);
        LLVMContextDispose(context);
        LLVMDisposeTargetMachine(machine);
        object
    };
    let errors = said.iter().map(|text| parse_diagnostic(text)).collect();
    (object, errors)
}

/// `<inline asm>:3:1: error: ...` to the index of the line and the message.
fn parse_diagnostic(text: &str) -> (usize, String) {
    let rest = text.strip_prefix("<inline asm>:").unwrap_or_else(|| panic!("LLVM says: {text}"));
    let (line, rest) = rest.split_once(':').unwrap_or((rest, ""));
    let message = rest.split_once("error: ").map_or(rest, |(_, message)| message);
    let line: usize = line.parse().expect("a line number");
    (line - 1, message.lines().next().unwrap_or("").to_string())
}

/// The bytes of `.text` and the symbols of an object file.
unsafe fn read_object(buffer: LLVMMemoryBufferRef) -> Object {
    let mut bytes = Vec::new();
    let mut symbols = Vec::new();
    // SAFETY: the buffer lives through the call; the iterators are disposed of before the binary.
    unsafe {
        let mut message = null_mut();
        let binary = LLVMCreateBinary(buffer, null_mut(), &mut message);
        assert!(!binary.is_null(), "LLVM cannot read what it wrote");
        let section = LLVMObjectFileCopySectionIterator(binary);
        while LLVMObjectFileIsSectionIteratorAtEnd(binary, section) == 0 {
            let name = LLVMGetSectionName(section);
            if !name.is_null() && CStr::from_ptr(name) == c".text" {
                let size = LLVMGetSectionSize(section) as usize;
                let contents = LLVMGetSectionContents(section).cast::<u8>();
                bytes = std::slice::from_raw_parts(contents, size).to_vec();
            }
            LLVMMoveToNextSection(section);
        }
        LLVMDisposeSectionIterator(section);
        let symbol = LLVMObjectFileCopySymbolIterator(binary);
        while LLVMObjectFileIsSymbolIteratorAtEnd(binary, symbol) == 0 {
            let name = CStr::from_ptr(LLVMGetSymbolName(symbol)).to_string_lossy().into_owned();
            symbols.push((name, LLVMGetSymbolAddress(symbol) as usize));
            LLVMMoveToNextSymbol(symbol);
        }
        let end = symbols.iter().find(|(name, _)| name == "end").map(|(_, offset)| *offset);
        bytes.truncate(end.expect("the symbol behind the code"));
        LLVMDisposeSymbolIterator(symbol);
        LLVMDisposeBinary(binary);
    }
    (bytes, symbols)
}

#[test]
fn assembles_what_the_chip_has() {
    let lines = ["s_nop 0", "v_nonsense v0", "v_add_f32_e32 v0, v1, v2", "s_endpgm"];
    let code = assemble(Chip::Gfx942, 64, &lines.map(str::to_string));
    assert_eq!(code.offsets, [Some(0), None, Some(4), Some(8)]);
    assert_eq!(code.bytes[4..8], 0x0200_0501_u32.to_le_bytes());
    assert_eq!(code.errors.len(), 1);
    assert_eq!(assemble_one(Chip::Gfx1201, 32, "s_endpgm"), 0xbfb0_0000_u32.to_le_bytes());
}
