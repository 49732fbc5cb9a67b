//! What an audit of another validator's published steps found.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;

use subnet::{BlockNumber, CompetitionId, Hotkey, Netuid, Real, Uid};

/// So many deviations of a step are kept; the others are counted.
pub const MAX_DEVIATIONS: usize = 50;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditReport {
    /// Where the records were published.
    pub place: String,
    pub netuid: Netuid,
    /// Who published them, and signed what holds.
    pub hotkey: Hotkey,
    pub audited_at: Timestamp,
    /// Our own version.
    pub version: String,
    /// Of how many steps of a competition the losses of one were computed again.
    pub every: usize,
    /// The largest deviation of a loss that counts as noise, see [`Tolerance`].
    pub tolerance: Option<f64>,
    /// Oldest first.
    pub steps: Vec<StepAudit>,
    pub verdict: Verdict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing deviates, and of every step of the sample losses were computed again.
    Holds,
    /// Nothing deviates, but of a step of the sample no loss could be computed again.
    Incomplete,
    /// Something is not as it was published.
    Deviates,
}

/// One published step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepAudit {
    pub step: u64,
    pub competition: CompetitionId,
    /// None if the record can't be read.
    pub block: Option<BlockNumber>,
    /// Models with losses of their own.
    pub models: usize,
    /// What came of computing losses again; none if the step is not of the sample, or something is wrong with it
    /// already.
    pub recomputed: Option<Recomputed>,
    pub deviations: Vec<Deviation>,
    /// Deviations beyond those kept.
    pub more: usize,
    /// What could not be looked at, and why.
    pub gaps: Vec<Gap>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Recomputed {
    /// Models whose losses were computed again.
    pub models: usize,
    /// Largest deviation of a loss.
    pub loss: Real,
    /// Largest deviation of a mean loss.
    pub mean: Real,
    /// Largest deviation of a weight that follows.
    pub weight: Real,
    /// Whether uids rank as they did.
    pub same_ranking: bool,
}

/// What deviates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviationKind {
    /// The record is missing, cut, or not what its place says.
    Record,
    /// It is not what its hotkey signed.
    Signature,
    /// Its rules are not those of the subnet file.
    Rules,
    /// Wins, weights or copies don't follow from its losses and contents.
    Score,
    /// The sample set is missing, cut, or not the one of the record.
    Samples,
    /// A loss is another when it is computed again.
    Loss,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deviation {
    pub kind: DeviationKind,
    pub uid: Option<Uid>,
    /// What it is, with the numbers.
    pub text: String,
}

/// Something that could not be looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    pub uid: Option<Uid>,
    pub reason: String,
}

/// How far losses of different machines may lie apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// A loss of one sample.
    pub loss: f64,
    /// A model's mean loss: noise goes both ways, so it is a tenth.
    pub mean: f64,
}

impl Tolerance {
    /// Takes the tolerance of a loss.
    pub fn of(loss: f64) -> Self {
        Self {
            loss,
            mean: loss / 10.0,
        }
    }

    /// Returns what was measured between CPUs and GPUs, with room: in 16 bits up to 0.07, else up to 5e-5.
    pub fn of_dtype(dtype: &str) -> Self {
        Self::of(if dtype == "float32" { 1e-3 } else { 0.1 })
    }
}

impl AuditReport {
    /// Returns what follows from the steps.
    pub fn judge(steps: &[StepAudit], is_sampled: impl Fn(u64) -> bool) -> Verdict {
        if steps.iter().any(|step| !step.deviations.is_empty()) {
            return Verdict::Deviates;
        }
        let computed = |step: &StepAudit| step.recomputed.is_some_and(|found| found.models > 0);
        let complete =
            |step: &StepAudit| step.block.is_some() && (!is_sampled(step.step) || computed(step));
        if !steps.is_empty() && steps.iter().all(complete) {
            Verdict::Holds
        } else {
            Verdict::Incomplete
        }
    }
}

impl StepAudit {
    /// An audit of a step of which nothing is known yet.
    pub fn new(step: u64, competition: CompetitionId) -> Self {
        Self {
            step,
            competition,
            block: None,
            models: 0,
            recomputed: None,
            deviations: Vec::new(),
            more: 0,
            gaps: Vec::new(),
        }
    }

    pub fn deviates(&mut self, kind: DeviationKind, uid: Option<Uid>, text: impl fmt::Display) {
        if self.deviations.len() == MAX_DEVIATIONS {
            self.more += 1;
            return;
        }
        let text = text.to_string();
        self.deviations.push(Deviation { kind, uid, text });
    }

    pub fn lacks(&mut self, uid: Option<Uid>, reason: impl fmt::Display) {
        if self.gaps.len() < MAX_DEVIATIONS {
            let reason = reason.to_string();
            self.gaps.push(Gap { uid, reason });
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Holds => "holds",
            Self::Incomplete => "incomplete",
            Self::Deviates => "DEVIATES",
        })
    }
}

impl fmt::Display for DeviationKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Record => "record",
            Self::Signature => "signature",
            Self::Rules => "rules",
            Self::Score => "score",
            Self::Samples => "samples",
            Self::Loss => "loss",
        })
    }
}
