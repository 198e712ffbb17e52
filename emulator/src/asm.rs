//! Machine code to parsed assembly: LLVM's MC disassembler, and a parser of what it prints.
//!
//! LLVM prints everything that an encoding says (registers, inline constants, literals, every
//! modifier), and reads it back; so its text is a complete and stable form of an instruction.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::sync::Once;

use llvm_sys::disassembler::{
    LLVMCreateDisasmCPUFeatures, LLVMDisasmContextRef, LLVMDisasmDispose, LLVMDisasmInstruction,
};

use crate::Chip;
use crate::wave::{AGPR, scalar};

unsafe extern "C" {
    // Missing from llvm-sys.
    fn LLVMInitializeAMDGPUDisassembler();
}

/// How an instruction is encoded, as far as the suffix of its mnemonic says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// No suffix.
    #[default]
    Plain,
    /// `_e32`.
    E32,
    /// `_e64`.
    E64,
    /// `_dpp`: data of another lane.
    Dpp,
    /// `_e64_dpp`.
    E64Dpp,
    /// `_sdwa`: part of a register.
    Sdwa,
}

/// One instruction as LLVM prints it, taken apart.
#[derive(Debug, Clone, Default)]
pub struct Instruction {
    /// Address of its first byte.
    pub address: u64,
    /// Bytes of its encoding; 0 where the bytes are no instruction.
    pub size: u32,
    /// First eight bytes of the encoding, little end first.
    pub word: u64,
    /// The whole text.
    pub text: String,
    /// Mnemonic without the suffix of the encoding: `v_add_f32`.
    pub mnemonic: String,
    /// The suffix.
    pub encoding: Encoding,
    /// Operands in the order of the text, destinations first.
    pub operands: Vec<Operand>,
    /// What follows the operands: `offset:16`, `glc`, `op_sel:[0,1]`.
    pub modifiers: Vec<Modifier>,
    /// The second half of a VOPD pair.
    pub paired: Option<Box<Instruction>>,
}

/// An operand with its input modifiers.
#[derive(Debug, Clone, PartialEq)]
pub struct Operand {
    /// What is read or written.
    pub value: Value,
    /// `-x` or `neg(x)`.
    pub neg: bool,
    /// `|x|`.
    pub abs: bool,
    /// `sext(x)` of SDWA.
    pub sext: bool,
    /// `.h` of a 16-bit register half; `.l` and none are false.
    pub high: bool,
}

/// What an operand names.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Vector registers: first row of [`crate::wave::Wave::rows`] and how many.
    Vector(u16, u16),
    /// Scalar registers: first place in the scalar file and how many.
    Scalar(u16, u16),
    /// A source that is no register of the file.
    Special(Special),
    /// An integer in decimal: an inline constant, or an immediate field.
    Integer(i64),
    /// A floating-point inline constant; its bits depend on the operand's type.
    Float(f64),
    /// A number in hexadecimal: a literal's bits, or an immediate field.
    Literal(u64),
    /// Anything else, verbatim: `off`, `hwreg(HW_REG_MODE, 0, 4)`, `sendmsg(...)`, `vmcnt(0)`.
    Word(String),
}

/// Sources that are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// Scalar condition code.
    Scc,
    /// VCC is zero.
    Vccz,
    /// EXEC is zero.
    Execz,
    /// Base of the LDS aperture.
    SharedBase,
    /// Its last byte.
    SharedLimit,
    /// Base of the scratch aperture.
    PrivateBase,
    /// Its last byte.
    PrivateLimit,
    /// LDS read through M0.
    LdsDirect,
}

/// `name`, `name:value` or `name:[a,b]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Modifier {
    /// What stands before the colon.
    pub name: String,
    /// What stands after it, verbatim, with its brackets; empty where there is no colon.
    pub value: String,
}

impl Instruction {
    /// Whether a modifier is there, with or without a value.
    pub fn has(&self, name: &str) -> bool {
        self.modifiers.iter().any(|modifier| modifier.name == name)
    }

    /// The text of a modifier's value.
    pub fn value(&self, name: &str) -> Option<&str> {
        let found = self.modifiers.iter().find(|modifier| modifier.name == name)?;
        Some(&found.value)
    }

    /// The number of a modifier's value, decimal or hexadecimal.
    pub fn number(&self, name: &str) -> Option<i64> {
        parse_number(self.value(name)?)
    }

