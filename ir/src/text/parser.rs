//! Text to modules: recursive descent over tokens.

use super::attr::{Attr, FieldReader};
use super::lexer::{Token, lex};
use super::printer::{TypeList, TypeText};
use crate::expr::F32;
use crate::infer::{InferError, infer};
use crate::module::{
    Digest, FuncId, Function, Inst, Module, Symbol, SymbolId, Value, ValueId, Weight, WeightId,
};
use crate::op::Op;
use crate::types::{DType, Type};
use std::collections::HashMap;
use std::str::FromStr;
use thiserror::Error;

/// Why a text is no module.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}, column {column}: {problem}")]
pub struct ParseError {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong there.
    pub problem: ParseProblem,
}

/// What is wrong at a place of a text.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ParseProblem {
    /// A token that cannot stand there.
    #[error("expected {expected}, found {found}")]
    Unexpected {
        /// What could stand there.
        expected: String,
        /// What does.
        found: String,
    },
    /// A character of no token.
    #[error("no token starts with {0:?}")]
    Character(char),
    /// A string without its closing quote.
    #[error("the string does not end on its line")]
    Unterminated,
    /// An unknown escape.
    #[error("no such escape in a string: `\\{0}`; known are \\\" \\\\ \\n \\r \\t \\u{{…}}")]
    Escape(char),
    /// A reference to nothing.
    #[error("there is no {what} `{name}` before this")]
    Unknown {
        /// What was looked for.
        what: &'static str,
        /// By which name.
        name: String,
    },
    /// An op that is not.
    #[error("there is no op `{0}`")]
    UnknownOp(String),
    /// A second definition.
    #[error("there is a {what} `{name}` already")]
    Duplicate {
        /// What is defined.
        what: &'static str,
        /// By which name.
        name: String,
    },
    /// A number that does not fit.
    #[error("`{text}` is not {expected}")]
    Number {
        /// As written.
        text: String,
        /// What was wanted.
        expected: &'static str,
    },
    /// An expression within an expression, and so on.
    #[error("expressions nest too deep")]
    TooDeep,
    /// The op does not take these operands.
    #[error(transparent)]
    Infer(#[from] InferError),
    /// The types written are not those that follow.
    #[error("the type is {expected}, the text says {found}")]
    Types {
        /// Inferred.
        expected: String,
        /// Written.
        found: String,
    },
    /// The number of results is not what follows.
    #[error("the op gives {expected} results, the text names {found}")]
    Results {
        /// Inferred.
        expected: usize,
        /// Written.
        found: usize,
    },
}

impl ParseError {
    pub(super) fn new(text: &str, offset: usize, problem: ParseProblem) -> ParseError {
        let before = &text[..offset];
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        ParseError {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            problem,
        }
    }
}

type Read<T> = Result<T, ParseError>;

/// Reads a module. Its types are checked; everything else is the verifier's.
pub fn parse(text: &str) -> Result<Module, ParseError> {
    let mut parser = Parser {
        text,
        tokens: lex(text)?,
        at: 0,
        module: Module::new(""),
        names: Names::default(),
    };
    parser.module()?;
    Ok(parser.module)
}

/// What names mean. Functions are there once their body is read, so that none calls itself.
#[derive(Default)]
struct Names {
    symbols: HashMap<String, SymbolId>,
    weights: HashMap<String, WeightId>,
    functions: HashMap<String, FuncId>,
}

pub(crate) struct Parser<'t> {
    text: &'t str,
    tokens: Vec<(Token<'t>, usize)>,
    at: usize,
    module: Module,
    names: Names,
}

