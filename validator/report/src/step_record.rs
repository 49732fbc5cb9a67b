//! The step record: everything about one step, enough to compute it again. All reports read it only.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use score::{Entrant, WinRow};
use subnet::{
    BlockNumber, CompetitionId, Fault, FaultKind, Hotkey, Netuid, Parameters, Real, Uid,
    parameters::Epsilon,
};

/// The current format. It rises when an old reader would misread a new record; fields may be
/// added without.
pub const FORMAT: u32 = 1;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// The format, see [`FORMAT`].
    pub format: u32,
    /// The validator's version, with its commit.
    pub version: String,
    pub netuid: Netuid,
    pub hotkey: Hotkey,
    /// Number of the step; it never falls.
    pub step: u64,
    pub competition: CompetitionId,
    /// Block of the chain snapshot that the step worked on.
    pub block: BlockNumber,
    /// Hash of that block.
    pub block_hash: String,
    pub started_at: Timestamp,
    pub finished_at: Timestamp,
    /// The rules it was scored by.
    pub rules: Rules,
    /// What the models were evaluated on.
    pub samples: Samples,
    pub engine: Engine,
    /// The walls around the workers that stood, then those that did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<String>,
    /// How the samples were tokenized and packed, by tokenizer hash.
    pub plans: BTreeMap<String, Plan>,
    /// The models of the step.
    pub models: BTreeMap<Uid, ModelRow>,
    /// Models of this competition refused since its last step.
    #[serde(default)]
    pub refused: Vec<Refusal>,
    /// Running weights before the step, indexed by uid.
    pub weights_before: Vec<Real>,
    pub weights_after: Vec<Real>,
    /// Uids that stay for the next step of the competition.
    pub kept: Vec<Uid>,
    /// What models answered to a prompt, with `--do_sample`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub generated: BTreeMap<Uid, Generated>,
    /// The last weight set confirmed before the step ended.
    #[serde(default)]
    pub receipt: Option<Receipt>,
    /// Seconds by phase.
    #[serde(default)]
    pub timings: BTreeMap<String, f64>,
}

impl StepRecord {
    /// Returns how long the attempt that was completed took, in seconds, whatever the wall clock
    /// did meanwhile.
    pub fn seconds(&self) -> f64 {
        self.timings.values().sum()
    }
}

/// The rules of the step, from the subnet file and flags.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rules {
    /// Head start of the older model.
    pub epsilon: Epsilon,
    pub temperature: f64,
    /// Share of the old weights kept.
    pub alpha: f64,
    /// What the step's weights add up to: number of competitions times reward share.
    pub scale: f64,
    /// Models kept for the next step.
    pub sample_min: usize,
    /// Longest conversation, in tokens.
    pub sequence_length: usize,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Samples {
    /// The seed it was drawn with: a whole number beyond what JSON readers hold exactly.
    pub seed: String,
    /// The block whose hash gave the seed, if one did.
    pub seed_block: Option<BlockNumber>,
    /// Age of the data in seconds, if the sources failed and a cache stood in.
    #[serde(default)]
    pub cached_age: Option<u64>,
    /// Its sources, as `--samples` takes them.
    pub sources: Vec<String>,
    pub digest: String,
    /// Ids of the samples, in order.
    pub ids: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Engine {
    pub version: String,
    /// The device, such as `cuda:0`.
    pub device: String,
    /// The number type, such as `bfloat16`.
    pub dtype: String,
    pub attention: String,
    /// Tokens packed into one forward pass at most.
    pub pack_tokens: usize,
}

/// Tokens of the sample set under one tokenizer.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Plan {
    /// The tokenizer: a repository, or the content hash of the model that brought it.
    pub tokenizer: String,
    /// Digest of the packing plan.
    pub digest: String,
    /// Tokens in all.
    pub tokens: u64,
}

/// One model of the step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelRow {
    pub hotkey: Hotkey,
    /// Block of its commitment.
    pub block: BlockNumber,
    pub model: String,
    /// Hash of the content evaluated.
    pub content: String,
    /// Parameter count, tied tensors once.
    pub parameters: u64,
    /// Hash of the tokenizer used; empty if it never came to that.
    #[serde(default)]
    pub tokenizer: String,
    pub outcome: Outcome,
    /// Loss per sample; empty unless evaluated.
    pub losses: Vec<Real>,
    pub score: WinRow,
    /// Its share of the softmax.
    pub step_weight: Real,
    /// Its running weight after the step.
    pub weight: Real,
    /// Seconds of evaluation; 0 if the losses were known already.
    pub seconds: f64,
}

/// What became of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Evaluated,
    /// It has the content of an older commitment, whose uid this is.
    CopyOf(Uid),
    /// It could not be evaluated; only a fault of the model costs it.
    Failed(Fault),
}

/// A model that did not get as far as being evaluated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub uid: Uid,
    pub hotkey: Hotkey,
    /// Block of the commitment.
    pub block: BlockNumber,
    pub model: String,
    pub reason: String,
}

/// What a model answered to the prompt of a sample.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generated {
    pub prompt: String,
    pub response: String,
    pub truth: String,
}

/// A weight set as the chain has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Block of inclusion.
    pub block: BlockNumber,
    pub extrinsic: String,
    /// How often it was tried.
    pub attempts: u32,
    /// What is stored on the chain: uid and weight.
    pub stored: Vec<(Uid, u16)>,
}

impl Rules {
    /// Returns the rules for a competition of this reward share, one of `competitions`.
    pub fn of(parameters: &Parameters, competitions: usize, reward_share: f64) -> Self {
        Self {
            epsilon: parameters.epsilon,
            temperature: parameters.temperature,
            alpha: parameters.alpha,
            scale: competitions as f64 * reward_share,
            sample_min: parameters.sample_min,
            sequence_length: parameters.sequence_length,
        }
    }
}

impl StepRecord {
    /// Returns the models as they entered the race. Those that failed for no fault of their own
    /// did not.
    pub fn entrants(&self) -> BTreeMap<Uid, Entrant> {
        let raced = |row: &ModelRow| match &row.outcome {
            Outcome::Evaluated | Outcome::CopyOf(_) => true,
            Outcome::Failed(fault) => fault.kind == FaultKind::Model,
        };
        self.models
            .iter()
            .filter(|(_, row)| raced(row))
            .map(|(uid, row)| (*uid, row.entrant()))
            .collect()
    }
}

impl ModelRow {
    /// Returns the mean loss over the samples; NaN without any.
    pub fn mean_loss(&self) -> f64 {
        self.losses.iter().map(|loss| loss.0).sum::<f64>() / self.losses.len() as f64
    }

    /// Returns the perplexity, `exp` of the mean loss.
    pub fn perplexity(&self) -> f64 {
        self.mean_loss().exp()
    }

    /// Returns the row as it enters the race.
    pub fn entrant(&self) -> Entrant {
        Entrant {
            block: Some(self.block),
            losses: self.losses.iter().map(|loss| loss.0).collect(),
        }
    }
}