    /// The numbers of a bracketed list: `op_sel:[0,1]`.
    pub fn list(&self, name: &str) -> Option<Vec<u32>> {
        let inner = self.value(name)?.strip_prefix('[')?.strip_suffix(']')?;
        inner.split(',').map(|item| item.trim().parse().ok()).collect()
    }
}

fn parse_number(text: &str) -> Option<i64> {
    match parse_hexadecimal(text) {
        Some(bits) => Some(bits as i64),
        None => text.parse().ok(),
    }
}

/// `0x1f` or `-0x10`, whose bits are those of the negative number.
fn parse_hexadecimal(text: &str) -> Option<u64> {
    let digits = |text: &str| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok();
    match text.strip_prefix('-') {
        Some(magnitude) => digits(magnitude).map(u64::wrapping_neg),
        None => digits(text),
    }
}

/// LLVM's disassembler for one chip and wave width.
pub struct Disassembler {
    context: LLVMDisasmContextRef,
}

impl Disassembler {
    /// A disassembler for `chip`; `lanes` (32 or 64) decides how masks are printed.
    pub fn new(chip: Chip, lanes: u32) -> Disassembler {
        static TARGET: Once = Once::new();
        // SAFETY: these register LLVM's AMDGPU tables; `Once` makes it a single call.
        TARGET.call_once(|| unsafe {
            llvm_sys::target::LLVMInitializeAMDGPUTargetInfo();
            llvm_sys::target::LLVMInitializeAMDGPUTargetMC();
            LLVMInitializeAMDGPUDisassembler();
        });
        let features = match (chip.is_rdna(), lanes) {
            (true, 64) => c"+wavefrontsize64",
            (true, _) => c"+wavefrontsize32",
            (false, _) => c"",
        };
        let cpu = CString::new(chip.name()).unwrap_or_default();
        // SAFETY: the strings outlive the call, which copies them; no callbacks are installed.
        let context = unsafe {
            LLVMCreateDisasmCPUFeatures(
                c"amdgcn-amd-amdhsa".as_ptr(),
                cpu.as_ptr(),
                features.as_ptr(),
                std::ptr::null_mut(),
                0,
                None,
                None,
            )
        };
        assert!(!context.is_null(), "LLVM was built without the AMDGPU target");
        Disassembler { context }
    }

    /// The instruction at the start of `bytes`, whose first byte is at `address`. Bytes that are no
    /// instruction give one of size 0 whose text says so.
    pub fn decode(&mut self, bytes: &[u8], address: u64) -> Instruction {
        let mut text = [0_u8; 512];
        // SAFETY: `bytes` and `text` are valid for the lengths passed; LLVM reads the first without
        // writing and ends the second with a zero.
        let size = unsafe {
            LLVMDisasmInstruction(
                self.context,
                bytes.as_ptr().cast_mut(),
                bytes.len() as u64,
                address,
                text.as_mut_ptr().cast(),
                text.len(),
            )
        };
        let mut word = [0; 8];
        let known = bytes.len().min(8);
        word[..known].copy_from_slice(&bytes[..known]);
        let mut instruction = match CStr::from_bytes_until_nul(&text) {
            Ok(text) if size > 0 => parse(&low_halves(&text.to_string_lossy())),
            _ => Instruction { text: "no instruction".to_string(), ..Instruction::default() },
        };
        instruction.address = address;
        instruction.size = size as u32;
        instruction.word = u64::from_le_bytes(word);
        instruction
    }
}

impl Drop for Disassembler {
    fn drop(&mut self) {
        // SAFETY: made by `LLVMCreateDisasmCPUFeatures` and disposed of once.
        unsafe { LLVMDisasmDispose(self.context) };
    }
}

// SAFETY: a context has no ties to the thread that made it; `&mut self` keeps its uses apart.
unsafe impl Send for Disassembler {}

/// Of 16-bit operands in 32-bit encodings, bit 7 of the register's number says the high half. For
/// some instructions LLVM 22 does not know that and prints `v130/*Invalid register, operand has
/// 'VS_32_Lo128' register class*/` for `v2.h`.
fn low_halves(text: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, after)) = rest.split_once("/*Invalid register") {
        let Some((comment, tail)) = after.split_once("*/") else { break };
        let digits = before.len() - before.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        let (head, number) = before.split_at(before.len() - digits);
        match number.parse::<u16>() {
            Ok(number @ 128..256) if comment.contains("Lo128") && head.ends_with('v') => {
                out.push_str(&format!("{head}{}.h", number - 128));
            }
            // Something else is wrong with it: the text stays, and no family knows it.
            _ => out.push_str(&format!("{before}/*Invalid register{comment}*/")),
        }
        rest = tail;
    }
    out + rest
}

