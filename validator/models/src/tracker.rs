//! What came of each commitment: so that nothing is asked twice, and no fault is forgotten.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use model::ContentHash;
use serde::{Deserialize, Serialize};
use shared::back_off::BackOff;

use super::{digest::as_text, rejection::Rejection};
use subnet::{BlockNumber, Commitment, Fault, FaultKind, Hotkey, ModelId, Uid};

/// First wait after a fault that is not the model's; it doubles with each.
const FIRST_WAIT: Duration = Duration::from_secs(30);
/// Longest wait after such a fault.
const LONGEST_WAIT: Duration = Duration::from_secs(30 * 60);
/// Longest wait for a repository that can't be read.
const LONGEST_ABSENCE: Duration = Duration::from_secs(60 * 60);

/// What came of a commitment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Its model is in the store, verified.
    Verified {
        /// The hash of its content.
        #[serde(with = "as_text")]
        content_hash: ContentHash,
        /// Its parameter count, tied tensors counted once.
        parameters: u64,
    },
    /// It was refused, until it changes.
    Refused {
        /// What is wrong with it, in one line.
        reason: String,
    },
    /// It is looked at again.
    Waiting {
        /// What stood in the way.
        fault: Fault,
        /// When it is looked at again.
        at: Timestamp,
        /// How often it stood in the way.
        times: u32,
    },
}

/// One commitment and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrackerEntry {
    /// The uid that the hotkey had.
    pub uid: Uid,
    /// Block in which the chain took the commitment.
    pub block: BlockNumber,
    /// The model that the commitment names.
    #[serde(with = "as_text")]
    pub model_id: ModelId,
    /// When it was looked at last.
    pub looked_at: Timestamp,
    /// When it last was on the chain.
    pub seen_at: Timestamp,
    /// Whether its model was verified.
    pub outcome: Outcome,
}

impl TrackerEntry {
    fn is_of(&self, commitment: &Commitment) -> bool {
        self.block == commitment.block && self.model_id == commitment.model_id
    }
}

/// What came of the commitments, by hotkey. Part of the validator's state.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tracker {
    entries: BTreeMap<Hotkey, TrackerEntry>,
}

impl Tracker {
    /// Returns the entries of all hotkeys.
    pub const fn entries(&self) -> &BTreeMap<Hotkey, TrackerEntry> {
        &self.entries
    }

    /// Returns what came of a hotkey's commitment.
    pub fn get(&self, hotkey: &Hotkey) -> Option<&TrackerEntry> {
        self.entries.get(hotkey)
    }

    /// Returns whether a commitment is to be looked at now: a new one at once, a changed one no
    /// sooner than `delay` after the last look, one that waits when its time has come.
    pub fn is_due(&self, commitment: &Commitment, now: Timestamp, delay: Duration) -> bool {
        let Some(entry) = self.entries.get(&commitment.hotkey) else {
            return true;
        };
        if !entry.is_of(commitment) {
            return now.duration_since(entry.looked_at).unsigned_abs() >= delay;
        }
        match &entry.outcome {
            Outcome::Verified { .. } | Outcome::Refused { .. } => false,
            // A clock that was set back says nothing of how long it has waited.
            Outcome::Waiting { at, .. } => now >= *at || now < entry.looked_at,
        }
    }

    /// Returns the content of a commitment's model, if that is the one verified.
    pub(super) fn verified_content(&self, commitment: &Commitment) -> Option<ContentHash> {
        let entry = self.entries.get(&commitment.hotkey)?;
        match entry.outcome {
            Outcome::Verified { content_hash, .. } if entry.is_of(commitment) => Some(content_hash),
            _ => None,
        }
    }

    /// Notes which commitments are on the chain, and forgets those that were not for `grace`.
    pub fn note_seen(&mut self, commitments: &[Commitment], now: Timestamp, grace: Duration) {
        for commitment in commitments {
            if let Some(entry) = self.entries.get_mut(&commitment.hotkey) {
                entry.seen_at = now;
                entry.uid = commitment.uid;
            }
        }
        self.entries
            .retain(|_, entry| now.duration_since(entry.seen_at).unsigned_abs() <= grace);
    }

    /// Notes that a commitment was verified.
    pub(super) fn note_verified(
        &mut self,
        commitment: &Commitment,
        content_hash: ContentHash,
        parameters: u64,
        now: Timestamp,
    ) {
        self.note(
            commitment,
            Outcome::Verified {
                content_hash,
                parameters,
            },
            now,
        );
    }

    /// Notes that a commitment was not verified; returns what is remembered.
    pub(super) fn note_rejected(
        &mut self,
        commitment: &Commitment,
        rejection: Rejection,
        delay: Duration,
        now: Timestamp,
    ) -> Outcome {
        let before = match self.entries.get(&commitment.hotkey) {
            Some(entry) if entry.is_of(commitment) => match entry.outcome {
                Outcome::Waiting { times, .. } => times,
                _ => 0,
            },
            _ => 0,
        };
        let wait = |first, longest| BackOff { first, longest }.after(before + 1);
        let (fault, wait) = match rejection {
            Rejection::Refused {
                reason,
                lasting: true,
            } => {
                let outcome = Outcome::Refused { reason };
                self.note(commitment, outcome.clone(), now);
                return outcome;
            }
            Rejection::Refused {
                reason,
                lasting: false,
            } => (
                Fault::model(reason),
                wait(delay.max(FIRST_WAIT), LONGEST_ABSENCE),
            ),
            Rejection::Retry { fault, after } => {
                let wait = wait(FIRST_WAIT, LONGEST_WAIT);
                (fault, wait.max(after.unwrap_or_default()))
            }
        };
        let at = now.checked_add(wait).unwrap_or(Timestamp::MAX);
        let outcome = Outcome::Waiting {
            fault,
            at,
            times: before + 1,
        };
        self.note(commitment, outcome.clone(), now);
        outcome
    }

