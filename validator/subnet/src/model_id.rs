//! What a commitment says: `namespace:name:revision:hash:competition`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::CompetitionId;

/// A model as its miner committed it. Every field is the miner's word; nothing is checked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ModelId {
    /// User or organization on the hub.
    pub namespace: String,
    pub name: String,
    pub revision: Option<String>,
    /// Claimed content hash, plain or bound to the hotkey.
    pub hash: Option<String>,
    /// Competition the model takes part in.
    pub competition: Option<CompetitionId>,
}

/// Why a commitment names no model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a commitment needs namespace:name:revision:hash[:competition], this one has {parts} part(s)"
)]
pub struct ModelIdError {
    /// How many parts there are.
    pub parts: usize,
}

impl ModelId {
    /// The competition of commitments that name none; it no longer exists.
    pub const OLD_COMPETITION: &'static str = "m1";

    /// Returns `namespace/name`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Returns the competition, or the old one for commitments that name none.
    pub fn competition_or_old(&self) -> CompetitionId {
        self.competition
            .clone()
            .unwrap_or_else(|| CompetitionId::from(Self::OLD_COMPETITION))
    }
}

impl FromStr for ModelId {
    type Err = ModelIdError;

    /// Splits at colons as the Python validator does: the text `None` stands for an absent value,
    /// parts beyond the fifth are ignored, nothing is trimmed.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = text.split(':').collect();
        let [namespace, name, revision, hash, rest @ ..] = parts.as_slice() else {
            return Err(ModelIdError { parts: parts.len() });
        };
        let optional = |part: &str| (part != "None").then(|| part.to_owned());
        Ok(Self {
            namespace: (*namespace).to_owned(),
            name: (*name).to_owned(),
            revision: optional(revision),
            hash: optional(hash),
            competition: rest
                .first()
                .and_then(|part| optional(part))
                .map(CompetitionId),
        })
    }
}

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            namespace,
            name,
            revision,
            hash,
            competition,
        } = self;
        let or_none = |part: &Option<String>| part.clone().unwrap_or_else(|| "None".to_owned());
        let (revision, hash) = (or_none(revision), or_none(hash));
        let competition = or_none(&competition.as_ref().map(|id| id.0.clone()));
        write!(f, "{namespace}:{name}:{revision}:{hash}:{competition}")
    }
}
