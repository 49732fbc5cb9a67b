//! Keeping up with the chain: which commitments are looked at, in what order, and what is told.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use model::Dtype;
use rand::Rng;
use tokio::sync::mpsc;

use super::{
    rejection::{Judged, Rejection},
    report::Report,
    rules::Rules,
    tracker::{Outcome, Tracker},
    verify::{VerifiedModel, Verifier},
};
use subnet::{BlockNumber, Commitment, Competition, Fault, Parameters};

/// What came of a commitment.
#[derive(Debug, Clone)]
pub enum Event {
    /// Its model lies in the store, verified.
    Verified(VerifiedModel),
    /// Its model was refused; that is remembered until the commitment changes.
    Refused {
        /// The commitment that was judged.
        commitment: Commitment,
        /// What is wrong with the model, in one line.
        reason: String,
    },
    /// Something else stood in the way; it is tried again.
    Retry {
        /// The commitment that could not be judged.
        commitment: Commitment,
        /// What stood in the way. A fault of the model's is a repository that can't be read yet.
        fault: Fault,
        /// When it is tried again.
        at: Timestamp,
    },
}

/// How often commitments are looked at, and which.
#[derive(Debug, Clone, Copy)]
pub struct SyncOptions {
    /// Least time between looks at a hotkey's commitments.
    pub update_delay: Duration,
    /// How long a hotkey that left the chain is remembered.
    pub grace: Duration,
    /// Older commitments are passed over.
    pub min_block: BlockNumber,
    /// The dtype of the evaluation, to which norms are rounded.
    pub dtype: Dtype,
}

/// Keeps the store and the tracker up with the chain.
#[derive(Debug)]
pub struct Sync {
    verifier: Verifier,
    parameters: Parameters,
    options: SyncOptions,
    tracker: Arc<Mutex<Tracker>>,
}

/// Nobody listens to the events any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("nobody listens to the events of the model sync any more")]
pub struct Deaf;

impl Sync {
    /// Takes up where `tracker` left off.
    pub fn new(
        verifier: Verifier,
        parameters: Parameters,
        options: SyncOptions,
        tracker: Tracker,
    ) -> Self {
        Self {
            verifier,
            parameters,
            options,
            tracker: Arc::new(Mutex::new(tracker)),
        }
    }

    /// Returns a copy of the tracker, for the state and for people.
    pub fn tracker(&self) -> Tracker {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Tracker> {
        self.tracker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at every commitment of a chain snapshot at `block` that is due, beginning with a
    /// random uid, and tells what came of each.
    ///
    /// A model is only fetched when there is room in the queue of events: a slow evaluation slows
    /// the downloads down. Dropping the future stops at once and loses nothing.
    pub async fn round(
        &self,
        commitments: &[Commitment],
        block: BlockNumber,
        events: &mpsc::Sender<Event>,
    ) -> Result<(), Deaf> {
        let now = shared::clock::now();
        self.lock().note_seen(commitments, now, self.options.grace);
        let mut order: Vec<&Commitment> = commitments.iter().collect();
        order.sort_by_key(|commitment| commitment.uid);
        if !order.is_empty() {
            let start = rand::rng().random_range(0..order.len());
            order.rotate_left(start);
        }
        for commitment in order {
            let Some(competition) = self.competition_of(commitment, block) else {
                continue;
            };
            if commitment.block < self.options.min_block {
                continue;
            }
            if !self.is_due(commitment) {
                continue;
            }
            let place = events.reserve().await.map_err(|_| Deaf)?;
            place.send(self.look(commitment, competition).await);
        }
        Ok(())
    }

    /// Looks at one commitment now, whatever is remembered of it: at the start, for the models of
    /// the consensus, and for one that was removed from the store but is needed again. `None` if
    /// its competition does not exist at `block`.
    pub async fn look_now(&self, commitment: &Commitment, block: BlockNumber) -> Option<Event> {
        let competition = self.competition_of(commitment, block)?;
        Some(self.look(commitment, competition).await)
    }

    /// A model whose copy was damaged here is due too: nothing has changed on the chain.
    fn is_due(&self, commitment: &Commitment) -> bool {
        let now = shared::clock::now();
        let tracker = self.lock();
        if tracker.is_due(commitment, now, self.options.update_delay) {
            return true;
        }
        let content = tracker.verified_content(commitment);
        let store = self.verifier.store.as_ref();
        store.is_some_and(|store| content.is_some_and(|hash| store.is_damaged(&hash)))
    }

    fn competition_of(&self, commitment: &Commitment, block: BlockNumber) -> Option<&Competition> {
        let id = commitment.model_id.competition_or_old();
        self.parameters.competition_at(block, &id)
    }

    async fn look(&self, commitment: &Commitment, competition: &Competition) -> Event {
        let mut report = Report::default();
        let judged = self.verify(commitment, competition, &mut report).await;
        let now = shared::clock::now();
        let (uid, bytes) = (commitment.uid, report.bytes_fetched);
        let repository = commitment.model_id.repository();
        match judged {
            Ok(model) => {
                tracing::info!(%uid, repository, content_hash = %model.content_hash, bytes, "verified a model");
                let (hash, parameters) = (model.content_hash, model.parameters);
                self.lock().note_verified(commitment, hash, parameters, now);
                Event::Verified(model)
            }
            Err(rejection) => {
                let delay = self.options.update_delay;
                let outcome = self.lock().note_rejected(commitment, rejection, delay, now);
                let commitment = commitment.clone();
                match outcome {
                    Outcome::Waiting { fault, at, .. } => {
                        tracing::warn!(%uid, repository, %fault, %at, bytes, "will look at a model again");
                        Event::Retry {
                            commitment,
                            fault,
                            at,
                        }
                    }
                    Outcome::Refused { reason } => {
                        tracing::info!(%uid, repository, reason, bytes, "refused a model");
                        Event::Refused { commitment, reason }
                    }
                    Outcome::Verified { .. } => unreachable!("a rejection was noted"),
                }
            }
        }
    }

    async fn verify(
        &self,
        commitment: &Commitment,
        competition: &Competition,
        report: &mut Report,
    ) -> Judged<VerifiedModel> {
        // The subnet file is checked when it is read; an unknown architecture is not the fault of a miner.
        let rules = Rules::of(&self.parameters, competition, self.options.dtype)
            .map_err(Rejection::machine)?;
        self.verifier
            .verify_commitment(commitment, &rules, report)
            .await
    }
}
