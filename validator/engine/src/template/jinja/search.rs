//! Methods of texts that search and cut them.

use super::{
    error::{Outcome, fail},
    signature::{Bound, Given},
    text::is_space,
    value::Value,
};

pub(super) fn partition(
    text: &str,
    separator: &str,
    last: bool,
    made: impl Fn(String) -> Value,
) -> Outcome<Value> {
    if separator.is_empty() {
        return fail("empty separator");
    }
    let found = if last {
        text.rsplit_once(separator)
    } else {
        text.split_once(separator)
    };
    let parts = match found {
        Some((before, after)) => [before, separator, after],
        None if last => ["", "", text],
        None => [text, "", ""],
    };
    Value::tuple(parts.map(|part| made(part.to_owned())).into())
}

pub(super) fn split<'a>(
    text: &'a str,
    separator: Option<&str>,
    most: usize,
    last: bool,
) -> Vec<&'a str> {
    let mut parts: Vec<&str> = match (separator, last) {
        (Some(separator), false) => return text.splitn(most + 1, separator).collect(),
        (Some(separator), true) => text.rsplitn(most + 1, separator).collect(),
        (None, false) => {
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
            return parts;
        }
        (None, true) => {
            let mut parts = Vec::new();
            let mut rest = text.trim_end_matches(is_space);
            while !rest.is_empty() && parts.len() < most {
                let part = rest.rsplit(is_space).next().unwrap_or(rest);
                parts.push(part);
                rest = rest[..rest.len() - part.len()].trim_end_matches(is_space);
            }
            if !rest.is_empty() {
                parts.push(rest);
            }
            parts
        }
    };
    parts.reverse();
    parts
}

/// The part of a text between two places, in characters; `None` if they are the wrong way round.
fn window(text: &str, bound: &mut Bound) -> Outcome<Option<(usize, String)>> {
    let count = text.chars().count() as i128;
    let clamp = |at: i128| (if at < 0 { at + count } else { at }).max(0);
    let mut place = |place: usize, default: i128| match bound.take(place) {
        None | Some(Value::None) => Ok(default),
        Some(value) => match value.as_int() {
            Some(at) => Ok(clamp(at)),
            None => fail("a place must be a whole number"),
        },
    };
    let (start, end) = (place(1, 0)?, place(2, count)?.min(count));
    if start > end {
        return Ok(None);
    }
    let part = text
        .chars()
        .skip(start as usize)
        .take((end - start) as usize);
    Ok(Some((start as usize, part.collect())))
}

pub(super) fn affix(text: &str, at_start: bool, given: Given) -> Outcome<Value> {
    let mut bound = Bound::new(&["affix", "start", "end"], given)?;
    let affixes = match bound.value(0)? {
        Value::Tuple(items) => items.values.clone(),
        other => vec![other],
    };
    let part = window(text, &mut bound)?;
    for affix in affixes {
        let Some(affix) = affix.as_text() else {
            return fail("startswith and endswith take texts");
        };
        let fits = part.as_ref().is_some_and(|(_, part)| {
            if at_start {
                part.starts_with(affix)
            } else {
                part.ends_with(affix)
            }
        });
        if fits {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

pub(super) fn find(text: &str, name: &str, given: Given) -> Outcome<Value> {
    let mut bound = Bound::new(&["sub", "start", "end"], given)?;
    let wanted = bound.text(0)?;
    let part = window(text, &mut bound)?;
    if name == "count" {
        return Ok(Value::int(part.map_or(0, |(_, part)| {
            if wanted.is_empty() {
                part.chars().count() + 1
            } else {
                part.matches(&*wanted).count()
            }
        })));
    }
    let found = part.and_then(|(start, part)| {
        let bytes = if name.starts_with('r') {
            part.rfind(&*wanted)
        } else {
            part.find(&*wanted)
        }?;
        Some(start + part[..bytes].chars().count())
    });
    match found {
        Some(place) => Ok(Value::int(place)),
        None if name.ends_with("index") => fail("substring not found"),
        None => Ok(Value::Int(-1)),
    }
}
