//! Where a validator starts from: its own state, the chain's consensus, or nothing.

use std::collections::BTreeSet;

use crate::state::{Identity, State};
use chain::ChainSnapshot;
use score::{Weights, consensus_pool, tempo};
use subnet::{CompetitionId, Hotkey, Parameters, Uid};

/// Returns the state to start with, and why that one, in words.
pub(super) fn choose(
    saved: Option<State>,
    genesis: bool,
    identity: Identity,
    snapshot: &ChainSnapshot,
    parameters: &Parameters,
) -> (State, String) {
    let tempo = u64::from(snapshot.hyperparameters.tempo);
    let consensus_block = tempo::last_consensus(parameters.start_block, tempo, snapshot.block);
    if genesis {
        return (
            State::new(identity),
            "from nothing, as --genesis asks".to_owned(),
        );
    }
    let consensus = consensus(snapshot);
    let reached = consensus_block.filter(|_| consensus.iter().any(|share| *share > 0));
    match (saved, reached) {
        (Some(state), Some(block)) if state.alive_at < block => {
            let why = format!(
                "from the consensus of block {block}: the state on disk is older, of block {}",
                state.alive_at
            );
            (
                from_consensus(
                    Some(state),
                    identity,
                    block,
                    &consensus,
                    snapshot,
                    parameters,
                ),
                why,
            )
        }
        (Some(state), _) => {
            let why = format!(
                "from the state on disk of block {}, step {}: the consensus is not fresher",
                state.alive_at, state.step
            );
            (state, why)
        }
        (None, Some(block)) => {
            let why = format!("from the consensus of block {block}: there is no state on disk");
            (
                from_consensus(None, identity, block, &consensus, snapshot, parameters),
                why,
            )
        }
        (None, None) => (
            State::new(identity),
            "from nothing: there is neither state on disk nor consensus on the chain".to_owned(),
        ),
    }
}

/// Returns the consensus, indexed by uid.
fn consensus(snapshot: &ChainSnapshot) -> Vec<u16> {
    let mut shares = vec![0; uids(snapshot)];
    for neuron in &snapshot.neurons {
        if let Some(share) = shares.get_mut(usize::from(neuron.uid.0)) {
            *share = neuron.consensus;
        }
    }
    shares
}

/// Returns how many uids the metagraph has.
pub(super) fn uids(snapshot: &ChainSnapshot) -> usize {
    snapshot
        .neurons
        .last()
        .map_or(0, |neuron| usize::from(neuron.uid.0) + 1)
}

/// Returns the hotkeys, indexed by uid; all zeros where there is no neuron.
pub(super) fn hotkeys(snapshot: &ChainSnapshot) -> Vec<Hotkey> {
    let mut hotkeys = vec![Hotkey([0; 32]); uids(snapshot)];
    for neuron in &snapshot.neurons {
        if let Some(hotkey) = hotkeys.get_mut(usize::from(neuron.uid.0)) {
            *hotkey = neuron.hotkey;
        }
    }
    hotkeys
}

/// Takes weights and pools from the consensus. Step numbers go on from the old state, so that no
/// record is numbered twice.
fn from_consensus(
    old: Option<State>,
    identity: Identity,
    block: u64,
    consensus: &[u16],
    snapshot: &ChainSnapshot,
    parameters: &Parameters,
) -> State {
    let mut state = State::new(identity);
    if let Some(old) = old {
        state.step = old.step;
        state.strikes = old.strikes;
        state.suspects = old.suspects;
        state.tokenizers = old.tokenizers;
        state.unusable = old.unusable;
        state.known = old.known;
        state.receipt = old.receipt;
    }
    let shares = consensus
        .iter()
        .map(|share| f32::from(*share) / f32::from(u16::MAX));
    state.weights = Weights::from(shares.collect::<Vec<f32>>());
    state.weights_block = block;
    state.alive_at = block;
    state.news_from = block;
    state.owners = hotkeys(snapshot);
    for competition in parameters.competitions_at(snapshot.block) {
        let named = named(snapshot, &competition.id);
        let pool = consensus_pool(&named, consensus, parameters.sample_min)
            .into_iter()
            .filter_map(|uid| Some((uid, snapshot.by_uid(uid)?.hotkey)));
        state.pools.insert(competition.id.clone(), pool.collect());
    }
    state
}

fn named(snapshot: &ChainSnapshot, competition: &CompetitionId) -> BTreeSet<Uid> {
    snapshot
        .commitments
        .iter()
        .filter(|commitment| {
            let model = commitment.model.as_ref();
            model.is_ok_and(|model| model.competition_or_old() == *competition)
        })
        .map(|commitment| commitment.uid)
        .collect()
}
