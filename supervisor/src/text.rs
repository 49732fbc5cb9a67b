//! Texts that others wrote (commit messages, compilers, remotes), made harmless where they come in.
//!
//! They are shown on terminals, written to logs and handed to hooks. What would steer a terminal or turn
//! the direction of writing is replaced as they arrive from a worker or from the journal, so that no
//! place that shows them can forget to.

use serde::{Deserialize, Deserializer};
use shared::term;

/// More than anybody reads, in characters.
const MAX: usize = 4096;

/// Returns a text in one line, without what would steer a terminal.
pub(crate) fn harmless(text: &str) -> String {
    let line = text
        .trim_end()
        .replace("\r\n", " ")
        .replace(['\n', '\t'], " ");
    term::printable(&line, MAX)
}

pub(crate) fn printable<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    String::deserialize(from).map(|text| harmless(&text))
}

pub(crate) fn maybe_printable<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<String>, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    Ok(text.map(|text| harmless(&text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_others_is_one_line_that_steers_nothing() {
        assert_eq!(harmless("one\r\ntwo\tthree\n"), "one two three");
        assert_eq!(
            harmless("fix\rACCEPTED\u{202e}\u{1b}[2J"),
            "fix\u{fffd}ACCEPTED\u{fffd}\u{fffd}[2J"
        );
    }
}
