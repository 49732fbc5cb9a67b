//! JSON as Python clients write it: bare `NaN` and infinities, control characters in strings.

use std::fmt::Write as _;

use serde_json::Value;

/// Parses JSON, reading `NaN`, `Infinity` and `-Infinity` as null and control characters in
/// strings as themselves.
pub fn parse(text: &str) -> Result<Value, serde_json::Error> {
    // Most texts are plain JSON; only the others are rewritten.
    serde_json::from_str(text).or_else(|_| serde_json::from_str(&strict(text)))
}

fn strict(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut in_string = false;
    while let Some(c) = rest.chars().next() {
        let mut taken = c.len_utf8();
        if in_string {
            match c {
                '\\' => {
                    let escaped = rest[1..].chars().next().map_or(0, char::len_utf8);
                    taken += escaped;
                    out.push_str(&rest[..taken]);
                }
                c if c.is_control() && c < '\u{20}' => {
                    let _ = write!(out, "\\u{:04x}", u32::from(c));
                }
                c => {
                    in_string = c != '"';
                    out.push(c);
                }
            }
        } else if let Some(word) = ["-Infinity", "Infinity", "NaN"]
            .into_iter()
            .find(|word| rest.starts_with(word))
        {
            taken = word.len();
            out.push_str("null");
        } else {
            in_string = c == '"';
            out.push(c);
        }
        rest = &rest[taken..];
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn python_numbers_and_control_characters_are_read() {
        let text = "{\"a\":NaN,\"b\":[-Infinity,Infinity,1],\"NaN\":\"NaN \\\" Infinity\u{1}\"}";
        let expected = json!({"a": null, "b": [null, null, 1], "NaN": "NaN \" Infinity\u{1}"});
        assert_eq!(parse(text).unwrap(), expected);
        assert!(parse("{\"a\":").is_err());
        assert!(parse("\"\\").is_err());
    }

    proptest! {
        #[test]
        fn anything_is_read_or_refused(text in "\\PC{0,40}|[\\[\\]{}\",:\\\\NaIinfty0-9\u{0}-\u{1f}]{0,40}") {
            let strictly = serde_json::from_str::<Value>(&text).ok();
            let leniently = parse(&text).ok();
            prop_assert!(strictly.is_none() || strictly == leniently);
        }
    }
}
