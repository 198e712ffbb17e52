//! What is read and changed in the objects that LLVM writes: 64-bit little-endian ELF.

use std::ops::Range;

const SHT_SYMTAB: u64 = 2;
const SHT_NOTE: u64 = 7;
/// A linker leaves the section out of what it makes.
const SHF_EXCLUDE: u64 = 1 << 31;

/// Names of the undefined symbols of an object.
pub(crate) fn undefined_symbols(object: &[u8]) -> Result<Vec<String>, &'static str> {
    let mut names = Vec::new();
    for at in section_headers(object)? {
        if read(object, at + 4, 4)? != SHT_SYMTAB {
            continue;
        }
        let (offset, bytes) = (read(object, at + 0x18, 8)?, read(object, at + 0x20, 8)?);
        let strings = section_headers(object)?
            .get(read(object, at + 0x28, 4)? as usize)
            .ok_or("string table")
            .and_then(|&header| read(object, header + 0x18, 8))?;
        // The first symbol is the null symbol.
        for symbol in (offset..offset + bytes).step_by(24).skip(1) {
            let defined_in = read(object, symbol + 6, 2)?;
            if defined_in == 0 {
                names.push(string(object, strings + read(object, symbol, 4)?)?);
            }
        }
    }
    Ok(names)
}

/// The content of the notes called `name` and of type `kind`; their sections are marked so that a
/// linker leaves them out.
pub(crate) fn take_notes(
    object: &mut [u8],
    name: &str,
    kind: u64,
) -> Result<Vec<Vec<u8>>, &'static str> {
    let mut found = vec![];
    for at in section_headers(object)? {
        if read(object, at + 4, 4)? != SHT_NOTE {
            continue;
        }
        let (offset, bytes) = (read(object, at + 0x18, 8)?, read(object, at + 0x20, 8)?);
        let mut note = offset;
        while note + 12 <= offset + bytes {
            let (name_bytes, content_bytes) = (read(object, note, 4)?, read(object, note + 4, 4)?);
            let content = note + 12 + name_bytes.next_multiple_of(4);
            if read(object, note + 8, 4)? == kind && string(object, note + 12)? == name {
                found.push(object.get(range(content, content_bytes)?).ok_or("note")?.to_vec());
            }
            note = content + content_bytes.next_multiple_of(4);
        }
        let flags = read(object, at + 8, 8)? | SHF_EXCLUDE;
        let place = object.get_mut(range(at + 8, 8)?).ok_or("section header")?;
        place.copy_from_slice(&flags.to_le_bytes());
    }
    Ok(found)
}

/// Offsets of the section headers.
fn section_headers(object: &[u8]) -> Result<Vec<u64>, &'static str> {
    let (first, bytes) = (read(object, 0x28, 8)?, read(object, 0x3a, 2)?);
    let count = read(object, 0x3c, 2)?;
    Ok((0..count).map(|index| first + index * bytes).collect())
}

fn range(at: u64, bytes: u64) -> Result<Range<usize>, &'static str> {
    let start = usize::try_from(at).map_err(|_| "offset")?;
    let end = usize::try_from(bytes).ok().and_then(|bytes| start.checked_add(bytes));
    Ok(start..end.ok_or("offset")?)
}

/// A little-endian number of `bytes` bytes.
fn read(object: &[u8], at: u64, bytes: u64) -> Result<u64, &'static str> {
    let field = object.get(range(at, bytes)?).ok_or("truncated")?;
    Ok(field.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
}

/// A string that ends with a zero byte.
fn string(object: &[u8], at: u64) -> Result<String, &'static str> {
    let at = usize::try_from(at).map_err(|_| "offset")?;
    let rest = object.get(at..).ok_or("truncated")?;
    let end = rest.iter().position(|&byte| byte == 0).ok_or("string table")?;
    Ok(String::from_utf8_lossy(&rest[..end]).into_owned())
}
