//! How commands compute the losses of a recorded step again: models and tokenizer as the record names them, fetched
//! through the same checks as any commitment.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use clap::Args;
use model::ContentHash;
use shared::{Exit, Failure, term};

use super::{
    flags::{ChainFlags, Devices, FetchFlags, HubFlags, StoreFlags, WorkerFlag},
    workers,
};
use crate::step::replay::{Findings, Replay};
use ::samples::SampleSet;
use eval::Evaluator;
use models::{
    Rejection, Report, Rules, Store, Tokenizers, Verifier,
    verify::{Assertion, Reach},
};
use report::{
    StepRecord,
    step_record::{ModelRow, Outcome},
};
use subnet::{Competition, Fault, ModelId, Parameters, Uid};

/// What it takes to compute losses again.
#[derive(Debug, Args)]
pub(crate) struct RecomputeFlags {
    /// Minutes one model may take [default: the subnet file's limit of a step]
    #[arg(long = "step-minutes", value_name = "N")]
    step_minutes: Option<u64>,
    /// Fetch nothing: models and tokenizer must be on disk
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    worker: WorkerFlag,
    #[command(flatten)]
    chain: ChainFlags,
    #[command(flatten)]
    store: StoreFlags,
    #[command(flatten)]
    fetch: FetchFlags,
    #[command(flatten)]
    hub: HubFlags,
}

impl RecomputeFlags {
    /// Reads the subnet file.
    pub(super) fn parameters(&self) -> Result<Parameters, Failure> {
        self.chain.parameters()
    }

    /// Computes the losses of these uids again, of all if none is named.
    pub(super) async fn replay(
        &self,
        record: &StepRecord,
        parameters: &Parameters,
        set: &SampleSet,
        uids: &BTreeSet<Uid>,
        devices: &Devices,
    ) -> Result<Findings, Failure> {
        let competition = parameters
            .competition_at(record.block, &record.competition)
            .ok_or_else(|| {
                Failure::new(
                    Exit::Config,
                    format_args!("the subnet file has no competition {}", record.competition),
                )
                .hint("--subnet names the file the validator ran with")
            })?;
        let store = self.store.open()?;
        let tokenizer = self
            .tokenizer(record, parameters, competition, &store)
            .await?;
        let minutes = self.step_minutes.unwrap_or(parameters.limits.step_minutes);
        let replay = Replay {
            record,
            set,
            architecture: competition
                .architecture
                .parse()
                .map_err(|error| Failure::new(Exit::Config, error))?,
            compatibility: parameters.compatibility,
            norms: parameters.norms,
            tokenizer,
            models: self
                .models(record, parameters, competition, &store, uids)
                .await?,
            uids: uids.clone(),
            limit: Duration::from_secs(minutes.saturating_mul(60)),
        };
        let readable = [store.root().to_owned()];
        let options = workers::options(&self.worker, &devices.first(), readable)?;
        let evaluator = Evaluator::new(options);
        let findings = replay.run(&evaluator).await;
        evaluator.shut_down().await;
        findings.map_err(Failure::from)
    }

    /// Returns the folder of the fixed tokenizer; it must be the one the record names.
    async fn tokenizer(
        &self,
        record: &StepRecord,
        parameters: &Parameters,
        competition: &Competition,
        store: &Store,
    ) -> Result<Option<PathBuf>, Failure> {
        let Some(wanted) = &competition.tokenizer else {
            return Ok(None);
        };
        let is_recorded = |directory: &PathBuf| {
            let hash = ContentHash::of_directory(directory);
            hash.is_ok_and(|hash| record.plans.contains_key(&hash.to_string()))
        };
        let here = store.tokenizers(&wanted.repository);
        if let Some(directory) = here.iter().find(|directory| is_recorded(directory)) {
            return Ok(Some(directory.clone()));
        }
        let directory = if self.offline {
            let missing = || offline(format_args!("the tokenizer {wanted}"));
            here.into_iter().next().ok_or_else(missing)?
        } else {
            let hub = self.fetch.hub(&self.hub)?;
            let tokenizers = Tokenizers {
                hub: Some(&hub),
                store,
                compatibility: parameters.compatibility,
            };
            let found = tokenizers.find(wanted, None).await;
            found.map_err(Failure::from)?.dir
        };
        if !is_recorded(&directory) {
            tracing::warn!(tokenizer = %wanted, "the tokenizer is not the one the record names");
        }
        Ok(Some(directory))
    }

    /// Returns the folders of the models asked for, fetching those that are not on disk, or why
    /// one can't be had.
    async fn models(
        &self,
        record: &StepRecord,
        parameters: &Parameters,
        competition: &Competition,
        store: &Store,
        uids: &BTreeSet<Uid>,
    ) -> Result<BTreeMap<ContentHash, Result<PathBuf, Fault>>, Failure> {
        let dtype = record.engine.dtype.parse();
        let dtype = dtype.map_err(|error| Failure::new(Exit::BadInput, error))?;
        let rules = Rules::of(parameters, competition, dtype)
            .map_err(|error| Failure::of(Exit::Config, &error))?;
        let verifier = Verifier {
            hub: self.fetch.hub(&self.hub)?,
            store: Some(store.clone()),
        };
        let mut found = BTreeMap::new();
        for (uid, row) in &record.models {
            let asked = uids.is_empty() || uids.contains(uid);
            let Ok(content) = row.content.parse::<ContentHash>() else {
                continue;
            };
            if !asked || row.outcome != Outcome::Evaluated || found.contains_key(&content) {
                continue;
            }
            let stored = store
                .model(&content)
                .map_err(|error| Failure::of(Exit::Machine, &error))?;
            let directory = match stored {
                Some(stored) => Ok(stored.dir),
                None if self.offline => {
                    return Err(offline(format_args!("the model of uid {uid}")));
                }
                None => fetch(&verifier, &rules, row, content).await,
            };
            found.insert(content, directory);
        }
        Ok(found)
    }
}

/// Fetches a model of the record through the same checks as any commitment.
async fn fetch(
    verifier: &Verifier,
    rules: &Rules,
    row: &ModelRow,
    content: ContentHash,
) -> Result<PathBuf, Fault> {
    let model_id: ModelId = row.model.parse().map_err(Fault::model)?;
    let name = model_id.repository();
    let bar = term::byte_bar(0, name.clone());
    term::note(format_args!("fetching {name}"));
    let assertion = Assertion {
        model_id,
        hotkey: Some(row.hotkey),
    };
    let reach = Reach::Download { bar: bar.clone() };
    let mut report = Report::default();
    let judged = verifier.verify(&assertion, rules, reach, &mut report).await;
    bar.finish_and_clear();
    match judged {
        Ok(Some(stored)) if stored.record.content_hash == content => Ok(stored.dir),
        Ok(_) => Err(Fault::outside(format_args!(
            "{name} on the hub is not what was evaluated"
        ))),
        Err(Rejection::Retry { fault, .. }) => Err(fault),
        Err(Rejection::Refused { reason, .. }) => Err(Fault::outside(format_args!(
            "{name} can't be had any more: {reason}"
        ))),
    }
}

fn offline(what: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::BadInput, format_args!("{what} is not on disk"))
        .hint("without --offline it is fetched from the hub; --uids leaves models out")
}
