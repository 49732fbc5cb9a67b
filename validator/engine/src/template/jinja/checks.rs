//! Tests: what follows `is`.

use super::{
    ast::Comparison,
    error::{Outcome, fail},
    filters,
    methods::is_callable,
    operators,
    repr::to_text,
    run::Run,
    signature::{Bound, Given},
    value::Value,
};

const NAMES: [&str; 38] = [
    "odd",
    "even",
    "divisibleby",
    "defined",
    "undefined",
    "filter",
    "test",
    "none",
    "boolean",
    "false",
    "true",
    "integer",
    "float",
    "lower",
    "upper",
    "string",
    "mapping",
    "number",
    "sequence",
    "iterable",
    "callable",
    "sameas",
    "escaped",
    "in",
    "==",
    "eq",
    "equalto",
    "!=",
    "ne",
    ">",
    "gt",
    "greaterthan",
    "ge",
    ">=",
    "<",
    "lt",
    "lessthan",
    "<=",
];

/// Returns whether there is a test of this name.
pub(super) fn is_known(name: &str) -> bool {
    name == "le" || NAMES.contains(&name)
}

impl Run<'_> {
    pub(super) fn test(
        &mut self,
        name: &str,
        of: &Value,
        positional: Vec<Value>,
        named: Vec<(Box<str>, Value)>,
    ) -> Outcome<bool> {
        let given: Given = (positional, named);
        let comparison = match name {
            "==" | "eq" | "equalto" => Some(Comparison::Equal),
            "!=" | "ne" => Some(Comparison::NotEqual),
            ">" | "gt" | "greaterthan" => Some(Comparison::Greater),
            ">=" | "ge" => Some(Comparison::GreaterEqual),
            "<" | "lt" | "lessthan" => Some(Comparison::Less),
            "<=" | "le" => Some(Comparison::LessEqual),
            "in" => Some(Comparison::In),
            _ => None,
        };
        if let Some(comparison) = comparison {
            let other = Bound::new(&["other"], given)?.value(0)?;
            return operators::holds(comparison, of, &other);
        }
        match name {
            "divisibleby" => {
                let by = Bound::new(&["num"], given)?.value(0)?;
                let rest = self.binary("%", of, &by)?;
                return Ok(rest.equals(&Value::Int(0)));
            }
            "sameas" => {
                let other = Bound::new(&["other"], given)?.value(0)?;
                return same(of, &other);
            }
            _ => {}
        }
        Bound::new(&[], given)?;
        Ok(match name {
            "odd" | "even" => {
                let rest = self.binary("%", of, &Value::Int(2))?;
                rest.equals(&Value::Int(i128::from(name == "odd")))
            }
            "defined" => !matches!(of, Value::Undefined(_)),
            "undefined" => matches!(of, Value::Undefined(_)),
            "filter" => of.as_text().is_some_and(filters::is_known),
            "test" => of.as_text().is_some_and(is_known),
            "none" => matches!(of, Value::None),
            "boolean" => matches!(of, Value::Bool(_)),
            "false" => matches!(of, Value::Bool(false)),
            "true" => matches!(of, Value::Bool(true)),
            "integer" => matches!(of, Value::Int(_)),
            "float" => matches!(of, Value::Float(_)),
            "number" => of.as_float().is_some(),
            "string" => matches!(of, Value::Text(_)),
            "mapping" => matches!(of, Value::Dict(_)),
            "lower" | "upper" => {
                let text = to_text(of)?;
                let lower = text.chars().any(char::is_lowercase);
                let upper = text.chars().any(char::is_uppercase);
                if name == "lower" {
                    lower && !upper
                } else {
                    upper && !lower
                }
            }
            // Whatever has a length and `__getitem__`: an undefined value fails at the latter.
            "sequence" => matches!(
                of,
                Value::Text(_)
                    | Value::List(_)
                    | Value::Tuple(_)
                    | Value::Dict(_)
                    | Value::Range(_)
                    | Value::Undefined(_)
            ),
            "iterable" => {
                of.length().is_some() || matches!(of, Value::Generator(_) | Value::Loop(_))
            }
            "callable" => is_callable(of),
            "escaped" => matches!(of, Value::Text(text) if text.safe),
            _ => return fail(format!("there is no test named {name:?}")),
        })
    }
}

/// Whether two are one and the same, where Python leaves no doubt.
fn same(left: &Value, right: &Value) -> Outcome<bool> {
    Ok(match (left, right) {
        (Value::None, Value::None) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        // Small numbers are kept by Python; of others it depends.
        (Value::Int(a), Value::Int(b)) if a == b && (-5..=256).contains(a) => true,
        (Value::Namespace(_), Value::Namespace(_)) => left.equals(right),
        (Value::Int(_), Value::Int(_))
        | (Value::Float(_), Value::Float(_))
        | (Value::Text(_), Value::Text(_))
        | (Value::Undefined(_), Value::Undefined(_))
            if left.equals(right) =>
        {
            return fail("whether two equal values are the same object is left to chance");
        }
        (Value::List(a), Value::List(b)) => std::rc::Rc::ptr_eq(a, b),
        (Value::Dict(a), Value::Dict(b)) => std::rc::Rc::ptr_eq(a, b),
        _ => false,
    })
}
