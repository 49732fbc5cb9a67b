//! Arguments matched with parameters.

use super::{
    error::{Outcome, fail},
    repr::to_text,
    value::Value,
};

/// Arguments of a call, by place and by name.
pub(super) type Given = (Vec<Value>, Vec<(Box<str>, Value)>);

/// Arguments in the order of their parameters.
pub(super) struct Bound(Vec<Option<Value>>);

impl Bound {
    /// Matches arguments with the names of parameters.
    pub(super) fn new(parameters: &[&str], (positional, named): Given) -> Outcome<Self> {
        if positional.len() > parameters.len() {
            return fail(format!(
                "{} arguments are given, {} are taken",
                positional.len(),
                parameters.len()
            ));
        }
        let mut values: Vec<Option<Value>> = positional.into_iter().map(Some).collect();
        values.resize_with(parameters.len(), || None);
        for (name, value) in named {
            let Some(place) = parameters.iter().position(|parameter| **parameter == *name) else {
                return fail(format!("there is no parameter {name:?}"));
            };
            if values[place].replace(value).is_some() {
                return fail(format!("argument {name:?} is given twice"));
            }
        }
        Ok(Self(values))
    }

    /// Takes an argument that may be missing.
    pub(super) fn take(&mut self, place: usize) -> Option<Value> {
        self.0.get_mut(place).and_then(Option::take)
    }

    /// Takes an argument that must be there.
    pub(super) fn value(&mut self, place: usize) -> Outcome<Value> {
        match self.take(place) {
            Some(value) => Ok(value),
            None => fail("an argument is missing"),
        }
    }

    /// Takes a text that must be one.
    pub(super) fn text(&mut self, place: usize) -> Outcome<String> {
        match self.value(place)? {
            Value::Text(text) => Ok(text.text.to_string()),
            other => fail(format!("expected a text, found {}", other.kind())),
        }
    }

    /// Takes a text that may be missing or none.
    pub(super) fn text_or_none(&mut self, place: usize) -> Outcome<Option<String>> {
        match self.take(place) {
            None | Some(Value::None) => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text.text.to_string())),
            Some(other) => fail(format!("expected a text, found {}", other.kind())),
        }
    }

    /// Takes anything as a text, or a default.
    pub(super) fn any_text(&mut self, place: usize, default: &str) -> Outcome<String> {
        match self.take(place) {
            None => Ok(default.to_owned()),
            Some(value) => Ok(to_text(&value)?.into_owned()),
        }
    }

    pub(super) fn int(&mut self, place: usize, default: i128) -> Outcome<i128> {
        match self.take(place) {
            None => Ok(default),
            Some(value) => match value.as_int() {
                Some(number) => Ok(number),
                None => fail(format!("expected a whole number, found {}", value.kind())),
            },
        }
    }

    /// Takes a width in characters or a count, of a size that can be made.
    pub(super) fn size(&mut self, place: usize, default: usize) -> Outcome<usize> {
        let number = self.int(place, default as i128)?;
        match usize::try_from(number.max(0)) {
            Ok(size) if size <= 1 << 20 => Ok(size),
            _ => fail("a size is too large"),
        }
    }

    pub(super) fn flag(&mut self, place: usize, default: bool) -> bool {
        self.take(place).map_or(default, |value| value.is_true())
    }
}