    fn note(&mut self, commitment: &Commitment, outcome: Outcome, now: Timestamp) {
        let Commitment {
            hotkey,
            uid,
            block,
            model_id,
        } = commitment.clone();
        let entry = TrackerEntry {
            uid,
            block,
            model_id,
            looked_at: now,
            seen_at: now,
            outcome,
        };
        self.entries.insert(hotkey, entry);
    }

    /// Returns who has which verified model.
    pub fn holders(&self) -> BTreeMap<ContentHash, Vec<Hotkey>> {
        let mut holders: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (hotkey, entry) in &self.entries {
            if let Outcome::Verified { content_hash, .. } = entry.outcome {
                holders.entry(content_hash).or_default().push(*hotkey);
            }
        }
        holders
    }

    /// Returns how many commitments wait because of something that is not their model's fault.
    pub fn faults(&self) -> usize {
        let waits = |entry: &&TrackerEntry| matches!(&entry.outcome, Outcome::Waiting { fault, .. } if fault.kind != FaultKind::Model);
        self.entries.values().filter(waits).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_secs(300);

    fn commitment(block: BlockNumber) -> Commitment {
        let model_id = format!("a:b:{}:x:l3", "0".repeat(40)).parse().unwrap();
        Commitment {
            hotkey: Hotkey([1; 32]),
            uid: Uid(7),
            block,
            model_id,
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    #[test]
    fn a_refusal_is_remembered_until_the_commitment_changes() {
        let mut tracker = Tracker::default();
        assert!(tracker.is_due(&commitment(1), at(0), DELAY));
        tracker.note_rejected(&commitment(1), Rejection::refused("norms"), DELAY, at(0));
        assert!(!tracker.is_due(&commitment(1), at(1_000_000), DELAY));
        assert!(!tracker.is_due(&commitment(2), at(299), DELAY));
        assert!(tracker.is_due(&commitment(2), at(300), DELAY));
    }

    #[test]
    fn faults_are_tried_again_ever_more_rarely_but_for_ever() {
        let mut tracker = Tracker::default();
        let mut now = 0;
        let mut waits = Vec::new();
        for _ in 0..9 {
            let fault = Rejection::outside("hub away");
            let outcome = tracker.note_rejected(&commitment(1), fault, DELAY, at(now));
            let Outcome::Waiting { at: next, .. } = outcome else {
                panic!("{outcome:?}")
            };
            waits.push(next.as_second() - at(now).as_second());
            assert!(!tracker.is_due(&commitment(1), at(now), DELAY));
            now = next.as_second() - 1_000_000;
            assert!(tracker.is_due(&commitment(1), at(now), DELAY));
        }
        assert_eq!(waits, [30, 60, 120, 240, 480, 960, 1800, 1800, 1800]);
        assert_eq!(tracker.faults(), 1);
    }

    #[test]
    fn a_clock_that_jumps_an_hour_delays_nothing_and_forgets_nothing() {
        let (hour, grace) = (3600, Duration::from_secs(7200));
        let mut tracker = Tracker::default();
        let fault = Rejection::outside("hub away");
        tracker.note_rejected(&commitment(1), fault, DELAY, at(0));
        for jump in [-hour, hour] {
            assert!(tracker.is_due(&commitment(1), at(jump), DELAY), "{jump}");
            assert!(tracker.is_due(&commitment(2), at(jump), DELAY), "{jump}");
            tracker.note_seen(&[], at(jump), grace);
            assert_eq!(tracker.entries().len(), 1, "{jump}");
        }
    }

    #[test]
    fn the_hub_may_ask_for_a_longer_wait() {
        let mut tracker = Tracker::default();
        let after = Some(Duration::from_secs(7200));
        let rejection = Rejection::Retry {
            fault: Fault::outside("429"),
            after,
        };
        let outcome = tracker.note_rejected(&commitment(1), rejection, DELAY, at(0));
        assert!(matches!(outcome, Outcome::Waiting { at: next, .. } if next == at(7200)));
    }

    #[test]
    fn who_left_the_chain_is_forgotten_after_the_grace_period() {
        let mut tracker = Tracker::default();
        tracker.note_verified(&commitment(1), ContentHash::from_digest([0; 32]), 1, at(0));
        tracker.note_seen(&[], at(100), Duration::from_secs(100));
        assert_eq!(tracker.holders().len(), 1);
        tracker.note_seen(&[commitment(1)], at(150), Duration::from_secs(100));
        tracker.note_seen(&[], at(251), Duration::from_secs(100));
        assert!(tracker.entries().is_empty());
    }

    #[test]
    fn the_state_is_readable_and_stays_the_same() {
        let mut tracker = Tracker::default();
        tracker.note_verified(&commitment(1), ContentHash::from_digest([0; 32]), 8, at(0));
        let json = serde_json::to_string(&tracker).unwrap();
        assert_eq!(serde_json::from_str::<Tracker>(&json).unwrap(), tracker);
        insta::assert_snapshot!(
            json,
            @r#"{"5C62Ck4UrFPiBtoCmeSrgF7x9yv9mn38446dhCpsi2mLHiFT":{"uid":7,"block":1,"model_id":"a:b:0000000000000000000000000000000000000000:x:l3","looked_at":"1970-01-12T13:46:40Z","seen_at":"1970-01-12T13:46:40Z","outcome":{"verified":{"content_hash":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","parameters":8}}}}"#
        );
    }
}
