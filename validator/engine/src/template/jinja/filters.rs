//! Filters: what follows a bar. Those on texts are in `words`, those on lists in `sequences`.

use super::{
    error::{Outcome, fail},
    json,
    operators::{negative, soft_text},
    percent,
    repr::{self, to_text},
    run::Run,
    signature::{Bound, Given},
    text::{escape_html, strip},
    value::{DictView, Value},
};

const NAMES: [&str; 54] = [
    "abs",
    "attr",
    "batch",
    "capitalize",
    "center",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "filesizeformat",
    "first",
    "float",
    "forceescape",
    "format",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "pprint",
    "random",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "slice",
    "sort",
    "string",
    "striptags",
    "sum",
    "title",
    "tojson",
    "trim",
    "truncate",
    "unique",
    "upper",
    "urlencode",
    "urlize",
    "wordcount",
    "wordwrap",
    "xmlattr",
];

/// Returns whether there is a filter of this name.
pub(super) fn is_known(name: &str) -> bool {
    NAMES.contains(&name)
}

impl Run<'_> {
    pub(super) fn filter(
        &mut self,
        name: &str,
        of: Value,
        positional: Vec<Value>,
        named: Vec<(Box<str>, Value)>,
    ) -> Outcome<Value> {
        self.step(1)?;
        let given: Given = (positional, named);
        match name {
            "map" | "select" | "reject" | "selectattr" | "rejectattr" => {
                return self.deeper(|run| run.pick(name, &of, given));
            }
            "batch" | "slice" | "sort" | "unique" | "groupby" | "dictsort" | "sum" | "min"
            | "max" | "reverse" | "join" | "first" | "last" => {
                return self.sequence_filter(name, &of, given);
            }
            "capitalize" | "center" | "indent" | "lower" | "replace" | "striptags" | "title"
            | "trim" | "truncate" | "upper" | "urlencode" | "wordcount" | "wordwrap"
            | "xmlattr" | "filesizeformat" => return self.word_filter(name, &of, given),
            "int" | "float" | "round" => return number_filter(name, &of, given),
            "default" | "d" => {
                let mut bound = Bound::new(&["default_value", "boolean"], given)?;
                let default = bound.take(0).unwrap_or_else(|| Value::text(""));
                let missing = matches!(of, Value::Undefined(_));
                let replaced = missing || (bound.flag(1, false) && !of.is_true());
                return Ok(if replaced { default } else { of });
            }
            "attr" => {
                let name = Bound::new(&["name"], given)?.text(0)?;
                return self.only_attribute(&of, &name);
            }
            "format" => {
                let (positional, named) = given;
                if !(positional.is_empty() || named.is_empty()) {
                    return fail("format takes arguments by place or by name, not both");
                }
                let values = if named.is_empty() {
                    Value::tuple(positional)?
                } else {
                    let named = named.into_iter();
                    Value::dict(
                        named
                            .map(|(name, value)| (Value::text(&*name), value))
                            .collect(),
                    )?
                };
                let format = soft_text(&of)?;
                let text = percent::format(&format, &values)?;
                self.make(text.len())?;
                return Ok(if format.safe {
                    Value::safe(text)
                } else {
                    Value::text(text)
                });
            }
            "tojson" => {
                let text = json::to_json(&of, self.dialect, given)?;
                self.make(text.text.len())?;
                return Ok(Value::Text(text));
            }
            _ => {}
        }
        Bound::new(&[], given)?;
        self.plain_filter(name, of)
    }

    /// The filters without arguments.
    fn plain_filter(&mut self, name: &str, of: Value) -> Outcome<Value> {
        Ok(match name {
            "abs" => match of.as_float() {
                Some(number) if number < 0.0 => negative(&of)?,
                Some(_) => match of {
                    Value::Float(number) => Value::Float(number.abs()),
                    other => Value::Int(other.as_int().unwrap_or(0)),
                },
                None => return fail(format!("a {} has no size", of.kind())),
            },
            "count" | "length" => match of.length() {
                Some(count) => Value::int(count),
                None => return fail(format!("a {} has no length", of.kind())),
            },
            "items" => match of {
                Value::Undefined(_) => Value::generator(Vec::new())?,
                Value::Dict(dict) => {
                    Value::generator(Value::DictView(DictView::Items, dict).iterate()?)?
                }
                _ => return fail("items takes a mapping"),
            },
            "list" => {
                let values = of.iterate()?;
                self.step(values.len() / 8)?;
                self.make(values.len() * size_of::<Value>())?;
                Value::list(values)?
            }
            "string" => Value::Text(soft_text(&of)?),
            "e" | "escape" => match &of {
                Value::Text(text) if text.safe => of,
                other => Value::safe(escape_html(&to_text(other)?)),
            },
            "forceescape" => Value::safe(escape_html(&to_text(&of)?)),
            "safe" => Value::safe(to_text(&of)?.into_owned()),
            "pprint" => {
                let text = repr::repr(&of)?;
                if text.len() > 70 {
                    return fail("pprint of a long value is not supported");
                }
                Value::text(text)
            }
            "random" | "urlize" => return fail(format!("filter {name} is not supported")),
            _ => return fail(format!("there is no filter named {name:?}")),
        })
    }

    /// An attribute, but never an item.
    fn only_attribute(&mut self, of: &Value, name: &str) -> Outcome<Value> {
        match of {
            Value::Undefined(asked) => fail(format!("{asked:?} is undefined")),
            Value::Dict(_) => {
                let found = self.attribute(of, name)?;
                Ok(match found {
                    Value::Callable(_) => found,
                    _ => Value::undefined(name),
                })
            }
            other => self.attribute(other, name),
        }
    }
}

