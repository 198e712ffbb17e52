//! Modules, functions, values: arenas indexed by u32 newtypes.

use crate::op::{Op, Tiles};
use crate::types::{DType, Dim, Type};
use std::fmt;

/// Declares an id: a u32 newtype whose `Display` is its spelling in the text form.
macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u32);

        impl $name {
            /// As an index into its arena.
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    )*};
}

ids! {
    /// A value of a function; its index in [`Function::values`].
    ValueId "%";
    /// An instruction of a function; its index in [`Function::insts`].
    InstId "inst";
    /// A function of a module; its index in [`Module::functions`]. The text form spells it by
    /// the function's name.
    FuncId "func";
    /// A symbol of a module; its index in [`Module::symbols`]. The text form spells it by name.
    SymbolId "sym";
    /// A weight of a module; its index in [`Module::weights`]. The text form spells it by name.
    WeightId "weight";
}

/// An extent known only at run time, with inclusive bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// Spelling, such as `T`.
    pub name: String,
    /// Smallest extent.
    pub min: u64,
    /// Largest extent.
    pub max: u64,
}

/// The BLAKE3 digest of a weight's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Reads 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Digest> {
        let mut bytes = [0; 32];
        let digits = text.as_bytes();
        if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Digest(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A weight declaration. The bytes come from a [`crate::Weights`] source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weight {
    /// Name in the source.
    pub name: String,
    /// Type as the module uses it.
    pub ty: Type,
    /// Dtype of the bytes that the source gives; where it differs from `ty.dtype`, the weight is
    /// converted when it is read.
    pub stored: DType,
    /// Of the bytes that the source gives, in text that is to be compiled again: it stands for
    /// them.
    pub digest: Option<Digest>,
}

/// A value: a parameter or the result of an instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// Its type.
    pub ty: Type,
    /// A name for people; it means nothing.
    pub name: Option<String>,
}

/// One application of an op.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inst {
    /// The op with its attributes.
    pub op: Op,
    /// Operands, in the op's order.
    pub operands: Vec<ValueId>,
    /// Results.
    pub results: Vec<ValueId>,
}

/// A function in SSA form. Instructions stand in an order in which every operand is defined before
/// its use; that order is no schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Name, unique in the module.
    pub name: String,
    /// All values. Parameters come first, then results in instruction order.
    pub values: Vec<Value>,
    /// Parameters: the first values.
    pub params: Vec<ValueId>,
    /// Instructions.
    pub insts: Vec<Inst>,
    /// What the function returns.
    pub results: Vec<ValueId>,
}

impl Function {
    /// The type of a value.
    pub fn ty(&self, value: ValueId) -> &Type {
        &self.values[value.index()].ty
    }

    /// Types of the parameters.
    pub fn param_types(&self) -> impl Iterator<Item = &Type> {
        self.params.iter().map(|&value| self.ty(value))
    }

    /// Types of the results.
    pub fn result_types(&self) -> impl Iterator<Item = &Type> {
        self.results.iter().map(|&value| self.ty(value))
    }
}

/// A whole model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Name of the model.
    pub name: String,
    /// What whoever wrote the module wants to know when it is read again, by name. It means nothing
    /// here.
    pub notes: Vec<(String, String)>,
    /// Symbols, in order of declaration.
    pub symbols: Vec<Symbol>,
    /// Weights, in order of declaration.
    pub weights: Vec<Weight>,
    /// Functions; a callee stands before its callers.
    pub functions: Vec<Function>,
}

impl Module {
    /// An empty module.
    pub fn new(name: impl Into<String>) -> Module {
        let (notes, symbols, weights, functions) = (vec![], vec![], vec![], vec![]);
        Module { name: name.into(), notes, symbols, weights, functions }
    }

    /// Declares a symbol.
    pub fn add_symbol(&mut self, name: impl Into<String>, min: u64, max: u64) -> SymbolId {
        self.symbols.push(Symbol { name: name.into(), min, max });
        SymbolId(self.symbols.len() as u32 - 1)
    }

    /// Declares a weight that is used in the dtype it is stored in.
    pub fn add_weight(&mut self, name: impl Into<String>, ty: Type) -> WeightId {
        let stored = ty.dtype;
        self.weights.push(Weight { name: name.into(), ty, stored, digest: None });
        WeightId(self.weights.len() as u32 - 1)
    }

    /// Adds a finished function.
    pub fn add_function(&mut self, function: Function) -> FuncId {
        self.functions.push(function);
        FuncId(self.functions.len() as u32 - 1)
    }

    /// The note named `name`.
    pub fn note(&self, name: &str) -> Option<&str> {
        self.notes.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Sets the note named `name`.
    pub fn set_note(&mut self, name: &str, value: impl Into<String>) {
        let value = value.into();
        match self.notes.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => self.notes.push((name.to_string(), value)),
        }
    }

    /// The function named `name`.
    pub fn function(&self, name: &str) -> Option<FuncId> {
        self.functions.iter().position(|f| f.name == name).map(|i| FuncId(i as u32))
    }

    /// The symbol named `name`.
    pub fn symbol(&self, name: &str) -> Option<SymbolId> {
        self.symbols.iter().position(|s| s.name == name).map(|i| SymbolId(i as u32))
    }

    /// Leaves it to the back end how kernels are tiled.
    pub fn clear_tiles(&mut self) {
        for inst in self.functions.iter_mut().flat_map(|function| &mut function.insts) {
            if let Op::Gemm { attr } = &mut inst.op {
                attr.tiles = Tiles::default();
            }
        }
    }

    /// The largest extent that `dim` takes.
    pub fn max_extent(&self, dim: Dim) -> u64 {
        match dim {
            Dim::Const(extent) => extent,
            Dim::Symbol(id) => self.symbols[id.index()].max,
        }
    }
}
