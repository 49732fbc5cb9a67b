//! Who refers to which model, as the last step left it.

use std::collections::BTreeMap;

use model::ContentHash;
use serde::{Deserialize, Serialize};
use shared::file::{self, FileError};

use super::{Store, StoreError};
use crate::digest::as_text;
use subnet::Hotkey;

const MAX_NEEDS: u64 = 16 << 20;

/// Why a model is kept.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Need {
    /// Hotkeys that have committed to it.
    pub hotkeys: Vec<Hotkey>,
    /// Whether steps evaluate it: then it is never removed.
    pub evaluated: bool,
    /// Its share of the running weights: the smaller, the earlier it goes.
    pub weight: f64,
}

#[derive(Serialize, Deserialize)]
struct NeedRow {
    #[serde(with = "as_text")]
    content_hash: ContentHash,
    // Not flattened: that loses numbers where serde_json keeps them with arbitrary precision.
    need: Need,
}

impl Store {
    /// Notes who refers to which model. Models not named here go first.
    pub fn set_needs(&self, needs: &BTreeMap<ContentHash, Need>) -> Result<(), StoreError> {
        let rows: Vec<NeedRow> = needs
            .iter()
            .map(|(hash, need)| NeedRow {
                content_hash: *hash,
                need: need.clone(),
            })
            .collect();
        let path = self.path("needs.json");
        let json = serde_json::to_vec_pretty(&rows).map_err(std::io::Error::from);
        let json = json.map_err(FileError::on("write", &path))?;
        Ok(file::write_atomic(&path, &json)?)
    }

    /// Returns who refers to which model; nobody if nothing was noted or it can't be read.
    pub fn needs(&self) -> Result<BTreeMap<ContentHash, Need>, StoreError> {
        let json = file::read_limited(&self.path("needs.json"), MAX_NEEDS)?.unwrap_or_default();
        let rows: Vec<NeedRow> = serde_json::from_slice(&json).unwrap_or_else(|error| {
            if !json.is_empty() {
                tracing::warn!(%error, "the list of needed models can't be read");
            }
            Vec::new()
        });
        Ok(rows
            .into_iter()
            .map(|row| (row.content_hash, row.need))
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreLimits;

    #[test]
    fn needs_are_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), StoreLimits::default()).unwrap();
        assert!(store.needs().unwrap().is_empty());
        let need = Need {
            hotkeys: vec![Hotkey([3; 32])],
            evaluated: true,
            weight: 0.25,
        };
        let needs = BTreeMap::from([(ContentHash::from_digest([1; 32]), need)]);
        store.set_needs(&needs).unwrap();
        let json = std::fs::read(dir.path().join("needs.json")).unwrap();
        serde_json::from_slice::<Vec<NeedRow>>(&json).unwrap();
        assert_eq!(store.needs().unwrap(), needs);
    }
}
