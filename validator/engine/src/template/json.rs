//! The filter `tojson`: what Python's `json.dumps` writes, in the two ways templates meet it.

use std::fmt::Write;

use minijinja::{
    Error, ErrorKind,
    value::{Kwargs, Value, ValueKind},
};

use super::MAX_STRUCTURE;

const MAX_DEPTH: usize = 64;

/// How a value is written.
#[derive(Clone, Copy)]
struct Style {
    /// Non-ASCII characters as `\uXXXX`.
    ascii: bool,
    /// Keys by their text instead of the order of insertion.
    sorted: bool,
    /// Spaces for each level; `None` for a single line.
    indent: Option<usize>,
}

/// As Jinja itself defines it: keys sorted, ASCII only, and safe inside HTML.
pub(super) fn escaped(
    value: &Value,
    indent: Option<usize>,
    options: Kwargs,
) -> Result<Value, Error> {
    let indent = one_of(indent, &options, "indent")?;
    options.assert_all_used()?;
    let text = dump(
        value,
        Style {
            ascii: true,
            sorted: true,
            indent,
        },
    )?;
    let escaped = [
        ('<', "\\u003c"),
        ('>', "\\u003e"),
        ('&', "\\u0026"),
        ('\'', "\\u0027"),
    ]
    .into_iter()
    .fold(text, |text, (c, code)| text.replace(c, code));
    Ok(escaped.into())
}

/// As transformers redefines it since 4.42.
pub(super) fn plain(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let style = Style {
        ascii: options
            .get::<Option<bool>>("ensure_ascii")?
            .unwrap_or(false),
        sorted: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        indent: one_of(None, &options, "indent")?,
    };
    options.assert_all_used()?;
    Ok(dump(value, style)?.into())
}

fn one_of(given: Option<usize>, options: &Kwargs, name: &str) -> Result<Option<usize>, Error> {
    let indent = match given {
        None => options.get::<Option<usize>>(name)?,
        given => given,
    };
    match indent {
        Some(16..) => Err(Error::new(
            ErrorKind::InvalidOperation,
            "indent is too large",
        )),
        indent => Ok(indent),
    }
}

fn dump(value: &Value, style: Style) -> Result<String, Error> {
    let mut text = String::new();
    write_value(&mut text, value, style, 0)?;
    Ok(text)
}

fn write_value(text: &mut String, value: &Value, style: Style, depth: usize) -> Result<(), Error> {
    let unserializable = || Error::new(ErrorKind::InvalidOperation, "cannot be written as JSON");
    if depth > MAX_DEPTH {
        return Err(unserializable());
    }
    if text.len() > MAX_STRUCTURE {
        let limit = "the JSON of a value exceeds 1 MiB";
        return Err(Error::new(ErrorKind::InvalidOperation, limit));
    }
    match value.kind() {
        ValueKind::None => text.push_str("null"),
        ValueKind::Bool => text.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => {
            let _ = write!(text, "{value}");
        }
        ValueKind::String => write_string(text, value.as_str().unwrap_or_default(), style),
        ValueKind::Seq | ValueKind::Iterable => {
            let items: Vec<Value> = value.try_iter()?.collect();
            write_all(text, ['[', ']'], &items, style, depth, |text, item| {
                write_value(text, item, style, depth + 1)
            })?;
        }
        ValueKind::Map => {
            let mut keys: Vec<Value> = value.try_iter()?.collect();
            if style.sorted {
                keys.sort();
            }
            write_all(text, ['{', '}'], &keys, style, depth, |text, key| {
                write_string(text, key.as_str().ok_or_else(unserializable)?, style);
                text.push_str(": ");
                write_value(text, &value.get_item(key)?, style, depth + 1)
            })?;
        }
        _ => return Err(unserializable()),
    }
    Ok(())
}

fn write_all(
    text: &mut String,
    [open, close]: [char; 2],
    items: &[Value],
    style: Style,
    depth: usize,
    mut write_item: impl FnMut(&mut String, &Value) -> Result<(), Error>,
) -> Result<(), Error> {
    let new_line = |text: &mut String, depth: usize| {
        if let Some(indent) = style.indent {
            text.push('\n');
            text.extend(std::iter::repeat_n(' ', indent * depth));
        }
    };
    text.push(open);
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            text.push_str(if style.indent.is_some() { "," } else { ", " });
        }
        new_line(text, depth + 1);
        write_item(text, item)?;
    }
    if !items.is_empty() {
        new_line(text, depth);
    }
    text.push(close);
    Ok(())
}

fn write_string(text: &mut String, string: &str, style: Style) {
    text.push('"');
    for c in string.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '\x08' => text.push_str("\\b"),
            '\x0c' => text.push_str("\\f"),
            c if (c as u32) < 0x20 || (style.ascii && !(' '..='~').contains(&c)) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(text, "\\u{unit:04x}");
                }
            }
            c => text.push(c),
        }
    }
    text.push('"');
}
