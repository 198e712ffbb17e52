//! Typed access to a GGUF file's metadata.

use super::reader::Value;
use crate::error::{ImportError, Result};
use std::collections::HashMap;
use std::path::Path;

/// The metadata of a file.
pub(crate) struct Metadata<'a> {
    pub file: &'a Path,
    pub map: &'a HashMap<&'a str, Value<'a>>,
}

impl<'a> Metadata<'a> {
    fn get<T>(
        &self,
        key: &str,
        wanted: &str,
        convert: impl FnOnce(&'a Value<'a>) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.map.get(key) else {
            return Ok(None);
        };
        convert(value).map(Some).ok_or_else(|| {
            let problem = format!("metadata `{key}` is not {wanted}");
            ImportError::malformed(self.file, problem)
        })
    }

    /// The error for a key that must be there and is not.
    pub(crate) fn missing(&self, key: &str) -> ImportError {
        ImportError::malformed(self.file, format!("metadata `{key}` is missing"))
    }

    /// A whole number that fits u32; an array that has the same one for every layer counts as it.
    pub(crate) fn u32(&self, key: &str) -> Result<Option<u32>> {
        let one = |value: &Value| match value {
            Value::Int(n) => u32::try_from(*n).ok(),
            _ => None,
        };
        self.get(key, "one whole number below 2^32", |value| match value {
            Value::Array(items) => {
                let first = items.first()?;
                items.iter().all(|item| item == first).then(|| one(first))?
            }
            value => one(value),
        })
    }

    /// A u32 that must be there.
    pub(crate) fn need_u32(&self, key: &str) -> Result<u32> {
        self.u32(key)?.ok_or_else(|| self.missing(key))
    }

    /// A number.
    pub(crate) fn f64(&self, key: &str) -> Result<Option<f64>> {
        self.get(key, "a number", |value| match value {
            Value::Float(x) => Some(*x),
            Value::Int(n) => Some(*n as f64),
            _ => None,
        })
    }

    /// `true` or `false`.
    pub(crate) fn bool(&self, key: &str) -> Result<Option<bool>> {
        self.get(key, "true or false", |value| match value {
            Value::Bool(b) => Some(*b),
            _ => None,
        })
    }

    /// A string.
    pub(crate) fn str(&self, key: &str) -> Result<Option<&'a str>> {
        self.get(key, "a string", |value| match value {
            Value::Str(text) => Some(*text),
            _ => None,
        })
    }

    /// An array of strings.
    pub(crate) fn strs(&self, key: &str) -> Result<Option<Vec<&'a str>>> {
        let one = |value: &'a Value| match value {
            Value::Str(text) => Some(*text),
            _ => None,
        };
        self.get(key, "an array of strings", |value| match value {
            Value::Array(items) => items.iter().map(one).collect(),
            _ => None,
        })
    }

    /// An array of numbers.
    pub(crate) fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>> {
        let one = |value: &Value| match value {
            Value::Float(x) => Some(*x),
            Value::Int(n) => Some(*n as f64),
            _ => None,
        };
        self.get(key, "an array of numbers", |value| match value {
            Value::Array(items) => items.iter().map(one).collect(),
            _ => None,
        })
    }
}
