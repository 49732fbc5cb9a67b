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
const WORDS: [(&str, &str); 9] = [
    (
        "expected ident",
        "a word is broken off: true, false and null are all there are",
    ),
    (
        "EOF while parsing a value",
        "it ends where a value should begin",
    ),
    ("EOF while parsing", "it ends in the middle of"),
    ("invalid type: ", "found "),
    ("expected a borrowed string", "expected a text"),
    ("expected u64", "expected a whole number"),
    ("expected usize", "expected a whole number"),
    ("expected u16", "expected a whole number up to 65535"),
    ("expected f64", "expected a number"),
];

/// The beginning of what serde says of a value that may have several forms; the name of a type follows.
const UNTAGGED: &str = "data did not match any variant of untagged enum ";

/// Returns a text without the words of libraries.
pub fn plain(text: &str) -> String {
    let mut text = WORDS.iter().fold(text.to_owned(), |text, (theirs, ours)| {
        text.replace(theirs, ours)
    });
    while let Some(at) = text.find(UNTAGGED) {
        let name = &text[at + UNTAGGED.len()..];
        let end = name
            .find(|c: char| !c.is_alphanumeric())
            .unwrap_or(name.len());
        let range = at..at + UNTAGGED.len() + end;
        text.replace_range(range, "the value has none of the forms that are understood");
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
            "found string \"x\", expected a whole number at line 1 column 3"
        );
        let text = "x: data did not match any variant of untagged enum Epsilon, twice";
        assert_eq!(
            plain(text),
            "x: the value has none of the forms that are understood, twice"
        );
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
