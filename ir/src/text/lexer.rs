//! Text to tokens.

use super::parser::{ParseError, ParseProblem};
use std::borrow::Cow;
use std::fmt;

/// A token.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token<'t> {
    /// `module`, `f32`, `T`.
    Ident(&'t str),
    /// `12`, `-1e-5`, `0x7f`; whether it is a number is found out where it is used.
    Number(&'t str),
    /// `"text"`, without quotes and escapes.
    Quoted(Cow<'t, str>),
    /// `%7`, `%x`, without the sign.
    Value(&'t str),
    /// `@name`, `@"a name"`.
    At(Cow<'t, str>),
    /// `#0`, without the sign.
    Acc(&'t str),
    /// `$0`, without the sign.
    Operand(&'t str),
    /// Everything else.
    Punct(&'static str),
    /// The end of the text.
    End,
}

impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::Ident(text) | Token::Number(text) => write!(f, "`{text}`"),
            Token::Quoted(text) => write!(f, "{text:?}"),
            Token::Value(text) => write!(f, "`%{text}`"),
            Token::At(name) => write!(f, "`@{name}`"),
            Token::Acc(text) => write!(f, "`#{text}`"),
            Token::Operand(text) => write!(f, "`${text}`"),
            Token::Punct(text) => write!(f, "`{text}`"),
            Token::End => f.write_str("the end of the text"),
        }
    }
}

/// Longer before shorter.
const PUNCTUATION: [&str; 13] =
    ["..=", "->", "{", "}", "(", ")", "[", "]", "<", ">", ",", ":", "="];

/// Whether `name` needs no quotes.
pub(super) fn is_identifier(name: &str) -> bool {
    name.starts_with(starts_identifier) && name.chars().all(continues_identifier)
}

fn starts_identifier(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_'
}

fn continues_identifier(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '.'
}

/// All tokens with their byte offsets, the last of them [`Token::End`].
pub(super) fn lex(text: &str) -> Result<Vec<(Token<'_>, usize)>, ParseError> {
    let mut lexer = Lexer { text, at: 0 };
    let mut tokens = vec![];
    loop {
        lexer.skip_blank();
        let start = lexer.at;
        let token = lexer.token().map_err(|problem| ParseError::new(text, start, problem))?;
        let is_end = token == Token::End;
        tokens.push((token, start));
        if is_end {
            return Ok(tokens);
        }
    }
}

struct Lexer<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Lexer<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn skip_blank(&mut self) {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start();
            self.at += rest.len() - trimmed.len();
            if !trimmed.starts_with("//") {
                return;
            }
            self.at += trimmed.find('\n').unwrap_or(trimmed.len());
        }
    }

    /// The longest prefix of characters that `keep` accepts.
    fn take_while(&mut self, keep: impl Fn(char) -> bool) -> &'t str {
        let rest = self.rest();
        let len = rest.find(|c| !keep(c)).unwrap_or(rest.len());
        self.at += len;
        &rest[..len]
    }

    fn token(&mut self) -> Result<Token<'t>, ParseProblem> {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else {
            return Ok(Token::End);
        };
        let negative = first == '-' && !rest.starts_with("->");
        if first.is_ascii_digit() || negative {
            return Ok(Token::Number(self.number()));
        }
        if starts_identifier(first) {
            return Ok(Token::Ident(self.take_while(continues_identifier)));
        }
        if first == '"' {
            return Ok(Token::Quoted(self.quoted()?));
        }
        if let Some(punct) = PUNCTUATION.into_iter().find(|punct| rest.starts_with(punct)) {
            self.at += punct.len();
            return Ok(Token::Punct(punct));
        }
        self.at += first.len_utf8();
        match first {
            '%' => Ok(Token::Value(self.take_while(continues_identifier))),
            '#' => Ok(Token::Acc(self.take_while(|c| c.is_ascii_digit()))),
            '$' => Ok(Token::Operand(self.take_while(|c| c.is_ascii_digit()))),
            '@' if self.rest().starts_with('"') => Ok(Token::At(self.quoted()?)),
            '@' => Ok(Token::At(self.take_while(continues_identifier).into())),
            other => Err(ParseProblem::Character(other)),
        }
    }

    /// A sign, then letters and digits, a point before a digit, a sign after an exponent's `e`.
    fn number(&mut self) -> &'t str {
        let bytes = self.rest().as_bytes();
        let mut len = 1;
        while let Some(&byte) = bytes.get(len) {
            let digit_follows = bytes.get(len + 1).is_some_and(u8::is_ascii_digit);
            let after_e = matches!(bytes[len - 1], b'e' | b'E');
            let part = byte.is_ascii_alphanumeric()
                || byte == b'.' && digit_follows
                || matches!(byte, b'+' | b'-') && after_e && digit_follows;
            if !part {
                break;
            }
            len += 1;
        }
        let number = &self.rest()[..len];
        self.at += len;
        number
    }

    /// A string in quotes, on one line, with the escapes of Rust.
    fn quoted(&mut self) -> Result<Cow<'t, str>, ParseProblem> {
        self.at += 1;
        let plain = self.take_while(|c| !matches!(c, '"' | '\\' | '\n'));
        if self.rest().starts_with('"') {
            self.at += 1;
            return Ok(Cow::Borrowed(plain));
        }
        let mut text = plain.to_string();
        loop {
            let Some(c) = self.rest().chars().next() else {
                return Err(ParseProblem::Unterminated);
            };
            self.at += c.len_utf8();
            match c {
                '"' => return Ok(Cow::Owned(text)),
                '\n' => return Err(ParseProblem::Unterminated),
                '\\' => text.push(self.escape()?),
                c => text.push(c),
            }
        }
    }

    /// What follows a backslash.
    fn escape(&mut self) -> Result<char, ParseProblem> {
        let rest = self.rest();
        let c = rest.chars().next().ok_or(ParseProblem::Unterminated)?;
        self.at += c.len_utf8();
        match c {
            '"' | '\\' => Ok(c),
            'n' => Ok('\n'),
            'r' => Ok('\r'),
            't' => Ok('\t'),
            'u' => {
                let (code, _) = rest
                    .strip_prefix("u{")
                    .and_then(|rest| rest.split_once('}'))
                    .ok_or(ParseProblem::Escape('u'))?;
                self.at += code.len() + 2;
                let code = u32::from_str_radix(code, 16).ok().and_then(char::from_u32);
                code.ok_or(ParseProblem::Escape('u'))
            }
            other => Err(ParseProblem::Escape(other)),
        }
    }
}
