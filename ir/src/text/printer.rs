//! Modules to text.

use super::attr::AttrWriter;
use super::lexer::is_identifier;
use crate::module::{FuncId, Function, Inst, Module, SymbolId, ValueId, WeightId};
use crate::op::Op;
use crate::types::{Dim, Layout, Type};
use std::fmt::{self, Write};

/// Parameters up to this many stand on one line.
const PARAMS_ON_A_LINE: usize = 3;

/// A module as text. Ids that name nothing, as in a module that does not verify, are spelled so
/// that no parser takes them for names.
pub fn print(module: &Module) -> String {
    let mut out = format!("module @{} {{\n", Name(&module.name));
    for (name, value) in &module.notes {
        line(&mut out, format_args!("  note {} = {}", Name(name), Quoted(value)));
    }
    for symbol in &module.symbols {
        line(
            &mut out,
            format_args!("  symbol {} in {}..={}", Name(&symbol.name), symbol.min, symbol.max),
        );
    }
    for weight in &module.weights {
        let _ = write!(out, "  weight @{} : {}", Name(&weight.name), TypeText(module, &weight.ty));
        if weight.stored != weight.ty.dtype {
            let _ = write!(out, " from {}", weight.stored);
        }
        if let Some(digest) = weight.digest {
            let _ = write!(out, " blake3 \"{digest}\"");
        }
        out.push('\n');
    }
    for function in &module.functions {
        out.push('\n');
        function_text(module, function, &mut out);
    }
    out.push_str("}\n");
    out
}

/// One function of a module as text.
pub fn print_function(module: &Module, function: &Function) -> String {
    let mut out = String::new();
    function_text(module, function, &mut out);
    out
}

/// The attributes of an op as text, without braces; empty where it has none.
pub fn print_attributes(module: &Module, op: &Op) -> String {
    let mut out = String::new();
    let mut attrs = AttrWriter::new(module, &mut out);
    op.write_attrs(&mut attrs);
    attrs.finish();
    let inside = out.strip_prefix(" {").and_then(|text| text.strip_suffix('}'));
    inside.unwrap_or_default().to_string()
}

/// A type as text, with the module's names of symbols.
pub fn print_type(module: &Module, ty: &Type) -> String {
    TypeText(module, ty).to_string()
}

impl fmt::Display for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&print(self))
    }
}

fn line(out: &mut String, text: fmt::Arguments) {
    let _ = writeln!(out, "{text}");
}

fn function_text(module: &Module, function: &Function, out: &mut String) {
    let params: Vec<String> = function
        .params
        .iter()
        .map(|&id| match function.values.get(id.index()) {
            Some(value) => {
                format!("{}: {}", Definition(function, id), TypeText(module, &value.ty))
            }
            None => id.to_string(),
        })
        .collect();
    let params = if params.len() <= PARAMS_ON_A_LINE {
        params.join(", ")
    } else {
        format!("\n      {}", params.join(",\n      "))
    };
    let types: Vec<&Type> = types_of(function, &function.results);
    let name = Name(&function.name);
    line(out, format_args!("  func @{name}({params}) -> ({}) {{", TypeList(module, &types)));
    for inst in &function.insts {
        inst_text(module, function, inst, out);
    }
    let results = join(function.results.iter().map(ValueId::to_string));
    line(out, format_args!("    return{}{results}", if results.is_empty() { "" } else { " " }));
    out.push_str("  }\n");
}

fn inst_text(module: &Module, function: &Function, inst: &Inst, out: &mut String) {
    let results = join(inst.results.iter().map(|&id| Definition(function, id).to_string()));
    let equals = if results.is_empty() { "" } else { " = " };
    let _ = write!(out, "    {results}{equals}{}", inst.op.mnemonic());
    let operands = join(inst.operands.iter().map(ValueId::to_string));
    if !operands.is_empty() {
        let _ = write!(out, " {operands}");
    }
    let mut attrs = AttrWriter::new(module, out);
    inst.op.write_attrs(&mut attrs);
    attrs.finish();
    let types = types_of(function, &inst.results);
    if types.is_empty() {
        out.push_str(" : ()\n");
    } else {
        line(out, format_args!(" : {}", TypeList(module, &types)));
    }
}

fn types_of<'f>(function: &'f Function, values: &[ValueId]) -> Vec<&'f Type> {
    values.iter().filter_map(|id| function.values.get(id.index())).map(|value| &value.ty).collect()
}

fn join(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}

/// A value with its name where it is defined.
struct Definition<'f>(&'f Function, ValueId);

impl fmt::Display for Definition<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Definition(function, id) = self;
        write!(f, "{id}")?;
        match function.values.get(id.index()).and_then(|value| value.name.as_ref()) {
            Some(name) => write!(f, " {}", Quoted(name)),
            None => Ok(()),
        }
    }
}

/// A name, in quotes if it needs them.
struct Name<'n>(&'n str);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_identifier(self.0) { f.write_str(self.0) } else { Quoted(self.0).fmt(f) }
    }
}

/// A string in quotes.
struct Quoted<'n>(&'n str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                '\n' => f.write_str("\\n")?,
                c if c.is_control() => write!(f, "{}", c.escape_unicode())?,
                c => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}

/// A reference by name to something of the module; `<id>` where the id names nothing.
fn reference(name: Option<&str>, id: impl fmt::Display) -> String {
    name.map_or_else(|| format!("<{id}>"), |name| Name(name).to_string())
}

pub(super) fn symbol_name(module: &Module, id: SymbolId) -> String {
    reference(module.symbols.get(id.index()).map(|symbol| symbol.name.as_str()), id)
}

pub(super) fn weight_name(module: &Module, id: WeightId) -> String {
    reference(module.weights.get(id.index()).map(|weight| weight.name.as_str()), id)
}

pub(super) fn function_name(module: &Module, id: FuncId) -> String {
    reference(module.functions.get(id.index()).map(|function| function.name.as_str()), id)
}

/// `[T, 576]`.
fn shape_text(module: &Module, shape: &[Dim]) -> String {
    let dims = shape.iter().map(|dim| match dim {
        Dim::Const(extent) => extent.to_string(),
        Dim::Symbol(id) => symbol_name(module, *id),
    });
    format!("[{}]", join(dims))
}

/// `f16[C, 3, 64] @lanes<16>`.
pub(super) struct TypeText<'m>(pub &'m Module, pub &'m Type);

impl fmt::Display for TypeText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TypeText(module, ty) = self;
        write!(f, "{}{}", ty.dtype, shape_text(module, &ty.shape))?;
        match ty.layout {
            Layout::RowMajor => Ok(()),
            Layout::PositionLanes(lanes) => write!(f, " @lanes<{lanes}>"),
            Layout::HeadMajor => f.write_str(" @head_major"),
            Layout::KeyBlocks(lanes) => write!(f, " @key_blocks<{lanes}>"),
            Layout::ValueBlocks(lanes) => write!(f, " @value_blocks<{lanes}>"),
        }
    }
}

/// Types with commas between.
pub(super) struct TypeList<'m, 't>(pub &'m Module, pub &'t [&'m Type]);

impl fmt::Display for TypeList<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&join(self.1.iter().map(|ty| TypeText(self.0, ty).to_string())))
    }
}
