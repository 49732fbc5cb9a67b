//! JSON as Python's `json` module reads it: bare `NaN` and infinities, and halves of surrogate pairs.

use std::borrow::Cow;

use serde_json::{Value, error::Category};

/// Why a text is not the JSON that it should be, for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason} at line {line} column {column}")]
pub struct JsonError {
    reason: String,
    line: usize,
    column: usize,
}

impl From<serde_json::Error> for JsonError {
    fn from(error: serde_json::Error) -> Self {
        let (line, column) = (error.line(), error.column());
        let text = error.to_string();
        // The library writes the place behind its reason, unless it knows none.
        let place = format!(" at line {line} column {column}");
        let text = text.strip_suffix(&place).unwrap_or(&text);
        let reason = match (error.classify(), text) {
            (Category::Eof, _) => "it ends in the middle",
            (_, "expected ident") => "a word is broken off",
            (_, "expected value") => "there is no value",
            (_, "recursion limit exceeded") => "values are nested too deep",
            (_, other) => other,
        };
        Self {
            reason: reason.replace("invalid type: ", "found "),
            line,
            column,
        }
    }
}

/// Parses JSON. `NaN`, `Infinity` and `-Infinity` become strings, so that nothing takes them for a
/// number or for null; half a surrogate pair becomes a replacement character.
///
/// # Errors
/// Whatever Python refuses too, and values nested more than 128 levels deep.
pub fn parse(json: &[u8]) -> Result<Value, JsonError> {
    // Nearly all files are plain JSON; only the others are rewritten.
    let parsed = serde_json::from_slice(json).or_else(|error| match std::str::from_utf8(json) {
        Ok(text) => serde_json::from_str(&strict(text)),
        Err(_) => Err(error),
    });
    Ok(parsed?)
}

fn strict(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut in_string = false;
    while let Some(c) = rest.chars().next() {
        let mut taken = c.len_utf8();
        let mut written = Cow::Borrowed(&rest[..taken]);
        if in_string {
            if c == '\\' {
                (taken, written) = escape(rest);
            }
            in_string = c != '"';
        } else if let Some(word) = ["-Infinity", "Infinity", "NaN"]
            .into_iter()
            .find(|word| rest.starts_with(word))
        {
            taken = word.len();
            written = format!("\"{word}\"").into();
        } else {
            in_string = c == '"';
        }
        out.push_str(&written);
        rest = &rest[taken..];
    }
    out
}

/// Returns the length of the escape sequence that a text begins with, and what is to stand for it.
fn escape(text: &str) -> (usize, Cow<'_, str>) {
    let unit = |text: &str| {
        let digits = text.strip_prefix("\\u")?.get(..4)?;
        u32::from_str_radix(digits, 16).ok()
    };
    let low = |text: &str| unit(text).is_some_and(|unit| (0xdc00..0xe000).contains(&unit));
    match unit(text) {
        Some(0xd800..0xdc00) if text.get(6..).is_some_and(low) => (12, text[..12].into()),
        Some(0xd800..0xe000) => (6, "\\ufffd".into()),
        _ => {
            let taken = 1 + text[1..].chars().next().map_or(0, char::len_utf8);
            (taken, text[..taken].into())
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_python_reads_is_read() {
        let text = r#"{"a": NaN, "b": [-Infinity, Infinity], "NaN\"": "\ud800x\ud83d\ude00\udc00", "a": 1}"#;
        let expected =
            json!({"a": 1, "b": ["-Infinity", "Infinity"], "NaN\"": "\u{fffd}x\u{1f600}\u{fffd}"});
        assert_eq!(parse(text.as_bytes()).unwrap(), expected);
        for bad in [
            "\u{feff}{}",
            "{\"a\": nan}",
            "{\"a\":",
            "\"\u{1}\"",
            "\"\\",
            "[1,]",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_in_plain_words() {
        let deep = "[".repeat(200);
        let cases = [
            ("", "it ends in the middle at line 1 column 0"),
            ("{\"a\": ", "it ends in the middle at line 1 column 6"),
            ("{\"a\": \"b", "it ends in the middle at line 1 column 8"),
            ("{\n\"a\": nil}", "a word is broken off at line 2 column 7"),
            ("{\"a\": }", "there is no value at line 1 column 7"),
            ("{\"a\": 1,}", "trailing comma at line 1 column 9"),
            ("{a: 1}", "key must be a string at line 1 column 2"),
            ("{} {}", "trailing characters at line 1 column 4"),
            (&deep, "values are nested too deep at line 1 column 128"),
        ];
        for (json, said) in cases {
            assert_eq!(
                parse(json.as_bytes()).unwrap_err().to_string(),
                said,
                "{json}"
            );
        }
    }

    proptest! {
        #[test]
        fn anything_is_read_or_refused(text in "\\PC{0,40}|[\\[\\]{}\",:\\\\NaIinftyud8c0-9\u{0}-\u{1f}]{0,40}") {
            let strictly = serde_json::from_str::<Value>(&text).ok();
            let leniently = parse(text.as_bytes()).ok();
            prop_assert!(strictly.is_none() || strictly == leniently);
        }
    }
}
