//! Methods of texts, lists, dicts and the like.

use super::{
    error::{Outcome, fail},
    format,
    operators::soft_text,
    printable::is_printable,
    run::Run,
    search::{affix, find, partition, split},
    signature::{Bound, Given},
    text::{
        capitalize, case_fold, centered, decimal, escape_html, is_cased, is_digit, is_space,
        is_word, pad, split_lines, strip, swap_case, title,
    },
    value::{Callable, DictView, Text, Value},
};

/// Names of the methods of a value that may be called.
pub(super) fn names(of: &Value) -> &'static [&'static str] {
    match of {
        Value::Text(_) => &[
            "capitalize",
            "casefold",
            "center",
            "count",
            "endswith",
            "expandtabs",
            "find",
            "format",
            "index",
            "isalnum",
            "isalpha",
            "isascii",
            "isdecimal",
            "isdigit",
            "isidentifier",
            "islower",
            "isnumeric",
            "isprintable",
            "isspace",
            "istitle",
            "isupper",
            "join",
            "ljust",
            "lower",
            "lstrip",
            "partition",
            "removeprefix",
            "removesuffix",
            "replace",
            "rfind",
            "rindex",
            "rjust",
            "rpartition",
            "rsplit",
            "rstrip",
            "split",
            "splitlines",
            "startswith",
            "strip",
            "swapcase",
            "title",
            "upper",
            "zfill",
        ],
        Value::List(_) => &["count", "index", "copy"],
        Value::Tuple(_) | Value::Range(_) => &["count", "index"],
        Value::Dict(_) => &["copy", "get", "items", "keys", "values"],
        Value::Int(_) | Value::Bool(_) => &["bit_length", "is_integer"],
        Value::Float(_) => &["is_integer"],
        Value::Loop(_) => &["changed", "cycle"],
        Value::Cycler(_) => &["next", "reset"],
        _ => &[],
    }
}

