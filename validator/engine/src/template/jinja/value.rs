//! Values as Python has them.

use std::{cell::RefCell, cmp::Ordering, rc::Rc};

use super::error::{Outcome, fail};

/// Values nested more deeply are refused: dropping them takes stack for each level.
const MAX_DEPTH: u32 = 500;

#[derive(Debug, Clone)]
pub(super) enum Value {
    /// What is asked for and is not there: its name.
    Undefined(Rc<str>),
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(Text),
    List(Rc<Items>),
    Tuple(Rc<Items>),
    Dict(Rc<Dict>),
    DictView(DictView, Rc<Dict>),
    Range(Range),
    /// What can be iterated once.
    Generator(Rc<RefCell<Vec<Self>>>),
    Callable(Callable),
    /// The rest are numbers of what the run keeps.
    Namespace(usize),
    Loop(usize),
    Cycler(usize),
}

/// A text, and whether it is marked as safe in HTML.
#[derive(Debug, Clone)]
pub(super) struct Text {
    pub(super) text: Rc<str>,
    pub(super) safe: bool,
}

#[derive(Debug)]
pub(super) struct Items {
    pub(super) values: Vec<Value>,
    /// Names of the items, of a tuple that has them.
    pub(super) names: &'static [&'static str],
    depth: u32,
}

#[derive(Debug)]
pub(super) struct Dict {
    pub(super) pairs: Vec<(Value, Value)>,
    depth: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DictView {
    Keys,
    Values,
    Items,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) start: i128,
    pub(super) step: i128,
    pub(super) length: usize,
    /// As it was written.
    pub(super) stop: i128,
}

