//! Reads fields of a JSON object with errors that name the file and the field.

use crate::error::{ImportError, Result};
use serde_json::{Map, Value};
use std::path::Path;

/// The fields of one JSON object in a file. A field that is `null` counts as absent.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a> {
    file: &'a Path,
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// The object `value`, which stands in `file`.
    pub(crate) fn new(file: &'a Path, value: &'a Value) -> Result<Self> {
        match value {
            Value::Object(map) => Ok(Fields { file, map }),
            _ => Err(ImportError::malformed(file, "not a JSON object")),
        }
    }

    /// The file.
    pub(crate) fn file(&self) -> &'a Path {
        self.file
    }

    /// Whether the field is there, even as `null`.
    pub(crate) fn contains(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    /// Names of the fields.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &'a String> + use<'a> {
        self.map.keys()
    }

    /// The raw value.
    pub(crate) fn value(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    fn get<T>(
        &self,
        key: &str,
        wanted: &str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.value(key) else {
            return Ok(None);
        };
        convert(value).map(Some).ok_or_else(|| {
            let found = shorten(&value.to_string());
            ImportError::malformed(self.file, format!("`{key}` is not {wanted}: {found}"))
        })
    }

    /// A whole number that fits u32.
    pub(crate) fn u32(&self, key: &str) -> Result<Option<u32>> {
        self.get(key, "a whole number below 2^32", |value| value.as_u64()?.try_into().ok())
    }

    /// A finite number.
    pub(crate) fn f64(&self, key: &str) -> Result<Option<f64>> {
        self.get(key, "a number", Value::as_f64)
    }

    /// `true` or `false`.
    pub(crate) fn bool(&self, key: &str) -> Result<Option<bool>> {
        self.get(key, "true or false", Value::as_bool)
    }

    /// A string.
    pub(crate) fn str(&self, key: &str) -> Result<Option<&'a str>> {
        self.get(key, "a string", Value::as_str)
    }

    /// A list.
    pub(crate) fn list(&self, key: &str) -> Result<Option<&'a Vec<Value>>> {
        self.get(key, "a list", Value::as_array)
    }

    /// An object.
    pub(crate) fn object(&self, key: &str) -> Result<Option<Fields<'a>>> {
        let file = self.file;
        self.get(key, "an object", |value| value.as_object().map(|map| Fields { file, map }))
    }

    /// A whole number, or a list of them.
    pub(crate) fn u32s(&self, key: &str) -> Result<Option<Vec<u32>>> {
        let one = |value: &Value| value.as_u64()?.try_into().ok();
        self.get(key, "a whole number or a list of them", |value| match value {
            Value::Array(items) => items.iter().map(one).collect(),
            _ => Some(vec![one(value)?]),
        })
    }

    /// The error for a field that must be there and is not.
    pub(crate) fn missing(&self, key: &str) -> ImportError {
        ImportError::malformed(self.file, format!("`{key}` is missing"))
    }

    /// A u32 that must be there.
    pub(crate) fn need_u32(&self, key: &str) -> Result<u32> {
        self.u32(key)?.ok_or_else(|| self.missing(key))
    }

    /// A number that must be there.
    pub(crate) fn need_f64(&self, key: &str) -> Result<f64> {
        self.f64(key)?.ok_or_else(|| self.missing(key))
    }
}

/// The beginning of a text that came from a file, for an error message.
pub(crate) fn shorten(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_string(),
    }
}

/// Parses JSON.
pub(crate) fn parse(file: &Path, text: &[u8]) -> Result<Value> {
    serde_json::from_slice(text)
        .map_err(|error| ImportError::malformed(file, format!("not JSON: {error}")))
}
