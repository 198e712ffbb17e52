//! Kernel arguments on the command line.

use std::sync::Arc;

use half::{bf16, f16};
use waveloom_emulator::memory::Memory;
use waveloom_emulator::object::Kernel;

use crate::arrays::{Array, Dtype, Place, byte_count};

/// The grammar, for `--help` and for errors.
pub const GRAMMAR: &str = "\
an argument is one of
  TYPE:VALUE             a number: i32:-5, u64:0x10, f32:1.5, bf16:2
  in:FILE                an array that the kernel reads
  inout:FILE[:OUT]       an array that it changes; written back to OUT, or to FILE itself
  out:FILE:TYPE:SHAPE    an array that it writes: out:y.npy:f32:4x256
  zeros:TYPE:SHAPE       zeros that are not kept, for counters and flags
  bytes:HEX              a structure by value
  null                   a null pointer
FILE is x.npy or weights.safetensors#name; TYPE is i8, i16, i32, i64, u8, u16, u32, u64, f16, bf16,
f32, f64, and for arrays also bool, f8e4m3, f8e5m2";

/// One argument, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Argument {
    /// Bytes of a number or structure.
    Value(Vec<u8>),
    /// An array from a file, and where it goes afterwards.
    Read(Place, Option<Place>),
    /// An array that starts uninitialized, and where it goes.
    Write(Place, Dtype, Vec<usize>),
    /// Zeros that go nowhere.
    Zeros(Dtype, Vec<usize>),
}

impl Argument {
    /// Parses one argument.
    pub fn parse(text: &str) -> Result<Argument, String> {
        let wrong = |why: &str| format!("argument `{text}`: {why}\n{GRAMMAR}");
        if text == "null" {
            return Ok(Argument::Value(vec![0; 8]));
        }
        let (kind, rest) = text.split_once(':').ok_or_else(|| wrong("there is no colon"))?;
        let parsed = match kind {
            "in" => Place::parse(rest).map(|place| Argument::Read(place, None)),
            "inout" => inout(rest),
            "out" => out(rest),
            "zeros" => {
                let parts = rest.split_once(':').ok_or_else(|| wrong("zeros:TYPE:SHAPE"))?;
                elements(parts.0, parts.1).map(|(dtype, shape)| Argument::Zeros(dtype, shape))
            }
            "bytes" => hex(rest).map(Argument::Value),
            _ => number(kind, rest).map(Argument::Value),
        };
        parsed.map_err(|why| wrong(&why))
    }
}

fn inout(text: &str) -> Result<Argument, String> {
    // A colon may also be part of a tensor's name.
    let split = text.rsplit_once(':').filter(|(_, to)| Place::parse(to).is_ok());
    let (from, to) = split.unwrap_or((text, text));
    Ok(Argument::Read(Place::parse(from)?, Some(Place::parse(to)?)))
}

fn out(text: &str) -> Result<Argument, String> {
    let mut parts = text.rsplitn(3, ':');
    let (shape, dtype, place) = (parts.next(), parts.next(), parts.next());
    let (Some(shape), Some(dtype), Some(place)) = (shape, dtype, place) else {
        return Err("out:FILE:TYPE:SHAPE".to_string());
    };
    let (dtype, shape) = elements(dtype, shape)?;
    Ok(Argument::Write(Place::parse(place)?, dtype, shape))
}

fn elements(dtype: &str, shape: &str) -> Result<(Dtype, Vec<usize>), String> {
    let dtype = Dtype::parse(dtype)?;
    let extent = |text: &str| text.parse::<usize>().ok();
    let parsed: Option<Vec<usize>> = shape.split('x').map(extent).collect();
    let parsed = parsed.filter(|shape| byte_count(dtype, shape).is_some());
    let parsed = parsed.ok_or_else(|| format!("`{shape}` is no shape such as 1024 or 4x256"))?;
    Ok((dtype, parsed))
}

fn hex(text: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'_').collect();
    let byte = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
        u8::from_str_radix(pair, 16).ok()
    };
    let bytes: Option<Vec<u8>> = digits.chunks(2).map(byte).collect();
    bytes.ok_or_else(|| "bytes are pairs of hexadecimal digits".to_string())
}

