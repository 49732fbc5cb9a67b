//! Operators, as Python has them.

use super::{
    ast::Comparison,
    error::{Outcome, fail},
    percent,
    repr::to_text,
    run::Run,
    text::escape_html,
    value::{Text, Value},
};

fn undefined<T>(name: &str) -> Outcome<T> {
    fail(format!("{name:?} is undefined"))
}

pub(super) fn negative(value: &Value) -> Outcome<Value> {
    match value {
        Value::Float(number) => Ok(Value::Float(-number)),
        Value::Undefined(name) => undefined(name),
        _ => match value.as_int() {
            Some(number) => Ok(Value::Int(-number)),
            None => fail(format!("a {} has no negative", value.kind())),
        },
    }
}

pub(super) fn positive(value: &Value) -> Outcome<Value> {
    match value {
        Value::Float(number) => Ok(Value::Float(*number)),
        Value::Undefined(name) => undefined(name),
        _ => match value.as_int() {
            Some(number) => Ok(Value::Int(number)),
            None => fail(format!("a {} has no sign", value.kind())),
        },
    }
}

/// Returns whether a comparison holds.
pub(super) fn holds(comparison: Comparison, left: &Value, right: &Value) -> Outcome<bool> {
    Ok(match comparison {
        Comparison::Equal => left.equals(right),
        Comparison::NotEqual => !left.equals(right),
        Comparison::In => contains(right, left)?,
        Comparison::NotIn => !contains(right, left)?,
        Comparison::Less
        | Comparison::LessEqual
        | Comparison::Greater
        | Comparison::GreaterEqual => {
            if let Value::Undefined(name) = left {
                return undefined(name);
            }
            if let Value::Undefined(name) = right {
                return undefined(name);
            }
            left.order(right)?.is_some_and(|order| match comparison {
                Comparison::Less => order.is_lt(),
                Comparison::LessEqual => order.is_le(),
                Comparison::Greater => order.is_gt(),
                _ => order.is_ge(),
            })
        }
    })
}

/// `item in of`
pub(super) fn contains(of: &Value, item: &Value) -> Outcome<bool> {
    Ok(match of {
        Value::Text(text) => match item.as_text() {
            Some(part) => text.text.contains(part),
            None => return fail(format!("'in <text>' takes a text, not {}", item.kind())),
        },
        Value::Dict(dict) => dict.get(item).is_some(),
        _ => of.iterate()?.iter().any(|value| value.equals(item)),
    })
}

impl Run<'_> {
    pub(super) fn binary(&mut self, operator: &str, left: &Value, right: &Value) -> Outcome<Value> {
        match (left, right) {
            (Value::Text(format), _) if operator == "%" => {
                let text = percent::format(format, right)?;
                self.make(text.len())?;
                return Ok(if format.safe {
                    Value::safe(text)
                } else {
                    Value::text(text)
                });
            }
            (Value::Undefined(name), _) | (_, Value::Undefined(name)) => return undefined(name),
            (Value::Text(a), Value::Text(b)) if operator == "+" => return self.add_texts(a, b),
            (Value::List(a), Value::List(b)) if operator == "+" => {
                self.make((a.values.len() + b.values.len()) * size_of::<Value>())?;
                return Value::list([&a.values[..], &b.values].concat());
            }
            (Value::Tuple(a), Value::Tuple(b)) if operator == "+" => {
                self.make((a.values.len() + b.values.len()) * size_of::<Value>())?;
                return Value::tuple([&a.values[..], &b.values].concat());
            }
            (Value::Text(_) | Value::List(_) | Value::Tuple(_), _) if operator == "*" => {
                return self.repeat(left, right);
            }
            (_, Value::Text(_) | Value::List(_) | Value::Tuple(_)) if operator == "*" => {
                return self.repeat(right, left);
            }
            _ => {}
        }
        match (
            left.as_int(),
            right.as_int(),
            left.as_float(),
            right.as_float(),
        ) {
            (Some(a), Some(b), ..) if operator != "/" => integers(operator, a, b),
            (_, _, Some(a), Some(b)) => floats(operator, a, b),
            _ => fail(format!(
                "{operator} can't be applied to {} and {}",
                left.kind(),
                right.kind()
            )),
        }
    }

    fn add_texts(&mut self, a: &Text, b: &Text) -> Outcome<Value> {
        self.make(a.text.len() + b.text.len())?;
        if !(a.safe || b.safe) {
            return Ok(Value::text([&*a.text, &*b.text].concat()));
        }
        let safe = |part: &Text| {
            if part.safe {
                part.text.to_string()
            } else {
                escape_html(&part.text)
            }
        };
        Ok(Value::safe(safe(a) + &safe(b)))
    }

    fn repeat(&mut self, of: &Value, times: &Value) -> Outcome<Value> {
        let Some(times) = times.as_int() else {
            return fail(format!(
                "a {} can't be multiplied by {}",
                of.kind(),
                times.kind()
            ));
        };
        let times = usize::try_from(times.max(0)).unwrap_or(usize::MAX);
        let size = match of {
            Value::Text(text) => text.text.len(),
            other => other.length().unwrap_or(0) * size_of::<Value>(),
        };
        self.make(size.saturating_mul(times).saturating_add(times))?;
        match of {
            Value::Text(text) => {
                let repeated = text.text.repeat(times);
                Ok(if text.safe {
                    Value::safe(repeated)
                } else {
                    Value::text(repeated)
                })
            }
            Value::List(items) => Value::list(vec![&items.values[..]; times].concat()),
            Value::Tuple(items) => Value::tuple(vec![&items.values[..]; times].concat()),
            _ => fail("nothing to repeat"),
        }
    }
}

