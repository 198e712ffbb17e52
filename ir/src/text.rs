//! The text form of modules, `.wl`: printer and parser.
//!
//! `parse(print(m)) == m` for every verified module. The grammar, with `x*` for any number of x,
//! `x,*` for any number with commas between, and `[x]` for at most one:
//!
//! ```text
//! module   = "module" @name "{" note* symbol* weight* func* "}"
//! note     = "note" name "=" "text"                            for whoever wrote the module
//! symbol   = "symbol" name "in" number "..=" number
//! weight   = "weight" @name ":" type ["from" dtype]            stored in another dtype
//!            ["blake3" "digits"]                               digest of the stored bytes
//! func     = "func" @name "(" param,* ")" "->" "(" type,* ")" "{" inst* return "}"
//! param    = value ":" type
//! inst     = [value,* "="] op operand,* ["{" attribute,* "}"] ":" types
//! types    = type,*  or  "()" where there is no result
//! return   = "return" operand,*
//! value    = %id ["name"]                                      the name is for people
//! operand  = %id
//! type     = dtype "[" dim,* "]" ["@lanes" "<" number ">" | "@head_major"]
//! dim      = number | name of a symbol
//! attribute = name "=" what the op declares, in the order of its declaration
//! ```
//!
//! A name that is no identifier (letters, digits, `_`, `.`, not starting with a digit) is quoted:
//! `@"a name"`. `//` starts a comment. The printer numbers values as the module does; the parser
//! takes any distinct ids, `%x` too, and numbers values anew, so that text can be edited.
//! Types after `:` are checked against [`infer`](crate::infer::infer).

pub(crate) mod attr;
mod lexer;
mod parser;
mod printer;

#[cfg(test)]
mod tests;

pub use parser::{ParseError, ParseProblem, parse};
pub use printer::{print, print_attributes, print_function, print_type};
