//! `str.format`: fields, conversions and format specifications.

use super::{
    error::{Outcome, fail},
    repr::{self, to_text},
    run::Run,
    signature::Given,
    text::{escape_html, pad},
    value::{Text, Value},
};

/// Widths and precisions that can be asked for.
const MAX_WIDTH: usize = 100_000;

/// Fills the fields of a text.
pub(super) fn format(run: &mut Run<'_>, format: &Text, given: Given) -> Outcome<String> {
    let mut next = Some(0);
    fill(run, &format.text, format.safe, &given, &mut next, 2)
}

/// `next` is the number of the next field without one; `None` once fields have numbers.
fn fill(
    run: &mut Run<'_>,
    format: &str,
    safe: bool,
    given: &Given,
    next: &mut Option<usize>,
    depth: usize,
) -> Outcome<String> {
    let mut out = String::new();
    let mut rest = format;
    while let Some(at) = rest.find(['{', '}']) {
        out.push_str(&rest[..at]);
        let brace = &rest[at..=at];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(brace) {
            out.push_str(brace);
            rest = after;
            continue;
        }
        if brace == "}" {
            return fail("a single } in a format");
        }
        let Some(end) = closing(rest) else {
            return fail("a { in a format is not closed");
        };
        let field = &rest[..end];
        rest = &rest[end + 1..];
        if depth == 0 {
            return fail("fields of a format are nested too deeply");
        }
        let text = one(run, field, safe, given, next, depth)?;
        run.make(text.len())?;
        out.push_str(&text);
    }
    out.push_str(rest);
    Ok(out)
}

/// Where the brace that was opened before a text is closed.
fn closing(text: &str) -> Option<usize> {
    let mut open = 1;
    text.char_indices().find_map(|(at, c)| {
        match c {
            '{' => open += 1,
            '}' => open -= 1,
            _ => {}
        }
        (open == 0).then_some(at)
    })
}

fn one(
    run: &mut Run<'_>,
    field: &str,
    safe: bool,
    given: &Given,
    next: &mut Option<usize>,
    depth: usize,
) -> Outcome<String> {
    // A bracket may hold anything but its end.
    let mut in_bracket = false;
    let end = field.find(|c| {
        in_bracket = (in_bracket || c == '[') && c != ']';
        !in_bracket && matches!(c, '!' | ':')
    });
    let (name, mut rest) = field.split_at(end.unwrap_or(field.len()));
    let mut conversion = None;
    if let Some(after) = rest.strip_prefix('!') {
        let mut chars = after.chars();
        conversion = chars.next();
        rest = chars.as_str();
        if !(rest.is_empty() || rest.starts_with(':')) {
            return fail("a conversion of a format is one letter");
        }
    }
    let specification = rest.strip_prefix(':').unwrap_or(rest);
    let value = look_up(run, name, given, next)?;
    let specification = fill(run, specification, false, given, next, depth - 1)?;
    let value = match conversion {
        None => value,
        Some('s') => Value::text(to_text(&value)?),
        Some('r') => Value::text(repr::repr(&value)?),
        Some('a') => Value::text(ascii(&repr::repr(&value)?)),
        Some(other) => return fail(format!("there is no conversion {other:?}")),
    };
    let text = specified(&value, &specification)?;
    let is_safe = matches!(&value, Value::Text(text) if text.safe);
    Ok(if safe && !is_safe {
        escape_html(&text)
    } else {
        text
    })
}

pub(super) fn ascii(text: &str) -> String {
    use std::fmt::Write;
    let mut out = String::new();
    for c in text.chars() {
        let _ = match c as u32 {
            code @ ..0x80 => write!(out, "{}", char::from_u32(code).unwrap_or(c)),
            code @ ..0x100 => write!(out, "\\x{code:02x}"),
            code @ ..0x1_0000 => write!(out, "\\u{code:04x}"),
            code => write!(out, "\\U{code:08x}"),
        };
    }
    out
}

