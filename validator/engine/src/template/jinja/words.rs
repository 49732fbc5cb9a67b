//! Filters on texts.

use std::fmt::Write;

use super::{
    error::{Outcome, fail},
    operators::soft_text,
    repr::to_text,
    run::Run,
    signature::{Bound, Given},
    text::{
        capitalize, centered, decimal, escape_html, is_space, is_word, pad, split_lines, strip,
    },
    value::{Text, Value},
};

impl Run<'_> {
    pub(super) fn word_filter(&mut self, name: &str, of: &Value, given: Given) -> Outcome<Value> {
        if name == "filesizeformat" {
            let binary = Bound::new(&["binary"], given)?.flag(0, false);
            return file_size(of, binary).map(Value::text);
        }
        if name == "urlencode" {
            Bound::new(&[], given)?;
            return url_encode(of).map(Value::text);
        }
        if name == "xmlattr" {
            let space = Bound::new(&["autospace"], given)?.flag(0, true);
            return xml_attributes(of, space);
        }
        let soft = soft_text(of)?;
        let text = &*soft.text;
        self.make(text.len())?;
        let made = |text: String| {
            Value::Text(Text {
                text: text.into(),
                safe: soft.safe,
            })
        };
        match name {
            "capitalize" | "lower" | "title" | "upper" | "striptags" | "wordcount" => {
                Bound::new(&[], given)?;
                Ok(match name {
                    "capitalize" => made(capitalize(text)),
                    "lower" => made(text.to_lowercase()),
                    "upper" => made(text.to_uppercase()),
                    "title" => made(title(text)),
                    "striptags" => Value::text(strip_tags(text)),
                    _ => {
                        let words = text.split(|c: char| !is_word(c));
                        Value::int(words.filter(|word| !word.is_empty()).count())
                    }
                })
            }
            "center" => {
                let width = Bound::new(&["width"], given)?.size(0, 80)?;
                self.make(width)?;
                Ok(made(pad(text, width, ' ', centered)))
            }
            "trim" => {
                let chars = Bound::new(&["chars"], given)?.text_or_none(0)?;
                Ok(made(strip(text, chars.as_deref(), true, true).to_owned()))
            }
            "replace" => {
                let mut bound = Bound::new(&["old", "new", "count"], given)?;
                let (old, new) = (bound.any_text(0, "")?, bound.any_text(1, "")?);
                let count = match bound.take(2) {
                    None | Some(Value::None) => -1,
                    Some(count) => match count.as_int() {
                        Some(count) => count,
                        None => return fail("count must be a whole number"),
                    },
                };
                let count = usize::try_from(count).unwrap_or(usize::MAX);
                self.replace(text, &old, &new, count).map(Value::text)
            }
            "truncate" => {
                if !matches!(of, Value::Text(_)) {
                    return fail("truncate takes a text");
                }
                truncate(text, given).map(made)
            }
            "indent" => {
                let mut bound = Bound::new(&["width", "first", "blank"], given)?;
                let space = match bound.take(0) {
                    Some(Value::Text(space)) => space.text.to_string(),
                    Some(width) => match width.as_int() {
                        Some(width) if width <= 1000 => " ".repeat(width.max(0) as usize),
                        _ => return fail("indent is too large"),
                    },
                    None => "    ".into(),
                };
                let (first, blank) = (bound.flag(1, false), bound.flag(2, false));
                self.make((1 + text.matches('\n').count()).saturating_mul(space.len()))?;
                Ok(made(indent(text, &space, first, blank)))
            }
            _ => self.wrap_words(text, given),
        }
    }

    fn wrap_words(&mut self, text: &str, given: Given) -> Outcome<Value> {
        let parameters = [
            "width",
            "break_long_words",
            "wrapstring",
            "break_on_hyphens",
        ];
        let mut bound = Bound::new(&parameters, given)?;
        let width = bound.size(0, 79)?;
        let (long, joined) = (bound.flag(1, true), bound.text_or_none(2)?);
        let hyphens = bound.flag(3, true);
        if width == 0 {
            return fail("width must be more than 0");
        }
        let joined = joined.unwrap_or_else(|| "\n".into());
        self.make(text.len().saturating_mul(joined.len()))?;
        let lines = split_lines(text, false).into_iter();
        let wrapped = lines.map(|line| wrap(line, width, long, hyphens).join(&joined));
        Ok(Value::text(wrapped.collect::<Vec<_>>().join(&joined)))
    }
}

