//! What Python makes of values: their texts, white space, and the filters that depend on it.

mod methods;

use std::{borrow::Cow, fmt::Write};

use minijinja::{
    Error, ErrorKind,
    value::{ArgType, Kwargs, Value, ValueKind},
};

pub(super) use self::methods::call_method;
use super::MAX_STRUCTURE;

/// Returns whether Python's `str.isspace` and `str.strip` take a character for white space: four
/// separators more than Unicode's property.
fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\x1c'..='\x1f')
}

fn is_line_end(c: char) -> bool {
    matches!(
        c,
        '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}'
    )
}

/// Deeper structures have no text; Python gives up at about a thousand levels.
const MAX_DEPTH: usize = 500;

/// Returns a value as Python's `str()` writes it.
pub(super) fn to_str(value: &Value) -> Result<Cow<'_, str>, Error> {
    match value.kind() {
        ValueKind::Undefined => Ok(Cow::Borrowed("")),
        ValueKind::String if let Some(text) = value.as_str() => Ok(Cow::Borrowed(text)),
        _ => {
            let mut text = String::new();
            write_repr(&mut text, value, 0)?;
            Ok(Cow::Owned(text))
        }
    }
}

/// Writes a value as Python's `repr()` does.
fn write_repr(text: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(invalid("a value is nested too deeply"));
    }
    if text.len() > MAX_STRUCTURE {
        return Err(invalid("the text of a value exceeds 1 MiB"));
    }
    match value.kind() {
        ValueKind::None => text.push_str("None"),
        ValueKind::Bool => text.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::String => text.push_str(&quoted(value.as_str().unwrap_or_default())),
        ValueKind::Seq => {
            text.push('[');
            for (index, item) in value.try_iter()?.enumerate() {
                if index > 0 {
                    text.push_str(", ");
                }
                write_repr(text, &item, depth + 1)?;
            }
            text.push(']');
        }
        ValueKind::Map => {
            text.push('{');
            for (index, key) in value.try_iter()?.enumerate() {
                if index > 0 {
                    text.push_str(", ");
                }
                write_repr(text, &key, depth + 1)?;
                text.push_str(": ");
                write_repr(text, &value.get_item(&key).unwrap_or_default(), depth + 1)?;
            }
            text.push('}');
        }
        _ => text.push_str(&value.to_string()),
    }
    Ok(())
}

fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    let mut quoted = String::from(quote);
    for c in text.chars() {
        match c {
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c == quote => {
                quoted.push('\\');
                quoted.push(c);
            }
            c if c != ' ' && (c.is_control() || c.is_whitespace()) => {
                let _ = match c as u32 {
                    code @ ..0x100 => write!(quoted, "\\x{code:02x}"),
                    code => write!(quoted, "\\u{code:04x}"),
                };
            }
            c => quoted.push(c),
        }
    }
    quoted.push(quote);
    quoted
}

/// The filter `trim`: `str(value).strip(chars)`.
pub(super) fn trim(value: &Value, chars: Option<&str>) -> Result<String, Error> {
    Ok(strip(&to_str(value)?, chars, true, true).to_owned())
}

fn strip<'a>(text: &'a str, chars: Option<&str>, left: bool, right: bool) -> &'a str {
    let stripped = |c: char| chars.map_or_else(|| is_space(c), |chars| chars.contains(c));
    let text = if left {
        text.trim_start_matches(stripped)
    } else {
        text
    };
    if right {
        text.trim_end_matches(stripped)
    } else {
        text
    }
}

/// The filter `indent`: every line but the first (and empty ones) is moved to the right.
pub(super) fn indent(
    value: &Value,
    width: Option<usize>,
    first: Option<bool>,
    blank: Option<bool>,
    named: Kwargs,
) -> Result<String, Error> {
    let width = or_named(width, &named, "width")?.unwrap_or(4);
    let first = or_named(first, &named, "first")?;
    let blank = or_named(blank, &named, "blank")?;
    named.assert_all_used()?;
    if width > 1000 {
        return Err(invalid("indent is too large"));
    }
    let text = to_str(value)?.into_owned() + "\n";
    let moved = |(index, line): (usize, &str)| {
        let moves = if index == 0 {
            first == Some(true)
        } else {
            !line.is_empty() || blank == Some(true)
        };
        " ".repeat(if moves { width } else { 0 }) + line
    };
    let lines: Vec<String> = split_lines(&text, false)
        .into_iter()
        .enumerate()
        .map(moved)
        .collect();
    Ok(lines.join("\n"))
}

/// Returns an argument that may be given by position or by name.
fn or_named<T>(given: Option<T>, named: &Kwargs, name: &str) -> Result<Option<T>, Error>
where
    T: for<'a> ArgType<'a, Output = T>,
{
    match given {
        None => named.get::<Option<T>>(name),
        given => Ok(given),
    }
}

/// The filter `int`: what is no number is the default.
pub(super) fn int(value: &Value, default: Option<i64>) -> Result<i64, Error> {
    let text = to_str(value)?;
    let number = strip(&text, None, true, true);
    Ok(match value.kind() {
        ValueKind::Bool => i64::from(value.is_true()),
        _ => number
            .parse()
            .or_else(|_| number.parse::<f64>().map(|number| number.trunc() as i64))
            .unwrap_or(default.unwrap_or(0)),
    })
}

/// The filter `wordcount`.
pub(super) fn word_count(value: &Value) -> Result<usize, Error> {
    let text = to_str(value)?;
    let words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
    Ok(words.filter(|word| !word.is_empty()).count())
}

fn split_lines(text: &str, keep_ends: bool) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(is_line_end).unwrap_or(rest.len());
        let width = match &rest[end..] {
            after if after.starts_with("\r\n") => 2,
            after => after.chars().next().map_or(0, char::len_utf8),
        };
        lines.push(&rest[..if keep_ends { end + width } else { end }]);
        rest = &rest[end + width..];
    }
    lines
}

fn invalid(what: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, what)
}
