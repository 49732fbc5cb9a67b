//! `format % values`, as in `printf`.

use super::{
    error::{Outcome, fail},
    format::{Specification, ascii},
    repr::{self, to_text},
    text::escape_html,
    value::{Text, Value},
};

/// Where the next value comes from.
struct Values<'v> {
    list: &'v [Value],
    at: usize,
    dict: Option<&'v Value>,
}

impl Values<'_> {
    fn next(&mut self) -> Outcome<Value> {
        self.at += 1;
        match self.list.get(self.at - 1) {
            Some(value) => Ok(value.clone()),
            None => fail("not enough arguments for a format"),
        }
    }
}

/// Fills a text with values.
pub(super) fn format(format: &Text, values: &Value) -> Outcome<String> {
    let single = std::slice::from_ref(values);
    let mut source = Values {
        list: match values {
            Value::Tuple(items) => &items.values,
            _ => single,
        },
        at: 0,
        dict: matches!(values, Value::Dict(_)).then_some(values),
    };
    let mut out = String::new();
    let mut rest = &*format.text;
    let mut named = false;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let key = match rest.strip_prefix('(') {
            None => None,
            Some(after) => {
                let Some(end) = after.find(')') else {
                    return fail("a name in a format has no end");
                };
                rest = &after[end + 1..];
                Some(&after[..end])
            }
        };
        let (wanted, zero, left, after) = flags(rest, &mut source)?;
        rest = after;
        let Some(kind) = rest.chars().next() else {
            return fail("a format ends within a field");
        };
        rest = &rest[kind.len_utf8()..];
        if kind == '%' {
            out.push('%');
            continue;
        }
        let value = match key {
            None => source.next()?,
            Some(key) => {
                named = true;
                let Some(Value::Dict(dict)) = source.dict else {
                    return fail("a format with names takes a dict");
                };
                match dict.get_text(key) {
                    Some(value) => value.clone(),
                    None => return fail(format!("a format asks for {key:?}, which is not given")),
                }
            }
        };
        let text = converted(kind, &value, wanted, zero, left)?;
        let safe = matches!(&value, Value::Text(text) if text.safe);
        if format.safe && !safe {
            out.push_str(&escape_html(&text));
        } else {
            out.push_str(&text);
        }
        if out.len() > repr::MAX_STRUCTURE {
            return fail("a formatted text exceeds 1 MiB");
        }
    }
    out.push_str(rest);
    let used = named || source.dict.is_some() || source.at >= source.list.len();
    // What is not a tuple may go unused only if it could be looked into by name.
    let may_stay = matches!(
        values,
        Value::List(_) | Value::Dict(_) | Value::Undefined(_)
    );
    if used || may_stay {
        Ok(out)
    } else {
        fail("not all arguments of a format are used")
    }
}

type Flags<'f> = (Specification, bool, bool, &'f str);

/// Reads flags, width and precision: also whether zeros fill, and whether it is flush left.
fn flags<'f>(format: &'f str, source: &mut Values<'_>) -> Outcome<Flags<'f>> {
    let mut wanted = Specification::default();
    let (mut zero, mut left) = (false, false);
    let mut rest = format;
    loop {
        match rest.bytes().next() {
            Some(b'-') => left = true,
            Some(b'0') => zero = true,
            Some(b'#') => wanted.alternate = true,
            Some(b'+') => wanted.sign = Some('+'),
            Some(b' ') => wanted.sign = wanted.sign.or(Some(' ')),
            _ => break,
        }
        rest = &rest[1..];
    }
    let mut number = |rest: &mut &'f str| -> Outcome<Option<i128>> {
        if let Some(after) = rest.strip_prefix('*') {
            *rest = after;
            return match source.next()?.as_int() {
                Some(number) => Ok(Some(number)),
                None => fail("* wants a whole number"),
            };
        }
        let end = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let (digits, after) = rest.split_at(end);
        *rest = after;
        Ok(digits.parse().ok())
    };
    let width = number(&mut rest)?.unwrap_or(0);
    left |= width < 0;
    wanted.width = usize::try_from(width.unsigned_abs()).unwrap_or(usize::MAX);
    if let Some(after) = rest.strip_prefix('.') {
        rest = after;
        let precision = number(&mut rest)?.unwrap_or(0).max(0);
        wanted.precision = Some(usize::try_from(precision).unwrap_or(usize::MAX));
    }
    if wanted.width > 100_000
        || wanted
            .precision
            .is_some_and(|precision| precision > 100_000)
    {
        return fail("a width is too large");
    }
    let rest = rest.strip_prefix(['h', 'l', 'L']).unwrap_or(rest);
    Ok((wanted, zero, left, rest))
}

fn converted(
    kind: char,
    value: &Value,
    mut wanted: Specification,
    zero: bool,
    left: bool,
) -> Outcome<String> {
    wanted.align = left.then_some('<');
    let cut = |text: String| -> String {
        let most = wanted.precision.unwrap_or(usize::MAX);
        text.chars().take(most).collect()
    };
    let text = match kind {
        's' => cut(to_text(value)?.into_owned()),
        'r' => cut(repr::repr(value)?),
        'a' => cut(ascii(&repr::repr(value)?)),
        'c' => match (value.as_int(), value.as_text()) {
            (Some(code), _) => match u32::try_from(code).ok().and_then(char::from_u32) {
                Some(c) => c.to_string(),
                None => return fail("there is no character of this number"),
            },
            (_, Some(text)) if text.chars().count() == 1 => text.to_owned(),
            _ => return fail("%c takes a number or one character"),
        },
        'd' | 'i' | 'u' | 'x' | 'X' | 'o' => {
            let number = match value {
                Value::Float(number) if matches!(kind, 'd' | 'i' | 'u') => {
                    if !number.is_finite() {
                        return fail("%d takes a finite number");
                    }
                    Some(number.trunc() as i128)
                }
                other => other.as_int(),
            };
            let Some(number) = number else {
                return fail(format!("%{kind} takes a number, found {}", value.kind()));
            };
            let size = number.unsigned_abs();
            let (base, digits) = match kind {
                'x' => ("0x", format!("{size:x}")),
                'X' => ("0X", format!("{size:X}")),
                'o' => ("0o", format!("{size:o}")),
                _ => ("", size.to_string()),
            };
            let least = wanted.precision.unwrap_or(0);
            let digits = format!("{}{digits}", "0".repeat(least.saturating_sub(digits.len())));
            let sign = match wanted.sign {
                _ if number < 0 => "-",
                Some('+') => "+",
                Some(_) => " ",
                None => "",
            };
            let base = if wanted.alternate { base } else { "" };
            if zero && !left {
                wanted.fill = Some('0');
                wanted.align = Some('=');
            }
            return Ok(wanted.number(&format!("{sign}{base}"), &digits));
        }
        'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
            let Some(number) = value.as_float() else {
                return fail(format!("%{kind} takes a number, found {}", value.kind()));
            };
            if zero && !left {
                wanted.fill = Some('0');
                wanted.align = Some('=');
            }
            wanted.kind = Some(kind);
            return wanted.float(number);
        }
        other => return fail(format!("there is no format %{other}")),
    };
    Ok(wanted.pad(&text, '>'))
}