/// Jinja's own title case: only what follows a space, a dash or an opening bracket is large.
fn title(text: &str) -> String {
    let opens = |c: char| is_space(c) || matches!(c, '-' | '(' | '{' | '[' | '<');
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_opening = opens(first);
        let end = rest.find(|c| opens(c) != is_opening).unwrap_or(rest.len());
        let (part, after) = rest.split_at(end);
        let mut chars = part.chars();
        if let Some(first) = chars.next() {
            out.extend(first.to_uppercase());
            out.push_str(&chars.as_str().to_lowercase());
        }
        rest = after;
    }
    out
}

fn truncate(text: &str, given: Given) -> Outcome<String> {
    let mut bound = Bound::new(&["length", "killwords", "end", "leeway"], given)?;
    let length = bound.size(0, 255)?;
    let killwords = bound.flag(1, false);
    let end = bound.any_text(2, "...")?;
    let leeway = match bound.take(3) {
        None | Some(Value::None) => 5,
        Some(leeway) => match leeway.as_int().map(usize::try_from) {
            Some(Ok(leeway)) => leeway,
            _ => return fail("leeway must be a whole number of at least 0"),
        },
    };
    let Some(kept) = length.checked_sub(end.chars().count()) else {
        return fail("length must be at least that of the end");
    };
    if text.chars().count() <= length.saturating_add(leeway) {
        return Ok(text.to_owned());
    }
    let kept: String = text.chars().take(kept).collect();
    if killwords {
        return Ok(kept + &end);
    }
    let words = kept.rsplit_once(' ').map_or(&*kept, |(words, _)| words);
    Ok(words.to_owned() + &end)
}

/// Moves every line but the first (and empty ones) to the right.
fn indent(text: &str, space: &str, first: bool, blank: bool) -> String {
    let text = text.to_owned() + "\n";
    let lines = split_lines(&text, false);
    let moved = lines.iter().enumerate().map(|(index, line)| {
        let moves = if index == 0 {
            first
        } else {
            blank || !line.is_empty()
        };
        format!("{}{line}", if moves { space } else { "" })
    });
    moved.collect::<Vec<_>>().join("\n")
}

/// `textwrap.wrap`, with white space kept as it is.
fn wrap(line: &str, width: usize, break_long: bool, hyphens: bool) -> Vec<String> {
    let ascii_space = |c: char| matches!(c, '\t' | '\n' | '\x0b' | '\x0c' | '\r' | ' ');
    let mut chunks: Vec<String> = Vec::new();
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let space = ascii_space(first);
        let end = rest.find(|c| ascii_space(c) != space).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if hyphens && !space {
            chunks.extend(split_hyphens(word));
        } else {
            chunks.push(word.to_owned());
        }
        rest = after;
    }
    chunks.reverse();
    let is_blank = |chunk: &String| chunk.chars().all(is_space);
    let mut lines = Vec::new();
    while let Some(next) = chunks.last() {
        if is_blank(next) && !lines.is_empty() {
            chunks.pop();
        }
        let (mut current, mut length): (Vec<String>, usize) = (Vec::new(), 0);
        while let Some(chunk) = chunks.pop_if(|chunk| length + chunk.chars().count() <= width) {
            length += chunk.chars().count();
            current.push(chunk);
        }
        if let Some(long) = chunks
            .last_mut()
            .filter(|chunk| chunk.chars().count() > width)
        {
            // None after a full line: then not even a blank at its end goes.
            let room = width - length;
            if break_long {
                let at = long
                    .char_indices()
                    .nth(room)
                    .map_or(long.len(), |(at, _)| at);
                let before = long[..at].rfind('-').filter(|&at| hyphens && at > 0);
                let before = before.filter(|&at| long[..at].contains(|c| c != '-'));
                let at = before.map_or(at, |at| at + 1);
                let later = long.split_off(at);
                current.push(std::mem::replace(long, later));
            } else if current.is_empty() {
                current.extend(chunks.pop());
            }
        }
        current.pop_if(|chunk| is_blank(chunk));
        if !current.is_empty() {
            lines.push(current.concat());
        }
    }
    lines
}

/// Cuts a word after hyphens between letters.
fn split_hyphens(word: &str) -> Vec<String> {
    let chars: Vec<char> = word.chars().collect();
    let letter = |at: usize| {
        chars
            .get(at)
            .is_some_and(|c| is_word(*c) && decimal(*c).is_none())
    };
    let word_at = |at: usize| chars.get(at).is_some_and(|c| is_word(*c));
    let (mut parts, mut start) = (Vec::new(), 0);
    for at in 2..chars.len() {
        let breaks = chars[at] == '-'
            && letter(at - 1)
            && word_at(at - 2)
            && at - start >= 2
            && word_at(at + 1)
            && letter(at + 2);
        if breaks {
            parts.push(chars[start..=at].iter().collect());
            start = at + 1;
        }
    }
    parts.push(chars[start..].iter().collect());
    parts
}

