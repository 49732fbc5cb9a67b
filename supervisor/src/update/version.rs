//! A version of the program: where it comes from, what is in it, where it lies.

use serde::{Deserialize, Serialize};

use crate::text;

/// A version of the program: where it comes from and where it lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// The upstream commit (or the tag, in the release channel).
    pub commit: String,
    /// The folder under `releases/`: the commit, with a suffix when local changes are in it.
    pub release: String,
    /// The commit that is built: upstream with the local changes on top.
    pub source: String,
    /// First line of the commit message.
    #[serde(deserialize_with = "text::printable")]
    pub summary: String,
    /// Who signed it, if signatures are checked.
    #[serde(default)]
    pub signer: Option<String>,
    /// A digest of what is built and with what: the files that count, toolchain, profile, features.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub build: String,
    /// The operator's own changes that are in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub local: Vec<LocalChange>,
    /// The operator's own changes that are not in it, because nobody asked for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LocalChange>,
}

/// A commit of the operator's, or what is not committed in the checkout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalChange {
    /// The commit; for what is not committed, the one that our clone has of it.
    pub commit: String,
    /// First line of its message.
    #[serde(deserialize_with = "text::printable")]
    pub summary: String,
}

impl std::fmt::Display for LocalChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.12} {}", self.commit, self.summary)
    }
}

impl Version {
    /// Returns whether it comes from the release channel, whose tags begin with a letter that no
    /// commit's id has.
    pub fn is_release(&self) -> bool {
        self.commit.starts_with('v')
    }

    /// Returns what makes it worth another try when it changes.
    pub fn identity(&self) -> &str {
        if self.build.is_empty() {
            &self.source
        } else {
            &self.build
        }
    }
}
