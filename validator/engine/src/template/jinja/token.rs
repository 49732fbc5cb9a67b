//! The words of an expression.

use super::{
    error::{Outcome, TemplateError},
    text::is_space,
};

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Lexeme {
    Name(Box<str>),
    Text(Box<str>),
    Int(i128),
    Float(f64),
    Operator(&'static str),
}

/// Longest first.
const OPERATORS: [&str; 25] = [
    "**", "//", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}",
    ">", "<", "=", ".", ":", "|", ",",
];

/// Reads words up to the end of a tag; returns how many bytes they take.
pub(super) fn tokens(source: &str, end: &str, line: usize) -> Outcome<(Vec<Lexeme>, usize)> {
    let mut found = Vec::new();
    let mut open: Vec<char> = Vec::new();
    let mut rest = source;
    loop {
        rest = rest.trim_start_matches(is_space);
        let line = line + source[..source.len() - rest.len()].matches('\n').count();
        let wrong = |text: String| Err(TemplateError::at(line, text));
        if open.is_empty() {
            let signed = rest
                .strip_prefix('-')
                .or_else(|| rest.strip_prefix('+').filter(|_| end == "%}"));
            if rest.starts_with(end) || signed.is_some_and(|rest| rest.starts_with(end)) {
                return Ok((found, source.len() - rest.len()));
            }
        }
        let Some(first) = rest.chars().next() else {
            return wrong("a tag has no end".into());
        };
        if first == '\'' || first == '"' {
            let Some((text, used)) = quoted(rest, first) else {
                return wrong("a text has no end".into());
            };
            found.push(Lexeme::Text(unescaped(text).ok_or_else(|| {
                TemplateError::at(line, "a text has a malformed escape sequence")
            })?));
            rest = &rest[used..];
        } else if let Some((token, used)) = number(rest, found.last()) {
            found.push(token.map_err(|text| TemplateError::at(line, text))?);
            rest = &rest[used..];
        } else if first.is_alphabetic() || first == '_' {
            let used = rest
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            found.push(Lexeme::Name(rest[..used].into()));
            rest = &rest[used..];
        } else {
            let Some(operator) = OPERATORS.into_iter().find(|op| rest.starts_with(op)) else {
                return wrong(format!("unexpected {first:?}"));
            };
            match (operator, first) {
                ("(" | "[" | "{", opening) => open.push(opening),
                (")", _) if open.pop() != Some('(') => return wrong("unexpected ')'".into()),
                ("]", _) if open.pop() != Some('[') => return wrong("unexpected ']'".into()),
                ("}", _) if open.pop() != Some('{') => return wrong("unexpected '}'".into()),
                _ => {}
            }
            found.push(Lexeme::Operator(operator));
            rest = &rest[operator.len()..];
        }
    }
}

/// Returns the inside of a text in quotes, and the bytes it takes with them.
fn quoted(source: &str, quote: char) -> Option<(&str, usize)> {
    let mut escaped = false;
    for (at, c) in source.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return Some((&source[1..at], at + 1)),
            _ => {}
        }
    }
    None
}

/// Resolves escape sequences as Python does; unknown ones stay as they are.
fn unescaped(text: &str) -> Option<Box<str>> {
    if !text.contains('\\') {
        return Some(text.into());
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let c = rest.chars().next()?;
        rest = &rest[c.len_utf8()..];
        match c {
            'n' => out.push('\n'),
            't' => out.push('\t'),
            'r' => out.push('\r'),
            'a' => out.push('\x07'),
            'b' => out.push('\x08'),
            'f' => out.push('\x0c'),
            'v' => out.push('\x0b'),
            '\\' | '\'' | '"' => out.push(c),
            '\n' => {}
            'x' | 'u' | 'U' => {
                let count = match c {
                    'x' => 2,
                    'u' => 4,
                    _ => 8,
                };
                let digits = rest.get(..count)?;
                out.push(char::from_u32(u32::from_str_radix(digits, 16).ok()?)?);
                rest = &rest[count..];
            }
            '0'..='7' => {
                let more = rest
                    .bytes()
                    .take(2)
                    .take_while(|b| matches!(b, b'0'..=b'7'))
                    .count();
                let digits = format!("{c}{}", &rest[..more]);
                out.push(char::from_u32(u32::from_str_radix(&digits, 8).ok()?)?);
                rest = &rest[more..];
            }
            // Names of characters would take a table of all of them.
            'N' => return None,
            c => {
                out.push('\\');
                out.push(c);
            }
        }
    }
    out.push_str(rest);
    Some(out.into())
}

type Number = Result<Lexeme, &'static str>;

fn number(source: &str, before: Option<&Lexeme>) -> Option<(Number, usize)> {
    let bytes = source.as_bytes();
    if !bytes.first()?.is_ascii_digit() {
        return None;
    }
    let too_large = Err("a number is too large");
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        // A digit may come before a character of several bytes.
        let start = source.get(..2);
        if start.is_some_and(|start| start.eq_ignore_ascii_case(prefix)) {
            let digits = source[2..]
                .find(|c: char| c != '_' && !c.is_digit(radix))
                .unwrap_or(source.len() - 2);
            if digits > 0 {
                let text = source[2..2 + digits].replace('_', "");
                let value = i128::from_str_radix(&text, radix).map(Lexeme::Int);
                return Some((value.or(too_large), 2 + digits));
            }
        }
    }
    let run = |from: usize| {
        let more = source[from..].find(|c: char| c != '_' && !c.is_ascii_digit());
        more.map_or(source.len(), |more| from + more)
    };
    let whole = run(0);
    let mut end = whole;
    // `a.0.1` are two look-ups, not a number.
    let after_dot = before == Some(&Lexeme::Operator("."));
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    if !after_dot {
        if bytes.get(end) == Some(&b'.') && digit(end + 1) {
            end = run(end + 1);
        }
        if bytes.get(end).is_some_and(|b| matches!(b, b'e' | b'E')) {
            let sign = usize::from(bytes.get(end + 1).is_some_and(|b| matches!(b, b'+' | b'-')));
            if digit(end + 1 + sign) {
                end = run(end + 1 + sign);
            }
        }
    }
    let text = source[..end].replace('_', "");
    if end > whole {
        let value = text.parse().map(Lexeme::Float);
        return Some((value.map_err(|_| "a number is malformed"), end));
    }
    Some((text.parse().map(Lexeme::Int).or(too_large), end))
}
