//! The metadata note of a code object.
//!
//! LLVM gives each object a note that describes its kernels, and a linker puts the notes one after
//! the other. But a code object has one (LLVM's AMDGPU usage guide, "Code Object V3 and Above
//! Metadata"): HIP reads the first and does not find the kernels of the others. So the notes are
//! taken out and one that describes all kernels is put in.

use crate::elf::take_notes;
use crate::lower::assemble;
use crate::{CodegenError, CompiledKernel, Target};
use rmpv::Value;
use std::fmt::Write;

/// Owner and type of the note.
const OWNER: &str = "AMDGPU";
const NT_AMDGPU_METADATA: u64 = 32;
const KERNELS: &str = "amdhsa.kernels";

/// Takes the notes out of `objects`, which are those of `kernels`; gives an object with the note of
/// all.
pub(super) fn merge(
    kernels: &[CompiledKernel],
    objects: &mut [Vec<u8>],
    target: &Target,
) -> Result<Vec<u8>, CodegenError> {
    let mut merged: Option<Value> = None;
    for (kernel, object) in kernels.iter().zip(objects) {
        let malformed = |what| CodegenError::MalformedObject { kernel: kernel.name.clone(), what };
        for note in take_notes(object, OWNER, NT_AMDGPU_METADATA).map_err(malformed)? {
            let note = rmpv::decode::read_value(&mut note.as_slice())
                .map_err(|_| malformed("metadata"))?;
            match &mut merged {
                None => merged = Some(note),
                Some(all) => append(all, note).ok_or_else(|| malformed("metadata"))?,
            }
        }
    }
    let mut content = vec![];
    let merged = merged.unwrap_or_else(|| Value::Map(vec![]));
    // Writing to memory cannot fail.
    rmpv::encode::write_value(&mut content, &merged).unwrap_or_default();
    assemble(&section(&content), target)
}

/// Appends the kernels of a note to those of another.
fn append(all: &mut Value, note: Value) -> Option<()> {
    let list = |value: Value| match value {
        Value::Map(entries) => entries.into_iter().find(|(key, _)| key.as_str() == Some(KERNELS)),
        _ => None,
    };
    let (_, Value::Array(more)) = list(note)? else { return None };
    let Value::Map(entries) = all else { return None };
    let kernels = entries.iter_mut().find(|(key, _)| key.as_str() == Some(KERNELS))?;
    let Value::Array(kernels) = &mut kernels.1 else { return None };
    kernels.extend(more);
    Some(())
}

/// A note section as assembly.
fn section(content: &[u8]) -> String {
    let mut text = format!(
        "\t.section .note,\"a\",@note\n\t.p2align 2\n\t.long {}\n\t.long {}\n\t.long \
         {NT_AMDGPU_METADATA}\n\t.asciz \"{OWNER}\"\n\t.p2align 2\n",
        OWNER.len() + 1,
        content.len()
    );
    for bytes in content.chunks(64) {
        let bytes: Vec<String> = bytes.iter().map(u8::to_string).collect();
        let _ = writeln!(text, "\t.byte {}", bytes.join(","));
    }
    text + "\t.p2align 2\n"
}
