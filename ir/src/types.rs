//! Types of values: element type, shape, layout.

use crate::module::SymbolId;
use std::fmt;

/// Declares the element types once: variant, spelling, elements per block, bytes per block.
macro_rules! dtypes {
    ($($(#[$doc:meta])* $variant:ident $text:literal $elems:literal $bytes:literal;)*) => {
        /// The type of an element, or of a block of elements, in memory.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(non_camel_case_types)]
        pub enum DType { $($(#[$doc])* $variant,)* }

        impl DType {
            /// Every dtype.
            pub const ALL: &'static [DType] = &[$(DType::$variant,)*];

            /// Spelling in the text form.
            pub const fn name(self) -> &'static str {
                match self { $(DType::$variant => $text,)* }
            }

            /// Elements that one block holds; 1 for plain types.
            pub const fn block_len(self) -> u64 {
                match self { $(DType::$variant => $elems,)* }
            }

            /// Bytes of one block.
            pub const fn block_bytes(self) -> u64 {
                match self { $(DType::$variant => $bytes,)* }
            }
        }
    };
}

dtypes! {
    /// IEEE 754 binary32.
    F32 "f32" 1 4;
    /// IEEE 754 binary16.
    F16 "f16" 1 2;
    /// The upper half of binary32.
    BF16 "bf16" 1 2;
    /// OCP 8-bit float, 4 exponent bits, no infinities.
    F8E4M3 "f8e4m3" 1 1;
    /// The same with bias 8 and no negative zero (AMD CDNA3).
    F8E4M3FNUZ "f8e4m3fnuz" 1 1;
    /// 32-bit signed integer.
    I32 "i32" 1 4;
    /// 8-bit signed integer.
    I8 "i8" 1 1;
    /// 8-bit unsigned integer.
    U8 "u8" 1 1;
    /// 0 or 1 in a byte.
    Bool "bool" 1 1;
    /// ggml Q8_0: f16 scale, 32 × i8; x = d·q.
    Q8_0 "q8_0" 32 34;
    /// ggml Q4_0: f16 scale, 32 × 4 bits; x = d·(q − 8).
    Q4_0 "q4_0" 32 18;
    /// ggml Q4_1: f16 scale and minimum, 32 × 4 bits; x = d·q + m.
    Q4_1 "q4_1" 32 20;
    /// ggml Q5_0: f16 scale, 32 × 5 bits; x = d·(q − 16).
    Q5_0 "q5_0" 32 22;
    /// ggml Q5_1: f16 scale and minimum, 32 × 5 bits; x = d·q + m.
    Q5_1 "q5_1" 32 24;
    /// ggml Q4_K: 8 sub-blocks of 32 with 6-bit scales and minima.
    Q4_K "q4_k" 256 144;
    /// ggml Q5_K: as Q4_K with a fifth bit.
    Q5_K "q5_k" 256 176;
    /// ggml Q6_K: 16 sub-blocks of 16 with 8-bit scales.
    Q6_K "q6_k" 256 210;
}

impl DType {
    /// The dtype spelled `name`.
    pub fn parse(name: &str) -> Option<DType> {
        Self::ALL.iter().copied().find(|dtype| dtype.name() == name)
    }

    /// Whether elements come in blocks with shared scales.
    pub const fn is_block(self) -> bool {
        self.block_len() > 1
    }

    /// Whether `dequantize` takes it: any form that stores real numbers.
    pub const fn is_stored_real(self) -> bool {
        !matches!(self, DType::I32 | DType::I8 | DType::U8 | DType::Bool)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One extent of a shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dim {
    /// Known when compiling.
    Const(u64),
    /// A symbol of the module, bounded there.
    Symbol(SymbolId),
}

impl From<u64> for Dim {
    fn from(extent: u64) -> Self {
        Dim::Const(extent)
    }
}

impl From<SymbolId> for Dim {
    fn from(symbol: SymbolId) -> Self {
        Dim::Symbol(symbol)
    }
}

/// Most dimensions of a tensor.
pub const MAX_RANK: usize = 8;

/// Extents, outermost first.
pub type Shape = Vec<Dim>;

/// How elements lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Layout {
    /// Last dimension contiguous.
    #[default]
    RowMajor,
    /// A cache `[C, heads, head_dim]` stored as `[heads][C / lanes][head_dim][lanes]`: `lanes`
    /// positions side by side, so that the scores of `lanes` positions are one vector.
    PositionLanes(u32),
    /// A cache `[C, heads, head_dim]` stored as `[heads][C][head_dim]`.
    HeadMajor,
    /// A cache `[C, heads, head_dim]` stored as `[heads][C / w][head_dim / e][w][e]`, C rounded up
    /// to a multiple of w, e elements making 16 bytes: the 16 bytes of w positions side by side
    /// are what a wave of w lanes loads at once.
    KeyBlocks(u32),
    /// A cache `[C, heads, head_dim]` stored as `[heads][C / e][head_dim][e]`, C rounded up to a
    /// multiple of w, e elements making 16 bytes: one element of e positions side by side.
    ValueBlocks(u32),
}

impl Layout {
    /// Capacity of a cache of `context` positions: whole blocks.
    pub fn capacity(self, context: u64) -> u64 {
        match self {
            Layout::RowMajor | Layout::HeadMajor => context,
            Layout::PositionLanes(lanes)
            | Layout::KeyBlocks(lanes)
            | Layout::ValueBlocks(lanes) => context.next_multiple_of(u64::from(lanes.max(1))),
        }
    }

    /// Where element `[position, head, element]` of a cache `[context, heads, head_dim]` of
    /// elements of `bytes` bytes lies, in elements: what the variants say, as a formula.
    pub fn index(self, cache: [u64; 3], at: [u64; 3], bytes: u64) -> u64 {
        let ([context, heads, head_dim], [position, head, element]) = (cache, at);
        let capacity = self.capacity(context);
        match self {
            Layout::RowMajor => (position * heads + head) * head_dim + element,
            Layout::HeadMajor => (head * capacity + position) * head_dim + element,
            Layout::PositionLanes(lanes) => {
                let lanes = u64::from(lanes.max(1));
                let block = head * (capacity / lanes) + position / lanes;
                (block * head_dim + element) * lanes + position % lanes
            }
            Layout::KeyBlocks(lanes) => {
                let (lanes, wide) = (u64::from(lanes.max(1)), 16 / bytes);
                let block = head * (capacity / lanes) + position / lanes;
                let row = block * (head_dim / wide) + element / wide;
                (row * lanes + position % lanes) * wide + element % wide
            }
            Layout::ValueBlocks(_) => {
                let wide = 16 / bytes;
                let block = head * (capacity / wide) + position / wide;
                (block * head_dim + element) * wide + position % wide
            }
        }
    }
}

/// The type of a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Type {
    /// Element type.
    pub dtype: DType,
    /// Extents.
    pub shape: Shape,
    /// Memory layout; row-major until layouts are chosen.
    pub layout: Layout,
}

impl Type {
    /// A row-major type.
    pub fn new(dtype: DType, shape: impl Into<Shape>) -> Type {
        Type { dtype, shape: shape.into(), layout: Layout::RowMajor }
    }

    /// A row-major f32 type.
    pub fn f32(shape: impl Into<Shape>) -> Type {
        Type::new(DType::F32, shape)
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// Bytes that a value takes when each dim has the extent that `extent` gives; `None` on
    /// overflow or where a last dimension is not a whole number of blocks.
    pub fn bytes(&self, extent: impl Fn(Dim) -> u64) -> Option<u64> {
        let elements = self.shape.iter().try_fold(1u64, |n, &dim| n.checked_mul(extent(dim)))?;
        if self.dtype.is_block() {
            let last = extent(*self.shape.last()?);
            if !last.is_multiple_of(self.dtype.block_len()) {
                return None;
            }
        }
        (elements / self.dtype.block_len()).checked_mul(self.dtype.block_bytes())
    }

    /// The last extent, if constant.
    pub fn last_const(&self) -> Option<u64> {
        match self.shape.last() {
            Some(Dim::Const(extent)) => Some(*extent),
            _ => None,
        }
    }
}