#[derive(Debug, Clone)]
pub(super) enum Callable {
    Global(&'static str),
    /// A method of a value.
    Method(Rc<Value>, &'static str),
    /// A macro by its number, and the scope it is defined in.
    Macro(usize, usize),
    Joiner(usize),
}

impl Range {
    pub(super) fn get(self, index: usize) -> Value {
        Value::Int(self.start + self.step * index as i128)
    }

    pub(super) fn values(self) -> impl Iterator<Item = Value> {
        (0..self.length).map(move |index| self.get(index))
    }
}

impl Value {
    pub(super) fn text(text: impl Into<Rc<str>>) -> Self {
        Self::Text(Text {
            text: text.into(),
            safe: false,
        })
    }

    pub(super) fn safe(text: impl Into<Rc<str>>) -> Self {
        Self::Text(Text {
            text: text.into(),
            safe: true,
        })
    }

    pub(super) fn undefined(name: &str) -> Self {
        Self::Undefined(name.into())
    }

    pub(super) fn int(number: usize) -> Self {
        Self::Int(number as i128)
    }

    fn depth(&self) -> u32 {
        match self {
            Self::List(items) | Self::Tuple(items) => items.depth,
            Self::Dict(dict) | Self::DictView(_, dict) => dict.depth,
            Self::Callable(Callable::Method(of, _)) => of.depth() + 1,
            Self::Generator(values) => {
                let values = values.borrow();
                values.iter().map(Self::depth).max().unwrap_or(0) + 1
            }
            _ => 0,
        }
    }

    fn items(values: Vec<Self>) -> Outcome<Rc<Items>> {
        let depth = deeper(values.iter())?;
        Ok(Rc::new(Items {
            values,
            names: &[],
            depth,
        }))
    }

    pub(super) fn named_tuple(names: &'static [&'static str], values: Vec<Self>) -> Outcome<Self> {
        let depth = deeper(values.iter())?;
        Ok(Self::Tuple(Rc::new(Items {
            values,
            names,
            depth,
        })))
    }

    pub(super) fn list(values: Vec<Self>) -> Outcome<Self> {
        Self::items(values).map(Self::List)
    }

    pub(super) fn tuple(values: Vec<Self>) -> Outcome<Self> {
        Self::items(values).map(Self::Tuple)
    }

    pub(super) fn generator(values: Vec<Self>) -> Outcome<Self> {
        deeper(values.iter())?;
        Ok(Self::Generator(Rc::new(RefCell::new(values))))
    }

    /// Makes a dict; of equal keys the last value counts.
    pub(super) fn dict(given: Vec<(Self, Self)>) -> Outcome<Self> {
        let mut pairs: Vec<(Self, Self)> = Vec::with_capacity(given.len());
        for (key, value) in given {
            if !key.is_hashable() {
                return fail(format!("unhashable type: '{}'", key.kind()));
            }
            match pairs.iter_mut().find(|(known, _)| known.equals(&key)) {
                Some(pair) => pair.1 = value,
                None => pairs.push((key, value)),
            }
        }
        let depth = deeper(pairs.iter().flat_map(|(key, value)| [key, value]))?;
        Ok(Self::Dict(Rc::new(Dict { pairs, depth })))
    }

    fn is_hashable(&self) -> bool {
        match self {
            Self::List(_) | Self::Dict(_) => false,
            Self::Tuple(items) => items.values.iter().all(Self::is_hashable),
            _ => true,
        }
    }

    /// The name of its type.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Undefined(_) => "Undefined",
            Self::None => "NoneType",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Text(_) => "str",
            Self::List(_) => "list",
            Self::Tuple(_) => "tuple",
            Self::Dict(_) => "dict",
            Self::DictView(..) => "dict view",
            Self::Range(_) => "range",
            Self::Generator(_) => "generator",
            Self::Callable(_) => "function",
            Self::Namespace(_) => "Namespace",
            Self::Loop(_) => "LoopContext",
            Self::Cycler(_) => "Cycler",
        }
    }

    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(&text.text),
            _ => None,
        }
    }

    /// A whole number; a switch is one.
    pub(super) fn as_int(&self) -> Option<i128> {
        match self {
            Self::Bool(on) => Some(i128::from(*on)),
            Self::Int(number) => Some(*number),
            _ => None,
        }
    }

    pub(super) fn as_float(&self) -> Option<f64> {
        match self {
            Self::Float(number) => Some(*number),
            other => other.as_int().map(|number| number as f64),
        }
    }

    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Undefined(_) | Self::None => false,
            Self::Bool(on) => *on,
            Self::Int(number) => *number != 0,
            Self::Float(number) => *number != 0.0,
            Self::Text(text) => !text.text.is_empty(),
            Self::List(items) | Self::Tuple(items) => !items.values.is_empty(),
            Self::Dict(dict) | Self::DictView(_, dict) => !dict.pairs.is_empty(),
            Self::Range(range) => range.length > 0,
            _ => true,
        }
    }

    /// How many there are in it; `None` if that can't be asked.
    pub(super) fn length(&self) -> Option<usize> {
        Some(match self {
            Self::Undefined(_) => 0,
            Self::Text(text) => text.text.chars().count(),
            Self::List(items) | Self::Tuple(items) => items.values.len(),
            Self::Dict(dict) | Self::DictView(_, dict) => dict.pairs.len(),
            Self::Range(range) => range.length,
            _ => return None,
        })
    }

    /// Returns what iterating gives.
    pub(super) fn iterate(&self) -> Outcome<Vec<Self>> {
        Ok(match self {
            Self::Undefined(_) => Vec::new(),
            Self::Text(text) => text
                .text
                .chars()
                .map(|c| {
                    Self::Text(Text {
                        text: c.to_string().into(),
                        safe: text.safe,
                    })
                })
                .collect(),
            Self::List(items) | Self::Tuple(items) => items.values.clone(),
            Self::Dict(dict) => dict.pairs.iter().map(|(key, _)| key.clone()).collect(),
            Self::DictView(view, dict) => view.values(dict)?,
            Self::Range(range) => range.values().collect(),
            Self::Generator(values) => values.take(),
            _ => return fail(format!("'{}' object is not iterable", self.kind())),
        })
    }

    /// `==`
    pub(super) fn equals(&self, other: &Self) -> bool {
        let all = |a: &[Self], b: &[Self]| {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.equals(b))
        };
        match (self, other) {
            (Self::Undefined(_), Self::Undefined(_)) | (Self::None, Self::None) => true,
            (Self::Text(a), Self::Text(b)) => a.text == b.text,
            (Self::List(a), Self::List(b)) | (Self::Tuple(a), Self::Tuple(b)) => {
                all(&a.values, &b.values)
            }
            (Self::Dict(a), Self::Dict(b)) => {
                let same =
                    |(key, value): &(Self, Self)| b.get(key).is_some_and(|b| b.equals(value));
                a.pairs.len() == b.pairs.len() && a.pairs.iter().all(same)
            }
            (Self::Range(a), Self::Range(b)) => a.values().eq_by_value(b.values()),
            (Self::Namespace(a), Self::Namespace(b))
            | (Self::Loop(a), Self::Loop(b))
            | (Self::Cycler(a), Self::Cycler(b)) => a == b,
            _ => match (self.as_int(), other.as_int()) {
                (Some(a), Some(b)) => a == b,
                _ => match (self.as_float(), other.as_float()) {
                    (Some(a), Some(b)) => a.partial_cmp(&b) == Some(Ordering::Equal),
                    _ => false,
                },
            },
        }
    }

    /// `<` and the like; an error where Python knows no order.
    pub(super) fn order(&self, other: &Self) -> Outcome<Option<Ordering>> {
        match (self, other) {
            (Self::Text(a), Self::Text(b)) => Ok(Some(a.text.cmp(&b.text))),
            (Self::List(a), Self::List(b)) | (Self::Tuple(a), Self::Tuple(b)) => {
                for (a, b) in a.values.iter().zip(&b.values) {
                    if !a.equals(b) {
                        return a.order(b);
                    }
                }
                Ok(Some(a.values.len().cmp(&b.values.len())))
            }
            _ => match (
                self.as_int(),
                other.as_int(),
                self.as_float(),
                other.as_float(),
            ) {
                (Some(a), Some(b), ..) => Ok(Some(a.cmp(&b))),
                (_, _, Some(a), Some(b)) => Ok(a.partial_cmp(&b)),
                _ => fail(format!(
                    "'{}' and '{}' can't be ordered",
                    self.kind(),
                    other.kind()
                )),
            },
        }
    }
}