fn look_up(
    run: &mut Run<'_>,
    name: &str,
    (positional, named): &Given,
    next: &mut Option<usize>,
) -> Outcome<Value> {
    let first = name.find(['.', '[']).unwrap_or(name.len());
    let (first, mut rest) = name.split_at(first);
    let place = if first.is_empty() {
        let Some(number) = next else {
            return fail("fields with and without numbers can't be mixed");
        };
        *number += 1;
        Some(*number - 1)
    } else if first.bytes().all(|b| b.is_ascii_digit()) {
        if next.is_some_and(|next| next > 0) {
            return fail("fields with and without numbers can't be mixed");
        }
        *next = None;
        first.parse().ok()
    } else {
        None
    };
    let found = match place {
        Some(place) => positional.get(place),
        None => named
            .iter()
            .find(|(known, _)| **known == *first)
            .map(|(_, value)| value),
    };
    let Some(found) = found else {
        return fail(format!("a format asks for {first:?}, which is not given"));
    };
    let mut value = found.clone();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            value = run.attribute(&value, &after[..end])?;
            rest = &after[end..];
        } else {
            let after = &rest[1..];
            let Some(end) = after.find(']').filter(|_| rest.starts_with('[')) else {
                return fail("a field of a format is malformed");
            };
            let key = &after[..end];
            let index = match key.parse::<i128>() {
                Ok(number) if !key.starts_with(['-', '+']) => Value::Int(number),
                _ => Value::text(key),
            };
            value = run.item(&value, &index)?;
            rest = &after[end + 1..];
        }
        if let Value::Undefined(name) = &value {
            return fail(format!("a format asks for {name:?}, which is not there"));
        }
    }
    Ok(value)
}

/// A format specification: `[[fill]align][sign][#][0][width][grouping][.precision][type]`.
#[derive(Default)]
pub(super) struct Specification {
    pub(super) fill: Option<char>,
    pub(super) align: Option<char>,
    pub(super) sign: Option<char>,
    pub(super) alternate: bool,
    pub(super) width: usize,
    grouping: Option<char>,
    pub(super) precision: Option<usize>,
    pub(super) kind: Option<char>,
}

impl Specification {
    fn parse(text: &str) -> Outcome<Self> {
        let mut found = Self::default();
        let mut chars = text.chars().peekable();
        let second = text.chars().nth(1);
        if second.is_some_and(|c| matches!(c, '<' | '>' | '^' | '=')) {
            found.fill = chars.next();
        }
        found.align = chars.next_if(|c| matches!(c, '<' | '>' | '^' | '='));
        found.sign = chars.next_if(|c| matches!(c, '+' | '-' | ' '));
        found.alternate = chars.next_if_eq(&'#').is_some();
        if chars.next_if_eq(&'0').is_some() && found.align.is_none() {
            found.fill = found.fill.or(Some('0'));
            found.align = Some('=');
        }
        let number = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>| {
            let mut digits = String::new();
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            match digits.parse::<usize>() {
                Ok(number) if number > MAX_WIDTH => fail("a width is too large"),
                Ok(number) => Ok(Some(number)),
                Err(_) if digits.is_empty() => Ok(None),
                Err(_) => fail("a width is too large"),
            }
        };
        found.width = number(&mut chars)?.unwrap_or(0);
        found.grouping = chars.next_if(|c| matches!(c, ',' | '_'));
        if chars.next_if_eq(&'.').is_some() {
            found.precision = number(&mut chars)?;
            if found.precision.is_none() {
                return fail("a format specification lacks its precision");
            }
        }
        found.kind = chars.next();
        if chars.next().is_some() {
            return fail(format!("format specification {text:?} is malformed"));
        }
        Ok(found)
    }

    /// Pads a number, of which `prefix` is sign and base.
    pub(super) fn number(&self, prefix: &str, digits: &str) -> String {
        let fill = self.fill.unwrap_or(' ');
        let length = prefix.chars().count() + digits.chars().count();
        if self.align == Some('=') {
            let missing = self.width.saturating_sub(length);
            let fill: String = std::iter::repeat_n(fill, missing).collect();
            return format!("{prefix}{fill}{digits}");
        }
        self.pad(&format!("{prefix}{digits}"), '>')
    }

    pub(super) fn pad(&self, text: &str, default: char) -> String {
        let share = match self.align.unwrap_or(default) {
            '<' => |_, _| 0,
            '^' => |missing: usize, _| missing / 2,
            _ => |missing, _| missing,
        };
        pad(text, self.width, self.fill.unwrap_or(' '), share)
    }

