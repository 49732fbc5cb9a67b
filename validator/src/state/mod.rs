//! What survives a restart: running weights, pools, losses of the step in progress.

mod error;
mod file;
mod losses;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::{
    error::StateError,
    file::{Kept, peek, read},
};
use models::TokenizerPin;
use report::{
    StepRecord,
    step_record::{Engine, Plan, Receipt},
};
use score::Weights;
use subnet::{BlockNumber, CompetitionId, Hotkey, Netuid, Real, Uid};

/// The current format. It rises when the previous release would misread the file; fields may be
/// added without. A release reads this format and one above it, so that a rollback works.
pub const FORMAT: u32 = 1;

/// More strikes than that say nothing new.
const MAX_STRIKES: usize = 8;

/// Whose state it is: state of another subnet, hotkey or chain is never used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub netuid: Netuid,
    pub hotkey: Hotkey,
    /// Hash of the chain's first block.
    pub genesis: String,
}

/// The state of a validator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The format, see [`FORMAT`].
    pub format: u32,
    pub identity: Identity,
    pub written_at: Timestamp,
    /// Number of the next step.
    pub step: u64,
    /// Steps completed since the weights were last taken from elsewhere.
    pub steps_done: u64,
    pub weights: Weights,
    /// Block of the last step that changed them, or of the consensus they were taken from.
    pub weights_block: BlockNumber,
    /// Block at which we were last alive: until then the weights were our opinion.
    #[serde(default)]
    pub alive_at: BlockNumber,
    /// Hotkeys by uid at that block: a uid that changed hands since has no weight.
    #[serde(default)]
    pub owners: Vec<Hotkey>,
    /// Commitments before this block are not news, unless their uid is in a pool.
    pub news_from: BlockNumber,
    /// Uids evaluated in every step of a competition.
    #[serde(default)]
    pub pools: BTreeMap<CompetitionId, BTreeMap<Uid, Hotkey>>,
    /// The commitment last evaluated of each uid; another one is pending.
    #[serde(default)]
    pub evaluated: BTreeMap<Uid, Evaluated>,
    /// The last turn of each competition: no second step on the same samples without news.
    #[serde(default)]
    pub turns: BTreeMap<CompetitionId, BlockNumber>,
    #[serde(default)]
    pub open: Option<OpenStep>,
    /// Losses known for the sample set last used, by competition. They have a file of their own; the
    /// release before kept them here.
    #[serde(default, skip_serializing)]
    pub known: BTreeMap<CompetitionId, KnownLosses>,
    /// Work that brought down workers while others were well, by its subject: how often, and how.
    #[serde(default)]
    pub strikes: BTreeMap<String, Vec<String>>,
    /// Work that brought down a worker since anything like it went through: perhaps the machine is
    /// the reason.
    #[serde(default)]
    pub suspects: BTreeMap<String, String>,
    /// The fixed tokenizer that worked last, by repository: no other is taken for it.
    #[serde(default)]
    pub tokenizers: BTreeMap<String, TokenizerPin>,
    /// Sample sets that no step could use, the last ones.
    #[serde(default)]
    pub unusable: Vec<String>,
    /// The last weight set that was confirmed.
    #[serde(default)]
    pub receipt: Option<Receipt>,
}

/// A commitment that was evaluated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evaluated {
    pub hotkey: Hotkey,
    /// In which block.
    pub block: BlockNumber,
}

/// A step that was begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenStep {
    pub step: u64,
    pub competition: CompetitionId,
    pub started_at: Timestamp,
    /// The seed of its samples.
    pub seed: u64,
    /// The block that gave the seed, if one did.
    pub seed_block: Option<BlockNumber>,
    /// What is written in [`State::turns`] once it is done.
    pub turn: BlockNumber,
    /// Digest of its samples, kept in a file of that name; empty if none were drawn yet.
    #[serde(default)]
    pub samples: String,
}

/// Losses on one sample set, computed in one way.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct KnownLosses {
    /// Digest of the sample set.
    pub samples: String,
    pub engine: Engine,
    pub models: BTreeMap<String, ModelLosses>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelLosses {
    /// Hash of the tokenizer.
    pub tokenizer: String,
    /// How the samples were tokenized and packed.
    pub plan: Plan,
    pub parameters: u64,
    pub losses: Vec<Real>,
    pub seconds: f64,
}

