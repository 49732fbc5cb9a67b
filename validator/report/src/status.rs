//! The status of the validator: the one type that the service writes and that metrics, `validator
//! status` and tests read.
//!
//! The generic part, which any supervisor reads, is [`shared::status::Status`]; what only the
//! validator knows is [`Details`]. Fields are only added, each with a default, and [`SCHEMA`]
//! rises when an old reader would misread a new file.

use std::{collections::BTreeMap, fmt, path::Path};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shared::status::StatusError;

use crate::step_record::Receipt;
pub use crate::{
    device::DeviceStatus,
    problem::{Cause, Problem},
};
use subnet::{BlockNumber, CompetitionId, Hotkey, Netuid, Real, Uid};

/// The current schema of [`Details`].
pub const SCHEMA: u32 = 1;

/// The status file of a validator.
pub type Status = shared::status::Status<Details>;

/// Reads a status file; `None` if there is none. One of the next schema is read, as far as this
/// release knows it.
pub fn read(path: &Path) -> Result<Option<Status>, StatusError> {
    let status = Status::read(path)?;
    if let Some(found) = status.as_ref().map(|status| status.details.schema)
        && found > SCHEMA + 1
    {
        return Err(StatusError::TooNew {
            path: path.display().to_string(),
            found,
            newest: SCHEMA,
        });
    }
    Ok(status)
}

/// What a validator knows of itself beyond what every child says.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Details {
    /// See [`SCHEMA`]; 0 in files of releases before it.
    pub schema: u32,
    pub netuid: Netuid,
    /// Our hotkey, once the wallet is open.
    pub hotkey: Option<Hotkey>,
    /// Our uid; none until the chain is asked, or unregistered.
    pub uid: Option<Uid>,
    /// The devices, as the workers found them.
    pub device: Option<String>,
    /// What the workers take of each device.
    pub devices: BTreeMap<String, DeviceStatus>,
    /// The walls around the workers: which stand, and which don't.
    pub sandbox: Option<String>,
    /// Folder of the supervisor that started it.
    pub supervisor: Option<String>,
    /// How the start is going, or went.
    pub start: Start,
    pub activity: Activity,
    /// How far the evaluation is, while there is one.
    pub round: Option<RoundProgress>,
    /// The newest block seen.
    pub block: Option<BlockNumber>,
    /// The nodes of the chain that may be asked.
    pub endpoints: Vec<EndpointStatus>,
    /// When it was seen.
    pub block_at: Option<Timestamp>,
    /// Number of the newest step.
    pub step: Option<u64>,
    /// Competition of the newest step.
    pub competition: Option<CompetitionId>,
    /// Steps completed in this run.
    pub steps_done: u64,
    /// The last step completed in this run.
    pub last_step: Option<LastStep>,
    /// The last step of each competition, of this run or one before.
    pub last_steps: BTreeMap<CompetitionId, LastStep>,
    /// When weights were set and are due.
    pub weights: Option<WeightsClock>,
    /// The last weight set confirmed in this run.
    pub receipt: Option<Receipt>,
    /// What came of the commitments.
    pub models: ModelCounts,
    /// The hub and its mirrors, in the order of the command line.
    pub origins: Vec<OriginStatus>,
    /// Where the newest step's samples come from.
    pub sources: Option<Sources>,
    /// What the last epoch made of our weights.
    pub trust: Option<TrustNow>,
    /// Our place on the subnet.
    pub standing: Option<HotkeyStanding>,
    /// How much disk the models take.
    pub disk: Option<DiskUse>,
    /// What is wrong; each entry stays until its owner ends it.
    pub alarms: BTreeMap<Cause, Problem>,
}

/// A node of the chain.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointStatus {
    /// Its address without what may be secret.
    pub url: String,
    pub in_use: bool,
    /// Its newest block.
    pub block: Option<BlockNumber>,
    /// Blocks by which it was behind the freshest.
    pub lag: Option<u64>,
    pub latency_millis: Option<u64>,
    /// Moving share of requests that failed.
    pub error_rate: f64,
    /// Whether it tells what becomes of a transaction, if it says so.
    pub watches: Option<bool>,
    /// It has the state of a block so many blocks ago.
    pub state_depth: Option<u64>,
    /// Why it is not used, or was last left.
    pub problem: Option<String>,
}

/// The hub, or a mirror of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct OriginStatus {
    /// Its address without what may be secret.
    pub url: String,
    /// Listings and files that it served in this run.
    pub served: u64,
    /// How often it did not.
    pub failed: u64,
    /// Why it last did not, if it has served nothing since.
    pub problem: Option<String>,
}