fn number_filter(name: &str, of: &Value, given: Given) -> Outcome<Value> {
    if let Value::Undefined(asked) = of {
        return fail(format!("{asked:?} is undefined"));
    }
    match name {
        "int" => {
            let mut bound = Bound::new(&["default", "base"], given)?;
            let default = bound.take(0).unwrap_or(Value::Int(0));
            let base = bound.int(1, 10)?;
            Ok(to_int(of, base).map_or(default, Value::Int))
        }
        "float" => {
            let mut bound = Bound::new(&["default"], given)?;
            let default = bound.take(0).unwrap_or(Value::Float(0.0));
            Ok(match of {
                Value::Text(text) => parse_float(&text.text).map_or(default, Value::Float),
                other => other.as_float().map_or(default, Value::Float),
            })
        }
        _ => {
            let mut bound = Bound::new(&["precision", "method"], given)?;
            let precision = bound.int(0, 0)?;
            let method = bound.any_text(1, "common")?;
            round(of, precision, &method)
        }
    }
}

fn parse_float(text: &str) -> Option<f64> {
    let text = strip(text, None, true, true);
    let digits = text.trim_start_matches(['+', '-']).to_ascii_lowercase();
    let named = matches!(&*digits, "inf" | "infinity" | "nan");
    let plain = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    if !(named || plain) || text.contains("__") || text.ends_with('_') {
        return None;
    }
    text.replace('_', "").parse().ok()
}

fn to_int(of: &Value, base: i128) -> Option<i128> {
    let from_float = |number: f64| number.is_finite().then_some(number.trunc() as i128);
    match of {
        Value::Text(text) => {
            let text = strip(&text.text, None, true, true);
            let (sign, digits) = match text.strip_prefix('-') {
                Some(digits) => (-1, digits),
                None => (1, text.strip_prefix('+').unwrap_or(text)),
            };
            let prefix = match base {
                16 => "0x",
                8 => "0o",
                2 => "0b",
                _ => "",
            };
            let lower = digits.to_lowercase();
            let digits = lower.strip_prefix(prefix).unwrap_or(&lower);
            let valid = digits.split('_').all(|group| !group.is_empty());
            let radix = u32::try_from(base)
                .ok()
                .filter(|base| (2..=36).contains(base));
            let signed = digits.starts_with(['+', '-']);
            let parsed = radix
                .filter(|_| valid && !signed)
                .and_then(|radix| i128::from_str_radix(&digits.replace('_', ""), radix).ok());
            parsed
                .map(|number| sign * number)
                .or_else(|| parse_float(text).and_then(from_float))
        }
        Value::Float(number) => from_float(*number),
        other => other.as_int(),
    }
}

fn round(of: &Value, precision: i128, method: &str) -> Outcome<Value> {
    let Some(number) = of.as_float() else {
        return fail(format!("a {} can't be rounded", of.kind()));
    };
    if !(-300..=300).contains(&precision) {
        return fail("a precision is too large");
    }
    let scale = 10_f64.powi(precision as i32);
    match method {
        "common" => match of {
            Value::Float(_) if !number.is_finite() => fail("only a finite number can be rounded"),
            // The nearest of so many digits, decided by all digits of the number.
            Value::Float(_) if precision >= 0 => {
                let digits = precision as usize;
                let text = format!("{number:.digits$}");
                let halves_up = (number * scale * 2.0).fract() == 0.0;
                let exact =
                    halves_up && ((number * scale).fract().abs() - 0.5).abs() < f64::EPSILON;
                let value = if exact {
                    (number * scale).round_ties_even() / scale
                } else {
                    text.parse().unwrap_or(number)
                };
                Ok(Value::Float(value))
            }
            Value::Float(_) => Ok(Value::Float((number * scale).round_ties_even() / scale)),
            _ if precision >= 0 => Ok(Value::Int(of.as_int().unwrap_or(0))),
            _ => Ok(Value::Int(
                ((number * scale).round_ties_even() / scale) as i128,
            )),
        },
        "ceil" | "floor" if !(number * scale).is_finite() => {
            fail("only a finite number can be rounded")
        }
        "ceil" => Ok(Value::Float((number * scale).ceil() / scale)),
        "floor" => Ok(Value::Float((number * scale).floor() / scale)),
        _ => fail("method must be common, ceil or floor"),
    }
}