trait EqByValue {
    fn eq_by_value(self, other: impl Iterator<Item = Value>) -> bool;
}

impl<I: Iterator<Item = Value>> EqByValue for I {
    fn eq_by_value(self, other: impl Iterator<Item = Value>) -> bool {
        self.map(|value| value.as_int())
            .eq(other.map(|value| value.as_int()))
    }
}

impl Dict {
    pub(super) fn get(&self, key: &Value) -> Option<&Value> {
        let found = self.pairs.iter().find(|(known, _)| known.equals(key));
        found.map(|(_, value)| value)
    }

    pub(super) fn get_text(&self, key: &str) -> Option<&Value> {
        let found = self
            .pairs
            .iter()
            .find(|(known, _)| known.as_text() == Some(key));
        found.map(|(_, value)| value)
    }
}

impl DictView {
    fn values(self, dict: &Dict) -> Outcome<Vec<Value>> {
        dict.pairs
            .iter()
            .map(|(key, value)| match self {
                Self::Keys => Ok(key.clone()),
                Self::Values => Ok(value.clone()),
                Self::Items => Value::tuple(vec![key.clone(), value.clone()]),
            })
            .collect()
    }
}

fn deeper<'a>(values: impl Iterator<Item = &'a Value>) -> Outcome<u32> {
    let depth = values.map(Value::depth).max().unwrap_or(0) + 1;
    if depth > MAX_DEPTH {
        return fail("a value is nested too deeply");
    }
    Ok(depth)
}