fn integers(operator: &str, a: i128, b: i128) -> Outcome<Value> {
    let result = match operator {
        "+" => a.checked_add(b),
        "-" => a.checked_sub(b),
        "*" => a.checked_mul(b),
        "//" | "%" if b == 0 => return fail("division by zero"),
        "//" => a.checked_div(b).map(|quotient| {
            let exact = quotient * b == a;
            quotient - i128::from(!exact && (a < 0) != (b < 0))
        }),
        "%" => a.checked_rem(b).map(|rest| {
            if rest != 0 && (rest < 0) != (b < 0) {
                rest + b
            } else {
                rest
            }
        }),
        "**" if b < 0 => return floats(operator, a as f64, b as f64),
        "**" => u32::try_from(b).ok().and_then(|b| a.checked_pow(b)),
        _ => return fail(format!("{operator} can't be applied to whole numbers")),
    };
    // Python's whole numbers have no end; templates have no use for such.
    result.map_or_else(
        || fail("a number is too large"),
        |number| Ok(Value::Int(number)),
    )
}

fn floats(operator: &str, a: f64, b: f64) -> Outcome<Value> {
    if b == 0.0 && matches!(operator, "/" | "//" | "%") {
        return fail("division by zero");
    }
    let rest = || {
        let rest = a % b;
        if rest != 0.0 && (rest < 0.0) != (b < 0.0) {
            rest + b
        } else if rest == 0.0 {
            0.0_f64.copysign(b)
        } else {
            rest
        }
    };
    let value = match operator {
        "+" => a + b,
        "-" => a - b,
        "*" => a * b,
        "/" => a / b,
        "//" => {
            let quotient = (a - rest()) / b;
            let floor = quotient.floor();
            if quotient - floor > 0.5 {
                floor + 1.0
            } else {
                floor
            }
        }
        "%" => rest(),
        "**" if a == 0.0 && b < 0.0 => return fail("0 can't be raised to a negative power"),
        "**" if a < 0.0 && b.fract() != 0.0 => return fail("complex numbers are not supported"),
        "**" => a.powf(b),
        _ => return fail(format!("{operator} can't be applied to numbers")),
    };
    if operator == "**" && value.is_infinite() && a.is_finite() && b.is_finite() {
        return fail("a number is too large");
    }
    Ok(Value::Float(value))
}

/// `str(value)`, and whether it is safe in HTML.
pub(super) fn soft_text(value: &Value) -> Outcome<Text> {
    match value {
        Value::Text(text) => Ok(text.clone()),
        other => Ok(Text {
            text: to_text(other)?.into(),
            safe: false,
        }),
    }
}
