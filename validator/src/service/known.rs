//! What a validator last knew of chain and commitments, as its files have it, for commands that only look.

use std::path::Path;

use shared::{Exit, Failure};

use super::{chain_view, model_sync};
use chain::{ChainSnapshot, Neuron};
use models::{Tracker, tracker::TrackerEntry};
use subnet::{Hotkey, Uid};

/// The chain as last seen, and what came of the commitments.
#[derive(Debug)]
pub struct Known {
    pub snapshot: Option<ChainSnapshot>,
    pub tracker: Tracker,
}

impl Known {
    /// Reads the files of a state's folder; what is not there is empty.
    pub fn read(folder: &Path) -> Result<Self, Failure> {
        let snapshot = ChainSnapshot::load(&chain_view::file(folder))
            .map_err(|error| Failure::of(Exit::Machine, &error))?;
        let tracker = model_sync::read_tracker(&model_sync::tracker_file(folder))?;
        Ok(Self { snapshot, tracker })
    }

    /// Returns the neuron of a uid.
    pub fn neuron(&self, uid: Uid) -> Option<&Neuron> {
        self.snapshot.as_ref()?.by_uid(uid)
    }

    /// Returns what came of the commitment of a uid, with its hotkey: that of its owner now, else the one looked at last.
    pub fn entry(&self, uid: Uid) -> Option<(Hotkey, &TrackerEntry)> {
        let entries = self.tracker.entries();
        if let Some(neuron) = self.neuron(uid) {
            return Some((neuron.hotkey, entries.get(&neuron.hotkey)?));
        }
        let of_uid = entries.iter().filter(|(_, entry)| entry.uid == uid);
        of_uid
            .max_by_key(|(_, entry)| entry.seen_at)
            .map(|(hotkey, entry)| (*hotkey, entry))
    }

    /// Returns the uid of a hotkey.
    pub fn uid_of(&self, hotkey: &Hotkey) -> Option<Uid> {
        let on_chain = self
            .snapshot
            .as_ref()
            .and_then(|snapshot| snapshot.neuron(hotkey));
        on_chain
            .map(|neuron| neuron.uid)
            .or_else(|| Some(self.tracker.get(hotkey)?.uid))
    }
}