impl State {
    /// Makes the state of a validator that knows nothing yet.
    pub fn new(identity: Identity) -> Self {
        Self {
            format: FORMAT,
            identity,
            written_at: Timestamp::UNIX_EPOCH,
            step: 0,
            steps_done: 0,
            weights: Weights::default(),
            weights_block: 0,
            alive_at: 0,
            owners: Vec::new(),
            news_from: 0,
            pools: BTreeMap::new(),
            evaluated: BTreeMap::new(),
            turns: BTreeMap::new(),
            open: None,
            known: BTreeMap::new(),
            strikes: BTreeMap::new(),
            suspects: BTreeMap::new(),
            tokenizers: BTreeMap::new(),
            unusable: Vec::new(),
            receipt: None,
        }
    }

    /// Returns the losses already known for a sample set under this engine; none otherwise.
    pub fn known_losses(
        &self,
        competition: &CompetitionId,
        samples: &str,
        engine: &Engine,
    ) -> BTreeMap<String, ModelLosses> {
        self.known
            .get(competition)
            .filter(|known| known.samples == samples && known.engine == *engine)
            .map(|known| known.models.clone())
            .unwrap_or_default()
    }

    /// Remembers that work like others' went through: whatever brought down a worker since the last
    /// such work was not the machine, and counts against its subject. `work` begins the names of
    /// such work, and all of `name` is the one that went through; `unproven` was under way with it.
    pub fn went_through(&mut self, work: &str, name: &str, unproven: &BTreeSet<String>) {
        self.strikes.remove(name);
        self.suspects.remove(name);
        let all = std::mem::take(&mut self.suspects);
        for (suspect, fault) in all {
            if !suspect.starts_with(work) || unproven.contains(&suspect) {
                self.suspects.insert(suspect, fault);
                continue;
            }
            let strikes = self.strikes.entry(suspect).or_default();
            if strikes.len() < MAX_STRIKES {
                strikes.push(fault);
            }
        }
    }

    /// Forgets what brought down workers, but for the subjects that somebody still commits to.
    pub fn forgive(&mut self, is_committed: impl Fn(&str) -> bool) {
        self.strikes.retain(|name, _| is_committed(name));
        self.suspects.retain(|name, _| is_committed(name));
    }

    /// Takes over what a completed step decided. Members of the pool that took no part, because
    /// they are not on disk yet or the machine failed them, stay.
    ///
    /// The record is the step's commit: one that is in the journal and not in the state, because
    /// we were killed between the two, is taken over at the next start.
    pub fn absorb(&mut self, record: &StepRecord, turn: BlockNumber) {
        self.step = record.step + 1;
        self.steps_done += 1;
        self.weights = record.weights_after.iter().copied().collect();
        self.weights_block = record.block;
        self.alive_at = self.alive_at.max(record.block);
        self.open = None;
        self.turns.insert(record.competition.clone(), turn);
        let raced = record.entrants();
        let pool = self.pools.entry(record.competition.clone()).or_default();
        pool.retain(|uid, _| !raced.contains_key(uid));
        let kept = record.kept.iter();
        pool.extend(kept.filter_map(|uid| Some((*uid, record.models.get(uid)?.hotkey))));
        for (uid, row) in &record.models {
            if raced.contains_key(uid) {
                let (hotkey, block) = (row.hotkey, row.block);
                self.evaluated.insert(*uid, Evaluated { hotkey, block });
            }
        }
    }

    /// Cuts or pads the weights to the metagraph and takes the weight of every uid that changed
    /// hands. Returns those uids.
    pub fn follow(&mut self, hotkeys: &[Hotkey]) -> Vec<Uid> {
        let changed: Vec<Uid> = (0..)
            .map(Uid)
            .zip(self.owners.iter().zip(hotkeys))
            .filter(|(_, (before, now))| before != now)
            .map(|(uid, _)| uid)
            .collect();
        let mut weights = std::mem::take(&mut self.weights).resized(hotkeys.len());
        for uid in &changed {
            weights = weights.without(*uid);
            for pool in self.pools.values_mut() {
                pool.remove(uid);
            }
        }
        self.weights = weights;
        self.owners = hotkeys.to_vec();
        changed
    }
}