fn number(kind: &str, text: &str) -> Result<Vec<u8>, String> {
    let (bits, signed) = match kind {
        "i8" => (8, true),
        "i16" => (16, true),
        "i32" => (32, true),
        "i64" => (64, true),
        "u8" => (8, false),
        "u16" => (16, false),
        "u32" => (32, false),
        "u64" => (64, false),
        "f16" | "bf16" | "f32" | "f64" => return float(kind, text),
        _ => return Err(format!("unknown kind `{kind}`")),
    };
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let magnitude = match digits.strip_prefix("0x") {
        Some(digits) => i128::from_str_radix(digits, 16),
        None => digits.parse(),
    }
    .map_err(|_| format!("`{text}` is no number"))?;
    let value = if negative { magnitude.checked_neg() } else { Some(magnitude) };
    let least = if signed { -(1_i128 << (bits - 1)) } else { 0 };
    // Bits of a signed number may be given in hexadecimal.
    let most = if signed && !digits.starts_with("0x") {
        (1_i128 << (bits - 1)) - 1
    } else {
        (1_i128 << bits) - 1
    };
    let value = value.filter(|value| (least..=most).contains(value));
    let value = value.ok_or_else(|| format!("{text} does not fit in {kind}"))?;
    Ok(value.to_le_bytes()[..bits / 8].to_vec())
}

fn float(kind: &str, text: &str) -> Result<Vec<u8>, String> {
    let value: f64 = text.parse().map_err(|_| format!("`{text}` is no number"))?;
    Ok(match kind {
        "f16" => f16::from_f64(value).to_le_bytes().to_vec(),
        "bf16" => bf16::from_f64(value).to_le_bytes().to_vec(),
        "f32" => (value as f32).to_le_bytes().to_vec(),
        _ => value.to_le_bytes().to_vec(),
    })
}

/// Arguments in device memory: the bytes for the launch, and the arrays to be written afterwards.
pub struct Prepared {
    pub kernarg: Vec<u8>,
    outputs: Vec<(Place, Dtype, Vec<usize>, u64)>,
}

impl Prepared {
    /// Loads arrays and packs everything as the kernel's metadata says.
    pub fn new(
        kernel: &Kernel,
        arguments: &[Argument],
        memory: &Arc<Memory>,
    ) -> Result<Prepared, String> {
        let mut prepared = Prepared { kernarg: Vec::new(), outputs: Vec::new() };
        let mut values = Vec::new();
        for (index, argument) in arguments.iter().enumerate() {
            values.push(prepared.load(index, argument, memory)?);
        }
        prepared.kernarg = pack(kernel, &values)?;
        Ok(prepared)
    }

    fn load(
        &mut self,
        index: usize,
        argument: &Argument,
        memory: &Arc<Memory>,
    ) -> Result<Vec<u8>, String> {
        let allocate = |size: usize, what: &str| {
            let name = format!("argument {index}, {what}");
            let address = memory.allocate(size as u64, &name);
            address.ok_or_else(|| format!("no device memory for {size} bytes of {name}"))
        };
        let fill = |address: u64, bytes: &[u8]| {
            memory.write(address, bytes).map_err(|fault| fault.to_string())
        };
        let address = match argument {
            Argument::Value(bytes) => return Ok(bytes.clone()),
            Argument::Read(from, to) => {
                let array = from.read()?;
                let address = allocate(array.bytes.len(), &from.to_string())?;
                fill(address, &array.bytes)?;
                if let Some(to) = to {
                    self.outputs.push((to.clone(), array.dtype, array.shape, address));
                }
                address
            }
            Argument::Write(to, dtype, shape) => {
                let bytes = byte_count(*dtype, shape).unwrap_or(usize::MAX);
                let address = allocate(bytes, &to.to_string())?;
                self.outputs.push((to.clone(), *dtype, shape.clone(), address));
                address
            }
            Argument::Zeros(dtype, shape) => {
                let bytes = byte_count(*dtype, shape).unwrap_or(usize::MAX);
                let address = allocate(bytes, "zeros")?;
                fill(address, &vec![0; bytes])?;
                address
            }
        };
        Ok(address.to_le_bytes().to_vec())
    }

    /// The arrays that the kernel wrote.
    pub fn outputs(&self, memory: &Arc<Memory>) -> Result<Vec<(Place, Array)>, String> {
        let mut arrays = Vec::new();
        for (place, dtype, shape, address) in &self.outputs {
            let mut bytes = vec![0; byte_count(*dtype, shape).unwrap_or(0)];
            memory.read(*address, &mut bytes).map_err(|fault| fault.to_string())?;
            arrays.push((place.clone(), Array { dtype: *dtype, shape: shape.clone(), bytes }));
        }
        Ok(arrays)
    }
}

