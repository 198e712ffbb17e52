//! Attributes of ops as text, one trait for each of the two places they stand in.
//!
//! [`Attr`] is a value: how a type of attribute is written, read, and which ids are in it.
//! [`Field`] is an entry of the braces after an op. A value is `name = value`; an `Option` is
//! left out where it is `None`; the attribute structs of large macro-ops put their own fields
//! there. The declaration of the ops calls nothing but `Field`.

use super::parser::{ParseError, ParseProblem, Parser};
use super::printer::{TypeText, function_name, symbol_name, weight_name};
use crate::expr::{BinaryOp, Expr, F32, MAX_EXPR_DEPTH, UnaryOp};
use crate::module::{FuncId, Module, SymbolId, WeightId};
use crate::op::{
    AttentionAttr, DecodeLoopAttr, GemmAttr, GemmOutput, Prologue, Store, Tiles, Tiling,
};
use crate::types::{DType, Dim, Layout, Shape, Type};
use std::fmt::Write;

type Read<T> = Result<T, ParseError>;

/// An id of the module that an attribute holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttrId {
    /// In an extent.
    Symbol(SymbolId),
    /// Of a `weight`.
    Weight(WeightId),
    /// Of a `call` or a `decode_loop`.
    Func(FuncId),
}

/// A value of an attribute.
pub(crate) trait Attr: Sized {
    /// Appends its text.
    fn write(&self, out: &mut AttrWriter<'_>);
    /// Reads what `write` writes.
    fn read(parser: &mut Parser<'_>) -> Read<Self>;
    /// Visits the ids in it.
    fn ids(&self, _visit: &mut dyn FnMut(AttrId)) {}
}

/// An entry between the braces after an op.
pub(crate) trait Field: Sized {
    /// Appends the entry.
    fn write_field(&self, name: &str, out: &mut AttrWriter<'_>);
    /// Reads the entry.
    fn read_field(name: &'static str, fields: &mut FieldReader<'_, '_>) -> Read<Self>;
    /// Visits the ids in it.
    fn field_ids(&self, visit: &mut dyn FnMut(AttrId));
}

/// Appends attributes to a text.
pub(crate) struct AttrWriter<'w> {
    module: &'w Module,
    out: &'w mut String,
    is_empty: bool,
}

impl<'w> AttrWriter<'w> {
    pub(super) fn new(module: &'w Module, out: &'w mut String) -> Self {
        AttrWriter { module, out, is_empty: true }
    }

    fn name(&mut self, name: &str) {
        let before = if self.is_empty { " {" } else { ", " };
        let _ = write!(self.out, "{before}{name} = ");
        self.is_empty = false;
    }

    fn push(&mut self, text: impl std::fmt::Display) {
        let _ = write!(self.out, "{text}");
    }

    /// Closes the braces, if there are any.
    pub(super) fn finish(self) {
        if !self.is_empty {
            self.out.push('}');
        }
    }
}

/// Reads the entries between the braces after an op, in order.
pub(crate) struct FieldReader<'p, 't> {
    parser: &'p mut Parser<'t>,
    in_braces: bool,
    is_first: bool,
}

impl<'p, 't> FieldReader<'p, 't> {
    pub(super) fn new(parser: &'p mut Parser<'t>) -> Self {
        let in_braces = parser.eat("{");
        FieldReader { parser, in_braces, is_first: true }
    }

    /// Moves past `name =` if it comes next.
    fn find(&mut self, name: &'static str) -> bool {
        let ahead = usize::from(!self.is_first);
        let found = self.in_braces && self.parser.comes_field(ahead, name);
        if found {
            self.parser.skip(ahead + 2);
            self.is_first = false;
        }
        found
    }

    fn require(&mut self, name: &'static str) -> Read<()> {
        if self.find(name) {
            return Ok(());
        }
        if self.in_braces && !self.is_first && !self.parser.comes("}") {
            self.parser.expect(",")?;
        }
        let braces = if self.in_braces { "" } else { "{" };
        Err(self.parser.unexpected(format!("`{braces}{name} = …`")))
    }

    /// Moves past the closing brace.
    pub(super) fn finish(self) -> Read<()> {
        if self.in_braces { self.parser.expect("}") } else { Ok(()) }
    }
}

impl<T: Attr> Field for T {
    fn write_field(&self, name: &str, out: &mut AttrWriter<'_>) {
        out.name(name);
        self.write(out);
    }
    fn read_field(name: &'static str, fields: &mut FieldReader<'_, '_>) -> Read<Self> {
        fields.require(name)?;
        T::read(fields.parser)
    }
    fn field_ids(&self, visit: &mut dyn FnMut(AttrId)) {
        self.ids(visit);
    }
}

impl<T: Attr> Field for Option<T> {
    fn write_field(&self, name: &str, out: &mut AttrWriter<'_>) {
        if let Some(value) = self {
            value.write_field(name, out);
        }
    }
    fn read_field(name: &'static str, fields: &mut FieldReader<'_, '_>) -> Read<Self> {
        if fields.find(name) { T::read(fields.parser).map(Some) } else { Ok(None) }
    }
    fn field_ids(&self, visit: &mut dyn FnMut(AttrId)) {
        if let Some(value) = self {
            value.ids(visit);
        }
    }
}

/// Structs whose fields stand among the op's own.
macro_rules! flat {
    ($($name:ident { $($field:ident),* })*) => {$(
        impl Field for $name {
            fn write_field(&self, _: &str, out: &mut AttrWriter<'_>) {
                let $name { $($field),* } = self;
                $($field.write_field(stringify!($field), out);)*
            }
            fn read_field(_: &'static str, fields: &mut FieldReader<'_, '_>) -> Read<Self> {
                Ok($name { $($field: Field::read_field(stringify!($field), fields)?),* })
            }
            fn field_ids(&self, visit: &mut dyn FnMut(AttrId)) {
                let $name { $($field),* } = self;
                $($field.field_ids(visit);)*
            }
        }
    )*};
}

flat! {
    GemmAttr { weights, prologue, outputs, tiles }
    Tiles { prefill_tiles, decode_tiles }
    AttentionAttr { heads, kv_heads, head_dim, scale, window, softcap }
    DecodeLoopAttr { step, stop_tokens }
}

impl Attr for u32 {
    fn write(&self, out: &mut AttrWriter<'_>) {
        out.push(self);
    }
    fn read(parser: &mut Parser<'_>) -> Read<Self> {
        parser.number("a 32-bit number")
    }
}

impl Attr for u64 {
    fn write(&self, out: &mut AttrWriter<'_>) {
        out.push(self);
    }
    fn read(parser: &mut Parser<'_>) -> Read<Self> {
        parser.number("a 64-bit number")
    }
}

impl Attr for F32 {
    fn write(&self, out: &mut AttrWriter<'_>) {
        out.push(self);
    }
    fn read(parser: &mut Parser<'_>) -> Read<Self> {
        parser.float()
    }
}

impl Attr for Dim {
    fn write(&self, out: &mut AttrWriter<'_>) {
        match self {
            Dim::Const(extent) => out.push(extent),
            Dim::Symbol(id) => out.push(symbol_name(out.module, *id)),
        }
    }
    fn read(parser: &mut Parser<'_>) -> Read<Self> {
        if parser.comes_number() {
            return parser.number("an extent below 2^64").map(Dim::Const);
        }
        parser.symbol().map(Dim::Symbol)
    }
    fn ids(&self, visit: &mut dyn FnMut(AttrId)) {
        if let Dim::Symbol(id) = self {
            visit(AttrId::Symbol(*id));
        }
    }
}

/// Lists, `[a, b]`; a [`Shape`] is one.
impl<T: Attr> Attr for Vec<T> {
    fn write(&self, out: &mut AttrWriter<'_>) {
        out.push("[");
        for (i, item) in self.iter().enumerate() {
            if i > 0 {
                out.push(", ");
            }
            item.write(out);
        }
        out.push("]");
    }
    fn read(parser: &mut Parser<'_>) -> Read<Self> {
        parser.expect("[")?;
        parser.list("]", T::read)
    }
    fn ids(&self, visit: &mut dyn FnMut(AttrId)) {
        self.iter().for_each(|item| item.ids(visit));
    }
}

impl Attr for DType {
    fn write(&self, out: &mut AttrWriter<'_>) {
        out.push(self);
    }
    fn read(parser: &mut Parser<'_>) -> Read<Self> {
        parser.word(DType::parse, || {
            let names: Vec<&str> = DType::ALL.iter().map(|dtype| dtype.name()).collect();
            format!("a dtype ({})", names.join(", "))
        })
    }
}

impl Attr for Type {
    fn write(&self, out: &mut AttrWriter<'_>) {
        out.push(TypeText(out.module, self));
    }
    fn read(parser: &mut Parser<'_>) -> Read<Self> {
        let dtype = DType::read(parser)?;
        let shape = Shape::read(parser)?;
        let layout = if parser.eat_at("lanes") {
            Layout::PositionLanes(layout_parameter(parser)?)
        } else if parser.eat_at("key_blocks") {
            Layout::KeyBlocks(layout_parameter(parser)?)
        } else if parser.eat_at("value_blocks") {
            Layout::ValueBlocks(layout_parameter(parser)?)
        } else if parser.eat_at("head_major") {
            Layout::HeadMajor
        } else {
            Layout::RowMajor
        };
        Ok(Type { dtype, shape, layout })
    }
    fn ids(&self, visit: &mut dyn FnMut(AttrId)) {
        self.shape.ids(visit);
    }
}

/// `<16>`.
fn layout_parameter(parser: &mut Parser<'_>) -> Read<u32> {
    parser.expect("<")?;
    let number = parser.number("a number of lanes")?;
    parser.expect(">")?;
    Ok(number)
}

impl Attr for WeightId {
    fn write(&self, out: &mut AttrWriter<'_>) {
        out.push(format_args!("@{}", weight_name(out.module, *self)));
    }
    fn read(parser: &mut Parser<'_>) -> Read<Self> {
        parser.weight()
    }
    fn ids(&self, visit: &mut dyn FnMut(AttrId)) {
        visit(AttrId::Weight(*self));
    }
}

impl Attr for FuncId {
    fn write(&self, out: &mut AttrWriter<'_>) {
        out.push(format_args!("@{}", function_name(out.module, *self)));
    }
    fn read(parser: &mut Parser<'_>) -> Read<Self> {
        parser.function_reference()
    }
    fn ids(&self, visit: &mut dyn FnMut(AttrId)) {
        visit(AttrId::Func(*self));
    }
}

impl Attr for Prologue {
    fn write(&self, out: &mut AttrWriter<'_>) {
        match self {
            Prologue::RmsNorm { eps } => out.push(format_args!("rms_norm({eps})")),
        }
    }
    fn read(parser: &mut Parser<'_>) -> Read<Self> {
        if !parser.eat_word("rms_norm") {
            return Err(parser.unexpected("a prologue (rms_norm)"));
        }
        parser.expect("(")?;
        let eps = F32::read(parser)?;
        parser.expect(")")?;
        Ok(Prologue::RmsNorm { eps })
    }
}

/// An expression, then `-> append($cache, $positions)` unless the output is dense.
impl Attr for GemmOutput {
    fn write(&self, out: &mut AttrWriter<'_>) {
        self.expr.write(out);
        match self.store {
            Store::Dense => {}
            Store::Append { cache, positions } => {
                out.push(format_args!(" -> append(${cache}, ${positions})"));
            }
        }
    }
    fn read(parser: &mut Parser<'_>) -> Read<Self> {
        let expr = Expr::read(parser)?;
        if !parser.eat("->") {
            return Ok(GemmOutput { expr, store: Store::Dense });
        }
        if !parser.eat_word("append") {
            return Err(parser.unexpected("`append`"));
        }
        parser.expect("(")?;
        let cache = parser.operand_index()?;
        parser.expect(",")?;
        let positions = parser.operand_index()?;
        parser.expect(")")?;
        Ok(GemmOutput { expr, store: Store::Append { cache, positions } })
    }
}

/// `generator(size = 1, …)`.
impl Attr for Tiling {
    fn write(&self, out: &mut AttrWriter<'_>) {
        out.push(format_args!("{}(", self.generator));
        for (i, (name, size)) in self.sizes.iter().enumerate() {
            let before = if i > 0 { ", " } else { "" };
            out.push(format_args!("{before}{name} = {size}"));
        }
        out.push(")");
    }
    fn read(parser: &mut Parser<'_>) -> Read<Self> {
        let generator = parser.identifier("the name of a generator")?;
        parser.expect("(")?;
        let sizes = parser.list(")", |parser| {
            let name = parser.identifier("the name of a size")?;
            parser.expect("=")?;
            Ok((name, u32::read(parser)?))
        })?;
        Ok(Tiling { generator, sizes })
    }
}

impl Attr for Expr {
    fn write(&self, out: &mut AttrWriter<'_>) {
        out.push(self);
    }
    fn read(parser: &mut Parser<'_>) -> Read<Self> {
        read_expr(parser, MAX_EXPR_DEPTH)
    }
}

/// An expression that nests at most `depth` deep.
fn read_expr(parser: &mut Parser<'_>, depth: u32) -> Read<Expr> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(parser.error(ParseProblem::TooDeep));
    };
    if let Some(index) = parser.eat_acc()? {
        return Ok(Expr::Acc(index));
    }
    if parser.comes_operand() {
        return parser.operand_index().map(Expr::Operand);
    }
    if !parser.eat("(") {
        return F32::read(parser).map(Expr::Const);
    }
    let expr = read_application(parser, depth)?;
    parser.expect(")")?;
    Ok(expr)
}

/// A function's name and its arguments.
fn read_application(parser: &mut Parser<'_>, depth: u32) -> Read<Expr> {
    let argument = |parser: &mut Parser<'_>| read_expr(parser, depth).map(Box::new);
    if parser.eat_word("rope") {
        return Ok(Expr::Rope {
            x: argument(parser)?,
            cos: parser.operand_index()?,
            sin: parser.operand_index()?,
            head_dim: u32::read(parser)?,
        });
    }
    if parser.eat_word("head_norm") {
        return Ok(Expr::HeadNorm {
            x: argument(parser)?,
            weight: parser.operand_index()?,
            eps: F32::read(parser)?,
            head_dim: u32::read(parser)?,
        });
    }
    enum Function {
        Unary(UnaryOp),
        Binary(BinaryOp),
    }
    let find = |name: &str| {
        let unary = UnaryOp::parse(name).map(Function::Unary);
        unary.or_else(|| BinaryOp::parse(name).map(Function::Binary))
    };
    match parser.word(find, || "a function of numbers".into())? {
        Function::Unary(op) => Ok(Expr::Unary(op, argument(parser)?)),
        Function::Binary(op) => Ok(Expr::Binary(op, argument(parser)?, argument(parser)?)),
    }
}