/// Our validator trust, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TrustNow {
    /// The block it was read at.
    pub block: BlockNumber,
    pub validator_trust: f64,
    /// The best of the last epochs.
    pub best: f64,
}

/// How far the evaluation of a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoundProgress {
    /// Models whose losses are known, or that failed, in this attempt.
    pub done: usize,
    /// Models to evaluate in it.
    pub of: usize,
    pub began_at: Timestamp,
    /// When the newest was done.
    pub done_at: Option<Timestamp>,
}

impl RoundProgress {
    /// Returns the seconds that are left, if the models to come take as long as those that are done.
    pub fn left_seconds(&self) -> Option<i64> {
        let took = self.done_at?.duration_since(self.began_at).as_secs_f64();
        let left = self.of.saturating_sub(self.done) as f64;
        Some((took / self.done.max(1) as f64 * left).round() as i64)
    }
}

impl fmt::Display for RoundProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} models done", self.done, self.of)?;
        match self.left_seconds() {
            Some(left @ ..120) => write!(f, ", about {left} s left"),
            Some(left) => write!(f, ", about {} min left", left / 60),
            None => Ok(()),
        }
    }
}

/// What the chain gives our hotkey.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HotkeyStanding {
    pub permit: bool,
    /// Stake that counts, in the chain's coin.
    pub stake: f64,
}

/// The store of models, and the disk it lies on; in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DiskUse {
    pub folder: String,
    pub models: u64,
    /// Downloads that are not finished.
    pub unfinished: u64,
    /// The most that models may take.
    pub limit: Option<u64>,
    /// Free on the disk.
    pub free: u64,
    /// What is to stay free.
    pub keep_free: u64,
    /// The repository that would be removed first to make room.
    pub goes_first: Option<String>,
}

/// How a start is going. A process that ends before it is ready hands the count to the next one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Start {
    /// Which start in a row this is, counted from the last that became ready.
    pub attempt: u32,
    /// Connections to the chain that failed in this start.
    pub failed_connections: u32,
    /// What last went wrong, in this start or in the one before it that did not become ready.
    pub last_error: Option<String>,
    pub ready_at: Option<Timestamp>,
}

/// What the validator is doing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Activity {
    OpeningWallet,
    /// Connecting to the chain and taking the first snapshot.
    Connecting {
        network: String,
    },
    /// Opening the store of models.
    OpeningModels,
    /// Starting the workers and testing them.
    StartingWorkers,
    /// Choosing the state to go on from.
    ReadingState,
    /// No competition has anything new.
    WaitingForNews,
    /// A step was postponed and is tried again.
    WaitingAfterFault,
    /// Getting the samples of a step.
    FetchingSamples,
    /// Tokenizing the samples.
    Tokenizing {
        competition: CompetitionId,
    },
    Evaluating {
        /// Repository of the model begun last.
        model: String,
        competition: CompetitionId,
    },
    Stopped,
    /// Something that a later release does.
    #[default]
    #[serde(other)]
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LastStep {
    pub step: u64,
    pub competition: CompetitionId,
    /// Block of the chain snapshot it worked on.
    pub block: BlockNumber,
    pub samples: String,
    pub seconds: f64,
    pub finished_at: Timestamp,
    pub models: BTreeMap<Uid, ModelSummary>,
}

/// A model of the last step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelSummary {
    pub loss: Real,
    /// Share of its comparisons won.
    pub win_rate: Real,
    /// Running weight after the step.
    pub weight: Real,
}

/// When weights were set and are due, in blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct WeightsClock {
    /// Block of our last weight set, or of our registration.
    pub last_block: BlockNumber,
    /// Blocks since.
    pub age_blocks: u64,
    /// Block at which the next set is due.
    pub due_block: BlockNumber,
    /// Blocks since it was due.
    pub late_blocks: u64,
    /// Tries that failed since the last set.
    pub failed_tries: u32,
    /// No try before this block.
    pub next_try_block: BlockNumber,
}

/// Commitments by what came of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelCounts {
    pub verified: usize,
    pub refused: usize,
    /// To be looked at again.
    pub waiting: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Sources {
    /// The sources of the sample set, as `--samples` takes them.
    pub used: Vec<String>,
    /// A sentence for each source that failed.
    pub failing: Vec<String>,
    /// Age of the samples in seconds, if they come from the cache.
    pub cached_age: Option<u64>,
    /// Records that could be used, if the set was fetched by this run.
    pub usable: Option<u64>,
    /// Records that were dropped as unusable, refusing or doubled.
    pub dropped: Option<u64>,
}