/// Puts values at the offsets of the metadata; without metadata, one after the other, aligned.
fn pack(kernel: &Kernel, values: &[Vec<u8>]) -> Result<Vec<u8>, String> {
    let explicit: Vec<_> = kernel.arguments.iter().filter(|arg| !arg.is_hidden()).collect();
    if kernel.arguments.is_empty() {
        let mut bytes: Vec<u8> = Vec::new();
        for value in values {
            bytes.resize(
                bytes.len().next_multiple_of(value.len().clamp(1, 8).next_power_of_two()),
                0,
            );
            bytes.extend(value);
        }
        return Ok(bytes);
    }
    if explicit.len() != values.len() {
        let wanted: Vec<String> = explicit.iter().map(|arg| describe(arg)).collect();
        return Err(format!(
            "kernel {} has {} arguments, {} were given; they are {}",
            kernel.name,
            explicit.len(),
            values.len(),
            wanted.join(", ")
        ));
    }
    let mut bytes = vec![0; kernel.kernarg_size as usize];
    for (index, (argument, value)) in explicit.iter().zip(values).enumerate() {
        if argument.size as usize != value.len() {
            let wanted = describe(argument);
            let got = value.len();
            return Err(format!(
                "argument {index} of {} is {wanted}, {got} bytes were given",
                kernel.name
            ));
        }
        let at = argument.offset as usize;
        let place = at.checked_add(value.len()).and_then(|end| bytes.get_mut(at..end));
        let place =
            place.ok_or("the metadata put an argument outside of the kernel's arguments")?;
        place.copy_from_slice(value);
    }
    Ok(bytes)
}

/// `n (4 bytes)`, `x (pointer)`.
pub fn describe(argument: &waveloom_emulator::object::Argument) -> String {
    let name = if argument.name.is_empty() { "unnamed" } else { &argument.name };
    match argument.kind.as_str() {
        "global_buffer" => format!("{name} (pointer)"),
        "by_value" => format!("{name} ({} bytes)", argument.size),
        kind => format!("{name} ({kind}, {} bytes)", argument.size),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Vec<u8> {
        match Argument::parse(text) {
            Ok(Argument::Value(bytes)) => bytes,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn numbers_become_bytes() {
        assert_eq!(value("i32:-2"), [0xfe, 0xff, 0xff, 0xff]);
        assert_eq!(value("i8:0xff"), [0xff]);
        assert_eq!(value("u64:0x0102030405060708"), [8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(value("f32:1.5"), 1.5_f32.to_le_bytes());
        assert_eq!(value("bf16:-1"), [0x80, 0xbf]);
        assert_eq!(value("f16:1"), [0x00, 0x3c]);
        assert_eq!(value("bytes:0a_ff"), [0x0a, 0xff]);
        assert_eq!(value("null"), [0; 8]);
    }

    #[test]
    fn arrays_have_places_and_shapes() {
        let parsed = Argument::parse("out:w.safetensors#a:b:bf16:3x4").expect("an argument");
        let Argument::Write(place, dtype, shape) = parsed else { panic!("an output") };
        assert_eq!((place.to_string().as_str(), dtype.name), ("w.safetensors#a:b", "bf16"));
        assert_eq!(shape, [3, 4]);
        let parsed = Argument::parse("inout:x.npy:y.npy").expect("an argument");
        let Argument::Read(from, Some(to)) = parsed else { panic!("both ways") };
        assert_eq!((from.to_string(), to.to_string()), ("x.npy".into(), "y.npy".into()));
    }

    #[test]
    fn errors_say_what_is_wrong() {
        for (text, wanted) in [
            ("i8:128", "128 does not fit in i8"),
            ("u32:-1", "-1 does not fit in u32"),
            ("f32:x", "`x` is no number"),
            ("five:5", "unknown kind `five`"),
            ("7", "there is no colon"),
            ("out:y.npy:f32", "out:FILE:TYPE:SHAPE"),
            ("out:y.npy:f32:4,4", "`4,4` is no shape"),
            ("out:y.npy:f33:4", "unknown element type `f33`"),
            ("in:x.txt", "neither a .npy file nor a tensor"),
            ("bytes:abc", "pairs of hexadecimal digits"),
            ("zeros:u8:99999999999999999999", "is no shape"),
        ] {
            let error = Argument::parse(text).expect_err(text);
            assert!(error.contains(wanted) && error.contains(text), "{error}");
        }
    }
}
