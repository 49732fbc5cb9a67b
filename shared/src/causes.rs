//! An error and its causes, as texts.

use std::error::Error;

/// Returns the texts of an error and of its causes, the outermost first. Libraries often repeat the
/// inner error in the text of the outer one: what was said before is left out.
pub fn texts(error: &dyn Error) -> Vec<String> {
    let mut texts = vec![plain(&error.to_string())];
    let mut source = error.source();
    while let Some(cause) = source {
        let text = plain(&cause.to_string());
        if !texts.iter().any(|said| said.contains(&text)) {
            texts.push(text);
        }
        source = cause.source();
    }
    texts
}

/// Returns an error and its causes in one line.
pub fn one_line(error: &dyn Error) -> String {
    texts(error).join(": ")
}

/// What libraries say, and what that means to somebody who reads no Rust.
const WORDS: [(&str, &str); 44] = [
    // serde_json
    (
        "expected ident",
        "a word is broken off: true, false and null are all there are",
    ),
    (
        "EOF while parsing a value",
        "it ends where a value should begin",
    ),
    ("EOF while parsing", "it ends in the middle of"),
    // serde
    ("invalid type: ", "found "),
    ("invalid value: ", "found "),
    ("invalid length ", "found the length "),
    ("unknown field ", "unknown key "),
    ("missing field ", "missing key "),
    ("unknown variant ", "unknown value "),
    (", there are no fields", ", there are no keys"),
    ("floating point `", "number `"),
    ("integer `", "number `"),
    ("boolean `", "`"),
    ("string \"", "text \""),
    ("found sequence", "found a list"),
    ("found map", "found a table"),
    ("expected a borrowed string", "expected a text"),
    ("expected a string", "expected a text"),
    ("expected a sequence", "expected a list"),
    ("expected a map", "expected a table"),
    ("expected a boolean", "expected true or false"),
    ("expected i64", "expected a whole number"),
    ("expected u64", "expected a whole number"),
    ("expected usize", "expected a whole number"),
    ("expected u32", "expected a whole number up to 4294967295"),
    ("expected u16", "expected a whole number up to 65535"),
    ("expected u8", "expected a whole number up to 255"),
    ("expected f64", "expected a number"),
    ("expected f32", "expected a number"),
    // toml
    ("TOML parse error at line ", "line "),
    (
        "string values must be quoted, expected literal string",
        "a value is a number, true, false, or a text in quotes",
    ),
    (
        "invalid boolean, expected `true`",
        "a value is a number, true, false, or a text in quotes",
    ),
    (
        "invalid boolean, expected `false`",
        "a value is a number, true, false, or a text in quotes",
    ),
    (
        "unexpected key or value, expected newline, `#`",
        "a line holds one key and its value",
    ),
    (
        "missing escaped value, expected",
        "what follows \\ is none of",
    ),
    (", expected nothing", ""),
    (
        "key with no value, expected `=`",
        "a key is followed by `=` and its value",
    ),
    ("invalid basic string", "a text has no end"),
    ("invalid literal string", "a text has no end"),
    ("unquoted keys cannot be empty", "a key is missing"),
    ("invalid key-value pair, expected key", "a key is missing"),
    ("invalid unquoted key", "a key without quotes"),
    ("radix must be lowercase", "what follows 0 is written small"),
    (
        "cannot recurse further; max recursion depth met",
        "there are too many levels",
    ),
];

/// The beginnings of what serde says of a value that has another form, a type's name follows; and what it means.
const TYPES: [(&str, &str); 3] = [
    (
        "data did not match any variant of untagged enum ",
        "the value has none of the forms that are understood",
    ),
    ("expected struct ", "expected a table"),
    ("expected internally tagged enum ", "expected a table"),
];