impl fmt::Display for Activity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OpeningWallet => f.write_str("opening the wallet"),
            Self::Connecting { network } => write!(f, "connecting to {network}"),
            Self::OpeningModels => f.write_str("opening the models"),
            Self::StartingWorkers => f.write_str("starting the evaluation"),
            Self::ReadingState => f.write_str("reading the state"),
            Self::WaitingForNews => f.write_str("waiting for news"),
            Self::WaitingAfterFault => f.write_str("waiting after a fault"),
            Self::FetchingSamples => f.write_str("fetching samples"),
            Self::Tokenizing { competition } => write!(f, "tokenizing for {competition}"),
            Self::Evaluating { model, competition } => {
                write!(f, "evaluating {model} of {competition}")
            }
            Self::Stopped => f.write_str("stopped"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

impl Start {
    /// Returns the start after the one that `before` tells of: one that never became ready makes
    /// this a further attempt.
    #[must_use]
    pub fn after(before: Option<&Details>) -> Self {
        match before.map(|details| &details.start) {
            Some(start) if start.ready_at.is_none() => Self {
                attempt: start.attempt.saturating_add(1),
                last_error: start.last_error.clone(),
                ..Self::default()
            },
            _ => Self {
                attempt: 1,
                ..Self::default()
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shared::status::Health;

    use super::*;
    use crate::board::Board;

    fn example() -> Status {
        let (board, alarms) = Board::new(Details {
            hotkey: Some(Hotkey([1; 32])),
            activity: Activity::Tokenizing {
                competition: CompetitionId::from("l3"),
            },
            ..Details::default()
        });
        alarms.twin.raise(Health::Red, "a twin");
        board.status("test", Duration::from_secs(15))
    }

    #[test]
    fn a_later_release_may_know_more() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("status.json");
        let written = example();
        written.write(&path).unwrap();
        assert_eq!(read(&path).unwrap(), Some(written));
        let edit = |edit: &dyn Fn(&mut serde_json::Value)| {
            let mut json = serde_json::to_value(example()).unwrap();
            edit(&mut json["details"]);
            shared::file::write_atomic(&path, json.to_string().as_bytes()).unwrap();
            read(&path)
        };
        let next = edit(&|details| {
            details["schema"] = (SCHEMA + 1).into();
            details["mood"] = "good".into();
            details["activity"] = serde_json::json!({"is": "dreaming", "of": "sheep"});
            details["alarms"] = serde_json::json!({
                "boredom": {"health": "yellow", "since": "1970-01-01T00:00:00Z", "text": "dull"}
            });
        });
        let details = next.unwrap().unwrap().details;
        assert_eq!(details.activity, Activity::Unknown);
        assert_eq!(details.alarms[&Cause::Unknown].text, "dull");
        let after = edit(&|details| details["schema"] = (SCHEMA + 2).into());
        assert!(matches!(after, Err(StatusError::TooNew { .. })));
    }

    #[test]
    fn a_file_of_the_release_before_is_read() {
        let details: Details = serde_json::from_str(
            r#"{"block":17,"competition":"l3","device":"cpu","netuid":6,"step":3,"steps_done":2,
                "hotkey":"5C62Ck4UrFPiBtoCmeSrgF7x9yv9mn38446dhCpsi2mLHiFT","uid":4,
                "models":{"verified":2,"refused":1,"waiting":0},
                "weights":{"last_block":14,"age_blocks":3,"due_block":24,"late_blocks":0,
                    "failed_tries":0}}"#,
        )
        .unwrap();
        assert_eq!((details.schema, details.block), (0, Some(17)));
        assert_eq!(details.weights.unwrap().due_block, 24);
        assert_eq!(details.hotkey, Some(Hotkey([1; 32])));
    }

    #[test]
    fn the_supervisor_reads_it_without_knowing_a_validator() {
        let written = example();
        let text = serde_json::to_string(&written).unwrap();
        let foreign: shared::status::Status = serde_json::from_str(&text).unwrap();
        assert_eq!(foreign.problems, ["a twin"]);
        assert_eq!(foreign.phase, "tokenizing for l3");
        let passed_on = serde_json::from_value::<Details>(foreign.details).unwrap();
        assert_eq!(passed_on, written.details);
    }
}
