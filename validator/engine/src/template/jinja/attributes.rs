//! Attributes, items and slices.

use std::rc::Rc;

use super::{
    error::{Outcome, fail},
    methods,
    run::Run,
    value::{Callable, Text, Value},
};

/// Methods that change a list or a dict; the sandbox has none of them.
const CHANGING: [&str; 15] = [
    "append",
    "clear",
    "extend",
    "insert",
    "pop",
    "remove",
    "reverse",
    "sort",
    "popitem",
    "setdefault",
    "update",
    "add",
    "discard",
    "difference_update",
    "intersection_update",
];

impl Run<'_> {
    /// `of.name`: an attribute, else an item.
    pub(super) fn attribute(&mut self, of: &Value, name: &str) -> Outcome<Value> {
        if let Value::Undefined(asked) = of {
            return fail(format!("{asked:?} is undefined"));
        }
        if let Some(value) = self.own_attribute(of, name)? {
            return Ok(value);
        }
        if let Value::Dict(dict) = of
            && let Some(value) = dict.get_text(name)
        {
            return Ok(value.clone());
        }
        Ok(Value::undefined(name))
    }

    fn own_attribute(&mut self, of: &Value, name: &str) -> Outcome<Option<Value>> {
        Ok(match of {
            Value::Namespace(number) => self.namespaces[*number].get(name).cloned(),
            Value::Loop(number) => self.loop_attribute(*number, name)?,
            Value::Cycler(number) => {
                let cycle = &self.cycles[*number];
                match name {
                    "current" => Some(cycle.items[cycle.at].clone()),
                    "next" | "reset" => method(of, name),
                    _ => None,
                }
            }
            Value::Callable(Callable::Macro(number, _)) => match name {
                "name" => Some(Value::text(&*self.macros[*number].name)),
                "arguments" => {
                    let names = self.macros[*number]
                        .parameters
                        .iter()
                        .map(|name| Value::text(&**name));
                    Some(Value::tuple(names.collect())?)
                }
                _ => None,
            },
            Value::Tuple(items) if items.names.contains(&name) => {
                let place = items.names.iter().position(|own| *own == name);
                place.and_then(|place| items.values.get(place)).cloned()
            }
            Value::List(_) | Value::Dict(_) if CHANGING.contains(&name) => {
                // Undefined, and an error only once it is called.
                Some(Value::undefined(name))
            }
            _ => method(of, name),
        })
    }

    fn loop_attribute(&mut self, number: usize, name: &str) -> Outcome<Option<Value>> {
        let state = &self.loops[number];
        let (index, count) = (state.index, state.items.len());
        Ok(Some(match name {
            "index" => Value::int(index + 1),
            "index0" => Value::int(index),
            "revindex" => Value::int(count - index),
            "revindex0" => Value::int(count - index - 1),
            "first" => Value::Bool(index == 0),
            "last" => Value::Bool(index + 1 == count),
            "length" => Value::int(count),
            "depth" => Value::int(state.depth + 1),
            "depth0" => Value::int(state.depth),
            "previtem" => match index.checked_sub(1) {
                Some(before) => state.items[before].clone(),
                None => Value::undefined("there is no previous item"),
            },
            "nextitem" => match state.items.get(index + 1) {
                Some(next) => next.clone(),
                None => Value::undefined("there is no next item"),
            },
            "cycle" | "changed" => return Ok(method(&Value::Loop(number), name)),
            _ => return Ok(None),
        }))
    }

    /// `of[index]`: an item, else an attribute.
    pub(super) fn item(&mut self, of: &Value, index: &Value) -> Outcome<Value> {
        if let Value::Undefined(asked) = of {
            return fail(format!("{asked:?} is undefined"));
        }
        if let Value::Dict(dict) = of
            && let Some(value) = dict.get(index)
        {
            self.step(dict.pairs.len() / 16)?;
            return Ok(value.clone());
        }
        if let Some(number) = index.as_int()
            && let Some(value) = nth(of, number)
        {
            return Ok(value);
        }
        if let Some(name) = index.as_text()
            && let Some(value) = self.own_attribute(of, name)?
        {
            return Ok(value);
        }
        Ok(match index.as_text() {
            Some(name) => Value::undefined(name),
            None => Value::undefined("item"),
        })
    }

    /// `of[start:end:step]`
    pub(super) fn slice(&mut self, of: &Value, bounds: &[Value; 3]) -> Outcome<Value> {
        if let Value::Undefined(asked) = of {
            return fail(format!("{asked:?} is undefined"));
        }
        let mut numbers = [None; 3];
        for (number, bound) in numbers.iter_mut().zip(bounds) {
            match bound {
                Value::None => {}
                // What can't be sliced is undefined.
                other => match other.as_int() {
                    Some(found) => *number = Some(found),
                    None => return Ok(Value::undefined("slice")),
                },
            }
        }
        if numbers[2] == Some(0) {
            return fail("a slice can't have a step of zero");
        }
        let places = |count: usize| slice_indices(count, numbers);
        match of {
            Value::Text(text) => {
                let chars: Vec<char> = text.text.chars().collect();
                self.make(text.text.len())?;
                let part: String = places(chars.len())
                    .into_iter()
                    .map(|at| chars[at])
                    .collect();
                Ok(Value::Text(Text {
                    text: part.into(),
                    safe: text.safe,
                }))
            }
            Value::List(items) | Value::Tuple(items) => {
                let values = &items.values;
                self.make(values.len() * size_of::<Value>())?;
                let part = places(values.len())
                    .into_iter()
                    .map(|at| values[at].clone());
                let part = part.collect();
                if matches!(of, Value::List(_)) {
                    Value::list(part)
                } else {
                    Value::tuple(part)
                }
            }
            Value::Range(range) => Value::list(
                places(range.length)
                    .into_iter()
                    .map(|at| range.get(at))
                    .collect(),
            ),
            _ => Ok(Value::undefined("slice")),
        }
    }
}

