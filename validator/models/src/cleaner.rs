//! Cleaning up: who needs which model, and removing what nobody has needed for a while.

use std::{collections::BTreeMap, time::Duration};

use model::ContentHash;

use super::{
    Store, Tracker,
    store::{Need, StoreError},
};

/// Notes who needs which model and removes what nobody has needed for `grace`; returns the models
/// removed. `evaluated` names the models that steps evaluate, with their share of the weights.
/// Reads and writes the disk: not for an async thread.
pub fn sweep(
    store: &Store,
    tracker: &Tracker,
    evaluated: &BTreeMap<ContentHash, f64>,
    grace: Duration,
) -> Result<Vec<ContentHash>, StoreError> {
    store.set_needs(&needs(tracker, evaluated))?;
    let removed = store.clean(grace)?;
    for content_hash in &removed {
        tracing::info!(%content_hash, "removed a model that nobody has needed for a while");
    }
    Ok(removed)
}

fn needs(tracker: &Tracker, evaluated: &BTreeMap<ContentHash, f64>) -> BTreeMap<ContentHash, Need> {
    let mut needs: BTreeMap<ContentHash, Need> = BTreeMap::new();
    for (hash, hotkeys) in tracker.holders() {
        needs.entry(hash).or_default().hotkeys = hotkeys;
    }
    for (hash, weight) in evaluated {
        let need = needs.entry(*hash).or_default();
        need.evaluated = true;
        need.weight = *weight;
    }
    needs
}
