//! The filter `tojson`: what Python's `json.dumps` writes, in the two ways templates meet it.

use std::fmt::Write;

use super::{
    Dialect,
    error::{Outcome, fail},
    repr::{self, MAX_STRUCTURE, to_text},
    signature::{Bound, Given},
    value::{Dict, Text, Value},
};

/// How a value is written.
struct Style {
    /// Non-ASCII characters as `\uXXXX`.
    ascii: bool,
    /// Keys by their text instead of the order of insertion.
    sorted: bool,
    /// What each level is moved to the right by; `None` for a single line.
    indent: Option<String>,
    /// What stands between items, and after keys.
    separators: [String; 2],
}

/// Writes a value as the dialect does.
pub(super) fn to_json(value: &Value, dialect: Dialect, given: Given) -> Outcome<Text> {
    if dialect == Dialect::Plain {
        // Jinja's own: keys sorted, ASCII only, and safe inside HTML.
        let indent = indent(Bound::new(&["indent"], given)?.take(0))?;
        let separators = separators(indent.is_some());
        let style = Style {
            ascii: true,
            sorted: true,
            indent,
            separators,
        };
        let mut text = dump(value, &style)?;
        for (c, code) in [
            ('<', "\\u003c"),
            ('>', "\\u003e"),
            ('&', "\\u0026"),
            ('\'', "\\u0027"),
        ] {
            text = text.replace(c, code);
        }
        return Ok(Text {
            text: text.into(),
            safe: true,
        });
    }
    let parameters = ["ensure_ascii", "indent", "separators", "sort_keys"];
    let mut bound = Bound::new(&parameters, given)?;
    let ascii = bound.flag(0, false);
    let indent = indent(bound.take(1))?;
    let separators = match bound.take(2) {
        None | Some(Value::None) => separators(indent.is_some()),
        Some(pair) => match <[Value; 2]>::try_from(pair.iterate()?) {
            Ok(pair) => {
                let [items, keys] = &pair;
                [to_text(items)?.into_owned(), to_text(keys)?.into_owned()]
            }
            Err(_) => return fail("separators are two texts"),
        },
    };
    let style = Style {
        ascii,
        sorted: bound.flag(3, false),
        indent,
        separators,
    };
    Ok(Text {
        text: dump(value, &style)?.into(),
        safe: false,
    })
}

fn separators(indented: bool) -> [String; 2] {
    [if indented { "," } else { ", " }.into(), ": ".into()]
}

fn indent(given: Option<Value>) -> Outcome<Option<String>> {
    match given {
        None | Some(Value::None) => Ok(None),
        Some(Value::Text(text)) if text.text.len() < 16 => Ok(Some(text.text.to_string())),
        Some(other) => match other.as_int() {
            Some(width @ ..16) => Ok(Some(" ".repeat(width.max(0) as usize))),
            _ => fail("indent is too large"),
        },
    }
}

fn dump(value: &Value, style: &Style) -> Outcome<String> {
    let mut text = String::new();
    write(&mut text, value, style, 0)?;
    Ok(text)
}

/// Fails before what is written becomes too much: escaped, a character takes six times its room.
fn admit(text: &str, part: &str) -> Outcome<()> {
    if text.len() + part.len() > MAX_STRUCTURE {
        return fail("the JSON of a value exceeds 1 MiB");
    }
    Ok(())
}

fn write(text: &mut String, value: &Value, style: &Style, depth: usize) -> Outcome<()> {
    admit(text, "")?;
    match value {
        Value::None => text.push_str("null"),
        Value::Bool(on) => text.push_str(if *on { "true" } else { "false" }),
        Value::Int(number) => {
            let _ = write!(text, "{number}");
        }
        Value::Float(number) => text.push_str(&json_float(*number)),
        Value::Text(part) => {
            admit(text, &part.text)?;
            write_text(text, &part.text, style);
        }
        Value::List(items) | Value::Tuple(items) => {
            write_all(
                text,
                ['[', ']'],
                &items.values,
                style,
                depth,
                |text, item| write(text, item, style, depth + 1),
            )?;
        }
        Value::Dict(dict) => {
            let pairs = pairs(dict, style)?;
            write_all(
                text,
                ['{', '}'],
                &pairs,
                style,
                depth,
                |text, (key, value)| {
                    admit(text, key)?;
                    write_text(text, key, style);
                    text.push_str(&style.separators[1]);
                    write(text, value, style, depth + 1)
                },
            )?;
        }
        other => return fail(format!("a {} can't be written as JSON", other.kind())),
    }
    Ok(())
}

fn json_float(number: f64) -> String {
    match repr::float(number).as_str() {
        "nan" => "NaN".into(),
        "inf" => "Infinity".into(),
        "-inf" => "-Infinity".into(),
        text => text.to_owned(),
    }
}

fn pairs(dict: &Dict, style: &Style) -> Outcome<Vec<(String, Value)>> {
    let mut pairs: Vec<&(Value, Value)> = dict.pairs.iter().collect();
    if style.sorted {
        let mut failed = None;
        pairs.sort_by(|(a, _), (b, _)| match a.order(b) {
            Ok(order) => order.unwrap_or(std::cmp::Ordering::Equal),
            Err(error) => {
                failed.get_or_insert(error);
                std::cmp::Ordering::Equal
            }
        });
        if let Some(error) = failed {
            return Err(error);
        }
    }
    let key = |key: &Value| match key {
        Value::Text(text) => Ok(text.text.to_string()),
        Value::None => Ok("null".to_owned()),
        Value::Bool(on) => Ok(if *on { "true" } else { "false" }.to_owned()),
        Value::Int(number) => Ok(number.to_string()),
        Value::Float(number) => Ok(json_float(*number)),
        other => fail(format!("a {} can't be a key in JSON", other.kind())),
    };
    pairs
        .into_iter()
        .map(|(name, value)| Ok((key(name)?, value.clone())))
        .collect()
}

fn write_all<T>(
    text: &mut String,
    [open, close]: [char; 2],
    items: &[T],
    style: &Style,
    depth: usize,
    mut write_item: impl FnMut(&mut String, &T) -> Outcome<()>,
) -> Outcome<()> {
    let new_line = |text: &mut String, depth: usize| {
        if let Some(indent) = &style.indent {
            text.push('\n');
            text.push_str(&indent.repeat(depth));
        }
    };
    text.push(open);
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            text.push_str(&style.separators[0]);
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

fn write_text(text: &mut String, string: &str, style: &Style) {
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
