//! Records of JSON lines or of one JSON array, taken from bytes as they come: no more than one
//! record is held beside those that are kept.

use super::{harvest::Harvest, lenient_json};
use http_client::Body;

/// The longest record read; a longer one is skipped.
const MAX_RECORD_BYTES: usize = 16 << 20;

/// Reads a text of unknown form, piece by piece.
#[derive(Debug)]
pub struct TextReader {
    harvest: Harvest,
    origin: String,
    form: TextForm,
    /// The record that is being read.
    pending: Vec<u8>,
    /// It is longer than a record may be.
    too_long: bool,
    /// Records, blank lines among them, that were passed.
    passed: usize,
}

#[derive(Debug, Clone, Copy)]
enum TextForm {
    Unknown,
    Lines,
    /// Within an array, so deep in an element of it.
    Array {
        depth: usize,
        string: InString,
    },
    AfterArray,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InString {
    No,
    Yes,
    Escaped,
}

impl TextReader {
    /// Begins a text that comes from `origin`.
    pub fn new(origin: impl Into<String>) -> Self {
        Self::onto(Harvest::default(), origin)
    }

    /// Begins a text whose records go to those of a harvest.
    pub fn onto(harvest: Harvest, origin: impl Into<String>) -> Self {
        Self {
            harvest,
            origin: origin.into(),
            form: TextForm::Unknown,
            pending: Vec::new(),
            too_long: false,
            passed: 0,
        }
    }

    /// Takes the next bytes of the text.
    pub fn push(&mut self, bytes: &[u8]) {
        let mut begin = 0;
        for (at, byte) in bytes.iter().enumerate() {
            match (self.form, byte) {
                (TextForm::Unknown, b'[') => {
                    let string = InString::No;
                    (self.form, self.passed) = (TextForm::Array { depth: 0, string }, 0);
                    begin = at + 1;
                }
                (TextForm::Unknown, byte) => {
                    begin = at;
                    if *byte == b'\n' {
                        self.passed += 1;
                        begin = at + 1;
                    } else if !byte.is_ascii_whitespace() {
                        self.form = TextForm::Lines;
                    }
                }
                (TextForm::Lines, b'\n') => {
                    self.keep(&bytes[begin..at]);
                    self.line();
                    begin = at + 1;
                }
                (
                    TextForm::Array {
                        depth: 0,
                        string: InString::No,
                    },
                    b',' | b']',
                ) => {
                    self.keep(&bytes[begin..at]);
                    self.element();
                    begin = at + 1;
                    if *byte == b']' {
                        self.form = TextForm::AfterArray;
                    }
                }
                (TextForm::Array { depth, string }, byte) => {
                    self.form = within(depth, string, *byte);
                }
                (TextForm::Lines | TextForm::AfterArray, _) => {}
            }
        }
        if !matches!(self.form, TextForm::Unknown | TextForm::AfterArray) {
            self.keep(&bytes[begin..]);
        }
    }

    /// Ends the text and returns what it brought.
    pub fn finish(mut self) -> Harvest {
        match self.form {
            TextForm::Lines => self.line(),
            TextForm::Array { .. } => {
                let problem = format!("{}: the array has no end", self.origin);
                self.harvest.note(problem);
            }
            TextForm::Unknown | TextForm::AfterArray => {}
        }
        self.harvest
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.pending.len() + bytes.len() > MAX_RECORD_BYTES {
            self.too_long = true;
            self.pending = Vec::new();
        } else if !self.too_long {
            self.pending.extend_from_slice(bytes);
        }
    }

    fn line(&mut self) {
        self.passed += 1;
        let number = self.passed;
        if self.is_too_long("line longer than 16 MiB", "line", number) {
            return;
        }
        let line = String::from_utf8_lossy(&self.pending);
        self.harvest.read_line(&line, &self.origin, number);
        self.pending.clear();
    }

    fn element(&mut self) {
        let number = self.passed;
        self.passed += 1;
        if self.is_too_long("element longer than 16 MiB", "element", number) {
            return;
        }
        let text = String::from_utf8_lossy(&self.pending);
        // As between the brackets of an empty array.
        if !text.trim().is_empty() {
            let origin = &self.origin;
            match lenient_json::parse(&text) {
                Ok(value) => self
                    .harvest
                    .read_value(&value, format!("{origin}#{number}")),
                Err(error) => {
                    self.harvest.dropped.add("malformed element");
                    let note = format_args!("{origin} element {number}: {error}");
                    self.harvest.note(note);
                }
            }
        }
        self.pending.clear();
    }

