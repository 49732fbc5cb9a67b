//! What miners write, and where: the forms of other subnets' commitments as data of the subnet file.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{CompetitionId, ModelId};

/// Longest text that is read at all: the chain's largest field, and more.
const MAX_BYTES: usize = 2048;

/// Longest revision in JSON.
const MAX_REVISION: usize = 64;

/// How this subnet's miners commit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CommitmentRules {
    pub storage: CommitmentStorage,
    pub form: PayloadForm,
    /// Competition of commitments that name none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub competition: Option<CompetitionId>,
    /// What `{digest}` may be, each a prefix and a number of hexadecimal digits; any where empty.
    pub digests: Vec<DigestForm>,
    /// Whether repositories are refused that are not lower case.
    pub lower_case: bool,
    /// Blanks around the text and its parts are cut.
    pub trim: bool,
}

/// Where commitments are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommitmentStorage {
    /// The record that each hotkey has.
    #[default]
    Commitment,
    /// What timelocked commitments said once they opened; the newest counts.
    Revealed,
}

/// The form of the text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PayloadForm {
    /// As the Python validator of this subnet reads it: see [`ModelId`].
    #[default]
    Colons,
    /// The same with a competition that is a number, as other subnets' library (taoverse) reads it.
    Numbered,
    /// `{"model": "namespace/name", "revision": ".."}`.
    Json,
    /// Parts between bars, such as `v4|{repo}|{digest}|{hotkey}`.
    Bars(Vec<Part>),
}

/// A part of a text between two bars.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Just this.
    Fixed(String),
    Repo,
    Revision,
    Digest,
    Hash,
    Hotkey,
    Competition,
}

/// A prefix and a number of lower-case hexadecimal digits: `sha256:64`, `hf:40`, `40`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DigestForm {
    prefix: String,
    digits: usize,
}

/// A text is not a commitment of the form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    #[error(transparent)]
    Colons(#[from] super::ModelIdError),
    #[error("a commitment of {0} bytes is too long")]
    TooLong(usize),
    #[error("it has {found} part(s) between bars, the subnet's commitments have {expected}")]
    Parts { found: usize, expected: usize },
    #[error("its part {part} is not {expected}")]
    Part { part: usize, expected: String },
    #[error("it is not a JSON object with the text \"model\"")]
    Json,
    #[error("{0:?} is not a repository")]
    Repository(String),
    #[error(
        "its revision is longer than {MAX_REVISION} characters, or holds others than letters, digits and ._-/"
    )]
    Revision,
}

impl CommitmentRules {
    /// Reads what a miner wrote.
    pub fn read(&self, text: &str) -> Result<ModelId, PayloadError> {
        if text.len() > MAX_BYTES {
            return Err(PayloadError::TooLong(text.len()));
        }
        let mut model: ModelId = match &self.form {
            PayloadForm::Colons => text.parse()?,
            PayloadForm::Numbered => numbered(text)?,
            PayloadForm::Json => json(text)?,
            PayloadForm::Bars(parts) => self.bars(text, parts)?,
        };
        model.competition = model.competition.or_else(|| self.competition.clone());
        Ok(model)
    }

    fn bars(&self, text: &str, parts: &[Part]) -> Result<ModelId, PayloadError> {
        let cut =
            |text: &'_ str| -> String { if self.trim { text.trim() } else { text }.to_owned() };
        let found: Vec<String> = text.split('|').map(cut).collect();
        if found.len() != parts.len() {
            return Err(PayloadError::Parts {
                found: found.len(),
                expected: parts.len(),
            });
        }
        let mut model = empty();
        // What is fixed counts as it stands there, blanks within the text too.
        let raw = if self.trim { text.trim() } else { text };
        for (index, ((part, text), raw)) in parts.iter().zip(found).zip(raw.split('|')).enumerate()
        {
            let refuse = |expected: &str| PayloadError::Part {
                part: index + 1,
                expected: expected.to_owned(),
            };
            match part {
                Part::Fixed(fixed) if fixed == raw => {}
                Part::Fixed(fixed) => return Err(refuse(fixed)),
                Part::Repo => {
                    let lower = !text.contains(char::is_uppercase);
                    let (namespace, name) = repository(&text)
                        .filter(|_| lower || !self.lower_case)
                        .ok_or(PayloadError::Repository(text))?;
                    (model.namespace, model.name) = (namespace, name);
                }
                Part::Revision if text.is_empty() => return Err(refuse("a revision")),
                Part::Revision => model.revision = Some(text),
                Part::Digest => {
                    let known = self.digests.iter().find(|form| form.fits(&text));
                    if known.is_none() && !self.digests.is_empty() {
                        return Err(refuse("a digest of a form that the subnet takes"));
                    }
                    // Git names revisions by SHA-1, or by SHA-256 without a prefix.
                    let git = text
                        .strip_prefix("hf:")
                        .or((!text.contains(':')).then_some(&text));
                    match git {
                        Some(revision) => model.revision = Some(revision.to_owned()),
                        None => model.hash = Some(text),
                    }
                }
                Part::Hash => model.hash = Some(text),
                // Whose it is, the chain says; this must only be one.
                Part::Hotkey => {
                    if !is_address(&text) {
                        return Err(refuse("a hotkey"));
                    }
                }
                Part::Competition => model.competition = Some(CompetitionId(text)),
            }
        }
        Ok(model)
    }
}

/// Returns whether a text looks like an address. Those of other networks than ours pass: the one
/// that counts is the chain's.
fn is_address(text: &str) -> bool {
    const BASE58: &str = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
    (47..=48).contains(&text.len()) && text.chars().all(|letter| BASE58.contains(letter))
}