/// Tokens.
impl<'t> Parser<'t> {
    /// The token `ahead` of the next; past the end it is the end.
    fn peek(&self, ahead: usize) -> &Token<'t> {
        self.tokens.get(self.at + ahead).map_or(&Token::End, |(token, _)| token)
    }

    pub(super) fn skip(&mut self, count: usize) {
        self.at = (self.at + count).min(self.tokens.len() - 1);
    }

    fn error_at(&self, at: usize, problem: ParseProblem) -> ParseError {
        let offset = self.tokens.get(at).map_or(self.text.len(), |(_, offset)| *offset);
        ParseError::new(self.text, offset, problem)
    }

    /// An error at the next token.
    pub(super) fn error(&self, problem: ParseProblem) -> ParseError {
        self.error_at(self.at, problem)
    }

    /// The next token cannot stand where it does.
    pub(super) fn unexpected(&self, expected: impl Into<String>) -> ParseError {
        let found = self.peek(0).to_string();
        self.error(ParseProblem::Unexpected { expected: expected.into(), found })
    }

    pub(super) fn comes(&self, punct: &str) -> bool {
        matches!(self.peek(0), Token::Punct(text) if *text == punct)
    }

    /// Whether `name =` comes after `ahead` tokens, of which the first may only be a comma.
    pub(super) fn comes_field(&self, ahead: usize, name: &str) -> bool {
        (ahead == 0 || self.comes(","))
            && *self.peek(ahead) == Token::Ident(name)
            && *self.peek(ahead + 1) == Token::Punct("=")
    }

    pub(super) fn comes_number(&self) -> bool {
        matches!(self.peek(0), Token::Number(_))
    }

    pub(super) fn comes_operand(&self) -> bool {
        matches!(self.peek(0), Token::Operand(_))
    }

    fn eat_if(&mut self, found: bool) -> bool {
        if found {
            self.skip(1);
        }
        found
    }

    pub(super) fn eat(&mut self, punct: &str) -> bool {
        self.eat_if(self.comes(punct))
    }

    pub(super) fn eat_word(&mut self, word: &str) -> bool {
        self.eat_if(*self.peek(0) == Token::Ident(word))
    }

    pub(super) fn eat_at(&mut self, name: &str) -> bool {
        self.eat_if(matches!(self.peek(0), Token::At(found) if found == name))
    }

    pub(super) fn expect(&mut self, punct: &str) -> Read<()> {
        if self.eat(punct) { Ok(()) } else { Err(self.unexpected(format!("`{punct}`"))) }
    }

    fn expect_word(&mut self, word: &str) -> Read<()> {
        if self.eat_word(word) { Ok(()) } else { Err(self.unexpected(format!("`{word}`"))) }
    }

    /// An identifier that `find` knows.
    pub(super) fn word<T>(
        &mut self,
        find: impl Fn(&str) -> Option<T>,
        expected: impl Fn() -> String,
    ) -> Read<T> {
        let found = match self.peek(0) {
            Token::Ident(word) => find(word),
            _ => None,
        };
        let found = found.ok_or_else(|| self.unexpected(expected()))?;
        self.skip(1);
        Ok(found)
    }

    /// Items with commas between, up to and with `close`.
    pub(super) fn list<T>(
        &mut self,
        close: &str,
        read: impl Fn(&mut Self) -> Read<T>,
    ) -> Read<Vec<T>> {
        let mut items = vec![];
        if self.eat(close) {
            return Ok(items);
        }
        loop {
            items.push(read(self)?);
            if self.eat(close) {
                return Ok(items);
            }
            if !self.eat(",") {
                return Err(self.unexpected(format!("`,` or `{close}`")));
            }
        }
    }

    /// A number of the type that is wanted.
    pub(super) fn number<T: FromStr>(&mut self, expected: &'static str) -> Read<T> {
        match *self.peek(0) {
            Token::Number(text) => self.digits(text, expected),
            _ => Err(self.unexpected(expected)),
        }
    }

    /// `text` of the next token as a number.
    fn digits<T: FromStr>(&mut self, text: &str, expected: &'static str) -> Read<T> {
        let number = text
            .parse()
            .map_err(|_| self.error(ParseProblem::Number { text: text.to_string(), expected }))?;
        self.skip(1);
        Ok(number)
    }

    /// A real number as `F32` prints it, or an integer.
    pub(super) fn float(&mut self) -> Read<F32> {
        const EXPECTED: &str = "a real number";
        let bits = |text: &str| u32::from_str_radix(text.strip_prefix("nan.0x")?, 16).ok();
        let is_nan = |bits: &u32| f32::from_bits(*bits).is_nan();
        let word = match *self.peek(0) {
            Token::Number(text) => return self.digits(text, EXPECTED).map(F32),
            Token::Ident("inf") => Some(f32::INFINITY),
            Token::Ident("nan") => Some(f32::NAN),
            Token::Ident(word) => bits(word).filter(is_nan).map(f32::from_bits),
            _ => None,
        };
        let number = word.ok_or_else(|| self.unexpected(EXPECTED))?;
        self.skip(1);
        Ok(F32(number))
    }

    /// A name that needs no quotes.
    pub(super) fn identifier(&mut self, expected: &str) -> Read<String> {
        match *self.peek(0) {
            Token::Ident(name) => {
                self.skip(1);
                Ok(name.to_string())
            }
            _ => Err(self.unexpected(expected)),
        }
    }

    /// `$i`.
    pub(super) fn operand_index(&mut self) -> Read<u32> {
        match *self.peek(0) {
            Token::Operand(text) => self.digits(text, "the index of an operand"),
            _ => Err(self.unexpected("an operand `$i`")),
        }
    }

    /// `#i`, if it comes next.
    pub(super) fn eat_acc(&mut self) -> Read<Option<u32>> {
        match *self.peek(0) {
            Token::Acc(text) => self.digits(text, "the index of an accumulator").map(Some),
            _ => Ok(None),
        }
    }
}

