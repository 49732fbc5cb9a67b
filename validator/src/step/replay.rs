//! A step once more: the losses of its record computed again, and what follows from the difference.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use model::{
    Architecture, Attention, Compatibility, ContentHash, Conversation, Dtype, PackingPlan,
    norms::NormLimits,
    protocol::{Evaluate, ModelSource, Tokenize},
};
use serde::Serialize;

use super::scoring;
use eval::{Evaluator, TimeLimits};
use report::{
    StepRecord,
    step_record::{ModelRow, Outcome},
};
use samples::SampleSet;
use subnet::{Fault, Real, Uid};

/// What a replay needs besides the record.
#[derive(Debug)]
pub struct Replay<'a> {
    pub record: &'a StepRecord,
    pub set: &'a SampleSet,
    /// The architecture of its competition.
    pub architecture: Architecture,
    /// What is accepted of models.
    pub compatibility: Compatibility,
    /// Limits on the weights' norms.
    pub norms: NormLimits,
    /// Folder of the fixed tokenizer, if the competition has one.
    pub tokenizer: Option<PathBuf>,
    /// Folders of the models, or why one can't be had.
    pub models: BTreeMap<ContentHash, Result<PathBuf, Fault>>,
    /// The uids to compute again; all if empty.
    pub uids: BTreeSet<Uid>,
    /// How long one model may take.
    pub limit: Duration,
}

#[derive(Debug, Clone, Serialize)]
pub struct Findings {
    pub step: u64,
    /// What was found for each uid with losses of its own.
    pub models: BTreeMap<Uid, Finding>,
    /// Whether ranking by win rate and the uids kept come out the same.
    pub ranking: Ranking,
    /// Largest deviation of a weight.
    pub weight_deviation: Real,
}

/// What became of the ranking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ranking {
    /// With the losses computed again it comes out the same.
    Stands,
    Changed,
    /// No loss was computed again.
    Unknown,
}

impl Findings {
    /// Returns how many models' losses were computed again.
    pub fn computed(&self) -> usize {
        let computed = |finding: &&Finding| matches!(finding, Finding::Computed { .. });
        self.models.values().filter(computed).count()
    }
}

/// What was found for one model.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// Its losses were computed again.
    Computed {
        /// Largest difference to a recorded loss; infinite where only one is finite.
        deviation: Real,
        /// Difference to the recorded mean loss; infinite where only one is finite.
        mean_deviation: Real,
        /// Whether samples were tokenized and packed as recorded.
        same_plan: bool,
    },
    /// It was not asked for.
    Skipped(String),
    /// It could not be fetched or computed.
    Failed(Fault),
}

