//! Values as Python's `str()` and `repr()` write them.

use std::fmt::Write;

use super::{
    error::{Outcome, fail},
    printable::is_printable,
    value::{DictView, Value},
};

/// The longest text of a list or dict, in bytes. One that holds another twice, which holds another
/// twice, and so on, is small in memory only.
pub(super) const MAX_STRUCTURE: usize = 1 << 20;

/// `str(value)`
pub(super) fn to_text(value: &Value) -> Outcome<std::borrow::Cow<'_, str>> {
    match value {
        Value::Undefined(_) => Ok("".into()),
        Value::Text(text) => Ok((&*text.text).into()),
        _ => repr(value).map(Into::into),
    }
}

/// `repr(value)`
pub(super) fn repr(value: &Value) -> Outcome<String> {
    let mut text = String::new();
    write(&mut text, value)?;
    Ok(text)
}

fn write(text: &mut String, value: &Value) -> Outcome<()> {
    if text.len() > MAX_STRUCTURE {
        return fail("the text of a value exceeds 1 MiB");
    }
    match value {
        Value::Undefined(_) => text.push_str("Undefined"),
        Value::None => text.push_str("None"),
        Value::Bool(on) => text.push_str(if *on { "True" } else { "False" }),
        Value::Int(number) => {
            let _ = write!(text, "{number}");
        }
        Value::Float(number) => text.push_str(&float(*number)),
        Value::Text(part) => {
            let quoted = quoted(&part.text);
            if part.safe {
                let _ = write!(text, "Markup({quoted})");
            } else {
                text.push_str(&quoted);
            }
        }
        Value::List(items) => write_all(text, "[", &items.values, "]")?,
        Value::Tuple(items) => {
            let end = if items.values.len() == 1 { ",)" } else { ")" };
            write_all(text, "(", &items.values, end)?;
        }
        Value::Dict(dict) => {
            text.push('{');
            for (index, (key, value)) in dict.pairs.iter().enumerate() {
                if index > 0 {
                    text.push_str(", ");
                }
                write(text, key)?;
                text.push_str(": ");
                write(text, value)?;
            }
            text.push('}');
        }
        Value::DictView(view, _) => {
            let begin = match view {
                DictView::Keys => "dict_keys([",
                DictView::Values => "dict_values([",
                DictView::Items => "dict_items([",
            };
            write_all(text, begin, &value.iterate()?, "])")?;
        }
        Value::Range(range) => {
            let _ = if range.step == 1 {
                write!(text, "range({}, {})", range.start, range.stop)
            } else {
                write!(
                    text,
                    "range({}, {}, {})",
                    range.start, range.stop, range.step
                )
            };
        }
        // Python writes where they lie in memory.
        _ => return fail(format!("a {} has no text of its own", value.kind())),
    }
    Ok(())
}

fn write_all(text: &mut String, begin: &str, values: &[Value], end: &str) -> Outcome<()> {
    text.push_str(begin);
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            text.push_str(", ");
        }
        write(text, value)?;
    }
    text.push_str(end);
    Ok(())
}

/// A float: the shortest digits that mean it, with an exponent from 1e16 and below 1e-4.
pub(super) fn float(number: f64) -> String {
    if number.is_nan() {
        return "nan".into();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.into();
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if number != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    let plain = format!("{number}");
    if plain.contains('.') {
        plain
    } else {
        plain + ".0"
    }
}

/// A text in quotes.
pub(super) fn quoted(text: &str) -> String {
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
            c if !is_printable(c) => {
                let _ = match c as u32 {
                    code @ ..0x100 => write!(quoted, "\\x{code:02x}"),
                    code @ ..0x1_0000 => write!(quoted, "\\u{code:04x}"),
                    code => write!(quoted, "\\U{code:08x}"),
                };
            }
            c => quoted.push(c),
        }
    }
    quoted.push(quote);
    quoted
}