fn method(of: &Value, name: &str) -> Option<Value> {
    let known = methods::names(of).iter().find(|known| **known == name)?;
    let method = Callable::Method(Rc::new(of.clone()), known);
    Some(Value::Callable(method))
}

fn nth(of: &Value, number: i128) -> Option<Value> {
    let place = |count: usize| {
        let from_end = if number < 0 { count as i128 } else { 0 };
        usize::try_from(number + from_end)
            .ok()
            .filter(|at| *at < count)
    };
    match of {
        Value::Text(text) => {
            let c = text.text.chars().nth(place(text.text.chars().count())?)?;
            Some(Value::Text(Text {
                text: c.to_string().into(),
                safe: text.safe,
            }))
        }
        Value::List(items) | Value::Tuple(items) => {
            Some(items.values[place(items.values.len())?].clone())
        }
        Value::Range(range) => Some(range.get(place(range.length)?)),
        _ => None,
    }
}

/// The places a slice picks from `count` items.
fn slice_indices(count: usize, [start, end, step]: [Option<i128>; 3]) -> Vec<usize> {
    let count = count as i128;
    let step = step.unwrap_or(1);
    let (least, most) = if step > 0 {
        (0, count)
    } else {
        (-1, count - 1)
    };
    let clamp = |bound: i128| {
        let bound = if bound < 0 { bound + count } else { bound };
        bound.clamp(least, most)
    };
    let (first, last) = if step > 0 {
        (0, count)
    } else {
        (count - 1, -1)
    };
    let (mut at, end) = (start.map_or(first, clamp), end.map_or(last, clamp));
    let mut places = Vec::new();
    while (step > 0 && at < end) || (step < 0 && at > end) {
        places.push(at as usize);
        at = at.saturating_add(step);
    }
    places
}