/// Names.
impl<'t> Parser<'t> {
    /// `@name`, defined here.
    fn at_name(&mut self) -> Read<String> {
        match self.peek(0) {
            Token::At(name) => {
                let name = name.to_string();
                self.skip(1);
                Ok(name)
            }
            _ => Err(self.unexpected("`@` and a name")),
        }
    }

    /// The name of a symbol.
    fn symbol_name(&mut self, expected: &str) -> Read<String> {
        let name = match self.peek(0) {
            Token::Ident(name) => name.to_string(),
            Token::Quoted(name) => name.to_string(),
            _ => return Err(self.unexpected(expected)),
        };
        self.skip(1);
        Ok(name)
    }

    /// What the last token names, or an error at it.
    fn known<T>(&self, id: Option<T>, what: &'static str, name: String) -> Read<T> {
        id.ok_or_else(|| self.error_at(self.at - 1, ParseProblem::Unknown { what, name }))
    }

    pub(super) fn symbol(&mut self) -> Read<SymbolId> {
        let name = self.symbol_name("an extent")?;
        self.known(self.names.symbols.get(&name).copied(), "symbol", name)
    }

    pub(super) fn weight(&mut self) -> Read<WeightId> {
        let name = self.at_name()?;
        self.known(self.names.weights.get(&name).copied(), "weight", name)
    }

    pub(super) fn function_reference(&mut self) -> Read<FuncId> {
        let name = self.at_name()?;
        self.known(self.names.functions.get(&name).copied(), "function", name)
    }

    fn new_name<T>(
        &self,
        at: usize,
        known: &HashMap<String, T>,
        what: &'static str,
        name: &str,
    ) -> Read<()> {
        if known.contains_key(name) {
            let name = name.to_string();
            return Err(self.error_at(at, ParseProblem::Duplicate { what, name }));
        }
        Ok(())
    }
}

/// Declarations.
impl<'t> Parser<'t> {
    fn module(&mut self) -> Read<()> {
        self.expect_word("module")?;
        self.module.name = self.at_name()?;
        self.expect("{")?;
        loop {
            match self.peek(0) {
                Token::Ident("note") => self.note()?,
                Token::Ident("symbol") => self.symbol_declaration()?,
                Token::Ident("weight") => self.weight_declaration()?,
                Token::Ident("func") => self.function()?,
                Token::Punct("}") => break,
                _ => return Err(self.unexpected("`note`, `symbol`, `weight`, `func` or `}`")),
            }
        }
        self.skip(1);
        match self.peek(0) {
            Token::End => Ok(()),
            _ => Err(self.unexpected("the end of the text")),
        }
    }

