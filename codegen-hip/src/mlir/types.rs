//! Types and values of the kernel builder.

use std::fmt;

/// An element type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Elem {
    /// One bit.
    I1,
    /// 8-bit integer, signless.
    I8,
    /// 16-bit integer, signless; also the bits of a bf16.
    I16,
    /// 32-bit integer, signless.
    I32,
    /// 64-bit integer, signless; sizes, counts and offsets.
    I64,
    /// IEEE binary16.
    F16,
    /// bfloat16, as an operand of dot-product instructions only; elsewhere [`Elem::I16`].
    BF16,
    /// IEEE binary32.
    F32,
    /// IEEE binary64.
    F64,
    /// An address in the memory of the processor that runs the kernel.
    Ptr,
    /// An address in a GPU's global memory.
    Global,
    /// An address in the local data share of a GPU's workgroup.
    Shared,
    /// A buffer resource of a GPU: global memory behind a range check.
    Resource,
}

impl Elem {
    /// Bytes in memory.
    pub const fn bytes(self) -> u32 {
        match self {
            Elem::I1 | Elem::I8 => 1,
            Elem::I16 | Elem::F16 | Elem::BF16 => 2,
            Elem::I32 | Elem::F32 | Elem::Shared => 4,
            Elem::I64 | Elem::F64 | Elem::Ptr | Elem::Global => 8,
            Elem::Resource => 16,
        }
    }

    /// Bits of the value.
    pub const fn bits(self) -> u32 {
        match self {
            Elem::I1 => 1,
            _ => self.bytes() * 8,
        }
    }

    /// Whether it is an address.
    pub const fn is_address(self) -> bool {
        matches!(self, Elem::Ptr | Elem::Global | Elem::Shared)
    }

    /// Whether arithmetic on it is floating-point.
    pub const fn is_float(self) -> bool {
        matches!(self, Elem::F16 | Elem::BF16 | Elem::F32 | Elem::F64)
    }

    /// MLIR's spelling.
    pub const fn name(self) -> &'static str {
        match self {
            Elem::I1 => "i1",
            Elem::I8 => "i8",
            Elem::I16 => "i16",
            Elem::I32 => "i32",
            Elem::I64 => "i64",
            Elem::F16 => "f16",
            Elem::BF16 => "bf16",
            Elem::F32 => "f32",
            Elem::F64 => "f64",
            Elem::Ptr => "!llvm.ptr",
            Elem::Global => "!llvm.ptr<1>",
            Elem::Shared => "!llvm.ptr<3>",
            Elem::Resource => "!llvm.ptr<8>",
        }
    }

    /// A vector of `lanes` of it.
    pub const fn vec(self, lanes: u32) -> Ty {
        Ty { elem: self, lanes }
    }

    /// One of it.
    pub const fn scalar(self) -> Ty {
        Ty { elem: self, lanes: 0 }
    }
}

/// A scalar or a vector of one dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ty {
    /// Element type.
    pub elem: Elem,
    /// Lanes; 0 for a scalar.
    pub lanes: u32,
}

impl Ty {
    /// Whether it is a scalar.
    pub const fn is_scalar(self) -> bool {
        self.lanes == 0
    }

    /// The same shape of other elements.
    pub const fn with(self, elem: Elem) -> Ty {
        Ty { elem, lanes: self.lanes }
    }

    /// Bytes in memory.
    pub const fn bytes(self) -> u32 {
        let lanes = if self.lanes == 0 { 1 } else { self.lanes };
        self.elem.bytes() * lanes
    }
}

impl From<Elem> for Ty {
    fn from(elem: Elem) -> Ty {
        elem.scalar()
    }
}

impl fmt::Display for Ty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lanes {
            0 => f.write_str(self.elem.name()),
            n => write!(f, "vector<{n}x{}>", self.elem.name()),
        }
    }
}

/// An SSA value; `Display` is its spelling in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Value {
    pub(super) id: u32,
    /// Its type.
    pub ty: Ty,
}

impl Value {
    /// Ids from here on are parameters of a kernel for a GPU.
    pub(super) const PARAMETERS: u32 = 1 << 31;
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.id.checked_sub(Value::PARAMETERS) {
            Some(parameter) => write!(f, "%arg{parameter}"),
            None => write!(f, "%{}", self.id),
        }
    }
}
