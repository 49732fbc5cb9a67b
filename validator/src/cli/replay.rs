//! `validator replay`: compute the losses of a recorded step again.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use model::ContentHash;
use shared::{Exit, Failure, cli::FullPath, term};

use super::{
    flags::{ChainFlags, Devices, FetchFlags, HubFlags, LoggingFlags, StoreFlags, WorkerFlag},
    records::RecordFlags,
    runtime::block_on,
    workers,
};
use crate::step::{
    replay::{Finding, Findings, Ranking, Replay},
    samples,
};
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

/// Compute the losses of a recorded step again and compare
#[derive(Debug, clap::Args)]
pub(crate) struct ReplayArgs {
    #[command(flatten)]
    record: RecordFlags,
    /// Only these uids
    #[arg(long, value_name = "UID,..", value_delimiter = ',')]
    uids: Vec<u16>,
    /// Device [default: the record's]
    #[arg(long, value_name = "DEVICE")]
    device: Option<Devices>,
    /// The sample set [default: the one the validator kept beside its records]
    #[arg(long = "sample-set", value_name = "FILE")]
    sample_set: Option<FullPath>,
    /// Largest deviation of a loss that counts as equal
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    tolerance: f64,
    /// Minutes one model may take [default: the subnet file's limit of a step]
    #[arg(long = "step-minutes", value_name = "N")]
    step_minutes: Option<u64>,
    /// Fetch nothing: models and tokenizer must be on disk
    #[arg(long)]
    offline: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
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
    #[command(flatten)]
    log: LoggingFlags,
}

pub(super) fn run(args: &ReplayArgs) -> Result<Exit, Failure> {
    args.log.init_quiet();
    let entry = args.record.entry()?;
    let record = &entry.record;
    let parameters = args.chain.parameters()?;
    let set = args.samples(record)?;
    let findings = block_on(args.replay(record, &parameters, &set))?;
    if args.json {
        term::json(&findings);
    } else {
        show(record, &findings);
    }
    Ok(args.verdict(&findings))
}

impl ReplayArgs {
    fn samples(&self, record: &StepRecord) -> Result<SampleSet, Failure> {
        let path = self.sample_set.clone().map_or_else(
            || {
                // .../vali-state/records/steps.jsonl beside .../vali-state/samples/
                let folder = self.record.record.parent().and_then(Path::parent);
                let beside = folder.unwrap_or(Path::new("/")).join("samples");
                samples::path_of(&beside, &record.samples.digest)
            },
            PathBuf::from,
        );
        let set = samples::read(&path).map_err(|reason| {
            Failure::new(Exit::BadInput, "the samples of the step can't be read")
                .because(reason)
                .hint("--sample-set names the file; a validator keeps its last 200 sets")
        })?;
        if set.digest != record.samples.digest {
            return Err(Failure::new(
                Exit::Refused,
                format_args!("{} is another sample set than the record's", path.display()),
            ));
        }
        Ok(set)
    }

    async fn replay(
        &self,
        record: &StepRecord,
        parameters: &Parameters,
        set: &SampleSet,
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
            models: self.models(record, parameters, competition, &store).await?,
            uids: self.uids.iter().copied().map(Uid).collect(),
            limit: Duration::from_secs(minutes.saturating_mul(60)),
        };
        let recorded = || record.engine.device.parse();
        let devices = self.device.clone().map_or_else(recorded, Ok);
        let devices = devices.map_err(|error| {
            Failure::of(Exit::BadInput, &error).hint("--device names another than the record's")
        })?;
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
            let asked = self.uids.is_empty() || self.uids.contains(&uid.0);
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

    fn verdict(&self, findings: &Findings) -> Exit {
        let equal = findings.models.values().all(|finding| match finding {
            Finding::Computed { deviation, .. } => deviation.0 <= self.tolerance,
            Finding::Skipped(_) => true,
            Finding::Failed(_) => false,
        });
        if equal && findings.ranking == Ranking::Stands {
            Exit::Ok
        } else {
            Exit::Failed
        }
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

fn show(record: &StepRecord, findings: &Findings) {
    let mut table = term::table(["uid", "recorded loss", "deviation", "note"]);
    for (uid, finding) in &findings.models {
        let loss = record.models.get(uid).map_or(f64::NAN, ModelRow::mean_loss);
        let (deviation, note) = match finding {
            Finding::Computed {
                deviation,
                same_plan,
            } => {
                let note = if *same_plan {
                    ""
                } else {
                    "tokenized or packed otherwise"
                };
                (format!("{:e}", deviation.0), note.to_owned())
            }
            Finding::Skipped(why) => ("-".to_owned(), why.clone()),
            Finding::Failed(fault) => ("-".to_owned(), fault.to_string()),
        };
        table.add_row([uid.to_string(), format!("{loss:.6}"), deviation, note]);
    }
    let computed = findings.computed();
    let of = findings.models.len();
    let ranking = match findings.ranking {
        Ranking::Stands if computed == of => "the ranking stands".to_owned(),
        Ranking::Stands => format!("the ranking stands as far as {computed} of {of} losses go"),
        Ranking::Changed => "the ranking does NOT stand".to_owned(),
        Ranking::Unknown => "no loss was computed: nothing is said of the ranking".to_owned(),
    };
    term::line(format_args!(
        "step {} · competition {}\n{table}\n{ranking}; largest deviation of a weight {:e}",
        findings.step, record.competition, findings.weight_deviation.0
    ));
}