/// Returns a text without the words of libraries.
pub fn plain(text: &str) -> String {
    let mut text = WORDS.iter().fold(text.to_owned(), |text, (theirs, ours)| {
        text.replace(theirs, ours)
    });
    for (theirs, ours) in TYPES {
        while let Some(at) = text.find(theirs) {
            let name = &text[at + theirs.len()..];
            let end = name
                .find(|c: char| !c.is_alphanumeric())
                .unwrap_or(name.len());
            text.replace_range(at..at + theirs.len() + end, ours);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_words_of_libraries_reach_people() {
        let of = |error: serde_json::Error| plain(&error.to_string());
        let broken = serde_json::from_str::<serde_json::Value>("nul").unwrap_err();
        assert_eq!(
            of(broken),
            "it ends where a value should begin at line 1 column 3"
        );
        let ident = serde_json::from_str::<serde_json::Value>("nulx").unwrap_err();
        assert!(of(ident).starts_with("a word is broken off"));
        let wrong = serde_json::from_str::<u64>("\"x\"").unwrap_err();
        assert_eq!(
            of(wrong),
            "found text \"x\", expected a whole number at line 1 column 3"
        );
        let text = "x: data did not match any variant of untagged enum Epsilon, twice";
        assert_eq!(
            plain(text),
            "x: the value has none of the forms that are understood, twice"
        );
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "it is read only")]
    struct Settings {
        netuid: u16,
        on: Option<bool>,
        inner: Option<Box<Self>>,
        many: Option<Vec<f64>>,
        kind: Option<std::net::IpAddr>,
    }

    #[test]
    fn mistakes_in_a_settings_file_are_told_in_words_of_people() {
        let of = |text: &str| {
            let error = toml::from_str::<Settings>(text).unwrap_err();
            let said = plain(&error.to_string());
            assert!(said.starts_with("line 1, column "), "{said}");
            said.trim_end().rsplit('\n').next().unwrap().to_owned()
        };
        let mistakes = [
            "netuid = tru",
            "netuid = x",
            "netuid",
            "netuid = ",
            "= 1",
            "netuid = \"x\"",
            "netuid = 0.5",
            "netuid = -1",
            "netuid = 70000",
            "netuid = 1, on = true",
            "netuid = 01",
            "netuid = 0X1",
            "netuid = 1_",
            "netuid = 1 netuid = 2",
            "[netuid]",
            "[netuid",
            "inner = 1",
            "inner = { netuid = 1",
            "inner = { netuid = 1 ",
            "on = 1",
            "many = 1",
            "many = [\"x\"]",
            "many = [1",
            "many = { a = 1 }",
            "kind = true",
            "other = 1",
            "{}",
            "a = 'x",
            "a = \"x",
            "a = \"\\q\"",
            "on = true",
            "a b = 1",
            "ä = 1",
        ];
        let said: Vec<String> = mistakes
            .iter()
            .map(|text| format!("{text:<24} {}", of(text)))
            .collect();
        insta::assert_snapshot!(said.join("\n"), @r##"
        netuid = tru             a value is a number, true, false, or a text in quotes
        netuid = x               a value is a number, true, false, or a text in quotes
        netuid                   a key is followed by `=` and its value
        netuid =                 a value is a number, true, false, or a text in quotes
        = 1                      a key is missing, expected letters, numbers, `-`, `_`
        netuid = "x"             found text "x", expected a whole number up to 65535
        netuid = 0.5             found number `0.5`, expected a whole number up to 65535
        netuid = -1              found number `-1`, expected a whole number up to 65535
        netuid = 70000           found number `70000`, expected a whole number up to 65535
        netuid = 1, on = true    a line holds one key and its value
        netuid = 01              unexpected leading zero
        netuid = 0X1             what follows 0 is written small, expected `0x`
        netuid = 1_              `_` may only go between digits
        netuid = 1 netuid = 2    a line holds one key and its value
        [netuid]                 found a table, expected a whole number up to 65535
        [netuid                  unclosed table, expected `]`
        inner = 1                found number `1`, expected a table
        inner = { netuid = 1     unclosed inline table, expected `}`
        inner = { netuid = 1     unclosed inline table, expected `}`
        on = 1                   found number `1`, expected true or false
        many = 1                 found number `1`, expected a list
        many = ["x"]             found text "x", expected a number
        many = [1                unclosed array, expected `]`
        many = { a = 1 }         found a table, expected a list
        kind = true              found `true`, expected IP address
        other = 1                unknown key `other`, expected one of `netuid`, `on`, `inner`, `many`, `kind`
        {}                       a key is missing
        a = 'x                   a text has no end, expected `'`
        a = "x                   a text has no end, expected `"`
        a = "\q"                 what follows \ is none of `b`, `e`, `f`, `n`, `r`, `\`, `"`, `x`, `u`, `U`
        on = true                missing key `netuid`
        a b = 1                  a key is followed by `=` and its value
        ä = 1                    a key without quotes, expected letters, numbers, `-`, `_`
        "##);
    }

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Link {
        text: &'static str,
        source: Option<Box<Self>>,
    }

    #[test]
    fn every_cause_is_told_once() {
        let chain = ["could not read x: disk full", "disk full", "error 28"];
        let error = chain
            .into_iter()
            .rev()
            .fold(None, |source, text| Some(Box::new(Link { text, source })));
        let error = error.unwrap();
        assert_eq!(one_line(&*error), "could not read x: disk full: error 28");
    }
}