impl Replay<'_> {
    /// Computes the losses again and scores the step with them.
    pub async fn run(&self, evaluator: &Evaluator) -> Result<Findings, Fault> {
        let mut again = self.record.clone();
        let mut models = BTreeMap::new();
        for (uid, row) in &self.record.models {
            if row.outcome != Outcome::Evaluated {
                continue;
            }
            let finding = match self.directory(*uid, row) {
                None => Finding::Skipped("not asked for".to_owned()),
                Some(Err(fault)) => Finding::Failed(fault),
                Some(Ok((content, directory))) => {
                    match self.losses(evaluator, row, content, directory).await {
                        Err(fault) => Finding::Failed(fault),
                        Ok((losses, same_plan)) => {
                            let deviation = deviation(&row.losses, &losses).into();
                            let mean_deviation = mean_deviation(row, &losses).into();
                            if let Some(row) = again.models.get_mut(uid) {
                                row.losses = losses;
                            }
                            Finding::Computed {
                                deviation,
                                mean_deviation,
                                same_plan,
                            }
                        }
                    }
                }
            };
            models.insert(*uid, finding);
        }
        scoring::score(&mut again);
        let same = ranking(&again) == ranking(self.record) && again.kept == self.record.kept;
        let mut findings = Findings {
            step: self.record.step,
            models,
            ranking: if same {
                Ranking::Stands
            } else {
                Ranking::Changed
            },
            weight_deviation: deviation(&self.record.weights_after, &again.weights_after).into(),
        };
        if findings.computed() == 0 {
            findings.ranking = Ranking::Unknown;
        }
        Ok(findings)
    }

    /// Returns content and folder of a uid's model; `None` if it was not asked for.
    fn directory(&self, uid: Uid, row: &ModelRow) -> Option<Result<(ContentHash, PathBuf), Fault>> {
        if !self.uids.is_empty() && !self.uids.contains(&uid) {
            return None;
        }
        let found = row.content.parse().map_err(Fault::machine);
        Some(found.and_then(|content: ContentHash| {
            let unknown = || Fault::machine("its model was not looked for");
            let directory = self.models.get(&content).cloned().ok_or_else(unknown)?;
            Ok((content, directory?))
        }))
    }

    async fn losses(
        &self,
        evaluator: &Evaluator,
        row: &ModelRow,
        content: ContentHash,
        directory: PathBuf,
    ) -> Result<(Vec<Real>, bool), Fault> {
        let engine = &self.record.engine;
        let patience = TimeLimits::within(self.limit);
        let conversations: Vec<Conversation> = self
            .set
            .samples
            .iter()
            .map(|sample| sample.conversation.clone())
            .collect();
        let tokenize = Tokenize {
            directory: self.tokenizer.clone().unwrap_or_else(|| directory.clone()),
            compatibility: self.compatibility,
            sequence_length: self.record.rules.sequence_length,
            conversations,
        };
        let samples = evaluator.tokenize(tokenize, patience, &|_| ()).await?;
        let plan = PackingPlan::new(&samples, engine.pack_tokens);
        let recorded = self.record.plans.get(&row.tokenizer);
        let same_plan = recorded.is_some_and(|recorded| recorded.digest == plan.digest());
        let model = ModelSource {
            directory,
            content_hash: Some(content),
            architecture: self.architecture,
            dtype: engine.dtype.parse::<Dtype>().map_err(Fault::config)?,
            attention: engine
                .attention
                .parse::<Attention>()
                .map_err(Fault::config)?,
            compatibility: self.compatibility,
            max_parameters: None,
            norm_limits: self.norms,
        };
        let request = Evaluate {
            model,
            samples,
            plan,
            next: None,
        };
        let evaluation = evaluator.evaluate(request, patience, &|_| ()).await?;
        Ok((evaluation.losses.into_iter().map(Real).collect(), same_plan))
    }
}

/// Returns the uids by win rate, as the pool ranks them.
fn ranking(record: &StepRecord) -> Vec<Uid> {
    let mut uids: Vec<(&Uid, &ModelRow)> = record.models.iter().collect();
    uids.sort_by(|(uid_a, a), (uid_b, b)| {
        let rate = b.score.win_rate.total_cmp(&a.score.win_rate);
        rate.then_with(|| (a.block, uid_a).cmp(&(b.block, uid_b)))
    });
    uids.into_iter().map(|(uid, _)| *uid).collect()
}

/// Returns the difference of the mean losses: noise of another machine goes both ways, a thumb on the scales does not.
fn mean_deviation(row: &ModelRow, losses: &[Real]) -> f64 {
    let again = ModelRow {
        losses: losses.to_vec(),
        ..row.clone()
    };
    deviation(&[Real(row.mean_loss())], &[Real(again.mean_loss())])
}

/// Returns the largest difference between two lists of numbers; infinite if their lengths differ
/// or only one of two numbers is finite.
pub fn deviation(a: &[Real], b: &[Real]) -> f64 {
    if a.len() != b.len() {
        return f64::INFINITY;
    }
    let pairs = a.iter().zip(b);
    pairs.fold(0.0, |worst: f64, (a, b)| {
        let difference = if a == b {
            0.0
        } else if a.0.is_finite() && b.0.is_finite() {
            (a.0 - b.0).abs()
        } else {
            f64::INFINITY
        };
        worst.max(difference)
    })
}