/// Takes the text of one instruction apart.
pub fn parse(text: &str) -> Instruction {
    let text = text.trim();
    if let Some((first, second)) = text.split_once(" :: ") {
        let mut instruction = parse(first);
        instruction.paired = Some(Box::new(parse(second)));
        instruction.text = clean(text);
        return instruction;
    }
    let (head, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let rest = &close_bars(rest);
    let (mnemonic, encoding) = split_suffix(head);
    let mut instruction = Instruction {
        text: clean(text),
        mnemonic: mnemonic.to_string(),
        encoding,
        ..Instruction::default()
    };
    if mnemonic == "s_delay_alu" {
        return instruction;
    }
    let pieces = split_commas(rest);
    for (index, piece) in pieces.iter().enumerate() {
        let last = index + 1 == pieces.len();
        let mut words = split_spaces(piece).into_iter();
        let Some(first) = words.next() else { continue };
        if is_modifier(first) {
            instruction.modifiers.push(parse_modifier(first));
        } else {
            instruction.operands.push(parse_operand(first));
        }
        // `s_waitcnt vmcnt(0) lgkmcnt(1)` has words that are no modifiers.
        for word in words {
            if last && word.contains('(') && !word.contains(':') {
                instruction.operands.push(parse_operand(word));
            } else {
                instruction.modifiers.push(parse_modifier(word));
            }
        }
    }
    instruction
}

fn clean(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// LLVM 22 prints `v_cndmask_b32_dpp` with the closing bar of its last source behind the mask.
fn close_bars(text: &str) -> String {
    text.replace(", vcc_lo|", "|, vcc_lo").replace(", vcc|", "|, vcc")
}

fn split_suffix(head: &str) -> (&str, Encoding) {
    const SUFFIXES: [(&str, Encoding); 6] = [
        ("_e64_dpp", Encoding::E64Dpp),
        ("_e32", Encoding::E32),
        ("_e64", Encoding::E64),
        ("_dpp", Encoding::Dpp),
        ("_sdwa", Encoding::Sdwa),
        ("_dpp8", Encoding::Dpp),
    ];
    for (suffix, encoding) in SUFFIXES {
        if let Some(mnemonic) = head.strip_suffix(suffix) {
            return (mnemonic, encoding);
        }
    }
    (head, Encoding::Plain)
}

/// Splits at commas outside of brackets.
fn split_commas(text: &str) -> Vec<&str> {
    split_outside(text, |c| c == ',')
}

/// Splits at spaces outside of brackets.
fn split_spaces(text: &str) -> Vec<&str> {
    let parts = split_outside(text, char::is_whitespace);
    parts.into_iter().filter(|part| !part.is_empty()).collect()
}

fn split_outside(text: &str, separator: impl Fn(char) -> bool) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_i32, 0);
    for (at, c) in text.char_indices() {
        match c {
            '[' | '(' => depth += 1,
            ']' | ')' => depth -= 1,
            _ if depth == 0 && separator(c) => {
                parts.push(text[start..at].trim());
                start = at + c.len_utf8();
            }
            _ => {}
        }
    }
    if !text[start..].trim().is_empty() {
        parts.push(text[start..].trim());
    }
    parts
}

/// Modifiers that can come first, where an instruction has no operands at all, or after a comma.
fn is_modifier(word: &str) -> bool {
    const CACHE_POLICY: [&str; 6] = ["sc0", "sc1", "nt", "glc", "slc", "dlc"];
    let named = word.split_once(':').is_some_and(|(name, _)| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    });
    named || CACHE_POLICY.contains(&word)
}

fn parse_modifier(word: &str) -> Modifier {
    let (name, value) = word.split_once(':').unwrap_or((word, ""));
    Modifier { name: name.to_string(), value: value.to_string() }
}

