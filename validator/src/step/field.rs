//! The field of a step: whose models take part, and which of them are copies.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use model::ContentHash;

use crate::state::State;
use chain::ChainSnapshot;
use score::{Claim, copies};
use subnet::{BlockNumber, CompetitionId, Hotkey, ModelId, Uid};

/// A verified model of a uid, ready to be evaluated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub hotkey: Hotkey,
    /// Block of the commitment.
    pub block: BlockNumber,
    pub model: ModelId,
    /// Hash of what lies on disk.
    pub content: ContentHash,
    pub directory: PathBuf,
    /// Parameter count, tied tensors once.
    pub parameters: u64,
}

/// The models of one step.
#[derive(Debug, Clone, Default)]
pub struct Field {
    /// Every uid that takes part.
    pub candidates: BTreeMap<Uid, Candidate>,
    /// The copies among them, each with the uid of its original.
    pub copies: BTreeMap<Uid, Uid>,
}

impl Field {
    /// Chooses from the stored models of a competition: those of the pool, and those not
    /// evaluated yet whose commitment is news.
    pub fn of(
        stored: BTreeMap<Uid, Candidate>,
        competition: &CompetitionId,
        state: &State,
    ) -> Self {
        let pool = state.pools.get(competition);
        let candidates: BTreeMap<Uid, Candidate> = stored
            .into_iter()
            .filter(|(uid, candidate)| {
                let pooled = pool.and_then(|pool| pool.get(uid)) == Some(&candidate.hotkey);
                pooled || is_pending(state, *uid, candidate)
            })
            .collect();
        let claims = candidates.iter().map(|(uid, candidate)| {
            let claim = Claim {
                block: candidate.block,
                content: candidate.content.to_string(),
            };
            (*uid, claim)
        });
        let copies = copies(&claims.collect());
        Self { candidates, copies }
    }

    /// Returns whether a model is here that no step has seen.
    pub fn has_news(&self, state: &State) -> bool {
        self.candidates
            .iter()
            .any(|(uid, candidate)| is_pending(state, *uid, candidate))
    }

    /// Leaves out every uid that changed hands since the step began: its model is not its own.
    #[must_use]
    pub fn still_owned(mut self, now: &ChainSnapshot) -> Self {
        self.candidates.retain(|uid, candidate| {
            let owned = now
                .by_uid(*uid)
                .is_some_and(|neuron| neuron.hotkey == candidate.hotkey);
            if !owned {
                tracing::info!(%uid, "the uid changed hands during the step: it gets nothing");
            }
            owned
        });
        self
    }

    /// Returns the models to be evaluated, one for each content, by the uid it counts for.
    pub fn originals(&self) -> impl Iterator<Item = (Uid, &Candidate)> {
        self.candidates
            .iter()
            .map(|(uid, candidate)| (*uid, candidate))
            .filter(|(uid, _)| !self.copies.contains_key(uid))
    }

    /// Returns the contents of all models, so that none is removed while the step runs.
    pub fn contents(&self) -> BTreeSet<ContentHash> {
        self.candidates
            .values()
            .map(|candidate| candidate.content)
            .collect()
    }
}

fn is_pending(state: &State, uid: Uid, candidate: &Candidate) -> bool {
    let seen = state
        .evaluated
        .get(&uid)
        .is_some_and(|seen| seen.hotkey == candidate.hotkey && seen.block == candidate.block);
    !seen && candidate.block >= state.news_from
}
