//! Who refers to which model, as the last step left it.

use std::collections::BTreeMap;

use model::ContentHash;
use serde::{Deserialize, Serialize};
use shared::file::{self, FileError};

use super::{Store, StoreError};
use crate::{models::digest::as_text, subnet::Hotkey};

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
struct Row {
    #[serde(with = "as_text")]
    content_hash: ContentHash,
    #[serde(flatten)]
    need: Need,
}

impl Store {
    /// Notes who refers to which model. Models not named here go first.
    pub fn set_needs(&self, needs: &BTreeMap<ContentHash, Need>) -> Result<(), StoreError> {
        let rows: Vec<Row> = needs
            .iter()
            .map(|(hash, need)| Row {
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
        let rows: Vec<Row> = serde_json::from_slice(&json).unwrap_or_default();
        Ok(rows
            .into_iter()
            .map(|row| (row.content_hash, row.need))
            .collect())
    }
}