    fn is_too_long(&mut self, reason: &'static str, what: &str, number: usize) -> bool {
        let too_long = std::mem::take(&mut self.too_long);
        if too_long {
            self.pending.clear();
            self.harvest.dropped.add(reason);
            let note = format!("{} {what} {number}: longer than 16 MiB", self.origin);
            self.harvest.note(note);
        }
        too_long
    }
}

/// Returns where a byte of an array's element leads.
fn within(depth: usize, string: InString, byte: u8) -> TextForm {
    let (depth, string) = match (string, byte) {
        (InString::Yes, b'\\') => (depth, InString::Escaped),
        (InString::No, b'"') | (InString::Escaped, _) => (depth, InString::Yes),
        (InString::Yes, b'"') => (depth, InString::No),
        (InString::No, b'{' | b'[') => (depth + 1, string),
        (InString::No, b'}' | b']') => (depth.saturating_sub(1), string),
        _ => (depth, string),
    };
    TextForm::Array { depth, string }
}

impl Body for TextReader {
    fn take(&mut self, chunk: &[u8]) {
        self.push(chunk);
    }
}

/// Reads JSONL, or one JSON array, that came from `origin`.
pub fn read_text(text: &str, origin: &str) -> Harvest {
    let mut reader = TextReader::new(origin);
    reader.push(text.as_bytes());
    reader.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_bad_line_is_skipped_counted_and_named() {
        let harvest = read_text(
            "{\"prompt\":\"p\",\"response\":\"r\"}\n{oops\n\n{\"a\":1}\n",
            "f",
        );
        assert_eq!(harvest.records.len(), 1);
        assert_eq!(harvest.records[0].origin, "f#1");
        insta::assert_json_snapshot!(harvest, @r#"
        {
          "dropped": {
            "malformed line": 1,
            "no messages, conversations, instruction/output or prompt/response pair": 1
          },
          "notes": [
            "f line 2: key must be a string at line 1 column 2",
            "f#4: no messages, conversations, instruction/output or prompt/response pair"
          ]
        }
        "#);
    }

    #[test]
    fn an_array_is_read_too() {
        let harvest = read_text(" [{\"question\":\"p\",\"answer\":\"r\"}, 3]", "u");
        assert_eq!((harvest.records.len(), harvest.notes.len()), (1, 1));
    }

    fn read(pieces: &[&[u8]]) -> Harvest {
        let mut reader = TextReader::new("t");
        for piece in pieces {
            reader.push(piece);
        }
        reader.finish()
    }

    #[test]
    fn a_bad_element_costs_itself_only() {
        let text =
            r#" [{"prompt":"],\"}","response":"r"}, {oops}, 3 ,{"prompt":"p","response":"r"}] x"#;
        let harvest = read(&[text.as_bytes()]);
        let origins: Vec<&str> = harvest.records.iter().map(|r| r.origin.as_str()).collect();
        assert_eq!(origins, ["t#0", "t#3"]);
        assert_eq!(harvest.dropped.0["malformed element"], 1);
        assert!(harvest.notes[0].starts_with("t element 1: "), "{harvest:?}");
        assert_eq!(read(&[b" [ ]"]).notes.len(), 0);
        let cut = read(&[br#"[{"prompt":"p","response":"r"},{"#]);
        assert_eq!((cut.records.len(), cut.notes.len()), (1, 1));
    }

    #[test]
    fn a_record_that_is_too_long_is_passed_over() {
        let long = "x".repeat(MAX_RECORD_BYTES + 1);
        let good = r#"{"prompt":"p","response":"r"}"#;
        for (text, what) in [
            (format!("\"{long}\"\n{good}"), "line"),
            (format!("[\"{long}\",{good}]"), "element"),
        ] {
            let pieces: Vec<&[u8]> = text.as_bytes().chunks(1 << 20).collect();
            let harvest = read(&pieces);
            assert_eq!(harvest.records.len(), 1);
            assert_eq!(harvest.dropped.0.values().sum::<u64>(), 1);
            assert!(harvest.notes[0].contains(what), "{harvest:?}");
        }
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(
            text in "[ \n]{0,2}[\\[{]?([\\[\\]{},\n\"\\\\ a1:]|\\{\"prompt\":\"p\",\"response\":\"r\"\\}){0,20}",
            at in 0_usize..60,
        ) {
            let (first, second) = text.as_bytes().split_at(at.min(text.len()));
            let (whole, pieces) = (read(&[text.as_bytes()]), read(&[first, second]));
            prop_assert_eq!(format!("{whole:?}"), format!("{pieces:?}"));
        }
    }
}