    fn sign(&self, negative: bool) -> &'static str {
        match self.sign {
            _ if negative => "-",
            Some('+') => "+",
            Some(' ') => " ",
            _ => "",
        }
    }

    fn grouped(&self, digits: &str, size: usize) -> String {
        let Some(separator) = self.grouping else {
            return digits.to_owned();
        };
        let mut out = String::new();
        for (at, digit) in digits.char_indices() {
            if at > 0 && (digits.len() - at).is_multiple_of(size) {
                out.push(separator);
            }
            out.push(digit);
        }
        out
    }

    fn integer(&self, number: i128) -> Outcome<String> {
        if self.precision.is_some() {
            return fail("whole numbers have no precision");
        }
        let size = number.unsigned_abs();
        let (base, digits, group) = match self.kind {
            None | Some('d' | 'n') => ("", size.to_string(), 3),
            Some('x') => ("0x", format!("{size:x}"), 4),
            Some('X') => ("0X", format!("{size:X}"), 4),
            Some('o') => ("0o", format!("{size:o}"), 4),
            Some('b') => ("0b", format!("{size:b}"), 4),
            Some('c') => {
                let c = u32::try_from(number).ok().and_then(char::from_u32);
                return match c {
                    Some(c) => Ok(self.pad(&c.to_string(), '<')),
                    None => fail("there is no character of this number"),
                };
            }
            Some(other) => return fail(format!("whole numbers have no format {other:?}")),
        };
        let base = if self.alternate { base } else { "" };
        let prefix = format!("{}{base}", self.sign(number < 0));
        Ok(self.number(&prefix, &self.grouped(&digits, group)))
    }

    /// Formats the size of a float and its sign.
    pub(super) fn float(&self, number: f64) -> Outcome<String> {
        let sign = self.sign(number.is_sign_negative() && !number.is_nan());
        let size = number.abs();
        let upper = self.kind.is_some_and(char::is_uppercase);
        let text = match self.kind {
            None if self.precision.is_none() => repr::float(size),
            // Between `repr` and `g`: the latter with at least one digit after the point.
            None => {
                let general = general(size, self.precision.unwrap_or(6).max(1), false);
                if general.contains(['.', 'e', 'n']) {
                    general
                } else {
                    general + ".0"
                }
            }
            _ if !number.is_finite() => repr::float(size),
            Some('f' | 'F') => format!("{size:.*}", self.precision.unwrap_or(6)),
            Some('e' | 'E') => exponent(size, self.precision.unwrap_or(6)),
            Some('g' | 'G' | 'n') => {
                general(size, self.precision.unwrap_or(6).max(1), self.alternate)
            }
            Some('%') => format!("{:.*}%", self.precision.unwrap_or(6), size * 100.0),
            Some(other) => return fail(format!("floats have no format {other:?}")),
        };
        let text = if upper { text.to_uppercase() } else { text };
        let (whole, rest) = text.split_at(
            text.find(|c: char| !c.is_ascii_digit())
                .unwrap_or(text.len()),
        );
        Ok(self.number(sign, &(self.grouped(whole, 3) + rest)))
    }
}

/// A number with an exponent of at least two digits.
fn exponent(number: f64, precision: usize) -> String {
    let text = format!("{number:.precision$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    format!("{digits}e{sign}{exponent:0>2}")
}

/// A number with so many digits, with an exponent where it is very large or small.
fn general(number: f64, precision: usize, keep_zeros: bool) -> String {
    let scientific = exponent(number, precision - 1);
    let power: i64 = scientific
        .split_once('e')
        .and_then(|(_, power)| power.parse().ok())
        .unwrap_or(0);
    let stripped = |digits: &str| {
        if keep_zeros || !digits.contains('.') {
            return digits.to_owned();
        }
        digits
            .trim_end_matches('0')
            .trim_end_matches('.')
            .to_owned()
    };
    if (-4..precision as i64).contains(&power) {
        let decimals = (precision as i64 - 1 - power).max(0) as usize;
        return stripped(&format!("{number:.decimals$}"));
    }
    match scientific.split_once('e') {
        Some((digits, power)) => format!("{}e{power}", stripped(digits)),
        None => scientific,
    }
}

/// `format(value, specification)`
fn specified(value: &Value, specification: &str) -> Outcome<String> {
    let wanted = Specification::parse(specification)?;
    match value {
        _ if specification.is_empty() => Ok(to_text(value)?.into_owned()),
        Value::Text(text) => {
            let allowed = matches!(wanted.kind, None | Some('s'))
                && wanted.sign.is_none()
                && !wanted.alternate
                && wanted.grouping.is_none()
                && (wanted.align != Some('=') || wanted.fill == Some('0'));
            if !allowed {
                return fail(format!("texts have no format {specification:?}"));
            }
            let most = wanted.precision.unwrap_or(usize::MAX);
            let text: String = text.text.chars().take(most).collect();
            if wanted.align == Some('=') {
                return Ok(pad(&text, wanted.width, '0', |_, _| 0));
            }
            Ok(wanted.pad(&text, '<'))
        }
        Value::Float(number) => wanted.float(*number),
        Value::Int(_) | Value::Bool(_) => {
            let number = value.as_int().unwrap_or(0);
            match wanted.kind {
                Some('e' | 'E' | 'f' | 'F' | 'g' | 'G' | '%') => wanted.float(number as f64),
                _ => wanted.integer(number),
            }
        }
        other => fail(format!(
            "a {} has no format {specification:?}",
            other.kind()
        )),
    }
}
