//! Python's `str`, `list` and `dict` methods, as chat templates call them.

use minijinja::{
    Error, ErrorKind, State,
    value::{Value, ValueKind, from_args},
};

use super::{invalid, is_space, split_lines, strip};

/// Calls a Python method of a value.
pub(crate) fn call_method(
    _: &State<'_, '_>,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::String => string_method(value.as_str().unwrap_or_default(), method, args),
        ValueKind::Map => map_method(value, method, args),
        ValueKind::Seq => sequence_method(value, method, args),
        _ => Err(unknown(method)),
    }
}

fn unknown(method: &str) -> Error {
    Error::new(
        ErrorKind::UnknownMethod,
        format!("no method named {method}"),
    )
}

fn string_method(text: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    if let Some(answer) = string_test(text, method, args) {
        return answer;
    }
    let value = match method {
        "strip" | "lstrip" | "rstrip" => {
            let (chars,): (Option<&str>,) = from_args(args)?;
            strip(text, chars, method != "rstrip", method != "lstrip").into()
        }
        "upper" => no_args(args, text.to_uppercase())?,
        "lower" | "casefold" => no_args(args, text.to_lowercase())?,
        "title" => no_args(args, title(text))?,
        "capitalize" => no_args(args, capitalize(text))?,
        "replace" => {
            let (old, new, count): (&str, &str, Option<i64>) = from_args(args)?;
            match count.and_then(|count| usize::try_from(count).ok()) {
                Some(count) => text.replacen(old, new, count),
                None => text.replace(old, new),
            }
            .into()
        }
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            text.strip_prefix(prefix).unwrap_or(text).into()
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            text.strip_suffix(suffix).unwrap_or(text).into()
        }
        "split" => split(text, args)?.into_iter().collect(),
        "rsplit" => rsplit(text, args)?.into_iter().collect(),
        "splitlines" => {
            let (keep_ends,): (Option<bool>,) = from_args(args)?;
            split_lines(text, keep_ends.unwrap_or(false))
                .into_iter()
                .collect()
        }
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            let last = method == "rpartition";
            match if last {
                text.rsplit_once(separator)
            } else {
                text.split_once(separator)
            } {
                Some((before, after)) => [before, separator, after],
                None if last => ["", "", text],
                None => [text, "", ""],
            }
            .into_iter()
            .collect()
        }
        "join" => {
            let (items,): (Value,) = from_args(args)?;
            let items = items.try_iter()?.map(|item| match item.as_str() {
                Some(item) => Ok(item.to_owned()),
                None => Err(invalid("join() takes strings only")),
            });
            items.collect::<Result<Vec<_>, _>>()?.join(text).into()
        }
        "find" | "rfind" | "index" | "rindex" => {
            let (needle,): (&str,) = from_args(args)?;
            let backwards = method.starts_with('r');
            let found = if backwards {
                text.rfind(needle)
            } else {
                text.find(needle)
            };
            match found {
                Some(bytes) => text[..bytes].chars().count().into(),
                None if method.ends_with("index") => return Err(invalid("substring not found")),
                None => Value::from(-1),
            }
        }
        "count" => {
            let (needle,): (&str,) = from_args(args)?;
            text.matches(needle).count().into()
        }
        "zfill" => {
            let (width,): (usize,) = from_args(args)?;
            zfill(text, width.min(1000)).into()
        }
        _ => return Err(unknown(method)),
    };
    Ok(value)
}

/// The methods that answer yes or no.
fn string_test(text: &str, method: &str, args: &[Value]) -> Option<Result<Value, Error>> {
    let all = |test: fn(char) -> bool| !text.is_empty() && text.chars().all(test);
    let cased = |wanted: fn(char) -> bool, other: fn(char) -> bool| {
        text.chars().any(wanted) && !text.chars().any(other)
    };
    let answer = match method {
        "startswith" | "endswith" => return Some(has_affix(text, method == "startswith", args)),
        "isspace" => all(is_space),
        "isdigit" | "isdecimal" | "isnumeric" => all(char::is_numeric),
        "isalpha" => all(char::is_alphabetic),
        "isalnum" => all(char::is_alphanumeric),
        "isupper" => cased(char::is_uppercase, char::is_lowercase),
        "islower" => cased(char::is_lowercase, char::is_uppercase),
        _ => return None,
    };
    Some(no_args(args, answer))
}

fn no_args(args: &[Value], answer: impl Into<Value>) -> Result<Value, Error> {
    from_args::<()>(args).map(|()| answer.into())
}