fn parse_operand(text: &str) -> Operand {
    let mut operand =
        Operand { value: Value::Integer(0), neg: false, abs: false, sext: false, high: false };
    let mut rest = text;
    loop {
        if let Some(inner) = rest.strip_prefix("sext(").and_then(|r| r.strip_suffix(')')) {
            (operand.sext, rest) = (true, inner);
        } else if let Some(inner) = rest.strip_prefix("neg(").and_then(|r| r.strip_suffix(')')) {
            (operand.neg, rest) = (true, inner);
        } else if let Some(inner) = rest.strip_prefix('|').and_then(|r| r.strip_suffix('|')) {
            (operand.abs, rest) = (true, inner);
        } else if let Some(inner) = rest.strip_prefix('-').filter(|r| !starts_number(r)) {
            (operand.neg, rest) = (true, inner);
        } else {
            break;
        }
    }
    if let Some(low) = rest.strip_suffix(".l") {
        rest = low;
    } else if let Some(high) = rest.strip_suffix(".h") {
        (operand.high, rest) = (true, high);
    }
    operand.value = parse_value(rest);
    operand
}

fn starts_number(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
}

fn parse_value(text: &str) -> Value {
    if let Some(register) = parse_register(text) {
        return register;
    }
    if let Some(special) = parse_special(text) {
        return Value::Special(special);
    }
    // `lit(0x0)` is a literal of a value that an inline constant could also say.
    let literal = text.strip_prefix("lit(").and_then(|rest| rest.strip_suffix(')'));
    if let Some(bits) = parse_hexadecimal(literal.unwrap_or(text)) {
        return Value::Literal(bits);
    }
    if let Ok(integer) = text.parse() {
        return Value::Integer(integer);
    }
    match text.parse() {
        Ok(float) if text.contains('.') => Value::Float(float),
        _ => Value::Word(text.to_string()),
    }
}

fn parse_register(text: &str) -> Option<Value> {
    use scalar::{EXEC, FLAT_SCRATCH, M0, NULL, TTMP, VCC, XNACK_MASK};
    let named = match text {
        "vcc" => Some((VCC, 2)),
        "vcc_lo" => Some((VCC, 1)),
        "vcc_hi" => Some((VCC + 1, 1)),
        "exec" => Some((EXEC, 2)),
        "exec_lo" => Some((EXEC, 1)),
        "exec_hi" => Some((EXEC + 1, 1)),
        "m0" => Some((M0, 1)),
        "null" => Some((NULL, 1)),
        "flat_scratch" => Some((FLAT_SCRATCH, 2)),
        "flat_scratch_lo" => Some((FLAT_SCRATCH, 1)),
        "flat_scratch_hi" => Some((FLAT_SCRATCH + 1, 1)),
        "xnack_mask" => Some((XNACK_MASK, 2)),
        "xnack_mask_lo" => Some((XNACK_MASK, 1)),
        "xnack_mask_hi" => Some((XNACK_MASK + 1, 1)),
        _ => None,
    };
    if let Some((index, count)) = named {
        return Some(Value::Scalar(index as u16, count));
    }
    let split = text.find(|c: char| c == '[' || c.is_ascii_digit())?;
    let (file, range) = text.split_at(split);
    let (first, last): (u16, u16) = match range.strip_prefix('[') {
        Some(inner) => match inner.strip_suffix(']')?.split_once(':') {
            Some((first, last)) => (first.parse().ok()?, last.parse().ok()?),
            None => {
                let only = inner.strip_suffix(']')?.parse().ok()?;
                (only, only)
            }
        },
        None => {
            let only = range.parse().ok()?;
            (only, only)
        }
    };
    let count = last.checked_sub(first)? + 1;
    let (base, limit) = match file {
        "v" => (0, AGPR),
        "a" => (AGPR, AGPR),
        "s" => (0, VCC),
        "ttmp" => (TTMP, NULL - TTMP),
        _ => return None,
    };
    if usize::from(last) >= limit {
        return None;
    }
    let first = first + base as u16;
    Some(match file {
        "v" | "a" => Value::Vector(first, count),
        _ => Value::Scalar(first, count),
    })
}