/// Reads five parts, the last one a number; without it the competition is 0.
fn numbered(text: &str) -> Result<ModelId, PayloadError> {
    let mut model: ModelId = text.parse()?;
    let number = match text.split(':').nth(4) {
        None => Some(0),
        Some(number) => python_int(number),
    };
    let number = number.ok_or_else(|| PayloadError::Part {
        part: 5,
        expected: "a number".to_owned(),
    })?;
    model.competition = Some(CompetitionId(number.to_string()));
    Ok(model)
}

/// Reads a number as Python's `int` does: blanks around it, a sign, zeros before it and underscores
/// between digits are no matter.
fn python_int(text: &str) -> Option<i64> {
    let text = text.trim();
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let is_digits = |group: &str| !group.is_empty() && group.bytes().all(|b| b.is_ascii_digit());
    let plain = digits.split('_').all(is_digits);
    plain.then(|| text.replace('_', "").parse().ok()).flatten()
}

fn json(text: &str) -> Result<ModelId, PayloadError> {
    #[derive(Deserialize)]
    struct Written {
        model: String,
        revision: Option<String>,
    }
    let written: serde_json::Value = serde_json::from_str(text).map_err(|_| PayloadError::Json)?;
    // A list would be taken for the fields in their order.
    let written = written
        .is_object()
        .then_some(written)
        .ok_or(PayloadError::Json)?;
    let written: Written = serde_json::from_value(written).map_err(|_| PayloadError::Json)?;
    let repo = written.model.trim().to_owned();
    let (namespace, name) = repository(&repo)
        .filter(|(_, name)| !name.contains('/'))
        .ok_or(PayloadError::Repository(repo))?;
    let revision = written.revision.map(|revision| revision.trim().to_owned());
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "._-/".contains(letter);
    let fits = |revision: &String| revision.len() <= MAX_REVISION && revision.chars().all(plain);
    if !revision.as_ref().is_none_or(fits) {
        return Err(PayloadError::Revision);
    }
    Ok(ModelId {
        namespace,
        name,
        // Without one it would be the newest, which changes: the model is refused for that.
        revision: revision.filter(|revision| !revision.is_empty()),
        ..empty()
    })
}

fn empty() -> ModelId {
    ModelId {
        namespace: String::new(),
        name: String::new(),
        revision: None,
        hash: None,
        competition: None,
    }
}

/// Splits a repository at its first slash; `None` if it can't be one.
fn repository(text: &str) -> Option<(String, String)> {
    let (namespace, name) = text.split_once('/')?;
    let is_name = |part: &str| {
        let plain = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
        part.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '_')
            && part.chars().all(plain)
    };
    (is_name(namespace) && name.split('/').all(is_name))
        .then(|| (namespace.to_owned(), name.to_owned()))
}

impl DigestForm {
    fn fits(&self, text: &str) -> bool {
        text.strip_prefix(self.prefix.as_str())
            .is_some_and(|digits| {
                let is_digit = |digit: u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit);
                digits.len() == self.digits && digits.bytes().all(is_digit)
            })
    }
}

impl FromStr for PayloadForm {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "colons" => return Ok(Self::Colons),
            "numbered" => return Ok(Self::Numbered),
            "json" => return Ok(Self::Json),
            _ => {}
        }
        if !text.contains('|') {
            return Err(format!(
                "{text:?} is none of colons, numbered, json, or parts between bars such as v4|{{repo}}|{{digest}}|{{hotkey}}"
            ));
        }
        let part = |part: &str| match part {
            "{repo}" => Ok(Part::Repo),
            "{revision}" => Ok(Part::Revision),
            "{digest}" => Ok(Part::Digest),
            "{hash}" => Ok(Part::Hash),
            "{hotkey}" => Ok(Part::Hotkey),
            "{competition}" => Ok(Part::Competition),
            fixed if fixed.contains(['{', '}']) => Err(format!(
                "{fixed:?} is none of {{repo}}, {{revision}}, {{digest}}, {{hash}}, {{hotkey}}, {{competition}}"
            )),
            fixed => Ok(Part::Fixed(fixed.to_owned())),
        };
        let parts: Vec<Part> = text.split('|').map(part).collect::<Result<_, _>>()?;
        if !parts.contains(&Part::Repo) {
            return Err(format!("{text:?} has no {{repo}}"));
        }
        Ok(Self::Bars(parts))
    }
}

impl fmt::Display for PayloadForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Colons => f.write_str("colons"),
            Self::Numbered => f.write_str("numbered"),
            Self::Json => f.write_str("json"),
            Self::Bars(parts) => {
                let parts = parts.iter().map(|part| match part {
                    Part::Fixed(text) => text.as_str(),
                    Part::Repo => "{repo}",
                    Part::Revision => "{revision}",
                    Part::Digest => "{digest}",
                    Part::Hash => "{hash}",
                    Part::Hotkey => "{hotkey}",
                    Part::Competition => "{competition}",
                });
                f.write_str(&parts.collect::<Vec<_>>().join("|"))
            }
        }
    }
}

impl FromStr for DigestForm {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let start = text.rfind(':').map_or(0, |colon| colon + 1);
        let (prefix, digits) = text.split_at(start);
        let digits = digits.parse().map_err(|_| {
            format!("{text:?} is not a prefix and a number of digits, such as sha256:64 or 40")
        })?;
        let prefix = prefix.to_owned();
        Ok(Self { prefix, digits })
    }
}

impl fmt::Display for DigestForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.prefix, self.digits)
    }
}

macro_rules! as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?
                    .parse()
                    .map_err(D::Error::custom)
            }
        }
    };
}

as_text!(PayloadForm);
as_text!(DigestForm);

#[cfg(test)]
mod tests;
