//! Typed look-ups in a `config.json`, with errors that name the field.

use serde_json::{Map, Value};

use super::{ConfigError, MAX_CONFIG_BYTES};
use crate::python_json;

/// The object of a `config.json`, or an object inside it.
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    pub(super) fn parse(json: &[u8]) -> Result<Self, ConfigError> {
        if json.len() > MAX_CONFIG_BYTES {
            return Err(ConfigError::Malformed(format!(
                "larger than {MAX_CONFIG_BYTES} bytes"
            )));
        }
        match python_json::parse(json) {
            Ok(Value::Object(map)) => Ok(Self(map)),
            Ok(_) => Err(ConfigError::Malformed("not a JSON object".into())),
            Err(error) => Err(ConfigError::Malformed(error.to_string())),
        }
    }

    /// Whether the field is there and null.
    pub(super) fn is_written_null(&self, field: &str) -> bool {
        self.0.get(field).is_some_and(Value::is_null)
    }

    /// Whether the field is absent or null.
    pub(super) fn is_null(&self, field: &str) -> bool {
        self.value(field).is_none()
    }

    /// Whether the field is there, null or not.
    pub(super) fn is_written(&self, field: &str) -> bool {
        self.0.contains_key(field)
    }

    /// The value of a field, null or not.
    pub(super) fn written(&self, field: &str) -> Option<&Value> {
        self.0.get(field)
    }

    /// The value of a field unless it is null.
    pub(super) fn value(&self, field: &str) -> Option<&Value> {
        self.0.get(field).filter(|value| !value.is_null())
    }

    /// The names of all fields.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// All fields.
    pub(super) const fn all(&self) -> &Map<String, Value> {
        &self.0
    }

    pub(super) fn wrong(&self, field: &'static str, expected: impl Into<String>) -> ConfigError {
        let mut found = self
            .0
            .get(field)
            .map_or_else(|| "absent".to_owned(), Value::to_string);
        if let Some((end, _)) = found.char_indices().nth(60) {
            found.truncate(end);
            found.push_str("..");
        }
        ConfigError::Field {
            field,
            found,
            expected: expected.into(),
        }
    }

    /// A whole number from 1 to `max`.
    pub(super) fn size(
        &self,
        field: &'static str,
        default: usize,
        max: usize,
    ) -> Result<usize, ConfigError> {
        match self.size_or_zero(field, default, max)? {
            0 => Err(self.wrong(field, bounds(1, max))),
            size => Ok(size),
        }
    }

    /// A whole number from 0 to `max`.
    pub(super) fn size_or_zero(
        &self,
        field: &'static str,
        default: usize,
        max: usize,
    ) -> Result<usize, ConfigError> {
        let Some(value) = self.0.get(field) else {
            return Ok(default);
        };
        value
            .as_u64()
            .and_then(|size| usize::try_from(size).ok())
            .filter(|&size| size <= max)
            .ok_or_else(|| self.wrong(field, bounds(0, max)))
    }

    /// A switch; null is off, and a number is on unless it is zero, as Python has it.
    pub(super) fn flag(&self, field: &'static str, default: bool) -> Result<bool, ConfigError> {
        match self.0.get(field) {
            None => Ok(default),
            Some(Value::Null) => Ok(false),
            Some(Value::Bool(on)) => Ok(*on),
            Some(Value::Number(number)) => Ok(number.as_f64() != Some(0.0)),
            Some(_) => Err(self.wrong(field, "true or false")),
        }
    }

    pub(super) fn number(&self, field: &'static str, default: f64) -> Result<f64, ConfigError> {
        let Some(value) = self.0.get(field) else {
            return Ok(default);
        };
        value
            .as_f64()
            .filter(|number| number.is_finite())
            .ok_or_else(|| self.wrong(field, "a finite number"))
    }

    /// A number written with a decimal point or exponent, as Python's `float`.
    pub(super) fn float(&self, field: &'static str) -> Option<f64> {
        self.value(field)
            .filter(|value| value.is_f64())
            .and_then(Value::as_f64)
    }

    pub(super) fn string(&self, field: &'static str, default: &str) -> Result<String, ConfigError> {
        match self.value(field) {
            None => Ok(default.to_owned()),
            Some(Value::String(text)) => Ok(text.clone()),
            Some(_) => Err(self.wrong(field, "a string")),
        }
    }

    pub(super) fn strings(&self, field: &'static str) -> Result<Vec<String>, ConfigError> {
        let Some(value) = self.value(field) else {
            return Ok(Vec::new());
        };
        value
            .as_array()
            .and_then(|list| {
                list.iter()
                    .map(|item| item.as_str().map(str::to_owned))
                    .collect()
            })
            .ok_or_else(|| self.wrong(field, "a list of strings"))
    }

    /// An object, or nothing if the field is absent or null.
    pub(super) fn object(&self, field: &'static str) -> Result<Option<Self>, ConfigError> {
        match self.value(field) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Self(map.clone()))),
            Some(_) => Err(self.wrong(field, "an object")),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

fn bounds(min: usize, max: usize) -> String {
    if max == usize::MAX {
        format!("a whole number of at least {min}")
    } else {
        format!("a whole number from {min} to {max}")
    }
}