impl Run<'_> {
    pub(super) fn call_method(
        &mut self,
        of: &Value,
        name: &'static str,
        given: Given,
    ) -> Outcome<Value> {
        match of {
            Value::Text(text) => self.text_method(text, name, given),
            Value::Dict(dict) => {
                let view = match name {
                    "keys" => DictView::Keys,
                    "values" => DictView::Values,
                    "items" => DictView::Items,
                    "copy" => {
                        none(given)?;
                        return Ok(of.clone());
                    }
                    _ => {
                        let mut bound = Bound::new(&["key", "default"], given)?;
                        let found = dict.get(&bound.value(0)?).cloned();
                        return Ok(found.or_else(|| bound.take(1)).unwrap_or(Value::None));
                    }
                };
                none(given)?;
                Ok(Value::DictView(view, dict.clone()))
            }
            Value::List(_) | Value::Tuple(_) | Value::Range(_) => {
                if name == "copy" {
                    none(given)?;
                    return Ok(of.clone());
                }
                let wanted = Bound::new(&["value"], given)?.value(0)?;
                let values = of.iterate()?;
                self.step(values.len() / 8)?;
                if name == "count" {
                    let count = values.iter().filter(|value| value.equals(&wanted)).count();
                    return Ok(Value::int(count));
                }
                match values.iter().position(|value| value.equals(&wanted)) {
                    Some(place) => Ok(Value::int(place)),
                    None => fail("the item is not in the list"),
                }
            }
            Value::Float(number) => {
                none(given)?;
                Ok(Value::Bool(number.is_finite() && number.fract() == 0.0))
            }
            Value::Int(_) | Value::Bool(_) => {
                none(given)?;
                let bits = 128 - of.as_int().unwrap_or(0).unsigned_abs().leading_zeros();
                Ok(if name == "bit_length" {
                    Value::Int(bits.into())
                } else {
                    Value::Bool(true)
                })
            }
            Value::Loop(number) => self.loop_method(*number, name, given),
            Value::Cycler(number) => {
                none(given)?;
                let cycle = &mut self.cycles[*number];
                if name == "reset" {
                    cycle.at = 0;
                    return Ok(Value::None);
                }
                let value = cycle.items[cycle.at].clone();
                cycle.at = (cycle.at + 1) % cycle.items.len();
                Ok(value)
            }
            other => fail(format!("a {} has no method {name}", other.kind())),
        }
    }

    fn loop_method(&mut self, number: usize, name: &str, (values, named): Given) -> Outcome<Value> {
        if !named.is_empty() {
            return fail(format!("loop.{name} takes no names"));
        }
        let state = &mut self.loops[number];
        if name == "cycle" {
            return match values.len() {
                0 => fail("no items for cycling given"),
                count => Ok(values[state.index % count].clone()),
            };
        }
        let same = state.last.as_ref().is_some_and(|last| {
            last.len() == values.len() && last.iter().zip(&values).all(|(a, b)| a.equals(b))
        });
        state.last = Some(values);
        Ok(Value::Bool(!same))
    }

    fn text_method(&mut self, of: &Text, name: &'static str, given: Given) -> Outcome<Value> {
        let text = &*of.text;
        self.make(text.len())?;
        let made = |text: String| {
            Value::Text(Text {
                text: text.into(),
                safe: of.safe,
            })
        };
        if let Some(answer) = test(text, name) {
            none(given)?;
            return Ok(Value::Bool(answer));
        }
        let changed = match name {
            "capitalize" => Some(capitalize(text)),
            "casefold" => Some(case_fold(text)),
            "lower" => Some(text.to_lowercase()),
            "upper" => Some(text.to_uppercase()),
            "swapcase" => Some(swap_case(text)),
            "title" => Some(title(text)),
            _ => None,
        };
        if let Some(changed) = changed {
            none(given)?;
            return Ok(made(changed));
        }
        // What goes into a text that is safe in HTML is made so.
        let soft = |value: String| if of.safe { escape_html(&value) } else { value };
        match name {
            "strip" | "lstrip" | "rstrip" => {
                let chars = Bound::new(&["chars"], given)?.text_or_none(0)?;
                let stripped = strip(text, chars.as_deref(), name != "rstrip", name != "lstrip");
                Ok(made(stripped.to_owned()))
            }
            "removeprefix" | "removesuffix" => {
                let part = Bound::new(&["part"], given)?.text(0)?;
                let rest = if name == "removeprefix" {
                    text.strip_prefix(&*part)
                } else {
                    text.strip_suffix(&*part)
                };
                Ok(made(rest.unwrap_or(text).to_owned()))
            }
            "replace" => {
                let mut bound = Bound::new(&["old", "new", "count"], given)?;
                let (old, new) = (bound.text(0)?, soft(bound.text(1)?));
                let count = usize::try_from(bound.int(2, -1)?).unwrap_or(usize::MAX);
                self.replace(text, &old, &new, count).map(made)
            }
            "center" | "ljust" | "rjust" | "zfill" | "expandtabs" => {
                self.widen_text(text, name, given).map(made)
            }
            "join" => {
                let items = Bound::new(&["iterable"], given)?.value(0)?.iterate()?;
                self.step(items.len())?;
                let parts: Outcome<Vec<String>> = items
                    .iter()
                    .map(|item| match item {
                        Value::Text(part) if of.safe && part.safe => Ok(part.text.to_string()),
                        Value::Text(part) => Ok(soft(part.text.to_string())),
                        other if of.safe => Ok(soft(soft_text(other)?.text.to_string())),
                        other => fail(format!("join takes texts, found {}", other.kind())),
                    })
                    .collect();
                let parts = parts?;
                let own = text.len().saturating_mul(parts.len());
                self.make(own + parts.iter().map(String::len).sum::<usize>())?;
                Ok(made(parts.join(text)))
            }
            _ => self.cut_text(of, name, given),
        }
    }

    /// The methods that make a text wider.
    fn widen_text(&mut self, text: &str, name: &str, given: Given) -> Outcome<String> {
        match name {
            "center" | "ljust" | "rjust" => {
                let mut bound = Bound::new(&["width", "fillchar"], given)?;
                let width = bound.size(0, usize::MAX)?;
                let fill = bound.text_or_none(1)?.unwrap_or_else(|| " ".into());
                let mut chars = fill.chars();
                let (Some(fill), None) = (chars.next(), chars.next()) else {
                    return fail("what fills must be one character");
                };
                let share = match name {
                    "center" => centered,
                    "ljust" => |_, _| 0,
                    _ => |missing, _| missing,
                };
                self.make(width)?;
                Ok(pad(text, width, fill, share))
            }
            "zfill" => {
                let width = Bound::new(&["width"], given)?.size(0, usize::MAX)?;
                self.make(width)?;
                Ok(zfill(text, width))
            }
            _ => {
                let width = Bound::new(&["tabsize"], given)?.size(0, 8)?;
                self.make(text.matches('\t').count().saturating_mul(width))?;
                Ok(expand_tabs(text, width))
            }
        }
    }

    /// The methods that cut and search a text, and `format`.
    fn cut_text(&mut self, of: &Text, name: &'static str, given: Given) -> Outcome<Value> {
        let text = &*of.text;
        let made = |text: String| {
            Value::Text(Text {
                text: text.into(),
                safe: of.safe,
            })
        };
        match name {
            "partition" | "rpartition" => {
                let separator = Bound::new(&["sep"], given)?.text(0)?;
                partition(text, &separator, name == "rpartition", made)
            }
            "split" | "rsplit" => {
                let mut bound = Bound::new(&["sep", "maxsplit"], given)?;
                let separator = bound.text_or_none(0)?;
                let most = usize::try_from(bound.int(1, -1)?).unwrap_or(usize::MAX - 1);
                if separator.as_deref() == Some("") {
                    return fail("empty separator");
                }
                let parts = split(text, separator.as_deref(), most, name == "rsplit");
                self.make(parts.len() * size_of::<Value>())?;
                Value::list(
                    parts
                        .into_iter()
                        .map(|part| made(part.to_owned()))
                        .collect(),
                )
            }
            "splitlines" => {
                let keep = Bound::new(&["keepends"], given)?.flag(0, false);
                let lines = split_lines(text, keep).into_iter();
                Value::list(lines.map(|line| made(line.to_owned())).collect())
            }
            "startswith" | "endswith" => affix(text, name == "startswith", given),
            "find" | "rfind" | "index" | "rindex" | "count" => find(text, name, given),
            "format" => {
                let text = format::format(self, of, given)?;
                Ok(made(text))
            }
            _ => fail(format!("a text has no method {name}")),
        }
    }

    /// Replaces the first parts of a text.
    pub(super) fn replace(
        &mut self,
        text: &str,
        old: &str,
        new: &str,
        count: usize,
    ) -> Outcome<String> {
        let found = if old.is_empty() {
            text.chars().count() + 1
        } else {
            text.matches(old).count()
        };
        self.make(found.min(count).saturating_mul(new.len()))?;
        Ok(text.replacen(old, new, count))
    }
}