    fn note(&mut self) -> Read<()> {
        self.skip(1);
        let at = self.at;
        let name = self.symbol_name("a name")?;
        if self.module.note(&name).is_some() {
            return Err(self.error_at(at, ParseProblem::Duplicate { what: "note", name }));
        }
        self.expect("=")?;
        let value = self.string("a text in quotes")?;
        self.module.notes.push((name, value));
        Ok(())
    }

    /// A text in quotes.
    fn string(&mut self, expected: &str) -> Read<String> {
        let Token::Quoted(text) = self.peek(0) else {
            return Err(self.unexpected(expected));
        };
        let text = text.to_string();
        self.skip(1);
        Ok(text)
    }

    fn symbol_declaration(&mut self) -> Read<()> {
        self.skip(1);
        let at = self.at;
        let name = self.symbol_name("a name")?;
        self.new_name(at, &self.names.symbols, "symbol", &name)?;
        self.expect_word("in")?;
        let min = self.number("a 64-bit number")?;
        self.expect("..=")?;
        let max = self.number("a 64-bit number")?;
        let id = SymbolId(self.module.symbols.len() as u32);
        self.names.symbols.insert(name.clone(), id);
        self.module.symbols.push(Symbol { name, min, max });
        Ok(())
    }

    fn weight_declaration(&mut self) -> Read<()> {
        self.skip(1);
        let at = self.at;
        let name = self.at_name()?;
        self.new_name(at, &self.names.weights, "weight", &name)?;
        self.expect(":")?;
        let ty = Type::read(self)?;
        let stored = if self.eat_word("from") { DType::read(self)? } else { ty.dtype };
        let digest = if self.eat_word("blake3") { Some(self.digest()?) } else { None };
        let id = WeightId(self.module.weights.len() as u32);
        self.names.weights.insert(name.clone(), id);
        self.module.weights.push(Weight { name, ty, stored, digest });
        Ok(())
    }

    fn digest(&mut self) -> Read<Digest> {
        const EXPECTED: &str = "a digest of 64 hexadecimal digits";
        let text = self.string(EXPECTED)?;
        let digest = Digest::parse(&text);
        let problem = ParseProblem::Number { text, expected: EXPECTED };
        digest.ok_or_else(|| self.error_at(self.at - 1, problem))
    }

    fn function(&mut self) -> Read<()> {
        self.skip(1);
        let at = self.at;
        let name = self.at_name()?;
        self.new_name(at, &self.names.functions, "function", &name)?;
        let mut body = Body::new(name);
        self.expect("(")?;
        if !self.eat(")") {
            loop {
                let definition = self.definition()?;
                self.expect(":")?;
                let ty = Type::read(self)?;
                let id = self.define(&mut body, definition, ty)?;
                body.function.params.push(id);
                if self.eat(")") {
                    break;
                }
                self.expect(",")?;
            }
        }
        self.expect("->")?;
        let types_at = self.at;
        self.expect("(")?;
        let result_types = self.list(")", Type::read)?;
        self.expect("{")?;
        while !self.eat_word("return") {
            self.inst(&mut body)?;
        }
        body.function.results = self.operands(&body)?;
        self.expect("}")?;
        let inferred: Vec<&Type> = body.function.result_types().collect();
        self.compare_types(types_at, &inferred, &result_types)?;
        let id = self.module.add_function(body.function);
        self.names.functions.insert(self.module.functions[id.index()].name.clone(), id);
        Ok(())
    }

    fn compare_types(&self, at: usize, inferred: &[&Type], written: &[Type]) -> Read<()> {
        let written: Vec<&Type> = written.iter().collect();
        if inferred == written {
            return Ok(());
        }
        let text = |types: &[&Type]| match types {
            [one] => TypeText(&self.module, one).to_string(),
            types => format!("({})", TypeList(&self.module, types)),
        };
        let (expected, found) = (text(inferred), text(&written));
        Err(self.error_at(at, ParseProblem::Types { expected, found }))
    }
}

/// A function under way, and what its value ids mean.
struct Body<'t> {
    function: Function,
    values: HashMap<&'t str, ValueId>,
}

impl Body<'_> {
    fn new(name: String) -> Self {
        let (values, params, insts, results) = (vec![], vec![], vec![], vec![]);
        let function = Function { name, values, params, insts, results };
        Body { function, values: HashMap::new() }
    }
}