fn has_affix(text: &str, at_start: bool, args: &[Value]) -> Result<Value, Error> {
    let (affix,): (&Value,) = from_args(args)?;
    let fits = |affix: &Value| match affix.as_str() {
        Some(affix) if at_start => Ok(text.starts_with(affix)),
        Some(affix) => Ok(text.ends_with(affix)),
        None => Err(invalid("startswith() and endswith() take strings")),
    };
    if affix.kind() != ValueKind::Seq {
        return Ok(fits(affix)?.into());
    }
    for affix in affix.try_iter()? {
        if fits(&affix)? {
            return Ok(true.into());
        }
    }
    Ok(false.into())
}

fn title(text: &str) -> String {
    let mut after_letter = false;
    let mut title = String::with_capacity(text.len());
    for c in text.chars() {
        if after_letter {
            title.extend(c.to_lowercase());
        } else {
            title.push_str(&title_case(c));
        }
        after_letter = c.is_alphabetic();
    }
    title
}

fn capitalize(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(title_case).unwrap_or_default();
    first + &chars.as_str().to_lowercase()
}

/// Of a letter that becomes several, only the first is large.
fn title_case(c: char) -> String {
    let mut upper = c.to_uppercase();
    upper
        .next()
        .into_iter()
        .chain(upper.flat_map(char::to_lowercase))
        .collect()
}

fn zfill(text: &str, width: usize) -> String {
    let (sign, digits) = match text.strip_prefix(['-', '+']) {
        Some(digits) => text.split_at(text.len() - digits.len()),
        None => ("", text),
    };
    let missing = width.saturating_sub(text.chars().count());
    format!("{sign}{}{digits}", "0".repeat(missing))
}

/// Returns the separator (`None`: runs of white space) and the most splits to make.
fn split_args(args: &[Value]) -> Result<(Option<&str>, usize), Error> {
    let (separator, most): (Option<&str>, Option<i64>) = from_args(args)?;
    if separator == Some("") {
        return Err(invalid("empty separator"));
    }
    let most = most.and_then(|most| usize::try_from(most).ok());
    Ok((separator, most.unwrap_or(usize::MAX - 1)))
}

fn split<'a>(text: &'a str, args: &[Value]) -> Result<Vec<&'a str>, Error> {
    let (separator, most) = split_args(args)?;
    if let Some(separator) = separator {
        return Ok(text.splitn(most + 1, separator).collect());
    }
    let mut parts = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while !rest.is_empty() && parts.len() < most {
        let (part, after) = rest.split_at(rest.find(is_space).unwrap_or(rest.len()));
        parts.push(part);
        rest = after.trim_start_matches(is_space);
    }
    if !rest.is_empty() {
        parts.push(rest);
    }
    Ok(parts)
}

fn rsplit<'a>(text: &'a str, args: &[Value]) -> Result<Vec<&'a str>, Error> {
    let (separator, most) = split_args(args)?;
    let mut parts: Vec<&str> = Vec::new();
    if let Some(separator) = separator {
        parts.extend(text.rsplitn(most + 1, separator));
    } else {
        let mut rest = text.trim_end_matches(is_space);
        while !rest.is_empty() && parts.len() < most {
            let part = rest.rsplit(is_space).next().unwrap_or(rest);
            parts.push(part);
            rest = rest[..rest.len() - part.len()].trim_end_matches(is_space);
        }
        if !rest.is_empty() {
            parts.push(rest);
        }
    }
    parts.reverse();
    Ok(parts)
}

fn map_method(map: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    match method {
        "get" => {
            let (key, default): (&Value, Option<Value>) = from_args(args)?;
            let found = map.get_item(key)?;
            let default = || default.unwrap_or_else(|| Value::from(()));
            Ok(if found.is_undefined() {
                default()
            } else {
                found
            })
        }
        "keys" => no_args(args, map.try_iter()?.collect::<Value>()),
        "values" => {
            let values = map.try_iter()?.map(|key| map.get_item(&key));
            no_args(args, values.collect::<Result<Vec<_>, _>>()?)
        }
        "items" => {
            let pair = |key: Value| Ok(Value::from(vec![key.clone(), map.get_item(&key)?]));
            no_args(
                args,
                map.try_iter()?
                    .map(pair)
                    .collect::<Result<Vec<_>, Error>>()?,
            )
        }
        _ => Err(unknown(method)),
    }
}

fn sequence_method(sequence: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let (item,): (&Value,) = from_args(args)?;
    match method {
        "count" => Ok(sequence
            .try_iter()?
            .filter(|other| other == item)
            .count()
            .into()),
        "index" => match sequence.try_iter()?.position(|other| other == *item) {
            Some(position) => Ok(position.into()),
            None => Err(invalid("item is not in the list")),
        },
        _ => Err(unknown(method)),
    }
}