fn none(given: Given) -> Outcome<()> {
    Bound::new(&[], given).map(drop)
}

/// The methods that answer yes or no.
fn test(text: &str, name: &str) -> Option<bool> {
    let all = |test: fn(char) -> bool| !text.is_empty() && text.chars().all(test);
    let cased = |wanted: fn(char) -> bool, other: fn(char) -> bool| {
        text.chars().any(wanted) && !text.chars().any(other)
    };
    Some(match name {
        "isspace" => all(is_space),
        "isdecimal" => all(|c| decimal(c).is_some()),
        "isdigit" => all(is_digit),
        "isnumeric" => all(char::is_numeric),
        "isalpha" => all(char::is_alphabetic),
        "isalnum" => all(char::is_alphanumeric),
        "isascii" => text.is_ascii(),
        "isprintable" => text.chars().all(is_printable),
        "isupper" => cased(char::is_uppercase, char::is_lowercase),
        "islower" => cased(char::is_lowercase, char::is_uppercase),
        "isidentifier" => all(is_word) && !text.starts_with(|c: char| decimal(c).is_some()),
        "istitle" => {
            let (mut any, mut before) = (false, false);
            for c in text.chars() {
                if (c.is_uppercase() && before) || (c.is_lowercase() && !before) {
                    return Some(false);
                }
                before = is_cased(c);
                any |= before;
            }
            any
        }
        _ => return None,
    })
}

fn zfill(text: &str, width: usize) -> String {
    let (sign, digits) = match text.strip_prefix(['-', '+']) {
        Some(digits) => text.split_at(text.len() - digits.len()),
        None => ("", text),
    };
    let missing = width.saturating_sub(text.chars().count());
    format!("{sign}{}{digits}", "0".repeat(missing))
}

fn expand_tabs(text: &str, width: usize) -> String {
    let (mut out, mut column) = (String::new(), 0);
    for c in text.chars() {
        match c {
            '\t' if width > 0 => {
                let spaces = width - column % width;
                out.extend(std::iter::repeat_n(' ', spaces));
                column += spaces;
            }
            '\t' => {}
            c => {
                out.push(c);
                column = if matches!(c, '\n' | '\r') {
                    0
                } else {
                    column + 1
                };
            }
        }
    }
    out
}

/// Whether a value can be called.
pub(super) const fn is_callable(value: &Value) -> bool {
    // An undefined value has `__call__`, which fails.
    matches!(
        value,
        Value::Callable(
            Callable::Global(_) | Callable::Method(..) | Callable::Macro(..) | Callable::Joiner(_)
        ) | Value::Loop(_)
            | Value::Undefined(_)
    )
}
