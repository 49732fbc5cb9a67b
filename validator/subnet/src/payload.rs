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
            "json" => return Ok(Self::Json),
            _ => {}
        }
        if !text.contains('|') {
            return Err(format!(
                "{text:?} is none of colons, json, or parts between bars such as v4|{{repo}}|{{digest}}|{{hotkey}}"
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
mod tests {
    use serde_json::Value;

    use super::*;

    const GOLDEN: &str = include_str!("../tests/fixtures/commitments.json");

    fn rules(text: &str) -> CommitmentRules {
        toml::from_str(text).unwrap()
    }

    /// The form of a golden case in the words of a subnet file.
    fn rules_of(form: &str) -> Option<CommitmentRules> {
        Some(match form {
            "v4" => rules(
                "storage = 'revealed'\nform = 'v4|{repo}|{digest}|{hotkey}'\ndigests = ['sha256:64', 'hf:40']\ntrim = true",
            ),
            "v7" => rules(
                "storage = 'revealed'\nform = 'v7|{repo}|{digest}'\ndigests = ['sha256:64', '40', '64']\nlower_case = true",
            ),
            "json (sn97)" => rules("storage = 'revealed'\nform = 'json'"),
            _ => return None,
        })
    }

    #[test]
    fn other_subnets_read_the_same() {
        let golden: Value = serde_json::from_str(GOLDEN).unwrap();
        let mut read = 0;
        for case in golden["cases"].as_array().unwrap() {
            let Some(rules) = rules_of(case["form"].as_str().unwrap()) else {
                continue;
            };
            read += 1;
            let Some(rows) = case["rows"].as_array() else {
                let found = rules.read(case["payload"].as_str().unwrap());
                let Some(expected) = case.get("result") else {
                    assert!(found.is_err(), "{case}");
                    continue;
                };
                let found = found.unwrap_or_else(|error| panic!("{case}: {error}"));
                assert_eq!(
                    found.repository(),
                    expected["repo"].as_str().unwrap(),
                    "{case}"
                );
                let digest = found.revision.or(found.hash).unwrap();
                assert!(
                    expected["digest"].as_str().unwrap().ends_with(&digest),
                    "{case}"
                );
                continue;
            };
            // The newest row that can be read; a list, at which the source falls, is skipped.
            let newest = rows
                .iter()
                .filter_map(|row| Some((row[0].as_u64()?, rules.read(row[1].as_str()?).ok()?)))
                .max_by_key(|(block, _)| *block);
            let expected = case["result"]["0"].as_array();
            assert_eq!(newest.is_some(), expected.is_some(), "{case}");
            if let (Some((block, model)), Some(expected)) = (newest, expected) {
                let revision = model.revision.clone().unwrap_or_default();
                let found = serde_json::json!([block, model.repository(), revision]);
                assert_eq!(&found, &Value::from(expected.clone()), "{case}");
            }
        }
        assert!(read > 80, "{read} cases");
    }

    #[test]
    fn a_form_that_makes_no_sense_is_refused_in_words() {
        let refused = |text: &str| {
            toml::from_str::<CommitmentRules>(text)
                .unwrap_err()
                .message()
                .to_owned()
        };
        insta::assert_snapshot!(refused("form = 'csv'"), @r#""csv" is none of colons, json, or parts between bars such as v4|{repo}|{digest}|{hotkey}"#);
        insta::assert_snapshot!(refused("form = 'v4|{repro}'"), @r#""{repro}" is none of {repo}, {revision}, {digest}, {hash}, {hotkey}, {competition}"#);
        insta::assert_snapshot!(refused("form = 'v4|{digest}'"), @r#""v4|{digest}" has no {repo}"#);
        insta::assert_snapshot!(refused("digests = ['sha256']"), @r#""sha256" is not a prefix and a number of digits, such as sha256:64 or 40"#);
        let both = rules("form = 'v4|{repo}|{hotkey}'\ndigests = ['hf:40']");
        assert_eq!(
            toml::from_str::<CommitmentRules>(&toml::to_string(&both).unwrap()).unwrap(),
            both
        );
        assert_eq!(rules(""), CommitmentRules::default());
    }
}
