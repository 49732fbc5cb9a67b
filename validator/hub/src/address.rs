//! Names on the hub: repositories and commits. All of them are a miner's word until parsed.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A repository's name, `namespace/name`, of characters the hub allows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RepositoryName {
    namespace: String,
    name: String,
}

/// Why a name is not a repository's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the name of a repository on the hub")]
pub struct BadRepositoryName(String);

const MAX_PART: usize = 96;

impl RepositoryName {
    /// Checks the two parts as the hub's own client does.
    pub fn new(namespace: &str, name: &str) -> Result<Self, BadRepositoryName> {
        let allowed = |part: &str| {
            let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            !part.is_empty()
                && part.len() <= MAX_PART
                && part.chars().all(inner)
                && !part.starts_with(['-', '.'])
                && !part.ends_with(['-', '.'])
                && !part.contains("--")
                && !part.contains("..")
        };
        if allowed(namespace) && allowed(name) && name.strip_suffix(".git").is_none() {
            Ok(Self {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            })
        } else {
            let shown: String = format!("{namespace}/{name}")
                .chars()
                .take(2 * MAX_PART)
                .collect();
            Err(BadRepositoryName(shown))
        }
    }

    pub fn parts(&self) -> [&str; 2] {
        [&self.namespace, &self.name]
    }
}

impl std::str::FromStr for RepositoryName {
    type Err = BadRepositoryName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (namespace, name) = text.split_once('/').unwrap_or(("", text));
        Self::new(namespace, name)
    }
}

impl TryFrom<String> for RepositoryName {
    type Error = BadRepositoryName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<RepositoryName> for String {
    fn from(name: RepositoryName) -> Self {
        name.to_string()
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Returns whether a text is a full commit hash: 40 lower-case hexadecimal digits.
pub fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_hub_could_serve_is_a_repository() {
        for good in [
            "NousResearch/Meta-Llama-3-8B-Instruct",
            "a/b",
            "stabilityai/stablelm-2-1_6b",
        ] {
            assert_eq!(good.parse::<RepositoryName>().unwrap().to_string(), good);
        }
        let long = format!("a/{}", "b".repeat(97));
        for bad in [
            "", "/", "a", "a/", "/b", "../b", "a/..", "a/b/c", "a/b?x=1", "a/b#x", "a/b c",
            "a/b.git", "a/-b", "a/b--c", "a/b..c", "a/\u{e9}", "a%2f/b", "a/b\n", &long,
        ] {
            assert!(bad.parse::<RepositoryName>().is_err(), "{bad:?}");
        }
    }
}