fn strip_tags(text: &str) -> String {
    let mut kept = String::new();
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        let tag = &rest[start..];
        let end = match tag.strip_prefix("<!--") {
            Some(comment) => comment.find("-->").map(|end| end + 7),
            None => tag.find('>').map(|end| end + 1),
        };
        let Some(end) = end else { break };
        kept.push_str(&rest[..start]);
        rest = &tag[end..];
    }
    kept.push_str(rest);
    let words: Vec<&str> = kept
        .split(is_space)
        .filter(|word| !word.is_empty())
        .collect();
    unescape(&words.join(" "))
}

/// Resolves the character references that templates meet.
fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let known = [
            ("&amp;", "&"),
            ("&lt;", "<"),
            ("&gt;", ">"),
            ("&quot;", "\""),
            ("&#39;", "'"),
            ("&#34;", "\""),
            ("&nbsp;", "\u{a0}"),
            ("&apos;", "'"),
            ("&raquo;", "\u{bb}"),
        ];
        let found = known.into_iter().find(|(name, _)| rest.starts_with(name));
        let (used, text) = found.map_or((1, "&"), |(name, text)| (name.len(), text));
        out.push_str(text);
        rest = &rest[used..];
    }
    out + rest
}

fn percent_encode(text: &str, keep_slash: bool, plus: bool) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => {
                out.push(char::from(byte));
            }
            b'/' if keep_slash => out.push('/'),
            b' ' if plus => out.push('+'),
            byte => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

fn url_encode(of: &Value) -> Outcome<String> {
    let pairs = match of {
        Value::Dict(dict) => dict.pairs.clone(),
        Value::List(_) | Value::Tuple(_) | Value::Generator(_) | Value::DictView(..) => {
            let mut pairs = Vec::new();
            for pair in of.iterate()? {
                match <[Value; 2]>::try_from(pair.iterate()?) {
                    Ok([key, value]) => pairs.push((key, value)),
                    Err(_) => return fail("urlencode takes pairs"),
                }
            }
            pairs
        }
        other => return Ok(percent_encode(&to_text(other)?, true, false)),
    };
    let encoded = pairs.iter().map(|(key, value)| {
        let [key, value] =
            [to_text(key)?, to_text(value)?].map(|text| percent_encode(&text, false, true));
        Ok(format!("{key}={value}"))
    });
    Ok(encoded.collect::<Outcome<Vec<_>>>()?.join("&"))
}

fn xml_attributes(of: &Value, space: bool) -> Outcome<Value> {
    let Value::Dict(dict) = of else {
        return fail("xmlattr takes a dict");
    };
    let mut parts = Vec::new();
    for (key, value) in &dict.pairs {
        if matches!(value, Value::None | Value::Undefined(_)) {
            continue;
        }
        let key = to_text(key)?;
        if key.contains(|c: char| is_space(c) || matches!(c, '/' | '>' | '=')) {
            return fail("the name of an attribute is malformed");
        }
        let text = soft_text(value)?;
        let value = if text.safe {
            text.text.to_string()
        } else {
            escape_html(&text.text)
        };
        parts.push(format!("{}=\"{value}\"", escape_html(&key)));
    }
    let joined = parts.join(" ");
    let joined = if space && !joined.is_empty() {
        format!(" {joined}")
    } else {
        joined
    };
    Ok(Value::text(joined))
}

fn file_size(of: &Value, binary: bool) -> Outcome<String> {
    let bytes = match of {
        Value::Text(text) => text.text.trim().parse().ok(),
        other => other.as_float(),
    };
    let Some(bytes) = bytes else {
        return fail("a size must be a number");
    };
    let base: f64 = if binary { 1024.0 } else { 1000.0 };
    if (1.0..=1.0).contains(&bytes) {
        return Ok("1 Byte".into());
    }
    if bytes < base {
        return Ok(format!("{} Bytes", bytes.trunc()));
    }
    let prefixes = ["k", "M", "G", "T", "P", "E", "Z", "Y"];
    let place = (0..7).find(|&i| bytes < base.powi(i + 2)).unwrap_or(7);
    let prefix = prefixes[place as usize];
    let name = match (binary, prefix) {
        (true, "k") => "KiB".to_owned(),
        (true, prefix) => format!("{prefix}iB"),
        (false, prefix) => format!("{prefix}B"),
    };
    Ok(format!("{:.1} {name}", base * bytes / base.powi(place + 2)))
}