fn parse_special(text: &str) -> Option<Special> {
    Some(match text {
        "scc" | "src_scc" => Special::Scc,
        "vccz" | "src_vccz" => Special::Vccz,
        "execz" | "src_execz" => Special::Execz,
        "src_shared_base" | "shared_base" => Special::SharedBase,
        "src_shared_limit" | "shared_limit" => Special::SharedLimit,
        "src_private_base" | "private_base" => Special::PrivateBase,
        "src_private_limit" | "private_limit" => Special::PrivateLimit,
        "lds_direct" | "src_lds_direct" => Special::LdsDirect,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_operands_and_modifiers_apart() {
        let add = parse("\tv_add_f32_e64 v0, |v1|, -v2 clamp mul:2");
        assert_eq!((add.mnemonic.as_str(), add.encoding), ("v_add_f32", Encoding::E64));
        assert_eq!(add.operands[0].value, Value::Vector(0, 1));
        assert!(add.operands[1].abs && add.operands[2].neg);
        assert!(add.has("clamp"));
        assert_eq!(add.number("mul"), Some(2));
        let load = parse("global_load_dwordx4 v[0:3], v4, s[2:3] offset:-16 sc0 nt");
        assert_eq!(load.operands[0].value, Value::Vector(0, 4));
        assert_eq!(load.operands[2].value, Value::Scalar(2, 2));
        assert_eq!(load.number("offset"), Some(-16));
        assert!(load.has("sc0") && load.has("nt"));
        let buffer = parse("buffer_load_dword v0, v1, s[4:7], 0 offen offset:16");
        assert_eq!(buffer.operands[3].value, Value::Integer(0));
        assert!(buffer.has("offen"));
        let pk = parse("v_pk_fma_f32 v[0:1], v[2:3], s[4:5], a[6:7] op_sel:[0,1,0]");
        assert_eq!(pk.operands[3].value, Value::Vector(262, 2));
        assert_eq!(pk.list("op_sel"), Some(vec![0, 1, 0]));
        let negative = parse("s_load_b32 s0, s[2:3], -0x10 offset:-0x4");
        assert_eq!(negative.operands[2].value, Value::Literal(-16_i64 as u64));
        assert_eq!(negative.number("offset"), Some(-4));
    }

    #[test]
    fn takes_waits_words_and_pairs_apart() {
        let wait = parse("s_waitcnt vmcnt(0) lgkmcnt(3)");
        assert_eq!(wait.operands.len(), 2);
        assert_eq!(wait.operands[1].value, Value::Word("lgkmcnt(3)".to_string()));
        let hwreg = parse("s_getreg_b32 s0, hwreg(HW_REG_MODE, 0, 4)");
        assert_eq!(hwreg.operands[1].value, Value::Word("hwreg(HW_REG_MODE, 0, 4)".to_string()));
        let pair = parse("v_dual_add_f32 v0, v1, v2 :: v_dual_mul_f32 v3, 0x40000123, v5");
        assert_eq!(pair.mnemonic, "v_dual_add_f32");
        let second = pair.paired.expect("a pair");
        assert_eq!(second.operands[1].value, Value::Literal(0x4000_0123));
        let swizzle = parse("ds_swizzle_b32 v0, v1 offset:swizzle(BITMASK_PERM,\"00p11\")");
        assert_eq!(swizzle.value("offset"), Some("swizzle(BITMASK_PERM,\"00p11\")"));
        let invalidate = parse("buffer_inv sc0 sc1");
        assert!(invalidate.operands.is_empty() && invalidate.has("sc0") && invalidate.has("sc1"));
        let half = parse("v_add_f16_e32 v0.l, v1.h, -4.0");
        assert!(half.operands[1].high && !half.operands[0].high);
        assert_eq!(half.operands[2].value, Value::Float(-4.0));
    }

    #[test]
    fn literals_that_could_be_inline_are_literals() {
        let add = parse("s_addc_u32 s1, s1, lit(0xffffffff)");
        assert_eq!(add.operands[2].value, Value::Literal(0xffff_ffff));
    }

    #[test]
    fn high_halves_that_llvm_calls_invalid() {
        let comment = "/*Invalid register, operand has 'VS_32_Lo128' register class*/";
        let text = low_halves(&format!("v_cmp_nle_f16_e32 vcc_lo, v130{comment}, v4"));
        assert_eq!(text, "v_cmp_nle_f16_e32 vcc_lo, v2.h, v4");
        let other = format!("v_add_f32 v0, v7{comment}, v4");
        assert_eq!(low_halves(&other), other);
    }

    #[test]
    fn llvm_disassembles_for_every_chip() {
        // s_endpgm is 0xbf810000 before RDNA 3 and 0xbfb00000 from it on.
        for chip in Chip::ALL {
            let word: u32 = if chip.is_cdna() { 0xbf81_0000 } else { 0xbfb0_0000 };
            let lanes = if chip.is_cdna() { 64 } else { 32 };
            let instruction = Disassembler::new(chip, lanes).decode(&word.to_le_bytes(), 0x100);
            assert_eq!(
                (instruction.mnemonic.as_str(), instruction.size),
                ("s_endpgm", 4),
                "{chip}"
            );
        }
    }
}
