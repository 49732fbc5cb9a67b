//! Calling macros, methods and what is there by name.

use std::collections::BTreeMap;

use super::{
    error::{Outcome, fail},
    repr::to_text,
    run::{Cycle, Run},
    signature::{Bound, Given},
    value::{Callable, Range, Value},
};

/// The longest range a sandbox gives.
const MAX_RANGE: i128 = 100_000;

impl Run<'_> {
    /// Calls a value.
    pub(super) fn call(
        &mut self,
        of: &Value,
        positional: Vec<Value>,
        named: Vec<(Box<str>, Value)>,
    ) -> Outcome<Value> {
        self.step(1)?;
        let given = (positional, named);
        match of {
            Value::Callable(Callable::Global(name)) => self.call_global(name, given),
            Value::Callable(Callable::Method(of, name)) => self.call_method(of, name, given),
            Value::Callable(Callable::Macro(number, scope)) => {
                self.deeper(|run| run.call_macro(*number, *scope, given))
            }
            Value::Callable(Callable::Joiner(number)) => {
                let (separator, used) = &mut self.joiners[*number];
                if *used {
                    return Ok(separator.clone());
                }
                *used = true;
                Ok(Value::text(""))
            }
            Value::Loop(number) => self.call_loop(*number, given),
            Value::Undefined(name) => fail(format!("{name:?} is undefined")),
            other => fail(format!("a {} can't be called", other.kind())),
        }
    }

    /// `loop(items)`: the loop again, with other items.
    fn call_loop(&mut self, number: usize, given: Given) -> Outcome<Value> {
        let mut bound = Bound::new(&["iterable"], given)?;
        let Some((part, scope)) = self.loops[number].recursive else {
            return fail("the loop is not recursive");
        };
        let (items, depth) = (bound.value(0)?, self.loops[number].depth + 1);
        let mut text = String::new();
        self.deeper(|run| run.iterate(part, &items, scope, depth, &mut text))?;
        Ok(Value::text(text))
    }

    fn call_macro(&mut self, number: usize, scope: usize, given: Given) -> Outcome<Value> {
        let part = self.macros[number];
        let (mut positional, named) = given;
        let [varargs, kwargs, caller] = part.takes;
        let name = &part.name;
        let surplus = positional.split_off(positional.len().min(part.parameters.len()));
        if !surplus.is_empty() && !varargs {
            return fail(format!("macro {name:?} takes fewer arguments"));
        }
        let mut values: Vec<Option<Value>> = positional.into_iter().map(Some).collect();
        values.resize_with(part.parameters.len(), || None);
        let (mut rest, mut found_caller) = (Vec::new(), None);
        for (key, value) in named {
            if let Some(place) = part.parameters.iter().position(|own| *own == key) {
                if values[place].replace(value).is_some() {
                    return fail(format!("argument {key:?} is given twice"));
                }
            } else if caller && &*key == "caller" {
                found_caller = Some(value);
            } else if kwargs {
                rest.push((Value::text(&*key), value));
            } else {
                return fail(format!("macro {name:?} takes no argument {key:?}"));
            }
        }
        let inner = self.new_scope(scope);
        let first_default = part.parameters.len() - part.defaults.len();
        for (place, (parameter, value)) in part.parameters.iter().zip(values).enumerate() {
            let value = match (value, place.checked_sub(first_default)) {
                (Some(value), _) => value,
                (None, Some(default)) => self.evaluate(&part.defaults[default], inner)?,
                (None, None) => Value::undefined(parameter),
            };
            self.set(inner, parameter, value);
        }
        if varargs {
            let surplus = Value::tuple(surplus)?;
            self.set(inner, "varargs", surplus);
        }
        if kwargs {
            let rest = Value::dict(rest)?;
            self.set(inner, "kwargs", rest);
        }
        if caller {
            let none = || Value::undefined("no caller is defined");
            self.set(inner, "caller", found_caller.unwrap_or_else(none));
        }
        let (text, _) = self.captured(&part.body, inner)?;
        Ok(text)
    }

    fn call_global(&mut self, name: &'static str, given: Given) -> Outcome<Value> {
        match name {
            "range" => range(given),
            "dict" => dict(given),
            "namespace" => {
                let Value::Dict(dict) = dict(given)? else {
                    return fail("expected a dict");
                };
                let mut values = BTreeMap::new();
                for (key, value) in &dict.pairs {
                    if let Some(name) = key.as_text() {
                        values.insert(name.to_owned(), value.clone());
                    }
                }
                self.namespaces.push(values);
                Ok(Value::Namespace(self.namespaces.len() - 1))
            }
            "cycler" => {
                let (items, named) = given;
                if items.is_empty() || !named.is_empty() {
                    return fail("a cycler takes items");
                }
                self.cycles.push(Cycle { items, at: 0 });
                Ok(Value::Cycler(self.cycles.len() - 1))
            }
            "joiner" => {
                let mut bound = Bound::new(&["sep"], given)?;
                let separator = bound.take(0).unwrap_or_else(|| Value::text(", "));
                self.joiners.push((separator, false));
                Ok(Value::Callable(Callable::Joiner(self.joiners.len() - 1)))
            }
            "raise_exception" => {
                let mut bound = Bound::new(&["message"], given)?;
                let message = bound.value(0)?;
                fail(to_text(&message)?)
            }
            "strftime_now" => {
                let mut bound = Bound::new(&["format"], given)?;
                time(&bound.text(0)?)
            }
            _ => fail(format!("{name} gives something else each time")),
        }
    }
}

fn time(format: &str) -> Outcome<Value> {
    use std::fmt::Write;
    let mut text = String::new();
    match write!(text, "{}", shared::clock::now().strftime(format)) {
        Ok(()) => Ok(Value::text(text)),
        Err(_) => fail("the format of a time is malformed"),
    }
}

fn range((values, named): Given) -> Outcome<Value> {
    let numbers: Option<Vec<i128>> = values.iter().map(Value::as_int).collect();
    let (start, stop, step) = match numbers.as_deref() {
        Some([stop]) if named.is_empty() => (0, *stop, 1),
        Some([start, stop]) if named.is_empty() => (*start, *stop, 1),
        Some([start, stop, step]) if named.is_empty() && *step != 0 => (*start, *stop, *step),
        _ => return fail("range takes one to three whole numbers"),
    };
    let span = if step > 0 {
        stop.saturating_sub(start)
    } else {
        start.saturating_sub(stop)
    };
    let size = step.unsigned_abs() as i128;
    let length = if span > 0 { (span - 1) / size + 1 } else { 0 };
    if length > MAX_RANGE {
        return fail(format!("a range of more than {MAX_RANGE} items"));
    }
    Ok(Value::Range(Range {
        start,
        step,
        stop,
        length: length as usize,
    }))
}

fn dict((positional, named): Given) -> Outcome<Value> {
    let mut pairs = match positional.as_slice() {
        [] => Vec::new(),
        [Value::Dict(dict)] => dict.pairs.clone(),
        [list] => {
            let mut pairs = Vec::new();
            for pair in list.iterate()? {
                let pair = pair.iterate()?;
                match <[Value; 2]>::try_from(pair) {
                    Ok([key, value]) => pairs.push((key, value)),
                    Err(_) => return fail("a dict is made of pairs"),
                }
            }
            pairs
        }
        _ => return fail("a dict is made of one list of pairs"),
    };
    pairs.extend(
        named
            .into_iter()
            .map(|(name, value)| (Value::text(&*name), value)),
    );
    Value::dict(pairs)
}