/// `%id "name"`: the token's index, the id, the name.
struct Definition<'t> {
    at: usize,
    id: &'t str,
    name: Option<String>,
}

/// Functions.
impl<'t> Parser<'t> {
    fn definition(&mut self) -> Read<Definition<'t>> {
        let at = self.at;
        let Token::Value(id) = *self.peek(0) else {
            return Err(self.unexpected("a value `%…`"));
        };
        self.skip(1);
        // `%x` for `%0 "x"`.
        let spelled = id.starts_with(|c: char| !c.is_ascii_digit()).then(|| id.to_string());
        let name = match self.peek(0) {
            Token::Quoted(name) => Some(name.to_string()),
            _ => return Ok(Definition { at, id, name: spelled }),
        };
        self.skip(1);
        Ok(Definition { at, id, name })
    }

    fn define(&self, body: &mut Body<'t>, definition: Definition<'t>, ty: Type) -> Read<ValueId> {
        let Definition { at, id, name } = definition;
        let value = ValueId(body.function.values.len() as u32);
        if id.is_empty() || body.values.insert(id, value).is_some() {
            let name = format!("%{id}");
            return Err(self.error_at(at, ParseProblem::Duplicate { what: "value", name }));
        }
        body.function.values.push(Value { ty, name });
        Ok(value)
    }

    /// Any number of `%id`.
    fn operands(&mut self, body: &Body<'t>) -> Read<Vec<ValueId>> {
        let mut operands = vec![];
        while let Token::Value(id) = *self.peek(0) {
            self.skip(1);
            let value = body.values.get(id).copied();
            operands.push(self.known(value, "value", format!("%{id}"))?);
            if !self.eat(",") {
                return Ok(operands);
            }
            if !matches!(self.peek(0), Token::Value(_)) {
                return Err(self.unexpected("a value `%…`"));
            }
        }
        Ok(operands)
    }

    fn inst(&mut self, body: &mut Body<'t>) -> Read<()> {
        let results_at = self.at;
        let mut definitions = vec![];
        if matches!(self.peek(0), Token::Value(_)) {
            definitions.push(self.definition()?);
            while self.eat(",") {
                definitions.push(self.definition()?);
            }
            self.expect("=")?;
        }
        let op_at = self.at;
        let Token::Ident(mnemonic) = *self.peek(0) else {
            return Err(self.unexpected("an op"));
        };
        self.skip(1);
        let operands = self.operands(body)?;
        let op = self.attributes(op_at, mnemonic)?;
        self.expect(":")?;
        let types_at = self.at;
        let written = self.types()?;
        let operand_types: Vec<&Type> =
            operands.iter().map(|&value| body.function.ty(value)).collect();
        let inferred = infer(&self.module, &op, &operand_types)
            .map_err(|e| self.error_at(op_at, ParseProblem::Infer(e)))?;
        self.compare_types(types_at, &inferred.iter().collect::<Vec<_>>(), &written)?;
        let (expected, found) = (inferred.len(), definitions.len());
        if expected != found {
            return Err(self.error_at(results_at, ParseProblem::Results { expected, found }));
        }
        let mut results = vec![];
        for (definition, ty) in definitions.into_iter().zip(inferred) {
            results.push(self.define(body, definition, ty)?);
        }
        body.function.insts.push(Inst { op, operands, results });
        Ok(())
    }

    /// The op with its attributes.
    fn attributes(&mut self, op_at: usize, mnemonic: &str) -> Read<Op> {
        let mut fields = FieldReader::new(self);
        match Op::read(mnemonic, &mut fields)? {
            Some(op) => {
                fields.finish()?;
                Ok(op)
            }
            None => Err(self.error_at(op_at, ParseProblem::UnknownOp(mnemonic.to_string()))),
        }
    }

    /// Types of the results of an instruction.
    fn types(&mut self) -> Read<Vec<Type>> {
        if self.eat("(") {
            self.expect(")")?;
            return Ok(vec![]);
        }
        let mut types = vec![Type::read(self)?];
        while self.eat(",") {
            types.push(Type::read(self)?);
        }
        Ok(types)
    }
}
